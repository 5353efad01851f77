"""Gain from photon transfer: the slope of variance against signal, and how far that curve bends."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr
from scipy import special

from ..core.errors import Guess, WorkbenchError
from ..core.pairs import jackknife_error, leave_one_out, pair_moments
from ..core.results import Table, at_isos, per_channel, with_errors
from ..core.settings import setting_dim
from ..core.statistics import fit_line, misfit
from ..core.values import channel_warnings, describe
from .curve import (
    Bend,
    Curve,
    ScaledPairs,
    by_level,
    curves_of,
    fit_exponential,
    fit_signal,
    levels_of,
    pairs_to_fit,
    read_noise_known,
    scaled_with_replicates,
    straightened,
    weights_of,
)

_FEWEST = 3  # light levels with known read noise: slope, bend and one to spare
_BENT = 3.0  # errors from which there is a warning of a bend
_BEND_COSTS = 2.5  # times the error of a straight line that a bend may cost where none is seen
_QUANTITIES: Table = {
    **with_errors({"gain": ("electron / adu", "gain"), "intercept": ("adu**2", "variance without light")}),
    "blog_gain": ("electron / adu", "signal/variance of single frames"),
    "pairs_used": ("1", "pairs used"),
    "levels_used": ("1", "light levels used"),
    "chi2": ("1", "χ² per degree of freedom"),
    "bend_used": ("1 / electron", "curvature that the fit allows for"),
    "gain_shared_error": ("electron / adu", "part of the gain's error that all channels share"),
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
    out low); only levels below 70 % of saturation, without clipped pixels, count.  Where the curve bends, a line reads
    the gain too high long before the bend can be seen: the curvature that all channels show together (see
    `fit_curvature`) is allowed for where it is seen, or known so well that the error grows by less than 2.5 times.  The
    error is a jackknife of the whole fit over blocks of rows, with those of R, of the black level and of the curvature
    added; where χ² says that the fit does not hold (p < 0.01), it is widened, and below 0.001 there is a warning.

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
        frames, which PRNU makes too small; ``pairs_used``, ``levels_used``; ``chi2`` per degree of freedom;
        ``bend_used`` [1/e⁻], the curvature allowed for, 0 for a straight line, and ``gain_shared_error``, its part of
        the error, which the channels have in common.  Over (pair, channel): ``used``.  What cannot be measured is NaN,
        and ``attrs["warnings"]`` says why.

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
    channels = ptc["channel"].values.tolist()
    used = np.zeros((ptc.sizes["pair"], len(channels)), bool)
    dim, settings, rows, warnings = setting_dim(ptc), [], [], []
    for setting, where, curves in curves_of(ptc):
        fits = _fit_models(curves) if method == "model" else [_fit_plain(curve) for curve in curves]
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


def _fit_models(curves: list[Curve]) -> list[_Fit]:
    """Fit the channels of one setting, with the bend that they show together where it is measured well enough."""
    fits = [_fit_model(curve) for curve in curves]
    bend = _common_bend([_fit_bend(curve) for curve in curves])
    if bend is None:
        return fits
    bent = [_fit_model(curve, bend) for curve in curves]
    line, doubt = (np.array([one.values.get("gain_error", np.nan) for one in part]) for part in (fits, bent))
    seen = abs(bend.curvature) > _BENT * bend.error
    return bent if seen or np.nanmedian(doubt) < _BEND_COSTS * np.nanmedian(line) else fits


def _common_bend(bends: list[dict[str, float]]) -> Bend | None:
    """Return the weighted mean curvature of the channels, its error widened where they disagree; None without any."""
    known = [one for one in bends if one.get("curvature_error", 0) > 0]
    if not known:
        return None
    values, errors = (np.array([one[name] for one in known]) for name in ("curvature", "curvature_error"))
    weight = 1 / errors**2
    mean = float((weight * values).sum() / weight.sum())
    widen, _ = misfit(float((weight * (values - mean) ** 2).sum()), values.size - 1)
    return Bend(mean, widen / math.sqrt(weight.sum()))


def _fit_model(curve: Curve, bend: Bend | None = None) -> _Fit:
    nothing: dict[str, float] = {"pairs_used": 0, "levels_used": 0}
    which, problem = pairs_to_fit(curve)
    if problem:
        return _Fit(nothing, which, problem)
    curve = {name: values[which] for name, values in curve.items()}
    known = read_noise_known(curve)
    if not known and curve["signal"].max() < 1.5 * curve["signal"].min():
        problem = (
            "without bias frames one light level does not separate gain from read noise; shoot bias frames, or flats "
            "at several exposures"
        )
        return _Fit(nothing | {"blog_gain": _blog_gain(curve)}, which[:0], problem)
    line = _fit_line(curve, known, bend)
    values = {
        "pairs_used": which.size,
        "levels_used": levels_of(curve).max() + 1,
        "blog_gain": _blog_gain(curve),
        "gain": 1 / line.slope,
        "gain_error": line.error / line.slope**2,
        "intercept": line.intercept,
        "intercept_error": line.intercept_error,
        "chi2": line.chi2,
        "bend_used": bend.curvature if bend else 0.0,
        "gain_shared_error": line.by_bend / line.slope**2,
    }
    if not line.slope > 0 or not line.error < line.slope:
        values |= dict.fromkeys(("gain", "gain_error", "blog_gain"), np.nan)
        return _Fit(
            values, which, "the variance does not rise with the signal beyond its error; shoot brighter flats, or more"
        )
    if line.off:
        problem = Guess(
            f"the variances do not lie on one line (χ² is {line.chi2:.1f} times what it should be), so the error "
            "is widened",
            "look at the photon transfer chart for a light level that is off",
            "lamp",
        )
    return _Fit(values, which, problem)


class _Line(NamedTuple):
    """Variance against signal of one channel: slope [ADU/e⁻], intercept [ADU²], errors, χ² per degree of freedom."""

    slope: float
    error: float
    intercept: float
    intercept_error: float
    chi2: float
    off: bool
    by_bend: float  # part of the slope's error


def _fit_line(curve: Curve, known: bool, bend: Bend | None) -> _Line:
    """Fit the pairs of a curve, R `known` or free, with a given bend or none."""
    level = levels_of(curve)
    frames, worth = weights_of(curve, level)
    read, read_error = np.zeros(level.size), 0.0
    if known:
        read, read_error = curve["dark_variance"], float(curve["dark_variance_error"].mean())
    whole, parts = scaled_with_replicates(curve)
    line, weight = fit_signal(whole, read, worth, through_origin=known)
    by_bend = 0.0
    if bend:
        straight = whole
        for curvature in (bend.curvature + bend.error, bend.curvature, bend.curvature):
            straight = straightened(whole, curvature, line.slope)
            line, weight = fit_signal(straight, read, worth, through_origin=known)
            by_bend = by_bend or float(line.slope)
        by_bend = abs(by_bend - float(line.slope))
        whole, parts = straight, straightened(parts, bend.curvature, line.slope)
    lines, _ = fit_signal(parts, read, worth, through_origin=known)

    # χ² of the levels' mean residuals; a variance from B blocks makes t² of each, whose mean is (B−1)/(B−3)
    residual, spread = (
        by_level(pairs.variance - read * pairs.read - line.slope * pairs.signal - line.intercept * pairs.read, level)
        for pairs in (whole, parts)
    )
    scatter = line.slope * curve["black_scatter"].mean()
    noise = np.square(jackknife_error(spread)) + scatter**2 / frames
    degrees, blocks = residual.size - (1 if known else 2) - (1 if bend else 0), len(spread)
    chi2 = float((np.square(residual) / noise).sum()) * max(blocks - 3, 1) / max(blocks - 1, 1)
    widen, off = misfit(chi2, degrees)
    # ∂slope/∂y of each pair, and by what R and the black level move it
    lever = weight * (whole.signal / whole.read - line.centre) * line.slope_variance
    by_read = float(lever.sum()) * read_error
    lever = lever / whole.read
    by_black = float((lever * line.slope).sum()) * float(curve["black_level_error"].mean())
    by_scatter = np.sqrt((np.square(by_level(lever, level, mean=False)) / frames).sum()) * scatter
    by_filter = line.slope * curve["smoothing_error"].max()
    errors = (float(jackknife_error(lines.slope)) * widen, by_read, by_black, by_scatter, by_filter, by_bend)
    return _Line(
        float(line.slope),
        float(np.sqrt(np.square(errors).sum())),
        float(read.mean()) if known else float(line.intercept),
        read_error if known else float(jackknife_error(lines.intercept) * widen),
        chi2 / degrees if degrees > 0 else np.nan,
        off,
        by_bend,
    )


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
    dim, settings, rows = setting_dim(ptc), [], []
    warnings: list[str] = []
    for setting, _, curves in curves_of(ptc):
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
                Guess(
                    f"the photon transfer curve at {describe(setting)} bends ({', '.join(bent)})",
                    "bright pixels that push charge to their neighbours do this, or a response that falls: the gain is "
                    "that of faint light, with the bend allowed for; a straight line would be off",
                    "bend",
                )
            )
    attrs = {"camera": ptc.attrs["camera"], "long_name": "curvature", "warnings": warnings}
    return per_channel(_CURVED, rows, {dim: settings}, channels, **attrs)


def _fit_bend(curve: Curve) -> dict[str, float]:
    which, problem = pairs_to_fit(curve)
    if problem:
        return {"levels_used": 0}
    curve = {name: values[which] for name, values in curve.items()}
    level = levels_of(curve)
    count = int(level.max()) + 1
    if count < _FEWEST or not read_noise_known(curve):
        return {"levels_used": count}
    read, (_, worth), brightest = curve["dark_variance"], weights_of(curve, level), curve["signal"].max()

    def quantities(pairs: ScaledPairs) -> dict[str, np.ndarray]:
        slope, bend = fit_exponential(pairs, read, worth)
        change = special.exprel(bend * brightest) - 1
        return {"curvature": bend * slope / 2, "gain_curved": 1 / slope, "bend": 100 * change}

    values, replicates = map(quantities, scaled_with_replicates(curve))
    one = {name: float(value) for name, value in values.items()}
    one |= {f"{name}_error": float(jackknife_error(part)) for name, part in replicates.items()}
    return one | {"levels_used": count}
