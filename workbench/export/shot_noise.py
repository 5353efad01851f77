"""The blog's demonstration: particles fall on an ideal detector, and counting them shows shot noise.

It runs in the browser, on a page by itself and in a notebook alike; Python only draws it and takes the first exposure.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..charts.particles import EXPOSURES, PARTICLES_PER_UNIT, expose
from ..charts.theme import INK, MUTED, SERIES
from .demonstrations import legend, plot, readout, script

SHOWN = 60  # counts in the strip chart
PERIOD = 250  # between two exposures while running [ms]
HEADINGS = ("The detector", "Counts, one exposure after another", "Signal to noise")
_DOTS, _LIVE = SERIES[0], SERIES[1]
_RUN = """
if (toggle.active) {
  toggle.label = 'Pause';
  const again = () => { if (toggle.active) { once.execute(toggle); setTimeout(again, period); } };
  setTimeout(again, period);
} else { toggle.label = 'Run'; }
"""
_START = """
toggle.active = !window.matchMedia('(prefers-reduced-motion: reduce)').matches;
"""


def _figures(seed: int) -> tuple[list[Any], dict[str, Any]]:
    """Draw the three figures with a first exposure of length 1; return them, and the models that the script changes."""
    from bokeh.models import BoxAnnotation, ColumnDataSource, FixedTicker, Span, Whisker

    x, y = expose(1.0, np.random.default_rng(seed))
    particles = ColumnDataSource({"x": x, "y": y}, name="particles")
    history = ColumnDataSource({"number": [1], "count": [x.size]}, name="history")
    lengths = np.array(EXPOSURES)
    first, blank = np.where(lengths == 1.0, 1.0, 0.0), np.full(lengths.size, np.nan)
    columns = {"exposure": lengths, "taken": first, "mean": first * x.size, "square": 0 * first}
    snr = ColumnDataSource(columns | dict.fromkeys(("snr", "low", "high"), blank), name="snr", tags=[seed])

    square = {"sizing_mode": "scale_width", "height": None, "aspect_ratio": 1, "min_border_right": 12}
    detector = plot("", "", x_range=(0, 1), y_range=(0, 1), **square)
    detector.scatter("x", "y", source=particles, size=5, fill_color=_DOTS, line_color=None, fill_alpha=0.85)
    detector.axis.visible = detector.grid.visible = False
    detector.outline_line_color, detector.outline_line_width = MUTED, 2
    detector.background_fill_color = "#f6f8fa"

    mean = PARTICLES_PER_UNIT
    strip = {"height": 340, "min_border_right": 12}
    counts = plot("exposure number", "particles counted", y_range=(0, 1.45 * mean + 20), **strip)
    counts.x_range.start, counts.x_range.end = 0, SHOWN + 1
    level = Span(location=mean, dimension="width", line_color=INK, line_dash="dashed", line_width=1.6)
    ends = {"bottom": mean - mean**0.5, "top": mean + mean**0.5}
    band = BoxAnnotation(fill_color=_DOTS, fill_alpha=0.12, line_color=None, **ends)
    counts.add_layout(band)
    counts.add_layout(level)
    counts.scatter("number", "count", source=history, size=6, fill_color=_DOTS, line_color=None)

    ratio = plot("exposure", "signal to noise", x_range=(0, 4.25), y_range=(0, 24), **strip | {"tools": "hover"})
    ratio.hover.tooltips = [("exposure", "@exposure"), ("exposures taken", "@taken"), ("SNR", "@snr{0.00}")]
    along = np.linspace(0, 4.25, 120)
    law = {"color": INK, "line_dash": "dashed", "line_width": 1.8, "legend_label": "√N"}
    ratio.line(along, np.sqrt(PARTICLES_PER_UNIT * along), **law)
    bars = {"lower": "low", "upper": "high", "upper_head": None, "lower_head": None}
    ratio.add_layout(Whisker(base="exposure", source=snr, line_color=_LIVE, line_width=1.6, **bars))
    ratio.scatter("exposure", "snr", source=snr, size=9, fill_color=_LIVE, line_color=_LIVE, legend_label="measured")
    ratio.xaxis.ticker = FixedTicker(ticks=[0, 1, 2, 3, 4])
    legend(ratio, "bottom_right")
    models = {"particles": particles, "history": history, "snr": snr, "level": level, "band": band}
    return [detector, counts, ratio], models | {"y_range": counts.y_range}


def _controls(models: dict[str, Any]) -> tuple[Any, Any]:
    """Return the controls with the readout, and the script that starts the demonstration on a page."""
    from bokeh.layouts import column, row
    from bokeh.models import Button, CustomJS, Slider, Toggle

    slider = Slider(title="exposure", start=EXPOSURES[0], end=EXPOSURES[-1], step=0.5, value=1.0, name="exposure")
    said = readout()
    taken = int(models["particles"].data["x"].size)
    said.text = f"<b>{taken}</b> particles in this exposure, {PARTICLES_PER_UNIT:g} expected."
    args = models | {"slider": slider, "readout": said, "rate": PARTICLES_PER_UNIT, "length": SHOWN}
    code = script("shot_noise")

    def action(what: str, times: int) -> CustomJS:
        return CustomJS(args=args | {"what": what, "times": times}, code=code)

    one = action("take", 1)
    once, many = Button(label="One exposure"), Button(label="100 exposures")
    run, again = Toggle(label="Run", name="run"), Button(label="Start over")
    slider.js_on_change("value", action("slide", 1))
    once.js_on_click(one)
    many.js_on_click(action("take", 100))
    again.js_on_click(action("again", 1))
    run.js_on_change("active", CustomJS(args={"toggle": run, "once": one, "period": PERIOD}, code=_RUN))
    for button in (once, many, run, again):
        button.width = 112
    slider.max_width, slider.sizing_mode = 460, "stretch_width"
    buttons = row(once, many, run, again, styles={"flex-wrap": "wrap"}, sizing_mode="stretch_width")
    start = CustomJS(args={"toggle": run}, code=_START)
    return column(slider, buttons, said, sizing_mode="stretch_width"), start


def shot_noise_demo(seed: int | None = None) -> Any:
    """Return the demonstration as a Panel object: show it in a notebook, or serve it with ``.servable()``.

    Its random numbers differ every time, unless there is a seed.
    """
    import panel as pn

    figures, models = _figures(int(np.random.default_rng().integers(2**31)) if seed is None else seed)
    controls, _ = _controls(models)
    panes = [
        pn.Column(
            pn.pane.Markdown(f"**{heading}**", margin=(0, 10)),
            pn.pane.Bokeh(figure, sizing_mode="stretch_width"),
            width=300,
        )
        for heading, figure in zip(HEADINGS, figures, strict=True)
    ]  # fmt: skip
    return pn.Column(pn.pane.Bokeh(controls, sizing_mode="stretch_width"), pn.FlexBox(*panes), name="Shot noise")


def standalone() -> tuple[Any, tuple[str | None, ...]]:
    """Return the demonstration as a Bokeh document that always opens with the same exposure, and its headings."""
    from bokeh.document import Document

    figures, models = _figures(seed=1)
    controls, start = _controls(models)
    document = Document()
    for root in (controls, *figures):
        document.add_root(root)
    document.js_on_event("document_ready", start)
    return document, (None, *HEADINGS)
