"""What is known of a frame before it is solved: direction, scale and date, from its header, from EXIF, or given."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import exifread
import numpy as np
import xarray as xr

from ..core.errors import WorkbenchError
from ..ingest.metadata import exif_blocks
from ..ingest.reader import read_header
from ..stars.catalogue import catalogue_stars
from ..stars.objects import find_object
from .sky import NoSolutionError, Solution, solve_field

_REACH = 1.0  # deg that a direction in a header may be off, at least; or half the field
_WIDE = 8.0  # deg: a field this wide is sought on the whole sky where no direction is given
_WIDE_SCALE = 0.08  # natural logarithm: what an EXIF focal length may be off
_SCALE = 0.04
_Solver = Callable[[int], Solution | None]
_GIVEN = ("ra", "dec", "target", "focal_length", "pixel_size", "scale")


class Hints(NamedTuple):
    """What is known: RA and Dec of the middle [deg] or None, arcsec a pixel, date, tolerance of the scale."""

    centre: tuple[float, float] | None
    scale: float
    date: str | None = None
    tolerance: float = _SCALE


def solve_stars(stars: xr.Dataset, shape: tuple[int, int], hints: Hints, reach: float | None = None) -> Solution:
    """Solve a star list with what is known; see `solve`."""
    field = 2 * np.degrees(np.arctan(np.hypot(*shape) / 2 * np.radians(hints.scale / 3600)))
    if hints.centre is None:
        if field < _WIDE:
            raise NoSolutionError(
                f"no direction is known, and its field of {field:.1f}° is too small to be sought on the whole sky; give"
                " RA and Dec or an object"
            )
        catalogue = catalogue_stars(0.0, 0.0, 180.0, date=hints.date, faintest=8.0)
        return solve_field(stars, shape, catalogue, scale=hints.scale, tolerance=hints.tolerance)
    reach = max(_REACH, field / 2) if reach is None else reach
    catalogue = catalogue_stars(*hints.centre, min(reach + field / 2, 180.0), date=hints.date)
    return solve_field(
        stars, shape, catalogue, scale=hints.scale, tolerance=hints.tolerance, centre=hints.centre, reach=reach
    )


def solver(paths: Sequence[Path], stars: Sequence[xr.Dataset | None], shape: tuple[int, int]) -> _Solver:
    """Return what gives the plate solution of a frame by its number, None where it has none; each is sought once."""

    @cache
    def solve(number: int) -> Solution | None:
        found = stars[number]
        try:
            return None if found is None else solve_stars(found, shape, hints_of(known_of(paths[number])))
        except WorkbenchError:  # no direction or scale in its header, too few stars, nothing found
            return None

    return solve


def hints_of(known: Mapping[str, Any], **given: Any) -> Hints:
    """Return what a header's cards and what is `given` (see `workbench.solve`) say of direction, scale and date.

    Raises
    ------
    WorkbenchError
        If the scale is not known, or what is given is none.

    Examples
    --------
    >>> hints_of({"OBJECT": "M 94", "FOCALLEN": 250, "XPIXSZ": 2.9}).scale.__round__(3)
    2.393
    """
    if unknown := set(given) - set(_GIVEN):
        raise WorkbenchError(f"no hint is named {', '.join(sorted(unknown))}; there are {', '.join(_GIVEN)}")
    given = {name: value for name, value in given.items() if value is not None}
    for name in ("focal_length", "pixel_size", "scale"):
        if name in given and not (math.isfinite(given[name]) and given[name] > 0):
            raise WorkbenchError(f"{name.replace('_', ' ')} {given[name]:g} is none; it must be above zero")
    focal, pixel = (given.get(name, _number(known, *cards)) for name, cards in (
        ("focal_length", ("FOCALLEN",)), ("pixel_size", ("XPIXSZ", "PIXSIZE1"))))  # fmt: skip
    scale = given.get("scale", 0.0) or (206.264806 * pixel / focal if focal and pixel else _number(known, "PIXSCALE"))
    if not scale:
        raise WorkbenchError("its scale is not known; give the focal length and the pixel size")
    date = next((str(known[key]) for key in ("DATE-AVG", "DATE-OBS") if known.get(key)), None)
    return Hints(_direction(known, given), float(scale), date, float(known.get("_tolerance", _SCALE)))


def _direction(known: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[float, float] | None:
    """RA and Dec [deg]: given, of the object given, of the header, of the header's object."""
    if ("ra" in given) != ("dec" in given):
        raise WorkbenchError("RA and Dec belong together; give both")
    if "ra" in given:
        return degrees(given["ra"], "hourangle"), degrees(given["dec"], "deg")
    if "target" in given:
        return find_object(given["target"])[:2]
    for ra, dec in (("RA", "DEC"), ("OBJCTRA", "OBJCTDEC")):
        if known.get(ra) not in (None, "") and known.get(dec) not in (None, ""):
            try:
                return degrees(known[ra], "hourangle"), degrees(known[dec], "deg")
            except WorkbenchError:
                continue
    try:
        return find_object(str(known["OBJECT"]))[:2] if known.get("OBJECT") else None
    except WorkbenchError:
        return None


def degrees(value: Any, unit: str) -> float:
    """A number [deg], or sexagesimal text, of hours for RA."""
    try:
        return float(value)
    except ValueError:
        pass
    try:
        from astropy.coordinates import Angle

        return float(Angle(str(value), unit=unit).deg)
    except ValueError:
        raise WorkbenchError(f"{value!r} is not an angle; write degrees, or 12h50m53s and +41d07m14s") from None


def _number(known: Mapping[str, Any], *keys: str) -> float:
    """The first positive number among these cards, else 0."""
    for key in keys:
        try:
            value = float(known.get(key, 0) or 0)
        except (TypeError, ValueError):
            continue
        if math.isfinite(value) and value > 0:
            return value
    return 0.0


def known_of(path: str | Path) -> dict[str, Any]:
    """Return a FITS or XISF header, or what EXIF says of the lens under the names of FITS cards."""
    header = read_header(path)
    if header:
        return {key: header[key] for key in header if key not in ("COMMENT", "HISTORY", "")}
    tags: dict[str, Any] = {}
    try:
        for block in exif_blocks(Path(path)):
            tags |= exifread.process_file(block, details=False, extract_thumbnail=False)
    except Exception:  # exifread raises whatever damaged tags make it stumble over: then nothing is known
        return {}
    value = {name: float(tags[key].values[0]) for name, key in (
        ("focal", "EXIF FocalLength"), ("across", "EXIF FocalPlaneXResolution"),
        ("unit", "EXIF FocalPlaneResolutionUnit")) if key in tags}  # fmt: skip
    known: dict[str, Any] = {"_tolerance": _WIDE_SCALE}
    if value.get("focal"):
        known["FOCALLEN"] = value["focal"]
    if value.get("across"):
        known["XPIXSZ"] = {3.0: 1e4, 4.0: 1e3, 5.0: 1.0}.get(value.get("unit", 2.0), 25_400.0) / value["across"]
    if date := str(tags.get("EXIF DateTimeOriginal", "")):
        known["DATE-OBS"] = date.replace(":", "-", 2).replace(" ", "T")
    return known
