"""Combine many frames into one, out of core: decoded once, then bands of rows, all frames deep.

The mean of the samples that agree within the noise model is taken, row by row of all frames: the straight mean, the
extremes and the scatter of every pixel first (`_sum_plain_row`, `_sum_scaled_row`).  A pixel whose samples all lie
within the clip needs no sorting, its mean is exact and unbiased; of the few others samples are rejected
(`_settle_row`, `_reject`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import chdtri

from ..core.errors import WorkbenchError
from ..core.kernels import kernel
from ..core.statistics import MAD_TO_SIGMA
from .bands import Frames

CLIP = 4.5  # [σ of the model]; of 16 M pixels x 16 frames without events 2,000 samples lie beyond: 1e-5 of them
UNSTABLE_CHANCE = 1e-7  # a pixel's own scatter takes the model's place when chance would do it this rarely
_SURE = 3.0  # the model's first scaling leaves out pixels that scatter this many times as much as unstable ones
_FEWEST = 30  # degrees of freedom that the model's scaling needs


@dataclass(frozen=True, eq=False)
class Combined:
    """What `combine_frames` gives: maps (y, x), `unstable` those of pixels that flicker.

    `chi2` (channel): the samples' scatter over the model's; `rejected` (frame): fraction of its samples that were
    thrown out; `law` (channel, 2): the model as scaled to the scatter.
    """

    mean: np.ndarray
    variance: np.ndarray
    count: np.ndarray
    unstable: np.ndarray
    chi2: np.ndarray
    rejected: np.ndarray
    law: np.ndarray


def combine_frames(
    frames: Frames,
    model: np.ndarray,
    *,
    black: np.ndarray | float = 0.0,
    pedestal: np.ndarray | None = None,
    scale: np.ndarray | None = None,
    saturation: float = np.inf,
    progress: bool = True,
) -> Combined:
    """Return the mean over frames of (y - pedestal) · scale, samples beyond the noise model left out.

    A sample's variance is s² a + s b max(x - black, 0), with the model (a [ADU²], b [ADU]) of its channel and the scale
    s of its frame.  Weights are 1/s: the optimum where shot noise rules, so that the mean is Σ(y - P)/Σ(1/s).  The
    first centre is the median, then the mean of the samples kept.  From eight samples on the clip is the larger of the
    model's and that of the samples' own 1.4826 MAD; of two samples that do not agree the lower is kept, because what
    strikes a pixel only ever adds to it.

    The model is first scaled, channel by channel, to the scatter that the frames have in some rows, so that the
    variance is the measured one.  Where a pixel's samples scatter more than chance gives once in 10⁷, its variance is
    that of its samples: it is unstable.

    `model` is (channel, 2); `black` [ADU] is the level of no signal after the pedestal is taken off, one or one a
    channel; the `pedestal` (y, x) [ADU] is subtracted from each frame; `scale` (frame, channel) is 1 where not given;
    samples at or above `saturation` as read [ADU] do not count.
    """
    count, channels = len(frames), frames.channels
    if not count:
        raise WorkbenchError("no frame could be read, so there is nothing to combine")
    model = np.broadcast_to(np.asarray(model, np.float64), (channels, 2))
    black = np.full(channels, black, np.float64)  # not a view for reading only, for which numba compiles again
    plain = scale is None and pedestal is None and not np.isfinite(saturation)
    scale = np.ones((count, channels)) if scale is None else np.asarray(scale, np.float64)
    limits = np.array([np.inf, *(chdtri(n, UNSTABLE_CHANCE) / n for n in range(1, max(count, 2)))])

    def empty(rows: int) -> tuple[np.ndarray, ...]:
        kinds = np.float32, np.float32, np.uint8 if count < 256 else np.uint16, bool
        return tuple(np.zeros((rows, frames.width), kind) for kind in kinds)

    def combine(
        rows: slice | np.ndarray, samples: np.ndarray, setup: _Setup, maps: Iterable[np.ndarray]
    ) -> tuple[np.ndarray, ...]:
        """Combine some rows, of whole cells, into the maps; returns chi-square, degrees of freedom, rejections."""
        sums = np.zeros(channels), np.zeros(channels), np.zeros(count, np.int64)
        below = np.zeros((1, 1)) if pedestal is None else pedestal[rows]
        _combine_rows(_Band(samples, np.ascontiguousarray(below, np.float32)), setup, _Output._make((*maps, *sums)))
        return sums

    # First the scatter in some rows in units of the model, so that the variance is the measured one.
    setup = _set_up(frames, model, black, scale, _SURE * limits, saturation, plain)
    numbers, looked = frames.sampled_rows()
    chi, degrees, _ = combine(numbers, looked, setup, empty(numbers.size))
    found = chi / np.maximum(degrees, 1)
    found = np.where((degrees > _FEWEST) & (found > 0), found, 1.0)
    law = model * found[:, None]
    setup, out = _set_up(frames, law, black, scale, limits, saturation, plain), empty(frames.height)
    sums: dict[int, tuple[np.ndarray, ...]] = {}

    def work(top: int, bottom: int) -> None:
        rows = slice(top, bottom)
        sums[top] = combine(rows, frames.read(top, bottom), setup, (values[rows] for values in out))

    frames.each_band(work, "combining", progress)
    in_order = (sums[top] for top in sorted(sums))  # whatever the threads did first
    chi, degrees, rejected = (np.sum(parts, axis=0) for parts in zip(*in_order, strict=True))
    ratio = found * chi / np.where(degrees > 0, degrees, np.nan)
    mean, variance, samples, unstable = out
    return Combined(mean, variance, samples, unstable, ratio, np.asarray(rejected / mean.size), law)


class _Setup(NamedTuple):
    """What holds for every band.

    `cell` is the mosaic's `channel_index`, `scale` (frame, channel) 1/weight.  By channel: the noise law of one frame's
    sample, `quiet` [ADU²] + `slope` [ADU] · max(x - `black` [ADU], 0); of the mean's variance `quiet_share` of the
    first and `slope_share` of the second term; the `least` scale of a frame, and the `heaviest` frame's share of the
    weights.  `row_...`: law and scales along a row (period, x) and (period, frame, x), float32, for the vector
    registers.  Samples from `saturation` [ADU as read] on are left out; a pixel is unstable beyond the reduced
    chi-square `limits` (degrees of freedom).  `plain`: all scales are 1, with neither pedestal nor saturation.
    """

    cell: np.ndarray
    scale: np.ndarray
    quiet: np.ndarray
    slope: np.ndarray
    black: np.ndarray
    quiet_share: np.ndarray
    slope_share: np.ndarray
    least: np.ndarray
    heaviest: np.ndarray
    row_quiet: np.ndarray
    row_slope: np.ndarray
    row_black: np.ndarray
    row_per_weight: np.ndarray
    row_scale: np.ndarray
    saturation: float
    limits: np.ndarray
    plain: bool


def _set_up(
    frames: Frames,
    model: np.ndarray,
    black: np.ndarray,
    scale: np.ndarray,
    limits: np.ndarray,
    white: float,
    plain: bool,
) -> _Setup:
    weight = 1.0 / scale
    whole = weight.sum(axis=0)
    law = (*np.ascontiguousarray(model.T), black)
    shares = len(frames) / whole**2, whole / whole**2, scale.min(axis=0), weight.max(axis=0) / whole
    phase = frames.cell[:, np.arange(frames.width) % frames.cell.shape[1]]
    spread = np.ones((1, 1, 1), np.float32) if plain else scale.astype(np.float32).T[phase].transpose(0, 2, 1)
    along = *(values.astype(np.float32)[phase] for values in (*law, 1.0 / whole)), spread
    rest = *map(np.ascontiguousarray, along), float(white), limits, plain
    return _Setup._make((frames.cell, scale, *law, *shares, *rest))


class _Band(NamedTuple):
    """Rows of all frames (frame, y, x), whole cells of the mosaic, and their pedestal (y, x) or (1, 1)."""

    samples: np.ndarray
    pedestal: np.ndarray


class _Output(NamedTuple):
    """Maps (y, x) to be filled in; sums to be added to, over pixels (channel), and of samples thrown out (frame)."""

    mean: np.ndarray
    variance: np.ndarray
    count: np.ndarray  # type: ignore[assignment]  # in the place of a tuple's own count, which nobody calls
    unstable: np.ndarray
    chi: np.ndarray
    degrees: np.ndarray
    rejected: np.ndarray


class _Samples(NamedTuple):
    """The valid samples of one pixel (frame,): value, scale, frame they come from, whether they are kept."""

    value: np.ndarray
    scale: np.ndarray
    frame: np.ndarray
    kept: np.ndarray


@kernel()
def _sort(values):
    """Sort a short array in place, by insertion: compiles ten times as fast as numpy's."""
    for k in range(1, values.size):
        value = values[k]
        place = k
        while place > 0 and values[place - 1] > value:
            values[place] = values[place - 1]
            place -= 1
        values[place] = value


@kernel(error_model="numpy")
def _combine_rows(band, setup, out):
    """Combine a `_Band` row by row into `_Output`."""
    count, rows, width = band.samples.shape
    one = _Samples(np.empty(count), np.empty(count), np.empty(count, np.int64), np.zeros(count, np.bool_))
    values = np.empty((1 if setup.plain else count, width), np.float32)
    for i in range(rows):
        row = _sum_plain_row(band.samples, i) if setup.plain else _sum_scaled_row(band, i, setup, values)
        _settle_row(band, i, setup, row, one, out)


@kernel(error_model="numpy")
def _sum_plain_row(samples, i):
    """Return mean, lowest and highest sample above it [ADU], scatter [ADU²] of row i of all frames (frame, y, x)."""
    count, _, width = samples.shape
    first = samples[0, i].astype(np.float32)
    total, low, high = np.zeros(width, np.float32), np.zeros(width, np.float32), np.zeros(width, np.float32)
    for n in range(1, count):
        _add(samples[n, i], first, total, low, high)
    mean, spread = (total / count).astype(np.float32), np.zeros(width, np.float32)
    for n in range(count):
        _add_square(samples[n, i], first, mean, spread)
    return mean + first, low - mean, high - mean, spread


@kernel(error_model="numpy")
def _sum_scaled_row(band, i, setup, values):
    """The same of weighted samples, pedestal and scales applied, the scatter in units of the model's."""
    count, _, width = band.samples.shape
    phase = i % setup.cell.shape[0]
    limit, quiet, scale = np.float32(setup.saturation), setup.row_quiet[phase], setup.row_scale[phase]
    pedestal = band.pedestal[i] if band.pedestal.shape[0] > 1 else np.zeros(width, np.float32)
    total, spread = np.zeros(width, np.float32), np.zeros(width, np.float32)
    low, high = np.full(width, np.inf, np.float32), np.full(width, -np.inf, np.float32)
    for n in range(count):
        _add_scaled(band.samples[n, i], pedestal, scale[n], limit, values[n], total, low, high)
    mean = total * setup.row_per_weight[phase]
    shot = np.maximum(mean - setup.row_black[phase], np.float32(0)) * setup.row_slope[phase]
    for n in range(count):
        _add_ratio(values[n], mean, shot, quiet, scale[n], spread)
    return mean, low - mean, high - mean, spread


@kernel(error_model="numpy")
def _settle_row(band, i, setup, row, one, out):
    """Take the straight mean of the pixels whose samples all lie within the clip, and look at the others one by one."""
    count, _, width = band.samples.shape
    cell = setup.cell[i % setup.cell.shape[0]]
    mean, low, high, spread = row
    for j in range(width):
        c = cell[j % cell.size]
        a, b = setup.quiet[c], setup.slope[c]
        light = max(mean[j] - setup.black[c], 0.0)
        if setup.plain:
            spread[j] /= a + b * light
        least = setup.least[c]
        reach = CLIP * np.sqrt(least * (least * a + b * light) * max(1.0 - setup.heaviest[c], 1e-6))
        if high[j] <= reach and -low[j] <= reach and count > 1:
            out.mean[i, j] = mean[j]
            out.variance[i, j] = setup.quiet_share[c] * a + setup.slope_share[c] * b * light
            n, chi = count, np.float64(spread[j])
        else:
            m = _gather(band, i, j, setup.scale[:, c], setup.saturation, one, out.rejected)
            n, centre, noise, chi = _reject(one, m, setup, c)
            for k in range(m):
                if not one.kept[k]:
                    out.rejected[one.frame[k]] += 1
            out.mean[i, j], out.variance[i, j] = centre, noise
        out.count[i, j] = n
        if n > 1:
            excess = chi / (n - 1)
            if excess > setup.limits[n - 1]:
                out.variance[i, j] *= excess
                out.unstable[i, j] = True
            else:
                out.chi[c] += chi
                out.degrees[c] += n - 1


@kernel(error_model="numpy")
def _add(row, first, total, low, high):
    for j in range(row.size):
        v = np.float32(row[j]) - first[j]
        total[j] += v
        low[j] = min(low[j], v)
        high[j] = max(high[j], v)


@kernel(error_model="numpy")
def _add_square(row, first, centre, spread):
    for j in range(row.size):
        d = np.float32(row[j]) - first[j] - centre[j]
        spread[j] += d * d


@kernel(error_model="numpy")
def _add_scaled(row, ground, scale, limit, value, total, low, high):
    """Set value = (y - pedestal) · scale, NaN where saturated; the total is that of value/scale."""
    for j in range(row.size):
        y = np.float32(row[j])
        above = y - ground[j] if y < limit else np.float32(np.nan)
        v = above * scale[j]
        value[j] = v
        total[j] += above
        low[j] = min(low[j], v)
        high[j] = max(high[j], v)


@kernel(error_model="numpy")
def _add_ratio(value, centre, shot, quiet, scale, spread):
    for j in range(value.size):
        d = value[j] - centre[j]
        spread[j] += d * d / (scale[j] * (scale[j] * quiet[j] + shot[j]))


@kernel(error_model="numpy")
def _gather(band, i, j, scale, saturation, one, rejected):
    """Collect the valid samples of a pixel into `one`, `scale` (frame,) applied; returns how many there are."""
    m = 0
    pedestal = band.pedestal[i, j] if band.pedestal.shape[0] > 1 else np.float32(0.0)
    for n in range(band.samples.shape[0]):
        y = float(band.samples[n, i, j])
        if not np.isfinite(y) or y >= saturation:
            rejected[n] += 1
            continue
        one.value[m], one.scale[m], one.frame[m] = (y - pedestal) * scale[n], scale[n], n
        m += 1
    return m


@kernel(error_model="numpy")
def _reject(one, m, setup, c):
    """Reject samples among the m of a pixel: how many stay, their mean, its variance, and their chi-square."""
    if m == 0:
        return 0, np.nan, np.nan, 0.0
    a, b, black = setup.quiet[c], setup.slope[c], setup.black[c]
    lowest, centre, own = _median(one.value[:m])
    if _clip_samples(one, m, setup, c, centre, own) == 0:  # two that disagree, or a pixel that jumps between two levels
        one.kept[:m] = (m > 2) | (one.value[:m] == lowest)
    n_kept, weight, centre = _mean_of_kept(one, m)
    light = max(centre - black, 0.0)
    noise, chi = 0.0, 0.0
    for k in range(m):
        if one.kept[k]:
            s = one.scale[k]
            sigma2 = s * (s * a + b * light)
            noise += sigma2 / s**2
            chi += (one.value[k] - centre) ** 2 / sigma2
    return n_kept, centre, noise / weight**2, chi


@kernel(error_model="numpy")
def _median(values):
    """Return lowest, median and, of eight values or more, (1.4826 MAD)², else 0."""
    m = values.size
    order = values.copy()
    _sort(order)
    lowest, centre = order[0], 0.5 * (order[(m - 1) // 2] + order[m // 2])
    if m < 8:
        return lowest, centre, 0.0
    for k in range(m):
        order[k] = abs(values[k] - centre)
    _sort(order)
    return lowest, centre, (MAD_TO_SIGMA * 0.5 * (order[(m - 1) // 2] + order[m // 2])) ** 2


@kernel(error_model="numpy")
def _clip_samples(one, m, setup, c, centre, own):
    """Keep what lies within the clip, variance at least `own` [ADU²], of `centre`, then of the mean of those kept."""
    a, b, black = setup.quiet[c], setup.slope[c], setup.black[c]
    n_kept = m
    for step in range(4):
        light, changed = max(centre - black, 0.0), False
        for k in range(m):
            s = one.scale[k]
            sigma2 = max(s * (s * a + b * light), own)
            inside = (one.value[k] - centre) ** 2 <= CLIP**2 * sigma2
            changed |= step == 0 or inside != one.kept[k]
            one.kept[k] = inside
        n_kept, _, centre = _mean_of_kept(one, m)
        if n_kept == 0 or not changed:
            break
    return n_kept


@kernel(error_model="numpy")
def _mean_of_kept(one, m):
    """Return how many of m samples are kept, their weight Σ 1/s, and their weighted mean."""
    n_kept, weight, total = 0, 0.0, 0.0
    for k in range(m):
        if one.kept[k]:
            n_kept += 1
            weight += 1.0 / one.scale[k]
            total += one.value[k] / one.scale[k]
    return n_kept, weight, total / weight
