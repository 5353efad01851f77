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


def _polynomials() -> tuple[tuple[tuple[np.float32, ...], ...], ...]:
    """Return the kernel's weights (normalised to sum 1) as polynomials in t² (t: fraction less ½), to 2e-7.

    The weights at both ends of the kernel mirror each other: w_j(t) = even_j(t²) + t odd_j(t²) and
    w_{5-j}(t) = even_j(t²) - t odd_j(t²) for j = 0, 1, 2.  Last, the sum of the squares: even, too.
    """
    t = -0.5 * np.cos(np.pi * (np.arange(400) + 0.5) / 800)  # Chebyshev's nodes in (-0.5, 0)
    weights = lanczos3(np.arange(-2, 4)[:, None] - (t + 0.5))
    weights /= weights.sum(0)

    def fit(values):
        return tuple(np.float32(value) for value in np.polynomial.Polynomial.fit(t**2, values, 4).convert().coef)

    even = tuple(fit((weights[j] + weights[5 - j]) / 2) for j in range(3))
    odd = tuple(fit((weights[j] - weights[5 - j]) / 2 / t) for j in range(3))
    return even, odd, (fit((weights**2).sum(0)),)


_EVEN, _ODD, (_SQUARES,) = _polynomials()


def mean_squared_weight() -> float:
    """Return Σw² of the two-dimensional kernel, averaged over all positions between the samples.

    A resampled pixel's variance is this times the samples' own.

    Examples
    --------
    >>> round(mean_squared_weight(), 3)
    0.798
    """
    t = (np.arange(2000) + 0.5) / 2000 - 0.5
    return float(np.polynomial.Polynomial([float(value) for value in _SQUARES])(t**2).mean() ** 2)


@numba.njit(nogil=True, cache=True, fastmath=_FAST)
def _weights(t):
    q = t * t
    e0 = _EVEN[0][0] + q * (_EVEN[0][1] + q * (_EVEN[0][2] + q * (_EVEN[0][3] + q * _EVEN[0][4])))
    e1 = _EVEN[1][0] + q * (_EVEN[1][1] + q * (_EVEN[1][2] + q * (_EVEN[1][3] + q * _EVEN[1][4])))
    e2 = _EVEN[2][0] + q * (_EVEN[2][1] + q * (_EVEN[2][2] + q * (_EVEN[2][3] + q * _EVEN[2][4])))
    o0 = t * (_ODD[0][0] + q * (_ODD[0][1] + q * (_ODD[0][2] + q * (_ODD[0][3] + q * _ODD[0][4]))))
    o1 = t * (_ODD[1][0] + q * (_ODD[1][1] + q * (_ODD[1][2] + q * (_ODD[1][3] + q * _ODD[1][4]))))
    o2 = t * (_ODD[2][0] + q * (_ODD[2][1] + q * (_ODD[2][2] + q * (_ODD[2][3] + q * _ODD[2][4]))))
    return e0 + o0, e1 + o1, e2 + o2, e2 - o2, e1 - o1, e0 - o0


@numba.njit(nogil=True, cache=True, fastmath=_FAST)
def _squares(t):
    q = t * t
    return _SQUARES[0] + q * (_SQUARES[1] + q * (_SQUARES[2] + q * (_SQUARES[3] + q * _SQUARES[4])))


@numba.njit(nogil=True, cache=True, fastmath=_FAST)
def _run_square(src, first, stride, start, stop, tx, ty, value, square):
    """Interpolate a run of positions on a square lattice; sample (0, 0) of position m is src[first + m]."""
    r0 = np.uintp(first)
    step = np.uintp(stride)
    r1 = r0 + step
    r2 = r1 + step
    r3 = r2 + step
    r4 = r3 + step
    r5 = r4 + step
    for m in range(np.uintp(start), np.uintp(stop)):
        a0, a1, a2, a3, a4, a5 = _weights(tx[m])
        b0, b1, b2, b3, b4, b5 = _weights(ty[m])
        p = r0 + m
        s = b0 * (a0 * src[p] + a1 * src[p + _U1] + a2 * src[p + _U2] + a3 * src[p + _U3] + a4 * src[p + _U4] + a5 * src[p + _U5])
        p = r1 + m
        s += b1 * (a0 * src[p] + a1 * src[p + _U1] + a2 * src[p + _U2] + a3 * src[p + _U3] + a4 * src[p + _U4] + a5 * src[p + _U5])
        p = r2 + m
        s += b2 * (a0 * src[p] + a1 * src[p + _U1] + a2 * src[p + _U2] + a3 * src[p + _U3] + a4 * src[p + _U4] + a5 * src[p + _U5])
        p = r3 + m
        s += b3 * (a0 * src[p] + a1 * src[p + _U1] + a2 * src[p + _U2] + a3 * src[p + _U3] + a4 * src[p + _U4] + a5 * src[p + _U5])
        p = r4 + m
        s += b4 * (a0 * src[p] + a1 * src[p + _U1] + a2 * src[p + _U2] + a3 * src[p + _U3] + a4 * src[p + _U4] + a5 * src[p + _U5])
        p = r5 + m
        s += b5 * (a0 * src[p] + a1 * src[p + _U1] + a2 * src[p + _U2] + a3 * src[p + _U3] + a4 * src[p + _U4] + a5 * src[p + _U5])
        value[m] = s
        square[m] = _squares(tx[m]) * _squares(ty[m])


@numba.njit(nogil=True, cache=True, fastmath=_FAST)
def _run_quincunx(src, bases, start, stop, tx, ty, value, square):
    """Interpolate a run of positions on the green quincunx.

    Sample (i, j) of position m is src[bases[i - j + 5] + m + i]: along a diagonal of the kernel lie the greens of
    one row of the mosaic.
    """
    n5, n4, n3, n2, n1 = np.uintp(bases[0]), np.uintp(bases[1]), np.uintp(bases[2]), np.uintp(bases[3]), np.uintp(bases[4])
    z0 = np.uintp(bases[5])
    p1, p2, p3, p4, p5 = np.uintp(bases[6]), np.uintp(bases[7]), np.uintp(bases[8]), np.uintp(bases[9]), np.uintp(bases[10])
    for m in range(np.uintp(start), np.uintp(stop)):
        a0, a1, a2, a3, a4, a5 = _weights(tx[m])
        b0, b1, b2, b3, b4, b5 = _weights(ty[m])
        i = m
        s = a0 * (b0 * src[z0 + i] + b1 * src[n1 + i] + b2 * src[n2 + i] + b3 * src[n3 + i] + b4 * src[n4 + i] + b5 * src[n5 + i])
        i = m + _U1
        s += a1 * (b0 * src[p1 + i] + b1 * src[z0 + i] + b2 * src[n1 + i] + b3 * src[n2 + i] + b4 * src[n3 + i] + b5 * src[n4 + i])
        i = m + _U2
        s += a2 * (b0 * src[p2 + i] + b1 * src[p1 + i] + b2 * src[z0 + i] + b3 * src[n1 + i] + b4 * src[n2 + i] + b5 * src[n3 + i])
        i = m + _U3
        s += a3 * (b0 * src[p3 + i] + b1 * src[p2 + i] + b2 * src[p1 + i] + b3 * src[z0 + i] + b4 * src[n1 + i] + b5 * src[n2 + i])
        i = m + _U4
        s += a4 * (b0 * src[p4 + i] + b1 * src[p3 + i] + b2 * src[p2 + i] + b3 * src[p1 + i] + b4 * src[z0 + i] + b5 * src[n1 + i])
        i = m + _U5
        s += a5 * (b0 * src[p5 + i] + b1 * src[p4 + i] + b2 * src[p3 + i] + b3 * src[p2 + i] + b4 * src[p1 + i] + b5 * src[z0 + i])
        value[m] = s
        square[m] = _squares(tx[m]) * _squares(ty[m])


@numba.njit(nogil=True, cache=True)
def fill_window(raw, row0, dark, scale, turn, top, left, rows, half, split, white, window, marks):
    """Calibrate a piece of a frame into `window` and return how many of its pixels are saturated.

    `raw` holds the frame's rows from `row0` on; ``value = (raw - dark) scale``, NaN where `scale` is (a defect,
    filled from its same-colour neighbours).  The window begins at (`top`, `left`) of the frame turned by `turn`
    quarters, has `rows` rows of 2 x `half` pixels, and keeps even and odd columns apart if `split`.  Beyond the
    frame's edge pixels are mirrored, which keeps their colour.  `marks` receives the saturated pixels' places.
    """
    height, width = scale.shape
    high, wide = (height, width) if turn % 2 == 0 else (width, height)
    columns = 2 * half
    line = np.empty(columns, np.float32)
    holes = 0
    saturated = 0
    inside = turn == 0 and left >= 0 and left + columns <= wide
    for row in range(rows):
        wy = top + row
        wy = -wy if wy < 0 else wy
        wy = 2 * (high - 1) - wy if wy >= high else wy
        peak = raw[0, 0]
        if inside:
            y = wy
            here = raw[y - row0, left : left + columns]
            there = dark[y, left : left + columns]
            gain = scale[y, left : left + columns]
            for x in range(columns):
                line[x] = (np.float32(here[x]) - there[x]) * gain[x]
                peak = max(peak, here[x])
        else:
            for x in range(columns):
                wx = left + x
                wx = -wx if wx < 0 else wx
                wx = 2 * (wide - 1) - wx if wx >= wide else wx
                wx = min(max(wx, 0), wide - 1)
                if turn == 0:
                    i, j = wy, wx
                elif turn == 1:
                    i, j = wx, width - 1 - wy
                elif turn == 2:
                    i, j = height - 1 - wy, width - 1 - wx
                else:
                    i, j = height - 1 - wx, wy
                value = raw[i - row0, j]
                line[x] = (np.float32(value) - dark[i, j]) * scale[i, j]
                peak = max(peak, value)
        if peak >= white:
            for x in range(columns):
                wx = left + x
                wx = -wx if wx < 0 else wx
                wx = 2 * (wide - 1) - wx if wx >= wide else wx
                wx = min(max(wx, 0), wide - 1)
                if turn == 0:
                    i, j = wy, wx
                elif turn == 1:
                    i, j = wx, width - 1 - wy
                elif turn == 2:
                    i, j = height - 1 - wy, width - 1 - wx
                else:
                    i, j = height - 1 - wx, wy
                if raw[i - row0, j] >= white and saturated < marks.shape[0]:
                    marks[saturated, 0], marks[saturated, 1] = row, x
                    saturated += 1
        total = np.float32(0.0)
        for x in range(columns):
            total += line[x]
        holes += total != total
        if split:
            even = window[row * columns : row * columns + half]
            odd = window[row * columns + half : (row + 1) * columns]
            for x in range(half):
                even[x] = line[2 * x]
                odd[x] = line[2 * x + 1]
        else:
            window[row * columns : (row + 1) * columns] = line
    if holes:
        _fill_holes(window, rows, half, split)
    return saturated


@numba.njit(nogil=True, cache=True)
def _fill_holes(window, rows, half, split):
    """Give missing pixels the mean of their nearest neighbours of the same colour, at up to three steps."""
    columns = 2 * half
    reach = 2 if split else 1  # rows and columns to the next pixel of the same colour
    size = rows * columns
    count = 0
    for index in range(size):
        count += window[index] != window[index]
    places = np.empty(count, np.int64)
    values = np.empty(count, np.float32)
    count = 0
    for index in range(size):
        if window[index] == window[index]:
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
                    if value == value:
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
def sample_window(window, rows, half, split, cell, place, height, width, value, square, scratch, offsets):
    """Resample a window at every pixel of a tile: `value` and Σw² `square`, both (channel, y, x).

    `place` (2, 6) gives the position in the window, x then y, as a quadratic in the tile's own column u and row v:
    coefficients of 1, u, v, u², u v, v².  `cell` is the colour of the window's first pixels (0 R, 1 G, 2 B).
    """
    columns = 2 * half
    tx, ty, val, squ = scratch[0], scratch[1], scratch[2], scratch[3]
    bases = np.empty(11, np.int64)
    channels = value.shape[0]
    parities = 2 if split else 1
    for channel in range(channels):
        # Where on the 2 x 2 cell this channel sits; for green, the parity of x + y.
        cy = cx = 0
        green = split and channel == 1
        if split:
            for j in range(2):
                for i in range(2):
                    if cell[j, i] == channel:
                        cy, cx = j, i
        odd = (cy + cx) % 2 if green else 0
        pitch = np.float32(0.5) if split else np.float32(1.0)
        for v in range(height):
            x0 = place[0, 0] + v * (place[0, 2] + v * place[0, 5])
            x1 = place[0, 1] + v * place[0, 4]
            y0 = place[1, 0] + v * (place[1, 2] + v * place[1, 5])
            y1 = place[1, 1] + v * place[1, 4]
            for parity in range(parities):
                count = (width - parity + parities - 1) // parities
                if green:
                    o0, o1, o2 = 0.5 * (x0 + y0 - odd), 0.5 * (x1 + y1), 0.5 * (place[0, 3] + place[1, 3])
                    q0, q1, q2 = 0.5 * (x0 - y0 - odd), 0.5 * (x1 - y1), 0.5 * (place[0, 3] - place[1, 3])
                else:
                    o0, o1, o2 = (x0 - cx) * pitch, x1 * pitch, place[0, 3] * pitch
                    q0, q1, q2 = (y0 - cy) * pitch, y1 * pitch, place[1, 3] * pitch
                fo0, fo1, fo2 = np.float32(o0), np.float32(o1), np.float32(o2)
                fq0, fq1, fq2 = np.float32(q0), np.float32(q1), np.float32(q2)
                fstep, fparity = np.float32(parities), np.float32(parity)
                ka, kb = offsets[0], offsets[1]
                same = np.int32(0)
                for m in range(count):
                    u = fparity + fstep * np.float32(np.int32(m))
                    along = fo0 + u * (fo1 + u * fo2)
                    across = fq0 + u * (fq1 + u * fq2)
                    ia, ib = np.floor(along), np.floor(across)
                    tx[m] = along - ia - np.float32(0.5)
                    ty[m] = across - ib - np.float32(0.5)
                    shift = np.int32(m)
                    ka[m] = np.int32(ia) - shift
                    kb[m] = np.int32(ib) - (shift if green else np.int32(0))
                begin = 0
                while begin < count:
                    k, l = ka[begin], kb[begin]
                    end = begin + 1
                    while end < count and ka[end] == k and kb[end] == l:
                        end += 1
                    if green:
                        row0 = k - l
                        for d in range(-5, 6):
                            row = row0 + d
                            side = (row + odd) & 1
                            bases[d + 5] = (row * 2 + side) * half + (k + l + odd - d - 4 - side) // 2
                        _run_quincunx(window, bases, begin, end, tx, ty, val, squ)
                    elif split:
                        first = ((2 * (l - 2) + cy) * 2 + cx) * half + k - 2
                        _run_square(window, first, 4 * half, begin, end, tx, ty, val, squ)
                    else:
                        _run_square(window, (l - 2) * columns + k - 2, columns, begin, end, tx, ty, val, squ)
                    begin = end
                target, spread = value[channel, v], square[channel, v]
                if split:
                    for m in range(count):
                        target[parity + 2 * m] = val[m]
                        spread[parity + 2 * m] = squ[m]
                else:
                    for m in range(count):
                        target[m] = val[m]
                        spread[m] = squ[m]
                same += 0


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


_NODES = np.array([0.0, 0.25, 0.5, 0.75, 1.0])


def place_polynomial(
    transform: Transform, turn: int, shape: tuple[int, int], left: float, top: float, width: int, height: int
) -> np.ndarray:
    """Return the place in the turned frame of a tile's pixels, as quadratics (2, 6) in its column and row.

    Fitted to 25 nodes; over 256 pixels the cubic terms of real lenses leave less than 1e-4 px.
    """
    v, u = (grid.ravel() for grid in np.meshgrid(_NODES * (height - 1), _NODES * (width - 1), indexing="ij"))
    x, y = turned(turn, *transform.apply(left + u, top + v), shape)
    design = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], 1)
    scale = np.maximum(np.abs(design).max(0), 1.0)
    fitted, *_ = np.linalg.lstsq(design / scale, np.stack([x, y], 1), rcond=None)
    return (fitted / scale[:, None]).T.copy()


def window_bounds(place: np.ndarray, width: int, height: int, split: bool) -> tuple[int, int, int, int]:
    """Return (top, left, rows, half columns) of the window that holds all samples a tile asks for."""
    v, u = (grid.ravel() for grid in np.meshgrid(_NODES * (height - 1), _NODES * (width - 1), indexing="ij"))
    design = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v])
    x, y = place @ design
    margin = 2 * REACH + 3 if split else REACH + 2
    top, left = int(np.floor(y.min())) - margin, int(np.floor(x.min())) - margin
    top, left = top - top % 2, left - left % 2
    rows = int(np.ceil(y.max())) + margin - top + 1
    columns = int(np.ceil(x.max())) + margin - left + 1
    return top, left, rows, -(-columns // 2)


def resample(
    mosaic: np.ndarray, transform: Transform, cfa_pattern: str, shape: tuple[int, int] | None = None, *, tile: int = 256
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
    frame = mosaic.shape
    height, width = shape or frame
    split = cfa_pattern != "mono"
    zero, one = np.zeros(frame, np.float32), np.ones(frame, np.float32)
    result = np.full((3 if split else 1, height, width), np.nan, np.float32)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            tall, wide = min(tile, height - top), min(tile, width - left)
            turn = quarter_turns(transform, left + wide / 2, top + tall / 2)
            place = place_polynomial(transform, turn, frame, left, top, wide, tall)
            value, _ = resample_tile(mosaic, 0, zero, one, place, turn, cfa_pattern, tall, wide)
            x, y = transform.apply(*np.meshgrid(left + np.arange(wide), top + np.arange(tall)))
            outside = (x < -0.5) | (y < -0.5) | (x > frame[1] - 0.5) | (y > frame[0] - 0.5)
            value[:, outside] = np.nan
            result[:, top : top + tall, left : left + wide] = value
    return result


def resample_tile(raw, row0, dark, scale, place, turn, cfa_pattern, height, width):
    """Resample one tile: (value, Σw²), both (channel, y, x); see `fill_window` and `sample_window`."""
    split = cfa_pattern != "mono"
    frame = scale.shape
    high, wide = frame if turn % 2 == 0 else frame[::-1]
    channels = 3 if split else 1
    value, square = np.full((2, channels, height, width), np.nan, np.float32)
    top, left, rows, half = window_bounds(place, width, height, split)
    if top >= high or left >= wide or top + rows <= 0 or left + 2 * half <= 0:
        return value, square
    window = np.zeros(rows * 2 * half + 64, np.float32)
    marks = np.empty((0, 2), np.int64)
    fill_window(raw, row0, dark, scale, turn, top, left, rows, half, split, np.float32(np.inf), window, marks)
    local = place.copy()
    local[0, 0] -= left
    local[1, 0] -= top
    cell = turned_cell(cfa_pattern, turn, frame)
    scratch, offsets = np.empty((4, width + 8), np.float32), np.empty((2, width + 8), np.int32)
    sample_window(window, rows, half, split, cell, local, height, width, value, square, scratch, offsets)
    return value, square
