"""Binary grey maps as ``dcraw -4 -D`` writes them: 16 bits, big-endian, no metadata."""

from __future__ import annotations

import re
from pathlib import Path

from ..core.errors import FrameReadError
from .metadata import FrameInfo, require_file
from .plain import PlainPixels

_GAP = rb"(?:\s|#[^\n]*\n)+"
_HEADER = re.compile(rb"P5" + 3 * (_GAP + rb"(\d+)") + rb"\s")


def plain_pgm(path: str | Path) -> PlainPixels:
    """Return where the 16-bit pixels of a PGM lie in its file.

    Raises
    ------
    FrameReadError
        If the file is no binary PGM, has eight bits a pixel, or is cut short.

    Notes
    -----
    Format: netpbm's ``pgm(5)``: ``P5``, width, height, maximum, one white space, then the samples,
    most significant byte first.
    """
    path = require_file(path)
    with path.open("rb") as file:
        match = _HEADER.match(file.read(4096))
    if not match:
        raise FrameReadError(path, "is no binary PGM (P5) with width, height and maximum; make it with dcraw -4 -D")
    width, height, maximum = map(int, match.groups())
    if not (width and height and 0 < maximum < 65536):
        raise FrameReadError(path, f"has an impossible PGM header: {width} x {height}, maximum {maximum}")
    if maximum < 256:
        raise FrameReadError(
            path, "has eight bits a pixel: the camera's values are lost; make it again with dcraw -4 -D"
        )
    return PlainPixels(path, match.end(), ">u2", (height, width)).require_whole()


def pgm_info(path: str | Path) -> FrameInfo:
    """Return a PGM's size; it records nothing else."""
    pixels = plain_pgm(path)
    height, width = pixels.full_shape
    return FrameInfo(path=pixels.path, format="pgm", height=height, width=width, full_shape=pixels.full_shape)
