"""One page of the app: its stations in tabs, told several times a second how the jobs are doing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import panel as pn

from ..charts import theme
from ..export.pages import DARK
from .jobs import Runner
from .screen import Screen
from .session import Desk
from .stations import STATIONS

REFRESH = 300  # between two looks at the jobs [ms]
_TEMPLATE = Path(__file__).with_name("page.html")
# colours of the page, those of Panel's widgets among them
_LIGHT = {
    "color-scheme": "light", "--wb-page": "#f6f8fa", "--wb-ink": theme.INK, "--wb-muted": theme.MUTED,
    "--wb-line": "#dfe6ec", "--wb-soft": "#e9eef3", "--wb-link": "#00639c", "--wb-good": "#00674b",
    "--wb-bad": "#a33100", "--wb-focus": "#0072b2", "--wb-edge": "#8a97a3", "--wb-caret": "#14202b",
}  # fmt: skip
_DARK = {
    "color-scheme": "dark", "--wb-page": "#0c1319", "--wb-ink": DARK[theme.INK], "--wb-muted": DARK[theme.MUTED],
    "--wb-line": DARK[theme.GRID], "--wb-soft": "#1d2a34", "--wb-link": "#6cb8ec", "--wb-good": "#5fd3ae",
    "--wb-bad": "#ff9d75", "--wb-focus": "#6cb8ec", "--wb-edge": "#667886",
    "--wb-caret": "#e4eaf0", "--design-background-color": DARK[theme.PAPER],
    "--design-background-text-color": DARK[theme.INK], "--design-surface-color": "#1d2a34",
    "--design-surface-text-color": DARK[theme.INK], "--bokeh-bg-color": DARK[theme.PAPER],
    "--bokeh-border-color": "#3b4b58", "--bokeh-icon-color": DARK[theme.MUTED],
}  # fmt: skip
STYLE = f"""
:host {{ font-family: {theme.FONT}; font-size: 14px; color: var(--wb-ink); }}
h2 {{ font-size: 19px; margin: 6px 0 2px; }} h3 {{ font-size: 16px; margin: 14px 0 2px; }}
p {{ margin: 2px 0 6px; max-width: 60rem; }} .same, .caption {{ color: var(--wb-muted); font-size: 13px; }}
a {{ color: var(--wb-link); }}
code {{ background: var(--wb-soft); padding: 1px 4px; border-radius: 3px; overflow-wrap: anywhere; }}
.status {{ padding: 2px 0; overflow-wrap: anywhere; }}
.status.good {{ color: var(--wb-good); }} .status.bad {{ color: var(--wb-bad); font-weight: 600; }}
.bar {{ height: 10px; max-width: 640px; border-radius: 5px; background: var(--wb-line); overflow: hidden; }}
.bar div {{ height: 100%; background: #0072b2; transition: width .25s; }}
.bar.unknown div {{ background: repeating-linear-gradient(45deg, #0072b2 0 10px, #3b94c9 10px 20px); }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; font-weight: 600; padding: 6px 0; }}
th, td {{ padding: 3px 14px 3px 0; border-bottom: 1px solid var(--wb-line); text-align: left; font-size: 14px; }}
:focus-visible {{ outline: 2px solid var(--wb-focus) !important; outline-offset: 2px !important; }}
.bk-input {{ border-color: var(--wb-edge); }} .bk-input::placeholder {{ color: var(--wb-muted); opacity: 1; }}
select.bk-input:not([multiple]) {{ background-image:
  linear-gradient(45deg, transparent 50%, var(--wb-caret) 50%),
  linear-gradient(-45deg, transparent 50%, var(--wb-caret) 50%);
  background-position: right 12px center, right 7px center; background-size: 5px 5px; background-repeat: no-repeat; }}
.bk-btn-default.bk-active, .bk-btn-default.bk-active:hover {{ background-color: #0072b2; color: #fff; }}
.scroll {{ overflow-x: auto; max-width: 100%; }}
@media (max-width: 700px) {{
  tbody th {{ overflow-wrap: anywhere; min-width: 4.5rem; }} th, td {{ padding-right: 9px; font-size: 13px; }}
  ul {{ padding-left: 1.1rem; }}
}}
"""


def _declared(colours: dict[str, str]) -> str:
    return " ".join(f"{name}: {value};" for name, value in colours.items())


_TABS = """
.bk-tab { font-size: 15px; padding: 8px 16px; } .bk-tab.bk-active { font-weight: 600; color: var(--wb-ink); }
@media (max-width: 700px) {
  .bk-header, .bk-headers-wrapper, .bk-headers { flex-wrap: wrap; overflow: visible; height: auto; }
  .bk-tab { padding: 6px 9px; }
}
"""


def build(runner: Runner, folder: str = "", results: str = "") -> pn.Template:
    """Return a new page; every tab of a browser gets one of its own.

    Parameters
    ----------
    runner
        The server's jobs, which all pages share.
    folder, results
        What to open at once; the page's address may name another folder (``?folder=...``).
    """
    screen = Screen()
    desk = Desk(runner, screen)
    stations = [station(desk) for station in STATIONS]
    tabs = pn.Tabs(
        *((station.name, station.panel) for station in stations), sizing_mode="stretch_width", stylesheets=[_TABS]
    )

    def only_the_chosen(*_: Any) -> None:  # what is hidden is also out of the keyboard's way
        for place, station in enumerate(stations):
            station.panel.visible = place == tabs.active

    tabs.param.watch(only_the_chosen, "active")
    only_the_chosen()
    page = pn.Template(_TEMPLATE.read_text(encoding="utf-8"), nb_template=None)
    page.add_variable("light", _declared(_LIGHT))
    page.add_variable("dark", _declared(_DARK))
    page.add_variable("font", theme.FONT)
    page.add_panel("screen", screen)
    page.add_panel("stations", tabs)

    def refresh() -> None:
        for station in stations:
            station.refresh()

    async def begin() -> None:
        asked = {key: value[0].decode() for key, value in (pn.state.session_args or {}).items() if value}
        first = asked.get("folder", folder)
        await screen.known()
        if first:
            await stations[0].open_folder(first, asked.get("results", results))

    def remember(*_: Any) -> None:
        """Keep the folder in the page's address, so that a tab that is loaded again opens it again."""
        if pn.state.location is not None and desk.folder is not None:
            pn.state.location.update_query(folder=str(desk.folder.root), results=str(desk.results))

    desk.param.watch(remember, ["folder", "results"])
    pn.state.onload(begin)
    pn.state.add_periodic_callback(refresh, period=REFRESH)
    return page
