"""Stack frames: survey, normalise, resample, reject, combine; the result as FITS.

`aligned` and `stack` are the verbs on cubes, for looking at every step; the engine does the same from files.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=[
        "cubes",
        "engine",
        "fits_out",
        "growth",
        "normalise",
        "pixel",
        "reject",
        "resample",
        "rule",
        "survey",
        "tile",
        "trial",
    ],
    submod_attrs={
        "cubes": ["aligned", "normalisation", "stack"],
        "engine": ["Plan", "PlannedFrame", "open_planes", "save_planes", "stack_bands"],
        "fits_out": ["open_stack"],
        "growth": ["before_after", "noise_against_frames"],
        "normalise": ["background_surfaces", "frame_weights", "star_ratio"],
        "pixel": ["busiest_pixel", "explain", "inspect_pixel"],
        "reject": ["METHODS"],
        "resample": ["mean_squared_weight"],
        "rule": ["reject_samples"],
        "survey": ["FrameSurvey", "prepare_planes", "survey_frame"],
        "trial": ["plant", "rejection_trial"],
    },
)
