"""The panels of a mosaic: lights linked to the reference through others, all scales in one solution."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.spatial import KDTree

from .match import Match, NoMatchError, match_stars, positions
from .reference import STRANGE, Aligned, LightsKnown, doubts, star_ratio
from .registration import STRIP, STRIP_ADVICE, Registration
from .transform import Transform, compose, overlap

_REACH = 2.0  # [px] within which stars of aligned lights are the same
_UNMEASURED = 0.2  # of ln(scale): error of a scale that only the exposure times give


class Link(NamedTuple):
    """Two lights whose stars match: by what `frame` is multiplied to have the light of `anchor`, ln with its error."""

    anchor: int
    frame: int
    scale: float
    error: float


def link_panels(registration: Registration) -> Registration:
    """Return the registration with the lights of a mosaic's panels, each linked to those that it overlaps most.

    The first light that overlaps the reference by less than half, or not at all, becomes the anchor of a panel; lights
    that overlap an anchor by half or more are aligned to it, and through it to the reference.  A panel that does not
    overlap the reference is reached through others.  The scales of all lights are the least-squares solution of all
    ratios of star light that were measured between lights and anchors.

    Examples
    --------
    >>> import dataclasses
    >>> from workbench.align import register_frames
    >>> from workbench.simulate import View, make_sky, render
    >>> from workbench.stars import survey_mosaic
    >>> sky = dataclasses.replace(make_sky((200, 700), stars=160, seed=3), shape=(200, 300))
    >>> views = [View(matrix=np.array([[1.0, 0, -x], [0, 1, 0], [0, 0, 1]])) for x in (0, 3, 170, 173, 340)]
    >>> surveys = [survey_mosaic(60 * render(sky, view, "G"), "mono") for view in views]
    >>> found = register_frames(surveys, [*"abcde"], np.full(5, 60.0), (200, 300), reference=0)
    >>> 4 in found.used, link_panels(found).used
    (False, (0, 1, 2, 3, 4))
    """
    matches = {number: match for number, match in enumerate(registration.matches) if match is not None}
    share = {number: overlap(registration.transform(number), registration.frame_shape) for number in matches}
    strips = sorted((n for n in matches if share[n] < STRIP), key=lambda n: -matches[n].reference_index.size)
    if not strips and not registration.unmatched:
        return registration
    transforms, anchors = _reach(registration, matches, {number: share[number] for number in strips})
    links = [_link(registration, transforms, anchor, n) for n in transforms for anchor in anchors if n != anchor]
    return _linked(registration, matches, [link for link in links if link is not None])


def _reach(
    registration: Registration, matches: dict[int, Match], strips: dict[int, float]
) -> tuple[dict[int, Transform], list[int]]:
    """Align what overlaps the reference by a share in `strips`, or not at all, to anchors; change its `matches`.

    Returns the maps from the reference to all lights, and the anchors.
    """
    shape, centre = registration.frame_shape, registration.reference
    transforms = {number: registration.transform(number) for number in matches}
    anchors, waiting = [centre], [*strips, *registration.unmatched]
    tried, reached = {(centre, number) for number in waiting}, True
    while waiting and reached:
        reached = False
        for number in list(waiting):
            found = [(strips[number], centre, matches[number])] if number in strips else []
            found += _matches(registration, [n for n in anchors if (n, number) not in tried], number)
            tried |= {(anchor, number) for anchor in anchors}
            if not found:
                continue
            reached = True
            waiting.remove(number)
            most, anchor, match = max(found, key=lambda one: one[0])
            if anchor != centre:
                transforms[number] = compose(transforms[anchor], match.transform, shape)
                matches[number] = replace(match, transform=transforms[number], through=anchor)
            if most < STRIP:
                anchors.append(number)
    return transforms, anchors


def _matches(registration: Registration, anchors: list[int], number: int) -> list[tuple[float, int, Match]]:
    """Share of the anchor's area, number and match of the anchors that a light's stars match, up to one of its panel.

    The latest first: lights of a panel mostly follow each other.
    """
    found = []
    for anchor in reversed(anchors):
        here, there = registration.stars[anchor], registration.stars[number]
        if here is None or there is None:
            continue
        try:
            match = match_stars(here, there, kind=registration.kind)
        except NoMatchError:
            continue
        found.append((overlap(match.transform, registration.frame_shape), anchor, match))
        if found[-1][0] >= STRIP:
            break
    return found


def _link(registration: Registration, transforms: dict[int, Transform], anchor: int, number: int) -> Link | None:
    """The ratio of star light of two lights that are aligned; of their exposure times where stars are too few.

    None where they do not overlap enough.
    """
    here, there = registration.stars[anchor], registration.stars[number]
    if here is None or there is None:
        return None
    at = np.stack(transforms[number].apply(*transforms[anchor].inverse(*positions(here).T)), 1)
    distance, nearest = KDTree(positions(there)).query(at, distance_upper_bound=_REACH)
    one = np.flatnonzero(np.isfinite(distance))
    used = xr.Dataset({"used": ("star", np.ones(one.size, bool))})
    ratio, error, _ = star_ratio(here, there, Match(transforms[number], one, nearest[one], used))
    if np.isfinite(ratio):
        return Link(anchor, number, float(np.log(ratio)), error / ratio)
    first, second = registration.exposure[anchor], registration.exposure[number]
    if one.size < 3 or not (first > 0 and second > 0):
        return None
    return Link(anchor, number, float(np.log(first / second)), _UNMEASURED)


def solve_scales(links: list[Link], centre: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the scales of `count` lights and their errors, that of the `centre` 1: least squares over all links.

    NaN where no link leads.  Where links contradict each other their errors are enlarged.

    Examples
    --------
    >>> links = [Link(0, 1, 0.10, 0.01), Link(1, 2, 0.20, 0.01), Link(0, 2, 0.33, 0.01)]
    >>> [values.round(4).tolist() for values in solve_scales(links, 0, 4)]
    [[1.0, 1.1163, 1.3771, nan], [0.0, 0.0158, 0.0195, nan]]
    """
    design, values, errors = np.zeros((len(links), count)), np.zeros(len(links)), np.ones(len(links))
    for row, link in enumerate(links):
        design[row, link.frame], design[row, link.anchor] = 1.0, -1.0
        values[row], errors[row] = link.scale, max(link.error, 1e-4)
    met = design.any(axis=0) & (np.arange(count) != centre)
    weighted = design[:, met] / errors[:, None]
    inverse = np.linalg.pinv(weighted.T @ weighted, hermitian=True)
    logs = inverse @ (weighted.T @ (values / errors))
    free = len(links) - np.count_nonzero(met)
    misfit = float(np.square(weighted @ logs - values / errors).sum()) / free if free > 0 else 1.0
    scales, scale_errors = np.full(count, np.nan), np.full(count, np.nan)
    scales[centre], scale_errors[centre] = 1.0, 0.0
    scales[met] = np.exp(logs)
    scale_errors[met] = scales[met] * np.sqrt(np.diag(inverse) * max(misfit, 1.0))
    return scales, scale_errors


def _linked(registration: Registration, matches: dict[int, Match], links: list[Link]) -> Registration:
    """The registration with these matches and the scales that the links give; lights with clouds are set aside."""
    count, centre = len(registration.matches), registration.reference
    scales, errors = solve_scales(links, centre, count)
    known = LightsKnown(registration.exposure, registration.sorts)
    pairs = {number: (float(scales[number]), float(errors[number])) for number in matches}
    poor = doubts(Aligned(centre, matches, pairs, {}, {}), known)
    kept = {number: match for number, match in matches.items() if number not in poor}
    gone = {n: why for n, why in registration.set_aside.items() if n not in kept} | poor
    strangers = len(set(registration.unmatched) - set(kept))
    dropped = [STRIP_ADVICE, *([STRANGE] if strangers < 0.5 * len(kept) else [])]
    lost = np.array([number not in kept for number in range(count)])
    return replace(
        registration,
        matches=tuple(kept.get(number) for number in range(count)),
        set_aside=gone,
        scales=np.where(lost, np.nan, scales),
        scale_errors=np.where(lost, np.nan, errors),
        unmatched=tuple(number for number in registration.unmatched if number not in kept),
        warnings=tuple(text for text in registration.warnings if not any(part in text for part in dropped)),
    )
