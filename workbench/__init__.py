"""Astrophoto Workbench: from what the sensor really does to a finished deep-sky picture."""

import lazy_loader as _lazy

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=[
        "align",
        "apps",
        "bayer",
        "calibrate",
        "camera",
        "charts",
        "export",
        "finish",
        "frames",
        "ingest",
        "results",
        "runs",
        "sensor",
        "stack",
    ],
    submod_attrs={
        "errors": ["FrameReadError", "StageError", "WorkbenchError"],
        "frames": ["check_cube", "make_cube"],
        "ingest": ["open_folder", "read_frame"],
        "results": ["open_sensor"],
        "runs": ["characterize", "sample_folder"],
    },
)
