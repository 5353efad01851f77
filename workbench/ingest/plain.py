"""Pixels that lie in a file as they are, so that any part of a frame can be read in place; PGM files, which do.

PGM is a binary grey map as ``dcraw -4 -D`` writes it: 16 bits, big-endian, no metadata.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import FrameReadError
from ..core.parallel import frame_memory
from .metadata import FrameInfo, require_file

_GAP = rb"(?:\s|#[^\n]*\n)+"
_PGM_HEADER = re.compile(rb"P5" + 3 * (_GAP + rb"(\d+)") + rb"\s")


@dataclass(frozen=True)
class PlainPixels:
    """Where and how a file keeps the uncompressed pixels of a frame's visible area.

    ``offset`` is the first byte of the full area of ``full_shape``, ``stored`` its numpy type with
    byte order; the visible area begins at ``margins`` (top, left).  ``flip`` is XORed
    onto every pixel (FITS keeps unsigned numbers with a flipped sign bit).
    """

    path: Path
    offset: int
    stored: str
    full_shape: tuple[int, int]
    margins: tuple[int, int] = (0, 0)
    visible_shape: tuple[int, int] | None = None
    flip: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the visible area."""
        return self.visible_shape or self.full_shape

    @property
    def dtype(self) -> np.dtype:
        """Type of the numbers as they are returned, in native byte order."""
        return np.dtype(self.stored).newbyteorder("=")

    def read(self, rows: slice = slice(None), columns: slice = slice(None), area: str = "visible") -> np.ndarray:
        """Return the pixels of some rows and columns in native byte order; no other rows are read from disk."""
        (height, width), left = (self.shape, self.margins[1]) if area == "visible" else (self.full_shape, 0)
        first, last, step = rows.indices(height)
        pixels = self._read_whole_rows(first, max(first, last), area)[::step, left : left + width]
        return np.ascontiguousarray(pixels[:, columns])

    def read_rows(self, first: int, last: int, out: np.ndarray) -> None:
        """Read rows of the visible area into a flat array of `dtype`."""
        if out.dtype.itemsize != self.dtype.itemsize:
            raise FrameReadError(self.path, f"holds {self.dtype} pixels where {out.dtype} ones were planned")
        width, left = self.shape[1], self.margins[1]
        flat = out[: (last - first) * width]
        if width == self.full_shape[1]:
            self._fill(first, flat, "visible")
        else:
            whole = self._read_whole_rows(first, last, "visible")
            np.copyto(flat.reshape(-1, width), whole[:, left : left + width])

    def _read_whole_rows(self, first: int, last: int, area: str) -> np.ndarray:
        rows = frame_memory((last - first, self.full_shape[1]), self.dtype)
        self._fill(first, rows.reshape(-1), area)
        return rows

    def _fill(self, first: int, flat: np.ndarray, area: str) -> None:
        """Fill a flat array with whole rows of the file, from row `first` of the area.

        Ordinary reads, not a memory map: mapped pages count as this process's memory, and cost more than their copy.
        """
        stored = np.dtype(self.stored)
        above = self.margins[0] if area == "visible" else 0
        wanted, got = flat.view(np.uint8).data, 0
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(self.offset + (above + first) * self.full_shape[1] * stored.itemsize)
                while got < len(wanted):
                    count = file.readinto(wanted[got:])
                    if not count:
                        raise FrameReadError(self.path, "is cut short: it ended while it was being read")
                    got += count
        except OSError as problem:
            raise FrameReadError(self.path, f"cannot be read: {problem.strerror or problem}") from problem
        if not stored.isnative:
            flat.byteswap(inplace=True)
        if self.flip:
            flat ^= flat.dtype.type(self.flip)

    def require_whole(self) -> PlainPixels:
        """Return these pixels if the file is long enough to hold them."""
        needed = self.offset + np.dtype(self.stored).itemsize * math.prod(self.full_shape)
        length = self.path.stat().st_size
        if length < needed:
            raise FrameReadError(
                self.path,
                f"is cut short: {length:,} bytes of the {needed:,} that its own header promises "
                f"({100 * length / needed:.1f} %); copy it again",
            )
        return self


def plain_pgm(path: str | Path) -> PlainPixels:
    """Return where the 16-bit pixels of a PGM lie in its file.

    Raises
    ------
    FrameReadError
        If the file is not a binary PGM, has eight bits a pixel, or is cut short.

    Notes
    -----
    Format: netpbm's ``pgm(5)``: ``P5``, width, height, maximum, one white space, then the samples,
    most significant byte first.
    """
    path = require_file(path)
    with path.open("rb") as file:
        match = _PGM_HEADER.match(file.read(4096))
    if not match:
        raise FrameReadError(path, "is not a binary PGM (P5) with width, height and maximum; make it with dcraw -4 -D")
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
