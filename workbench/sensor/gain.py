"""Gain from photon transfer, and the ISO at which one electron is one ADU."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import xarray as xr
from scipy import special

from ..core.errors import WorkbenchError
from ..core.pairs import jackknife_error, leave_one_out, pair_moments, pair_weight
from ..core.selection import at_iso, describe, same_iso
from .bias import CLIPPED_FRACTION

BELOW_SATURATION = 0.7  # of the saturation level, as EMVA 1288 has it
MISFIT = 0.01  # probability of a worse χ² below which the model does not hold and errors are widened
MISFIT_TO_TELL = 0.001  # below which the reader is told: of thirty fits one falls below 0.01 every third time
_ROUNDS = 12  # of reweighting; the weights change by less than 1e-6 after five


def fit_gain(
    ptc: xr.Dataset, read: xr.Dataset | None = None, method: Literal["model", "plain"] = "model"
) -> xr.Dataset:
    """Fit the gain of every ISO and channel to a photon transfer curve.

    ``model``: variance = μ₁μ₂/μ · 1/g + R (μ₁² + μ₂²)/2μ², exact for a pair scaled to one level (1/g times the signal,
    plus R, for equal frames).  R is the variance of the bias pairs, and free where there are none.  Weights are 1/Var
    of the variance that the *fit* predicts, 2σ⁴/(n−1) (weights from the measured variances would favour those that came
    out low); only levels below 70 % of saturation, without clipped pixels, count.  The error is a jackknife of the
    whole fit over blocks of rows, with the errors of R and of the black level added; where χ² says that the line does
    not hold (p < 0.01), it is widened, and below 0.001 a warning says so.

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
        Over (iso, channel): ``gain`` [e⁻/ADU] with ``gain_error`` (half the 68 % interval); ``intercept`` [ADU²], given
        or fitted; ``blog_gain`` [e⁻/ADU], the mean of signal/variance of single frames, which PRNU makes too small;
        ``pairs_used``, ``levels_used``; ``chi2`` per degree of freedom.  Over (pair, channel): ``used``.  What
        cannot be measured is NaN, and ``attrs["warnings"]`` says why.

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
    isos = _unique(ptc["iso"].values)
    channels = ptc["channel"].values.tolist()
    result = {name: np.full((len(isos), len(channels)), np.nan) for name in _VARIABLES}
    used = np.zeros((ptc.sizes["pair"], len(channels)), bool)
    warnings: list[str] = []
    for row, iso in enumerate(isos):
        where = np.flatnonzero(same_iso(ptc["iso"].values, iso))
        problems: dict[str, list[str]] = {}
        for column, channel in enumerate(channels):
            one, which, problem = fit(curve_of(ptc, where, column))
            used[where[which], column] = True
            for name, value in one.items():
                result[name][row, column] = value
            if problem:
                problems.setdefault(problem, []).append(channel)
        warnings += [f"gain at {describe({'iso': iso})} ({', '.join(c)}): {text}" for text, c in problems.items()]
    data: dict[str, Any] = {name: (("iso", "channel"), result[name], attrs) for name, attrs in _VARIABLES.items()}
    data["used"] = (("pair", "channel"), used, {"long_name": "pairs that the fit used"})
    coords = {"iso": ("iso", isos, {"long_name": "ISO setting"}), "channel": channels}
    attrs = {"camera": ptc.attrs["camera"], "method": method, "long_name": "gain", "warnings": warnings}
    return xr.Dataset(data, coords, attrs)


_VARIABLES = {
    "gain": {"units": "e-/ADU", "long_name": "gain"},
    "gain_error": {"units": "e-/ADU", "long_name": "error of the gain"},
    "intercept": {"units": "ADU²", "long_name": "variance without light"},
    "intercept_error": {"units": "ADU²", "long_name": "error of the variance without light"},
    "blog_gain": {"units": "e-/ADU", "long_name": "signal/variance of single frames"},
    "pairs_used": {"units": "1", "long_name": "pairs used"},
    "levels_used": {"units": "1", "long_name": "light levels used"},
    "chi2": {"units": "1", "long_name": "χ² per degree of freedom"},
}


def _unique(values: np.ndarray) -> np.ndarray:
    return np.unique(np.asarray(values, float))  # one NaN at most, at the end


def _with_read_noise(ptc: xr.Dataset, read: xr.Dataset) -> xr.Dataset:
    """Return the curve with the dark variance of other bias frames."""
    here = read.reindex(channel=ptc["channel"])
    changes = {}
    for name, source in (("dark_variance", "variance"), ("dark_variance_error", "variance_error")):
        values = np.array([at_iso(here[source], iso) for iso in ptc["iso"].values]).reshape(-1, ptc.sizes["channel"])
        changes[name] = (("pair", "channel"), values, ptc[name].attrs)
    return ptc.assign(changes)


Curve = dict[str, np.ndarray]  # one ISO and channel of a photon transfer curve, each array along its pairs


def curve_of(ptc: xr.Dataset, pairs: np.ndarray, column: int) -> Curve:
    """Return the arrays of some pairs and one channel of a photon transfer curve, and what the file says of white."""
    one = {
        str(name): values.values[pairs, column] for name, values in ptc.data_vars.items() if "channel" in values.dims
    }
    return one | {"level": ptc["level"].values[pairs], "white_level": np.full(pairs.size, ptc.attrs["white_level"])}


def _chosen(curve: Curve, which: np.ndarray) -> Curve:
    return {name: values[which] for name, values in curve.items()}


def pairs_to_fit(curve: Curve) -> tuple[np.ndarray, str]:
    """Return the numbers of the pairs to fit, and why there are none."""
    signal, variance = curve["signal"], curve["variance"]
    saturated = curve["saturated_fraction"] > CLIPPED_FRACTION
    # below one pixel's own noise there is no light to speak of
    dark = (curve["zero_fraction"] > CLIPPED_FRACTION) | ~(signal > np.sqrt(np.maximum(variance, 0)))
    dark |= ~(variance > 0)
    if not signal.size:
        return np.empty(0, int), "there are no pairs of flats; shoot two or more at each of several exposures"
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
    good = ~dark & ~saturated & (signal <= BELOW_SATURATION * limit)
    if not good.any():
        return np.empty(0, int), "no flats lie below 70 % of saturation; shoot shorter exposures"
    return np.flatnonzero(good), ""


def _fit_model(curve: Curve) -> tuple[dict[str, float], np.ndarray, str]:
    which, problem = pairs_to_fit(curve)
    if problem:
        return {"pairs_used": 0, "levels_used": 0}, which, problem
    curve = _chosen(curve, which)
    level = levels_of(curve)
    known = bool(np.isfinite(curve["dark_variance"]).all() and (curve["dark_variance"] > 0).all())
    count = {"pairs_used": which.size, "levels_used": level.max() + 1, "blog_gain": _blog_gain(curve)}
    if not known and curve["signal"].max() < 1.5 * curve["signal"].min():
        return (
            count | {"pairs_used": 0, "levels_used": 0},
            which[:0],
            "without bias frames one light level does not separate gain from read noise; shoot bias frames, or flats "
            "at several exposures",
        )
    black = curve["black_level"]
    read = curve["dark_variance"] if known else np.zeros(which.size)
    sums = curve["sums"]  # (pair, block, moment)
    frames = np.array([_frames_of(curve, number) for number in range(level.max() + 1)])
    pixels = sums[..., 0].sum(axis=1)
    worth = pixels * np.array([pair_weight(frames[number]) for number in level])

    x, q, h = scaled_pairs(sums.sum(axis=1), black)
    slope, intercept, weight = _solve(x, q, h - read * q, read * q, worth, free=not known)
    replicates = scaled_pairs(leave_one_out(sums, axis=1), black[:, None])
    xr_, qr, hr = (np.moveaxis(part, 1, 0) for part in replicates)  # (block, pair)
    slopes, intercepts, _ = _solve(xr_, qr, hr - read * qr, read * qr, worth, free=not known)

    # χ² of the levels' mean residuals; a variance from B blocks makes t² of each, whose mean is (B−1)/(B−3)
    residual = _by_level(h - read * q - slope * x - intercept * q, level)
    blocks = xr_.shape[0]
    spread = _by_level(hr - read * qr - slope * xr_ - intercept * qr, level)
    read_error = float(curve["dark_variance_error"].mean()) if known else 0.0
    scatter = slope * curve["black_scatter"].mean()
    noise = np.square(jackknife_error(spread)) + scatter**2 / frames
    degrees = residual.size - (1 if known else 2)
    chi2 = float((np.square(residual) / noise).sum()) * max(blocks - 3, 1) / max(blocks - 1, 1) if degrees > 0 else 0.0
    widen, problem = 1.0, ""
    chance = special.chdtrc(degrees, chi2) if degrees > 0 else 1.0
    if chance < MISFIT:
        widen = max(1.0, np.sqrt(chi2 / degrees))
    if chance < MISFIT_TO_TELL:
        problem = (
            f"the variances do not lie on one line (χ² is {chi2 / degrees:.1f} times what it should be), so the error "
            "is widened; look at the photon transfer chart for a light level that is off"
        )

    # ∂slope/∂R, and ∂slope/∂(signal) of each pair, of the weighted fit
    lever = _levers(x, q, weight, free=not known)
    by_read = float((lever * q).sum()) * read_error if known else 0.0
    by_black = float((lever * slope).sum()) * float(curve["black_level_error"].mean())
    by_scatter = np.sqrt((np.square(_by_level(lever, level, mean=False)) / frames).sum()) * scatter
    error = np.sqrt((jackknife_error(slopes) * widen) ** 2 + by_read**2 + by_black**2 + by_scatter**2)
    one = count | {
        "gain": 1 / slope,
        "gain_error": error / slope**2,
        "intercept": float(read.mean()) if known else float(intercept),
        "intercept_error": read_error if known else float(jackknife_error(intercepts) * widen),
        "chi2": chi2 / degrees if degrees > 0 else np.nan,
    }
    if not slope > 0 or not error < slope:
        for name in ("gain", "gain_error", "blog_gain"):
            one[name] = np.nan
        problem = "the variance does not rise with the signal beyond its error; shoot brighter flats, or more"
    return one, which, problem


def _fit_plain(curve: Curve) -> tuple[dict[str, float], np.ndarray, str]:
    """A line through all pairs, weights 1/variance²; the jackknife deletes blocks of rows."""

    def line(mean: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        slope, intercept, _ = _weighted(mean, np.ones_like(mean), variance, 1 / np.square(variance), free=True)
        return slope, intercept

    mean, variance = curve["mean"], curve["variance_plain"]
    which = np.flatnonzero(variance > 0)
    levels = levels_of(_chosen(curve, which)) if which.size else np.zeros(1, int)
    if which.size < 2 or levels.max() < 1:
        return {"pairs_used": 0, "levels_used": 0}, which[:0], "a line needs pairs at two light levels or more"
    slope, intercept = line(mean[which], variance[which])
    moments = pair_moments(np.moveaxis(leave_one_out(curve["sums_plain"][which], axis=1), 1, 0))
    slopes, intercepts = line((moments.mean1 + moments.mean2) / 2, moments.half_variance)
    residual = variance[which] - intercept - slope * mean[which]
    scale = 2 / (curve["sums_plain"][which][..., 0].sum(axis=1) - 1)
    one = {
        "gain": 1 / slope,
        "gain_error": float(jackknife_error(slopes)) / slope**2,
        "intercept": float(intercept),
        "intercept_error": float(jackknife_error(intercepts)),
        "blog_gain": _blog_gain(_chosen(curve, which)),
        "pairs_used": which.size,
        "levels_used": levels.max() + 1,
        "chi2": float((residual**2 / (scale * variance[which] ** 2)).sum() / max(which.size - 2, 1)),
    }
    return one, which, ""


def scaled_pairs(sums: np.ndarray, black: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what 1/g and R are multiplied with in a scaled pair's half-variance, and that half-variance."""
    moments = pair_moments(sums)
    level1, level2 = moments.mean1 - black, moments.mean2 - black
    level = (level1 + level2) / 2
    x = level1 * level2 / level
    q = (level1**2 + level2**2) / (2 * level**2)
    return x, q, moments.scaled_half_variance(black)


def _solve(
    x: np.ndarray, q: np.ndarray, y: np.ndarray, fixed: np.ndarray, worth: np.ndarray, *, free: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit y = slope·x (+ intercept·q if free) along the last axis, weights from the model; also the weights."""
    slope = np.median(y / x, axis=-1, keepdims=True)
    intercept = np.zeros_like(slope)
    for _ in range(_ROUNDS):
        model = slope * x + fixed + intercept * q
        weight = worth / np.square(np.maximum(model, 0.1 * np.abs(slope) * x))
        slope, intercept, _ = (part[..., None] for part in _weighted(x, q, y, weight, free=free))
    return slope[..., 0], intercept[..., 0], weight


def _weighted(
    x: np.ndarray, q: np.ndarray, y: np.ndarray, weight: np.ndarray, *, free: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return slope, intercept and determinant of one weighted fit along the last axis."""
    xx, xy = (weight * x * x).sum(-1), (weight * x * y).sum(-1)
    if not free:
        return xy / xx, np.zeros_like(xx), xx
    xq, qq, qy = (weight * x * q).sum(-1), (weight * q * q).sum(-1), (weight * q * y).sum(-1)
    determinant = xx * qq - xq**2
    return (xy * qq - qy * xq) / determinant, (qy * xx - xy * xq) / determinant, determinant


def _levers(x: np.ndarray, q: np.ndarray, weight: np.ndarray, *, free: bool) -> np.ndarray:
    """Return ∂slope/∂y of each pair."""
    xx = (weight * x * x).sum()
    if not free:
        return weight * x / xx
    xq, qq = (weight * x * q).sum(), (weight * q * q).sum()
    return weight * (x * qq - q * xq) / (xx * qq - xq**2)


def _by_level(values: np.ndarray, level: np.ndarray, *, mean: bool = True) -> np.ndarray:
    """Mean or sum over each level's pairs, along the last axis."""
    member = (level[:, None] == np.arange(level.max() + 1)).astype(float)
    return values @ (member / member.sum(axis=0) if mean else member)


def levels_of(curve: Curve) -> np.ndarray:
    """Number the light levels of a curve from 0."""
    return np.unique(curve["level"], return_inverse=True)[1].reshape(-1)


def _frames_of(curve: Curve, number: int) -> int:
    """How many frames the pairs of a level are made of."""
    where = levels_of(curve) == number
    pairs = int(where.sum())
    return 2 if pairs == 1 else pairs  # a ring of n frames has n pairs


def _blog_gain(curve: Curve) -> float:
    signal = curve["mean_single"] - curve["black_level"]
    return float((signal / curve["variance_single"]).mean())


def unity_gain_iso(gain: xr.Dataset) -> xr.Dataset:
    """Find the ISO at which one electron is one ADU, from the greens (or the only channel).

    The logarithm of the gain is interpolated in the logarithm of the ISO, between the two settings that bracket
    g = 1.  Where none do, the power law through all settings is extended, with a warning; from one setting alone there
    is no measurement (NaN), and the warning gives what proportionality would say.

    Returns
    -------
    xarray.Dataset
        Scalars ``unity_gain_iso`` and ``unity_gain_iso_error``; ``attrs["warnings"]``.

    Examples
    --------
    >>> gain = xr.Dataset(
    ...     {"gain": (("iso", "channel"), [[2.0], [0.5]]), "gain_error": (("iso", "channel"), [[0.02], [0.005]])},
    ...     {"iso": [100.0, 400.0], "channel": ["mono"]})
    >>> result = unity_gain_iso(gain)
    >>> round(result.unity_gain_iso.item()), round(result.unity_gain_iso_error.item(), 1)
    (200, 1.4)
    """
    greens = [name for name in gain["channel"].values.tolist() if name in ("G1", "G2", "mono")]
    values, errors = (gain[name].sel(channel=greens).values for name in ("gain", "gain_error"))
    weight = 1 / np.square(errors / values)
    log_gain = (weight * np.log(values)).sum(-1) / weight.sum(-1)
    log_error = np.sqrt(1 / weight.sum(-1))
    log_iso = np.log(gain["iso"].values)
    good = np.isfinite(log_gain) & np.isfinite(log_iso) & np.isfinite(log_error)
    x, y, e = log_iso[good], log_gain[good], log_error[good]
    value, error, warnings = np.nan, np.nan, []
    crossing = np.flatnonzero((y[:-1] >= 0) & (y[1:] < 0))
    if crossing.size:
        i = int(crossing[0])
        # x₀ = x_i + y_i (x_j − x_i)/(y_i − y_j)
        step, fall = x[i + 1] - x[i], y[i] - y[i + 1]
        x0 = x[i] + y[i] * step / fall
        by_first, by_second = -y[i + 1] * step / fall**2, y[i] * step / fall**2
        value = np.exp(x0)
        error = value * np.hypot(by_first * e[i], by_second * e[i + 1])
    elif x.size >= 2:
        # y = a + b (x − x̄) with weights 1/e²
        w = 1 / e**2
        centre = (w * x).sum() / w.sum()
        b = (w * (x - centre) * y).sum() / (w * (x - centre) ** 2).sum()
        a = (w * y).sum() / w.sum()
        if b < 0:
            x0 = centre - a / b
            value = np.exp(x0)
            error = value / abs(b) * np.sqrt(1 / w.sum() + (a / b) ** 2 / (w * (x - centre) ** 2).sum())
            warnings.append(
                f"no two of the measured ISO settings bracket unity gain: {value:.0f} is an extrapolation from "
                f"ISO {np.exp(x.min()):.0f} to {np.exp(x.max()):.0f}; measure settings on both sides"
            )
        else:
            warnings.append(
                "the gain does not fall with the ISO setting: no unity-gain ISO; check the ISO of the flats"
            )
    elif x.size == 1:
        warnings.append(
            f"gain is measured at one ISO setting only, so the unity-gain ISO is not; were gain inversely proportional "
            f"to ISO, it would be {np.exp(x[0] + y[0]):.0f}: measure a second setting"
        )
    data = {
        "unity_gain_iso": ((), value, {"units": "ISO", "long_name": "unity-gain ISO"}),
        "unity_gain_iso_error": ((), error, {"units": "ISO", "long_name": "error of the unity-gain ISO"}),
    }
    return xr.Dataset(data, attrs={"long_name": "unity gain", "warnings": warnings})


def shot_noise_snr(ptc: xr.Dataset, gain: xr.Dataset) -> xr.Dataset:
    """Compare the signal-to-noise ratio of each pair of flats with that of shot noise alone, √N.

    Measured: signal/√variance of a pair's pixels, read noise included; N = signal · gain electrons.

    Returns
    -------
    xarray.Dataset
        Over point, one for each pair and channel that the fit used: ``snr`` with ``snr_error``, ``snr_expected`` = √N,
        ``electrons`` N, and ``iso``, ``exposure`` [s], ``aperture``, ``channel``.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> from workbench.sensor import fit_gain, photon_transfer
    >>> rng = np.random.default_rng(0)
    >>> y = rng.poisson(np.repeat([400, 1600], 2)[:, None, None], (4, 256, 256)).astype("uint16")
    >>> ptc = photon_transfer(make_cube(y, cfa_pattern="mono", kind="flat", iso=100, exposure=[1, 1, 4, 4],
    ...                                 black_level=0), progress=False)
    >>> shot_noise_snr(ptc, fit_gain(ptc)).snr.round().values
    array([20., 40.])
    """
    pair, channel = np.nonzero(gain["used"].values)
    isos = ptc["iso"].values[pair]
    factor = np.array([at_iso(gain["gain"], iso)[c] for iso, c in zip(isos, channel, strict=True)])
    signal, variance, error = (ptc[name].values[pair, channel] for name in ("signal", "variance", "variance_error"))
    good = np.isfinite(factor) & (factor > 0) & (signal > 0) & (variance > 0)
    pair, channel, factor, signal, variance, error = (
        part[good] for part in (pair, channel, factor, signal, variance, error)
    )
    ratio, electrons = signal / np.sqrt(variance), signal * factor
    data = {
        "snr": (ratio, "1", "signal-to-noise ratio"),
        "snr_error": (ratio * error / (2 * variance), "1", "error of the signal-to-noise ratio"),
        "snr_expected": (np.sqrt(electrons), "1", "√N"),
        "electrons": (electrons, "e-", "signal"),
    }
    coords = {name: ("point", ptc[name].values[pair], ptc[name].attrs) for name in ("iso", "exposure", "aperture")}
    coords["channel"] = ("point", ptc["channel"].values[channel])
    return xr.Dataset(
        {name: ("point", value, {"units": units, "long_name": text}) for name, (value, units, text) in data.items()},
        coords,
        {"camera": ptc.attrs["camera"], "long_name": "signal-to-noise ratio"},
    )
