"""Charts of uniformity: drawn by both backends from what the samples give, with words and numbers."""

import holoviews as hv
import pytest

from workbench.charts.registry import REGISTRY
from workbench.ingest import open_folder
from workbench.pipelines import characterize

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
    told = REGISTRY[name].caption(result)
    assert "Simulated data" in told.text
    assert "nan" not in told.text.lower().split()
    assert len(told.alt) > 40


def test_what_is_missing_is_named(folder):
    thin = characterize(folder.select(kind="bias"), progress=False)
    assert REGISTRY["dark-law"].missing(thin) == ["dark_current", "dark_law"]
    assert not REGISTRY["uniformity"].missing(thin)
    drawn = REGISTRY["uniformity"].draw(thin)  # in ADU, and no PRNU
    hv.render(drawn, backend="matplotlib")
    assert len(drawn) == 1
    assert "hot" not in REGISTRY["defects"].caption(thin).text.split(".")[0]
