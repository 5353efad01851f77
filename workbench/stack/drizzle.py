"""Drizzle: raw samples fall as small squares onto a grid that may be finer, each into its own colour's plane.

Nothing is interpolated and no mosaic is filled in (Fruchter & Hook 2002, PASP 114, 144): a sample of a calibrated frame
is a square, `pixfrac` of a pixel wide, that is shared out among the pixels it falls on by their overlap, as the kernel
``square`` of STScI's drizzle does.  The ordinary stack of the same tile decides first which samples are outliers.

Pixel k is I_k = Σ w a_k y / W_k, W_k = Σ w a_k, over all samples y of weight w, with a_k the part of a sample's square
on it (Σ_k a_k = 1).  Its own variance is Σ (w a_k σ)² / W_k².  A sample lands on several pixels, which makes their
noise alike: in the mean of many pixels it counts c = w Σ_k a_k/W_k, and white noise of variance Σ c w a_k σ² / W_k a
pixel has the same variance in such means.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import ndimage

from ..calibrate.planes import calibrate_sample
from ..core.errors import WorkbenchError
from ..core.kernels import kernel
from ..core.scattered import place_at
from .combine import OUT, sample_variance
from .normalise import AREA, Noise, channel_share
from .tile import Maps, Scratch, TileFrames
from .window import BAND, BLOCK, Tile, unturned

if TYPE_CHECKING:
    from .engine import StackArrays

SCALES = (1.0, 1.5, 2.0, 3.0)
PIXFRAC = 0.8
_FILLED = 1e-4  # holes that are too few to matter, of all pixels
_REJECTED = 9
_NAN, _DARK = np.float32(np.nan), np.float32(0)


class Drop(NamedTuple):
    """A grid `scale` times finer than the reference's; `pixfrac` [px of the frame] is the side of a sample's square."""

    scale: float
    pixfrac: float

    def size(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return rows and columns of the finer grid over a picture of `shape`; part of a last pixel is left out."""
        return int(shape[0] * self.scale), int(shape[1] * self.scale)


def drop_of(scale: float | None, pixfrac: float | None, method: str) -> Drop | None:
    """Return how a stack is drizzled; None where neither number is given: it is resampled.

    Raises
    ------
    WorkbenchError
        If a number is out of range, or the method is the median, not a weighted mean.

    Examples
    --------
    >>> drop_of(2, None, "noise"), drop_of(None, None, "median")
    (Drop(scale=2.0, pixfrac=0.8), None)
    """
    if scale is None and pixfrac is None:
        return None
    drop = Drop(*(float(default if given is None else given) for given, default in ((scale, 1), (pixfrac, PIXFRAC))))
    if drop.scale not in SCALES:
        raise WorkbenchError(f"scale {drop.scale:g} is none of {', '.join(f'{one:g}' for one in SCALES)}")
    if not 0.1 <= drop.pixfrac <= 1:
        raise WorkbenchError(f"pixfrac {drop.pixfrac:g} is not between 0.1 and 1: the side of a drop in pixels")
    if method == "median":
        raise WorkbenchError("drizzle is a weighted mean; the median cannot be drizzled: take another rejection")
    return drop


def block_share(drop: Drop, side: int) -> float:
    """Return the variance of the mean of `side` x `side` pixels over that of white noise of the same power.

    With d = pixfrac scale, the drop's side in output pixels, and drops spread evenly: (1 - d/3n)² for n ≥ d, else
    ((n/d) (1 - n/3d))²; for n = 1 the inverse square of R of Fruchter & Hook (2002), equation 9.

    Examples
    --------
    >>> drop = Drop(2.0, 0.8)
    >>> [round(block_share(drop, side), 3) for side in (1, 4, 16, 64)]
    [0.245, 0.751, 0.934, 0.983]
    """
    d = drop.pixfrac * drop.scale
    return (1 - d / (3 * side)) ** 2 if side >= d else (side / d * (1 - side / (3 * d))) ** 2


def drop_noise(drop: Drop, channel: str, cfa_pattern: str, side: int = AREA) -> float:
    """Return what white noise a sample's variance is worth in means of `side` x `side` pixels of a drizzled channel.

    The samples of a colour are as many as its share of the pixels, over scale²; see `normalise.white_noise`.
    """
    return block_share(drop, side) * drop.scale**2 / channel_share(channel, cfa_pattern)


class Task(NamedTuple):
    """A tile to be drizzled after it was stacked: what `stack_tile` took and gave (`plain`, whose counts are kept).

    `edge` is `block_share` of 16 pixels.
    """

    tile: Tile
    frames: TileFrames
    maps: Maps
    noise: Noise
    scratch: Scratch
    drop: Drop
    edge: float
    plain: StackArrays


class DropSums(NamedTuple):
    """Sums over samples on the finer grid of a tile and its rim (channel, y, x): Σwa, Σway, white and own variance."""

    weight: np.ndarray
    total: np.ndarray
    white: np.ndarray
    own: np.ndarray


class Drops(NamedTuple):
    """The squares of a tile's samples: those of frame f from ``first[f]`` to ``first[f + 1]``, twice ``half[f]`` wide.

    Their centres [px of the finer grid, from its edge], values and variances [e-, e-²]; `kind` is the channel, or
    `_REJECTED` for samples too low, too high, or such as could not be tested.
    """

    first: np.ndarray
    half: np.ndarray
    x: np.ndarray
    y: np.ndarray
    value: np.ndarray
    variance: np.ndarray
    kind: np.ndarray


@kernel(inline="always")
def _overlap(centre, half, pixel):
    """Return how much of a square's side lies on a pixel, along one axis [px]."""
    return max(min(centre + half, pixel + 1.0) - max(centre - half, pixel * 1.0), 0.0)


@kernel(inline="always")
def _square(n, half, drops, rows, columns):
    """Return the channel of a sample, its square's centre (x, y), and the pixels on which it falls."""
    c, cx, cy = int(drops.kind[n]), float(drops.x[n]), float(drops.y[n])
    top, bottom = max(int(np.floor(cy - half)), 0), min(int(np.ceil(cy + half)), rows)
    return c, cx, cy, top, bottom, max(int(np.floor(cx - half)), 0), min(int(np.ceil(cx + half)), columns)


@kernel(error_model="numpy")
def _add_values(f, drops, weights, sums):
    """Share the samples of frame f out among the pixels; those that are rejected are left out."""
    weight, total, values = sums.weight, sums.total, drops.value
    half, rows, columns = drops.half[f], weight.shape[1], weight.shape[2]
    for n in range(drops.first[f], drops.first[f + 1]):
        c, cx, cy, top, bottom, left, right = _square(n, half, drops, rows, columns)
        if c > 2:
            continue
        density = weights[f, c] / (4.0 * half * half)
        for y in range(top, bottom):
            part = density * _overlap(cy, half, y)
            for x in range(left, right):
                share = part * _overlap(cx, half, x)
                weight[c, y, x] += share
                total[c, y, x] += share * values[n]


@kernel(error_model="numpy")
def _add_noise(f, drops, weights, inverse, sums):
    """Add what the samples of frame f give to the variances; `inverse` (channel, y, x) is one over Σwa."""
    white, own, variances = sums.white, sums.own, drops.variance
    half, rows, columns = drops.half[f], inverse.shape[1], inverse.shape[2]
    for n in range(drops.first[f], drops.first[f + 1]):
        c, cx, cy, top, bottom, left, right = _square(n, half, drops, rows, columns)
        if c > 2:
            continue
        density = weights[f, c] / (4.0 * half * half)
        whole = 0.0
        for y in range(top, bottom):
            part = density * _overlap(cy, half, y)
            for x in range(left, right):
                whole += part * _overlap(cx, half, x) * inverse[c, y, x]
        for y in range(top, bottom):
            part = density * _overlap(cy, half, y)
            for x in range(left, right):
                share = part * _overlap(cx, half, x) * inverse[c, y, x]
                white[c, y, x] += whole * share * variances[n]
                own[c, y, x] += share * share * variances[n]


@kernel(inline="always")
def _landing(place, inverse, x, y):
    """Return where sample (x, y) of a turned frame lies in the tile: `place` (2, 6) leads back, `inverse` nearly."""
    u, v = inverse[0, 2], inverse[1, 2]
    for _ in range(2):  # what is left of a lens at 256 px: 0.06 px after the first, 3e-5 px after the second
        ahead, down = place_at(place, u, v)
        u += inverse[0, 0] * (x - ahead) + inverse[0, 1] * (y - down)
        v += inverse[1, 0] * (x - ahead) + inverse[1, 1] * (y - down)
    return u, v


@kernel()
def _inverse(place, tile):
    """Return the inverse of the Jacobian in a tile's middle (2, 2), in the third column the middle; and |1/det|."""
    u, v = 0.5 * (tile.width - 1), 0.5 * (tile.height - 1)
    a = place[0, 1] + 2 * u * place[0, 3] + v * place[0, 4]
    b = place[0, 2] + u * place[0, 4] + 2 * v * place[0, 5]
    c = place[1, 1] + 2 * u * place[1, 3] + v * place[1, 4]
    d = place[1, 2] + u * place[1, 4] + 2 * v * place[1, 5]
    det = a * d - b * c
    return np.array([[d / det, -b / det, u], [-c / det, a / det, v]]), abs(1.0 / det)


@kernel(inline="always")
def _background(p, x, y):
    """Return the surface (6) at (x, y) of the reference."""
    return p[0] + x * (p[1] + x * p[3] + y * p[4]) + y * (p[2] + y * p[5])


@kernel(error_model="numpy")
def _land(f, task, drops):
    """Calibrate the samples of frame f that lie on a tile or its rim and put down where their squares fall."""
    tile, frames, maps = task.tile, task.frames, task.maps
    height, width = maps.scale.shape[1], maps.scale.shape[2]
    turn, bounds, g, factor = frames.turn[f], frames.bounds[f], frames.group[f], np.float32(frames.factor[f])
    corner, place, row0, column0 = frames.corner[f], frames.place[f], frames.row0[f], frames.column0[f]
    count, across = frames.rows[f], frames.columns[f]
    raw = frames.raw[frames.starts[f] : frames.starts[f] + count * across].reshape(count, across)
    base, dark, gain = maps.base[g], maps.dark[g], maps.scale[g]
    flags, median, alpha, beta = task.scratch.flags[f], task.scratch.median, task.noise.alpha[f], task.noise.beta[f]
    surface, scale, finer = frames.surface[f], frames.scale[f], task.drop.scale
    inverse, area = _inverse(place, tile)
    drops.half[f] = 0.5 * task.drop.pixfrac * finer * np.sqrt(area)
    x_out, y_out, value_out, variance_out, kind_out = drops.x, drops.y, drops.value, drops.variance, drops.kind
    high, wide = (height, width) if turn % 2 == 0 else (width, height)
    n, even, last = drops.first[f], (tile.width + 1) // 2, alpha.shape[1] - 1
    for wy in range(max(bounds[0], 0), min(bounds[0] + bounds[2], high)):
        for wx in range(max(bounds[1], 0), min(bounds[1] + 2 * bounds[3], wide)):
            u, v = _landing(place, inverse, float(wx), float(wy))
            y, x = unturned(turn, wy, wx, height, width)
            if not (-1.5 < u < tile.width + 0.5 and -1.5 < v < tile.height + 0.5):
                continue
            if not (0 <= y - row0 < count and 0 <= x - column0 < across):
                continue
            offset = base[y, x] if base.size > 1 else np.float32(0.0)
            value = calibrate_sample(raw[y - row0, x - column0], offset, dark[y, x], factor, gain[y, x])
            if value - value != 0 or n >= x_out.size:
                continue  # a defect
            c = corner[wy % corner.shape[0], wx % corner.shape[1]]
            row, column = min(max(int(np.round(v)), 0), tile.height - 1), min(max(int(np.round(u)), 0), tile.width - 1)
            at = column if not tile.split else (column // 2 if column % 2 == 0 else even + column // 2)
            at += (c * tile.height + row) * tile.width
            block, light = min(max(column - tile.rim_left + tile.phase, 0) // BLOCK, last), max(median[at], _DARK)
            x_out[n], y_out[n] = (u + 0.5) * finer, (v + 0.5) * finer
            value_out[n] = value * scale - _background(surface[c], tile.left + u, tile.top + v)
            variance_out[n] = sample_variance(alpha[c, block], beta[c, block], light)
            kind_out[n] = _REJECTED if flags[at] & OUT else c
            n += 1
    drops.first[f + 1] = n


@kernel()
def _drop(task, sums):
    """Drop the samples of all frames on a tile and its rim, then add up their noise."""
    frames, tile = task.frames, task.tile
    count, room = len(frames.scale), 0
    for f in range(count):  # of the frame's pixels, those that a tile can hold at least
        area = _inverse(frames.place[f], tile)[1]
        room += int((tile.height + 4) * (tile.width + 4) / area)
    drops = Drops(
        np.zeros(count + 1, np.int64), np.zeros(count), np.empty(room, np.float32), np.empty(room, np.float32),
        np.empty(room, np.float32), np.empty(room, np.float32), np.empty(room, np.uint8),
    )  # fmt: skip
    for f in range(count):
        _land(f, task, drops)
        _add_values(f, drops, frames.weight, sums)
    inverse = 1.0 / np.maximum(sums.weight, 1e-30)
    for f in range(count):
        _add_noise(f, drops, frames.weight, inverse, sums)


@kernel()
def drop_tile(task: Task, out: StackArrays) -> None:
    """Drizzle a tile that `stack_tile` has just stacked into the arrays `out` of the finer grid's band.

    Of ``out.chi``, in blocks of the ordinary grid, the third and the fourth number sum the pixels' own variance and
    the equivalent white noise.
    """
    tile, noise, scale = task.tile, task.noise, task.drop.scale
    channels = task.frames.weight.shape[1]
    shape = (channels, int(np.ceil(tile.height * scale)), int(np.ceil(tile.width * scale)))
    sums = DropSums(np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros(shape))
    _drop(task, sums)
    weight, total, white, own, plain = sums.weight, sums.total, sums.white, sums.own, task.plain
    counts = plain.coverage, plain.rejected_low, plain.rejected_high, plain.saturated
    bottom, right = plain.signal.shape[1] - 1, plain.signal.shape[2] - 1
    signal, variance, shared, chi = out.signal, out.variance, noise.shared, out.chi
    kept, low, high, saturated = out.coverage, out.rejected_low, out.rejected_high, out.saturated
    last = noise.shared.shape[1] - 1
    first, left = int(tile.rim_top * scale), int(tile.rim_left * scale)
    column = int(tile.column * scale)
    for c in range(channels):
        for y in range(signal.shape[1]):
            for x in range(column, min(column + int(tile.columns * scale), signal.shape[2])):
                v, w = first + y, left + x - column
                row, u = min(int(y / scale), bottom), int((x - column) / scale)
                at = (c, row, min(tile.column + u, right))
                kept[c, y, x], low[c, y, x] = max(counts[0][at], 1), counts[1][at]
                high[c, y, x], saturated[c, y, x] = counts[2][at], counts[3][at]
                if not weight[c, v, w] > 0.0:
                    signal[c, y, x], variance[c, y, x], kept[c, y, x] = _NAN, _NAN, 0
                    continue
                mean, noisy = total[c, v, w] / weight[c, v, w], task.edge * white[c, v, w]
                block, light = min((u + tile.phase) // BLOCK, last), max(mean, 0.0)
                signal[c, y, x] = mean
                common = shared[c, block, 0] + shared[c, block, 1] * light * light
                variance[c, y, x] = noisy + noise.white[c] * common
                chi[2, c, row // BLOCK, (tile.column + u) // BLOCK] += own[c, v, w]
                chi[3, c, row // BLOCK, (tile.column + u) // BLOCK] += noisy


def own_shares(chi: np.ndarray) -> np.ndarray:
    """Return each channel's mean variance of a single pixel over its equivalent white noise, from the sums of tiles."""
    return chi[2].sum(axis=(1, 2)) / chi[3].sum(axis=(1, 2))


def finer_maps(maps: tuple[np.ndarray, np.ndarray], drop: Drop, shape: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Return chi-square sums and shared noise (..., y, x) in blocks of the finer grid, from those of the `shape`."""
    found = []
    for values, steps in zip(maps, ((BLOCK, BLOCK), (BAND, BLOCK)), strict=True):
        for axis, (size, step) in enumerate(zip(drop.size(shape), steps, strict=True), values.ndim - 2):
            middle = (np.arange(-(-size // step)) + 0.5) * step / drop.scale
            values = values.take(np.minimum(middle // step, values.shape[axis] - 1).astype(int), axis)
        found.append(values[:2])
    return tuple(found)


def hole_warning(coverage: np.ndarray, channel: str, drop: Drop, frames: int) -> str:
    """Return a warning where a channel's coverage (y, x) has holes between covered pixels; else nothing.

    Holes of a share h after n frames leave h^(m/n) after m that are dithered at random: from that, how many fill.

    Examples
    --------
    >>> coverage = np.ones((200, 200), int)
    >>> coverage[::10, ::10] = 0
    >>> hole_warning(coverage, "R", Drop(2.0, 0.5), 20).partition("; ")[2]
    'about 40 dithered lights fill all but 1 in 10,000; or take a larger pixfrac or a smaller scale'
    """
    side = 2 * math.ceil(2 * drop.scale) + 1
    covered = coverage > 0
    closed = ndimage.minimum_filter(ndimage.maximum_filter(covered, side, mode="nearest"), side, mode="nearest")
    share = float((closed & ~covered).sum() / max(int(closed.sum()), 1))
    if share <= _FILLED:
        return ""
    needed = math.ceil(frames * math.log(_FILLED) / math.log(min(share, 0.999)))
    return (
        f"{channel}: {100 * share:.2g} % of the pixels have no sample and no value at scale {drop.scale:g}, pixfrac "
        f"{drop.pixfrac:g}; about {needed} dithered lights fill all but 1 in 10,000; or take a larger pixfrac or a "
        "smaller scale"
    )
