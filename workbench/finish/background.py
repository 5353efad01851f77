"""The sky's own light: gradients and light pollution estimated where nothing else shines, and taken away.

One of three surfaces is laid through those cells that show sky and no nebula (see `sky`): a low-order polynomial,
radial basis functions through samples, or a mesh (photutils `Background2D`).  Each gives a model that can be looked
at; `remove_background` subtracts it or divides by it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy import ndimage
from scipy.interpolate import RBFInterpolator

from ..core.errors import WorkbenchError
from ..core.kernels import kernel
from ..core.mosaic import tiles
from ..core.values import unit_text
from .picture import check_picture, in_bands, note, plane
from .sky import find_sky, least_squares, measure_sky, polynomial_terms

METHODS = ("polynomial", "rbf", "mesh")
_STEP = 16  # [px] between the nodes of a model
_MASKED = 80.0  # [%] of a mesh that may be stars and nebula


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
        raise WorkbenchError(f"background method {method!r} is not known; choose {', '.join(METHODS)}")
    sky = measure_sky(picture) if sky is None else sky
    found = find_sky(sky, degree=degree) if samples is None else _sky_at(sky, samples, degree)
    is_sky, cautions, order = found["is_sky"].values, found.attrs["warnings"], found.attrs["degree"]
    nodes = tuple(np.arange(0, sky.attrs[side] + _STEP, _STEP, dtype=float) for side in ("height", "width"))
    surfaces: list[np.ndarray] = []
    residuals: list[float] = []
    for level, error in zip(sky["level"].values, sky["error"].values, strict=True):
        fit = least_squares(polynomial_terms(sky, order)[is_sky], level[is_sky], error[is_sky])
        surface = polynomial_terms(sky, order, *nodes) @ fit
        # the other two follow what the polynomial leaves, so that they fall back to it where no sky is seen
        rest = level - polynomial_terms(sky, order) @ fit
        if method == "rbf":
            surface += _splines(sky, rest, error, is_sky, smoothing, nodes, thin=samples is None)
        elif method == "mesh":
            added = _mesh(sky, rest, is_sky, box, nodes)
            if added is not None:
                surface += added
            elif not surfaces:
                cautions = [*cautions, f"no mesh of {box} x {box} cells holds enough empty sky: the polynomial is all"]
        at_cells = _interpolate(surface, nodes, (sky["y"].values, sky["x"].values))
        residuals.append(float(np.sqrt(np.mean((level - at_cells)[is_sky] ** 2))))
        surfaces.append(surface)
    units = sky.attrs["units"]
    positions = {"y": nodes[0], "x": nodes[1], "cell_y": sky["y"].values, "cell_x": sky["x"].values}
    own: dict[str, dict[str, float]] = {"rbf": {"smoothing": smoothing}, "mesh": {"box": box}}
    return xr.Dataset(
        {
            "background": plane(np.array(surfaces), "background model", units=units),
            "sky_level": (("channel", "cell_y", "cell_x"), sky["level"].values, {"units": units}),
            "is_sky": (("cell_y", "cell_x"), is_sky),
            "residual": ("channel", np.array(residuals), {"units": units, "long_name": "rms of sky about the model"}),
        },
        coords={"channel": sky["channel"].values}
        | {name: (name, values, {"units": "pix"}) for name, values in positions.items()},
        attrs={key: sky.attrs[key] for key in ("height", "width", "units")}
        | {"method": method, "sky_share": found.attrs["sky_share"], "warnings": cautions, "degree": order}
        | own.get(method, {}),
    )


def _sky_at(sky: xr.Dataset, samples: Sequence[Sequence[float]], degree: int | str) -> xr.Dataset:
    """As `find_sky`: the cells that hand-placed samples lie in, and those around them."""
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
    most = max(number for number in range(5) if (number + 1) * (number + 2) // 2 <= is_sky.sum())
    degree = min(most, 2 if degree == "auto" else int(degree))
    attrs = {"degree": degree, "sky_share": float(is_sky.mean()), "warnings": []}
    return xr.Dataset({"is_sky": (("y", "x"), is_sky)}, attrs=attrs)


def _splines(
    sky: xr.Dataset,
    level: np.ndarray,
    error: np.ndarray,
    is_sky: np.ndarray,
    smoothing: float,
    nodes: Any,
    *,
    thin: bool,
) -> np.ndarray:
    """Thin-plate splines through samples: up to 200 sky cells, spread evenly, each the mean of its surroundings."""
    rows, columns = np.nonzero(is_sky)
    step = 1
    while thin and len(np.unique((rows // step) * 10_000 + columns // step)) > 200:
        step += 1
    index = np.unique((rows // step) * 10_000 + columns // step, return_inverse=True)[1]
    weight = 1 / error[is_sky] ** 2
    total = np.bincount(index, weight)
    mean = [
        np.bincount(index, weight * values) / total
        for values in (sky["y"].values[rows], sky["x"].values[columns], level[is_sky])
    ]
    scale = max(sky.attrs["height"], sky.attrs["width"])
    spread = float(np.std(mean[2])) or 1.0
    # the penalty per sample that is worth its error: λ = σ² in units in which positions span about one
    penalty = smoothing * np.maximum(1 / total, 1e-12 * spread**2) / spread**2
    spline = RBFInterpolator(
        np.stack(mean[:2], axis=1) / scale, mean[2] / spread, kernel="thin_plate_spline", smoothing=penalty, degree=1
    )
    coarse = [np.linspace(grid[0], grid[-1], min(grid.size, 64)) for grid in nodes]
    positions = np.stack(np.meshgrid(*coarse, indexing="ij"), axis=-1).reshape(-1, 2) / scale
    surface = spread * spline(positions).reshape(coarse[0].size, coarse[1].size)
    return _interpolate(surface, coarse, nodes)


def _mesh(sky: xr.Dataset, level: np.ndarray, is_sky: np.ndarray, box: int, nodes: Any) -> np.ndarray | None:
    """photutils' Background2D on the cells, where stars are gone already and the nebula is masked; None without sky."""
    from photutils.background import Background2D, MedianBackground  # slow to import, and seldom asked for

    if not 2 <= box <= min(level.shape):
        raise WorkbenchError(f"a mesh of {box} cells does not suit {level.shape[0]} x {level.shape[1]}: 2 or more do")
    meshes = tiles(np.pad(is_sky, [(0, -size % box) for size in is_sky.shape]), box)
    if meshes.sum(axis=(2, 3)).max() <= (1 - _MASKED / 100) * box * box:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NaN cells are masked, which it reports
        found = Background2D(
            np.nan_to_num(level),
            box,
            mask=~is_sky,
            exclude_percentile=_MASKED,
            filter_size=3,
            bkg_estimator=MedianBackground(),
        )
    return _interpolate(found.background, (sky["y"].values, sky["x"].values), nodes)


def _interpolate(values: np.ndarray, grid: Sequence[np.ndarray], new: Sequence[np.ndarray]) -> np.ndarray:
    """Cubic splines from one regular grid (y, x) [px] to another, continued linearly beyond its edge."""
    pad = 3
    odd: dict[str, Any] = {"mode": "reflect", "reflect_type": "odd"} if min(values.shape) > pad else {"mode": "edge"}
    places = [(to - at[0]) / (at[1] - at[0]) + pad for at, to in zip(grid, new, strict=True)]
    return ndimage.map_coordinates(
        np.pad(values, pad, **odd), np.meshgrid(*places, indexing="ij"), order=3, mode="nearest"
    )


def evaluate_background(model: xr.Dataset, y: np.ndarray | None = None, x: np.ndarray | None = None) -> xr.DataArray:
    """Return the model at every pixel, (channel, y, x) float32, or at given points, (channel, point)."""
    surfaces, channels = model["background"].values, {"channel": model["channel"].values}
    if y is None or x is None:
        levels = np.empty((len(surfaces), model.attrs["height"], model.attrs["width"]), np.float32)
        _in_bands(surfaces, levels.shape[1:], lambda rows, level: np.copyto(levels[:, rows], level))
        return xr.DataArray(levels, channels, ("channel", "y", "x"))
    points = np.stack([y, x]) / _STEP
    values = [ndimage.map_coordinates(surface, points, order=1, mode="nearest") for surface in surfaces]
    return xr.DataArray(values, channels, ("channel", "point"))


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
    changed = {"signal": picture["signal"].values.copy()}
    if mode == "divide":
        lowest = surfaces.min(axis=(1, 2))
        if np.any(lowest <= 0):
            worst = model["channel"].values[int(np.argmin(lowest))]
            raise WorkbenchError(
                f"the background model falls to {lowest.min():.4g} in channel {worst}: it cannot be divided by;"
                " subtract it, or divide before anything is subtracted"
            )
        surfaces = surfaces / model_means(model)[:, None, None]
        changed |= {"variance": picture["variance"].values.copy()} if "variance" in picture else {}

    def take(rows: slice, level: np.ndarray) -> None:
        if mode == "subtract":
            changed["signal"][:, rows] -= level
        else:
            for name, factor in zip(changed, (level, level * level), strict=False):
                changed[name][:, rows] /= factor

    _in_bands(surfaces, size, take)
    span = [f"{values.min():.4g} to {values.max():.4g}" for values in model["background"].values]
    verb = "subtracted" if mode == "subtract" else "divided out"
    return note(
        picture.assign({name: picture[name].copy(data=values) for name, values in changed.items()}),
        f"Background: {model.attrs['method']} model {verb}, {'; '.join(span)} {unit_text(model.attrs['units'])}"
        f" ({', '.join(map(str, model['channel'].values))}); {model.attrs['sky_share']:.1%} of the cells were sky.",
    )


def _in_bands(surfaces: np.ndarray, shape: tuple[int, int], work: Callable[[slice, np.ndarray], Any]) -> None:
    """Call work(rows, level) for bands of rows of models on nodes `_STEP` px apart, (channel, y, x) float32."""
    nodes = np.ascontiguousarray(surfaces, np.float32)

    def fill(rows: slice) -> None:
        level = np.empty((len(nodes), rows.stop - rows.start, shape[1]), np.float32)
        for surface, out in zip(nodes, level, strict=True):
            _fill_rows(rows.start, surface, out)
        work(rows, level)

    in_bands(fill, shape[0])


@kernel(fastmath={"contract", "nsz"})
def _fill_rows(first, nodes, out):
    """Rows of a picture (y, x) from `first` on, linear between `nodes` (y, x) `_STEP` px apart."""
    height, width = out.shape
    line = np.empty(nodes.shape[1], np.float32)
    for row in range(height):
        top = (row + first) // _STEP
        down = np.float32((row + first) % _STEP) / np.float32(_STEP)
        line[:] = nodes[top] + down * (nodes[top + 1] - nodes[top])
        for left in range(0, width, _STEP):
            begin = line[left // _STEP]
            slope = (line[left // _STEP + 1] - begin) / np.float32(_STEP)
            for column in range(left, min(left + _STEP, width)):
                out[row, column] = begin + slope * np.float32(column - left)
