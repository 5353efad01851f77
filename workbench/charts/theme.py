"""One house style for every chart, in the notebook (bokeh) and on paper (matplotlib).

The colours follow Okabe and Ito's palette, which colour-blind readers can tell apart (https://jfly.uni-koeln.de/color/);
every channel has its own marker besides, so that no chart depends on colour alone.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any

import holoviews as hv
import numpy as np

from ..core.errors import WorkbenchError
from .hooks import finish_bokeh, finish_mpl, house_font, in_eight_bits, keep_ratio, stand_on
from .palette import (  # noqa: F401  charts take their colours from here
    CHANNEL_COLOUR,
    FONT,
    GRID,
    INK,
    KIND_COLOUR,
    MUTED,
    PAPER,
    REFERENCE,
    SERIES,
    UNUSED,
    ramp,
)

# the same shape under each backend's own name
_MARKER = {"R": ("square", "s"), "G1": ("triangle", "^"), "G2": ("inverted_triangle", "v"), "B": ("circle", "o")}
_MARKER |= {"mono": ("circle", "o"), "cross": ("x", "X"), "diamond": ("diamond", "D"), "circle": ("circle", "o")}
_MARKER |= {"square": ("square", "s"), "triangle": ("triangle", "^"), "star": ("star", "*")}
_DASH = {"solid": "-", "dashed": "--", "dotted": ":", "dotdash": "-."}

Notes = dict[int, tuple[Any, dict[str, Any]]]  # an element's id: the element, and bokeh's options of it

_ONLY: ContextVar[str | None] = ContextVar("only", default=None)  # backend that options are set for
_NOTES: ContextVar[Notes | None] = ContextVar("notes", default=None)
_MADE: dict[tuple[Any, ...], Any] = {}  # elements that others under `noted` are copies of

WIDTH, HEIGHT = 560, 420  # of a panel in a notebook [px]


def load_backends() -> None:
    """Register both backends with HoloViews, keeping the one in use; prints nothing and touches no notebook."""
    import holoviews.plotting.bokeh
    import holoviews.plotting.mpl  # noqa: F401


def styled(element: Any, bokeh: dict[str, Any], matplotlib: dict[str, Any]) -> Any:
    """Return the element with the options of each backend set, or of the one that `drawn_by` names, or `noted`."""
    notes = _NOTES.get()
    if notes is not None:
        notes[id(element)] = (element, bokeh)
        return element
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


@contextlib.contextmanager
def noted() -> Iterator[Notes]:
    """Note bokeh's options of what is made meanwhile instead of setting them, which takes most of a chart's time.

    Examples
    --------
    >>> with noted() as notes:
    ...     drawn = line([0, 1], [0, 1], dims=(dimension("x"), dimension("y")), dash="dotted")
    >>> notes[id(drawn)][1]["line_dash"]
    'dotted'
    """
    notes: Notes = {}
    token = _NOTES.set(notes)
    try:
        yield notes
    finally:
        _NOTES.reset(token)


def _element(kind: type, columns: Any, dims: list[hv.Dimension], label: str = "") -> Any:
    """Make an element; under `noted` a copy of one of the same make with its own data, which is six times as fast."""
    if _NOTES.get() is None:
        return kind(columns, dims[0], dims[1:], label=label)
    columns = [np.asarray(column) for column in columns]
    key = (kind, label, *((dim.name, dim.label, dim.unit, dim.range) for dim in dims))
    if key not in _MADE or len({column.shape for column in columns}) > 1:
        if len(_MADE) > 1000:
            _MADE.clear()
        _MADE[key] = kind(tuple(columns), dims[0], dims[1:], label=label, datatype=["dictionary"])
    made = copy.copy(_MADE[key])
    made.data = type(made.data)(zip((dim.name for dim in dims), columns, strict=True))
    return made


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
        _element(hv.Scatter, columns, [x_dim, *values], label),
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
        _element(hv.ErrorBars, columns, [x_dim, *values]),
        {"line_color": colour, "line_width": 1.4, "upper_head": None, "lower_head": None},
        {"edgecolor": colour, "elinewidth": 1.3, "capsize": 0},
    )
    return hv.Overlay([bars, scatter])


def line(x, y, *, dims, label: str = "", colour: str = INK, dash: str = "solid", width: float = 1.8) -> hv.Curve:
    """Draw a curve: a fit, a law, an expectation."""
    return styled(
        _element(hv.Curve, (x, y), list(dims), label),
        {"color": colour, "line_dash": dash, "line_width": width},
        {"color": colour, "linestyle": _DASH[dash], "linewidth": width},
    )


def band(x, low, high, *, dims, label: str = "", colour: str = INK) -> hv.Area:
    """Shade what lies between two curves."""
    x_dim, y_dim = dims
    upper = hv.Dimension(f"{y_dim.name} upper", unit=y_dim.unit)
    return styled(
        _element(hv.Area, (x, low, high), [x_dim, y_dim, upper], label),
        {"fill_color": colour, "fill_alpha": 0.16, "line_alpha": 0},
        {"facecolor": colour, "color": colour, "alpha": 0.16, "edgecolor": "none", "show_legend": True},
    )


def steps(edges, heights, *, dims, label: str = "", colour: str = INK, base: float | None = None) -> hv.Histogram:
    """Draw a histogram from its bin edges; on a logarithmic axis its bars need a `base` to stand on."""
    stand = {} if base is None else {"hooks": [partial(stand_on, base=base)]}
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
            "hooks": [house_font],
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


def picture(
    data, bounds, *, dims, value, cmap: str = "gray", limits: tuple[float, float] | None = None, label: str = ""
) -> hv.Image:
    """Show a reduced frame, its first row on top, with a colour bar that carries the unit."""
    low, high = limits if limits is not None else (float(data.min()), float(data.max()))
    image = hv.Image(data, bounds=bounds, kdims=list(dims), vdims=value.clone(range=(low, high)), label=label)
    bar = {"title": value.pprint_label, "title_text_font_style": "normal", "title_text_font_size": "12px"}
    bar |= {"title_text_font": FONT, "title_text_color": INK, "height": 10, "major_label_text_font": FONT}
    return styled(
        image,
        {"cmap": cmap, "colorbar": True, "colorbar_position": "bottom", "colorbar_opts": bar, "hooks": [in_eight_bits]},
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
    width: int = WIDTH,
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
    width
        On the page [px].

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
            "width": width,
            "height": height,
            "show_grid": grid,
            "fontsize": {key: f"{size}px" for key, size in sizes.items()},
            "hooks": [finish_bokeh, *([partial(keep_ratio, ratio=ratio)] if ratio else [])],
            "active_tools": [],
        },
        {
            **common,
            "show_grid": grid,
            "fontsize": {"title": 10.5, "labels": 9.5, "xticks": 8.5, "yticks": 8.5, "legend": 8.5},
            "hooks": [finish_mpl],
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
