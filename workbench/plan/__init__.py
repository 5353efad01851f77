"""What to shoot next: frames that a full characterisation lacks, and how long the subs should be."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
