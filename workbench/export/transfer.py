"""The photon transfer curve, with sliders: what gain, read noise and differing pixels do to variance against mean."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..charts.registry import Caption
from ..charts.theme import INK, MUTED, SERIES
from .demonstration import Built, legend, plot, readout, together

LEVELS = np.geomspace(8, 13_000, 22)  # mean signal [ADU]
PIXELS = 20_000  # of each patch
SATURATION = 15_000  # ADU

# A pair's variance is μ/g + (σ_R/g)² + 1/12; one frame's holds (PRNU μ)² as well.  Each scatters by √(2/(N-1)).
# The fit: variance = a + μ/g, weights 1/variance², below 70 % of saturation.
_SCRIPT = """
const gain = Number(slope.value), read = noise.value, prnu = spread.value / 100;
const scatter = Math.sqrt(2 / (pixels - 1));
const pair = [], alone = [];
for (let i = 0; i < levels.length; i++) {
  const true_ = levels[i] / gain + (read / gain) ** 2 + 1 / 12;
  pair.push(true_ * (1 + scatter * first[i]));
  alone.push((true_ + (prnu * levels[i]) ** 2) * (1 + scatter * second[i]));
}
const fit = (variance) => {
  let s = 0, sx = 0, sy = 0, sxx = 0, sxy = 0;
  for (let i = 0; i < levels.length; i++) {
    if (levels[i] > 0.7 * saturation) continue;
    const w = 1 / variance[i] ** 2;
    s += w; sx += w * levels[i]; sy += w * variance[i]; sxx += w * levels[i] ** 2; sxy += w * levels[i] * variance[i];
  }
  const k = (s * sxy - sx * sy) / (s * sxx - sx * sx);
  return {k, offset: (sy - k * sx) / s, error: Math.sqrt(s / (s * sxx - sx * sx)) * scatter};
};
const good = fit(pair), bad = fit(alone);
const floor = (read / gain) ** 2 + 1 / 12;
points.data = {signal: levels, pair, alone, gain_pair: levels.map((m, i) => m / (pair[i] - floor)),
               gain_alone: levels.map((m, i) => m / (alone[i] - floor))};
line.data = {signal: levels, variance: levels.map((m) => good.offset + good.k * m)};
truth.location = gain;
gains.end = 1.5 * gain;
const written = (one) => `${(1 / one.k).toPrecision(4)} ± ${(one.error / one.k ** 2).toPrecision(2)}`;
said.text = `True gain <b>${gain} e⁻/ADU</b>. The line through the pairs gives <b>${written(good)}</b>, `
  + `through single frames ${written(bad)}.`;
"""


def build(_result: Any = None) -> Built:
    """Build the demonstration; it simulates its own flats."""
    from bokeh.models import CategoricalSlider, ColumnDataSource, Slider, Span

    rng = np.random.default_rng(7)
    blank = np.ones(LEVELS.size)
    slope = CategoricalSlider(
        title="gain, e⁻/ADU", categories=["0.1", "0.25", "0.5", "1", "2", "4"], value="1", name="gain"
    )
    noise = Slider(title="read noise, e⁻", start=0.5, end=20, step=0.5, value=3, name="noise")
    spread = Slider(title="pixels differ by (PRNU), %", start=0, end=3, step=0.1, value=0.6, name="prnu")
    points = ColumnDataSource(
        {"signal": LEVELS, "pair": blank, "alone": blank, "gain_pair": blank, "gain_alone": blank}, name="points"
    )
    line = ColumnDataSource({"signal": LEVELS, "variance": blank}, name="line")

    left = plot("signal (ADU)", "variance (ADU²)", x_axis_type="log", y_axis_type="log", y_range=(0.05, 5e5))
    left.line(
        "signal", "variance", source=line, color=INK, line_width=1.8, line_dash="dashed", legend_label="fit to pairs"
    )
    left.scatter("signal", "alone", source=points, size=8, marker="square", line_color=SERIES[1], fill_color=None,
                 line_width=1.6, legend_label="one frame")  # fmt: skip
    left.scatter("signal", "pair", source=points, size=7, color=SERIES[0], legend_label="pair")
    legend(left, "top_left")
    right = plot("signal (ADU)", "gain from this level (e⁻/ADU)", x_axis_type="log", y_range=(0, 1.5))
    truth = Span(location=1, dimension="width", line_color=MUTED, line_dash="dashed", line_width=1.6)
    right.add_layout(truth)
    right.scatter("signal", "gain_alone", source=points, size=8, marker="square", line_color=SERIES[1], fill_color=None,
                  line_width=1.6, legend_label="one frame")  # fmt: skip
    right.scatter("signal", "gain_pair", source=points, size=7, color=SERIES[0], legend_label="pair")
    legend(right, "bottom_left")

    said = readout()
    args = {
        "slope": slope, "noise": noise, "spread": spread, "points": points, "line": line, "truth": truth,
        "gains": right.y_range, "levels": LEVELS.tolist(), "pixels": PIXELS, "saturation": SATURATION,
        "first": rng.standard_normal(LEVELS.size).tolist(), "second": rng.standard_normal(LEVELS.size).tolist(),
    }  # fmt: skip
    document = together([slope, noise, spread], said, [left, right], _SCRIPT, args)
    return Built(
        document,
        (None, "Variance against mean", "The gain from each light level"),
        Caption(
            "Photon transfer with simulated flats. The variance of the difference of two equal flats grows in "
            "proportion to the light, and its slope is the inverse of the gain; the read noise lifts the left "
            "end. One frame's variance also holds the lasting differences between pixels, which grow with the "
            "square of the light: its gain reads low. Dashed: fit, and the true gain. Simulated data.",
            "Interactive: sliders for gain, read noise and differences between pixels; a log-log chart of variance "
            "against signal, and the gain that each level gives by itself, from a pair and from one frame.",
        ),
    )
