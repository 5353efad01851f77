"""The blog's demonstration: particles fall on an ideal detector, and counting them shows shot noise.

Twice the same picture: `shot_noise_demo` is driven by Python, for notebooks and servers; `standalone` is driven
by JavaScript, for a page that works without Python and without a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..charts.particles import EXPOSURES, PARTICLES_PER_UNIT, expose, running_snr
from ..charts.theme import FONT, GRID, INK, MUTED, SERIES

SHOWN = 60  # counts in the strip chart
PERIOD = 250  # between two exposures while running [ms]
_DOTS, _LIVE = SERIES[0], SERIES[1]


@dataclass
class Stage:
    """What both versions draw: three figures and the data sources behind them."""

    particles: Any  # x, y of the last exposure
    history: Any  # number and count of the last exposures at this length
    snr: Any  # per exposure length: exposures taken, SNR, its error bar, √N
    expected: Any  # the level of N and the band of ± √N
    figures: list[Any]
    headings: tuple[str, ...] = ("The detector", "Counts, one exposure after another", "Signal to noise")


def stage() -> Stage:
    """Build the figures, empty."""
    from bokeh.models import BoxAnnotation, ColumnDataSource, FixedTicker, Span, Whisker
    from bokeh.plotting import figure

    lengths = np.array(EXPOSURES)
    blank = np.full(lengths.size, np.nan)
    particles = ColumnDataSource({"x": [], "y": []}, name="particles")
    history = ColumnDataSource({"number": [], "count": []}, name="history")
    snr = ColumnDataSource(
        {"exposure": lengths, "taken": np.zeros(lengths.size), "snr": blank, "low": blank, "high": blank}, name="snr"
    )

    detector = figure(x_range=(0, 1), y_range=(0, 1), aspect_ratio=1, toolbar_location=None, tools="")
    detector.scatter("x", "y", source=particles, size=5, fill_color=_DOTS, line_color=None, fill_alpha=0.85)
    detector.axis.visible = detector.grid.visible = False
    detector.outline_line_color, detector.outline_line_width = MUTED, 2
    detector.background_fill_color = "#f6f8fa"

    counts = figure(
        x_axis_label="exposure number",
        y_axis_label="particles counted",
        y_range=(0, 165),
        toolbar_location=None,
        tools="",
    )
    counts.x_range.start, counts.x_range.end = 0, SHOWN + 1
    level = Span(dimension="width", line_color=INK, line_dash="dashed", line_width=1.6)
    band = BoxAnnotation(fill_color=_DOTS, fill_alpha=0.12, line_color=None)
    counts.add_layout(band)
    counts.add_layout(level)
    counts.scatter("number", "count", source=history, size=6, fill_color=_DOTS, line_color=None)

    ratio = figure(x_axis_label="exposure", y_axis_label="signal to noise", toolbar_location=None, tools="hover")
    ratio.hover.tooltips = [("exposure", "@exposure"), ("exposures taken", "@taken"), ("SNR", "@snr{0.00}")]
    ratio.x_range.start, ratio.x_range.end, ratio.y_range.start, ratio.y_range.end = 0, 4.25, 0, 24
    along = np.linspace(0, 4.25, 120)
    ratio.line(
        along, np.sqrt(PARTICLES_PER_UNIT * along), color=INK, line_dash="dashed", line_width=1.8, legend_label="√N"
    )
    ratio.add_layout(Whisker(base="exposure", lower="low", upper="high", source=snr, line_color=_LIVE, line_width=1.6,
                             upper_head=None, lower_head=None))  # fmt: skip
    ratio.scatter("exposure", "snr", source=snr, size=9, fill_color=_LIVE, line_color=_LIVE, legend_label="measured")
    ratio.xaxis.ticker = FixedTicker(ticks=[0, 1, 2, 3, 4])
    ratio.legend.location = "bottom_right"
    ratio.legend.border_line_color = None
    ratio.legend.label_text_font = FONT
    for plot in (detector, counts, ratio):
        plot.sizing_mode = "scale_width" if plot is detector else "stretch_width"
        plot.height = None if plot is detector else 340
        plot.min_border_right = 12
        plot.grid.grid_line_color = GRID
        plot.axis.axis_label_text_font = plot.axis.major_label_text_font = FONT
        plot.axis.axis_label_text_font_style = "normal"
        plot.axis.minor_tick_line_color = None
        plot.axis.axis_line_color = plot.axis.major_tick_line_color = MUTED
    counts.outline_line_color = ratio.outline_line_color = None
    return Stage(particles, history, snr, (level, band, counts.y_range), [detector, counts, ratio])


class ShotNoise:
    """The demonstration's state: every count taken so far, per exposure length, and what is on show.

    Examples
    --------
    >>> demo = ShotNoise(seed=1)
    >>> demo.exposure = 4.0
    >>> demo.take(500)
    >>> snr, error = demo.snr()
    >>> abs(snr - 20.0) < 3 * error
    True
    """

    def __init__(self, seed: int | None = None) -> None:
        self.rng = np.random.default_rng(seed)
        self.stage = stage()
        self.start_over()

    @property
    def exposure(self) -> float:
        """The length of the next exposures, one of `EXPOSURES`; setting it takes one exposure."""
        return self._exposure

    @exposure.setter
    def exposure(self, value: float) -> None:
        self._exposure = value
        self._shown: list[int] = []
        self.take()

    def start_over(self) -> None:
        """Forget every count and take one exposure."""
        self.counts: dict[float, list[int]] = {length: [] for length in EXPOSURES}
        self.exposure = getattr(self, "_exposure", 1.0)

    def take(self, times: int = 1) -> None:
        """Take exposures; the last one's particles are shown."""
        x, y = np.empty(0), np.empty(0)
        for _ in range(times):
            x, y = expose(self._exposure, self.rng)
            self.counts[self._exposure].append(x.size)
            self._shown.append(x.size)
        self._show(x, y)

    def snr(self) -> tuple[float, float]:
        """Return the running signal-to-noise ratio at this exposure and its standard error."""
        return running_snr(self.counts[self._exposure])

    def _show(self, x: np.ndarray, y: np.ndarray) -> None:
        self.stage.particles.data = {"x": x, "y": y}
        first = max(0, len(self._shown) - SHOWN)
        self.stage.history.data = {
            "number": np.arange(1, len(self._shown) - first + 1),
            "count": np.array(self._shown[first:]),
        }
        snr, error = np.array([running_snr(self.counts[length]) for length in EXPOSURES]).T
        self.stage.snr.data = {
            "exposure": np.array(EXPOSURES),
            "taken": np.array([len(self.counts[length]) for length in EXPOSURES]),
            "snr": snr,
            "low": snr - error,
            "high": snr + error,
        }
        mean = PARTICLES_PER_UNIT * self._exposure
        level, band, y_range = self.stage.expected
        level.location, band.bottom, band.top, y_range.end = mean, mean - mean**0.5, mean + mean**0.5, 1.45 * mean + 20

    def readout(self) -> str:
        """Return what the live line says, as HTML."""
        taken, mean = self.counts[self._exposure], PARTICLES_PER_UNIT * self._exposure
        snr, error = self.snr()
        live = f"{snr:.1f} ± {error:.1f}" if np.isfinite(snr) else "needs two exposures"
        return (
            f"<b>{taken[-1]}</b> particles in this exposure, {mean:g} expected. "
            f"Live SNR of {len(taken)}: <b>{live}</b>, expected √N = <b>{mean**0.5:.1f}</b>"
        )


def shot_noise_demo(seed: int | None = None) -> Any:
    """Return the demonstration as a Panel object: show it in a notebook, or serve it with ``.servable()``.

    Parameters
    ----------
    seed
        Of the random numbers; None for a different night every time.
    """
    import panel as pn

    demo = ShotNoise(seed)
    slider = pn.widgets.DiscreteSlider(label="exposure", options=list(EXPOSURES), value=1.0)
    once = pn.widgets.Button(label="One exposure", color="primary")
    many = pn.widgets.Button(label="100 exposures")
    again = pn.widgets.Button(label="Start over")
    run = pn.widgets.Toggle(label="Run")
    text = pn.pane.HTML(demo.readout())

    def after(action: Any) -> Any:
        def react(*_: Any) -> None:
            action()
            text.object = demo.readout()

        return react

    slider.param.watch(after(lambda: setattr(demo, "exposure", slider.value)), "value")
    once.on_click(after(demo.take))
    many.on_click(after(lambda: demo.take(100)))
    again.on_click(after(demo.start_over))
    repeat: list[Any] = []

    def running(event: Any) -> None:
        if event.new and not repeat:
            repeat.append(pn.state.add_periodic_callback(after(demo.take), period=PERIOD))
        elif not event.new and repeat:
            repeat.pop().stop()

    run.param.watch(running, "value")
    panes = [
        pn.Column(
            pn.pane.Markdown(f"**{heading}**", margin=(0, 10)),
            pn.pane.Bokeh(plot, sizing_mode="stretch_width"),
            width=300,
        )
        for heading, plot in zip(demo.stage.headings, demo.stage.figures, strict=True)
    ]  # fmt: skip
    return pn.Column(pn.Row(slider, once, many, run, again), text, pn.FlexBox(*panes), name="Shot noise")


_SCRIPT = """
const at = Math.round(slider.value / 0.5) - 1;
const mean = rate * slider.value;
const random = () => {                       // mulberry32; its state lives in the tags of the source
  let s = (snr.tags[0] = (snr.tags[0] + 0x6D2B79F5) | 0);
  s = Math.imul(s ^ (s >>> 15), s | 1);
  s ^= s + Math.imul(s ^ (s >>> 7), s | 61);
  return ((s ^ (s >>> 14)) >>> 0) / 4294967296;
};
const poisson = (expected) => {              // arrivals at random times: exponential gaps until the time is up
  let count = -1;
  for (let time = 0; time < expected; count++) time -= Math.log(1 - random());
  return count;
};
const data = {};
for (const key of ['taken', 'mean', 'square', 'snr', 'low', 'high']) data[key] = Array.from(snr.data[key]);
data.exposure = snr.data.exposure;
let shown = what === 'slide' || what === 'again' ? [] : Array.from(history.data.count);
if (what === 'again') for (const key of ['taken', 'mean', 'square', 'snr', 'low', 'high'])
  data[key].fill(key === 'snr' || key === 'low' || key === 'high' ? NaN : 0);
let count = 0;
for (let i = 0; i < times; i++) {
  count = poisson(mean);
  shown.push(count);
  data.taken[at] += 1;                       // Welford's running mean and sum of squared deviations
  const step = count - data.mean[at];
  data.mean[at] += step / data.taken[at];
  data.square[at] += step * (count - data.mean[at]);
}
const n = data.taken[at];
if (n > 1 && data.square[at] > 0) {
  const ratio = data.mean[at] / Math.sqrt(data.square[at] / (n - 1));
  const error = ratio * Math.sqrt(1 / (n * ratio * ratio) + 0.5 / (n - 1));
  data.snr[at] = ratio; data.low[at] = ratio - error; data.high[at] = ratio + error;
}
shown = shown.slice(-length);
particles.data = {x: Array.from({length: count}, random), y: Array.from({length: count}, random)};
history.data = {number: shown.map((_, i) => i + 1), count: shown};
snr.data = data;
level.location = mean; band.bottom = mean - Math.sqrt(mean); band.top = mean + Math.sqrt(mean);
y_range.end = 1.45 * mean + 20;
let live = 'needs two exposures';
if (n > 1) live = data.snr[at].toFixed(1) + ' ± ' + ((data.high[at] - data.low[at]) / 2).toFixed(1);
readout.text = '<b>' + count + '</b> particles in this exposure, ' + mean + ' expected. Live SNR of ' + n
  + ': <b>' + live + '</b>, expected √N = <b>' + Math.sqrt(mean).toFixed(1) + '</b>';
"""
_RUN = """
if (toggle.active) {
  toggle.label = 'Pause';
  const again = () => { if (toggle.active) { once.execute(toggle); setTimeout(again, period); } };
  setTimeout(again, period);
} else { toggle.label = 'Run'; }
"""
_START = """
first.execute(toggle);
toggle.active = !window.matchMedia('(prefers-reduced-motion: reduce)').matches;
"""


def standalone(seed: int = 1) -> tuple[Any, tuple[str | None, ...]]:
    """Return the demonstration as a Bokeh document that needs no Python, and the headings of its parts.

    Parameters
    ----------
    seed
        Of the JavaScript random numbers, so that the page always opens with the same exposure.
    """
    from bokeh.document import Document
    from bokeh.layouts import column, row
    from bokeh.models import Button, CustomJS, Div, Slider, Toggle

    scene = stage()
    level, band, y_range = scene.expected
    scene.snr.data = dict(scene.snr.data) | {name: np.zeros(len(EXPOSURES)) for name in ("mean", "square")}
    scene.snr.tags = [seed]
    slider = Slider(title="exposure", start=EXPOSURES[0], end=EXPOSURES[-1], step=0.5, value=1.0, name="exposure")
    readout = Div(text="", name="readout", styles={"font-family": FONT, "font-size": "16px"})
    sources = {"particles": scene.particles, "history": scene.history, "snr": scene.snr, "readout": readout}
    marks = {"level": level, "band": band, "y_range": y_range, "slider": slider}
    constants = {"rate": PARTICLES_PER_UNIT, "length": SHOWN}

    def action(what: str, times: int) -> CustomJS:
        return CustomJS(args=sources | marks | constants | {"what": what, "times": times}, code=_SCRIPT)

    one = action("take", 1)
    once, many = Button(label="One exposure", button_type="primary"), Button(label="100 exposures")
    run, again = Toggle(label="Run", name="run"), Button(label="Start over")
    slider.js_on_change("value", action("slide", 1))
    once.js_on_click(one)
    many.js_on_click(action("take", 100))
    again.js_on_click(action("again", 1))
    run.js_on_change("active", CustomJS(args={"toggle": run, "once": one, "period": PERIOD}, code=_RUN))
    for button in (once, many, run, again):
        button.width = 112
    slider.max_width, slider.sizing_mode, readout.sizing_mode = 460, "stretch_width", "stretch_width"
    controls = column(
        slider,
        row(once, many, run, again, styles={"flex-wrap": "wrap"}, sizing_mode="stretch_width"),
        readout,
        sizing_mode="stretch_width",
    )
    document = Document()
    for root in (controls, *scene.figures):
        document.add_root(root)
    document.js_on_event("document_ready", CustomJS(args={"first": one, "toggle": run}, code=_START))
    return document, (None, *scene.headings)
