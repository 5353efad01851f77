"""Charts of the dark: shot noise of the dark current, its growth with time and temperature, its spread over pixels."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from .theme import INK, KIND_COLOUR, SERIES, band, dimension, layout, line, note, panel, points, steps
from .words import degrees, quantity

DIFFERENCE = dimension("pair difference / √2", "e⁻")
DENSITY = dimension("fraction of pixels", "per e⁻")
EXPOSURE = dimension("exposure", "s")
DARK_SIGNAL = dimension("dark signal", "e⁻")
TEMPERATURE = dimension("sensor temperature", "°C")
DARK_CURRENT = dimension("dark current", "e⁻/s/pixel")
PIXEL_CURRENT = dimension("dark current of a pixel", "e⁻/s")
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
    width = np.diff(centres).mean()
    edges = np.append(centres - width / 2, centres[-1] + width / 2)
    dims = (DIFFERENCE, DENSITY)
    sigma = float(dark_noise.attrs["sigma"])
    along = np.linspace(edges[0], edges[-1], 301)
    normal = np.exp(-0.5 * (along / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    attrs = dark_noise.attrs
    sizes = (
        f"σ {sigma:.3f} e⁻\nexpected {float(attrs['expected_sigma']):.3f} e⁻\nKS distance "
        f"{float(attrs['ks_distance']):.4f}\n"
        f"skewness {float(attrs['skewness']):+.3f}\nexcess kurtosis {float(attrs['excess_kurtosis']):+.3f}"
    )
    linear = [
        steps(edges, density, dims=dims, label="darks", colour=KIND_COLOUR["dark"]),
        line(along, normal, dims=dims, label="normal curve"),
        note(edges[0] + 0.02 * (edges[-1] - edges[0]), normal.max() * 1.1, sizes, dims=dims, align=("left", "top")),
    ]
    full = density > 0
    floor = density[full].min() / 3
    logarithmic = [
        points(centres[full], density[full], dims=dims, label="darks", colour=KIND_COLOUR["dark"], size=4),
        line(along[normal > floor], normal[normal > floor], dims=dims, label="normal curve"),
    ]
    return layout(
        [
            panel(linear, title="Between two equal darks", ylim=(0, normal.max() * 1.18), legend="top_right"),
            panel(
                logarithmic, title="The same, logarithmic", log="y", legend="top_right", ylim=(floor, normal.max() * 6)
            ),
        ]
    )


def _settings(data: xr.Dataset, dim: str) -> list[tuple[str, np.ndarray]]:
    """Split along a dimension by ISO and temperature: a label that says what differs, and where."""
    iso, temperature = data["iso"].values.astype(float), data["temperature"].values.astype(float)
    pairs = sorted(
        {(i, t if np.isfinite(t) else np.inf) for i, t in zip(iso, temperature, strict=True)}, key=lambda p: p[::-1]
    )
    several_isos = np.unique(iso).size > 1
    found = []
    for one_iso, one_temperature in pairs:
        here = (iso == one_iso) & (np.where(np.isfinite(temperature), temperature, np.inf) == one_temperature)
        name = degrees(one_temperature)
        found.append((f"{name}, ISO {one_iso:g}" if several_isos else name, here))
    return found


def dark_current_vs_time(dark_signal: xr.Dataset, dark_current: xr.Dataset | None = None) -> hv.Layout:
    """Chart the dark signal against exposure time, one line a temperature; the slope is the dark current.

    Parameters
    ----------
    dark_signal
        From `sensor.dark_signal`: ``dark_signal`` [e⁻] and its error over group.
    dark_current
        From `sensor.dark_current`: the fitted lines.
    """
    dims = (EXPOSURE, DARK_SIGNAL)
    elements: list[Any] = []
    longest = float(np.nanmax(dark_signal["exposure"].values))
    settings = _settings(dark_signal, "group")
    for number, (label, here) in enumerate(settings):
        one = dark_signal.isel(group=np.flatnonzero(here))
        colour = SERIES[number % len(SERIES)]
        if dark_current is not None:
            same = (dark_current["iso"].values == one["iso"].values[0]) & _equal(
                dark_current["temperature"].values, one["temperature"].values[0]
            )
            for fit in np.flatnonzero(same):
                rate = float(dark_current["dark_current"].values[fit])
                start = float(dark_current["intercept"].values[fit]) if "intercept" in dark_current else 0.0
                ends = np.array([0.0, longest * 1.05])
                if np.isfinite(rate):
                    elements.append(line(ends, start + rate * ends, dims=dims, colour=colour, width=1.4))
        elements.append(
            points(
                one["exposure"].values, one["dark_signal"].values, one["dark_signal_error"].values,
                dims=dims, label=label, colour=colour, size=8,
            )
        )  # fmt: skip
    return layout([panel(elements, title="Dark signal grows with time", xlim=(0, longest * 1.08), legend="top_left")])


def _equal(values: np.ndarray, value: float) -> np.ndarray:
    return np.isclose(values.astype(float), float(value), equal_nan=True)


def dark_current_vs_temperature(dark_current: xr.Dataset, dark_law: xr.Dataset | None = None) -> hv.Layout:
    """Chart the dark current against temperature on a logarithmic axis, with the doubling law and its 68 % band.

    The law is D = D_ref 2^((T - T_ref)/T_d); the band combines the errors of D_ref and T_d, taken as independent.

    Parameters
    ----------
    dark_current
        From `sensor.dark_current`: ``dark_current`` [e⁻/s/pixel] and its error over setting.
    dark_law
        From `sensor.dark_law`: ``doubling_temperature`` [K], ``dark_current_reference``, ``reference_temperature``.
    """
    dims = (TEMPERATURE, DARK_CURRENT)
    temperature = dark_current["temperature"].values.astype(float)
    elements: list[Any] = []
    good = np.isfinite(temperature) & (dark_current["dark_current"].values > 0)
    if dark_law is not None and good.any():
        low, high = temperature[good].min(), temperature[good].max()
        margin = max(2.0, 0.08 * (high - low))
        along = np.linspace(low - margin, high + margin, 80)
        curve, spread = _law(dark_law, along)
        doubling = quantity(float(dark_law["doubling_temperature"]), float(dark_law["doubling_temperature_error"]), "K")
        elements.append(
            band(
                along,
                curve * np.exp(-spread),
                curve * np.exp(spread),
                dims=dims,
                label="68 % band",
                colour=KIND_COLOUR["dark"],
            )
        )
        elements.append(line(along, curve, dims=dims, label=f"doubles every {doubling}", dash="dashed"))
    isos = dark_current["iso"].values
    for number, iso in enumerate(np.unique(isos[good])):
        here = good & (isos == iso)
        one = dark_current.isel(setting=np.flatnonzero(here))
        elements.append(
            points(
                temperature[here], one["dark_current"].values, one["dark_current_error"].values, dims=dims,
                label=f"mean, ISO {iso:g}", colour=SERIES[number % len(SERIES)], size=9,
            )
        )  # fmt: skip
        if "median" in one:
            median = one["median"].values
            seen = median > 0
            elements.append(
                points(
                    temperature[here][seen], median[seen], dims=dims, label=f"median, ISO {iso:g}",
                    colour=SERIES[number % len(SERIES)], marker="diamond", size=8, filled=False,
                )
            )  # fmt: skip
    return layout([panel(elements, title="Dark current doubles with temperature", log="y", legend="top_left")])


def _law(law: xr.Dataset, temperature: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the law and the relative 1σ error of its value, both along temperature."""
    doubling, reference = float(law["doubling_temperature"]), float(law["dark_current_reference"])
    steps_up = (temperature - float(law["reference_temperature"])) / doubling
    from_doubling = np.log(2) * steps_up * float(law["doubling_temperature_error"]) / doubling
    from_reference = float(law["dark_current_reference_error"]) / reference
    return reference * 2**steps_up, np.hypot(from_doubling, from_reference)


def dcnu_histogram(dcnu: xr.Dataset) -> hv.Layout:
    """Chart how many pixels have which dark current, on a logarithmic axis: the long tail is the hot pixels.

    Parameters
    ----------
    dcnu
        From `sensor.dcnu_histogram`: ``count`` of pixels over bin [e⁻/s].
    """
    dims = (PIXEL_CURRENT, COUNT)
    edges = _edges(dcnu)
    count = dcnu["count"].values.astype(float)
    floor = 0.5
    elements: list[Any] = [
        steps(edges, np.maximum(count, floor), dims=dims, label="pixels", colour=KIND_COLOUR["dark"]),
    ]
    for name, text, dash in (("mean", "mean", "solid"), ("median", "median", "dashed")):
        if name in dcnu.attrs:
            x = float(dcnu.attrs[name])
            elements.append(
                line(
                    [x, x],
                    [floor, count.max() * 2],
                    dims=dims,
                    label=f"{text} {quantity(x)} e⁻/s",
                    dash=dash,
                    colour=INK,
                )
            )
    return layout(
        [
            panel(
                elements,
                title="Every pixel has its own dark current",
                log="y",
                ylim=(floor, count.max() * 3),
                legend="top_right",
            )
        ]
    )


def _edges(histogram: xr.Dataset) -> np.ndarray:
    centres = histogram["bin"].values
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])
