"""Combine many frames into one, out of core: decoded once, then bands of rows, all frames deep.

The mean of the samples that agree within the noise model is taken.  A pixel whose samples all lie within
the clip needs no sorting, its mean is exact and unbiased; only the few others are looked at one by one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.stats import chi2

from ..core.bands import Frames
from ..core.errors import WorkbenchError

CLIP = 4.5  # [σ of the model]; of 16 M pixels x 16 frames without events 2,000 samples lie beyond: 1e-5 of them
UNSTABLE_CHANCE = 1e-7  # a pixel's own scatter takes the model's place when chance would do it this rarely


@dataclass(frozen=True, eq=False)
class Combined:
    """What `combine` gives: mean, its variance and the count of samples, (y, x); and how well the model holds.

    `chi2` (channel): the samples' scatter over the model's, 1 where it holds; `rejected` (frame): fraction of
    each frame's samples that were thrown out; `unstable`: boolean (y, x), the pixels that flicker; `law`
    (channel, 2): the model as scaled to the scatter.
    """

    mean: np.ndarray
    variance: np.ndarray
    count: np.ndarray
    unstable: np.ndarray
    chi2: np.ndarray
    rejected: np.ndarray
    law: np.ndarray


def combine(
    frames: Frames,
    model: np.ndarray,
    *,
    black: np.ndarray | float = 0.0,
    pedestal: np.ndarray | None = None,
    scale: np.ndarray | None = None,
    saturation: float = np.inf,
    clip: float = CLIP,
    progress: bool = True,
) -> Combined:
    """Return the mean over frames of (y - pedestal) · scale, samples beyond the noise model left out.

    A sample's variance is s² a + s b max(x - black, 0), with the model (a [ADU²], b [ADU]) of its channel and the
    scale s of its frame.  Weights are 1/s: the optimum where shot noise rules, so that the mean is Σ(y - P)/Σ(1/s).
    The first centre is the median, then the mean of the samples kept.  From eight samples on the clip is the
    larger of the model's and that of the samples' own 1.4826 MAD; of two samples that do not agree the lower is
    kept, because what strikes a pixel only ever adds to it.

    The model is first scaled, channel by channel, to the scatter that the frames have in some rows, so that the
    variance is the measured one.  Where a pixel's samples scatter more than chance gives once in 10⁷, its
    variance is that of its samples: it is unstable.

    Parameters
    ----------
    model
        (channel, 2): a, the variance without light [ADU²], and b, the variance a unit of signal, 1/gain [ADU].
    black
        Level [ADU] of no signal after the pedestal is taken off, one or one a channel.
    pedestal
        What is subtracted from each frame, (y, x) [ADU].
    scale
        (frame, channel); 1 where not given.
    saturation
        Samples at or above this value as read [ADU] do not count.
    """
    count, cell = len(frames), frames.cell
    if not count:
        raise WorkbenchError("no frame could be read, so there is nothing to combine")
    channels = cell.size
    model = np.ascontiguousarray(np.broadcast_to(np.asarray(model, np.float64), (channels, 2)))
    black = np.ascontiguousarray(np.broadcast_to(np.asarray(black, np.float64), (channels,)))
    plain = scale is None and pedestal is None and not np.isfinite(saturation)
    scale = np.ones((count, channels)) if scale is None else np.asarray(scale, np.float64)
    shape = (frames.height, frames.width)
    mean, variance = np.empty(shape, np.float32), np.empty(shape, np.float32)
    samples = np.empty(shape, np.uint8 if count < 256 else np.uint16)
    unstable = np.zeros(shape, bool)
    limits = np.array([np.inf, *(chi2.isf(UNSTABLE_CHANCE, n) / n for n in range(1, max(count, 2)))])
    nothing = np.zeros((1, 1), np.float32)

    def one_band(top: int, bottom: int, out: tuple[np.ndarray, ...], law: np.ndarray, limits: np.ndarray):
        scatter, rejected = np.zeros((channels, 2)), np.zeros(count, np.int64)
        below = nothing if pedestal is None else np.ascontiguousarray(pedestal[top:bottom], np.float32)
        _combine_band(
            frames.read(top, bottom), top, cell, plain, below, scale, law, black, saturation, clip, limits,
            *out, scatter, rejected,
        )  # fmt: skip
        return scatter, rejected

    # First a look at some rows: how much the frames scatter in units of the model, so that the variance is theirs.
    spare = tuple(np.empty((2, frames.width), array.dtype) for array in (mean, variance, samples, unstable))
    looked = sum(
        one_band(*band, tuple(row[: band[1] - band[0]] for row in spare), model, 3 * limits)[0]
        for band in frames.sampled()
    )
    found = looked[:, 0] / np.maximum(looked[:, 1], 1)
    found = np.where((looked[:, 1] > 30) & (found > 0), found, 1.0)
    law = model * found[:, None]
    totals: list[tuple[np.ndarray, np.ndarray]] = []

    def work(top: int, bottom: int) -> None:
        rows = slice(top, bottom)
        totals.append(one_band(top, bottom, (mean[rows], variance[rows], samples[rows], unstable[rows]), law, limits))

    frames.each_band(work, "combining", progress)
    scatter = sum(part for part, _ in totals)
    rejected = sum(part for _, part in totals)
    ratio = found * scatter[:, 0] / np.where(scatter[:, 1] > 0, scatter[:, 1], np.nan)
    return Combined(mean, variance, samples, unstable, ratio, rejected / mean.size, law)


@njit(nogil=True, cache=True, error_model="numpy")
def calm_levels(values, cell, model, black, count, out):
    """Average each pixel with those of its eight nearest of the same plane that agree with it within 3 σ.

    A variance that follows the sample's own noise is low just where the sample is: (sample - truth)²/variance would
    average above one.  Around stars, hot pixels and edges the neighbours disagree and the pixel stands for itself.
    `values` are means of `count` samples of the noise law `model` above `black`.
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
def sort(values):
    """Sort a short array in place, by insertion: compiles ten times as fast as numpy's."""
    for k in range(1, values.size):
        value = values[k]
        place = k
        while place > 0 and values[place - 1] > value:
            values[place] = values[place - 1]
            place -= 1
        values[place] = value


@njit(nogil=True, cache=True, error_model="numpy")
def _combine_band(
    band, top, cell, plain, below, scale, model, black, saturation, clip, limits,
    mean, variance, samples, unstable, scatter, rejected,
):  # fmt: skip
    count, rows, width = band.shape
    period = cell.shape[0]
    total, low, high = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    spread, first, shot = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    values = np.empty((1 if plain else count, width), np.float32)
    weights = 1.0 / scale
    shares = np.zeros((cell.size, 2))  # of a and b in the variance of the mean
    least = np.empty(cell.size)
    heaviest = np.empty(cell.size)
    for c in range(cell.size):
        whole = weights[:, c].sum()
        shares[c, 0] = count / whole**2
        shares[c, 1] = weights[:, c].sum() / whole**2
        least[c], heaviest[c] = scale[:, c].min(), weights[:, c].max() / whole
    # numbers a channel, spread along the rows, so that the arithmetic runs in vector registers
    scales = np.empty((period, 1 if plain else count, width), np.float32)
    laws = np.empty((period, 4, width), np.float32)
    for k in range(period):
        for j in range(width):
            c = cell[k, j % cell.shape[1]]
            laws[k, 0, j], laws[k, 1, j], laws[k, 2, j] = model[c, 0], model[c, 1], black[c]
            laws[k, 3, j] = 1.0 / weights[:, c].sum()
            if not plain:
                for n in range(count):
                    scales[k, n, j] = scale[n, c]
    x, s, kept = np.empty(count), np.empty(count), np.zeros(count, np.bool_)
    limit = np.float32(saturation)
    ground = np.zeros(width, np.float32)
    for i in range(rows):
        row_cell = cell[(top + i) % period]
        law = laws[(top + i) % period]
        # the straight mean, the extremes and the scatter of every pixel of the row
        if plain:
            for j in range(width):
                first[j] = band[0, i, j]
                total[j] = 0
                low[j] = 0
                high[j] = 0
                spread[j] = 0
            for n in range(1, count):
                _add(band[n, i], first, total, low, high)
            for j in range(width):
                total[j] /= count
            for n in range(count):
                _add_square(band[n, i], first, total, spread)
            for j in range(width):
                low[j] -= total[j]
                high[j] -= total[j]
                total[j] += first[j]
        else:
            if below.shape[0] > 1:
                ground[:] = below[i]
            for j in range(width):
                total[j] = 0
                low[j] = np.inf
                high[j] = -np.inf
                spread[j] = 0
            for n in range(count):
                _add_scaled(band[n, i], ground, scales[(top + i) % period, n], limit, values[n], total, low, high)
            for j in range(width):
                total[j] *= law[3, j]
                low[j] -= total[j]
                high[j] -= total[j]
                shot[j] = max(total[j] - law[2, j], np.float32(0)) * law[1, j]
            for n in range(count):
                _add_ratio(values[n], total, shot, law[0], scales[(top + i) % period, n], spread)
        for j in range(width):
            c = row_cell[j % row_cell.size]
            a, b = model[c, 0], model[c, 1]
            light = max(total[j] - black[c], 0.0)
            if plain:
                spread[j] /= a + b * light
            reach = clip * np.sqrt(least[c] * (least[c] * a + b * light) * max(1.0 - heaviest[c], 1e-6))
            if high[j] <= reach and -low[j] <= reach and count > 1:
                mean[i, j] = total[j]
                variance[i, j] = shares[c, 0] * a + shares[c, 1] * b * light
                samples[i, j] = count
                chi = spread[j]
                n = count
            else:
                n, centre, noise, chi = _look_closely(
                    band, i, j, below, scale[:, c], saturation, a, b, black[c], clip, x, s, kept, rejected
                )
                mean[i, j], variance[i, j], samples[i, j] = centre, noise, n
            if n > 1:
                excess = chi / (n - 1)
                if excess > limits[n - 1]:
                    variance[i, j] *= excess
                    unstable[i, j] = True
                else:
                    scatter[c, 0] += chi
                    scatter[c, 1] += n - 1


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
def _look_closely(band, i, j, below, scale, saturation, a, b, black, clip, x, s, kept, rejected):
    """Reject samples of one pixel; returns how many stay, their mean, its variance, and their chi-square."""
    m = 0
    for n in range(band.shape[0]):
        y = float(band[n, i, j])
        if not np.isfinite(y) or y >= saturation:
            rejected[n] += 1
            continue
        ground = below[i, j] if below.shape[0] > 1 else 0.0
        x[m] = (y - ground) * scale[n]
        s[m] = scale[n]
        m += 1
    if m == 0:
        return 0, np.nan, np.nan, 0.0
    order = x[:m].copy()
    sort(order)
    lowest = order[0]
    centre = 0.5 * (order[(m - 1) // 2] + order[m // 2])
    own = 0.0
    if m >= 8:
        for k in range(m):
            order[k] = abs(x[k] - centre)
        sort(order)
        own = (1.4826 * 0.5 * (order[(m - 1) // 2] + order[m // 2])) ** 2
    n_kept = m
    for step in range(4):
        light = max(centre - black, 0.0)
        n_kept, weight, total, changed = 0, 0.0, 0.0, False
        for k in range(m):
            sigma2 = max(s[k] * (s[k] * a + b * light), own)
            inside = (x[k] - centre) ** 2 <= clip * clip * sigma2
            changed |= step == 0 or inside != kept[k]
            kept[k] = inside
            if inside:
                n_kept += 1
                weight += 1.0 / s[k]
                total += x[k] / s[k]
        if n_kept == 0:
            break
        centre = total / weight
        if not changed:
            break
    if n_kept == 0:  # two that disagree, or two levels between which the pixel jumps
        for k in range(m):
            kept[k] = m > 2 or x[k] == lowest
    n_kept, weight, total, noise, chi = 0, 0.0, 0.0, 0.0, 0.0
    for k in range(m):
        if kept[k]:
            n_kept += 1
            weight += 1.0 / s[k]
            total += x[k] / s[k]
    centre = total / weight
    light = max(centre - black, 0.0)
    for k in range(m):
        sigma2 = s[k] * (s[k] * a + b * light)
        if kept[k]:
            noise += sigma2 / s[k] ** 2
            chi += (x[k] - centre) ** 2 / sigma2
    if n_kept < m:
        lost = m - n_kept
        k = 0
        for n in range(band.shape[0]):
            y = float(band[n, i, j])
            if not np.isfinite(y) or y >= saturation:
                continue
            if not kept[k]:
                rejected[n] += 1
                lost -= 1
            k += 1
    return n_kept, centre, noise / weight**2, chi
