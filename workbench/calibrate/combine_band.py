"""The compiled part of combining frames: one band of rows, all frames deep, in one call.

`combine_rows` runs row by row: the straight mean, the extremes and the scatter of every pixel (`_sum_plain_row`,
`_sum_scaled_row`); then the pixels whose samples all lie within the clip are done, and of the few others samples are
rejected (`_settle_row`, `_reject`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from ..core.statistics import MAD_TO_SIGMA


class Channels(NamedTuple):
    """What holds for each channel (channel,).

    Noise law of one frame's sample: `quiet` [ADU²] + `slope` [ADU] · max(x - `black` [ADU], 0).  Of the mean's variance
    `quiet_share` of the first and `slope_share` of the second term; the `least` scale of a frame, and the `heaviest`
    frame's share of the weights.
    """

    quiet: np.ndarray
    slope: np.ndarray
    black: np.ndarray
    quiet_share: np.ndarray
    slope_share: np.ndarray
    least: np.ndarray
    heaviest: np.ndarray


class Rows(NamedTuple):
    """Law and scales spread along a row (period, x) and (period, frame, x), float32, for the vector registers."""

    quiet: np.ndarray
    slope: np.ndarray
    black: np.ndarray
    per_weight: np.ndarray
    scale: np.ndarray


class Rule(NamedTuple):
    """What is left out: samples from `saturation` [ADU as read] on, or beyond `clip` [σ].

    `limits` (degrees of freedom): the reduced chi-square beyond which a pixel is unstable.  `plain`: all scales are 1,
    and there is neither pedestal nor saturation.
    """

    saturation: float
    clip: float
    limits: np.ndarray
    plain: bool


class Setup(NamedTuple):
    """All that holds for every band: the mosaic's `channel_index`, the scale of each frame and channel (1/weight)."""

    cell: np.ndarray
    scale: np.ndarray
    channels: Channels
    rows: Rows
    rule: Rule


class RowsOfFrames(NamedTuple):
    """Rows of all frames (frame, y, x) from row `top` of the mosaic on, and their pedestal (y, x) or (1, 1)."""

    samples: np.ndarray
    pedestal: np.ndarray
    top: int


class Output(NamedTuple):
    """Mean, variance, count of samples and unstable pixels (y, x), to be filled in."""

    mean: np.ndarray
    variance: np.ndarray
    count: np.ndarray  # type: ignore[assignment]  # in the place of a tuple's own count, which nobody calls
    unstable: np.ndarray


class Tally(NamedTuple):
    """Sums over pixels: chi-square and its degrees of freedom (channel), samples thrown out (frame)."""

    chi: np.ndarray
    degrees: np.ndarray
    rejected: np.ndarray


class _Row(NamedTuple):
    """Of each pixel of a row (x,) float32: mean [ADU], lowest and highest sample above it [ADU], and scatter."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    spread: np.ndarray


class _Samples(NamedTuple):
    """The valid samples of one pixel (frame,): value, scale, frame they come from, whether they are kept."""

    value: np.ndarray
    scale: np.ndarray
    frame: np.ndarray
    kept: np.ndarray


@njit(nogil=True, cache=True, error_model="numpy")
def calm_levels(
    values: np.ndarray, cell: np.ndarray, model: np.ndarray, black: np.ndarray, count: float, out: np.ndarray
) -> None:
    """Average each pixel with those of its eight nearest of the same plane that agree with it within 3 σ.

    A variance that follows the sample's own noise is low just where the sample is: (sample - truth)²/variance would
    average above one.  Around stars, hot pixels and edges the neighbours disagree and the pixel stands for itself.
    `values` (y, x) [ADU] are means of `count` samples with the noise `model` (channel, 2: a [ADU²], b [ADU]) above
    `black` (channel) [ADU]; `cell` is the mosaic's `channel_index`; the levels are written into `out` (y, x).
    """
    rows, columns = values.shape
    period_y, period_x = cell.shape
    for i in range(rows):
        for j in range(columns):
            c = cell[i % period_y, j % period_x]
            own = np.float64(values[i, j])
            limit = 18.0 * (model[c, 0] + model[c, 1] * max(own - black[c], 0.0)) / count
            total, number = own, 1
            for m in range(-period_y, period_y + 1, period_y):
                for n in range(-period_x, period_x + 1, period_x):
                    if (m == 0 and n == 0) or not (0 <= i + m < rows and 0 <= j + n < columns):
                        continue
                    other = np.float64(values[i + m, j + n])
                    if (other - own) ** 2 <= limit:
                        total += other
                        number += 1
            out[i, j] = total / number


@njit(nogil=True, cache=True)
def sort(values: np.ndarray) -> None:
    """Sort a short array in place, by insertion: compiles ten times as fast as numpy's."""
    for k in range(1, values.size):
        value = values[k]
        place = k
        while place > 0 and values[place - 1] > value:
            values[place] = values[place - 1]
            place -= 1
        values[place] = value


@njit(nogil=True, cache=True, error_model="numpy")
def combine_rows(band: RowsOfFrames, setup: Setup, out: Output, tally: Tally) -> None:
    """Combine a `RowsOfFrames` row by row into `out`; `tally` is added to."""
    count, rows, width = band.samples.shape
    one = _Samples(np.empty(count), np.empty(count), np.empty(count, np.int64), np.zeros(count, np.bool_))
    values = np.empty((1 if setup.rule.plain else count, width), np.float32)
    for i in range(rows):
        row = _sum_plain_row(band.samples, i) if setup.rule.plain else _sum_scaled_row(band, i, setup, values)
        _settle_row(band, i, setup, row, one, out, tally)


@njit(nogil=True, cache=True, error_model="numpy")
def _sum_plain_row(samples, i):
    """Return the `_Row` of straight means of row i of all frames (frame, y, x), its scatter in ADU²."""
    count, _, width = samples.shape
    total, low, high = np.zeros(width, np.float32), np.zeros(width, np.float32), np.zeros(width, np.float32)
    spread, first = np.zeros(width, np.float32), np.empty(width, np.float32)
    for j in range(width):
        first[j] = samples[0, i, j]
    for n in range(1, count):
        _add(samples[n, i], first, total, low, high)
    for j in range(width):
        total[j] /= count
    for n in range(count):
        _add_square(samples[n, i], first, total, spread)
    for j in range(width):
        low[j] -= total[j]
        high[j] -= total[j]
        total[j] += first[j]
    return _Row(total, low, high, spread)


@njit(nogil=True, cache=True, error_model="numpy")
def _sum_scaled_row(band, i, setup, values):
    """Return the `_Row` of weighted means, pedestal and scales applied, its scatter in units of the model's."""
    count, _, width = band.samples.shape
    phase = (band.top + i) % setup.cell.shape[0]
    limit = np.float32(setup.rule.saturation)
    total, low, high = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    spread, shot, pedestal = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    along, scale = setup.rows, setup.rows.scale
    for j in range(width):
        total[j] = 0
        low[j] = np.inf
        high[j] = -np.inf
        spread[j] = 0
        pedestal[j] = band.pedestal[i, j] if band.pedestal.shape[0] > 1 else np.float32(0)
    for n in range(count):
        _add_scaled(band.samples[n, i], pedestal, scale[phase, n], limit, values[n], total, low, high)
    for j in range(width):
        total[j] *= along.per_weight[phase, j]
        low[j] -= total[j]
        high[j] -= total[j]
        shot[j] = max(total[j] - along.black[phase, j], np.float32(0)) * along.slope[phase, j]
    for n in range(count):
        _add_ratio(values[n], total, shot, along.quiet[phase], scale[phase, n], spread)
    return _Row(total, low, high, spread)


@njit(nogil=True, cache=True, error_model="numpy")
def _settle_row(band, i, setup, row, one, out, tally):
    """Take the straight mean of the pixels whose samples all lie within the clip, and look at the others one by one."""
    count, _, width = band.samples.shape
    law, rule = setup.channels, setup.rule
    cell = setup.cell[(band.top + i) % setup.cell.shape[0]]
    mean, low, high, spread = row
    for j in range(width):
        c = cell[j % cell.size]
        a, b = law.quiet[c], law.slope[c]
        light = max(mean[j] - law.black[c], 0.0)
        if rule.plain:
            spread[j] /= a + b * light
        least = law.least[c]
        reach = rule.clip * np.sqrt(least * (least * a + b * light) * max(1.0 - law.heaviest[c], 1e-6))
        if high[j] <= reach and -low[j] <= reach and count > 1:
            out.mean[i, j] = mean[j]
            out.variance[i, j] = law.quiet_share[c] * a + law.slope_share[c] * b * light
            n, chi = count, np.float64(spread[j])
        else:
            m = _gather(band, i, j, setup.scale[:, c], rule.saturation, one, tally.rejected)
            n, centre, noise, chi = _reject(one, m, law, c, rule.clip)
            _count_rejected(one, m, tally.rejected)
            out.mean[i, j], out.variance[i, j] = centre, noise
        out.count[i, j] = n
        if n > 1:
            excess = chi / (n - 1)
            if excess > rule.limits[n - 1]:
                out.variance[i, j] *= excess
                out.unstable[i, j] = True
            else:
                tally.chi[c] += chi
                tally.degrees[c] += n - 1


@njit(nogil=True, cache=True, error_model="numpy")
def _add(row, first, total, low, high):
    for j in range(row.size):
        v = np.float32(row[j]) - first[j]
        total[j] += v
        low[j] = min(low[j], v)
        high[j] = max(high[j], v)


@njit(nogil=True, cache=True, error_model="numpy")
def _add_square(row, first, centre, spread):
    for j in range(row.size):
        d = np.float32(row[j]) - first[j] - centre[j]
        spread[j] += d * d


@njit(nogil=True, cache=True, error_model="numpy")
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


@njit(nogil=True, cache=True, error_model="numpy")
def _add_ratio(value, centre, shot, quiet, scale, spread):
    for j in range(value.size):
        d = value[j] - centre[j]
        spread[j] += d * d / (scale[j] * (scale[j] * quiet[j] + shot[j]))


@njit(nogil=True, cache=True, error_model="numpy")
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


@njit(nogil=True, cache=True, error_model="numpy")
def _count_rejected(one, m, rejected):
    for k in range(m):
        if not one.kept[k]:
            rejected[one.frame[k]] += 1


@njit(nogil=True, cache=True, error_model="numpy")
def _reject(one, m, law, c, clip):
    """Reject samples among the m of a pixel: how many stay, their mean, its variance, and their chi-square."""
    if m == 0:
        return 0, np.nan, np.nan, 0.0
    a, b, black = law.quiet[c], law.slope[c], law.black[c]
    lowest, centre, own = _median(one.value[:m])
    if _clip_samples(one, m, (a, b, black), clip * clip, centre, own) == 0:
        for k in range(m):  # two that disagree, or two levels between which the pixel jumps
            one.kept[k] = m > 2 or one.value[k] == lowest
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


@njit(nogil=True, cache=True, error_model="numpy")
def _median(values):
    """Return lowest, median and, of eight values or more, (1.4826 MAD)², else 0."""
    m = values.size
    order = values.copy()
    sort(order)
    lowest = order[0]
    centre = 0.5 * (order[(m - 1) // 2] + order[m // 2])
    if m < 8:
        return lowest, centre, 0.0
    for k in range(m):
        order[k] = abs(values[k] - centre)
    sort(order)
    return lowest, centre, (MAD_TO_SIGMA * 0.5 * (order[(m - 1) // 2] + order[m // 2])) ** 2


@njit(nogil=True, cache=True, error_model="numpy")
def _clip_samples(one, m, law, clip2, centre, own):
    """Keep what lies within the clip of the mean of what is kept, four times at most; returns how many are kept.

    A sample's variance is that of the law (quiet, slope, black), at least `own` [ADU²]; `clip2` [σ²]; the first mean is
    `centre` [ADU].
    """
    a, b, black = law
    n_kept = m
    for step in range(4):
        light = max(centre - black, 0.0)
        changed = False
        for k in range(m):
            s = one.scale[k]
            sigma2 = max(s * (s * a + b * light), own)
            inside = (one.value[k] - centre) ** 2 <= clip2 * sigma2
            changed |= step == 0 or inside != one.kept[k]
            one.kept[k] = inside
        n_kept, _, centre = _mean_of_kept(one, m)
        if n_kept == 0 or not changed:
            break
    return n_kept


@njit(nogil=True, cache=True, error_model="numpy")
def _mean_of_kept(one, m):
    """Return how many of the m samples are kept, their weight Σ 1/s, and their weighted mean."""
    n_kept, weight, total = 0, 0.0, 0.0
    for k in range(m):
        if one.kept[k]:
            n_kept += 1
            weight += 1.0 / one.scale[k]
            total += one.value[k] / one.scale[k]
    return n_kept, weight, total / weight
