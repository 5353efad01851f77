"""Charts of the raw report card show which numbers occur and what neighbours share."""

import course
import holoviews as hv
import numpy as np
import pytest

from tests.charts.drawn import columns, parts
from workbench import charts, fidelity
from workbench.ingest import open_folder


def test_gaps_in_the_chart_are_the_numbers_that_are_missing(small_samples):
    flats = open_folder(small_samples, progress=False).flat
    codes = fidelity.count_codes(course.simulate_firmware(flats, "red multiplied", 1.25), progress=False)
    drawn = charts.missing_codes(codes, fidelity.missing_codes(codes))
    rows = [one for one in drawn[0] if isinstance(one, hv.Curve) and one.label == "R"]
    heights = rows[0].dimension_values(1) - 3  # red is the top row
    assert np.count_nonzero(heights[::2] == 0) == pytest.approx(48 / 5, abs=1)


def test_the_spectrum_and_the_correlations_are_the_measured_ones(card):
    one = card.fidelity.texture.isel(iso=0)
    left, right = charts.noise_spectrum(card.fidelity.texture)
    for axis in one.axis.values.astype(str):
        (curve,) = parts([left], hv.Curve, f"{axis}s")
        power = one.spectrum.sel(axis=axis).dropna("frequency")
        np.testing.assert_allclose(columns(curve), [power.frequency, power])
    (image,) = parts([right], hv.Image)
    shown = image.dimension_values(2, flat=False)
    middle = one.correlation.mean("channel").values
    for dy, dx, value in zip(one.dy.values, one.dx.values, middle, strict=True):
        assert shown[2 + dy, 2 + dx] == shown[2 - dy, 2 - dx] == value
    assert shown[2, 2] == 0


def test_every_bright_pixel_is_drawn_against_its_neighbours(card):
    hot = card.fidelity.hot
    left, right = charts.hot_pixel_filter(hot)
    seen = np.isfinite(hot.value.values) & np.isfinite(hot.company.values)
    assert sum(len(part) for part in parts([left], hv.Scatter)) == seen.sum()
    bright = parts([left], hv.Scatter, "bright pixels")
    assert all((part.dimension_values(1) > 8).all() for part in bright)
    (bars,) = parts([right], hv.Histogram)
    zero = int(hot.bright.values[hot.difference.values == 0][0])
    (text,) = parts([right], hv.Labels)
    assert text.dimension_values(2)[0] == f"exactly zero: {zero:,}"
    assert bars.dimension_values(1).sum() <= hot.bright.values.sum()
