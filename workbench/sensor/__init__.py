"""Measure a sensor: read noise, gain, dark current, uniformity, each with an error from the data."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=[
        "bias",
        "codes",
        "cosmic_rays",
        "dark",
        "demonstrate",
        "emva",
        "fidelity",
        "gain",
        "hotfilter",
        "law",
        "texture",
        "transfer",
        "uniformity",
        "verdicts",
    ],
    submod_attrs={
        "bias": ["read_noise"],
        "codes": ["count_codes", "missing_codes"],
        "cosmic_rays": ["find_cosmic_rays"],
        "dark": ["Darks", "dark_current", "dark_signal", "measure_dark"],
        "demonstrate": ["dark_noise", "dark_subtraction", "shot_noise_snr"],
        "emva": ["emva_dark_current", "fit_emva_gain"],
        "fidelity": ["Fidelity", "descaled_gain", "fidelity_to_json", "inspect_frames"],
        "gain": ["fit_gain", "unity_gain_iso"],
        "hotfilter": ["hot_pixel_filter"],
        "law": ["dark_law"],
        "texture": ["noise_texture"],
        "transfer": ["photon_transfer"],
        "uniformity": ["dcnu_histogram", "hot_pixels", "vignetting"],
    },
)
