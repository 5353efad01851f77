"""Parts that the app's stations share: a sentence that is read out when it changes, a job with its buttons."""

from __future__ import annotations

import html
import logging
import shlex
from collections.abc import Callable
from typing import Any

import pandas as pd
import panel as pn

from ..core.errors import WorkbenchError
from ..ingest.catalogue import Folder
from . import viewer
from .jobs import CANCELLED, FINISHED, WRONG, Job
from .pixel import Spot
from .screen import Drawing, Screen
from .session import Desk

_LOG = logging.getLogger(__name__)
_TONE = {FINISHED: "good", WRONG: "bad", CANCELLED: "bad"}


def heading(text: str, words: str = "") -> pn.pane.HTML:
    """Return a station's heading with a sentence below it."""
    below = f"<p>{words}</p>" if words else ""
    return pn.pane.HTML(f"<h2>{html.escape(text)}</h2>{below}", sizing_mode="stretch_width")


def table(frame: pd.DataFrame, caption: str) -> pn.pane.HTML:
    """Return a table with its caption, wide ones to be scrolled."""
    body = frame.to_html(border=0, justify="left", na_rep="–")
    body = body.replace("<thead>", f"<caption>{html.escape(caption)}</caption><thead>", 1)
    body = body.replace("<th></th>", "<td></td>")
    place = f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(caption)}">{body}</div>'
    return pn.pane.HTML(place, sizing_mode="stretch_width")


def listing(sentences: list[str], most: int = 12) -> str:
    """Return sentences as an HTML list, the rest counted where there are very many."""
    shown = "".join(f"<li>{html.escape(text)}</li>" for text in sentences[:most])
    more = f"<li>and {len(sentences) - most} more</li>" if len(sentences) > most else ""
    return f"<ul>{shown}{more}</ul>" if sentences else ""


def drawing(element: Any, screen: Screen) -> pn.Column:
    """Return a chart or a live picture in the colours of the page, to be scrolled where the screen is narrower."""
    return scrolled(Drawing(element, screen=screen))


def beside(pictures: list[viewer.Picture], screen: Screen) -> pn.Column:
    """Return pictures whose views move together: side by side, on a phone one below the other."""
    columns, width = (1, screen.fit(480)) if screen.narrow else (2, 480)
    return drawing(viewer.side_by_side(pictures, columns=columns, width=width), screen)


def place(spot: Spot, shape: tuple[int, int]) -> pn.FlexBox:
    """Return fields for a pixel's column and row: a tap sets them, and they do what a tap does."""
    fields = (("Column", spot.param.x, shape[1]), ("Row", spot.param.y, shape[0]))
    nameless = ".bk-spin-btn { display: none !important; }"  # the arrow keys do the same
    return pn.FlexBox(
        *(pn.widgets.IntInput.from_param(which, label=name, start=0, end=size - 1, width=110, stylesheets=[nameless])
          for name, which, size in fields)
    )  # fmt: skip


def scrolled(shown: Any) -> pn.Column:
    """Return what may be wider than a phone's screen in a place that scrolls by itself."""
    return pn.Column(shown, styles={"overflow-x": "auto", "max-width": "100%"})


class Status:
    """A line that says how things are; readers of the screen hear it change."""

    def __init__(self, text: str = "") -> None:
        self.pane = pn.pane.HTML("", sizing_mode="stretch_width")
        self.say(text)

    def say(self, text: str, tone: str = "") -> None:
        """Show a sentence; the tone is ``good``, ``bad`` or nothing."""
        new = f'<div class="status {tone}" role="status">{html.escape(text)}</div>'
        if self.pane.object != new:
            self.pane.object = new

    @property
    def text(self) -> str:
        """What it says, as HTML."""
        return str(self.pane.object)


def guarded(status: Status, action: Callable[[], Any]) -> Callable[..., None]:
    """Wrap what a button does: a user's mistake becomes a sentence, a fault of ours one that says so."""

    def act(*_: Any) -> None:
        try:
            action()
        except WorkbenchError as problem:
            status.say(" ".join(str(problem).split()), "bad")
        except Exception as error:
            _LOG.exception("the app met something unexpected")
            status.say(f"This should not have happened ({type(error).__name__}: {error}); the log tells more.", "bad")

    return act


class JobCard:
    """A button that starts a job, one that cancels it, its progress, and the same as a command for a terminal.

    Parameters
    ----------
    order
        From nothing to the arguments of the job.
    command
        From nothing to the words of the same command in a terminal.
    when_done
        Called with the job once it is done, on every page that shows it.
    """

    def __init__(
        self,
        desk: Desk,
        task: str,
        label: str,
        order: Callable[[], dict[str, Any]],
        command: Callable[[], list[str]],
        when_done: Callable[[Job], None],
    ) -> None:
        self.desk, self.task, self.order, self.command, self.when_done = desk, task, order, command, when_done
        self.status = Status()
        self.button = pn.widgets.Button(label=label, color="primary", width=200)
        self.stop = pn.widgets.Button(label="Cancel", width=110, visible=False)
        self.bar = pn.pane.HTML("", sizing_mode="stretch_width")
        self.same = pn.pane.HTML("", sizing_mode="stretch_width")
        self.button.on_click(guarded(self.status, self._start))
        self.stop.on_click(guarded(self.status, lambda: desk.cancel(task)))
        self.seen: tuple[str, int] | None = None
        self.panel = pn.Column(
            pn.Row(self.button, self.stop), self.bar, self.status.pane, self.same, sizing_mode="stretch_width"
        )

    def _start(self) -> None:
        self.desk.start(self.task, **self.order())
        self.refresh()

    def refresh(self) -> None:
        """Show how the job is doing; called a few times a second."""
        job = self.desk.job(self.task)
        there = self.desk.folder is not None
        self.button.disabled = not there or (job is not None and job.active)
        self.stop.visible = job is not None and job.active
        words = self.command() if there else []
        told = f"<p class='same'>In a terminal: <code>{html.escape(shlex.join(words))}</code></p>" if words else ""
        if self.same.object != told:
            self.same.object = told
        if job is None:
            if self.seen is not None:
                self.seen = None
                self.status.say("")
                self.bar.object = ""
            return
        bar = _bar(job) if job.active else ""
        if self.bar.object != bar:
            self.bar.object = bar
        now = (job.state, job.number)
        if job.active or now != self.seen:
            self.status.say(job.sentence(), _TONE.get(job.state, ""))
        if now != self.seen:
            self.seen = now
            if job.state == FINISHED:
                guarded(self.status, lambda: self.when_done(job))()


def _bar(job: Job) -> str:
    share = job.share
    now = "" if share is None else f' aria-valuenow="{100 * share:.0f}"'
    width = "100" if share is None else f"{100 * share:.0f}"
    kind = "bar unknown" if share is None else "bar"
    label = html.escape(job.stage or "starting")
    return (
        f'<div class="{kind}" role="progressbar" aria-label="{label}" aria-valuemin="0" aria-valuemax="100"{now}>'
        f'<div style="width:{width}%"></div></div>'
    )


def folder_overview(folder: Folder) -> pd.DataFrame:
    """Tabulate what is in a folder, a row for each kind of frame."""
    rows = {}
    for kind, table in folder.table.groupby("kind", sort=False):
        rows[kind or "unknown"] = {
            "frames": len(table),
            "ISO": _listed(table["iso"]),
            "exposures": _listed(table["exposure"], _shutter),
            "temperatures [°C]": _listed(table["temperature"]),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _listed(values: pd.Series, write: Callable[[float], str] = "{:g}".format) -> str:
    """Write the different values of a column, the middle ones left out where they are many."""
    known = sorted(values.dropna().unique())
    if len(known) > 7:
        return f"{len(known)} from {write(known[0])} to {write(known[-1])}"
    return ", ".join(map(write, known)) or "not recorded"


def _shutter(seconds: float) -> str:
    """Write an exposure time as cameras do: 1/8000 s, 0.5 s, 30 s."""
    return f"1/{1 / seconds:.0f} s" if 0 < seconds < 0.3 else f"{seconds:g} s"
