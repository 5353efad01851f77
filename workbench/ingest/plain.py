"""Pixels that lie in a file as they are, so that any part of a frame can be read in place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..buffers import frame_memory
from ..errors import FrameReadError


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

    def read(self, rows: slice = slice(None), columns: slice = slice(None), area: str = "visible") -> np.ndarray:
        """Return the pixels of some rows and columns in native byte order; only their pages are read from disk."""
        pixels = np.memmap(self.path, dtype=self.stored, mode="r", offset=self.offset, shape=self.full_shape)
        if area == "visible":
            (top, left), (height, width) = self.margins, self.shape
            pixels = pixels[top : top + height, left : left + width]
        pixels = pixels[rows, columns]
        native = frame_memory(pixels.shape, pixels.dtype.newbyteorder("="))
        np.copyto(native, pixels)
        if self.flip:
            native ^= native.dtype.type(self.flip)
        return native

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
