"""Pictures before and after a step: the flat, the alignment, the stack, the background, the stretch, the finish.

Over a solved picture names, grid, scale bar and north: a HoloViews overlay, or drawn into a copy of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import holoviews as hv
import matplotlib as mpl
import numpy as np
import xarray as xr
from PIL import Image, ImageDraw, ImageFont

from ..core.statistics import mad_std
from ..core.values import value_text
from . import theme
from .lights import LIGHT, LIGHTS
from .registry import Caption, caption, chart, source
from .theme import COLUMN, ROW, channel_colour, styled

BRIGHTNESS, SHOWN = theme.dimension("brightness in the linear picture", "e⁻"), theme.dimension("brightness shown")
REMOVED = theme.dimension("removed", "e⁻")
COLOURS = 256  # of a picture in colour: one byte a pixel on the page


def _grey(pictures: dict[str, np.ndarray], titles: dict[str, str], limits: tuple[float, float]) -> list:
    """Pictures (y, x) side by side on one grey scale."""
    style = {"value": LIGHT, "limits": limits}
    return [theme.image_panel(_axes(pictures[name]), titles[name], label=name, **style) for name in titles]


def _axes(values: np.ndarray) -> xr.DataArray:
    return xr.DataArray(np.where(np.isfinite(values), values, np.nanmedian(values)), dims=("y", "x"))


def _scale(picture: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Limits of a grey scale: so many robust σ below and above a picture's median."""
    middle, spread = float(np.nanmedian(picture)), float(mad_std(picture[np.isfinite(picture)]))
    return middle - low * spread, middle + high * spread


def colour_panel(
    levels: np.ndarray, title: str, label: str = "", *, size: tuple[int, int] | None = None, over: Any = ()
) -> hv.Overlay:
    """Show a picture in colour (channel, y, x), from 0 to 1, in a palette of its own; of one channel in grey.

    `size` (y, x) is that of the whole picture, whose pixels the axes count, where this is a reduced one; `over` are
    elements that lie over it.
    """
    eight = np.round(255 * np.clip(np.nan_to_num(levels), 0, 1)).astype(np.uint8)
    rows, columns = eight.shape[1:]
    picture = Image.fromarray(np.ascontiguousarray(np.moveaxis(np.broadcast_to(eight, (3, rows, columns)), 0, -1)))
    reduced = picture.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG)
    table = np.zeros((COLOURS, 3), int)
    found = np.reshape(reduced.getpalette() or [], (-1, 3))
    table[: len(found)] = found
    palette = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in table]
    rows, columns = size or (rows, columns)
    style = {"dims": (COLUMN, ROW), "value": theme.dimension("colour"), "cmap": palette, "bar": False}
    image = theme.picture(
        np.asarray(reduced)[::-1], (0, 0, columns, rows), limits=(0, COLOURS - 1), label=label, **style
    )
    return theme.frame_panel([image, *over], title, (0, 0, columns, rows))


@chart(
    "flat-before-after", "A light before and after its flat", "Flats", needs=("lights.flattened",), numbers=False,
    shoot="a light and its flats, with their bias or dark flats",
)  # fmt: skip
def flat_before_after(pair: xr.Dataset) -> hv.Layout:
    """Chart a whole light without and with its flat, on one grey scale: ``before`` and ``after`` (y, x) [e⁻]."""
    pictures = {name: pair[name].values for name in ("before", "after")}
    titles = {"before": "Bias and dark subtracted", "after": "Divided by the master flat"}
    low, high = np.nanpercentile(pictures["before"], 2), np.nanpercentile(pictures["after"], 98)
    return theme.layout(_grey(pictures, titles, (float(low), float(high))))


@caption(flat_before_after)
def _flat_before_after_caption(result: Any) -> Caption:
    pair = result.lights.flattened
    share = {}
    for name in ("before", "after"):
        values = pair[name].values
        height, width = (size // 6 for size in values.shape)
        edges = [values[:height, :width], values[:height, -width:], values[-height:, :width], values[-height:, -width:]]
        middle = values[2 * height : -2 * height, 2 * width : -2 * width]
        share[name] = 100 * np.mean([np.nanmedian(part) for part in edges]) / np.nanmedian(middle)
    return Caption(
        f"A light ({pair.attrs['filename']}) zoomed out, before and after the flat-field correction, one grey scale. "
        f"The sky in the corners is {share['before']:.0f} % of the sky in the middle before, {share['after']:.0f} % "
        f"after. {source(result)}",
        "Two pictures of a whole frame: the left one dark towards its corners, the right one even.",
    )


@chart("alignment-before-after", "Unaligned, and aligned", "Alignment", needs=("lights.together",), numbers=False,
       shoot=LIGHTS)  # fmt: skip
def alignment_before_after(pair: xr.Dataset) -> hv.Layout:
    """Chart the mean of the lights as they came and aligned, on one grey scale.

    `pair` has ``unaligned`` and ``aligned`` (y, x) [e⁻], and ``frames`` in attrs.
    """
    pictures = {name: pair[name].values for name in ("unaligned", "aligned")}
    count = pair.attrs["frames"]
    titles = {"unaligned": f"{count} lights averaged as they came", "aligned": f"The same {count}, aligned first"}
    return theme.layout(_grey(pictures, titles, _scale(pictures["aligned"], 2, 12)))


@caption(alignment_before_after)
def _alignment_before_after_caption(result: Any) -> Caption:
    pair = result.lights.together
    peak = {name: float(np.nanpercentile(pair[name].values, 99.9)) for name in ("unaligned", "aligned")}
    return Caption(
        f"The mean of {pair.attrs['frames']} lights without and with alignment, on one grey scale. Between the frames "
        "the mount drifts: without alignment every star is smeared or doubled, and its light is spread out (the "
        f"brightest thousandth of the pixels begins at {value_text(peak['unaligned'])} e⁻, aligned at "
        f"{value_text(peak['aligned'], unit='e⁻')}). {source(result)}",
        "Two pictures of the same stars: smeared on the left, points on the right.",
    )


@chart("stack-before-after", "One light, and the stack", "Stacking", needs=("lights.pair",), shoot=LIGHTS)
def stack_before_after(pair: xr.Dataset) -> hv.Layout:
    """Chart one calibrated light and the stack, on one grey scale.

    Parameters
    ----------
    pair
        ``light`` and ``stack`` (y, x) [e⁻], with ``frames`` in attrs (from `stack.before_after`).
    """
    pair = pair.assign_coords(x=pair["x"] + 0.5, y=pair["y"] + 0.5)
    middle, spread = float(np.nanmedian(pair["stack"].values)), float(mad_std(pair["light"].values))
    style = {"value": LIGHT, "limits": (middle - 2 * spread, middle + 5 * spread)}
    titles = {"light": "One calibrated light", "stack": f"{pair.attrs['frames']} lights stacked"}
    return theme.layout(theme.image_panel(pair[name], title, label=name, **style) for name, title in titles.items())


@caption(stack_before_after)
def _stack_before_after_caption(result: Any) -> Caption:
    attrs = result.lights.pair.attrs
    return Caption(
        f"The same piece of sky in one calibrated light and in the stack of {attrs['frames']}, {attrs['channel']} "
        f"channel, on the same grey scale. The noise of a pixel falls from {attrs['light_noise']:.1f} to "
        f"{attrs['stack_noise']:.1f} e⁻; what was in one frame only is gone. {source(result)}",
        "Two pictures of the same stars and nebula: the left grainy, the right smooth, with fainter stars visible.",
    )


@chart("background-before-after", "The background, before and after", "Post-processing", needs=("lights.finished",),
       numbers=False, shoot=LIGHTS)  # fmt: skip
def background_before_after(steps: xr.Dataset) -> hv.Layout:
    """Chart the linear stack before and after the background's gradient is subtracted, and what is subtracted.

    `steps` comes from `pipelines.finishing.finished_steps`; of three channels green is shown.
    """
    channel = "G" if "G" in steps["channel"].values else steps["channel"].values[0]
    one = steps.sel(channel=channel)
    pictures = {"before": one["stack"].values, "after": (one["stack"] - one["background"]).values}
    titles = {"before": "The stack", "after": "Background subtracted"}
    panels = _grey(pictures, titles, _scale(pictures["after"], 4, 8))
    gone = one["background"].values
    reach = max(float(np.nanmax(np.abs(gone))), 0.1)
    style = {"value": REMOVED, "limits": (-reach, reach), "cmap": "viridis", "label": "removed"}
    return theme.layout([*panels, theme.image_panel(_axes(gone), "What was subtracted", **style)])


@caption(background_before_after)
def _background_before_after_caption(result: Any) -> Caption:
    steps = result.lights.finished
    spans = []
    for channel in steps["channel"].values:
        gone = steps["background"].sel(channel=channel).values
        spans.append(f"{channel} {np.nanmax(gone) - np.nanmin(gone):.0f} e⁻")
    return Caption(
        f"The stack of {steps.attrs['frames']} lights before and after the gradient of the sky is subtracted, on one "
        f"grey scale, and what was subtracted ({', '.join(spans)} from end to end). The mean level stays. "
        f"{source(result)}",
        "Three pictures: a stack that is brighter on one side, the same with an even sky, and a smooth surface.",
    )


@chart("stretch", "From linear to stretched", "Post-processing", needs=("lights.finished",), shoot=LIGHTS)
def stretch_chart(steps: xr.Dataset) -> hv.Layout:
    """Chart the linear picture's histogram with the curve that stretches it, and the picture before and after.

    `steps` comes from `pipelines.finishing.finished_steps`.
    """
    level = steps["level"].values
    counts = steps["count"].values
    most = counts.max()
    elements: list[Any] = []
    for number, channel in enumerate(steps["channel"].values.astype(str)):
        heights = counts[number] / most
        elements.append(theme.line(level, heights, dims=(BRIGHTNESS, SHOWN), label=f"pixels, {channel}",
                                   colour=channel_colour(channel), width=1.4))  # fmt: skip
    elements.append(theme.line(level, steps["curve"].values, dims=(BRIGHTNESS, SHOWN), label="the curve", width=2.4))
    span = (float(level[0]), float(level[-1]))
    left = theme.panel(elements, title="Histogram, and the curve", xlim=span, ylim=(0, 1.04), legend="bottom_right")
    linear = steps["linear"].values
    low, high = float(np.nanpercentile(linear, 1)), float(np.nanpercentile(linear, 99.95))
    return theme.layout([
        left,
        colour_panel((linear - low) / (high - low), "Linear", "linear"),
        colour_panel(steps["finished"].values, "Stretched", "stretched"),
    ])  # fmt: skip


@caption(stretch_chart)
def _stretch_chart_caption(result: Any) -> Caption:
    steps = result.lights.finished
    linear = steps["linear"].values
    top = float(np.nanpercentile(linear, 99.95))
    share = 100 * np.mean(linear[np.isfinite(linear)] < 0.1 * top)
    return Caption(
        f"Left: the histogram of the linear picture, its highest point at 1, and the curve ({steps.attrs['stretch']}) "
        f"that gives each brightness its place between black and white. {share:.0f} % of the pixels lie in the lowest "
        f"tenth of the linear scale, where the eye sees black. Middle: the linear picture. Right: the same numbers "
        f"through the curve. {source(result)}",
        "A narrow histogram near zero with a curve that rises steeply there and flattens; a nearly black picture with "
        "a few stars; the same picture with the nebula visible.",
    )


@chart("finished-steps", "Linear, stretched, finished", "Post-processing", needs=("lights.finished",), numbers=False,
       shoot=LIGHTS)  # fmt: skip
def finished_steps_chart(steps: xr.Dataset) -> hv.Layout:
    """Chart the stack as it is, stretched as it is, and finished: background, colour and stretch.

    `steps` comes from `pipelines.finishing.finished_steps`.
    """
    raw = steps["stack"].values
    low, high = float(np.nanpercentile(raw, 1)), float(np.nanpercentile(raw, 99.95))
    return theme.layout([
        colour_panel((raw - low) / (high - low), "The stack, linear", "linear"),
        colour_panel(steps["stretched"].values, "Stretched, nothing else", "stretched"),
        colour_panel(steps["finished"].values, "Background, colour, stretch", "finished"),
    ])  # fmt: skip


@caption(finished_steps_chart)
def _finished_steps_caption(result: Any) -> Caption:
    steps = result.lights.finished
    return Caption(
        f"The stack of {steps.attrs['frames']} lights as a screen shows it, with the stretch alone, and finished: the "
        "sky's gradient subtracted, the colours balanced, the sky made neutral, then stretched. Defaults, nothing set "
        f"by hand. {source(result)}",
        "Three pictures of one field: nearly black; visible, but tinted and uneven; finished, its sky neutral.",
    )


OBJECT, STAR, GRID, WHITE = "#ffd166", "#8ecae6", "#5f7d99", "#ffffff"
_SHOWN = 1000  # px of the longer side of a picture on a page
_RIM = 12.0  # px: least half-axis of an object's ellipse, and distance of a star's name


def _ellipses(names: Any) -> list[np.ndarray]:
    """Outlines (n, 2) [px] of the objects, y down."""
    turn = np.linspace(0, 2 * np.pi, 73)
    outlines = []
    for row in names.labels[names.labels["kind"] == "object"].itertuples():
        a, b = max(row.width / 2, _RIM), max(row.height / 2, _RIM)
        angle = np.radians(row.angle)
        u, v = a * np.cos(turn), b * np.sin(turn)
        across = row.x + u * np.cos(angle) - v * np.sin(angle)
        down = row.y + u * np.sin(angle) + v * np.cos(angle)
        outlines.append(np.stack([across, down], axis=1))
    return outlines


def _marks(names: Any) -> dict[str, list[np.ndarray]]:
    """The scale bar and the two arrows from the lower left corner, as lines (n, 2) [px], y down."""
    height, width = names.shape
    left, low = 0.04 * width, 0.95 * height
    bar = np.array([[left, low], [left + names.bar[0], low]])
    at, size = np.array([0.92 * width, 0.9 * height]), 0.06 * min(names.shape)
    return {"bar": [bar], "N": [np.stack([at, at + size * np.array(names.north)])],
            "E": [np.stack([at, at + size * np.array(names.east)])]}  # fmt: skip


def names_overlay(names: Any, *, grid: bool = True) -> hv.Overlay:
    """Return names, ellipses, grid, scale bar and north as an overlay for a picture whose first row is at the top.

    Its axes are those of `colour_panel`: pixel 0 runs from 0 to 1, rows are counted downwards.

    Parameters
    ----------
    names
        From `workbench.stars.names_on`.
    """
    dims = [COLUMN, ROW]

    def shown(lines: list[np.ndarray], colour: str, width: float, **style: Any) -> hv.Path:
        return styled(hv.Path([line + 0.5 for line in lines], kdims=dims), color=colour, line_width=width, **style)

    def words(rows: list[tuple[float, float, str]], colour: str, size: str) -> hv.Labels:
        moved = [(x + 0.5, y + 0.5, text) for x, y, text in rows]
        return styled(hv.Labels(moved, kdims=dims, vdims=["name"]), text_color=colour, text_font_size=size, **middle)

    middle = {"text_baseline": "middle", "text_align": "center"}
    labels = names.labels
    objects, stars = (labels[labels["kind"] == kind] for kind in ("object", "star"))
    marks = _marks(names)
    parts: list[Any] = []
    if grid and names.grid:
        parts.append(shown([line for line, _ in names.grid], GRID, 1, alpha=0.5))
        parts.append(words([(*line[len(line) // 2], text) for line, text in names.grid], GRID, "11px"))
    parts.append(shown(_ellipses(names), OBJECT, 1.5))
    below = np.maximum(objects["height"].fillna(0) / 2, _RIM) + _RIM
    parts.append(words(list(zip(objects["x"], objects["y"] + below, objects["label"], strict=True)), OBJECT, "13px"))
    parts.append(words(list(zip(stars["x"], stars["y"] + 1.5 * _RIM, stars["label"], strict=True)), STAR, "11px"))
    parts.append(shown([line for lines in marks.values() for line in lines], WHITE, 2))
    ends = [(*marks[name][0][1], name) for name in ("N", "E")]
    parts.append(words([*ends, (*marks["bar"][0].mean(axis=0) - [0, _RIM], names.bar[1])], WHITE, "13px"))
    return hv.Overlay(parts)


def named_picture(levels: np.ndarray, names: Any, title: str = "") -> hv.Overlay:
    """Show a finished picture (channel, y, x) from 0 to 1, reduced for the screen, with its names over it."""
    step = max(max(names.shape) // _SHOWN, 1)
    return colour_panel(levels[:, ::step, ::step], title, size=names.shape, over=names_overlay(names))


def draw_names(values: np.ndarray, names: Any, *, grid: bool = True) -> np.ndarray:
    """Return a copy of a picture, uint8 (y, x, 3) or (y, x), with its names drawn in; uint8 (y, x, 3)."""
    colour = np.repeat(values[..., None], 3, axis=2) if values.ndim == 2 else values
    image = Image.fromarray(np.ascontiguousarray(colour))
    draw = ImageDraw.Draw(image)
    size = max(min(names.shape) / 60, 10.0)
    face = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"  # Pillow's own lacks the minute's sign
    font, small = (ImageFont.truetype(face, share * size) for share in (1.0, 0.8))
    width = max(round(size / 12), 1)

    def line(points: np.ndarray, ink: str, thick: int = width) -> None:
        draw.line([tuple(point) for point in points.tolist()], fill=ink, width=thick)

    def word(x: float, y: float, text: str, ink: str, letters: Any = font) -> None:
        draw.text((x, y), text, fill=ink, font=letters, anchor="mm", stroke_width=width, stroke_fill="black")

    if grid:
        for points, text in names.grid:
            line(points, GRID, 1)
            word(*points[len(points) // 2], text, GRID, small)
    for outline in _ellipses(names):
        line(outline, OBJECT)
    for row in names.labels.itertuples():
        half = max(row.height / 2, _RIM) if row.kind == "object" else 0.5 * _RIM
        ink, letters = (OBJECT, font) if row.kind == "object" else (STAR, small)
        word(row.x, min(row.y + half + size, names.shape[0] - size), row.label, ink, letters)
    marks = _marks(names)
    for name, lines in marks.items():
        line(lines[0], WHITE, 2 * width)
        if name != "bar":
            tip, along = lines[0][1], lines[0][1] - lines[0][0]
            word(*(tip + 0.6 * size * along / np.hypot(*along)), name, WHITE)
    word(*(marks["bar"][0].mean(axis=0) - [0, size]), names.bar[1], WHITE)
    return np.asarray(image)
