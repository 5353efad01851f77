"""Compiled loops: kept on disk, and compiled again when any file that they are made from has changed.

Numba keeps a compiled loop until its own file changes.  A loop also holds what it takes from other files: the loops
that it calls, the records that it is given, constants.  Here all of them count.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])
_CONFIG: Any = numba.config
_ONE_AT_A_TIME = threading.Lock()


def kernel(**options: Any) -> Callable[[F], F]:
    """Return a decorator that compiles a loop without the GIL and keeps it on disk; `options` are those of numba.njit.

    Kept loops lie in ``__pycache__`` next to their module, or where NUMBA_CACHE_DIR says.

    Examples
    --------
    >>> @kernel(error_model="numpy")
    ... def half(x):
    ...     return x / 2
    >>> half(3.0)
    1.5
    """

    def compiled(function: F) -> F:
        file = Path(function.__code__.co_filename)
        if not file.is_file():  # typed by hand
            return numba.njit(nogil=True, **options)(function)
        stamp = kernel_stamp(function)
        with _ONE_AT_A_TIME:
            usual = _CONFIG.CACHE_DIR
            home = Path(usual) if usual else file.parent / "__pycache__"
            if usual or os.access(file.parent, os.W_OK):  # else where numba keeps them for the user
                _CONFIG.CACHE_DIR = str(home / f"kernels-{stamp}")
            try:
                loop = numba.njit(nogil=True, cache=True, **options)(function)
            finally:
                _CONFIG.CACHE_DIR = usual
        loop.stamp = stamp
        return loop

    return compiled


def is_compiled(loop: Any) -> bool:
    """Return whether a loop of a `kernel` has been compiled on this machine before, so that it is only loaded."""
    return bool(loop.overloads) or any(Path(loop.stats.cache_path or "").glob(f"*.{loop.__name__}-*.nbi"))


def kernel_stamp(function: Callable[..., Any]) -> str:
    """Return a digest of a loop's file and of all that the file's loops take from elsewhere in the package."""
    parts = [_content(function.__code__.co_filename)]
    for name, value in sorted(function.__globals__.items(), key=lambda item: item[0]):
        if getattr(value, "__module__", None) == function.__module__:
            continue
        if isinstance(value, type) and issubclass(value, tuple):
            parts.append(f"{name} {value.__module__} {getattr(value, '__annotations__', '')}")
        elif isinstance(stamp := getattr(value, "stamp", None), str):
            parts.append(f"{name} {stamp}")
        elif isinstance(value, bool | int | float | str | tuple) and not name.startswith("__"):
            parts.append(f"{name} {value!r}")
        elif isinstance(value, set):  # what fast arithmetic may do
            parts.append(f"{name} {sorted(map(str, value))}")
    return hashlib.sha1("\n".join(parts).encode(), usedforsecurity=False).hexdigest()[:12]


@cache
def _content(file: str) -> str:
    return hashlib.sha1(Path(file).read_bytes(), usedforsecurity=False).hexdigest()
