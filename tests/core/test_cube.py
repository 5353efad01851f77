"""The cube: its contract, its coordinates, and its way to netCDF and zarr and back."""

import holoviews as hv
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import workbench as wb
from workbench.core.cube import add_history, check_cube, digest, make_cube, one_value
from workbench.core.errors import WorkbenchError


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
    assert cube.attrs["black_level"] == pytest.approx(np.nan, nan_ok=True)


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
    assert told.attrs["history"] == "split into channels"
    assert cube.attrs["history"] == ""


def test_pixels_have_the_coordinates_of_the_full_frame_and_a_cube_a_name(cube):
    part = cube.isel(y=slice(2, None), x=slice(2, 6))
    assert part.y.values.tolist() == [2, 3]
    assert part.x.values.tolist() == [2, 3, 4, 5]
    assert check_cube(part) is part
    image = hv.Image(part.isel(frame=0))
    assert image.kdims == ["x", "y"]
    assert image.vdims[0].name == cube.name == "value"
    assert image.bounds.lbrt() == (1.5, 1.5, 5.5, 3.5)


@pytest.mark.parametrize("part", [{"x": slice(1, None)}, {"y": slice(1, 3)}, {"y": slice(1, 3), "x": slice(3, 5)}])
def test_a_slice_that_swaps_the_colours_is_refused_and_crop_keeps_them_right(cube, part):
    for verb in (check_cube, wb.core.mosaic.split):
        with pytest.raises(wb.WorkbenchError, match="every colour would be taken for another"):
            verb(cube.isel(part))
    cut = wb.core.mosaic.crop(cube, part.get("y", slice(None)), part["x"] if "x" in part else slice(None))
    assert check_cube(cut).equals(cube.isel(part))
    whole, split = wb.core.mosaic.split(cube), wb.core.mosaic.split(cut)
    for name in ("R", "G1", "G2", "B"):
        assert set(split.sel(channel=name).values.ravel()) <= set(whole.sel(channel=name).values.ravel())
    with pytest.raises(wb.WorkbenchError, match="every colour"):
        check_cube(cut.isel(x=slice(1, None)))


def test_binned_and_thinned_pixels_do_not_pass_for_raw(cube):
    binned = cube.coarsen(y=2, x=2).mean()
    with pytest.raises(wb.WorkbenchError, match="do not follow one another"):
        check_cube(binned, stage="raw")
    with pytest.raises(wb.WorkbenchError, match="do not follow one another"):
        check_cube(cube.isel(y=slice(None, None, 2)))
    mono = make_cube(np.zeros((1, 4, 4)), cfa_pattern="mono", kind="dark")
    assert check_cube(mono.isel(x=slice(1, None))).sizes["x"] == 3


@pytest.mark.parametrize("form", ["netcdf", "zarr"])
@pytest.mark.parametrize("pattern", ["RGGB", "mono"])
def test_a_cube_goes_to_netcdf_and_zarr_and_back(tmp_path, pattern, form):
    data = np.arange(2 * 4 * 6, dtype="uint16").reshape(2, 4, 6)
    about = {"cfa_pattern": pattern, "filename": ["a.dng", "b.dng"], "iso": 100}
    cube = make_cube(data, kind="dark", time=np.datetime64("2025-01-18T20:00:00", "ns"), **about)
    for one in (cube, add_history(cube, "read"), add_history(add_history(cube, "read"), "looked at")):
        if form == "netcdf":
            one.to_netcdf(tmp_path / "cube.nc", engine="h5netcdf")
            with xr.open_dataarray(tmp_path / "cube.nc", engine="h5netcdf") as file:
                back = file.load()
        else:
            one.to_zarr(tmp_path / "cube.zarr", zarr_format=2, mode="w")
            back = xr.open_dataarray(tmp_path / "cube.zarr", engine="zarr").load()
        xr.testing.assert_equal(back, one)
        assert back.dtype == one.dtype
        assert check_cube(back, stage="raw", kind="dark") is back
        again, attrs = xr.Dataset(attrs=back.attrs), xr.Dataset(attrs=one.attrs)
        assert again.identical(attrs), (back.attrs, one.attrs)


def test_a_digest_is_that_of_the_files_and_of_all_else(tmp_path):
    path = tmp_path / "a.fits"
    path.write_bytes(b"one")
    table = pd.DataFrame({"path": [path], "iso": [100.0], "temperature": [np.nan]})
    first = digest(table, {"penalty": 0.05})
    assert first == digest(table.copy(), {"penalty": 0.05})
    assert first != digest(table, {"penalty": 0.06})
    assert first != digest(table.assign(iso=200.0), {"penalty": 0.05})
    assert digest(path) != digest(str(path))
    path.write_bytes(b"more")
    assert first != digest(table, {"penalty": 0.05})
    path.unlink()
    with pytest.raises(WorkbenchError, match="open the folder again"):
        digest(table)
