"""Errors of dark signal and dark current: from the scatter of whole frames, of blocks, of these very pixels."""

from __future__ import annotations

import numpy as np
from scipy import special

from ..core.pairs import jackknife_error, leave_one_out, t_factor
from .dark_frames import Group, SettingRead
from .gain import MISFIT, MISFIT_TO_TELL


def pooled(groups: list[Group]) -> list[Group]:
    """The groups whose frames' scatter can be measured."""
    return [group for group in groups if group.count > 1]


def scatter_terms(
    points: list[Group], levers: np.ndarray, weight: np.ndarray, others: list[Group] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return each group's part of the variance of Σ lever · (weighted frame mean), and its degrees of freedom.

    From the scatter of the frames' means within the group; a single frame takes the pooled variance of `others`
    (the points that have more), NaN where there are none.
    """
    others = pooled(points) if others is None else others
    terms, freedoms = [], []
    for group, lever in zip(points, levers, strict=True):
        variance, freedom = pooled_variance([group] if group.count > 1 else others, weight)
        terms.append(lever**2 * group.count * variance)
        freedoms.append(freedom)
    return np.array(terms), np.array(freedoms, float)


def pooled_variance(groups: list[Group], weight: np.ndarray) -> tuple[float, int]:
    """Return the variance of the frames' weighted means within their groups, and its degrees of freedom."""
    freedom = sum(group.count - 1 for group in groups)
    squares = sum(float(np.var(group.means @ weight, ddof=1)) * (group.count - 1) for group in groups)
    return (squares / freedom if freedom else np.nan), freedom


def half_width(terms: np.ndarray, freedoms: np.ndarray) -> float:
    """Return half the 68 % interval of a sum of measured variances (Welch and Satterthwaite)."""
    total = float(terms.sum())
    return float(np.sqrt(total)) * t_factor(freedom_of(terms, freedoms)) if total > 0 else total


def freedom_of(terms: np.ndarray, freedoms: np.ndarray) -> float:
    """Return the degrees of freedom of a sum of measured variances (Welch and Satterthwaite)."""
    some = terms > 0
    return float(terms.sum() ** 2 / (terms[some] ** 2 / freedoms[some]).sum()) if some.any() else np.inf


def errors_to_compare(
    one: SettingRead, terms: np.ndarray, freedoms: np.ndarray, levers: np.ndarray
) -> dict[str, float]:
    """Return standard errors from the darks, and from the bias frames, which other temperatures share."""
    shared = np.array([group is one.bias for group in one.points])
    return {
        "own_error": float(np.sqrt(terms[~shared].sum())),
        "own_freedom": freedom_of(terms[~shared], freedoms[~shared]),
        "own_lever": float(np.linalg.norm(levers[~shared])),
        "bias_error": float(np.sqrt(terms[shared].sum())),
        "bias_freedom": float(freedoms[shared].sum()) if shared.any() else np.inf,
    }


def misfit(points: list[Group], weight: np.ndarray) -> tuple[float, str]:
    """Return by how much to widen the error where the signal is not proportional to exposure, and what to say."""
    variance, freedom = pooled_variance(pooled(points), weight)
    if len(points) < 3 or not variance > 0:
        return 1.0, ""
    counts, times = (np.array([getattr(group, name) for group in points], float) for name in ("count", "exposure"))
    level = np.array([group.steady @ weight for group in points])
    line = np.polynomial.Polynomial.fit(times, level, 1, w=np.sqrt(counts))
    off = level - line(times)
    ratio = float((counts * off**2).sum() / (len(points) - 2) / variance)
    chance = special.fdtrc(len(points) - 2, freedom, ratio)
    if not chance < MISFIT:
        return 1.0, ""
    if not chance < MISFIT_TO_TELL:
        return np.sqrt(ratio), ""
    worst = times[np.argmax(np.abs(off) * np.sqrt(counts))]
    return np.sqrt(ratio), (
        "the dark signal at {where} is not proportional to exposure"
        f" (worst at {worst:g} s), so the error of the dark current is widened; darks that were not equally warm do "
        "this"
    )


def spatial_variance(
    points: list[Group], levers: np.ndarray, sums: np.ndarray, gain: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return each channel's variance of the slope map without temporal noise [ADU²/s²], and its variance.

    A pixel's temporal noise is in the map with T = Σ lever² · count · half-variance; a single frame's half-variance is
    taken on the line through those of the other groups against exposure (shot noise grows with it).  The error is for
    these very pixels: of the map's variance S² + T, Var = (4 S²T + 2 T² + 4 τ m₃ + 2 τ²S²)/n, where the last two terms
    are the greater shot noise of hot pixels, τ = Σ lever² · count · exposure/g, m₃ the map's third central moment; and
    of T, by a jackknife over blocks.  NaN where T cannot be told.
    """
    measured = [group for group in points if group.count > 1]
    noise = {id(group): group.noise for group in measured}
    channels = sums.shape[1]
    for group in points:
        if group.count > 1:
            continue
        times = np.array([other.exposure for other in measured])
        if np.unique(times).size < 2:
            return np.full(channels, np.nan), np.full(channels, np.nan)
        values = np.stack([other.noise.reshape(-1) for other in measured])
        fit = np.polynomial.polynomial.polyfit(times, values, 1)
        noise[id(group)] = np.polynomial.polynomial.polyval(group.exposure, fit).reshape(channels, -1)
    carried = [lever**2 * group.count for lever, group in zip(levers, points, strict=True)]
    temporal = sum(factor * noise[id(group)] for factor, group in zip(carried, points, strict=True))  # (channel, block)
    shot = sum(factor * group.exposure for factor, group in zip(carried, points, strict=True)) / gain
    weight = sums[0] / sums[0].sum(axis=1, keepdims=True)
    without = leave_one_out(weight * temporal, axis=1) / leave_one_out(weight, axis=1)
    temporal_error = jackknife_error(without, axis=1)
    temporal = (weight * temporal).sum(axis=1)
    n, s, s2, s3 = sums.sum(axis=2)
    mean = s / n
    spatial = (s2 - s**2 / n) / (n - 1) - temporal
    third = s3 / n - 3 * mean * s2 / n + 2 * mean**3
    of_map = 4 * np.maximum(spatial, 0) * temporal + 2 * temporal**2
    of_hot = 4 * shot * np.maximum(third, 0) + 2 * shot**2 * np.maximum(spatial, 0)
    return spatial, (of_map + of_hot) / n + temporal_error**2
