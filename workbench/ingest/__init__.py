"""Reading and writing frames: camera RAW, DNG, FITS, XISF, TIFF, SER, PGM, and folders of them."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
