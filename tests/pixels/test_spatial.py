"""Smoothing, sums of products and the parts of a variance are what numpy and scipy give."""

import numpy as np
import pytest
from scipy import ndimage

from workbench.core.errors import WorkbenchError
from workbench.pixels.spatial import MARGIN, deviation_products, highpass, lowpass, passed_share, spatial_parts


def test_the_smoothing_is_the_standards_three_steps():
    picture = np.random.default_rng(0).normal(600, 3, (50, 70))
    box = ndimage.uniform_filter(ndimage.uniform_filter(picture, 7, mode="reflect"), 11, mode="reflect")
    binomial = np.outer([1, 2, 1], [1, 2, 1]) / 16
    expected = ndimage.convolve(box, binomial, mode="reflect")
    inner = slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN)
    np.testing.assert_allclose(lowpass(picture)[inner], expected[inner], rtol=1e-12)
    np.testing.assert_allclose(highpass(picture), (picture - expected)[inner], atol=1e-10)
    with pytest.raises(WorkbenchError, match="too small"):
        highpass(picture[:20])


def test_products_are_numpys_also_of_views():
    rng = np.random.default_rng(1)
    first, second = (rng.normal(1e4, 2, (40, 60)).astype(np.float32)[::2, 1::2] for _ in range(2))
    found = deviation_products(first, second)
    one, other = (picture.astype(float) - picture.mean(dtype=float) for picture in (first, second))
    np.testing.assert_allclose(found.pixels, [(one**2).sum(), (other**2).sum(), (one * other).sum()], rtol=1e-9)
    for axis, part in ((1, found.rows), (0, found.columns)):
        a, b = one.mean(axis=axis), other.mean(axis=axis)
        np.testing.assert_allclose(part, [a @ a, b @ b, a @ b], rtol=1e-6)


@pytest.mark.parametrize("filtered", [False, True])
def test_rows_columns_and_pixels_add_up_to_the_truth(filtered):
    rng = np.random.default_rng(2)
    shape = (600, 800)
    picture = rng.normal(0, 2, shape) + rng.normal(0, 0.7, (shape[0], 1)) + rng.normal(0, 0.5, shape[1])
    parts = spatial_parts(highpass(picture) if filtered else picture, filtered=filtered)
    np.testing.assert_allclose(parts, [4 + 0.49 + 0.25, 0.49, 0.25, 4], rtol=0.15)
    np.testing.assert_allclose(parts[0], parts[1:].sum())
    assert passed_share().line < passed_share().pixel < 1
