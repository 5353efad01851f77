"""The stack as a file: bands in any order, opened again as written, and on to netCDF and zarr and back."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy.io import fits
from astropy.nddata import CCDData, VarianceUncertainty

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
    names = [name.lower() for name in IMAGES if name != "MASK"]
    return path, dict(zip(names, arrays, strict=True)), shared


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
        np.testing.assert_array_equal(hdus["MASK"].data, np.isnan(arrays["signal"]))
        assert not hdus[0].data[:, :5].any()


def test_a_file_of_an_earlier_version_is_opened(written, tmp_path):
    """Variance second, NaN in the signal, the record in the primary header."""
    path = written[0]
    with fits.open(path) as hdus:
        order = ["PRIMARY", "VARIANCE", "COVERAGE", "REJECTED_LOW", "REJECTED_HIGH", "SATURATED"]
        before = fits.HDUList([hdus[name] for name in (*order, "CHI_SQUARE", "SHARED_NOISE", "FRAMES")])
        before[0].data[:, :5] = np.nan
        before[0].header["WORKBNCH"] = hdus["FRAMES"].header.pop("WORKBNCH")
        for hdu in before:  # it had no sums
            hdu.header.remove("CHECKSUM")
            hdu.header.remove("DATASUM")
        before.writeto(tmp_path / "before.fits")
    xr.testing.assert_identical(open_stack(tmp_path / "before.fits").load(), open_stack(path).load())


def test_astropy_reads_unit_variance_and_mask(written):
    path, arrays, _ = written
    stack = CCDData.read(path, hdu_uncertainty="VARIANCE")
    assert (str(stack.unit), str(stack.uncertainty.unit)) == ("electron", "electron2")
    assert isinstance(stack.uncertainty, VarianceUncertainty)
    np.testing.assert_array_equal(stack.mask, np.isnan(arrays["signal"]))


def test_siril_opens_it_with_the_same_statistics(written, siril_levels):
    path, arrays, _ = written
    signal = arrays["signal"]
    wanted = [[np.nanmean(plane), np.nanmedian(plane), np.nanstd(plane)] for plane in signal]
    np.testing.assert_allclose(siril_levels(path), wanted, rtol=0, atol=0.11)


def test_the_longest_history_of_a_mono_stack_does_not_move_the_data(tmp_path, siril_levels):
    layout = plan_layout(tmp_path / ".part", (1, 64, 64), 3)
    create_file(layout)
    values = {np.float32: (100, 2), np.uint8: (3, 0, 0, 0)}
    planes = [np.full((1, 64, 64), value, kind) for kind, levels in values.items() for value in levels]
    write_band(layout, Band(0, StackArrays(*planes, chi=np.zeros(0)), np.zeros(0)))
    history = [f"sentence {number} is long enough for a card and then for another" + 40 * "." for number in range(99)]
    maps, frames = (np.ones((1, 2, 2)), np.zeros((2, 1, 1, 2))), pd.DataFrame({"file": ["a"]})
    path = finish_stack(layout, tmp_path / "a.fits", ABOUT | {"history": history}, {}, maps, frames)
    stack = open_stack(path)
    assert stack.attrs["history"].splitlines() == history
    assert (stack.signal == 100).all()
    assert (stack.variance == 2).all()
    with fits.open(path) as hdus:
        hdus.verify("exception")
        assert hdus[0].data.shape == (64, 64)  # other programs take three axes for colours
    np.testing.assert_allclose(siril_levels(path)[:, :2], 100)


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
