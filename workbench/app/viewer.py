"""Frames at full size: zoom and pan through tens of megapixels, several at the same spot, with a pixel chosen by a tap.

Only what the screen shows is drawn: the pixels that fall on one of the screen are averaged, anew for each view, in 15
to 60 ms for 24 Mpx (`live.pixels`); enlarged, each pixel is shown as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from ..charts import theme
from ..core.errors import WorkbenchError
from ..finish import curves
from .live_pixels import look, reduced

COLUMN, ROW = theme.dimension("column", "px"), theme.dimension("row", "px")
WIDTH = 760  # of a picture on the page [px]
_STYLED = "styled"
_SAMPLE = 500_000  # pixels that the display's limits are found from


@dataclass(frozen=True, eq=False)
class Picture:
    """A frame ready to be looked at.

    Attributes
    ----------
    name
        What stands above it.
    values
        (y, x), or (3, y, x) for red, green and blue.
    unit
        Of the values.
    limits
        Values shown black and white; a pair, or one for each plane.
    midtones
        Of the midtone transfer function, 0.5 for a display in proportion to the values.
    """

    name: str
    values: np.ndarray
    unit: str
    limits: tuple[tuple[float, float], ...]
    midtones: float = 0.5

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.values.shape[-2:]


def _sample(plane: np.ndarray) -> np.ndarray:
    """Return some of a plane's values, in odd steps so that every colour of a mosaic is among them."""
    step = max(1, math.isqrt(plane.size // _SAMPLE)) | 1
    some = np.asarray(plane[::step, ::step], dtype=np.float32)
    return some[np.isfinite(some)]


def picture(name: str, values: Any, unit: str = "ADU", *, stretched: bool = False) -> Picture:
    """Prepare a frame for looking at it; nothing is copied.

    Parameters
    ----------
    values
        (y, x), or (channel, y, x) with one channel or three; an array or a DataArray, which is computed.
    stretched
        False: from the 0.5th to the 99.5th percentile, in proportion to the values.  True, for linear stacks: black at
        median - 2.8 · 1.4826 MAD, and the midtones so that the median of each plane comes to 0.25 (the stretch that
        PixInsight calls STF).  It changes what is shown, not the values.

    Raises
    ------
    WorkbenchError
        If it has another shape, or no finite value.

    Examples
    --------
    >>> picture("ramp", np.arange(100.0).reshape(10, 10)).limits
    ((0.495, 98.505),)
    """
    array = values.values if isinstance(values, xr.DataArray) else np.asarray(values)
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[0] != 3):
        raise WorkbenchError(f"{name}: a picture has shape (y, x) or (3, y, x); this has {array.shape}")
    planes = [array] if array.ndim == 2 else list(array)
    limits, mids = [], []
    for plane in planes:
        some = _sample(plane)
        if not some.size:
            raise WorkbenchError(f"{name}: there is no finite value to show")
        low, high = (float(value) for value in np.percentile(some, (0.5, 99.5)))
        if stretched:
            middle = float(np.median(some))
            low = max(float(some.min()), middle - 2.8 * 1.4826 * float(np.median(np.abs(some - middle))))
            high = float(np.percentile(some, 99.99))
            share = float(np.clip((middle - low) / (high - low), 1e-6, 1 - 1e-6)) if high > low else 0.25
            mids.append(curves.midtones_balance(share, 0.25))
        limits.append((round(low, 6), round(high, 6) if high > low else low + 1.0))
    return Picture(name, array, unit, tuple(limits), float(np.mean(mids)) if mids else 0.5)


def shade(values: np.ndarray, limits: tuple[float, float], midtones: float = 0.5) -> np.ndarray:
    """Return values between the limits as 8-bit grey: MTF(x; m) = (m-1)x / ((2m-1)x - m) of x from 0 to 1.

    Examples
    --------
    >>> shade(np.array([0.0, 5.0, 10.0, np.nan]), (0.0, 10.0)).tolist()
    [0, 128, 255, 0]
    """
    low, high = limits
    x = np.clip((np.asarray(values, np.float32) - low) / (high - low), 0, 1)
    if midtones != 0.5:
        x = curves.midtones(x, midtones)
    return np.nan_to_num(255 * x).round().astype(np.uint8)


class Range(hv.streams.RangeXY):
    """What is looked at; a move is answered at once, not after 100 ms without another (see `_RangeCallback`)."""


@cache
def _register() -> None:
    """Tell HoloViews how bokeh reports a `Range`.

    Its own callback waits until the mouse rests, because most pictures take longer than these.  Moves that come while
    one is answered are put together all the same.
    """
    from holoviews.plotting.bokeh.callbacks import RangeXYCallback

    class RangeCallback(RangeXYCallback):
        debounce = None

    hv.streams.Stream._callbacks["bokeh"][Range] = RangeCallback


def _view(shown: Picture, size: tuple[int, int], x_range: Any = None, y_range: Any = None) -> hv.RGB:
    """Return what a screen of this size shows of a picture."""
    view = look(shown.shape, x_range, y_range, size)
    planes = shown.values[None] if shown.values.ndim == 2 else shown.values
    grey = [
        shade(reduced(plane, view), limits, shown.midtones)
        for plane, limits in zip(planes, shown.limits * (len(planes) // len(shown.limits)), strict=True)
    ]
    left, top, right, bottom = view.bounds
    colours = np.dstack(grey * 3 if len(grey) == 1 else grey)[::-1]
    return hv.RGB(colours, bounds=(left, top, right, bottom), kdims=[COLUMN, ROW])


def _dressed(view: hv.RGB, shown: Picture, size: tuple[int, int]) -> hv.RGB:
    """Set how a view is drawn."""
    rows, columns = shown.shape
    return view.opts(
        backend="bokeh", width=size[0] + 70, height=size[1] + 76, invert_yaxis=True, xlim=(0, columns), ylim=(0, rows),
        default_tools=["pan", "wheel_zoom", "reset"], active_tools=["pan", "wheel_zoom"], toolbar="above",
        hooks=[partial(_finish, size=size)], title=shown.name,
    )  # fmt: skip


def live(shown: Picture, *, width: int = WIDTH, streams: Sequence[Any] = ()) -> hv.DynamicMap:
    """Return a picture that is drawn anew for each view: pan by dragging, zoom by the wheel.

    Parameters
    ----------
    width
        On the page [px]; the height follows.
    streams
        In place of the picture's own range, for tests and benchmarks.
    """
    theme.load_backends()
    _register()
    size = width, round(width * shown.shape[0] / shown.shape[1])

    def view(x_range: Any = None, y_range: Any = None) -> hv.RGB:
        return _dressed(_view(shown, size, x_range, y_range), shown, size)

    return hv.DynamicMap(view, streams=list(streams) or [Range()])


def _finish(plot: Any, _element: Any, *, size: tuple[int, int]) -> None:
    """Put the house style on a picture, once, and keep its shape; a page may change its colours later."""
    figure = plot.state
    if _STYLED in figure.tags:
        return
    figure.tags = [*figure.tags, _STYLED]
    figure.output_backend = "canvas"
    figure.frame_width, figure.frame_height = size
    figure.toolbar.logo = None
    figure.title.text_font, figure.title.text_color = theme.FONT, theme.INK
    figure.outline_line_color = None
    for axis in figure.axis:
        axis.axis_label_text_font = axis.major_label_text_font = theme.FONT
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_color = axis.major_label_text_color = theme.INK
        axis.axis_line_color = axis.major_tick_line_color = theme.MUTED
        axis.minor_tick_line_color = None


def side_by_side(pictures: Sequence[Picture], *, columns: int = 2, width: int = 480) -> hv.Layout:
    """Show pictures of one size with their views linked: the same spot in all of them.

    Raises
    ------
    WorkbenchError
        If there is none, or their sizes differ.
    """
    shapes = {shown.shape for shown in pictures}
    if len(shapes) != 1:
        sizes = ", ".join(f"{shown.name}: {shown.shape[1]} x {shown.shape[0]}" for shown in pictures)
        raise WorkbenchError(f"pictures at the same spot need one size; these are {sizes or 'none'}")
    layout = hv.Layout([live(shown, width=width) for shown in pictures]).cols(columns)
    return layout.opts(backend="bokeh", shared_axes=True, merge_tools=True, toolbar="above")


def marked(shown: Picture, spot: Any, *, width: int = WIDTH) -> hv.DynamicMap:
    """Return a live picture on which a tap chooses a pixel, which is marked.

    Parameters
    ----------
    spot
        A `Spot`, which the tap sets.
    """
    drawn = live(shown, width=width)
    tap = hv.streams.Tap(source=drawn, x=None, y=None)
    tap.add_subscriber(partial(_tapped, spot=spot, shape=shown.shape))

    def mark(x: int, y: int) -> hv.Points:
        return hv.Points([(x + 0.5, y + 0.5)], [COLUMN, ROW]).opts(
            backend="bokeh", marker="square", size=14, fill_alpha=0, line_color=theme.SERIES[1], line_width=2
        )

    return drawn * hv.DynamicMap(mark, streams=[hv.streams.Params(spot, ["x", "y"])])


def _tapped(x: float | None, y: float | None, spot: Any, shape: tuple[int, int]) -> None:
    if x is not None and y is not None and 0 <= x < shape[1] and 0 <= y < shape[0]:
        spot.param.update(x=int(x), y=int(y))


@cache
def warm() -> None:
    """Load and compile what a first picture needs; call it while the user still reads."""
    theme.load_backends()
    for dtype in (np.uint16, np.float32):
        values = np.arange(64 * 96).astype(dtype).reshape(64, 96)
        live(picture("", values), width=24, streams=[Range()])[()]
        values.flags.writeable = False  # compiled by itself
        live(picture("", values), width=24, streams=[Range()])[()]


def like(shown: Picture, first: Picture) -> Picture:
    """Return a picture with the limits of another, so that blinking compares like with like."""
    same = shown.unit == first.unit and len(shown.limits) == len(first.limits)
    return replace(shown, limits=first.limits, midtones=first.midtones) if same else shown


def blink(frame: Callable[[str], Picture], chosen: Any, *, width: int = WIDTH) -> hv.DynamicMap:
    """Return a live picture of one of several frames; which, a widget tells.  The view stays where it is.

    Parameters
    ----------
    frame
        From the widget's value to a picture; all of one size.
    chosen
        The widget.
    """
    theme.load_backends()
    _register()
    first = frame(chosen.value)
    last = {"of": chosen.value, "shown": first}
    size = width, round(width * first.shape[0] / first.shape[1])

    def view(value: Any, x_range: Any = None, y_range: Any = None) -> hv.RGB:
        if value != last["of"]:
            last.update(of=value, shown=frame(value))
        return _dressed(_view(last["shown"], size, x_range, y_range), last["shown"], size)

    return hv.DynamicMap(view, streams=[hv.streams.Params(chosen, ["value"]), Range()])
