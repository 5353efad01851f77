"""Histogram, hot pixels and vignetting show what is in the frames."""

import numpy as np
import pytest
import xarray as xr

from workbench.camera import d7000, expose
from workbench.frames import make_cube
from workbench.sensor import dcnu_histogram, hot_pixels, vignetting


def a_map(values):
    return xr.DataArray(
        values.astype("float32"), dims=("y", "x"), attrs={"units": "e-/s", "iso": 800.0, "temperature": 20.0}
    )


@pytest.fixture
def current():
    rng = np.random.default_rng(0)
    values = rng.normal(0.3, 0.03, (200, 300))
    values[3, 4], values[10, 20], values[100, 7] = 9.0, 4.0, np.nan
    return values


def test_the_histogram_counts_every_pixel(current):
    result = dcnu_histogram(a_map(current), bins=100)
    assert result["count"].sum() + result.attrs["beyond"] == result.attrs["n_pixels"] == 200 * 300 - 1
    assert result.sizes["bin"] == 100
    np.testing.assert_allclose(result.attrs["mean"], np.nanmean(current), rtol=1e-5)
    np.testing.assert_allclose(result.attrs["median"], np.nanmedian(current), rtol=1e-5)
    mean = (result["count"] * result["bin"]).sum() / result["count"].sum()
    np.testing.assert_allclose(mean, 0.3, rtol=0.02)
    assert result.attrs["temperature"] == 20.0


def test_the_hottest_pixels_and_how_many_exceed_what(current):
    result = hot_pixels(a_map(current), most=5)
    places = list(zip(result.y.values.tolist(), result.x.values.tolist(), strict=True))
    assert places[:3] == [(100, 7), (3, 4), (10, 20)]  # the saturated one is hotter than all
    np.testing.assert_allclose(result.dark_current[1:3], [9.0, 4.0])
    assert (np.diff(result.fraction) <= 0).all()
    above = np.interp(1.0, result.threshold, result.fraction) * current.size
    np.testing.assert_allclose(above, 3)
    assert (result.attrs["height"], result.attrs["width"]) == (200, 300)


def test_vignetting_of_the_virtual_lens():
    camera = d7000(seed=2, shape=(400, 600), vignetting=0.4)
    frames = [expose(camera, 40_000.0, iso=200, exposure=0.2, seed=n) for n in range(3)]
    flat = make_cube(frames, cfa_pattern="RGGB", kind="flat", iso=200, exposure=0.2, black_level=600)
    result = vignetting(flat, progress=False)
    assert result.illumination.size <= 1e5
    true = 1 - 0.4 * (result.radius / np.hypot(199.5, 299.5)) ** 2
    np.testing.assert_allclose(result.profile.mean("channel"), true, rtol=0.01)
    np.testing.assert_allclose(result.illumination.values[0, 0], 0.6, atol=0.03)
    # the profile is in pixels of the frame, the picture too
    assert abs(result.x.values.mean() - 300) < 1
    assert (result.profile_error < 0.01).all()
    corners = result.illumination.values[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert np.ptp(corners) < 0.03


@pytest.mark.parametrize(("shape", "pattern"), [((401, 603), "GBRG"), ((64, 64), "mono"), ((8, 8), "RGGB")])
def test_vignetting_of_any_size(shape, pattern):
    flat = make_cube(np.full((1, *shape), 1000, "uint16"), cfa_pattern=pattern, kind="flat", black_level=0)
    result = vignetting(flat, progress=False)
    np.testing.assert_allclose(result.illumination, 1)
    np.testing.assert_allclose(result.profile, 1)
    np.testing.assert_allclose(result.profile_error, 0, atol=1e-9)


def test_vignetting_of_a_full_size_frame_is_small():
    flat = make_cube(np.full((1, 3264, 4928), 1000, "uint16"), cfa_pattern="RGGB", kind="flat", black_level=0)
    result = vignetting(flat, progress=False)
    assert result.illumination.size <= 1e5
