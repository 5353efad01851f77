"""Charts of lights from calibration to the finish: masters, dark, flat, background, star fluxes, stretch."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from ..core.mosaic import planes
from ..core.statistics import mad_std, median_profile
from ..core.values import temperature_text, unit_text, value_text
from . import theme
from .registry import Caption, caption, chart, source
from .theme import COLUMN, INK, KIND_COLOUR, MUTED, ROW, SERIES, UNUSED

LIGHTS = "three or more lights of one target with stars, and their darks, bias and flats"
COUNT, RATIO = theme.dimension("frames in the master"), theme.dimension("over the law σ/√N − 1", "%")
STEP, NOISE = theme.dimension("step"), theme.dimension("noise of a pixel of the sky", "e⁻")
RADIUS = theme.dimension("distance from the centre of vignetting", "px")
SKY = theme.dimension("background", "% of its median")
CHANNEL, LEFT = theme.dimension("channel"), theme.dimension("exponent of the flat left in the lights")
SCREEN, PIXELS = theme.dimension("brightness on the screen", "0 to 1"), theme.dimension("share of the fullest bin")
FLUX, CHANGE = theme.dimension("star's flux before"), theme.dimension("change beyond what was meant", "%")
_VERDICTS = {"flattens": "the flat flattens", "look": "have a look", "fails": "the flat fails"}


def _about_median(mosaic: xr.DataArray) -> xr.DataArray:
    """Subtract from the pixels of each colour of the mosaic their median; colours would show as a checkerboard."""
    values = np.array(mosaic.values, float)
    for _, plane in planes(values, np.arange(4).reshape(2, 2)):
        plane -= np.nanmedian(plane)
    return mosaic.copy(data=values)


def _busiest(hot: np.ndarray, side: int = 96) -> dict[str, slice]:
    """Return the window with the most hot pixels, on whole cells of the mosaic."""
    total = np.pad(hot.astype(int).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    height, width = (min(side, size) for size in hot.shape)
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

    Each colour of the mosaic is shown about its own median.  Of a larger part the corner with the most hot pixels is
    shown, so that single pixels can be seen.

    Parameters
    ----------
    subtraction
        From `sensor.dark_subtraction`: ``before`` and ``after`` over (y, x).
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
def dark_subtraction_caption(result: Any) -> Caption:
    """Describe the dark subtraction."""
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
        f"{frame} ({attrs['filename']}; {attrs['exposure']:g} s, ISO {attrs['iso']:g}, "
        f"{temperature_text(attrs['temperature'])}) before and after a master of {attrs['darks']} darks is subtracted, "
        f"and that master, on one grey scale: the part with the most hot pixels. Of {master.shape[1]} x "
        f"{master.shape[0]} pixels around it, {int(_hot(master).sum())} are more than 10 robust σ above the master's "
        f"median, and disappear; {rest}. {source(result)}",
        "Three pictures of the same part of a frame: the frame with bright dots, the hot pixels; the master dark, "
        "which holds only those; the frame without them.",
    )


def master_noise(found: xr.Dataset, *, light: float | None = None) -> hv.Layout:
    """Chart the noise of masters against the number of their frames, with the law σ/√N, and how far from it.

    Parameters
    ----------
    found
        From `calibrate.master_noise`.
    light
        Noise of one light in the same unit, drawn as a line.
    """
    unit = {"1": "%", "adu": "ADU"}[found["noise"].attrs["units"]]
    times = 100.0 if unit == "%" else 1.0
    dims = (COUNT, theme.dimension(f"noise of the master {found.attrs['kind']}", unit))
    count = found["count"].values.astype(float)
    along = np.geomspace(count[0], 4 * count[-1], 30)
    law = times * float(np.sqrt((found["law"][:, 0] ** 2).mean())) * np.sqrt(count[0] / along)
    around = (count[0] / 1.3, 1.3 * count[-1])
    left: list[Any] = [theme.line(along, law, dims=dims, label="one frame's over √N", dash="dashed")]
    right: list[Any] = [theme.level(0, around, dims=(COUNT, RATIO), dash="dashed")]
    for number, channel in enumerate(found["channel"].values.astype(str)):
        one = found.sel(channel=channel)
        shift = count * (1 + 0.03 * (number - (found.sizes["channel"] - 1) / 2))
        noise, error, law = (times * one[name].values for name in ("noise", "noise_error", "law"))
        left.append(theme.channel_points(channel, count, noise, error, dims=dims, size=8))
        deviation, bars = 100 * (noise / law - 1), 100 * error / law
        right.append(theme.channel_points(channel, shift, deviation, bars, dims=(COUNT, RATIO), size=8))
    claimed = times * np.sqrt((found["claimed"].values ** 2).mean(axis=0))
    label = "by the master's own variance"
    left.append(theme.points(count, claimed, dims=dims, label=label, colour=INK, marker="cross", size=9))
    if light is not None:
        left.append(
            theme.level(light * times, along, dims=dims, label="one light", colour=KIND_COLOUR["light"], width=2)
        )
    reach = max(3.0, 1.4 * float(np.abs(100 * (found["noise"] / found["law"] - 1)).max()))
    ticks = [(int(value), f"{int(value)}") for value in (*count, 2 * count[-1], 4 * count[-1])]
    wide = {"log": "xy", "xticks": ticks, "xlim": (0.85 * along[0], 1.1 * along[-1])}
    narrow = {"log": "x", "xticks": ticks[:-2], "xlim": around, "ylim": (-reach, reach)}
    return theme.layout(
        [
            theme.panel(left, title="Noise of the master", legend="bottom_left", **wide),
            theme.panel(right, title="Measured against √N", legend="top_left", **narrow),
        ]
    )


def calibration_steps(steps: xr.Dataset, noise: xr.Dataset) -> hv.Layout:
    """Chart a piece of a light as read and calibrated, and its noise after each step, measured and predicted.

    Parameters
    ----------
    steps, noise
        From `calibrate.calibration_steps` and `calibrate.step_noise`.
    """
    names = [str(name) for name in noise["step"].values]
    place = np.arange(len(names), dtype=float)
    elements: list[Any] = []
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
    return theme.layout([*_pieces(steps), theme.panel(elements, title="Measured, and predicted (lines)", **scales)])


def _pieces(steps: xr.Dataset) -> list[hv.Overlay]:
    """Show the window with the most hot pixels, as read and at the end, on one grey scale."""
    window = _busiest(steps["mask"].values & 1 > 0)
    bare = steps["signal"].drop_vars(("y", "x"), errors="ignore").isel(step=[0, -1])
    shown = [_about_median(one).assign_coords(_pixel_centres(one)).isel(window) for one in bare]
    middle, spread = float(np.nanmedian(shown[1])), float(mad_std(shown[1].values))
    style = {"value": theme.dimension("about the median", "e⁻"), "limits": (middle - 3 * spread, middle + 8 * spread)}
    titles = ("As read", "Calibrated")
    return [theme.image_panel(one, title, label=title, **style) for one, title in zip(shown, titles, strict=True)]


def _pixel_centres(data: xr.DataArray) -> dict[str, np.ndarray]:
    return {dim: np.arange(data.sizes[dim]) + 0.5 for dim in ("y", "x")}


@chart(
    "flat-correction", "Does the flat flatten?", "Flats", needs=("lights.audit",),
    shoot=f"flats through the telescope as it is, and {LIGHTS}",
)  # fmt: skip
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
    elements: list[Any] = []
    for name, label, colour, marker in (
        ("raw_background", "without the flat", SERIES[1], "square"),
        ("background", "with the flat", SERIES[0], "circle"),
    ):
        middle, rings, error = median_profile(radius, 100 * one[name].values, edges)
        elements.append(theme.line(middle, rings, dims=(RADIUS, SKY), colour=colour, width=1.2))
        elements.append(
            theme.points(middle, rings, error, dims=(RADIUS, SKY), label=label, colour=colour, marker=marker)
        )
    middle, rings, _ = median_profile(radius, one["response"].values, edges)
    response = 100 * rings / np.median(one["response"].values)
    elements.append(
        theme.line(middle, response, dims=(RADIUS, SKY), label="the flat itself", dash="dashed", colour=MUTED)
    )
    title = f"From the centre outwards ({green}): {_VERDICTS[audit.attrs['verdict']]}"
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
def flat_correction_caption(result: Any) -> Caption:
    """Describe the audit of the flat."""
    audit = result.lights.audit
    k, error = audit["correction"].values, audit["correction_error"].values
    good = np.isfinite(k) & (error > 0)
    left = ""
    if good.any():
        weight = 1 / error[good] ** 2
        mean = value_text(float((weight * k[good]).sum() / weight.sum()), float(weight.sum() ** -0.5))
        left = (
            f"By the pixels' own response, {mean} of the flat is left (0: correct; 1: no flat applied; −1: applied "
            "twice). "
        )
    return Caption(
        f"Does the flat flatten? Background of {audit.attrs['lights']} lights before and after a master of "
        f"{audit.attrs['frames']} flats. {left}Findings: {'; '.join(audit.attrs['findings'])}. {source(result)}",
        "Left: without the flat the background falls from the centre to the corners. Right: a map of what is left. "
        f"Verdict: {_VERDICTS[audit.attrs['verdict']]}.",
    )


def flat_left(audit: xr.Dataset) -> hv.Layout:
    """Chart the exponent k of the flat that stays in the lights, from single pixels and from the smooth background.

    Parameters
    ----------
    audit
        From `calibrate.audit_flat` with lights.
    """
    dims = (CHANNEL, LEFT)
    names = audit["channel"].values.astype(str)
    place = np.arange(names.size, dtype=float)
    ends = (-0.6, names.size - 0.4)
    elements: list[Any] = [theme.level(0, ends, dims=dims, dash="dashed", label="correct: nothing left")]
    for name, label, colour, marker, shift in (
        ("correction", "from the pixels' own response", SERIES[0], "circle", -0.08),
        ("smooth_correction", "from the smooth background (nebulae too)", SERIES[4], "square", 0.08),
    ):
        value, error = audit[name].values, audit[f"{name}_error"].values
        look = {"label": label, "colour": colour, "marker": marker, "size": 9}
        elements.append(theme.points(place + shift, value, error, dims=dims, **look))
    reach = max(0.3, 1.35 * max(float(np.nanmax(np.abs(audit[name]))) for name in ("correction", "smooth_correction")))
    verdict = f"verdict: {_VERDICTS[audit.attrs['verdict']]}"
    elements.append(theme.note(-0.5, -0.93 * reach, verdict, dims=dims, size=13))
    scales = {"xticks": list(zip(place.tolist(), names.tolist(), strict=True)), "xlim": ends}
    title = "How much of the flat is left"
    return theme.layout([theme.panel(elements, title=title, legend="top_left", ylim=(-reach, 1.6 * reach), **scales)])


def background(model: xr.Dataset, channel: str | None = None) -> hv.Layout:
    """Chart the light between the stars, cell by cell, and the surface that was laid through the empty sky.

    Cells that count as empty sky are marked, those full of stars are grey.  Both pictures have one scale.

    Parameters
    ----------
    model
        From `finish.background_model`.
    channel
        Which to show; the middle one by default.
    """
    names = model["channel"].values.tolist()
    number = len(names) // 2 if channel is None else names.index(channel)
    cells = model["sky_level"].isel(channel=number).rename(cell_y="y", cell_x="x")
    y, x = (cells[dim].values for dim in ("y", "x"))
    surface = model["background"].isel(channel=number).interp(y=y, x=x).assign_coords(y=y, x=x)
    seen = cells.values[np.isfinite(cells.values)]
    limits = (float(min(seen.min(), surface.min())), float(np.quantile(seen, 0.999)))
    value = theme.dimension(f"light between the stars, {names[number]}", _unit(model.attrs["units"]))
    style = {"value": value, "limits": limits, "cmap": "viridis"}
    title = f"The model: {model.attrs['method']}"
    marks = _marks(cells, model["is_sky"].values)
    left = theme.image_panel(cells, "Between the stars", label="Between the stars", over=marks, **style)
    return theme.layout([left, theme.image_panel(surface, title, label=title, **style)])


def _marks(cells: xr.DataArray, is_sky: np.ndarray) -> list[Any]:
    """Draw grey boxes over the cells without a level, and dots on those that show nothing but sky."""
    y, x = (cells[dim].values.astype(float) for dim in ("y", "x"))
    half_y, half_x = ((axis[1] - axis[0]) / 2 if axis.size > 1 else 0.5 for axis in (y, x))
    marks: list[Any] = []
    rows, columns = np.nonzero(~np.isfinite(cells.values))
    if rows.size:
        corners = np.stack([x[columns], y[rows]] * 2, 1) + np.array([-half_x, -half_y, half_x, half_y])
        marks.append(theme.boxes(corners, fill=UNUSED, edge=UNUSED))
    rows, columns = np.nonzero(is_sky)
    if rows.size:
        look = {"label": "empty sky", "colour": SERIES[1], "size": 2.5}
        marks.append(theme.points(x[columns], y[rows], dims=(COLUMN, ROW), **look))
    return marks


def star_fluxes(check: xr.Dataset, title: str = "Star fluxes through the step") -> hv.Layout:
    """Chart how much each star's flux deviates from what a step was meant to do to it, with its error.

    Parameters
    ----------
    check
        From `finish.check_photometry`.
    """
    dims = (FLUX.clone(unit=_unit(check["flux_before"].attrs.get("units", ""))), CHANGE)
    allowed = 100 * float(check.attrs["tolerance"])
    flux, deviation, error = (check[name].values for name in ("flux_before", "deviation", "uncertainty"))
    good = np.isfinite(deviation).all(axis=1) & (flux > 0).all(axis=1)
    low, high = (float(np.nanmin(flux[good])), float(np.nanmax(flux[good]))) if good.any() else (1.0, 10.0)
    along, label = np.array([0.8 * low, 1.25 * high]), f"{allowed:.1g} % allowed"
    elements: list[Any] = [theme.band(along, [-allowed] * 2, [allowed] * 2, dims=dims, label=label, colour=MUTED)]
    for number, name in enumerate(check["channel"].values.astype(str)):
        change, bars = 100 * deviation[good, number], 100 * error[good, number]
        elements.append(theme.channel_points(name, flux[good, number], change, bars, dims=dims, size=5))
    reach = max(2 * allowed, 110 * float(np.nanmax(np.abs(deviation[good]), initial=0.0)))
    return theme.layout([theme.panel(elements, title=title, log="x", ylim=(-reach, reach), legend="bottom_right")])


def stretch_before(counts: xr.Dataset, levels: np.ndarray, screen: np.ndarray) -> hv.Overlay:
    """Chart the histogram of a linear picture and, over it, the curve that takes it to the screen.

    Parameters
    ----------
    counts
        From `finish.histogram`, of the linear picture.
    levels, screen
        The curve: brightness before, in the picture's units, and after, 0 to 1.
    """
    dims = (theme.dimension("brightness before", _unit(counts["level"].attrs.get("units", ""))), PIXELS)
    curve = theme.line(levels, screen, dims=dims, label="the stretch", dash="dashed", width=2.2)
    return theme.panel([*_curves(counts, dims), curve], title="Before: linear", legend="bottom_right", ylim=(0, 1.05))


def stretch_after(counts: xr.Dataset) -> hv.Overlay:
    """Chart the histogram of a stretched picture; `counts` from `finish.histogram`."""
    return theme.panel(_curves(counts, (SCREEN, PIXELS)), title="After: on the screen", xlim=(0, 1), ylim=(0, 1.05))


def _unit(units: str) -> str | None:
    return "share of full scale" if units == "1" else unit_text(units) or None


def _curves(counts: xr.Dataset, dims: tuple[hv.Dimension, hv.Dimension]) -> list[Any]:
    """One line a channel, the fullest bin of all at 1; the outermost bins, which hold what is clipped, do not count."""
    top = float(counts["count"].values[:, 1:-1].max(initial=1))
    return [
        theme.line(
            counts["level"].values,
            np.minimum(row / top, 1.02),
            dims=dims,
            label=name,
            colour=theme.channel_colour(name),
        )
        for name, row in zip(counts["channel"].values.astype(str), counts["count"].values, strict=True)
    ]
