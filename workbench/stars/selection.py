"""Which frames are stacked: what the user leaves out, limits on their quality, the best share, and what is unfit."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import xarray as xr

from ..core.errors import WorkbenchError
from .damage import damaged_frames
from .doubles import doubled_frames
from .survey import frame_scores, poor_frames, quality_table

_RANKS = slice(2, 20)  # of the brightest stars, whose fluxes are compared: the first may be saturated
_SCALED = 1.5  # a frame whose stars are by this factor off those of its like may have other numbers
_ALIKE = 0.25  # natural logarithm of a factor: so well do the stars of most frames agree


@dataclass(frozen=True)
class FrameLimits:
    """Which frames a user wants; None, or nothing, is not a limit.

    Attributes
    ----------
    exclude
        Names, paths or patterns (``light_00*``) of frames to leave out.
    keep
        Share of the good frames to keep, the best ones [%].
    max_fwhm
        Of a frame's stars, their median [px].
    min_roundness
        Of a frame's stars, their median (minor over major axis).
    max_background
        Median background, in the units of the calibrated frames (electrons where the gain is known).
    min_stars
        Number of stars found.

    Raises
    ------
    WorkbenchError
        If a limit cannot be met by any frame.
    """

    exclude: tuple[str, ...] = ()
    keep: float | None = None
    max_fwhm: float | None = None
    min_roundness: float | None = None
    max_background: float | None = None
    min_stars: float | None = None

    def __post_init__(self) -> None:
        if self.keep is not None and not 0 < self.keep <= 100:
            raise WorkbenchError(f"keep {self.keep:g} % of the lights: a share is over 0 and up to 100 %")
        if self.min_roundness is not None and not 0 <= self.min_roundness < 1:
            raise WorkbenchError(
                f"roundness of at least {self.min_roundness:g}: it runs from 0 (lines) to below 1 (round)"
            )
        for name in ("max_fwhm", "min_roundness", "max_background", "min_stars"):
            if (limit := getattr(self, name)) is not None and math.isnan(limit):
                raise WorkbenchError(f"{name} is nan; a limit is a number")
        if self.max_fwhm is not None and not self.max_fwhm > 0:
            raise WorkbenchError(f"FWHM of at most {self.max_fwhm:g} px: a width is over 0")

    def excluded(self, names: Sequence[str], paths: Sequence[Path], *, strict: bool = False) -> dict[int, str]:
        """Return the frames that `exclude` means, as number → reason.

        Raises
        ------
        WorkbenchError
            If a name or pattern means none of them, and that is a mistake (`strict`).

        Examples
        --------
        >>> limits = FrameLimits(exclude=("light_1*", "b.fits"))
        >>> limits.excluded(["l/light_10.fits", "l/light_2.fits", "l/b.fits"], [Path("a"), Path("c"), Path("l/b.fits")])
        {0: "excluded ('light_1*')", 2: "excluded ('b.fits')"}
        """
        reasons: dict[int, str] = {}
        for wanted in self.exclude:
            meant = [
                number
                for number, (name, path) in enumerate(zip(names, paths, strict=True))
                if is_meant(wanted, name, path) or any(fnmatchcase(way, wanted) for way in _ways(name, path))
            ]
            if strict and not meant:
                raise WorkbenchError(
                    f"the light to be excluded, {wanted!r}, is none of the lights (the first is {names[0]!r}); give "
                    "the name, the path or a pattern such as 'light_00*'"
                )
            reasons |= {number: f"excluded ({wanted!r})" for number in meant if number not in reasons}
        return reasons

    def beyond(self, quality: xr.Dataset) -> dict[int, str]:
        """Return the frames of a table of quality that are beyond a limit, as index → reason.

        Examples
        --------
        >>> table = xr.Dataset({"stars": ("frame", [500, 80]), "fwhm": ("frame", [3.0, 4.5]),
        ...     "roundness": ("frame", [0.9, 0.9]), "background": ("frame", [200.0, 210.0])})
        >>> FrameLimits(max_fwhm=4.0).beyond(table)
        {1: 'FWHM 4.50 px is above the limit of 4 px'}
        """
        checks = (
            ("fwhm", self.max_fwhm, 1, "FWHM {:.2f} px is above the limit of {:g} px"),
            ("roundness", self.min_roundness, -1, "roundness {:.2f} is below the limit of {:g}"),
            ("background", self.max_background, 1, "background {:.1f} is above the limit of {:g}"),
            ("stars", self.min_stars, -1, "{:.0f} stars are fewer than the limit of {:g}"),
        )
        reasons: dict[int, str] = {}
        for name, limit, sign, text in checks:
            if limit is not None:
                for index, value in enumerate(quality[name].values.astype(float)):
                    if not sign * value <= sign * limit:
                        reasons.setdefault(index, text.format(value, limit))
        return reasons


def is_meant(wanted: str, name: str, path: Path) -> bool:
    """Return whether a path, a name or a stem means a frame: its own, or another path of the same file."""
    return wanted in _ways(name, path) or (Path(wanted).exists() and path.exists() and path.samefile(wanted))


def _ways(name: str, path: Path) -> tuple[str, ...]:
    return name, Path(name).name, path.name, path.stem, str(path)


def unfit_frames(
    stars: Mapping[int, xr.Dataset], quality: xr.Dataset, names: Sequence[str], groups: Sequence[Hashable]
) -> tuple[dict[int, str], list[str]]:
    """Return the frames that should not be stacked, as number → reason, and warnings: damaged, poor, scaled
    and doubled ones.

    Parameters
    ----------
    stars
        Star lists by the frame's number.
    quality
        What `quality_table` gives of them, in their order.
    names
        Of all frames.
    groups
        One label for each of `stars`: those with equal ones should show as many stars.
    """
    numbers = list(stars)
    reasons = {numbers[index]: reason for index, reason in poor_frames(quality, groups=groups).items()}
    reasons |= damaged_frames(stars)
    for label in set(groups):
        alike = [n for n, group in zip(numbers, groups, strict=True) if group == label and n not in reasons]
        reasons |= scaled_frames({number: stars[number] for number in alike})
    doubled, warning = doubled_frames({n: catalogue for n, catalogue in stars.items() if n not in reasons}, names)
    return reasons | doubled, [warning] if warning else []


def unlike_others(stars: Mapping[int, xr.Dataset], names: Sequence[str], groups: Sequence[Hashable]) -> str:
    """Return why the last of some frames should not be stacked with the others, as `unfit_frames`; else nothing."""
    quality = quality_table(list(stars.values()), [names[number] for number in stars])
    return unfit_frames(stars, quality, names, groups)[0].get(len(names) - 1, "") if len(names) > 1 else ""


def scaled_frames(stars: Mapping[int, xr.Dataset]) -> dict[int, str]:
    """Return the frames whose numbers were multiplied, as number → reason.

    Their stars are k times as bright as those of two thirds of the frames, which agree; and the sky b, from which the
    offset is subtracted once, not k times, is off k b away from one.  Clouds, which take light from the stars and leave
    more of the sky's, are off it towards one.

    Examples
    --------
    >>> def frame(k):
    ...     attrs = {"noise": 10.0, "background": k * (100.0 + 300.0) - 300.0}
    ...     return xr.Dataset({"flux": ("star", k * np.arange(900.0, 100.0, -10.0))}, attrs=attrs)
    >>> list(scaled_frames({number: frame(k) for number, k in enumerate([1.0, 1.05, 2.0, 0.98])}))
    [2]
    """
    brightest = [np.sort(one["flux"].values[np.isfinite(one["flux"].values)])[::-1][_RANKS] for one in stars.values()]
    count = min(map(len, brightest), default=0)
    if len(stars) < 3 or count < 3:
        return {}
    flux = np.log(np.maximum([one[:count] for one in brightest], 1e-9))
    light = np.median(flux - np.median(flux, axis=0), axis=1)
    sky, noise = (np.array([one.attrs[name] for one in stars.values()], float) for name in ("background", "noise"))
    usual = np.exp(light) * np.median(sky)
    off = (sky - usual) * np.sign(light) > 0.2 * np.abs(usual) + 0.5 * noise
    odd = off & (np.abs(light) > math.log(_SCALED))
    if 3 * np.count_nonzero(np.abs(light) < _ALIKE) < 2 * len(stars):
        return {}
    return {
        number: f"its stars are {math.exp(light[place]):.2f} times as bright as the others', its sky is "
        f"{sky[place]:.4g} where they have {np.median(sky):.4g}: no cloud does both, its numbers were multiplied"
        for place, number in enumerate(stars)
        if odd[place]
    }


def best_frames(quality: xr.Dataset, usable: Sequence[int], keep: float) -> dict[int, str]:
    """Return the usable frames of a table that are not among the best, as index → reason.

    Parameters
    ----------
    usable
        Indices in the table; others are not counted.
    keep
        Share to keep [%]; at least two frames are.

    Examples
    --------
    >>> table = xr.Dataset({"stars": ("frame", [500, 480, 490, 500]), "fwhm": ("frame", [3.0, 3.1, 4.0, 3.0]),
    ...     "roundness": ("frame", [0.9, 0.9, 0.9, 0.9]), "noise": ("frame", [4.0, 4.0, 4.0, 4.0])})
    >>> best_frames(table, [0, 1, 2, 3], 75)
    {2: 'not among the best 75 % (place 4 of 4)'}
    """
    score = frame_scores(quality.isel(frame=list(usable)))
    count = max(2, math.ceil(keep / 100 * len(usable) - 1e-9))
    order = np.argsort(-score, kind="stable")
    return {
        int(usable[index]): f"not among the best {keep:g} % (place {place + 1} of {len(usable)})"
        for place, index in enumerate(order)
        if place >= count
    }
