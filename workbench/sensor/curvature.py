"""The bend of a photon transfer curve: what the brighter-fatter effect takes from the variance."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from ..core.pairs import jackknife_error, leave_one_out, pair_weight
from ..core.selection import describe, same_iso
from .gain import Curve, curve_of, levels_of, pairs_to_fit, scaled_pairs

_FEWEST = 3  # light levels with known read noise: slope, bend and one to spare
_STEPS = 12  # of Gauss and Newton; 1e-10 after six
_TELLING = 3.0  # errors from which a bend is told


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
        light levels or no bias frames; ``attrs["warnings"]`` tells a bend beyond three errors in most channels.
    """
    isos = np.unique(np.asarray(ptc["iso"].values, float))
    channels = ptc["channel"].values.tolist()
    found = {name: np.full((isos.size, len(channels)), np.nan) for name in _VARIABLES}
    warnings = []
    for row, iso in enumerate(isos):
        where = np.flatnonzero(same_iso(ptc["iso"].values, iso))
        bent = []
        for column, channel in enumerate(channels):
            one = _one(curve_of(ptc, where, column))
            for name, value in one.items():
                found[name][row, column] = value
            if abs(one.get("curvature", 0.0)) > _TELLING * one.get("curvature_error", np.inf):
                bent.append(f"{channel}: {one['bend']:+.1f} % at the brightest level")
        # one channel in hundreds bends by chance; all of them do where the sensor does
        if len(bent) > len(channels) / 2:
            warnings.append(
                f"the photon transfer curve at {describe({'iso': iso})} bends ({', '.join(bent)}), as bright pixels "
                "that push charge to their neighbours make it: the gain of a straight line is then off, gain_curved is "
                "not"
            )
    data: dict[str, Any] = {name: (("iso", "channel"), found[name], attrs) for name, attrs in _VARIABLES.items()}
    coords = {"iso": ("iso", isos, {"long_name": "ISO setting"}), "channel": channels}
    return xr.Dataset(data, coords, {"camera": ptc.attrs["camera"], "long_name": "curvature", "warnings": warnings})


_VARIABLES = {
    "curvature": {"units": "1/e-", "long_name": "curvature a of the photon transfer curve"},
    "curvature_error": {"units": "1/e-", "long_name": "error of the curvature"},
    "gain_curved": {"units": "e-/ADU", "long_name": "gain, bend allowed for"},
    "gain_curved_error": {"units": "e-/ADU", "long_name": "error of the gain, bend allowed for"},
    "bend": {"units": "%", "long_name": "change of the variance at the brightest level"},
    "bend_error": {"units": "%", "long_name": "error of that change"},
    "levels_used": {"units": "1", "long_name": "light levels used"},
}


def _one(curve: Curve) -> dict[str, float]:
    which, problem = pairs_to_fit(curve)
    if problem:
        return {"levels_used": 0}
    curve = {name: values[which] for name, values in curve.items()}
    level = levels_of(curve)
    count = int(level.max()) + 1
    read = curve["dark_variance"]
    if count < _FEWEST or not (np.isfinite(read).all() and (read > 0).all()):
        return {"levels_used": count}
    pairs = np.bincount(level)
    sums, black = curve["sums"], curve["black_level"]
    worth = sums[..., 0].sum(axis=1) * np.array([pair_weight(2 if pairs[i] == 1 else pairs[i]) for i in level])
    whole = _solve(*scaled_pairs(sums.sum(axis=1), black), read, worth)
    parts = scaled_pairs(leave_one_out(sums, axis=1), black[:, None])
    without = _solve(*(np.moveaxis(part, 1, 0) for part in parts), read, worth)
    brightest = curve["signal"].max()

    def quantities(slope: np.ndarray, bend: np.ndarray) -> dict[str, np.ndarray]:
        change = np.expm1(bend * brightest) / (bend * brightest) - 1
        return {"curvature": bend * slope / 2, "gain_curved": 1 / slope, "bend": 100 * change}

    values, replicates = quantities(*whole), quantities(*without)
    one = {name: float(value) for name, value in values.items()}
    one |= {f"{name}_error": float(jackknife_error(part)) for name, part in replicates.items()}
    return one | {"levels_used": count}


def _solve(
    x: np.ndarray, q: np.ndarray, y: np.ndarray, read: np.ndarray, worth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fit y − R q = s (e^{bx} − 1)/b along the last axis; return s = 1/g and b = 2ag."""
    y = y - read * q
    slope = (x * y).sum(-1, keepdims=True) / (x * x).sum(-1, keepdims=True)
    bend = np.full_like(slope, -1e-9)  # not zero, so that the quotient stands
    for _ in range(_STEPS):
        grown = np.expm1(bend * x)
        by_slope = grown / bend
        by_bend = slope * np.where(
            np.abs(bend * x) < 1e-4, x * x / 2 + bend * x**3 / 3, (x * (grown + 1) - grown / bend) / bend
        )
        model = slope * by_slope
        weight = worth / np.square(np.maximum(model + read * q, 0.1 * np.abs(slope) * x))
        residual = y - model
        ss, sb, bb = ((weight * a * b).sum(-1, keepdims=True) for a, b in _products(by_slope, by_bend))
        rs, rb = ((weight * residual * a).sum(-1, keepdims=True) for a in (by_slope, by_bend))
        determinant = ss * bb - sb**2
        slope = slope + (rs * bb - rb * sb) / determinant
        bend = bend + (rb * ss - rs * sb) / determinant
        bend = np.where(np.abs(bend) < 1e-12, -1e-12, bend)
    return slope[..., 0], bend[..., 0]


def _products(a: np.ndarray, b: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    return (a, a), (a, b), (b, b)
