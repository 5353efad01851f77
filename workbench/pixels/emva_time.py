"""The temporal half of EMVA 1288 (release 4.0, linear), from a table of means and variances.

A table has one row a light level: exposure, light, mean and temporal variance of the illuminated pair, and of the
dark pair of the same exposure.  `emva_points` makes it from images.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from ..core.errors import WorkbenchError

QUANTISATION = 1 / 12  # variance of rounding to whole numbers [DN²]
_FLOOR = 0.24  # DN²: a smaller dark variance is hidden by the rounding
_SENSITIVITY = 0.7  # of saturation: the gain is fitted up to here
_LINEAR = (0.05, 0.95)  # of saturation: between these the linearity error is taken


def fit_emva_gain(mean: ArrayLike, variance: ArrayLike, mean_dark: ArrayLike, variance_dark: ArrayLike) -> xr.Dataset:
    """Fit the system gain K as the standard does.

    K is the slope of (σ²_y − σ²_dark) on (μ_y − μ_dark), through the origin, unweighted, over the levels up to 70 % of
    saturation, which is the level where the variance is greatest (EMVA 1288 release 4.0 linear, section 6.6): the
    brightest one whose variance exceeds that of the two levels below it, so that a dip by chance ends no climb.

    Parameters
    ----------
    mean, variance
        Of the illuminated pairs, one a level, rising [ADU, ADU²].
    mean_dark, variance_dark
        Of the dark pairs of the same exposures.

    Returns
    -------
    xarray.Dataset
        Scalars ``system_gain`` K [ADU/e⁻], ``gain`` 1/K [e⁻/ADU], ``saturation`` [ADU], the level of the greatest
        variance; over level ``used``.

    Raises
    ------
    WorkbenchError
        If the columns differ in length, or nothing lies below saturation.

    Examples
    --------
    >>> mean = np.array([100.0, 200, 300, 400, 500])
    >>> result = fit_emva_gain(mean, [29, 54, 79, 104, 2], np.full(5, 20.0), np.full(5, 9.0))
    >>> result.system_gain.item(), int(result.used.sum())
    (0.25, 2)
    """
    level, noise, dark, dark_noise = _columns(mean, variance, mean_dark, variance_dark)
    top = saturation_index(noise)
    used = _below(level - dark, top, _SENSITIVITY)
    gain = _through_origin((level - dark)[used], (noise - dark_noise)[used])
    return xr.Dataset(
        {
            "system_gain": ((), gain, {"units": "ADU/e-", "long_name": "system gain K"}),
            "gain": ((), 1 / gain, {"units": "e-/ADU", "long_name": "gain"}),
            "saturation": ((), level[top], {"units": "ADU", "long_name": "level of the greatest variance"}),
            "used": ("level", used, {"long_name": "levels that the fit used"}),
        }
    )


def emva_dark_current(exposure: ArrayLike, mean_dark: ArrayLike, system_gain: float) -> float:
    """Return the dark current [e⁻/s/pixel]: the slope of the dark mean [ADU] over exposure [s], divided by K [ADU/e⁻].

    An unweighted line, by EMVA 1288 release 4.0 linear, section 7.1.

    Examples
    --------
    >>> round(emva_dark_current([1, 2, 3], [15, 15.5, 16], 0.25), 12)
    2.0
    """
    exposure, mean_dark = np.asarray(exposure, float), np.asarray(mean_dark, float)
    if np.unique(exposure).size < 3:
        raise WorkbenchError("the standard's dark current needs darks of more than two exposures")
    return _line(exposure, mean_dark)[0] / system_gain


def emva_temporal(
    exposure: ArrayLike,
    light: ArrayLike | None,
    mean: ArrayLike,
    variance: ArrayLike,
    mean_dark: ArrayLike,
    variance_dark: ArrayLike,
    *,
    photons: bool = True,
) -> dict[str, float]:
    """Return the standard's temporal quantities under the names of its reference implementation.

    K (see `fit_emva_gain`); R, the slope of μ_y − μ_dark on the light over the same levels, through the origin;
    η = R/K; σ_y.dark² the dark variance at exposure zero (a line over more than two exposures, else the first), at
    least 0.24 DN²; σ_d = √(σ_y.dark² − 1/12)/K; μ_e.min = σ_y.dark/K + ½, μ_p.min = μ_e.min/η; μ_p.sat the light at
    saturation, μ_e.sat = η μ_p.sat; SNR_max = √μ_e.sat; DR = μ_p.sat/μ_p.min; the linearity error, greatest and least
    (y − fit)/fit from 5 to 95 % of saturation, of a line with weights 1/y²; dark current from the means (slope/K) and
    from the variances (slope/K²; up to 2015 the reference implementation gave the root of that), with more than two
    exposures (release 4.0 linear, sections 6.5 to 7.1).

    Parameters
    ----------
    exposure
        Of each level, rising [s].
    light
        Photons per pixel, or anything proportional to them; None takes the exposure (a constant lamp).
    mean, variance, mean_dark, variance_dark
        As in `fit_emva_gain` [DN, DN²].
    photons
        Whether `light` is in photons; without it what needs them (R, η, μ_p) is NaN.

    Examples
    --------
    >>> seconds = np.arange(1.0, 9)
    >>> mean = 20 + np.minimum(100 * seconds, 700)
    >>> found = emva_temporal(seconds, 800 * seconds, mean, 9 + 0.25 * (mean - 20) * (seconds < 8), np.full(8, 20.0),
    ...                       np.full(8, 9.0))
    >>> found["K"], found["QE"], found["u_e_sat"], round(found["sigma_d"], 2)
    (0.25, 50.0, 2800.0, 11.94)
    """
    columns = _columns(mean, variance, mean_dark, variance_dark)
    level, noise, dark, dark_noise = columns
    seconds = np.asarray(exposure, float)
    amount = seconds if light is None else np.asarray(light, float)
    if seconds.shape != level.shape or amount.shape != level.shape:
        raise WorkbenchError("exposure and light need one number a light level, as the means have")
    known = photons and light is not None
    signal = level - dark
    top = saturation_index(noise)
    used = _below(signal, top, _SENSITIVITY)
    gain = _through_origin(signal[used], (noise - dark_noise)[used])
    response = _through_origin(amount[used], signal[used])
    efficiency = response / gain
    exposures = np.unique(seconds).size
    dark_variance = max(_line(seconds, dark_noise)[1] if exposures > 2 else dark_noise[0], _FLOOR)
    sigma = float(np.sqrt(dark_variance))
    least = sigma / gain + 0.5
    most = efficiency * amount[top]
    found = {
        "K": gain,
        "inverse_K": 1 / gain,
        "R": response if known else np.nan,
        "QE": 100 * efficiency if known else np.nan,
        "sigma_y_dark": sigma,
        "sigma_d": float(np.sqrt(dark_variance - QUANTISATION)) / gain,
        "u_p_min": least / efficiency if known else np.nan,
        "u_e_min": least,
        "u_p_sat": amount[top] if known else np.nan,
        "u_e_sat": most,
        "SNR_max": np.sqrt(most),
        "SNR_max_dB": 10 * np.log10(most),
        "SNR_max_bit": np.log2(most) / 2,
        "inverse_SNR_max": 100 / np.sqrt(most),
        "DR": most / least,
        "DR_dB": 20 * np.log10(most / least),
        "DR_bit": np.log2(most / least),
    }
    found |= _linearity(amount, signal, top)
    found["u_I_mean"] = found["u_I_var"] = np.nan
    if exposures > 2:
        found["u_I_mean"] = _line(seconds, dark)[0] / gain
        rising = _line(seconds, dark_noise)[0]
        found["u_I_var"] = rising / gain**2 if rising >= 0 else np.nan
    found["index_u_ysat"] = top
    return {name: float(value) for name, value in found.items()}


def saturation_index(variance: np.ndarray) -> int:
    """Return the number of the level where the sensor saturates: the brightest with more variance than the two below.

    Examples
    --------
    >>> saturation_index(np.array([1.0, 2, 3, 5, 4.9, 6, 2, 0, 0]))
    5
    """
    one, two = np.roll(variance, 1), np.roll(variance, 2)
    higher = np.flatnonzero((variance > one) & (variance > two) & (np.arange(variance.size) > 1))
    return int(higher[-1]) if higher.size else int(np.argmax(variance))


def _columns(*columns: ArrayLike) -> list[np.ndarray]:
    arrays = [np.asarray(column, float) for column in columns]
    if len({column.shape for column in arrays}) > 1 or arrays[0].ndim != 1 or arrays[0].size < 2:
        raise WorkbenchError("the four columns need one number a light level each, two levels at least")
    return arrays


def _below(signal: np.ndarray, top: int, share: float) -> np.ndarray:
    """Tell the levels up to a share of saturation: all below the last one that is."""
    inside = np.flatnonzero(signal <= share * signal[top])
    if not inside.size:
        raise WorkbenchError("no light level lies below 70 % of saturation; add fainter ones")
    return np.arange(signal.size) <= inside[-1]


def _through_origin(x: np.ndarray, y: np.ndarray) -> float:
    if not (x > 0).any():
        raise WorkbenchError("the light levels do not rise above the dark: is the light on, are the columns swapped?")
    return float((x * y).sum() / (x * x).sum())


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of the unweighted line."""
    away = x - x.mean()
    slope = float((away * y).sum() / (away**2).sum())
    return slope, float(y.mean()) - slope * float(x.mean())


def _linearity(light: np.ndarray, signal: np.ndarray, top: int) -> dict[str, float]:
    """Return the least and the greatest relative deviation from the line [%]; NaN for fewer than three levels."""
    low, high = (share * signal[top] for share in _LINEAR)
    first = np.flatnonzero(signal >= low)
    last = np.flatnonzero(signal <= high)
    if not first.size or not last.size or last[-1] - first[0] < 2:
        return {"LE_min": np.nan, "LE_max": np.nan}
    x, y = light[first[0] : last[-1] + 1], signal[first[0] : last[-1] + 1]
    fit = np.polynomial.polynomial.polyfit(x / x.max(), y, 1, w=1 / y)  # weights of the residuals, so 1/y² in χ²
    line = np.polynomial.polynomial.polyval(x / x.max(), fit)
    deviation = 100 * (y - line) / line
    return {"LE_min": float(deviation.min()), "LE_max": float(deviation.max())}
