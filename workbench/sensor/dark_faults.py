"""What falsifies a dark current: hot pixels that saturate, darks that are not alike, a black level that is another."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import special

from ..core.errors import Guess
from ..core.mosaic import channel_index
from ..core.statistics import MISFIT, MISFIT_TO_WARN, fit_line, weighted_by_errors
from ..core.values import listed
from .dark_frames import SAME_TEMPERATURE, DarkGroup, DarkSetting, pooled_variance
from .dark_light import setting_of
from .law import mean_subtracted

_CERTAIN = 5.0  # errors
_OWN_LAW = 0.02  # 1/K: by how much the dark current of a hot pixel may rise differently
_MOST_SATURATED = 0.02  # of the pixels
_DOUBTFUL = 2.0  # errors between mean and noise from which on the error holds the difference


class Gain(NamedTuple):
    """Gain of each channel [e⁻/ADU], its error as it counts in a mean of all (`error_in_mean`), and its own."""

    value: np.ndarray
    error: np.ndarray
    own: np.ndarray


def scatter_covariance(points: list[DarkGroup], levers: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Return the channels' covariance of Σ lever · gain · (frame mean), pooled over the groups; 0 of single frames."""
    away = [gain * (group.means - group.means.mean(axis=0)) for group in points]
    freedom = max(sum(group.count - 1 for group in points), 1)
    lever = sum(lever**2 * group.count for lever, group in zip(levers, points, strict=True))
    return lever * sum(part.T @ part for part in away) / freedom


def misfit(points: list[DarkGroup], weight: np.ndarray, where: str, gain: np.ndarray) -> tuple[float, list[str]]:
    """Return by how much to widen the error where the signal is not proportional to exposure, and warnings."""
    variance, freedom = pooled_variance(points, weight)
    if len(points) < 3 or not variance > 0:
        return 1.0, []
    counts, times = (np.array([getattr(group, name) for group in points], float) for name in ("count", "exposure"))
    off = _off_the_line(times, np.array([group.steady @ weight for group in points]), counts)
    ratio = float((counts * off**2).sum() / (len(points) - 2) / variance)
    chance = special.fdtrc(len(points) - 2, freedom, ratio)
    warnings: list[str] = []
    if chance < MISFIT_TO_WARN:
        worst = times[np.argmax(np.abs(off) * np.sqrt(counts))]
        facts = (
            f"the dark signal at {where} is not proportional to exposure (worst at {worst:g} s), so the error of the "
            "dark current is widened"
        )
        warnings.append(Guess(facts, _cause_of_misfit(points, weight * gain), "warmth"))
    return np.sqrt(ratio) if chance < MISFIT else 1.0, warnings


def _off_the_line(times: np.ndarray, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    line = fit_line(times, values, counts)
    return values - line.intercept - line.slope * times


def _cause_of_misfit(points: list[DarkGroup], factor: np.ndarray) -> str:
    """Return why the signal is not proportional to exposure: electrons make noise, a black level that moves does not.

    `factor` is the share of each channel times its gain.
    """
    several = [group for group in points if group.count > 1]
    unknown = "darks that were not equally warm do this, or a black level that is not the same for all of them"
    if len(several) < 3 or not np.isfinite(factor).all():
        return unknown
    gain = factor.sum()  # the channels' gains differ little
    counts, times = (np.array([getattr(group, name) for group in several], float) for name in ("count", "exposure"))
    signal = _off_the_line(times, np.array([group.steady @ factor for group in several]), counts)
    noise = np.array([group.noise.T @ (gain * factor) for group in several])  # e-² (group, block)
    error = np.maximum(noise.std(axis=1, ddof=1) / np.sqrt(noise.shape[1]), 1e-9)
    extra = _off_the_line(times, noise.mean(axis=1), counts)
    information = float((signal**2 / error**2).sum())
    share = float((signal * extra / error**2).sum()) / information  # 1 where electrons are what is off
    if information < 25:
        return unknown
    if share > 0.5:
        return "their noise goes with it, as where darks were not equally warm, or light came in"
    return "their noise does not go with it: the black level was not the same for all of them"


class _Unknown(NamedTuple):
    """A setting's row, its pixels, and the `least` rate [e⁻/s] of those that saturate too much to be measured there.

    `pixels` and `channels` of these, empty where they are too many to look for in other settings.
    """

    row: dict[str, Any]
    size: int
    least: float
    pixels: np.ndarray
    channels: np.ndarray


class SaturatedPixels:
    """Hot pixels that saturate in all darks of a setting, measured at a colder one and scaled by the others' ratio."""

    def __init__(self) -> None:
        self._unknown: list[_Unknown] = []

    def add(self, row: dict[str, Any], setting: DarkSetting, gain: np.ndarray) -> None:
        """Fill in the warmer settings' missing pixels from this one, of the same ISO, and keep what it lacks itself."""
        if setting.slope is None or not np.isfinite(row["dark_current"]):
            return
        dim = next(name for name in setting.key if name != "temperature")
        for number, unknown in enumerate(self._unknown):
            if unknown.row[dim] == row[dim] and unknown.pixels.size:
                self._unknown[number] = self._fill(unknown, row, setting, gain)
        pixels = np.flatnonzero(setting.lost)
        if pixels.size:
            least = _least_lost(row, setting)
            if pixels.size > _MOST_SATURATED * setting.lost.size:
                pixels = pixels[:0]
            cell = channel_index(setting.pattern)
            y, x = np.unravel_index(pixels, setting.lost.shape)
            channels = cell[y % cell.shape[0], x % cell.shape[1]]
            self._unknown.append(_Unknown(row, setting.lost.size, least, pixels, channels))

    def _fill(self, unknown: _Unknown, cold: dict[str, Any], setting: DarkSetting, gain: np.ndarray) -> _Unknown:
        warm, pixels, channels = unknown.row, unknown.pixels, unknown.channels
        known = ~setting.lost.ravel()[pixels]
        if not known.any() or not cold["dark_current_common"] > 0 or setting.slope is None:
            return unknown
        ratio = warm["dark_current_common"] / cold["dark_current_common"]
        rates = ratio * gain[channels[known]] * setting.slope.ravel()[pixels[known]].astype(float)
        apart = abs(warm["temperature"] - cold["temperature"])
        doubt = _OWN_LAW * (apart if np.isfinite(apart) else 0.0)
        _count_in(warm, unknown.size, rates, doubt)
        least = max(unknown.least, ratio * _least_lost(cold, setting))  # the others saturate here, too
        return unknown._replace(pixels=pixels[~known], channels=channels[~known], least=least)

    def warnings(self) -> list[str]:
        """Count the pixels that stay unknown with what they hold at least; return a warning where they matter."""
        left = []
        for row, size, least, *_ in self._unknown:
            if not (count := row["saturated_pixels"]):
                continue
            before = dict(row)
            _count_in(row, size, np.full(count, least), 1.0)
            row["saturated_pixels"] = count
            if any(row[name] - before[name] > before[f"{name}_error"] for name in ("dark_current", "dcnu")):
                left.append(f"{count} at {setting_of(row)}")
        if not left:
            return []
        return [
            f"hot pixels saturate in every dark ({listed(left)}): in dark current and DCNU each counts with the least "
            "that saturates so, and the errors hold as much again; shoot shorter darks too"
        ]


def _least_lost(row: dict[str, Any], setting: DarkSetting) -> float:
    """Return the least rate [e⁻/s] of a pixel that saturates in all but one of the two points that a line needs."""
    return row["capacity"] / setting.points[1].exposure


def _count_in(row: dict[str, Any], size: int, rates: np.ndarray, doubt: float) -> None:
    """Add missing pixels of known `rates` [e⁻/s] to a row's dark current and DCNU, of `size` pixels in all.

    `doubt` is the relative error that the rates have in common.
    """
    whole = size - row["saturated_pixels"] + rates.size  # pixels that are known then
    kept = (whole - rates.size) / whole
    mean, added = row["dark_current"], rates.sum() / whole
    new = kept * mean + added
    scale = np.divide(row["dark_current_adu"], mean)
    squares = kept * (np.nan_to_num(row["dcnu"]) ** 2 + mean**2) + np.square(rates).sum() / whole
    dcnu = float(np.sqrt(max(squares - new**2, 0.0)))
    of_hot = doubt * np.square(rates).sum() / whole / max(dcnu, 1e-300)
    row |= {
        "dark_current": float(new),
        "dark_current_error": float(np.hypot(row["dark_current_error"], doubt * added)),
        "dark_current_adu": float(new * scale),
        "dark_current_adu_error": float(np.hypot(row["dark_current_adu_error"], doubt * added * scale)),
        "saturated_pixels": int(row["saturated_pixels"] - rates.size),
    }
    if np.isfinite(row["dcnu"]):
        row |= {"dcnu": dcnu, "dcnu_error": float(np.hypot(row["dcnu_error"], of_hot))}


def settle_means(rows: list[dict[str, Any]], signals: list[dict[str, Any]]) -> list[str]:
    """Put the dark current of the noise in place of the mean's where the mean's is wrong, and return the warnings.

    It is where a camera subtracts the mean dark by itself, and where bias frames of another temperature had another
    black level; the growth of the noise knows no black level.  Where bias frames have the darks' temperature, or
    several exposures need none, the two agree but for hot pixels that flicker: that ratio is divided out.
    """
    noises = [row.pop("by_noise", {}) for row in rows]
    apart = [row.pop("bias_apart", 0.0) for row in rows]
    moved = [not abs(kelvin) <= SAME_TEMPERATURE for kelvin in apart]
    both = list(zip(rows, noises, moved, strict=True))
    sound = [(row, noise) for row, noise, off in both if noise and not off]
    subtracted = any(_subtracts(row, noise) for row, noise in sound)
    ratio, ratio_error = _flicker(sound) if not subtracted else (1.0, 0.0)
    of_camera, of_black = [], []
    for row, noise, off in both:
        if not noise:
            continue
        if _subtracts(row, noise) and (subtracted or not sound):
            of_camera.append(setting_of(row))
            _put(row, noise, signals)
        elif off and not subtracted:
            value = noise["dark_current"] / ratio
            error = float(np.hypot(noise["dark_current_scatter"], value * ratio_error))
            noise |= {name: noise[name] / ratio for name in ("dark_current", "dark_current_common", "dark_current_adu")}
            noise |= {"dark_current_error": float(np.hypot(noise["dark_current_error"], error))}
            noise |= dict.fromkeys(("dark_current_scatter", "own_error", "own_lever"), error)
            difference = row["dark_current"] - value
            errors = abs(difference) / np.hypot(error, np.nan_to_num(row["dark_current_scatter"]))
            if errors > _CERTAIN:
                of_black.append(setting_of(row))
                _put(row, noise, signals)
            elif errors > _DOUBTFUL:
                row["dark_current_error"] = float(np.hypot(row["dark_current_error"], difference))
    warnings: list[str] = []
    if of_camera:
        maybe = "" if sound else ", or its black level has moved from that of the bias frames"
        facts = f"the noise of the darks grows with exposure and the mean does not ({listed(of_camera)})"
        cause = f"the camera subtracts the mean dark signal by itself{maybe}; the dark current is that of the noise"
        warnings.append(Guess(facts, cause, "subtraction"))
    if of_black:
        warnings.append(
            f"the black level of the darks is not that of the bias frames, which had another temperature "
            f"({listed(of_black)}): the mean signal contradicts the growth of the noise; the dark current is that of "
            "the noise; shoot bias frames at the darks' temperature, or darks of a second exposure"
        )
    return warnings


def _subtracts(row: dict[str, Any], noise: dict[str, float]) -> bool:
    errors = np.nan_to_num(row["dark_current_scatter"]), noise["dark_current_scatter"]
    return mean_subtracted(row["dark_current"], noise["dark_current"], *errors)


def _flicker(sound: list[tuple[dict[str, Any], dict[str, float]]]) -> tuple[float, float]:
    """Return the dark current of the noise over that of the mean, and its error; 1 where no setting shows it."""
    clear = [(row, noise) for row, noise in sound if row["dark_current"] > 5 * row["dark_current_scatter"]]
    ratios = np.array([noise["dark_current"] / row["dark_current"] for row, noise in clear])
    errors = [
        np.hypot(noise["dark_current_scatter"], row["dark_current_scatter"] * ratio) / row["dark_current"]
        for (row, noise), ratio in zip(clear, ratios, strict=True)
    ]
    ratio, error = weighted_by_errors(ratios, np.array(errors))
    return (ratio, error) if np.isfinite(ratio) and ratio > 0 else (1.0, 0.0)


def _put(row: dict[str, Any], noise: dict[str, float], signals: list[dict[str, Any]]) -> None:
    """Put the dark current of the noise in place of the mean's; what a dark signal is off is in its error."""
    off, scale = noise["dark_current"] - row["dark_current"], noise["dark_current_adu"] / noise["dark_current"]
    for one in signals:
        if setting_of(one) == setting_of(row):
            for unit, factor in (("", 1.0), ("_adu", scale)):
                wide = np.hypot(one[f"dark_signal{unit}_error"], factor * off * one["exposure"])
                one[f"dark_signal{unit}_error"] = float(wide)
    row |= noise | {"median": row["median"] + off}
