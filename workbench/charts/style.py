"""The house style: colours and markers, bokeh's options in matplotlib's names, what HoloViews has no option for."""

from __future__ import annotations

import math
from typing import Any

import holoviews as hv
import numpy as np

INK, MUTED, GRID, PAPER = "#1f2933", "#5b6875", "#e4e9ee", "#ffffff"
REFERENCE, UNUSED = "#b07d2b", "#aab4be"

CHANNEL_COLOUR = {"R": "#d55e00", "G1": "#009e73", "G2": "#8bc34a", "G": "#009e73", "B": "#0072b2", "mono": "#4d4d4d"}
KIND_COLOUR = {"light": "#e69f00", "dark": "#54478c", "bias": "#cc79a7", "flat": "#56b4e9"}
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#54478c", "#6b6b6b")

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

_RAMP = ("#6a4fd8", "#a43a94", "#c8456c", "#ee7b51", "#e9ae2f")  # cold to warm, on white and on black


def ramp(count: int) -> list[str]:
    """Return colours from cold to warm for ordered series, such as temperatures.

    Examples
    --------
    >>> ramp(3)
    ['#6a4fd8', '#c8456c', '#e9ae2f']
    """
    stops = np.array([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in _RAMP])
    places = np.linspace(0, len(_RAMP) - 1, count)
    mixed = [np.interp(places, np.arange(len(_RAMP)), stops[:, part]).round().astype(int) for part in range(3)]
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in zip(*mixed, strict=True)]


# a marker's shape: bokeh's name, matplotlib's, and by how much bokeh draws it too small
MARKER = {
    "circle": ("circle", "o", 1.0), "square": ("square", "s", 1.0), "triangle": ("triangle", "^", 1.0),
    "inverted_triangle": ("inverted_triangle", "v", 1.0), "diamond": ("diamond", "D", 1.4),
    "cross": ("x", "X", 1.2), "star": ("star", "*", 1.0),
}  # fmt: skip
MARKER |= {"R": MARKER["square"], "G": MARKER["triangle"], "G1": MARKER["triangle"], "B": MARKER["circle"]}
MARKER |= {"G2": MARKER["inverted_triangle"], "mono": MARKER["circle"]}
_SHAPE = {name: (shape, scale) for name, shape, scale in MARKER.values()}  # by bokeh's name

# matplotlib's names where they differ from bokeh's, in general and for some kinds of element; None where it has none
_NAMES = {
    "fill_color": "facecolor", "fill_alpha": "alpha", "line_color": "edgecolor", "line_width": "linewidth",
    "line_dash": "linestyle", "line_alpha": None, "text_color": "color", "text_align": "horizontalalignment",
    "text_baseline": "verticalalignment", "text_font_size": "size", "size": "s", "tools": None, "hooks": None,
    "upper_head": None, "lower_head": None, "colorbar_opts": None, "colorbar_position": None,
}  # fmt: skip
_OWN_NAMES = {
    hv.Scatter: {"fill_color": "facecolors", "line_color": "edgecolors"},
    hv.ErrorBars: {"line_width": "elinewidth"},
    hv.Bars: {"fill_color": None, "line_color": None},
}
_POINTS = {hv.Curve: 1.0, hv.ErrorBars: 0.93, hv.Segments: 0.9}  # a line's width in points over that in px; else 0.8
_DASH = {"solid": "-", "dashed": "--", "dotted": ":", "dotdash": "-."}
_ALSO: dict[type, dict[str, Any]] = {
    hv.ErrorBars: {"capsize": 0},
    hv.Area: {"show_legend": True},
    hv.Image: {"interpolation": "nearest", "aspect": "equal"},
}


def matplotlib_options(element: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return matplotlib's options of an element for those written in bokeh's names."""
    kind = type(element)
    names = _NAMES | _OWN_NAMES.get(kind, {})
    made = {names.get(name, name): value for name, value in options.items() if names.get(name, name)}
    made |= _ALSO.get(kind, {})
    if kind is hv.Scatter:
        made["marker"], scale = _SHAPE[options["marker"]]
        made["s"] = 0.55 * (options["size"] / scale) ** 2
    elif kind is hv.Labels:
        made["size"] = 0.8 * float(options["text_font_size"].removesuffix("px"))
        made["verticalalignment"] = {"middle": "center"}.get(options["text_baseline"], options["text_baseline"])
    elif kind is hv.Image:
        made["clabel"] = element.vdims[0].pprint_label
    elif kind in (hv.Area, hv.Polygons):
        made["color"] = options["fill_color"]
    if options.get("line_alpha") == 0:
        made["edgecolor"] = "none"
    if "line_dash" in options:
        made["linestyle"] = _DASH[options["line_dash"]]
    for name in ("linewidth", "elinewidth"):
        if name in made:
            made[name] *= _POINTS.get(kind, 0.8)
    return made


def in_eight_bits(plot, _element) -> None:
    """Send a picture as 8 bits a pixel; the colour bar keeps the true scale."""
    glyph, source, bar = plot.handles["glyph"], plot.handles["source"], plot.handles.get("colorbar")
    scale = plot.handles["color_mapper"]
    source.data["image"] = [eight_bits(source.data["image"][0], scale.low, scale.high)]
    if bar is not None:
        bar.color_mapper = type(scale)(palette=scale.palette, low=scale.low, high=scale.high)
    glyph.color_mapper = type(scale)(palette=scale.palette, low=0, high=255)


def eight_bits(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return values from low to high as 0 to 255, beyond them the nearer of the two."""
    level = (np.asarray(values, float) - low) / (high - low or 1.0)
    return np.nan_to_num(np.clip(255 * level, 0, 255)).round().astype(np.uint8)


def scale_bar(plot, low: float, high: float) -> None:
    """Let the colour bar of a drawn `picture` run from low to high."""
    for scale in (plot.handles["color_mapper"], plot.handles["colorbar"].color_mapper):
        if (scale.low, scale.high) != (low, high):
            scale.update(low=low, high=high)


def stand_on(plot, _element, *, base: float) -> None:
    """Let the bars of a histogram stand on a base, which a logarithmic axis needs."""
    plot.handles["glyph"].bottom = base


def keep_ratio(plot, _element, *, ratio: float) -> None:
    """Let the height follow the width, so that a picture keeps its shape on every screen."""
    from bokeh.models import CustomJS

    code = "figure.height = Math.round(figure.outer_height - figure.inner_height + figure.inner_width / ratio)"
    plot.state.js_on_change("inner_width", CustomJS(args={"figure": plot.state, "ratio": ratio}, code=code))


# a title stays on the figure, left of tools above it: where that is narrow it starts above the axis' numbers, then its
# letters get smaller
_FIT_TITLE = """
const pen = document.createElement('canvas').getContext('2d');
pen.font = `${title.text_font_style} ${size}px ${title.text_font}`;
const left = Math.max(0, (Bokeh.index.find_one(figure)?.frame?.bbox.left ?? 0) - 4);
const tools = figure.toolbar_location === 'above' ? figure.toolbar.tools.filter((tool) => tool.visible).length : 0;
const most = figure.outer_width - 12 - 32 * tools, room = most - left, wide = pen.measureText(title.text).width;
title.offset = -Math.max(0, Math.min(left, wide - room));
title.text_font_size = `${Math.max(8, Math.min(size, Math.floor(2 * size * most / wide) / 2))}px`;
"""


def fit_title(figure, size: int = 13) -> None:
    """Keep a figure's title of that size [px] from being cut off where the figure is narrow."""
    from bokeh.models import CustomJS

    fit = CustomJS(args={"figure": figure, "title": figure.title, "size": size}, code=_FIT_TITLE)
    figure.js_on_change("inner_width", fit)
    figure.title.js_on_change("text", fit)
    name_sliders(figure)


# Bokeh gives the handles of its sliders no name: it is the slider's title, or the text above the slider
_NAME_SLIDERS = """
const name = (view) => {
  const siblings = [view.parent?.model.children ?? []].flat(), above = siblings[siblings.indexOf(view.model) - 1];
  const text = (view.model.title || above?.text || 'value').replace(/<[^>]*>/g, '').split(':')[0];
  for (const handle of view.slider_el?.querySelectorAll('.noUi-handle') ?? []) handle.setAttribute('aria-label', text);
};
let kind = Bokeh.Models.get('Slider')?.prototype.default_view.prototype;
while (kind && !Object.hasOwn(kind, '_update_title')) kind = Object.getPrototypeOf(kind);
if (kind && !kind.named) {
  const update = kind._update_title;
  kind.named = true;
  kind._update_title = function () { update.call(this); name(this); };
  for (const model of Bokeh.documents.flatMap((one) => one.roots()).flatMap((root) => [...root.references()]))
    for (const view of /Slider$/.test(model.type) ? Bokeh.index.find_all(model) : []) name(view);
}
"""


def name_sliders(figure) -> None:
    """Give every slider of a page the name that a screen reader needs, as soon as this figure is drawn."""
    from bokeh.models import CustomJS

    figure.js_on_change("inner_width", CustomJS(code=_NAME_SLIDERS))


def house_font(plot, _element) -> None:
    """Set the type of notes."""
    from bokeh.core.properties import value

    plot.handles["glyph"].text_font = value(FONT)


# the same in the browser
_PLAIN_TICK = (
    "const whole = Math.round(tick), size = Math.abs(tick); "
    "const text = size >= 10 && Math.abs(tick - whole) <= 1e-9 * size ? whole.toLocaleString('en-US') "
    ": String(+tick.toPrecision(6)); return text.replace('-', '−');"
)


def plain_number(value: float, _position: Any = None) -> str:
    """Write a tick as people write numbers: 20000 as 20,000, 0.05 as 0.05, -5 as −5."""
    if value == 0:
        return "0"
    if abs(value) < 1e-4:
        power = math.floor(math.log10(abs(value)) + 1e-9)
        digits = "" if math.isclose(value, 10.0**power) else f"{value / 10.0**power:g}·"
        return f"{digits}10{str(power).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
    text = f"{value:,.0f}" if abs(value) >= 10 and float(value).is_integer() else f"{value:g}"
    return text.replace("-", "−")


_AXIS = {
    "axis_label_text_font": FONT, "major_label_text_font": FONT, "axis_label_text_font_style": "normal",
    "axis_label_text_color": INK, "major_label_text_color": INK, "axis_line_color": MUTED,
    "major_tick_line_color": MUTED, "minor_tick_line_color": None,
}  # fmt: skip
# what HoloViews sets on bokeh's models
BOKEH = {
    "backend_opts": {
        "plot.output_backend": "canvas",  # WebGL takes 70 ms more for each change where a browser has no graphics card
        "plot.toolbar.logo": None, "plot.toolbar.autohide": True, "plot.outline_line_color": None,
        "plot.title.text_font": FONT, "plot.title.text_color": INK, "plot.title.text_font_style": "bold",
        "plot.min_border_right": 18,
        **{f"{axis}axis.{name}": value for axis in "xy" for name, value in _AXIS.items()},
    },
    "gridstyle": {"grid_line_color": GRID},
    "legend_opts": {
        "label_text_font": FONT, "label_text_color": INK, "border_line_color": None, "background_fill_alpha": 0.85,
        "spacing": 1, "padding": 6, "glyph_width": 16, "glyph_height": 16, "click_policy": "mute",
    },
}  # fmt: skip


def finish_bokeh(plot, _element) -> None:
    """Write ticks as people write numbers, those of logarithmic axes where they are readable, and grids at them."""
    from bokeh.models import BasicTickFormatter, CustomJSTickFormatter, FixedTicker, LogAxis

    figure = plot.state
    figure.styles = {"max-width": "100%"}  # narrower where the window is
    fit_title(figure)
    for axis in figure.axis:
        if isinstance(axis, LogAxis) and not isinstance(axis.ticker, FixedTicker):
            mark_log_axis(figure, "x" if axis in figure.xaxis else "y")
            axis.formatter = CustomJSTickFormatter(code=_PLAIN_TICK)
        elif isinstance(axis.formatter, BasicTickFormatter):
            axis.formatter = CustomJSTickFormatter(code=_PLAIN_TICK)
    for grids, axes in ((figure.xgrid, figure.xaxis), (figure.ygrid, figure.yaxis)):
        for grid in grids if plot.show_grid else []:
            grid.ticker = axes[0].ticker


def mark_log_axis(figure, axis: str) -> None:
    """Let the ticks of an axis, ``"x"`` or ``"y"``, suit its limits if it is logarithmic."""
    from bokeh.models import FixedTicker, LogAxis, LogTicker

    drawn, grids = (figure.xaxis, figure.xgrid) if axis == "x" else (figure.yaxis, figure.ygrid)
    span = figure.x_range if axis == "x" else figure.y_range
    for one in drawn:
        if not isinstance(one, LogAxis):
            continue
        stops = _log_stops(span.start, span.end, decades=2 if axis == "x" else 3)
        if stops and isinstance(one.ticker, FixedTicker):
            one.ticker.ticks = stops
        elif stops or isinstance(one.ticker, FixedTicker) or one.ticker.num_minor_ticks:
            one.ticker = FixedTicker(ticks=stops) if stops else LogTicker(num_minor_ticks=0)
        for grid in grids:
            grid.ticker = one.ticker


# of the ticks of a logarithmic axis, the coarsest first: those that give three are taken
_DIGITS = (1, 2, 5), (1, 2, 3, 4, 5, 6, 8), range(1, 10), np.arange(2, 20) / 2, np.arange(10, 100) / 10


def _log_stops(start: float | None, end: float | None, *, decades: int) -> list[float]:
    """Return 1, 2, 5, 10, 20 ... along a logarithmic axis no longer than so many decades, else nothing.

    Where fewer than three of them lie on it, finer ones.
    """
    if not start or not end or start <= 0 or end / start > 10**decades:
        return []
    powers = range(math.floor(math.log10(start)), math.ceil(math.log10(end)) + 1)
    stops: list[float] = []
    for digits in _DIGITS:
        stops = [float(f"{digit:g}e{power}") for power in powers for digit in digits]
        if sum(start <= stop <= end for stop in stops) > 2:
            break
    return stops


def finish_mpl(plot, _element) -> None:
    """Set the same style in matplotlib: thin axes, quiet grid, plain numbers."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator, ScalarFormatter

    axes = plot.handles["axis"]
    axes.title.set_color(INK)
    axes.title.set_weight("bold")
    axes.xaxis.set_zorder(-10)  # the grid lies under what is drawn
    axes.yaxis.set_zorder(-10)
    axes.grid(color=GRID, linewidth=0.8) if plot.show_grid else axes.grid(visible=False)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom") and spine.get_visible())
        spine.set_color(MUTED)
    axes.tick_params(which="both", color=MUTED, labelcolor=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    for axis, scale, limits in (
        (axes.xaxis, axes.get_xscale(), axes.get_xlim()),
        (axes.yaxis, axes.get_yscale(), axes.get_ylim()),
    ):
        if scale == "log":
            axis.set_minor_locator(NullLocator())
            axis.set_minor_formatter(NullFormatter())
            if not isinstance(axis.get_major_locator(), FixedLocator):
                stops = _log_stops(*sorted(limits), decades=3)
                axis.set_major_locator(FixedLocator(stops) if stops else LogLocator(subs=(1,), numticks=30))
                axis.set_major_formatter(FuncFormatter(plain_number))
        elif isinstance(axis.get_major_formatter(), ScalarFormatter):
            axis.set_major_formatter(FuncFormatter(plain_number))
    legend = axes.get_legend()
    if legend is not None:
        legend.get_frame().set(edgecolor="none", facecolor=PAPER, alpha=0.85)
        for text in legend.get_texts():
            text.set_color(INK)
