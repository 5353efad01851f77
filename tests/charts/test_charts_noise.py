"""Charts of read noise, dynamic range, linearity and the gain of darks: they show what was measured."""

import dataclasses

import holoviews as hv
import matplotlib.pyplot as plt
import numpy as np
import pytest

from workbench import charts, export
from workbench.charts import theme
from workbench.charts.registry import REGISTRY
from workbench.ingest import open_folder
from workbench.pipelines import measure_pixel_noise

NAMES = ("read-noise-split", "pixel-noise", "dynamic-range", "linearity", "gain-from-darks")


@pytest.fixture(scope="module")
def full(result, small_samples):
    noise = measure_pixel_noise(open_folder(small_samples, progress=False), progress=False)
    return dataclasses.replace(result, pixel_noise=noise)


def parts(panel, kind, label):
    return [one for one in panel if isinstance(one, kind) and one.label == label]


@pytest.mark.parametrize("backend", ["bokeh", "matplotlib"])
@pytest.mark.parametrize("name", NAMES)
def test_each_is_drawn_by_both_backends(name, backend, full):
    theme.load_backends()
    plot = hv.Store.renderers[backend].get_plot(REGISTRY[name].draw(full))
    assert plot.state is not None
    if backend == "matplotlib":
        plt.close(plot.state)


@pytest.mark.parametrize("name", NAMES)
def test_each_says_whose_data_it_is(name, full):
    caption, alt = REGISTRY[name].caption(full)
    assert "Simulated data: NIKON D7000 (simulated); 8 bias frames" in caption
    assert "nan" not in caption.lower()
    assert len(alt) > 60


def test_each_is_written_in_every_form(full, tmp_path):
    written = export.write_charts(full, tmp_path, only=NAMES, progress=False)
    assert not written.not_drawn
    for name in NAMES:
        for ending in ("png", "svg", "html", "csv"):
            assert (tmp_path / f"{name}.{ending}").stat().st_size > 100


def test_the_split_marks_the_iso_from_which_nothing_is_gained(full):
    split = full.transfer.split
    left, right = charts.read_noise_split(split, full.read_noise, full.gain)
    (star,) = [one for one in right if isinstance(one, hv.Scatter) and one.label.startswith("ISO ")]
    assert star.dimension_values(0)[0] == float(split.invariance_iso)
    assert star.dimension_values(1)[0] == 5
    (floor,) = parts(left, hv.Curve, "before the gain")
    np.testing.assert_allclose(floor.dimension_values(1), float(split.before_gain))
    (whole,) = parts(right, hv.Curve, "both together")
    at = np.interp(star.dimension_values(0)[0], whole.dimension_values(0), whole.dimension_values(1))
    np.testing.assert_allclose(at, 5, rtol=0.02)


def test_points_of_darks_lie_on_the_line(full):
    found = full.transfer
    for panel in charts.dark_gain(found.dark_transfer, found.dark_gain, full.gain):
        (line,) = parts(panel, hv.Curve, "gain from darks")
        (dots,) = parts(panel, hv.Scatter, "G1")
        slope = line.dimension_values(1)[0] / line.dimension_values(0)[0]
        off = dots.dimension_values(1) - slope * dots.dimension_values(0)
        assert (abs(off) < 5 * dots.dimension_values(2)).all()


def test_what_is_missing_is_named(result):
    assert REGISTRY["linearity"].missing(object()) == ["transfer.linearity"]
    assert REGISTRY["pixel-noise"].missing(result) == ["pixel_noise"]
    assert not REGISTRY["dynamic-range"].missing(result)
