"""Update a figure that HoloViews has built: only what differs between two charts of the house style is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd
from bokeh.core.properties import value as label_value
from bokeh.models import FactorRange
from holoviews.core.util import dimension_sanitizer

from ..charts import theme
from ..charts.style import eight_bits, mark_log_axis, scale_bar

_KINDS = (hv.Scatter, hv.Curve, hv.ErrorBars, hv.Area, hv.Histogram, hv.Bars, hv.Labels, hv.Rectangles, hv.Segments,
          hv.Polygons, hv.Image)  # fmt: skip
# options that may change in place: of a panel, and of an element, with the properties of its glyph
_FREE = dict.fromkeys(("title", "xlim", "ylim"))
_STYLE = {"color": "line_color", "line_color": "line_color", "line_width": "line_width", "line_dash": "line_dash",
          "fill_color": "fill_color", "size": "size"}  # fmt: skip
_GLYPHS = ("glyph", "hover_glyph", "muted_glyph", "nonselection_glyph", "selection_glyph")


@dataclass(frozen=True, eq=False)
class PanelParts:
    """One panel of a chart: its elements, in their order, the options noted for each, and the panel's own options."""

    elements: list[Any]
    options: list[dict[str, Any]]
    own: dict[str, Any]


@dataclass
class FigureState:
    """What a figure shows, so that nothing is sent twice: each element's columns, label and style, and the limits.

    Limits that a chart does not set follow from the extremes along their axis and the elements shown: ``reach``.
    """

    columns: dict[int, dict[str, Any]] = field(default_factory=dict)
    styles: dict[int, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    reach: tuple[Any, ...] = ()


def panel_parts(chart: Any, notes: theme.Notes) -> list[PanelParts]:
    """Return the panels of a chart made under `theme.noted`; none if anything in it was made in another way."""
    panels = list(chart) if isinstance(chart, hv.Layout) else [chart]
    parts = []
    for panel in panels:
        if not isinstance(panel, hv.Overlay) or not all(id(element) in notes for element in (panel, *panel)):
            return []
        parts.append(PanelParts(list(panel), [notes[id(element)][1] for element in panel], notes[id(panel)][1]))
    return parts


def with_options(parts: Iterable[PanelParts], hooks: Iterable[Any]) -> hv.Layout:
    """Return the chart with the options that were noted, and one more hook for each panel."""
    panels = []
    with theme.drawn_by("bokeh"):
        for panel, hook in zip(parts, hooks, strict=True):
            elements = [
                element.opts(backend="bokeh", clone=True, **deepcopy(options))  # HoloViews empties some of them
                for element, options in zip(panel.elements, panel.options, strict=True)
            ]
            own = deepcopy(panel.own) | {"hooks": [*panel.own.get("hooks", []), hook]}
            panels.append(hv.Overlay(elements).opts(backend="bokeh", **own))
        return theme.layout(panels)


def match_elements(drawn: PanelParts, now: PanelParts) -> list[int] | None:
    """Return the index in the new chart of each drawn element, -1 for one that is gone; None if they do not match.

    They match where only data, limits, titles, labels, colours and widths differ, or elements are gone; kinds,
    dimensions and all other options must be the same.
    """
    if not _alike(drawn.own | _FREE, now.own | _FREE):
        return None
    if len(drawn.elements) == len(now.elements) and all(
        _same(drawn, at, now, at) and bool(drawn.elements[at].label) == bool(now.elements[at].label)
        for at in range(len(now.elements))
    ):
        return list(range(len(now.elements)))
    indices, at = [], 0
    for number, element in enumerate(drawn.elements):
        here = at < len(now.elements) and element.label == now.elements[at].label and _same(drawn, number, now, at)
        indices.append(at if here else -1)
        at += here
    return indices if at == len(now.elements) else None


def _same(drawn: PanelParts, number: int, now: PanelParts, at: int) -> bool:
    """Whether two elements are of one kind, with the same dimensions and options except for their style."""
    first, second = drawn.elements[number], now.elements[at]
    if type(first) is not type(second) or not isinstance(first, _KINDS):
        return False
    dims = ([(dim.name, dim.unit) for dim in element.dimensions()] for element in (first, second))
    if next(dims) != next(dims):
        return False
    if isinstance(first, hv.Bars) and list(first.dimension_values(0)) != list(second.dimension_values(0)):
        return False
    before, after = drawn.options[number], now.options[at]
    style = {name for name in _STYLE if isinstance(before.get(name), str | float | int)}
    others = ({name: option for name, option in options.items() if name not in style} for options in (before, after))
    return _alike(*others) and all(isinstance(after.get(name), str | float | int) for name in style)


def _alike(first: Any, second: Any) -> bool:
    """Whether two options are equal; arrays by their values, functions with arguments by their arguments."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(_alike(first[name], second[name]) for name in first)
    first, second = _unpacked(first), _unpacked(second)
    if isinstance(first, tuple) and isinstance(second, tuple):
        return len(first) == len(second) and all(map(_alike, first, second))
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        return np.array_equal(first, second)
    if first is second or isinstance(first, str | float | int | None):
        return first is second or (type(first) is type(second) and first == second)
    return type(first) is type(second) and repr(first) == repr(second)  # == of some is neither true nor false


def _unpacked(option: Any) -> Any:
    if isinstance(option, partial):
        return option.func, option.args, option.keywords
    return tuple(option) if isinstance(option, list) else option


def update_figure(plot: Any, now: PanelParts, indices: list[int], state: FigureState) -> None:
    """Write the new chart into the figure of the drawn one, and note in `state` what it shows then.

    Parameters
    ----------
    plot
        HoloViews' plot of the drawn panel.
    indices
        From `match_elements`.
    """
    limits = tuple(tuple(now.own.get(name) or (None, None)) for name in ("xlim", "ylim"))
    extremes: dict[str, list[float]] = {axis: [] for axis, given in zip("xy", limits, strict=True) if None in given}
    hidden = set()
    for number, (subplot, at) in enumerate(zip(plot.subplots.values(), indices, strict=True)):
        mark = subplot.handles.get("glyph_renderer", subplot.handles.get("glyph"))
        if mark.visible != (at >= 0):
            mark.visible = at >= 0
        if at < 0:
            hidden.add(mark)
            continue
        element = now.elements[at]
        columns = _columns(subplot, element)
        for axis in extremes:
            extremes[axis] += _extremes(columns, axis, element)
        if not _equal(columns, state.columns.get(number)):
            subplot.handles["source"].data = state.columns[number] = columns
        if state.styles.get(number) != (element.label, now.options[at]):
            state.styles[number] = element.label, now.options[at]
            _rename(plot.state, mark, element.label)
            _restyle(mark, now.options[at])
    _update_legend(plot.state, hidden)
    title = now.own.get("title", "")
    if plot.state.title.text != title:
        plot.state.title.text = title
    reach = (limits, indices, [(min(ends), max(ends)) for ends in extremes.values() if ends])
    if reach != state.reach:
        state.reach = reach
        _set_limits(plot, now, indices, limits)


def _update_legend(figure: Any, hidden: set[Any]) -> None:
    """Show the legend's items of visible elements only."""
    for item in (item for legend in figure.legend for item in legend.items):
        visible = not item.renderers or any(renderer not in hidden for renderer in item.renderers)
        if item.visible != visible:
            item.visible = visible


def _columns(subplot: Any, element: Any) -> dict[str, Any]:
    """Return an element's data by bokeh's columns, as HoloViews would set them; short ones as lists, sent faster."""
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
    """Return the columns of points, curves and error bars without HoloViews, ten times as fast; of others nothing."""
    if type(element) not in (hv.Scatter, hv.Curve, hv.ErrorBars) or not isinstance(element.data, pd.DataFrame | dict):
        return {}
    values = {dim.name: np.asarray(element.data[dim.name]) for dim in element.dimensions()}
    if isinstance(element, hv.ErrorBars):
        base, middle, error = values.values()
        return {"base": base, "lower": middle - error, "upper": middle + error}
    return values | {dimension_sanitizer(name): column for name, column in values.items()}


def _listed(column: Any) -> Any:
    """Return a short column as a list."""
    if isinstance(column, np.ndarray):
        return column.tolist() if column.size < 500 else column
    return list(column)


def _equal(columns: dict[str, Any], there: dict[str, Any] | None) -> bool:
    """Whether the figure shows these columns already."""
    return there is not None and all(
        column == there[name]  # lists of numbers or strings
        if isinstance(column, list) and column and isinstance(column[0], str | float | int)
        else _alike(column, there[name])
        for name, column in columns.items()
    )


def _extremes(columns: dict[str, Any], axis: str, element: Any) -> list[float]:
    """Return the minimum and the maximum of each column along an axis."""
    along = {element.dimensions()[0].name, "base", "x", "left", "right", "x0", "x1", "xs"}
    extremes = []
    for name, column in columns.items():
        if name == "image" or not len(column) or (name in along) != (axis == "x"):
            continue
        flat = np.ravel(column) if name not in ("xs", "ys") else np.concatenate(list(map(np.ravel, column)))
        good = flat[np.isfinite(flat)] if flat.dtype.kind not in "OUS" else flat[:0]
        extremes += [float(good.min()), float(good.max())] if good.size else []
    return extremes


def _rename(figure: Any, mark: Any, label: str) -> None:
    """Update the element's label in the legend."""
    for legend in figure.legend:
        for item in legend.items:
            if mark in item.renderers and item.label != label_value(label):
                item.label = label_value(label)


def _restyle(mark: Any, options: dict[str, Any]) -> None:
    """Set the colours and widths of a glyph in all its states."""
    for name, alternative in _STYLE.items():
        if isinstance(options.get(name), str | float | int):
            for glyph in (getattr(mark, state, None) for state in _GLYPHS):
                attribute = name if hasattr(glyph, name) else alternative
                value = getattr(glyph, attribute, None)
                if value is not None and value != options[name]:
                    setattr(glyph, attribute, options[name])


def _set_limits(plot: Any, now: PanelParts, indices: list[int], limits: tuple[Any, Any]) -> None:
    """Set the limits of the axes: as given, or as HoloViews would choose them."""
    chosen = (np.nan,) * 4
    if None in limits[0] + limits[1]:
        shown = [(key, now.elements[at]) for key, at in zip(plot.subplots, indices, strict=True) if at >= 0]
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
