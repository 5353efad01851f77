"""Gain from photon transfer: the slope of variance against signal, and how far that curve bends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr

from ..core.cube import Setting, group_frames
from ..core.errors import WorkbenchError
from ..core.pairs import jackknife_error, leave_one_out, pair_moments, pair_weight
from ..core.results import Table, at_isos, per_channel, with_errors
from ..core.settings import setting_dim
from ..core.statistics import StraightLine, fit_line, misfit
from ..core.values import channel_warnings, describe
from .bias import CLIPPED_FRACTION

_BELOW_SATURATION = 0.7  # of the saturation level, as EMVA 1288 has it
_FEWEST = 3  # light levels with known read noise: slope, bend and one to spare
_STEPS = 12  # of Gauss and Newton; 1e-10 after six
_BENT = 3.0  # errors from which there is a warning of a bend
_ROUNDS = 12  # of reweighting; the weights change by less than 1e-6 after five
_QUANTITIES: Table = {
    **with_errors({"gain": ("electron / adu", "gain"), "intercept": ("adu**2", "variance without light")}),
    "blog_gain": ("electron / adu", "signal/variance of single frames"),
    "pairs_used": ("1", "pairs used"),
    "levels_used": ("1", "light levels used"),
    "chi2": ("1", "χ² per degree of freedom"),
}
_CURVED: Table = {
    **with_errors(
        {
            "curvature": ("1 / electron", "curvature a of the photon transfer curve"),
            "gain_curved": ("electron / adu", "gain, bend allowed for"),
            "bend": ("%", "change of the variance at the brightest level"),
        }
    ),
    "levels_used": ("1", "light levels used"),
}
Curve = dict[str, np.ndarray]  # one setting and channel of a photon transfer curve, each array along its pairs


class _Fit(NamedTuple):
    """What was fitted, to which pairs, and what is wrong with it."""

    values: dict[str, float]
    pairs: np.ndarray
    problem: str = ""


def fit_gain(
    ptc: xr.Dataset, read: xr.Dataset | None = None, method: Literal["model", "plain"] = "model"
) -> xr.Dataset:
    """Fit the gain of every setting and channel to a photon transfer curve.

    ``model``: variance = μ₁μ₂/μ · 1/g + R (μ₁² + μ₂²)/2μ², exact for a pair scaled to one level (1/g times the signal,
    plus R, for equal frames).  R is the variance of the bias pairs, and free where there are none.  Weights are 1/Var
    of the variance that the *fit* predicts, 2σ⁴/(n−1) (weights from the measured variances would favour those that came
    out low); only levels below 70 % of saturation, without clipped pixels, count.  The error is a jackknife of the
    whole fit over blocks of rows, with the errors of R and of the black level added; where χ² says that the line does
    not hold (p < 0.01), it is widened, and below 0.001 there is a warning.

    ``plain``: `variance_plain` against `mean`, all pairs, free intercept, weights 1/variance²: as tables are often
    published.

    Parameters
    ----------
    ptc
        From `photon_transfer`.
    read
        Result of `read_noise`, if `ptc` was measured without bias frames and R is to come from there.

    Returns
    -------
    xarray.Dataset
        Over (iso, channel), or (gain_setting, channel): ``gain`` [e⁻/ADU] with ``gain_error`` (half the 68 %
        interval); ``intercept`` [ADU²], given or fitted; ``blog_gain`` [e⁻/ADU], the mean of signal/variance of single
        frames, which PRNU makes too small; ``pairs_used``, ``levels_used``; ``chi2`` per degree of freedom.  Over
        (pair, channel): ``used``.  What cannot be measured is NaN, and ``attrs["warnings"]`` says why.

    Raises
    ------
    WorkbenchError
        If the method is unknown.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> from workbench.sensor import photon_transfer
    >>> rng = np.random.default_rng(0)
    >>> electrons = rng.poisson(np.repeat([1000, 4000], 2)[:, None, None], (4, 256, 256))
    >>> flats = make_cube((electrons / 2).round().astype("uint16"), cfa_pattern="RGGB", kind="flat", iso=100,
    ...                   exposure=[1, 1, 4, 4], black_level=0)
    >>> fit_gain(photon_transfer(flats, progress=False)).gain.mean().round(1).item()
    2.0
    """
    if method not in ("model", "plain"):
        raise WorkbenchError(f"method {method!r} is unknown; use 'model' or 'plain'")
    if read is not None:
        ptc = _with_read_noise(ptc, read)
    fit = _fit_model if method == "model" else _fit_plain
    channels = ptc["channel"].values.tolist()
    used = np.zeros((ptc.sizes["pair"], len(channels)), bool)
    dim, settings, rows, warnings = setting_dim(ptc), [], [], []
    for setting, where, curves in _curves(ptc):
        fits = [fit(curve) for curve in curves]
        for column, one in enumerate(fits):
            used[where[one.pairs], column] = True
        settings.append(setting[dim])
        rows.append([one.values for one in fits])
        warnings += channel_warnings("gain", setting, channels, [one.problem for one in fits])
    attrs = {"camera": ptc.attrs["camera"], "step": ptc.attrs.get("step", 1), "method": method, "long_name": "gain"}
    found = per_channel(_QUANTITIES, rows, {dim: settings}, channels, **attrs)
    found["used"] = (("pair", "channel"), used, {"long_name": "pairs that the fit used"})
    return found.assign_attrs(warnings=warnings)


def _with_read_noise(ptc: xr.Dataset, read: xr.Dataset) -> xr.Dataset:
    """Return the curve with the dark variance of other bias frames."""
    here = read.reindex(channel=ptc["channel"])
    sources = {"dark_variance": "variance", "dark_variance_error": "variance_error"}
    values = {name: at_isos(here[source], ptc[setting_dim(ptc)].values) for name, source in sources.items()}
    return ptc.assign({name: (("pair", "channel"), value, ptc[name].attrs) for name, value in values.items()})


def _curves(ptc: xr.Dataset) -> Iterator[tuple[Setting, np.ndarray, list[Curve]]]:
    """Yield each setting, the numbers of its pairs, and the curve of each channel with the stated white level."""
    variables = {str(name): values.values for name, values in ptc.data_vars.items() if "channel" in values.dims}
    for setting, pairs in group_frames(ptc, setting_dim(ptc)):
        common = {"level": ptc["level"].values[pairs], "white_level": np.full(pairs.size, ptc.attrs["white_level"])}
        columns = range(ptc.sizes["channel"])
        yield setting, pairs, [{n: v[pairs, column] for n, v in variables.items()} | common for column in columns]


def _pairs_to_fit(curve: Curve) -> tuple[np.ndarray, str]:
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


def _fit_model(curve: Curve) -> _Fit:
    nothing: dict[str, float] = {"pairs_used": 0, "levels_used": 0}
    which, problem = _pairs_to_fit(curve)
    if problem:
        return _Fit(nothing, which, problem)
    curve = {name: values[which] for name, values in curve.items()}
    known = _read_noise_known(curve)
    if not known and curve["signal"].max() < 1.5 * curve["signal"].min():
        problem = (
            "without bias frames one light level does not separate gain from read noise; shoot bias frames, or flats "
            "at several exposures"
        )
        return _Fit(nothing | {"blog_gain": _blog_gain(curve)}, which[:0], problem)
    level = _levels_of(curve)
    frames, worth = _weights_of(curve, level)
    read, read_error = np.zeros(which.size), 0.0
    if known:
        read, read_error = curve["dark_variance"], float(curve["dark_variance_error"].mean())
    whole, parts = _scaled_with_replicates(curve)
    line, weight = _fit_signal(whole, read, worth, through_origin=known)
    lines, _ = _fit_signal(parts, read, worth, through_origin=known)

    # χ² of the levels' mean residuals; a variance from B blocks makes t² of each, whose mean is (B−1)/(B−3)
    residual, spread = (
        _by_level(pairs.variance - read * pairs.read - line.slope * pairs.signal - line.intercept * pairs.read, level)
        for pairs in (whole, parts)
    )
    scatter = line.slope * curve["black_scatter"].mean()
    noise = np.square(jackknife_error(spread)) + scatter**2 / frames
    degrees, blocks = residual.size - (1 if known else 2), len(spread)
    chi2 = float((np.square(residual) / noise).sum()) * max(blocks - 3, 1) / max(blocks - 1, 1)
    widen, off = misfit(chi2, degrees)
    if off:
        problem = (
            f"the variances do not lie on one line (χ² is {chi2 / degrees:.1f} times what it should be), so the error "
            "is widened; look at the photon transfer chart for a light level that is off"
        )
    # ∂slope/∂y of each pair, and by what R and the black level move it
    lever = weight * (whole.signal / whole.read - line.centre) * line.slope_variance
    by_read = float(lever.sum()) * read_error
    lever = lever / whole.read
    by_black = float((lever * line.slope).sum()) * float(curve["black_level_error"].mean())
    by_scatter = np.sqrt((np.square(_by_level(lever, level, mean=False)) / frames).sum()) * scatter
    error = np.sqrt((jackknife_error(lines.slope) * widen) ** 2 + by_read**2 + by_black**2 + by_scatter**2)
    values = {
        "pairs_used": which.size,
        "levels_used": level.max() + 1,
        "blog_gain": _blog_gain(curve),
        "gain": 1 / line.slope,
        "gain_error": error / line.slope**2,
        "intercept": float(read.mean()) if known else float(line.intercept),
        "intercept_error": read_error if known else float(jackknife_error(lines.intercept) * widen),
        "chi2": chi2 / degrees if degrees > 0 else np.nan,
    }
    if not line.slope > 0 or not error < line.slope:
        values |= dict.fromkeys(("gain", "gain_error", "blog_gain"), np.nan)
        problem = "the variance does not rise with the signal beyond its error; shoot brighter flats, or more"
    return _Fit(values, which, problem)


def _fit_plain(curve: Curve) -> _Fit:
    """A line through all pairs, weights 1/variance²; the jackknife deletes blocks of rows."""
    which = np.flatnonzero(curve["variance_plain"] > 0)
    curve = {name: values[which] for name, values in curve.items()}
    mean, variance, sums = curve["mean"], curve["variance_plain"], curve["sums_plain"]
    levels = np.unique(curve["level"]).size
    if levels < 2:
        return _Fit({"pairs_used": 0, "levels_used": 0}, which[:0], "a line needs pairs at two light levels or more")
    line = fit_line(mean, variance, 1 / np.square(variance))
    moments = pair_moments(np.moveaxis(leave_one_out(sums, axis=1), 1, 0))
    lines = fit_line((moments.mean1 + moments.mean2) / 2, moments.half_variance, 1 / np.square(moments.half_variance))
    residual = variance - line.intercept - line.slope * mean
    scale = 2 / (sums[..., 0].sum(axis=1) - 1)
    values = {
        "gain": 1 / line.slope,
        "gain_error": float(jackknife_error(lines.slope)) / line.slope**2,
        "intercept": float(line.intercept),
        "intercept_error": float(jackknife_error(lines.intercept)),
        "blog_gain": _blog_gain(curve),
        "pairs_used": which.size,
        "levels_used": levels,
        "chi2": float((residual**2 / (scale * variance**2)).sum() / max(which.size - 2, 1)),
    }
    return _Fit(values, which)


class _ScaledPairs(NamedTuple):
    """Half-variance of pairs scaled to one level [ADU²], and what 1/g (`signal`, ADU) and R (`read`) contribute."""

    signal: np.ndarray
    read: np.ndarray
    variance: np.ndarray


def _scaled_pairs(sums: np.ndarray, black: np.ndarray) -> _ScaledPairs:
    """Return variance = signal/g + read · R of pairs from their sums (..., moment): μ₁μ₂/μ and (μ₁² + μ₂²)/2μ²."""
    moments = pair_moments(sums)
    level1, level2 = moments.mean1 - black, moments.mean2 - black
    level = (level1 + level2) / 2
    read = (level1**2 + level2**2) / (2 * level**2)
    return _ScaledPairs(level1 * level2 / level, read, moments.scaled_half_variance(black))


def _scaled_with_replicates(curve: Curve) -> tuple[_ScaledPairs, _ScaledPairs]:
    """Return the scaled pairs of a curve (pair), and those without one block of rows each (block, pair)."""
    sums, black = curve["sums"], curve["black_level"]
    parts = _scaled_pairs(leave_one_out(sums, axis=1), black[:, None])
    return _scaled_pairs(sums.sum(axis=1), black), _ScaledPairs(*(np.moveaxis(part, 1, 0) for part in parts))


def _fit_signal(
    pairs: _ScaledPairs, read: np.ndarray, worth: np.ndarray, *, through_origin: bool
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


def _read_noise_known(curve: Curve) -> bool:
    return bool((np.isfinite(curve["dark_variance"]) & (curve["dark_variance"] > 0)).all())


def _levels_of(curve: Curve) -> np.ndarray:
    """Number the light levels of a curve from 0."""
    return np.unique(curve["level"], return_inverse=True)[1].reshape(-1)


def _weights_of(curve: Curve, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the frames of each level (a ring of n frames has n pairs), and the independent pixels of each pair."""
    pairs = np.bincount(level)
    frames = np.where(pairs == 1, 2, pairs)
    return frames, curve["sums"][..., 0].sum(axis=1) * np.array([pair_weight(frames[number]) for number in level])


def _by_level(values: np.ndarray, level: np.ndarray, *, mean: bool = True) -> np.ndarray:
    """Return the mean or sum over each level's pairs, along the last axis."""
    member = (level[:, None] == np.arange(level.max() + 1)).astype(float)
    return values @ (member / member.sum(axis=0) if mean else member)


def _blog_gain(curve: Curve) -> float:
    """Return the mean of signal/variance of single frames, which PRNU makes too small."""
    signal = curve["mean_single"] - curve["black_level"]
    return float((signal / curve["variance_single"]).mean())


def fit_curvature(ptc: xr.Dataset) -> xr.Dataset:
    """Fit a photon transfer curve that bends.

    C₀₀(μ) = [exp(2aμg) − 1]/(2ag²) + R (Astier et al., A&A 629, A36 (2019), eq. 16, with n = Rg²), μ the signal in
    ADU: where charge already collected pushes later charge to the neighbours, a < 0 and the variance of bright levels
    falls below the line, so that a line reads the gain too high.  Pairs are those of `fit_gain` (up to 70 % of
    saturation), each scaled to one level, and so is a lamp's drift taken out; the signal is the measured mean, hence a
    wrong exposure time does not matter.  Errors: a jackknife over blocks of rows.

    Parameters
    ----------
    ptc
        From `photon_transfer`, with bias frames: their variance is R.

    Returns
    -------
    xarray.Dataset
        Over (iso, channel): ``curvature`` a [1/e⁻], ``gain_curved`` [e⁻/ADU], ``bend`` [%], the change of the variance
        at the brightest level fitted, each with ``_error``; ``levels_used``.  NaN where there are fewer than three
        light levels or no bias frames; ``attrs["warnings"]`` names a bend beyond three errors in most channels.
    """
    channels = ptc["channel"].values.tolist()
    dim, settings, rows, warnings = setting_dim(ptc), [], [], []
    for setting, _, curves in _curves(ptc):
        row = [_fit_bend(curve) for curve in curves]
        settings.append(setting[dim])
        rows.append(row)
        bent = [
            f"{channel}: {one['bend']:+.1f} % at the brightest level"
            for channel, one in zip(channels, row, strict=True)
            if abs(one.get("curvature", 0.0)) > _BENT * one.get("curvature_error", np.inf)
        ]
        # one channel in hundreds bends by chance; all of them do where the sensor does
        if len(bent) > len(channels) / 2:
            warnings.append(
                f"the photon transfer curve at {describe(setting)} bends ({', '.join(bent)}), as bright pixels that "
                "push charge to their neighbours make it: the gain of a straight line is then off, gain_curved is not"
            )
    attrs = {"camera": ptc.attrs["camera"], "long_name": "curvature", "warnings": warnings}
    return per_channel(_CURVED, rows, {dim: settings}, channels, **attrs)


def _fit_bend(curve: Curve) -> dict[str, float]:
    which, problem = _pairs_to_fit(curve)
    if problem:
        return {"levels_used": 0}
    curve = {name: values[which] for name, values in curve.items()}
    level = _levels_of(curve)
    count = int(level.max()) + 1
    if count < _FEWEST or not _read_noise_known(curve):
        return {"levels_used": count}
    read, (_, worth), brightest = curve["dark_variance"], _weights_of(curve, level), curve["signal"].max()

    def quantities(pairs: _ScaledPairs) -> dict[str, np.ndarray]:
        slope, bend = _fit_exponential(pairs, read, worth)
        change = np.expm1(bend * brightest) / (bend * brightest) - 1
        return {"curvature": bend * slope / 2, "gain_curved": 1 / slope, "bend": 100 * change}

    values, replicates = map(quantities, _scaled_with_replicates(curve))
    one = {name: float(value) for name, value in values.items()}
    one |= {f"{name}_error": float(jackknife_error(part)) for name, part in replicates.items()}
    return one | {"levels_used": count}


def _fit_exponential(pairs: _ScaledPairs, read: np.ndarray, worth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
