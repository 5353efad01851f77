"""What the user leaves out, and limits on the quality of frames."""

from pathlib import Path

import pytest
import xarray as xr

from workbench.core.errors import WorkbenchError
from workbench.stars import FrameLimits, poor_frames
from workbench.stars.selection import best_frames

NAMES = ["lights/a_01.fits", "lights/a_02.fits", "lights/b_01.fits"]
PATHS = [Path("/night") / name for name in NAMES]


def table(**columns):
    count = len(next(iter(columns.values())))
    usual = {"stars": [500.0] * count, "fwhm": [3.0] * count, "roundness": [0.9] * count, "background": [200.0] * count,
             "noise": [14.0] * count}  # fmt: skip
    return xr.Dataset({name: ("frame", values) for name, values in (usual | columns).items()})


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [("a_*", [0, 1]), ("a_02", [1]), ("b_01.fits", [2]), ("lights/a_01.fits", [0]), (str(PATHS[2]), [2])],
)
def test_names_paths_and_patterns_exclude(wanted, numbers):
    assert list(FrameLimits(exclude=(wanted,)).excluded(NAMES, PATHS, strict=True)) == numbers


def test_a_name_that_means_no_light_is_a_mistake():
    with pytest.raises(WorkbenchError, match="'c_01', is none of the lights"):
        FrameLimits(exclude=("c_01",)).excluded(NAMES, PATHS, strict=True)


def test_frames_beyond_a_limit_have_the_reason():
    quality = table(stars=[500, 90, 500], fwhm=[3.0, 3.0, float("nan")], background=[200.0, 200.0, 390.0])
    assert FrameLimits(min_stars=100, max_background=300).beyond(quality) == {
        1: "90 stars are fewer than the limit of 100",
        2: "background 390.0 is above the limit of 300",
    }
    assert list(FrameLimits(max_fwhm=4).beyond(quality)) == [2]  # what is not known is not within a limit
    assert list(FrameLimits(min_roundness=0.95).beyond(quality)) == [0, 1, 2]


@pytest.mark.parametrize("limits", [{"keep": 0}, {"keep": 120}, {"min_roundness": 1.5}, {"max_fwhm": -1}])
def test_limits_that_none_can_meet_are_refused(limits):
    with pytest.raises(WorkbenchError):
        FrameLimits(**limits)


def test_the_best_are_kept():
    quality = table(fwhm=[3.0, 3.6, 3.2, 2.8, 2.0])
    assert list(best_frames(quality, [0, 1, 2, 3], 50)) == [2, 1]
    assert not best_frames(quality, [0, 1, 2, 3], 100)


def test_short_exposures_show_fewer_stars_without_fault():
    quality = table(stars=[500, 480, 490, 470, 60, 55, 5])
    assert list(poor_frames(quality)) == [4, 5, 6]
    assert list(poor_frames(quality, groups=["long"] * 4 + ["short"] * 3)) == [6]
