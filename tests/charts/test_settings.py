"""Charts over settings: of ISOs on a logarithmic axis, of a cooled camera's gain settings on a linear one with 0."""

import dataclasses
import re

import holoviews as hv
import numpy as np
import pytest

from tests.charts.drawn import check_drawn, columns, options, parts, titles
from tests.scenes import in_gain_settings
from workbench import charts
from workbench.charts.registry import REGISTRY, select
from workbench.core.errors import WorkbenchError

GAIN_SETTINGS = {200.0: 0.0, 800.0: 120.0}  # of the small set's ISOs; its gains stay, which lie on both sides of 1


@pytest.fixture(scope="module")
def cooled(result):
    """The measurements of the small set, as of a camera with gain settings 0 and 120."""
    found = in_gain_settings(result, GAIN_SETTINGS)
    unity = result.unity.assign(unity_gain_iso=10.0, unity_gain_iso_error=0.5)
    split = found.transfer.split.assign(before_gain=1.5, before_gain_error=0.1, after_gain=2.0, invariance_iso=80.0)
    transfer = dataclasses.replace(found.transfer, split=split)
    return dataclasses.replace(found, unity=unity, transfer=transfer, camera="a cooled camera")


def _axis_words(layout):
    return {str(part.kdims[0]) for panel in layout for part in panel if isinstance(part, hv.Scatter)}


def _texts(layout):
    """All that can be read in a chart."""
    found = titles(layout)
    for panel in layout:
        for part in panel:
            found += [part.label, *(dim.pprint_label for dim in part.dimensions())]
            found += part["note"].tolist() if isinstance(part, hv.Labels) else []
    return found


@pytest.mark.parametrize(
    "name", [one.id for one in select() if one.needs] + ["noise-spectrum", "missing-codes", "dark-law"]
)
def test_no_chart_of_a_camera_without_iso_speaks_of_it(cooled, name):
    chart = REGISTRY[name].in_words_of(cooled)
    texts = [chart.title, chart.shoot]
    if not chart.missing(cooled):
        drawn, caption = chart.draw(cooled), chart.caption(cooled)
        check_drawn(drawn)
        texts += [*_texts(drawn), *caption]
    assert [text for text in texts if re.search(r"\bISOs?\b|nan", str(text))] == []


def test_titles_of_a_camera_with_iso_stay(result):
    for chart in REGISTRY.values():
        assert chart.in_words_of(result) == chart
    assert REGISTRY["read-noise-vs-iso"].title == "Read noise against ISO"


def test_gain_stands_over_gain_settings_without_a_law(cooled):
    drawn = charts.iso_to_gain(cooled.gain, cooled.unity)
    for panel, inverse in zip(drawn, (False, True), strict=True):
        assert (options(panel)["logx"], options(panel)["logy"]) == (False, True)
        low, high = options(panel)["xlim"]
        assert low < 0 < 120 < high
        assert options(panel)["xticks"] == [(0.0, "0"), (120.0, "120")]
        (green,) = parts([panel], hv.Scatter, "G1")
        assert green.kdims[0].name == "gain setting"
        assert green.vdims[0].unit == ("ADU/e⁻" if inverse else "e⁻/ADU")
        setting, value, _ = columns(green)
        assert setting.tolist() == [0, 120]
        np.testing.assert_allclose(value, cooled.gain.gain.sel(channel="G1") ** (-1 if inverse else 1))
        (line,) = parts([panel], hv.Curve, "interpolated")
        assert line.dimension_values(0).tolist() == [0, 120]
        assert not [part for part in panel if "/ ISO" in part.label or "D7000" in part.label]
        (star,) = parts([panel], hv.Scatter, "unity gain: gain setting 10.00 ± 0.50")
        assert [column.tolist() for column in columns(star)] == [[10], [1]]


def test_unity_gain_is_an_electron_a_step_of_the_converter(cooled):
    padded = cooled.gain.assign_attrs(step=16)
    direct, inverse = (parts([panel], hv.Scatter)[-1] for panel in charts.iso_to_gain(padded, cooled.unity))
    (star,) = [part for part in parts(charts.iso_to_gain(padded, cooled.unity), hv.Scatter) if "unity" in part.label][
        :1
    ]
    assert star.dimension_values(1)[0] == 1 / 16
    assert {direct.kdims[0].name, inverse.kdims[0].name} == {"gain setting"}
    caption = REGISTRY["iso-to-gain"].caption(dataclasses.replace(cooled, gain=padded)).text
    assert "one electron per step of the converter (16 ADU), is at gain setting 10.00 ± 0.50" in caption


def test_read_noise_and_dynamic_range_stand_over_gain_settings(cooled):
    for chart, logarithmic in (
        (charts.read_noise_vs_iso(cooled.read_noise, cooled.gain), (True, False)),
        (charts.dynamic_range(cooled.transfer.dynamic_range, cooled.transfer.wells), (False, True)),
        (charts.read_noise_split(cooled.transfer.split, cooled.read_noise, cooled.gain), (False, False)),
    ):
        assert _axis_words(chart) == {"gain setting"}
        assert [(options(panel)["logx"], options(panel)["logy"]) for panel in chart] == [
            (False, y) for y in logarithmic
        ]
        assert all(0 in columns(part)[0] for part in parts(chart, hv.Scatter, "G1"))
    drawn = charts.read_noise_split(cooled.transfer.split, cooled.read_noise, cooled.gain)
    (tail,) = parts(drawn, hv.Curve, "after the gain, in electrons")
    greens = cooled.gain.gain.sel(channel=["G1", "G2"]).mean("channel").values
    np.testing.assert_allclose(tail.dimension_values(1)[[0, -1]], 2 * greens)  # at 0 and 120, where it was measured
    assert parts(drawn, hv.Scatter)[-1].label.startswith("gain setting 80")


def test_plans_stand_over_gain_settings(cooled):
    budget = charts.noise_budget_chart(cooled.sensor)
    assert titles(budget) == ["At gain setting 0", "In 60 s"]
    assert options(budget[1])["xlim"] == (0, 120)
    assert not options(budget[1])["logx"]
    assert titles(charts.noise_budget_chart(cooled.sensor, iso=100))[0] == "At gain setting 120"


def test_a_camera_of_iso_and_one_of_gain_settings_share_no_axis(result, cooled):
    drawn = charts.read_noise_vs_iso({"A": cooled, "B": cooled.sensor})
    check_drawn(drawn)
    assert _axis_words(drawn) == {"gain setting"}
    for chart in (charts.read_noise_vs_iso, charts.iso_to_gain, charts.dynamic_range):
        with pytest.raises(
            WorkbenchError, match="^D7000 has ISO settings and A and B have gain settings, which share no"
        ):
            chart({"D7000": result, "A": cooled, "B": cooled.sensor})
