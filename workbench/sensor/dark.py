"""Dark signal and dark current: what a sensor collects without light, and the map of every pixel's dark current."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ..core.cube import channels_of, take_frames
from ..core.mosaic import channel_index, spread
from ..core.noise import error_in_mean
from ..core.pairs import BLOCKS, jackknife_error, leave_one_out
from ..core.results import Table, at_iso, described, with_errors
from ..core.settings import setting_dim
from ..core.statistics import fit_line, odd_ones_out
from ..core.statistics import misfit as chi_misfit
from ..core.values import describe, listed
from .dark_faults import Gain, SaturatedPixels, misfit, scatter_covariance, settle_means
from .dark_frames import (
    DarkGroup,
    DarkSetting,
    check_darks,
    map_sums,
    medians,
    read_settings,
    scatter_terms,
    spatial_variance,
)
from .dark_light import add_light, find_light
from .law import add_warming, freedom_of, half_width, run_trend

_ODD_SHARE = 0.2  # of the dark signal that a dark must be off its group to be named
_SIGNAL: Table = {
    **with_errors({"dark_signal": ("electron", "dark signal"), "dark_signal_adu": ("adu", "dark signal")}),
    "median": ("electron", "median dark signal"),
    "frames": ("1", "darks"),
    "trend": ("electron", "change of the dark signal from the first to the last dark"),
    "trend_error": ("electron", "error of the change along the run"),
    "heating": ("K", "as if the sensor had warmed by so much along the run"),
    "saturated_pixels": ("1", "saturated pixels, left out"),
}
_CURRENT: Table = {
    **with_errors({"dark_current": ("electron / s", "dark current")}),
    "dark_current_scatter": ("electron / s", "error of the dark current without the gain's"),
    "dark_current_common": ("electron / s", "dark current of the pixels that saturate in no setting"),
    "own_error": ("electron / s", "standard error from the scatter of the darks"),
    "own_freedom": ("1", "its degrees of freedom"),
    "own_lever": ("1/s", "that error over the standard deviation of a dark's mean"),
    "bias_error": ("electron / s", "standard error from the scatter of the bias frames"),
    "bias_freedom": ("1", "its degrees of freedom"),
    **with_errors(
        {
            "dark_current_variance": ("electron / s", "dark current from the growth of the noise"),
            "dark_current_adu": ("adu / s", "dark current"),
            "dcnu": ("electron / s", "dark current non-uniformity"),
        }
    ),
    "median": ("electron / s", "median dark current"),
    "intercept": ("electron", "dark signal at exposure zero"),
    "light": ("electron / s", "what light that leaks in may have added"),
    "saturated_pixels": ("1", "pixels that saturate too soon to be measured"),
    "exposures": ("1", "exposures"),
    "frames": ("1", "darks"),
}


class Darks(NamedTuple):
    """What darks show: `signal` over (group), `current` over (setting), and the warmest setting's `map` (y, x)."""

    signal: xr.Dataset
    current: xr.Dataset
    map: xr.DataArray | None


def measure_dark(
    dark: xr.DataArray, bias: xr.DataArray | None = None, gain: xr.Dataset | None = None, *, progress: Any = True
) -> Darks:
    """Measure dark signal, dark current and its spread over the pixels, each frame read once.

    Darks of one ISO and temperature are a setting, those of one exposure in it a group. Dark current is the slope of
    the signal over exposure, for each pixel, by least squares over all frames, bias frames of the ISO being those of
    exposure zero; the plain mean over the pixels, hot ones included: what saturates counts from shorter darks, or from
    colder ones by the ratio of the others; what saturates in all counts with the least that does, its error as large,
    and is reported.  Errors come from
    the scatter of whole frames within their groups (an offset that wanders, a temperature that does) with Welch's
    degrees of freedom, and from the gain. DCNU² is the variance of the map of dark currents within its channels, less
    what temporal noise puts there (the half-variance of frame pairs, carried through the slope); its error is for these
    very pixels, with the greater shot noise of the hot ones.

    Parameters
    ----------
    dark
        Raw darks (frame, y, x): two or more of each exposure, ISO and temperature.
    bias
        Raw bias frames of the same ISO settings.  Without them two exposures or more are needed.
    gain
        From `fit_gain`.  Without it, or for an ISO that it lacks, what is in electrons is NaN.
    progress
        False for no progress bar, or a tqdm bar to advance by one a frame.

    Returns
    -------
    Darks
        ``signal`` over group (coordinates ``iso``, ``temperature``, ``exposure``): ``dark_signal`` [e⁻] and
        ``dark_signal_adu`` with ``_error``, ``median`` [e⁻], ``frames``, ``saturated_pixels``; ``trend`` [e⁻] with
        ``_error``, from the first to the last of four darks or more, and ``heating`` [K], by how much the sensor must
        have warmed for it.  ``current`` over setting (``iso``, ``temperature``): ``dark_current`` [e⁻/s/pixel] with
        ``dark_current_error``, and the part of it that is not the gain's, ``dark_current_scatter``;
        ``dark_current_common`` [e⁻/s/pixel], of the pixels that saturate neither here nor in warmer settings, for
        comparisons, as are ``own_error``, ``bias_error`` and what belongs to them; ``dark_current_variance``
        [e⁻/s/pixel] with error, from the growth of the noise, which stands for the dark current where a camera
        subtracts the mean dark by itself; ``dark_current_adu`` [ADU/s] with error; ``median``; ``dcnu`` [e⁻/s] with
        error; ``intercept`` [e⁻], ``saturated_pixels``, ``exposures``, ``frames``.  ``map``: the warmest setting's dark
        current [e⁻/s; ADU/s without a gain], NaN where saturated.

    Raises
    ------
    WorkbenchError
        If the frames are not raw darks, or bias and darks differ in size or mosaic.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> rng = np.random.default_rng(0)
    >>> seconds = np.repeat([30.0, 120.0], 3)
    >>> y = 600 + rng.poisson(seconds[:, None, None] * 0.5, (6, 128, 128))
    >>> darks = make_cube(y.astype("uint16"), cfa_pattern="mono", kind="dark", iso=200, exposure=seconds,
    ...                   temperature=20)
    >>> round(measure_dark(darks, progress=False).current.dark_current_adu.item(), 2)
    0.5
    """
    check_darks(dark, bias)
    dark, warnings = _with_exposure(dark)
    dark, dim = _in_order_of_time(dark), setting_dim(dark)
    channels = len(channels_of(dark.attrs["cfa_pattern"]))
    groups, settings, warmest, hot = [], [], None, SaturatedPixels()
    for setting in read_settings(dark, bias, progress):
        factor = Gain(*np.full((3, channels), np.nan))
        if gain is not None:
            errors = gain["gain_error"].copy(data=error_in_mean(gain))
            factor = Gain(*(at_iso(part, setting.key[dim]) for part in (gain["gain"], errors, gain["gain_error"])))
        warnings += _setting_warnings(setting)
        current, signals, problems = _reduce(setting, factor)
        warnings += problems
        hot.add(current, setting, factor.value)
        settings.append(current)
        groups += signals
        warmth = (np.nan_to_num(setting.key["temperature"], nan=-np.inf), current["frames"])
        if setting.slope is not None and (warmest is None or warmth > warmest[0]):
            warmest = (warmth, _as_map(setting, setting.slope, factor.value))
    for rows in (groups, settings):
        rows.sort(
            key=lambda row: [np.nan_to_num(row.get(n, 0.0), nan=np.inf) for n in (dim, "temperature", "exposure")]
        )
    warnings += settle_means(settings, groups) + hot.warnings()
    warnings += add_light(settings) + add_warming(groups)
    missing = sorted({describe({dim: row[dim]}) for row in settings if np.isnan(row["dark_current"])})
    if gain is None or any(np.isfinite(row["dark_current_adu"]) and np.isnan(row["dark_current"]) for row in settings):
        warnings.append(
            f"the gain at {', '.join(missing)} is not measured, so dark current there is known in ADU/s only; shoot "
            "pairs of flats at that setting"
        )
    return Darks(
        _table(_SIGNAL, groups, ("group", dim, "temperature", "exposure"), dark, "dark signal", warnings),
        _table(_CURRENT, settings, ("setting", dim, "temperature"), dark, "dark current", warnings),
        None if warmest is None else warmest[1],
    )


def _with_exposure(dark: xr.DataArray) -> tuple[xr.DataArray, list[str]]:
    """Return the darks whose exposure is stated, and a warning of the others."""
    timed = dark["exposure"].values > 0
    if timed.all():
        return dark, []
    files = dark["filename"].values[~timed]
    text = f"{len(files)} darks state no exposure ({listed(files)}) and are left out; give exposure_s in frames.csv"
    return take_frames(dark, timed), [text]


def _in_order_of_time(cube: xr.DataArray) -> xr.DataArray:
    """Return the frames in the order of time where all state it, else as they are (by name)."""
    times = cube["time"].values
    order = np.argsort(times, kind="stable")
    return cube if np.isnat(times).any() or (np.diff(order) == 1).all() else take_frames(cube, order)


def _table(
    table: Table, rows: list[dict[str, Any]], dims: tuple[str, ...], dark: xr.DataArray, title: str, warnings: list[str]
) -> xr.Dataset:
    """Return rows over the first of `dims`, with the others as coordinates."""
    dim, *coords = dims
    columns = {name: np.array([row[name] for row in rows], float) for name in (*table, *coords)}
    attrs = {"camera": dark.attrs["camera"], "long_name": title, "warnings": warnings}
    given = {name: (dim, columns[name], dark[name].attrs) for name in coords}
    return xr.Dataset(described(table, dim, columns), given, attrs)


def _reduce(setting: DarkSetting, gain: Gain) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    """Turn what was read at a setting into a row of dark current, rows of dark signal, and warnings."""
    current = dict.fromkeys(_CURRENT, np.nan) | setting.key
    current |= {
        "exposures": len(setting.groups),
        "frames": sum(group.count for group in setting.groups),
        "saturated_pixels": int(np.count_nonzero(setting.lost)),
    }
    base = None if setting.bias is None else setting.bias.level
    warnings: list[str] = []
    if setting.slope is not None:
        values, intercept, warnings = _slope_row(setting, setting.slope, gain)
        base = intercept if base is None else base
        current |= values | {"intercept": float((gain.value * (intercept - base)).mean())}
    signals = [_signal_row(setting, group, base, gain) for group in setting.groups]
    return current, signals, warnings


def _slope_row(
    setting: DarkSetting, slopes: np.ndarray, factor_of: Gain
) -> tuple[dict[str, Any], np.ndarray, list[str]]:
    """Return the dark current of the slopes (y, x) [ADU/s], each channel's intercept [ADU], and warnings."""
    gain, gain_error, own_error = factor_of
    points, cell, where = setting.points, channel_index(setting.pattern), describe(setting.key)
    sums = map_sums(slopes, setting.lost, cell, BLOCKS)
    pixels = sums[0].sum(axis=1)
    share = pixels / pixels.sum()
    slope = sums[1].sum(axis=1) / pixels
    times, counts = (np.array([getattr(group, name) for group in points]) for name in ("exposure", "count"))
    middle = (counts * times).sum() / counts.sum()
    levers = (times - middle) / (counts * (times - middle) ** 2).sum()  # of each frame [1/s]
    widen, warnings = misfit(points, share, where, gain)
    common = map_sums(slopes, setting.ever_saturated, cell, 1)[:2, :, 0]
    row: dict[str, Any] = {
        "dark_current_common": float((share * gain * common[1] / common[0]).sum()),
        "median": float((share * gain * medians(slopes, setting.lost, cell)).sum()),
    }
    for unit, factor, factor_error in (("_adu", np.ones_like(gain), 0 * slope), ("", gain, gain_error)):
        terms, freedoms = scatter_terms(points, levers, share * factor)
        scatter = widen * half_width(terms, freedoms)
        row[f"dark_current{unit}"] = float((share * factor * slope).sum())
        row[f"dark_current{unit}_error"] = float(np.hypot(scatter, np.linalg.norm(share * factor_error * slope)))
    # to compare temperatures, the errors from the darks, and from the bias frames, which temperatures share
    shared, terms = np.array([group is setting.bias for group in points]), terms * widen**2
    row |= {
        "dark_current_scatter": scatter,
        "own_error": float(np.sqrt(terms[~shared].sum())),
        "own_freedom": freedom_of(terms[~shared], freedoms[~shared]),
        "own_lever": float(np.linalg.norm((levers * np.sqrt(counts))[~shared])),
        "bias_error": float(np.sqrt(terms[shared].sum())),
        "bias_freedom": float(freedoms[shared].sum()) if shared.any() else np.inf,
    }
    spatial, of_spatial = spatial_variance(points, levers, sums, gain)
    variance = float((share * gain**2 * spatial).sum())
    if variance > 0:
        dcnu = np.sqrt(variance)
        error = np.sqrt(((share * gain**2) ** 2 * of_spatial).sum()) / (2 * dcnu)
        by_gain = np.linalg.norm(share * gain * gain_error * spatial) / dcnu
        row |= {"dcnu": dcnu, "dcnu_error": float(np.hypot(error, by_gain))}
    doubt = scatter_covariance(points, levers, gain) + np.diag((own_error * slope) ** 2)
    longest = max(group.exposure for group in setting.groups)
    light = find_light(slopes, setting.lost, setting.pattern, gain, doubt, longest)
    row |= {"light": light.most, "light_words": light.words, "light_maybe": light.maybe}
    alone = len(setting.points) == 1 + (setting.bias is not None)  # one exposure, above the bias frames
    row["bias_apart"] = setting.bias_apart if alone else 0.0
    by_noise = _by_noise(points, share, gain, gain_error)
    level = sum(count * group.steady for count, group in zip(counts, points, strict=True)) / counts.sum()
    steady = map_sums(slopes, setting.saturated, cell, 1)[:2, :, 0]
    intercept = level - steady[1] / steady[0] * middle
    row["capacity"] = float((gain * (setting.white_level - intercept)).mean())  # e-, where the converter saturates
    return row | by_noise, intercept, warnings


def _by_noise(points: list[DarkGroup], share: np.ndarray, gain: np.ndarray, gain_error: np.ndarray) -> dict[str, Any]:
    """Return the dark current from the growth of the noise; `by_noise` is what stands in its place where the mean lies.

    Shot noise of D t electrons has the variance D t/g² [ADU²], whatever the camera subtracts: D = g² dσ²/dt [e⁻/s], σ²
    of frame pairs.  The error is from a jackknife over blocks of rows, or the scatter of the frames where that is
    greater (cosmic rays), widened where the noise does not grow along a line.
    """
    several = [group for group in points if group.count > 1]
    times = np.array([group.exposure for group in several])
    if np.unique(times).size < 2 or not np.isfinite(gain).all():
        return {}
    noise = np.array([group.noise for group in several])  # (group, channel, block)
    weight = np.array([group.count - 1 for group in several]) / np.mean(noise, axis=(1, 2)) ** 2
    slopes = fit_line(times, np.moveaxis(noise, 0, -1), weight).slope
    by_block = ((share * gain**2)[:, None] * slopes).sum(axis=0)
    without = leave_one_out(by_block, 0) / max(by_block.size - 1, 1)
    factor = share * gain**2
    total = np.array([factor @ group.noise.mean(axis=1) for group in several])
    errors = np.array([max(_noise_error(group, factor), 1e-300) for group in several])
    away = times - weight @ times / weight.sum()
    lever = weight * away / (weight * away**2).sum()
    value = float(by_block.mean())
    error = max(float(jackknife_error(without)), float(np.linalg.norm(lever * errors)))
    off = total - total @ weight / weight.sum() - value * away
    error *= chi_misfit(float(np.square(off / errors).sum()), times.size - 2)[0]
    whole = float(np.hypot(error, 2 * value * np.linalg.norm(gain_error) / gain.sum()))
    found = {"dark_current_variance": value, "dark_current_variance_error": whole}
    in_adu = float(((share * gain)[:, None] * slopes).sum(axis=0).mean())
    return found | {
        "by_noise": {
            "dark_current": value,
            "dark_current_error": whole,
            "dark_current_scatter": error,
            "dark_current_common": value,
            "dark_current_adu": in_adu,
            "dark_current_adu_error": in_adu * error / max(abs(value), 1e-300),
            "own_error": error,
            "own_lever": error,  # known by itself, not by the scatter of whole frames
            "own_freedom": float(BLOCKS - 1),
            "bias_error": 0.0,
        }
    }


def _noise_error(group: DarkGroup, factor: np.ndarray) -> float:
    """Return the error of a group's noise Σ factor · half-variance: of its blocks, or of its frames if twice that."""
    blocks = factor @ group.noise
    own = float(np.std(blocks, ddof=1) / np.sqrt(blocks.size)) if blocks.size > 1 else 0.0
    of_frames = float(factor.sum() * group.noise_error)  # of few frames, known to a factor of two
    return of_frames if of_frames > 2 * own else own


def _signal_row(setting: DarkSetting, group: DarkGroup, base: np.ndarray | None, factor_of: Gain) -> dict[str, Any]:
    """Return one group's dark signal above the bias frames, or above the line's intercept without them."""
    gain, gain_error, _ = factor_of
    row = dict.fromkeys(_SIGNAL, np.nan) | setting.key
    row |= {"exposure": group.exposure, "frames": group.count, "saturated_pixels": group.saturated}
    if base is None or group.clipped:
        return row
    zero = [] if setting.bias is None else [setting.bias]
    value, share = group.level - base, np.full(gain.size, 1 / gain.size)
    levers = np.array([1 / group.count, *(-1 / one.count for one in zero)])
    for unit, factor, factor_error in (("_adu", np.ones_like(gain), 0 * value), ("", gain, gain_error)):
        terms = scatter_terms([group, *zero], levers, share * factor, [*setting.groups, *zero])
        row[f"dark_signal{unit}"] = float((factor * value).mean())
        by_gain = np.linalg.norm(share * factor_error * value)
        row[f"dark_signal{unit}_error"] = float(np.hypot(half_width(*terms), by_gain))
    # with bias frames the median is already above them, pixel by pixel
    row["median"] = float((gain * (group.median - (0 if zero else base))).mean())
    along = run_trend(group.means @ (gain * share))
    return row | dict(zip(("trend", "trend_error", "trend_chance"), along, strict=True))


def _setting_warnings(setting: DarkSetting) -> list[str]:
    """Return warnings about frames that are odd or missing."""
    where = describe(setting.key)
    warnings = []
    usable = [group for group in setting.groups if not group.clipped]
    if len(usable) < len(setting.groups):
        worst = max(setting.groups, key=lambda group: group.zero)
        warnings.append(
            f"darks at {where} are clipped at zero ({100 * worst.zero:.3g} % of the pixels, {listed(worst.files)}) and "
            "left out: the camera subtracts its black level before saving; use firmware or a setting that keeps the "
            "offset"
        )
    if setting.moved:
        warnings.append(
            f"the black level of the darks at {where} is {setting.moved:+.2g} ADU from that of the bias frames, which "
            "had another temperature; the dark current is from the darks' exposures alone"
        )
    if setting.slope is None:
        warnings.append(
            f"dark current at {where} cannot be measured: {len(usable)} exposure{'s' * (len(usable) != 1)} and no "
            "usable bias frames at this ISO; shoot darks of a second exposure, or bias frames"
        )
    elif all(group.count < 2 for group in setting.points):
        warnings.append(
            f"one dark at each exposure at {where}: the error of the dark current cannot be measured; shoot two or more"
        )
    for group in setting.groups:
        means = group.means.mean(axis=1)
        noise = np.sqrt(np.nanmean(group.noise)) if group.count > 1 else np.nan
        tolerance = 0.5 * noise
        if setting.bias is not None:
            tolerance = max(0.1 * noise, _ODD_SHARE * max(np.median(means) - setting.bias.level.mean(), 0.0))
        odd = odd_ones_out(means, tolerance)
        if odd.size:
            named = ", ".join(f"{group.files[i]} ({means[i]:.1f} ADU)" for i in odd[:4])
            warnings.append(
                f"darks at {where}, {group.exposure:g} s disagree: {named} against a median of {np.median(means):.1f} "
                "ADU; check their temperatures, and that the shutter was closed"
            )
    return warnings


def _as_map(setting: DarkSetting, picture: np.ndarray, gain: np.ndarray) -> xr.DataArray:
    """Return the slope map as a DataArray in e⁻/s, or in ADU/s without a gain; uses its memory."""
    known = bool(np.isfinite(gain).all())
    if known:
        picture *= spread(gain.astype(np.float32), channel_index(setting.pattern), picture.shape)
    picture[setting.lost] = np.nan
    attrs = {
        "units": "electron / s" if known else "adu / s",
        "long_name": "dark current of each pixel",
        "cfa_pattern": setting.pattern,
        "frames": sum(group.count for group in setting.groups),
    }
    return xr.DataArray(picture, dims=("y", "x"), attrs=attrs | setting.key)
