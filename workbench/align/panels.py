"""The panels of a mosaic: lights linked to the reference through others, all scales in one solution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.spatial import KDTree

from ..core.statistics import mad_std
from ..core.values import value_text
from ..stars.catalogue import unit_vectors
from .match import Match, NoMatchError, match_stars, positions
from .reference import STRANGE, Aligned, LightsKnown, doubts, star_ratio
from .registration import STRIP, STRIP_ADVICE, Registration
from .sky import Solution
from .transform import Transform, compose, fit_transform, overlap

_REACH = 2.0  # [px] within which stars of aligned lights are the same
_UNMEASURED = 0.2  # of ln(scale): error of a scale that only the exposure times give
_PLENTY = 15  # stars, for the ten terms of a cubic
_BANDS = 0.05  # of ln(light): what a star's magnitude in G differs at least from that in the camera's green


class Link(NamedTuple):
    """Two lights whose stars match: by what `frame` is multiplied to have the light of `anchor`, ln with its error."""

    anchor: int
    frame: int
    scale: float
    error: float


def link_panels(registration: Registration, solve: Callable[[int], Solution | None] | None = None) -> Registration:
    """Return the registration with the lights of a mosaic's panels, each linked to those that it overlaps most.

    The first light that overlaps the reference by less than half, or not at all, becomes the anchor of a panel; lights
    that overlap an anchor by half or more are aligned to it, and through it to the reference.  A panel that does not
    overlap the reference is reached through others.  The scales of all lights are the least-squares solution of all
    ratios of star light that were measured between lights and anchors.

    `solve` gives the plate solution of a light by its number, or None.  A panel that shares no star pattern with any
    is placed by its own and an anchor's; stars of the catalogue compare their scales.  A warning names how well.

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
    transforms, anchors = {number: registration.transform(number) for number in matches}, [registration.reference]
    _reach(registration, matches, {number: share[number] for number in strips}, transforms, anchors)
    by_sky = _reach_by_sky(registration, matches, transforms, anchors, solve) if solve else []
    links = [_link(registration, transforms, anchor, n) for n in transforms for anchor in anchors if n != anchor]
    done = _linked(registration, matches, [link for link in [*links, *by_sky] if link is not None])
    if not by_sky:
        return done
    names = ", ".join(str(registration.quality["filename"].values[link.frame]) for link in by_sky)
    percent = 100 * max(link.error for link in by_sky)
    placed = max(matches[link.frame].residuals.attrs["place_error"] for link in by_sky)
    text = (
        f"panels that share no star pattern with the others are placed by their plate solutions ({names}), to "
        f"{placed:.2f} px an axis; catalogue stars give their scale to {percent:.1f} %"
    )
    return replace(done, warnings=(*done.warnings, text))


def _reach_by_sky(
    registration: Registration, matches: dict[int, Match], transforms: dict[int, Transform], anchors: list[int],
    solve: Callable[[int], Solution | None],
) -> list[Link]:  # fmt: skip
    """Place what shares no star pattern with any by its plate solution, and align to it what can be; as `_reach`.

    Returns the links of the lights so placed.
    """
    links: list[Link] = []
    while found := _place(registration, [n for n in registration.unmatched if n not in matches], anchors, solve):
        link, match = found
        transforms[link.frame] = compose(transforms[link.anchor], match.transform, registration.frame_shape)
        matches[link.frame] = replace(match, transform=transforms[link.frame], through=link.anchor)
        anchors.append(link.frame)
        links.append(link)
        _reach(registration, matches, {}, transforms, anchors)
    return links


def _reach(
    registration: Registration, matches: dict[int, Match], strips: dict[int, float], transforms: dict[int, Transform],
    anchors: list[int],
) -> None:  # fmt: skip
    """Align what overlaps the reference by a share in `strips`, or not at all, to anchors.

    Changes the `matches`, the maps from the reference to all lights `transforms`, and the `anchors`.
    """
    shape, centre = registration.frame_shape, registration.reference
    waiting = [*strips, *(number for number in registration.unmatched if number not in matches)]
    tried = {(anchor, number) for number in waiting for anchor in (centre, *anchors[:-1])}
    reached = True
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


def _place(
    registration: Registration, waiting: list[int], anchors: list[int], solve: Callable[[int], Solution | None]
) -> tuple[Link, Match] | None:
    """Place the first of the waiting lights that has a plate solution, by an anchor's; None where none has both."""
    known = [(anchor, here) for anchor in anchors if waiting and (here := solve(anchor))]
    for number in waiting if known else ():
        if there := solve(number):
            towards = unit_vectors(*there.wcs.wcs.crval)
            anchor, here = max(known, key=lambda one: float(unit_vectors(*one[1].wcs.wcs.crval) @ towards))
            one, two = registration.stars[anchor], registration.stars[number]
            transform = through_sky(here, there)
            middle = transform.inverse((there.shape[1] - 1) / 2, (there.shape[0] - 1) / 2)
            error = float(np.hypot(_error_at(here, middle), there.centre_error / there.scale))
            none = np.zeros(0, int)
            table = {name: ("star", np.zeros(0)) for name in ("x", "y", "dx", "dy", "error", "place_error")}
            residuals = xr.Dataset(table | {"used": ("star", none > 0)}, attrs={"rms": np.nan, "place_error": error})
            (first, doubt), (second, other) = _zero_point(one, here), _zero_point(two, there)
            link = Link(anchor, number, first - second, float(np.hypot(doubt, other)))
            return link, Match(transform, none, none, residuals, here.chance + there.chance)
    return None


def through_sky(here: Solution, there: Solution) -> Transform:
    """Return the map from one frame's pixels to another's by their plate solutions.

    Examples
    --------
    >>> from astropy.wcs import WCS
    >>> def solved(ra):
    ...     wcs = WCS({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": ra, "CRVAL2": 0.0, "CRPIX1": 51.0,
    ...                "CRPIX2": 51.0, "CD1_1": -0.01, "CD2_2": -0.01})
    ...     return Solution(wcs, (101, 101), xr.Dataset(), 0.1, 0.0)
    >>> [round(value, 1) for value in through_sky(solved(10.0), solved(9.5)).apply(100.0, 50.0)]
    [50.0, 50.0]
    """
    height, width = there.shape
    y, x = (part.ravel() for part in np.meshgrid(*(np.linspace(0, size - 1, 16) for size in (height, width))))
    ra, dec = there.wcs.all_pix2world(x, y, 0)
    from_here = np.stack(here.wcs.all_world2pix(ra, dec, 0, quiet=True), 1)
    kind = "homography" if here.wcs.sip is None and there.wcs.sip is None else "cubic"
    return fit_transform(from_here, np.stack([x, y], 1), kind=kind)[0]


def _error_at(solution: Solution, place: tuple[float, float]) -> float:
    """Return the standard error [px, an axis] of a plate solution at a place, beyond its stars too.

    That of the middle times what the fit's design gives for the place over the middle; and D²/r, the size of the terms
    beyond SIP's, D [px] the distortion at the place and r its distance from the middle.  The design is cubic where
    there are stars enough, also without SIP terms: the distortion that stars do not show grows with the third power.
    """
    matched = solution.stars.isel(star=solution.stars["used"].values)
    middle = (solution.shape[1] - 1) / 2, (solution.shape[0] - 1) / 2
    points = np.concatenate([np.stack([matched["x"].values, matched["y"].values], 1), [middle, place]])
    weights = np.append(np.ones(matched.sizes["star"]), [0.0, 0.0])
    error = np.append(matched["error"].values, [1.0, 1.0])
    kind = "cubic" if solution.wcs.sip is not None or len(matched["x"]) >= _PLENTY else "affine"
    _, doubt = fit_transform(points, points, error, kind=kind, weights=weights)
    straight = solution.wcs.wcs_world2pix(*solution.wcs.all_pix2world(*place, 0), 0)
    beyond = np.square(np.subtract(straight, place)).sum() / max(float(np.hypot(*np.subtract(place, middle))), 1.0)
    return float(np.hypot(solution.centre_error / solution.scale * doubt[-1] / doubt[-2], beyond))


def _zero_point(stars: xr.Dataset | None, solution: Solution) -> tuple[float, float]:
    """Return the median of ln(light) + 0.4 ln(10) G of the catalogue's stars in a frame, and its error."""
    matched = solution.stars.isel(star=solution.stars["used"].values)
    if stars is None:
        return 0.0, 1.0
    own = stars.isel(star=matched["index"].values.astype(int))
    values = np.log(np.maximum(own["flux"].values, 1e-9)) + 0.4 * np.log(10) * matched["magnitude"].values
    values = values[~own["saturated"].values & np.isfinite(values)]
    if values.size < 4:
        return 0.0, 1.0
    return float(np.median(values)), 1.25 * max(float(mad_std(values)), _BANDS) / np.sqrt(values.size)


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


def panels_of(registration: Registration) -> list[list[int]]:
    """Return the lights used, panel by panel: each with the first that it overlaps by half or more."""
    height, width = registration.frame_shape
    panels: list[list[int]] = []
    middles: list[np.ndarray] = []
    for number in registration.used:
        at = np.array(registration.transform(number).inverse((width - 1) / 2, (height - 1) / 2))
        share = [float(np.prod(np.maximum(1 - np.abs(at - one) / (width, height), 0))) for one in middles]
        if share and max(share) >= STRIP:
            panels[int(np.argmax(share))].append(number)
        else:
            panels.append([number])
            middles.append(at)
    return panels


def panel_lines(registration: Registration, norm: xr.Dataset, unit: str) -> list[str]:
    """Return a line for each panel of a mosaic: its scale, how well its background is matched; none of one panel.

    `norm` is the `normalisation`, `unit` its own; scale and background are those of the panel's first light, the
    reference's without error.  What a seam may show is both panels' errors, added in squares.
    """
    panels = panels_of(registration)
    places = {int(number): place for place, number in enumerate(norm["number"].values)}
    channels = ", ".join(map(str, norm["channel"].values))
    lines = []
    for count, panel in enumerate(panels if len(panels) > 1 else (), 1):
        first, name = places[panel[0]], registration.quality["filename"].values[panel[0]]
        scale = value_text(float(norm["scale"][first]), float(norm["scale_error"][first]))
        errors = ", ".join(f"{float(value):.2g}" for value in norm["surface_error"][first])
        of = f"{len(panel)} light{'s' if len(panel) > 1 else ''}, the first {name}"
        lines.append(f"panel {count} ({of}): scale {scale}, background to ± {errors} {unit} ({channels})")
    return lines


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
