"""Measured over the sensor: uniformity, patterns, defects, cosmic rays, EMVA 1288."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
