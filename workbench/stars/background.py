"""The plane that is searched for stars, and the sky in it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..core.cube import is_xtrans
from ..core.kernels import kernel
from ..core.mosaic import offsets
from ..core.scattered import green_plane, green_plane_weights
from ..core.statistics import MAD_TO_SIGMA


class Sampling(NamedTuple):
    """How a plane samples the frame: where its pixels lie, and what they add to the width of a star's image.

    ``position = scale * index + offset`` [px of the frame]; `blur` is the covariance (xx, xy, yy) [px²] that is taken
    out of a star's width, by default that of a square pixel.
    """

    scale: float = 1.0
    offset: float = 0.0
    blur: tuple[float, float, float] = (1 / 12, 0.0, 1 / 12)


SQUARE_PIXELS = Sampling()  # the frame itself
_BUT_SIGN = 0x7FFFFFFF  # all bits of a float32 but its sign


def half_green(mosaic: np.ndarray, cfa_pattern: str) -> np.ndarray:
    """Return the half-size green plane of a mosaic (mean of G1 and G2), float32; a mono frame as it is.

    Of X-Trans it is the estimate of `core.scattered.green_plane`.

    Examples
    --------
    >>> half_green(np.arange(16.0).reshape(4, 4), "RGGB")
    array([[ 2.5,  4.5], [10.5, 12.5]], dtype=float32)
    """
    if cfa_pattern == "mono":
        return np.ascontiguousarray(mosaic, np.float32)
    if is_xtrans(cfa_pattern):
        return green_plane(mosaic, cfa_pattern)
    place = offsets(cfa_pattern)
    height, width = mosaic.shape[0] // 2 * 2, mosaic.shape[1] // 2 * 2
    first, second = (
        mosaic[row:height:2, column:width:2].astype(np.float32) for row, column in (place["G1"], place["G2"])
    )
    return (first + second) * np.float32(0.5)


def green_sampling(cfa_pattern: str) -> Sampling:
    """Return how `half_green` samples the frame, for `find_stars`.

    Two pixels half a diagonal apart from their middle, each integrating over itself.

    Examples
    --------
    >>> green_sampling("GRBG")
    Sampling(scale=2.0, offset=0.5, blur=(0.3333333333333333, 0.25, 0.3333333333333333))
    """
    if cfa_pattern == "mono":
        return SQUARE_PIXELS
    if is_xtrans(cfa_pattern):
        return Sampling(2.0, 0.5, green_plane_weights(cfa_pattern)[1])
    return Sampling(2.0, 0.5, (1 / 3, 0.25 if cfa_pattern[0] == "G" else -0.25, 1 / 3))


@kernel()
def _middle(sample, count):
    """Return the value that stands at count // 2 in the order of a sample of 64 float32 values, infinite from count on.

    The bits of floats, as whole numbers, have the order of the floats.  Halving their range takes a quarter of the time
    of a sort, whose branches no processor foresees.
    """
    keys = np.empty(64, np.int32)
    bits = sample.view(np.int32)
    for index in range(64):
        keys[index] = bits[index] if bits[index] >= 0 else bits[index] ^ _BUT_SIGN
    low, high = np.int64(keys.min()), np.int64(keys[:count].max())
    while low < high:
        centre = np.int32((low + high) >> 1)
        below = np.int32(0)
        for index in range(64):
            below += np.int32(keys[index] <= centre)
        low, high = (low, np.int64(centre)) if below > count // 2 else (np.int64(centre) + 1, high)
    keys[0] = low if low >= 0 else low ^ _BUT_SIGN
    return keys.view(np.float32)[0]


@kernel(fastmath={"contract", "reassoc", "nsz"})
def clipped_stats(values):
    """Return location and standard deviation of a run of float32 values, clipped at three sigma.

    Starts from the median and MAD of a sample of 63 values, so that stars and nebula do not lead it astray, and
    does not sort the rest.  NaNs are left out.  The deviation is divided by 0.98660, that of a normal distribution
    cut at three sigma.
    """
    size = values.size
    step = max(1, size // 63)
    sample = np.full(64, np.inf, np.float32)
    count = 0
    for index in range(step // 2, size, step):
        value = values[index]
        if value == value and count < 64:
            sample[count] = value
            count += 1
    if count < 5:
        return np.nan, np.nan, 0
    centre = _middle(sample, count)
    sigma = np.float32(MAD_TO_SIGMA) * _middle(np.abs(sample - centre), count) * np.float32(1.3)
    used = 0
    for _ in range(4):
        reach = np.float32(3.0) * sigma
        total = np.float32(0.0)
        square = np.float32(0.0)
        inside = np.float32(0.0)
        for index in range(size):
            difference = values[index] - centre
            kept = np.float32(1.0) if abs(difference) <= reach else np.float32(0.0)
            difference = difference if abs(difference) <= reach else np.float32(0.0)
            inside += kept
            total += difference
            square += difference * difference
        if inside < 5:
            break
        mean = total / inside
        used = int(inside)
        sigma = np.float32(np.sqrt(max(square / inside - mean * mean, np.float32(0.0))) / np.float32(0.98660))
        centre = centre + mean
    return centre, sigma, used


@kernel()
def _blocks(plane, block, level, noise):
    """Fill `level` and `noise` (row, column of blocks) with the clipped statistics of a float32 plane (y, x)."""
    rows, columns = level.shape
    height, width = plane.shape
    scratch = np.empty(block * block, np.float32)
    for row in range(rows):
        top, bottom = row * height // rows, (row + 1) * height // rows
        for column in range(columns):
            left, right = column * width // columns, (column + 1) * width // columns
            count = 0
            for y in range(top, min(bottom, top + block)):
                for x in range(left, min(right, left + block)):
                    scratch[count] = plane[y, x]
                    count += 1
            level[row, column], noise[row, column], _ = clipped_stats(scratch[:count])


def block_background(plane: np.ndarray, block: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Return background level and noise (standard deviation) in blocks of a plane, both in its units.

    Each block (about `block` x `block` pixels) is clipped at three sigma until stars are gone; a block without
    five finite pixels is NaN.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> level, noise = block_background(rng.normal(100, 5, (128, 128)).astype("float32"), block=32)
    >>> level.shape, float(level.mean().round()), float(noise.mean().round())
    ((4, 4), 100.0, 5.0)
    """
    shape = tuple(max(1, -(-size // block)) for size in plane.shape)
    level, noise = np.empty(shape, np.float32), np.empty(shape, np.float32)
    _blocks(np.ascontiguousarray(plane, np.float32), block, level, noise)
    return level, noise


@kernel(fastmath={"contract", "reassoc", "nsz"})
def subtract(plane, level, out):
    """Write a plane (y, x) less its block levels (row, column), linear between block centres; NaN becomes 0."""
    height, width = plane.shape
    rows, columns = level.shape
    left = np.empty(width, np.int64)
    part = np.empty(width, np.float32)
    line = np.empty(columns, np.float32)
    for x in range(width):
        position = min(max((x + 0.5) * columns / width - 0.5, 0.0), columns - 1.0)
        left[x] = min(int(position), max(columns - 2, 0))
        part[x] = position - left[x]
    for y in range(height):
        position = min(max((y + 0.5) * rows / height - 0.5, 0.0), rows - 1.0)
        top = min(int(position), max(rows - 2, 0))
        down = np.float32(position - top)
        for column in range(columns):
            line[column] = level[top, column] + down * (level[min(top + 1, rows - 1), column] - level[top, column])
        for x in range(width):
            begin = line[left[x]]
            value = plane[y, x] - (begin + part[x] * (line[min(left[x] + 1, columns - 1)] - begin))
            out[y, x] = value if value == value else 0.0
