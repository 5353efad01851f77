"""Charts of the gain: against the setting, the photon transfer curve that gives it, from darks alone, and linearity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import holoviews as hv
import numpy as np
import xarray as xr

from ..core.cube import GREENS, first_green
from ..core.results import same_setting
from ..core.settings import setting_dim
from . import theme
from .registry import Caption, caption, chart, is_d7000, listing, quantity, source, with_reference
from .settings import (
    at_setting,
    axis_of,
    cameras_panel,
    channels,
    series,
    settings_of,
    with_setting,
    words_of,
)  # fmt: skip
from .theme import CHANNEL_COLOUR, INK, MUTED, REFERENCE, UNUSED

FLATS = "two equal flats at several light levels and ISOs"
_MOST_CURVES = 8  # settings in one photon transfer chart, so that they can be distinguished
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


@chart(
    "iso-to-gain", "From ISO to gain", "Gain", needs=("gain",), takes=("gain", "unity"), shoot=FLATS,
    options=with_reference,
)  # fmt: skip
def iso_to_gain(
    gain: xr.Dataset | Mapping[str, Any], unity: xr.Dataset | None = None, *, reference: bool = True
) -> hv.Layout:
    """Chart the gain against the setting both ways: electrons per ADU, and ADU per electron as on the blog's axis.

    Against gain settings, which are proportional to nothing, points alone are drawn, and unity gain is interpolated.

    Parameters
    ----------
    gain
        From `sensor.fit_gain`: ``gain`` [e⁻/ADU] with its error, and ``blog_gain``, over (iso, channel) or
        (gain_setting, channel).  Or several cameras by name, each from `open_sensor` or `characterize`; then the means
        of the channels are drawn.
    unity
        From `sensor.unity_gain_iso`; its law gain = unity/ISO is drawn and the crossing marked.
    reference
        Overlay the blog's own points (a Nikon D7000), which are against ISO.
    """
    if not isinstance(gain, xr.Dataset):
        direct = cameras_panel(gain, "gain", GAIN, title="Electrons for each ADU", log=True)
        options = {"title": "ADU for each electron", "log": True, "legend": "top_left"}
        return theme.layout([direct, cameras_panel(gain, "gain", INVERSE, inverse=True, **options)])
    gain = with_setting(gain)
    reference = reference and setting_dim(gain) == "iso"
    return theme.layout([_gain_panel(gain, unity, invert, reference) for invert in (False, True)])


def _gain_panel(gain: xr.Dataset, unity: xr.Dataset | None, invert: bool, reference: bool) -> hv.Overlay:
    axis = axis_of(gain)
    dims = (axis.dim, INVERSE if invert else GAIN)
    scales = axis.scales([*settings_of(gain), *(BLOG_ADU_PER_ELECTRON if reference else ())])
    blog_iso, blog = np.array(list(BLOG_ADU_PER_ELECTRON.items())).T
    values = [*gain["gain"].values.ravel(), *(1 / blog if reference else [])]
    elements = []
    if unity is not None and np.isfinite(float(unity["unity_gain_iso"])):
        elements += _unity(gain, unity, np.array(scales["xlim"]), dims, invert)
    if reference:
        look = {"colour": REFERENCE, "marker": "diamond", "size": 9, "filled": False}
        label = "the blog's points (D7000)"
        elements.append(theme.points(blog_iso, blog if invert else 1 / blog, dims=dims, label=label, **look))
    if "blog_gain" in gain and not invert:
        estimate = gain["blog_gain"].mean("channel", skipna=True)
        look = {"colour": MUTED, "marker": "cross"}
        elements.append(theme.points(settings_of(gain), estimate.values, dims=dims, label="μ/σ² of one frame", **look))
    for channel in channels(gain):
        setting, value, error = series(gain, "gain", channel)
        if invert:
            value, error = 1 / value, error / value**2
        elements.append(theme.channel_points(channel, setting, value, error, dims=dims))
    low, high = np.nanmin(values), np.nanmax(values)
    # the legend's corner, which the line does not cross, stays free on a narrow screen too
    limits, legend = ((0.4 / high, 4 / low), "top_left") if invert else ((low / 2.5, high * 4), "top_right")
    title = "ADU for each electron" if invert else "Electrons for each ADU"
    return theme.panel(elements, title=title, log=f"{axis.log}y", ylim=limits, legend=legend, **scales)


def _unity(gain: xr.Dataset, unity: xr.Dataset, edges: np.ndarray, dims, invert: bool) -> list[Any]:
    """Mark unity gain, one electron a step of the converter, with the law through it, or the line interpolated in."""
    axis, setting, level = axis_of(gain), float(unity["unity_gain_iso"]), _step(gain) if invert else 1 / _step(gain)
    if axis.by_iso:
        along, law = edges, edges / setting if invert else setting / edges
        label = "fit: unity gain ISO / ISO"
    else:
        greens = gain["gain"].sel(channel=[name for name in channels(gain) if name in GREENS])
        middle = np.exp(np.log(greens).mean("channel")).dropna(axis.name)  # straight in its logarithm
        along, law, label = settings_of(middle), middle.values ** (-1 if invert else 1), "interpolated"
    elements = [theme.line(along, law, dims=dims, label=label, dash="dashed")]
    if edges[0] < setting < edges[1]:
        style = {"dims": dims, "colour": MUTED, "dash": "dotted", "width": 1.2}
        foot = law.min() if axis.by_iso else level / 1e3  # far below the axis
        elements += [theme.level(level, (edges[0], setting), **style), theme.upright(setting, (foot, level), **style)]
        label = f"unity gain: {axis.words('ISO')} {quantity(unity, 'unity_gain_iso')}"
        elements.append(theme.points([setting], [level], dims=dims, label=label, colour=INK, marker="star", size=15))
    return elements


def _step(gain: xr.Dataset) -> float:
    """Return the step of the converter [ADU], more than one where its codes are padded with zeros."""
    return float(gain.attrs.get("step", 1))


@caption(iso_to_gain)
def _iso_to_gain_caption(result: Any) -> Caption:
    axis, step, unity = axis_of(result.gain), _step(result.gain), ""
    if result.unity is not None and np.isfinite(float(result.unity["unity_gain_iso"])):
        adu = "ADU" if step == 1 else f"step of the converter ({step:g} ADU)"
        unity = f"Unity gain, one electron per {adu}, is at {axis.words('ISO')} "
        unity += f"{quantity(result.unity, 'unity_gain_iso')}. "
    reference = "Gold diamonds: the blog's own chart of another D7000 body. " if is_d7000(result) else ""
    seen = (
        "Two charts with logarithmic axes. Left: the gain in electrons per ADU falls in inverse proportion to ISO; "
        "right: its inverse, ADU per electron, rises in proportion. "
        if axis.by_iso
        else "Two charts with logarithmic upright axes. Left: the gain in electrons per ADU at each gain setting; "
        "right: its inverse, ADU per electron. "
    )
    return Caption(
        f"Gain against {axis.words('ISO')}, from the noise in {result.ptc.sizes['pair']} pairs of equal flats; bars: "
        f"1σ. {_first_gains(result.gain)}{unity}Grey: μ/σ² of single flats, where fixed differences between pixels "
        f"count as noise, so it reads low. {reference}{source(result)}",
        f"{seen}{unity}",
    )


def _first_gains(gain: xr.Dataset) -> str:
    """Write the gains of the lowest setting that has any."""
    dim = setting_dim(gain)
    known = gain.isel({dim: np.flatnonzero(np.isfinite(gain["gain"].transpose(dim, "channel").values).any(axis=1))})
    if not known.sizes[dim]:
        return "No gain could be measured. "
    one = known.isel({dim: 0}).dropna("channel", subset=["gain"])
    texts = listing(f"{name} {quantity(one.sel(channel=name), 'gain')}" for name in channels(one))
    return f"Gain {at_setting(one)}: {texts} e⁻/ADU. "


@chart("ptc", "The photon transfer curve", "Gain", needs=("ptc", "gain"), shoot=FLATS)
def ptc(
    ptc: xr.Dataset, gain: xr.Dataset | None = None, *, iso: float | None = None, channel: str | None = None
) -> hv.Layout:
    """Chart the photon transfer curve: the variance of a pair of flats against its signal, log-log.

    Left, every channel at one setting with the fit var = signal/gain + intercept; right, one channel at every setting.

    Parameters
    ----------
    ptc
        From `sensor.photon_transfer`: ``signal`` [ADU], ``variance`` [ADU²] and its error over (pair, channel).
    gain
        From `sensor.fit_gain`: the fit, and in ``used`` the pairs that went into it.
    iso, channel
        The ISO or gain setting on the left (default the lowest) and the channel on the right (default G1, or mono).
    """
    axis, settings = axis_of(ptc), np.unique(settings_of(ptc))
    first = float(settings[0] if iso is None else iso)
    names = channels(ptc)
    channel = channel or (first_green(names))
    left = [_curve(ptc, gain, first, name, (name, CHANNEL_COLOUR[name], name)) for name in names]
    title = words_of({axis.name: first}) + (", every channel" if len(names) > 1 else "")
    panels = [_transfer_panel(left, title, floor=True)]
    if settings.size > 1:
        places = np.linspace(0, settings.size - 1, min(settings.size, _MOST_CURVES)).round().astype(int)
        right = [
            _curve(ptc, gain, float(one), channel, (words_of({axis.name: one}), colour, "circle"))
            for one, colour in zip(settings[places], theme.ramp(places.size), strict=True)
        ]
        panels.append(_transfer_panel(right, f"{channel}, every {axis.words('ISO')}", floor=False))
    return theme.layout(panels)


class _Curve(NamedTuple):
    """One photon transfer curve: its points, which of them the fit used, the fit, and label, colour and marker."""

    points: tuple[np.ndarray, np.ndarray, np.ndarray]  # signal, variance, its error
    used: np.ndarray
    slope: float
    floor: float
    look: tuple[str, str, str]


def _curve(ptc: xr.Dataset, gain: xr.Dataset | None, setting: float, channel: str, look) -> _Curve:
    pairs = np.flatnonzero(same_setting(settings_of(ptc), setting))
    signal, variance, error = (_column(ptc[name], channel)[pairs] for name in ("signal", "variance", "variance_error"))
    good = np.isfinite(signal) & np.isfinite(variance) & (signal > 0) & (variance > 0)
    used, slope, floor = np.ones(good.size, bool), np.nan, np.nan
    if gain is not None:
        used = _column(gain["used"], channel)[pairs].astype(bool)
        for row in np.flatnonzero(same_setting(settings_of(gain), setting)):
            slope = 1 / float(_column(gain["gain"], channel)[row])
            floor = float(_column(gain["intercept"], channel)[row])
    return _Curve((signal[good], variance[good], error[good]), used[good], slope, floor, look)


def _column(values: xr.DataArray, channel: str) -> np.ndarray:
    """Return one channel's values; ten times as fast as `sel`, for curves that follow a control."""
    return values.transpose(..., "channel").values[..., values["channel"].values.tolist().index(channel)]


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
        "left, one for each setting on the right, and fall away near saturation.",
    )


@chart(
    "gain-from-darks", "The gain from darks alone", "Gain", needs=("transfer.dark_transfer", "transfer.dark_gain"),
    takes=("transfer.dark_transfer", "transfer.dark_gain", "gain"),
    shoot="three or more darks of ten minutes, and bias frames of their ISO",
)  # fmt: skip
def dark_gain(transfer: xr.Dataset, darks: xr.Dataset, flats: xr.Dataset | None = None) -> hv.Layout:
    """Chart variance against mean of the dark signal, population by population, one panel for each setting.

    `transfer` and `darks` come from `sensor.dark_transfer` and `sensor.gain_from_darks`; `flats` from
    `sensor.fit_gain`: the line that the flats' gain predicts.
    """
    dims = (DARK_SIGNAL, SHOT_VARIANCE)
    panels = []
    for row, setting in enumerate(settings_of(darks)):
        here = transfer.isel(point=np.flatnonzero(same_setting(settings_of(transfer), setting)))
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
        gain = float(darks["gain"][row].mean())
        if np.isfinite(gain):
            elements.append(theme.line(ends, ends / gain, dims=dims, label="gain from darks"))
        for other in np.flatnonzero(same_setting(settings_of(flats), setting))[:1] if flats is not None else ():
            flat = ends / float(flats["gain"][other].mean())
            elements.append(theme.line(ends, flat, dims=dims, label="gain from flats", colour=REFERENCE, dash="dashed"))
        title = f"Darks, {words_of(darks.isel({setting_dim(darks): row}))}"
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
    for row in range(settings_of(darks).size):
        known = np.flatnonzero(np.isfinite(darks["gain"].values[row]))
        if known.size:
            one = darks.isel({setting_dim(darks): row, "channel": known[min(1, known.size - 1)]})
            gains.append(f"{quantity(one, 'gain', 'e⁻/ADU')} {at_setting(one)}")
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

    `linear` comes from `sensor.linearity`; the lowest setting on the left, the highest on the right.
    """
    dims = (SIGNAL, DEVIATION)
    settings, dim = settings_of(linear), setting_dim(linear)
    known = settings[np.isfinite(linear["linearity_error"].values).any(axis=1)]
    panels = []
    for setting in dict.fromkeys((known.min(), known.max()) if known.size else ()):
        here = linear.isel(level=np.flatnonzero(same_setting(linear["iso_of_level"].values, setting)))
        row = linear.isel({dim: int(np.flatnonzero(same_setting(settings, setting))[0])})
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
        panels.append(theme.panel(elements, title=words_of(row), log="x", legend="top_left", **scales))
    return theme.layout(panels or [_nothing("Linearity", "too few exposures here", dims)])


@caption(linearity)
def _linearity_caption(result: Any) -> Caption:
    linear = result.transfer.linearity
    error, share, scatter = (float(linear[name].mean()) for name in ("linearity_error", "lamp_share", "scatter_share"))
    times = "Shutter times are taken as powers of two in thirds of a stop, which the stated ones are rounded from. "
    times = times if linear.attrs["true_times"] else ""
    return Caption(
        "How far the mean of each light level lies from a line through all of them (EMVA 1288, 5 to 95 % of "
        f"saturation). Linearity error {error:.2f} % on average; the lamp's scatter between equal flats alone would "
        f"make {share:.2f} %, the levels' scatter about a smooth curve {scatter:.2f} %. {times}{source(result)}",
        "Deviations from a straight line in per cent against the signal, with a band as wide as the lamp's scatter.",
    )
