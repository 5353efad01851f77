"""Which lights are stacked, onto which one, by which transform and scale; those that do not fit, with the reason."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..align.match import NoMatchError, match_stars
from ..align.transform import Transform
from ..core.errors import WorkbenchError
from ..ingest.plain import PlainPixels
from ..stack.engine import Plan, PlannedFrame
from ..stack.normalise import background_surfaces, frame_weights, star_ratio
from ..stack.survey import FrameSurvey
from ..stars.quality import choose_reference, poor_frames, quality_table

LEAST_TRANSPARENCY = 0.3  # of the reference; less and clouds cover too much
_MATCHED = ("stars_matched", "rms", "place_error", "rotation", "scale_error", "model")


@dataclass(frozen=True)
class Settings:
    """How to stack; what changes the result, and so belongs to an interrupted run's identity."""

    reference: str | None = None
    method: str = "noise"
    low: float | None = None
    high: float | None = None
    transform: str = "auto"
    background: int | str = "auto"
    seeing_weights: bool = False


@dataclass(frozen=True, eq=False)
class Lights:
    """The lights of a run: names, paths, exposures [s] and ISO, one each; and what they have in common."""

    names: tuple[str, ...]
    paths: tuple[Path, ...]
    exposure: np.ndarray
    iso: np.ndarray
    shape: tuple[int, int]
    cfa_pattern: str
    camera: str

    @property
    def channels(self) -> tuple[str, ...]:
        """Of the stack."""
        return ("mono",) if self.cfa_pattern == "mono" else ("R", "G", "B")

    def number_of(self, wanted: str) -> int:
        """Return which light is meant by a path, a name or a stem."""
        found = [
            number
            for number, (path, name) in enumerate(zip(self.paths, self.names, strict=True))
            if wanted in (name, path.name, path.stem, str(path)) or (Path(wanted).exists() and path.samefile(wanted))
        ]
        if len(found) != 1:
            raise WorkbenchError(
                f"the reference {wanted!r} is {'none' if not found else 'more than one'} of the lights "
                f"(the first is {self.names[0]!r}); give the path or the name of one"
            )
        return found[0]


@dataclass(eq=False)
class Aligned:
    """Lights brought onto the reference's grid, by number: `transforms`, and `scales` to its light.

    `reasons` tells why the others are left out; `quality` is over `seen`, the lights that could be read; `dim`
    counts the bright stars of those that have too few; `level` is the mean background left in, a channel.
    """

    reference: int
    seen: list[int]
    quality: xr.Dataset
    transforms: dict[int, Transform]
    scales: dict[int, float]
    matched: dict[int, dict[str, Any]]
    reasons: dict[int, str]
    warnings: list[str] = field(default_factory=list)
    dim: dict[int, int] = field(default_factory=dict)
    level: Sequence[float] = ()
    weights: np.ndarray | None = None

    @property
    def used(self) -> list[int]:
        """The lights that are stacked."""
        return [number for number in self.seen if number in self.transforms]


def align_lights(
    lights: Lights, surveys: Sequence[FrameSurvey | None], settings: Settings, unread: dict[int, str]
) -> Aligned:
    """Choose the reference, match every light's stars to it, and set aside what does not fit.

    Parameters
    ----------
    surveys
        One a light, None for one that cannot be read; `unread` says why.

    Raises
    ------
    WorkbenchError
        If fewer than two lights can be read, or none shows stars, or the wanted reference cannot be used.
    """
    reasons = dict(unread)
    seen = [number for number, survey in enumerate(surveys) if survey is not None]
    wanted = None if settings.reference is None else lights.number_of(settings.reference)
    if wanted is not None and wanted not in seen:
        raise WorkbenchError(f"{lights.names[wanted]}: the reference cannot be read: {reasons.get(wanted, '')}")
    if len(seen) < 2:
        told = "".join(f"; {lights.names[number]}: {reason}" for number, reason in sorted(unread.items())[:5])
        raise WorkbenchError(f"{len(seen)} of {len(lights.names)} lights can be read; a stack needs two{told}")
    quality = quality_table([surveys[number].stars for number in seen], [lights.names[number] for number in seen])
    for place, reason in poor_frames(quality).items():
        if seen[place] != wanted:
            reasons[seen[place]] = reason
    usable = [place for place, number in enumerate(seen) if number not in reasons]
    if not usable:
        first = seen[0]
        raise WorkbenchError(
            f"no light shows enough stars to be aligned: {lights.names[first]}: {reasons.get(first, 'no stars')}"
        )
    reference = wanted if wanted is not None else seen[choose_reference(quality, usable)]
    aligned = Aligned(reference, seen, quality, {}, {}, {}, reasons)
    for number in seen:
        if number not in reasons:
            _align_one(aligned, number, lights, surveys, settings.transform)
    if aligned.dim:
        number, count = next(iter(aligned.dim.items()))
        such = f"{lights.names[number]}: {count}" + (", for example" if len(aligned.dim) > 1 else "")
        aligned.warnings.append(
            f"{len(aligned.dim)} of {len(lights.names)} lights show too few bright stars to tell the transparency, so "
            f"their exposure times do ({such})"
        )
    return aligned


def _align_one(aligned: Aligned, number: int, lights: Lights, surveys: Sequence[FrameSurvey | None], kind: str) -> None:
    reference, exposure = aligned.reference, lights.exposure
    stars = surveys[reference].stars
    try:
        match = match_stars(stars, surveys[number].stars, kind=kind)
    except NoMatchError as problem:
        aligned.reasons[number] = str(problem)
        return
    ratio, error, count = star_ratio(stars, surveys[number].stars, match)
    transform = match.transform
    if number == reference:
        transform, ratio, error = Transform.identity(), 1.0, 0.0
    if not np.isfinite(ratio):
        ratio = exposure[reference] / exposure[number]
        if not np.isfinite(ratio):
            aligned.reasons[number] = "too few stars to tell its transparency, and its exposure is not known"
            return
        aligned.dim[number] = count
    transparency = exposure[reference] / exposure[number] / ratio
    if np.isfinite(transparency) and transparency < LEAST_TRANSPARENCY:
        aligned.reasons[number] = f"clouds: only {100 * transparency:.0f} % of the reference's light comes through"
        return
    aligned.transforms[number], aligned.scales[number] = transform, ratio
    attrs = match.residuals.attrs
    values = (int(match.reference_index.size), attrs["rms"], attrs["place_error"])
    values += (transform.rotation, error, transform.kind)
    aligned.matched[number] = dict(zip(_MATCHED, values, strict=True))


def plan_stack(
    lights: Lights,
    aligned: Aligned,
    surveys: Sequence[FrameSurvey | None],
    pixels: Sequence[PlainPixels | None],
    groups: Sequence[tuple[int, float]],
    planes: Sequence[Path],
    settings: Settings,
) -> Plan:
    """Return the plan of a stack: surfaces that match the backgrounds, weights from the noise, what to read where.

    Sets the level and the weights in `aligned`.  `groups` tells for each light which of `planes` calibrates it, and
    the factor of its dark.
    """
    used = aligned.used
    chosen = [surveys[number] for number in used]
    ratio = [aligned.scales[number] for number in used]
    surfaces, _, level = background_surfaces(
        chosen, [aligned.transforms[n] for n in used], ratio, lights.shape, order=settings.background
    )
    aligned.level = level.tolist()
    aligned.weights = frame_weights(chosen, ratio, seeing=settings.seeing_weights)
    frames = tuple(
        PlannedFrame(
            lights.names[number],
            pixels[number],
            aligned.transforms[number],
            aligned.scales[number],
            surfaces[place],
            aligned.weights[place],
            *groups[number],
        )
        for place, number in enumerate(used)
    )
    s = settings
    return Plan(frames, tuple(planes), lights.shape, lights.cfa_pattern, s.method, s.low, s.high)


def frame_table(lights: Lights, aligned: Aligned) -> pd.DataFrame:
    """Return one row a light: whether it is used and why not, its quality, its scale, weights and transform."""
    count = len(lights.names)
    used, reference = aligned.used, aligned.reference
    table = pd.DataFrame({"file": list(lights.names)})
    table["used"] = [number in used for number in range(count)]
    table["reference"] = [number == reference for number in range(count)]
    table["reason"] = [aligned.reasons.get(number, "") for number in range(count)]
    table["exposure"] = lights.exposure
    table["iso"] = lights.iso
    for name in ("stars", "fwhm", "roundness", "background", "noise", "snr"):
        values = np.full(count, np.nan)
        values[aligned.seen] = aligned.quality[name].values
        table[name] = values
    relative = lights.exposure / lights.exposure[reference]
    table["scale"] = [aligned.scales.get(number, np.nan) for number in range(count)]
    table["transparency"] = 1.0 / (table["scale"] * np.where(np.isfinite(relative), relative, 1.0))
    for place, channel in enumerate(lights.channels):
        values = np.zeros(count)
        values[used] = aligned.weights[:, place]
        table[f"weight_{channel}"] = values
    plain = {number: json.dumps(transform.to_dict()) for number, transform in aligned.transforms.items()}
    table["transform"] = [plain.get(number, "") for number in range(count)]  # of pixels of the reference to the light's
    for name in _MATCHED:
        default = "" if name == "model" else (0 if name == "stars_matched" else np.nan)
        table[name] = [aligned.matched.get(number, {}).get(name, default) for number in range(count)]
    return table
