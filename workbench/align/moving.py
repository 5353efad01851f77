"""What moves among the stars, a comet or an asteroid: rejection takes it out of a stack, so it is reported."""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import numpy as np
from scipy import special
from scipy.spatial import cKDTree

from .registration import Registration

_NEAR = 2.0  # [px] within which detections in several frames are one star, or where a moving object should be
_CLEAR = 10.0  # signal-to-noise ratio of a detection
_MOST = 60  # of the brightest detections of a frame that are not stars of several frames
_LEAST_HITS, _LEAST_SHARE = 4, 0.6  # of the frames
_CHANCE = 1e-3  # of a false one in a night


class Moving(NamedTuple):
    """An object that moves in a straight line: the frames that show it, and its place in each [px of the reference]."""

    frames: tuple[int, ...]
    x: np.ndarray
    y: np.ndarray
    speed: float  # [px/h]


def find_moving(registration: Registration, times: np.ndarray) -> list[Moving]:
    """Return what moves steadily among the stars of registered frames, the most often seen first.

    Detections that three frames or more have in one place are stars.  Of the others, each of the first frames with each
    of the last is a velocity, which the frames between must show, as often as chance would once in a thousand nights.
    What stays in one place of the sensor is a hot pixel.

    Parameters
    ----------
    times
        When each frame was taken (datetime64); without times nothing is searched.
    """
    known = [number for number in registration.used if not np.isnat(times[number])]
    order = sorted(known, key=lambda number: times[number])
    if len(order) < _LEAST_HITS + 1:
        return []
    hours = (times[order] - times[order[0]]) / np.timedelta64(1, "h")
    places = _moving_places(registration, order)
    found: list[Moving] = []
    while len(found) < 5 and (one := _best(places, hours, registration, order)) is not None:
        seen, positions, speed = one
        found.append(Moving(tuple(order[k] for k in seen), positions[:, 0], positions[:, 1], speed))
        for k, position in zip(seen, positions, strict=True):
            places[k] = places[k][np.hypot(*(places[k] - position).T) > _NEAR]
    return found


def _moving_places(registration: Registration, order: list[int]) -> list[np.ndarray]:
    """Places (detection, 2) [px of the reference] of what is not a star of several frames, by frame."""
    every = []
    for number in order:
        stars = registration.stars[number]
        assert stars is not None
        clear = np.flatnonzero(stars["flux"].values > _CLEAR * stars["flux_error"].values)
        x, y = registration.transform(number).inverse(stars["x"].values[clear], stars["y"].values[clear])
        every.append(np.stack([x, y], axis=1))
    trees = [cKDTree(places) for places in every]
    moving = []
    for k, places in enumerate(every):
        shown = np.zeros(len(places), int)
        for tree in trees[:k] + trees[k + 1 :]:
            left = np.flatnonzero(shown < 2)  # most are stars, known after two frames
            shown[left] += _shown(tree, places[left])
        moving.append(places[shown < 2][:_MOST])
    return moving


def _shown(tree: cKDTree, places: np.ndarray) -> np.ndarray:
    """Whether a frame, by the tree of its detections, shows something near each place."""
    return np.isfinite(tree.query(places, distance_upper_bound=_NEAR)[0])


class _Track(NamedTuple):
    """A velocity [px/h] from a place in one frame: how many frames show it, which, and of how many that were tried."""

    hits: int
    tries: int
    start: np.ndarray
    velocity: np.ndarray
    frame: int
    near: np.ndarray


def _line(places: list[np.ndarray], trees: list[Any], hours: np.ndarray, i: int, j: int) -> _Track | None:
    """The line from a place in frame i to one in frame j that most frames show; None where nothing moves enough."""
    if i >= j or hours[j] <= hours[i] or not len(places[i]) or not len(places[j]):
        return None
    a, b = (part.reshape(-1, 2) for part in np.broadcast_arrays(places[i][:, None], places[j][None]))
    far = np.hypot(*(b - a).T) > 2 * _NEAR
    a, velocity = a[far], (b - a)[far] / (hours[j] - hours[i])
    if not len(a):
        return None
    near = np.stack([
        np.zeros(len(a), bool) if tree is None else _shown(tree, a + velocity * (hour - hours[i]))
        for tree, hour in zip(trees, hours, strict=True)
    ])  # fmt: skip
    top = int(np.argmax(near.sum(axis=0)))
    return _Track(int(near[:, top].sum()), len(a), a[top], velocity[top], i, near[:, top])


def _best(
    places: list[np.ndarray], hours: np.ndarray, registration: Registration, order: list[int]
) -> tuple[list[int], np.ndarray, float] | None:
    """The frames, places and speed [px/h] of the line that most frames show; None where chance would show it too."""
    count = len(order)
    trees: list[Any] = [cKDTree(one) if len(one) else None for one in places]
    lines = [_line(places, trees, hours, i, count - 1 - back) for i, back in product(range(2), range(2))]
    best = max((line for line in lines if line is not None), key=lambda line: line.hits, default=None)
    if best is None or best.hits < max(_LEAST_HITS, _LEAST_SHARE * count):
        return None
    area = float(registration.quality.attrs["height"] * registration.quality.attrs["width"])
    chance = np.pi * _NEAR**2 * max(len(one) for one in places) / area
    if len(lines) * best.tries * special.bdtrc(best.hits - 3, count - 2, min(chance, 1.0)) > _CHANCE:
        return None
    seen = [int(k) for k in np.flatnonzero(best.near)]
    expected = [best.start + best.velocity * (hours[k] - hours[best.frame]) for k in seen]
    spots = np.array([places[k][trees[k].query(place)[1]] for k, place in zip(seen, expected, strict=True)])
    on_sensor = np.array([registration.transform(order[k]).apply(*spot) for k, spot in zip(seen, spots, strict=True)])
    if np.ptp(on_sensor, axis=0).max() > 2 * _NEAR:
        return seen, spots, float(np.hypot(*best.velocity))
    for k, spot in zip(seen, spots, strict=True):  # a hot pixel
        places[k] = places[k][np.hypot(*(places[k] - spot).T) > _NEAR]
    return _best(places, hours, registration, order)


def moving_warnings(registration: Registration, times: np.ndarray) -> list[str]:
    """Return a sentence for each object that moves; see `find_moving`."""
    count = len(registration.used)
    return [
        f"something moves among the stars, a comet or an asteroid: from ({one.x[0]:.0f}, {one.y[0]:.0f}) to "
        f"({one.x[-1]:.0f}, {one.y[-1]:.0f}), {one.speed:.3g} px an hour, in {len(one.frames)} of {count} lights; "
        "rejection takes it out of the stack; --comet auto stacks on it too, --reject mean keeps its trail"
        for one in find_moving(registration, times)
    ]
