"""Objects of the sky by name and by place: NGC, IC, Messier and some more, from OpenNGC (CC BY-SA 4.0) in `PyOngc`."""

from __future__ import annotations

import contextlib
import sqlite3
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd

from ..core.errors import WorkbenchError
from .catalogue import unit_vectors

_NO_OBJECTS = ("*", "**", "*Ass", "NonEx", "Dup", "Other")  # types that are no object to look at


@lru_cache(maxsize=1)
def _table() -> pd.DataFrame:
    """All objects: name, type, ra and dec [deg], axes [arcmin], position angle [deg], magnitude, label."""
    import pyongc  # noqa: F401  its data file is read in one go: one query an object takes a second a field

    with resources.as_file(resources.files("pyongc") / "ongc.db") as path, contextlib.closing(
        sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    ) as base:  # fmt: skip
        rows = pd.read_sql_query(
            "SELECT name, type, ra, dec, majax, minax, pa, vmag, bmag, messier, commonnames FROM objects"
            " WHERE ra IS NOT NULL",
            base,
        )
    rows["ra"], rows["dec"] = np.degrees(rows["ra"]), np.degrees(rows["dec"])
    rows["magnitude"] = rows["vmag"].astype(float).fillna(rows["bmag"].astype(float))
    number = rows["messier"].fillna("").str.extract(r"0*(\d+)")[0]
    plain = rows["name"].str.replace(r"^([A-Za-z]+)0*(\d)", r"\1 \2", regex=True)
    rows["label"] = plain.where(number.isna(), "M " + number.fillna(""))
    rows["commonnames"] = rows["commonnames"].fillna("")
    return rows


def find_object(name: str) -> tuple[float, float, str]:
    """Return RA and Dec [deg] and the usual designation of an object by number or common name.

    Raises
    ------
    WorkbenchError
        If it is not known.

    Examples
    --------
    >>> ra, dec, label = find_object("m94")
    >>> round(ra, 2), round(dec, 2), label, find_object("North America Nebula")[2]
    (192.72, 41.12, 'M 94', 'NGC 7000')
    """
    from pyongc import ongc
    from pyongc.exceptions import InvalidCoordinates, ObjectNotFound, UnknownIdentifier

    rows = _table()
    wanted = " ".join(str(name).split())
    with contextlib.suppress(InvalidCoordinates, ObjectNotFound, UnknownIdentifier):
        found = rows[rows["name"] == ongc.Dso(wanted.replace(" ", "")).name]
        if len(found):
            return _place(found.iloc[0])
    common = rows[rows["commonnames"].str.lower().str.split(",").map(lambda names: wanted.lower() in names)]
    if not len(common):
        raise WorkbenchError(
            f"{wanted!r} is not among the objects of OpenNGC; write M 94, NGC 4736, or give RA and Dec"
        )
    return _place(common.iloc[0])


def _place(row: Any) -> tuple[float, float, str]:
    return float(row["ra"]), float(row["dec"]), str(row["label"])


def objects_near(ra: float, dec: float, radius: float) -> pd.DataFrame:
    """Return the objects within a radius [deg] of a place, the largest first: ``label``, ``ra``, ``dec`` [deg],
    ``majax``, ``minax`` [arcmin], ``pa`` (from north to east) [deg], ``magnitude``, ``type``, ``commonnames``.

    Examples
    --------
    >>> objects_near(192.72, 41.12, 0.3)["label"].tolist()
    ['M 94']
    """
    rows = _table()
    apart = ((unit_vectors(rows["ra"], rows["dec"]) - unit_vectors(ra, dec)) ** 2).sum(axis=1)
    near = rows[(apart <= (2 * np.sin(np.radians(radius) / 2)) ** 2) & ~rows["type"].isin(_NO_OBJECTS)]
    return near.sort_values(["majax", "magnitude"], ascending=[False, True], na_position="last").reset_index(drop=True)
