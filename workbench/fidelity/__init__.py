"""Is my raw file raw?  What a camera does to its numbers before it saves them."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
