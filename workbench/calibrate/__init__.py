"""Calibrate: masters, defects, flats; apply them, with the variance."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=[
        "apply",
        "bands",
        "combine",
        "defects",
        "flat_audit",
        "masters",
        "masterset",
        "matching",
        "noise",
        "residuals",
        "store",
    ],
    submod_attrs={
        "apply": ["Tables", "calibrate", "calibrate_window"],
        "defects": ["defects_in_lights", "find_defects"],
        "flat_audit": ["audit_flat"],
        "masters": ["master_bias", "master_dark", "master_flat"],
        "masterset": ["MasterSet", "Masters", "make_masters"],
        "matching": ["Group", "plan_groups"],
        "noise": ["SensorNoise", "from_sensor"],
        "store": ["open_master", "save_master"],
    },
)
