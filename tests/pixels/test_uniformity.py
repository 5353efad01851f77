"""Histogram, hot pixels and vignetting show what is in the frames."""

import numpy as np
import pytest
import xarray as xr

from workbench.core.cube import make_cube
from workbench.core.errors import WorkbenchError
from workbench.pixels import (
    channel_flat,
    dcnu_histogram,
    find_sensor_defects,
    fixed_pattern,
    hot_pixels,
    measure_dsnu,
    measure_prnu,
    stack_cube,
    vignetting,
)
from workbench.simulate import d7000, expose


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


@pytest.fixture(scope="module")
def striped():
    """A camera with rows and columns of its own, and its bias frames and flats."""
    camera = d7000(
        seed=4, shape=(240, 320), pixel_offset=0.8, column_offset=0.4, row_offset=0.3, prnu=0.008, vignetting=0.3
    )
    bias = [expose(camera, iso=100, exposure=1e-4, seed=n) for n in range(12)]
    flats = [expose(camera, 3e5 * (1 + 0.02 * n), iso=100, exposure=0.05, seed=n) for n in range(6)]
    common = {"cfa_pattern": "RGGB", "iso": 100, "black_level": 600, "white_level": 16383}
    cubes = (make_cube(bias, kind="bias", **common), make_cube(flats, kind="flat", exposure=0.05, **common))
    return camera, *cubes


def plane_of(picture, channel):
    return picture[channel // 2 :: 2, channel % 2 :: 2].astype(float)


def known_gain(camera):
    values = np.full((1, 4), camera.gain(100))
    return xr.Dataset(
        {"gain": (("iso", "channel"), values), "gain_error": (("iso", "channel"), 0 * values)},
        {"iso": [100.0], "channel": ["R", "G1", "G2", "B"]},
    )


@pytest.mark.parametrize("kind", ["none", "highpass"])
def test_dsnu_and_its_parts(striped, kind):
    camera, bias, _ = striped
    found = measure_dsnu(bias, known_gain(camera), progress=False).isel(iso=0).sel(filter=kind)
    assert int(found.frames) == 12
    for number in range(4):
        offsets = plane_of(camera.offset_map, number) * camera.gain(100)
        rows, columns = offsets.mean(axis=1), offsets.mean(axis=0)
        pixel = offsets - rows[:, None] - columns + offsets.mean()
        quiet = pixel.var()
        truth = {
            "total": offsets.std(),
            "row": np.sqrt(rows.var() - quiet / rows.size),
            "column": np.sqrt(columns.var() - quiet / columns.size),
            "pixel": pixel.std(),
        }
        for part, true in truth.items():
            one = found.sel(part=part).isel(channel=number)
            assert abs(one.dsnu - true) < 4 * one.dsnu_error, part
            assert one.dsnu_error < 0.35 * true


def test_prnu_without_vignetting_drift_and_offsets(striped):
    camera, bias, flat = striped
    zero = stack_cube(bias, progress=False)
    found = measure_prnu(flat, zero, progress=False)
    for number in range(4):
        response = plane_of(camera.response_map, number)
        one = found.sel(filter="highpass", part="total").isel(channel=number)
        assert abs(one.prnu - 100 * response.std() / response.mean()) < 4 * one.prnu_error
        assert one.prnu_error < 0.03
    assert (found.prnu.sel(filter="none", part="total") > 5).all()  # with vignetting
    rows = found.sel(filter="highpass", part=["row", "column"])
    assert (rows.prnu < 4 * rows.prnu_error + 0.05).all()
    assert found.dust.max() == 0


def test_dust_is_not_the_pixels(striped):
    _, bias, flat = striped
    clean = measure_prnu(flat, stack_cube(bias, progress=False), progress=False)
    y, x = np.mgrid[:240, :320]
    mote = np.hypot(y - 100, x - 150)
    shadow = 1 - 0.08 * ((mote < 24) & (mote > 8))
    dusty = flat.copy(data=((flat.values - 600.0) * shadow + 600).round().astype("uint16"))
    found = measure_prnu(dusty, stack_cube(bias, progress=False), progress=False)
    assert 0.01 < float(found.dust.mean()) < 0.3
    best = {"filter": "highpass", "part": "total"}
    np.testing.assert_allclose(found.prnu.sel(best), clean.prnu.sel(best), rtol=0.03)


def test_the_flat_of_each_channel_does_not_tint(striped):
    camera, _, flat = striped
    response = channel_flat(stack_cube(flat, black=600, progress=False))
    for number in range(4):
        np.testing.assert_allclose(plane_of(response.signal.values, number).mean(), 1, rtol=1e-4)
    true = camera.illumination() * camera.response_map
    pull = (response.signal - true / true.mean()) / np.sqrt(response.variance)
    assert 0.8 < float(pull.std()) < 1.4


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
    current = a_map(np.random.default_rng(2).normal(0.05, 0.004, (240, 320))).assign_attrs(cfa_pattern="RGGB")
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


def test_stripes_stand_out_in_the_spectrogram(striped):
    _, bias, _ = striped
    stripes = bias.values + np.tile([0, 0, 0, 4], 80).astype("uint16")  # every second column of two channels
    found = fixed_pattern(stack_cube(bias.copy(data=stripes), progress=False), "G1")
    assert float(found.along_rows.idxmax("frequency")) == 0.5
    assert found.along_rows.max() > 5 * found.along_columns.max()
    calm = fixed_pattern(stack_cube(bias, progress=False), "G1")
    assert calm.along_columns.sel(frequency=slice(0.1, 0.5)).std() < 0.3 * calm.along_columns.mean()
    with pytest.raises(WorkbenchError, match="channel 'X'"):
        fixed_pattern(stack_cube(bias, progress=False), "X")


def test_what_cannot_be_measured_says_why(striped):
    _, bias, flat = striped
    one = measure_dsnu(bias[:1], progress=False)
    assert np.isnan(one.dsnu).all()
    assert "one bias frame at ISO 100" in one.attrs["warnings"][0]
    with pytest.raises(WorkbenchError, match="two or more equal flats"):
        measure_prnu(flat[:1], progress=False)
    small = measure_dsnu(bias[:, :40, :44], progress=False)
    assert "too small for the standard's high-pass" in small.attrs["warnings"][0]
    assert np.isfinite(small.dsnu_adu.sel(filter="none")).all()
    unlit = make_cube(np.full((2, 64, 64), 590, "uint16"), cfa_pattern="RGGB", kind="flat", black_level=600)
    with pytest.raises(WorkbenchError, match="no light"):
        measure_prnu(unlit, progress=False)
