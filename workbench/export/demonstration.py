"""What the demonstrations share: their form, and figures and controls in the house style."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..charts.registry import Caption
from ..charts.theme import FONT, GRID, INK, MUTED


@dataclass(frozen=True)
class Built:
    """A demonstration ready for a page: a Bokeh document, the heading above each root (None: full width)."""

    document: Any
    headings: tuple[str | None, ...]
    words: Caption


@dataclass(frozen=True)
class Demo:
    """A demonstration: `build` makes it from a characterization, None where that lacks what it needs."""

    id: str
    title: str
    heading: str
    build: Callable[[Any], Built | None]
    basis: int = 430


def plot(x_label: str, y_label: str, **options: Any) -> Any:
    """Return an empty figure in the house style."""
    from bokeh.models import LogAxis, NumeralTickFormatter
    from bokeh.plotting import figure

    made = figure(
        x_axis_label=x_label, y_axis_label=y_label, height=360, sizing_mode="stretch_width", toolbar_location=None,
        tools="", min_border_right=16, **options,
    )  # fmt: skip
    for axis in made.select(LogAxis):
        axis.formatter = NumeralTickFormatter(format="0,0.[00]")
    made.outline_line_color = None
    made.grid.grid_line_color = GRID
    made.axis.axis_label_text_font = made.axis.major_label_text_font = FONT
    made.axis.axis_label_text_font_style = "normal"
    made.axis.minor_tick_line_color = None
    made.axis.axis_line_color = made.axis.major_tick_line_color = MUTED
    return made


def legend(made: Any, location: str) -> None:
    """Put the legend into a corner, in the house style."""
    made.legend.location = location
    made.legend.border_line_color = None
    made.legend.background_fill_alpha = 0.85
    made.legend.label_text_font = FONT
    made.legend.label_text_color = INK
    made.legend.spacing = 1
    made.legend.padding = 6


def readout() -> Any:
    """Return the line that says in words what is shown."""
    from bokeh.models import Div

    return Div(text="", name="readout", sizing_mode="stretch_width", styles={"font-family": FONT, "font-size": "16px"})


def together(controls: list[Any], said: Any, figures: list[Any], code: str, args: dict[str, Any]) -> Any:
    """Wire every control to a script and run it once when the page is ready.

    Parameters
    ----------
    controls
        Bokeh widgets with a ``value``.
    said
        The readout, which the script knows as ``said``.
    code, args
        The script, and the models and numbers that it knows by name.

    Returns
    -------
    Document
        Its roots: controls with readout, then the figures.
    """
    from bokeh.document import Document
    from bokeh.layouts import column, row
    from bokeh.models import CustomJS

    act = CustomJS(args=args | {"said": said}, code=code)
    for control in controls:
        control.js_on_change("value", act)
        control.sizing_mode = "stretch_width"
        control.max_width, control.min_width = 300, 160
    above = column(
        row(*controls, styles={"flex-wrap": "wrap", "gap": "4px 22px"}, sizing_mode="stretch_width"),
        said,
        sizing_mode="stretch_width",
    )
    document = Document()
    for root in (above, *figures):
        document.add_root(root)
    document.js_on_event("document_ready", act)
    return document
