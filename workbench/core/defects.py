"""Defects of a sensor: their kinds, the test of a flat's single pixels, and the map as a FITS file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import xarray as xr
from astropy.io import fits
from numba import njit

from .errors import FrameReadError
from .files import whole_file

HOT, WARM, DEAD, UNSTABLE = 1, 2, 4, 8
KINDS = {"hot": HOT, "warm": WARM, "dead": DEAD, "unstable": UNSTABLE}
HOT_NOISE = 2.0  # hot: its own dark shot noise makes the pixel's noise this many times that of its neighbours
WARM_SIGMAS = 8.0  # warm: its dark signal lies this many robust standard deviations above its plane's
DEAD_RESPONSE = 0.7  # dead: less than this of its neighbours' response to light, or more than its inverse
UNSTABLE_EXCESS = 2.5  # unstable: its variance is this many times the noise model's, and not by chance


def defect_map(flags: np.ndarray, pattern: str, thresholds: dict[str, float], **attrs: object) -> xr.DataArray:
    """Return flags uint8 (y, x), bits of `KINDS`, with their meaning, the thresholds and how many there are of each.

    Examples
    --------
    >>> found = defect_map(np.array([[0, 1], [3, 0]], np.uint8), "mono", {"hot_noise": 2.0})
    >>> found.attrs["counts"]
    {'hot': 2, 'warm': 1, 'dead': 0, 'unstable': 0}
    """
    return xr.DataArray(
        flags,
        dims=("y", "x"),
        attrs={
            "long_name": "defects",
            "cfa_pattern": pattern,
            "flag_masks": list(KINDS.values()),
            "flag_meanings": " ".join(KINDS),
            "counts": {name: int(np.count_nonzero(flags & bit)) for name, bit in KINDS.items()},
            "thresholds": dict(thresholds),
            **attrs,
        },
    )


@njit(nogil=True, cache=True, error_model="numpy")
def flag_response(response, least, flags):
    """Flag in place what differs from the median of the 24 around it; only where a few neighbours' mean hints at it.

    `response` (y, x) of one CFA plane, `flags` uint8 of its shape; dead is below `least` of the median or above its
    inverse.
    """
    rows, columns = response.shape
    around = np.empty(25)
    for i in range(rows):
        for j in range(columns):
            f = response[i, j]
            hint, number = 0.0, 0
            for m in range(max(0, i - 1), min(rows, i + 2)):
                g = response[m, j - 1 if j else j + 1]
                h = response[m, j + 1 if j + 1 < columns else j - 1]
                if np.isfinite(g) and np.isfinite(h):
                    hint += g + h
                    number += 2
            # a neighbour may be a defect too, so the hint is generous
            if number and np.isfinite(f) and abs(f / (hint / number) - 1) < 0.3 * (1 - least):
                continue
            number = 0
            for m in range(max(0, i - 2), min(rows, i + 3)):
                for n in range(max(0, j - 2), min(columns, j + 3)):
                    if (m != i or n != j) and np.isfinite(response[m, n]):
                        around[number] = response[m, n]
                        number += 1
            if number < 5:  # it is not the pixel but the flat that is missing here
                continue
            middle = np.median(around[:number])
            if middle > 0 and not (least <= f / middle <= 1 / least):
                flags[i, j] |= 4


def write_defects(defects: xr.DataArray, path: str | Path) -> Path:
    """Write a defect map as a FITS picture of bytes, bits as in the header; whole or not at all.

    Raises
    ------
    WorkbenchError
        If it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> found = defect_map(np.array([[0, 1], [3, 0]], np.uint8), "mono", {"hot_noise": 2.0})
    >>> open_defects(write_defects(found, Path(tempfile.mkdtemp()) / "defects.fits")).identical(found)
    True
    """
    path = Path(path)
    header = fits.Header()
    header["IMAGETYP"] = "defects"
    for name, bit in KINDS.items():
        header[f"BIT{bit}"] = name, f"{defects.attrs['counts'].get(name, 0)} pixels"
    if defects.attrs["cfa_pattern"] != "mono":
        header["BAYERPAT"] = defects.attrs["cfa_pattern"]
    header["ROWORDER"] = "TOP-DOWN"
    header["WBATTRS"] = json.dumps(defects.attrs)
    with whole_file(path, "the defect map", "give another folder") as part:
        fits.PrimaryHDU(defects.values.astype(np.uint8), header).writeto(part)
    return path


def open_defects(path: str | Path) -> xr.DataArray:
    """Return a defect map that `write_defects` wrote.

    Raises
    ------
    FrameReadError
        If the file is not one.
    """
    try:
        with fits.open(path, memmap=False) as hdus:
            attrs = json.loads(hdus[0].header["WBATTRS"])
            return xr.DataArray(np.array(hdus[0].data, np.uint8), dims=("y", "x"), attrs=attrs)
    except FileNotFoundError:
        raise FrameReadError(path, "is not there") from None
    except Exception as error:
        raise FrameReadError(path, f"is no defect map of the workbench ({type(error).__name__}: {error})") from None
