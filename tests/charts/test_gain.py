"""Charts of the gain show what was measured: both ways round, the curve and its fit, darks, linearity."""

import dataclasses

import holoviews as hv
import numpy as np
import pytest

from tests.charts.drawn import check_drawn, columns, options, parts
from workbench import charts
from workbench.charts import gain
from workbench.charts.registry import REGISTRY
from workbench.core import open_sensor
from workbench.core.errors import WorkbenchError
from workbench.core.sensor_file import write_sensor


def test_iso_to_gain_shows_gain_and_its_inverse_with_errors(result):
    drawn = charts.iso_to_gain(result.gain, result.unity)
    one = result.gain.sel(channel="G1")
    direct, inverse = parts(drawn, hv.Scatter, "G1")
    np.testing.assert_allclose(direct.dimension_values(1), one.gain)
    np.testing.assert_allclose(inverse.dimension_values(1), 1 / one.gain)
    np.testing.assert_allclose(direct.dimension_values(2), one.gain_error)
    np.testing.assert_allclose(inverse.dimension_values(2), one.gain_error / one.gain**2)
    bars = [part for part in parts(drawn, hv.ErrorBars) if np.allclose(part.dimension_values(2), one.gain_error)]
    assert bars


def test_iso_to_gain_marks_unity_gain_and_the_blogs_points(result):
    drawn = charts.iso_to_gain(result.gain, result.unity)
    (star, _) = [part for part in parts(drawn, hv.Scatter) if part.label.startswith("unity gain")]
    assert star.dimension_values(0)[0] == float(result.unity.unity_gain_iso)
    assert star.dimension_values(1)[0] == 1.0
    direct, inverse = parts(drawn, hv.Scatter, "the blog's points (D7000)")
    assert dict(zip(inverse.dimension_values(0), inverse.dimension_values(1), strict=True))[800] == 3.68
    np.testing.assert_allclose(direct.dimension_values(1) * inverse.dimension_values(1), 1)
    assert not parts(charts.iso_to_gain(result.gain, reference=False), hv.Scatter, "the blog's points (D7000)")


def test_a_chart_against_iso_says_when_there_is_none(result):
    nameless = result.gain.assign_coords(iso=[np.nan, np.nan])
    with pytest.raises(WorkbenchError, match=r"no ISO and no gain setting; give one in frames\.csv"):
        charts.iso_to_gain(nameless)


def test_unknown_values_are_left_out_and_a_chart_of_none_is_refused(result):
    partial = result.gain.copy(deep=True)
    partial["gain"].loc[{"channel": "R"}] = np.nan
    partial["gain"].loc[{"channel": "B", "iso": 200}] = np.nan
    drawn = charts.iso_to_gain(partial, reference=False)
    assert parts(drawn, hv.Scatter, "R") == []
    assert [len(part) for part in parts(drawn, hv.Scatter, "B")] == [1, 1]
    assert "B not" not in REGISTRY["iso-to-gain"].caption(dataclasses.replace(result, gain=partial)).text
    nothing = result.dark_signal.assign(dark_signal=result.dark_signal.dark_signal * np.nan)
    with pytest.raises(WorkbenchError, match="nothing to draw in the chart 'The dark signal grows with time'"):
        charts.dark_current_vs_time(nothing)


def test_ptc_separates_used_from_unused_pairs(result):
    drawn = charts.ptc(result.ptc, result.gain, iso=200)
    here = result.ptc.iso.values == 200
    used = result.gain.used.values[here]
    assert (~used).any()
    for number, channel in enumerate(result.ptc.channel.values):
        (shown,) = parts(drawn, hv.Scatter, channel)
        np.testing.assert_allclose(shown.dimension_values(1), result.ptc.variance.values[here][used[:, number], number])
    left_out = parts(drawn, hv.Scatter, "not used in the fit")[0]
    drawable = result.ptc.variance.values[here] > 0  # not of a pair that is saturated all over: the axis is logarithmic
    assert len(left_out) == (~used & drawable).sum()
    (floor,) = parts(drawn, hv.Curve, "floor without light")
    assert floor.dimension_values(1)[0] == pytest.approx(float(result.gain.intercept.sel(iso=200).mean()))


def test_ptc_draws_the_fit(result):
    curve = gain._curve(result.ptc, result.gain, 800.0, "B", ("B", "#0072b2", "B"))
    one = result.gain.sel(iso=800, channel="B")
    assert curve.slope == pytest.approx(1 / float(one.gain))
    assert curve.floor == pytest.approx(float(one.intercept))
    without = charts.ptc(result.ptc)
    assert not parts(without, hv.Curve)


def test_points_of_darks_lie_on_the_line(result):
    found = result.transfer
    for panel in charts.dark_gain(found.dark_transfer, found.dark_gain, result.gain):
        (line,) = parts([panel], hv.Curve, "gain from darks")
        (dots,) = parts([panel], hv.Scatter, "G1")
        slope = line.dimension_values(1)[0] / line.dimension_values(0)[0]
        off = dots.dimension_values(1) - slope * dots.dimension_values(0)
        assert (abs(off) < 5 * dots.dimension_values(2)).all()


def test_linearity_shows_the_deviations_between_the_limits_of_the_lamp(result):
    linear = result.transfer.linearity
    drawn = charts.linearity(linear)
    for panel in drawn:
        iso = float(options(panel)["title"].removeprefix("ISO "))
        here = linear.isel(level=np.flatnonzero(linear.iso_of_level.values == iso))
        (blue,) = parts([panel], hv.Scatter, "B")  # the channel that has four levels below saturation at both ISOs
        np.testing.assert_allclose(blue.dimension_values(1), here.deviation.sel(channel="B").dropna("level"))
        (lamp,) = parts([panel], hv.Area, "the lamp's scatter")
        low, high = columns(lamp)[1:]
        np.testing.assert_allclose(low, -high)
        assert options(panel)["ylim"][1] > max(high.max(), abs(here.deviation).max())


@pytest.fixture(scope="module")
def cameras(result):
    """Two saved cameras: as measured, and one of twice the gain and half the read noise at two ISOs more."""
    other = result.sensor.assign(
        gain=2 * result.sensor.gain, gain_error=2 * result.sensor.gain_error,
        read_noise=result.sensor.read_noise / 2, read_noise_error=result.sensor.read_noise_error / 2,
        full_well=2 * result.sensor.full_well, full_well_error=result.sensor.full_well_error,
    ).assign_coords(iso=result.sensor.iso * 2)  # fmt: skip
    return {"D7000": result, "another": other}


@pytest.mark.parametrize(
    ("chart", "names"),
    [
        (charts.read_noise_vs_iso, ["read_noise"]),
        (charts.iso_to_gain, ["gain", "inverse"]),
        (charts.dynamic_range, ["dynamic_range", "full_well"]),
    ],
)
def test_several_cameras_in_one_chart(cameras, chart, names):
    drawn = chart(cameras)
    check_drawn(drawn)
    assert len(drawn) == len(names)
    for panel, name in zip(drawn, names, strict=True):
        assert options(panel)["show_legend"]
        labels = [part.label.removesuffix(": at least") for part in panel if isinstance(part, hv.Scatter)]
        assert labels == list(cameras)
        assert (
            len(
                {
                    hv.Store.lookup_options("bokeh", part, "style").kwargs["marker"]
                    for part in parts([panel], hv.Scatter)
                }
            )
            == 2
        )
        for camera, saved in cameras.items():
            sensor = getattr(saved, "sensor", saved)
            key = "gain" if name == "inverse" else name
            known = sensor[[key, f"{key}_error"]].dropna("iso", how="all")
            mean = known[key].mean("channel").values
            error = np.sqrt((known[f"{key}_error"] ** 2).sum("channel")).values / known[key].count("channel").values
            if name == "inverse":
                mean, error = 1 / mean, error / mean**2
            bounds = np.isinf(error).all()  # no flat of this small set reaches the full well
            (shown,) = parts([panel], hv.Scatter, f"{camera}: at least" if bounds else camera)
            iso, value, *bars = columns(shown)
            np.testing.assert_allclose(iso, known.iso)
            np.testing.assert_allclose(value, mean)
            assert bounds or np.allclose(bars, error)
            low, high = options(panel)["xlim"]
            assert low < iso.min() < iso.max() < high


def test_a_camera_without_the_quantity_is_left_out_and_none_at_all_is_refused(cameras):
    bare = cameras["another"].drop_vars(["read_noise"])
    drawn = charts.read_noise_vs_iso({"D7000": cameras["D7000"], "bare": bare})
    assert [part.label for part in parts(drawn, hv.Scatter)] == ["D7000"]
    with pytest.raises(WorkbenchError, match="no read noise is known of bare"):
        charts.read_noise_vs_iso({"bare": bare})
    with pytest.raises(WorkbenchError, match="no gain is known of any camera"):
        charts.iso_to_gain({})


def test_a_saved_camera_opens_into_the_same_chart(result, tmp_path):
    write_sensor(result.sensor, tmp_path)
    drawn, again = (charts.read_noise_vs_iso({"D7000": one}) for one in (result, open_sensor(tmp_path)))
    for one, other in zip(drawn[0], again[0], strict=True):
        np.testing.assert_allclose(columns(other), columns(one))
