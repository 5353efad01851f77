"""What is known of the noise of a stack's samples: each frame's own, and what the masters put into all of them.

A sample's variance is (α m + β) Σw² with m the light [e-], the median of the frames, and Σw² of the resampling.  The
masters' noise, μ + ν m², μ a part of β, stays with the sensor: dithers move it over the sky, so that in a single pixel
it is independent from frame to frame, and averages with them; in areas wider than the dithers all frames share it.

A stack's ``variance`` is that of the mean of an area, as equivalent white noise: divided by the number of its pixels it
is the variance of the mean of 16 x 16 of them.  ``shared_variance`` is the part of it that only areas have: a single
pixel's variance is ``pixel_variance_share`` times (``variance`` - ``shared_variance``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from ..align.transform import Transform
from ..calibrate.planes import NOISE_BLOCK
from .combine import Noise
from .lanczos import NARROWING, lanczos3, mean_squared_weight, narrowing_for
from .window import BAND, BLOCK, Tile

AREA = 16  # [pixels] side of the areas for which `variance` counts the noise that the frames share
SHARE = {"R": 0.25, "G": 0.5, "B": 0.25, "mono": 1.0}  # of the mosaic's pixels
_LATTICES = {"R": "square", "G": "quincunx", "B": "square", "mono": "mono"}


@cache
def area_variance(lattice: str, side: int) -> float:
    """Return the variance of the mean of side x side resampled pixels, over that of all samples that lie in it.

    Close to 1: a pixel's kernel reaches over the area's edge, and the pixels outside reach in.  Averaged over all
    positions between the samples.

    Parameters
    ----------
    lattice
        ``square`` (red, blue), ``quincunx`` (green) or ``mono``.

    Examples
    --------
    >>> [round(area_variance(name, 16), 3) for name in ("square", "quincunx", "mono")]
    [0.964, 0.997, 0.994]
    """
    narrowing = 1.0 if lattice == "mono" else NARROWING
    phases = [(i / 8 + 1 / 16, j / 8 + 1 / 16) for i in range(8) for j in range(8)]
    taps = np.arange(-2, 4)
    y, x = (part.ravel() for part in np.mgrid[:side, :side])
    total = 0.0
    for dx, dy in phases:
        if lattice == "quincunx":
            a, b = (x + y + 2 * dx) / 2, (x - y + 2 * dy) / 2
        else:
            pace = 2.0 if lattice == "square" else 1.0
            a, b = x / pace + dx, y / pace + dy
        first, second = np.floor(a).astype(int), np.floor(b).astype(int)
        along, across = (lanczos3((taps - (t - i)[:, None]) / narrowing) for t, i in ((a, first), (b, second)))
        weight = (along / along.sum(1, keepdims=True))[:, :, None] * (across / across.sum(1, keepdims=True))[:, None]
        i, j = (first[:, None] + taps - first.min() + 2, second[:, None] + taps - second.min() + 2)
        samples = np.zeros((i.max() + 1, j.max() + 1))
        np.add.at(samples, (i[:, :, None], j[:, None, :]), weight / side**2)
        total += (samples**2).sum()
    share = {"square": 0.25, "quincunx": 0.5, "mono": 1.0}[lattice]
    return float(total / len(phases) * side**2 * share)


def white_noise(channel: str) -> float:
    """Return what white noise a sample's variance is worth in the mean of 16 x 16 resampled pixels of a channel."""
    return area_variance(_LATTICES[channel], AREA) / SHARE[channel]


def pixel_share(channel: str) -> float:
    """Return the variance of a single pixel over the equivalent white noise: resampling shares each sample out."""
    return mean_squared_weight(narrowing_for("mono" if channel == "mono" else "RGGB")) / white_noise(channel)


def block_centres(numbers: Sequence[int], shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y [px] (band, block) of the centres of the blocks of bands, of an output of `shape`."""
    x = (np.arange(-(-shape[1] // BLOCK)) + 0.5) * BLOCK - 0.5
    y = np.array([number * BAND + min(BAND, shape[0] - number * BAND) / 2 - 0.5 for number in numbers])
    return tuple(np.meshgrid(x, y))


def sample_noise(
    noise: np.ndarray,
    transform: Transform,
    scale: float,
    surface: np.ndarray,
    centres: tuple[np.ndarray, np.ndarray],
    corner: tuple[int, int] = (0, 0),
) -> tuple[np.ndarray, np.ndarray]:
    """Return a frame's noise terms as its normalised samples have them in blocks of the output.

    Parameters
    ----------
    noise
        Of its calibration (term, channel, block row, block column); see `calibrate.Planes`.
    transform, scale, surface
        Where the frame lies, and what normalises it.
    centres
        x and y of the blocks' centres, any shape.
    corner
        Row and column of the frame's first pixel on the sensor, whose blocks `noise` has.

    Returns
    -------
    Terms (term, channel, ...): α, β with μ in it, μ and ν; and the blocks' places in the frame (2, ...), x then y [px].
    """
    x, y = (np.asarray(part, float) for part in centres)
    fx, fy = transform.apply(x, y)
    row = np.clip((fy + corner[0]) / NOISE_BLOCK, 0, noise.shape[2] - 1).astype(np.int64)
    column = np.clip((fx + corner[1]) / NOISE_BLOCK, 0, noise.shape[3] - 1).astype(np.int64)
    light, dark, shared, flat = noise[:, :, row, column].astype(float)
    over = np.tensordot(surface, np.stack([np.ones_like(x), x, y, x * x, x * y, y * y]), 1)
    beta = np.maximum(scale * over * light, -0.9 * scale**2 * dark) + scale**2 * (dark + shared)
    terms = np.stack([scale * light, beta, scale**2 * shared, flat]).astype(np.float32)
    return terms, np.stack([fx, fy]).astype(np.float32)


def common_share(places: np.ndarray, weight: np.ndarray, side: float) -> np.ndarray:
    """Return how much of the masters' noise frames share in the mean of areas of `side` x `side` pixels.

    Of two frames displaced by (dx, dy) it is (1 - |dx|/side)(1 - |dy|/side); all pairs are averaged by weight.

    Parameters
    ----------
    places
        Where the areas lie in each frame (frame, 2, area) [px].
    weight
        Of each frame.
    """
    weight = weight / weight.sum()
    share = np.zeros(places.shape[2])
    for number, own in enumerate(weight):
        overlap = np.maximum(1 - np.abs(places - places[number]) / side, 0).prod(1)
        share += own * (weight[:, None] * overlap).sum(0)
    return share


def tile_noise(terms: np.ndarray, places: np.ndarray, weight: np.ndarray, tiles: Sequence[Tile], channels, left=0):
    """Return the `Noise` of each tile of a band, and what the frames share (2, channel, block).

    `terms` (frame, term, channel, block) and `places` (frame, 2, block) of the band's blocks, from column 0 on;
    `weight` (frame, channel); `channels` names them; `left` is the output's column where the tiles' arrays begin.

    The second gives the shared variance of a pixel of signal m: the first plus the second times m².
    """
    white = np.array([white_noise(str(name)) for name in channels])
    total = np.maximum(weight.sum(0), 1e-30)
    masters = np.stack([(weight[:, :, None] * terms[:, term]).sum(0) / total[:, None] for term in (2, 3)], -1)
    firsts = [(tile.column + left) // BLOCK for tile in tiles]
    lasts = [(tile.column + left + tile.columns - 1) // BLOCK + 1 for tile in tiles]
    middles = [(first + last) // 2 for first, last in zip(firsts, lasts, strict=True)]
    pixel, area = (common_share(places[:, :, middles].astype(float), weight.mean(1), side) for side in (1, AREA))
    independent = ((weight / total) ** 2).sum(0)[:, None]  # what a sample's own variance holds of them already
    common = np.zeros((2, *masters.shape[:2]), np.float32)
    noises = []
    for number, (first, last) in enumerate(zip(firsts, lasts, strict=True)):
        part = slice(first, last)
        alpha, beta = (np.ascontiguousarray(values[..., part]) for values in (terms[:, 0], terms[:, 1]))
        dark, flat = np.moveaxis(masters[:, part], -1, 0)
        shared = np.stack([dark * (area[number] - independent), flat * area[number]], -1)
        noises.append(Noise(alpha, beta, shared.astype(float), white))
        rise = white[:, None] * (area[number] - pixel[number])
        common[:, :, part] = rise * dark, rise * flat
    return noises, common


def shared_variance(common: np.ndarray, signal: np.ndarray, left: int = 0) -> np.ndarray:
    """Return the part of a band's variance that frames share (channel, y, x) [e-²]; see `noise.tile_noise`.

    `common` (2, channel, block) and `signal` (channel, y, x), whose first column is `left` of the output.
    """
    block = (np.arange(signal.shape[-1]) + left) // BLOCK
    light = np.maximum(signal, 0)
    return common[0][:, None, block] + common[1][:, None, block] * light * light
