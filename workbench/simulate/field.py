"""The field of the samples: the real stars about Andromeda, and a spiral galaxy of our own where M 31 is.

Run as a program it writes the list of stars again, from the catalogues that are installed.
Stars of G < 10 are real (`STARS`, with its credit); fainter ones are drawn.  The galaxy is procedural and seeded: disc,
bulge, two arms with knots of young stars and glowing gas, dust lanes between us and the far half of its light, and a
small companion.  It looks like a galaxy, and like none that exists.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import map_coordinates

from ..core.statistics import mad_std
from ..stars.catalogue import catalogue_stars
from .firmware import DAYLIGHT
from .sky import Sky

STARS = Path(__file__).with_name("field.csv")
_DATE = "2025-01-18"
_CREDIT = f"""Stars of G < 10 within 3.4 degrees of RA 11.75, Dec 41.10 on {_DATE}: ra, dec [deg, ICRS], G, B - V
ESA Gaia DR3 (Gaia Collaboration 2023, DPAC), CC BY-SA 3.0 IGO; proper motions and B - V where Hipparcos lists the star
(van Leeuwen 2007, I/311), else B - V by BP - RP.  This file is under CC BY-SA 3.0 IGO as well."""
OBJECT = "M 31"
RA, DEC = 11.75, 41.10  # where the frame points [deg, ICRS]: M 31 stands off the middle, which shows the flat's work
_GALAXY = (10.6847, 41.2688)
PIXEL = 4.78  # [µm] of a D7000
_ROLL = 12.0  # [deg] from north through east to the top of the frame
_ZERO = 2.6e5  # green e-/s of a star of G = 0 through 1 cm²: 1000 photons/s/cm²/Å (Vega), 800 Å, 0.33 of them counted
_WAVES = (600e-9, 530e-9, 460e-9)  # [m] middle of the three filters
_FAINTEST, _SLOPE = 3.0, 0.6  # [e-/s in green], and of the drawn stars' counts against flux
_MARGIN = 0.15  # of the longer side: stars around the frame, for dithers and rotation
_STEP = 2.0  # [px] between the control points of the galaxy


@dataclass(frozen=True, eq=False)
class Field:
    """A real field: the `sky` that is rendered, its plate solution, and what is known of its stars, in their order.

    `wcs` has the keywords of FITS for the plain view, pixel (1, 1) the first; `ra`, `dec` [deg], `magnitude` (G),
    `b_v` (B - V) and whether a star is in the catalogue (`real`) or drawn.
    """

    sky: Sky
    wcs: dict[str, Any]
    ra: np.ndarray
    dec: np.ndarray
    magnitude: np.ndarray
    b_v: np.ndarray
    real: np.ndarray


def make_field(shape: tuple[int, int], *, focal_length: float, aperture: float, seed: int = 0) -> Field:
    """Point a lens of some focal length [mm] and f-number at the field.

    Examples
    --------
    >>> field = make_field((192, 288), focal_length=24, aperture=4)
    >>> int(field.real.sum()) > 50, field.wcs["CRVAL1"]
    (True, 11.75)
    """
    rng = np.random.default_rng((seed, 7))
    height, width = shape
    wcs, border = plate_solution(shape, focal_length), _MARGIN * max(shape)
    area = math.pi * (focal_length / aperture / 20) ** 2  # [cm²] of the lens
    ra, dec, magnitude, b_v = np.loadtxt(STARS, delimiter=",", unpack=True)
    x, y = _to_pixels(wcs, ra, dec)
    seen = (abs(x - (width - 1) / 2) < width / 2 + border) & (abs(y - (height - 1) / 2) < height / 2 + border)
    ra, dec, magnitude, b_v = (column[seen] for column in (ra, dec, magnitude, b_v))
    limit = _ZERO * area * 10 ** (-0.4 * 10)
    more = round(seen.sum() * ((limit / _FAINTEST) ** _SLOPE - 1))
    places = rng.uniform(-border, [[width + border], [height + border]], (2, more))
    low, high = _FAINTEST**-_SLOPE, limit**-_SLOPE
    faint = (low + rng.random(more) * (high - low)) ** (-1 / _SLOPE)
    x, y = np.append(x[seen], places[0]), np.append(y[seen], places[1])
    new_ra, new_dec = _to_sky(wcs, *places)
    ra, dec = np.append(ra, new_ra), np.append(dec, new_dec)
    magnitude = np.append(magnitude, 10 - 2.5 * np.log10(faint / limit)).round(3)
    b_v = np.append(b_v, rng.normal(0.7, 0.35, more).clip(-0.2, 1.9)).round(3)
    flux = _ZERO * area * 10 ** (-0.4 * magnitude)[:, None] * colours(b_v)
    real = np.arange(len(x)) < seen.sum()
    points, origin = _galaxy(wcs, shape, border)
    sky = Sky(shape, x, y, flux, points, _STEP, origin)
    return Field(sky, wcs, ra, dec, magnitude, b_v, real)


def plate_solution(shape: tuple[int, int], focal_length: float) -> dict[str, Any]:
    """Return the plate solution of the plain view through a lens [mm]: tangent plane, FITS keywords, [deg]."""
    scale = math.degrees(PIXEL * 1e-3 / focal_length)
    c, s = scale * math.cos(math.radians(_ROLL)), scale * math.sin(math.radians(_ROLL))
    return {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": RA, "CRVAL2": DEC,
        "CRPIX1": (shape[1] + 1) / 2, "CRPIX2": (shape[0] + 1) / 2,
        "CD1_1": -c, "CD1_2": -s, "CD2_1": s, "CD2_2": -c,
    }  # fmt: skip


def colours(b_v: np.ndarray) -> np.ndarray:
    """Return the light of stars of colour B - V in R, G and B relative to green, (star, 3), as the camera counts it.

    A black body of T = 4600 K (1/(0.92 (B - V) + 1.7) + 1/(0.92 (B - V) + 0.62)) (Ballesteros 2012), in photons
    λ⁻⁴ / (exp(hc/λkT) - 1) at the middle of each filter; one of 6500 K looks like daylight.

    Examples
    --------
    >>> blue, red = colours(np.array([0.0, 1.5]))
    >>> bool(blue[2] > blue[0]), bool(red[0] > red[2])
    (True, True)
    """
    b_v = np.asarray(b_v, float)
    kelvin = 4600 * (1 / (0.92 * b_v + 1.7) + 1 / (0.92 * b_v + 0.62))
    light, daylight = _photons(kelvin), _photons(np.array([6500.0]))
    return light / light[:, 1:2] / (daylight / daylight[:, 1:2]) / np.array(DAYLIGHT)


def _photons(kelvin: np.ndarray) -> np.ndarray:
    waves = np.array(_WAVES)
    return waves**-4 / np.expm1(0.014387769 / (waves * kelvin[:, None]))


def _to_pixels(wcs: dict[str, Any], ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places [deg] on the frame [px from 0]: the gnomonic projection (Calabretta & Greisen 2002)."""
    turn, d, d0 = np.radians(ra - wcs["CRVAL1"]), np.radians(dec), math.radians(wcs["CRVAL2"])
    depth = math.sin(d0) * np.sin(d) + math.cos(d0) * np.cos(d) * np.cos(turn)
    plane = np.degrees(
        [np.cos(d) * np.sin(turn) / depth, (math.cos(d0) * np.sin(d) - math.sin(d0) * np.cos(d) * np.cos(turn)) / depth]
    )
    x, y = np.linalg.solve(_cd(wcs), plane)
    return x + wcs["CRPIX1"] - 1, y + wcs["CRPIX2"] - 1


def _to_sky(wcs: dict[str, Any], x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of `_to_pixels`."""
    east, north = np.radians(_cd(wcs) @ [x + 1 - wcs["CRPIX1"], y + 1 - wcs["CRPIX2"]])
    d0 = math.radians(wcs["CRVAL2"])
    turn = np.arctan2(east, math.cos(d0) - north * math.sin(d0))
    dec = np.arctan2((math.sin(d0) + north * math.cos(d0)) * np.cos(turn), math.cos(d0) - north * math.sin(d0))
    return (wcs["CRVAL1"] + np.degrees(turn)) % 360, np.degrees(dec)


def list_stars() -> None:
    """Write the stars of G < 10 about the field as the catalogues `workbench.stars.catalogue` have them."""
    known = catalogue_stars(RA, DEC, 180.0, date=_DATE, faintest=8.0)
    bluer, redder = known["bp_rp"].values, known["b_v"].values
    both = np.isfinite(bluer + redder) & (bluer < 2.5)
    for _ in range(5):  # B - V by BP - RP, the few stars far from it left out
        law = np.polynomial.Polynomial.fit(bluer[both], redder[both], 3)
        away = redder - law(bluer)
        both &= np.abs(away) < 3 * mad_std(away[both], centre=0)
    stars = catalogue_stars(RA, DEC, 3.4, date=_DATE, faintest=10.0)
    b_v = stars["b_v"].fillna(law(stars["bp_rp"].clip(-0.4, 2.5))).clip(-0.3, 2.0)
    columns = np.stack([stars["ra"], stars["dec"], stars["magnitude"], b_v], axis=1)
    np.savetxt(STARS, columns, fmt=("%.6f", "%.6f", "%.3f", "%.3f"), delimiter=",", header=_CREDIT)


def _cd(wcs: dict[str, Any]) -> np.ndarray:
    return np.array([[wcs["CD1_1"], wcs["CD1_2"]], [wcs["CD2_1"], wcs["CD2_2"]]])


# ---- the galaxy: brightness in e-/s/pixel of green at f/4, sizes in degrees, colours as daylight shows them
_ANGLE, _INCLINED = 38.0, 67.0  # [deg] of the major axis from north through east, and of the disc to our view
_DISC, _PITCH = 0.34, 17.0  # scale length [deg]; pitch of the arms [deg]


def _galaxy(wcs: dict[str, Any], shape: tuple[int, int], border: float) -> tuple[np.ndarray, tuple[float, float]]:
    """Control points (colour, row, column) [e-/s/pixel], and where the first lies (y, x)."""
    rows, columns = (math.ceil((size + 2 * border) / _STEP) + 6 for size in shape)
    start = -border - 2 * _STEP
    y, x = start + _STEP * np.mgrid[:rows, :columns]
    cd = _cd(wcs)
    centre = _to_pixels(wcs, *np.array(_GALAXY))
    u, v = x - centre[0], y - centre[1]
    east, north = cd[0, 0] * u + cd[0, 1] * v, cd[1, 0] * u + cd[1, 1] * v
    light = galaxy_light(east, north) / np.array(DAYLIGHT)[:, None, None]
    return light.astype(np.float32).astype(float), (start, start)


def galaxy_light(east: np.ndarray, north: np.ndarray, seed: int = 31) -> np.ndarray:
    """Return the galaxy's light (colour, y, x), as daylight shows it, at offsets from its centre [deg]."""
    rng = np.random.default_rng(seed)
    s, c = math.sin(math.radians(_ANGLE)), math.cos(math.radians(_ANGLE))
    along, across = east * s + north * c, north * s - east * c
    tilt = math.cos(math.radians(_INCLINED))
    radius = np.hypot(along, across / tilt) + 1e-6
    angle = np.arctan2(across / tilt, along)
    winding = np.log(radius / _DISC) / math.tan(math.radians(_PITCH))
    cloud = _turbulence(rng, 9.0 * along / _DISC, 9.0 * across / tilt / _DISC)
    wisps = _turbulence(rng, 14.0 * np.log(radius / _DISC), 8.0 / np.pi * (2 * angle - 0.8 * winding))
    phase = 2 * (angle - winding) + 0.7 * cloud
    rise = 1 / (1 + np.exp(-(radius - 0.40 * _DISC) / (0.10 * _DISC)))  # no arms in the bulge
    arm = np.exp(1.25 * (np.cos(phase) - 1)) * rise
    lane = np.exp(3.0 * (np.cos(phase + 1.0 + 0.6 * wisps) - 1)) * rise
    disc = np.exp(-radius / _DISC) * np.exp(-((radius / 1.25) ** 6))
    old = 2.3 * disc
    clumps = np.clip(0.9 + 1.0 * wisps + 0.8 * cloud, 0.15, None)
    young = 6.5 * disc * arm * clumps
    round_ = np.hypot(along, across / 0.72)
    bulge = 28.0 * np.exp(-3.6 * (round_ / 0.14) ** 0.5)
    knots = _turbulence(rng, 24.0 * along / _DISC, 24.0 * across / tilt / _DISC, 2)
    gas = 8.0 * disc**0.7 * arm**1.5 * np.clip(knots + 0.5 * wisps - 0.65, 0, None) ** 1.5
    tau = 3.4 * disc**0.3 * lane * np.clip(0.7 + 1.1 * wisps + 0.7 * cloud, 0, None)
    near = 1 / (1 + np.exp(-across / 0.012))  # the half whose dust lies in front of the bulge
    out = np.empty((3, *east.shape))
    for colour, (reddening, of_old, of_young, of_gas, of_bulge) in enumerate(
        ((0.75, 1.0, 0.76, 1.0, 1.0), (1.0, 0.79, 0.86, 0.25, 0.73), (1.3, 0.60, 1.14, 0.45, 0.50))
    ):
        behind = np.exp(-reddening * tau)
        plane = (of_old * old + of_young * young + of_gas * gas) * (0.25 + 0.75 * behind)
        out[colour] = plane + of_bulge * bulge * (near * behind + (1 - near) * (0.6 + 0.4 * behind))
    return out + _companion(east, north)


def _companion(east: np.ndarray, north: np.ndarray) -> np.ndarray:
    """A small elliptical galaxy, of old stars."""
    u, v = east - 0.42, north + 0.16
    glow = 6.0 * np.exp(-3.0 * np.sqrt(np.hypot(u * 0.8 + v * 0.6, (v * 0.8 - u * 0.6) / 0.6) / 0.10))
    return np.array([1.0, 0.78, 0.58])[:, None, None] * glow


def _turbulence(rng: np.random.Generator, y: np.ndarray, x: np.ndarray, octaves: int = 4) -> np.ndarray:
    """Noise of many sizes about zero, rms some 0.5: smooth random surfaces, each half as wide and 0.6 as high."""
    total, height = np.zeros(y.shape), 0.5
    for octave in range(octaves):
        lattice = rng.standard_normal((64, 64))
        total += height * map_coordinates(lattice, [y * 2**octave / 4, x * 2**octave / 4], order=3, mode="grid-wrap")
        height *= 0.6
    return total


if __name__ == "__main__":
    list_stars()
