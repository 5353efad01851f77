"""EMVA 1288 (release 4.0, linear), under the names that the standard's reference implementation gives its quantities.

The temporal half rests on a table with one row a light level: exposure, light, mean and temporal variance of the
illuminated pair, and of the dark pair of the same exposure.  The spatial half rests on stacks of a dark and of a
half-saturated picture, as do the spectrograms of the fixed pattern.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from ..core.cube import channels_of, first_green
from ..core.errors import WorkbenchError
from ..core.mosaic import require_lattice
from ..core.pairs import QUANTISATION_VARIANCE
from ..core.statistics import fit_line
from .spatial import INNER, MARGIN, deviation_products, highpass, inner_lowpass, spatial_parts
from .stacks import FrameStack

_FLOOR = 0.24  # DN²: a smaller dark variance is hidden by the rounding
_SENSITIVITY = 0.7  # of saturation: the gain is fitted up to here
_LINEAR = (0.05, 0.95)  # of saturation: between these the linearity error is taken
_SHOWN = 200, 300  # px of the middle that the picture of the fixed pattern shows
_PARTS = ("", "_row", "_col", "_pixel")
_OF_DARK_STACK = ("u_y_dark_stack", "sigma_2_y_stack_dark", "s_2_y_measured_dark", "s_2_y_dark")
_OF_BRIGHT_STACK = ("u_y_stack", "sigma_2_y_stack", "s_2_y_measured", "s_2_y")


_UNITS = {
    "K": "DN/e-", "inverse_K": "e-/DN", "R": "DN/p", "QE": "%", "sigma_y_dark": "DN", "sigma_d": "e-", "u_p_min": "p",
    "u_e_min": "e-", "u_p_sat": "p", "u_e_sat": "e-", "SNR_max": "1", "SNR_max_dB": "dB", "SNR_max_bit": "bit",
    "inverse_SNR_max": "%", "DR": "1", "DR_dB": "dB", "DR_bit": "bit", "LE_min": "%", "LE_max": "%", "u_I_mean": "e-/s",
    "u_I_var": "e-/s", "index_u_ysat": "1", "u_y_dark_stack": "DN", "u_y_stack": "DN",
}  # fmt: skip


def emva_unit(name: str) -> str:
    """Return the unit of a quantity under its EMVA name.

    Examples
    --------
    >>> emva_unit("DSNU1288_row_highpass"), emva_unit("DSNU1288_DN"), emva_unit("PRNU1288")
    ('e-', 'DN', '%')
    """
    if name.startswith("DSNU1288"):
        return "DN" if "_DN" in name else "e-"
    return "%" if name.startswith("PRNU1288") else _UNITS.get(name, "DN²")


def emva_temporal(
    exposure: ArrayLike,
    light: ArrayLike | None,
    mean: ArrayLike,
    variance: ArrayLike,
    mean_dark: ArrayLike,
    variance_dark: ArrayLike,
) -> dict[str, float]:
    """Return the standard's temporal quantities.

    K, the slope of (σ²_y − σ²_dark) on (μ_y − μ_dark), through the origin, unweighted, over the levels up to 70 % of
    saturation, which is the level of the greatest variance; R, the slope of μ_y − μ_dark on the light over the same
    levels, through the origin; η = R/K; σ_y.dark² the dark variance at exposure zero (a line over more than two
    exposures, else the first), at least 0.24 DN²; σ_d = √(σ_y.dark² − 1/12)/K; μ_e.min = σ_y.dark/K + ½,
    μ_p.min = μ_e.min/η; μ_p.sat the light at saturation, μ_e.sat = η μ_p.sat; SNR_max = √μ_e.sat;
    DR = μ_p.sat/μ_p.min; the linearity error, greatest and least (y − fit)/fit from 5 to 95 % of saturation, of a line
    with weights 1/y²; dark current from the means (slope/K) and from the variances (slope/K²; up to 2015 the reference
    implementation gave the root of that), with more than two exposures (release 4.0 linear, sections 6.5 to 7.1).

    Parameters
    ----------
    exposure
        Of each level, rising [s].
    light
        Photons per pixel; None takes the exposure (a constant lamp), and what needs photons (R, η, μ_p) is NaN.
    mean, variance
        Of the illuminated pairs, one a level, rising [DN, DN²].
    mean_dark, variance_dark
        Of the dark pairs of the same exposures [DN, DN²].

    Raises
    ------
    WorkbenchError
        If the columns differ in length, nothing lies below saturation, or the levels do not rise above the dark.

    Examples
    --------
    >>> seconds = np.arange(1.0, 9)
    >>> mean = 20 + np.minimum(100 * seconds, 700)
    >>> found = emva_temporal(seconds, 800 * seconds, mean, 9 + 0.25 * (mean - 20) * (seconds < 8), np.full(8, 20.0),
    ...                       np.full(8, 9.0))
    >>> found["K"], found["QE"], found["u_e_sat"], round(found["sigma_d"], 2)
    (0.25, 50.0, 2800.0, 11.94)
    """
    columns = [np.asarray(column, float) for column in (mean, variance, mean_dark, variance_dark, exposure)]
    columns.append(columns[-1] if light is None else np.asarray(light, float))
    if len({column.shape for column in columns}) > 1 or columns[0].ndim != 1 or columns[0].size < 2:
        raise WorkbenchError("every column needs one number a light level, and there must be two levels or more")
    level, noise, dark, dark_noise, seconds, amount = columns
    photon = np.nan if light is None else 1.0
    signal = level - dark
    top = saturation_index(noise)
    inside = np.flatnonzero(signal <= _SENSITIVITY * signal[top])
    if not inside.size:
        raise WorkbenchError("no light level lies below 70 % of saturation; add fainter ones")
    used = slice(inside[-1] + 1)
    if not ((signal[used] > 0).any() and (amount[used] > 0).any()):
        raise WorkbenchError("the light levels do not rise above the dark: is the light on, are the columns swapped?")
    gain = float(fit_line(signal[used], (noise - dark_noise)[used], through_origin=True).slope)
    response = float(fit_line(amount[used], signal[used], through_origin=True).slope)
    efficiency = response / gain
    dark_slope, noise_slope, dark_variance = np.nan, np.nan, dark_noise[0]
    if np.unique(seconds).size > 2:
        by_time = fit_line(seconds, np.stack([dark, dark_noise]))
        (dark_slope, noise_slope), dark_variance = by_time.slope, by_time.intercept[1]
    dark_variance = max(float(dark_variance), _FLOOR)
    sigma = float(np.sqrt(dark_variance))
    least = sigma / gain + 0.5
    most = efficiency * amount[top]
    found = {
        "K": gain,
        "inverse_K": 1 / gain,
        "R": response * photon,
        "QE": 100 * efficiency * photon,
        "sigma_y_dark": sigma,
        "sigma_d": float(np.sqrt(dark_variance - QUANTISATION_VARIANCE)) / gain,
        "u_p_min": least / efficiency * photon,
        "u_e_min": least,
        "u_p_sat": amount[top] * photon,
        "u_e_sat": most,
        "SNR_max": np.sqrt(most),
        "SNR_max_dB": 10 * np.log10(most),
        "SNR_max_bit": np.log2(most) / 2,
        "inverse_SNR_max": 100 / np.sqrt(most),
        "DR": most / least,
        "DR_dB": 20 * np.log10(most / least),
        "DR_bit": np.log2(most / least),
        **_linearity(amount, signal, top),
        "u_I_mean": dark_slope / gain,
        "u_I_var": noise_slope / gain**2 if noise_slope >= 0 else np.nan,
        "index_u_ysat": top,
    }
    return {name: float(value) for name, value in found.items()}


def saturation_index(variance: np.ndarray) -> int:
    """Return the number of the level where the sensor saturates: the brightest with more variance than the two below.

    Examples
    --------
    >>> saturation_index(np.array([1.0, 2, 3, 5, 4.9, 6, 2, 0, 0]))
    5
    """
    higher = 2 + np.flatnonzero((variance[2:] > variance[1:-1]) & (variance[2:] > variance[:-2]))
    return int(higher[-1]) if higher.size else int(np.argmax(variance))


def _linearity(light: np.ndarray, signal: np.ndarray, top: int) -> dict[str, float]:
    """Return the least and the greatest relative deviation from the line [%].

    NaN for fewer than three levels, and where all are of one exposure (the lamp was varied).
    """
    share = signal / signal[top]
    first, last = np.flatnonzero(share >= _LINEAR[0]), np.flatnonzero(share <= _LINEAR[1])
    if not first.size or not last.size or last[-1] - first[0] < 2:
        return {"LE_min": np.nan, "LE_max": np.nan}
    x, y = light[first[0] : last[-1] + 1], signal[first[0] : last[-1] + 1]
    if np.ptp(x) == 0:
        return {"LE_min": np.nan, "LE_max": np.nan}
    line = fit_line(x, y, 1 / y**2)
    deviation = 100 * (y / (line.slope * x + line.intercept) - 1)
    return {"LE_min": float(deviation.min()), "LE_max": float(deviation.max())}


class _SpatialVariance(NamedTuple):
    mean: float
    stack: float  # temporal variance of one frame [DN²]
    measured: float  # spatial variance of the mean picture, temporal noise and all [DN²]
    parts: np.ndarray  # without: total, row, column, pixel [DN²]
    highpass: np.ndarray  # the same, high-passed


def emva_spatial(dark: FrameStack, bright: FrameStack | None, system_gain: float, channel: int = 0) -> dict[str, float]:
    """Return DSNU, PRNU and what they are made of.

    s² = Var(mean of L frames) − σ²_stack/L, σ²_stack the mean over the pixels of their variance (ddof 1) over the
    frames; DSNU = s_dark/K [e⁻]; PRNU = √(s²_50 − s²_dark)/(μ_50 − μ_dark) [%] (release 4.0 linear, sections 8.2 and
    8.3).  ``DSNU1288`` and ``PRNU1288`` are of the plain pictures, as the reference implementation has them: the fall
    of light to the corners counts.  Those that end in ``_highpass`` are of high-passed pictures, as section 8.1 has
    them, with what white noise loses there put back.  Each has the parts ``_row``, ``_col``, ``_pixel``.  A variance
    that comes out negative gives NaN.

    Parameters
    ----------
    dark, bright
        From `stack_frames`: the standard asks for 50 or more of each, one exposure, the bright ones at half of
        saturation.  Without bright ones PRNU is NaN.
    system_gain
        K [DN/e⁻].
    channel
        Of a camera with a mosaic.

    Raises
    ------
    WorkbenchError
        If a stack is of a single frame, smaller than the high-pass needs, or the bright one is not bright.

    Examples
    --------
    >>> from workbench.pixels import stack_frames
    >>> rng = np.random.default_rng(1)
    >>> pattern = rng.normal(0, 0.5, (64, 96))
    >>> dark = stack_frames(20 + pattern + rng.normal(0, 3, (20, 64, 96)))
    >>> light = 500 * rng.normal(1, 0.01, (64, 96))
    >>> bright = stack_frames(20 + pattern + light + rng.normal(0, 12, (20, 64, 96)))
    >>> found = emva_spatial(dark, bright, 0.5)
    >>> round(found["DSNU1288"], 1), round(found["PRNU1288"], 1)
    (1.0, 1.0)
    """
    zero = _spatial_variance(dark, channel)
    nothing = np.full(len(_PARTS), np.nan)
    lit = _SpatialVariance(np.nan, np.nan, np.nan, nothing, nothing)
    if bright is not None:
        lit = _spatial_variance(bright, channel)
    signal = lit.mean - zero.mean
    if signal <= 0:
        raise WorkbenchError(
            f"the bright stack ({lit.mean:.4g} DN) is not brighter than the dark one ({zero.mean:.4g} DN); "
            "are they swapped?"
        )
    found = dict(zip(_OF_DARK_STACK, (*zero[:3], zero.parts[0]), strict=True))
    found |= zip(_OF_BRIGHT_STACK, (*lit[:3], lit.parts[0]), strict=True)
    for label, offsets, whole in (("", zero.parts, lit.parts), ("_highpass", zero.highpass, lit.highpass)):
        dsnu, prnu = (np.sqrt(np.where(part >= 0, part, np.nan)) for part in (offsets, whole - offsets))
        for name, values in (
            ("DSNU1288", dsnu / system_gain),
            ("DSNU1288_DN", dsnu),
            ("PRNU1288", 100 * prnu / signal),
        ):
            found |= {f"{name}{part}{label}": value for part, value in zip(_PARTS, values, strict=True)}
    return {name: float(value) for name, value in found.items()}


def _spatial_variance(stack: FrameStack, channel: int) -> _SpatialVariance:
    mean, variance = stack.plane("mean", channel), stack.plane("variance", channel)
    noise = float(variance.mean(dtype=float))
    measured = deviation_products(mean, mean).pixels[0] / (mean.size - 1)
    # white noise of the mean picture is in the total, and in the single pixels' part of it
    white = np.array([1.0, 0.0, 0.0, 1.0]) * noise / stack.count
    plain = spatial_parts(mean, ddof=0) - white
    passed = spatial_parts(highpass(mean), filtered=True) - white
    level = float(mean.mean(dtype=float)) + float(stack.black[channel])
    return _SpatialVariance(level, noise, measured, plain, passed)


def fixed_pattern(stack: FrameStack, channel: str | None = None, *, relative: bool = False) -> xr.Dataset:
    """Return what is fixed in a stack of equal frames, high-passed, of one channel.

    The spectrogram is the mean over the rows (columns) of the power spectrum of each, as a standard deviation
    (EMVA 1288 release 4.0 linear, section 8.6): white noise lies at its own standard deviation, stripes stand out as
    peaks.  ``noise`` is what temporal noise leaves of it in the mean of the frames.

    Parameters
    ----------
    stack
        From `stack_cube`.
    channel
        The first green, or mono, where none is named.
    relative
        Of flats: in % of the smoothed flat instead of ADU.

    Returns
    -------
    xarray.Dataset
        ``picture`` (y, x), the middle of it; ``row_profile`` (row) and ``column_profile`` (column), means of rows and
        columns; ``along_rows`` and ``along_columns`` (frequency) [cycles a pixel of the channel]; scalar ``noise``.

    Raises
    ------
    WorkbenchError
        If the channel is unknown, the picture too small, or the mosaic X-Trans.

    Examples
    --------
    >>> from workbench.pixels import stack_frames
    >>> y = np.random.default_rng(1).normal(600, 3, (4, 64, 96)) + np.tile([0.0, 2.0], 48)
    >>> found = fixed_pattern(stack_frames(y))
    >>> float(found.along_rows.idxmax())
    0.5
    """
    require_lattice(stack.pattern, "a picture of the fixed pattern")
    names = channels_of(stack.pattern)
    if channel is None:
        channel = first_green(names)
    if channel not in names:
        raise WorkbenchError(f"channel {channel!r} is unknown; the channels are {', '.join(names)}")
    number = names.index(channel)
    mean = stack.plane("mean", number)
    smooth = inner_lowpass(mean)
    pattern = mean[INNER] - smooth
    unit, factor = "adu", 1.0
    if relative:
        pattern *= 100 / smooth
        unit, factor = "%", 100 / float(mean.mean(dtype=float))
    pattern -= pattern.mean(dtype=float)
    noise = np.nan
    if stack.variance is not None:
        noise = factor * float(np.sqrt(stack.plane("variance", number).mean(dtype=float) / stack.count))
    spectra = [_spectrogram(pattern), _spectrogram(pattern.T)]
    # both on the frequencies of the shorter side
    frequency = np.fft.rfftfreq(min(pattern.shape))[1:]
    along = [
        np.interp(frequency, np.fft.rfftfreq(size)[1:], spectrum)
        for size, spectrum in zip(pattern.shape[::-1], spectra, strict=True)
    ]
    top, left = (max(0, (size - shown) // 2) for size, shown in zip(pattern.shape, _SHOWN, strict=True))
    picture = pattern[top : top + _SHOWN[0], left : left + _SHOWN[1]]
    attrs = {"units": unit}
    return xr.Dataset(
        {
            "picture": (("y", "x"), picture, attrs | {"long_name": "fixed pattern"}),
            "row_profile": ("row", pattern.mean(axis=1, dtype=float), attrs | {"long_name": "mean of a row"}),
            "column_profile": ("column", pattern.mean(axis=0, dtype=float), attrs | {"long_name": "mean of a column"}),
            "along_rows": ("frequency", along[0], attrs | {"long_name": "spectrogram along the rows"}),
            "along_columns": ("frequency", along[1], attrs | {"long_name": "spectrogram along the columns"}),
            "noise": ((), noise, attrs | {"long_name": "temporal noise of the mean"}),
        },
        {
            "y": ("y", np.arange(picture.shape[0]) + top + MARGIN, {"units": "pix"}),
            "x": ("x", np.arange(picture.shape[1]) + left + MARGIN, {"units": "pix"}),
            "row": ("row", np.arange(pattern.shape[0]) + MARGIN, {"units": "pix"}),
            "column": ("column", np.arange(pattern.shape[1]) + MARGIN, {"units": "pix"}),
            "frequency": ("frequency", frequency, {"units": "1 / pix", "long_name": "spatial frequency"}),
        },
        {"channel": channel, "frames": stack.count, "units": unit},
    )


def _spectrogram(pattern: np.ndarray) -> np.ndarray:
    """Return the root of the mean power along the second axis, without the frequency zero, of some hundred lines."""
    lines = pattern[:: max(1, pattern.shape[0] // 600)]
    power = np.abs(np.fft.rfft(lines, axis=1, norm="ortho")) ** 2
    return np.sqrt(power.mean(axis=0)[1:])


def emva_dark_current(current: xr.Dataset | None) -> dict[str, float]:
    """Return the standard's dark current, of the warmest setting with more than two exposures."""
    if current is None or not current.sizes["setting"]:
        return {}
    enough = np.flatnonzero((current["exposures"].values > 2) & np.isfinite(current["dark_current"].values))
    if not enough.size:
        return {}
    warmest = enough[np.argmax(np.nan_to_num(current["temperature"].values[enough], nan=-300.0))]
    names = {"u_I_mean": "dark_current", "u_I_var": "dark_current_variance"}
    return {emva: float(current[name].values[warmest]) for emva, name in names.items()}
