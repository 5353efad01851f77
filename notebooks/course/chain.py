"""The picture of the whole chain, from the photon to the picture, which every notebook returns to."""

from __future__ import annotations

import re
from typing import NamedTuple

from IPython.display import HTML

from workbench.core.errors import WorkbenchError


class Station(NamedTuple):
    """A station of the chain: its drawing (SVG, 120 by 84), and what happens there."""

    drawing: str
    words: str


def _stars(places: str, colour: str = "ink") -> str:
    return "".join(
        f'<circle class="{colour}" cx="{x}" cy="{y}" r="{r}"/>'
        for x, y, r in (place.split(",") for place in places.split())
    )


_WAVE = "q3 -5 6 0 t6 0 t6 0 t6 0 t6 0"
_FRAME = '<rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="2"/>'
_CELLS = (("r", "g", "r", "g"), ("g", "b", "g", "b"), ("r", "g", "r", "g"))
_COUNTS = ("812", "655", "640", "701", "988", "633", "618", "742", "671", "629", "660", "617")
JOURNEY = {
    "photon": Station(
        '<path class="star" d="M24 8 l3 9 9 3 -9 3 -3 9 -3 -9 -9 -3 9 -3z"/>'
        + "".join(f'<path class="line" transform="translate({x} {y}) rotate(32)" d="M0 0 {_WAVE}"/>'
                  for x, y in ((42, 16), (36, 30)))
        + '<path class="glass" d="M62 70 Q82 34 102 40 Q96 66 62 70z"/>',
        "light arrives by chance: shot noise",
    ),
    "electron": Station(
        "".join(f'<path class="line" d="M{x} 22 v44 q0 6 6 6 h16 q6 0 6 -6 v-44"/>' for x in (10, 46, 82))
        + _stars("19,64,4 29,65,4 24,56,4 55,64,4 65,65,4 60,56,4 54,48,4 66,48,4 92,64,4", "blue")
        + _stars("100,66,4 96,56,4 60,39,4", "red")
        + '<path class="line" d="M24 4 v10 m-4 -4 l4 5 4 -5 M60 4 v10 m-4 -4 l4 5 4 -5"/>',
        "pixels collect them, and heat adds its own: dark current",
    ),
    "ADU": Station(
        "".join(
            f'<rect class="{colour}" x="{8 + 26 * x}" y="{6 + 24 * y}" width="25" height="23"/>'
            f'<text x="{20.5 + 26 * x}" y="{21.5 + 24 * y}">{_COUNTS[4 * y + x]}</text>'
            for y, row in enumerate(_CELLS) for x, colour in enumerate(row)
        ),
        "the camera counts: gain, read noise, black level",
    ),
    "calibrated": Station(
        _FRAME.format("shade", 6, 10, 42, 30) + _stars("16,20,2 34,30,2.6 40,17,1.6", "paper")
        + '<path class="line" d="M56 25 h10"/>' + _FRAME.format("dark", 74, 10, 40, 30)
        + _stars("84,30,1.5 104,18,1.5", "red")
        + '<path class="line" d="M6 48 h108"/>' + _FRAME.format("flat", 39, 54, 42, 26)
        + '<ellipse class="paper soft" cx="60" cy="67" rx="15" ry="9"/>',
        "dark subtracted, flat divided out, in electrons again",
    ),
    "stack": Station(
        "".join(_FRAME.format("sheet", 8 + 12 * n, 40 - 10 * n, 66, 36) for n in range(4))
        + _stars("58,22,2.6 76,34,3.4 92,20,2 99,38,2", "blue"),
        "aligned, outliers rejected, averaged: noise falls as 1/√N",
    ),
    "picture": Station(
        _FRAME.format("night", 8, 6, 104, 70)
        + '<path class="cloud" d="M30 52 q4 -26 26 -24 q14 -14 30 0 q14 14 -2 22 q-16 14 -30 6 q-18 6 -24 -4z"/>'
        '<path class="heart" d="M46 46 q8 -14 22 -8 q16 6 6 12 q-16 8 -28 -4z"/>'
        + _stars("22,18,1.6 98,16,2.2 90,64,1.6 40,66,1.4 62,42,2.4 104,40,1.3 18,46,1.3", "paper"),
        "sky taken away, colour, stretch",
    ),
}  # fmt: skip
COLOURS = """
 .line{fill:none;stroke:var(--ink);stroke-width:2.4;stroke-linecap:round;stroke-linejoin:round}
 .star,.ink{fill:var(--ink)}
 .glass{fill:#56b4e9;fill-opacity:.45;stroke:var(--ink);stroke-width:2} .blue{fill:#2f86c5} .red{fill:#d55e00}
 .r{fill:#d55e00;fill-opacity:.35} .g{fill:#009e73;fill-opacity:.35} .b{fill:#2f86c5;fill-opacity:.4}
 svg text{fill:var(--ink);font:600 10.5px system-ui,sans-serif;text-anchor:middle}
 .shade{fill:#5c6b78} .dark{fill:#1c252d;stroke:var(--ink);stroke-width:1} .flat{fill:#8fa0ae} .paper{fill:#fff}
 .soft{fill-opacity:.4}
 .sheet{fill:var(--paper);stroke:var(--ink);stroke-width:2} .night{fill:#10181f;stroke:var(--ink);stroke-width:1}
 .cloud{fill:#b8455f;fill-opacity:.75} .heart{fill:#f0b8a0;fill-opacity:.8}
"""
_PAGE = """
.wb-journey{--ink:var(--pst-color-text-base,var(--jp-content-font-color1,#22303c));
 --paper:var(--pst-color-background,var(--jp-layout-color0,#fff));
 display:grid;grid-template-columns:repeat(auto-fit,minmax(118px,1fr));gap:6px 14px;list-style:none;
 margin:10px 0 14px;padding:0;max-width:900px;color:var(--ink);font:13px/1.35 system-ui,sans-serif}
.wb-journey li{position:relative;margin:0;padding:8px 8px 9px;border:2px solid transparent;border-radius:8px;
 text-align:center}
.wb-journey li:not(:last-child)::after{content:"→";position:absolute;right:-14px;top:40px;font-size:15px}
.wb-journey li.here{border-color:#2f86c5;background:color-mix(in srgb,#2f86c5 13%,transparent)}
.wb-journey.placed li:not(.here) svg{opacity:.5}
.wb-journey svg{display:block;width:100%;max-width:120px;height:auto;margin:0 auto 5px}
.wb-journey b,.wb-journey span{display:block} .wb-journey span{font-size:12px}
"""


def journey(*here: str) -> HTML:
    """Return the chain from the photon to the picture with the stations of this notebook marked.

    Raises
    ------
    WorkbenchError
        If a station is unknown.

    Examples
    --------
    >>> "electron" in journey("electron").data
    True
    """
    unknown = set(here) - set(JOURNEY)
    if unknown:
        raise WorkbenchError(f"unknown stations {sorted(unknown)}; the chain has {', '.join(JOURNEY)}")
    stations = "".join(
        f"<li{' class=here aria-current=step' if name in here else ''}>"
        f'<svg viewBox="0 0 120 84" aria-hidden="true">{drawing}</svg><b>{name}</b><span>{words}</span></li>'
        for name, (drawing, words) in JOURNEY.items()
    )
    colours = re.sub(r"(?<=[\s,])(?=\.[a-z]|svg )", ".wb-journey ", COLOURS)  # of this list alone
    placed = " placed" if here else ""
    return HTML(f'<style>{_PAGE}{colours}</style><ol class="wb-journey{placed}">{stations}</ol>')
