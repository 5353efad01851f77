"""The median of every pixel's samples, and their scatter about it: sorted where they are few, selected where many.

A sorting network takes log² n steps a sample, and a search for the middle value some ten, whatever their number n.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..core.kernels import kernel
from ..core.statistics import MAD_TO_SIGMA
from .reject import (
    GUESS,
    MANY,
    MEAN,
    NOISE,
    PixelPlanes,
    RejectionRule,
    count_rejected,
    own_scatter,
    sort_columns,
)

LOCAL_RANGE = 0.2  # of the median's range over 3 x 3 pixels counts as one sigma
SELECTED = 256  # from so many samples on selecting is faster than sorting
_PASSES = 30  # of a search; only samples of which many are equal take more
_BEYOND = 1.6  # times the estimated way to the middle, so that it comes to lie between two pivots


class _Middle(NamedTuple):
    """Of each column (x): the value of `rank` is sought, and that of `edge`, the same or the next.

    They lie above `low` and not above `high`; `under` and `upto` samples are not above these, `count` not above
    `pivot`.  A `low` that is `high` lies between the two.  `slope`: how far apart values are.
    """

    rank: np.ndarray
    edge: np.ndarray
    low: np.ndarray
    high: np.ndarray
    under: np.ndarray
    upto: np.ndarray
    pivot: np.ndarray
    count: np.ndarray  # type: ignore[assignment]  # in the place of a tuple's own count, which nobody calls
    slope: np.ndarray


@kernel()
def _new_search(width):
    return _Middle(
        np.empty(width, np.int32), np.empty(width, np.int32), np.empty(width, np.float32), np.empty(width, np.float32),
        np.empty(width, np.int32), np.empty(width, np.int32), np.empty(width, np.float32), np.empty(width, np.int32),
        np.empty(width, np.float32),
    )  # fmt: skip


@kernel()
def _count_up_to(buffer, pivot, count):
    """Count in each column of `buffer` (frame, x) the values that are not above the pivot."""
    frames, width = buffer.shape
    one, zero = np.int32(1), np.int32(0)
    count[:] = 0
    whole = frames - frames % 4
    for f in range(0, whole, 4):
        for i in range(width):
            p = pivot[i]
            first = (one if buffer[f, i] <= p else zero) + (one if buffer[f + 1, i] <= p else zero)
            second = (one if buffer[f + 2, i] <= p else zero) + (one if buffer[f + 3, i] <= p else zero)
            count[i] += first + second
    for f in range(whole, frames):
        for i in range(width):
            count[i] += one if buffer[f, i] <= pivot[i] else zero


@kernel(error_model="numpy")
def _begin(buffer, number, network, guess, search):
    """Guess from sorted samples of some frames where the middle lies, and how far apart values are there."""
    frames, width = buffer.shape
    for j in range(GUESS):
        for i in range(width):
            guess[j, i] = buffer[j * frames // GUESS, i]
    sort_columns(guess, network, width)
    for i in range(width):
        low, high = search.low[i], search.high[i]
        middle = np.float32(0.5) * (guess[GUESS // 2 - 1, i] + guess[GUESS // 2, i])
        search.pivot[i] = middle if low <= middle <= high else np.float32(0.5) * (low + high)
        apart = guess[3 * GUESS // 4 - 1, i] - guess[GUESS // 4, i]
        search.slope[i] = apart / np.float32((GUESS // 2 - 1) * frames / GUESS)
        search.under[i] = 0
        search.upto[i] = number[i]


@kernel(error_model="numpy")
def _narrow(search, turn):
    """Narrow each column's range by the count up to its pivot and set the next; return how many are not found.

    One array a loop, so that all become vectors.
    """
    rank, edge, low, high, under, upto, pivot, count, slope = search
    half, left = np.float32(0.5), np.int32(0)
    for i in range(rank.size):
        low[i] = pivot[i] if count[i] <= edge[i] else low[i]
    for i in range(rank.size):
        under[i] = count[i] if count[i] <= edge[i] else under[i]
    for i in range(rank.size):
        high[i] = pivot[i] if count[i] > rank[i] else high[i]
    for i in range(rank.size):
        upto[i] = count[i] if count[i] > rank[i] else upto[i]
    if turn == 0:
        for i in range(rank.size):
            missing = half * np.float32(rank[i] + edge[i] + np.int32(1)) - np.float32(count[i])
            pivot[i] += np.float32(_BEYOND) * missing * slope[i]
    elif turn > 4 and turn % 3 == 0:
        pivot[:] = low
    else:
        for i in range(rank.size):
            missing = half * np.float32(rank[i] + edge[i] + np.int32(1)) - np.float32(under[i])
            pivot[i] = low[i] + (high[i] - low[i]) * missing / np.float32(upto[i] - under[i])
    for i in range(rank.size):
        inside = (pivot[i] > low[i]) & (pivot[i] < high[i])
        pivot[i] = pivot[i] if inside else half * (low[i] + high[i])
    for i in range(rank.size):
        first, last, pair = under[i] == rank[i], upto[i] == edge[i] + np.int32(1), edge[i] > rank[i]
        found = (first & last) | ((under[i] == upto[i]) if pair else (first | last))
        left += np.int32(0) if found else np.int32(1)
    return left


@kernel()
def _select(buffer, number, network, guess, search, out):
    """Set `out` (x) to the sought value of each column of `buffer`, or the mean of both; return whether it is found."""
    frames, width = buffer.shape
    _begin(buffer, number, network, guess, search)
    for turn in range(_PASSES):
        _count_up_to(buffer, search.pivot, search.count)
        left = _narrow(search, turn)
        if left == 0:
            break
    if left:
        return False
    last, following = guess[0], guess[1]
    last[:] = -np.inf
    following[:] = np.inf
    for f in range(frames):
        for i in range(width):
            value = buffer[f, i]
            lower = value if value <= search.high[i] else np.float32(-np.inf)
            upper = value if value > search.low[i] else np.float32(np.inf)
            last[i] = lower if lower > last[i] else last[i]
            following[i] = upper if upper < following[i] else following[i]
    for i in range(width):
        one = last[i] if search.upto[i] == search.rank[i] + 1 else following[i]
        out[i] = np.float32(0.5) * (last[i] + following[i]) if search.edge[i] > search.rank[i] else one
        out[i] = out[i] if number[i] else np.float32(0)
    return True


@kernel()
def _collect_row(c, v, samples, buffer, number):
    """Copy the samples of row v into `buffer` (frame, x), infinity for missing ones, and count the others (x)."""
    number[:] = 0
    for f in range(samples.shape[0]):
        for i in range(samples.shape[3]):
            value = samples[f, c, v, i]
            good = value == value
            buffer[f, i] = value if good else np.float32(np.inf)
            number[i] += np.int32(1) if good else np.int32(0)


@kernel()
def _select_row(c, v, samples, rule, planes, guess, search):
    """Set median and floor of row v by selection; return whether that worked."""
    frames, width = samples.shape[0], samples.shape[3]
    buffer, number, median, floor = planes.sorted, planes.count[v], planes.median[v], planes.floor[v]
    _collect_row(c, v, samples, buffer, number)
    search.low[:] = np.inf
    search.high[:] = -np.inf
    for f in range(frames):
        for i in range(width):
            value = samples[f, c, v, i]
            search.low[i] = value if value < search.low[i] else search.low[i]
            search.high[i] = value if value > search.high[i] else search.high[i]
    for i in range(width):
        n = number[i]
        search.rank[i] = (n - 1) // 2 if n else 0
        search.edge[i] = n // 2
        if n == 0:
            search.low[i] = search.high[i] = 0
    if not _select(buffer, number, rule.few, guess, search, median):
        return False
    if rule.method != NOISE:
        return True
    search.edge[:] = search.rank
    search.low[:] = 0
    search.high[:] = 0
    for f in range(frames):
        for i in range(width):
            far = abs(buffer[f, i] - median[i])
            buffer[f, i] = far
            far = far if far < np.float32(np.inf) else np.float32(0)
            search.high[i] = far if far > search.high[i] else search.high[i]
    if not _select(buffer, number, rule.few, guess, search, floor):
        return False
    for i in range(width):
        floor[i] = (np.float32(MAD_TO_SIGMA) * floor[i]) ** 2 if number[i] >= MANY else np.float32(0)
    return True


@kernel()
def _local_range(median, spread, split):
    """Set `spread` (y, x) to (0.2 times the range of the median over 3 x 3 pixels)²."""
    height, width = median.shape
    even = (width + 1) // 2
    high = np.empty(width, np.float32)
    low = np.empty(width, np.float32)
    share = np.float32(LOCAL_RANGE * LOCAL_RANGE)
    for v in range(height):
        one, two, three = median[max(v - 1, 0)], median[v], median[min(v + 1, height - 1)]
        for i in range(width):
            top = one[i] if one[i] > two[i] else two[i]
            high[i] = top if top > three[i] else three[i]
            bottom = one[i] if one[i] < two[i] else two[i]
            low[i] = bottom if bottom < three[i] else three[i]
        out = spread[v]
        if not split:
            for i in range(width):
                left, right = max(i - 1, 0), min(i + 1, width - 1)
                out[i] = max(high[i], high[left], high[right]) - min(low[i], low[left], low[right])
        else:
            for i in range(even):
                left, right = even + max(i - 1, 0), min(even + i, width - 1)
                out[i] = max(high[i], high[left], high[right]) - min(low[i], low[left], low[right])
            for i in range(even, width):
                left, right = i - even, min(i - even + 1, even - 1)
                out[i] = max(high[i], high[left], high[right]) - min(low[i], low[left], low[right])
        for i in range(width):
            out[i] = share * out[i] * out[i]


@kernel()
def _sort_row(c, v, samples, network, buffer, number):
    """Sort the samples of row v into `buffer` (frame, x), missing ones last; return whether none is missing."""
    frames, width = samples.shape[0], samples.shape[3]
    _collect_row(c, v, samples, buffer, number)
    sort_columns(buffer, network, width)
    complete = True
    for i in range(width):
        complete &= number[i] == frames
    return complete


@kernel()
def _find_limits(buffer, number, rule, column, floor, ceiling):
    """Set the lowest and the highest sample (x) that a classical method keeps of sorted ones (frame, x)."""
    for i in range(number.size):
        n = number[i]
        for k in range(n):
            column[k] = buffer[k, i]
        down, up = count_rejected(column, n, rule.method, rule.low, rule.high, rule.table)
        floor[i] = column[down] if n else np.float32(0)
        ceiling[i] = column[n - 1 - up] if n else np.float32(0)


@kernel()
def find_medians(c: int, samples: np.ndarray, rule: RejectionRule, planes: PixelPlanes, split: bool) -> None:
    """Of one channel of (frame, channel, y, x): the median of every pixel, and what the method needs besides."""
    frames, _, height, width = samples.shape
    buffer = planes.sorted
    column, guess, search = np.empty(frames, np.float32), np.empty((GUESS, width), np.float32), _new_search(width)
    selected = frames >= SELECTED and (rule.method == NOISE or rule.method >= MEAN)
    for v in range(height):
        if selected and _select_row(c, v, samples, rule, planes, guess, search):
            continue
        number, median, floor = planes.count[v], planes.median[v], planes.floor[v]
        complete = _sort_row(c, v, samples, rule.network, buffer, number)
        if complete:
            one, two = buffer[(frames - 1) // 2], buffer[frames // 2]
            for i in range(width):
                median[i] = np.float32(0.5) * (one[i] + two[i])
        else:
            for i in range(width):
                n = number[i]
                median[i] = np.float32(0.5) * (buffer[(n - 1) // 2, i] + buffer[n // 2, i]) if n else np.float32(0)
        if rule.method == NOISE:
            floor[:] = 0.0
            if frames >= MANY:
                own_scatter(buffer, number, median, floor, complete)
        elif rule.method < MEAN:
            _find_limits(buffer, number, rule, column, floor, planes.ceiling[v])
    if rule.method == NOISE:
        _local_range(planes.median, planes.spread, split)
