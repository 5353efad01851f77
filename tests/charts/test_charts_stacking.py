"""Charts of calibration, alignment and stacking: drawn from the sample night, by both backends and into files."""

from types import SimpleNamespace

import holoviews as hv
import numpy as np
import pandas as pd
import pytest

from workbench import calibrate, charts, stack
from workbench.align import compare_models
from workbench.charts.registry import REGISTRY, select
from workbench.export import write_charts
from workbench.pipelines.lights import Lights
from workbench.stack.pixel import busiest_pixel, inspect_pixel

NAMES = ("flat-correction", "alignment-residuals", "snr-vs-frames", "rejection", "stack-before-after")


@pytest.fixture(scope="module")
def result(night, night_trial):
    lights = Lights(
        audit=calibrate.audit_flat(night.masters.masters[0].flat, night.lights.isel(frame=[0, 1]), progress=False),
        registration=night.registration,
        growth=stack.noise_against_frames(night.aligned, counts=(1, 8)),
        trial=night_trial,
        pair=stack.before_after(night.aligned, piece=(120, 180)),
    )
    camera = "NIKON D7000 (simulated)"
    return SimpleNamespace(camera=camera, simulated=True, frame_counts={"light": 8}, lights=lights)


@pytest.fixture(scope="module")
def folder(result, tmp_path_factory):
    out = tmp_path_factory.mktemp("charts")
    written = write_charts(result, out, only=NAMES, progress=False)
    assert not written.not_drawn
    return out


@pytest.mark.parametrize("name", NAMES)
def test_each_is_written_small_and_whole(name, folder, result):
    for ending in ("png", "svg", "txt", "html"):
        assert (folder / f"{name}.{ending}").stat().st_size > 300
    assert (folder / f"{name}.html").stat().st_size < 2_000_000
    caption, alt = REGISTRY[name].caption(result)
    assert "Simulated data: NIKON D7000 (simulated); 8 lights." in caption
    assert "nan" not in caption
    assert len(alt) > 40
    assert list(folder.glob(f"{name}*.csv"))


def test_they_belong_to_the_blogs_charts():
    assert set(NAMES) <= {chart.id for chart in select()}
    bare = SimpleNamespace(lights=None)
    for name in NAMES:
        assert REGISTRY[name].missing(bare) == list(REGISTRY[name].needs)
        assert "lights" in REGISTRY[name].shoot


def test_tables_hold_what_was_measured(folder, result):
    table = pd.read_csv(folder / "snr-vs-frames.csv", comment="#")
    red = table[(table["series"] == "R") & table["signal to noise"].notna()]
    measured = result.lights.growth["snr"].sel(channel="R").values
    assert red["signal to noise"].to_numpy() == pytest.approx(measured, rel=1e-6)
    table = pd.read_csv(folder / "rejection.csv", comment="#")
    assert {"noise model", "sigma clipping", "winsorized"} <= set(table["series"])


@pytest.fixture(scope="module")
def drawn(night, result):
    """The charts that stand in notebooks only."""
    steps = calibrate.calibration_steps(night.frames.light, night.masters)
    own = night.masters.masters[0]
    bias = night.frames.bias.isel(frame=list(own.group.bias))
    return (
        charts.calibration_steps(steps, calibrate.step_noise(steps)),
        charts.master_noise(calibrate.master_noise(bias, None, own.noise, progress=False), light=4.0),
        charts.flat_left(result.lights.audit),
        charts.transform_models(compare_models(night.registration)),
        charts.pixel_decisions(inspect_pixel(night.aligned, *busiest_pixel(night.aligned))),
    )


@pytest.mark.parametrize("backend", ["bokeh", "matplotlib"])
def test_the_notebooks_charts_are_drawn_by_both_backends(backend, drawn):
    charts.theme.load_backends()
    for one in drawn:
        for panel in one:
            assert hv.Store.renderers[backend].get_plot(panel) is not None


def test_a_sample_far_out_is_drawn_at_the_edge_with_its_value(night):
    pixel = inspect_pixel(night.aligned, *busiest_pixel(night.aligned))
    panel = charts.pixel_decisions(pixel)[0]
    words = [word for one in panel if isinstance(one, hv.Labels) for word in one.dimension_values(2)]
    highest = float(pixel["value"].max())
    assert f"{highest:,.0f}" in words
    shown = np.concatenate([one.dimension_values(1) for one in panel if isinstance(one, hv.Scatter)])
    assert shown.max() < highest


def test_missing_samples_and_a_pixel_without_any_are_drawn_too(night):
    pixel = inspect_pixel(night.aligned, 0, 0)
    assert np.isnan(pixel["value"]).any()
    assert len(charts.pixel_decisions(pixel)[0]) > 3
