"""Where on the sky: a frame's stars matched to catalogued ones, without a network, and its world coordinates.

Triangles of stars propose where the camera pointed; each proposal is tested on the other stars.  A solution is given
only where chance would almost never show as good a one (`Solution.chance`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from scipy.spatial import cKDTree

from ..core.errors import WorkbenchError
from ..stars.catalogue import unit_vectors
from .attitude import MODELS, MOST_CHANCE, RADIUS, Proposal, nearest, search, star_lists
from .transform import Transform, fit_robust, fit_transform

if TYPE_CHECKING:
    from astropy.wcs import WCS

_DEPTHS = (8, 12, 25, 60)  # brightest stars of the frame that are compared, from quick to patient
_MOST = 4000  # catalogued stars compared: beyond it, all pairs of them take seconds and gigabytes
_FAINTER = 3  # catalogued stars for each of the frame's that are compared


class NoSolutionError(WorkbenchError):
    """No place on the sky was found that chance would not show as well."""


@dataclass(frozen=True, eq=False)
class Solution:
    """A plate solution.

    `wcs` for pixels counted from 0 at the centre of the first; `shape` (y, x) of the picture; `stars`, a Dataset over
    the matched ``star``: ``x``, ``y``, residuals ``dx``, ``dy``, their ``error`` [px], ``used`` in the fit, ``ra``,
    ``dec`` [deg], ``magnitude``, ``bp_rp``, ``b_v`` and ``index`` into the list of the frame's stars; `centre_error`
    [arcsec] an axis; `chance`, the expected number of false solutions as good as this among all that were tried.
    """

    wcs: WCS
    shape: tuple[int, int]
    stars: xr.Dataset
    centre_error: float
    chance: float

    @property
    def centre(self) -> tuple[float, float]:
        """RA and Dec of the picture's middle [deg]."""
        ra, dec = self.wcs.all_pix2world((self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2, 0)
        return float(ra), float(dec)

    @property
    def scale(self) -> float:
        """Arcseconds a pixel in the middle."""
        return float(3600 * np.sqrt(abs(np.linalg.det(self.wcs.pixel_scale_matrix))))

    @property
    def rotation(self) -> float:
        """Direction of north, from up towards the left of a picture whose first row is the top [deg]."""
        across, down = np.linalg.inv(self.wcs.pixel_scale_matrix) @ [0.0, 1.0]
        return float(np.degrees(np.arctan2(-across, -down)))

    @property
    def mirrored(self) -> bool:
        """Whether the picture is a mirror image of the sky."""
        return bool(np.linalg.det(self.wcs.pixel_scale_matrix) < 0)

    @property
    def rms(self) -> float:
        """Residual of the stars used, an axis [px]."""
        used = self.stars["used"].values
        return float(np.sqrt((self.stars["dx"].values[used] ** 2 + self.stars["dy"].values[used] ** 2).mean() / 2))

    def cards(self) -> dict[str, Any]:
        """Return the FITS cards of the solution, with SIP terms where they are significant."""
        header = self.wcs.to_header(relax=True)
        cards = {key: (header[key], header.comments[key]) for key in header if key not in ("DATE-REF", "MJDREF")}
        return cards | {
            "WCSNSTAR": (int(self.stars["used"].sum()), "catalogue stars in the plate solution"),
            "WCSRMS": (round(self.rms, 4), "[pix] rms residual of these, an axis"),
            "WCSERR": (round(self.centre_error, 4), "[arcsec] standard error of the centre, an axis"),
            "WCSODDS": (float(f"{self.chance:.2g}"), "expected false solutions as good"),
        }

    def __repr__(self) -> str:
        ra, dec = self.centre
        used = int(self.stars["used"].sum())
        distorted = f", distortion of order {self.wcs.sip.a_order} (SIP)" if self.wcs.sip is not None else ""
        return (
            f"centre RA {ra:.5f}°, Dec {dec:+.5f}° ± {self.centre_error:.2f}″; {self.scale:.4f}″ a pixel, north "
            f"{abs(self.rotation):.2f}° {'left' if self.rotation >= 0 else 'right'} of up"
            f"{', mirrored' if self.mirrored else ''}{distorted}\n{used} catalogue stars, residuals {self.rms:.3f} px "
            f"rms; {self.chance:.1g} false solutions as good expected by chance"
        )


def solve_field(
    stars: xr.Dataset,
    shape: tuple[int, int],
    catalogue: xr.Dataset,
    *,
    scale: float,
    tolerance: float = 0.04,
    centre: tuple[float, float] | None = None,
    reach: float = 180.0,
) -> Solution:
    """Find where on the sky a frame's stars are, and fit its world coordinates.

    Triangles of the frame's brightest stars and of catalogued ones with like sides give the camera's attitude; each is
    tested on all stars that should be in the frame.  With p the probability that a strange star stands within the
    matching radius of a place, k matches among n catalogued stars in the frame have by chance the binomial tail of
    k - 2 in n - 2 (two stars make the proposal; more where the fit is richer).  The chance stated is that, times the
    pairs of pairs of stars that agree with the scale, times the depths and radii tried (the binomial tail as in ESA's
    tetra3; the trials as Bonferroni).  Positions on the tangent plane are then fitted by a polynomial, whose order the
    Bayesian information criterion chooses.

    Parameters
    ----------
    stars
        What `find_stars` gives, brightest first.
    shape
        (y, x) of the frame.
    catalogue
        What `catalogue_stars` gives about the place, or of the whole sky.
    scale
        [arcsec] a pixel, to within `tolerance` (natural logarithm).
    centre, reach
        RA and Dec [deg] where the middle should be, and how far off it may be [deg].

    Raises
    ------
    NoSolutionError
        If there are too few stars, or no match that chance would not show as well; the message says how far it came.
    """
    if not (np.isfinite(scale) and scale > 0):
        raise WorkbenchError(f"a scale of {scale} arcsec a pixel is none; give focal length and pixel size")
    middle = (np.array(shape[::-1]) - 1) / 2
    focal = 3600 * 180 / np.pi / scale
    pixels = np.stack([stars["x"].values, stars["y"].values], axis=1) - middle
    with np.errstate(invalid="ignore", divide="ignore"):
        light = np.where(stars["saturated"].values, np.nan, -2.5 * np.log10(stars["flux"].values))
    towards = None if centre is None else (unit_vectors(*centre), np.cos(np.radians(min(reach, 180.0))))
    field = 2 * np.arctan(np.hypot(*shape) / 2 / focal)
    share = np.prod(shape) / focal**2 / (2 * np.pi * (1 - np.cos(min(np.radians(reach) + field / 2, np.pi))))
    sky = unit_vectors(catalogue["ra"].values, catalogue["dec"].values)
    bright = catalogue["magnitude"].values
    best, tried = None, 0
    for depth in _DEPTHS:
        if tried and depth > 2 * len(pixels):
            break
        count = int(np.clip(_FAINTER * min(depth, len(pixels)) / min(share, 1.0), 3, min(len(sky), _MOST)))
        for mirror in (1.0, -1.0):
            turned = pixels[:depth] * [mirror, 1.0]
            lists = star_lists(turned, light[:depth], focal, sky[:count], bright[:count])
            tried += 1
            found = search(lists, shape, focal, tolerance, towards, field)
            if found is not None and (best is None or found.chance * tried < best[0].chance):
                best = found._replace(chance=found.chance * tried), mirror
        if best is not None and best[0].chance < MOST_CHANCE:
            return _fitted(best[0], best[1], stars, shape, catalogue)
    nearest = "" if best is None else (
        f"; the best match has {best[0].matched} stars, and {best[0].chance:.1g} as good are expected by chance"
    )  # fmt: skip
    raise NoSolutionError(
        f"no place on the sky was found for {len(pixels)} stars among {len(sky)} of the catalogue{nearest}: other "
        "coordinates or scale, too few stars, or a catalogue that is not deep enough"
    )


def _fitted(
    found: Proposal, mirror: float, stars: xr.Dataset, shape: tuple[int, int], catalogue: xr.Dataset
) -> Solution:
    """Fit the world coordinates to all stars of the frame that the catalogue holds."""
    middle, scale = (np.array(shape[::-1]) - 1) / 2, float(np.degrees(3600 / found.focal))
    hand, wide = np.array([mirror, 1.0]), max(RADIUS, 0.004 * float(np.hypot(*shape)))
    crval = _place(found.turn[2])
    axes = np.stack([found.turn[:2] @ direction for direction in _directions(crval)]) * hand
    wcs = _world(middle, crval, np.degrees(axes / found.focal))
    pixels = np.stack([stars["x"].values, stars["y"].values], axis=1)
    own = np.hypot(stars["x_error"].values, stars["y_error"].values) / np.sqrt(2)
    sky = np.stack([catalogue["ra"].values, catalogue["dec"].values], axis=1)
    near = np.flatnonzero(unit_vectors(*sky.T) @ found.turn[2] > np.cos(1.1 * np.hypot(*shape) / 2 / found.focal))
    tree = cKDTree(pixels)
    for radius in (wide, wide / 2, RADIUS, RADIUS, RADIUS, RADIUS):
        predicted = wcs.all_world2pix(sky[near], 0, quiet=True)
        one, two = nearest(tree, np.nan_to_num(predicted, nan=-1e6), max(radius, RADIUS))
        plane = _tangent(crval, sky[near[one]]) * 3600 / scale * hand
        error = np.hypot(own[two], catalogue["position_error"].values[near[one]] / scale)
        _, residuals = fit_robust(pixels[two] - middle, plane, error, among=MODELS)
        weights = np.append(residuals["used"].values, False)  # the last is the middle, for its error
        points, target = np.concatenate([pixels[two] - middle, [[0, 0]]]), np.concatenate([plane, [[0, 0]]])
        kind = residuals.attrs["kind"]
        fit, doubt = fit_transform(points, target, np.append(error, 1.0), kind=kind, weights=weights)
        crval, wcs = _refined(fit, middle, crval, scale, hand)
    centre_error = float(doubt[-1]) * max(residuals.attrs["scatter"], 1.0) * scale
    listed = (catalogue[name] for name in ("ra", "dec", "magnitude", "bp_rp", "b_v"))
    matched = {column.name: ("star", column.values[near[one]], column.attrs) for column in listed}
    dx, dy = pixels[two].T - np.stack(wcs.all_world2pix(sky[near[one]], 0, quiet=True), axis=1)
    columns = {"x": pixels[two][:, 0], "y": pixels[two][:, 1], "dx": dx, "dy": dy, "error": error}
    table = xr.Dataset(matched | {name: ("star", values, {"units": "pix"}) for name, values in columns.items()})
    table["index"], table["used"] = ("star", two), ("star", residuals["used"].values)
    return Solution(wcs, (int(shape[0]), int(shape[1])), table, centre_error, found.chance)


def _place(vector: np.ndarray) -> np.ndarray:
    """RA and Dec [deg] of a direction."""
    x, y, z = vector / np.linalg.norm(vector)
    return np.array([np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arcsin(np.clip(z, -1, 1)))])


def _directions(crval: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """East and north at a place."""
    right = np.radians(crval[0])
    east = np.array([-np.sin(right), np.cos(right), 0.0])
    return east, np.cross(unit_vectors(*crval), east)


def _tangent(crval: np.ndarray, sky: np.ndarray) -> np.ndarray:
    """Places [deg] on the plane that touches the sky there, east and north."""
    vectors = unit_vectors(*sky.T)
    depth = vectors @ unit_vectors(*crval)
    return np.degrees(np.stack([vectors @ direction for direction in _directions(crval)], axis=1) / depth[:, None])


def _world(middle: np.ndarray, crval: np.ndarray, matrix: np.ndarray, sip: Any = None) -> WCS:
    from astropy.wcs import WCS, Sip  # takes a third of a second, which only a solution is worth

    wcs = WCS(naxis=2)
    suffix = "" if sip is None else "-SIP"
    wcs.wcs.ctype, wcs.wcs.cunit = [f"RA---TAN{suffix}", f"DEC--TAN{suffix}"], ["deg", "deg"]
    wcs.wcs.crpix, wcs.wcs.crval, wcs.wcs.radesys = middle + 1, crval, "ICRS"
    wcs.wcs.pc, wcs.wcs.cdelt = matrix, [1.0, 1.0]
    if sip is not None:
        wcs.sip = Sip(*sip, None, None, middle + 1)
    wcs.wcs.set()
    return wcs


def _refined(fit: Transform, middle: np.ndarray, crval: np.ndarray, scale: float, hand: np.ndarray) -> Any:
    """Return CRVAL and world coordinates of a fit from pixels (from the middle) to the tangent plane [px].

    Where the middle falls on the plane becomes CRVAL: what the constant is then, the next fit finds to be nothing.  The
    terms of second and third order, less the linear part, are SIP's A and B (Shupe et al. 2005).
    """
    order = {"quadratic": 2, "cubic": 3}.get(fit.kind, 1)
    half = float(np.abs(middle).max())
    v, u = (axis.ravel() for axis in np.mgrid[-1:1:7j, -1:1:7j])  # the polynomial's own coefficients, from its values
    terms = [(i, j) for total in range(order + 1) for i, j in ((total - k, k) for k in range(total + 1))]
    design = np.stack([u**i * v**j for i, j in terms], axis=1)
    values = np.stack(fit.apply(u * half, v * half), axis=1)
    coefficients = np.linalg.lstsq(design, values, rcond=None)[0] / [[half ** (i + j)] for i, j in terms]
    degrees = coefficients * hand * scale / 3600
    shift = np.radians(degrees[0])
    east, north = _directions(crval)
    crval = _place(unit_vectors(*crval) + shift[0] * east + shift[1] * north)
    matrix = degrees[1:3].T
    if order == 1:
        return crval, _world(middle, crval, matrix)
    sip = np.zeros((2, order + 1, order + 1))
    for (i, j), term in zip(terms[3:], degrees[3:], strict=True):
        sip[:, i, j] = np.linalg.solve(matrix, term)
    return crval, _world(middle, crval, matrix, sip)
