"""A chart on paper: PNG and SVG with its title above and its caption below."""

from __future__ import annotations

import html
import io
import math
import re
import textwrap
from typing import Any

import holoviews as hv

from ..charts import theme
from ..charts.registry import Caption

DPI = 150
WIDTH_IN = 1600 / DPI
_GAP = {"left": 0.98, "right": 0.22, "top": 0.42, "bottom": 0.62}  # around the axes of a panel [in]
_BAR = 0.75  # more on the right where there is a colour bar [in]


def pictures(drawn: hv.Layout, title: str, words: Caption) -> tuple[bytes, bytes]:
    """Return PNG and SVG of a chart with its title above and its caption below."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    theme.load_backends()
    figure = plt.figure()
    try:
        _arrange(figure, _draw(figure, drawn), drawn, title, words.text)
        png, svg = io.BytesIO(), io.BytesIO()
        about = {"Title": title, "Description": words.text}
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
