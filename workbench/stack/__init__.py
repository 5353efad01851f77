"""Stack frames: survey, normalise, resample, reject, combine; the result as FITS."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["engine", "fits_out", "normalise", "reject", "resample", "survey", "tile"],
    submod_attrs={
        "engine": ["Plan", "PlannedFrame", "open_planes", "save_planes", "stack_bands"],
        "fits_out": ["open_stack"],
        "normalise": ["background_surfaces", "frame_weights", "star_ratio"],
        "reject": ["METHODS"],
        "resample": ["mean_squared_weight"],
        "survey": ["FrameSurvey", "prepare_planes", "survey_frame"],
    },
)
