"""The lights of a folder: a table with a tick for each, to choose what is stacked; one after another, to look at."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import holoviews as hv
import pandas as pd
import panel as pn
import param

from ..charts.planning import noise_so_far
from ..core.errors import WorkbenchError
from ..ingest.reader import read_frame
from . import viewer
from .components import WIDE, JobPage, Status, bullets, drawing, guarded, heading, table
from .jobs import Job
from .session import Session

_BLINK = 700  # between two lights [ms]
_COMET = "auto, or x,y@light; x,y@light"
# of the table: name in `grade_lights`, title, digits after the point
_COLUMNS = (
    ("file", "light", 0), ("filter", "filter", 0), ("exposure", "exposure [s]", 0), ("stars", "stars", 0),
    ("fwhm", "FWHM [px]", 2), ("roundness", "roundness", 3), ("background", "background [{unit}]", 1),
    ("noise", "noise [{unit}]", 2), ("transparency", "transparency", 3), ("reason", "why not", 0),
)  # fmt: skip


class LightTable(pn.custom.JSComponent):
    """A table whose rows have ticks and whose columns sort; the keyboard reaches all of it.

    Values of `rows` are text, numbers or None, written with as many `digits` as their column has.
    """

    titles = param.List(default=[], doc="Of the columns; the first names what the row is about.")
    digits = param.List(default=[], doc="After the point, a number for each column.")
    rows = param.List(default=[], doc="A list of values for each row.")
    fixed = param.List(default=[], doc="Numbers of the rows that cannot be ticked.")
    unticked = param.List(default=[], doc="Numbers of the other rows without a tick.")
    order = param.List(default=[], doc="Numbers of the rows as they are sorted.")
    chosen = param.Integer(default=-1, doc="Number of the row whose name was pressed last.")

    _esm = """
    const make = (name, parent, text = '', attributes = {}) => {
      const made = parent.appendChild(document.createElement(name));
      made.textContent = text;
      for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
      return made;
    };
    export function render({model}) {
      const region = document.createElement('div');
      const about = {class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Lights'};
      for (const [key, value] of Object.entries(about)) region.setAttribute(key, value);
      let by = 0, sign = 1;
      const text = (value, digits) =>
        value === null ? '\\u2013' : typeof value === 'number' ? value.toFixed(digits) : value;
      const compare = (one, other) =>
        one === null || other === null ? (one === null) - (other === null)
        : sign * (typeof one === 'number' ? one - other : one.localeCompare(other, undefined, {numeric: true}));
      const fill = (body) => {
        const order = model.rows.map((_, number) => number);
        order.sort((one, other) => compare(model.rows[one][by], model.rows[other][by]) || one - other);
        body.textContent = '';
        for (const number of order) {
          const row = make('tr', body), values = model.rows[number], fixed = model.fixed.includes(number);
          const tick = make('input', make('td', row), '', {type: 'checkbox', 'aria-label': `stack ${values[0]}`});
          tick.disabled = fixed;
          tick.checked = !fixed && !model.unticked.includes(number);
          tick.onchange = () => {
            const others = model.unticked.filter((one) => one !== number);
            model.unticked = tick.checked ? others : [...others, number].sort((a, b) => a - b);
          };
          make('button', make('th', row, '', {scope: 'row'}), values[0]).onclick = () => { model.chosen = number; };
          values.slice(1).forEach((value, place) => make('td', row, text(value, model.digits[place + 1])));
        }
        model.order = order;
      };
      const draw = () => {
        region.textContent = '';
        if (!model.rows.length) return;
        const all = make('table', region, '', {class: 'ticks'});
        const head = make('tr', make('thead', all)), body = make('tbody', all);
        make('th', head, 'stack', {scope: 'col'});
        model.titles.forEach((title, place) => {
          const cell = make('th', head, '', {scope: 'col', ...(place === by && {'aria-sort': 'ascending'})});
          make('button', cell, title).onclick = () => {
            sign = place === by ? -sign : 1;
            by = place;
            for (const one of head.children) one.removeAttribute('aria-sort');
            cell.setAttribute('aria-sort', sign > 0 ? 'ascending' : 'descending');
            fill(body);
          };
        });
        fill(body);
      };
      model.on('rows', () => { by = 0; sign = 1; draw(); });
      draw();
      return region;
    }
    """


class LightsPart(JobPage):
    """The part of the Stack page that measures the lights, shows them, and lets the reader choose, a comet too."""

    name, task, label = "Lights", "grade_lights", "Measure the lights"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.count = Status()
        self.table = LightTable(margin=(5, 10), **WIDE)
        self.light = pn.widgets.Select(label="Light", options=[], max_width=360, **WIDE)
        self.run = pn.widgets.Toggle(label="Blink", width=110)
        self.tap = pn.widgets.Toggle(label="Tap the comet", width=140)
        self.comet = pn.widgets.TextInput(label="Comet", placeholder=_COMET, width=330)
        self.next_tap = Status()
        self.picture = pn.Column(**WIDE)
        self.paths: dict[str, str] = {}
        self.timers: list[Any] = []
        self.last = ""
        self.panel = pn.Column(
            heading("Choose the lights", "How sharp and round the stars of every light are, how bright its sky is and "
                    "how clear the air was. A heading sorts by its column; what has no tick is not stacked. Without a "
                    "measurement all lights are stacked that fit together."),
            self.job, self.result, self.count.pane, self.table,
            pn.FlexBox(self.light, self.run, self.tap, align_items="flex-end"), self.next_tap.pane, self.picture,
            **WIDE,
        )  # fmt: skip
        session.param.watch(lambda _: guarded(self.progress, self._opened)(), "folder")
        self.run.param.watch(self._blink, "value")
        self.tap.param.watch(guarded(self.next_tap, self._ask), "value")
        self.table.param.watch(lambda _: self._counted(), "unticked")
        self.table.param.watch(lambda event: setattr(self.light, "value", self.files[event.new]), "chosen")
        self.table.param.watch(lambda event: self._in_order(event.new), "order")

    @property
    def files(self) -> list[str]:
        """The lights of the table, in its rows' order."""
        return [row[0] for row in self.table.rows]

    @property
    def left_out(self) -> list[str]:
        """What the stack shall leave out: names, or paths where a name alone could mean others too."""
        names = [Path(file).name for file in self.files]
        chosen = [self.files[number] for number in self.table.unticked]
        return [file if "/" in file or names.count(file) == 1 else str(self.paths[file]) for file in chosen]

    def _opened(self) -> None:
        """Show the lights of the folder that was opened."""
        lights = self.session.folder.select(kind="light").table if self.session.folder.has("light") else None
        self.paths = {} if lights is None else dict(zip(lights["file"], lights["path"], strict=True))
        self.result[:] = self.picture[:] = []
        self.run.value = self.tap.value = False
        self.comet.value = ""
        self.table.param.update(rows=[], fixed=[], unticked=[])
        self.count.show("")
        self.light.options = list(self.paths)
        if self.paths:
            self._draw()

    def _draw(self) -> None:
        first = next(iter(self.paths))
        limits = viewer.picture(Path(first).name, read_frame(self.paths[first]))

        def frame(file: str) -> viewer.Picture:
            if not file or file == first:
                return limits
            return viewer.like(viewer.picture(Path(file).name, read_frame(self.paths[file])), limits)

        screen = self.session.screen
        drawn = viewer.blink(frame, self.light, width=screen.fit(viewer.WIDTH))
        hv.streams.Tap(source=drawn, x=None, y=None).add_subscriber(self._tapped)
        self.picture[:] = [drawing(drawn, screen)]

    def _blink(self, event: Any) -> None:
        """Go through the ticked lights, one after another, or stop."""
        while self.timers:
            self.timers.pop().stop()
        if event.new:
            self.timers.append(pn.state.add_periodic_callback(self._next, period=_BLINK))

    def _ticked(self) -> list[str]:
        off = {self.files[number] for number in (*self.table.unticked, *self.table.fixed)}
        return [name for name in self.light.options if name not in off]

    def _ask(self) -> None:
        """Show the first of the ticked lights, in which the comet is to be tapped, or stop asking."""
        self.next_tap.show("")
        if not self.tap.value:
            return
        ticked = self._ticked()
        if len(ticked) < 2:
            self.tap.value = False
            raise WorkbenchError("a comet is followed through two lights or more; open a folder with them, tick them")
        lights = self.session.folder.select(kind="light").table
        in_time = lights[lights["file"].isin(ticked)].sort_values("time", kind="stable")["file"]
        self.run.value, self.comet.value = False, ""
        self.light.value, self.last = in_time.iloc[0], in_time.iloc[-1]
        self.next_tap.show(f"Tap the comet in {self.light.value}, the first of the lights; turn the wheel to zoom.")

    def _tapped(self, x: float | None, y: float | None) -> None:
        """Note where the comet is in the light that is shown; after the first one, show the last."""
        if not self.tap.value or x is None or y is None:
            return
        place = f"{x - 0.5:.1f},{y - 0.5:.1f}@{self.light.value}"
        if self.comet.value:
            self.comet.value += f"; {place}"
            self.tap.value = False
            return
        self.comet.value, self.light.value = place, self.last
        self.next_tap.show(f"Now tap the comet in {self.last}, the last of them.")

    def _next(self) -> None:
        ticked = self._ticked()
        names = [name for name in self.light.options if name in ticked or name == self.light.value]
        if len(names) > 1:
            self.light.value = names[(names.index(self.light.value) + 1) % len(names)]

    def _in_order(self, order: list[int]) -> None:
        """Let the lights blink in the order of the table."""
        files = self.files
        if sorted(order) == list(range(len(files))) and {*files} == {*self.light.options}:
            self.light.options = [files[number] for number in order]

    def _arguments(self) -> dict[str, Any]:
        self.session.check_lights()
        folder, sensor = self.session.folder.root, self.session.given_sensor
        return {"folder": folder, "sensor": sensor, "scratch": self.session.results}

    def _command(self) -> list[str]:
        return ["workbench", "lights", str(self.session.folder.root), *self.session.sensor_option]

    def show_result(self, job: Job) -> None:
        """Show the table; what cannot be stacked has no tick, and the reason."""
        graded = job.value
        frames = graded.frames.reindex(columns=[name for name, *_ in _COLUMNS]).replace({math.nan: None, "": None})
        shown = [column for column in _COLUMNS if frames[column[0]].notna().any()]
        unit = "e⁻" if graded.units == "electron" else "ADU"
        self.table.param.update(
            titles=[title.format(unit=unit) for _, title, _ in shown], digits=[digits for *_, digits in shown],
            rows=frames[[name for name, *_ in shown]].astype(object).values.tolist(), unticked=[],
            fixed=[number for number, used in enumerate(graded.frames["used"]) if not used],
        )  # fmt: skip
        self.result[:] = [pn.pane.HTML(bullets(graded.warnings), **WIDE)] if graded.warnings else []
        self._counted()

    def _counted(self) -> None:
        count, away = len(self.table.rows), len(self.table.fixed)
        if count:
            unfit = f"; {away} cannot be stacked" if away else ""
            self.count.show(f"{count - away - len(self.table.unticked)} of {count} lights are ticked{unfit}")


class WatchPage(JobPage):
    """A stack that grows with each light that arrives in the folder."""

    name, task, label = "Live", "watch", "Add lights as they come"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.shown = 0
        self.panel = pn.Column(
            heading("Live", "Each light that arrives in the folder is calibrated, checked, aligned and added, while "
                    "the camera exposes the next. It begins with the third light; stopped, it can go on."),
            self.job, self.result, **WIDE,
        )  # fmt: skip

    def _arguments(self) -> dict[str, Any]:
        folder, sensor = self.session.folder.root, self.session.given_sensor
        return {"folder": folder, "out": self.session.live_folder, "sensor": sensor}

    def _command(self) -> list[str]:
        return ["workbench", "watch", str(self.session.folder.root), "--out", str(self.session.live_folder)]

    def show_result(self, job: Job) -> None:
        """Nothing more than is there already."""

    def refresh(self) -> None:
        """Show the picture and the table again when a light was added."""
        super().refresh()
        folder = self.session.live_folder if self.session.results is not None else None
        if folder is None or not (folder / "lights.csv").is_file():
            return
        now = (folder / "lights.csv").stat().st_mtime_ns
        if now != self.shown:
            self.shown = now
            guarded(self.progress, lambda: self._show(folder))()

    def _show(self, folder: Path) -> None:
        lights = pd.read_csv(folder / "lights.csv")
        parts = []
        if (folder / "live.png").is_file():
            picture = (folder / "live.png").read_bytes()
            parts.append(pn.pane.PNG(picture, alt_text="the stack so far, stretched", sizing_mode="scale_width"))
        if lights["used"].any():
            parts.append(drawing(noise_so_far(lights), self.session.screen))
        self.result[:] = [*parts, table(last_lights(lights), "The last lights")]


def last_lights(lights: pd.DataFrame, most: int = 12) -> pd.DataFrame:
    """Return the last rows of ``lights.csv`` of a live stack in words, the latest first.

    Examples
    --------
    >>> row = {"file": "a.fit", "fwhm": 3.1416, "used": True, "frames": 1, "total_exposure": 180.0, "noise_R": 9.876}
    >>> last_lights(pd.DataFrame([row])).loc["a.fit"].to_dict()
    {'FWHM [px]': '3.14', 'in the stack': '1', 'in all [h]': '0.05', 'noise R': '9.88'}
    """
    last = lights.iloc[::-1].head(most)
    columns = {name: (title.split(" [{")[0], digits, 1.0) for name, title, digits in _COLUMNS if name != "file"}
    columns |= {"frames": ("in the stack", 0, 1.0), "total_exposure": ("in all [h]", 2, 1 / 3600)}
    columns |= {name: (name.replace("_", " "), 2, 1.0) for name in last if name.startswith("noise_")}
    shown = {
        title: [f"{scale * value:.{digits}f}" if isinstance(value, int | float) else value for value in last[name]]
        for name, (title, digits, scale) in columns.items()
        if name in last and last[name].notna().any()
    }
    return pd.DataFrame(shown, index=[Path(file).name for file in last["file"]]).replace({"nan": "–"}).fillna("")
