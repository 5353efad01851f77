"""The polynomials that the compiled loops weigh samples with, compared with Lanczos's kernel."""

import numpy as np
import pytest

from workbench.stack import lanczos3
from workbench.stack.lanczos import kernel_polynomials, squares_at, weights_at


@pytest.mark.parametrize(("narrowing", "close"), [(1.0, 2e-4), (0.85, 7e-4)])
def test_polynomials_are_the_kernel(narrowing, close):
    polynomials = np.array(kernel_polynomials(narrowing), float)
    fraction = np.linspace(0, 1, 501)
    got = np.array([weights_at(part - 0.5, polynomials) for part in fraction])
    wanted = lanczos3((np.arange(-2, 4) - fraction[:, None]) / narrowing)
    wanted /= wanted.sum(1, keepdims=True)
    np.testing.assert_allclose(got, wanted, atol=close)
    np.testing.assert_allclose(got[[0, -1]], wanted[[0, -1]], atol=1e-6)  # where a sample lies
    np.testing.assert_allclose(got.sum(1), 1, atol=1e-6)
    squares = np.array([squares_at(part - 0.5, polynomials) for part in fraction])
    np.testing.assert_allclose(squares, (got**2).sum(1), rtol=1e-3)  # of a sample's variance


def test_a_halved_kernel_adds_up_to_one():
    polynomials = np.array(kernel_polynomials(0.85, apart=0.25), float)
    sums = [sum(weights_at(part, polynomials)) for part in np.linspace(-0.5, 0.5, 101)]
    np.testing.assert_allclose(sums, 1, atol=1e-6)
