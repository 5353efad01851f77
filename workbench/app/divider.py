"""Two pictures on a page under a divider to drag: JPEG inside the HTML, so that nothing is fetched from the network."""

from __future__ import annotations

import base64
import html
import io
import itertools
from typing import Any

import numpy as np
import xarray as xr
from PIL import Image

from .. import finish

WIDTH = 820  # of a picture on the page [px]
_SHARP = 1.6  # pixels of the picture for one of the page, at most: screens are finer than they report
SAMPLE = 40_000  # pixels that are enough to find a stretch for the screen
_NUMBERS = itertools.count(1)
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
        self.before, self.name, self.width = jpeg(before), name, width
        self.height = round(width * before.shape[0] / before.shape[1])
        self.key = f"n{next(_NUMBERS)}"  # under which the page remembers its position

    def render(self, after: np.ndarray, name: str = "after") -> str:
        """Return the HTML with these 8-bit pixels on the right."""
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
        size = f"width:{self.width}px;height:{self.height}px"
        sized = f"position:absolute;left:0;top:0;{size};max-width:none;user-select:none"
        left, right = html.escape(self.name), html.escape(name)
        return (
            f'<div class="wb-divider" style="position:relative;{size};overflow:hidden">'
            f'<img src="{self.before}" alt="{left}" draggable="false" style="{sized}">'
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
    return html_pane(Divider(first, names[0], width).render(second, names[1]), width)


def html_pane(text: Any, width: int = WIDTH) -> Any:
    """Show HTML, or something bound to widgets that returns it, in a pane that never fetches from the network."""
    import panel as pn

    return pn.widgets.StaticText(value=text, width=width)
