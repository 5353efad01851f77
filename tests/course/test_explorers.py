"""The explorers: what they compute is right, and the widgets move it."""

import course
import holoviews as hv
import numpy as np
import pytest
import xarray as xr
from course import explorers as explore

from tests.charts.drawn import check_drawn, parts
from workbench.core.errors import WorkbenchError
from workbench.stack.pixel import busiest_pixel, inspect_pixel


def test_refitting_with_every_level_gives_the_same_gain(result):
    curve, gain = explore.refit(result.ptc, 800.0, (0, np.inf))
    np.testing.assert_allclose(gain.gain.sel(iso=800), result.gain.gain.sel(iso=800))
    here = result.ptc.iso.values == 800
    np.testing.assert_array_equal(gain.used.values, result.gain.used.values[here])
    assert gain.used.sizes["pair"] == curve.sizes["pair"]


def test_refitting_leaves_out_what_lies_outside(result):
    curve, gain = explore.refit(result.ptc, 800.0, (0, 3000))
    outside = curve.signal.mean("channel").values > 3000
    assert outside.any()
    assert not gain.used.values[outside].any()
    assert gain.used.values[~outside].any()
    assert gain.gain_error.mean() > result.gain.gain_error.sel(iso=800).mean()


def test_refitting_says_what_is_missing(result):
    with pytest.raises(WorkbenchError, match=r"ISO 50 has no flats; flats exist at 200, 800"):
        explore.refit(result.ptc, 50.0, (0, 1e5))
    with pytest.raises(WorkbenchError, match="no pair of flats at ISO 800 lies between 90000 and 100000 ADU"):
        explore.refit(result.ptc, 800.0, (9e4, 1e5))


def test_the_ptc_explorer_answers_to_its_widgets(result):
    app = explore.ptc_explorer(result.ptc)
    (iso, levels), text, _ = app
    before = text.value
    assert "<b>G1</b> " in before
    iso.value = 800.0
    assert text.value != before
    levels.value = (0, 2000)
    assert text.value.count("e⁻/ADU") == 4


def test_the_dark_prediction_agrees_with_the_measured_darks(result):
    for group in range(result.dark_signal.sizes["group"]):
        dark = result.dark_signal.isel(group=group)
        predicted = explore.dark_noise(result.dark_law, float(dark.temperature), float(dark.exposure), 2.5)
        error = np.hypot(predicted["signal_error"], float(dark.dark_signal_error))
        assert abs(float(predicted["signal"]) - float(dark.dark_signal)) < 4 * error


def test_dark_noise_is_shot_noise_and_read_noise_in_quadrature():
    law = xr.Dataset(
        {
            "doubling_temperature": 6.0, "doubling_temperature_error": 0.1, "reference_temperature": 20.0,
            "dark_current_reference": 0.2, "dark_current_reference_error": 0.002,
        }
    )  # fmt: skip
    warm = explore.dark_noise(law, 26.0, 100.0, 3.0)
    assert float(warm["signal"]) == pytest.approx(40.0)
    assert float(warm["noise"]) == pytest.approx(7.0)
    assert float(warm["signal_error"]) == pytest.approx(40 * np.hypot(0.01, np.log(2) * 0.1 / 6))
    # where dark and read noise are equal, the coldest sensor has 29 % less; under a sky there is less to gain
    equal = explore.dark_noise(law, 20.0, 45.0, 3.0)
    assert 1 - float(equal["coldest"] / equal["noise"]) == pytest.approx(1 - 1 / np.sqrt(2))
    sky = explore.dark_noise(law, 20.0, 45.0, 3.0, sky=1.0)
    assert float(sky["noise"]) == pytest.approx(np.sqrt(9 + 45 + 9))
    assert float(sky["coldest"]) == pytest.approx(np.sqrt(45 + 9))


def test_the_dark_explorer_answers_to_its_widgets(result):
    app = explore.dark_explorer(result.dark_law)
    (temperature, exposure, sky), text, _ = app
    before = text.value
    temperature.value = 0
    assert text.value != before
    exposure.value = 1200
    assert "Dark signal <b>" in text.value
    assert "cooling can still take off <b>" in text.value
    before = text.value
    sky.value = 10
    assert text.value != before


def test_the_pixel_explorer_starts_where_it_is_asked_to(night):
    explorer = explore.pixel_explorer(night.aligned, 100, 200, "B")
    row, column, colour, threshold = explorer[0]
    assert (row.value, column.value, colour.value, threshold.value) == (100, 200, "B", 0)
    threshold.value = 3.0
    row.value = 101
    assert np.isfinite(threshold.value)


def test_a_sample_far_out_is_drawn_at_the_edge_with_its_value(night):
    pixel = inspect_pixel(night.aligned, *busiest_pixel(night.aligned))
    panel = course.pixel_decisions(pixel)[0]
    words = [word for one in panel if isinstance(one, hv.Labels) for word in one.dimension_values(2)]
    highest = float(pixel["value"].max())
    assert f"{highest:,.0f}" in words
    shown = np.concatenate([one.dimension_values(1) for one in panel if isinstance(one, hv.Scatter)])
    assert shown.max() < highest


def test_missing_samples_and_a_pixel_without_any_are_drawn_too(night):
    pixel = inspect_pixel(night.aligned, 0, 0)
    assert np.isnan(pixel["value"]).any()
    assert len(course.pixel_decisions(pixel)[0]) > 3


def test_decisions_about_a_pixel_are_all_drawn(night):
    pixel = inspect_pixel(night.aligned, *busiest_pixel(night.aligned))
    drawn = course.pixel_decisions(pixel)
    check_drawn(drawn)
    methods, known = pixel.sizes["rejection"], int(np.isfinite(pixel.value).sum())
    assert sum(len(part) for part in parts(drawn, hv.Scatter)) == methods * known
    out = sum(
        int((pixel.decision.sel(rejection=name).values[np.isfinite(pixel.value)] != 0).sum())
        for name in pixel.rejection.values
    )
    marker = [hv.Store.lookup_options("bokeh", part, "style").kwargs["marker"] for part in parts(drawn, hv.Scatter)]
    assert sum(len(part) for part, one in zip(parts(drawn, hv.Scatter), marker, strict=True) if one == "x") == out
    labels = [part.label for panel in drawn for part in panel if part.label and not isinstance(part, hv.Labels)]
    assert len(labels) == len(set(labels)), "each name once in the legend"
