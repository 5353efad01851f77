"""How long from moving a control to the changed figure: python -m benchmarks.interaction [TABLE] [--only WORDS].

A real Chromium shows each page as a reader has it; a control is moved 50 times by script.  The clock, in the browser,
stops when the last change that the move brought (text, data, a picture that is decoded) is painted.  The table shows
the median and the 95th percentile, and how long after a quick drag over 30 values the figure of the last one stands.
Wanted: 150 ms for a chart, 300 ms for a picture of a full frame.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MOVES, DRAGS = 50, 5
WANTED = {"chart": 150.0, "picture": 300.0}  # ms, 95th percentile
CHROMIUM = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]

# Sets a model's property to values, `apart` ms from each other, or each after the figure of the one before stands.
# What changes is heard of from bokeh's documents; the last of it counts, when nothing more has come for 120 ms.
_CLOCK = """async ([what, moves, apart]) => {
  const all = () => Bokeh.documents.flatMap(doc => [...doc._all_models.values()]);
  const figure = () => all().find(model => model.type === 'Figure');
  const find = () => what.title === 'view' ? figure().x_range : what.title
    ? all().find(model => model.title === what.title || model.label === what.title)
    : all().filter(model => model.type === 'Slider')[what.number];
  const pictures = (root = document) => [...root.querySelectorAll('*')].flatMap(
    one => [...(one.tagName === 'IMG' ? [one] : []), ...(one.shadowRoot ? pictures(one.shadowRoot) : [])]);
  const frames = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  const painted = async () => {
    await new Promise(done => queueMicrotask(done));
    if (what.kind === 'text') await Promise.all(pictures().map(one => one.decode().catch(() => {})));
    await frames();
    return performance.now();
  };
  const rest = (ms) => new Promise(done => setTimeout(done, ms));
  const until = async (act) => {  // the time from the last step of `act` to the last paint
    let last = null, heard = 0, wanted = 0;
    const hear = (event) => {
      const data = event.attr === 'data' || event.attr === 'children' || /ColumnData/.test(event.constructor.name);
      if (!data && event.attr !== 'text') return;
      wanted += what.kind === 'text' ? event.attr === 'text' && /<img/.test(event.model.text) : data;
      heard = performance.now();
      last = painted();
    };
    const docs = [...Bokeh.documents];
    docs.forEach(doc => doc.on_change(hear));
    const started = await act();
    const give_up = performance.now() + 5000;
    while (!wanted || performance.now() < heard + 120) {
      if (performance.now() > give_up) throw new Error('nothing changed after ' + JSON.stringify(moves));
      await rest(4);
    }
    docs.forEach(doc => doc.remove_on_change(hear));
    return await last - started;
  };
  const move = (value) => {
    const started = performance.now();
    find().setv(value);
    if (what.title === 'view') Bokeh.index.find_one(figure()).trigger_ranges_update_event();  // as the wheel does
    return started;
  };
  if (apart) return [await until(async () => {
    let started = 0;
    for (const value of moves) { started = move(value); await rest(apart); }
    return started;
  })];
  const times = [];
  for (const value of moves) { times.push(await until(async () => move(value))); await rest(30); }
  return times;
}"""


class Case(NamedTuple):
    """What is measured: where, of which kind, what is moved, and how."""

    name: str
    kind: str
    page: Callable[[], Any] | Path
    what: dict[str, Any]
    moves: list[dict[str, Any]]


def slider(title: str | int, values: Any, kind: str = "data") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return how to find a slider, by its title or as the how manieth, and its moves."""
    place = {"number": title} if isinstance(title, int) else {"title": title}
    return {"kind": kind, **place}, [{"value": value} for value in values]


def views(shape: tuple[int, int]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return how to find a picture's range, and moves along a frame: out to the whole, in to a tenth of it."""
    rng = np.random.default_rng(1)
    moves = []
    for number in range(MOVES):
        across = shape[1] * (1.0, 0.5, 0.25, 0.1)[number % 4]
        start = float(rng.uniform(0, shape[1] - across + 1))
        moves.append({"start": start, "end": start + across})
    return {"title": "view", "kind": "data"}, moves


def choices(values: Any, start: Any = None) -> list[Any]:
    """Return as many of the values as there are moves, none twice in a row, never where the control starts."""
    rng, values, chosen = np.random.default_rng(1), [value for value in values if value != start], [-1]
    for _ in range(MOVES):
        chosen.append(int(rng.choice([at for at in range(len(values)) if at != chosen[-1]])))
    return [values[at] for at in chosen[1:]]


def charts_cases(scratch: Path) -> Iterator[Case]:
    """Charts: explorers that measure and fit anew, figures of the course, and a page without Python."""
    import course
    import panel as pn

    import workbench as wb
    from workbench import align, calibrate, stack
    from workbench.export import write_charts
    from workbench.pipelines import characterize, plan_night
    from workbench.simulate.samples import sample_folder

    folder = Path(__file__).parents[1] / "data-samples" / "small"
    frames = wb.open_folder(folder, progress=False)
    result = characterize(folder, progress=False)

    # each level lies in another gap between pairs of flats than the one before, and none comes twice: all are new fits
    one = result.ptc.isel(pair=np.flatnonzero(result.ptc.iso.values == result.ptc.iso.values.min()))
    pairs = np.sort(one.signal.mean("channel").values)
    rng = np.random.default_rng(2)
    levels = [(0, float(rng.uniform(pairs[gap], pairs[gap + 1]))) for gap in choices(range(1, pairs.size - 1))]
    what, moves = slider("signal to fit [ADU]", levels)
    yield Case("gain explorer: fit and chart", "chart", lambda: course.ptc_explorer(result.ptc), what, moves)

    what, moves = slider("sensor temperature [°C]", choices(range(-20, 40), 20))
    yield Case("dark explorer", "chart", lambda: course.dark_explorer(result.dark_law), what, moves)

    night = plan_night(frames, result.sensor, progress=False)
    what, moves = slider("noise allowed [%]", choices(np.arange(1, 20, 0.5).tolist(), 5))

    def planner() -> Any:  # Panel does not call a partial
        return course.sub_length_explorer(night.sensor, night.background)

    yield Case("planner of sub exposures", "chart", planner, what, moves)

    what, moves = slider("sensor [°C]", choices(range(-20, 35), 20))
    yield Case("noise budget", "chart", lambda: course.noise_budget_explorer(result.sensor), what, moves)

    count = int((frames.bias.iso == frames.bias.iso[0]).sum())

    def notebook() -> Any:
        frames_averaged = pn.widgets.IntSlider(label="frames averaged", start=1, end=count)
        bound = pn.bind(course.bias_average, frames.bias, frames=frames_averaged)
        return course.figure(bound, "The mean of some bias frames.", frames_averaged)

    yield Case(
        "notebook 02: bias frames averaged",
        "chart",
        notebook,
        *slider("frames averaged", choices(range(1, count + 1), 1)),
    )

    frames = wb.open_folder(sample_folder(progress=False), progress=False)
    masters = calibrate.make_masters(frames.light, bias=frames.bias, dark=frames.dark, flat=frames.flat, progress=False)
    lights = calibrate.calibrate(frames.light, masters).compute()
    registration = align.register(lights, progress=False)
    aligned = stack.aligned(lights, registration).compute()
    y, x = stack.busiest_pixel(aligned)
    what, moves = slider("threshold [σ]; 0 is each method's own", choices(np.arange(1, 8, 0.5).tolist()))
    yield Case("rejection at one pixel", "chart", lambda: course.pixel_explorer(aligned, y, x), what, moves)

    trials = course.RejectionTrials(lights, registration)
    for number in trials.counts:  # worked out before: what is measured is the figure
        trials.of(number)

    def rejection() -> Any:
        stacked = pn.widgets.DiscreteSlider(label="frames stacked", options=trials.counts, value=trials.counts[-1])
        return course.figure(pn.bind(trials.chart, stacked), "Rejection methods tried.", stacked)

    what, moves = slider(0, choices(range(len(trials.counts)), len(trials.counts) - 1))
    yield Case("notebook 11: rejection trials (known ones)", "chart", rejection, what, moves)

    write_charts(result, scratch, only=["shot-noise-demo"], progress=False)
    what, moves = slider("exposure", np.resize(np.arange(0.5, 4.5, 0.5), MOVES).tolist())
    yield Case("shot noise page (no Python)", "chart", scratch / "shot-noise-demo.html", what, moves)


def picture_cases() -> Iterator[Case]:
    """Pictures: frames and stacks of 24 and 60 megapixels, and the finish of a stack of 16."""
    import subprocess

    import course

    from benchmarks import finish as finishing_benchmark
    from workbench import finish
    from workbench.app import viewer

    rng = np.random.default_rng(0)
    for size, shape in ((24, (4016, 6016)), (60, (6336, 9504))):
        colour = 1000 + 30 * rng.standard_normal((3, *shape), np.float32)
        for name, pixels in (("raw frame", colour[0].astype(np.uint16)), ("stack in colour", colour)):
            shown = viewer.picture(name, pixels)
            yield Case(f"{name}, {size} Mpx", "picture", lambda shown=shown: viewer.live(shown), *views(shape))
    path = finishing_benchmark.CACHE / "stack-16.fits"
    if not path.exists():
        subprocess.run([sys.executable, finishing_benchmark.__file__, "--make", "16"], check=True)
    linear = finish.crop(finish.read_picture(path)).load()
    done = finish.finish(linear, progress=False)
    flat = finish.remove_background(linear, done.background)
    shares = choices(np.linspace(0.05, 0.95, 19).round(2).tolist(), 0.5)
    for name, page, title in (
        ("background, 16 Mpx", lambda: course.background_explorer(linear), "share of the model removed"),
        ("colour, 16 Mpx", lambda: course.colour_explorer(flat), "green cast removed"),
        ("stretch, 16 Mpx, with histograms", lambda: course.stretch_explorer(done.linear), "strength"),
        ("denoise, a piece of it", lambda: course.detail_explorer(linear, done), "denoise"),
    ):
        yield Case(name, "picture", page, *slider(title, shares, "text"))


def measure(only: list[str], kinds: list[str]) -> list[tuple[Case, np.ndarray, float, float]]:
    """Measure the cases of these kinds with one of these words in their names, or all.

    Returns the times of the moves, the longest after a drag, and the processor time of Python for a move [ms].
    """
    import holoviews as hv
    import panel as pn
    from playwright.sync_api import sync_playwright

    from workbench.app import viewer
    from workbench.app.server import free_port

    hv.extension("bokeh", logo=False)
    pn.extension(throttled=False)
    viewer.warm()
    found = []
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        some = [
            case
            for case in (
                *(charts_cases(Path(scratch)) if "chart" in kinds else ()),
                *(picture_cases() if "picture" in kinds else ()),
            )
            if not only or any(word in case.name for word in only)
        ]
        port = free_port("127.0.0.1", 5050)
        pages = {f"/{number}": case.page for number, case in enumerate(some) if not isinstance(case.page, Path)}
        server = pn.serve(pages, port=port, address="127.0.0.1", show=False, threaded=True, verbose=False)
        with playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM) as browser:
            for number, case in enumerate(some):
                page = browser.new_page(viewport={"width": 1300, "height": 900}, reduced_motion="reduce")
                page.set_default_timeout(120_000)
                place = case.page.as_uri() if isinstance(case.page, Path) else f"http://127.0.0.1:{port}/{number}"
                page.goto(place)
                page.wait_for_function("window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle")
                page.wait_for_timeout(2000)
                page.evaluate(_CLOCK, [case.what, case.moves[-3:], 0])  # warms up
                before = time.process_time()
                times = page.evaluate(_CLOCK, [case.what, case.moves, 0])
                busy = 1000 * (time.process_time() - before) / len(times)
                starts = range(0, MOVES - 30, (MOVES - 30) // DRAGS)
                drags = [  # of 29 or 30 values: a control of two values must not end where it began
                    page.evaluate(_CLOCK, [case.what, case.moves[at : at + 29 + number % 2], 16])[0]
                    for number, at in enumerate(starts)
                ]
                found.append((case, np.array(times), max(drags), busy))
                print(table(found[-1:]).splitlines()[2], flush=True)
                page.close()
        server.stop()
    return found


def table(found: list[tuple[Case, np.ndarray, float, float]]) -> str:
    """Write the times as Markdown."""
    lines = [
        "| what is moved | median [ms] | 95 % within [ms] | wanted [ms] | after a drag [ms] | Python works [ms] |",
        "|---|---|---|---|---|---|",
    ]
    for case, times, drag, busy in found:
        middle, most = np.percentile(times, (50, 95))
        lines.append(f"| {case.name} | {middle:.0f} | {most:.0f} | {WANTED[case.kind]:.0f} | {drag:.0f} | {busy:.0f} |")
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    lines += ["", f"Measured with {load:.1f} processes waiting or running for each core; 1 is a machine just busy."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1] / part) for part in ("", "notebooks")]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", nargs="?", type=Path, help="file that the table is written to")
    parser.add_argument("--only", nargs="+", default=[], help="words in the names of what is measured")
    parser.add_argument("--kind", choices=list(WANTED), action="append", help="measure only these")
    arguments = parser.parse_args()
    text = table(measure(arguments.only, arguments.kind or list(WANTED)))
    print(text)
    if arguments.table:
        arguments.table.write_text(text + "\n", encoding="utf-8")
