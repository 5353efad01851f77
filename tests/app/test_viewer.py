"""Live pictures: what is drawn is what the frame holds there; the pixel's numbers are right."""

import holoviews as hv
import numpy as np
import param
import pytest

from workbench.app import viewer
from workbench.app.pixel import Spot
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
    spot = Spot(x=3, y=4)
    viewer._tapped(10.7, 2.2, spot, (20, 30))
    assert (spot.x, spot.y) == (10, 2)
    viewer._tapped(30.5, 2.2, spot, (20, 30))
    viewer._tapped(None, None, spot, (20, 30))
    assert (spot.x, spot.y) == (10, 2)
