"""Calibrate: masters, defects, flats; apply them, with the variance."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=[
        "apply",
        "bands",
        "combine",
        "defects",
        "enough",
        "flat_audit",
        "masters",
        "masterset",
        "matching",
        "noise",
        "residuals",
        "steps",
        "store",
    ],
    submod_attrs={
        "apply": ["Tables", "calibrate", "calibrate_window"],
        "defects": ["defects_in_lights", "find_defects"],
        "enough": ["added_noise", "frames_needed", "master_noise"],
        "flat_audit": ["audit_flat"],
        "masters": ["master_bias", "master_dark", "master_flat"],
        "masterset": ["MasterSet", "Masters", "make_masters"],
        "matching": ["Group", "plan_groups"],
        "noise": ["SensorNoise", "from_sensor"],
        "steps": ["calibration_steps", "step_noise"],
        "store": ["open_master", "save_master"],
    },
)
