"""The manifest ``frames.csv``: what the files of a folder do not record, one line a frame."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..core.cube import KINDS, MOSAICS, is_xtrans
from ..core.errors import WorkbenchError, printable
from ..core.files import read_text, real
from ..core.settings import filter_name
from .metadata import as_time, kind_in_words


def read_manifest(path: str | Path) -> dict[Path, dict[str, Any]]:
    """Read a manifest: for each file it names, the values that it gives.

    Columns are ``file, kind, iso, gain, offset, readout_mode, binning, filter, exposure_s, aperture, temperature_c,
    rotation, cfa, black_level, white_level, camera, time``; any but ``file`` may be missing or empty, others are
    passed over. Numbers may be fractions (``1/640``). ``black_level`` is one number, or four (R, G1, G2, B) with
    spaces between.
    UTF-8; separated by commas or semicolons (then a comma may be the decimal sign).

    Returns
    -------
    dict
        Resolved file path → values by `FrameInfo`'s names (and ``kind``); only those that are given.

    Raises
    ------
    WorkbenchError
        If it is not a table with a column ``file``, or a value cannot be what its column says.

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
