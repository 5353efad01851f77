"""Charts of uniformity: drawn by both backends from what the samples give, with words and numbers."""

import holoviews as hv
import pytest
from course import dark_library as library
from course import uniformity as evenness

from workbench import charts
from workbench.charts.patterns import dark_prediction
from workbench.charts.registry import REGISTRY
from workbench.ingest import open_folder
from workbench.pipelines import characterize
from workbench.pixels import stack_cube

NAMES = ("dark-law", "fixed-pattern", "spectrogram", "uniformity", "defects")


@pytest.fixture(scope="module")
def folder(small_samples):
    return open_folder(small_samples, progress=False)


@pytest.fixture(scope="module")
def result(folder):
    return characterize(folder, progress=False)


@pytest.mark.parametrize("backend", ["bokeh", "matplotlib"])
@pytest.mark.parametrize("name", NAMES)
def test_every_chart_is_drawn(result, name, backend):
    assert not REGISTRY[name].missing(result)
    drawn = REGISTRY[name].draw(result)
    hv.render(drawn, backend=backend)
    told = REGISTRY[name].words(result)
    assert "Simulated data" in told.caption
    assert "nan" not in told.caption.lower().split()
    assert len(told.alt) > 40


def test_what_is_missing_is_named(folder):
    thin = characterize(folder.select(kind="bias"), progress=False)
    assert REGISTRY["dark-law"].missing(thin) == ["dark_current", "dark_law"]
    assert not REGISTRY["uniformity"].missing(thin)
    drawn = REGISTRY["uniformity"].draw(thin)  # in ADU, and no PRNU
    hv.render(drawn, backend="matplotlib")
    assert len(drawn) == 1
    assert "hot" not in REGISTRY["defects"].words(thin).caption.split(".")[0]


def test_controls_move_what_is_drawn(folder, result):
    bias = folder.bias.isel(frame=folder.bias.iso == 200)
    stack = stack_cube(bias, progress=False)
    hv.render(evenness.spread_of_mean(stack, 8), backend="matplotlib")
    table = evenness.emva_table(result.uniformity)
    assert {"K [DN/e⁻]", "DSNU1288 [e⁻]", "PRNU1288, high-passed [%]"} <= set(table.index)
    assert "nan" not in table.to_string()


def test_the_library_beside_a_dark_that_it_has_not_seen(folder):
    there = library.settings(folder.dark)
    drawn = library.held_out(folder.dark, folder.bias, next(iter(there.values())))
    hv.render(drawn, backend="bokeh")
    title = list(drawn)[1].opts.get("plot", "matplotlib").kwargs["title"]
    assert 0.9 < float(title.split("=")[1]) < 1.1
    assert charts.dark_prediction is dark_prediction
