"""What differs between two charts of the house style, written into a figure that HoloViews has built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd
from bokeh.core.properties import value
from bokeh.models import FactorRange
from holoviews.core.util import dimension_sanitizer

from ..charts import theme
from ..charts.style import eight_bits, mark_log_axis, scale_bar

_KINDS = (hv.Scatter, hv.Curve, hv.ErrorBars, hv.Area, hv.Histogram, hv.Bars, hv.Labels, hv.Rectangles, hv.Segments,
          hv.Polygons, hv.Image)  # fmt: skip
# options that may change in place: of a panel, and of an element, with the properties of its glyph
_FREE = dict.fromkeys(("title", "xlim", "ylim"))
_LOOKS = {"color": "line_color", "line_color": "line_color", "line_width": "line_width", "line_dash": "line_dash",
          "fill_color": "fill_color", "size": "size"}  # fmt: skip
_GLYPHS = ("glyph", "hover_glyph", "muted_glyph", "nonselection_glyph", "selection_glyph")


@dataclass(frozen=True, eq=False)
class PanelParts:
    """One pair of axes: its elements, in their order, with the options noted for each, and its own options."""

    elements: list[Any]
    options: list[dict[str, Any]]
    own: dict[str, Any]


@dataclass
class FigureState:
    """What stands in a figure, so that nothing is sent twice: each element's columns, name and looks, and the limits.

    Limits that a chart does not give follow from the extremes along their axis, and from what is shown: ``reach``.
    """

    columns: dict[int, dict[str, Any]] = field(default_factory=dict)
    looks: dict[int, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    reach: tuple[Any, ...] = ()


def panel_parts(chart: Any, notes: theme.Notes) -> list[PanelParts]:
    """Return the panels of a chart made under `theme.noted`; none if anything in it is of another make."""
    panels = list(chart) if isinstance(chart, hv.Layout) else [chart]
    found = []
    for panel in panels:
        if not isinstance(panel, hv.Overlay) or not all(id(one) in notes for one in (panel, *panel)):
            return []
        found.append(PanelParts(list(panel), [notes[id(one)][1] for one in panel], notes[id(panel)][1]))
    return found


def dressed(parts: Iterable[PanelParts], hooks: Iterable[Any]) -> hv.Layout:
    """Set the options that were noted, and a hook for each panel besides its own; return the chart."""
    panels = []
    with theme.drawn_by("bokeh"):
        for sheet, hook in zip(parts, hooks, strict=True):
            elements = [
                one.opts(backend="bokeh", clone=True, **deepcopy(options))  # HoloViews empties some of them
                for one, options in zip(sheet.elements, sheet.options, strict=True)
            ]
            own = deepcopy(sheet.own) | {"hooks": [*sheet.own.get("hooks", []), hook]}
            panels.append(hv.Overlay(elements).opts(backend="bokeh", **own))
        return theme.layout(panels)


def suits(drawn: PanelParts, now: PanelParts) -> list[int] | None:
    """Return where each drawn element stands in the chart as it is now, -1 for one that is gone; None if not possible.

    It is possible where nothing but data, limits, titles, names, colours and widths differ, or elements are gone;
    kinds, dimensions and all other options must be the same.
    """
    if not _alike(drawn.own | _FREE, now.own | _FREE):
        return None
    if len(drawn.elements) == len(now.elements) and all(
        _same(drawn, at, now, at) and bool(drawn.elements[at].label) == bool(now.elements[at].label)
        for at in range(len(now.elements))
    ):
        return list(range(len(now.elements)))
    places, at = [], 0
    for number, element in enumerate(drawn.elements):
        here = at < len(now.elements) and element.label == now.elements[at].label and _same(drawn, number, now, at)
        places.append(at if here else -1)
        at += here
    return places if at == len(now.elements) else None


def _same(drawn: PanelParts, number: int, now: PanelParts, at: int) -> bool:
    """Whether two elements are of one kind, with the same dimensions and options but for their looks."""
    one, other = drawn.elements[number], now.elements[at]
    if type(one) is not type(other) or not isinstance(one, _KINDS):
        return False
    dims = ([(dim.name, dim.unit) for dim in element.dimensions()] for element in (one, other))
    if next(dims) != next(dims):
        return False
    if isinstance(one, hv.Bars) and list(one.dimension_values(0)) != list(other.dimension_values(0)):
        return False
    style, changed = drawn.options[number], now.options[at]
    looks = {name for name in _LOOKS if isinstance(style.get(name), str | float | int)}
    return _alike(*({k: v for k, v in options.items() if k not in looks} for options in (style, changed))) and all(
        isinstance(changed.get(name), str | float | int) for name in looks
    )


def _alike(one: Any, other: Any) -> bool:
    """Whether two options are equal; arrays by their values, functions with arguments by these."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_alike(one[name], other[name]) for name in one)
    if isinstance(one, partial) and isinstance(other, partial):
        return one.func == other.func and _alike(one.args, other.args) and _alike(one.keywords, other.keywords)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    if one is other or isinstance(one, str | float | int | None):
        return one is other or (type(one) is type(other) and one == other)
    return type(one) is type(other) and repr(one) == repr(other)  # some compare to what is neither true nor false


def write(plot: Any, now: PanelParts, places: list[int], written: FigureState) -> None:
    """Write a chart as it is now into the figure of the drawn one.

    Parameters
    ----------
    plot
        HoloViews' plot of the drawn panel.
    places
        From `suits`.
    """
    limits = tuple(tuple(now.own.get(name) or (None, None)) for name in ("xlim", "ylim"))
    extremes: dict[str, list[float]] = {axis: [] for axis, given in zip("xy", limits, strict=True) if None in given}
    hidden = set()
    for number, (subplot, at) in enumerate(zip(plot.subplots.values(), places, strict=True)):
        mark = subplot.handles.get("glyph_renderer", subplot.handles.get("glyph"))
        if mark.visible != (at >= 0):
            mark.visible = at >= 0
        if at < 0:
            hidden.add(mark)
            continue
        element, looks = now.elements[at], (now.elements[at].label, now.options[at])
        columns = _columns(subplot, element)
        for axis in extremes:
            extremes[axis] += _extremes(columns, axis, element)
        if not _equal(columns, written.columns.get(number)):
            subplot.handles["source"].data = written.columns[number] = columns
        if written.looks.get(number) != looks:
            _rename(plot.state, mark, element.label)
            _dye(mark, now.options[at])
            written.looks[number] = looks
    for item in (item for legend in plot.state.legend for item in legend.items):
        shown = not item.renderers or any(one not in hidden for one in item.renderers)
        if item.visible != shown:
            item.visible = shown
    title = now.own.get("title", "")
    if plot.state.title.text != title:
        plot.state.title.text = title
    reach = (limits, places, [(min(ends), max(ends)) for ends in extremes.values() if ends])
    if reach != written.reach:
        written.reach = reach
        _set_limits(plot, now, places, limits)


def _columns(subplot: Any, element: Any) -> dict[str, Any]:
    """Return an element's data by bokeh's columns, as HoloViews would have it, in lists: short ones travel faster."""
    there = subplot.handles["source"].data
    known = _known(element)
    if known.keys() >= there.keys():
        return {name: _listed(known[name]) for name in there}
    data = subplot.get_data(element, {}, {})[0]
    if isinstance(element, hv.Image):
        low, high = element.vdims[0].range
        scale_bar(subplot, low, high)
        data["image"] = [eight_bits(data["image"][0], low, high)]
        return data
    columns = {name: _listed(column) for name, column in data.items()}
    return {**there, **columns} if isinstance(element, hv.Bars) else columns  # the colours of the same names stay


def _known(element: Any) -> dict[str, np.ndarray]:
    """Return the columns of points, curves and error bars without HoloViews' help, ten times as fast; else nothing."""
    if type(element) not in (hv.Scatter, hv.Curve, hv.ErrorBars) or not isinstance(element.data, pd.DataFrame | dict):
        return {}
    values = {dim.name: np.asarray(element.data[dim.name]) for dim in element.dimensions()}
    if isinstance(element, hv.ErrorBars):
        base, middle, error = values.values()
        return {"base": base, "lower": middle - error, "upper": middle + error}
    return values | {dimension_sanitizer(name): column for name, column in values.items()}


def _listed(column: Any) -> Any:
    """Return a column as bokeh may have it: a short one as a list."""
    if isinstance(column, np.ndarray):
        return column.tolist() if column.size < 500 else column
    return list(column)


def _equal(columns: dict[str, Any], there: dict[str, Any] | None) -> bool:
    """Whether these columns stand there already."""
    return there is not None and all(
        column == there[name] if _plain(column) else _alike(column, there[name]) for name, column in columns.items()
    )


def _plain(column: Any) -> bool:
    """Whether a column is a list of numbers or words, which compare at once."""
    return isinstance(column, list) and bool(column) and isinstance(column[0], str | float | int)


def _extremes(columns: dict[str, Any], axis: str, element: Any) -> list[float]:
    """Return the lowest and the highest number along an axis, of each column that lies along it."""
    along = {element.dimensions()[0].name, "base", "x", "left", "right", "x0", "x1", "xs"}
    found = []
    for name, column in columns.items():
        if name == "image" or not len(column) or (name in along) != (axis == "x"):
            continue
        flat = np.ravel(column) if name not in ("xs", "ys") else np.concatenate([np.ravel(one) for one in column])
        good = flat[np.isfinite(flat)] if flat.dtype.kind not in "OUS" else flat[:0]
        found += [float(good.min()), float(good.max())] if good.size else []
    return found


def _rename(figure: Any, mark: Any, label: str) -> None:
    """Let the legend say what the element is called now."""
    for legend in figure.legend:
        for item in legend.items:
            if mark in item.renderers and item.label != value(label):
                item.label = value(label)


def _dye(mark: Any, options: dict[str, Any]) -> None:
    """Give a glyph, in all its states, the colours and the width it has now."""
    for name, wanted in _LOOKS.items():
        if isinstance(options.get(name), str | float | int):
            for glyph in (getattr(mark, one, None) for one in _GLYPHS):
                there = getattr(glyph, name if hasattr(glyph, name) else wanted, None)
                if there is not None and there != options[name]:
                    setattr(glyph, name if hasattr(glyph, name) else wanted, options[name])


def _set_limits(plot: Any, now: PanelParts, places: list[int], limits: tuple[Any, Any]) -> None:
    """Set the limits of the axes: those given, and for an axis without, what HoloViews would choose."""
    chosen = (np.nan,) * 4
    if None in limits[0] + limits[1]:
        shown = [(key, now.elements[at]) for key, at in zip(plot.subplots, places, strict=True) if at >= 0]
        overlay = hv.Overlay(shown)
        chosen = plot.get_extents(overlay, plot.compute_ranges(hv.HoloMap({0: overlay}), (0,), {}))
    for axis, at, given in (("x", 0, limits[0]), ("y", 1, limits[1])):
        span = plot.handles[f"{axis}_range"]
        if isinstance(span, FactorRange):
            continue
        low, high = (chosen[n] if end is None else end for n, end in zip((at, at + 2), given, strict=True))
        low, high = (high, low) if now.own.get(f"invert_{axis}axis") else (low, high)
        ends = {"start": low, "end": high, "reset_start": low, "reset_end": high}
        changed = {name: float(end) for name, end in ends.items() if np.isfinite(end) and getattr(span, name) != end}
        if changed:
            span.update(**changed)
            if f"{axis}ticks" not in now.own:
                mark_log_axis(plot.state, axis)
