"""Light that leaks into darks: seen by the colours of the filters, and by smooth structure over the frame."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..core.cube import channels_of
from ..core.mosaic import planes
from ..core.statistics import even_sample, mad_std
from ..core.values import describe

_GRID = 8  # tiles a side
_LEAST_PIXELS = 400  # a tile and channel
_LARGEST_SAMPLE = 1 << 18  # pixels a channel
_WITHIN = 5.0  # robust standard deviations: what is farther off is a hot pixel
_CERTAIN = 5.0  # errors
_LEAST_COLOUR = 0.003  # of the dark signal: smaller differences of the channels are nothing to name
_LEAST_STRUCTURE = 0.1  # of the dark signal, standard deviation over the frame
_LEAST_ELECTRONS = 0.5  # of that structure in the longest dark
_RESPONSE = 3.0  # mean light over the difference of the channels: filters pass some 0.6 to 1 of their best
_DOUBTFUL_STRUCTURE = 0.03  # of the dark signal, standard deviation over the frame: light, or something else
_GLOW = 0.2  # of the frame at most that the readout's glow brightens
_SETTING = ("iso", "gain_setting", "temperature")


class Light(NamedTuple):
    """How much light may have added to the mean of a picture, in its unit, and in which words it shows; 0 and "".

    `maybe` are the words for what light does, and something else too.
    """

    most: float
    words: str
    maybe: str = ""


class _Tiles(NamedTuple):
    """Means over (channel, row, column) of tiles without hot pixels, and their errors."""

    level: np.ndarray
    error: np.ndarray


def find_light(
    picture: np.ndarray, masked: np.ndarray, pattern: str, gain: np.ndarray, doubt: np.ndarray, longest: float = 1.0
) -> Light:
    """Return the light in a picture of dark current, or of dark signal above the bias.

    Dark current knows no colour filters: where both greens agree and red or blue differ from them beyond the errors,
    light has come in.  It varies little over the frame either: smooth structure of more than a tenth is light, unless
    it is confined to an edge, as the glow of the readout electronics is; that, and less structure, may be light.

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
    words = ", and ".join(light.words for light in found)
    return Light(max((light.most for light in found), default=0.0), words, structured.maybe)


def _tiles_of(picture: np.ndarray, masked: np.ndarray, pattern: str, gain: np.ndarray) -> _Tiles | None:
    """Return the means of the tiles of an even sample; None for a picture too small or masked too much."""
    samples, levels, errors = [], [], []
    for (_, plane), (_, mask) in zip(planes(picture, pattern), planes(masked, pattern), strict=True):
        plane, mask = (even_sample(values, _LARGEST_SAMPLE) for values in (plane, mask))
        samples.append(np.where(mask, np.nan, plane).astype(np.float64))
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
        spread = mad_std(each, 2, centre=centre)
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
    if not certain or not np.sqrt(excess) > max(_DOUBTFUL_STRUCTURE * abs(mean), _LEAST_ELECTRONS / longest):
        return Light(0.0, "")
    low, high = (float(value) for value in np.quantile(level, (0.05, 1)))
    times = f"{high / low:.2f}-fold" if low > 0.02 * high else "from nothing"
    if np.mean(level > (low + high) / 2) < _GLOW:
        return Light(0.0, "", f"rises {times} towards an edge, as the glow of the readout electronics makes it")
    if np.sqrt(excess) > _LEAST_STRUCTURE * abs(mean):
        return Light(mean - low, f"it rises smoothly {times} over the frame")
    return Light(
        0.0, "", f"rises smoothly {times} over the frame, as a sensor that is not equally warm all over makes it"
    )


def light_warning(subject: str, light: Light, value: str) -> str:
    """Return the warning about light in darks."""
    return (
        f"light leaks into the {subject}: {light.words}; {value}; cover the viewfinder, cap and wrap the camera, and "
        "shoot them again in the dark"
    )


def _doubtful_warning(found: list[tuple[str, str]]) -> str:
    """Return the warning of settings, each with its words, whose darks light may have reached."""
    (where, words), *others = found
    more = f", and at {len(others)} more settings," * bool(others)
    return (
        f"the dark signal at {where}{more} {words}, or light that leaks in: wrap the camera and shoot some of the "
        "darks again; light changes, the rest does not, and the dark current holds both"
    )


def add_light(rows: list[dict[str, Any]]) -> list[str]:
    """Put the light that some settings' darks show into the errors of all dark currents, and return the warning.

    Light falls on warm and cold darks alike, and is seen best where the dark current is small.
    """
    words, maybe = ([row.pop(name, "") for row in rows] for name in ("light_words", "light_maybe"))
    lit = [row for row, found in zip(rows, words, strict=True) if found]
    if not lit:
        doubtful = [(setting_of(row), text) for row, text in zip(rows, maybe, strict=True) if text]
        return [_doubtful_warning(doubtful)] if doubtful else []
    clearest = max(lit, key=lambda row: row["light"] / max(row["dark_current"], 1e-300))
    for row in rows:
        row["light"] = row["light"] if row["light"] > 0 else clearest["light"]
        for unit in ("", "_adu"):
            light = row["light"] * (np.divide(row["dark_current_adu"], row["dark_current"]) if unit else 1)
            row[f"dark_current{unit}_error"] = float(np.hypot(row[f"dark_current{unit}_error"], light))
    where = setting_of(clearest)
    more = f", and at {len(lit) - 1} more settings" * (len(lit) > 1)
    light = Light(clearest["light"], words[rows.index(clearest)])
    value = f"up to {light.most:.2g} e-/s of each dark current may be light, which its error holds"
    return [light_warning(f"darks at {where}{more}", light, value)]


def setting_of(row: dict[str, Any]) -> str:
    """Return the setting of a row in words."""
    return describe({name: row[name] for name in _SETTING if name in row})
