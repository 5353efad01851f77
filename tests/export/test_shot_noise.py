"""The shot-noise demonstration: what it opens with, and that it works in a real browser without a network."""

from types import SimpleNamespace

import numpy as np
import pytest
from bokeh.models import Button, Plot, Slider

from tests.browser.watch import serious_faults
from workbench.charts.particles import EXPOSURES, PARTICLES_PER_UNIT, running_snr
from workbench.export import shot_noise, write_charts


def test_the_stated_error_of_the_snr_covers_the_truth():
    rng = np.random.default_rng(9)
    inside = 0
    for counts in rng.poisson(200, (2000, 50)):
        snr, error = running_snr(counts)
        inside += abs(snr - np.sqrt(200)) < error
    assert 0.64 < inside / 2000 < 0.72


def test_one_count_has_no_snr():
    assert np.isnan(running_snr([7])).all()
    assert np.isnan(running_snr([7, 7])).all()


def test_the_demonstration_opens_with_one_exposure():
    figures, models = shot_noise._figures(seed=2)
    count = len(models["particles"].data["x"])
    assert models["history"].data["count"] == [count]
    assert abs(count - PARTICLES_PER_UNIT) < 5 * PARTICLES_PER_UNIT**0.5
    at = EXPOSURES.index(1.0)
    snr = models["snr"].data
    assert (snr["taken"][at], snr["mean"][at], snr["taken"].sum()) == (1, count, 1)
    assert np.isnan(snr["snr"]).all(), "one count has no signal to noise"
    assert (models["level"].location, models["band"].bottom, models["band"].top) == (100, 90, 110)
    law = next(one for one in figures[2].renderers if type(one.glyph).__name__ == "Line").data_source.data
    np.testing.assert_allclose(law["y"] ** 2, PARTICLES_PER_UNIT * law["x"])


def test_a_notebook_shows_the_same_controls_and_figures():
    app = shot_noise.shot_noise_demo(seed=3)
    root = app.get_root()
    assert {button.label for button in root.select({"type": Button})} == {"One exposure", "100 exposures", "Start over"}
    (slider,) = root.select({"type": Slider})
    assert (slider.start, slider.end, slider.value) == (EXPOSURES[0], EXPOSURES[-1], 1.0)
    (particles,) = root.select({"name": "particles"})
    (readout,) = root.select({"name": "readout"})
    assert f"<b>{len(particles.data['x'])}</b> particles in this exposure" in readout.text
    assert len(list(root.select({"type": Plot}))) == 3
    other = shot_noise.shot_noise_demo(seed=3).get_root().select_one({"name": "particles"})
    assert np.array_equal(other.data["x"], particles.data["x"])


@pytest.mark.browser
def test_the_page_works_offline_in_a_browser(tmp_path, require):
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    chromium = require("chromium")
    write_charts(SimpleNamespace(), tmp_path, only=["shot-noise-demo"], progress=False)
    problems, asked = [], []
    state = """() => {
      const model = name => Bokeh.documents[0].get_model_by_name(name);
      return {particles: Array.from(model('particles').data.x), readout: model('readout').text,
              snr: Object.fromEntries(
                Object.entries(model('snr').data).map(([key, value]) => [key, Array.from(value)])),
              exposure: model('exposure').value};
    }"""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_context(offline=True, reduced_motion="reduce").new_page()
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "shot-noise-demo.html").as_uri())
        page.wait_for_function("window.Bokeh && Bokeh.documents.length && "
                               "Bokeh.documents[0].get_model_by_name('readout').text !== ''")  # fmt: skip
        before = page.evaluate(state)
        assert before["exposure"] == 1.0
        assert before["snr"]["taken"][1] == 1
        page.locator(".noUi-handle").focus()
        for _ in range(6):
            page.keyboard.press("ArrowRight")
        page.wait_for_function("Bokeh.documents[0].get_model_by_name('exposure').value === 4")
        after = page.evaluate(state)
        assert len(after["particles"]) > 2 * len(before["particles"])
        assert after["particles"] != before["particles"]
        assert "400 expected" in after["readout"]
        for _ in range(20):
            page.get_by_text("100 exposures").click()
        page.wait_for_function("Bokeh.documents[0].get_model_by_name('snr').data.taken[7] > 2000")
        done = page.evaluate(state)
        page.get_by_text("Run", exact=True).click()
        page.wait_for_function(
            f"Bokeh.documents[0].get_model_by_name('snr').data.taken[7] > {done['snr']['taken'][7] + 1}"
        )
        # by itself, as a notebook saves it, the slider has a name too
        shot_noise.shot_noise_demo(seed=3).save(tmp_path / "alone.html", resources="inline")
        alone = browser.new_page(reduced_motion="reduce")
        alone.goto((tmp_path / "alone.html").as_uri())
        alone.get_by_role("slider", name="exposure").wait_for()
        assert serious_faults(alone) == []
        browser.close()
    snr, mean, square, taken = (done["snr"][name][7] for name in ("snr", "mean", "square", "taken"))
    error = (done["snr"]["high"][7] - done["snr"]["low"][7]) / 2
    assert error < 0.5
    assert abs(snr - 20) < 3.5 * error
    assert abs(mean - 400) < 4 * np.sqrt(400 / taken)  # Poisson: mean and variance are both 400
    assert abs(square / (taken - 1) / 400 - 1) < 4 * np.sqrt(2 / taken)
    assert problems == []
    assert len(asked) == 1  # the page itself
