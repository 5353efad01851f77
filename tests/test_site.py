"""The built site as a reader opens it: from a folder, without a network, light and dark, at a desk and on a phone."""

import os
import re
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import build_site
import pytest
from filelock import FileLock

from workbench.charts.registry import REGISTRY

from .browser.jupyter import CONTENT
from .browser.watch import Watch, chromium, serious_faults

ROOT = Path(__file__).parent.parent
FILES = re.compile(r"file://|data:|blob:")
WIDE, NARROW = 1400, 400

pytestmark = [pytest.mark.site, pytest.mark.slow]


class Page(HTMLParser):
    """What a page links to and loads, and the places that it can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        self.links += [attributes[name] for name in ("href", "src") if attributes.get(name)]


@pytest.fixture(scope="session")
def site(samples, real_data, tmp_path_factory):
    """The site, built once for all workers; a notebook that a test has executed is not executed again."""
    base = tmp_path_factory.getbasetemp()
    out = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "site"
    with FileLock(out.with_suffix(".lock")), pytest.MonkeyPatch.context() as context:
        context.setenv("WORKBENCH_REAL_DATA", str(real_data))
        return out if (out / "index.html").exists() else build_site.build(out)


@pytest.fixture(scope="session")
def pages(site):
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_every_link_and_asset_is_there(site, pages):
    wrong = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "mailto", "data", "javascript"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                wrong.append(f"{path.relative_to(site)}: {link} is not there")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                wrong.append(f"{path.relative_to(site)}: {link} has no such place")
    assert not wrong, "\n".join(wrong[:40])


def test_it_holds_the_course_the_charts_and_the_reference(site, pages):
    there = {str(path.relative_to(site).with_suffix("")) for path in pages}
    wanted = {f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    wanted |= {f"api/workbench.{room}" for room in build_site.ROOMS} | {
        "index",
        "start",
        "charts/index",
        "api/workbench",
    }
    wanted |= {f"howto/{path.stem}" for path in (ROOT / "docs" / "howto").glob("*.md")}
    drawn = set(REGISTRY) - {"cosmic-rays"}  # the samples' darks are short
    wanted |= {f"charts/{name}" for name in drawn | {"rejection-demo", "stretch-demo"}}
    assert wanted - there == set()
    for name in drawn:
        for ending in ("png", "svg", "html", "txt"):
            assert (build_site.CHARTS / f"{name}.{ending}").stat().st_size > 100
    for path in (site / "notebooks").glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert text.count('class="course-figure"') >= 2, f"{path.name} shows no figures"
        assert "Traceback (most recent call last)" not in text
        assert "wrapped_sync" not in text, f"{path.name} shows a function, not what it returns"


def test_scripts_are_stored_once_and_all_is_small(site):
    files = [path for path in site.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 80e6
    bokeh = [path for path in files if path.suffix in (".js", ".html") and b"BokehJS" in path.read_bytes()]
    scripts = {path.name for path in bokeh if path.stat().st_size > 1e6 and path.suffix == ".js"}
    assert scripts == {"workbench-charts.js"}


@pytest.fixture(scope="module")
def browser(require):
    with chromium(require("chromium")) as started:
        yield started


# brings each figure into view, which draws it, and waits until it is drawn
DRAW_ALL = """async () => {
  const patience = performance.now() + 60000;
  for (const figure of document.querySelectorAll('.course-figure, .workbench-chart')) {
    figure.scrollIntoView();
    while (!figure.querySelector('[data-drawn]')) {
      if (performance.now() > patience) throw new Error('a figure is not drawn');
      await new Promise(requestAnimationFrame);
    }
  }
}"""


@contextmanager
def reader(browser, width=WIDE, scheme="light"):
    """A reader without a network; yields what opens a page down to its end, and what it complained of."""
    context = browser.new_context(
        offline=True, viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    watch = Watch(page, FILES)

    def opened(path):
        page.goto(path.as_uri())
        page.evaluate(DRAW_ALL)
        return page

    with context:
        yield opened, watch


LOOKED_AT = (
    "index",
    "start",
    "course",
    "charts/index",
    "charts/ptc-demo",
    "howto/dslr",
    "api/workbench.stack",
    "accuracy",
)


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(WIDE, "light"), (NARROW, "dark")])
def test_no_page_complains_everybody_can_use_it_and_it_fits(browser, site, pages, width, scheme):
    """All pages at a desk: nothing foreign, no complaint.  Some, and the first lessons, at both widths: axe, width."""
    looked_at = {*(site / f"{name}.html" for name in LOOKED_AT), *sorted((site / "notebooks").glob("*.html"))[:4]}
    problems = []
    with reader(browser, width, scheme) as (opened, watch):
        for path in pages if width == WIDE else sorted(looked_at):
            watch.refused.clear()  # axe reads the style sheets again, which a browser refuses
            watch.complaints.clear()
            page = opened(path)
            problems += [f"{path.relative_to(site)}: {what}" for what in (*watch.refused, *watch.complaints)]
            if path in looked_at:
                problems += [f"{path.relative_to(site)}: {fault}" for fault in serious_faults(page)]
                wide = page.evaluate("document.documentElement.scrollWidth")
                if wide > width + 1:
                    problems.append(f"{path.relative_to(site)}: {wide} px wide on a screen of {width}")
    assert not problems, "\n".join(problems[:20])


@pytest.mark.browser
def test_a_demonstration_works_without_python_and_other_controls_say_that_they_do_not(browser, site):
    lesson = next((site / "notebooks").glob("*gain-against-iso.html"))
    with reader(browser) as (opened, _):
        page = opened(lesson)
        demonstration = page.locator("figure.workbench-chart").first
        demonstration.scroll_into_view_if_needed()
        content = f"JSON.stringify(({CONTENT})())"
        before, picture = page.evaluate(content), demonstration.screenshot()
        demonstration.locator(".noUi-handle").first.press("ArrowRight")
        page.wait_for_function(f"before => {content} !== before", arg=before)
        assert demonstration.screenshot() != picture
        assert page.locator(".needs-python").count() > 0
        assert page.locator(".course-figure select:not([disabled])").count() == 0


@pytest.mark.browser
def test_figures_follow_the_page_into_the_dark(browser, site):
    with reader(browser) as (opened, _):
        page = opened(site / "charts" / "ptc.html")
        assert page.locator("[data-drawn=light]").count() > 0
        page.evaluate("document.documentElement.dataset.theme = 'dark'")
        page.locator("[data-drawn=dark]").first.wait_for(timeout=10_000)
