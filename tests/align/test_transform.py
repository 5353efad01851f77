"""Fits recover the map they were given, reject what does not follow it, and state honest errors."""

import numpy as np
import pytest

from workbench.align import KINDS, Transform, fit_robust, fit_transform
from workbench.core.errors import WorkbenchError

RNG = np.random.default_rng(1)
HERE = RNG.uniform(0, 4000, (200, 2))


def example(kind: str) -> Transform:
    c, s = np.cos(0.02), np.sin(0.02)
    matrices = {
        "shift": [[0.01], [-0.004]],
        "similarity": [[0.01, c, -s], [-0.004, s, c]],
        "affine": [[0.01, 1.01, -0.02], [-0.004, 0.015, 0.99]],
        "homography": [[0.01, 1.01, -0.02], [-0.004, 0.015, 0.99], [0.003, -0.002, 1.0]],
        "quadratic": [[0.01, 1.01, -0.02, 0.001, 0.002, -0.001], [-0.004, 0.015, 0.99, 0.0, 0.001, 0.002]],
        "cubic": [[0.0, 1.0, 0.0, 0, 0, 0, 0.002, 0, 0.002, 0], [0.0, 0.0, 1.0, 0, 0, 0, 0, 0.002, 0, 0.002]],
    }
    return Transform(kind, np.array(matrices[kind]), (2000.0, 2000.0), 2000.0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_recovers_the_map(kind):
    truth = example(kind)
    there = np.stack(truth.apply(*HERE.T), 1)
    fitted, _ = fit_transform(HERE, there, kind=kind)
    np.testing.assert_allclose(np.stack(fitted.apply(*HERE.T), 1), there, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_inverse_undoes_it(kind):
    truth = example(kind)
    x, y = truth.inverse(*truth.apply(*HERE.T))
    np.testing.assert_allclose(np.stack([x, y], 1), HERE, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_plain_numbers_and_back(kind):
    truth = example(kind)
    again = Transform.from_dict(truth.to_dict())
    assert np.array_equal(np.stack(again.apply(*HERE.T)), np.stack(truth.apply(*HERE.T)))


def test_wrong_pairs_and_doubles_have_no_say():
    truth = example("similarity")
    there = np.stack(truth.apply(*HERE.T), 1) + RNG.normal(0, 0.1, HERE.shape)
    there[:40] += RNG.normal(0, 3, (40, 2))
    fitted, residuals = fit_robust(HERE, there, np.full(200, 0.1))
    assert fitted.kind == "similarity"
    got, true = np.stack(fitted.apply(*HERE.T), 1), np.stack(truth.apply(*HERE.T), 1)
    assert np.abs(got - true).max() < 0.1
    assert residuals["used"].values[40:].mean() > 0.95
    assert residuals["used"].values[:40].mean() < 0.3


def test_auto_takes_the_model_that_is_there():
    for kind in ("shift", "similarity", "affine", "homography", "cubic"):
        there = np.stack(example(kind).apply(*HERE.T), 1) + np.random.default_rng(3).normal(0, 0.05, HERE.shape)
        assert fit_robust(HERE, there, np.full(200, 0.05))[0].kind == kind


def test_the_stated_error_covers_the_truth():
    truth = example("affine")
    true = np.stack(truth.apply(*HERE.T), 1)
    pulls = []
    for seed in range(60):
        noise = np.random.default_rng(seed).normal(0, 0.1, HERE.shape)
        fitted, error = fit_transform(HERE[:40], true[:40] + noise[:40], 0.1, kind="affine")
        place = np.array(fitted.apply(*HERE[0])) - true[0]
        pulls.append(place / error[0])
    assert np.sqrt(np.mean(np.square(pulls))) == pytest.approx(1.0, abs=0.2)


def test_mistakes_are_named():
    with pytest.raises(WorkbenchError, match="none of shift"):
        fit_transform(HERE, HERE, kind="spline")
    with pytest.raises(WorkbenchError, match="needs 10 matched stars"):
        fit_transform(HERE[:8], HERE[:8], kind="cubic")
