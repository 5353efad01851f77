"""What a stacking run asks of its masters: whether the darks and the flats fit the lights."""

from __future__ import annotations

from typing import Any, NamedTuple

import xarray as xr

from ..calibrate.dark_fit import dark_doubts, fit_darks, scaled_by_lights
from ..calibrate.masterset import MasterSet


class CheckedMasters(NamedTuple):
    """The masters of a run, their darks scaled if that was asked for, and what is doubtful.

    `used` says for each group of lights what calibrates it; `darks_fit` is False where a warning says that they do not.
    """

    masters: MasterSet
    warnings: list[str]
    used: list[str]
    darks_fit: bool


def check_masters(
    light: xr.DataArray, cubes: dict[str, Any], masters: MasterSet, *, scale_darks: bool = False
) -> CheckedMasters:
    """Compare the masters with some of the lights that they are for, and scale the darks if asked to.

    Parameters
    ----------
    light, cubes
        The lights as read, and the cube of each kind of calibration frame.
    scale_darks
        Fit the darks' factor from all lights.

    Raises
    ------
    WorkbenchError
        If the darks cannot be scaled.
    """
    fitted: list[str] = []
    if scale_darks:
        masters, fitted = scaled_by_lights(masters, fit_darks(light, masters, most=None))
    doubts = []
    if cubes.get("dark") is not None:
        doubts = dark_doubts(light, cubes["dark"], masters, fit_darks(light, masters))
    used = [group.group.in_words(light) for group in masters.masters]
    if fitted:
        used = [f"{words}; {scaled}" for words, scaled in zip(used, fitted, strict=True)]
    return CheckedMasters(masters, [*masters.warnings, *doubts], used, not doubts)
