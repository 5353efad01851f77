"""Darks by group and temperature, the doubling law, and a dark that a library predicts."""

import course
import holoviews as hv
import numpy as np
import pytest
import xarray as xr

import workbench as wb
from tests.charts.drawn import check_drawn, parts, titles
from workbench.charts import theme
from workbench.core.errors import WorkbenchError

theme.load_backends()


def test_darks_are_chosen_by_group_and_temperature(frames, measured):
    noise, _, gain = measured
    groups = course.dark_groups(frames.dark)
    assert list(groups) == [f"{t} s at {c} °C, ISO 800" for c in (10, 20) for t in (120, 600)]
    layout = course.dark_difference(frames.dark, gain, noise, groups["120 s at 10 °C, ISO 800"])
    assert len(layout) == 2
    darks = wb.sensor.measure_dark(frames.dark, frames.bias, gain, progress=False)
    both, one = (course.dark_growth(darks, chosen) for chosen in ([10.0, 20.0], [20.0]))
    assert len(both[0]) > len(one[0])
    with pytest.raises(WorkbenchError, match="choose a temperature"):
        course.dark_growth(darks, [])


def test_the_law_needs_two_temperatures():
    current = xr.Dataset(
        {name: ("setting", [0.1, 0.4, 1.6]) for name in ("dark_current", "dark_current_common")}
        | {name: ("setting", [1e-3, 4e-3, 0.016]) for name in ("dark_current_error", "dark_current_scatter")},
        {"iso": ("setting", [200.0] * 3), "temperature": ("setting", [8.0, 20.0, 32.0])},
    )
    settings = course.dark_settings(current)
    assert list(settings.values()) == [0, 1, 2]
    assert len(course.doubling_law(current, [0, 2])) >= 1
    with pytest.raises(WorkbenchError, match="two temperatures"):
        course.doubling_law(current, [1])


def test_the_library_beside_a_dark_that_it_has_not_seen(frames):
    there = course.held_out_settings(frames.dark)
    drawn = course.held_out_dark(frames.dark, frames.bias, next(iter(there.values())))
    hv.render(drawn, backend="bokeh")
    title = list(drawn)[1].opts.get("plot", "matplotlib").kwargs["title"]
    assert 0.9 < float(title.split("=")[1]) < 1.1


def test_a_prediction_is_compared_pixel_by_pixel():
    rng = np.random.default_rng(1)
    signal = rng.gamma(2, 20, (40, 50))
    noise = rng.normal(0, 5.0, signal.shape)
    predicted, held_out = (
        xr.Dataset({"signal": (("y", "x"), one), "variance": (("y", "x"), np.full(one.shape, variance))})
        for one, variance in ((signal, 9.0), (signal + noise, 16.0))
    )
    drawn = course.dark_prediction(predicted, held_out)
    check_drawn(drawn)
    (hot,) = parts(drawn, hv.Scatter, "the 400 hottest")
    np.testing.assert_allclose(np.sort(hot.dimension_values(0)), np.sort(signal, axis=None)[-400:])
    assert titles(drawn)[1] == f"What is left: σ = {(noise / 5).std():.2f}"
    (pulls,) = parts(drawn, hv.Histogram, "pixels")
    assert pulls.dimension_values(1).sum() * np.diff(pulls.edges)[0] == pytest.approx((np.abs(noise) <= 20).mean())
