"""Dark current against temperature: the doubling law."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy import optimize, special

from .gain import MISFIT
from .selection import describe

_NO_THERMOMETER = 0.5  # K: what stated temperatures may be off without a word


def dark_law(dark_current: xr.Dataset) -> xr.Dataset:
    """Fit D = D_ref 2^((T − T_ref)/T_d) to dark currents at two temperatures or more.

    D is the mean over the pixels that saturate at none of the temperatures (the hottest would otherwise be in the cold
    settings only).  Least squares of D, not of its logarithm, so that noisy cold settings count without bias.  The
    error of a gain is shared by all settings of its ISO: it moves D_ref, and T_d only where ISO and temperature go
    together.  From three temperatures on the fit is tested; where χ² says that the law does not hold (p < 0.01) the
    errors are widened, and a warning names the setting that is most off if that is by more than 0.5 K.  T_ref is the
    mean temperature, rounded to whole degrees.

    Parameters
    ----------
    dark_current
        From `dark_current`, over setting.

    Returns
    -------
    xarray.Dataset
        Scalars ``doubling_temperature`` [K] and ``dark_current_reference`` [e⁻/s/pixel], each with ``_error``;
        ``reference_temperature`` [°C]; ``chi2`` per degree of freedom.  NaN, with a warning, where temperatures are
        lacking or the dark current does not rise.

    Examples
    --------
    >>> current = xr.Dataset(
    ...     {"dark_current": ("setting", [0.1, 0.4]), "dark_current_error": ("setting", [0.002, 0.005]),
    ...      "dark_current_scatter": ("setting", [0.001, 0.004])},
    ...     {"iso": ("setting", [200.0, 200.0]), "temperature": ("setting", [8.0, 20.0])})
    >>> law = dark_law(current)
    >>> round(law.doubling_temperature.item(), 3), round(law.doubling_temperature_error.item(), 2)
    (6.0, 0.06)
    """
    pixels = "dark_current_common" if "dark_current_common" in dark_current else "dark_current"
    names = ("iso", "temperature", pixels, "dark_current_error", "dark_current_scatter")
    iso, temperature, value, error, scatter = (np.asarray(dark_current[name].values, float) for name in names)
    good = np.isfinite(temperature) & np.isfinite(value) & (scatter > 0) & np.isfinite(error)
    iso, temperature, value, error, scatter = (part[good] for part in (iso, temperature, value, error, scatter))
    distinct = np.unique(temperature)
    if distinct.size < 2:
        there = ", ".join(f"{t:g} °C" for t in distinct) or "none"
        return _law(warnings=[f"a doubling temperature needs dark current at two temperatures or more ({there} here)"])
    reference = float(np.round(temperature.mean()))
    start = _start(temperature, value, scatter, reference)
    if start is None:
        return _law(
            reference=reference,
            warnings=[
                "the dark current does not rise with temperature beyond its error, so there is no doubling "
                "temperature; check the temperatures that the darks state"
            ],
        )
    # One factor an ISO for the error of its gain, known to be 1 ± its relative error.
    isos, which = np.unique(np.where(np.isnan(iso), -1, iso), return_inverse=True)
    by_gain = np.sqrt(np.maximum(error**2 - scatter**2, 0)) / np.abs(value)
    spread = np.array([by_gain[which == number].mean() for number in range(isos.size)])
    shared = spread > 0

    def model(parameters: np.ndarray) -> np.ndarray:
        factor = np.ones(isos.size)
        factor[shared] += spread[shared] * parameters[2:]
        return np.exp(parameters[0] + parameters[1] * (temperature - reference)) * factor[which]

    def misfit(parameters: np.ndarray) -> np.ndarray:
        return np.concatenate([(value - model(parameters)) / scatter, parameters[2:]])

    fit = optimize.least_squares(misfit, np.concatenate([start, np.zeros(shared.sum())]), x_scale="jac")
    covariance = np.linalg.pinv(fit.jac.T @ fit.jac)
    degrees = value.size - 2
    chi2 = float(2 * fit.cost)
    widen, warnings = 1.0, []
    if degrees > 0 and special.chdtrc(degrees, chi2) < MISFIT:
        widen = np.sqrt(chi2 / degrees)
        worst = int(np.argmax(np.abs(misfit(fit.x)[: value.size])))
        setting = {"iso": iso[worst], "temperature": temperature[worst]}
        warmer = np.log(max(value[worst], 1e-300) / model(fit.x)[worst]) / fit.x[1]
        if abs(warmer) > _NO_THERMOMETER:
            warnings.append(
                f"the dark currents do not lie on one doubling law within their errors: at {describe(setting)} it is "
                f"as if the sensor were {abs(warmer):.2g} K {'warmer' if warmer > 0 else 'colder'} than stated; the "
                "law's errors are widened"
            )
    rate = fit.x[1]  # ln 2 / T_d
    doubling = np.log(2) / rate
    rate_error = widen * np.sqrt(covariance[1, 1])
    if not rate > 2 * rate_error:
        return _law(
            reference=reference,
            warnings=[
                "the dark current does not rise with temperature beyond its error, so there is no doubling "
                "temperature; shoot longer darks, or at temperatures further apart"
            ],
        )
    start_value = np.exp(fit.x[0])
    return _law(
        doubling,
        doubling * rate_error / rate,
        reference,
        start_value,
        start_value * widen * np.sqrt(covariance[0, 0]),
        chi2 / degrees if degrees > 0 else np.nan,
        warnings,
    )


def _start(temperature: np.ndarray, value: np.ndarray, scatter: np.ndarray, reference: float) -> np.ndarray | None:
    """Return ln D_ref and ln 2/T_d of a line through the logarithms that are well known."""
    known = value > 2 * scatter
    if np.unique(temperature[known]).size < 2:
        return None
    x, y, weight = temperature[known] - reference, np.log(value[known]), value[known] / scatter[known]
    offset, slope = np.polynomial.polynomial.polyfit(x, y, 1, w=weight)
    return np.array([offset, slope]) if slope > 0 else None


def _law(
    doubling: float = np.nan,
    doubling_error: float = np.nan,
    reference: float = np.nan,
    start: float = np.nan,
    start_error: float = np.nan,
    chi2: float = np.nan,
    warnings: list[str] | None = None,
) -> xr.Dataset:
    values = {
        "doubling_temperature": (doubling, "K", "doubling temperature"),
        "doubling_temperature_error": (doubling_error, "K", "error of the doubling temperature"),
        "reference_temperature": (reference, "°C", "reference temperature"),
        "dark_current_reference": (start, "e-/s", "dark current at the reference temperature"),
        "dark_current_reference_error": (start_error, "e-/s", "error of the dark current at the reference temperature"),
        "chi2": (chi2, "1", "χ² per degree of freedom"),
    }
    data = {
        name: ((), float(value), {"units": units, "long_name": text}) for name, (value, units, text) in values.items()
    }
    return xr.Dataset(data, attrs={"long_name": "doubling law of the dark current", "warnings": warnings or []})
