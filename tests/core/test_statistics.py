"""Lines and the covariance of neighbours agree with what numpy gives."""

import numpy as np
import pytest

from workbench.core.statistics import fit_line, neighbour_covariance


@pytest.mark.parametrize("through_origin", [False, True])
def test_a_weighted_line_is_numpys_with_its_covariance(through_origin):
    rng = np.random.default_rng(0)
    x, error = rng.uniform(1, 9, (3, 20)), rng.uniform(0.5, 2, (3, 20))
    y = 2 * x + rng.normal(0, error)
    line = fit_line(x, y, 1 / error**2, through_origin=through_origin)
    for i in range(3):
        columns = [x[i]] if through_origin else [x[i], np.ones(20)]
        design = np.stack(columns, axis=1) / error[i][:, None]
        solution = np.linalg.lstsq(design, y[i] / error[i], rcond=None)[0]
        covariance = np.linalg.inv(design.T @ design)
        found = [part[i] for part in line[:2]][: len(columns)]
        np.testing.assert_allclose(found, solution)
        np.testing.assert_allclose(line.slope_variance[i], covariance[0, 0])
        if not through_origin:
            np.testing.assert_allclose(line.covariance[..., i], covariance)


def test_the_slope_of_noisy_lines_scatters_by_its_error():
    rng = np.random.default_rng(1)
    x = np.linspace(0, 10, 30)
    line = fit_line(x, 3 * x + 5 + rng.normal(0, 0.5, (2000, 30)), 1 / 0.5**2)
    pull = (line.slope - 3) / np.sqrt(line.slope_variance)
    assert abs(pull.mean()) < 0.1
    assert pull.std() == pytest.approx(1, abs=0.06)


def test_neighbours_of_smoothed_noise_share_what_smoothing_gave_them():
    noise = np.random.default_rng(2).normal(0, 2, (400, 401))
    smooth = (noise[:, 1:] + noise[:, :-1]) / 2  # variance 2, covariance 1 along rows
    covariance, pairs = neighbour_covariance(smooth, [(0, 0), (0, 1), (1, 0), (1, -1)])
    np.testing.assert_allclose(covariance, [2, 1, 0, 0], atol=0.05)
    assert pairs.tolist() == [400 * 400, 400 * 399, 399 * 400, 399 * 399]
    smooth[5, 7] = np.nan
    again, fewer = neighbour_covariance(smooth, [(0, 0), (0, 1), (1, 0), (1, -1)])
    np.testing.assert_allclose(again, covariance, atol=1e-3)
    assert (pairs - fewer).tolist() == [1, 2, 2, 2]
