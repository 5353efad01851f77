"""The joint fit of darks over exposure and temperature: one law for the sensor, offset and dark current a pixel."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy import optimize, special

from ..core.cube import check_cube, one_value, take_frames
from ..core.dark import inverse_temperature, law_factor
from ..core.errors import WorkbenchError
from ..core.pairs import QUANTISATION_VARIANCE, t_factor
from ..core.selection import at_iso, describe
from .dark import check_alike
from .gain import MISFIT
from .law import EXCLUDED
from .library_frames import USUAL_DOUBLING, GroupRead, pixel_maps, read_darks

_SUBTRACTED = 0.5  # of what the noise says the mean must show, or the camera takes the mean off
_LAWS = {"doubling": "doubling temperature", "arrhenius": "activation energy"}


def fit_dark_library(
    dark: xr.DataArray, bias: xr.DataArray | None = None, gain: xr.Dataset | None = None, *, progress: Any = True
) -> xr.Dataset:
    """Fit y = o + D t f(T) to darks of one ISO at several exposures and temperatures, all at once.

    First the sensor: the groups' mean levels give o, D_ref and the law f, both 2^((T − T_ref)/T_d) and
    exp(−ΔE (1/kT − 1/kT_ref)); errors from the scatter of whole frames within their groups, widened where neither law
    holds; the better fitting one is used (doubling at two temperatures, where both run through).  Then every pixel:
    offset and dark current by least squares over the groups, weights from the noise between frames.  A pixel that
    saturates loses that group and all that are more intense.  Settings need not form a grid: 60 s in the room and 600 s
    in the freezer do, with bias frames.

    A camera that subtracts the mean dark itself shows growing noise and no growing mean; the law is then that of the
    noise's growth, and the maps are deviations from the mean.

    Memory is a few pictures, whatever the number of frames; each is read once.

    Parameters
    ----------
    dark, bias
        Raw frames of one ISO; two or more of each setting tell the noise.  Bias frames count as darks of exposure zero.
    gain
        From `fit_gain`, for the shot noise of hot pixels; without it the darks' own noise tells.

    Returns
    -------
    xarray.Dataset
        Maps (y, x): ``offset`` [ADU], ``dark_current`` at T_ref [ADU/s], ``lost``, how many of the most intense groups
        the pixel lost.  Over group, the most intense first: ``exposure``, ``temperature``, ``frames``, ``seconds``
        t f(T), ``weight``.  attrs: ``law`` and its ``law_value``, ``law_error``; ``doubling_temperature`` [K],
        ``activation_energy`` [eV], each with ``_error``; ``dark_current_reference`` (``_error``) [ADU/s];
        ``reference_temperature`` [°C]; ``chi2``; ``subtracts_mean_dark``; ``warnings``.

    Raises
    ------
    WorkbenchError
        If the darks are of several ISO settings, or cannot tell offset from dark current.

    Examples
    --------
    >>> from workbench.core.dark import predict_dark
    >>> from workbench.core.cube import make_cube
    >>> rng = np.random.default_rng(0)
    >>> seconds, warm = np.repeat([[60.0, 600.0, 600.0], [20.0, 20.0, 8.0]], 4, axis=1)
    >>> rate = rng.lognormal(0, 0.3, (32, 48)) * 0.3
    >>> y = 600 + rng.normal(0, 3, (12, 32, 48))
    >>> y += rng.poisson(rate * (seconds * 2 ** ((warm - 20) / 6))[:, None, None])
    >>> darks = make_cube(y.round().astype("uint16"), cfa_pattern="mono", kind="dark", iso=800, exposure=seconds,
    ...                   temperature=warm)
    >>> library = fit_dark_library(darks, progress=False)
    >>> abs(library.attrs["doubling_temperature"] - 6) < 3 * library.attrs["doubling_temperature_error"]
    True
    >>> predicted = predict_dark(library, 300.0, 14.0)
    >>> pull = (predicted.signal - 600 - rate * 150) / predicted.variance**0.5
    >>> 0.9 < float(pull.std()) < 1.1
    True
    """
    check_cube(dark, stage="raw", kind="dark")
    if bias is not None:
        check_alike(dark, bias)
    dark = take_frames(dark, dark["exposure"].values > 0)
    if not dark.sizes["frame"]:
        raise WorkbenchError("none of the darks states its exposure; give exposure_s in frames.csv")
    iso = one_value(dark, "iso", "a dark library")
    if bias is not None:
        same = bias["iso"].values == iso if math.isfinite(iso) else np.isnan(bias["iso"].values)
        bias = take_frames(bias, same) if same.any() else None
    reads, sums, kelvins = read_darks(dark, bias, progress)
    warm, times, counts, weight = (
        np.array(column, float)
        for column in zip(*((r.temperature, r.group.exposure, r.group.count, r.weight) for r in reads), strict=True)
    )
    darks = times > 0
    reference = float(np.round(np.nanmean(warm[darks]))) if np.isfinite(warm[darks]).any() else math.nan
    _enough(times, warm)
    warnings: list[str] = []
    factors = None if gain is None else at_iso(gain["gain"], iso)
    if factors is not None and not np.isfinite(factors).all():
        factors = None
    fits, chosen, subtracts = _sensor(reads, times, warm, reference, factors, warnings)
    value = fits[chosen].value
    factor = np.ones(len(kelvins)) if chosen == "none" else law_factor(chosen, value, kelvins, reference)
    seconds = np.array([read.timed * factor[read.kelvin] if read.kelvin >= 0 else 0.0 for read in reads])
    offset, current = pixel_maps(sums, seconds, weight, factor)
    read_variance, slope = _noise(reads, seconds, factors)
    hidden = 0.0
    if subtracts:
        # of the whole sensor: the noise's growth over what one electron adds
        level = np.array([read.variance for read in reads])
        rising = _line(seconds, level, 1 / level**2)[1]
        hidden = max(rising / float(np.mean(slope)), 0.0) if np.mean(slope) > 0 else 0.0
    attrs = {
        "kind": "dark library",
        "camera": dark.attrs["camera"],
        "cfa_pattern": dark.attrs["cfa_pattern"],
        "black_level": list(dark.attrs["black_level"]),
        "white_level": float(dark.attrs["white_level"]),
        "iso": float(iso),
        "reference_temperature": reference,
        "law": chosen,
        "law_value": float(value),
        "law_error": float(fits[chosen].error),
        "chi2": float(fits[chosen].chi2),
        "other": _other(fits, chosen, reads),
        "subtracts_mean_dark": bool(subtracts),
        "hidden_dark_current": float(hidden),
        "read_variance": [float(one) for one in read_variance],
        "shot_slope": [float(one) for one in slope],
        "wander": _wander(reads),
        "warnings": warnings,
        "history": [*dark.attrs["history"], f"fitted {int(counts.sum())} darks and bias frames together"],
    }
    for law, name in _LAWS.items():
        key = name.replace(" ", "_")
        attrs |= {key: math.nan, f"{key}_error": math.nan}
        if law in fits:
            attrs |= {key: fits[law].value, f"{key}_error": fits[law].error}
    attrs |= {
        "dark_current_reference": float(fits[chosen].level),
        "dark_current_reference_error": float(fits[chosen].level_error),
    }
    per = {"units": "s", "long_name": "exposure at the reference temperature that gives as much"}
    return xr.Dataset(
        {
            "offset": (("y", "x"), offset, {"units": "adu", "long_name": "offset of each pixel"}),
            "dark_current": (("y", "x"), current, {"units": "adu/s", "long_name": "dark current of each pixel"}),
            "lost": (("y", "x"), sums.lost, {"units": "1", "long_name": "groups lost by saturation"}),
            "weight": ("group", weight, {"units": "1/adu²", "long_name": "weight"}),
            "seconds": ("group", seconds, per),
            "exposure": ("group", times, {"units": "s", "long_name": "exposure"}),
            "temperature": ("group", warm, {"units": "°C", "long_name": "sensor temperature"}),
            "frames": ("group", counts.astype(float), {"units": "1", "long_name": "frames"}),
        },
        attrs=attrs,
    )


def _enough(times: np.ndarray, warm: np.ndarray) -> None:
    """Say what to shoot where offset, dark current and law cannot be told apart."""
    darks = times > 0
    temperatures = np.unique(warm[darks]).size
    needed = 3 if temperatures > 1 else 2
    if times.size < needed or np.unique(times).size < 2:
        there = ", ".join(
            describe({"exposure": t, "temperature": w}) for t, w in zip(times[darks], warm[darks], strict=True)
        )
        raise WorkbenchError(
            f"these darks ({there}; {'no ' if not (times == 0).any() else ''}bias frames) cannot tell the pixels' "
            "offset from their dark current; shoot bias frames of the same ISO, or darks of a second exposure at one "
            "of the temperatures"
        )


class _Law(NamedTuple):
    """A law fitted to the groups: its constant, the dark current at the reference temperature, and how well it fits."""

    value: float
    error: float
    level: float
    level_error: float
    chi2: float
    widen: float


def _sensor(
    reads: list[GroupRead],
    times: np.ndarray,
    warm: np.ndarray,
    reference: float,
    factors: np.ndarray | None,
    warnings: list[str],
) -> tuple[dict[str, _Law], str, bool]:
    """Fit the laws to the groups' levels; return them, which one is better, and whether the camera hides the mean."""
    counts = np.array([read.group.count for read in reads], float)
    level = np.array([read.group.steady.mean() for read in reads])
    own = np.array([np.var(r.group.means.mean(axis=1), ddof=1) if r.group.count > 1 else np.nan for r in reads])
    freedom = counts - 1
    pooled = np.nansum(freedom * own) / max(freedom.sum(), 1)
    pixels = float(reads[0].pixels)
    # no frame's mean is better known than its pixels' noise allows
    least = np.array([read.variance for read in reads]) / pixels
    expected = np.sqrt(np.maximum(pooled, least) / counts)
    measured = np.sqrt(np.maximum(np.where(freedom > 0, own, pooled), least) / counts)
    freedoms = np.where(freedom > 0, freedom, max(freedom.sum(), 1))
    noise = np.array([read.variance for read in reads])
    several = counts > 1
    subtracts = False
    if several.sum() > 1:
        nominal = times * 2 ** (
            (np.nan_to_num(warm) - (reference if math.isfinite(reference) else 0.0)) / USUAL_DOUBLING
        )
        spread = noise * np.sqrt(2 / (pixels * np.maximum(freedom, 1)))
        rising, rising_error = _line(nominal[several], noise[several], 1 / spread[several] ** 2)[1:]
        growing, growing_error = _line(nominal, level, 1 / expected**2)[1:]
        if rising > 5 * rising_error:
            if factors is not None:
                subtracts = growing / float(np.mean(factors)) < _SUBTRACTED * rising
            else:
                subtracts = growing < 3 * growing_error
    scale = 1.0
    if subtracts:
        warnings.append(
            "the camera subtracts the mean dark signal by itself: the darks' noise grows with time and temperature, "
            "their mean does not; the dark current is that of the noise"
        )
        level, expected, measured = noise, spread, spread
        freedoms = np.where(several, 1e9, 1.0)
        scale = float(np.mean(factors)) if factors is not None else math.nan  # Var = D t/g², in ADU D t/g
    darks = times > 0
    laws = ["none"]
    if np.unique(warm[darks]).size > 1 and np.isfinite(warm[darks]).all():
        laws = list(_LAWS)
    elif np.unique(warm[darks]).size > 1:
        warnings.append(
            "some darks state no temperature, so that no law can be fitted; give temperature_c in frames.csv"
        )
    fits = {law: _fit(law, times, warm, reference, level, expected, measured, freedoms, scale) for law in laws}
    fits = {law: fit for law, fit in fits.items() if fit is not None}
    if not fits:
        raise WorkbenchError(
            "the dark signal does not rise with time and temperature beyond its error: shoot longer darks, or at "
            "temperatures further apart"
        )
    # at two temperatures both fit alike, but for rounding
    chosen = min(fits, key=lambda law: (round(float(np.nan_to_num(fits[law].chi2)), 4), law != "doubling"))
    if all(fit.widen > 1 for fit in fits.values()):
        warnings.append(
            "the darks do not lie on one law of time and temperature within their errors, which are widened; were they "
            "as warm as they say?"
        )
    return fits, chosen, subtracts


def _other(fits: dict[str, _Law], chosen: str, reads: list[GroupRead]) -> list:
    """Return the law that was not chosen, where these darks cannot tell the two apart: name, constant, level."""
    others = [law for law in fits if law != chosen]
    if not others or not fits[others[0]].level > 0:
        return []
    other = fits[others[0]]
    worse = np.nan_to_num(other.chi2 - fits[chosen].chi2) * max(len(reads) - 3, 1)
    widened = max(fits[chosen].widen, 1.0) ** 2
    if worse / widened > EXCLUDED:
        return []
    return [others[0], other.value, other.level / fits[chosen].level]


def _fit(
    law: str,
    times: np.ndarray,
    warm: np.ndarray,
    reference: float,
    level: np.ndarray,
    expected: np.ndarray,
    measured: np.ndarray,
    freedoms: np.ndarray,
    scale: float,
) -> _Law | None:
    """Fit level = o + D t exp(p x(T)) by least squares; None where it does not rise."""
    known = np.where(times > 0, warm, reference)
    x = np.zeros(times.size)
    if law == "doubling":
        x = known - reference
    elif law == "arrhenius":
        x = inverse_temperature(known, reference)
    free = 3 if law != "none" else 2

    def model(p: np.ndarray) -> np.ndarray:
        return p[0] + p[1] * times * (np.exp(p[2] * x) if free == 3 else 1.0)

    start = None
    tried = np.log(2) / np.array([3, 4, 5, 6, 7, 8, 10, 14]) if law == "doubling" else np.arange(0.3, 1.3, 0.1)
    for slope in tried if free == 3 else [0.0]:
        base, rising, _ = _line(times * np.exp(slope * x), level, 1 / expected**2)
        off = float((((level - base - rising * times * np.exp(slope * x)) / expected) ** 2).sum())
        if rising > 0 and (start is None or off < start[0]):
            start = off, [base, rising, slope][:free]
    if start is None:
        return None
    fit = optimize.least_squares(lambda p: (level - model(p)) / expected, start[1], x_scale="jac")
    by_row = np.linalg.pinv(fit.jac)
    terms = by_row**2 * (measured / expected) ** 2
    total = terms.sum(axis=1)
    errors = np.sqrt(total) * [
        t_factor(one) for one in total**2 / np.maximum((terms**2 / freedoms).sum(axis=1), 1e-300)
    ]
    degrees = times.size - free
    chi2 = float(2 * fit.cost) / degrees if degrees > 0 else math.nan
    chance = special.fdtrc(degrees, min(freedoms.sum(), 1e9), chi2) if degrees > 0 else 1.0
    widen = math.sqrt(chi2) if chance < MISFIT else 1.0
    errors = errors * widen
    value, error = (float(fit.x[2]), float(errors[2])) if free == 3 else (0.0, 0.0)
    if not fit.x[1] > 0 or (free == 3 and not value > 2 * error):
        return None
    if law == "doubling":
        value, error = math.log(2) / value, math.log(2) * error / value**2
    return _Law(value, error, scale * float(fit.x[1]), scale * float(errors[1]), chi2, widen)


def _line(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[float, float, float]:
    """Return intercept, slope and the slope's error of a weighted line."""
    total = weight.sum()
    middle = (weight * x).sum() / total
    away = x - middle
    lever = (weight * away**2).sum()
    slope = float((weight * away * y).sum() / lever)
    return float((weight * y).sum() / total) - slope * middle, slope, float(lever**-0.5)


def _noise(reads: list[GroupRead], seconds: np.ndarray, factors: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return each channel's variance of a frame without dark current [ADU²] and what an ADU of dark signal adds [ADU].

    The second is 1/g, from the gain where it is known, else from the noise's growth over that of the level.
    """
    several = [k for k, read in enumerate(reads) if read.group.count > 1]
    channels = reads[0].group.steady.size
    if not several:
        quiet = min(read.variance for read in reads)
        return np.full(channels, quiet), np.zeros(channels) if factors is None else 1 / factors
    noise = np.array([reads[k].group.noise.mean(axis=1) for k in several])
    level = np.array([reads[k].group.steady for k in several])
    x, weight = seconds[several], 1 / np.mean(noise, axis=1) ** 2
    read_variance, slope = noise[np.argmin(x)].copy(), np.zeros(channels)
    if np.unique(x).size > 1:
        for channel in range(channels):
            base, rising, _ = _line(x, noise[:, channel], weight)
            read_variance[channel] = max(base, QUANTISATION_VARIANCE)
            growing = _line(x, level[:, channel], weight)[1]
            slope[channel] = max(rising / growing, 0.0) if growing > 0 else 0.0
    return read_variance, slope if factors is None else 1 / np.asarray(factors, float)


def _wander(reads: list[GroupRead]) -> float:
    """Return the standard deviation of whole frames from their group's mean [ADU]: offset and temperature wander."""
    freedom = sum(read.group.count - 1 for read in reads)
    squares = sum(
        (read.group.count - 1) * float(np.var(read.group.means.mean(axis=1), ddof=1))
        for read in reads
        if read.group.count > 1
    )
    return math.sqrt(squares / freedom) if freedom else 0.0
