"""The course in JupyterLab, without a network: open a notebook, run it, move a slider, predict, answer."""

import shutil
from pathlib import Path

import course
import holoviews as hv
import nbformat
import pytest

import workbench as wb

from .controls import MOVES, move_the_main_control
from .jupyter import Lab, jupyter_lab
from .watch import chromium

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NOTEBOOK = NOTEBOOKS / "02-bias-and-read-noise.ipynb"
# a curve through points, strokes over a frame, pictures in HTML; `make screenshots` moves the control of all
OTHERS = ("03-gain-against-iso", "10-align", "13-stretch-and-finish")


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


@pytest.fixture
def lab(address, require):
    with chromium(require("chromium")) as browser:
        yield Lab(browser.new_page(viewport={"width": 1400, "height": 1000}), address)


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
    lab.run_all(sum(cell.cell_type == "code" for cell in nbformat.read(NOTEBOOK, 4).cells))
    page = lab.page

    cell = lab.show("course.bias_average")
    (left, right), point = expected(samples, 1)
    lab.wait_for_figure(left)
    marked = glyph(lab.figures(), right, "shown on the left")
    assert (marked["frames averaged"][0], marked["standard deviation"][0]) == pytest.approx(point)
    before = cell.locator(".jp-OutputArea").first.screenshot()

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
    for given, said in (("4.2", "4.2 ADU: Not yet."), ("2.97", "2.97 ADU: Right.")):
        answer.fill(given)
        answer.press("Enter")
        exercise.get_by_text(said).first.wait_for()

    assert not lab.errors()
    assert not lab.refused, "the notebook asked for something that is not on this machine"
    assert not lab.complaints


@pytest.mark.browser
@pytest.mark.parametrize("name", OTHERS)
def test_a_control_is_moved_and_a_figure_shows_other_numbers(lab, name):
    lab.open(f"{name}.ipynb")
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4).cells
    lab.run_all(sum(cell.cell_type == "code" for cell in cells))
    assert move_the_main_control(lab, name)
    assert not lab.errors()
    assert not lab.refused
    assert not lab.complaints


def test_every_notebook_has_a_main_control():
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        text, _ = MOVES[path.stem]
        assert sum(text in cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code") == 1
