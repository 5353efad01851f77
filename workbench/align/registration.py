"""Register lights: choose the reference, fit the transform and the transparency of every frame from its stars.

`register_frames` is the one registration, of star lists and backgrounds; `register` is the verb on cubes, which looks
at each frame once and keeps no pixels.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from dask.local import get_sync
from tqdm.auto import tqdm

from ..core.cube import check_cube
from ..core.errors import WorkbenchError
from ..core.settings import SETTING
from ..core.values import describe
from ..stars.selection import unfit_frames
from ..stars.survey import FrameSurvey, quality_table, survey_mosaic
from .match import Match
from .reference import Aligned, LightsKnown, find_reference
from .transform import KINDS, Transform, overlap

STRIP_ADVICE = "only a strip; --framing all keeps them whole"
STRIP = 0.5  # of the reference's area: frames that overlap it less are another panel's
_FEW_MATCHED = 6  # stars
_DEFECT, _SATURATED = 1, 2  # bits of the mask that calibration sets


@dataclass(frozen=True, eq=False)
class Registration:
    """How every light lies on the reference: stars, transforms, residuals, transparency and background.

    Attributes
    ----------
    reference
        Number of the frame on whose pixel grid all are put.
    surveys
        Stars and background of each frame (see `workbench.stars.FrameSurvey`), None where it cannot be read.
    matches
        The `Match` of each frame, None where it was set aside.
    quality
        Dataset over ``frame``: star count, FWHM, roundness, background, noise, SNR; NaN where it cannot be read.
    set_aside
        Frame number → why it cannot be used.
    scales, scale_errors
        By what each frame is multiplied to have the reference's transparency, from matched stars; NaN where not used.
    few_stars
        Frame number → bright stars, where they are too few and exposure times give the scale.
    grid
        The map from the common pixel grid to the reference, where that is another frame's (see `common_grid`).
    area
        What of that grid the output holds, (top, left, bottom, right); None for the frame's own (see `framed`).
    exposure, sorts, kind, unmatched
        As given to `register_frames`; and the frames that could not be aligned to the reference.
    warnings
        A poor reference, lights that add only a strip, matches on few stars.
    """

    reference: int
    surveys: tuple[FrameSurvey | None, ...]
    matches: tuple[Match | None, ...]
    quality: xr.Dataset
    set_aside: dict[int, str]
    scales: np.ndarray
    scale_errors: np.ndarray
    few_stars: dict[int, int] = field(default_factory=dict)
    grid: Transform = field(default_factory=Transform.identity)
    area: tuple[int, int, int, int] | None = None
    exposure: np.ndarray = field(default_factory=lambda: np.zeros(0))
    sorts: tuple[Hashable, ...] = ()
    kind: str = "auto"
    unmatched: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def stars(self) -> tuple[xr.Dataset | None, ...]:
        """Star list of each frame (see `workbench.stars.find_stars`), None where it cannot be read."""
        return tuple(None if survey is None else survey.stars for survey in self.surveys)

    @property
    def used(self) -> tuple[int, ...]:
        """Numbers of the frames that can be stacked."""
        return tuple(number for number, match in enumerate(self.matches) if match is not None)

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(height, width) of a frame [px]."""
        return self.quality.attrs["height"], self.quality.attrs["width"]

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the output [px]."""
        top, left, bottom, right = self.area or (0, 0, *self.frame_shape)
        return bottom - top, right - left

    def transform(self, number: int) -> Transform:
        """Return the map from the output to a frame: from the reference's pixels, or the common grid's, or an area's.

        Raises
        ------
        WorkbenchError
            If that frame was set aside.
        """
        match = self.matches[number]
        if match is None:
            raise WorkbenchError(f"frame {number} was set aside: {self.set_aside[number]}")
        top, left, *_ = self.area or (0, 0)
        return (self.grid if number == self.reference else match.transform).moved(left, top)

    def residuals(self) -> xr.Dataset:
        """Return all matched stars of all other frames: a Dataset over ``star`` with ``frame``, ``x``, ``y`` [px in \
the reference], ``dx``, ``dy`` [px, measured minus fitted], their ``error``, and ``used``.
        """
        parts = [
            match.residuals.assign(frame=("star", np.full(match.frame_index.size, number)))
            for number, match in enumerate(self.matches)
            if match is not None and number != self.reference
        ]
        names = ("frame", "x", "y", "dx", "dy", "error", "used")
        if not parts:
            return xr.Dataset({name: ("star", np.zeros(0)) for name in names})
        joined = xr.concat([part[list(names)] for part in parts], "star", combine_attrs="drop")
        for name in ("x", "y", "dx", "dy", "error"):
            joined[name].attrs = parts[0][name].attrs
        joined["filename"] = ("star", self.quality["filename"].values[joined["frame"].values])
        return joined

    def table(self) -> pd.DataFrame:
        """Tabulate the frames: quality, shift [px], rotation [°], model, rms of the residuals [px], or why not used."""
        on_grid, (y, x) = replace(self, area=None), np.array(self.frame_shape) / 2
        rows = []
        for number, match in enumerate(self.matches):
            row: dict[str, Any] = {"file": str(self.quality["filename"].values[number])}
            row |= {name: float(self.quality[name][number]) for name in ("stars", "fwhm", "roundness", "background")}
            if match is not None:
                transform = on_grid.transform(number)
                at = transform.apply(x, y)
                row |= {"dx": at[0] - x, "dy": at[1] - y, "rotation": transform.rotation, "model": match.transform.kind}
                row |= {"matched": match.frame_index.size, "rms": match.residuals.attrs["rms"]}
            row["remark"] = "reference" if number == self.reference else self.set_aside.get(number, "")
            rows.append(row)
        return pd.DataFrame(rows)


def register_frames(
    surveys: Sequence[FrameSurvey | None],
    names: Sequence[str],
    exposure: np.ndarray,
    shape: tuple[int, ...],
    *,
    reference: int | None = None,
    kind: str = "auto",
    unread: Mapping[int, str] | None = None,
    sorts: Sequence[Hashable] | None = None,
) -> Registration:
    """Choose the reference, match every frame's stars to it, and set aside what does not fit.

    The reference is the best frame of those with which most time was spent (`find_reference`).

    Parameters
    ----------
    surveys
        One a frame, None for one that cannot be read; `unread` gives the reason.
    names, exposure
        Of the frames; exposures [s] give the transparency where stars are too few.
    shape
        (height, width) of a frame.
    reference
        Number of the frame on whose grid all are put; else the best is chosen.
    kind
        Model of the transform (`workbench.align.KINDS`), or ``auto``.
    unread
        Frame number → why it is not to be used: it cannot be read, or the user leaves it out.
    sorts
        A label a frame for its setting and filter: light is compared among equals.  By default all are equal.

    Raises
    ------
    WorkbenchError
        If no frame shows enough stars, or the kind is unknown.
    """
    if kind != "auto" and kind not in KINDS:
        raise WorkbenchError(f"transform kind {kind!r} is none of auto, {', '.join(KINDS)}")
    known = LightsKnown(np.asarray(exposure, float), list(sorts or [""] * len(names)))
    reasons = dict(unread or {})
    stars = {number: survey.stars for number, survey in enumerate(surveys) if survey is not None}
    quality = quality_table(list(stars.values()), [names[number] for number in stars])
    poor, warnings = unfit_frames(stars, quality, names, [known.group(number) for number in stars])
    for number, reason in poor.items():
        if number != reference:
            reasons.setdefault(number, reason)
        else:
            warnings.append(f"the reference {names[number]} is a poor one: {reason}; give another with --reference")
    usable = [number for number in stars if number not in reasons]
    if not usable:
        first = next(iter(stars))
        raise WorkbenchError(
            f"no light shows enough stars to be aligned; the first: {names[first]}: {reasons.get(first, 'no stars')}"
        )
    chosen = {number: stars[number] for number in usable}
    places = [place for place, number in enumerate(stars) if number in chosen]
    found, doubt = find_reference(
        quality.isel(frame=places), usable if reference is None else [reference], chosen, known, kind
    )
    if doubt:
        warnings.append(f"the reference {names[found.centre]} may be a poor one: {doubt}")
    scales, errors = np.full((2, len(names)), np.nan)
    for number, pair in found.scales.items():
        scales[number], errors[number] = pair
    whole = quality.assign_coords(frame=list(stars)).reindex(frame=range(len(names))).drop_vars("frame")
    whole = whole.assign_coords(filename=("frame", np.array(list(names), object)))
    whole = whole.assign_attrs(height=shape[0], width=shape[1])
    matches = tuple(found.matches.get(number) for number in range(len(names)))
    warnings += _remarks(found, shape)
    return Registration(
        found.centre, tuple(surveys), matches, whole, reasons | found.reasons, scales, errors, found.few,
        warnings=tuple(warnings), exposure=known.exposure, sorts=tuple(known.sorts), kind=kind,
        unmatched=tuple(found.reasons),
    )  # fmt: skip


def _remarks(found: Aligned, shape: tuple[int, ...]) -> list[str]:
    """What the user should know of the frames that are aligned: strips of other panels, matches on few stars."""
    others = {number: match for number, match in found.matches.items() if number != found.centre}
    shares = [overlap(match.transform, shape) for match in others.values()]
    strips = sorted(100 * share for share in shares if share < STRIP)
    remarks = []
    if strips:
        low, high = f"{strips[0]:.0f}", f"{strips[-1]:.0f}"
        by = low if low == high else f"{low} to {high}"
        one = len(strips) == 1
        remarks.append(
            f"{len(strips)} {'light overlaps' if one else 'lights overlap'} the reference by {by} %: "
            f"{'it adds' if one else 'they add'} {STRIP_ADVICE}"
        )
    few = [match for match in others.values() if match.reference_index.size < _FEW_MATCHED]
    if few:
        odds = max(match.chance for match in few)
        least = min(match.reference_index.size for match in few)
        remarks.append(
            f"{len(few)} of {len(others) + 1} lights are aligned by few stars ({least} at least); "
            f"other stars would match as well by chance once in {1 / max(odds, 1e-12):,.0f} or less often"
        )
    return remarks


def register(
    lights: xr.Dataset, *, reference: int | str | None = None, kind: str = "auto", progress: bool = True
) -> Registration:
    """Find the stars of calibrated lights and fit the transform from the reference to each of them.

    Each frame is computed once and dropped again.  The same lights give the same bits.

    Parameters
    ----------
    lights
        What `calibrate` gives: ``signal`` [e-] and ``mask`` (frame, y, x).
    reference
        Number or file name of the frame on whose grid all are put; else the best is chosen
        (`workbench.stars.choose_reference`).
    kind
        Model of the transform (`workbench.align.KINDS`), or ``auto``.

    Raises
    ------
    StageError
        If the lights are not calibrated.
    WorkbenchError
        If the reference is none of the frames, or fewer than two frames can be brought together.

    Examples
    --------
    >>> from workbench.simulate import d7000, make_night, make_sky, render
    >>> from workbench.core.cube import make_cube
    >>> camera, sky = d7000(shape=(192, 288)), make_sky((192, 288), stars=40, seed=3)
    >>> views = make_night(sky, 3, exposure=60, seed=3)
    >>> electrons = np.stack([60 * render(sky, view, trails=False) for view in views]).astype("float32")
    >>> cube = make_cube(electrons, cfa_pattern="RGGB", kind="light", stage="calibrated", units="electron")
    >>> lights = xr.Dataset({"signal": cube, "mask": cube.astype("uint8") * 0}, attrs=cube.attrs)
    >>> registration = register(lights, progress=False)
    >>> registration.used, bool((registration.table().rms < 0.1).all())
    ((0, 1, 2), True)
    """
    signal = lights["signal"]
    check_cube(signal, stage="calibrated")
    names = [str(name) for name in signal["filename"].values]
    if len(names) < 2:
        raise WorkbenchError("alignment takes two lights or more; there is one")
    wanted = _wanted(reference, names)
    parts = [name for name in ("signal", "mask", "saturation") if name in lights]
    surveys = []
    for number in tqdm(range(len(names)), desc="registering", unit="frame", delay=2, leave=False, disable=not progress):
        frame = lights[parts].isel(frame=number).compute(scheduler=get_sync)
        surveys.append(_survey_light(frame, signal.attrs["cfa_pattern"]))
    exposure = signal["exposure"].values.astype(float)
    sorts = light_sorts(signal)
    found = register_frames(surveys, names, exposure, signal.shape[1:], reference=wanted, kind=kind, sorts=sorts)
    if len(found.used) < 2:
        reasons = "; ".join(f"{names[number]}: {reason}" for number, reason in list(found.set_aside.items())[:3])
        centre = names[found.reference] or f"frame {found.reference}"
        raise WorkbenchError(f"no light can be aligned to {centre}: {reasons}")
    return found


def light_sorts(lights: xr.DataArray) -> list[str]:
    """Return the setting and filter of each light of a cube in words: light is compared among equals."""
    columns = [name for name in (*SETTING, "filter") if name in lights.coords]
    return [
        describe({name: lights[name].values.item(number) for name in columns})
        for number in range(lights.sizes["frame"])
    ]


def _wanted(reference: int | str | None, names: Sequence[str]) -> int | None:
    if reference is None:
        return None
    if isinstance(reference, str):
        found = [number for number, name in enumerate(names) if reference in (name, name.rsplit("/", 1)[-1])]
        if len(found) != 1:
            raise WorkbenchError(f"the reference {reference!r} is none of the lights; the first is {names[0]!r}")
        return found[0]
    if not 0 <= reference < len(names):
        raise WorkbenchError(f"the reference is frame {reference}, and there are frames 0 to {len(names) - 1}")
    return int(reference)


def _survey_light(frame: xr.Dataset, pattern: str) -> FrameSurvey:
    """Look at one calibrated light; where nothing says at what level it saturates, its saturated pixels do."""
    signal, mask = frame["signal"].values, frame["mask"].values
    if "saturation" in frame:
        saturation = float(frame["saturation"])
    else:
        full = signal[(mask & _SATURATED) > 0]
        saturation = max(float(np.nanmin(full)), 0.0) if np.isfinite(full).any() else np.inf
    return survey_mosaic(np.where(mask & _DEFECT, np.float32(np.nan), signal), pattern, saturation)
