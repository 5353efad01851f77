import numpy as np
import pytest
import xarray as xr

import workbench as wb
from workbench.core.cube import add_history, check_cube, make_cube, one_value


@pytest.fixture
def cube():
    data = np.arange(2 * 4 * 6, dtype="uint16").reshape(2, 4, 6)
    return make_cube(data, cfa_pattern="RGGB", kind=["bias", "bias"], iso=[100, 200], black_level=600, filename="a.dng")


def test_make_cube_keeps_the_contract(cube):
    assert cube.dims == ("frame", "y", "x")
    assert cube.chunks[0] == (1, 1)
    assert cube.attrs["black_level"] == (600.0,) * 4
    assert cube["iso"].dtype == float
    assert cube["exposure"].attrs["units"] == "s"
    assert np.isnan(cube["temperature"]).all()
    assert np.isnat(cube["time"].values).all()
    assert check_cube(cube, stage="raw", kind="bias") is cube


def test_a_cube_survives_selection_and_arithmetic_on_frames(cube):
    assert check_cube(cube.sel(frame=cube.iso == 200)).sizes["frame"] == 1
    assert check_cube(wb.core.mosaic.split(cube)).dims == ("frame", "channel", "y", "x")


def test_a_sequence_of_frames_becomes_a_lazy_cube():
    cube = make_cube([np.zeros((4, 4)), np.ones((4, 4))], cfa_pattern="mono")
    assert cube.chunks[0] == (1, 1)
    assert cube.attrs["black_level"] == (pytest.approx(np.nan, nan_ok=True),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cfa_pattern": "XTRANS"}, "none of RGGB"),
        ({"iso": [1, 2, 3]}, "3 values for 2 frames"),
        ({"gain": 1}, "unknown frame coordinates"),
        ({"stage": "cooked"}, "stage 'cooked'"),
        ({"units": "DN"}, "units 'DN'"),
    ],
)
def test_what_breaks_the_contract_is_named(change, message):
    with pytest.raises(wb.WorkbenchError, match=message):
        make_cube(np.zeros((2, 4, 4)), **{"cfa_pattern": "RGGB", **change})


def test_check_names_wrong_stage_kind_and_type(cube):
    with pytest.raises(wb.StageError, match="'calibrated'.*'raw'"):
        check_cube(cube, stage="calibrated")
    with pytest.raises(wb.WorkbenchError, match="wants flat frames and got bias"):
        check_cube(cube, kind="flat")
    with pytest.raises(wb.WorkbenchError, match="xarray.DataArray"):
        check_cube(cube.values)
    with pytest.raises(wb.WorkbenchError, match="lacks"):
        check_cube(xr.DataArray(np.zeros((1, 2, 2)), dims=("frame", "y", "x")))
    with pytest.raises(wb.WorkbenchError, match="has dims"):
        check_cube(cube.isel(frame=0))
    with pytest.raises(wb.WorkbenchError, match="3 dims|2 dims"):
        make_cube(np.zeros((4, 4)), cfa_pattern="mono")


def test_one_value(cube):
    assert one_value(cube.isel(frame=[0]), "iso", "a test") == 100
    with pytest.raises(wb.WorkbenchError, match=r"a test needs frames of one iso.*100 \(a.dng\), 200"):
        one_value(cube, "iso", "a test")


def test_history_grows_in_the_copy_only(cube):
    told = add_history(cube, "split into channels")
    assert told.attrs["history"] == ["split into channels"]
    assert cube.attrs["history"] == []
