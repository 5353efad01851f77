"""A result in, a HoloViews object out: the blog's charts in one style; they compute only what is drawn."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=[
        "budget",
        "calibration",
        "dark",
        "diagram",
        "fidelity",
        "finishing",
        "gain",
        "laboratory",
        "outliers",
        "particles",
        "pictures",
        "planning",
        "registry",
        "stacking",
        "theme",
        "words",
    ],
    submod_attrs={
        "budget": ["noise_budget"],
        "calibration": ["calibration_steps", "flat_correction", "flat_left", "master_noise"],
        "gain": ["iso_to_gain", "ptc", "read_noise_vs_iso", "shot_noise_snr"],
        "dark": ["dark_current_vs_temperature", "dark_current_vs_time", "dark_shot_noise_histogram", "dcnu_histogram"],
        "laboratory": ["dark_gain", "dynamic_range", "linearity", "pixel_noise", "read_noise_split"],
        "diagram": ["ccd_vs_cmos", "shot_noise_demo"],
        "fidelity": ["hot_pixel_filter", "missing_codes", "noise_spectrum"],
        "finishing": ["background", "star_fluxes", "stretch_after", "stretch_before"],
        "outliers": ["pixel_decisions", "rejection"],
        "particles": ["cosmic_rays"],
        "planning": ["star_elongation", "sub_length"],
        "pictures": ["dark_subtraction", "hot_pixels", "vignette"],
        "registry": ["REGISTRY"],
        "stacking": ["alignment_residuals", "snr_vs_frames", "stack_before_after", "transform_models"],
    },
)
