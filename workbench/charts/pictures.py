"""Charts that are pictures: a flat with its radial profile, where the hot pixels are, a dark subtracted."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from .theme import CHANNEL_COLOUR, KIND_COLOUR, MUTED, REFERENCE, dimension, layout, line, panel, picture, points
from .words import quantity

COLUMN, ROW = dimension("column", "px"), dimension("row", "px")
ILLUMINATION = dimension("illumination", "% of the centre")
RADIUS = dimension("distance from the centre", "px")
THRESHOLD = dimension("dark current", "e⁻/s")
FRACTION = dimension("pixels above it", "per million")
DIFFERENCE = dimension("signal", "e⁻")


def _shown(data: xr.DataArray) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Return a picture's values, first row on top, and its bounds in pixels of the frame."""
    values = data.transpose("y", "x").values
    bounds = []
    for dim in ("x", "y"):
        centre = data[dim].values.astype(float) if dim in data.coords else np.arange(data.sizes[dim]) + 0.5
        half = (centre[1] - centre[0]) / 2 if centre.size > 1 else 0.5
        bounds += [centre[0] - half, centre[-1] + half]
    left, right, top, bottom = bounds
    return values[::-1], (left, top, right, bottom)


def _frame(image: hv.Image, title: str, extra: list[Any] | None = None) -> hv.Overlay:
    left, low, right, high = image.bounds.lbrt()
    return panel(
        [image, *(extra or [])],
        title=title,
        legend=None,
        ratio=(right - left) / (high - low),
        invert_y=True,
        xlim=(left, right),
        ylim=(low, high),
    )


def vignette(vignetting: xr.Dataset) -> hv.Layout:
    """Chart a flat as a picture, and how the light falls off from the centre in every channel.

    Parameters
    ----------
    vignetting
        From `sensor.vignetting`: ``illumination`` over (y, x) and ``profile`` over (channel, radius), both relative.
    """
    values, bounds = _shown(vignetting["illumination"] * 100)
    image = picture(values, bounds, dims=(COLUMN, ROW), value=ILLUMINATION, cmap="viridis")
    dims = (RADIUS, ILLUMINATION)
    curves: list[Any] = []
    for channel in vignetting["channel"].values.astype(str):
        one = vignetting.sel(channel=channel)
        curves.append(
            points(
                one["radius"].values,
                100 * one["profile"].values,
                dims=dims,
                label=channel,
                colour=CHANNEL_COLOUR[channel],
                marker=channel,
                size=5,
            )
        )
    return layout([_frame(image, "A flat"), panel(curves, title="Falling off from the centre", legend="bottom_left")])


def hot_pixels(hot: xr.Dataset) -> hv.Layout:
    """Chart how many pixels exceed a dark current, and where the hottest lie.

    Parameters
    ----------
    hot
        From `sensor.hot_pixels`: ``fraction`` over threshold [e⁻/s]; ``dark_current`` over point with y and x.
    """
    threshold, fraction = hot["threshold"].values, 1e6 * hot["fraction"].values
    seen = (fraction > 0) & (threshold > 0)
    curve = line(threshold[seen], fraction[seen], dims=(THRESHOLD, FRACTION), colour=KIND_COLOUR["dark"], width=2.2)
    left = panel([curve], title="How many", log="xy", legend=None)
    x, y, current = hot["x"].values, hot["y"].values, hot["dark_current"].values
    place = points(x, y, dims=(COLUMN, ROW), label="hottest", colour=KIND_COLOUR["dark"], size=5, filled=False)
    height, width = (float(hot.attrs.get(name, axis.max() + 1)) for name, axis in (("height", y), ("width", x)))
    right = panel(
        [place],
        title=f"Where the hottest {current.size} are",
        legend=None,
        ratio=width / height,
        invert_y=True,
        xlim=(0, width),
        ylim=(0, height),
    )
    return layout([left, right])


def dark_subtraction(subtraction: xr.Dataset) -> hv.Layout:
    """Chart a frame before and after the master dark is subtracted, on one grey scale.

    Parameters
    ----------
    subtraction
        From `sensor.dark_subtraction`: ``before`` and ``after`` over (y, x).
    """
    low, high = np.nanpercentile(subtraction["before"].values, [1, 99.5])
    offset = float(np.nanmedian(subtraction["before"])) - float(np.nanmedian(subtraction["after"]))
    panels = []
    for name, shift in (("before", 0.0), ("after", offset)):
        values, bounds = _shown(subtraction[name])
        limits = (float(low - shift), float(high - shift))
        image = picture(values, bounds, dims=(COLUMN, ROW), value=DIFFERENCE, limits=limits)
        panels.append(_frame(image.relabel(name), f"{name.capitalize()} dark subtraction"))
    return layout(panels)


__all__ = ["MUTED", "REFERENCE", "dark_subtraction", "hot_pixels", "quantity", "vignette"]
