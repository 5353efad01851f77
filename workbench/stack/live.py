"""A stack that grows light by light, in memory that does not: sums over the samples, and each pixel's two extremes.

The highest and the lowest sample of a pixel wait outside the sums, so that a trail or a cosmic ray never gets into
them, in whichever light it comes.  A sample that another displaces is tested against the mean of the rest, and so are
the two extremes whenever the mean is asked for.

Lights count by one over the variance of their background, w.  Then w times a sample's variance v is the same in all
lights as long as the sky dominates, and its mean C stands for all: the mean's variance is C/Σw.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..align.transform import Transform, compose
from ..core.cube import MOSAICS
from ..core.kernels import kernel
from ..core.parallel import in_threads
from .engine import Band, StackPlan, prepare, stack_band
from .window import BAND

LIMIT = 4.0  # sigma beyond which a sample does not belong
SHAPE = 0.2  # of the light over the background: stars change with the seeing by as much as one sigma
_HALVING = Transform("affine", np.array([[0.5, 2.0, 0.0], [0.5, 0.0, 2.0]]))  # pixel i holds 2 i and 2 i + 1
# coefficients of 1, x, y, x², x y, y² with x = 2 i + 1/2
_HALVED = np.array([
    [1, 0.5, 0.5, 0.25, 0.25, 0.25], [0, 2, 0, 2, 1, 0], [0, 0, 2, 0, 1, 2],
    [0, 0, 0, 4, 0, 0], [0, 0, 0, 0, 4, 0], [0, 0, 0, 0, 0, 4],
])  # fmt: skip


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


class LiveLight(NamedTuple):
    """What became of a light: its quality, whether it was added or why not, and the stack after it.

    `background` [e-; ADU without a gain] of the light, `noise` of a pixel of the stack so far (median of each channel);
    `frames` and `total_exposure` [s] of the stack; `seconds` that this light took.
    """

    file: str
    exposure: float
    stars: float
    fwhm: float
    roundness: float
    background: float
    transparency: float
    used: bool
    reason: str
    frames: int
    total_exposure: float
    noise: dict[str, float]
    seconds: float

    def __str__(self) -> str:
        if not self.used:
            return f"{self.file}: not added: {self.reason}"
        noise = ", ".join(f"{name} {value:.3g}" for name, value in self.noise.items())
        hours, lights = self.total_exposure / 3600, "light" if self.frames == 1 else "lights"
        return (
            f"{self.file}: {self.stars:.0f} stars, FWHM {self.fwhm:.2f} px, transparency {self.transparency:.2f}; "
            f"{self.frames} {lights}, {hours:.2f} h, noise {noise}; half of it after {3 * hours:.2f} h more"
        )


def empty_running(shape: tuple[int, int, int]) -> RunningStack:
    """Return a stack of no lights, (channel, y, x)."""
    return RunningStack(*np.zeros((5, *shape), np.float32), *np.zeros((4, *shape), np.uint16))


def add_light(running: RunningStack, plan: StackPlan, weights: np.ndarray, level: np.ndarray) -> None:
    """Resample the one light of a plan band by band, in threads, and add it to a running stack, in place.

    Where that has half the size, a Bayer mosaic is resampled at once onto the coarser pixels, in a third of the time
    that the mean of four pixels each would take.

    Parameters
    ----------
    weights, level
        As for `add_band`.
    """
    size = plan.shape[0] // running.signal.shape[1]
    if size == 2 and plan.cfa_pattern in MOSAICS:
        plan, size = halved(plan), 1
    ready, kept = prepare(plan), threading.local()

    def work(number: int) -> None:
        add_band(running, stack_band(ready, number, vars(kept)), len(weights) - 1, weights, level, size)

    for _ in in_threads(work, range(plan.bands), each=plan.held):
        pass


def halved(plan: StackPlan) -> StackPlan:
    """Return the plan of the same stack of a Bayer mosaic in pixels twice as wide, each the mean of four."""
    frames = [
        replace(one, transform=compose(_HALVING, one.transform, plan.shape), surface=one.surface @ _HALVED.T)
        for one in plan.frames
    ]
    return replace(plan, frames=tuple(frames), shape=(plan.shape[0] // 2, plan.shape[1] // 2), halved=True)


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
    own, levels = weights.astype(np.float32), level.astype(np.float32)

    def work(top: int) -> None:
        end = top + BAND
        rows = RunningStack(*(part[:, top:end] for part in running))
        _mean(rows, own, levels, signal[:, top:end], variance[:, top:end])

    for _ in in_threads(work, range(0, running.signal.shape[1], BAND)):
        pass
    return signal, variance


@kernel(error_model="numpy")
def _mean(running, weights, level, signal, variance):
    """Set the mean and its variance of rows of a stack (channel, y, x)."""
    channels, height, width = signal.shape
    for c in range(channels):
        own = weights[:, c].copy()
        for v in range(height):
            means, noises = signal[c, v], variance[c, v]
            weight, total = running.weight[c, v], running.signal[c, v]
            noise, samples = running.noise[c, v], running.samples[c, v]
            high, high_frame = running.high[c, v], running.high_frame[c, v]
            low, low_frame = running.low[c, v], running.low_frame[c, v]
            for i in range(width):
                if samples[i] == 0:
                    means[i] = noises[i] = np.float32(np.nan)
                    continue
                common, rest, light = noise[i] / np.float32(samples[i]), weight[i], total[i]
                above, below = own[high_frame[i]], own[low_frame[i]]
                if samples[i] == 1:
                    rest, light = above, above * high[i]
                elif samples[i] == 2:  # what strays is brighter: cosmic rays, trails
                    rest, light = below, below * low[i]
                    if not _strays(high[i], low[i], level[c], common / above + common / below):
                        rest, light = below + above, light + above * high[i]
                else:
                    mean, square = light / rest, common / rest
                    if not _strays(high[i], mean, level[c], common / above + square):
                        rest, light = rest + above, light + above * high[i]
                    if not _strays(low[i], mean, level[c], common / below + square):
                        rest, light = rest + below, light + below * low[i]
                means[i] = light / rest
                noises[i] = common / rest
