"""Cards that our FITS files have alike: what was observed, what a plane holds, the record of how it was made."""

from __future__ import annotations

import functools
import math
import mmap
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from astropy.io import fits

from .errors import FrameReadError
from .parallel import in_threads

_NO_SUM = "0" * 16  # in the place of a sum while it is made
_BLOCK = 2880
_PIECE = _BLOCK * 256  # bytes summed at once: they stay in the processor
RECORD = "WORKBNCH"  # keyword of the record: JSON text
NO_VALUE, UNSTABLE = 1, 2  # bits of the plane MASK
# coordinates of a cube and attributes of a master, as FITS names them
SETTING_CARDS = {
    "iso": "ISOSPEED", "gain_setting": "GAIN", "offset_setting": "OFFSET", "readout_mode": "READOUTM",
    "binning": "XBINNING", "filter": "FILTER", "temperature": "CCD-TEMP",
}  # fmt: skip
# what is copied from the header of the reference: our keyword, and others under which programs write the same
_COPIED = {
    "OBJECT": (), "TELESCOP": (), "FOCALLEN": (), "APTDIA": (), "XPIXSZ": ("PIXSIZE1",), "YPIXSZ": ("PIXSIZE2",),
    "RA": (), "DEC": (), "OBJCTRA": (), "OBJCTDEC": (), "EQUINOX": (),
}  # fmt: skip
_SITE = {"SITELAT": ("LAT-OBS",), "SITELONG": ("LONG-OBS",), "SITEELEV": ("ALT-OBS",)}
COMMENTS = {
    "DATE-OBS": "start of the first exposure, camera's clock",
    "DATE-AVG": "mean of the exposures' middles",
    "DATE-END": "end of the last exposure",
    "OBJECT": "as the reference's file names it",
    "FILTER": "of the lights",
    "INSTRUME": "camera",
    "EXPTIME": "[s]",
    "ISOSPEED": "ISO setting",
    "GAIN": "gain setting of the camera, not e-/ADU",
    "OFFSET": "offset setting of the camera",
    "CCD-TEMP": "[deg C] of the sensor, mean",
    "FOCALLEN": "[mm]",
    "APTDIA": "[mm]",
    "XPIXSZ": "[um]",
    "YPIXSZ": "[um]",
    "NCOMBINE": "frames combined",
    "ROWORDER": "the first row is the top of the picture",
}


def observation(
    light: xr.DataArray, reference: str, header: Mapping[str, Any], *, site: bool = False
) -> dict[str, Any]:
    """Return the cards of what was observed: dates, setting, object, telescope, direction; of the site only if asked.

    Parameters
    ----------
    light
        The lights that are stacked: their coordinates ``time`` (start), ``exposure`` [s], the setting, ``filter`` and
        ``temperature`` [°C].
    reference
        Name of the file among them whose setting counts.
    header
        Of the reference's file; what it does not state is left out.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> times = np.array(["2026-01-01T20:00", "2026-01-01T20:02"], "datetime64[ns]")
    >>> frames = np.zeros((2, 4, 4), "uint16")
    >>> cube = make_cube(frames, cfa_pattern="RGGB", kind="light", exposure=60.0, time=times, filename=["a", "b"])
    >>> cards = observation(cube, "a", {"OBJECT": "M 31", "SITELAT": 50.0})
    >>> [cards[name][11:19] for name in ("DATE-OBS", "DATE-AVG", "DATE-END")], cards["OBJECT"], "SITELAT" in cards
    (['20:00:00', '20:01:30', '20:03:00'], 'M 31', False)
    """
    number = list(light["filename"].values).index(reference)
    cards: dict[str, Any] = {}
    start = light["time"].values.astype("datetime64[ms]")
    length = np.nan_to_num(light["exposure"].values.astype(float))
    dated = ~np.isnat(start)
    if dated.any():
        start, length = start[dated], (1000 * length[dated]).round().astype("timedelta64[ms]")
        first = start.min()
        middle = (start - first + length / 2).astype(float).mean()
        cards["DATE-OBS"] = str(first)
        cards["DATE-AVG"] = str(first + np.timedelta64(round(middle), "ms"))
        cards["DATE-END"] = str((start + length).max())
    of_reference = {name: light[name].values[number] for name in SETTING_CARDS if name in light.coords}
    temperatures = light["temperature"].values.astype(float)
    if np.isfinite(temperatures).any():
        of_reference["temperature"] = round(float(np.nanmean(temperatures)), 2)
    cards |= setting_cards(of_reference)
    for key, others in (_COPIED | (_SITE if site else {})).items():
        value = next((header[name] for name in (key, *others) if header.get(name) not in (None, "")), None)
        if isinstance(value, (str, int, float)):
            cards[key] = _card_text(value) if isinstance(value, str) else value
    return cards


_PLACE_ON_SKY = re.compile(
    r"WCSAXES|(CTYPE|CRPIX|CRVAL|CUNIT|CDELT|CROTA)[12]|(CD|PC)[12]_[12]|RADE(SYS|CSYS)|LON(POLE)|LATPOLE|EQUINOX|"
    r"(A|B|AP|BP)_(ORDER|DMAX|[0-9]_[0-9])"
)


def wcs_cards(header: Mapping[str, Any], margins: tuple[int, int], flipped_height: int = 0) -> dict[str, Any]:
    """Return a header's plate solution for its picture as it is read; without one, nothing.

    CRPIX less the `margins` (top, left) that are cut off.  Rows turned upright in a picture of `flipped_height` change
    the sign of y: CRPIX2' = height + 1 - CRPIX2, and CD1_2 and CD2_2, or CDELT2, PC1_2 and PC2_1, change their signs; a
    solution with SIP terms is then left out.

    Examples
    --------
    >>> header = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 50.0, "CRPIX2": 20.0, "CD2_2": 1e-4, "GAIN": 1}
    >>> wcs_cards(header, (0, 8))["CRPIX1"], wcs_cards(header, (0, 0), 101)["CD2_2"], len(wcs_cards(header, (0, 0)))
    (42.0, -0.0001, 5)
    """
    cards = {key: header[key] for key in header if _PLACE_ON_SKY.fullmatch(key) and header[key] is not None}
    if not {"CTYPE1", "CTYPE2", "CRPIX1", "CRPIX2"} <= set(cards) or (
        flipped_height and ("A_ORDER" in cards or not {"CD2_2", "CDELT2"} & set(cards))
    ):
        return {}
    if flipped_height:
        cards["CRPIX2"] = flipped_height + 1 - cards["CRPIX2"]
        turned = ("CD1_2", "CD2_2") if "CD2_2" in cards else ("CDELT2", "PC1_2", "PC2_1")
        cards |= {key: -cards[key] for key in turned if key in cards}
    cards["CRPIX1"], cards["CRPIX2"] = cards["CRPIX1"] - margins[1], cards["CRPIX2"] - margins[0]
    return cards


def finer_wcs(cards: Mapping[str, Any], scale: float) -> dict[str, Any]:
    """Return the plate solution `cards` for pixels of 1/`scale` the side over the same picture.

    CRPIX' = scale (CRPIX - 1/2) + 1/2; CD and CDELT are divided; a SIP term of order p, q by scale^(p + q - 1).

    Examples
    --------
    >>> finer_wcs({"CRPIX1": 0.5, "CRPIX2": 10.0, "CD1_1": 1e-4, "A_2_0": 2e-6, "CTYPE1": "RA---TAN-SIP"}, 2.0)
    {'CRPIX1': 0.5, 'CRPIX2': 19.5, 'CD1_1': 5e-05, 'A_2_0': 1e-06, 'CTYPE1': 'RA---TAN-SIP'}
    """
    finer = dict(cards)
    for key, value in cards.items():
        if key.startswith("CRPIX"):
            finer[key] = scale * (value - 0.5) + 0.5
        elif re.fullmatch(r"CD[12]_[12]|CDELT[12]", key):
            finer[key] = value / scale
        elif order := re.fullmatch(r"[AB]P?_(\d)_(\d)", key):
            finer[key] = value / scale ** (int(order[1]) + int(order[2]) - 1)
    return finer


def setting_cards(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cards of a setting, a filter and a temperature; what is not known is left out.

    Examples
    --------
    >>> setting_cards({"iso": float("nan"), "gain_setting": 0.0, "binning": 2.0, "filter": ""})
    {'GAIN': 0, 'XBINNING': 2, 'YBINNING': 2}
    """
    cards: dict[str, Any] = {}
    for name, keyword in SETTING_CARDS.items():
        value = values.get(name, "")
        if isinstance(value, str):
            if value:
                cards[keyword] = _card_text(value)
        elif math.isfinite(value):
            cards[keyword] = int(value) if float(value).is_integer() and name != "temperature" else float(value)
    if "XBINNING" in cards:
        cards["YBINNING"] = cards["XBINNING"]
    return cards


def put_cards(header: fits.Header, cards: Mapping[str, Any]) -> None:
    """Write cards into a header with their comments; a value may be a tuple with a comment of its own."""
    for keyword, value in cards.items():
        if isinstance(value, tuple):
            header[keyword] = (ascii_text(value[0]) if isinstance(value[0], str) else value[0], value[1])
        elif value is not None:
            comment = COMMENTS.get(keyword, "")
            value = ascii_text(value) if isinstance(value, str) else value
            header[keyword] = (value, comment if len(str(value)) + len(comment) < 60 else "")  # a card has 80 letters


def put_plane(header: fits.Header, name: str, units: str) -> None:
    """Say in a header what an image holds: the unit of the signal, that a variance is one, what the mask's bits mean.

    ``UTYPE`` is what astropy's `CCDData` goes by.
    """
    units = units or "1"
    if name == "VARIANCE":
        header["BUNIT"] = (units if units == "1" else f"{units}2", "square of the signal's")
        header["UTYPE"] = ("VarianceUncertainty", "not a standard deviation")
    elif name == "MASK":
        header["BIT1"] = ("no value", "the signal is 0 there")
        header["BIT2"] = ("unstable", "samples scatter more than they may")
    elif name == "SIGNAL":
        header["BUNIT"] = (units, "of the signal")


def without_gaps(signal: np.ndarray, mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return a signal with 0 where it has no value, and the mask that says so.

    Other programs count zeros as missing, and give no statistics at all of a picture with NaN in it.
    """
    gaps = np.isnan(signal)
    mask = np.zeros(signal.shape, np.uint8) if mask is None else mask
    return np.where(gaps, signal.dtype.type(0), signal), mask | (gaps * np.uint8(NO_VALUE))


def with_gaps(signal: Any, mask: Any) -> Any:
    """Return the signal, NaN where the mask says that it has no value; undoes `without_gaps`.

    Examples
    --------
    >>> signal = np.array([1.0, np.nan, 0.0])
    >>> with_gaps(*without_gaps(signal)).tolist()
    [1.0, nan, 0.0]
    """
    return np.where((mask & NO_VALUE) > 0, signal.dtype.type(np.nan), signal)  # lazy for dask's arrays


def words_sum(data: Any, total: int = 0) -> int:
    """Return the ones' complement sum of 32-bit big-endian words, added to a sum so far (FITS 4.0, appendix J).

    Examples
    --------
    >>> hex(words_sum(bytes([255, 255, 255, 255, 0, 0, 1, 2])))
    '0x102'
    """
    words = np.frombuffer(data, np.uint32)
    total += int((words.byteswap() if sys.byteorder == "little" else words).sum(dtype=np.uint64))
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def put_seal(header: fits.Header) -> None:
    """Make room in a header for the sums that `seal` writes."""
    header["CHECKSUM"] = (_NO_SUM, "of this unit: all words sum to -0")
    header["DATASUM"] = ("0".rjust(10), "of its data")


def seal(path: str | Path) -> None:
    """Write CHECKSUM and DATASUM (FITS 4.0, appendix J) into the units of a file that have room for them (`put_seal`).

    Without a date, so that the same content has the same bytes.
    """
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        for start, data, end in _units(content):
            places = {key: content.find(key.ljust(8) + b"= '", start, data) for key in (b"CHECKSUM", b"DATASUM")}
            if min(places.values()) < 0:
                continue
            of_data = _sum(file.fileno(), data, end)
            content[places[b"DATASUM"] + 11 : places[b"DATASUM"] + 21] = str(of_data).rjust(10).encode()
            at = places[b"CHECKSUM"] + 11
            content[at : at + 16] = _NO_SUM.encode()
            content[at : at + 16] = _encoded(0xFFFFFFFF ^ words_sum(content[start:data], of_data))


def require_sealed(path: str | Path) -> None:
    """Check the sums of a file that `seal` wrote; a file without them is not checked.

    Raises
    ------
    FrameReadError
        If a unit's sum is not that of its content.
    """
    if problem := broken_seal(path):
        raise FrameReadError(path, problem)


def broken_seal(path: str | Path) -> str:
    """Return what `require_sealed` would raise, as text; empty for a file that is whole or has no sums."""
    state = os.stat(path)
    try:
        return _broken_seal(str(path), state.st_size, state.st_mtime_ns)
    except (KeyError, TypeError, ValueError, fits.VerifyError):  # a header that cannot be read any more
        return "is damaged: one of its headers cannot be read; make it again, or copy it again"


@functools.lru_cache(maxsize=256)  # a stack is opened more than once
def _broken_seal(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for number, (start, data, end) in enumerate(_units(content)):
            if end > size:
                return f"is cut short: {size:,} of at least {end:,} bytes; make it again, or copy it again"
            if content.find(b"CHECKSUM= '", start, data) >= 0 and _sum(file.fileno(), start, end) not in (
                0,
                0xFFFFFFFF,
            ):
                return f"was changed or damaged: the checksum of its unit {number} is wrong; make or copy it again"
    return ""


def _units(content: mmap.mmap) -> Iterator[tuple[int, int, int]]:
    """Where each header, its data and their end are."""
    start = 0
    while start < len(content):
        data = start + _BLOCK
        while not re.search(rb"^(?:.{80})*END {77}", content[data - _BLOCK : data], re.DOTALL) and data < len(content):
            data += _BLOCK
        header = fits.Header.fromstring(content[start:data].decode("latin-1"))
        values = math.prod(header[f"NAXIS{axis + 1}"] for axis in range(header["NAXIS"])) if header["NAXIS"] else 0
        size = abs(header["BITPIX"]) // 8 * header.get("GCOUNT", 1) * (header.get("PCOUNT", 0) + values)
        end = data + -(-size // _BLOCK) * _BLOCK
        yield start, data, end
        start = end


def _sum(file: int, start: int, end: int) -> int:
    """Return the sum of part of an open file, read in threads: pages of a map would count as this process's memory."""
    parts = in_threads(lambda at: words_sum(os.pread(file, min(end - at, _PIECE), at)), range(start, end, _PIECE))
    return words_sum(np.array([0, *parts], ">u4"))


def _encoded(value: int) -> bytes:
    """A sum as 16 letters and digits that add up to it."""
    letters = np.zeros((4, 4), np.uint8)
    for column, byte in enumerate(value.to_bytes(4, "big")):
        signs = [byte // 4 + 48 + byte % 4, *[byte // 4 + 48] * 3]
        for pair in (0, 2):
            while any(58 <= sign <= 64 or 91 <= sign <= 96 for sign in signs[pair : pair + 2]):  # punctuation
                signs[pair : pair + 2] = signs[pair] + 1, signs[pair + 1] - 1
        letters[:, column] = signs
    text = letters.tobytes()
    return text[-1:] + text[:-1]


def record_of(hdus: Iterable[Any]) -> str:
    """Return the record in one of our files, JSON text, whichever header it lies in; empty where there is none."""
    return next((str(hdu.header[RECORD]) for hdu in hdus if RECORD in hdu.header), "")


def ascii_text(text: str) -> str:
    """Return a text as a FITS card can hold it: printable ASCII."""
    return re.sub(r"[^ -~]", "?", text.replace("\n", " "))


def _card_text(text: str) -> str:
    return ascii_text(text).strip()[:68]
