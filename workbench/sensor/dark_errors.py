"""Errors of dark signal and dark current from the scatter of whole frames and of blocks, and two checks.

The checks: a sensor that warms along a run of darks, and a camera that subtracts the mean dark signal by itself, whose
noise still gives the dark current.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import special

from ..core.dark import TYPICAL_DOUBLING
from ..core.pairs import BLOCKS, jackknife_error, leave_one_out, t_factor
from ..core.statistics import MISFIT, MISFIT_TO_WARN
from ..core.values import describe
from .dark_frames import DarkGroup, DarkSetting

_SUBTRACTED = 0.5  # of the dark current that the noise gives the mean must show, or the camera subtracts the mean
_WORTH_A_WARNING = 0.3  # K along a run
_TREND_CHANCE = 1e-3  # that equal darks show such a trend
_STEEPEST_TREND = 4.0  # of the dark signal; more is something else
_FEWEST_IN_A_RUN = 4


def pooled(groups: list[DarkGroup]) -> list[DarkGroup]:
    """The groups whose frames' scatter can be measured."""
    return [group for group in groups if group.count > 1]


def scatter_terms(
    points: list[DarkGroup], levers: np.ndarray, weight: np.ndarray, others: list[DarkGroup] | None = None
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


def pooled_variance(groups: list[DarkGroup], weight: np.ndarray) -> tuple[float, int]:
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
    shares = (terms[some] ** 2 / freedoms[some]).sum()
    return float(terms.sum() ** 2 / shares) if shares > 0 else np.inf


def errors_to_compare(
    setting: DarkSetting, terms: np.ndarray, freedoms: np.ndarray, levers: np.ndarray
) -> dict[str, float]:
    """Return standard errors from the darks, and from the bias frames, which other temperatures share."""
    shared = np.array([group is setting.bias for group in setting.points])
    return {
        "own_error": float(np.sqrt(terms[~shared].sum())),
        "own_freedom": freedom_of(terms[~shared], freedoms[~shared]),
        "own_lever": float(np.linalg.norm(levers[~shared])),
        "bias_error": float(np.sqrt(terms[shared].sum())),
        "bias_freedom": float(freedoms[shared].sum()) if shared.any() else np.inf,
    }


def misfit(points: list[DarkGroup], weight: np.ndarray) -> tuple[float, str]:
    """Return by how much to widen the error where the signal is not proportional to exposure, and a warning or none."""
    variance, freedom = pooled_variance(pooled(points), weight)
    if len(points) < 3 or not variance > 0:
        return 1.0, ""
    counts, times = (np.array([getattr(group, name) for group in points], float) for name in ("count", "exposure"))
    level = np.array([group.steady @ weight for group in points])
    base, slope, _ = weighted_line(times, level, counts)
    off = level - base - slope * times
    ratio = float((counts * off**2).sum() / (len(points) - 2) / variance)
    chance = special.fdtrc(len(points) - 2, freedom, ratio)
    if not chance < MISFIT:
        return 1.0, ""
    if not chance < MISFIT_TO_WARN:
        return np.sqrt(ratio), ""
    worst = times[np.argmax(np.abs(off) * np.sqrt(counts))]
    return np.sqrt(ratio), (
        "the dark signal at {where} is not proportional to exposure"
        f" (worst at {worst:g} s), so the error of the dark current is widened; darks that were not equally warm do "
        "this"
    )


def spatial_variance(
    points: list[DarkGroup], levers: np.ndarray, sums: np.ndarray, gain: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return each channel's variance of the slope map without temporal noise [ADU²/s²], and its variance.

    A pixel's temporal noise is in the map with T = Σ lever² · count · half-variance; a single frame's half-variance is
    taken on the line through those of the other groups against exposure (shot noise grows with it).  The error is for
    these very pixels: of the map's variance S² + T, Var = (4 S²T + 2 T² + 4 τ m₃ + 2 τ²S²)/n, where the last two terms
    are the greater shot noise of hot pixels, τ = Σ lever² · count · exposure/g, m₃ the map's third central moment; and
    of T, by a jackknife over blocks.  NaN where T cannot be measured.
    """
    channels, measured = sums.shape[1], pooled(points)
    noise = [group.noise for group in points]
    if len(measured) < len(points):
        times = np.array([group.exposure for group in measured])
        if np.unique(times).size < 2:
            return np.full(channels, np.nan), np.full(channels, np.nan)
        base, slope, _ = weighted_line(times, np.stack([group.noise for group in measured]), np.ones(times.size))
        noise = [group.noise if group.count > 1 else base + slope * group.exposure for group in points]
    carried = levers**2 * np.array([group.count for group in points])
    temporal = np.tensordot(carried, np.stack(noise), 1)  # (channel, block)
    shot = carried @ np.array([group.exposure for group in points]) / gain
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


def weighted_line(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return intercept and slope of the weighted line y(x), and the slope's error where weights are 1/σ².

    Parameters
    ----------
    x, weight
        Over point.
    y
        (point, ...): a line for each of what follows.
    """
    total = weight.sum()
    middle = (weight * x).sum() / total
    away = x - middle
    spread = (weight * away**2).sum()
    slope = np.tensordot(weight * away, y, 1) / spread
    return np.tensordot(weight, y, 1) / total - slope * middle, slope, float(spread**-0.5)


def mean_subtracted(mean: float, by_noise: float, error: float) -> bool:
    """Return whether the mean shows less than half of the dark current that the noise is sure of [e⁻/s].

    Examples
    --------
    >>> mean_subtracted(0.01, 0.3, 0.02), mean_subtracted(0.31, 0.3, 0.02), mean_subtracted(0.01, 0.3, 0.2)
    (True, False, False)
    """
    return bool(by_noise > 5 * error and mean < _SUBTRACTED * by_noise)


def from_noise(points: list[DarkGroup], share: np.ndarray, gain: np.ndarray) -> tuple[float, float, float]:
    """Return the dark current from the growth of the pairs' variance, dσ²/dt g² [e⁻/s], its error, and in ADU/s.

    Shot noise of D t electrons has the variance D t/g² [ADU²], whatever the camera subtracts.  The error is from a
    jackknife over blocks of rows.
    """
    several = pooled(points)
    times = np.array([group.exposure for group in several])
    if np.unique(times).size < 2 or not np.isfinite(gain).all():
        return np.nan, np.nan, np.nan
    noise = np.array([group.noise for group in several])  # (group, channel, block)
    weight = np.array([group.count - 1 for group in several]) / np.mean(noise, axis=(1, 2)) ** 2
    slopes = weighted_line(times, noise, weight)[1]
    by_block = ((share * gain**2)[:, None] * slopes).sum(axis=0)
    count = by_block.size
    without = (by_block.sum() - by_block) / max(count - 1, 1)
    in_adu = float(((share * gain)[:, None] * slopes).sum(axis=0).mean())
    return float(by_block.mean()), float(jackknife_error(without)) if count > 1 else np.nan, in_adu


def row_from_noise(row: dict[str, Any], value: float, error: float, adu: float) -> dict[str, float]:
    """Return the row's dark currents where the mean is taken off by the camera: those of the noise."""
    whole = row["dark_current_variance_error"]
    return {
        "dark_current": value,
        "dark_current_error": whole,
        "dark_current_scatter": error,
        "dark_current_common": value,
        "dark_current_adu": adu,
        "dark_current_adu_error": adu * error / value,
        "median": row["median"] + value - row["dark_current"],
        "own_error": error,
        "own_lever": error,  # known by itself, not by the scatter of whole frames
        "own_freedom": float(BLOCKS - 1),
        "bias_error": 0.0,
    }


def run_trend(levels: np.ndarray) -> tuple[float, float, float]:
    """Return the change of the levels of equal frames from the first to the last, its error, and the chance of none.

    A straight line through the levels in their order; NaN, NaN and 1 for fewer than four.

    Examples
    --------
    >>> change, _, chance = run_trend(np.array([10.0, 11.1, 11.9, 13.0, 14.0]))
    >>> round(change, 1), chance < 1e-3
    (4.0, True)
    """
    count = levels.size
    if count < _FEWEST_IN_A_RUN:
        return math.nan, math.nan, 1.0
    along = np.linspace(-0.5, 0.5, count)
    middle, slope, lever = weighted_line(along, levels, np.ones(count))
    error = lever * math.sqrt(float(np.square(levels - middle - slope * along).sum()) / (count - 2))
    chance = 2 * float(special.stdtr(count - 2, -abs(slope) / error)) if error > 0 else 1.0
    return float(slope), error * t_factor(count - 2), chance


def add_warming(rows: list[dict[str, Any]]) -> list[str]:
    """Fill in by how much the sensor warmed along each run of darks [K] and return warnings where it did.

    ΔT = T_d log₂(1 + change/signal), T_d typically 6 K; 0 where the trend may be chance, all runs considered.
    """
    warnings = []
    runs = [row for row in rows if "trend_chance" in row]
    for row in runs:
        chance, share = row.pop("trend_chance"), row["trend"] / max(row["dark_signal"], 1e-300)
        certain = chance < _TREND_CHANCE / len(runs) and -1 < share < _STEEPEST_TREND
        row["heating"] = warmer = TYPICAL_DOUBLING * math.log2(1 + share) if certain else 0.0
        if abs(warmer) > _WORTH_A_WARNING:
            where = describe({name: row[name] for name in ("iso", "temperature", "exposure")})
            warnings.append(
                f"the darks at {where} change by {row['trend']:+.3g} ± {row['trend_error']:.2g} e- from the first to "
                f"the last, as if the sensor had {'warmed' if warmer > 0 else 'cooled'} by {abs(warmer):.2g} K; let it "
                "run for half an hour before the series, and take darks between the lights"
            )
    return warnings
