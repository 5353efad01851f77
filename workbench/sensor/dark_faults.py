"""What falsifies a dark current: light, hot pixels that saturate, and a black level that is not the bias frames'."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import special

from ..core.cube import channels_of
from ..core.mosaic import channel_index, planes
from ..core.statistics import MAD_TO_SIGMA, MISFIT, MISFIT_TO_WARN, fit_line, weighted_by_errors
from ..core.values import describe, listed
from .dark_frames import SAME_TEMPERATURE, DarkGroup, DarkSetting, pooled_variance
from .law import mean_subtracted

_GRID = 8  # tiles a side
_LEAST_PIXELS = 400  # a tile and channel
_LARGEST_SAMPLE = 1 << 18  # pixels a channel
_WITHIN = 5.0  # robust standard deviations: what is farther off is a hot pixel
_CERTAIN = 5.0  # errors
_LEAST_COLOUR = 0.003  # of the dark signal: smaller differences of the channels are nothing to name
_LEAST_STRUCTURE = 0.1  # of the dark signal, standard deviation over the frame
_LEAST_ELECTRONS = 0.5  # of that structure in the longest dark
_RESPONSE = 2.0  # mean light over the difference of the channels: filters pass some 0.5 to 1 of their best
_GLOW = 0.2  # of the frame at most that the readout's glow brightens
_OWN_LAW = 0.02  # 1/K: by how much the dark current of a hot pixel may rise differently
_MOST_SATURATED = 0.02  # of the pixels
_DOUBTFUL = 2.0  # errors between mean and noise from which on the error holds the difference
_SETTING = ("iso", "gain_setting", "temperature")


class Gain(NamedTuple):
    """Gain of each channel [e⁻/ADU], its error as it counts in a mean of all (`error_in_mean`), and its own."""

    value: np.ndarray
    error: np.ndarray
    own: np.ndarray


class Light(NamedTuple):
    """How much light may have added to the mean of a picture, in its unit, and in which words it shows; 0 and ""."""

    most: float
    words: str


class _Tiles(NamedTuple):
    """Means over (channel, row, column) of tiles without hot pixels, and their errors."""

    level: np.ndarray
    error: np.ndarray


def find_light(
    picture: np.ndarray, masked: np.ndarray, pattern: str, gain: np.ndarray, doubt: np.ndarray, longest: float = 1.0
) -> Light:
    """Return the light in a picture of dark current, or of dark signal above the bias.

    Dark current knows no colour filters: where both greens agree and red or blue differ from them beyond the errors,
    light has come in.  It hardly varies over the frame either: smooth structure of more than a tenth is light, unless
    it is confined to an edge, as the glow of the readout electronics is.

    Parameters
    ----------
    picture, masked
        Mosaic (y, x) [ADU/s, or ADU], and the pixels to leave out.
    pattern
        The mosaic's colours.
    gain
        Of each channel [e⁻/ADU].
    doubt
        Covariance of the channels' means (channel, channel) [(e⁻/s)²] besides the pixels' own noise.
    longest
        Exposure [s] of the longest dark where the picture is a rate.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> dark, lit = rng.normal(1, 0.1, (2, 128, 128))
    >>> lit[::2, ::2] += 0.05  # through the red filters
    >>> [find_light(one, np.zeros((128, 128), bool), "RGGB", np.ones(4), np.zeros((4, 4))).most > 0.05
    ...  for one in (dark, lit)]
    [False, True]
    """
    tiles = _tiles_of(picture, masked, pattern, gain)
    if tiles is None:
        return Light(0.0, "")
    level = tiles.level.mean(axis=(1, 2))
    own = np.sqrt(np.square(tiles.error).sum(axis=(1, 2))) / tiles.error[0].size
    coloured = _by_colour(level, doubt + np.diag(own**2), channels_of(pattern))
    structured = _by_structure(tiles, longest)
    found = [light for light in (coloured, structured) if light.words]
    return Light(max((light.most for light in found), default=0.0), ", and ".join(light.words for light in found))


def _tiles_of(picture: np.ndarray, masked: np.ndarray, pattern: str, gain: np.ndarray) -> _Tiles | None:
    """Return the means of the tiles of an even sample; None for a picture too small or masked too much."""
    samples, levels, errors = [], [], []
    for (_, plane), (_, mask) in zip(planes(picture, pattern), planes(masked, pattern), strict=True):
        stride = max(1, int(np.sqrt(plane.size / _LARGEST_SAMPLE)))
        samples.append(np.where(mask, np.nan, plane)[::stride, ::stride].astype(np.float64))
    side = min(_GRID, *(int(np.sqrt(values.size / _LEAST_PIXELS)) for values in samples))
    if side < 1:
        return None
    for channel, values in enumerate(samples):
        rows, columns = (length // side for length in values.shape)
        cut = values[: rows * side, : columns * side].reshape(side, rows, side, columns)
        each = np.moveaxis(cut, 2, 1).reshape(side, side, -1)
        if not np.isfinite(each).any(axis=2).all():
            return None
        centre = np.nanmedian(each, axis=2, keepdims=True)
        spread = MAD_TO_SIGMA * np.nanmedian(np.abs(each - centre), axis=2, keepdims=True)
        # one limit for all tiles, so that the same share of a skewed distribution is cut everywhere
        each = np.where(np.abs(each - centre) <= _WITHIN * np.median(spread), each, np.nan)
        levels.append(gain[channel] * np.nanmean(each, axis=2))
        errors.append(gain[channel] * np.nanstd(each, axis=2) / np.sqrt(np.isfinite(each).sum(axis=2)))
    return _Tiles(np.array(levels), np.array(errors))


def _by_colour(level: np.ndarray, covariance: np.ndarray, names: tuple[str, ...]) -> Light:
    """Return the light that the channels' means show: both greens alike, red or blue apart from them."""
    greens = [number for number, name in enumerate(names) if name.startswith("G")]
    if len(greens) != 2:
        return Light(0.0, "")

    def apart(weight: np.ndarray) -> tuple[float, float]:
        return float(weight @ level), float(np.sqrt(weight @ covariance @ weight))

    unit = np.eye(level.size)
    green = unit[greens].mean(axis=0)
    between, between_error = apart(unit[greens[0]] - unit[greens[1]])
    others = [apart(unit[number] - green) for number in range(level.size) if number not in greens]
    largest, error = max(others, key=lambda other: abs(other[0]) / max(other[1], 1e-300))
    alike = abs(between) < max(abs(largest) / 4, 2 * between_error)
    certain = abs(largest) > max(_CERTAIN * error, _LEAST_COLOUR * abs(level.mean()))
    if not alike or not certain:
        return Light(0.0, "")
    values = np.array([level @ green, *(level @ unit[n] for n in range(level.size) if n not in greens)])
    per_cent = 100 * np.ptp(values) / max(abs(level.mean()), 1e-300)
    words = f"the channels differ by {per_cent:.2g} % as light through their filters makes them"
    return Light(_RESPONSE * float(np.ptp(values)), words)


def _by_structure(tiles: _Tiles, longest: float) -> Light:
    """Return the light that varies smoothly over the frame."""
    level, error = tiles.level.mean(axis=0), np.sqrt(np.square(tiles.error).sum(axis=0)) / len(tiles.level)
    mean, noise = float(level.mean()), float(np.square(error).mean())
    excess = float(level.var(ddof=1)) - noise if level.size > 1 else 0.0
    certain = excess > _CERTAIN * noise * np.sqrt(2 / max(level.size - 1, 1))
    if not certain or not np.sqrt(excess) > max(_LEAST_STRUCTURE * abs(mean), _LEAST_ELECTRONS / longest):
        return Light(0.0, "")
    low, high = (float(value) for value in np.quantile(level, (0.05, 1)))
    if np.mean(level > (low + high) / 2) < _GLOW:
        return Light(0.0, "")
    times = f"{high / low:.2g}-fold" if low > 0.02 * high else "from nothing"
    return Light(mean - low, f"it rises smoothly {times} over the frame")


def light_warning(subject: str, light: Light, value: str) -> str:
    """Return the warning about light in darks."""
    return (
        f"light leaks into the {subject}: {light.words}; {value}; cover the viewfinder, cap and wrap the camera, and "
        "shoot them again in the dark"
    )


def add_light(rows: list[dict[str, Any]]) -> list[str]:
    """Put the light that some settings' darks show into the errors of all dark currents, and return the warning.

    Light falls on warm and cold darks alike, and is seen best where the dark current is small.
    """
    words = [row.pop("light_words", "") for row in rows]
    lit = [row for row, found in zip(rows, words, strict=True) if found]
    if not lit:
        return []
    clearest = max(lit, key=lambda row: row["light"] / max(row["dark_current"], 1e-300))
    for row in rows:
        row["light"] = row["light"] if row["light"] > 0 else clearest["light"]
        for unit in ("", "_adu"):
            light = row["light"] * (np.divide(row["dark_current_adu"], row["dark_current"]) if unit else 1)
            row[f"dark_current{unit}_error"] = float(np.hypot(row[f"dark_current{unit}_error"], light))
    where = _setting_of(clearest)
    more = f", and at {len(lit) - 1} more settings" * (len(lit) > 1)
    light = Light(clearest["light"], words[rows.index(clearest)])
    value = f"up to {light.most:.2g} e-/s of each dark current may be light, which its error holds"
    return [light_warning(f"darks at {where}{more}", light, value)]


def scatter_covariance(points: list[DarkGroup], levers: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Return the channels' covariance of Σ lever · gain · (frame mean), pooled over the groups; 0 of single frames."""
    away = [gain * (group.means - group.means.mean(axis=0)) for group in points]
    freedom = max(sum(group.count - 1 for group in points), 1)
    lever = sum(lever**2 * group.count for lever, group in zip(levers, points, strict=True))
    return lever * sum(part.T @ part for part in away) / freedom


def misfit(points: list[DarkGroup], weight: np.ndarray, where: str) -> tuple[float, list[str]]:
    """Return by how much to widen the error where the signal is not proportional to exposure, and warnings."""
    variance, freedom = pooled_variance(points, weight)
    if len(points) < 3 or not variance > 0:
        return 1.0, []
    counts, times = (np.array([getattr(group, name) for group in points], float) for name in ("count", "exposure"))
    level = np.array([group.steady @ weight for group in points])
    line = fit_line(times, level, counts)
    off = level - line.intercept - line.slope * times
    ratio = float((counts * off**2).sum() / (len(points) - 2) / variance)
    chance = special.fdtrc(len(points) - 2, freedom, ratio)
    warnings = []
    if chance < MISFIT_TO_WARN:
        worst = times[np.argmax(np.abs(off) * np.sqrt(counts))]
        warnings.append(
            f"the dark signal at {where} is not proportional to exposure (worst at {worst:g} s), so the error of the "
            "dark current is widened; darks that were not equally warm do this"
        )
    return np.sqrt(ratio) if chance < MISFIT else 1.0, warnings


def _setting_of(row: dict[str, Any]) -> str:
    return describe({name: row[name] for name in _SETTING if name in row})


class _Unknown(NamedTuple):
    """A setting's row, and its pixels that saturate too much to be measured there: numbers and channels."""

    row: dict[str, Any]
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
        if 0 < pixels.size <= _MOST_SATURATED * setting.lost.size:
            cell = channel_index(setting.pattern)
            y, x = np.unravel_index(pixels, setting.lost.shape)
            self._unknown.append(_Unknown(row, pixels, cell[y % cell.shape[0], x % cell.shape[1]]))

    def _fill(self, unknown: _Unknown, cold: dict[str, Any], setting: DarkSetting, gain: np.ndarray) -> _Unknown:
        warm, pixels, channels = unknown
        known = ~setting.lost.ravel()[pixels]
        if not known.any() or not cold["dark_current_common"] > 0 or setting.slope is None:
            return unknown
        rates = gain[channels[known]] * setting.slope.ravel()[pixels[known]].astype(float)
        rates *= warm["dark_current_common"] / cold["dark_current_common"]
        apart = abs(warm["temperature"] - cold["temperature"])
        doubt = _OWN_LAW * (apart if np.isfinite(apart) else 0.0)
        whole = setting.lost.size - pixels.size + rates.size  # pixels that are known then
        kept = (whole - rates.size) / whole
        mean, added = warm["dark_current"], rates.sum() / whole
        new = kept * mean + added
        scale = np.divide(warm["dark_current_adu"], mean)
        error = float(np.hypot(warm["dark_current_error"], doubt * added))
        squares = kept * (np.nan_to_num(warm["dcnu"]) ** 2 + mean**2) + np.square(rates).sum() / whole
        dcnu = float(np.sqrt(max(squares - new**2, 0.0)))
        of_hot = doubt * np.square(rates).sum() / whole / max(dcnu, 1e-300)
        warm |= {
            "dark_current": float(new),
            "dark_current_error": error,
            "dark_current_adu": float(new * scale),
            "dark_current_adu_error": float(np.hypot(warm["dark_current_adu_error"], doubt * added * scale)),
            "saturated_pixels": int(pixels.size - rates.size),
        }
        if np.isfinite(warm["dcnu"]):
            warm |= {"dcnu": dcnu, "dcnu_error": float(np.hypot(warm["dcnu_error"], of_hot))}
        return _Unknown(warm, pixels[~known], channels[~known])

    def warnings(self, exposures: list[dict[str, Any]], size: int) -> list[str]:
        """Return a warning of the settings where some pixels stay unknown and matter.

        Each holds at least what saturates the shortest dark there, which goes into the error.
        """
        left = []
        for row in (unknown.row for unknown in self._unknown if unknown.row["saturated_pixels"]):
            here = [one for one in exposures if _setting_of(one) == _setting_of(row)]
            least = row["capacity"] / max(min(one["exposure"] for one in here), 1e-300)
            missing = row["saturated_pixels"] * least / size
            if missing > row["dark_current_error"]:
                row["dark_current_error"] = float(np.hypot(row["dark_current_error"], missing))
                left.append(f"{row['saturated_pixels']} at {_setting_of(row)}")
        if not left:
            return []
        return [
            f"hot pixels saturate in every dark ({listed(left)}) and are left out, so that the dark current is that of "
            "the others and lower than that of the whole sensor; shoot shorter darks too"
        ]


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
            of_camera.append(_setting_of(row))
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
                of_black.append(_setting_of(row))
                _put(row, noise, signals)
            elif errors > _DOUBTFUL:
                row["dark_current_error"] = float(np.hypot(row["dark_current_error"], difference))
    warnings = []
    if of_camera:
        maybe = "" if sound else ", or its black level has moved from that of the bias frames"
        warnings.append(
            f"the camera subtracts the mean dark signal by itself{maybe} ({listed(of_camera)}): the noise grows with "
            "exposure, the mean does not; the dark current is that of the noise"
        )
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
        if _setting_of(one) == _setting_of(row):
            for unit, factor in (("", 1.0), ("_adu", scale)):
                wide = np.hypot(one[f"dark_signal{unit}_error"], factor * off * one["exposure"])
                one[f"dark_signal{unit}_error"] = float(wide)
    row |= noise | {"median": row["median"] + off}
