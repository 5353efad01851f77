"""One pixel of the stack: its N samples, and what each rejection method makes of them, and why."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from ..core.errors import WorkbenchError
from ..core.statistics import MAD_TO_SIGMA
from .combine import GROW, noise_limits, reject_samples
from .reject import DEFAULTS, METHODS, esd_table, method_number

REJECTING = METHODS[:7]
_AROUND = 2 * GROW + 2  # [pixels] of surroundings that the noise model looks at


def inspect_pixel(
    lights: xr.Dataset,
    y: int,
    x: int,
    channel: str = "G",
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
        Which pixel.
    methods
        Rejection methods (`METHODS`) to compare.
    low, high
        Thresholds for all of them; by default each its own.

    Returns
    -------
    Dataset over ``frame``: ``value`` [e-] with its ``error``; over (rejection, frame): ``decision`` (-1 too low, 1 too
    high, 0 kept), ``centre`` and ``sigma`` [e-], which the method compares the sample with in the end, ``deviation``
    (value less centre, over sigma) and the limits ``lower`` and ``upper`` [e-]; over ``rejection``: ``result`` [e-],
    the mean of what is kept, its ``result_error``, and ``kept``, the number of samples.

    Raises
    ------
    WorkbenchError
        If there is no such pixel, channel or method.
    """
    names = [str(name) for name in lights["channel"].values]
    if channel not in names:
        raise WorkbenchError(f"there is no channel {channel!r}; these lights have {', '.join(names)}")
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
    known = np.isfinite(value)
    rows = []
    for method in methods:
        number = method_number(method)
        if number >= len(REJECTING):
            raise WorkbenchError(f"{method!r} rejects nothing; methods that do are {', '.join(REJECTING)}")
        limits = [given if given is not None else own for given, own in zip((low, high), DEFAULTS[method], strict=True)]
        flags = reject_samples(values, variance, slope, method, low=limits[0], high=limits[1])[place]
        kept = known & (flags == 0)
        if method == "noise":
            median, sigma = noise_limits(values, variance, slope)
            centre, sigma = np.full(value.shape, float(median[place[1:]])), sigma[place].astype(float)
        else:
            centre, sigma = _own_scatter(value, kept, method)
        if method == "esd":
            table = esd_table(int(known.sum()), *limits)
            limits = [float(table[-1, 0]) or np.inf] * 2
        total = np.where(kept, weight, 0).sum()
        with np.errstate(invalid="ignore", divide="ignore"):
            rows.append(
                {
                    "decision": np.where(known, flags, 0),
                    "centre": centre,
                    "sigma": sigma,
                    "deviation": (value - centre) / sigma,
                    "lower": centre - limits[0] * sigma,
                    "upper": centre + limits[1] * sigma,
                    "result": np.where(kept, weight * value, 0).sum() / total,
                    "result_error": np.sqrt(np.where(kept, (weight * error) ** 2, 0).sum()) / total,
                    "kept": kept.sum(),
                }
            )
    e = {"units": "electron"}
    data = {"value": ("frame", value, e), "error": ("frame", error, e)}
    for name in rows[0]:
        dims = ("rejection",) if name in ("result", "result_error", "kept") else ("rejection", "frame")
        units = {} if name in ("decision", "deviation", "kept") else e
        data[name] = (dims, np.array([row[name] for row in rows]), units)
    coords = {"rejection": list(methods), "filename": ("frame", lights["filename"].values)}
    attrs = {"y": y, "x": x, "channel": channel, "camera": lights.attrs.get("camera", "")}
    return xr.Dataset(data, coords=coords, attrs=attrs)


def _own_scatter(value: np.ndarray, kept: np.ndarray, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Centre and σ of each sample by a classical method, from the samples that it keeps in the end."""
    inside = np.sort(value[kept])
    same = np.ones(value.shape)
    if inside.size < 2:
        return same * (inside[0] if inside.size else np.nan), same * np.nan
    middle, spread = np.median(inside), inside.std(ddof=1)
    if method == "percentile":
        return same * middle, same * abs(middle)
    if method == "esd":
        return same * inside.mean(), same * spread
    if method == "mad":
        return same * middle, same * MAD_TO_SIGMA * np.median(np.abs(inside - middle))
    if method == "winsorized":
        for _ in range(50):
            clipped = np.clip(inside, middle - 1.5 * spread, middle + 1.5 * spread)
            last, spread = spread, 1.134 * clipped.std(ddof=1)
            if abs(spread - last) <= 0.0005 * last:
                break
        return same * middle, same * spread
    if method == "linear-fit":
        rank = np.arange(inside.size)
        slope, first = np.polyfit(rank, inside, 1)
        own = np.searchsorted(inside, value).astype(float)  # one that was thrown out would come before or after all
        own[value < inside[0]] = -1
        return first + slope * own, same * np.abs(inside - first - slope * rank).mean()
    return same * middle, same * spread


def explain(pixel: xr.Dataset) -> pd.DataFrame:
    """Tabulate what `inspect_pixel` found: a row for each sample, a column for each method, with the reason.

    Examples
    --------
    >>> pixel = xr.Dataset(
    ...     {"value": ("frame", [100.0, 190.0]), "error": ("frame", [10.0, 10.0]),
    ...      "decision": (("rejection", "frame"), [[0, 1]]), "deviation": (("rejection", "frame"), [[-0.4, 8.6]])},
    ...     {"rejection": ["noise"], "filename": ("frame", ["a", "b"])})
    >>> explain(pixel).noise.tolist()
    ['kept (-0.4 σ)', 'too high (+8.6 σ)']
    """
    table = pd.DataFrame(
        {
            "frame": [str(name).rsplit("/", 1)[-1] for name in pixel["filename"].values],
            "value [e⁻]": pixel["value"].values.round(1),
            "its noise [e⁻]": pixel["error"].values.round(1),
        }
    )
    words = {-1: "too low", 0: "kept", 1: "too high"}
    for method in pixel["rejection"].values:
        one = pixel.sel(rejection=method)
        unit, digits = ("of the median", 2) if method == "percentile" else ("σ", 1)
        table[str(method)] = [
            f"{words[int(choice)]} ({deviation:+.{digits}f} {unit})" if np.isfinite(value) else "missing"
            for value, choice, deviation in zip(
                pixel["value"].values, one["decision"].values, one["deviation"].values, strict=True
            )
        ]
    return table


def busiest_pixel(lights: xr.Dataset, channel: str = "G") -> tuple[int, int]:
    """Return (y, x) of a pixel of aligned lights where one sample stands out most from the others, far from stars.

    For a first look: a satellite or a cosmic ray is most often what it finds.
    """
    part = lights[["signal", "variance", "slope"]].sel(channel=channel).compute()
    values, variance, slope = (part[name].values for name in ("signal", "variance", "slope"))
    median, sigma = noise_limits(values, variance, slope)
    with np.errstate(invalid="ignore"):
        pull = np.sort(np.where(np.isfinite(values), np.abs(values - median) / sigma, 0), axis=0)
    calm = (median < np.nanpercentile(median, 90)) & (np.isfinite(values).sum(axis=0) == len(values))
    alone = np.where(calm & (pull[-2] < 3), pull[-1], 0)
    y, x = np.unravel_index(np.argmax(alone), alone.shape)
    return int(y), int(x)
