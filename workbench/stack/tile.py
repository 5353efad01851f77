"""One frame on one tile of the reference's grid: its window calibrated, resampled, softened where it is saturated.

A tile is some 64 x 256 output pixels with a rim of `RIM` more on every side that has more, which the neighbourhood
tests of `combine` need.  The engine works off a tile all frames deep; the verb `aligned` a frame tile by tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..align.transform import Transform
from ..core.cube import MOSAICS
from ..core.kernels import kernel
from ..core.mosaic import channel_index
from ..core.scattered import Piece, place_at, sample_scattered, soften_scattered
from .lanczos import PADDING, Target, resampling_kernel, sample_window
from .window import (
    BAND,
    RIM,
    WIDTH,
    Frame,
    Tile,
    Window,
    band_tiles,
    fill_window,
    quarter_turns,
    tile_places,
    turned_cell,
    window_bounds,
    window_margin,
)

_MARKS = 4096  # saturated pixels of a window that are looked at
_NAN = np.float32(np.nan)


class TileFrames(NamedTuple):
    """F frames as read; frame f's part ``raw[starts[f]:]`` begins at `row0[f]`, `column0[f]` and is `rows` x `columns`.

    `mask` (y, x) is a calibrated mosaic's, of one frame only; else it has one pixel.  `group` numbers the `Maps` that
    calibrate a frame, `factor` scales its dark.  `turn` [quarters] and `corner` (f, 2, 2), the colours of the turned
    frame's first pixels; `place` (f, 2, 6) and `bounds` (f, 4) of the tile (`place_polynomials`, `window_bounds`);
    `surface` (f, channel, 6) [e-] and `scale` (f) normalise it, `weight` (f, channel) counts it.
    """

    raw: np.ndarray
    starts: np.ndarray
    row0: np.ndarray
    rows: np.ndarray
    column0: np.ndarray
    columns: np.ndarray
    mask: np.ndarray
    factor: np.ndarray
    group: np.ndarray
    turn: np.ndarray
    corner: np.ndarray
    place: np.ndarray
    bounds: np.ndarray
    surface: np.ndarray
    scale: np.ndarray
    weight: np.ndarray


class Maps(NamedTuple):
    """The planes (group, y, x) that calibrate each group of frames; see `calibrate.Planes`."""

    base: np.ndarray
    dark: np.ndarray
    scale: np.ndarray
    cell: np.ndarray
    white: np.float32


class Scratch(NamedTuple):
    """Buffers of one thread: F frames of a tile's values and Σw², the window, which frames are saturated and where.

    `flags` (frame, sample) and `median` (sample), where they have more than one element, receive what `combine` found.
    """

    kernel: np.ndarray
    ramp: np.ndarray
    window: np.ndarray
    values: np.ndarray
    squares: np.ndarray
    marks: np.ndarray
    saturated: np.ndarray
    reached: np.ndarray
    flags: np.ndarray = np.zeros((1, 1), np.uint8)
    median: np.ndarray = np.zeros(1, np.float32)


def scratch_arrays(
    frames: int, channels: int, shape: tuple[int, int], window: int, kernel: np.ndarray, keep: bool = False
) -> Scratch:
    """Return the buffers that one thread needs for tiles of `shape` (rows, columns) and windows of so many samples.

    With `keep` the flags of all samples and the medians stay in it after a tile.
    """
    height, width = shape
    size = channels * (height + 2 * RIM) * (width + 2 * RIM)
    return Scratch(
        kernel=kernel,
        ramp=np.arange(width + 2 * RIM + PADDING, dtype=np.float32),
        window=np.zeros(window + PADDING, np.float32),
        values=np.zeros(frames * size + PADDING, np.float32),
        squares=np.zeros(frames * size + PADDING, np.float32),
        marks=np.empty((_MARKS, 2), np.int64),
        saturated=np.zeros(frames, np.bool_),
        reached=np.zeros((frames, size), np.uint8),
        flags=np.zeros((frames, size) if keep else (1, 1), np.uint8),
        median=np.zeros(size if keep else 1, np.float32),
    )


def strips(tile: Tile, frames: TileFrames, margin: int, rows: int) -> Iterator[tuple[Tile, TileFrames]]:
    """Cut a tile and what its frames show there into strips of so many `rows`; see `strip_height`."""
    if tile.rows <= rows:
        yield tile, frames
        return
    bottom = tile.top + tile.height
    for row in range(0, tile.rows, rows):
        count = min(rows, tile.rows - row)
        first = tile.top + tile.rim_top + row
        top, end = max(first - RIM, tile.top), min(first + count + RIM, bottom)
        strip = tile._replace(top=top, height=end - top, rim_top=first - top, row=tile.row + row, rows=count)
        v, place = top - tile.top, frames.place.copy()
        place[..., 0] += v * (place[..., 2] + v * place[..., 5])
        place[..., 1] += v * place[..., 4]
        place[..., 2] += 2 * v * place[..., 5]
        bounds = window_bounds(place, np.full(len(place), tile.width), strip.height, margin)
        yield strip, frames._replace(place=place, bounds=bounds)


@kernel()
def column_order(width: int, split: bool) -> np.ndarray:
    """Return the column of each place along a row: even columns first where `split`."""
    order = np.empty(width, np.int64)
    even = (width + 1) // 2
    for place in range(width):
        order[place] = place if not split else (2 * place if place < even else 2 * (place - even) + 1)
    return order


@kernel()
def _drop_outside(samples, order, place, size):
    """Make NaN what lies outside the frame, whose turned `size` is (height, width)."""
    channels, height, width = samples.shape
    high, wide = size
    corners = True
    for v in (0, height - 1):
        for u in (0, width - 1):
            x, y = place_at(place, u, v)
            corners &= 1.0 <= x <= wide - 2.0 and 1.0 <= y <= high - 2.0
    if corners:
        return
    for v in range(height):
        for index in range(width):
            x, y = place_at(place, order[index], v)
            if not (-0.5 <= x <= wide - 0.5 and -0.5 <= y <= high - 0.5):
                for channel in range(channels):
                    samples[channel, v, index] = _NAN


@kernel()
def _bilinear(src, window, cell, parity, x, y):
    """Interpolate linearly on the lattice of the colour that lies at `parity` (row, column) of the window."""
    pace = 2 if window.split else 1
    green = window.split and cell[parity[0], parity[1]] == 1
    columns = 2 * window.half
    odd = (parity[0] + parity[1]) & 1
    if green:
        a, b = 0.5 * (x + y - odd), 0.5 * (x - y - odd)
    else:
        a, b = (x - parity[1]) / pace, (y - parity[0]) / pace
    ia, ib = int(np.floor(a)), int(np.floor(b))
    total = 0.0
    for i in range(2):
        for j in range(2):
            if green:
                r, c = ia + i - ib - j, ia + i + ib + j + odd
            else:
                r, c = (ib + j) * pace + parity[0], (ia + i) * pace + parity[1]
            r, c = min(max(r, 0), window.rows - 1), min(max(c, 0), columns - 1)
            weight = (a - ia if i else 1 - a + ia) * (b - ib if j else 1 - b + ib)
            total += weight * src[r * columns + ((c & 1) * window.half + (c >> 1) if window.split else c)]
    return total


@kernel()
def _soften(samples, reached, cell, local, window, src, marks, split):
    """Near saturated samples interpolate linearly, so that nothing rings; set `reached` (flat) where they reach."""
    _, height, width = samples.shape
    det = local[0, 1] * local[1, 2] - local[0, 2] * local[1, 1]
    even = (width + 1) // 2
    pace, reach = (2, 5) if window.split else (1, 3)
    for mark in range(marks.shape[0]):
        row, column = marks[mark, 0], marks[mark, 1]
        parity = (row & 1, column & 1) if window.split else (0, 0)
        channel = cell[parity[0], parity[1]] if window.split else 0
        dx, dy = column - local[0, 0], row - local[1, 0]
        u0 = int(np.round((local[1, 2] * dx - local[0, 2] * dy) / det))
        v0 = int(np.round((local[0, 1] * dy - local[1, 1] * dx) / det))
        for v in range(max(0, v0 - reach), min(height, v0 + reach + 1)):
            for u in range(max(0, u0 - reach), min(width, u0 + reach + 1)):
                index = u if not split else (u // 2 if u % 2 == 0 else even + u // 2)
                x, y = place_at(local, u, v)
                if abs(x - column) <= 0.75 * pace and abs(y - row) <= 0.75 * pace:
                    reached[(channel * height + v) * width + index] = 1
                samples[channel, v, index] = _bilinear(src, window, cell, parity, x, y)


@kernel()
def _normalise(samples, order, surface, scale, tile):
    """Scale a frame's resampled values and subtract its background surface; see `stack.normalise`."""
    channels, height, width = samples.shape
    along = np.empty(width, np.float32)
    left = float(tile.left)
    factor = np.float32(scale)
    for index in range(width):
        along[index] = order[index]
    for channel in range(channels):
        p = surface[channel]
        for v in range(height):
            y = float(tile.top + v)
            first = p[0] + y * (p[2] + y * p[5])
            slope = p[1] + y * p[4]
            row = samples[channel, v]
            c0 = np.float32(first + left * (slope + left * p[3]))
            c1 = np.float32(slope + 2.0 * left * p[3])
            c2 = np.float32(p[3])
            for index in range(width):
                row[index] = row[index] * factor - (c0 + along[index] * (c1 + along[index] * c2))


@kernel()
def resample_frame(
    f: int, frames: TileFrames, maps: Maps, tile: Tile, scratch: Scratch, samples: np.ndarray, order: np.ndarray
) -> None:
    """Calibrate, resample and normalise the window of frame f into `samples` (channel, y, x), NaN outside the frame.

    Σw² goes into the scratch's `squares`, where saturated samples reach into `reached`.
    """
    height, width = maps.scale.shape[1], maps.scale.shape[2]
    scratch.saturated[f] = False
    bounds = frames.bounds[f]
    corner = frames.corner[f]
    colours = corner.shape[0] == 2 and samples.shape[0] == 3
    window = Window(frames.turn[f], bounds[0], bounds[1], bounds[2], bounds[3], colours)
    size = (height, width) if window.turn % 2 == 0 else (width, height)
    beyond = window.top >= size[0] or window.left >= size[1]
    if beyond or window.top + window.rows <= 0 or window.left + 2 * window.half <= 0:
        samples[:] = _NAN
        return
    begin, count, across, g = frames.starts[f], frames.rows[f], frames.columns[f], frames.group[f]
    raw = frames.raw[begin : begin + count * across].reshape(count, across)
    frame = Frame(
        raw, frames.row0[f], frames.column0[f], frames.mask, maps.base[g], maps.dark[g], maps.scale[g],
        frames.factor[f], maps.cell, maps.white,
    )  # fmt: skip
    found = fill_window(frame, window, scratch.window, scratch.marks)
    local = frames.place[f].copy()
    local[0, 0] -= window.left
    local[1, 0] -= window.top
    target = Target(scratch.kernel, scratch.ramp, scratch.values, scratch.squares)
    begin, reached = f * samples.size, scratch.reached[f]
    if found:
        reached[:] = 0
        scratch.saturated[f] = True
    if corner.shape[0] == 6:
        piece = scratch.window[: window.rows * 2 * window.half].reshape(window.rows, 2 * window.half)
        scattered = Piece(piece, window.top, window.left, size, corner)
        squares = scratch.squares[begin : begin + samples.size].reshape(samples.shape)
        sample_scattered(scattered, local, scratch.kernel, samples, squares)
        if found:
            soften_scattered(
                scattered, local, scratch.marks[:found], samples, reached[: samples.size].reshape(samples.shape)
            )
    else:
        sample_window(scratch.window, window, corner, local, tile, begin, target)
        if found:
            _soften(samples, reached, corner, local, window, scratch.window, scratch.marks[:found], tile.split)
    _normalise(samples, order, frames.surface[f], frames.scale[f], tile)
    _drop_outside(samples, order, frames.place[f], size)


class Placed(NamedTuple):
    """A frame on the output's grid: value [e-], Σw², and where saturated samples reach, each (channel, y, x)."""

    value: np.ndarray
    square: np.ndarray
    saturated: np.ndarray


class FrameLevels(NamedTuple):
    """What normalises a frame: its samples times `scale`, less the background `surface` (channel, 6) [e-]."""

    scale: float = 1.0
    surface: np.ndarray | None = None


def place_frame(
    mosaic: np.ndarray,
    mask: np.ndarray | None,
    cfa_pattern: str,
    transform: Transform,
    shape: tuple[int, int],
    *,
    levels: FrameLevels | None = None,
    width: int = WIDTH,
) -> Placed:
    """Put a calibrated mosaic (y, x) [e-] on an output of `shape`, in colour, tile by tile as the engine does.

    `mask` has the flags of `calibrate`; NaN is filled from neighbours of the colour, and outside the frame nothing is
    known.  `transform` leads from the output to the frame; `levels` normalise; `width` is that of the tiles.

    Examples
    --------
    >>> grey = np.full((64, 64), 7.0, "float32")
    >>> picture = place_frame(grey, None, "RGGB", Transform("shift", np.array([[3.3], [-2.6]])), grey.shape).value
    >>> picture.shape, bool(np.allclose(picture[:, 8:-8, 8:-8], 7.0, atol=1e-4)), bool(np.isnan(picture[0, 0, 0]))
    ((3, 64, 64), True, True)
    """
    levels = levels or FrameLevels()
    split = cfa_pattern in MOSAICS
    channels = 1 if cfa_pattern == "mono" else 3
    mosaic = np.ascontiguousarray(mosaic, np.float32)
    height, wide = mosaic.shape
    turn = quarter_turns(transform, shape, cfa_pattern)
    kernel = resampling_kernel(cfa_pattern)
    maps = Maps(
        np.zeros((1, 1, 1), np.float32), np.zeros((1, height, wide), np.float32),
        np.ones((1, height, wide), np.float32), channel_index(cfa_pattern), np.float32(np.inf),
    )  # fmt: skip
    for part in maps[:3]:
        part.flags.writeable = False
    mask = np.zeros((1, 1), np.uint8) if mask is None else np.ascontiguousarray(mask, np.uint8)
    surface = np.zeros((channels, 6)) if levels.surface is None else np.asarray(levels.surface, float)
    zero = np.zeros(1, np.int64)
    frames = TileFrames(
        raw=mosaic.ravel(), starts=zero, row0=zero, rows=np.array([height]), column0=zero, columns=np.array([wide]),
        mask=mask, factor=np.ones(1), group=zero, turn=np.array([turn]),
        corner=turned_cell(cfa_pattern, turn, mosaic.shape)[None], place=np.zeros((1, 2, 6)),
        bounds=np.zeros((1, 4), np.int64), surface=surface[None], scale=np.array([levels.scale]),
        weight=np.ones((1, channels)),
    )  # fmt: skip
    value, square = (np.full((channels, *shape), np.nan, np.float32) for _ in range(2))
    out = Placed(value, square, np.zeros((channels, *shape), bool))
    scratch = None
    for number in range(-(-shape[0] // BAND)):
        tiles = band_tiles(number, (0, 0, *shape), width, split, number * BAND)
        places, bounds = tile_places(transform, turn, mosaic.shape, tiles, window_margin(cfa_pattern))
        size = int((bounds[:, 2] * 2 * bounds[:, 3]).max())
        if scratch is None or scratch.window.size < size + PADDING:
            scratch = scratch_arrays(1, channels, (BAND, width), size, kernel)
        for tile, place, bound in zip(tiles, places, bounds, strict=True):
            _place_tile(frames._replace(place=place[None], bounds=bound[None]), maps, tile, scratch, out)
    return out


@kernel()
def _place_tile(frames, maps, tile, scratch, out):
    """Resample one frame onto a tile and copy what is not its rim to its place in the output."""
    channels = frames.weight.shape[1]
    size = channels * tile.height * tile.width
    samples = scratch.values[:size].reshape(channels, tile.height, tile.width)
    squares = scratch.squares[:size].reshape(channels, tile.height, tile.width)
    order = column_order(tile.width, tile.split)
    resample_frame(0, frames, maps, tile, scratch, samples, order)
    for c in range(channels):
        for v in range(tile.rows):
            for i in range(tile.width):
                u = order[i] - tile.rim_left
                value = samples[c, tile.rim_top + v, i]
                if not 0 <= u < tile.columns:
                    continue
                y, x = tile.row + v, tile.column + u
                out.value[c, y, x] = value
                if value == value:
                    out.square[c, y, x] = squares[c, tile.rim_top + v, i]
                if scratch.saturated[0]:
                    index = (c * tile.height + tile.rim_top + v) * tile.width + i
                    out.saturated[c, y, x] = scratch.reached[0, index]
