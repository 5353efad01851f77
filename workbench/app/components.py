"""Parts that the app's pages share: the screen, drawings, tables, status lines, a job with its buttons."""

from __future__ import annotations

import asyncio
import html
import logging
import shlex
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import panel as pn
import param
from bokeh.core.property.vectorization import Value
from bokeh.models import Plot

from ..core.errors import WorkbenchError
from ..core.settings import SETTING
from ..core.values import shutter
from ..export.pages import DARK, set_colours
from ..finish.palettes import choose_palette, parse_palette
from ..ingest.folder import Folder
from . import viewer
from .jobs import CANCELLED, FAILED, FINISHED, Job
from .session import Session

_LOG = logging.getLogger(__name__)
WIDE = {"sizing_mode": "stretch_width"}
_TONE = {FINISHED: "good", FAILED: "bad", CANCELLED: "bad"}
NO_ARROWS = ".bk-spin-btn { display: none !important; }"  # nameless buttons; the arrow keys do the same
_DEFAULT_WIDTH = 1200  # of a page until its browser has reported it [px]
_MARGINS = 46  # left and right of a drawing [px]
_AXIS = 76  # left of a picture [px]
_NARROWEST = 240  # drawing [px]
_LIGHT = {dark: light for light, dark in reversed(DARK.items())}


class Screen(pn.custom.JSComponent):
    """Reports the width of the page and whether the reader prefers dark pages; takes up no space.

    It reports once the tabs are drawn. Until then nothing may change: Bokeh's views take no changes before they are
    drawn (a button that is disabled then raises an error in the browser).
    """

    width = param.Integer(default=0, doc="Of the page [px]; 0 until it is known.")
    dark = param.Boolean(default=False, doc="Whether the reader's system asks for dark pages.")

    _esm = """
    export function render({model}) {
      const prefers = window.matchMedia('(prefers-color-scheme: dark)');
      const look = () => {
        model.dark = prefers.matches;
        model.width = document.documentElement.clientWidth;
      };
      const begin = () => {
        const tabs = [...document.querySelectorAll('*')].find((one) => one.shadowRoot?.querySelector('.bk-header'));
        if (!tabs) return void setTimeout(begin, 50);
        tabs.shadowRoot.prepend(tabs.shadowRoot.querySelector('.bk-header'));  // the keyboard meets the tabs first
        look();
        prefers.addEventListener('change', look);
        window.addEventListener('resize', look);
      };
      begin();
      return document.createElement('span');
    }
    """

    async def known(self, patience: float = 60.0) -> None:
        """Wait until the browser has drawn the page and reported its width, at most `patience` seconds."""
        for _ in range(round(patience / 0.05)):
            if self.width:
                return
            await asyncio.sleep(0.05)

    @property
    def narrow(self) -> bool:
        """Whether the page is too narrow for two drawings side by side."""
        return 0 < self.width < 760

    def fit(self, width: int, axis: bool = True) -> int:
        """Return the width of a picture [px]: as asked, or what the screen has room for."""
        room = (self.width or _DEFAULT_WIDTH) - _MARGINS - (_AXIS if axis else 0)
        return max(_NARROWEST, min(width, room))


class Drawing(pn.pane.HoloViews):
    """A chart or live picture in the colours of the page, no wider than the page unless its width is fixed."""

    screen = param.ClassSelector(class_=Screen, doc="What it is shown on.")

    def __init__(self, drawn: Any = None, **params: Any) -> None:
        super().__init__(drawn, backend="bokeh", linked_axes=False, center=False, **params)
        if self.screen is not None:
            self.screen.param.watch(lambda _: self._recolour(), "dark")

    def _get_model(self, doc: Any, root: Any = None, parent: Any = None, comm: Any = None) -> Any:
        model = super()._get_model(doc, root, parent, comm)
        if self.screen is not None:
            room = self.screen.fit(10_000, axis=False)
            for figure in model.select({"type": Plot}):
                if figure.frame_width is None and figure.width is not None:
                    figure.width = min(figure.width, room)
            set_colours(model)
            recolour(model, self.screen.dark)
        return model

    def _recolour(self) -> None:
        for plot, _ in self._plots.values():
            recolour(plot.state, self.screen.dark)


def recolour(model: Any, dark: bool) -> None:
    """Change the colours of a drawing to those of a dark page, or back.

    Examples
    --------
    >>> from bokeh.models import Title
    >>> title = Title(text="Gain", text_color="#1f2933")
    >>> recolour(title, dark=True)
    >>> title.text_color
    '#e4eaf0'
    >>> recolour(title, dark=False)
    >>> title.text_color
    '#1f2933'
    """
    colours = DARK if dark else _LIGHT
    changes = []
    for part in model.references():
        for name, value in part.properties_with_values(include_defaults=False, include_undefined=False).items():
            if "color" in name and (new := _translated(value, colours)) is not value:
                changes.append((part, name, new))
    for part, name, new in changes:
        setattr(part, name, new)


def _translated(value: Any, colours: dict[str, str]) -> Any:
    """Return the other page's colour for a colour, or for one given as a value to all points; else the same."""
    if isinstance(value, str):
        return colours.get(value.lower(), value)
    if isinstance(value, Value) and isinstance(value.value, str) and value.value.lower() in colours:
        return Value(colours[value.value.lower()])
    return value


def drawing(element: Any, screen: Screen) -> pn.Column:
    """Return a chart or a live picture in the colours of the page, with a scroll bar where the screen is narrower."""
    return scrolled(Drawing(element, screen=screen))


def scrolled(wide: Any) -> pn.Column:
    """Return what may be wider than a phone's screen in a column that scrolls by itself."""
    return pn.Column(wide, styles={"overflow-x": "auto", "max-width": "100%"})


def side_by_side(pictures: list[viewer.Picture], screen: Screen) -> pn.Column:
    """Return pictures whose views move together: side by side, on a phone one below the other."""
    columns, width = (1, screen.fit(480)) if screen.narrow else (2, 480)
    return drawing(viewer.side_by_side(pictures, columns=columns, width=width), screen)


def heading(text: str, description: str = "") -> pn.pane.HTML:
    """Return a page's heading with a sentence below it."""
    below = f"<p>{description}</p>" if description else ""
    return pn.pane.HTML(f"<h2>{html.escape(text)}</h2>{below}", **WIDE)


def scrolled_html(body: str, label: str) -> str:
    """Return HTML in a region that scrolls by itself and has a name for screen readers."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(label)}">{body}</div>'


def table(frame: pd.DataFrame, caption: str) -> pn.pane.HTML:
    """Return a table with its caption; wide ones scroll."""
    body = frame.to_html(border=0, justify="left", na_rep="–")
    body = body.replace("<thead>", f"<caption>{html.escape(caption)}</caption><thead>", 1)
    return pn.pane.HTML(scrolled_html(body.replace("<th></th>", "<td></td>"), caption), **WIDE)


def bullets(sentences: list[str], most: int = 12) -> str:
    """Return sentences as an HTML list; those beyond `most` are counted."""
    shown = "".join(f"<li>{html.escape(text)}</li>" for text in sentences[:most])
    more = f"<li>and {len(sentences) - most} more</li>" if len(sentences) > most else ""
    return f"<ul>{shown}{more}</ul>" if sentences else ""


def folder_overview(folder: Folder) -> pd.DataFrame:
    """Tabulate what is in a folder, a row for each kind of frame: count, settings, filters, exposures, temperatures.

    A column of which nothing is known is left out; so is the ISO where there are gain settings.

    Parameters
    ----------
    folder
        From `workbench.open_folder`.
    """
    shown = [name for name in folder.summary().columns if name in (*SETTING, "filter")]
    rows = {}
    for kind, frames in folder.table.groupby("kind", sort=False):
        rows[kind or "unknown"] = {
            "frames": len(frames),
            **{"ISO" if name == "iso" else name.replace("_", " "): _different(frames[name]) for name in shown},
            "exposures": _different(frames["exposure"], shutter),
            "temperatures [°C]": _different(frames["temperature"].round(1), lambda one: f"{one:g}".replace("-", "−")),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _different(values: pd.Series, write: Callable[[Any], str] | None = None) -> str:
    """Write the different values of a column; of more than seven the first and the last."""
    known = sorted(values.replace("", np.nan).dropna().unique())
    write = write or ("{:g}".format if pd.api.types.is_numeric_dtype(values) else str)
    if len(known) > 7:
        return f"{len(known)} from {write(known[0])} to {write(known[-1])}"
    return ", ".join(map(write, known)) or "not recorded"


class Status:
    """A line of text about the present state; screen readers announce its changes."""

    def __init__(self, text: str = "") -> None:
        self.pane = pn.pane.HTML("", **WIDE)
        self.show(text)

    def show(self, text: str, tone: str = "") -> None:
        """Show a sentence; the tone is ``good``, ``bad`` or nothing."""
        new = f'<div class="status {tone}" role="status">{html.escape(text)}</div>'
        if self.pane.object != new:
            self.pane.object = new


def guarded(status: Status, action: Callable[[], Any]) -> Callable[..., None]:
    """Wrap what a button does: an error becomes a sentence in the status line, an unexpected one is logged too."""

    def act(*_: Any) -> None:
        try:
            action()
        except WorkbenchError as problem:
            status.show(" ".join(str(problem).split()), "bad")
        except Exception as error:
            _LOG.exception("the app met something unexpected")
            text = f"This should not have happened ({type(error).__name__}: {error}); the log has the details."
            status.show(text, "bad")

    return act


class PaletteFields:
    """How stacks of several filters make a picture: palette, or sums of filters, and each filter's weight.

    Hidden as long as there is one stack only.
    """

    _SUMS = "sums of filters"

    def __init__(self) -> None:
        options = ["auto", "RGB", "LRGB", "SHO", "HOO", self._SUMS]
        self.menu = pn.widgets.Select(label="Palette of filters", options=options, width=150)
        self.sums = pn.widgets.TextInput(
            label="Sums (weight * filter)", value="R=0.8*SII+0.2*Ha, G=Ha, B=OIII", visible=False, max_width=420, **WIDE
        )
        self.filters: tuple[str, ...] = ()
        self.weights: dict[str, pn.widgets.FloatInput] = {}
        self.fields = pn.FlexBox()
        self.panel = pn.Column(pn.FlexBox(self.menu, self.sums), self.fields, visible=False, **WIDE)
        for control in (self.menu, self.sums):
            control.param.watch(lambda _: self._offer_weights(), "value")

    def offer(self, filters: tuple[str, ...]) -> None:
        """Offer what these filters can make."""
        if filters != self.filters:
            self.filters, self.panel.visible = filters, len(filters) > 1
            self._offer_weights()

    def _offer_weights(self) -> None:
        """Offer a weight for each filter that the palette uses."""
        self.sums.visible = self.menu.value == self._SUMS
        try:
            palette = choose_palette(list(self.filters)) if self.menu.value == "auto" else self._palette
            used = dict.fromkeys(name for terms in parse_palette(palette).values() for name in terms)
        except WorkbenchError:  # said when the picture is made
            used = dict.fromkeys(self.filters)
        if list(used) != list(self.weights):
            self.weights = {name: self.weights.get(name) or _weight(name) for name in used}
            self.fields[:] = list(self.weights.values())

    @property
    def _palette(self) -> str:
        return self.sums.value if self.menu.value == self._SUMS else self.menu.value

    def chosen(self) -> dict[str, Any]:
        """Return palette and weights as `finish_stack` takes them; nothing for one stack.

        Raises
        ------
        WorkbenchError
            If the sums are not to be understood.
        """
        if len(self.filters) < 2:
            return {}
        if self._palette != "auto":
            parse_palette(self._palette)
        return {
            "palette": self._palette,
            "weights": {name: field.value for name, field in self.weights.items() if field.value is not None},
        }


def _weight(name: str) -> pn.widgets.FloatInput:
    """Return the field for the weight of a filter; empty for the usual one."""
    share = name == "L"
    return pn.widgets.FloatInput(
        label="L, its share" if share else f"{name}, times", value=None, start=0.0, step=0.1,
        end=1.0 if share else 10.0, width=110, stylesheets=[NO_ARROWS], placeholder="least noise" if share else "1",
    )  # fmt: skip


class JobPage:
    """A page with a job: a button that starts it, one that cancels it, its progress, the same command for a terminal.

    A page gives its `task`, the `label` of the button, the arguments, the command, and what to show of a result.
    """

    name: str
    task: str
    label: str

    def __init__(self, session: Session) -> None:
        self.session = session
        self.progress = Status()
        self.button = pn.widgets.Button(label=self.label, color="primary", width=200)
        self.stop = pn.widgets.Button(label="Cancel", width=110, visible=False)
        self.bar, self.same = pn.pane.HTML("", **WIDE), pn.pane.HTML("", **WIDE)
        self.button.on_click(guarded(self.progress, self._start))
        self.stop.on_click(guarded(self.progress, lambda: session.cancel(self.task)))
        self.seen: tuple[str, int] | None = None
        self.job = pn.Column(pn.Row(self.button, self.stop), self.bar, self.progress.pane, self.same, **WIDE)
        self.result = pn.Column(**WIDE)

    def _arguments(self) -> dict[str, Any]:
        raise NotImplementedError

    def _command(self) -> list[str]:
        return []

    def show_result(self, job: Job) -> None:
        """Show the value of a job that is done, on every page that shows it."""
        raise NotImplementedError

    def _start(self) -> None:
        self.session.start(self.task, **self._arguments())
        self.refresh()

    @property
    def ready(self) -> bool:
        """Whether there is something to start the job on."""
        return self.session.folder is not None

    def _below(self) -> str:
        """What stands below the buttons: the same command, or why there is nothing to start."""
        if self.session.folder is None:
            return "<p>Open a folder of frames first, on the page Frames.</p>"
        command = html.escape(shlex.join(self._command()))
        return f"<p class='same'>In a terminal: <code>{command}</code></p>" if command else ""

    def refresh(self) -> None:
        """Show the state of the job; called a few times a second."""
        job = self.session.job(self.task)
        active = job is not None and job.active
        self.button.disabled = active or not self.ready
        self.stop.visible = active
        _set(self.same, self._below())
        _set(self.bar, _bar(job) if active else "")
        now = None if job is None else (job.state, job.number)
        if job is None and self.seen is not None:
            self.progress.show("")
        elif job is not None and (active or now != self.seen):
            self.progress.show(job.sentence(), _TONE.get(job.state, ""))
        if now != self.seen:
            self.seen = now
            if job is not None and job.state == FINISHED:
                guarded(self.progress, lambda: self.show_result(job))()


def _set(pane: pn.pane.HTML, text: str) -> None:
    if pane.object != text:
        pane.object = text


def _bar(job: Job) -> str:
    done = job.fraction
    percent = 100.0 if done is None else 100 * done
    now = "" if done is None else f' aria-valuenow="{percent:.0f}"'
    label = html.escape(job.stage or "starting")
    return (
        f'<div class="bar{" unknown" if done is None else ""}" role="progressbar" aria-label="{label}" '
        f'aria-valuemin="0" aria-valuemax="100"{now}><div style="width:{percent:.0f}%"></div></div>'
    )
