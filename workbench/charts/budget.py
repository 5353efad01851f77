"""Whose noise is it?  The variance of a light frame's pixel, shared out among its sources."""

from __future__ import annotations

import math
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from ..core.noise import noise_budget as budget_of
from .theme import KIND_COLOUR, UNUSED, dimension, layout, line, panel, styled
from .words import Words, degrees, source

EXPOSURE = dimension("exposure", "s")
ISO = dimension("ISO")
SHARE = dimension("share of the variance", "%")
SHADES = {
    "light": KIND_COLOUR["light"],
    "dark current": KIND_COLOUR["dark"],
    "read noise": KIND_COLOUR["bias"],
    "response": KIND_COLOUR["flat"],
    "rounding": UNUSED,
}
RATE = 1.0  # e⁻/s: what a moderately dark sky gives a pixel of 5 µm behind an f/5 telescope, within a factor of three
SHOWN = (200.0, 60.0)  # ISO (the nearest measured one) and seconds


def noise_budget(
    sensor: xr.Dataset,
    *,
    rate: float = RATE,
    temperature: float = 20.0,
    prnu: float = 0.006,
    iso: float = SHOWN[0],
    exposure: float = SHOWN[1],
) -> hv.Layout:
    """Chart the share of each source in a pixel's variance: against exposure at one ISO, against ISO at one exposure.

    Parameters
    ----------
    sensor
        From `open_sensor`, or ``characterize(...).sensor``.
    rate
        Light of sky and target [e⁻/s/pixel].
    temperature
        Of the sensor [°C].
    prnu
        Differences in response as a fraction; 0 shows frames whose flat has been applied.
    iso, exposure
        What the left and the right panel show; of the ISOs the nearest measured one.
    """
    times = np.geomspace(0.1, 1000, 81)
    over_time = budget_of(sensor, rate=rate, exposure=times, temperature=temperature, prnu=prnu)
    iso = _nearest(over_time["iso"].values, iso)
    over_iso = budget_of(sensor, rate=rate, exposure=[exposure], temperature=temperature, prnu=prnu)
    left = panel(
        [*_stacked(times, over_time["share"].sel(iso=iso), EXPOSURE), _mark(exposure, EXPOSURE)],
        title=f"At ISO {iso:g}", log="x", legend="bottom_right", xlim=(times[0], times[-1]), ylim=(0, 100),
    )  # fmt: skip
    isos = over_iso["iso"].values
    if isos.size < 2:
        return layout([left])
    right = panel(
        [*_stacked(isos, over_iso["share"].isel(exposure=0), ISO), _mark(iso, ISO)],
        title=f"In {exposure:g} s", log="x", legend=None, xlim=(isos.min(), isos.max()), ylim=(0, 100),
        xticks=[(float(one), f"{one:g}") for one in isos],
    )  # fmt: skip
    return layout([left, right])


def _nearest(values: np.ndarray, wanted: float) -> float:
    return float(values[np.argmin(np.abs(np.log(values / wanted)))])


def _stacked(x: np.ndarray, share: xr.DataArray, dim: hv.Dimension) -> list[hv.Area]:
    """Areas on top of each other, in the order of the sources; what never reaches a thousandth is left out."""
    top = 100 * share.transpose("source", ...).values.cumsum(axis=0)
    upper = hv.Dimension("up to", unit="%")
    areas = []
    for number, name in enumerate(share["source"].values):
        if float(share.isel(source=number).max()) < 1e-3:
            continue
        below = top[number - 1] if number else np.zeros_like(top[0])
        areas.append(
            styled(
                hv.Area((x, below, top[number]), dim, [SHARE, upper], label=str(name)),
                {"fill_color": SHADES[str(name)], "fill_alpha": 0.8, "line_color": "white", "line_width": 1},
                {
                    "facecolor": SHADES[str(name)],
                    "color": SHADES[str(name)],
                    "alpha": 0.8,
                    "edgecolor": "white",
                    "show_legend": True,
                },
            )
        )
    return areas


def _mark(x: float, dim: hv.Dimension) -> hv.Curve:
    return line([x, x], [0, 100], dims=(dim, SHARE), dash="dotted", width=1.4)


def noise_budget_words(result: Any) -> Words:
    """Describe the noise budget of a characterization."""
    sensor = result.sensor
    one = budget_of(sensor, rate=RATE, exposure=[SHOWN[1]], prnu=0.006)
    iso = _nearest(one["iso"].values, SHOWN[0])
    shares = one["share"].sel(iso=iso).isel(exposure=0)
    told = ", ".join(
        f"{name} {100 * float(value):.0f} %"
        for name, value in zip(shares["source"].values, shares.values, strict=True)
        if value >= 0.005
    )
    variance = one["variance"].sel(iso=iso).isel(exposure=0)
    total = math.sqrt(float(variance.sum()))
    return Words(
        f"Whose noise it is in a pixel that catches {RATE:g} e⁻/s of sky and target (assumed) with the sensor at "
        f"{degrees(one.attrs['temperature'])}, from the measured gain, read noise and dark current: in {SHOWN[1]:g} s "
        f"at ISO {iso:g} {told}; all together {total:.1f} e⁻ rms. Read noise rules short exposures, light the long "
        "ones, and on a warm sensor the dark current takes its part. Response (PRNU, 0.6 % assumed) is what a flat "
        f"takes away. {source(result)}",
        "Two stacked charts of shares of the variance. Left, against exposure time: read noise fills the short "
        "exposures and gives way to light and dark current. Right, against ISO: the share of read noise shrinks.",
    )
