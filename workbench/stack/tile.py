"""One tile of the stack, all frames deep: from raw samples to the combined pixels, in one compiled call.

A tile is some 64 x 256 output pixels with a rim of `RIM` more on every side, which the neighbourhood tests need.
For each frame its window of raw samples is calibrated, resampled and normalised; then, channel by channel, the
samples of each pixel are sorted, tested and averaged.  Nothing the size of a frame is ever made.
"""

from __future__ import annotations

import numba
import numpy as np

from .reject import MEAN, MEDIAN, NOISE, count_rejected
from .sample import PADDING, sample_window
from .window import fill_window

RIM = 4
BLOCK = 32  # output pixels that share their noise parameters
GROW = 3  # pixels around a strong outlier in which the same frame is tested more strictly
STRONG = 6.0  # an outlier is strong beyond this many sigma ...
STRICT = 2.0  # ... and its surroundings keep only what lies within this many
LOCAL_RANGE = 0.2  # of the median's range over 3 x 3 pixels counts as one sigma
_ROBUST = 1.4826
_NAN = np.float32(np.nan)


@numba.njit(nogil=True, cache=True)
def _columns(width, split, order):
    """Set `order` to the column of each place along a row (even columns first where split)."""
    for place in range(width):
        even = (width + 1) // 2
        order[place] = place if not split else (2 * place if place < even else 2 * (place - even) + 1)


@numba.njit(nogil=True, cache=True)
def _outside(values, at, channels, height, width, order, place, high, wide):
    """Make NaN what lies outside the frame, whose turned size is `high` x `wide`."""
    corners = True
    for v in (0, height - 1):
        for u in (0, width - 1):
            x = (
                place[0, 0]
                + u * (place[0, 1] + u * place[0, 3])
                + v * (place[0, 2] + u * place[0, 4] + v * place[0, 5])
            )
            y = (
                place[1, 0]
                + u * (place[1, 1] + u * place[1, 3])
                + v * (place[1, 2] + u * place[1, 4] + v * place[1, 5])
            )
            corners &= 1.0 <= x <= wide - 2.0 and 1.0 <= y <= high - 2.0
    if corners:
        return
    for v in range(height):
        for index in range(width):
            u = order[index]
            x = (
                place[0, 0]
                + u * (place[0, 1] + u * place[0, 3])
                + v * (place[0, 2] + u * place[0, 4] + v * place[0, 5])
            )
            y = (
                place[1, 0]
                + u * (place[1, 1] + u * place[1, 3])
                + v * (place[1, 2] + u * place[1, 4] + v * place[1, 5])
            )
            if not (-0.5 <= x <= wide - 0.5 and -0.5 <= y <= high - 0.5):
                for channel in range(channels):
                    values[at + (channel * height + v) * width + index] = _NAN


@numba.njit(nogil=True, cache=True)
def _soften(values, at, height, width, order, split, cell, place, local, window, half, rows, marks, count, flags):
    """Near saturated samples interpolate linearly, so that nothing rings, and flag what they reach themselves."""
    det = place[0, 1] * place[1, 2] - place[0, 2] * place[1, 1]
    even = (width + 1) // 2
    columns = 2 * half
    pace = 2 if split else 1
    for mark in range(count):
        row, column = marks[mark, 0], marks[mark, 1]
        channel = cell[row & 1, column & 1] if split else 0
        dx, dy = column - local[0, 0], row - local[1, 0]
        u0 = int(np.round((place[1, 2] * dx - place[0, 2] * dy) / det))
        v0 = int(np.round((place[0, 1] * dy - place[1, 1] * dx) / det))
        reach = 5 if split else 3
        for v in range(max(0, v0 - reach), min(height, v0 + reach + 1)):
            for u in range(max(0, u0 - reach), min(width, u0 + reach + 1)):
                index = u if not split else (u // 2 if u % 2 == 0 else even + u // 2)
                x = (
                    local[0, 0]
                    + u * (place[0, 1] + u * place[0, 3])
                    + v * (place[0, 2] + u * place[0, 4] + v * place[0, 5])
                )
                y = (
                    local[1, 0]
                    + u * (place[1, 1] + u * place[1, 3])
                    + v * (place[1, 2] + u * place[1, 4] + v * place[1, 5])
                )
                if abs(x - column) <= 0.75 * pace and abs(y - row) <= 0.75 * pace:
                    flags[(channel * height + v) * width + index] = 1
                if split and channel == 1:
                    odd = 0
                    for i in range(2):
                        odd = i if cell[0, i] == 1 else odd
                    a, b = 0.5 * (x + y - odd), 0.5 * (x - y - odd)
                    ia, ib = int(np.floor(a)), int(np.floor(b))
                    total = 0.0
                    for i in range(2):
                        for j in range(2):
                            r = ia + i - ib - j
                            c = ia + i + ib + j + odd
                            r, c = min(max(r, 0), rows - 1), min(max(c, 0), columns - 1)
                            weight = (a - ia if i else 1 - a + ia) * (b - ib if j else 1 - b + ib)
                            total += weight * window[r * columns + (c & 1) * half + (c >> 1)]
                else:
                    cy, cx = (row & 1, column & 1) if split else (0, 0)
                    a, b = (x - cx) / pace, (y - cy) / pace
                    ia, ib = int(np.floor(a)), int(np.floor(b))
                    total = 0.0
                    for i in range(2):
                        for j in range(2):
                            r = min(max((ib + j) * pace + cy, 0), rows - 1)
                            c = min(max((ia + i) * pace + cx, 0), columns - 1)
                            weight = (a - ia if i else 1 - a + ia) * (b - ib if j else 1 - b + ib)
                            spot = r * columns + ((c & 1) * half + (c >> 1) if split else c)
                            total += weight * window[spot]
                values[at + (channel * height + v) * width + index] = total


@numba.njit(nogil=True, cache=True)
def _normalise(values, at, channels, height, width, order, level, scale, left, top):
    """Scale a frame's resampled values and take its background surface off; see `stack.normalise`."""
    along = np.empty(width, np.float32)
    for channel in range(channels):
        p = level[channel]
        factor = np.float32(scale[channel])
        for v in range(height):
            y = top + v
            first = p[0] + y * (p[2] + y * p[5])
            slope = p[1] + y * p[4]
            start = at + (channel * height + v) * width
            row = values[start : start + width]
            for index in range(width):
                along[index] = order[index]
            c0 = np.float32(first + left * (slope + left * p[3]))
            c1 = np.float32(slope + 2.0 * left * p[3])
            c2 = np.float32(p[3])
            for index in range(width):
                row[index] = row[index] * factor - (c0 + along[index] * (c1 + along[index] * c2))


@numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})
def _sort(buffer, network, width):
    for pair in range(network.shape[0]):
        a, b = buffer[network[pair, 0]], buffer[network[pair, 1]]
        for i in range(width):
            low = a[i] if a[i] < b[i] else b[i]
            high = b[i] if a[i] < b[i] else a[i]
            a[i] = low
            b[i] = high


@numba.njit(nogil=True, cache=True)
def _local_range(median, spread, height, width, split):
    """Set `spread` to the range of the median over 3 x 3 pixels, rows of the split kind where `split`."""
    even = (width + 1) // 2
    high = np.empty(width, np.float32)
    low = np.empty(width, np.float32)
    for v in range(height):
        above, below = max(v - 1, 0), min(v + 1, height - 1)
        one, two, three = median[above], median[v], median[below]
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
            continue
        for i in range(even):
            left, right = even + max(i - 1, 0), min(even + i, width - 1)
            out[i] = max(high[i], high[left], high[right]) - min(low[i], low[left], low[right])
        for i in range(even, width):
            left, right = i - even, min(i - even + 1, even - 1)
            out[i] = max(high[i], high[left], high[right]) - min(low[i], low[left], low[right])


@numba.njit(nogil=True, cache=True)
def stack_tile(
    raw, starts, row0, frame_rows, base, dark, factors, group, scale_maps, turns, cells, places, bounds, white,
    split, left, top, height, width, levels, scales, weights, alpha, beta, master, correction,
    method, k_low, k_high, table, network, kernel, ramp, window, values, squares, marks, saturations,
    rows_out, first_row, first_column, signal, variance, coverage, low_map, high_map, saturated_map, chi, flagged,
):  # fmt: skip
    """Stack one tile into the band's arrays.

    Sizes: F frames, C channels; the tile with its rim is `height` x `width`, its first pixel at output (`top`,
    `left`).  `raw` is flat, frame f's rows from `row0[f]` on begin at `starts[f]`.  `alpha`, `beta` (F, C, blocks)
    give a sample's variance α m + β in normalised units, m the signal; `master` (C, blocks, 2) the masters' share
    μ + ν m².  `correction` (C): equivalent white noise of a resampled pixel over a sample's variance.
    """
    frames = starts.size
    channels = weights.shape[1]
    size = height * width
    order = np.empty(width, np.int64)
    _columns(width, split, order)
    high0, wide0 = scale_maps.shape[1], scale_maps.shape[2]
    for f in range(frames):
        at = f * channels * size
        saturations[f] = False
        wtop, wleft, rows, half = bounds[f, 0], bounds[f, 1], bounds[f, 2], bounds[f, 3]
        high, wide = (high0, wide0) if turns[f] % 2 == 0 else (wide0, high0)
        if wtop >= high or wleft >= wide or wtop + rows <= 0 or wleft + 2 * half <= 0:
            values[at : at + channels * size] = _NAN
            continue
        frame = raw[starts[f] : starts[f] + frame_rows[f] * wide0].reshape(frame_rows[f], wide0)
        found = fill_window(
            frame, row0[f], base[group[f]], dark[group[f]], factors[f], scale_maps[group[f]], turns[f], wtop, wleft,
            rows, half, split, white, window, marks,
        )  # fmt: skip
        place = places[f]
        local = place.copy()
        local[0, 0] -= wleft
        local[1, 0] -= wtop
        sample_window(window, half, split, cells[f], local, height, width, kernel, ramp, values, squares, at)
        if found:
            reached = flagged[f]
            reached[:] = 0
            saturations[f] = True
            _soften(
                values,
                at,
                height,
                width,
                order,
                split,
                cells[f],
                place,
                local,
                window,
                half,
                rows,
                marks,
                found,
                reached,
            )
        _normalise(values, at, channels, height, width, order, levels[f], scales[f], left, top)
        _outside(values, at, channels, height, width, order, place, high, wide)

    buffer = np.empty((frames, width), np.float32)
    counts = np.empty((height, width), np.int32)
    median = np.empty((height, width), np.float32)
    floor = np.empty((height, width), np.float32)
    ceiling = np.empty((height, width), np.float32)
    spread = np.empty((height, width), np.float32)
    flags = np.empty((frames, height, width), np.uint8)
    a_rows = np.empty((frames, width), np.float32)
    b_rows = np.empty((frames, width), np.float32)
    block_of = np.empty(width, np.int64)
    for i in range(width):
        block_of[i] = min(max((order[i] - RIM) // BLOCK, 0), alpha.shape[2] - 1)
    column = np.empty(frames, np.float32)
    inner_top, inner_left = RIM, RIM
    inner_rows = min(height - 2 * RIM, rows_out - first_row)
    inner_columns = min(width - 2 * RIM, signal.shape[2] - first_column)
    total = np.empty(width, np.float32)
    weight_sum = np.empty(width, np.float32)
    noise_sum = np.empty(width, np.float32)
    kept = np.empty(width, np.int32)
    lows = np.empty(width, np.int32)
    highs = np.empty(width, np.int32)
    low2, high2 = np.float32(k_low * k_low), np.float32(k_high * k_high)
    strong2, strict2 = np.float32(STRONG * STRONG), np.float32(STRICT * STRICT)
    for c in range(channels):
        # The median of every pixel, and what the method needs besides.
        for v in range(height):
            number, medians, floors, ceilings = counts[v], median[v], floor[v], ceiling[v]
            number[:] = 0
            for f in range(frames):
                start = (f * channels + c) * size + v * width
                row, into = values[start : start + width], buffer[f]
                for i in range(width):
                    good = row[i] == row[i]
                    into[i] = row[i] if good else np.float32(np.inf)
                    number[i] += np.int32(1) if good else np.int32(0)
            _sort(buffer, network, width)
            complete = True
            for i in range(width):
                complete &= number[i] == frames
            if complete:
                one, two = buffer[(frames - 1) // 2], buffer[frames // 2]
                for i in range(width):
                    medians[i] = np.float32(0.5) * (one[i] + two[i])
            else:
                for i in range(width):
                    n = number[i]
                    medians[i] = np.float32(0.5) * (buffer[(n - 1) // 2, i] + buffer[n // 2, i]) if n else np.float32(0)
            if method == NOISE:
                floors[:] = 0.0
                if frames >= 8:
                    if complete:
                        held = (frames + 1) // 2
                        floors[:] = np.inf
                        for k in range(frames - held + 1):
                            one, two = buffer[k], buffer[k + held - 1]
                            for i in range(width):
                                down, up = medians[i] - one[i], two[i] - medians[i]
                                wider = down if down > up else up
                                floors[i] = wider if wider < floors[i] else floors[i]
                    else:
                        for i in range(width):
                            n = number[i]
                            if n < 8:
                                continue
                            held = (n + 1) // 2
                            best = np.float32(np.inf)
                            for k in range(n - held + 1):
                                best = min(best, max(medians[i] - buffer[k, i], buffer[k + held - 1, i] - medians[i]))
                            floors[i] = best
                    for i in range(width):
                        floors[i] = (np.float32(_ROBUST) * floors[i]) ** 2
            elif method < MEAN:
                for i in range(width):
                    n = number[i]
                    for k in range(n):
                        column[k] = buffer[k, i]
                    down, up = count_rejected(column, n, method, k_low, k_high, table)
                    floors[i] = column[down] if n else np.float32(0)
                    ceilings[i] = column[n - 1 - up] if n else np.float32(0)
        if method == NOISE:
            _local_range(median, spread, height, width, split)
            share = np.float32(LOCAL_RANGE * LOCAL_RANGE)
            for v in range(height):
                for i in range(width):
                    spread[v, i] = share * spread[v, i] * spread[v, i]
        # Test every sample.
        for f in range(frames):
            a_row, b_row = a_rows[f], b_rows[f]
            for i in range(width):
                a_row[i] = alpha[f, c, block_of[i]]
                b_row[i] = beta[f, c, block_of[i]]
            strong = 0
            for v in range(height):
                start = (f * channels + c) * size + v * width
                row, square = values[start : start + width], squares[start : start + width]
                medians, floors, ceilings, extra, out = median[v], floor[v], ceiling[v], spread[v], flags[f, v]
                if method == NOISE:
                    found = np.int32(0)
                    for i in range(width):
                        light = medians[i] if medians[i] > 0 else np.float32(0)
                        model = (a_row[i] * light + b_row[i]) * square[i] + extra[i]
                        model = floors[i] if floors[i] > model else model
                        difference = row[i] - medians[i]
                        d2 = difference * difference
                        flag = np.uint8(0)
                        flag = np.uint8(1) if d2 > low2 * model and difference < 0 else flag
                        flag = np.uint8(2) if d2 > high2 * model and difference > 0 else flag
                        flag |= np.uint8(4) if d2 > strong2 * model else np.uint8(0)
                        out[i] = flag if row[i] == row[i] else np.uint8(8)
                        found |= np.int32(out[i] & 4)
                    strong |= found
                elif method < MEAN:
                    for i in range(width):
                        flag = np.uint8(1) if row[i] < floors[i] else np.uint8(0)
                        flag = np.uint8(2) if row[i] > ceilings[i] else flag
                        out[i] = flag if row[i] == row[i] else np.uint8(8)
                else:
                    for i in range(width):
                        out[i] = np.uint8(0) if row[i] == row[i] else np.uint8(8)
            if strong:
                _grow(
                    flags[f], values, squares, (f * channels + c) * size, median, floor, spread, a_row, b_row, height,
                    width, split, order, strict2,
                )  # fmt: skip
        for f in range(frames):
            if not saturations[f]:
                continue
            for v in range(inner_top, inner_top + inner_rows):
                for i in range(width):
                    u = order[i] - inner_left
                    if 0 <= u < inner_columns and flagged[f, (c * height + v) * width + i]:
                        saturated_map[c, first_row + v - inner_top, first_column + u] += 1
        # Average what is left.
        for v in range(inner_top, inner_top + inner_rows):
            total[:] = 0.0
            weight_sum[:] = 0.0
            noise_sum[:] = 0.0
            kept[:] = 0
            lows[:] = 0
            highs[:] = 0
            medians = median[v]
            for f in range(frames):
                w = np.float32(weights[f, c])
                a_row, b_row = a_rows[f], b_rows[f]
                start = (f * channels + c) * size + v * width
                row, flag = values[start : start + width], flags[f, v]
                for i in range(width):
                    good = (flag[i] & 11) == 0
                    light = medians[i] if medians[i] > 0 else np.float32(0)
                    total[i] += w * row[i] if good else np.float32(0)
                    weight_sum[i] += w if good else np.float32(0)
                    noise_sum[i] += w * w * (a_row[i] * light + b_row[i]) if good else np.float32(0)
                    kept[i] += np.int32(1) if good else np.int32(0)
                    lows[i] += np.int32(flag[i] & 1)
                    highs[i] += np.int32((flag[i] >> 1) & 1)
            y = first_row + v - inner_top
            measure = v % 8 == 0  # a sample of the pixels tells the chi-square
            for i in range(width):
                u = order[i] - inner_left
                if u < 0 or u >= inner_columns:
                    continue
                x = first_column + u
                n = kept[i]
                coverage[c, y, x] = n
                low_map[c, y, x] = lows[i]
                high_map[c, y, x] = highs[i]
                if n == 0:
                    signal[c, y, x] = _NAN
                    variance[c, y, x] = _NAN
                    continue
                mean = total[i] / weight_sum[i]
                noise = noise_sum[i] / (weight_sum[i] * weight_sum[i])
                if method == MEDIAN:
                    mean = medians[i]
                    # Of normal samples the median's variance is π/2 of the mean's, for three 1.35 of it.
                    noise *= np.float32(1.0 + 0.5708 * (1.0 - 1.0 / n) ** 1.2)
                block = block_of[i]
                light = medians[i] if medians[i] > 0 else np.float32(0)
                signal[c, y, x] = mean
                shared = master[c, block, 0] + master[c, block, 1] * light * light
                variance[c, y, x] = correction[c] * (noise + shared)
                if measure and n > 1:
                    # where stars leave the median level: elsewhere their flanks would be taken for noise
                    flat = alpha[0, c, block] * light + beta[0, c, block] > 4 * spread[v, i] or method != NOISE
                    if flat:
                        scatter = 0.0
                        for f in range(frames):
                            if flags[f, v, i] & 11:
                                continue
                            spot = (f * channels + c) * size + v * width + i
                            model = (alpha[f, c, block] * light + beta[f, c, block]) * squares[spot]
                            scatter += (values[spot] - mean) ** 2 / model
                        chi[0, c, (first_row + v - inner_top) // BLOCK, x // BLOCK] += scatter
                        chi[1, c, (first_row + v - inner_top) // BLOCK, x // BLOCK] += n - 1


@numba.njit(nogil=True, cache=True)
def _grow(flags, values, squares, at, median, floor, spread, a_row, b_row, height, width, split, order, strict2):
    """Around strong outliers of a frame reject what lies beyond the strict threshold."""
    even = (width + 1) // 2
    for v in range(height):
        for i in range(width):
            if not flags[v, i] & 4 or flags[v, i] & 8:
                continue
            u = order[i]
            for y in range(max(0, v - GROW), min(height, v + GROW + 1)):
                for x in range(max(0, u - GROW), min(width, u + GROW + 1)):
                    if (y - v) ** 2 + (x - u) ** 2 > GROW * GROW + 1:
                        continue
                    j = x if not split else (x // 2 if x % 2 == 0 else even + x // 2)
                    if flags[y, j] & 11:
                        continue
                    light = max(median[y, j], np.float32(0))
                    model = (a_row[j] * light + b_row[j]) * squares[at + y * width + j] + spread[y, j]
                    model = max(model, floor[y, j])
                    difference = values[at + y * width + j] - median[y, j]
                    if difference * difference > strict2 * model:
                        flags[y, j] |= np.uint8(1) if difference < 0 else np.uint8(2)


def scratch_arrays(frames: int, channels: int, height: int, width: int, window: int) -> dict[str, np.ndarray]:
    """Return the buffers that one thread needs for `stack_tile`, by name."""
    size = channels * height * width
    return {
        "ramp": np.arange(width + PADDING, dtype=np.float32),
        "window": np.zeros(window + PADDING, np.float32),
        "values": np.zeros(frames * size + PADDING, np.float32),
        "squares": np.zeros(frames * size + PADDING, np.float32),
        "marks": np.empty((4096, 2), np.int64),
        "saturations": np.zeros(frames, np.bool_),
        "flagged": np.zeros((frames, size), np.uint8),
    }
