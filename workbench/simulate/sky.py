"""The virtual night sky: a scene of which every number is known, in front of any camera.

Everything here is **simulated**.  A `Sky` lies in a plane: stars, a nebula.  A `View` is how one frame sees
it: where it points, the seeing, the transparency, clouds, the sky's background, satellites that cross,
cosmic rays that hit.  `render` gives the photo-electron rate at every photosite of the mosaic, `picture`
the ideal noise-free picture in full colour: the same numbers, so that what a pipeline makes of the frames
can be compared with the truth to the last per mille.

Pixel (0, 0) has its centre at x = 0, y = 0.  Sky coordinates are the pixels of an undistorted, unmoved frame.
Colours are R, G, B (both greens see the same light; a ``mono`` camera sees G).  Rates are in e-/s a pixel,
before vignetting, dust and the sensor's own response.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from ..core.cube import COLOURS, MOSAICS, is_mosaic
from ..core.errors import WorkbenchError
from ..core.mosaic import colour_index
from ..core.parallel import in_threads
from .paint import (
    Nebula,
    Optics,
    PaintedRows,
    SkyLight,
    Stars,
    paint_field,
    paint_stars,
    paint_trail,
    psf_profile,
    stamp_radius,
    trail_line,
)

BAND = 256  # [rows] painted at a time
_SLOPE = 0.6  # of the stars' counts against flux
_MARGIN = 0.15  # of the longer side: stars around the field, for dithers and rotation


@dataclass(frozen=True, eq=False)
class Sky:
    """What is up there: star positions [px] and fluxes [e-/s], and a nebula as a smooth surface.

    The nebula is a uniform cubic B-spline with coefficients `nebula` (colour, row, column) [e-/s/pixel] on a
    grid of `step` pixels, whose first control point lies at `origin` (y, x): it can be evaluated anywhere.
    """

    shape: tuple[int, int]
    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray  # (star, colour)
    nebula: np.ndarray
    step: float
    origin: tuple[float, float]


@dataclass(frozen=True)
class Trail:
    """A satellite's trail across the frame: ends [px], width [px FWHM], light along its centre [e-/pixel]."""

    x0: float
    y0: float
    x1: float
    y1: float
    fwhm: float
    electrons: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class View:
    """How one exposure sees the sky.

    `matrix` takes homogeneous sky coordinates (x, y, 1) to detector pixels; a lens's `distortion` k moves a
    detector point at radius r from the centre to r (1 + k (r/R)²) in the undistorted plane, R the half diagonal.
    `fwhm` [px] is the point spread function's before the pixels integrate it, along its shorter axis;
    `elongation` ≥ 1 stretches it along `angle` [rad]; `beta` is Moffat's (``inf``: a Gaussian).
    `background` [e-/s/pixel] has a `gradient` (colour, (y, x)): its relative change over the full frame, and a
    `curvature` (colour): relative change from the centre to the half diagonal, growing with r².
    `clouds` is the depth (0 to 1) of a smooth random veil, which dims the sky and brightens the background.
    """

    exposure: float = 60.0
    matrix: np.ndarray = field(default_factory=lambda: np.eye(3))
    distortion: float = 0.0
    fwhm: float = 3.0
    beta: float = 3.5
    elongation: float = 1.0
    angle: float = 0.0
    transparency: float = 1.0
    clouds: float = 0.0
    background: tuple[float, ...] = (1.0, 2.0, 1.5)
    gradient: np.ndarray = field(default_factory=lambda: np.zeros((3, 2)))
    curvature: tuple[float, float, float] = (0.0, 0.0, 0.0)
    trails: tuple[Trail, ...] = ()
    cosmic_rays: int = 0
    seed: int = 0


def make_sky(
    shape: tuple[int, int] = (3264, 4928),
    *,
    stars: int | None = None,
    brightest: float = 2500.0,
    faintest: float = 10.0,
    nebula: float = 0.5,
    step: float = 32.0,
    seed: int = 0,
) -> Sky:
    """Make a sky of `stars` in the field (more around it, for dithers and rotation) and a two-coloured nebula.

    Without a number it is 190 stars a megapixel.
    Fluxes follow N(>F) ∝ F^-0.6 between `faintest` and `brightest` [e-/s in green]; colours scatter like those
    of a black body seen through the three filters.  `nebula` [e-/s/pixel] is its brightest red.

    Examples
    --------
    >>> sky = make_sky((64, 96), stars=5, seed=1)
    >>> sky.flux.shape[1], bool(np.all(make_sky((64, 96), stars=5, seed=1).x == sky.x))
    (3, True)
    """
    height, width = shape
    stars = max(10, round(190e-6 * height * width)) if stars is None else stars
    if height < 4 or width < 4 or stars < 0:
        raise WorkbenchError(
            f"a sky needs a field of at least 4 x 4 pixels and no negative stars; got {shape}, {stars}"
        )
    rng = np.random.default_rng((seed, 1))
    border = _MARGIN * max(height, width)
    count = round(stars * (height + 2 * border) * (width + 2 * border) / (height * width))
    x = rng.uniform(-border, width - 1 + border, count)
    y = rng.uniform(-border, height - 1 + border, count)
    low, high = faintest**-_SLOPE, brightest**-_SLOPE
    green = (low + rng.random(count) * (high - low)) ** (-1 / _SLOPE)
    index = rng.normal(0.0, 0.35, count)  # a colour index: red stars positive
    flux = green[:, None] * np.stack([0.55 * np.exp(index), np.ones(count), 0.75 * np.exp(-index)], axis=1)
    order = np.argsort(-green, kind="stable")
    rows, columns = (math.ceil((size + 2 * border) / step) + 6 for size in shape)
    points = nebula * _nebula(rng, rows, columns)
    return Sky((height, width), x[order], y[order], flux[order], points, float(step), (-border - 2 * step,) * 2)


def pointing(
    shape: tuple[int, int],
    *,
    shift: Sequence[float] | np.ndarray = (0.0, 0.0),
    degrees: float = 0.0,
    scale: float = 1.0,
) -> np.ndarray:
    """Return the matrix that turns by `degrees` and scales about the frame's centre, then shifts by (x, y) [px].

    Examples
    --------
    >>> (pointing((5, 9), shift=(1, 0), degrees=180) @ [0, 0, 1]).round(9).tolist()
    [9.0, 4.0, 1.0]
    """
    cy, cx = ((size - 1) / 2 for size in shape)
    c, s = math.cos(math.radians(degrees)) * scale, math.sin(math.radians(degrees)) * scale
    x, y = cx - c * cx + s * cy + shift[0], cy - s * cx - c * cy + shift[1]
    return np.array([[c, -s, x], [s, c, y], [0.0, 0.0, 1.0]])


def to_pixels(sky: Sky, view: View, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where points of the sky fall on the detector [px]: the view's matrix, then the lens's distortion."""
    u, v, w = view.matrix @ np.stack([np.ravel(x), np.ravel(y), np.ones(np.size(x))])
    u, v = u / w, v / w
    cy, cx, radius2 = _lens(sky.shape)
    dx, dy = u - cx, v - cy
    px, py = dx.copy(), dy.copy()
    for _ in range(60):  # the inverse of r (1 + k r²/R²), to machine precision for any lens one would use
        factor = 1 + view.distortion * (px**2 + py**2) / radius2
        px, py = dx / factor, dy / factor
    return (px + cx).reshape(np.shape(x)), (py + cy).reshape(np.shape(y))


def to_sky(sky: Sky, view: View, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sky coordinates of detector pixels: the inverse of `to_pixels`."""
    cy, cx, radius2 = _lens(sky.shape)
    dx, dy = np.ravel(x) - cx, np.ravel(y) - cy
    factor = 1 + view.distortion * (dx**2 + dy**2) / radius2
    u, v, w = np.linalg.inv(view.matrix) @ np.stack([dx * factor + cx, dy * factor + cy, np.ones(dx.size)])
    return (u / w).reshape(np.shape(x)), (v / w).reshape(np.shape(y))


def render(
    sky: Sky, view: View, cfa_pattern: str = "RGGB", *, trails: bool = True, threads: int | None = None
) -> np.ndarray:
    """Return the photo-electron rate of every photosite of one frame, float32 (y, x) [e-/s].

    rate = transparency · veil · (stars ∗ PSF, integrated over the pixel + nebula) + background (+ trails), each
    pixel in the colour of its filter.  Stars are integrated by Gauss-Legendre nodes inside each pixel; the
    seeing does not blur the nebula, which is smooth over several PSFs.  `cfa_pattern` may be a single colour
    (``R``, ``G``, ``B``): every pixel then sees that colour.

    Examples
    --------
    >>> sky = make_sky((40, 60), stars=3, nebula=0.0)
    >>> rate = render(sky, View(background=(1.0, 2.0, 1.5)), "RGGB")
    >>> rate.shape, rate.dtype, bool(rate.min() >= 1.0)
    ((40, 60), dtype('float32'), True)
    """
    cell = _colour_cell(cfa_pattern)
    height, width = sky.shape
    star_x, star_y = to_pixels(sky, view, sky.x, sky.y)
    flux = sky.flux * view.transparency
    profile = psf_profile(view)
    radius = stamp_radius(profile, flux.max(axis=1, initial=0.0) * view.exposure)
    veil = _veil(view)
    optics = Optics(np.linalg.inv(view.matrix), *_lens(sky.shape), float(view.distortion))
    nebula = Nebula(sky.nebula, float(sky.origin[0]), float(sky.origin[1]), float(sky.step))
    light = SkyLight(*(np.asarray(terms, float) for terms in (view.background, view.gradient, view.curvature)))
    lines = [trail_line(trail, view.exposure) for trail in view.trails if trails]
    out = np.empty((height, width), np.float32)

    def band(top: int) -> None:
        rows = out[top : top + BAND]
        work = np.empty(rows.shape)
        where = PaintedRows(top, height, cell, veil)
        paint_field(work, where, optics, nebula, light, float(view.transparency))
        near = np.flatnonzero((star_y > top - radius - 1) & (star_y < top + len(rows) + radius))
        paint_stars(work, where, Stars(star_x[near], star_y[near], flux[near], radius[near]), profile)
        for line in lines:
            paint_trail(work, where, line)
        rows[:] = work

    for _ in in_threads(band, range(0, height, BAND), threads):
        pass
    return out


def picture(sky: Sky, view: View | None = None, *, trails: bool = False) -> xr.DataArray:
    """Return the ideal picture of a view, without noise or mosaic: (channel R G B, y, x) [e-/s], float32.

    Without a view it is that of the plain reference: no background, full transparency, a PSF of 3 px.
    """
    view = View(background=(0.0, 0.0, 0.0)) if view is None else view
    planes = [render(sky, view, colour, trails=trails) for colour in COLOURS]
    return xr.DataArray(
        np.stack(planes),
        dims=("channel", "y", "x"),
        coords={"channel": list(COLOURS)},
        attrs={"units": "electron / s", "long_name": "photo-electron rate (simulated)"},
    )


def star_table(sky: Sky, view: View | None = None, *, border: float = 0.0) -> np.ndarray:
    """Return the stars inside the frame as an array of records: x, y [px], flux (R, G, B) [e-/s], brightest first."""
    view = View() if view is None else view
    x, y = to_pixels(sky, view, sky.x, sky.y)
    height, width = sky.shape
    inside = (x >= border) & (x <= width - 1 - border) & (y >= border) & (y <= height - 1 - border)
    table = np.empty(int(inside.sum()), dtype=[("x", float), ("y", float), ("flux", float, 3)])
    table["x"], table["y"], table["flux"] = x[inside], y[inside], sky.flux[inside] * view.transparency
    return table


def cosmic_rays(sky: Sky, view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pixels that the view's cosmic rays hit, rows and columns, and the electrons they free there.

    Straight muon tracks, 1 to some 30 pixels long, about 80 e- a micrometre of path in silicon (Groom 2004) with
    the straggling of thin layers; they come after the atmosphere and the optics: add them to the electrons.
    """
    rng = np.random.default_rng((view.seed, 3))
    height, width = sky.shape
    charge: dict[tuple[int, int], float] = {}
    for _ in range(view.cosmic_rays):
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        length, angle = min(1 + rng.exponential(4.0), 30.0), rng.uniform(0, 2 * np.pi)
        density = 300.0 * math.exp(rng.normal(0.5, 0.6))  # [e-/pixel of path]
        for along in np.arange(0.0, length, 0.25):
            pixel = (math.floor(y + along * math.sin(angle)), math.floor(x + along * math.cos(angle)))
            if 0 <= pixel[0] < height and 0 <= pixel[1] < width:
                charge[pixel] = charge.get(pixel, 0.0) + 0.25 * density * rng.gamma(4.0, 0.25)
    pixels = np.array(sorted(charge), np.int64).reshape(-1, 2)
    return pixels[:, 0], pixels[:, 1], np.array([round(charge[y, x]) for y, x in pixels.tolist()], float)


def trail_mask(sky: Sky, view: View, *, reach: float = 1.5) -> np.ndarray:
    """Return where satellites crossed: True within `reach` FWHM of a trail's centre line, boolean (y, x)."""
    empty, edge = replace_stars(sky), math.exp(-4 * math.log(2) * reach**2)
    mask = np.zeros(sky.shape, bool)
    for trail in view.trails:
        alone = replace(view, background=(0.0, 0.0, 0.0), trails=(replace(trail, electrons=(1.0, 1.0, 1.0)),))
        mask |= render(empty, alone, "G") * view.exposure > edge
    return mask


def replace_stars(sky: Sky, x: ArrayLike = (), y: ArrayLike = (), flux: ArrayLike = (), *, nebula: float = 0.0) -> Sky:
    """Return the sky with other stars ((star, colour) fluxes [e-/s]) and its nebula times a factor."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    flux = np.broadcast_to(np.asarray(flux, float).reshape(len(x), -1) if len(x) else np.empty((0, 3)), (len(x), 3))
    return replace(sky, x=x, y=y, flux=flux, nebula=sky.nebula * nebula)


def dust(shape: tuple[int, int], *, motes: int = 12, depth: float = 0.1, seed: int = 0) -> np.ndarray:
    """Return what dust lets through, float32 (y, x): shadows like rings, sharp when near the sensor.

    It stays on the sensor: the same in flats and lights, whatever the telescope points at.
    """
    rng = np.random.default_rng((seed, 4))
    height, width = shape
    through = np.ones(shape, np.float32)
    largest = 0.03 * max(shape)
    for _ in range(motes):
        y, x, radius = rng.uniform(0, height), rng.uniform(0, width), largest * rng.uniform(0.15, 1.0)
        soft, inner, dip = radius * rng.uniform(0.08, 0.2), rng.uniform(0.0, 0.5), depth * rng.uniform(0.2, 1.0)
        reach = radius + 4 * soft
        rows = np.arange(max(0, math.floor(y - reach)), min(height, math.ceil(y + reach)))
        columns = np.arange(max(0, math.floor(x - reach)), min(width, math.ceil(x + reach)))
        r = np.hypot(rows[:, None] - y, columns[None, :] - x)
        ring = 0.5 * (np.tanh((radius - r) / soft) - inner * np.tanh((0.5 * radius - r) / soft) + 1 - inner)
        through[rows[:, None], columns] *= 1 - dip * ring
    return through


def _colour_cell(cfa_pattern: str) -> np.ndarray:
    """The mosaic's cell of colour numbers: R 0, G 1, B 2."""
    if cfa_pattern in COLOURS:
        return np.array([[COLOURS.index(cfa_pattern)]])
    if cfa_pattern == "mono":
        return np.array([[1]])
    if not is_mosaic(cfa_pattern):
        raise WorkbenchError(
            f"cfa_pattern {cfa_pattern!r} is not known; choose {', '.join((*MOSAICS, 'X-Trans', 'mono', *COLOURS))}"
        )
    return colour_index(cfa_pattern)


def _lens(shape: tuple[int, int]) -> tuple[float, float, float]:
    """The optical centre (y, x) and the half diagonal squared."""
    cy, cx = ((size - 1) / 2 for size in shape)
    return cy, cx, cy**2 + cx**2


def _veil(view: View) -> np.ndarray:
    """The spline coefficients of the clouds' optical thickness, 0 to `clouds`, over the detector."""
    if not 0 <= view.clouds <= 1:
        raise WorkbenchError(f"clouds is a depth from 0 to 1; got {view.clouds}")
    if view.clouds == 0:
        return np.zeros((0, 0))
    field_ = np.random.default_rng((view.seed, 5)).normal(size=(11, 11))
    return view.clouds * (field_ - field_.min()) / np.ptp(field_)


def _nebula(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Control points (colour, row, column) of a red and a blue cloud, the brightest red 1."""
    y, x = np.mgrid[:rows, :columns]
    clouds = np.zeros((2, rows, columns))
    for cloud, count in zip(clouds, (40, 25), strict=True):
        for _ in range(count):
            cy, cx = rng.normal(0.5, 0.18) * rows, rng.normal(0.5, 0.18) * columns
            a, b = (max(rows, columns) * rng.uniform(0.03, 0.12, 2)).clip(2.0)  # [control points]: smooth
            turn = rng.uniform(0, np.pi)
            u = (x - cx) * math.cos(turn) + (y - cy) * math.sin(turn)
            v = (y - cy) * math.cos(turn) - (x - cx) * math.sin(turn)
            cloud += rng.uniform(0.2, 1.0) * np.exp(-0.5 * ((u / a) ** 2 + (v / b) ** 2))
        cloud /= cloud.max()
    red, blue = clouds
    mixed = np.stack([red + 0.1 * blue, 0.25 * red + 0.25 * blue, 0.1 * red + 0.5 * blue])
    return mixed / mixed[0].max()
