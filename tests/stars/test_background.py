"""The background under stars."""

import numpy as np
import pytest

from workbench.stars import block_background


def test_background_follows_a_gradient_under_stars(painted):
    image, *_ = painted(2, stars=80, faintest=20000)
    x = np.arange(image.shape[1])
    level, _ = block_background(image + (0.5 * x).astype(np.float32), 50)
    middle = (np.arange(8) + 0.5) * 50 - 0.5
    np.testing.assert_allclose(level.mean(0), 200 + 0.5 * middle, atol=4)
    assert np.median(block_background(image, 50)[1]) == pytest.approx(np.sqrt(200 + 25), rel=0.05)
