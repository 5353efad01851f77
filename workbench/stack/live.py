"""A stack that grows light by light, in memory that does not: sums over the samples, and each pixel's two extremes.

The highest and the lowest sample of a pixel wait outside the sums, so that a trail or a cosmic ray never gets into
them, in whichever light it comes.  A sample that another displaces is tested against the mean of the rest, and so are
the two extremes whenever the mean is asked for.

Lights count by one over the variance of their background, w.  Then w times a sample's variance v is the same in all
lights as long as the sky dominates, and its mean C stands for all: the mean's variance is C/Σw.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np

from ..core.kernels import kernel
from ..core.parallel import in_threads
from .engine import RAW_BYTES, Band, StackPlan, prepare, stack_band

LIMIT = 4.0  # sigma beyond which a sample does not belong
SHAPE = 0.2  # of the light over the background: stars change with the seeing by as much as one sigma


class RunningStack(NamedTuple):
    """What is kept of all lights so far, each array (channel, y, x).

    `weight` Σw and `signal` Σ w s [e-] of the samples that are neither extreme nor rejected; `noise` Σ w v [e-²],
    `samples` and `rejected` of all; `high`, `low` [e-] the extremes; `high_frame`, `low_frame` the lights they are of.
    """

    weight: np.ndarray
    signal: np.ndarray
    noise: np.ndarray
    high: np.ndarray
    low: np.ndarray
    samples: np.ndarray
    rejected: np.ndarray
    high_frame: np.ndarray
    low_frame: np.ndarray


class LightRows(NamedTuple):
    """Rows of one light on the stack's grid, (channel, y, x): `signal` [e-], `variance` [e-²], `coverage`.

    `size` pixels along a side make one of the running stack.
    """

    signal: np.ndarray
    variance: np.ndarray
    coverage: np.ndarray
    size: int


def empty_running(shape: tuple[int, int, int]) -> RunningStack:
    """Return a stack of no lights, (channel, y, x)."""
    return RunningStack(*np.zeros((5, *shape), np.float32), *np.zeros((4, *shape), np.uint16))


def add_light(running: RunningStack, plan: StackPlan, weights: np.ndarray, level: np.ndarray) -> None:
    """Resample the one light of a plan band by band, in threads, and add it to a running stack, in place.

    Parameters
    ----------
    weights, level
        As for `add_band`.
    """
    ready, kept = prepare(plan), threading.local()
    size = plan.shape[0] // running.signal.shape[1]

    def work(number: int) -> None:
        add_band(running, stack_band(ready, number, vars(kept)), len(weights) - 1, weights, level, size)

    for _ in in_threads(work, range(plan.bands), each=2 * RAW_BYTES):
        pass


def add_band(
    running: RunningStack, band: Band, number: int, weights: np.ndarray, level: np.ndarray, size: int = 1
) -> None:
    """Add the band of one light to a running stack, in place; bands are apart, so that threads may add several at once.

    Parameters
    ----------
    band
        What `stack_band` makes of a plan with this light alone.
    number
        Of the light, from 0 on.
    weights
        (light, channel): w of this light and of all before it.
    level
        (channel) [e-]: the background that all are normalised to.
    size
        Pixels of the band along the side of one of the running stack, which is their mean.
    """
    found = band.arrays
    top, tall = band.top // size, found.signal.shape[1] // size
    rows = RunningStack(*(part[:, top : top + tall] for part in running))
    light = LightRows(found.signal, found.variance, found.coverage, size)
    _add(rows, light, number, weights.astype(np.float32), level.astype(np.float32))


@kernel()
def _strays(value, mean, level, square):
    """Whether a value is too far from a mean where the variance of their difference is `square`."""
    light = np.float32(SHAPE) * max(mean - level, np.float32(0))
    return (value - mean) ** 2 > np.float32(LIMIT * LIMIT) * (square + light * light)


@kernel()
def _binned(signal, variance, coverage, size, width, values, variances):
    """Set rows `values` and `variances` (x) to the mean of each size x size pixels and its variance.

    `signal`, `variance`, `coverage` are (size, x); NaN where one of the pixels is missing.
    """
    share = np.float32(1.0 / size**2)
    for i in range(width):
        value, square, least = np.float32(0), np.float32(0), coverage[0, i * size]
        for y in range(size):
            for x in range(i * size, (i + 1) * size):
                value += signal[y, x]
                square += variance[y, x]
                least = min(least, coverage[y, x])
        values[i] = value * share if least > 0 else np.float32(np.nan)
        variances[i] = square * share * share


@kernel()
def _add(running, light, number, weights, level):
    """Add rows of a light to those of a running stack."""
    channels, height, width = running.signal.shape
    values, variances = np.empty(width, np.float32), np.empty(width, np.float32)
    for c in range(channels):
        own = weights[:, c]
        for v in range(height):
            part = slice(v * light.size, (v + 1) * light.size)
            _binned(
                light.signal[c, part], light.variance[c, part], light.coverage[c, part], light.size, width,
                values, variances,
            )  # fmt: skip
            weight, signal, noise = running.weight[c, v], running.signal[c, v], running.noise[c, v]
            high, low, samples, rejected = (
                running.high[c, v],
                running.low[c, v],
                running.samples[c, v],
                running.rejected[c, v],
            )
            high_frame, low_frame = running.high_frame[c, v], running.low_frame[c, v]
            for i in range(width):
                value, frame = values[i], np.int64(number)
                if not np.isfinite(value):
                    continue
                before = np.int64(samples[i])
                samples[i] = before + 1
                noise[i] += own[number] * variances[i]
                if before == 0:
                    high[i], high_frame[i] = value, number
                    continue
                if value > high[i]:  # the extremes stay outside the sums; what they displace is looked at
                    value, high[i] = high[i], value
                    frame, high_frame[i] = np.int64(high_frame[i]), frame
                if before == 1:
                    low[i], low_frame[i] = value, frame
                    continue
                if value < low[i]:
                    value, low[i] = low[i], value
                    frame, low_frame[i] = np.int64(low_frame[i]), frame
                if weight[i] > 0:
                    common, rest = noise[i] / (before + 1), weight[i]
                    if _strays(value, signal[i] / rest, level[c], common / own[frame] + common / rest):
                        rejected[i] += 1
                        if 2 * rejected[i] < before:
                            continue
                        rejected[i] = before - 2  # the majority is elsewhere: begin again
                        weight[i] = signal[i] = 0
                weight[i] += own[frame]
                signal[i] += own[frame] * value


def running_mean(running: RunningStack, weights: np.ndarray, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the stack so far and its variance, (channel, y, x) [e-, e-²]; NaN where no light reaches.

    Parameters
    ----------
    weights, level
        As for `add_band`, of all lights added.
    """
    signal, variance = (np.empty(running.signal.shape, np.float32) for _ in range(2))
    _mean(running, weights.astype(np.float32), level.astype(np.float32), signal, variance)
    return signal, variance


@kernel()
def _mean(running, weights, level, signal, variance):
    for c, v, i in np.ndindex(signal.shape):
        samples = running.samples[c, v, i]
        if samples == 0:
            signal[c, v, i] = variance[c, v, i] = np.nan
            continue
        common = running.noise[c, v, i] / samples
        high, above = running.high[c, v, i], weights[running.high_frame[c, v, i], c]
        low, below = running.low[c, v, i], weights[running.low_frame[c, v, i], c]
        weight, total = running.weight[c, v, i], running.signal[c, v, i]
        if samples == 1:
            weight, total = above, above * high
        elif samples == 2:  # what strays is brighter: cosmic rays, trails
            weight, total = below, below * low
            if not _strays(high, low, level[c], common / above + common / below):
                weight, total = below + above, total + above * high
        else:
            mean, square = total / weight, common / weight
            if not _strays(high, mean, level[c], common / above + square):
                weight, total = weight + above, total + above * high
            if not _strays(low, mean, level[c], common / below + square):
                weight, total = weight + below, total + below * low
        signal[c, v, i] = total / weight
        variance[c, v, i] = common / weight
