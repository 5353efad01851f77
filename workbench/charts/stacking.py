"""Charts of alignment and of the stack: residuals, models, noise against frames, one light beside the stack."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from ..core.values import value_text
from .theme import (
    CHANNEL_COLOUR,
    INK,
    MUTED,
    SERIES,
    dimension,
    layout,
    line,
    note,
    panel,
    picture,
    points,
    ramp,
    segments,
)
from .words import Words, listing, source

COLUMN, ROW = dimension("column", "px"), dimension("row", "px")
ACROSS, DOWN = dimension("residual along rows", "px"), dimension("residual along columns", "px")
PARAMETERS = dimension("parameters of the model")
RMS = dimension("residual, rms per axis", "px")
FRAMES = dimension("frames stacked")
RATIO = dimension("signal to noise")
NOISE = dimension("noise of a pixel of the sky", "e⁻")
OFF = dimension("measured / predicted − 1", "%")
LIGHT = dimension("light", "e⁻")
COLOURS = CHANNEL_COLOUR | {"G": CHANNEL_COLOUR["G1"]}
_MARKER = {"R": "square", "G": "triangle", "B": "circle", "mono": "circle"}


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
    typical = float(np.sqrt(np.mean(dx**2 + dy**2) / 2)) if x.size else 1.0
    right, bottom = (float(np.ceil(axis.max() + 10)) if x.size else 1.0 for axis in (x, y))
    stretch = 0.03 * right / max(typical, 1e-9)
    ends = np.stack([x, y, x + stretch * dx, y + stretch * dy], 1)
    colours = ramp(max(frames.size, 1))
    elements: list[Any] = [points(x, y, dims=(COLUMN, ROW), label="star", colour=MUTED, size=2.5)]
    cloud: list[Any] = []
    reach = 4.5 * typical
    for place, (frame, colour) in enumerate(zip(frames, colours, strict=False)):
        here = used["frame"].values == frame
        elements.append(segments(ends[here], colour=colour, width=1.4))
        label = f"frame {frame + 1}" if frames.size <= 8 or place in (0, frames.size - 1) else ""
        inside = here & (np.abs(dx) < reach) & (np.abs(dy) < reach)
        cloud.append(points(dx[inside], dy[inside], dims=(ACROSS, DOWN), label=label, colour=colour, size=4))
    bar, above = stretch * typical, -0.045 * bottom
    elements.append(segments([[0.03 * right, above, 0.03 * right + bar, above]], colour=INK, width=3))
    style = {"dims": (COLUMN, ROW), "align": ("left", "center")}
    elements.append(note(0.045 * right + bar, above, f"{typical:.2f} px", **style))
    head = -0.09 * bottom
    frame = {"xlim": (0, right), "ylim": (head, bottom), "ratio": right / (bottom - head), "invert_y": True}
    circle = np.linspace(0, 2 * np.pi, 90)
    for times, dash in ((1, "solid"), (2, "dashed")):
        cloud.append(
            line(
                times * typical * np.cos(circle), times * typical * np.sin(circle), dims=(ACROSS, DOWN),
                label=f"{times} × {typical:.3f} px", dash=dash, width=1.6,
            )
        )  # fmt: skip
    # room for the legend beside the cloud
    span = {"xlim": (-reach, 1.8 * reach), "ylim": (-reach, reach), "ratio": 1.4, "grid": True}
    left = panel(elements, title="Residuals over the frame, magnified", legend=None, **frame)
    return layout([left, panel(cloud, title="All stars of all frames", legend="top_right", **span)])


def transform_models(models: xr.Dataset) -> hv.Layout:
    """Chart how closely each model of the transform follows the stars it was fitted to, and others.

    Parameters
    ----------
    models
        From `align.compare_models`.
    """
    dims = (PARAMETERS, RMS)
    number = models["parameters"].values
    count = models.sizes["frame"]

    def mean(name: str) -> np.ndarray:
        return np.sqrt(np.nanmean(models[name].values ** 2, axis=0))

    error = np.sqrt(np.nansum(models["held_out_error"].values ** 2, axis=0)) / count
    fitted, held = mean("rms"), mean("held_out")
    elements = [
        line(number, fitted, dims=dims, colour=SERIES[0]),
        points(number, fitted, dims=dims, label="stars that were fitted", colour=SERIES[0], size=8),
        line(number, held, dims=dims, colour=SERIES[1], dash="dashed"),
        points(number, held, error, dims=dims, label="stars that had no say", colour=SERIES[1], marker="square"),
    ]
    top = 1.25 * float(np.nanmax([fitted, held]))
    for place, kind in enumerate(models["kind"].values.astype(str)):
        if np.isfinite(held[place]):
            up = 0.05 * top * (1 + place % 2)
            elements.append(note(number[place] + 0.2, max(held[place], fitted[place]) + up, kind, dims=dims))
    return layout(
        [panel(elements, title="What more parameters buy", ylim=(0, top), xlim=(0, 22), legend="bottom_right")]
    )


def snr_vs_frames(growth: xr.Dataset) -> hv.Layout:
    """Chart the measured signal-to-noise ratio against the number of frames beside √N, and the noise's prediction.

    Parameters
    ----------
    growth
        From `stack.noise_against_frames`.
    """
    count = growth["count"].values.astype(float)
    left: list[Any] = []
    right: list[Any] = [line([count[0] / 1.2, count[-1] * 1.2], [0, 0], dims=(FRAMES, OFF), dash="dashed")]
    for channel in growth["channel"].values.astype(str):
        one = growth.sel(channel=channel)
        style = {"colour": COLOURS[channel], "marker": _MARKER[channel], "size": 8}
        snr, error = one["snr"].values, one["snr_error"].values
        law = np.sqrt(count / count[0]) * snr[0]
        left.append(line(count, law, dims=(FRAMES, RATIO), colour=COLOURS[channel], dash="dashed", width=1.3))
        left.append(points(count, snr, error, dims=(FRAMES, RATIO), label=channel, **style))
        ratio = one["noise"].values / one["predicted"].values
        shift = count * {"R": 0.97, "B": 1.03}.get(channel, 1.0)
        bars = 100 * one["noise_error"].values / one["predicted"].values
        right.append(points(shift, 100 * (ratio - 1), bars, dims=(FRAMES, OFF), label=channel, **style))
    ticks = [(int(value), f"{int(value)}") for value in count]
    reach = max(3.0, 1.3 * float(np.nanmax(np.abs(100 * (growth["noise"] / growth["predicted"] - 1)))))
    span = (count[0] / 1.2, count[-1] * 1.2)
    return layout(
        [
            panel(left, title="Measured beside √N (dashed)", log="xy", xlim=span, xticks=ticks, legend="top_left"),
            panel(
                right, title="Noise beside what the variance predicts", log="x", xlim=span, ylim=(-reach, reach),
                xticks=ticks, legend="top_left",
            ),
        ]
    )  # fmt: skip


def stack_before_after(pair: xr.Dataset) -> hv.Layout:
    """Chart one calibrated light beside the stack, on one grey scale.

    Parameters
    ----------
    pair
        ``light`` and ``stack`` (y, x) [e⁻], with ``frames`` in attrs (from `stack.before_after`).
    """
    middle = float(np.nanmedian(pair["stack"].values))
    spread = 1.4826 * float(np.nanmedian(np.abs(pair["light"].values - np.nanmedian(pair["light"].values))))
    limits = middle - 2 * spread, middle + 5 * spread
    bounds = tuple(float(edge) for edge in (pair["x"][0], pair["y"][-1] + 1, pair["x"][-1] + 1, pair["y"][0]))
    ratio = (bounds[2] - bounds[0]) / (bounds[1] - bounds[3])
    panels = []
    for name, title in (("light", "One calibrated light"), ("stack", f"{pair.attrs['frames']} lights stacked")):
        style = {"dims": (COLUMN, ROW), "value": LIGHT, "limits": limits, "label": name}
        image = picture(pair[name].values[::-1], bounds, **style)
        span = {"xlim": (bounds[0], bounds[2]), "ylim": (bounds[3], bounds[1]), "ratio": ratio, "invert_y": True}
        panels.append(panel([image], title=title, legend=None, **span))
    return layout(panels)


def alignment_residuals_words(result: Any) -> Words:
    """Describe the residuals of the alignment."""
    residuals = result.lights.registration.residuals()
    used = residuals.isel(star=np.flatnonzero(residuals["used"].values))
    rms = float(np.sqrt((used["dx"] ** 2 + used["dy"] ** 2).mean() / 2))
    table = result.lights.registration.table()
    kinds = listing(sorted({str(kind) for kind in table["model"].dropna()} - {"shift"}) or ["shift"])
    count = used.sizes["star"]
    frames = np.unique(used["frame"].values).size
    return Words(
        f"How far {count} matched stars of {frames} lights lie from where the fitted transforms ({kinds}) put them: "
        f"{value_text(rms, rms / np.sqrt(4 * max(count, 1)), 'px')} rms per axis. It is the noise of single positions: "
        "the strokes of one star point alike, because the reference's own error is in all of them, but those of "
        f"neighbouring stars do not. The transform, fitted to all, is far better. {source(result)}",
        f"Left: short strokes at the stars, in no common direction. Right: a round cloud of {count} points about zero.",
    )


def snr_vs_frames_words(result: Any) -> Words:
    """Describe how the signal-to-noise ratio grows."""
    growth = result.lights.growth
    last = growth.isel(count=-1)
    count = int(last["count"])
    told = listing(
        f"{name} {value_text(float(one['noise']), float(one['noise_error']))}"
        for name, one in ((str(name), last.sel(channel=name)) for name in growth["channel"].values)
    )
    first = growth.isel(count=0)
    gain = float(np.mean(first["noise"] / last["noise"]))
    return Words(
        "Signal to noise of the sky's brightest over its faintest parts, a pixel, against the number of lights; bars: "
        f"1σ. {count} lights lower the noise {gain:.2f} times (√{count} = {np.sqrt(count):.2f}), to {told} e⁻. Right: "
        f"the measured noise over that of the variance which calibration carried along. {source(result)}",
        "Left: points along straight lines that grow as the square root of the number of frames. Right: points about "
        "zero.",
    )


def stack_before_after_words(result: Any) -> Words:
    """Describe a light beside the stack."""
    pair = result.lights.pair
    return Words(
        f"The same piece of sky in one calibrated light and in the stack of {pair.attrs['frames']}, "
        f"{pair.attrs['channel']} channel, on the same grey scale. The noise of a pixel falls from "
        f"{pair.attrs['light_noise']:.1f} to {pair.attrs['stack_noise']:.1f} e⁻; what only one frame saw is gone. "
        f"{source(result)}",
        "Two pictures of the same stars and nebula: the left grainy, the right smooth, with fainter stars to be seen.",
    )
