"""All output pixels of a tile from its window: runs that share their offsets, found row by row."""

from __future__ import annotations

import numba
import numpy as np

from .lattice import each, run_quincunx, run_square

PADDING = 64  # elements beyond a row that whole vectors may touch


@numba.njit(nogil=True, cache=True)
def _floors(way, m):
    x = way[0] + m * (way[1] + m * way[2])
    y = way[3] + m * (way[4] + m * way[5])
    return int(np.floor(x)), int(np.floor(y))


@numba.njit(nogil=True, cache=True)
def sample_window(window, half, split, cell, place, height, width, kernel, ramp, value, square, at):
    """Resample a window at every pixel of a tile, into the flat `value` and its Σw², `square`, from `at` on.

    They receive (channel, y, x), along x the even columns first, then the odd ones, where the window is split
    (`unsplit` joins them), and must have `PADDING` elements to spare.  `place` (2, 6) gives the position in the
    window, x then y, as quadratics in the tile's own column u and row v: coefficients of 1, u, v, u², u v, v².
    `cell` is the colour of the window's first pixels (0 R, 1 G, 2 B).
    """
    columns = 2 * half
    bases = np.empty(11, np.int64)
    pace = 2 if split else 1  # output columns from one position to the next, and mosaic pixels between samples
    for channel in range(3 if split else 1):
        green = split and channel == 1
        cy = cx = 0  # this channel's place in the 2 x 2 cell
        if split:
            for j in range(2):
                for i in range(2):
                    if cell[j, i] == channel:
                        cy, cx = j, i
        odd = (cy + cx) % 2 if green else 0
        first = (2 * cy + cx) * half if split else 0
        stride = 4 * half if split else columns
        for v in range(height):
            x0 = place[0, 0] + v * (place[0, 2] + v * place[0, 5])
            x1 = place[0, 1] + v * place[0, 4]
            y0 = place[1, 0] + v * (place[1, 2] + v * place[1, 5])
            y1 = place[1, 1] + v * place[1, 4]
            if green:
                o0, o1, o2 = 0.5 * (x0 + y0 - odd), 0.5 * (x1 + y1), 0.5 * (place[0, 3] + place[1, 3])
                q0, q1, q2 = 0.5 * (x0 - y0 - odd), 0.5 * (x1 - y1), 0.5 * (place[0, 3] - place[1, 3])
            else:
                o0, o1, o2 = (x0 - cx) / pace, x1 / pace, place[0, 3] / pace
                q0, q1, q2 = (y0 - cy) / pace, y1 / pace, place[1, 3] / pace
            for parity in range(pace):
                count = (width - parity + pace - 1) // pace
                # Lattice position of the m-th pixel, less m where a step of one pixel is a step of one sample.
                p0, p1, p2 = o0 + parity * (o1 + parity * o2), pace * (o1 + 2 * parity * o2) - 1.0, pace * pace * o2
                r0, r1, r2 = q0 + parity * (q1 + parity * q2), pace * (q1 + 2 * parity * q2), pace * pace * q2
                if green:
                    r1 -= 1.0
                drift = (p0, p1, p2, r0, r1, r2)
                k, j = _floors(drift, 0)
                k_end, j_end = _floors(drift, count - 1)
                if 12 * (abs(k_end - k) + abs(j_end - j)) > count:
                    r1 += 1.0 if green else 0.0
                    way = (
                        np.float32(p0),
                        np.float32(p1 + 1.0),
                        np.float32(p2),
                        np.float32(r0),
                        np.float32(r1),
                        np.float32(r2),
                    )
                    each(window, green, odd, half, first, stride, count, way, kernel, at, value, square)
                    at += count
                    continue
                begin = 0
                while begin < count:
                    end = count
                    if k_end != k or j_end != j:  # halve until the first pixel with another offset
                        low = begin
                        while end - low > 1:
                            middle = (low + end) // 2
                            if _floors(drift, middle) == (k, j):
                                low = middle
                            else:
                                end = middle
                    way = (
                        np.float32(p0 - k - 0.5), np.float32(p1), np.float32(p2),
                        np.float32(r0 - j - 0.5), np.float32(r1), np.float32(r2),
                    )  # fmt: skip
                    if green:
                        for d in range(-5, 6):
                            row = k - j + d
                            side = (row + odd) & 1
                            bases[d + 5] = (row * 2 + side) * half + ((k + j + odd - d - 4 - side) >> 1)
                        run_quincunx(window, bases, begin, end, way, kernel, ramp, at, value, square)
                    else:
                        run_square(
                            window,
                            first + (j - 2) * stride + k - 2,
                            stride,
                            begin,
                            end,
                            way,
                            kernel,
                            ramp,
                            at,
                            value,
                            square,
                        )
                    begin = end
                    if begin < count:
                        k, j = _floors(drift, begin)
                at += count
    return at


def unsplit(values: np.ndarray) -> np.ndarray:
    """Return rows that hold even columns first, then odd ones, in the order of the columns.

    Examples
    --------
    >>> unsplit(np.array([0, 2, 4, 1, 3]))
    array([0, 1, 2, 3, 4])
    """
    width = values.shape[-1]
    joined = np.empty_like(values)
    joined[..., 0::2] = values[..., : (width + 1) // 2]
    joined[..., 1::2] = values[..., (width + 1) // 2 :]
    return joined
