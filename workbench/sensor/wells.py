"""Where photon transfer ends: saturation and full well, and the dynamic range."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from ..core.pairs import CLIPPED_FRACTION, QUANTISATION_VARIANCE
from ..core.results import Table, at_iso, per_channel, same_setting, with_errors
from ..core.settings import setting_dim
from ..core.values import describe

_PLATEAU_SATURATED = 0.999  # share of pixels at the highest code of a level that is saturated all over
_PLATEAU_VARIANCE = 0.003  # of the shot noise that a level would have; what is left of it where the wells are full
_ENOUGH_LIGHT = 0.5  # of the stated white level: fainter flats do not show how it ends
_LEAST_ERROR = 0.01  # of a saturation that is only bracketed
_WELLS: Table = {
    **with_errors({"saturation": ("adu", "saturation above the black level"), "full_well": ("electron", "full well")}),
    "brightest": ("adu", "brightest strip above the black level"),
    "method": ("", "how saturation was found"),
    "limit": ("", "what saturates"),
}


def full_well(ptc: xr.Dataset, gain: xr.Dataset) -> xr.Dataset:
    """Find where each setting and channel saturates, in ADU and in electrons.

    ``plateau``: the mean of flats so bright that every pixel is at its limit, be it the converter's highest code or
    full wells, where the photon noise is gone; its error is the scatter of those means and the black level's.
    ``peak``: the variance breaks down but no flat is saturated all over; the end lies above the level of the greatest
    variance (EMVA 1288's saturation) and is taken at the brightest strip of the brightest flat.  The error is the
    standard deviation of an end that is anywhere in between.  ``bound``: no flat shows the end; it lies above the
    brightest strip, which is stated as a lower bound, with an infinite error, in electrons with the least gain that two
    errors allow.

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
    dim, channels = setting_dim(gain), gain["channel"].values.tolist()
    rows, faint = [], []
    for setting in gain[dim].values:
        where = np.flatnonzero(same_setting(ptc[dim].values, setting))
        factor, factor_error = (at_iso(gain[name], setting) for name in ("gain", "gain_error"))
        rows.append([_saturation(ptc, where, column, factor[column]) for column in range(len(channels))])
        for one, value, error in zip(rows[-1], factor, factor_error, strict=True):
            level, doubt = (one.get(name, np.nan) for name in ("saturation", "saturation_error"))
            least = value - 2 * np.nan_to_num(error) if np.isinf(doubt) else value
            one |= {"full_well": level * least, "full_well_error": np.hypot(doubt * value, level * error)}
        if where.size and not any("saturation" in one for one in rows[-1]):
            faint.append(describe({dim: setting}))
    warnings = []
    if faint:
        warnings.append(
            f"the flats at {', '.join(faint)} end too far below saturation to show the full well; shoot a pair several "
            "times overexposed"
        )
    attrs = {"camera": ptc.attrs["camera"], "long_name": "saturation and full well", "warnings": warnings}
    return per_channel(_WELLS, rows, {dim: gain[dim].values}, channels, **attrs)


def _saturation(ptc: xr.Dataset, pairs: np.ndarray, column: int, gain: float) -> dict[str, Any]:
    """Find the saturation of one setting and channel."""
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
    rounding = QUANTISATION_VARIANCE * max(ptc.attrs.get("step", 1), 1) ** 2
    dark = np.nan_to_num(curve["dark_variance"].values) + rounding
    # a wrong or missing gain would only move a threshold that is far from either side
    shot = signal / gain if np.isfinite(gain) and gain > 0 else variance.max() * signal / signal.max()
    full = saturated > _PLATEAU_SATURATED
    quiet = (plain < 3 * dark - 2 * rounding + _PLATEAU_VARIANCE * shot) & (shot > 30 * dark)
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
        doubt = max((brightest - float(signal[peak])) / np.sqrt(3), _LEAST_ERROR * brightest)
        ends = {"saturation": brightest, "saturation_error": doubt}
        return ends | {"brightest": brightest, "method": "peak", "limit": "" if clipped else "well"}
    if np.isfinite(room) and brightest > _ENOUGH_LIGHT * room:
        ends = {"saturation": min(brightest, room), "saturation_error": np.inf}
        return ends | {"brightest": brightest, "method": "bound", "limit": "converter" if clipped else ""}
    return {"brightest": brightest}


def dynamic_range(read: xr.Dataset, wells: xr.Dataset) -> xr.Dataset:
    """Return the dynamic range of every setting and channel: full well over read noise, log₂ of it in stops.

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
    dim = setting_dim(wells)
    settings = [one for one in wells[dim].values if np.isfinite(at_iso(read["read_noise_adu"], one)).any()]
    channels = wells["channel"].values.tolist()
    read = read.reindex(channel=channels)
    rows = []
    for setting in settings:
        top, top_error = (at_iso(wells[name], setting) for name in ("saturation", "saturation_error"))
        noise, noise_error = (at_iso(read[name], setting) for name in ("read_noise_adu", "read_noise_adu_error"))
        value = np.log2(top / np.where(noise > 0, noise, np.nan))
        error = np.hypot(top_error / top, noise_error / noise) / np.log(2)
        rows.append([{"dynamic_range": v, "dynamic_range_error": e} for v, e in zip(value, error, strict=True)])
    table = with_errors({"dynamic_range": ("bit", "dynamic range")})
    attrs = {"camera": wells.attrs["camera"], "long_name": "dynamic range"}
    return per_channel(table, rows, {dim: settings}, channels, **attrs)
