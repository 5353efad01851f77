"""A light on its way through calibration, step by step, and what each step does to its noise.

The same arithmetic as `calibrate`, taken apart so that it can be looked at: the last step is what `calibrate` gives.
"""

from __future__ import annotations

import math

import numpy as np
import xarray as xr
from scipy import ndimage

from ..core.cube import channels_of, check_cube
from ..core.errors import WorkbenchError
from ..core.mosaic import channel_index
from .apply import Tables, calibrate_window
from .masterset import MasterSet

STEPS = ("as read", "bias subtracted", "dark subtracted", "flat divided", "defects filled")
_EVENT = 8.0  # [σ] beyond which a calibrated pixel shows a cosmic ray


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
    like it, the masters' own included; ``pattern`` (step, y, x) [e-]: what of the masters' pattern is still in it,
    with ``pattern_variance`` [e-²], the masters' own noise in it; and ``mask`` (y, x).

    Raises
    ------
    WorkbenchError
        If there is no such light, or the masters are not its own.
    """
    check_cube(light, stage="raw", kind="light")
    if not 0 <= number < light.sizes["frame"]:
        raise WorkbenchError(f"there are lights 0 to {light.sizes['frame'] - 1}; {number} is none of them")
    own, factor = masters.of(light, number)
    tables = own.tables()
    raw = np.asarray(light.isel(frame=number).values)
    raw = raw if raw.dtype == np.uint16 else raw.astype(np.float32)
    filled, final, mask, _ = calibrate_window(raw, tables, factor)
    shape = raw.shape
    gain, quiet, inverse, constant, black = (_spread(tables, k, shape) for k in range(5))
    black = np.where(np.isfinite(black), black, constant)
    level = _calm(raw, black, quiet, inverse, tables)
    temporal = gain**2 * (quiet + inverse * level)
    bias = None if own.bias is None else own.bias["signal"].values - black
    dark = tables.base + constant + factor * tables.dark - black if own.dark is not None else None
    flat = None if own.flat is None else tables.response
    value = gain * (raw - black)
    sound = mask == 0
    light_of = float(np.median(value[sound])) if sound.any() else 0.0
    uneven = np.zeros(shape) if flat is None else (flat - 1) * light_of
    of_bias = 0.0 if bias is None else gain**2 * own.bias["variance"].values
    of_dark = gain**2 * (factor**2 * tables.dark_variance + (1 - factor) ** 2 * tables.base_variance)
    of_flat = 0.0 if flat is None else light_of**2 * tables.response_variance
    ground = dark if dark is not None else bias if bias is not None else np.zeros(shape)
    under = of_dark if dark is not None else of_bias
    # step, signal, temporal variance, pattern, the variance of the pattern's own noise
    found: list[tuple] = [("as read", value, temporal, gain * ground + uneven, under + of_flat)]
    if bias is not None:
        left = gain * (ground - bias) + uneven
        found.append(("bias subtracted", value - gain * bias, temporal + of_bias, left, under + of_bias + of_flat))
    if dark is not None:
        found.append(("dark subtracted", value - gain * dark, temporal + of_dark, uneven, of_flat))
    if flat is not None:
        corrected = found[-1][1] / flat
        spread = (found[-1][2] + corrected**2 * tables.response_variance) / flat**2
        found.append(("flat divided", corrected, spread, np.zeros(shape), 0.0))
    found.append(("defects filled", filled, final, np.zeros(shape), 0.0))
    steps, signals, temporals, patterns, own_noise = (list(part) for part in zip(*found, strict=True))
    own_noise = [np.broadcast_to(part, shape) for part in own_noise]
    e, e2 = {"units": "electron"}, {"units": "electron**2"}
    one = light.isel(frame=number)
    attrs = {name: light.attrs[name] for name in ("camera", "cfa_pattern")}
    attrs |= {"filename": str(one["filename"].values), "units": "electron"}
    return xr.Dataset(
        {
            "signal": (("step", "y", "x"), np.stack(signals).astype(np.float32), {**e, "long_name": "signal"}),
            "temporal": (("step", "y", "x"), np.stack(temporals).astype(np.float32), e2),
            "pattern": (("step", "y", "x"), np.stack(patterns).astype(np.float32), e),
            "pattern_variance": (("step", "y", "x"), np.stack(own_noise).astype(np.float32), e2),
            "mask": (("y", "x"), mask),
        },
        coords={"step": steps},
        attrs=attrs,
    )


def _spread(tables: Tables, column: int, shape: tuple[int, int]) -> np.ndarray:
    """One number a channel, spread over the mosaic."""
    one = np.take(tables.numbers[:, column], tables.cell)
    repeats = [-(-size // period) for size, period in zip(shape, one.shape, strict=True)]
    return np.tile(one, repeats)[: shape[0], : shape[1]]


def _calm(raw, black, quiet, inverse, tables: Tables) -> np.ndarray:
    """The level [ADU above black] that the shot noise is taken from: the median of nine pixels of the same colour."""
    level = np.maximum(raw - black, 0)
    step = tables.cell.shape[0]
    footprint = np.zeros((2 * step + 1, 2 * step + 1), bool)
    footprint[::step, ::step] = True
    return ndimage.median_filter(level, footprint=footprint, mode="nearest")


def step_noise(steps: xr.Dataset) -> xr.Dataset:
    """Measure the noise of the sky after each step of calibration, beside what the masters predict.

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
    the prediction that no master can take away; ``ordinary`` [e-], the noise of the pixels without the outliers
    (1.4826 MAD).

    Raises
    ------
    WorkbenchError
        If there is hardly any sky without stars.
    """
    pattern = steps.attrs["cfa_pattern"]
    names, cell = channels_of(pattern), channel_index(pattern)
    sky = _sky(steps, cell)
    shape = (len(names), steps.sizes["step"])
    found, error, predicted, temporal, ordinary = (np.full(shape, math.nan) for _ in range(5))
    for channel in range(len(names)):
        row, column = np.argwhere(cell == channel)[0]
        part = (slice(row, None, cell.shape[0]), slice(column, None, cell.shape[1]))
        good = sky[part][1:-1, 1:-1]
        if good.sum() < 1000:
            raise WorkbenchError("there is hardly any sky without stars in this light to measure the noise in")
        for step in range(shape[1]):
            d = _detail(steps["signal"].values[step][part])[good].astype(float)
            d = d[np.isfinite(d)]
            square = d.var() / 1.25
            found[channel, step] = math.sqrt(square)
            # the fourth moment: a few hot pixels make the variance itself uncertain
            error[channel, step] = (
                math.sqrt(max(np.mean(d**4) / d.var() ** 2 - 1, 2) / d.size) * found[channel, step] / 2
            )
            ordinary[channel, step] = 1.4826 * np.median(np.abs(d - np.median(d))) / math.sqrt(1.25)
            of_time = steps["temporal"].values[step][part][1:-1, 1:-1][good]
            of_place = _detail(steps["pattern"].values[step][part])[good]
            whole = np.nanmean(of_time, dtype=float)
            of_masters = np.nanmean(steps["pattern_variance"].values[step][part][1:-1, 1:-1][good], dtype=float)
            lasting = max(np.nanvar(of_place, dtype=float) / 1.25 - of_masters, 0.0)
            temporal[channel, step] = math.sqrt(whole)
            predicted[channel, step] = math.sqrt(whole + lasting)
    e = {"units": "electron"}
    values = {"noise": found, "noise_error": error, "predicted": predicted, "temporal": temporal, "ordinary": ordinary}
    return xr.Dataset(
        {name: (("channel", "step"), value, e) for name, value in values.items()},
        coords={"channel": list(names), "step": steps["step"].values},
        attrs=steps.attrs,
    )


def _detail(plane: np.ndarray) -> np.ndarray:
    """Each pixel less the mean of its four neighbours; the edge is left out."""
    around = (plane[:-2, 1:-1] + plane[2:, 1:-1] + plane[1:-1, :-2] + plane[1:-1, 2:]) / 4
    return plane[1:-1, 1:-1] - around


def _sky(steps: xr.Dataset, cell: np.ndarray) -> np.ndarray:
    """Where a light shows neither stars nor cosmic rays nor saturated pixels, from its last step; boolean (y, x)."""
    final = steps["signal"].values[-1]
    sigma = np.sqrt(steps["temporal"].values[-1])
    size = 2 * cell.shape[0] + 1
    known = np.where(np.isfinite(final), final, np.nanmedian(final))
    smooth = ndimage.gaussian_filter(ndimage.uniform_filter(known, cell.shape[0]), 2)
    ground = ndimage.median_filter(smooth[::8, ::8], 9, mode="nearest").repeat(8, 0).repeat(8, 1)
    above = smooth - ground[: smooth.shape[0], : smooth.shape[1]]
    spread = 1.4826 * np.median(np.abs(above - np.median(above)))
    stars = ndimage.binary_dilation(above - np.median(above) > 4 * spread, iterations=5)
    hits = np.zeros(final.shape, bool)
    for (row, column), _ in np.ndenumerate(cell):
        part = (slice(row, None, cell.shape[0]), slice(column, None, cell.shape[1]))
        plane = known[part]
        hits[part] = plane - ndimage.median_filter(plane, 5) > _EVENT * sigma[part]
    hits = ndimage.binary_dilation(hits, np.ones((size, size)))
    return ~stars & ~hits & ((steps["mask"].values & 6) == 0)
