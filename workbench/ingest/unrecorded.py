"""What files do not record: from the manifest ``frames.csv``, and from the names of files and folders."""

from __future__ import annotations

import difflib
import io
import math
import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..core.cube import KINDS, MOSAICS, is_xtrans
from ..core.errors import WorkbenchError, printable
from ..core.files import read_text, real
from ..core.settings import filter_name
from .metadata import FrameInfo, as_time, folder_names, kind_in_words


def read_manifest(path: str | Path) -> dict[Path, dict[str, Any]]:
    """Read a manifest: for each file it names, the values that it gives.

    Columns are ``file, kind, iso, gain, offset, readout_mode, binning, filter, exposure_s, aperture, temperature_c,
    rotation, cfa, black_level, white_level, camera, time``; any but ``file`` may be missing or empty, others are
    passed over, unless their names are almost one of these. Numbers may be fractions (``1/640``). ``black_level`` is
    one number, or four (R, G1, G2, B) with spaces between.
    UTF-8; separated by commas or semicolons (then a comma may be the decimal sign).

    Returns
    -------
    dict
        Resolved file path → values by `FrameInfo`'s names (and ``kind``); only those that are given.

    Raises
    ------
    WorkbenchError
        If it is not a table with a column ``file``, the name of a column is almost one of these, or a value cannot be
        what its column says.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "frames.csv"
    >>> _ = path.write_text("file,kind,exposure_s\\na.nef,flat,1/640\\n")
    >>> list(read_manifest(path).values())
    [{'kind': 'flat', 'exposure': 0.0015625}]
    """
    path = Path(path)
    table = _table(path)
    given: dict[Path, dict[str, Any]] = {}
    for line, row in zip(table.index + 2, table.to_dict("records"), strict=True):
        name = row["file"]
        if not name:
            raise WorkbenchError(f"{path}, line {line}: the column 'file' is empty; name the frame or delete the line")
        file = real(path.parent / name)
        if file in given:
            raise WorkbenchError(f"{path}, line {line}: {name} is named twice; keep one of the lines")
        given[file] = {}
        for column, (field, parse, can_be, wanted) in _COLUMNS.items():
            if text := row.get(column):
                try:
                    given[file][field] = value = parse(text)
                    problem = "" if can_be(value) else f"; {wanted}"
                except (ValueError, ZeroDivisionError):
                    problem = ", which is not a number; leave it empty if it is unknown"
                if problem:
                    raise WorkbenchError(f"{path}, line {line}: {column} is {text!r}{problem}")
    return given


def _table(path: Path) -> pd.DataFrame:
    try:
        text = read_text(path)
        header = text.split("\n", 1)[0]
        separator = ";" if header.count(";") > header.count(",") else ","
        table = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            dtype=str,
            keep_default_na=False,
            skipinitialspace=True,
            skip_blank_lines=False,  # so that line numbers hold
        )
    except WorkbenchError:
        raise
    except pd.errors.EmptyDataError:
        raise WorkbenchError(f"{path} is empty; a manifest has a header line and one line a frame") from None
    except (pd.errors.ParserError, ValueError) as error:
        raise WorkbenchError(
            f"{path} cannot be read as a table ({error}); write it as CSV in UTF-8, one line a frame"
        ) from None
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes a surplus of values for an index
        raise WorkbenchError(f"{path} cannot be read as a table: its lines have more values than its header has names")
    table.columns = [str(column).strip().casefold() for column in table.columns]
    if "file" not in table:
        names = printable(", ".join(table.columns)[:300])
        raise WorkbenchError(f"{path} has no column 'file' (its columns: {names}); that column names the frames")
    for name in set(table) - {"file", *_COLUMNS}:
        near = difflib.get_close_matches(str(name).casefold(), _COLUMNS, 1, 0.8)
        if near and near[0] not in table:
            raise WorkbenchError(f"{path} has a column {name!r}, which is not used; is {near[0]!r} meant?")
    table = table.apply(lambda column: column.str.strip())
    if separator == ";":
        numeric = [name for name in table if name in _COLUMNS and _COLUMNS[name][1] in (_number, _levels)]
        table[numeric] = table[numeric].apply(lambda column: column.str.replace(",", "."))
    return table[(table != "").any(axis=1)]


def _number(text: str) -> float:
    return float(Fraction(text)) if "/" in text else float(text)


def _levels(text: str) -> tuple[float, ...]:
    return tuple(map(_number, text.split()))


def _cfa(text: str) -> str:
    named = next((name for name in (*MOSAICS, "mono") if name.casefold() == text.casefold()), "")
    return named or (text.upper() if is_xtrans(text.upper()) else "")


def _is_positive(value: float) -> bool:
    return not (value < 0 or math.isinf(value))


_FINITE, _POSITIVE = (
    "give a finite number, or leave it empty",
    "give a number that is not below zero, or leave it empty",
)
# of the manifest's columns: field of `FrameInfo`, what a text stands for, whether that can be, what it must be
_COLUMNS: dict[str, tuple[str, Callable[[str], Any], Callable[[Any], bool], str]] = {
    "kind": ("kind", kind_in_words, bool, f"it is one of {', '.join(KINDS)}"),
    "iso": ("iso", _number, _is_positive, _POSITIVE),
    "gain": ("gain_setting", _number, math.isfinite, _FINITE),
    "offset": ("offset_setting", _number, math.isfinite, _FINITE),
    "readout_mode": ("readout_mode", str, bool, ""),
    "binning": ("binning", _number, _is_positive, _POSITIVE),
    "filter": ("filter", filter_name, bool, ""),
    "rotation": ("rotation", _number, math.isfinite, _FINITE),
    "exposure_s": ("exposure", _number, _is_positive, _POSITIVE),
    "aperture": ("aperture", _number, _is_positive, _POSITIVE),
    "temperature_c": ("temperature", _number, lambda value: not math.isinf(value), _FINITE),
    "cfa": ("cfa_pattern", _cfa, bool, f"it is one of {', '.join(MOSAICS)}, mono, or the 36 letters of X-Trans"),
    "black_level": (
        "black_level",
        _levels,
        lambda levels: len(levels) in (1, 3, 4) and all(map(_is_positive, levels)),
        "give one level, or four for R, G1, G2, B (X-Trans: three for R, G, B), none below zero",
    ),
    "white_level": ("white_level", _number, _is_positive, _POSITIVE),
    "camera": ("camera", str, bool, ""),
    "time": ("time", as_time, lambda time: not np.isnat(time), "write it as 2014-07-15T13:07:40"),
}


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
