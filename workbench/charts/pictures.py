"""Pictures before and after a step: the flat, the alignment, the stack, the background, the stretch, the finish."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr
from PIL import Image

from ..core.statistics import mad_std
from ..core.values import value_text
from . import theme
from .lights import LIGHT, LIGHTS
from .registry import Caption, caption, chart, source
from .theme import COLUMN, ROW, channel_colour

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
