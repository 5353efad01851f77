"""Matching star patterns: which star of one frame is which of another, whatever the shift, rotation or scale.

Deterministic throughout: triangles of neighbouring stars are compared by their shape, vote for scale, rotation
and shift, and the winner must explain more stars than chance would.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.spatial import cKDTree
from scipy.special import bdtrc, pdtrc

from ..core.errors import WorkbenchError
from .transform import Transform, fit_robust, fit_transform

# (brightest stars, neighbours of each, tolerance in triangle shape): from quick and sure to patient.
_ATTEMPTS = ((60, 6, 0.004), (60, 8, 0.02), (150, 8, 0.008), (120, 12, 0.03), (400, 10, 0.004))
_SEEDS, _SHIFTS = 12, 12  # rotations, and triangle pairs within each, tried at most
_CANDIDATES = 20_000  # pairs of triangles around which others of like rotation are counted
_LEAST_STARS = {"cubic": 15, "quadratic": 9, "homography": 6, "affine": 4}  # with fewer a similarity is fitted
_CHANCE = 1e-9  # a match this likely by chance, after all tries, is none
_FEW, _FEW_REACH = 15, 2.0  # where so few stars are all, pairs within so many px are counted one by one
_FEW_CHANCE = 1e-5  # fewer hypotheses are open then, and each is counted


Grown = tuple[float, np.ndarray, np.ndarray, Transform]  # log of the chance, indices of both, their transform


class NoMatchError(WorkbenchError):
    """Two star lists that show no common pattern: another target, clouds, or too few stars."""


@dataclass(frozen=True)
class Match:
    """A frame matched to the reference: `transform` (reference → frame), matched star indices, `residuals`.

    `chance` is the probability that unrelated stars would match as well, after all that was tried.  `through` numbers
    the frame to whose stars it was matched, where that is another than the reference (see `link_panels`).
    """

    transform: Transform
    reference_index: np.ndarray
    frame_index: np.ndarray
    residuals: xr.Dataset
    chance: float = 0.0
    through: int | None = None


def match_stars(reference: xr.Dataset, frame: xr.Dataset, *, kind: str = "auto", limit: int = 2000) -> Match:
    """Match a frame's stars to the reference's and fit the transform between them.

    Triangles of stars vote.  Of fifteen stars or fewer in a list, three are enough for a shift, four for a rotation,
    where so many would match by chance less often than once in 100,000.

    Parameters
    ----------
    reference, frame
        Star lists of `workbench.stars.find_stars` (``x``, ``y``, ``x_error``, ``y_error``, brightest first).
    kind
        The transform's model (`workbench.align.KINDS`), or ``auto``.
    limit
        Use at most so many of the brightest stars for the fit.

    Raises
    ------
    NoMatchError
        If no common pattern is found that chance would not show as well; the message says how far it came.

    Examples
    --------
    >>> rng = np.random.default_rng(5)
    >>> x, y = rng.uniform(0, 1000, (2, 30))
    >>> def catalogue(x, y):
    ...     error = ("star", np.full(x.size, 0.05))
    ...     return xr.Dataset({"x": ("star", x), "y": ("star", y), "x_error": error, "y_error": error})
    >>> match = match_stars(catalogue(x, y), catalogue(900 - x, 800 - y))  # a meridian flip
    >>> match.reference_index.size, round(abs(match.transform.rotation), 3)
    (30, 180.0)
    """
    here, there = positions(reference), positions(frame)
    if min(len(here), len(there)) < 3:
        raise NoMatchError(
            f"{len(there)} stars in this frame and {len(here)} in the reference: a pattern needs at least 3 in both"
        )
    chance, one, two, transform = _best_pattern(here, there, limit)
    if one.size < 4:
        kind = "shift"
    of_star, of_other = ((s["x_error"].values ** 2 + s["y_error"].values ** 2) / 2.0 for s in (reference, frame))

    def fit() -> tuple[Transform, xr.Dataset]:
        model = "similarity" if one.size < _LEAST_STARS.get(kind, 0) else kind
        return fit_robust(here[one], there[two], np.sqrt(of_star[one] + of_other[two]), kind=model)

    # Pair again with ever better models: distortion may have kept the corners apart.
    for _ in range(2):
        transform, residuals = fit()
        kind = residuals.attrs["kind"] if one.size >= 100 else kind
        reach = float(np.clip(5.0 * residuals.attrs["rms"], 0.7, 4.0))
        again = _pair(transform, here[:limit], there[:limit], reach)
        if again[0].size < max(3, 0.8 * one.size):
            break
        one, two = again
    transform, residuals = fit()
    return Match(transform, one, two, residuals, float(np.exp(chance)))


def _best_pattern(here: np.ndarray, there: np.ndarray, limit: int) -> Grown:
    """Return the pattern that two lists have in common least by chance; a NoMatchError if chance would show it too."""
    best: Grown | None = None
    for count, neighbours, tolerance in _ATTEMPTS:
        first, second = here[:count], there[:count]
        for seed in _hypotheses(first, second, neighbours, tolerance):
            grown = _grow(seed, here[:limit], there[:limit])
            if grown is not None and (best is None or grown[0] < best[0]):
                best = grown
            if best is not None and best[0] < np.log(_CHANCE) * 4:
                return best
        if best is not None and best[0] < np.log(_CHANCE):
            return best
    best = _match_few(here, there)
    if best is not None and best[0] <= np.log(_FEW_CHANCE):
        return best
    nearest = "" if best is None else (
        f"; {best[1].size} lie alike, as they would by chance once in {max(np.exp(-best[0]), 1):,.0f} tries"
    )  # fmt: skip
    raise NoMatchError(
        f"no star pattern in common with the reference ({len(there)} and {len(here)} stars{nearest}): "
        "another target, clouds or too few stars"
    )


def match_itself(stars: xr.Dataset, *, kind: str = "auto") -> Match:
    """Return the match of the reference to itself, which no lack of stars can prevent."""
    stars = stars.isel(star=slice(2000))
    here = positions(stars)
    error = np.sqrt(stars["x_error"].values ** 2 + stars["y_error"].values ** 2)
    model = "similarity" if 4 <= len(here) < _LEAST_STARS.get(kind, 0) else kind
    transform, residuals = fit_robust(here, here, error, kind=model if len(here) >= 4 else "shift")
    index = np.arange(len(here))
    return Match(transform, index, index, residuals)


def positions(stars: xr.Dataset) -> np.ndarray:
    """Return the places (star, 2) of a star list as (x, y) [px]."""
    return np.stack([stars["x"].values, stars["y"].values], 1).astype(float)


def _triangles(points: np.ndarray, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """Return triangles (n, 3), vertices in a canonical order, and their shapes (n, 3).

    The vertices run: opposite the longest side, opposite the middle one, opposite the shortest.  The shape is
    (middle, shortest)/longest and the handedness, far apart for mirror images, which optics on one telescope
    do not make.
    """
    count = len(points)
    tree = cKDTree(points)
    _, near = tree.query(points, k=min(neighbours + 1, count))
    a, b = np.triu_indices(near.shape[1] - 1, 1)
    rows = np.repeat(np.arange(count), a.size)
    triples = np.stack([rows, near[:, 1:][:, a].ravel(), near[:, 1:][:, b].ravel()], 1)
    bright = min(count, 12)  # and all triangles of the brightest, which span the field
    i, j, k = np.meshgrid(*[np.arange(bright)] * 3, indexing="ij")
    wide = np.stack([i, j, k], -1)[(i < j) & (j < k)]
    triples = np.unique(np.sort(np.concatenate([triples, wide]), axis=1), axis=0)
    corners = points[triples]
    sides = np.stack(
        [np.hypot(*(corners[:, (v + 1) % 3] - corners[:, (v + 2) % 3]).T) for v in range(3)], 1
    )  # side v lies opposite vertex v
    order = np.argsort(-sides, axis=1, kind="stable")
    triples = np.take_along_axis(triples, order, 1)
    sides = np.take_along_axis(sides, order, 1)
    corners = points[triples]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    hand = np.sign(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0])
    shape = np.stack([sides[:, 1] / sides[:, 0], sides[:, 2] / sides[:, 0], hand], 1)
    usable = (sides[:, 0] > 8.0) & (shape[:, 1] > 0.08) & (hand != 0)
    return triples[usable], shape[usable]


class TrianglePairs(NamedTuple):
    """Pairs of similar triangles: the complex `turn` (scale and rotation) between them, and their complex centres."""

    turn: np.ndarray
    here: np.ndarray
    there: np.ndarray

    def of(self, chosen: np.ndarray) -> TrianglePairs:
        """Return the pairs with these numbers."""
        return TrianglePairs(self.turn[chosen], self.here[chosen], self.there[chosen])


def _triangle_pairs(first: np.ndarray, second: np.ndarray, neighbours: int, tolerance: float) -> TrianglePairs | None:
    """Pair the triangles of two star lists (n, 2) whose shapes agree; None without any."""
    if min(len(first), len(second)) < 4:
        return None
    (one, shape_one), (two, shape_two) = _triangles(first, neighbours), _triangles(second, neighbours)
    if not len(one) or not len(two):
        return None
    pairs = cKDTree(shape_one).sparse_distance_matrix(cKDTree(shape_two), tolerance, output_type="coo_matrix")
    i, j = pairs.row, pairs.col
    if i.size > 300_000:  # keep the best-agreeing shapes
        keep = np.argsort(pairs.data, kind="stable")[:300_000]
        i, j = i[keep], j[keep]
    order = np.lexsort((j, i))
    i, j = i[order], j[order]
    complex_first, complex_second = first @ [1, 1j], second @ [1, 1j]
    p, q = complex_first[one[i]], complex_second[two[j]]
    p0, q0 = p.mean(1, keepdims=True), q.mean(1, keepdims=True)
    turn = (np.conj(p - p0) * (q - q0)).sum(1) / (np.abs(p - p0) ** 2).sum(1)
    sensible = (np.abs(turn) > 0.4) & (np.abs(turn) < 2.5)
    return TrianglePairs(turn[sensible], p0[sensible, 0], q0[sensible, 0]) if sensible.any() else None


def _hypotheses(first: np.ndarray, second: np.ndarray, neighbours: int, tolerance: float) -> Iterator[Transform]:
    """Yield similarity transforms that many triangle pairs agree on, the best supported first."""
    pairs = _triangle_pairs(first, second, neighbours, tolerance)
    if pairs is None:
        return
    turn = pairs.turn
    space = np.stack([np.log(np.abs(turn)), np.cos(np.angle(turn)), np.sin(np.angle(turn))], 1)
    reach = max(0.01, 1.5 * tolerance)
    tree = cKDTree(space)
    some = np.arange(0, turn.size, 1 + turn.size // _CANDIDATES)  # a crowd is found from any of its members
    support = tree.query_ball_point(space[some], reach, return_length=True)
    taken = np.zeros(turn.size, bool)
    field = max(np.ptp(first, axis=0).max(), 1.0)
    radius, least = max(4.0, reach * field / 8), 2 if len(first) > 4 else 1
    seeds = 0
    for place in np.argsort(-support, kind="stable")[:4000]:
        seed = some[place]
        if taken[seed]:
            continue
        if (seeds := seeds + 1) > _SEEDS or support[place] < 2:
            return
        members = np.array(tree.query_ball_point(space[seed], reach))
        taken[members] = True
        yield from _similarities(pairs.of(members), radius, least)


def _similarities(pairs: TrianglePairs, radius: float, least: int) -> Iterator[Transform]:
    """Yield the transforms of pairs of like rotation on whose shift, within `radius`, at least so many agree."""
    rotation = _median(pairs.turn)
    shift = pairs.there - rotation * pairs.here
    plane = np.stack([shift.real, shift.imag], 1)
    near = cKDTree(plane)
    votes = near.query_ball_point(plane, radius, return_length=True)
    free = np.ones(shift.size, bool)
    for best in np.argsort(-votes, kind="stable")[:_SHIFTS]:
        if not free[best]:
            continue
        agree = near.query_ball_point(plane[best], radius)
        free[agree] = False
        if len(agree) < least:
            break
        # rotation and shift together, from the centres of the agreeing triangles where they span the field
        chosen = pairs.of(agree)
        turn, middle = _median(chosen.turn), _median(chosen.here)
        offset = _median(chosen.there - turn * (chosen.here - middle)) - middle
        coefficients = np.array([[offset.real, turn.real, -turn.imag], [offset.imag, turn.imag, turn.real]])
        yield Transform("similarity", coefficients, (float(middle.real), float(middle.imag)))


def _match_few(here: np.ndarray, there: np.ndarray) -> Grown | None:
    """Match short lists by trying every shift that joins two stars and every rotation that joins two pairs of stars.

    With p the probability that a strange star stands within 2 px of a given place, k pairs among n have by chance the
    binomial tail of k less those that made the hypothesis, times the hypotheses.
    """
    if max(len(here), len(there)) > _FEW:
        return None
    count = max(len(here), len(there))  # n stars span (n - 1)/(n + 1) of the field in each direction
    spanned = np.prod(np.maximum(np.ptp(np.concatenate([here, there]), axis=0), 1.0))
    area = float(spanned) * ((count + 1) / (count - 1)) ** 2
    chance = min(len(there) * np.pi * _FEW_REACH**2 / area, 1.0)
    best: Grown | None = None
    shifts = [Transform("shift", (to - at)[:, None]) for at in here for to in there]  # that bring a star to a star
    for kind, given, least, seeds in (("shift", 1, 3, shifts), ("similarity", 2, 4, _turns(here, there))):
        for transform in seeds:
            one, two = _pair(transform, here, there, _FEW_REACH)
            if one.size < least:
                continue
            transform, _ = fit_transform(here[one], there[two], kind=kind)
            one, two = _pair(transform, here, there, _FEW_REACH)
            log_chance = _log(bdtrc(one.size - given - 1, len(here) - given, chance)) + np.log(len(seeds))
            if one.size >= least and (best is None or log_chance < best[0]):
                best = log_chance, one, two, transform
    return best


def _log(chance: float) -> float:
    return math.log(chance) if chance > 0 else -math.inf


def _turns(here: np.ndarray, there: np.ndarray) -> list[Transform]:
    """All rotations with shift that bring a pair of stars to a pair of stars as far apart, to 3 %."""
    first, second = here @ [1, 1j], there @ [1, 1j]
    i, j = np.triu_indices(len(first), 1)
    k, m = (index.ravel() for index in np.indices((len(second),) * 2))
    k, m = k[k != m], m[k != m]
    turn = ((second[m] - second[k])[None, :] / (first[j] - first[i])[:, None]).ravel()
    p, q = (part.ravel() for part in np.broadcast_arrays(first[i][:, None], second[k][None, :]))
    alike = np.abs(np.abs(turn) - 1) < 0.03
    return [
        Transform("similarity", np.array([[b.real, t.real, -t.imag], [b.imag, t.imag, t.real]]))
        for t, b in zip(turn[alike], (q - turn * p)[alike], strict=True)
    ]


def _median(values: np.ndarray) -> complex:
    """Median of the real and of the imaginary parts."""
    return np.median(values.real) + 1j * np.median(values.imag)


def _pair(transform: Transform, here: np.ndarray, there: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Pair each reference star with the frame star nearest to where it should be, if each is the other's nearest."""
    x, y = transform.apply(here[:, 0], here[:, 1])
    expected = np.stack([x, y], 1)
    distance, nearest = cKDTree(there).query(expected, distance_upper_bound=radius)
    one = np.flatnonzero(np.isfinite(distance))
    _, back = cKDTree(expected).query(there[nearest[one]], distance_upper_bound=radius)
    one = one[back == one]
    return one, nearest[one]


def _grow(seed: Transform, here: np.ndarray, there: np.ndarray):
    """Refine a hypothesis on ever more stars; return (log of its chance probability, pairs, transform)."""
    transform = seed
    field = max(np.ptp(there, axis=0).max(), 1.0)
    area = max(float(np.prod(np.ptp(there, axis=0))), 1.0)
    one = two = np.zeros(0, int)
    radius = 0.0
    for step, (count, wanted) in enumerate(
        ((60, 0.006 * field), (60, 0.003 * field), (300, 4.0), (len(here), 3.0), (len(here), 2.0))
    ):
        a, b = here[:count], there[:count]
        # Not so wide that different stars pair up: at most a third of the mean distance between stars.
        radius = float(np.clip(wanted, 2.0, max(2.0, 0.35 * np.sqrt(area / len(b)))))
        one, two = _pair(transform, a, b, radius)
        if one.size < 4:
            return None
        model = "similarity" if one.size < 12 or step < 2 else "affine"
        if one.size >= 40 and step >= 3:
            model = "quadratic"
        weights = None
        if one.size > 6:
            x, y = transform.apply(a[one, 0], a[one, 1])
            dx, dy = b[two, 0] - x, b[two, 1] - y
            away = np.hypot(dx - np.median(dx), dy - np.median(dy))
            weights = (away <= max(3.0 * np.median(away), 0.5)).astype(float)
            if np.count_nonzero(weights) < 4:
                weights = None
        transform, _ = fit_transform(a[one], b[two], kind=model, weights=weights)
        matrix = transform.jacobian(*transform.centre)
        if not 0.4 < np.sqrt(abs(np.linalg.det(matrix))) < 2.5 or np.linalg.det(matrix) < 0:
            return None
    x, y = transform.apply(here[:, 0], here[:, 1])
    low, high = there.min(0) - radius, there.max(0) + radius
    inside = np.count_nonzero((x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1]))
    by_chance = inside * len(there) * np.pi * radius**2 / area
    # Four numbers were fitted, which two pairs satisfy by themselves; thousands of hypotheses were open.
    log_chance = _log(pdtrc(max(one.size - 3, 0), by_chance)) + np.log(1e4)
    return log_chance, one, two, transform
