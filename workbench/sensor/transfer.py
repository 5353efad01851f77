"""Photon transfer: the variance of pairs of flats against their mean, and where it ends: saturation, dynamic range."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from ..core.cube import Setting, channels_of, check_cube, group_frames
from ..core.noise import code_step_of
from ..core.pairs import (
    MOMENTS,
    QUANTISATION_VARIANCE,
    PairSums,
    frame_pairs,
    jackknife_error,
    leave_one_out,
    measure_pairs,
    pair_moments,
)
from ..core.results import Table, at_iso, at_isos, described, per_channel, same_iso, with_errors
from ..core.settings import setting_dim
from ..core.values import describe, listed
from .bias import CLIPPED_FRACTION, read_noise

_SAME_LEVEL = 0.2  # flats whose means differ by more are not of one light level
_PLATEAU_SATURATED = 0.999  # share of pixels at the highest code of a level that is saturated all over
_PLATEAU_VARIANCE = 0.003  # of the shot noise that a level would have; what is left of it where the wells are full
_ENOUGH_LIGHT = 0.5  # of the stated white level: fainter flats do not show how it ends
_LEAST_ERROR = 0.01  # of a saturation that is only bracketed
_PAIRS: Table = {
    "mean": ("adu", "mean level as read"),
    "signal": ("adu", "signal above the black level"),
    "variance": ("adu**2", "temporal variance"),
    "variance_error": ("adu**2", "error of the temporal variance"),
    "variance_plain": ("adu**2", "half-variance of the difference"),
    "mean_single": ("adu", "mean of the middle of one frame"),
    "variance_single": ("adu**2", "variance over the middle of one frame"),
    "saturated_fraction": ("1", "fraction of saturated pixels"),
    "zero_fraction": ("1", "fraction of pixels at zero"),
    "level_change": ("1", "change of level from the first to the second frame"),
    "black_level": ("adu", "black level subtracted"),
    "black_level_error": ("adu", "error of the black level"),
    "black_scatter": ("adu", "standard deviation of the bias frames' means"),
    "dark_variance": ("adu**2", "half-variance of the bias difference"),
    "dark_variance_error": ("adu**2", "error of the bias half-variance"),
}
_WELLS: Table = {
    **with_errors({"saturation": ("adu", "saturation above the black level"), "full_well": ("electron", "full well")}),
    "brightest": ("adu", "brightest strip above the black level"),
    "method": ("", "how saturation was found"),
    "limit": ("", "what saturates"),
}


def photon_transfer(
    flat: xr.DataArray, bias: xr.DataArray | xr.Dataset | None = None, *, progress: Any = True
) -> xr.Dataset:
    """Measure mean and variance of every pair of equal flats, for each channel.

    Flats of one setting, exposure, aperture and filter are one light level, unless their means differ by more than
    20 %.  Each is paired with the next, and the last with the first.  The variance is ½ Var((μ₂y₁ − μ₁y₂)/μ): scaled to
    one level first, it is free of lamp drift and, being a difference, of fixed pattern, vignetting and PRNU.

    Parameters
    ----------
    flat
        Raw flats (frame, y, x), two or more at each of several light levels.
    bias
        Bias frames of the same settings, or the result of `read_noise` on them.  Without them the black level is
        the one the files state.
    progress
        False for no progress bar.

    Returns
    -------
    xarray.Dataset
        Over (pair, channel): ``mean`` [ADU, as read] and ``signal`` [ADU, black level subtracted]; ``variance`` [ADU²]
        without differences beyond 8 robust σ, and its ``variance_error``; ``variance_plain`` [ADU²], only the pair's
        mean difference removed and nothing clipped, as published tables have it; ``mean_single`` and
        ``variance_single``, of a window in the middle of the first frame alone, for the estimate that ignores PRNU;
        ``saturated_fraction``, ``zero_fraction``; ``level_change``, (μ₂ − μ₁)/μ; ``black_level`` and
        ``dark_variance`` [ADU, ADU²] of the bias frames used, with ``_error``, and ``black_scatter``.  Over (pair,
        channel, block, moment): ``sums`` and ``sums_plain`` (see `workbench.core.pairs`).  On pair: ``iso`` or
        ``gain_setting``, ``exposure``, ``aperture``, ``filter``, ``filename_1``, ``filename_2`` and ``level``, the
        number of the light level.

    Raises
    ------
    WorkbenchError
        If the frames are not raw flats, or bias and flats are of different channels.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> rng = np.random.default_rng(0)
    >>> y = rng.poisson(np.repeat([500, 2000], 2)[:, None, None], (4, 128, 128)).astype("uint16")
    >>> flats = make_cube(y, cfa_pattern="RGGB", kind="flat", iso=100, exposure=[1, 1, 4, 4], black_level=0)
    >>> result = photon_transfer(flats, progress=False)
    >>> result.variance.mean("channel").round(-2).values.tolist()
    [500.0, 2000.0]
    """
    check_cube(flat, stage="raw", kind="flat")
    zero = read_noise(bias, progress=progress) if isinstance(bias, xr.DataArray) else bias
    names = channels_of(flat.attrs["cfa_pattern"])
    warnings = [] if zero is None or isinstance(bias, xr.Dataset) else list(zero.attrs["warnings"])
    dark = _zero_level(flat, zero, names, warnings)
    pairs, levels = [], []
    for number, (setting, frames) in enumerate(group_frames(flat, *_of_level(flat))):
        if len(frames) < 2:
            warnings.append(_lone_flat(setting, flat["filename"].values[frames]))
        local = frame_pairs(len(frames))
        pairs += [(int(frames[i]), int(frames[j])) for i, j in local]
        levels += [number] * len(local)
    sums = measure_pairs(flat, pairs, black=[dark["black_level"][i] for i, _ in pairs], progress=progress)
    pairs, levels, sums = _split_levels(flat, pairs, levels, sums, dark["black_level"], warnings, progress)
    return _dataset(flat, names, pairs, levels, sums, dark, warnings)


def _of_level(flat: xr.DataArray) -> tuple[str, ...]:
    """Return the coordinates that flats of one light level share."""
    return (setting_dim(flat), "exposure", "aperture", "filter")


def _zero_level(
    flat: xr.DataArray, zero: xr.Dataset | None, names: tuple[str, ...], warnings: list[str]
) -> dict[str, np.ndarray]:
    """Return black level and dark variance for each flat (frame, channel): from bias frames, else from the file."""
    dim, sources = (
        setting_dim(flat),
        ("black_level", "black_level_error", "frame_scatter", "variance", "variance_error"),
    )
    values = [np.full((flat.sizes["frame"], len(names)), np.nan)] * len(sources)
    if zero is not None:
        zero = zero.reindex(channel=list(names))
        values = [at_isos(zero[source], flat[dim].values) for source in sources]
    for setting, _ in group_frames(flat, dim):
        measured = zero is not None and np.isfinite(at_iso(zero["black_level"], setting[dim])).any()
        if not measured and np.isnan(flat.attrs["black_level"]).any():
            warnings.append(
                f"neither bias frames nor a stated black level at {describe(setting)}: the flats' level is taken from "
                "zero; shoot bias frames at this setting"
            )
    black, black_error, scatter, variance, variance_error = values
    known = np.isfinite(black).all(axis=1, keepdims=True)
    return {
        "black_level": np.where(known, black, np.nan_to_num(flat.attrs["black_level"], nan=0.0)),
        # of a single bias frame neither is known
        "black_level_error": np.where(known, np.nan_to_num(black_error), 0.0),
        "black_scatter": np.where(known, np.nan_to_num(scatter), 0.0),
        "dark_variance": variance,
        "dark_variance_error": variance_error,
    }


def _lone_flat(setting: Setting, files: np.ndarray) -> str:
    return (
        f"only one flat at {describe(setting)} ({listed(files)}): a variance needs two of the same light level; it is "
        "left out, shoot two or more"
    )


def _split_levels(
    flat: xr.DataArray,
    pairs: list[tuple[int, int]],
    levels: list[int],
    sums: PairSums,
    black: np.ndarray,
    warnings: list[str],
    progress: Any,
) -> tuple[list[tuple[int, int]], list[int], PairSums]:
    """Pair again, by their measured level, the flats of one setting that are not of one light level."""
    if not pairs:
        return pairs, levels, sums
    moments = pair_moments(sums.plain.sum(axis=2))
    first, second = np.array(pairs).T
    signal = np.empty(flat.sizes["frame"])
    signal[first], signal[second] = (
        (mean - black[number]).mean(axis=1) for mean, number in ((moments.mean1, first), (moments.mean2, second))
    )
    group, uneven, fresh = np.array(levels), [], []
    fresh_levels: list[int] = []
    for number in np.unique(group):
        here = group == number
        frames = np.unique([first[here], second[here]])
        span = np.ptp(signal[frames])
        steady = span <= _SAME_LEVEL * max(np.median(signal[frames]), 0)
        if steady or span <= np.sqrt(np.nanmean(moments.variance1[here])):  # near black, noise can do this
            continue
        uneven.append(number)
        parts = _parts_of_one_level(frames, signal[frames])
        warnings += _uneven_warnings(flat, frames, signal[frames], parts)
        for part in parts:
            local = frame_pairs(len(part))
            fresh += [(int(part[i]), int(part[j])) for i, j in local]
            fresh_levels += [max([*levels, *fresh_levels]) + 1] * len(local)
    if not uneven:
        return pairs, levels, sums
    again = measure_pairs(flat, fresh, black=[black[i] for i, _ in fresh], progress=progress)
    keep = np.flatnonzero(~np.isin(group, uneven))
    joined = (np.concatenate([old[keep], new]) if len(new) else old[keep] for old, new in zip(sums, again, strict=True))
    pairs = [pairs[i] for i in keep] + fresh
    return pairs, [levels[i] for i in keep] + fresh_levels, PairSums(*joined)


def _parts_of_one_level(frames: np.ndarray, signal: np.ndarray) -> list[np.ndarray]:
    """Split frames where their rising signal [ADU] jumps by more than 20 %."""
    order = np.argsort(signal, kind="stable")
    jumps = np.flatnonzero(np.diff(signal[order]) > _SAME_LEVEL * np.maximum(signal[order][:-1], 0)) + 1
    return [np.sort(part) for part in np.split(frames[order], jumps)]


def _uneven_warnings(flat: xr.DataArray, frames: np.ndarray, signal: np.ndarray, parts: list[np.ndarray]) -> list[str]:
    setting = {name: flat[name].values.item(frames[0]) for name in _of_level(flat)}
    files = flat["filename"].values
    faintest, brightest = files[frames[np.argmin(signal)]], files[frames[np.argmax(signal)]]
    uneven = (
        f"the flats at {describe(setting)} are not of one light level: {faintest} has a signal of {signal.min():.0f} "
        f"ADU and {brightest} one of {signal.max():.0f} ADU; they are measured as {len(parts)} levels"
    )
    return [uneven, *(_lone_flat(setting, files[part]) for part in parts if len(part) < 2)]


def _dataset(
    flat: xr.DataArray,
    names: tuple[str, ...],
    pairs: list[tuple[int, int]],
    levels: list[int],
    sums: PairSums,
    dark: dict[str, np.ndarray],
    warnings: list[str],
) -> xr.Dataset:
    first, second = np.array(pairs, int).reshape(-1, 2).T
    zero = {name: level[first] for name, level in dark.items()}
    plain, kept = (pair_moments(part.sum(axis=2)) for part in (sums.plain, sums.kept))
    pixels = np.where(plain.n > 0, plain.n, np.nan)
    mean, black = (plain.mean1 + plain.mean2) / 2, zero["black_level"]
    replicates = pair_moments(leave_one_out(sums.kept, axis=2)).scaled_half_variance(black[..., None])
    values = zero | {
        "mean": mean,
        "signal": mean - black,
        "variance": kept.scaled_half_variance(black),
        "variance_error": jackknife_error(replicates, axis=-1),
        "variance_plain": plain.half_variance,
        "mean_single": sums.centre[..., 0],
        "variance_single": sums.centre[..., 1],
        "saturated_fraction": sums.saturated.sum(axis=2) / pixels,
        "zero_fraction": sums.zero.sum(axis=2) / pixels,
        "level_change": (plain.mean2 - plain.mean1) / np.where(mean > black, mean - black, np.nan),
    }
    data: dict[str, Any] = described(_PAIRS, ("pair", "channel"), values)
    for name, part in (("sums", sums.kept), ("sums_plain", sums.plain)):
        data[name] = (("pair", "channel", "block", "moment"), part, {"long_name": f"{name} of the pairs [ADU^k]"})
    coords: dict[str, Any] = {name: ("pair", flat[name].values[first], flat[name].attrs) for name in _of_level(flat)}
    coords |= {
        "filename_1": ("pair", flat["filename"].values[first]),
        "filename_2": ("pair", flat["filename"].values[second]),
        "level": ("pair", np.array(levels, int), {"long_name": "number of the light level"}),
        "channel": list(names),
        "moment": list(MOMENTS),
    }
    attrs = {name: flat.attrs[name] for name in ("camera", "white_level")} | {"step": code_step_of(flat)}
    return xr.Dataset(data, coords, attrs | {"long_name": "photon transfer", "warnings": warnings})


def full_well(ptc: xr.Dataset, gain: xr.Dataset) -> xr.Dataset:
    """Find where each setting and channel saturates, in ADU and in electrons.

    ``plateau``: the mean of flats so bright that every pixel is at its limit, be it the converter's highest code or
    full wells, where the photon noise is gone; its error is the scatter of those means and the black level's.
    ``peak``: the variance breaks down but no flat is saturated all over; the end lies above the level of the greatest
    variance (EMVA 1288's saturation) and is taken at the brightest strip of the brightest flat.  ``white level``: no
    flat reaches the end; it lies between the brightest strip and the white level that the files state, and is taken
    to be the latter.  In the last two the error is the standard deviation of an end that is anywhere in between.

    Parameters
    ----------
    ptc
        From `photon_transfer`.
    gain
        From `fit_gain`.

    Returns
    -------
    xarray.Dataset
        Over (iso, channel): ``saturation`` [ADU above black] and ``full_well`` [e⁻], each with ``_error`` (the gain's
        in it); ``brightest`` [ADU], the brightest strip of rows, below which it does not lie; ``method``; ``limit``,
        ``converter`` where the highest code ends the scale, ``well`` where the pixels do before, empty where that is
        not known.  What cannot be measured is NaN, and ``attrs["warnings"]`` says what to shoot.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> from workbench.sensor import fit_gain
    >>> electrons = np.random.default_rng(0).poisson(np.repeat([2e3, 6e3, 3e4], 2)[:, None, None], (6, 64, 64))
    >>> y = np.minimum(electrons, 10_000) / 2
    >>> flats = make_cube(y.round().astype("uint16"), cfa_pattern="mono", kind="flat", iso=100,
    ...                   exposure=[1, 1, 3, 3, 15, 15], black_level=0, white_level=16383)
    >>> ptc = photon_transfer(flats, progress=False)
    >>> found = full_well(ptc, fit_gain(ptc)).squeeze()
    >>> found.saturation.item(), found.method.item(), found.limit.item()
    (5000.0, 'plateau', 'well')
    """
    dim, channels = setting_dim(gain), gain["channel"].values.tolist()
    rows, faint = [], []
    for setting in gain[dim].values:
        where = np.flatnonzero(same_iso(ptc[dim].values, setting))
        factor, factor_error = (at_iso(gain[name], setting) for name in ("gain", "gain_error"))
        rows.append([_saturation(ptc, where, column, factor[column]) for column in range(len(channels))])
        for one, value, error in zip(rows[-1], factor, factor_error, strict=True):
            level, doubt = (one.get(name, np.nan) for name in ("saturation", "saturation_error"))
            one |= {"full_well": level * value, "full_well_error": np.hypot(doubt * value, level * error)}
        if where.size and not any("saturation" in one for one in rows[-1]):
            faint.append(describe({dim: setting}))
    warnings = []
    if faint:
        warnings.append(
            f"the flats at {', '.join(faint)} end too far below saturation to show the full well; shoot a pair several "
            "times overexposed"
        )
    attrs = {"camera": ptc.attrs["camera"], "long_name": "saturation and full well", "warnings": warnings}
    return per_channel(_WELLS, rows, {dim: gain[dim].values}, channels, **attrs)


def _saturation(ptc: xr.Dataset, pairs: np.ndarray, column: int, gain: float) -> dict[str, Any]:
    """Find the saturation of one setting and channel."""
    if not pairs.size:
        return {}
    curve = ptc.isel(pair=pairs, channel=column)
    black, signal, variance, error, plain, saturated = (
        curve[name].values
        for name in ("black_level", "signal", "variance", "variance_error", "variance_plain", "saturated_fraction")
    )
    n, first, second = np.moveaxis(curve["sums_plain"].values[..., :3], -1, 0)  # (pair, block)
    strips = np.where(n > 0, (first + second) / 2 / np.where(n > 0, n, 1), -np.inf)
    brightest = float((strips.max(axis=1) - black).max())
    room = float(ptc.attrs["white_level"]) - float(black.max())
    rounding = QUANTISATION_VARIANCE * max(ptc.attrs.get("step", 1), 1) ** 2
    dark = np.nan_to_num(curve["dark_variance"].values) + rounding
    # a wrong or missing gain would only move a threshold that is far from either side
    shot = signal / gain if np.isfinite(gain) and gain > 0 else variance.max() * signal / signal.max()
    full = saturated > _PLATEAU_SATURATED
    quiet = (plain < 3 * dark - 2 * rounding + _PLATEAU_VARIANCE * shot) & (shot > 30 * dark)
    plateau = (full | quiet) & (signal > 0.9 * signal.max())
    if plateau.any():
        levels = signal[plateau]
        offset = float(np.nan_to_num(curve["black_scatter"].values).max()) / np.sqrt(2 * levels.size)
        scatter = max(float(levels.std()), offset)
        return {
            "brightest": brightest,
            "saturation": float(levels.mean()),
            "saturation_error": float(np.hypot(scatter, curve["black_level_error"].values.max())),
            "method": "plateau",
            "limit": "converter" if full[plateau].all() else "well",
        }
    peak = int(np.argmax(variance))
    fallen = (signal > signal[peak]) & (variance < 0.9 * variance[peak] - 4 * np.hypot(error, error[peak]))
    clipped = (saturated > CLIPPED_FRACTION).any()
    if fallen.any() and not (clipped and brightest > 0.9 * room):
        value, low, method, limit = brightest, float(signal[peak]), "peak", "" if clipped else "well"
    elif np.isfinite(room) and brightest > _ENOUGH_LIGHT * room:
        value, low, method, limit = room, min(brightest, room), "white level", "converter" if clipped else ""
    else:
        return {"brightest": brightest}
    doubt = max((value - low) / np.sqrt(3), _LEAST_ERROR * value)
    return {"brightest": brightest, "saturation": value, "saturation_error": doubt, "method": method, "limit": limit}


def dynamic_range(read: xr.Dataset, wells: xr.Dataset) -> xr.Dataset:
    """Return the dynamic range of every setting and channel: full well over read noise, log₂ of it in stops.

    The gain cancels, saturation and noise both being in ADU, so its error is not in it.  EMVA 1288's is smaller by
    log₂(1 + ½/σ), as its faintest signal has half an electron more.

    Parameters
    ----------
    read, wells
        From `read_noise` and `full_well`.

    Returns
    -------
    xarray.Dataset
        Over (iso, channel): ``dynamic_range`` [stops] with ``dynamic_range_error``.
    """
    dim = setting_dim(wells)
    settings = [one for one in wells[dim].values if np.isfinite(at_iso(read["read_noise_adu"], one)).any()]
    channels = wells["channel"].values.tolist()
    read = read.reindex(channel=channels)
    rows = []
    for setting in settings:
        top, top_error = (at_iso(wells[name], setting) for name in ("saturation", "saturation_error"))
        noise, noise_error = (at_iso(read[name], setting) for name in ("read_noise_adu", "read_noise_adu_error"))
        value = np.log2(top / np.where(noise > 0, noise, np.nan))
        error = np.hypot(top_error / top, noise_error / noise) / np.log(2)
        rows.append([{"dynamic_range": v, "dynamic_range_error": e} for v, e in zip(value, error, strict=True)])
    table = with_errors({"dynamic_range": ("bit", "dynamic range")})
    attrs = {"camera": wells.attrs["camera"], "long_name": "dynamic range"}
    return per_channel(table, rows, {dim: settings}, channels, **attrs)
