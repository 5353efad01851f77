"""Write charts to files: PNG and SVG for paper, pages that work without a network, and the numbers as CSV."""

from __future__ import annotations

import html
import io
import math
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from ..charts import theme
from ..charts.pictures import draw_names
from ..charts.registry import REGISTRY, Caption, Chart, select
from ..charts.stars import light_curve, light_curve_caption
from ..core.errors import WorkbenchError
from ..core.files import MARK, check_target, whole_file
from ..core.parallel import Start
from ..finish.colour import srgb_profile
from ..finish.files import write_png
from ..finish.picture import observed_cards
from ..finish.stretch import quantise
from ..finish.zero_point import world_coordinates
from ..stars.catalogue import CREDIT
from ..stars.objects import names_on
from . import pages, shot_noise
from .demonstrations import DEMONSTRATIONS

DPI = 150
WIDTH_IN = 1600 / DPI
_GAP = {"left": 0.98, "right": 0.22, "top": 0.42, "bottom": 0.62}  # around the axes of a panel [in]
_BAR = 0.75  # more on the right where there is a colour bar [in]


@dataclass
class ChartFiles:
    """The files that `write_charts` wrote of each chart, and why a chart was not drawn."""

    folder: Path
    files: dict[str, list[Path]] = field(default_factory=dict)
    not_drawn: dict[str, str] = field(default_factory=dict)


def write_names(picture: xr.Dataset, path: str | Path, *, grid: bool = True) -> Path:
    """Write a copy of a finished picture with objects, bright stars, grid, scale bar and north drawn in, as PNG.

    Parameters
    ----------
    picture
        Stretched, of a stack with a plate solution (`Finished.picture`).

    Raises
    ------
    WorkbenchError
        If the picture has no plate solution, or the file is none that is written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise WorkbenchError(f"{path}: a picture with names is written as .png")
    check_target(path, "picture")
    cards = observed_cards(picture.attrs)
    names = names_on(world_coordinates(picture), picture["signal"].shape[1:], cards.get("DATE-OBS"))
    drawn = draw_names(quantise(picture, 8), names, grid=grid)
    with whole_file(path) as part:
        write_png(part, drawn, srgb_profile(3), {"Software": f"{MARK}; {CREDIT}; OpenNGC (CC BY-SA 4.0)"})
    return path


def write_light_curve(curve: xr.Dataset, path: str | Path) -> Path:
    """Write the chart of a light curve (see `charts.light_curve`) with its caption as PNG."""
    png, _ = pictures(light_curve(curve), "Light curve", light_curve_caption(curve))
    with whole_file(path) as part:
        part.write_bytes(png)
    return Path(path)


def write_charts(
    characterization: Any,
    out: str | Path,
    only: Iterable[str] | None = None,
    progress: bool = True,
    start: Start | None = None,
) -> ChartFiles:
    """Draw the blog's charts from a characterization and write each as PNG, SVG, HTML, CSV and a caption.

    Parameters
    ----------
    characterization
        From `characterize`; a chart whose piece is None is not drawn, and `not_drawn` names the frames to shoot.
    out
        The folder to write into; it is made if it does not exist.
    only
        Ids of the charts wanted (`charts.registry.REGISTRY`); all by default.
    start
        Of `in_background`, which then draws for paper what is drawn here for pages.

    Raises
    ------
    WorkbenchError
        If `only` names a chart that does not exist, or the folder cannot be written.
    """
    charts = [chart.in_words_of(characterization) for chart in select(list(only) if only else None)]
    written = ChartFiles(Path(out))
    try:
        written.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkbenchError(f"{out}: cannot be made a folder ({error.strerror}); choose another") from error
    drawn: list[tuple[str, pages.PageFigure, list[str]]] = []

    def keep(heading: str, figure: pages.PageFigure, contents: Mapping[str, bytes]) -> None:
        contents = pages.files(figure, picture=".png" in contents) | contents
        files = {f"{figure.id}{ending}": content for ending, content in contents.items()}
        written.files[figure.id] = _write(written.folder, files)
        drawn.append((heading, figure, list(files)))

    _write(written.folder, {pages.SHARED: pages.library().encode()})
    drawable = [chart for chart in charts if not chart.missing(characterization)]
    paper = {chart.id: start(_on_paper, chart.id, characterization) for chart in drawable} if start else {}
    for chart in tqdm(charts, desc="charts", unit="chart", disable=not progress, leave=False):
        if chart not in drawable:
            written.not_drawn[chart.id] = f"these frames do not give it; shoot {chart.shoot}"
            continue
        try:
            layout, caption = chart.draw(characterization), chart.caption(characterization)
        except WorkbenchError as problem:
            written.not_drawn[chart.id] = str(problem)
        else:
            figure = _figure(chart, layout, caption)
            keep(chart.heading, figure, paper[chart.id]() if start else _contents(chart, layout, caption))
    if only:
        if not drawn:
            (written.folder / pages.SHARED).unlink()
        return written
    for demo in DEMONSTRATIONS:
        built = demo.build(characterization)
        if built is not None:
            keep(demo.heading, pages.figure(built.document.roots, demo, built.caption, built.headings), {})
    why = {chart: written.not_drawn[chart.id] for chart in charts if chart.id in written.not_drawn}
    _write(written.folder, {"index.html": pages.index(charts, drawn, why, characterization).encode()})
    return written


def _write(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write files by their names, each whole or not at all."""
    paths = [folder / name for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        with whole_file(path) as part:
            part.write_bytes(content)
    return paths


def _on_paper(name: str, characterization: Any) -> dict[str, bytes]:
    """Return `_contents` of the chart of this id."""
    chart = REGISTRY[name].in_words_of(characterization)
    return _contents(chart, chart.draw(characterization), chart.caption(characterization))


def _contents(chart: Chart, layout: hv.Layout, caption: Caption) -> dict[str, bytes]:
    """Return the files of a chart for paper and for readers of numbers, by the ending of their names."""
    png, svg = pictures(layout, chart.title, caption)
    contents = {".png": png, ".svg": svg}
    if chart.numbers:
        contents |= {ending: table.encode() for ending, table in tables(layout, caption).items()}
    return contents | {".txt": f"{chart.title}\n\n{caption.text}\n\n{caption.alt}\n\n({MARK})\n".encode()}


def _figure(chart: Chart, layout: hv.Layout, caption: Caption) -> pages.PageFigure:
    if chart.id == "shot-noise-demo":  # the page is alive, the picture is not
        document, headings = shot_noise.standalone()
        return pages.figure(document.roots, chart, caption, headings, basis=320)
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
    return pages.figure(models, chart, caption, headings, basis=430 if len(models) < 3 else 250)


def pictures(drawn: hv.Layout, title: str, caption: Caption) -> tuple[bytes, bytes]:
    """Return PNG and SVG of a chart with its title above and its caption below."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    theme.load_backends()
    figure = plt.figure()
    try:
        _arrange(figure, _draw(figure, drawn), drawn, title, caption.text)
        png, svg = io.BytesIO(), io.BytesIO()
        about = {"Title": title, "Description": caption.text}
        figure.savefig(png, format="png", dpi=DPI, metadata={**about, "Software": MARK})
        with mpl.rc_context({"svg.hashsalt": "workbench", "svg.fonttype": "path"}):
            figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": MARK, **about})
    finally:
        plt.close(figure)
    return png.getvalue(), _accessible(svg.getvalue().decode(), title, caption.alt).encode()


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


def tables(drawn: hv.Layout, caption: Caption) -> dict[str, str]:
    """Return the CSV files of a chart: the points and curves of all panels in one, each picture in one of its own."""
    rows: list[pd.DataFrame] = []
    pictured: dict[str, str] = {}
    comment = "".join(f"# {line}\n" for line in [*textwrap.wrap(caption.text, 110), MARK])
    for panel in drawn:
        for element in panel:
            if isinstance(element, hv.Image):
                name = re.sub(r"\W+", "-", element.label.lower()).strip("-") or "picture"
                pictured[f"-{name}.csv"] = comment + _picture_table(element)
            elif isinstance(element, (hv.Scatter, hv.Curve, hv.Area, hv.Histogram, hv.Points)):
                rows.append(_rows(element))
    if not rows:
        return pictured
    return {".csv": comment + pd.concat(rows).to_csv(index=False, lineterminator="\n"), **pictured}


def _rows(element: hv.Element) -> pd.DataFrame:
    """Return the numbers of an element as text, a row a point."""
    names = [_heading(dim) for dim in element.dimensions()]
    if isinstance(element, hv.Histogram):
        low, high = element.edges[:-1], element.edges[1:]
        columns = {f"{names[0]}, from": low, f"{names[0]}, to": high, names[1]: element.dimension_values(1)}
    else:
        columns = {name: element.dimension_values(index) for index, name in enumerate(names)}
    texts = {name: [_number(value) for value in values] for name, values in columns.items()}
    return pd.DataFrame({"series": element.label or "guide"} | texts)


def _heading(dim: hv.Dimension) -> str:
    return f"{dim.name} [{dim.unit}]" if dim.unit else dim.name


def _number(value: Any) -> str:
    return f"{value:.8g}" if isinstance(value, (float, int, np.number)) else str(value)


def _picture_table(image: hv.Image) -> str:
    """Return a picture as rows of numbers, the first line the top one."""
    left, bottom, right, top = image.bounds.lbrt()
    text = io.StringIO()
    text.write(
        f"# {_heading(image.vdims[0])}; one line a row, from row {min(bottom, top):g} to {max(bottom, top):g}, "
        f"columns {left:g} to {right:g}\n"
    )
    np.savetxt(text, image.dimension_values(2, flat=False), fmt="%.5g", delimiter=",")
    return text.getvalue()
