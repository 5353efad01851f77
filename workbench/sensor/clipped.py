"""Read noise of bias frames that the camera clipped at zero: maximum likelihood for a censored normal distribution.

A camera that subtracts its black level and clips leaves half of a bias frame at zero, and the spread of what is saved
is 0.584 σ.  What was clipped is known to lie below the first step, no more; that is a censored sample, and its
likelihood still holds σ (A. C. Cohen, Ann. Math. Statist. 21, 557, 1950).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy import special

from ..core.cube import Setting, channels_of, take_frames
from ..core.kernels import kernel
from ..core.mosaic import channel_index, planes
from ..core.pairs import BLOCKS, OUTLIER_SIGMAS, jackknife_error
from ..core.parallel import counted, lazy_frames, stream_frames
from ..core.statistics import fit_line, t_factor
from ..core.values import describe, listed

_MOST_PIXELS, _MOST_FRAMES = 1 << 14, 16  # enough for σ to half a per cent
_FEWEST_STEPS = 3  # different codes: two are in the right ratio for any σ
_LARGEST_ERROR = 0.2  # of σ; beyond, what is left above zero does not determine it
_SMALLEST_PATTERN = 1e-3  # of σ; a fixed pattern below this adds nothing to it
_COMMON = 20  # pixels at a code without which its neighbours' being empty is chance
_ROUNDS = 40
_TINY = 1e-300


def replace_clipped(
    one: dict[str, np.ndarray],
    bias: xr.DataArray,
    clipped: np.ndarray,
    multiplier: Mapping[str, float] | None,
    progress: Any,
) -> str:
    """Replace the results of a setting's clipped channels by those of an even sample's likelihood, in place.

    `one` holds results by name (channel), as of `read_noise`, and ``means`` of the frames (frame, channel).  Returns
    why there are none, if so.
    """
    bias = take_frames(bias, np.arange(min(bias.sizes["frame"], _MOST_FRAMES)))
    pattern = bias.attrs["cfa_pattern"]
    names, step = channels_of(pattern), channel_index(pattern).shape[0]
    rows, columns = bias.sizes["y"] // step, bias.sizes["x"] // step
    stride = int(np.ceil(np.sqrt(max(rows * columns / _MOST_PIXELS, 1))))
    samples: list[list[np.ndarray]] = [[] for _ in names]
    bar = progress if progress is True else False
    for frame in counted(stream_frames(lazy_frames(bias)), bar, bias.sizes["frame"]):
        for channel, plane in planes(frame[: rows * step, : columns * step], pattern):
            samples[channel].append(plane[::stride, ::stride].copy())
    for name in set(one) - {"zero_fraction", "means"}:
        one[name] = np.where(clipped, np.nan, one[name])
    one["means"] = one["means"].copy()
    problem = ""
    for channel in np.flatnonzero(clipped).tolist():
        values = np.stack(samples[channel])
        count, height, width = values.shape
        blocks = np.repeat(np.arange(height) * min(BLOCKS, height) // height, width)
        across = np.tile(np.arange(width) * min(BLOCKS, width) // width, height)
        known = None if multiplier is None else multiplier.get(names[channel])
        fit = fit_clipped(values.reshape(count, -1), blocks, known, across)
        if fit.problem:
            problem = fit.problem
            continue
        scatter = fit.offsets.std(ddof=1)
        found = {
            "read_noise_adu": fit.sigma,
            "read_noise_adu_error": fit.sigma_error,
            "variance": fit.sigma**2 + fit.rounding_variance,
            "variance_error": 2 * fit.sigma * fit.sigma_error,
            "black_level": fit.offsets.mean(),
            "black_level_error": scatter / np.sqrt(count) * t_factor(count - 1),
            "black_level_error_95": scatter / np.sqrt(count) * t_factor(count - 1, 1.96),
            "frame_scatter": scatter,
            "pattern_adu": fit.pattern,
            "pattern_adu_error": fit.pattern_error,
        }
        for name, value in found.items():
            one[name][channel] = value
        one["means"][:count, channel] = fit.offsets
    return problem


class ClippedSetting(NamedTuple):
    """A setting whose frames are clipped at zero: the share of zeros [%], and the files."""

    setting: Setting
    share: float
    files: np.ndarray


def clipped_warning(problem: str, settings: list[ClippedSetting]) -> str:
    """Return which bias frames are clipped, and what was made of them."""
    where = ", ".join(describe(one.setting) for one in settings)
    share = max(one.share for one in settings)
    found = (
        f"the bias frames at {where} are clipped at zero (up to {share:.3g} % of the pixels in one frame of two or in "
        f"both; {listed(settings[0].files)}): the camera subtracts its black level before saving"
    )
    advice = "; firmware or a camera setting that keeps the offset measures it directly"
    if problem:
        return f"{found}, and {problem}: read noise, black level and DSNU are left out{advice}"
    return (
        f"{found}, so the spread of what is left is 40 % too small; read noise, black level and DSNU are those of the "
        f"normal distribution that explains the pixels above zero best, less certain than from whole frames{advice}"
    )


class ClippedFit(NamedTuple):
    """Noise of clipped bias frames of one channel [ADU]; NaN where it is not determined, with the `problem`.

    `sigma` and its error (half the 68 % interval); `offsets`, the mean level of each frame before clipping, below zero
    or above; `pattern`, the standard deviation of the pixels' own offsets, and its error; `multiplier`, what the camera
    multiplied the codes with; `pixels` used.
    """

    sigma: float
    sigma_error: float
    offsets: np.ndarray
    pattern: float
    multiplier: float
    pixels: int
    problem: str = ""
    pattern_error: float = np.nan

    @property
    def rounding_variance(self) -> float:
        """What rounding to codes adds to the variance [ADU²]: 1/12 before the multiplication, and after it."""
        return (self.multiplier**2 + (self.multiplier != 1)) / 12


def fit_clipped(
    values: np.ndarray, blocks: np.ndarray, multiplier: float | None = None, across: np.ndarray | None = None
) -> ClippedFit:
    """Fit σ to pixels of one channel in several bias frames that were rounded and clipped at zero.

    Pixel i of frame j was μ_j + τ z_i + σ n before rounding, z and n standard normal: each pixel has an offset of its
    own, which is integrated over, and each frame a level of its own.  The likelihood of a code is the normal
    probability of its step, that of zero all that lies below; steps are as wide as the camera's multiplication made
    them.  Leaving the pixels' offsets out reads σ 5 % high for a fixed pattern of 0.4 ADU at σ = 1.2.  Maximised by
    the method of Berndt, Hall, Hall and Hausman; the error is a jackknife over blocks.

    Parameters
    ----------
    values
        Codes (frame, pixel), whole numbers, two frames or more.
    blocks
        Number of the block of rows (from 0) that each pixel lies in.
    multiplier
        What the camera multiplied the codes of this channel with, if flats have shown it; otherwise it is estimated
        from the codes missing here, to a per cent or so, which the error then holds.
    across
        Number of the block of columns of each pixel, for the error of a pattern that columns have in common.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = rng.normal(0, 0.4, 4000) + rng.normal(0, 2.5, (6, 4000))
    >>> fit = fit_clipped(np.maximum(y.round(), 0).astype(int), np.arange(4000) * 32 // 4000)
    >>> round(float(y.clip(0).std()), 2), round(fit.sigma, 1), bool(fit.sigma_error < 0.05)
    (1.47, 2.5, True)
    """
    values = np.asarray(values).astype(np.int64)
    nothing = np.full(values.shape[0], np.nan)
    counts = np.bincount(values.ravel())
    multiplier, doubt = _multiplier(counts) if multiplier is None else (float(multiplier), 0.0)
    grid = np.rint(multiplier * np.arange(int(counts.size / multiplier) + 2)).astype(np.int64)
    cells = np.searchsorted(grid, values)  # an outlier off the grid takes the next step, and is left out below
    steps = np.bincount(cells.ravel())
    if np.count_nonzero(steps >= _COMMON / 4) < _FEWEST_STEPS:
        return ClippedFit(np.nan, np.nan, nothing, np.nan, multiplier, 0, "too few pixels are above zero")
    level, spread = _start(steps, multiplier)
    top = int(np.ceil((level + OUTLIER_SIGMAS * spread) / multiplier + 0.5))
    ordinary = (cells <= top).all(axis=0)
    cells, blocks = np.ascontiguousarray(cells[:, ordinary].T), blocks[ordinary]
    edges = multiplier * (np.arange(top + 1) + 0.5)
    parameters = np.array([*np.full(cells.shape[1], level), np.log(0.95 * spread), (0.3 * spread) ** 2])
    for _ in range(3):
        used = _ratio(parameters)
        nodes = _nodes(used, cells.shape[1])
        parameters, score, information, converged = _climb(cells, blocks, edges, nodes, parameters)
        if converged and _ratio(parameters) < 1.3 * used:
            break
    free = np.ones(parameters.size, bool)
    free[-1] = _ratio(parameters) > 2 * _SMALLEST_PATTERN
    sigma = float(np.exp(parameters[-2]))
    error = sigma * np.hypot(
        _error(score[:, free], information[:, free][:, :, free], cells.shape[1]), doubt / multiplier
    )
    if not converged or not error < _LARGEST_ERROR * sigma:
        problem = "too few pixels are above zero to determine the noise of those below"
        return ClippedFit(np.nan, np.nan, nothing, np.nan, multiplier, len(blocks), problem)
    pattern, of_pattern = float(np.sqrt(parameters[-1])), np.nan
    if free[-1]:
        of_variance = [_error(score, information, -1)]
        if across is not None:
            tables = _tables(edges, nodes, parameters)
            columns = across[ordinary]
            _, score, information = _likelihood(cells, columns, int(columns.max()) + 1, tables, nodes, pattern)
            of_variance.append(_error(score, information, -1))
        ends = np.sqrt(np.maximum(pattern**2 + np.array([-1, 1]) * max(of_variance), 0))
        of_pattern = float(np.hypot(np.abs(ends - pattern).max(), pattern * doubt / multiplier))
    return ClippedFit(sigma, error, parameters[:-2], pattern, multiplier, len(blocks), pattern_error=of_pattern)


def _ratio(parameters: np.ndarray) -> float:
    """Return τ/σ of the parameters μ_1 ... μ_n, ln σ, τ²."""
    return float(np.sqrt(parameters[-1]) / np.exp(parameters[-2]))


def _multiplier(counts: np.ndarray) -> tuple[float, float]:
    """Return what whole numbers were multiplied with before they were rounded again, and the error of that.

    Of all multipliers whose codes hold every one that occurs, the middle of those with the fewest codes.
    """
    common = np.flatnonzero(counts >= _COMMON)
    if common.size < 3:
        return 1.0, 0.0
    top = int(common[-1])
    present = np.flatnonzero(counts[: top + 1])
    tries = np.arange(1, 4.5, 0.0025)
    codes = np.full(tries.size, np.inf)
    for number, factor in enumerate(tries):
        grid = np.rint(factor * np.arange(int(top / factor) + 2)).astype(int)
        grid = grid[grid <= top]
        if np.isin(present, grid).all():
            codes[number] = grid.size
    best = np.flatnonzero(codes == codes.min())
    if codes[0] == codes.min():
        return 1.0, 0.0
    return float(tries[best].mean()), float(np.ptp(tries[best]) / np.sqrt(12))


def _start(steps: np.ndarray, multiplier: float) -> tuple[float, float]:
    """Return mean and standard deviation of the whole from how many lie below each edge: a line in a normal plot."""
    below = np.cumsum(steps)[:-1] / steps.sum()
    edge = multiplier * (np.arange(below.size) + 0.5)
    inside = (below > 0.005) & (below < 0.995)
    if np.count_nonzero(inside) < 2:
        inside = (below > 0) & (below < 1)
    z, x = special.ndtri(below[inside]), edge[inside]
    if x.size < 2:
        return float(x[0]) if x.size else 0.0, multiplier
    line = fit_line(z, x, np.exp(-(z**2) / 2))
    return float(line.intercept), max(float(line.slope), 0.3 * multiplier)


def _nodes(ratio: float, frames: int) -> np.ndarray:
    """Return evenly spaced z for the integral over a pixel's offset, as fine as `frames` values resolve it.

    The trapezium rule is exact to 1e-5 where the step is below 1.3 standard deviations of the integrand.
    """
    step = 1.3 / np.sqrt(1 + frames * ratio**2)
    half = int(np.ceil(4.5 / max(step, 0.09)))
    return np.linspace(-4.5, 4.5, 2 * half + 1)


def _climb(
    cells: np.ndarray, blocks: np.ndarray, edges: np.ndarray, nodes: np.ndarray, parameters: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Return the likeliest parameters, score and information of each block there, and whether it got there."""
    count = int(blocks.max()) + 1
    floor = (_SMALLEST_PATTERN * np.exp(parameters[-2])) ** 2

    def evaluate(at: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        return _likelihood(cells, blocks, count, _tables(edges, nodes, at), nodes, np.sqrt(at[-1]))

    best, score, information = evaluate(parameters)
    for _ in range(_ROUNDS):
        total, gradient = information.sum(axis=0), score.sum(axis=0)
        free = np.ones(parameters.size, bool)
        free[-1] = parameters[-1] > floor or gradient[-1] > 0
        step = np.zeros(parameters.size)
        step[free] = np.linalg.lstsq(total[np.ix_(free, free)], gradient[free], rcond=1e-14)[0]
        decrement = float(step @ gradient)
        if decrement < 1e-4:  # half of it is what the logarithm of the likelihood still has to gain
            return parameters, score, information, True
        step[-2] = np.clip(step[-2], -0.5, 0.5)
        for _ in range(12):
            trial = parameters + step
            trial[-1] = max(trial[-1], floor)
            value, *rest = evaluate(trial)
            if value >= best:
                break
            step /= 2
        else:
            return parameters, score, information, decrement < 0.1
        parameters, best, (score, information) = trial, value, rest
    return parameters, score, information, False


def _tables(edges: np.ndarray, nodes: np.ndarray, parameters: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return ln P (frame, step, node) of a step, and its derivatives by the frame's level [1/ADU] and by ln σ."""
    sigma, tau = np.exp(parameters[-2]), np.sqrt(parameters[-1])
    centre = parameters[:-2, None, None] + tau * nodes
    upper = (edges[:, None] - centre) / sigma
    density = np.exp(-(upper**2) / 2) / np.sqrt(2 * np.pi)
    # of the smaller tail, so that differences keep their digits
    below, above = special.ndtr(upper), special.ndtr(-upper)
    first = np.s_[:, :1]
    lower_below = np.concatenate([np.zeros_like(below[first]), below[:, :-1]], axis=1)
    lower_above = np.concatenate([np.ones_like(above[first]), above[:, :-1]], axis=1)
    probability = np.where(below < 0.5, below - lower_below, lower_above - above)
    probability = np.maximum(probability, _TINY)
    by_level = -np.diff(density, axis=1, prepend=0.0) / sigma
    by_scale = -np.diff(density * upper, axis=1, prepend=0.0)
    return np.log(probability), by_level / probability, by_scale / probability


@kernel(error_model="numpy")
def _likelihood(cells, blocks, count, tables, nodes, tau):
    """Sum over pixels ln ∫ Π_j P(cell_ij | z) prior(z) dz, its gradient and the gradients' outer products by block.

    `cells` (pixel, frame) are the steps, `blocks` (pixel) their blocks, of which there are `count`; z (node) times τ is
    a pixel's offset [ADU].  Returns the sum, (block, parameter) and (block, parameter, parameter).
    """
    log_p, by_level, by_scale = tables
    log_prior = -(nodes**2) / 2
    frames, q = cells.shape[1], nodes.size
    size = frames + 2
    score = np.zeros((count, size))
    information = np.zeros((count, size, size))
    weight, level, scale = np.empty(q), np.empty(q), np.empty(q)
    own = np.empty(size)
    norm = np.log(np.exp(log_prior).sum())
    total = 0.0
    for i in range(cells.shape[0]):
        weight[:] = log_prior
        level[:] = 0.0
        scale[:] = 0.0
        for j in range(frames):
            k = cells[i, j]
            for n in range(q):
                weight[n] += log_p[j, k, n]
                level[n] += by_level[j, k, n]
                scale[n] += by_scale[j, k, n]
        most = weight.max()
        together = 0.0
        for n in range(q):
            weight[n] = np.exp(weight[n] - most)
            together += weight[n]
        total += most + np.log(together) - norm
        own[:] = 0.0
        for n in range(q):
            share = weight[n] / together
            weight[n] = share
            own[frames] += share * scale[n]
            own[frames + 1] += share * level[n] * nodes[n] / (2 * tau)
        for j in range(frames):
            k = cells[i, j]
            for n in range(q):
                own[j] += weight[n] * by_level[j, k, n]
        block = blocks[i]
        for a in range(size):
            score[block, a] += own[a]
            for b in range(size):
                information[block, a, b] += own[a] * own[b]
    return total, score, information


def _error(score: np.ndarray, information: np.ndarray, index: int) -> float:
    """Return the jackknife error of the parameter of that index; without a block it is one step of Newton's away."""
    used = np.flatnonzero(information.any(axis=(1, 2)))
    if used.size < 2:
        return np.nan
    score, information = score[used], information[used]
    whole = information.sum(axis=0)
    scale = np.sqrt(np.diag(whole))
    scale = np.outer(scale, scale)  # μ and τ² are of other sizes
    root = np.sqrt(np.diag(scale))
    moved = [
        np.linalg.solve((whole - one) / scale, -s / root) / root for s, one in zip(score, information, strict=True)
    ]
    return float(jackknife_error(np.array(moved))[index])
