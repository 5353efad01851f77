"""The likelihood of clipped bias frames finds the noise that made them, and its error says how well."""

import numpy as np
import pytest

from workbench.sensor import fit_clipped

PIXELS = 1536
BLOCKS = np.arange(PIXELS) * 32 // PIXELS


def clipped(sigma, *, pattern=0.4, level=0.0, wander=0.1, multiplier=1.0, frames=6, seed=0):
    rng = np.random.default_rng(seed)
    y = level + rng.normal(0, pattern, PIXELS) + rng.normal(0, wander, (frames, 1))
    y = np.maximum(np.rint(y + rng.normal(0, sigma, (frames, PIXELS))), 0)
    return np.rint(multiplier * y).astype(int)


@pytest.mark.parametrize(
    ("sigma", "changes"),
    [
        (1.5, {}),
        (1.5, {"pattern": 0.0, "frames": 2}),
        (2.4, {"pattern": 3.0}),
        (2.4, {"level": -2.0}),
        (2.4, {"level": 5.0}),
        (9.0, {"wander": 2.0}),
    ],
)
def test_unbiased_and_covered(sigma, changes):
    fits = [fit_clipped(clipped(sigma, seed=seed, **changes), BLOCKS) for seed in range(12)]
    assert not any(fit.problem for fit in fits)
    pulls = np.array([(fit.sigma - sigma) / fit.sigma_error for fit in fits])
    assert abs(pulls.mean()) < 1 / 3 + 3 / np.sqrt(12)
    assert 0.4 < np.sqrt((pulls**2).mean()) < 1.7
    assert max(fit.sigma_error for fit in fits) < 0.06 * sigma
    pattern = changes.get("pattern", 0.4)
    pulls = np.array([(fit.pattern - pattern) / fit.pattern_error for fit in fits if pattern and fit.pattern_error > 0])
    assert (np.abs(pulls) < 4).all()


def test_the_fixed_pattern_is_told_from_the_noise():
    fit = fit_clipped(clipped(2.0, pattern=0.9, frames=10), BLOCKS)
    np.testing.assert_allclose([fit.sigma, fit.pattern], [2.0, 0.9], rtol=0.06)


def test_a_multiplication_shows_in_the_missing_codes_and_can_be_given():
    codes = clipped(4.0, multiplier=1.16, frames=8)
    found, given = fit_clipped(codes, BLOCKS), fit_clipped(codes, BLOCKS, 1.16)
    np.testing.assert_allclose(found.multiplier, 1.16, atol=0.01)
    assert given.multiplier == 1.16
    for fit in (found, given):
        assert abs(fit.sigma - 4.0 * 1.16) < 3.5 * fit.sigma_error
    np.testing.assert_allclose(given.rounding_variance, (1.16**2 + 1) / 12)


def test_pixels_that_are_no_noise_do_not_count():
    codes = clipped(2.0)
    codes[3, ::300] = 900
    fit = fit_clipped(codes, BLOCKS)
    assert fit.pixels == PIXELS - len(range(0, PIXELS, 300))
    assert abs(fit.sigma - 2.0) < 3.5 * fit.sigma_error


def test_too_little_above_zero_gives_no_number():
    assert "above zero" in fit_clipped(clipped(1.0, level=-4.0), BLOCKS).problem
    assert "above zero" in fit_clipped(np.zeros((4, PIXELS), int), BLOCKS).problem
