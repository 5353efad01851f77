"""Colours on no regular lattice, as those of X-Trans: what estimates a colour's light between its samples.

The light at a place is the weighted sum of the colour's samples within `REACHES` of it.  The weights are those of the
best linear estimate without bias (kriging; Matheron, Economic Geology 58, 1963, 1246) of stars `STAR` pixels wide in
noise: w minimises wᵀ(C + N)w - 2 wᵀc with Σw = 1 and Σw d = 0, so that a slope is kept; C and c are the covariances of
samples with one another and with the place, exp(-d²/2s²), s = √2 STAR/2.355; N is `NOISE`, and grows to infinity at the
reach, so that the weights have no steps.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .kernels import kernel
from .mosaic import colour_index

REACHES = (4.2, 3.3, 4.2)  # [pixels] of red, green, blue: some twelve samples of red, nineteen of green
STAR = 2.5  # [pixels] FWHM: sharper ones come out a little wider
NOISE = 0.03  # of a sample's variance
PHASES = 32  # places to a side of a pixel: a place is rounded by 1/64 pixel at most
HALF = 4  # [pixels] that the weights reach to each side
SIDE = 2 * HALF + 1
_STAR = 1.62  # [px²] variance of a star of 3 px FWHM
_MATCHED = 1.8**2  # [px²] of the weight that such a star is measured with
_NEAR = 2.5  # [pixels] of the mean that stands for the estimate at saturated samples: every place has three of a colour


def sample_weights(cfa_pattern: str, colour: int, pixel: tuple[int, int], y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the weights (place, 9, 9) of the pixels around one for a colour (0 R, 1 G, 2 B) at places next to it.

    Parameters
    ----------
    pixel
        Row and column in the mosaic.
    y, x
        The places (place,), counted from that pixel's centre, at most half a pixel away.

    Examples
    --------
    >>> from workbench.core.cube import XTRANS
    >>> weights = sample_weights(XTRANS, 0, (0, 0), np.array([0.2]), np.array([-0.4]))[0]
    >>> columns = np.arange(-4, 5)
    >>> round(float(weights.sum()), 6), round(float((weights * columns).sum()), 3)
    (1.0, -0.4)
    """
    cell = colour_index(cfa_pattern)
    m, n = (side.ravel() for side in np.mgrid[-HALF : HALF + 1, -HALF : HALF + 1])
    own = cell[(pixel[0] + m) % len(cell), (pixel[1] + n) % len(cell)] == colour
    m, n = m[own], n[own]
    dy, dx = m - y[:, None], n - x[:, None]
    square, scale = dy**2 + dx**2, 4 * (STAR / 2.3548) ** 2
    near = square < REACHES[colour] ** 2
    spread = NOISE / np.where(near, 1 - square / REACHES[colour] ** 2, 1e-9)
    count = m.size
    system = np.zeros((y.size, count + 3, count + 3))
    system[:, :count, :count] = np.exp(-((m[:, None] - m) ** 2 + (n[:, None] - n) ** 2) / scale)
    system[:, range(count), range(count)] += spread
    slopes = np.stack([np.ones_like(dx), dx, dy], -1)
    system[:, :count, count:], system[:, count:, :count] = slopes, slopes.swapaxes(1, 2)
    right = np.concatenate([np.exp(-square / scale), np.broadcast_to([1.0, 0.0, 0.0], (y.size, 3))], axis=1)
    found = np.where(near, np.linalg.solve(system, right[..., None])[:, :count, 0], 0.0)
    weights = np.zeros((y.size, SIDE * SIDE))
    weights[:, own] = found / found.sum(axis=1, keepdims=True)
    return weights.reshape(-1, SIDE, SIDE)


@lru_cache(maxsize=4)
def weight_table(cfa_pattern: str) -> np.ndarray:
    """Return the weights of all colours at once, float32 (row, column, place y, place x, 9, 9), read-only.

    Row and column are those of the nearest pixel in the cell, the places those of a grid of 32 x 32 in it; each sample
    has the weight in the estimate of its own colour.
    """
    side = len(colour_index(cfa_pattern))
    inside = (np.arange(PHASES) + 0.5) / PHASES - 0.5
    y, x = (part.ravel() for part in np.meshgrid(inside, inside, indexing="ij"))
    table = np.empty((side, side, PHASES, PHASES, SIDE, SIDE), np.float32)
    for pixel in np.ndindex(side, side):
        weights = sum(sample_weights(cfa_pattern, colour, pixel, y, x) for colour in range(3))
        table[pixel] = np.reshape(weights, table.shape[2:])
    table.flags.writeable = False
    return table


def _of_colour(cfa_pattern: str, colour: int) -> np.ndarray:
    """Whether each weight of the table is one of a colour, (row, column, 9, 9)."""
    cell = colour_index(cfa_pattern)
    side = np.arange(len(cell))[:, None] + np.arange(-HALF, HALF + 1)
    rows = side % len(cell)
    return (cell == colour)[rows[:, None, :, None], rows[None, :, None, :]]


@lru_cache(maxsize=16)
def mean_square(cfa_pattern: str, colour: int) -> float:
    """Return Σw² of a colour's weights, averaged over all places: a pixel's variance is this times its samples'."""
    table, own = weight_table(cfa_pattern), _of_colour(cfa_pattern, colour)
    return float((np.square(table).mean(axis=(2, 3)) * own).sum(axis=(2, 3)).mean())


@lru_cache(maxsize=16)
def area_noise(cfa_pattern: str, colour: int, side: int) -> float:
    """Return what white noise a sample's variance is worth in the mean of `side` x `side` pixels of a colour.

    Averaged over places in the cell and between the samples.

    Examples
    --------
    >>> from workbench.core.cube import XTRANS
    >>> round(area_noise(XTRANS, 1, 16) * 20 / 36, 2)  # green, 20 of 36 pixels
    1.0
    """
    table, own = weight_table(cfa_pattern), _of_colour(cfa_pattern, colour)
    cell = len(table)
    pixels = np.arange(side)
    around = pixels[:, None] + np.arange(SIDE)  # the samples of each pixel along one side
    index = around[:, None, :, None] * (side + SIDE) + around[None, :, None, :]
    total, starts = 0.0, [(y, x, p) for y in range(0, cell, 2) for x in range(1, cell, 2) for p in range(4, PHASES, 8)]
    for y, x, phase in starts:
        rows, columns = (y + pixels) % cell, (x + pixels) % cell
        weights = (table[:, :, phase, (phase * 5 + y) % PHASES] * own)[rows[:, None], columns]
        total += np.square(np.bincount(index.ravel(), weights.ravel() / side**2)).sum()
    return float(total / len(starts) * side**2)


@kernel()
def place_at(place: np.ndarray, u: float, v: float) -> tuple[float, float]:
    """Return where an output pixel (u, v) of a tile lies in a frame: x and y of the quadratics `place` (2, 6)."""
    x = place[0, 0] + u * (place[0, 1] + u * place[0, 3]) + v * (place[0, 2] + u * place[0, 4] + v * place[0, 5])
    y = place[1, 0] + u * (place[1, 1] + u * place[1, 3]) + v * (place[1, 2] + u * place[1, 4] + v * place[1, 5])
    return x, y


class Piece(NamedTuple):
    """Samples of a mosaic (y, x) from its pixel (`top`, `left`) on; `cell` (6, 6) are the mosaic's colours.

    Of the whole mosaic's `size` (height, width) only; what lies beyond is mirrored and not used.
    """

    samples: np.ndarray
    top: int
    left: int
    size: tuple[int, int]
    cell: np.ndarray


@kernel(error_model="numpy")
def gather(piece: Piece, table: np.ndarray, y: float, x: float, out: np.ndarray) -> None:
    """Set `out` (3, colour) to value, Σw² and Σw of the three colours at a place (y, x), from the piece's first pixel.

    `table` is `weight_table`, flat.  Where samples are missing (NaN, or beyond the mosaic's edge), the others' weights
    are raised; NaN where too few are left.
    """
    value, square, total = out[0], out[1], out[2]
    row, column = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
    p = min(int((y + 0.5 - row) * PHASES), PHASES - 1)
    q = min(int((x + 0.5 - column) * PHASES), PHASES - 1)
    top, left = piece.top + row - HALF, piece.left + column - HALF  # in the mosaic, of the first of 9 x 9 samples
    at = ((((piece.top + row) % 6 * 6 + (piece.left + column) % 6) * PHASES + p) * PHASES + q) * SIDE * SIDE
    inside = top >= 0 and left >= 0 and top + SIDE <= piece.size[0] and left + SIDE <= piece.size[1]
    out[:] = 0.0
    for j in range(SIDE):
        colours, samples = piece.cell[(top + j) % 6], piece.samples[row - HALF + j]
        for i in range(SIDE):
            weight = table[at]
            at += 1
            if weight == 0.0:
                continue
            if not inside and not (0 <= top + j < piece.size[0] and 0 <= left + i < piece.size[1]):
                continue
            colour = colours[(left + i) % 6]
            sample = samples[column - HALF + i]
            if sample != sample:
                continue
            value[colour] += weight * sample
            square[colour] += weight * weight
            total[colour] += weight
    for colour in range(3):
        if abs(total[colour] - 1.0) > 1e-4:  # some are missing
            whole = total[colour] if total[colour] > 0.2 else np.nan
            value[colour] /= whole
            square[colour] /= whole * whole


@kernel(error_model="numpy")
def nearby_mean(piece: Piece, colour: int, y: float, x: float) -> float:
    """Return the mean of a colour's samples near a place by (1 - d²/r²)²; no weight is negative, nothing rings."""
    row, column = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
    total, weights = 0.0, 0.0
    for j in range(row - 3, row + 4):
        for i in range(column - 3, column + 4):
            m, n = piece.top + j, piece.left + i
            closeness = 1.0 - ((j - y) ** 2 + (i - x) ** 2) / _NEAR**2
            if closeness <= 0.0 or not (0 <= m < piece.size[0] and 0 <= n < piece.size[1]):
                continue
            if piece.cell[m % 6, n % 6] == colour:
                total += closeness * closeness * piece.samples[j, i]
                weights += closeness * closeness
    return total / weights if weights > 0.0 else np.nan


@kernel(error_model="numpy")
def sample_scattered(piece: Piece, place: np.ndarray, table: np.ndarray, value: np.ndarray, square: np.ndarray) -> None:
    """Set `value` and `square`, Σw², (channel, y, x) of a tile that lies in a piece at the quadratics `place`."""
    out = np.empty((3, 3))
    rows, columns = piece.samples.shape
    for v in range(value.shape[1]):
        for u in range(value.shape[2]):
            x, y = place_at(place, u, v)
            if not (y + 0.5 >= HALF and x + 0.5 >= HALF and y + 0.5 < rows - HALF and x + 0.5 < columns - HALF):
                out[:] = np.nan
            else:
                gather(piece, table, y, x, out)
            for colour in range(3):
                value[colour, v, u] = out[0, colour]
                square[colour, v, u] = out[1, colour]


@kernel(error_model="numpy")
def soften_scattered(
    piece: Piece, place: np.ndarray, marks: np.ndarray, value: np.ndarray, reached: np.ndarray
) -> None:
    """Near saturated samples (`marks`: row, column of the piece) take `nearby_mean`; set `reached` where they reach."""
    _, height, width = value.shape
    det = place[0, 1] * place[1, 2] - place[0, 2] * place[1, 1]
    for mark in range(marks.shape[0]):
        row, column = marks[mark, 0], marks[mark, 1]
        colour = piece.cell[(piece.top + row) % 6, (piece.left + column) % 6]
        dx, dy = column - place[0, 0], row - place[1, 0]
        u0 = int(np.round((place[1, 2] * dx - place[0, 2] * dy) / det))
        v0 = int(np.round((place[0, 1] * dy - place[1, 1] * dx) / det))
        for v in range(max(0, v0 - HALF - 1), min(height, v0 + HALF + 2)):
            for u in range(max(0, u0 - HALF - 1), min(width, u0 + HALF + 2)):
                x, y = place_at(place, u, v)
                if abs(x - column) <= 1.5 and abs(y - row) <= 1.5:
                    reached[colour, v, u] = 1
                inner = 3.0 <= y < piece.samples.shape[0] - 4.0 and 3.0 <= x < piece.samples.shape[1] - 4.0
                if inner:
                    value[colour, v, u] = nearby_mean(piece, colour, y, x)


def green_plane(mosaic: np.ndarray, cfa_pattern: str) -> np.ndarray:
    """Return green of a mosaic (y, x) in the middles of its squares of 2 x 2 pixels, float32; NaN samples are left out.

    Examples
    --------
    >>> from workbench.core.cube import XTRANS
    >>> y, x = np.mgrid[:24, :24]
    >>> plane = green_plane(2.0 * y + x, XTRANS)
    >>> plane.shape, float(plane[5, 6].round(1))
    ((12, 12), 33.5)
    """
    height, width = mosaic.shape
    samples = np.pad(np.ascontiguousarray(mosaic, np.float32), HALF + 1, mode="edge")
    piece = Piece(samples, -HALF - 1, -HALF - 1, (height, width), colour_index(cfa_pattern))
    out = np.empty((height // 2, width // 2), np.float32)
    _fill_green(piece, weight_table(cfa_pattern).ravel(), out)
    return out


@kernel(error_model="numpy")
def _fill_green(piece, table, out):
    found = np.empty((3, 3))
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            gather(piece, table, 2 * row + 0.5 - piece.top, 2 * column + 0.5 - piece.left, found)
            out[row, column] = found[0, 1]


@lru_cache(maxsize=4)
def green_plane_weights(cfa_pattern: str) -> tuple[float, tuple[float, float, float]]:
    """Return Σw² of `green_plane`, and the covariance (xx, xy, yy) [px²] that it and the pixel add to a star's image.

    As it shows under the weight W that stars are measured with, of a star S of 3 px FWHM: M = Σ w e^(-o²/2(S+W))
    (o oᵀ W²/(S+W)² + S W/(S+W)) of the kernel's offsets o, freed of the weight, (M⁻¹ - 1/W)⁻¹, less the star.
    """
    half = np.array([0.5])
    offset = np.arange(-HALF, HALF + 1) - 0.5
    pixels = [(row, column) for row in range(0, 6, 2) for column in range(0, 6, 2)]
    weights = np.array([sample_weights(cfa_pattern, 1, pixel, half, half)[0] for pixel in pixels])
    y, x = np.meshgrid(offset, offset, indexing="ij")
    image, matched = _STAR + 1 / 12, _MATCHED
    light = weights.mean(axis=0) * np.exp(-(x**2 + y**2) / (2 * (image + matched)))
    light /= light.sum()
    outer = [[np.sum(light * a * b) for b in (x, y)] for a in (x, y)]
    moments = np.array(outer) * (matched / (image + matched)) ** 2 + np.eye(2) * image * matched / (image + matched)
    (xx, xy), (_, yy) = np.linalg.inv(np.linalg.inv(moments) - np.eye(2) / matched) - _STAR * np.eye(2)
    return float(np.square(weights).sum(axis=(1, 2)).mean()), (float(xx), float(xy), float(yy))
