"""Uniformity: DSNU and PRNU with their row, column and pixel parts, defects, vignetting, pictures of them."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["defects", "maps", "measure", "parts", "patterns", "stacks"],
    submod_attrs={
        "defects": ["find_sensor_defects"],
        "maps": ["dcnu_histogram", "hot_pixels", "vignetting"],
        "measure": ["channel_flat", "half_saturated", "measure_dsnu", "measure_prnu", "stack_cube"],
        "parts": ["highpass", "spatial_parts"],
        "patterns": ["fixed_pattern"],
        "stacks": ["FrameStack", "stack_frames"],
    },
)
