"""Histogram, hot pixels, defects and vignetting show what is in the frames."""

import numpy as np
import pytest
import xarray as xr

from workbench.core.cube import make_cube
from workbench.core.errors import WorkbenchError
from workbench.pixels import dcnu_histogram, find_sensor_defects, hot_pixels, stack_cube, vignetting
from workbench.simulate import d7000, expose


def a_map(values):
    return xr.DataArray(
        values.astype("float32"), dims=("y", "x"), attrs={"units": "electron / s", "iso": 800.0, "temperature": 20.0}
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


def test_the_model_of_vignetting_finds_its_centre():
    y, x = np.mgrid[:400, :600]
    light = 8000 * (1 - 0.35 * ((y - 230) ** 2 + (x - 260) ** 2) / (200**2 + 300**2))
    frames = np.random.default_rng(1).poisson(light, (3, 400, 600)) + 600
    flat = make_cube(frames.astype("uint16"), cfa_pattern="RGGB", kind="flat", black_level=600)
    found = vignetting(flat, progress=False)
    assert abs(found.centre_y - 230.5) < 4 * found.centre_error + 0.1
    assert abs(found.centre_x - 260.5) < 4 * found.centre_error + 0.1
    assert found.centre_error < 2
    assert found.uneven < 0.02
    corner = light[-1, -1] if light[-1, -1] < light[0, -1] else light[0, -1]
    np.testing.assert_allclose(
        found.falloff, 1 - min(light[0, -1], light[-1, 0], light[0, 0], corner) / 8000, atol=0.01
    )


def test_defects_of_every_kind(striped):
    _, bias, flat = striped
    current = xr.DataArray(
        np.random.default_rng(2).normal(0.05, 0.004, (240, 320)).astype("float32"), dims=("y", "x"),
        attrs={"units": "electron / s", "iso": 800.0, "temperature": 20.0, "cfa_pattern": "RGGB"},
    )  # fmt: skip
    current[10, 20], current[30, 41], current[50, 60] = 3.0, np.nan, 0.12
    bad = flat.values.copy()
    bad[:, 70, 80] = 600 + (bad[:, 70, 80] - 600) // 3
    jumping = bias.values.copy()
    jumping[::2, 90, 100] += 40
    zero = stack_cube(bias.copy(data=jumping), progress=False)
    flats = stack_cube(flat.copy(data=bad), black=600, progress=False)
    found = find_sensor_defects(current, 3.0, 300.0, flat=flats, bias=zero)
    assert found.attrs["counts"] == {"hot": 2, "warm": 2, "dead": 1, "unstable": 1}
    assert found.values[30, 41] == 1
    assert found.values[50, 60] == 2
    assert found.values[70, 80] == 4
    assert found.values[90, 100] == 8
    assert set(found.attrs["thresholds"]) == {"hot_noise", "warm_sigmas", "dead_response", "unstable_excess"}
    only = find_sensor_defects(bias=zero)
    assert only.attrs["counts"] == {"unstable": 1}
    with pytest.raises(WorkbenchError, match="given: nothing"):
        find_sensor_defects()
    with pytest.raises(WorkbenchError, match="of one size"):
        find_sensor_defects(current[:10], bias=zero)
