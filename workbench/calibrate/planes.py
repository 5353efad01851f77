"""The one calibration of a sample, and the one filling of a defect: compiled, for frames from files and from cubes.

    e = (y - base - f dark) scale,   scale = g / F, NaN at defects

with the raw sample y [ADU], the dark's scale f, gain g [e-/ADU] and flat F.  `Planes` holds what a group of lights
shares; `calibrate_row` and `fill_value` are called by the verbs on cubes and by the stacking engine alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..core.kernels import kernel
from ..core.mosaic import channel_colours, spread
from ..core.parallel import each_band

if TYPE_CHECKING:
    from .apply import Tables

NOISE_BLOCK = 32  # [pixels of the mosaic] that share their noise terms
NOISE_TERMS = ("light", "dark", "shared", "shared_flat")
_BAND = 3 * NOISE_BLOCK  # rows that a thread works on: whole cells of any mosaic
REACH = 4  # [pixels] within which a defect looks for others of its colour
FAST = {"contract", "reassoc", "nsz", "arcp"}  # liberties that keep NaN

_OFFSETS = np.array(
    sorted(
        (dy * dy + dx * dx, dy, dx) for dy in range(-REACH, REACH + 1) for dx in range(-REACH, REACH + 1) if dy or dx
    ),
    np.int64,
)


class Planes(NamedTuple):
    """What calibrates a group of lights, as the compiled loops read it.

    Attributes
    ----------
    base, dark
        Subtracted from a sample [ADU] (y, x), `dark` times the light's own factor; `base` has one pixel where it is
        zero everywhere.
    scale
        Electrons for one ADU (y, x), the flat divided in; NaN at defects.
    noise
        Terms of a sample's variance [e-²] in blocks of 32 pixels (term, channel, block row, block column), channels R,
        G, B or mono: ``light`` times the light [e-] and ``dark`` are a frame's own; ``shared`` and ``shared_flat``
        times the light squared are the masters', the same in every frame.
    cell
        Channel numbers of the mosaic's cell.
    white
        Saturation [ADU].
    """

    base: np.ndarray
    dark: np.ndarray
    scale: np.ndarray
    noise: np.ndarray
    cell: np.ndarray
    white: float

    @property
    def saturation(self) -> float:
        """The level [e-] at which a typical pixel saturates; infinite where the white level is not known."""
        if not np.isfinite(self.white):
            return float("inf")
        some = np.s_[::7, ::5]  # odd steps meet every colour
        return (self.white - float(np.nanmedian(self.dark[some]))) * float(np.nanmedian(self.scale[some]))


def prepare_planes(tables: Tables, shape: tuple[int, int], factor: float = 1.0) -> Planes:
    """Return the planes of a group of lights of `shape` (height, width) from its tables.

    `factor` is the darks' typical scale, for the noise they add.
    """
    cell, has_dark = tables.cell, tables.dark.size > 1
    offset = tables.base.size > 1 or bool(tables.constant.any())
    gain, constant = (spread(v.astype(np.float32), cell, (_BAND, shape[1])) for v in (tables.gain, tables.constant))
    scale, nothing = np.empty(shape, np.float32), np.zeros((1, 1), np.float32)
    ground = np.empty(shape, np.float32) if offset or not has_dark else nothing
    if has_dark:
        base, dark = ground, np.ascontiguousarray(tables.dark, np.float32)
    else:  # what is subtracted once may as well be the dark
        base, dark, factor = nothing, ground, 1.0
    noise = np.empty((len(NOISE_TERMS), 1 if cell.size == 1 else 3, *_blocks(shape)), np.float32)
    planes = Planes(base, dark, scale, noise, cell, float(tables.saturation))

    def prepare(rows: slice) -> None:
        inside = slice(rows.stop - rows.start)
        response = tables.response[rows] if tables.response.size > 1 else tables.response
        with np.errstate(invalid="ignore"):
            np.divide(gain[inside], np.where(response > 0, response, np.nan), out=scale[rows])
        if tables.defects.size > 1:
            scale[rows][tables.defects[rows] > 0] = np.nan
        if ground.size > 1:
            ground[rows] = tables.base[rows] + constant[inside] if tables.base.size > 1 else constant[inside]
        first = rows.start // NOISE_BLOCK
        _noise_blocks(tables, planes, float(factor), first, noise[:, :, first : first + _BAND // NOISE_BLOCK])

    each_band(prepare, shape[0], _BAND)
    for term in noise.reshape(-1, *_blocks(shape)):  # blocks without a valid pixel: as elsewhere
        term[~np.isfinite(term)] = np.nanmedian(term) if np.isfinite(term).any() else 0.0
    return planes


def _blocks(shape: tuple[int, int]) -> tuple[int, int]:
    return -(-shape[0] // NOISE_BLOCK), -(-shape[1] // NOISE_BLOCK)


def noise_in_blocks(signal: np.ndarray, variance: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Return noise terms (term, channel, block row, block column) of a mosaic whose variance is all that is known.

    `signal` [e-] and `variance` [e-²] (y, x).  The shot noise of e electrons is taken for e; what the variance has
    beyond that, in the mean of a block, is the ``dark`` term; no masters' share.
    """
    colours = channel_colours(cell)
    channel = colours[np.tile(cell, tuple(-(-n // m) for n, m in zip(signal.shape, cell.shape, strict=True)))]
    channel = channel[: signal.shape[0], : signal.shape[1]]
    rows, columns = (np.arange(size) // NOISE_BLOCK for size in signal.shape)
    blocks, channels = _blocks(signal.shape), int(colours.max()) + 1
    index = (channel * blocks[0] + rows[:, None]) * blocks[1] + columns
    own = variance - signal
    known = np.isfinite(own)
    size = channels * blocks[0] * blocks[1]
    count = np.bincount(index[known], minlength=size)
    with np.errstate(invalid="ignore"):
        dark = np.bincount(index[known], own[known], minlength=size) / count
    noise = np.zeros((len(NOISE_TERMS), channels, *blocks), np.float32)
    noise[0] = 1.0
    noise[1] = np.where(count > 0, dark, np.nanmedian(dark)).reshape(channels, *blocks)
    noise[1] = np.maximum(noise[1], 1e-3)
    return noise


@kernel()
def value_at(plane: np.ndarray, y: int, x: int) -> float:
    """Return a map's value at a pixel; maps of one pixel hold the same number everywhere."""
    return plane[y, x] if plane.size > 1 else plane[0, 0]


@kernel()
def _noise_blocks(tables, planes, factor, first, out):
    """Set `out` (term, channel, block row from `first` on, block column) to the mean noise terms of valid pixels."""
    height, width = planes.scale.shape
    channels, rows, columns = out.shape[1:]
    period_y, period_x = tables.cell.shape
    sums = np.empty((5, channels))
    terms = np.empty(4)
    for row in range(rows):
        for column in range(columns):
            sums[:] = 0.0
            for y in range((first + row) * NOISE_BLOCK, min(height, (first + row + 1) * NOISE_BLOCK)):
                for x in range(column * NOISE_BLOCK, min(width, (column + 1) * NOISE_BLOCK)):
                    scale = np.float64(planes.scale[y, x])
                    if scale - scale != 0.0:
                        continue
                    k = tables.cell[y % period_y, x % period_x]
                    c = k if channels == 1 or k == 0 or tables.cell.size == 36 else (1 if k < 3 else 2)
                    flat = tables.gain[k] / scale
                    offset = value_at(planes.base, y, x) + factor * planes.dark[y, x]
                    quiet = tables.law[k, 0] + tables.law[k, 1] * max(offset - tables.black[k], 0.0)
                    known = factor * factor * value_at(tables.dark_variance, y, x)
                    known += (1.0 - factor) ** 2 * value_at(tables.base_variance, y, x)
                    terms[0] = 1.0 / flat
                    terms[1] = scale * scale * quiet
                    terms[2] = scale * scale * known
                    terms[3] = np.float64(value_at(tables.response_variance, y, x)) / (flat * flat)
                    if terms[1] - terms[1] != 0.0:
                        continue
                    for t in range(4):
                        sums[t, c] += terms[t] if terms[t] - terms[t] == 0.0 else 0.0
                    sums[4, c] += 1
            for c in range(channels):
                for t in range(4):
                    out[t, c, row, column] = sums[t, c] / sums[4, c] if sums[4, c] else np.nan


@kernel(error_model="numpy")
def _add_agreeing(own, other, limit, total, number):
    """Add values `other` (x) that differ from `own` by no more than √limit to `total`, and their count to `number`."""
    for j in range(own.size):
        value = np.float64(other[j])
        agrees = (value - np.float64(own[j])) ** 2 <= limit[j]
        total[j] += value if agrees else 0.0
        number[j] += 1.0 if agrees else 0.0


@kernel(error_model="numpy")
def calm_levels(
    values: np.ndarray, cell: np.ndarray, model: np.ndarray, black: np.ndarray, count: float, out: np.ndarray
) -> None:
    """Average each pixel with those of its eight nearest of the same plane that agree with it within 3 σ.

    A variance that follows the sample's own noise is low just where the sample is: (sample - truth)²/variance would
    average above one.  Around stars, hot pixels and edges the neighbours disagree and the pixel stands for itself.
    `values` (y, x) [ADU] are means of `count` samples with the noise `model` (channel, 2: a [ADU²], b [ADU]) above
    `black` (channel) [ADU]; `cell` is the mosaic's `channel_index`; the levels are written into `out` (y, x).
    """
    rows, columns = values.shape
    period_y, period_x = cell.shape
    limit, total, number = np.empty(columns), np.empty(columns), np.empty(columns)
    for i in range(rows):
        own, line = values[i], cell[i % period_y]
        for j in range(columns):
            c, x = line[j % period_x], np.float64(own[j])
            limit[j] = 18.0 * (model[c, 0] + model[c, 1] * max(x - black[c], 0.0)) / count
            total[j], number[j] = x, 1.0
        for m in range(max(i - period_y, i % period_y), min(i + period_y + 1, rows), period_y):
            for n in (-period_x, 0, period_x):
                if m != i or n:
                    part, near = slice(max(-n, 0), columns - max(n, 0)), values[m, max(n, 0) : columns - max(-n, 0)]
                    _add_agreeing(own[part], near, limit[part], total[part], number[part])
        for j in range(columns):
            out[i, j] = total[j] / number[j]


@kernel(fastmath=FAST)
def calibrate_row(
    raw: np.ndarray, base: np.ndarray, dark: np.ndarray, factor: float | np.float32, scale: np.ndarray, line: np.ndarray
) -> float:
    """Set ``line = (raw - base - factor dark) scale``, all (x); return the highest raw value."""
    columns = line.size
    for x in range(columns):
        line[x] = (np.float32(raw[x]) - factor * dark[x]) * scale[x]
    if base.size == columns:
        for x in range(columns):
            line[x] -= base[x] * scale[x]
    peak = raw[0]
    for x in range(columns):
        peak = raw[x] if raw[x] > peak else peak
    return peak


@kernel()
def calibrate_sample(raw: float, base: float, dark: float, factor: float, scale: float) -> np.float32:
    """Return one sample calibrated as `calibrate_row` does."""
    return (np.float32(raw) - factor * dark) * scale - base * scale


@kernel()
def calibrate_signal(raw: np.ndarray, planes: Planes, factor: float | np.float32, signal: np.ndarray) -> None:
    """Set `signal` (y, x) [e-] from raw samples (y, x) [ADU]: NaN at defects and at missing samples."""
    factor = np.float32(factor)
    for y in range(raw.shape[0]):
        base = planes.base[y] if planes.base.size > 1 else planes.base[0, 0:0]
        calibrate_row(raw[y], base, planes.dark[y], factor, planes.scale[y], signal[y])


@kernel()
def same_colour(cell: np.ndarray, y: int, x: int, dy: int, dx: int) -> bool:
    """Whether a pixel at (y + dy, x + dx) has the colour of the one at (y, x); both greens count as one."""
    own = cell[y % cell.shape[0], x % cell.shape[1]]
    other = cell[(y + dy) % cell.shape[0], (x + dx) % cell.shape[1]]
    green = cell.size == 4 and (own == 1 or own == 2)
    return own == other or cell.size == 1 or (green and (other == 1 or other == 2))


@kernel()
def neighbour_weights(around: np.ndarray, weight: np.ndarray) -> int:
    """Weigh the neighbours from which a pixel is filled; return how many there are.

    `around` (9, 9) holds the pixel's surroundings, NaN but at valid pixels of its colour, and `weight`
    receives the weights 1/distance².  From the centre outwards, distance by distance, until four are found: mostly the
    four nearest.  On the sample lights this leaves 25.6, 28.5 and 33.3 e- rms in red, green and blue, where all of
    5 x 5 pixels by 1/distance² leave 27.4, 30.8 and 34.8.
    """
    weight[:] = 0.0
    found, last = 0, 0
    for index in range(_OFFSETS.shape[0]):
        square, dy, dx = _OFFSETS[index]
        if square != last and found >= 4:
            break
        last = square
        value = around[REACH + dy, REACH + dx]
        if value - value == 0.0:
            weight[REACH + dy, REACH + dx] = 1.0 / square
            found += 1
    return found


@kernel()
def weighted_mean(around: np.ndarray, weight: np.ndarray) -> float:
    """Return the mean of `around` (9, 9) by `weight`, places without a weight left out."""
    total, weights = 0.0, 0.0
    for i in range(around.shape[0]):
        for j in range(around.shape[1]):
            if weight[i, j] > 0.0:
                total += weight[i, j] * around[i, j]
                weights += weight[i, j]
    return total / weights
