"""Where a star is, how wide and how bright: moments under a Gaussian weight, flux in an aperture."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from .background import clipped_stats

FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
_APERTURE = 2.2  # flux within this many FWHM: a fraction that does not change with the seeing
_ANNULUS = (3.0, 5.0)  # local background, in FWHM


class Moments(NamedTuple):
    """Stars under a Gaussian weight, each array (star,): NaN for a star that walked away.

    Centroid `x`, `y` [px]; second moments `xx`, `yy`, `xy` [px²], as weighted; `light`, the sum of weight times light,
    with its `noise`; `lever` [units · px], the noise of the light's first moment about the centroid.
    """

    x: np.ndarray
    y: np.ndarray
    xx: np.ndarray
    yy: np.ndarray
    xy: np.ndarray
    light: np.ndarray
    noise: np.ndarray
    lever: np.ndarray


@numba.njit(nogil=True, cache=True)
def measure(plane, xs, ys, sigma, noise, gain):
    """Return the `Moments` of stars on a background-subtracted plane (y, x) under a round Gaussian weight.

    `xs`, `ys` (star,) are where to start and `sigma` the weight's width [px]; `noise` is a pixel's, in the units of the
    plane, `gain` electrons for one of them.  The weight is moved until it is centred on the star.
    """
    height, width = plane.shape
    found = np.full((8, xs.size), np.nan)
    out = Moments(found[0], found[1], found[2], found[3], found[4], found[5], found[6], found[7])
    reach = int(np.ceil(3.5 * sigma))
    narrow = -0.5 / (sigma * sigma)
    size = 2 * reach + 1
    row_weight = np.empty(size)
    column_weight = np.empty(size)
    for star in range(xs.size):
        x, y = xs[star], ys[star]
        good = False
        total = sxx = syy = sxy = variance = leverage = 0.0
        for iteration in range(12):
            x0, y0 = int(np.round(x)), int(np.round(y))
            if x0 < 2 or y0 < 2 or x0 >= width - 2 or y0 >= height - 2:
                break
            total = sx = sy = sxx = syy = sxy = variance = leverage = 0.0
            for i in range(size):
                row_weight[i] = np.exp(narrow * (y0 - reach + i - y) ** 2)
                column_weight[i] = np.exp(narrow * (x0 - reach + i - x) ** 2)
            for j in range(max(0, y0 - reach), min(height, y0 + reach + 1)):
                dy = j - y
                for i in range(max(0, x0 - reach), min(width, x0 + reach + 1)):
                    dx = i - x
                    weight = row_weight[j - y0 + reach] * column_weight[i - x0 + reach]
                    light = weight * plane[j, i]
                    total += light
                    sx += light * dx
                    sy += light * dy
                    sxx += light * dx * dx
                    syy += light * dy * dy
                    sxy += light * dx * dy
                    scatter = weight * weight * (noise * noise + max(plane[j, i], 0.0) / gain)
                    variance += scatter
                    leverage += scatter * 0.5 * (dx * dx + dy * dy)
            if total <= 0.0:
                break
            # A Gaussian star as wide as the weight is pulled half-way; twice the pull is the whole way.
            shift_x, shift_y = 2.0 * sx / total, 2.0 * sy / total
            if abs(shift_x) + abs(shift_y) < 1e-3 or iteration == 11:
                good = True
                break
            x += min(max(shift_x, -1.0), 1.0)
            y += min(max(shift_y, -1.0), 1.0)
            if abs(x - xs[star]) > 1.0 + 1.5 * sigma or abs(y - ys[star]) > 1.0 + 1.5 * sigma:
                break
        if good:
            out.x[star], out.y[star] = x, y
            out.xx[star], out.yy[star], out.xy[star] = sxx / total, syy / total, sxy / total
            out.light[star], out.noise[star], out.lever[star] = total, np.sqrt(variance), np.sqrt(leverage)
    return out


def intrinsic(measured: Moments, sigma: float) -> np.ndarray:
    """Return the stars' own covariances xx, yy, xy [px²], (star, 3); NaN where they cannot be had.

    The moments of star times weight are (C⁻¹ + W⁻¹)⁻¹ for a Gaussian star; solved for C.
    """
    xx, yy, xy = measured.xx, measured.yy, measured.xy
    with np.errstate(all="ignore"):
        det = xx * yy - xy**2
        axx, ayy, axy = yy / det - sigma**-2, xx / det - sigma**-2, -xy / det
        own = axx * ayy - axy**2
        return np.where((det > 0) & (own > 0) & (axx > 0), np.stack([ayy / own, axx / own, -axy / own]), np.nan).T


@numba.njit(nogil=True, cache=True)
def photometry(plane, xs, ys, fwhm, noise, gain):
    """Return flux and error of each star (star,): light in an aperture of 2.2 `fwhm` [px] less that of a ring about it.

    In the units of the plane (y, x); NaN where the aperture is not complete.
    """
    height, width = plane.shape
    fluxes, errors = np.full(xs.size, np.nan), np.full(xs.size, np.nan)
    inner, begin, end = _APERTURE * fwhm, _ANNULUS[0] * fwhm, _ANNULUS[1] * fwhm
    reach = int(np.ceil(end))
    ring = np.empty((2 * reach + 1) ** 2, np.float32)
    for star in range(xs.size):
        x, y = xs[star], ys[star]
        x0, y0 = int(np.round(x)), int(np.round(y))
        light = area = 0.0
        count = 0
        for j in range(y0 - reach, y0 + reach + 1):
            for i in range(x0 - reach, x0 + reach + 1):
                if j < 0 or i < 0 or j >= height or i >= width:
                    continue
                radius = np.sqrt((i - x) ** 2 + (j - y) ** 2)
                weight = min(max(inner + 0.5 - radius, 0.0), 1.0)
                light += weight * plane[j, i]
                area += weight
                if begin <= radius <= end:
                    ring[count] = plane[j, i]
                    count += 1
        local, _, used = clipped_stats(ring[:count])
        complete = area > 0.98 * np.pi * inner * inner
        if used >= 8 and complete:
            flux = light - area * local
            fluxes[star] = flux
            errors[star] = np.sqrt(max(flux, 0.0) / gain + area * noise * noise * (1.0 + area / used))
    return fluxes, errors
