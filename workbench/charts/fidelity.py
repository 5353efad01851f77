"""Charts of the raw report card: which numbers occur, what neighbours share of the noise, hot pixels left or taken."""

from __future__ import annotations

import math
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
    UNUSED,
    dimension,
    layout,
    line,
    note,
    panel,
    picture,
    points,
    steps,
)
from .words import Words, source

CODE = dimension("number, from the first shown", "ADU")
OCCURS = dimension("how often it occurs")
LEVEL = dimension("level", "ADU")
STEP = dimension("distance of numbers that occur", "ADU")
FREQUENCY = dimension("spatial frequency", "cycles/pixel")
POWER = dimension("noise power over that of white noise")
RIGHT, DOWN = dimension("pixels of one colour to the right", "px"), dimension("pixels of one colour below", "px")
CORRELATION = dimension("correlation")
NEIGHBOUR = dimension("brightest of its 24 neighbours", "σ")
PIXEL = dimension("the pixel itself", "σ")
DIFFERENCE = dimension("pixel − brightest of 8 neighbours of its colour", "ADU")
COUNT = dimension("bright pixels")
_SHOWN = 48  # codes in a row


def missing_codes(codes: xr.Dataset, missing: xr.Dataset) -> hv.Layout:
    """Chart which numbers occur, a row of them for each channel, and how far apart they are at each level.

    Parameters
    ----------
    codes, missing
        From `sensor.count_codes` and `sensor.missing_codes`; of several ISO settings the lowest is shown.
    """
    iso = missing["iso"].values[0]
    here = np.flatnonzero(np.isnan(codes["iso"].values) if np.isnan(iso) else codes["iso"].values == iso)
    pixels = codes["pixels"].isel(group=here).sum("group")
    channels = [str(name) for name in missing["channel"].values]
    dims, rows = (CODE, OCCURS), []
    for height, channel in enumerate(reversed(channels)):
        counts = pixels.sel(channel=channel).values
        first = _fullest(counts)
        shown = counts[first : first + _SHOWN]
        # a square root, so that a number that occurs seldom still differs from one that does not occur
        bars = np.sqrt(shown / max(1, shown.max())) * 0.68
        colour = CHANNEL_COLOUR[channel]
        x = np.repeat(np.arange(shown.size + 1), 2)[1:-1] - 0.5
        rows.append(line(x, height + np.repeat(bars, 2), dims=dims, label=channel, colour=colour, width=1.4))
        rows.append(line([-0.5, shown.size - 0.5], [height, height], dims=dims, colour=MUTED, width=0.8))
        rows.append(note(-0.3, height + 0.74, f"{_NAMES[channel]}, from {first:,}", dims=dims, colour=colour, size=10))
    ticks = [(height, channel) for height, channel in enumerate(reversed(channels))]
    left = panel(
        rows, title="Which numbers occur", legend=None, yticks=ticks, ylim=(-0.15, len(channels) + 0.05), grid=False
    )
    dims, curves = (LEVEL, STEP), []
    highest = 1.0
    for channel in channels:
        step = missing["step"].isel(iso=0).sel(channel=channel).values
        seen = np.isfinite(step) & (missing["level"].values > 0)
        if seen.any():
            highest = max(highest, float(step[seen].max()))
            level = missing["level"].values[seen] * math.sqrt(2)
            one = points(
                level, step[seen], dims=dims, label=channel, colour=CHANNEL_COLOUR[channel], marker=channel, size=8
            )
            curves += [line(level, step[seen], dims=dims, colour=CHANNEL_COLOUR[channel], width=1), one]
    fine = highest < 3
    right = panel(
        curves or [line([1, 16384], [1, 1], dims=dims)],
        title="How far apart they are", log="x" if fine else "xy", legend="top_left",
        xlim=(4, 1.3 * float(missing["highest"].max())), ylim=(0.9, 1.5 if highest < 1.4 else 1.6 * highest),
    )  # fmt: skip
    return layout([left, right])


_NAMES = {"R": "red", "G1": "green 1", "G2": "green 2", "B": "blue", "mono": "all pixels"}


def _fullest(counts: np.ndarray) -> int:
    """Return where the most pixels lie in the row of codes to be shown, reckoned by the geometric mean."""
    if counts.size <= _SHOWN:
        return 0
    filled = np.convolve(np.log1p(counts), np.ones(_SHOWN), mode="valid")
    return int(np.argmax(filled))


def noise_spectrum(texture: xr.Dataset) -> hv.Layout:
    """Chart the power spectrum of the noise of whole rows and columns, and how neighbours correlate.

    Parameters
    ----------
    texture
        From `sensor.noise_texture`; the lowest ISO is shown.
    """
    one = texture.isel(iso=0)
    dims = (FREQUENCY, POWER)
    curves: list[Any] = [line([0, 0.5], [1, 1], dims=dims, label="white noise", dash="dashed")]
    highest = 2.0
    for colour, axis in zip(SERIES, one["axis"].values.astype(str), strict=False):
        power = one["spectrum"].sel(axis=axis).values
        seen = np.isfinite(power)
        highest = max(highest, float(power[seen].max(initial=0)))
        curves.append(line(one["frequency"].values[seen], power[seen], dims=dims, label=f"{axis}s", colour=colour))
    left = panel(curves, title="Rows and columns", legend="top_right", ylim=(0, 1.5 * highest), xlim=(0, 0.5))
    middle = one["correlation"].mean("channel").values
    values = np.full((5, 5), np.nan)
    for dy, dx, value in zip(one["dy"].values, one["dx"].values, middle, strict=True):
        values[2 + dy, 2 + dx] = values[2 - dy, 2 - dx] = value
    values[2, 2] = 0.0  # with itself: one, which would drown the rest
    reach = max(0.02, float(np.abs(middle).max()))
    image = picture(
        values[::-1],
        (-2.5, -2.5, 2.5, 2.5),
        dims=(RIGHT, DOWN),
        value=CORRELATION,
        cmap="RdBu_r",
        limits=(-reach, reach),
    )
    cross = note(0, 0, "itself", dims=(RIGHT, DOWN), colour=INK, align=("center", "center"))
    right = panel(
        [image, cross], title="Neighbours of one colour", legend=None, ratio=1.3, invert_y=True,
        xlim=(-2.5, 2.5), ylim=(-2.5, 2.5),
    )  # fmt: skip
    return layout([left, right])


def hot_pixel_filter(hot: xr.Dataset) -> hv.Layout:
    """Chart whether bright pixels stand alone: each against its 24 neighbours, and how far above 8 of its colour.

    Parameters
    ----------
    hot
        From `sensor.hot_pixel_filter`.
    """
    value, company = hot["value"].values, hot["company"].values
    seen = np.isfinite(value) & np.isfinite(company)
    value, company = np.maximum(value[seen], 0.3), np.maximum(company[seen], 0.3)
    bright = value > 8
    dims = (NEIGHBOUR, PIXEL)
    top = float(max(value.max(initial=20), company.max(initial=20))) * 1.5
    elements: list[Any] = [line([0.3, top], [0.3, top], dims=dims, label="as bright as its neighbour", dash="dashed")]
    if (~bright).any():
        ordinary = points(company[~bright], value[~bright], dims=dims, label="other pixels", colour=UNUSED, size=3)
        elements.append(ordinary)
    if bright.any():
        colour = KIND_COLOUR["dark"]
        elements.append(points(company[bright], value[bright], dims=dims, label="bright pixels", colour=colour, size=4))
    left = panel(
        elements,
        title="Each pixel against its neighbours",
        log="xy",
        legend="top_right",
        xlim=(0.3, top),
        ylim=(0.3, top),
    )
    difference, counts = hot["difference"].values, hot["bright"].values
    # bins of an odd width, so that the middle one is about zero; wide enough for nineteen in twenty of the pixels
    order = np.argsort(np.abs(difference))
    reach = (
        abs(difference[order][np.searchsorted(np.cumsum(counts[order]), 0.95 * counts.sum())]) if counts.sum() else 30
    )
    width = 2 * math.ceil(reach / 60) + 1
    bins = np.round(difference / width).astype(int)
    wanted = np.arange(-15, math.ceil(reach / width) + 1)
    heights = np.array([counts[bins == number].sum() for number in wanted])
    edges = (np.append(wanted, wanted[-1] + 1) - 0.5) * width
    limit = max(5.0, 1.25 * float(heights.max()))
    dims = (DIFFERENCE, COUNT)
    bars = steps(edges, heights, dims=dims, colour=KIND_COLOUR["dark"])
    zero = int(counts[difference == 0][0])
    words = note(edges[0] + width, 0.95 * limit, f"exactly zero: {zero:,}", dims=dims, align=("left", "top"))
    right = panel(
        [bars, words], title="Above the brightest of eight", legend=None, ylim=(0, limit), xlim=(edges[0], edges[-1])
    )
    return layout([left, right])


def _answer(report: Any, *tests: str) -> str:
    """Return what the card says to these questions, without the remedies."""
    card = report.card
    parts = [card[name].sel(test=test).item() for test in tests for name in ("finding", "effect")]
    return " ".join(part for part in parts if part)


def missing_codes_words(result: Any) -> Words:
    """Describe the missing codes of a characterization."""
    verdict = result.fidelity.card.attrs["verdict"]
    text = _answer(result.fidelity, "codes", "bits")
    return Words(
        f"Left: how often each of {_SHOWN} successive numbers occurs in the files (square root), by colour; a gap is a "
        "number that never occurs. Right: the mean distance of the numbers that occur, in each octave of levels; 1 "
        f"where all do. {text} Verdict on this camera: {verdict}. {source(result)}",
        f"A row of bars for each colour, with gaps where numbers are missing, and a chart of their distance. {text}",
    )


def noise_spectrum_words(result: Any) -> Words:
    """Describe the texture of the noise of a characterization."""
    one = result.fidelity.texture.isel(iso=0)
    row, column = (
        value_text(
            100 * float(one["band_noise"].sel(axis=axis)), 100 * float(one["band_noise_error"].sel(axis=axis)), "%"
        )
        for axis in ("row", "column")
    )
    text = _answer(result.fidelity, "bands", "neighbours")
    return Words(
        f"From differences of {int(one['pairs'])} pairs of equal frames ({one['kind'].item()}, ISO "
        f"{float(one['iso']):g}). Left: power spectrum of the means of whole rows and columns; a peak is banding. "
        f"Noise of their own: rows {row}, columns {column} of a pixel's. Right: how much of its noise a pixel shares "
        f"with its neighbours. {text} {source(result)}",
        "Two spectra that scatter about one where noise is white, and a five by five map of correlations, pale where "
        f"neighbours share nothing. {text}",
    )


def hot_pixel_filter_words(result: Any) -> Words:
    """Describe the test for a hot-pixel filter of a characterization."""
    hot = result.fidelity.hot
    text = _answer(result.fidelity, "hot-pixels")
    return Words(
        f"One dark of {hot.attrs['exposure']:g} s ({hot.attrs['bright_pixels']:,} pixels brighter than 8 σ). Left: "
        "each pixel against the brightest of its 24 neighbours, in standard deviations above the median; hot pixels "
        "left alone form the vertical arm, a filter folds it onto the dashed line. Right: a filter that gives a pixel "
        f"the value of its brightest neighbour makes a spike at zero. {text} {source(result)}",
        f"A scatter plot with a vertical arm of lone bright pixels, and a histogram of how far they rise above. {text}",
    )
