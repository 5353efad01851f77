"""Read noise beyond pairs: clipped bias frames, pixel by pixel, before and after the gain."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["clipped", "pixels", "split"],
    submod_attrs={
        "clipped": ["ClippedFit", "fit_clipped"],
        "pixels": ["noise_distribution", "noise_map"],
        "split": ["dynamic_range", "split_read_noise"],
    },
)
