"""Whose noise is it, with sliders: light, temperature, ISO and exposure."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from workbench import charts
from workbench.app.live_charts import Moving

from .showing import fit


def noise_budget(sensor: xr.Dataset) -> Any:
    """Choose light, temperature, ISO and exposure: the chart shows which noise rules.

    Parameters
    ----------
    sensor
        From `open_sensor`, or ``characterize(...).sensor``.
    """
    import panel as pn

    known = np.isfinite(sensor["gain"]).any("channel") & np.isfinite(sensor["read_noise"]).any("channel")
    isos = [float(iso) for iso in sensor["iso"].values[known.values]]
    options = {
        "rate": pn.widgets.DiscreteSlider(
            label="sky and target [e⁻/s/pixel]", options=[0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100], value=1
        ),
        "temperature": pn.widgets.IntSlider(label="sensor [°C]", start=-20, end=35, step=1, value=20),
        "prnu": pn.widgets.DiscreteSlider(
            label="differences in response (PRNU)",
            options={"0, the flat is applied": 0.0, "0.3 %": 0.003, "0.6 %": 0.006, "1 %": 0.01},
            value=0.006,
        ),
        "iso": pn.widgets.DiscreteSlider(label="ISO", options=isos, value=isos[len(isos) // 3]),
        "exposure": pn.widgets.DiscreteSlider(
            label="exposure [s]", options=[0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600], value=60
        ),
    }
    rows = list(options.values())
    return pn.Column(
        pn.Row(*rows[:3]),
        pn.Row(*rows[3:]),
        Moving(pn.bind(charts.noise_budget, sensor, **options), fit),
        name="Noise budget",
    )
