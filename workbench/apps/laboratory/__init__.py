"""Figures of the course that answer to controls: how even the pixels are, what the dark library predicts."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(__name__, submodules=["evenness", "library"])
