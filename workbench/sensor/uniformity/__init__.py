"""Uniformity: DSNU and PRNU with their row, column and pixel parts, defects, vignetting, pictures of them."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["defects", "maps", "measure", "parts", "stacks"],
    submod_attrs={
        "defects": ["find_sensor_defects", "write_defects"],
        "maps": ["dcnu_histogram", "hot_pixels", "vignetting"],
        "measure": ["measure_dsnu", "measure_prnu"],
        "parts": ["highpass", "spatial_parts"],
        "stacks": ["FrameStack", "stack_frames"],
    },
)
