"""The house style: colours that everybody can tell apart, backends that load silently, pictures as 8 bits."""

import itertools
import subprocess
import sys

import holoviews as hv
import numpy as np
import pytest

from workbench.charts import style as finish
from workbench.charts import theme

# Machado, Oliveira and Fernandes (2009), severity 1: how the colour-blind see linear RGB
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def lab(colour: str, vision: str) -> np.ndarray:
    """CIE L*a*b* of an sRGB colour, seen so."""
    rgb = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(VISION[vision]) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.maximum(np.array(to_xyz) @ seen / [0.9505, 1, 1.089], 1e-6))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("palette", ["CHANNEL_COLOUR", "KIND_COLOUR"])
def test_colours_can_be_told_apart(palette, vision):
    for (one, first), (two, second) in itertools.combinations(getattr(theme, palette).items(), 2):
        distance = np.linalg.norm(lab(first, vision) - lab(second, vision))
        assert distance > 14, f"{one} and {two} look alike to {vision}: ΔE {distance:.0f}"


def test_every_channel_has_a_marker_of_its_own():
    shapes = [theme.MARKER[channel] for channel in ("R", "G1", "G2", "B")]
    assert len(set(shapes)) == 4


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


def test_ticks_are_written_as_people_write_numbers():
    assert [finish.plain_number(value) for value in (0, 20000.0, 0.05, 1e-5, 2e-7, 1.5)] == [
        "0",
        "20,000",
        "0.05",
        "10⁻⁵",
        "2·10⁻⁷",
        "1.5",
    ]


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
