"""Charts and sentences that follow their controls.

A chart's figure is updated in place, and drawn again only where its parts change.  HoloViews builds a figure in 150 to
300 ms and updates one that it has built in 100 to 150 ms; nearly all of that is spent on options, which are the same
after every move.  Here they are noted, not set (`charts.theme.noted`), and only what differs is written: 10 to 20 ms.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import holoviews as hv
import panel as pn
from bokeh.models.ui import UIElement
from panel.io.notebook import patch_inline_stylesheets
from param.parameterized import resolve_ref

from ..charts import theme
from ..core.errors import WorkbenchError
from .live_figures import FigureState, PanelParts, match_elements, panel_parts, update_figure, with_options

_TEXT_WIDTH = 780  # px
_WRAP = ".bk-GridBox { display: flex !important; flex-wrap: wrap; max-width: 100%; }"
_WAIT = 5  # ms that a move waits for the next; Panel's 50 are for what takes longer


class LiveChart(pn.viewable.Viewer):
    """A chart bound to controls, as by `panel.bind`, whose figure is updated in place.

    Where it raises a `WorkbenchError` the chart stays as it was, with the error's message below.  A chart that is not
    made of `charts.theme`'s elements alone is drawn again for each move.

    Parameters
    ----------
    bound
        Returns the chart.
    fit
        Applied to a chart before it is drawn, such as making it smaller.
    """

    def __init__(self, bound: Callable[[], Any], fit: Callable[[hv.Layout], hv.Layout] | None = None) -> None:
        super().__init__()
        hear_every_move()
        theme.load_backends()
        self._bound, self._fit = bound, fit
        self._plots: list[WeakKeyDictionary[Any, FigureState]] = []
        self._drawn: list[PanelParts] = []
        self._now: list[PanelParts] = []
        self._indices: list[list[int]] = []
        self._figure, self._problem = pn.Column(sizing_mode="stretch_width"), pn.widgets.StaticText(visible=False)
        self._show(*self._made())
        for owner, names in _controls(bound).items():
            owner.param.watch(self._move, names)
            if isinstance(owner, pn.widgets.Widget):
                owner._debounce = _WAIT

    def __panel__(self) -> pn.Column:
        return pn.Column(self._figure, self._problem, sizing_mode="stretch_width")

    def _made(self) -> tuple[Any, list[PanelParts]]:
        """Return the chart for the controls as they are, and its panels; none of a chart that must be drawn again."""
        with theme.noted() as notes:
            chart = self._bound()
        parts = panel_parts(chart, notes)
        if not parts and notes:  # some of its options would be lost
            with theme.drawn_by("bokeh"):
                chart = self._bound()
        return chart, parts

    def _show(self, chart: Any, parts: list[PanelParts]) -> None:
        """Draw the chart again."""
        self._drawn = self._now = parts
        self._plots = [WeakKeyDictionary() for _ in parts]
        if parts:
            chart = with_options(parts, [partial(self._add_plot, number) for number in range(len(parts))])
        chart = self._fit(chart) if self._fit else chart
        pane = self._figure[0] if len(self._figure) else None
        if parts and isinstance(pane, pn.pane.HoloViews):
            pane.object = chart
        elif isinstance(chart, hv.core.Dimensioned):
            self._figure[:] = [wrapped(chart)]
        else:
            self._figure[:] = [chart]

    def _add_plot(self, number: int, plot: Any, _element: Any) -> None:
        """Note a figure that was drawn just now, for a notebook or a browser, and bring it up to date."""
        self._plots[number][plot] = FigureState()
        if self._now is not self._drawn:
            self._write(number, plot)

    def _write(self, number: int, plot: Any) -> None:
        """Bring a figure up to date."""
        state = self._plots[number].get(plot)
        if state is not None:
            update_figure(plot, self._now[number], self._indices[number], state)

    def _move(self, *_events: Any) -> None:
        """Follow a control."""
        with pn.io.hold():
            try:
                chart, parts = self._made()
            except WorkbenchError as problem:
                self._problem.param.update(value=str(problem), visible=True)
                return
            self._problem.param.update(value="", visible=False)
            self._change(chart, parts)
        pn.io.push_notebook(self._figure)

    def _change(self, chart: Any, parts: list[PanelParts]) -> None:
        indices = [match_elements(*panels) for panels in zip(self._drawn, parts, strict=False)]
        if len(parts) != len(self._drawn) or not parts or None in indices or self._restyles(parts, indices):
            self._show(chart, parts)
            return
        self._now, self._indices = parts, indices
        for number, plots in enumerate(self._plots):
            for plot in list(plots):
                document = plot.state.document
                if document is None or document.session_context is None or document is pn.state.curdoc:
                    self._write(number, plot)
                else:  # it belongs to another browser's session, which has a lock of its own
                    document.add_next_tick_callback(partial(self._write, number, plot))

    def _restyles(self, parts: list[PanelParts], indices: list[list[int]]) -> bool:
        """Whether the style of a line or an area changes in a notebook, where it must be drawn again.

        JupyterLab sends such a change back to Python in a form that bokeh refuses (bokeh 3.9, Panel 1.9), and a
        traceback would replace the figure.
        """
        if not any(_in_notebook(plot.state.document) for plots in self._plots for plot in plots):
            return False
        return any(
            at >= 0 and isinstance(now.elements[at], hv.Curve | hv.Area) and drawn.options[number] != now.options[at]
            for drawn, now, matched in zip(self._drawn, parts, indices, strict=True)
            for number, at in enumerate(matched)
        )


def wrapped(chart: Any) -> pn.pane.HoloViews:
    """Show a chart whose panels stand side by side where there is room, else one below the other."""
    return pn.pane.HoloViews(chart, backend="bokeh", stylesheets=[_WRAP], styles={"max-width": "100%"})


def _in_notebook(document: Any) -> bool:
    """Whether a document is shown in a notebook, with which Panel communicates by a comm."""
    return any(comm is not None and shown is document for *_, shown, comm in pn.state._views.values())


def hear_every_move() -> None:
    """Have a notebook's kernel handle what controls send in order, in its main thread, and no move before its channel.

    JupyterLab from 4.4 on sends the opening of a control's channel and the moves of the control to different threads of
    the kernel (subshells).  A move that comes first would be dropped, and the page, which waits for an answer, would
    send none of those that follow.  Does nothing outside of a notebook, or the second time.
    """
    ipython = sys.modules.get("IPython")
    kernel = getattr(ipython.get_ipython(), "kernel", None) if ipython else None
    if not hasattr(kernel, "comm_manager") or isinstance(kernel.shell_handlers["comm_msg"], partial):
        return
    manager, handlers, loop = kernel.comm_manager, kernel.shell_handlers, kernel.io_loop
    early: dict[str, list[tuple[Any, ...]]] = {}  # by channel

    def opened(*message: Any) -> None:
        manager.comm_open(*message)
        for move in early.pop(message[-1]["content"]["comm_id"], []):
            manager.comm_msg(*move)

    def moved(*message: Any) -> None:
        channel = message[-1]["content"]["comm_id"]
        if channel in manager.comms:
            manager.comm_msg(*message)
        else:
            early.setdefault(channel, []).append(message)

    handlers["comm_open"] = partial(loop.add_callback, opened)
    handlers["comm_msg"] = partial(loop.add_callback, moved)
    handlers["comm_close"] = partial(loop.add_callback, manager.comm_close)
    pn.viewable.Viewable._preprocessing_hooks.append(_inline_first)


def _inline_first(_viewable: Any, root: Any, _changed: Any, _old_models: Any = None) -> None:
    """Put style sheets into a page under `inline=True` before it belongs to a document.

    Panel does it afterwards, and the document then collects all of its models again for each of them (Panel 1.9).
    """
    if pn.config.inline and root.document is None and root.ref["id"] not in pn.state._views:
        for model in root.select({"type": UIElement}):
            patch_inline_stylesheets(model)


def _controls(bound: Callable[[], Any]) -> dict[Any, list[str]]:
    """Return the parameters that a bound function depends on, by the controls they belong to."""
    controls: dict[Any, list[str]] = {}
    for parameter in resolve_ref(bound):
        names = controls.setdefault(parameter.owner, [])
        if parameter.name not in names:
            names.append(parameter.name)
    return controls


def live_chart(chart: Callable[..., hv.Layout], **controls: Any) -> LiveChart:
    """Return a chart that follows its controls.

    Parameters
    ----------
    chart
        Returns a chart for the controls' values.
    controls
        Widgets, by the names of the arguments that receive their values.

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


def live_text(text: Any, **styles: str) -> pn.widgets.StaticText:
    """Show a sentence that changes: a string, something bound to widgets or a reactive value; ``**bold**`` is bold.

    A widget, not a pane of Markdown: a pane that changes fetches its style sheets from the network each time, even
    under `inline=True` (Panel 1.9).

    Examples
    --------
    >>> live_text("Measured: **4 e⁻**.").value
    'Measured: <b>4 e⁻</b>.'
    """
    hear_every_move()
    look: dict[str, Any] = {"sizing_mode": "stretch_width", "max_width": _TEXT_WIDTH}
    value = _bold(text) if isinstance(text, str) else pn.bind(_bold, text)
    line = pn.widgets.StaticText(value=value, styles={"font-size": "13px", **styles}, **look)
    line.visible = bool(line.value)  # an empty line takes no space
    line.param.watch(lambda event: setattr(line, "visible", bool(event.new)), "value")
    return line


def _bold(text: str) -> str:
    """Turn ``**bold**`` into HTML.

    Examples
    --------
    >>> _bold("You predicted **4 e⁻**.")
    'You predicted <b>4 e⁻</b>.'
    """
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text)
