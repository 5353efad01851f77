"""One house style for every chart, in the notebook (bokeh) and on paper (matplotlib).

The colours follow Okabe and Ito's palette, which colour-blind readers can tell apart (https://jfly.uni-koeln.de/color/);
every channel has its own marker besides, so that no chart depends on colour alone.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any

import holoviews as hv
import numpy as np

from ..errors import WorkbenchError

INK, MUTED, GRID, PAPER = "#1f2933", "#5b6875", "#e4e9ee", "#ffffff"
REFERENCE, UNUSED = "#b07d2b", "#aab4be"

CHANNEL_COLOUR = {"R": "#d55e00", "G1": "#009e73", "G2": "#8bc34a", "B": "#0072b2", "mono": "#4d4d4d"}
KIND_COLOUR = {"light": "#e69f00", "dark": "#54478c", "bias": "#cc79a7", "flat": "#56b4e9"}
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#54478c", "#6b6b6b")

_RAMP = ("#3b0f8f", "#8c2981", "#c8456c", "#ee7b51", "#e9ae2f")  # cold to warm, darker to lighter

# the same shape under each backend's own name
_MARKER = {"R": ("square", "s"), "G1": ("triangle", "^"), "G2": ("inverted_triangle", "v"), "B": ("circle", "o")}
_MARKER |= {"mono": ("circle", "o"), "cross": ("x", "X"), "diamond": ("diamond", "D"), "circle": ("circle", "o")}
_MARKER |= {"square": ("square", "s"), "triangle": ("triangle", "^"), "star": ("star", "*")}
_DASH = {"solid": "-", "dashed": "--", "dotted": ":", "dotdash": "-."}

_ONLY: ContextVar[str | None] = ContextVar("only", default=None)  # backend that options are set for

WIDTH, HEIGHT = 560, 420  # of a panel in a notebook [px]
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def ramp(count: int) -> list[str]:
    """Return colours from cold to warm for ordered series, such as temperatures.

    Examples
    --------
    >>> ramp(3)
    ['#3b0f8f', '#c8456c', '#e9ae2f']
    """
    stops = np.array([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in _RAMP])
    places = np.linspace(0, len(_RAMP) - 1, count)
    mixed = [np.interp(places, np.arange(len(_RAMP)), stops[:, part]).round().astype(int) for part in range(3)]
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in zip(*mixed, strict=True)]


def load_backends() -> None:
    """Register both backends with HoloViews, keeping the one in use; prints nothing and touches no notebook."""
    import holoviews.plotting.bokeh
    import holoviews.plotting.mpl  # noqa: F401


def styled(element: Any, bokeh: dict[str, Any], matplotlib: dict[str, Any]) -> Any:
    """Return the element with the options of each backend set, or of the one that `drawn_by` names."""
    load_backends()
    for backend, options in (("bokeh", bokeh), ("matplotlib", matplotlib)):
        if _ONLY.get() in (None, backend):
            element = element.opts(backend=backend, **options)
    return element


@contextlib.contextmanager
def drawn_by(backend: str) -> Iterator[None]:
    """Set the options of one backend only, for charts that must follow a control: setting them takes half the time."""
    token = _ONLY.set(backend)
    try:
        yield
    finally:
        _ONLY.reset(token)


def dimension(name: str, unit: str | None = None, **kwargs: Any) -> hv.Dimension:
    """Return an axis with its unit; `name` is also the heading of its column in the CSV file."""
    return hv.Dimension(name, unit=unit, **kwargs)


def points(
    x,
    y,
    error=None,
    *,
    dims,
    label: str,
    colour: str = INK,
    marker: str = "circle",
    size: float = 8,
    filled: bool = True,
) -> hv.Overlay:
    """Draw measured points, with bars of one standard error where `error` is given.

    The error travels in the points as a second value dimension, so that hovering and the CSV file show it.  What is
    not finite is left out.
    """
    known = np.isfinite(np.asarray(x, float)) & np.isfinite(np.asarray(y, float))
    if not known.any():
        return hv.Overlay([])
    x, y, error = (None if part is None else np.asarray(part)[known] for part in (x, y, error))
    x_dim, y_dim = dims
    shape, mpl_shape = _MARKER[marker]
    columns, values = (x, y), [y_dim]
    if error is not None:
        columns = (x, y, error)
        values = [y_dim, hv.Dimension(f"{y_dim.name} error", unit=y_dim.unit)]
    scatter = styled(
        hv.Scatter(columns, x_dim, values, label=label),
        {
            "marker": shape,
            "size": size * {"diamond": 1.4, "x": 1.2}.get(shape, 1.0),  # bokeh draws these small
            "fill_color": colour if filled else PAPER,
            "line_color": colour,
            "line_width": 1.6,
            "tools": ["hover"],
        },
        {
            "marker": mpl_shape,
            "s": size**2 * 0.55,
            "facecolors": colour if filled else PAPER,
            "edgecolors": colour,
            "linewidth": 1.3,
        },
    )
    if error is None:
        return hv.Overlay([scatter])
    bars = styled(
        hv.ErrorBars(columns, x_dim, values),
        {"line_color": colour, "line_width": 1.4, "upper_head": None, "lower_head": None},
        {"edgecolor": colour, "elinewidth": 1.3, "capsize": 0},
    )
    return hv.Overlay([bars, scatter])


def line(x, y, *, dims, label: str = "", colour: str = INK, dash: str = "solid", width: float = 1.8) -> hv.Curve:
    """Draw a curve: a fit, a law, an expectation."""
    return styled(
        hv.Curve((x, y), *dims, label=label),
        {"color": colour, "line_dash": dash, "line_width": width},
        {"color": colour, "linestyle": _DASH[dash], "linewidth": width},
    )


def band(x, low, high, *, dims, label: str = "", colour: str = INK) -> hv.Area:
    """Shade what lies between two curves."""
    x_dim, y_dim = dims
    upper = hv.Dimension(f"{y_dim.name} upper", unit=y_dim.unit)
    return styled(
        hv.Area((x, low, high), x_dim, [y_dim, upper], label=label),
        {"fill_color": colour, "fill_alpha": 0.16, "line_alpha": 0},
        {"facecolor": colour, "color": colour, "alpha": 0.16, "edgecolor": "none", "show_legend": True},
    )


def steps(edges, heights, *, dims, label: str = "", colour: str = INK, base: float | None = None) -> hv.Histogram:
    """Draw a histogram from its bin edges; on a logarithmic axis its bars need a `base` to stand on."""
    stand = {} if base is None else {"hooks": [partial(_stand_on, base=base)]}
    return styled(
        hv.Histogram((edges, heights), kdims=dims[0], vdims=dims[1], label=label),
        {"fill_color": colour, "fill_alpha": 0.45, "line_color": colour, "line_width": 0.5, **stand},
        {"facecolor": colour, "alpha": 0.45, "edgecolor": colour, "linewidth": 0.4},
    )


def note(x, y, text, *, dims, colour: str = INK, align=("left", "bottom"), size: int = 11) -> hv.Labels:
    """Write a few words into the chart at a place in data coordinates, or several at several."""
    return styled(
        hv.Labels(([x], [y], [text]) if isinstance(text, str) else (x, y, text), list(dims), "note"),
        {
            "text_color": colour,
            "text_align": align[0],
            "text_baseline": {"center": "middle"}.get(align[1], align[1]),
            "text_font_size": f"{size}px",
            "hooks": [_font],
        },
        {"color": colour, "horizontalalignment": align[0], "verticalalignment": align[1], "size": size * 0.8},
    )


def boxes(corners, *, fill: str, edge: str = MUTED) -> hv.Rectangles:
    """Draw rectangles from (x0, y0, x1, y1) each."""
    return styled(
        hv.Rectangles(list(corners), [hv.Dimension(name) for name in ("x", "y", "x1", "y1")]),
        {"fill_color": fill, "line_color": edge, "line_width": 1},
        {"facecolor": fill, "edgecolor": edge, "linewidth": 0.8},
    )


def segments(ends, *, colour: str = INK, width: float = 1.5) -> hv.Segments:
    """Draw straight strokes from (x0, y0, x1, y1) each."""
    return styled(
        hv.Segments(list(ends), [hv.Dimension(name) for name in ("x", "y", "x1", "y1")]),
        {"color": colour, "line_width": width},
        {"color": colour, "linewidth": width * 0.9},
    )


def shapes(outlines, *, fill: str, edge: str = INK) -> hv.Polygons:
    """Draw filled polygons from their corners."""
    return styled(
        hv.Polygons(list(outlines), [hv.Dimension("x"), hv.Dimension("y")]),
        {"fill_color": fill, "line_color": edge, "line_width": 0.5},
        {"facecolor": fill, "color": fill, "edgecolor": edge, "linewidth": 0.5},
    )


def picture(data, bounds, *, dims, value, cmap: str = "gray", limits: tuple[float, float] | None = None) -> hv.Image:
    """Show a reduced frame, its first row on top, with a colour bar that carries the unit."""
    low, high = limits if limits is not None else (float(data.min()), float(data.max()))
    image = hv.Image(data, bounds=bounds, kdims=list(dims), vdims=value.clone(range=(low, high)))
    bar = {"title": value.pprint_label, "title_text_font_style": "normal", "title_text_font_size": "12px"}
    bar |= {"title_text_font": FONT, "title_text_color": INK, "height": 10, "major_label_text_font": FONT}
    return styled(
        image,
        {"cmap": cmap, "colorbar": True, "colorbar_position": "bottom", "colorbar_opts": bar, "hooks": [_eight_bits]},
        {"cmap": cmap, "colorbar": True, "clabel": value.pprint_label, "interpolation": "nearest", "aspect": "equal"},
    )


def panel(
    elements,
    *,
    title: str,
    log: str = "",
    xlim=None,
    ylim=None,
    xticks=None,
    yticks=None,
    legend: str | None = "top_right",
    axes: bool = True,
    ratio: float | None = None,
    grid: bool | None = None,
    invert_y: bool = False,
) -> hv.Overlay:
    """Put elements into one pair of axes in the house style.

    Parameters
    ----------
    log
        The logarithmic axes: ``""``, ``"x"``, ``"y"`` or ``"xy"``.
    legend
        The corner it sits in, or None for no legend.
    axes
        False for a drawing without axes.
    ratio
        Width by height of the data area where that matters (a picture, a drawing).
    grid
        Whether to draw a grid; by default where `ratio` is not given.

    Raises
    ------
    WorkbenchError
        If there is nothing to draw.
    """
    grid = axes and ratio is None if grid is None else grid
    overlay = hv.Overlay([part for one in elements for part in (one if isinstance(one, hv.Overlay) else [one])])
    if not len(overlay):
        raise WorkbenchError(f"there is nothing to draw in the chart {title!r}: none of its values is known")
    height = HEIGHT if ratio is None else round((WIDTH - 90) / ratio + 70)
    common = {
        "title": title,
        "logx": "x" in log,
        "logy": "y" in log,
        "show_legend": legend is not None,
        "legend_limit": 100,
        "invert_yaxis": invert_y,
        **({"legend_position": legend} if legend else {}),
        **({"xlim": xlim} if xlim else {}),
        **({"ylim": ylim} if ylim else {}),
        **({"xticks": xticks} if xticks else {}),
        **({"yticks": yticks} if yticks else {}),
        **({} if axes else {"xaxis": None, "yaxis": None}),
    }
    sizes = {"title": 13, "labels": 12, "ticks": 11, "legend": 11}
    return styled(
        overlay,
        {
            **common,
            "width": WIDTH,
            "height": height,
            "show_grid": grid,
            "fontsize": {key: f"{size}px" for key, size in sizes.items()},
            "hooks": [_finish_bokeh, *([partial(_keep_ratio, ratio=ratio)] if ratio else [])],
            "active_tools": [],
        },
        {
            **common,
            "show_grid": grid,
            "fontsize": {"title": 10.5, "labels": 9.5, "xticks": 8.5, "yticks": 8.5, "legend": 8.5},
            "hooks": [_finish_mpl],
            "show_frame": False,
            "aspect": ratio or WIDTH / HEIGHT,
        },
    )


def layout(panels) -> hv.Layout:
    """Put panels side by side."""
    return styled(
        hv.Layout(list(panels)).cols(2),
        {"shared_axes": False, "merge_tools": False, "toolbar": None},
        {"shared_axes": False, "sublabel_format": "", "tight": False},
    )


def _eight_bits(plot, _element) -> None:
    """Send a picture as 8 bits a pixel; the colour bar keeps the true scale."""
    glyph, source, bar = plot.handles["glyph"], plot.handles["source"], plot.handles["colorbar"]
    scale = plot.handles["color_mapper"]
    true = type(scale)(palette=scale.palette, low=scale.low, high=scale.high)
    level = (np.asarray(source.data["image"][0], float) - scale.low) / (scale.high - scale.low or 1.0)
    source.data["image"] = [np.nan_to_num(np.clip(255 * level, 0, 255)).round().astype(np.uint8)]
    bar.color_mapper = true
    glyph.color_mapper = type(scale)(palette=scale.palette, low=0, high=255)


def _stand_on(plot, _element, *, base: float) -> None:
    plot.handles["glyph"].bottom = base


def _keep_ratio(plot, _element, *, ratio: float) -> None:
    """Let the height follow the width, so that a picture keeps its shape on every screen."""
    from bokeh.models import CustomJS

    code = "figure.height = Math.round(figure.outer_height - figure.inner_height + figure.inner_width / ratio)"
    plot.state.js_on_change("inner_width", CustomJS(args={"figure": plot.state, "ratio": ratio}, code=code))


def _font(plot, _element) -> None:
    from bokeh.core.properties import value

    plot.handles["glyph"].text_font = value(FONT)


def _plain(value: float, _position: Any = None) -> str:
    """Write a tick as people write numbers: 20000 as 20,000, 0.05 as 0.05."""
    if value == 0:
        return "0"
    if abs(value) < 1e-4:
        power = math.floor(math.log10(abs(value)) + 1e-9)
        digits = "" if math.isclose(value, 10.0**power) else f"{value / 10.0**power:g}·"
        return f"{digits}10{str(power).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
    return f"{value:,.0f}" if abs(value) >= 10 and float(value).is_integer() else f"{value:g}"


def _finish_bokeh(plot, _element) -> None:
    """Set what HoloViews has no option for: fonts, grid, legend box, readable logarithmic ticks."""
    from bokeh.models import CustomJSTickFormatter, FixedTicker, LogAxis, LogTicker

    figure = plot.state
    figure.toolbar.logo = None
    figure.toolbar.autohide = True
    figure.outline_line_color = None
    figure.title.text_font = FONT
    figure.title.text_color = INK
    figure.title.text_font_style = "bold"
    figure.min_border_right = 18
    for axis in figure.axis:
        axis.axis_label_text_font = axis.major_label_text_font = FONT
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_color = axis.major_label_text_color = INK
        axis.axis_line_color = axis.major_tick_line_color = MUTED
        axis.minor_tick_line_color = None
        if isinstance(axis, LogAxis) and not isinstance(axis.ticker, FixedTicker):
            across = axis in figure.xaxis
            span = plot.handles["x_range" if across else "y_range"]
            stops = _log_stops(span.start, span.end, decades=2 if across else 3)
            axis.ticker = FixedTicker(ticks=stops) if stops else LogTicker(num_minor_ticks=0)
            axis.formatter = CustomJSTickFormatter(
                code="const round = Math.round(tick); "
                "return round >= 10 ? round.toLocaleString('en-US') : String(+tick.toPrecision(6));"
            )
    for grids, axes in ((figure.xgrid, figure.xaxis), (figure.ygrid, figure.yaxis)):
        for grid in grids if plot.show_grid else []:
            grid.grid_line_color = GRID
            grid.ticker = axes[0].ticker
    for legend in figure.legend:
        legend.label_text_font = FONT
        legend.label_text_color = INK
        legend.border_line_color = None
        legend.background_fill_alpha = 0.85
        legend.spacing = 1
        legend.padding = 6
        legend.glyph_width = legend.glyph_height = 16
        legend.click_policy = "mute"


def _log_stops(start: float | None, end: float | None, *, decades: int) -> list[float]:
    """Return 1, 2, 5, 10, 20 ... along a logarithmic axis no longer than so many decades, else nothing."""
    if not start or not end or start <= 0 or end / start > 10**decades:
        return []
    powers = range(math.floor(math.log10(start)), math.ceil(math.log10(end)) + 1)
    return [digit * 10.0**power for power in powers for digit in (1, 2, 5)]


def _finish_mpl(plot, _element) -> None:
    """Set the same style in matplotlib: thin axes, quiet grid, plain numbers on logarithmic axes."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

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
                axis.set_major_locator(
                    LogLocator(subs=(1, 2, 5) if _log_stops(*limits, decades=3) else (1,), numticks=30)
                )
                axis.set_major_formatter(FuncFormatter(_plain))
    legend = axes.get_legend()
    if legend is not None:
        legend.get_frame().set(edgecolor="none", facecolor=PAPER, alpha=0.85)
        for text in legend.get_texts():
            text.set_color(INK)
