"""The station where one spot is looked at in everything: light, dark, flat, calibrated, stack; and its N samples."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd
import panel as pn
import xarray as xr

from ..core.errors import WorkbenchError
from ..core.values import value_text
from ..ingest.reader import read_frame
from ..stack.fits_out import open_stack
from ..stack.pixel import explain, inspect_pixel
from . import viewer
from .jobs import Job
from .parts import JobCard, Status, beside, drawing, guarded, heading, listing, place, table
from .pixel import Spot as Place
from .session import Desk

_WIDE = {"sizing_mode": "stretch_width"}
_PERIOD = 700  # of the blink [ms]
_MOST = 12  # lights that blink
_COLOURS = {"bias": "bias", "dark": "dark", "flat": "flat", "light": "light"}


class Spot:
    """The same spot in every kind of frame, blinking between lights, and what rejection does to one pixel."""

    name = "Same spot"

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.status = Status("Open a folder of frames first.")
        self.kinds = pn.widgets.CheckBoxGroup(label="Show side by side", options=[], inline=True)
        self.side = pn.Column(**_WIDE)
        self.number = pn.widgets.Select(label="Light", options={}, max_width=360, **_WIDE)
        self.run = pn.widgets.Toggle(label="Blink", width=110)
        self.blinking = pn.Column(**_WIDE)
        self.card = JobCard(desk, "look", "Calibrate and align", self._order, list, self._done)
        self.found = pn.Column(**_WIDE)
        self.place = Place()
        self.pictures: dict[str, viewer.Picture] = {}
        self.files: dict[str, str] = {}
        self.lights: dict[str, str] = {}
        self.panel = pn.Column(
            heading("The same spot", "Views that move together: zoom into one and the others follow."),
            self.status.pane, self.kinds, self.side,
            heading("Blink", "One light after another in the same place: what moves, shows."),
            pn.FlexBox(self.number, self.run), self.blinking,
            heading("One pixel of the stack", "Calibrates and aligns the middle of the lights. Tap a pixel: what every "
                    "frame says of it, and what each rejection method throws out, and why."),
            self.card.panel, self.found, **_WIDE,
        )  # fmt: skip
        desk.param.watch(lambda _: guarded(self.status, self._opened)(), "folder")
        self.kinds.param.watch(guarded(self.status, self._beside), "value")
        self.run.param.watch(self._blink, "value")
        self.turning: list[Any] = []

    def _opened(self) -> None:
        """Offer what there is to be compared."""
        folder = self.desk.folder
        self.found[:] = self.side[:] = self.blinking[:] = []
        self.pictures = {}
        first = folder.table.drop_duplicates("kind")
        self.files = {_COLOURS[row.kind]: row.path for row in first.itertuples() if row.kind in _COLOURS}
        lights = folder.table[folder.table["kind"] == "light"].head(_MOST)
        self.lights = dict(zip(lights["file"], lights["path"], strict=True))
        self.number.options = list(self.lights)
        self.status.say("")
        self._offer()
        self.kinds.value = [name for name in ("light", "flat") if name in self.kinds.options]
        if self.lights:
            self._begin_blinking()

    def _offer(self) -> None:
        there = [name for name in ("light", "dark", "bias", "flat") if name in self.files]
        there += ["calibrated"] if "calibrated" in self.pictures else []
        there += ["stack"] if self.desk.stack_file.is_file() else []
        if there != self.kinds.options:
            self.kinds.param.update(options=there, value=[name for name in self.kinds.value if name in there])

    def _picture(self, name: str) -> viewer.Picture:
        if name == "stack":
            return viewer.picture("stack", open_stack(self.desk.stack_file)["signal"].values, "e⁻", stretched=True)
        if name not in self.pictures:
            self.pictures[name] = viewer.picture(name, read_frame(self.files[name]))
        return self.pictures[name]

    def _beside(self) -> None:
        """Show what is chosen, side by side."""
        self.side[:] = []
        if not self.kinds.value:
            return
        shown = [self._picture(name) for name in self.kinds.value]
        usual = shown[0].shape
        other = [one.name for one in shown if one.shape != usual]
        self.status.say(f"of another size, not shown: {', '.join(other)}" if other else "")
        self.side[:] = [beside([one for one in shown if one.shape == usual], self.desk.screen)]

    def _begin_blinking(self) -> None:
        first = next(iter(self.lights))
        limits = viewer.picture(first, read_frame(self.lights[first]))

        def frame(file: str) -> viewer.Picture:
            if not file or file == first:
                return limits
            return viewer.like(viewer.picture(file, read_frame(self.lights[file])), limits)

        screen = self.desk.screen
        self.blinking[:] = [drawing(viewer.blink(frame, self.number, width=screen.fit(viewer.WIDTH)), screen)]

    def _blink(self, event: Any) -> None:
        """Go through the lights, one after another, or stop."""
        while self.turning:
            self.turning.pop().stop()
        if event.new:
            self.turning.append(pn.state.add_periodic_callback(self._next, period=_PERIOD))

    def _next(self) -> None:
        names = list(self.number.options)
        if len(names) > 1:
            self.number.value = names[(names.index(self.number.value) + 1) % len(names)]

    # -- one pixel -----------------------------------------------------------------------------------------------

    def _order(self) -> dict[str, Any]:
        self.desk.check_lights()
        return {"folder": self.desk.folder.root, "sensor": self.desk.sensor}

    def _done(self, job: Job) -> None:
        """Show the aligned lights' mean, to be tapped, with the samples of the pixel below."""
        lights, calibrated = job.value["aligned"], job.value["calibrated"]
        self.pictures["calibrated"] = viewer.picture("calibrated", calibrated, "e⁻")
        self._offer()
        mean = lights["signal"].mean("frame").values
        top, left = job.value["corner"]
        reference = lights.attrs.get("reference") or "the reference"
        shown = viewer.picture(f"mean of {lights.sizes['frame']} aligned lights", mean, "e⁻", stretched=True)
        y, x = job.value["busiest"]
        self.place.param.update(x=x, y=y)
        channels = [str(name) for name in lights["channel"].values]
        channel = pn.widgets.RadioButtonGroup(
            options=channels, value="G" if "G" in channels else channels[0], label="Colour of the pixel"
        )

        def samples(x: int, y: int, channel: str) -> pn.pane.HTML:
            try:
                found = inspect_pixel(lights, y, x, channel)
            except WorkbenchError as problem:
                return pn.pane.HTML(listing([str(problem)]))
            there = f" (column {left + x}, row {top + y} of {reference})" if left or top else ""
            where = f"column {x}, row {y}{there}, {channel}"
            return table(_samples(found), f"What {lights.sizes['frame']} lights say of {where}")

        screen = self.desk.screen
        self.found[:] = [
            pn.pane.HTML(listing(job.value["warnings"]), **_WIDE),
            drawing(viewer.marked(shown, self.place, width=screen.fit(viewer.WIDTH)), screen),
            pn.FlexBox(place(self.place, mean.shape[-2:]), channel),
            pn.panel(pn.bind(partial(samples), self.place.param.x, self.place.param.y, channel), **_WIDE),
        ]

    def refresh(self) -> None:
        """Show how the alignment is doing, and offer the stack once there is one."""
        self.card.refresh()
        if self.files:
            self._offer()


def _samples(found: xr.Dataset) -> pd.DataFrame:
    """Tabulate the samples of a pixel, what each method decides about them, and below, what then is left."""
    told = explain(found).set_index("frame").rename_axis(None)
    results = zip(found["rejection"].values, found["result"].values, found["result_error"].values, strict=True)
    left = {str(method): value_text(float(value), float(error), "e⁻") for method, value, error in results}
    return pd.concat([told.astype(object), pd.DataFrame(left, index=["what is left"])]).fillna("")
