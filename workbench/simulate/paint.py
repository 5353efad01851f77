"""The brushes of the virtual sky: compiled loops that add light to a band of rows.

All take `out` (rows, x) [e-/s], whose first row is row `top` of a frame `height` rows high, and `cell`, the
numbers of the colours in the mosaic's cell.  Each pixel's sum has one order: bands and threads change no bit.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

_CORE = np.polynomial.legendre.leggauss(5)
_WING = np.polynomial.legendre.leggauss(3)
_CORE_X, _CORE_W = _CORE[0] / 2, _CORE[1] / 2
_WING_X, _WING_W = _WING[0] / 2, _WING[1] / 2


@njit(nogil=True, cache=True, inline="always")
def _blend(t, weights):
    """Fill in the four weights of the uniform cubic B-spline at fraction t."""
    s = 1.0 - t
    weights[0] = s * s * s / 6.0
    weights[1] = (3.0 * t * t * t - 6.0 * t * t + 4.0) / 6.0
    weights[2] = (3.0 * s * s * s - 6.0 * s * s + 4.0) / 6.0
    weights[3] = t * t * t / 6.0


@njit(nogil=True, cache=True)
def spline(points, row, column, wy, wx):
    """Return the cubic B-spline surface of the control points at (row, column); 0 outside."""
    i, j = math.floor(row), math.floor(column)
    if i < 1 or j < 1 or i + 2 >= points.shape[0] or j + 2 >= points.shape[1]:
        return 0.0
    _blend(row - i, wy)
    _blend(column - j, wx)
    total = 0.0
    for m in range(4):
        line = 0.0
        for n in range(4):
            line += wx[n] * points[i - 1 + m, j - 1 + n]
        total += wy[m] * line
    return total


@njit(nogil=True, cache=True)
def _thickness(veil, y, x, height, width, wy, wx):
    """The clouds' optical depth at a detector pixel: the veil's control points span the frame."""
    if veil.shape[0] == 0:
        return 0.0
    row = 1.0 + y / height * (veil.shape[0] - 3.001)
    column = 1.0 + x / width * (veil.shape[1] - 3.001)
    return spline(veil, row, column, wy, wx)


@njit(nogil=True, cache=True)
def paint_field(out, top, height, cell, inverse, lens, nebula, grid, veil, transparency, light):
    """Set the background and add the nebula.

    background = level (1 + gradient · (position/size - 1/2) + curvature r²/R²) (1 + veil/2); the nebula is
    dimmed by transparency (1 - veil).  `light` holds level (3), gradient (3, (y, x)), curvature (3).
    """
    rows, width = out.shape
    wy, wx = np.empty(4), np.empty(4)
    for i in range(rows):
        y = float(top + i)
        for j in range(width):
            x = float(j)
            colour = cell[(top + i) % cell.shape[0], j % cell.shape[1]]
            dy, dx = y - lens[0], x - lens[1]
            r2 = (dx * dx + dy * dy) / lens[2]
            tilt = light[3 + 2 * colour] * ((y + 0.5) / height - 0.5) + light[4 + 2 * colour] * (
                (x + 0.5) / width - 0.5
            )
            cloud = _thickness(veil, y, x, height, width, wy, wx)
            level = light[colour] * (1.0 + tilt + light[9 + colour] * r2) * (1.0 + 0.5 * cloud)
            bend = 1.0 + lens[3] * r2
            px, py = lens[1] + dx * bend, lens[0] + dy * bend
            w = inverse[2, 0] * px + inverse[2, 1] * py + inverse[2, 2]
            u = (inverse[0, 0] * px + inverse[0, 1] * py + inverse[0, 2]) / w
            v = (inverse[1, 0] * px + inverse[1, 1] * py + inverse[1, 2]) / w
            glow = spline(nebula[colour], (v - grid[0]) / grid[2], (u - grid[1]) / grid[2], wy, wx)
            out[i, j] = level + transparency * (1.0 - cloud) * glow


@njit(nogil=True, cache=True)
def _profile(q, beta):
    if math.isinf(beta):
        return math.exp(-0.5 * q)
    return (1.0 + q) ** -beta


@njit(nogil=True, cache=True)
def paint_stars(out, top, height, cell, star_x, star_y, flux, radius, profile, veil):
    """Add stars: flux times the PSF's integral over each pixel, by Gauss-Legendre nodes (25, or 9 in the wings).

    The PSF is peak (1 + q)^-beta, or peak exp(-q/2) where beta is infinite, q = xx dx² + xy dx dy + yy dy².
    """
    rows, width = out.shape
    xx, xy, yy, peak, beta, core2 = profile
    wy, wx = np.empty(4), np.empty(4)
    for s in range(star_x.size):
        x0, y0, reach = star_x[s], star_y[s], radius[s]
        clear = 1.0 - _thickness(veil, y0, x0, height, width, wy, wx)
        for i in range(max(0, math.ceil(y0 - reach) - top), min(rows, math.floor(y0 + reach) - top + 1)):
            dy = top + i - y0
            for j in range(max(0, math.ceil(x0 - reach)), min(width, math.floor(x0 + reach) + 1)):
                dx = j - x0
                r2 = dx * dx + dy * dy
                if r2 > reach * reach:
                    continue
                total = 0.0
                if r2 < core2:
                    for m in range(5):
                        b = dy + _CORE_X[m]
                        for n in range(5):
                            a = dx + _CORE_X[n]
                            total += _CORE_W[m] * _CORE_W[n] * _profile(xx * a * a + xy * a * b + yy * b * b, beta)
                else:
                    for m in range(3):
                        b = dy + _WING_X[m]
                        for n in range(3):
                            a = dx + _WING_X[n]
                            total += _WING_W[m] * _WING_W[n] * _profile(xx * a * a + xy * a * b + yy * b * b, beta)
                colour = cell[(top + i) % cell.shape[0], j % cell.shape[1]]
                out[i, j] += flux[s, colour] * clear * peak * total


@njit(nogil=True, cache=True)
def paint_trail(out, top, cell, line):
    """Add a trail: a Gaussian profile across a straight segment (x0, y0, direction, length, variance, rates)."""
    rows, width = out.shape
    x0, y0, ux, uy, length, variance = line[0], line[1], line[2], line[3], line[4], line[5]
    reach2 = 50.0 * variance
    for i in range(rows):
        dy = top + i - y0
        for j in range(width):
            dx = j - x0
            across = dx * uy - dy * ux
            if across * across > reach2:
                continue
            along = dx * ux + dy * uy
            if along < 0.0 or along > length:
                continue
            colour = cell[(top + i) % cell.shape[0], j % cell.shape[1]]
            out[i, j] += line[6 + colour] * math.exp(-0.5 * across * across / variance)
