"""Charts of noise: signal to noise, read noise by setting and of each pixel, and the dynamic range that it leaves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from ..core.cube import GREENS
from ..core.settings import setting_dim
from ..core.values import value_text
from . import theme
from .gain import FLATS
from .registry import Caption, caption, chart, is_d7000, listing, mean_quantity, quantity, source, with_reference
from .settings import SettingAxis, axis_of, cameras_panel, channels, ends_text, series, settings_of, with_setting
from .theme import CHANNEL_COLOUR, EXPOSURE, INK, ISO, MUTED, REFERENCE

# Bill Claff, photonstophotos.net, "D7000 Read Noise" (2012): optical black, 14-bit ADU.  Beyond ISO 1007 the camera
# scales digitally, which the optical black does not follow, so the published values beyond are not comparable.
CLAFF_READ_NOISE_ADU = {
    100: 1.659, 125: 2.013, 158: 2.400, 200: 2.936, 251: 3.520, 317: 4.391, 400: 5.343, 503: 6.447, 634: 7.717,
    800: 9.717, 1007: 11.134,
}  # fmt: skip
# The same author's chart in electrons.
CLAFF_READ_NOISE_ELECTRONS = {100: 3.1, 200: 2.9, 400: 2.7, 800: 2.5, 1000: 2.45}

_ONE_LAMP = math.log(1.1)  # light of two settings that differs by less is that of one lamp
SNR = theme.dimension("signal to noise")
SIGNAL = theme.dimension("signal", "e⁻")
READ_ADU, READ_ELECTRONS = theme.dimension("read noise", "ADU"), theme.dimension("read noise", "e⁻")
EXCESS = theme.dimension("read noise above its floor", "%")
STOPS, FULL_WELL = theme.dimension("dynamic range", "stops"), theme.dimension("full well", "e⁻")
PIXEL_NOISE, PIXELS = theme.dimension("read noise of a pixel", "ADU"), theme.dimension("pixels")


def _around(values: np.ndarray) -> tuple[float, float]:
    """Return logarithmic limits that leave air around all points."""
    known = values[np.isfinite(values) & (values > 0)]
    return float(known.min()) / 1.5, float(known.max()) * 1.5


@chart(
    "shot-noise-snr", "Four times the exposure, twice the signal to noise", "Shot noise", needs=("snr",), shoot=FLATS
)
def shot_noise_snr(snr: xr.Dataset) -> hv.Layout:
    """Chart the signal-to-noise ratio against exposure and against signal, with what shot noise alone allows.

    Flats at several apertures are charted against exposure/f², to which the light is proportional.

    `snr` comes from `sensor.shot_noise_snr`: ``snr`` and its error, ``snr_expected`` = √N and ``electrons`` over point.
    """
    names = ("exposure", "electrons", "snr", "snr_error", "snr_expected")
    exposure, electrons, measured, error, expected = (snr[name].values for name in names)
    light = EXPOSURE
    if _apertures(snr).size > 1:
        exposure, light = exposure / np.square(snr["aperture"].values), theme.dimension("exposure / (f-number)²", "s")
    channel, settings = snr["channel"].values.astype(str), settings_of(snr)
    along = np.geomspace(*_around(electrons), 60)
    dims, over_time = (SIGNAL, SNR), (light, SNR)
    left = []
    right = [theme.line(along, np.sqrt(along), dims=dims, label="√N: shot noise alone", dash="dashed")]
    for name in (name for name in CHANNEL_COLOUR if (channel == name).any()):
        timed, here = np.flatnonzero((channel == name) & (exposure > 0)), channel == name
        for rate, some in _rates(electrons[timed], exposure[timed], settings[timed]):
            span, look = np.array(_around(exposure[timed[some]])), {"colour": CHANNEL_COLOUR[name], "dash": "dashed"}
            left.append(theme.line(span, np.sqrt(rate * span), dims=over_time, width=1.2, **look))
        if timed.size:
            x, y, bars = exposure[timed], measured[timed], error[timed]
            left.append(theme.channel_points(name, x, y, bars, dims=over_time, size=6))
        right.append(theme.channel_points(name, electrons[here], measured[here], error[here], dims=dims, size=6))
    options = {"log": "xy", "legend": "top_left"}
    panels = []
    if left and np.unique(exposure[exposure > 0]).size > 1:
        left += _quadruple(exposure, expected, over_time)
        panels.append(theme.panel(left, title="SNR against exposure", xlim=_around(exposure), **options))
    panels.append(theme.panel(right, title="SNR against electrons caught", xlim=_around(electrons), **options))
    return theme.layout(panels)


def _rates(electrons: np.ndarray, exposure: np.ndarray, settings: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """Return the light [e⁻/s] of the flats of each setting, and which they are; one for all where the lamp was one."""
    rate = np.log(electrons / exposure)
    groups = [np.flatnonzero((settings == one) | (np.isnan(one) & np.isnan(settings))) for one in np.unique(settings)]
    means = [float(np.mean(rate[some])) for some in groups]
    if len(means) > 1 and np.ptp(means) < _ONE_LAMP:
        groups, means = [np.arange(len(rate))], [float(np.mean(rate))]
    return [(math.exp(mean), some) for mean, some in zip(means, groups, strict=True) if math.isfinite(mean)]


def _apertures(snr: xr.Dataset) -> np.ndarray:
    return np.unique(snr["aperture"].values[np.isfinite(snr["aperture"].values)])


def _quadruple(exposure: np.ndarray, expected: np.ndarray, dims) -> list[Any]:
    """Draw the step: four times to the right is twice up."""
    good = np.isfinite(expected) & (exposure > 0)
    if not good.any() or exposure[good].max() < 4 * exposure[good].min():
        return []
    x = 2 * float(np.sqrt(exposure[good].min() * exposure[good].max()))
    y = 1.1 * float(expected[good].min())
    style = {"dims": dims, "colour": MUTED}
    return [
        theme.line([x, 4 * x, 4 * x], [y, y, 2 * y], width=1.4, **style),
        theme.note(2 * x, y / 1.05, "exposure × 4", align=("center", "top"), **style),
        theme.note(4.3 * x, 1.4 * y, "SNR × 2", align=("left", "center"), **style),
    ]


@caption(shot_noise_snr)
def _shot_noise_snr_caption(result: Any) -> Caption:
    ratio = result.snr["snr"].values / result.snr["snr_expected"].values
    several = _apertures(result.snr).size > 1
    light = "Exposure is divided by the square of the f-number, as these flats are of several. " if several else ""
    return Caption(
        "Signal-to-noise ratio of pairs of flats, where shot noise dominates: it grows as the square root of the "
        "electrons caught, so four times the exposure doubles it. Dashed: √N. Measured over expected, median of "
        f"{np.isfinite(ratio).sum()} points: {np.nanmedian(ratio):.3f}; read noise pulls the faintest below the line. "
        f"{light}Bars: 1σ. {source(result)}",
        "Log-log charts: the measured signal-to-noise ratio follows the square root of the number of electrons.",
    )


def _in_electrons(read: xr.Dataset, gain: xr.Dataset, channel: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return setting, read noise in electrons and its error, from that of both factors, of one channel."""
    setting, value, error = series(read, "read_noise_adu", channel)
    factor = with_setting(gain).sel(channel=channel).reindex({setting_dim(read): setting})
    noise = value * factor["gain"].values
    return setting, noise, noise * np.hypot(error / value, factor["gain_error"].values / factor["gain"].values)


@chart(
    "read-noise-vs-iso", "Read noise against ISO", "Read noise", needs=("read_noise",), takes=("read_noise", "gain"),
    shoot="two or more bias frames at each ISO", options=with_reference,
)  # fmt: skip
def read_noise_vs_iso(
    read_noise: xr.Dataset | Mapping[str, Any], gain: xr.Dataset | None = None, *, reference: bool = True
) -> hv.Layout:
    """Chart the read noise against the setting, in ADU and, where the gain is known, in electrons.

    Parameters
    ----------
    read_noise
        From `sensor.read_noise`: ``read_noise_adu`` and its error over (iso, channel) or (gain_setting, channel).  Or
        several cameras by name, each from `open_sensor` or `characterize`; then the means of the channels in electrons
        are drawn.
    gain
        From `sensor.fit_gain`, for the electrons; errors of both are combined.
    reference
        Overlay Bill Claff's published values of the Nikon D7000.
    """
    if not isinstance(read_noise, xr.Dataset):
        return theme.layout([cameras_panel(read_noise, "read_noise", READ_ELECTRONS, title="Read noise")])
    read_noise = with_setting(read_noise)
    axis, isos = axis_of(read_noise), settings_of(read_noise)
    scales = axis.scales(isos)
    adu, electrons = [], []
    if reference and axis.by_iso:
        published = {iso: value for iso, value in CLAFF_READ_NOISE_ADU.items() if iso / isos.min() > 0.99}
        adu.append(_claff({iso: value for iso, value in published.items() if iso < 1.01 * isos.max()}, READ_ADU))
        electrons.append(_claff(CLAFF_READ_NOISE_ELECTRONS, READ_ELECTRONS))
    for channel in channels(read_noise):
        measured = series(read_noise, "read_noise_adu", channel)
        adu.append(theme.channel_points(channel, *measured, dims=(axis.dim, READ_ADU)))
        if gain is not None and channel in channels(gain):
            measured = _in_electrons(read_noise, gain, channel)
            electrons.append(theme.channel_points(channel, *measured, dims=(axis.dim, READ_ELECTRONS)))
    panels = [theme.panel(adu, title="Read noise in ADU", log=f"{axis.log}y", legend="top_left", **scales)]
    if gain is not None:
        top = max(float(np.max(part.dimension_values(1))) for group in electrons for part in group)
        scales |= {"ylim": (0.0, 1.35 * top)}
        panels.append(theme.panel(electrons, title="Read noise in electrons", log=axis.log, **scales))
    return theme.layout(panels)


def _claff(published: dict[int, float], value: hv.Dimension) -> hv.Overlay:
    look = {"colour": REFERENCE, "marker": "diamond", "size": 8, "filled": False}
    return theme.points(list(published), list(published.values()), dims=(ISO, value), label="B. Claff (D7000)", **look)


@caption(read_noise_vs_iso)
def _read_noise_vs_iso_caption(result: Any) -> Caption:
    read = result.read_noise
    frames = np.unique(read["frames"].values)
    count = f"{frames[0]}" if frames.size == 1 else f"{frames[0]} to {frames[-1]}"
    text = ends_text(read["read_noise_adu"].mean("channel"), lambda value: f"{value_text(value)} ADU")
    text = f"{text}. " if text else ""
    if result.gain is not None:
        electrons = ends_text((read["read_noise_adu"] * result.gain["gain"]).mean("channel"), value_text)
        text += f"In electrons: {electrons}. " if electrons else ""
    reference = "Gold diamonds: Bill Claff's published D7000, up to ISO 1007, where its analogue gain ends. "
    reference = reference if is_d7000(result) else ""
    how = "the differences of bias pairs"
    if "method" in read and (read["method"] == "clipped").any():
        how = "bias frames that the camera clipped at zero, by the likelihood of the pixels above"
    setting = axis_of(read).words("ISO")
    return Caption(
        f"Read noise from {how}, {count} frames at each {setting}; bars: 1σ. Mean of the channels: "
        f"{text}{reference}{source(result)}",
        f"Read noise against {setting}: in ADU it grows with {setting}, in electrons it falls gently and levels off.",
    )


@chart(
    "read-noise-split", "Read noise before and after the gain", "Read noise",
    needs=("transfer.split", "read_noise", "gain"), shoot="bias frames and pairs of flats at three ISOs or more",
)  # fmt: skip
def read_noise_split(split: xr.Dataset, read: xr.Dataset, gain: xr.Dataset) -> hv.Layout:
    """Chart read noise in electrons against the setting with its two parts, and what a higher one could still take off.

    `split` comes from `sensor.split_read_noise`; `read` and `gain` from `sensor.read_noise` and `sensor.fit_gain`, from
    which it was made.
    """
    gain = with_setting(gain)
    axis, scales = axis_of(gain), axis_of(gain).scales(settings_of(gain))
    dims, above = (axis.dim, READ_ELECTRONS), (axis.dim, EXCESS)
    before, after = (float(split[name]) for name in ("before_gain", "after_gain"))
    left, right = [], []
    if np.isfinite(before):
        along = axis.along(settings_of(gain))
        tail = np.nan_to_num(after) * _gain_along(gain, along)
        whole = np.hypot(before, tail)
        floor = np.full(along.size, before)
        left.append(theme.line(along, floor, dims=dims, label="before the gain", colour=MUTED, dash="dashed"))
        left.append(theme.line(along, tail, dims=dims, label="after the gain, in electrons", colour=REFERENCE))
        left.append(theme.line(along, whole, dims=dims, label="both together"))
        right.append(theme.line(along, 100 * (whole / before - 1), dims=above, label="both together"))
    top = 0.1
    for channel in channels(gain):
        setting, noise, error = _in_electrons(read, gain, channel)
        left.append(theme.channel_points(channel, setting, noise, error, dims=dims))
        excess = 100 * (noise / before - 1), 100 * error / before
        right.append(theme.channel_points(channel, setting, *excess, dims=above))
        top = max(top, float(np.nanmax(noise, initial=0.0)))
    few = axis.words("Read noise: too few ISOs to separate its sources")
    title = "Two sources of read noise" if np.isfinite(before) else few
    panels = [theme.panel(left, title=title, log=axis.log, ylim=(0.0, 1.5 * top), **scales)]
    if np.isfinite(before):
        right += _limit(split, scales["xlim"], axis)
        title = axis.words("What a higher ISO can still take off")
        panels.append(theme.panel(right, title=title, log=axis.log, **scales))
    return theme.layout(panels)


def _gain_along(gain: xr.Dataset, along: np.ndarray) -> np.ndarray:
    """Return the greens' gain at any ISO, in proportion beyond the measured ones, or between measured gain settings."""
    settings = settings_of(gain)
    greens = [name for name in channels(gain) if name in GREENS]
    values = gain["gain"].sel(channel=greens).mean("channel").values
    good = np.isfinite(values) & (values > 0)
    if not axis_of(gain).by_iso:
        return np.exp(np.interp(along, settings[good], np.log(values[good])))
    # gain times ISO is nearly the same everywhere
    return np.interp(np.log(along), np.log(settings[good]), (values * settings)[good]) / along


def _limit(split: xr.Dataset, ends: tuple[float, float], axis: SettingAxis) -> list[Any]:
    """Return the level from which nothing is gained, and the setting that reaches it."""
    within, setting, dims = 100 * split.attrs["within"], float(split["invariance_iso"]), (axis.dim, EXCESS)
    drawn = [theme.level(within, ends, dims=dims, colour=MUTED, dash="dotted", width=1.2)]
    if ends[0] < setting < ends[1]:
        label = f"{axis.words('ISO')} {quantity(split, 'invariance_iso')}"
        look = {"colour": INK, "marker": "star", "size": 15}
        drawn.append(theme.points([setting], [within], dims=dims, label=label, **look))
    return drawn


@caption(read_noise_split)
def _read_noise_split_caption(result: Any) -> Caption:
    split, words = result.transfer.split, axis_of(result.gain).words
    where, within = quantity(split, "invariance_iso"), f"{100 * split.attrs['within']:.0f} %"
    reached = words(f"From ISO {where} on (star) the whole is within {within} of that floor. ")
    reached = reached if where[0].isdigit() else ""
    return Caption(
        f"Read noise before the gain, {quantity(split, 'before_gain', 'e⁻')}, is present at every "
        f"{words('ISO')}; that after it, "
        f"{quantity(split, 'after_gain', 'ADU')}, counts less the more the signal is amplified first. {reached}A "
        f"higher setting takes off less than that and costs dynamic range. {source(result)}",
        f"Left: read noise in electrons falls with {words('ISO')} towards a constant floor; a dashed line is the part "
        "before the gain, a falling line the part after it. Right: how far each lies above that floor, in per cent.",
    )


@chart(
    "dynamic-range", "Dynamic range and full well against ISO", "Gain",
    needs=("transfer.dynamic_range", "transfer.wells"), shoot="bias frames, and flats up to saturation, at each ISO",
)  # fmt: skip
def dynamic_range(ranges: xr.Dataset | Mapping[str, Any], wells: xr.Dataset | None = None) -> hv.Layout:
    """Chart dynamic range and full well against the setting.

    `ranges` and `wells` come from `sensor.dynamic_range` and `sensor.full_well`. Or several cameras by name, each from
    `open_sensor` or `characterize`; then the means of the channels are drawn.
    """
    panels = []
    for data, key, value, title, log in (
        (ranges, "dynamic_range", STOPS, "Dynamic range", False),
        (ranges if wells is None else wells, "full_well", FULL_WELL, "Full well", True),
    ):
        if not isinstance(data, xr.Dataset):
            panels.append(cameras_panel(data, key, value, title=title, log=log))
            continue
        data = with_setting(data)
        axis = axis_of(data)
        measured = {channel: series(data, key, channel) for channel in channels(data)}
        elements = [theme.channel_points(name, *known, dims=(axis.dim, value)) for name, known in measured.items()]
        top = max(
            (
                float(np.max(known + np.where(np.isfinite(error), error, 0), initial=0.0))
                for _, known, error in measured.values()
            ),
            default=0.0,
        )
        scales = axis.scales(settings_of(data)) | ({"ylim": (0.0, 1.15 * top)} if not log and top else {})
        panels.append(theme.panel(elements, title=title, log=axis.log + ("y" if log else ""), **scales))
    return theme.layout(panels)


@caption(dynamic_range)
def _dynamic_range_caption(result: Any) -> Caption:
    ranges, wells = result.transfer.dynamic_range, result.transfer.wells
    ends = ends_text(ranges["dynamic_range"].mean("channel"), lambda value: f"{value:.2f} stops")
    stated = "The end of the scale is measured on saturated flats. "
    if set(wells["method"].values.ravel().tolist()) - {""} == {"bound"}:
        stated = (
            "No flat here is saturated: open marks are lower bounds, from the brightest part of the brightest "
            "flat; a pair several times overexposed shows the end of the scale. "
        )
    unknown = [name for name in channels(wells) if not wells["full_well"].sel(channel=name).notnull().any()]
    if unknown:
        verb = "is" if len(unknown) == 1 else "are"
        stated += f"{listing(unknown)} {verb} not shown: no flat is bright enough there. "
    seen = "by one stop for each doubling at high ISO; the full well halves with each doubling."
    seen = seen if axis_of(ranges).by_iso else "faster at high gain settings; the full well falls with the gain."
    return Caption(
        f"Left: full well over read noise, in factors of two; right: the electrons at which a pixel saturates. "
        f"{ends}. {stated}{source(result)}",
        f"Two charts against {axis_of(ranges).words('ISO')}: the dynamic range falls slowly at first and {seen}",
    )


@chart(
    "pixel-noise", "The read noise of every pixel", "Read noise", needs=("pixel_noise",), asked=True,
    shoot="ten or more bias frames of one ISO",
)  # fmt: skip
def pixel_noise(distribution: xr.Dataset) -> hv.Layout:
    """Chart how many pixels have which read noise and how many chance would give, on linear and logarithmic axes.

    `distribution` comes from `sensor.noise_distribution`; all its channels together.
    """
    middle, dims = distribution["bin"].values, (PIXEL_NOISE, PIXELS)
    count, chance = (distribution[name].sum("channel").values for name in ("count", "expected"))
    threshold = float(distribution["threshold"].mean())
    rare = {"label": f"beyond: {distribution.attrs['rare']:.1%} by chance", "colour": MUTED, "dash": "dotted"}
    panels = []
    for log, low, title in (("", 0.0, "Every pixel's own read noise"), ("y", 0.5, "The tail: pixels that flicker")):
        top = 1.6 * max(count.max(), chance.max()) * (6 if log else 1)
        # zero has no place on a logarithmic axis
        heights, base = (np.maximum(count, low), low) if log else (count, None)
        kept = chance > 0.05 if log else np.ones(chance.size, bool)
        elements = [
            theme.steps(theme.bin_edges(middle), heights, dims=dims, label="pixels", base=base),
            theme.line(middle[kept], chance[kept], dims=dims, label="chance alone", colour=REFERENCE),
            theme.upright(threshold, (max(low, 1e-9), top / 3), dims=dims, **rare),
        ]
        panels.append(theme.panel(elements, title=title, log=log, ylim=(low, top)))
    return theme.layout(panels)


@caption(pixel_noise)
def _pixel_noise_caption(result: Any) -> Caption:
    found = result.pixel_noise
    return Caption(
        f"The standard deviation of every pixel over {found.attrs['frames']} bias frames. Equal pixels would differ by "
        f"chance as the line shows; {mean_quantity(found, 'tail_share', '%', 100)} of the pixels more than that lie "
        "beyond the dotted line. Random telegraph noise, a transistor that switches between two levels, makes such a "
        f"tail. {source(result)}",
        "A histogram of the pixels' read noise with the curve that chance gives, on a linear and on a logarithmic "
        "scale; pixels that flicker stand to the right of the curve.",
    )
