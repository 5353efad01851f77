"""How to stack: the settings of a run, and which lights they leave out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..align.comet import check_comet
from ..align.grid import check_framing
from ..align.reference import LightsKnown
from ..align.transform import KINDS
from ..core.errors import WorkbenchError
from ..core.settings import filter_name
from ..stars.selection import FrameLimits, best_frames, unfit_frames
from ..stars.survey import FrameSurvey, quality_table
from .drizzle import Drop, drop_of
from .reject import method_number


@dataclass(frozen=True)
class StackSettings(FrameLimits):
    """How to stack; what changes the result, and so belongs to an interrupted run's identity.

    Attributes
    ----------
    exclude, keep, max_fwhm, min_roundness, max_background, min_stars
        Which lights to leave out (`workbench.stars.FrameLimits`).
    reference
        Path or name of the light on whose pixel grid and exposure the stack is; else the best.
    method, low, high
        Rejection (`workbench.stack.METHODS`) and its thresholds.
    framing
        What of the reference's grid the stack holds: ``reference`` its own field, ``all`` the fields of all lights,
        ``common`` what all of them cover (`workbench.align.framed`).
    transform
        ``auto`` or one of `workbench.align.KINDS`.
    background
        Order of the surface by which frames' backgrounds are matched: 1, 2 or ``auto``.
    seeing_weights
        Let sharp frames count for more.
    filter
        Name or names of filters whose lights alone are stacked; else all, each filter for itself.
    scale, pixfrac
        Drizzle: drop the raw samples as squares of ``pixfrac`` (0.8) of a pixel onto a grid ``scale`` (1) times finer,
        without demosaicing; resample where neither is given (`workbench.stack.drizzle`).
    scale_darks
        Scale the darks by the factor that the lights themselves ask for.
    comet
        Stack on a comet too: ``auto``, two positions ``X,Y`` or ``X,Y@LIGHT``, an ephemeris (`workbench.align.comet`).
    site
        Let the stack's header state where the telescope stood, as the lights' headers do.
    """

    reference: str | Path | None = None
    method: str = "noise"
    low: float | None = None
    high: float | None = None
    framing: str = "reference"
    transform: str = "auto"
    background: int | str = "auto"
    seeing_weights: bool = False
    filter: str | tuple[str, ...] = ()
    scale: float | None = None
    pixfrac: float | None = None
    scale_darks: bool = False
    comet: str | tuple[str, ...] = ()
    site: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        method_number(self.method)
        for name in ("low", "high"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise WorkbenchError(f"{name} is {value:g}; the threshold of the rejection is a positive number")
        drop_of(self.scale, self.pixfrac, self.method)
        check_framing(self.framing)
        if self.transform not in ("auto", *KINDS):
            raise WorkbenchError(f"transform {self.transform!r} is none of auto, {', '.join(KINDS)}")
        wanted = (self.filter,) if isinstance(self.filter, str) else self.filter
        object.__setattr__(self, "filter", tuple(map(filter_name, wanted)))
        object.__setattr__(self, "reference", None if self.reference is None else str(self.reference))
        comet = (self.comet,) if isinstance(self.comet, (str, Path)) else self.comet
        object.__setattr__(self, "comet", tuple(map(str, comet)))
        if self.comet:
            check_comet(self.comet)
            if self.drop is not None:
                raise WorkbenchError("a stack on a comet cannot be drizzled; leave out scale and pixfrac, or comet")
        object.__setattr__(self, "exclude", (self.exclude,) if isinstance(self.exclude, str) else tuple(self.exclude))

    @property
    def drop(self) -> Drop | None:
        """How the stack is drizzled; None where it is resampled."""
        return drop_of(self.scale, self.pixfrac, self.method)

    def require_live(self) -> None:
        """Refuse what cannot be done while lights still arrive."""
        if self.keep is not None:
            raise WorkbenchError(
                f"keep {self.keep:g} %: the best are not known before the last; give a limit (max_fwhm)"
            )
        if self.drop is not None:
            raise WorkbenchError("a live stack cannot be drizzled; `workbench stack` takes scale and pixfrac")
        if self.comet:
            raise WorkbenchError("a live stack does not follow a comet; `workbench stack` takes comet")


def left_out(
    settings: StackSettings, surveys: Mapping[int, FrameSurvey], names: Sequence[str], paths: Sequence[Path],
    exposure: np.ndarray, sorts: Sequence[str],
) -> dict[int, str]:  # fmt: skip
    """Return the lights that the settings leave out, as number → reason.

    Excluded ones, those beyond a limit, and of what is then fit to be stacked all but the best.  The share is of the
    lights of one setting and exposure, so that it does not leave all short ones out.

    Parameters
    ----------
    surveys
        By the light's number, of those that could be read.
    names, paths, exposure, sorts
        Of all lights; sorts are labels of their setting and filter.
    """
    reasons = settings.excluded(names, paths)
    numbers = list(surveys)
    stars = {number: survey.stars for number, survey in surveys.items()}
    quality = quality_table(list(stars.values()), [names[number] for number in numbers])
    for index, reason in settings.beyond(quality).items():
        reasons.setdefault(numbers[index], reason)
    if settings.keep is None:
        return reasons
    known = LightsKnown(exposure, sorts)
    groups = [known.group(number) for number in numbers]
    unfit = reasons | unfit_frames(stars, quality, names, groups)[0]
    for group in dict.fromkeys(groups):
        usable = [index for index, number in enumerate(numbers) if groups[index] == group and number not in unfit]
        if usable:
            for index, reason in best_frames(quality, usable, settings.keep).items():
                reasons[numbers[index]] = reason
    return reasons
