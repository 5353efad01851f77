"""One pass over a picture: the standard's smoothing, and the sums that spatial variances follow from."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from ..core.buffers import frame_memory


def smooth_within(picture: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return a picture weighted along columns and rows, of the pixels that have all their neighbours.

    Parameters
    ----------
    picture
        (y, x), a view with gaps too; floats.
    weights
        Of an odd number of neighbours 2 m + 1, symmetric, the same along both axes.

    Returns
    -------
    numpy.ndarray
        (y − 2 m, x − 2 m), of the picture's type.

    Examples
    --------
    >>> smooth_within(np.arange(12.0).reshape(3, 4), np.array([0.25, 0.5, 0.25]))
    array([[5., 6.]])
    """
    reach = weights.size - 1
    out = frame_memory(tuple(max(0, side - reach) for side in picture.shape), picture.dtype)
    if out.size:
        _smooth(picture, weights.astype(picture.dtype), out)
    return out


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _smooth(picture, weights, out):
    """Rows first, into a ring of as many rows as there are weights, then these together."""
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
    """Return the sums of squares and products, read once and summed in float64.

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


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _sum(first, second, pixels, by_row, by_column):
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


@numba.njit(nogil=True, cache=True, error_model="numpy")
def flatten(mean, half, y2, x2, lens, own, noise):
    """Divide two pictures by the light A (1 + a₂ρ² + a₄ρ⁴), ρ² = y2 + x2, into `own` and `noise`."""
    for y in range(mean.shape[0]):
        for x in range(mean.shape[1]):
            rho2 = y2[y] + x2[x]
            light = lens[0] * (np.float32(1) + rho2 * (lens[1] + lens[2] * rho2))
            own[y, x] = mean[y, x] / light
            noise[y, x] = half[y, x] / light


@numba.njit(nogil=True, cache=True, error_model="numpy")
def relate(own, noise, smooth, y2, x2, lens):
    """Turn `own` into its departure from `smooth` and `noise` into that share of it; return Σ 1/(smooth · light)²."""
    total = 0.0
    for y in range(own.shape[0]):
        for x in range(own.shape[1]):
            rho2 = y2[y] + x2[x]
            light = lens[0] * (np.float32(1) + rho2 * (lens[1] + lens[2] * rho2))
            inverse = np.float32(1) / smooth[y, x]
            own[y, x] = own[y, x] * inverse - np.float32(1)
            noise[y, x] *= inverse
            total += np.float64(np.square(inverse / light))
    return total
