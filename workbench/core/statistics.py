"""Statistics that every station shares: robust spreads, straight lines, neighbours, and the vignetting of a lens."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy
from scipy import special

from .errors import WorkbenchError
from .parallel import in_threads

MAD_TO_SIGMA = 1.4826  # standard deviation of a normal distribution over its median absolute deviation: 1/Φ⁻¹(3/4)
MEDIAN_ERROR = 1.2533  # standard error of a median over that of a mean, of a normal distribution: √(π/2)
MISFIT = 0.01  # probability of a worse χ² below which the model does not hold and errors are widened
MISFIT_TO_WARN = 0.001  # below which there is a warning: of thirty fits one falls below 0.01 every third time
ODD = 0.2  # of a frame's pixels: one that differs from the others in more is none of them
_ODD_SIGMAS = 6.0
_ODD_LEVELS = {"bias": 2.0, "dark": 4.0, "darkflat": 4.0}  # times the scatter: no offset drifts so far in a run
_UNEVEN = 0.02  # rms share of the light
_ENOUGH = 20_000  # pixels of a channel, for a share of them to a hundredth


def mad_std(values: Any, axis: int | tuple[int, ...] | None = None, *, centre: Any = None) -> Any:
    """Return the standard deviation that the median absolute deviation stands for, 1.4826 median |y - centre|.

    The factor is that of a normal distribution.  NaN are left out; of nothing but NaN, or of nothing, it is NaN.
    `astropy.stats.mad_std` gives the same numbers about the median, more slowly, and knows no other centre.

    Parameters
    ----------
    values
        An array of any shape and unit.
    axis
        As for `numpy.median`; all values without it.
    centre
        What deviations are taken from, in the unit of the values: the median (default), or for example 0.

    Returns
    -------
    float or array
        In the unit of the values.

    Examples
    --------
    >>> round(float(mad_std([1.0, 2.0, 3.0, 4.0, 100.0])), 4)
    1.4826
    >>> round(float(mad_std([-1.0, 1.0, np.nan], centre=0)), 4)
    1.4826
    """
    values = np.asarray(values)
    whole = values.dtype.kind in "iub" or bool(np.isfinite(values).all())
    median = np.median if whole else np.nanmedian
    if values.size == 0:
        return np.float64(np.nan)
    if centre is None:
        centre = median(values, axis=axis, keepdims=axis is not None)
    elif values.dtype.kind in "ub":
        values = values.astype(np.float64)
    return MAD_TO_SIGMA * median(np.abs(values - centre), axis=axis)


def coarse_std(values: np.ndarray, centre: Any = 0) -> float:
    """Return `mad_std`, or √(π/2) of the mean deviation where more than half of the values are equal.

    That is so for quiet frames of whole numbers, whose median deviation is zero.

    Examples
    --------
    >>> round(coarse_std(np.array([0, 0, 0, 1, -1])), 3), coarse_std(np.empty(0))
    (0.501, inf)
    """
    if not values.size:
        return np.inf
    return float(mad_std(values, centre=centre) or np.sqrt(np.pi / 2) * np.abs(values - centre).mean())


def odd_ones_out(means: np.ndarray, tolerance: np.ndarray | float) -> np.ndarray:
    """Return the numbers of the frames whose mean lies off their group's median: by more than `tolerance` [ADU]
    and by more than six robust standard deviations of the group.

    Of two frames either may be the odd one; both are returned.
    """
    deviation = np.abs(means - np.median(means))
    if means.size < 2:
        return np.empty(0, int)
    spread = mad_std(means) if means.size > 2 else 0.0
    return np.flatnonzero(deviation > np.maximum(tolerance, 6 * spread))


def odd_frames(samples: Iterable[np.ndarray], kind: str = "", pedestals: Iterable[Any] | None = None) -> dict[int, str]:
    """Return which frames differ from most in more than a fifth of their pixels, each with a sentence.

    Differing is more than six times the scatter that most frames have about the frames' median, of a frame's median
    four times (bias: twice); of flats, brought to one level, also than six times their own scatter.  A flat that is lit
    otherwise (2 % rms) differs in all.  Most must agree: of two nobody knows which is wrong.

    Parameters
    ----------
    samples
        Of each channel the same pixels of all frames (frame, pixel) [ADU].
    kind
        Of the frames.
    pedestals
        Of each channel what is subtracted from the samples (pixel) [ADU]; nothing where not given.

    Examples
    --------
    >>> frames = np.random.default_rng(1).normal(600, 3, (4, 1000))
    >>> frames[2, 300:] += 50
    >>> odd_frames([frames])
    {2: 'differs from the others in 70% of its pixels'}
    """
    both = zip(samples, pedestals or itertools.repeat(None), strict=False)
    shares = list(in_threads(partial(_odd_shares, kind), (one for one in both if len(one[0]) > 2)))
    share = np.max(shares, axis=0) if shares else np.empty(0)
    odd = np.flatnonzero(share > ODD)
    if 2 * odd.size >= share.size:
        return {}
    return {int(i): f"differs from the others in {share[i]:.0%} of its pixels" for i in odd}


def _odd_shares(kind: str, both: tuple[np.ndarray, np.ndarray | None]) -> np.ndarray:
    """Return in which share of its pixels each frame (frame, pixel) differs from most, above a pedestal (pixel)."""
    step = max(1, both[0].shape[1] // _ENOUGH)
    samples, pedestal = both[0][:, ::step], both[1]
    samples = (samples if pedestal is None else samples.astype(np.float32) - pedestal[::step]).astype(float)
    median = np.nanmedian if np.isnan(samples).any() else np.median  # of few frames the first is slow
    if scaled := kind == "flat":
        samples /= np.maximum(median(samples, axis=0), 1)
        samples /= np.maximum(median(samples, axis=1, keepdims=True), 1e-6)
    signed = samples - median(samples, axis=0)
    spread = 1.25 * np.nanmean(away := np.abs(signed), axis=1, keepdims=True)  # the median is 0 where codes are coarse
    usual = float(np.median(spread))
    limit = _ODD_SIGMAS * (np.clip(spread, usual, 5 * usual) if scaled else max(usual, 0.5))  # codes are whole numbers
    if scaled:  # of neighbours the noise is a flat's own, not how it is lit
        noise = 1.25 * np.nanmean(np.abs(np.diff(signed, axis=1)), axis=1) / np.sqrt(2)
        uneven = np.sqrt(np.maximum(spread[:, 0] ** 2 - noise**2, 0))
        off = uneven > np.maximum(noise / 2, max(_UNEVEN, 3 * float(np.median(uneven))))
    else:
        levels = median(samples, axis=1)
        off = np.abs(levels - np.median(levels)) > _ODD_LEVELS.get(kind, np.inf) * max(usual, 0.5)
    return np.where(off, 1.0, (away > limit).mean(axis=1))


class StraightLine(NamedTuple):
    """Straight lines y = slope · x + intercept, of any leading shape.

    About `centre`, the weighted mean of x (0 for lines through the origin), slope and level do not correlate; with
    weights 1/σ² their variances are `slope_variance` and `level_variance`.
    """

    slope: Any
    intercept: Any
    centre: Any
    slope_variance: Any
    level_variance: Any

    @property
    def covariance(self) -> np.ndarray:
        """Covariance matrix (2, 2) of slope and intercept, in the units of 1/weight."""
        mixed = -self.centre * self.slope_variance
        return np.array([[self.slope_variance, mixed], [mixed, self.level_variance - self.centre * mixed]])


def fit_line(x: Any, y: Any, weight: Any = 1.0, *, through_origin: bool = False) -> StraightLine:
    """Fit straight lines along the last axis by weighted least squares, min Σ w (y - slope x - intercept)².

    Parameters
    ----------
    x, y, weight
        Arrays (..., point) that broadcast against each other; weights are 1/σ² of y, or proportional to it.
    through_origin
        Whether the intercept is zero.

    Examples
    --------
    >>> line = fit_line([1.0, 2.0, 3.0], [3.0, 5.0, 7.0])
    >>> float(line.slope), float(line.intercept), float(line.slope_variance)
    (2.0, 1.0, 0.5)
    """
    x, y, weight = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float), np.asarray(weight, float))
    total = weight.sum(-1)
    centre = np.zeros_like(total) if through_origin else (weight * x).sum(-1) / total
    away = x - centre[..., None]
    square = (weight * away * away).sum(-1)
    slope = (weight * away * y).sum(-1) / square
    level = np.zeros_like(total) if through_origin else (weight * y).sum(-1) / total
    return StraightLine(slope, level - slope * centre, centre, 1 / square, 0 * total if through_origin else 1 / total)


def weighted_by_errors(values: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    """Return the mean of what is known, weighted by 1/error², and its error, no less than the values' scatter shows.

    Values that came out low must not have the smaller errors: of four gains, whose errors grow as g², errors of 3 %
    pull the mean down by 0.16 of its own error, of 10 % by 0.6.  Errors that are themselves measured, with 15 degrees
    of freedom, widen its scatter by 6 %, which the stated error holds (coverage 0.68; 20,000 trials each).

    Examples
    --------
    >>> weighted_by_errors(np.array([1.0, 3.0, np.nan]), np.array([1.0, 1.0, 1.0]))
    (2.0, 1.0)
    """
    good = np.isfinite(values) & (errors > 0)
    if not good.any():
        return np.nan, np.nan
    weight = 1 / np.square(errors[good])
    mean = float((weight * values[good]).sum() / weight.sum())
    chi2 = float((weight * (values[good] - mean) ** 2).sum())
    return mean, float(np.sqrt(max(chi2 / max(weight.size - 1, 1), 1.0) / weight.sum()))


def t_factor(degrees: int | float, sigmas: float = 1.0) -> float:
    """Return how many standard errors of `degrees` degrees of freedom hold the truth 68.27 % of the time.

    Or as often as a normal distribution does within so many `sigmas`, 1.96 for 95 %.

    Examples
    --------
    >>> [round(t_factor(n), 2) for n in (1, 2, 5, 63)]
    [1.84, 1.32, 1.11, 1.01]
    """
    if degrees > 1e6:
        return sigmas
    return float(special.stdtrit(degrees, special.ndtr(sigmas))) if degrees > 0 else np.nan


def misfit(chi2: float, degrees: int) -> tuple[float, bool]:
    """Return by how much χ² of so many degrees of freedom widens an error, and whether it deserves a warning.

    Examples
    --------
    >>> misfit(9.0, 8), misfit(32.0, 8)
    ((1.0, False), (2.0, True))
    """
    chance = float(special.chdtrc(degrees, chi2)) if degrees > 0 else 1.0
    return (max(1.0, float(np.sqrt(chi2 / degrees))) if chance < MISFIT else 1.0), chance < MISFIT_TO_WARN


def neighbour_covariance(picture: np.ndarray, lags: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean product of pixels and their neighbours at each lag, and how many pairs of pixels it is of.

    Of a difference of two equal frames over √2, whose mean is zero, this is the covariance of the noise.

    Parameters
    ----------
    picture
        (y, x), in any unit; pairs with a NaN are left out.
    lags
        (Δy, Δx) of the neighbour in pixels, Δy at least zero.

    Returns
    -------
    tuple
        Covariance (lag) in the unit's square, zero where the picture is smaller than the lag; pairs (lag).

    Examples
    --------
    >>> covariance, pairs = neighbour_covariance(np.array([[1.0, 1.0, -1.0, -1.0]]), [(0, 1), (0, 2), (1, 0)])
    >>> covariance.round(2).tolist(), pairs.tolist()
    ([0.33, -1.0, 0.0], [3, 2, 0])
    """
    height, width = picture.shape
    whole = bool(np.isfinite(picture).all())
    covariance, pairs = np.zeros(len(lags)), np.zeros(len(lags), int)
    for number, (dy, dx) in enumerate(lags):
        if dy >= height or abs(dx) >= width:
            continue
        near = picture[: height - dy, max(0, -dx) : width - max(0, dx)]
        far = picture[dy:, max(0, dx) : width - max(0, -dx)]
        if whole:
            pairs[number] = near.size
            covariance[number] = np.einsum("ij,ij->", near, far, dtype=np.float64) / near.size
        else:
            product = near.astype(float) * far
            pairs[number] = np.count_nonzero(np.isfinite(product))
            covariance[number] = np.nansum(product) / max(pairs[number], 1)
    return covariance, pairs


def even_sample(plane: np.ndarray, enough: int) -> np.ndarray:
    """Return every k-th row and column of a plane (y, x), a view with at least `enough` of its pixels, or all.

    Examples
    --------
    >>> even_sample(np.zeros((300, 400)), 30_000).shape
    (150, 200)
    """
    stride = max(1, int(np.sqrt(plane.size / enough)))
    return plane[::stride, ::stride]


def median_profile(
    position: np.ndarray, values: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the medians of values in bins of their position, such as rings about a centre, with their errors.

    The error of a median of n values that scatter by σ is `MEDIAN_ERROR` σ/√n, with σ from `mad_std`.

    Parameters
    ----------
    position, values
        Arrays of one shape; values that are not finite are left out.
    edges
        Of the bins, rising, in the unit of the position; bins with fewer than four values are left out.

    Returns
    -------
    middle, median, error : array
        One entry for each bin that is kept.

    Examples
    --------
    >>> values = np.array([1.0, 2.0, 3.0, 4.0, 7.0, 7.0, 7.0, 7.0])
    >>> middle, median, error = median_profile(np.arange(8.0), values, np.array([0.0, 4.0, 8.0]))
    >>> middle.tolist(), median.tolist()
    ([2.0, 6.0], [2.5, 7.0])
    """
    rows = []
    for low, high in itertools.pairwise(edges):
        inside = values[(position >= low) & (position < high) & np.isfinite(values)]
        if inside.size >= 4:
            rows.append(((low + high) / 2, np.median(inside), MEDIAN_ERROR * mad_std(inside) / np.sqrt(inside.size)))
    middle, median, error = np.array(rows).reshape(-1, 3).T
    return middle, median, error


class Lens(NamedTuple):
    """A (1 + a₂ρ² + a₄ρ⁴), ρ² = ((y − y₀)² + (x − x₀)²)/R²; lengths in pixels of the picture that was fitted.

    cos⁴ of the angle is such a series, with a₂ = −2 (R/f)² to the first order.
    """

    level: float
    a2: float
    a4: float
    centre_y: float
    centre_x: float
    reach: float
    centre_error: float = math.nan

    def __call__(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the model at rows y and columns x.

        Examples
        --------
        >>> Lens(2.0, -0.5, 0.0, 10, 10, 10)(np.array([10, 0]), np.array([10, 10])).tolist()
        [2.0, 1.0]
        """
        rho2 = ((y - self.centre_y) ** 2 + (x - self.centre_x) ** 2) / self.reach**2
        return self.level * (1 + self.a2 * rho2 + self.a4 * rho2**2)

    def enlarged(self, factor: int, reach: float) -> Lens:
        """Return the model of a picture from that of every `factor`-th of its pixels, with the reach of the whole."""
        ratio = (reach / (self.reach * factor)) ** 2
        centre_y, centre_x, error = self.centre_y * factor, self.centre_x * factor, self.centre_error * factor
        return Lens(self.level, self.a2 * ratio, self.a4 * ratio**2, centre_y, centre_x, float(reach), error)

    def falloff(self, shape: tuple[int, int]) -> float:
        """Return the light lost in the farthest corner of a picture of that shape, against the centre."""
        y, x = np.array([[0, 0, shape[0] - 1, shape[0] - 1], [0, shape[1] - 1, 0, shape[1] - 1]])
        return float(1 - self(y, x).min() / self.level)


def fit_lens(picture: np.ndarray) -> Lens:
    """Fit the model to a picture of blocks, dust down-weighted (soft L1); what is not finite is left out.

    Raises
    ------
    WorkbenchError
        If fewer than 20 blocks are valid.

    Examples
    --------
    >>> y, x = np.mgrid[:30, :40]
    >>> lens = fit_lens(1 - 0.3 * ((y - 12) ** 2 + (x - 22) ** 2) / 25**2)
    >>> round(lens.centre_y, 3), round(lens.centre_x, 3)
    (12.0, 22.0)
    """
    rows, columns = picture.shape
    y, x = np.mgrid[:rows, :columns].astype(float)
    reach = math.hypot(rows, columns) / 2
    good = np.isfinite(picture)
    if good.sum() < 20:
        raise WorkbenchError("the flat has fewer than 20 valid blocks: most of it is saturated or missing")
    start = np.array([np.nanmax(picture), -0.2, 0.0, (rows - 1) / 2, (columns - 1) / 2])
    scale = max(1e-4, float(mad_std(picture[good])) / 50)
    y, x, values = y[good], x[good], picture[good]
    options: dict[str, Any] = {"loss": "soft_l1", "f_scale": scale, "x_scale": [1, 0.1, 0.1, 1, 1]}
    fit = scipy.optimize.least_squares(lambda p: Lens._make((*p, reach, math.nan))(y, x) - values, start, **options)
    covariance = np.linalg.pinv(fit.jac.T @ fit.jac) * 2 * fit.cost / max(values.size - 5, 1)
    error = float(np.sqrt(max(covariance[3, 3], covariance[4, 4])))
    return Lens._make((*fit.x.tolist(), reach, error))
