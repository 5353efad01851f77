"""CFA DNG files: written so that every RAW reader takes them for a camera's own, and plain ones read in place."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard

import imagecodecs
import numpy as np
import tifffile

from ..core.cube import MOSAICS, cell_side, channels_of, is_mosaic, is_xtrans
from ..core.errors import WorkbenchError
from ..core.files import whole_file
from ..core.mosaic import channel_index, offsets
from .metadata import MOST_PAGES, PlainPixels

# XYZ (D65) to camera, the matrix of a camera that sees sRGB: a neutral choice for frames without one.
SRGB_MATRIX = (3.2404542, -1.5371385, -0.4985314, -0.9692660, 1.8760108, 0.0415560, 0.0556434, -0.2040259, 1.0572252)

_BYTE, _ASCII, _SHORT, _LONG, _RATIONAL, _UNDEFINED, _SRATIONAL = 1, 2, 3, 4, 5, 7, 10
_FORMATS = {_BYTE: "B", _SHORT: "H", _LONG: "I", _RATIONAL: "2I", _SRATIONAL: "2i"}
_COLOURS = "RGB"  # by TIFF/EP CFAPattern value


@dataclass(frozen=True)
class DngMetadata:
    """What a DNG records of a frame.

    Attributes
    ----------
    cfa_pattern
        Colours from the first pixel of the active area, row by row, or ``mono``.
    black_level, white_level
        ADU; the black level one value for all, or one a channel in the order R, G1, G2, B; of X-Trans one for all.
    iso, exposure, aperture, time, temperature, focal_length
        EXIF: ISO setting, seconds, f-number, start of exposure (datetime or datetime64), °C, mm.
        What is None or NaN is left out.
    pixel_size
        Distance of two pixels [µm], as EXIF's focal plane resolution.
    make, model, software
        The camera and the program, as text.
    color_matrix
        XYZ (D65) to camera colours, nine numbers, row by row (DNG ColorMatrix1).
    daylight_multipliers
        What R, G and B are multiplied with for a neutral daylight picture (1/AsShotNeutral).
    active_area
        (top, left, bottom, right) of the light-sensitive pixels; the rest are masked margins.
    """

    cfa_pattern: str
    black_level: float | Sequence[float]
    white_level: float
    iso: float | None = None
    exposure: float | None = None
    aperture: float | None = None
    time: Any = None
    make: str = ""
    model: str = ""
    software: str = "astrophoto-workbench"
    temperature: float | None = None
    focal_length: float | None = None
    pixel_size: float | None = None
    color_matrix: Sequence[float] = SRGB_MATRIX
    daylight_multipliers: Sequence[float] = (1.0, 1.0, 1.0)
    active_area: tuple[int, int, int, int] | None = None


def write_dng(path: str | Path, mosaic: np.ndarray, metadata: DngMetadata, *, compressed: bool = False) -> Path:
    """Write one mosaic, uint16 (y, x) in ADU as read, as a 16-bit DNG with an EXIF directory.

    LibRaw and ``dcraw -4 -D`` return the very pixels that were given.  The same arguments give the
    same bytes.  The file appears whole or not at all; an existing one is replaced.  Tags after the DNG specification
    1.4 and EXIF 2.31 (AmbientTemperature is tag 0x9400).

    Parameters
    ----------
    compressed
        Store the pixels as lossless JPEG (ITU-T T.81, process 14), as cameras do, two rows in one line of it.  An odd
        number of rows cannot be.

    Raises
    ------
    WorkbenchError
        If the mosaic is not a two-dimensional uint16 array, or a value does not fit a DNG.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "frame.dng"
    >>> metadata = DngMetadata("RGGB", black_level=600, white_level=16383, iso=100, exposure=1 / 640, model="Example")
    >>> _ = write_dng(path, np.full((32, 48), 600, "uint16"), metadata)
    >>> from workbench.ingest import read_frame
    >>> int(read_frame(path).max())
    600
    """
    path = Path(path)
    mosaic = np.asarray(mosaic)
    if mosaic.ndim != 2 or mosaic.dtype.kind != "u" or mosaic.dtype.itemsize != 2 or not mosaic.size:
        raise WorkbenchError(
            f"a DNG holds a two-dimensional uint16 mosaic; got {mosaic.dtype} of shape {mosaic.shape}: "
            "round, clip to 0..65535 and convert first"
        )
    if min(mosaic.shape) < 22:
        raise WorkbenchError(f"LibRaw does not read RAW frames below 22 x 22 pixels; got {mosaic.shape}")
    height, width = mosaic.shape
    if compressed and height % 2:
        raise WorkbenchError(f"a compressed DNG has an even number of rows; got {height}")
    plain = np.ascontiguousarray(mosaic, dtype="<u2")
    pixels: Any = plain.data.cast("B")
    if compressed:
        pixels = imagecodecs.ljpeg_encode(plain.reshape(height // 2, 2 * width), bitspersample=16)
    top, left, bottom, right = area = metadata.active_area or (0, 0, height, width)
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise WorkbenchError(f"active_area {area} (top, left, bottom, right) does not lie within {height} x {width}")
    camera = " ".join(filter(None, (metadata.make, metadata.model))) or "unknown camera"
    tags = [
        (254, _LONG, [0]),
        (256, _LONG, [width]),
        (257, _LONG, [height]),
        (258, _SHORT, [16]),
        (259, _SHORT, [7 if compressed else 1]),
        (271, _ASCII, metadata.make),
        (272, _ASCII, metadata.model),
        (274, _SHORT, [1]),
        (277, _SHORT, [1]),
        (278, _LONG, [height]),
        (279, _LONG, [len(pixels)]),
        (284, _SHORT, [1]),
        (305, _ASCII, metadata.software),
        (306, _ASCII, _exif_time(metadata.time)),
        (50706, _BYTE, [1, 4, 0, 0]),
        (50707, _BYTE, [1, 1, 0, 0]),
        (50708, _ASCII, camera),
        (50717, _LONG, [_whole(metadata.white_level, "white_level")]),
        (50829, _LONG, area),
        *_colour_tags(metadata),
    ]
    head = _assemble(tags, _exif(metadata))
    if not path.parent.is_dir():
        raise WorkbenchError(f"cannot write {path}: the folder {path.parent} does not exist; make it first")
    with whole_file(path, frame=True) as whole, whole.open("wb") as file:
        file.write(head)
        file.write(pixels)
    return path


def _colour_tags(metadata: DngMetadata) -> list[tuple]:
    """Tags of the pixels' colours and of where their scale begins."""
    pattern, level, matrix = metadata.cfa_pattern, metadata.black_level, metadata.color_matrix
    if pattern != "mono" and not is_mosaic(pattern):
        raise WorkbenchError(f"cfa_pattern {pattern!r} is not supported; choose {', '.join(MOSAICS)}, X-Trans or mono")
    channels, side = channels_of(pattern), cell_side(pattern)
    try:
        black = np.broadcast_to(np.asarray(level, float), (len(channels),))
    except ValueError:
        raise WorkbenchError(
            f"black_level has {np.size(level)} values; give one, or one a channel ({', '.join(channels)})"
        ) from None
    if not (np.isfinite(black).all() and (black >= 0).all()):
        raise WorkbenchError(f"black_level {level!r} is not a level in ADU")
    if pattern == "mono":
        return [(262, _SHORT, [34892]), (50714, _RATIONAL, black)]
    if is_xtrans(pattern) and np.ptp(black):
        raise WorkbenchError(f"black_level {level!r}: LibRaw reads one level for all colours of X-Trans; give one")
    if np.size(matrix) != 9 or np.size(metadata.daylight_multipliers) != 3:
        raise WorkbenchError("color_matrix has nine numbers, daylight_multipliers three (R, G, B)")
    return [
        (262, _SHORT, [32803]),
        (33421, _SHORT, [side, side]),
        (33422, _BYTE, [_COLOURS.index(colour) for colour in pattern]),
        (50710, _BYTE, [0, 1, 2]),
        (50711, _SHORT, [1]),
        (50713, _SHORT, [1, 1] if is_xtrans(pattern) else [side, side]),
        (50714, _RATIONAL, black[:1] if is_xtrans(pattern) else black[channel_index(pattern).ravel()]),
        (50721, _SRATIONAL, np.ravel(matrix)),
        (50728, _RATIONAL, 1 / np.asarray(metadata.daylight_multipliers, float)),
        (50778, _SHORT, [21]),  # D65
    ]


def _exif(metadata: DngMetadata) -> list[tuple]:
    tags: list[tuple] = [(36864, _UNDEFINED, b"0231"), (36867, _ASCII, _exif_time(metadata.time))]
    rationals = [
        (33434, _RATIONAL, metadata.exposure),
        (33437, _RATIONAL, metadata.aperture),
        (37386, _RATIONAL, metadata.focal_length),
        (37888, _SRATIONAL, metadata.temperature),
    ]
    if _known(metadata.pixel_size):
        pitch = 10_000 / metadata.pixel_size  # pixels a centimetre
        rationals += [(41486, _RATIONAL, pitch), (41487, _RATIONAL, pitch)]
        tags.append((41488, _SHORT, [3]))  # centimetres
    tags += [(code, kind, [value]) for code, kind, value in rationals if _known(value)]
    if _known(metadata.iso):
        iso = _whole(metadata.iso, "iso")
        tags.append((34855, _SHORT, [min(iso, 65535)]))
        tags += [(34864, _SHORT, [2]), (34866, _LONG, [iso])]  # the short field ends at 65535
    return tags


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and not math.isnan(value)


def _whole(value: float, name: str) -> int:
    if not 0 <= value < 2**32:
        raise WorkbenchError(f"{name} {value!r} does not fit a DNG")
    return round(value)


def _exif_time(time: Any) -> str:
    """The time as EXIF writes it, or nothing where it is unknown."""
    if time is None or np.isnat(np.datetime64(time)):
        return ""
    moment = np.datetime64(time, "s").astype(datetime)
    return f"{moment:%Y:%m:%d %H:%M:%S}"


def _rational(value: float, signed: bool) -> tuple[int, int]:
    """The nearest fraction whose two parts fit 32 bits: 1/640 s stays 1/640."""
    limit = 2**31 - 1
    if not abs(value) <= limit or (value < 0 and not signed):
        raise WorkbenchError(f"{value!r} does not fit a DNG's rational number")
    fraction = Fraction(float(value)).limit_denominator(max(1, min(10**6, int(limit / max(abs(value), 1)))))
    return fraction.numerator, fraction.denominator


def _assemble(tags: list[tuple], exif: list[tuple]) -> bytes:
    """Lay out header, main directory and EXIF directory; the pixels follow at the end, on a 16-byte border."""
    # The pointers' values do not change the layout: lay out once with zeros for the positions, then for good.
    exif_at = pixels_at = 0
    for _ in range(2):
        main = _directory([*tags, (34665, _LONG, [exif_at]), (273, _LONG, [pixels_at])], 8)
        exif_at = 8 + len(main)
        head = struct.pack("<2sHI", b"II", 42, 8) + main + _directory(exif, exif_at)
        pixels_at = -(-len(head) // 16) * 16
    return head.ljust(pixels_at, b"\0")


def _directory(tags: list[tuple], start: int) -> bytes:
    """One TIFF image file directory that lies at `start` in the file, its values after it."""
    packed = []
    for code, kind, values in sorted(tags, key=lambda tag: tag[0]):
        count, raw = _packed_values(kind, values)
        if count:
            packed.append((code, kind, count, raw))
    values_at = start + 2 + 12 * len(packed) + 4
    entries, tail = [struct.pack("<H", len(packed))], b""
    for code, kind, count, raw in packed:
        if len(raw) <= 4:
            field = raw.ljust(4, b"\0")
        else:
            field = struct.pack("<I", values_at + len(tail))
            tail += raw + b"\0" * (len(raw) % 2)
        entries.append(struct.pack("<HHI", code, kind, count) + field)
    return b"".join(entries) + struct.pack("<I", 0) + tail + b"\0" * (len(tail) % 2)


def _packed_values(kind: int, values: Any) -> tuple[int, bytes]:
    if kind == _ASCII:
        raw = values.encode("ascii", "replace") + b"\0" if values else b""
        return len(raw), raw
    if kind == _UNDEFINED:
        return len(values), values
    if kind in (_RATIONAL, _SRATIONAL):
        values = [_rational(value, kind == _SRATIONAL) for value in values]
        return len(values), b"".join(struct.pack(f"<{_FORMATS[kind]}", *pair) for pair in values)
    return len(values), struct.pack(f"<{len(values)}{_FORMATS[kind]}", *values)


def plain_dng(path: Path) -> tuple[dict[str, Any], PlainPixels] | None:
    """Return layout and position of an uncompressed 16-bit DNG's pixels; None where LibRaw must decode it.

    Its tags (DNG specification 1.4) give all that LibRaw would, without reading a pixel.
    """
    with path.open("rb") as file:
        if file.read(2) not in (b"II", b"MM"):
            return None
    try:
        with tifffile.TiffFile(path) as tiff:
            if 50706 not in tiff.pages.first.tags:  # DNGVersion
                return None
            pages = islice(tiff.pages, MOST_PAGES)
            images: list[Any] = [image for page in pages for image in (page, *(page.pages or ()))]
            full = [image for image in images if image.tags.valueof(254, 0) == 0]  # not a reduced copy
            found = _layout(full[0], path, tiff.byteorder) if len(full) == 1 else None
    except Exception:  # damaged tags surface as all sorts of errors; LibRaw decides whether the file can be used
        return None
    if found is not None:
        found[1].require_whole()
    return found


def _layout(image: Any, path: Path, byteorder: str) -> tuple[dict[str, Any], PlainPixels] | None:
    starts, counts = image.dataoffsets, image.databytecounts
    contiguous = all(start + count == after for start, count, after in zip(starts, counts, starts[1:], strict=False))
    plain = (
        image.compression == 1
        and image.bitspersample == 16
        and image.samplesperpixel == 1
        and not image.is_tiled
        and contiguous
        and not {50712, 50715, 50716} & set(image.tags.keys())  # linearization table, black level drifts
    )
    pattern = stated_pattern(image)
    repeat = tuple(image.tags.valueof(50713, (1, 1)))
    if not plain or pattern is None or repeat not in ((1, 1), (2, 2)):
        return None
    height, width = image.imagelength, image.imagewidth
    top, left, bottom, right = image.tags.valueof(50829, (0, 0, height, width))
    black = np.ravel(image.tags.valueof(50714, 0.0)).astype(float)
    if 50714 in image.tags and image.tags[50714].dtype in (_RATIONAL, _SRATIONAL):
        black = black[::2] / black[1::2]
    black = np.broadcast_to(black.reshape(repeat), (2, 2))
    layout = {
        "height": bottom - top,
        "width": right - left,
        "cfa_pattern": pattern,
        "black_level": tuple(float(black[place]) for place in offsets(pattern).values()),
        "white_level": float(np.ravel(image.tags.valueof(50717, 65535))[0]),
        "margins": (top, left),
        "full_shape": (height, width),
    }
    shape = (bottom - top, right - left)
    return layout, PlainPixels(path, starts[0], f"{byteorder}u2", (height, width), (top, left), shape)


def stated_pattern(image: Any) -> str | None:
    """Return the colours from the active area's first pixel, where the DNG specification starts to count, or None."""
    if image.photometric == 34892:  # LinearRaw with one sample a pixel
        return "mono"
    if (
        image.photometric != 32803
        or tuple(image.tags.valueof(33421, ())) != (2, 2)
        or image.tags.valueof(50711, 1) != 1
    ):
        return None
    pattern = "".join(_COLOURS[code] for code in bytes(image.tags.valueof(33422, b"")))
    return pattern if pattern in MOSAICS else None
