"""Dark current against temperature: the doubling law, and Arrhenius' with its activation energy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy import optimize, special

from ..core.dark import inverse_temperature
from ..core.pairs import t_factor
from ..core.selection import describe
from .gain import MISFIT

EXCLUDED = 4.0  # of χ²: a law that fits worse by more is not the sensor's
_NO_THERMOMETER = 0.5  # K: what stated temperatures may be off without a word


def dark_law(dark_current: xr.Dataset) -> xr.Dataset:
    """Fit D = D_ref 2^((T − T_ref)/T_d), and D = D₀ exp(−ΔE/kT), to dark currents at two temperatures or more.

    D is the mean over the pixels that saturate at none of the temperatures (the hottest would otherwise be in the cold
    settings only).  Least squares of D, not of its logarithm, so that noisy cold settings count without bias.  The
    errors of the gain and of the bias frames are shared by all settings of an ISO: that of the gain moves D_ref, and
    T_d only where ISO and temperature go together.  The two laws are not the same curve (for 0.65 eV the local doubling
    runs from 6.4 K at -10 °C to 8.4 K at 30 °C), so each is fitted, never converted.  From three temperatures on the
    fits are tested; where χ² says that a law does not hold (p < 0.01) its errors are widened, and where neither does a
    warning names the setting that is most off if that is by more than 0.5 K.  T_ref is the mean temperature, rounded
    to whole degrees.

    Parameters
    ----------
    dark_current
        From `dark_current`, over setting.

    Returns
    -------
    xarray.Dataset
        Scalars ``doubling_temperature`` [K], ``dark_current_reference`` [e⁻/s/pixel] and ``activation_energy`` [eV],
        each with ``_error``; ``dark_current_reference_arrhenius`` (``_error``), of the other law;
        ``doubling_correlation`` and ``activation_correlation``, of the errors of each law's two constants;
        ``reference_temperature`` [°C];
        ``chi2`` and ``chi2_arrhenius`` per degree of freedom.  attrs ``law``: the one that fits better, ``doubling``
        or ``arrhenius``, or ``either`` with two temperatures; ``dark_laws``: those that the darks do not exclude (χ²
        within 4 of the better), the better one first.  NaN, with a warning, where temperatures are lacking or
        the dark current does not rise.

    Examples
    --------
    >>> current = xr.Dataset(
    ...     {"dark_current": ("setting", [0.1, 0.4]), "dark_current_error": ("setting", [0.002, 0.005]),
    ...      "dark_current_scatter": ("setting", [0.001, 0.004])},
    ...     {"iso": ("setting", [200.0, 200.0]), "temperature": ("setting", [8.0, 20.0])})
    >>> law = dark_law(current)
    >>> round(law.doubling_temperature.item(), 3), round(law.doubling_temperature_error.item(), 2)
    (6.0, 0.06)
    >>> round(law.activation_energy.item(), 3), round(law.activation_energy_error.item(), 3)
    (0.82, 0.008)
    """
    points = _points(dark_current)
    temperature = points.temperature
    distinct = np.unique(temperature)
    if distinct.size < 2:
        there = ", ".join(f"{t:g} °C" for t in distinct) or "none"
        return _law(warnings=[f"a doubling temperature needs dark current at two temperatures or more ({there} here)"])
    reference = float(np.round(temperature.mean()))
    fits = [_fit(points, x) for x in (temperature - reference, inverse_temperature(temperature, reference))]
    if any(fit is None for fit in fits):
        return _law(
            reference=reference,
            warnings=[
                "the dark current does not rise with temperature beyond its error, so there is no doubling "
                "temperature; check the temperatures that the darks state"
            ],
        )
    doubling, arrhenius = fits
    if not (doubling.rises and arrhenius.rises):
        return _law(
            reference=reference,
            warnings=[
                "the dark current does not rise with temperature beyond its error, so there is no doubling "
                "temperature; shoot longer darks, or at temperatures further apart"
            ],
        )
    warnings = []
    if doubling.widen > 1 and arrhenius.widen > 1:
        better = min(fits, key=lambda fit: fit.chi2)
        worst = int(np.argmax(np.abs(better.off)))
        # by how much it is too warm: in kelvin of the doubling law
        warmer = np.log(max(points.value[worst], 1e-300) / better.model[worst]) / doubling.slope
        if abs(warmer) > _NO_THERMOMETER:
            setting = {"iso": points.iso[worst], "temperature": temperature[worst]}
            warnings.append(
                f"the dark currents do not lie on one doubling law within their errors: at {describe(setting)} it is "
                f"as if the sensor were {abs(warmer):.2g} K {'warmer' if warmer > 0 else 'colder'} than stated; the "
                "law's errors are widened"
            )
    value = np.log(2) / doubling.slope
    law = "either" if not doubling.degrees else "doubling" if doubling.chi2 <= arrhenius.chi2 else "arrhenius"
    better, worse = (arrhenius, doubling) if law == "arrhenius" else (doubling, arrhenius)
    both = ["arrhenius", "doubling"] if law == "arrhenius" else ["doubling", "arrhenius"]
    excluded = doubling.degrees and (worse.chi2 - better.chi2) * better.degrees > EXCLUDED * better.widen**2
    return _law(
        value,
        value * doubling.slope_error / doubling.slope,
        reference,
        doubling.level,
        doubling.level_error,
        doubling.chi2,
        arrhenius.slope,
        arrhenius.slope_error,
        arrhenius.level,
        arrhenius.chi2,
        warnings,
        law,
        arrhenius.level_error,
        # a steeper slope is a shorter doubling
        -doubling.correlation,
        arrhenius.correlation,
        both[:1] if excluded else both,
    )


class _Fit(NamedTuple):
    """A line through the logarithms: its level and slope with errors (widened by `widen`), and how well it fits."""

    level: float
    level_error: float
    slope: float
    slope_error: float
    chi2: float
    degrees: int
    widen: float
    correlation: float
    model: np.ndarray
    off: np.ndarray

    @property
    def rises(self) -> bool:
        return self.slope > 2 * self.slope_error


def _fit(points: _Points, x: np.ndarray) -> _Fit | None:
    """Fit value = exp(level + slope x) with the errors that settings share; None where nothing rises."""
    value = points.value
    start = _start(x, value, points.own)
    if start is None:
        return None
    expected, gain_size, bias_size = _sizes(points)
    member = points.member
    isos = member.shape[1]

    def model(parameters: np.ndarray) -> np.ndarray:
        factor, offset = 1 + member @ (gain_size * parameters[2 : 2 + isos]), member @ parameters[2 + isos :]
        return np.exp(parameters[0] + parameters[1] * x) * factor + bias_size * offset

    def misfit(parameters: np.ndarray) -> np.ndarray:
        return np.concatenate([(value - model(parameters)) / expected, parameters[2:]])

    fit = optimize.least_squares(misfit, np.concatenate([start, np.zeros(2 * isos)]), x_scale="jac")
    # parameters move by `by_row` for each row's error; the rows' variances are measured, with few degrees of freedom
    by_row = np.linalg.pinv(fit.jac)[:2]
    variances = np.concatenate([(points.own / expected) ** 2, np.ones(2 * isos)])
    freedoms = np.concatenate([points.own_freedom, np.full(isos, np.inf), points.bias_freedom])
    terms = by_row**2 * variances
    correlation = float((by_row[0] * by_row[1] * variances).sum() / np.sqrt(np.prod(terms.sum(axis=1))))
    errors = np.sqrt(terms.sum(axis=1))
    errors *= [
        t_factor(total) for total in terms.sum(axis=1) ** 2 / np.maximum((terms**2 / freedoms).sum(axis=1), 1e-300)
    ]
    degrees = value.size - 2
    chi2 = float(2 * fit.cost)
    chance = special.fdtrc(degrees, min(points.own_freedom.sum(), 1e9), chi2 / degrees) if degrees > 0 else 1.0
    widen = float(np.sqrt(chi2 / degrees)) if chance < MISFIT else 1.0
    level = float(np.exp(fit.x[0]))
    return _Fit(
        level,
        level * widen * errors[0],
        float(fit.x[1]),
        widen * errors[1],
        chi2 / degrees if degrees > 0 else np.nan,
        degrees,
        widen,
        correlation,
        model(fit.x),
        misfit(fit.x)[: value.size],
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


def _start(x: np.ndarray, value: np.ndarray, scatter: np.ndarray) -> np.ndarray | None:
    """Return level and slope of a line through the logarithms that are well known."""
    known = value > 2 * scatter
    if np.unique(x[known]).size < 2:
        return None
    y, weight = np.log(value[known]), value[known] / scatter[known]
    offset, slope = np.polynomial.polynomial.polyfit(x[known], y, 1, w=weight)
    return np.array([offset, slope]) if slope > 0 else None


def _law(
    doubling: float = np.nan,
    doubling_error: float = np.nan,
    reference: float = np.nan,
    start: float = np.nan,
    start_error: float = np.nan,
    chi2: float = np.nan,
    energy: float = np.nan,
    energy_error: float = np.nan,
    start_arrhenius: float = np.nan,
    chi2_arrhenius: float = np.nan,
    warnings: list[str] | None = None,
    law: str = "",
    start_arrhenius_error: float = np.nan,
    correlation: float = np.nan,
    correlation_arrhenius: float = np.nan,
    laws: list[str] | None = None,
) -> xr.Dataset:
    values = {
        "doubling_temperature": (doubling, "K", "doubling temperature"),
        "doubling_temperature_error": (doubling_error, "K", "error of the doubling temperature"),
        "reference_temperature": (reference, "°C", "reference temperature"),
        "dark_current_reference": (start, "e-/s", "dark current at the reference temperature"),
        "dark_current_reference_error": (start_error, "e-/s", "error of the dark current at the reference temperature"),
        "chi2": (chi2, "1", "χ² per degree of freedom"),
        "activation_energy": (energy, "eV", "activation energy"),
        "activation_energy_error": (energy_error, "eV", "error of the activation energy"),
        "dark_current_reference_arrhenius": (
            start_arrhenius,
            "e-/s",
            "dark current at the reference temperature by the Arrhenius law",
        ),
        "dark_current_reference_arrhenius_error": (
            start_arrhenius_error,
            "e-/s",
            "error of the dark current at the reference temperature by the Arrhenius law",
        ),
        "doubling_correlation": (correlation, "1", "correlation of the errors of the doubling law"),
        "activation_correlation": (correlation_arrhenius, "1", "correlation of the errors of the Arrhenius law"),
        "chi2_arrhenius": (chi2_arrhenius, "1", "χ² per degree of freedom of the Arrhenius law"),
    }
    data = {
        name: ((), float(value), {"units": units, "long_name": text}) for name, (value, units, text) in values.items()
    }
    attrs = {"long_name": "law of the dark current", "law": law, "dark_laws": laws or [], "warnings": warnings or []}
    return xr.Dataset(data, attrs=attrs)
