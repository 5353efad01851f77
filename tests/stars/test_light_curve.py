"""A star among others: what all of them share cancels, and the errors cover what is left."""

import numpy as np
import pytest

from workbench.core.errors import WorkbenchError
from workbench.stars import relative_flux

DEPTH = 0.02


def night(seed, frames=40, *, scatter=0.0, stars=8):
    """Fluxes and errors of stars (frame, star) through changing air; the first is dimmed in the middle third."""
    rng = np.random.default_rng(seed)
    level = np.r_[3e4, 10 ** rng.uniform(4, 5, stars - 1)]
    inside = np.abs(np.arange(frames) - frames / 2) < frames / 6
    true = (1 - 0.4 * rng.random((frames, 1))) * level
    true[inside, 0] *= 1 - DEPTH
    error = np.sqrt(true + 200.0**2)
    return rng.normal(true * rng.normal(1, scatter, true.shape), error), error, inside


def depth_of(found, inside):
    design = np.stack([np.ones(inside.size), -inside.astype(float)], axis=1)
    weight = found.error**-2
    covariance = np.linalg.inv((design * weight[:, None]).T @ design)
    level, depth = covariance @ ((design * weight[:, None]).T @ found.value)
    return depth / level, np.sqrt(covariance[1, 1]) / level


@pytest.mark.parametrize("scatter", [0.0, 0.01])
def test_the_depth_is_covered_as_often_as_its_error_claims(scatter):
    pulls, points = [], []
    for seed in range(150):
        flux, error, inside = night(seed, scatter=scatter)
        found = relative_flux(flux, error, 0)
        depth, doubt = depth_of(found, inside)
        pulls.append((depth - DEPTH) / doubt)
        points.append((found.check - np.average(found.check, weights=found.check_error**-2)) / found.check_error)
    assert 0.85 < np.sqrt(np.mean(np.square(pulls))) < 1.15  # 150 nights: 0.06
    assert abs(np.mean(pulls)) < 0.3
    assert 0.9 < np.sqrt(np.mean(np.square(points)) * 40 / 39) < 1.1


def test_scatter_beyond_the_noise_is_measured():
    found = [relative_flux(*night(seed, 80, scatter=0.01)[:2], 0) for seed in range(10)]
    assert np.mean([one.scatter for one in found]) == pytest.approx(0.01, rel=0.1)
    assert sum(relative_flux(*night(seed)[:2], 0).scatter > 0 for seed in range(40)) <= 2


def test_a_comparison_star_that_varies_is_left_out():
    flux, error, inside = night(3)
    flux[:, 2] *= 1 + 0.1 * np.sin(np.arange(40) / 5)
    found = relative_flux(flux, error, 0)
    assert not found.comparison[[0, 2]].any()
    assert found.comparison.sum() == 6
    depth, doubt = depth_of(found, inside)
    assert abs(depth - DEPTH) < 3 * doubt


def test_what_was_not_measured_is_left_out():
    flux, error, _ = night(4)
    flux[5, 1:4] = np.nan
    flux[7, 0] = np.nan
    flux[:20, 4] = np.nan
    found = relative_flux(flux, error, 0)
    assert np.flatnonzero(~np.isfinite(found.value)).tolist() == [7]
    assert not found.comparison[4]
    assert found.common_error[5] > np.median(found.common_error)


def test_too_few_stars_or_frames():
    flux, error, _ = night(1)
    with pytest.raises(WorkbenchError, match="40 frames, and 2 comparison stars .* needs 3 of both"):
        relative_flux(flux[:, :3], error[:, :3], 0)
    with pytest.raises(WorkbenchError, match="measured in 2 frames"):
        relative_flux(flux[:2], error[:2], 0)
