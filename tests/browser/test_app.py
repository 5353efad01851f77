"""The app as a user meets it: a folder, the sensor, the charts, the stack, the picture; two tabs, one closed."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from playwright.sync_api import expect

import workbench as wb
from tests.comets import COUNT, FIRST, STEP, comet_night
from workbench.simulate import write_transit

from .jupyter import FIGURES
from .watch import Watch, chromium, serious_faults

PATIENCE = 60_000  # milliseconds, far more than anything here takes


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Start the app as a user does; yields where it is."""
    home = tmp_path_factory.mktemp("home")
    log = home / "app.log"
    command = [sys.executable, "-m", "workbench.cli", "app", "--no-browser", "--port", "0"]
    with log.open("w") as errors:
        server = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=home, env=os.environ | {"HOME": str(home)}
        )
    try:
        said = server.stdout.readline()
        yield re.search(r"http://\S+", said)[0]
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)
        server.stdout.close()
    assert server.returncode == 0
    assert "Traceback" not in log.read_text(), log.read_text()[-20000:]


@pytest.fixture(scope="module")
def started(require):
    with chromium(require("chromium"), "--host-resolver-rules=MAP evil.test 127.0.0.1") as one:
        yield one


@pytest.fixture
def browser(started, tmp_path):
    """A Chromium; pages still open when the test ends leave a picture of themselves."""
    yield started
    for number, page in enumerate(page for context in started.contexts for page in context.pages):
        page.screenshot(path=tmp_path / f"end-{number}.png")
    for context in started.contexts:
        context.close()


def open_tab(browser, address: str, *, width: int = 1300, scheme: str = "light", **asked: str):
    page = browser.new_page(viewport={"width": width, "height": 1000}, color_scheme=scheme)
    page.set_default_timeout(PATIENCE)
    watch = Watch(page)
    page.goto(f"{address}&{urlencode(asked)}" if asked else address)
    page.get_by_role("button", name="Open", exact=True).wait_for()
    proposed = page.get_by_text("Press Open if it is you")
    if asked:
        proposed.or_(page.get_by_text("What is there")).first.wait_for()
        if proposed.is_visible():
            page.get_by_role("button", name="Open", exact=True).click()
    return page, watch


def go(page, name: str) -> None:
    page.locator(".bk-tab", has_text=name).click()


def pictures(page) -> list[dict]:
    """Return what the live pictures in view show: their ranges, and a sum over what is drawn."""
    return page.evaluate("""() => {
      const found = [];
      for (const root of Bokeh.documents.flatMap(doc => doc.roots()))
        for (const model of root.references())
          if (model.type === 'Figure')
            for (const one of model.renderers)
              if (one.glyph?.type === 'ImageRGBA') {
                const image = one.data_source.get('image')[0];
                const shown = new Uint8Array(image.buffer ?? image);
                found.push({x0: model.x_range.start, x1: model.x_range.end, title: model.title.text,
                            sum: shown.reduce((total, value) => total + value, 0)});
              }
      return found;
    }""")


def tap(page, title: str, x: float, y: float) -> None:
    """Click into the middle of pixel (x, y) of the picture of that title."""
    place = page.evaluate(PLACE, [title, x + 0.5, y + 0.5])
    page.mouse.click(*place)


def wait_for_figure(page, title: str) -> None:
    page.wait_for_function(
        "title => Bokeh.documents.flatMap(doc => doc.roots())"
        ".some(root => [...root.references()].some(model => model.title?.text === title))",
        arg=title,
    )


# what has the focus: its words, and the line around it
FOCUSED = """() => {
  let one = document.activeElement;
  while (one.shadowRoot?.activeElement) one = one.shadowRoot.activeElement;
  return [one.textContent.trim(), getComputedStyle(one).outlineStyle];
}"""
# where on the page a place (x, y) of a figure of that title is
PLACE = """([title, x, y]) => {
  const all = [...Bokeh.index.query((one) => one.model.title?.text === title)];
  const view = all.find((one) => one.el.getBoundingClientRect().width > 0);  // not on another tab
  view.el.scrollIntoView({block: 'center'});
  const box = view.el.getBoundingClientRect();
  return [box.x + view.frame.x_scale.compute(x), box.y + view.frame.y_scale.compute(y)];
}"""
# how a figure of that title is drawn
DRAWN = """title => Bokeh.documents.flatMap(doc => doc.roots()).flatMap(root => [...root.references()])
  .filter((model, at, all) => model.title?.text === title && all.indexOf(model) === at)
  .map(model => ({width: model.frame_width, paper: model.border_fill_color, ink: model.title.text_color,
                  behind: getComputedStyle(document.body).backgroundColor}))"""


@pytest.mark.browser
def test_from_a_folder_to_a_picture(browser, address, small_samples, tmp_path):
    page, watch = open_tab(browser, address)
    faults: dict[str, list[str]] = {}

    # a folder that is not there is a sentence, and the page goes on
    path, results = page.get_by_label("Folder of frames"), page.get_by_label("Results go to")
    path.fill(str(tmp_path / "nowhere"))
    path.press("Tab")
    page.get_by_role("button", name="Open").click()
    page.get_by_text("this folder does not exist; check the name").wait_for()
    path.fill(str(small_samples))
    path.press("Tab")
    results.fill(str(tmp_path / "results"))
    results.press("Tab")
    page.get_by_role("button", name="Open").click()
    page.get_by_text("39 frames of NIKON D7000 (simulated)").wait_for()
    page.reload()  # what was typed in stands in the address
    page.get_by_text("39 frames of NIKON D7000 (simulated)").wait_for()
    assert (path.input_value(), results.input_value()) == (str(small_samples), str(tmp_path / "results"))

    # the keyboard meets the tabs first, and sees where it is
    page.locator("body > header").click()
    page.keyboard.press("Tab")
    assert page.evaluate(FOCUSED) == ["Frames", "solid"]

    # a frame, zoomed into and asked
    page.get_by_text("column 144, row 96").wait_for()
    before = pictures(page)[0]
    page.locator(".bk-Figure").first.scroll_into_view_if_needed()
    canvas = page.locator(".bk-Figure").first.bounding_box()
    page.mouse.move(canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2)
    page.mouse.wheel(0, -600)
    page.wait_for_function(
        "width => Bokeh.documents.flatMap(doc => doc.roots()).some(root => [...root.references()].some(model => "
        "model.type === 'Figure' && model.x_range.end - model.x_range.start < 0.8 * width))",
        arg=before["x1"] - before["x0"],
    )
    page.mouse.click(canvas["x"] + canvas["width"] / 2 + 40, canvas["y"] + canvas["height"] / 2 - 30)
    shown = page.get_by_role("region", name="The pixel")
    expect(shown).not_to_contain_text("column 144, row 96", timeout=PATIENCE)
    column, row = map(int, re.search(r"column (\d+), row (\d+)", shown.inner_text()).groups())
    mosaic = wb.read_frame(wb.open_folder(small_samples).select(kind="light").table.path[0])
    assert f"{mosaic[row, column]:,} ADU" in shown.inner_text()
    faults["frames"] = serious_faults(page)

    go(page, "Sensor")
    page.get_by_role("button", name="Measure the sensor").click()
    page.get_by_text(re.compile(r"^done in")).wait_for()
    page.get_by_text("unity gain: ISO").wait_for()
    measured = json.loads((tmp_path / "results" / "sensor.json").read_text())
    assert len(measured["settings"]) == 8
    faults["sensor"] = serious_faults(page)

    go(page, "Charts")
    page.get_by_text("Gain against ISO, from the noise").wait_for()
    wait_for_figure(page, "Electrons for each ADU")
    figures = {figure["title"]: figure["glyphs"] for figure in page.evaluate(FIGURES)}
    drawn = {glyph["label"]: glyph["data"] for glyph in figures["Electrons for each ADU"]}
    gains = [one["gain"]["value"] for one in measured["settings"] if one["channel"] == "G1"]
    assert np.allclose(sorted(drawn["G1"]["gain"]), sorted(gains))
    faults["charts"] = serious_faults(page)

    # the lights in a table: sorted by a heading, one without its tick
    go(page, "Stack")
    page.get_by_role("button", name="Measure the lights").click()
    page.get_by_text("3 of 3 lights are ticked").wait_for()
    page.get_by_role("button", name="FWHM [px]").click()
    page.locator("th[aria-sort=ascending]", has_text="FWHM").wait_for()
    rows = [row.split("\t") for row in page.locator("table.ticks tbody tr").all_inner_texts()]
    place = page.locator("table.ticks thead th").all_inner_texts().index("FWHM [px]")
    widths = [float(row[place]) for row in rows]
    assert widths == sorted(widths)
    page.get_by_role("checkbox", name="stack lights").last.uncheck()
    page.get_by_text("2 of 3 lights are ticked").wait_for()
    page.get_by_text(f"--exclude {rows[-1][1].strip()}").wait_for()
    first = wb.open_folder(small_samples).select(kind="light").table["file"].iloc[0]
    wait_for_figure(page, Path(first).name)
    other = next(row[1].strip() for row in rows if row[1].strip() != first)
    page.get_by_role("button", name=other).click()
    wait_for_figure(page, Path(other).name)
    faults["lights"] = serious_faults(page)

    # a tab that closes stops nothing; another one, on a phone in the dark, sees what goes on
    page.get_by_role("button", name="Calibrate and stack").click()
    page.get_by_role("button", name="Cancel").wait_for()
    asked = {"folder": str(small_samples), "results": str(tmp_path / "results")}
    second, second_watch = open_tab(browser, address, width=390, scheme="dark", **asked)
    page.close()
    page = second
    go(page, "Stack")
    page.get_by_text("2 of 3 lights stacked").wait_for()
    assert (tmp_path / "results" / "stack.fits").is_file()
    wait_for_figure(page, "stack.fits")
    (shown,) = page.evaluate(DRAWN, "stack.fits")
    assert shown["width"] < 390
    assert (shown["paper"], shown["ink"]) == ("#10181f", "#e4eaf0")
    assert shown["behind"] == "rgb(12, 19, 25)"
    faults["stack"] = serious_faults(page)

    go(page, "Pixels")
    wait_for_figure(page, "flat")
    page.get_by_role("button", name="Calibrate and align").click()
    page.get_by_text(re.compile(r"\d lights at column")).wait_for()
    assert re.search(r"kept \([+-]\d", page.get_by_role("region", name="lights at column").inner_text())
    page.get_by_label("Column", exact=True).filter(visible=True).fill("20")
    page.keyboard.press("Enter")
    page.get_by_text(re.compile(r"\d lights at column 20, row")).wait_for()
    page.locator("th", has_text=re.compile("^result$")).wait_for()
    faults["pixels"] = serious_faults(page)

    go(page, "Picture")
    page.get_by_role("button", name="Make the picture").click()
    page.get_by_text(str(tmp_path / "results" / "picture.png")).last.wait_for()
    page.get_by_text("Written:").last.wait_for()
    wait_for_figure(page, "finished")
    shown = [one["title"] for one in pictures(page)]
    assert shown.count("finished") == 1
    assert "linear" not in shown, "the linear picture is behind the divider, once"
    assert (tmp_path / "results" / "picture.png").is_file()
    page.get_by_role("button", name="Look at picture.png").click()
    wait_for_figure(page, "picture.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    faults["picture"] = serious_faults(page)

    assert {name: found for name, found in faults.items() if found} == {}
    for one in (watch, second_watch):
        assert one.complaints == []
        assert one.refused == []


@pytest.mark.browser
def test_a_stack_on_a_comet(browser, address, tmp_path):
    night = comet_night(tmp_path / "night", stars=90, brightest=1200.0)
    page, watch = open_tab(browser, address, folder=str(tmp_path / "night"), results=str(tmp_path / "results"))
    page.get_by_text(f"{3 * 9 + COUNT} frames of").wait_for()
    go(page, "Stack")
    way = page.get_by_label("Comet", exact=True)
    start = page.get_by_role("button", name="Calibrate and stack")
    way.fill("there")
    way.press("Enter")
    page.get_by_text("--comet there").wait_for()
    start.click()
    page.get_by_text("'there' is not a position X,Y").first.wait_for()

    # the comet tapped in the first and in the last light
    page.get_by_role("button", name="Tap the comet").click()
    for number, words in ((0, "Tap the comet in"), (COUNT - 1, "Now tap the comet in")):
        page.get_by_text(f"{words} {night.lights[number]}").wait_for()
        wait_for_figure(page, Path(night.lights[number]).name)
        x, y, _ = night.views[number].matrix @ np.append(FIRST + number * STEP, 1.0)
        tap(page, Path(night.lights[number]).name, x, y)
    page.get_by_text(f"@{night.lights[-1]}").wait_for()
    places = [np.array(text.split("@")[0].split(","), float) for text in way.input_value().split(";")]
    np.testing.assert_allclose(places, [FIRST, [x, y]], atol=1.0)

    way.fill("auto")
    way.press("Enter")
    page.get_by_text("--comet auto").wait_for()
    start.click()
    page.get_by_text(f"{COUNT} of {COUNT} lights stacked").wait_for(timeout=3 * PATIENCE)
    names = ["stack.fits", "stack-comet.fits", "stack-comet-and-stars.fits"]
    for name in names:
        wait_for_figure(page, name)
        assert (tmp_path / "results" / name).is_file()
    shown = {one["title"]: one["sum"] for one in pictures(page) if one["title"] in names}
    assert len(shown) == len(set(shown.values())) == 3
    header = fits.getheader(tmp_path / "results" / "stack-comet.fits")
    assert header["STACKOF"] == "comet"
    assert (header["COMETVX"], header["COMETVY"]) == pytest.approx(tuple(STEP / 62 * 3600), rel=0.01)
    assert serious_faults(page) == []
    assert (watch.complaints, watch.refused) == ([], [])


@pytest.mark.browser
def test_two_tabs_do_not_start_the_same_and_cancel_is_heard_in_both(browser, address, small_samples, tmp_path):
    asked = {"folder": str(small_samples), "results": str(tmp_path / "two")}
    tabs = [open_tab(browser, address, **asked) for _ in range(2)]
    for page, _ in tabs:
        page.get_by_text("39 frames of").wait_for()
        go(page, "Sensor")
    (first, _), (second, _) = tabs
    first.get_by_role("button", name="Measure the sensor").click()
    stop = second.get_by_role("button", name="Cancel")
    stop.wait_for()
    assert second.get_by_role("button", name="Measure the sensor").is_disabled()
    stop.click()
    for page, watch in tabs:
        page.get_by_text(re.compile("^cancelled")).wait_for()
        assert watch.complaints == []
    assert list((tmp_path / "two").iterdir()) == []


@pytest.mark.browser
def test_lights_are_added_live_and_a_reload_finds_the_work_again(browser, address, small_samples, tmp_path):
    asked = {"folder": str(small_samples), "results": str(tmp_path / "live")}
    page, watch = open_tab(browser, address, width=390, scheme="dark", **asked)
    go(page, "Live")
    start = page.get_by_role("button", name="Add lights as they come")
    start.click()
    page.get_by_text("The last lights").wait_for(timeout=3 * PATIENCE)  # where its loops are compiled first
    wait_for_figure(page, "Noise so far, and ahead (dashed)")
    page.reload()
    page.get_by_text("39 frames of").wait_for()
    go(page, "Live")
    stop = page.get_by_role("button", name="Cancel").filter(visible=True)
    stop.wait_for()
    assert start.is_disabled()
    page.get_by_role("img", name="the stack so far").wait_for()
    assert serious_faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    stop.click()
    page.get_by_text(re.compile("^cancelled after .* it continues from there")).wait_for()
    assert (watch.complaints, watch.refused) == ([], [])


@pytest.mark.browser
def test_strangers_stay_outside(browser, address, small_samples):
    """Other names of this machine, other sites' pages, other users, and addresses that somebody else wrote."""
    port = int(re.search(r":(\d+)/", address)[1])
    token = address.partition("token=")[2]
    page = browser.new_page()
    for stranger in (f"http://evil.test:{port}/?token={token}", f"http://127.0.0.1:{port}/"):
        assert page.goto(stranger).status == 403
        assert "the address, with its token, that the terminal shows" in page.content()
    answer = page.goto(f"{address}&folder={small_samples}&results=/tmp/taken")
    assert answer.status == 200
    assert "token" not in page.url
    assert answer.headers["content-security-policy"] == "frame-ancestors 'none'"
    page.get_by_text("Press Open if it is you who wants it").wait_for()
    assert page.get_by_text("What is there").count() == 0
    page.get_by_role("button", name="Open", exact=True).click()
    page.get_by_text("What is there").wait_for()
    page.reload()  # it was opened by the user: no question again
    page.get_by_text("What is there").wait_for()
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    for origin in ("", "Origin: http://evil.test\r\n"):
        with socket.create_connection(("127.0.0.1", port), 10) as raw:
            raw.sendall(
                f"GET /ws HTTP/1.1\r\nHost: localhost:{port}\r\n{origin}Cookie: {cookie['name']}={cookie['value']}\r\n"
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            said = raw.recv(200)
        assert said.startswith(b"HTTP/1.1 403 "), origin


@pytest.mark.browser
def test_a_star_is_tapped_and_its_light_curve_is_found_again(browser, address, tmp_path):
    night = write_transit(tmp_path / "night", lights=8, calibration=4, seed=2)
    stack = tmp_path / "results" / "stack.fits"
    wb.stack_folder(night.folder, stack, reference="light_000.fits", progress=False)
    measured = wb.photometry(stack)
    asked = {"folder": str(night.folder), "results": str(tmp_path / "results")}
    page, watch = open_tab(browser, address, width=390, scheme="dark", **asked)
    go(page, "Stack")
    wait_for_figure(page, "stack.fits")

    start = page.get_by_role("button", name="Draw its light curve")
    expect(start).to_be_disabled(timeout=PATIENCE)
    for number in (0, 1):
        tap(page, "stack.fits", night.x[number] + 2, night.y[number] - 2)
        star = wb.pipelines.star_at(measured, night.x[number], night.y[number])
        shown = page.get_by_role("region", name="The star")
        expect(shown).to_contain_text(f"x {float(star.x):.1f}, y {float(star.y):.1f} px", timeout=PATIENCE)
        for channel in "RGB":
            flux, error = (float(star[name].sel(channel=channel)) for name in ("flux", "flux_error"))
            assert f"flux {channel}\t{wb.core.values.value_text(flux, error, 'e⁻')}" in shown.inner_text()
            share = flux / (60 * night.flux[number, "RGB".index(channel)])  # in the aperture, and through the air
            assert 0.8 < share < 1.0
    tap(page, "stack.fits", night.x[1] + 24, night.y[1] + 24)
    page.get_by_text("there is no star at x").wait_for()
    expect(start).to_be_disabled(timeout=PATIENCE)

    page.get_by_label("Column", exact=True).filter(visible=True).fill(str(round(night.x[0])))
    page.keyboard.press("Enter")
    page.get_by_label("Row", exact=True).filter(visible=True).fill(str(round(night.y[0])))
    page.keyboard.press("Enter")
    shown.wait_for()
    expect(start).to_be_enabled(timeout=PATIENCE)
    start.click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text(re.compile("^cancelled")).wait_for()
    start.click()
    page.get_by_role("button", name="Cancel").wait_for()
    page.reload()
    page.get_by_text("What is there").wait_for()
    go(page, "Stack")
    wait_for_figure(page, "Light curve")
    page.get_by_text("8 lights over").wait_for()
    drawn = {figure["title"]: figure["glyphs"] for figure in page.evaluate(FIGURES)}["Light curve"]
    (points,) = (glyph["data"] for glyph in drawn if glyph["label"] == "the star")
    written = pd.read_csv(next((tmp_path / "results").glob("curve-*.csv")))
    assert any(np.allclose(column, 100 * written["relative_flux"]) for column in points.values() if len(column) == 8)
    page.get_by_text("stars are measured: tap one").wait_for()
    assert serious_faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert (watch.complaints, watch.refused) == ([], [])
