"""Charts of the plan: what sub length costs, what the mount holds, how long it takes."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from ..core.values import value_text
from .theme import INK, KIND_COLOUR, MUTED, band, dimension, layout, line, note, panel, points, ramp
from .words import Words, source

LENGTH = dimension("length of a sub", "s")
ADDED = dimension("noise added by reading out", "%")
ISO = dimension("ISO")
NEEDED = dimension("sub needed", "s")
EXPOSURE = dimension("exposure", "s")
STRETCH = dimension("longest over shortest axis of the stars")


def sub_length(subs: xr.Dataset) -> hv.Layout:
    """Chart how much noise short subs add, a curve for each ISO, and the length that each ISO needs.

    Parameters
    ----------
    subs
        From `plan.plan_subs`; the curves are of the channel that needs the longest subs.
    """
    asked, limit = 100 * float(subs.attrs["asked"]), float(subs.attrs["longest"])
    isos = subs["iso"].values
    dims = (LENGTH, ADDED)
    worst = [int(np.nanargmax(subs["needed"].sel(iso=iso).values)) for iso in isos]
    low = float(max(1.0, 0.1 * np.nanmin(subs["needed"].values)))
    high = float(max(2 * limit if subs.attrs["longest_known"] else 600.0, 3 * np.nanmax(subs["length"].values)))
    elements: list[Any] = []
    for iso, column, colour in zip(isos, worst, ramp(len(isos)), strict=True):
        time = subs["time"].values
        shown = (time >= low) & (time <= high)
        curve = 100 * subs["curve"].sel(iso=iso).isel(channel=column).values
        best = iso == subs.attrs["best_iso"]
        elements.append(
            line(time[shown], curve[shown], dims=dims, label=f"ISO {iso:g}", colour=colour, width=2.8 if best else 1.5)
        )
    ceiling = max(4 * asked, 20.0)
    elements.append(
        line([low, high], [asked, asked], dims=dims, label=f"{asked:g} % allowed", colour=INK, dash="dashed")
    )
    if low < limit < high:
        name = "the mount's limit" if subs.attrs["longest_known"] else "longest"
        elements.append(line([limit, limit], [0, ceiling], dims=dims, label=name, colour=MUTED, dash="dotted"))
    best, penalty = float(subs.attrs["best_length"]), 100 * float(subs["penalty"].sel(iso=subs.attrs["best_iso"]))
    elements.append(
        points([best], [penalty], dims=dims, label="the plan", colour=KIND_COLOUR["light"], marker="star", size=15)
    )
    left = panel(
        elements, title="Short subs cost noise", log="x", legend="top_right", xlim=(low, high), ylim=(0, ceiling)
    )
    return layout([left, _needed(subs, limit)])


def _needed(subs: xr.Dataset, limit: float) -> hv.Overlay:
    """Chart the sub length that each ISO needs in its darkest colour."""
    dims = (ISO, NEEDED)
    isos = subs["iso"].values
    best = np.nanargmax(subs["needed"].values, axis=1)
    rows = np.arange(isos.size)
    needed, error = subs["needed"].values[rows, best], subs["needed_error"].values[rows, best]
    elements: list[Any] = [points(isos, needed, error, dims=dims, label="needed", colour=KIND_COLOUR["light"], size=9)]
    top = 1.3 * float(np.nanmax(needed + np.nan_to_num(error)))
    edges = (0.8 * isos.min(), 1.25 * isos.max())
    if subs.attrs["longest_known"]:
        elements.append(line(edges, [limit, limit], dims=dims, label="the mount's limit", colour=MUTED, dash="dotted"))
        top = max(top, min(1.3 * limit, 3 * top))
    for iso, length, stops in zip(isos, needed, subs["dynamic_range"].values, strict=True):
        if np.isfinite(stops):
            elements.append(
                note(iso, length + 0.04 * top, f"{stops:.1f}", dims=dims, align=("center", "bottom"), size=10)
            )
    ticks = [(float(iso), f"{iso:g}") for iso in isos]
    return panel(
        elements, title="Subs that each ISO needs, and stops of range", log="x", legend="top_right", xlim=edges,
        ylim=(0, top), xticks=ticks,
    )  # fmt: skip


def star_elongation(shapes: xr.Dataset, track: xr.Dataset) -> hv.Layout:
    """Chart how star images draw out with the exposure, the law fitted, and the longest sub it allows.

    Parameters
    ----------
    shapes, track
        From `plan.star_shapes` and `plan.tracking`.
    """
    dims = (EXPOSURE, STRETCH)
    time, stretch = shapes["exposure"].values, shapes["elongation"].values
    short = float(track["short"])
    error = np.hypot(shapes["plus_error"].values, shapes["cross_error"].values) / (2 * short * np.maximum(stretch, 1))
    good = np.isfinite(stretch)
    longest = float(track["longest"])
    end = 1.3 * max(float(time[good].max()), longest if np.isfinite(longest) and longest < 3000 else 0.0)
    along = np.linspace(0, end, 120)
    drift, uncertain = float(track["drift"]), float(track["drift_error"])
    start, slope = track["law"].values

    def law(rate: float) -> np.ndarray:
        """Return the elongation of a drift of that rate, in the direction of the one fitted."""
        steeper = (rate / drift) ** 2 if drift > 0 else 0.0
        vector = start[:, None] + steeper * slope[:, None] * along**2
        return np.sqrt(1 + np.hypot(*vector) / short)

    wanted = float(track.attrs["elongation"])
    elements = [
        band(
            along, law(max(drift - uncertain, 0)), law(drift + uncertain), dims=dims, label="68 % band",
            colour=KIND_COLOUR["light"],
        ),
        line(along, law(drift), dims=dims, label=f"drift of {value_text(drift, uncertain)} px/s", dash="dashed"),
        line([0, end], [wanted, wanted], dims=dims, label="still good enough", colour=MUTED, dash="dotted"),
        points(time[good], stretch[good], error[good], dims=dims, label="lights", colour=KIND_COLOUR["light"], size=8),
    ]  # fmt: skip
    top = max(1.1 * wanted, 1.05 * float(stretch[good].max()))
    return layout([panel(elements, title="Stars draw out", legend="top_left", xlim=(0, end), ylim=(0.98, top))])


def sub_length_words(result: Any) -> Words:
    """Describe the plan of subs."""
    subs, back = result.subs, result.background
    best = value_text(subs.attrs["best_length"], subs.attrs["best_length_error"], "s")
    asked = 100 * subs.attrs["asked"]
    rates = ", ".join(
        f"{name} {value_text(float(back['rate'].sel(channel=name)), float(back['rate_error'].sel(channel=name)))}"
        for name in back["channel"].values
    )
    limit = f"The lights allow subs of up to {subs.attrs['longest']:.0f} s. " if subs.attrs["longest_known"] else ""
    kept = "" if subs.attrs["met"] else "No ISO keeps to it within that limit. "
    return Words(
        "Left: how much noisier a stack of subs is than one endless exposure, √(1 + RN²/(B t)) − 1, in the colour that "
        f"needs the longest subs. Dashed: the {asked:g} % allowed. Right: the sub that each ISO needs for it, bars "
        f"of 1σ, and the stops between noise and saturation in it. Best: ISO {subs.attrs['best_iso']:g}, subs of "
        f"{best}. {kept}{limit}Sky and dark current, measured in the lights: {rates} e⁻/s/pixel. {source(result)}",
        f"Curves that fall with the length of the subs, and points for each ISO. Best: ISO {subs.attrs['best_iso']:g}, "
        f"subs of {best}.",
    )


def star_elongation_words(result: Any) -> Words:
    """Describe what the lights tell of the mount."""
    track = result.tracking
    longest = (
        f"at least {float(track['longest']):.0f} s"
        if track.attrs["limit"] or not track.attrs["several_exposures"]
        else value_text(float(track["longest"]), float(track["longest_error"]), "s")
    )
    text = (
        f"Stars keep an elongation below {track.attrs['elongation']:g} for {longest}; the mount drifts by "
        f"{value_text(float(track['drift']), float(track['drift_error']))} pixels a second."
    )
    one = (
        "" if track.attrs["several_exposures"] else " All lights are of one exposure, so their whole elongation counts."
    )
    return Words(
        f"Elongation of the stars, common to all of a frame, against exposure; bars: 1σ. {text}{one} {source(result)}",
        f"Points that rise with the exposure along a curve. {text}",
    )
