"""One page of the app: its stations in tabs, told several times a second how the jobs are doing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import panel as pn

from ..charts import theme
from .desk import Desk
from .jobs import Runner
from .stations import STATIONS

REFRESH = 300  # between two looks at the jobs [ms]
_TEMPLATE = Path(__file__).with_name("page.html")
STYLE = f"""
:host {{ font-family: {theme.FONT}; font-size: 14px; }}
h2 {{ font-size: 19px; margin: 6px 0 2px; }} h3 {{ font-size: 16px; margin: 14px 0 2px; }}
p {{ margin: 2px 0 6px; max-width: 60rem; }} .same, .caption {{ color: {theme.MUTED}; font-size: 13px; }}
code {{ background: #e9eef3; padding: 1px 4px; border-radius: 3px; overflow-wrap: anywhere; }}
.status {{ padding: 2px 0; overflow-wrap: anywhere; }}
.status.good {{ color: #00674b; }} .status.bad {{ color: #a33100; font-weight: 600; }}
.bar {{ height: 10px; max-width: 640px; border-radius: 5px; background: #dfe6ec; overflow: hidden; }}
.bar div {{ height: 100%; background: #0072b2; transition: width .25s; }}
.bar.unknown div {{ background: repeating-linear-gradient(45deg, #0072b2 0 10px, #3b94c9 10px 20px); }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; font-weight: 600; padding: 6px 0; }}
th, td {{ padding: 3px 14px 3px 0; border-bottom: 1px solid #dfe6ec; text-align: left; font-size: 14px; }}
.scroll {{ overflow-x: auto; max-width: 100%; }}
"""

_TABS = """
.bk-tab { font-size: 15px; padding: 8px 16px; } .bk-tab.bk-active { font-weight: 600; }
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
    desk = Desk(runner)
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
    page.add_variable("ink", theme.INK)
    page.add_variable("muted", theme.MUTED)
    page.add_variable("font", theme.FONT)
    page.add_panel("stations", tabs)

    def refresh() -> None:
        for station in stations:
            station.refresh()

    async def begin() -> None:
        asked = {key: value[0].decode() for key, value in (pn.state.session_args or {}).items() if value}
        first = asked.get("folder", folder)
        if first:
            await stations[0].open_folder(first, asked.get("results", results))
            refresh()

    def remember(*_: Any) -> None:
        """Keep the folder in the page's address, so that a tab that is loaded again opens it again."""
        if pn.state.location is not None and desk.folder is not None:
            pn.state.location.update_query(folder=str(desk.folder.root), results=str(desk.results))

    desk.param.watch(remember, ["folder", "results"])
    pn.state.onload(begin)
    pn.state.add_periodic_callback(refresh, period=REFRESH)
    return page
