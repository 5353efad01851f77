"""FITS frames: the keywords that matter, and pixels in native byte order."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from ..core.cube import MOSAICS
from ..core.errors import FrameReadError
from ..core.mosaic import shifted
from ..core.settings import filter_name
from .metadata import NAT, FrameInfo, PlainPixels, as_time, number, require_file, require_length


def read_fits(path: str | Path) -> np.ndarray:
    """Return the (y, x) pixels of a FITS frame in native byte order, rows in the file's order.

    16-bit integers come as uint16; floating-point data stay what they are; wider integers and
    scaled integers come as float64, blank ones as NaN.

    Raises
    ------
    FrameReadError
        If it holds no two-dimensional image, has eight bits a pixel, or is cut short.
    """
    path = require_file(path)
    with _opened(path) as hdus:
        hdu, info = _picture(hdus, path)
        plain = _plain(hdu, info)
        if plain is not None:
            return plain.read()
        try:
            pixels = np.asarray(hdu.data).reshape(info.height, info.width)
        except Exception as error:  # astropy and zlib raise many kinds for damaged data
            raise FrameReadError(path, f"is damaged or cut short ({error}); copy it again") from None
    if info.dtype == "uint16" and pixels.dtype.kind == "i" and pixels.min() < 0:
        raise FrameReadError(
            path, f"has values below zero ({pixels.min()}) in 16-bit integers, which no camera writes; save it as float"
        )
    return pixels.astype(info.dtype)


def fits_layout(path: str | Path) -> tuple[FrameInfo, PlainPixels | None]:
    """Return what a FITS header records, and where the file keeps plain 16-bit or floating-point pixels (else None).

    ``EXPTIME`` or ``EXPOSURE`` [s]; ``ISOSPEED``; ``CCD-TEMP`` [°C]; ``DATE-OBS``; ``INSTRUME`` or
    ``CAMERA``; ``IMAGETYP``; ``EGAIN`` [e-/ADU] (``GAIN`` is a camera setting and is not read);
    ``BAYERPAT`` moved by ``XBAYROFF`` and ``YBAYROFF``, and flipped where by ``ROWORDER`` the file's
    first row is the bottom of the picture.  An error if the file is cut short.
    """
    path = require_file(path)
    with _opened(path) as hdus:
        hdu, info = _picture(hdus, path)
        return info, _plain(hdu, info)


def bayer_pattern(header: Mapping[str, Any], height: int) -> str:
    """Return the colours from the array's pixel (0, 0), ``mono`` where the header names no mosaic.

    Examples
    --------
    >>> bayer_pattern({"BAYERPAT": "RGGB"}, 10), bayer_pattern({"BAYERPAT": "RGGB", "ROWORDER": "BOTTOM-UP"}, 10)
    ('RGGB', 'GBRG')
    """
    pattern = str(header.get("BAYERPAT", "")).strip().upper()
    if not pattern:
        return "mono"
    if pattern not in MOSAICS:
        raise ValueError(f"BAYERPAT is {pattern!r}; only {', '.join(MOSAICS)} are read")
    rows, columns = (round(number(header.get(key, 0)) or 0) for key in ("YBAYROFF", "XBAYROFF"))
    pattern = shifted(pattern, rows, columns)
    if str(header.get("ROWORDER", "")).strip().upper() == "BOTTOM-UP":
        # the pattern is that of the upright picture, whose last row is the array's first
        pattern = shifted(pattern, height - 1, 0)
    return pattern


@contextmanager
def _opened(path: Path) -> Iterator[fits.HDUList]:
    with path.open("rb") as file:
        try:
            if file.read(6) == b"SIMPLE":  # not packed
                file.seek(0)
                header = fits.Header.fromfile(file)
                shape = [header[f"NAXIS{axis}"] for axis in range(1, header["NAXIS"] + 1)]
                if shape:  # of data that are not there astropy would only warn, on the terminal
                    require_length(path, file.tell() + abs(header["BITPIX"]) // 8 * math.prod(shape), "header")
            file.seek(0)
            hdus = fits.open(file, memmap=False, lazy_load_hdus=True)
        except FrameReadError:
            raise
        except Exception as error:  # astropy raises many kinds for damaged headers
            raise FrameReadError(path, f"cannot be read as FITS ({error}); save it again as a FITS image") from None
        with hdus:
            yield hdus


def _picture(hdus: fits.HDUList, path: Path) -> tuple[Any, FrameInfo]:
    """The first HDU that holds an image, and its record."""
    for hdu in hdus:
        if isinstance(hdu, (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU)) and hdu.header.get("NAXIS", 0) > 0:
            return hdu, _info(hdu, path)
    raise FrameReadError(path, "holds no image (its FITS units are empty, or tables)")


def _info(hdu: Any, path: Path) -> FrameInfo:
    header = hdu.header
    shape = [header[f"NAXIS{axis}"] for axis in range(header["NAXIS"], 0, -1)]
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 2:
        size = " x ".join(map(str, shape))
        raise FrameReadError(path, f"holds data of size {size}; a frame is one two-dimensional mosaic or mono image")
    if header["BITPIX"] == 8:
        raise FrameReadError(path, "has eight bits a pixel: the camera's values are lost; save 16 bits or float")
    height, width = shape
    try:
        pattern = bayer_pattern(header, height)
    except ValueError as error:
        raise FrameReadError(path, str(error)) from None
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
        cfa_pattern=pattern,
        black_level=(math.nan,) * (1 if pattern == "mono" else 4),
        full_shape=(height, width),
        imagetyp=_words(header, "IMAGETYP", "FRAMETYP", "FRAME"),
        egain=first("EGAIN"),
        doubts=tuple(filter(None, (slow, warm))),
    )


def _words(header: Mapping[str, Any], *keys: str) -> str:
    """The first of some keywords that is given, as text."""
    return next((text for text in (str(header.get(key) or "").strip() for key in keys) if text), "")


def _exposure(header: Mapping[str, Any]) -> tuple[float, str]:
    """The exposure time [s], from seconds, or from whole microseconds; and what is doubtful."""
    stated, micro = _first(header, "EXPTIME", "EXPOSURE"), number(header.get("EXPOINUS")) * 1e-6
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
    measured, wanted = number(header.get("CCD-TEMP")), number(header.get("SET-TEMP"))
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


def _plain(hdu: Any, info: FrameInfo) -> PlainPixels | None:
    header, place = hdu.header, hdu.fileinfo()
    with info.path.open("rb") as file:
        packed = file.read(6) != b"SIMPLE"
    if packed or place is None or isinstance(hdu, fits.CompImageHDU):
        return None
    stored = f">{'f' if header['BITPIX'] < 0 else 'i'}{abs(header['BITPIX']) // 8}"
    pixels = PlainPixels(info.path, place["datLoc"], stored, (info.height, info.width)).require_whole()
    scaled = header.get("BSCALE", 1) != 1 or "BLANK" in header
    zero = header.get("BZERO", 0)
    if header["BITPIX"] == 16 and zero == 32768 and not scaled:
        return replace(pixels, stored=">u2", flip=0x8000)
    return pixels if header["BITPIX"] < 0 and zero == 0 and not scaled else None


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
