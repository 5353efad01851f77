"""The star databases of the program ASTAP (``.1476`` and ``.290``): Gaia's stars in tiles, magnitudes to a tenth.

A file begins with a text of 109 bytes and the size of a record, 5 or 6 bytes; its numbers are little-endian.  A record
holds right ascension in 24 bits, 2^24 - 1 the circle, and declination in 16; one whose right ascension has all bits set
gives for the stars after it the third byte of the declination, 2^23 - 1 a right angle, plus 128, and ten times their
magnitude, plus 16.  Rings of declination, counted from the south, are cut into tiles of equal right ascension.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..core.errors import FrameReadError, of_one_file

WIDEST = 20.0  # deg: a wider circle needs no stars so faint, and would be gigabytes of tiles
_HEAD = 110  # bytes
_NAME = re.compile(r"(?P<database>.+)_(?P<ring>\d\d)(?P<tile>\d\d)\.(?P<kind>1476|290)$", re.IGNORECASE)


class Tiles(NamedTuple):
    """Stars of a database near a place: its name, `ra`, `dec` [deg] and `magnitude` as it has them."""

    name: str
    ra: np.ndarray
    dec: np.ndarray
    magnitude: np.ndarray


def is_tile(path: Path) -> bool:
    """Return whether a file has the name of a tile.

    Examples
    --------
    >>> is_tile(Path("d50_1801.1476")), is_tile(Path("stars.csv"))
    (True, False)
    """
    return _NAME.match(path.name) is not None


def read_tiles(files: Sequence[Path], ra: float, dec: float, radius: float) -> list[Tiles]:
    """Return the stars of each database in the tiles that come within `radius` of a place [deg].

    Raises
    ------
    FrameReadError
        If a tile is damaged.
    """
    found: dict[str, list[np.ndarray]] = {}
    for path in files if radius <= WIDEST else ():
        if (named := _NAME.match(path.name)) is None:
            continue
        ring, tile, kind = int(named["ring"]), int(named["tile"]), int(named["kind"])
        if _is_near(kind, ring, tile, (ra, dec), radius):
            found.setdefault(named["database"], []).append(_read_tile(path, path.stat().st_mtime_ns))
    return [Tiles(name, *np.concatenate(parts, axis=1)) for name, parts in sorted(found.items())]


@lru_cache(maxsize=4)
def _rings(kind: int) -> tuple[np.ndarray, np.ndarray]:
    """The edges of the rings in declination [deg] and how many tiles each has, from the south.

    Of ``.290`` all tiles have the same area but those of the poles, which have half; of ``.1476`` rings are 36°/7 wide,
    but those of the poles, and a tile is as wide as that or a little wider along its edge that lies towards the pole.
    """
    if kind == 290:
        area = np.concatenate([[0.0, 1.0], 8.0 * np.arange(1, 9)]).cumsum() / 289
        north, tiles = np.degrees(np.arcsin(1 - area)), np.maximum(4 * np.arange(9), 1)
    else:
        north = 90 - np.concatenate([[0.0], 18 / 7 + 36 / 7 * np.arange(18)])
        tiles = np.maximum(70 * np.cos(np.radians(north[:-1])), 1).astype(int)
    return np.concatenate([-north, north[-2::-1]]), np.concatenate([tiles, tiles[::-1]])


def _is_near(kind: int, ring: int, tile: int, place: tuple[float, float], radius: float) -> bool:
    """Whether a tile may come within a radius of a place [deg]: a circle about it does."""
    edges, tiles = _rings(kind)
    if not 1 <= ring <= len(tiles):
        return False
    step = 360 / tiles[ring - 1]
    low, high = edges[ring - 1], edges[ring]
    if tiles[ring - 1] == 1:
        middle, reach = (0.0, 90.0 if high > 0 else -90.0), high - low
    else:
        middle = (tile - 0.5) * step, (low + high) / 2
        reach = max(_apart(middle, (tile * step, dec)) for dec in (low, middle[1], high))
    return _apart(middle, place) <= radius + reach


def _apart(one: tuple[float, float], other: tuple[float, float]) -> float:
    """The angle between two places (RA, Dec) [deg]."""
    from astropy.coordinates import angular_separation

    return float(np.degrees(angular_separation(*np.radians([*one, *other]))))


@lru_cache(maxsize=32)
@of_one_file
def _read_tile(path: Path, changed: int) -> np.ndarray:
    """The stars of a tile: RA, Dec [deg], magnitude (3, star)."""
    data = np.fromfile(path, np.uint8)
    size = int(data[_HEAD - 1]) if data.size >= _HEAD else 0
    if size not in (5, 6) or (data.size - _HEAD) % size:
        raise FrameReadError(
            path, f"is not a star database of ASTAP with records of 5 or 6 bytes, or is cut short ({size})"
        )
    records = data[_HEAD:].reshape(-1, size).astype(np.int64)
    ascension = records[:, 0] + (records[:, 1] << 8) + (records[:, 2] << 16)
    heads = ascension == 0xFFFFFF
    if len(records) and not heads[0]:
        raise FrameReadError(path, "does not begin with a magnitude; download the database again")
    above = np.maximum.accumulate(np.where(heads, np.arange(len(records)), 0))[~heads]
    stars = records[~heads]
    declination = ((records[above, 3] - 128) << 16) + (stars[:, 4] << 8) + stars[:, 3]
    places = ascension[~heads] * 360 / 0xFFFFFF, declination * 90 / 0x7FFFFF
    return np.stack([*places, (records[above, 4] - 16) / 10])
