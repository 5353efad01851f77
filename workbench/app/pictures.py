"""Finished pictures: under a divider to drag, made of a stack, and in a gallery of all that were made.

They are JPEG inside the HTML, so that nothing is fetched from the network.
"""

from __future__ import annotations

import base64
import contextlib
import html
import io
import itertools
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import panel as pn
import xarray as xr
from PIL import Image

from .. import finish
from ..charts.pictures import named_picture
from ..core.errors import WorkbenchError
from ..finish.files import read_picture
from ..finish.zero_point import world_coordinates
from ..stars.objects import names_on
from . import viewer
from .components import WIDE, JobPage, PaletteFields, Status, bullets, drawing, guarded, heading, scrolled
from .jobs import Job
from .session import Session

WIDTH = 820  # of a picture on the page [px]
_SHARP = 1.6  # pixels of the picture for one of the page, at most: screens are finer than they report
SAMPLE = 40_000  # pixels that are enough to find a stretch for the screen
_NUMBERS = itertools.count(1)
_THUMBNAIL = 240  # of a picture in the gallery [px]
_FILL = ".bk-input-group, .bk-clearfix { display: block; width: 100%; }"
_LABEL = (
    "position:absolute;top:8px;padding:2px 8px;border-radius:4px;background:#000a;color:#fff;"
    "font:12px system-ui,sans-serif;pointer-events:none"
)


def screen_level(picture: xr.Dataset, width: int = WIDTH) -> xr.Dataset:
    """Return the level of the picture's pyramid that is shown when it is `width` page pixels wide."""
    levels = finish.pyramid(picture, smallest=64)
    return next((level for level in levels if level.sizes["x"] <= _SHARP * width), levels[-1])


def pixels(picture: xr.Dataset) -> np.ndarray:
    """Return 8-bit pixels (y, x, 3) or (y, x): a stretched picture as it is, a linear one stretched by default."""
    if picture.attrs.get("stage") != "stretched":
        statistics = finish.sky_statistics(picture, sample=SAMPLE)
        picture = finish.apply_stretch(picture, finish.stretch_parameters(picture, statistics=statistics))
    return finish.quantise(picture, 8)


def jpeg(levels: np.ndarray) -> str:
    """Return 8-bit pixels as a data URL."""
    out = io.BytesIO()
    Image.fromarray(levels).save(out, "JPEG", quality=93, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


class Divider:
    """A picture under a divider to drag, or to move with the arrow keys; the picture on its right may change.

    It needs neither a server nor the network, and it stays where it was dragged to when the pictures change.

    Parameters
    ----------
    before
        8-bit pixels, on the left.
    name
        Shown on the left.
    width
        On the page [px].
    """

    def __init__(self, before: np.ndarray, name: str = "before", width: int = WIDTH) -> None:
        self.name, self.width = name, width
        self.height = round(width * before.shape[0] / before.shape[1])
        self.key = f"n{next(_NUMBERS)}"  # under which the page remembers its position
        self.style = f".wb-{self.key}{{background:url({jpeg(before)}) 0 0/100% 100%}}"  # sent once, not for each move

    def pane(self, text: Any) -> Any:
        """Show what `render` returns, or something bound to widgets that returns it."""
        return html_pane(text, self.width, self.style)

    def render(self, after: np.ndarray, name: str = "after") -> str:
        """Return the HTML with these 8-bit pixels on the right, for `pane`."""
        store = f"window.wbDivider_{self.key}"
        move = (
            "var b=this.parentNode,v=+this.value;"
            "b.querySelector('.wb-after').style.clipPath='inset(0 0 0 '+v+'%)';"
            f"b.querySelector('.wb-line').style.left=v+'%';{store}=v"
        )
        again = (
            f"if({store}!==undefined){{var r=this.parentNode.querySelector('input');r.value={store};"
            "r.dispatchEvent(new Event('input'))}"
        )
        # the slider itself is transparent, so the handle shows that it has the focus
        line = "this.parentNode.querySelector('.wb-line').style"
        focused, blurred = f"if(this.matches(':focus-visible')){line}.outline='3px solid #56b4e9'", f"{line}.outline=''"
        size = f"width:100%;max-width:{self.width}px;aspect-ratio:{self.width}/{self.height}"
        sized = "position:absolute;left:0;top:0;width:100%;height:100%;max-width:none;user-select:none"
        left, right = html.escape(self.name), html.escape(name)
        return (
            f'<div class="wb-divider" style="position:relative;{size};overflow:hidden">'
            f'<div class="wb-{self.key}" role="img" aria-label="{left}" style="{sized}"></div>'
            f'<img class="wb-after" src="{jpeg(after)}" alt="{right}" draggable="false" onload="{again}" '
            f'style="{sized};clip-path:inset(0 0 0 50%)">'
            f'<span style="{_LABEL};left:8px">{left}</span><span style="{_LABEL};right:8px">{right}</span>'
            '<div class="wb-line" style="position:absolute;top:0;bottom:0;left:50%;width:2px;margin-left:-1px;'
            'background:#fff;box-shadow:0 0 3px #000;pointer-events:none">'
            '<div style="position:absolute;top:50%;left:-13px;width:28px;height:28px;margin-top:-14px;'
            "border-radius:50%;background:#fff;box-shadow:0 0 4px #000;color:#333;font:16px/28px sans-serif;"
            'text-align:center">⇔</div></div>'
            '<input type="range" min="0" max="100" step="0.2" value="50" '
            f'aria-label="divider between {left} and {right}" '
            f'oninput="{move}" onfocus="{focused}" onkeyup="{focused}" onblur="{blurred}" '
            'style="position:absolute;inset:0;width:100%;height:100%;margin:0;opacity:0;cursor:ew-resize"></div>'
        )


def compare_pictures(
    before: Any, after: Any, *, names: tuple[str, str] = ("before", "after"), width: int = WIDTH
) -> Any:
    """Show two pictures (or arrays of 8-bit pixels) under a divider to drag."""
    first, second = (
        side if isinstance(side, np.ndarray) else pixels(screen_level(side, width)) for side in (before, after)
    )
    divider = Divider(first, names[0], width)
    return divider.pane(divider.render(second, names[1]))


def html_pane(text: Any, width: int = WIDTH, *styles: str) -> Any:
    """Show HTML, or something bound to widgets that returns it, in a pane that never fetches from the network."""
    return pn.widgets.StaticText(value=text, sizing_mode="stretch_width", max_width=width, stylesheets=[_FILL, *styles])


class Gallery:
    """All pictures that were made of these frames, with their settings; one of them at full size.

    Parameters
    ----------
    session
        Whose `pictures` are shown.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.shown: list[tuple[Path, int]] = []
        self.status, self.small, self.large = Status(), pn.FlexBox(**WIDE), pn.Column(**WIDE)
        self.panel = pn.Column(
            heading("Gallery", "Every picture that was made of these frames, the latest first."),
            self.status.pane, self.small, self.large, visible=False, **WIDE,
        )  # fmt: skip

    def refresh(self) -> None:
        """Show what has changed in the folder of results."""
        paths = self.session.pictures if self.session.folder is not None else []
        now = [(path, path.stat().st_mtime_ns) for path in paths]
        if now != self.shown:
            self.shown, self.panel.visible, self.large[:] = now, bool(now), []
            guarded(self.status, lambda: setattr(self.small, "objects", [self._card(*one) for one in now]))()

    def _card(self, path: Path, changed: int) -> pn.Column:
        button = pn.widgets.Button(label=f"Look at {path.name}", width=_THUMBNAIL)
        button.on_click(guarded(self.status, lambda: self._look(path)))
        return pn.Column(pn.pane.HTML(_thumbnail(path, changed), width=_THUMBNAIL), button, width=_THUMBNAIL + 20)

    def _look(self, path: Path) -> None:
        self.large[:] = [finished_picture(read_picture(path), path.name, self.session.screen)]


@lru_cache(maxsize=200)
def _thumbnail(path: Path, _changed: int) -> str:
    """Return a picture as a small one with the settings that it was made with."""
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((2 * _THUMBNAIL, 2 * _THUMBNAIL))  # screens are finer than they report
    words, name = html.escape(made_with(path)), html.escape(path.name)
    shown = f'<img src="{jpeg(np.asarray(small))}" alt="{name}" style="width:100%">'
    return f'{shown}<p class="caption">{words}</p>'


def made_with(path: Path) -> str:
    """Return in a few words how a picture was made, by the settings next to it; "" where there are none."""
    try:
        how = finish.FinishSettings.open(path.with_suffix(".json"))
    except WorkbenchError:
        return ""
    return (
        f"{how.stretch.method}, strength {how.stretch.strength:g}; background {how.background.method}; "
        f"white balance {how.colour.balance}; denoise {how.detail.denoise:g}"
    )


def finished_picture(finished: xr.Dataset, name: str, screen: Any) -> pn.Column:
    """Return a finished picture to zoom into, as it is."""
    large = replace(viewer.picture(name, finished["signal"]), limits=((0.0, 1.0),), midtones=0.5)
    return drawing(viewer.live(large, width=screen.fit(viewer.WIDTH)), screen)


class PicturePage(JobPage):
    """Make a picture of the stack."""

    name, task, label = "Picture", "finish", "Make the picture"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        methods = {
            "background": ("Background", ["polynomial", "rbf", "mesh", "none"], "polynomial"),
            "balance": ("White balance", ["auto", "catalogue", "stars", "daylight", "none"], "auto"),
            "stretch": ("Stretch", ["asinh", "autostretch", "ghs", "linear"], "asinh"),
            "strength": ("Strength", [0.5, 0.7, 1.0, 1.4, 2.0, 3.0], 1.0),
            "denoise": ("Denoise", [0.0, 0.25, 0.5, 0.75, 1.0], 0.0),
        }
        self.settings = {
            name: pn.widgets.Select(label=label, options=options, value=value, width=150)
            for name, (label, options, value) in methods.items()
        }
        self.palette = PaletteFields()
        self.gallery = Gallery(session)
        self.panel = pn.Column(
            heading("Picture", "Crop, background, colour, stretch; star fluxes are checked after every linear step."),
            pn.FlexBox(*self.settings.values()), self.palette.panel, self.job, self.result,
            self.gallery.panel, **WIDE,
        )  # fmt: skip

    def refresh(self) -> None:
        """Show the state of the job, and the palette where there are stacks of several filters."""
        super().refresh()
        if self.session.folder is not None:
            self.palette.offer(self.session.stack_filters)
        self.gallery.refresh()

    def _chosen(self) -> dict[str, Any]:
        return {name: control.value for name, control in self.settings.items()}

    def _arguments(self) -> dict[str, Any]:
        stacks, out, linear = self.session.stack_files, self.session.picture_file, self.session.linear_file
        if not stacks:
            raise WorkbenchError(f"{self.session.stack_file} does not exist yet; stack the lights first")
        return {"stack": stacks, "out": out, "linear": linear, **self._chosen(), **self.palette.chosen()}

    def _command(self) -> list[str]:
        stacks = [str(path) for path in self.session.stack_files or [self.session.stack_file]]
        command = ["workbench", "finish", *stacks, "--out", str(self.session.picture_file)]
        for name, value in self._chosen().items():
            command += [f"--{name}", f"{value:g}" if isinstance(value, float) else str(value)]
        with contextlib.suppress(WorkbenchError):
            mixed = self.palette.chosen()
            command += ["--palette", mixed["palette"]] if mixed else []
            weights = ",".join(f"{name}={weight:g}" for name, weight in mixed.get("weights", {}).items())
            command += ["--weights", weights] if weights else []
        return command

    def show_result(self, job: Job) -> None:
        """Show the linear and the finished picture, and what was done."""
        path, screen = Path(job.value["picture"]), self.session.screen
        linear, finished = read_picture(self.session.linear_file), read_picture(path)
        names, width = ("linear, stretched for the screen", "finished"), screen.fit(WIDTH, axis=False)
        lines = [*job.value["history"], *(f"warning: {text}" for text in job.value["warnings"])]
        self.result[:] = [
            pn.pane.HTML(f"<p>Written: <code>{html.escape(str(path))}</code></p>", **WIDE),
            scrolled(compare_pictures(linear, finished, names=names, width=width)),
            finished_picture(finished, "finished", screen),
            *_named(finished),
            pn.pane.HTML(bullets(lines, 40), **WIDE),
        ]


def _named(finished: xr.Dataset) -> list[Any]:
    """The picture with its names, where it has a plate solution."""
    try:
        names = names_on(world_coordinates(finished), finished["signal"].shape[1:])
    except WorkbenchError:
        return []
    return [scrolled(pn.pane.HoloViews(named_picture(finished["signal"].values, names, "Names on the picture")))]
