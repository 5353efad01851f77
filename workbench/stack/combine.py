"""The samples of a tile become pixels: the median, the test of every sample against it, the mean of what is left.

One set of compiled loops for the engine, for the verb `stack` on cubes and for looks at single samples (`pixel`).  The
samples are (frame, channel, y, x).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..core.kernels import kernel
from .medians import find_medians
from .normalise import blocks_of, fill_noise
from .reject import MEAN, MEDIAN, NOISE, PixelPlanes, RejectionRule, any_flag, empty_planes
from .tile import Maps, Scratch, TileFrames, column_order, resample_frame
from .window import BLOCK, Tile

if TYPE_CHECKING:
    from .engine import StackArrays
    from .normalise import Noise

GROW = 3  # pixels around a strong outlier in which the same frame is tested more strictly
STRONG = 6.0  # an outlier is strong beyond this many sigma ...
STRICT = 2.0  # ... and its surroundings keep only what lies within this many
LOW, HIGH, STRONG_BIT, MISSING = 1, 2, 4, 8  # flags of a sample
OUT = LOW | HIGH | MISSING
_NAN = np.float32(np.nan)


class Samples(NamedTuple):
    """Of a tile: resampled values and their Σw² (frame, channel, y, x), and the frames' weights (frame, channel)."""

    values: np.ndarray
    squares: np.ndarray
    weights: np.ndarray


@kernel()
def sample_variance(a: Any, b: Any, light: Any) -> Any:
    """Return the variance a m + b of a sample in the light m [e-], at least that of m/10 + 1; b < 0 in clear frames."""
    return max(a * light + b, a * (np.float32(0.1) * light + np.float32(1.0)))


@kernel()
def _flag_by_noise(f, c, samples, squares, rule, planes):
    """Flag the samples of one channel of frame f that lie beyond the noise model."""
    low2, high2 = np.float32(rule.low * rule.low), np.float32(rule.high * rule.high)
    strong2 = np.float32(STRONG * STRONG)
    last = planes.a.shape[1] - 1
    for v in range(samples.shape[2]):  # whole arrays: a slice a row would take as long as the row
        own = min(v, last)
        for i in range(samples.shape[3]):
            middle, value = planes.median[v, i], samples[f, c, v, i]
            light = middle if middle > 0 else np.float32(0)
            model = sample_variance(planes.a[f, own, i], planes.b[f, own, i], light) * squares[f, c, v, i]
            model += planes.spread[v, i]
            model = planes.floor[v, i] if planes.floor[v, i] > model else model
            difference = value - middle
            d2 = difference * difference
            limit = low2 if difference < 0 else high2
            side = np.int32(LOW) if difference < 0 else np.int32(HIGH)
            flag = side if d2 > limit * model else np.int32(0)
            flag |= np.int32(STRONG_BIT) if d2 > strong2 * model else np.int32(0)
            planes.flags[f, v, i] = np.uint8(flag if value == value else np.int32(MISSING))


@kernel()
def flag_samples(
    c: int,
    samples: np.ndarray,
    squares: np.ndarray,
    rule: RejectionRule,
    planes: PixelPlanes,
    order: np.ndarray,
    grow: bool,
) -> None:
    """Test every sample of one channel of (frame, channel, y, x) against the median of its pixel."""
    frames, _, height, width = samples.shape
    for f in range(frames):
        if rule.method == NOISE:
            _flag_by_noise(f, c, samples, squares, rule, planes)
            if grow and any_flag(planes.flags[f].ravel()) & STRONG_BIT:
                _grow(f, samples[f, c], squares[f, c], planes, order)
            continue
        for v in range(height):
            row, out = samples[f, c, v], planes.flags[f, v]
            floor, ceiling = planes.floor[v], planes.ceiling[v]
            if rule.method < MEAN:
                for i in range(width):
                    flag = np.uint8(LOW) if row[i] < floor[i] else np.uint8(0)
                    flag = np.uint8(HIGH) if row[i] > ceiling[i] else flag
                    out[i] = flag if row[i] == row[i] else np.uint8(MISSING)
            else:
                for i in range(width):
                    out[i] = np.uint8(0) if row[i] == row[i] else np.uint8(MISSING)


@kernel()
def _grow(f, samples, squares, planes, order):
    """Around strong outliers of frame f (y, x) reject what lies beyond the strict threshold."""
    flags = planes.flags[f]
    height, width = flags.shape
    place = np.empty(width, np.int64)
    for i in range(width):
        place[order[i]] = i
    strict2 = np.float32(STRICT * STRICT)
    last = planes.a.shape[1] - 1
    for v in range(height):
        if not any_flag(flags[v]) & STRONG_BIT:
            continue
        for i in range(width):
            if not flags[v, i] & STRONG_BIT or flags[v, i] & MISSING:
                continue
            u = order[i]
            for y in range(max(0, v - GROW), min(height, v + GROW + 1)):
                for x in range(max(0, u - GROW), min(width, u + GROW + 1)):
                    j = place[x]
                    if (y - v) ** 2 + (x - u) ** 2 > GROW * GROW + 1 or flags[y, j] & OUT:
                        continue
                    light = max(planes.median[y, j], np.float32(0))
                    a, b = planes.a[f, min(y, last), j], planes.b[f, min(y, last), j]
                    own = sample_variance(a, b, light) * squares[y, j]
                    model = max(own + planes.spread[y, j], planes.floor[y, j])
                    difference = samples[y, j] - planes.median[y, j]
                    if difference * difference > strict2 * model:
                        flags[y, j] |= np.uint8(LOW) if difference < 0 else np.uint8(HIGH)


@kernel()
def _count_saturated(c, tile, scratch, order, out):
    """Count in the output the frames whose saturated samples reach a pixel."""
    for f in range(scratch.saturated.size):
        if not scratch.saturated[f]:
            continue
        for v in range(tile.rows):
            for i in range(tile.width):
                u = order[i] - tile.rim_left
                index = (c * tile.height + tile.rim_top + v) * tile.width + i
                if 0 <= u < tile.columns and scratch.reached[f, index]:
                    out.saturated[c, tile.row + v, tile.column + u] += 1


@kernel(error_model="numpy")
def _sum_chi(c, v, samples, planes, mean, scatter):
    """Sum (sample - mean)² over the model's variance of what is kept of row v into `scatter` (x)."""
    own = min(v, planes.a.shape[1] - 1)
    scatter[:] = 0.0
    for f in range(samples.values.shape[0]):
        for i in range(mean.size):
            light = planes.median[v, i] if planes.median[v, i] > 0 else np.float32(0)
            model = sample_variance(planes.a[f, own, i], planes.b[f, own, i], light) * samples.squares[f, c, v, i]
            difference = samples.values[f, c, v, i] - mean[i]
            good = np.int32(planes.flags[f, v, i]) & np.int32(OUT) == 0
            scatter[i] += float(difference * difference / model) if good else 0.0


class Sums(NamedTuple):
    """Sums over the frames of one row (x): weight times sample, weight, weight² times variance, counts."""

    total: np.ndarray
    weight: np.ndarray
    noise: np.ndarray
    kept: np.ndarray
    low: np.ndarray
    high: np.ndarray


@kernel()
def _sum_row(c, v, samples, weights, planes, sums):
    """Sum what is kept of row v of one channel of (frame, channel, y, x)."""
    frames, width = samples.shape[0], samples.shape[3]
    medians = planes.median[v]
    total, weight_sum, noise_sum, kept, lows, highs = sums
    total[:] = 0.0
    weight_sum[:] = 0.0
    noise_sum[:] = 0.0
    kept[:] = 0
    lows[:] = 0
    highs[:] = 0
    own, whole = min(v, planes.a.shape[1] - 1), np.int32(0)
    for f in range(frames):
        w, found = np.float32(weights[f, c]), np.uint8(0)
        for i in range(width):
            found |= planes.flags[f, v, i]
        if found & OUT == 0:  # most rows: no sample is left out
            whole += np.int32(1)
            for i in range(width):
                light = medians[i] if medians[i] > 0 else np.float32(0)
                total[i] += w * samples[f, c, v, i]
                weight_sum[i] += w
                noise_sum[i] += w * w * sample_variance(planes.a[f, own, i], planes.b[f, own, i], light)
            continue
        for i in range(width):
            bits = np.int32(planes.flags[f, v, i])
            good = bits & np.int32(OUT) == 0
            light = medians[i] if medians[i] > 0 else np.float32(0)
            variance = sample_variance(planes.a[f, own, i], planes.b[f, own, i], light)
            total[i] += w * samples[f, c, v, i] if good else np.float32(0)
            weight_sum[i] += w if good else np.float32(0)
            noise_sum[i] += w * w * variance if good else np.float32(0)
            kept[i] += np.int32(1) if good else np.int32(0)
            lows[i] += bits & np.int32(LOW)
            highs[i] += (bits >> np.int32(1)) & np.int32(1)
    for i in range(width):
        kept[i] += whole


@kernel(error_model="numpy")
def _average_row(c, v, sums, noise, rule, planes, block):
    """Turn the sums of row v of one channel into the mean and its variance, in place; NaN where nothing is left."""
    mean, weight, variance, kept = sums.total, sums.weight, sums.noise, sums.kept
    own, by_light, white = noise.shared[c, :, 0], noise.shared[c, :, 1], noise.white[c]
    median = planes.median[v]
    for i in range(block.size):
        mean[i] = mean[i] / weight[i] if kept[i] else _NAN
        variance[i] = variance[i] / (weight[i] * weight[i]) if kept[i] else _NAN
    if rule.method == MEDIAN:
        for i in range(block.size):
            mean[i] = median[i] if kept[i] else _NAN
            # Of normal samples the median's variance is pi/2 of the mean's, for three 1.35 of it.
            variance[i] *= np.float32(1.0 + 0.5708 * (1.0 - 1.0 / max(kept[i], 1)) ** 1.2)
    for i in range(block.size):
        light = median[i] if median[i] > 0 else np.float32(0)
        variance[i] = white * (variance[i] + (own[block[i]] + by_light[block[i]] * light * light))


@kernel()
def _average(c, samples, noise, rule, planes, tile, order, out):
    """Average what is left of one channel of a tile's `Samples` and write it out."""
    width = samples.values.shape[3]
    sums = Sums(
        np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32),
        np.empty(width, np.int32), np.empty(width, np.int32), np.empty(width, np.int32),
    )  # fmt: skip
    block = blocks_of(order, tile, noise)
    columns, scatter = order - tile.rim_left, np.empty(width)
    for y in range(tile.rows):
        v, row = tile.rim_top + y, tile.row + y
        _sum_row(c, v, samples.values, samples.weights, planes, sums)
        _average_row(c, v, sums, noise, rule, planes, block)
        for i in range(width):
            if columns[i] < 0 or columns[i] >= tile.columns:
                continue
            x = tile.column + columns[i]
            out.signal[c, row, x], out.variance[c, row, x] = sums.total[i], sums.noise[i]
            out.coverage[c, row, x] = sums.kept[i]
            out.rejected_low[c, row, x], out.rejected_high[c, row, x] = sums.low[i], sums.high[i]
        # A sample of the pixels is enough for the chi-square, where stars leave the median level: elsewhere their
        # flanks would be taken for noise.
        if y % 8 != 4:
            continue
        _sum_chi(c, v, samples, planes, sums.total, scatter)
        for i in range(width):
            n = sums.kept[i]
            if columns[i] < 0 or columns[i] >= tile.columns or n < 2:
                continue
            light = max(planes.median[v, i], np.float32(0))
            flat = sample_variance(planes.a[0, 0, i], planes.b[0, 0, i], light) > 4 * planes.spread[v, i]
            if flat or rule.method != NOISE:
                x = tile.column + columns[i]
                out.chi[0, c, row // BLOCK, x // BLOCK] += scatter[i]
                out.chi[1, c, row // BLOCK, x // BLOCK] += n - 1


@kernel()
def combine_tile(
    tile: Tile, samples: Samples, noise: Noise, rule: RejectionRule, scratch: Scratch, out: StackArrays
) -> None:
    """Combine the `Samples` of one tile into the output's arrays."""
    frames, channels = samples.weights.shape
    planes = empty_planes(frames, (tile.height, tile.width), tile.height if noise.taken.size else 1)
    order = column_order(tile.width, tile.split)
    for c in range(channels):
        fill_noise(c, noise, tile, order, planes)
        find_medians(c, samples.values, rule, planes, tile.split)
        flag_samples(c, samples.values, samples.squares, rule, planes, order, True)
        if scratch.median.size > 1:
            part = slice(c * tile.height * tile.width, (c + 1) * tile.height * tile.width)
            scratch.median[part] = planes.median.ravel()
            for f in range(frames):
                scratch.flags[f, part] = planes.flags[f].ravel()
        _count_saturated(c, tile, scratch, order, out)
        _average(c, samples, noise, rule, planes, tile, order, out)


@kernel()
def stack_tile(
    tile: Tile, frames: TileFrames, maps: Maps, noise: Noise, rule: RejectionRule, scratch: Scratch, out: StackArrays
) -> None:
    """Stack one tile of `TileFrames` into the output's arrays: resample every frame, then combine."""
    count, channels = frames.weight.shape
    shape = (count, channels, tile.height, tile.width)
    size = count * channels * tile.height * tile.width
    samples, squares = scratch.values[:size].reshape(shape), scratch.squares[:size].reshape(shape)
    order = column_order(tile.width, tile.split)
    for f in range(count):
        resample_frame(f, frames, maps, tile, scratch, samples[f], order)
    combine_tile(tile, Samples(samples, squares, frames.weight), noise, rule, scratch, out)
