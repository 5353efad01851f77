"""Charts of the gain: against ISO, the photon transfer curve it is the slope of, from darks alone, and linearity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import holoviews as hv
import numpy as np
import xarray as xr

from ..core.errors import WorkbenchError
from . import theme
from .registry import Caption, at_iso, caption, chart, is_d7000, iso_name, listing, quantity, source, with_reference
from .theme import CHANNEL_COLOUR, INK, ISO, MARKERS, MUTED, REFERENCE, SERIES, UNUSED

FLATS = "two equal flats at several light levels and ISOs"
_MOST_CURVES = 8  # ISOs in one photon transfer chart, so that they can be distinguished
_ABOVE = 3.0  # errors by which a variance must rise above read noise to be shown on a logarithmic axis
# The blog's own chart of a Nikon D7000, read off its points (centroids, ± 0.05), in ADU per electron.
BLOG_ADU_PER_ELECTRON = {
    200: 0.94, 400: 1.85, 500: 2.31, 640: 2.93, 800: 3.68, 1000: 4.65, 1250: 6.26, 1600: 7.56,
    2000: 9.82, 2500: 12.24, 3200: 16.48, 4000: 20.62, 5000: 25.79, 6400: 34.07,
}  # fmt: skip

GAIN, INVERSE = theme.dimension("gain", "e⁻/ADU"), theme.dimension("inverse gain", "ADU/e⁻")
SIGNAL, VARIANCE = theme.dimension("signal", "ADU"), theme.dimension("variance", "ADU²")
DARK_SIGNAL, SHOT_VARIANCE = theme.dimension("dark signal", "ADU"), theme.dimension("variance above read noise", "ADU²")
DEVIATION = theme.dimension("deviation from the line", "%")


def channels(data: xr.Dataset) -> list[str]:
    """Return the names of the channels, of one too."""
    return [str(name) for name in np.atleast_1d(data["channel"].values)]


def with_iso(data: xr.Dataset) -> xr.Dataset:
    """Leave out what has no ISO; a `WorkbenchError` says so if nothing has one."""
    known = np.flatnonzero(np.isfinite(data["iso"].values))
    if not known.size:
        raise WorkbenchError("these frames state no ISO; give it in frames.csv (column iso)")
    return data.isel(iso=known)


def series(data: xr.Dataset, name: str, channel: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ISO, value and error of one channel where the value is known."""
    one = data.sel(channel=channel)
    value, error = one[name].values, one[f"{name}_error"].values
    good = np.isfinite(value)
    return one["iso"].values[good], value[good], error[good]


def cameras_panel(cameras: Mapping[str, Any], name: str, dims, *, inverse: bool = False, **options: Any) -> hv.Overlay:
    """Draw a quantity of several cameras, or one over it, against ISO: the mean of the channels, with its error.

    Each camera, from `open_sensor` or `characterize`, has its name in the legend; one without the quantity is left
    out.  `options` are those of `theme.panel`.
    """
    elements = []
    isos = []
    for number, (camera, saved) in enumerate(cameras.items()):
        sensor = getattr(saved, "sensor", saved)
        if name not in sensor or not np.isfinite(sensor[name].values).any():
            continue
        iso, error = sensor["iso"].values, sensor[f"{name}_error"]
        mean = sensor[name].mean("channel").values
        error = (np.sqrt((error**2).sum("channel")) / sensor[name].count("channel")).values
        value, error = (1 / mean, error / mean**2) if inverse else (mean, error)
        good = np.isfinite(iso) & np.isfinite(value)
        look = {"colour": SERIES[number % len(SERIES)], "marker": MARKERS[number % len(MARKERS)], "joined": 1.2}
        elements.append(theme.points(iso[good], value[good], error[good], dims=dims, label=camera, **look))
        isos += iso[good].tolist()
    if not isos:
        raise WorkbenchError(f"no {name.replace('_', ' ')} is known of {listing(cameras) or 'any camera'}")
    return theme.panel(elements, **theme.iso_axis(isos), **options)


@chart(
    "iso-to-gain", "From ISO to gain", "Gain", needs=("gain",), takes=("gain", "unity"), shoot=FLATS,
    options=with_reference,
)  # fmt: skip
def iso_to_gain(
    gain: xr.Dataset | Mapping[str, Any], unity: xr.Dataset | None = None, *, reference: bool = True
) -> hv.Layout:
    """Chart the gain against ISO both ways: electrons per ADU, and ADU per electron as on the blog's axis.

    Parameters
    ----------
    gain
        From `sensor.fit_gain`: ``gain`` [e⁻/ADU] with its error, and ``blog_gain``, over (iso, channel).  Or several
        cameras by name, each from `open_sensor` or `characterize`; then the means of the channels are drawn.
    unity
        From `sensor.unity_gain_iso`; its law gain = unity/ISO is drawn and the crossing marked.
    reference
        Overlay the blog's own points (a Nikon D7000).
    """
    if not isinstance(gain, xr.Dataset):
        direct = cameras_panel(gain, "gain", (ISO, GAIN), title="Electrons for each ADU", log="xy")
        options = {"title": "ADU for each electron", "log": "xy", "legend": "top_left"}
        return theme.layout([direct, cameras_panel(gain, "gain", (ISO, INVERSE), inverse=True, **options)])
    gain = with_iso(gain)
    axis = theme.iso_axis([*gain["iso"].values, *(BLOG_ADU_PER_ELECTRON if reference else ())])
    return theme.layout([_gain_panel(gain, unity, invert, reference, axis) for invert in (False, True)])


def _gain_panel(gain: xr.Dataset, unity: xr.Dataset | None, invert: bool, reference: bool, axis: dict[str, Any]):
    dims = (ISO, INVERSE if invert else GAIN)
    blog_iso, blog = np.array(list(BLOG_ADU_PER_ELECTRON.items())).T
    values = [*gain["gain"].values.ravel(), *(1 / blog if reference else [])]
    elements = []
    if unity is not None and np.isfinite(float(unity["unity_gain_iso"])):
        elements += _unity(unity, np.array(axis["xlim"]), dims, invert)
    if reference:
        look = {"colour": REFERENCE, "marker": "diamond", "size": 9, "filled": False}
        label = "the blog's points (D7000)"
        elements.append(theme.points(blog_iso, blog if invert else 1 / blog, dims=dims, label=label, **look))
    if "blog_gain" in gain and not invert:
        estimate = gain["blog_gain"].mean("channel", skipna=True)
        look = {"colour": MUTED, "marker": "cross"}
        elements.append(theme.points(gain["iso"].values, estimate.values, dims=dims, label="μ/σ² of one frame", **look))
    for channel in channels(gain):
        iso, value, error = series(gain, "gain", channel)
        if invert:
            value, error = 1 / value, error / value**2
        elements.append(theme.channel_points(channel, iso, value, error, dims=dims))
    low, high = np.nanmin(values), np.nanmax(values)
    # the legend's corner, which the line does not cross, stays free on a narrow screen too
    limits, legend = ((0.4 / high, 4 / low), "top_left") if invert else ((low / 2.5, high * 4), "top_right")
    title = "ADU for each electron" if invert else "Electrons for each ADU"
    return theme.panel(elements, title=title, log="xy", ylim=limits, legend=legend, **axis)


def _unity(unity: xr.Dataset, edges: np.ndarray, dims, invert: bool) -> list[Any]:
    iso = float(unity["unity_gain_iso"])
    law = edges / iso if invert else iso / edges
    elements = [theme.line(edges, law, dims=dims, label="fit: unity gain ISO / ISO", dash="dashed")]
    if edges[0] < iso < edges[1]:
        style = {"dims": dims, "colour": MUTED, "dash": "dotted", "width": 1.2}
        elements += [theme.level(1.0, (edges[0], iso), **style), theme.upright(iso, (law.min(), 1.0), **style)]
        label = f"unity gain: ISO {quantity(unity, 'unity_gain_iso')}"
        elements.append(theme.points([iso], [1.0], dims=dims, label=label, colour=INK, marker="star", size=15))
    return elements


@caption(iso_to_gain)
def _iso_to_gain_caption(result: Any) -> Caption:
    unity = ""
    if result.unity is not None and np.isfinite(float(result.unity["unity_gain_iso"])):
        unity = f"Unity gain, one electron per ADU, is at ISO {quantity(result.unity, 'unity_gain_iso')}. "
    reference = "Gold diamonds: the blog's own chart of another D7000 body. " if is_d7000(result) else ""
    return Caption(
        f"Gain against ISO, from the noise in {result.ptc.sizes['pair']} pairs of equal flats; bars: 1σ. "
        f"{_first_gains(result.gain)}{unity}Grey: μ/σ² of single flats, where fixed differences between pixels count "
        f"as noise, so it reads low. {reference}{source(result)}",
        "Two charts with logarithmic axes. Left: the gain in electrons per ADU falls in inverse proportion to ISO; "
        f"right: its inverse, ADU per electron, rises in proportion. {unity}",
    )


def _first_gains(gain: xr.Dataset) -> str:
    """Write the gains of the lowest ISO that has any."""
    known = gain.isel(iso=np.flatnonzero(np.isfinite(gain["gain"].transpose("iso", "channel").values).any(axis=1)))
    if not known.sizes["iso"]:
        return "No gain could be measured. "
    one = known.isel(iso=0).dropna("channel", subset=["gain"])
    texts = listing(f"{name} {quantity(one.sel(channel=name), 'gain')}" for name in channels(one))
    return f"Gain {at_iso(float(one['iso']))}: {texts} e⁻/ADU. "


@chart("ptc", "The photon transfer curve", "Gain", needs=("ptc", "gain"), shoot=FLATS)
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
    isos = np.unique(ptc["iso"].values)
    iso = float(isos[0] if iso is None else iso)
    names = channels(ptc)
    channel = channel or ("G1" if "G1" in names else names[0])
    left = [_curve(ptc, gain, iso, name, (name, CHANNEL_COLOUR[name], name)) for name in names]
    title = f"{iso_name(iso)}, every channel" if len(names) > 1 else iso_name(iso)
    panels = [_transfer_panel(left, title, floor=True)]
    if isos.size > 1:
        places = np.linspace(0, isos.size - 1, min(isos.size, _MOST_CURVES)).round().astype(int)
        right = [
            _curve(ptc, gain, float(one), channel, (iso_name(one), colour, "circle"))
            for one, colour in zip(isos[places], theme.ramp(places.size), strict=True)
        ]
        panels.append(_transfer_panel(right, f"{channel}, every ISO", floor=False))
    return theme.layout(panels)


class _Curve(NamedTuple):
    """One photon transfer curve: its points, which of them the fit used, the fit, and label, colour and marker."""

    points: tuple[np.ndarray, np.ndarray, np.ndarray]  # signal, variance, its error
    used: np.ndarray
    slope: float
    floor: float
    look: tuple[str, str, str]


def _curve(ptc: xr.Dataset, gain: xr.Dataset | None, iso: float, channel: str, look) -> _Curve:
    pairs = np.flatnonzero(same(ptc["iso"].values, iso))
    signal, variance, error = (_column(ptc[name], channel)[pairs] for name in ("signal", "variance", "variance_error"))
    good = np.isfinite(signal) & np.isfinite(variance) & (signal > 0) & (variance > 0)
    used, slope, floor = np.ones(good.size, bool), np.nan, np.nan
    if gain is not None:
        used = _column(gain["used"], channel)[pairs].astype(bool)
        for row in np.flatnonzero(same(gain["iso"].values, iso)):
            slope = 1 / float(_column(gain["gain"], channel)[row])
            floor = float(_column(gain["intercept"], channel)[row])
    return _Curve((signal[good], variance[good], error[good]), used[good], slope, floor, look)


def _column(values: xr.DataArray, channel: str) -> np.ndarray:
    """Return one channel's values; ten times as fast as `sel`, for curves that follow a control."""
    return values.transpose(..., "channel").values[..., values["channel"].values.tolist().index(channel)]


def same(values: np.ndarray, value: float) -> np.ndarray:
    """Return where settings are equal to one; one that is not known (NaN) equals itself."""
    return np.isclose(np.asarray(values, float), float(value), equal_nan=True)


def _transfer_panel(curves: list[_Curve], title: str, *, floor: bool) -> hv.Overlay:
    """Draw curves: the fits, the points left out and the points used, and the mean floor where it is asked for."""
    dims = (SIGNAL, VARIANCE)
    curves = [curve for curve in curves if curve.used.size]
    fits, used = [], []
    for curve in curves:
        signal, (label, colour, marker) = curve.points[0], curve.look
        if np.isfinite(curve.slope):
            along = np.geomspace(signal.min() / 1.5, signal.max() * 1.2, 60)
            law = along * curve.slope + curve.floor
            fits.append(theme.line(along[law > 0], law[law > 0], dims=dims, colour=colour, width=1.3))
        kept = [part[curve.used] for part in curve.points]
        used.append(theme.points(*kept, dims=dims, label=label, colour=colour, marker=marker, size=6))
    if not curves:
        return theme.panel([], title=title)
    signal, variance = (np.concatenate([curve.points[part] for curve in curves]) for part in (0, 1))
    unused = ~np.concatenate([curve.used for curve in curves])
    look = {"label": "not used in the fit", "colour": UNUSED, "size": 7, "filled": False}
    elements = [*fits, theme.points(signal[unused], variance[unused], dims=dims, **look), *used]
    floors = [curve.floor for curve in curves if floor and curve.floor > 0]
    if floors:
        style = {"label": "floor without light", "colour": MUTED, "dash": "dotted"}
        elements.append(theme.level(float(np.mean(floors)), (signal.min() / 1.5, signal.max()), dims=dims, **style))
    room = (min([float(variance.min()), *floors]) / 2, 10 * float(variance.max()))
    return theme.panel(elements, title=title, log="xy", legend="top_left", ylim=room)


@caption(ptc)
def _ptc_caption(result: Any) -> Caption:
    return Caption(
        "Photon transfer: the variance between two equal flats against their signal. Shot noise makes a straight line "
        "whose slope is the inverse of the gain; at the left end read noise lifts it. "
        f"{result.ptc.sizes['pair']} pairs; bars: 1σ. Open grey points, clipped or too close to saturation, are not "
        f"used in the fit. {_first_gains(result.gain)}{source(result)}",
        "Log-log charts of variance against signal: the points follow straight lines, one for each channel on the "
        "left, one for each ISO on the right, and fall away near saturation.",
    )


@chart(
    "gain-from-darks", "The gain from darks alone", "Gain", needs=("transfer.dark_transfer", "transfer.dark_gain"),
    takes=("transfer.dark_transfer", "transfer.dark_gain", "gain"),
    shoot="three or more darks of ten minutes, and bias frames of their ISO",
)  # fmt: skip
def dark_gain(transfer: xr.Dataset, darks: xr.Dataset, flats: xr.Dataset | None = None) -> hv.Layout:
    """Chart variance against mean of the dark signal, population by population, one panel for each ISO.

    `transfer` and `darks` come from `sensor.dark_transfer` and `sensor.gain_from_darks`; `flats` from
    `sensor.fit_gain`: the line that the flats' gain predicts.
    """
    dims = (DARK_SIGNAL, SHOT_VARIANCE)
    panels = []
    for row, iso in enumerate(darks["iso"].values):
        here = transfer.isel(point=np.flatnonzero(same(transfer["iso"].values, iso)))
        elements = []
        span = []
        for channel in channels(here):
            one = here.sel(channel=channel)
            signal, variance = one["signal"].values, one["variance"].values - one["dark_variance"].values
            error = one["variance"].values * np.sqrt(2 / np.maximum(one["pixels"].sum("block").values, 1))
            good = (signal > 0) & (variance > _ABOVE * error)
            span += signal[good].tolist()
            elements.append(theme.channel_points(channel, signal[good], variance[good], error[good], dims=dims))
        if not span:
            continue
        ends = np.array([min(span) / 2, max(span) * 2])
        gain = float(np.nanmean(darks["gain"].values[row]))
        if np.isfinite(gain):
            elements.append(theme.line(ends, ends / gain, dims=dims, label="gain from darks"))
        for other in np.flatnonzero(same(flats["iso"].values, iso))[:1] if flats is not None else ():
            flat = ends / float(np.nanmean(flats["gain"].values[other]))
            elements.append(theme.line(ends, flat, dims=dims, label="gain from flats", colour=REFERENCE, dash="dashed"))
        title = f"Darks, {iso_name(iso)}"
        panels.append(theme.panel(elements, title=title, log="xy", legend="top_left", xlim=tuple(ends)))
    return theme.layout(panels or [_nothing("Gain from darks", "too little dark current here", dims)])


def _nothing(title: str, words: str, dims: tuple[hv.Dimension, hv.Dimension]) -> hv.Overlay:
    """Return a panel that says why it is empty."""
    return theme.panel(
        [theme.note(0.5, 0.5, words, dims=dims, align=("center", "center"))], title=title, xlim=(0, 1), ylim=(0, 1)
    )


@caption(dark_gain)
def _dark_gain_caption(result: Any) -> Caption:
    darks = result.transfer.dark_gain
    gains = []
    for row, iso in enumerate(darks["iso"].values):
        known = np.flatnonzero(np.isfinite(darks["gain"].values[row]))
        if known.size:
            one = darks.isel(iso=row, channel=known[min(1, known.size - 1)])
            gains.append(f"{quantity(one, 'gain', 'e⁻/ADU')} at {iso_name(float(iso))}")
    agree = ""
    if "agrees" in darks:
        agree = f"Darks over flats: {float(np.nanmean(darks['ratio'].values)):.3f} on average. "
    return Caption(
        "Dark current arrives at random as light does, so darks alone make a photon transfer curve: "
        f"{listing(gains)}. Points: pixels sorted by their dark signal in another frame, hot pixels on the right. "
        f"{agree}{source(result)}",
        "Log-log charts of the variance of darks, with the read noise subtracted, against their signal: the points "
        "follow the line of the gain, ordinary pixels on the left and hot pixels on the right.",
    )


@chart(
    "linearity", "Twice the light, twice the number?", "Gain", needs=("transfer.linearity",),
    shoot="pairs of flats at eight exposures of one ISO and aperture",
)  # fmt: skip
def linearity(linear: xr.Dataset) -> hv.Layout:
    """Chart how far the levels lie from a straight line against their signal, and what the lamp alone makes of it.

    `linear` comes from `sensor.linearity`; the lowest ISO on the left, the highest on the right.
    """
    dims = (SIGNAL, DEVIATION)
    known = linear["iso"].values[np.isfinite(linear["linearity_error"].values).any(axis=1)]
    panels = []
    for iso in dict.fromkeys((known.min(), known.max()) if known.size else ()):
        here = linear.isel(level=np.flatnonzero(same(linear["iso_of_level"].values, iso)))
        row = linear.isel(iso=int(np.flatnonzero(same(linear["iso"].values, iso))[0]))
        signals = here["signal"].values[np.isfinite(here["deviation"].values)]
        ends = np.array([signals.min() / 1.3, signals.max() * 1.3])
        # the errors are those of means of so many levels
        lamp = float(np.nanmax(row["linearity_error_error"] * np.sqrt(row["levels"])))
        elements = [
            theme.band(ends, [-lamp, -lamp], [lamp, lamp], dims=dims, label="the lamp's scatter", colour=MUTED),
            theme.level(0.0, ends, dims=dims, width=1.2),
        ]
        for channel in channels(here):
            one = here.sel(channel=channel)
            elements.append(theme.channel_points(channel, one["signal"].values, one["deviation"].values, dims=dims))
        room = 2.2 * max(float(np.nanmax(np.abs(here["deviation"].values))), lamp)
        scales = {"xlim": tuple(ends), "ylim": (-room, room)}
        panels.append(theme.panel(elements, title=iso_name(float(iso)), log="x", legend="top_left", **scales))
    return theme.layout(panels or [_nothing("Linearity", "too few exposures here", dims)])


@caption(linearity)
def _linearity_caption(result: Any) -> Caption:
    linear = result.transfer.linearity
    error, share = (float(linear[name].mean()) for name in ("linearity_error", "lamp_share"))
    times = "Shutter times are taken as powers of two in thirds of a stop, which the stated ones are rounded from. "
    times = times if linear.attrs["true_times"] else ""
    return Caption(
        "How far the mean of each light level lies from a line through all of them (EMVA 1288, 5 to 95 % of "
        f"saturation). Linearity error {error:.2f} % on average; the lamp's scatter between equal flats alone would "
        f"make {share:.2f} %. {times}{source(result)}",
        "Deviations from a straight line in per cent against the signal, with a band as wide as the lamp's scatter.",
    )
