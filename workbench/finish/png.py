"""PNG with sixteen bits a channel, a colour profile and text inside, written and read fast.

Pillow writes no 16-bit colour.  The format is short (W3C PNG specification, third edition): chunks with a length,
a name and a checksum; the rows, each after the number of its filter, as one zlib stream.  Bands of rows are
compressed in threads and joined, as pigz does: each ends on a byte boundary.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numba
import numpy as np

from ..core.errors import FrameReadError, WorkbenchError
from .picture import in_bands

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BAND = 256  # rows compressed together
_NONE, _UP = 0, 2  # row filters
_COLOURS = {1: 0, 3: 2}  # channels → PNG colour type


def write_png(
    file: BinaryIO, values: np.ndarray, *, profile: bytes | None = None, text: Mapping[str, str] | None = None
) -> None:
    """Write uint8 or uint16 values (y, x) or (y, x, 3) as PNG.

    Noise does not compress: where deflate's search for repetitions gains less than 8 % on a sample of rows, only
    Huffman's code is used, which is several times faster.

    Parameters
    ----------
    profile
        An ICC profile, of the kind (grey, RGB) of the values.
    text
        Keyword → text (any Unicode), as compressed international text chunks.
    """
    if (
        values.dtype not in (np.uint8, np.uint16)
        or values.ndim not in (2, 3)
        or (values.shape[2:] or (1,))[0] not in _COLOURS
    ):
        raise WorkbenchError(f"a PNG is written from 8 or 16-bit grey or RGB values, not {values.dtype} {values.shape}")
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else 3
    depth = 8 * values.dtype.itemsize
    big_endian = values.dtype.newbyteorder(">")

    def rows_of(rows: slice, row_filter: int) -> np.ndarray:
        above = max(rows.start - 1, 0)
        raw = np.ascontiguousarray(values[above : rows.stop].astype(big_endian)).reshape(rows.stop - above, -1)
        raw = raw.view(np.uint8)
        out = np.empty((rows.stop - rows.start, raw.shape[1] + 1), np.uint8)
        out[:, 0] = row_filter
        own = raw[rows.start - above :]
        out[:, 1:] = own
        if row_filter == _UP:
            previous = raw[: len(own)] if rows.start else np.vstack([np.zeros_like(raw[:1]), raw[:-1]])
            out[:, 1:] -= previous
        return out

    row_filter, level, strategy = _NONE, 1, zlib.Z_HUFFMAN_ONLY
    middle = slice(max(height // 2 - 32, 0), min(height // 2 + 32, height))
    plain = len(_deflate(rows_of(middle, _NONE), 1, zlib.Z_HUFFMAN_ONLY, last=True))
    searched = len(_deflate(rows_of(middle, _UP), 6, zlib.Z_DEFAULT_STRATEGY, last=True))
    if searched < 0.92 * plain:
        row_filter, level, strategy = _UP, 6, zlib.Z_DEFAULT_STRATEGY

    def compress(rows: slice) -> tuple[bytes, int, int]:
        data = rows_of(rows, row_filter)
        return _deflate(data, level, strategy, last=rows.stop == height), zlib.adler32(data), data.size

    header = struct.pack(">IIBBBBB", width, height, depth, _COLOURS[channels], 0, 0, 0)
    file.write(_SIGNATURE + _chunk(b"IHDR", header))
    if profile:
        file.write(_chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(profile, 9)))
    for keyword, words in (text or {}).items():
        body = keyword.encode("latin-1") + b"\0\1\0\0\0" + zlib.compress(words.encode(), 9)
        file.write(_chunk(b"iTXt", body))
    bands = in_bands(compress, height, band=_BAND)
    checksum = 1
    for number, (body, adler, size) in enumerate(bands):
        checksum = _join_adler(checksum, adler, size)
        start = b"\x78\x01" if number == 0 else b""
        end = struct.pack(">I", checksum) if number == len(bands) - 1 else b""
        file.write(_chunk(b"IDAT", start + body + end))
    file.write(_chunk(b"IEND", b""))


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))


def _deflate(data: np.ndarray, level: int, strategy: int, *, last: bool) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
    return packer.compress(data) + packer.flush(zlib.Z_FINISH if last else zlib.Z_FULL_FLUSH)


def _join_adler(first: int, second: int, size: int) -> int:
    """The Adler-32 of two pieces from those of each (as zlib's adler32_combine): both are sums modulo 65521."""
    prime = 65521
    low = (first & 0xFFFF) + (second & 0xFFFF) - 1
    high = (first >> 16) + (second >> 16) + size % prime * ((first & 0xFFFF) - 1)
    return (high % prime) << 16 | low % prime


def read_png(path: str | Path) -> tuple[np.ndarray, bytes | None, dict[str, str]]:
    """Return the values (8 or 16 bits, (y, x) or (y, x, 3)), the ICC profile and the texts of a PNG.

    Raises
    ------
    FrameReadError
        If the file is no PNG, is damaged, or of a kind that is not written here (palette, transparency, interlaced).
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise FrameReadError(path, f"cannot be read: {problem.strerror or problem}") from problem
    if not content.startswith(_SIGNATURE):
        raise FrameReadError(path, "is not a PNG file")
    position, data, profile, texts, header = len(_SIGNATURE), [], None, {}, None
    ended = False
    while position + 12 <= len(content) and not ended:
        length, name = struct.unpack(">I4s", content[position : position + 8])
        body = content[position + 8 : position + 8 + length]
        stored = content[position + 8 + length : position + 12 + length]
        if len(stored) < 4 or struct.unpack(">I", stored)[0] != zlib.crc32(body, zlib.crc32(name)):
            raise FrameReadError(path, "is damaged: a checksum is wrong or the file is cut short")
        position += 12 + length
        if name == b"IHDR":
            header = struct.unpack(">IIBBBBB", body)
        elif name == b"IDAT":
            data.append(body)
        elif name == b"iCCP":
            profile = zlib.decompress(body[body.index(b"\0") + 2 :])
        elif name == b"iTXt":
            keyword, _, rest = body.partition(b"\0")
            packed, (_, _, words) = rest[0], rest[2:].split(b"\0", 2)
            texts[keyword.decode("latin-1")] = (zlib.decompress(words) if packed else words).decode()
        ended = name == b"IEND"
    if header is None or not ended:
        raise FrameReadError(path, "is damaged: it is cut short")
    width, height, depth, colour, _, _, interlaced = header
    if depth not in (8, 16) or colour not in (0, 2) or interlaced:
        raise FrameReadError(path, "is a PNG with a palette, transparency, interlacing or fewer than 8 bits")
    channels = 3 if colour == 2 else 1
    step = channels * depth // 8
    try:
        rows = np.frombuffer(zlib.decompress(b"".join(data)), np.uint8).reshape(height, 1 + width * step)
    except (zlib.error, ValueError) as problem:
        raise FrameReadError(path, "is damaged: its pixels cannot be unpacked") from problem
    values = np.empty((height, width * step), np.uint8)
    _unfilter(rows, step, values)
    values = values.view(">u2").astype(np.uint16) if depth == 16 else values
    return values.reshape((height, width, 3) if channels == 3 else (height, width)), profile, texts


@numba.njit(nogil=True, cache=True)
def _unfilter(rows, step, out):
    """Undo the five row filters."""
    for row in range(out.shape[0]):
        kind = rows[row, 0]
        for column in range(out.shape[1]):
            left = np.int64(out[row, column - step]) if column >= step else 0
            above = np.int64(out[row - 1, column]) if row else 0
            corner = np.int64(out[row - 1, column - step]) if row and column >= step else 0
            guess = np.int64(0)
            if kind == 1:
                guess = left
            elif kind == 2:
                guess = above
            elif kind == 3:
                guess = (left + above) // 2
            elif kind == 4:
                a, b, c = abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)
                guess = left if a <= b and a <= c else above if b <= c else corner
            out[row, column] = (np.int64(rows[row, column + 1]) + guess) & 0xFF
