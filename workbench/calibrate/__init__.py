"""Calibrate: masters, defects, flats; apply them, with the variance."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["apply", "combine", "defects", "masters", "masterset", "matching", "noise", "store"],
    submod_attrs={
        "apply": ["Tables", "calibrate", "calibrate_window"],
        "defects": ["find_defects"],
        "masters": ["master_bias", "master_dark", "master_flat"],
        "masterset": ["MasterSet", "Masters", "make_masters"],
        "matching": ["Group", "plan_groups"],
        "noise": ["SensorNoise", "from_sensor"],
        "store": ["open_master", "save_master"],
    },
)
