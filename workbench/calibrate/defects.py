"""Defects of the sensor: hot, warm, dead and unstable pixels, by thresholds that say what they cost."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr
from numba import njit
from scipy.stats import norm

from ..core.defects import (
    DEAD,
    DEAD_RESPONSE,
    HOT,
    HOT_NOISE,
    KINDS,
    UNSTABLE,
    UNSTABLE_EXCESS,
    WARM,
    WARM_SIGMAS,
    defect_map,
    flag_response,
)
from ..core.errors import FrameReadError, WorkbenchError
from ..core.mosaic import channel_index

FILLED = HOT | DEAD | UNSTABLE  # a warm pixel is only noisier; its dark signal is subtracted and its variance knows
CHANCE = 0.01  # ordinary pixels taken for hot in lights, in a whole frame


def find_defects(
    dark: xr.Dataset | None = None,
    flat: xr.Dataset | None = None,
    *,
    hot_noise: float = HOT_NOISE,
    warm_sigmas: float = WARM_SIGMAS,
    dead_response: float = DEAD_RESPONSE,
    unstable_excess: float = UNSTABLE_EXCESS,
) -> xr.DataArray:
    """Return the defects that the masters show, uint8 (y, x) with the bits of `KINDS`.

    ========  ==========================================================================================
    hot       excess dark signal d [e-] with σ² + d > hot_noise² σ², σ the noise of an ordinary pixel in one dark
    warm      excess dark signal above warm_sigmas robust standard deviations of its CFA plane
    dead      response below dead_response of the median of its 24 nearest of the same plane, or above its inverse
    unstable  samples that scatter more than unstable_excess times the model's variance, and not by chance
    ========  ==========================================================================================

    The attributes state the thresholds and how many pixels each found.

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
    masters = [master for master in (dark, flat) if master is not None]
    if not masters:
        raise WorkbenchError("defects show in darks and flats; give a master dark or a master flat")
    if len({(master.sizes["y"], master.sizes["x"]) for master in masters}) > 1:
        raise WorkbenchError("the master dark and the master flat differ in size: they do not belong together")
    pattern = masters[0].attrs["cfa_pattern"]
    cell = channel_index(pattern)
    flags = np.zeros((masters[0].sizes["y"], masters[0].sizes["x"]), np.uint8)
    for (row, column), channel in np.ndenumerate(cell):
        plane = (slice(row, None, cell.shape[0]), slice(column, None, cell.shape[1]))
        if dark is not None:
            flags[plane] |= _in_dark(dark, plane, int(channel), hot_noise, warm_sigmas, unstable_excess)
        if flat is not None:
            dead = np.zeros(flags[plane].shape, np.uint8)
            flag_response(flat["signal"].values[plane], dead_response, dead)
            flags[plane] |= dead
    thresholds = {
        "hot_noise": hot_noise,
        "warm_sigmas": warm_sigmas,
        "dead_response": dead_response,
        "unstable_excess": unstable_excess,
    }
    return defect_map(flags, pattern, thresholds, filled=int(np.count_nonzero(flags & FILLED)))


def defects_in_lights(light: xr.DataArray, *, frames: int = 5, sigmas: float = 8.0) -> xr.DataArray:
    """Return hot pixels that the lights themselves show, for those who have no darks: uint8 (y, x), see `KINDS`.

    A hot pixel stands above its plane's local background in each of up to five frames, spread over the night, so that
    neither cosmic rays nor dithered stars count; on average by `sigmas`/√frames noises of one frame, and the four
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
    numbers = sorted({round(k) for k in np.linspace(0, count - 1, min(frames, count))})
    # so high that not one ordinary pixel of ten million passes in all frames by chance
    least = float(norm.isf((CHANCE / above.size) ** (1 / len(numbers))))
    looked = 0
    for number in numbers:
        try:
            frame = np.asarray(light.isel(frame=number).values)
        except FrameReadError:  # whoever works on the lights says so
            continue
        level, noise = _background(frame, cell)
        _add_excess(np.ascontiguousarray(frame, np.float32), level, noise, np.float32(least), seen, above, around)
        looked += 1
    alone = around < above / 6 + math.sqrt(looked)  # the mean of four has half the noise of one: two sigmas
    found = (seen == looked) & (above > sigmas * math.sqrt(looked)) & alone
    hot = np.where(found & (looked > 1), HOT, 0).astype(np.uint8)
    counts = dict.fromkeys(KINDS, 0) | {"hot": int(np.count_nonzero(hot))}
    return xr.DataArray(
        hot,
        dims=("y", "x"),
        attrs={
            "long_name": "defects",
            "cfa_pattern": light.attrs["cfa_pattern"],
            "flag_masks": list(KINDS.values()),
            "flag_meanings": " ".join(KINDS),
            "counts": counts,
            "filled": counts["hot"],
            "thresholds": {"sigmas": sigmas, "lights": looked},
        },
    )


def _background(frame: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Level and noise of each plane in blocks of 32 pixels of the plane: median and 1.4826 MAD, (channel, by, bx)."""
    size = 32
    levels, noises = [], []
    for channel in range(cell.size):
        row, column = (int(k) for k in np.argwhere(cell == channel)[0])
        plane = frame[row :: cell.shape[0], column :: cell.shape[1]].astype(np.float32)
        rows, columns = (max(side // size, 1) for side in plane.shape)
        cut = plane[: rows * size, : columns * size]
        tiles = cut.reshape(rows, cut.shape[0] // rows, columns, cut.shape[1] // columns).swapaxes(1, 2)
        tiles = tiles.reshape(rows, columns, -1)[..., ::3]
        level = np.nanmedian(tiles, axis=-1)
        levels.append(level)
        noises.append(np.maximum(1.4826 * np.nanmedian(np.abs(tiles - level[..., None]), axis=-1), 0.5))
    order = np.array([levels, noises], np.float32)
    return order[0][cell], order[1][cell]


@njit(nogil=True, cache=True, error_model="numpy")
def _add_excess(frame, level, noise, least, seen, above, around):
    """Add, in units of the noise: a pixel's excess, that of the four around it, and whether it exceeds `least`.

    Level and noise have dims (cell row, cell column, by, bx).
    """
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


def _in_dark(
    dark: xr.Dataset, plane: tuple, channel: int, hot_noise: float, warm_sigmas: float, unstable_excess: float
) -> np.ndarray:
    level, count, variance, unstable = (
        dark[name].values[plane] for name in ("signal", "count", "variance", "unstable")
    )
    middle = _median(level)
    spread = 1.4826 * _median(np.abs(_sample(level) - middle))
    one_frame = _sample(variance) * _sample(count)
    ordinary = _median(one_frame)  # [ADU²]
    b = np.reshape(dark.attrs["model"], (-1, 2))[channel, 1]
    white = dark.attrs["white_level"]
    flags = np.zeros(level.shape, np.uint8)
    _flag_dark(
        level, count, variance, unstable, middle, warm_sigmas * spread, ordinary, b, hot_noise**2 - 1,
        0.98 * white if np.isfinite(white) else np.inf, unstable_excess, flags,
    )  # fmt: skip
    return flags


def _sample(plane: np.ndarray) -> np.ndarray:
    """An even part of a plane, large enough for a median to a thousandth of the spread."""
    step = max(1, int(np.sqrt(plane.size / 400_000)))
    return plane[::step, ::step]


def _median(plane: np.ndarray) -> float:
    return float(np.nanmedian(_sample(plane)))


@njit(nogil=True, cache=True, error_model="numpy")
def _flag_dark(level, count, variance, unstable, middle, warm, ordinary, b, noisier, white, excess, flags):
    for i in range(level.shape[0]):
        for j in range(level.shape[1]):
            above = level[i, j] - middle
            if not np.isfinite(above) or level[i, j] >= white:
                flags[i, j] |= HOT
                continue
            if above > warm:
                flags[i, j] |= WARM
                # where the gain is not known (b = 0) the frames' scatter is the only word on noise
                added = b * above if b > 0 else variance[i, j] * count[i, j] - ordinary
                if added > noisier * ordinary:
                    flags[i, j] |= HOT
            if unstable[i, j] and variance[i, j] * count[i, j] > excess * (ordinary + b * max(above, 0.0)):
                flags[i, j] |= UNSTABLE
