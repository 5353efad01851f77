"""Frames in files of processing programs and of video: TIFF, XISF and SER."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile

from ..core.errors import FrameReadError, WorkbenchError, of_one_file
from ..core.files import holder
from .dng import stated_pattern
from .fits_header import frame_info
from .metadata import NAT, FrameInfo, PlainPixels, debayered, read_exif, require_file, require_length

# TIFF


def read_tiff(path: str | Path) -> np.ndarray:
    """Return the (y, x) pixels of a compressed or tiled TIFF, see `tiff_layout`."""
    try:
        with tifffile.TiffFile(path) as tiff:
            return np.ascontiguousarray(tiff.pages.first.asarray())
    except Exception as error:  # tifffile and its codecs raise many kinds for damaged data
        raise FrameReadError(path, f"is damaged or cut short ({error}); copy it again") from None


_LINEAR = ("u2", "f2", "f4", "f8")
_EIGHT_BITS = "has eight bits a pixel: the camera's values are lost; give linear TIFF of 16 bits"
_FINISHED = (
    "is a finished picture (it has a colour profile, is a negative, or holds no 16-bit numbers or floats); give the "
    "frame, linear in 16 bits or floats"
)


def tiff_layout(path: str | Path) -> tuple[FrameInfo, PlainPixels | None]:
    """Return what a linear TIFF of 16 bits or floats records, and where its pixels lie if they are not packed.

    One plane, mono or mosaiced (TIFF/EP ``CFAPattern``), as ``dcraw -4 -D -T`` and capture programs write it; camera,
    ISO, exposure and time from EXIF.

    Raises
    ------
    FrameReadError
        If it has colour planes, eight bits a pixel, several pictures or a colour profile, or is damaged.
    """
    path = require_file(path)
    try:
        with tifffile.TiffFile(path) as tiff:
            page, pages, order = tiff.pages.first, len(tiff.pages), tiff.byteorder
            profile, dtype, photometric = 34675 in page.tags, page.dtype, page.photometric
            segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
            shape, samples, packed = (page.imagelength, page.imagewidth), page.samplesperpixel, page.compression != 1
            plain = not packed and not page.is_tiled and page.fillorder == 1
            stated = photometric in (32803, 34892)
            pattern = stated_pattern(page) if stated else ""
    except Exception as error:  # damaged tags surface as all sorts of errors
        raise FrameReadError(path, f"cannot be read as TIFF ({error}); save it again as 16-bit linear TIFF") from None
    finished = profile or photometric == 0 or (dtype is not None and dtype.str[1:] not in _LINEAR)
    problem = next((text for wrong, text in (
        (samples > 1 or photometric in (2, 3, 6), debayered(samples)),
        (dtype is None or dtype.itemsize == 1, _EIGHT_BITS),
        (pages > 1, f"holds {pages} pictures; give one frame a file"),
        (finished, _FINISHED),
        (stated and pattern is None, "has a mosaic that is not supported; only 2 x 2 Bayer mosaics and mono are"),
    ) if wrong), "")  # fmt: skip
    if problem or dtype is None:
        raise FrameReadError(path, problem)
    require_length(path, max(start + count for start, count in segments), "directory")
    contiguous = all(a + n == b for (a, n), (b, _) in pairwise(segments))
    pixels = PlainPixels(path, segments[0][0], dtype.newbyteorder(order).str, shape) if plain and contiguous else None
    info = FrameInfo(
        path, "tiff", *shape, dtype.newbyteorder("=").name, full_shape=shape, cfa_pattern=pattern or "mono",
        cfa_stated=stated, **read_exif(path),
    )  # fmt: skip
    return info, pixels.require_whole() if pixels else None


# XISF


def xisf_package() -> Any:
    """Return the xisf package's class: under the GPL, and so not among the requirements.

    Raises
    ------
    WorkbenchError
        If it is not installed; the message says how to.
    """
    try:
        from xisf import XISF
    except ImportError as problem:
        raise WorkbenchError(
            "XISF files need the package xisf: pip install xisf (or pip install 'astrophoto-workbench[xisf]'); "
            "or use .fits, which holds as much"
        ) from problem
    return XISF


def read_xisf(path: str | Path) -> np.ndarray:
    """Return the (y, x) pixels of a packed XISF frame, see `xisf_layout`."""
    try:
        return np.array(xisf_package()(str(path)).read_image(0)[..., 0])
    except WorkbenchError as error:
        raise FrameReadError(path, str(error)) from None
    except Exception as error:  # the package raises whatever its parsers and codecs raise
        raise FrameReadError(path, f"is damaged or cut short ({error}); copy it again") from None


def xisf_layout(path: str | Path) -> tuple[FrameInfo, PlainPixels | None]:
    """Return what the FITS keywords of an XISF file record, and where its pixels lie if they are not packed.

    The mosaic also from PixInsight's ``PCL:CFASourcePattern``.  Rows run from the top down, whatever ``ROWORDER`` was.

    Raises
    ------
    FrameReadError
        If the package xisf is not installed, or the file has colour planes or eight bits a pixel, or is damaged.
    """
    path = require_file(path)
    try:
        image = xisf_package()(str(path)).get_images_metadata()[0]
        (width, height, planes), dtype = image["geometry"], np.dtype(image["dtype"])
    except WorkbenchError as error:
        raise FrameReadError(path, str(error)) from None
    except Exception as error:  # the package raises whatever its parsers raise
        raise FrameReadError(path, f"cannot be read as XISF ({error}); save it again") from None
    if planes != 1:
        raise FrameReadError(path, debayered(planes))
    if dtype.kind not in "uf":
        raise FrameReadError(path, f"holds {dtype} pixels; save 16 bits or float")
    words = _keywords(image)
    pattern = image["XISFProperties"].get("PCL:CFASourcePattern", {}).get("value")
    bits = dtype.itemsize * 8 * (-1 if dtype.kind == "f" else 1)
    shape = {"NAXIS": 2, "NAXIS1": width, "NAXIS2": height, "BITPIX": bits, "BZERO": 0, "BSCALE": 1, "ROWORDER": ""}
    info = frame_info({"BAYERPAT": pattern or "", **words, **shape}, path)
    info = replace(info, format="xisf", dtype=dtype.name)
    if image["location"][0] != "attachment" or "compression" in image:
        return info, None
    pixels = PlainPixels(
        path,
        image["location"][1],
        dtype.newbyteorder("<").str,
        info.full_shape,
        info.margins,
        (info.height, info.width),
    )
    return info, pixels.require_whole()


def xisf_keywords(path: str | Path) -> dict[str, Any]:
    """Return the FITS keywords of an XISF file; an error as `xisf_layout`."""
    xisf_layout(path)
    return _keywords(xisf_package()(str(path)).get_images_metadata()[0])


def _keywords(image: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(values[-1]["value"]) for name, values in image["FITSKeywords"].items()}


def _value(text: str) -> Any:
    """A FITS keyword's value: numbers and truth values as such."""
    try:
        return float(text)
    except ValueError:
        return {"T": True, "F": False}.get(text, text)


# SER


class _Video(NamedTuple):
    """The header of a SER file: 178 bytes, little-endian, then frames, then the times if the camera's clock was set."""

    colour: int
    shape: tuple[int, int]
    depth: int
    frames: int
    instrument: str
    stored: str
    times: np.ndarray


_SER_HEAD = struct.Struct("<14s7i40s40s40s2q")
_SER_COLOURS = {0: "mono", 8: "RGGB", 9: "GRBG", 10: "GBRG", 11: "BGGR"}
_NARROW = (
    "eight bits a pixel, 256 steps: what was rounded away counts as noise (0.29 of a step), and where a frame's own "
    "noise is below half a step stacking does not bring it back; record 16 bits (RAW16)"
)
_SER_EPOCH = np.datetime64("0001-01-01", "us")


@of_one_file
def frames_in(path: Path) -> list[Path]:
    """Return the frames that a file holds: of a SER video ``video.ser#0000``, ``video.ser#0001``, ...; else the file.

    Raises
    ------
    FrameReadError
        If it is a damaged SER video, or one of colour planes.
    """
    if path.suffix.casefold() != ".ser":
        return [path]
    return [path.with_name(f"{path.name}#{number:04d}") for number in range(_video(path).frames)]


def ser_layout(path: str | Path) -> tuple[FrameInfo, PlainPixels]:
    """Return what a SER video records of one of its frames, ``video.ser#0012``, and where its pixels lie.

    Mosaic, camera and time (UTC); a SER file holds neither exposure nor gain.

    Raises
    ------
    FrameReadError
        As `frames_in`, or if the video has no such frame.
    """
    file = holder(path)
    video = _video(file)
    if file == Path(path):
        raise FrameReadError(path, f"is a video of {video.frames} frames; give one of them: {file.name}#0000")
    number = int(Path(path).name.rpartition("#")[2])
    if number >= video.frames:
        raise FrameReadError(path, f"does not exist: the video has {video.frames} frames, the first is #0000")
    pattern = _SER_COLOURS[video.colour]
    narrow = video.depth <= 8
    start = _SER_HEAD.size + number * (1 if narrow else 2) * math.prod(video.shape)
    info = FrameInfo(
        Path(path), "ser", *video.shape, camera=video.instrument, cfa_pattern=pattern, cfa_stated=pattern != "mono",
        full_shape=video.shape, time=video.times[number] if len(video.times) else NAT,
        white_level=255.0 if narrow else math.nan, doubts=(_NARROW,) if narrow else (),
    )  # fmt: skip
    return info, PlainPixels(file, start, video.stored, video.shape)


def _video(path: Path) -> _Video:
    stat = require_file(path).stat()
    return _video_as_it_is(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _video_as_it_is(path: Path, size: int, changed: int) -> _Video:
    """Return the header of a SER video of that size, changed at that time."""
    with path.open("rb") as file:
        head = file.read(_SER_HEAD.size)
        if len(head) < _SER_HEAD.size or not head.startswith(b"LUCAM-RECORDER"):
            raise FrameReadError(path, "is not a SER video (it does not begin with LUCAM-RECORDER)")
        _, _, colour, _, width, height, depth, frames, _, instrument, _, _, _ = _SER_HEAD.unpack(head)
        if colour in (100, 101):
            raise FrameReadError(path, debayered(3))
        if colour not in _SER_COLOURS:
            raise FrameReadError(path, f"has the colours number {colour}; supported are mono and Bayer mosaics")
        if not (depth <= 16 and min(depth, width, height, frames) > 0):
            raise FrameReadError(path, f"has an impossible header: {frames} frames of {width} x {height}, {depth} bits")
        bytes_each = 1 if depth <= 8 else 2
        end = _SER_HEAD.size + bytes_each * width * height * frames
        require_length(path, end, "header")
        file.seek(_SER_HEAD.size + 2 * width * (height // 2))
        rows = file.read(2 * width * min(height - height // 2, 16))
        file.seek(end)
        ticks = np.frombuffer(file.read(8 * frames), "<i8")
    times = np.zeros(0, "datetime64[ns]")
    if len(ticks) == frames and ticks.min() > 0:  # of 100 ns
        times = (_SER_EPOCH + (ticks // 10).astype("timedelta64[us]")).astype("datetime64[ns]")
    instrument = re.sub(r"\0.*", "", instrument.decode("latin-1"), flags=re.DOTALL).strip()
    stored = "|u1" if depth <= 8 else _byte_order(rows)
    return _Video(colour, (height, width), depth, frames, instrument, stored, times)


def _byte_order(rows: bytes) -> str:
    """The order in which neighbours differ less; programs disagree about what the header's flag means."""
    rough = {
        order: float(np.abs(np.diff(np.frombuffer(rows, order).astype(float)[::2])).mean()) for order in ("<u2", ">u2")
    }
    return min(rough, key=lambda order: rough[order])
