"""A frame reduced to what a screen shows of it: every pixel counts once, and enlarged it is shown pixel for pixel."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numba
import numpy as np

from ..core.parallel import in_threads

_SPAN = tuple[float, float]
_PARTS = 4  # that a picture is worked out in
_COMPILED = (np.uint16, np.float32, np.float64)  # native byte order; anything else is copied first


class View(NamedTuple):
    """Part of a frame on a screen: the rows and columns that it begins and ends with, and where its edges lie.

    Attributes
    ----------
    rows, columns
        Where the pixels begin that fall on each of the screen, and after the last of them where these end.
    bounds
        left, top, right, bottom [px of the frame].
    """

    rows: np.ndarray
    columns: np.ndarray
    bounds: tuple[float, float, float, float]


def look(
    shape: tuple[int, int], x_range: _SPAN | None = None, y_range: _SPAN | None = None,
    size: tuple[int, int] = (760, 507),
) -> View:  # fmt: skip
    """Return what a screen shows of a frame.

    Pixels of the frame belong to the pixel of the screen that their centre falls on.  Where one of the frame is no
    smaller than one of the screen there is no reduction: whole pixels are shown, as many as the view touches.

    Parameters
    ----------
    shape
        Rows and columns of the frame.
    x_range, y_range
        What is looked at [px of the frame], in any order; None for all of it.
    size
        Width and height of the screen's part, which all of the ranges fill [px].

    Examples
    --------
    >>> look((400, 600), size=(6, 4)).columns.tolist()
    [0, 100, 200, 300, 400, 500, 600]
    >>> look((400, 600), (10.5, 12.5), (0, 2), size=(600, 400)).bounds
    (10.0, 0.0, 13.0, 2.0)
    """
    rows, top, bottom = _edges(shape[0], y_range, size[1])
    columns, left, right = _edges(shape[1], x_range, size[0])
    return View(rows, columns, (left, top, right, bottom))


def _edges(length: int, span: _SPAN | None, size: int) -> tuple[np.ndarray, float, float]:
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
    count = max(1, round((high - low) / scale))
    places = np.clip(np.ceil(np.linspace(low, high, count + 1) - 0.5).astype(int), 0, length)
    places[-1] = max(places[-1], places[0] + 1)
    return places, low, high


def reduced(values: np.ndarray, view: View) -> np.ndarray:
    """Return the mean of the pixels that fall on each of the screen; NaN where there are none that are finite.

    Parameters
    ----------
    values
        (y, x), of any numbers.

    Returns
    -------
    numpy.ndarray
        (rows, columns) of the view, float32.

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


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _mean(values, rows, columns, out):
    """Sum whole rows, then the columns of each bin: so the processor adds many pixels at once."""
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
