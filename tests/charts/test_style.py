"""The house style: colours that everybody can distinguish, plain ticks, bokeh's options in matplotlib's names."""

import itertools

import holoviews as hv
import numpy as np
import pytest

from tests.charts.drawn import check_drawn
from workbench.charts import style, theme

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
def test_colours_can_be_distinguished(palette, vision):
    for (one, first), (two, second) in itertools.combinations(getattr(theme, palette).items(), 2):
        if {one, two} == {"G1", "G"}:  # of Bayer and of X-Trans: never in one chart
            continue
        distance = np.linalg.norm(lab(first, vision) - lab(second, vision))
        assert distance > 14, f"{one} and {two} look alike to {vision}: ΔE {distance:.0f}"


def test_every_channel_has_a_marker_of_its_own():
    shapes = [style.MARKER[channel] for channel in ("R", "G1", "G2", "B")]
    assert len(set(shapes)) == 4


def test_ticks_are_written_as_people_write_numbers():
    assert [style.plain_number(value) for value in (0, 20000.0, 0.05, 1e-5, 2e-7, 1.5)] == [
        "0",
        "20,000",
        "0.05",
        "10⁻⁵",
        "2·10⁻⁷",
        "1.5",
    ]


@pytest.mark.parametrize("ends", [(1, 100), (0.07, 3), (1.05, 1.9), (2.1, 4.9), (60, 61), (3e-5, 9e-5)])
def test_a_short_logarithmic_axis_has_ticks_too(ends):
    dims = theme.dimension("x", "s"), theme.dimension("y", "e⁻")
    line = theme.line(ends, ends, dims=dims)
    check_drawn(theme.layout([theme.panel([line], title="short", log="xy", xlim=ends, ylim=ends, legend=None)]))


def test_options_are_written_once_for_both_backends():
    dims = theme.dimension("x", "s"), theme.dimension("y", "e⁻")
    drawn = theme.points([1, 2], [3, 4], [1, 1], dims=dims, label="a", colour="#123456", marker="diamond", size=10)
    bars, dots = drawn
    bokeh, paper = (hv.Store.lookup_options(name, dots, "style").kwargs for name in ("bokeh", "matplotlib"))
    assert (bokeh["marker"], bokeh["size"], bokeh["fill_color"]) == ("diamond", 14, "#123456")
    assert (paper["marker"], paper["facecolors"], paper["edgecolors"]) == ("D", "#123456", "#123456")
    assert paper["s"] == pytest.approx(0.55 * 10**2)
    assert hv.Store.lookup_options("matplotlib", bars, "style").kwargs["elinewidth"] == pytest.approx(1.3, rel=0.01)
    curve = theme.line([0, 1], [0, 1], dims=dims, dash="dotted", width=3)
    assert hv.Store.lookup_options("matplotlib", curve, "style").kwargs["linestyle"] == ":"
    assert hv.Store.lookup_options("matplotlib", curve, "style").kwargs["linewidth"] == 3
    area = theme.band([0, 1], [0, 0], [1, 1], dims=dims, colour="#abcdef")
    look = hv.Store.lookup_options("matplotlib", area, "style").kwargs
    assert (look["facecolor"], look["edgecolor"], look["alpha"]) == ("#abcdef", "none", 0.16)
