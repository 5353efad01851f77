"""How long should a sub-exposure be, at which ISO, and how many hours does a target take?

All from measured numbers, each with its error: the read noise, which every sub adds once, sky and dark current, which
come with time, and what the mount can hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ..core.errors import WorkbenchError
from ..core.settings import in_words_of, setting_dim

PENALTY = 0.05  # more noise than one endless exposure would have
OVERHEAD = 5.0  # s between subs: download, dither
LONGEST = 600.0  # s: beyond it satellites, gusts and clouds cost more than read noise
_SHARES = {"R": 0.25, "G1": 0.5, "G2": 0.5, "G": 0.5, "B": 0.25}  # of a mosaic's pixels; both greens make one colour
_SHARES |= {"X-Trans R": 8 / 36, "X-Trans G": 20 / 36, "X-Trans B": 8 / 36}
TIMES = np.geomspace(1.0, 1800.0, 121)  # s, for curves


class Estimate(NamedTuple):
    """A number with its standard error."""

    value: float
    error: float


def propagate(formula: Callable[..., float], *quantities: tuple[float, float]) -> Estimate:
    """Return a formula of independent quantities with its error: first order, by central differences.

    σ² = Σ (½ (f(x + σ_x) − f(x − σ_x)))²: a difference over the whole error bar, so that a formula that bends within
    it is still served.  An error that is not known counts as none.

    Examples
    --------
    >>> value, error = propagate(lambda x, y: x * y, (3.0, 0.3), (2.0, 0.1))
    >>> value, round(error, 3)
    (6.0, 0.671)
    """
    values = [float(value) for value, _ in quantities]
    variance = 0.0
    for number, (value, error) in enumerate(quantities):
        error = float(error)
        if error > 0 and math.isfinite(error):
            ends = [formula(*values[:number], value + sign * error, *values[number + 1 :]) for sign in (1, -1)]
            variance += ((ends[0] - ends[1]) / 2) ** 2
    return Estimate(float(formula(*values)), math.sqrt(variance) if math.isfinite(variance) else math.nan)


def noise_penalty(time: Any, read_noise: Any, rate: Any) -> Any:
    """Return by how much subs of a length make a stack noisier than one endless exposure of the same total.

    √(1 + RN²/(B t)) − 1: in a total time T there are T/t read-outs (the sub's `time` t [s]), each of variance RN²
    (`read_noise` [e⁻ rms]), and the shot noise B T of sky and dark current together (`rate` [e⁻/s/pixel]).

    Examples
    --------
    >>> round(float(noise_penalty(60.0, 2.5, 1.0)), 4)
    0.0508
    """
    return np.sqrt(1 + np.square(read_noise) / (np.asarray(rate) * time)) - 1


def sub_length(read_noise: tuple[float, float], rate: tuple[float, float], penalty: float = PENALTY) -> Estimate:
    """Return the shortest sub [s] with at most the noise penalty asked, and its error.

    t = C RN²/B with C = 1/((1 + p)² − 1), 9.76 for p = 5 %, the share of noise that may be added; read noise [e⁻ rms]
    and the rate B of sky and dark current together [e⁻/s/pixel] are values with their errors.

    Raises
    ------
    WorkbenchError
        If the penalty is not positive.

    Examples
    --------
    >>> length = sub_length((2.5, 0.05), (1.0, 0.02))
    >>> round(length.value, 1), round(length.error, 1)
    (61.0, 2.7)
    """
    if not 0 < penalty < 10:
        raise WorkbenchError(f"the noise penalty is a share above zero, such as 0.05 for 5 %, not {penalty}")
    factor = 1 / ((1 + penalty) ** 2 - 1)
    return propagate(lambda noise, background: factor * noise**2 / background, read_noise, rate)


def stack_noise(sensor: xr.Dataset, background: xr.Dataset, time: float, count: int) -> xr.Dataset:
    """Return the noise of the sky that the mean of `count` subs of `time` [s] should have, with its error.

    σ² = (B t + RN²)/N, in electrons of one sub and photosite; a pixel of a stack has `stack.normalise.pixel_share` of
    it.  Read noise is that of the setting of `background` (from `background_rate`).  Masters, clouds and rejection add.

    Returns
    -------
    xarray.Dataset
        Over channel: ``noise`` and ``noise_error`` [e-].
    """
    setting, values = background.attrs[setting_dim(sensor)], []
    for channel in map(str, background["channel"].values):
        rate, noise = _pair(background, "rate", channel=channel), read_out_noise(sensor, setting, channel)
        values.append(propagate(lambda b, n: math.sqrt(max(b * time + n**2, 0.0) / count), rate, noise))
    columns = np.array(values).reshape(-1, 2).T
    data = {name: ("channel", column) for name, column in zip(("noise", "noise_error"), columns, strict=True)}
    return xr.Dataset(data, {"channel": background["channel"].values}, {"units": "electron"})


def hours(
    snr: float,
    target: tuple[float, float],
    rate: tuple[float, float],
    read_noise: tuple[float, float],
    time: float,
    *,
    overhead: float = OVERHEAD,
    pixels: float = 1.0,
    channel: str = "mono",
) -> Estimate:
    """Return the hours under the sky that bring a target to a signal-to-noise ratio, with their error.

    SNR = √n · s T/√((s + B) T + RN² T/t), hence T = SNR² (s + B + RN²/t)/(n s²); with a pause after every sub it takes
    T (t + pause)/t.

    Parameters
    ----------
    target, rate
        The target's own signal s, and sky and dark current together B, each value and error [e⁻/s/pixel].
    read_noise
        Value and error [e⁻ rms].
    time
        Length of a sub [s].
    overhead
        Pause between subs: download, dither [s].
    pixels, channel
        Over how many pixels of the stack one averages (binning 2 x 2: 4), and of which colour.  A mosaic has a quarter
        of its pixels red, half green, a quarter blue (``X-Trans R``, ``G``, ``B``: 8, 20 and 8 of 36):
        n = max(1, pixels · share), since what lies between is interpolated from the same photosites.

    Raises
    ------
    WorkbenchError
        If the target gives no signal, or a number is not positive.

    Examples
    --------
    >>> result = hours(10, (0.05, 0.0), (1.0, 0.0), (2.5, 0.0), 60.0)
    >>> round(result.value, 1)
    13.9
    >>> [round(hours(10, (0.05, 0), (1, 0), (2.5, 0), 60, pixels=16, channel=name).value, 1) for name in ("mono", "R")]
    [0.9, 3.5]
    """
    if not (snr > 0 and target[0] > 0 and time > 0 and pixels > 0 and overhead >= 0):
        raise WorkbenchError(
            "hours need a positive ratio, target signal [e-/s/pixel], sub length and number of pixels; got "
            f"{snr}, {target[0]}, {time}, {pixels}"
        )
    efficiency, count = time / (time + overhead), max(1.0, pixels * _SHARES.get(channel, 1.0)) if pixels > 1 else pixels

    def needed(signal: float, background: float, noise: float) -> float:
        signal = max(signal, 1e-9)
        return snr**2 * (signal + background + noise**2 / time) / (count * signal**2) / efficiency / 3600

    return propagate(needed, target, rate, read_noise)


def target_hours(
    sensor: xr.Dataset,
    subs: xr.Dataset,
    background: xr.Dataset,
    share: float,
    snr: float,
    *,
    overhead: float = OVERHEAD,
    pixels: float = 1.0,
    of: xr.Dataset | None = None,
) -> xr.Dataset:
    """Return the hours for a target of a share of the sky's brightness, in each channel with the best subs.

    Parameters
    ----------
    subs
        From `plan_subs`.
    background, of
        From `background_rate`; `of` is the one with the sky that the target is a share of, else the same.
    snr, overhead, pixels
        As for `hours`.

    Returns
    -------
    xarray.Dataset
        Over channel: ``hours``, with error; NaN where the sky is not above zero.
    """
    values = []
    best, length = subs.attrs["best_iso"], subs.attrs["best_length"]
    for channel in map(str, background["channel"].values):
        sky = _pair(background if of is None else of, "sky", channel=channel)
        if not math.isfinite(sky[0]):
            sky = _pair(background if of is None else of, "rate", channel=channel)
        if not sky[0] > 0:
            values.append(Estimate(math.nan, math.nan))
            continue
        target, rate = (share * sky[0], share * sky[1]), _pair(background, "rate", channel=channel)
        noise = read_out_noise(sensor, best, channel)
        colour = f"X-Trans {channel}" if background.sizes["channel"] == 3 else channel
        values.append(hours(snr, target, rate, noise, length, overhead=overhead, pixels=pixels, channel=colour))
    about = {"hours": "hours under the sky", "hours_error": "error of the hours"}
    data = {
        name: ("channel", column, {"units": "h", "long_name": title})
        for (name, title), column in zip(about.items(), np.array(values).reshape(-1, 2).T, strict=True)
    }
    attrs = {"snr": snr, "share": share, "overhead": overhead, "pixels": pixels}
    return xr.Dataset(data, {"channel": background["channel"].values}, attrs)


def plan_subs(
    sensor: xr.Dataset,
    background: xr.Dataset,
    *,
    penalty: float = PENALTY,
    longest: float | None = None,
    white_level: float | None = None,
    isos: Sequence[float] | None = None,
) -> xr.Dataset:
    """Plan the subs at every measured ISO or gain setting, and choose one.

    At each ISO the sub is as long as its darkest colour needs for the penalty, but no longer than `longest`.  Of the
    settings that keep to the penalty the one with the greatest dynamic range is best, log₂ of the signal at saturation
    over the noise of a sub without target; where none does, the one with the least penalty.  Where no white level is
    known, all settings are taken to end at the same number.

    Parameters
    ----------
    sensor, background
        From `open_sensor` or `characterize` (rounding to whole ADU is noise too and is added to the read noise), and
        from `background_rate`.
    penalty
        More noise than one endless exposure would have, as a share.
    longest
        Longest sub [s] that the mount allows (`tracking`); 600 s where it is not known.
    white_level
        In ADU; the one that the lights state where it is not given.
    isos
        Settings to look at; all that are measured by default.

    Returns
    -------
    xarray.Dataset
        Over (iso, channel): ``needed``, the sub length [s] for the penalty, with error; ``saturation`` [e⁻].  Over iso:
        ``length`` [s], with error, ``penalty`` of it, ``dynamic_range`` [stops], ``filled``, the share of the range up
        to saturation that the background fills.  Over (iso, channel, time): ``curve``, the penalty.  attrs:
        ``best_iso``, ``best_length``, ``longest``, ``asked``.

    Raises
    ------
    WorkbenchError
        If no ISO has both gain and read noise, or the background is not measured.

    Examples
    --------
    >>> shape = (2, 1)
    >>> sensor = xr.Dataset({name: (("iso", "channel"), np.full(shape, value)) for name, value in (
    ...     ("gain_error", 0.01), ("read_noise_error", 0.05), ("black_level", 600.0))},
    ...     {"iso": [200.0, 800.0], "channel": ["mono"]})
    >>> sensor["gain"] = ("iso", "channel"), [[1.0], [0.25]]
    >>> sensor["read_noise"] = ("iso", "channel"), [[3.0], [2.5]]
    >>> sky = xr.Dataset({"rate": ("channel", [1.0]), "rate_error": ("channel", [0.02])}, {"channel": ["mono"]})
    >>> plan = plan_subs(sensor, sky, white_level=16383)
    >>> plan.attrs["best_iso"], round(plan.attrs["best_length"])
    (200.0, 89)
    """
    limit = LONGEST if longest is None or not math.isfinite(longest) else float(longest)
    if not limit > 0:
        raise WorkbenchError(f"the longest sub is a time in seconds, not {limit}")
    rates = {str(name): Estimate(*_pair(background, "rate", channel=name)) for name in background["channel"].values}
    bright = [name for name, rate in rates.items() if rate.value > 0]
    if not bright:
        raise WorkbenchError(
            "the background of the lights is not above their black level: no sub length can be planned from it; give a "
            "longer light, or one whose black level is known"
        )
    dim = setting_dim(sensor)
    measured = sensor[["gain", "read_noise"]].reindex(channel=bright).to_array().notnull().all(("variable", "channel"))
    kept = [float(one) for one in sensor[dim].values[measured.values] if isos is None or one in isos]
    if not kept:
        raise WorkbenchError(
            in_words_of(dim, "no ISO has both gain and read noise measured: shoot bias frames and pairs of flats at ")
            + "one, and characterize them"
        )
    white = float(background.attrs.get("white_level", math.nan)) if white_level is None else float(white_level)
    rows = [_at_setting(sensor, one, rates, white, penalty, limit) for one in kept]
    best, met = _best(rows, penalty)
    data = {
        name: ((dim, *dims), np.array([row[name] for row in rows]), {"units": unit, "long_name": text})
        for name, (dims, unit, text) in _COLUMNS.items()
    }
    coords = {dim: kept, "channel": list(rates), "time": ("time", TIMES, {"units": "s", "long_name": "sub length"})}
    attrs = {
        "best_iso": kept[best],
        "best_length": rows[best]["length"],
        "best_length_error": rows[best]["length_error"],
        "longest": limit,
        "longest_known": longest is not None,
        "asked": penalty,
        "met": met,
        "long_name": "plan of sub-exposures",
    }
    return xr.Dataset(data, coords, attrs)


_COLUMNS = {
    "needed": (("channel",), "s", "sub length for the penalty"),
    "needed_error": (("channel",), "s", "error of the sub length"),
    "saturation": (("channel",), "e-", "signal at saturation"),
    "length": ((), "s", "sub length"),
    "length_error": ((), "s", "error of the sub length"),
    "penalty": ((), "1", "noise added by read-out"),
    "dynamic_range": ((), "stops", "dynamic range"),
    "filled": ((), "1", "share of the range that the background fills"),
    "curve": (("channel", "time"), "1", "noise added by read-out"),
}


def _at_setting(
    sensor: xr.Dataset, setting: float, rates: dict[str, Estimate], white: float, penalty: float, limit: float
) -> dict[str, Any]:
    """Return the plan's `_COLUMNS` at one setting; channels whose background is not above black are NaN."""
    noise, level, needed, needed_error, saturation, gains = (np.full(len(rates), np.nan) for _ in range(6))
    for column, (channel, rate) in enumerate(rates.items()):
        if not rate.value > 0:
            continue
        read_out = read_out_noise(sensor, setting, channel)
        noise[column], level[column] = read_out.value, rate.value
        needed[column], needed_error[column] = sub_length(read_out, rate, penalty)
        (black, _), (gain, _) = (
            _pair(sensor, name, **{setting_dim(sensor): setting}, channel=channel) for name in ("black_level", "gain")
        )
        gains[column] = gain
        saturation[column] = (white - (black if math.isfinite(black) else 0.0)) * gain
    worst = int(np.nanargmax(needed))
    length = min(needed[worst], limit)
    curve = noise_penalty(TIMES, noise[:, None], level[:, None])
    floor = np.sqrt(noise**2 + level * length)
    stops, filled = np.log2(saturation / floor), level * length / saturation
    unknown = np.isnan(stops).all()  # saturation is not known
    return {
        "needed": needed,
        "needed_error": needed_error,
        "saturation": saturation,
        "curve": curve,
        "length": length,
        "length_error": needed_error[worst] if length < limit else 0.0,
        "penalty": float(np.nanmax(noise_penalty(length, noise, level))),
        "dynamic_range": math.nan if unknown else float(np.nanmin(stops)),
        "filled": math.nan if unknown else float(np.nanmax(filled)),
        "score": float(np.nanmin(np.log2(gains / floor) if unknown else stops)),
    }


def _best(rows: list[dict[str, Any]], penalty: float) -> tuple[int, bool]:
    """Return the index of the best ISO, and whether any keeps to the penalty."""
    penalties, stops = (np.array([row[name] for row in rows]) for name in ("penalty", "score"))
    met = penalties <= penalty * 1.001
    score = stops if met.any() else -penalties
    allowed = met | ~met.any()
    return int(np.argmax(np.where(allowed, np.nan_to_num(score, nan=-np.inf), -np.inf))), bool(met.any())


def read_out_noise(sensor: xr.Dataset, setting: float, channel: str) -> Estimate:
    """Return what reading out adds [e⁻ rms] with its error: the read noise and rounding to steps of s ADU, sg/√12."""
    step = sensor.attrs.get("code_step", 1)
    at = {setting_dim(sensor): setting, "channel": channel}
    return propagate(
        lambda noise, gain: math.sqrt(noise**2 + (step * gain) ** 2 / 12),
        _pair(sensor, "read_noise", **at),
        _pair(sensor, "gain", **at),
    )


def _pair(data: xr.Dataset, name: str, **at: Any) -> tuple[float, float]:
    """Return a value and its error, by position: a plan asks for some hundred and `sel` takes a millisecond."""
    position: dict[Hashable, int] = {dim: data.get_index(dim).get_loc(label) for dim, label in at.items()}
    columns = (data.variables.get(key) for key in (name, f"{name}_error"))
    values = [
        math.nan if one is None else float(one.values[tuple(position[dim] for dim in one.dims)]) for one in columns
    ]
    return values[0], values[1]
