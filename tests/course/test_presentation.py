"""A figure's caption names simulated data, and panels side by side fit the page."""

import course
import holoviews as hv
import panel as pn
import pytest
from bokeh.models import Plot as Figure

from workbench.charts import theme

theme.load_backends()
DIMS = theme.dimension("x", "s"), theme.dimension("y", "e⁻")


def figures(shown):
    """The figures of a page, by their titles."""
    return sorted(pn.panel(shown).get_root().select({"type": Figure}), key=lambda one: one.title.text)


def test_a_figure_says_that_its_data_is_simulated():
    simulated = course.figure(demos_like(1), "Caption.", camera="NIKON D7000 (simulated)")
    assert "*Simulated data*" in simulated[-1].object
    assert "imulated" not in course.figure(demos_like(1), "Caption.", camera="NIKON D7000")[-1].object


def demos_like(panels: int) -> hv.Layout:
    dims = (theme.dimension("x"), theme.dimension("y", "ADU"))
    one = [
        theme.panel(
            [theme.line([0, 1], [0, 1], dims=dims, label="line"), theme.points([0], [1], dims=dims, label="p")],
            title="t",
        )
    ]
    return theme.layout(one * panels)


def test_panels_side_by_side_find_room_and_the_chart_given_stays_as_it_was():
    given = demos_like(2)
    shown = course.fit(given)
    sizes = [hv.Store.lookup_options("bokeh", panel, "plot").kwargs for panel in (*shown, *given)]
    assert 2 * sizes[0]["width"] <= 950  # a page of the site, in a window of 1400 px
    assert sizes[0]["width"] / sizes[0]["height"] == pytest.approx(theme.WIDTH / theme.HEIGHT, rel=0.01)
    assert sizes[2]["width"] == theme.WIDTH
    assert shown.dimensions() == given.dimensions()


def test_a_figure_of_the_course_is_fitted_to_its_place():
    slider = pn.widgets.IntSlider(value=1, start=1, end=3)

    def two(at):
        line = theme.line([0, 1], [0, at], dims=DIMS)
        return theme.layout([theme.panel([line], title=f"{side} {at}") for side in "ab"])

    shown = course.figure(pn.bind(two, slider), "Two of them.", slider)
    drawn = figures(shown)
    slider.value = 3
    assert [one.title.text for one in drawn] == ["a 3", "b 3"]
    assert {one.width for one in drawn} == {one.width for one in figures(course.fit(two(3)))}
    assert drawn[0].width < theme.WIDTH
