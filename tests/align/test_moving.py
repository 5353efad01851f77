"""What moves among the stars: a planted comet is found where it is, and nothing else is."""

import numpy as np
import pytest

from workbench import align
from workbench.align.moving import find_moving, moving_warnings

START, STEP = np.array([200.0, 120.0]), np.array([9.0, 5.0])  # [px of the reference], of a frame


def planted(night, places, flux=6000.0, sigma=1.5):
    """The sample lights with a round object at a place (x, y) [px] of each."""
    lights = night.lights.copy(deep=True)
    y, x = np.indices(lights["signal"].shape[1:])
    for frame, (px, py) in zip(lights["signal"].values, places, strict=True):
        light = flux / (2 * np.pi * sigma**2) * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2))
        frame += light.astype("float32")
    return lights


@pytest.fixture(scope="module")
def times(night):
    """As if the lights had been taken in one night."""
    return night.lights["time"].values[0] + np.arange(night.lights.sizes["frame"]) * np.timedelta64(122, "s")


@pytest.fixture(scope="module")
def hours(times):
    return (times - times[0]) / np.timedelta64(1, "h")


def test_a_comet_is_found_where_it_is(night, times, hours):
    steady = hours / hours[-1] * (len(hours) - 1)
    true = START + steady[:, None] * STEP
    places = [night.registration.transform(number).apply(*place) for number, place in enumerate(true)]
    lights = planted(night, places)
    registration = align.register(lights, reference=night.registration.reference, progress=False)
    (comet,) = find_moving(registration, times)
    assert len(comet.frames) >= 7
    off = np.stack([comet.x, comet.y], axis=1) - true[list(comet.frames)]
    assert np.abs(off).max() < 0.7
    speed = np.hypot(*STEP) * (len(hours) - 1) / hours[-1]
    assert comet.speed == pytest.approx(speed, rel=0.03)
    (text,) = moving_warnings(registration, times)
    assert "a comet or an asteroid: from (20" in text


def test_stars_and_a_hot_pixel_do_not_move(night, times):
    assert find_moving(night.registration, times) == []
    spot = [(300.0, 200.0)] * night.lights.sizes["frame"]  # the sky moves past it
    lights = planted(night, spot)
    registration = align.register(lights, reference=night.registration.reference, progress=False)
    assert find_moving(registration, times) == []


def test_without_times_nothing_is_searched(night):
    assert find_moving(night.registration, np.full(8, np.datetime64("NaT"))) == []
