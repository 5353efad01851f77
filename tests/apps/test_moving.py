"""A chart that follows its controls shows what the chart drawn anew would show."""

import holoviews as hv
import numpy as np
import panel as pn
import pytest
from bokeh.models import Plot as Figure

from workbench.apps import explore
from workbench.apps.live import moving
from workbench.charts import theme
from workbench.errors import WorkbenchError
from workbench.runs import characterize

theme.load_backends()


@pytest.fixture(scope="module")
def ptc(small_samples):
    return characterize(small_samples, progress=False).ptc


def figures(shown):
    """The figures of a chart, or of a page that holds one."""
    if isinstance(shown, hv.Layout):
        return list(hv.Store.renderers["bokeh"].get_plot(shown).state.select({"type": Figure}))
    return list(pn.panel(shown).get_root().select({"type": Figure}))


def shown(figure):
    """The title and the points of a figure, by their sizes."""
    sources = [renderer.data_source.data for renderer in figure.renderers if renderer.visible]
    columns = [np.sort(np.concatenate([np.ravel(part) for part in data.values()])) for data in sources if data]
    return figure.title.text, sorted((column.tolist() for column in columns if column.dtype.kind == "f"), key=len)


def test_moved_and_drawn_anew_are_the_same(ptc):
    iso = pn.widgets.Select(options=[200.0, 800.0], value=200.0)
    levels = pn.widgets.RangeSlider(start=0, end=20000, value=(0, 20000))

    def chart(iso, levels):
        return explore.charts.ptc(*explore.refit(ptc, iso, levels))

    moved = figures(moving(chart, iso=iso, levels=levels))
    iso.value = 800.0
    levels.value = (0, 5000)
    anew = figures(chart(800.0, (0, 5000)))
    assert len(moved) == len(anew)
    for one, other in zip(moved, anew, strict=True):
        assert shown(one) == shown(other)


def test_a_mistake_leaves_the_chart_as_it_was():
    slider = pn.widgets.IntSlider(value=1, start=0, end=3)
    dims = theme.dimension("x"), theme.dimension("y")

    def line(slope):
        if not slope:
            raise WorkbenchError("no slope")
        return theme.layout([theme.panel([theme.line([0, 1], [0, slope], dims=dims)], title=f"slope {slope}")])

    (figure,) = figures(moving(line, slope=slider))
    slider.value = 3
    assert figure.title.text == "slope 3"
    slider.value = 0
    assert figure.title.text == "slope 3"
