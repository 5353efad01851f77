"""Photon transfer: the variance of pairs of flats against their mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from ..core.cube import Setting, channels_of, check_cube, group_frames
from ..core.noise import code_step_of
from ..core.pairs import (
    MOMENTS,
    PairSums,
    frame_pairs,
    jackknife_error,
    leave_one_out,
    measure_pairs,
    pair_moments,
)
from ..core.results import Table, at_iso, at_isos, described
from ..core.settings import setting_dim
from ..core.shared_noise import Smoothing, measure_smoothing, separate_pairs, smoothed_warning, unsmoothed
from ..core.values import describe, listed
from .bias import read_noise
from .pair_light import COLUMNS, even_pairs

_SAME_LEVEL = 0.2  # flats whose means differ by more are not of one light level
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
    "smoothing_error": ("1", "relative error of the correction for a filter in the camera"),
}


def photon_transfer(
    flat: xr.DataArray, bias: xr.DataArray | xr.Dataset | None = None, *, progress: Any = True
) -> xr.Dataset:
    """Measure mean and variance of every pair of equal flats, for each channel.

    Flats of one setting, exposure, aperture and filter are one light level, unless their means differ by more than
    20 %.  Each is paired with the next, and the last with the first.  The variance is ½ Var((μ₂y₁ − μ₁y₂)/μ): scaled to
    one level first, it is free of lamp drift and, being a difference, of fixed pattern, vignetting and PRNU.  Where the
    ratio of the two is not flat within its noise (they are lit differently: a gradient, dust that moved), both are
    brought to their mean light first, and a warning names those whose variance it would have changed by over 1 %.

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
    pairs, levels, alone = [], [], list[str]()
    for number, (setting, frames) in enumerate(group_frames(flat, *_of_level(flat))):
        if len(frames) < 2:
            alone.append(_lone_flat(setting, flat["filename"].values[frames]))
        local = frame_pairs(len(frames))
        pairs += [(int(frames[i]), int(frames[j])) for i, j in local]
        levels += [number] * len(local)
    warnings += _once(alone, "flats")
    sums = measure_pairs(
        flat, pairs, black=[dark["black_level"][i] for i, _ in pairs], columns=COLUMNS, progress=progress
    )
    pairs, levels, sums = _split_levels(flat, pairs, levels, sums, dark["black_level"], warnings, progress)
    seen = sums.plain
    sums, good, uneven = even_pairs(flat, pairs, sums, dark)
    if not good.all():
        pairs = [pair for pair, fine in zip(pairs, good, strict=True) if fine]
        levels = [level for level, fine in zip(levels, good, strict=True) if fine]
        seen, sums = seen[good], PairSums(*(part[good] for part in sums))
    warnings += uneven
    sums, dark["smoothing_error"] = _unsmoothed(flat, pairs, sums, dark, warnings)
    return _dataset(flat, names, pairs, levels, sums, dark, seen, warnings)


def _of_level(flat: xr.DataArray) -> tuple[str, ...]:
    """Return the coordinates that flats of one light level share."""
    return (setting_dim(flat), "exposure", "aperture", "filter")


def _zero_level(
    flat: xr.DataArray, zero: xr.Dataset | None, names: tuple[str, ...], warnings: list[str]
) -> dict[str, np.ndarray]:
    """Return black level and dark variance for each flat (frame, channel): from bias frames, else from the file."""
    dim, sources = (
        setting_dim(flat),
        ("black_level", "black_level_error", "frame_scatter", "variance", "variance_error", "smoothing"),
    )
    values = [np.full((flat.sizes["frame"], len(names)), np.nan)] * len(sources)
    if zero is not None:
        zero = zero.reindex(channel=list(names))
        values = [at_isos(zero[source], flat[dim].values) for source in sources if source in zero]
        values += [np.full_like(values[0], np.nan)] * (len(sources) - len(values))
    for setting, _ in group_frames(flat, dim):
        measured = zero is not None and np.isfinite(at_iso(zero["black_level"], setting[dim])).any()
        if not measured and np.isnan(flat.attrs["black_level"]).any():
            warnings.append(
                f"neither bias frames nor a stated black level at {describe(setting)}: the flats' level is taken from "
                "zero; shoot bias frames at this setting"
            )
    black, black_error, scatter, variance, variance_error, smoothing = values
    known = np.isfinite(black).all(axis=1, keepdims=True)
    return {
        "black_level": np.where(known, black, np.nan_to_num(flat.attrs["black_level"], nan=0.0)),
        # of a single bias frame neither is known
        "black_level_error": np.where(known, np.nan_to_num(black_error), 0.0),
        "black_scatter": np.where(known, np.nan_to_num(scatter), 0.0),
        "dark_variance": variance,
        "dark_variance_error": variance_error,
        "smoothing": smoothing,
    }


def _unsmoothed(
    flat: xr.DataArray, pairs: list[tuple[int, int]], sums: PairSums, dark: dict[str, np.ndarray], warnings: list[str]
) -> tuple[PairSums, np.ndarray]:
    """Correct the variances of flats whose neighbours share noise; returns the relative error (frame, channel)."""
    relative = np.zeros_like(dark["black_level"])
    known = dark.pop("smoothing")
    first = np.array([i for i, _ in pairs], int)
    found: dict[str, Smoothing] = {}
    for setting, frames in group_frames(flat, setting_dim(flat)):
        where = np.flatnonzero(np.isin(first, frames))
        biased = np.isfinite(known[frames]).all()
        if not where.size or (biased and (known[frames] == 1).all()):
            continue
        apart = separate_pairs([pairs[i] for i in where])
        shared = measure_smoothing(flat, apart, dark["black_level"][frames[0]], charge=not biased)
        if shared.found:
            sums = unsmoothed(sums, where, shared.factor)
            relative[frames] = shared.error / shared.factor
            if not biased:
                found[describe(setting)] = shared
    warnings += [smoothed_warning(found)] if found else []
    return sums, relative


def _once(texts: list[str], like: str) -> list[str]:
    """Return the first of like texts, with the number of others."""
    return [f"{text}; and {len(texts) - 1} more {like} like it" if len(texts) > 1 else text for text in texts[:1]]


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
    doubts: tuple[list[str], list[str]] = [], []  # of the settings, of flats that are alone
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
        for texts, more in zip(doubts, _uneven_warnings(flat, frames, signal[frames], parts), strict=True):
            texts += more
        for part in parts:
            local = frame_pairs(len(part))
            fresh += [(int(part[i]), int(part[j])) for i, j in local]
            fresh_levels += [max([*levels, *fresh_levels]) + 1] * len(local)
    if not uneven:
        return pairs, levels, sums
    warnings += [*_once(doubts[0], "settings"), *_once(doubts[1], "flats")]
    again = measure_pairs(flat, fresh, black=[black[i] for i, _ in fresh], columns=COLUMNS, progress=progress)
    keep = np.flatnonzero(~np.isin(group, uneven))
    joined = (np.concatenate([old[keep], new]) if len(new) else old[keep] for old, new in zip(sums, again, strict=True))
    pairs = [pairs[i] for i in keep] + fresh
    return pairs, [levels[i] for i in keep] + fresh_levels, PairSums(*joined)


def _parts_of_one_level(frames: np.ndarray, signal: np.ndarray) -> list[np.ndarray]:
    """Split frames where their rising signal [ADU] jumps by more than 20 %."""
    order = np.argsort(signal, kind="stable")
    jumps = np.flatnonzero(np.diff(signal[order]) > _SAME_LEVEL * np.maximum(signal[order][:-1], 0)) + 1
    return [np.sort(part) for part in np.split(frames[order], jumps)]


def _uneven_warnings(
    flat: xr.DataArray, frames: np.ndarray, signal: np.ndarray, parts: list[np.ndarray]
) -> tuple[list[str], list[str]]:
    """Say that the flats of a setting are of several levels; and of each level with one flat, that it is alone."""
    setting = {name: flat[name].values.item(frames[0]) for name in _of_level(flat)}
    files = flat["filename"].values
    faintest, brightest = files[frames[np.argmin(signal)]], files[frames[np.argmax(signal)]]
    uneven = (
        f"the flats at {describe(setting)} are not of one light level: {faintest} has a signal of {signal.min():.0f} "
        f"ADU and {brightest} one of {signal.max():.0f} ADU; they are measured as {len(parts)} levels"
    )
    return [uneven], [_lone_flat(setting, files[part]) for part in parts if len(part) < 2]


def _dataset(
    flat: xr.DataArray,
    names: tuple[str, ...],
    pairs: list[tuple[int, int]],
    levels: list[int],
    sums: PairSums,
    dark: dict[str, np.ndarray],
    seen: np.ndarray,
    warnings: list[str],
) -> xr.Dataset:
    """Return the curve; `seen` are the plain sums before flats that are lit differently were evened."""
    first, second = np.array(pairs, int).reshape(-1, 2).T
    zero = {name: level[first] for name, level in dark.items()}
    plain, kept = (pair_moments(part.sum(axis=2)) for part in (sums.plain, sums.kept))
    level = pair_moments(seen.sum(axis=2))
    pixels = np.where(level.n > 0, level.n, np.nan)
    mean, black = (level.mean1 + level.mean2) / 2, zero["black_level"]
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
        "level_change": (level.mean2 - level.mean1) / np.where(mean > black, mean - black, np.nan),
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
