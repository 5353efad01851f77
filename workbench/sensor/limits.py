"""The limits of each ISO setting: read noise before and after the gain, unity gain, full well, dynamic range."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ..core.pairs import QUANTISATION_VARIANCE
from ..core.results import Table, at_iso, at_isos, per_channel, same_iso, with_errors
from ..core.statistics import StraightLine, fit_line, misfit
from ..core.values import describe
from .bias import CLIPPED_FRACTION

INVARIANT_WITHIN = 0.05  # of the floor: what raising the ISO any further could still take off the read noise
_ROUNDS = 8  # of reweighting
_PLATEAU_SATURATED = 0.999  # share of pixels at the highest code of a level that is saturated all over
_PLATEAU_VARIANCE = 0.003  # of the shot noise that a level would have; what is left of it where the wells are full
_ENOUGH_LIGHT = 0.5  # of the stated white level: fainter flats do not show how it ends
_LEAST_ERROR = 0.01  # of a saturation that is only bracketed
_SPLIT: Table = {
    "before_gain": ("electron", "read noise before the gain"),
    "after_gain": ("adu", "read noise after the gain"),
    "invariance_iso": ("1", "ISO from which nothing is gained"),
}
_WELLS: Table = {
    **with_errors({"saturation": ("adu", "saturation above the black level"), "full_well": ("electron", "full well")}),
    "brightest": ("adu", "brightest strip above the black level"),
    "method": ("", "how saturation was found"),
    "limit": ("", "what saturates"),
}


def full_well(ptc: xr.Dataset, gain: xr.Dataset) -> xr.Dataset:
    """Find where each ISO and channel saturates, in ADU and in electrons.

    ``plateau``: the mean of flats so bright that every pixel is at its limit, be it the converter's highest code or
    full wells, where the photon noise is gone; its error is the scatter of those means and the black level's.
    ``peak``: the variance breaks down but no flat is saturated all over; the end lies above the level of the greatest
    variance (EMVA 1288's saturation) and is taken at the brightest strip of the brightest flat.  ``white level``: no
    flat reaches the end; it lies between the brightest strip and the white level that the files state, and is taken
    to be the latter.  In the last two the error is the standard deviation of an end that is anywhere in between.

    Parameters
    ----------
    ptc
        From `photon_transfer`.
    gain
        From `fit_gain`.

    Returns
    -------
    xarray.Dataset
        Over (iso, channel): ``saturation`` [ADU above black] and ``full_well`` [e⁻], each with ``_error`` (the gain's
        in it); ``brightest`` [ADU], the brightest strip of rows, below which it does not lie; ``method``; ``limit``,
        ``converter`` where the highest code ends the scale, ``well`` where the pixels do before, empty where that is
        not known.  What cannot be measured is NaN, and ``attrs["warnings"]`` says what to shoot.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> from workbench.sensor import fit_gain, photon_transfer
    >>> electrons = np.random.default_rng(0).poisson(np.repeat([2e3, 6e3, 3e4], 2)[:, None, None], (6, 64, 64))
    >>> y = np.minimum(electrons, 10_000) / 2
    >>> flats = make_cube(y.round().astype("uint16"), cfa_pattern="mono", kind="flat", iso=100,
    ...                   exposure=[1, 1, 3, 3, 15, 15], black_level=0, white_level=16383)
    >>> ptc = photon_transfer(flats, progress=False)
    >>> found = full_well(ptc, fit_gain(ptc)).squeeze()
    >>> found.saturation.item(), found.method.item(), found.limit.item()
    (5000.0, 'plateau', 'well')
    """
    isos, channels = gain["iso"].values, gain["channel"].values.tolist()
    rows, faint = [], []
    for iso in isos:
        where = np.flatnonzero(same_iso(ptc["iso"].values, iso))
        factor, factor_error = (at_iso(gain[name], iso) for name in ("gain", "gain_error"))
        rows.append([_saturation(ptc, where, column, factor[column]) for column in range(len(channels))])
        for one, value, error in zip(rows[-1], factor, factor_error, strict=True):
            level, doubt = (one.get(name, np.nan) for name in ("saturation", "saturation_error"))
            one |= {"full_well": level * value, "full_well_error": np.hypot(doubt * value, level * error)}
        if where.size and not any("saturation" in one for one in rows[-1]):
            faint.append(describe({"iso": iso}))
    warnings = []
    if faint:
        warnings.append(
            f"the flats at {', '.join(faint)} end too far below saturation to show the full well; shoot a pair several "
            "times overexposed"
        )
    attrs = {"camera": ptc.attrs["camera"], "long_name": "saturation and full well", "warnings": warnings}
    return per_channel(_WELLS, rows, isos, channels, **attrs)


def _saturation(ptc: xr.Dataset, pairs: np.ndarray, column: int, gain: float) -> dict[str, Any]:
    """Find the saturation of one ISO and channel."""
    if not pairs.size:
        return {}
    curve = ptc.isel(pair=pairs, channel=column)
    black, signal, variance, error, plain, saturated = (
        curve[name].values
        for name in ("black_level", "signal", "variance", "variance_error", "variance_plain", "saturated_fraction")
    )
    n, first, second = np.moveaxis(curve["sums_plain"].values[..., :3], -1, 0)  # (pair, block)
    strips = np.where(n > 0, (first + second) / 2 / np.where(n > 0, n, 1), -np.inf)
    brightest = float((strips.max(axis=1) - black).max())
    room = float(ptc.attrs["white_level"]) - float(black.max())
    dark = np.nan_to_num(curve["dark_variance"].values) + QUANTISATION_VARIANCE
    # a wrong or missing gain would only move a threshold that is far from either side
    shot = signal / gain if np.isfinite(gain) and gain > 0 else variance.max() * signal / signal.max()
    full = saturated > _PLATEAU_SATURATED
    quiet = (plain < 3 * dark - 2 * QUANTISATION_VARIANCE + _PLATEAU_VARIANCE * shot) & (shot > 30 * dark)
    plateau = (full | quiet) & (signal > 0.9 * signal.max())
    if plateau.any():
        levels = signal[plateau]
        offset = float(np.nan_to_num(curve["black_scatter"].values).max()) / np.sqrt(2 * levels.size)
        scatter = max(float(levels.std()), offset)
        return {
            "brightest": brightest,
            "saturation": float(levels.mean()),
            "saturation_error": float(np.hypot(scatter, curve["black_level_error"].values.max())),
            "method": "plateau",
            "limit": "converter" if full[plateau].all() else "well",
        }
    peak = int(np.argmax(variance))
    fallen = (signal > signal[peak]) & (variance < 0.9 * variance[peak] - 4 * np.hypot(error, error[peak]))
    clipped = (saturated > CLIPPED_FRACTION).any()
    if fallen.any() and not (clipped and brightest > 0.9 * room):
        value, low, method, limit = brightest, float(signal[peak]), "peak", "" if clipped else "well"
    elif np.isfinite(room) and brightest > _ENOUGH_LIGHT * room:
        value, low, method, limit = room, min(brightest, room), "white level", "converter" if clipped else ""
    else:
        return {"brightest": brightest}
    doubt = max((value - low) / np.sqrt(3), _LEAST_ERROR * value)
    return {"brightest": brightest, "saturation": value, "saturation_error": doubt, "method": method, "limit": limit}


def dynamic_range(read: xr.Dataset, wells: xr.Dataset) -> xr.Dataset:
    """Return the dynamic range of every ISO and channel: full well over read noise, log₂ of it in stops.

    The gain cancels, saturation and noise both being in ADU, so its error is not in it.  EMVA 1288's is smaller by
    log₂(1 + ½/σ), as its faintest signal has half an electron more.

    Parameters
    ----------
    read, wells
        From `read_noise` and `full_well`.

    Returns
    -------
    xarray.Dataset
        Over (iso, channel): ``dynamic_range`` [stops] with ``dynamic_range_error``.
    """
    isos = [iso for iso in wells["iso"].values if np.isfinite(at_iso(read["read_noise_adu"], iso)).any()]
    channels = wells["channel"].values.tolist()
    read = read.reindex(channel=channels)
    rows = []
    for iso in isos:
        top, top_error = (at_iso(wells[name], iso) for name in ("saturation", "saturation_error"))
        noise, noise_error = (at_iso(read[name], iso) for name in ("read_noise_adu", "read_noise_adu_error"))
        value = np.log2(top / np.where(noise > 0, noise, np.nan))
        error = np.hypot(top_error / top, noise_error / noise) / np.log(2)
        rows.append([{"dynamic_range": v, "dynamic_range_error": e} for v, e in zip(value, error, strict=True)])
    table = with_errors({"dynamic_range": ("bit", "dynamic range")})
    return per_channel(table, rows, isos, channels, camera=wells.attrs["camera"], long_name="dynamic range")


def split_read_noise(read: xr.Dataset, gain: xr.Dataset, *, within: float = INVARIANT_WITHIN) -> xr.Dataset:
    """Split the read noise into what arises before the amplifier and after it, from its change with ISO.

    σ_ADU² = (σ_pre/g)² + σ_post²: what comes before is amplified with the signal, what comes after is not.  A line of
    σ_ADU² on 1/g², weighted with the errors of both.  The invariance ISO is the one at which the read noise in
    electrons has come within 5 % (`within`) of its floor σ_pre, σ_post g = σ_pre √((1 + 0.05)² − 1): raising the ISO
    beyond it takes off less than that, however far, and costs full well.

    Parameters
    ----------
    read, gain
        From `read_noise` and `fit_gain`, at two ISO settings or more.
    within
        The share of the floor that makes the invariance ISO.

    Returns
    -------
    xarray.Dataset
        Over channel: ``noise_before_gain`` [e⁻ rms], ``noise_after_gain`` [ADU rms], each with ``_error``.  The same of
        the greens together (or the only channel), as scalars ``before_gain``, ``after_gain``, and ``invariance_iso``,
        each with ``_error``; ``chi2`` per degree of freedom.  attrs: ``within``, ``warnings``.  What these frames do
        not resolve is NaN, and a warning says why.

    Examples
    --------
    >>> iso = [100.0, 200, 400, 800]
    >>> g = np.array([[2.0], [1.0], [0.5], [0.25]])
    >>> adu = np.hypot(2.4 / g, 0.9)
    >>> dims, coords = ("iso", "channel"), {"iso": iso, "channel": ["mono"]}
    >>> read = xr.Dataset({"read_noise_adu": (dims, adu), "read_noise_adu_error": (dims, 0.002 * adu)}, coords)
    >>> gain = xr.Dataset({"gain": (dims, g), "gain_error": (dims, 0.001 * g)}, coords)
    >>> split = split_read_noise(read, gain)
    >>> round(split.before_gain.item(), 2), round(split.after_gain.item(), 2), round(split.invariance_iso.item())
    (2.4, 0.9, 234)
    """
    channels = [str(name) for name in gain["channel"].values if name in read["channel"].values]
    points = dict(zip(channels, _points(read, gain, channels), strict=True))
    fits = {name: _split(points[name]) for name in channels}
    greens = [points[name] for name in channels if name in ("G1", "G2", "mono")]
    whole = (
        _Points(*(np.concatenate(part) for part in zip(*greens, strict=True)))
        if greens
        else _Points(*[np.empty(0)] * 5)
    )
    fit = _split(whole)
    values = {"before_gain": fit.before, "after_gain": fit.after, "invariance_iso": _invariance(fit, whole, within)}
    settings = np.unique(whole.iso).size
    warnings = _split_warnings(fit, values["invariance_iso"], whole)
    data: dict[str, Any] = {}
    for key, (units, title) in _SPLIT.items():
        for index, (ending, of) in enumerate((("", ""), ("_error", "error of the "))):
            about = {"units": units, "long_name": f"{of}{title}"}
            data[f"{key}{ending}"] = ((), values[key][index], about)
            if key != "invariance_iso":
                column = [(one.before if key == "before_gain" else one.after)[index] for one in fits.values()]
                data[f"noise_{key}{ending}"] = ("channel", column, about)
    data["chi2"] = ((), fit.chi2, {"units": "1", "long_name": "χ² per degree of freedom"})
    attrs = {"within": within, "settings": settings, "long_name": "read noise before and after the gain"}
    return xr.Dataset(data, {"channel": channels}, attrs | {"warnings": warnings})


class _Points(NamedTuple):
    """Settings of a channel: ISO, 1/g [ADU/e⁻], its relative error, σ² [ADU²] of the read noise and its error."""

    iso: np.ndarray
    inverse: np.ndarray
    relative: np.ndarray
    variance: np.ndarray
    error: np.ndarray


class _Split(NamedTuple):
    """Read noise before [e⁻] and after the gain [ADU] with errors; χ² per degree of freedom, and if it is too large.

    `line` is σ_ADU² on 1/g², with its `covariance`; None from one setting.
    """

    before: tuple[float, float]
    after: tuple[float, float]
    chi2: float = np.nan
    off: bool = False
    line: StraightLine | None = None
    covariance: np.ndarray | None = None


def _points(read: xr.Dataset, gain: xr.Dataset, channels: list[str]) -> list[_Points]:
    """Return the settings at which each channel has both."""
    isos = gain["iso"].values
    values = [
        at_isos(part[name].sel(channel=channels), isos).T
        for part, names in ((read, ("read_noise_adu", "read_noise_adu_error")), (gain, ("gain", "gain_error")))
        for name in names
    ]
    result = []
    for noise, noise_error, factor, factor_error in zip(*values, strict=True):
        points = _Points(isos, 1 / factor, factor_error / factor, noise**2, 2 * noise * noise_error)
        good = np.isfinite(points).all(axis=0) & (points.variance > 0) & (points.error > 0)
        result.append(_Points(*(column[good] for column in points)))
    return result


def _split(points: _Points) -> _Split:
    """Fit σ² = A/g² + B; A and B are the squares of the read noise before and after the gain."""
    nothing = (np.nan, np.nan)
    if np.unique(points.iso).size < 2:
        return _Split(nothing, nothing)
    x, y = points.inverse**2, points.variance
    slope = float((y / x).min())
    for _ in range(_ROUNDS):
        weight = 1 / (points.error**2 + (slope * 2 * x * points.relative) ** 2)
        line = fit_line(x, y, weight)
        slope = float(line.slope)
    degrees = x.size - 2
    chi2 = float((weight * (y - line.intercept - line.slope * x) ** 2).sum())
    widen, off = misfit(chi2, degrees)
    covariance = line.covariance * widen**2
    # a root is given where its square is above zero by two errors
    before, after = (
        (np.sqrt(square), error / (2 * np.sqrt(square))) if square > 2 * error else nothing
        for square, error in zip(line[:2], np.sqrt(np.diag(covariance)), strict=True)
    )
    return _Split(before, after, chi2 / degrees if degrees else np.nan, off, line, covariance)


def _invariance(fit: _Split, points: _Points, within: float) -> tuple[float, float]:
    """Return the ISO at which σ_post g = σ_pre √((1 + within)² − 1), by the power law of the gain around it."""
    if fit.line is None or not (np.isfinite(fit.before[0]) and np.isfinite(fit.after[0])):
        return np.nan, np.nan
    square, after = fit.line.slope, fit.line.intercept
    log_gain = 0.5 * np.log(square / after * ((1 + within) ** 2 - 1))
    isos = np.unique(points.iso)
    known = np.array([-np.log(points.inverse[points.iso == iso]).mean() for iso in isos])  # ln g, falling
    log_iso = np.log(isos)
    if known[0] >= log_gain >= known[-1]:
        at = int(np.clip(np.searchsorted(-known, -log_gain) - 1, 0, isos.size - 2))
        power = (known[at + 1] - known[at]) / (log_iso[at + 1] - log_iso[at])
        start, base = log_iso[at], known[at]
    else:
        line = fit_line(log_iso, known)
        power, start, base = line.slope, line.centre, known.mean()
    if not power < 0:
        return np.nan, np.nan
    value = float(np.exp(start + (log_gain - base) / power))
    lever = np.array([0.5 / square, -0.5 / after])
    return value, float(value / abs(power) * np.sqrt(lever @ fit.covariance @ lever))


def _split_warnings(fit: _Split, invariance: tuple[float, float], points: _Points) -> list[str]:
    if fit.line is None:
        return [
            "read noise before and after the gain cannot be separated at one ISO setting; shoot bias frames and pairs "
            "of flats at three settings or more, the lowest and ISO 1600 among them"
        ]
    warnings = []
    low, high = points.iso.min(), points.iso.max()
    if fit.off:
        warnings.append(
            f"the read noise does not follow one law of gain over the ISO settings (χ² is {fit.chi2:.1f} times what "
            "it should be), so the errors of its split are widened; cameras that switch their conversion gain, or "
            "multiply numbers above some ISO, do this"
        )
    if np.isnan(fit.before[0]):
        warnings.append("read noise before the gain is lost in that after it: measure higher ISO settings as well")
    elif np.isnan(fit.after[0]):
        warnings.append(
            f"read noise after the gain is not seen from ISO {low:g} on: nothing is gained by a higher setting, as far "
            "as these frames show; more bias frames at the lowest ISO would show it"
        )
    elif np.isfinite(invariance[0]) and not low <= invariance[0] <= high:
        warnings.append(
            f"the ISO from which nothing is gained, {invariance[0]:.0f}, lies outside the measured settings "
            f"({low:g} to {high:g}); measure some on both sides"
        )
    return warnings


def unity_gain_iso(gain: xr.Dataset) -> xr.Dataset:
    """Find the ISO at which one electron is one ADU, from the greens (or the only channel).

    The logarithm of the gain is interpolated in the logarithm of the ISO, between the two settings that bracket
    g = 1.  Where none do, the power law through all settings is extended, with a warning; from one setting alone
    nothing is measured (NaN), and the warning gives the ISO that proportionality would give.

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
    if x.size >= 2:
        near = slice(crossing[0], crossing[0] + 2) if crossing.size else slice(None)
        line = fit_line(x[near], y[near], 1 / e[near] ** 2)
        if line.slope < 0:
            value = np.exp(-line.intercept / line.slope)
            away = np.log(value) - line.centre
            error = value / abs(line.slope) * np.sqrt(line.level_variance + away**2 * line.slope_variance)
            if not crossing.size:
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
        "unity_gain_iso": ((), value, {"units": "1", "long_name": "unity-gain ISO"}),
        "unity_gain_iso_error": ((), error, {"units": "1", "long_name": "error of the unity-gain ISO"}),
    }
    return xr.Dataset(data, attrs={"long_name": "unity gain", "warnings": warnings})
