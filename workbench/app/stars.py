"""Stars of the stack: its picture, a tap on a star, the star's brightness with errors and its light curve."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import pandas as pd
import panel as pn
import param
import xarray as xr
from astropy.coordinates import SkyCoord

from ..charts.stars import light_curve, light_curve_caption
from ..core.settings import filter_in_file_name
from ..core.values import shutter, unit_text, value_text
from ..pipelines.light_curves import light_curve_text
from ..pipelines.photometry import place_on_reference, star_at
from ..stack.fits_out import open_stack
from ..stars.photometry import RADIUS
from . import viewer
from .components import WIDE, JobPage, Status, bullets, drawing, guarded, heading, table
from .jobs import Job
from .lights import LightsPart
from .pixel import ChosenPixel
from .session import Session

_TAP = 8  # pixels of the screen within which a tap on a reduced picture means a star
_CROWDED = "neighbours leave more light in the aperture than a standard error"


def stack_picture(path: Path) -> viewer.Picture:
    """Return a stack ready to be looked at."""
    return viewer.picture(path.name, open_stack(path)["signal"].values, "e⁻", stretched=True)


def star_table(star: xr.Dataset) -> pd.DataFrame:
    """Tabulate one star of `photometry`: place, flux and SNR of each channel, magnitude, aperture."""
    lines = {"place": f"x {float(star['x']):.1f}, y {float(star['y']):.1f} px"}
    if "ra" in star:
        lines["RA, Dec"] = SkyCoord(float(star["ra"]), float(star["dec"]), unit="deg").to_string("hmsdms", precision=1)
    for channel in star["channel"].values.astype(str):
        flux, error = (float(star[name].sel(channel=channel)) for name in ("flux", "flux_error"))
        of = "" if channel == "mono" else f" {channel}"
        lines[f"flux{of}"] = value_text(flux, error, unit_text(star.attrs["units"]))
        lines[f"SNR{of}"] = f"{flux / error:,.3g}" if flux < 1000 * error else f"{flux / error:,.0f}"
    if "magnitude" in star:
        lines["magnitude (Gaia G)"] = value_text(float(star["magnitude"]), float(star["magnitude_error"]), "mag")
        lines["zero point"] = value_text(star.attrs["zero_point"], star.attrs["zero_point_error"], "mag")
    lines["aperture's radius"] = f"{RADIUS * star.attrs['fwhm']:.1f} px ({RADIUS:g} FWHM)"
    lines |= {"note": _CROWDED} if "crowded" in str(star["flags"].values) else {}
    return pd.DataFrame({"value": lines})


class CurvePart(JobPage):
    """The light curve of the chosen star over the lights of its stack."""

    name, task, label = "Light curve", "light_curve", "Draw its light curve"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.star: dict[str, Any] = {}
        self.missing = "Choose a star first."
        self.panel = pn.Column(
            heading("Light curve", "The chosen star in every light, calibrated but not resampled, over the brightest "
                    "unsaturated stars around it."),
            self.job, self.result, **WIDE,
        )  # fmt: skip
        session.param.watch(lambda _: self._opened(), "folder")

    def _opened(self) -> None:
        """Show nothing of another folder."""
        self.result[:], self.seen = [], None

    def choose(self, stack: xr.Dataset | None, star: xr.Dataset | None, left_out: list[str]) -> None:
        """Take the star whose light curve can be drawn next, of an opened stack; None for no star."""
        self.star, self.missing = {}, "Choose a star first."
        if stack is None or star is None:
            return
        light, place = place_on_reference(stack, float(star["x"]), float(star["y"]))
        if light not in set(self.session.folder.table["file"]):
            self.missing = f"There is no light curve: the lights of this stack ({light}) are not in the folder."
            return
        only = stack.attrs.get("filter") or ()
        of_filter = f"-{filter_in_file_name(only)}" if only else ""
        out = self.session.results / f"curve{of_filter}-{place[0]:.0f}-{place[1]:.0f}.csv"
        self.star = {"star": place, "out": out, "reference": light, "filter": only, "exclude": tuple(left_out)}

    @property
    def ready(self) -> bool:
        """Whether a star is chosen, whose lights are there."""
        return bool(self.star)

    def _arguments(self) -> dict[str, Any]:
        return {"folder": self.session.folder.root, "sensor": self.session.given_sensor, **self.star}

    def _command(self) -> list[str]:
        x, y = self.star["star"]
        command = ["workbench", "lightcurve", str(self.session.folder.root), "--star", f"{x:.1f},{y:.1f}"]
        command += ["--out", str(self.star["out"]), "--reference", self.star["reference"]]
        command += ["--filter", self.star["filter"]] if self.star["filter"] else []
        command += self.session.sensor_option
        return command + [word for name in self.star["exclude"] for word in ("--exclude", name)]

    def _below(self) -> str:
        return super()._below() if self.star else f"<p>{html.escape(self.missing)}</p>"

    def show_result(self, job: Job) -> None:
        """Show the light curve with its caption, and what it shows in words."""
        curve = job.value
        self.result[:] = [
            drawing(light_curve(curve), self.session.screen),
            pn.pane.HTML(f'<p class="caption">{html.escape(light_curve_caption(curve).text)}</p>', **WIDE),
            pn.pane.HTML(bullets(light_curve_text(curve).splitlines()), **WIDE),
        ]


class StarPart(JobPage):
    """The part of the Stack page that shows the stack, to tap a star: a table of it, and its light curve."""

    name, task, label = "Stars", "photometry", "Measure the stars"

    def __init__(self, session: Session, lights: LightsPart) -> None:
        super().__init__(session)
        self.lights, self.curve = lights, CurvePart(session)
        self.stack = pn.widgets.Select(label="Stack", options={}, width=240)
        self.pixel, self.view, self.width, self.columns = ChosenPixel(), viewer.ViewRange(), viewer.WIDTH, 0
        self.tables: dict[tuple[Path, int], xr.Dataset] = {}
        self.drawn: tuple[Path, int] | None = None
        self.tapped = False
        self.said, self.fields, self.picture = Status(), pn.Column(), pn.Column(max_width=900, **WIDE)
        self.panel = pn.Column(
            pn.FlexBox(self.picture, pn.Column(
                heading("Photometry", "Tap a star, or type its column and row: how bright it is, with errors."),
                self.stack, self.fields, self.said.pane, self.result, self.job, width=330,
            )),
            self.curve.panel, visible=False, **WIDE,
        )  # fmt: skip
        self.stack.param.watch(guarded(self.said, self._draw), "value")
        self.pixel.param.watch(guarded(self.said, self._choose), ["x", "y"], precedence=1)  # it may change them again

    @property
    def _file(self) -> tuple[Path, int]:
        """The stack that is looked at, and when it was written."""
        return self.stack.value, self.stack.value.stat().st_mtime_ns

    def offer(self, paths: list[Path]) -> None:
        """Offer the stacks that there are, and show the first."""
        self.stack.visible, self.panel.visible = len(paths) > 1, bool(paths)
        if paths:
            self.stack.param.update(options={path.name: path for path in paths}, value=paths[0])
            self._draw()  # it may have been written again

    def _draw(self) -> None:
        if self.drawn == self._file:
            return
        self.drawn, self.tapped = self._file, False
        shown, screen = stack_picture(self.stack.value), self.session.screen
        self._clear()
        with param.parameterized.discard_events(self.pixel):
            self.pixel.param.update(x=shown.shape[1] // 2, y=shown.shape[0] // 2)
        self.view, self.width, self.columns = viewer.ViewRange(), screen.fit(viewer.WIDTH), shown.shape[1]
        self.picture[:] = [
            drawing(viewer.marked(shown, self.pixel, width=self.width, streams=[self.view]), screen),
            pn.pane.HTML('<p class="caption">The stack is linear; only its display is stretched.</p>'),
        ]
        self.fields[:] = [self.pixel.fields(shown.shape)]

    def _clear(self) -> None:
        """Show no star."""
        self.said.show("")
        self.result[:] = []
        self.curve.choose(None, None, [])

    def _choose(self) -> None:
        """Show the star at the chosen pixel; the first time in a stack, its stars are measured before."""
        self.tapped, measured = True, self.tables.get(self._file)
        self._clear()
        if measured is not None:
            self._show(measured)
        elif not ((job := self.session.job(self.task)) and job.active):
            self._start()

    def _show(self, measured: xr.Dataset) -> None:
        left, right = self.view.x_range or (0.0, float(self.columns))
        star = star_at(measured, self.pixel.x, self.pixel.y, _TAP * abs(right - left) / self.width)
        place = {name: round(float(star[name])) for name in ("x", "y")}
        if place != {name: getattr(self.pixel, name) for name in place}:
            self.pixel.param.update(**place)  # the mark moves to the star, and this is called again
            return
        text = f"Flux in one exposure ({shutter(measured.attrs['exposure'])}), above the background around the star."
        self.result[:] = [
            table(star_table(star), "The star"), pn.pane.HTML(f'<p class="caption">{text}</p>', **WIDE),
            pn.pane.HTML(bullets(measured.attrs["warnings"]), **WIDE),
        ]  # fmt: skip
        self.curve.choose(open_stack(self.stack.value), star, self.lights.left_out)

    def _arguments(self) -> dict[str, Any]:
        return {"stack": self.stack.value, "out": self.session.results / f"stars-{self.stack.value.stem}.csv"}

    def _command(self) -> list[str]:
        stack, out = self._arguments().values()
        return ["workbench", "photometry", str(stack), "--out", str(out)]

    @property
    def ready(self) -> bool:
        """Whether there is a stack."""
        return self.stack.value is not None

    def refresh(self) -> None:
        """Show the state of both jobs, once there is a stack."""
        if self.panel.visible:
            super().refresh()
            self.curve.refresh()

    def show_result(self, job: Job) -> None:
        """Keep the measured stars, and show the one that was tapped."""
        path, written, measured = job.value
        self.tables[path, written] = measured
        if self.tapped:
            guarded(self.said, self._choose)()
        elif (path, written) == self._file:
            self.said.show(f"{measured.sizes['star']} stars are measured: tap one", "good")
