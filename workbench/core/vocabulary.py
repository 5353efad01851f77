"""What is measured of a sensor: names, units and titles."""

# of a setting (ISO) and channel, with errors: unit
SETTINGS = {"black_level": "ADU", "gain": "e-/ADU", "read_noise": "e- rms"}
# likewise, since version 2
DETAILS = {
    "dynamic_range": "stops",
    "full_well": "e-",
    "linearity_error": "%",
    "gain_from_darks": "e-/ADU",
    "curvature": "1/e-",
}
# likewise, without errors
NUMBERS = {"linearity_error_min": "%", "linearity_error_max": "%", "gain_from_darks_agrees": "1"}
# words of a setting and channel: title
METHODS = {
    "read_noise_method": "how the read noise was measured",
    "full_well_method": "how saturation was found",
    "full_well_limit": "what saturates first",
}
# of the camera, with errors: unit
SPLIT = {"noise_before_gain": "e- rms", "noise_after_gain": "ADU rms", "invariance_iso": "ISO"}
LAW = {
    "doubling_temperature": "K",
    "dark_current_reference": "e-/s/pixel",
    "activation_energy": "eV",
    "dark_current_reference_arrhenius": "e-/s/pixel",
}
# likewise, without errors
LAW_CORRELATIONS = ("doubling_correlation", "activation_correlation")
# of a setting and channel: title
COUNTS = {"frames_used": "frames used", "bias_frames": "bias frames used", "flat_frames": "flats used"}
# what is kept as it stands in the file: JSON in the attribute ``blocks``
BLOCKS = ("dsnu", "prnu", "dcnu", "defects", "emva", "fidelity")
TITLES = {
    "black_level": "black level",
    "gain": "gain",
    "read_noise": "read noise",
    "unity_gain_iso": "unity-gain ISO",
    "dark_current": "dark current",
    "dark_current_median": "median dark current",
    "doubling_temperature": "doubling temperature of the dark current",
    "dark_current_reference": "dark current at the reference temperature",
    "reference_temperature": "reference temperature",
    "activation_energy": "activation energy of the dark current",
    "dark_current_reference_arrhenius": "dark current at the reference temperature by the Arrhenius law",
    "doubling_correlation": "correlation of the errors of the doubling law",
    "activation_correlation": "correlation of the errors of the Arrhenius law",
    "dynamic_range": "dynamic range",
    "full_well": "full well",
    "linearity_error": "linearity error",
    "linearity_error_min": "least deviation from the line",
    "linearity_error_max": "greatest deviation from the line",
    "gain_from_darks": "gain from darks alone",
    "gain_from_darks_agrees": "whether it agrees with the flats' gain",
    "curvature": "curvature of the photon transfer curve",
    "noise_before_gain": "read noise before the gain",
    "noise_after_gain": "read noise after the gain",
    "invariance_iso": "ISO from which nothing is gained",
}
