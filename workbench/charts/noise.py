"""Charts of read noise: before and after the gain, pixel by pixel, and the dynamic range it leaves."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from ..core.values import value_text
from .gain import ISO, READ_ELECTRONS, _channels, _iso_limits, _iso_ticks, _series, _with_iso
from .theme import CHANNEL_COLOUR, INK, MUTED, REFERENCE, dimension, layout, line, panel, points, steps
from .words import Words, listing, source

STOPS = dimension("dynamic range", "stops")
FULL_WELL = dimension("full well", "e⁻")
PIXEL_NOISE = dimension("read noise of a pixel", "ADU")
PIXELS = dimension("pixels")
EXCESS = dimension("read noise above its floor", "%")


def read_noise_split(split: xr.Dataset, read: xr.Dataset, gain: xr.Dataset) -> hv.Layout:
    """Chart read noise in electrons against ISO with its two parts, and what a higher ISO could still take off it.

    Parameters
    ----------
    split
        From `sensor.split_read_noise`.
    read, gain
        From `sensor.read_noise` and `sensor.fit_gain`, from which it was made.
    """
    gain = _with_iso(gain)
    isos = gain["iso"].values
    settings = {"xlim": _iso_limits(isos), "xticks": _iso_ticks(isos), "log": "x"}
    before, after = (float(split[name]) for name in ("before_gain", "after_gain"))
    left: list[Any] = []
    right: list[Any] = []
    if np.isfinite(before):
        along = np.geomspace(*_iso_limits(isos), 120)
        floor, tail = np.full(along.size, before), np.nan_to_num(after) * _gain_along(gain, along)
        whole = np.hypot(floor, tail)
        dims = (ISO, READ_ELECTRONS)
        left.append(line(along, floor, dims=dims, label="before the gain", colour=MUTED, dash="dashed"))
        left.append(line(along, tail, dims=dims, label="after the gain, in electrons", colour=REFERENCE))
        left.append(line(along, whole, dims=dims, label="both together"))
        right.append(line(along, 100 * (whole / before - 1), dims=(ISO, EXCESS), label="both together"))
    top = 0.0
    for channel in _channels(gain):
        iso, value, error = _series(read, "read_noise_adu", channel)
        one = gain.sel(channel=channel).reindex(iso=iso)
        noise = value * one["gain"].values
        spread = noise * np.hypot(error / value, one["gain_error"].values / one["gain"].values)
        style = {"label": channel, "colour": CHANNEL_COLOUR[channel], "marker": channel, "size": 7}
        left.append(points(iso, noise, spread, dims=(ISO, READ_ELECTRONS), **style))
        right.append(points(iso, 100 * (noise / before - 1), 100 * spread / before, dims=(ISO, EXCESS), **style))
        top = max(top, float(np.nanmax(noise, initial=0.0)))
    title = "Two sources of read noise" if np.isfinite(before) else "Read noise: too few ISOs to tell its sources"
    panels = [panel(left, title=title, legend="top_right", ylim=(0.0, 1.5 * max(top, 0.1)), **settings)]
    if np.isfinite(before):
        right += _limit(split, isos)
        panels.append(panel(right, title="What a higher ISO can still take off", legend="top_right", **settings))
    return layout(panels)


def _gain_along(gain: xr.Dataset, along: np.ndarray) -> np.ndarray:
    """Return the greens' gain at any ISO, in proportion beyond the measured ones."""
    isos = gain["iso"].values
    greens = [name for name in _channels(gain) if name in ("G1", "G2", "mono")]
    values = gain["gain"].sel(channel=greens).mean("channel").values
    good = np.isfinite(values) & (values > 0)
    # gain times ISO is nearly the same everywhere
    return np.interp(np.log(along), np.log(isos[good]), (values * isos)[good]) / along


def _limit(split: xr.Dataset, isos: np.ndarray) -> list[Any]:
    """Return the level from which nothing is gained, and the ISO that reaches it."""
    within, ends = 100 * split.attrs["within"], np.array(_iso_limits(isos))
    level = line(ends, [within, within], dims=(ISO, EXCESS), colour=MUTED, dash="dotted", width=1.2)
    iso, error = float(split["invariance_iso"]), float(split["invariance_iso_error"])
    if not ends[0] < iso < ends[1]:
        return [level]
    label = f"ISO {value_text(iso, error)}"
    return [level, points([iso], [within], dims=(ISO, EXCESS), label=label, colour=INK, marker="star", size=15)]


def read_noise_split_words(result: Any) -> Words:
    """Describe the chart of the read noise's two parts."""
    split = result.transfer.split
    before, after, iso = (
        value_text(float(split[name]), float(split[f"{name}_error"]), unit)
        for name, unit in (("before_gain", "e⁻"), ("after_gain", "ADU"), ("invariance_iso", ""))
    )
    within = f"{100 * split.attrs['within']:.0f} %"
    told = "" if "not" in iso else f"From ISO {iso} on (star) the whole is within {within} of that floor. "
    return Words(
        f"Read noise before the gain, {before}, is there at every ISO; that after it, {after}, counts less the more "
        f"the signal is amplified first. {told}A higher setting takes off less than that and costs dynamic range. "
        f"{source(result)}",
        "Left: read noise in electrons falls with ISO towards a constant floor; a dashed line is the part before the "
        "gain, a falling line the part after it. Right: how far each setting lies above that floor, in per cent.",
    )


def dynamic_range(ranges: xr.Dataset, wells: xr.Dataset) -> hv.Layout:
    """Chart dynamic range and full well against ISO.

    Parameters
    ----------
    ranges, wells
        From `sensor.dynamic_range` and `sensor.full_well`.
    """
    ranges, wells = _with_iso(ranges), _with_iso(wells)
    panels = []
    for data, name, dim, title, log in (
        (ranges, "dynamic_range", STOPS, "Dynamic range", "x"),
        (wells, "full_well", FULL_WELL, "Full well", "xy"),
    ):
        isos = data["iso"].values
        elements: list[Any] = []
        values: list[float] = []
        for channel in _channels(data):
            iso, value, error = _series(data, name, channel)
            values += (value + error).tolist()
            style = {"label": channel, "colour": CHANNEL_COLOUR[channel], "marker": channel, "size": 7}
            elements.append(points(iso, value, error, dims=(ISO, dim), **style))
        room = {"ylim": (0.0, 1.15 * max(values))} if log == "x" and values else {}
        panels.append(
            panel(
                elements,
                title=title,
                log=log,
                xlim=_iso_limits(isos),
                xticks=_iso_ticks(isos),
                legend="top_right",
                **room,
            )
        )
    return layout(panels)


def dynamic_range_words(result: Any) -> Words:
    """Describe the chart of the dynamic range."""
    ranges, wells = result.transfer.dynamic_range, result.transfer.wells
    mean = ranges["dynamic_range"].mean("channel").dropna("iso")
    ends = " and ".join(
        f"{float(mean[i]):.2f} stops at ISO {float(mean.iso[i]):g}" for i in dict.fromkeys((0, mean.sizes["iso"] - 1))
    )
    methods = set(wells["method"].values.ravel().tolist()) - {""}
    stated = (
        "No flat here is saturated all over: the scale is taken to end at the white level that the files state, and "
        "the bars are how far the brightest flats are from it. "
        if methods == {"white level"}
        else "The scale's end is measured on saturated flats. "
    )
    unknown = [
        str(one["channel"].item()) for _, one in wells.groupby("channel") if not one["full_well"].notnull().any()
    ]
    if unknown:
        stated += (
            f"{listing(unknown)} {'is' if len(unknown) == 1 else 'are'} not shown: no flat is bright enough there. "
        )
    return Words(
        f"Left: full well over read noise, in factors of two; right: the electrons at which a pixel saturates. "
        f"{ends}. {stated}{source(result)}",
        "Two charts against ISO: the dynamic range falls slowly at first and by one stop for each doubling at high "
        "ISO; the full well halves with each doubling.",
    )


def pixel_noise(distribution: xr.Dataset) -> hv.Layout:
    """Chart how many pixels have which read noise and how many chance would give, twice: the right axis is logarithmic.

    Parameters
    ----------
    distribution
        From `sensor.noise_distribution`; all its channels together.
    """
    middle = distribution["bin"].values
    width = middle[1] - middle[0]
    edges = np.append(middle - width / 2, middle[-1] + width / 2)
    count, chance = (distribution[name].sum("channel").values for name in ("count", "expected"))
    threshold = float(distribution["threshold"].mean())
    panels = []
    for log, low in (("", 0.0), ("y", 0.5)):
        top = 1.6 * max(count.max(), chance.max()) * (6 if log else 1)
        # on a logarithmic axis nothing has no place
        base = {"base": low} if log else {}
        kept = chance > 0.05 if log else np.ones(chance.size, bool)
        elements = [
            steps(edges, np.maximum(count, low) if log else count, dims=(PIXEL_NOISE, PIXELS), label="pixels", **base),
            line(middle[kept], chance[kept], dims=(PIXEL_NOISE, PIXELS), label="chance alone", colour=REFERENCE),
            line([threshold] * 2, [max(low, 1e-9), top / 3], dims=(PIXEL_NOISE, PIXELS), colour=MUTED, dash="dotted",
                 label=f"beyond: {distribution.attrs['rare']:.1%} by chance"),
        ]  # fmt: skip
        title = "The tail: pixels that flicker" if log else "Every pixel's own read noise"
        panels.append(panel(elements, title=title, log=log, ylim=(low, top), legend="top_right"))
    return layout(panels)


def pixel_noise_words(result: Any) -> Words:
    """Describe the chart of the pixels' read noise."""
    found = result.pixel_noise
    share = value_text(
        100 * float(found["tail_share"].mean()),
        100 * float(np.sqrt((found["tail_share_error"] ** 2).sum())) / found.sizes["channel"],
        "%",
    )
    return Words(
        f"The standard deviation of every pixel over {found.attrs['frames']} bias frames. Equal pixels would differ by "
        f"chance as the line says; {share} of the pixels more than that lie beyond the dotted line. Random telegraph "
        f"noise, a transistor that switches between two levels, makes such a tail. {source(result)}",
        "A histogram of the pixels' read noise with the curve that chance gives, on a linear and on a logarithmic "
        "scale; pixels that flicker stand to the right of the curve.",
    )
