"""Saturation and full well, from the bright end of a photon transfer curve."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from ..core.selection import at_iso, describe, same_iso

_PLATEAU_SATURATED = 0.999  # share of pixels at the highest code of a level that is saturated all over
_PLATEAU_VARIANCE = 0.003  # of the shot noise that a level would have; what is left of it where the wells are full
_ENOUGH_LIGHT = 0.5  # of the stated white level: fainter flats say nothing about how it ends
_LEAST_ERROR = 0.01  # of a saturation that is only bracketed


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
    shape = (isos.size, len(channels))
    found: dict[str, Any] = {name: np.full(shape, np.nan) for name in _VARIABLES}
    found |= {name: np.full(shape, "", object) for name in _WORDS}
    faint = []
    for row, iso in enumerate(isos):
        where = np.flatnonzero(same_iso(ptc["iso"].values, iso))
        factor, factor_error = (at_iso(gain[name], iso) for name in ("gain", "gain_error"))
        for column in range(len(channels)):
            one = _end(ptc, where, column, factor[column])
            one["full_well"] = one["saturation"] * factor[column]
            one["full_well_error"] = np.hypot(
                one["saturation_error"] * factor[column], one["saturation"] * factor_error[column]
            )
            for name, value in one.items():
                found[name][row, column] = value
        if where.size and np.isnan(found["saturation"][row]).all():
            faint.append(describe({"iso": iso}))
    warnings = []
    if faint:
        warnings.append(
            f"the flats at {', '.join(faint)} end too far below saturation to tell the full well; shoot a pair several "
            "times overexposed"
        )
    data = {name: (("iso", "channel"), found[name], attrs) for name, attrs in (_VARIABLES | _WORDS).items()}
    coords = {"iso": ("iso", isos, {"long_name": "ISO setting"}), "channel": channels}
    return xr.Dataset(
        data, coords, {"camera": ptc.attrs["camera"], "long_name": "saturation and full well", "warnings": warnings}
    )


_VARIABLES = {
    "saturation": {"units": "ADU", "long_name": "saturation above the black level"},
    "saturation_error": {"units": "ADU", "long_name": "error of the saturation"},
    "full_well": {"units": "e-", "long_name": "full well"},
    "full_well_error": {"units": "e-", "long_name": "error of the full well"},
    "brightest": {"units": "ADU", "long_name": "brightest strip above the black level"},
}
_WORDS = {"method": {"long_name": "how saturation was found"}, "limit": {"long_name": "what saturates"}}


def _end(ptc: xr.Dataset, pairs: np.ndarray, column: int, gain: float) -> dict[str, Any]:
    """Find the saturation of one ISO and channel."""
    one: dict[str, Any] = dict.fromkeys(_VARIABLES, np.nan) | dict.fromkeys(_WORDS, "")
    if not pairs.size:
        return one
    part = {name: ptc[name].values[pairs, column] for name in _NEEDED}
    black, signal = part["black_level"], part["signal"]
    sums = ptc["sums_plain"].values[pairs, column]  # (pair, block, moment)
    some = sums[..., 0] > 0
    strips = np.where(some, (sums[..., 1] + sums[..., 2]) / 2 / np.where(some, sums[..., 0], 1), -np.inf)
    brightest = float((strips.max(axis=1) - black).max())
    room = float(ptc.attrs["white_level"]) - float(black.max())
    one["brightest"] = brightest
    dark = np.nan_to_num(part["dark_variance"])
    # a wrong or missing gain would only move a threshold that is far from either side
    shot = signal / gain if np.isfinite(gain) and gain > 0 else part["variance"].max() * signal / signal.max()
    full = part["saturated_fraction"] > _PLATEAU_SATURATED
    quiet = (part["variance_plain"] < 3 * dark + 1 / 12 + _PLATEAU_VARIANCE * shot) & (shot > 30 * (dark + 1 / 12))
    plateau = (full | quiet) & (signal > 0.9 * signal.max())
    if plateau.any():
        levels = signal[plateau]
        wander = max(float(levels.std()), float(np.nan_to_num(part["black_scatter"]).max()) / np.sqrt(2 * levels.size))
        one["saturation"] = float(levels.mean())
        one["saturation_error"] = float(np.hypot(wander, part["black_level_error"].max()))
        one["method"] = "plateau"
        one["limit"] = "converter" if full[plateau].all() else "well"
        return one
    variance, error = part["variance"], part["variance_error"]
    peak = int(np.argmax(variance))
    fallen = (signal > signal[peak]) & (variance < 0.9 * variance[peak] - 4 * np.hypot(error, error[peak]))
    clipped = (part["saturated_fraction"] > 1e-3).any()
    if fallen.any() and not (clipped and brightest > 0.9 * room):
        value, low = brightest, float(signal[peak])
        one |= {"method": "peak", "limit": "" if clipped else "well"}
    elif np.isfinite(room) and brightest > _ENOUGH_LIGHT * room:
        value, low = room, min(brightest, room)
        one |= {"method": "white level", "limit": "converter" if clipped else ""}
    else:
        return one
    one["saturation"] = value
    one["saturation_error"] = max((value - low) / np.sqrt(3), _LEAST_ERROR * value)
    return one


_NEEDED = (
    "black_level", "black_level_error", "black_scatter", "signal", "variance", "variance_error", "variance_plain",
    "dark_variance", "saturated_fraction",
)  # fmt: skip
