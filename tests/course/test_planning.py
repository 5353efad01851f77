"""The plan under another sky, in words and as a chart."""

import course
import holoviews as hv
import numpy as np
import pytest
import xarray as xr

from workbench import plan

CHANNELS = ["R", "G1", "G2", "B"]


@pytest.fixture
def sensor():
    values = {"gain": 0.5, "gain_error": 0.005, "read_noise": 2.5, "read_noise_error": 0.02, "black_level": 600.0}
    return xr.Dataset(
        {name: (("iso", "channel"), np.full((2, 4), value)) for name, value in values.items()},
        {"iso": [200.0, 800.0], "channel": CHANNELS},
    )


@pytest.fixture
def background():
    rates = {"rate": [1.0, 2.0, 2.0, 1.5], "sky": [0.9, 1.9, 1.9, 1.4], "dark": [0.1] * 4}
    errors = {"rate_error": [0.02] * 4, "sky_error": [0.02] * 4, "dark_error": [0.01] * 4}
    data = {name: ("channel", value) for name, value in (rates | errors).items()}
    return xr.Dataset(data, {"channel": CHANNELS}, {"white_level": 16383.0})


def test_only_the_sky_grows_brighter(background):
    assert course.brighter_sky(background, 10.0).rate.values == pytest.approx([9.1, 19.1, 19.1, 14.1])


def test_the_explorer_describes_the_plan(sensor, background):
    explorer = course.sub_length_explorer(sensor, background)
    (sky, _, longest), text, _ = explorer
    sky.value = 0.1
    assert text.value.startswith("<b>ISO ")
    assert "hours" in text.value
    assert "mount's limit" not in text.value
    sky.value, longest.value = 1, 10
    assert "mount's limit" in text.value


def test_the_text_is_that_of_the_plan(sensor, background):
    planned = plan.plan_subs(sensor, background, penalty=0.05, longest=600.0)
    text = course.sub_length_text(planned, sensor, background, background)
    assert text.startswith(f"**ISO {planned.attrs['best_iso']:g}, subs of ")


def test_a_drift_draws_stars_out():
    highest = [
        max(points.dimension_values(1).max() for points in course.mount_drift(drift)[0].traverse(specs=[hv.Scatter]))
        for drift in (0.0, 0.02)
    ]
    assert highest[1] > 1.2 * highest[0]
