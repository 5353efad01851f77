"""Write charts to files: PNG and SVG for paper, a page that works without a network, and the numbers as CSV."""

from __future__ import annotations

import csv
import html
import io
import math
import os
import re
import tempfile
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import holoviews as hv
import numpy as np
from tqdm.auto import tqdm

from . import __version__
from .apps import shot_noise
from .charts import theme
from .charts.registry import Chart, select
from .charts.words import Words
from .errors import WorkbenchError

DPI = 150
WIDTH_IN = 1600 / DPI
_GAP = {"left": 0.98, "right": 0.22, "top": 0.42, "bottom": 0.62}  # around the axes of a panel [in]
_BAR = 0.75  # more on the right where there is a colour bar [in]


@dataclass
class Written:
    """What `write_charts` did: the files of each chart, and why a chart was not drawn."""

    folder: Path
    files: dict[str, list[Path]] = field(default_factory=dict)
    not_drawn: dict[str, str] = field(default_factory=dict)


def write_charts(
    characterization: Any, out: str | Path, only: Iterable[str] | None = None, progress: bool = True
) -> Written:
    """Draw the blog's charts from a characterization and write each as PNG, SVG, HTML, CSV and a caption.

    Parameters
    ----------
    characterization
        From `runs.characterize`; a chart whose piece is None is not drawn, and the answer says what to shoot.
    out
        The folder to write into; it is made where it does not exist.
    only
        Ids of the charts wanted (`charts.registry.REGISTRY`); all by default.
    progress
        Show a progress bar.

    Raises
    ------
    WorkbenchError
        If `only` names a chart that does not exist, or the folder cannot be written.
    """
    charts = select(list(only) if only else None)
    written = Written(Path(out))
    try:
        written.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkbenchError(f"{out}: cannot be made a folder ({error.strerror}); choose another") from error
    for chart in tqdm(charts, desc="charts", unit="chart", disable=not progress, leave=False):
        if chart.missing(characterization):
            written.not_drawn[chart.id] = f"these frames do not give it; shoot {chart.shoot}"
            continue
        try:
            drawn, words = chart.draw(characterization), chart.words(characterization)
        except WorkbenchError as problem:
            written.not_drawn[chart.id] = str(problem)
        else:
            written.files[chart.id] = _write_chart(chart, drawn, words, written.folder)
    if not only:
        _atomic(written.folder / "index.html", _index(charts, written).encode())
    return written


def _write_chart(chart: Chart, drawn: hv.Layout, words: Words, folder: Path) -> list[Path]:
    paths: list[Path] = []

    def put(ending: str, content: bytes) -> None:
        paths.append(folder / f"{chart.id}{ending}")
        _atomic(paths[-1], content)

    png, svg = _pictures(drawn, chart.title, words)
    put(".png", png)
    put(".svg", svg)
    put(".html", _page(chart, drawn, words).encode())
    for ending, table in _tables(drawn, words).items() if chart.numbers else ():
        put(ending, table.encode())
    put(".txt", f"{chart.title}\n\n{words.caption}\n".encode())
    return paths


def _atomic(path: Path, content: bytes) -> None:
    """Write aside, then rename: whoever looks sees the old file or the whole new one."""
    try:
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise WorkbenchError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(aside, 0o666 & ~_umask())
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# ---------------------------------------------------------------- paper


def _pictures(drawn: hv.Layout, title: str, words: Words) -> tuple[bytes, bytes]:
    """Return PNG and SVG of a chart with its title above and its caption below."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    theme.load_backends()
    figure = plt.figure()
    try:
        _arrange(figure, _draw(figure, drawn), drawn, title, words.caption)
        png, svg = io.BytesIO(), io.BytesIO()
        about = {"Title": title, "Description": words.caption}
        figure.savefig(png, format="png", dpi=DPI, metadata={**about, "Software": None})
        with mpl.rc_context({"svg.hashsalt": "workbench", "svg.fonttype": "path"}):
            figure.savefig(svg, format="svg", metadata={"Date": None, **about})
    finally:
        plt.close(figure)
    return png.getvalue(), _accessible(svg.getvalue().decode(), title, words.alt).encode()


def _draw(figure: Any, drawn: hv.Layout) -> list[list[Any]]:
    """Draw each panel into the figure; return its axes: those of the data, and of the colour bar if there is one.

    HoloViews' own layout would draw everything twice to find its places, which `_arrange` sets anyway.
    """
    renderer = hv.Store.renderers["matplotlib"]
    found = []
    for number, panel in enumerate(drawn, start=1):
        axes = figure.add_subplot(1, len(drawn), number)
        before = len(figure.axes)
        options = renderer.plot_options(panel, renderer.size)
        renderer.plotting_class(panel)(panel, renderer=renderer, fig=figure, axis=axes, **options).initialize_plot()
        found.append([axes, *figure.axes[before:]])
    return found


def _arrange(figure: Any, axes: list[list[Any]], drawn: hv.Layout, title: str, caption: str) -> None:
    """Place title, panels and caption: every panel in a cell of its own, so that nothing overlaps."""
    lines = textwrap.wrap(caption, 150)
    count = len(drawn)
    gap_left = _GAP["left"] if count < 3 else 0.75
    ratios = [_ratio(panel) for panel in drawn]
    cell = WIDTH_IN / count
    widths = [cell - gap_left - _GAP["right"] - _BAR * (len(own) - 1) for own in axes]
    shapes = [width / ratio for width, ratio in zip(widths, ratios, strict=True) if ratio]
    free = max(shapes) if shapes else min(4.1, cell / 1.3)  # of panels that may have any shape
    heights = [width / ratio if ratio else free for width, ratio in zip(widths, ratios, strict=True)]
    tall = max(heights)
    head, foot = 0.55 if count > 1 else 0.3, 0.3 + 0.2 * len(lines)
    total = head + _GAP["top"] + tall + _GAP["bottom"] + foot
    figure.set_size_inches(WIDTH_IN, total)
    figure.set_facecolor(theme.PAPER)
    for number, ((data, *bars), width, height) in enumerate(zip(axes, widths, heights, strict=True)):
        left = number * cell + gap_left
        bottom = total - head - _GAP["top"] - height
        data.set_aspect("auto")
        if count == 1:
            data.set_title("")
        data.set_position([left / WIDTH_IN, bottom / total, width / WIDTH_IN, height / total])
        for bar in bars:
            bar.set_position([(left + width + 0.12) / WIDTH_IN, bottom / total, 0.13 / WIDTH_IN, height / total])
            bar.tick_params(labelsize=8.5, color=theme.MUTED, labelcolor=theme.INK)
            bar.yaxis.label.set(size=9.5, color=theme.INK)
    margin = 0.25 / WIDTH_IN
    figure.text(margin, 1 - 0.34 / total, title, size=14, weight="bold", color=theme.INK, va="center")
    figure.text(
        margin, (foot - 0.12) / total, "\n".join(lines), size=8.6, color=theme.MUTED, va="top", linespacing=1.35
    )


def _ratio(panel: hv.Overlay) -> float | None:
    """Return the width by height that a panel asks for, None where it does not matter."""
    asked = hv.Store.lookup_options("matplotlib", panel, "plot").kwargs.get("aspect")
    return None if asked is None or math.isclose(asked, theme.WIDTH / theme.HEIGHT) else float(asked)


def _accessible(svg: str, title: str, alt: str) -> str:
    """Give the SVG a role, a title and a description for those who hear it."""
    words = f"<title>{html.escape(title)}</title><desc>{html.escape(alt)}</desc>"
    return re.sub(r"(<svg\b)([^>]*>)", rf'\1 role="img"\2{words}'.replace("\\n", " "), svg, count=1)


# ---------------------------------------------------------------- pages

_STYLE = """
body { margin: 0; background: #fff; color: %(ink)s; font: 16px/1.55 %(font)s; }
main { max-width: 1180px; margin: 0 auto; padding: 20px 20px 28px; }
h1 { font-size: 1.45rem; line-height: 1.25; margin: 0 0 12px; }
h2 { font-size: 1rem; margin: 0 0 2px; }
figure { margin: 0; }
.panels { display: flex; flex-wrap: wrap; gap: 18px; }
.wide { flex-basis: 100%% !important; }
.panel { flex: 1 1 %(basis)spx; min-width: 0; max-width: 100%%; }
figcaption { color: %(muted)s; max-width: 56rem; margin-top: 14px; }
footer { color: %(muted)s; font-size: .82rem; margin-top: 16px; }
a { color: #0072b2; }
@media (max-width: 600px) { main { padding: 14px 10px; } .panel { flex-basis: 100%%; } }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>%(title)s</title>
<link rel="icon" href="data:,">
<style>%(style)s</style>
%(library)s
</head>
<body>
<main>
<h1>%(title)s</h1>
<figure role="group" aria-label="%(alt)s">
<div class="panels">
%(panels)s
</div>
<figcaption>%(caption)s</figcaption>
</figure>
<footer>Drawn by the Astrophoto Workbench %(version)s.</footer>
</main>
%(script)s
</body>
</html>
"""


def page(models: Sequence[Any], *, title: str, words: Words, headings: Sequence[str | None], basis: int = 430) -> str:
    """Return one HTML page that needs no network: Bokeh models side by side, on a phone one below the other.

    Bokeh's own page would also pull in the files of every Bokeh extension that is loaded (Panel's, for one), so its
    script is put in here, with the widgets only where there are some.

    Parameters
    ----------
    models
        Bokeh models, one a panel.
    headings
        What stands above each panel; None for one without a heading that takes the whole width.
    basis
        Width of a panel below which the panels stack [px].
    """
    from bokeh.embed import components
    from bokeh.models import Widget
    from bokeh.resources import Resources

    script, places = components(list(models))
    widgets = any(isinstance(part, Widget) for model in models for part in model.references())
    library = Resources(mode="inline", components=["bokeh", "bokeh-widgets"] if widgets else ["bokeh"]).js_raw
    panels = []
    for place, heading in zip(places, headings, strict=True):
        above = f"<h2>{html.escape(heading)}</h2>\n" if heading else ""
        panels.append(f'<div class="panel{" wide" if heading is None else ""}">\n{above}{place}\n</div>')
    return _PAGE % {
        "title": html.escape(title),
        "style": _STYLE % {"ink": theme.INK, "muted": theme.MUTED, "font": theme.FONT, "basis": basis},
        "library": "\n".join(f"<script>{code}</script>" for code in library),
        "alt": html.escape(words.alt),
        "panels": "\n".join(panels),
        "caption": html.escape(words.caption),
        "version": __version__,
        "script": script,
    }


def _page(chart: Chart, drawn: hv.Layout, words: Words) -> str:
    if chart.id == "shot-noise-demo":  # the page is alive, the picture is not
        document, headings = shot_noise.standalone()
        return page(document.roots, title=chart.title, words=words, headings=headings, basis=320)
    theme.load_backends()
    renderer = hv.Store.renderers["bokeh"]
    models, headings = [], []
    for panel in drawn:
        model = renderer.get_plot(panel).state
        headings.append(model.title.text if len(drawn) > 1 else "")
        model.title.visible = False
        model.sizing_mode = "stretch_width"
        model.width = None
        models.append(model)
    basis = 430 if len(models) < 3 else 320
    return page(models, title=chart.title, words=words, headings=headings, basis=basis)


def _index(charts: list[Chart], written: Written) -> str:
    """Return the list of all charts as a page of links."""
    style = _STYLE % {"ink": theme.INK, "muted": theme.MUTED, "font": theme.FONT, "basis": 430}
    rows, heading = [], ""
    for chart in charts:
        if chart.heading != heading:
            heading = chart.heading
            rows.append(f"<h2>{html.escape(heading)}</h2>")
        if chart.id in written.files:
            ends = {path.name.removeprefix(chart.id): path.name for path in written.files[chart.id]}
            links = " · ".join(
                f'<a href="{name}">{end.strip(".-")}</a>' for end, name in ends.items() if end != ".html"
            )
            rows.append(f'<p><a href="{chart.id}.html">{html.escape(chart.title)}</a> ({links})</p>')
        else:
            rows.append(f"<p>{html.escape(chart.title)}: not drawn, {html.escape(written.not_drawn[chart.id])}.</p>")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Charts</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>{style}</style></head><body><main><h1>The charts</h1>\n{chr(10).join(rows)}\n</main></body></html>\n"
    )


# ---------------------------------------------------------------- tables


def _tables(drawn: hv.Layout, words: Words) -> dict[str, str]:
    """Return the CSV files of a chart: the points and curves of all panels in one, each picture in one of its own."""
    rows: list[dict[str, Any]] = []
    tables: dict[str, str] = {}
    for panel in drawn:
        for element in panel:
            if isinstance(element, hv.Image):
                name = re.sub(r"\W+", "-", element.label.lower()).strip("-") or "picture"
                tables[f"-{name}.csv"] = _picture_table(element, words)
            elif isinstance(element, (hv.Scatter, hv.Curve, hv.Area, hv.Histogram, hv.Points)):
                rows += _rows(element)
    if rows:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        _comment(text, words)
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        tables = {".csv": text.getvalue(), **tables}
    return tables


def _rows(element: hv.Element) -> list[dict[str, Any]]:
    names = [_heading(dim) for dim in element.dimensions()]
    if isinstance(element, hv.Histogram):
        low, high = element.edges[:-1], element.edges[1:]
        columns = {f"{names[0]}, from": low, f"{names[0]}, to": high, names[1]: element.dimension_values(1)}
    else:
        columns = {name: element.dimension_values(index) for index, name in enumerate(names)}
    series = element.label or "guide"
    count = len(next(iter(columns.values())))
    return [
        {"series": series} | {name: _number(values[row]) for name, values in columns.items()} for row in range(count)
    ]


def _heading(dim: hv.Dimension) -> str:
    return f"{dim.name} [{dim.unit}]" if dim.unit else dim.name


def _number(value: Any) -> str:
    return f"{value:.8g}" if isinstance(value, (float, int, np.number)) else str(value)


def _picture_table(image: hv.Image, words: Words) -> str:
    """Return a picture as rows of numbers, the first line the top one."""
    text = io.StringIO()
    _comment(text, words)
    value = _heading(image.vdims[0])
    left, bottom, right, top = image.bounds.lbrt()
    text.write(
        f"# {value}; one line a row, from row {min(bottom, top):g} to {max(bottom, top):g}, "
        f"columns {left:g} to {right:g}\n"
    )
    np.savetxt(text, image.dimension_values(2, flat=False), fmt="%.5g", delimiter=",")
    return text.getvalue()


def _comment(text: io.StringIO, words: Words) -> None:
    for line in textwrap.wrap(words.caption, 110):
        text.write(f"# {line}\n")
