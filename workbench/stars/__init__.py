"""Finding and measuring stars: where they are, how bright, how sharp, and how good a frame is.

Colour frames are searched on the half-size green plane (the mean of the two greens of every 2 x 2 cell), mono
frames as they are.  Positions are always given in pixels of the full frame, the centre of its first pixel at
(0, 0).
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
