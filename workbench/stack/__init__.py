"""Stack frames: survey, normalise, resample, reject, combine; the result as FITS.

`aligned` and `stack` are the verbs on cubes, for looking at every step; the engine does the same from files.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
