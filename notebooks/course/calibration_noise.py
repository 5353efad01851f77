"""Notebooks 08 and 09: the noise of masters by the number of their frames, and of a light after each step.

The steps are the arithmetic of `calibrate`, taken apart so that it can be looked at: the last one is what it gives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy import ndimage

from workbench.calibrate.apply import Tables, calibrate_frame
from workbench.calibrate.masters import master_bias, master_dark, master_flat
from workbench.calibrate.masterset import Masters, MasterSet
from workbench.calibrate.noise import SensorNoise
from workbench.core.area import neighbour_mean
from workbench.core.cube import channels_of, check_cube
from workbench.core.errors import WorkbenchError
from workbench.core.mosaic import channel_index, planes, spread
from workbench.core.statistics import mad_std

_EVENT = 8.0  # [σ] beyond which a calibrated pixel shows a cosmic ray
_FEWEST = 1000  # pixels of sky that a noise is measured in


def calibration_steps(light: xr.DataArray, masters: MasterSet, number: int = 0) -> xr.Dataset:
    """Calibrate one light and keep what it looks like after each step.

    Parameters
    ----------
    light
        Lights as read.
    masters
        What `make_masters` made for them.
    number
        Which light.

    Returns
    -------
    Dataset with ``signal`` (step, y, x) [e-]: ``as read`` (black level subtracted as one number a channel),
    ``bias subtracted``, ``dark subtracted``, ``flat divided``, ``defects filled``, steps without a master left out;
    ``temporal`` (step, y, x) [e-²]: the variance by which the frame's pixels would differ from those of another one
    like it, the masters' own included; ``pattern`` (step, y, x) [e-]: what is left in it of the masters' pattern, with
    ``pattern_variance`` [e-²], the masters' own noise in it; and ``mask`` (y, x).

    Raises
    ------
    WorkbenchError
        If the cube has not so many lights, or the masters were not made for this one.
    """
    check_cube(light, stage="raw", kind="light")
    if not 0 <= number < light.sizes["frame"]:
        raise WorkbenchError(f"there are lights 0 to {light.sizes['frame'] - 1}, and not {number}")
    masters_of_light, factor = masters.of(light, number)
    tables = masters_of_light.tables()
    frame = light.isel(frame=number)
    raw = np.asarray(frame.values)
    raw = raw if raw.dtype == np.uint16 else raw.astype(np.float32)
    filled, variance, mask, _ = calibrate_frame(raw, tables, factor)
    none = np.zeros(raw.shape)
    steps = _steps_before_filling(raw, masters_of_light, tables, factor, mask == 0)
    steps.append(_Step("defects filled", filled, variance, none, none))
    names, *maps = zip(*steps, strict=True)
    units = {"signal": "electron", "temporal": "electron**2", "pattern": "electron", "pattern_variance": "electron**2"}
    found = {
        name: (("step", "y", "x"), np.stack(values).astype(np.float32), {"units": unit})
        for (name, unit), values in zip(units.items(), maps, strict=True)
    }
    attrs = {name: light.attrs[name] for name in ("camera", "cfa_pattern")}
    attrs |= {"filename": str(frame["filename"].values), "units": "electron"}
    result = xr.Dataset(found | {"mask": (("y", "x"), mask)}, coords={"step": list(names)}, attrs=attrs)
    result["signal"].attrs["long_name"] = "signal"
    return result


class _Step(NamedTuple):
    """Signal [e-], temporal variance [e-²], pattern [e-] and the variance of the pattern's own noise [e-²], (y, x)."""

    name: str
    signal: np.ndarray
    temporal: np.ndarray
    pattern: np.ndarray
    pattern_variance: np.ndarray


def _steps_before_filling(
    raw: np.ndarray, masters: Masters, tables: Tables, factor: float, sound: np.ndarray
) -> list[_Step]:
    """Return the steps of one light (y, x) [ADU] that there are masters for; `sound` are the pixels without a flag."""
    shape = raw.shape
    values = (tables.gain, *tables.law.T, tables.constant, tables.black)
    gain, quiet, inverse, constant, black = (spread(one, tables.cell, shape) for one in values)
    black = np.where(np.isfinite(black), black, constant)
    signal = gain * (raw - black)
    temporal = gain**2 * (quiet + inverse * _calm(raw - black, tables))
    none = np.zeros(shape)
    level = float(np.median(signal[sound])) if sound.any() else 0.0
    # what flat, bias and dark leave in a light, and the masters' own noise in it [e-, e-²]
    uneven, of_flat = none, none
    if masters.flat is not None:
        uneven, of_flat = (tables.response - 1) * level, level**2 * tables.response_variance
    ground, of_ground = none, none
    if masters.bias is not None:
        bias, of_bias = gain * (masters.bias["signal"].values - black), gain**2 * masters.bias["variance"].values
        ground, of_ground = bias, of_bias
    if masters.dark is not None:
        dark = gain * (tables.base + constant + factor * tables.dark - black)
        of_dark = gain**2 * (factor**2 * tables.dark_variance + (1 - factor) ** 2 * tables.base_variance)
        ground, of_ground = dark, of_dark
    steps = [_Step("as read", signal, temporal, ground + uneven, of_ground + of_flat)]
    if masters.bias is not None:
        left, own = ground - bias + uneven, of_ground + of_bias + of_flat
        steps.append(_Step("bias subtracted", signal - bias, temporal + of_bias, left, own))
    if masters.dark is not None:
        steps.append(
            _Step("dark subtracted", signal - dark, temporal + of_dark, uneven, np.broadcast_to(of_flat, shape))
        )
    if masters.flat is not None:
        corrected = steps[-1].signal / tables.response
        temporal = (steps[-1].temporal + corrected**2 * tables.response_variance) / tables.response**2
        steps.append(_Step("flat divided", corrected, temporal, none, none))
    return steps


def _calm(above: np.ndarray, tables: Tables) -> np.ndarray:
    """Return the level [ADU above black] of the shot noise: the median of nine pixels of the same colour."""
    step = tables.cell.shape[0]
    footprint = np.zeros((2 * step + 1, 2 * step + 1), bool)
    footprint[::step, ::step] = True
    return ndimage.median_filter(np.maximum(above, 0), footprint=footprint, mode="nearest")


def step_noise(steps: xr.Dataset) -> xr.Dataset:
    """Measure the noise of the sky after each step of calibration, and compare it with what the masters predict.

    A pixel is compared with its four neighbours of the same colour: d = p - mean of the four, Var d = 1.25 σ² for
    independent pixels.  Stars and cosmic rays are left out, hot pixels are not.  Predicted is
    σ² = mean temporal variance + Var(pattern), the latter taken the same way and freed of the masters' own noise.

    Parameters
    ----------
    steps
        From `calibration_steps`.

    Returns
    -------
    Dataset over (channel, step): ``noise``, ``noise_error`` and ``predicted`` [e-]; ``temporal`` [e-], the part of
    the prediction that masters cannot take away; ``ordinary`` [e-], the noise of the pixels without the outliers
    (1.4826 MAD).

    Raises
    ------
    WorkbenchError
        If there is too little sky without stars.
    """
    pattern = steps.attrs["cfa_pattern"]
    names, cell = channels_of(pattern), channel_index(pattern)
    sky = dict(planes(_sky(steps, cell), cell))
    maps = ("signal", "temporal", "pattern", "pattern_variance")
    rows = []
    for channel in range(len(names)):
        good = sky[channel][1:-1, 1:-1]
        if good.sum() < _FEWEST:
            raise WorkbenchError("there is too little sky without stars in this light to measure the noise in")
        cut = [dict(planes(steps[name].values, cell))[channel] for name in maps]
        rows.append([_noise_of_step(good, *values) for values in zip(*cut, strict=True)])
    found = dict(zip(_StepNoise._fields, np.moveaxis(np.array(rows), -1, 0), strict=True))
    return xr.Dataset(
        {name: (("channel", "step"), values, {"units": "electron"}) for name, values in found.items()},
        coords={"channel": list(names), "step": steps["step"].values},
        attrs=steps.attrs,
    )


class _StepNoise(NamedTuple):
    noise: float
    noise_error: float
    predicted: float
    temporal: float
    ordinary: float


def _noise_of_step(
    good: np.ndarray, signal: np.ndarray, temporal: np.ndarray, pattern: np.ndarray, pattern_variance: np.ndarray
) -> _StepNoise:
    """Return the noise [e-] of one plane (y, x) where `good` (y - 2, x - 2)."""
    d = (signal[1:-1, 1:-1] - neighbour_mean(signal))[good].astype(float)
    d = d[np.isfinite(d)]
    noise = math.sqrt(d.var() / 1.25)
    # the fourth moment: a few hot pixels make the variance itself uncertain
    error = math.sqrt(max(np.mean(d**4) / d.var() ** 2 - 1, 2) / d.size) * noise / 2
    whole, own = (np.nanmean(values[1:-1, 1:-1][good], dtype=float) for values in (temporal, pattern_variance))
    detail = (pattern[1:-1, 1:-1] - neighbour_mean(pattern))[good]
    lasting = max(np.nanvar(detail, dtype=float) / 1.25 - own, 0.0)
    ordinary = float(mad_std(d)) / math.sqrt(1.25)
    return _StepNoise(noise, error, math.sqrt(whole + lasting), math.sqrt(whole), ordinary)


def _sky(steps: xr.Dataset, cell: np.ndarray) -> np.ndarray:
    """Return where the last step shows neither stars nor cosmic rays nor saturated pixels; boolean (y, x)."""
    final = steps["signal"].values[-1]
    sigma = np.sqrt(steps["temporal"].values[-1])
    size = 2 * cell.shape[0] + 1
    known = np.where(np.isfinite(final), final, np.nanmedian(final))
    smooth = ndimage.gaussian_filter(ndimage.uniform_filter(known, cell.shape[0]), 2)
    ground = ndimage.median_filter(smooth[::8, ::8], 9, mode="nearest").repeat(8, 0).repeat(8, 1)
    above = smooth - ground[: smooth.shape[0], : smooth.shape[1]]
    above -= np.median(above)
    stars = ndimage.binary_dilation(above > 4 * mad_std(above, centre=0), iterations=5)
    hits = np.zeros(final.shape, bool)
    maps = (planes(values, cell) for values in (known, sigma, hits))
    for (_, plane), (_, noise), (_, hit) in zip(*maps, strict=True):
        hit[:] = plane - ndimage.median_filter(plane, 5) > _EVENT * noise
    hits = ndimage.binary_dilation(hits, np.ones((size, size)))
    return ~stars & ~hits & ((steps["mask"].values & 6) == 0)


def measure_master_noise(
    cube: xr.DataArray,
    bias: xr.Dataset | None = None,
    noise: SensorNoise | None = None,
    *,
    counts: Sequence[int] | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Make masters of 1, 2, 4 ... frames and measure their noise, to be compared with σ/√N and the masters' variance.

    The noise is measured between two masters that have no frame in common: σ = SD(A - B)/√2, which is free
    of the fixed pattern; so N goes up to half of the frames.  What lies beyond 5 σ (unstable pixels) is left out.

    Parameters
    ----------
    cube
        Bias, dark or flat frames, all of one setting, as read.
    bias, noise
        As for `master_dark` and `master_flat`.
    counts
        Numbers of frames in a master; 1, 2, 4 ... by default.

    Returns
    -------
    Dataset over (channel, count): ``noise`` and ``noise_error``, ``claimed``, the root of the median variance that the
    masters carry, and ``law``, the noise of one frame over √N; ADU, of flats relative.

    Raises
    ------
    WorkbenchError
        If there are fewer than two frames, or the counts do not leave two masters.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> frames = np.random.default_rng(1).normal(600, 4, (8, 64, 64)).round().astype("uint16")
    >>> found = measure_master_noise(make_cube(frames, cfa_pattern="RGGB", kind="bias", iso=100), progress=False)
    >>> found["count"].values.tolist(), found.noise.mean("channel").values.round(1).tolist()
    ([1, 2, 4], [4.0, 2.8, 2.0])
    """
    total = cube.sizes["frame"]
    if total < 2:
        raise WorkbenchError("the noise of a master shows between two of them: give two frames or more")
    if counts is None:
        counts = [2**k for k in range(int(math.log2(total // 2)) + 1)]
    counts = sorted({int(count) for count in counts})
    if counts[0] < 1 or 2 * counts[-1] > total:
        raise WorkbenchError(
            f"two masters without a frame in common need 2 N frames; of {total} N is at most {total // 2}"
        )
    kind = str(cube["kind"].values[0])

    def master(first: int, count: int) -> xr.Dataset:
        frames = cube.isel(frame=slice(first, first + count))
        if kind == "bias":
            return master_bias(frames, noise, progress=progress)
        if kind == "flat":
            return master_flat(frames, None, bias, noise, progress=progress)
        return master_dark(frames, bias, noise, progress=progress)

    names = channels_of(cube.attrs["cfa_pattern"])
    squares = np.zeros((3, len(names), len(counts)))
    for column, count in enumerate(counts):
        pairs = min(total // (2 * count), 2)
        for pair in range(pairs):
            first, second = (master((2 * pair + k) * count, count) for k in (0, 1))
            squares[..., column] += _noise_between(first, second) / pairs
        squares[2, :, column] /= pairs
    found, claimed, relative = np.sqrt(squares)
    unit = {"units": "1" if kind == "flat" else "adu"}
    law = found[:, :1] * np.sqrt(counts[0] / np.array(counts))
    return xr.Dataset(
        {
            "noise": (("channel", "count"), found, {**unit, "long_name": f"noise of a master {kind}"}),
            "noise_error": (("channel", "count"), relative * found, unit),
            "claimed": (("channel", "count"), claimed, {**unit, "long_name": "noise by the master's own variance"}),
            "law": (("channel", "count"), law, {**unit, "long_name": "noise of one frame over √N"}),
        },
        coords={"channel": list(names), "count": counts},
        attrs={"kind": kind, "frames": total, "camera": cube.attrs["camera"]},
    )


def _noise_between(first: xr.Dataset, second: xr.Dataset) -> np.ndarray:
    """Return noise² of two masters by their difference, by their variance, and (relative error)², (3, channel)."""
    pattern = first.attrs["cfa_pattern"]
    difference = (first["signal"].values - second["signal"].values).astype(float)
    rows = []
    for (_, d), (_, variance) in zip(
        planes(difference, pattern), planes(first["variance"].values, pattern), strict=True
    ):
        d = d[np.isfinite(d)]
        d = d - np.median(d)
        d = d[np.abs(d) <= 5 * (mad_std(d, centre=0) or d.std())]
        rows.append((d.var() / 2, float(np.nanmedian(variance)), 1 / (2 * d.size)))
    return np.transpose(rows)


def added_noise(
    one: float | np.ndarray, light: float, frames: int | np.ndarray, *, lights: int = 1, dithered: bool = True
) -> float | np.ndarray:
    """Return the relative rise of a stack's noise by a master of so many frames: √(1 + c σ²/(N σ_L²)) - 1.

    σ is the noise of one of its frames, σ_L that of one light.  A master's noise is the same in every light: in a
    stack of L lights that see each star on the same pixels it does not average, c = L; dithered, it does, c = 1.

    Parameters
    ----------
    one, light
        Noise of one calibration frame and of one light, in the same unit.
    frames
        In the master.
    lights
        In the stack.
    dithered
        Whether the lights were shifted by some pixels from frame to frame.

    Examples
    --------
    >>> [f"{added_noise(3.0, 15.0, 16, lights=64, dithered=dithered):.3%}" for dithered in (True, False)]
    ['0.125%', '7.703%']
    """
    share = 1 if dithered else lights
    return np.sqrt(1 + share * np.square(one) / (np.asarray(frames, float) * light**2)) - 1


def frames_needed(one: float, light: float, *, added: float = 0.05, lights: int = 1, dithered: bool = True) -> int:
    """Return how many frames a master needs so that a stack's noise rises by no more than `added`.

    Raises
    ------
    WorkbenchError
        If a number that must be positive is not.

    Examples
    --------
    >>> frames_needed(12.0, 15.0), frames_needed(12.0, 15.0, lights=20, dithered=False)
    (7, 125)
    """
    if not (one > 0 and light > 0 and added > 0 and lights >= 1):
        raise WorkbenchError(
            f"noise, light and what may be added are positive; got {one:g}, {light:g}, {added:g} and {lights} lights"
        )
    share = 1 if dithered else lights
    return max(1, math.ceil(share * one**2 / (light**2 * ((1 + added) ** 2 - 1)) - 1e-9))
