"""How a star's brightness changes from frame to frame, compared with other stars of the same frames.

Clouds, air mass, exposure and seeing dim all stars of a small field alike.  The flux of star k in frame i is F_k T_i:
T is fitted to the comparison stars together, and the target's flux over it is free of what all of them share.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..core.errors import WorkbenchError

FEWEST = 3  # comparison stars, and frames of a star
_COMPLETE = 0.8  # of the frames that a comparison star is measured in
_VARIABLE = 4.0  # times the usual χ² of a star: it varies itself, or something is wrong with it
_SURE = 3.0  # errors of χ² over 1 before scatter beyond the noise is added
_ROUNDS = 50


class RelativeFlux(NamedTuple):
    """A star's flux relative to the comparison stars, median 1.

    `value` and standard `error` (frame) of the target, `check` and `check_error` (frame) of one comparison star against
    the others, whose number is `check_star`; `common` (frame), how bright the comparison stars were, median 1, with
    `common_error`; `comparison` (star), which stars they are.  `scatter`: what the comparison stars scatter beyond
    their noise, relative, which is part of the errors; `chi_square`: that of the comparison stars per degree of
    freedom, before.
    """

    value: np.ndarray
    error: np.ndarray
    check: np.ndarray
    check_error: np.ndarray
    check_star: int
    common: np.ndarray
    common_error: np.ndarray
    comparison: np.ndarray
    scatter: float
    chi_square: float


class _Common(NamedTuple):
    """Fluxes F (star) and transparency T (frame) of some stars, T's standard error, pulls (frame, star)."""

    flux: np.ndarray
    common: np.ndarray
    error: np.ndarray
    pulls: np.ndarray

    @property
    def freedom(self) -> int:
        return int(np.isfinite(self.pulls).sum()) - self.flux.size - int(np.isfinite(self.common).sum()) + 1

    @property
    def chi_square(self) -> float:
        return float(np.nansum(self.pulls**2)) / max(self.freedom, 1)


def relative_flux(flux: np.ndarray, error: np.ndarray, target: int, check: int | None = None) -> RelativeFlux:
    """Compare a star with the others of the same frames.

    r_i = f_i / T_i with T from least squares of f_ik = F_k T_i over the comparison stars, a star's weight being one
    over the mean of its variance (not of each frame, which would favour faint values).  Stars that scatter four times
    as much in χ² as most are left out one by one.  What the others scatter beyond their noise (scintillation, flats,
    clouds with edges) is one relative scatter s for all stars, added where χ² is beyond three errors:
    (σ_r/r)² = (σ_f/f)² + s² + (σ_T/T)².

    Parameters
    ----------
    flux, error
        Of each star in each frame (frame, star), with its standard error; NaN where it was not measured.
    target
        Number of the star.
    check
        Number of the comparison star that is shown as a check; by default the one nearest in flux.

    Raises
    ------
    WorkbenchError
        If there are fewer than three frames or comparison stars.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> air = 1 - 0.3 * rng.random((40, 1))
    >>> true = air * np.array([5e4, 4e4, 6e4, 8e4, 3e4])
    >>> true[20:, 0] *= 0.98
    >>> found = relative_flux(rng.normal(true, 200), np.full((40, 5), 200.0), 0)
    >>> float((found.value[20:].mean() / found.value[:20].mean()).round(2))
    0.98
    """
    measured = np.isfinite(flux) & np.isfinite(error) & (error > 0)
    good = measured.mean(axis=0) >= _COMPLETE
    good[target] = False
    with np.errstate(invalid="ignore"):
        good &= np.nanmedian(np.where(measured, flux, np.nan), axis=0) > 0 if measured.any(axis=0).all() else good
    frames = int(measured[:, target].sum())
    if frames < FEWEST or good.sum() < FEWEST:
        raise WorkbenchError(
            f"the star is measured in {frames} frames, and {int(good.sum())} comparison stars are in most of them; a "
            f"light curve needs {FEWEST} of both"
        )
    chosen = np.flatnonzero(good)
    while True:
        fit = _fit(flux[:, chosen], error[:, chosen], 0.0)
        own = np.nanmean(fit.pulls**2, axis=0)
        worst = int(np.argmax(own))
        if len(chosen) <= FEWEST or own[worst] < _VARIABLE * max(float(np.median(own)), 1.0):
            break
        chosen = np.delete(chosen, worst)
    chi_square, scatter = fit.chi_square, 0.0
    if chi_square > 1 + _SURE * np.sqrt(2 / max(fit.freedom, 1)):
        scatter = _scatter(flux[:, chosen], error[:, chosen])
    fit = _fit(flux[:, chosen], error[:, chosen], scatter)
    level = np.nanmedian(flux[:, target] / fit.common)
    if check is None:
        usual = np.abs(np.log(fit.flux / level)) if level > 0 else -fit.flux
        check = int(chosen[int(np.argmin(usual))])
    others = chosen[chosen != check]
    value, doubt = _ratio(flux[:, target], error[:, target], fit, scatter)
    rest = _fit(flux[:, others], error[:, others], scatter)
    second, second_doubt = _ratio(flux[:, check], error[:, check], rest, scatter)
    middle = np.nanmedian(fit.common)
    return RelativeFlux(
        value, doubt, second, second_doubt, check, fit.common / middle, fit.error / middle,
        np.isin(np.arange(flux.shape[1]), chosen), scatter, chi_square,
    )  # fmt: skip


def _fit(flux: np.ndarray, error: np.ndarray, scatter: float) -> _Common:
    """Fit F_k T_i to fluxes (frame, star), `scatter` being relative."""
    known = np.isfinite(flux) & np.isfinite(error)
    data = np.where(known, flux, 0.0)
    star = np.nanmedian(np.where(known, flux, np.nan), axis=0)
    variance = np.where(known, error, 0.0) ** 2
    weight = known / (variance.sum(axis=0) / known.sum(axis=0) + (scatter * star) ** 2)
    common = np.ones(len(flux))
    with np.errstate(invalid="ignore", divide="ignore"):
        for _ in range(_ROUNDS):
            before = common
            common = (weight * data * star).sum(axis=1) / (weight * star**2).sum(axis=1)
            there = np.nan_to_num(common)[:, None]
            star = (weight * data * there).sum(axis=0) / (weight * there**2).sum(axis=0)
            if np.nanmax(np.abs(common - before)) < 1e-10:
                break
        noise = variance + (scatter * star * there) ** 2
        spread = np.sqrt((weight**2 * star**2 * noise).sum(axis=1)) / (weight * star**2).sum(axis=1)
        pulls = np.where(known, (data - star * there) / np.sqrt(noise), np.nan)
    return _Common(star, common, spread, pulls)


def _scatter(flux: np.ndarray, error: np.ndarray) -> float:
    """Return the relative scatter that makes χ² one per degree of freedom, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if _fit(flux, error, middle).chi_square > 1 else (low, middle)
    return high


def _ratio(flux: np.ndarray, error: np.ndarray, fit: _Common, scatter: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a star's flux over what the comparison stars have in common, median 1, and its standard error."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = flux / fit.common
        own = np.hypot(error / fit.common, ratio * np.hypot(scatter, fit.error / fit.common))
    level = np.nanmedian(ratio)
    return ratio / level, own / abs(level)
