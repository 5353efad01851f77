"""Darks by group and temperature, the doubling law, and a dark that a library predicts."""

import course
import holoviews as hv
import xarray as xr

import workbench as wb
from workbench.charts import theme

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
    assert "Choose a temperature" in str(course.dark_growth(darks, [])[0].traverse(lambda part: part.data, [hv.Labels]))


def test_the_law_needs_two_temperatures():
    current = xr.Dataset(
        {name: ("setting", [0.1, 0.4, 1.6]) for name in ("dark_current", "dark_current_common")}
        | {name: ("setting", [1e-3, 4e-3, 0.016]) for name in ("dark_current_error", "dark_current_scatter")},
        {"iso": ("setting", [200.0] * 3), "temperature": ("setting", [8.0, 20.0, 32.0])},
    )
    settings = course.dark_settings(current)
    assert list(settings.values()) == [0, 1, 2]
    assert len(course.doubling_law(current, [0, 2])) >= 1
    asked = course.doubling_law(current, [1])[0].traverse(lambda part: part.data, [hv.Labels])
    assert "two temperatures" in str(asked)


def test_the_library_beside_a_dark_that_it_has_not_seen(frames):
    there = course.held_out_settings(frames.dark)
    drawn = course.held_out_dark(frames.dark, frames.bias, next(iter(there.values())))
    hv.render(drawn, backend="bokeh")
    title = list(drawn)[1].opts.get("plot", "matplotlib").kwargs["title"]
    assert 0.9 < float(title.split("=")[1]) < 1.1
