"""FITS frames: pixels in native byte order, the picture upright."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, cast

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from ..core.errors import FrameReadError
from .containers import of_mosaic, with_mosaic
from .fits_header import BOTTOM_UP, colour_axis, frame_info, row_order
from .metadata import FrameInfo, PlainPixels, require_file, require_length


def read_fits(path: str | Path, area: str = "visible") -> np.ndarray:
    """Return the (y, x) pixels of a FITS frame in native byte order, the picture's top row first.

    A file whose rows run from the bottom up (``ROWORDER``) is turned upright.  Without ``area="full"`` the overscan is
    cut off (``TRIMSEC``, ``DATASEC``, ``BIASSEC``).  16-bit integers come as uint16; floating-point data stay what they
    are; wider integers and scaled integers come as float64, blank ones as NaN.  Of a debayered picture, three colour
    planes, comes one colour a pixel, as a mosaic (`containers.with_mosaic`).

    Raises
    ------
    FrameReadError
        If it holds no two-dimensional image, has eight bits a pixel or is cut short.
    """
    path = require_file(path)
    with _opened(path) as hdus:
        hdu, info = _picture(hdus, path)
        plain = _plain(hdu, info)
        if plain is not None:
            return plain.read(area=area)
        try:
            pixels = of_mosaic(_colours(path), info) if info.planes == 3 else hdu.data.reshape(info.full_shape)
        except Exception as error:  # astropy and zlib raise many kinds for damaged data
            raise FrameReadError(path, f"is damaged or cut short ({error}); copy it again") from None
    if info.dtype == "uint16" and pixels.dtype.kind == "i" and pixels.min() < 0:
        raise FrameReadError(
            path, f"has values below zero ({pixels.min()}) in 16-bit integers, which no camera writes; save it as float"
        )
    if info.row_order == BOTTOM_UP and info.planes == 1:
        pixels = pixels[::-1]
    if area == "visible":
        (top, left), height, width = info.margins, info.height, info.width
        pixels = pixels[top : top + height, left : left + width]
    return np.ascontiguousarray(pixels, info.dtype)


def fits_layout(path: str | Path) -> tuple[FrameInfo, PlainPixels | None]:
    """Return what a FITS header records, and where the file keeps plain 16-bit or floating-point pixels (else None).

    What of the header is read, `fits_header.frame_info` lists.  An error if the file is cut short.
    """
    path = require_file(path)
    with _opened(path) as hdus:
        hdu, info = _picture(hdus, path)
        return info, _plain(hdu, info)


def header_of(path: str | Path) -> fits.Header:
    """Return the header of the image in a FITS file; an error as `fits_layout`."""
    path = require_file(path)
    with _opened(path) as hdus:
        return _picture(hdus, path)[0].header.copy()


_LOCK, _readers = Lock(), [0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep astropy's warnings about header cards from the terminal, in all threads that read: no user can mend them."""
    rule, filters = ("ignore", None, AstropyWarning, None, 0), cast(list[Any], warnings.filters)
    with _LOCK:
        _readers[0] += 1
        if rule not in filters:
            warnings.simplefilter("ignore", AstropyWarning)
    try:
        yield
    finally:
        with _LOCK:
            _readers[0] -= 1
            if not _readers[0] and rule in filters:
                filters.remove(rule)


@contextmanager
def _opened(path: Path) -> Iterator[fits.HDUList]:
    with path.open("rb") as file, _quiet():
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
    hdu = _image(hdus, path)
    info = frame_info(hdu.header, path)
    return hdu, info if colour_axis(hdu.header) is None else with_mosaic(info, _colours)


def _image(hdus: fits.HDUList, path: Path) -> Any:
    for hdu in hdus:
        if isinstance(hdu, (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU)) and hdu.header.get("NAXIS", 0) > 0:
            _mend(hdu.header)
            return hdu
    raise FrameReadError(path, "holds no image (its FITS units are empty, or tables)")


def _mend(header: fits.Header) -> None:
    """Make texts of values that are none of FITS (``CCD-TEMP= nan``), and drop the cards that cannot be mended."""
    for card in list(header.cards):
        try:
            _ = card.value
        except fits.VerifyError:
            try:
                card.verify("silentfix")
            except ValueError:
                header.remove(card.keyword)


def _colours(path: Path) -> np.ndarray:
    """The upright planes R, G, B (3, y, x) of a debayered picture."""
    with _opened(path) as hdus:
        hdu = _image(hdus, path)
        try:
            planes = np.moveaxis(np.squeeze(hdu.data), colour_axis(hdu.header) or 0, 0)
        except Exception as error:  # astropy and zlib raise many kinds for damaged data
            raise FrameReadError(path, f"is damaged or cut short ({error}); copy it again") from None
        return planes[:, ::-1] if row_order(hdu.header) == BOTTOM_UP else planes


def _plain(hdu: Any, info: FrameInfo) -> PlainPixels | None:
    header, place = hdu.header, hdu.fileinfo()
    with info.path.open("rb") as file:
        packed = file.read(6) != b"SIMPLE"
    if packed or place is None or colour_axis(header) is not None or isinstance(hdu, fits.CompImageHDU):
        return None
    stored = f">{'f' if header['BITPIX'] < 0 else 'i'}{abs(header['BITPIX']) // 8}"
    pixels = PlainPixels(
        info.path, place["datLoc"], stored, info.full_shape, info.margins, (info.height, info.width),
        bottom_up=info.row_order == BOTTOM_UP,
    ).require_whole()  # fmt: skip
    scaled = header.get("BSCALE", 1) != 1 or "BLANK" in header
    zero = header.get("BZERO", 0)
    if header["BITPIX"] == 16 and zero == 32768 and not scaled:
        return replace(pixels, stored=">u2", flip=0x8000)
    return pixels if header["BITPIX"] < 0 and zero == 0 and not scaled else None
