"""Frames whose numbers are not the sensor's: stretches of rows that are noise or one value; noise of another level."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from scipy import ndimage

from ..core.kernels import kernel

STRETCH = 64  # pixels of a row
_FAR = 8.0  # σ of the sky: farther apart are two neighbours, or a value and the sky, by no noise
_CALM = 10  # percentile of the blocks' noise that is the sky's, whatever the others hold
_MOST = 0.6  # of a stretch's pixels
_NOISIER = 3.0  # a block so many times as noisy or as calm as the frame's others is judged by their noise and level
_LEAST = 3  # stretches
_NOISE_HOLDS = (0.5, 1.4)  # of what the level gives: clouds, faint stars and a gain that is off stay within


@kernel()
def _count_torn(signal, pace, low, high, far, torn):
    """Count in `torn` (block row, block column, 3) the torn stretches, with the first and the last row of them."""
    height, width = signal.shape
    rows, columns = low.shape
    for y in range(height):
        row = min(y * rows // height, rows - 1)
        for left in range(0, width - STRETCH + 1, STRETCH):
            column = min(left * columns // width, columns - 1)
            limit, bottom, top = far[row, column], low[row, column], high[row, column]
            size = min(STRETCH, width - pace - left)
            here, ahead = signal[y, left : left + size], signal[y, left + pace : left + pace + size]
            jumps, known = np.int32(0), np.int32(0)
            for x in range(size):  # without branches it takes a quarter of the time
                value, step = here[x], ahead[x] - here[x]
                stuck = (step == 0) & ((value < bottom) | (value > top))
                known += np.int32(step == step)
                jumps += np.int32((value < bottom) | stuck | (abs(step) > limit))
            if 2 * known > STRETCH and jumps > _MOST * known:
                if torn[row, column, 0] == 0:
                    torn[row, column, 1] = y
                torn[row, column, 0] += 1
                torn[row, column, 2] = y


def torn_blocks(signal: np.ndarray, level: np.ndarray, noise: np.ndarray, pace: int) -> list[int]:
    """Return the blocks of a mosaic with torn stretches: block row and column, count, first and last row of each.

    A stretch is torn where most pixels differ by more than 8 σ √2 of the sky from the next of their colour, lie 8 σ
    below the sky or below zero, or are far from it and equal.  The shot noise of any light that leaves most pixels of
    the block sky is below that.

    Parameters
    ----------
    signal
        (y, x) [e-]; defects are NaN.
    level, noise
        Of the sky [e-] (channel, block row, block column).
    pace
        Pixels from one to the next of its colour.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> sky, shape = rng.normal(100, 10, (128, 192)).astype("float32"), (1, 2, 3)
    >>> sky[70:73, 64:128] = rng.uniform(0, 65535, (3, 64))
    >>> torn_blocks(sky, np.full(shape, 100.0), np.full(shape, 10.0), 1)
    [1, 1, 3, 70, 72]
    """
    calm = noise[noise > 0]
    usual = np.percentile(calm, _CALM) if calm.size else np.nan
    tame = (noise > usual / _NOISIER) & (noise < _NOISIER * usual)
    if not tame.any(axis=(1, 2)).all():
        return []
    sky = np.nanmedian(np.where(tame, level, np.nan), axis=(1, 2), keepdims=True)
    level, sigma = np.where(tame, level, sky), np.clip(noise, usual / _NOISIER, _NOISIER * usual).max(0)
    torn = np.zeros((*sigma.shape, 3), np.int64)
    low = np.maximum(level.min(0) - _FAR * sigma, -_FAR * usual)  # no light is below none
    high = level.max(0) + _FAR * sigma
    _count_torn(signal, pace, low, high, _FAR * np.sqrt(2.0) * sigma, torn)
    return [int(value) for row, column in np.argwhere(torn[..., 0]) for value in (row, column, *torn[row, column])]


def damaged_frames(stars: Mapping[int, xr.Dataset]) -> dict[int, str]:
    """Return the frames with torn stretches where few others have any within a block, as number → reason.

    Parameters
    ----------
    stars
        Star lists by the frame's number, with what `torn_blocks` gives as the attribute ``torn``.

    Examples
    --------
    >>> lists = {n: xr.Dataset(attrs={"torn": [1, 1, 30, 70, 99] if n == 2 else []}) for n in range(4)}
    >>> damaged_frames(lists)
    {2: 'is damaged: 30 stretches of 64 pixels in rows 70 to 99 are noise or one value; copy the file again'}
    """
    found = {number: np.reshape(one.attrs.get("torn", []), (-1, 5)).astype(int) for number, one in stars.items()}
    size = np.max([torn[:, :2].max(axis=0) for torn in found.values() if len(torn)] or [[0, 0]], axis=0) + 1
    frames = np.zeros(size, int)
    for torn in found.values():
        own = np.zeros(size, bool)
        own[torn[:, 0], torn[:, 1]] = True
        frames += ndimage.binary_dilation(own, np.ones((3, 3)))
    reasons = {}
    for number, torn in found.items():
        alone = torn[frames[torn[:, 0], torn[:, 1]] <= max(1, len(found) // 3)]
        if alone[:, 2].sum() >= _LEAST:
            reasons[number] = (
                f"is damaged: {alone[:, 2].sum()} stretches of {STRETCH} pixels in rows {alone[:, 3].min()} to "
                f"{alone[:, 4].max()} are noise or one value; copy the file again"
            )
    return reasons


def odd_noise(level: np.ndarray, variance: np.ndarray) -> dict[int, str]:
    """Return the frames whose noise is not that of their level, as number → what is odd.

    A background of L electrons has a variance of L + c, c (read noise, dark current) the frames' median.  An offset, a
    factor, smoothing or coarse codes change one of both.

    Parameters
    ----------
    level, variance
        Median background [e-] and its variance in a pixel [e-²] (frame, channel) of frames of one setting and exposure.

    Examples
    --------
    >>> odd_noise(np.array([[100.0], [130.0], [600.0], [110.0]]), np.array([[125.0], [155.0], [130.0], [134.0]]))
    {2: 'its noise is 0.21 times (in variance) what its background of 600 e- gives, as it does in the others'}
    """
    if len(level) < 3:
        return {}
    constant = np.median(variance - level, axis=0)
    share = np.median(variance / np.maximum(level + constant, 1e-9), axis=1)
    odd = ~((share > _NOISE_HOLDS[0]) & (share < _NOISE_HOLDS[1]))
    if 3 * np.count_nonzero(odd) > len(level):
        return {}
    return {
        int(number): f"its noise is {share[number]:.2g} times (in variance) what its background of "
        f"{np.median(level[number]):.3g} e- gives, as it does in the others"
        for number in np.flatnonzero(odd)
    }
