"""One house style for every chart, in the notebook (bokeh) and on paper (matplotlib).

Options are written once, in bokeh's names; `style.matplotlib_options` translates them.  The colours follow Okabe and
Ito's palette, which colour-blind readers can distinguish (https://jfly.uni-koeln.de/color/); every channel also has its
own marker, so that no chart depends on colour alone.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any, TypedDict, Unpack

import holoviews as hv
import numpy as np
import xarray as xr

from ..core.errors import WorkbenchError
from .style import (  # noqa: F401  charts take their colours from here
    BOKEH,
    CHANNEL_COLOUR,
    FONT,
    GRID,
    INK,
    KIND_COLOUR,
    MARKER,
    MUTED,
    PAPER,
    REFERENCE,
    SERIES,
    UNUSED,
    finish_bokeh,
    finish_mpl,
    house_font,
    in_eight_bits,
    keep_ratio,
    matplotlib_options,
    ramp,
    stand_on,
)

Notes = dict[int, tuple[Any, dict[str, Any]]]  # an element's id: the element, and bokeh's options of it

_ONLY: ContextVar[str | None] = ContextVar("only", default=None)  # backend that options are set for
_NOTES: ContextVar[Notes | None] = ContextVar("notes", default=None)
_MADE: dict[tuple[Any, ...], Any] = {}  # elements that others under `noted` are copies of

WIDTH, HEIGHT = 560, 420  # of a panel in a notebook [px]


def load_backends() -> None:
    """Register both backends with HoloViews, keeping the one in use; prints nothing and touches no notebook."""
    import holoviews.plotting.bokeh
    import holoviews.plotting.mpl  # noqa: F401


def styled(element: Any, **options: Any) -> Any:
    """Return an element with options in bokeh's names set for both backends, for `drawn_by`'s alone, or `noted`."""
    if _NOTES.get() is None and _ONLY.get() in (None, "matplotlib"):
        return _set(element, options, matplotlib_options(element, options))
    return _set(element, options, {})


def _set(element: Any, bokeh: dict[str, Any], matplotlib: dict[str, Any]) -> Any:
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
    """Note bokeh's options of what is made in this context; setting them would take most of a chart's time.

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


# axes that several charts share
ISO, GAIN_SETTING, EXPOSURE = dimension("ISO"), dimension("gain setting"), dimension("exposure", "s")
COLUMN, ROW = dimension("column", "px"), dimension("row", "px")
DARK_CURRENT = dimension("dark current", "e⁻/s/pixel")


MARKERS = ("circle", "square", "triangle", "diamond")  # of series that follow each other


class Look(TypedDict, total=False):
    """How points look: colour, marker, size [px], whether they are filled, and the width of a line that joins them."""

    colour: str
    marker: str
    size: float
    filled: bool
    joined: float


def points(x, y, error=None, *, dims, label: str, **look: Unpack[Look]) -> hv.Overlay:
    """Draw measured points, with bars of one standard error where `error` is given.

    The error travels in the points as a second value dimension, so that hovering and the CSV file show it.  What is
    not finite is left out.  A value of infinite error is a lower bound, drawn as an open mark.
    """
    bound = np.zeros(np.shape(x), bool) if error is None else np.isinf(error)
    if bound.any():
        parts = [
            points(*(np.asarray(part)[where] for part in given), dims=dims, label=title, **kind)
            for where, given, title, kind in (
                (~bound, (x, y, error), label, look),
                (bound, (x, y), f"{label}: at least", look | {"filled": False}),
            )
        ]
        return hv.Overlay([element for part in parts for element in part])
    known = np.isfinite(np.asarray(x, float)) & np.isfinite(np.asarray(y, float))
    if not known.any():
        return hv.Overlay([])
    x_dim, y_dim = dims
    colour, joined = look.get("colour", INK), look.get("joined")
    drawn = [line(x, y, dims=dims, colour=colour, width=joined)] if joined else []
    x, y, error = (None if part is None else np.asarray(part)[known] for part in (x, y, error))
    shape, _, scale = MARKER[look.get("marker", "circle")]
    columns, values = (x, y), [y_dim]
    if error is not None:
        columns = (x, y, error)
        values = [y_dim, hv.Dimension(f"{y_dim.name} error", unit=y_dim.unit)]
    scatter = styled(
        _element(hv.Scatter, columns, [x_dim, *values], label), marker=shape, size=look.get("size", 8) * scale,
        fill_color=colour if look.get("filled", True) else PAPER, line_color=colour, line_width=1.6, tools=["hover"],
    )  # fmt: skip
    if error is None:
        return hv.Overlay([*drawn, scatter])
    bars = styled(
        _element(hv.ErrorBars, columns, [x_dim, *values]),
        line_color=colour, line_width=1.4, upper_head=None, lower_head=None,
    )  # fmt: skip
    return hv.Overlay([*drawn, bars, scatter])


def channel_colour(channel: str) -> str:
    """Return a channel's colour; G, of a picture or of X-Trans, has that of G1."""
    return CHANNEL_COLOUR[channel]


def channel_points(channel: str, x, y, error=None, *, dims, size: float = 7, joined: float = 0) -> hv.Overlay:
    """Draw the points of a channel in its colour and with its marker, named in the legend."""
    look: Look = {"colour": channel_colour(channel), "marker": channel, "size": size, "joined": joined}
    return points(x, y, error, dims=dims, label=channel, **look)


def line(x, y, *, dims, label: str = "", colour: str = INK, dash: str = "solid", width: float = 1.8) -> hv.Curve:
    """Draw a curve: a fit, a law, an expectation."""
    return styled(
        _element(hv.Curve, (x, y), list(dims), label), color=colour, line_dash=dash, line_width=width
    )  # fmt: skip


def level(value: float, ends, *, dims, **style: Any) -> hv.Curve:
    """Draw a level line from end to end."""
    return line([float(ends[0]), float(ends[-1])], [value, value], dims=dims, **style)


def upright(x: float, ends, *, dims, **style: Any) -> hv.Curve:
    """Draw an upright line at `x` from end to end."""
    return line([x, x], [float(ends[0]), float(ends[-1])], dims=dims, **style)


def band(x, low, high, *, dims, label: str = "", colour: str = INK, stacked: bool = False) -> hv.Area:
    """Shade what lies between two curves; bands `stacked` on one another are strong, with a white edge."""
    x_dim, y_dim = dims
    upper = hv.Dimension("up to", unit=y_dim.unit) if stacked else hv.Dimension(f"{y_dim.name} upper", unit=y_dim.unit)
    look = (
        {"fill_alpha": 0.8, "line_color": "white", "line_width": 1}
        if stacked
        else {"fill_alpha": 0.16, "line_alpha": 0}
    )
    return styled(_element(hv.Area, (x, low, high), [x_dim, y_dim, upper], label), fill_color=colour, **look)


def steps(edges, heights, *, dims, label: str = "", colour: str = INK, base: float | None = None) -> hv.Histogram:
    """Draw a histogram from its bin edges; on a logarithmic axis its bars need a `base` to stand on."""
    stand = {} if base is None else {"hooks": [partial(stand_on, base=base)]}
    bars = hv.Histogram((edges, heights), kdims=dims[0], vdims=dims[1], label=label)
    return styled(bars, fill_color=colour, fill_alpha=0.45, line_color=colour, line_width=0.5, **stand)


def bin_edges(centres: np.ndarray) -> np.ndarray:
    """Return the edges of bins of one width from their centres.

    Examples
    --------
    >>> bin_edges(np.array([1.0, 2.0, 3.0])).tolist()
    [0.5, 1.5, 2.5, 3.5]
    """
    half = (centres[-1] - centres[0]) / (2 * (centres.size - 1))
    return np.append(centres - half, centres[-1] + half)


def note(x, y, text, *, dims, colour: str = INK, align=("left", "bottom"), size: int = 11) -> hv.Labels:
    """Write a few words into the chart at a place in data coordinates, or several at several."""
    return styled(
        hv.Labels(([x], [y], [text]) if isinstance(text, str) else (x, y, text), list(dims), "note"),
        text_color=colour, text_align=align[0], text_baseline={"center": "middle"}.get(align[1], align[1]),
        text_font_size=f"{size}px", hooks=[house_font],
    )  # fmt: skip


def boxes(corners, *, fill: str, edge: str = MUTED) -> hv.Rectangles:
    """Draw rectangles from (x0, y0, x1, y1) each."""
    drawn = hv.Rectangles(list(corners), [hv.Dimension(name) for name in ("x", "y", "x1", "y1")])
    return styled(drawn, fill_color=fill, line_color=edge, line_width=1)


def segments(ends, *, colour: str = INK, width: float = 1.5) -> hv.Segments:
    """Draw straight strokes from (x0, y0, x1, y1) each."""
    drawn = hv.Segments(list(ends), [hv.Dimension(name) for name in ("x", "y", "x1", "y1")])
    return styled(drawn, color=colour, line_width=width)


def shapes(outlines, *, fill: str, edge: str = INK) -> hv.Polygons:
    """Draw filled polygons from their corners."""
    drawn = hv.Polygons(list(outlines), [hv.Dimension("x"), hv.Dimension("y")])
    return styled(drawn, fill_color=fill, line_color=edge, line_width=0.5)


def picture(
    data, bounds, *, dims, value, cmap: str | list[str] = "gray", limits: tuple[float, float] | None = None,
    label: str = "", bar: bool = True,
) -> hv.Image:  # fmt: skip
    """Show a reduced frame, its first row on top, with a colour bar that carries the unit unless `bar` is false."""
    low, high = limits if limits is not None else (float(data.min()), float(data.max()))
    image = hv.Image(data, bounds=bounds, kdims=list(dims), vdims=value.clone(range=(low, high)), label=label)
    look = {"title": value.pprint_label, "title_text_font_style": "normal", "title_text_font_size": "12px"}
    look |= {"title_text_font": FONT, "title_text_color": INK, "height": 10, "major_label_text_font": FONT}
    shown = {"colorbar": True, "colorbar_position": "bottom", "colorbar_opts": look} if bar else {"colorbar": False}
    return styled(image, cmap=cmap, hooks=[in_eight_bits], **shown)


def image_panel(data: xr.DataArray, title: str, *, value, over: Iterable[Any] = (), **style: Any) -> hv.Overlay:
    """Show a DataArray (y, x) as a picture in axes of the frame's pixels, with what lies over it.

    Its coordinates are the centres of its pixels; without any, pixel 0 runs from 0 to 1.
    """
    low, high = [], []
    for dim in ("x", "y"):
        centre = data[dim].values.astype(float) if dim in data.coords else np.arange(data.sizes[dim]) + 0.5
        half = (centre[1] - centre[0]) / 2 if centre.size > 1 else 0.5
        low.append(centre[0] - half)
        high.append(centre[-1] + half)
    values = data.transpose("y", "x").values[::-1]
    image = picture(values, (*low, *high), dims=(COLUMN, ROW), value=value, **style)
    return frame_panel([image, *over], title, (*low, *high))


def frame_panel(elements: Iterable[Any], title: str, bounds: tuple[float, ...], **options: Any) -> hv.Overlay:
    """Put elements into axes of the frame's pixels, (x0, y0) at the top left and (x1, y1) at the bottom right."""
    left, top, right, bottom = bounds
    ratio = {"ratio": (right - left) / (bottom - top)} | options
    return panel(elements, title=title, legend=None, xlim=(left, right), ylim=(top, bottom), invert_y=True, **ratio)


def iso_axis(isos: Iterable[float]) -> dict[str, Any]:
    """Return limits of an ISO axis, with ticks at the full stops, whose labels never touch.

    Examples
    --------
    >>> iso_axis([100, 125, 160, 200])
    {'xlim': (80.0, 250.0), 'xticks': [(100.0, '100'), (200.0, '200')]}
    """
    isos = [float(iso) for iso in isos]
    stops = [stop for stop in 100 * 2.0 ** np.arange(-2, 12) if min(isos) * 0.99 <= stop <= max(isos) * 1.01]
    shown = [(float(stop), f"{stop:.10g}") for stop in (stops or sorted(set(isos)))]
    return {"xlim": (min(isos) / 1.25, max(isos) * 1.25), "xticks": shown}


class Scales(TypedDict, total=False):
    """Limits and ticks of a panel's axes, whether y runs downwards, and the width on the page [px]."""

    xlim: tuple[float, float]
    ylim: tuple[float, float]
    xticks: list[tuple[float, str]]
    yticks: list[tuple[float, str]]
    invert_y: bool
    width: int


def panel(
    elements: Iterable[Any], *, title: str, log: str = "", legend: str | None = "top_right", axes: bool = True,
    ratio: float | None = None, grid: bool | None = None, **scales: Unpack[Scales],
) -> hv.Overlay:  # fmt: skip
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
    scales
        ``xlim``, ``ylim``, ``xticks``, ``yticks``, ``invert_y`` and ``width``.

    Raises
    ------
    WorkbenchError
        If there is nothing to draw.
    """
    overlay = hv.Overlay([part for one in elements for part in (one if isinstance(one, hv.Overlay) else [one])])
    if not len(overlay):
        raise WorkbenchError(f"there is nothing to draw in the chart {title!r}: none of its values is known")
    width = scales.pop("width", WIDTH)
    common = {
        "title": title, "logx": "x" in log, "logy": "y" in log, "show_legend": legend is not None, "legend_limit": 100,
        "invert_yaxis": scales.pop("invert_y", False), "show_grid": axes and ratio is None if grid is None else grid,
        **({"legend_position": legend} if legend else {}), **{name: scale for name, scale in scales.items() if scale},
        **({} if axes else {"xaxis": None, "yaxis": None}),
    }  # fmt: skip
    bokeh = BOKEH | {
        "width": width, "height": HEIGHT if ratio is None else round((WIDTH - 90) / ratio + 70), "active_tools": [],
        "fontsize": {"title": "13px", "labels": "12px", "ticks": "11px", "legend": "11px"},
        "hooks": [finish_bokeh, *([partial(keep_ratio, ratio=ratio)] if ratio else [])],
    }  # fmt: skip
    matplotlib = {
        "fontsize": {"title": 10.5, "labels": 9.5, "xticks": 8.5, "yticks": 8.5, "legend": 8.5},
        "hooks": [finish_mpl], "show_frame": False, "aspect": ratio or WIDTH / HEIGHT,
    }  # fmt: skip
    return _set(overlay, common | bokeh, common | matplotlib)


def layout(panels: Iterable[hv.Overlay]) -> hv.Layout:
    """Put panels side by side."""
    made = hv.Layout(list(panels)).cols(2)
    bokeh = {"shared_axes": False, "merge_tools": False, "toolbar": None}
    return _set(made, bokeh, {"shared_axes": False, "sublabel_format": "", "tight": False})
