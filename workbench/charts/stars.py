"""Charts of stars: how bright one is over a night."""

from __future__ import annotations

import holoviews as hv
import numpy as np
import xarray as xr

from ..core.values import value_text
from . import theme
from .registry import Caption
from .theme import INK, MUTED, SERIES

HOURS = theme.dimension("time since the first light", "h")
BRIGHTNESS = theme.dimension("brightness relative to the comparison stars", "%")


def light_curve(curve: xr.Dataset, truth: tuple[np.ndarray, np.ndarray] | None = None) -> hv.Layout:
    """Chart a star's brightness over a night with its errors, and below it a comparison star, which should be level.

    Parameters
    ----------
    curve
        From `pipelines.follow_star`.
    truth
        Hours and relative flux of a curve to be drawn, of a simulated star.
    """
    hours, dims = curve["hours"].values.astype(float), (HOURS, BRIGHTNESS)
    value, error, check, check_error = (
        100 * curve[name].values for name in ("relative_flux", "relative_flux_error", "check", "check_error")
    )
    usual = float(np.nanmedian(np.concatenate([error, check_error])))
    known = value[np.isfinite(value)]
    low = min(float(np.percentile(known, 1)), 100.0) - 4 * usual
    shift = low - float(np.nanmax(check)) - 2 * usual  # the comparison star below, clear of the star
    ends = (float(hours.min()) - 0.02 * np.ptp(hours), float(hours.max()) + 0.02 * np.ptp(hours))
    elements = [theme.level(100.0, ends, dims=dims, colour=MUTED, dash="dotted", width=1.2)]
    elements.append(theme.level(100.0 + shift, ends, dims=dims, colour=MUTED, dash="dotted", width=1.2))
    if truth is not None:
        elements.append(theme.line(truth[0], 100 * truth[1], dims=dims, label="truth", colour=INK, width=1.6))
    elements.append(theme.points(hours, value, error, dims=dims, label="the star", colour=SERIES[0], size=6))
    label = f"a comparison star, shifted by {shift:+.1f} %".replace("-", "−")
    look = {"colour": SERIES[1], "marker": "square", "size": 5}
    elements.append(theme.points(hours, check + shift, check_error, dims=dims, label=label, **look))
    bottom, top = float(np.nanmin(check)) + shift - 3 * usual, float(known.max()) + 3 * usual
    room = (bottom, top + 0.22 * (top - bottom))  # the legend on top
    return theme.layout([theme.panel(elements, title="Light curve", legend="top_right", xlim=ends, ylim=room)])


def light_curve_caption(curve: xr.Dataset) -> Caption:
    """Describe a light curve."""
    attrs, count = curve.attrs, int(curve["comparison"].sum())
    error = float(np.nanmedian(curve["relative_flux_error"].values))
    what = "Simulated data" if attrs["simulated"] else "Real data"
    more = (
        f"which includes {100 * attrs['scatter']:.2f} % that the comparison stars scatter beyond their noise"
        if attrs["scatter"]
        else "from the measured noise; the comparison stars scatter no more than that. Scintillation is not predicted"
    )
    text = (
        f"Brightness of a star (x {float(curve['x'][0]):.1f}, y {float(curve['y'][0]):.1f} px of {attrs['reference']}) "
        f"in {curve.sizes['frame']} lights, channel {attrs['channel']}, relative to {count} comparison stars; one of "
        f"these against the others below. Bars: 1σ, typically {value_text(100 * error)} %, {more}. {what}: "
        f"{attrs['camera'] or 'camera not recorded'}."
    )
    return Caption(text, f"Points with error bars over time: the star above, a level comparison star below. {text}")
