"""The piece of a frame that a tile needs: where it lies; calibrated, turned, mirrored at the edges, defects filled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..align.transform import Transform
from ..calibrate.apply import DEFECT, SATURATED
from ..calibrate.planes import (
    FAST,
    REACH,
    calibrate_row,
    calibrate_sample,
    neighbour_weights,
    same_colour,
    weighted_mean,
)
from ..core.cube import is_xtrans
from ..core.kernels import kernel
from ..core.mosaic import colour_index
from ..core.scattered import HALF

RIM = 4
BLOCK = 32  # output columns that share their noise parameters
BAND = 64  # output rows
WIDTH = 256  # output columns; half as many for many frames, as narrower tiles cost more than samples beyond the cache
_BYTES = 24 * 2**20  # of resampled samples that one thread holds, if that can be ...
_MOST_BYTES = 192 * 2**20  # ... and in any case
KERNEL = 3  # lattice steps from the centre to the end of the resampling kernel


class Frame(NamedTuple):
    """A frame's samples and what calibrates them: ``e = (raw - base - factor dark) scale``, see `calibrate.Planes`.

    `raw` (y, x) begins at (`row0`, `column0`); `base`, `dark`, `scale` are of the whole frame (y, x), `base` of one
    pixel where there is none.  Of a calibrated mosaic `mask` (y, x) has the flags of `calibrate`, and `raw` the signal;
    of raw samples `mask` has one pixel, and samples from `white` on are saturated.
    """

    raw: np.ndarray
    row0: int
    column0: int
    mask: np.ndarray
    base: np.ndarray
    dark: np.ndarray
    scale: np.ndarray
    factor: float
    cell: np.ndarray
    white: float | np.float32


class Window(NamedTuple):
    """A piece of a frame turned by `turn` quarters: from (`top`, `left`) on, `rows` rows of 2 x `half` pixels.

    With `split` a row holds its even columns first, then the odd ones.
    """

    turn: int
    top: int
    left: int
    rows: int
    half: int
    split: bool


class Tile(NamedTuple):
    """Where a tile lies in the output, and how its arrays are laid out.

    With its rim it begins at (`top`, `left`) of the output and has `height` x `width` pixels; without, it has `rows` x
    `columns`, the first of them at (`rim_top`, `rim_left`) of the whole, and goes to (`row`, `column`) of the arrays
    that are written.  `phase` columns of its first block lie to the left of it.  With `split` its rows hold the even
    columns first, then the odd ones.
    """

    top: int
    left: int
    height: int
    width: int
    rim_top: int
    rim_left: int
    row: int
    column: int
    rows: int
    columns: int
    phase: int
    split: bool


@kernel()
def unturned(turn: int, y: int, x: int, height: int, width: int) -> tuple[int, int]:
    """Return row and column in a frame of a pixel (y, x) of the frame turned by quarters."""
    if turn == 0:
        return y, x
    if turn == 1:
        return x, width - 1 - y
    if turn == 2:
        return height - 1 - y, width - 1 - x
    return height - 1 - x, y


@kernel()
def _source(turn, wy, wx, height, width):
    """Return row and column in the frame of a place in the turned frame, mirrored at its edges, which keeps colours."""
    high, wide = (height, width) if turn % 2 == 0 else (width, height)
    wy = -wy if wy < 0 else wy
    wx = -wx if wx < 0 else wx
    wy = 2 * (high - 1) - wy if wy >= high else wy
    wx = 2 * (wide - 1) - wx if wx >= wide else wx
    return unturned(turn, min(max(wy, 0), high - 1), min(max(wx, 0), wide - 1), height, width)


@kernel()
def _is_saturated(frame, y, x):
    """Whether a pixel without a defect is saturated; of a calibrated mosaic a filled defect may be, too."""
    if frame.mask.size > 1:
        return frame.mask[y, x] & SATURATED != 0
    scale = frame.scale[y, x]
    return frame.raw[y - frame.row0, x - frame.column0] >= frame.white and scale - scale == 0


@kernel()
def _base_at(frame, y, x):
    return frame.base[y, x] if frame.base.size > 1 else np.float32(0.0)


@kernel()
def _read_pixels(frame, window, row, part, line):
    """Calibrate the pixels `part` (first, last) of a row of the window one by one; return the highest raw value."""
    raw, dark, scale = frame.raw, frame.dark, frame.scale
    height, width = scale.shape
    factor = np.float32(frame.factor)
    peak = raw[0, 0]
    for x in range(part[0], part[1]):
        y, i = _source(window.turn, window.top + row, window.left + x, height, width)
        value = raw[y - frame.row0, i - frame.column0]
        line[x] = calibrate_sample(value, _base_at(frame, y, i), dark[y, i], factor, scale[y, i])
        peak = value if value > peak else peak
    return peak


@kernel()
def _read_row(frame, window, row, line):
    """Calibrate a row of the window into `line` (2 x half); return whether it may hold saturated pixels."""
    height, width = frame.scale.shape
    columns = line.size
    if window.turn != 0:
        peak = _read_pixels(frame, window, row, (0, columns), line)
        return frame.mask.size > 1 or peak >= frame.white
    y, _ = _source(0, window.top + row, 0, height, width)
    first, last = min(max(-window.left, 0), columns), max(min(width - window.left, columns), 0)
    part = slice(window.left + first, window.left + last)
    base = frame.base[y, part] if frame.base.size > 1 else frame.base[0, 0:0]
    held = slice(part.start - frame.column0, part.stop - frame.column0)
    raw, scale = frame.raw[y - frame.row0, held], frame.scale[y, part]
    peak = calibrate_row(raw, base, frame.dark[y, part], np.float32(frame.factor), scale, line[first:last])
    if last - first < columns:  # the rest lies beyond the frame's edges
        peak = max(peak, _read_pixels(frame, window, row, (0, first), line))
        peak = max(peak, _read_pixels(frame, window, row, (last, columns), line))
    if frame.mask.size > 1:
        flags = np.uint8(last - first < columns) * np.uint8(SATURATED)
        for x in range(window.left + first, window.left + last):
            flags |= frame.mask[y, x]
        return flags & SATURATED != 0
    return peak >= frame.white


@kernel()
def fill_window(frame: Frame, window: Window, out: np.ndarray, marks: np.ndarray) -> int:
    """Calibrate a piece of a `Frame` into `out` (flat: rows x 2 half) and return how many of its pixels are saturated.

    Beyond the frame's edge pixels are mirrored, and defects are filled as `calibrate` fills them.  `marks` (n, 2)
    receives row and column of the saturated pixels.
    """
    height, width = frame.scale.shape
    columns = 2 * window.half
    line = np.empty(columns, np.float32)
    holes, saturated = np.zeros(window.rows, np.bool_), 0
    for row in range(window.rows):
        if _read_row(frame, window, row, line):
            for x in range(columns):
                y, i = _source(window.turn, window.top + row, window.left + x, height, width)
                if saturated < marks.shape[0] and _is_saturated(frame, y, i):
                    marks[saturated, 0], marks[saturated, 1] = row, x
                    saturated += 1
        into = out[row * columns : (row + 1) * columns]
        if window.split:
            even, odd = into[: window.half], into[window.half :]
            for x in range(window.half):
                even[x] = line[2 * x]
                odd[x] = line[2 * x + 1]
        else:
            into[:] = line
        holes[row] = _has_nan(line)
    return _fill_holes(frame, window, holes, out, marks, saturated)


@kernel(fastmath=FAST)
def _has_nan(line):
    total = np.float32(0.0)
    for x in range(line.size):
        total += line[x]
    return total - total != np.float32(0.0)  # infinities too


@kernel()
def _fill_holes(frame, window, holes, out, marks, saturated):
    """Fill the missing pixels of a window's rows that have `holes` from the frame; return the number of marks."""
    height, width = frame.scale.shape
    columns = 2 * window.half
    around, weight = np.empty((2 * REACH + 1, 2 * REACH + 1)), np.empty((2 * REACH + 1, 2 * REACH + 1))
    for row in range(window.rows):
        for column in range(columns if holes[row] else 0):
            index = row * columns + column
            if out[index] - out[index] == 0:
                continue
            x = column
            if window.split:
                x = 2 * x if x < window.half else 2 * (x - window.half) + 1
            y, i = _source(window.turn, window.top + row, window.left + x, height, width)
            full = _gather(frame, y, i, around, weight)
            out[index] = weighted_mean(around, weight) if full >= 0 else np.nan
            if full > 0 and frame.mask.size == 1 and saturated < marks.shape[0]:
                marks[saturated, 0], marks[saturated, 1] = row, x
                saturated += 1
    return saturated


@kernel()
def _gather(frame, y, x, around, weight):
    """Set `around` and `weight` (9, 9) to what a pixel is filled from; return -1 for nothing, 1 if it is saturated."""
    first, last = frame.row0, frame.row0 + frame.raw.shape[0]
    left, right = frame.column0, frame.column0 + frame.raw.shape[1]
    factor = np.float32(frame.factor)
    around[:] = np.nan
    for m in range(max(first, y - REACH), min(last, y + REACH + 1)):
        for n in range(max(left, x - REACH), min(right, x + REACH + 1)):
            if not same_colour(frame.cell, y, x, m - y, n - x) or (frame.mask.size > 1 and frame.mask[m, n] & DEFECT):
                continue
            value = frame.raw[m - first, n - left]
            value = calibrate_sample(value, _base_at(frame, m, n), frame.dark[m, n], factor, frame.scale[m, n])
            around[m - y + REACH, n - x + REACH] = value
    if neighbour_weights(around, weight) == 0:
        return -1
    for m in range(max(first, y - REACH), min(last, y + REACH + 1)):
        for n in range(max(left, x - REACH), min(right, x + REACH + 1)):
            if weight[m - y + REACH, n - x + REACH] > 0.0 and _is_saturated(frame, m, n):
                return 1
    return 0


def quarter_turns(transform: Transform, shape: tuple[int, int], cfa_pattern: str) -> int:
    """Return how many quarter turns bring a frame closest to the reference's orientation, 0 to 3; of X-Trans 0.

    `shape` is the output's; the samples of X-Trans are gathered one by one, whatever the angle.
    """
    if is_xtrans(cfa_pattern):
        return 0
    matrix = transform.jacobian(shape[1] / 2, shape[0] / 2)
    angle = np.degrees(np.arctan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1]))
    return int(np.round(angle / 90.0)) % 4


def turned(turn: int, x: np.ndarray, y: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return positions of a frame of `shape` (height, width) in the same frame turned by quarters.

    Examples
    --------
    >>> turned(2, 0.0, 0.0, (10, 20))
    (19.0, 9.0)
    """
    height, width = shape
    if turn == 0:
        return x, y
    if turn == 1:
        return y, width - 1.0 - x
    if turn == 2:
        return width - 1.0 - x, height - 1.0 - y
    return height - 1.0 - y, x


def turned_cell(cfa_pattern: str, turn: int, shape: tuple[int, int]) -> np.ndarray:
    """Return the 2 x 2 colours (0 R, 1 G, 2 B) of a frame's first pixels after quarter turns (zeros for mono).

    Of X-Trans, which is not turned, the 6 x 6.

    Examples
    --------
    >>> turned_cell("RGGB", 2, (10, 20)).tolist()
    [[2, 1], [1, 0]]
    """
    if cfa_pattern == "mono":
        return np.zeros((2, 2), np.int64)
    colours = colour_index(cfa_pattern)
    if is_xtrans(cfa_pattern):
        return colours
    cell = np.empty((2, 2), np.int64)
    for j in range(2):
        for i in range(2):
            y, x = unturned(turn, j, i, *shape)
            cell[j, i] = colours[y % 2, x % 2]
    return cell


_NODES = np.linspace(0.0, 1.0, 4)
_NODE_V, _NODE_U = (grid.ravel() for grid in np.meshgrid(_NODES, _NODES, indexing="ij"))


def _quadratics(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.stack([np.ones_like(u * v), u + 0 * v, v + 0 * u, u * u + 0 * v, u * v, v * v + 0 * u], -1)


_SOLVE = np.linalg.pinv(_quadratics(_NODE_U, _NODE_V))


def place_polynomials(
    transform: Transform,
    turn: int,
    shape: tuple[int, int],
    lefts: np.ndarray,
    widths: np.ndarray,
    top: int,
    height: int,
) -> np.ndarray:
    """Return the places in the turned frame of tiles' pixels, as quadratics (tile, 2, 6) in their column and row.

    The tiles begin at columns `lefts` and row `top` of the reference and have `widths` columns and `height` rows.
    Fitted to 16 nodes; over 256 pixels the cubic terms of real lenses leave less than 1e-4 px.
    """
    widths = np.asarray(widths, float)[:, None]
    x = np.asarray(lefts, float)[:, None] + _NODE_U * (widths - 1)
    y = np.broadcast_to(top + _NODE_V * (height - 1), x.shape)
    x, y = turned(turn, *transform.apply(x, y), shape)
    fitted = np.stack([x, y], 1) @ _SOLVE.T
    return fitted / _quadratics(np.maximum(widths - 1.0, 1.0), np.array(max(height - 1.0, 1.0)))


def window_margin(cfa_pattern: str) -> int:
    """Return how many pixels around what tiles ask for a window holds: the kernel's reach, and some to fill defects."""
    return KERNEL + 2 if cfa_pattern == "mono" else HALF + 2 if is_xtrans(cfa_pattern) else 2 * KERNEL + 3


def window_bounds(places: np.ndarray, widths: np.ndarray, height: int, margin: int) -> np.ndarray:
    """Return (top, left, rows, half columns) of the windows (tile, 4) that hold all samples tiles ask for."""
    grid = _quadratics(_NODE_U * (np.asarray(widths, float)[:, None] - 1), _NODE_V * (height - 1))
    x, y = np.moveaxis(np.einsum("tak,tnk->tan", places, grid), 1, 0)
    top, left = (np.floor(values.min(-1)).astype(np.int64) - margin for values in (y, x))
    top, left = top - top % 2, left - left % 2
    rows = np.ceil(y.max(-1)).astype(np.int64) + margin - top + 1
    columns = np.ceil(x.max(-1)).astype(np.int64) + margin - left + 1
    return np.stack([top, left, rows, -(-columns // 2)], -1)


def tile_width(frames: int, channels: int) -> int:
    """Return how many columns a tile has, so that its samples of all frames stay in the allowance, if that can be."""
    row_bytes = frames * channels * (BAND + 2 * RIM) * 8
    fitting = (_BYTES // row_bytes - 2 * RIM) // BLOCK * BLOCK
    return int(np.clip(fitting, WIDTH // 2, WIDTH))


def strip_height(frames: int, channels: int) -> int:
    """Return how many rows of a tile are worked off at once: all, unless samples of so many frames need too much."""
    fitting = _MOST_BYTES // (frames * channels * (WIDTH // 2 + 2 * RIM) * 8) - 2 * RIM
    return int(np.clip(fitting // 8 * 8, 8, BAND))


def band_tiles(number: int, area: tuple[int, int, int, int], width: int, split: bool, row: int = 0) -> list[Tile]:
    """Return the tiles of a band: what of them lies in an area (top, left, bottom, right) of the output.

    Bands and tiles lie on one grid, whatever the area; rims end at its edges.  `row` is where the band begins in the
    arrays that are written.
    """
    top, left, bottom, right = area
    first, last = max(number * BAND, top), min((number + 1) * BAND, bottom)
    above, below = max(first - RIM, top), min(last + RIM, bottom)
    tiles = []
    for start in range(left // width * width, right, width):
        column, end = max(start, left), min(start + width, right)
        before, after = max(column - RIM, left), min(end + RIM, right)
        size, rim = (below - above, after - before), (first - above, column - before)
        place, inner = (row, column - left), (last - first, end - column)
        tiles.append(Tile(above, before, *size, *rim, *place, *inner, column % BLOCK, split))
    return tiles


def tile_places(
    transform: Transform, turn: int, shape: tuple[int, int], tiles: Sequence[Tile], margin: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return where a band's tiles lie in a turned frame of `shape`: places (tile, 2, 6) and windows (tile, 4).

    `margin` is `window_margin`.
    """
    lefts, widths = np.array([(tile.left, tile.width) for tile in tiles]).T
    first = tiles[0]
    places = place_polynomials(transform, turn, shape, lefts, widths, first.top, first.height)
    return places, window_bounds(places, widths, first.height, margin)
