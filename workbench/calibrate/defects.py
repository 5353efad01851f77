"""Defects that masters show, hot pixels that the lights themselves show, and the shadows of dust."""

from __future__ import annotations

import itertools
import math

import numpy as np
import xarray as xr
from scipy import ndimage
from scipy.special import ndtri

from ..core.defects import HOT, Thresholds, UnlitFrames, defect_map, flag_defects, sample_pixels
from ..core.errors import WorkbenchError
from ..core.kernels import kernel
from ..core.mosaic import channel_count, channel_index, planes, tiles
from ..core.parallel import each_band
from ..core.statistics import MEDIAN_ERROR, mad_std
from .noise import model_of
from .usable import sampled_lights

_CHANCE = 0.01  # ordinary pixels taken for hot in lights, in a whole frame
_LIGHTS = 5  # that are searched, spread over the night
_SIGMAS = 8.0  # above the background, on average, in noises of one frame over the root of their number
_LINEAR = 0.98  # of the white level: a dark is saturated from there on

FINE = 8  # [pixels of the mosaic]: side of the cells that dust is looked for in
DUST_DEPTH = 0.003  # a shadow must take at least this part of the light
DUST_SIGMAS = 6.0
DUST_CELLS = 6  # and cover this many cells


def find_defects(dark: xr.Dataset | None = None, flat: xr.Dataset | None = None, **thresholds: float) -> xr.DataArray:
    """Return the defects that the masters show, uint8 (y, x) with the bits of `workbench.core.defects.KINDS`.

    The noise of an ordinary pixel is that which the master dark was made with; what hot, warm, dead and unstable mean
    is defined in `workbench.core.defects.flag_defects`.  A kind that these masters cannot show is not in the counts.

    Parameters
    ----------
    dark, flat
        From `master_dark` and `master_flat`.
    thresholds
        Those of `workbench.core.defects.Thresholds` that are to differ from its defaults.

    Raises
    ------
    WorkbenchError
        If neither master is given, or they differ in size.

    Examples
    --------
    >>> from workbench.calibrate import master_dark
    >>> from workbench.core.cube import make_cube
    >>> frames = np.random.default_rng(1).normal(620, 3, (8, 40, 40)).round().astype("uint16")
    >>> frames[:, 8, 9] += np.random.default_rng(2).poisson(400, 8).astype("uint16")
    >>> dark = master_dark(make_cube(frames, cfa_pattern="RGGB", kind="dark", iso=100, exposure=60))
    >>> find_defects(dark).attrs["counts"]["hot"]
    1
    """
    frames = steady = None
    if dark is not None:
        signal, variance, count, unstable = (dark[n].values for n in ("signal", "variance", "count", "unstable"))
        one_frame = np.empty_like(variance)
        each_band(lambda rows: np.multiply(variance[rows], count[rows], out=one_frame[rows]), len(signal))
        ordinary = [np.median(sample_pixels(plane)) for _, plane in planes(one_frame, dark.attrs["cfa_pattern"])]
        shot, white = model_of(dark)[:, 1], dark.attrs["white_level"]
        saturation = _LINEAR * white if math.isfinite(white) else math.inf
        known = bool((shot > 0).all())  # then the scatter serves only to find unstable pixels
        frames = UnlitFrames(signal, np.array(ordinary), shot, None if known else one_frame, count, saturation)
        # of the other pixels the master's variance is the noise model's
        flickering = one_frame if known else np.empty_like(variance)
        each_band(lambda rows: np.multiply(one_frame[rows], unstable[rows], out=flickering[rows]), len(signal))
        steady = frames._replace(variance=flickering)
    pattern = next((master.attrs["cfa_pattern"] for master in (dark, flat) if master is not None), "mono")
    response = None if flat is None else flat["signal"].values
    return flag_defects(pattern, dark=frames, steady=steady, response=response, thresholds=Thresholds(**thresholds))


def defects_in_lights(light: xr.DataArray) -> xr.DataArray:
    """Return hot pixels that the lights themselves show, for those who have no darks: uint8 (y, x), see `KINDS`.

    A hot pixel stands above its plane's local background in each of up to five frames, spread over the night, so that
    neither cosmic rays nor dithered stars count; on average by 8/√frames noises of one frame, and the four
    pixels around it by less than a sixth of that: a star as sharp as 1.5 px FWHM gives them a third.

    Raises
    ------
    WorkbenchError
        If there are fewer than two lights.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> frames = np.random.default_rng(1).normal(900, 9, (3, 60, 80)).round().astype("uint16")
    >>> frames[:, 20, 31] = 1500
    >>> found = defects_in_lights(make_cube(frames, cfa_pattern="RGGB", kind="light"))
    >>> np.argwhere(found.values == HOT).tolist()
    [[20, 31]]
    """
    count = light.sizes["frame"]
    if count < 2:
        raise WorkbenchError("hot pixels and cosmic rays look alike in one light; it takes two, or darks")
    cell = channel_index(light.attrs["cfa_pattern"])
    shape = (light.sizes["y"], light.sizes["x"])
    seen, above, around = np.zeros(shape, np.uint8), np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    # so high that not one ordinary pixel of ten million passes in all frames by chance
    least = -float(ndtri((_CHANCE / above.size) ** (1 / min(_LIGHTS, count))))
    looked = 0
    for frame in sampled_lights(light, _LIGHTS):
        level, noise = _background(frame, cell)
        _add_excess(np.ascontiguousarray(frame, np.float32), level, noise, np.float32(least), seen, above, around)
        looked += 1
    alone = around < above / 6 + math.sqrt(looked)  # the mean of four has half the noise of one: two sigmas
    found = (seen == looked) & (above > _SIGMAS * math.sqrt(looked)) & alone
    hot = np.where(found & (looked > 1), HOT, 0).astype(np.uint8)
    return defect_map(hot, light.attrs["cfa_pattern"], {"sigmas": _SIGMAS, "lights": looked}, ["hot"])


def _background(frame: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the median and 1.4826 MAD of blocks of 32 x 32 cells of each plane, (cell row, cell column, by, bx)."""
    size = 32
    whole = [max(side // len(cell), 1) for side in frame.shape]
    rows, columns = (max(cells // size, 1) for cells in whole)
    levels, noises = [], []
    for _, plane in planes(frame, cell):
        plane = plane.astype(np.float32)
        # of X-Trans a cell holds several pixels of a colour, in two rows
        height, width = (min(size * (n // cells), n) for n, cells in zip(plane.shape, whole, strict=True))
        blocks = tiles(plane, height, width)[:rows, :columns].reshape(rows, columns, -1)[..., ::3]
        level = np.nanmedian(blocks, axis=-1)
        levels.append(level)
        noises.append(np.maximum(mad_std(blocks, -1, centre=level[..., None]), 0.5))
    return np.array(levels, np.float32)[cell], np.array(noises, np.float32)[cell]


@kernel(error_model="numpy")
def _add_excess(frame, level, noise, least, seen, above, around):
    """Add, in units of `noise`: excesses above `level` (cell row, cell column, by, bx), and of the four around."""
    rows, columns = frame.shape
    cy, cx, by, bx = level.shape
    for i in range(rows):
        p = min(i * by // rows, by - 1)
        for j in range(columns):
            q = min(j * bx // columns, bx - 1)
            excess = (frame[i, j] - level[i % cy, j % cx, p, q]) / noise[i % cy, j % cx, p, q]
            if not excess > least:
                continue
            total, number = np.float32(0), 0
            for m, n in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                if 0 <= m < rows and 0 <= n < columns and np.isfinite(frame[m, n]):
                    total += (frame[m, n] - level[m % cy, n % cx, p, q]) / noise[m % cy, n % cx, p, q]
                    number += 1
            seen[i, j] += 1
            above[i, j] += excess
            around[i, j] += total / max(number, 1)


def cell_means(mosaic: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Return the means of each channel in cells of `FINE` pixels (channel, y, x); NaN where less than half is known.

    Examples
    --------
    >>> mosaic = np.tile([[1.0, 2.0], [3.0, 4.0]], (4, 8))
    >>> cell_means(mosaic, np.array([[0, 1], [2, 3]])).tolist()
    [[[1.0, 1.0]], [[2.0, 2.0]], [[3.0, 3.0]], [[4.0, 4.0]]]
    """
    means = np.zeros((channel_count(cell), *(side // FINE for side in mosaic.shape)))
    _add_cells(np.ascontiguousarray(mosaic, np.float32), cell, means)
    return means


@kernel()
def _add_cells(mosaic, cell, means):
    """Set `means` (channel, y, x), zero before, to the means of the known pixels of each cell."""
    channels, rows, columns = means.shape
    period_y, period_x = cell.shape
    sums = np.empty((period_y, columns * FINE), np.float32)
    count = np.empty((period_y, columns * FINE), np.float32)
    known = np.empty((channels, columns))
    for row in range(rows):
        sums[:] = np.float32(0.0)
        count[:] = np.float32(0.0)
        for y in range(row * FINE, (row + 1) * FINE):
            line, total, number = mosaic[y], sums[y % period_y], count[y % period_y]
            for x in range(columns * FINE):
                good = line[x] - line[x] == np.float32(0.0)
                total[x] += line[x] if good else np.float32(0.0)
                number[x] += np.float32(1.0) if good else np.float32(0.0)
        known[:] = 0.0
        for part in range(period_y):
            for x in range(columns * FINE):
                c = cell[part, x % period_x]
                means[c, row, x // FINE] += sums[part, x]
                known[c, x // FINE] += count[part, x]
        for c in range(channels):
            for column in range(columns):
                enough = known[c, column] * channels >= FINE * FINE / 2
                means[c, row, column] = means[c, row, column] / known[c, column] if enough else np.nan


def find_dust(dips: np.ndarray, noise: float) -> np.ndarray:
    """Return the shadows of dust (mote, (y, x, radius [pixels of the mosaic], depth)), the deepest first.

    `dips` is the relative light that cells of `FINE` pixels lose, `noise` what they scatter by at least.
    """
    threshold = max(DUST_DEPTH, DUST_SIGMAS * max(float(mad_std(dips, centre=0)), noise))
    dips = np.nan_to_num(dips)
    labels, count = ndimage.label(ndimage.binary_closing(dips > threshold, np.ones((3, 3))))
    numbers = np.arange(1, count + 1)
    cells = ndimage.sum_labels(labels > 0, labels, numbers)
    centres = np.reshape(ndimage.center_of_mass(labels > 0, labels, numbers), (-1, 2))
    depth = ndimage.maximum(dips, labels, numbers)
    motes = np.column_stack([(centres + 0.5) * FINE - 0.5, np.sqrt(cells / math.pi) * FINE, depth])[cells >= DUST_CELLS]
    return motes[np.argsort(-motes[:, 3], kind="stable")]


def dust_left(fine: np.ndarray, motes: xr.Dataset, number: int) -> tuple[float, float]:
    """Return the share of a dust shadow's depth that stays in the lights' background (cells of `FINE`), and its error.

    The shadow's middle is compared with a plane through the ring around it.  A nebula or a star differs there as dust
    does; by how much is measured around the shadow, in the absence of dust: the scatter of these measurements is the
    error, where it is more than the noise.
    """
    y, x, radius, depth = (
        motes[name].values / (1 if name == "dust_depth" else FINE)
        for name in ("dust_y", "dust_x", "dust_radius", "dust_depth")
    )
    dip, error = _dip(fine, y[number], x[number], radius[number])
    others = []
    for distance, angle in itertools.product((3.0, 4.5, 6.0), np.arange(0, 2 * np.pi, np.pi / 3)):
        away = distance * (radius[number] + 1)
        v, u = y[number] + away * math.sin(angle + distance), x[number] + away * math.cos(angle + distance)
        inside = 0 <= v < fine.shape[0] and 0 <= u < fine.shape[1]
        if inside and (np.hypot(v - y, u - x) > 1.5 * (radius + radius[number]) + 2).all():
            others.append(_dip(fine, v, u, radius[number])[0])
    others = [other for other in others if math.isfinite(other)]
    if len(others) >= 6:
        error = max(error, float(mad_std(np.array(others), centre=0)))
    return dip / depth[number], error / depth[number]


def _dip(fine: np.ndarray, y: float, x: float, radius: float) -> tuple[float, float]:
    """Return how much darker a disc is than a plane through the ring around it, and the error of that."""
    reach = math.ceil(2 * radius + 3)
    top, left = max(0, int(y) - reach), max(0, int(x) - reach)
    around = fine[top : int(y) + reach + 1, left : int(x) + reach + 1]
    rows, columns = np.indices(around.shape)
    dy, dx = np.asarray(rows + top + 0.5 - y), np.asarray(columns + left + 0.5 - x)
    distance = np.hypot(dy, dx)
    inside = (distance < max(0.6 * radius, 1.0)) & np.isfinite(around)
    ring = (distance > 1.3 * radius) & (distance < 2 * radius + 2) & np.isfinite(around)
    for _ in range(4):  # stars in the ring are thrown out
        if ring.sum() < 8 or not inside.any():
            return math.nan, math.nan
        design = np.stack([np.ones(ring.sum()), dy[ring], dx[ring]], axis=1)
        plane = np.linalg.lstsq(design, around[ring], rcond=None)[0]
        surface = plane[0] + plane[1] * dy + plane[2] * dx
        scatter = float(mad_std(around[ring] - surface[ring], centre=0))
        ring &= np.abs(around - surface) < 3 * max(scatter, 1e-6)
    dip = -float(np.median(around[inside] / surface[inside] - 1))
    return dip, MEDIAN_ERROR * scatter * math.sqrt(1 / inside.sum() + 1 / ring.sum())
