"""Damage of every kind in one light among sound ones; trails, planets and crowded stars are none."""

import numpy as np
import pytest

from workbench.simulate import make_night, make_sky, render
from workbench.stars import survey_mosaic
from workbench.stars.damage import damaged_frames

SHAPE = (256, 384)


@pytest.fixture(scope="module")
def signals():
    """Five lights of a sky with many stars [e-]."""
    sky = make_sky(SHAPE, stars=400, seed=3)
    rng = np.random.default_rng(1)
    views = make_night(sky, 5, exposure=60, seed=3)
    return [(rng.poisson(60 * render(sky, one)) + rng.normal(0, 3, SHAPE)).astype("f4") for one in views]


def _found(signals, pattern):
    return damaged_frames({number: survey_mosaic(one, pattern).stars for number, one in enumerate(signals)})


def _noise(signal):
    signal[100:102] = np.random.default_rng(2).integers(0, 65535, (2, SHAPE[1])) / 4


def _zeros(signal):
    signal[200:203, :256] = -500.0


def _full(signal):
    signal[30:32] = 60000.0


def _much(signal):
    signal[60:200] = np.random.default_rng(2).integers(0, 65535, (140, SHAPE[1])) / 4


@pytest.mark.parametrize("pattern", ["mono", "RGGB"])
@pytest.mark.parametrize("damage", [_noise, _zeros, _full, _much])
def test_a_damaged_light_is_found_and_no_other(damage, pattern, signals):
    spoilt = [one.copy() for one in signals]
    damage(spoilt[3])
    found = _found(spoilt, pattern)
    assert list(found) == [3]
    rows = np.flatnonzero((spoilt[3] != signals[3]).any(axis=1))
    assert f"in rows {rows[0]} to {rows[-1]} are" in found[3]


@pytest.mark.parametrize("pattern", ["mono", "RGGB"])
def test_what_light_does_is_no_damage(pattern, signals):
    lights = [one.copy() for one in signals]
    rng = np.random.default_rng(4)
    lights[1][120:123] += rng.poisson([[400], [900], [400]], (3, SHAPE[1]))  # a satellite along a row
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    lights[2] += rng.poisson(30000 * (np.hypot(y - 80, x - 200) < 40))  # a planet
    lights[3] += rng.poisson(3000 * np.exp(-0.5 * ((y - 128) ** 2 + (x - 128) ** 2) / 60**2))  # a lit cloud
    lights[4][rng.random(SHAPE) < 0.02] += 5000  # cosmic rays
    assert _found(lights, pattern) == {}


def test_what_most_lights_have_is_no_damage(signals):
    lights = [one.copy() for one in signals]
    for one in lights:
        one[70:76, 60:330] = 60000.0  # a bright star's saturated spike
    assert _found(lights, "mono") == {}
