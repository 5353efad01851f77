"""Align frames: find their stars, match the patterns, fit the transform between frames."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
