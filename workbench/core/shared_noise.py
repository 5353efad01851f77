"""Noise that neighbouring pixels share, as after a filter in the camera, and variances corrected for it.

A linear filter that keeps the mean level makes single pixels quieter and their neighbours alike: the variance of a
pixel and the covariances with all its neighbours add up to the variance before the filter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from .cube import cell_side, channels_of, evenly
from .mosaic import channel_count, channel_index, middle, planes
from .pairs import PairSums
from .parallel import lazy_frames, stream_frames
from .statistics import mad_std, neighbour_covariance

LAGS = tuple((dy, dx) for dy in range(3) for dx in range(-2, 3) if (dy, dx) > (0, 0))
FAR = (6, 7, 8, 9)  # lags that no filter spans: what is shared there is of rows, columns or drift
WINDOW = 1024  # rows and columns of a channel that are looked at, in the middle
_OUTLIER = 6.0
_PIXELS = 1 << 22  # of differences that suffice at one setting
_SURE = 5.0  # errors of a correlation of neighbours that is not chance
_WORTH = 0.002  # correlation of neighbours that changes a variance by a per cent
_CHARGE = 0.02  # flats correlate by up to 0.01 where bright pixels push charge to their neighbours


class Smoothing(NamedTuple):
    """How many times too small the variance of single pixels is (channel), its error, and the largest correlation.

    All ones, with errors of zero, where no noise is shared.  `bands` (channel) [ADU⁴] is what noise of whole rows and
    columns adds to the error of one pair's variance, squared, beyond what blocks of rows show (see `band_variance`).
    """

    factor: np.ndarray
    error: np.ndarray
    correlation: float
    correlation_error: float
    bands: np.ndarray

    @property
    def found(self) -> bool:
        """Whether neighbours share noise."""
        return bool((self.error > 0).any())


def scaled_difference(first: np.ndarray, second: np.ndarray, black: float | None = None) -> np.ndarray:
    """Return (y₁ − r y₂)/√2 of one channel of two equal frames, without its median; outliers become zero [ADU].

    r is the ratio of the levels above `black`; 1 without it, or where there is no light.  Outliers (particles, pixels
    that flicker) are beyond 6 robust standard deviations.
    """
    a, b = first.astype(np.float32), second.astype(np.float32)
    ratio = 1.0
    if black is not None:
        above = np.array([a.mean(dtype=float), b.mean(dtype=float)]) - black
        ratio = above[0] / above[1] if above.min() > 0 else 1.0
    d = (a - np.float32(ratio) * b) * np.float32(np.sqrt(0.5))
    d -= np.median(d)
    away = np.abs(d)
    # of few different numbers the mean deviation is better than the median one
    spread = max(float(mad_std(d, centre=0)), np.sqrt(np.pi / 2) * float(away.mean(dtype=float)), 1e-9)
    d[away > _OUTLIER * spread] = 0
    return d


def shared_covariance(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the covariance (lag) that neighbours have beyond pixels far off, and its weights.

    The means of rows and columns are taken off first, and the covariance at six to nine times the lag is subtracted:
    what whole rows and columns have in common is not a filter.  For white noise of variance 1 the error is 1/√weight.

    Parameters
    ----------
    plane
        A difference (y, x) of one channel, from `scaled_difference`.
    """
    plane = plane - plane.mean(axis=0, dtype=float).astype(np.float32)
    plane -= plane.mean(axis=1, keepdims=True, dtype=float).astype(np.float32)
    near, count = neighbour_covariance(plane, LAGS)
    far, far_count = neighbour_covariance(plane, [(k * dy, k * dx) for dy, dx in LAGS for k in FAR])
    far, known = far.reshape(-1, len(FAR)), far_count.reshape(-1, len(FAR)) > 0.25 * count[:, None]
    some = known.sum(axis=1)
    shared = (far * known).sum(axis=1) / np.maximum(some, 1)
    return near - shared, np.where(some > 0, count / (1 + 1 / np.maximum(some, 1)), count)


def measure_smoothing(
    cube: xr.DataArray,
    pairs: Sequence[tuple[int, int]],
    black: Sequence[float] | None = None,
    *,
    charge: bool = False,
) -> Smoothing:
    """Measure how many times too small the variance of single pixels is for the noise that neighbours share.

    1 + 2 Σ ρ, the correlations ρ of the difference of equal frames at all lags up to two pixels of a channel; 1 unless
    a correlation with one of the nearest neighbours, of all channels together, is beyond five errors and 0.002.

    Parameters
    ----------
    cube
        Raw frames (frame, y, x).
    pairs
        Numbers of equal frames, no frame in two of them; some suffice.
    black
        Black levels [ADU] (channel) of flats, whose lamp may drift; those above half the white level are left out.
    charge
        True where correlations up to 0.02 do not count, as bright pixels that push charge to their neighbours make.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> y = np.random.default_rng(1).normal(600, 20, (2, 512, 512))
    >>> smoothed = (y + np.roll(y, 2, axis=2)) / 2
    >>> bias = make_cube(smoothed.round().astype("uint16"), cfa_pattern="RGGB", kind="bias", iso=100)
    >>> measure_smoothing(bias, [(0, 1)]).factor.mean().round(1)
    np.float64(2.0)
    """
    pattern = cube.attrs["cfa_pattern"]
    channels = len(channels_of(pattern))
    none = Smoothing(np.ones(channels), np.zeros(channels), 0.0, 0.0, np.zeros(channels))
    size = min(cube.sizes["y"], 2 * WINDOW) * min(cube.sizes["x"], 2 * WINDOW)
    most = max(1 if black is None else 3, _PIXELS // size)  # of flats some may be too bright
    chosen = [pairs[i] for i in evenly(len(pairs), most)] if len(pairs) else []
    highest = np.inf if black is None or np.isnan(cube.attrs["white_level"]) else cube.attrs["white_level"] / 2
    lazy = lazy_frames(cube)
    frames = iter(stream_frames(lazy[i] for pair in chosen for i in pair))
    parts = [_correlations(next(frames), next(frames), pattern, black, highest) for _ in chosen]
    found = [part for part in parts if part is not None]
    if not found:
        return none
    weight = np.sum([one.weights for one in found], axis=0)
    correlation = np.sum([one.weights * one.values for one in found], axis=0) / weight
    none = none._replace(bands=np.mean([one.bands for one in found], axis=0))
    whole = (weight * correlation).sum(axis=0) / weight.sum(axis=0)
    doubt = 1 / np.sqrt(weight.sum(axis=0))
    nearest = [number for number, lag in enumerate(LAGS) if max(map(abs, lag)) < 2]
    at = nearest[int(np.argmax(np.abs(whole[nearest]) / doubt[nearest]))]
    if not abs(whole[at]) > max(_CHARGE if charge else _WORTH, _SURE * doubt[at]):
        return none
    factor = np.maximum(1 + 2 * correlation.sum(axis=1), 0.1)
    # the weights hold what the far lags add to the error of one correlation; those of all lags go together
    pixels = weight[:, 0] * (1 + 1 / len(FAR))
    error = np.sqrt(_factor_variance(whole) / pixels)
    return Smoothing(factor, error, float(whole[at]), float(doubt[at]), none.bands)


def band_variance(plane: np.ndarray, lines: tuple[int, int]) -> float:
    """Return what noise of rows and columns adds to the variance of a picture's mean square [unit⁴].

    Means of lines with the autocovariance C(k) make 2/n Σ (1 − |k|/n) C(k)² of it (Bartlett; C beyond n/4 is taken to
    be zero, and what the noise of C adds is subtracted).  Of rows C(0) is left out: blocks of rows show it.

    Parameters
    ----------
    plane
        A difference (y, x) of one channel, from `scaled_difference`.
    lines
        Rows and columns of the whole channel, of which it may be the middle.
    """
    total = 0.0
    for axis in (0, 1):
        line = plane.mean(axis=1 - axis, dtype=float)
        line = line - line.mean()
        size, reach = line.size, line.size // 4
        squares = np.array([line[: size - k] @ line[k:] / size for k in range(max(reach, 1))]) ** 2
        squares[1:] -= squares[0] / size
        white = (float(plane.var()) / plane.shape[1 - axis]) ** 2
        squares[0] = 0.0 if axis == 0 else max(squares[0] - white, 0.0)
        weight = np.where(np.arange(squares.size) > 0, 2, 1) * (1 - np.arange(squares.size) / size)
        total += max(2 * float(weight @ squares), 0.0) / lines[axis]
    return total


class _Shared(NamedTuple):
    """Of a pair: correlations and their weights (channel, lag), and the `band_variance` (channel)."""

    values: np.ndarray
    weights: np.ndarray
    bands: np.ndarray


def _correlations(
    first: np.ndarray, second: np.ndarray, pattern: str, black: Sequence[float] | None, highest: float
) -> _Shared | None:
    """Return what neighbours, rows and columns share in a pair; None above `highest` [ADU] or without noise."""
    cell, step = channel_index(pattern), cell_side(pattern)
    rows, columns = (min(size // step, WINDOW) * step for size in first.shape)
    window = middle(first.shape, (rows, columns), pattern)
    channels = channel_count(cell)
    (values, weights), bands = np.empty((2, channels, len(LAGS))), np.empty(channels)
    whole = first.shape[0] // step, first.shape[1] // step
    for (channel, a), (_, b) in zip(planes(first[window], cell), planes(second[window], cell), strict=True):
        d = scaled_difference(a, b, None if black is None else black[channel])
        variance = d.var(dtype=float)
        if not variance > 0 or max(a.mean(dtype=float), b.mean(dtype=float)) > highest:
            return None
        covariance, weights[channel] = shared_covariance(d)
        values[channel] = covariance / variance
        each = d.shape[0] * step // rows, d.shape[1] * step // columns  # lines of a cell's plane: 1, of X-Trans more
        bands[channel] = band_variance(d, (whole[0] * each[0], whole[1] * each[1]))
    return _Shared(values, weights, bands)


def _factor_variance(correlation: np.ndarray) -> float:
    """Return the variance of 1 + 2 Σ ρ of one pixel's noise, of correlations (lag) as they are.

    A sum Σ w_l C_l of covariances has the variance 2/N ⟨(f W)²⟩ over all spatial frequencies, f being the power of the
    noise and W = Σ w_l cos 2πkl (Bartlett; M. B. Priestley, Spectral Analysis and Time Series, 1981, section 5.3).
    """
    k = np.fft.fftfreq(32)
    phase = 2 * np.pi * np.stack(np.meshgrid(k, k, indexing="ij"))

    def waves(times: int) -> np.ndarray:
        return np.cos(times * np.einsum("la,ayx->lyx", np.array(LAGS, float), phase))

    power = 1 + 2 * np.einsum("l,lyx->yx", correlation, waves(1))
    near, far = waves(1).sum(axis=0), np.mean([waves(times).sum(axis=0) for times in FAR], axis=0)
    return 2 * float(np.mean((power * (2 * (near - far) - 2 * correlation.sum())) ** 2))


def separate_pairs(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return pairs that share no frame.

    Examples
    --------
    >>> separate_pairs([(0, 1), (1, 2), (2, 3), (0, 3)])
    [(0, 1), (2, 3)]
    """
    used: set[int] = set()
    apart = []
    for pair in pairs:
        if not used & {*pair}:
            used |= {*pair}
            apart.append(pair)
    return apart


def unsmoothed(sums: PairSums, number: Any, factor: np.ndarray) -> PairSums:
    """Return sums of pairs in which those numbered have their variances multiplied by `factor` (channel).

    Each value's distance from its channel's mean is widened by √factor; the means stay.
    """
    for part in (sums.plain, sums.kept):
        one = part[number]  # (pair, channel, block, moment)
        n, s1, s2, s11, s22, s12 = np.moveaxis(one, -1, 0)
        total = np.maximum(n.sum(axis=-1, keepdims=True), 1)
        m1, m2 = s1.sum(axis=-1, keepdims=True) / total, s2.sum(axis=-1, keepdims=True) / total
        f = factor[:, None]
        root = np.sqrt(f)
        away1, away2 = s1 - n * m1, s2 - n * m2
        s11 = f * (s11 - 2 * m1 * s1 + n * m1 * m1) + 2 * m1 * root * away1 + n * m1 * m1
        s22 = f * (s22 - 2 * m2 * s2 + n * m2 * m2) + 2 * m2 * root * away2 + n * m2 * m2
        both = f * (s12 - m1 * s2 - m2 * s1 + n * m1 * m2)
        s12 = both + root * (m2 * away1 + m1 * away2) + n * m1 * m2
        part[number] = np.stack([n, n * m1 + root * away1, n * m2 + root * away2, s11, s22, s12], axis=-1)
    return sums


def smoothed_warning(found: Mapping[str, Smoothing]) -> str:
    """Return one warning of the noise that neighbours share at settings, named in words."""
    strongest = max(found.values(), key=lambda one: abs(one.correlation))
    factors = [f"{change(one.factor.mean() for one in found.values()):.2f}" for change in (min, max)]
    return (
        f"neighbouring pixels share noise at {', '.join(found)} (correlation {strongest.correlation:+.3f} ± "
        f"{strongest.correlation_error:.3f}), as after a noise filter in the camera: the variance of single pixels "
        f"reads {' to '.join(dict.fromkeys(factors))} times too small. Gain, read noise and dark current are corrected "
        "with the neighbours' covariances; DSNU, PRNU, hot pixels and the noise of single pixels are those of filtered "
        "numbers. Switch noise reduction off and shoot again"
    )
