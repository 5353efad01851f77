"""The masters of a run: noise from the frames at hand, scaled darks, kept masters."""

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from astropy.nddata import CCDData, VarianceUncertainty

from workbench.calibrate import SensorNoise, calibrate, make_masters, masterset, open_master, save_master
from workbench.calibrate.usable import saturation_level
from workbench.core.errors import FrameReadError, WorkbenchError


@pytest.fixture(scope="module")
def noise(rig):
    return SensorNoise(rig.gain, rig.read, iso=rig.iso)


def test_the_frames_at_hand_tell_gain_and_read_noise(rig):
    made = make_masters(rig.light, bias=rig.bias, dark=rig.dark, flat=rig.flat, progress=False)
    noise = made.masters[0].noise
    assert noise.gain == pytest.approx((rig.gain,) * 4, rel=0.03)
    assert noise.read_noise == pytest.approx((rig.read,) * 4, rel=0.04)
    assert noise.known
    assert any("estimated from the frames at hand: 16 flats and bias" in word for word in made.warnings)
    got = calibrate(rig.light, made).compute()
    clean = got["mask"].values[0] == 0
    chi, error = rig.chi_square(got["signal"].values[0], rig.true_light[0], got["variance"].values[0], clean)
    assert chi == pytest.approx(1, abs=4 * error + 0.02)


def test_without_flats_the_warm_pixels_tell_the_gain(rig):
    made = make_masters(rig.light, bias=rig.bias, dark=rig.dark, progress=False)
    assert made.masters[0].noise.gain == pytest.approx((rig.gain,) * 4, rel=0.15)
    assert any("warm pixels" in word for word in made.warnings)
    assert any(word.startswith("no flats") for word in made.warnings)


def test_a_single_flat_never_tells_the_gain(rig):
    made = make_masters(rig.light, bias=rig.bias, flat=rig.flat.isel(frame=[0]), progress=False)
    assert not made.masters[0].noise.known
    assert any("cosmic rays stay in it" in word for word in made.warnings)


def test_saturation_is_found_where_values_pile_up(rig):
    frames = np.minimum(rig.light.values, 15800)  # some cameras saturate below the level that they state
    frames[0, 10:16, 20:28] = 15800
    lower = rig.light.copy(data=frames)
    assert saturation_level(lower) == 15800
    assert saturation_level(rig.light) == 16383
    assert saturation_level(lower.assign_attrs(white_level=np.nan)) == 15800
    assert saturation_level(rig.dark.assign_attrs(white_level=np.nan)) == np.inf
    made = make_masters(lower, progress=False)
    flagged = (calibrate(lower, made)["mask"].values[0] & 2) > 0
    assert flagged[10:16, 20:28].all()


def test_lights_alone_are_calibrated_by_their_black_level_and_said_to_be_relative(rig):
    made = make_masters(rig.light, progress=False)
    masters = made.masters[0]
    assert masters.noise.gain == (1.0,) * 4
    assert not masters.noise.known
    assert any("ADU are taken for electrons" in word for word in made.warnings)
    got = calibrate(rig.light, made).compute()
    kept = (got["mask"].values & 1) == 0
    assert 1e-4 < 1 - kept.mean() < 5e-3  # the hot pixels that the lights themselves show are filled
    assert np.array_equal(got["signal"].values[kept], (rig.light.values.astype(np.float32) - np.float32(600))[kept])


def test_darks_of_another_exposure_and_temperature_are_scaled_to_the_lights(rig, noise):
    camera = rig.camera
    dark = rig.cube("dark", 16, 100.0, celsius=14.0, series=31)
    law = SensorNoise(rig.gain, rig.read, iso=rig.iso, doubling_temperature=camera.doubling_temperature)
    made = make_masters(rig.light, bias=rig.bias, dark=dark, flat=rig.flat, noise=law, progress=False)
    expected = 3.0 * 2 ** (-4 / camera.doubling_temperature)
    assert made.masters[0].group.factors == pytest.approx((expected,) * 3)
    got = calibrate(rig.light, made).compute()
    for number, truth in enumerate(rig.true_light):
        clean = got["mask"].values[number] == 0
        chi, error = rig.chi_square(got["signal"].values[number], truth, got["variance"].values[number], clean)
        assert chi == pytest.approx(1, abs=4 * error)
    hot = np.argsort(camera.dark_map.ravel())[-40:]
    residual = (got["signal"].values - np.array(rig.true_light)).mean(axis=0).ravel()[hot]
    assert abs(residual.mean()) < 0.05 * rig.dark_electrons.ravel()[hot].mean()


def test_dark_only_without_bias_works_and_bias_is_never_subtracted_twice(rig, noise):
    with_bias, without = (
        make_masters(rig.light, bias=bias, dark=rig.dark, flat=None, noise=noise, progress=False)
        for bias in (rig.bias, None)
    )
    first, second = (calibrate(rig.light, made).compute()["signal"].values for made in (with_bias, without))
    assert (first != second).mean() < 2e-4  # pixels on the edge of a defect's threshold
    assert np.median(np.abs(first - second)) < 0.01
    truth = rig.true_light[0] * rig.true_flat
    assert np.median(first[0] - truth) == pytest.approx(0, abs=1.0)


def test_a_measured_sensor_brings_its_noise_and_its_law(rig):
    channels = ["R", "G1", "G2", "B"]
    sensor = xr.Dataset(
        {
            "gain": (("iso", "channel"), np.full((1, 4), rig.gain)),
            "read_noise": (("iso", "channel"), np.full((1, 4), rig.read)),
            "doubling_temperature": 6.0,
        },
        coords={"iso": [float(rig.iso)], "channel": channels},
    )
    made = make_masters(rig.light, bias=rig.bias, dark=rig.dark, flat=rig.flat, sensor=sensor, progress=False)
    assert made.masters[0].noise.gain == (rig.gain,) * 4
    assert made.masters[0].noise.doubling_temperature == 6.0
    assert made.warnings == ()
    with pytest.raises(WorkbenchError, match="measured at ISO 800, the frames have ISO 200"):
        make_masters(rig.light, sensor=sensor.assign_coords(iso=[800.0]), progress=False)
    sensor["gain"][:] = np.nan
    with pytest.raises(WorkbenchError, match="no gain at ISO 200"):
        make_masters(rig.light, sensor=sensor, progress=False)


def test_kept_masters_are_used_again_until_a_frame_changes(rig, noise, tmp_path, monkeypatch):
    frames = {"bias": rig.bias, "dark": rig.dark, "flat": rig.flat, "noise": noise, "folder": tmp_path}
    first = make_masters(rig.light, **frames, progress=False)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert sorted(path.name.split("-")[1] for path in files) == ["bias", "dark", "flat"]
    again = make_masters(rig.light, **frames, progress=False)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files
    for kind in ("bias", "dark", "flat"):
        old, new = getattr(first.masters[0], kind), getattr(again.masters[0], kind)
        assert old.identical(new), kind
    changed = rig.dark.values.copy()
    changed[0, 0, 0] += 1
    make_masters(rig.light, **frames | {"dark": rig.dark.copy(data=changed)}, progress=False)
    assert len(list(tmp_path.iterdir())) == 4
    make_masters(rig.light, **frames | {"noise": SensorNoise(rig.gain * 1.1, rig.read)}, progress=False)
    assert len(list(tmp_path.iterdir())) == 7
    monkeypatch.setattr(masterset, "VERSION", masterset.VERSION + 1)
    make_masters(rig.light, **frames, progress=False)
    assert len(list(tmp_path.iterdir())) == 10


def test_a_damaged_master_is_made_anew(rig, noise, tmp_path):
    frames = {"bias": rig.bias, "noise": noise, "folder": tmp_path}
    make_masters(rig.light, **frames, progress=False)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    made = make_masters(rig.light, **frames, progress=False)
    assert path.read_bytes() == whole
    assert np.isfinite(made.masters[0].bias["signal"].values).all()


def test_masters_go_through_fits_without_loss_and_other_programs_read_them(rig, noise, tmp_path):
    master = make_masters(rig.light, dark=rig.dark, noise=noise, progress=False).masters[0].dark
    path = save_master(master, tmp_path / "deep" / "dark.fits")
    assert open_master(path).identical(master)
    with fits.open(path) as hdus:
        hdus.verify("exception")
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "MASK", "VARIANCE", "COUNT"]
        header = hdus[0].header
        assert (header["ISOSPEED"], header["EXPTIME"], header["NCOMBINE"]) == (200.0, 300.0, 16)
        assert "simulated" in header["INSTRUME"]
        assert hdus[0].data.dtype.itemsize == 4
    assert [entry.name for entry in path.parent.iterdir()] == ["dark.fits"]


def test_siril_and_astropy_open_masters(rig, noise, tmp_path, siril_levels):
    made = make_masters(rig.light, bias=rig.bias, dark=rig.dark, flat=rig.flat, noise=noise, progress=False).masters[0]
    flat = made.flat.copy(deep=True)
    flat["signal"][:4] = np.nan
    for master, unit, scale in ((made.bias, "adu", 1), (made.dark, "adu", 1), (flat, "", 65535)):
        path = save_master(master, tmp_path / "master.fits")
        assert open_master(path).identical(master)
        signal = master.signal.values
        np.testing.assert_allclose(siril_levels(path)[0, :2] / scale, [np.nanmean(signal), np.nanmedian(signal)], 1e-3)
        seen = CCDData.read(path, hdu_uncertainty="VARIANCE")
        assert str(seen.unit) == unit
        assert isinstance(seen.uncertainty, VarianceUncertainty)
        assert str(seen.uncertainty.unit) == unit + "2" * bool(unit)
        assert seen.mask.sum() == (np.isnan(signal) | master.unstable.values).sum()


def test_masters_of_earlier_versions_are_opened(rig, noise, tmp_path):
    master = make_masters(rig.light, dark=rig.dark, noise=noise, progress=False).masters[0].dark
    with fits.open(save_master(master, tmp_path / "dark.fits")) as hdus:
        unstable = fits.ImageHDU((hdus["MASK"].data & 2) // 2, name="UNSTABLE")
        fits.HDUList([hdus[0], hdus["VARIANCE"], hdus["COUNT"], unstable]).writeto(tmp_path / "before.fits")
    assert open_master(tmp_path / "before.fits").identical(master)


def test_files_that_are_no_masters_and_folders_that_cannot_be_written(rig, tmp_path):
    with pytest.raises(FrameReadError, match="is not there"):
        open_master(tmp_path / "none.fits")
    text = tmp_path / "text.fits"
    text.write_text("not FITS")
    with pytest.raises(FrameReadError, match="not a master"):
        open_master(text)
    master = make_masters(rig.light, bias=rig.bias, progress=False).masters[0].bias
    with pytest.raises(WorkbenchError, match="cannot be written"):
        save_master(master, text / "below-a-file.fits")
