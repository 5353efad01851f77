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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import xarray as xr

from ..core.cube import MOSAICS
from ..core.errors import WorkbenchError
from ..core.mosaic import channel_index
from .paint import paint_field, paint_stars, paint_trail

COLOURS = ("R", "G", "B")
TAIL = 0.01  # [e-]: a star's stamp ends where it adds less than this to a pixel of the exposure
BAND = 256  # [rows] painted at a time


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
    background: tuple[float, float, float] = (1.0, 2.0, 1.5)
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
    slope: float = 0.6,
    nebula: float = 0.5,
    step: float = 32.0,
    margin: float = 0.15,
    seed: int = 0,
) -> Sky:
    """Make a sky of `stars` in the field (more around it, for dithers and rotation) and a two-coloured nebula.

    Without a number it is 190 stars a megapixel.
    Fluxes follow N(>F) ∝ F^-slope between `faintest` and `brightest` [e-/s in green]; colours scatter like those
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
    border = margin * max(height, width)
    count = round(stars * (height + 2 * border) * (width + 2 * border) / (height * width))
    x = rng.uniform(-border, width - 1 + border, count)
    y = rng.uniform(-border, height - 1 + border, count)
    low, high = faintest**-slope, brightest**-slope
    green = (low + rng.random(count) * (high - low)) ** (-1 / slope)
    index = rng.normal(0.0, 0.35, count)  # a colour index: red stars positive
    flux = green[:, None] * np.stack([0.55 * np.exp(index), np.ones(count), 0.75 * np.exp(-index)], axis=1)
    order = np.argsort(-green, kind="stable")
    origin = (-border - 2 * step, -border - 2 * step)
    rows, columns = (math.ceil((size + 2 * border) / step) + 6 for size in shape)
    return Sky(
        shape=(height, width),
        x=x[order],
        y=y[order],
        flux=flux[order],
        nebula=nebula * _nebula(rng, rows, columns),
        step=float(step),
        origin=origin,
    )


def make_night(
    sky: Sky,
    frames: int,
    *,
    exposure: float = 60.0,
    fwhm: float = 3.0,
    seeing_scatter: float = 0.08,
    beta: float = 3.5,
    dither: float = 12.0,
    rotation: float = 0.3,
    flip_after: int | None = None,
    transparency_scatter: float = 0.05,
    background: Sequence[float] = (1.0, 2.0, 1.5),
    gradient: float = 0.15,
    curvature: float = 0.0,
    distortion: float = 0.0,
    trails: int = 0,
    trail_electrons: float = 400.0,
    cosmic_rays: int = 0,
    seed: int = 0,
) -> list[View]:
    """Make the views of one night: dithered, slowly rotating, through an air that changes.

    The first view is the reference: it points straight (identity) and has no rotation.  The others scatter by
    `dither` [px rms] and turn by up to `rotation` [°] either way; from frame `flip_after` on the mount has
    flipped over the meridian (180° more).  Seeing and transparency scatter by their fractions, the background
    and its gradient drift through the night.  `trails` and `cosmic_rays` are counts a frame; trails fall on
    every frame at another place.

    Examples
    --------
    >>> views = make_night(make_sky((64, 96), stars=5), 3, flip_after=2, seed=4)
    >>> len(views), np.array_equal(views[0].matrix, np.eye(3)), float(np.sign(views[2].matrix[0, 0]))
    (3, True, -1.0)
    """
    views = []
    for number in range(frames):
        rng = np.random.default_rng((seed, 2, number))
        shift, turn = rng.normal(0.0, dither, 2), rng.uniform(-rotation, rotation)
        if number == 0:
            shift, turn = np.zeros(2), 0.0
        flipped = flip_after is not None and number >= flip_after
        phase = number / max(frames - 1, 1)
        direction = 2 * np.pi * (0.1 + 0.25 * phase)
        plane = gradient * (1 + 0.5 * phase) * np.array([np.sin(direction), np.cos(direction)])
        this_fwhm = fwhm * float(np.exp(rng.normal(0.0, seeing_scatter)))
        views.append(
            View(
                exposure=exposure,
                matrix=pointing(sky.shape, shift=shift, degrees=turn + 180.0 * flipped),
                distortion=distortion,
                fwhm=this_fwhm,
                beta=beta,
                transparency=float(np.exp(-abs(rng.normal(0.0, transparency_scatter)))),
                background=tuple(float(level) * (1 + 0.2 * phase) for level in background),
                gradient=np.outer([1.0, 0.9, 0.7], plane),
                curvature=(curvature,) * 3,
                trails=tuple(_random_trail(rng, sky.shape, this_fwhm, trail_electrons) for _ in range(trails)),
                cosmic_rays=cosmic_rays,
                seed=int(rng.integers(2**31)),
            )
        )
    return views


def pointing(
    shape: tuple[int, int], *, shift: Sequence[float] = (0.0, 0.0), degrees: float = 0.0, scale: float = 1.0
) -> np.ndarray:
    """Return the matrix that turns by `degrees` and scales about the frame's centre, then shifts by (x, y) [px].

    Examples
    --------
    >>> (pointing((5, 9), shift=(1, 0), degrees=180) @ [0, 0, 1]).round(9).tolist()
    [9.0, 4.0, 1.0]
    """
    cy, cx = ((size - 1) / 2 for size in shape)
    c, s = math.cos(math.radians(degrees)) * scale, math.sin(math.radians(degrees)) * scale
    return np.array(
        [[c, -s, cx - c * cx + s * cy + shift[0]], [s, c, cy - s * cx - c * cy + shift[1]], [0.0, 0.0, 1.0]]
    )


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


def render(sky: Sky, view: View, cfa_pattern: str = "RGGB", *, trails: bool = True, threads: int = 2) -> np.ndarray:
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
    profile = _psf_terms(view)
    radius = _stamp_radius(view, profile, flux.max(axis=1, initial=0.0) * view.exposure)
    veil = _veil(view)
    inverse = np.linalg.inv(view.matrix)
    lens = np.array([*_lens(sky.shape), view.distortion])
    grid = np.array([*sky.origin, sky.step])
    light = np.concatenate([np.ravel(view.background), np.ravel(view.gradient), np.ravel(view.curvature)]).astype(float)
    lines = [_line_terms(trail, view.exposure) for trail in view.trails if trails]
    out = np.empty((height, width), np.float32)

    def band(top: int) -> None:
        rows = out[top : top + BAND]
        work = np.empty(rows.shape)
        paint_field(work, top, height, cell, inverse, lens, sky.nebula, grid, veil, view.transparency, light)
        near = np.flatnonzero((star_y > top - radius - 1) & (star_y < top + len(rows) + radius))
        paint_stars(work, top, height, cell, star_x[near], star_y[near], flux[near], radius[near], profile, veil)
        for line in lines:
            paint_trail(work, top, cell, line)
        rows[:] = work

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(band, range(0, height, BAND)))
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
            place = (math.floor(y + along * math.sin(angle)), math.floor(x + along * math.cos(angle)))
            if 0 <= place[0] < height and 0 <= place[1] < width:
                charge[place] = charge.get(place, 0.0) + 0.25 * density * rng.gamma(4.0, 0.25)
    places = np.array(sorted(charge), np.int64).reshape(-1, 2)
    return places[:, 0], places[:, 1], np.array([round(charge[tuple(place)]) for place in places.tolist()], float)


def trail_mask(sky: Sky, view: View, *, reach: float = 1.5) -> np.ndarray:
    """Return where satellites crossed: True within `reach` FWHM of a trail's centre line, boolean (y, x)."""
    dark = replace(view, background=(0.0, 0.0, 0.0))
    empty = replace_stars(sky)
    level = np.zeros(sky.shape, bool)
    for trail in view.trails:
        flat = replace(trail, electrons=(1.0, 1.0, 1.0))
        edge = math.exp(-4 * math.log(2) * reach**2)
        level |= render(empty, replace(dark, trails=(flat,)), "G") * view.exposure > edge
    return level


def replace_stars(sky: Sky, x=(), y=(), flux=(), *, nebula: float = 0.0) -> Sky:
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
    """The 2 x 2 (or 1 x 1) cell of colour numbers: R 0, G 1, B 2."""
    if cfa_pattern in COLOURS:
        return np.array([[COLOURS.index(cfa_pattern)]])
    if cfa_pattern == "mono":
        return np.array([[1]])
    if cfa_pattern not in MOSAICS:
        raise WorkbenchError(f"cfa_pattern {cfa_pattern!r} is none of {', '.join((*MOSAICS, 'mono', *COLOURS))}")
    return np.array([0, 1, 1, 2])[channel_index(cfa_pattern)]


def _lens(shape: tuple[int, int]) -> tuple[float, float, float]:
    """The optical centre (y, x) and the half diagonal squared."""
    cy, cx = ((size - 1) / 2 for size in shape)
    return cy, cx, cy**2 + cx**2


def _psf_terms(view: View) -> np.ndarray:
    """The elliptic PSF as (xx, xy, yy of the quadratic form q, peak, beta, core radius²); see `paint_stars`."""
    if view.fwhm <= 0 or view.elongation < 1 or view.beta <= 1:
        raise WorkbenchError(
            f"a PSF needs fwhm > 0, elongation ≥ 1 and beta > 1; got {view.fwhm}, {view.elongation}, {view.beta}"
        )
    if math.isinf(view.beta):  # exp(-q/2), q = r²/σ²
        short = view.fwhm / math.sqrt(8 * math.log(2))
        peak = 1 / (2 * math.pi * short**2 * view.elongation)
    else:  # (1 + q)^-β, q = r²/α² (Moffat 1969)
        short = view.fwhm / (2 * math.sqrt(2 ** (1 / view.beta) - 1))
        peak = (view.beta - 1) / (math.pi * short**2 * view.elongation)
    long = short * view.elongation
    c, s = math.cos(view.angle), math.sin(view.angle)
    xx, yy = (c / long) ** 2 + (s / short) ** 2, (s / long) ** 2 + (c / short) ** 2
    xy = 2 * c * s * (1 / long**2 - 1 / short**2)
    return np.array([xx, xy, yy, peak, view.beta, (2 * view.fwhm * view.elongation) ** 2])


def _stamp_radius(view: View, profile: np.ndarray, electrons: np.ndarray) -> np.ndarray:
    """The distance [px] beyond which a star adds less than `TAIL` electrons to a pixel."""
    peak, beta = profile[3], profile[4]
    excess = np.maximum(electrons * peak / TAIL, 1.0)
    q = 2 * np.log(excess) if math.isinf(beta) else excess ** (1 / beta) - 1
    scale = (
        view.fwhm
        * view.elongation
        / (math.sqrt(8 * math.log(2)) if math.isinf(beta) else 2 * math.sqrt(2 ** (1 / beta) - 1))
    )
    return np.sqrt(q) * scale + 1.0


def _veil(view: View) -> np.ndarray:
    """The spline coefficients of the clouds' optical thickness, 0 to `clouds`, over the detector."""
    if not 0 <= view.clouds <= 1:
        raise WorkbenchError(f"clouds is a depth from 0 to 1; got {view.clouds}")
    if view.clouds == 0:
        return np.zeros((0, 0))
    field_ = np.random.default_rng((view.seed, 5)).normal(size=(11, 11))
    low, high = field_.min(), field_.max()
    return view.clouds * (field_ - low) / (high - low)


def _line_terms(trail: Trail, exposure: float) -> np.ndarray:
    """The trail as (x0, y0, unit direction x, y, length, variance of its profile [px²], rates in R, G, B)."""
    dx, dy = trail.x1 - trail.x0, trail.y1 - trail.y0
    length = math.hypot(dx, dy)
    if length == 0:
        raise WorkbenchError("a trail needs two different ends")
    variance = trail.fwhm**2 / (8 * math.log(2)) + 1 / 12  # the pixel's own width
    rates = [electrons / exposure for electrons in trail.electrons]
    return np.array([trail.x0, trail.y0, dx / length, dy / length, length, variance, *rates])


def _random_trail(rng: np.random.Generator, shape: tuple[int, int], fwhm: float, electrons: float) -> Trail:
    height, width = shape
    x, y, angle = rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.8) * height, rng.uniform(0, np.pi)
    reach = math.hypot(height, width)
    dx, dy = reach * math.cos(angle), reach * math.sin(angle)
    level = electrons * float(np.exp(rng.normal(0.0, 0.5)))
    return Trail(x - dx, y - dy, x + dx, y + dy, fwhm, (0.5 * level, level, 0.7 * level))


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
