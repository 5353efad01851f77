"""Charts of particles: the demonstration of shot noise, cosmic rays, and the two readouts."""

import holoviews as hv
import numpy as np

from tests.charts.drawn import columns, options, parts, titles
from workbench import charts, pixels
from workbench.core.cube import make_cube


def test_the_picture_of_the_demonstration_counts_its_particles():
    drawn = charts.shot_noise_demo(repeats=2000, seed=3)
    few, many = (parts([panel], hv.Scatter)[0] for panel in list(drawn)[:2])
    assert titles(drawn)[:2] == [f"Exposure 0.5: {len(few)} particles", f"Exposure 4: {len(many)} particles"]
    (measured,) = parts(drawn, hv.Scatter, "2000 exposures each")
    exposure, snr, error = columns(measured)
    assert (abs(snr - np.sqrt(100 * exposure)) < 4 * error).all()


def test_tracks_are_shown_one_by_one(card):
    found = card.cosmic_rays
    left, right = charts.cosmic_rays(found)
    (image,) = parts([left], hv.Image)
    shown, side = image.dimension_values(2, flat=False), found.sizes["row"]
    assert shown.shape == (4 * side, 6 * side)
    first = found.picture.values[0]
    np.testing.assert_allclose(shown[:side, :side], np.sign(first) * np.sqrt(abs(first)), rtol=1e-6)
    (bars,) = parts([right], hv.Histogram)
    assert bars.dimension_values(1).sum() == found.pixels.size
    assert options(left)["title"] == f"The largest {min(24, found.picture.shape[0])} tracks"


def test_no_tracks_are_said_to_be_none():
    noise = np.random.default_rng(1).normal(600, 4, (6, 64, 64)).round().astype("uint16")
    cube = make_cube(noise, cfa_pattern="mono", kind="dark", iso=100, exposure=60.0)
    found = pixels.find_cosmic_rays(cube, progress=False)
    labels = parts([charts.cosmic_rays(found)[0]], hv.Labels)
    assert [one.dimension_values(2).tolist() for one in labels] == [["no tracks"]]


def test_one_converter_for_a_ccd_one_for_each_column_of_a_cmos_sensor():
    ccd, cmos = charts.ccd_vs_cmos()
    converters = [[text for part in parts([panel], hv.Labels) for text in part.dimension_values(2)].count("ADC")
                  for panel in (ccd, cmos)]  # fmt: skip
    assert converters == [1, 4]
    amplifiers = [max(len(part.split()) for part in parts([panel], hv.Polygons)) for panel in (ccd, cmos)]
    assert amplifiers[1] >= 16 > amplifiers[0]
