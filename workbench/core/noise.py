"""The noise model: what each source adds to the variance of a light frame's pixel.

One formula a term, so that measurement, planning and pictures speak of the same noise:

- light: Poisson's law, the variance of n electrons is n;
- dark current: the same, D t electrons in the time t;
- read noise: σ_R², however long the exposure is;
- response: the pixels' responses differ by PRNU, an error of p n that no longer exposure averages out until a flat
  takes it away;
- rounding to whole ADU: g²/12; to steps of s ADU, where 12 or 14 bits are saved in 16, (s g)²/12.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy import special

from .dark import dark_current_at
from .errors import WorkbenchError
from .mosaic import planes, tiles
from .settings import in_words_of, setting_dim
from .statistics import weighted_by_errors
from .values import value_text

_DISAGREES = 3.0  # errors of a measured gain
_ROUNDED = 0.005  # of the gain: to what headers round it
_BLOCK = 16  # pixels of a channel, along a side
SOURCES = ("light", "dark current", "read noise", "response", "rounding")


def code_step(values: np.ndarray) -> int:
    """Return the step of codes [ADU]: 16 or 4 where a converter of 12 or 14 bits is saved in 16, mostly 1.

    The greatest power of two, from 4 on, that divides all differences of the codes; 65,535, where files are cut off,
    does not count.  It is 0 for numbers that are not whole (but for an offset that all have in common), and 1 where
    fewer than three codes occur.  Rounding to a step s adds a variance of s²/12.

    Examples
    --------
    >>> y = np.random.default_rng(0).normal(50, 3, 1000).round().astype("uint16")
    >>> code_step(y), code_step(16 * y), code_step(4 * y + 1), code_step(y / 2), code_step(16 * y + 0.3)
    (1, 16, 4, 0, 16)
    """
    codes = np.unique(values[np.isfinite(values)])
    if not np.issubdtype(values.dtype, np.integer):
        codes = codes - codes[:1]
        if (np.abs(codes - codes.round()) > 1e-2).any():
            return 0
    codes = codes.round().astype(np.int64)
    codes = codes[codes < 65_535]
    common = int(np.gcd.reduce(np.diff(codes))) if codes.size > 2 else 1
    step = common & -common
    return step if step >= 4 else 1  # twos are left out by cameras that multiply or compress


def stated_gain(
    egain: float, step: int, where: str, known: Any = math.nan, error: Any = math.nan, *, by: str = "the flats"
) -> tuple[float, str]:
    """Compare ``EGAIN`` of a header with a measured gain; returns it [e⁻/ADU] and a sentence.

    ``EGAIN`` is e⁻ a step of the converter, or e⁻/ADU; they differ where codes come in steps of several ADU.  Against a
    measured gain the nearer of the two counts, without one the first.  They disagree beyond three errors of the gain
    and half a per cent, to which headers may be rounded; where they agree the sentence is empty.

    Parameters
    ----------
    step
        Of the codes [ADU].
    where
        The setting in words.
    known, error
        Measured gain of each channel [e⁻/ADU] and its error; NaN without.
    by
        What measured it.

    Examples
    --------
    >>> stated_gain(4.0, 16, "gain setting 0", 0.2501, 0.0004)
    (0.25, '')
    >>> stated_gain(4.0, 1, "gain setting 0")[1].split(":")[0]
    'the gain at gain setting 0 is what the headers state, EGAIN 4 e-/ADU'
    """
    unit = max(step, 1)
    mean, doubt = weighted_by_errors(np.atleast_1d(known), np.atleast_1d(error))
    if not math.isfinite(mean):
        per = f" e-/step of {unit} ADU" if unit > 1 else " e-/ADU"
        return egain / unit, (
            f"the gain at {where} is what the headers state, EGAIN {egain:g}{per}: it is not measured and has no "
            "error; pairs of flats would show it"
        )
    claim = min((egain / unit, egain), key=lambda one: abs(math.log(one / mean)))
    if abs(claim - mean) <= _DISAGREES * math.hypot(doubt, _ROUNDED * claim):
        return claim, ""
    return claim, (
        f"the headers state a gain of {claim:.4g} e-/ADU at {where} (EGAIN {egain:g}), {by} give "
        f"{value_text(mean, doubt)}: the measured one is used; is the lamp steady, and the header right?"
    )


class OwnNoise(NamedTuple):
    """What one light shows: scatter and level of each channel, and of all b = 1/gain with its error [ADU]."""

    scatter: np.ndarray
    level: np.ndarray
    slope: float
    error: float


def own_noise(light: np.ndarray, response: np.ndarray, cfa_pattern: str) -> OwnNoise:
    """Return the noise that a light (y, x) [ADU] shows by itself, its offset and dark signal subtracted.

    The scatter is that of differences between neighbours, over √2, without what lies beyond four sigmas, in the middle
    one of blocks of 16 x 16 pixels.  It grows with the level of the blocks, by vignetting, sky and colours: var = a + b
    level, a block's variance having the relative error √(3/n); blocks that lie off, with stars in them, are left out.
    NaN for b where the blocks are few.  `response` is the flat, 1 without: then the pixels' own response adds to b.

    Examples
    --------
    >>> rng, light = np.random.default_rng(1), np.linspace(200, 2000, 512) * np.ones((512, 1))
    >>> found = own_noise((rng.poisson(light) + rng.normal(0, 5, light.shape)) / 0.5, np.ones(light.shape), "mono")
    >>> round(1 / found.slope, 2), round(found.error / found.slope, 2)
    (0.5, 0.01)
    """
    scatter, level, blocks = [], [], []
    for (_, plane), (_, flat) in zip(planes(light, cfa_pattern), planes(response, cfa_pattern), strict=True):
        step = np.diff(plane / flat, axis=1) * flat[:, 1:] / math.sqrt(2)
        known = np.abs(step[np.isfinite(step)])
        sigma = max(float(np.percentile(known, 95)) / 1.96, 0.5)
        for _ in range(8):
            sigma = max(math.sqrt(np.square(known[known <= 4 * sigma]).mean()), 0.5)
        if min(step.shape) >= _BLOCK:
            square = np.square(np.clip(step, -4 * sigma, 4 * sigma))
            means = (tiles(values, _BLOCK).mean(axis=(2, 3)).ravel() for values in (plane[:, 1:], square))
            blocks.append(np.stack([*means]))
            sigma = math.sqrt(np.nanmedian(blocks[-1][1])) if np.isfinite(blocks[-1][1]).any() else sigma
        scatter.append(max(sigma, 0.5))
        level.append(float(np.nanmedian(plane)))
    z, v = np.concatenate(blocks, axis=1) if blocks else np.empty((2, 0))
    slope = error = math.nan
    keep = np.isfinite(z) & np.isfinite(v)
    fitted = np.where(keep, v, 1.0)
    for _ in range(8):
        if np.count_nonzero(keep) < 16 or not np.ptp(z[keep]) > 0:
            return OwnNoise(np.array(scatter), np.array(level), math.nan, math.nan)
        sigmas = math.sqrt(3) / _BLOCK * np.maximum(fitted, 1e-9)
        (slope, base), covariance = np.polyfit(z[keep], v[keep], 1, w=1 / sigmas[keep], cov="unscaled")
        fitted, error = base + slope * z, math.sqrt(covariance[0, 0])
        keep = np.isfinite(v) & (np.abs(v - fitted) < 4 * math.sqrt(3) / _BLOCK * np.abs(fitted))
    return OwnNoise(np.array(scatter), np.array(level), float(slope), error)


def code_step_of(cube: xr.DataArray) -> int:
    """Return the `code_step` of raw frames (frame, y, x), from the first and the last of them."""
    rows = slice(None, None, max(1, cube.sizes["y"] // 128))
    first = code_step(np.asarray(cube.data[0])[rows])
    return math.gcd(first, code_step(np.asarray(cube.data[-1])[rows])) if first > 1 else first


def mean_of_channels(values: Any, errors: Any, shared: Any = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over the last axis, the channels, of what is known, and its error.

    Own parts of the errors average out, `shared` ones do not: e² = Σ (eᵢ² - sᵢ²)/n² + (Σ sᵢ/n)².

    Examples
    --------
    >>> [part.round(3).tolist() for part in mean_of_channels([1.0, 3.0, np.nan], [0.5, 0.5, np.nan], 0.3)]
    [2.0, 0.412]
    """
    values, errors, shared = (np.asarray(part, float) for part in np.broadcast_arrays(values, errors, shared))
    known = np.isfinite(values)
    count = np.where(known.any(axis=-1), known.sum(axis=-1), np.nan)
    with np.errstate(invalid="ignore"):
        own = np.where(errors == shared, 0.0, errors**2 - shared**2)  # infinite ones, too
    sums = (np.where(known, part, 0).sum(axis=-1) for part in (values, own, shared))
    mean, own, common = (part / count for part in sums)
    return mean, np.sqrt(own / count + common**2)


def common_mean(values: np.ndarray, errors: np.ndarray, shared: Any = 0.0) -> tuple[float, float] | None:
    """Return the `mean_of_channels` of values that agree within their errors, with its error; None where they differ.

    They differ where χ² = Σ ((x − x̄)/σ)² about the weighted mean would come by chance less than once in a thousand.

    Examples
    --------
    >>> common_mean(np.array([2.12, 2.14]), np.array([0.01, 0.01]))
    (2.13, 0.0070...)
    >>> common_mean(np.array([2.26, 2.54]), np.array([0.01, 0.01])) is None
    True
    """
    known = np.isfinite(values) & np.isfinite(errors) & (errors > 0)
    if not known.all():
        return (math.nan, math.nan) if not np.isfinite(values).any() else None
    centre = np.average(values, weights=errors**-2.0)
    if special.chdtrc(values.size - 1, (((values - centre) / errors) ** 2).sum()) < 1e-3:
        return None
    mean, error = mean_of_channels(values, errors, shared)
    return float(mean), float(error)


def shared_error(sensor: xr.Dataset, name: str) -> xr.DataArray:
    """Return the part of a quantity's errors that a sensor's channels share.

    The gain's is in the read noise in proportion, none is in the black level; a dynamic range's error counts as shared,
    being mostly that of the converter's end.
    """
    if name == "dynamic_range":
        return sensor[f"{name}_error"]
    if name == "black_level" or "gain_shared_error" not in sensor:
        return xr.zeros_like(sensor[name])
    return (sensor[name] * sensor["gain_shared_error"] / sensor["gain"]).fillna(0.0)


def mean_at_settings(sensor: xr.Dataset, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over a sensor's channels of gain, read noise or dynamic range, by setting, and its error."""
    values, errors = sensor[name], sensor[f"{name}_error"]
    if "channel" not in values.dims:
        return values.values, errors.values
    parts = values, errors, shared_error(sensor, name)
    return mean_of_channels(*(part.transpose(..., "channel") for part in parts))


def error_in_mean(gain: xr.Dataset) -> np.ndarray:
    """Return errors of the channels' gain (setting, channel) that, taken as independent, give that of their mean.

    The part that channels share (``gain_shared_error``) does not average out: e² + (n − 1) e_shared² for n channels.
    """
    error = gain["gain_error"].values
    shared = np.nan_to_num(gain["gain_shared_error"].values) if "gain_shared_error" in gain else np.zeros_like(error)
    return np.sqrt(error**2 + (error.shape[-1] - 1) * shared**2)


def variance_terms(
    light: Any, *, dark: Any = 0.0, read_noise: Any = 0.0, gain: Any = 0.0, prnu: Any = 0.0
) -> dict[str, Any]:
    """Return the variance [e⁻²] that each source of `SOURCES` adds to a pixel.

    n, D t, σ_R², (p n)² and g²/12 (EMVA Standard 1288, release 4.0, section 2; rounding: uniform within one ADU).

    Parameters
    ----------
    light, dark
        Photo-electrons and dark signal of the exposure [e⁻]; numbers or arrays that go together.
    read_noise
        [e⁻ rms], quantisation not included.
    gain
        [e⁻/ADU]; 0 leaves the rounding out.
    prnu
        As a fraction (0.01 for 1 %); 0 for a frame whose flat has been applied.

    Examples
    --------
    >>> {name: round(value, 2) for name, value in variance_terms(400, dark=25, read_noise=3, gain=0.4).items()}
    {'light': 400, 'dark current': 25, 'read noise': 9, 'response': 0.0, 'rounding': 0.01}
    """
    terms = (light, dark, read_noise**2, (prnu * light) ** 2, gain**2 / 12)
    return dict(zip(SOURCES, terms, strict=True))


def noise_budget(
    sensor: xr.Dataset,
    *,
    rate: float,
    exposure: Any,
    temperature: float = 20.0,
    prnu: float = 0.0,
    channel: str | None = None,
) -> xr.Dataset:
    """Return whose noise it is: the variance by source for each ISO (or gain setting) and exposure of a light frame.

    Parameters
    ----------
    sensor
        From `workbench.open_sensor` or ``characterize(...).sensor``: gain, read noise, and the dark law.
    rate
        Light on the pixel [e⁻/s]: sky and target together.
    exposure
        Times [s].
    temperature
        Of the sensor [°C].
    prnu
        As a fraction; 0 for frames whose flat has been applied.
    channel
        Of the colours' gain and read noise; the mean over them by default.

    Returns
    -------
    Dataset over (source, iso or gain_setting, exposure): ``variance`` with ``variance_error`` [e⁻²] (from the errors of
    read noise and dark current) and ``share`` (0 to 1).  Settings without a gain or a read noise are left out.
    Attributes: ``dark_current`` [e⁻/s] at the temperature, ``rate``, ``temperature``, ``prnu``.

    Raises
    ------
    WorkbenchError
        If the dark current at the temperature is not known, or no setting has both gain and read noise.

    Examples
    --------
    >>> sensor = xr.Dataset(
    ...     {"gain": ("iso", [1.07]), "gain_error": ("iso", [0.01]), "read_noise": ("iso", [2.9]),
    ...      "read_noise_error": ("iso", [0.03]), "dark_current_reference": 0.3, "dark_current_reference_error": 0.01,
    ...      "reference_temperature": 20.0, "doubling_temperature": 6.0}, {"iso": [200.0]})
    >>> noise_budget(sensor, rate=1.0, exposure=[60.0]).share.sel(source="light").values.round(2)
    array([[0.69]])
    """
    dim = setting_dim(sensor)
    here = sensor if channel is None else sensor.sel(channel=[channel])
    gain, _ = mean_at_settings(here, "gain")
    read, read_error = mean_at_settings(here, "read_noise")
    known = np.isfinite(gain) & np.isfinite(read)
    if not known.any():
        raise WorkbenchError(
            in_words_of(dim, "no ISO has both a gain and a read noise: ")
            + "measure flats and bias frames at the same settings"
        )
    gain, read, read_error = gain[known], read[known], read_error[known]
    current, current_error = dark_current_at(sensor, temperature)
    if math.isnan(current):
        raise WorkbenchError(
            f"the dark current at {temperature:g} °C is not known: shoot darks of several exposure times, at two or "
            "more temperatures for the law"
        )
    time = np.atleast_1d(np.asarray(exposure, float))
    by_setting = {"read_noise": read[:, None], "gain": gain[:, None] * sensor.attrs.get("code_step", 1)}
    terms = variance_terms(rate * time, dark=current * time, prnu=prnu, **by_setting)
    variance = np.stack(np.broadcast_arrays(*terms.values()))
    errors = np.zeros_like(variance)
    errors[SOURCES.index("dark current")] = current_error * time
    errors[SOURCES.index("read noise")] = 2 * (read * np.nan_to_num(read_error))[:, None]
    dims = ("source", dim, "exposure")
    return xr.Dataset(
        {
            "variance": (dims, variance, {"units": "electron**2", "long_name": "variance of a pixel"}),
            "variance_error": (dims, errors, {"units": "electron**2"}),
            "share": (dims, variance / variance.sum(axis=0), {"units": "1", "long_name": "share of the variance"}),
        },
        coords={
            "source": list(SOURCES),
            dim: sensor[dim].values[known],
            "exposure": ("exposure", time, {"units": "s"}),
        },
        attrs={"dark_current": current, "rate": rate, "temperature": temperature, "prnu": prnu},
    )
