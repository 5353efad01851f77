"""The words of a chart: captions, alternative text, and numbers written with their errors."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ..core.values import value_text

_PLURAL = {"bias": "bias frames", "dark": "darks", "flat": "flats", "darkflat": "dark flats", "light": "lights"}


class Words(NamedTuple):
    """What a chart says: `caption` stands below it, `alt` stands in for it."""

    caption: str
    alt: str


def source(result: Any) -> str:
    """Say whose data it is: the camera, simulated or real, and how many frames of each kind."""
    counts = ", ".join(
        f"{count} {_PLURAL.get(kind, kind)}" for kind, count in dict(result.frame_counts).items() if count
    )
    what = "Simulated data" if result.simulated else "Real data"
    camera = result.camera or "camera not recorded"
    return f"{what}: {camera}; {counts}." if counts else f"{what}: {camera}."


def listing(items) -> str:
    """Join words as a sentence does.

    Examples
    --------
    >>> listing(["R", "G1", "B"])
    'R, G1 and B'
    """
    items = list(items)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def is_d7000(camera: str) -> bool:
    """Tell whether the blog's and Claff's published values are of this camera model."""
    return "D7000" in (camera or "")


def degrees(temperature: float) -> str:
    """Write a temperature, or that there is none.

    Examples
    --------
    >>> degrees(-5.0), degrees(float("nan"))
    ('−5 °C', 'temperature not recorded')
    """
    known = math.isfinite(float(temperature))
    return f"{float(temperature):g} °C".replace("-", "−") if known else "temperature not recorded"


def _first_gains(result: Any) -> str:
    """Write the gains of the lowest ISO that has any."""
    for index in range(result.gain.sizes["iso"]):
        one = result.gain.isel(iso=index)
        known = [
            f"{name} {value_text(float(value), float(error))}"
            for name, value, error in zip(
                one["channel"].values, one["gain"].values, one["gain_error"].values, strict=True
            )
            if math.isfinite(value)
        ]
        if known:
            return f"Gain {_at(float(one['iso']))}: {listing(known)} e⁻/ADU. "
    return "No gain could be measured. "


def _at(iso: float) -> str:
    return f"at ISO {iso:g}" if math.isfinite(iso) else "(ISO not recorded)"


def iso_to_gain(result: Any) -> Words:
    """Describe the ISO-to-gain chart of a characterization."""
    unity = ""
    if result.unity is not None and math.isfinite(float(result.unity["unity_gain_iso"])):
        iso = value_text(float(result.unity["unity_gain_iso"]), float(result.unity["unity_gain_iso_error"]))
        unity = f"Unity gain, one electron an ADU, lies at ISO {iso}. "
    reference = "Gold diamonds: the blog's own chart of another D7000 body. " if is_d7000(result.camera) else ""
    return Words(
        f"Gain against ISO, from the noise in {result.ptc.sizes['pair']} pairs of equal flats; bars: 1σ. "
        f"{_first_gains(result)}{unity}Grey: μ/σ² of single flats, in which lasting differences between "
        f"pixels pass for noise, so that it reads low. {reference}{source(result)}",
        "Two charts with logarithmic axes. Left: the gain in electrons per ADU falls in inverse proportion to ISO; "
        f"right: its inverse, ADU per electron, rises in proportion. {unity}",
    )


def ptc(result: Any) -> Words:
    """Describe the photon transfer curve of a characterization."""
    return Words(
        "Photon transfer: the variance between two equal flats against their signal. Shot noise makes a straight line "
        f"whose slope is the inverse of the gain; at the left the read noise lifts it. {result.ptc.sizes['pair']} "
        "pairs; bars: 1σ. Open grey points, too close to saturation or clipped, are not used in the fit. "
        f"{_first_gains(result)}{source(result)}",
        "Log-log charts of variance against signal: the points follow straight lines, one line a channel on the left, "
        "one line an ISO on the right, and fall away near saturation.",
    )


def read_noise_vs_iso(result: Any) -> Words:
    """Describe the read-noise chart of a characterization."""
    noise = result.read_noise["read_noise_adu"].mean("channel").dropna("iso")
    frames = np.unique(result.read_noise["frames"].values)
    count = f"{frames[0]}" if frames.size == 1 else f"{frames[0]} to {frames[-1]}"
    text = ""
    if noise.sizes["iso"]:
        ends = dict.fromkeys((0, noise.sizes["iso"] - 1))
        text = listing(f"{value_text(float(noise[i]))} ADU {_at(float(noise.iso[i]))}" for i in ends) + ". "
    if result.gain is not None:
        both = (result.read_noise["read_noise_adu"] * result.gain["gain"]).mean("channel").dropna("iso")
        if both.sizes["iso"]:
            ends = dict.fromkeys((0, both.sizes["iso"] - 1))
            text += (
                "In electrons: "
                + listing(f"{value_text(float(both[i]))} {_at(float(both.iso[i]))}" for i in ends)
                + ". "
            )
    reference = (
        "Gold diamonds: Bill Claff's published D7000, up to ISO 1007, where its analogue gain ends. "
        if is_d7000(result.camera)
        else ""
    )
    clipped = result.read_noise.get("method")
    how = "the differences of bias pairs"
    if clipped is not None and (clipped == "clipped").any():
        how = "bias frames that the camera clipped at zero, by the likelihood of the pixels above"
    return Words(
        f"Read noise from {how}, {count} frames an ISO; bars: 1σ. Mean of the channels: "
        f"{text}{reference}{source(result)}",
        "Read noise against ISO: in ADU it grows with ISO, in electrons it falls gently and levels off.",
    )


def shot_noise_snr(result: Any) -> Words:
    """Describe the SNR chart of a characterization."""
    ratio = result.snr["snr"].values / result.snr["snr_expected"].values
    apertures = np.unique(result.snr["aperture"].values)
    several = apertures[np.isfinite(apertures)].size > 1
    light = "Exposure is divided by the square of the f-number, as these flats are of several. " if several else ""
    return Words(
        "Signal-to-noise ratio of pairs of flats, in which shot noise rules: it grows as the square root of the "
        "electrons caught, so four times the exposure doubles it. Dashed: √N. Measured over expected, median of "
        f"{np.isfinite(ratio).sum()} points: {np.nanmedian(ratio):.3f}; read noise pulls the faintest below the line. "
        f"{light}Bars: 1σ. {source(result)}",
        "Log-log charts: the measured signal-to-noise ratio follows the square root of the number of electrons.",
    )


def dark_shot_noise_histogram(result: Any) -> Words:
    """Describe the dark shot noise of a characterization."""
    attrs = result.dark_noise.attrs
    sigma, expected = float(attrs["sigma"]), float(attrs["expected_sigma"])
    width = f"Its width is {sigma:.3f} e⁻"
    if math.isfinite(expected):
        width += f", {sigma / expected:.3f} times the {expected:.3f} e⁻ that dark shot noise and read noise predict"
    outliers = f"; {attrs['outliers']} flickering ones or hits left out" if attrs.get("outliers") else ""
    return Words(
        f"Pixel by pixel difference of two equal darks ({attrs['exposure']:g} s, ISO {attrs['iso']:g}, "
        f"{degrees(attrs['temperature'])}), divided by √2: {attrs['n_pixels']:,} pixels{outliers}. {width}. How "
        "normal it is, as effect sizes (with so many pixels any p-value is zero): KS distance "
        f"{attrs['ks_distance']:.4f}, skewness {attrs['skewness']:+.3f}, excess kurtosis "
        f"{attrs['excess_kurtosis']:+.3f}. {source(result)}",
        "A histogram of pixel differences between two darks under a bell-shaped normal curve, on linear and on "
        "logarithmic axes.",
    )


def _by_temperature(current: xr.Dataset) -> list[dict[str, int]]:
    return [{"setting": int(index)} for index in np.argsort(current["temperature"].values, kind="stable")]


def dark_current_vs_time(result: Any) -> Words:
    """Describe the growth of the dark signal of a characterization."""
    rates = ""
    if result.dark_current is not None:
        found = [
            f"{value_text(one['dark_current'].item(), one['dark_current_error'].item())} "
            f"at {degrees(one['temperature'])}"
            for one in map(result.dark_current.isel, _by_temperature(result.dark_current))
            if math.isfinite(float(one["dark_current"]))
        ]
        rates = f"The slope of each line is the dark current in e⁻/s/pixel: {listing(found)}. " if found else ""
    return Words(
        f"Mean dark signal against exposure time, hot pixels included, {int(result.dark_signal['frames'].sum())} "
        f"darks; bars: 1σ. {rates}{source(result)}",
        "Straight lines rising with exposure time; the warmer the sensor, the steeper.",
    )


def dark_current_vs_temperature(result: Any) -> Words:
    """Describe the temperature law of a characterization."""
    law = result.dark_law
    doubling = value_text(float(law["doubling_temperature"]), float(law["doubling_temperature_error"]), "K")
    reference = value_text(float(law["dark_current_reference"]), float(law["dark_current_reference_error"]))
    temperatures = np.unique(result.dark_current["temperature"].values)
    return Words(
        f"Mean dark current against sensor temperature, {temperatures[np.isfinite(temperatures)].size} temperatures; "
        f"bars: 1σ. It doubles every {doubling}: {reference} e⁻/s/pixel at "
        f"{degrees(round(float(law['reference_temperature']), 1))}. Shaded: where the law lies with 68 % confidence. "
        f"{source(result)}",
        "Dark current on a logarithmic axis rises along a straight line with temperature.",
    )


def shot_noise_demo(_result: Any = None) -> Words:
    """Describe the demonstration."""
    return Words(
        "Particles fall at random on an ideal detector, on average 100 in an exposure of length 1; it misses none and "
        "adds no noise of its own. Yet the count differs from exposure to exposure: with N particles on average it "
        "scatters by √N, so the signal-to-noise ratio is N/√N = √N. Four times the exposure doubles it. Simulated "
        "data: Poisson counts; bars: 1σ of the ratio.",
        "Squares speckled with randomly placed dots, few for a short and many for a long exposure, and a chart in "
        "which the signal-to-noise ratio follows the square root of the exposure.",
    )


def ccd_vs_cmos(_result: Any = None) -> Words:
    """Describe the diagram of the two readouts."""
    return Words(
        "CCD: the charge itself travels. Row by row the electrons are shifted down into the serial register, then "
        "pixel by pixel to one output amplifier and one converter: every pixel has the same gain and the same read "
        "noise, and readout takes long. CMOS: an amplifier in every pixel turns its charge into a voltage on the "
        "spot; a row is selected and all its columns are converted at once: fast and low in noise, at the price of "
        "small differences from pixel to pixel and column to column, which bias frames and flats show. A drawing, not "
        "a measurement.",
        "Two diagrams of a four by four sensor. Left, CCD: arrows lead down through the pixels into a register, along "
        "it to the right, and through one amplifier and one converter. Right, CMOS: each pixel holds its own "
        "amplifier, one row is selected, and each column leads down to its own converter.",
    )


def electrons(units: str) -> str:
    """Write a unit as the charts do.

    Examples
    --------
    >>> electrons("e-/s"), electrons("ADU")
    ('e⁻/s', 'ADU')
    """
    return units.replace("e-", "e⁻")


def _of(data: xr.Dataset) -> str:
    """Say at which setting a map of dark current was taken."""
    attrs = data.attrs
    return f"at {degrees(attrs.get('temperature', math.nan))}, ISO {float(attrs.get('iso', math.nan)):g}"


def dcnu_histogram(result: Any) -> Words:
    """Describe the spread of the dark current of a characterization."""
    attrs, unit = result.dcnu.attrs, electrons(result.dcnu.attrs["units"])
    spread = ""
    if result.dark_current is not None:
        same = [
            one
            for one in map(result.dark_current.isel, _by_temperature(result.dark_current))
            if float(one["iso"]) == attrs.get("iso") and float(one["temperature"]) == attrs.get("temperature")
        ]
        if same and math.isfinite(float(same[0]["dcnu"])):
            dcnu = value_text(float(same[0]["dcnu"]), float(same[0]["dcnu_error"]), "e⁻/s")
            spread = f"The non-uniformity (DCNU), their standard deviation without temporal noise, is {dcnu}. "
    beyond = f"{attrs['beyond']:,} hotter pixels lie beyond the right edge. " if attrs.get("beyond") else ""
    return Words(
        f"How many of {attrs['n_pixels']:,} pixels have which dark current, {_of(result.dcnu)}. Most lie about the "
        f"median of {value_text(attrs['median'])} {unit}; the tail on the right are hot pixels, which lift the mean "
        f"to {value_text(attrs['mean'])} {unit}. {spread}{beyond}{source(result)}",
        "A histogram with a logarithmic count axis: a narrow peak and a long thin tail towards high dark currents.",
    )


def hot_pixels(result: Any) -> Words:
    """Describe the hot pixels of a characterization."""
    hot = result.hot_pixels
    unit = electrons(hot.attrs["units"])
    total = hot.attrs["height"] * hot.attrs["width"]
    lost = int(np.isnan(hot["dark_current"].values).sum())
    typical = float(hot["threshold"][0])
    above = float(np.interp(5 * typical, hot["threshold"].values, hot["fraction"].values)) * total
    saturated = f"{lost} of them, gold, saturate. " if lost else ""
    return Words(
        f"How many in a million pixels exceed a dark current, {_of(hot)}; {above:,.0f} of {total:,} pixels lie above "
        f"{value_text(5 * typical)} {unit}, five times the lowest shown. The dots are the {hot.sizes['point']} "
        f"hottest. {saturated}{source(result)}",
        "Left, a curve on logarithmic axes that falls steeply and then runs out slowly: few pixels are very hot. "
        "Right, the hottest pixels as dots scattered at random over the frame.",
    )


def vignette(result: Any) -> Words:
    """Describe the vignetting of a characterization."""
    data = result.vignetting
    edge = 100 * float(data["profile"].isel(radius=-1).mean())
    many = int(data.attrs["frames"])
    return Words(
        f"The mean of {many} {'flat' if many == 1 else 'flats'} as a picture, each channel divided by its value in "
        f"the centre, and the same along the distance from the centre: at the corners {edge:.1f} % of the light is "
        f"left. Bars: 1σ of the ring's mean. {source(result)}",
        "A picture that is bright in the middle and darker towards the corners, and a curve falling with the distance "
        "from the centre.",
    )


def hot_limit(master: np.ndarray) -> float:
    """Return how far above the median a pixel of a master dark counts as hot: 10 robust σ."""
    return 10 * 1.4826 * float(np.nanmedian(np.abs(master - np.nanmedian(master))))


def dark_subtraction(result: Any) -> Words:
    """Describe the dark subtraction of a characterization."""
    data = result.dark_subtraction
    attrs, unit = data.attrs, electrons(data.attrs["units"])
    master = (data["before"] - data["after"]).values
    hot = int(np.sum(master - np.nanmedian(master) > hot_limit(master)))
    if attrs["kind"] == "light":
        kept = "A light"
        rest = "stars and sky stay"
    else:
        kept = "A dark that is not in the master"
        rest = (
            f"the standard deviation of the frame falls from {value_text(attrs['std_before'])} to "
            f"{value_text(attrs['std_after'])} {unit}, where temporal noise alone leaves "
            f"{value_text(attrs['expected_std'])}"
        )
    return Words(
        f"{kept} ({attrs['filename']}; {attrs['exposure']:g} s, ISO {attrs['iso']:g}, "
        f"{degrees(attrs['temperature'])}) before and after a master of {attrs['darks']} darks is subtracted, and "
        f"that master, on one grey scale: the part with the most hot pixels. In {master.shape[1]} x {master.shape[0]} "
        f"pixels around it {hot} stand more than 10 robust σ above the master's median, and go; {rest}. "
        f"{source(result)}",
        "Three pictures of the same part of a frame: the frame with bright dots, the hot pixels; the master dark, "
        "which holds only those; the frame without them.",
    )
