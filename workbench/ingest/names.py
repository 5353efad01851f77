"""Settings, exposure and temperature in the names of files and folders, for frames that do not record them."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.settings import filter_name
from .metadata import FrameInfo, folder_names

_ISO = re.compile(
    r"(?<![a-z])iso[ _=-]?(\d{2,7})(?![\d.,])|(?<![\d.,a-z])(\d{2,7})[ _-]?iso(?![a-z0-9])", re.IGNORECASE
)
_UNITS = {"min": 60.0, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "s": 1.0}  # by what a unit begins with
_EXPOSURE = re.compile(
    r"""(?: (?<![a-z0-9.,]) | (?<=dark) | (?<=flat) | (?<=bias) | (?<=light) | (?<=exp) | (?<=exposure) )
        (?P<one>0*1[_-])? (?P<number>\d+(?:[.,]\d+)?) [ _]?
        (?P<unit> [mµu]?s | m?secs? | seconds? | mins? | minutes? ) (?![a-z0-9])""",
    re.IGNORECASE | re.VERBOSE,
)


def iso_in_name(path: str | Path, root: str | Path | None = None) -> float:
    """Return the ISO setting of a token such as ``ISO800`` or ``ISO 400`` in a name, NaN without one.

    The file's own name comes first, then its folders, the nearest first, up to and with `root`.

    Examples
    --------
    >>> iso_in_name("ISO 400/dark 60s/a.pgm"), iso_in_name("flat_ISO800_1-125s.pgm"), iso_in_name("isobars_12.pgm")
    (400.0, 800.0, nan)
    """
    for name in (Path(path).stem, *folder_names(Path(path), root)):
        if match := _ISO.search(name):
            return float(match.group(1) or match.group(2))
    return math.nan


def exposure_in_name(path: str | Path, root: str | Path | None = None) -> float:
    """Return the exposure [s] of a token such as ``60s``, ``1-125s`` or ``2min`` in a name, NaN without one.

    The file's own name comes first, then its folders, as `iso_in_name`.  ``1_60s`` and ``01-60s`` can be the first
    frame of 60 s as well as 1/60 s: NaN.

    Examples
    --------
    >>> [exposure_in_name(name) for name in ("flat_1-125s.pgm", "dark 60s/a.pgm", "dark2min.pgm", "b_1_60s.pgm", "M31")]
    [0.008, 60.0, 120.0, nan, nan]
    """
    for name in (Path(path).stem, *folder_names(Path(path), root)):
        if match := _EXPOSURE.search(name):
            return _seconds(match)
    return math.nan


def _seconds(match: re.Match[str]) -> float:
    factor = next(factor for start, factor in _UNITS.items() if match["unit"].casefold().startswith(start))
    value = float(match["number"].replace(",", ".")) * factor
    if not match["one"]:
        return value
    return 1 / value if match["one"] == "1-" and value else math.nan


def temperature_in_name(path: str | Path, root: str | Path | None = None) -> tuple[float, bool]:
    """Return the temperature [°C] of a token such as ``20C``, ``-5C`` or ``m10degC`` in a name, NaN without one.

    The file's own name comes first, then its folders, the nearest first, up to and with `root`.
    A hyphen right before the number is a minus sign; the second value returned is False where it
    follows a letter or digit and so may have been meant as a mere separator.

    Examples
    --------
    >>> temperature_in_name("darks/-10degC/IMG_1.NEF"), temperature_in_name("dark_20C_60s.fit")
    ((-10.0, True), (20.0, True))
    >>> temperature_in_name("dark-5C.fit")
    (-5.0, False)
    """
    path = Path(path)
    for name in (path.stem, *folder_names(path, root)):
        match = _TEMPERATURE.search(name)
        if match:
            minus, hyphen, digits = match.groups()
            before = name[match.start() - 1 : match.start()]
            value = float(digits.replace(",", "."))
            return -value if minus or hyphen else value, not (hyphen and before.isalnum())
    return math.nan, True


_TEMPERATURE = re.compile(
    r"""(?: (?<![A-Za-z0-9]) (minus\ ?|m) | ([-−]) | \+ | (?<![A-Za-z0-9.,]) )
        (\d{1,2} (?:[.,]\d+)?) \ ?
        (?: C | (?:°|deg)\ ?[Cc] ) (?![A-Za-z0-9])""",
    re.VERBOSE,
)


_DWARF = re.compile(
    r"""(?:dark|bias|flat) (?:_exp_(?P<exposure>[\d.]+))? _gain_(?P<gain_setting>\d+) _bin_(?P<binning>\d+)
        (?:_ir_(?P<filter>\d))? (?:_(?P<temperature>-?\d+(?:\.\d+)?)C)? (?:_stack_(?P<combined>\d+))?""",
    re.VERBOSE,
)
_DWARF_FILTERS = {"0": "VIS", "1": "Astro", "2": "Duo-Band"}


def with_name_of_dwarf(info: FrameInfo) -> FrameInfo:
    """Return the record of a Dwarf telescope's master with what only its name states, any other as it is.

    Exposure [s], gain setting, binning, filter, temperature [°C] and the number of frames combined.

    Examples
    --------
    >>> info = with_name_of_dwarf(FrameInfo(Path("dark_exp_15.000000_gain_60_bin_1_27C_stack_3.fits"), "fits", 4, 4))
    >>> info.exposure, info.gain_setting, info.temperature, info.combined, bool(info.derived)
    (15.0, 60.0, 27.0, 3.0, True)
    """
    if not (match := _DWARF.fullmatch(info.path.stem)):
        return info
    values: dict[str, Any] = {name: float(text) for name, text in match.groupdict().items() if text}
    if "filter" in values:
        values["filter"] = filter_name(_DWARF_FILTERS.get(match["filter"], ""))
    unknown = {name: value for name, value in values.items() if str(getattr(info, name)) in ("", "nan")}
    return replace(info, derived=info.derived or "a master by its name", **unknown)
