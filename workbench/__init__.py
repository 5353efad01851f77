"""Astrophoto Workbench: from what the sensor really does to a finished deep-sky picture."""

import gc as _gc
from typing import Any as _Any

import lazy_loader as _lazy

__version__ = "0.1.0"

_load, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)


def __getattr__(name: str) -> _Any:
    part = _load(name)
    if not _gc.isenabled():  # a command begins: what it has loaded stays and is never searched for garbage
        _gc.freeze()
        _gc.enable()
    return part
