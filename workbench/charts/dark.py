"""Charts of the dark: growth with time and temperature, its shot noise, and a predicted master dark."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from ..core.dark import BOLTZMANN, dark_laws, predict_current
from ..core.results import same_setting
from ..core.settings import setting_dim
from ..core.values import temperature_text
from . import theme
from .registry import Caption, caption, chart, listing, quantity, source
from .settings import settings_of, words_of
from .theme import DARK_CURRENT, EXPOSURE, KIND_COLOUR, MARKERS, REFERENCE, SERIES

DARKS = "two or more darks at each of three exposure times"
DIFFERENCE, DENSITY = theme.dimension("pair difference / √2", "e⁻"), theme.dimension("share of pixels", "per e⁻")
DARK_SIGNAL = theme.dimension("dark signal", "e⁻")
TEMPERATURE, INVERSE = theme.dimension("sensor temperature", "°C"), theme.dimension("1/kT", "1/eV")
DEVIATION = theme.dimension("measured / law − 1", "%")
_EFFECTS = ("sigma", "expected_sigma", "ks_distance", "skewness", "excess_kurtosis")
_DARK = KIND_COLOUR["dark"]


def _settings(data: xr.Dataset) -> Iterator[tuple[str, np.ndarray, str, str]]:
    """Split settings by temperature and ISO or gain setting: a label of what differs, where, colour and marker."""
    warm, settings = data["temperature"].values.astype(float), settings_of(data)
    temperatures, different = np.unique(warm), np.unique(settings)
    for temperature, colour in zip(temperatures, theme.ramp(temperatures.size), strict=True):
        for number, setting in enumerate(different):
            here = same_setting(warm, temperature) & same_setting(settings, setting)
            if here.any():
                words = f", {words_of({setting_dim(data): setting})}" if different.size > 1 else ""
                label = temperature_text(temperature) + words
                yield label, np.flatnonzero(here), colour, MARKERS[number % len(MARKERS)]


@chart(
    "dark-current-vs-time", "Dark signal against exposure time", "Dark current", needs=("dark_signal",),
    takes=("dark_signal", "dark_current"), shoot=DARKS,
)  # fmt: skip
def dark_current_vs_time(dark_signal: xr.Dataset, dark_current: xr.Dataset | None = None) -> hv.Layout:
    """Chart the dark signal against exposure time, one line for each temperature; the slope is the dark current.

    Left on linear axes, right on logarithmic ones, where the cold lines separate.

    Both come from `sensor.measure_dark`: `dark_signal`, its ``signal``, has ``dark_signal`` [e⁻] and error over group;
    `dark_current`, its ``current``, the fitted lines.
    """
    dims = (EXPOSURE, DARK_SIGNAL)
    times = dark_signal["exposure"].values
    first, last = float(np.nanmin(times)), float(np.nanmax(times))
    linear, logarithmic = [], []
    for label, here, colour, marker in _settings(dark_signal):
        one = dark_signal.isel(group=here)
        for rate, start in _slopes(dark_current, one):
            style = {"dims": dims, "colour": colour, "width": 1.4}
            along = np.array([0.0, last * 1.05])
            linear.append(theme.line(along, start + rate * along, **style))
            along = np.geomspace(first / 1.3, last * 1.3, 40)
            rising = start + rate * along > 0
            logarithmic.append(theme.line(along[rising], (start + rate * along)[rising], **style))
        x, y, error = (one[name].values for name in ("exposure", "dark_signal", "dark_signal_error"))
        look = {"label": label, "colour": colour, "marker": marker}
        linear.append(theme.points(x, y, error, dims=dims, **look))
        logarithmic.append(theme.points(x[y > 0], y[y > 0], error[y > 0], dims=dims, **look))
    scales = {"xlim": (0, last * 1.08), "legend": "top_left"}
    left = theme.panel(linear, title="The dark signal grows with time", **scales)
    return theme.layout([left, theme.panel(logarithmic, title="The same, logarithmic", log="xy", legend=None)])


def _slopes(dark_current: xr.Dataset | None, group: xr.Dataset) -> list[tuple[float, float]]:
    """Return slope and intercept of the fits at a group's setting and temperature."""
    if dark_current is None:
        return []
    there = same_setting(settings_of(dark_current), settings_of(group)[0])
    there &= same_setting(dark_current["temperature"].values, group["temperature"].values[0])
    fits = [dark_current.isel(setting=index) for index in np.flatnonzero(there)]
    return [(float(fit["dark_current"]), float(fit["intercept"])) for fit in fits if np.isfinite(fit["dark_current"])]


@caption(dark_current_vs_time)
def _dark_current_vs_time_caption(result: Any) -> Caption:
    current, rates = result.dark_current, ""
    if current is not None and np.isfinite(current["dark_current"]).any():
        known = current.isel(setting=np.flatnonzero(np.isfinite(current["dark_current"].values)))
        order = np.argsort(known["temperature"].values, kind="stable")
        slopes = listing(
            f"{quantity(one, 'dark_current')} at {temperature_text(one['temperature'])}"
            for one in (known.isel(setting=index) for index in order)
        )
        rates = f"The slope of each line is the dark current in e⁻/s/pixel: {slopes}. "
    return Caption(
        f"Mean dark signal against exposure time, hot pixels included, {int(result.dark_signal['frames'].sum())} "
        f"darks; bars: 1σ. {rates}{source(result)}",
        "Straight lines rising with exposure time; the warmer the sensor, the steeper.",
    )


@chart(
    "dark-shot-noise-histogram", "The shot noise of the dark current", "Dark current", needs=("dark_noise",),
    shoot="two equal long darks, and flats or bias for the gain",
)  # fmt: skip
def dark_shot_noise_histogram(dark_noise: xr.Dataset) -> hv.Layout:
    """Chart how the dark signal scatters between two equal darks, with a normal curve of the same width.

    Left on a linear axis, right on a logarithmic one, where departures in the tails would show.

    `dark_noise` comes from `sensor.dark_noise`: ``density`` [1/e⁻] over bin [e⁻], ``normal``, and the effect sizes in
    attrs.
    """
    dims = (DIFFERENCE, DENSITY)
    centres, density = dark_noise["bin"].values, dark_noise["density"].values
    edges = theme.bin_edges(centres)
    sigma, expected, distance, skewness, kurtosis = (float(dark_noise.attrs[name]) for name in _EFFECTS)
    along = np.linspace(edges[0], edges[-1], 301)
    normal = np.exp(-0.5 * (along / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    text = [f"σ {sigma:.2f} e⁻", *([f"expected {expected:.2f} e⁻"] if np.isfinite(expected) else [])]
    text += [f"KS distance {distance:.4f}", f"skewness {skewness:+.3f}", f"excess kurtosis {kurtosis:+.3f}"]
    wide, top = 5.5 * sigma, max(normal.max(), density.max())
    seen = density > 0
    floor = density[seen].min() / 3
    linear = [
        theme.steps(edges, density, dims=dims, label="darks", colour=_DARK),
        theme.line(along, normal, dims=dims, label="normal curve"),
        theme.note(-0.95 * wide, 1.42 * top, "\n".join(text), dims=dims, align=("left", "top")),
    ]
    logarithmic = [
        theme.points(centres[seen], density[seen], dims=dims, label="darks", size=4, colour=_DARK),
        theme.line(along[normal > floor], normal[normal > floor], dims=dims, label="normal curve"),
    ]
    left = theme.panel(linear, title="Between two equal darks", xlim=(-wide, wide), ylim=(0, 1.5 * top))
    return theme.layout([left, theme.panel(logarithmic, title="The same, logarithmic", log="y", ylim=(floor, 8 * top))])


@caption(dark_shot_noise_histogram)
def _dark_shot_noise_histogram_caption(result: Any) -> Caption:
    attrs = result.dark_noise.attrs
    sigma, expected = float(attrs["sigma"]), float(attrs["expected_sigma"])
    width = f"Its width is {sigma:.3f} e⁻"
    if np.isfinite(expected):
        width += f", {sigma / expected:.3f} times the {expected:.3f} e⁻ that dark shot noise and read noise predict"
    outliers = f"; {attrs['outliers']} flickering ones or hits left out" if attrs.get("outliers") else ""
    return Caption(
        f"Pixel by pixel difference of two equal darks ({attrs['exposure']:g} s, {words_of(attrs)}, "
        f"{temperature_text(attrs['temperature'])}), divided by √2: {attrs['n_pixels']:,} pixels{outliers}. {width}. "
        "How normal it is, as effect sizes (with so many pixels any p-value is zero): KS distance "
        f"{attrs['ks_distance']:.4f}, skewness {attrs['skewness']:+.3f}, excess kurtosis "
        f"{attrs['excess_kurtosis']:+.3f}. {source(result)}",
        "A histogram of pixel differences between two darks under a bell-shaped normal curve, on linear and on "
        "logarithmic axes.",
    )


def _measured(dark_current: xr.Dataset) -> Iterator[tuple[str, str, str, xr.Dataset]]:
    """Split dark currents of known temperature by ISO or gain setting: its words, a colour, a marker, the settings."""
    good = np.isfinite(dark_current["temperature"].values) & (dark_current["dark_current"].values > 0)
    known = dark_current.isel(setting=np.flatnonzero(good))
    different = np.unique(settings_of(known))
    for number, (setting, colour) in enumerate(zip(different, theme.ramp(different.size + 1), strict=False)):
        one = known.isel(setting=np.flatnonzero(same_setting(settings_of(known), setting)))
        words = words_of({setting_dim(known): setting}) if np.isfinite(setting) else "darks"
        yield words, colour, MARKERS[number % len(MARKERS)], one


def _common(dark_current: xr.Dataset) -> np.ndarray:
    """Return the dark currents that the law was fitted to: of the pixels that saturate nowhere, where it is known."""
    return dark_current.get("dark_current_common", dark_current["dark_current"]).values


@chart(
    "dark-current-vs-temperature", "Dark current against temperature", "Dark current",
    needs=("dark_current", "dark_law"),
    shoot="darks at two or more sensor temperatures, which the file, the manifest or the folder's name states",
)  # fmt: skip
def dark_current_vs_temperature(dark_current: xr.Dataset, dark_law: xr.Dataset | None = None) -> hv.Layout:
    """Chart the dark current against temperature on a logarithmic axis, and how far it lies from the doubling law.

    The law is D = D_ref 2^((T - T_ref)/T_d); its 68 % band combines the errors of D_ref and T_d with their correlation.
    It is of the pixels that saturate at no temperature; their mean, where it is known, is compared with it.

    `dark_current` is the ``current`` of `sensor.measure_dark`, [e⁻/s/pixel] with its error over setting; `dark_law`
    from `sensor.dark_law`: ``doubling_temperature`` [K], ``dark_current_reference``,
    ``reference_temperature``.
    """
    dims, off = (TEMPERATURE, DARK_CURRENT), (TEMPERATURE, DEVIATION)
    groups = list(_measured(dark_current))
    left, right = [], []
    reach = 0.0
    laws = [] if dark_law is None else dark_laws(dark_law, ["doubling"])
    if laws and groups:
        along = _around(np.concatenate([one["temperature"].values for *_, one in groups]), 80)
        curve, error = predict_current(laws, along)
        spread = 100 * error / curve
        doubling = quantity(dark_law, "doubling_temperature", "K")
        left.append(theme.line(along, curve, dims=dims, label=f"doubles every {doubling}", dash="dashed"))
        right.append(theme.band(along, -spread, spread, dims=off, label="68 % band of the law", colour=_DARK))
        right.append(theme.line(along, np.zeros(along.size), dims=off, dash="dashed"))
    for words, colour, marker, one in groups:
        x, error = one["temperature"].values, one["dark_current_error"].values
        look = {"label": words, "colour": colour, "marker": marker}
        left.append(theme.points(x, one["dark_current"].values, error, dims=dims, **look))
        if laws:
            model, _ = predict_current(laws, x)
            share, bars = 100 * (_common(one) / model - 1), 100 * error / model
            right.append(theme.points(x, share, bars, dims=off, **look))
            reach = max(reach, float(np.max(np.abs(share) + bars)))
    panels = [theme.panel(left, title="Dark current doubles and doubles", log="y", legend="top_left")]
    if laws:
        room = {"ylim": (-1.2 * reach, 1.9 * reach)} if 0 < reach < np.inf else {}  # the legend above the points
        panels.append(theme.panel(right, title="How far from the law", **room))
    return theme.layout(panels)


def _around(temperature: np.ndarray, count: int) -> np.ndarray:
    margin = max(2.0, 0.08 * float(np.ptp(temperature)))
    return np.linspace(temperature.min() - margin, temperature.max() + margin, count)


@caption(dark_current_vs_temperature)
def _dark_current_vs_temperature_caption(result: Any) -> Caption:
    law = result.dark_law
    temperatures = np.unique(result.dark_current["temperature"].values)
    bent = "Arrhenius' law fits these darks better: the colder, the fewer degrees double. "
    better = bent if law.attrs.get("law") == "arrhenius" else ""
    return Caption(
        f"Mean dark current against sensor temperature, {temperatures[np.isfinite(temperatures)].size} temperatures; "
        f"bars: 1σ. It doubles every {quantity(law, 'doubling_temperature', 'K')}: "
        f"{quantity(law, 'dark_current_reference')} e⁻/s/pixel at "
        f"{temperature_text(round(float(law['reference_temperature']), 1))}. Shaded: where the law lies with 68 % "
        f"confidence. {better}{source(result)}",
        "Dark current on a logarithmic axis rises along a straight line with temperature.",
    )


@chart(
    "dark-law", "Doubling, or an activation energy?", "Dark current", needs=("dark_current", "dark_law"), asked=True,
    shoot=f"{DARKS}, at two or more temperatures",
)  # fmt: skip
def dark_law(dark_current: xr.Dataset, law: xr.Dataset) -> hv.Layout:
    """Chart the dark current over 1/kT, where Arrhenius' law is straight, with the doubling law, and what each leaves.

    `dark_current` is the ``current`` of `sensor.measure_dark`, [e⁻/s/pixel] with its error over setting; `law`
    from `sensor.dark_law`.
    """
    dims, off = (INVERSE, DARK_CURRENT), (TEMPERATURE, DEVIATION)
    groups = list(_measured(dark_current))
    along = _around(np.concatenate([one["temperature"].values for *_, one in groups]), 120)
    laws = {one.name: [one] for one in dark_laws(law, ["arrhenius", "doubling"])}
    better = "arrhenius" if law.attrs.get("law") == "arrhenius" else "doubling"
    base, _ = predict_current(laws[better], along)
    energy, doubling = quantity(law, "activation_energy", "eV"), quantity(law, "doubling_temperature", "K")
    left, right = [], []
    for name, label, colour, dash in (
        ("arrhenius", f"ΔE = {energy}", SERIES[0], "solid"),
        ("doubling", f"doubles every {doubling}", REFERENCE, "dashed"),
    ):
        style = {"label": label, "colour": colour, "dash": dash}
        curve, error = predict_current(laws[name], along)
        away = 100 * (curve / base - 1)
        left.append(theme.line(_inverse(along), curve, dims=dims, **style))
        right.append(theme.line(along, away, dims=off, **style))
        if name == "arrhenius":
            spread = 100 * error / curve
            right.append(theme.band(along, away - spread, away + spread, dims=off, label="68 % band", colour=colour))
    for words, colour, _, one in groups:
        look = {"colour": _DARK if len(groups) == 1 else colour, "label": words}
        x, value, error = one["temperature"].values, _common(one), one["dark_current_error"].values
        left.append(theme.points(_inverse(x), value, error, dims=dims, **look))
        model, _ = predict_current(laws[better], x)
        right.append(theme.points(x, 100 * (value / model - 1), 100 * error / model, dims=off, **look))
    title = f"How far from the {better.capitalize() if better == 'arrhenius' else better} law"
    law_panel = theme.panel(left, title="The same law, as physicists draw it", log="y", legend="bottom_left")
    return theme.layout([law_panel, theme.panel(right, title=title, legend=None)])  # as left


def _inverse(temperature: np.ndarray) -> np.ndarray:
    return 1 / (BOLTZMANN * (temperature + 273.15))


@caption(dark_law)
def _dark_law_caption(result: Any) -> Caption:
    law = result.dark_law
    better = {
        "doubling": "The doubling law fits these darks better. ",
        "arrhenius": "Arrhenius' law fits these darks better. ",
    }.get(law.attrs.get("law", ""), "Two temperatures cannot decide between them. ")
    return Caption(
        f"Dark current over the inverse temperature, with an activation energy of "
        f"{quantity(law, 'activation_energy', 'eV')} (straight) and a doubling every "
        f"{quantity(law, 'doubling_temperature', 'K')} (bent); right, how far each lies from the one that fits better. "
        f"{better}The two are not the same curve: far from the measured temperatures they diverge. Bars: 1σ; shaded: "
        f"where Arrhenius' law lies with 68 % confidence. "
        f"{source(result)}",
        "Left, points on a falling line over 1/kT; right, two curves that diverge towards both ends, and the points on "
        "one of them.",
    )
