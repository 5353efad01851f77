"""Samples of one lattice, square or quincunx, weighed for long runs of output pixels at once."""

from __future__ import annotations

import numba
import numpy as np

from .kernel import FAST, squares_at, weights_at

_U1, _U2, _U3, _U4, _U5 = (np.uintp(step) for step in range(1, 6))


@numba.njit(nogil=True, cache=True)
def _whole_vectors(start, stop):
    """Return the end of a loop that runs on to a multiple of 32: what lies beyond is overwritten by what follows."""
    return np.uintp(start + ((stop - start + 31) & -32))


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def _along_row(src, p, a0, a1, a2, a3, a4, a5):
    """Return six samples of a row from `p` on, weighed."""
    return (
        a0 * src[p] + a1 * src[p + _U1] + a2 * src[p + _U2] + a3 * src[p + _U3] + a4 * src[p + _U4] + a5 * src[p + _U5]
    )


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def run_square(src, first, stride, start, stop, way, kernel, ramp, at, value, square):
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
        a0, a1, a2, a3, a4, a5 = weights_at(tx, kernel)
        b0, b1, b2, b3, b4, b5 = weights_at(ty, kernel)
        s = b0 * _along_row(src, r0 + m, a0, a1, a2, a3, a4, a5)
        s += b1 * _along_row(src, r1 + m, a0, a1, a2, a3, a4, a5)
        s += b2 * _along_row(src, r2 + m, a0, a1, a2, a3, a4, a5)
        s += b3 * _along_row(src, r3 + m, a0, a1, a2, a3, a4, a5)
        s += b4 * _along_row(src, r4 + m, a0, a1, a2, a3, a4, a5)
        s += b5 * _along_row(src, r5 + m, a0, a1, a2, a3, a4, a5)
        value[out + m] = s
        square[out + m] = squares_at(tx, kernel) * squares_at(ty, kernel)


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def run_quincunx(src, bases, start, stop, way, kernel, ramp, at, value, square):
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
        a0, a1, a2, a3, a4, a5 = weights_at(tx, kernel)
        b0, b1, b2, b3, b4, b5 = weights_at(ty, kernel)
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
        square[out + m] = squares_at(tx, kernel) * squares_at(ty, kernel)


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def each(src, green, odd, half, first, stride, count, way, kernel, at, value, square):
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
        a[0], a[1], a[2], a[3], a[4], a[5] = weights_at(tx, kernel)
        b[0], b[1], b[2], b[3], b[4], b[5] = weights_at(ty, kernel)
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
        square[at + m] = squares_at(tx, kernel) * squares_at(ty, kernel)
