"""What the course's figures show is what the data says."""

import course
import holoviews as hv
import numpy as np
import pytest

import workbench as wb
from workbench.charts import theme
from workbench.core.cube import make_cube

theme.load_backends()
CAMERA = wb.simulate.d7000(shape=(200, 300), vignetting=0.0)


def titles(layout: hv.Layout) -> list[str]:
    return [hv.Store.lookup_options("bokeh", panel, "plot").kwargs["title"] for panel in layout]


def element(layout: hv.Layout, panel: int, label: str):
    (found,) = [
        part
        for part in layout[panel].traverse(lambda part: part, [hv.Scatter, hv.Curve, hv.Histogram])
        if part.label == label
    ]
    return found


def test_a_picture_keeps_the_mean_of_the_frame(frames):
    layout = course.browse_frames(frames, "flat", 1)
    mosaic = wb.read_frame(frames.select(kind="flat").table.path[0])
    (image,) = layout[0].traverse(lambda part: part, [hv.Image])
    assert image.dimension_values(2).mean() == pytest.approx(mosaic.mean(), rel=1e-6)
    assert f"mean {mosaic.mean():,.1f}, spread {mosaic.std():,.2f} ADU" in titles(layout)[1]


def test_zoomed_in_far_a_picture_shows_single_pixels(frames):
    layout = course.browse_frames(frames, "flat", 99, zoom=8)  # past the last one the last is shown
    path = frames.select(kind="flat").table.path.iloc[-1]
    (image,) = layout[0].traverse(lambda part: part, [hv.Image])
    left, _, _, top = image.bounds.lbrt()
    picture = image.dimension_values(2, flat=False)
    rows, columns = picture.shape
    mosaic = wb.read_frame(path)
    top = min(image.bounds.lbrt()[1], image.bounds.lbrt()[3])
    part = mosaic[int(top) : int(top) + rows, int(left) : int(left) + columns]
    assert np.array_equal(np.sort(picture, axis=None), np.sort(part, axis=None))


@pytest.mark.parametrize(("light", "exposure", "iso"), [(0, 1, 100), (100, 4, 800), (3, 64, 3200)])
def test_the_noise_budget_of_the_virtual_camera_adds_up(light, exposure, iso):
    layout = course.virtual_exposure(CAMERA, light, exposure, iso, temperature=20)
    (bars,) = layout[1].traverse(lambda part: part, [hv.Bars])
    values = dict(zip(bars.dimension_values(0), bars.dimension_values(1), strict=True))
    parts = [values[name] for name in ("light", "dark current", "read noise", "rounding")]
    assert values["all together"] == pytest.approx(np.hypot.reduce(parts))
    # 15,000 pixels: 0.6 % of the standard deviation, and hot pixels add a little of their own
    assert values["measured"] == pytest.approx(values["all together"], rel=0.03)


def test_averaging_leaves_the_fixed_pattern():
    rng = np.random.default_rng(3)
    pattern, sigma = rng.normal(0, 1.5, (256, 256)), 3.0
    frames = [(600 + pattern + rng.normal(0, sigma, pattern.shape)).round().astype("uint16") for _ in range(16)]
    bias = make_cube(frames, cfa_pattern="mono", kind="bias", iso=100)
    layout = course.bias_average(bias, frames=16)
    assert titles(layout)[1] == "noise 3.01 ADU, fixed pattern 1.50 ADU"
    spread = element(layout, 1, "measured").dimension_values(1)
    assert spread[-1] == pytest.approx(np.sqrt(sigma**2 / 16 + 1.5**2), rel=0.02)
    histogram = element(layout, 0, "average of 16 frames")
    share = histogram.dimension_values(1) * np.diff(histogram.edges)
    assert share.sum() == pytest.approx(1, abs=1e-6)


def test_a_single_bias_frame_is_shown_without_a_law():
    bias = make_cube([np.full((32, 32), 600, "uint16")], cfa_pattern="mono", kind="bias", iso=100)
    assert "not measured" in titles(course.bias_average(bias))[1]


def test_one_frame_gives_too_small_a_gain_and_a_pair_does_not(measured):
    _, ptc, gain = measured
    layout = course.gain_one_frame(ptc, gain, 200.0, gain["gain"].mean("channel"))
    pair, alone = (element(layout, 0, f"G1, {name}") for name in ("pair", "one frame"))
    assert pair.dimension_values(1) == pytest.approx(1.065, rel=0.06)
    brightest = np.argmax(alone.dimension_values(0))
    assert alone.dimension_values(1)[brightest] < 0.8 * 1.065
    assert element(layout, 0, "truth").dimension_values(1) == pytest.approx(1.065, rel=0.02)


def test_a_saturated_frame_has_no_ratio():
    layout = course.virtual_exposure(CAMERA, 1000, 256, 3200)
    title = hv.Store.lookup_options("bokeh", layout[1], "plot").kwargs["title"]
    assert title == "100 % of the pixels are saturated: no SNR"
    (bars,) = layout[1].traverse(lambda part: part, [hv.Bars])
    assert "measured: saturated" in bars.dimension_values("source")
