"""The app's stations, in the order of a light's journey: frames, sensor, charts, stack, picture, export."""

from __future__ import annotations

import asyncio
import html
from dataclasses import replace
from pathlib import Path
from typing import Any

import panel as pn

from ..charts.registry import REGISTRY
from ..core.errors import WorkbenchError
from ..finish.files import read_picture
from ..ingest.catalogue import Folder
from ..ingest.reader import read_frame
from ..stack.fits_out import open_stack
from ..stack.reject import METHODS
from . import divider, viewer
from .jobs import Job
from .parts import JobCard, Status, beside, drawing, folder_overview, guarded, heading, listing, place, scrolled, table
from .pixel import Spot, pixel_table
from .pixel_page import Spot as SameSpot
from .session import Desk, results_beside

_WIDE = {"sizing_mode": "stretch_width"}
_NO_ELECTRONS = '<p class="caption">Its electrons and their noise show once the sensor is measured at this ISO.</p>'


class Frames:
    """Choose a folder, see what is in it, look at its frames."""

    name = "Frames"

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.path = pn.widgets.TextInput(label="Folder of frames", placeholder="/home/me/my-night", **_WIDE)
        self.results = pn.widgets.TextInput(
            label="Results go to (empty: beside the frames)", placeholder="/home/me/my-night-results", **_WIDE
        )
        self.inside = pn.widgets.Select(label="Folders inside it", options=[], size=6, width=320)
        self.open = pn.widgets.Button(label="Open", color="primary", width=110)
        self.samples = pn.widgets.Button(label="Use the sample frames", width=200)
        self.status = Status("Choose the folder of your frames, or try it with the simulated samples.")
        self.found = pn.Column(**_WIDE)
        self.look = pn.Column(**_WIDE)
        self.open.on_click(self._open)
        self.samples.on_click(guarded(self.status, lambda: desk.runner.start("samples", "")))
        self.inside.param.watch(self._enter, "value")
        self.samples_seen = None
        browse = pn.Card(self.inside, title="Browse", collapsed=True, width=360)
        self.panel = pn.Column(
            heading("Frames", "A folder with subfolders named <code>bias</code>, <code>darks</code>, "
                    "<code>flats</code> and <code>lights</code>, at any depth; or a table <code>frames.csv</code>."),
            self.path, self.results, pn.FlexBox(self.open, self.samples), self.status.pane, browse,
            self.found, self.look, **_WIDE,
        )  # fmt: skip
        self._list(Path.home())

    def _list(self, folder: Path) -> None:
        """Offer the folders of a folder."""
        try:
            inside = sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
        except OSError:
            inside = []
        options = {"(choose)": "", f"up: {folder.parent}": str(folder.parent)} | {one.name: str(one) for one in inside}
        self.inside.param.update(options=options, value="")

    def _enter(self, event: Any) -> None:
        if event.new:
            self.path.value = event.new
            self._list(Path(event.new))

    async def _open(self, _: Any = None) -> None:
        await self.open_folder(self.path.value, self.results.value)

    async def open_folder(self, path: str, results: str = "") -> None:
        """Open a folder; what goes wrong is said."""
        self.open.disabled = True
        self.status.say("looking through the folder")
        try:
            found = await asyncio.to_thread(self.desk.find, path, results)
        except WorkbenchError as problem:
            self.status.say(" ".join(str(problem).split()), "bad")
        else:  # what draws waits for its turn: the page may be busy with something else by now
            pn.state.execute(guarded(self.status, lambda: self._take(*found)), schedule=True)
        finally:
            self.open.disabled = False

    def _take(self, folder: Folder, results: Path) -> None:
        self.desk.take(folder, results)
        self.show()

    def show(self) -> None:
        """Show the folder that is open."""
        folder = self.desk.folder
        self.path.value = str(folder.root)
        self.results.value = "" if self.desk.results == results_beside(folder.root) else str(self.desk.results)
        self._list(folder.root)
        self.status.say(f"{len(folder)} frames of {' and '.join(folder.cameras) or 'an unnamed camera'}", "good")
        aside = [f"{path.name}: {reason}" for path, reason in folder.set_aside]
        notes = "".join(
            f"<h3>{title}</h3>{listing(lines)}"
            for title, lines in (("To look at", folder.warnings), ("Set aside", aside))
            if lines
        )
        self.found[:] = [
            table(folder_overview(folder), "What is there"),
            *([pn.pane.HTML(notes, **_WIDE)] if notes else []),
        ]
        self.look[:] = [FrameViewer(self.desk).panel]

    def refresh(self) -> None:
        """Open the samples when they are ready."""
        job = self.desk.runner.find("samples", "")
        if job is None or (job.state, job.number) == self.samples_seen:
            return
        if job.active:
            self.status.say(f"shooting the sample frames, {job.sentence()}")
            return
        self.samples_seen = (job.state, job.number)
        if job.value is None:
            self.status.say(job.sentence(), "bad")
        elif self.desk.folder is None or self.desk.folder.root != job.value:
            pn.state.execute(lambda: self.open_folder(str(job.value), self.results.value))


class FrameViewer:
    """One frame at full size, and the pixel that a tap chooses."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        folder = desk.folder
        kinds = [kind for kind in dict.fromkeys(folder.table["kind"]) if kind] or [""]
        first = "light" if "light" in kinds else kinds[0]
        self.kind = pn.widgets.Select(label="Kind", options=kinds, value=first, width=140)
        self.file = pn.widgets.Select(
            label="Frame", options=self._files(first), max_width=420, sizing_mode="stretch_width"
        )
        self.spot = Spot()
        self.status = Status()
        self.place = pn.Column(**_WIDE)
        self.kind.param.watch(lambda event: setattr(self.file, "options", self._files(event.new)), "value")
        self.file.param.watch(guarded(self.status, self._show), "value")
        self.panel = pn.Column(
            pn.pane.HTML("<h3>Look at a frame</h3><p>Drag to pan, turn the wheel to zoom down to single pixels, tap a "
                         "pixel to ask what is in it.</p>", **_WIDE),
            pn.FlexBox(self.kind, self.file), self.status.pane, self.place, **_WIDE,
        )  # fmt: skip
        guarded(self.status, self._show)()

    def _files(self, kind: str) -> list[str]:
        return self.desk.folder.table.loc[self.desk.folder.table["kind"] == kind, "file"].tolist()

    def _show(self) -> None:
        if not self.file.value:
            return
        table_ = self.desk.folder.table
        row = table_[table_["file"] == self.file.value].iloc[0]
        mosaic = read_frame(row["path"])
        shown = viewer.picture(Path(self.file.value).name, mosaic)
        self.spot.param.update(x=shown.shape[1] // 2, y=shown.shape[0] // 2)

        def pixel(x: int, y: int, measured: int) -> pn.Column:
            told = pixel_table(mosaic, row, y, x, self.desk.sensor)
            hint = "" if "electrons" in told.index else _NO_ELECTRONS
            return pn.Column(table(told, "The pixel"), pn.pane.HTML(hint, **_WIDE))

        screen = self.desk.screen
        self.place[:] = [
            pn.FlexBox(
                drawing(viewer.marked(shown, self.spot, width=screen.fit(viewer.WIDTH)), screen),
                pn.Column(
                    place(self.spot, shown.shape),
                    pn.bind(pixel, self.spot.param.x, self.spot.param.y, self.desk.param.measured),
                    width=330,
                ),
            )
        ]


class Measure:
    """Measure the sensor."""

    name = "Sensor"

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.card = JobCard(desk, "characterize", "Measure the sensor", self._order, self._command, self._done)
        self.found = pn.Column(**_WIDE)
        self.panel = pn.Column(
            heading("Sensor", "Bias frames give black level and read noise, pairs of flats the gain, darks the dark "
                    "current: each number with its standard error."),
            self.card.panel, self.found, **_WIDE,
        )  # fmt: skip

    def _order(self) -> dict[str, Any]:
        return {"folder": self.desk.folder.root, "out": self.desk.results}

    def _command(self) -> list[str]:
        return ["workbench", "characterize", str(self.desk.folder.root), "--out", str(self.desk.results)]

    def _done(self, job: Job) -> None:
        result = job.value
        self.desk.measured += 1
        where = f"<p>Written: <code>{html.escape(str(self.desk.sensor_file))}</code></p>"
        numbers = f'<div class="scroll" tabindex="0" role="region" aria-label="Results">{result._repr_html_()}</div>'
        self.found[:] = [pn.pane.HTML(numbers + where, **_WIDE)]

    def refresh(self) -> None:
        """Show how the measurement is doing."""
        self.card.refresh()


class Charts:
    """Every chart that the measurement allows."""

    name = "Charts"

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.shown: Any = None
        self.menu = pn.widgets.Select(label="Chart", options={}, max_width=420, **_WIDE)
        self.status = Status("Measure the sensor first: the charts are drawn from its numbers.")
        self.place = pn.Column(**_WIDE)
        self.menu.param.watch(guarded(self.status, self._draw), "value")
        self.card = JobCard(desk, "export_charts", "Write all charts", self._order, self._command, self._done)
        self.files = pn.Column(**_WIDE)
        self.panel = pn.Column(
            heading("Charts", "The blog's charts, drawn from your frames."), self.menu, self.status.pane, self.place,
            heading("Export", "Each chart as PNG, SVG, a web page that works offline, its numbers as "
                    "CSV, and an index of all."),
            self.card.panel, self.files, **_WIDE,
        )  # fmt: skip

    def _order(self) -> dict[str, Any]:
        if self.desk.characterization is None:
            raise WorkbenchError("measure the sensor first: the charts are drawn from its numbers")
        return {"result": self.desk.characterization, "out": self.desk.charts_folder}

    def _command(self) -> list[str]:
        return ["workbench", "charts", "--frames", str(self.desk.folder.root), "--out", str(self.desk.charts_folder)]

    def _done(self, job: Job) -> None:
        index = self.desk.charts_folder / "index.html"
        missing = [f"{name}: {why}" for name, why in job.value.not_drawn.items()]
        self.files[:] = [
            pn.pane.HTML(
                f"<p>{len(job.value.files)} charts written; start with <code>{html.escape(str(index))}</code>.</p>"
                + (f"<p>Not drawn:</p>{listing(missing)}" if missing else ""),
                **_WIDE,
            )
        ]

    def _draw(self) -> None:
        chart, result = REGISTRY.get(self.menu.value), self.desk.characterization
        if chart is None or result is None:
            return
        caption = chart.caption(result)
        drawn = chart.draw(result)
        self.place[:] = [
            drawing(drawn.cols(1) if self.desk.screen.narrow else drawn, self.desk.screen),
            pn.pane.HTML(f'<p class="caption">{html.escape(caption.text)}</p>', **_WIDE),
        ]

    def refresh(self) -> None:
        """Offer the charts once there is a measurement."""
        self.card.refresh()
        result = self.desk.characterization
        if result is self.shown:
            return
        self.shown = result
        there = {} if result is None else {one.title: one.id for one in REGISTRY.values() if not one.missing(result)}
        self.place[:] = []
        if not there:
            self.status.say("Measure the sensor first: the charts are drawn from its numbers.")
            self.menu.options = {}
            return
        self.status.say("")
        first = "iso-to-gain" if "iso-to-gain" in there.values() else next(iter(there.values()))
        self.menu.param.update(options=there, value=first)
        guarded(self.status, self._draw)()


class Stack:
    """Calibrate, align and stack the lights."""

    name = "Stack"

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.method = pn.widgets.Select(label="Rejection", options=list(METHODS), value="noise", width=160)
        self.transform = pn.widgets.Select(
            label="Alignment", width=160,
            options=["auto", "shift", "similarity", "affine", "homography", "quadratic", "cubic"],
        )  # fmt: skip
        self.card = JobCard(desk, "stack", "Calibrate and stack", self._order, self._command, self._done)
        self.found = pn.Column(**_WIDE)
        self.panel = pn.Column(
            heading("Stack", "Lights are calibrated with what the folder has, aligned, and stacked; what does not "
                    "belong is rejected by the measured noise. A cancelled stack goes on where it was."),
            pn.FlexBox(self.method, self.transform), self.card.panel, self.found, **_WIDE,
        )  # fmt: skip
        desk.param.watch(lambda _: self._found_on_disk(), "folder")

    def _order(self) -> dict[str, Any]:
        self.desk.check_lights()
        sensor = self.desk.sensor_file if self.desk.sensor is not None else None
        return {
            "folder": self.desk.folder.root,
            "out": self.desk.stack_file,
            "sensor": sensor,
            "method": self.method.value,
            "transform": self.transform.value,
        }

    def _command(self) -> list[str]:
        words = ["workbench", "stack", str(self.desk.folder.root), "--out", str(self.desk.stack_file)]
        if self.desk.sensor is not None:
            words += ["--sensor", str(self.desk.sensor_file)]
        if self.method.value != "noise":
            words += ["--reject", self.method.value]
        return words + (["--transform", self.transform.value] if self.transform.value != "auto" else [])

    def _found_on_disk(self) -> None:
        """Show the stack of an earlier session, where there is one."""
        self.found[:] = []
        if self.desk.results is not None and self.desk.stack_file.is_file():
            guarded(self.card.status, lambda: self._show([f"There since an earlier session: {self.desk.stack_file}"]))()

    def _done(self, job: Job) -> None:
        self._show(repr(job.value).splitlines())

    def _show(self, words: list[str]) -> None:
        stack = open_stack(self.desk.stack_file)
        shown = viewer.picture(self.desk.stack_file.name, stack["signal"].values, "e⁻", stretched=True)
        self.found[:] = [
            pn.pane.HTML(listing(words, 40), **_WIDE),
            drawing(viewer.live(shown, width=self.desk.screen.fit(viewer.WIDTH)), self.desk.screen),
            pn.pane.HTML('<p class="caption">The stack is linear; only what the screen shows of it is stretched.</p>'),
        ]

    def refresh(self) -> None:
        """Show how the stack is doing."""
        self.card.refresh()


class Finish:
    """Make a picture of the stack."""

    name = "Picture"

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.background = pn.widgets.Select(
            label="Background", options=["polynomial", "rbf", "mesh", "none"], width=150
        )
        self.balance = pn.widgets.Select(
            label="White balance", options=["auto", "stars", "daylight", "none"], width=150
        )
        self.stretch = pn.widgets.Select(label="Stretch", options=["asinh", "autostretch", "ghs", "linear"], width=150)
        self.strength = pn.widgets.Select(
            label="Strength", options=[0.5, 0.7, 1.0, 1.4, 2.0, 3.0], value=1.0, width=110
        )
        self.denoise = pn.widgets.Select(label="Denoise", options=[0.0, 0.25, 0.5, 0.75, 1.0], value=0.0, width=110)
        self.card = JobCard(desk, "finish", "Make the picture", self._order, self._command, self._done)
        self.found = pn.Column(**_WIDE)
        self.panel = pn.Column(
            heading("Picture", "Crop, background, colour, stretch; star fluxes are checked after every linear step."),
            pn.FlexBox(self.background, self.balance, self.stretch, self.strength, self.denoise),
            self.card.panel, self.found, **_WIDE,
        )  # fmt: skip

    def _wishes(self) -> dict[str, Any]:
        names = ("background", "balance", "stretch", "strength", "denoise")
        return {name: getattr(self, name).value for name in names}

    def _order(self) -> dict[str, Any]:
        if not self.desk.stack_file.is_file():
            raise WorkbenchError(f"there is no stack yet ({self.desk.stack_file}); stack the lights first")
        desk = self.desk
        return {"stack": desk.stack_file, "out": desk.picture_file(), "linear": desk.linear_file, **self._wishes()}

    def _command(self) -> list[str]:
        words = ["workbench", "finish", str(self.desk.stack_file), "--out", str(self.desk.picture_file())]
        for name, value in self._wishes().items():
            words += [f"--{name}", f"{value:g}" if isinstance(value, float) else str(value)]
        return words

    def _done(self, job: Job) -> None:
        path = self.desk.picture_file()
        linear, finished = read_picture(self.desk.linear_file), read_picture(path)
        pictures = [
            viewer.picture("linear", linear["signal"].values, "e⁻"),
            replace(viewer.picture("finished", finished["signal"]), limits=((0.0, 1.0),), midtones=0.5),
        ]
        screen, names = self.desk.screen, ("linear, stretched for the screen", "finished")
        words = [*job.value["history"], *(f"warning: {text}" for text in job.value["warnings"])]
        self.found[:] = [
            pn.pane.HTML(f"<p>Written: <code>{html.escape(str(path))}</code></p>", **_WIDE),
            scrolled(divider.compare(linear, finished, names=names, width=screen.fit(divider.WIDTH, axis=False))),
            beside(pictures, screen),
            pn.pane.HTML(listing(words, 40), **_WIDE),
        ]

    def refresh(self) -> None:
        """Show how the picture is doing."""
        self.card.refresh()


STATIONS = (Frames, Measure, Charts, Stack, SameSpot, Finish)
