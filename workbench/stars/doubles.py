"""Frames whose every star shows twice: the mount jumped during the exposure, or something shook the telescope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.spatial import cKDTree
from scipy.special import pdtrc

from ..core.values import listed

_BRIGHTEST = 300  # stars compared
_FARTHEST = 0.25  # of the field that the stars span: longer jumps are not sought
_RADIUS = 1.5  # px: so well do the offsets of real companions agree
_LEAST_PAIRS = 5
_LEAST_SHARE = 0.35  # of the stars that are bright enough to show a companion
_LEAST_RATIO = 0.1  # of a star's light: less is left to rejection
_AGREE = 0.25  # natural logarithm of the brightness ratio: so well do those of real companions agree
_CHANCE = 1e-6  # a common companion this likely by chance, after all offsets tried, is none


class Companion(NamedTuple):
    """What the stars of a frame have next to them: its offset [px], its light over the star's, the share with it."""

    dx: float
    dy: float
    ratio: float
    share: float

    @property
    def distance(self) -> float:
        """From a star to its companion [px]."""
        return float(np.hypot(self.dx, self.dy))

    def __str__(self) -> str:
        return (
            f"stars are doubled: {100 * self.share:.0f} % of the bright ones have a companion {self.distance:.1f} px "
            f"away with {100 * self.ratio:.0f} % of their light (a jump of the mount?)"
        )


def common_companion(stars: xr.Dataset) -> Companion | None:
    """Find the companion that a frame's stars have at one offset with one brightness ratio; None without it.

    Every pair of stars votes for its offset.  The offset with most votes counts if at least five pairs agree in their
    brightness ratio, if a third or more of the stars that are bright enough to show such a companion have it, and if
    so many pairs by chance (Poisson, from the pairs at other offsets of like length, times the offsets tried) have
    odds below one in a million.  Real double stars have many offsets; hot pixels and ghosts are few.

    Parameters
    ----------
    stars
        What `find_stars` gives: ``x``, ``y`` [px] and ``flux``, which is NaN at the frame's edge.

    Examples
    --------
    >>> rng = np.random.default_rng(3)
    >>> x, y, flux = *rng.uniform(0, 800, (2, 40)), 1000 * (1 + rng.pareto(1.0, 40))
    >>> def catalogue(x, y, flux):
    ...     return xr.Dataset({"x": ("star", x), "y": ("star", y), "flux": ("star", flux)})
    >>> common_companion(catalogue(x, y, flux)) is None
    True
    >>> twice = [np.concatenate(pair) for pair in ((x, x + 9), (y, y - 3), (0.6 * flux, 0.4 * flux))]
    >>> found = common_companion(catalogue(*twice))
    >>> [round(float(value), 2) for value in (found.dx, found.dy, found.ratio)]
    [9.0, -3.0, 0.67]
    """
    flux = stars["flux"].values.astype(float)
    bright = np.argsort(np.where(flux > 0, -flux, np.inf), kind="stable")[: np.count_nonzero(flux > 0)][:_BRIGHTEST]
    places = np.stack([stars["x"].values, stars["y"].values], 1)[bright].astype(float)
    light = np.log(flux[bright])
    if len(places) < 2 * _LEAST_PAIRS:
        return None
    reach = _FARTHEST * max(float(np.ptp(places, axis=0).min()), 8 * _RADIUS)
    pairs = cKDTree(places).query_pairs(reach, output_type="ndarray")
    if len(pairs) < _LEAST_PAIRS:
        return None
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    pairs.sort(axis=1)  # the brighter first
    offset = places[pairs[:, 1]] - places[pairs[:, 0]]
    flip = np.where((offset[:, 0] < 0) | ((offset[:, 0] == 0) & (offset[:, 1] < 0)), -1.0, 1.0)  # one half of the plane
    offset *= flip[:, None]
    tree = cKDTree(offset)
    votes = np.bincount(tree.query_pairs(_RADIUS, output_type="ndarray").ravel(), minlength=len(offset))
    middle = np.median(offset[tree.query_ball_point(offset[int(votes.argmax())], _RADIUS)], axis=0)
    near = np.flatnonzero(np.hypot(*(offset - middle).T) < _RADIUS)
    ratios = flip[near] * (light[pairs[near, 1]] - light[pairs[near, 0]])
    ratio = float(np.median(ratios))
    agree = near[np.abs(ratios - ratio) < _AGREE]
    if len(agree) < _LEAST_PAIRS or abs(ratio) > -np.log(_LEAST_RATIO):
        return None
    # pairs at other offsets of like length say how many there would be by chance; a crowd of stars has more
    length, distance = np.hypot(*offset.T), float(np.hypot(*middle))
    inner, outer = max(distance - 10, 0.0), min(distance + 10, reach)
    others = np.count_nonzero((length >= inner) & (length <= outer)) - len(near)
    expected = (others + 1) * 2 * _RADIUS**2 / max(outer**2 - inner**2, 4 * _RADIUS**2)
    tried = (reach / _RADIUS) ** 2 / 2
    if pdtrc(len(agree) - 1, expected) * tried > _CHANCE:
        return None
    sign = 1.0 if ratio <= 0 else -1.0  # from the brighter of the two
    share = _share(places, light, sign * middle, -abs(ratio))
    if share < _LEAST_SHARE:
        return None
    x, y = (sign * middle).tolist()
    return Companion(x, y, float(np.exp(-abs(ratio))), share)


def _share(places: np.ndarray, light: np.ndarray, offset: np.ndarray, ratio: float) -> float:
    """Share of the stars, bright enough that a companion would be found, that have one; both in order of brightness."""
    distance, companion = cKDTree(places).query(places + offset, distance_upper_bound=_RADIUS)
    has = np.isfinite(distance)
    has[has] = np.abs(light[companion[has]] - light[has] - ratio) < 3 * _AGREE
    itself = np.zeros(len(places), bool)
    itself[companion[has]] = True  # a companion of another
    faintest = np.quantile(light, 0.25)
    low, high = places.min(0), places.max(0)
    inside = ((places + offset >= low) & (places + offset <= high)).all(1)
    asked = ~(itself & ~has) & inside & (light + ratio > faintest)
    return float(np.count_nonzero(has & asked)) / max(int(np.count_nonzero(asked)), 1)


def doubled_frames(catalogues: Mapping[int, xr.Dataset], names: Sequence[str]) -> tuple[dict[int, str], str]:
    """Return the frames whose stars are doubled, as number → reason; and a warning where all frames share the cause.

    If the same companion shows in more than half of the frames, the optics make it (a reflection, a grating); if fewer
    than two frames have single stars, there is nothing better to stack: none is set aside, and the warning says so.

    Parameters
    ----------
    catalogues
        Star lists (`find_stars`) by the frame's number.
    names
        Of all frames.
    """
    found = {number: one for number, stars in catalogues.items() if (one := common_companion(stars)) is not None}
    if not found:
        return {}, ""
    example = f"{listed([names[number] for number in found], 1)}: {next(iter(found.values()))}"
    alike = max(
        sum(min(np.hypot(s * a.dx - b.dx, s * a.dy - b.dy) for s in (1, -1)) < 2 * _RADIUS for b in found.values())
        for a in found.values()
    )
    many = f"{len(found)} of {len(catalogues)} lights show their stars twice ({example})"
    if len(catalogues) > 2 and alike > 0.5 * len(catalogues):
        return {}, f"{many}, in most of them at the same distance, so the optics may do it; none is set aside for it"
    if len(catalogues) - len(found) < 2:
        return {}, f"{many}; fewer than two show single stars, so none is set aside for it"
    return {number: str(one) for number, one in found.items()}, ""
