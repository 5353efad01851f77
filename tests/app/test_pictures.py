"""Two pictures under a divider: their pixels are right, and the divider stays where it was dragged to."""

import course
import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from workbench import finish
from workbench.app import pictures


@pytest.fixture(scope="module")
def known():
    return course.known_sky()


def test_the_screens_level_is_small_and_the_picture_the_same(known):
    large = finish.make_picture(np.tile(known[0].signal.values, (1, 4, 4)))
    level = pictures.screen_level(large)
    assert (level.sizes["x"], level.attrs["reduction"]) == (720, 4)
    np.testing.assert_allclose(level.signal.mean(), large.signal.mean(), rtol=1e-4)
    assert pictures.screen_level(known[0]).sizes == known[0].sizes


@pytest.mark.browser
def test_the_divider_is_dragged_and_stays(require, tmp_path, known):
    picture = pictures.pixels(known[0])
    made = pictures.Divider(picture)
    first, second = (made.render(after) for after in (picture, 255 - picture))
    path = tmp_path / "page.html"
    path.write_text(f'<meta charset="utf-8"><div id="here">{first}</div>', encoding="utf-8")
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=require("chromium"), args=["--no-sandbox"]) as browser,
    ):
        page = browser.new_page(viewport={"width": 900, "height": 700})
        asked = []
        page.on("request", lambda request: asked.append(request.url.split(":")[0]))
        page.goto(path.as_uri())
        box = page.locator(".wb-divider").bounding_box()
        y = box["y"] + 0.5 * box["height"]
        page.mouse.move(box["x"] + 0.5 * box["width"], y)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.25 * box["width"], y, steps=4)
        page.mouse.up()
        page.wait_for_timeout(100)
        place = page.evaluate("+document.querySelector('input').value")
        assert place == pytest.approx(25, abs=2)
        assert f"{place}%" in page.locator(".wb-after").get_attribute("style")
        # a slider of the figure brings new pictures: the divider stays where it is
        page.evaluate("html => document.getElementById('here').innerHTML = html", second)
        page.wait_for_timeout(300)
        assert page.evaluate("+document.querySelector('input').value") == place
        page.locator("input").focus()
        page.keyboard.press("ArrowLeft")
        assert page.evaluate("+document.querySelector('input').value") < place
        assert set(asked) <= {"file", "data"}
