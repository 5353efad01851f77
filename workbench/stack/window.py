"""The piece of a frame that a tile asks for: calibrated, turned, mirrored at the edges, its holes filled."""

from __future__ import annotations

import numba
import numpy as np

from .kernel import FAST


@numba.njit(nogil=True, cache=True)
def unturned(turn, y, x, height, width):
    """Return row and column in a frame of a pixel (y, x) of the frame turned by quarters."""
    if turn == 0:
        return y, x
    if turn == 1:
        return x, width - 1 - y
    if turn == 2:
        return height - 1 - y, width - 1 - x
    return height - 1 - x, y


@numba.njit(nogil=True, cache=True)
def _source(turn, wy, wx, height, width):
    """Return row and column in the frame of a place in the turned frame, mirrored at its edges, which keeps colours."""
    high, wide = (height, width) if turn % 2 == 0 else (width, height)
    wy = -wy if wy < 0 else wy
    wx = -wx if wx < 0 else wx
    wy = 2 * (high - 1) - wy if wy >= high else wy
    wx = 2 * (wide - 1) - wx if wx >= wide else wx
    return unturned(turn, min(max(wy, 0), high - 1), min(max(wx, 0), wide - 1), height, width)


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def _calibrate_row(raw, base, dark, factor, scale, line):
    """Set ``line = (raw - base - factor dark) scale``; return the highest raw value."""
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


@numba.njit(nogil=True, cache=True)
def fill_window(raw, row0, base, dark, factor, scale, turn, top, left, rows, half, split, white, window, marks):
    """Calibrate a piece of a frame into `window` and return how many of its pixels are saturated.

    `raw` holds the frame's rows from `row0` on; ``value = (raw - base - factor dark) scale``, NaN where `scale` is (a
    defect, filled from its same-colour neighbours); a `base` of one pixel counts as none.  The window begins at
    (`top`, `left`) of the frame turned by `turn` quarters, has `rows` rows of 2 x `half` pixels, and keeps even and
    odd columns apart if `split`.  Beyond the frame's edge pixels are mirrored.  `marks` receives the saturated
    pixels' places.
    """
    height, width = scale.shape
    wide = width if turn % 2 == 0 else height
    columns = 2 * half
    line = np.empty(columns, np.float32)
    holes = 0
    saturated = 0
    factor = np.float32(factor)
    inside = turn == 0 and left >= 0 and left + columns <= wide
    nothing = base[0, 0:0]
    for row in range(rows):
        wy = top + row
        if inside:
            y, _ = _source(0, wy, 0, height, width)
            part = slice(left, left + columns)
            under = base[y, part] if base.size > 1 else nothing
            peak = _calibrate_row(raw[y - row0, part], under, dark[y, part], factor, scale[y, part], line)
        else:
            peak = raw[0, 0]
            for x in range(columns):
                i, j = _source(turn, wy, left + x, height, width)
                value = raw[i - row0, j]
                offset = factor * dark[i, j] + (base[i, j] if base.size > 1 else np.float32(0.0))
                line[x] = (np.float32(value) - offset) * scale[i, j]
                peak = value if value > peak else peak
        if peak >= white:
            for x in range(columns):
                i, j = _source(turn, wy, left + x, height, width)
                if raw[i - row0, j] >= white and saturated < marks.shape[0]:
                    marks[saturated, 0], marks[saturated, 1] = row, x
                    saturated += 1
        out = window[row * columns : (row + 1) * columns]
        if split:
            even, odd = out[:half], out[half:]
            for x in range(half):
                even[x] = line[2 * x]
                odd[x] = line[2 * x + 1]
        else:
            out[:] = line
        holes += _has_nan(line)
    if holes:
        _fill_holes(window, rows, half, split)
    return saturated


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def _has_nan(line):
    total = np.float32(0.0)
    for x in range(line.size):
        total += line[x]
    return total - total != np.float32(0.0)  # infinities too


@numba.njit(nogil=True, cache=True)
def _fill_holes(window, rows, half, split):
    """Give missing pixels the mean of their nearest neighbours of the same colour, at up to three steps."""
    columns = 2 * half
    reach = 2 if split else 1  # rows and columns to the next pixel of the same colour
    size = rows * columns
    count = 0
    for index in range(size):
        count += window[index] - window[index] != 0  # NaN and infinities
    places = np.empty(count, np.int64)
    values = np.empty(count, np.float32)
    count = 0
    for index in range(size):
        if window[index] - window[index] == 0:
            continue
        row, rest = index // columns, index % columns
        # Along a row of the split window the next sample is of the same colour already.
        low, high = (rest // half * half, rest // half * half + half) if split else (0, columns)
        found = np.float32(np.nan)
        for step in range(1, 4):
            total = np.float32(0.0)
            number = 0
            for way in range(4):
                j, i = row, rest
                if way == 0:
                    j -= reach * step
                elif way == 1:
                    j += reach * step
                elif way == 2:
                    i -= step
                else:
                    i += step
                if 0 <= j < rows and low <= i < high:
                    value = window[j * columns + i]
                    if value - value == 0:
                        total += value
                        number += 1
            if number >= 2:
                found = total / np.float32(number)
                break
        places[count], values[count] = index, found
        count += 1
    for index in range(count):
        window[places[index]] = values[index]
