"""The background under stars."""

import numpy as np
import pytest

from workbench.stars import block_background
from workbench.stars.background import _middle


def test_background_follows_a_gradient_under_stars(painted):
    image, *_ = painted(2, stars=80, faintest=20000)
    x = np.arange(image.shape[1])
    level, _ = block_background(image + (0.5 * x).astype(np.float32), 50)
    middle = (np.arange(8) + 0.5) * 50 - 0.5
    np.testing.assert_allclose(level.mean(0), 200 + 0.5 * middle, atol=4)
    assert np.median(block_background(image, 50)[1]) == pytest.approx(np.sqrt(200 + 25), rel=0.05)


@pytest.mark.parametrize("missing", [0, 7, 50])
def test_the_middle_of_a_sample_is_that_of_its_order(missing):
    rng = np.random.default_rng(missing)
    for values in (rng.normal(0, 5, 64), rng.normal(-1e5, 1, 64), np.abs(rng.normal(0, 1e-3, 64)), np.full(64, -2.5)):
        sample = values.astype(np.float32)
        count = 64 - missing
        sample[count:] = np.inf
        assert _middle(sample, count) == np.sort(sample)[count // 2]
