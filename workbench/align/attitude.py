"""The search for where a camera pointed: triangles of stars, and proposals tested on all others."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import bdtrc

from .transform import PARAMETERS, Transform, fit_transform

MOST_CHANCE = 1e-6  # a solution that chance shows more often than this is refused
LEAST = 4  # stars matched
RADIUS = 2.0  # px: within which a star must lie where the fitted solution puts it
MODELS = ("similarity", "affine", "quadratic", "cubic")
_SHAPES = (0.004, 0.012)  # tolerance of a triangle's sides over the longest, then for lenses that distort
_ALL_TRIPLES, _NEIGHBOURS = 25, 7  # stars of which all triangles are made; neighbours of each where there are more
_PROPOSALS = 4000  # tested at a depth, those whose triangles agree best
_MAGNITUDES = 1.5  # mag: a star's brightness may differ so much from the others' zero point (colours, filters)
_TESTS = (RADIUS, 0.7)  # px: radii at which matches are counted
_RICHER = (8, 16, 40)  # stars from which the next model is fitted


class StarLists(NamedTuple):
    """What is compared at a depth: the frame's stars, catalogued ones, and how often chance pairs two of each."""

    pixels: np.ndarray  # (star, 2) [px] from the middle
    light: np.ndarray  # magnitudes without zero point; NaN of saturated stars
    rays: np.ndarray  # (star, 3) unit vectors in the camera
    sky: np.ndarray  # (catalogued, 3) unit vectors
    magnitude: np.ndarray


class Proposal(NamedTuple):
    """Where the camera may have pointed: rows are its right, down and forward; its focal length [px]; its chance."""

    turn: np.ndarray
    focal: float
    chance: float
    matched: int


def star_lists(
    pixels: np.ndarray, light: np.ndarray, focal: float, sky: np.ndarray, magnitude: np.ndarray
) -> StarLists:
    """Return what is compared: the frame's stars [px from the middle] with their rays at a focal length [px]."""
    rays = np.concatenate([pixels / focal, np.ones((len(pixels), 1))], axis=1)
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    return StarLists(pixels, light, rays, sky, magnitude)


def search(
    lists: StarLists, shape: tuple[int, int], focal: float, tolerance: float, towards: Any, field: float
) -> Proposal | None:
    """Return the proposal that chance shows least often; None without any."""
    if min(len(lists.rays), len(lists.sky)) < LEAST:
        return None
    here, there = _triangles(lists.rays, np.pi), _triangles(lists.sky, 1.02 * np.exp(tolerance) * field)
    if here is None or there is None:
        return None
    tried = _pairs_alike(lists, tolerance, field)
    tree, best = cKDTree(lists.pixels), None
    for shape_error in _SHAPES:
        for turn, length in _proposals(lists, here, there, tolerance, shape_error, focal, towards):
            found = _tested(lists, tree, turn, length, shape, tried * len(_SHAPES))
            if found is not None and (best is None or found.chance < best.chance):
                best = found
            if best is not None and best.chance < 1e-6 * MOST_CHANCE:
                return best
        if best is not None and best.chance < MOST_CHANCE / 100:
            return best
    return best


def _triangles(vectors: np.ndarray, longest: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Triples (n, 3) of unit vectors, ordered by the opposite side, the longest first; their sides (n, 3) [rad].

    All triples of few stars, else those of each star and its neighbours and of the brightest; sides up to `longest`.
    """
    count = len(vectors)
    if count <= _ALL_TRIPLES:
        triples = np.array(list(combinations(range(count), 3)))
    else:
        near = cKDTree(vectors).query(vectors, k=min(_NEIGHBOURS + 1, count))[1]
        a, b = np.triu_indices(near.shape[1] - 1, 1)
        rows = np.repeat(np.arange(count), a.size)
        own = np.stack([rows, near[:, 1:][:, a].ravel(), near[:, 1:][:, b].ravel()], axis=1)
        close = cKDTree(vectors).query_pairs(2 * np.sin(min(longest, np.pi) / 2), output_type="ndarray")
        bright = _bright_triples(close, count) if longest < np.pi else np.array([*combinations(range(12), 3)])
        triples = np.unique(np.sort(np.concatenate([own, bright]), axis=1), axis=0)
    if not len(triples):
        return None
    corners = vectors[triples]
    chords = [np.linalg.norm(corners[:, (v + 1) % 3] - corners[:, (v + 2) % 3], axis=1) for v in range(3)]
    sides = 2 * np.arcsin(np.clip(np.stack(chords, axis=1) / 2, 0, 1))
    order = np.argsort(-sides, axis=1, kind="stable")
    sides = np.take_along_axis(sides, order, axis=1)
    usable = (sides[:, 0] <= longest) & (sides[:, 2] > 0.05 * sides[:, 0])
    return np.take_along_axis(triples, order, axis=1)[usable], sides[usable]


def _bright_triples(pairs: np.ndarray, count: int) -> np.ndarray:
    """Triples of each star with the ten brightest of those near it; `pairs` (n, 2), stars by brightness."""
    near: list[list[int]] = [[] for _ in range(count)]
    for i, j in pairs[np.argsort(pairs.max(axis=1), kind="stable")].tolist():
        near[i].append(j)
        near[j].append(i)
    made = [(i, *pair) for i, others in enumerate(near) for pair in combinations(others[:10], 2)]
    return np.array(made, int).reshape(-1, 3)


def _pairs_alike(lists: StarLists, tolerance: float, field: float) -> float:
    """Ordered pairs of the frame's stars for pairs of catalogued ones as far apart: hypotheses that were open."""
    i, j = np.triu_indices(len(lists.rays), 1)
    apart = np.sort(np.linalg.norm(lists.rays[i] - lists.rays[j], axis=1))
    reach = 2 * np.sin(min(np.exp(tolerance) * field, np.pi) / 2)
    tree = cKDTree(lists.sky)
    edges = np.geomspace(apart[0] * np.exp(-tolerance), reach, 40)
    pairs = np.diff(tree.count_neighbors(tree, edges)) / 2
    at = np.sqrt(edges[1:] * edges[:-1])
    alike = np.searchsorted(apart, at * np.exp(tolerance)) - np.searchsorted(apart, at * np.exp(-tolerance))
    return max(float(2 * (pairs * alike).sum()), 1.0)


def _proposals(
    lists: StarLists, here: Any, there: Any, tolerance: float, shape_error: float, focal: float, towards: Any
) -> Iterator[tuple[np.ndarray, float]]:
    """Yield attitudes (3, 3) and focal lengths [px] of pairs of like triangles, the most alike first."""

    def space(sides: np.ndarray) -> np.ndarray:
        size = np.log(sides[:, :1]) * shape_error / tolerance
        return np.concatenate([size, sides[:, 1:] / sides[:, :1]], axis=1)

    pairs = cKDTree(space(here[1])).sparse_distance_matrix(
        cKDTree(space(there[1])), shape_error * 1.5, output_type="coo_matrix"
    )
    order = np.lexsort((pairs.col, pairs.row, pairs.data))
    one, two = here[0][pairs.row[order]], there[0][pairs.col[order]]
    ratio = (here[1][pairs.row[order]].sum(axis=1)) / there[1][pairs.col[order]].sum(axis=1)
    keep = np.abs(np.log(ratio)) <= tolerance
    one, two, ratio = one[keep], two[keep], ratio[keep]
    offset = lists.light[one] - lists.magnitude[two]
    with np.errstate(invalid="ignore"):
        like = ~((np.nanmax(offset, axis=1, initial=-99) - np.nanmin(offset, axis=1, initial=99)) > 2 * _MAGNITUDES)
    one, two, ratio = one[like], two[like], ratio[like]
    rays = np.concatenate([lists.pixels[one] / (focal * ratio[:, None, None]), np.ones((*one.shape, 1))], axis=2)
    rays /= np.linalg.norm(rays, axis=2, keepdims=True)
    # the rotation that leads from the sky to the camera best (Kabsch): of the two triangles' planes and sides
    u, _, v = np.linalg.svd(np.einsum("nij,nik->njk", rays, lists.sky[two]))
    hand = np.sign(np.linalg.det(u) * np.linalg.det(v))
    u[:, :, 2] *= hand[:, None]
    turn = u @ v
    away = np.linalg.norm(np.einsum("nij,nkj->nki", turn, lists.sky[two]) - rays, axis=2).max(axis=1)
    size = np.linalg.norm(rays[:, 1] - rays[:, 2], axis=1)
    good = away < 4 * shape_error * size
    if towards is not None:
        good &= turn[:, 2] @ towards[0] >= towards[1]
    for number in np.flatnonzero(good)[:_PROPOSALS]:
        yield turn[number], focal * float(ratio[number])


def _seen(turn: np.ndarray, focal: float, sky: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the stars that fall on the frame, and where [px from the middle]."""
    camera = sky @ turn.T
    inside = np.flatnonzero(camera[:, 2] > 0.2)
    places = focal * camera[inside, :2] / camera[inside, 2:]
    on = (np.abs(places) <= np.array(shape[::-1]) / 2).all(axis=1)
    return inside[on], places[on]


def _placed(fit: Transform | None, places: np.ndarray) -> np.ndarray:
    """Places [px] as a fit corrects them."""
    return places if fit is None else np.stack(fit.apply(places[:, 0], places[:, 1]), axis=1)


def _tested(
    lists: StarLists, tree: cKDTree, turn: np.ndarray, focal: float, shape: tuple[int, int], tried: float
) -> Proposal | None:
    """Test a proposal on all stars, refine it on those that match, and state by how much chance it matches as well."""
    wide = max(RADIUS, 0.004 * float(np.hypot(*shape)))
    fit: Transform | None = None
    for radius in (wide, wide, max(RADIUS, wide / 2), RADIUS, RADIUS):
        index, places = _seen(turn, focal, lists.sky, shape)
        if len(index) < LEAST:
            return None
        one, two = nearest(tree, _placed(fit, places), radius)
        if len(one) < LEAST:
            return None
        offset = lists.light[two] - lists.magnitude[index[one]]
        unlike = np.abs(offset - np.nanmedian(offset)) > _MAGNITUDES if np.isfinite(offset).any() else offset > np.inf
        one, two = one[~unlike], two[~unlike]
        if len(one) < LEAST:
            return None
        kind = MODELS[int(np.searchsorted(_RICHER, len(one), side="right"))]
        fit, _ = fit_transform(places[one], lists.pixels[two], kind=kind)
    free, apart = PARAMETERS[kind] // 2, np.linalg.norm(_placed(fit, places[one]) - lists.pixels[two], axis=1)
    chance = 1.0
    for radius in _TESTS:  # `free` stars match because the fit brings them there
        count, strange = np.count_nonzero(apart <= radius), len(lists.pixels) * np.pi * radius**2 / np.prod(shape)
        of_this = float(bdtrc(count - free - 1, max(len(index) - free, 0), min(strange, 1.0)))
        chance = min(chance, of_this * len(_TESTS))
    return Proposal(turn, focal, chance * tried, len(one))


def nearest(tree: cKDTree, places: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Pair places with the tree's points, each with its nearest and no point twice."""
    distance, nearest = tree.query(places, distance_upper_bound=radius)
    order = np.argsort(distance, kind="stable")
    order = order[np.isfinite(distance[order])]
    _, first = np.unique(nearest[order], return_index=True)
    one = np.sort(order[first])
    return one, nearest[one]
