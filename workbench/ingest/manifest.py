"""The manifest ``frames.csv``: what is known of the frames and not recorded in their files."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..core.cube import KINDS, MOSAICS
from ..core.errors import WorkbenchError
from .metadata import as_time, kind_in_words

MANIFEST = "frames.csv"


def read_manifest(path: str | Path) -> dict[Path, dict[str, Any]]:
    """Read a manifest: for each file it names, the values that it gives.

    Columns are ``file, kind, iso, exposure_s, aperture, temperature_c, cfa, black_level, white_level,
    camera, time``; any but ``file`` may be missing or empty, others are passed over.  Numbers may be
    fractions (``1/640``).  ``black_level`` is one number, or four (R, G1, G2, B) with spaces between.
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
    >>> path = Path(tempfile.mkdtemp()) / MANIFEST
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
        file = (path.parent / name).resolve()
        if file in given:
            raise WorkbenchError(f"{path}, line {line}: {name} is named twice; keep one of the lines")
        given[file] = {
            field: parse(row[column], f"{path}, line {line}: {column}")
            for column, (field, parse) in _COLUMNS.items()
            if row.get(column)
        }
    return given


def _table(path: Path) -> pd.DataFrame:
    try:
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
        separator = ";" if header.count(";") > header.count(",") else ","
        table = pd.read_csv(
            path,
            sep=separator,
            encoding="utf-8-sig",
            dtype=str,
            keep_default_na=False,
            skipinitialspace=True,
            skip_blank_lines=False,  # so that line numbers hold
        )
    except pd.errors.EmptyDataError:
        raise WorkbenchError(f"{path} is empty; a manifest has a header line and one line a frame") from None
    except (pd.errors.ParserError, UnicodeDecodeError, OSError) as error:
        raise WorkbenchError(
            f"{path} cannot be read as a table ({error}); write it as CSV in UTF-8, one line a frame"
        ) from None
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes a surplus of values for an index
        raise WorkbenchError(f"{path} cannot be read as a table: its lines have more values than its header has names")
    table.columns = [str(column).strip().casefold() for column in table.columns]
    if "file" not in table:
        raise WorkbenchError(
            f"{path} has no column 'file' (its columns: {', '.join(table.columns)}); that column names the frames"
        )
    table = table.apply(lambda column: column.str.strip())
    if separator == ";":
        numeric = [name for name in table if name in _COLUMNS and _COLUMNS[name][1] in (_positive, _number, _levels)]
        table[numeric] = table[numeric].apply(lambda column: column.str.replace(",", "."))
    return table[(table != "").any(axis=1)]


def _number(text: str, where: str) -> float:
    try:
        value = float(Fraction(text)) if "/" in text else float(text)
    except (ValueError, ZeroDivisionError):
        raise WorkbenchError(f"{where} is {text!r}, which is not a number; leave it empty if it is unknown") from None
    if math.isinf(value):
        raise WorkbenchError(f"{where} is {text!r}; give a finite number, or leave it empty")
    return value


def _positive(text: str, where: str) -> float:
    value = _number(text, where)
    if value < 0:
        raise WorkbenchError(f"{where} is {text!r}; it cannot be below zero")
    return value


def _levels(text: str, where: str) -> tuple[float, ...]:
    levels = tuple(_positive(part, where) for part in text.split())
    if len(levels) not in (1, 4):
        raise WorkbenchError(f"{where} has {len(levels)} values; give one, or four for R, G1, G2, B")
    return levels


def _kind(text: str, where: str) -> str:
    kind = kind_in_words(text)
    if not kind:
        raise WorkbenchError(f"{where} is {text!r}; it is one of {', '.join(KINDS)}")
    return kind


def _cfa(text: str, where: str) -> str:
    pattern = "mono" if text.casefold() == "mono" else text.upper()
    if pattern not in (*MOSAICS, "mono"):
        raise WorkbenchError(f"{where} is {text!r}; it is one of {', '.join(MOSAICS)} or mono")
    return pattern


def _time(text: str, where: str) -> np.datetime64:
    time = as_time(text)
    if np.isnat(time):
        raise WorkbenchError(f"{where} is {text!r}; write it as 2014-07-15T13:07:40")
    return time


_COLUMNS: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "kind": ("kind", _kind),
    "iso": ("iso", _positive),
    "exposure_s": ("exposure", _positive),
    "aperture": ("aperture", _positive),
    "temperature_c": ("temperature", _number),
    "cfa": ("cfa_pattern", _cfa),
    "black_level": ("black_level", _levels),
    "white_level": ("white_level", _positive),
    "camera": ("camera", lambda text, where: text),
    "time": ("time", _time),
}
