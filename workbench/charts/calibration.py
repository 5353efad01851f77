"""Charts of calibration: masters against the number of frames, a light step by step, whether the flat flattens."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from ..core.values import value_text
from .theme import (
    CHANNEL_COLOUR,
    INK,
    KIND_COLOUR,
    MUTED,
    SERIES,
    dimension,
    layout,
    line,
    note,
    panel,
    picture,
    points,
)
from .words import Words, source

COLUMN, ROW = dimension("column", "px"), dimension("row", "px")
COUNT = dimension("frames in the master")
RATIO = dimension("over the law σ/√N − 1", "%")
STEP, NOISE = dimension("step"), dimension("noise of a pixel of the sky", "e⁻")
RADIUS = dimension("distance from the centre of vignetting", "px")
SKY = dimension("background", "% of its median")
LEFT = dimension("exponent of the flat left in the lights")
CHANNEL = dimension("channel")
_VERDICTS = {"flattens": "the flat flattens", "look": "have a look", "fails": "the flat fails"}


def master_noise(found: xr.Dataset, *, light: float | None = None) -> hv.Layout:
    """Chart the noise of masters against the number of their frames, beside σ/√N, and how far from it.

    Parameters
    ----------
    found
        From `calibrate.master_noise`.
    light
        Noise of one light in the same unit, drawn as a line.
    """
    unit = {"1": "%", "adu": "ADU"}[found["noise"].attrs["units"]]
    times = 100.0 if unit == "%" else 1.0
    dims = (COUNT, dimension(f"noise of the master {found.attrs['kind']}", unit))
    count = found["count"].values.astype(float)
    along = np.geomspace(count[0], 4 * count[-1], 30)
    law = times * float(np.sqrt((found["law"][:, 0] ** 2).mean())) * np.sqrt(count[0] / along)
    left: list[Any] = [line(along, law, dims=dims, label="one frame's over √N", dash="dashed")]
    right: list[Any] = [line([count[0] / 1.3, 1.3 * count[-1]], [0, 0], dims=(COUNT, RATIO), dash="dashed")]
    for place, channel in enumerate(found["channel"].values.astype(str)):
        one = found.sel(channel=channel)
        shift = count * (1 + 0.03 * (place - (found.sizes["channel"] - 1) / 2))
        style = {"colour": CHANNEL_COLOUR[channel], "marker": channel, "size": 8}
        noise, error = times * one["noise"].values, times * one["noise_error"].values
        left.append(points(count, noise, error, dims=dims, label=channel, **style))
        law_here = times * one["law"].values
        bars = 100 * error / law_here
        right.append(points(shift, 100 * (noise / law_here - 1), bars, dims=(COUNT, RATIO), label=channel, **style))
    claimed = times * np.sqrt((found["claimed"].values ** 2).mean(axis=0))
    claim = {"label": "what the master's variance says", "colour": INK, "marker": "cross", "size": 9}
    left.append(points(count, claimed, dims=dims, **claim))
    if light is not None:
        ends = [along[0], along[-1]]
        left.append(line(ends, [light * times] * 2, dims=dims, label="one light", colour=KIND_COLOUR["light"], width=2))
    reach = max(3.0, 1.4 * float(np.abs(100 * (found["noise"] / found["law"] - 1)).max()))
    ticks = [(int(value), f"{int(value)}") for value in count]
    wide = ticks + [(int(f * count[-1]), f"{int(f * count[-1])}") for f in (2, 4)]
    span = {"log": "xy", "xticks": wide, "xlim": (0.85 * along[0], 1.1 * along[-1])}
    beside = {"log": "x", "xticks": ticks, "xlim": (count[0] / 1.3, 1.3 * count[-1]), "ylim": (-reach, reach)}
    return layout(
        [
            panel(left, title="Noise of the master", legend="bottom_left", **span),
            panel(right, title="Measured beside √N", legend="top_left", **beside),
        ]
    )


def calibration_steps(steps: xr.Dataset, noise: xr.Dataset) -> hv.Layout:
    """Chart a piece of a light as read and calibrated, and its noise after each step beside the prediction.

    Parameters
    ----------
    steps, noise
        From `calibrate.calibration_steps` and `calibrate.step_noise`.
    """
    names = [str(name) for name in noise["step"].values]
    dims = (STEP, NOISE)
    elements: list[Any] = []
    place = np.arange(len(names), dtype=float)
    for number, channel in enumerate(noise["channel"].values.astype(str)):
        one = noise.sel(channel=channel)
        style = {"colour": CHANNEL_COLOUR[channel], "marker": channel, "size": 8}
        shift = place + 0.06 * (number - 1.5)
        elements.append(line(shift, one["predicted"].values, dims=dims, colour=CHANNEL_COLOUR[channel], width=1.3))
        elements.append(
            points(shift, one["noise"].values, one["noise_error"].values, dims=dims, label=channel, **style)
        )
    low, high = float(noise["predicted"].min()), float(max(noise["noise"].max(), noise["predicted"].max()))
    room = max(high - low, 0.1 * high)
    right = panel(
        elements, title="Measured, and predicted (lines)", legend="top_right",
        xticks=[(float(at), name.replace(" ", "\n")) for at, name in enumerate(names)],
        xlim=(-0.5, len(names) - 0.5), ylim=(low - 0.2 * room, high + 0.9 * room),  # the legend above the points
    )  # fmt: skip
    return layout([*_pieces(steps), right])


def _pieces(steps: xr.Dataset, side: int = 96) -> list[hv.Overlay]:
    """The window with the most hot pixels, as read and at the end, on one grey scale; each colour about its median."""
    shown = steps["signal"].isel(step=[0, -1]).values.astype(float)
    for row in (0, 1):
        for column in (0, 1):
            part = shown[:, row::2, column::2]
            part -= np.nanmedian(part, axis=(1, 2), keepdims=True)
    defects = (steps["mask"].values & 1).astype(int)
    total = np.pad(defects.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    tall, wide = (min(side, size) for size in defects.shape)
    sums = total[tall:, wide:] - total[:-tall, wide:] - total[tall:, :-wide] + total[:-tall, :-wide]
    y, x = (int(at) // 2 * 2 for at in np.unravel_index(np.argmax(sums), sums.shape))
    shown = shown[:, y : y + tall, x : x + wide]
    spread = 1.4826 * np.nanmedian(np.abs(shown[1] - np.nanmedian(shown[1])))
    middle = np.nanmedian(shown[1])
    value = dimension("about the median", "e⁻")
    panels = []
    for data, title in zip(shown, ("As read", "Calibrated"), strict=True):
        limits = (middle - 3 * spread, middle + 8 * spread)
        style = {"dims": (COLUMN, ROW), "value": value, "limits": limits, "label": title}
        image = picture(data[::-1], (x, y + tall, x + wide, y), **style)
        frame = {"xlim": (x, x + wide), "ylim": (y, y + tall), "ratio": wide / tall, "invert_y": True}
        panels.append(panel([image], title=title, legend=None, **frame))
    return panels


def flat_correction(audit: xr.Dataset) -> hv.Layout:
    """Chart what the flat does to the lights' background: before and after from the centre outwards, what is left.

    Parameters
    ----------
    audit
        From `calibrate.audit_flat` with lights.
    """
    names = audit["channel"].values.astype(str)
    green = "G1" if "G1" in names else names[0]
    one = audit.sel(channel=green)
    by, bx = np.meshgrid(audit["by"].values, audit["bx"].values, indexing="ij")
    radius = np.hypot(by - float(one["centre_y"]), bx - float(one["centre_x"]))
    edges = np.linspace(0, radius.max() * 1.001, 13)
    profile: list[Any] = []
    told = (
        ("raw_background", "without the flat", SERIES[1], "square"),
        ("background", "with the flat", SERIES[0], "circle"),
    )
    for name, label, colour, marker in told:
        middle, level, error = _profile(radius, 100 * one[name].values, edges)
        style = {"colour": colour, "marker": marker, "size": 8}
        profile.append(line(middle, level, dims=(RADIUS, SKY), colour=colour, width=1.2))
        profile.append(points(middle, level, error, dims=(RADIUS, SKY), label=label, **style))
    middle, level, _ = _profile(radius, one["response"].values, edges)
    level = 100 * level / np.median(one["response"].values)
    style = {"label": "the flat itself", "dash": "dashed", "colour": MUTED}
    profile.append(line(middle, level, dims=(RADIUS, SKY), **style))
    title = f"From the centre outwards ({green}): {_VERDICTS[audit.attrs['verdict']]}"
    span = (-0.03 * edges[-1], 1.03 * edges[-1])
    return layout([panel(profile, title=title, legend="bottom_left", xlim=span), _residual(audit, one)])


def _profile(radius: np.ndarray, values: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Median of the blocks in rings, and its error, where a ring has some."""
    rows = []
    for low, high in pairwise(edges):
        inside = values[(radius >= low) & (radius < high) & np.isfinite(values)]
        if inside.size >= 4:
            scatter = 1.4826 * np.median(np.abs(inside - np.median(inside)))
            rows.append(((low + high) / 2, np.median(inside), 1.25 * scatter / np.sqrt(inside.size)))
    return tuple(np.array(rows).reshape(-1, 3).T)


def _residual(audit: xr.Dataset, one: xr.Dataset) -> hv.Overlay:
    """The background that is left, as a picture, with the dust shadows of the flat."""
    left = 100 * one["background"].values
    left = np.where(np.isfinite(left), left, np.nanmedian(left))
    step = float(audit["bx"][1] - audit["bx"][0])
    half = step / 2
    bounds = (
        float(audit["bx"][0]) - half,
        float(audit["by"][-1]) + half,
        float(audit["bx"][-1]) + half,
        float(audit["by"][0]) - half,
    )
    reach = max(2.0, float(np.nanpercentile(np.abs(left - 100), 95)))
    limits = (100 - reach, 100 + reach)
    style = {"dims": (COLUMN, ROW), "value": SKY, "cmap": "viridis", "limits": limits, "label": "background"}
    image = picture(left[::-1], bounds, **style)
    elements: list[Any] = [image]
    around = np.linspace(0, 2 * np.pi, 40)
    for place in range(audit.sizes["mote"]):
        mote = audit.isel(mote=place)
        y, x, radius = (float(mote[name]) for name in ("dust_y", "dust_x", "dust_radius"))
        ring = x + 1.6 * radius * np.cos(around), y + 1.6 * radius * np.sin(around)
        elements.append(line(*ring, dims=(COLUMN, ROW), label="dust" if place == 0 else "", colour=SERIES[1]))
    width, height = bounds[2] - bounds[0], bounds[1] - bounds[3]
    frame = {"xlim": (bounds[0], bounds[2]), "ylim": (bounds[3], bounds[1]), "ratio": width / height, "invert_y": True}
    return panel(elements, title="What is left (rings: dust in the flat)", legend=None, **frame)


def flat_left(audit: xr.Dataset) -> hv.Layout:
    """Chart the exponent k of the flat that stays in the lights, from single pixels and from the smooth background.

    Parameters
    ----------
    audit
        From `calibrate.audit_flat` with lights.
    """
    names = audit["channel"].values.astype(str)
    verdict = _VERDICTS[audit.attrs["verdict"]]
    dims = (CHANNEL, LEFT)
    place = np.arange(names.size, dtype=float)
    elements: list[Any] = [
        line([-0.6, names.size - 0.4], [0, 0], dims=dims, dash="dashed", label="right: nothing left")
    ]
    told = (("correction", "from the pixels' own response", SERIES[0], "circle", -0.08),)
    told += (("smooth_correction", "from the smooth background (nebulae too)", SERIES[4], "square", 0.08),)
    for name, label, colour, marker, shift in told:
        value, error = audit[name].values, audit[f"{name}_error"].values
        style = {"label": label, "colour": colour, "marker": marker, "size": 9}
        elements.append(points(place + shift, value, error, dims=dims, **style))
    known = [np.nanmax(np.abs(audit[name])) for name in ("correction", "smooth_correction")]
    reach = max(0.3, 1.35 * float(np.nanmax(known)))
    elements.append(note(-0.5, -0.93 * reach, f"verdict: {verdict}", dims=dims, size=13))
    ticks = [(float(at), str(name)) for at, name in enumerate(names)]
    limits = {"xlim": (-0.6, names.size - 0.4), "ylim": (-reach, 1.6 * reach)}
    return layout([panel(elements, title="How much of the flat is left", legend="top_left", xticks=ticks, **limits)])


def flat_correction_words(result: Any) -> Words:
    """Describe the audit of the flat."""
    audit = result.lights.audit
    k, error = audit["correction"].values, audit["correction_error"].values
    good = np.isfinite(k) & (error > 0)
    told = ""
    if good.any():
        weight = 1 / error[good] ** 2
        mean, spread = float((weight * k[good]).sum() / weight.sum()), float(weight.sum() ** -0.5)
        told = (
            f"The pixels' own response shows {value_text(mean, spread)} of the flat left (0 is right, 1 none applied, "
        )
        told += "−1 applied twice). "
    findings = "; ".join(audit.attrs["findings"])
    return Words(
        f"Does the flat flatten? Background of {audit.attrs['lights']} lights before and after a master of "
        f"{audit.attrs['frames']} flats. {told}Found: {findings}. {source(result)}",
        "Left: without the flat the background falls from the centre to the corners. Right: a map of what is left. "
        f"Verdict: {_VERDICTS[audit.attrs['verdict']]}.",
    )
