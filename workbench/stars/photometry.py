"""Photometry of a plane: fluxes of stars in apertures and by a fit of the point spread function, with their errors.

A flux is a sum over N pixels.  With a stack's ``variance``, equivalent white noise of areas, or a frame's, of which
every pixel's noise is its own, its variance is the sum of the pixels' (photutils' apertures, weights squared for a fit)
and that of the local background under it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from photutils.aperture import CircularAperture, aperture_photometry
from photutils.psf import ImagePSF
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from ..core.errors import WorkbenchError
from ..core.statistics import mad_std
from .background import clipped_stats

RADIUS = 2.5  # [FWHM] of the aperture
ANNULUS = (4.0, 6.0)  # [FWHM] of the local background
_NEAREST = 5.0  # px, and the FWHM: where a star must lie
_FITTED = 1.5  # [FWHM] about a star, of the pixels that its point spread function is fitted to
_NEAR, _FAR = 3.0, 12.0  # [FWHM] within which a neighbour's light counts in full, and at all
_BETA = 3.5  # of the profile of stars through air, as measured ones have it


class Fluxes(NamedTuple):
    """Of each star (star,): flux with its standard error, local background per pixel, that one's error in the flux.

    NaN where the aperture is not complete; errors are NaN without a variance.
    """

    flux: np.ndarray
    error: np.ndarray
    background: np.ndarray
    background_error: np.ndarray


def nearest_star(x: np.ndarray, y: np.ndarray, place: tuple[float, float], fwhm: float, where: str) -> int:
    """Return the number of the star at a place (x, y) [px]: the nearest, at most 5 px or the FWHM away.

    Raises
    ------
    WorkbenchError
        If no star is so near; the message states which of those on `where` ("the stack") is the nearest.

    Examples
    --------
    >>> nearest_star(np.array([10.0, 50.0]), np.array([10.0, 20.0]), (48.0, 21.0), 3.0, "the stack")
    1
    """
    away = np.hypot(x - place[0], y - place[1])
    nearest = int(np.argmin(away))
    if away[nearest] > max(_NEAREST, fwhm):
        raise WorkbenchError(
            f"there is no star at x {place[0]:.1f}, y {place[1]:.1f} of {where}; the nearest is "
            f"{away[nearest]:.0f} px away at x {x[nearest]:.1f}, y {y[nearest]:.1f}"
        )
    return nearest


def aperture_fluxes(
    values: np.ndarray, x: np.ndarray, y: np.ndarray, fwhm: float, variance: np.ndarray | None = None,
    radius: float = RADIUS,
) -> Fluxes:  # fmt: skip
    """Measure stars in circular apertures, by default of 2.5 FWHM, over the clipped mean of a ring of 4 to 6 FWHM.

    F = Σ a v − A b,  Var F = Σ a Var v + A² Var b, with a the share of a pixel that lies in the aperture and A = Σ a.
    Var b is the ring's scatter or its mean variance, whichever is larger, over the number of its pixels.

    Parameters
    ----------
    values, variance
        A plane (y, x) and its variance, the same units squared.
    x, y
        Positions [px of the plane] (star,).
    fwhm
        [px of the plane].
    radius
        [FWHM] of the aperture.

    Examples
    --------
    >>> v, u = np.mgrid[:64, :64]
    >>> plane = 100 * np.exp(-((u - 30.2) ** 2 + (v - 31.7) ** 2) / (2 * 1.5**2)) + 7
    >>> found = aperture_fluxes(plane, [30.2, 2.0], [31.7, 31.7], 3.5, np.full(plane.shape, 4.0))
    >>> (found.flux / (100 * 2 * np.pi * 1.5**2)).round(3), found.error.round(1)
    (array([ 1., nan]), array([35.5,  nan]))
    """
    x, y = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))
    if not x.size:
        return Fluxes(*np.empty((4, 0)))
    aperture = CircularAperture(np.stack([x, y], axis=1), radius * fwhm)
    inner, outer = (limit * fwhm for limit in ANNULUS)
    rings = _rings(values, variance, x, y, inner, outer)
    height, width = values.shape
    reach = radius * fwhm - 0.5
    outside = (x < reach) | (y < reach) | (x > width - 1 - reach) | (y > height - 1 - reach)
    sums = aperture_photometry(values, aperture)["aperture_sum"].value
    background_error = aperture.area * rings[:, 1] / np.sqrt(rings[:, 2])
    error = np.full(x.size, np.nan)
    if variance is not None:
        noise = aperture_photometry(variance, aperture)["aperture_sum"].value
        error = np.sqrt(np.maximum(noise, 0) + background_error**2)
    flux = sums - aperture.area * rings[:, 0]
    flux[outside], error[outside | ~np.isfinite(flux)] = np.nan, np.nan
    return Fluxes(flux, error, rings[:, 0], background_error)


def _rings(
    values: np.ndarray, variance: np.ndarray | None, xs: np.ndarray, ys: np.ndarray, inner: float, outer: float
) -> np.ndarray:
    """Clipped mean, noise of a pixel and count of the ring around each star."""
    reach = int(np.ceil(outer))
    v, u = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    out = np.full((xs.size, 3), np.nan)
    for star, (x, y) in enumerate(zip(xs, ys, strict=True)):
        x0, y0 = round(x), round(y)
        top, left = max(y0 - reach, 0), max(x0 - reach, 0)
        cut = np.s_[top : max(y0 + reach + 1, 0), left : max(x0 + reach + 1, 0)]
        radius = np.hypot(u + x0 - x, v + y0 - y)
        height, width = values[cut].shape
        radius = radius[top - y0 + reach :, left - x0 + reach :][:height, :width]
        ring = (radius >= inner) & (radius <= outer)
        out[star] = clipped_stats(np.ascontiguousarray(values[cut][ring], np.float32))
        if variance is not None and out[star, 2] > 0:
            usual = np.nanmedian(variance[cut][ring])  # without the light of other stars, as the clipped mean
            out[star, 1] = max(out[star, 1], np.sqrt(usual))
    return out


def psf_fluxes(
    values: np.ndarray, x: np.ndarray, y: np.ndarray, psf: np.ndarray, fwhm: float, around: Fluxes,
    variance: np.ndarray | None = None,
) -> Fluxes:  # fmt: skip
    """Measure stars by least squares of a known point spread function at known places, close neighbours together.

    d − b = P F with P (pixel, star), pixels within 1.5 FWHM of a star, all with one weight: F = (PᵀP)⁻¹ Pᵀ (d − b),
    whose covariance is (PᵀP)⁻¹ PᵀVP (PᵀP)⁻¹.  (Weights from the noise of bright pixels would bias bright stars.)

    Parameters
    ----------
    values, variance, x, y, fwhm
        As for `aperture_fluxes`.
    psf
        Of an odd number of pixels (y, x), its sum 1.
    around
        What `aperture_fluxes` gave, for the local background.

    Returns
    -------
    As `aperture_fluxes`; NaN for a star with a missing pixel, or one that the aperture's flux is missing of.
    """
    x, y = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))
    flux, error, doubt = (np.full(x.size, np.nan) for _ in range(3))
    good = np.flatnonzero(np.isfinite(around.flux))
    if not good.size:
        return Fluxes(flux, error, around.background, doubt)
    model = ImagePSF(psf.astype(float))
    reach = int(np.ceil(_FITTED * fwhm)) + 1
    v, u = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    height, width = values.shape
    rows, columns, weights = [], [], []
    for number, star in enumerate(good):
        py, px = v + round(y[star]), u + round(x[star])
        near = np.hypot(py - y[star], px - x[star]) <= _FITTED * fwhm
        near &= (py >= 0) & (px >= 0) & (py < height) & (px < width)
        rows.append(py[near] * width + px[near])
        columns.append(np.full(near.sum(), number))
        weights.append(model.evaluate(px[near], py[near], 1.0, x[star], y[star]))
    column = np.concatenate(columns)
    pixel, at = np.unique(np.concatenate(rows), return_inverse=True)
    p = sparse.csr_matrix((np.concatenate(weights), (at, column)))
    share = sparse.csr_matrix((np.ones(at.size), (at, column)))  # a pixel's background: the mean of its stars'
    level = (share @ around.background[good]) / np.asarray(share.sum(axis=1)).ravel()
    data = values.ravel()[pixel] - level
    noise = np.zeros(pixel.size) if variance is None else np.maximum(variance.ravel()[pixel], 0)
    normal, right = (p.T @ p).tocsr(), p.T @ data
    spread, ones = (p.T @ p.multiply(noise[:, None])).tocsr(), p.T @ np.ones(pixel.size)
    per_pixel = around.background_error[good] / (np.pi * (RADIUS * fwhm) ** 2)
    groups, label = connected_components(normal, directed=False)
    order = np.argsort(label, kind="stable")
    for members in np.split(order, np.searchsorted(label[order], np.arange(1, groups))):
        inverse = np.linalg.inv(normal[members][:, members].toarray())
        flux[good[members]] = inverse @ right[members]
        own = np.diag(inverse @ spread[members][:, members].toarray() @ inverse)
        doubt[good[members]] = np.abs(inverse @ ones[members]) * per_pixel[members]
        if variance is not None:
            error[good[members]] = np.sqrt(own + doubt[good[members]] ** 2)
    return Fluxes(flux, error, around.background, doubt)


def profile_scale(fitted: Fluxes, whole: Fluxes, alone: np.ndarray) -> tuple[float, float]:
    """Return the factor of a fit's fluxes over the apertures', and the relative error that the profile leaves in one.

    The factor is the mean ratio of the stars `alone` (star), weighted with the apertures' errors; the error is what the
    ratios scatter beyond the noise, Var r ≈ (σ_aperture² − σ_fit²)/F², since a fit's noise is part of the aperture's.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio, weight = fitted.flux / whole.flux, (whole.flux / whole.error) ** 2
        noise = np.maximum(whole.error**2 - fitted.error**2, 0.0) / whole.flux**2
    good = alone & np.isfinite(ratio) & np.isfinite(weight) & (whole.flux > 0)
    if not good.any():
        return 1.0, 0.0
    ratio, weight, noise = ratio[good], weight[good], noise[good]
    bright = np.argsort(-weight)[: max(10, len(weight) // 4)]
    middle = np.median(ratio[bright])
    near = np.abs(ratio / middle - 1) < 5 * np.sqrt(noise + mad_std(ratio[bright] / middle) ** 2)
    scale = float(np.average(ratio[near], weights=weight[near])) if near.any() else float(middle)
    excess = float(mad_std(ratio[bright] / scale, centre=1)) ** 2 - float(np.median(noise[bright]))
    return scale, float(np.sqrt(max(excess, 0.0) + 1 / weight.sum()))


def crowded_stars(x: np.ndarray, y: np.ndarray, flux: np.ndarray, fwhm: float, least: np.ndarray) -> np.ndarray:
    """Return in which stars' apertures neighbours leave more light than `least` (star,), such as the flux's error.

    A neighbour within 3 FWHM counts in full, one at d with the share that an aperture of 2.5 FWHM holds of a Moffat
    profile with β = 3.5 there, A (β − 1)/(π α²) (1 + d²/α²)^−β, at most 12 FWHM away.

    Examples
    --------
    >>> flux = np.array([1000.0, 5.0, 30.0])
    >>> crowded_stars(np.array([10.0, 15.0, 60.0]), np.zeros(3), flux, 3.0, 0.02 * flux)
    array([False,  True, False])
    """
    light = np.zeros(len(x))
    if len(x) > 1:
        pairs = cKDTree(np.stack([x, y], axis=1)).query_pairs(_FAR * fwhm, output_type="ndarray")
        distance = np.hypot(*(at[pairs[:, 0]] - at[pairs[:, 1]] for at in (x, y))) / fwhm
        alpha = 0.5 / np.sqrt(2 ** (1 / _BETA) - 1)
        wing = RADIUS**2 * (_BETA - 1) / alpha**2 * (1 + (distance / alpha) ** 2) ** -_BETA
        share = np.where(distance < _NEAR, 1.0, wing)
        for one, other in (pairs.T, pairs.T[::-1]):
            np.add.at(light, one, share * np.maximum(flux[other], 0))
    return light > least
