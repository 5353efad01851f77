"""Charts of rejection: a planted satellite by several methods, and what each decides about one pixel."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from .theme import MUTED, SERIES, band, dimension, layout, line, note, panel, picture, points
from .words import Words, listing, source

COLUMN, ROW = dimension("column", "px"), dimension("row", "px")
STRENGTH = dimension("what was planted", "σ of a sample")
FOUND = dimension("found", "%")
ALARMS = dimension("sound samples thrown out", "%")
VALUE = dimension("value", "e⁻")
LIGHT = dimension("light", "e⁻")
NUMBER = dimension("rejection method")
_METHOD = {
    "noise": (SERIES[0], "circle"),
    "sigma": (SERIES[1], "square"),
    "winsorized": (SERIES[4], "triangle"),
    "linear-fit": (SERIES[3], "diamond"),
    "mad": (SERIES[2], "star"),
    "esd": (SERIES[6], "cross"),
    "percentile": (SERIES[7], "cross"),
}
METHOD_NAMES = {"noise": "noise model", "sigma": "sigma clipping", "linear-fit": "linear fit", "mad": "MAD clipping"}
_SHOWN = 4  # pictures of the stack, methods side by side


def rejection(trial: xr.Dataset) -> hv.Layout:
    """Chart a planted satellite in stacks by several methods, how many of the planted samples each finds, and its cost.

    Parameters
    ----------
    trial
        From `stack.rejection_trial`.
    """
    methods = [str(name) for name in trial["rejection"].values]
    found: list[Any] = []
    for method in methods:
        one = trial.sel(rejection=method)
        colour, marker = _METHOD[method]
        values, error = 100 * one["completeness"].values, 100 * one["completeness_error"].values
        dims = (STRENGTH, FOUND)
        found.append(line(one["strength"].values, values, dims=dims, colour=colour, width=1.2))
        label = METHOD_NAMES.get(method, method)
        style = {"label": label, "colour": colour, "marker": marker, "size": 7}
        found.append(points(one["strength"].values, values, error, dims=dims, **style))
    by_strength = panel(found, title="Found, by strength", log="x", xlim=(1, 36), ylim=(-4, 106), legend=None)
    return layout([by_strength, _cost(trial, methods), _methods_side_by_side(trial)])


def _cost(trial: xr.Dataset, methods: list[str]) -> hv.Overlay:
    """Found against sound samples thrown out, along the thresholds; the defaults filled."""
    dims = (ALARMS, FOUND)
    least = 3e-3  # [%]: where none was thrown out the logarithmic axis needs a place
    elements: list[Any] = []
    for method in methods:
        one = trial.sel(rejection=method)
        colour, marker = _METHOD[method]
        alarms = np.maximum(100 * one["false_alarms"].values, least)
        elements.append(line(alarms, 100 * one["found"].values, dims=dims, colour=colour, width=1.4))
        style = {"label": METHOD_NAMES.get(method, method), "colour": colour, "marker": marker, "size": 11}
        default = max(100 * float(one["default_false_alarms"]), least), 100 * float(one["default_found"])
        elements.append(points([default[0]], [default[1]], dims=dims, **style))
    return panel(
        elements, title="Found, and the price", log="x", ylim=(-4, 106), xlim=(least / 1.5, 90), legend="bottom_right"
    )


def _methods_side_by_side(trial: xr.Dataset) -> hv.Overlay:
    """The stacks of four methods as one picture, one below the other, on one grey scale."""
    order = ["mean", *[name for name in ("sigma", "winsorized", "noise") if name in trial["shown"].values]]
    order += [str(name) for name in trial["shown"].values if name not in order]
    shown = order[:_SHOWN]
    height, width = trial.sizes["y"], trial.sizes["x"] // 2 * 2
    tall = min(height, width // 2) // 2 * 2
    rows = slice((height - tall) // 2, (height - tall) // 2 + tall)
    tiled = np.vstack([trial["picture"].sel(shown=name).values[rows, :width] for name in shown])
    # half the size, so that the picture is light and the noise calm
    small = tiled.reshape(-1, 2, width // 2, 2).mean((1, 3))
    middle = float(np.nanmedian(small))
    spread = 1.4826 * float(np.nanmedian(np.abs(small - middle)))
    limits = middle - 3 * spread, middle + max(6 * spread, float(trial.attrs["noise"]))
    whole = tall * len(shown)
    shape = {"dims": (COLUMN, ROW), "value": LIGHT, "limits": limits, "label": "stacks"}
    image = picture(small[::-1], (0, whole, width, 0), **shape)
    style = {"dims": (COLUMN, ROW), "colour": "#ffd166", "align": ("left", "top"), "size": 12}
    notes = [
        note(0.02 * width, (place + 0.04) * tall, METHOD_NAMES.get(name, name), **style)
        for place, name in enumerate(shown)
    ]
    frame = {"xlim": (0, width), "ylim": (0, whole), "ratio": width / whole, "invert_y": True}
    return panel([image, *notes], title="One planted satellite", legend=None, **frame)


def pixel_decisions(pixel: xr.Dataset) -> hv.Layout:
    """Chart the samples of one pixel, a column a method: what it keeps, what it throws out, and between which limits.

    A sample far out is drawn at the edge, with its value.

    Parameters
    ----------
    pixel
        From `stack.inspect_pixel`.
    """
    methods = [str(name) for name in pixel["rejection"].values]
    dims = (NUMBER, VALUE)
    value, count = pixel["value"].values.astype(float), pixel.sizes["frame"]
    known = np.isfinite(value)
    middle, typical = float(np.nanmedian(value)), float(np.nanmedian(pixel["error"]))
    reach = 12 * typical  # a satellite must not press all others into a line
    bottom = max(float(np.nanmin(value)), middle - reach) - 3 * typical
    top = min(float(np.nanmax(value)), middle + reach) + 3 * typical
    width = count + 2
    elements: list[Any] = []
    ticks = []
    told = dict.fromkeys(("kept between", "mean of the kept", "kept", "thrown out"), False)

    def once(label: str) -> str:
        new, told[label] = not told[label], True
        return label if new else ""

    for place, method in enumerate(methods):
        one = pixel.sel(rejection=method)
        at = place * width + np.arange(count) + 1.0
        ticks.append((place * width + (count + 1) / 2, METHOD_NAMES.get(method, method).replace(" ", "\n")))
        order = np.argsort(value) if method == "linear-fit" else np.arange(count)
        order = order[known[order]]
        limits = [np.clip(one[name].values.astype(float)[order], bottom, top) for name in ("lower", "upper")]
        if order.size and np.isfinite(limits).all():
            x = at[: order.size]
            elements.append(band(x, *limits, dims=dims, label=once("kept between"), colour=MUTED))
        result = [float(one["result"])] * 2
        ends = [at[0] - 0.5, at[-1] + 0.5]
        elements.append(line(ends, result, dims=dims, label=once("mean of the kept"), width=1.6))
        shown, out = np.clip(value[order], bottom, top), one["decision"].values[order] != 0
        x = at[: order.size]
        if (~out).any():
            elements.append(points(x[~out], shown[~out], dims=dims, label=once("kept"), colour=SERIES[0], size=7))
        if out.any():
            style = {"label": once("thrown out"), "colour": SERIES[1], "marker": "cross", "size": 10}
            elements.append(points(x[out], shown[out], dims=dims, **style))
        for number in np.flatnonzero((value[order] > top) | (value[order] < bottom)):
            words = f"{value[order][number]:,.0f}"
            up = value[order][number] > top
            y = shown[number] + (0.6 if up else -0.6) * typical
            align = ("right", "bottom" if up else "top")
            elements.append(note(x[number] + 1, y, words, dims=dims, align=align, size=10))
    title = f"Pixel ({pixel.attrs['y']}, {pixel.attrs['x']}), {pixel.attrs['channel']}: {known.sum()} samples"
    span = {"xlim": (0, len(methods) * width), "ylim": (bottom - typical, top + 0.45 * (top - bottom))}
    return layout([panel(elements, title=title, xticks=ticks, legend="top_left", **span)])


def rejection_words(result: Any) -> Words:
    """Describe the trial of rejection methods."""
    trial = result.lights.trial
    told = []
    for name in trial["rejection"].values.astype(str):
        found, lost = (100 * float(trial[f"default_{what}"].sel(rejection=name)) for what in ("found", "false_alarms"))
        told.append(f"{METHOD_NAMES.get(name, name)} {found:.0f} % ({lost:.2g} %)")
    left = 100 * float(trial["left"].sel(rejection="noise"))
    return Words(
        f"A satellite that brightens along its way and {trial.attrs['rays']} cosmic rays, simulated, planted into one "
        f"of {trial.attrs['frames']} lights. Left: the share of planted samples found with the default thresholds. "
        "Middle: of those of 5 σ and more, against sound samples thrown out, along thresholds of 2 to 6 σ; marks: the "
        f"defaults. Found (thrown out for nothing): {listing(told)}. The noise model leaves {left:.1f} % of the trail. "
        f"{source(result)}",
        "Left and middle: curves by which the noise model finds most and throws out least. Right: four stacks; the "
        "satellite shows in the mean and after sigma clipping, hardly or not after the others.",
    )
