"""Pairs of frames: exact sums in one pass, the variances that follow from them, and jackknife errors.

The temporal noise of a pixel shows only between frames.  From two mosaiced frames y₁, y₂ of the same scene
`pair_sums` takes n, Σy₁, Σy₂, Σy₁², Σy₂², Σy₁y₂ for each channel and each of some dozens of horizontal blocks:
in whole numbers, hence exactly, and without a temporary picture.  Means and every variance of a difference
follow from these sums, with and without outliers; leaving out one block at a time gives their errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from .cube import channels_of
from .kernels import kernel
from .mosaic import channel_count, channel_index, planes
from .parallel import counted, in_threads, lazy_frames, stream_frames
from .statistics import coarse_std, even_sample, t_factor

MOMENTS = ("n", "y1", "y2", "y1y1", "y2y2", "y1y2")
BLOCKS = 64
OUTLIER_SIGMAS = 8.0
QUANTISATION_VARIANCE = 1 / 12  # of rounding to whole ADU [ADU²]

CLIPPED_FRACTION = 1e-3  # of pixels at zero, or saturated, beyond which a normal distribution's σ reads 0.3 % low
_SAMPLE = 4096  # pixels a channel: a MAD to 2 %, which is enough for a limit
_PILED_UP, _PILED_UP_FRACTION = 16, 0.005  # pixels at the highest value; of normal noise it is one in thousands


class PairSums(NamedTuple):
    """The sums of one pair: `plain` and `kept` (without outliers) with axes (channel, block, moment).

    `saturated` and `zero` (channel, block) count the pixels at the white level, or at zero, in either frame;
    `centre` (channel, 2) is mean and variance (ddof 1) of a window in the middle of the first frame alone;
    `tiles` (channel, block, column, moment) are those of `kept` apart for each part of the columns.
    """

    plain: np.ndarray
    kept: np.ndarray
    saturated: np.ndarray
    zero: np.ndarray
    centre: np.ndarray
    tiles: np.ndarray


def pair_sums(
    first: np.ndarray,
    second: np.ndarray,
    cfa_pattern: str,
    *,
    black: Sequence[float] | float | None = None,
    white: float = np.nan,
    blocks: int = BLOCKS,
    columns: int = 1,
) -> PairSums:
    """Return the sums of a pair of mosaiced frames per channel and block, with and without outliers.

    An outlier (a cosmic ray, a pixel that flickers) is a pixel whose difference d = y₁ − r y₂ lies more than
    8 robust standard deviations (1.4826 MAD, from an even subsample) from the median difference.  r is the
    ratio of the two light levels above `black`, or 1 where no black level is given (bias, darks).

    Parameters
    ----------
    first, second
        Two frames (y, x) [ADU] of one shape: whole numbers or floats; pixels that are not finite are left out.
    black
        Black level [ADU], one or one a channel, of a pair of flats whose lamp may have drifted.
    white
        White level [ADU]: values at or above it count as saturated; so do those at the level where they pile up.
    blocks
        Horizontal strips to sum apart; frames with fewer rows of a channel get one block a row.
    columns
        Parts of each strip to sum apart in `tiles`.

    Examples
    --------
    >>> y = np.random.default_rng(1).poisson(100, (2, 64, 64)).astype("uint16")
    >>> sums = pair_sums(*y, "RGGB", white=16383)
    >>> sums.plain.shape, int(sums.plain[..., 0].sum())
    ((4, 32, 6), 4096)
    """
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"a pair needs two pictures of one shape; these have {first.shape} and {second.shape}")
    cell = channel_index(cfa_pattern)
    channels, step = channel_count(cell), cell.shape[0]
    rows = first.shape[0] // step
    blocks = max(1, min(blocks, rows))
    limits = _limits(first, second, cell, black, np.inf if np.isnan(white) else white)
    exact = np.issubdtype(first.dtype, np.integer) and first.dtype.itemsize <= 2
    zero = np.int64(0) if exact else np.float64(0)  # its type is that of the sums
    shape = (channels, blocks, max(1, min(columns, first.shape[1] // step)), len(MOMENTS))
    empty = np.zeros(shape, zero.dtype)
    sums = _PairSums(empty, empty.copy(), np.zeros((channels, blocks, 2), np.int64))
    _accumulate(first, second, cell, limits, zero, sums)
    plain, kept = (part.sum(axis=2).astype(float) for part in (sums.plain, sums.kept))
    saturated, at_zero = np.moveaxis(sums.flags, -1, 0)
    return PairSums(plain, kept, saturated, at_zero, _centre(first, cell), sums.kept.astype(float))


class _PairSums(NamedTuple):
    """Sums (channel, block, column, moment) with and without outliers; counts of saturated and of zero."""

    plain: np.ndarray
    kept: np.ndarray
    flags: np.ndarray


class _Limits(NamedTuple):
    """Of each channel: ratio of the light levels, median and greatest ordinary deviation of the differences, and the
    level from which pixels are saturated [ADU]."""

    ratio: np.ndarray
    centre: np.ndarray
    limit: np.ndarray
    top: np.ndarray


def _centre(frame: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Return mean and variance of each channel in the middle: a quarter of the sides, 64 to 256 cells of the mosaic."""
    step = cell.shape[0]
    sizes = [max(1, min(size // step, max(64, min(256, size // step // 4)))) for size in frame.shape]
    starts = [(size // step - cells) // 2 * step for size, cells in zip(frame.shape, sizes, strict=True)]
    window = frame[tuple(slice(start, start + cells * step) for start, cells in zip(starts, sizes, strict=True))]
    window = window.astype(float)
    moments = [(plane.mean(), plane.var(ddof=1) if plane.size > 1 else np.nan) for _, plane in planes(window, cell)]
    return np.array(moments)


def _limits(
    first: np.ndarray, second: np.ndarray, cell: np.ndarray, black: Sequence[float] | float | None, white: float
) -> _Limits:
    """Find the limits from an even subsample of each channel."""
    ratio, centre, limit, top = (np.empty(channel_count(cell), np.float32) for _ in range(4))
    levels = None if black is None else np.broadcast_to(np.asarray(black, float), (channel_count(cell),))
    for (channel, plane1), (_, plane2) in zip(planes(first, cell), planes(second, cell), strict=True):
        sample1, sample2 = (even_sample(plane, _SAMPLE).astype(np.float64) for plane in (plane1, plane2))
        good = np.isfinite(sample1) & np.isfinite(sample2)
        sample1, sample2 = sample1[good], sample2[good]
        r, m, scale, most = 1.0, 0.0, 0.0, white
        if sample1.size:
            if levels is not None:
                level1, level2 = (float(np.median(sample)) - levels[channel] for sample in (sample1, sample2))
                r = level1 / level2 if level1 > 0 and level2 > 0 else 1.0
            difference = sample1 - r * sample2
            m = float(np.median(difference))
            scale = coarse_std(difference, m)
            # many pixels at the very highest value: the camera clips below the white level that its files state
            highest = sample1.max()
            if scale > 2 and np.count_nonzero(sample1 == highest) > max(_PILED_UP, _PILED_UP_FRACTION * sample1.size):
                most = min(white, highest)
        ratio[channel], centre[channel], top[channel] = r, m, most
        limit[channel] = OUTLIER_SIGMAS * scale if scale > 0 else np.inf
    return _Limits(ratio, centre, limit, top)


@kernel(error_model="numpy", fastmath={"reassoc"})
def _row(first, second, ratio, centre, limit, white, zero, out):
    """Sum one channel's row (x) [ADU] into `out` (moment); return how many pixels are outliers, saturated, zero."""
    s1, s2, s11, s22, s12 = zero, zero, zero, zero, zero
    for k in range(first.size):
        a = first[k] + zero
        b = second[k] + zero
        s1 += a
        s2 += b
        s11 += a * a
        s22 += b * b
        s12 += a * b
    out[1], out[2], out[3], out[4], out[5] = s1, s2, s11, s22, s12
    outliers, saturated, black = np.int32(0), np.int32(0), np.int32(0)
    low, high = first[0], first[0]
    for k in range(first.size):
        low = min(low, min(first[k], second[k]))
        high = max(high, max(first[k], second[k]))
    for k in range(first.size):
        difference = np.float32(first[k]) - ratio * np.float32(second[k]) - centre
        outliers += np.int32(not (abs(difference) <= limit))  # so that NaN is one
    # few rows have any, and an empty count costs as much as the sums
    if np.float32(low) <= 0 or np.float32(high) >= white or outliers:
        for k in range(first.size):
            a, b = np.float32(first[k]), np.float32(second[k])
            saturated += np.int32((a >= white) | (b >= white))
            black += np.int32((a == np.float32(0)) | (b == np.float32(0)))
    return outliers, saturated, black


@kernel(error_model="numpy")
def _gather(line, step, row):
    """Copy every `step`-th value of a line together in memory, so that the sums run in vector registers."""
    if step == 2:
        for k in range(row.size):
            row[k] = line[2 * k]
    else:
        for k in range(row.size):
            row[k] = line[step * k]


@kernel(error_model="numpy")
def _add_one_by_one(first, second, ratio, centre, limit, zero, plain, kept):
    """Add a channel's row (x) [ADU] to its sums (moment), pixels that are not finite left out, outliers to `plain`."""
    out = np.zeros(6, plain.dtype)
    for k in range(first.size):
        a = first[k] + zero
        b = second[k] + zero
        if not (np.isfinite(a) and np.isfinite(b)):
            continue
        out[0], out[1], out[2], out[3], out[4], out[5] = 1, a, b, a * a, b * b, a * b
        difference = np.float32(a) - ratio * np.float32(b) - centre
        for moment in range(6):
            plain[moment] += out[moment]
            if abs(difference) <= limit:
                kept[moment] += out[moment]


@kernel(error_model="numpy")
def _accumulate(first, second, cell, limits, zero, sums):
    """Add a pair of frames (y, x) [ADU] to the `_PairSums`; `zero` has the type of the sums."""
    ratio, centre, limit, top = limits
    plain, kept, flags = sums
    step = cell.shape[0]
    rows, columns = first.shape[0] // step, first.shape[1] // step
    blocks, parts = plain.shape[1], plain.shape[2]
    row1, row2 = np.empty(columns, first.dtype), np.empty(columns, second.dtype)
    out = np.zeros(6, plain.dtype)
    for row in range(rows):
        block = row * blocks // rows
        for dy in range(step):
            for dx in range(step):
                _gather(first[row * step + dy, dx:], step, row1)
                _gather(second[row * step + dy, dx:], step, row2)
                c = cell[dy, dx]
                for part in range(parts):
                    here = slice(part * columns // parts, (part + 1) * columns // parts)
                    a, b, r, m, most = row1[here], row2[here], ratio[c], centre[c], limit[c]
                    outliers, saturated, black = _row(a, b, r, m, most, top[c], zero, out)
                    flags[c, block, 0] += saturated
                    flags[c, block, 1] += black
                    if outliers:
                        _add_one_by_one(a, b, r, m, most, zero, plain[c, block, part], kept[c, block, part])
                        continue
                    out[0] = a.size
                    for moment in range(6):
                        plain[c, block, part, moment] += out[moment]
                        kept[c, block, part, moment] += out[moment]


class PairMoments(NamedTuple):
    """Means and (co)variances (ddof 1) of a pair, of any leading shape [ADU, ADU²]."""

    n: np.ndarray
    mean1: np.ndarray
    mean2: np.ndarray
    variance1: np.ndarray
    variance2: np.ndarray
    covariance: np.ndarray

    @property
    def half_variance(self) -> np.ndarray:
        """½ Var(y₁ − y₂): only the pair's mean difference is removed [ADU²]."""
        return (self.variance1 - 2 * self.covariance + self.variance2) / 2

    def scaled_half_variance(self, black: Any) -> np.ndarray:
        """½ Var((μ₂y₁ − μ₁y₂)/μ), μᵢ the means above `black`, μ their mean [ADU²].

        A lamp that drifts between the frames changes y₁ − y₂ by a picture of the vignetting; scaled to one level
        first, the difference is free of it (the LSST photon transfer code scales so).  Where a mean does not
        rise above `black` there is nothing to scale and the plain half-variance is returned.
        """
        level1, level2 = self.mean1 - black, self.mean2 - black
        lit = (level1 > 0) & (level2 > 0)
        level = np.where(lit, (level1 + level2) / 2, 1.0)
        a, b = np.where(lit, level2 / level, 1.0), np.where(lit, level1 / level, 1.0)
        return (a * a * self.variance1 - 2 * a * b * self.covariance + b * b * self.variance2) / 2


def pair_moments(sums: np.ndarray) -> PairMoments:
    """Return the means and (co)variances that follow from sums (..., moment); NaN for fewer than two pixels.

    Examples
    --------
    >>> y1, y2 = np.array([1.0, 2, 3]), np.array([2.0, 2, 5])
    >>> sums = np.array([3, y1.sum(), y2.sum(), (y1 * y1).sum(), (y2 * y2).sum(), (y1 * y2).sum()])
    >>> moments = pair_moments(sums)
    >>> bool(moments.half_variance == np.var(y1 - y2, ddof=1) / 2)
    True
    """
    n, s1, s2, s11, s22, s12 = np.moveaxis(np.asarray(sums, float), -1, 0)
    enough = n > 1
    count = np.where(enough, n, np.nan)
    return PairMoments(
        n,
        s1 / count,
        s2 / count,
        (s11 - s1 * s1 / count) / (count - 1),
        (s22 - s2 * s2 / count) / (count - 1),
        (s12 - s1 * s2 / count) / (count - 1),
    )


def frame_pairs(count: int) -> list[tuple[int, int]]:
    """Return the pairs of `count` equal frames: each with the next, and from three on the last with the first.

    The last pair makes all frames count alike; three frames give all their three pairs.

    Examples
    --------
    >>> frame_pairs(2), frame_pairs(4)
    ([(0, 1)], [(0, 1), (1, 2), (2, 3), (0, 3)])
    """
    pairs = [(index, index + 1) for index in range(count - 1)]
    return [*pairs, (0, count - 1)] if count > 2 else pairs


def pair_weight(count: int) -> float:
    """Return how many independent pairs one of the `frame_pairs` of `count` frames is worth: 1, or 2/3 from three on.

    The mean of the squared differences around the ring has (tr L)²/tr(L²) = 2 count/3 degrees of freedom a
    pixel, L being the ring's Laplacian; it has `count` pairs.
    """
    return 1.0 if count < 3 else 2 / 3


def ring_error(noise: np.ndarray) -> np.ndarray:
    """Return the error (channel) of the mean half-variance of the pairs of a ring (pair, channel), 0 for one pair.

    Neighbouring pairs share a frame: of n frames whose own variances scatter, Var(mean) = 2 s² (n − 1)/((n − 2) n).
    """
    count = len(noise)
    if count < 3:
        return np.zeros(noise.shape[1])
    return np.std(noise, axis=0, ddof=1) * np.sqrt(2 * (count - 1) / ((count - 2) * count))


def leave_one_out(sums: np.ndarray, axis: int) -> np.ndarray:
    """Return the sums over all blocks but one, for each block left out, along `axis`."""
    return sums.sum(axis=axis, keepdims=True) - sums


def jackknife_error(replicates: np.ndarray, axis: int = 0) -> np.ndarray:
    """Return the half-width of the 68 % interval from estimates that each leave out one block.

    √((B−1)/B Σ(θ_b − θ̄)²), widened by Student's t for the B blocks (Tukey's jackknife); NaN for one block.
    """
    blocks = replicates.shape[axis]
    if blocks < 2:
        return np.full(np.delete(replicates.shape, axis), np.nan)
    spread = np.square(replicates - replicates.mean(axis=axis, keepdims=True)).sum(axis=axis)
    return np.sqrt(spread * (blocks - 1) / blocks) * t_factor(blocks - 1)


def measure_pairs(
    cube: xr.DataArray,
    pairs: Sequence[tuple[int, int]],
    *,
    black: Sequence[Any] | None = None,
    columns: int = 1,
    progress: Any = True,
) -> PairSums:
    """Return the sums of many pairs of a cube's frames, stacked along a first axis, each frame decoded once.

    Parameters
    ----------
    pairs
        Numbers of the two frames of each pair; a frame stays in memory from its first pair to its last.
    black
        Black level [ADU] for each pair and channel, or None (see `pair_sums`).
    columns
        As of `pair_sums`.
    progress
        True for a bar once it takes longer than two seconds, False for none, or a tqdm bar to advance by one a frame.
    """
    order = list(dict.fromkeys(index for pair in pairs for index in pair))
    last_use = {index: number for number, pair in enumerate(pairs) for index in pair}
    pattern, white = cube.attrs["cfa_pattern"], cube.attrs["white_level"]
    lazy = lazy_frames(cube)
    frames = zip(order, counted(stream_frames(lazy[i] for i in order), progress, len(order)), strict=True)

    def paired() -> Iterator[tuple[np.ndarray, np.ndarray, Any]]:
        held: dict[int, np.ndarray] = {}
        for number, (first, second) in enumerate(pairs):
            while not held.keys() >= {first, second}:
                index, frame = next(frames)
                held[index] = frame
            yield held[first], held[second], None if black is None else black[number]
            for index in {first, second}:
                if last_use[index] == number:
                    del held[index]
        for _ in frames:  # nothing is left; lets the stream and its bar finish
            pass

    def measure(pair: tuple[np.ndarray, np.ndarray, Any]) -> PairSums:
        return pair_sums(*pair[:2], pattern, black=pair[2], white=white, columns=columns)

    results = list(in_threads(measure, paired()))
    if not results:
        sums, counts = (np.zeros((0, len(channels_of(pattern)), 1, *rest)) for rest in ((len(MOMENTS),), ()))
        return PairSums(sums, sums, counts, counts, np.zeros((0, sums.shape[1], 2)), sums[:, :, :, None])
    return PairSums(*(np.stack(part) for part in zip(*results, strict=True)))
