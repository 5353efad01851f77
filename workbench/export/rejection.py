"""What rejection throws out of one pixel's stack: every state computed beforehand by the workbench's own verbs."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ..charts.registry import Caption
from ..charts.theme import INK, MUTED, SERIES
from ..stack.combine import reject_samples
from .demonstration import Built, legend, plot, readout, together

COUNTS = (3, 5, 8, 12, 24)  # frames
STRENGTHS = tuple(range(31))  # of the satellite [σ]
METHODS = ("noise", "sigma", "winsorized", "linear-fit", "esd", "mad", "mean")
SKY, SIGMA = 100.0, 10.0  # e-: what every frame should say, and its noise
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
def states() -> dict[str, list[list[int]]]:
    """Return for each method and number of frames the decisions at every strength, a bit for each frame."""
    return {
        f"{method} {count}": [
            int((decisions(count, strength, method) << np.arange(count)).sum()) for strength in STRENGTHS
        ]
        for method in METHODS
        for count in COUNTS
    }


_SCRIPT = """
const count = Number(frames.value), bright = strength.value;
const values = noises.slice(0, count).map((noise, i) => sky + sigma * noise + (i === touched ? bright * sigma : 0));
const mean = (mask, list) => {
  let sum = 0, kept = 0;
  for (let i = 0; i < list.length; i++) if (!(mask >> i & 1)) { sum += list[i]; kept++; }
  return [sum / kept, kept];
};
const mask = decided[method.value + ' ' + count][bright];
const [result, kept] = mean(mask, values);
const numbers = values.map((_, i) => i + 1);
const pick = (wanted) => numbers.filter((_, i) => (mask >> i & 1) === wanted);
left.data = {frame: pick(0), value: pick(0).map((i) => values[i - 1])};
// one more outside of the view: a legend shows the marker of a first point only
gone.data = {frame: [...pick(1), -9], value: [...pick(1).map((i) => values[i - 1]), sky]};
outcome.location = result;
across.end = count + 1;
up.end = Math.max(...values) + 2 * sigma;
const off = strengths.map((one) => {
  const list = noises.slice(0, count).map((noise, i) => sky + sigma * noise + (i === touched ? one * sigma : 0));
  return (mean(decided[method.value + ' ' + count][one], list)[0] - sky) / sigma;
});
curve.data = {strength: strengths, off};
here.data = {strength: [bright], off: [off[bright]]};
const lost = count - kept;
said.text = `<b>${method.value}</b> keeps ${kept} of ${count} frames: ${result.toFixed(1)} e⁻ where ${sky} is true, `
  + `noise of the mean ${(sigma / Math.sqrt(kept)).toFixed(1)}. `
  + (mask >> touched & 1 ? 'The satellite is out' : 'The satellite is in')
  + (lost > (mask >> touched & 1) ? `, and ${lost - (mask >> touched & 1)} good ones with it.` : '.');
"""


def build(_result: Any = None) -> Built:
    """Build the demonstration; it simulates its own frames."""
    from bokeh.models import CategoricalSlider, ColumnDataSource, Select, Slider, Span

    noises = (samples(max(COUNTS), 0) - SKY) / SIGMA
    frames = CategoricalSlider(title="frames", categories=[str(count) for count in COUNTS], value="5", name="frames")
    strength = Slider(title="satellite, σ", start=0, end=STRENGTHS[-1], step=1, value=12, name="strength")
    method = Select(title="rejection", options=list(METHODS), value="sigma", name="method")
    left, gone = (ColumnDataSource({"frame": [1], "value": [SKY]}, name=name) for name in ("kept", "gone"))
    curve = ColumnDataSource({"strength": [0], "off": [0]}, name="curve")
    here = ColumnDataSource({"strength": [0], "off": [0]}, name="here")

    stack = plot("frame", "value of the pixel (e⁻)", y_range=(60, 300))
    stack.x_range.start, stack.x_range.end = 0, 6
    stack.add_layout(Span(location=SKY, dimension="width", line_color=MUTED, line_dash="dashed", line_width=1.6))
    outcome = Span(location=SKY, dimension="width", line_color=SERIES[0], line_width=2)
    stack.add_layout(outcome)
    stack.scatter("frame", "value", source=left, size=10, color=SERIES[0], legend_label="kept")
    stack.scatter("frame", "value", source=gone, size=12, marker="x", line_color=SERIES[1], line_width=3,
                  legend_label="rejected")  # fmt: skip
    legend(stack, "top_right")
    wrong = plot("brightness of the satellite (σ)", "error of the result (σ of one frame)", y_range=(-1.5, 4))
    wrong.add_layout(Span(location=0, dimension="width", line_color=MUTED, line_dash="dashed", line_width=1.6))
    wrong.line("strength", "off", source=curve, color=INK, line_width=2)
    wrong.scatter("strength", "off", source=here, size=12, color=SERIES[1])

    said = readout()
    args = {
        "frames": frames, "strength": strength, "method": method, "left": left, "gone": gone, "curve": curve,
        "here": here, "outcome": outcome, "across": stack.x_range, "up": stack.y_range, "noises": noises.tolist(),
        "decided": states(), "strengths": list(STRENGTHS), "sky": SKY, "sigma": SIGMA, "touched": TOUCHED,
    }  # fmt: skip
    document = together([method, frames, strength], said, [stack, wrong], _SCRIPT, args)
    return Built(
        document,
        (None, "One pixel in every frame", "How far the satellite moves the result"),
        Caption(
            "One pixel of a stack, simulated: sky of 100 e⁻ with a noise of 10 e⁻, and a satellite in one frame. With "
            "few frames no sample can stand out from its own stack's scatter, however bright: three sigma never reject "
            "one of five. The measured noise does from three frames on. What each method decides was computed by the "
            "workbench's own stacking rule, with its default thresholds. Simulated data.",
            "Interactive: choose the method of rejection, the number of frames and the brightness of a satellite; the "
            "samples kept and rejected, and the error of the result against the satellite's brightness.",
        ),
    )
