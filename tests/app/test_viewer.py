"""Live pictures: what is drawn is what the frame holds there; the pixel's numbers are right."""

import holoviews as hv
import numpy as np
import param
import pytest

from workbench.app import viewer
from workbench.app.pixel import ChosenPixel
from workbench.app.viewer import look, reduced
from workbench.charts import theme
from workbench.core.errors import WorkbenchError

theme.load_backends()


def drawn(picture, x_range, y_range, width=60):
    view = hv.streams.RangeXY(x_range=x_range, y_range=y_range)
    return viewer.live(picture, width=width, streams=[view])[()]


def grey(rgb):
    return rgb.dimension_values(rgb.vdims[0], flat=False)


def test_the_whole_frame_is_averaged_onto_the_screen():
    ramp = np.tile(np.arange(1200.0, dtype=np.float32), (800, 1))
    shown = viewer.Picture("ramp", ramp, "ADU", ((0.0, 1200.0),))
    across = grey(drawn(shown, (0, 1200), (0, 800))).astype(float).mean(axis=0)
    expected = 255 * (np.arange(60) + 0.5) * 20 / 1200
    assert np.abs(across - expected).max() < 1.0


def test_zoomed_in_single_pixels_are_shown_as_they_are():
    mosaic = np.random.default_rng(1).integers(600, 1000, (300, 400)).astype(np.uint16)
    shown = viewer.Picture("mosaic", mosaic, "ADU", ((600.0, 1000.0),))
    rgb = drawn(shown, (100, 140), (200, 230), width=40)
    x, y = (rgb.dimension_values(dim, expanded=False) for dim in rgb.kdims)
    part = mosaic[np.floor(y).astype(int)][:, np.floor(x).astype(int)]
    assert np.array_equal(grey(rgb), viewer.shade(part, (600.0, 1000.0)))


def test_a_stack_is_stretched_for_the_screen_only():
    rng = np.random.default_rng(2)
    planes = rng.normal(100, 3, (3, 200, 300)).astype(np.float32)
    planes[:, 50, 60] = 5000
    shown = viewer.picture("stack", planes, "e⁻", stretched=True)
    assert shown.values is planes
    levels = viewer.shade(np.float32(np.median(planes[0])), shown.limits[0], shown.midtones)
    assert float(levels) == pytest.approx(64, abs=3), "the sky comes to a quarter"


def test_missing_pixels_are_black_and_empty_frames_refused():
    frame = np.full((10, 10), np.nan)
    with pytest.raises(WorkbenchError, match="no finite value"):
        viewer.picture("empty", frame)
    with pytest.raises(WorkbenchError, match=r"shape \(y, x\) or \(3, y, x\)"):
        viewer.picture("odd", np.zeros((2, 10, 10)))


def test_pictures_side_by_side_need_one_size():
    one, other = (viewer.picture(name, np.arange(float(n)).reshape(2, -1)) for name, n in (("a", 8), ("b", 12)))
    with pytest.raises(WorkbenchError, match="a: 4 x 2, b: 6 x 2"):
        viewer.side_by_side([one, other])
    layout = viewer.side_by_side([one, viewer.like(one, one)], width=40)
    assert len(layout) == 2


def test_blinking_keeps_the_view_and_changes_the_frame():
    class Choice(param.Parameterized):
        value = param.String(default="dim")

    frames = {"dim": np.full((20, 30), 100.0), "bright": np.full((20, 30), 200.0)}
    first = viewer.Picture("dim", frames["dim"], "ADU", ((0.0, 255.0),))
    choice = Choice()
    blinking = viewer.blink(lambda name: viewer.like(viewer.picture(name, frames[name]), first), choice, width=30)
    assert set(np.unique(grey(blinking[()]))) == {100}
    choice.value = "bright"
    assert set(np.unique(grey(blinking[()]))) == {200}


def test_a_tap_chooses_a_pixel_within_the_frame():
    pixel = ChosenPixel(x=3, y=4)
    viewer._tapped(10.7, 2.2, pixel, (20, 30))
    assert (pixel.x, pixel.y) == (10, 2)
    viewer._tapped(30.5, 2.2, pixel, (20, 30))
    viewer._tapped(None, None, pixel, (20, 30))
    assert (pixel.x, pixel.y) == (10, 2)


def frame(shape=(300, 400), dtype=np.uint16):
    return np.random.default_rng(3).integers(600, 16000, shape).astype(dtype)


def brute(values, view):
    """The mean of the pixels of each bin, one by one."""
    rows, columns = view.rows, view.columns
    return np.array(
        [
            [
                np.nanmean(values[rows[y] : rows[y + 1], columns[x] : columns[x + 1]].astype(float))
                for x in range(columns.size - 1)
            ]
            for y in range(rows.size - 1)
        ]
    )


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64, np.int32, ">f4"])
def test_the_mean_of_what_falls_on_a_pixel_of_the_screen(dtype):
    values = frame(dtype=dtype)
    view = look(values.shape, (17.3, 391.8), (-20.0, 250.4), (57, 41))
    np.testing.assert_allclose(reduced(values, view), brute(values, view), rtol=1e-6)


@pytest.mark.parametrize("span", [None, (0.4, 371.2), (-100.0, 500.0), (399.0, 12.0)])
def test_every_pixel_whose_centre_is_in_view_counts_once(span):
    view = look((300, 400), span, None, (60, 45))
    low, high = sorted(span or (0.0, 400.0))
    inside = np.flatnonzero((np.arange(400) + 0.5 >= low) & (np.arange(400) + 0.5 < high))
    assert (np.diff(view.columns) >= 1).all()
    assert (view.columns[0], view.columns[-1]) == (inside[0], inside[-1] + 1)


def test_whole_bins_are_what_numpy_averages():
    values = frame(dtype=np.float32)
    view = look(values.shape, size=(40, 30))
    blocks = values.reshape(30, 10, 40, 10).astype(float).mean(axis=(1, 3))
    np.testing.assert_allclose(reduced(values, view), blocks, rtol=1e-6)
    assert view.bounds == (0, 0, 400, 300)


@pytest.mark.parametrize("span", [None, (0.4, 371.2), (17.0, 200.0), (-30.0, 430.0)])
@pytest.mark.parametrize("size", [(40, 30), (57, 41), (333, 251)])
def test_an_even_mosaic_stays_even_when_zoomed_out(span, size):
    values = np.tile(np.array([[100, 500], [500, 200]], np.uint16), (150, 200))
    shown = viewer.picture("flat", values)
    view = look(values.shape, span, span, size, shown.cell)
    if span is None or span[1] - span[0] > size[0]:  # smaller than on the screen
        assert set(reduced(values, view).ravel()) == {325.0}, "a moiré"
    assert viewer.picture("stack", values.astype(float)).cell == 1


@pytest.mark.parametrize("size", [(40, 30), (400, 300)])
def test_one_to_one_and_enlarged_nothing_is_averaged(size):
    values = frame()
    view = look(values.shape, (100.0, 140.0), (200.0, 230.0), size)
    assert np.array_equal(reduced(values, view), values[200:230, 100:140])
    assert view.bounds == (100, 200, 140, 230)


def test_missing_pixels_do_not_count():
    values = frame(dtype=np.float32)
    values[:10, :10] = np.nan
    values[0, 10] = np.inf
    values[20:30, 20] = np.nan
    view = look(values.shape, size=(40, 30))
    found = reduced(values, view)
    assert np.isnan(found[0, 0])
    assert np.isfinite(found).sum() == found.size - 1
    assert found[0, 1] == pytest.approx(values[:10, 10:20].ravel()[1:].mean(dtype=float), rel=1e-6)
    assert found[2, 2] == pytest.approx(np.nanmean(values[20:30, 20:30], dtype=float), rel=1e-6)


@pytest.mark.parametrize("span", [(-50.0, -10.0), (450.0, 500.0), (399.99, 401.0)])
def test_past_the_frame_there_is_something_to_draw(span):
    view = look((300, 400), span, span, (60, 45))
    assert reduced(frame(), view).shape == (1, 1)
    assert 0 <= view.columns[0] < view.columns[-1] <= 400
