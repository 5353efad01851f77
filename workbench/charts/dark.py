"""Charts of the dark: shot noise of the dark current, its growth with time and temperature, its spread over pixels."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from ..core.dark import dark_laws, predict_current
from ..core.values import value_text
from .theme import KIND_COLOUR, band, dimension, layout, line, note, panel, points, ramp, steps
from .words import degrees, electrons

DIFFERENCE = dimension("pair difference / √2", "e⁻")
DENSITY = dimension("share of pixels", "per e⁻")
EXPOSURE = dimension("exposure", "s")
DARK_SIGNAL = dimension("dark signal", "e⁻")
TEMPERATURE = dimension("sensor temperature", "°C")
DARK_CURRENT = dimension("dark current", "e⁻/s/pixel")
DEVIATION = dimension("measured / law − 1", "%")
_DARK = {"colour": KIND_COLOUR["dark"]}
_EFFECTS = ("sigma", "expected_sigma", "ks_distance", "skewness", "excess_kurtosis")
_BASE = 0.6  # of a bar that counts pixels, so that one pixel can be seen
_MARKERS = ("circle", "square", "triangle", "diamond")
COUNT = dimension("pixels")


def dark_shot_noise_histogram(dark_noise: xr.Dataset) -> hv.Layout:
    """Chart how the dark signal scatters between two equal darks, beside a normal curve of the same width.

    Left on a linear axis, right on a logarithmic one, where departures in the tails would show.

    Parameters
    ----------
    dark_noise
        From `sensor.dark_noise`: ``density`` [1/e⁻] over bin [e⁻], ``normal``, and the effect sizes in attrs.
    """
    centres, density = dark_noise["bin"].values, dark_noise["density"].values
    edges = _edges(centres)
    dims = (DIFFERENCE, DENSITY)
    size = {name: float(dark_noise.attrs[name]) for name in _EFFECTS}
    along = np.linspace(edges[0], edges[-1], 301)
    normal = np.exp(-0.5 * (along / size["sigma"]) ** 2) / (size["sigma"] * np.sqrt(2 * np.pi))
    text = [f"σ {size['sigma']:.2f} e⁻"]
    text += [f"expected {size['expected_sigma']:.2f} e⁻"] if np.isfinite(size["expected_sigma"]) else []
    text += [f"KS distance {size['ks_distance']:.4f}", f"skewness {size['skewness']:+.3f}"]
    text += [f"excess kurtosis {size['excess_kurtosis']:+.3f}"]
    wide = 5.5 * size["sigma"]
    top = max(normal.max(), density.max())
    seen = density > 0
    floor = density[seen].min() / 3
    linear = [
        steps(edges, density, dims=dims, label="darks", **_DARK),
        line(along, normal, dims=dims, label="normal curve"),
        note(-0.95 * wide, 1.42 * top, "\n".join(text), dims=dims, align=("left", "top")),
    ]
    logarithmic = [
        points(centres[seen], density[seen], dims=dims, label="darks", size=4, **_DARK),
        line(along[normal > floor], normal[normal > floor], dims=dims, label="normal curve"),
    ]
    left = {"xlim": (-wide, wide), "ylim": (0, 1.5 * top)}
    return layout(
        [
            panel(linear, title="Between two equal darks", legend="top_right", **left),
            panel(logarithmic, title="The same, logarithmic", log="y", legend="top_right", ylim=(floor, 8 * top)),
        ]
    )


def _settings(data: xr.Dataset, dim: str) -> list[tuple[str, np.ndarray, str, str]]:
    """Split along a dimension by temperature and ISO: a label that says what differs, where, colour and marker."""
    iso, temperature = data["iso"].values.astype(float), data["temperature"].values.astype(float)
    temperatures, isos = np.unique(temperature), np.unique(iso)  # NaN, once and last, is one that is not known
    found = []
    for one_temperature, colour in zip(temperatures, ramp(temperatures.size), strict=True):
        for number, one_iso in enumerate(isos):
            here = _equal(temperature, one_temperature) & _equal(iso, one_iso)
            if here.any():
                label = degrees(one_temperature) + (f", ISO {one_iso:g}" if isos.size > 1 else "")
                found.append((label, here, colour, _MARKERS[number % len(_MARKERS)]))
    return found


def dark_current_vs_time(dark_signal: xr.Dataset, dark_current: xr.Dataset | None = None) -> hv.Layout:
    """Chart the dark signal against exposure time, one line a temperature; the slope is the dark current.

    Left on linear axes, right on logarithmic ones, where the cold lines part.

    Parameters
    ----------
    dark_signal
        From `sensor.dark_signal`: ``dark_signal`` [e⁻] and its error over group.
    dark_current
        From `sensor.dark_current`: the fitted lines.
    """
    dims = (EXPOSURE, DARK_SIGNAL)
    times = dark_signal["exposure"].values
    ends = float(np.nanmin(times)), float(np.nanmax(times))
    linear: list[Any] = []
    logarithmic: list[Any] = []
    for label, here, colour, marker in _settings(dark_signal, "group"):
        one = dark_signal.isel(group=np.flatnonzero(here))
        style = {"dims": dims, "colour": colour}
        for rate, start in _slopes(dark_current, one):
            along = np.array([0.0, ends[1] * 1.05])
            linear.append(line(along, start + rate * along, width=1.4, **style))
            along = np.geomspace(ends[0] / 1.3, ends[1] * 1.3, 40)
            rising = start + rate * along > 0
            logarithmic.append(line(along[rising], (start + rate * along)[rising], width=1.4, **style))
        x, y, error = (one[name].values for name in ("exposure", "dark_signal", "dark_signal_error"))
        style |= {"label": label, "marker": marker, "size": 8}
        linear.append(points(x, y, error, **style))
        logarithmic.append(points(x[y > 0], y[y > 0], error[y > 0], **style))
    return layout(
        [
            panel(linear, title="The dark signal grows with time", xlim=(0, ends[1] * 1.08), legend="top_left"),
            panel(logarithmic, title="The same, logarithmic", log="xy", legend=None),
        ]
    )


def _slopes(dark_current: xr.Dataset | None, group: xr.Dataset) -> list[tuple[float, float]]:
    """Return slope and intercept of the fits at a group's ISO and temperature."""
    if dark_current is None:
        return []
    same = _equal(dark_current["iso"].values, group["iso"].values[0])
    same &= _equal(dark_current["temperature"].values, group["temperature"].values[0])
    fits = [dark_current.isel(setting=index) for index in np.flatnonzero(same)]
    return [(float(fit["dark_current"]), float(fit["intercept"])) for fit in fits if np.isfinite(fit["dark_current"])]


def _equal(values: np.ndarray, value: float) -> np.ndarray:
    return np.isclose(values.astype(float), float(value), equal_nan=True)


def dark_current_vs_temperature(dark_current: xr.Dataset, dark_law: xr.Dataset | None = None) -> hv.Layout:
    """Chart the dark current against temperature on a logarithmic axis, and how far it lies from the doubling law.

    The law is D = D_ref 2^((T - T_ref)/T_d); its 68 % band combines the errors of D_ref and T_d with their correlation.
    It is of the pixels that saturate at no temperature; their mean, where it is known, is what lies off it.

    Parameters
    ----------
    dark_current
        From `sensor.dark_current`: ``dark_current`` [e⁻/s/pixel] and its error over setting.
    dark_law
        From `sensor.dark_law`: ``doubling_temperature`` [K], ``dark_current_reference``, ``reference_temperature``.
    """
    dims, off = (TEMPERATURE, DARK_CURRENT), (TEMPERATURE, DEVIATION)
    temperature = dark_current["temperature"].values.astype(float)
    good = np.isfinite(temperature) & (dark_current["dark_current"].values > 0)
    left: list[Any] = []
    right: list[Any] = []
    reach = 0.0
    if dark_law is not None and good.any():
        low, high = temperature[good].min(), temperature[good].max()
        margin = max(2.0, 0.08 * (high - low))
        along = np.linspace(low - margin, high + margin, 80)
        curve, spread = _law(dark_law, along)
        doubling = value_text(
            float(dark_law["doubling_temperature"]), float(dark_law["doubling_temperature_error"]), "K"
        )
        style = {"label": "68 % band of the law", "colour": KIND_COLOUR["dark"]}
        left.append(line(along, curve, dims=dims, label=f"doubles every {doubling}", dash="dashed"))
        right.append(band(along, -100 * spread, 100 * spread, dims=off, **style))
        right.append(line(along, np.zeros(along.size), dims=off, dash="dashed"))
    isos = dark_current["iso"].values
    known = np.unique(isos[good])
    for number, (iso, colour) in enumerate(zip(known, ramp(known.size + 1), strict=False)):
        here = np.flatnonzero(good & _equal(isos, iso))
        one, x = dark_current.isel(setting=here), temperature[here]
        style = {"colour": colour, "marker": _MARKERS[number % len(_MARKERS)], "size": 8}
        label = f"ISO {iso:g}" if np.isfinite(iso) else "mean"
        mean, error = one["dark_current"].values, one["dark_current_error"].values
        left.append(points(x, mean, error, dims=dims, label=label, **style))
        if dark_law is not None:
            law = _law(dark_law, x)[0]
            share = 100 * (_of_the_law(one) / law - 1)
            right.append(points(x, share, 100 * error / law, dims=off, label=label, **style))
            reach = max(reach, float(np.max(np.abs(share) + 100 * error / law)))
    panels = [panel(left, title="Dark current doubles and doubles", log="y", legend="top_left")]
    if dark_law is not None:
        room = (-1.2 * reach, 1.9 * reach) if 0 < reach < np.inf else None  # above the points the legend
        panels.append(panel(right, title="How far from the law", legend="top_right", ylim=room))
    return layout(panels)


def _of_the_law(dark_current: xr.Dataset) -> np.ndarray:
    """Return the dark currents that the law was fitted to: of the pixels that saturate nowhere, where they are told."""
    return dark_current.get("dark_current_common", dark_current["dark_current"]).values


def _law(law: xr.Dataset, temperature: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the doubling law and the relative 1σ error of its value, both along temperature."""
    laws = dark_laws(law, ["doubling"])
    if not laws:
        return np.full((2, temperature.size), np.nan)
    current, error = predict_current(laws, temperature)
    return current, error / current


def dcnu_histogram(dcnu: xr.Dataset) -> hv.Layout:
    """Chart how many pixels have which dark current, on a logarithmic axis: the long tail is the hot pixels.

    Parameters
    ----------
    dcnu
        From `sensor.dcnu_histogram`: ``count`` of pixels over bin; ``mean`` and ``median`` in attrs.
    """
    unit = electrons(dcnu.attrs["units"])
    dims = (dimension("dark current of a pixel", unit), COUNT)
    edges, count = _edges(dcnu["bin"].values.astype(float)), dcnu["count"].values.astype(float)
    top = float(count.max())
    elements: list[Any] = [
        steps(edges, np.where(count > 0, count, np.nan), dims=dims, label="pixels", base=_BASE, **_DARK)
    ]
    for name, dash in (("mean", "solid"), ("median", "dotted")):
        x = float(dcnu.attrs[name])
        elements.append(line([x, x], [_BASE, 2 * top], dims=dims, label=f"{name} {value_text(x)} {unit}", dash=dash))
    title = "Every pixel has its own dark current"
    return layout([panel(elements, title=title, log="y", ylim=(_BASE, top * 4), legend="top_right")])


def _edges(centres: np.ndarray) -> np.ndarray:
    """Return the edges of bins of one width from their centres."""
    half = (centres[-1] - centres[0]) / (2 * (centres.size - 1))
    return np.append(centres - half, centres[-1] + half)
