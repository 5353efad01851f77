"""The classical rejections against their definitions, and what they cost on clean samples."""

import numpy as np
import pytest

from workbench.stack.pixel import reject_samples
from workbench.stack.reject import METHODS, esd_critical_values, sorting_network

CLASSICAL = [name for name in METHODS if name not in ("noise", "mean", "median")]


def reject(values, method, **thresholds):
    """Flags of stacks of samples (frame, ...) by a method that looks at a pixel's own samples only."""
    cube = np.asarray(values).reshape(len(values), 1, -1)
    return reject_samples(cube, cube, cube, method, **thresholds).reshape(np.shape(values))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 20, 33, 100])
def test_the_network_sorts(count):
    values = np.random.default_rng(count).normal(size=(50, count))
    ordered = values.copy()
    for a, b in sorting_network(count):
        low, high = np.minimum(ordered[:, a], ordered[:, b]), np.maximum(ordered[:, a], ordered[:, b])
        ordered[:, a], ordered[:, b] = low, high
    assert np.array_equal(ordered, np.sort(values))


@pytest.mark.parametrize("method", CLASSICAL)
def test_an_outlier_goes_and_the_rest_stays(method):
    rng = np.random.default_rng(3)
    stack = rng.normal(100, 2, (20, 400)).astype(np.float32)
    stack[7] += 400
    stack[11, ::2] -= 90
    mask = reject(stack, method)
    assert (mask[7] == 1).all()
    assert (mask[11, ::2] == -1).all()
    others = np.delete(mask, [7, 11], axis=0)
    assert np.mean(others != 0) < 0.04


@pytest.mark.parametrize("method", CLASSICAL)
def test_missing_samples_are_never_rejected_or_counted(method):
    stack = np.random.default_rng(4).normal(100, 2, (12, 50)).astype(np.float32)
    whole = reject(stack, method)
    with_gaps = np.concatenate([stack, np.full((3, 50), np.nan, np.float32)])
    if method == "esd":  # the same significance for as many values
        pytest.skip("the critical values depend on the largest count only through the fraction allowed")
    assert np.array_equal(reject(with_gaps, method)[:12], whole)
    assert not reject(with_gaps, method)[12:].any()


def test_nists_example_of_the_generalised_esd():
    values = np.array(
        [-0.25, 0.68, 0.94, 1.15, 1.20, 1.26, 1.26, 1.34, 1.38, 1.43, 1.49, 1.49, 1.55, 1.56, 1.58, 1.65, 1.69, 1.70,
         1.76, 1.77, 1.81, 1.91, 1.94, 1.96, 1.99, 2.06, 2.09, 2.10, 2.14, 2.15, 2.23, 2.24, 2.26, 2.35, 2.37, 2.40,
         2.47, 2.54, 2.62, 2.64, 2.90, 2.92, 2.92, 2.93, 3.21, 3.26, 3.30, 3.59, 3.68, 4.30, 4.64, 5.34, 5.42, 6.01]
    )  # fmt: skip
    mask = reject(values, "esd", low=0.05, high=10 / 54)
    assert sorted(values[mask != 0].tolist()) == [5.34, 5.42, 6.01]
    np.testing.assert_allclose(esd_critical_values(54, 0.05, 2), [3.158, 3.151], atol=0.002)


def test_winsorized_follows_its_definition():
    values = np.random.default_rng(9).normal(10, 1, 15)
    values[3] = 25.0
    kept = np.sort(values.astype(np.float32)).astype(float)
    while True:
        centre, sigma = np.median(kept), np.std(kept, ddof=1)
        while True:
            new = 1.134 * np.std(np.clip(kept, centre - 1.5 * sigma, centre + 1.5 * sigma), ddof=1)
            settled = abs(new - sigma) <= 0.0005 * sigma
            sigma = new
            if settled:
                break
        inside = np.abs(kept - centre) <= 3 * sigma
        if inside.all():
            break
        kept = kept[inside]
    mask = reject(values, "winsorized")
    np.testing.assert_allclose(np.sort(values[mask == 0]), kept, rtol=1e-6)


def test_clean_samples_are_kept_by_esd():
    stack = np.random.default_rng(5).normal(0, 1, (12, 4000))
    touched = (reject(stack, "esd", low=0.05) != 0).any(0).mean()
    assert touched == pytest.approx(0.05, abs=0.03)  # three tests a stack, at 5 % each
