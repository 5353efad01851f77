"""Two flats of a pair that are lit differently from each other: found by the shape of their ratio, and evened.

A lamp may drift, but the picture of its light has to stay: where it does not (a gradient of twilight, a panel that
moved, dust that did), the difference of two flats holds that picture besides the noise, and the gain reads too low.
The ratio of two equally lit flats is flat within its noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.polynomial import legendre
from scipy import ndimage, special

from ..core.mosaic import channel_index
from ..core.pairs import PairSums, pair_moments, pair_sums
from ..core.parallel import lazy_frames, stream_frames

COLUMNS = 16  # parts of the width
_TALL = 4  # blocks of rows that are as tall as these parts are wide
_DEGREE = 4  # of the surface, in both directions together
_CHANCE = 1e-6  # that the noise of an equally lit pair, that of whole rows and columns among it, shows such a shape
_FAINT = 0.002  # of the variance: a shape below it, or below the noise without light, is let be
_WORTH_A_WARNING = 0.01  # of the variance that the shape added, or that is left
_ODD_TILE = 7.0  # standard deviations of a tile's ratio from the surface
_MOST_ODD = 0.25  # of the tiles
_FEWEST = 8  # blocks of rows and of columns
_ROUNDS = 4


class PairLight(NamedTuple):
    """How the first flat of a pair is lit against the second.

    `shape` (channel, degree, degree) are coefficients of Legendre polynomials of rows and columns, each from -1 to 1,
    of the relative difference; `left_out` (block, column) are tiles that differ from it, `added` (channel) is the share
    that the shape adds to the variance, and `rough` whether the other tiles are not described by it either.
    """

    shape: np.ndarray
    left_out: np.ndarray
    added: np.ndarray
    rough: bool


def polynomials(size: int, parts: int) -> np.ndarray:
    """Return the means of the Legendre polynomials in parts of a side (part, degree), each part as `pair_sums` cuts it.

    Examples
    --------
    >>> polynomials(4, 2)[:, 1].tolist()
    [-0.5, 0.5]
    """
    values = legendre.legvander((2 * np.arange(size) + 1) / size - 1, _DEGREE)
    starts = -(-np.arange(parts) * size // parts)
    return np.add.reduceat(values, starts, axis=0) / np.diff(np.append(starts, size))[:, None]


def pair_light(tiles: np.ndarray, black: np.ndarray, sides: tuple[int, int], dark: np.ndarray) -> PairLight | None:
    """Return how the flats of a pair are lit against each other; None where equally, or too few tiles show it.

    With D the relative difference of the flats in each tile, scaled to one level, D's means over columns, over rows,
    and what is left are each compared with polynomials (F test, p < 10⁻⁶): noise of whole rows or columns is then
    compared with its own.  A shape whose variance is within `dark` is none either.

    Parameters
    ----------
    tiles
        Sums (channel, block, column, moment) of `pair_sums` [ADU^k].
    black, dark
        Black level [ADU] and variance without light [ADU²] of each channel, the latter NaN where unknown.
    sides
        Cells of the mosaic in both directions.
    """
    if min(tiles.shape[1:3]) < _FEWEST:
        return None
    moments = pair_moments(tiles)
    black = np.asarray(black, float)[:, None, None]
    whole = pair_moments(tiles.sum(axis=(1, 2)))
    means = [np.asarray(part)[:, None, None] - black for part in (whole.mean1, whole.mean2)]
    level1, level2 = moments.mean1 - black, moments.mean2 - black
    level = (means[0] + means[1])[:, 0, 0] / 2
    if not (np.isfinite(level1 + level2).all() and min(level1.min(), level2.min()) > 0):
        return None  # saturated, or without light
    part1, part2 = level1 / means[0], level2 / means[1]
    difference = 2 * (part1 - part2) / (part1 + part2)
    both = (level1 + level2) / 2
    within = moments.scaled_half_variance(black).sum(axis=(1, 2)) / both.sum(axis=(1, 2))  # grows with the light
    if not within.min() > 0:
        return None
    noise = 2 * within[:, None, None] / (moments.n * both)  # of a tile's difference
    weight = 1 / noise.mean(axis=(1, 2))
    weight /= weight.sum()

    mean = np.tensordot(weight, difference, 1)
    spread = np.sqrt(np.tensordot(weight**2, noise, 1))
    rows, columns = (polynomials(*given) for given in zip(sides, tiles.shape[1:3], strict=True))
    left_out = np.zeros(mean.shape, bool)
    terms = np.zeros((_DEGREE + 1, _DEGREE + 1), bool)
    for _ in range(_ROUNDS):
        terms, filled = _terms(mean, left_out, rows, columns)
        away = mean - filled
        scale = max(1.0, float(1.4826 * np.median(np.abs(away[~left_out] / spread[~left_out]))))
        wide = ndimage.uniform_filter(away / spread, (_TALL, 1)) * np.sqrt(_TALL)
        before, left_out = left_out, np.maximum(np.abs(away / spread), np.abs(wide)) > _ODD_TILE * scale
        if (before == left_out).all():
            break
    left_out = ndimage.binary_dilation(left_out, np.ones((2 * _TALL + 1, 3), bool))  # dust has a rim
    if (keep := ~left_out).mean() < 1 - _MOST_ODD:
        keep[:] = True
    shape, surface = _surface(difference, ~keep, rows, columns, terms)
    added = np.square(level) / 2 * np.square(difference).mean(axis=(1, 2))
    added -= np.square(level) / 2 * noise.mean(axis=(1, 2))
    rest = np.square(level) / 2 * (np.square(difference - surface) - noise)[:, keep].mean(axis=1)
    variance = within * level
    least = np.where(np.isfinite(dark), dark, 0) + _FAINT * variance
    chance = _ODD_TILE * np.sqrt(2 / keep.sum()) / moments.n.mean()  # of the variance, between tiles
    rough = bool(np.median(rest / variance) > max(_WORTH_A_WARNING, chance))
    if not (terms.any() or left_out.any() or rough) or not (added > least).any():
        return None
    return PairLight(shape, ~keep, added / variance, rough)


def _terms(
    difference: np.ndarray, left_out: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return which terms (degree, degree) a picture of tiles has beyond its noise, and the surface of them."""
    every = np.add.outer(range(_DEGREE + 1), range(_DEGREE + 1)) <= _DEGREE
    every[0, 0] = False
    filled = difference
    if left_out.any():
        filled = np.where(left_out, _surface(difference[None], left_out, rows, columns, every)[1][0], difference)
    along, across = filled.mean(axis=1), filled.mean(axis=0)
    both = filled - along[:, None] - across + filled.mean()
    terms = np.zeros_like(every)
    terms[1:, 0] = _shows(along, rows[:, 1:], along.size - 1)
    terms[0, 1:] = _shows(across, columns[:, 1:], across.size - 1)
    mixed = np.argwhere(every[1:, 1:]) + 1
    products = np.stack([np.outer(rows[:, i], columns[:, j]).ravel() for i, j in mixed], axis=1)
    terms[tuple(mixed.T)] = _shows(both.ravel(), products, (along.size - 1) * (across.size - 1))
    return terms, _surface(difference[None], left_out, rows, columns, terms)[1][0]


def _shows(values: np.ndarray, basis: np.ndarray, degrees: int) -> bool:
    """Return whether values hold a basis beyond their scatter about it (F test)."""
    fit = basis @ np.linalg.lstsq(basis - basis.mean(axis=0), values - values.mean(), rcond=None)[0]
    explained = float(np.square(fit - fit.mean()).sum())
    scatter = float(np.square(values - values.mean() - fit + fit.mean()).sum())
    count = basis.shape[1]
    if scatter <= 0:
        return explained > 0
    ratio = explained / count / (scatter / (degrees - count))
    return float(special.fdtrc(count, degrees - count, ratio)) < _CHANCE


def _surface(
    difference: np.ndarray, left_out: np.ndarray, rows: np.ndarray, columns: np.ndarray, terms: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fit the terms and a mean to pictures of tiles (channel, block, column); return coefficients and surfaces."""
    wanted = terms.copy()
    wanted[0, 0] = True
    basis = np.stack([np.outer(rows[:, i], columns[:, j]).ravel() for i, j in np.argwhere(wanted)], axis=1)
    flat = difference.reshape(len(difference), -1)
    keep = ~left_out.ravel()
    found = np.linalg.lstsq(basis[keep], flat[:, keep].T, rcond=None)[0].T
    shape = np.zeros((len(difference), *terms.shape))
    shape[:, wanted] = found
    return shape, (found @ basis.T).reshape(difference.shape)


def evened(frames: Sequence[np.ndarray], pattern: str, black: np.ndarray, light: PairLight) -> list[np.ndarray]:
    """Return the two flats brought to their mean light, (y - black)(1 ∓ D/2) + black; NaN in the tiles left out."""
    cell = channel_index(pattern)
    step = cell.shape[0]
    result = [np.array(frame, np.float32) for frame in frames]
    height, width = (side // step for side in result[0].shape)
    rows, columns = (polynomials(side, side) for side in (height, width))
    blocks, parts = light.left_out.shape
    odd = light.left_out[np.arange(height) * blocks // height]
    odd = np.repeat(odd, np.diff(-(-np.arange(parts + 1) * width // parts)), axis=1)
    for channel, shape in enumerate(light.shape):
        half = (rows @ shape @ columns.T / 2).astype(np.float32)
        level = np.float32(black[channel])
        for dy, dx in np.argwhere(cell == channel):
            for sign, frame in zip((-1, 1), result, strict=True):
                plane = frame[dy : height * step : step, dx : width * step : step]
                plane[...] = (plane - level) * (1 + sign * half) + level
                plane[odd] = np.nan
    return result


def even_pairs(
    flat: xr.DataArray, pairs: Sequence[tuple[int, int]], sums: PairSums, dark: dict[str, np.ndarray]
) -> tuple[PairSums, np.ndarray, list[str]]:
    """Measure again, evened, the pairs whose flats are lit differently.

    Parameters
    ----------
    flat, pairs, sums
        Flats, numbers of the two of each pair, and their sums.
    dark
        ``black_level`` [ADU] and ``dark_variance`` [ADU²] of each flat (frame, channel).

    Returns
    -------
    sums, good, warnings
        Sums of the pairs with those replaced, which pairs (pair) to use, all where none is good, and what was done.
    """
    good, pattern, lazy = np.ones(len(pairs), bool), flat.attrs["cfa_pattern"], lazy_frames(flat)
    step = channel_index(pattern).shape[0]
    sides = flat.sizes["y"] // step, flat.sizes["x"] // step
    mended: list[tuple[float, int]] = []
    kept, plain = sums.kept.copy(), sums.plain.copy()
    for number, (first, second) in enumerate(pairs):
        black = dark["black_level"][first]
        light = pair_light(sums.tiles[number], black, sides, dark["dark_variance"][first])
        if light is None:
            continue
        one, other = evened(list(stream_frames([lazy[first], lazy[second]])), pattern, black, light)
        again = pair_sums(one, other, pattern, blocks=kept.shape[2], columns=sums.tiles.shape[3], black=black)
        kept[number], plain[number] = again.kept, again.plain
        good[number] = not light.rough
        if (share := float(np.median(light.added))) > _WORTH_A_WARNING:
            mended.append((share, number))
    texts = _warnings(flat, pairs, mended, good)
    return sums._replace(kept=kept, plain=plain), good | (not good.any()), texts


def _warnings(
    flat: xr.DataArray, pairs: Sequence[tuple[int, int]], mended: list[tuple[float, int]], good: np.ndarray
) -> list[str]:
    """Name the pairs that were lit differently, the worst first."""
    names, texts = flat["filename"].values, list[str]()
    rest = "so these pairs are left out of the gain" if good.any() else "so the gain reads too low by as much"
    for fine, done in (
        (True, "their difference is taken out of the variance, and the gain is that of evenly lit flats"),
        (False, "no smooth surface describes it, " + rest),
    ):
        worst = sorted(((share, n) for share, n in mended if good[n] == fine), reverse=True)
        if not worst:
            continue
        share, number = worst[0]
        more = "" if len(worst) < 2 else f" (and {len(worst) - 1} pair{'s' * (len(worst) > 2)} like them)"
        texts.append(
            f"the flats {' and '.join(names[[*pairs[number]]])}{more} are lit differently from each other (a gradient "
            f"of the light, a panel or dust that moved), which adds {share:.0%} to their variance; {done}. Shoot flats "
            "of a level one right after the other, under the same light"
        )
    return texts
