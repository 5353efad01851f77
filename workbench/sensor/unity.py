"""Unity gain, and the gain that headers state compared with the measured one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from ..core.cube import GREENS
from ..core.noise import error_in_mean, stated_gain
from ..core.results import at_iso, described, per_channel, with_errors
from ..core.settings import in_words_of, setting_dim, setting_of_table
from ..core.statistics import fit_line
from ..core.values import describe, value_text

_STATED = with_errors({"gain": ("electron / adu", "gain")})
_UNITY = with_errors({"unity_gain_iso": ("1", "unity-gain ISO")})


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
