"""Combine many frames into one, out of core: decoded once, then bands of rows, all frames deep.

The mean of the samples that agree within the noise model is taken.  A pixel whose samples all lie within
the clip needs no sorting, its mean is exact and unbiased; only the few others are looked at one by one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from ..core.errors import WorkbenchError
from ..core.parallel import Frames
from .combine_band import Channels, Output, Rows, RowsOfFrames, Rule, Setup, Tally, combine_rows

CLIP = 4.5  # [σ of the model]; of 16 M pixels x 16 frames without events 2,000 samples lie beyond: 1e-5 of them
UNSTABLE_CHANCE = 1e-7  # a pixel's own scatter takes the model's place when chance would do it this rarely
_SURE = 3.0  # the model's first scaling leaves out pixels that scatter this many times as much as unstable ones
_FEWEST = 30  # degrees of freedom that the model's scaling needs


@dataclass(frozen=True, eq=False)
class Combined:
    """What `combine_frames` gives: mean, its variance and the count of samples, (y, x); and how well the model holds.

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


def combine_frames(
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
    count, channels = len(frames), frames.cell.size
    if not count:
        raise WorkbenchError("no frame could be read, so there is nothing to combine")
    model = np.ascontiguousarray(np.broadcast_to(np.asarray(model, np.float64), (channels, 2)))
    black = np.ascontiguousarray(np.broadcast_to(np.asarray(black, np.float64), (channels,)))
    plain = scale is None and pedestal is None and not np.isfinite(saturation)
    scale = np.ones((count, channels)) if scale is None else np.asarray(scale, np.float64)
    limits = np.array([np.inf, *(chi2.isf(UNSTABLE_CHANCE, n) / n for n in range(1, max(count, 2)))])
    rule = Rule(float(saturation), float(clip), limits, plain)
    nothing = np.zeros((1, 1), np.float32)

    def one_band(top: int, bottom: int, setup: Setup, out: Output) -> Tally:
        tally = Tally(np.zeros(channels), np.zeros(channels), np.zeros(count, np.int64))
        below = nothing if pedestal is None else np.ascontiguousarray(pedestal[top:bottom], np.float32)
        combine_rows(RowsOfFrames(frames.read(top, bottom), below, top), setup, out, tally)
        return tally

    # First the scatter in some rows in units of the model, so that the variance is the measured one.
    setup = _set_up(frames, model, black, scale, rule._replace(limits=_SURE * limits))
    spare = _output((2, frames.width), count)
    looked = [one_band(*band, setup, _cut(spare, 0, band[1] - band[0])) for band in frames.sampled()]
    chi, degrees = (sum(getattr(tally, name) for tally in looked) for name in ("chi", "degrees"))
    found = chi / np.maximum(degrees, 1)
    found = np.where((degrees > _FEWEST) & (found > 0), found, 1.0)
    law = model * found[:, None]
    setup = _set_up(frames, law, black, scale, rule)
    out = _output((frames.height, frames.width), count)
    tallies: dict[int, Tally] = {}

    def work(top: int, bottom: int) -> None:
        tallies[top] = one_band(top, bottom, setup, _cut(out, top, bottom))

    frames.each_band(work, "combining", progress)
    in_order = (tallies[top] for top in sorted(tallies))  # the sums do not depend on the threads
    chi, degrees, rejected = (sum(parts) for parts in zip(*in_order, strict=True))
    ratio = found * chi / np.where(degrees > 0, degrees, np.nan)
    return Combined(*out, ratio, np.asarray(rejected / out.mean.size), law)


def _output(shape: tuple[int, int], count: int) -> Output:
    mean, variance = np.empty(shape, np.float32), np.empty(shape, np.float32)
    return Output(mean, variance, np.empty(shape, np.uint8 if count < 256 else np.uint16), np.zeros(shape, bool))


def _cut(out: Output, top: int, bottom: int) -> Output:
    return Output(*(array[top:bottom] for array in out))


def _set_up(frames: Frames, model: np.ndarray, black: np.ndarray, scale: np.ndarray, rule: Rule) -> Setup:
    """Return what the kernel reads: `model` (channel, 2), `black` (channel) and `scale` (frame, channel)."""
    weight = 1.0 / scale
    whole = weight.sum(axis=0)
    quiet, slope = np.ascontiguousarray(model.T)
    shares = len(frames) / whole**2, whole / whole**2
    channels = Channels(quiet, slope, black, *shares, scale.min(axis=0), weight.max(axis=0) / whole)
    phase = frames.cell[:, np.arange(frames.width) % frames.cell.shape[1]]
    spread = scale.astype(np.float32).T[phase].transpose(0, 2, 1) if not rule.plain else np.ones((1, 1, 1), np.float32)
    along = [values.astype(np.float32)[phase] for values in (quiet, slope, black, 1.0 / whole)]
    rows = Rows(*(np.ascontiguousarray(values) for values in (*along, spread)))
    return Setup(frames.cell, scale, channels, rows, rule)
