"""What a FITS header states of a frame, in the many ways in which capture programs word it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..core.cube import MOSAICS, is_mosaic, is_xtrans
from ..core.errors import FrameReadError
from ..core.mosaic import shifted
from ..core.settings import filter_name
from .metadata import NAT, FrameInfo, as_time, number

BOTTOM_UP, TOP_DOWN = "BOTTOM-UP", "TOP-DOWN"


def frame_info(header: Mapping[str, Any], path: Path) -> FrameInfo:
    """Return what the header of a two-dimensional image records of a frame.

    ``EXPTIME``, ``EXPOSURE`` or ``EXP`` [s], ``EXPOINUS`` [µs]; ``ISOSPEED``; ``GAIN``, ``OFFSET``, ``READOUTM``,
    ``XBINNING`` and ``XORGSUBF``, the setting; ``CCD-TEMP`` or ``DET-TEMP`` [°C or K]; ``DATE-OBS``; ``INSTRUME``;
    ``IMAGETYP``; ``FILTER``; ``ROTATOR``; ``EGAIN`` [e-/ADU]; the mosaic, see `bayer_pattern`; ``ROWORDER``;
    ``TRIMSEC``, ``DATASEC`` and ``BIASSEC``, the light-sensitive window, to which the frame is trimmed.

    Raises
    ------
    FrameReadError
        If the data are not one plane of more than eight bits, or the header states what is not supported.
    """
    full = _full_shape(header, path)
    (top, left, height, width), cut = _light_window(header, full)
    try:
        pattern = bayer_pattern(header)
    except ValueError as error:
        raise FrameReadError(path, str(error)) from None
    if is_xtrans(pattern):  # whole cells, as of RAW files
        height, width = height // 6 * 6, width // 6 * 6
    first = partial(_first, header)
    (exposure, slow), (temperature, warm) = _exposure(header), _temperature(header)
    return FrameInfo(
        path=path,
        format="fits",
        height=height,
        width=width,
        dtype=_dtype(header),
        camera=_words(header, "INSTRUME", "CAMERA"),
        iso=first("ISOSPEED", "ISO"),
        gain_setting=first("GAIN"),
        offset_setting=first("OFFSET", "BLKLEVEL", "BLACKLVL"),
        readout_mode=_words(header, "READOUTM", "READMODE"),
        binning=_binning(header, path),
        window=_window(header),
        filter=filter_name(_words(header, "FILTER", "FILTER1")),
        exposure=exposure,
        aperture=first("APERTURE", "FNUMBER"),
        temperature=temperature,
        rotation=first("ROTATOR", "ROTATANG"),
        time=_time(header),
        cfa_pattern=shifted(pattern or "mono", top, left),
        margins=(top, left),
        full_shape=full,
        imagetyp=_words(header, "IMAGETYP", "FRAMETYP", "FRAME"),
        egain=first("EGAIN"),
        cfa_stated=bool(pattern),
        row_order=row_order(header),
        derived=_derived(header),
        combined=_combined(header)[1],
        overscan=_overscan(header, full, (top, left, height, width)),
        doubts=tuple(filter(None, (slow, warm, cut, _calibrated(header)))),
    )


def row_order(header: Mapping[str, Any]) -> str:
    """Return ``TOP-DOWN`` or ``BOTTOM-UP`` as a header states it, else an empty text."""
    return _words(header, "ROWORDER").upper().replace("_", "-").replace(" ", "-")


def bayer_pattern(header: Mapping[str, Any]) -> str:
    """Return the colours from the upright picture's pixel (0, 0), ``mono``, or an empty text where nothing is stated.

    ``BAYERPAT``, else ``COLORTYP``, moved by ``XBAYROFF`` and ``YBAYROFF``.  Where the file's rows run from the bottom
    up (``ROWORDER``) the pattern is that of the upright picture all the same.

    Raises
    ------
    ValueError
        If ``BAYERPAT`` is not a pattern of a mosaic.

    Examples
    --------
    >>> bayer_pattern({"BAYERPAT": "RGGB", "YBAYROFF": 1}), bayer_pattern({"COLORTYP": "MONO"}), bayer_pattern({})
    ('GBRG', 'mono', '')
    """
    pattern, colours = _words(header, "BAYERPAT").upper(), _words(header, "COLORTYP").upper()
    if pattern in ("", "NONE", "MONO"):
        pattern = pattern and "mono"
        pattern = pattern or (colours if colours in MOSAICS else "mono" if colours.startswith("MONO") else "")
    elif not is_mosaic(pattern):
        raise ValueError(f"BAYERPAT is {pattern!r}; only {', '.join(MOSAICS)} and the 36 letters of X-Trans are read")
    rows, columns = (
        round(np.nan_to_num(number(header.get(key, 0)), posinf=0, neginf=0)) for key in ("YBAYROFF", "XBAYROFF")
    )
    return shifted(pattern, rows, columns) if is_mosaic(pattern) else pattern


def colour_axis(header: Mapping[str, Any]) -> int | None:
    """Return along which axis of the data, as numpy has them, three colour planes lie; None for one plane."""
    shape = _shape(header)
    return None if len(shape) != 3 or 3 not in (shape[0], shape[2]) else 0 if shape[0] == 3 else 2


def _shape(header: Mapping[str, Any]) -> list[int]:
    shape = [header[f"NAXIS{axis}"] for axis in range(header["NAXIS"], 0, -1)]
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    return shape


def _full_shape(header: Mapping[str, Any], path: Path) -> tuple[int, int]:
    """Height and width of the data."""
    shape = _shape(header)
    if (axis := colour_axis(header)) is not None:
        del shape[axis]
    if len(shape) != 2:
        size = " x ".join(map(str, shape))
        raise FrameReadError(path, f"holds data of size {size}; a frame is one two-dimensional mosaic or mono image")
    if header["BITPIX"] == 8:
        raise FrameReadError(path, "has eight bits a pixel: the camera's values are lost; save 16 bits or float")
    return shape[0], shape[1]


_Window = tuple[int, int, int, int]  # top, left, height, width
_SECTION = re.compile(r"\s*\[\s*(\d+)\s*:\s*(\d+)\s*,\s*(\d+)\s*:\s*(\d+)\s*\]\s*")


def _section(text: str, flipped_height: int) -> _Window | None:
    """Rows and columns of an IRAF section ``[x1:x2,y1:y2]``; the rows from below where that height is given."""
    match = _SECTION.fullmatch(text)
    if not match:
        return None
    x1, x2, y1, y2 = map(int, match.groups())
    (left, right), (top, bottom) = sorted((x1, x2)), sorted((y1, y2))
    first = flipped_height - bottom if flipped_height else top - 1
    return first, left - 1, bottom - top + 1, right - left + 1


def _within(window: _Window, shape: tuple[int, int]) -> bool:
    top, left, height, width = window
    return top >= 0 and left >= 0 and top + height <= shape[0] and left + width <= shape[1]


def _light_window(header: Mapping[str, Any], shape: tuple[int, int]) -> tuple[_Window, str]:
    """The part of the upright picture that light reaches; and what is doubtful."""
    whole = (0, 0, *shape)
    flipped = shape[0] if row_order(header) == BOTTOM_UP else 0
    for key in ("TRIMSEC", "DATASEC"):
        text = _words(header, key)
        window = _section(text, flipped) if text else None
        if window and _within(window, shape):
            return window, ""
        if text and not (window and window[2:] == shape):  # a frame that was trimmed keeps the words
            return whole, f"{key} is {text!r}, not a part of {shape[1]} x {shape[0]} pixels: the whole frame is used"
    overscan = _section(_words(header, "BIASSEC"), flipped)
    if not overscan or not _within(overscan, shape):
        return whole, ""
    top, left, height, width = overscan
    below, right = shape[0] - top - height, shape[1] - left - width
    # the greatest rectangle next to the overscan
    rests = [(0, 0, top, shape[1]), (top + height, 0, below, shape[1])]
    rests += [(0, 0, shape[0], left), (0, left + width, shape[0], right)]
    rest = max(rests, key=lambda part: part[2] * part[3])
    return (rest, "") if rest[2] * rest[3] else (whole, "BIASSEC leaves no pixel: the whole frame is used")


def _overscan(header: Mapping[str, Any], shape: tuple[int, int], light: _Window) -> tuple[int, ...]:
    """The overscan in the upright picture, where it is stated and apart from the part that light reaches."""
    window = _section(_words(header, "BIASSEC"), shape[0] if row_order(header) == BOTTOM_UP else 0)
    if not window or not _within(window, shape):
        return ()
    apart = any(window[n] >= light[n] + light[n + 2] or light[n] >= window[n] + window[n + 2] for n in (0, 1))
    return window if apart else ()


_PROCESSED = re.compile(r"\b(ImageIntegration|ImageCalibration|Debayer|StarAlignment)\.")


def _derived(header: Mapping[str, Any]) -> str:
    """Why a header's frame is not a raw one, empty for a raw one."""
    kind = _words(header, "IMAGETYP", "FRAMETYP", "FRAME")
    if "master" in kind.casefold():
        return f"IMAGETYP {kind!r}"
    key, count = _combined(header)
    if count > 1:
        return f"{key} {count:g}"
    if header.get("COMBINED") is True:
        return "COMBINED T"
    step = _PROCESSED.search(str(header.get("HISTORY", "")))
    return f"HISTORY {step.group(1)}" if step else ""


def _combined(header: Mapping[str, Any]) -> tuple[str, float]:
    """The keyword that counts the frames combined into this one, and the count; NaN where none does."""
    counts = ((key, number(header.get(key))) for key in ("STACKCNT", "NCOMBINE", "NFRAMES", "SNAPSHOT"))
    return next(((key, count) for key, count in counts if count > 1), ("", math.nan))


def _calibrated(header: Mapping[str, Any]) -> str:
    """What is doubtful in a frame that was calibrated already."""
    steps = _words(header, "CALSTAT").upper()
    if not set(steps) & set("BDF"):
        return ""
    return f"CALSTAT is {steps!r}: calibrated already, calibrated again it is wrong; give the raw frame"


def _words(header: Mapping[str, Any], *keys: str) -> str:
    """The first of some keywords that is given, as text."""
    return next((text for text in (str(header.get(key) or "").strip() for key in keys) if text), "")


def _exposure(header: Mapping[str, Any]) -> tuple[float, str]:
    """The exposure time [s], from seconds, or from whole microseconds; and what is doubtful."""
    stated, micro = _first(header, "EXPTIME", "EXPOSURE", "EXP"), number(header.get("EXPOINUS")) * 1e-6
    if math.isnan(stated):
        return micro, ""
    if micro > 0 and abs(stated / micro - 1) > 0.01:
        return micro, f"EXPTIME is {stated:g} and EXPOINUS {micro * 1e6:g} µs: {micro:g} s are used"
    unit = re.match(r"\s*\[?\(?(ms|msec|milliseconds)\b", _comment(header, "EXPTIME", "EXPOSURE"))
    return (stated * 1e-3, "EXPTIME is in milliseconds") if unit else (stated, "")


def _comment(header: Any, *keys: str) -> str:
    """The comment of the first of some keywords that is given."""
    return next((header.comments[key] for key in keys if key in header), "") if hasattr(header, "comments") else ""


def _temperature(header: Mapping[str, Any]) -> tuple[float, str]:
    """The sensor's temperature [°C], converted from kelvin where no Celsius scale reaches; and what is doubtful."""
    measured, wanted = _first(header, "CCD-TEMP", "DET-TEMP"), number(header.get("SET-TEMP"))
    if 173 < measured < 333:  # -100 to 60 °C
        measured -= 273.15
        return round(measured, 2), "CCD-TEMP is in kelvin and taken as such"
    if math.isnan(measured):
        camera = re.match(r"\s*([-+]?\d+(?:\.\d+)?)", str(header.get("CAMTEMP", "")))
        return (float(camera.group(1)) if camera else math.nan), ""
    if not -100 <= measured <= 100:
        return math.nan, f"CCD-TEMP is {measured:g}: no temperature of a sensor, taken as not recorded"
    if abs(measured - wanted) > 2:
        return measured, f"the sensor was at {measured:g} °C, set to {wanted:g} °C: the measured one is used"
    return measured, ""


def _binning(header: Mapping[str, Any], path: Path) -> float:
    """Sensor pixels along a side of a pixel; different ones along x and y are refused."""
    across, down = (_first(header, f"{axis}BINNING", f"CCD{axis}BIN") for axis in "XY")
    if match := re.fullmatch(r"(\d)\s*[*x]\s*(\d)", _words(header, "BINNING")):
        across, down = float(match[1]), float(match[2])
    if across > 0 and down > 0 and across != down:
        raise FrameReadError(path, f"is binned {across:g} x {down:g}; frames binned alike along x and y are supported")
    return next((value for value in (across, down) if value > 0), math.nan)


def _window(header: Mapping[str, Any]) -> str:
    """Where the frame begins on the sensor, empty for its corner."""
    corner = [number(header.get(key)) for key in ("XORGSUBF", "YORGSUBF")]
    return f"{corner[0]:g}, {corner[1]:g}" if all(map(math.isfinite, corner)) and any(corner) else ""


def _first(header: Mapping[str, Any], *keys: str) -> float:
    """The first of some keywords that is a finite number, NaN without one."""
    return next((value for value in (number(header.get(key)) for key in keys) if math.isfinite(value)), math.nan)


def _dtype(header: Mapping[str, Any]) -> str:
    """What `read_fits` returns for this header."""
    bits = header["BITPIX"]
    if bits < 0:
        return f"float{-bits}"
    plain = header.get("BSCALE", 1) == 1 and header.get("BZERO", 0) in (0, 32768) and "BLANK" not in header
    return "uint16" if bits == 16 and plain else "float64"


def _time(header: Mapping[str, Any]) -> np.datetime64:
    """DATE-OBS, also in its old form day/month/year with the time in a keyword of its own."""
    date = str(header.get("DATE-OBS", "")).strip()
    if not date:
        return NAT
    if "/" in date:
        day, month, year = [*date.split("/"), "", ""][:3]
        year = f"19{year}" if len(year) == 2 else year
        date = f"{year}-{month}-{day}"
    if "T" not in date:
        clock = header.get("TIME-OBS") or header.get("UT-START") or header.get("UTSTART") or ""
        date = f"{date}T{str(clock).strip()}" if clock else date
    return as_time(date)
