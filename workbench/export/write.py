"""Write charts to files: PNG and SVG for paper, pages that work without a network, and the numbers as CSV."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import holoviews as hv
from tqdm.auto import tqdm

from ..charts import theme
from ..charts.registry import Caption, Chart, select
from ..core.errors import WorkbenchError
from ..core.files import whole_file
from . import pages, shot_noise
from .demonstration import Demo
from .demonstrations import DEMOS
from .numbers import tables
from .paper import pictures

_FIGURE = ".js"


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
    drawn: list[tuple[str, pages.Figure, list[str]]] = []
    _put(written.folder / pages.SHARED, pages.library().encode())
    for chart in tqdm(charts, desc="charts", unit="chart", disable=not progress, leave=False):
        if chart.missing(characterization):
            written.not_drawn[chart.id] = f"these frames do not give it; shoot {chart.shoot}"
            continue
        try:
            layout, words = chart.draw(characterization), chart.caption(characterization)
        except WorkbenchError as problem:
            written.not_drawn[chart.id] = str(problem)
        else:
            one = _figure(chart, layout, words)
            written.files[chart.id] = _write_chart(chart, layout, one, written.folder)
            drawn.append((chart.heading, one, [path.name for path in written.files[chart.id]]))
    if not only:
        for demo in DEMOS:
            one = _demo(demo, characterization)
            if one is not None:
                written.files[one.id] = _write_pages(one, written.folder, picture=False)
                drawn.append((demo.heading, one, [path.name for path in written.files[one.id]]))
        _put(written.folder / "index.html", _index(charts, written, drawn, characterization).encode())
    elif not drawn:
        (written.folder / pages.SHARED).unlink()
    return written


def _write_chart(chart: Chart, layout: hv.Layout, one: pages.Figure, folder: Path) -> list[Path]:
    png, svg = pictures(layout, chart.title, one.words)
    contents = {".png": png, ".svg": svg}
    for ending, table in tables(layout, one.words).items() if chart.numbers else ():
        contents[ending] = table.encode()
    contents[".txt"] = f"{chart.title}\n\n{one.words.text}\n\n{one.words.alt}\n".encode()
    paths = []
    for ending, content in contents.items():
        paths.append(folder / f"{chart.id}{ending}")
        _put(paths[-1], content)
    return [*_write_pages(one, folder), *paths]


def _write_pages(one: pages.Figure, folder: Path, picture: bool = True) -> list[Path]:
    """Write a figure's page, its snippet for a blog and the script that both an index and the snippet use."""
    contents = {".html": pages.page(one), ".embed.html": pages.snippet(one, picture), _FIGURE: one.script()}
    for ending, content in contents.items():
        _put(folder / f"{one.id}{ending}", content.encode())
    return [folder / f"{one.id}{ending}" for ending in contents]


def _figure(chart: Chart, layout: hv.Layout, words: Caption) -> pages.Figure:
    if chart.id == "shot-noise-demo":  # the page is alive, the picture is not
        document, headings = shot_noise.standalone()
        return pages.figure(
            document.roots, chart=chart.id, title=chart.title, words=words, headings=headings, basis=320
        )
    theme.load_backends()
    renderer = hv.Store.renderers["bokeh"]
    models, headings = [], []
    for panel in layout:
        model = renderer.get_plot(panel).state
        headings.append(model.title.text if len(layout) > 1 else "")
        model.title.visible = False
        model.sizing_mode = "stretch_width"
        model.width = None
        models.append(model)
    basis = 430 if len(models) < 3 else 320
    return pages.figure(models, chart=chart.id, title=chart.title, words=words, headings=headings, basis=basis)


def _demo(demo: Demo, characterization: Any) -> pages.Figure | None:
    """Build a demonstration; None where the measurement does not give what it needs."""
    built = demo.build(characterization)
    if built is None:
        return None
    return pages.figure(
        built.document.roots,
        chart=demo.id,
        title=demo.title,
        words=built.words,
        headings=built.headings,
        basis=demo.basis,
    )


def _index(charts: list[Chart], written: Written, drawn: list[Any], characterization: Any) -> str:
    missing = [
        (chart.heading, chart.title, written.not_drawn[chart.id]) for chart in charts if chart.id in written.not_drawn
    ]
    camera = getattr(characterization, "camera", "")
    simulated = getattr(characterization, "simulated", False)
    note = f"{'Simulated data' if simulated else 'Measured with'}: {camera}." if camera else ""
    return pages.index("The charts", drawn, missing, note, [chart.heading for chart in charts])


def _put(path: Path, content: bytes) -> None:
    with whole_file(path) as part:
        part.write_bytes(content)
