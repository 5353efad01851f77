"""Spatial variance and its parts: rows, columns, single pixels; and the standard's high-pass.

EMVA 1288 release 4.0 (linear), sections 8.1 and 8.2: a picture is the sum of a row, a column and a pixel pattern,
which show apart in the means of its rows and columns.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from ..core.errors import WorkbenchError
from .kernels import Products, deviation_products, smooth_within

_BOXES = (7, 11)  # px; with the binomial (1 2 1)/4 they are the standard's smoothing
MARGIN = 9  # px at each side that the smoothing reaches: 3 + 5 + 1
INNER = slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN)
SMALLEST = 2 * MARGIN + 8  # a picture's shorter side [px]


class Spatial(NamedTuple):
    """A value and its parts, in the order of `PARTS`, with errors."""

    value: np.ndarray
    error: np.ndarray


PARTS = ("total", "row", "column", "pixel")


def _weights() -> np.ndarray:
    weights = np.array([0.25, 0.5, 0.25])
    for size in _BOXES:
        weights = np.convolve(weights, np.full(size, 1 / size))
    return weights


# the three steps in one (they commute), along either axis, of 2 MARGIN + 1 neighbours
_WEIGHTS = _weights()


def lowpass(picture: np.ndarray) -> np.ndarray:
    """Return the standard's smoothed picture: means over 7 x 7 px, then 11 x 11 px, then the 3 x 3 binomial (8.1).

    Edges are mirrored.
    """
    return smooth_within(np.pad(picture, MARGIN, "symmetric"), _WEIGHTS)


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
    return smooth_within(picture, _WEIGHTS)


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


class Kept(NamedTuple):
    """What the high-pass leaves of the variance of white noise, and how unevenly over the frequencies."""

    pixel: float
    line: float
    pixel_unevenness: float
    line_unevenness: float


EVERYTHING = Kept(1.0, 1.0, 0.0, 0.0)


@cache
def kept() -> Kept:
    """Return what the high-pass leaves of the variance of a white picture, and of a pattern of rows or columns.

    ⟨(1 − ĥ)²⟩ over the frequencies, ĥ the smoothing's.  What is lost differs from picture to picture: the variance of
    a variance of n numbers grows by 2/n times the unevenness, ⟨(1 − ĥ)⁴⟩/⟨(1 − ĥ)²⟩² − 1.

    Examples
    --------
    >>> round(kept().pixel, 3), round(kept().line, 3)
    (0.988, 0.889)
    """
    line = np.zeros((128, 1))
    line[64] = 1.0
    passed = np.fft.fft(np.roll(lowpass(line)[:, 0], -64)).real  # symmetric, so real
    powers = [(1 - np.multiply.outer(passed, passed)) ** 2, (1 - passed) ** 2]
    uneven = [float((power**2).mean() / power.mean() ** 2) - 1 for power in powers]
    return Kept(*(float(power.mean()) for power in powers), *uneven)


def spatial_parts(
    first: np.ndarray, second: np.ndarray | None = None, *, filtered: bool = False, ddof: int = 1
) -> np.ndarray:
    """Return the variances (total, row, column, pixel) of a picture, or what two pictures have in common.

    With s²_cav and s²_rav the variances of the column and row averages of M rows and N columns,
    s²_cav = s²_column + s²_pixel/M, s²_rav = s²_row + s²_pixel/N, s² = s²_row + s²_column + s²_pixel (EMVA 1288
    release 4.0, (37) to (42)).  Of two pictures of the same pattern with independent noise, covariances stand for the
    variances, and the noise is not in them.  `filtered` pictures are high-passed: the variance that a white pattern
    loses there is put back (see `kept`).

    Examples
    --------
    >>> rng = np.random.default_rng(2)
    >>> picture = rng.normal(0, 3, (400, 600)) + rng.normal(0, 1, 600)
    >>> spatial_parts(picture).round(1).tolist()
    [9.9, 0.0, 0.9, 9.0]
    """
    products = deviation_products(first, first if second is None else second)
    return _split(products, 2, first.shape, filtered=filtered, ddof=ddof)


def _split(products: Products, which: int, shape: tuple[int, int], *, filtered: bool, ddof: int = 1) -> np.ndarray:
    """Return the parts from the sums of products of one kind."""
    rows, columns = shape
    left = kept() if filtered else EVERYTHING
    # the high-pass takes the mean out of rows and columns, too: not their own degree of freedom, but a share of all
    ddof = 0 if filtered else ddof
    shares = [1 - 1 / (count + 2 * MARGIN) if filtered else 1.0 for count in (rows, columns)]
    rav = shares[0] * products.rows[which] / (rows - ddof)
    cav = shares[1] * products.columns[which] / (columns - ddof)
    whole = products.pixels[which] / (rows * columns - 1)
    pixel = (whole - rav - cav) / (left.pixel - left.line / columns - left.line / rows)
    row, column = rav / left.line - pixel / columns, cav / left.line - pixel / rows
    return np.array([row + column + pixel, row, column, pixel])


def common_parts(products: Products, shape: tuple[int, int], *, filtered: bool = False) -> Spatial:
    """Return the variances that two pictures of one pattern have in common, with errors for this very pattern.

    Of n pixels with variances V₁, V₂ and covariance C, Var(C) = (V₁V₂ − C²)/n: the noise; where high-passed, what
    the filter lost of the pattern differs by 2 C² times its unevenness over n, and the margin that it leaves out may
    differ by chance.  The same of the means of rows and columns, where the other parts of the pattern are noise too:
    (4 s² q + 2 q²)/M for M rows whose mean holds q besides their own.

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
    left = kept() if filtered else EVERYTHING
    total, row, column, pixel = value
    margin = 2 * MARGIN if filtered else 0
    unseen = 1 - size / ((rows + margin) * (columns + margin))
    noise = (max(one[0] * other[0] - total**2, 0.0) + 2 * (left.pixel_unevenness + unseen) * total**2) / size
    errors = [noise]
    for part, lines, beside in ((row, 1, columns), (column, 2, rows)):
        count = rows if lines == 1 else columns
        own = max(part, 0.0)
        # of the mean of a line: the single pixels' pattern, and the noise of either half
        pattern = max(pixel, 0.0) / beside
        halves = [max(half[lines] - part, 0.0) + max(half[3] - pixel, 0.0) / beside for half in (one, other)]
        spread = 4 * own * pattern + 2 * pattern**2
        spread += (own + pattern) * sum(halves) + halves[0] * halves[1]
        spread += 2 * (left.line_unevenness + margin / (count + margin)) * (own + pattern) ** 2
        errors.append(spread / count)
    errors.append(noise)
    return Spatial(value, np.sqrt(errors))


def root(spatial: Spatial) -> Spatial:
    """Return the standard deviations that belong to variances, 0 for one that came out negative."""
    value = np.sqrt(np.maximum(spatial.value, 0))
    above = np.sqrt(np.maximum(spatial.value + spatial.error, 0)) - value
    below = value - np.sqrt(np.maximum(spatial.value - spatial.error, 0))
    return Spatial(value, np.maximum(above, below))
