"""Runs that warm up, and cameras that take the mean dark off: both are noticed, and honest darks are not."""

from functools import partial

import numpy as np
import pytest

from tests.scenes import frames_of, less_mean_dark, true_gain
from workbench.sensor import dark_law, measure_dark
from workbench.sensor.law import run_trend
from workbench.simulate import d7000

ISO = 800.0


@pytest.fixture(scope="module")
def camera():
    return d7000(seed=8, shape=(96, 128))


gain_of = partial(true_gain, error=0.002)


def shoot(camera, settings, warming=0.0, subtract=False, times=None):
    """Darks of (exposure, stated temperature), the sensor warmer by up to `warming` along the run."""
    real = [(t, warm + warming * n / (len(settings) - 1)) for n, (t, warm) in enumerate(settings)]
    return frames_of(
        camera, "bias" if settings[0][0] < 1 else "dark", real, temperature=[warm for _, warm in settings],
        change=(lambda frame, n: less_mean_dark(camera, frame, *real[n])) if subtract else None,
        time=np.datetime64("NaT") if times is None else times, black_level=600,
    )  # fmt: skip


@pytest.fixture(scope="module")
def bias(camera):
    return shoot(camera, [(1e-4, 20.0)] * 6)


def test_a_run_that_warms_up_is_reported_in_kelvin(camera, bias):
    darks = measure_dark(shoot(camera, [(300.0, 18.0)] * 8, warming=3.0), bias, gain_of(camera), progress=False)
    np.testing.assert_allclose(darks.signal["heating"], 3.0, atol=0.6)
    warned = [text for text in darks.current.attrs["warnings"] if "warmed" in text]
    assert len(warned) == 1
    assert "18 °C" in warned[0]


def test_frames_count_in_the_order_of_time(camera, bias):
    times = np.datetime64("2025-01-18T20:00", "ns") + np.arange(8)[::-1] * np.timedelta64(5, "m")
    darks = measure_dark(
        shoot(camera, [(300.0, 18.0)] * 8, warming=3.0, times=times), bias, gain_of(camera), progress=False
    )
    np.testing.assert_allclose(darks.signal["heating"], -3.0, atol=1.3)


def test_steady_darks_are_left_alone(camera, bias):
    darks = measure_dark(shoot(camera, [(300.0, 18.0)] * 8), bias, gain_of(camera), progress=False)
    assert darks.signal["heating"].item() == 0
    assert not darks.current.attrs["warnings"]
    assert np.isnan(run_trend(np.array([1.0, 2.0, 3.0]))[0])
    chances = [run_trend(levels)[2] for levels in np.random.default_rng(1).normal(0, 1, (400, 6))]
    assert 2 < np.sum(np.array(chances) < 0.02) < 20  # one in fifty


def test_the_noise_gives_the_dark_current_that_a_camera_subtracts(camera, bias):
    settings = [(t, warm) for warm in (8.0, 14.0, 20.0) for t in (120.0, 600.0) for _ in range(3)]
    darks = measure_dark(shoot(camera, settings, subtract=True), bias, gain_of(camera), progress=False)
    current = darks.current
    truth = [camera.mean_dark_current(warm) for warm in (8.0, 14.0, 20.0)]
    pull = (current["dark_current"] - truth) / current["dark_current_error"]
    assert (np.abs(pull) < 3).all()
    assert sum("subtracts the mean dark" in text for text in current.attrs["warnings"]) == 1  # for three settings
    law = dark_law(current)
    assert abs(law["doubling_temperature"] - 6) < 3 * law["doubling_temperature_error"] < 1.5


def test_an_honest_cameras_noise_agrees_with_its_mean(camera, bias):
    settings = [(t, 20.0) for t in (120.0, 600.0) for _ in range(3)]
    current = measure_dark(shoot(camera, settings), bias, gain_of(camera), progress=False).current
    off = current["dark_current_variance"] - current["dark_current"]
    assert abs(off.item()) < 3 * current["dark_current_variance_error"].item()
    assert not current.attrs["warnings"]
