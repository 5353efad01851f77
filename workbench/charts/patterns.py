"""Charts of uniformity: the fixed patterns, their spectrograms, their parts, the defects, the law of the dark."""

from __future__ import annotations

import math
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from ..core.dark import dark_laws, predict_current
from ..core.values import value_text
from .pictures import COLUMN, ROW, _frame, _shown
from .theme import (
    CHANNEL_COLOUR,
    KIND_COLOUR,
    MUTED,
    REFERENCE,
    SERIES,
    band,
    dimension,
    layout,
    line,
    note,
    panel,
    picture,
    points,
    ramp,
)
from .words import Words, degrees, listing, source

FREQUENCY = dimension("spatial frequency", "cycles/px")
INVERSE = dimension("1/kT", "1/eV")
DARK_CURRENT = dimension("dark current", "e⁻/s/pixel")
OFF = dimension("measured / law − 1", "%")
_PARTS = ("total", "pixel", "column", "row")
_KIND = {"hot": ("#d55e00", "diamond"), "warm": ("#e69f00", "circle"), "dead": ("#0072b2", "square"),
         "unstable": ("#009e73", "triangle")}  # fmt: skip
_SHOWN = 3000  # defects drawn of each kind
_WIDTH = 3.0  # standard deviations to either side of a pattern's grey scale
_ZERO, _BOLTZMANN = 273.15, 8.617333262e-5


def fixed_pattern(bias_pattern: xr.Dataset | None, flat_pattern: xr.Dataset | None) -> hv.Layout:
    """Chart what is fixed in bias frames and in flats as pictures: DSNU and PRNU, pixel by pixel.

    Parameters
    ----------
    bias_pattern, flat_pattern
        From `sensor.fixed_pattern`, in ADU and in %; either may be None.
    """
    panels = []
    for pattern, title, name in (
        (bias_pattern, "Fixed in the dark", "offset"),
        (flat_pattern, "Fixed in the light", "response"),
    ):
        if pattern is None:
            continue
        values, bounds = _shown(pattern["picture"])
        spread = 1.4826 * float(np.median(np.abs(values))) or float(values.std()) or 1.0
        image = picture(
            values, bounds, dims=(COLUMN, ROW), value=dimension(name, pattern.attrs["units"]),
            limits=(-_WIDTH * spread, _WIDTH * spread),
        )  # fmt: skip
        panels.append(_frame(image, f"{title}, {pattern.attrs['channel']}"))
    return layout(panels)


def spectrogram(bias_pattern: xr.Dataset | None, flat_pattern: xr.Dataset | None) -> hv.Layout:
    """Chart the spectrograms of the fixed patterns along rows and columns (EMVA 1288 release 4.0 linear, 8.6).

    Parameters
    ----------
    bias_pattern, flat_pattern
        From `sensor.fixed_pattern`; either may be None.
    """
    panels = []
    for pattern, title in ((bias_pattern, "In the dark: DSNU"), (flat_pattern, "In the light: PRNU")):
        if pattern is None:
            continue
        amplitude = dimension("standard deviation", pattern.attrs["units"])
        dims = (FREQUENCY, amplitude)
        frequency = pattern["frequency"].values
        elements: list[Any] = []
        for name, label, colour in (
            ("along_rows", "along the rows", SERIES[0]),
            ("along_columns", "along the columns", SERIES[1]),
        ):
            elements.append(line(frequency, pattern[name].values, dims=dims, label=label, colour=colour, width=1.2))
        noise = float(pattern["noise"])
        if math.isfinite(noise):
            label = "temporal noise left"
            elements.append(line(frequency[[0, -1]], [noise, noise], dims=dims, label=label, dash="dashed"))
        top = max(float(pattern[name].max()) for name in ("along_rows", "along_columns"))
        low = min(float(np.percentile(pattern[name], 1)) for name in ("along_rows", "along_columns"))
        low = min(low, noise) if math.isfinite(noise) else low
        limits = (max(low / 2, top * 1e-4, 1e-9), max(3 * top, 1e-6))
        panels.append(panel(elements, title=title, log="y", legend="top_right", ylim=limits))
    return layout(panels)


def uniformity_parts(dsnu: xr.Dataset | None, prnu: xr.Dataset | None) -> hv.Layout:
    """Chart DSNU and PRNU of each channel: in all, and the parts of single pixels, columns and rows.

    Parameters
    ----------
    dsnu, prnu
        From `sensor.measure_dsnu` (its lowest ISO is drawn) and `sensor.measure_prnu`; either may be None.
    """
    panels = []
    if dsnu is not None:
        known = np.isfinite(dsnu["dsnu"].values).any()
        name = "dsnu" if known else "dsnu_adu"
        unit = "e⁻" if known else "ADU"
        one = dsnu.isel(iso=0).sel(filter="none")
        iso = float(one["iso"])
        title = "Dark-signal non-uniformity" + (f", ISO {iso:g}" if math.isfinite(iso) else "")
        panels.append(_parts(one, name, dimension("DSNU", unit), title))
    if prnu is not None:
        kind = "highpass" if np.isfinite(prnu["prnu"].sel(filter="highpass").values).any() else "none"
        panels.append(_parts(prnu.sel(filter=kind), "prnu", dimension("PRNU", "%"), "Photo-response non-uniformity"))
    return layout(panels)


def _parts(one: xr.Dataset, name: str, value: hv.Dimension, title: str) -> hv.Overlay:
    place = dimension("part")
    elements: list[Any] = []
    channels = one["channel"].values.astype(str)
    for number, channel in enumerate(channels):
        values, errors = (one[key].sel(channel=channel, part=list(_PARTS)).values for key in (name, f"{name}_error"))
        x = np.arange(len(_PARTS)) + 0.16 * (number - (channels.size - 1) / 2)
        style = {"label": channel, "colour": CHANNEL_COLOUR[channel], "marker": channel, "size": 8}
        elements.append(points(x, values, errors, dims=(place, value), **style))
    ticks = [
        (k, {"total": "in all", "pixel": "pixels", "column": "columns", "row": "rows"}[p]) for k, p in enumerate(_PARTS)
    ]
    top = float(np.nanmax(one[name].values + np.nan_to_num(one[f"{name}_error"].values)))
    limits = (-0.04 * top, 1.15 * top)  # markers at zero stay whole
    return panel(elements, title=title, xticks=ticks, xlim=(-0.6, 3.6), ylim=limits, legend="top_right")


def defects(found: xr.DataArray) -> hv.Layout:
    """Chart how many pixels are hot, warm, dead, unstable, and where they lie.

    Parameters
    ----------
    found
        From `sensor.find_sensor_defects`.
    """
    counts = found.attrs["counts"]
    masks = dict(zip(found.attrs["flag_meanings"].split(), found.attrs["flag_masks"], strict=True))
    dims = (dimension("kind"), dimension("pixels", "per million"))
    million = 1e6 / found.size
    left: list[Any] = []
    right: list[Any] = []
    floor = 0.3 * million
    for number, (kind, count) in enumerate(counts.items()):
        colour, marker = _KIND[kind]
        share = max(count * million, floor)
        left.append(line([number, number], [floor, share], dims=dims, colour=colour, width=9))
        left.append(points([number], [share], dims=dims, label=kind, colour=colour, marker=marker, size=9))
        left.append(note(number, share * 1.6, f"{count:,}", dims=dims, align=("center", "bottom"), size=12))
    order = sorted(counts, key=counts.get, reverse=True)  # the many below the few
    for kind in order:
        colour, marker = _KIND[kind]
        y, x = np.nonzero(found.values & masks[kind])
        if y.size:
            some = slice(None, None, max(1, math.ceil(y.size / _SHOWN)))
            style = {"colour": colour, "marker": marker, "size": 4, "filled": False, "label": kind}
            right.append(points(x[some] + 0.5, y[some] + 0.5, dims=(COLUMN, ROW), **style))
    height, width = found.shape
    ticks = [(k, kind) for k, kind in enumerate(counts)]
    top = max([count * million for count in counts.values()] + [10 * floor])
    panels = [
        panel(
            left,
            title="How many",
            log="y",
            legend=None,
            xticks=ticks,
            xlim=(-0.6, len(counts) - 0.4),
            ylim=(floor / 1.5, 20 * top),
        )
    ]
    if right:
        frame = {"xlim": (0, width), "ylim": (0, height), "ratio": width / height, "invert_y": True}
        panels.append(panel(right, title="Where", legend=None, **frame))  # the left panel names colours and marks
    return layout(panels)


def dark_law(dark_current: xr.Dataset, law: xr.Dataset) -> hv.Layout:
    """Chart the dark current over 1/kT, where Arrhenius' law is straight, with the doubling law, and what each leaves.

    Parameters
    ----------
    dark_current
        From `sensor.dark_current`: ``dark_current`` [e⁻/s/pixel] and its error over setting.
    law
        From `sensor.dark_law`.
    """
    warm = dark_current["temperature"].values.astype(float)
    # what the laws were fitted to: the pixels that saturate at no temperature, where they are told
    value = dark_current.get("dark_current_common", dark_current["dark_current"]).values
    error = dark_current["dark_current_error"].values
    good = np.isfinite(warm) & (value > 0)
    warm, value, error = warm[good], value[good], error[good]
    margin = max(2.0, 0.08 * np.ptp(warm))
    along = np.linspace(warm.min() - margin, warm.max() + margin, 120)
    laws = {one.name: [one] for one in dark_laws(law, ["arrhenius", "doubling"])}
    dims, off = (INVERSE, DARK_CURRENT), (dimension("sensor temperature", "°C"), OFF)
    energy = value_text(float(law["activation_energy"]), float(law["activation_energy_error"]), "eV")
    doubling = value_text(float(law["doubling_temperature"]), float(law["doubling_temperature_error"]), "K")
    labels = {"doubling": f"doubles every {doubling}", "arrhenius": f"ΔE = {energy}"}
    left: list[Any] = []
    right: list[Any] = []
    best = law.attrs.get("law") or "either"
    base = "arrhenius" if best == "arrhenius" else "doubling"
    for name, colour, dash in (("arrhenius", SERIES[0], "solid"), ("doubling", REFERENCE, "dashed")):
        current, spread = predict_current(laws[name], along)
        left.append(line(_inverse(along), current, dims=dims, label=labels[name], colour=colour, dash=dash))
        away = 100 * (current / predict_current(laws[base], along)[0] - 1)
        right.append(line(along, away, dims=off, label=labels[name], colour=colour, dash=dash))
        if name == "arrhenius":
            low, high = away - 100 * spread / current, away + 100 * spread / current
            right.append(band(along, low, high, dims=off, label="68 % band of the law", colour=colour))
    isos = dark_current["iso"].values[good]
    known = np.unique(isos)
    for iso, colour in zip(known, ramp(known.size + 1), strict=False):
        here = np.isclose(isos, iso, equal_nan=True)
        style = {"colour": KIND_COLOUR["dark"] if known.size == 1 else colour, "size": 8}
        style["label"] = f"ISO {iso:g}" if np.isfinite(iso) else "darks"
        left.append(points(_inverse(warm[here]), value[here], error[here], dims=dims, **style))
        model = predict_current(laws[base], warm[here])[0]
        right.append(points(warm[here], 100 * (value[here] / model - 1), 100 * error[here] / model, dims=off, **style))
    return layout(
        [
            panel(left, title="The same law, as physicists draw it", log="y", legend="bottom_left"),
            panel(
                right,
                title=f"How far from the {base.capitalize() if base != 'doubling' else 'doubling'} law",
                legend="bottom_right",
            ),
        ]
    )


def _inverse(temperature: Any) -> Any:
    return 1 / (_BOLTZMANN * (np.asarray(temperature, float) + _ZERO))


def dark_prediction(predicted: xr.Dataset, held_out: xr.Dataset) -> hv.Layout:
    """Chart a predicted master dark beside a dark that the library has not seen: pixel by pixel, and what is left.

    Parameters
    ----------
    predicted
        From `predict_dark`: ``signal``, ``variance`` [ADU, ADU²].
    held_out
        ``signal`` and ``variance`` (y, x) of the mean of darks of the same exposure and temperature.
    """
    x, y = predicted["signal"].values, held_out["signal"].values
    pull = (y - x) / np.sqrt(predicted["variance"].values + held_out["variance"].values)
    good = np.isfinite(x) & np.isfinite(y) & np.isfinite(pull)
    hot = np.argsort(x[good])[-400:]
    rest = np.arange(int(good.sum()))[:: max(1, int(good.sum()) // 800)]
    dims = (dimension("predicted", "ADU"), dimension("measured", "ADU"))
    ends = np.array([np.percentile(x[good], 0.1), float(x[good].max())])
    left = [
        points(x[good][rest], y[good][rest], dims=dims, label="ordinary pixels", colour=MUTED, size=4, filled=False),
        points(x[good][hot], y[good][hot], dims=dims, label="the 400 hottest", colour=KIND_COLOUR["dark"], size=5),
        line(ends, ends, dims=dims, label="equal", dash="dashed"),
    ]
    along = np.linspace(-5, 5, 101)
    counts, edges = np.histogram(np.clip(pull[good], -5, 5), np.linspace(-5, 5, 81), density=True)
    share = dimension("share of pixels", "per σ")
    axis = dimension("(measured − predicted) / error", "σ")
    middle = (edges[1:] + edges[:-1]) / 2
    right = [
        points(middle, counts, dims=(axis, share), label="pixels", colour=KIND_COLOUR["dark"], size=5),
        line(along, np.exp(-(along**2) / 2) / np.sqrt(2 * np.pi), dims=(axis, share), label="if the errors are right"),
    ]
    return layout(
        [
            panel(left, title="Predicted and measured", log="xy", legend="top_left"),
            panel(right, title=f"What is left: σ = {pull[good].std():.2f}", legend="top_right", ylim=(0, 0.55)),
        ]
    )


def fixed_pattern_words(result: Any) -> Words:
    """Describe the pictures of the fixed patterns of a characterization."""
    told = []
    found = result.uniformity
    if found.bias_pattern is not None:
        told.append(
            f"left the offsets of the pixels in the mean of {int(found.bias_pattern.attrs['frames'])} bias frames"
        )
    if found.flat_pattern is not None:
        told.append(f"right their response in {int(found.flat_pattern.attrs['frames'])} flats")
    return Words(
        f"The middle of the frame without its smooth part, black and white {2 * _WIDTH:g} standard deviations apart: "
        f"{listing(told)}; some of the grain is noise that so few frames leave. Stripes would be rows or columns that "
        f"are read out unlike their neighbours; rings are dust. {source(result)}",
        "Two grainy grey pictures; stripes across them would be rows or columns with an offset or response of their "
        "own.",
    )


def spectrogram_words(result: Any) -> Words:
    """Describe the spectrograms of a characterization."""
    return Words(
        "The fixed patterns taken apart into waves along the rows and along the columns: level lines are a pattern "
        "without order, a peak is one that repeats. Stripes across the rows lift the line along the rows, and the "
        f"other way round. The dashed line is the noise that is left in the mean of these frames. {source(result)}",
        "Noisy, nearly level lines on a logarithmic axis that fall off towards the lowest frequencies, which the "
        "high-pass takes away.",
    )


def uniformity_parts_words(result: Any) -> Words:
    """Describe DSNU and PRNU of a characterization."""
    found, told = result.uniformity, []
    if found.dsnu is not None and np.isfinite(found.dsnu["dsnu"].values).any():
        one = found.dsnu.isel(iso=0).sel(filter="none", part="total")
        told.append(f"DSNU {_mean_of(one, 'dsnu', 'e⁻')}")
    if found.prnu is not None:
        one = found.prnu.sel(filter="highpass", part="total")
        told.append(f"PRNU {_mean_of(one, 'prnu', '%')}")
    numbers = f"Mean of the channels: {listing(told)}. " if told else ""
    return Words(
        "How much the pixels differ, temporal noise removed: in all, and what of it belongs to single pixels, columns "
        f"and rows (EMVA 1288 4.0; PRNU high-passed, DSNU plain). {numbers}Bars: 1σ. {source(result)}",
        "Points for each channel above in all, pixels, columns, rows; single pixels make up nearly all of it.",
    )


def _mean_of(one: xr.Dataset, name: str, unit: str) -> str:
    errors = one[f"{name}_error"].values
    return value_text(float(one[name].mean()), float(np.sqrt((errors**2).sum()) / errors.size), unit)


def defects_words(result: Any) -> Words:
    """Describe the defects of a characterization."""
    found = result.uniformity.defects
    attrs = found.attrs
    counts = listing([f"{count:,} {kind}" for kind, count in attrs["counts"].items()])
    limits = attrs["thresholds"]
    told = []
    if "hot_noise" in limits:
        where = degrees(attrs["temperature"]) if math.isfinite(attrs.get("temperature", math.nan)) else "these darks"
        told.append(
            f"hot: its dark current makes its noise {limits['hot_noise']:g} times its neighbours' in "
            f"{attrs['exposure']:g} s at {where}"
        )
    if "warm_sigmas" in limits:
        told.append(f"warm: {limits['warm_sigmas']:g} robust σ above the median")
    if "dead_response" in limits:
        told.append(f"dead: less than {limits['dead_response']:g} of its neighbours' response")
    if "unstable_excess" in limits:
        told.append(f"unstable: more than {limits['unstable_excess']:g} times the usual variance, and not by chance")
    limits_told = "; ".join(told)
    return Words(
        f"Of {attrs['pixels']:,} pixels {counts}. {limits_told[:1].upper()}{limits_told[1:]}. {source(result)}",
        "Left, one bar for each kind of defect on a logarithmic axis; right, the defects as marks scattered over the "
        "frame.",
    )


def dark_law_words(result: Any) -> Words:
    """Describe the two laws of the dark current of a characterization."""
    law = result.dark_law
    energy = value_text(float(law["activation_energy"]), float(law["activation_energy_error"]), "eV")
    doubling = value_text(float(law["doubling_temperature"]), float(law["doubling_temperature_error"]), "K")
    better = {
        "doubling": "The doubling law fits these darks better. ",
        "arrhenius": "Arrhenius' law fits these darks better. ",
    }.get(law.attrs.get("law", ""), "Two temperatures cannot tell which of the two holds. ")
    return Words(
        f"Dark current over the inverse temperature, with an activation energy of {energy} (straight) and a doubling "
        f"every {doubling} (bent); right, how far each lies from the one that fits better. {better}The two are not the "
        f"same curve: far from the measured temperatures they part. Bars: 1σ. {source(result)}",
        "Left, points on a falling line over 1/kT; right, two curves that part towards both ends, and the points on "
        "one of them.",
    )
