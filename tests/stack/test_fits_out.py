"""The stack as a file: bands in any order, opened again as written, and on to netCDF and zarr and back."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy.io import fits

from workbench.core.values import attribute_dict, attribute_lines
from workbench.stack.engine import Band, StackArrays
from workbench.stack.fits_out import IMAGES, create_file, finish_stack, open_stack, plan_layout, write_band

SHAPE = (3, 150, 70)
ABOUT = {
    "units": "electron",
    "stage": "stacked",
    "history": ["3 lights stacked", "set aside: müde.fits: clouds"],
    "attributes": {"camera": "painted", "exposure": 60.0, "frame_count": 3, "pixel_variance_share": {"R": 0.25}},
}


@pytest.fixture(params=[3, 300], ids=["few", "many"])
def written(request, tmp_path):
    """A stack of so many frames written in three bands, the last one first, and the arrays that it holds."""
    rng = np.random.default_rng(request.param)
    counts = np.uint8 if request.param < 256 else np.uint16
    floats = [rng.normal(100, 10, SHAPE).astype(np.float32) for _ in range(2)]
    floats[0][:, :5] = np.nan
    arrays = [*floats, *(rng.integers(0, request.param, SHAPE).astype(counts) for _ in range(4))]
    layout = plan_layout(tmp_path / ".stack.part", SHAPE, request.param)
    create_file(layout)
    for top in (128, 64, 0):
        part = StackArrays(*(plane[:, top : top + 64] for plane in arrays), chi=np.zeros(0))
        write_band(layout, Band(top, part, np.zeros(0)))
    shared = rng.uniform(0, 1e-3, (2, 3, 3, 3)).astype(np.float32)
    frames = pd.DataFrame({"file": ["a.fits", "müde.fits"], "used": [True, False], "reason": ["", "clouds"]})
    frames = frames.assign(stars=[40, 3], rms=[0.1, np.nan], model=["", ""])
    chi = rng.uniform(0.9, 1.1, (3, 5, 3))
    path = finish_stack(layout, tmp_path / "stack.fits", ABOUT, {"EXPTIME": (60.0, "[s]")}, (chi, shared), frames)
    return path, dict(zip([name.lower() for name in IMAGES], arrays, strict=True)), shared


def test_a_stack_is_opened_as_it_was_written(written):
    path, arrays, shared = written
    stack = open_stack(path)
    for name, values in arrays.items():
        assert stack[name].dtype == values.dtype
        np.testing.assert_array_equal(stack[name].values, values)
    first, second = shared[..., np.arange(150)[:, None] // 64, np.arange(70) // 32]
    wanted = first + second * np.maximum(arrays["signal"], 0) ** 2
    np.testing.assert_allclose(stack["shared_variance"].values, wanted, rtol=1e-6)
    piece = {"channel": 1, "y": slice(60, 70), "x": slice(30, 40)}
    np.testing.assert_allclose(stack["shared_variance"].isel(piece).values, wanted[1, 60:70, 30:40], rtol=1e-6)
    assert stack["frame_file"].values.tolist() == ["a.fits", "m?de.fits"]
    assert stack["frame_used"].values.tolist() == [True, False]
    assert stack["frame_reason"].values.tolist() == ["", "clouds"]
    assert stack["frame_stars"].values.tolist() == [40, 3]
    assert attribute_lines(stack.attrs, "history") == ABOUT["history"]
    assert attribute_dict(stack.attrs, "pixel_variance_share") == {"R": 0.25}
    with fits.open(path) as hdus:
        hdus.verify("exception")
        assert [hdu.name for hdu in hdus[1:]] == [*IMAGES[1:], "CHI_SQUARE", "SHARED_NOISE", "FRAMES"]
        np.testing.assert_array_equal(hdus["COVERAGE"].data, arrays["coverage"])


@pytest.mark.parametrize("form", ["netcdf", "zarr"])
def test_an_opened_stack_goes_to_netcdf_and_zarr_and_back(written, tmp_path, form):
    stack = open_stack(written[0])
    if form == "netcdf":
        stack.to_netcdf(tmp_path / "stack.nc", engine="h5netcdf")
        back = xr.open_dataset(tmp_path / "stack.nc", engine="h5netcdf").load()
    else:
        stack.to_zarr(tmp_path / "stack.zarr", zarr_format=2)  # format 3 has no fixed text yet
        back = xr.open_zarr(tmp_path / "stack.zarr").load()
    xr.testing.assert_identical(back, stack.load())  # values, coordinates and attributes
    for name, variable in stack.variables.items():
        assert variable.dtype == object or back[name].dtype == variable.dtype, name
