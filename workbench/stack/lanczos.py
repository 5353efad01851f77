"""The resampling kernel: a Lanczos-3, narrowed on colour lattices, as polynomials for loops over runs of pixels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..calibrate.planes import FAST
from ..core.cube import is_xtrans
from ..core.kernels import kernel
from ..core.scattered import weight_table

NARROWING = 0.85  # of the kernel on a colour mosaic's lattices
PADDING = 64  # elements beyond a row that whole vectors may touch


def lanczos3(distance: np.ndarray) -> np.ndarray:
    """Return Lanczos's kernel sinc(x) sinc(x/3) for |x| < 3.

    Examples
    --------
    >>> lanczos3(np.array([0.0, 1.0, 1.5, 3.0])).round(4) + 0.0
    array([ 1.    ,  0.    , -0.1351,  0.    ])
    """
    return np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0.0)


def kernel_polynomials(narrowing: float = 1.0, apart: float = 0.0) -> tuple[np.float32, ...]:
    """Return the kernel's weights as polynomials in t², t the fraction less ½, for the compiled loops.

    The weights (normalised to sum 1) at both ends of the kernel mirror each other: w_j(t) = even_j(t²) + t odd_j(t²)
    and w_{5-j}(t) = even_j(t²) - t odd_j(t²) for j = 0, 1, 2, of three coefficients each; last come four of the sum of
    the squares.  They are exact where a sample lies, elsewhere to 2e-4 (narrowed 7e-4) of a sum of 1.

    Parameters
    ----------
    narrowing
        The kernel is L(x/narrowing).  1 is Lanczos-3.  Less lets through more of what lies near the lattice's own
        limit: a star of 3 px FWHM, which a lattice of two pixels undersamples, comes out 6 % wide instead of 10 %;
        dithered frames average the aliases away, and a single pixel's noise is higher, not that of larger areas.
    apart
        The kernel is the mean of two, so far on both sides of it [samples].
    """
    t = -0.5 * np.cos(np.pi * np.arange(400) / 800)  # from -0.5 to 0, closest at the sample
    distance = np.arange(-2, 4)[:, None] - (t + 0.5)
    weights = lanczos3((distance - apart) / narrowing) + lanczos3((distance + apart) / narrowing)
    weights /= weights.sum(0)

    def fit(values: np.ndarray, terms: int) -> np.ndarray:  # exact at t = -½
        powers = np.stack([(t**2 - 0.25) * t ** (2 * term) for term in range(terms - 1)], 1)
        slope = np.linalg.lstsq(powers, values - values[0], rcond=None)[0]
        return np.polynomial.polynomial.polymul([-0.25, 1.0], slope) + values[0] * np.eye(terms)[0]

    even = [fit((weights[j] + weights[5 - j]) / 2, 3) for j in range(3)]
    odd = [fit((weights[j] - weights[5 - j]) / 2 / t, 3) for j in range(3)]
    return tuple(np.float32(value) for value in np.concatenate([*even, *odd, fit((weights**2).sum(0), 4)]))


def narrowing_for(cfa_pattern: str) -> float:
    """Return the kernel's narrowing for a mosaic or a channel: colour lattices undersample, mono pixels seldom do."""
    return 1.0 if cfa_pattern == "mono" else NARROWING


def resampling_kernel(cfa_pattern: str, halved: bool = False) -> np.ndarray:
    """Return what the compiled loops weigh samples with, flat: the Lanczos polynomials, of X-Trans `weight_table`.

    The second 22 are green's.  `halved`: each output pixel is the mean of 2 x 2, which lie ±1/4 sample of red and blue
    from its middle along both axes; along green's diagonal axes at 0 and ±1/2, whose spread ±1/√8 has.
    """
    if is_xtrans(cfa_pattern):
        return weight_table(cfa_pattern).ravel()
    narrowing = narrowing_for(cfa_pattern)
    parts = [kernel_polynomials(narrowing, apart if halved else 0.0) for apart in (1 / 4, 8**-0.5)]
    return np.array(sum(parts, ()), np.float32)


def mean_squared_weight(narrowing: float = 1.0) -> float:
    """Return Σw² of the two-dimensional kernel, averaged over all positions between the samples.

    A resampled pixel's variance is this times the samples' own.

    Examples
    --------
    >>> round(mean_squared_weight(), 3), round(mean_squared_weight(0.85), 3)
    (0.798, 1.109)
    """
    t = (np.arange(2000) + 0.5) / 2000 - 0.5
    squares = [float(value) for value in kernel_polynomials(narrowing)[18:]]
    return float(np.polynomial.Polynomial(squares)(t**2).mean() ** 2)


def squared_weights(channel: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return Σw² of a channel's kernel at places x, y [px of the frame], averaged over a mosaic's cell."""
    even = np.polynomial.Polynomial([float(value) for value in kernel_polynomials(narrowing_for(channel))[18:]])

    def square(place: np.ndarray) -> np.ndarray:
        return even((place % 1 - 0.5) ** 2)

    if channel == "mono":
        return square(x) * square(y)
    if channel == "G":
        a, b = (x + y) / 2, (x - y) / 2
        return (square(a) * square(b) + square(a + 0.5) * square(b + 0.5)) / 2
    return (square(x / 2) + square(x / 2 + 0.5)) * (square(y / 2) + square(y / 2 + 0.5)) / 4


@kernel(fastmath=FAST)
def weights_at(t: Any, k: Any) -> tuple[Any, ...]:
    """Return the six weights at t, the fraction less ½, from the coefficients of `kernel_polynomials`."""
    q = t * t
    e0 = k[0] + q * (k[1] + q * k[2])
    e1 = k[3] + q * (k[4] + q * k[5])
    e2 = k[6] + q * (k[7] + q * k[8])
    o0 = t * (k[9] + q * (k[10] + q * k[11]))
    o1 = t * (k[12] + q * (k[13] + q * k[14]))
    o2 = t * (k[15] + q * (k[16] + q * k[17]))
    return e0 + o0, e1 + o1, e2 + o2, e2 - o2, e1 - o1, e0 - o0


@kernel(fastmath=FAST)
def squares_at(t: Any, k: Any) -> Any:
    """Return the sum of their squares."""
    q = t * t
    return k[18] + q * (k[19] + q * (k[20] + q * k[21]))


_U1, _U2, _U3, _U4, _U5 = (np.uintp(step) for step in range(1, 6))


class Target(NamedTuple):
    """Where samples go and what they are weighed with: `resampling_kernel`, ``0, 1, 2 ...``, flat results."""

    kernel: np.ndarray
    ramp: np.ndarray
    value: np.ndarray
    square: np.ndarray


class Lattice(NamedTuple):
    """Where a colour's samples lie in a split window: the row and column parity, the first sample, one row further."""

    green: bool
    odd: int
    half: int
    first: int
    stride: int


class Run(NamedTuple):
    """Positions from `start` to `stop`; position 0 goes to element `at` of the target."""

    start: int
    stop: int
    at: int


@kernel(inline="always")
def _in_registers(k):
    """The coefficients as a tuple, which a loop keeps out of memory; passed from call to call it would be copied."""
    return (
        k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7], k[8], k[9], k[10], k[11], k[12], k[13], k[14], k[15], k[16],
        k[17], k[18], k[19], k[20], k[21],
    )  # fmt: skip


@kernel()
def _whole_vectors(run):
    """Return the end of a loop that runs on to a multiple of 32: what lies beyond is overwritten by what follows."""
    return np.uintp(run.start + ((run.stop - run.start + 31) & -32))


@kernel(fastmath=FAST)
def _along_row(src, p, a):
    """Return six samples of a row from `p` on, weighed by `a`."""
    return (
        a[0] * src[p]
        + a[1] * src[p + _U1]
        + a[2] * src[p + _U2]
        + a[3] * src[p + _U3]
        + a[4] * src[p + _U4]
        + a[5] * src[p + _U5]
    )


@kernel(fastmath=FAST)
def _across_rows(src, m, rows, b):
    """Return the samples at `m` of six rows that begin at `rows`, weighed by `b`."""
    return (
        b[0] * src[rows[0] + m]
        + b[1] * src[rows[1] + m]
        + b[2] * src[rows[2] + m]
        + b[3] * src[rows[3] + m]
        + b[4] * src[rows[4] + m]
        + b[5] * src[rows[5] + m]
    )


@kernel(fastmath=FAST)
def run_square(src: np.ndarray, first: int, stride: int, run: Run, way: tuple[float, ...], target: Target) -> None:
    """Interpolate a run of positions on a square lattice; sample (0, 0) of position m is src[first + m].

    `way` holds the fractions along x and y as quadratics in m.
    """
    r0, step = np.uintp(first), np.uintp(stride)
    r1 = r0 + step
    r2 = r1 + step
    r3 = r2 + step
    r4 = r3 + step
    r5 = r4 + step
    x0, x1, x2, y0, y1, y2 = way
    ramp, value, square = target.ramp, target.value, target.square
    kernel = _in_registers(target.kernel)
    out = np.uintp(run.at)
    for m in range(np.uintp(run.start), _whole_vectors(run)):
        tx = x0 + ramp[m] * (x1 + ramp[m] * x2)
        ty = y0 + ramp[m] * (y1 + ramp[m] * y2)
        a, b = weights_at(tx, kernel), weights_at(ty, kernel)
        s = b[0] * _along_row(src, r0 + m, a)
        s += b[1] * _along_row(src, r1 + m, a)
        s += b[2] * _along_row(src, r2 + m, a)
        s += b[3] * _along_row(src, r3 + m, a)
        s += b[4] * _along_row(src, r4 + m, a)
        s += b[5] * _along_row(src, r5 + m, a)
        value[out + m] = s
        square[out + m] = squares_at(tx, kernel) * squares_at(ty, kernel)


@kernel(fastmath=FAST)
def run_quincunx(src: np.ndarray, bases: np.ndarray, run: Run, way: tuple[float, ...], target: Target) -> None:
    """Interpolate a run of positions on the green quincunx.

    Sample (i, j) of position m is src[bases[i - j + 5] + m + i]: along a diagonal of the kernel lie the greens of
    one row of the mosaic.
    """
    n5, n4, n3 = np.uintp(bases[0]), np.uintp(bases[1]), np.uintp(bases[2])
    n2, n1, z0 = np.uintp(bases[3]), np.uintp(bases[4]), np.uintp(bases[5])
    p1, p2, p3 = np.uintp(bases[6]), np.uintp(bases[7]), np.uintp(bases[8])
    p4, p5 = np.uintp(bases[9]), np.uintp(bases[10])
    x0, x1, x2, y0, y1, y2 = way
    ramp, value, square = target.ramp, target.value, target.square
    kernel = _in_registers(target.kernel)
    out = np.uintp(run.at)
    for m in range(np.uintp(run.start), _whole_vectors(run)):
        tx = x0 + ramp[m] * (x1 + ramp[m] * x2)
        ty = y0 + ramp[m] * (y1 + ramp[m] * y2)
        a, b = weights_at(tx, kernel), weights_at(ty, kernel)
        s = a[0] * _across_rows(src, m, (z0, n1, n2, n3, n4, n5), b)
        s += a[1] * _across_rows(src, m + _U1, (p1, z0, n1, n2, n3, n4), b)
        s += a[2] * _across_rows(src, m + _U2, (p2, p1, z0, n1, n2, n3), b)
        s += a[3] * _across_rows(src, m + _U3, (p3, p2, p1, z0, n1, n2), b)
        s += a[4] * _across_rows(src, m + _U4, (p4, p3, p2, p1, z0, n1), b)
        s += a[5] * _across_rows(src, m + _U5, (p5, p4, p3, p2, p1, z0), b)
        value[out + m] = s
        square[out + m] = squares_at(tx, kernel) * squares_at(ty, kernel)


@kernel(fastmath=FAST)
def _each(src, lattice, run, way, target):
    """Interpolate positions one by one, each with its own offsets: for frames that are turned far."""
    x0, x1, x2, y0, y1, y2 = way
    kernel = _in_registers(target.kernel)
    for m in range(run.start, run.stop):
        u = np.float32(m)
        along = x0 + u * (x1 + u * x2)
        across = y0 + u * (y1 + u * y2)
        ia, ib = int(np.floor(along)), int(np.floor(across))
        tx, ty = along - np.float32(ia) - np.float32(0.5), across - np.float32(ib) - np.float32(0.5)
        a, b = weights_at(tx, kernel), weights_at(ty, kernel)
        s = np.float32(0.0)
        for j in range(6):
            part = np.float32(0.0)
            for i in range(6):
                if lattice.green:
                    row = ia - ib + i - j
                    side = (row + lattice.odd) & 1
                    column = (ia + ib + lattice.odd + i + j - 4 - side) >> 1
                    part += a[i] * src[(row * 2 + side) * lattice.half + column]
                else:
                    part += a[i] * src[lattice.first + (ib - 2 + j) * lattice.stride + ia - 2 + i]
            s += b[j] * part
        target.value[run.at + m] = s
        target.square[run.at + m] = squares_at(tx, kernel) * squares_at(ty, kernel)


@kernel()
def _floors(way, m):
    x = way[0] + m * (way[1] + m * way[2])
    y = way[3] + m * (way[4] + m * way[5])
    return int(np.floor(x)), int(np.floor(y))


@kernel()
def _lattice_of(window, cell, channel):
    """Return a colour's lattice in a window, and the row and column of its first sample in the 2 x 2 cell."""
    cy = cx = 0
    if window.split:
        for j in range(2):
            for i in range(2):
                if cell[j, i] == channel:
                    cy, cx = j, i
    green = window.split and channel == 1
    first = (2 * cy + cx) * window.half if window.split else 0
    stride = 4 * window.half if window.split else 2 * window.half
    return Lattice(green, (cy + cx) % 2 if green else 0, window.half, first, stride), cy, cx


@kernel()
def _row_of(place, v, lattice, cy, cx, pace):
    """Return a row's positions on a lattice as quadratics in the output column: along, then across."""
    x0 = place[0, 0] + v * (place[0, 2] + v * place[0, 5])
    x1 = place[0, 1] + v * place[0, 4]
    y0 = place[1, 0] + v * (place[1, 2] + v * place[1, 5])
    y1 = place[1, 1] + v * place[1, 4]
    x2, y2 = place[0, 3], place[1, 3]
    if lattice.green:
        odd = lattice.odd
        return (
            0.5 * (x0 + y0 - odd),
            0.5 * (x1 + y1),
            0.5 * (x2 + y2),
            0.5 * (x0 - y0 - odd),
            0.5 * (x1 - y1),
            0.5 * (x2 - y2),
        )
    return (x0 - cx) / pace, x1 / pace, x2 / pace, (y0 - cy) / pace, y1 / pace, y2 / pace


@kernel(inline="always")
def _sample_runs(src, lattice, drift, count, at, target, bases):
    """Resample `count` pixels along a row in runs that share their offsets.

    `drift` holds their positions on the lattice as quadratics, less one sample for each pixel along the first axis,
    on green along both.
    """
    p0, p1, p2, r0, r1, r2 = drift
    k, j = _floors(drift, 0)
    last = _floors(drift, count - 1)
    if 12 * (abs(last[0] - k) + abs(last[1] - j)) > count:
        r1 += 1.0 if lattice.green else 0.0
        way = (np.float32(p0), np.float32(p1 + 1.0), np.float32(p2), np.float32(r0), np.float32(r1), np.float32(r2))
        _each(src, lattice, Run(0, count, at), way, target)
        return
    begin = 0
    while begin < count:
        end = count
        if last[0] != k or last[1] != j:  # halve until the first pixel with another offset
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
        run = Run(begin, end, at)
        if lattice.green:
            for d in range(-5, 6):
                row = k - j + d
                side = (row + lattice.odd) & 1
                bases[d + 5] = (row * 2 + side) * lattice.half + ((k + j + lattice.odd - d - 4 - side) >> 1)
            run_quincunx(src, bases, run, way, target)
        else:
            run_square(src, lattice.first + (j - 2) * lattice.stride + k - 2, lattice.stride, run, way, target)
        begin = end
        if begin < count:
            k, j = _floors(drift, begin)


@kernel()
def sample_window(
    src: np.ndarray, window: Any, cell: np.ndarray, place: np.ndarray, tile: Any, at: int, target: Target
) -> None:
    """Resample a window at every pixel of a tile, into the target's flat value and Σw² from element `at` on.

    They receive (channel, y, x), along x the even columns first, then the odd ones, where the `tile` is split, and
    must have `PADDING` elements to spare.  `src` is the window (flat), and `cell` (2, 2) the colours of the window's
    first pixels (0 R, 1 G, 2 B).  `place` (2, 6) gives the position in the window, x then y, as quadratics in the
    tile's own column u and row v: coefficients of 1, u, v, u², u v, v².
    """
    width, bases = tile.width, np.empty(11, np.int64)
    pace = 2 if tile.split else 1  # output columns from one position to the next
    for channel in range(3 if window.split else 1):
        lattice, cy, cx = _lattice_of(window, cell, channel)
        kernel = target.kernel[22:] if lattice.green else target.kernel[:22]
        here = Target(kernel, target.ramp, target.value, target.square)
        for v in range(tile.height):
            o0, o1, o2, q0, q1, q2 = _row_of(place, v, lattice, cy, cx, 2 if window.split else 1)
            for parity in range(pace):
                count = (width - parity + pace - 1) // pace
                # Lattice position of the m-th pixel, less m where a step of one pixel is a step of one sample.
                p0, p1, p2 = o0 + parity * (o1 + parity * o2), pace * (o1 + 2 * parity * o2) - 1.0, pace * pace * o2
                r0, r1, r2 = q0 + parity * (q1 + parity * q2), pace * (q1 + 2 * parity * q2), pace * pace * q2
                if lattice.green:
                    r1 -= 1.0
                _sample_runs(src, lattice, (p0, p1, p2, r0, r1, r2), count, at, here, bases)
                at += count
