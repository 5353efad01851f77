"""How long from moving a control to the changed figure: python -m benchmarks.interaction [TABLE].

A real Chromium shows each page as a reader has it; a control is moved 50 times by script, and the clock stops in the
browser when the figure's data has changed and the next frame is painted.  The table shows the median and the 95th
percentile.  Wanted: 150 ms for a chart, 300 ms for a picture of a full frame (24 Mpx).
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MOVES = 50
WANTED = {"chart": 150.0, "picture": 300.0}  # ms, 95th percentile
CHROMIUM = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]

# moves a model's property through values, each time waiting for any glyph's data to change and to be painted
_CLOCK = """async ([what, moves]) => {
  const all = () => Bokeh.documents.flatMap(doc => [...doc._all_models.values()]);
  const picture = () => all().find(model => model.type === 'Figure');
  const find = () => what.title ? all().find(model => model.title === what.title)
    : picture().x_range;
  const painted = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  const times = [];
  for (const move of moves) {
    const started = performance.now();
    const changed = new Promise((done, fail) => {
      const give_up = setTimeout(() => fail(new Error('nothing changed after ' + JSON.stringify(move))), 5000);
      const hear = (event) => {
        const kind = event.kind ?? '';
        if (event.attr === 'data' || event.attr === 'children' || /ColumnData/.test(event.constructor.name)) {
          clearTimeout(give_up); stop(); done();
        }
      };
      const docs = [...Bokeh.documents];
      const stop = () => docs.forEach(doc => doc.remove_on_change(hear));
      docs.forEach(doc => doc.on_change(hear));
    });
    find().setv(move);
    if (!what.title) Bokeh.index.find_one(picture()).trigger_ranges_update_event();  // as the wheel does
    await changed;
    await painted();
    times.push(performance.now() - started);
    await new Promise(done => setTimeout(done, 60));
  }
  return times;
}"""


def slider(title: str, values: Any) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Return how to find a slider, and its moves."""
    return {"title": title}, [{"value": value} for value in values]


def views(shape: tuple[int, int]) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Return how to find a picture's range, and moves along a frame: out to the whole, in to a tenth of it."""
    rng = np.random.default_rng(1)
    moves = []
    for number in range(MOVES):
        across = shape[1] * (1.0, 0.5, 0.25, 0.1)[number % 4]
        start = float(rng.uniform(0, shape[1] - across + 1))
        moves.append({"start": start, "end": start + across})
    return {"title": ""}, moves


def timed(page: Any, what: dict[str, str], moves: list[dict[str, Any]]) -> np.ndarray:
    """Move a control and return the times [ms]; the first three moves warm up and do not count."""
    return np.array(page.evaluate(_CLOCK, [what, moves[:3] + moves]))[3:]


def cases(scratch: Path) -> list[tuple[str, str, Callable[[], Any] | Path, Any]]:
    """Return what is measured: its name, its kind, a page (or what builds one) and the moves."""
    from workbench.apps import explore, viewer
    from workbench.export import write_charts
    from workbench.runs import characterize

    result = characterize(Path(__file__).parents[1] / "data-samples" / "small", progress=False)
    write_charts(result, scratch, only=["shot-noise-demo"], progress=False)
    rng = np.random.default_rng(0)
    shape = (4016, 6016)
    mosaic = rng.normal(1000, 30, shape).astype(np.uint16)
    colour = rng.normal(1000, 30, (3, *shape)).astype(np.float32)
    levels = [(0, float(top)) for top in np.linspace(2000, 12000, MOVES)]
    return [
        (
            "gain explorer (server)",
            "chart",
            lambda: explore.ptc_explorer(result.ptc),
            slider("signal to fit [ADU]", levels),
        ),
        (
            "dark explorer (server)",
            "chart",
            lambda: explore.dark_explorer(result.dark_law),
            slider("sensor temperature [°C]", np.resize(np.arange(-20, 40), MOVES).tolist()),
        ),
        (
            "shot noise page (no Python)",
            "chart",
            scratch / "shot-noise-demo.html",
            slider("exposure", np.resize(np.arange(0.5, 4.5, 0.5), MOVES).tolist()),
        ),
        ("raw frame, 24 Mpx (server)", "picture", lambda: viewer.live(viewer.picture("frame", mosaic)), views(shape)),
        (
            "stack, 24 Mpx in colour (server)",
            "picture",
            lambda: viewer.live(viewer.picture("stack", colour)),
            views(shape),
        ),
    ]


def measure() -> list[tuple[str, str, np.ndarray]]:
    """Measure every case; returns name, kind and times [ms]."""
    import holoviews as hv
    import panel as pn
    from playwright.sync_api import sync_playwright

    from workbench.app.server import free_port
    from workbench.apps import viewer

    hv.extension("bokeh", logo=False)
    pn.extension(throttled=False)
    viewer.warm()
    found = []
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        some = cases(Path(scratch))
        port = free_port("127.0.0.1", 5050)
        pages = {f"/{number}": page for number, (_, _, page, _) in enumerate(some) if not isinstance(page, Path)}
        server = pn.serve(pages, port=port, address="127.0.0.1", show=False, threaded=True, verbose=False)
        with playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM) as browser:
            for number, (name, kind, place, (what, moves)) in enumerate(some):
                page = browser.new_page(viewport={"width": 1300, "height": 900}, reduced_motion="reduce")
                page.goto(place.as_uri() if isinstance(place, Path) else f"http://127.0.0.1:{port}/{number}")
                page.wait_for_function("window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle")
                page.wait_for_timeout(2000)
                times = timed(page, what, moves)
                found.append((name, kind, times))
                print(f"{name}: median {np.median(times):.0f} ms, 95 % within {np.percentile(times, 95):.0f} ms")
                page.close()
        server.stop()
    return found


def table(found: list[tuple[str, str, np.ndarray]]) -> str:
    """Write the times as Markdown."""
    lines = ["| what is moved | median [ms] | 95 % within [ms] | wanted [ms] |", "|---|---|---|---|"]
    for name, kind, times in found:
        lines.append(f"| {name} | {np.median(times):.0f} | {np.percentile(times, 95):.0f} | {WANTED[kind]:.0f} |")
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    lines += ["", f"Measured with {load:.1f} processes waiting or running for each core; 1 is a machine just busy."]
    return "\n".join(lines)


if __name__ == "__main__":
    text = table(measure())
    print(text)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text + "\n", encoding="utf-8")
