"""Frames at full size: zoom and pan through tens of megapixels, several side by side, and choose a pixel by a tap.

Only what the screen shows is drawn: the pixels of the frame that fall on one pixel of the screen are averaged, again
for each view, in 15 to 60 ms for 24 Mpx; enlarged, each pixel is shown as it is.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import holoviews as hv
import numpy as np
import xarray as xr

from ..charts import theme
from ..charts.style import fit_title
from ..core.errors import WorkbenchError
from ..core.kernels import kernel
from ..core.parallel import in_threads
from ..core.statistics import mad_std
from ..finish import curves

COLUMN, ROW = theme.dimension("column", "px"), theme.dimension("row", "px")
WIDTH = 760  # of a picture on the page [px]
_STYLED = "styled"
_SPAN = tuple[float, float]
_PARTS = 4  # that a picture is computed in, by threads
_COMPILED = (np.uint16, np.float32, np.float64)  # native byte order; anything else is copied first
_SAMPLE = 500_000  # pixels that the display's limits are found from


@dataclass(frozen=True, eq=False)
class Picture:
    """A frame ready to be looked at.

    Attributes
    ----------
    name, values, unit
        What stands above it; (y, x), or (3, y, x) for red, green and blue; the unit of the values.
    limits, midtones
        Values shown black and white, a pair or one for each plane; of the midtone transfer function, 0.5 for a display
        in proportion to the values.
    cell
        Rows and columns of the mosaic's cell, of which only whole ones are averaged (else a moiré shows); 1 without.
    """

    name: str
    values: np.ndarray
    unit: str
    limits: tuple[tuple[float, float], ...]
    midtones: float = 0.5
    cell: int = 1

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.values.shape[-2:]


def _sample(plane: np.ndarray) -> np.ndarray:
    """Return some of a plane's finite values, in odd steps so that every colour of a mosaic is among them."""
    step = max(1, math.isqrt(plane.size // _SAMPLE)) | 1
    some = np.asarray(plane[::step, ::step], dtype=np.float32)
    return some[np.isfinite(some)]


def picture(name: str, values: Any, unit: str = "ADU", *, stretched: bool = False, cell: int = 0) -> Picture:
    """Prepare a frame to be looked at; nothing is copied.

    Parameters
    ----------
    values
        (y, x), or (channel, y, x) with one channel or three; an array or a DataArray, which is computed.
    stretched
        False: from the 0.5th to the 99.5th percentile, in proportion to the values.  True, for linear stacks: black at
        median - 2.8 σ (from the MAD), and the midtones so that the median of each plane comes to 0.25 (PixInsight's
        STF).  It changes what is shown, not the values.
    cell
        Of the mosaic; by default 2 of whole numbers (y, x), as cameras save them, else 1.

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
    samples = [_sample(plane) for plane in (array if array.ndim == 3 else [array])]
    if not all(some.size for some in samples):
        raise WorkbenchError(f"{name}: it has no finite values to show")
    limits, midtones = zip(*(_display(some, stretched) for some in samples), strict=True)
    cell = cell or (2 if array.ndim == 2 and array.dtype.kind in "iu" else 1)
    return Picture(name, array, unit, limits, float(np.mean(midtones)), cell)


def _display(some: np.ndarray, stretched: bool) -> tuple[tuple[float, float], float]:
    """Return the values shown black and white, and the midtones between them."""
    low, high = (float(value) for value in np.percentile(some, (0.5, 99.5)))
    midtones = 0.5
    if stretched:
        middle = float(np.median(some))
        low = max(float(some.min()), middle - 2.8 * float(mad_std(some)))
        high = float(np.percentile(some, 99.99))
        level = float(np.clip((middle - low) / (high - low), 1e-6, 1 - 1e-6)) if high > low else 0.25
        midtones = curves.midtones_balance(level, 0.25)
    return (round(low, 6), round(high, 6) if high > low else low + 1.0), midtones


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


class ScreenView(NamedTuple):
    """A part of a frame as a screen shows it, all in pixels of the frame.

    `rows` and `columns` hold the first of those that fall on each pixel of the screen and, last, where they end;
    `bounds` are left, top, right, bottom.
    """

    rows: np.ndarray
    columns: np.ndarray
    bounds: tuple[float, float, float, float]


def look(
    shape: tuple[int, int], x_range: _SPAN | None = None, y_range: _SPAN | None = None,
    size: tuple[int, int] = (760, 507), cell: int = 1,
) -> ScreenView:  # fmt: skip
    """Return what a screen shows of a frame.

    Cells of the frame belong to the pixel of the screen that their centre falls on.  Where pixels are as large as those
    of the screen or larger, nothing is reduced: all pixels that the view touches are shown, each as it is.

    Parameters
    ----------
    shape
        Rows and columns of the frame.
    x_range, y_range
        What is looked at [px of the frame], in any order; None for all of it.
    size, cell
        Width and height of the screen's part, which all of the ranges fill [px]; rows and columns that stay together.

    Examples
    --------
    >>> look((400, 600), size=(6, 4)).columns.tolist()
    [0, 100, 200, 300, 400, 500, 600]
    >>> look((400, 600), (10.5, 12.5), (0, 2), size=(600, 400)).bounds
    (10.0, 0.0, 13.0, 2.0)
    """
    rows, top, bottom = _edges(shape[0], y_range, size[1], cell)
    columns, left, right = _edges(shape[1], x_range, size[0], cell)
    return ScreenView(rows, columns, (left, top, right, bottom))


def _edges(length: int, span: _SPAN | None, size: int, cell: int) -> tuple[np.ndarray, float, float]:
    """Return where the bins along one axis begin and end, and the edges of the first and of the last."""
    first, last = sorted(span) if span else (0.0, float(length))
    low, high = max(first, 0.0), min(last, float(length))
    if high <= low:  # looked past the frame: its nearest pixel, which lies outside of the view
        at = min(max(int(first), 0), length - 1)
        return np.array([at, at + 1]), float(at), float(at + 1)
    scale = (last - first) / size  # pixels of the frame on one of the screen
    if scale <= 1:
        begin, end = int(np.floor(low)), int(np.ceil(high))
        return np.arange(begin, end + 1), float(begin), float(end)
    count = max(1, round((high - low) / max(scale, cell)))
    places = cell * np.ceil(np.linspace(low / cell, high / cell, count + 1) - 0.5).astype(int)
    places = np.unique(np.clip(places, 0, length))
    if places.size < 2:
        places = min(places[0], length - 1) + np.arange(2)
    return (places, low, high) if cell == 1 else (places, float(places[0]), float(places[-1]))


def reduced(values: np.ndarray, view: ScreenView) -> np.ndarray:
    """Return the mean of the finite pixels of `values` (y, x) that fall on each pixel of the screen, else NaN.

    The result has the rows and columns of the view, float32.

    Examples
    --------
    >>> reduced(np.arange(16.0).reshape(4, 4), look((4, 4), size=(2, 2))).tolist()
    [[2.5, 4.5], [10.5, 12.5]]
    """
    out = np.empty((view.rows.size - 1, view.columns.size - 1), np.float32)
    if view.rows[-1] - view.rows[0] == out.shape[0] and view.columns[-1] - view.columns[0] == out.shape[1]:
        out[...] = values[view.rows[0] : view.rows[-1], view.columns[0] : view.columns[-1]]
        out[~np.isfinite(out)] = np.nan
        return out
    if values.dtype not in _COMPILED:
        values = values.astype(np.float64)
    parts = [part for part in np.array_split(np.arange(out.shape[0]), _PARTS) if part.size]

    def reduce(part: np.ndarray) -> None:
        _mean(values, view.rows[part[0] : part[-1] + 2], view.columns, out[part[0] : part[-1] + 1])

    deque(in_threads(reduce, parts), maxlen=0)
    return out


@kernel(error_model="numpy")
def _mean(values, rows, columns, out):
    """Write the means of `values` (y, x) in bins bounded by `rows` and `columns` into `out` (rows - 1, columns - 1).

    Whole rows are summed first, then the columns of each bin, so that the processor adds many pixels at once.
    """
    left, right = columns[0], columns[-1]
    sums = np.empty(right - left, np.float64)
    counts = np.empty(right - left, np.int32)
    for y in range(out.shape[0]):
        sums[:] = 0
        counts[:] = 0
        for row in range(rows[y], rows[y + 1]):
            line = values[row, left:right]
            for x in range(line.size):
                value = np.float64(line[x])
                good = value - value == 0  # neither NaN nor infinite
                sums[x] += value if good else 0.0
                counts[x] += good
        for x in range(out.shape[1]):
            total, count = 0.0, 0
            for at in range(columns[x] - left, columns[x + 1] - left):
                total += sums[at]
                count += counts[at]
            out[y, x] = total / count if count else np.nan


class ViewRange(hv.streams.RangeXY):
    """The part of a picture in view; each move is answered at once (see `_register`)."""


@cache
def _register() -> None:
    """Register bokeh's callback for a `ViewRange` with HoloViews.

    HoloViews' own waits until the mouse has rested for 100 ms, because most pictures take longer than these.  Moves
    that arrive while one is answered are still combined.
    """
    from holoviews.plotting.bokeh.callbacks import RangeXYCallback

    class RangeCallback(RangeXYCallback):
        debounce = None

    hv.streams.Stream._callbacks["bokeh"][ViewRange] = RangeCallback


def _view(shown: Picture, size: tuple[int, int], x_range: Any = None, y_range: Any = None) -> hv.RGB:
    """Return what a screen of this size (width, height) [px] shows of a picture."""
    view = look(shown.shape, x_range, y_range, size, shown.cell)
    planes = shown.values[None] if shown.values.ndim == 2 else shown.values
    grey = [
        shade(reduced(plane, view), limits, shown.midtones)
        for plane, limits in zip(planes, shown.limits * (len(planes) // len(shown.limits)), strict=True)
    ]
    colours = np.dstack(grey * 3 if len(grey) == 1 else grey)[::-1]
    return hv.RGB(colours, bounds=view.bounds, kdims=[COLUMN, ROW]).opts(
        backend="bokeh", frame_width=size[0], frame_height=size[1], invert_yaxis=True, xlim=(0, shown.shape[1]),
        ylim=(0, shown.shape[0]), default_tools=["pan", "wheel_zoom", "reset"], active_tools=["pan", "wheel_zoom"],
        toolbar="above", hooks=[_house_style], title=shown.name,
    )  # fmt: skip


def _dynamic(frame: Callable[..., Picture], shape: tuple[int, int], width: int, streams: list[Any]) -> hv.DynamicMap:
    """Return a picture that is drawn again for each view and for each value that the other streams give `frame`."""
    from bokeh.core.validation import silence, warnings

    theme.load_backends()
    _register()
    silence(warnings.FIXED_SIZING_MODE)  # the frame has a fixed size; title and axes come on top
    size = width, round(width * shape[0] / shape[1])

    def view(x_range: Any = None, y_range: Any = None, **chosen: Any) -> hv.RGB:
        return _view(frame(**chosen), size, x_range, y_range)

    return hv.DynamicMap(view, streams=streams)


def live(shown: Picture, *, width: int = WIDTH, streams: Sequence[Any] = ()) -> hv.DynamicMap:
    """Return a picture that is drawn again for each view: drag to pan, turn the wheel to zoom.

    Parameters
    ----------
    width, streams
        On the page [px], the height follows; instead of the picture's own range, for tests and benchmarks.
    """
    return _dynamic(lambda: shown, shown.shape, width, list(streams) or [ViewRange()])


def _house_style(plot: Any, _element: Any) -> None:
    """Apply the house style to a picture, once; a page may change its colours later."""
    figure = plot.state
    if _STYLED in figure.tags:
        return
    figure.tags = [*figure.tags, _STYLED]
    figure.output_backend = "canvas"
    figure.toolbar.logo = figure.outline_line_color = None
    figure.title.text_font, figure.title.text_color = theme.FONT, theme.INK
    fit_title(figure)
    for axis in figure.axis:
        axis.axis_label_text_font = axis.major_label_text_font = theme.FONT
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_color = axis.major_label_text_color = theme.INK
        axis.axis_line_color = axis.major_tick_line_color = theme.MUTED
        axis.minor_tick_line_color = None


def side_by_side(pictures: Sequence[Picture], *, columns: int = 2, width: int = 480) -> hv.Layout:
    """Show pictures of one size with linked views: the same pixels in all of them.

    Raises
    ------
    WorkbenchError
        If there is none, or their sizes differ.
    """
    shapes = {shown.shape for shown in pictures}
    if len(shapes) != 1:
        sizes = ", ".join(f"{shown.name}: {shown.shape[1]} x {shown.shape[0]}" for shown in pictures)
        raise WorkbenchError(f"pictures side by side need one size; these are {sizes or 'none'}")
    layout = hv.Layout([live(shown, width=width) for shown in pictures]).cols(columns)
    return layout.opts(backend="bokeh", shared_axes=True, merge_tools=True, toolbar="above")


def marked(shown: Picture, pixel: Any, *, width: int = WIDTH, streams: Sequence[Any] = ()) -> hv.DynamicMap:
    """Return a live picture on which a tap chooses a pixel; the chosen pixel is marked.

    Parameters
    ----------
    pixel
        A `pixel.ChosenPixel`, which the tap sets.
    """
    drawn = live(shown, width=width, streams=streams)
    tap = hv.streams.Tap(source=drawn, x=None, y=None)
    tap.add_subscriber(partial(_tapped, pixel=pixel, shape=shown.shape))

    def mark(x: int, y: int) -> hv.Points:
        return hv.Points([(x + 0.5, y + 0.5)], [COLUMN, ROW]).opts(
            backend="bokeh", marker="square", size=14, fill_alpha=0, line_color=theme.SERIES[1], line_width=2
        )

    return drawn * hv.DynamicMap(mark, streams=[hv.streams.Params(pixel, ["x", "y"])])


def _tapped(x: float | None, y: float | None, pixel: Any, shape: tuple[int, int]) -> None:
    if x is not None and y is not None and 0 <= x < shape[1] and 0 <= y < shape[0]:
        pixel.param.update(x=int(x), y=int(y))


@cache
def warm() -> None:
    """Load and compile what the first picture needs, ahead of time."""
    theme.load_backends()
    for dtype in (np.uint16, np.float32):
        values = np.arange(64 * 96).astype(dtype).reshape(64, 96)
        live(picture("", values), width=24, streams=[ViewRange()])[()]
        values.flags.writeable = False  # compiled by itself
        live(picture("", values), width=24, streams=[ViewRange()])[()]


def like(shown: Picture, first: Picture) -> Picture:
    """Return a picture with the limits of another, so that blinking compares them on one scale."""
    same = shown.unit == first.unit and len(shown.limits) == len(first.limits)
    return replace(shown, limits=first.limits, midtones=first.midtones) if same else shown


def blink(frame: Callable[[str], Picture], chosen: Any, *, width: int = WIDTH) -> hv.DynamicMap:
    """Return a live picture of the frame that a widget names; the view stays where it is.

    Parameters
    ----------
    frame
        From the widget's value to a picture; all of one size.
    chosen
        The widget.
    """
    latest = lru_cache(maxsize=1)(lambda value: frame(value))  # a move within one frame prepares nothing
    streams = [hv.streams.Params(chosen, ["value"]), ViewRange()]
    return _dynamic(latest, latest(chosen.value).shape, width, streams)
