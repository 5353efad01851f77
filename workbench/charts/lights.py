"""Charts of lights: dark and flat, alignment, rejection, noise against frames, a light and the stack."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from ..core.cube import first_green
from ..core.mosaic import planes
from ..core.statistics import mad_std, median_profile
from ..core.values import temperature_text, unit_text, value_text
from . import theme
from .registry import Caption, caption, chart, listing, quantity, source
from .settings import words_of
from .theme import COLUMN, INK, MUTED, ROW, SERIES

LIGHTS = "three or more lights of one target with stars, and their darks, bias and flats"
STEP, NOISE = theme.dimension("step"), theme.dimension("noise of a pixel of the sky", "e⁻")
RADIUS = theme.dimension("distance from the centre of vignetting", "px")
SKY = theme.dimension("background", "% of its median")
ACROSS, DOWN = theme.dimension("residual along rows", "px"), theme.dimension("residual along columns", "px")
FRAMES, RATIO = theme.dimension("frames stacked"), theme.dimension("signal to noise")
OFF = theme.dimension("measured / predicted − 1", "%")
STRENGTH = theme.dimension("what was planted", "σ of a sample")
FOUND, ALARMS = theme.dimension("found", "%"), theme.dimension("good samples rejected", "%")
LIGHT = theme.dimension("light", "e⁻")
METHOD_NAMES = {
    "noise": "noise model", "sigma": "sigma clipping", "linear-fit": "linear fit", "mad": "MAD clipping",
    "esd": "generalized ESD",
}  # fmt: skip
_METHOD = {
    "noise": (SERIES[0], "circle"), "sigma": (SERIES[1], "square"), "winsorized": (SERIES[4], "triangle"),
    "linear-fit": (SERIES[3], "diamond"), "mad": (SERIES[2], "star"), "esd": (SERIES[6], "cross"),
    "percentile": (SERIES[7], "cross"),
}  # fmt: skip
_SHOWN = 4  # pictures of the stack, methods side by side
VERDICTS = {"flattens": "the flat flattens", "look": "have a look", "fails": "the flat fails"}


def _about_median(mosaic: xr.DataArray) -> xr.DataArray:
    """Subtract from the pixels of each colour of the mosaic their median; colours would show as a checkerboard."""
    values = np.array(mosaic.values, float)
    for _, plane in planes(values, np.arange(4).reshape(2, 2)):
        plane -= np.nanmedian(plane)
    return mosaic.copy(data=values)


def _busiest(hot: np.ndarray) -> dict[str, slice]:
    """Return the window of 96 x 96 pixels with the most hot ones, on whole cells of the mosaic."""
    total = np.pad(hot.astype(int).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    height, width = (min(96, size) for size in hot.shape)
    sums = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    row, column = (int(index) // 2 * 2 for index in np.unravel_index(np.argmax(sums), sums.shape))
    return {"y": slice(row, row + height), "x": slice(column, column + width)}


def _hot(master: np.ndarray) -> np.ndarray:
    """Return which pixels of a master dark are more than 10 robust σ above its median."""
    return master - np.nanmedian(master) > 10 * mad_std(master)


@chart(
    "dark-subtraction", "Before and after dark subtraction", "Calibration", needs=("dark_subtraction",),
    shoot="three or more long darks at one temperature, better still with a light of the same exposure",
)  # fmt: skip
def dark_subtraction(subtraction: xr.Dataset) -> hv.Layout:
    """Chart a part of a frame before and after the master dark is subtracted, and that master, on one grey scale.

    Each colour of the mosaic is shown about its own median; of a larger part, the corner with the most hot pixels.

    `subtraction` comes from `sensor.dark_subtraction`: ``before`` and ``after`` over (y, x).
    """
    value = theme.dimension("about the median", unit_text(subtraction.attrs["units"]))
    parts = {name: _about_median(subtraction[name]) for name in ("before", "after")}
    parts["subtracted"] = _about_median(subtraction["before"] - subtraction["after"])
    window = _busiest(_hot(parts["subtracted"].values))
    parts = {name: part.isel(window) for name, part in parts.items()}
    # the noise must show, for it is what remains; the hot pixels are far beyond white
    noise = float(mad_std(parts["after"].values))
    titles = {"before": "Before", "subtracted": "The master dark", "after": "After"}
    style = {"value": value, "limits": (-4 * noise, 12 * noise)}
    return theme.layout(theme.image_panel(parts[name], title, label=name, **style) for name, title in titles.items())


@caption(dark_subtraction)
def _dark_subtraction_caption(result: Any) -> Caption:
    data = result.dark_subtraction
    attrs, unit = data.attrs, unit_text(data.attrs["units"])
    master = (data["before"] - data["after"]).values
    frame, rest = "A light", "stars and sky remain"
    if attrs["kind"] != "light":
        frame = "A dark that is not in the master"
        rest = (
            f"the standard deviation of the frame falls from {value_text(attrs['std_before'])} to "
            f"{value_text(attrs['std_after'], unit=unit)}, where temporal noise alone leaves "
            f"{value_text(attrs['expected_std'])}"
        )
    return Caption(
        f"{frame} ({attrs['filename']}; {attrs['exposure']:g} s, {words_of(attrs)}, "
        f"{temperature_text(attrs['temperature'])}) before and after a master of {attrs['darks']} darks is subtracted, "
        f"and that master, on one grey scale: the part with the most hot pixels. Of {master.shape[1]} x "
        f"{master.shape[0]} pixels around it, {int(_hot(master).sum())} are more than 10 robust σ above the master's "
        f"median, and disappear; {rest}. {source(result)}",
        "Three pictures of the same part of a frame: the frame with bright dots, the hot pixels; the master dark, "
        "which holds only those; the frame without them.",
    )


def calibration_steps(steps: xr.Dataset, noise: xr.Dataset) -> hv.Layout:
    """Chart a piece of a light as read and calibrated, and its noise after each step, measured and predicted.

    The piece is the one with the most hot pixels.  `steps` and `noise` come from the course's `calibration_steps` and
    `step_noise`.
    """
    window = _busiest(steps["mask"].values & 1 > 0)
    centres = {dim: np.arange(steps.sizes[dim]) + 0.5 for dim in ("y", "x")}
    bare = steps["signal"].drop_vars(("y", "x"), errors="ignore").isel(step=[0, -1])
    shown = [_about_median(one).assign_coords(centres).isel(window) for one in bare]
    middle, spread = float(np.nanmedian(shown[1])), float(mad_std(shown[1].values))
    style = {"value": theme.dimension("about the median", "e⁻"), "limits": (middle - 3 * spread, middle + 8 * spread)}
    titles = ("As read", "Calibrated")
    pieces = [theme.image_panel(one, title, label=title, **style) for one, title in zip(shown, titles, strict=True)]
    names = [str(name) for name in noise["step"].values]
    place = np.arange(len(names), dtype=float)
    elements = []
    for number, channel in enumerate(noise["channel"].values.astype(str)):
        one = noise.sel(channel=channel)
        shift = place + 0.06 * (number - 1.5)
        style = {"colour": theme.channel_colour(channel), "width": 1.3}
        elements.append(theme.line(shift, one["predicted"].values, dims=(STEP, NOISE), **style))
        measured = one["noise"].values, one["noise_error"].values
        elements.append(theme.channel_points(channel, shift, *measured, dims=(STEP, NOISE), size=8))
    low, high = float(noise["predicted"].min()), float(max(noise["noise"].max(), noise["predicted"].max()))
    room = max(high - low, 0.1 * high)
    scales = {"xticks": [(at, name.replace(" ", "\n")) for at, name in zip(place.tolist(), names, strict=True)]}
    scales |= {"xlim": (-0.5, len(names) - 0.5), "ylim": (low - 0.2 * room, high + 0.9 * room)}  # the legend on top
    return theme.layout([*pieces, theme.panel(elements, title="Measured, and predicted (lines)", **scales)])


@chart(
    "flat-correction", "Does the flat flatten?", "Flats", needs=("lights.audit",),
    shoot=f"flats through the telescope as it is, and {LIGHTS}",
)  # fmt: skip
def flat_correction(audit: xr.Dataset) -> hv.Layout:
    """Chart what the flat does to the lights' background: before and after from the centre outwards, what is left.

    `audit` comes from `calibrate.audit_flat` with lights.
    """
    green = first_green(audit["channel"].values.tolist())
    one = audit.sel(channel=green)
    by, bx = np.meshgrid(audit["by"].values, audit["bx"].values, indexing="ij")
    radius = np.hypot(by - float(one["centre_y"]), bx - float(one["centre_x"]))
    edges = np.linspace(0, radius.max() * 1.001, 13)
    elements = []
    for name, label, colour, marker in (
        ("raw_background", "without the flat", SERIES[1], "square"),
        ("background", "with the flat", SERIES[0], "circle"),
    ):
        middle, rings, error = median_profile(radius, 100 * one[name].values, edges)
        look = {"label": label, "colour": colour, "marker": marker, "joined": 1.2}
        elements.append(theme.points(middle, rings, error, dims=(RADIUS, SKY), **look))
    middle, rings, _ = median_profile(radius, one["response"].values, edges)
    response = 100 * rings / np.median(one["response"].values)
    itself = {"label": "the flat itself", "dash": "dashed", "colour": MUTED}
    elements.append(theme.line(middle, response, dims=(RADIUS, SKY), **itself))
    title = f"From the centre outwards ({green}): {VERDICTS[audit.attrs['verdict']]}"
    span = (-0.03 * edges[-1], 1.03 * edges[-1])
    return theme.layout([theme.panel(elements, title=title, legend="bottom_left", xlim=span), _residual(audit, one)])


def _residual(audit: xr.Dataset, one: xr.Dataset) -> hv.Overlay:
    """Show the background that is left as a picture, with the dust shadows of the flat."""
    left = 100 * one["background"].rename(by="y", bx="x")
    left = left.fillna(float(np.nanmedian(left)))
    reach = max(2.0, float(np.nanpercentile(np.abs(left - 100), 95)))
    around = np.linspace(0, 2 * np.pi, 40)
    rings = []
    for number in range(audit.sizes["mote"]):
        y, x, radius = (float(audit[f"dust_{name}"][number]) for name in ("y", "x", "radius"))
        ring = x + 1.6 * radius * np.cos(around), y + 1.6 * radius * np.sin(around)
        rings.append(theme.line(*ring, dims=(COLUMN, ROW), label="" if number else "dust", colour=SERIES[1]))
    style = {"value": SKY, "cmap": "viridis", "limits": (100 - reach, 100 + reach), "label": "background"}
    return theme.image_panel(left, "What is left (rings: dust in the flat)", over=rings, **style)


@caption(flat_correction)
def _flat_correction_caption(result: Any) -> Caption:
    audit = result.lights.audit
    k, error = audit["correction"].values, audit["correction_error"].values
    good = np.isfinite(k) & (error > 0)
    left = ""
    if good.any():
        weight = 1 / error[good] ** 2
        mean = value_text(float((weight * k[good]).sum() / weight.sum()), float(weight.sum() ** -0.5))
        scale = "0: correct; 1: no flat applied; −1: applied twice"
        left = f"By the pixels' own response, {mean} of the flat is left ({scale}). "
    return Caption(
        f"Does the flat flatten? Background of {audit.attrs['lights']} lights before and after a master of "
        f"{audit.attrs['frames']} flats. {left}Findings: {'; '.join(audit.attrs['findings'])}. {source(result)}",
        "Left: without the flat the background falls from the centre to the corners. Right: a map of what is left. "
        f"Verdict: {VERDICTS[audit.attrs['verdict']]}.",
    )


@chart(
    "alignment-residuals", "How well do the frames fit together?", "Alignment", needs=("lights.registration",),
    takes=("lights.registration.residuals",), shoot=LIGHTS,
)  # fmt: skip
def alignment_residuals(residuals: xr.Dataset) -> hv.Layout:
    """Chart how far matched stars lie from where the transforms put them: as vectors over the frame, and as a cloud.

    `residuals` comes from `align.Registration.residuals`: ``x``, ``y`` [px], ``dx``, ``dy`` [px], ``frame`` and
    ``used`` over star.
    """
    used = residuals.isel(star=np.flatnonzero(residuals["used"].values))
    x, y, dx, dy = (used[name].values.astype(float) for name in ("x", "y", "dx", "dy"))
    frames = np.unique(used["frame"].values)
    typical = _rms(used) if x.size else 1.0
    right, bottom = (float(np.ceil(axis.max() + 10)) if x.size else 1.0 for axis in (x, y))
    stretch = 0.03 * right / max(typical, 1e-9)
    ends = np.stack([x, y, x + stretch * dx, y + stretch * dy], 1)
    elements = [theme.points(x, y, dims=(COLUMN, ROW), label="star", colour=MUTED, size=2.5)]
    cloud = []
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
    title = "All stars of all frames" if frames.size > 1 else "All stars of the frame"
    return theme.layout([left, theme.panel(cloud, title=title, **span)])


def _rms(used: xr.Dataset) -> float:
    """Return the rms of residuals per axis."""
    return float(np.sqrt((used["dx"].astype(float) ** 2 + used["dy"].astype(float) ** 2).mean() / 2))


@caption(alignment_residuals)
def _alignment_residuals_caption(result: Any) -> Caption:
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


@chart("snr-vs-frames", "More frames, less noise", "Stacking", needs=("lights.growth",), shoot=LIGHTS)
def snr_vs_frames(growth: xr.Dataset) -> hv.Layout:
    """Chart the signal-to-noise ratio against the number of frames with √N, and the noise against its prediction.

    `growth` comes from `stack.noise_against_frames`.
    """
    count = growth["count"].values.astype(float)
    span = (count[0] / 1.2, count[-1] * 1.2)
    left = []
    right = [theme.level(0, span, dims=(FRAMES, OFF), dash="dashed")]
    for channel in growth["channel"].values.astype(str):
        one = growth.sel(channel=channel)
        names = ("snr", "snr_error", "noise", "noise_error", "predicted")
        snr, error, noise, bars, predicted = (one[name].values for name in names)
        style = {"colour": theme.channel_colour(channel), "dash": "dashed", "width": 1.3}
        left.append(theme.line(count, np.sqrt(count / count[0]) * snr[0], dims=(FRAMES, RATIO), **style))
        left.append(theme.channel_points(channel, count, snr, error, dims=(FRAMES, RATIO), size=8))
        shift = count * {"R": 0.97, "B": 1.03}.get(channel, 1.0)
        off = 100 * (noise / predicted - 1), 100 * bars / predicted
        right.append(theme.channel_points(channel, shift, *off, dims=(FRAMES, OFF), size=8))
    reach = max(3.0, 1.3 * float(np.nanmax(np.abs(100 * (growth["noise"] / growth["predicted"] - 1)))))
    common = {"xlim": span, "xticks": [(int(value), f"{int(value)}") for value in count], "log": "x"}
    off = theme.panel(right, title="Noise against its prediction", ylim=(-reach, reach), legend=None, **common)
    common |= {"log": "xy", "legend": "top_left"}
    return theme.layout([theme.panel(left, title="Measured against √N (dashed)", **common), off])


@caption(snr_vs_frames)
def _snr_vs_frames_caption(result: Any) -> Caption:
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


@chart("rejection", "Satellites and cosmic rays thrown out", "Stacking", needs=("lights.trial",), shoot=LIGHTS)
def rejection(trial: xr.Dataset) -> hv.Layout:
    """Chart a planted satellite in stacks by several methods, how many of the planted samples each finds, and its cost.

    `trial` comes from `pipelines.fair_trial`: each method is shown at the threshold that costs as much as the others'.
    """
    found, cost = [], []
    least = 3e-3  # [%]: a logarithmic axis has no place for none
    for method in trial["rejection"].values.astype(str):
        one = trial.sel(rejection=method)
        colour, marker = _METHOD[method]
        look = {"label": METHOD_NAMES.get(method, method), "colour": colour, "marker": marker}
        strength, values = one["strength"].values, 100 * one["completeness"].values
        error = 100 * one["completeness_error"].values
        found.append(theme.points(strength, values, error, dims=(STRENGTH, FOUND), size=7, joined=1.2, **look))
        along = [np.append(100 * one[name], 100 * one[f"default_{name}"]) for name in ("false_alarms", "found")]
        alarms, values = np.maximum(along[0], least), along[1]
        order = np.argsort(alarms, kind="stable")
        cost.append(theme.line(alarms[order], values[order], dims=(ALARMS, FOUND), colour=colour, width=1.4))
        cost.append(theme.points(alarms[-1:], values[-1:], dims=(ALARMS, FOUND), size=11, **look))
    common = {"log": "x", "ylim": (-4, 106)}
    left = theme.panel(found, title="Found, by strength", xlim=(1, 36), legend=None, **common)
    price = {"title": "Found, and the price", "xlim": (least / 1.5, 90), "legend": "bottom_right"}
    return theme.layout([left, theme.panel(cost, **price, **common), _methods_side_by_side(trial)])


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
def _rejection_caption(result: Any) -> Caption:
    trial = result.lights.trial
    rates, unable = [], []
    for name in trial["rejection"].values.astype(str):
        one, words = trial.sel(rejection=name), METHOD_NAMES.get(name, name)
        rates.append(f"{words} {100 * float(one['default_found']):.0f} % (at {float(one['default_threshold']):.1f} σ)")
        if float(one["usual_found"]) < 0.01:
            unable.append(f"{float(one['usual_threshold']):g} σ of {words}")
    never = f"Of {trial.attrs['frames']} samples none can reach the usual {listing(unable)}. " if unable else ""
    left = 100 * float(trial["left"].sel(rejection="noise"))
    return Caption(
        f"A satellite that brightens along its path and {trial.attrs['rays']} cosmic rays, simulated, planted into one "
        f"of {trial.attrs['frames']} lights. Each method at the threshold at which it rejects about one "
        f"good sample in {1 / trial.attrs['price']:,.0f}: left, the share of planted samples found, by "
        "strength. Middle: the share found of those of 5 σ and more, against good samples rejected, along thresholds "
        f"of {float(trial['threshold'].min()):g} to {float(trial['threshold'].max()):g} σ; marks: where they are "
        f"compared. Found there: {listing(rates)}. {never}The noise model leaves {left:.1f} % of the trail. "
        f"{source(result)}",
        "Left and middle: curves in which the noise model finds most and rejects fewest good samples. Right: four "
        "stacks; the satellite shows in the mean, and faintly or not at all after rejection.",
    )
