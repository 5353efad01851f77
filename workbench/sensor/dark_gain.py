"""Gain from darks alone: dark current is charge that arrives at random, like light, and needs no lamp."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ..core.cube import channels_of, check_cube, group_frames
from ..core.dark import TYPICAL_DOUBLING, law_factor
from ..core.errors import Guess
from ..core.kernels import kernel
from ..core.mosaic import channel_count, channel_index, planes
from ..core.pairs import BLOCKS, jackknife_error, leave_one_out
from ..core.parallel import counted, in_threads, lazy_frames, stream_frames
from ..core.results import Table, at_iso, at_isos, described, per_channel
from ..core.settings import setting_dim
from ..core.statistics import StraightLine, coarse_std, even_sample, fit_line, misfit
from ..core.values import channel_warnings, describe
from .bias import CLIPPED_FRACTION, read_noise

_FRAMES, _GROUPS = 4, 2  # read of each setting, and settings of each ISO: 1 % from a megapixel
_POPULATIONS = 12  # of pixels, each from half to twice as much dark signal as the next
_FEWEST_PIXELS = 30  # a channel in a population, for it to have a variance
_SIGMAS = 8.0  # of a population's differences; beyond, a cosmic ray or a pixel that flickers
_LEAST_SIGNAL = 0.5  # of the read noise's variance, that the shot noise of the brightest setting has to have
_ROUNDS = 12
_AGREE = 2.6  # errors; two right numbers differ by more once in a hundred times
_MOMENTS = 4  # n, Σ mean, Σ half squared difference, zeros
_SUMS: Table = {
    "signal_sum": ("adu", "sum of the signal"),
    "variance_sum": ("adu**2", "sum of half the squared differences"),
}
_POINTS: Table = {
    "signal": ("adu", "dark signal"),
    "variance": ("adu**2", "temporal variance"),
    "zero_fraction": ("1", "pixels at zero"),
    "dark_variance": ("adu**2", "half-variance of the bias difference"),
    "dark_variance_error": ("adu**2", "error of the bias half-variance"),
    "black_level_error": ("adu", "error of the black level"),
    "black_scatter": ("adu", "standard deviation of the bias frames' means"),
}
_QUANTITIES: Table = {
    "gain": ("electron / adu", "gain from darks"),
    "gain_error": ("electron / adu", "error of the gain from darks"),
    "signal": ("adu", "dark signal of the ordinary pixels"),
    "points_used": ("1", "populations used"),
    "chi2": ("1", "χ² per degree of freedom"),
}


def dark_transfer(dark: xr.DataArray, bias: xr.DataArray | xr.Dataset, *, progress: Any = True) -> xr.Dataset:
    """Measure variance against mean of the dark signal, population by population of the pixels.

    Within one long dark pixels differ a hundredfold; sorted into populations of like signal they are a photon transfer
    curve.  Sorting by the same frames would take the noise for signal, so two frames of a setting are paired and their
    pixels sorted by a third (of two alone by one of another exposure).  The variance is ½ (y₁ − y₂)² less the square
    of the frames' mean difference; differences beyond 8 robust σ of their population are left out.

    Parameters
    ----------
    dark
        Raw darks (frame, y, x); of each ISO the two settings with the most signal are read, four frames of each.
    bias
        Bias frames of the same ISO settings, or the result of `read_noise` on them.
    progress
        False for no progress bar.

    Returns
    -------
    xarray.Dataset
        Over (point, channel, block): ``pixels``, ``signal_sum`` [ADU] above black, ``variance_sum`` [ADU²]; on point:
        ``iso``, ``temperature``, ``exposure``, ``setting`` (its number), ``population``, ``frames``.  Over (point,
        channel): ``signal`` [ADU], ``variance`` [ADU²], ``black_scatter`` [ADU], ``dark_variance`` [ADU²] of the bias
        frames with ``_error``, ``black_level_error``.  ``attrs["warnings"]``.

    Raises
    ------
    WorkbenchError
        If the frames are not raw darks.
    """
    check_cube(dark, stage="raw", kind="dark")
    zero = read_noise(bias, progress=progress) if isinstance(bias, xr.DataArray) else bias
    names = channels_of(dark.attrs["cfa_pattern"])
    zero = zero.reindex(channel=list(names))
    cell = channel_index(dark.attrs["cfa_pattern"])
    jobs, warnings = [], []
    dim = setting_dim(dark)
    for job in _jobs(dark):
        if np.isfinite(at_iso(zero["variance"], job.setting[dim])).all():
            jobs.append(job)
        else:
            at = describe({dim: job.setting[dim]})
            warnings.append(f"gain from darks at {at} needs bias frames of this setting; shoot ten or more")
    lazy, white = lazy_frames(dark), np.nan_to_num(dark.attrs["white_level"], nan=np.inf)
    order = [i for job in jobs for i in (*job.frames, *job.other)]
    stream = counted(stream_frames(lazy[i] for i in order), progress, len(order))
    rows: list[dict[str, Any]] = []
    for number, job in enumerate(jobs):
        black, variance = (at_iso(zero[name], job.setting[dim]) for name in ("black_level", "variance"))
        level = _Bias(cell, black.astype(np.float32), np.sqrt(variance).astype(np.float32), np.float32(white))
        triples = _triples(stream, len(job.frames), len(job.other) > 0)
        parts = list(in_threads(partial(_population_sums, bias=level), triples))
        sums = np.sum(parts, axis=0)  # (channel, block, population, moment)
        for population in range(_POPULATIONS):
            one = sums[:, :, population]
            if one[..., 0].sum(axis=1).min() >= _FEWEST_PIXELS * len(parts):
                of = {"setting": number, "population": population, "sums": one, "frames": len(job.frames)}
                rows.append(job.setting | of)
    for _ in stream:  # lets the bar close
        pass
    return _dataset(dark, names, rows, zero, list(dict.fromkeys(warnings)))


class _Job(NamedTuple):
    """A setting, its frames to be read, and a frame of another setting to sort by if it has only two."""

    setting: dict[str, float]
    frames: np.ndarray
    other: np.ndarray


def _jobs(dark: xr.DataArray) -> Iterator[_Job]:
    """Yield, of each ISO or gain setting, the settings that hold the most dark signal."""
    exposure, temperature = dark["exposure"].values, np.nan_to_num(dark["temperature"].values, nan=20.0)
    expected = exposure * law_factor("doubling", TYPICAL_DOUBLING, temperature, 0.0)  # only the order counts
    for key, frames in group_frames(dark, setting_dim(dark)):
        groups = [
            (setting | key, frames[where])
            for setting, where in group_frames(dark.isel(frame=frames), "temperature", "exposure")
            if setting["exposure"] > 0
        ]
        groups.sort(key=lambda group: -expected[group[1][0]])
        for setting, where in [group for group in groups if len(group[1]) > 1][:_GROUPS]:
            others = [members for other, members in groups if other is not setting]
            if len(where) > 2:
                yield _Job(setting, where[:_FRAMES], where[:0])
            elif others:
                yield _Job(setting, where, others[0][:1])


def _triples(stream: Iterator[np.ndarray], count: int, foreign: bool) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield pairs of frames with a third to sort by; memory holds four."""
    frames = [next(stream) for _ in range(count)]
    if foreign:
        yield frames[0], frames[1], next(stream)
    else:
        for i in range(0, count, 1 if count == 3 else 2):
            yield frames[i], frames[(i + 1) % count], frames[(i + 2) % count]


class _Bias(NamedTuple):
    """What bias frames say of each channel [ADU], and the white level."""

    cell: np.ndarray  # the mosaic's `channel_index`
    black: np.ndarray
    noise: np.ndarray
    white: np.float32


class _PopulationLimits(NamedTuple):
    """How pixels are sorted into populations, and which differences of the pair are outliers; all in ADU."""

    edges: np.ndarray  # (channel, population − 1), of the dark signal in a third frame
    shift: np.ndarray  # (channel), median difference of the pair
    limit: np.ndarray  # (channel, population), of the differences from it


def _population_sums(frames: tuple[np.ndarray, ...], bias: _Bias) -> np.ndarray:
    """Return the sums (channel, block, population, moment) of a pair of frames, its pixels sorted by a third."""
    first, second, third = frames
    channels, blocks = channel_count(bias.cell), max(1, min(BLOCKS, first.shape[0] // bias.cell.shape[0]))
    edges, shifts = np.empty((channels, _POPULATIONS - 1), np.float32), np.zeros(channels, np.float32)
    limits = _PopulationLimits(edges, shifts, np.full((channels, _POPULATIONS), np.inf, np.float32))
    every = zip(*(planes(frame, bias.cell) for frame in frames), strict=True)
    for (channel, one), (_, two), (_, key) in every:
        black, noise = bias.black[channel], bias.noise[channel]
        near, far, ranked = (even_sample(plane, 1 << 14).astype(np.float32) for plane in (one, two, key))
        sample = ranked - black
        # the ordinary pixels are one population, from which the noise alone would sort; then twice as much each
        base = max(float(np.median(sample)), 0.0) + 6 * np.hypot(noise, np.sqrt(max(np.median(sample), 0.0)))
        edges = limits.edges[channel]
        edges[:] = base * 2.0 ** np.arange(_POPULATIONS - 1)
        few = near - far
        shift = limits.shift[channel] = np.median(few)
        limits.limit[channel, 0] = _SIGMAS * coarse_std(few[sample < edges[0]] - shift)
        hot = key >= black + edges[0]  # some thousands
        where = np.digitize(key[hot] - black, edges)
        difference = one[hot].astype(np.float32) - two[hot] - shift
        for population in np.unique(where):
            limits.limit[channel, population] = _SIGMAS * coarse_std(difference[where == population])
    sums = np.zeros((channels, blocks, _POPULATIONS, _MOMENTS))
    _accumulate(first, second, third, bias, limits, sums)
    return sums


@kernel(error_model="numpy")
def _accumulate(first, second, third, bias, limits, sums):
    """Add a pair of frames (y, x) [ADU], sorted by a third, to the sums (channel, block, population, moment)."""
    cell, black, white = bias.cell, bias.black, bias.white
    edges, shift, limit = limits.edges, limits.shift, limits.limit
    step = cell.shape[0]
    rows, columns = first.shape[0] // step, first.shape[1] // step
    blocks = sums.shape[1]
    for row in range(rows):
        block = row * blocks // rows
        for dy in range(step):
            for dx in range(step):
                c = cell[dy, dx]
                for k in range(columns):
                    y, x = row * step + dy, k * step + dx
                    a, b, z = np.float32(first[y, x]), np.float32(second[y, x]), np.float32(third[y, x])
                    # by the third frame alone: to leave out what saturates in this pair would choose by its noise
                    if not (z < np.float32(0.5) * white):
                        continue
                    z -= black[c]
                    difference = np.float64(a - b - shift[c])
                    population = 0
                    while population < edges.shape[1] and z >= edges[c, population]:
                        population += 1
                    if abs(difference) <= limit[c, population]:
                        out = sums[c, block, population]
                        out[0] += 1
                        out[1] += np.float64((a + b) / 2 - black[c])
                        out[2] += difference * difference / 2
                        out[3] += np.int64((a <= 0) | (b <= 0))


def _dataset(
    dark: xr.DataArray, names: tuple[str, ...], rows: list[dict[str, Any]], zero: xr.Dataset, warnings: list[str]
) -> xr.Dataset:
    sums = np.array([row["sums"] for row in rows]) if rows else np.zeros((0, len(names), 1, _MOMENTS))
    count, signal, variance, zeros = np.moveaxis(sums, -1, 0)
    pixels = np.where(count.sum(-1) > 0, count.sum(-1), np.nan)
    sources = {"dark_variance": "variance", "dark_variance_error": "variance_error",
               "black_level_error": "black_level_error", "black_scatter": "frame_scatter"}  # fmt: skip
    dim = setting_dim(dark)
    isos = [row[dim] for row in rows]
    values = {name: at_isos(zero[source], isos) for name, source in sources.items()} | {
        "signal": signal.sum(-1) / pixels,
        "variance": variance.sum(-1) / pixels,
        "zero_fraction": zeros.sum(-1) / pixels,
    }
    data: dict[str, Any] = described(_POINTS, ("point", "channel"), values)
    data["pixels"] = (("point", "channel", "block"), count, {"long_name": "pixels"})
    by_block = {"signal_sum": signal, "variance_sum": variance}
    data |= described(_SUMS, ("point", "channel", "block"), by_block)
    coords: dict[str, Any] = {"channel": list(names)}
    for name in (dim, "temperature", "exposure"):
        coords[name] = ("point", np.array([row[name] for row in rows], float), dark[name].attrs)
    for name in ("setting", "population", "frames"):
        coords[name] = ("point", np.array([row[name] for row in rows], int))
    attrs = {"camera": dark.attrs["camera"], "long_name": "variance against mean of darks", "warnings": warnings}
    return xr.Dataset(data, coords, attrs)


def gain_from_darks(transfer: xr.Dataset) -> xr.Dataset:
    """Fit the gain of every setting and channel to the darks' variance against their mean.

    variance = signal/g + R through all populations of all settings, R the variance of the bias pairs; weights are
    1/Var of the variance that the fit predicts.  The error is a jackknife over blocks of rows with those of R and of
    the black level added, and the offset's scatter from frame to frame; where χ² says that the line does not hold it is
    widened.

    Parameters
    ----------
    transfer
        From `dark_transfer`.

    Returns
    -------
    xarray.Dataset
        Over (iso, channel): ``gain`` [e⁻/ADU] with ``gain_error``; ``signal`` [ADU] of the brightest setting's ordinary
        pixels; ``points_used``; ``chi2`` per degree of freedom.  What cannot be measured is NaN, and
        ``attrs["warnings"]`` says why.
    """
    channels = transfer["channel"].values.tolist()
    dim, settings, rows, warnings = setting_dim(transfer), [], [], []
    for setting, where in group_frames(transfer, dim):
        here = transfer.isel(point=where)
        fits = [_fit(here.isel(channel=column)) for column in range(len(channels))]
        settings.append(setting[dim])
        rows.append([values for values, _ in fits])
        warnings += channel_warnings("gain from darks", setting, channels, [problem for _, problem in fits])
    attrs = {"camera": transfer.attrs["camera"], "long_name": "gain from darks", "warnings": warnings}
    return per_channel(_QUANTITIES, rows, {dim: settings}, channels, **attrs)


def _usable(one: xr.Dataset) -> tuple[xr.Dataset, str]:
    """Return the points of a channel that are not clipped, and why none can be fitted."""
    if one.sizes["point"]:
        whole = (one["zero_fraction"].values <= CLIPPED_FRACTION) & (one["pixels"].values.sum(axis=1) > 0)
        # a setting goes as a whole: what of it lies above zero was chosen by its noise
        one = one.isel(point=~np.isin(one["setting"].values, one["setting"].values[~whole]))
        if not whole.any():
            return one, "the darks are clipped at zero, so their mean is not their signal; shoot longer or warmer ones"
    if not one.sizes["point"]:
        return one, "two long darks and a third to sort by are needed; shoot four of ten minutes"
    ordinary = one.isel(point=one["population"].values == 0)
    shot = (ordinary["variance"] - ordinary["dark_variance"]).values
    if not shot.size or shot.max() < _LEAST_SIGNAL * one["dark_variance"].values.max():
        return one, "the darks hold too little dark current; shoot four of ten minutes or more, as warm as possible"
    if not ordinary["signal"].values.max() > 0.05 * shot.max():
        return (
            one,
            "their noise grows and their level does not: the camera subtracts the mean dark itself, or its black level "
            "has moved",
        )
    return one, ""


def _fit(one: xr.Dataset) -> tuple[dict[str, float], str]:
    one, problem = _usable(one)
    ordinary = one["signal"].values[one["population"].values == 0]
    found = {"signal": float(ordinary.max())} if ordinary.size else {}
    if problem:
        return found, problem
    n, s, v = (one[name].values for name in ("pixels", "signal_sum", "variance_sum"))  # (point, block)
    read = one["dark_variance"].values
    line, weight = _line(n.sum(axis=1), s.sum(axis=1), v.sum(axis=1), read)
    pixels, signals, squares = (leave_one_out(values, axis=1).T for values in (n, s, v))
    lines, _ = _line(pixels, signals, squares, read)
    slope, x = line.slope, one["signal"].values
    residual = one["variance"].values - read - slope * x
    count = np.where(pixels > 0, pixels, 1)
    spread = jackknife_error(squares / count - read - lines.slope[:, None] * signals / count)
    scatter = slope * one["black_scatter"].values / np.sqrt(one["frames"].values)
    degrees, blocks = x.size - 1, n.shape[1]
    # each residual is measured in its own spread, so that their squares add up to as many as there are points
    chi2 = float((residual**2 / (spread**2 + scatter**2)).mean()) * degrees * max(blocks - 3, 1) / max(blocks - 1, 1)
    widen, off = misfit(chi2, degrees)
    if off:
        problem = Guess(
            f"variance and mean of the darks do not lie on one line (χ² is {chi2 / degrees:.1f} times what it should "
            "be), so the error is widened",
            "hot pixels that flicker, or darks that were not equally warm, do this",
            "warmth",
        )
    lever = weight * x * line.slope_variance
    by_read = lever.sum() * float(one["dark_variance_error"].values.mean())
    by_black = slope * lever.sum() * float(np.nan_to_num(one["black_level_error"].values).mean())
    # the offset of a setting's frames is shared by its populations
    setting = one["setting"].values
    by_scatter = np.sqrt(sum(float((lever * scatter)[setting == number].sum()) ** 2 for number in np.unique(setting)))
    error = np.sqrt((float(jackknife_error(lines.slope)) * widen) ** 2 + by_read**2 + by_black**2 + by_scatter**2)
    found |= {"points_used": x.size, "chi2": chi2 / degrees if degrees else np.nan}
    if not slope > 0 or not error < slope:
        return found, "the variance does not rise with the dark signal beyond its error; shoot longer or warmer darks"
    return found | {"gain": float(1 / slope), "gain_error": float(error / slope**2)}, problem


def _line(
    pixels: np.ndarray, signals: np.ndarray, squares: np.ndarray, read: np.ndarray
) -> tuple[StraightLine, np.ndarray]:
    """Fit variance − R = slope · signal of sums (..., point), with weights 1/Var of the model; also the weights."""
    count = np.where(pixels > 0, pixels, 1)
    x, y = signals / count, squares / count - read
    slope = np.median(y / x, axis=-1, keepdims=True)
    for _ in range(_ROUNDS):
        model = np.maximum(slope * np.maximum(x, 0) + read, 0.1 * read)
        weight = pixels / model**2
        line = fit_line(x, y, weight, through_origin=True)
        slope = line.slope[..., None]
    return line, weight


def compare_gains(darks: xr.Dataset, flats: xr.Dataset) -> xr.Dataset:
    """Compare the gain of the darks with that of the flats.

    Returns
    -------
    xarray.Dataset
        `darks` with ``ratio`` over (iso, channel), gain from darks over gain from flats, ``ratio_error``, and
        ``agrees``: the two differ by less than 2.6 errors, as 99 % of right ones do (False where either is missing).

    Examples
    --------
    >>> dims, coords = ("iso", "channel"), {"iso": [100.0], "channel": ["mono"]}
    >>> both = [xr.Dataset({"gain": (dims, [[g]]), "gain_error": (dims, [[0.02]])}, coords) for g in (2.03, 2.0)]
    >>> result = compare_gains(*both)
    >>> bool(result.agrees.item()), round(result.ratio.item(), 3)
    (True, 1.015)
    """
    other, dim = flats[["gain", "gain_error"]].reindex(channel=darks["channel"]), setting_dim(darks)
    value, error = (at_isos(other[name], darks[dim].values) for name in ("gain", "gain_error"))
    ratio = darks["gain"].values / value
    spread = ratio * np.hypot(darks["gain_error"].values / darks["gain"].values, error / value)
    dims = (dim, "channel")
    return darks.assign(
        ratio=(dims, ratio, {"units": "1", "long_name": "gain from darks over gain from flats"}),
        ratio_error=(dims, spread, {"units": "1", "long_name": "error of that ratio"}),
        agrees=(dims, np.abs(ratio - 1) < _AGREE * spread, {"long_name": "whether they agree"}),
    )
