"""The first look at a calibrated mosaic: its background in blocks, and its stars."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import xarray as xr

from ..core.mosaic import channel_index
from .background import clipped_stats, green_sampling
from .find import find_stars

BLOCK = 64  # pixels of the mosaic


class FrameSurvey(NamedTuple):
    """What the first look found: `stars`, and background `level` and `noise` [e-] (channel, block row, block column).

    Channels R, G, B or mono; blocks of at most 64 pixels, that divide the frame evenly.
    """

    stars: xr.Dataset
    level: np.ndarray
    noise: np.ndarray


@numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})
def _survey(signal, cell, green, level, noise):
    """Set level and noise (channel, block row, block column) and the green plane (y, x) of a mosaic (y, x) [e-].

    Channels R, G1, G2, B or mono; defects are NaN.
    """
    height, width = signal.shape
    channels, rows, columns = level.shape
    step = 1 if channels == 1 else 2
    half = width // step
    # Every channel of a row of blocks, as lines of its own.
    lines = np.empty((channels, BLOCK // step + 1, half), np.float32)
    scratch = np.empty((BLOCK // step) ** 2 * 4, np.float32)
    for row in range(rows):
        top, bottom = row * height // rows // step * step, (row + 1) * height // rows // step * step
        for y in range(top, bottom):
            here = signal[y]
            for j in range(step):
                line = lines[cell[y % step, j] if channels > 1 else 0, (y - top) // step]
                for x in range(half):
                    line[x] = here[step * x + j]
        count = (bottom - top) // step
        for channel in range(channels):
            for column in range(columns):
                left, right = column * width // columns // step, (column + 1) * width // columns // step
                size = 0
                for i in range(count):
                    line = lines[channel, i]
                    for x in range(left, right):
                        scratch[size] = line[x]
                        size += 1
                level[channel, row, column], noise[channel, row, column], _ = clipped_stats(scratch[:size])
        for i in range(count):
            out = green[top // step + i]
            if channels == 1:
                out[:] = lines[0, i]
                continue
            one, two = lines[1, i], lines[2, i]
            for x in range(half):
                out[x] = np.float32(0.5) * (one[x] + two[x])
            for x in range(half):
                if out[x] != out[x]:  # one of the two is a defect: the other stands for both
                    out[x] = one[x] if one[x] == one[x] else two[x]


def survey_mosaic(signal: np.ndarray, cfa_pattern: str, saturation: float = np.inf) -> FrameSurvey:
    """Find the stars and the background of one calibrated mosaic.

    Parameters
    ----------
    signal
        (y, x) [e-]; defects are NaN.
    cfa_pattern
        Of the mosaic, or ``mono``.
    saturation
        Level [e-] at which a typical pixel saturates; stars beyond 85 % of it count as saturated.
    """
    signal = np.ascontiguousarray(signal, np.float32)
    height, width = signal.shape
    cell = channel_index(cfa_pattern)
    mono = cell.size == 1
    step, channels = (1, 1) if mono else (2, 4)
    green = np.empty((height // step, width // step), np.float32)
    blocks = tuple(-(-size // BLOCK) for size in signal.shape)
    level, noise = (np.empty((channels, *blocks), np.float32) for _ in range(2))
    _survey(signal, cell, green, level, noise)
    if mono:
        background, deviation = level[0], float(np.nanmedian(noise))
    else:
        background = (level[1] + level[2]) / 2
        deviation = float(np.sqrt(np.nanmedian(noise[1]) ** 2 + np.nanmedian(noise[2]) ** 2) / 2)
        level = np.stack([level[0], background, level[3]])
        noise = np.stack([noise[0], np.sqrt((noise[1] ** 2 + noise[2] ** 2) / 2), noise[3]])
    stars = find_stars(
        green,
        sampling=green_sampling(cfa_pattern),
        gain=1.0 if mono else 2.0,
        background=background,
        noise=deviation,
        saturation=0.85 * saturation,
        limit=2000,
    )
    return FrameSurvey(stars, level, noise)
