"""The course without Python and without a network: every answer and mistake of the exercises; narrow windows."""

import course
import numpy as np
import panel as pn
import pytest

import workbench as wb
from workbench.app.live_charts import live_text, wrapped
from workbench.app.pictures import compare_pictures
from workbench.charts import theme

from .watch import chromium


@pytest.fixture(scope="module")
def page(require, tmp_path_factory):
    path = tmp_path_factory.mktemp("exercises") / "all.html"
    # each in a box of its own, so that its parts are found
    boxes = [
        pn.Column(one, css_classes=[f"exercise-{number}"]) for number, one in enumerate(course.exercises().values())
    ]
    pn.Column(*boxes).save(path, resources="inline")
    with chromium(require("chromium")) as browser:
        page = browser.new_page(viewport={"width": 900, "height": 800}, offline=True)
        page.goto(path.as_uri())
        page.locator(".exercise-0 input").wait_for()
        yield page


def answer(page, number, given):
    """Answer an exercise as a reader does; returns what it then says."""
    box = page.locator(f".exercise-{number}")
    if isinstance(given, str):
        box.get_by_text(given, exact=True).first.click()
        box.get_by_role("button", name="Check").click()
    else:  # half of the world writes 2,97, and some 10,000
        box.locator("input").fill(f"{given:,}" if number % 2 else str(given).replace(".", ","))
        box.locator("input").press("Enter")
    box.locator(".verdict").wait_for(timeout=2000)
    return verdict(page, number)


def verdict(page, number):
    page.wait_for_timeout(50)  # for the page to be drawn
    shown = page.locator(f".exercise-{number} .verdict .bk-clearfix")
    return shown.inner_text() if shown.is_visible() else ""


@pytest.mark.browser
def test_every_answer_is_judged_at_once_and_named(page):
    for number, one in enumerate(course.exercises().values()):
        tried = [(wrong, f"Not yet. {hint}") for wrong, hint in one.mistakes] + [(one.answer, f"Right. {one.because}")]
        for given, words in tried:
            said = answer(page, number, given)
            assert said.endswith(f": {words}"), (one.question, given)
            named = said.removesuffix(f": {words}").removesuffix(one.unit).strip()
            if isinstance(given, str):
                assert named == given
            else:
                assert float(named.replace(",", "" if number % 2 else ".")) == given


@pytest.mark.browser
def test_a_verdict_goes_when_the_answer_changes(page):
    assert answer(page, 0, 350)
    page.locator(".exercise-0 input").fill("35")
    assert not verdict(page, 0)
    page.locator(".exercise-0 input").fill("")
    page.get_by_role("button", name="Check").first.click()
    page.locator(".exercise-0 .verdict").wait_for()
    assert verdict(page, 0) == "Give an answer first."
    page.locator(".exercise-0 input").fill("a lot")
    page.locator(".exercise-0 input").press("Enter")
    assert verdict(page, 0) == "“a lot” is not a number."
    choices = next(number for number, one in enumerate(course.exercises().values()) if one.options)
    first, second, *_ = list(course.exercises().values())[choices].options
    assert answer(page, choices, first)
    page.locator(f".exercise-{choices}").get_by_text(second, exact=True).click()
    assert not verdict(page, choices)


# the titles of figures that do not fit onto them
CUT_OFF = """() => Bokeh.documents.flatMap(doc => doc.roots()).flatMap(root => [...root.references()])
  .filter(model => model.type === 'Figure').filter(model => {
    const pen = document.createElement('canvas').getContext('2d'), title = model.title;
    pen.font = `${title.text_font_style} ${title.text_font_size} ${title.text_font}`;
    const left = Bokeh.index.find_one(model).frame.bbox.left + title.offset;
    return left < 0 || left + pen.measureText(title.text).width > model.outer_width;
  }).map(model => model.title.text)"""


@pytest.mark.browser
@pytest.mark.parametrize("width", [800, 390])
def test_figures_captions_and_controls_fit_a_narrow_window(page, tmp_path, width):
    camera = wb.simulate.d7000(shape=(64, 96))
    controls = [pn.widgets.IntSlider(label=name, start=1, end=9) for name in ("light", "exposure", "ISO")]
    shown = pn.bind(lambda light, *_: course.virtual_exposure(camera, light), *controls)
    guess = course.predict("How large is the mean of a bias frame?", low=0, high=4000, step=50, unit="ADU")
    figure = course.figure(shown, "Two panels, side by side where there is room. " * 5, *controls, camera=camera.camera)
    path = tmp_path / "page.html"
    dims = theme.dimension("x"), theme.dimension("y")
    title = "A title that is longer than a telephone is wide, as some are"
    long = theme.panel([theme.line([0, 1], [0, 9e5], dims=dims)], title=title)
    sentence = live_text("What the controls give is said in a sentence that is longer than the window is wide. " * 3)
    pictures = compare_pictures(np.zeros((60, 90), np.uint8), np.ones((60, 90), np.uint8))
    parts = [guess, figure, course.exercise("02 average"), wrapped(theme.layout([long])), sentence, pictures]
    pn.Column(*parts, sizing_mode="stretch_width").save(path, resources="inline")
    with page.context.browser.new_context(viewport={"width": width, "height": 900}, offline=True) as context:
        narrow = context.new_page()
        narrow.goto(path.as_uri())
        narrow.locator("canvas").first.wait_for()
        narrow.wait_for_function(f"({CUT_OFF})().length === 0")
        assert narrow.evaluate("document.documentElement.scrollWidth") <= width
        assert narrow.locator("canvas").count() >= 3
        assert narrow.locator(".wb-divider").bounding_box()["width"] == pytest.approx(min(width, 820), abs=30)
