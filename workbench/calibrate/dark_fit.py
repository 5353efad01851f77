"""Do the darks fit the lights?  How much of their structure stays in calibrated lights, and the factor they need."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ..core.area import neighbour_mean
from ..core.cube import evenly
from ..core.dark import TYPICAL_DOUBLING
from ..core.errors import FrameReadError, WorkbenchError
from ..core.mosaic import channel_index, planes, put_plane
from ..core.parallel import FRAME_BYTES, compute_frame, in_threads, lazy_frames
from ..core.statistics import MEDIAN_ERROR, mad_std, weighted_by_errors
from ..core.values import listed, value_text
from .apply import Tables
from .masterset import Masters, MasterSet

LOOKED_AT = 4  # lights of a group
_STANDS_OUT = 8.0  # sigmas by which a pixel of the dark must stand out of its neighbours
_FEWEST, _MOST = 30, 20_000  # pixels that are looked at
_WRONG = 0.1  # of the dark signal: what less leaves is within 1 K
_CERTAIN = 5.0  # standard errors
_SCALED_ALONE = 0.05  # error of a light's own factor, above which it takes that of its group
_TUNING = 4.685  # bisquare weights


class HotPixels(NamedTuple):
    """Pixels of a master dark that stand out: places, and by how much [ADU], with the error of that.

    `around` are the places of the eight neighbours of their colour, (pixel, 8) each.
    """

    y: np.ndarray
    x: np.ndarray
    excess: np.ndarray
    error: np.ndarray
    around: tuple[np.ndarray, np.ndarray]


def hot_pixels(dark: xr.Dataset) -> HotPixels:
    """Return the pixels of a master dark whose signal stands out of the neighbours of their colour.

    Not those that saturate or flicker; of very many an even share.

    Examples
    --------
    >>> from workbench.calibrate import master_dark
    >>> from workbench.core.cube import make_cube
    >>> frames = np.random.default_rng(1).normal(600, 3, (8, 40, 60)).round().astype("uint16")
    >>> frames[:, 11, 21] += 300
    >>> found = hot_pixels(master_dark(make_cube(frames, cfa_pattern="RGGB", kind="dark", exposure=60)))
    >>> found.y.tolist(), found.x.tolist(), abs(float(found.excess[0]) - 300) < 10
    ([11], [21], True)
    """
    values, white = dark["signal"].values, dark.attrs["white_level"]
    cell = channel_index(dark.attrs["cfa_pattern"])
    high = np.zeros(values.shape, bool)

    def mark(item: tuple[int, np.ndarray]) -> None:
        channel, plane = item
        detail = plane[1:-1, 1:-1] - neighbour_mean(plane)
        spread = max(float(mad_std(detail[::3], centre=0)), 0.1)
        with np.errstate(invalid="ignore"):
            put_plane(high, cell, channel, np.pad(detail > _STANDS_OUT * spread, 1))

    deque(in_threads(mark, planes(values, cell)), maxlen=0)
    side = len(cell)  # those at the edge lack neighbours
    high[:side], high[-side:], high[:, :side], high[:, -side:] = False, False, False, False
    high &= ~dark["unstable"].values
    if math.isfinite(white):
        high &= values < 0.9 * white
    y, x = np.nonzero(high)
    some = evenly(y.size, _MOST) if y.size else np.zeros(0, int)
    y, x = y[some], x[some]
    step = np.array([(m, n) for m in (-1, 0, 1) for n in (-1, 0, 1) if m or n]) * cell.shape[0]
    around = y[:, None] + step[:, 0], x[:, None] + step[:, 1]
    calm = np.where(high[around], np.nan, values[around])
    alone = np.isfinite(calm).sum(axis=1) >= 4
    y, x, calm, around = y[alone], x[alone], calm[alone], (around[0][alone], around[1][alone])
    excess = values[y, x] - np.nanmedian(calm, axis=1) if y.size else np.zeros(0)
    return HotPixels(y, x, excess.astype(float), np.sqrt(dark["variance"].values[y, x]).astype(float), around)


def dark_left(raw: np.ndarray, tables: Tables, hot: HotPixels, factor: float = 1.0) -> tuple[float, float]:
    """Return the share k of the dark's structure that stays in a light calibrated with it, and its error; 0 is right.

        r = k D + noise,   r = (y - base - f dark) of a pixel less the median of its neighbours, D the dark's the same

    by bisquare weights, so that stars count little, with Σ w σ_D² taken out of Σ w D² and Σ w D r, since the dark's own
    noise is in both.  A light that needs the dark F times has k = F - f.  NaN with fewer than thirty hot pixels.

    Parameters
    ----------
    raw
        The light as read (y, x) [ADU].
    factor
        The dark's scale f in its calibration.
    """
    if hot.y.size < _FEWEST:
        return math.nan, math.nan
    rest = raw[hot.y, hot.x].astype(float) - factor * tables.dark[hot.y, hot.x]
    around = raw[hot.around].astype(float) - factor * tables.dark[hot.around]
    if tables.base.size > 1:
        rest, around = rest - tables.base[hot.y, hot.x], around - tables.base[hot.around]
    rest -= np.nanmedian(around, axis=1)
    good = np.isfinite(rest) & (raw[hot.y, hot.x] < min(tables.saturation, np.inf))
    if np.count_nonzero(good) < _FEWEST:
        return math.nan, math.nan
    r, d, own = rest[good], hot.excess[good], np.square(hot.error[good])
    shot = float(np.mean(tables.law[:, 1]))  # 1/gain [ADU]
    order = np.argsort(r / d)
    k = float((r / d)[order][np.searchsorted(np.cumsum(d[order]), d.sum() / 2)])
    for _ in range(20):
        spread = np.sqrt(np.median(around.var(axis=1)) + shot * d * max(factor + k, 0.0) + own)
        z = (r - k * d) / spread
        z /= max(float(mad_std(z, centre=0)), 1e-9)
        weight = np.clip(1 - (z / _TUNING) ** 2, 0, None) ** 2 / spread**2
        k = float((weight * (d * r + factor * own)).sum() / (weight * (d * d - own)).sum())
    residual = r - k * d
    error = math.sqrt(float((weight * weight * d * d * residual**2).sum())) / float((weight * d * d).sum())
    return k, error


def fit_darks(light: xr.DataArray, masters: MasterSet, *, most: int | None = LOOKED_AT) -> xr.Dataset:
    """Return over the frames of a cube ``left`` and ``left_error``, what `dark_left` finds; NaN where not looked at.

    ``sky`` and ``sky_error`` [ADU]: the median of the light less its dark.

    Parameters
    ----------
    light
        Lights as read, those that the masters were made for.
    most
        Lights of a group that are looked at, evenly spread; None for all.
    """
    left, frames = np.full((light.sizes["frame"], 4), np.nan), lazy_frames(light)
    for group in masters.masters:
        if group.dark is None:
            continue
        tables, hot, numbers = group.tables(), hot_pixels(group.dark), np.array(group.group.lights)
        places = evenly(len(numbers), most or len(numbers))
        looks = [(frames[numbers[place]], tables, hot, group.group.factors[place]) for place in places]
        left[numbers[places]] = list(in_threads(lambda look: _look(*look), looks, each=FRAME_BYTES))
    about = {"units": "1", "long_name": "share of the dark signal that stays in the light"}
    sky = {"units": "adu", "long_name": "median of the light less its dark"}
    names = {"left": about, "left_error": about, "sky": sky, "sky_error": sky}
    return xr.Dataset({name: ("frame", values, names[name]) for name, values in zip(names, left.T, strict=True)})


def _look(frame: Any, tables: Tables, hot: HotPixels, factor: float) -> tuple[float, ...]:
    """Return what `fit_darks` finds in a light; NaN if it cannot be read, which the work on the lights reports."""
    try:
        raw = compute_frame({}, frame)
    except FrameReadError:
        return (math.nan,) * 4
    return *dark_left(raw, tables, hot, factor), *_sky(raw, tables, factor)


def _sky(raw: np.ndarray, tables: Tables, factor: float) -> tuple[float, float]:
    """Return the median of a light less its dark, and the error of that [ADU], from a thirty-fifth of the pixels."""
    some = np.s_[::7, ::5]  # odd steps meet every colour
    rest = raw[some] - factor * tables.dark[some] - (tables.base[some] if tables.base.size > 1 else 0.0)
    rest = rest[np.isfinite(rest)]
    return float(np.median(rest)), MEDIAN_ERROR * float(mad_std(rest)) / math.sqrt(rest.size)


def dark_doubts(light: xr.DataArray, dark: xr.DataArray, masters: MasterSet, fit: xr.Dataset) -> list[str]:
    """Return a sentence for each group of lights whose darks do not fit them, with the likely cause and the factor."""
    doubts = []
    for group in masters.masters:
        numbers = list(group.group.lights)
        if group.dark is None:
            continue
        if below := _below_darks(light, dark, group, fit):
            doubts.append(below)
            continue
        k, error = weighted_by_errors(fit["left"].values[numbers], fit["left_error"].values[numbers])
        if not abs(k) > max(_WRONG, _CERTAIN * error):
            continue
        factor = float(np.median(group.group.factors)) + k
        names = listed([str(dark["filename"].values[number]) for number in group.group.dark], 1)
        what = (
            f"the darks ({names}) do not fit {len(numbers)} lights ({light['filename'].values[numbers[0]]}): the hot "
            f"pixels of the calibrated lights stand at {value_text(k, error)} of the dark signal (0 is right)"
        )
        if factor < max(0.05, 3 * error):
            doubts.append(
                f"{what}, as if the lights had no dark signal: the camera subtracted a dark of its own (long-exposure "
                "noise reduction), or these darks are of another camera or the other way up; put them away"
            )
            continue
        doubling = group.noise.doubling_temperature
        unstated = np.isnan(
            [light["gain_setting"].values[numbers[0]], dark["gain_setting"].values[group.group.dark[0]]]
        )
        gain = " or at another gain setting" if unstated.any() and np.isnan(light["iso"].values[numbers[0]]) else ""
        kelvin = (TYPICAL_DOUBLING if math.isnan(doubling) else doubling) * math.log2(factor)
        doubts.append(
            f"{what}: the lights need {value_text(factor, error)} of these darks, as if the darks had been taken "
            f"{abs(kelvin):.1f} K {'warmer' if factor < 1 else 'colder'} or {1 / factor:.3g} times as long{gain}; "
            "take darks at the temperature and exposure of the lights, or scale these with --scale-darks"
        )
    return doubts


def _below_darks(light: xr.DataArray, dark: xr.DataArray, group: Masters, fit: xr.Dataset) -> str:
    """Say by how much the sky of lights lies below their darks, which no dark of the same setting can do; else nothing.

    Half a step of the codes is allowed for.
    """
    numbers = [number for number in group.group.lights if np.isfinite(fit["sky"].values[number])]
    if not numbers:
        return ""
    sky, error = weighted_by_errors(fit["sky"].values[numbers], fit["sky_error"].values[numbers])
    if not sky < -max(_CERTAIN * error, 0.5 * group.noise.step):
        return ""
    unit, one = ("e-", float(np.mean(group.noise.gain))) if group.noise.known else ("ADU", 1.0)
    names = listed([str(dark["filename"].values[number]) for number in group.group.dark], 1)
    return (
        f"the sky of {len(group.group.lights)} lights ({light['filename'].values[numbers[0]]}) lies "
        f"{value_text(-sky * one, error * one, unit)} below the darks ({names}): the darks are of another offset or "
        "gain setting, which the files do not state, or light leaked into them; take darks at the setting of the "
        "lights, or put these away"
    )


def scaled_by_lights(masters: MasterSet, fit: xr.Dataset) -> tuple[MasterSet, list[str]]:
    """Return the masters with the darks scaled by the factors that the lights ask for, and a sentence a group.

    A light's own factor where its error is below 0.05, else the mean of its group.

    Raises
    ------
    WorkbenchError
        If there are no darks, no bias frames, or too few hot pixels to fit.
    """
    scaled, lines = [], []
    for group in masters.masters:
        numbers = list(group.group.lights)
        left, error = fit["left"].values[numbers], fit["left_error"].values[numbers]
        mean, mean_error = weighted_by_errors(left, error)
        missing = "darks" if group.dark is None else "bias frames" if group.bias is None else ""
        if missing or not mean_error < _SCALED_ALONE:
            why = f"there are no {missing}" if missing else "the lights show too few of the darks' hot pixels to fit it"
            raise WorkbenchError(f"the darks cannot be scaled to {len(numbers)} lights: {why}; leave --scale-darks out")
        own = np.where(error < _SCALED_ALONE, left, mean)
        factors = np.maximum(np.array(group.group.factors) + own, 0.0)
        lines.append(
            f"darks scaled by {value_text(float(factors.mean()), mean_error)}, fitted from the lights "
            f"({factors.min():.3g} to {factors.max():.3g})"
        )
        kept = tuple(text for text in group.warnings if "their dark signal may be off" not in text)
        scaled.append(
            dataclasses.replace(
                group, group=dataclasses.replace(group.group, factors=tuple(factors.tolist())), warnings=kept
            )
        )
    warnings = tuple(dict.fromkeys(text for group in scaled for text in group.warnings))
    return dataclasses.replace(masters, masters=tuple(scaled), warnings=warnings), lines
