"""A chart on a page: by itself, or embedded in somebody's blog; in light and dark, on a desk and a phone, offline.

Bokeh's own pages would also pull in the files of every Bokeh extension that is loaded (Panel's, for one), and carry
Bokeh's script once each.  Here a figure is a script of its own, `<chart>.js`, well under 200 KB, which brings along
the one `SHARED` script that lies beside all of them.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from .. import __version__
from ..charts import theme
from ..charts.registry import Caption

SHARED = "workbench-charts.js"
_WHITE = "#fffffe"  # Bokeh leaves out what equals its default, #ffffff, and that could then not be changed
# what stands in for the house colours where the page is dark: lighter, the same hue
DARK = {
    theme.PAPER: "#10181f",
    _WHITE: "#10181f",
    theme.INK: "#e4eaf0",
    theme.MUTED: "#a3b1be",
    theme.GRID: "#293742",
    "#f6f8fa": "#16212a",
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
_NEAR = Path(__file__).with_name("drawing.js")
_BESIDE = """(() => {
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


class Figure(NamedTuple):
    """A drawn figure, ready for any page: its models as JSON, where each goes, and what stands above each."""

    id: str
    title: str
    words: Caption
    headings: tuple[str | None, ...]
    basis: int
    docs: str
    items: str
    widgets: bool

    def script(self) -> str:
        """Return the figure's own script, which fetches the shared one from beside it."""
        return _BESIDE % {"shared": SHARED, "docs": self.docs, "items": self.items}

    def places(self) -> str:
        """Return the HTML of the panels, side by side, on a phone one below the other."""
        panels = []
        for number, heading in enumerate(self.headings):
            above = f"<strong>{html.escape(heading)}</strong>" if heading else ""
            basis = "100%" if heading is None else f"{self.basis}px"
            panels.append(
                f'<div style="flex:1 1 {basis};min-width:0;max-width:100%">{above}'
                f'<div id="{place(self.id, number)}"></div></div>'
            )
        return '<div style="display:flex;flex-wrap:wrap;gap:18px">\n' + "\n".join(panels) + "\n</div>"


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
    *,
    chart: str,
    title: str,
    words: Caption,
    headings: Sequence[str | None],
    basis: int = 430,
) -> Figure:
    """Make Bokeh models ready for pages.

    Parameters
    ----------
    models
        Bokeh models, one a panel.
    chart
        The chart's id.
    headings
        What stands above each panel; None for one without a heading that takes the whole width.
    basis
        Width of a panel below which the panels stack [px].
    """
    from bokeh.document import Document
    from bokeh.embed.util import standalone_docs_json_and_render_items
    from bokeh.models import Widget

    together = Document() if models[0].document is None else models[0].document
    for model in models:
        say_colours(model)
        if model.document is None:
            together.add_root(model)
    docs, items = standalone_docs_json_and_render_items(list(models))
    order = {model.id: number for number, model in enumerate(models)}
    told = []
    for item in items:
        one = item.to_json()
        one["roots"] = {root: place(chart, order[root]) for root in one["roots"]}
        told.append(one)
    widgets = any(isinstance(part, Widget) for model in models for part in model.references())
    plain = [_for_script(json.dumps(part, ensure_ascii=False, separators=(",", ":"))) for part in (docs, told)]
    return Figure(chart, title, words, tuple(headings), basis, *plain, widgets)


def _for_script(text: str) -> str:
    """Keep a text from ending the script that it stands in."""
    return text.replace("</", "<\\/").replace("<!--", "<\\!--")


def say_colours(model: Any) -> None:
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
    drawing = _NEAR.read_text(encoding="utf-8") % {"dark": json.dumps(DARK)}
    return ";\n".join([*Resources(mode="inline", components=parts).js_raw, drawing])


STYLE = f"""
:root {{ color-scheme: light dark; --paper: {theme.PAPER}; --ink: {theme.INK}; --muted: {theme.MUTED};
  --line: {theme.GRID}; --link: #00639c; }}
@media (prefers-color-scheme: dark) {{ :root {{ --paper: {DARK[theme.PAPER]}; --ink: {DARK[theme.INK]};
  --muted: {DARK[theme.MUTED]}; --line: {DARK[theme.GRID]}; --link: #6cb8ec; }} }}
body {{ margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 {theme.FONT}; }}
main {{ max-width: 1180px; margin: 0 auto; padding: 20px 20px 28px; }}
h1 {{ font-size: 1.45rem; line-height: 1.25; margin: 0 0 12px; }}
h2 {{ font-size: 1.2rem; margin: 36px 0 4px; border-bottom: 1px solid var(--line); }}
h3 {{ font-size: 1.05rem; margin: 22px 0 8px; }}
figure {{ margin: 0; }} strong {{ font-size: .95rem; }}
figcaption {{ color: var(--muted); max-width: 56rem; margin-top: 12px; font-size: .95rem; }}
footer, .files {{ color: var(--muted); font-size: .85rem; }} footer {{ margin-top: 24px; }}
a {{ color: var(--link); }} nav ul {{ padding-left: 1.1rem; columns: 20rem 3; }} nav li {{ break-inside: avoid; }}
.chart {{ min-height: 320px; }}
@media (max-width: 600px) {{ main {{ padding: 14px 10px; }} }}
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>%(title)s</title>
<link rel="icon" href="data:,">
<style>%(style)s</style>
</head>
<body>
<main>
%(body)s
<footer>Drawn by the Astrophoto Workbench %(version)s.</footer>
</main>
%(scripts)s
</body>
</html>
"""


def _whole(title: str, body: str, scripts: str = "") -> str:
    return _PAGE % {
        "title": html.escape(title),
        "style": STYLE,
        "body": body,
        "version": __version__,
        "scripts": scripts,
    }


def _described(one: Figure) -> str:
    return (
        f'<figure role="group" aria-label="{html.escape(one.words.alt)}">\n{one.places()}\n'
        f"<figcaption>{html.escape(one.words.text)}</figcaption>\n</figure>"
    )


def page(one: Figure) -> str:
    """Return a page of one figure that carries all it needs, so that the one file can be sent around."""
    draw = f"workbenchDraw({one.docs}, {one.items});"
    scripts = f"<script>{library(one.widgets)}</script>\n<script>{draw}</script>"
    return _whole(one.title, f"<h1>{html.escape(one.title)}</h1>\n{_described(one)}", scripts)


def snippet(one: Figure, picture: bool = True) -> str:
    """Return the figure, its caption and what is said in its stead, to be pasted into a blog.

    Parameters
    ----------
    picture
        Whether there is ``<chart>.png`` for readers without JavaScript.
    """
    alt = html.escape(one.words.alt)
    files = ", ".join([f"{one.id}.js", SHARED, *([f"{one.id}.png"] if picture else [])])
    still = f'<noscript><img src="{one.id}.png" alt="{alt}" style="max-width:100%"></noscript>\n' if picture else ""
    return (
        f"<!-- {html.escape(one.title)}. Put {files} into the folder of the page. -->\n"
        f'<figure class="workbench-chart" role="group" aria-label="{alt}" style="margin:0">\n{one.places()}\n{still}'
        f"<figcaption>{html.escape(one.words.text)}</figcaption>\n"
        f'<script src="{one.id}.js"></script>\n</figure>\n'
    )


def index(
    title: str,
    figures: Sequence[tuple[str, Figure, Sequence[str]]],
    missing: Sequence[tuple[str, str, str]],
    note: str = "",
    order: Sequence[str] = (),
) -> str:
    """Return one page with all figures, under their headings.

    Parameters
    ----------
    figures
        The heading, the figure and the names of its files.
    missing
        The heading, title and reason of each chart that was not drawn.
    note
        Whose data it is.
    order
        Of the headings; those that it does not name come last.
    """
    used = [heading for heading, *_ in (*figures, *missing)]
    headings = dict.fromkeys([*(heading for heading in order if heading in used), *used])
    body = [f"<h1>{html.escape(title)}</h1>", f"<p>{html.escape(note)}</p>" if note else ""]
    links = "\n".join(f'<li><a href="#{one.id}">{html.escape(one.title)}</a></li>' for _, one, _ in figures)
    body.append(f'<nav aria-label="Charts"><ul>\n{links}\n</ul></nav>')
    for heading in headings:
        body.append(f"<section>\n<h2>{html.escape(heading)}</h2>")
        for where, one, files in figures:
            if where == heading:
                names = " · ".join(f'<a href="{name}">{name}</a>' for name in files)
                body.append(
                    f'<h3 id="{one.id}">{html.escape(one.title)}</h3>\n<div class="chart">{_described(one)}</div>'
                )
                body.append(f'<p class="files">{names}</p>')
        for where, name, why in missing:
            if where == heading:
                body.append(f"<p>{html.escape(name.rstrip('?'))}: not drawn, {html.escape(why)}.</p>")
        body.append("</section>")
    scripts = "\n".join(f'<script src="{one.id}.js"></script>' for _, one, _ in figures)
    return _whole(title, "\n".join(part for part in body if part), scripts)
