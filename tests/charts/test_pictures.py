"""Pictures before and after a step, on one scale: what is drawn is what was measured; names over a picture."""

import re

import holoviews as hv
import numpy as np
import pytest
from astropy.wcs import WCS

from tests.charts.drawn import check_drawn, parts, titles
from workbench import charts
from workbench.charts import draw_names, named_picture, names_overlay
from workbench.stars import names_on


def shown(image):
    return image.dimension_values(2, flat=False)


def test_the_flat_takes_the_vignetting_away(lights):
    pair = lights.lights.flattened
    drawn = charts.flat_before_after(pair)
    check_drawn(drawn)
    before, after = parts(drawn, hv.Image)
    assert before.vdims[0].range == after.vdims[0].range
    np.testing.assert_allclose(shown(before), pair["before"].values)
    corner, middle = np.s_[:20, :20], np.s_[90:110, 140:160]
    fall = [np.median(pair[name].values[corner]) / np.median(pair[name].values[middle]) for name in pair]
    assert fall[0] < fall[1] - 0.1
    said = re.search(
        r"(\d+) % of the sky in the middle before", charts.REGISTRY["flat-before-after"].caption(lights).text
    )
    assert 100 * fall[0] < int(said[1]) < 100 * fall[1]  # of larger corners, and of all four


def test_alignment_gathers_the_light_of_stars(lights):
    pair = lights.lights.together
    drawn = charts.alignment_before_after(pair)
    came, fits = parts(drawn, hv.Image)
    assert came.vdims[0].range == fits.vdims[0].range
    assert titles(drawn) == ["8 lights averaged as they came", "The same 8, aligned first"]
    peaks = [np.nanpercentile(pair[name].values, 99.9) for name in ("unaligned", "aligned")]
    assert peaks[1] > 1.2 * peaks[0]
    assert np.nanmean(pair["aligned"]) == pytest.approx(np.nanmean(pair["unaligned"]), rel=0.03)  # the same light


def test_the_background_removed_is_the_difference_of_the_pictures(lights):
    steps = lights.lights.finished.sel(channel="G")
    before, after, gone = (
        shown(image) for image in parts(charts.background_before_after(lights.lights.finished), hv.Image)
    )
    np.testing.assert_allclose(before - after, gone, atol=1e-3)
    assert np.ptp(gone) > 10  # the samples' sky has a gradient
    np.testing.assert_allclose(before, steps["stack"].values)


def test_the_curve_over_the_histogram_is_the_stretch_of_the_picture(lights):
    steps = lights.lights.finished
    drawn = charts.stretch_chart(steps)
    check_drawn(drawn)
    (line,) = parts([drawn[0]], hv.Curve, "the curve")
    level, height = line.dimension_values(0), line.dimension_values(1)
    shown_at = np.interp(steps["linear"].sel(channel="G"), level, height)  # of the picture, pixel by pixel
    dim = (shown_at > 0.02) & (shown_at < 0.3)
    assert np.abs(shown_at - steps["finished"].sel(channel="G").values)[dim].mean() < 0.06
    (counts,) = parts([drawn[0]], hv.Curve, "pixels, G")
    np.testing.assert_allclose(counts.dimension_values(1), steps["count"].sel(channel="G") / steps["count"].max())


def test_a_picture_in_colour_keeps_its_colours_within_its_palette(lights):
    levels = lights.lights.finished["finished"].values
    panel = charts.pictures.colour_panel(levels, "finished", "finished")
    (image,) = parts([panel], hv.Image)
    options = hv.Store.lookup_options("bokeh", image, "style").kwargs
    palette = np.array([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in options["cmap"]])
    drawn = np.moveaxis(palette[shown(image).astype(int)], -1, 0)
    wanted = 255 * np.clip(levels, 0, 1)
    assert np.abs(drawn.mean((1, 2)) - wanted.mean((1, 2))).max() < 2
    assert np.sqrt(((drawn - wanted) ** 2).mean()) < 12


def test_a_light_and_the_stack_are_on_one_scale(lights):
    pair = lights.lights.pair
    drawn = charts.stack_before_after(pair)
    light, stacked = parts(drawn, hv.Image)
    assert light.vdims[0].range == stacked.vdims[0].range
    assert light.bounds.lbrt() == stacked.bounds.lbrt()
    assert light.bounds.lbrt()[::2] == (float(pair.x[0]), float(pair.x[-1]) + 1)
    np.testing.assert_allclose(stacked.dimension_values(2, flat=False), pair["stack"].values)
    assert titles(drawn) == ["One calibrated light", f"{pair.attrs['frames']} lights stacked"]


SHAPE = (400, 600)


@pytest.fixture(scope="module")
def names():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [83.8, -5.2], [300.5, 200.5]
    wcs.wcs.cd = np.diag([-1.0, -1.0]) * 15 / 3600
    return names_on(wcs, SHAPE)


@pytest.mark.parametrize("backend", ["bokeh", "matplotlib"])
def test_the_overlay_is_drawn(names, backend):
    overlay = names_overlay(names)
    assert hv.render(overlay, backend=backend) is not None
    words = [row for element in overlay if isinstance(element, hv.Labels) for row in element.array().tolist()]
    there = {text for *_, text in words}
    assert {"M 42", "N", "E", names.bar[1]} <= there


def test_a_picture_with_names_has_the_frame_s_axes(names):
    shown = named_picture(np.zeros((3, *SHAPE)), names, "M 42")
    plot = hv.renderer("bokeh").get_plot(shown).state
    assert (plot.x_range.start, plot.x_range.end) == (0, SHAPE[1])
    assert (plot.y_range.start, plot.y_range.end) == (SHAPE[0], 0)


def test_a_copy_is_drawn_and_the_picture_stays(names):
    before = np.full((*SHAPE, 3), 20, np.uint8)
    kept = before.copy()
    drawn = draw_names(before, names)
    assert (before == kept).all()
    assert drawn.shape == before.shape
    row = names.labels[names.labels["label"] == "M 42"].iloc[0]
    x, y, half = round(row.x), round(row.y), round(max(row.width, row.height) / 2) + 2
    changed = (drawn != before).any(axis=2)
    assert changed[max(y - half, 0) : y + half, max(x - half, 0) : x + half].any()
    assert changed.mean() < 0.2
