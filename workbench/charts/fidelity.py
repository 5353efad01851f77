"""Charts of the raw report card: which numbers occur, what neighbours share of the noise, whether hot pixels remain."""

from __future__ import annotations

import math
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from ..core.results import same_setting
from ..core.settings import setting_dim
from . import theme
from .registry import Caption, caption, chart, quantity, source
from .settings import channels, settings_of, words_of
from .theme import CHANNEL_COLOUR, KIND_COLOUR, MUTED, SERIES, UNUSED

CODE, OCCURS = theme.dimension("number, from the first shown", "ADU"), theme.dimension("how often it occurs")
LEVEL, STEP = theme.dimension("level", "ADU"), theme.dimension("distance of numbers that occur", "ADU")
FREQUENCY = theme.dimension("spatial frequency", "cycles/pixel")
POWER = theme.dimension("noise power over that of white noise")
RIGHT = theme.dimension("pixels of one colour to the right", "px")
BELOW = theme.dimension("pixels of one colour below", "px")
CORRELATION = theme.dimension("correlation")
NEIGHBOUR, PIXEL = theme.dimension("brightest of its 24 neighbours", "σ"), theme.dimension("the pixel itself", "σ")
DIFFERENCE = theme.dimension("pixel − brightest of 8 neighbours of its colour", "ADU")
COUNT = theme.dimension("bright pixels")
_SHOWN = 48  # codes in a row
_NAMES = {"R": "red", "G1": "green 1", "G2": "green 2", "G": "green", "B": "blue", "mono": "all pixels"}
_DARK = KIND_COLOUR["dark"]


def _answer(result: Any, *tests: str) -> str:
    """Return the card's answers to these questions, without the remedies."""
    card = result.fidelity.card
    parts = [card[name].sel(test=test).item() for test in tests for name in ("finding", "effect")]
    return " ".join(part for part in parts if part)


@chart(
    "missing-codes", "Is my raw file raw?", "The sensor", needs=("fidelity.codes", "fidelity.missing"), asked=True,
    shoot="any raw frames with whole numbers",
)  # fmt: skip
def missing_codes(codes: xr.Dataset, missing: xr.Dataset) -> hv.Layout:
    """Chart which numbers occur, a row of them for each channel, and how far apart they are at each level.

    `codes` and `missing` come from `fidelity.count_codes` and `fidelity.missing_codes`; of several settings the
    lowest is shown.
    """
    here = np.flatnonzero(same_setting(settings_of(codes), settings_of(missing)[0]))
    pixels = codes["pixels"].isel(group=here).sum("group")
    rows = []
    names = channels(missing)[::-1]
    for height, channel in enumerate(names):
        rows += _row_of_codes(pixels.sel(channel=channel).values, channel, height)
    scales = {"yticks": list(enumerate(names)), "ylim": (-0.15, len(names) + 0.05)}
    left = theme.panel(rows, title="Which numbers occur", legend=None, grid=False, **scales)
    return theme.layout([left, _distances(missing)])


def _row_of_codes(counts: np.ndarray, channel: str, height: int) -> list[Any]:
    """Draw a row of the codes where the most pixels lie, by the geometric mean."""
    first = 0
    if counts.size > _SHOWN:
        first = int(np.argmax(np.convolve(np.log1p(counts), np.ones(_SHOWN), mode="valid")))
    shown = counts[first : first + _SHOWN]
    # a square root, so that a number that occurs seldom still differs from one that does not occur
    bars = np.sqrt(shown / max(1, shown.max())) * 0.68
    x = np.repeat(np.arange(shown.size + 1), 2)[1:-1] - 0.5
    dims, colour, text = (CODE, OCCURS), CHANNEL_COLOUR[channel], f"{_NAMES[channel]}, from {first:,}"
    return [
        theme.line(x, height + np.repeat(bars, 2), dims=dims, label=channel, colour=colour, width=1.4),
        theme.level(height, (-0.5, shown.size - 0.5), dims=dims, colour=MUTED, width=0.8),
        theme.note(-0.3, height + 0.74, text, dims=dims, colour=colour, size=10),
    ]


def _distances(missing: xr.Dataset) -> hv.Overlay:
    """Chart how far apart the numbers that occur are."""
    dims, highest = (LEVEL, STEP), 1.0
    curves = []
    for channel in channels(missing):
        step = missing["step"].isel({setting_dim(missing): 0}).sel(channel=channel).values
        seen = np.isfinite(step) & (missing["level"].values > 0)
        if seen.any():
            highest = max(highest, float(step[seen].max()))
            at = missing["level"].values[seen] * math.sqrt(2)
            curves.append(theme.channel_points(channel, at, step[seen], dims=dims, size=8, joined=1))
    ends = (4, 1.3 * float(missing["highest"].max()))
    room = (0.9, 1.5 if highest < 1.4 else 1.6 * highest)
    scales = {"log": "x" if highest < 3 else "xy", "legend": "top_left", "xlim": ends, "ylim": room}
    curves = curves or [theme.level(1, (1, 16384), dims=dims)]
    return theme.panel(curves, title="How far apart they are", **scales)


@caption(missing_codes)
def _missing_codes_caption(result: Any) -> Caption:
    text = _answer(result, "codes", "bits")
    return Caption(
        f"Left: how often each of {_SHOWN} successive numbers occurs in the files (square root), by colour; a gap is a "
        "number that never occurs. Right: the mean distance between the numbers that occur, in each octave of levels; "
        f"1 where all do. {text} Verdict on this camera: {result.fidelity.card.attrs['verdict']}. {source(result)}",
        f"A row of bars for each colour, with gaps where numbers are missing, and a chart of their distance. {text}",
    )


@chart(
    "noise-spectrum", "Is the noise each pixel's own?", "The sensor", needs=("fidelity.texture",), asked=True,
    shoot="two or more equal frames, best bias frames",
)  # fmt: skip
def noise_spectrum(texture: xr.Dataset) -> hv.Layout:
    """Chart the power spectrum of the noise of whole rows and columns, and how neighbours correlate.

    `texture` comes from `fidelity.noise_texture`; the lowest setting is shown.
    """
    one = texture.isel({setting_dim(texture): 0})
    dims, highest = (FREQUENCY, POWER), 2.0
    curves = [theme.level(1, (0, 0.5), dims=dims, label="white noise", dash="dashed")]
    for colour, axis in zip(SERIES, one["axis"].values.astype(str), strict=False):
        power = one["spectrum"].sel(axis=axis).values
        seen = np.isfinite(power)
        highest = max(highest, float(power[seen].max(initial=0)))
        known = one["frequency"].values[seen], power[seen]
        curves.append(theme.line(*known, dims=dims, label=f"{axis}s", colour=colour))
        at, peak, limit = (float(one[name].sel(axis=axis)) for name in ("peak", "peak_power", "peak_limit"))
        highest = max(highest, peak, limit)
        look = {"label": f"highest of the {axis}s", "colour": colour, "marker": "diamond", "size": 9}
        curves.append(theme.points([at], [peak], dims=dims, filled=peak > limit, **look))
        if axis == "row":  # the columns' limit is nearly the same
            label = "banding above; white noise: once in 1,000"
            curves.append(theme.level(limit, (0, 0.5), dims=dims, label=label, dash="dotted"))
    left = theme.panel(curves, title="Rows and columns", ylim=(0, 1.5 * highest), xlim=(0, 0.5))
    middle = one["correlation"].mean("channel").values
    values = np.full((5, 5), np.nan)
    for dy, dx, value in zip(one["dy"].values, one["dx"].values, middle, strict=True):
        values[2 + dy, 2 + dx] = values[2 - dy, 2 - dx] = value
    values[2, 2] = 0.0  # with itself: one, which would drown the rest
    reach = max(0.02, float(np.abs(middle).max()))
    style = {"value": CORRELATION, "cmap": "RdBu_r", "limits": (-reach, reach)}
    image = theme.picture(values[::-1], (-2.5, -2.5, 2.5, 2.5), dims=(RIGHT, BELOW), **style)
    itself = theme.note(0, 0, "itself", dims=(RIGHT, BELOW), align=("center", "center"))
    scales = {"ratio": 1.3, "invert_y": True, "xlim": (-2.5, 2.5), "ylim": (-2.5, 2.5)}
    return theme.layout([left, theme.panel([image, itself], title="Neighbours of one colour", legend=None, **scales)])


@caption(noise_spectrum)
def _noise_spectrum_caption(result: Any) -> Caption:
    one = result.fidelity.texture.isel({setting_dim(result.fidelity.texture): 0})
    share = 100 * one[["band_noise", "band_noise_error"]]
    row, column = (quantity(share.sel(axis=axis), "band_noise", "%") for axis in ("row", "column"))
    text = _answer(result, "bands", "neighbours")
    return Caption(
        f"From differences of {int(one['pairs'])} pairs of equal frames ({one['kind'].item()}, "
        f"{words_of(one)}). Left: power spectrum of the means of whole rows and columns; a peak is banding. "
        f"Noise common to a row or column, compared with that of a pixel: rows {row}, columns {column}. Right: how "
        f"much of its noise a pixel shares with its neighbours. {text} {source(result)}",
        "Two spectra that scatter about one where noise is white, and a five by five map of correlations, pale where "
        f"neighbours share nothing. {text}",
    )


@chart(
    "hot-pixel-filter", "Does the camera eat stars?", "The sensor", needs=("fidelity.hot",), asked=True,
    shoot="a dark of 30 s or longer",
)  # fmt: skip
def hot_pixel_filter(hot: xr.Dataset) -> hv.Layout:
    """Chart whether bright pixels stand alone: each against its 24 neighbours, and how far above 8 of its colour.

    `hot` comes from `fidelity.hot_pixel_filter`.
    """
    value, company = hot["value"].values, hot["company"].values
    seen = np.isfinite(value) & np.isfinite(company)
    value, company = np.maximum(value[seen], 0.3), np.maximum(company[seen], 0.3)
    bright, dims = value > 8, (NEIGHBOUR, PIXEL)
    ends = (0.3, float(max(value.max(initial=20), company.max(initial=20))) * 1.5)
    elements = [theme.line(ends, ends, dims=dims, label="as bright as its neighbour", dash="dashed")]
    for which, label, colour, size in ((~bright, "other pixels", UNUSED, 3), (bright, "bright pixels", _DARK, 4)):
        if which.any():
            look = {"label": label, "colour": colour, "size": size}
            elements.append(theme.points(company[which], value[which], dims=dims, **look))
    left = theme.panel(elements, title="Each pixel against its neighbours", log="xy", xlim=ends, ylim=ends)
    difference, counts = hot["difference"].values, hot["bright"].values
    # bins of an odd width, so that the middle one is about zero; wide enough for nineteen in twenty of the pixels
    order, reach = np.argsort(np.abs(difference)), 30
    if counts.sum():
        reach = abs(difference[order][np.searchsorted(np.cumsum(counts[order]), 0.95 * counts.sum())])
    width = 2 * math.ceil(reach / 60) + 1
    wanted = np.arange(-15, math.ceil(reach / width) + 1)
    bins = np.round(difference / width).astype(int)
    heights = np.array([counts[bins == number].sum() for number in wanted])
    edges = (np.append(wanted, wanted[-1] + 1) - 0.5) * width
    top, dims = max(5.0, 1.25 * float(heights.max())), (DIFFERENCE, COUNT)
    text = f"exactly zero: {int(counts[difference == 0][0]):,}"
    bars = [
        theme.steps(edges, heights, dims=dims, colour=_DARK),
        theme.note(edges[0] + width, 0.95 * top, text, dims=dims, align=("left", "top")),
    ]
    scales = {"ylim": (0, top), "xlim": (edges[0], edges[-1])}
    return theme.layout([left, theme.panel(bars, title="Above the brightest of eight", legend=None, **scales)])


@caption(hot_pixel_filter)
def _hot_pixel_filter_caption(result: Any) -> Caption:
    attrs = result.fidelity.hot.attrs
    text = _answer(result, "hot-pixels")
    return Caption(
        f"One dark of {attrs['exposure']:g} s ({attrs['bright_pixels']:,} pixels brighter than 8 σ). Left: each pixel "
        "against the brightest of its 24 neighbours, in standard deviations above the median; hot pixels left alone "
        "form the vertical arm, a filter folds it onto the dashed line. Right: a filter that gives a pixel the value "
        f"of its brightest neighbour makes a spike at zero. {text} {source(result)}",
        f"A scatter plot with a vertical arm of lone bright pixels, and a histogram of how far they rise above. {text}",
    )
