"""Photon transfer: the variance of pairs of flats against their mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from ..core.cube import Setting, channels_of, check_cube, group_frames
from ..core.pairs import (
    MOMENTS,
    PairSums,
    frame_pairs,
    jackknife_error,
    leave_one_out,
    measure_pairs,
    pair_moments,
)
from ..core.results import at_isos, same_iso
from ..core.values import describe, listed
from .bias import read_noise

SAME_LEVEL = 0.2  # flats whose means differ by more are not of one light level


def photon_transfer(
    flat: xr.DataArray, bias: xr.DataArray | xr.Dataset | None = None, *, progress: Any = True
) -> xr.Dataset:
    """Measure mean and variance of every pair of equal flats, for each channel.

    Flats of one ISO, exposure and aperture are one light level, unless their means differ by more than 20 %.  Each
    is paired with the next, and the last with the first.  The variance is ½ Var((μ₂y₁ − μ₁y₂)/μ): scaled to one
    level first, it is free of lamp drift and, being a difference, of fixed pattern, vignetting and PRNU.

    Parameters
    ----------
    flat
        Raw flats (frame, y, x), two or more at each of several light levels.
    bias
        Bias frames of the same ISO settings, or the result of `read_noise` on them.  Without them the black level is
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
        channel, block, moment): ``sums`` and ``sums_plain`` (see `workbench.core.pairs`).  On pair: ``iso``,
        ``exposure``, ``aperture``, ``filename_1``, ``filename_2`` and ``level``, the number of the light level.

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
    for number, (setting, frames) in enumerate(group_frames(flat, "iso", "exposure", "aperture")):
        if len(frames) < 2:
            warnings.append(_lone_flat(setting, flat["filename"].values[frames]))
        local = frame_pairs(len(frames))
        pairs += [(int(frames[i]), int(frames[j])) for i, j in local]
        levels += [number] * len(local)
    sums = measure_pairs(flat, pairs, black=[dark["black_level"][i] for i, _ in pairs], progress=progress)
    pairs, levels, sums = _split_levels(flat, pairs, levels, sums, dark["black_level"], warnings, progress)
    return _dataset(flat, names, pairs, levels, sums, dark, warnings)


def _zero_level(
    flat: xr.DataArray, zero: xr.Dataset | None, names: tuple[str, ...], warnings: list[str]
) -> dict[str, np.ndarray]:
    """Return black level and dark variance for each flat (frame, channel): from bias frames, else from the file."""
    shape = (flat.sizes["frame"], len(names))
    dark = {name: np.full(shape, np.nan) for name in _ZERO}
    dark["black_level"][:] = np.nan_to_num(flat.attrs["black_level"], nan=0.0)
    dark["black_level_error"][:] = 0.0
    dark["black_scatter"][:] = 0.0
    for setting, frames in group_frames(flat, "iso"):
        one = None
        if zero is not None and (where := np.flatnonzero(same_iso(zero["iso"].values, setting["iso"]))).size:
            one = zero.isel(iso=where[0]).reindex(channel=list(names))
        if one is not None and np.isfinite(one["black_level"]).all():
            dark["black_level"][frames] = one["black_level"]
            # of a single bias frame neither is known
            dark["black_level_error"][frames] = np.nan_to_num(one["black_level_error"])
            dark["black_scatter"][frames] = np.nan_to_num(one["frame_scatter"])
        if one is not None:
            dark["dark_variance"][frames] = one["variance"]
            dark["dark_variance_error"][frames] = one["variance_error"]
        if one is None and np.isnan(flat.attrs["black_level"]).any():
            warnings.append(
                f"neither bias frames nor a stated black level at {describe(setting)}: the flats' level is taken from "
                "zero; shoot bias frames at this ISO"
            )
    return dark


_ZERO = ("black_level", "black_level_error", "black_scatter", "dark_variance", "dark_variance_error")


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
        if span <= SAME_LEVEL * max(np.median(signal[frames]), 0):
            continue
        if span <= np.sqrt(np.nanmean(moments.variance1[here])):  # near black, noise is not a change of level
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
    jumps = np.flatnonzero(np.diff(signal[order]) > SAME_LEVEL * np.maximum(signal[order][:-1], 0)) + 1
    return [np.sort(part) for part in np.split(frames[order], jumps)]


def _uneven_warnings(flat: xr.DataArray, frames: np.ndarray, signal: np.ndarray, parts: list[np.ndarray]) -> list[str]:
    setting = {name: float(flat[name].values[frames[0]]) for name in ("iso", "exposure", "aperture")}
    files = flat["filename"].values
    faintest, brightest = files[frames[np.argmin(signal)]], files[frames[np.argmax(signal)]]
    uneven = (
        f"the flats at {describe(setting)} are not of one light level: {faintest} has a signal of {signal.min():.0f} "
        f"ADU and {brightest} one of {signal.max():.0f} ADU; they are measured as {len(parts)} levels"
    )
    return [uneven, *(_lone_flat(setting, files[part]) for part in parts if len(part) < 2)]


def _pair_values(sums: PairSums, zero: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, str, str]]:
    """Return what follows from the sums of each pair (pair, channel), with unit and title; `zero` is without light."""
    plain, kept = (pair_moments(part.sum(axis=2)) for part in (sums.plain, sums.kept))
    pixels = np.where(plain.n > 0, plain.n, np.nan)
    mean = (plain.mean1 + plain.mean2) / 2
    black = zero["black_level"]
    replicates = pair_moments(leave_one_out(sums.kept, axis=2)).scaled_half_variance(black[..., None])
    adu2 = "adu**2"
    return {
        "mean": (mean, "adu", "mean level as read"),
        "signal": (mean - black, "adu", "signal above the black level"),
        "variance": (kept.scaled_half_variance(black), adu2, "temporal variance"),
        "variance_error": (jackknife_error(replicates, axis=-1), adu2, "error of the temporal variance"),
        "variance_plain": (plain.half_variance, adu2, "half-variance of the difference"),
        "mean_single": (sums.centre[..., 0], "adu", "mean of the middle of one frame"),
        "variance_single": (sums.centre[..., 1], adu2, "variance over the middle of one frame"),
        "saturated_fraction": (sums.saturated.sum(axis=2) / pixels, "1", "fraction of saturated pixels"),
        "zero_fraction": (sums.zero.sum(axis=2) / pixels, "1", "fraction of pixels at zero"),
        "level_change": (
            (plain.mean2 - plain.mean1) / np.where(mean > black, mean - black, np.nan),
            "1",
            "change of level from the first to the second frame",
        ),
        "black_level": (black, "adu", "black level subtracted"),
        "black_level_error": (zero["black_level_error"], "adu", "error of the black level"),
        "black_scatter": (zero["black_scatter"], "adu", "standard deviation of the bias frames' means"),
        "dark_variance": (zero["dark_variance"], adu2, "half-variance of the bias difference"),
        "dark_variance_error": (zero["dark_variance_error"], adu2, "error of the bias half-variance"),
    }


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
    values = _pair_values(sums, {name: level[first] for name, level in dark.items()})
    data: dict[str, Any] = {
        name: (("pair", "channel"), value, {"units": units, "long_name": long_name})
        for name, (value, units, long_name) in values.items()
    }
    for name, part in (("sums", sums.kept), ("sums_plain", sums.plain)):
        data[name] = (("pair", "channel", "block", "moment"), part, {"long_name": f"{name} of the pairs [ADU^k]"})
    coords: dict[str, Any] = {
        name: ("pair", flat[name].values[first], flat[name].attrs) for name in ("iso", "exposure", "aperture")
    }
    coords |= {
        "filename_1": ("pair", flat["filename"].values[first]),
        "filename_2": ("pair", flat["filename"].values[second]),
        "level": ("pair", np.array(levels, int), {"long_name": "number of the light level"}),
        "channel": list(names),
        "moment": list(MOMENTS),
    }
    attrs = {
        "camera": flat.attrs["camera"],
        "white_level": flat.attrs["white_level"],
        "long_name": "photon transfer",
        "warnings": warnings,
    }
    return xr.Dataset(data, coords, attrs)


def shot_noise_snr(ptc: xr.Dataset, gain: xr.Dataset) -> xr.Dataset:
    """Compare the signal-to-noise ratio of each pair of flats with that of shot noise alone, √N.

    Measured: signal/√variance of a pair's pixels, read noise included; N = signal · gain electrons.

    Returns
    -------
    xarray.Dataset
        Over point, one for each pair and channel that the fit used: ``snr`` with ``snr_error``, ``snr_expected`` = √N,
        ``electrons`` N, and ``iso``, ``exposure`` [s], ``aperture``, ``channel``.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> from workbench.sensor import fit_gain, photon_transfer
    >>> rng = np.random.default_rng(0)
    >>> y = rng.poisson(np.repeat([400, 1600], 2)[:, None, None], (4, 256, 256)).astype("uint16")
    >>> ptc = photon_transfer(make_cube(y, cfa_pattern="mono", kind="flat", iso=100, exposure=[1, 1, 4, 4],
    ...                                 black_level=0), progress=False)
    >>> shot_noise_snr(ptc, fit_gain(ptc)).snr.round().values
    array([20., 40.])
    """
    pair, channel = np.nonzero(gain["used"].values)
    factor = at_isos(gain["gain"], ptc["iso"].values)[pair, channel]
    signal, variance, error = (ptc[name].values[pair, channel] for name in ("signal", "variance", "variance_error"))
    good = np.isfinite(factor) & (factor > 0) & (signal > 0) & (variance > 0)
    pair, channel, factor, signal, variance, error = (
        part[good] for part in (pair, channel, factor, signal, variance, error)
    )
    ratio, electrons = signal / np.sqrt(variance), signal * factor
    data = {
        "snr": (ratio, "1", "signal-to-noise ratio"),
        "snr_error": (ratio * error / (2 * variance), "1", "error of the signal-to-noise ratio"),
        "snr_expected": (np.sqrt(electrons), "1", "√N"),
        "electrons": (electrons, "electron", "signal"),
    }
    coords: dict[str, Any] = {
        name: ("point", ptc[name].values[pair], ptc[name].attrs) for name in ("iso", "exposure", "aperture")
    }
    coords["channel"] = ("point", ptc["channel"].values[channel])
    return xr.Dataset(
        {name: ("point", value, {"units": units, "long_name": text}) for name, (value, units, text) in data.items()},
        coords,
        {"camera": ptc.attrs["camera"], "long_name": "signal-to-noise ratio"},
    )
