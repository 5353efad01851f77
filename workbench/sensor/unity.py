"""What several settings give: unity gain, and the read noise before and after the gain; gains that headers state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from ..core.cube import GREENS
from ..core.noise import error_in_mean, stated_gain
from ..core.results import Table, at_iso, at_isos, described, per_channel, with_errors
from ..core.settings import TITLES, in_words_of, setting_dim, setting_of_table
from ..core.statistics import StraightLine, fit_line, misfit
from ..core.values import describe, value_text

_STATED = with_errors({"gain": ("electron / adu", "gain")})
INVARIANT_WITHIN = 0.05  # of the floor: what raising the ISO any further could still take off the read noise
_ROUNDS = 8  # of reweighting
_UNITY = with_errors({"unity_gain_iso": ("1", "unity-gain ISO")})
# columns of the settings of a channel: 1/g [ADU/e⁻], its relative error, σ² [ADU²] of the read noise and its error
_POINT = ["setting", "inverse", "relative", "variance", "error"]
_SPLIT: Table = with_errors(
    {
        "before_gain": ("electron", "read noise before the gain"),
        "after_gain": ("adu", "read noise after the gain"),
        "invariance_iso": ("1", "ISO from which nothing is gained"),
    }
)


def unity_gain_iso(gain: xr.Dataset) -> xr.Dataset:
    """Find the setting at which one electron is one step of the converter, from the greens (or the only channel).

    The logarithm of the gain is interpolated, in the logarithm of the ISO or in the gain setting, between the two
    settings that bracket g = 1.  Where no two ISO settings do, the power law through all is extended, with a warning;
    from one alone nothing is measured (NaN), and the warning gives the ISO that proportionality would give.  A gain
    setting follows no law that is known beforehand: beyond the measured ones nothing is given.  A step is an ADU, or
    ``attrs["step"]`` of them where codes are padded with zeros.

    Returns
    -------
    xarray.Dataset
        Scalars ``unity_gain_iso`` (the gain setting for a camera without ISO) and ``unity_gain_iso_error``;
        ``attrs["warnings"]``.

    Examples
    --------
    >>> gain = xr.Dataset(
    ...     {"gain": (("iso", "channel"), [[2.0], [0.5]]), "gain_error": (("iso", "channel"), [[0.02], [0.005]])},
    ...     {"iso": [100.0, 400.0], "channel": ["mono"]})
    >>> result = unity_gain_iso(gain)
    >>> round(result.unity_gain_iso.item()), round(result.unity_gain_iso_error.item(), 1)
    (200, 1.4)
    >>> cooled = gain.rename(iso="gain_setting").assign_coords(gain_setting=[0.0, 120.0])
    >>> result = unity_gain_iso(cooled)
    >>> round(result.unity_gain_iso.item()), round(result.unity_gain_iso_error.item(), 1)
    (60, 0.6)
    """
    greens = [name for name in gain["channel"].values.tolist() if name in GREENS]
    values, errors = gain["gain"].sel(channel=greens).values, error_in_mean(gain.sel(channel=greens))
    weight = 1 / np.square(errors / values)
    log_gain = (weight * np.log(values * max(gain.attrs.get("step", 1), 1))).sum(-1) / weight.sum(-1)
    log_error = np.sqrt(1 / weight.sum(-1))
    dim = setting_dim(gain)
    by_iso = dim == "iso"
    place = np.log(gain[dim].values) if by_iso else gain[dim].values
    good = np.isfinite(log_gain) & np.isfinite(place) & np.isfinite(log_error)
    x, y, e = place[good], log_gain[good], log_error[good]
    value, error, warnings = np.nan, np.nan, []
    crossing = np.flatnonzero((y[:-1] >= 0) & (y[1:] <= 0))
    if x.size >= 2 and (crossing.size or by_iso):
        near = slice(crossing[0], crossing[0] + 2) if crossing.size else slice(None)
        line = fit_line(x[near], y[near], 1 / e[near] ** 2)
        if line.slope < 0:
            at = -line.intercept / line.slope
            error = np.sqrt(line.level_variance + (at - line.centre) ** 2 * line.slope_variance) / abs(line.slope)
            value, error = (np.exp(at), np.exp(at) * error) if by_iso else (at, error)
    warnings = [] if np.isfinite(value) and crossing.size else _unity_warnings(by_iso, x, y, value)
    name = dict(zip(_UNITY, [in_words_of(dim, title) for _, title in _UNITY.values()], strict=True))
    data = described(_UNITY, (), {"unity_gain_iso": value, "unity_gain_iso_error": error})
    data = {key: (dims, found, about | {"long_name": name[key]}) for key, (dims, found, about) in data.items()}
    return xr.Dataset(data, attrs={"long_name": "unity gain", "of": dim, "warnings": warnings})


def _unity_warnings(by_iso: bool, x: np.ndarray, log_gain: np.ndarray, value: float) -> list[str]:
    """Return why unity gain is not measured, or only as an extrapolation to `value`; x is ln ISO, or gain setting."""
    if not x.size:
        return []
    if not by_iso:
        least, greatest = np.exp(log_gain.min()), np.exp(log_gain.max())
        return [
            f"unity gain, one electron a step of the converter, is not reached at the gain settings measured "
            f"({x.min():g} to {x.max():g}: {value_text(greatest)} to {value_text(least)} e-/step); measure one on its "
            "other side"
            if x.size > 1
            else f"gain is measured at one gain setting only ({x[0]:g}), so that of unity gain is not: measure another"
        ]
    if x.size == 1:
        return [
            "gain is measured at one ISO setting only, so the unity-gain ISO is not; were gain inversely proportional "
            f"to ISO, it would be {np.exp(x[0] + log_gain[0]):.0f}: measure a second setting"
        ]
    if np.isnan(value):
        return ["the gain does not fall with the ISO setting: no unity-gain ISO; check the ISO of the flats"]
    return [
        f"no two of the measured ISO settings bracket unity gain: {value:.0f} is an extrapolation from "
        f"ISO {np.exp(x.min()):.0f} to {np.exp(x.max()):.0f}; measure settings on both sides"
    ]


def with_stated_gain(
    gain: xr.Dataset | None, table: pd.DataFrame, channels: Sequence[str], step: int = 1
) -> tuple[xr.Dataset | None, list[str]]:
    """Compare the measured gain with ``EGAIN`` of the headers, and take that where none is measured; with warnings.

    See `core.noise.stated_gain`.

    Parameters
    ----------
    gain
        From `fit_gain`; None without flats.
    table
        Of frames, with the columns of the setting and ``egain``.
    channels
        Of the camera.
    step
        Of the codes [ADU].

    Returns
    -------
    gain, warnings
        The gain [e⁻/ADU] over all settings that have one; the error of a stated one is NaN.

    Examples
    --------
    >>> table = pd.DataFrame({"iso": [np.nan] * 2, "gain_setting": [0.0, 120.0], "egain": [4.0, 1.0],
    ...                       "camera": "ASI1600"})
    >>> gain, warnings = with_stated_gain(None, table, ["mono"], 16)
    >>> gain.gain.sel(channel="mono").values.tolist(), "EGAIN" in warnings[0]
    ([0.25, 0.0625], True)
    """
    dim = setting_of_table(table) if gain is None else setting_dim(gain)
    stated = table[table["egain"] > 0].groupby(dim, dropna=False)["egain"].agg(["min", "max"])
    stated = stated.loc[stated["min"] == stated["max"], "max"]
    taken: dict[float, float] = {}
    warnings = []
    for setting, value in stated.items():
        where = describe({dim: setting})
        nothing = np.full(1, np.nan)
        known, error = (nothing if gain is None else at_iso(gain[key], setting) for key in ("gain", "gain_error"))
        claim, text = stated_gain(value, step, where, known, error)
        warnings += [text] if text else []
        if not np.isfinite(known).any():
            taken[setting] = claim
    if not taken:
        return gain, warnings
    rows = [[{"gain": value} for _ in channels] for value in taken.values()]
    claims = per_channel(_STATED, rows, {dim: list(taken)}, channels, camera=str(table["camera"].iloc[0]))
    if gain is None:
        return claims.assign_attrs(step=step, warnings=[]), warnings
    settings = np.union1d(gain[dim].values, claims[dim].values)
    whole, claims = (part.reindex({dim: settings}) for part in (gain, claims))
    return whole.assign(gain=whole["gain"].fillna(claims["gain"]).assign_attrs(gain["gain"].attrs)), warnings


def split_read_noise(read: xr.Dataset, gain: xr.Dataset, *, within: float = INVARIANT_WITHIN) -> xr.Dataset:
    """Split the read noise into what arises before the amplifier and after it, from its change with the gain.

    σ_ADU² = (σ_pre/g)² + σ_post²: what comes before is amplified with the signal, what comes after is not.  A line of
    σ_ADU² on 1/g², weighted with the errors of both.  The invariance ISO is the one at which the read noise in
    electrons has come within 5 % (`within`) of its floor σ_pre, σ_post g = σ_pre √((1 + 0.05)² − 1): raising the ISO
    beyond it takes off less than that, however far, and costs full well.  For a camera with gain settings it is such a
    setting, between two measured ones: beyond them no law is known.

    Parameters
    ----------
    read, gain
        From `read_noise` and `fit_gain`, at two settings or more.
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
    points = {name: _points(read, gain, name) for name in channels}
    names = [name for name in channels if name in GREENS]
    error = gain["gain_error"].sel(channel=names)
    together = gain.sel(channel=names).assign(gain_error=(error.dims, error_in_mean(gain.sel(channel=names))))
    greens = [_points(read, together, name) for name in names]
    whole = pd.concat(greens, ignore_index=True) if greens else pd.DataFrame(columns=_POINT, dtype=float)
    fit, fits = _split(whole), [_split(points[name]) for name in channels]
    dim = setting_dim(gain)
    invariance = _invariance(fit, whole, within, by_iso=dim == "iso")
    values = dict(zip(_SPLIT, (*fit.before, *fit.after, *invariance), strict=True))
    table = {f"noise_{name}": about for name, about in list(_SPLIT.items())[:4]}
    by_channel = np.reshape([(*one.before, *one.after) for one in fits], (-1, 4)).T
    split = {name: (units, in_words_of(dim, title)) for name, (units, title) in _SPLIT.items()}
    data = described(split, (), values) | described(table, "channel", dict(zip(table, by_channel, strict=True)))
    data["chi2"] = ((), fit.chi2, {"units": "1", "long_name": "χ² per degree of freedom"})
    attrs = {
        "within": within,
        "settings": whole["setting"].nunique(),
        "long_name": "read noise before and after the gain",
        "of": dim,
        "warnings": _split_warnings(fit, invariance, whole, dim),
    }
    return xr.Dataset(data, {"channel": channels}, attrs)


class _Split(NamedTuple):
    """Read noise before [e⁻] and after the gain [ADU] with errors; χ² per degree of freedom, and if it is too large.

    `line` is σ_ADU² on 1/g², None from one setting; `widen` is the factor in its errors.
    """

    before: tuple[float, float]
    after: tuple[float, float]
    chi2: float = np.nan
    off: bool = False
    line: StraightLine | None = None
    widen: float = 1.0


def _points(read: xr.Dataset, gain: xr.Dataset, channel: str) -> pd.DataFrame:
    """Return the settings at which a channel has both, in the columns of `_POINT`."""
    isos = gain[setting_dim(gain)].values
    noise, noise_error = (at_isos(read[f"read_noise_adu{end}"].sel(channel=channel), isos) for end in ("", "_error"))
    factor, factor_error = (at_isos(gain[f"gain{end}"].sel(channel=channel), isos) for end in ("", "_error"))
    columns = (isos, 1 / factor, factor_error / factor, noise**2, 2 * noise * noise_error)
    points = pd.DataFrame(dict(zip(_POINT, columns, strict=True)))
    good = np.isfinite(points).all(axis=1) & (points["variance"] > 0) & (points["error"] > 0)
    return points[good].reset_index(drop=True)


def _split(points: pd.DataFrame) -> _Split:
    """Fit σ² = A/g² + B; A and B are the squares of the read noise before and after the gain."""
    nothing = (np.nan, np.nan)
    if points["setting"].nunique() < 2:
        return _Split(nothing, nothing)
    _, inverse, relative, y, error = points.to_numpy().T
    x = inverse**2
    slope = float((y / x).min())
    for _ in range(_ROUNDS):
        weight = 1 / (error**2 + (slope * 2 * x * relative) ** 2)
        line = fit_line(x, y, weight)
        slope = float(line.slope)
    degrees = x.size - 2
    chi2 = float((weight * (y - line.intercept - line.slope * x) ** 2).sum())
    widen, off = misfit(chi2, degrees)
    covariance = line.covariance * widen**2
    # a root is given where its square is above zero by two errors
    before, after = (
        (np.sqrt(square), doubt / (2 * np.sqrt(square))) if square > 2 * doubt else nothing
        for square, doubt in zip(line[:2], np.sqrt(np.diag(covariance)), strict=True)
    )
    return _Split(before, after, chi2 / degrees if degrees else np.nan, off, line, widen)


def _invariance(fit: _Split, points: pd.DataFrame, within: float, *, by_iso: bool) -> tuple[float, float]:
    """Return the setting from which nothing is gained, and its error: each point moved by its own, one at a time.

    A gain that is off moves the read noise in electrons and the place of that gain together.
    """
    value = _invariant_at(fit, points, within, by_iso=by_iso)
    if not np.isfinite(value):
        return np.nan, np.nan
    squares = 0.0
    for row in points.index:
        for column, error in (("variance", "error"), ("inverse", "relative")):
            step = points.at[row, error] * (points.at[row, "inverse"] if column == "inverse" else 1)
            for sign in (1, -1):  # the other side, where this one leads beyond the settings measured
                moved = points.copy()
                moved.at[row, column] += sign * step
                off = _invariant_at(_split(moved), moved, within, by_iso=by_iso) - value
                if np.isfinite(off):
                    break
            squares += off**2
    error = fit.widen * np.sqrt(squares)
    return (float(np.exp(value)), float(np.exp(value) * error)) if by_iso else (value, float(error))


def _invariant_at(fit: _Split, points: pd.DataFrame, within: float, *, by_iso: bool) -> float:
    """Return the setting, or ln ISO, at which σ_post g = σ_pre √((1 + within)² − 1).

    ln g is a straight line in ln ISO around it, or in the gain setting between two measured ones.
    """
    if fit.line is None or not (np.isfinite(fit.before[0]) and np.isfinite(fit.after[0])):
        return np.nan
    log_gain = 0.5 * np.log(fit.line.slope / fit.line.intercept * ((1 + within) ** 2 - 1))
    mean = np.log(points["inverse"]).groupby(points["setting"]).mean()
    place, known = mean.index.to_numpy(float), -mean.to_numpy()  # ln g, falling
    place = np.log(place) if by_iso else place
    if known[0] >= log_gain >= known[-1]:
        at = int(np.clip(np.searchsorted(-known, -log_gain) - 1, 0, known.size - 2))
        power = (known[at + 1] - known[at]) / (place[at + 1] - place[at])
        start, base = place[at], known[at]
    elif by_iso:
        line = fit_line(place, known)
        power, start, base = line.slope, line.centre, known.mean()
    else:
        return np.nan
    return float(start + (log_gain - base) / power) if power < 0 else np.nan


def _split_warnings(fit: _Split, invariance: tuple[float, float], points: pd.DataFrame, dim: str) -> list[str]:
    setting = TITLES[dim]
    if fit.line is None:
        among = "the lowest and ISO 1600" if dim == "iso" else "the lowest and one close to the highest"
        return [
            f"read noise before and after the gain cannot be separated at one {setting}; shoot bias frames and pairs "
            f"of flats at three settings or more, {among} among them"
        ]
    warnings = []
    low, high = points["setting"].min(), points["setting"].max()
    if fit.off:
        warnings.append(
            f"the read noise does not follow one law of gain over the {setting}s (χ² is {fit.chi2:.1f} times what "
            "it should be), so the errors of its split are widened; cameras that switch their conversion gain, or "
            f"multiply numbers above some {'ISO' if dim == 'iso' else setting}, do this"
        )
    if np.isnan(fit.before[0]):
        warnings.append(f"read noise before the gain is lost in that after it: measure higher {setting}s as well")
    elif np.isnan(fit.after[0]):
        warnings.append(
            f"read noise after the gain is not seen from {describe({dim: low})} on: nothing is gained by a higher "
            "setting, as far as these frames show; more bias frames at the lowest one would show it"
        )
    elif np.isfinite(invariance[0]) and not low <= invariance[0] <= high:
        warnings.append(
            f"the ISO from which nothing is gained, {invariance[0]:.0f}, lies outside the measured settings "
            f"({low:g} to {high:g}); measure some on both sides"
        )
    return warnings
