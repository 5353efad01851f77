"""The parts of a chart: backends that load silently, pictures as 8 bits, axes with units, one backend at a time."""

import subprocess
import sys

import holoviews as hv
import numpy as np
import pytest
import xarray as xr

from workbench.charts import theme
from workbench.core.errors import WorkbenchError

DIMS = theme.dimension("x", "s"), theme.dimension("y", "e⁻")


def test_loading_the_backends_prints_nothing_and_keeps_the_one_in_use():
    code = (
        "import holoviews as hv, holoviews.plotting.mpl\n"
        "hv.Store.set_current_backend('matplotlib')\n"
        "import workbench.charts.gain, workbench.charts.theme as theme\n"
        "assert 'bokeh' not in hv.Store.renderers, 'importing a chart loaded a backend'\n"
        "theme.load_backends()\n"
        "assert set(hv.Store.renderers) >= {'bokeh', 'matplotlib'}\n"
        "assert hv.Store.current_backend == 'matplotlib'\n"
        "assert not hv.extension._loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_a_picture_is_sent_as_8_bits_and_its_bar_keeps_the_true_scale():
    theme.load_backends()
    data = np.linspace(-3.0, 7.0, 60).reshape(6, 10)
    dims = theme.dimension("column", "px"), theme.dimension("row", "px")
    picture = theme.picture(data, (0, 0, 10, 6), dims=dims, value=theme.dimension("signal", "e⁻"), limits=(-1.0, 5.0))
    plot = hv.Store.renderers["bokeh"].get_plot(picture)
    sent = plot.handles["source"].data["image"][0]
    assert sent.dtype == np.uint8
    assert (sent.min(), sent.max()) == (0, 255)
    back = sent / 255 * 6 - 1
    lowest_row_first = np.clip(data[::-1], -1, 5)  # as bokeh wants it
    assert np.abs(back - lowest_row_first).max() <= 6 / 255 / 2 + 1e-9
    bar = plot.handles["colorbar"].color_mapper
    assert (bar.low, bar.high) == (-1.0, 5.0)
    mapper = plot.handles["glyph"].color_mapper
    assert (mapper.low, mapper.high) == (0, 255)


def test_what_is_not_finite_is_left_out():
    drawn = theme.points([1, np.nan, 3], [1, 2, np.inf], [0.1, 0.2, 0.3], dims=DIMS, label="a")
    bars, dots = drawn
    assert dots.array().tolist() == bars.array().tolist() == [[1.0, 1.0, 0.1]]
    assert [str(dim) for dim in dots.dimensions()] == ["x", "y", "y error"]
    assert len(theme.points([np.nan], [1.0], dims=DIMS, label="a")) == 0
    with pytest.raises(WorkbenchError, match="nothing to draw in the chart 'empty'"):
        theme.panel([theme.points([np.nan], [1.0], dims=DIMS, label="a")], title="empty")


def test_a_picture_lies_in_the_pixels_of_its_frame():
    data = xr.DataArray(
        np.arange(12.0).reshape(3, 4), {"y": [1.0, 3.0, 5.0], "x": [10.0, 12.0, 14.0, 16.0]}, ("y", "x")
    )
    panel = theme.image_panel(data, "title", value=theme.dimension("signal", "e⁻"))
    (image,) = panel
    assert image.bounds.lbrt() == (9.0, 0.0, 17.0, 6.0)
    np.testing.assert_array_equal(image.dimension_values(2, flat=False), data.values)  # lowest y first
    wanted = hv.Store.lookup_options("bokeh", panel, "plot").kwargs
    assert (wanted["xlim"], wanted["ylim"], wanted["invert_yaxis"]) == ((9.0, 17.0), (0.0, 6.0), True)
    bare = theme.image_panel(data.drop_vars(("y", "x")), "title", value=theme.dimension("signal", "e⁻"))
    assert bare.get(0).bounds.lbrt() == (0.0, 0.0, 4.0, 3.0)


def test_one_backend_alone_may_be_set():
    with theme.drawn_by("bokeh"):
        curve = theme.line([0, 1], [0, 1], dims=DIMS, dash="dashed")
    assert hv.Store.lookup_options("bokeh", curve, "style").kwargs["line_dash"] == "dashed"
    assert "linestyle" not in hv.Store.lookup_options("matplotlib", curve, "style").kwargs


def test_a_channel_has_its_colour_marker_and_name():
    for channel, shape in (("R", "square"), ("G", "triangle"), ("mono", "circle")):
        (dots,) = theme.channel_points(channel, [1.0], [2.0], dims=DIMS)
        look = hv.Store.lookup_options("bokeh", dots, "style").kwargs
        assert (dots.label, look["marker"], look["fill_color"]) == (channel, shape, theme.channel_colour(channel))
    assert theme.channel_colour("G") == theme.CHANNEL_COLOUR["G1"]
