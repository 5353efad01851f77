"""Binary grey maps as ``dcraw -4 -D`` writes them: 16 bits, big-endian, no metadata."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..errors import FrameReadError
from .metadata import FrameInfo, require_file

_GAP = rb"(?:\s|#[^\n]*\n)+"
_HEADER = re.compile(rb"P5" + 3 * (_GAP + rb"(\d+)") + rb"\s")


def read_pgm(path: str | Path) -> np.ndarray:
    """Return the uint16 (y, x) pixels of a 16-bit PGM.

    Raises
    ------
    FrameReadError
        If the file is no binary PGM, has eight bits a pixel, or is cut short.

    Notes
    -----
    Format: netpbm's ``pgm(5)``: ``P5``, width, height, maximum, one white space, then the samples,
    most significant byte first.
    """
    info, offset = _header(path)
    return (
        np.fromfile(info.path, dtype=">u2", offset=offset, count=info.height * info.width)
        .astype(np.uint16)
        .reshape(info.height, info.width)
    )


def read_pgm_info(path: str | Path) -> FrameInfo:
    """Return a PGM's size; it records nothing else."""
    return _header(path)[0]


def _header(path: str | Path) -> tuple[FrameInfo, int]:
    path = require_file(path)
    with path.open("rb") as file:
        head = file.read(4096)
    match = _HEADER.match(head)
    if not match:
        raise FrameReadError(path, "is no binary PGM (P5) with width, height and maximum; make it with dcraw -4 -D")
    width, height, maximum = map(int, match.groups())
    if not (width and height and 0 < maximum < 65536):
        raise FrameReadError(path, f"has an impossible PGM header: {width} x {height}, maximum {maximum}")
    if maximum < 256:
        raise FrameReadError(
            path, "has eight bits a pixel: the camera's values are lost; make it again with dcraw -4 -D"
        )
    needed, length = match.end() + 2 * width * height, path.stat().st_size
    if length < needed:
        raise FrameReadError(path, f"is cut short: {length:,} bytes of {needed:,}; make or copy it again")
    info = FrameInfo(path=path, format="pgm", height=height, width=width, full_shape=(height, width))
    return info, match.end()
