"""Spatial variance and its parts (rows, columns, single pixels), the standard's smoothing and high-pass.

EMVA 1288 release 4.0 (linear), sections 8.1 and 8.2: a picture is the sum of a row, a column and a pixel pattern,
which show apart in the means of its rows and columns.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from ..core.errors import WorkbenchError
from ..core.kernels import kernel
from ..core.mosaic import tiles
from ..core.parallel import frame_memory

MARGIN = 9  # px at each side that the smoothing reaches: 3 + 5 + 1
INNER = slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN)
SMALLEST = 2 * MARGIN + 8  # a picture's shorter side [px]
_LARGEST_SPECTRUM = 512  # px a side


PARTS = ("total", "row", "column", "pixel")
# the three steps in one (they commute), along either axis, of 2 MARGIN + 1 neighbours
_WEIGHTS = np.convolve(np.convolve([0.25, 0.5, 0.25], np.full(7, 1 / 7)), np.full(11, 1 / 11))


def lowpass(picture: np.ndarray) -> np.ndarray:
    """Return the standard's smoothed picture: means over 7 x 7 px, then 11 x 11 px, then the 3 x 3 binomial (8.1).

    Edges are mirrored.
    """
    return _smoothed(np.pad(picture, MARGIN, "symmetric"))


def inner_lowpass(picture: np.ndarray) -> np.ndarray:
    """Return the smoothed picture without the `MARGIN` that the smoothing reaches from outside.

    Raises
    ------
    WorkbenchError
        If it has fewer than 26 rows or columns.
    """
    if min(picture.shape) < SMALLEST:
        raise WorkbenchError(
            f"a picture of {picture.shape[1]} x {picture.shape[0]} px is too small for the standard's high-pass; "
            f"it needs {SMALLEST} px a side"
        )
    return _smoothed(picture)


def highpass(picture: np.ndarray) -> np.ndarray:
    """Return the picture less its `lowpass`, without the `MARGIN` that the smoothing reaches from outside.

    Vignetting, and shading by dust larger than some fifteen pixels, are gone from it.

    Raises
    ------
    WorkbenchError
        If it has fewer than 26 rows or columns.

    Examples
    --------
    >>> slope = np.add.outer(np.arange(40.0), 2 * np.arange(60.0))
    >>> flat = highpass(slope)
    >>> flat.shape, bool(np.abs(flat).max() < 1e-9)
    ((22, 42), True)
    """
    smooth = inner_lowpass(picture)
    return np.subtract(picture[INNER], smooth, out=smooth)


class Spatial(NamedTuple):
    """A value and its parts, in the order of `PARTS`, with errors."""

    value: np.ndarray
    error: np.ndarray


class PassedShare(NamedTuple):
    """Share of the variance of white noise that the high-pass leaves, and how unevenly over the frequencies."""

    pixel: float
    line: float
    pixel_unevenness: float
    line_unevenness: float


_UNFILTERED = PassedShare(1.0, 1.0, 0.0, 0.0)


@cache
def passed_share() -> PassedShare:
    """Return the share that the high-pass leaves of the variance of a white picture, and of rows or columns.

    ⟨(1 − ĥ)²⟩ over the frequencies, ĥ the smoothing's.  What is lost differs from picture to picture: the variance of
    a variance of n numbers grows by 2/n times the unevenness, ⟨(1 − ĥ)⁴⟩/⟨(1 − ĥ)²⟩² − 1.

    Examples
    --------
    >>> round(passed_share().pixel, 3), round(passed_share().line, 3)
    (0.988, 0.889)
    """
    line = np.zeros((128, 1))
    line[64] = 1.0
    passed = np.fft.fft(np.roll(lowpass(line)[:, 0], -64)).real  # symmetric, so real
    powers = [(1 - np.multiply.outer(passed, passed)) ** 2, (1 - passed) ** 2]
    uneven = [float((power**2).mean() / power.mean() ** 2) - 1 for power in powers]
    return PassedShare(*(float(power.mean()) for power in powers), *uneven)


def spatial_parts(picture: np.ndarray, *, filtered: bool = False, ddof: int = 1) -> np.ndarray:
    """Return the variances (total, row, column, pixel) of a picture, in its unit squared.

    With s²_cav and s²_rav the variances of the column and row averages of M rows and N columns,
    s²_cav = s²_column + s²_pixel/M, s²_rav = s²_row + s²_pixel/N, s² = s²_row + s²_column + s²_pixel (EMVA 1288
    release 4.0, (37) to (42)).  `filtered` pictures are high-passed: the variance that a white pattern loses there is
    put back (see `passed_share`).

    Examples
    --------
    >>> rng = np.random.default_rng(2)
    >>> picture = rng.normal(0, 3, (400, 600)) + rng.normal(0, 1, 600)
    >>> spatial_parts(picture).round(1).tolist()
    [9.9, 0.0, 0.9, 9.0]
    """
    return _split(deviation_products(picture, picture), 2, picture.shape, filtered=filtered, ddof=ddof)


def _split(products: Products, which: int, shape: tuple[int, int], *, filtered: bool, ddof: int = 1) -> np.ndarray:
    """Return the variances (total, row, column, pixel) from the sums of products of one kind (0, 1 or 2)."""
    rows, columns = shape
    left = passed_share() if filtered else _UNFILTERED
    # the high-pass takes the mean out of rows and columns, too: not their own degree of freedom, but a share of all
    ddof = 0 if filtered else ddof
    shares = [1 - 1 / (count + 2 * MARGIN) if filtered else 1.0 for count in (rows, columns)]
    rav = shares[0] * products.rows[which] / (rows - ddof)
    cav = shares[1] * products.columns[which] / (columns - ddof)
    whole = products.pixels[which] / (rows * columns - 1)
    pixel = (whole - rav - cav) / (left.pixel - left.line / columns - left.line / rows)
    row, column = rav / left.line - pixel / columns, cav / left.line - pixel / rows
    return np.array([row + column + pixel, row, column, pixel])


class Lines(NamedTuple):
    """Means of the rows (frame, y) and of the columns (frame, x) of each frame of a stack [ADU]."""

    rows: np.ndarray
    columns: np.ndarray


def chance_variances(mean: np.ndarray, half: np.ndarray, lines: Lines, *, filtered: bool = False) -> np.ndarray:
    """Return the variances of the common variances (total, row, column, pixel) that structure in the noise causes.

    Bands that wander from frame to frame agree between two halves by chance, far more than independent pixels do.  With
    the power D of half the halves' difference and M of their mean at each spatial frequency, the covariance of n pixels
    has the variance Σ (4 ⟨D⟩² + 4 ⟨D⟩ max(M − ⟨D⟩, 0))/n²; of means of rows and columns likewise.  Of whole rows and
    columns ⟨D⟩ is the power of their scatter over the N frames (⟨D²⟩ = ⟨D⟩² N/(N − 1)), elsewhere the one D that the
    halves show (⟨D²⟩ = 2⟨D⟩²).  Large pictures are binned to 512 blocks a side, which smooth structure survives.

    Examples
    --------
    >>> frames = np.random.default_rng(1).normal(0, 1, (8, 64, 64))
    >>> bands = frames + np.sin(np.arange(64) / 5 + np.arange(8)[:, None] ** 2)[..., None]
    >>> def found(y):
    ...     odd, even = y[::2].mean(0), y[1::2].mean(0)
    ...     return chance_variances((odd + even) / 2, (odd - even) / 2, Lines(y.mean(2), y.mean(1)))[0]
    >>> bool(found(bands) > 10 * found(frames))
    True
    """
    count = len(lines.rows)
    of_frames = (count - 1) / count  # ⟨D⟩² over the square of the D measured; 1/2 of the halves
    scale = -(-max(mean.shape) // _LARGEST_SPECTRUM)
    away = [_deviations_of_lines(profiles, filtered) for profiles in lines]
    of_mean, of_half = (_power(tiles(one, scale).mean(axis=(2, 3), dtype=float)) for one in (mean, half))
    by_line = [
        _chance(_power(mean.mean(axis=axis, dtype=float)), _power_of_frames(one), of_frames)
        for axis, one in ((1, away[0]), (0, away[1]))
    ]
    square, apart = np.full(of_half.shape, 0.5), of_half.copy()
    for place, one, length in ((np.s_[:, 0], away[0], of_half.shape[1]), (np.s_[0], away[1], of_half.shape[0])):
        binned = one[:, : one.shape[1] // scale * scale].reshape(count, -1, scale).mean(axis=2)
        of_half[place], square[place], apart[place] = length * _power_of_frames(binned), of_frames, 0
    return np.array([_chance(of_mean, of_half, square), *by_line, _chance(of_mean, apart, 0.5)])


def _power(picture: np.ndarray) -> np.ndarray:
    return np.abs(np.fft.fftn(picture - picture.mean())) ** 2 / picture.size


def _chance(of_mean: np.ndarray, of_half: np.ndarray, square: np.ndarray | float) -> float:
    """Return the variance of a covariance from the powers M and D, ⟨D⟩² being `square` · D²."""
    each = 4 * square * of_half**2 + 4 * of_half * np.maximum(of_mean - of_half, 0)
    return float(each.sum()) / of_half.size**2


def _deviations_of_lines(profiles: np.ndarray, filtered: bool) -> np.ndarray:
    """Return what means of lines (frame, line) are off their mean over the frames, high-passed like the picture."""
    away = profiles - profiles.mean(axis=0)
    away -= away.mean(axis=1, keepdims=True)
    return np.stack([one[INNER[0]] - np.convolve(one, _WEIGHTS, "valid") for one in away]) if filtered else away


def _power_of_frames(away: np.ndarray) -> np.ndarray:
    """Return the power of half the difference of the even and odd frames' means, from each frame's own deviations."""
    count, size = away.shape
    of_halves = (1 / (count // 2) + 1 / (count - count // 2)) / 4  # of a frame's variance
    return of_halves * (np.abs(np.fft.fft(away)) ** 2).sum(axis=0) / (count - 1) / size


def common_parts(
    products: Products, shape: tuple[int, int], *, filtered: bool = False, chance: np.ndarray | None = None
) -> Spatial:
    """Return the variances that two pictures of one pattern have in common, with errors for this very pattern.

    Of n pixels with variances V₁, V₂ and covariance C, Var(C) = (V₁V₂ − C²)/n: the noise; where high-passed, what
    the filter lost of the pattern differs by 2 C² times its unevenness over n, and the margin that it leaves out may
    differ by chance.  The same of the means of rows and columns, where the other parts of the pattern are noise too:
    (4 s² q + 2 q²)/M for M rows whose mean holds q besides their own.  Errors are at least `chance_variances`.

    Examples
    --------
    >>> rng = np.random.default_rng(3)
    >>> pattern = rng.normal(0, 1, (200, 300))
    >>> halves = pattern + rng.normal(0, 2, (2, *pattern.shape))
    >>> common = common_parts(deviation_products(*halves), pattern.shape)
    >>> bool(abs(common.value[0] - pattern.var()) < 3 * common.error[0]), round(float(common.error[0]), 3)
    (True, 0.02)
    """
    rows, columns = shape
    size = rows * columns
    one, other, value = (_split(products, which, shape, filtered=filtered) for which in range(3))
    left = passed_share() if filtered else _UNFILTERED
    total, row, column, pixel = value
    margin = 2 * MARGIN if filtered else 0
    unseen = 1 - size / ((rows + margin) * (columns + margin))
    noise = (max(one[0] * other[0] - total**2, 0.0) + 2 * (left.pixel_unevenness + unseen) * total**2) / size
    errors = [noise]
    for index, part, count, length in ((1, row, rows, columns), (2, column, columns, rows)):
        own = max(part, 0.0)
        # of the mean of a line of that length: the single pixels' pattern, and the noise of either half
        pattern = max(pixel, 0.0) / length
        halves = [max(half[index] - part, 0.0) + max(half[3] - pixel, 0.0) / length for half in (one, other)]
        spread = 4 * own * pattern + 2 * pattern**2
        spread += (own + pattern) * sum(halves) + halves[0] * halves[1]
        spread += 2 * (left.line_unevenness + margin / (count + margin)) * (own + pattern) ** 2
        errors.append(spread / count)
    errors.append(noise)
    return Spatial(value, np.sqrt(errors if chance is None else np.maximum(errors, chance)))


def standard_deviations(spatial: Spatial) -> Spatial:
    """Return the standard deviations that belong to variances, 0 for one that came out negative."""
    value = np.sqrt(np.maximum(spatial.value, 0))
    above = np.sqrt(value**2 + spatial.error) - value  # the truth is at least 0
    below = value - np.sqrt(np.maximum(spatial.value - spatial.error, 0))
    return Spatial(value, np.maximum(above, below))


def total_alone(spatial: Spatial, *, filtered: bool) -> Spatial:
    """Return the standard deviations of variances of X-Trans, a row of whose planes is none of the sensor's: the total.

    What the high-pass takes of the sensor's rows and columns is put back only in part: half of what shows of them is
    the error.
    """
    lines = np.maximum(spatial.value[1:3], 0).sum() / 2 if filtered else 0.0
    roots = standard_deviations(Spatial(spatial.value, np.hypot(spatial.error, lines)))
    return Spatial(*(np.where(np.arange(len(PARTS)) == 0, one, np.nan) for one in roots))


def _smoothed(picture: np.ndarray) -> np.ndarray:
    """The smoothed picture, of the pixels that have all their neighbours: (y - 18, x - 18), of the picture's type."""
    out = frame_memory(tuple(max(0, side - 2 * MARGIN) for side in picture.shape), picture.dtype)
    if out.size:
        _smooth(picture, _WEIGHTS.astype(picture.dtype), out)
    return out


@kernel(error_model="numpy", fastmath={"contract", "reassoc"})
def _smooth(picture, weights, out):
    """Smooth (y, x) into `out` (y − 2 m, x − 2 m) with 2 m + 1 weights: rows into a ring of as many, then these."""
    size = weights.size
    middle = size // 2
    columns = out.shape[1]
    origin = picture[0, 0]  # sums of what is left without it lose no digits
    line = np.empty(picture.shape[1], picture.dtype)
    ring = np.empty((size, columns), picture.dtype)
    for y in range(picture.shape[0]):
        for x in range(line.size):
            line[x] = picture[y, x] - origin
        here = ring[y % size]
        centre = line[middle : middle + columns]
        for x in range(columns):
            here[x] = weights[middle] * centre[x]
        for k in range(middle):
            left, right, weight = line[k : k + columns], line[size - 1 - k : size - 1 - k + columns], weights[k]
            for x in range(columns):
                here[x] += weight * (left[x] + right[x])
        top = y - size + 1
        if top < 0:
            continue
        result, centre = out[top], ring[(top + middle) % size]
        for x in range(columns):
            result[x] = origin + weights[middle] * centre[x]
        for k in range(middle):
            one, other, weight = ring[(top + k) % size], ring[(y - k) % size], weights[k]
            for x in range(columns):
                result[x] += weight * (one[x] + other[x])


class Products(NamedTuple):
    """Sums of products of two pictures' deviations from their means, for (first², second², first × second).

    `pixels` over all pixels; `rows` and `columns` over the means of rows and of columns.
    """

    pixels: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    def of_halves(self, count: int) -> Products:
        """Return those of the means of the even and the odd of `count` frames.

        For products of the mean picture and half the difference of the two.
        """
        odd = 2 * (count // 2) / count
        mix = np.array([[1, odd**2, 2 * odd], [1, (2 - odd) ** 2, 2 * odd - 4], [1, odd * (odd - 2), 2 * odd - 2]])
        return Products(*(mix @ part for part in self))


def deviation_products(first: np.ndarray, second: np.ndarray) -> Products:
    """Return the sums of squares and products of two pictures (y, x), read once and summed in float64.

    Examples
    --------
    >>> picture = np.array([[1.0, 2.0], [3.0, 6.0]])
    >>> found = deviation_products(picture, -picture)
    >>> found.pixels.tolist(), found.rows.tolist()
    ([14.0, 14.0, -14.0], [4.5, 4.5, -4.5])
    """
    rows, columns = first.shape
    pixels, by_row, by_column = np.zeros(3), np.zeros((2, rows)), np.zeros((2, columns))
    _sum(first, second, pixels, by_row, by_column)

    def of(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.array([one @ one, other @ other, one @ other])

    means = by_row.mean(axis=1) / columns
    return Products(
        pixels - rows * columns * of(means[:1], means[1:]),
        of(*(by_row / columns - means[:, None])),
        of(*(by_column / rows - means[:, None])),
    )


@kernel(error_model="numpy", fastmath={"contract", "reassoc"})
def _sum(first, second, pixels, by_row, by_column):
    """Add up two pictures (y, x) less their first pixels: (first², second², product), (2, y) and (2, x), in place."""
    columns = first.shape[1]
    origin, other_origin = np.float64(first[0, 0]), np.float64(second[0, 0])
    one, other = np.empty(columns), np.empty(columns)
    for y in range(first.shape[0]):
        for x in range(columns):  # together in memory, whatever the pictures are views of
            one[x] = first[y, x] - origin
            other[x] = second[y, x] - other_origin
        a, b, aa, bb, ab = 0.0, 0.0, 0.0, 0.0, 0.0
        for x in range(columns):
            a += one[x]
            b += other[x]
            aa += one[x] * one[x]
            bb += other[x] * other[x]
            ab += one[x] * other[x]
        by_row[0, y], by_row[1, y] = a, b
        pixels[0] += aa
        pixels[1] += bb
        pixels[2] += ab
        for x in range(columns):
            by_column[0, x] += one[x]
            by_column[1, x] += other[x]
