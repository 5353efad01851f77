"""Notebooks 02, 03, 05 and 11: a few widgets and one chart that follows them; plain functions compute."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import holoviews as hv
import numpy as np
import panel as pn
import xarray as xr

from workbench import charts
from workbench.app.live_charts import LiveChart, live_chart, live_text
from workbench.app.pictures import html_pane
from workbench.charts import theme
from workbench.charts.lights import METHOD_NAMES
from workbench.core.dark import dark_current_at
from workbench.core.errors import WorkbenchError
from workbench.core.settings import in_words_of, setting_dim
from workbench.core.values import describe, temperature_text, value_text
from workbench.sensor.gain import fit_gain
from workbench.stack.pixel import explain, inspect_pixel

_NOISE = theme.dimension("noise of one pixel", "e⁻")
_METHOD, _VALUE = theme.dimension("rejection method"), theme.dimension("value", "e⁻")
_ALONG = np.geomspace(1, 3600, 80)  # exposures of the chart of a dark's noise [s]


def refit(ptc: xr.Dataset, iso: float, levels: tuple[float, float]) -> tuple[xr.Dataset, xr.Dataset]:
    """Fit the gain at one ISO or gain setting again, with the light levels of a range only.

    Parameters
    ----------
    ptc
        From `sensor.photon_transfer`.
    levels
        The lowest and the highest signal to keep [ADU], of the mean over the channels.

    Returns
    -------
    ptc, gain
        The curve at that setting, and the fit, with ``used`` over all pairs of the curve.

    Raises
    ------
    WorkbenchError
        If no pair has that setting, or none lies within the range.
    """
    dim = setting_dim(ptc)
    curve, name = ptc.isel(pair=np.flatnonzero(ptc[dim].values == iso)), describe({dim: iso})
    if not curve.sizes["pair"]:
        there = ", ".join(f"{value:g}" for value in np.unique(ptc[dim].values))
        raise WorkbenchError(f"{name} has no flats; flats exist at {there}")
    signal = curve["signal"].mean("channel").values
    inside = (signal >= levels[0]) & (signal <= levels[1])
    if not inside.any():
        raise WorkbenchError(f"no pair of flats at {name} lies between {levels[0]:g} and {levels[1]:g} ADU")
    gain = fit_gain(curve.isel(pair=np.flatnonzero(inside)))
    used = np.zeros((curve.sizes["pair"], curve.sizes["channel"]), bool)
    used[inside] = gain["used"].values
    return curve, gain.drop_vars("used").drop_dims("pair", errors="ignore").assign(used=(("pair", "channel"), used))


def ptc_explorer(ptc: xr.Dataset) -> Any:
    """Choose an ISO or gain setting and the light levels to fit: the photon transfer curve and its gains follow.

    Parameters
    ----------
    ptc
        From `sensor.photon_transfer`.
    """
    dim = setting_dim(ptc)
    isos = [float(iso) for iso in np.unique(ptc[dim].values)]
    top = float(np.ceil(ptc["signal"].mean("channel").max() / 100) * 100)
    names = {describe({dim: value}): value for value in isos}
    iso = pn.widgets.Select(label=in_words_of(dim, "ISO"), options=names, value=isos[0])
    levels = pn.widgets.RangeSlider(label="signal to fit [ADU]", start=0, end=top, value=(0, top), step=top / 100)

    @lru_cache(maxsize=4)  # chart and text use the same fit
    def fitted(iso: float, levels: tuple[float, float]) -> tuple[xr.Dataset, xr.Dataset]:
        return refit(ptc, iso, levels)

    def chart(iso: float, levels: tuple[float, float]) -> hv.Layout:
        return charts.ptc(*fitted(iso, levels))

    def gains(iso: float, levels: tuple[float, float]) -> str:
        try:
            gain = fitted(iso, levels)[1].isel({dim: 0})
        except WorkbenchError:  # the chart shows the reason
            return ""
        values = zip(gain["channel"].values, gain["gain"].values, gain["gain_error"].values, strict=True)
        return ", ".join(f"**{name}** {value_text(float(g), float(error), 'e⁻/ADU')}" for name, g, error in values)

    return pn.Column(
        pn.FlexBox(iso, levels),
        live_text(pn.bind(gains, iso, levels)),
        live_chart(chart, iso=iso, levels=levels),
        name="Gain",
    )


def dark_noise(
    law: xr.Dataset, temperature: float, exposure: float | np.ndarray, read_noise: float, sky: float = 0.0
) -> dict[str, np.ndarray]:
    """Predict the dark signal and the noise of a starless pixel of one frame from the temperature law.

    D = D(T) t from the law; its shot noise is √D; with the sky's and the read noise √(D + S + σ_R²).

    Parameters
    ----------
    law
        From `sensor.dark_law`.
    temperature
        Of the sensor [°C].
    exposure
        In seconds.
    read_noise
        In e⁻ rms.
    sky
        Light of the sky [e⁻/s/pixel]; 0 for a dark.

    Returns
    -------
    dict
        ``exposure`` [s]; ``signal``, ``signal_error``, ``shot_noise``, ``sky_noise``, ``noise`` [e⁻], and ``coldest``,
        the noise without any dark current.

    Examples
    --------
    >>> law = xr.Dataset({"doubling_temperature": 6.0, "doubling_temperature_error": 0.0, "reference_temperature": 20.0,
    ...                   "dark_current_reference": 0.1, "dark_current_reference_error": 0.001})
    >>> predicted = dark_noise(law, 26.0, 300.0, 2.0)
    >>> [round(float(predicted[name]), 2) for name in ("signal", "signal_error", "shot_noise", "noise", "coldest")]
    [60.0, 0.6, 7.75, 8.0, 2.0]
    """
    current, error = dark_current_at(law, temperature)
    seconds = np.asarray(exposure, float)
    signal = current * seconds
    return {
        "exposure": seconds,
        "signal": signal,
        "signal_error": error * seconds,
        "shot_noise": np.sqrt(signal),
        "sky_noise": np.sqrt(sky * seconds),
        "noise": np.sqrt(signal + sky * seconds + read_noise**2),
        "coldest": np.sqrt(sky * seconds + read_noise**2),
    }


def dark_noise_chart(predicted: dict[str, np.ndarray], temperature: float, read_noise: float) -> hv.Layout:
    """Chart the noise of a frame against exposure time: dark, sky, read noise, all, and the chosen exposure.

    Parameters
    ----------
    predicted
        From `dark_noise`, for `_ALONG` and then the chosen exposure.
    """
    along, exposure = predicted["exposure"][:-1], predicted["exposure"][-1:]
    shot, sky, total = (predicted[name][:-1] for name in ("shot_noise", "sky_noise", "noise"))
    dims, colours = (theme.EXPOSURE, _NOISE), theme.KIND_COLOUR
    elements = [
        theme.line(along, shot, dims=dims, label="dark current", colour=colours["dark"]),
        theme.line(along, np.where(sky > 0, sky, np.nan), dims=dims, label="sky", colour=colours["light"]),
        theme.line(along, np.full(along.size, read_noise), dims=dims, label="read noise", colour=colours["bias"]),
        theme.line(along, total, dims=dims, label="all together", dash="dashed"),
        theme.points(exposure, predicted["noise"][-1:], dims=dims, label="this exposure", size=11),
    ]
    title = f"Noise of one frame at {temperature_text(temperature)}"
    return theme.layout([theme.panel(elements, title=title, log="xy", ylim=(0.1, 200), legend="top_left")])


def dark_explorer(law: xr.Dataset, read_noise: float = 2.5) -> Any:
    """Choose exposure, temperature and sky: the dark signal is predicted, the noise, and what cooling could still gain.

    Parameters
    ----------
    law
        From `sensor.dark_law`.
    read_noise
        In e⁻ rms, at the ISO of the darks.
    """
    temperature = pn.widgets.FloatSlider(label="sensor temperature [°C]", start=-20, end=40, step=1, value=20)
    exposure = pn.widgets.DiscreteSlider(
        label="exposure [s]", options=[1, 5, 15, 30, 60, 120, 180, 300, 600, 1200], value=300, formatter="%g"
    )
    light = pn.widgets.DiscreteSlider(label="light of the sky [e⁻/s]", options=[0, 0.1, 0.3, 1, 3, 10], value=0)

    @lru_cache(maxsize=4)  # chart and text use the same
    def predicted(temperature: float, exposure: float, sky: float) -> dict[str, np.ndarray]:
        return dark_noise(law, temperature, np.append(_ALONG, exposure), read_noise, sky)

    def text(*at: float) -> str:
        chosen = {name: float(values[-1]) for name, values in predicted(*at).items()}
        return (
            f"Dark signal **{value_text(chosen['signal'], chosen['signal_error'], 'e⁻')}** a pixel, its shot noise "
            f"**{chosen['shot_noise']:.2f} e⁻**, all noise **{chosen['noise']:.2f} e⁻**. Without any dark current it "
            f"would be {chosen['coldest']:.2f} e⁻: cooling can still take off "
            f"**{100 * (1 - chosen['coldest'] / chosen['noise']):.0f} %**."
        )

    def chart(temperature: float, exposure: float, sky: float) -> hv.Layout:
        return dark_noise_chart(predicted(temperature, exposure, sky), temperature, read_noise)

    return pn.Column(
        pn.FlexBox(temperature, exposure, light),
        live_text(pn.bind(text, temperature, exposure, light)),
        live_chart(chart, temperature=temperature, exposure=exposure, sky=light),
        name="Dark current",
    )


def pixel_explorer(lights: xr.Dataset, y: int, x: int, channel: str = "G") -> Any:
    """Choose a pixel of aligned lights and a threshold: its samples, which of them each method rejects, and why.

    Parameters
    ----------
    lights
        From `stack.aligned`, computed.
    y, x, channel
        Where to begin.
    """
    height, width = lights.sizes["y"], lights.sizes["x"]
    row = pn.widgets.IntInput(label="row", value=y, start=0, end=height - 1, width=110)
    column = pn.widgets.IntInput(label="column", value=x, start=0, end=width - 1, width=110)
    names = [str(name) for name in lights["channel"].values]
    colour = pn.widgets.RadioButtonGroup(options=names, value=channel if channel in names else names[0])
    k = pn.widgets.FloatSlider(label="threshold [σ]; 0 is each method's own", start=0, end=8, step=0.5, value=0)

    @lru_cache(maxsize=4)  # chart and table use the same
    def inspected(y: int, x: int, channel: str, k: float) -> xr.Dataset:
        own = k == 0
        methods = ("noise", "sigma", "winsorized", "linear-fit", "mad", *(("esd", "percentile") if own else ()))
        return inspect_pixel(lights, y, x, channel, methods=methods, low=None if own else k, high=None if own else k)

    def table(*at: Any) -> str:
        shown = explain(inspected(*at)).rename(columns=METHOD_NAMES)
        return shown.to_html(index=False, border=0, justify="left", classes="samples")

    at = (row, column, colour, k)
    return pn.Column(
        pn.FlexBox(row, column, colour, k),
        LiveChart(pn.bind(lambda *at: pixel_decisions(inspected(*at)), *at)),
        html_pane(pn.bind(table, *at)),
        name="One pixel",
    )


def pixel_decisions(pixel: xr.Dataset) -> hv.Layout:
    """Chart the samples of one pixel, a column for each method: those kept, those rejected, and the limits between.

    A sample far out is drawn at the edge, with its value.

    Parameters
    ----------
    pixel
        From `stack.inspect_pixel`.
    """
    dims = (_METHOD, _VALUE)
    methods = [str(name) for name in pixel["rejection"].values]
    value, typical = pixel["value"].values.astype(float), float(np.nanmedian(pixel["error"]))
    known = np.flatnonzero(np.isfinite(value))
    reach = 12 * typical  # a satellite must not press all others into a line
    bottom = max(float(np.nanmin(value)), float(np.nanmedian(value)) - reach) - 3 * typical
    top = min(float(np.nanmax(value)), float(np.nanmedian(value)) + reach) + 3 * typical
    width = value.size + 2
    elements: list[Any] = []
    named: set[str] = set()

    def once(label: str) -> str:
        """Return a label the first time, so that the legend has it once."""
        new = label not in named
        named.add(label)
        return label if new else ""

    for number, method in enumerate(methods):
        one = pixel.sel(rejection=method)
        order = known[np.argsort(value[known])] if method == "linear-fit" else known
        x = number * width + np.arange(known.size) + 1.0
        limits = [np.clip(one[name].values.astype(float)[order], bottom, top) for name in ("lower", "upper")]
        if order.size and np.isfinite(limits).all():
            elements.append(theme.band(x, *limits, dims=dims, label=once("kept between"), colour=theme.MUTED))
        ends = (number * width + 0.5, number * width + value.size + 0.5)
        elements.append(theme.level(float(one["result"]), ends, dims=dims, label=once("mean of the kept"), width=1.6))
        shown, out = np.clip(value[order], bottom, top), one["decision"].values[order] != 0
        if (~out).any():
            elements.append(
                theme.points(x[~out], shown[~out], dims=dims, label=once("kept"), colour=theme.SERIES[0], size=7)
            )
        if out.any():
            look = {"label": once("rejected"), "colour": theme.SERIES[1], "marker": "cross", "size": 10}
            elements.append(theme.points(x[out], shown[out], dims=dims, **look))
        for far in np.flatnonzero(shown != value[order]):
            up = value[order][far] > top
            y, align = shown[far] + (-0.9 if up else 0.9) * typical, ("right", "top" if up else "bottom")
            elements.append(theme.note(x[far] + 1, y, f"{value[order][far]:,.0f}", dims=dims, align=align, size=10))
    title = f"Pixel ({pixel.attrs['y']}, {pixel.attrs['x']}), {pixel.attrs['channel']}: {known.size} samples"
    names = [METHOD_NAMES.get(method, method).replace(" ", "\n") for method in methods]
    scales = {"xticks": [(number * width + (width - 1) / 2, name) for number, name in enumerate(names)]}
    scales |= {"xlim": (0, len(methods) * width), "ylim": (bottom - typical, top + 0.45 * (top - bottom))}
    return theme.layout([theme.panel(elements, title=title, legend="top_left", **scales)])
