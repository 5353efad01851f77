"""The course without Python and without a network: every answer and mistake of the exercises; narrow windows."""

import course
import panel as pn
import pytest

import workbench as wb

from .watch import chromium


@pytest.fixture(scope="module")
def page(require, tmp_path_factory):
    path = tmp_path_factory.mktemp("exercises") / "all.html"
    # each in a box of its own, so that its parts are found
    boxes = [
        pn.Column(one, css_classes=[f"exercise-{number}"]) for number, one in enumerate(course.exercises().values())
    ]
    pn.Column(*boxes).save(path, resources="inline")
    with page.context.browser.new_context(viewport={"width": width, "height": 900}, offline=True) as context:
        narrow = context.new_page()
        narrow.goto(path.as_uri())
        narrow.locator("canvas").first.wait_for()
        narrow.wait_for_timeout(500)
        assert narrow.evaluate("document.documentElement.scrollWidth") <= width
