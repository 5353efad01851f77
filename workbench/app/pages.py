"""The app's pages, in the order of a light's journey: frames, sensor, charts, stack, picture (see also `pixel`)."""

from __future__ import annotations

import asyncio
import html
from pathlib import Path
from typing import Any

import panel as pn

from ..charts.registry import REGISTRY
from ..core.errors import WorkbenchError, said_of_all
from ..ingest.folder import Folder
from ..stack.reject import METHODS
from .components import (
    WIDE,
    JobPage,
    Status,
    bullets,
    drawing,
    folder_overview,
    guarded,
    heading,
    scrolled_html,
    side_by_side,
    table,
)
from .jobs import Job
from .lights import LightsPart, WatchPage
from .pictures import PicturePage
from .pixel import FrameViewer, PixelPage
from .session import Session, default_results
from .stars import StarPart, stack_picture

_TRANSFORMS = ["auto", "shift", "similarity", "affine", "homography", "quadratic", "cubic"]
_FRAMINGS = {"the reference's": "reference", "of all lights": "all", "common to all": "common"}
_SCALES = {"the light's": 0.0, "the light's, drizzled": 1.0, "1.5 times finer": 1.5, "2 times finer": 2.0}
_SHARES = {"all": 100.0, "the best 90 %": 90.0, "the best 80 %": 80.0, "the best 70 %": 70.0, "the best half": 50.0}
_MEASURE_FIRST = "Measure the sensor first: the charts are drawn from its results."


class FramesPage:
    """Choose a folder, see what is in it, look at its frames."""

    name = "Frames"

    def __init__(self, session: Session) -> None:
        self.session = session
        self.path = pn.widgets.TextInput(label="Folder of frames", placeholder="/home/me/my-night", **WIDE)
        self.results = pn.widgets.TextInput(
            label="Results go to (empty: next to the frames)", placeholder="/home/me/my-night-results", **WIDE
        )
        self.inside = pn.widgets.Select(label="Folders inside it", options=[], size=6, width=320)
        self.open = pn.widgets.Button(label="Open", color="primary", width=110)
        self.samples = pn.widgets.Button(label="Use the sample frames", width=200)
        self.status = Status("Choose the folder of your frames, or try it with the simulated samples.")
        self.overview, self.frame = pn.Column(**WIDE), pn.Column(**WIDE)
        self.open.on_click(self._open)
        self.samples.on_click(guarded(self.status, lambda: session.runner.start("samples", "")))
        self.inside.param.watch(self._enter, "value")
        self.samples_seen: tuple[str, int] | None = None
        browse = pn.Card(self.inside, title="Browse", collapsed=True, width=360)
        self.panel = pn.Column(
            heading("Frames", "A folder with subfolders named <code>bias</code>, <code>darks</code>, "
                    "<code>flats</code> and <code>lights</code>, at any depth; or a table <code>frames.csv</code>."),
            self.path, self.results, pn.FlexBox(self.open, self.samples), self.status.pane, browse,
            self.overview, self.frame, **WIDE,
        )  # fmt: skip
        self._list(Path.home())

    def _list(self, folder: Path) -> None:
        """Offer the folders of a folder."""
        try:
            inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        except OSError:
            inside = []
        options = {"(choose)": "", f"up: {folder.parent}": str(folder.parent)}
        self.inside.param.update(options=options | {path.name: str(path) for path in inside}, value="")

    def _enter(self, event: Any) -> None:
        if event.new:
            self.path.value = event.new
            self._list(Path(event.new))

    async def _open(self, _: Any = None) -> None:
        await self.open_folder(self.path.value, self.results.value)

    def propose(self, path: str, results: str = "") -> None:
        """Name a folder that the page's address asks for; it is opened when the user agrees."""
        self.path.value, self.results.value = path, results
        self.status.show("The address of this page names this folder. Press Open if it is you who wants it.")

    async def open_folder(self, path: str, results: str = "") -> None:
        """Open a folder; an error is shown in the status line."""
        self.open.disabled = True
        self.status.show("reading the folder")
        try:
            folder, results_folder = await asyncio.to_thread(self.session.find, path, results)
        except WorkbenchError as problem:
            self.status.show(" ".join(str(problem).split()), "bad")
        else:  # drawing waits for its turn: the page may be busy with something else by now
            pn.state.execute(guarded(self.status, lambda: self._show(folder, results_folder)), schedule=True)
        finally:
            self.open.disabled = False

    def _show(self, folder: Folder, results: Path) -> None:
        self.session.use(folder, results)
        self.path.value = str(folder.root)
        self.results.value = "" if results == default_results(folder.root) else str(results)
        self._list(folder.root)
        self.status.show(f"{len(folder)} frames of {' and '.join(folder.cameras) or 'an unnamed camera'}", "good")
        set_aside = said_of_all(folder.set_aside)
        notes = "".join(
            f"<h3>{title}</h3>{bullets(lines)}"
            for title, lines in (("Warnings", folder.warnings), ("Set aside", set_aside))
            if lines
        )
        self.overview[:] = [
            table(folder_overview(folder), "What is there"),
            *([pn.pane.HTML(notes, **WIDE)] if notes else []),
        ]
        self.frame[:] = [FrameViewer(self.session).panel]

    def refresh(self) -> None:
        """Open the samples when they are ready."""
        job = self.session.runner.find("samples", "")
        if job is None or (job.state, job.number) == self.samples_seen:
            return
        if job.active:
            self.status.show(f"simulating the sample frames, {job.sentence()}")
            return
        self.samples_seen = (job.state, job.number)
        if job.value is None:
            self.status.show(job.sentence(), "bad")
        elif self.session.folder is None or self.session.folder.root != job.value:
            pn.state.execute(lambda: self.open_folder(str(job.value), self.results.value))


class SensorPage(JobPage):
    """Measure the sensor."""

    name, task, label = "Sensor", "characterize", "Measure the sensor"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.panel = pn.Column(
            heading("Sensor", "Bias frames give black level and read noise, pairs of flats the gain, darks the dark "
                    "current: each value with its standard error."),
            self.job, self.result, **WIDE,
        )  # fmt: skip

    def _arguments(self) -> dict[str, Any]:
        return {"folder": self.session.folder.root, "out": self.session.results}

    def _command(self) -> list[str]:
        return ["workbench", "characterize", str(self.session.folder.root), "--out", str(self.session.results)]

    def show_result(self, job: Job) -> None:
        """Show the measured values."""
        self.session.measured += 1
        written = f"<p>Written: <code>{html.escape(str(self.session.sensor_file))}</code></p>"
        self.result[:] = [pn.pane.HTML(scrolled_html(job.value._repr_html_(), "Results") + written, **WIDE)]


class ChartsPage(JobPage):
    """Every chart that the measurement allows."""

    name, task, label = "Charts", "export_charts", "Write all charts"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.drawn_for: Any = None
        self.menu = pn.widgets.Select(label="Chart", options={}, max_width=420, **WIDE)
        self.status = Status(_MEASURE_FIRST)
        self.chart = pn.Column(**WIDE)
        self.menu.param.watch(guarded(self.status, self._draw), "value")
        self.panel = pn.Column(
            heading("Charts", "The blog's charts, drawn from your frames."), self.menu, self.status.pane, self.chart,
            heading("Export", "Each chart as PNG, SVG, a web page that works offline, its numbers as "
                    "CSV, and an index of all."),
            self.job, self.result, **WIDE,
        )  # fmt: skip

    def _arguments(self) -> dict[str, Any]:
        if self.session.characterization is None:
            raise WorkbenchError("measure the sensor first: the charts are drawn from its results")
        return {"result": self.session.characterization, "out": self.session.charts_folder}

    def _command(self) -> list[str]:
        folder, out = str(self.session.folder.root), str(self.session.charts_folder)
        return ["workbench", "charts", "--frames", folder, "--out", out]

    def show_result(self, job: Job) -> None:
        """Name the index of the charts, and the charts that could not be drawn."""
        index = html.escape(str(self.session.charts_folder / "index.html"))
        missing = [f"{name}: {reason}" for name, reason in job.value.not_drawn.items()]
        written = f"<p>{len(job.value.files)} charts written; start with <code>{index}</code>.</p>"
        not_drawn = f"<p>Not drawn:</p>{bullets(missing)}" if missing else ""
        self.result[:] = [pn.pane.HTML(written + not_drawn, **WIDE)]

    def _draw(self) -> None:
        chart, result = REGISTRY.get(self.menu.value), self.session.characterization
        if chart is None or result is None:
            return
        caption, drawn, screen = chart.caption(result).text, chart.draw(result), self.session.screen
        self.chart[:] = [
            drawing(drawn.cols(1) if screen.narrow else drawn, screen),
            pn.pane.HTML(f'<p class="caption">{html.escape(caption)}</p>', **WIDE),
        ]

    def refresh(self) -> None:
        """Offer the charts once there is a measurement."""
        super().refresh()
        result = self.session.characterization
        if result is self.drawn_for:
            return
        self.drawn_for = result
        charts = () if result is None else (chart for chart in REGISTRY.values() if not chart.missing(result))
        titles = {chart.in_words_of(result).title: chart.id for chart in charts}
        self.chart[:] = []
        self.status.show("" if titles else _MEASURE_FIRST)
        if not titles:
            self.menu.options = {}
            return
        first = "iso-to-gain" if "iso-to-gain" in titles.values() else next(iter(titles.values()))
        self.menu.param.update(options=titles, value=first)
        guarded(self.status, self._draw)()


class StackPage(JobPage):
    """Calibrate, align and stack the lights."""

    name, task, label = "Stack", "stack", "Calibrate and stack"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.method = pn.widgets.Select(label="Rejection", options=list(METHODS), value="noise", width=160)
        self.transform = pn.widgets.Select(label="Alignment", options=_TRANSFORMS, width=160)
        self.framing = pn.widgets.Select(label="Field", options=_FRAMINGS, width=160)
        self.scale = pn.widgets.Select(label="Pixels", options=_SCALES, width=160)
        self.keep = pn.widgets.Select(label="Of the lights", options=_SHARES, width=160)
        self.darks = pn.widgets.Select(label="Darks", options=["as taken", "scaled"], width=160)
        self.lights = LightsPart(session)
        self.comet = self.lights.comet
        self.stars = StarPart(session, self.lights)
        self.panel = pn.Column(
            self.lights.panel,
            heading("Stack", "Lights are calibrated with the masters that the folder allows, aligned, and stacked; "
                    "outliers are rejected by the measured noise. A cancelled stack continues where it was."),
            pn.FlexBox(self.method, self.transform, self.framing, self.scale, self.keep, self.darks, self.comet),
            self.job, self.result, self.stars.panel, **WIDE,
        )  # fmt: skip
        session.param.watch(lambda _: self._show_earlier(), "folder")

    def _arguments(self) -> dict[str, Any]:
        self.session.check_lights()
        return {
            "folder": self.session.folder.root,
            "out": self.session.stack_file,
            "sensor": self.session.given_sensor,
            "method": self.method.value,
            "transform": self.transform.value,
            "framing": self.framing.value,
            "scale": self.scale.value or None,
            "keep": self.keep.value if self.keep.value < 100 else None,
            "scale_darks": self.darks.value == "scaled",
            "comet": self._way(),
            "exclude": tuple(self.lights.left_out),
        }

    def _command(self) -> list[str]:
        command = ["workbench", "stack", str(self.session.folder.root), "--out", str(self.session.stack_file)]
        command += self.session.sensor_option
        if self.method.value != "noise":
            command += ["--reject", self.method.value]
        if self.transform.value != "auto":
            command += ["--transform", self.transform.value]
        if self.framing.value != "reference":
            command += ["--framing", self.framing.value]
        if self.scale.value:
            command += ["--scale", f"{self.scale.value:g}"]
        if self.keep.value < 100:
            command += ["--keep", f"{self.keep.value:g}"]
        command += ["--scale-darks"] if self.darks.value == "scaled" else []
        command += [word for text in self._way() for word in ("--comet", text)]
        return command + [word for name in self.lights.left_out for word in ("--exclude", name)]

    def _way(self) -> tuple[str, ...]:
        """How a comet is to be followed; empty where none is."""
        return tuple(text.strip() for text in self.comet.value.split(";") if text.strip())

    def refresh(self) -> None:
        """Show the state of all jobs: the stack, the measurements of the lights and of the stars."""
        super().refresh()
        self.lights.refresh()
        self.stars.refresh()

    def _show_earlier(self) -> None:
        """Show the stack of an earlier session, where there is one."""
        self.result[:], self.stars.panel.visible = [], False
        paths = self.session.stack_files
        if paths:
            guarded(
                self.progress, lambda: self._show([f"From an earlier session: {', '.join(map(str, paths))}"], paths)
            )()

    def show_result(self, job: Job) -> None:
        """Show the stack and what was done."""
        self._show(repr(job.value).splitlines(), [*self.session.stack_files, *job.value.comet])

    def _show(self, lines: list[str], paths: list[Path]) -> None:
        self.result[:] = [pn.pane.HTML(bullets(lines, 40), **WIDE)]
        if len(paths) > 1:
            self.result.append(side_by_side([stack_picture(path) for path in paths], self.session.screen))
        self.stars.offer(self.session.stack_files)


PAGES = (FramesPage, SensorPage, ChartsPage, WatchPage, StackPage, PixelPage, PicturePage)
