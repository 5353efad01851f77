"""What a chart shows, looked up in the elements it is made of and in the figures that both backends draw."""

import holoviews as hv
import matplotlib.pyplot as plt
import numpy as np
from bokeh.models import LogAxis

from workbench.charts import theme


def parts(layout, kind, label=None):
    """All elements of a kind, in all panels, with this label."""
    found = [part for panel in layout for part in panel if isinstance(part, kind)]
    return [part for part in found if label is None or part.label == label]


def columns(element):
    """The values of an element, dimension by dimension."""
    return [element.dimension_values(index) for index in range(len(element.dimensions()))]


def options(panel, backend="bokeh"):
    return hv.Store.lookup_options(backend, panel, "plot").kwargs


def titles(layout):
    return [options(panel)["title"] for panel in layout]


def check_drawn(layout):
    """Both backends draw every element, with titles, axis labels, a legend and limits that hold what was measured."""
    theme.load_backends()
    for panel in layout:
        _check_bokeh(panel, hv.Store.renderers["bokeh"].get_plot(panel))
        plot = hv.Store.renderers["matplotlib"].get_plot(panel)
        _check_matplotlib(panel, plot.handles["axis"])
        plt.close(plot.state)


def _names(panel):
    return [part.label for part in panel if part.label and not isinstance(part, (hv.Labels, hv.Image))]


def _check_bokeh(panel, plot):
    figure, wanted = plot.state, options(panel)
    assert figure.title.text == wanted["title"]
    for subplot, element in zip(plot.subplots.values(), panel, strict=True):
        sent = subplot.handles["source"].data
        if isinstance(element, hv.Image):
            assert sent["image"][0].shape == element.dimension_values(2, flat=False).shape
        elif type(element) in (hv.Scatter, hv.Curve, hv.ErrorBars):
            assert {len(column) for column in sent.values()} == {len(element)}, element.label
    if wanted.get("xaxis", True) is not None:
        first = next(part for part in panel if not isinstance(part, (hv.Labels, hv.Rectangles, hv.Segments)))
        x, y = first.dimensions()[:2]
        assert [figure.xaxis.axis_label, figure.yaxis.axis_label] == [x.pprint_label, y.pprint_label]
    ends = {"x": (figure.x_range.start, figure.x_range.end), "y": (figure.y_range.start, figure.y_range.end)}
    for name, (low, high) in ends.items():
        assert np.isfinite([low, high]).all()
        assert low != high
        (axis,) = getattr(figure, f"{name}axis")
        if isinstance(axis, LogAxis):
            _check_ticks(getattr(axis.ticker, "ticks", 10.0 ** np.arange(-9, 12)), low, high)
    for element in (part for part in panel if isinstance(part, hv.Scatter)):
        x, y = columns(element)[:2]
        inside = (x >= min(ends["x"])) & (x <= max(ends["x"])) & (y >= min(ends["y"])) & (y <= max(ends["y"]))
        assert inside.any(), f"nothing of {element.label!r} is inside the limits"
    if wanted["show_legend"]:
        shown = {item.label.value for legend in figure.legend for item in legend.items}
        assert shown == set(_names(panel))


def _check_ticks(ticks, low, high):
    """A logarithmic axis can be read: it has two ticks with a number, or more, but none on top of another."""
    shown = sum(min(low, high) <= tick <= max(low, high) for tick in ticks)
    assert 2 <= shown <= 20, f"{shown} ticks from {low:g} to {high:g}"


def _check_matplotlib(panel, axes):
    wanted = options(panel, "matplotlib")
    for axis, scale, limits in (
        (axes.xaxis, axes.get_xscale(), axes.get_xlim()),
        (axes.yaxis, axes.get_yscale(), axes.get_ylim()),
    ):
        if scale == "log":
            _check_ticks(axis.get_majorticklocs(), *limits)
    assert axes.get_title() == wanted["title"]
    artists = [*axes.collections, *axes.lines, *axes.images, *axes.patches, *axes.texts]
    assert len(artists) >= len([part for part in panel if len(part)])
    for name, limits in (("xlim", axes.get_xlim()), ("ylim", axes.get_ylim())):
        if wanted.get(name):
            np.testing.assert_allclose(sorted(limits), sorted(wanted[name]), rtol=1e-6)
    if wanted["show_legend"] and _names(panel):
        assert {text.get_text() for text in axes.get_legend().get_texts()} == set(_names(panel))
