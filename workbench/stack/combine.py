"""The samples of a tile become pixels: the median, the test of every sample against it, the mean of what is left.

One set of compiled loops for the engine, for the verb `stack` on cubes and for looks at single samples (`pixel`).  The
samples are (frame, channel, y, x).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..core.kernels import kernel
from ..core.statistics import MAD_TO_SIGMA
from .normalise import fill_noise
from .reject import MEAN, MEDIAN, NOISE, PixelPlanes, RejectionRule, count_rejected, empty_planes, sort_columns
from .tile import Maps, Scratch, TileFrames, column_order, resample_frame
from .window import BLOCK, Tile

if TYPE_CHECKING:
    from .engine import StackArrays
    from .normalise import Noise

GROW = 3  # pixels around a strong outlier in which the same frame is tested more strictly
STRONG = 6.0  # an outlier is strong beyond this many sigma ...
STRICT = 2.0  # ... and its surroundings keep only what lies within this many
LOCAL_RANGE = 0.2  # of the median's range over 3 x 3 pixels counts as one sigma
MANY = 8  # from so many samples on a pixel's own scatter counts
LOW, HIGH, STRONG_BIT, MISSING = 1, 2, 4, 8  # flags of a sample
OUT = LOW | HIGH | MISSING
_NAN = np.float32(np.nan)


class Samples(NamedTuple):
    """Of a tile: resampled values and their Σw² (frame, channel, y, x), and the frames' weights (frame, channel)."""

    values: np.ndarray
    squares: np.ndarray
    weights: np.ndarray


@kernel()
def _local_range(median, spread, split):
    """Set `spread` (y, x) to (0.2 times the range of the median over 3 x 3 pixels)²."""
    height, width = median.shape
    even = (width + 1) // 2
    high = np.empty(width, np.float32)
    low = np.empty(width, np.float32)
    share = np.float32(LOCAL_RANGE * LOCAL_RANGE)
    for v in range(height):
        one, two, three = median[max(v - 1, 0)], median[v], median[min(v + 1, height - 1)]
        for i in range(width):
            top = one[i] if one[i] > two[i] else two[i]
            high[i] = top if top > three[i] else three[i]
            bottom = one[i] if one[i] < two[i] else two[i]
            low[i] = bottom if bottom < three[i] else three[i]
        out = spread[v]
        if not split:
            for i in range(width):
                left, right = max(i - 1, 0), min(i + 1, width - 1)
                out[i] = max(high[i], high[left], high[right]) - min(low[i], low[left], low[right])
        else:
            for i in range(even):
                left, right = even + max(i - 1, 0), min(even + i, width - 1)
                out[i] = max(high[i], high[left], high[right]) - min(low[i], low[left], low[right])
            for i in range(even, width):
                left, right = i - even, min(i - even + 1, even - 1)
                out[i] = max(high[i], high[left], high[right]) - min(low[i], low[left], low[right])
        for i in range(width):
            out[i] = share * out[i] * out[i]


@kernel()
def _own_scatter(buffer, number, median, floor, complete):
    """Set `floor` (x) to (1.4826 MAD)² of each pixel's own samples, from eight on.

    `buffer` (frame, x) is sorted: the MAD is the smallest window about the median that holds half of the samples.
    """
    frames, width = buffer.shape
    if complete:
        held = (frames + 1) // 2
        floor[:] = np.inf
        for k in range(frames - held + 1):
            one, two = buffer[k], buffer[k + held - 1]
            for i in range(width):
                down, up = median[i] - one[i], two[i] - median[i]
                wider = down if down > up else up
                floor[i] = wider if wider < floor[i] else floor[i]
    else:
        for i in range(width):
            n = number[i]
            if n < MANY:
                continue
            held = (n + 1) // 2
            best = np.float32(np.inf)
            for k in range(n - held + 1):
                best = min(best, max(median[i] - buffer[k, i], buffer[k + held - 1, i] - median[i]))
            floor[i] = best
    for i in range(width):
        floor[i] = (np.float32(MAD_TO_SIGMA) * floor[i]) ** 2


@kernel()
def _sort_row(c, v, samples, network, buffer, number):
    """Sort the samples of row v into `buffer` (frame, x), missing ones last; return whether none is missing."""
    frames, width = samples.shape[0], samples.shape[3]
    number[:] = 0
    for f in range(frames):
        row, into = samples[f, c, v], buffer[f]
        for i in range(width):
            good = row[i] == row[i]
            into[i] = row[i] if good else np.float32(np.inf)
            number[i] += np.int32(1) if good else np.int32(0)
    sort_columns(buffer, network, width)
    complete = True
    for i in range(width):
        complete &= number[i] == frames
    return complete


@kernel()
def _find_limits(buffer, number, rule, column, floor, ceiling):
    """Set the lowest and the highest sample (x) that a classical method keeps of sorted ones (frame, x)."""
    for i in range(number.size):
        n = number[i]
        for k in range(n):
            column[k] = buffer[k, i]
        down, up = count_rejected(column, n, rule.method, rule.low, rule.high, rule.table)
        floor[i] = column[down] if n else np.float32(0)
        ceiling[i] = column[n - 1 - up] if n else np.float32(0)


@kernel()
def find_medians(c: int, samples: np.ndarray, rule: RejectionRule, planes: PixelPlanes, split: bool) -> None:
    """Of one channel of (frame, channel, y, x): the median of every pixel, and what the method needs besides."""
    frames, _, height, width = samples.shape
    buffer = planes.sorted
    column = np.empty(frames, np.float32)
    for v in range(height):
        number, median, floor = planes.count[v], planes.median[v], planes.floor[v]
        complete = _sort_row(c, v, samples, rule.network, buffer, number)
        if complete:
            one, two = buffer[(frames - 1) // 2], buffer[frames // 2]
            for i in range(width):
                median[i] = np.float32(0.5) * (one[i] + two[i])
        else:
            for i in range(width):
                n = number[i]
                median[i] = np.float32(0.5) * (buffer[(n - 1) // 2, i] + buffer[n // 2, i]) if n else np.float32(0)
        if rule.method == NOISE:
            floor[:] = 0.0
            if frames >= MANY:
                _own_scatter(buffer, number, median, floor, complete)
        elif rule.method < MEAN:
            _find_limits(buffer, number, rule, column, floor, planes.ceiling[v])
    if rule.method == NOISE:
        _local_range(planes.median, planes.spread, split)


@kernel()
def sample_variance(a: Any, b: Any, light: Any) -> Any:
    """Return the variance a m + b of a sample in the light m [e-], at least that of m/10 + 1; b < 0 in clear frames."""
    return max(a * light + b, a * (np.float32(0.1) * light + np.float32(1.0)))


@kernel()
def _flag_by_noise(row, square, a, b, planes, v, rule, out):
    """Flag the samples (x) of row v that lie beyond the noise model; return whether any is strong."""
    found = np.int32(0)
    low2, high2 = np.float32(rule.low * rule.low), np.float32(rule.high * rule.high)
    strong2 = np.float32(STRONG * STRONG)
    median, floor, extra = planes.median[v], planes.floor[v], planes.spread[v]
    for i in range(row.size):
        light = median[i] if median[i] > 0 else np.float32(0)
        model = sample_variance(a[i], b[i], light) * square[i] + extra[i]
        model = floor[i] if floor[i] > model else model
        difference = row[i] - median[i]
        d2 = difference * difference
        flag = np.uint8(0)
        flag = np.uint8(LOW) if d2 > low2 * model and difference < 0 else flag
        flag = np.uint8(HIGH) if d2 > high2 * model and difference > 0 else flag
        flag |= np.uint8(STRONG_BIT) if d2 > strong2 * model else np.uint8(0)
        out[i] = flag if row[i] == row[i] else np.uint8(MISSING)
        found |= np.int32(out[i] & STRONG_BIT)
    return found


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
    last = planes.a.shape[1] - 1
    for f in range(frames):
        strong = 0
        for v in range(height):
            row, out = samples[f, c, v], planes.flags[f, v]
            floor, ceiling = planes.floor[v], planes.ceiling[v]
            if rule.method == NOISE:
                a, b = planes.a[f, min(v, last)], planes.b[f, min(v, last)]
                strong |= _flag_by_noise(row, squares[f, c, v], a, b, planes, v, rule, out)
            elif rule.method < MEAN:
                for i in range(width):
                    flag = np.uint8(LOW) if row[i] < floor[i] else np.uint8(0)
                    flag = np.uint8(HIGH) if row[i] > ceiling[i] else flag
                    out[i] = flag if row[i] == row[i] else np.uint8(MISSING)
            else:
                for i in range(width):
                    out[i] = np.uint8(0) if row[i] == row[i] else np.uint8(MISSING)
        if strong and grow:
            _grow(f, samples[f, c], squares[f, c], planes, order)


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


@kernel()
def _sum_chi(samples, squares, planes, place, mean, light):
    """Return the sum of (sample - mean)² over the model's variance of what is kept of a pixel; `place` (c, v, i)."""
    c, v, i = place
    own = min(v, planes.a.shape[1] - 1)
    scatter = 0.0
    for f in range(samples.shape[0]):
        if planes.flags[f, v, i] & OUT:
            continue
        model = sample_variance(planes.a[f, own, i], planes.b[f, own, i], light) * squares[f, c, v, i]
        scatter += (samples[f, c, v, i] - mean) ** 2 / model
    return scatter


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
    for f in range(frames):
        w = np.float32(weights[f, c])
        own = min(v, planes.a.shape[1] - 1)
        a, b, row, flag = planes.a[f, own], planes.b[f, own], samples[f, c, v], planes.flags[f, v]
        for i in range(width):
            good = (flag[i] & OUT) == 0
            light = medians[i] if medians[i] > 0 else np.float32(0)
            total[i] += w * row[i] if good else np.float32(0)
            weight_sum[i] += w if good else np.float32(0)
            noise_sum[i] += w * w * sample_variance(a[i], b[i], light) if good else np.float32(0)
            kept[i] += np.int32(1) if good else np.int32(0)
            lows[i] += np.int32(flag[i] & LOW)
            highs[i] += np.int32((flag[i] >> 1) & 1)


@kernel()
def _average(c, samples, noise, rule, planes, tile, order, out):
    """Average what is left of one channel of a tile's `Samples` and write it out."""
    width = samples.values.shape[3]
    sums = Sums(
        np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32),
        np.empty(width, np.int32), np.empty(width, np.int32), np.empty(width, np.int32),
    )  # fmt: skip
    last = noise.alpha.shape[2] - 1
    for y in range(tile.rows):
        v = tile.rim_top + y
        _sum_row(c, v, samples.values, samples.weights, planes, sums)
        for i in range(width):
            u = order[i] - tile.rim_left
            if u < 0 or u >= tile.columns:
                continue
            row, x, n = tile.row + y, tile.column + u, sums.kept[i]
            out.coverage[c, row, x] = n
            out.rejected_low[c, row, x], out.rejected_high[c, row, x] = sums.low[i], sums.high[i]
            if n == 0:
                out.signal[c, row, x], out.variance[c, row, x] = _NAN, _NAN
                continue
            mean = sums.total[i] / sums.weight[i]
            variance = sums.noise[i] / (sums.weight[i] * sums.weight[i])
            if rule.method == MEDIAN:
                mean = planes.median[v, i]
                # Of normal samples the median's variance is pi/2 of the mean's, for three 1.35 of it.
                variance *= np.float32(1.0 + 0.5708 * (1.0 - 1.0 / n) ** 1.2)
            block = min((u + tile.phase) // BLOCK, last)
            light = max(planes.median[v, i], np.float32(0))
            shared = noise.shared[c, block, 0] + noise.shared[c, block, 1] * light * light
            out.signal[c, row, x] = mean
            out.variance[c, row, x] = noise.white[c] * (variance + shared)
            # A sample of the pixels is enough for the chi-square, where stars leave the median level: elsewhere their
            # flanks would be taken for noise.
            if y % 8 == 4 and n > 1:
                flat = sample_variance(planes.a[0, 0, i], planes.b[0, 0, i], light) > 4 * planes.spread[v, i]
                if flat or rule.method != NOISE:
                    scatter = _sum_chi(samples.values, samples.squares, planes, (c, v, i), mean, light)
                    out.chi[0, c, row // BLOCK, x // BLOCK] += scatter
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
