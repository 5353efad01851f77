"""What only the lessons need: predictions, exercises, the figures of single notebooks."""

import sys as _sys

import lazy_loader as _lazy

# HoloViews loads nbformat, and with it a grammar of web addresses that takes 1.5 s to build and is not used here
_sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
