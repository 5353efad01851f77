"""A stack that grows: its mean and variance against what was put in, and outliers in any light."""

import numpy as np
import pytest

from workbench.stack.engine import Band, empty_output
from workbench.stack.live import add_band, empty_running, running_mean

SHAPE = (3, 64, 640)
LEVEL = np.array([100.0, 200.0, 50.0])


def grown(lights, *, outlier=None, size=1, seed=1):
    """Add lights of different noise to a stack; an `outlier` (light, column, electrons) stands in all rows."""
    rng = np.random.default_rng(seed)
    running = empty_running((3, SHAPE[1] // size, SHAPE[2] // size))
    weights = rng.uniform(0.5, 1.5, (lights, 3))
    for number in range(lights):
        out = empty_output(*SHAPE, 1)
        variance = np.broadcast_to((30 / weights[number])[:, None, None], SHAPE)
        out.signal[:] = LEVEL[:, None, None] + rng.normal(size=SHAPE) * np.sqrt(variance)
        out.variance[:], out.coverage[:] = variance, 1
        if outlier is not None and number == outlier[0]:
            out.signal[:, :, outlier[1]] += outlier[2]
        add_band(running, Band(0, out, np.empty(0)), number, weights[: number + 1], LEVEL, size)
    return running, *running_mean(running, weights, LEVEL)


@pytest.mark.parametrize("lights", [1, 2, 3, 4, 12])
@pytest.mark.parametrize("size", [1, 2])
def test_mean_and_variance_are_those_of_the_samples(lights, size):
    running, signal, variance = grown(lights, size=size)
    chi = np.mean((signal - LEVEL[:, None, None]) ** 2 / variance)
    assert abs(chi - 1) < 5 * np.sqrt(2 / signal.size) + 0.002  # two extremes in 30,000 are left out
    assert running.rejected.mean() < 2e-4
    assert (running.samples == lights).all()


@pytest.mark.parametrize("number", [0, 1, 2, 7, 11])
@pytest.mark.parametrize("electrons", [400.0, -400.0])
def test_an_outlier_never_reaches_the_mean_in_whichever_light_it_comes(number, electrons):
    _, signal, variance = grown(12, outlier=(number, 5, electrons))
    pull = (signal[:, :, 5] - LEVEL[:, None]) / np.sqrt(variance[:, :, 5])
    assert abs(pull.mean()) < 5 / np.sqrt(pull.size)
    assert pull.std() == pytest.approx(1, abs=5 / np.sqrt(2 * pull.size))


def test_what_two_lights_disagree_on_is_the_darker_of_the_two():
    _, signal, _ = grown(2, outlier=(0, 5, 400.0))
    assert abs(signal[:, :, 5] - LEVEL[:, None]).max() < 60


def test_the_majority_of_the_lights_is_right_wherever_the_first_ones_lay():
    """Two lights with a trail of the same place among the first three."""
    running = empty_running((1, 1, 1))
    weights = np.ones((40, 1))
    rng = np.random.default_rng(2)
    for number in range(40):
        out = empty_output(1, 1, 1, 1)
        out.signal[:] = 10 + rng.normal() + (500 if number in (0, 2) else 0)
        out.variance[:], out.coverage[:] = 1, 1
        add_band(running, Band(0, out, np.empty(0)), number, weights[: number + 1], np.zeros(1))
    signal, variance = running_mean(running, weights, np.zeros(1))
    assert abs(float(signal[0, 0, 0]) - 10) < 5 * float(variance[0, 0, 0]) ** 0.5


def test_pixels_that_no_light_reaches_have_no_value():
    running = empty_running((1, 2, 2))
    signal, variance = running_mean(running, np.ones((1, 1)), np.zeros(1))
    assert np.isnan(signal).all() and np.isnan(variance).all()  # noqa: PT018 - of one kind
