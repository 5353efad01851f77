"""What every station stands on: cubes, statistics, the noise model, results, files, work in parallel."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
