"""How long a sub-exposure must be: sky, read noise and the noise that one allows, with sliders."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..charts.registry import Caption
from ..charts.theme import INK, MUTED, SERIES
from .demonstration import Built, legend, plot, readout, together

LENGTHS = np.geomspace(1, 1200, 90)  # s
SKIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)  # e-/s/pixel

# t = C RN²/B with C = 1/((1+p)² - 1); what reading adds after t seconds is √(1 + RN²/(B t)) - 1
_SCRIPT = """
const background = Number(sky.value) + (dark > 0 ? dark * Math.pow(2, (warmth.value - reference) / doubling) : 0);
const allowed = penalty.value / 100;
const needs = 1 / ((1 + allowed) * (1 + allowed) - 1);
const which = isos.indexOf(Number(iso.value));
const added = (seconds) => 100 * (Math.sqrt(1 + noises[which] ** 2 / (background * seconds)) - 1);
const shortest = noises.map((noise) => needs * noise * noise / background);
curve.data = {length: lengths, added: lengths.map(added)};
point.data = {length: [shortest[which]], added: [100 * allowed]};
bars.data = {iso: isos.map(String), seconds: shortest};
level.location = 100 * allowed;
const write = (seconds) => seconds < 10 ? seconds.toFixed(1) : seconds.toFixed(0);
said.text = `At ISO ${iso.value} with ${noises[which].toFixed(2)} e⁻ read noise, under a background of `
  + `${Number(background.toPrecision(3))} e⁻/s a pixel: subs of <b>${write(shortest[which])} s</b> or longer. `
  + `Longer ones gain at most ${penalty.value} % more.`;
"""


def build(result: Any) -> Built | None:
    """Build the demonstration from the measured read noise and dark current; None where no read noise is known."""
    from bokeh.models import CategoricalSlider, ColumnDataSource, Select, Slider, Span

    sensor = getattr(result, "sensor", None)
    if sensor is None or not sensor.sizes.get("iso"):
        return None
    noise = sensor["read_noise"].mean("channel").values
    known = np.isfinite(noise) & np.isfinite(sensor["iso"].values)
    if not known.any():
        return None
    isos = [int(iso) for iso in sensor["iso"].values[known]]
    noises = [float(value) for value in noise[known]]
    law = {name: float(sensor[name]) for name in ("dark_current_reference", "reference_temperature",
                                                  "doubling_temperature")}  # fmt: skip
    lawful = all(np.isfinite(value) for value in law.values())
    dark, reference, doubling = law.values() if lawful else (0.0, 0.0, 1.0)

    iso = Select(
        title="ISO", options=[str(one) for one in isos], value=str(800 if 800 in isos else isos[-1]), name="iso"
    )
    sky = CategoricalSlider(
        title="sky, e⁻/s a pixel", categories=[f"{one:g}" for one in SKIES], value="0.5", name="sky"
    )
    penalty = Slider(title="noise allowed to add, %", start=1, end=20, step=0.5, value=5, name="penalty")
    warmth = Slider(title="sensor, °C", start=-20, end=35, step=1, value=10, name="warmth", visible=lawful)
    curve = ColumnDataSource({"length": LENGTHS, "added": 0 * LENGTHS}, name="curve")
    point = ColumnDataSource({"length": [1.0], "added": [1.0]}, name="point")
    bars = ColumnDataSource({"iso": [str(one) for one in isos], "seconds": noises}, name="bars")

    added = plot("length of a sub (s)", "noise that reading out adds (%)", x_axis_type="log", y_range=(0, 40))
    added.x_range.start, added.x_range.end = LENGTHS[0], LENGTHS[-1]
    added.line("length", "added", source=curve, color=SERIES[0], line_width=2.4, legend_label="added by reading out")
    level = Span(location=5, dimension="width", line_color=MUTED, line_dash="dashed", line_width=1.6)
    added.add_layout(level)
    added.scatter("length", "added", source=point, size=12, color=SERIES[1], legend_label="shortest sub")
    legend(added, "top_right")
    lengths = plot("ISO", "shortest sub (s)", x_range=[str(one) for one in isos])
    lengths.vbar("iso", top="seconds", source=bars, width=0.6, color=SERIES[0], line_color=INK, line_width=0.5)
    lengths.y_range.start = 0
    lengths.xgrid.grid_line_color = None

    said = readout()
    args = {
        "iso": iso, "sky": sky, "penalty": penalty, "warmth": warmth, "curve": curve, "point": point, "bars": bars,
        "level": level, "isos": isos, "noises": noises, "dark": dark, "reference": reference, "doubling": doubling,
        "lengths": LENGTHS.tolist(),
    }  # fmt: skip
    document = together([iso, sky, penalty, warmth], said, [added, lengths], _SCRIPT, args)
    source = "Simulated camera" if result.simulated else "Measured camera"
    return Built(
        document,
        (None, "What reading out costs", "The shortest sub at every ISO"),
        Caption(
            "How long must a sub be before the sky's shot noise drowns the read noise? t = C·RN²/(sky + dark), "
            f"C = 1/((1+p)² − 1). Move the sliders. {source}: {result.camera}; its read noise and dark current.",
            "Interactive: sliders for sky brightness, allowed noise and sensor temperature; a falling curve of the "
            "noise that reading out adds against sub length, and bars of the shortest sub at each ISO.",
        ),
    )
