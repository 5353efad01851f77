"""Charts of uniformity show every pixel that was counted, the patterns, their parts and the defects."""

import holoviews as hv
import numpy as np
import pytest

from tests.charts.drawn import check_drawn, columns, options, parts, titles
from workbench import charts
from workbench.charts.registry import REGISTRY
from workbench.pipelines import characterize


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


def test_hot_pixels_lie_where_they_were_found(result):
    drawn = charts.hot_pixels(result.hot_pixels)
    placed = {tuple(pair) for part in parts(drawn, hv.Scatter) for pair in part.array()[:, :2]}
    assert placed == set(zip(result.hot_pixels.x.values + 0.5, result.hot_pixels.y.values + 0.5, strict=True))


def test_fixed_patterns_are_shown_between_three_deviations(result):
    found = result.uniformity
    drawn = charts.fixed_pattern(found.bias_pattern, found.flat_pattern)
    for image, pattern in zip(parts(drawn, hv.Image), (found.bias_pattern, found.flat_pattern), strict=True):
        np.testing.assert_allclose(image.dimension_values(2, flat=False), pattern.picture.values)
        low, high = image.vdims[0].range
        assert high == -low == pytest.approx(3 * 1.4826 * np.median(abs(pattern.picture - np.median(pattern.picture))))


def test_spectrograms_are_along_rows_and_columns(result):
    found = result.uniformity
    drawn = charts.spectrogram(found.bias_pattern, found.flat_pattern)
    assert titles(drawn) == ["In the dark: DSNU", "In the light: PRNU"]
    for panel, pattern in zip(drawn, (found.bias_pattern, found.flat_pattern), strict=True):
        for label, name in (("along the rows", "along_rows"), ("along the columns", "along_columns")):
            (curve,) = parts([panel], hv.Curve, label)
            np.testing.assert_allclose(columns(curve), [pattern.frequency, pattern[name]])
        (noise,) = parts([panel], hv.Curve, "temporal noise left")
        assert noise.dimension_values(1).tolist() == [float(pattern.noise)] * 2


def test_parts_of_the_uniformity_have_their_errors(result):
    prnu = result.uniformity.prnu
    panel = charts.uniformity_parts(None, prnu)[0]
    one = prnu.sel(filter="highpass", channel="G1", part=["total", "pixel", "column", "row"])
    (shown,) = parts([panel], hv.Scatter, "G1")
    np.testing.assert_allclose(columns(shown)[1:], [one.prnu, one.prnu_error])
    assert [name for _, name in options(panel)["xticks"]] == ["in all", "pixels", "columns", "rows"]


def test_defects_are_counted_and_lie_where_they_were_found(result):
    found = result.uniformity.defects
    counts = {kind: count for kind, count in found.attrs["counts"].items() if count}
    left, right = charts.defects(found)
    noted = [text for note in parts([left], hv.Labels) for text in note.dimension_values(2)]
    assert noted == [f"{count:,}" for count in found.attrs["counts"].values()]
    masks = dict(zip(found.attrs["flag_meanings"].split(), found.attrs["flag_masks"], strict=True))
    for kind, count in counts.items():
        (dots,) = parts([right], hv.Scatter, kind)
        x, y = columns(dots)
        assert len(dots) <= count
        assert (found.values[y.astype(int), x.astype(int)] & masks[kind] > 0).all()
    assert options(right)["xlim"] == (0, found.shape[1])


def test_what_few_frames_give_is_drawn(frames):
    thin = characterize(frames.select(kind="bias"), progress=False)
    assert REGISTRY["dark-law"].missing(thin) == ["dark_current", "dark_law"]
    assert not REGISTRY["uniformity"].missing(thin)
    drawn = REGISTRY["uniformity"].draw(thin)
    check_drawn(drawn)
    assert [panel.get(1).dimensions()[1].unit for panel in drawn] == ["ADU"]  # no gain, no PRNU
    assert "hot" not in REGISTRY["defects"].caption(thin).text.split(".")[0]
