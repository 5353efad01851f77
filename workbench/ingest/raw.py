"""Camera RAW files through LibRaw: the numbers as the camera wrote them, nothing subtracted, nothing scaled."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import rawpy
import tifffile

from ..core.cube import MOSAICS, is_xtrans
from ..core.errors import FrameReadError
from ..core.mosaic import offsets
from ..core.parallel import frame_memory
from .metadata import MOST_PAGES, FrameInfo, exif_time, read_exif, require_file, require_length

# tifffile reports private tags it cannot parse; they are of no concern here
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


def read_raw(path: str | Path, area: str = "visible") -> np.ndarray:
    """Return a RAW file's mosaic, uint16 (y, x) in ADU, exactly as LibRaw unpacks it.

    ``area="visible"`` is what light reaches (of X-Trans in whole cells: up to five rows and columns at the far edges
    are left out), ``area="full"`` includes the masked margins.  A file that is cut short,
    damaged, or has neither a Bayer or X-Trans mosaic nor one plain channel is a `FrameReadError`.
    """
    with _opened(path) as raw:
        height, width = _whole_cells(raw, _pattern(raw, Path(path)))
        pixels = raw.raw_image if area == "full" else raw.raw_image_visible[:height, :width]
        frame = frame_memory(pixels.shape, pixels.dtype)
        np.copyto(frame, pixels)
        return frame


def raw_info(path: str | Path, known: MutableMapping[Any, dict[str, Any]] | None = None) -> FrameInfo:
    """Return what is known of a RAW file without its pixels.

    LibRaw knows size, mosaic and levels only after decoding.  `known` keeps them for each camera, ISO and
    file structure, so that of many similar files only the first is decoded.
    """
    path = require_file(path)
    refuse_pictures(path)
    # shape, depth and compression of all images in it, equal for similar files of one camera
    structure = tuple(page[1] for page in _pages(path))
    try:
        exif = read_exif(path, zero=0.0)
    except Exception as error:  # exifread raises whatever damaged tags make it stumble over
        raise FrameReadError(path, f"its EXIF data are damaged ({type(error).__name__}: {error})") from None
    key = (exif["camera"], exif["iso"], structure) if exif["camera"] and structure else None
    layout = known.get(key) if known is not None and key else None
    if layout is None or np.isnan([exif["iso"], exif["exposure"]]).any():
        with _opened(path, decode=layout is None) as raw:
            layout, exif = layout or _layout(raw, path), _filled(exif, raw.other)
        if known is not None and key:
            known[key] = layout
    exif["exposure"] = exif["exposure"] or np.nan  # a bias frame's 0 is stated: LibRaw need not look for another
    return FrameInfo(path=path, format="raw", **layout, **exif)


def _layout(raw: rawpy.RawPy, path: Path) -> dict[str, Any]:
    """Layout and levels of a decoded frame."""
    pattern, sizes, black = _pattern(raw, path), raw.sizes, raw.black_level_per_channel
    top, left = sizes.top_margin, sizes.left_margin
    places = offsets(pattern).values()
    height, width = _whole_cells(raw, pattern)
    colours = [0] if pattern == "mono" else [raw.raw_color(top + row, left + column) for row, column in places]
    return {
        "height": height,
        "width": width,
        "cfa_pattern": pattern,
        "black_level": tuple(float(black[colour]) for colour in colours),
        "white_level": float(raw.white_level),
        "margins": (top, left),
        "full_shape": (sizes.raw_height, sizes.raw_width),
    }


def _filled(exif: dict[str, Any], other: Any) -> dict[str, Any]:
    """The exposure as LibRaw reads it where EXIF has a gap."""
    filled = dict(exif)
    gaps = {"iso": other.iso_speed, "exposure": other.shutter_speed, "aperture": other.aperture}
    for name, value in gaps.items():
        if np.isnan(filled[name]) and value > 0:
            filled[name] = round(float(value), 9)  # LibRaw keeps single precision
    if np.isnat(filled["time"]) and other.timestamp.year > 1970:
        filled["time"] = exif_time(f"{other.timestamp:%Y:%m:%d %H:%M:%S}")
    return filled


def _opened(path: str | Path, decode: bool = True) -> rawpy.RawPy:
    """Open a RAW file after making sure that it is whole, and decode its pixels."""
    path = require_file(path)
    refuse_pictures(path)
    # LibRaw reads some cut files (Sony's ARW, for one) without an error and fills the rest with garbage
    require_length(path, _promised_length(path), "directory")
    raw = rawpy.RawPy()
    try:
        raw.open_file(str(path))
        if decode:
            raw.unpack()
    except (rawpy.LibRawError, OSError) as error:
        raw.close()
        if isinstance(error, rawpy.LibRawFileUnsupportedError):
            version = ".".join(map(str, rawpy.libraw_version))
            raise FrameReadError(path, f"is not a RAW file that LibRaw {version} supports") from None
        reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else error
        raise FrameReadError(path, f"is damaged or cut short (LibRaw: {reason}); copy it again from the card") from None
    return raw


def _pattern(raw: rawpy.RawPy, path: Path) -> str:
    """The colours from the visible area's first pixel, or the reason why there are none."""
    if raw.raw_type != rawpy.RawType.Flat:
        raise FrameReadError(
            path, "holds several colours a pixel (Foveon, linear or small RAW), not a mosaic; use the camera's full RAW"
        )
    if raw.num_colors == 1:
        return "mono"
    cell = raw.raw_pattern
    size = "unknown" if cell is None else f"{cell.shape[0]} x {cell.shape[1]}"
    if cell is None or cell.shape not in ((2, 2), (6, 6)):
        raise FrameReadError(
            path, f"has a mosaic of size {size}; only Bayer (2 x 2), X-Trans (6 x 6) and mono are read"
        )
    top, left = raw.sizes.top_margin, raw.sizes.left_margin
    names, side = raw.color_desc.decode(), range(len(cell))
    pattern = "".join(names[raw.raw_color(top + row, left + column)] for row in side for column in side)
    if pattern not in MOSAICS and not is_xtrans(pattern):
        raise FrameReadError(
            path, f"has a mosaic of colours {pattern}; only red, green and blue Bayer and X-Trans mosaics are supported"
        )
    return pattern


def _whole_cells(raw: rawpy.RawPy, pattern: str) -> tuple[int, int]:
    """Height and width of the visible area, of X-Trans of its whole cells."""
    side = 6 if is_xtrans(pattern) else 1
    return raw.sizes.height // side * side, raw.sizes.width // side * side


def refuse_pictures(path: Path) -> None:
    """Raise an error if the file is a finished picture or a text, whatever its name."""
    with path.open("rb") as file:
        head = file.read(256)
    kinds = {"JPEG": head[:3] == b"\xff\xd8\xff", "PNG": head[:4] == b"\x89PNG", "GIF": head[:4] == b"GIF8"}
    kinds["HEIF"] = head[4:8] == b"ftyp" and head[8:11] in (b"hei", b"mif", b"avi", b"hev")
    for kind, found in kinds.items():
        if found:
            raise FrameReadError(path, f"is a {kind} picture, not a RAW frame: its values are not linear")
    text = head.decode("utf-8", "ignore").strip()
    if text and all(letter.isprintable() or letter.isspace() for letter in text) and len(text) > len(head) // 2:
        raise FrameReadError(path, f"is a text file, not a RAW frame; it begins {text.splitlines()[0][:40]!r}")


def _promised_length(path: Path) -> int:
    """The end of the last strip, tile or box in a file's own directory; 0 where it has none."""
    with path.open("rb") as file:
        head = file.read(108)
        if head.startswith(b"FUJIFILMCCD-RAW"):
            values = [int.from_bytes(head[at : at + 4], "big") for at in (84, 88, 100, 104)]
            return max(values[0] + values[1], values[2] + values[3])
        if head[4:8] == b"ftyp":
            return _boxes_end(file)
    return max((offset + count for page in _pages(path) for offset, count in page[0]), default=0)


def _boxes_end(file: Any) -> int:
    """Walk the top-level boxes of an ISO base media file (CR3)."""
    start = 0
    while True:
        file.seek(start)
        head = file.read(16)
        if len(head) < 8:
            return start
        size = int.from_bytes(head[:4], "big")
        size = int.from_bytes(head[8:16], "big") if size == 1 else size
        if size < 8:  # 0 means: to the end of the file
            return start
        start += size


def _pages(path: Path) -> list[tuple[list[tuple[int, int]], tuple]]:
    """For each image in a TIFF-based file, with sub-images: its (offset, bytes) segments and its structure."""
    pages = []
    try:
        with tifffile.TiffFile(path) as tiff:
            for page in islice(tiff.pages, MOST_PAGES):
                for image in (page, *(page.pages or ())):
                    segments = list(zip(image.dataoffsets, image.databytecounts, strict=False))
                    structure = (image.shape, image.bitspersample, int(image.compression), int(image.photometric or 0))
                    pages.append((segments, structure))
    except tifffile.TiffFileError:
        return []  # another container, or the directory itself is cut off: LibRaw decides
    except Exception:  # damaged tags surface as all sorts of errors; LibRaw decides whether the file can be used
        return pages
    return pages
