"""Read noise beyond pairs: clipped bias frames, pixel by pixel, before and after the gain."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__, submodules=["clipped"], submod_attrs={"clipped": ["ClippedFit", "fit_clipped"]}
)
