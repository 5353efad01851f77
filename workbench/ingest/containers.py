"""Frames in files of processing programs and of video: TIFF, XISF and SER; and the mosaic of colour planes."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile

from ..core.errors import FrameReadError, WorkbenchError, of_one_file
from ..core.files import holder
from ..core.mosaic import area_error, measured_pattern, middle, take_measured
from .dng import stated_pattern
from .fits_header import frame_info
from .metadata import NAT, FrameInfo, PlainPixels, read_exif, require_file, require_length

# colour planes

_ASSUMED = "RGGB"  # where nothing shows which samples were measured, any mosaic takes as many of each colour
_Decoder = Callable[[Path], np.ndarray]  # of a file the planes (3, y, x), or of a frame of one plane its pixels (y, x)


def with_mosaic(info: FrameInfo, decode: _Decoder) -> FrameInfo:
    """Return the record of a debayered picture with the mosaic in which one colour a pixel is taken from its planes.

    The one that shows which samples were measured (`core.mosaic.measured_pattern`): they are the raw frame's.  Else the
    one that the file states, or RGGB: linear as well, but neighbours share noise, by how much is said.
    """
    stat = holder(info.path).stat()
    pattern, factor = _shown(decode, info.path, info.cfa_pattern, stat.st_size, stat.st_mtime_ns)
    balanced = "if colours were balanced, calibration frames do not fit"
    if factor == 0:
        doubt = (
            f"three colour planes, debayered: the samples that were measured show by their noise, in the mosaic "
            f"{pattern}, and are used, the interpolated ones are not; {balanced}"
        )
    else:
        shared = f"; neighbours share noise: errors of areas are about {factor:g} times those stated"
        doubt = (
            "three colour planes, debayered, and which samples were measured does not show: of each pixel one colour "
            f"is used, in the mosaic {pattern}{shared if factor > 1 else ''}; {balanced}; a raw frame (debayering "
            "switched off) holds more"
        )
    levels, doubts = (info.black_level * 4)[:4], (*info.doubts, doubt)
    return replace(info, cfa_pattern=pattern, cfa_stated=factor == 0, black_level=levels, planes=3, doubts=doubts)


@lru_cache(maxsize=4096)
def _shown(decode: _Decoder, path: Path, stated: str, size: int, changed: int) -> tuple[str, float]:
    """The mosaic of a file of that size, changed at that time; 0 if its pixels show it, else its `area_error`."""
    colours = decode(path)
    part = colours[:, *middle((colours.shape[1], colours.shape[2]), (512, 512))]
    if shown := measured_pattern(part):
        return shown, 0.0
    pattern = stated if len(stated) == 4 and stated != "mono" else _ASSUMED
    return pattern, max(1.0, round(2 * area_error(take_measured(part, pattern), pattern)) / 2)


def of_mosaic(planes: np.ndarray, info: FrameInfo) -> np.ndarray:
    """Return the pixels (y, x) of a frame, of colour planes (3, y, x) one colour a pixel."""
    return take_measured(planes, info.cfa_pattern) if planes.ndim == 3 else planes


# TIFF


def read_tiff(path: str | Path) -> np.ndarray:
    """Return the (y, x) pixels of a compressed, tiled or colour TIFF, see `tiff_layout`."""
    return np.ascontiguousarray(of_mosaic(_tiff_planes(Path(path)), tiff_layout(path)[0]))


def _tiff_planes(path: Path) -> np.ndarray:
    try:
        with tifffile.TiffFile(path) as tiff:
            pixels = tiff.pages.first.asarray()
    except Exception as error:  # tifffile and its codecs raise many kinds for damaged data
        raise FrameReadError(path, f"is damaged or cut short ({error}); copy it again") from None
    return pixels if pixels.ndim == 2 else np.moveaxis(pixels, 0 if pixels.shape[0] == 3 else 2, 0)


_FINISHED = (
    "is a finished picture (it has a colour profile, transparency or brightness apart, is a negative, or holds no "
    "16-bit numbers or floats); give the frame, linear in 16 bits or floats"
)


def tiff_layout(path: str | Path) -> tuple[FrameInfo, PlainPixels | None]:
    """Return what a linear TIFF of 16 bits or floats records, and where its pixels lie if they are not packed.

    One plane, mono or mosaiced (TIFF/EP ``CFAPattern``), as ``dcraw -4 -D -T`` and capture programs write it, or three
    colour planes (`with_mosaic`); camera, ISO, exposure and time from EXIF.

    Raises
    ------
    FrameReadError
        If it has eight bits a pixel, several pictures or a colour profile, or is damaged.
    """
    path = require_file(path)
    try:
        with tifffile.TiffFile(path) as tiff:
            page, order, stated = tiff.pages.first, tiff.byteorder, tiff.pages.first.photometric in (32803, 34892)
            pattern = stated_pattern(page) if stated else ""
            problem = _no_frame(page, len(tiff.pages), pattern)
            segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
            shape, samples, dtype = (page.imagelength, page.imagewidth), page.samplesperpixel, page.dtype
            plain = page.compression == 1 and not page.is_tiled and page.fillorder == 1
    except Exception as error:  # damaged tags surface as all sorts of errors
        raise FrameReadError(path, f"cannot be read as TIFF ({error}); save it again as 16-bit linear TIFF") from None
    if problem or dtype is None:
        raise FrameReadError(path, problem)
    require_length(path, max(start + count for start, count in segments), "directory")
    info = FrameInfo(
        path, "tiff", *shape, dtype.newbyteorder("=").name, full_shape=shape, cfa_pattern=pattern or "mono",
        cfa_stated=stated, **read_exif(path),
    )  # fmt: skip
    if samples == 3:
        return with_mosaic(info, _tiff_planes), None
    contiguous = plain and all(a + n == b for (a, n), (b, _) in pairwise(segments))
    pixels = PlainPixels(path, segments[0][0], dtype.newbyteorder(order).str, shape)
    return info, pixels.require_whole() if contiguous else None


def _no_frame(page: Any, pages: int, pattern: str | None) -> str:
    """Why a TIFF is not a frame, empty for a frame."""
    if page.dtype is None or page.dtype.itemsize == 1:
        return "has eight bits a pixel: the camera's values are lost; give linear TIFF of 16 bits"
    if pages > 1:
        return f"holds {pages} pictures; give one frame a file"
    if pattern is None:
        return "has a mosaic that is not supported; only 2 x 2 Bayer mosaics and mono are"
    finished = 34675 in page.tags or page.photometric in (0, 3, 6) or page.samplesperpixel not in (1, 3)
    return _FINISHED if finished or page.dtype.str[1:] not in ("u2", "f2", "f4", "f8") else ""


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
    """Return the (y, x) pixels of a packed or colour XISF frame, see `xisf_layout`."""
    return np.ascontiguousarray(of_mosaic(_xisf_planes(Path(path)), xisf_layout(path)[0]))


def _xisf_planes(path: Path) -> np.ndarray:
    try:
        pixels = xisf_package()(str(path)).read_image(0)
        return np.moveaxis(pixels, 2, 0) if pixels.shape[2] == 3 else pixels[..., 0]
    except WorkbenchError as error:
        raise FrameReadError(path, str(error)) from None
    except Exception as error:  # the package raises whatever its parsers and codecs raise
        raise FrameReadError(path, f"is damaged or cut short ({error}); copy it again") from None


def xisf_layout(path: str | Path) -> tuple[FrameInfo, PlainPixels | None]:
    """Return what the FITS keywords of an XISF file record, and where its pixels lie if they are not packed.

    The mosaic also from PixInsight's ``PCL:CFASourcePattern``; of three colour planes see `with_mosaic`.  Rows run from
    the top down, whatever ``ROWORDER`` was.

    Raises
    ------
    FrameReadError
        If the package xisf is not installed, or the file has two or more than three planes or eight bits a pixel, or is
        damaged.
    """
    path = require_file(path)
    try:
        image = xisf_package()(str(path)).get_images_metadata()[0]
        (width, height, planes), dtype = image["geometry"], np.dtype(image["dtype"])
    except WorkbenchError as error:
        raise FrameReadError(path, str(error)) from None
    except Exception as error:  # the package raises whatever its parsers raise
        raise FrameReadError(path, f"cannot be read as XISF ({error}); save it again") from None
    if planes not in (1, 3):
        raise FrameReadError(path, f"has {planes} planes; a frame has one, or three of red, green and blue")
    if dtype.kind not in "uf":
        raise FrameReadError(path, f"holds {dtype} pixels; save 16 bits or float")
    words = _keywords(image)
    pattern = image["XISFProperties"].get("PCL:CFASourcePattern", {}).get("value")
    bits = dtype.itemsize * 8 * (-1 if dtype.kind == "f" else 1)
    shape = {"NAXIS": 2, "NAXIS1": width, "NAXIS2": height, "BITPIX": bits, "BZERO": 0, "BSCALE": 1, "ROWORDER": ""}
    info = frame_info({"BAYERPAT": pattern or "", **words, **shape}, path)
    info = replace(info, format="xisf", dtype=dtype.name)
    if planes == 3:
        return with_mosaic(info, _xisf_planes), None
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

    @property
    def values(self) -> int:
        """Of a pixel."""
        return 3 if self.colour in (_RGB, _BGR) else 1


_SER_HEAD = struct.Struct("<14s7i40s40s40s2q")
_SER_COLOURS = {0: "mono", 8: "RGGB", 9: "GRBG", 10: "GBRG", 11: "BGGR", 100: "mono", 101: "mono"}
_RGB, _BGR = 100, 101  # three values a pixel
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
        If it is a damaged SER video.
    """
    if path.suffix.casefold() != ".ser":
        return [path]
    return [path.with_name(f"{path.name}#{number:04d}") for number in range(_video(path).frames)]


def read_ser(path: str | Path) -> np.ndarray:
    """Return the (y, x) pixels of a frame of a colour video, see `ser_layout`."""
    pixels = np.ascontiguousarray(of_mosaic(_ser_planes(Path(path)), ser_layout(path)[0]))
    return pixels.astype(np.uint16) if pixels.dtype == np.uint8 else pixels


def _ser_planes(path: Path) -> np.ndarray:
    video, plain = _video(holder(path)), _ser_pixels(path)
    pixels = plain.read().reshape(*video.shape, 3)[..., :: 1 if video.colour == _RGB else -1]
    return np.moveaxis(pixels, 2, 0)


def ser_layout(path: str | Path) -> tuple[FrameInfo, PlainPixels | None]:
    """Return what a SER video records of one of its frames, ``video.ser#0012``, and where its pixels lie.

    Mosaic (of three colour planes see `with_mosaic`), camera and time (UTC); a SER file holds neither exposure nor
    gain.

    Raises
    ------
    FrameReadError
        As `frames_in`, or if the video has no such frame.
    """
    pixels, video = _ser_pixels(Path(path)), _video(holder(path))
    pattern, number = _SER_COLOURS[video.colour], int(Path(path).name.rpartition("#")[2])
    narrow = video.depth <= 8
    info = FrameInfo(
        Path(path), "ser", *video.shape, camera=video.instrument, cfa_pattern=pattern, cfa_stated=pattern != "mono",
        full_shape=video.shape, time=video.times[number] if len(video.times) else NAT,
        white_level=255.0 if narrow else math.nan, doubts=(_NARROW,) if narrow else (),
    )  # fmt: skip
    return (info, pixels) if video.values == 1 else (with_mosaic(info, _ser_planes), None)


def _ser_pixels(path: Path) -> PlainPixels:
    """Where the values of a frame of a video lie, of colour three a pixel."""
    file = holder(path)
    video = _video(file)
    if file == path:
        raise FrameReadError(path, f"is a video of {video.frames} frames; give one of them: {file.name}#0000")
    number, (height, width) = int(path.name.rpartition("#")[2]), video.shape
    if number >= video.frames:
        raise FrameReadError(path, f"does not exist: the video has {video.frames} frames, the first is #0000")
    shape = height, width * video.values
    start = _SER_HEAD.size + number * np.dtype(video.stored).itemsize * math.prod(shape)
    return PlainPixels(file, start, video.stored, shape)


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
        if colour not in _SER_COLOURS:
            raise FrameReadError(path, f"has the colours number {colour}; supported are mono, Bayer mosaics and RGB")
        if not (depth <= 16 and min(depth, width, height, frames) > 0):
            raise FrameReadError(path, f"has an impossible header: {frames} frames of {width} x {height}, {depth} bits")
        values = 3 if colour in (_RGB, _BGR) else 1
        row = (1 if depth <= 8 else 2) * values * width
        end = _SER_HEAD.size + row * height * frames
        require_length(path, end, "header")
        file.seek(_SER_HEAD.size + row * (height // 2))
        rows = file.read(row * min(height - height // 2, 16))
        file.seek(end)
        ticks = np.frombuffer(file.read(8 * frames), "<i8")
    times = np.zeros(0, "datetime64[ns]")
    if len(ticks) == frames and ticks.min() > 0:  # of 100 ns
        times = (_SER_EPOCH + (ticks // 10).astype("timedelta64[us]")).astype("datetime64[ns]")
    instrument = re.sub(r"\0.*", "", instrument.decode("latin-1"), flags=re.DOTALL).strip()
    stored = "|u1" if depth <= 8 else _byte_order(rows, max(2, values))
    return _Video(colour, (height, width), depth, frames, instrument, stored, times)


def _byte_order(rows: bytes, apart: int) -> str:
    """The order in which neighbours of a colour differ less; programs disagree about what the header's flag means."""
    values = {order: np.frombuffer(rows, order).astype(float)[::apart] for order in ("<u2", ">u2")}
    rough = {order: float(np.abs(np.diff(those)).mean()) for order, those in values.items()}
    return min(rough, key=lambda order: rough[order])
