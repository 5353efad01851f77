"""The colour filter array: which pixel belongs to which channel.

G1 is the green that shares its rows with red, G2 the one that shares its rows with blue.  X-Trans has a cell of 6 x 6
pixels with one channel a colour: 8 red, 20 green, 8 blue, on no regular lattice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from .cube import COLOURS, MOSAICS, cell_side, channels_of, check_pixels, is_mosaic, is_xtrans
from .errors import WorkbenchError
from .parallel import in_threads
from .statistics import MEDIAN_ERROR, mad_std

_NOISIER = 0.1  # of ln: by so much at least what was measured is rougher than what was interpolated
_SAMPLED = 48  # cells of rows that levels, noise and doubts are measured in
_Mosaic = TypeVar("_Mosaic", xr.DataArray, xr.Dataset)


def offsets(cfa_pattern: str) -> dict[str, tuple[int, int]]:
    """Return the (row, column) of each channel's first pixel within the cell.

    Examples
    --------
    >>> offsets("GBRG")
    {'R': (1, 0), 'G1': (1, 1), 'G2': (0, 0), 'B': (0, 1)}
    """
    if cfa_pattern == "mono":
        return {"mono": (0, 0)}
    if not is_mosaic(cfa_pattern):
        raise WorkbenchError(f"cfa_pattern {cfa_pattern!r} is none of {', '.join(MOSAICS)}, X-Trans or mono")
    if is_xtrans(cfa_pattern):
        return {colour: divmod(cfa_pattern.index(colour), 6) for colour in COLOURS}
    row, column = divmod(cfa_pattern.index("R"), 2)
    return {"R": (row, column), "G1": (row, 1 - column), "G2": (1 - row, column), "B": (1 - row, 1 - column)}


def shifted(cfa_pattern: str, rows: int, columns: int) -> str:
    """Return the pattern seen from pixel (rows, columns): what a crop or a flip makes of it.

    Examples
    --------
    >>> shifted("RGGB", 1, 0), shifted("RGGB", 0, 1)
    ('GBRG', 'GRBG')
    """
    if cfa_pattern == "mono":
        return cfa_pattern
    side = cell_side(cfa_pattern)
    cell = np.array(list(cfa_pattern)).reshape(side, side)
    return "".join(np.roll(cell, (-(rows % side), -(columns % side)), axis=(0, 1)).ravel())


def crop(mosaic: _Mosaic, rows: slice, columns: slice) -> _Mosaic:
    """Cut mosaiced frames or a master to some rows and columns, with the CFA pattern that the part begins with.

    ``isel`` alone would keep the pattern of the whole: after an odd first row or column every colour is wrong.

    Examples
    --------
    >>> frame = xr.DataArray(np.zeros((4, 6)), dims=("y", "x"), attrs={"cfa_pattern": "RGGB"})
    >>> part = crop(frame, slice(1, 4), slice(2, 6))
    >>> part.shape, part.attrs["cfa_pattern"]
    ((3, 4), 'GBRG')
    """
    top, _, step_y = rows.indices(mosaic.sizes["y"])
    left, _, step_x = columns.indices(mosaic.sizes["x"])
    if step_y != 1 or step_x != 1:
        raise WorkbenchError("a crop takes all rows and columns between two: slices without a step")
    part = mosaic.isel(y=rows, x=columns)
    if not (part.sizes["y"] and part.sizes["x"]):
        raise WorkbenchError(f"nothing is left of {mosaic.sizes['x']} x {mosaic.sizes['y']} pixels after this crop")
    for dim in {"y", "x"} & set(part.coords):
        part = part.assign_coords({dim: part[dim].assign_attrs(cfa_origin=int(part[dim].values[0]))})
    return part.assign_attrs(cfa_pattern=shifted(mosaic.attrs["cfa_pattern"], top, left))


def middle(shape: tuple[int, int], most: tuple[int, int], cfa_pattern: str = "") -> tuple[slice, slice]:
    """Return the middle of a picture, at most so many rows and columns, from a whole cell of the mosaic on.

    Examples
    --------
    >>> middle((480, 721), (512, 700))
    (slice(0, 480, None), slice(10, 710, None))
    """
    side = 6 if is_xtrans(cfa_pattern) else 2
    firsts = [max(size - longest, 0) // (2 * side) * side for size, longest in zip(shape, most, strict=True)]
    ends = [min(first + longest, size) for first, size, longest in zip(firsts, shape, most, strict=True)]
    return slice(firsts[0], ends[0]), slice(firsts[1], ends[1])


def checkerboard(frame: np.ndarray) -> str:
    """Return the mosaic that the levels of a frame (y, x) show, ``RGGB`` or ``GRBG``, an empty text if they show none.

    Two pixels on a diagonal of the 2 x 2 cell have one level, those of green, and another pixel a level of its own.
    Columns or rows with offsets of their own are not a mosaic.  Levels do not separate red from blue: ``RGGB`` may be
    ``BGGR``, and ``GRBG`` be ``GBRG``.

    Examples
    --------
    >>> level = np.tile([[300.0, 900.0], [900.0, 500.0]], (64, 64))
    >>> noise = np.random.default_rng(1).normal(0, 30, level.shape)
    >>> checkerboard(level + noise), checkerboard(500 + noise)
    ('RGGB', '')
    """
    cells = tiles(np.asarray(frame, float), 16)
    corners = np.array([cells[..., row::2, column::2].mean(axis=(2, 3)).ravel() for row in (0, 1) for column in (0, 1)])
    a, b, c, d = corners = corners[:, np.isfinite(corners).all(axis=0)]
    if a.size < 16:
        return ""
    level, shown = abs(np.median(corners)), dict[str, float]()
    for pattern, greens, others in (("RGGB", (b, c), (a, d)), ("GRBG", (a, d), (b, c))):
        green = (greens[0] + greens[1]) / 2
        steps = [greens[0] - greens[1], *(other - green for other in others)]
        between, *near = (float(np.median(step)) for step in steps)
        error = MEDIAN_ERROR * max(mad_std(step) for step in steps) / np.sqrt(green.size)
        contrast = max(map(abs, near))
        if contrast > max(6 * error, 0.005 * level) and abs(between) < 0.2 * contrast:
            shown[pattern] = float(np.median(green))
    return max(shown, key=lambda pattern: shown[pattern], default="")


def measured_pattern(colours: np.ndarray) -> str:
    """Return the mosaic that debayered planes R, G, B (3, y, x) were made from, an empty text if they do not show it.

    What was measured is noisier against its four neighbours than what was interpolated: in G on one diagonal of the
    cell, and of the other diagonal R in one pixel and B in the other.

    Examples
    --------
    >>> raw = np.random.default_rng(1).normal(900, 9, (64, 64))
    >>> mean = (np.roll(raw, 1, 1) + np.roll(raw, -1, 1)) / 2  # along the rows
    >>> odd = np.indices(raw.shape) % 2
    >>> red, blue = np.where(odd[1] == 0, raw, mean), np.where(odd[1] == 1, raw, mean)
    >>> measured_pattern(np.array([red, np.where(odd.sum(axis=0) == 1, raw, mean), blue]))
    'RGGB'
    """
    planes = np.asarray(colours, float)
    detail = np.abs(planes[:, 1:-1, 1:-1] - _around(planes))
    detail = np.minimum(detail, 5 * np.median(detail, axis=(1, 2), keepdims=True) + 1e-9)
    rough = np.log(np.stack([detail[:, 1 - r :: 2, 1 - c :: 2].mean((1, 2)) + 1e-9 for r in (0, 1) for c in (0, 1)]))
    green = rough[[1, 2], 1].mean() - rough[[0, 3], 1].mean()
    first, last = (0, 3) if green > 0 else (1, 2)
    red = (rough[first, 0] - rough[last, 0]) + (rough[last, 2] - rough[first, 2])
    if abs(green) < _NOISIER or abs(red) < 2 * _NOISIER:
        return ""
    return {(0, True): "RGGB", (0, False): "BGGR", (1, True): "GRBG", (1, False): "GBRG"}[first, bool(red > 0)]


def _around(planes: np.ndarray) -> np.ndarray:
    """Mean of the four neighbours of each pixel within the edge."""
    return (planes[:, :-2, 1:-1] + planes[:, 2:, 1:-1] + planes[:, 1:-1, :-2] + planes[:, 1:-1, 2:]) / 4


def take_measured(colours: np.ndarray, pattern: str) -> np.ndarray:
    """Return the mosaic (y, x) of the samples that debayered planes R, G, B (3, y, x) hold as they were measured.

    Examples
    --------
    >>> take_measured(np.arange(3)[:, None, None] * np.ones((1, 2, 2)), "GRBG").tolist()
    [[1.0, 0.0], [2.0, 1.0]]
    """
    mosaic = np.empty(colours.shape[1:], colours.dtype)
    for number, colour in enumerate(pattern):
        place = np.s_[number // 2 :: 2, number % 2 :: 2]
        mosaic[place] = colours["RGB".index(colour)][place]
    return mosaic


def area_error(frame: np.ndarray, cfa_pattern: str) -> float:
    """Return by what factor the error of means over many pixels exceeds that of independent pixels, in one frame.

    sqrt(64 Var(means of 8 x 8 pixels of a colour)/Var(pixels)), of differences between neighbouring blocks, and between
    pixels four apart; the median of the colours.

    Examples
    --------
    >>> noise = np.random.default_rng(1).normal(0, 30, (512, 512))
    >>> smooth = (noise + np.roll(noise, 2, 0) + np.roll(noise, 2, 1) + np.roll(noise, (2, 2), (0, 1))) / 4
    >>> round(area_error(noise, "RGGB"), 1), round(area_error(smooth, "RGGB"), 1)
    (1.0, 1.8)
    """
    factors = []
    for _, plane in planes(np.asarray(frame, float), cfa_pattern):
        pixels = mad_std(plane[:, 4:] - plane[:, :-4])
        means = mad_std(np.diff(tiles(plane, 8).mean(axis=(2, 3)), axis=1))
        factors.append(8 * means / pixels if pixels > 0 else 1.0)
    return float(np.median(factors))


def channel_index(cfa_pattern: str) -> np.ndarray:
    """Return the cell (2 x 2, of X-Trans 6 x 6, of mono 1 x 1) of each pixel's channel number in `channels_of` order.

    Examples
    --------
    >>> channel_index("GBRG").tolist()
    [[2, 3], [0, 1]]
    """
    if is_xtrans(cfa_pattern):
        return np.array([COLOURS.index(colour) for colour in cfa_pattern]).reshape(6, 6)
    index = np.zeros((1, 1) if cfa_pattern == "mono" else (2, 2), np.int64)
    for number, place in enumerate(offsets(cfa_pattern).values()):
        index[place] = number
    return index


def require_lattice(cfa_pattern: str, task: str) -> None:
    """Refuse an X-Trans mosaic for a `task` that needs each colour's pixels on a regular lattice.

    Raises
    ------
    WorkbenchError
        Naming the task.
    """
    if is_xtrans(cfa_pattern):
        raise WorkbenchError(f"{task} needs pixels of a colour on a regular lattice, which an X-Trans sensor has not")


def channel_count(cell: np.ndarray) -> int:
    """Return how many channels the cell (`channel_index`) of a mosaic has."""
    return int(cell.max()) + 1


def channel_colours(cell: np.ndarray) -> np.ndarray:
    """Return the colour of each channel of a cell (`channel_index`): 0 red, 1 green, 2 blue; 0 for mono."""
    return np.array([0, 1, 1, 2]) if cell.size == 4 else np.arange(channel_count(cell))


def colour_index(cfa_pattern: str) -> np.ndarray:
    """Return the cell of each pixel's colour: 0 red, 1 green, 2 blue; 0 for mono.

    Examples
    --------
    >>> colour_index("GBRG").tolist()
    [[1, 2], [0, 1]]
    """
    cell = channel_index(cfa_pattern)
    return channel_colours(cell)[cell]


def spread(values: np.ndarray, cell: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return one value a channel spread over the mosaic (y, x).

    Examples
    --------
    >>> spread(np.arange(4), channel_index("GBRG"), (3, 2)).tolist()
    [[2, 3], [0, 1], [2, 3]]
    """
    repeats = [-(-size // side) for size, side in zip(shape, cell.shape, strict=True)]
    return np.tile(np.asarray(values)[cell], repeats)[: shape[0], : shape[1]]


def planes(frame: np.ndarray, cfa_pattern: str | np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of each channel (in `channels_of` order) and the plane of its pixels: views, no copies.

    An odd last row or column has no whole cell; what it holds belongs to the planes that begin there.

    A colour of X-Trans has no lattice: its plane is a copy, not to be written to (`put_plane` does), of the pixels of
    all whole cells.  Two of its rows hold those of a cell's upper and lower half in the order of their columns (red and
    blue 4, green 10 a cell), so that neighbours in the plane are neighbours of that colour on the sensor.

    Parameters
    ----------
    frame
        Mosaiced pixels (..., y, x).
    cfa_pattern
        The pattern, or its `channel_index`.

    Examples
    --------
    >>> [(channel, plane.tolist()) for channel, plane in planes(np.arange(4).reshape(2, 2), "GRBG")]
    [(0, [[1]]), (1, [[0]]), (2, [[3]]), (3, [[2]])]
    """
    cell = channel_index(cfa_pattern) if isinstance(cfa_pattern, str) else cfa_pattern
    rows, columns = cell.shape
    for channel in range(channel_count(cell)):
        if rows == 6:
            yield channel, _gathered(frame, cell, channel)
            continue
        ((row, column),) = np.argwhere(cell == channel)
        yield channel, frame[..., row::rows, column::columns]


def of_planes(work: Callable[[np.ndarray], Any], frame: np.ndarray, cfa_pattern: str | np.ndarray) -> list[Any]:
    """Return work(plane) of each of the `planes`, done in threads."""
    return list(in_threads(work, (plane for _, plane in planes(frame, cfa_pattern))))


def _places(cell: np.ndarray, channel: int, shape: tuple[int, ...]) -> Iterator[tuple[tuple, tuple, int]]:
    """Yield where a colour's pixels of a 6 x 6 cell lie in its plane, in the mosaic, and how many a row has."""
    height, width = (size // 6 * 6 for size in shape[-2:])
    for half in (0, 1):
        ordered = sorted(np.argwhere(cell[3 * half : 3 * half + 3] == channel).tolist(), key=lambda place: place[1])
        for k, (row, column) in enumerate(ordered):
            plane = (..., slice(half, None, 2), slice(k, None, len(ordered)))
            mosaic = (..., slice(3 * half + row, height, 6), slice(column, width, 6))
            yield plane, mosaic, len(ordered)


def _gathered(frame: np.ndarray, cell: np.ndarray, channel: int) -> np.ndarray:
    *leading, height, width = frame.shape
    plane: np.ndarray | None = None
    for place, pixels, count in _places(cell, channel, frame.shape):
        if plane is None:
            plane = np.empty((*leading, height // 6 * 2, width // 6 * count), frame.dtype)
        plane[place] = frame[pixels]
    assert plane is not None
    plane.flags.writeable = False
    return plane


def put_plane(frame: np.ndarray, cell: np.ndarray, channel: int, plane: np.ndarray) -> None:
    """Write a channel's plane, as `planes` gives it, to its pixels of a mosaic (..., y, x).

    Examples
    --------
    >>> mosaic = np.zeros((2, 2))
    >>> put_plane(mosaic, channel_index("RGGB"), 1, np.array([[5.0]]))
    >>> mosaic.tolist()
    [[0.0, 5.0], [0.0, 0.0]]
    """
    if cell.shape[0] == 6:
        for place, pixels, _ in _places(cell, channel, frame.shape):
            frame[pixels] = plane[place]
    else:
        dict(planes(frame, cell))[channel][...] = plane


def tiles(picture: np.ndarray, height: int, width: int | None = None) -> np.ndarray:
    """Return the whole tiles of a picture as a view (row, column, y, x); what is left at the far edges is cut off.

    Parameters
    ----------
    picture
        (y, x).
    height, width
        Of a tile [pixels]; a square without a width.

    Examples
    --------
    >>> tiles(np.arange(12).reshape(2, 6), 2).sum(axis=(2, 3)).tolist()
    [[14, 22, 30]]
    """
    width = width or height
    rows, columns = picture.shape[0] // height, picture.shape[1] // width
    whole = picture[: rows * height, : columns * width]
    return whole.reshape(rows, height, columns, width).swapaxes(1, 2)


def spread_rows(height: int, step: int) -> np.ndarray:
    """Return the numbers of up to 48 times `step` rows, spread evenly over a frame: whole cells, to sample it by.

    Examples
    --------
    >>> spread_rows(1000, 2)[:4].tolist(), spread_rows(1000, 2).size
    ([0, 1, 20, 21], 96)
    """
    cells = max(1, height // step)
    picked = np.unique(np.linspace(0, cells - 1, min(_SAMPLED, cells)).astype(int))
    rows = np.ravel(picked[:, None] * step + np.arange(step))
    return rows[rows < height]


def split(mosaic: xr.DataArray) -> xr.DataArray:
    """Split mosaiced frames (..., y, x) into channels (..., channel, y, x) of half the size.

    An odd last row or column has no whole 2 x 2 cell and is left out.  ``mono`` frames get one channel.

    Raises
    ------
    WorkbenchError
        If the cube was sliced so that its colours would be swapped, see `core.cube.check_pixels`, or is X-Trans, whose
        colours have no lattices.
    """
    check_pixels(mosaic)
    pattern = mosaic.attrs["cfa_pattern"]
    if is_xtrans(pattern):
        raise WorkbenchError("the colours of an X-Trans mosaic lie on no lattice: it stays whole until it is resampled")
    planes = [mosaic]
    if pattern != "mono":
        height, width = (mosaic.sizes[dim] // 2 * 2 for dim in ("y", "x"))
        planes = [
            mosaic.isel(y=slice(row, height, 2), x=slice(column, width, 2)).drop_vars(["y", "x"], errors="ignore")
            for row, column in offsets(pattern).values()
        ]
    joined = xr.concat(planes, dim=xr.Variable("channel", list(channels_of(pattern))), join="exact")
    leading = [dim for dim in mosaic.dims if dim not in ("y", "x")]
    return joined.transpose(*leading, "channel", "y", "x")
