"""Charts as files: for paper, for a page, for a blog; and their numbers."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
