"""The sky's own light: gradients and light pollution estimated where nothing else shines, and taken away.

First `measure_sky` reduces the picture to cells free of stars.  Then one of three surfaces is laid through those
cells that show sky and no nebula: a low-order polynomial, radial basis functions through samples, or a mesh
(photutils `Background2D`).  Each gives a model that can be looked at; `remove_background` subtracts it or divides
by it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import xarray as xr
from scipy import ndimage, special
from scipy.interpolate import RBFInterpolator

from ..errors import WorkbenchError
from ..stars import block_background
from .photometry import find_picture_stars
from .picture import check_picture, in_bands, note, plane

METHODS = ("polynomial", "rbf", "mesh")
_CELLS = 48  # cells along the shorter side, where the picture has pixels enough
_GROW = 4  # [cells] by which the nebula is widened
_WINDOW, _EXCESS = 5, 3.0  # cells together, and how many standard errors above the sky make them nebula
_CURVED_SKY = 0.25  # share of cells that must show sky before a curved surface is trusted
_LITTLE_SKY = 0.15  # share below which any surface is doubtful
_STEP = 16  # [px] between the nodes of a model


def measure_sky(picture: xr.Dataset, stars: xr.Dataset | None = None, *, cell: int | None = None) -> xr.Dataset:
    """Measure the light between the stars in cells: clipped mean per cell and channel, with its error.

    Stars are masked out to where their wings sink below the noise of a cell, then each cell is clipped at three
    standard deviations.  The error is that of the variance (where there is none: of the scatter within the cell),
    scaled up by the scatter between neighbouring cells where that is larger.

    Parameters
    ----------
    stars
        From `find_picture_stars`; found when not given.
    cell
        Side of a cell [px]; by default 1/48 of the shorter side, 8 to 64 pixels.

    Returns
    -------
    Dataset over (channel, y, x) of the cells, y and x their centres [px]: ``level``, ``error``.
    """
    check_picture(picture)
    signal = picture["signal"].values
    height, width = signal.shape[1:]
    cell = int(np.clip(min(height, width) // _CELLS, 8, 64)) if cell is None else int(cell)
    if not 4 <= cell <= min(height, width) // 4:
        raise WorkbenchError(
            f"cells of {cell} pixels do not suit a picture of {height} x {width}: 4 to {min(height, width) // 4} do"
        )
    stars = find_picture_stars(picture) if stars is None else stars
    masked = star_mask(stars, (height, width))

    def measure(channel: int) -> tuple[np.ndarray, np.ndarray]:
        free = np.where(masked, np.float32(np.nan), signal[channel])
        level, noise = block_background(free, cell)
        count = _cell_means(np.isfinite(free), level.shape) * cell**2
        enough = count > max(5, 0.05 * cell**2)
        level = np.where(enough, level, np.nan).astype(float)
        if "variance" in picture:
            noise = np.sqrt(_cell_means(picture["variance"].values[channel], level.shape))
        error = np.where(enough, noise / np.sqrt(np.maximum(count, 1)), np.nan).astype(float)
        # data without noise have an error all the same: the last bits of float32
        error = np.maximum(error, 1e-6 * np.nanmax(np.abs(level)) if enough.any() else 0)
        return level, error * _excess(level, error)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        levels, errors = zip(*pool.map(measure, range(len(signal))), strict=True)
    rows, columns = levels[0].shape
    dims = ("channel", "y", "x")
    units = picture.attrs.get("units", "")
    return xr.Dataset(
        {
            "level": (dims, np.array(levels), {"units": units, "long_name": "sky level between the stars"}),
            "error": (dims, np.array(errors), {"units": units, "long_name": "standard error"}),
        },
        coords={
            "channel": picture["channel"].values,
            "y": ("y", (np.arange(rows) + 0.5) * height / rows - 0.5, {"units": "px"}),
            "x": ("x", (np.arange(columns) + 0.5) * width / columns - 0.5, {"units": "px"}),
        },
        attrs={"units": units, "cell": cell, "height": height, "width": width, "masked": float(masked.mean())},
    )


def star_mask(stars: xr.Dataset, shape: tuple[int, int], *, depth: float = 0.05, least: float = 2.0) -> np.ndarray:
    """Return where stars shine, boolean (y, x): discs that grow with the star's brightness.

    Radius: where a Moffat profile of β = 3 falls below `depth` of a pixel's noise, not less than `least` FWHM.
    """
    out = np.zeros(shape, bool)
    if not stars.sizes["star"]:
        return out
    fwhm = np.nan_to_num(stars["fwhm"].values, nan=stars.attrs["searched_fwhm"])
    fwhm = np.minimum(fwhm, 4 * stars.attrs["searched_fwhm"])
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / 3) - 1))
    ratio = np.maximum(stars["peak"].values, 0) / (depth * max(stars.attrs["noise"], 1e-30))
    radius = np.maximum(least * fwhm, alpha * np.sqrt(np.maximum(ratio, 1) ** (1 / 3) - 1))
    shining = radius > 0
    _discs(
        out,
        *(values[shining] for values in (stars["x"].values, stars["y"].values, np.minimum(radius, 0.1 * min(shape)))),
    )
    return out


@numba.njit(nogil=True, cache=True)
def _discs(out, xs, ys, radii):
    for star in range(xs.size):
        radius = radii[star]
        for j in range(max(0, int(ys[star] - radius)), min(out.shape[0], int(ys[star] + radius) + 2)):
            for i in range(max(0, int(xs[star] - radius)), min(out.shape[1], int(xs[star] + radius) + 2)):
                if (j - ys[star]) ** 2 + (i - xs[star]) ** 2 <= radius * radius:
                    out[j, i] = True


def _cell_means(values: np.ndarray, cells: tuple[int, int]) -> np.ndarray:
    """Mean of each cell, laid out as `block_background` lays them."""
    rows, columns = (np.arange(n) * size // n for n, size in zip(cells, values.shape, strict=True))
    summed = np.add.reduceat(np.add.reduceat(values, columns, axis=1, dtype=np.float32), rows, axis=0)
    sizes = np.diff(np.append(rows, values.shape[0]))[:, None] * np.diff(np.append(columns, values.shape[1]))
    return summed / sizes


def _excess(level: np.ndarray, error: np.ndarray) -> float:
    """How much larger the scatter between neighbours is than the error says; second differences hide gradients."""
    ratios = []
    for axis in (0, 1):
        if level.shape[axis] >= 3:
            second = np.diff(level, 2, axis=axis)
            middle = np.take(error, range(1, level.shape[axis] - 1), axis=axis)
            ratios.append((second / (np.sqrt(6.0) * middle)).ravel())
    ratio = np.abs(np.concatenate(ratios)) if ratios else np.array([])
    ratio = ratio[np.isfinite(ratio)]
    return max(1.0, 1.4826 * float(np.median(ratio))) if ratio.size > 10 else 1.0


def find_sky(sky: xr.Dataset, *, degree: int | str = "auto") -> xr.Dataset:
    """Tell sky from nebula: fit a polynomial to the cells that nothing shines in.

    A cell's level is modelled as polynomial + noise, and in some cells an exponentially distributed excess on top
    (nebula, unresolved stars): a mixture, whose likelihood is climbed by expectation and maximisation (Dempster,
    Laird and Rubin 1977) from a fit to the lower envelope (quantile regression, Koenker and Bassett 1978).  Cells
    more likely nebula than sky, in any channel, grow by four cells to take in their faint wings, and the
    polynomial is fitted once more to the rest.

    Parameters
    ----------
    degree
        1 to 4, or ``auto``: the least that finds three quarters as much sky as the best one does; the plane where
        less than a quarter is sky, because a curved surface would follow the nebula.

    Returns
    -------
    Dataset: ``is_sky`` (y, x); ``coefficients`` (channel, term) of x^i y^j in coordinates from -1 to 1; attributes
    ``degree``, ``sky_share``, ``warnings``.

    Raises
    ------
    WorkbenchError
        If there are too few cells to fit.
    """
    if degree != "auto" and degree not in (1, 2, 3, 4):
        raise WorkbenchError(f"the degree of a background polynomial is 1, 2, 3, 4 or 'auto'; got {degree!r}")
    whole = np.isfinite(sky["level"].values).all(axis=0)
    if whole.sum() < 30:
        raise WorkbenchError(
            f"only {int(whole.sum())} cells between the stars can be measured: too few for a background;"
            " use smaller cells, or finish without background removal"
        )
    tried = {number: _mixture(sky, whole, number) for number in ((1, 2, 3) if degree == "auto" else (degree,))}
    shares = {number: float(is_sky.sum() / whole.sum()) for number, is_sky in tried.items()}
    best = max(shares.values())
    cautions = []
    chosen = min(tried)
    if len(tried) > 1 and best >= _CURVED_SKY:
        chosen = min(number for number, share in shares.items() if share >= 0.75 * best)
    if shares[chosen] < _LITTLE_SKY:
        cautions.append(
            f"only {shares[chosen]:.0%} of the picture looks like empty sky: the background model is a lower envelope"
            " and may hold part of a nebula that fills the frame; place samples by hand if you know better"
        )
    is_sky = tried[chosen]
    terms = _terms(sky, chosen)
    coefficients = [
        _least_squares(terms[is_sky], level[is_sky], error[is_sky])
        for level, error in zip(sky["level"].values, sky["error"].values, strict=True)
    ]
    return xr.Dataset(
        {
            "is_sky": (("y", "x"), is_sky, {"long_name": "cells of empty sky"}),
            "coefficients": (("channel", "term"), np.array(coefficients), {"units": sky.attrs["units"]}),
        },
        coords={"channel": sky["channel"], "y": sky["y"], "x": sky["x"]},
        attrs={"degree": chosen, "sky_share": shares[chosen], "warnings": cautions},
    )


def _terms(sky: xr.Dataset, degree: int, y: np.ndarray | None = None, x: np.ndarray | None = None) -> np.ndarray:
    """The polynomial's terms (..., term) at cell centres, or on the grid of given pixel positions."""
    y, x = sky["y"].values if y is None else y, sky["x"].values if x is None else x
    v = (2 * (y + 0.5) / sky.attrs["height"] - 1)[:, None]
    u = (2 * (x + 0.5) / sky.attrs["width"] - 1)[None, :]
    return np.stack([u ** (order - j) * v**j for order in range(degree + 1) for j in range(order + 1)], axis=-1)


def _least_squares(terms: np.ndarray, level: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Weighted least squares by the normal equations: few terms of order one, many hundred times a picture."""
    weighted = terms / (error * error)[:, None]
    try:
        return np.linalg.solve(weighted.T @ terms, weighted.T @ level)
    except np.linalg.LinAlgError:  # samples on one line: the least of all that fit
        return np.linalg.lstsq(terms / error[:, None], level / error, rcond=None)[0]


def _mixture(sky: xr.Dataset, whole: np.ndarray, degree: int) -> np.ndarray:
    """The cells that are sky for a polynomial of this degree, boolean (y, x)."""
    terms = _terms(sky, degree)[whole]
    nebula = np.zeros(whole.shape, bool)
    for level, error in zip(sky["level"].values, sky["error"].values, strict=True):
        doubt = np.zeros(whole.shape)
        doubt[whole] = 1 - _sky_probability(terms, level[whole], error[whole])
        # single doubtful cells are chance or a faint star: left out, but nebula is what hangs together
        together = ndimage.uniform_filter(doubt, 3, mode="nearest") > 0.5
        nebula |= together
    least = max(12, 3 * terms.shape[1])
    every = _terms(sky, degree)
    left = whole & ~nebula
    if left.sum() < least:  # nebula everywhere: the cells that the envelope touches
        doubts = np.zeros(whole.shape)
        for level, error in zip(sky["level"].values, sky["error"].values, strict=True):
            doubts[whole] += 1 - _sky_probability(terms, level[whole], error[whole])
        cut = np.sort(doubts[whole])[min(least, int(whole.sum()) - 1)]
        return whole & (doubts <= cut)
    for _ in range(20):
        wide = whole & (ndimage.distance_transform_edt(~nebula) > _GROW)
        left = wide if wide.sum() >= least else left & ~nebula
        if left.sum() < least:
            break
        found = np.zeros(whole.shape, bool)
        for level, error in zip(sky["level"].values, sky["error"].values, strict=True):
            excess = np.where(left, (level - every @ _least_squares(every[left], level[left], error[left])) / error, 0)
            # faint wings lie below the noise of one cell, not below that of five by five
            total = ndimage.uniform_filter(excess, _WINDOW, mode="constant") * _WINDOW**2
            count = ndimage.uniform_filter(left.astype(float), _WINDOW, mode="constant") * _WINDOW**2
            found |= left & (total > _EXCESS * np.sqrt(np.maximum(count, 1)))
            found |= left & (np.abs(excess) > 4)
        if not found.any():
            break
        nebula |= found & (ndimage.uniform_filter(found.astype(float), 3) > 0.3)
        whole = whole & ~found
    return left & ~nebula & whole


def _sky_probability(terms: np.ndarray, level: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Each cell's probability of being sky, from the mixture of `find_sky`."""
    typical = float(np.median(error))
    fit = _least_squares(terms, level, np.ones_like(level))
    for _ in range(60):  # the quarter quantile's surface, by reweighting
        residual = level - terms @ fit
        weight = np.where(residual > 0, 0.25, 0.75) / np.maximum(np.abs(residual), typical)
        fit = _least_squares(terms, level, 1 / np.sqrt(weight))
    residual = level - terms @ fit
    share, scale = 0.5, max(float(np.clip(residual, 0, None).mean()), 3 * typical)
    probability = np.ones(level.shape)
    for _ in range(300):
        residual = level - terms @ fit
        z = residual / error
        sky = np.log(share) - 0.5 * z**2 - np.log(error * np.sqrt(2 * np.pi))
        nebula = (
            np.log1p(-share)
            - np.log(scale)
            + 0.5 * (error / scale) ** 2
            - residual / scale
            + special.log_ndtr(z - error / scale)
        )
        probability = special.expit(sky - nebula)
        share = float(np.clip(probability.mean(), 0.02, 0.98))
        excess = (1 - probability) * np.clip(residual, 0, None)
        scale = max(float(excess.sum() / max((1 - probability).sum(), 1e-9)), 2 * typical)
        new = _least_squares(terms, level, error / np.sqrt(np.maximum(probability, 1e-12)))
        moved = np.max(np.abs(terms @ (new - fit)))
        fit = new
        if moved < 1e-3 * typical:
            break
    return probability


def background_model(
    picture: xr.Dataset,
    method: str = "polynomial",
    *,
    degree: int | str = "auto",
    samples: Sequence[Sequence[float]] | None = None,
    smoothing: float = 1.0,
    box: int = 8,
    sky: xr.Dataset | None = None,
) -> xr.Dataset:
    """Model the background of a linear picture.

    Parameters
    ----------
    method
        ``polynomial``: of low degree through all cells of empty sky.  ``rbf``: that, and thin-plate splines through
        what it leaves at samples.  ``mesh``: that, and photutils' `Background2D` on what it leaves, stars and nebula
        masked; it follows most, and so takes most.
    degree
        Of the polynomial; see `find_sky`.
    samples
        Hand-placed (x, y) [px of this picture]: the model rests on the cells there, with their neighbours, and on
        nothing else.  Without them: up to 200 cells of empty sky.
    smoothing
        Of ``rbf``: 0 goes through every sample, 1 trusts samples to about their errors, more is stiffer.
    box
        Of ``mesh``: the side of a mesh in cells (see `measure_sky`).
    sky
        From `measure_sky`, when already measured.

    Returns
    -------
    Dataset: ``background`` (channel, y, x) on nodes 16 px apart (positions in y and x), in the picture's units;
    ``sky_level`` (channel, cell_y, cell_x) and ``is_sky`` (cell_y, cell_x), what it was fitted to; ``residual``
    (channel), the rms of sky cells about it; attributes ``method``, ``sky_share``, ``warnings``, and the settings.

    Raises
    ------
    WorkbenchError
        If the method is unknown or too little of the picture can be measured.
    """
    if method not in METHODS:
        raise WorkbenchError(f"background method {method!r} is none of {', '.join(METHODS)}")
    sky = measure_sky(picture) if sky is None else sky
    if samples is None:
        found = find_sky(sky, degree=degree)
        is_sky, cautions, share = found["is_sky"].values, found.attrs["warnings"], found.attrs["sky_share"]
        degree = found.attrs["degree"]
    else:
        is_sky = _cells_at(sky, samples)
        cautions, share = [], float(is_sky.mean())
        most = max(number for number in range(5) if (number + 1) * (number + 2) // 2 <= is_sky.sum())
        degree = min(most, 2 if degree == "auto" else int(degree))
    height, width = sky.attrs["height"], sky.attrs["width"]
    y, x = (np.arange(0, size + _STEP, _STEP, dtype=float) for size in (height, width))
    levels, errors = sky["level"].values, sky["error"].values
    surfaces, residuals = [], []
    for channel in range(levels.shape[0]):
        level, error = levels[channel], errors[channel]
        fit = _least_squares(_terms(sky, degree)[is_sky], level[is_sky], error[is_sky])
        surface = _terms(sky, degree, y, x) @ fit
        # the other two follow what the polynomial leaves, so that they fall back to it where no sky is seen
        rest = level - _terms(sky, degree) @ fit
        if method == "rbf":
            surface += _splines(sky, is_sky, rest, error, smoothing, y, x, thin=samples is None)
        elif method == "mesh":
            surface += _mesh(sky, is_sky, rest, box, y, x)
        at_cells = _interpolate(surface, y, x, sky["y"].values, sky["x"].values)
        residuals.append(float(np.sqrt(np.mean((level - at_cells)[is_sky] ** 2))))
        surfaces.append(surface)
    units = sky.attrs["units"]
    settings = {"degree": degree, **{"rbf": {"smoothing": smoothing}, "mesh": {"box": box}}.get(method, {})}
    return xr.Dataset(
        {
            "background": (
                ("channel", "y", "x"),
                np.array(surfaces, np.float64),
                {"units": units, "long_name": "background model"},
            ),
            "sky_level": (("channel", "cell_y", "cell_x"), levels, {"units": units}),
            "is_sky": (("cell_y", "cell_x"), is_sky),
            "residual": ("channel", np.array(residuals), {"units": units, "long_name": "rms of sky about the model"}),
        },
        coords={
            "channel": sky["channel"].values,
            "y": ("y", y, {"units": "px"}),
            "x": ("x", x, {"units": "px"}),
            "cell_y": ("cell_y", sky["y"].values, {"units": "px"}),
            "cell_x": ("cell_x", sky["x"].values, {"units": "px"}),
        },
        attrs={
            "method": method,
            "sky_share": share,
            "warnings": cautions,
            "height": height,
            "width": width,
            "units": units,
            **settings,
        },
    )


def _cells_at(sky: xr.Dataset, samples: Sequence[Sequence[float]]) -> np.ndarray:
    """The cells that hand-placed samples lie in, and those around them, boolean (y, x)."""
    points = np.asarray(samples, float)
    height, width = sky.attrs["height"], sky.attrs["width"]
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
        raise WorkbenchError("background samples are at least three (x, y) positions in pixels")
    x, y = points.T
    outside = ~((x >= 0) & (x < width) & (y >= 0) & (y < height))
    if outside.any():
        raise WorkbenchError(
            f"background sample ({x[outside][0]:g}, {y[outside][0]:g}) lies outside the picture of {width} x {height}"
        )
    is_sky = np.zeros((sky.sizes["y"], sky.sizes["x"]), bool)
    is_sky[(y * sky.sizes["y"] / height).astype(int), (x * sky.sizes["x"] / width).astype(int)] = True
    is_sky = ndimage.binary_dilation(is_sky, np.ones((3, 3))) & np.isfinite(sky["level"].values).all(axis=0)
    if is_sky.sum() < 3:
        raise WorkbenchError("fewer than three background samples lie on measurable sky: move them off the stars")
    return is_sky


def _splines(sky, is_sky, level, error, smoothing, y, x, *, thin):
    """Thin-plate splines through samples: up to 200 sky cells, spread evenly, each the mean of its surroundings."""
    rows, columns = np.nonzero(is_sky)
    step = 1
    while thin and len(np.unique((rows // step) * 10_000 + columns // step)) > 200:
        step += 1
    groups, index = np.unique((rows // step) * 10_000 + columns // step, return_inverse=True)
    weight = 1 / error[is_sky] ** 2
    total = np.bincount(index, weight, groups.size)
    mean = [
        np.bincount(index, weight * values, groups.size) / total
        for values in (sky["y"].values[rows], sky["x"].values[columns], level[is_sky])
    ]
    scale = max(sky.attrs["height"], sky.attrs["width"])
    spread = float(np.std(mean[2])) or 1.0
    # the penalty per sample that is worth its error: λ = σ² in units in which positions span about one
    penalty = smoothing * np.maximum(1 / total, 1e-12 * spread**2) / spread**2
    spline = RBFInterpolator(
        np.stack(mean[:2], axis=1) / scale, mean[2] / spread, kernel="thin_plate_spline", smoothing=penalty, degree=1
    )
    coarse = [np.linspace(grid[0], grid[-1], min(grid.size, 64)) for grid in (y, x)]
    nodes = np.stack(np.meshgrid(*coarse, indexing="ij"), axis=-1).reshape(-1, 2) / scale
    surface = spread * spline(nodes).reshape(coarse[0].size, coarse[1].size)
    return _interpolate(surface, *coarse, y, x)


def _mesh(sky, is_sky, level, box, y, x):
    """photutils' Background2D on the cells, where stars are gone already and the nebula is masked."""
    from photutils.background import Background2D, MedianBackground  # slow to import, and seldom asked for

    if not 2 <= box <= min(level.shape):
        raise WorkbenchError(f"a mesh of {box} cells does not suit {level.shape[0]} x {level.shape[1]}: 2 or more do")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NaN cells are masked: it says so
        found = Background2D(
            np.nan_to_num(level),
            box,
            mask=~is_sky,
            exclude_percentile=80.0,
            filter_size=3,
            bkg_estimator=MedianBackground(),
        )
    return _interpolate(found.background, sky["y"].values, sky["x"].values, y, x)


def _interpolate(values: np.ndarray, y: np.ndarray, x: np.ndarray, new_y: np.ndarray, new_x: np.ndarray) -> np.ndarray:
    """Cubic splines from one regular grid to another, continued linearly beyond its edge."""
    pad = 3
    wide = (
        np.pad(values, pad, mode="reflect", reflect_type="odd")
        if min(values.shape) > pad
        else np.pad(values, pad, mode="edge")
    )
    rows = (new_y - y[0]) / (y[1] - y[0]) + pad
    columns = (new_x - x[0]) / (x[1] - x[0]) + pad
    return ndimage.map_coordinates(wide, np.meshgrid(rows, columns, indexing="ij"), order=3, mode="nearest")


def evaluate_background(model: xr.Dataset, y: np.ndarray | None = None, x: np.ndarray | None = None) -> xr.DataArray:
    """Return the model at every pixel, (channel, y, x) float32, or at given points, (channel, point)."""
    surfaces = model["background"].values
    if y is None:
        height, width = model.attrs["height"], model.attrs["width"]
        out = np.empty((len(surfaces), height, width), np.float32)
        for channel, surface in enumerate(surfaces):
            _apply_model(np.zeros((height, width), np.float32), surface, out[channel], "model")
        return xr.DataArray(out, dims=("channel", "y", "x"), coords={"channel": model["channel"].values})
    rows, columns = np.asarray(y, float) / _STEP, np.asarray(x, float) / _STEP
    values = [ndimage.map_coordinates(surface, (rows, columns), order=1, mode="nearest") for surface in surfaces]
    return xr.DataArray(values, dims=("channel", "point"), coords={"channel": model["channel"].values})


def model_means(model: xr.Dataset) -> np.ndarray:
    """Return the mean of a background model over the picture, one a channel."""
    y, x = (np.arange(0, model.attrs[size], 4, dtype=float) for size in ("height", "width"))
    grid = [points.ravel() for points in np.meshgrid(y, x, indexing="ij")]
    return evaluate_background(model, *grid).values.mean(axis=1)


def remove_background(picture: xr.Dataset, model: xr.Dataset, *, mode: str = "subtract") -> xr.Dataset:
    """Take a background model away: subtract it, or divide by it.

    ``subtract`` (light added by the sky): signal - model; the variance stays, as the sky's shot noise does.
    ``divide`` (light lost in the optics): signal · m̄/model, m̄ the model's mean; the variance is scaled by the
    factor's square.

    Raises
    ------
    WorkbenchError
        If the model is not of this picture's size, or is to be divided by and is not positive.
    """
    check_picture(picture)
    if mode not in ("subtract", "divide"):
        raise WorkbenchError(f"a background is removed by 'subtract' or 'divide', not {mode!r}")
    size = (picture.sizes["y"], picture.sizes["x"])
    if size != (model.attrs["height"], model.attrs["width"]):
        raise WorkbenchError(
            f"this background model is for {model.attrs['height']} x {model.attrs['width']} pixels,"
            f" the picture has {size[0]} x {size[1]}: model the picture after cropping it"
        )
    surfaces = model["background"].values
    changed: dict[str, Any] = {}
    if mode == "divide":
        lowest = surfaces.min(axis=(1, 2))
        if np.any(lowest <= 0):
            worst = model["channel"].values[int(np.argmin(lowest))]
            raise WorkbenchError(
                f"the background model falls to {lowest.min():.4g} in channel {worst}: it cannot be divided by;"
                " subtract it, or divide before anything is subtracted"
            )
        surfaces = surfaces / model_means(model)[:, None, None]
        names = [name for name in ("signal", "variance") if name in picture]
    else:
        names = ["signal"]
    for name in names:
        values = picture[name].values
        out = np.empty_like(values)
        for channel, surface in enumerate(surfaces):
            _apply_model(values[channel], surface, out[channel], mode if name == "signal" else "divide twice")
        changed[name] = plane(out, picture[name].attrs.get("long_name", name))
    span = [f"{values.min():.4g} to {values.max():.4g}" for values in model["background"].values]
    verb = "subtracted" if mode == "subtract" else "divided out"
    return note(
        picture.assign(changed),
        f"Background: {model.attrs['method']} model {verb}, {'; '.join(span)} {model.attrs['units']}"
        f" ({', '.join(map(str, model['channel'].values))}); {model.attrs['sky_share']:.0%} of the cells were sky.",
    )


_MODES = {"model": 0, "subtract": 1, "divide": 2, "divide twice": 3}


def _apply_model(values: np.ndarray, surface: np.ndarray, out: np.ndarray, mode: str) -> None:
    """Combine a plane with a model on nodes `_STEP` px apart, linear between them, in bands of rows."""
    nodes = np.ascontiguousarray(surface, np.float32)
    in_bands(lambda rows: _combine(values[rows], rows.start, nodes, _MODES[mode], out[rows]), values.shape[0])


@numba.njit(nogil=True, cache=True, fastmath={"contract", "nsz"})
def _combine(values, first, nodes, mode, out):
    height, width = values.shape
    line = np.empty(nodes.shape[1], np.float32)
    for row in range(height):
        top = (row + first) // _STEP
        down = np.float32((row + first) % _STEP) / np.float32(_STEP)
        line[:] = nodes[top] + down * (nodes[top + 1] - nodes[top])
        for left in range(0, width, _STEP):
            begin = line[left // _STEP]
            slope = (line[left // _STEP + 1] - begin) / np.float32(_STEP)
            for column in range(left, min(left + _STEP, width)):
                level = begin + slope * np.float32(column - left)
                if mode == 0:
                    out[row, column] = level
                elif mode == 1:
                    out[row, column] = values[row, column] - level
                elif mode == 2:
                    out[row, column] = values[row, column] / level
                else:
                    out[row, column] = values[row, column] / (level * level)
