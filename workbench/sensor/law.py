"""Dark current against temperature: the doubling law, Arrhenius' with its activation energy, and darks that warm up.

`fit_law` is the one fit of either law, of dark currents (`dark_law`) and of the levels of a dark library.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy import optimize, special

from ..core.dark import LAW_QUANTITIES, THERMOMETER, TYPICAL_DOUBLING, DarkLaw, law_abscissa
from ..core.errors import Guess
from ..core.results import Table, described, with_errors
from ..core.settings import setting_dim
from ..core.statistics import MISFIT, fit_line, t_factor
from ..core.values import describe

_EXCLUDED = 4.0  # of χ²: a law that fits worse by more is not the sensor's
_STATED_WITHIN = 0.5  # K: what stated temperatures may be off without a warning
_PRECISION = 1e-12  # relative, of the fit
_SUBTRACTED = 0.1  # of the dark current that the noise gives may stay in the mean where a camera subtracts that
_CONTRADICTS = 5.0  # errors of both, between the dark currents of noise and mean
_GROWS = 3.0  # errors of a mean: more is growth
_WORTH_A_WARNING = 0.3  # K along a run
_TREND_CHANCE = 1e-3  # that equal darks show such a trend
_STEEPEST_TREND = 4.0  # of the dark signal; more is something else
_FEWEST_IN_A_RUN = 4
# slopes of ln D to start from: of doublings [1/K], of activation energies [eV]
_STEEPNESS = {
    "doubling": np.log(2) / np.array([3, 4, 5, 6, 7, 8, 10, 14]),
    "arrhenius": np.arange(0.3, 1.3, 0.1),
    "none": np.zeros(1),
}
_QUANTITIES: Table = {
    **with_errors(
        {
            "doubling_temperature": ("K", "doubling temperature"),
            "dark_current_reference": ("electron / s", "dark current at the reference temperature"),
            "activation_energy": ("eV", "activation energy"),
            "dark_current_reference_arrhenius": (
                "electron / s", "dark current at the reference temperature, Arrhenius law",
            ),
        }
    ),
    "reference_temperature": ("°C", "reference temperature"),
    "doubling_correlation": ("1", "correlation of the errors of the doubling law"),
    "activation_correlation": ("1", "correlation of the errors of the Arrhenius law"),
    "chi2": ("1", "χ² per degree of freedom"),
    "chi2_arrhenius": ("1", "χ² per degree of freedom of the Arrhenius law"),
}  # fmt: skip


def dark_law(dark_current: xr.Dataset, *, thermometer: float = THERMOMETER) -> xr.Dataset:
    """Fit D = D_ref 2^((T − T_ref)/T_d), and D = D₀ exp(−ΔE/kT), to dark currents at two temperatures or more.

    D is the mean over the pixels that saturate at none of the temperatures (the hottest would otherwise be in the cold
    settings only).  Least squares of D, not of its logarithm, so that noisy cold settings count without bias.  The
    errors of the gain and of the bias frames are shared by all settings of an ISO: that of the gain moves D_ref, and
    T_d only where ISO and temperature go together.  Each temperature is off by the thermometer's error, and light that
    may be in the darks is in the errors too.  The two laws are not the same curve (for 0.65 eV the local doubling runs
    from 6.4 K at -10 °C to 8.4 K at 30 °C), so each is fitted, never converted.  From three temperatures on the
    fits are tested; where χ² says that a law does not hold (p < 0.01) its errors are widened, and where neither does a
    warning names the setting that is most off if that is by more than 0.5 K.  T_ref is the mean temperature, rounded
    to whole degrees.

    Parameters
    ----------
    dark_current
        The ``current`` of `measure_dark`, over setting.
    thermometer
        Standard error [K] of each of the temperatures that the darks state, independent of the others.

    Returns
    -------
    xarray.Dataset
        Scalars ``doubling_temperature`` [K], ``dark_current_reference`` [e⁻/s/pixel] and ``activation_energy`` [eV],
        each with ``_error``; ``dark_current_reference_arrhenius`` (``_error``), of the other law;
        ``doubling_correlation`` and ``activation_correlation``, of the errors of each law's two constants;
        ``reference_temperature`` [°C]; ``chi2`` and ``chi2_arrhenius`` per degree of freedom.  attrs ``law``: the one
        that fits better, ``doubling`` or ``arrhenius``, or ``either`` with two temperatures; ``dark_laws``: those that
        the darks do not exclude (χ² within 4 of the better), the better one first.  NaN, with a warning, where
        temperatures are lacking or the dark current does not rise.

    Examples
    --------
    >>> current = xr.Dataset(
    ...     {"dark_current": ("setting", [0.1, 0.4]), "dark_current_error": ("setting", [0.002, 0.005]),
    ...      "dark_current_scatter": ("setting", [0.001, 0.004])},
    ...     {"iso": ("setting", [200.0, 200.0]), "temperature": ("setting", [8.0, 20.0])})
    >>> law = dark_law(current)
    >>> round(law.doubling_temperature.item(), 3), round(law.doubling_temperature_error.item(), 2)
    (6.0, 0.36)
    >>> round(law.activation_energy.item(), 3), round(law.activation_energy_error.item(), 3)
    (0.82, 0.049)
    """
    levels, setting = _of_settings(dark_current)
    light = float(np.nanmax(dark_current["light"].values, initial=0.0)) if "light" in dark_current else 0.0
    levels = levels._replace(warmth=warmth_of(levels.temperature, thermometer))
    distinct = np.unique(levels.temperature)
    if distinct.size < 2:
        there = ", ".join(f"{t:g} °C" for t in distinct) or "none"
        return _dataset({}, [f"a doubling temperature needs dark current at two temperatures or more ({there} here)"])
    reference = float(np.round(levels.temperature.mean()))
    significant = levels.value > 2 * levels.measured
    fits: dict[str, LawFit] = {}
    if np.unique(levels.temperature[significant]).size > 1:
        fits = {name: fit for name in LAW_QUANTITIES if (fit := fit_law(name, levels, reference)) is not None}
    if len(fits) < len(LAW_QUANTITIES):
        warning = (
            "the dark current does not rise with temperature beyond its error, so a doubling temperature is not known; "
            "check the temperatures that the darks state, shoot longer darks, or at temperatures further apart"
        )
        return _dataset({}, [warning], reference)
    warnings = []
    if all(fit.widen > 1 for fit in fits.values()):
        better = fits[possible_laws(fits)[0]]
        worst = int(np.argmax(np.abs(better.off)))
        # by how much it is too warm: in kelvin of the doubling law
        ratio = max(levels.value[worst], 1e-300) / better.model[worst]
        warmer = fits["doubling"].law.value * np.log2(ratio)
        if light > 0:
            warnings.append(
                "the dark currents do not lie on one doubling law within their errors: light that leaks into the darks "
                "does not fall with the temperature; the law's errors are widened"
            )
        elif abs(warmer) > _STATED_WITHIN:
            where = {setting_dim(dark_current): setting[worst], "temperature": levels.temperature[worst]}
            warnings.append(
                Guess(
                    "the dark currents do not lie on one doubling law within their errors",
                    f"at {describe(where)} it is as if the sensor were {abs(warmer):.2g} K "
                    f"{'warmer' if warmer > 0 else 'colder'} than stated; the law's errors are widened",
                    "thermometer",
                )
            )
    darker = levels._replace(value=levels.value - min(light, float(levels.value.min()))) if light > 0 else None
    return _dataset(fits, warnings, reference, darker)


def _dataset(
    fits: dict[str, LawFit], warnings: list[str], reference: float = np.nan, darker: Levels | None = None
) -> xr.Dataset:
    """Return the Dataset of `dark_law`; NaN without fits."""
    values = dict.fromkeys(_QUANTITIES, np.nan) | {"reference_temperature": reference}
    for name, fit in fits.items():
        law = fit.law
        if darker is not None:  # by how much less light would change it
            other = fit_law(name, darker, reference)
            value, current = (law.value, law.current) if other is None else (other.law.value, other.law.current)
            law = law._replace(
                value_error=float(np.hypot(law.value_error, value - law.value)),
                current_error=float(np.hypot(law.current_error, current - law.current)),
            )
        values |= dict(zip(LAW_QUANTITIES[name], law[1:], strict=True))
        values["chi2" if name == "doubling" else "chi2_arrhenius"] = fit.chi2
    possible = possible_laws(fits)
    used = "" if not fits else possible[0] if fits["doubling"].degrees else "either"
    attrs = {"long_name": "law of the dark current", "law": used, "dark_laws": possible, "warnings": warnings}
    return xr.Dataset(described(_QUANTITIES, (), values), attrs=attrs)


class Levels(NamedTuple):
    """What a law is fitted to, over point: value = offset + D t f(T), with the errors that points share."""

    value: np.ndarray  # levels [ADU], or dark currents [e⁻/s] with t = 1
    seconds: np.ndarray  # t
    temperature: np.ndarray  # °C
    expected: np.ndarray  # the standard error that weights are made from
    measured: np.ndarray  # the standard error measured,
    freedom: np.ndarray  # with its degrees of freedom
    gain: np.ndarray  # relative errors (point, source), each shared by all its points
    offset: np.ndarray  # (point, source): offsets shared likewise, times a number that is 0 ± 1,
    offset_freedom: np.ndarray | None = None  # their sizes' degrees of freedom; None: times any number at all
    warmth: np.ndarray | None = None  # errors of the temperatures [K] (point, source), each shared by its points


def warmth_of(temperature: np.ndarray, thermometer: float) -> np.ndarray:
    """Return the thermometer's error [K] (point, source), one source for each different temperature.

    Examples
    --------
    >>> warmth_of(np.array([0.0, 20.0, 20.0]), 0.5).tolist()
    [[0.5, 0.0], [0.0, 0.5], [0.0, 0.5]]
    """
    return thermometer * (temperature[:, None] == np.unique(temperature)).astype(float)


class LawFit(NamedTuple):
    """A fitted law, χ² per degree of freedom, and by how much it widened the errors; residuals [expected] and model."""

    law: DarkLaw
    chi2: float
    degrees: int
    widen: float
    off: np.ndarray
    model: np.ndarray


def _of_rows(levels: Levels, rows: int, shared: int) -> tuple[np.ndarray, np.ndarray]:
    """Variance and degrees of freedom of each row of a fit: levels, `shared` parameters, offsets."""
    count, variances, freedoms = levels.value.size, np.ones(rows), np.full(rows, np.inf)
    variances[:count], freedoms[:count] = (levels.measured / levels.expected) ** 2, levels.freedom
    if levels.offset_freedom is not None:
        freedoms[count + shared :] = levels.offset_freedom
    return variances, freedoms


def fit_law(name: str, levels: Levels, reference: float) -> LawFit | None:
    """Fit D_ref and the law's constant by least squares; None where the values do not rise beyond their error.

    Parameters move by J⁺ of an error in each row, and the rows' variances are the measured ones, of few degrees of
    freedom: errors are half the 68 % interval (Welch and Satterthwaite), widened by √χ² where the law does not hold
    (p < 0.01).  The law ``none`` is for darks of one temperature.
    """
    x = law_abscissa(name, levels.temperature, reference)
    start = _start(name, x, levels)
    if start is None:
        return None
    warmth = np.zeros((x.size, 0)) if levels.warmth is None else levels.warmth
    warmth = warmth * (law_abscissa(name, levels.temperature + 0.5, reference)
                       - law_abscissa(name, levels.temperature - 0.5, reference))[:, None]  # fmt: skip
    gains, shared = levels.gain.shape[1], levels.gain.shape[1] + warmth.shape[1]
    constrained = slice(2, None if levels.offset_freedom is not None else 2 + shared)

    def model(p: np.ndarray, stated: bool = False) -> np.ndarray:
        off = 0.0 if stated else warmth @ p[2 + gains : 2 + shared]
        rising = p[0] * levels.seconds * np.exp(p[1] * (x + off))
        return rising * (1 + levels.gain @ p[2 : 2 + gains]) + levels.offset @ p[2 + shared :]

    def residuals(p: np.ndarray) -> np.ndarray:
        return np.concatenate([(levels.value - model(p)) / levels.expected, p[constrained]])

    precision = dict.fromkeys(("ftol", "xtol", "gtol"), _PRECISION)
    fit = optimize.least_squares(residuals, start, x_scale="jac", **precision)
    by_row = np.linalg.pinv(fit.jac)[:2]
    count, (variances, freedoms) = levels.value.size, _of_rows(levels, by_row.shape[1], shared)
    terms = by_row**2 * variances
    degrees = count - 2 + (name == "none") - (levels.offset.shape[1] if levels.offset_freedom is None else 0)
    chi2 = float(2 * fit.cost) / degrees if degrees > 0 else np.nan
    chance = special.fdtrc(degrees, min(levels.freedom.sum(), 1e9), chi2) if degrees > 0 else 1.0
    widen = float(np.sqrt(chi2)) if chance < MISFIT else 1.0
    current, slope = (float(value) for value in fit.x[:2])
    current_error, slope_error = (widen * half_width(row, freedoms) for row in terms)
    value, value_error, correlation = 0.0, 0.0, 0.0
    if name != "none":
        correlation = float((by_row[0] * by_row[1] * variances).sum() / np.sqrt(terms.sum(axis=1).prod()))
        if not slope > 2 * slope_error:
            return None
        value, value_error = slope, slope_error
        if name == "doubling":  # a steeper slope is a shorter doubling
            value, value_error, correlation = np.log(2) / slope, np.log(2) * slope_error / slope**2, -correlation
    if not current > 0:
        return None
    law = DarkLaw(name, float(value), float(value_error), current, current_error, reference, correlation)
    return LawFit(law, chi2, degrees, widen, residuals(fit.x)[:count], model(fit.x, stated=True))


def _start(name: str, x: np.ndarray, levels: Levels) -> np.ndarray | None:
    """Return the parameters of the best of a few slopes, offset and level by least squares; None where none rises."""
    best, start = np.inf, None
    for slope in _STEEPNESS[name]:
        rising = levels.seconds * np.exp(slope * x)
        columns = [rising, *(levels.offset.T if levels.offset_freedom is None else ())]
        design = np.stack(columns, axis=1) / levels.expected[:, None]
        wanted = levels.value / levels.expected
        answer = np.linalg.lstsq(design, wanted, rcond=None)[0]
        off = float(np.square(design @ answer - wanted).sum())
        if answer[0] > 0 and off < best:
            warmth = 0 if levels.warmth is None else levels.warmth.shape[1]
            shared = np.zeros(levels.gain.shape[1] + warmth + levels.offset.shape[1])
            best, start = off, np.array([answer[0], slope, *shared])
            start[start.size - answer.size + 1 :] = answer[1:]
    return start


def possible_laws(fits: dict[str, LawFit]) -> list[str]:
    """Return the laws that the darks do not exclude, the better one first (at two temperatures both fit: doubling)."""
    if not fits:
        return []
    # at two temperatures both run through all points, but for rounding
    order = sorted(fits, key=lambda name: (round(float(np.nan_to_num(fits[name].chi2)), 4), name != "doubling"))
    best = fits[order[0]]
    limit = _EXCLUDED * max(best.widen, 1.0) ** 2 / max(best.degrees, 1)
    return [name for name in order if np.nan_to_num(fits[name].chi2) - np.nan_to_num(best.chi2) <= limit]


def _of_settings(current: xr.Dataset) -> tuple[Levels, np.ndarray]:
    """Return what `measure_dark` gives, and the settings' ISO or gain setting; plain errors are exact and independent.

    Weights from each setting's own scatter, of a few frames, would favour those that happened to come out close
    together; the scatter of a frame is therefore pooled over the settings of an ISO.
    """
    columns: list[tuple[str, str | float]] = [
        ("dark_current_common", "dark_current"), ("dark_current_error", np.nan), ("dark_current_scatter", np.nan),
        ("own_error", "dark_current_scatter"), (setting_dim(current), np.nan), ("temperature", np.nan),
        ("own_freedom", np.inf), ("own_lever", "dark_current_scatter"), ("bias_error", 0.0), ("bias_freedom", np.inf),
        ("light", 0.0),
    ]  # fmt: skip
    sources = (current.get(name, current[other] if isinstance(other, str) else other) for name, other in columns)
    table = np.array([np.broadcast_to(source, current.sizes["setting"]) for source in sources], float)
    value, error, _, own, _, temperature, *_ = table
    good = np.isfinite(temperature) & np.isfinite(value) & (own > 0) & np.isfinite(error)
    value, error, scatter, own, setting, temperature, freedom, lever, bias, bias_freedom, light = table[:, good]
    settings, which = np.unique(np.nan_to_num(setting, nan=-1), return_inverse=True)
    member = (which.reshape(-1)[:, None] == np.arange(settings.size)).astype(float)
    weight = np.where(np.isfinite(freedom), freedom, 1.0)
    pooled = member.T @ (weight * (own / lever) ** 2) / (member.T @ weight)
    of_gain = np.sqrt(np.maximum(error**2 - scatter**2 - np.nan_to_num(light) ** 2, 0)) / np.abs(value)
    by_gain = member.T @ of_gain / member.sum(axis=0)
    levels = Levels(
        value,
        np.ones(value.size),
        temperature,
        lever * np.sqrt(member @ pooled),
        own,
        freedom,
        member * by_gain,
        member * bias[:, None],
        np.array([bias_freedom[column > 0][0] for column in member.T]),
    )
    return levels, setting


def half_width(terms: np.ndarray, freedoms: np.ndarray) -> float:
    """Return half the 68 % interval of a sum of measured variances (Welch and Satterthwaite)."""
    total = float(terms.sum())
    return float(np.sqrt(total)) * t_factor(freedom_of(terms, freedoms)) if total > 0 else total


def freedom_of(terms: np.ndarray, freedoms: np.ndarray) -> float:
    """Return the degrees of freedom of a sum of measured variances (Welch and Satterthwaite)."""
    some = terms > 0
    shares = (terms[some] ** 2 / freedoms[some]).sum()
    return float(terms.sum() ** 2 / shares) if shares > 0 else np.inf


def mean_subtracted(mean: float, by_noise: float, mean_error: float, error: float) -> bool:
    """Return whether the mean shows no growth where the noise is sure of it, beyond the errors of both [e⁻/s].

    A mean that grows by itself is subtracted by no camera, whatever the noise shows: cosmic rays and hot pixels that
    flicker make noise, too.

    Examples
    --------
    >>> mean_subtracted(0.01, 0.3, 0.01, 0.02), mean_subtracted(0.31, 0.3, 0.01, 0.02)
    (True, False)
    >>> mean_subtracted(28.4, 66.0, 2.9, 12.0), mean_subtracted(0.1, 0.3, 0.01, 0.02)
    (False, False)
    """
    contradicts = by_noise - mean > _CONTRADICTS * math.hypot(mean_error, error)
    return bool(contradicts and mean < max(_SUBTRACTED * by_noise, _GROWS * mean_error))


def run_trend(levels: np.ndarray) -> tuple[float, float, float]:
    """Return the change of the levels of equal frames from the first to the last, its error, and the chance of none.

    A straight line through the levels in their order; NaN, NaN and 1 for fewer than four.

    Examples
    --------
    >>> change, _, chance = run_trend(np.array([10.0, 11.1, 11.9, 13.0, 14.0]))
    >>> round(change, 1), chance < 1e-3
    (4.0, True)
    """
    count = levels.size
    if count < _FEWEST_IN_A_RUN:
        return math.nan, math.nan, 1.0
    along = np.linspace(-0.5, 0.5, count)
    line = fit_line(along, levels)
    residual = float(np.square(levels - line.intercept - line.slope * along).sum())
    error = math.sqrt(float(line.slope_variance) * residual / (count - 2))
    chance = 2 * float(special.stdtr(count - 2, -abs(line.slope) / error)) if error > 0 else 1.0
    return float(line.slope), error * t_factor(count - 2), chance


def add_warming(rows: list[dict[str, Any]]) -> list[str]:
    """Fill in by how much the sensor warmed along each run of darks [K] and return warnings where it did.

    ΔT = T_d log₂(1 + change/signal), T_d typically 6 K; 0 where the trend may be chance, all runs considered.
    """
    warnings = []
    runs = [row for row in rows if "trend_chance" in row]
    for row in runs:
        chance, share = row.pop("trend_chance"), row["trend"] / max(row["dark_signal"], 1e-300)
        certain = chance < _TREND_CHANCE / len(runs) and -1 < share < _STEEPEST_TREND
        row["heating"] = warmer = TYPICAL_DOUBLING * math.log2(1 + share) if certain else 0.0
        if abs(warmer) > _WORTH_A_WARNING:
            where = describe(
                {name: row[name] for name in ("iso", "gain_setting", "temperature", "exposure") if name in row}
            )
            warnings.append(
                f"the darks at {where} change by {row['trend']:+.3g} ± {row['trend_error']:.2g} e- from the first to "
                f"the last, as if the sensor had {'warmed' if warmer > 0 else 'cooled'} by {abs(warmer):.2g} K; let it "
                "run for half an hour before the series, and take darks between the lights"
            )
    return warnings
