"""The course in JupyterLab, without a network: open a notebook, run it, move a slider, predict, answer."""

import os
import shutil
from pathlib import Path

import course
import holoviews as hv
import nbformat
import pytest

import workbench as wb

from .controls import MOVES, move_every_control, move_the_main_control
from .jupyter import Lab, jupyter_lab
from .watch import chromium

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NOTEBOOK = NOTEBOOKS / "02-bias-and-read-noise.ipynb"
# a curve through points, strokes over a frame, pictures in HTML; each with one thing that is not as usual
OTHERS = {
    "03-gain-against-iso": {"viewport": {"width": 800, "height": 1000}},
    "10-align": {"color_scheme": "dark"},
    "13-stretch-and-finish": {},
}


@pytest.fixture(scope="module")
def address(require, samples, tmp_path_factory):
    """JupyterLab on the notebooks, with nothing measured yet."""
    require("chromium")
    scratch = tmp_path_factory.mktemp("lab")
    shutil.copytree(NOTEBOOKS, scratch / "notebooks", ignore=shutil.ignore_patterns("measured", ".ipynb_checkpoints"))
    (scratch / "cache").mkdir()
    (scratch / "cache" / "samples").symlink_to(samples)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_CACHE", str(scratch / "cache"))
        with jupyter_lab(scratch / "notebooks", scratch / "jupyter") as there:
            yield there


@pytest.fixture(scope="module")
def browser(require):
    with chromium(require("chromium")) as started:
        yield started


@pytest.fixture
def lab(address, browser, request):
    """A page of its own; a test may ask for its width or its colours."""
    asked = {"viewport": {"width": 1400, "height": 1000}} | getattr(request, "param", {})
    with browser.new_context(**asked) as context:
        yield Lab(context.new_page(), address)


def glyph(figures: list[dict], title: str, label: str) -> dict:
    (found,) = [
        one["data"]
        for figure in figures
        if figure["title"] == title
        for one in figure["glyphs"]
        if one["label"] == label
    ]
    return found


def expected(samples: Path, count: int) -> tuple[list[str], tuple[float, float]]:
    """Return the titles and the marked point of the figure that the reader should see."""
    layout = course.bias_average(wb.open_folder(samples).bias, frames=count)
    titles = [hv.Store.lookup_options("bokeh", panel, "plot").kwargs["title"] for panel in layout]
    (point,) = [
        part for part in layout[1].traverse(lambda part: part, [hv.Scatter]) if part.label == "shown on the left"
    ]
    return titles, (point.dimension_values(0)[0], point.dimension_values(1)[0])


@pytest.mark.browser
def test_a_reader_runs_a_notebook_and_plays_with_it(lab, samples):
    lab.open(NOTEBOOK.name)
    lab.run_all()
    page = lab.page

    cell = lab.show("course.bias_average")
    (left, right), point = expected(samples, 1)
    lab.wait_for_figure(left)
    marked = glyph(lab.figures(), right, "shown on the left")
    assert (marked["frames averaged"][0], marked["standard deviation"][0]) == pytest.approx(point)
    before = cell.locator(".jp-OutputArea").first.screenshot()

    lab.keep_busy(3)  # what the reader does meanwhile is not lost
    slider = cell.locator(".noUi-handle").first
    for _ in range(3):
        slider.press("ArrowRight")
    (left, right), point = expected(samples, 4)
    lab.wait_for_figure(left)
    marked = glyph(lab.figures(), right, "shown on the left")
    assert (marked["frames averaged"][0], marked["standard deviation"][0]) == pytest.approx(point)
    page.wait_for_timeout(500)
    after = cell.locator(".jp-OutputArea").first.screenshot()
    assert before != after, "the picture that the reader sees did not change"

    # a prediction, made after the measurement, is still set against it
    asked = lab.show("course.predict(")
    asked.get_by_text("It falls a little").last.click()
    asked.get_by_role("button", name="This is my prediction").click()
    asked.get_by_role("button", name="Committed").wait_for()
    comparison = lab.show("prediction.against")
    comparison.get_by_text("That is right.").wait_for()

    exercise = lab.show('course.exercise("02 difference")')
    answer = exercise.locator("input")
    lab.keep_busy(30)
    for given, said in (("4.2", "Not yet."), ("2.97", "Right.")):  # at once: the page judges, not the kernel
        answer.fill(given)
        answer.press("Enter")
        exercise.locator(".verdict", has_text=f"{given} ADU: {said}").wait_for(timeout=5000)

    assert not lab.errors()
    assert not lab.refused, "the notebook asked for something that is not on this machine"
    assert not lab.complaints


@pytest.mark.browser
@pytest.mark.parametrize(("name", "lab"), OTHERS.items(), indirect=["lab"], ids=OTHERS)
def test_a_control_is_moved_and_a_figure_shows_other_numbers(name, lab):
    lab.open(f"{name}.ipynb")
    lab.page.keyboard.press("Control+b")  # the list of files goes
    lab.run_all()
    assert move_the_main_control(lab, name)
    assert lab.page.locator(".noUi-handle").count() > 0
    assert lab.page.locator(".noUi-handle:not([aria-label])").count() == 0, "a slider without a name"
    assert not lab.errors()
    assert not lab.refused
    assert not lab.complaints


@pytest.mark.browser
@pytest.mark.skipif(not os.environ.get("WORKBENCH_EVERY_CONTROL"), reason="takes half an hour: make browser")
@pytest.mark.parametrize("name", MOVES)
def test_every_control_in_every_condition(lab, name):
    """Nothing is complained of, nothing is fetched from outside."""
    lab.open(f"{name}.ipynb")
    lab.run_all()
    for condition in ("as it is", "narrow", "dark", "busy"):
        lab.page.set_viewport_size({"width": 800 if condition == "narrow" else 1400, "height": 1000})
        lab.page.emulate_media(color_scheme="dark" if condition == "dark" else "light")
        if condition == "busy":
            lab.keep_busy(5)
        assert move_every_control(lab) > 2
        assert not lab.errors(), condition
        assert not lab.refused, condition
        assert not lab.complaints, condition


def test_every_notebook_has_a_main_control():
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        text, _ = MOVES[path.stem]
        assert sum(text in cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code") == 1
