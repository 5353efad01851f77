"""The virtual camera: frames whose truth is known."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["firmware", "night", "sensor", "sky"],
    submod_attrs={
        "firmware": ["save_frame", "stock"],
        "night": ["Night", "open_night", "write_night"],
        "sensor": ["VirtualSensor", "d7000", "expose"],
        "sky": [
            "Sky",
            "Trail",
            "View",
            "cosmic_rays",
            "dust",
            "make_night",
            "make_sky",
            "picture",
            "render",
            "star_table",
        ],
    },
)
