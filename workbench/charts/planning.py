"""Charts of the plan: whose noise it is, what sub length costs, and for how long the mount holds."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd
import xarray as xr

from ..core.errors import WorkbenchError
from ..core.noise import noise_budget
from ..core.values import temperature_text, value_text
from . import theme
from .registry import Caption, caption, chart, listing, quantity, source
from .settings import SettingAxis, axis_of, settings_of, words_of
from .theme import EXPOSURE, KIND_COLOUR, MUTED, UNUSED

SHARE = theme.dimension("share of the variance", "%")
LENGTH, ADDED = theme.dimension("length of a sub", "s"), theme.dimension("noise added by reading out", "%")
NEEDED = theme.dimension("sub needed", "s")
TOGETHER = theme.dimension("exposure of all lights", "h")
STRETCH = theme.dimension("longest over shortest axis of the stars")
SHADES = {
    "light": KIND_COLOUR["light"], "dark current": KIND_COLOUR["dark"], "read noise": KIND_COLOUR["bias"],
    "response": KIND_COLOUR["flat"], "rounding": UNUSED,
}  # fmt: skip
RATE = 1.0  # e⁻/s: what a moderately dark sky gives a pixel of 5 µm behind an f/5 telescope, within a factor of three
SHOWN = (200.0, 60.0)  # ISO (the nearest measured one) and seconds
PRNU = 0.006
_LIGHT = KIND_COLOUR["light"]


@chart(
    "noise-budget", "Whose noise is it?", "Dark noise, read noise and shot noise together",
    needs=("gain", "read_noise", "dark_current"), takes=("sensor",),
    shoot="bias frames and pairs of flats of the same ISOs, and darks of several exposure times at two "
    "temperatures",
)  # fmt: skip
def noise_budget_chart(
    sensor: xr.Dataset, *, rate: float = RATE, temperature: float = 20.0, prnu: float = PRNU, iso: float | None = None,
    exposure: float = SHOWN[1],
) -> hv.Layout:  # fmt: skip
    """Chart the share of each source in a pixel's variance: against exposure at one setting, and against the setting.

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
        What the left and the right panel show; of the ISOs, or gain settings, the nearest measured one.  By default
        ISO 200, or the lowest gain setting, and a minute.
    """
    times = np.geomspace(0.1, 1000, 81)
    over_time, over_iso = (
        noise_budget(sensor, rate=rate, exposure=seconds, temperature=temperature, prnu=prnu)["share"]
        for seconds in (times, [exposure])
    )
    axis, settings = axis_of(over_time), settings_of(over_time)
    chosen = over_time.isel({axis.name: _nearest(axis, settings, iso)})
    dims, scales = (EXPOSURE, SHARE), {"xlim": (times[0], times[-1]), "ylim": (0, 100)}
    mark = theme.upright(exposure, (0, 100), dims=dims, dash="dotted", width=1.4)
    stacked = [*_stacked(times, chosen, dims), mark]
    panels = [theme.panel(stacked, title=f"At {words_of(chosen)}", log="x", legend="bottom_right", **scales)]
    if settings.size > 1:
        dims, scales = (axis.dim, SHARE), {"xlim": (settings.min(), settings.max()), "ylim": (0, 100)}
        mark = theme.upright(float(chosen[axis.name]), (0, 100), dims=dims, dash="dotted", width=1.4)
        stacked = [*_stacked(settings, over_iso.isel(exposure=0), dims), mark]
        title, ticks = f"In {exposure:g} s", [(float(one), f"{one:g}") for one in settings]
        panels.append(theme.panel(stacked, title=title, log=axis.log, legend=None, xticks=ticks, **scales))
    return theme.layout(panels)


def _nearest(axis: SettingAxis, settings: np.ndarray, wanted: float | None) -> int:
    """Return the place of the measured setting that is nearest to the one wanted, of ISOs in proportion."""
    if axis.by_iso:
        return int(np.argmin(np.abs(np.log(settings / (SHOWN[0] if wanted is None else wanted)))))
    return int(np.argmin(np.abs(settings - (settings.min() if wanted is None else wanted))))


def _stacked(x: np.ndarray, share: xr.DataArray, dims: tuple[hv.Dimension, hv.Dimension]) -> list[hv.Area]:
    """Stack areas in the order of the sources; what never reaches a hundred thousandth is left out."""
    top = 100 * share.transpose("source", ...).values.cumsum(axis=0)
    below = np.concatenate([np.zeros_like(top[:1]), top[:-1]])
    return [
        theme.band(x, below[number], top[number], dims=dims, label=name, colour=SHADES[name], stacked=True)
        for number, name in enumerate(share["source"].values.astype(str))
        if float(share.isel(source=number).max()) >= 1e-3
    ]


@caption(noise_budget_chart)
def _noise_budget_caption(result: Any) -> Caption:
    budget = noise_budget(result.sensor, rate=RATE, exposure=[SHOWN[1]], prnu=PRNU)
    axis = axis_of(budget)
    one = budget.isel({axis.name: _nearest(axis, settings_of(budget), None), "exposure": 0})
    shares = ", ".join(
        f"{name} {100 * float(share):.0f} %"
        for name, share in zip(one["source"].values, one["share"].values, strict=True)
        if share >= 0.005
    )
    return Caption(
        f"Whose noise it is in a pixel that catches {RATE:g} e⁻/s of sky and target (assumed) with the sensor at "
        f"{temperature_text(budget.attrs['temperature'])}, from the measured gain, read noise and dark current: in "
        f"{SHOWN[1]:g} s at {words_of(one)} {shares}; all together {float(np.sqrt(one['variance'].sum())):.1f} e⁻ rms. "
        "Read noise dominates short exposures, light the long ones, and on a warm sensor dark current takes its share. "
        f"Response (PRNU, {100 * PRNU:.1f} % assumed) is what a flat removes. {source(result)}",
        "Two stacked charts of shares of the variance. Left, against exposure time: read noise fills the short "
        f"exposures and gives way to light and dark current. Right, against {axis.words('ISO')}: the share of read "
        "noise shrinks.",
    )


@chart(
    "sub-length", "How long should a sub be?", "Planning", needs=("subs",), asked=True,
    shoot="a light of a minute or more, with bias frames and pairs of flats of its ISO",
)  # fmt: skip
def sub_length(subs: xr.Dataset) -> hv.Layout:
    """Chart how much noise short subs add, a curve for each setting, and the length that each setting needs.

    `subs` comes from `plan.plan_subs`; the curves are of the channel that needs the longest subs.
    """
    attrs, axis, dims = subs.attrs, axis_of(subs), (LENGTH, ADDED)
    allowed, limit, best = 100 * float(attrs["asked"]), float(attrs["longest"]), float(attrs["best_iso"])
    low = float(max(1.0, 0.1 * np.nanmin(subs["needed"].values)))
    high = float(max(2 * limit if attrs["longest_known"] else 600.0, 3 * np.nanmax(subs["length"].values)))
    ceiling = max(4 * allowed, 20.0)
    shown = (subs["time"].values >= low) & (subs["time"].values <= high)
    elements = []
    for setting, colour in zip(settings_of(subs), theme.ramp(subs.sizes[axis.name]), strict=True):
        one = subs.sel({axis.name: setting})
        curve = 100 * one["curve"].isel(channel=int(np.nanargmax(one["needed"].values))).values[shown]
        style = {"label": words_of(one), "colour": colour, "width": 2.8 if setting == best else 1.5}
        elements.append(theme.line(subs["time"].values[shown], curve, dims=dims, **style))
    elements.append(theme.level(allowed, (low, high), dims=dims, label=f"{allowed:g} % allowed", dash="dashed"))
    if low < limit < high:
        name = "the mount's limit" if attrs["longest_known"] else "longest"
        elements.append(theme.upright(limit, (0, ceiling), dims=dims, label=name, colour=MUTED, dash="dotted"))
    plan = [float(attrs["best_length"])], [100 * float(subs["penalty"].sel({axis.name: best}))]
    elements.append(theme.points(*plan, dims=dims, label="the plan", colour=_LIGHT, marker="star", size=15))
    scales = {"xlim": (low, high), "ylim": (0, ceiling)}
    return theme.layout([theme.panel(elements, title="Short subs cost noise", log="x", **scales), _needed(subs, limit)])


def _needed(subs: xr.Dataset, limit: float) -> hv.Overlay:
    """Chart the sub length that each setting needs in its darkest colour."""
    axis, settings = axis_of(subs), settings_of(subs)
    dims, longest = (axis.dim, NEEDED), (np.arange(settings.size), np.nanargmax(subs["needed"].values, axis=1))
    needed, error = subs["needed"].values[longest], subs["needed_error"].values[longest]
    elements = [theme.points(settings, needed, error, dims=dims, label="needed", colour=_LIGHT, size=9)]
    top = 1.3 * float(np.nanmax(needed + np.nan_to_num(error)))
    edges = axis.scales(settings)["xlim"]
    if subs.attrs["longest_known"] and 1.3 * limit < 3 * top:
        elements.append(theme.level(limit, edges, dims=dims, label="the mount's limit", colour=MUTED, dash="dotted"))
        top = max(top, 1.3 * limit)
    for setting, length, stops in zip(settings, needed, subs["dynamic_range"].values, strict=True):
        if np.isfinite(stops):
            style = {"align": ("center", "bottom"), "size": 10}
            elements.append(theme.note(setting, length + 0.04 * top, f"{stops:.1f}", dims=dims, **style))
    scales = {"xlim": edges, "ylim": (0, top), "xticks": [(float(one), f"{one:g}") for one in settings]}
    title = axis.words("Subs that each ISO needs, and stops of range")
    return theme.panel(elements, title=title, log=axis.log, **scales)


@caption(sub_length)
def _sub_length_caption(result: Any) -> Caption:
    attrs, back = result.subs.attrs, result.background
    best = value_text(attrs["best_length"], attrs["best_length_error"], "s")
    rates = listing(f"{name} {quantity(back.sel(channel=name), 'rate')}" for name in back["channel"].values)
    limit = f"The lights allow subs of up to {attrs['longest']:.0f} s. " if attrs["longest_known"] else ""
    words = axis_of(result.subs).words
    kept = "" if attrs["met"] else words("No ISO meets it within that limit. ")
    chosen = words(f"Best: ISO {attrs['best_iso']:g}, subs of {best}. ")
    return Caption(
        "Left: how much noisier a stack of subs is than one endless exposure, √(1 + RN²/(B t)) − 1, in the colour that "
        f"needs the longest subs. Dashed: the {100 * attrs['asked']:g} % allowed. Right: the sub that each "
        f"{words('ISO')} needs for it, bars of 1σ, and the stops between noise and saturation in it. {chosen}"
        f"{kept}{limit}Sky and dark current, measured in the lights: {rates} e⁻/s/pixel. {source(result)}",
        f"Curves that fall with the length of the subs, and points for each {words('ISO')}. {chosen}".strip(),
    )


@chart(
    "star-elongation", "How long can the mount hold?", "Planning", needs=("shapes", "tracking"), asked=True,
    shoot="lights of several exposures",
)  # fmt: skip
def star_elongation(shapes: xr.Dataset, track: xr.Dataset) -> hv.Layout:
    """Chart how star images draw out with the exposure, the law fitted, and the longest sub it allows.

    `shapes` and `track` come from `plan.star_shapes` and `plan.tracking`.
    """
    dims = (EXPOSURE, STRETCH)
    good = np.isfinite(shapes["elongation"].values)
    time, stretch, plus, cross = (
        shapes[name].values[good] for name in ("exposure", "elongation", "plus_error", "cross_error")
    )
    short, longest, drift, uncertain = (float(track[name]) for name in ("short", "longest", "drift", "drift_error"))
    error = np.hypot(plus, cross) / (2 * short * np.maximum(stretch, 1))
    end = 1.3 * max(float(time.max()), longest if longest < 3000 else 0.0)
    along = np.linspace(0, end, 120)
    start, slope = track["law"].values

    def law(rate: float) -> np.ndarray:
        """Return the elongation of a drift of that rate, in the direction of the one fitted."""
        steeper = (rate / drift) ** 2 if drift > 0 else 0.0
        vector = start[:, None] + steeper * slope[:, None] * along**2
        return np.sqrt(1 + np.hypot(*vector) / short)

    low, high = law(max(drift - uncertain, 0)), law(drift + uncertain)
    wanted, dotted = float(track.attrs["elongation"]), {"colour": MUTED, "dash": "dotted"}
    elements = [
        theme.band(along, low, high, dims=dims, label="68 % band", colour=_LIGHT),
        theme.line(along, law(drift), dims=dims, label=f"drift of {quantity(track, 'drift')} px/s", dash="dashed"),
        theme.level(wanted, (0, end), dims=dims, label="still good enough", **dotted),
        theme.points(time, stretch, error, dims=dims, label="lights", colour=_LIGHT),
    ]
    scales = {"xlim": (0, end), "ylim": (0.98, max(1.1 * wanted, 1.05 * float(stretch.max())))}
    return theme.layout([theme.panel(elements, title="Stars draw out", legend="top_left", **scales)])


@caption(star_elongation)
def _star_elongation_caption(result: Any) -> Caption:
    track = result.tracking
    several = track.attrs["several_exposures"]
    bounded = several and not track.attrs["limit"]
    longest = quantity(track, "longest", "s") if bounded else f"at least {float(track['longest']):.0f} s"
    text = (
        f"Stars keep an elongation below {track.attrs['elongation']:g} for {longest}; the mount drifts by "
        f"{quantity(track, 'drift')} pixels per second."
    )
    one = "" if several else " All lights have the same exposure, so their whole elongation counts."
    return Caption(
        f"Elongation of the stars, common to all of a frame, against exposure; bars: 1σ. {text}{one} {source(result)}",
        f"Points that rise with the exposure along a curve. {text}",
    )


def noise_so_far(lights: pd.DataFrame) -> hv.Layout:
    """Chart the noise of a growing stack against its exposure, and 1/√t on from there to twice as long.

    `lights` is the table ``lights.csv`` of `pipelines.watch_folder`, whose ``units`` are those of the noise.

    Raises
    ------
    WorkbenchError
        If no light was added.
    """
    added = lights[lights["used"]]
    if added.empty:
        raise WorkbenchError("no light has been added to the stack yet")
    hours = added["total_exposure"].to_numpy() / 3600
    ahead = np.geomspace(hours[-1], 2 * hours[-1], 20)
    ends = float(0.9 * hours[0]), float(2.2 * hours[-1])
    unit = {"electron": "e⁻", "adu": "ADU"}.get(added["units"].iat[-1]) if "units" in added else None
    dims = TOGETHER, theme.dimension("noise of a pixel of the stack", unit)
    elements = []
    for column in (name for name in added if name.startswith("noise_")):
        channel, noise = column.removeprefix("noise_"), added[column].to_numpy()
        expected = noise[-1] * np.sqrt(hours[-1] / ahead)
        colour = theme.channel_colour(channel)
        elements += [
            theme.line(ahead, expected, dims=dims, colour=colour, dash="dashed", width=1.3),
            theme.channel_points(channel, hours, noise, dims=dims, size=6),
        ]
    return theme.layout(
        [theme.panel(elements, title="Noise so far, and ahead (dashed)", log="xy", legend="bottom_left", xlim=ends)]
    )
