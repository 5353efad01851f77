"""Which frame the others are aligned to, and what share of its light each of them shows."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ..core.statistics import mad_std
from ..stars.survey import choose_reference
from .match import Match, NoMatchError, match_itself, match_stars

LEAST_TRANSPARENCY = 0.3  # of the reference; less and clouds cover too much
MOST_TRANSPARENCY = 1.3  # of the reference; if most frames show more, the reference is the poor one
STRANGE = "share no star pattern"
_TRIES = 4  # references tried at most
_EXPOSURES_ALIKE = 0.05


class LightsKnown(NamedTuple):
    """What is known of each frame before alignment: its exposure [s], and its setting and filter (any label)."""

    exposure: np.ndarray
    sorts: Sequence[Hashable]

    def group(self, number: int) -> Hashable:
        """Return what frames have in common that should show the same stars: the sort, and the exposure to 5 %."""
        exposure = float(self.exposure[number])
        known = np.isfinite(exposure) and exposure > 0
        return self.sorts[number], round(np.log(exposure) / np.log1p(_EXPOSURES_ALIKE)) if known else None

    def most_light(self, numbers: Sequence[int]) -> list[int]:
        """Return the frames of the sort and then of the exposure with which most time was spent.

        Among equals the longer exposure, then the first.  A single test frame is never among them, nor a few short
        frames for bright cores.

        Examples
        --------
        >>> known = LightsKnown(np.array([300.0, 300.0, 60.0, 60.0, 60.0, 600.0]), [""] * 5 + ["gain setting 0"])
        >>> known.most_light([0, 1, 2, 3, 4]), known.most_light([2, 3, 4])
        ([0, 1], [2, 3, 4])
        """
        chosen = self._most(numbers, {number: self.sorts[number] for number in numbers})
        return self._most(chosen, {number: self.group(number) for number in chosen})

    def _most(self, numbers: Sequence[int], label: Mapping[int, Hashable]) -> list[int]:
        time = np.nan_to_num(self.exposure, nan=1.0)
        groups: dict[Hashable, list[int]] = {}
        for number in numbers:
            groups.setdefault(label[number], []).append(number)
        return max(groups.values(), key=lambda group: (round(float(time[group].sum()), 6), time[group].max()))


class Aligned(NamedTuple):
    """Frames matched to one of them: matches, scales with their errors, few bright stars, and why others are not."""

    centre: int
    matches: dict[int, Match]
    scales: dict[int, tuple[float, float]]
    few: dict[int, int]
    reasons: dict[int, str]


def star_ratio(reference: xr.Dataset, frame: xr.Dataset, match: Match) -> tuple[float, float, int]:
    """Return by what a frame must be multiplied to show stars as bright as the reference, its error, and of how many.

    The median of the flux ratios of unsaturated matched stars with a signal-to-noise ratio of at least 15 in both,
    each star with its weight; (nan, nan, 0) with fewer than three.
    """
    one, two = reference.isel(star=match.reference_index), frame.isel(star=match.frame_index)
    here, there = one["flux"].values, two["flux"].values
    here_error, there_error = one["flux_error"].values, two["flux_error"].values
    with np.errstate(invalid="ignore", divide="ignore"):
        good = match.residuals["used"].values & ~one["saturated"].values & ~two["saturated"].values
        good &= (here > 15 * here_error) & (there > 15 * there_error)
        error = np.hypot(here_error / here, there_error / there)
        logs = np.log(here / there)
    if np.count_nonzero(good) < 3:
        return np.nan, np.nan, 0
    logs, error = logs[good], np.hypot(error[good], 0.005)  # the sampling of the aperture leaves half a per cent
    order = np.argsort(logs, kind="stable")
    total = np.cumsum(1 / error[order])
    centre = float(logs[order][np.searchsorted(total, total[-1] / 2)])  # the weighted median
    for _ in range(10):
        pull = (logs - centre) / error
        spread = max(float(mad_std(pull, centre=0)), 1.0)
        weight = np.maximum(1 - (pull / (5 * spread)) ** 2, 0) ** 2 / error**2
        centre = float((weight * logs).sum() / weight.sum())
    return float(np.exp(centre)), float(np.exp(centre) * spread / np.sqrt(weight.sum())), int(np.count_nonzero(weight))


def align_to(centre: int, stars: Mapping[int, xr.Dataset], known: LightsKnown, kind: str = "auto") -> Aligned:
    """Match frames, star lists by number, to one of them; clouds and frames of other fields are among the `reasons`."""
    found = Aligned(centre, {}, {}, {}, {})
    exposure = known.exposure
    for number, catalogue in stars.items():
        if number == centre:
            found.matches[number], found.scales[number] = match_itself(catalogue, kind=kind), (1.0, 0.0)
            continue
        try:
            match = match_stars(stars[centre], catalogue, kind=kind)
        except NoMatchError as problem:
            found.reasons[number] = str(problem)
            continue
        ratio, error, count = star_ratio(stars[centre], catalogue, match)
        if not np.isfinite(ratio):
            ratio = exposure[centre] / exposure[number] if exposure[number] > 0 else np.nan
            found.few[number] = count
        found.matches[number], found.scales[number] = match, (float(ratio), error)
    for number, reason in doubts(found, known).items():
        found.reasons[number] = reason
        for table in (found.matches, found.scales, found.few):
            table.pop(number, None)
    return found


def _transparency(found: Aligned, known: LightsKnown) -> dict[int, float]:
    """Share of the reference's light that each matched frame shows for its exposure."""
    exposure = np.where(known.exposure > 0, known.exposure, np.nan)
    return {
        number: float(exposure[found.centre] / exposure[number] / ratio) for number, (ratio, _) in found.scales.items()
    }


def doubts(found: Aligned, known: LightsKnown) -> dict[int, str]:
    """Return why matched frames are not used: too little light, for their setting and filter, or no way to know."""
    clear = _transparency(found, known)
    found_poor = {}
    for number, (ratio, _) in found.scales.items():
        sort = known.sorts[number]
        usual, whose = 1.0, "the reference's light"
        if sort != known.sorts[found.centre]:  # another scale where the gain is not known: only its like compares
            alike = [value for other, value in clear.items() if known.sorts[other] == sort and np.isfinite(value)]
            usual, whose = float(np.median(alike)) if alike else np.nan, "the light that most of its setting show"
        if not np.isfinite(ratio):
            found_poor[number] = "too few stars for its transparency, and its exposure time is not known"
        elif np.isfinite(usual) and clear[number] < LEAST_TRANSPARENCY * usual:
            found_poor[number] = f"clouds: only {100 * clear[number] / usual:.0f} % of {whose} comes through"
    return found_poor


def reference_doubt(found: Aligned, known: LightsKnown) -> str:
    """Return why the reference is poorer than most frames, by their vote; empty where it is not.

    Most of the others that have its setting and filter show more than 1.3 times its light (clouds, or stars that are
    doubled or blurred in it), or share no star pattern with it.
    """
    alike = [number for number in (*found.matches, *found.reasons) if known.sorts[number] == known.sorts[found.centre]]
    others = [number for number in alike if number != found.centre]
    strange = [number for number in others if number not in found.matches]
    if len(others) >= 2 and len(strange) > 0.5 * len(others):
        return f"{len(strange)} of {len(others)} other lights {STRANGE} with it, or almost none of its light"
    clear = _transparency(found, known)
    shown = [clear[number] for number in others if number in found.matches and number not in found.few]
    shown = [value for value in shown if np.isfinite(value)]
    if len(shown) >= 2 and np.median(shown) > MOST_TRANSPARENCY:
        return f"most other lights show {np.median(shown):.2f} times its light (clouds, or poor stars in it)"
    return ""


def find_reference(
    quality: xr.Dataset, usable: Sequence[int], stars: Mapping[int, xr.Dataset], known: LightsKnown, kind: str = "auto"
) -> tuple[Aligned, str]:
    """Choose the reference among usable frames and align all others to it; returns what doubt of it is left.

    The best frame of those with most light (`LightsKnown.most_light`) is tried; if the others vote against it, the
    next best.  If all that are tried are voted against, the one to which most can be aligned.

    Parameters
    ----------
    quality
        Of the frames of `stars`, in their order.
    usable
        Numbers of the frames that may be the reference.
    stars
        Star lists of the frames to be aligned, by number.
    """
    order = {number: place for place, number in enumerate(stars)}
    left = known.most_light(usable)
    tried: list[Any] = []
    while left and len(tried) < _TRIES:
        centre = left[choose_reference(quality.isel(frame=[order[number] for number in left]))]
        found = align_to(centre, stars, known, kind)
        doubt = reference_doubt(found, known)
        if not doubt:
            return found, ""
        tried.append((found, doubt))
        left.remove(centre)
    return max(tried, key=lambda one: len(one[0].matches))
