"""The brushes of the virtual sky: compiled loops that add light to a band of rows, and the records that they take.

All take `out` (rows, x) [e-/s], a band of a frame.  Each pixel's sum has one order: bands and threads change no bit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..core.errors import WorkbenchError
from ..core.kernels import kernel

if TYPE_CHECKING:
    from .sky import Trail, View

TAIL = 0.01  # [e-]: a star's stamp ends where it adds less than this to a pixel of the exposure

# places and weights within a pixel, of the nodes of a star's core and of its wings
_CORE_X, _CORE_W = np.array(np.polynomial.legendre.leggauss(5)) / 2
_WING_X, _WING_W = np.array(np.polynomial.legendre.leggauss(3)) / 2


class PaintedRows(NamedTuple):
    """Rows from `top` of a frame of `height`; `cell`: the mosaic's colours by number, `veil`: the clouds' spline."""

    top: int
    height: int
    cell: np.ndarray
    veil: np.ndarray


class Optics(NamedTuple):
    """From detector to sky: the view's `inverse` matrix, the optical centre [px], half diagonal² [px²], distortion."""

    inverse: np.ndarray
    y: float
    x: float
    radius2: float
    distortion: float


class Nebula(NamedTuple):
    """Spline coefficients (colour, row, column) [e-/s/pixel], from (`y`, `x`) every `step` [px]."""

    points: np.ndarray
    y: float
    x: float
    step: float


class SkyLight(NamedTuple):
    """The background's level (colour) [e-/s/pixel], relative gradient (colour, (y, x)) and curvature (colour)."""

    level: np.ndarray
    gradient: np.ndarray
    curvature: np.ndarray


class Stars(NamedTuple):
    """Positions [px], flux (star, colour) [e-/s] and the radius [px] within which a star is painted."""

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    radius: np.ndarray


class Profile(NamedTuple):
    """A PSF: peak (1 + q)^-beta, or peak exp(-q/2) where beta is infinite, q = xx dx² + xy dx dy + yy dy².

    `long` [px] is where q is 1 along the longer axis.  Within √`core2` [px] it is integrated with more nodes.
    """

    xx: float
    xy: float
    yy: float
    peak: float
    beta: float
    long: float
    core2: float


class Line(NamedTuple):
    """A trail: its start [px], unit direction, length, variance of its profile [px²] and rates (colour) [e-/s]."""

    x: float
    y: float
    ux: float
    uy: float
    length: float
    variance: float
    rates: np.ndarray


def psf_profile(view: View) -> Profile:
    """Return the elliptic PSF of a view."""
    if view.fwhm <= 0 or view.elongation < 1 or view.beta <= 1:
        raise WorkbenchError(
            f"a PSF needs fwhm > 0, elongation ≥ 1 and beta > 1; got {view.fwhm}, {view.elongation}, {view.beta}"
        )
    # exp(-q/2), q = r²/σ², or (1 + q)^-β, q = r²/α² (Moffat 1969)
    gaussian = math.isinf(view.beta)
    short = view.fwhm / (math.sqrt(8 * math.log(2)) if gaussian else 2 * math.sqrt(2 ** (1 / view.beta) - 1))
    peak = (0.5 if gaussian else view.beta - 1) / (math.pi * short**2 * view.elongation)
    long = short * view.elongation
    c, s = math.cos(view.angle), math.sin(view.angle)
    xx, yy = (c / long) ** 2 + (s / short) ** 2, (s / long) ** 2 + (c / short) ** 2
    xy = 2 * c * s * (1 / long**2 - 1 / short**2)
    return Profile(xx, xy, yy, peak, float(view.beta), long, (2 * view.fwhm * view.elongation) ** 2)


def stamp_radius(profile: Profile, electrons: np.ndarray) -> np.ndarray:
    """Return the distance [px] beyond which stars of so many `electrons` add less than `TAIL` of them to a pixel."""
    excess = np.maximum(electrons * profile.peak / TAIL, 1.0)
    q = 2 * np.log(excess) if math.isinf(profile.beta) else excess ** (1 / profile.beta) - 1
    return np.sqrt(q) * profile.long + 1.0


def trail_line(trail: Trail, exposure: float) -> Line:
    """Return a trail as `paint_trail` takes it, for an exposure [s]."""
    dx, dy = trail.x1 - trail.x0, trail.y1 - trail.y0
    length = math.hypot(dx, dy)
    if length == 0:
        raise WorkbenchError("a trail needs two different ends")
    variance = trail.fwhm**2 / (8 * math.log(2)) + 1 / 12  # the pixel's own width
    rates = np.array([electrons / exposure for electrons in trail.electrons])
    return Line(float(trail.x0), float(trail.y0), dx / length, dy / length, length, variance, rates)


@kernel(inline="always")
def _blend(t, weights):
    """Fill in the four weights of the uniform cubic B-spline at fraction t."""
    s = 1.0 - t
    weights[0] = s * s * s / 6.0
    weights[1] = (3.0 * t * t * t - 6.0 * t * t + 4.0) / 6.0
    weights[2] = (3.0 * s * s * s - 6.0 * s * s + 4.0) / 6.0
    weights[3] = t * t * t / 6.0


@kernel()
def spline(points: np.ndarray, row: float, column: float, wy: np.ndarray, wx: np.ndarray) -> float:
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


@kernel()
def _thickness(band, y, x, width, wy, wx):
    """The clouds' optical depth at a detector pixel: the veil's control points span the frame."""
    if band.veil.shape[0] == 0:
        return 0.0
    row = 1.0 + y / band.height * (band.veil.shape[0] - 3.001)
    column = 1.0 + x / width * (band.veil.shape[1] - 3.001)
    return spline(band.veil, row, column, wy, wx)


@kernel()
def paint_field(
    out: np.ndarray, band: PaintedRows, optics: Optics, nebula: Nebula, light: SkyLight, transparency: float
) -> None:
    """Set the background and add the nebula.

    background = level (1 + gradient · (position/size - 1/2) + curvature r²/R²) (1 + veil/2); the nebula is
    dimmed by transparency (1 - veil).
    """
    rows, width = out.shape
    wy, wx = np.empty(4), np.empty(4)
    for i in range(rows):
        y = float(band.top + i)
        for j in range(width):
            x = float(j)
            colour = band.cell[(band.top + i) % band.cell.shape[0], j % band.cell.shape[1]]
            dy, dx = y - optics.y, x - optics.x
            r2 = (dx * dx + dy * dy) / optics.radius2
            tilt = light.gradient[colour, 0] * ((y + 0.5) / band.height - 0.5)
            tilt += light.gradient[colour, 1] * ((x + 0.5) / width - 0.5)
            cloud = _thickness(band, y, x, width, wy, wx)
            level = light.level[colour] * (1.0 + tilt + light.curvature[colour] * r2) * (1.0 + 0.5 * cloud)
            bend = 1.0 + optics.distortion * r2
            px, py = optics.x + dx * bend, optics.y + dy * bend
            inverse = optics.inverse
            w = inverse[2, 0] * px + inverse[2, 1] * py + inverse[2, 2]
            u = (inverse[0, 0] * px + inverse[0, 1] * py + inverse[0, 2]) / w
            v = (inverse[1, 0] * px + inverse[1, 1] * py + inverse[1, 2]) / w
            row, column = (v - nebula.y) / nebula.step, (u - nebula.x) / nebula.step
            glow = spline(nebula.points[colour], row, column, wy, wx)
            out[i, j] = level + transparency * (1.0 - cloud) * glow


@kernel()
def _psf(profile, dx, dy):
    q = profile.xx * dx * dx + profile.xy * dx * dy + profile.yy * dy * dy
    if math.isinf(profile.beta):
        return math.exp(-0.5 * q)
    return (1.0 + q) ** -profile.beta


@kernel()
def paint_stars(out: np.ndarray, band: PaintedRows, stars: Stars, profile: Profile) -> None:
    """Add stars: flux times the PSF's integral over each pixel, by Gauss-Legendre nodes (25, or 9 in the wings)."""
    rows, width = out.shape
    wy, wx = np.empty(4), np.empty(4)
    for s in range(stars.x.size):
        x0, y0, reach = stars.x[s], stars.y[s], stars.radius[s]
        clear = 1.0 - _thickness(band, y0, x0, width, wy, wx)
        for i in range(max(0, math.ceil(y0 - reach) - band.top), min(rows, math.floor(y0 + reach) - band.top + 1)):
            dy = band.top + i - y0
            for j in range(max(0, math.ceil(x0 - reach)), min(width, math.floor(x0 + reach) + 1)):
                dx = j - x0
                r2 = dx * dx + dy * dy
                if r2 > reach * reach:
                    continue
                total = 0.0
                nodes, weights = (_CORE_X, _CORE_W) if r2 < profile.core2 else (_WING_X, _WING_W)
                for m in range(nodes.size):
                    for n in range(nodes.size):
                        total += weights[m] * weights[n] * _psf(profile, dx + nodes[n], dy + nodes[m])
                colour = band.cell[(band.top + i) % band.cell.shape[0], j % band.cell.shape[1]]
                out[i, j] += stars.flux[s, colour] * clear * profile.peak * total


@kernel()
def paint_trail(out: np.ndarray, band: PaintedRows, line: Line) -> None:
    """Add a trail: a Gaussian profile across a straight segment."""
    rows, width = out.shape
    reach2 = 50.0 * line.variance
    for i in range(rows):
        dy = band.top + i - line.y
        for j in range(width):
            dx = j - line.x
            across = dx * line.uy - dy * line.ux
            if across * across > reach2:
                continue
            along = dx * line.ux + dy * line.uy
            if along < 0.0 or along > line.length:
                continue
            colour = band.cell[(band.top + i) % band.cell.shape[0], j % band.cell.shape[1]]
            out[i, j] += line.rates[colour] * math.exp(-0.5 * across * across / line.variance)
