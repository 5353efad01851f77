"""What is known of a frame: its record, where its file keeps the pixels, EXIF, and what names of files imply."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import exifread
import numpy as np

from ..core.cube import channels_of
from ..core.errors import FrameReadError, printable
from ..core.files import real
from ..core.parallel import frame_memory

# exifread reports what it skips through logging; a frame that lacks a tag does not concern the user
logging.getLogger("exifread").setLevel(logging.ERROR)

NAT = np.datetime64("NaT", "ns")


@dataclass(frozen=True)
class FrameInfo:
    """One frame without its pixels; NaN, NaT or an empty text where the file does not record it.

    ``exposure`` is in seconds, ``temperature`` in °C, ``time`` the start of the exposure by the camera's clock,
    ``cfa_pattern`` that of the visible area's first pixel (``cfa_stated``: whether the file says so).
    ``black_level`` [ADU] has one value a channel (`channels_of`; a single one counts for all), ``white_level`` is in
    ADU.  ``height`` and ``width`` are the visible area's, ``margins`` its (top, left) within the full (masked margins
    included) ``full_shape``.  ``imagetyp`` is the kind as the file words it.
    ``gain_setting`` and ``offset_setting`` are numbers on the camera's own scales, ``egain`` is e-/ADU as a FITS
    header claims it.  ``binning`` counts sensor pixels along a side of a pixel, ``window`` is where the frame begins
    on the sensor (``"640, 480"``, empty for its corner), ``rotation`` the rotator's angle [deg].  ``row_order`` is
    the file's (pixels are read upright); ``derived`` is why it is not a raw frame (master, stack, processed picture),
    and ``combined`` how many frames were combined into it, NaN where that is not stated.  The file's numbers times
    ``scale`` plus ``shift`` are ADU; ``overscan`` is its (top, left, height, width) in the full picture.  ``planes``
    counts the file's colour planes, of which one colour a pixel is read (`containers.with_mosaic`).  ``doubts`` are
    sentences about what the header states.
    """

    path: Path
    format: str
    height: int
    width: int
    dtype: str = "uint16"
    camera: str = ""
    iso: float = math.nan
    gain_setting: float = math.nan
    offset_setting: float = math.nan
    readout_mode: str = ""
    binning: float = math.nan
    window: str = ""
    filter: str = ""
    exposure: float = math.nan
    aperture: float = math.nan
    temperature: float = math.nan
    rotation: float = math.nan
    time: np.datetime64 = NAT
    cfa_pattern: str = "mono"
    black_level: tuple[float, ...] = (math.nan,)
    white_level: float = math.nan
    margins: tuple[int, int] = (0, 0)
    full_shape: tuple[int, int] = (0, 0)
    imagetyp: str = ""
    egain: float = math.nan
    cfa_stated: bool = True
    row_order: str = ""
    derived: str = ""
    combined: float = math.nan
    scale: float = 1.0
    shift: float = 0.0
    overscan: tuple[int, ...] = ()
    planes: int = 1
    doubts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("camera", "readout_mode", "filter", "imagetyp"):
            object.__setattr__(self, name, printable(getattr(self, name)))
        if not self.white_level > 0:  # none, whatever the file says
            object.__setattr__(self, "white_level", math.nan)
        channels = len(channels_of(self.cfa_pattern))
        if len(self.black_level) != channels:
            object.__setattr__(self, "black_level", self.black_level[:1] * channels)


@dataclass(frozen=True)
class PlainPixels:
    """Where and how a file keeps the uncompressed pixels of a frame's visible area.

    ``offset`` is the first byte of the full area of ``full_shape``, ``stored`` its numpy type with byte order; the
    visible area begins at ``margins`` (top, left).  ``flip`` is XORed onto every pixel (FITS keeps unsigned numbers
    with a flipped sign bit).  A ``bottom_up`` file begins with the lowest row; rows count from the top all the same.
    """

    path: Path
    offset: int
    stored: str
    full_shape: tuple[int, int]
    margins: tuple[int, int] = (0, 0)
    visible_shape: tuple[int, int] | None = None
    flip: int = 0
    bottom_up: bool = False

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
        first, last, step = rows.indices((self.shape if area == "visible" else self.full_shape)[0])
        return np.ascontiguousarray(self._read_whole_rows(first, max(first, last), area)[::step, columns])

    def read_rows(self, first: int, last: int, out: np.ndarray, columns: slice = slice(None)) -> None:
        """Read rows of the visible area, or some columns of them, into a flat array of `dtype`."""
        if out.dtype.itemsize != self.dtype.itemsize:
            raise FrameReadError(self.path, f"holds {self.dtype} pixels where {out.dtype} ones were planned")
        begin, end, _ = columns.indices(self.shape[1])
        part = out[: (last - first) * (end - begin)].reshape(last - first, end - begin)
        whole = part.shape[1] == self.full_shape[1]
        rows = part if whole else frame_memory((last - first, self.full_shape[1]), self.dtype)
        self._fill(first, rows, "visible")
        if not whole:
            np.copyto(part, rows[:, self.margins[1] :][:, begin:end])
        self._make_native(part)

    def _read_whole_rows(self, first: int, last: int, area: str) -> np.ndarray:
        rows = frame_memory((last - first, self.full_shape[1]), self.dtype)
        self._fill(first, rows, area)
        self._make_native(rows)
        left = self.margins[1]
        return rows[:, left : left + self.shape[1]] if area == "visible" else rows

    def _fill(self, first: int, rows: np.ndarray, area: str) -> None:
        """Fill an array (row, column) with whole rows of the file as they are stored, from row `first` of the area.

        Ordinary reads, not a memory map: mapped pages count as this process's memory, and cost more than their copy.
        """
        itemsize, (height, width) = rows.itemsize, self.full_shape
        start, count = first + (self.margins[0] if area == "visible" else 0), len(rows)
        if self.bottom_up:
            start = height - start - count
        wanted, got = rows.reshape(-1).view(np.uint8).data, 0
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(self.offset + start * width * itemsize)
                while got < len(wanted):
                    read = file.readinto(wanted[got:])
                    if not read:
                        raise FrameReadError(self.path, "is cut short: it ended while it was being read")
                    got += read
        except OSError as problem:
            raise FrameReadError(self.path, f"cannot be read: {problem.strerror or problem}") from problem
        if self.bottom_up:
            rows[:] = rows[::-1]

    def _make_native(self, pixels: np.ndarray) -> None:
        """Turn stored pixels (row, column) into those of `dtype` in place, as many rows at a time as caches hold."""
        step = max(1, 65536 // max(pixels.shape[1], 1))
        for first in range(0, len(pixels), step):
            part = pixels[first : first + step]
            if not np.dtype(self.stored).isnative:
                part[:] = part.view(part.dtype.newbyteorder())  # four times as fast as ndarray.byteswap
            if self.flip:
                part ^= part.dtype.type(self.flip)

    def require_whole(self) -> PlainPixels:
        """Return these pixels if the file is long enough to hold them."""
        size = np.dtype(self.stored).itemsize * math.prod(self.full_shape)
        require_length(self.path, self.offset + size, "header")
        return self


def read_exif(path: str | Path, zero: float = math.nan) -> dict[str, Any]:
    """Return a file's camera, iso, exposure, aperture, temperature and time by EXIF; NaN, NaT or empty if unknown.

    TIFF-based files (NEF, ARW, CR2, DNG, ...) as well as Canon's CR3 and Fujifilm's RAF.  `zero` is returned for an
    exposure that is stated as 0.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from workbench.ingest import DngMetadata, write_dng
    >>> metadata = DngMetadata("RGGB", black_level=0, white_level=4095, iso=800, exposure=0.5, temperature=-5)
    >>> path = write_dng(Path(tempfile.mkdtemp()) / "a.dng", np.zeros((32, 32), "uint16"), metadata)
    >>> exif = read_exif(path)
    >>> exif["iso"], exif["exposure"], exif["temperature"]
    (800.0, 0.5, -5.0)
    """
    tags: dict[str, Any] = {}
    for block in exif_blocks(Path(path)):
        tags |= exifread.process_file(block, details=False, extract_thumbnail=False)
    make, model = _text(tags, "Image Make"), _text(tags, "Image Model")
    if re.match("canon|olympus|om digital", make, re.IGNORECASE):  # exifread knows only their thermometers
        with contextlib.suppress(Exception):  # a maker note that exifread stumbles over costs only the temperature
            for block in exif_blocks(Path(path)):
                tags |= exifread.process_file(block, details=True, extract_thumbnail=False)
    exposure = _number(tags, "EXIF ExposureTime", "Image ExposureTime")
    dates = (_text(tags, name) for name in ("EXIF DateTimeOriginal", "Image DateTimeOriginal", "Image DateTime"))
    return {
        "camera": camera_name(make, model),
        "iso": _positive(_iso(tags)),
        "exposure": zero if exposure == 0 else _positive(exposure),
        "aperture": _positive(_number(tags, "EXIF FNumber", "Image FNumber")),
        "temperature": _temperature(tags),
        "time": exif_time(next(filter(None, dates), ""), _text(tags, "EXIF SubSecTimeOriginal")),
    }


def exif_blocks(path: Path) -> Iterator[BinaryIO]:
    """Yield the TIFF or JPEG structures within a camera file that hold its EXIF."""
    with path.open("rb") as file:
        head = file.read(16)
        if head[:2] in (b"II", b"MM"):
            yield file
        elif head[4:12] == b"ftypcrx ":  # Canon CR3: box CMT1 holds the main tags, CMT2 the EXIF ones
            head += file.read(1 << 20)
            for name in (b"CMT1", b"CMT2"):
                start = head.find(name) - 4
                if start >= 0:
                    length = int.from_bytes(head[start : start + 4], "big")
                    yield io.BytesIO(head[start + 8 : start + length])
        elif head.startswith(b"FUJIFILMCCD-RAW"):  # byte 84: position and length of the embedded JPEG
            file.seek(84)
            start, length = (int.from_bytes(file.read(4), "big") for _ in range(2))
            file.seek(start)
            yield io.BytesIO(file.read(min(length, 1 << 20)))


def camera_name(make: str, model: str) -> str:
    """Join maker and model, each named once.

    Examples
    --------
    >>> camera_name("NIKON CORPORATION", "NIKON D7000"), camera_name("SONY", "ILCE-7RM3")
    ('NIKON D7000', 'SONY ILCE-7RM3')
    """
    make, model = " ".join(make.split()), " ".join(model.split())
    if not make or not model:
        return model or make
    named = model.split()[0].casefold() in make.casefold().split()
    return model if named else f"{make} {model}"


def exif_time(text: str, subsecond: str = "") -> np.datetime64:
    """Return EXIF's ``2014:07:15 13:07:40`` as datetime64, NaT where it is not a date."""
    match = re.match(r"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d):(\d\d):(\d\d)", text.strip())
    if not match:
        return NAT
    year, month, day, hour, minute, second = match.groups()
    fraction = f".{subsecond.strip()}" if subsecond.strip().isdigit() else ""
    return as_time(f"{year}-{month}-{day}T{hour}:{minute}:{second}{fraction}")


def as_time(text: str) -> np.datetime64:
    """Return an ISO 8601 time as datetime64[ns], NaT where it is none (``0000-00-00`` of an unset clock)."""
    try:
        return np.datetime64(text.strip().removesuffix("Z"), "ns")
    except ValueError:
        return NAT


MOST_PAGES = 64  # of a TIFF-based RAW file, which has a dozen at most; a damaged directory can lead back to itself
_KIND_WORDS = (
    ("darkflat", r"dark[ _-]?flats?|flat[ _-]?darks?|darks?[ _-]for[ _-]flats?"),
    ("bias", r"bias(?:es)?|offsets?|zeros?"),
    ("dark", r"darks?"),
    ("flat", r"flats?|sky[ _-]?flats?|dome[ _-]?flats?"),
    ("light", r"lights?|objects?|science"),
)
_KIND_PATTERNS = [(kind, re.compile(rf"(?<![a-z])(?:{words})(?![a-z])")) for kind, words in _KIND_WORDS]


def kind_in_words(text: str) -> str:
    """Return the kind of frame that a folder's name or a FITS ``IMAGETYP`` means, or an empty text.

    A text that names two kinds, or a master, means none: a master is not a frame.

    Examples
    --------
    >>> [kind_in_words(text) for text in ("Biases", "Dark Frame", "DARK_FLATS", "flat-darks 2s", "M31", "darks+flats")]
    ['bias', 'dark', 'darkflat', 'darkflat', '', '']
    """
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).casefold()
    if "master" in text:
        return ""
    kinds = []
    for kind, pattern in _KIND_PATTERNS:
        text, found = pattern.subn("|", text)
        kinds += [kind] if found else []
    return kinds[0] if len(kinds) == 1 else ""


def kind_in_folders(path: str | Path, root: str | Path | None = None) -> str:
    """Return the kind that the nearest folder named after one means, up to and with `root`."""
    return next(filter(None, map(kind_in_words, folder_names(Path(path), root))), "")


def folder_names(path: Path, root: str | Path | None) -> list[str]:
    """Return the names of the folders above a file, nearest first, up to and with `root`."""
    if root is None:
        return [folder.name for folder in path.parents]
    root = Path(root)
    inner = [folder.name for folder in path.relative_to(root).parents][:-1]
    return [*inner, real(root).name]


def number(text: Any) -> float:
    """Return a number from a header's value, also as text with a decimal comma; NaN where it is none.

    Examples
    --------
    >>> number("5.0"), number("-10,5"), number("n/a"), number(None)
    (5.0, -10.5, nan, nan)
    """
    try:
        return float(text.replace(",", ".") if isinstance(text, str) else text)
    except (TypeError, ValueError, ZeroDivisionError):
        return math.nan


def require_file(path: str | Path) -> Path:
    """Return the path of a readable file that is not empty, or raise what is wrong with it."""
    path = Path(path)
    try:
        if not (path.is_file() or path.is_dir() or not path.exists()):
            raise FrameReadError(path, "is not an ordinary file (a pipe or a device); give a file")
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        raise FrameReadError(path, "does not exist; check the name") from None
    except IsADirectoryError:
        raise FrameReadError(path, "is a folder, not a frame; open it with open_folder") from None
    except OSError as error:
        raise FrameReadError(path, f"cannot be opened: {error.strerror}") from None
    if empty:
        raise FrameReadError(path, "is empty (0 bytes); copy it again from the card")
    return path


def require_length(path: Path, needed: int, promise: str) -> None:
    """Raise an error if a file has fewer bytes than its own header or directory (the `promise`) requires."""
    length = path.stat().st_size
    if length < needed:
        raise FrameReadError(
            path,
            f"is cut short: {length:,} bytes of the {needed:,} that its own {promise} promises "
            f"({100 * length / needed:.1f} %); copy it again",
        )


def _text(tags: Mapping[str, Any], name: str) -> str:
    tag = tags.get(name)
    return tag.values.strip(" \0") if tag is not None and isinstance(tag.values, str) else ""


def _number(tags: Mapping[str, Any], *names: str) -> float:
    for name in names:
        tag = tags.get(name)
        if tag is not None and isinstance(tag.values, list) and tag.values:
            value = number(tag.values[0])
            if math.isfinite(value):
                return value
    return math.nan


def _iso(tags: Mapping[str, Any]) -> float:
    iso = _number(tags, "EXIF ISOSpeedRatings", "Image ISOSpeedRatings")
    if iso == 65535:  # the short field ends there; the true value stands in a long one
        return _number(tags, "EXIF RecommendedExposureIndex", "EXIF ISOSpeed", "EXIF StandardOutputSensitivity")
    return iso


def _temperature(tags: Mapping[str, Any]) -> float:
    """EXIF 2.31 AmbientTemperature (0x9400), else the maker note's thermometer."""
    for name, tag in tags.items():
        if name.startswith("EXIF ") and tag.tag == 0x9400:
            return _number(tags, name)
    for name, tag in tags.items():
        if name.startswith("MakerNote") and name.endswith(("CameraTemperature", "SensorTemperature")):
            match = re.search(r"-?\d+(?:\.\d+)?", str(tag.printable))
            return float(match.group()) if match else math.nan
    return math.nan


def _positive(value: float) -> float:
    return value if value > 0 else math.nan
