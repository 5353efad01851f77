"""Charts of alignment and of the stack: residuals, models, rejection, noise against frames, a light and the stack."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from ..core.statistics import mad_std
from ..core.values import value_text
from . import theme
from .lights import LIGHTS
from .registry import Caption, caption, chart, listing, quantity, source
from .theme import COLUMN, INK, MUTED, ROW, SERIES

ACROSS, DOWN = theme.dimension("residual along rows", "px"), theme.dimension("residual along columns", "px")
PARAMETERS, RMS = theme.dimension("parameters of the model"), theme.dimension("residual, rms per axis", "px")
FRAMES, RATIO = theme.dimension("frames stacked"), theme.dimension("signal to noise")
OFF = theme.dimension("measured / predicted − 1", "%")
STRENGTH = theme.dimension("what was planted", "σ of a sample")
FOUND, ALARMS = theme.dimension("found", "%"), theme.dimension("good samples rejected", "%")
NUMBER, VALUE, LIGHT = (
    theme.dimension("rejection method"),
    theme.dimension("value", "e⁻"),
    theme.dimension("light", "e⁻"),
)
METHOD_NAMES = {"noise": "noise model", "sigma": "sigma clipping", "linear-fit": "linear fit", "mad": "MAD clipping"}
_METHOD = {
    "noise": (SERIES[0], "circle"), "sigma": (SERIES[1], "square"), "winsorized": (SERIES[4], "triangle"),
    "linear-fit": (SERIES[3], "diamond"), "mad": (SERIES[2], "star"), "esd": (SERIES[6], "cross"),
    "percentile": (SERIES[7], "cross"),
}  # fmt: skip
_SHOWN = 4  # pictures of the stack, methods side by side


@chart(
    "alignment-residuals", "How well do the frames fit together?", "Alignment", needs=("lights.registration",),
    takes=("lights.registration.residuals",), shoot=LIGHTS,
)  # fmt: skip
def alignment_residuals(residuals: xr.Dataset) -> hv.Layout:
    """Chart how far matched stars lie from where the transforms put them: as vectors over the frame, and as a cloud.

    Parameters
    ----------
    residuals
        From `align.Registration.residuals`: ``x``, ``y`` [px], ``dx``, ``dy`` [px], ``frame`` and ``used`` over star.
    """
    used = residuals.isel(star=np.flatnonzero(residuals["used"].values))
    x, y, dx, dy = (used[name].values.astype(float) for name in ("x", "y", "dx", "dy"))
    frames = np.unique(used["frame"].values)
    typical = _rms(used) if x.size else 1.0
    right, bottom = (float(np.ceil(axis.max() + 10)) if x.size else 1.0 for axis in (x, y))
    stretch = 0.03 * right / max(typical, 1e-9)
    ends = np.stack([x, y, x + stretch * dx, y + stretch * dy], 1)
    elements: list[Any] = [theme.points(x, y, dims=(COLUMN, ROW), label="star", colour=MUTED, size=2.5)]
    cloud: list[Any] = []
    reach = 4.5 * typical
    for number, (frame, colour) in enumerate(zip(frames, theme.ramp(max(frames.size, 1)), strict=False)):
        here = used["frame"].values == frame
        elements.append(theme.segments(ends[here], colour=colour, width=1.4))
        label = f"frame {frame + 1}" if frames.size <= 8 or number in (0, frames.size - 1) else ""
        here &= (np.abs(dx) < reach) & (np.abs(dy) < reach)
        cloud.append(theme.points(dx[here], dy[here], dims=(ACROSS, DOWN), label=label, colour=colour, size=4))
    bar, above = stretch * typical, -0.045 * bottom
    elements.append(theme.segments([[0.03 * right, above, 0.03 * right + bar, above]], colour=INK, width=3))
    scale = {"dims": (COLUMN, ROW), "align": ("left", "center")}
    elements.append(theme.note(0.045 * right + bar, above, f"{typical:.2f} px", **scale))
    circle = np.linspace(0, 2 * np.pi, 90)
    for times, dash in ((1, "solid"), (2, "dashed")):
        ring = times * typical * np.cos(circle), times * typical * np.sin(circle)
        label = f"{times} × {typical:.3f} px"
        cloud.append(theme.line(*ring, dims=(ACROSS, DOWN), label=label, dash=dash, width=1.6))
    left = theme.frame_panel(elements, "Residuals over the frame, magnified", (0, -0.09 * bottom, right, bottom))
    # room for the legend on the right of the cloud
    span = {"xlim": (-reach, 1.8 * reach), "ylim": (-reach, reach), "ratio": 1.4, "grid": True}
    return theme.layout([left, theme.panel(cloud, title="All stars of all frames", **span)])


def _rms(used: xr.Dataset) -> float:
    """Return the rms of residuals per axis."""
    return float(np.sqrt((used["dx"].astype(float) ** 2 + used["dy"].astype(float) ** 2).mean() / 2))


@caption(alignment_residuals)
def alignment_residuals_caption(result: Any) -> Caption:
    """Describe the residuals of the alignment."""
    residuals = result.lights.registration.residuals()
    used = residuals.isel(star=np.flatnonzero(residuals["used"].values))
    models = result.lights.registration.table()["model"].dropna()
    kinds = listing(sorted({str(kind) for kind in models} - {"shift"}) or ["shift"])
    count, rms = used.sizes["star"], _rms(used)
    return Caption(
        f"How far {count} matched stars of {np.unique(used['frame'].values).size} lights lie from where the fitted "
        f"transforms ({kinds}) put them: {value_text(rms, rms / np.sqrt(4 * max(count, 1)), 'px')} rms per axis. It is "
        "the noise of single positions: the strokes of one star point the same way, because all of them contain the "
        "reference's own error, but those of neighbouring stars do not. The transform, fitted to all of them, is far "
        f"better. {source(result)}",
        f"Left: short strokes at the stars, in no common direction. Right: a round cloud of {count} points about zero.",
    )


def transform_models(models: xr.Dataset) -> hv.Layout:
    """Chart how closely each model of the transform follows the stars it was fitted to, and held-out stars.

    Parameters
    ----------
    models
        From `align.compare_models`.
    """
    dims = (PARAMETERS, RMS)
    number = models["parameters"].values
    fitted, held = (np.sqrt((models[name] ** 2).mean("frame", skipna=True)).values for name in ("rms", "held_out"))
    error = np.sqrt((models["held_out_error"] ** 2).sum("frame")).values / models.sizes["frame"]
    elements = [
        theme.line(number, fitted, dims=dims, colour=SERIES[0]),
        theme.points(number, fitted, dims=dims, label="fitted stars", colour=SERIES[0]),
        theme.line(number, held, dims=dims, colour=SERIES[1], dash="dashed"),
        theme.points(number, held, error, dims=dims, label="held-out stars", colour=SERIES[1], marker="square"),
    ]
    top = 1.25 * float(np.nanmax([fitted, held]))
    for place, kind in enumerate(models["kind"].values.astype(str)):
        if np.isfinite(held[place]):
            up = 0.05 * top * (1 + place % 2)
            elements.append(theme.note(number[place] + 0.2, max(held[place], fitted[place]) + up, kind, dims=dims))
    scales = {"ylim": (0, top), "xlim": (0, 22)}
    return theme.layout([theme.panel(elements, title="What more parameters buy", legend="bottom_right", **scales)])


@chart("snr-vs-frames", "More frames, less noise", "Stacking", needs=("lights.growth",), shoot=LIGHTS)
def snr_vs_frames(growth: xr.Dataset) -> hv.Layout:
    """Chart the signal-to-noise ratio against the number of frames with √N, and the noise against its prediction.

    Parameters
    ----------
    growth
        From `stack.noise_against_frames`.
    """
    count = growth["count"].values.astype(float)
    span = (count[0] / 1.2, count[-1] * 1.2)
    left: list[Any] = []
    right: list[Any] = [theme.level(0, span, dims=(FRAMES, OFF), dash="dashed")]
    for channel in growth["channel"].values.astype(str):
        one = growth.sel(channel=channel)
        snr, error, noise, bars, predicted = (
            one[name].values for name in ("snr", "snr_error", "noise", "noise_error", "predicted")
        )
        style = {"colour": theme.channel_colour(channel), "dash": "dashed", "width": 1.3}
        left.append(theme.line(count, np.sqrt(count / count[0]) * snr[0], dims=(FRAMES, RATIO), **style))
        left.append(theme.channel_points(channel, count, snr, error, dims=(FRAMES, RATIO), size=8))
        shift = count * {"R": 0.97, "B": 1.03}.get(channel, 1.0)
        off = 100 * (noise / predicted - 1), 100 * bars / predicted
        right.append(theme.channel_points(channel, shift, *off, dims=(FRAMES, OFF), size=8))
    reach = max(3.0, 1.3 * float(np.nanmax(np.abs(100 * (growth["noise"] / growth["predicted"] - 1)))))
    common = {"xlim": span, "xticks": [(int(value), f"{int(value)}") for value in count], "legend": "top_left"}
    return theme.layout(
        [
            theme.panel(left, title="Measured against √N (dashed)", log="xy", **common),
            theme.panel(right, title="Noise against its prediction", log="x", ylim=(-reach, reach), **common),
        ]
    )


@caption(snr_vs_frames)
def snr_vs_frames_caption(result: Any) -> Caption:
    """Describe how the signal-to-noise ratio grows."""
    growth = result.lights.growth
    first, last = growth.isel(count=0), growth.isel(count=-1)
    count = int(last["count"])
    noises = listing(f"{name} {quantity(last.sel(channel=name), 'noise')}" for name in growth["channel"].values)
    lower = float(np.mean(first["noise"] / last["noise"]))
    return Caption(
        "Signal to noise per pixel, of the sky's brightest parts over its faintest, against the number of lights; "
        f"bars: 1σ. {count} lights lower the noise {lower:.2f} times (√{count} = {np.sqrt(count):.2f}), to {noises} "
        f"e⁻. Right: the measured noise over that of the variance propagated through calibration. {source(result)}",
        "Left: points along straight lines that grow as the square root of the number of frames. Right: points about "
        "zero.",
    )


@chart("stack-before-after", "One light, and the stack", "Stacking", needs=("lights.pair",), shoot=LIGHTS)
def stack_before_after(pair: xr.Dataset) -> hv.Layout:
    """Chart one calibrated light and the stack, on one grey scale.

    Parameters
    ----------
    pair
        ``light`` and ``stack`` (y, x) [e⁻], with ``frames`` in attrs (from `stack.before_after`).
    """
    pair = pair.assign_coords(x=pair["x"] + 0.5, y=pair["y"] + 0.5)
    middle, spread = float(np.nanmedian(pair["stack"].values)), float(mad_std(pair["light"].values))
    style = {"value": LIGHT, "limits": (middle - 2 * spread, middle + 5 * spread)}
    titles = {"light": "One calibrated light", "stack": f"{pair.attrs['frames']} lights stacked"}
    return theme.layout(theme.image_panel(pair[name], title, label=name, **style) for name, title in titles.items())


@caption(stack_before_after)
def stack_before_after_caption(result: Any) -> Caption:
    """Describe a light and the stack."""
    attrs = result.lights.pair.attrs
    return Caption(
        f"The same piece of sky in one calibrated light and in the stack of {attrs['frames']}, {attrs['channel']} "
        f"channel, on the same grey scale. The noise of a pixel falls from {attrs['light_noise']:.1f} to "
        f"{attrs['stack_noise']:.1f} e⁻; what was in one frame only is gone. {source(result)}",
        "Two pictures of the same stars and nebula: the left grainy, the right smooth, with fainter stars visible.",
    )


@chart("rejection", "Satellites and cosmic rays thrown out", "Stacking", needs=("lights.trial",), shoot=LIGHTS)
def rejection(trial: xr.Dataset) -> hv.Layout:
    """Chart a planted satellite in stacks by several methods, how many of the planted samples each finds, and its cost.

    Parameters
    ----------
    trial
        From `stack.rejection_trial`.
    """
    found: list[Any] = []
    cost: list[Any] = []
    least = 3e-3  # [%]: a logarithmic axis has no place for none
    for method in trial["rejection"].values.astype(str):
        one = trial.sel(rejection=method)
        colour, marker = _METHOD[method]
        look = {"label": METHOD_NAMES.get(method, method), "colour": colour, "marker": marker}
        strength, values = one["strength"].values, 100 * one["completeness"].values
        found.append(theme.line(strength, values, dims=(STRENGTH, FOUND), colour=colour, width=1.2))
        error = 100 * one["completeness_error"].values
        found.append(theme.points(strength, values, error, dims=(STRENGTH, FOUND), size=7, **look))
        alarms, values = np.maximum(100 * one["false_alarms"].values, least), 100 * one["found"].values
        cost.append(theme.line(alarms, values, dims=(ALARMS, FOUND), colour=colour, width=1.4))
        default = [max(100 * float(one["default_false_alarms"]), least)], [100 * float(one["default_found"])]
        cost.append(theme.points(*default, dims=(ALARMS, FOUND), size=11, **look))
    common = {"log": "x", "ylim": (-4, 106)}
    price = {"title": "Found, and the price", "xlim": (least / 1.5, 90), "legend": "bottom_right"}
    return theme.layout(
        [
            theme.panel(found, title="Found, by strength", xlim=(1, 36), legend=None, **common),
            theme.panel(cost, **price, **common),
            _methods_side_by_side(trial),
        ]
    )


def _methods_side_by_side(trial: xr.Dataset) -> hv.Overlay:
    """The stacks of four methods as one picture, one below the other, on one grey scale."""
    names = [str(name) for name in trial["shown"].values]
    shown = [name for name in dict.fromkeys(["mean", "sigma", "winsorized", "noise", *names]) if name in names][:_SHOWN]
    width = trial.sizes["x"] // 2 * 2
    tall = min(trial.sizes["y"], width // 2) // 2 * 2
    top = (trial.sizes["y"] - tall) // 2
    tiled = np.vstack([trial["picture"].sel(shown=name).values[top : top + tall, :width] for name in shown])
    # half the size, so that the picture is light and the noise calm
    small = tiled.reshape(-1, 2, width // 2, 2).mean((1, 3))
    axes = {"y": 2 * np.arange(small.shape[0]) + 1.0, "x": 2 * np.arange(small.shape[1]) + 1.0}
    middle, spread = float(np.nanmedian(small)), float(mad_std(small))
    limits = middle - 3 * spread, middle + max(6 * spread, float(trial.attrs["noise"]))
    style = {"dims": (COLUMN, ROW), "colour": "#ffd166", "align": ("left", "top"), "size": 12}
    notes = [
        theme.note(0.02 * width, (place + 0.04) * tall, METHOD_NAMES.get(name, name), **style)
        for place, name in enumerate(shown)
    ]
    whole = xr.DataArray(small, axes, ("y", "x"))
    return theme.image_panel(whole, "One planted satellite", value=LIGHT, limits=limits, label="stacks", over=notes)


@caption(rejection)
def rejection_caption(result: Any) -> Caption:
    """Describe the trial of rejection methods."""
    trial = result.lights.trial
    rates = []
    for name in trial["rejection"].values.astype(str):
        found, lost = (100 * float(trial[f"default_{what}"].sel(rejection=name)) for what in ("found", "false_alarms"))
        rates.append(f"{METHOD_NAMES.get(name, name)} {found:.0f} % ({lost:.2g} %)")
    left = 100 * float(trial["left"].sel(rejection="noise"))
    return Caption(
        f"A satellite that brightens along its path and {trial.attrs['rays']} cosmic rays, simulated, planted into one "
        f"of {trial.attrs['frames']} lights. Left: the share of planted samples found with the default thresholds. "
        "Middle: the share found of those of 5 σ and more, against good samples rejected, along thresholds of 2 to "
        f"6 σ; marks: the defaults. Found (good samples rejected): {listing(rates)}. The noise model leaves {left:.1f} "
        f"% of the trail. {source(result)}",
        "Left and middle: curves in which the noise model finds most and rejects fewest good samples. Right: four "
        "stacks; the satellite shows in the mean and after sigma clipping, faintly or not at all after the others.",
    )


def pixel_decisions(pixel: xr.Dataset) -> hv.Layout:
    """Chart the samples of one pixel, a column for each method: those kept, those rejected, and the limits between.

    A sample far out is drawn at the edge, with its value.

    Parameters
    ----------
    pixel
        From `stack.inspect_pixel`.
    """
    dims = (NUMBER, VALUE)
    methods = [str(name) for name in pixel["rejection"].values]
    value, typical = pixel["value"].values.astype(float), float(np.nanmedian(pixel["error"]))
    known = np.flatnonzero(np.isfinite(value))
    reach = 12 * typical  # a satellite must not press all others into a line
    bottom = max(float(np.nanmin(value)), float(np.nanmedian(value)) - reach) - 3 * typical
    top = min(float(np.nanmax(value)), float(np.nanmedian(value)) + reach) + 3 * typical
    width = value.size + 2
    elements: list[Any] = []
    named: set[str] = set()

    def once(label: str) -> str:
        """Return a label the first time, so that the legend has it once."""
        new = label not in named
        named.add(label)
        return label if new else ""

    for number, method in enumerate(methods):
        one = pixel.sel(rejection=method)
        order = known[np.argsort(value[known])] if method == "linear-fit" else known
        x = number * width + np.arange(known.size) + 1.0
        limits = [np.clip(one[name].values.astype(float)[order], bottom, top) for name in ("lower", "upper")]
        if order.size and np.isfinite(limits).all():
            elements.append(theme.band(x, *limits, dims=dims, label=once("kept between"), colour=MUTED))
        ends = (number * width + 0.5, number * width + value.size + 0.5)
        elements.append(theme.level(float(one["result"]), ends, dims=dims, label=once("mean of the kept"), width=1.6))
        shown, out = np.clip(value[order], bottom, top), one["decision"].values[order] != 0
        if (~out).any():
            elements.append(theme.points(x[~out], shown[~out], dims=dims, label=once("kept"), colour=SERIES[0], size=7))
        if out.any():
            look = {"label": once("rejected"), "colour": SERIES[1], "marker": "cross", "size": 10}
            elements.append(theme.points(x[out], shown[out], dims=dims, **look))
        for far in np.flatnonzero(shown != value[order]):
            up = value[order][far] > top
            y, align = shown[far] + (0.6 if up else -0.6) * typical, ("right", "bottom" if up else "top")
            elements.append(theme.note(x[far] + 1, y, f"{value[order][far]:,.0f}", dims=dims, align=align, size=10))
    title = f"Pixel ({pixel.attrs['y']}, {pixel.attrs['x']}), {pixel.attrs['channel']}: {known.size} samples"
    names = [METHOD_NAMES.get(method, method).replace(" ", "\n") for method in methods]
    scales = {"xticks": [(number * width + (width - 1) / 2, name) for number, name in enumerate(names)]}
    scales |= {"xlim": (0, len(methods) * width), "ylim": (bottom - typical, top + 0.45 * (top - bottom))}
    return theme.layout([theme.panel(elements, title=title, legend="top_left", **scales)])
