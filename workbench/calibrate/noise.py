"""The noise at hand: gain and read noise for calibration, from sensor.json or from the frames themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import chdtr, chdtri, gammaincinv

from ..core.cube import black_levels, channels_of
from ..core.errors import WorkbenchError
from ..core.mosaic import channel_index, of_planes, planes, spread
from ..core.noise import OwnNoise, code_step, own_noise, stated_gain
from ..core.settings import setting_differs, setting_dim, setting_of
from ..core.statistics import mad_std, weighted_by_errors
from ..core.values import describe, listed, value_text
from .bands import Frames
from .combine import UNSTABLE_CHANCE

_HEADERS = "EGAIN {:g} of the headers"
QUANTISATION = 1 / 12  # variance of rounding to whole ADU [ADU²]


@dataclass(frozen=True)
class SensorNoise:
    """What calibration must know of a sensor at one ISO setting, one value a channel.

    `gain` [e-/ADU]; `read_noise` [e- rms], quantisation not included; `doubling_temperature` [K] of the dark
    current, NaN where unknown; `iso`; `source`: where the numbers come from, in words; `known` is False
    where the gain could not be found and ADU are taken for electrons; `step` [ADU] of the codes; `gain_error` [e-/ADU],
    NaN where it is not measured here.
    """

    gain: tuple[float, ...]
    read_noise: tuple[float, ...]
    iso: float = math.nan
    doubling_temperature: float = math.nan
    source: str = "given"
    known: bool = True
    step: float = 1.0
    gain_error: tuple[float, ...] = (math.nan,)

    def __post_init__(self) -> None:
        for name in ("gain", "read_noise"):
            values = tuple(float(value) for value in np.atleast_1d(getattr(self, name)))
            object.__setattr__(self, name, values)
            if len(values) not in (1, 3, 4) or not all(math.isfinite(value) and value > 0 for value in values):
                unit = "e-/ADU" if name == "gain" else "e- rms"
                raise WorkbenchError(f"{name} is one or four positive numbers [{unit}] (X-Trans: three), not {values}")

    def model(self, channels: int) -> np.ndarray:
        """Return the variance of one sample as (channel, 2): a [ADU²] and b [ADU], var = a + b · signal.

        a = (σ_R/g)² + s²/12, b = 1/g, s the step of the codes.

        Examples
        --------
        >>> SensorNoise(gain=2.0, read_noise=4.0).model(1).round(4)
        array([[4.0833, 0.5   ]])
        """
        gain = np.broadcast_to(self.gain, (channels,)) if len(self.gain) == 1 else np.asarray(self.gain)
        read = np.broadcast_to(self.read_noise, (channels,)) if len(self.read_noise) == 1 else self.read_noise
        if len(gain) != channels:
            raise WorkbenchError(f"the noise is that of {len(gain)} channels, the frames have {channels}")
        return np.stack([(np.asarray(read) / gain) ** 2 + QUANTISATION * self.step**2, 1 / gain], axis=1)


def from_sensor(sensor: xr.Dataset, setting: Mapping[str, Any], cfa_pattern: str) -> SensorNoise:
    """Return a measured sensor's noise at a setting; `sensor` is what `workbench.open_sensor` gives.

    Raises
    ------
    WorkbenchError
        If it was not measured at that ISO or gain setting; the message lists those that were.

    Examples
    --------
    >>> sensor = xr.Dataset(
    ...     {"gain": (("iso", "channel"), [[0.5]]), "read_noise": (("iso", "channel"), [[3.0]])},
    ...     coords={"iso": [800.0], "channel": ["mono"]},
    ... )
    >>> from_sensor(sensor, {"iso": 800.0}, "mono").gain
    (0.5,)
    """
    dim = setting_dim(sensor)
    wanted, measured = float(setting.get(dim, math.nan)), sensor[dim].values.astype(float)
    same = np.isclose(measured, wanted, rtol=1e-6, atol=1e-9, equal_nan=True)
    here = describe({dim: wanted})
    if not same.any():
        there = " and ".join(describe({dim: value}) for value in measured) or "no setting"
        raise WorkbenchError(
            f"the sensor was measured at {there}, the frames have {here}: measure it there too, or leave the sensor "
            "file out to estimate the noise from the frames"
        )
    at = sensor.isel({dim: int(np.argmax(same))}).sel(channel=list(channels_of(cfa_pattern)))
    gain, read = at["gain"].values.astype(float), at["read_noise"].values.astype(float)
    missing = [name for name, values in (("gain", gain), ("read noise", read)) if not np.isfinite(values).all()]
    if missing:
        raise WorkbenchError(
            f"the sensor file has no {' and no '.join(missing)} at {here}: measure it, or leave the file out"
        )
    doubling = float(sensor.get("doubling_temperature", math.nan))
    iso = float(setting.get("iso", math.nan))
    step = max(float(sensor.attrs.get("code_step", 1)), 1.0)
    return SensorNoise(tuple(gain), tuple(read), iso, doubling, source="measured sensor file", step=step)


def noise_of_masters(
    light: xr.DataArray, bias: xr.Dataset | None, dark: xr.Dataset | None, flat: xr.Dataset | None
) -> tuple[SensorNoise, list[str]]:
    """Estimate gain and read noise at a raw light's setting from the scatter of the masters' frames; with warnings.

    The gain comes from two flats or more, else from the light's header (``EGAIN``), else from the shot noise of the
    darks' warm pixels; the read noise from the bias frames, else the darks, else the light's own background.  What the
    header states is compared with what is measured.
    """
    iso = float(light["iso"])
    ground = dark if dark is not None else bias
    bias, dark = (None if master is None or "combined" in master.attrs else master for master in (bias, dark))
    quiet = next((model_of(master)[:, 0] for master in (bias, dark) if master is not None), None)
    slope, error, source, warnings = _gain_of(light, dark, flat)
    headers = source.startswith("EGAIN")
    own = _own_noise(light, ground, flat) if quiet is None or headers else None
    if not source:
        read = own.scatter if own is not None else np.sqrt(np.asarray(quiet))
        warnings.append(
            f"the gain is not known (no sensor file, no flats at {describe(setting_of(light))}, no EGAIN, no warm "
            "pixels in darks): ADU are taken for electrons, so that weights and error bars are only relative"
        )
        source = "unknown: one electron an ADU"
        return SensorNoise((1.0,) * read.size, tuple(read), iso=iso, source=source, known=False), warnings
    if own is not None and headers and abs(own.slope - slope[0]) > max(4 * own.error, 0.2 * slope[0]) and own.slope > 0:
        warnings.append(
            f"the header's gain does not fit {light['filename'].item()}, whose noise grows with its level as "
            f"{value_text(1 / own.slope, own.error / own.slope**2, 'e-/ADU')} makes it: check EGAIN by pairs of flats"
        )
    if quiet is None and own is not None:
        read = np.sqrt(np.maximum(own.scatter**2 - slope * np.maximum(own.level, 0), 0.25)) / slope
        source += ", read noise from the lights' background (an upper bound)"
    else:
        read = _read_noise(np.asarray(quiet), slope)
        source += " and bias" if bias is not None else " and darks"
    errors = tuple(np.broadcast_to(error, slope.shape) / slope)
    gain = SensorNoise(tuple(1 / slope), tuple(read), iso=iso, source=f"estimated from {source}", gain_error=errors)
    return gain, warnings


def _own_noise(light: xr.DataArray, dark: xr.Dataset | None, flat: xr.Dataset | None) -> OwnNoise:
    """What a raw light shows of its noise; b is NaN where the pixels' own response, without a flat, can make it."""
    pattern, frame = light.attrs["cfa_pattern"], np.asarray(light.values, float)
    black = spread(np.nan_to_num(black_levels(light.attrs)), channel_index(pattern), frame.shape)
    response = np.ones(frame.shape) if flat is None else flat["signal"].values
    own = own_noise(frame - (black if dark is None else dark["signal"].values), response, pattern)
    return own if flat is not None else own._replace(slope=math.nan)


def _gain_of(
    light: xr.DataArray, dark: xr.Dataset | None, flat: xr.Dataset | None
) -> tuple[np.ndarray, np.ndarray, str, list[str]]:
    """Return 1/gain [ADU] of each channel, its relative error, from what (empty if from nothing), and warnings."""
    setting, channels = setting_of(light), len(channels_of(light.attrs["cfa_pattern"]))
    iso, where = setting["iso"], describe({name: setting[name] for name in ("iso", "gain_setting")})
    differing = [] if flat is None else setting_differs(setting, flat.attrs)
    warm = dark if dark is not None and (model_of(dark)[:, 1] > 0).all() else None
    slope, error, source, warnings = np.full(channels, math.nan), np.full(channels, math.nan), "", []
    if flat is not None and _measures_gain(flat) and not set(differing) & {"gain_setting", "readout_mode"}:
        slope, source, error = model_of(flat)[:, 1], f"{flat.attrs['frames']} flats", _gain_error(flat)
        if "iso" in differing:
            slope = slope * (iso / flat.attrs["iso"])
            warnings.append(
                f"the gain comes from flats at ISO {flat.attrs['iso']:g}, scaled to the lights' ISO {iso:g} as if it "
                "went with 1/ISO; a measured sensor file (--sensor) is safer"
            )
    elif warm is not None:
        slope, error = np.full(channels, np.mean(model_of(warm)[:, 1])), _gain_error(warm)
        source = "the shot noise of the darks' warm pixels"
    egain = float(light["egain"])
    if egain > 0:
        step = code_step(np.asarray(light.values)[::8])
        claim, text = stated_gain(egain, step, where, 1 / slope, error / slope, by=source)
        if not source.endswith("flats"):  # warm pixels know it to some per cent
            text = text.replace(
                "the measured one is used; is the lamp steady, and the header right?", "the header's is used"
            )
            slope, error, source = np.full(channels, 1 / claim), np.full(channels, math.nan), _HEADERS.format(egain)
        warnings += [text] if text else []
    return slope, error, source, warnings


def estimates_in_words(noises: Sequence[tuple[SensorNoise, Mapping[str, Any]]], light: xr.DataArray) -> list[str]:
    """Say once for each setting what gain was estimated, with its error, and from what.

    Where several groups of lights (filters, nights) have estimates of their own, their mean is stated.  What headers
    state has its own sentence.
    """
    lines = []
    estimated: dict[str, list[SensorNoise]] = {}
    for noise, setting in noises:
        if noise.known and noise.source.startswith("estimated") and "EGAIN" not in noise.source:
            own = estimated.setdefault(describe({name: setting[name] for name in ("iso", "gain_setting")}), [])
            own += [noise] if noise not in own else []
    for where, several in estimated.items():
        columns = np.array([(noise.gain, np.broadcast_to(noise.gain_error, len(noise.gain))) for noise in several])
        gains, names = [], channels_of(light.attrs["cfa_pattern"])
        for name, gain, error in zip(names, *np.moveaxis(columns, 0, -1), strict=True):
            mean = weighted_by_errors(gain, error) if np.isfinite(error).all() else (float(gain.mean()), math.nan)
            gains.append(f"{name} {value_text(*mean)}")
        sources = dict.fromkeys(noise.source.removeprefix("estimated from ") for noise in several)
        more = f" (the mean of {len(several)} such estimates)" if len(several) > 1 else ""
        at = f" at {where}" if len(estimated) > 1 else ""
        lines.append(
            f"gain ({', '.join(gains)} e-/ADU{at}) and read noise were estimated from the frames at hand: "
            f"{listed(list(sources), 2)}{more}"
        )
    return lines


def _gain_error(master: xr.Dataset) -> np.ndarray:
    """Return the relative error of the gain that a master's frames give, one a channel."""
    return np.array(master.attrs.get("gain_error", [math.nan]), float)


def noise_of_flats(flat: xr.Dataset | None, bias: xr.Dataset | None, setting: Mapping[str, Any]) -> SensorNoise | None:
    """Return the noise of flats and bias frames, if both masters are there and of this setting."""
    if flat is None or bias is None or setting_differs(setting, flat.attrs):
        return None
    if not _measures_gain(flat) or "combined" in bias.attrs:
        return None
    slope = model_of(flat)[:, 1]
    read = _read_noise(model_of(bias)[:, 0], slope)
    return SensorNoise(tuple(1 / slope), tuple(read), iso=setting["iso"], source="flats and bias")


def _measures_gain(flat: xr.Dataset) -> bool:
    return flat.attrs["frames"] > 1 and not flat.attrs.get("clipped", False) and "combined" not in flat.attrs


def _read_noise(quiet: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Read noise [e-] of a variance without light [ADU²] and 1/gain [ADU], rounding taken out."""
    return np.sqrt(np.maximum(quiet - QUANTISATION, 1e-3)) / slope


def model_of(master: xr.Dataset) -> np.ndarray:
    """Return the noise model of a master's frames (channel, 2): a [ADU²] and b [ADU]."""
    return np.reshape(master.attrs["model"], (-1, 2))


def with_own_noise(master: xr.Dataset | None, noise: SensorNoise, black: np.ndarray) -> xr.Dataset | None:
    """Return another program's master with the variance of the N frames that it was combined from.

    (a + b max(x - black, 0))/N with the noise model (a, b) and the level `black` [ADU] of each channel; of a flat over
    its level squared.  Where N or the gain is not known the variance stays what neighbours show, an upper bound; and so
    do masters made from raw frames.
    """
    count = math.nan if master is None else master.attrs.get("combined", math.nan)
    if master is None or math.isnan(count) or not noise.known:
        return master
    signal, model = master["signal"].values, noise.model(black.size)
    level = np.array(master.attrs.get("level", np.ones(black.size)), float)
    black = black if "level" not in master.attrs else np.zeros(black.size)
    variance = np.empty_like(signal)
    for (c, out), (_, plane) in zip(*(planes(v, master.attrs["cfa_pattern"]) for v in (variance, signal)), strict=True):
        out[:] = (model[c, 0] + model[c, 1] * np.maximum(level[c] * plane - black[c], 0)) / (count * level[c] ** 2)
    found = master.assign(count=xr.full_like(master["count"], count, np.uint16))
    found["variance"] = master["variance"].copy(data=variance)
    return found.assign_attrs(frames=int(count), model=[float(value) for value in model.ravel()])


def read_variance(frames: Frames) -> np.ndarray:
    """Return the temporal variance of equal frames (bias, darks), one a channel [ADU²], quantisation included.

    The mean over pixels of the sample variance across frames, in up to 48 pairs of rows; pixels that flicker
    more than chance allows are left out.  Of a single frame it is half the variance between neighbours, which holds the
    fixed pattern as well: an upper bound.
    """
    if len(frames) == 1:
        return np.maximum(_between_neighbours(frames)[0], QUANTISATION)

    def variance(plane: np.ndarray) -> float:
        spread = _pixels(plane).var(axis=0, ddof=1)
        return _typical(spread[np.isfinite(spread)], len(frames) - 1)

    return np.array(of_planes(variance, frames.sampled_rows()[1], frames.cell))


def light_variance(
    frames: Frames, base: np.ndarray, pedestal: np.ndarray, scale: np.ndarray, saturation: float
) -> np.ndarray:
    """Return b = 1/gain [ADU] of flats, one a channel, and its relative error (2, channel).

    The variance across frames beyond `base` over the signal: with x = (y - P) s, w = 1/s and n frames,
    E Σ w (x - x̄)² = a (Σs - n/Σw) + b x (n - 1) in each pixel; the sums over pixels give b.  The fixed pattern (PRNU,
    vignetting) is the same in all frames and enters only of a single frame, which gives an upper bound.  A variance of
    ν degrees of freedom is known to √(2/ν).
    """
    n = len(frames)
    if n == 1:
        spread, level = _between_neighbours(frames, pedestal)
        return np.array([(spread - base) / level, np.full(len(level), np.nan)])
    numbers, rows = frames.sampled_rows()
    slope, error = np.full((2, frames.channels), np.nan)
    limit = chdtri(n - 1, UNSTABLE_CHANCE) / (n - 1)
    for (c, plane), (_, ground) in zip(planes(rows, frames.cell), planes(pedestal[numbers], frames.cell), strict=True):
        samples = _pixels(plane)
        samples[samples >= saturation] = np.nan
        s = scale[:, c]
        weight = 1 / s[:, None]
        x = (samples - ground.ravel()) / weight
        centre = (weight * x).sum(axis=0) / weight.sum()
        spread = (weight * (x - centre) ** 2).sum(axis=0)
        offset = base[c] * (s.sum() - n / (1 / s).sum())
        good = np.isfinite(spread) & (centre > 0)
        for _ in range(3):
            if not good.any():
                break
            slope[c] = (spread[good] - offset).sum() / (centre[good].sum() * (n - 1))
            expected = np.maximum(slope[c], 0) * centre * (n - 1) + offset
            good &= ~(spread > limit * expected)
        error[c] = math.sqrt(2 / max(int(np.count_nonzero(good)) * (n - 1), 1))
    return np.array([slope, error])


def hot_slope(frames: Frames, bias: np.ndarray | None = None) -> np.ndarray:
    """Return b = 1/gain [ADU] from the shot noise of the darks' own warm pixels, one a channel, with its error.

    A line through the variance across frames and the mean signal of the pixels that stand out of their plane:
    b = Σ w z (v - v₀) / Σ w z x, with the variance v, v₀ that of ordinary pixels, and the signal twice, z from the even
    frames less the bias, x from the odd ones as they are.  Their errors are independent (z is an instrument for x; Wald
    1940), so that the noise of the signal itself does not flatten the line.  NaN with fewer than ten warm pixels;
    (channel, 2).
    """
    degrees = len(frames) - 1
    result = np.full((frames.channels, 2), np.nan)
    if degrees < 1:
        return result
    numbers, rows = frames.sampled_rows()
    ground = np.zeros(rows.shape[1:]) if bias is None else bias[numbers]
    middle = (2 * gammaincinv(degrees / 2, 0.5)) / degrees
    limit = chdtri(degrees, 1e-4) / degrees
    for (c, plane), (_, offset) in zip(planes(rows, frames.cell), planes(ground, frames.cell), strict=True):
        samples = _pixels(plane)
        halves = samples[::2].mean(axis=0) - offset.ravel(), samples[1::2].mean(axis=0)
        columns = np.array([*halves, samples.var(axis=0, ddof=1)])
        z, x, v = columns[:, np.isfinite(columns).all(axis=0)]
        z, x = z - np.median(z), x - np.median(x)
        width = max(float(mad_std(z, centre=0)), 0.5)
        ordinary = np.abs(z) < 3 * width
        base = _typical(v[ordinary], degrees)
        warm = (z > 5 * width) & (z < 50 * np.sqrt(base) + 2000)
        if np.count_nonzero(warm) < 10:
            continue
        z, x, v = z[warm], x[warm], v[warm]
        slope = max((float(np.median(v)) / middle - base) / float(np.median(z)), 1e-6)
        for _ in range(8):
            expected = base + slope * z
            keep = v < expected * limit  # those that flicker, or were struck
            leverage = np.where(keep, z / expected**2, 0.0)
            lever = float((leverage * x).sum())
            if lever <= 0:
                break
            slope = max(float((leverage * (v - base)).sum()) / lever, 1e-6)
        if lever > 0:
            result[c] = slope, math.sqrt(2 / degrees * float((leverage**2 * expected**2).sum())) / lever
    return result


def _between_neighbours(frames: Frames, pedestal: np.ndarray | None = None) -> np.ndarray:
    """Half the robust variance between neighbours of a plane of one frame, and their median level, (2, channel)."""
    numbers, rows = frames.sampled_rows()
    frame = rows[0].astype(float) - (0 if pedestal is None else pedestal[numbers])
    found = []
    for channel in range(frames.channels):
        row, column = np.argwhere(frames.cell == channel)[0]
        one = frame[row::2, column :: frames.cell.shape[1]]
        lines = dict(planes(frame, frames.cell))[channel] if len(frames.cell) == 6 else one
        # the rounding to whole ADU makes a MAD jump; the middle 68 % do not
        low, high = np.nanpercentile(np.diff(lines, axis=1), (15.865, 84.135))
        found.append((((high - low) / 2) ** 2 / 2, np.nanmedian(lines)))
    return np.transpose(found)


def _pixels(plane: np.ndarray) -> np.ndarray:
    return plane.reshape(len(plane), -1).astype(float)


def _typical(spread: np.ndarray, degrees: int) -> float:
    """The mean of sample variances of which a few belong to pixels that flicker or were struck."""
    limit = chdtri(degrees, 1e-4) / degrees
    kept_share = chdtr(degrees + 2, limit * degrees) / chdtr(degrees, limit * degrees)  # E of the cut χ²
    level = float(np.median(spread)) / ((2 * gammaincinv(degrees / 2, 0.5)) / degrees)
    for _ in range(4):
        kept = spread[spread <= limit * max(level, QUANTISATION)]
        if not kept.size:
            break
        level = float(kept.mean()) / kept_share
    return max(level, QUANTISATION)
