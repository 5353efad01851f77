"""Pictures on a page: two under a divider to drag, as JPEG inside the HTML, so that nothing asks the network."""

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
_SHARP = 1.6  # pixels of the picture for one of the page, at most: screens have more than they say
SAMPLE = 40_000  # pixels that tell a stretch enough for the screen
_NUMBERS = itertools.count(1)
_LABEL = (
    "position:absolute;top:8px;padding:2px 8px;border-radius:4px;background:#000a;color:#fff;"
    "font:12px system-ui,sans-serif;pointer-events:none"
)


def next_key() -> str:
    """Return a name that no other divider of this session has; each remembers its own place."""
    return f"n{next(_NUMBERS)}"


def screen(picture: xr.Dataset, width: int = WIDTH) -> xr.Dataset:
    """Return the level of the picture's pyramid that a screen shows `width` page pixels wide."""
    levels = finish.pyramid(picture, smallest=64)
    return next((level for level in levels if level.sizes["x"] <= _SHARP * width), levels[-1])


def pixels(picture: xr.Dataset) -> np.ndarray:
    """Return 8-bit pixels (y, x, 3) or (y, x): a stretched picture as it is, a linear one stretched by default."""
    if picture.attrs.get("stage") != "stretched":
        statistics = finish.sky_statistics(picture, sample=SAMPLE)
        picture = finish.apply_stretch(picture, finish.stretch_parameters(picture, statistics=statistics))
    return finish.quantise(picture, 8)


def difference(before: xr.Dataset, after: xr.Dataset, *, signed: bool = True) -> np.ndarray:
    """Return what a step removed as 8-bit pixels: grey is nothing, brighter is light taken, darker light added.

    The scale runs to 4 standard deviations (robust), so that single pixels of noise can be seen; unsigned: from the
    least to the most.
    """
    values = finish.removed(before, after)["signal"].values
    good = values[np.isfinite(values)]
    if not good.size or good.min() == good.max():
        return _eight_bits(np.full_like(values, 0.5))
    if signed:
        size = np.abs(good)
        reach = 4 * max(1.4826 * float(np.median(size)), float(np.quantile(size, 0.98)) / 4) or float(size.max())
        return _eight_bits(0.5 + values / (2 * reach))
    low, high = float(good.min()), float(good.max())
    return _eight_bits((values - low) / (high - low))


def _eight_bits(values: np.ndarray) -> np.ndarray:
    levels = (np.clip(np.nan_to_num(values), 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.moveaxis(levels, 0, -1) if len(levels) == 3 else levels[0]


def jpeg(levels: np.ndarray) -> str:
    """Return 8-bit pixels as the address of a picture that is its own content."""
    out = io.BytesIO()
    Image.fromarray(levels).save(out, "JPEG", quality=93, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def divider(
    before: str,
    after: str,
    shape: tuple[int, ...],
    *,
    names: tuple[str, str] = ("before", "after"),
    width: int = WIDTH,
    key: str = "",
) -> str:
    """Return HTML of two pictures, one over the other, with a divider to drag (or to move with the arrow keys).

    It needs neither a server nor the network, and where it was dragged to it stays when the pictures change.

    Parameters
    ----------
    before, after
        Addresses, from `jpeg`.
    shape
        Of the pictures: rows, columns.
    key
        Under which the divider's place is remembered.
    """
    height = round(width * shape[0] / shape[1])
    store = f"window.wbDivider_{key or 'one'}"
    move = (
        "var b=this.parentNode,v=+this.value;"
        "b.querySelector('.wb-after').style.clipPath='inset(0 0 0 '+v+'%)';"
        f"b.querySelector('.wb-line').style.left=v+'%';{store}=v"
    )
    again = (
        f"if({store}!==undefined){{var r=this.parentNode.querySelector('input');r.value={store};"
        "r.dispatchEvent(new Event('input'))}"
    )
    # the slider itself is clear, so the handle shows that the keyboard is there
    line = "this.parentNode.querySelector('.wb-line').style"
    seen = f"if(this.matches(':focus-visible')){line}.outline='3px solid #56b4e9'"
    unseen = f"{line}.outline=''"
    sized = f"position:absolute;left:0;top:0;width:{width}px;height:{height}px;max-width:none;user-select:none"
    left, right = (html.escape(name) for name in names)
    return (
        f'<div class="wb-divider" style="position:relative;width:{width}px;height:{height}px;overflow:hidden">'
        f'<img src="{before}" alt="{left}" draggable="false" style="{sized}">'
        f'<img class="wb-after" src="{after}" alt="{right}" draggable="false" onload="{again}" '
        f'style="{sized};clip-path:inset(0 0 0 50%)">'
        f'<span style="{_LABEL};left:8px">{left}</span><span style="{_LABEL};right:8px">{right}</span>'
        '<div class="wb-line" style="position:absolute;top:0;bottom:0;left:50%;width:2px;margin-left:-1px;'
        'background:#fff;box-shadow:0 0 3px #000;pointer-events:none">'
        '<div style="position:absolute;top:50%;left:-13px;width:28px;height:28px;margin-top:-14px;border-radius:50%;'
        'background:#fff;box-shadow:0 0 4px #000;color:#333;font:16px/28px sans-serif;text-align:center">⇔</div></div>'
        f'<input type="range" min="0" max="100" step="0.2" value="50" aria-label="divider between {left} and {right}" '
        f'oninput="{move}" onfocus="{seen}" onkeyup="{seen}" onblur="{unseen}" '
        'style="position:absolute;inset:0;width:100%;height:100%;margin:0;opacity:0;'
        'cursor:ew-resize"></div>'
    )


def compare(before: Any, after: Any, *, names: tuple[str, str] = ("before", "after"), width: int = WIDTH) -> Any:
    """Show two pictures (or arrays of 8-bit pixels) under a divider to drag."""
    first, second = (one if isinstance(one, np.ndarray) else pixels(screen(one, width)) for one in (before, after))
    return shown(divider(jpeg(first), jpeg(second), second.shape, names=names, width=width, key=next_key()))


def shown(words: Any, width: int = WIDTH) -> Any:
    """HTML, or something bound to widgets that gives it, in a pane that never asks the network."""
    import panel as pn

    return pn.widgets.StaticText(value=words, width=width)
