"""EMVA 1288 (release 4.0, linear) from images, or from a table of means and variances.

The temporal half rests on a table with one row a light level: exposure, light, mean and temporal variance of the
illuminated pair, and of the dark pair of the same exposure (`emva_points` makes it from images).  The spatial half
rests on stacks of a dark and of a half-saturated picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from ..core.errors import WorkbenchError
from ..core.pairs import QUANTISATION_VARIANCE
from ..core.statistics import fit_line
from .spatial import deviation_products, highpass, spatial_parts
from .stacks import FrameStack, stack_frames

_FLOOR = 0.24  # DN²: a smaller dark variance is hidden by the rounding
_SENSITIVITY = 0.7  # of saturation: the gain is fitted up to here
_LINEAR = (0.05, 0.95)  # of saturation: between these the linearity error is taken
_PARTS = ("", "_row", "_col", "_pixel")
_OF_DARK_STACK = ("u_y_dark_stack", "sigma_2_y_stack_dark", "s_2_y_measured_dark", "s_2_y_dark")
_OF_BRIGHT_STACK = ("u_y_stack", "sigma_2_y_stack", "s_2_y_measured", "s_2_y")


def emva1288(
    pairs: Iterable[Pair] | Mapping[str, Any],
    dark_stack: FrameStack | Iterable[Any] | None = None,
    bright_stack: FrameStack | Iterable[Any] | None = None,
    *,
    photons: bool = True,
    drift: str = "kept",
    progress: Any = True,
) -> xr.Dataset:
    """Measure a camera as EMVA 1288 (release 4.0, linear) does, from arrays.

    Parameters
    ----------
    pairs
        Pairs of pictures (see `emva_points`), or the table of their means and variances that it returns.
    dark_stack, bright_stack
        Fifty or more equal pictures (y, x) without light, and as many at half of saturation, one after another; or
        what `stack_frames` made of them.  Without them the spatial quantities are left out.
    photons
        Whether the pairs' light is in photons per pixel; without it what needs them (R, QE, u_p_...) is NaN.
    drift
        ``kept`` or ``removed``, see `emva_points`.
    progress
        False for no progress bars.

    Returns
    -------
    xarray.Dataset
        Scalars under the names that the reference implementation gives them (see `emva_temporal`, `emva_spatial`),
        with units; attrs ``drift``.

    Raises
    ------
    WorkbenchError
        If pictures are missing or do not fit together.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> def shoot(light):
    ...     return np.minimum(np.round(20 + rng.normal(0, 2, (64, 64)) + rng.poisson(light, (64, 64)) / 4), 1000)
    >>> levels = [0, *np.geomspace(20, 5000, 25)]
    >>> pairs = [(1.0, light, shoot(light), shoot(light)) for light in levels]
    >>> found = emva1288(pairs, [shoot(0) for _ in range(9)], [shoot(2000) for _ in range(9)], progress=False)
    >>> round(found.K.item(), 2), round(found.QE.item())
    (0.25, 99)
    """
    table = pairs if isinstance(pairs, Mapping) else emva_points(pairs, drift=drift)
    found = emva_temporal(**table, photons=photons)
    if dark_stack is None and bright_stack is not None:
        raise WorkbenchError("PRNU needs the dark stack as well as the bright one")
    dark, bright = (
        stack if stack is None or isinstance(stack, FrameStack) else stack_frames(stack, progress=progress)
        for stack in (dark_stack, bright_stack)
    )
    found |= emva_spatial(dark, bright, found["K"]) if dark is not None else {}
    result = xr.Dataset(found, attrs={"long_name": "EMVA 1288 release 4.0, linear", "drift": drift})
    for name, value in result.items():
        unit, title = emva_unit(str(name)), _TITLES.get(str(name), str(name))
        value.attrs = {"units": _ASTROPY.get(unit, unit), "long_name": title}
    return result


Pair = tuple[float, float, Any, Any]  # exposure [s], light (photons a pixel; 0 in the dark), two pictures (y, x) [DN]


def emva_points(pairs: Iterable[Pair], *, drift: str = "kept") -> dict[str, np.ndarray]:
    """Return mean and temporal variance of pairs of pictures, and those of the dark pair at each light level.

    μ = (μ_A + μ_B)/2; σ² = ½⟨(y_A − y_B)²⟩, less ½(μ_A − μ_B)² where `drift` is ``removed`` (a lamp that drifts
    between the two otherwise counts as noise; the reference implementation keeps it).  Pairs are taken one by one as
    they come, so a generator that reads files needs the memory of two pictures.

    Parameters
    ----------
    pairs
        (exposure [s], light, first, second) each: dark ones have light 0, and every exposure of a bright one needs
        one, unless there is a single dark pair for all.
    drift
        ``kept`` or ``removed``.

    Returns
    -------
    dict
        ``exposure``, ``light``, ``mean``, ``variance``, ``mean_dark``, ``variance_dark``, one number a light level,
        rising: what `emva_temporal` takes.

    Raises
    ------
    WorkbenchError
        If a dark pair is missing, or two pictures differ in shape.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> pairs = [(0.1, light, *rng.normal(20 + light / 2, 3, (2, 50, 50))) for light in (0, 100, 200)]
    >>> points = emva_points(pairs)
    >>> points["mean"].round().tolist(), points["mean_dark"].round().tolist()
    ([70.0, 120.0], [20.0, 20.0])
    """
    if drift not in ("kept", "removed"):
        raise WorkbenchError(f"drift is 'kept' or 'removed', not {drift!r}")
    rows = [(float(time), float(light), *_moments(one, other, drift)) for time, light, one, other in pairs]
    bright = sorted(row for row in rows if row[1] > 0)
    dark = {row[0]: row[2:] for row in rows if row[1] <= 0}
    if len(bright) < 2 or not dark:
        raise WorkbenchError(
            f"EMVA 1288 needs two light levels or more and a dark pair; there are {len(bright)} and {len(dark)}"
        )
    lacking = sorted({row[0] for row in bright} - set(dark))
    if lacking and len(dark) > 1:
        raise WorkbenchError(
            f"no dark pair of {lacking[0]:g} s ({len(lacking)} exposures lack one); every exposure needs its own"
        )
    only = next(iter(dark.values()))
    table = np.array([(*row, *dark.get(row[0], only)) for row in bright])
    names = ("exposure", "light", "mean", "variance", "mean_dark", "variance_dark")
    return dict(zip(names, table.T, strict=True))


def _moments(first: Any, second: Any, drift: str) -> tuple[float, float]:
    """Return mean and temporal variance of a pair of pictures (y, x) [DN, DN²]."""
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape or first.ndim != 2:
        raise WorkbenchError(f"a pair has shapes {first.shape} and {second.shape}; it needs two pictures of one shape")
    exact = np.issubdtype(first.dtype, np.integer)
    difference = np.subtract(first, second, dtype=np.int64 if exact else float).ravel()
    means = first.mean(dtype=float), second.mean(dtype=float)
    half = float(difference @ difference) / difference.size / 2
    if drift == "removed":
        half -= (means[0] - means[1]) ** 2 / 2
    return (means[0] + means[1]) / 2, half


_UNITS = {
    "K": "DN/e-", "inverse_K": "e-/DN", "R": "DN/p", "QE": "%", "sigma_y_dark": "DN", "sigma_d": "e-", "u_p_min": "p",
    "u_e_min": "e-", "u_p_sat": "p", "u_e_sat": "e-", "SNR_max": "1", "SNR_max_dB": "dB", "SNR_max_bit": "bit",
    "inverse_SNR_max": "%", "DR": "1", "DR_dB": "dB", "DR_bit": "bit", "LE_min": "%", "LE_max": "%", "u_I_mean": "e-/s",
    "u_I_var": "e-/s", "index_u_ysat": "1", "u_y_dark_stack": "DN", "u_y_stack": "DN",
}  # fmt: skip
_TITLES = {
    "K": "system gain", "inverse_K": "inverse system gain", "R": "responsivity", "QE": "quantum efficiency",
    "sigma_y_dark": "temporal dark noise", "sigma_d": "temporal dark noise",
    "u_p_min": "absolute sensitivity threshold", "u_e_min": "absolute sensitivity threshold",
    "u_p_sat": "saturation capacity", "u_e_sat": "saturation capacity",
    "SNR_max": "greatest signal-to-noise ratio", "DR": "dynamic range", "LE_min": "linearity error, least",
    "LE_max": "linearity error, greatest", "u_I_mean": "dark current from the means",
    "u_I_var": "dark current from the variances",
}  # fmt: skip
# what astropy calls the standard's units
_ASTROPY = {"DN/e-": "adu / electron", "e-/DN": "electron / adu", "DN/p": "adu / photon", "DN": "adu", "e-": "electron"}
_ASTROPY |= {"e-/s": "electron / s", "p": "photon"}


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
    *,
    photons: bool = True,
) -> dict[str, float]:
    """Return the standard's temporal quantities under the names of its reference implementation.

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
        Photons per pixel, or anything proportional to them; None takes the exposure (a constant lamp).
    mean, variance
        Of the illuminated pairs, one a level, rising [DN, DN²].
    mean_dark, variance_dark
        Of the dark pairs of the same exposures [DN, DN²].
    photons
        Whether `light` is in photons; without it what needs them (R, η, μ_p) is NaN.

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
    photon = 1.0 if photons and light is not None else np.nan  # what needs photons is NaN without them
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
    """Return the least and the greatest relative deviation from the line [%]; NaN for fewer than three levels."""
    share = signal / signal[top]
    first, last = np.flatnonzero(share >= _LINEAR[0]), np.flatnonzero(share <= _LINEAR[1])
    if not first.size or not last.size or last[-1] - first[0] < 2:
        return {"LE_min": np.nan, "LE_max": np.nan}
    x, y = light[first[0] : last[-1] + 1], signal[first[0] : last[-1] + 1]
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
    """Return DSNU, PRNU and what they are made of, under the names of the standard's reference implementation.

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
