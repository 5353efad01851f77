"""Second moments of stars, on a whole plane and on the green pixels of a mosaic alone."""

import numpy as np
import pytest

from workbench.stars import FWHM_PER_SIGMA
from workbench.stars.shapes import intrinsic, measure


@pytest.mark.parametrize("mosaic", [False, True])
def test_covariances_are_those_of_the_image(painted, mosaic):
    image, x, y, _ = painted(6, fwhm=3.5, faintest=20000, elongation=1.3)
    flat = image - np.float32(200)
    if mosaic:
        flat[::2, ::2] = flat[1::2, 1::2] = 0
    sigma = 3.5 / FWHM_PER_SIGMA
    moments = measure(flat, x, y, sigma, 5.0, np.inf)
    xx, yy, xy = np.nanmedian(intrinsic(moments, sigma), axis=0) - np.array([1 / 12, 1 / 12, 0.0])
    assert xx == pytest.approx((1.3 * sigma) ** 2, rel=0.03)
    assert yy == pytest.approx(sigma**2, rel=0.03)
    assert abs(xy) < 0.03 * sigma**2
    assert np.nanmax(np.hypot(moments.x - x, moments.y - y)) < 0.3
