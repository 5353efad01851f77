"""Rejection: which samples of a pixel's stack do not belong: satellites, aircraft, cosmic rays.

The default compares with the **measured noise model**: a sample is rejected when it lies further than k σ from the
stack's median, σ² = (what shot noise, sky, read noise and dark signal give) + (0.2 · local range of the median)²;
the second term is what differences in seeing and sub-pixel position do to the flanks of stars.  It works from three
frames, where the samples' own scatter says nothing: with N samples none can lie beyond (N-1)/√N standard deviations
of its own stack.  The classical methods are here with the definitions that users know.

Every method here ends in two numbers: how many of the lowest and of the highest samples go.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit

from ..core.errors import WorkbenchError
from ..core.kernels import kernel
from ..core.statistics import MAD_TO_SIGMA

GUESS = 16  # samples from which a search for the median begins
MANY = 8  # from so many samples on a pixel's own scatter counts
METHODS = ("noise", "sigma", "winsorized", "linear-fit", "esd", "mad", "percentile", "mean", "median")
NOISE, SIGMA, WINSORIZED, LINEAR, ESD, MAD, PERCENTILE, MEAN, MEDIAN = range(len(METHODS))
DEFAULTS = {
    "noise": (4.0, 4.0),
    "sigma": (3.0, 3.0),
    "winsorized": (3.0, 3.0),
    "linear-fit": (5.0, 5.0),
    "esd": (0.05, 0.3),
    "mad": (3.0, 3.0),
    "percentile": (0.2, 0.1),
    "mean": (0.0, 0.0),
    "median": (0.0, 0.0),
}


def method_number(method: str) -> int:
    """Return the number of a rejection method.

    Raises
    ------
    WorkbenchError
        If the method is not known.
    """
    if method not in METHODS:
        raise WorkbenchError(f"rejection method {method!r} is none of {', '.join(METHODS)}")
    return METHODS.index(method)


def sorting_network(count: int) -> np.ndarray:
    """Return Batcher's odd-even merge sort for `count` values, as pairs (n, 2) to compare and exchange in turn.

    Examples
    --------
    >>> sorting_network(3).tolist()
    [[0, 2], [0, 1], [1, 2]]
    """
    size = 1 << max(count - 1, 0).bit_length()
    pairs = []
    p = size // 2
    while p:
        q, r, d = size // 2, 0, p
        while True:
            pairs += [(i, i + d) for i in range(size - d) if i & p == r and i + d < count]
            if q == p:
                break
            d, q, r = q - p, q // 2, p
        p //= 2
    return np.array(pairs, np.int64).reshape(-1, 2)


def esd_critical_values(count: int, alpha: float, most: int) -> np.ndarray:
    """Return Rosner's critical values λ_1 … λ_most of the generalised ESD test for `count` values.

    λ_i = t (n-i) / sqrt((n-i-1+t²)(n-i+1)), t the Student quantile at 1 - α/(2(n-i+1)) with n-i-1 degrees of freedom
    (NIST/SEMATECH e-Handbook 1.3.5.17.3).

    Examples
    --------
    >>> esd_critical_values(54, 0.05, 3).round(3).tolist()  # NIST's example: 3.158, 3.151, 3.143
    [3.159, 3.151, 3.144]
    """
    i = np.arange(1, most + 1)
    quantile = stdtrit(np.maximum(count - i - 1, 1), 1 - alpha / (2 * (count - i + 1)))
    return quantile * (count - i) / np.sqrt((count - i - 1 + quantile**2) * (count - i + 1))


def esd_table(count: int, alpha: float, fraction: float) -> np.ndarray:
    """Return the critical values for every number of values up to `count`, a row for each, zeros after the last."""
    most = max(1, int(fraction * count))
    table = np.zeros((count + 1, most))
    for n in range(4, count + 1):
        allowed = min(max(1, int(fraction * n)), n - 3)
        table[n, :allowed] = esd_critical_values(n, alpha, allowed)
    return table


class PixelPlanes(NamedTuple):
    """Of one channel of a tile (y, x): samples, median, what the test compares with, flags (frame, y, x).

    `a` and `b` (frame, 1 or y, x): the noise model's parameters at every pixel; `sorted` (frame, x).
    """

    count: np.ndarray  # type: ignore[assignment]  # in the place of a tuple's own count, which nobody calls
    median: np.ndarray
    floor: np.ndarray
    ceiling: np.ndarray
    spread: np.ndarray
    flags: np.ndarray
    a: np.ndarray
    b: np.ndarray
    sorted: np.ndarray


class RejectionRule(NamedTuple):
    """How to reject: the method's number, its thresholds, critical values and sorting networks, of all and of `few`."""

    method: int
    low: float
    high: float
    table: np.ndarray
    network: np.ndarray
    few: np.ndarray


def rule_of(method: str, frames: int, low: float | None = None, high: float | None = None) -> RejectionRule:
    """Return the rule of a rejection method for so many frames; thresholds not given are the method's own.

    Raises
    ------
    WorkbenchError
        If the method is not known, or a threshold of the noise model is not positive.
    """
    number = method_number(method)
    first, second = thresholds_of(method, low, high)
    if number == NOISE and not (first > 0 and second > 0):
        raise WorkbenchError(f"thresholds of the noise model are positive numbers of σ; got {first:g} and {second:g}")
    table = esd_table(frames, first, second) if number == ESD else np.zeros((1, 1))
    return RejectionRule(number, float(first), float(second), table, sorting_network(frames), sorting_network(GUESS))


def thresholds_of(method: str, low: float | None, high: float | None) -> tuple[float, float]:
    """Return a method's two thresholds, its own where none is given."""
    first, second = DEFAULTS[method]
    return first if low is None else low, second if high is None else high


@kernel()
def _moments(values, low, high):
    """Mean and standard deviation (ddof 1) of values[low:high]."""
    count = high - low
    mean = 0.0
    for i in range(low, high):
        mean += values[i]
    mean /= count
    square = 0.0
    for i in range(low, high):
        square += (values[i] - mean) ** 2
    return mean, np.sqrt(square / max(count - 1, 1))


@kernel()
def _middle(values, low, high):
    return 0.5 * (values[(low + high - 1) // 2] + values[(low + high) // 2])


@kernel()
def _mad(values, low, high, centre):
    """Median absolute deviation of sorted values about a centre: the mean of the two middle ones of an even number."""
    count = high - low
    return 0.5 * (
        _nearest(values, low, high, centre, (count + 1) // 2) + _nearest(values, low, high, centre, count // 2 + 1)
    )


@kernel()
def _nearest(values, low, high, centre, rank):
    """The deviation from a centre that is `rank`-th smallest: the smallest window that holds so many sorted values."""
    best = np.inf
    for i in range(low, high - rank + 1):
        best = min(best, max(centre - values[i], values[i + rank - 1] - centre))
    return best


@kernel()
def _trim(values, low, high, centre, down, up, least):
    """Narrow values[low:high] to centre - down ... centre + up; `least` of them stay."""
    while high - low > least and centre - values[low] > down:
        low += 1
    while high - low > least and values[high - 1] - centre > up:
        high -= 1
    return low, high


@kernel()
def _count_esd(values, count, table):
    """Count the outliers of sorted values by Rosner's test with the critical values (count, step) of `table`."""
    low, high = 0, count
    best_low, best_high = 0, count
    for step in range(table.shape[1]):
        if table[count, step] <= 0.0:
            break
        mean, sigma = _moments(values, low, high)
        if sigma <= 0.0:
            break
        down, up = mean - values[low], values[high - 1] - mean
        if down > up:
            low += 1
        else:
            high -= 1
        if max(down, up) / sigma > table[count, step]:
            best_low, best_high = low, high
    return best_low, count - best_high


@kernel()
def _trim_line(values, low, high, k_low, k_high):
    """Fit values[low:high] against rank by least squares; drop the first or last beyond k mean absolute residuals."""
    n = high - low
    mean_rank = 0.5 * (n - 1)
    mean, _ = _moments(values, low, high)
    top = bottom = 0.0
    for i in range(n):
        top += (i - mean_rank) * (values[low + i] - mean)
        bottom += (i - mean_rank) ** 2
    slope = top / bottom
    sigma = 0.0
    for i in range(n):
        sigma += abs(values[low + i] - mean - slope * (i - mean_rank))
    sigma /= n
    first = mean - slope * mean_rank - values[low]
    last = values[high - 1] - (mean + slope * mean_rank)
    if sigma > 0.0 and first > k_low * sigma:
        low += 1
    if sigma > 0.0 and last > k_high * sigma and high - low > 2:
        high -= 1
    return low, high


@kernel()
def _winsorized_sigma(values, low, high, centre, sigma):
    """1.134 SD of values[low:high] clipped to centre ± 1.5 σ, from a first σ on until it settles."""
    for _ in range(50):
        lower, upper = centre - 1.5 * sigma, centre + 1.5 * sigma
        mean = square = 0.0
        for i in range(low, high):
            mean += min(max(values[i], lower), upper)
        mean /= high - low
        for i in range(low, high):
            square += (min(max(values[i], lower), upper) - mean) ** 2
        new = 1.134 * np.sqrt(square / (high - low - 1))
        settled = abs(new - sigma) <= 0.0005 * sigma
        sigma = new
        if settled:
            break
    return sigma


@kernel()
def scatter_about_median(values: np.ndarray, low: int, high: int, method: int) -> tuple[float, float]:
    """Return the median of sorted values[low:high] and their σ by the method: sigma, winsorized or mad."""
    centre = _middle(values, low, high)
    if method == MAD:
        return centre, MAD_TO_SIGMA * _mad(values, low, high, centre)
    _, sigma = _moments(values, low, high)
    if method == WINSORIZED:
        sigma = _winsorized_sigma(values, low, high, centre, sigma)
    return centre, sigma


@kernel()
def trim_about_median(
    values: np.ndarray, low: int, high: int, method: int, k_low: float, k_high: float
) -> tuple[int, int]:
    """Drop what lies beyond k σ of the median of sorted values[low:high], σ by the method; two stay."""
    centre, sigma = scatter_about_median(values, low, high, method)
    if sigma <= 0.0:
        return low, high
    return _trim(values, low, high, centre, k_low * sigma, k_high * sigma, 2)


@kernel()
def count_rejected(
    values: np.ndarray, count: int, method: int, k_low: float, k_high: float, table: np.ndarray
) -> tuple[int, int]:
    """Return how many of the lowest and of the highest of `count` sorted values a method rejects.

    sigma
        about the median, σ the standard deviation (ddof 1), repeated until nothing goes.
    winsorized
        about the median, σ = 1.134 SD of the values clipped to m ± 1.5 σ, itself to convergence (0.0005), repeated.
    linear-fit
        a line through the sorted values, σ the mean absolute residual, repeated.
    esd
        Rosner's generalised ESD with the critical values of `table`; a sound stack loses nothing.
    mad
        about the median, σ = 1.4826 MAD (a true σ; raw-MAD tools call 2.02 of these "3"), repeated.
    percentile
        beyond the fraction k of the median itself; for six frames or fewer.
    """
    if count < 3 or method >= MEAN:
        return 0, 0
    if method == ESD:
        return _count_esd(values, count, table)
    low, high = 0, count
    if method == PERCENTILE:
        centre = _middle(values, 0, count)
        low, high = _trim(values, 0, count, centre, k_low * abs(centre), k_high * abs(centre), 1)
        return low, count - high
    while high - low >= 3:
        before = high - low
        if method == LINEAR:
            low, high = _trim_line(values, low, high, k_low, k_high)
        else:
            low, high = trim_about_median(values, low, high, method, k_low, k_high)
        if high - low == before:
            break
    return low, count - high


@kernel()
def empty_planes(frames: int, shape: tuple[int, int], rows: int) -> PixelPlanes:
    """Return planes for a tile of `shape` (height, width) whose noise parameters have `rows` rows."""
    height, width = shape
    return PixelPlanes(
        np.empty(shape, np.int32), np.empty(shape, np.float32), np.empty(shape, np.float32),
        np.empty(shape, np.float32), np.empty(shape, np.float32), np.empty((frames, height, width), np.uint8),
        np.empty((frames, rows, width), np.float32), np.empty((frames, rows, width), np.float32),
        np.empty((frames, width), np.float32),
    )  # fmt: skip


@kernel(fastmath={"contract", "reassoc", "nsz"})
def sort_columns(buffer: np.ndarray, network: np.ndarray, width: int) -> None:
    """Sort each column of `buffer` (frame, x) by exchanging the pairs of a network."""
    for pair in range(network.shape[0]):
        a, b = network[pair, 0], network[pair, 1]
        for i in range(width):  # rows by their index: a slice a pair would take as long as the row
            one, two = buffer[a, i], buffer[b, i]
            buffer[a, i] = one if one < two else two
            buffer[b, i] = two if one < two else one


@kernel()
def own_scatter(buffer: np.ndarray, number: np.ndarray, median: np.ndarray, floor: np.ndarray, complete: bool) -> None:
    """Set `floor` (x) to (1.4826 MAD)² of each pixel's own samples, from eight on.

    `buffer` (frame, x) is sorted: the MAD is the smallest window about the median that holds half of the samples.
    """
    frames, width = buffer.shape
    if complete:
        held = (frames + 1) // 2
        floor[:] = np.inf
        for k in range(frames - held + 1):
            one, two = buffer[k], buffer[k + held - 1]
            for i in range(width):
                down, up = median[i] - one[i], two[i] - median[i]
                wider = down if down > up else up
                floor[i] = wider if wider < floor[i] else floor[i]
    else:
        for i in range(width):
            n = number[i]
            if n < MANY:
                continue
            held = (n + 1) // 2
            best = np.float32(np.inf)
            for k in range(n - held + 1):
                best = min(best, max(median[i] - buffer[k, i], buffer[k + held - 1, i] - median[i]))
            floor[i] = best
    for i in range(width):
        floor[i] = (np.float32(MAD_TO_SIGMA) * floor[i]) ** 2


@kernel()
def any_flag(flags: np.ndarray) -> Any:
    """Return the bits that any of the flags has."""
    found = np.uint8(0)
    for i in range(flags.size):
        found |= flags[i]
    return found
