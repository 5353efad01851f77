"""Resampling: each channel straight from the calibrated mosaic at the transformed position, once.

Red and blue lie on square lattices of two pixels, green on a quincunx, which is a square lattice turned by 45°:
``a = (x + y - s)/2, b = (x - y - s)/2`` are whole numbers at every green pixel.  On each a separable Lanczos-3
kernel of 6 x 6 samples is laid at the wanted position; no demosaicing comes between.

How it is made fast: a window of the mosaic is kept with even and odd columns apart, so that stepping two output
pixels steps one sample.  Where the frame is not turned far, long runs of output pixels then share their offsets,
and the processor's wide registers load neighbouring samples at once.  Flips and turns by 90° are taken out first.
"""

from __future__ import annotations

import numba
import numpy as np

from ..align import Transform
from ..bayer import channel_index
from ..errors import WorkbenchError

COLOURS = ("R", "G", "B")
PADDING = 64  # elements beyond a row that whole vectors may touch
NARROWING = 0.85  # of the kernel on a colour mosaic's lattices
REACH = 3  # lattice steps from the centre to the end of the kernel
_FAST = {"contract", "reassoc", "nsz", "arcp"}
_U1, _U2, _U3, _U4, _U5 = (np.uintp(step) for step in range(1, 6))


def lanczos3(distance: np.ndarray) -> np.ndarray:
    """Return Lanczos's kernel sinc(x) sinc(x/3) for |x| < 3.

    Examples
    --------
    >>> lanczos3(np.array([0.0, 1.0, 1.5, 3.0])).round(4) + 0.0
    array([ 1.    ,  0.    , -0.1351,  0.    ])
    """
    return np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0.0)


def kernel_polynomials(narrowing: float = 1.0) -> tuple[np.float32, ...]:
    """Return the kernel's weights as polynomials in t², t the fraction less ½, for the compiled loops.

    The weights (normalised to sum 1) at both ends of the kernel mirror each other: w_j(t) = even_j(t²) + t odd_j(t²)
    and w_{5-j}(t) = even_j(t²) - t odd_j(t²) for j = 0, 1, 2; last comes the sum of the squares, even, too.  Five
    coefficients each.

    Parameters
    ----------
    narrowing
        The kernel is L(x/narrowing).  1 is Lanczos-3.  Less lets through more of what lies near the lattice's own
        limit: a star of 3 px FWHM, which a lattice of two pixels undersamples, comes out 6 % wide instead of 10 %;
        dithered frames average the aliases away, and a single pixel's noise is higher, not that of larger areas.
    """
    t = -0.5 * np.cos(np.pi * (np.arange(400) + 0.5) / 800)  # Chebyshev's nodes in (-0.5, 0)
    weights = lanczos3((np.arange(-2, 4)[:, None] - (t + 0.5)) / narrowing)
    weights /= weights.sum(0)

    def fit(values):
        return tuple(np.float32(value) for value in np.polynomial.Polynomial.fit(t**2, values, 4).convert().coef)

    even = [fit((weights[j] + weights[5 - j]) / 2) for j in range(3)]
    odd = [fit((weights[j] - weights[5 - j]) / 2 / t) for j in range(3)]
    return tuple(sum([*even, *odd, fit((weights**2).sum(0))], ()))


def narrowing_for(cfa_pattern: str) -> float:
    """Return the kernel's narrowing: colour lattices undersample, a mono sensor's pixels mostly do not."""
    return 1.0 if cfa_pattern == "mono" else NARROWING


def mean_squared_weight(narrowing: float = 1.0) -> float:
    """Return Σw² of the two-dimensional kernel, averaged over all positions between the samples.

    A resampled pixel's variance is this times the samples' own.

    Examples
    --------
    >>> round(mean_squared_weight(), 3), round(mean_squared_weight(0.85), 3)
    (0.798, 1.109)
    """
    t = (np.arange(2000) + 0.5) / 2000 - 0.5
    squares = [float(value) for value in kernel_polynomials(narrowing)[30:]]
    return float(np.polynomial.Polynomial(squares)(t**2).mean() ** 2)


@numba.njit(nogil=True, cache=True, fastmath=_FAST)
def _weights(t, k):
    q = t * t
    e0 = k[0] + q * (k[1] + q * (k[2] + q * (k[3] + q * k[4])))
    e1 = k[5] + q * (k[6] + q * (k[7] + q * (k[8] + q * k[9])))
    e2 = k[10] + q * (k[11] + q * (k[12] + q * (k[13] + q * k[14])))
    o0 = t * (k[15] + q * (k[16] + q * (k[17] + q * (k[18] + q * k[19]))))
    o1 = t * (k[20] + q * (k[21] + q * (k[22] + q * (k[23] + q * k[24]))))
    o2 = t * (k[25] + q * (k[26] + q * (k[27] + q * (k[28] + q * k[29]))))
    return e0 + o0, e1 + o1, e2 + o2, e2 - o2, e1 - o1, e0 - o0


@numba.njit(nogil=True, cache=True, fastmath=_FAST)
def _squares(t, k):
    q = t * t
    return k[30] + q * (k[31] + q * (k[32] + q * (k[33] + q * k[34])))


@numba.njit(nogil=True, cache=True)
def _whole_vectors(start, stop):
    """Return the end of a loop that runs on to a multiple of 32: what lies beyond is overwritten by what follows."""
    return np.uintp(start + ((stop - start + 31) & -32))


@numba.njit(nogil=True, cache=True, fastmath=_FAST)
def _run_square(src, first, stride, start, stop, way, kernel, ramp, at, value, square):
    """Interpolate a run of positions on a square lattice; sample (0, 0) of position m is src[first + m].

    `way` holds the fractions along x and y as quadratics in m, `at` is where position 0 goes in the results.
    """
    r0 = np.uintp(first)
    step = np.uintp(stride)
    r1 = r0 + step
    r2 = r1 + step
    r3 = r2 + step
    r4 = r3 + step
    r5 = r4 + step
    x0, x1, x2, y0, y1, y2 = way
    out = np.uintp(at)
    for m in range(np.uintp(start), _whole_vectors(start, stop)):
        tx = x0 + ramp[m] * (x1 + ramp[m] * x2)
        ty = y0 + ramp[m] * (y1 + ramp[m] * y2)
        a0, a1, a2, a3, a4, a5 = _weights(tx, kernel)
        b0, b1, b2, b3, b4, b5 = _weights(ty, kernel)
        p = r0 + m
        s = b0 * (
            a0 * src[p]
            + a1 * src[p + _U1]
            + a2 * src[p + _U2]
            + a3 * src[p + _U3]
            + a4 * src[p + _U4]
            + a5 * src[p + _U5]
        )
        p = r1 + m
        s += b1 * (
            a0 * src[p]
            + a1 * src[p + _U1]
            + a2 * src[p + _U2]
            + a3 * src[p + _U3]
            + a4 * src[p + _U4]
            + a5 * src[p + _U5]
        )
        p = r2 + m
        s += b2 * (
            a0 * src[p]
            + a1 * src[p + _U1]
            + a2 * src[p + _U2]
            + a3 * src[p + _U3]
            + a4 * src[p + _U4]
            + a5 * src[p + _U5]
        )
        p = r3 + m
        s += b3 * (
            a0 * src[p]
            + a1 * src[p + _U1]
            + a2 * src[p + _U2]
            + a3 * src[p + _U3]
            + a4 * src[p + _U4]
            + a5 * src[p + _U5]
        )
        p = r4 + m
        s += b4 * (
            a0 * src[p]
            + a1 * src[p + _U1]
            + a2 * src[p + _U2]
            + a3 * src[p + _U3]
            + a4 * src[p + _U4]
            + a5 * src[p + _U5]
        )
        p = r5 + m
        s += b5 * (
            a0 * src[p]
            + a1 * src[p + _U1]
            + a2 * src[p + _U2]
            + a3 * src[p + _U3]
            + a4 * src[p + _U4]
            + a5 * src[p + _U5]
        )
        value[out + m] = s
        square[out + m] = _squares(tx, kernel) * _squares(ty, kernel)


@numba.njit(nogil=True, cache=True, fastmath=_FAST)
def _run_quincunx(src, bases, start, stop, way, kernel, ramp, at, value, square):
    """Interpolate a run of positions on the green quincunx.

    Sample (i, j) of position m is src[bases[i - j + 5] + m + i]: along a diagonal of the kernel lie the greens of
    one row of the mosaic.
    """
    n5, n4, n3, n2, n1 = (
        np.uintp(bases[0]),
        np.uintp(bases[1]),
        np.uintp(bases[2]),
        np.uintp(bases[3]),
        np.uintp(bases[4]),
    )
    z0 = np.uintp(bases[5])
    p1, p2, p3, p4, p5 = (
        np.uintp(bases[6]),
        np.uintp(bases[7]),
        np.uintp(bases[8]),
        np.uintp(bases[9]),
        np.uintp(bases[10]),
    )
    x0, x1, x2, y0, y1, y2 = way
    out = np.uintp(at)
    for m in range(np.uintp(start), _whole_vectors(start, stop)):
        tx = x0 + ramp[m] * (x1 + ramp[m] * x2)
        ty = y0 + ramp[m] * (y1 + ramp[m] * y2)
        a0, a1, a2, a3, a4, a5 = _weights(tx, kernel)
        b0, b1, b2, b3, b4, b5 = _weights(ty, kernel)
        i = m
        s = a0 * (
            b0 * src[z0 + i]
            + b1 * src[n1 + i]
            + b2 * src[n2 + i]
            + b3 * src[n3 + i]
            + b4 * src[n4 + i]
            + b5 * src[n5 + i]
        )
        i = m + _U1
        s += a1 * (
            b0 * src[p1 + i]
            + b1 * src[z0 + i]
            + b2 * src[n1 + i]
            + b3 * src[n2 + i]
            + b4 * src[n3 + i]
            + b5 * src[n4 + i]
        )
        i = m + _U2
        s += a2 * (
            b0 * src[p2 + i]
            + b1 * src[p1 + i]
            + b2 * src[z0 + i]
            + b3 * src[n1 + i]
            + b4 * src[n2 + i]
            + b5 * src[n3 + i]
        )
        i = m + _U3
        s += a3 * (
            b0 * src[p3 + i]
            + b1 * src[p2 + i]
            + b2 * src[p1 + i]
            + b3 * src[z0 + i]
            + b4 * src[n1 + i]
            + b5 * src[n2 + i]
        )
        i = m + _U4
        s += a4 * (
            b0 * src[p4 + i]
            + b1 * src[p3 + i]
            + b2 * src[p2 + i]
            + b3 * src[p1 + i]
            + b4 * src[z0 + i]
            + b5 * src[n1 + i]
        )
        i = m + _U5
        s += a5 * (
            b0 * src[p5 + i]
            + b1 * src[p4 + i]
            + b2 * src[p3 + i]
            + b3 * src[p2 + i]
            + b4 * src[p1 + i]
            + b5 * src[z0 + i]
        )
        value[out + m] = s
        square[out + m] = _squares(tx, kernel) * _squares(ty, kernel)


@numba.njit(nogil=True, cache=True, fastmath=_FAST)
def _each(src, green, odd, half, first, stride, count, way, kernel, at, value, square):
    """Interpolate positions one by one, each with its own offsets: for frames that are turned far."""
    a = np.empty(6, np.float32)
    b = np.empty(6, np.float32)
    x0, x1, x2, y0, y1, y2 = way
    for m in range(count):
        u = np.float32(m)
        along = x0 + u * (x1 + u * x2)
        across = y0 + u * (y1 + u * y2)
        ia, ib = int(np.floor(along)), int(np.floor(across))
        tx, ty = along - np.float32(ia) - np.float32(0.5), across - np.float32(ib) - np.float32(0.5)
        a[0], a[1], a[2], a[3], a[4], a[5] = _weights(tx, kernel)
        b[0], b[1], b[2], b[3], b[4], b[5] = _weights(ty, kernel)
        s = np.float32(0.0)
        if green:
            for j in range(6):
                part = np.float32(0.0)
                for i in range(6):
                    row = ia - ib + i - j
                    side = (row + odd) & 1
                    part += a[i] * src[(row * 2 + side) * half + ((ia + ib + odd + i + j - 4 - side) >> 1)]
                s += b[j] * part
        else:
            for j in range(6):
                begin = first + (ib - 2 + j) * stride + ia - 2
                part = np.float32(0.0)
                for i in range(6):
                    part += a[i] * src[begin + i]
                s += b[j] * part
        value[at + m] = s
        square[at + m] = _squares(tx, kernel) * _squares(ty, kernel)


@numba.njit(nogil=True, cache=True)
def _source(turn, wy, wx, height, width):
    """Return row and column in the frame of a place in the turned frame, mirrored at its edges, which keeps colours."""
    high, wide = (height, width) if turn % 2 == 0 else (width, height)
    wy = -wy if wy < 0 else wy
    wx = -wx if wx < 0 else wx
    wy = 2 * (high - 1) - wy if wy >= high else wy
    wx = 2 * (wide - 1) - wx if wx >= wide else wx
    wy, wx = min(max(wy, 0), high - 1), min(max(wx, 0), wide - 1)
    if turn == 0:
        return wy, wx
    if turn == 1:
        return wx, width - 1 - wy
    if turn == 2:
        return height - 1 - wy, width - 1 - wx
    return height - 1 - wx, wy


@numba.njit(nogil=True, cache=True, fastmath=_FAST)
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


@numba.njit(nogil=True, cache=True, fastmath=_FAST)
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
                    _each(window, green, odd, half, first, stride, count, way, kernel, at, value, square)
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
                        _run_quincunx(window, bases, begin, end, way, kernel, ramp, at, value, square)
                    else:
                        _run_square(
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


def quarter_turns(transform: Transform, x: float, y: float) -> int:
    """Return how many quarter turns bring a frame closest to the reference's orientation, 0 to 3."""
    matrix = transform.jacobian(x, y)
    angle = np.degrees(np.arctan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1]))
    return int(np.round(angle / 90.0)) % 4


def turned(turn: int, x: np.ndarray, y: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return positions of a frame of `shape` (height, width) in the same frame turned by quarters.

    Examples
    --------
    >>> turned(2, 0.0, 0.0, (10, 20))
    (19.0, 9.0)
    """
    height, width = shape
    if turn == 0:
        return x, y
    if turn == 1:
        return y, width - 1.0 - x
    if turn == 2:
        return width - 1.0 - x, height - 1.0 - y
    return height - 1.0 - y, x


def turned_cell(cfa_pattern: str, turn: int, shape: tuple[int, int]) -> np.ndarray:
    """Return the 2 x 2 colours (0 R, 1 G, 2 B) of a frame's first pixels after quarter turns (zeros for mono).

    Examples
    --------
    >>> turned_cell("RGGB", 2, (10, 20)).tolist()
    [[2, 1], [1, 0]]
    """
    if cfa_pattern == "mono":
        return np.zeros((2, 2), np.int64)
    colours = np.array([0, 1, 1, 2])[channel_index(cfa_pattern)]
    cell = np.empty((2, 2), np.int64)
    for j in range(2):
        for i in range(2):
            height, width = shape
            y, x = {
                0: (j, i),
                1: (i, width - 1 - j),
                2: (height - 1 - j, width - 1 - i),
                3: (height - 1 - i, j),
            }[turn]
            cell[j, i] = colours[y % 2, x % 2]
    return cell


_NODES = np.linspace(0.0, 1.0, 4)
_NODE_V, _NODE_U = (grid.ravel() for grid in np.meshgrid(_NODES, _NODES, indexing="ij"))


def _quadratics(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], -1)


_SOLVE = np.linalg.pinv(_quadratics(_NODE_U, _NODE_V))


def place_polynomials(
    transform: Transform, turn: int, shape: tuple[int, int], lefts: np.ndarray, top: float, width: int, height: int
) -> np.ndarray:
    """Return the places in the turned frame of tiles' pixels, as quadratics (tile, 2, 6) in their column and row.

    The tiles begin at columns `lefts` and row `top` of the reference.  Fitted to 16 nodes; over 256 pixels the cubic
    terms of real lenses leave less than 1e-4 px.
    """
    x = np.asarray(lefts, float)[:, None] + _NODE_U * (width - 1)
    y = np.broadcast_to(top + _NODE_V * (height - 1), x.shape)
    x, y = turned(turn, *transform.apply(x, y), shape)
    fitted = np.stack([x, y], 1) @ _SOLVE.T
    return fitted / _quadratics(np.array(max(width - 1.0, 1.0)), np.array(max(height - 1.0, 1.0)))


def window_bounds(places: np.ndarray, width: int, height: int, split: bool) -> np.ndarray:
    """Return (top, left, rows, half columns) of the windows (tile, 4) that hold all samples tiles ask for."""
    x, y = np.moveaxis(places @ _quadratics(_NODE_U * (width - 1), _NODE_V * (height - 1)).T, 1, 0)
    margin = 2 * REACH + 3 if split else REACH + 2
    top, left = (np.floor(values.min(-1)).astype(np.int64) - margin for values in (y, x))
    top, left = top - top % 2, left - left % 2
    rows = np.ceil(y.max(-1)).astype(np.int64) + margin - top + 1
    columns = np.ceil(x.max(-1)).astype(np.int64) + margin - left + 1
    return np.stack([top, left, rows, -(-columns // 2)], -1)


def resample(
    mosaic: np.ndarray,
    transform: Transform,
    cfa_pattern: str,
    shape: tuple[int, int] | None = None,
    *,
    narrowing: float | None = None,
    tile: int = 256,
) -> np.ndarray:
    """Resample one calibrated mosaic onto the reference's pixel grid, in colour.

    Parameters
    ----------
    mosaic
        Two-dimensional; NaN is missing and filled from same-colour neighbours.
    transform
        From reference to this frame (`workbench.align.match_stars`).
    cfa_pattern
        Of the mosaic, or ``mono``.
    shape
        (height, width) of the reference, the mosaic's own by default.
    narrowing
        Of the kernel (see `kernel_polynomials`); by default `narrowing_for` the mosaic.

    Returns
    -------
    float32 (channel, y, x), channels R, G, B or one for mono; NaN outside the frame.

    Examples
    --------
    >>> grey = np.full((64, 64), 7.0, "float32")
    >>> picture = resample(grey, Transform("shift", np.array([[3.3], [-2.6]])), "RGGB")
    >>> picture.shape, bool(np.allclose(picture[:, 8:-8, 8:-8], 7.0, atol=1e-4)), bool(np.isnan(picture[0, 0, 0]))
    ((3, 64, 64), True, True)
    """
    if mosaic.ndim != 2:
        raise WorkbenchError(f"resample wants one mosaic (y, x); this array has shape {mosaic.shape}")
    mosaic = np.ascontiguousarray(mosaic, np.float32)
    kernel = kernel_polynomials(narrowing_for(cfa_pattern) if narrowing is None else narrowing)
    frame = mosaic.shape
    height, width = shape or frame
    split = cfa_pattern != "mono"
    zero, one = np.zeros(frame, np.float32), np.ones(frame, np.float32)
    result = np.full((3 if split else 1, height, width), np.nan, np.float32)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            tall, wide = min(tile, height - top), min(tile, width - left)
            turn = quarter_turns(transform, left + wide / 2, top + tall / 2)
            place = place_polynomials(transform, turn, frame, np.array([left]), top, wide, tall)[0]
            value, _ = resample_tile(mosaic, 0, zero, one, place, turn, cfa_pattern, tall, wide, kernel)
            x, y = transform.apply(*np.meshgrid(left + np.arange(wide), top + np.arange(tall)))
            outside = (x < -0.5) | (y < -0.5) | (x > frame[1] - 0.5) | (y > frame[0] - 0.5)
            value = unsplit(value) if split else value
            value[:, outside] = np.nan
            result[:, top : top + tall, left : left + wide] = value
    return result


def resample_tile(raw, row0, dark, scale, place, turn, cfa_pattern, height, width, kernel):
    """Resample one tile: (value, Σw²), both (channel, y, x); see `fill_window` and `sample_window`."""
    split = cfa_pattern != "mono"
    frame = scale.shape
    zero = np.zeros((1, 1), np.float32)
    high, wide = frame if turn % 2 == 0 else frame[::-1]
    channels = 3 if split else 1
    value, square = np.full((2, channels, height, width), np.nan, np.float32)
    top, left, rows, half = window_bounds(place[None], width, height, split)[0]
    if top >= high or left >= wide or top + rows <= 0 or left + 2 * half <= 0:
        return value, square
    window = np.zeros(rows * 2 * half + PADDING, np.float32)
    marks = np.empty((0, 2), np.int64)
    fill_window(
        raw, row0, zero, dark, 1.0, scale, turn, top, left, rows, half, split, np.float32(np.inf), window, marks
    )
    local = place.copy()
    local[0, 0] -= left
    local[1, 0] -= top
    flat = np.empty((2, value.size + PADDING), np.float32)
    ramp = np.arange(width + PADDING, dtype=np.float32)
    cell = turned_cell(cfa_pattern, turn, frame)
    sample_window(window, half, split, cell, local, height, width, kernel, ramp, flat[0], flat[1], 0)
    return flat[0, : value.size].reshape(value.shape), flat[1, : value.size].reshape(value.shape)
