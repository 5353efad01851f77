"""Dark current against temperature: the doubling law."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy import optimize, special

from ..statistics import t_factor
from .gain import MISFIT
from .selection import describe

_NO_THERMOMETER = 0.5  # K: what stated temperatures may be off without a word


def dark_law(dark_current: xr.Dataset) -> xr.Dataset:
    """Fit D = D_ref 2^((T − T_ref)/T_d) to dark currents at two temperatures or more.

    D is the mean over the pixels that saturate at none of the temperatures (the hottest would otherwise be in the cold
    settings only).  Least squares of D, not of its logarithm, so that noisy cold settings count without bias.  The
    errors of the gain and of the bias frames are shared by all settings of an ISO: that of the gain moves D_ref, and
    T_d only where ISO and temperature go together.  From three temperatures on the fit is tested; where χ² says that
    the law does not hold (p < 0.01) the errors are widened, and a warning names the setting that is most off if that
    is by more than 0.5 K.  T_ref is the mean temperature, rounded to whole degrees.

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
    points = _points(dark_current)
    iso, temperature, value, scatter = points.iso, points.temperature, points.value, points.own
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
    expected, gain_size, bias_size = _sizes(points)
    member = points.member
    isos = member.shape[1]

    def model(parameters: np.ndarray) -> np.ndarray:
        factor, offset = 1 + member @ (gain_size * parameters[2 : 2 + isos]), member @ parameters[2 + isos :]
        return np.exp(parameters[0] + parameters[1] * (temperature - reference)) * factor + bias_size * offset

    def misfit(parameters: np.ndarray) -> np.ndarray:
        return np.concatenate([(value - model(parameters)) / expected, parameters[2:]])

    fit = optimize.least_squares(misfit, np.concatenate([start, np.zeros(2 * isos)]), x_scale="jac")
    # parameters move by `by_row` for each row's error; the rows' variances are measured, with few degrees of freedom
    by_row = np.linalg.pinv(fit.jac)[:2]
    variances = np.concatenate([(points.own / expected) ** 2, np.ones(2 * isos)])
    freedoms = np.concatenate([points.own_freedom, np.full(isos, np.inf), points.bias_freedom])
    terms = by_row**2 * variances
    errors = np.sqrt(terms.sum(axis=1))
    errors *= [
        t_factor(total) for total in terms.sum(axis=1) ** 2 / np.maximum((terms**2 / freedoms).sum(axis=1), 1e-300)
    ]
    degrees = value.size - 2
    chi2 = float(2 * fit.cost)
    widen, warnings = 1.0, []
    chance = special.fdtrc(degrees, min(points.own_freedom.sum(), 1e9), chi2 / degrees) if degrees > 0 else 1.0
    if chance < MISFIT:
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
    rate_error = widen * errors[1]
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
        start_value * widen * errors[0],
        chi2 / degrees if degrees > 0 else np.nan,
        warnings,
    )


class _Points(NamedTuple):
    """Dark currents of the settings that count; `member` (setting, ISO) tells which is of which ISO."""

    iso: np.ndarray
    temperature: np.ndarray
    value: np.ndarray
    by_gain: np.ndarray  # error from the gain
    own: np.ndarray  # standard error from the darks
    own_freedom: np.ndarray
    lever: np.ndarray  # that error over the standard deviation of a frame
    by_bias: np.ndarray  # standard error from the bias frames
    bias_freedom: np.ndarray  # one an ISO
    member: np.ndarray


def _points(current: xr.Dataset) -> _Points:
    """Take from `dark_current` what the fit needs; of a table with plain errors these are exact and independent."""

    def column(name: str, other: str | float) -> np.ndarray:
        if name in current:
            return np.asarray(current[name].values, float)
        return (
            np.asarray(current[other].values, float)
            if isinstance(other, str)
            else np.full(current.sizes["setting"], other)
        )

    value = column("dark_current_common", "dark_current")
    error, scatter = column("dark_current_error", np.nan), column("dark_current_scatter", np.nan)
    own, freedom = column("own_error", "dark_current_scatter"), column("own_freedom", np.inf)
    lever, bias = column("own_lever", "dark_current_scatter"), column("bias_error", 0.0)
    iso, temperature = column("iso", np.nan), column("temperature", np.nan)
    good = np.isfinite(temperature) & np.isfinite(value) & (own > 0) & np.isfinite(error)
    isos, which = np.unique(np.where(np.isnan(iso), -1, iso)[good], return_inverse=True)
    member = (which.reshape(-1)[:, None] == np.arange(isos.size)).astype(float)
    bias_freedom = column("bias_freedom", np.inf)[good]
    by_gain = np.sqrt(np.maximum(error**2 - scatter**2, 0))
    parts = (part[good] for part in (iso, temperature, value, by_gain, own, freedom, lever, bias))
    return _Points(*parts, np.array([bias_freedom[column > 0][0] for column in member.T]), member)


def _sizes(points: _Points) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each setting the expected error from its darks, and how much the errors it shares may move it.

    Weights from each setting's own scatter, of a few frames, would favour those that happened to come out close
    together; the scatter of a frame is therefore pooled over the settings of an ISO.
    """
    member = points.member
    weight = np.where(np.isfinite(points.own_freedom), points.own_freedom, 1.0)
    pooled = member.T @ (weight * (points.own / points.lever) ** 2) / (member.T @ weight)
    relative = member.T @ (points.by_gain / np.abs(points.value)) / member.sum(axis=0)
    return points.lever * np.sqrt(member @ pooled), relative, points.by_bias


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
