"""Names over a picture: an overlay in the picture's axes, and a copy with them drawn in."""

import holoviews as hv
import numpy as np
import pytest
from astropy.wcs import WCS

from workbench.charts import draw_names, named_picture, names_overlay
from workbench.stars import names_on

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
