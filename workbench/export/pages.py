"""A chart on a page: by itself, or embedded in a blog; in light and dark, on a wide screen and a phone, offline.

Bokeh's own pages would also pull in the files of every Bokeh extension that is loaded (Panel's, for one), and carry
Bokeh's script once each.  Here a figure is a script of its own, `<chart>.js`, well under 200 KB, which brings along
the one `SHARED` script that lies in the same folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .. import __version__
from ..charts import theme
from ..charts.registry import Caption, Chart
from ..core.files import MARK
from .demonstrations import Demonstration

SHARED = "workbench-charts.js"
_WHITE = "#fffffe"  # Bokeh leaves out what equals its default, #ffffff, and that could then not be changed
# the house colours where the page is dark: lighter, the same hue
DARK = {
    theme.PAPER: "#10181f",
    _WHITE: "#10181f",
    theme.INK: "#e4eaf0",
    theme.MUTED: "#a3b1be",
    theme.GRID: "#293742",
    "#f6f8fa": "#16212a",
    "#dbe7f3": "#1d3850",
    "#f3e3cf": "#4d3b25",
    "#fdebc8": "#57441a",
    "#eceff2": "#2a3640",
    "#cfd6dd": "#46525d",
    theme.CHANNEL_COLOUR["B"]: "#4aa8e0",
    theme.KIND_COLOUR["dark"]: "#9f92ea",
    theme.CHANNEL_COLOUR["mono"]: "#b4bcc4",
    theme.SERIES[-1]: "#b0b0b0",
}
_WIDGETS = f"""
:host {{ font-size: 14px; color: {theme.INK}; }}
.bk-input {{ color: {theme.INK}; background-color: {_WHITE}; border-color: {theme.MUTED}; }}
select.bk-input:not([multiple]) {{ background-image: linear-gradient(45deg, transparent 50%, {theme.INK} 50%),
  linear-gradient(-45deg, transparent 50%, {theme.INK} 50%);
  background-position: right 12px center, right 7px center; background-size: 5px 5px; }}
.bk-btn-default, .bk-btn-default:hover {{
  color: {theme.INK}; background-color: {theme.GRID}; border-color: {theme.MUTED}; }}
.bk-btn-primary, .bk-btn-primary:hover {{ background-color: #00639c; border-color: #00639c; color: white; }}
:focus-visible {{ outline: 2px solid {theme.CHANNEL_COLOUR["B"]} !important; outline-offset: 2px !important; }}
"""
_FOLDER = Path(__file__).parent
_SCRIPT = """// Made by the Astrophoto Workbench
(() => {
  const script = document.currentScript;
  window.workbenchCharts ??= new Promise((loaded) => {
    const shared = document.createElement('script');
    shared.src = new URL('%(shared)s', script.src).href;
    shared.onload = loaded;
    document.head.append(shared);
  });
  window.workbenchCharts.then(() => workbenchDraw(%(docs)s, %(items)s));
})();
"""


class PageFigure(NamedTuple):
    """A drawn figure, ready for any page: its models as JSON, where each goes, and the heading above each.

    A panel whose heading is None takes the whole width; the others stack where they get narrower than `basis` [px].
    """

    id: str
    title: str
    caption: Caption
    headings: tuple[str | None, ...]
    basis: int
    docs: str
    items: str
    widgets: bool


def place(chart: str, number: int) -> str:
    """Return the id of the element that a panel is drawn into.

    Examples
    --------
    >>> place("iso-to-gain", 0)
    'workbench-iso-to-gain-0'
    """
    return f"workbench-{chart}-{number}"


def figure(
    models: Sequence[Any],
    chart: Chart | Demonstration,
    caption: Caption,
    headings: Sequence[str | None],
    basis: int = 430,
) -> PageFigure:
    """Make Bokeh models, one for each panel, ready for pages; see `PageFigure` for headings and basis."""
    from bokeh.document import Document
    from bokeh.embed.util import standalone_docs_json_and_render_items
    from bokeh.models import Widget

    together = Document() if models[0].document is None else models[0].document
    for model in models:
        set_colours(model)
        if model.document is None:
            together.add_root(model)
    docs, items = standalone_docs_json_and_render_items(list(models))
    order = {model.id: number for number, model in enumerate(models)}
    placed = []
    for item in (item.to_json() for item in items):
        roots = {root: place(chart.id, order[root]) for root in item["roots"]}
        placed.append(item | {"roots": roots})
    widgets = any(isinstance(part, Widget) for model in models for part in model.references())
    texts = [_for_script(json.dumps(part, ensure_ascii=False, separators=(",", ":"))) for part in (docs, placed)]
    return PageFigure(chart.id, chart.title, caption, tuple(headings), basis, *texts, widgets)


def _for_script(text: str) -> str:
    """Keep a text from ending the script that it stands in."""
    return text.replace("</", "<\\/").replace("<!--", "<\\!--")


def set_colours(model: Any) -> None:
    """Set the colours that Bokeh would take for granted, so that they can be changed where the page is dark."""
    from bokeh.models import Axis, ColorBar, Legend, Plot, Widget

    for part in model.references():
        if isinstance(part, Plot):
            part.border_fill_color = _WHITE
            if part.background_fill_color == "#ffffff":
                part.background_fill_color = _WHITE
        elif isinstance(part, (Legend, ColorBar)):
            part.background_fill_color = _WHITE
        if isinstance(part, Axis):
            part.axis_label_text_color = part.major_label_text_color = theme.INK
        elif isinstance(part, Legend):
            part.label_text_color = theme.INK
        elif isinstance(part, ColorBar):
            part.major_label_text_color = part.title_text_color = theme.INK
        elif isinstance(part, Widget):
            part.stylesheets = [*part.stylesheets, _WIDGETS]


@cache
def library(widgets: bool = True) -> str:
    """Return the script that every figure needs: Bokeh's, and what draws figures with it."""
    from bokeh.resources import Resources

    parts = ["bokeh", "bokeh-widgets"] if widgets else ["bokeh"]
    drawing = (_FOLDER / "drawing.js").read_text(encoding="utf-8") % {"dark": json.dumps(DARK)}
    return ";\n".join([*Resources(mode="inline", components=parts).js_raw, drawing, f"// {MARK}\n"])


@cache
def template(name: str) -> Any:
    """Return a template of this folder."""
    loader = FileSystemLoader(_FOLDER)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(theme=theme, dark=DARK, shared=SHARED, place=place, version=__version__)
    return environment.get_template(f"{name}.html.jinja")


def files(one: PageFigure, picture: bool = True) -> dict[str, bytes]:
    """Return a figure as files, by the ending of their names.

    A page that carries all it needs, so that the one file can be sent around; the figure with its caption and its
    alternative text, to be pasted into a blog; the script that both an index and a blog use.

    Parameters
    ----------
    picture
        Whether there is ``<chart>.png`` for readers without JavaScript.
    """
    pages = template("page").module
    script = _SCRIPT % {"shared": SHARED, "docs": one.docs, "items": one.items}
    contents = {".html": pages.page(one, library(one.widgets)), ".embed.html": pages.snippet(one, picture)}
    return {ending: str(text).encode() for ending, text in contents.items()} | {".js": script.encode()}


def index(
    charts: Sequence[Chart],
    drawn: Sequence[tuple[str, PageFigure, Sequence[str]]],
    missing: Mapping[Chart, str],
    characterization: Any,
) -> str:
    """Return one page with all figures, under their headings.

    Parameters
    ----------
    charts
        Whose headings come first, in their order.
    drawn
        The heading, the figure and the names of its files.
    missing
        Why a chart was not drawn.
    characterization
        Whose data it is.
    """
    sections = [
        (
            heading,
            [(one, names) for where, one, names in drawn if where == heading],
            [(chart.title, why) for chart, why in missing.items() if chart.heading == heading],
        )
        for heading in dict.fromkeys([*(chart.heading for chart in charts), *(where for where, *_ in drawn)])
    ]
    camera = getattr(characterization, "camera", "")
    simulated = getattr(characterization, "simulated", False)
    note = f"{'Simulated data' if simulated else 'Measured with'}: {camera}." if camera else ""
    return str(template("page").module.index("The charts", note, [one for _, one, _ in drawn], sections))
