"""Dark signal and dark current: what a sensor collects without light.

`measure_dark` goes once through the frames and gives both, and the map of every pixel's dark current; `dark_signal`
and `dark_current` are its parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ..core.cube import channels_of, check_cube, take_frames
from ..core.mosaic import channel_index
from ..core.pairs import BLOCKS
from ..core.results import at_iso
from ..core.statistics import odd_ones_out
from ..core.values import describe, listed
from .dark_errors import (
    add_warming,
    errors_to_compare,
    from_noise,
    half_width,
    mean_subtracted,
    misfit,
    pooled,
    row_from_noise,
    run_trend,
    scatter_terms,
    spatial_variance,
)
from .dark_frames import DarkGroup, DarkSetting, check_alike, clipped, map_sums, medians, read_settings

_SUBTRACTED = (
    "the camera subtracts the mean dark signal by itself at {where}: the noise grows with exposure, the mean does not; "
    "the dark current is that of the noise"
)
_ODD_SHARE = 0.2  # of the dark signal that a dark must be off its group to be named


class Darks(NamedTuple):
    """What darks show: `signal` over (group), `current` over (setting), and the warmest setting's `map` (y, x)."""

    signal: xr.Dataset
    current: xr.Dataset
    map: xr.DataArray | None


def dark_signal(
    dark: xr.DataArray, bias: xr.DataArray | None = None, gain: xr.Dataset | None = None, *, progress: Any = True
) -> xr.Dataset:
    """Measure the mean dark signal of each ISO, temperature and exposure; see `measure_dark`."""
    return measure_dark(dark, bias, gain, progress=progress).signal


def dark_current(
    dark: xr.DataArray, bias: xr.DataArray | None = None, gain: xr.Dataset | None = None, *, progress: Any = True
) -> xr.Dataset:
    """Measure dark current and DCNU of each ISO and temperature; see `measure_dark`."""
    return measure_dark(dark, bias, gain, progress=progress).current


def measure_dark(
    dark: xr.DataArray, bias: xr.DataArray | None = None, gain: xr.Dataset | None = None, *, progress: Any = True
) -> Darks:
    """Measure dark signal, dark current and its spread over the pixels, each frame read once.

    Darks of one ISO and temperature are a setting, those of one exposure in it a group.  Dark current is the slope
    of the signal over exposure, for each pixel, by least squares over all frames, bias frames of the ISO being those
    of exposure zero; the plain mean over the pixels, hot ones included, without those that saturate in any frame, which
    are counted.  Errors come from the scatter of whole frames within their groups (an offset that wanders, a
    temperature that does) with Welch's degrees of freedom, and from the gain.  DCNU² is the variance of the map of
    dark currents within its channels, less what temporal noise puts there (the half-variance of frame pairs, carried
    through the slope); its error is for these very pixels, with the greater shot noise of the hot ones.

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
    >>> current = dark_current(darks, progress=False)
    >>> round(current.dark_current_adu.item(), 2)
    0.5
    """
    check_cube(dark, stage="raw", kind="dark")
    if bias is not None:
        check_alike(dark, bias)
    warnings: list[str] = []
    timed = dark["exposure"].values > 0
    if not timed.all():
        files = dark["filename"].values[~timed]
        warnings.append(
            f"{len(files)} darks state no exposure ({listed(files)}) and are left out; give exposure_s in frames.csv"
        )
        dark = take_frames(dark, timed)
    dark = _in_order_of_time(dark)
    names = channels_of(dark.attrs["cfa_pattern"])
    groups, settings, warmest = [], [], None
    for setting in read_settings(dark, bias, progress):
        factor, factor_error = np.full((2, len(names)), np.nan)
        if gain is not None:
            factor, factor_error = (at_iso(gain[name], setting.key["iso"]) for name in ("gain", "gain_error"))
        current, signals, problems = _reduce(setting, factor, factor_error)
        warnings += problems
        settings.append(current)
        groups += signals
        warmth = (np.nan_to_num(setting.key["temperature"], nan=-np.inf), current["frames"])
        if setting.slope is not None and (warmest is None or warmth > warmest[0]):
            warmest = (warmth, _as_map(setting, setting.slope, factor))
    groups.sort(key=lambda row: _rising(row, ("iso", "temperature", "exposure")))
    warnings += add_warming(groups)
    settings.sort(key=lambda row: _rising(row, ("iso", "temperature")))
    missing = sorted({describe({"iso": row["iso"]}) for row in settings if np.isnan(row["dark_current"])})
    if gain is None or any(np.isfinite(row["dark_current_adu"]) and np.isnan(row["dark_current"]) for row in settings):
        warnings.append(
            f"the gain at {', '.join(missing)} is not measured, so dark current there is known in ADU/s only; shoot "
            "pairs of flats at that ISO"
        )
    return Darks(
        _table(groups, "group", ("iso", "temperature", "exposure"), _SIGNAL, dark, "dark signal", warnings),
        _table(settings, "setting", ("iso", "temperature"), _CURRENT, dark, "dark current", warnings),
        None if warmest is None else warmest[1],
    )


_SIGNAL = {
    "dark_signal": ("electron", "dark signal"),
    "dark_signal_error": ("electron", "error of the dark signal"),
    "dark_signal_adu": ("adu", "dark signal"),
    "dark_signal_adu_error": ("adu", "error of the dark signal"),
    "median": ("electron", "median dark signal"),
    "frames": ("1", "darks"),
    "trend": ("electron", "change of the dark signal from the first to the last dark"),
    "trend_error": ("electron", "error of the change along the run"),
    "heating": ("K", "as if the sensor had warmed by so much along the run"),
    "saturated_pixels": ("1", "saturated pixels, left out"),
}
_CURRENT = {
    "dark_current": ("electron / s", "dark current"),
    "dark_current_error": ("electron / s", "error of the dark current"),
    "dark_current_scatter": ("electron / s", "error of the dark current without the gain's"),
    "dark_current_common": ("electron / s", "dark current of the pixels that saturate in no setting"),
    "own_error": ("electron / s", "standard error from the scatter of the darks"),
    "own_freedom": ("1", "its degrees of freedom"),
    "own_lever": ("1/s", "that error over the standard deviation of a dark's mean"),
    "bias_error": ("electron / s", "standard error from the scatter of the bias frames"),
    "bias_freedom": ("1", "its degrees of freedom"),
    "dark_current_variance": ("electron / s", "dark current from the growth of the noise"),
    "dark_current_variance_error": ("electron / s", "error of the dark current from the growth of the noise"),
    "dark_current_adu": ("adu / s", "dark current"),
    "dark_current_adu_error": ("adu / s", "error of the dark current"),
    "median": ("electron / s", "median dark current"),
    "dcnu": ("electron / s", "dark current non-uniformity"),
    "dcnu_error": ("electron / s", "error of the dark current non-uniformity"),
    "intercept": ("electron", "dark signal at exposure zero"),
    "saturated_pixels": ("1", "saturated pixels, left out"),
    "exposures": ("1", "exposures"),
    "frames": ("1", "darks"),
}


def _rising(row: dict[str, Any], names: tuple[str, ...]) -> tuple[float, ...]:
    return tuple(np.nan_to_num(row[name], nan=np.inf) for name in names)


def _in_order_of_time(cube: xr.DataArray) -> xr.DataArray:
    """Return the frames in the order of time where all state it, else as they are (by name)."""
    times = cube["time"].values
    if np.isnat(times).any():
        return cube
    order = np.argsort(times, kind="stable")
    return cube if (np.diff(order) == 1).all() else take_frames(cube, order)


def _table(
    rows: list[dict[str, Any]],
    dim: str,
    coords: tuple[str, ...],
    names: Mapping[str, tuple[str, str]],
    dark: xr.DataArray,
    title: str,
    warnings: list[str],
) -> xr.Dataset:
    data = {
        name: (dim, np.array([row[name] for row in rows], float), {"units": units, "long_name": text})
        for name, (units, text) in names.items()
    }
    given = {name: (dim, np.array([row[name] for row in rows], float), dark[name].attrs) for name in coords}
    return xr.Dataset(data, given, {"camera": dark.attrs["camera"], "long_name": title, "warnings": warnings})


def _reduce(
    setting: DarkSetting, gain: np.ndarray, gain_error: np.ndarray
) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    """Turn what was read at a setting into a row of dark current, rows of dark signal, and warnings."""
    current = dict.fromkeys(_CURRENT, np.nan) | setting.key
    current |= {
        "exposures": len(setting.groups),
        "frames": sum(group.count for group in setting.groups),
        "saturated_pixels": int(np.count_nonzero(setting.saturated)),
    }
    warnings = _setting_warnings(setting)
    zero = None if setting.bias is None or clipped(setting.bias) else setting.bias
    base = None if zero is None else zero.level
    if setting.slope is not None:
        values, intercept, doubt = _slope_row(setting, setting.slope, gain, gain_error)
        base = intercept if base is None else base
        current |= values | {"intercept": float((gain * (intercept - base)).mean())}
        warnings += [doubt] if doubt else []
    signals = [_signal_row(setting, group, zero, base, gain, gain_error) for group in setting.groups]
    return current, signals, warnings


def _slope_row(
    setting: DarkSetting, slopes: np.ndarray, gain: np.ndarray, gain_error: np.ndarray
) -> tuple[dict[str, float], np.ndarray, str]:
    """Return the dark current of the slopes (y, x) [ADU/s], each channel's intercept [ADU], and a warning or none."""
    cell = channel_index(setting.pattern)
    sums = map_sums(slopes, setting.saturated, cell, BLOCKS)
    pixels = sums[0].sum(axis=1)
    share = pixels / pixels.sum()
    slope = sums[1].sum(axis=1) / pixels
    times, counts = (np.array([getattr(group, name) for group in setting.points]) for name in ("exposure", "count"))
    middle = (counts * times).sum() / counts.sum()
    levers = (times - middle) / (counts * (times - middle) ** 2).sum()  # of each frame [1/s]
    widen, doubt = misfit(setting.points, share)
    common = map_sums(slopes, setting.ever_saturated, cell, 1)[:2, :, 0]
    row = {
        "dark_current_common": float((share * gain * common[1] / common[0]).sum()),
        "median": float((share * gain * medians(slopes, setting.saturated, cell)).sum()),
    }
    for unit, factor in (("_adu", np.ones_like(gain)), ("", gain)):
        terms, freedoms = scatter_terms(setting.points, levers, share * factor)
        scatter = widen * half_width(terms, freedoms)
        by_gain = 0.0 if unit else float(np.linalg.norm(share * gain_error * slope))
        row[f"dark_current{unit}"] = float((share * factor * slope).sum())
        row[f"dark_current{unit}_error"] = float(np.hypot(scatter, by_gain))
    row |= {"dark_current_scatter": scatter}
    row |= errors_to_compare(setting, terms * widen**2, freedoms, levers * np.sqrt(counts))
    spatial, of_spatial = spatial_variance(setting.points, levers, sums, gain)
    variance = float((share * gain**2 * spatial).sum())
    if variance > 0:
        dcnu = np.sqrt(variance)
        error = np.sqrt(((share * gain**2) ** 2 * of_spatial).sum()) / (2 * dcnu)
        by_gain = np.linalg.norm(share * gain * gain_error * spatial) / dcnu
        row |= {"dcnu": dcnu, "dcnu_error": float(np.hypot(error, by_gain))}
    by_noise, by_noise_error, adu = from_noise(setting.points, share, gain)
    row |= {
        "dark_current_variance": by_noise,
        "dark_current_variance_error": float(
            np.hypot(by_noise_error, 2 * by_noise * np.linalg.norm(gain_error) / gain.sum())
        ),
    }
    if mean_subtracted(row["dark_current"], by_noise, by_noise_error):
        row |= row_from_noise(row, by_noise, by_noise_error, adu)
        doubt = _SUBTRACTED
    level = sum(count * group.steady for count, group in zip(counts, setting.points, strict=True)) / counts.sum()
    return row, level - slope * middle, doubt.format(where=describe(setting.key))


def _signal_row(
    setting: DarkSetting,
    group: DarkGroup,
    zero: DarkGroup | None,
    base: np.ndarray | None,
    gain: np.ndarray,
    gain_error: np.ndarray,
) -> dict[str, Any]:
    """Return one group's dark signal above the bias frames, or above the line's intercept without them."""
    row = dict.fromkeys(_SIGNAL, np.nan) | setting.key
    row |= {"exposure": group.exposure, "frames": group.count, "saturated_pixels": group.saturated}
    if base is None or clipped(group):
        return row
    value, channels = group.level - base, gain.size
    points, levers = [group], np.array([1 / group.count])
    if zero is not None:
        points, levers = [group, zero], np.array([1 / group.count, -1 / zero.count])
    others = pooled([*setting.groups, *([zero] if zero else [])])
    for unit, factor, factor_error in (("_adu", np.ones(channels), 0 * gain_error), ("", gain, gain_error)):
        scatter = half_width(*scatter_terms(points, levers, factor / channels, others))
        by_gain = float(np.linalg.norm(factor_error * value)) / channels if unit == "" else 0.0
        row[f"dark_signal{unit}"] = float((factor * value).mean())
        row[f"dark_signal{unit}_error"] = float(np.hypot(scatter, by_gain))
    # with bias frames the median is already above them, pixel by pixel
    row["median"] = float((gain * (group.median - (0 if zero is not None else base))).mean())
    along = run_trend(group.means @ (gain / channels))
    return row | dict(zip(("trend", "trend_error", "trend_chance"), along, strict=True))


def _setting_warnings(setting: DarkSetting) -> list[str]:
    """Return warnings about frames that are odd or missing."""
    where = describe(setting.key)
    warnings = []
    usable = [group for group in setting.groups if not clipped(group)]
    if len(usable) < len(setting.groups):
        worst = max(setting.groups, key=lambda group: group.zero)
        warnings.append(
            f"darks at {where} are clipped at zero ({100 * worst.zero:.3g} % of the pixels, {listed(worst.files)}) and "
            "left out: the camera subtracts its black level before saving; use firmware or a setting that keeps the "
            "offset"
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
        base = setting.bias.level.mean() if setting.bias is not None and not clipped(setting.bias) else None
        noise = np.sqrt(np.nanmean(group.noise)) if group.count > 1 else np.nan
        tolerance = (
            max(0.1 * noise, _ODD_SHARE * max(np.median(means) - base, 0.0)) if base is not None else 0.5 * noise
        )
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
    cell = channel_index(setting.pattern)
    if known:
        for (row, column), channel in np.ndenumerate(cell):
            picture[row :: cell.shape[0], column :: cell.shape[1]] *= np.float32(gain[channel])
    picture[setting.saturated] = np.nan
    attrs = {
        "units": "electron / s" if known else "adu / s",
        "long_name": "dark current of each pixel",
        "cfa_pattern": setting.pattern,
        "frames": sum(group.count for group in setting.groups),
    }
    return xr.DataArray(picture, dims=("y", "x"), attrs=attrs | setting.key)
