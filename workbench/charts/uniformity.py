"""Charts of uniformity: what is fixed in every frame, and how it differs from pixel to pixel and over the frame."""

from __future__ import annotations

import math
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from ..core.settings import setting_dim
from ..core.statistics import mad_std
from ..core.values import temperature_text, unit_text, value_text
from . import theme
from .dark import DARKS
from .registry import Caption, caption, chart, listing, mean_quantity, quantity, source
from .settings import settings_of, words_of
from .theme import COLUMN, KIND_COLOUR, REFERENCE, ROW, SERIES

FREQUENCY = theme.dimension("spatial frequency", "cycles/px")
ILLUMINATION = theme.dimension("illumination", "% of the centre")
RADIUS = theme.dimension("distance from the centre", "px")
PIXELS, FRACTION = theme.dimension("pixels"), theme.dimension("pixels above it", "per million")
_PARTS = {"total": "in all", "pixel": "pixels", "column": "columns", "row": "rows"}
_KIND = {
    "hot": ("#d55e00", "diamond"), "warm": ("#e69f00", "circle"), "dead": ("#0072b2", "square"),
    "unstable": ("#009e73", "triangle"),
}  # fmt: skip
_SHOWN = 3000  # defects drawn of each kind
_WIDTH = 3.0  # standard deviations to either side of a pattern's grey scale
_BASE = 0.6  # of a bar that counts pixels, so that one pixel can be seen
_DARK = KIND_COLOUR["dark"]
_BIAS = "ten or more bias frames"


@chart(
    "fixed-pattern", "What every frame has in common", "Fixed pattern", needs=("uniformity.bias_pattern",),
    takes=("uniformity.bias_pattern", "uniformity.flat_pattern"), shoot=_BIAS, numbers=False, asked=True,
)  # fmt: skip
def fixed_pattern(bias_pattern: xr.Dataset | None, flat_pattern: xr.Dataset | None) -> hv.Layout:
    """Chart what is fixed in bias frames and in flats as pictures: DSNU and PRNU, pixel by pixel.

    `bias_pattern` and `flat_pattern` come from `pixels.fixed_pattern`, in ADU and in %; either may be None.
    """
    panels = []
    for pattern, title, name in (
        (bias_pattern, "Fixed in the dark", "offset"),
        (flat_pattern, "Fixed in the light", "response"),
    ):
        if pattern is not None:
            values = pattern["picture"].values
            spread = _WIDTH * (float(mad_std(values)) or float(values.std()) or 1.0)
            style = {"value": theme.dimension(name, unit_text(pattern.attrs["units"])), "limits": (-spread, spread)}
            panels.append(theme.image_panel(pattern["picture"], f"{title}, {pattern.attrs['channel']}", **style))
    return theme.layout(panels)


@caption(fixed_pattern)
def _fixed_pattern_caption(result: Any) -> Caption:
    found, shown = result.uniformity, []
    if found.bias_pattern is not None:
        frames = int(found.bias_pattern.attrs["frames"])
        shown.append(f"left the offsets of the pixels in the mean of {frames} bias frames")
    if found.flat_pattern is not None:
        shown.append(f"right their response in {int(found.flat_pattern.attrs['frames'])} flats")
    return Caption(
        f"The middle of the frame without its smooth part, black and white {2 * _WIDTH:g} standard deviations apart: "
        f"{listing(shown)}; some of the grain is noise that so few frames leave. Stripes would be rows or columns that "
        f"are read out unlike their neighbours; rings are dust. {source(result)}",
        "Two grainy grey pictures; stripes across them would be rows or columns with an offset or response of their "
        "own.",
    )


@chart(
    "spectrogram", "Stripes, or no order at all?", "Fixed pattern", needs=("uniformity.bias_pattern",),
    takes=("uniformity.bias_pattern", "uniformity.flat_pattern"), shoot=_BIAS, asked=True,
)  # fmt: skip
def spectrogram(bias_pattern: xr.Dataset | None, flat_pattern: xr.Dataset | None) -> hv.Layout:
    """Chart the spectrograms of the fixed patterns along rows and columns (EMVA 1288 release 4.0 linear, 8.6).

    `bias_pattern` and `flat_pattern` come from `pixels.fixed_pattern`; either may be None.
    """
    panels = []
    for pattern, title in ((bias_pattern, "In the dark: DSNU"), (flat_pattern, "In the light: PRNU")):
        if pattern is None:
            continue
        dims = (FREQUENCY, theme.dimension("standard deviation", unit_text(pattern.attrs["units"])))
        frequency, noise = pattern["frequency"].values, float(pattern["noise"])
        names = ("along_rows", "along_columns")
        elements = []
        for name, colour in zip(names, SERIES, strict=False):
            style = {"label": name.replace("_", " the "), "colour": colour, "width": 1.2}
            elements.append(theme.line(frequency, pattern[name].values, dims=dims, **style))
        top = max(float(pattern[name].max()) for name in names)
        low = min(float(np.percentile(pattern[name], 1)) for name in names)
        if math.isfinite(noise):
            elements.append(theme.level(noise, frequency, dims=dims, label="temporal noise left", dash="dashed"))
            low = min(low, noise)
        limits = (max(low / 2, top * 1e-4, 1e-9), max(3 * top, 1e-6))
        panels.append(theme.panel(elements, title=title, log="y", ylim=limits))
    return theme.layout(panels)


@caption(spectrogram)
def _spectrogram_caption(result: Any) -> Caption:
    return Caption(
        "The fixed patterns decomposed into waves along the rows and along the columns: a level line is a pattern "
        "without order, a peak is one that repeats. Stripes across the rows lift the line along the rows, and vice "
        f"versa. The dashed line is the noise that is left in the mean of these frames. {source(result)}",
        "Noisy, nearly level lines on a logarithmic axis that fall off towards the lowest frequencies, which the "
        "high-pass removes.",
    )


@chart(
    "uniformity", "How much the pixels differ", "Fixed pattern", needs=("uniformity.dsnu",),
    takes=("uniformity.dsnu", "uniformity.prnu"), asked=True,
    shoot="ten or more bias frames, and equal flats at half of saturation",
)  # fmt: skip
def uniformity_parts(dsnu: xr.Dataset | None, prnu: xr.Dataset | None) -> hv.Layout:
    """Chart DSNU and PRNU of each channel: in all, and the parts of single pixels, columns and rows.

    `dsnu` and `prnu` come from `pixels.measure_dsnu` (its lowest setting is drawn) and `pixels.measure_prnu`; either
    may be None.
    """
    panels = []
    if dsnu is not None:
        name, unit = ("dsnu", "e⁻") if np.isfinite(dsnu["dsnu"].values).any() else ("dsnu_adu", "ADU")
        one = dsnu.isel({setting_dim(dsnu): 0}).sel(filter="none")
        title = "Dark-signal non-uniformity" + (f", {words_of(one)}" if np.isfinite(settings_of(one)) else "")
        panels.append(_parts(one, name, theme.dimension("DSNU", unit), title))
    if prnu is not None:
        kind = "highpass" if np.isfinite(prnu["prnu"].sel(filter="highpass").values).any() else "none"
        value, title = theme.dimension("PRNU", "%"), "Photo-response non-uniformity"
        panels.append(_parts(prnu.sel(filter=kind), "prnu", value, title))
    return theme.layout(panels)


def _parts(data: xr.Dataset, name: str, value: hv.Dimension, title: str) -> hv.Overlay:
    dims = (theme.dimension("part"), value)
    data = data.sel(part=list(_PARTS))
    names = data["channel"].values.astype(str)
    elements = []
    for number, channel in enumerate(names):
        x = np.arange(len(_PARTS)) + 0.16 * (number - (names.size - 1) / 2)
        values, errors = (data[key].sel(channel=channel).values for key in (name, f"{name}_error"))
        elements.append(theme.channel_points(channel, x, values, errors, dims=dims, size=8))
    top = float(np.nanmax(data[name].values + np.nan_to_num(data[f"{name}_error"].values)))
    scales = {"xticks": list(enumerate(_PARTS.values())), "xlim": (-0.6, 3.6)}
    return theme.panel(elements, title=title, ylim=(-0.04 * top, 1.15 * top), **scales)  # markers at zero stay whole


@caption(uniformity_parts)
def _uniformity_parts_caption(result: Any) -> Caption:
    found, means = result.uniformity, []
    if found.dsnu is not None and np.isfinite(found.dsnu["dsnu"].values).any():
        lowest = found.dsnu.isel({setting_dim(found.dsnu): 0}).sel(filter="none", part="total")
        means.append(f"DSNU {mean_quantity(lowest, 'dsnu', 'e⁻')}")
    if found.prnu is not None:
        means.append(f"PRNU {mean_quantity(found.prnu.sel(filter='highpass', part='total'), 'prnu', '%')}")
    numbers = f"Mean of the channels: {listing(means)}. " if means else ""
    return Caption(
        "How much the pixels differ, with temporal noise removed: in all, and the parts that belong to single pixels, "
        f"columns and rows (EMVA 1288 4.0; PRNU high-passed, DSNU plain). {numbers}Bars: 1σ. {source(result)}",
        "Points for each channel above in all, pixels, columns, rows; single pixels make up nearly all of it.",
    )


@chart(
    "defects", "Hot, warm, dead and unstable pixels", "Fixed pattern", needs=("uniformity.defects",), asked=True,
    shoot=f"{DARKS}, ten bias frames, flats",
)  # fmt: skip
def defects(found: xr.DataArray) -> hv.Layout:
    """Chart how many pixels are hot, warm, dead, unstable, and where they lie.

    `found` comes from `pixels.find_sensor_defects`.
    """
    counts = found.attrs["counts"]
    masks = dict(zip(found.attrs["flag_meanings"].split(), found.attrs["flag_masks"], strict=True))
    dims = (theme.dimension("kind"), theme.dimension("pixels", "per million"))
    million = 1e6 / found.size
    floor = 0.3 * million
    left, right = [], []
    for number, (kind, count) in enumerate(counts.items()):
        colour, marker = _KIND[kind]
        share = max(count * million, floor)
        left.append(theme.upright(number, (floor, share), dims=dims, colour=colour, width=9))
        left.append(theme.points([number], [share], dims=dims, label=kind, colour=colour, marker=marker, size=9))
        left.append(theme.note(number, share * 1.6, f"{count:,}", dims=dims, align=("center", "bottom"), size=12))
    for kind in sorted(counts, key=counts.get, reverse=True):  # the few over the many
        y, x = np.nonzero(found.values & masks[kind])
        if y.size:
            some = slice(None, None, math.ceil(y.size / _SHOWN))
            look = {"colour": _KIND[kind][0], "marker": _KIND[kind][1], "size": 4, "filled": False, "label": kind}
            right.append(theme.points(x[some] + 0.5, y[some] + 0.5, dims=(COLUMN, ROW), **look))
    top = max([count * million for count in counts.values()] + [10 * floor])
    scales = {"xticks": list(enumerate(counts)), "xlim": (-0.6, len(counts) - 0.4), "ylim": (floor / 1.5, 20 * top)}
    panels = [theme.panel(left, title="How many", log="y", legend=None, **scales)]
    if right:  # the left panel names colours and markers
        panels.append(theme.frame_panel(right, "Where", (0, 0, found.shape[1], found.shape[0])))
    return theme.layout(panels)


@caption(defects)
def _defects_caption(result: Any) -> Caption:
    attrs = result.uniformity.defects.attrs
    counts = listing(f"{count:,} {kind}" for kind, count in attrs["counts"].items())
    limits, rules = attrs["thresholds"], []
    if "hot_noise" in limits:
        known = math.isfinite(attrs.get("temperature", math.nan))
        where = temperature_text(attrs["temperature"]) if known else "the temperature of these darks"
        rules.append(
            f"hot: its dark current makes its noise {limits['hot_noise']:g} times that of its neighbours in "
            f"{attrs['exposure']:g} s at {where}"
        )
    if "warm_sigmas" in limits:
        rules.append(f"warm: {limits['warm_sigmas']:g} robust σ above the median")
    if "dead_response" in limits:
        rules.append(f"dead: less than {limits['dead_response']:g} of its neighbours' response")
    if "unstable_excess" in limits:
        rules.append(f"unstable: more than {limits['unstable_excess']:g} times the usual variance, and not by chance")
    text = "; ".join(rules)
    return Caption(
        f"Of {attrs['pixels']:,} pixels {counts}. {text[:1].upper()}{text[1:]}. {source(result)}",
        "Left, one bar for each kind of defect on a logarithmic axis; right, the defects as marks scattered over the "
        "frame.",
    )


@chart("dcnu-histogram", "The dark current of every pixel", "Fixed pattern", needs=("dcnu",), shoot=DARKS)
def dcnu_histogram(dcnu: xr.Dataset) -> hv.Layout:
    """Chart how many pixels have which dark current, on a logarithmic axis: the long tail is the hot pixels.

    `dcnu` comes from `sensor.dcnu_histogram`: ``count`` of pixels over bin; ``mean`` and ``median`` in attrs.
    """
    unit = unit_text(dcnu.attrs["units"])
    dims = (theme.dimension("dark current of a pixel", unit), PIXELS)
    count = dcnu["count"].values.astype(float)
    edges, top = theme.bin_edges(dcnu["bin"].values.astype(float)), float(count.max())
    seen = np.where(count > 0, count, np.nan)
    elements = [theme.steps(edges, seen, dims=dims, label="pixels", base=_BASE, colour=_DARK)]
    for name, dash in (("mean", "solid"), ("median", "dotted")):
        x = float(dcnu.attrs[name])
        style = {"label": f"{name} {value_text(x, unit=unit)}", "dash": dash}
        elements.append(theme.upright(x, (_BASE, 2 * top), dims=dims, **style))
    title = "Every pixel has its own dark current"
    return theme.layout([theme.panel(elements, title=title, log="y", ylim=(_BASE, top * 4))])


@caption(dcnu_histogram)
def _dcnu_histogram_caption(result: Any) -> Caption:
    attrs = result.dcnu.attrs
    unit = unit_text(attrs["units"])
    spread = ""
    if result.dark_current is not None:
        current = result.dark_current
        there = settings_of(current) == attrs.get(setting_dim(current))
        there &= current["temperature"].values == attrs.get("temperature")
        for index in np.flatnonzero(there & np.isfinite(current["dcnu"].values))[:1]:
            dcnu = quantity(current.isel(setting=index), "dcnu", "e⁻/s")
            spread = f"The non-uniformity (DCNU), their standard deviation without temporal noise, is {dcnu}. "
    beyond = f"{attrs['beyond']:,} hotter pixels lie beyond the right edge. " if attrs.get("beyond") else ""
    return Caption(
        f"How many of {attrs['n_pixels']:,} pixels have which dark current, {_setting_text(result.dcnu)}. Most lie "
        f"near the median of {value_text(attrs['median'], unit=unit)}; the tail on the right is the hot pixels, which "
        f"lift the mean to {value_text(attrs['mean'], unit=unit)}. {spread}{beyond}{source(result)}",
        "A histogram with a logarithmic count axis: a narrow peak and a long thin tail towards high dark currents.",
    )


def _setting_text(data: xr.Dataset) -> str:
    """Write the setting of a map of dark current."""
    attrs = data.attrs
    return f"at {temperature_text(attrs.get('temperature', np.nan))}, {words_of(attrs)}"


@chart("hot-pixels", "Hot pixels", "Fixed pattern", needs=("hot_pixels",), shoot=DARKS)
def hot_pixels(hot: xr.Dataset) -> hv.Layout:
    """Chart how many pixels exceed a dark current, and where the hottest lie.

    `hot` comes from `pixels.hot_pixels`: ``fraction`` over threshold; ``dark_current`` over point with y and x.
    """
    dims = (theme.dimension("dark current", unit_text(hot.attrs["units"])), FRACTION)
    threshold, fraction = hot["threshold"].values, 1e6 * hot["fraction"].values
    seen = (fraction > 0) & (threshold > 0)
    curve = theme.line(threshold[seen], fraction[seen], dims=dims, colour=_DARK, width=2.4)
    x, y, lost = hot["x"].values + 0.5, hot["y"].values + 0.5, np.isnan(hot["dark_current"].values)
    places = []
    for at, label, colour, marker in ((~lost, "hottest", _DARK, "circle"), (lost, "saturated", REFERENCE, "diamond")):
        if at.any():
            look = {"label": label, "colour": colour, "marker": marker, "size": 5, "filled": False}
            places.append(theme.points(x[at], y[at], dims=(COLUMN, ROW), **look))
    frame = (0.0, 0.0, float(hot.attrs["width"]), float(hot.attrs["height"]))
    left = theme.panel([curve], title="How many pixels are hotter", log="xy", legend=None)
    return theme.layout([left, theme.frame_panel(places, f"Where the hottest {lost.size} are", frame)])


@caption(hot_pixels)
def _hot_pixels_caption(result: Any) -> Caption:
    hot = result.hot_pixels
    total = hot.attrs["height"] * hot.attrs["width"]
    lost = int(np.isnan(hot["dark_current"].values).sum())
    limit = 5 * float(hot["threshold"][0])
    above = float(np.interp(limit, hot["threshold"].values, hot["fraction"].values)) * total
    saturated = f"{lost} of them, gold, saturate. " if lost else ""
    return Caption(
        f"How many in a million pixels exceed a dark current, {_setting_text(hot)}; {above:,.0f} of {total:,} pixels "
        f"lie above {value_text(limit, unit=unit_text(hot.attrs['units']))}, five times the lowest shown. The dots are "
        f"the {hot.sizes['point']} hottest. {saturated}{source(result)}",
        "Left, a curve on logarithmic axes that falls steeply and then runs out slowly: few pixels are very hot. "
        "Right, the hottest pixels as dots scattered at random over the frame.",
    )


@chart(
    "vignette", "Vignetting: a flat as a picture", "Flats", needs=("vignetting",),
    shoot="flats of an evenly lit field through the lens or telescope",
)  # fmt: skip
def vignette(vignetting: xr.Dataset) -> hv.Layout:
    """Chart a flat as a picture, and how the light falls off from the centre in every channel.

    `vignetting` comes from `pixels.vignetting`: ``illumination`` over (y, x) and ``profile`` over (channel, radius),
    both relative.
    """
    picture = theme.image_panel(100 * vignetting["illumination"], "A flat", value=ILLUMINATION, cmap="viridis")
    curves = []
    for channel in vignetting["channel"].values.astype(str):
        one = vignetting.sel(channel=channel)
        known = one["radius"].values, 100 * one["profile"].values, 100 * one["profile_error"].values
        curves.append(theme.channel_points(channel, *known, dims=(RADIUS, ILLUMINATION), size=5))
    return theme.layout([picture, theme.panel(curves, title="Falling off from the centre", legend="bottom_left")])


@caption(vignette)
def _vignette_caption(result: Any) -> Caption:
    data = result.vignetting
    frames = int(data.attrs["frames"])
    return Caption(
        f"The mean of {frames} {'flat' if frames == 1 else 'flats'} as a picture, each channel divided by its value in "
        "the centre, and the same against the distance from the centre: at the corners "
        f"{100 * float(data['profile'].isel(radius=-1).mean()):.1f} % of the light is left. Bars: 1σ of the "
        f"ring's mean. {source(result)}",
        "A picture that is bright in the middle and darker towards the corners, and a curve falling with the distance "
        "from the centre.",
    )
