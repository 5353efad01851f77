"""Which frames are poor, and which one the others are aligned to."""

import numpy as np
import pytest
import xarray as xr

from workbench.core.errors import WorkbenchError
from workbench.stars import choose_reference, find_stars, poor_frames, quality_table


def test_quality_tells_trailed_and_blurred_frames_apart(painted):
    good = [find_stars(painted(seed)[0]) for seed in (1, 2, 3)]
    blurred = find_stars(painted(4, fwhm=7.0, faintest=5000)[0])
    trailed = find_stars(painted(5, elongation=3.5, faintest=5000)[0])
    table = quality_table([*good, blurred, trailed], list("abcde"))
    reasons = poor_frames(table)
    assert set(reasons) == {3, 4}
    assert "FWHM" in reasons[3]
    assert "trailed" in reasons[4]
    assert choose_reference(table, [0, 1, 2]) in (0, 1, 2)


def test_clouds_and_empty_frames_are_set_aside():
    columns = {
        "stars": [500.0, 60.0, 0.0, 480.0],
        "fwhm": [3.0, 3.0, np.nan, 3.0],
        "roundness": [0.9, 0.9, np.nan, 0.9],
    }
    table = xr.Dataset({name: ("frame", values) for name, values in columns.items()})
    reasons = poor_frames(table)
    assert set(reasons) == {1, 2}
    assert "clouds" in reasons[1]


def test_without_usable_frames_there_is_no_reference():
    with pytest.raises(WorkbenchError, match="no usable frame"):
        choose_reference(xr.Dataset({"stars": ("frame", [])}), [])
