"""Single pixels: of a raw frame, of the same place in every kind of frame, and of all aligned lights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import panel as pn
import param
import xarray as xr

from ..charts.lights import METHOD_NAMES
from ..core.cube import channels_of
from ..core.dark import dark_current_at
from ..core.errors import WorkbenchError
from ..core.mosaic import channel_index
from ..core.noise import variance_terms
from ..core.results import same_setting
from ..core.settings import setting_dim
from ..core.values import value_text
from ..ingest.reader import read_frame
from ..stack.fits_out import open_stack
from ..stack.pixel import explain, inspect_pixel
from . import viewer
from .components import NO_ARROWS, WIDE, JobPage, Status, bullets, drawing, guarded, heading, side_by_side, table
from .jobs import Job
from .session import Session

_NO_ELECTRONS = (
    '<p class="caption">Its electrons and their noise are shown once the sensor is measured at its setting.</p>'
)


class ChosenPixel(param.Parameterized):
    """A pixel that several views show: its column `x` and row `y`, counted from 0."""

    x = param.Integer(default=0)
    y = param.Integer(default=0)

    def fields(self, shape: tuple[int, int]) -> pn.FlexBox:
        """Return fields for column and row, an alternative to a tap, for a picture of this shape (rows, columns)."""
        return pn.FlexBox(
            *(pn.widgets.IntInput.from_param(number, label=label, start=0, end=size - 1, width=110,
                                             stylesheets=[NO_ARROWS])
              for label, number, size in (("Column", self.param.x, shape[1]), ("Row", self.param.y, shape[0])))
        )  # fmt: skip


def pixel_noise(
    value: float, *, black: float, gain: float, read_noise: float = 0.0, dark: float = 0.0
) -> dict[str, float]:
    """Return the electrons of a pixel and what each source adds to its noise [e⁻ rms].

    n = g (y - black); light √(n - D), dark current √D, read noise, rounding g/√12; all together in quadrature.

    Parameters
    ----------
    value, black
        In ADU.
    gain
        In e⁻/ADU.
    read_noise, dark
        In e⁻ rms, and the dark signal D in e⁻.

    Examples
    --------
    >>> {name: round(part, 2) for name, part in pixel_noise(1600, black=600, gain=0.4, read_noise=3.0).items()}
    {'electrons': 400.0, 'light': 20.0, 'dark current': 0.0, 'read noise': 3.0, 'rounding': 0.12, 'all together': 20.22}
    """
    electrons = gain * (value - black)
    terms = variance_terms(max(electrons - dark, 0.0), dark=max(dark, 0.0), read_noise=read_noise, gain=gain)
    parts = {name: math.sqrt(term) for name, term in terms.items() if name != "response"}
    return {"electrons": electrons, **parts, "all together": math.sqrt(sum(terms.values()))}


def known_noise(sensor: xr.Dataset | None, row: Any, channel: str) -> dict[str, float]:
    """Return gain, read noise and black level of a measured sensor, and the dark signal, for `pixel_noise`.

    {} where the gain is not known; what else is not known is 0, and the black level NaN.

    Parameters
    ----------
    sensor
        From `open_sensor`, or ``characterize(...).sensor``.
    row
        The frame's row of a folder's table: its ISO or gain setting, exposure [s] and temperature [°C].
    """
    if sensor is None:
        return {}
    dim = setting_dim(sensor)
    where = np.flatnonzero(same_setting(sensor[dim].values, float(row[dim])))
    if not where.size or channel not in sensor["channel"].values:
        return {}
    here = sensor.isel({dim: where[0]}).sel(channel=channel)
    gain, noise, black = (float(here[name]) for name in ("gain", "read_noise", "black_level"))
    if not math.isfinite(gain):
        return {}
    dark = dark_current_at(sensor, float(row["temperature"]))[0] * float(row["exposure"])
    return {
        "gain": gain,
        "read_noise": noise if math.isfinite(noise) else 0.0,
        "black": black,
        "dark": dark if math.isfinite(dark) else 0.0,
    }


def pixel_table(mosaic: np.ndarray, row: Any, y: int, x: int, sensor: xr.Dataset | None = None) -> pd.DataFrame:
    """Tabulate one pixel of a raw frame: its value, its colour and, where the sensor is known, its noise by source.

    Parameters
    ----------
    mosaic
        (y, x), from `read_frame` [ADU].
    row
        The frame's row of a folder's table.
    sensor
        The measured sensor.

    Raises
    ------
    WorkbenchError
        If the pixel lies outside of the frame.

    Examples
    --------
    >>> frame = np.full((4, 4), 1600, "uint16")
    >>> row = {"cfa_pattern": "RGGB", "iso": 800.0, "exposure": 60.0, "temperature": 20.0, "black_level": (600.0,) * 4}
    >>> pixel_table(frame, row, 1, 2)
                             value
    pixel         column 2, row 1
    channel                    G2
    number              1,600 ADU
    above black         1,000 ADU
    """
    if not (0 <= y < mosaic.shape[0] and 0 <= x < mosaic.shape[1]):
        raise WorkbenchError(f"column {x}, row {y} lies outside of the frame of {mosaic.shape[1]} x {mosaic.shape[0]}")
    index = channel_index(row["cfa_pattern"])
    number = int(index[y % len(index), x % len(index)])
    channel = channels_of(row["cfa_pattern"])[number]
    value = float(mosaic[y, x])
    known = known_noise(sensor, row, channel)
    black = known.get("black", math.nan)
    if not math.isfinite(black):
        black = float(np.ravel(row["black_level"])[number])
    above = value - black
    lines = {"pixel": f"column {x}, row {y}", "channel": channel, "number": f"{value:,.0f} ADU"}
    if math.isfinite(above):
        lines["above black"] = f"{above:,.5g} ADU" if abs(above) < 1000 else f"{above:,.0f} ADU"
    if known and math.isfinite(above):
        parts = pixel_noise(value, **(known | {"black": black}))
        lines["electrons"] = value_text(parts.pop("electrons"), parts["all together"], "e⁻")
        lines |= {f"noise: {name}": f"{part:.2f} e⁻" for name, part in parts.items()}
    return pd.DataFrame({"value": lines})


class FrameViewer:
    """One frame at full size, and the pixel that a tap chooses."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.table = session.folder.table
        kinds = [kind for kind in dict.fromkeys(self.table["kind"]) if kind] or [""]
        first = "light" if "light" in kinds else kinds[0]
        self.kind = pn.widgets.Select(label="Kind", options=kinds, value=first, width=140)
        self.file = pn.widgets.Select(label="Frame", options=self._files(first), max_width=420, **WIDE)
        self.pixel = ChosenPixel()
        self.status = Status()
        self.picture = pn.Column(**WIDE)
        self.kind.param.watch(lambda event: setattr(self.file, "options", self._files(event.new)), "value")
        self.file.param.watch(guarded(self.status, self._show), "value")
        self.panel = pn.Column(
            pn.pane.HTML("<h3>Look at a frame</h3><p>Drag to pan, turn the wheel to zoom down to single pixels, tap a "
                         "pixel to see its values.</p>", **WIDE),
            pn.FlexBox(self.kind, self.file), self.status.pane, self.picture, **WIDE,
        )  # fmt: skip
        guarded(self.status, self._show)()

    def _files(self, kind: str) -> list[str]:
        return self.table.loc[self.table["kind"] == kind, "file"].tolist()

    def _show(self) -> None:
        if not self.file.value:
            return
        row = self.table[self.table["file"] == self.file.value].iloc[0]
        mosaic = read_frame(row["path"], scale=row["scale"])
        shown = viewer.picture(Path(self.file.value).name, mosaic)
        self.pixel.param.update(x=shown.shape[1] // 2, y=shown.shape[0] // 2)

        def describe(x: int, y: int, measured: int) -> pn.Column:
            values = pixel_table(mosaic, row, y, x, self.session.sensor)
            hint = "" if "electrons" in values.index else _NO_ELECTRONS
            return pn.Column(table(values, "The pixel"), pn.pane.HTML(hint, **WIDE))

        screen = self.session.screen
        values = pn.bind(describe, self.pixel.param.x, self.pixel.param.y, self.session.param.measured)
        self.picture[:] = [
            pn.FlexBox(
                drawing(viewer.marked(shown, self.pixel, width=screen.fit(viewer.WIDTH)), screen),
                pn.Column(self.pixel.fields(shown.shape), values, width=330),
            )
        ]


class PixelPage(JobPage):
    """The same place in every kind of frame, and what rejection does to one pixel of the lights."""

    name, task, label = "Pixels", "align_lights", "Calibrate and align"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.status = Status("Open a folder of frames first.")
        self.kinds = pn.widgets.CheckBoxGroup(label="Show side by side", options=[], inline=True)
        self.side = pn.Column(**WIDE)
        self.pixel = ChosenPixel()
        self.pictures: dict[str, viewer.Picture] = {}
        self.files: dict[str, str] = {}
        self.panel = pn.Column(
            heading("The same pixels", "Views that move together: zoom into one and the others follow."),
            self.status.pane, self.kinds, self.side,
            heading("One pixel of the stack", "Calibrates and aligns the middle of the lights. Tap a pixel: its value "
                    "in every light, and which of them each rejection method rejects, and why."),
            self.job, self.result, **WIDE,
        )  # fmt: skip
        session.param.watch(lambda _: guarded(self.status, self._opened)(), "folder")
        self.kinds.param.watch(guarded(self.status, self._compare), "value")

    def _opened(self) -> None:
        """Offer the kinds of frames of the folder that was opened."""
        frames = self.session.folder.table
        self.result[:] = self.side[:] = []
        self.pictures = {}
        self.files = dict(frames.drop_duplicates("kind").set_index("kind")["path"])
        self.status.show("")
        self._offer()
        self.kinds.value = [name for name in ("light", "flat") if name in self.kinds.options]

    def _offer(self) -> None:
        options = [name for name in ("light", "dark", "bias", "flat") if name in self.files]
        options += ["calibrated"] if "calibrated" in self.pictures else []
        options += ["stack"] if self.session.stack_file.is_file() else []
        if options != self.kinds.options:
            self.kinds.param.update(options=options, value=[name for name in self.kinds.value if name in options])

    def _picture(self, name: str) -> viewer.Picture:
        if name == "stack":
            return viewer.picture("stack", open_stack(self.session.stack_file)["signal"].values, "e⁻", stretched=True)
        if name not in self.pictures:
            self.pictures[name] = viewer.picture(name, read_frame(self.files[name]))
        return self.pictures[name]

    def _compare(self) -> None:
        """Show what is chosen, side by side."""
        self.side[:] = []
        if not self.kinds.value:
            return
        pictures = [self._picture(name) for name in self.kinds.value]
        shape = pictures[0].shape
        other = [picture.name for picture in pictures if picture.shape != shape]
        self.status.show(f"of another size, not shown: {', '.join(other)}" if other else "")
        same = [picture for picture in pictures if picture.shape == shape]
        self.side[:] = [side_by_side(same, self.session.screen)]

    def _arguments(self) -> dict[str, Any]:
        self.session.check_lights()
        return {"folder": self.session.folder.root, "sensor": self.session.sensor}

    def show_result(self, job: Job) -> None:
        """Show the mean of the aligned lights, to be tapped, with the samples of the pixel below."""
        lights, calibrated = job.value["aligned"], job.value["calibrated"]
        self.pictures["calibrated"] = viewer.picture("calibrated", calibrated, "e⁻", cell=2)
        self._offer()
        mean, count = lights["signal"].mean("frame").values, lights.sizes["frame"]
        top, left = job.value["corner"]
        reference = lights.attrs.get("reference") or "the reference"
        shown = viewer.picture(f"mean of {count} aligned lights", mean, "e⁻", stretched=True)
        y, x = job.value["busiest"]
        self.pixel.param.update(x=x, y=y)
        channels = [str(name) for name in lights["channel"].values]
        channel = pn.widgets.RadioButtonGroup(
            options=channels, value="G" if "G" in channels else channels[0], label="Colour of the pixel"
        )

        def samples(x: int, y: int, channel: str) -> pn.pane.HTML:
            try:
                pixel = inspect_pixel(lights, y, x, channel)
            except WorkbenchError as problem:
                return pn.pane.HTML(bullets([str(problem)]))
            there = f" (column {left + x}, row {top + y} of {reference})" if left or top else ""
            return table(_samples(pixel), f"{count} lights at column {x}, row {y}{there}, {channel}")

        screen = self.session.screen
        self.result[:] = [
            pn.pane.HTML(bullets(job.value["warnings"]), **WIDE),
            drawing(viewer.marked(shown, self.pixel, width=screen.fit(viewer.WIDTH)), screen),
            pn.FlexBox(self.pixel.fields(mean.shape[-2:]), channel),
            pn.panel(pn.bind(samples, self.pixel.param.x, self.pixel.param.y, channel), **WIDE),
        ]

    def refresh(self) -> None:
        """Show the state of the alignment, and offer the stack once there is one."""
        super().refresh()
        if self.files:
            self._offer()


def _samples(pixel: xr.Dataset) -> pd.DataFrame:
    """Tabulate the samples of a pixel, what each method decides about them, and below, the result of each method."""
    decisions = explain(pixel).set_index("frame").rename_axis(None)
    results = zip(pixel["rejection"].values, pixel["result"].values, pixel["result_error"].values, strict=True)
    row = {str(method): value_text(float(value), float(error), "e⁻") for method, value, error in results}
    table = pd.concat([decisions.astype(object), pd.DataFrame(row, index=["result"])]).fillna("")
    return table.rename(columns=METHOD_NAMES)
