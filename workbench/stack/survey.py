"""The first look at every light: calibrate it, measure its background in blocks, find its stars.

One pass over the raw samples makes the half-size green plane that the stars are sought on and the levels of the
background in blocks of 64 pixels, channel by channel.  Nothing is kept but these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import xarray as xr

from ..calibrate.apply import Tables
from ..stars.background import Sampling, clipped_stats, green_sampling
from ..stars.find import find_stars

BLOCK = 64  # pixels of the mosaic


@dataclass(frozen=True, eq=False)
class Planes:
    """A group's masters as resampling reads them: ``e = (raw - base - factor dark) scale``, NaN at defects.

    `base` has one pixel where it is zero everywhere.  `noise` (4, channel, block row, block column) on blocks of 32
    pixels gives a sample's variance in e-²: terms α (of the light), β (without light), μ (the masters' own) and ν
    (the flat's, of the light squared), channels R, G, B or mono.  `cell` names the mosaic's channels.
    """

    base: np.ndarray
    dark: np.ndarray
    scale: np.ndarray
    noise: np.ndarray
    cell: np.ndarray
    white: float

    @property
    def sampling(self) -> Sampling:
        """How the plane that stars are sought on samples the frame."""
        return green_sampling("mono" if self.cell.size == 1 else "GR" if self.cell[0, 0] in (1, 2) else "RG")


@numba.njit(nogil=True, cache=True)
def _noise_blocks(
    cell, numbers, offset, base, base_variance, dark, dark_variance, response, tilt, defects, factor, block, out
):
    rows, columns = out.shape[2], out.shape[3]
    height, width = offset.shape
    channels = out.shape[1]
    sums = np.zeros((4, channels))
    for row in range(rows):
        for column in range(columns):
            sums[:] = 0.0
            number = np.zeros(channels)
            for y in range(row * block, min(height, (row + 1) * block)):
                for x in range(column * block, min(width, (column + 1) * block)):
                    if defects.size > 1 and defects[y, x]:
                        continue
                    k = cell[y % cell.shape[0], x % cell.shape[1]]
                    c = k if channels == 1 or k == 0 else (1 if k < 3 else 2)
                    flat = response[y, x] if response.size > 1 else response[0, 0]
                    if not flat > 0:
                        continue
                    gain = numbers[k, 0] / flat
                    known = dark_variance[y, x] if dark_variance.size > 1 else dark_variance[0, 0]
                    under = base_variance[y, x] if base_variance.size > 1 else base_variance[0, 0]
                    shine = max(offset[y, x] - numbers[k, 4], 0.0)
                    uneven = tilt[y, x] if tilt.size > 1 else tilt[0, 0]
                    terms = (
                        1.0 / flat,
                        gain * gain * (numbers[k, 1] + numbers[k, 2] * shine),
                        gain * gain * (factor * factor * known + (1.0 - factor) ** 2 * under),
                        np.float64(uneven) / (flat * flat),
                    )
                    if terms[1] - terms[1] != 0.0:
                        continue
                    for t in range(4):
                        value = terms[t]
                        sums[t, c] += value if value - value == 0.0 else 0.0
                    number[c] += 1
            for c in range(channels):
                for t in range(4):
                    out[t, c, row, column] = sums[t, c] / number[c] if number[c] else np.nan


def prepare_planes(tables: Tables, shape: tuple[int, int], factor: float = 1.0) -> Planes:
    """Return the planes of a group of lights, from the tables that calibration reads.

    `factor` is the darks' typical scale, for the noise they add.
    """
    cell = tables.cell
    mono = cell.size == 1
    gain = np.take(tables.numbers[:, 0], cell).astype(np.float32)
    constant = np.take(tables.numbers[:, 3], cell).astype(np.float32)
    repeats = (-(-shape[0] // cell.shape[0]), -(-shape[1] // cell.shape[1]))

    def spread(values):
        return np.tile(values, repeats)[: shape[0], : shape[1]]

    scale = np.empty(shape, np.float32)
    scale[:] = spread(gain)
    if tables.response.size > 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            scale /= np.where(tables.response > 0, tables.response, np.nan)
    if tables.defects.size > 1:
        scale[tables.defects > 0] = np.nan
    has_dark, has_base = tables.dark.size > 1, tables.base.size > 1
    ground = constant.any()
    if has_dark:
        dark = np.ascontiguousarray(tables.dark, np.float32)
        base = np.zeros((1, 1), np.float32)
        if has_base:
            base = np.ascontiguousarray(tables.base, np.float32)
        if ground:
            base = base + spread(constant)
    else:  # what is subtracted once may as well be the dark
        dark = np.zeros(shape, np.float32)
        if has_base:
            dark += tables.base
        if ground:
            dark += spread(constant)
        base = np.zeros((1, 1), np.float32)
    offset = dark * np.float32(factor if has_dark else 1.0)
    if base.size > 1:
        offset += base
    blocks = tuple(-(-size // 32) for size in shape)
    noise = np.empty((4, 1 if mono else 3, *blocks), np.float32)
    _noise_blocks(
        cell, tables.numbers, offset, tables.base, tables.base_variance, tables.dark, tables.dark_variance,
        tables.response, tables.response_variance, tables.defects, factor if has_dark else 1.0, 32, noise,
    )  # fmt: skip
    for term in noise.reshape(-1, *blocks):  # blocks without a sound pixel: as elsewhere
        term[~np.isfinite(term)] = np.nanmedian(term) if np.isfinite(term).any() else 0.0
    return Planes(base, dark, scale, noise, cell, float(tables.saturation))


@numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})
def _survey(raw, base, dark, factor, scale, cell, block, green, level, noise):
    height, width = raw.shape
    channels, rows, columns = level.shape
    step = 1 if channels == 1 else 2
    half = width // step
    factor = np.float32(factor)
    # Every channel of a row of blocks, as lines of its own.
    lines = np.empty((channels, block // step + 1, half), np.float32)
    scratch = np.empty((block // step) ** 2 * 4, np.float32)
    value = np.empty(width, np.float32)
    for row in range(rows):
        top, bottom = row * height // rows // step * step, (row + 1) * height // rows // step * step
        for y in range(top, bottom):
            here, there, gain = raw[y], dark[y], scale[y]
            for x in range(width):
                value[x] = (np.float32(here[x]) - factor * there[x]) * gain[x]
            if base.size > 1:
                under = base[y]
                for x in range(width):
                    value[x] -= under[x] * gain[x]
            for j in range(step):
                line = lines[cell[y % step, j] if channels > 1 else 0, (y - top) // step]
                for x in range(half):
                    line[x] = value[step * x + j]
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


@dataclass(frozen=True, eq=False)
class FrameSurvey:
    """What the first look found: `stars`, and background `level` and `noise` [e-] (channel, block row, block column).

    Channels R, G, B or mono; blocks of at most 64 pixels, that divide the frame evenly.
    """

    stars: xr.Dataset
    level: np.ndarray
    noise: np.ndarray


def survey_frame(raw: np.ndarray, planes: Planes, factor: float = 1.0) -> FrameSurvey:
    """Survey one light as read (y, x), with its group's planes and its own dark scale."""
    height, width = raw.shape
    mono = planes.cell.size == 1
    step, channels = (1, 1) if mono else (2, 4)
    green = np.empty((height // step, width // step), np.float32)
    blocks = tuple(-(-size // BLOCK) for size in raw.shape)
    level, noise = np.empty((channels, *blocks), np.float32), np.empty((channels, *blocks), np.float32)
    _survey(raw, planes.base, planes.dark, factor, planes.scale, planes.cell, BLOCK, green, level, noise)
    if mono:
        background, deviation = level[0], float(np.nanmedian(noise))
    else:
        background = (level[1] + level[2]) / 2
        deviation = float(np.sqrt(np.nanmedian(noise[1]) ** 2 + np.nanmedian(noise[2]) ** 2) / 2)
        level = np.stack([level[0], background, level[3]])
        noise = np.stack([noise[0], np.sqrt((noise[1] ** 2 + noise[2] ** 2) / 2), noise[3]])
    typical = float(np.nanmedian(planes.scale))
    ceiling = (
        0.85 * (planes.white - float(np.nanmedian(planes.dark))) * typical if np.isfinite(planes.white) else np.inf
    )
    stars = find_stars(
        green,
        sampling=planes.sampling,
        gain=1.0 if mono else 2.0,
        background=background,
        noise=deviation,
        saturation=ceiling,
        limit=2000,
    )
    return FrameSurvey(stars, level, noise)
