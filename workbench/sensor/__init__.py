"""Measure a sensor: read noise, gain, dark current, uniformity, each with an error from the data."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
