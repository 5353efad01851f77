"""Every chart of the registry: it draws in both backends, says what it shows, and shows what was measured."""

import dataclasses

import holoviews as hv
import matplotlib.pyplot as plt
import numpy as np
import pytest

from workbench import charts
from workbench.charts import dark, gain, theme
from workbench.charts.registry import REGISTRY, select
from workbench.core.errors import WorkbenchError
from workbench.core.values import value_text

BLOG = (
    "shot-noise-demo", "shot-noise-snr", "ccd-vs-cmos", "read-noise-vs-iso", "ptc", "iso-to-gain",
    "dark-current-vs-time", "dark-shot-noise-histogram", "dark-current-vs-temperature", "dcnu-histogram",
    "hot-pixels", "vignette", "dark-subtraction",
)  # fmt: skip
MEASURED = [name for name in BLOG if REGISTRY[name].needs]
WITHOUT_UNIT = {"ISO", "signal to noise", "pixels", "x", "y", "x1", "y1", "note"}  # pure numbers and places


def parts(layout, kind, label=None):
    """All elements of a kind, in all panels, with this label."""
    found = [part for panel in layout for part in panel if isinstance(part, kind)]
    return [part for part in found if label is None or part.label == label]


def test_the_blogs_charts_are_all_there():
    assert [name for name in REGISTRY if name in BLOG] == list(BLOG)
    assert all(charts.REGISTRY[name].id == name for name in BLOG)


@pytest.mark.parametrize("name", BLOG)
def test_each_chart_is_a_layout_whose_axes_have_units(result, name):
    drawn = REGISTRY[name].draw(result)
    assert isinstance(drawn, hv.Layout)
    demonstration = {"exposure"} if name == "shot-noise-demo" else set()  # its unit is one exposure
    for panel in drawn:
        for part in panel:
            for dim in part.dimensions():
                bare = dim.name.removesuffix(" error").removesuffix(" upper")
                assert dim.unit or bare in WITHOUT_UNIT | demonstration, f"{name}: {dim.name} has no unit"


@pytest.mark.parametrize("backend", ["bokeh", "matplotlib"])
@pytest.mark.parametrize("name", ["iso-to-gain", "vignette", "dcnu-histogram", "ccd-vs-cmos"])
def test_charts_draw_in_both_backends(result, name, backend):
    theme.load_backends()
    plot = hv.Store.renderers[backend].get_plot(REGISTRY[name].draw(result))
    assert plot.state is not None
    if backend == "matplotlib":
        plt.close(plot.state)


@pytest.mark.parametrize("name", MEASURED)
def test_captions_say_whose_data_it_is(result, name):
    caption, alt = REGISTRY[name].caption(result)
    assert "Simulated data: NIKON D7000 (simulated); 8 bias frames, 16 flats, 8 darks, 3 lights." in caption
    assert len(alt) > 60
    assert "nan" not in caption.lower().replace("nano", "")
    real = dataclasses.replace(result, simulated=False, camera="NIKON D7000")
    assert "Real data: NIKON D7000; 8 bias" in REGISTRY[name].caption(real).text


def test_captions_give_the_fit_results(result):
    law = result.dark_law
    doubling = value_text(float(law.doubling_temperature), float(law.doubling_temperature_error), "K")
    assert doubling in dark.dark_current_vs_temperature_caption(result).text
    unity = value_text(float(result.unity.unity_gain_iso), float(result.unity.unity_gain_iso_error))
    assert f"ISO {unity}" in gain.iso_to_gain_caption(result).text
    assert (
        f"KS distance {result.dark_noise.attrs['ks_distance']:.4f}"
        in dark.dark_shot_noise_histogram_caption(result).text
    )


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
    with pytest.raises(WorkbenchError, match=r"state no ISO; give it in frames\.csv"):
        charts.iso_to_gain(nameless)


def test_unknown_values_are_left_out_and_nothing_at_all_is_said(result):
    partial = result.gain.copy(deep=True)
    partial["gain"].loc[{"channel": "R"}] = np.nan
    partial["gain"].loc[{"channel": "B", "iso": 200}] = np.nan
    drawn = charts.iso_to_gain(partial, reference=False)
    assert parts(drawn, hv.Scatter, "R") == []
    assert [len(part) for part in parts(drawn, hv.Scatter, "B")] == [1, 1]
    assert "B not" not in gain.iso_to_gain_caption(dataclasses.replace(result, gain=partial)).text
    nothing = result.dark_signal.assign(dark_signal=result.dark_signal.dark_signal * np.nan)
    with pytest.raises(WorkbenchError, match="nothing to draw in the chart 'The dark signal grows with time'"):
        charts.dark_current_vs_time(nothing)


def test_ptc_tells_used_from_unused_pairs(result):
    drawn = charts.ptc(result.ptc, result.gain, iso=200)
    here = result.ptc.iso.values == 200
    used = result.gain.used.values[here]
    assert (~used).any()
    for number, channel in enumerate(result.ptc.channel.values):
        (shown,) = parts(drawn, hv.Scatter, channel)
        np.testing.assert_allclose(shown.dimension_values(1), result.ptc.variance.values[here][used[:, number], number])
    left_out = parts(drawn, hv.Scatter, "not used in the fit")[0]
    assert len(left_out) == (~used).sum()
    (floor,) = parts(drawn, hv.Curve, "floor without light")
    assert floor.dimension_values(1)[0] == pytest.approx(float(result.gain.intercept.sel(iso=200).mean()))


def test_ptc_draws_the_fit(result):
    curve = gain._curve(result.ptc, result.gain, 800.0, "B", ("B", "#0072b2", "B"))
    one = result.gain.sel(iso=800, channel="B")
    assert curve.slope == pytest.approx(1 / float(one.gain))
    assert curve.floor == pytest.approx(float(one.intercept))
    without = charts.ptc(result.ptc)
    assert not parts(without, hv.Curve)


def test_read_noise_in_electrons_combines_both_errors(result):
    drawn = charts.read_noise_vs_iso(result.read_noise, result.gain, reference=False)
    adu, electrons = parts(drawn, hv.Scatter, "R")
    noise, factor = result.read_noise.sel(channel="R"), result.gain.sel(channel="R")
    np.testing.assert_allclose(adu.dimension_values(1), noise.read_noise_adu)
    np.testing.assert_allclose(electrons.dimension_values(1), noise.read_noise_adu * factor.gain)
    relative = np.hypot(noise.read_noise_adu_error / noise.read_noise_adu, factor.gain_error / factor.gain)
    np.testing.assert_allclose(electrons.dimension_values(2), relative * noise.read_noise_adu * factor.gain)
    assert len(charts.read_noise_vs_iso(result.read_noise)) == 1


def test_the_temperature_law_and_its_band(result):
    drawn = charts.dark_current_vs_temperature(result.dark_current, result.dark_law)
    law = next(part for part in parts(drawn, hv.Curve) if part.label.startswith("doubles every"))
    x, y = law.dimension_values(0), law.dimension_values(1)
    slope = np.polyfit(x, np.log2(y), 1)[0]
    assert 1 / slope == pytest.approx(float(result.dark_law.doubling_temperature))
    at = np.interp(float(result.dark_law.reference_temperature), x, np.log(y))
    assert np.exp(at) == pytest.approx(float(result.dark_law.dark_current_reference), rel=1e-3)
    (band,) = parts(drawn, hv.Area)
    relative = float(result.dark_law.dark_current_reference_error / result.dark_law.dark_current_reference)
    assert np.min(band.dimension_values(2)) == pytest.approx(100 * relative, rel=0.02)


def test_dark_signal_lines_have_the_dark_current_as_slope(result):
    drawn = charts.dark_current_vs_time(result.dark_signal, result.dark_current)
    lines = [(part.dimension_values(0), part.dimension_values(1)) for part in parts(drawn, hv.Curve)]
    slopes = sorted({round(float(np.polyfit(x, y, 1)[0]), 6) for x, y in lines})
    np.testing.assert_allclose(slopes, np.sort(result.dark_current.dark_current.values), atol=1e-6)


def test_histograms_count_every_pixel(result):
    (noise,) = parts(charts.dark_shot_noise_histogram(result.dark_noise), hv.Histogram)
    assert np.sum(noise.dimension_values(1) * np.diff(noise.edges)) == pytest.approx(1, rel=1e-6)
    (dcnu,) = parts(charts.dcnu_histogram(result.dcnu), hv.Histogram)
    assert np.nansum(dcnu.dimension_values(1)) + result.dcnu.attrs["beyond"] == result.dcnu.attrs["n_pixels"]


def test_bars_on_a_logarithmic_axis_stand_on_something(result):
    drawn = charts.dcnu_histogram(result.dcnu)
    plot = hv.Store.renderers["bokeh"].get_plot(next(iter(drawn)))
    (bars,) = [part for part in plot.subplots.values() if type(part).__name__ == "HistogramPlot"]
    assert bars.handles["glyph"].bottom > 0  # from zero, bokeh would draw no bar at all
    assert bars.handles["glyph"].bottom < 1


def test_the_vignette_has_its_first_row_on_top(result):
    (image,) = parts(charts.vignette(result.vignetting), hv.Image)
    shown = image.dimension_values(2, flat=False)  # HoloViews: the first row is the lowest y
    np.testing.assert_allclose(shown, 100 * result.vignetting.illumination.values)


def test_dark_subtraction_shows_one_place_on_one_scale(result):
    drawn = charts.dark_subtraction(result.dark_subtraction)
    before, master, after = parts(drawn, hv.Image)
    assert before.bounds.lbrt() == after.bounds.lbrt() == master.bounds.lbrt()
    assert before.vdims[0].range == after.vdims[0].range == master.vdims[0].range
    values = [part.dimension_values(2, flat=False) for part in (before, master, after)]
    assert np.abs(values[0] - values[1] - values[2]).max() < 60  # each about its own medians
    hottest = np.unravel_index(np.argmax(values[1]), values[1].shape)
    assert values[0][hottest] > 5 * abs(values[2][hottest])


def test_hot_pixels_lie_where_they_were_found(result):
    drawn = charts.hot_pixels(result.hot_pixels)
    placed = {tuple(pair) for part in parts(drawn, hv.Scatter) for pair in part.array()[:, :2]}
    assert placed == set(zip(result.hot_pixels.x.values + 0.5, result.hot_pixels.y.values + 0.5, strict=True))


def test_snr_rises_as_the_root_of_the_electrons(result):
    drawn = charts.shot_noise_snr(result.snr)
    (law,) = parts(drawn, hv.Curve, "√N: shot noise alone")
    np.testing.assert_allclose(law.dimension_values(1) ** 2, law.dimension_values(0))
    shown = np.concatenate([part.dimension_values(1) for part in drawn.values()[-1] if isinstance(part, hv.Scatter)])
    np.testing.assert_allclose(np.sort(shown), np.sort(result.snr.snr.values))


def test_what_is_missing_is_named_with_what_to_shoot(result):
    bare = dataclasses.replace(result, dark_law=None)
    chart = REGISTRY["dark-current-vs-temperature"]
    assert chart.missing(bare) == ["dark_law"]
    assert "two or more sensor temperatures" in chart.shoot
    assert all(one.shoot for one in REGISTRY.values() if one.needs)


def test_select_refuses_a_name_it_does_not_know():
    assert [chart.id for chart in select(["ptc", "vignette"])] == ["ptc", "vignette"]
    with pytest.raises(WorkbenchError, match=r"no chart 'pct'; did you mean ptc\? The charts are shot-noise-demo, "):
        select(["pct"])


@pytest.mark.parametrize(
    ("value", "error", "written"),
    [
        (2.49312, 0.0123, "2.493 ± 0.012"),
        (1.2345, 0.0998, "1.23 ± 0.10"),
        (31234.0, 250.0, "31,230 ± 250"),
        (-0.3, 0.02, "-0.300 ± 0.020"),
        (5.0, float("nan"), "5.00"),
        (float("nan"), 1.0, "not measured"),
    ],
)
def test_numbers_are_written_to_two_figures_of_their_error(value, error, written):
    assert value_text(value, error) == written
