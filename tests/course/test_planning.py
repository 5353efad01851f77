"""The plan under another sky, in words and as a chart."""

import course
import holoviews as hv
import numpy as np
import pytest

from tests.scenes import plain_background, plain_sensor
from workbench import plan
from workbench.core.values import value_text

CHANNELS = ["R", "G1", "G2", "B"]


@pytest.fixture
def sensor():
    return plain_sensor()


@pytest.fixture
def background():
    return plain_background()


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
    hours = plan.target_hours(sensor, planned, background, 0.1, 10.0)  # as `plan_night` has them
    longest = int(np.argmax(hours.hours.values))
    assert value_text(float(hours.hours[longest]), float(hours.hours_error[longest]), "hours") in text
    assert f"in {CHANNELS[longest]}." in text


def test_a_drift_draws_stars_out():
    highest = [
        max(points.dimension_values(1).max() for points in course.mount_drift(drift)[0].traverse(specs=[hv.Scatter]))
        for drift in (0.0, 0.02)
    ]
    assert highest[1] > 1.2 * highest[0]
