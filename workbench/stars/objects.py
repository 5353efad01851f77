"""Objects of the sky by name and by place, and what a solved picture shows, by name.

NGC, IC, Messier and some more, from OpenNGC (CC BY-SA 4.0) in `PyOngc`; on a picture also bright stars, a grid, a scale
bar and north, all in pixels.
"""

from __future__ import annotations

import contextlib
import sqlite3
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from ..core.errors import WorkbenchError
from .catalogue import catalogue_stars, unit_vectors

if TYPE_CHECKING:
    from astropy.wcs import WCS

_NO_OBJECTS = ("*", "**", "*Ass", "NonEx", "Dup", "Other")  # types that are not objects to look at


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


_STEPS = np.array([1 / 60, 2 / 60, 5 / 60, 10 / 60, 0.25, 0.5, 1, 2, 5, 10, 15, 30])  # deg: of grid and scale bar
_LINES = 5  # of the grid, about, in each direction
_SMALLEST = 8.0  # px: smaller objects get no name, unless Messier lists them
_OBJECTS, _STARS = 40, 12  # named at most
_NAME = np.array([0.08, 0.022])  # width and height of a star's name, of the picture's longer side


class Names(NamedTuple):
    """Names and marks of a picture.

    `labels`: a row a name: ``label``, ``kind`` (object, star), ``x``, ``y`` [px], of objects their ellipse: ``width``,
    ``height`` [px] and ``angle`` [deg, of the width, from x to y]; `grid`: lines (n, 2) [px] with their texts; `bar`:
    length [px] and text of the scale bar; `north`, `east`: directions (x, y) of unit length.
    """

    labels: pd.DataFrame
    grid: list[tuple[np.ndarray, str]]
    bar: tuple[float, str]
    north: tuple[float, float]
    east: tuple[float, float]
    shape: tuple[int, int]


def names_on(wcs: WCS, shape: tuple[int, int], date: str | None = None) -> Names:
    """Return what a picture of `shape` (y, x) shows by its world coordinates, its bright stars as of a `date`.

    Examples
    --------
    >>> from astropy.wcs import WCS
    >>> wcs = WCS(naxis=2)
    >>> wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [192.72, 41.12], [501, 401]
    >>> wcs.wcs.cd = [[-0.001, 0], [0, -0.001]]
    >>> names = names_on(wcs, (800, 1000))
    >>> names.labels.query("kind == 'object'")["label"][0], names.bar[1], names.north
    ('M 94', '15′', (0.0, -1.0))
    """
    middle = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
    ra, dec = (float(value) for value in wcs.all_pix2world(*middle, 0))
    scale = float(np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))))  # deg
    radius = min(1.1 * scale * float(np.hypot(*shape)) / 2, 90.0)
    inverse = np.linalg.inv(wcs.pixel_scale_matrix)
    east, north = (column / np.linalg.norm(column) for column in inverse.T)
    labels = pd.concat([_objects(wcs, shape, ra, dec, radius, scale, north), _stars(wcs, shape, ra, dec, radius, date)])
    step = _step(scale * shape[1] / 4)
    text = f"{step:g}°" if step >= 1 else f"{60 * step:g}′"
    pair = [(round(float(x) + 0.0, 9) + 0.0, round(float(y), 9) + 0.0) for x, y in (north, east)]
    grid = _grid(wcs, shape, dec, radius)
    return Names(labels.reset_index(drop=True), grid, (step / scale, text), pair[0], pair[1], shape)


def _step(most: float) -> float:
    """The longest round step [deg] up to a length."""
    return float(_STEPS[max(int(np.searchsorted(_STEPS, most, side="right")) - 1, 0)])


def _on_frame(wcs: WCS, shape: tuple[int, int], ra, dec) -> tuple[np.ndarray, np.ndarray]:
    """Places [px] and which of them are on the frame."""
    places = np.asarray(wcs.all_world2pix(np.stack([ra, dec], axis=1), 0, quiet=True)).reshape(-1, 2)
    with np.errstate(invalid="ignore"):
        on = np.all((places > -0.5) & (places < np.array(shape[::-1]) - 0.5), axis=1)
    return places, on


def _objects(wcs, shape, ra: float, dec: float, radius: float, scale: float, north: np.ndarray) -> pd.DataFrame:
    near = objects_near(ra, dec, radius)
    places, on = _on_frame(wcs, shape, near["ra"], near["dec"])
    width = near["majax"].astype(float).fillna(0.0) / 60 / scale
    height = near["minax"].astype(float).fillna(near["majax"].astype(float)).fillna(0.0) / 60 / scale
    # the position angle runs from north towards east, which in the picture is one way or, mirrored, the other
    hand = -np.sign(np.linalg.det(wcs.pixel_scale_matrix))
    angle = np.degrees(np.arctan2(north[1], north[0])) + hand * near["pa"].astype(float).fillna(0.0)
    table = pd.DataFrame({
        "label": near["label"], "kind": "object", "x": places[:, 0], "y": places[:, 1], "width": width,
        "height": height, "angle": angle,
    })  # fmt: skip
    return table[on & ((width >= _SMALLEST) | near["label"].str.startswith("M "))][:_OBJECTS]


def _stars(wcs, shape, ra: float, dec: float, radius: float, date: str | None) -> pd.DataFrame:
    stars = catalogue_stars(ra, dec, radius, date=date)
    stars = stars.isel(star=np.isfinite(stars["hip"].values))
    places, on = _on_frame(wcs, shape, stars["ra"].values, stars["dec"].values)
    chosen: list[int] = []
    for index in np.flatnonzero(on):  # the brightest first; names do not lie over each other
        apart = np.abs(places[chosen] - places[index]) > _NAME * max(shape)
        if len(chosen) < _STARS and apart.any(axis=1).all():
            chosen.append(int(index))
    label = [f"HIP {int(number)}" for number in stars["hip"].values[chosen]]
    return pd.DataFrame({"label": label, "kind": "star", "x": places[chosen, 0], "y": places[chosen, 1]})


def _grid(wcs: WCS, shape: tuple[int, int], dec: float, radius: float) -> list[tuple[np.ndarray, str]]:
    """Lines of equal right ascension and declination on the frame, with their texts."""
    height, width = shape
    edge = np.linspace(0, 1, 40)
    x = np.concatenate([edge, edge, 0 * edge, 0 * edge + 1]) * (width - 1)
    y = np.concatenate([0 * edge, 0 * edge + 1, edge, edge]) * (height - 1)
    ras, decs = wcs.all_pix2world(x, y, 0)
    lines: list[tuple[np.ndarray, str]] = []
    low, high = float(decs.min()), float(decs.max())
    pole = max(abs(low), abs(high)) > 89 or abs(dec) + radius > 90
    if pole:
        low, high = (dec - radius, 90.0) if dec > 0 else (-90.0, dec + radius)
    middle = float(np.degrees(np.angle(np.exp(1j * np.radians(ras)).mean()))) % 360
    away = (ras - middle + 180) % 360 - 180
    first, last = (-180.0, 180.0) if pole else (float(away.min()), float(away.max()))
    step = _step((high - low) / _LINES)
    for value in np.arange(np.ceil(low / step), high / step) * step:
        lines += _line(wcs, shape, middle + np.linspace(first, last, 200), np.full(200, value), _degrees_text(value))
    hours = _step((last - first) / _LINES / 15) * 15  # round in time
    for value in np.arange(np.ceil((middle + first) / hours), (middle + last) / hours) * hours:
        minutes = round((value % 360) * 4, 1)
        text = f"{int(minutes // 60)}h {minutes % 60:g}m"
        lines += _line(wcs, shape, np.full(200, value), np.linspace(low, high, 200), text)
    return lines


def _degrees_text(value: float) -> str:
    minutes = round(abs(value) * 60)
    return f"{'-' if value < 0 and minutes else '+'}{minutes // 60}°" + (
        f" {minutes % 60:02d}′" if minutes % 60 else ""
    )


def _line(wcs: WCS, shape: tuple[int, int], ra: np.ndarray, dec: np.ndarray, text: str) -> list[tuple[np.ndarray, str]]:
    places, on = _on_frame(wcs, shape, ra % 360, np.clip(dec, -89.99, 89.99))
    return [(places[on], text)] if on.sum() > 1 else []
