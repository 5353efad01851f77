"""The exported pages in a real browser, from files, with the network cut off: all is drawn, all controls work."""

import io
import re

import holoviews as hv
import numpy as np
import pytest
from PIL import Image

from tests.browser.watch import Watch, chromium, serious_faults
from tests.scenes import small_finish
from workbench.charts.pictures import colour_panel
from workbench.charts.registry import REGISTRY, Caption
from workbench.charts.theme import INK
from workbench.core.dark import dark_laws, predict_current
from workbench.export import DEMONSTRATIONS, demonstrations, pages
from workbench.finish import midtones
from workbench.plan.subs import noise_penalty, sub_length

MOST = 200_000  # bytes that one figure may add to a page
FILES = re.compile(r"file://|data:|blob:")
DRAWN = "document.querySelectorAll('[data-drawn]').length"
PLACES = "document.querySelectorAll('[id^=workbench-]').length"


@pytest.fixture(scope="module")
def browser(require):
    with chromium(require("chromium")) as one:
        yield one


_SAID = """() => [...Bokeh.documents.flatMap(doc => [...doc._all_models.values()])]
  .find(model => model.name === 'readout').text"""


def open_file(browser, path, *, width=1200, scheme="light"):
    context = browser.new_context(
        offline=True, viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    watch = Watch(page, FILES)
    page.goto(path.as_uri())
    return page, watch


def draw_all(page):
    """Scroll through the page until every figure has been drawn, as a reader would."""
    page.wait_for_function(f"{DRAWN} > 0")
    for _ in range(200):
        if page.evaluate(f"{DRAWN} === {PLACES}"):
            return
        page.mouse.wheel(0, 800)
        page.wait_for_timeout(100)
    raise AssertionError(f"{page.evaluate(DRAWN)} of {page.evaluate(PLACES)} places were drawn")


def test_a_figure_adds_little_and_the_library_lies_beside_once(folder):
    figures = sorted(folder.glob("*.js"))
    assert len(figures) > 15
    sizes = {path.name: path.stat().st_size for path in figures}
    assert 1_000_000 < sizes.pop(pages.SHARED) < 2_000_000
    assert {name: size for name, size in sizes.items() if size > MOST} == {}
    for name in sizes:
        assert f'src="{name}"' in (folder / name.replace(".js", ".embed.html")).read_text()


def test_a_snippet_has_figure_caption_and_alternative(folder, result):
    text = (folder / "iso-to-gain.embed.html").read_text()
    assert "<figcaption>Gain against ISO" in text
    assert 'aria-label="Two charts with logarithmic axes.' in text
    assert '<noscript><img src="iso-to-gain.png" alt="Two charts' in text
    assert "Put iso-to-gain.js, workbench-charts.js, iso-to-gain.png into the folder" in text


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_the_index_shows_every_chart(folder, browser, width, scheme):
    page, watch = open_file(browser, folder / "index.html", width=width, scheme=scheme)
    draw_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    schemes = page.evaluate(
        "[...new Set([...document.querySelectorAll('[data-drawn]')].map(one => one.dataset.drawn))]"
    )
    assert schemes == [scheme]
    background = page.evaluate("Bokeh.documents[0].roots().find(one => one.type === 'Figure')?.border_fill_color")
    assert background in ({"dark": "#10181f", "light": "#fffffe"}[scheme], None)
    assert serious_faults(page) == []
    assert watch.complaints == []
    assert watch.refused == []
    page.context.close()


@pytest.mark.browser
def test_a_page_by_itself_draws_on_a_phone(folder, browser, tmp_path):
    for name in ("iso-to-gain", "dark-subtraction"):
        alone = tmp_path / f"{name}.html"
        alone.write_bytes((folder / f"{name}.html").read_bytes())
        page, watch = open_file(browser, alone, width=390)
        draw_all(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, f"{name} is cut"
        panels = page.evaluate("Bokeh.documents[0].roots().map(one => [one.inner_width, one.inner_height])")
        assert all(across > 150 and high > 100 for across, high in panels), f"{name}: {panels}"
        assert watch.complaints == []
        assert serious_faults(page) == []
        page.context.close()


@pytest.mark.browser
def test_a_picture_has_the_same_pixels_where_the_page_is_dark(browser, tmp_path):
    """The house colours become lighter on a dark page; in a picture they are data."""
    house = np.array([int(INK[at : at + 2], 16) for at in (1, 3, 5)])
    levels = np.broadcast_to(house[:, None, None] / 255, (3, 40, 60))
    hv.extension("bokeh")
    model = hv.render(colour_panel(levels, "all of one colour"), backend="bokeh")
    chart = REGISTRY["finished-steps"]
    files = pages.files(pages.figure([model], chart, Caption("text", "alt"), [""]), picture=False)
    (tmp_path / "one.html").write_bytes(files[".html"])
    for scheme in ("light", "dark"):
        page, _ = open_file(browser, tmp_path / "one.html", scheme=scheme)
        draw_all(page)
        page.wait_for_timeout(200)
        pixels = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
        assert (pixels == house).all(axis=2).sum() > 20_000, f"the picture on a {scheme} page"
        page.context.close()


# of every figure with pictures: what is left when all but the pictures is hidden, as a checksum of the pixels drawn
PICTURES = """async () => {
  const models = Bokeh.documents.flatMap(doc => doc.roots()).flatMap(root => [...root.references()]);
  const figures = [...new Set(models.filter(model => model.type === 'Figure'))]
    .filter(model => model.renderers.some(one => /^Image/.test(one.glyph?.type)));
  for (const model of figures) {
    for (const one of model.renderers) one.visible = /^Image/.test(one.glyph?.type);
    for (const one of [...model.center, ...model.left, ...model.right]) one.visible = false;
    model.background_fill_color = '#808080';  // where a picture has no data
  }
  await new Promise(drawn => setTimeout(drawn, 500));
  return figures.map(model => {
    const view = Bokeh.index.find_one(model), {canvas, pixel_ratio} = view.export('png');
    const {left, top, width, height} = view.frame.bbox;  // its rim belongs to the axes
    const box = [left + 3, top + 3, width - 6, height - 6].map(side => Math.round(side * (pixel_ratio ?? 1)));
    const bytes = canvas.getContext('2d').getImageData(...box).data;
    let sum = 2166136261;
    const levels = new Set();
    for (const [at, byte] of bytes.entries()) {
      sum = Math.imul(sum ^ byte, 16777619) >>> 0;
      if (at % 4 === 0) levels.add(byte);
    }
    return {title: model.title?.text ?? '', size: `${box[2]} x ${box[3]}`, levels: levels.size, sum};
  });
}"""


@pytest.mark.browser
@pytest.mark.parametrize(
    ("name", "count"),
    [("vignette", 1), ("dark-subtraction", 2), ("background-before-after", 3), ("stretch", 2), ("finished-steps", 3)],
)
def test_the_pictures_of_a_chart_have_the_same_pixels_where_the_page_is_dark(folder, browser, name, count):
    seen = {}
    for scheme in ("light", "dark"):
        page, _ = open_file(browser, folder / f"{name}.html", scheme=scheme)
        draw_all(page)
        seen[scheme] = page.evaluate(PICTURES)
        page.context.close()
    assert len(seen["light"]) >= count
    assert all(one["levels"] > 10 for one in seen["light"]), "a picture is not drawn"
    assert seen["dark"] == seen["light"]


@pytest.mark.browser
def test_snippets_live_in_a_blog_of_its_own_colours(folder, browser):
    """Two in one page, which stays light for a reader who prefers dark; the library is fetched once."""
    blog = folder / "blog.html"
    snippets = [(folder / f"{name}.embed.html").read_text() for name in ("ptc", "sub-length-demo")]
    blog.write_text(f"<!DOCTYPE html><html lang=en><title>Blog</title><body>{''.join(snippets)}</body></html>")
    page, watch = open_file(browser, blog, scheme="dark")
    fetched = []
    page.on("request", lambda request: fetched.append(request.url))
    page.reload()
    draw_all(page)
    assert page.evaluate("document.querySelector('[data-drawn]').dataset.drawn") == "light"
    assert sum(pages.SHARED in url for url in fetched) == 1
    assert watch.complaints == []
    page.context.close()


@pytest.mark.browser
@pytest.mark.parametrize("name", ["shot-noise-demo", *(demo.id for demo in DEMONSTRATIONS)])
def test_a_demonstration_answers_without_python(folder, browser, result, name):
    page, watch = open_file(browser, folder / f"{name}.html")
    draw_all(page)
    page.wait_for_function(f"({_SAID})() !== ''")
    before = page.evaluate(_SAID)
    CHECKS[name](page, result)
    assert page.evaluate(_SAID) != before
    assert watch.complaints == []
    assert serious_faults(page) == []
    page.context.close()


def put(page, name, value):
    page.evaluate(
        "([name, value]) => { for (const doc of Bokeh.documents) for (const model of doc._all_models.values())"
        " if (model.name === name) model.value = value; }",
        [name, value],
    )


def column(page, name, key):
    return page.evaluate(
        "([name, key]) => { for (const doc of Bokeh.documents) for (const model of doc._all_models.values())"
        " if (model.name === name) return Array.from(new Map(model.data instanceof Map ? model.data :"
        " Object.entries(model.data)).get(key)); }",
        [name, key],
    )


def check_subs(page, result):
    """What the planner computes."""
    put(page, "penalty", 10)
    put(page, "sky", "2")
    put(page, "warmth", 20)
    dark, _ = predict_current(dark_laws(result.sensor, ["doubling"]), 20)
    expected = [sub_length((noise, 0), (2 + dark, 0), 0.1).value for noise in result.sensor.read_noise.mean("channel")]
    np.testing.assert_allclose(column(page, "bars", "seconds"), expected)
    length, added = (column(page, "curve", name) for name in ("length", "added"))
    noise = float(result.sensor.read_noise.mean("channel").sel(iso=800))
    np.testing.assert_allclose(added, 100 * noise_penalty(length, noise, 2 + dark))


def check_transfer(page, _):
    put(page, "prnu", 2)
    put(page, "gain", "2")
    pair, alone = (np.array(column(page, "points", name)) for name in ("pair", "alone"))
    signal = np.array(column(page, "points", "signal"))
    assert np.median(signal / (pair - 2.25)) == pytest.approx(2, rel=0.05)
    assert (alone - pair)[-1] == pytest.approx((0.02 * signal[-1]) ** 2, rel=0.1)
    told = re.search(r"gives <b>([\d.]+) ±", page.evaluate(_SAID))
    assert float(told[1]) == pytest.approx(2, rel=0.02)


def check_rejection(page, _):
    for method, count, strength in (("noise", 5, 30), ("sigma", 5, 30), ("winsorized", 24, 10), ("esd", 12, 20)):
        put(page, "method", method)
        put(page, "frames", str(count))
        put(page, "strength", strength)
        out = demonstrations.decisions(count, strength, method)
        kept = demonstrations.samples(count, strength)[~out]
        np.testing.assert_allclose(column(page, "kept", "value"), kept)
        assert len(column(page, "gone", "value")) == out.sum() + 1
    assert not demonstrations.decisions(5, 30, "sigma").any(), "three sigma cannot reject one of five"
    assert demonstrations.decisions(5, 30, "noise").tolist() == [False, True, False, False, False]


def check_stretch(page, _):
    linear = small_finish()["linear"].mean("channel").values
    put(page, "midtones", 0.05)
    low, high = (float(np.quantile(linear, share)) for share in (0.0005, 0.9995))
    level, height = (np.array(column(page, "curve", name)) for name in ("level", "height"))
    np.testing.assert_allclose(height, midtones(np.clip((level - low) / (high - low), 0, 1), 0.05), atol=1e-9)
    shown = np.array(column(page, "shown", "image")[0]).reshape(linear.shape)[::-1]
    expected = 255 * midtones(np.clip((linear - low) / (high - low), 0, 1), 0.05)
    assert np.abs(shown - expected).max() < 1.6  # 16-bit codes, then 8


def check_shot_noise(page, _):
    page.get_by_role("button", name="100 exposures").click()
    assert sum(column(page, "snr", "taken")) > 100


CHECKS = {
    "shot-noise-demo": check_shot_noise,
    "sub-length-demo": check_subs,
    "ptc-demo": check_transfer,
    "rejection-demo": check_rejection,
    "stretch-demo": check_stretch,
}
