"""The shot-noise demonstration, driven by Python and, as a page, by a real browser without a network."""

from types import SimpleNamespace

import numpy as np
import pytest

from workbench.charts.particles import EXPOSURES, PARTICLES_PER_UNIT, running_snr
from workbench.export import write_charts
from workbench.export.shot_noise import ShotNoise, shot_noise_demo


def test_the_live_snr_converges_to_the_root_of_n():
    demo = ShotNoise(seed=4)
    for exposure in EXPOSURES:
        demo.exposure = exposure
        demo.take(2000)
        snr, error = demo.snr()
        expected = np.sqrt(PARTICLES_PER_UNIT * exposure)
        assert error < 0.02 * expected
        assert abs(snr - expected) < 3.5 * error


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


def test_what_is_drawn_is_what_was_counted():
    demo = ShotNoise(seed=2)
    demo.exposure = 3.0
    assert len(demo.stage.particles.data["x"]) == demo.counts[3.0][-1]
    demo.take(70)
    assert demo.stage.history.data["count"].tolist() == demo.counts[3.0][-60:]
    at = EXPOSURES.index(3.0)
    assert demo.stage.snr.data["snr"][at] == demo.snr()[0]
    assert demo.stage.snr.data["taken"][at] == 71


def test_the_panel_app_answers_to_its_widgets():
    app = shot_noise_demo(seed=3)
    controls, text, _ = app
    slider, once, many, _, again = controls
    slider.value = 4.0
    assert "400 expected" in text.object
    assert "needs two exposures" in text.object
    once.clicks += 1
    assert "SNR of 2:" in text.object
    many.clicks += 1
    assert "SNR of 102:" in text.object
    assert "√N = <b>20.0</b>" in text.object
    again.clicks += 1
    assert "needs two exposures" in text.object


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
        browser.close()
    snr, mean, square, taken = (done["snr"][name][7] for name in ("snr", "mean", "square", "taken"))
    error = (done["snr"]["high"][7] - done["snr"]["low"][7]) / 2
    assert error < 0.5
    assert abs(snr - 20) < 3.5 * error
    assert abs(mean - 400) < 4 * np.sqrt(400 / taken)  # Poisson: mean and variance are both 400
    assert abs(square / (taken - 1) / 400 - 1) < 4 * np.sqrt(2 / taken)
    assert problems == []
    assert len(asked) == 1  # the page itself
