"""A chart that follows its controls: its figure is changed in place, and drawn anew only where its parts change.

HoloViews builds a figure in 150 to 300 ms and updates one that it has built in 100 to 150 ms; nearly all of that goes
into options, which are the same after every move.  Here they are noted, not set (`charts.theme.noted`), and what
differs from the drawn figure is written into it: 10 to 20 ms.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import holoviews as hv
import panel as pn
from param.parameterized import resolve_ref

from ..charts import theme
from ..core.errors import WorkbenchError
from .live_figures import FigureState, PanelParts, dressed, panel_parts, suits, write

_TEXT_WIDTH = 780  # px
_WAIT = 5  # ms that a move waits for the next; Panel's 50 are for what takes longer


class LiveChart(pn.viewable.Viewer):
    """A chart bound to controls, as `panel.bind` gives it, that is changed rather than drawn anew.

    Where it raises a `WorkbenchError` the chart stays as it was, and the error's sentence stands below.  What is not
    made of `charts.theme`'s parts alone is shown anew for each move.

    Parameters
    ----------
    bound
        Gives the chart.
    fit
        What is done to a chart before it is drawn, such as making it smaller.
    """

    def __init__(self, bound: Callable[[], Any], fit: Callable[[hv.Layout], hv.Layout] | None = None) -> None:
        super().__init__()
        theme.load_backends()
        self._bound, self._fit = bound, fit
        self._plots: list[WeakKeyDictionary[Any, FigureState]] = []
        self._drawn: list[PanelParts] = []
        self._now: list[PanelParts] = []
        self._places: list[list[int]] = []
        self._place, self._problem = pn.Column(), pn.widgets.StaticText(visible=False)
        self._show(*self._made())
        for owner, names in _controls(bound).items():
            owner.param.watch(self._move, names)
            if isinstance(owner, pn.widgets.Widget):
                owner._debounce = _WAIT

    def __panel__(self) -> pn.Column:
        return pn.Column(self._place, self._problem)

    def _made(self) -> tuple[Any, list[PanelParts]]:
        """Return the chart for the controls as they are, and its panels; of a chart of another make there are none."""
        with theme.noted() as notes:
            chart = self._bound()
        parts = panel_parts(chart, notes)
        if not parts and notes:  # some of its options are lost
            with theme.drawn_by("bokeh"):
                chart = self._bound()
        return chart, parts

    def _show(self, chart: Any, parts: list[PanelParts]) -> None:
        """Draw the chart anew."""
        self._drawn = self._now = parts
        self._plots = [WeakKeyDictionary() for _ in parts]
        if parts:
            chart = dressed(parts, [partial(self._joined, number) for number in range(len(parts))])
        chart = self._fit(chart) if self._fit else chart
        there = self._place[0] if len(self._place) else None
        if parts and isinstance(there, pn.pane.HoloViews):
            there.object = chart
        elif isinstance(chart, hv.core.Dimensioned):
            self._place[:] = [pn.pane.HoloViews(chart, backend="bokeh")]
        else:
            self._place[:] = [chart]

    def _joined(self, number: int, plot: Any, _element: Any) -> None:
        """Take up a figure that was drawn just now, for a notebook or a browser, and bring it up to date."""
        self._plots[number][plot] = FigureState()
        if self._now is not self._drawn:
            self._write(number, plot)

    def _write(self, number: int, plot: Any) -> None:
        """Bring a figure up to date."""
        written = self._plots[number].get(plot)
        if written is not None:
            write(plot, self._now[number], self._places[number], written)

    def _move(self, *_events: Any) -> None:
        """Follow a control."""
        with pn.io.hold():
            try:
                made = self._made()
            except WorkbenchError as problem:
                self._problem.param.update(value=str(problem), visible=True)
                return
            self._problem.param.update(value="", visible=False)
            self._change(*made)
        pn.io.push_notebook(self._place)

    def _change(self, chart: Any, parts: list[PanelParts]) -> None:
        places = [suits(*both) for both in zip(self._drawn, parts, strict=False)]
        if len(parts) != len(self._drawn) or not parts or None in places or self._repaints(parts, places):
            self._show(chart, parts)
            return
        self._now, self._places = parts, places
        for number, plots in enumerate(self._plots):
            for plot in list(plots):
                document = plot.state.document
                if document is None or document.session_context is None or document is pn.state.curdoc:
                    self._write(number, plot)
                else:  # of another browser's session, which has a lock of its own
                    document.add_next_tick_callback(partial(self._write, number, plot))

    def _repaints(self, parts: list[PanelParts], places: list[list[int]]) -> bool:
        """Tell whether a line or an area gets another look in a notebook, where that must be drawn anew.

        JupyterLab sends such a change back to Python in a form that bokeh refuses, for these have one look for all
        their points (bokeh 3.9, Panel 1.9): a traceback would take the figure's place.
        """
        if not any(_in_notebook(plot.state.document) for plots in self._plots for plot in plots):
            return False
        return any(
            at >= 0 and isinstance(now.elements[at], hv.Curve | hv.Area) and drawn.options[number] != now.options[at]
            for drawn, now, there in zip(self._drawn, parts, places, strict=True)
            for number, at in enumerate(there)
        )


def _in_notebook(document: Any) -> bool:
    """Tell whether a document is shown in a notebook, with which Panel talks by a comm."""
    return any(comm is not None and there is document for *_, there, comm in pn.state._views.values())


def _controls(bound: Callable[[], Any]) -> dict[Any, list[str]]:
    """Return what a bound function depends on: the names of parameters, by the controls they belong to."""
    found: dict[Any, list[str]] = {}
    for parameter in resolve_ref(bound):
        names = found.setdefault(parameter.owner, [])
        if parameter.name not in names:
            names.append(parameter.name)
    return found


def live_chart(chart: Callable[..., hv.Layout], **controls: Any) -> LiveChart:
    """Return a chart that follows its controls.

    Parameters
    ----------
    chart
        From the controls' values to a chart.
    controls
        Widgets, by the names that `chart` knows their values by.

    Examples
    --------
    >>> slider = pn.widgets.IntSlider(value=1, start=1, end=9)
    >>> dims = theme.dimension("x"), theme.dimension("y")
    >>> def line(slope):
    ...     return theme.layout([theme.panel([theme.line([0, 1], [0, slope], dims=dims)], title=f"slope {slope}")])
    >>> type(live_chart(line, slope=slider).__panel__()[0][0]).__name__
    'HoloViews'
    """
    return LiveChart(pn.bind(chart, **controls))


def live_text(words: Any, **styles: str) -> pn.widgets.StaticText:
    """Show a sentence that changes: a string, something bound to widgets or a reactive value; ``**bold**`` is bold.

    A widget, not a pane of Markdown: a pane that changes asks the network for its style sheets each time, even where
    Panel was told to bring them along (Panel 1.9, `inline=True`).
    """
    text = pn.widgets.StaticText(value=pn.bind(_bold, words), width=_TEXT_WIDTH, styles={"font-size": "13px", **styles})
    text.visible = bool(text.value)  # nothing said takes no room
    text.param.watch(lambda event: setattr(text, "visible", bool(event.new)), "value")
    return text


def _bold(words: str) -> str:
    """Turn the one mark that the course's live sentences use into HTML.

    Examples
    --------
    >>> _bold("You predicted **4 e⁻**.")
    'You predicted <b>4 e⁻</b>.'
    """
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", words)
