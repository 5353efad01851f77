"""Demonstrations for a page: figures whose controls work in the browser, with no Python behind them.

Each has a script of its own in this folder, which knows models and numbers by the names that are passed to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..charts.registry import Caption
from ..charts.settings import axis_of, settings_of
from ..charts.style import name_sliders
from ..charts.theme import FONT, GRID, INK, MUTED, SERIES
from ..core.dark import dark_laws, predict_current
from ..stack.pixel import reject_samples


@dataclass(frozen=True)
class Built:
    """A demonstration ready for a page: a Bokeh document, the heading above each root (None: full width)."""

    document: Any
    headings: tuple[str | None, ...]
    caption: Caption


@dataclass(frozen=True)
class Demonstration:
    """A demonstration: `build` makes it from a characterization, None where that lacks what it needs."""

    id: str
    title: str
    heading: str
    build: Callable[[Any], Built | None]


def script(name: str) -> str:
    """Return the JavaScript of a demonstration."""
    return Path(__file__).with_name(f"{name}.js").read_text(encoding="utf-8")


def plot(x_label: str, y_label: str, **options: Any) -> Any:
    """Return an empty figure in the house style."""
    from bokeh.models import LogAxis, NumeralTickFormatter
    from bokeh.plotting import figure

    options = {"height": 360, "sizing_mode": "stretch_width", "tools": "", "min_border_right": 16} | options
    made = figure(x_axis_label=x_label, y_axis_label=y_label, toolbar_location=None, **options)
    for axis in made.select(LogAxis):
        axis.formatter = NumeralTickFormatter(format="0,0.[00]")
    name_sliders(made)
    made.outline_line_color = None
    made.grid.grid_line_color = GRID
    made.axis.axis_label_text_font = made.axis.major_label_text_font = FONT
    made.axis.axis_label_text_font_style = "normal"
    made.axis.minor_tick_line_color = None
    made.axis.axis_line_color = made.axis.major_tick_line_color = MUTED
    return made


def legend(made: Any, location: str) -> None:
    """Put the legend into a corner, in the house style."""
    looks = {"location": location, "border_line_color": None, "background_fill_alpha": 0.85, "spacing": 1, "padding": 6}
    made.legend.update(label_text_font=FONT, label_text_color=INK, **looks)


def readout() -> Any:
    """Return the line of text that describes what is shown."""
    from bokeh.models import Div

    return Div(text="", name="readout", sizing_mode="stretch_width", styles={"font-family": FONT, "font-size": "16px"})


def guide(value: float, **looks: Any) -> Any:
    """Return a dashed level line."""
    from bokeh.models import Span

    looks = {"line_color": MUTED, "line_dash": "dashed", "line_width": 1.6} | looks
    return Span(location=value, dimension="width", **looks)


def _page(controls: list[Any], figures: list[Any], code: str, args: dict[str, Any]) -> Any:
    """Connect every control to a script, which also runs once when the page is ready.

    Parameters
    ----------
    controls
        Bokeh widgets with a name and a ``value``.
    code, args
        The script, and the models and numbers that it knows by name; besides the controls, and the readout as ``said``.

    Returns
    -------
    Document
        Its roots: controls with readout, then the figures.
    """
    from bokeh.document import Document
    from bokeh.layouts import column, row
    from bokeh.models import CustomJS

    said = readout()
    act = CustomJS(args=args | {"said": said}, code=code)
    for control in controls:
        control.js_on_change("value", act)
        control.sizing_mode = "stretch_width"
        control.max_width, control.min_width = 300, 160
    flow = {"flex-wrap": "wrap", "gap": "4px 22px"}
    above = column(row(*controls, styles=flow, sizing_mode="stretch_width"), said, sizing_mode="stretch_width")
    document = Document()
    for root in (above, *figures):
        document.add_root(root)
    document.js_on_event("document_ready", act)
    return document


LEVELS = np.geomspace(8, 13_000, 22)  # mean signal of the simulated flats [ADU]
PIXELS = 20_000  # of each patch
SATURATION = 15_000  # ADU


def photon_transfer(_result: Any = None) -> Built:
    """Build the photon transfer curve with sliders; it simulates its own flats."""
    from bokeh.models import CategoricalSlider, ColumnDataSource, Slider

    rng = np.random.default_rng(7)
    blank = np.ones(LEVELS.size)
    gains = ["0.1", "0.25", "0.5", "1", "2", "4"]
    slope = CategoricalSlider(title="gain, e⁻/ADU", categories=gains, value="1", name="gain")
    noise = Slider(title="read noise, e⁻", start=0.5, end=20, step=0.5, value=3, name="noise")
    spread = Slider(title="pixels differ by (PRNU), %", start=0, end=3, step=0.1, value=0.6, name="prnu")
    columns = dict.fromkeys(("pair", "alone", "gain_pair", "gain_alone"), blank)
    points = ColumnDataSource({"signal": LEVELS} | columns, name="points")
    line = ColumnDataSource({"signal": LEVELS, "variance": blank}, name="line")

    left = plot("signal (ADU)", "variance (ADU²)", x_axis_type="log", y_axis_type="log", y_range=(0.05, 5e5))
    fit = {"color": INK, "line_width": 1.8, "line_dash": "dashed", "legend_label": "fit to pairs"}
    left.line("signal", "variance", source=line, **fit)
    right = plot("signal (ADU)", "gain from this level (e⁻/ADU)", x_axis_type="log", y_range=(0, 1.5))
    truth = guide(1)
    right.add_layout(truth)
    alone = {"size": 8, "marker": "square", "line_color": SERIES[1], "fill_color": None, "line_width": 1.6}
    for figure, prefix, corner in ((left, "", "top_left"), (right, "gain_", "bottom_left")):
        figure.scatter("signal", f"{prefix}alone", source=points, legend_label="one frame", **alone)
        figure.scatter("signal", f"{prefix}pair", source=points, size=7, color=SERIES[0], legend_label="pair")
        legend(figure, corner)

    args = {
        "slope": slope, "noise": noise, "spread": spread, "points": points, "line": line, "truth": truth,
        "gains": right.y_range, "levels": LEVELS.tolist(), "pixels": PIXELS, "saturation": SATURATION,
        "first": rng.standard_normal(LEVELS.size).tolist(), "second": rng.standard_normal(LEVELS.size).tolist(),
    }  # fmt: skip
    return Built(
        _page([slope, noise, spread], [left, right], script("ptc"), args),
        (None, "Variance against mean", "The gain from each light level"),
        Caption(
            "Photon transfer with simulated flats. The variance of the difference of two equal flats grows in "
            "proportion to the light, and its slope is the inverse of the gain; the read noise lifts the left "
            "end. One frame's variance also holds the fixed differences between pixels, which grow with the "
            "square of the light: its gain reads low. Dashed: fit, and the true gain. Simulated data.",
            "Interactive: sliders for gain, read noise and differences between pixels; a log-log chart of variance "
            "against signal, and the gain that each level gives by itself, from a pair and from one frame.",
        ),
    )


COUNTS = (3, 5, 8, 12, 24)  # frames
STRENGTHS = tuple(range(31))  # of the satellite [σ]
METHODS = ("noise", "sigma", "winsorized", "linear-fit", "esd", "mad", "mean")
SKY, SIGMA = 100.0, 10.0  # e-: the true value of the pixel, and the noise of each frame
TOUCHED = 1  # the frame that the satellite crosses


def samples(count: int, strength: float) -> np.ndarray:
    """Return the samples of one pixel [e⁻]: sky with noise, and in one frame a satellite so many σ bright.

    Examples
    --------
    >>> round(float(samples(3, 30)[TOUCHED] - samples(3, 0)[TOUCHED]))
    300
    """
    values = SKY + SIGMA * np.random.default_rng(11).standard_normal(max(COUNTS))[:count]
    values[TOUCHED] += strength * SIGMA
    return values


def decisions(count: int, strength: float, method: str) -> np.ndarray:
    """Return which samples a method rejects, by the stack's own rule with its default thresholds."""
    values = samples(count, strength).astype(np.float32)[:, None, None]
    if method == "mean":
        return np.zeros(count, bool)
    variance = np.full(values.shape, SIGMA**2, np.float32)
    return reject_samples(values, variance, np.zeros_like(values), method)[:, 0, 0] != 0


@cache
def _states() -> dict[str, list[list[int]]]:
    """Return for each method and number of frames the decisions at every strength, a bit for each frame."""
    return {
        f"{method} {count}": [
            int((decisions(count, strength, method) << np.arange(count)).sum()) for strength in STRENGTHS
        ]
        for method in METHODS
        for count in COUNTS
    }


def rejection(_result: Any = None) -> Built:
    """Build the samples of one pixel, kept and rejected; it simulates its own frames."""
    from bokeh.models import CategoricalSlider, ColumnDataSource, Select, Slider

    noises = (samples(max(COUNTS), 0) - SKY) / SIGMA
    frames = CategoricalSlider(title="frames", categories=[str(count) for count in COUNTS], value="5", name="frames")
    strength = Slider(title="satellite, σ", start=0, end=STRENGTHS[-1], step=1, value=12, name="strength")
    method = Select(title="rejection", options=list(METHODS), value="sigma", name="method")
    left, gone = (ColumnDataSource({"frame": [1], "value": [SKY]}, name=name) for name in ("kept", "gone"))
    curve, here = (ColumnDataSource({"strength": [0], "off": [0]}, name=name) for name in ("curve", "here"))

    stack = plot("frame", "value of the pixel (e⁻)", y_range=(60, 300))
    stack.x_range.start, stack.x_range.end = 0, 6
    outcome = guide(SKY, line_color=SERIES[0], line_dash="solid", line_width=2)
    stack.add_layout(guide(SKY))
    stack.add_layout(outcome)
    stack.scatter("frame", "value", source=left, size=10, color=SERIES[0], legend_label="kept")
    cross = {"size": 12, "marker": "x", "line_color": SERIES[1], "line_width": 3}
    stack.scatter("frame", "value", source=gone, legend_label="rejected", **cross)
    legend(stack, "top_right")
    wrong = plot("brightness of the satellite (σ)", "error of the result (σ of one frame)", y_range=(-1.5, 4))
    wrong.add_layout(guide(0))
    wrong.line("strength", "off", source=curve, color=INK, line_width=2)
    wrong.scatter("strength", "off", source=here, size=12, color=SERIES[1])

    args = {
        "frames": frames, "strength": strength, "method": method, "left": left, "gone": gone, "curve": curve,
        "here": here, "outcome": outcome, "across": stack.x_range, "up": stack.y_range, "noises": noises.tolist(),
        "decided": _states(), "strengths": list(STRENGTHS), "sky": SKY, "sigma": SIGMA, "touched": TOUCHED,
    }  # fmt: skip
    return Built(
        _page([method, frames, strength], [stack, wrong], script("rejection"), args),
        (None, "One pixel in every frame", "How far the satellite moves the result"),
        Caption(
            "One pixel of a stack, simulated: sky of 100 e⁻ with a noise of 10 e⁻, and a satellite in one frame. With "
            "few frames no sample can stand out from its own stack's scatter, however bright: three sigma never reject "
            "one of five. The measured noise does from three frames on. The decisions of each method were computed "
            "with the workbench's own stacking rule and its default thresholds. Simulated data.",
            "Interactive: choose the method of rejection, the number of frames and the brightness of a satellite; the "
            "samples kept and rejected, and the error of the result against the satellite's brightness.",
        ),
    )


def stretch(result: Any) -> Built | None:
    """Build the stretch of the folder's own stack, with black point and midtones; None where no light was stacked."""
    from bokeh.models import ColumnDataSource, LinearColorMapper, Slider
    from bokeh.palettes import Greys256

    steps = getattr(getattr(result, "lights", None), "finished", None)
    if steps is None:
        return None
    values = steps["linear"].mean("channel").values
    values = np.where(np.isfinite(values), values, np.nanmedian(values))[::-1]
    bottom, white = (float(np.quantile(values, share)) for share in (0.0005, 0.9995))
    step = (white - bottom) / 65535
    codes = np.clip((values - bottom) / step, 0, 65535).round().astype(np.uint16)
    sky, edge = float(np.median(values)), float(np.quantile(values, 0.5) - np.quantile(values, 0.16))
    start, end = bottom, sky + edge
    black = Slider(title="black point, e⁻", start=start, end=end, step=(end - start) / 100, value=start, name="black")
    middle = Slider(title="midtones", start=0.005, end=0.5, step=0.005, value=0.5, name="midtones", format="0.000")
    linear = ColumnDataSource({"image": [codes]}, name="linear")
    shown = ColumnDataSource({"image": [np.zeros(codes.shape, np.uint8)]}, name="shown")
    after = ColumnDataSource({"left": [0.0], "right": [1.0], "top": [1.0]}, name="after")
    levels = np.linspace(bottom, white, 200)
    curve = ColumnDataSource({"level": levels, "height": levels}, name="curve")

    height, width = codes.shape
    view = plot("", "", x_range=(0, width), y_range=(0, height), aspect_ratio=width / height, height=None)
    view.axis.visible, view.grid.visible = False, False
    grey = LinearColorMapper(palette=Greys256, low=0, high=255)
    view.image("image", source=shown, x=0, y=0, dw=width, dh=height, color_mapper=grey)
    right = plot(
        "brightness shown, black to white", "pixels (the most: 1)", y_range=(0, 1.05), x_range=(0, 1), height=300
    )
    right.quad(left="left", right="right", top="top", bottom=0, source=after, color=SERIES[0])
    law = plot(
        "brightness in the linear picture (e⁻)",
        "brightness shown",
        x_range=(bottom, white),
        y_range=(0, 1.05),
        height=300,
    )
    law.line("level", "height", source=curve, color=INK, line_width=2.4)
    law.add_layout(guide(0.25))
    args = {
        "black": black, "midtones": middle, "linear": linear, "shown": shown, "after": after, "curve": curve,
        "levels": levels.tolist(), "bottom": bottom, "step": step, "white": white, "sky": sky,
    }  # fmt: skip
    source = "Simulated" if result.simulated else "Measured"
    return Built(
        _page([middle, black], [view, law, right], script("stretch"), args),
        (None, "The picture", "The curve", "The histogram of what is shown"),
        Caption(
            "A stack is linear: the sky and the nebula share the lowest few percent of its range with the noise. Lower "
            "the midtones until the sky stands at a tenth to a quarter of white, then raise the black point to just "
            "under the sky, so that almost no pixel is cut off. The curve is the midtone transfer function. "
            f"{source} data: {result.camera}, {steps.attrs['frames']} lights.",
            "Interactive: sliders for midtones and black point; a picture that brightens, the curve that does it, and "
            "the histogram of the result.",
        ),
    )


LENGTHS = np.geomspace(1, 1200, 90)  # of a sub [s]
CELSIUS = np.arange(-20.0, 36.0)  # of the sensor
SKIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)  # e-/s/pixel


def sub_length(result: Any) -> Built | None:
    """Build the sub length from the measured read noise and dark current; None where no read noise is known."""
    from bokeh.models import CategoricalSlider, ColumnDataSource, Select, Slider

    sensor = getattr(result, "sensor", None)
    if sensor is None:
        return None
    axis, noise = axis_of(sensor), sensor["read_noise"].mean("channel").values
    known = np.isfinite(noise) & np.isfinite(settings_of(sensor))
    if not known.any():
        return None
    isos, noises = settings_of(sensor)[known].tolist(), noise[known].tolist()
    laws = dark_laws(sensor, ["doubling"])
    darks = predict_current(laws, CELSIUS)[0] if laws else 0.0 * CELSIUS  # [e-/s/pixel]

    names, setting = [f"{iso:g}" for iso in isos], axis.dim.name
    iso = Select(title=setting, options=names, value="800" if axis.by_iso and 800 in isos else names[-1], name="iso")
    skies = [f"{sky:g}" for sky in SKIES]
    sky = CategoricalSlider(title="sky, e⁻/s per pixel", categories=skies, value="0.5", name="sky")
    penalty = Slider(title="noise allowed to add, %", start=1, end=20, step=0.5, value=5, name="penalty")
    start, end = int(CELSIUS[0]), int(CELSIUS[-1])
    warmth = Slider(title="sensor, °C", start=start, end=end, step=1, value=10, name="warmth", visible=bool(laws))
    curve = ColumnDataSource({"length": LENGTHS, "added": 0 * LENGTHS}, name="curve")
    point = ColumnDataSource({"length": [1.0], "added": [1.0]}, name="point")
    bars = ColumnDataSource({"iso": names, "seconds": noises}, name="bars")

    added = plot("length of a sub (s)", "noise that reading out adds (%)", x_axis_type="log", y_range=(0, 40))
    added.x_range.start, added.x_range.end = LENGTHS[0], LENGTHS[-1]
    added.line("length", "added", source=curve, color=SERIES[0], line_width=2.4, legend_label="added by reading out")
    level = guide(5)
    added.add_layout(level)
    added.scatter("length", "added", source=point, size=12, color=SERIES[1], legend_label="shortest sub")
    legend(added, "top_right")
    lengths = plot(setting, "shortest sub (s)", x_range=names)
    lengths.vbar("iso", top="seconds", source=bars, width=0.6, color=SERIES[0], line_color=INK, line_width=0.5)
    lengths.y_range.start = 0
    lengths.xgrid.grid_line_color = None

    args = {
        "iso": iso, "sky": sky, "penalty": penalty, "warmth": warmth, "curve": curve, "point": point, "bars": bars,
        "level": level, "isos": isos, "names": names, "noises": noises, "darks": darks.tolist(),
        "lengths": LENGTHS.tolist(),
    }  # fmt: skip
    source = "Simulated camera" if result.simulated else "Measured camera"
    return Built(
        _page([iso, sky, penalty, warmth], [added, lengths], script("sub_length"), args),
        (None, "What reading out costs", f"The shortest sub at every {setting}"),
        Caption(
            "How long must a sub be before the sky's shot noise drowns the read noise? t = C·RN²/(sky + dark), "
            f"C = 1/((1+p)² − 1). Move the sliders. {source}: {result.camera}; its read noise and dark current.",
            "Interactive: sliders for sky brightness, allowed noise and sensor temperature; a falling curve of the "
            f"noise that reading out adds against sub length, and bars of the shortest sub at each {setting}.",
        ),
    )


DEMONSTRATIONS = (  # in the order of the blog
    Demonstration("ptc-demo", "Photon transfer, played with", "Gain", photon_transfer),
    Demonstration("rejection-demo", "What goes out of a stack", "Stacking", rejection),
    Demonstration("stretch-demo", "Stretch it yourself", "Post-processing", stretch),
    Demonstration("sub-length-demo", "How long should a sub be? Try it", "Planning", sub_length),
)
