"""Charts that are pictures: a flat with its radial profile, where the hot pixels are, a dark subtracted."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from .theme import CHANNEL_COLOUR, KIND_COLOUR, REFERENCE, dimension, layout, line, panel, picture, points
from .words import electrons, hot_limit

COLUMN, ROW = dimension("column", "px"), dimension("row", "px")
ILLUMINATION = dimension("illumination", "% of the centre")
RADIUS = dimension("distance from the centre", "px")
FRACTION = dimension("pixels above it", "per million")


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
        style = {"label": channel, "colour": CHANNEL_COLOUR[channel], "marker": channel, "size": 5}
        percent = 100 * one["profile"].values, 100 * one["profile_error"].values
        curves.append(points(one["radius"].values, *percent, dims=dims, **style))
    return layout([_frame(image, "A flat"), panel(curves, title="Falling off from the centre", legend="bottom_left")])


def hot_pixels(hot: xr.Dataset) -> hv.Layout:
    """Chart how many pixels exceed a dark current, and where the hottest lie.

    Parameters
    ----------
    hot
        From `sensor.hot_pixels`: ``fraction`` over threshold; ``dark_current`` over point with y and x.
    """
    unit = electrons(hot.attrs["units"])
    dims = (dimension("dark current", unit), FRACTION)
    threshold, fraction = hot["threshold"].values, 1e6 * hot["fraction"].values
    seen = (fraction > 0) & (threshold > 0)
    curve = line(threshold[seen], fraction[seen], dims=dims, colour=KIND_COLOUR["dark"], width=2.4)
    left = panel([curve], title="How many pixels are hotter", log="xy", legend=None)
    x, y, current = hot["x"].values + 0.5, hot["y"].values + 0.5, hot["dark_current"].values
    height, width = float(hot.attrs["height"]), float(hot.attrs["width"])
    lost = np.isnan(current)
    groups = [(~lost, "hottest", KIND_COLOUR["dark"], "circle"), (lost, "saturated", REFERENCE, "diamond")]
    style = {"dims": (COLUMN, ROW), "size": 5, "filled": False}
    places = [
        points(x[which], y[which], label=label, colour=colour, marker=marker, **style)
        for which, label, colour, marker in groups
        if which.any()
    ]
    title = f"Where the hottest {current.size} are"
    frame = {"xlim": (0, width), "ylim": (0, height), "ratio": width / height, "invert_y": True}
    right = panel(places, title=title, legend=None, **frame)
    return layout([left, right])


def dark_subtraction(subtraction: xr.Dataset) -> hv.Layout:
    """Chart a part of a frame before and after the master dark is subtracted, and that master, on one grey scale.

    The colours of the mosaic would show as a checkerboard; each is shown about its own median.  Of a larger part the
    corner with the most hot pixels is shown, so that single pixels can be seen.

    Parameters
    ----------
    subtraction
        From `sensor.dark_subtraction`: ``before`` and ``after`` over (y, x).
    """
    value = dimension("about the median", electrons(subtraction.attrs["units"]))
    parts = {name: _about_median(subtraction[name]) for name in ("before", "after")}
    parts["subtracted"] = _about_median(subtraction["before"] - subtraction["after"])
    window = _busiest(parts["subtracted"].values)
    parts = {name: part[window] for name, part in parts.items()}
    # the noise must show, for it is what stays; the hot pixels are far beyond white
    noise = 1.4826 * float(np.nanmedian(np.abs(parts["after"].values)))
    low, high = -4 * noise, 12 * noise
    panels = []
    for name, title in (("before", "Before"), ("subtracted", "The master dark"), ("after", "After")):
        values, bounds = _shown(parts[name])
        image = picture(values, bounds, dims=(COLUMN, ROW), value=value, limits=(low, high), label=name)
        panels.append(_frame(image, title))
    return layout(panels)


def _busiest(master: np.ndarray, side: int = 96) -> tuple[slice, slice]:
    """Return the window with the most pixels that stand far above the median, on whole cells of the mosaic."""
    hot = master - np.nanmedian(master) > hot_limit(master)
    total = np.pad(hot.astype(int).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    height, width = (min(side, size) for size in master.shape)
    sums = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    row, column = (int(index) // 2 * 2 for index in np.unravel_index(np.argmax(sums), sums.shape))
    return slice(row, row + height), slice(column, column + width)


def _about_median(mosaic: xr.DataArray) -> xr.DataArray:
    """Subtract from the pixels of each place in the 2 x 2 cell their median."""
    values = np.array(mosaic.values, float)
    for row in (0, 1):
        for column in (0, 1):
            plane = values[row::2, column::2]
            plane -= np.nanmedian(plane)
    return mosaic.copy(data=values)
