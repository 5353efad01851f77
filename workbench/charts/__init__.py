"""A result in, a HoloViews object out: the blog's charts in one style; they compute only what is drawn."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
