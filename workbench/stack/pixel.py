"""Samples as arrays: what each rejection method makes of a pixel's, and why; the mean of what is kept; a pixel's noise.

The loops that decide are the engine's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy import ndimage

from ..core.cube import first_green
from ..core.errors import WorkbenchError
from ..core.kernels import kernel
from ..core.statistics import mad_std
from .combine import GROW, HIGH, LOW, column_order, flag_samples, sample_variance
from .medians import find_medians
from .reject import (
    METHODS,
    NOISE,
    RejectionRule,
    empty_planes,
    esd_table,
    method_number,
    rule_of,
    scatter_about_median,
    thresholds_of,
    trim_about_median,
)

REJECTING = METHODS[:7]
LAG = 8  # [pixels] between the pixels that are compared: farther than resampling makes them alike
_AROUND = 2 * GROW + 2  # [pixels] of surroundings that the noise model looks at


def inspect_pixel(
    lights: xr.Dataset,
    y: int,
    x: int,
    channel: str | None = None,
    *,
    methods: Sequence[str] = REJECTING,
    low: float | None = None,
    high: float | None = None,
) -> xr.Dataset:
    """Return the samples of one pixel of aligned lights and what each method decides about them.

    Parameters
    ----------
    lights
        What `aligned` gives; only the surroundings of the pixel are looked at.
    y, x, channel
        Which pixel; green, or mono, where no channel is named.
    methods
        Rejection methods (`METHODS`) to compare.
    low, high
        Thresholds for all of them; by default each its own.

    Returns
    -------
    Dataset over ``frame``: ``value`` [e-] with its ``error``; over (rejection, frame): ``decision`` (-1 too low, 1 too
    high, 0 kept), ``centre`` and ``sigma`` [e-], which the method compared the sample with last, ``deviation``
    (value less centre, over sigma) and the limits ``lower`` and ``upper`` [e-]; over ``rejection``: ``result`` [e-],
    the mean of what is kept, its ``result_error``, and ``kept``, the number of samples.

    Raises
    ------
    WorkbenchError
        If the pixel, the channel or the method does not exist.
    """
    names = [str(name) for name in lights["channel"].values]
    channel = channel or first_green(names)
    if channel not in names:
        raise WorkbenchError(f"these lights have no channel {channel!r}, only {', '.join(names)}")
    height, width = lights.sizes["y"], lights.sizes["x"]
    if not (0 <= y < height and 0 <= x < width):
        raise WorkbenchError(f"pixel ({y}, {x}) lies outside the frame of {width} x {height} pixels")
    top, left = max(y - _AROUND, 0), max(x - _AROUND, 0)
    window = {"y": slice(top, y + _AROUND + 1), "x": slice(left, x + _AROUND + 1)}
    part = lights[["signal", "variance", "slope"]].sel(channel=channel).isel(window).compute()
    values, variance, slope = (part[name].values for name in ("signal", "variance", "slope"))
    place = (slice(None), y - top, x - left)
    value, error = values[place].astype(float), np.sqrt(variance[place]).astype(float)
    weight = lights["weight"].sel(channel=channel).values
    rows = [_decide(method, (values, variance, slope), place, weight, (low, high)) for method in methods]
    e = {"units": "electron"}
    data: dict[str, Any] = {"value": ("frame", value, e), "error": ("frame", error, e)}
    for name in rows[0]:
        dims = ("rejection",) if name in ("result", "result_error", "kept") else ("rejection", "frame")
        units = {} if name in ("decision", "deviation", "kept") else e
        data[name] = (dims, np.array([row[name] for row in rows]), units)
    coords = {"rejection": list(methods), "filename": ("frame", lights["filename"].values)}
    attrs = {"y": y, "x": x, "channel": channel, "camera": lights.attrs.get("camera", "")}
    return xr.Dataset(data, coords=coords, attrs=attrs)


def _decide(
    method: str,
    cube: tuple[np.ndarray, np.ndarray, np.ndarray],
    place: tuple,
    weight: np.ndarray,
    thresholds: tuple[float | None, float | None],
) -> dict[str, np.ndarray]:
    """What a method makes of the pixel at `place` of values, variance and slope (frame, y, x); see `inspect_pixel`."""
    if method_number(method) >= len(REJECTING):
        raise WorkbenchError(f"{method!r} rejects nothing; methods that do are {', '.join(REJECTING)}")
    values, variance, slope = cube
    value, error = values[place].astype(float), np.sqrt(variance[place]).astype(float)
    known = np.isfinite(value)
    low, high = thresholds_of(method, *thresholds)
    flags = reject_samples(values, variance, slope, method, low=low, high=high)[place]
    kept = known & (flags == 0)
    if method == "noise":
        median, limits = noise_limits(values, variance, slope)
        centre, sigma = np.full(value.shape, float(median[place[1:]])), limits[place].astype(float)
    else:
        centre, sigma = _own_scatter(value, kept, method, low, high)
    if method == "esd":
        table = esd_table(int(known.sum()), low, high)
        low = high = float(table[-1, 0]) or np.inf
    total = np.where(kept, weight, 0).sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "decision": np.where(known, flags, 0),
            "centre": centre,
            "sigma": sigma,
            "deviation": (value - centre) / sigma,
            "lower": centre - low * sigma,
            "upper": centre + high * sigma,
            "result": np.where(kept, weight * value, 0).sum() / total,
            "result_error": np.sqrt(np.where(kept, (weight * error) ** 2, 0).sum()) / total,
            "kept": kept.sum(),
        }


def _own_scatter(
    value: np.ndarray, kept: np.ndarray, method: str, low: float, high: float
) -> tuple[np.ndarray, np.ndarray]:
    """Centre and σ of each sample by a classical method: of the round that rejects it, of the last if it is kept."""
    inside = np.sort(value[kept])
    if inside.size < 2:
        return np.full(value.shape, inside[0] if inside.size else np.nan), np.full(value.shape, np.nan)
    if method in ("sigma", "winsorized", "mad"):
        return _rounds(value, method, low, high)
    centre, sigma = np.median(value[np.isfinite(value)]), inside.std(ddof=1)
    if method == "percentile":
        sigma = abs(centre)
    elif method == "esd":
        centre = inside.mean()
    elif method == "linear-fit":
        rank = np.arange(inside.size)
        slope, first = np.polyfit(rank, inside, 1)
        own = np.searchsorted(inside, value).astype(float)  # one that was thrown out would come before or after all
        own[value < inside[0]] = -1
        centre, sigma = first + slope * own, np.abs(inside - first - slope * rank).mean()
    return np.broadcast_to(centre, value.shape), np.broadcast_to(sigma, value.shape)


def _rounds(value: np.ndarray, method: str, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Median and σ that each sample was last compared with, by a method that is repeated until nothing goes."""
    order = np.argsort(value)[: np.isfinite(value).sum()]
    ordered, number = value[order].astype(np.float32), method_number(method)
    centre, sigma = np.full((2, value.size), np.nan)
    first, last, left = 0, order.size, -1
    while last - first != left:
        left, now = last - first, order[first:last]
        centre[now], sigma[now] = scatter_about_median(ordered, first, last, number)
        if left >= 3:
            first, last = trim_about_median(ordered, first, last, number, low, high)
    return centre, sigma


def explain(pixel: xr.Dataset) -> pd.DataFrame:
    """Tabulate what `inspect_pixel` found: a row for each sample, a column for each method, with the reason.

    Examples
    --------
    >>> pixel = xr.Dataset(
    ...     {"value": ("frame", [100.0, 190.0]), "error": ("frame", [10.0, 10.0]),
    ...      "decision": (("rejection", "frame"), [[0, 1]]), "deviation": (("rejection", "frame"), [[-0.4, 8.6]])},
    ...     {"rejection": ["noise"], "filename": ("frame", ["a", "b"])})
    >>> explain(pixel).noise.tolist()
    ['kept (−0.4 σ)', 'too high (+8.6 σ)']
    """
    values, errors = pixel["value"].values, pixel["error"].values
    names = [str(name).rsplit("/", 1)[-1] for name in pixel["filename"].values]
    table = pd.DataFrame({"frame": names, "value [e⁻]": values.round(1), "its noise [e⁻]": errors.round(1)})
    words = {-1: "too low", 0: "kept", 1: "too high"}
    for method in pixel["rejection"].values:
        one = pixel.sel(rejection=method)
        unit, digits = ("of the median", 2) if method == "percentile" else ("σ", 1)
        table[str(method)] = [
            f"{words[int(choice)]} ({f'{deviation:+.{digits}f}'.replace('-', '−')} {unit})" if known else "missing"
            for known, choice, deviation in zip(
                np.isfinite(values), one["decision"].values, one["deviation"].values, strict=True
            )
        ]
    return table


def busiest_pixel(lights: xr.Dataset) -> tuple[int, int]:
    """Return (y, x) of a pixel of aligned lights where one green sample stands out most from the others, off stars.

    For a first look: a satellite or a cosmic ray is most often what it finds.  Of mono lights any sample.
    """
    channel = first_green(lights["channel"].values.tolist())
    part = lights[["signal", "variance", "slope"]].sel(channel=channel).compute()
    values, variance, slope = (part[name].values for name in ("signal", "variance", "slope"))
    median, sigma = noise_limits(values, variance, slope)
    with np.errstate(invalid="ignore"):
        pull = np.sort(np.where(np.isfinite(values), np.abs(values - median) / sigma, 0), axis=0)
    calm = (median < np.nanpercentile(median, 90)) & (np.isfinite(values).sum(axis=0) == len(values))
    alone = np.where(calm & (pull[-2] < 3), pull[-1], 0)
    y, x = np.unravel_index(np.argmax(alone), alone.shape)
    return int(y), int(x)


@kernel()
def _inspect(values, variance, slope, rule, grow, flags, median, sigma):
    """Set flags and σ (frame, channel, y, x) and the median (channel, y, x) of whole arrays; see `reject_samples`."""
    frames, channels, height, width = values.shape
    planes = empty_planes(frames, (height, width), height)
    order = column_order(width, False)
    ones = np.ones((frames, channels, height, width), np.float32)
    for c in range(channels):
        for f in range(frames):
            for y in range(height):
                for x in range(width):
                    planes.a[f, y, x] = slope[f, c, y, x]
                    light = max(values[f, c, y, x], np.float32(0))
                    planes.b[f, y, x] = variance[f, c, y, x] - slope[f, c, y, x] * light
        find_medians(c, values, rule, planes, False)
        flag_samples(c, values, ones, rule, planes, order, grow)
        for y in range(height):
            for x in range(width):
                median[c, y, x] = planes.median[y, x] if planes.count[y, x] else np.nan
                light = max(planes.median[y, x], np.float32(0))
                for f in range(frames):
                    flag = planes.flags[f, y, x]
                    flags[f, c, y, x] = 1 if flag & HIGH else (-1 if flag & LOW else 0)
                    if rule.method == NOISE:
                        model = sample_variance(planes.a[f, y, x], planes.b[f, y, x], light) + planes.spread[y, x]
                        sigma[f, c, y, x] = np.sqrt(max(model, planes.floor[y, x]))


def _look(values, variance, slope, rule: RejectionRule, grow: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flags, median and σ of samples (frame, ..., y, x)."""
    shape, flat = values.shape, (len(values), -1, *values.shape[-2:])
    values, variance, slope = (
        np.ascontiguousarray(part, np.float32).reshape(flat) for part in (values, variance, slope)
    )
    flags, sigma = np.zeros(values.shape, np.int8), np.full(values.shape, np.nan, np.float32)
    median = np.empty(values.shape[1:], np.float32)
    _inspect(values, variance, slope, rule, grow, flags, median, sigma)
    return flags.reshape(shape), median.reshape(shape[1:]), sigma.reshape(shape)


def noise_limits(values: np.ndarray, variance: np.ndarray, slope: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the median, and the σ of each sample that rejection by the noise model compares with.

    σ² = model + (0.2 · range of the median over 3 x 3 pixels)²; from eight samples on at least (1.4826 MAD)² of the
    pixel's own samples.  The model is the variance that a sample would have if it held what the median holds: a sample
    that a cosmic ray made bright has the shot noise of a bright one, ``variance + slope (median - value)``.

    Parameters
    ----------
    values, variance, slope
        (frame, ..., y, x): aligned and normalised samples [e-], their variance [e-²], and how fast that grows with
        the light [e-]: what `aligned` gives.

    Returns
    -------
    median (..., y, x) and σ (frame, ..., y, x), both [e-].
    """
    _, median, sigma = _look(values, variance, slope, rule_of("noise", len(values)))
    return median, sigma


def reject_samples(
    values: np.ndarray,
    variance: np.ndarray,
    slope: np.ndarray,
    method: str = "noise",
    *,
    low: float | None = None,
    high: float | None = None,
    grow: bool = True,
) -> np.ndarray:
    """Return which samples a method rejects: -1 too low, 1 too high, 0 kept or missing; int8 of `values`' shape.

    Parameters
    ----------
    values, variance, slope
        As for `noise_limits`; only ``noise`` looks at the variance.
    method
        One of `METHODS`.
    low, high
        Its thresholds, the defaults of `workbench.stack.reject.DEFAULTS` where not given.
    grow
        With ``noise``: around an outlier beyond 6 σ reject what lies beyond 2 σ in the same frame, up to 3 pixels away.

    Raises
    ------
    WorkbenchError
        If the method is not known, or a threshold of the noise model is not positive.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> sky = rng.normal(100, 10, (5, 1, 40, 40)).astype("float32")
    >>> sky[2, 0, 20] += 400  # a trail
    >>> flags = reject_samples(sky, np.full_like(sky, 100), np.ones_like(sky))
    >>> bool((flags[2, 0, 20] == 1).all()), float(abs(flags[[0, 1, 3, 4]]).mean()) < 0.002
    (True, True)
    """
    return _look(values, variance, slope, rule_of(method, len(values), low, high), grow)[0]


def average(
    values: np.ndarray, variance: np.ndarray, flags: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the weighted mean of the samples kept, a pixel's variance, and how many they are; NaN where none is.

    Parameters
    ----------
    values, variance, flags
        (frame, channel, y, x); a flag other than zero leaves a sample out.
    weight
        (frame, channel).
    """
    weight = np.asarray(weight, np.float32)[:, :, None, None]
    total, mean, noise = (np.zeros(values.shape[1:], np.float32) for _ in range(3))
    count = np.zeros(values.shape[1:], np.int64)
    for value, spread, flag, w in zip(values, variance, flags, weight, strict=True):  # a frame at a time stays in cache
        kept = np.isfinite(value) & (flag == 0)
        of_frame = w * kept
        count += kept
        total += of_frame
        mean += of_frame * np.where(kept, value, 0)
        noise += of_frame * of_frame * np.where(kept, spread, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return mean / total, noise / total**2, count


def starless(picture: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return where a picture (y, x) shows sky without stars: boolean (y, x), `known` pixels only.

    Stars are what stands more than 4 σ above its surroundings after smoothing by 1.5 pixels, and 5 pixels around that.
    """
    smooth = ndimage.gaussian_filter(np.where(np.isfinite(picture), picture, np.nanmedian(picture)), 1.5)
    around = ndimage.median_filter(smooth[::4, ::4], 11, mode="nearest").repeat(4, 0).repeat(4, 1)
    detail = smooth - around[: picture.shape[0], : picture.shape[1]]
    detail -= np.median(detail)
    spread = float(mad_std(detail, centre=0))
    return known & ~ndimage.binary_dilation(detail > 4 * spread, iterations=5)


def sky_noise(picture: np.ndarray, sky: np.ndarray) -> tuple[float, int]:
    """Return the noise of a pixel where there is sky, and from how many pixels it was measured.

    √(Var(p - mean of four pixels `LAG` away)/1.25), what lies beyond 5 σ left out.
    """
    inner = (slice(LAG, -LAG), slice(LAG, -LAG))
    around = np.zeros_like(picture[inner], dtype=float)
    good = sky[inner].copy()
    for dy, dx in ((-LAG, 0), (LAG, 0), (0, -LAG), (0, LAG)):
        there = tuple(slice(LAG + d, size - LAG + d) for d, size in zip((dy, dx), picture.shape, strict=True))
        around += picture[there]
        good &= sky[there]
    d = (picture[inner] - around / 4)[good]
    if d.size < 500:
        raise WorkbenchError("there is too little starless sky in these lights to measure the noise in")
    d = d - np.median(d)
    kept = d[np.abs(d) < 5 * mad_std(d, centre=0)]
    return float(np.sqrt(kept.var() / 1.25)), int(d.size)
