"""Measure a sensor: read noise, gain, dark current, uniformity, each with an error from the data."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=[
        "bias",
        "cosmic_rays",
        "dark",
        "demonstrate",
        "emva",
        "fidelity",
        "gain",
        "law",
        "transfer",
        "uniformity",
    ],
    submod_attrs={
        "bias": ["read_noise"],
        "cosmic_rays": ["find_cosmic_rays"],
        "dark": ["Darks", "dark_current", "dark_signal", "measure_dark"],
        "demonstrate": ["dark_noise", "dark_subtraction", "shot_noise_snr"],
        "emva": ["emva1288", "emva_dark_current", "emva_points", "fit_emva_gain"],
        "fidelity": [
            "Fidelity",
            "count_codes",
            "descaled_gain",
            "fidelity_to_json",
            "hot_pixel_filter",
            "inspect_frames",
            "missing_codes",
            "noise_texture",
        ],
        "gain": ["fit_gain", "unity_gain_iso"],
        "law": ["dark_law"],
        "transfer": ["photon_transfer"],
        "uniformity": [
            "channel_flat",
            "dcnu_histogram",
            "find_sensor_defects",
            "fixed_pattern",
            "half_saturated",
            "hot_pixels",
            "measure_dsnu",
            "measure_prnu",
            "stack_cube",
            "stack_frames",
            "vignetting",
        ],
    },
)
