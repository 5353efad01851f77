"""Charts of gain and noise: signal to noise, ISO to gain, photon transfer, read noise."""

from __future__ import annotations

from typing import Any, NamedTuple

import holoviews as hv
import numpy as np
import xarray as xr

from ..core.errors import WorkbenchError
from ..core.values import value_text
from .theme import CHANNEL_COLOUR, INK, MUTED, REFERENCE, UNUSED, dimension, layout, line, note, panel, points, ramp

_MOST_CURVES = 8  # ISOs in one photon transfer chart, so that they can be told apart
# The blog's own chart of a Nikon D7000, read off its points (centroids, ± 0.05), in ADU per electron.
BLOG_ADU_PER_ELECTRON = {
    200: 0.94, 400: 1.85, 500: 2.31, 640: 2.93, 800: 3.68, 1000: 4.65, 1250: 6.26, 1600: 7.56,
    2000: 9.82, 2500: 12.24, 3200: 16.48, 4000: 20.62, 5000: 25.79, 6400: 34.07,
}  # fmt: skip
# Bill Claff, photonstophotos.net, "D7000 Read Noise" (2012): optical black, 14-bit ADU.  Beyond ISO 1007 the camera
# scales digitally, which the optical black does not follow, so the published values beyond are not comparable.
CLAFF_READ_NOISE_ADU = {
    100: 1.659, 125: 2.013, 158: 2.400, 200: 2.936, 251: 3.520, 317: 4.391, 400: 5.343, 503: 6.447, 634: 7.717,
    800: 9.717, 1007: 11.134,
}  # fmt: skip
# The same author's chart in electrons.
CLAFF_READ_NOISE_ELECTRONS = {100: 3.1, 200: 2.9, 400: 2.7, 800: 2.5, 1000: 2.45}

ISO = dimension("ISO")
GAIN = dimension("gain", "e⁻/ADU")
INVERSE = dimension("inverse gain", "ADU/e⁻")
SIGNAL_ADU = dimension("signal", "ADU")
VARIANCE = dimension("variance", "ADU²")
READ_ADU = dimension("read noise", "ADU")
READ_ELECTRONS = dimension("read noise", "e⁻")
EXPOSURE = dimension("exposure", "s")
SNR = dimension("signal to noise")
SIGNAL_ELECTRONS = dimension("signal", "e⁻")


def _channels(data: xr.Dataset) -> list[str]:
    return [str(name) for name in np.atleast_1d(data["channel"].values)]


def _iso_ticks(isos) -> list[tuple[float, str]]:
    """Return the full stops within the range, so that labels never touch."""
    stops = [stop for stop in 100 * 2.0 ** np.arange(-2, 12) if min(isos) * 0.99 <= stop <= max(isos) * 1.01]
    return [(stop, f"{stop:g}") for stop in (stops or sorted(set(isos)))]


def _iso_limits(isos) -> tuple[float, float]:
    return float(min(isos)) / 1.25, float(max(isos)) * 1.25


def _around(values: np.ndarray) -> tuple[float, float]:
    """Return logarithmic limits that leave air around all points."""
    known = values[np.isfinite(values) & (values > 0)]
    return float(known.min()) / 1.5, float(known.max()) * 1.5


def _room_for_legend(gain: Any, invert: bool) -> tuple[float, float]:
    """Return limits that keep the legend's corner, the one the line does not cross, free on a narrow screen too."""
    low, high = np.nanmin(gain), np.nanmax(gain)
    return (0.4 / high, 4 / low) if invert else (low / 2.5, high * 4)


def _with_iso(data: xr.Dataset) -> xr.Dataset:
    """Leave out what has no ISO; a chart against ISO needs some."""
    known = np.flatnonzero(np.isfinite(data["iso"].values))
    if not known.size:
        raise WorkbenchError("these frames state no ISO; give it in frames.csv (column iso)")
    return data.isel(iso=known)


def _series(data: xr.Dataset, name: str, channel: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ISO, value and error of one channel where the value is known."""
    one = data.sel(channel=channel)
    value, error = one[name].values, one[f"{name}_error"].values
    good = np.isfinite(value)
    return one["iso"].values[good], value[good], error[good]


def iso_to_gain(gain: xr.Dataset, unity: xr.Dataset | None = None, *, reference: bool = True) -> hv.Layout:
    """Chart the gain against ISO both ways: electrons an ADU, and ADU an electron as the blog's axis has it.

    Parameters
    ----------
    gain
        From `sensor.fit_gain`: ``gain`` [e⁻/ADU] with its error, and ``blog_gain``, over (iso, channel).
    unity
        From `sensor.unity_gain_iso`; its law gain = unity/ISO is drawn and the crossing marked.
    reference
        Overlay the blog's own points (a Nikon D7000).
    """
    gain = _with_iso(gain)
    isos = gain["iso"].values
    shown = [*isos, *BLOG_ADU_PER_ELECTRON] if reference else isos
    edges = np.array(_iso_limits(shown))
    blog_iso, blog = np.array(list(BLOG_ADU_PER_ELECTRON.items())).T
    values = [*gain["gain"].values.ravel(), *(1 / blog if reference else [])]
    panels = []
    for dims, invert in (((ISO, GAIN), False), ((ISO, INVERSE), True)):
        elements: list[Any] = []
        if unity is not None and np.isfinite(float(unity["unity_gain_iso"])):
            elements += _unity(unity, edges, dims, invert)
        if reference:
            elements.append(
                points(
                    blog_iso, blog if invert else 1 / blog, dims=dims, label="the blog's points (D7000)",
                    colour=REFERENCE, marker="diamond", size=9, filled=False,
                )
            )  # fmt: skip
        if "blog_gain" in gain and not invert:
            estimate = gain["blog_gain"].mean("channel", skipna=True)
            good = np.isfinite(estimate.values)
            elements.append(
                points(
                    isos[good],
                    estimate.values[good],
                    dims=dims,
                    label="μ/σ² of one frame",
                    colour=MUTED,
                    marker="cross",
                )
            )
        for channel in _channels(gain):
            iso, value, error = _series(gain, "gain", channel)
            if invert:
                value, error = 1 / value, error / value**2
            elements.append(
                points(
                    iso, value, error, dims=dims, label=channel,
                    colour=CHANNEL_COLOUR[channel], marker=channel, size=7,
                )
            )  # fmt: skip
        panels.append(
            panel(
                elements,
                title="ADU for each electron" if invert else "Electrons for each ADU",
                log="xy",
                xlim=tuple(edges),
                ylim=_room_for_legend(values, invert),
                xticks=_iso_ticks(shown),
                legend="top_left" if invert else "top_right",
            )
        )
    return layout(panels)


def _unity(unity: xr.Dataset, edges: np.ndarray, dims, invert: bool) -> list[Any]:
    iso, error = float(unity["unity_gain_iso"]), float(unity["unity_gain_iso_error"])
    law = edges / iso if invert else iso / edges
    elements: list[Any] = [line(edges, law, dims=dims, label="fit: unity gain ISO / ISO", dash="dashed")]
    if edges[0] < iso < edges[1]:
        elements.append(line([edges[0], iso], [1.0, 1.0], dims=dims, colour=MUTED, dash="dotted", width=1.2))
        elements.append(line([iso, iso], [law.min(), 1.0], dims=dims, colour=MUTED, dash="dotted", width=1.2))
        label = f"unity gain: ISO {value_text(iso, error)}"
        elements.append(points([iso], [1.0], dims=dims, label=label, colour=INK, marker="star", size=15))
    return elements


def ptc(
    ptc: xr.Dataset, gain: xr.Dataset | None = None, *, iso: float | None = None, channel: str | None = None
) -> hv.Layout:
    """Chart the photon transfer curve: the variance of a pair of flats against its signal, log-log.

    Left, every channel at one ISO with the fit var = signal/gain + intercept; right, one channel at every ISO.

    Parameters
    ----------
    ptc
        From `sensor.photon_transfer`: ``signal`` [ADU], ``variance`` [ADU²] and its error over (pair, channel).
    gain
        From `sensor.fit_gain`: the fit, and in ``used`` the pairs that went into it.
    iso, channel
        The ISO on the left (default the lowest) and the channel on the right (default G1, or mono).
    """
    dims = (SIGNAL_ADU, VARIANCE)
    isos = np.unique(ptc["iso"].values)
    iso = float(isos[0] if iso is None else iso)
    names = _channels(ptc)
    channel = channel or ("G1" if "G1" in names else names[0])
    left = [(_curve(ptc, gain, iso, name), name, CHANNEL_COLOUR[name], name) for name in names]
    title = f"{_named(iso)}, every channel" if len(names) > 1 else _named(iso)
    panels = [_transfer_panel(left, dims, title, floor=True)]
    if isos.size > 1:
        places = np.linspace(0, isos.size - 1, min(isos.size, _MOST_CURVES)).round().astype(int)
        right = [
            (_curve(ptc, gain, float(one), channel), _named(one), colour, "circle")
            for one, colour in zip(isos[places], ramp(places.size), strict=True)
        ]
        panels.append(_transfer_panel(right, dims, f"{channel}, every ISO", floor=False))
    return layout(panels)


def _named(iso: float) -> str:
    return f"ISO {iso:g}" if np.isfinite(iso) else "ISO not recorded"


class _Curve(NamedTuple):
    """One photon transfer curve: its points, which of them the fit used, and the fit."""

    signal: np.ndarray
    variance: np.ndarray
    error: np.ndarray
    used: np.ndarray
    slope: float
    floor: float


def _curve(ptc: xr.Dataset, gain: xr.Dataset | None, iso: float, channel: str) -> _Curve:
    pairs = np.flatnonzero(_equal(ptc["iso"].values, iso))
    names = ("signal", "variance", "variance_error")
    signal, variance, error = (_column(ptc[name], channel)[pairs] for name in names)
    good = np.isfinite(signal) & np.isfinite(variance) & (signal > 0) & (variance > 0)
    used, slope, floor = np.ones(good.size, bool), np.nan, np.nan
    if gain is not None:
        used = _column(gain["used"], channel)[pairs].astype(bool)
        for row in np.flatnonzero(_equal(gain["iso"].values, iso)):
            slope = 1 / float(_column(gain["gain"], channel)[row])
            floor = float(_column(gain["intercept"], channel)[row])
    return _Curve(signal[good], variance[good], error[good], used[good], slope, floor)


def _column(values: xr.DataArray, channel: str) -> np.ndarray:
    """Return one channel's values; ten times as fast as `sel`, for curves that follow a control."""
    return values.transpose(..., "channel").values[..., values["channel"].values.tolist().index(channel)]


def _equal(values: np.ndarray, value: float) -> np.ndarray:
    return np.isclose(values.astype(float), float(value), equal_nan=True)


def _transfer_panel(curves: list[tuple[_Curve, str, str, str]], dims, title: str, *, floor: bool) -> hv.Overlay:
    """Draw curves with their names, colours and markers: the fits, what they used and what they left out."""
    elements: list[Any] = []
    for curve, _, colour, _ in curves:
        if np.isfinite(curve.slope) and curve.signal.size:
            along = np.geomspace(curve.signal.min() / 1.5, curve.signal.max() * 1.2, 60)
            law = along * curve.slope + curve.floor
            elements.append(line(along[law > 0], law[law > 0], dims=dims, colour=colour, width=1.3))
    unused = [np.concatenate([part[~curve.used] for curve, *_ in curves for part in [curve[at]]]) for at in (0, 1)]
    if unused[0].size:
        style = {"label": "not used in the fit", "colour": UNUSED, "size": 7, "filled": False}
        elements.append(points(*unused, dims=dims, **style))
    for curve, label, colour, marker in curves:
        kept = [part[curve.used] for part in curve[:3]]
        if kept[0].size:
            elements.append(points(*kept, dims=dims, label=label, colour=colour, marker=marker, size=6))
    floors = [curve.floor for curve, *_ in curves if curve.floor > 0]
    if floor and floors:
        signals = np.concatenate([curve.signal for curve, *_ in curves])
        ends = np.array([signals.min() / 1.5, signals.max()])
        level = np.full(2, np.mean(floors))
        elements.append(line(ends, level, dims=dims, label="floor without light", colour=MUTED, dash="dotted"))
    tops = [float(curve.variance.max()) for curve, *_ in curves if curve.variance.size]
    room = {"ylim": (_lowest(curves, floors if floor else []) / 2, 10 * max(tops))} if tops else {}
    return panel(elements, title=title, log="xy", legend="top_left", **room)


def _lowest(curves, floors: list[float]) -> float:
    return min([float(curve.variance.min()) for curve, *_ in curves if curve.variance.size] + floors)


def read_noise_vs_iso(read_noise: xr.Dataset, gain: xr.Dataset | None = None, *, reference: bool = True) -> hv.Layout:
    """Chart the read noise against ISO, in ADU and, where the gain is known, in electrons.

    Parameters
    ----------
    read_noise
        From `sensor.read_noise`: ``read_noise_adu`` and its error over (iso, channel).
    gain
        From `sensor.fit_gain`, for the electrons; errors of both are combined.
    reference
        Overlay Bill Claff's published values of the Nikon D7000.
    """
    read_noise = _with_iso(read_noise)
    isos = read_noise["iso"].values
    settings = {"log": "xy", "xlim": _iso_limits(isos), "xticks": _iso_ticks(isos)}
    adu: list[Any] = []
    if reference:
        iso, value = np.array(list(CLAFF_READ_NOISE_ADU.items())).T
        inside = (iso >= isos.min() / 1.01) & (iso <= isos.max() * 1.01)
        adu.append(_claff(iso[inside], value[inside], (ISO, READ_ADU)))
    electrons: list[Any] = []
    if reference:
        iso, value = np.array(list(CLAFF_READ_NOISE_ELECTRONS.items())).T
        electrons.append(_claff(iso, value, (ISO, READ_ELECTRONS)))
    for channel in _channels(read_noise):
        style = {"label": channel, "colour": CHANNEL_COLOUR[channel], "marker": channel, "size": 7}
        iso, value, error = _series(read_noise, "read_noise_adu", channel)
        adu.append(points(iso, value, error, dims=(ISO, READ_ADU), **style))
        if gain is None or channel not in _channels(gain):
            continue
        factor = _with_iso(gain).sel(channel=channel).reindex(iso=iso)
        product = value * factor["gain"].values
        spread = np.hypot(error / value, factor["gain_error"].values / factor["gain"].values) * product
        good = np.isfinite(product)
        electrons.append(points(iso[good], product[good], spread[good], dims=(ISO, READ_ELECTRONS), **style))
    panels = [panel(adu, title="Read noise in ADU", legend="top_left", **settings)]
    if gain is not None:
        settings["log"] = "x"
        panels.append(
            panel(
                electrons, title="Read noise in electrons", legend="top_right", ylim=_from_zero(electrons), **settings
            )
        )
    return layout(panels)


def _claff(iso, value, dims) -> hv.Overlay:
    return points(
        iso, value, dims=dims, label="B. Claff (D7000)", colour=REFERENCE, marker="diamond", size=8, filled=False
    )


def _from_zero(elements) -> tuple[float, float]:
    top = max(float(np.max(part.dimension_values(1))) for group in elements for part in group if len(part))
    return 0.0, top * 1.35


def shot_noise_snr(snr: xr.Dataset) -> hv.Layout:
    """Chart the signal-to-noise ratio against exposure and against signal, with what shot noise alone allows.

    Flats at several apertures are charted against exposure/f², to which the light is proportional.

    Parameters
    ----------
    snr
        From `sensor.shot_noise_snr`: ``snr`` and its error, ``snr_expected`` = √N and ``electrons`` over point.
    """
    names = ("exposure", "electrons", "snr", "snr_error", "snr_expected")
    exposure, electrons, measured, error, expected = (snr[name].values for name in names)
    light = EXPOSURE
    if np.unique(snr["aperture"].values[np.isfinite(snr["aperture"].values)]).size > 1:
        exposure, light = exposure / np.square(snr["aperture"].values), dimension("exposure / (f-number)²", "s")
    channel = snr["channel"].values.astype(str)
    present = [name for name in CHANNEL_COLOUR if (channel == name).any()]
    left: list[Any] = []
    right: list[Any] = []
    along = np.geomspace(*_around(electrons), 60)
    right.append(line(along, np.sqrt(along), dims=(SIGNAL_ELECTRONS, SNR), label="√N: shot noise alone", dash="dashed"))
    for name in present:
        style = {"label": name, "colour": CHANNEL_COLOUR[name], "marker": name, "size": 6}
        here = np.flatnonzero((channel == name) & (exposure > 0))
        rate = np.exp(np.mean(np.log(electrons[here] / exposure[here]))) if here.size else np.nan
        if np.isfinite(rate):
            span = np.array(_around(exposure[here]))
            left.append(
                line(span, np.sqrt(rate * span), dims=(light, SNR), colour=style["colour"], dash="dashed", width=1.2)
            )
            left.append(points(exposure[here], measured[here], error[here], dims=(light, SNR), **style))
        here = channel == name
        right.append(points(electrons[here], measured[here], error[here], dims=(SIGNAL_ELECTRONS, SNR), **style))
    panels = []
    if left and np.unique(exposure[exposure > 0]).size > 1:
        left += _quadruple(exposure, expected, (light, SNR))
        panels.append(panel(left, title="SNR against exposure", log="xy", legend="top_left", xlim=_around(exposure)))
    panels.append(
        panel(right, title="SNR against electrons caught", log="xy", legend="top_left", xlim=_around(electrons))
    )
    return layout(panels)


def _quadruple(exposure: np.ndarray, expected: np.ndarray, dims) -> list[Any]:
    """Draw the step: four times to the right is twice up."""
    good = np.isfinite(expected) & (exposure > 0)
    if not good.any() or exposure[good].max() < 4 * exposure[good].min():
        return []
    x = float(np.exp(np.mean(np.log([exposure[good].min(), exposure[good].max()])))) * 2
    y = float(expected[good].min()) * 1.1
    step = line([x, 4 * x, 4 * x], [y, y, 2 * y], dims=dims, colour=MUTED, width=1.4)
    return [
        step,
        note(2 * x, y / 1.05, "exposure × 4", dims=dims, colour=MUTED, align=("center", "top")),
        note(4.3 * x, 1.4 * y, "SNR × 2", dims=dims, colour=MUTED, align=("left", "center")),
    ]
