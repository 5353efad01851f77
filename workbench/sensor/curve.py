"""A photon transfer curve: which pairs count, scaled to one light level, and the line and the bend through them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import xarray as xr

from ..core.cube import Setting, group_frames
from ..core.pairs import CLIPPED_FRACTION, leave_one_out, pair_moments, pair_weight
from ..core.settings import setting_dim
from ..core.statistics import StraightLine, fit_line

_BELOW_SATURATION = 0.7  # of the saturation level, as EMVA 1288 has it
_STEPS = 12  # of Gauss and Newton; 1e-10 after six
_ROUNDS = 12  # of reweighting; the weights change by less than 1e-6 after five
Curve = dict[str, np.ndarray]  # one setting and channel of a photon transfer curve, each array along its pairs


def curves_of(ptc: xr.Dataset) -> Iterator[tuple[Setting, np.ndarray, list[Curve]]]:
    """Yield each setting, the numbers of its pairs, and the curve of each channel with the stated white level."""
    variables = {str(name): values.values for name, values in ptc.data_vars.items() if "channel" in values.dims}
    for setting, pairs in group_frames(ptc, setting_dim(ptc)):
        common = {"level": ptc["level"].values[pairs], "white_level": np.full(pairs.size, ptc.attrs["white_level"])}
        columns = range(ptc.sizes["channel"])
        yield setting, pairs, [{n: v[pairs, column] for n, v in variables.items()} | common for column in columns]


def pairs_to_fit(curve: Curve) -> tuple[np.ndarray, str]:
    """Return the numbers of the pairs to fit, and why there are none."""
    signal, variance = curve["signal"], curve["variance"]
    saturated = curve["saturated_fraction"] > CLIPPED_FRACTION
    # below one pixel's own noise there is almost no light
    dark = (curve["zero_fraction"] > CLIPPED_FRACTION) | ~(signal > np.sqrt(np.maximum(variance, 0)))
    dark |= ~(variance > 0)
    if not signal.size:
        return np.empty(0, int), "no two flats are equal; shoot two or more at each of several exposures"
    if saturated.all():
        return np.empty(0, int), "all flats are saturated; shoot shorter exposures"
    if (dark | saturated).all():
        return np.empty(0, int), "the flats hold no light above the black level; shoot longer exposures"
    peak = np.argmax(np.where(dark, -np.inf, variance))
    error = np.hypot(curve["variance_error"], curve["variance_error"][peak])
    fallen = ~dark & (signal > signal[peak]) & (variance < 0.9 * variance[peak] - 4 * error)
    limit = float(curve["white_level"].max()) - float(curve["black_level"].max())
    limit = np.inf if np.isnan(limit) else limit
    if fallen.any():  # the variance breaks down where the brightest pixels clip
        limit = min(limit, signal[peak])
    good = ~dark & ~saturated & (signal <= _BELOW_SATURATION * limit)
    if not good.any():
        return np.empty(0, int), "no flats lie below 70 % of saturation; shoot shorter exposures"
    return np.flatnonzero(good), ""


class ScaledPairs(NamedTuple):
    """Half-variance of pairs scaled to one level [ADU²], and what 1/g (`signal`, ADU) and R (`read`) contribute."""

    signal: np.ndarray
    read: np.ndarray
    variance: np.ndarray


def scaled_pairs(sums: np.ndarray, black: np.ndarray) -> ScaledPairs:
    """Return variance = signal/g + read · R of pairs from their sums (..., moment): μ₁μ₂/μ and (μ₁² + μ₂²)/2μ²."""
    moments = pair_moments(sums)
    level1, level2 = moments.mean1 - black, moments.mean2 - black
    level = (level1 + level2) / 2
    read = (level1**2 + level2**2) / (2 * level**2)
    return ScaledPairs(level1 * level2 / level, read, moments.scaled_half_variance(black))


def scaled_with_replicates(curve: Curve) -> tuple[ScaledPairs, ScaledPairs]:
    """Return the scaled pairs of a curve (pair), and those without one block of rows each (block, pair)."""
    sums, black = curve["sums"], curve["black_level"]
    parts = scaled_pairs(leave_one_out(sums, axis=1), black[:, None])
    return scaled_pairs(sums.sum(axis=1), black), ScaledPairs(*(np.moveaxis(part, 1, 0) for part in parts))


def fit_signal(
    pairs: ScaledPairs, read: np.ndarray, worth: np.ndarray, *, through_origin: bool
) -> tuple[StraightLine, np.ndarray]:
    """Fit variance/read − R = slope · signal/read (+ intercept); return the line and its weights 1/Var of the model."""
    x, y = pairs.signal / pairs.read, pairs.variance / pairs.read - read
    slope = np.median(y * pairs.read / pairs.signal, axis=-1, keepdims=True)
    intercept = np.zeros_like(slope)
    for _ in range(_ROUNDS):
        model = slope * x + read + intercept
        weight = worth / np.square(np.maximum(model, 0.1 * np.abs(slope) * x))
        line = fit_line(x, y, weight, through_origin=through_origin)
        slope, intercept = line.slope[..., None], line.intercept[..., None]
    return line, weight


def read_noise_known(curve: Curve) -> bool:
    """Return whether bias frames gave the variance without light of every pair."""
    return bool((np.isfinite(curve["dark_variance"]) & (curve["dark_variance"] > 0)).all())


def levels_of(curve: Curve) -> np.ndarray:
    """Number the light levels of a curve from 0."""
    return np.unique(curve["level"], return_inverse=True)[1].reshape(-1)


def weights_of(curve: Curve, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the frames of each level (a ring of n frames has n pairs), and the independent pixels of each pair."""
    pairs = np.bincount(level)
    frames = np.where(pairs == 1, 2, pairs)
    return frames, curve["sums"][..., 0].sum(axis=1) * np.array([pair_weight(frames[number]) for number in level])


def by_level(values: np.ndarray, level: np.ndarray, *, mean: bool = True) -> np.ndarray:
    """Return the mean or sum over each level's pairs, along the last axis."""
    member = (level[:, None] == np.arange(level.max() + 1)).astype(float)
    return values @ (member / member.sum(axis=0) if mean else member)


def fit_exponential(pairs: ScaledPairs, read: np.ndarray, worth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit variance − R · read = s (e^{bx} − 1)/b along the last axis, x the signal; return s = 1/g and b = 2ag."""
    x, fixed = pairs.signal, read * pairs.read
    y = pairs.variance - fixed
    slope = (x * y).sum(-1, keepdims=True) / (x * x).sum(-1, keepdims=True)
    bend = np.full_like(slope, -1e-9)  # not zero, so that the quotient stands
    for _ in range(_STEPS):
        grown = np.expm1(bend * x)
        by_slope = grown / bend
        by_bend = slope * np.where(
            np.abs(bend * x) < 1e-4, x * x / 2 + bend * x**3 / 3, (x * (grown + 1) - grown / bend) / bend
        )
        model = slope * by_slope
        weight = worth / np.square(np.maximum(model + fixed, 0.1 * np.abs(slope) * x))
        terms = np.stack([by_slope, by_bend, y - model])
        (ss, sb, rs), (_, bb, rb), _ = (weight * terms[:, None] * terms).sum(-1, keepdims=True)
        determinant = ss * bb - sb**2
        slope = slope + (rs * bb - rb * sb) / determinant
        bend = bend + (rb * ss - rs * sb) / determinant
        bend = np.where(np.abs(bend) < 1e-12, -1e-12, bend)
    return slope[..., 0], bend[..., 0]


class Bend(NamedTuple):
    """The curvature a of a photon transfer curve [1/e⁻] and its error."""

    curvature: float
    error: float


def straightened(pairs: ScaledPairs, curvature: float, slope: np.ndarray) -> ScaledPairs:
    """Return pairs whose variance is a straight line of their signal: the signal times (e^{bμ} − 1)/bμ, b = 2a/slope.

    That is C₀₀(μ) = [exp(2aμg) − 1]/(2ag²) (Astier et al., A&A 629, A36 (2019), eq. 16), `slope` being 1/g.
    """
    exponent = 2 * curvature * pairs.signal / np.asarray(slope)[..., None]
    near = np.abs(exponent) < 1e-9
    return pairs._replace(signal=pairs.signal * np.where(near, 1.0, np.expm1(exponent) / np.where(near, 1.0, exponent)))
