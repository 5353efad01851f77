"""Read noise before and after the gain, the ISO from which nothing is gained, and the dynamic range."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from scipy import special

from ..core.selection import at_iso
from .gain import MISFIT, MISFIT_TO_TELL

INVARIANT_WITHIN = 0.05  # of the floor: what raising the ISO any further could still take off the read noise
_ROUNDS = 8  # of reweighting


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
    fits = {name: _fit(points[name]) for name in channels}
    together = [name for name in channels if name in ("G1", "G2", "mono")]
    whole = np.concatenate([points[name] for name in together], axis=1) if together else np.empty((5, 0))
    fit, warnings = _fit(whole), []
    invariance = _invariance(fit, whole, within)
    settings = np.unique(whole[0]).size
    if settings < 2:
        warnings.append(
            "read noise before and after the gain cannot be told apart from one ISO setting; shoot bias frames and "
            "pairs of flats at three settings or more, the lowest and ISO 1600 among them"
        )
    else:
        warnings += _doubts(fit, invariance, whole)
    data: dict[str, Any] = {}
    for key, (units, title) in _VARIABLES.items():
        for name, part, of in ((key, 0, ""), (f"{key}_error", 1, "error of the ")):
            if key != "invariance_iso":
                values = [fits[channel][key][part] for channel in channels]
                data[f"noise_{name}"] = ("channel", values, {"units": units, "long_name": f"{of}{title}"})
            value = invariance[part] if key == "invariance_iso" else fit[key][part]
            data[name] = ((), value, {"units": units, "long_name": f"{of}{title}"})
    data["chi2"] = ((), fit["chi2"], {"units": "1", "long_name": "χ² per degree of freedom"})
    attrs = {"within": within, "settings": settings, "long_name": "read noise before and after the gain"}
    return xr.Dataset(data, {"channel": channels}, attrs | {"warnings": warnings})


_VARIABLES = {
    "before_gain": ("e- rms", "read noise before the gain"),
    "after_gain": ("ADU rms", "read noise after the gain"),
    "invariance_iso": ("ISO", "ISO from which nothing is gained"),
}
Fit = dict[str, Any]


def _points(read: xr.Dataset, gain: xr.Dataset, channels: list[str]) -> list[np.ndarray]:
    """Return of each channel, as rows: ISO, 1/g, its relative error, σ_ADU² and its error."""
    isos = gain["iso"].values
    values = []
    for part, names in ((read, ("read_noise_adu", "read_noise_adu_error")), (gain, ("gain", "gain_error"))):
        here = part[list(names)].sel(channel=channels)
        values += [np.array([at_iso(here[name], iso) for iso in isos]).reshape(isos.size, -1).T for name in names]
    result = []
    for noise, noise_error, factor, factor_error in zip(*values, strict=True):
        rows = np.stack([isos, 1 / factor, factor_error / factor, noise**2, 2 * noise * noise_error])
        result.append(rows[:, np.isfinite(rows).all(axis=0) & (rows[3] > 0) & (rows[4] > 0)])
    return result


def _fit(points: np.ndarray) -> Fit:
    """Fit σ² = A/g² + B; A and B are the squares of what is wanted."""
    iso, inverse, relative, variance, error = points
    nothing = (np.nan, np.nan)
    if np.unique(iso).size < 2:
        return {"before_gain": nothing, "after_gain": nothing, "chi2": np.nan, "covariance": None}
    x = inverse**2
    slope = float((variance / x).min())
    for _ in range(_ROUNDS):
        weight = 1 / (error**2 + (slope * 2 * x * relative) ** 2)
        total, sx, sy = weight.sum(), (weight * x).sum(), (weight * variance).sum()
        sxx, sxy = (weight * x * x).sum(), (weight * x * variance).sum()
        determinant = total * sxx - sx**2
        slope, level = (total * sxy - sx * sy) / determinant, (sxx * sy - sx * sxy) / determinant
    covariance = np.array([[total, -sx], [-sx, sxx]]) / determinant
    degrees = x.size - 2
    chi2 = float((weight * (variance - level - slope * x) ** 2).sum())
    chance = special.chdtrc(degrees, chi2) if degrees else 1.0
    if chance < MISFIT:
        covariance *= max(1.0, chi2 / degrees)
    found: Fit = {"chi2": chi2 / degrees if degrees else np.nan, "chance": chance, "squares": np.array([slope, level])}
    for key, square, spread in zip(_VARIABLES, found["squares"], np.sqrt(np.diag(covariance)), strict=False):
        # a root is told where its square is above zero by two errors
        found[key] = (np.sqrt(square), spread / (2 * np.sqrt(square))) if square > 2 * spread else nothing
    return found | {"covariance": covariance}


def _invariance(fit: Fit, points: np.ndarray, within: float) -> tuple[float, float]:
    """Return the ISO at which σ_post g = σ_pre √((1 + within)² − 1), by the power law of the gain around it."""
    if not (np.isfinite(fit["before_gain"][0]) and np.isfinite(fit["after_gain"][0])):
        return np.nan, np.nan
    square, after = fit["squares"]
    log_gain = 0.5 * np.log(square / after * ((1 + within) ** 2 - 1))
    isos = np.unique(points[0])
    known = np.array([-np.log(points[1][points[0] == iso]).mean() for iso in isos])  # ln g, falling
    log_iso = np.log(isos)
    at = int(np.clip(np.searchsorted(-known, -log_gain) - 1, 0, isos.size - 2))
    if known[0] >= log_gain >= known[-1]:
        power = (known[at + 1] - known[at]) / (log_iso[at + 1] - log_iso[at])
        start, base = log_iso[at], known[at]
    else:
        power, base = np.polyfit(log_iso - log_iso.mean(), known, 1)
        start = log_iso.mean()
    if not power < 0:
        return np.nan, np.nan
    value = float(np.exp(start + (log_gain - base) / power))
    lever = np.array([0.5 / square, -0.5 / after])
    return value, float(value / abs(power) * np.sqrt(lever @ fit["covariance"] @ lever))


def _doubts(fit: Fit, invariance: tuple[float, float], points: np.ndarray) -> list[str]:
    warnings = []
    low, high = points[0].min(), points[0].max()
    if fit["chance"] < MISFIT_TO_TELL:
        warnings.append(
            f"the read noise does not follow one law of gain over the ISO settings (χ² is {fit['chi2']:.1f} times what "
            "it should be), so the errors of its split are widened; cameras that switch their conversion gain, or "
            "multiply numbers above some ISO, do this"
        )
    if np.isnan(fit["before_gain"][0]):
        warnings.append("read noise before the gain is lost in that after it: measure higher ISO settings as well")
    elif np.isnan(fit["after_gain"][0]):
        warnings.append(
            f"read noise after the gain is not seen from ISO {low:g} on: nothing is gained by a higher setting, as far "
            "as these frames tell; more bias frames at the lowest ISO would show it"
        )
    elif np.isfinite(invariance[0]) and not low <= invariance[0] <= high:
        warnings.append(
            f"the ISO from which nothing is gained, {invariance[0]:.0f}, lies outside the measured settings "
            f"({low:g} to {high:g}); measure some on both sides"
        )
    return warnings


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
    value, error = np.full((2, len(isos), len(channels)), np.nan)
    for row, iso in enumerate(isos):
        top, top_error = (at_iso(wells[name], iso) for name in ("saturation", "saturation_error"))
        noise, noise_error = (at_iso(read[name], iso) for name in ("read_noise_adu", "read_noise_adu_error"))
        value[row] = np.log2(top / np.where(noise > 0, noise, np.nan))
        error[row] = np.hypot(top_error / top, noise_error / noise) / np.log(2)
    dims = ("iso", "channel")
    data = {
        "dynamic_range": (dims, value, {"units": "stops", "long_name": "dynamic range"}),
        "dynamic_range_error": (dims, error, {"units": "stops", "long_name": "error of the dynamic range"}),
    }
    coords = {"iso": ("iso", isos, {"long_name": "ISO setting"}), "channel": channels}
    return xr.Dataset(data, coords, {"camera": wells.attrs["camera"], "long_name": "dynamic range"})
