"""Charts of photon transfer: the gain of darks alone, and linearity."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from ..core.values import value_text
from .gain import SIGNAL_ADU, _channels, _named
from .theme import CHANNEL_COLOUR, INK, MUTED, REFERENCE, band, dimension, layout, line, note, panel, points
from .words import Words, listing, source

SHOT_VARIANCE = dimension("variance above read noise", "ADU²")
DARK_SIGNAL = dimension("dark signal", "ADU")
DEVIATION = dimension("deviation from the line", "%")
_ABOVE = 3.0  # errors of the variance by which a point has to rise above read noise for a place on a logarithmic axis


def dark_gain(transfer: xr.Dataset, darks: xr.Dataset, flats: xr.Dataset | None = None) -> hv.Layout:
    """Chart variance against mean of the dark signal, population by population, one panel an ISO.

    Parameters
    ----------
    transfer, darks
        From `sensor.dark_transfer` and `sensor.gain_from_darks`.
    flats
        From `sensor.fit_gain`: the line that the flats' gain predicts.
    """
    panels = []
    for iso in darks["iso"].values:
        here = transfer.isel(point=np.flatnonzero(_same(transfer["iso"].values, iso)))
        elements: list[Any] = []
        span: list[float] = []
        for channel in _channels(here):
            one = here.sel(channel=channel)
            signal, variance = one["signal"].values, one["variance"].values - one["dark_variance"].values
            pixels = one["pixels"].sum("block").values
            error = one["variance"].values * np.sqrt(2 / np.maximum(pixels, 1))
            good = (signal > 0) & (variance > _ABOVE * error)
            span += signal[good].tolist()
            style = {"label": channel, "colour": CHANNEL_COLOUR[channel], "marker": channel, "size": 7}
            elements.append(
                points(signal[good], variance[good], error[good], dims=(DARK_SIGNAL, SHOT_VARIANCE), **style)
            )
        if not span:
            continue
        ends = np.array([min(span) / 2, max(span) * 2])
        row = int(np.flatnonzero(_same(darks["iso"].values, iso))[0])
        gain = float(np.nanmean(darks["gain"].values[row]))
        if np.isfinite(gain):
            elements.append(line(ends, ends / gain, dims=(DARK_SIGNAL, SHOT_VARIANCE), label="gain from darks"))
        if flats is not None and _same(flats["iso"].values, iso).any():
            other = float(np.nanmean(flats["gain"].values[np.flatnonzero(_same(flats["iso"].values, iso))[0]]))
            elements.append(
                line(
                    ends,
                    ends / other,
                    dims=(DARK_SIGNAL, SHOT_VARIANCE),
                    label="gain from flats",
                    colour=REFERENCE,
                    dash="dashed",
                )
            )
        panels.append(panel(elements, title=f"Darks, {_named(iso)}", log="xy", legend="top_left", xlim=tuple(ends)))
    return layout(panels or [_nothing("Gain from darks", "too little dark current here", (DARK_SIGNAL, SHOT_VARIANCE))])


def dark_gain_words(result: Any) -> Words:
    """Describe the chart of the gain from darks."""
    darks = result.transfer.dark_gain
    told = []
    for row, iso in enumerate(darks["iso"].values):
        known = np.flatnonzero(np.isfinite(darks["gain"].values[row]))
        if known.size:
            one = darks.isel(iso=row, channel=known[min(1, known.size - 1)])
            told.append(f"{value_text(float(one['gain']), float(one['gain_error']), 'e⁻/ADU')} at {_named(float(iso))}")
    agree = ""
    if "agrees" in darks:
        ratio = float(np.nanmean(darks["ratio"].values))
        agree = f"Darks over flats: {ratio:.3f} on average. "
    return Words(
        "Dark current arrives at random as light does, so that darks alone make a photon transfer curve: "
        f"{listing(told)}. Points: pixels sorted by their dark signal in another frame, hot pixels to the right. "
        f"{agree}{source(result)}",
        "Log-log charts of the variance of darks, read noise taken off, against their signal: points follow the line "
        "of the gain, ordinary pixels at the left and hot pixels at the right.",
    )


def linearity(linear: xr.Dataset) -> hv.Layout:
    """Chart the deviation of the levels from a straight line against their signal, with what the lamp alone makes.

    Parameters
    ----------
    linear
        From `sensor.linearity`; the lowest ISO on the left, the highest on the right.
    """
    known = linear["iso"].values[np.isfinite(linear["linearity_error"].values).any(axis=1)]
    panels = []
    for iso in dict.fromkeys((known.min(), known.max()) if known.size else ()):
        here = linear.isel(level=np.flatnonzero(_same(linear["iso_of_level"].values, iso)))
        row = linear.isel(iso=int(np.flatnonzero(_same(linear["iso"].values, iso))[0]))
        elements: list[Any] = []
        signals = here["signal"].values[np.isfinite(here["deviation"].values)]
        ends = np.array([signals.min() / 1.3, signals.max() * 1.3])
        # mean |δ| of a normal distribution is 0.8 σ
        lamp = float(np.nanmax(row["linearity_error_error"] * np.sqrt(row["levels"])))
        dims = (SIGNAL_ADU, DEVIATION)
        elements.append(band(ends, [-lamp, -lamp], [lamp, lamp], dims=dims, label="the lamp's scatter", colour=MUTED))
        elements.append(line(ends, [0.0, 0.0], dims=dims, colour=INK, width=1.2))
        for channel in _channels(here):
            one = here.sel(channel=channel)
            style = {"label": channel, "colour": CHANNEL_COLOUR[channel], "marker": channel, "size": 7}
            elements.append(points(one["signal"].values, one["deviation"].values, dims=dims, **style))
        most = float(np.nanmax(np.abs(here["deviation"].values)))
        room = 2.2 * max(most, lamp)
        panels.append(
            panel(elements, title=_named(float(iso)), log="x", legend="top_left", xlim=tuple(ends), ylim=(-room, room))
        )
    return layout(panels or [_nothing("Linearity", "too few exposures here", (SIGNAL_ADU, DEVIATION))])


def linearity_words(result: Any) -> Words:
    """Describe the linearity chart."""
    linear = result.transfer.linearity
    error, share = (float(linear[name].mean()) for name in ("linearity_error", "lamp_share"))
    times = (
        "Shutter times are taken as powers of two in thirds, which the stated ones are rounded from. "
        if linear.attrs["true_times"]
        else ""
    )
    return Words(
        f"How far the mean of each light level lies from a line through all (EMVA 1288, 5 to 95 % of saturation). "
        f"Linearity error {error:.2f} % on average; the lamp's scatter between equal flats alone would make "
        f"{share:.2f} %. {times}{source(result)}",
        "Deviations from a straight line in per cent against the signal, with a band as wide as the lamp's scatter.",
    )


def _nothing(title: str, words: str, dims: tuple[hv.Dimension, hv.Dimension]) -> hv.Overlay:
    """Return a panel that says why it is empty."""
    return panel([note(0.5, 0.5, words, dims=dims, align=("center", "center"))], title=title, xlim=(0, 1), ylim=(0, 1))


def _same(values: np.ndarray, value: float) -> np.ndarray:
    return np.isclose(np.asarray(values, float), float(value), equal_nan=True)
