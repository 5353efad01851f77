"""The joint fit of darks over exposure and temperature: one law for the sensor, offset and dark current a pixel."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ..core.cube import black_levels, group_frames, one_value, take_frames
from ..core.dark import LAW_QUANTITIES, THERMOMETER, TYPICAL_DOUBLING, law_factor, line_inverse
from ..core.errors import WorkbenchError
from ..core.mosaic import channel_index
from ..core.pairs import QUANTISATION_VARIANCE
from ..core.results import Table, at_iso, described, same_setting
from ..core.settings import setting_dim
from ..core.statistics import fit_line, mad_std
from ..core.values import attribute_lines, describe
from .dark_frames import DarkGroup, check_darks, equal_frames, pooled_variance, read_group, scatter_terms, solve_lines
from .law import LawFit, Levels, fit_law, mean_subtracted, possible_laws, warmth_of

_MOST_TEMPERATURES = 8  # maps held at once
_MAPS: Table = {
    "offset": ("adu", "offset of each pixel"),
    "dark_current": ("adu / s", "dark current of each pixel"),
    "lost": ("1", "groups lost by saturation"),
}
_GROUPS: Table = {
    "weight": ("1 / adu**2", "weight"),
    "seconds": ("s", "exposure at the reference temperature that gives as much"),
    "exposure": ("s", "exposure"),
    "temperature": ("°C", "sensor temperature"),
    "frames": ("1", "frames"),
}


def fit_dark_library(
    dark: xr.DataArray, bias: xr.DataArray | None = None, gain: xr.Dataset | None = None, *, progress: Any = True
) -> xr.Dataset:
    """Fit y = o + D t f(T) to darks of one ISO or gain setting at several exposures and temperatures, all at once.

    First the sensor: the groups' mean levels give o, D_ref and the law f, both 2^((T − T_ref)/T_d) and
    exp(−ΔE (1/kT − 1/kT_ref)); errors from the scatter of whole frames within their groups, widened where neither law
    holds, those of its constants also from the thermometer (0.5 K); the better fitting one is used (doubling at two
    temperatures, where both run through). Then every pixel: offset and dark current by least squares over the groups,
    weights from the noise between frames. A pixel that saturates loses that group and all that are more intense.
    Settings need not form a grid: 60 s in the room and 600 s in the freezer do, with bias frames.

    A camera that subtracts the mean dark itself shows growing noise and no growing mean; the law is then that of the
    noise's growth, and the maps are deviations from the mean.

    Memory is a few pictures, whatever the number of frames; each is read once.

    Parameters
    ----------
    dark, bias
        Raw frames of one ISO, two or more of each setting for the noise.  Bias frames count as darks of exposure zero.
    gain
        From `fit_gain`, for the shot noise of hot pixels; without it the darks' own noise serves.

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
        If the darks are of several ISO settings, or do not separate offset and dark current.

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
    dark, bias, setting = _of_one_setting(dark, bias)
    groups, sums, celsius = _read(dark, bias, progress)
    _check_exposures(groups)
    warm = groups.temperature  # NaN for bias frames
    reference = float(np.round(np.nanmean(warm))) if np.isfinite(warm).any() else math.nan
    gains = None if gain is None else at_iso(gain["gain"], next(iter(setting.values())))
    gains = None if gains is None or not np.isfinite(gains).all() else gains
    sensor = _fit_sensor(groups, sums.plain.size, reference, gains)
    weight = groups.frames / groups.variance
    factor = law_factor(sensor["law"], sensor["law_value"], celsius, reference)
    seconds = groups.timed * factor[groups.map]
    offset, current, *others = sums.plain, *sums.timed
    current *= np.float32(factor[0])
    for picture, f in zip(others, factor[1:], strict=True):
        picture *= np.float32(f)
        current += picture
    solve_lines(offset, current, sums.lost, line_inverse(weight, seconds))
    read_variance, slope = _noise(groups, seconds, gains)
    subtracted = 0.0
    if sensor["subtracts_mean_dark"] and np.mean(slope) > 0:
        # of the whole sensor: the noise's growth over what one electron adds
        rising = fit_line(seconds, groups.variance, 1 / groups.variance**2).slope
        subtracted = max(float(rising / np.mean(slope)), 0.0)
    attrs = {
        "kind": "dark library",
        "camera": dark.attrs["camera"],
        "cfa_pattern": dark.attrs["cfa_pattern"],
        "black_level": black_levels(dark.attrs).tolist(),
        "white_level": float(dark.attrs["white_level"]),
        "iso": math.nan,
        **setting,
        "reference_temperature": reference,
        **sensor,
        "hidden_dark_current": subtracted,
        "read_variance": read_variance.tolist(),
        "shot_slope": slope.tolist(),
        "wander": math.sqrt(max(np.nan_to_num(pooled_variance(groups.darks, groups.share)[0]), 0.0)),
        "history": [
            *attribute_lines(dark.attrs, "history"),
            f"fitted {int(groups.frames.sum())} darks and bias frames together",
        ],
    }
    maps = {"offset": offset, "dark_current": current, "lost": sums.lost}
    values = groups._asdict() | {"weight": weight, "seconds": seconds}
    return xr.Dataset(described(_MAPS, ("y", "x"), maps) | described(_GROUPS, "group", values), attrs=attrs)


def _of_one_setting(
    dark: xr.DataArray, bias: xr.DataArray | None
) -> tuple[xr.DataArray, xr.DataArray | None, dict[str, float]]:
    """Return the darks that state an exposure, the bias frames of their ISO or gain setting, and this setting."""
    check_darks(dark, bias)
    dark = take_frames(dark, dark["exposure"].values > 0)
    if not dark.sizes["frame"]:
        raise WorkbenchError("none of the darks states its exposure; give exposure_s in frames.csv")
    dim = setting_dim(dark)
    setting = one_value(dark, dim, "a dark library")
    if bias is not None:
        same = same_setting(bias[dim].values, setting)
        bias = take_frames(bias, same) if same.any() else None
    return dark, bias, {dim: setting}


class _Sums(NamedTuple):
    """Of every pixel Σwy, and Σwty for each temperature, over the groups that it has; `lost`: how many it has not."""

    plain: np.ndarray
    timed: list[np.ndarray]
    lost: np.ndarray


class _Groups(NamedTuple):
    """The darks of a library by temperature and exposure, the most intense first, and its bias frames."""

    darks: list[DarkGroup]
    temperature: np.ndarray  # °C; NaN for bias frames
    timed: np.ndarray  # exposure [s] that gives as much dark signal at the temperature of the group's map
    map: np.ndarray  # the number of that map
    variance: np.ndarray  # of a pixel from frame to frame [ADU²], mean of the channels
    exposure: np.ndarray  # s; 0 for bias frames
    frames: np.ndarray  # how many
    noise: np.ndarray  # half-variance of pairs [ADU²] (group, channel), NaN for a single frame
    level: np.ndarray  # mean of the unsaturated pixels [ADU] (group, channel)

    @property
    def share(self) -> np.ndarray:
        """The weight of each channel in the mean of a frame."""
        return np.full(self.level.shape[1], 1 / self.level.shape[1])


def _read(dark: xr.DataArray, bias: xr.DataArray | None, progress: Any) -> tuple[_Groups, _Sums, np.ndarray]:
    """Read all frames in one stream, the most intense first, and sum them up; return the maps' temperatures too."""
    plans, celsius = _plan(dark)
    order = [(dark, plan.frames) for plan in plans]
    if bias is not None:
        plans.append(_Plan(np.arange(bias.sizes["frame"]), 0.0, math.nan, 0.0, 0))
        order.append((bias, plans[-1].frames))
    plain, *maps = (np.zeros(dark.shape[1:], np.float32) for _ in range(celsius.size + 1))
    sums = _Sums(plain, maps, np.zeros(dark.shape[1:], np.uint8))
    rows = []
    for plan, frames in zip(plans, equal_frames(order, progress), strict=True):
        group, total, saturated = read_group(frames, plan.exposure, sums.lost > 0)
        if group.clipped:
            continue
        within = float(np.nanmean(group.noise)) if group.count > 1 else _within(total, dark.attrs["cfa_pattern"])
        variance = max(within, QUANTISATION_VARIANCE)
        weight = group.count / variance
        total /= np.float32(group.count)
        plain += np.float32(weight) * total
        total *= np.float32(weight * plan.timed)
        maps[plan.map] += total
        rows.append((group, plan.temperature, plan.timed, plan.map, variance))
        if saturated.any():  # there this group and those before, more intense ones, do not count
            sums.lost[saturated] = len(rows)
            for picture in (plain, *maps):
                picture[saturated] = 0
        del total, saturated  # their memory serves the next group
    if not rows:
        raise WorkbenchError(
            "all darks are clipped at zero: the camera subtracts its black level before saving; use firmware or a "
            "setting that keeps the offset"
        )
    darks, *columns = zip(*rows, strict=True)
    each = [(one.exposure, float(one.count), one.noise.mean(axis=1), one.steady) for one in darks]
    columns += zip(*each, strict=True)
    return _Groups(list(darks), *(np.array(column) for column in columns)), sums, celsius


class _Plan(NamedTuple):
    """Equal frames to read: their numbers in the cube; the rest as in `_Groups`."""

    frames: np.ndarray
    exposure: float
    temperature: float
    timed: float
    map: int


def _plan(dark: xr.DataArray) -> tuple[list[_Plan], np.ndarray]:
    """Return the groups of darks, the most intense first, and the temperatures of the maps [°C], at most a handful."""
    groups = group_frames(dark, "temperature", "exposure")
    times, warm = (np.array([setting[name] for setting, _ in groups]) for name in ("exposure", "temperature"))
    known = np.nan_to_num(warm, nan=1e6)
    for width in (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 1e9):
        values, member = np.unique(np.round(known / width) if width else known, return_inverse=True)
        if values.size <= _MOST_TEMPERATURES:
            break
    member = member.reshape(-1)
    celsius = np.array([warm[member == k].mean() for k in range(values.size)])
    intensity = times * law_factor("doubling", TYPICAL_DOUBLING, np.nan_to_num(warm), 0.0)
    timed = times * law_factor("doubling", TYPICAL_DOUBLING, np.nan_to_num(warm - celsius[member]), 0.0)
    order = np.argsort(intensity, kind="stable")[::-1]
    plans = [_Plan(groups[k][1], float(times[k]), warm[k], timed[k], int(member[k])) for k in order]
    return plans, celsius


def _within(picture: np.ndarray, pattern: str) -> float:
    """Return the variance of a single frame's pixels, from neighbours of one colour: a little high, but known."""
    step = channel_index(pattern).shape[0]
    difference = picture[::step, step::step] - picture[::step, :-step:step]
    return float(mad_std(difference, centre=0) ** 2 / 2)


def _check_exposures(groups: _Groups) -> None:
    """Refuse darks that do not separate offset, dark current and law, and name what to shoot."""
    exposure, darks = groups.exposure, groups.exposure > 0
    needed = 3 if np.unique(groups.temperature[darks]).size > 1 else 2
    if exposure.size < needed or np.unique(exposure).size < 2:
        settings = zip(exposure[darks], groups.temperature[darks], strict=True)
        there = ", ".join(describe({"exposure": seconds, "temperature": warm}) for seconds, warm in settings)
        raise WorkbenchError(
            f"these darks ({there}; {'' if (exposure == 0).any() else 'no '}bias frames) do not separate the pixels' "
            "offset from their dark current; shoot bias frames of the same ISO, or darks of a second exposure at one "
            "of the temperatures"
        )


def _fit_sensor(groups: _Groups, pixels: int, reference: float, gain: np.ndarray | None) -> dict[str, Any]:
    """Fit the laws to the groups' levels, or to their noise where the camera subtracts the mean dark signal.

    Return the attributes of the law (see `fit_dark_library`), ``subtracts_mean_dark`` and ``warnings``.
    """
    warnings: list[str] = []
    darks, several = groups.exposure > 0, groups.frames > 1
    terms, freedom = scatter_terms(groups.darks, 1 / groups.frames, groups.share)
    least = groups.variance / pixels / groups.frames  # no mean is better known than its pixels' noise allows
    pooled = pooled_variance(groups.darks, groups.share)[0]
    expected, measured = (np.sqrt(np.fmax(part, least)) for part in (pooled / groups.frames, terms))
    spread = groups.variance * np.sqrt(2 / (pixels * np.maximum(groups.frames - 1, 1)))
    subtracts = _subtracts(groups, reference, expected, spread, gain)
    value, scale, freedom = groups.level.mean(axis=1), 1.0, np.maximum(freedom, 1)
    if subtracts:
        warnings.append(
            "the camera subtracts the mean dark signal by itself: the darks' noise grows with time and temperature, "
            "their mean does not; the dark current is that of the noise"
        )
        value, expected, measured, freedom = groups.variance, spread, spread, np.where(several, 1e9, 1.0)
        scale = math.nan if gain is None else float(np.mean(gain))  # Var = D t/g², in ADU D t/g
    names: tuple[str, ...] = ("none",)
    if np.unique(groups.temperature[darks]).size > 1:
        if np.isfinite(groups.temperature[darks]).all():
            names = tuple(LAW_QUANTITIES)
        else:
            warnings.append(
                "some darks state no temperature, so that no law can be fitted; give temperature_c in frames.csv"
            )
    levels = Levels(
        value,
        groups.exposure,
        np.where(darks, groups.temperature, reference),
        expected,
        measured,
        freedom,
        gain=np.zeros((value.size, 0)),
        offset=np.ones((value.size, 1)),
    )
    fits = {name: fit for name in names if (fit := fit_law(name, levels, reference)) is not None}
    if not fits:
        raise WorkbenchError(
            "the dark signal does not rise with time and temperature beyond its error: shoot longer darks, or at "
            "temperatures further apart"
        )
    if all(fit.widen > 1 for fit in fits.values()):
        warnings.append(
            "the darks do not lie on one law of time and temperature within their errors, which are widened; check "
            "the temperatures that they state"
        )
    # predictions are by the same thermometer as the darks; what the constants are also depends on its errors
    warmth = warmth_of(levels.temperature, THERMOMETER)
    with_thermometer = {name: fit_law(name, levels._replace(warmth=warmth), reference) for name in fits}
    return _law_attrs(fits, with_thermometer, scale) | {"subtracts_mean_dark": subtracts, "warnings": warnings}


def _subtracts(
    groups: _Groups, reference: float, expected: np.ndarray, spread: np.ndarray, gain: np.ndarray | None
) -> bool:
    """Return whether the noise grows with time and temperature and the mean does not, beyond their errors."""
    several = groups.frames > 1
    if several.sum() < 2:
        return False
    warm = np.nan_to_num(groups.temperature)
    nominal = groups.exposure * law_factor("doubling", TYPICAL_DOUBLING, warm, np.nan_to_num(reference))
    noise = fit_line(nominal[several], groups.variance[several], 1 / spread[several] ** 2)
    mean = fit_line(nominal, groups.level.mean(axis=1), 1 / expected**2)
    rising, rising_error = float(noise.slope), float(noise.slope_variance**0.5)
    if gain is not None:
        growth, growth_error = mean.slope / np.mean(gain), mean.slope_variance**0.5 / np.mean(gain)
        return mean_subtracted(float(growth), rising, float(growth_error), rising_error)
    return bool(rising > 5 * rising_error and mean.slope < 3 * mean.slope_variance**0.5)


def _law_attrs(fits: dict[str, LawFit], with_thermometer: dict[str, LawFit | None], scale: float) -> dict[str, Any]:
    """Return the law for prediction, the law that the darks do not exclude either, and the constants of both.

    The constants' errors hold the thermometer's too.  The levels of the fits are in units of `scale` ADU/s.
    """
    best, *others = (fits[name] for name in possible_laws(fits))
    attrs: dict[str, Any] = {
        "law": best.law.name,
        "law_value": best.law.value,
        "law_error": best.law.value_error,
        "chi2": float(best.chi2),
        "other": [],
    }
    for other in others:  # there is one at most
        attrs["other"] = [other.law.name, other.law.value, other.law.current / best.law.current]
    for name, (key, error, *_) in LAW_QUANTITIES.items():
        fit, wide = fits.get(name), with_thermometer.get(name)
        attrs |= {key: fit.law.value if fit else math.nan, error: wide.law.value_error if wide else math.nan}
    attrs["dark_current_reference"] = scale * best.law.current
    wide = with_thermometer.get(best.law.name) or best
    attrs["dark_current_reference_error"] = scale * wide.law.current_error
    return attrs


def _noise(groups: _Groups, seconds: np.ndarray, gain: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return each channel's variance of a frame without dark current [ADU²] and what an ADU of dark signal adds [ADU].

    The second is 1/g, from the gain where it is known, else from the noise's growth over that of the level.
    """
    several = groups.frames > 1
    slope = np.zeros(groups.level.shape[1])
    if not several.any():
        read_variance = np.full(slope.size, groups.variance.min())
    else:
        x, noise = seconds[several], groups.noise[several]
        read_variance, weight = noise[np.argmin(x)], 1 / noise.mean(axis=1) ** 2
        if np.unique(x).size > 1:
            line, growing = (fit_line(x, part.T, weight) for part in (noise, groups.level[several]))
            read_variance = np.maximum(line.intercept, QUANTISATION_VARIANCE)
            slope = np.maximum(np.divide(line.slope, growing.slope, out=slope, where=growing.slope > 0), 0.0)
    return read_variance, slope if gain is None else 1 / gain
