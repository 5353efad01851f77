"""Photon transfer against numpy, drifting light and a real camera's published table; full well against the truth."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from workbench.core.cube import make_cube
from workbench.core.errors import StageError, WorkbenchError
from workbench.sensor import dynamic_range, fit_gain, full_well, photon_transfer, read_noise
from workbench.simulate import d7000, expose

GAIN, READ, BLACK = 2.0, 3.0, 600  # e-/ADU, e-, ADU


def shoot(rng, electrons, shape=(128, 128), gain=GAIN, scene=1.0):
    """One frame [ADU] of a camera of known gain; `scene` is the picture that the light draws."""
    light = rng.poisson(electrons * scene * np.ones(shape)) + rng.normal(0, READ, shape)
    return np.clip(np.rint(light / gain + BLACK), 0, 16383).astype("uint16")


def flats(levels, *, seed=0, shape=(128, 128), scene=1.0, count=2, drift=1.0, **changes):
    rng = np.random.default_rng(seed)
    frames = [shoot(rng, level * drift**number, shape, scene=scene) for level in levels for number in range(count)]
    exposure = np.repeat(np.arange(1.0, len(levels) + 1), count)
    names = [f"flat-{level:g}-{number}.fits" for level in levels for number in range(count)]
    given = {"iso": 100, "exposure": exposure, "filename": names, "white_level": 16383} | changes
    return make_cube(frames, cfa_pattern="RGGB", kind="flat", **given)


def biases(count=4, *, seed=1, shape=(128, 128), iso=100):
    rng = np.random.default_rng(seed)
    frames = [shoot(rng, 0, shape) for _ in range(count)]
    return make_cube(frames, cfa_pattern="RGGB", kind="bias", iso=iso, white_level=16383)


def test_every_number_is_numpys():
    cube, zero = flats([2000, 6000]), biases()
    ptc = photon_transfer(cube, zero, progress=False)
    black = zero.values[:, ::2, ::2].mean()
    a, b = (cube.values[i, ::2, ::2].astype(float) for i in (2, 3))
    one = ptc.isel(pair=1).sel(channel="R")
    np.testing.assert_allclose(one["mean"], (a.mean() + b.mean()) / 2)
    np.testing.assert_allclose(one.signal, one["mean"] - black)
    np.testing.assert_allclose(one.variance_plain, np.var(a - b, ddof=1) / 2)
    m1, m2 = a.mean() - black, b.mean() - black
    scaled = (m2 * a - m1 * b) / ((m1 + m2) / 2)
    np.testing.assert_allclose(one.variance, np.var(scaled, ddof=1) / 2)
    np.testing.assert_allclose(one.level_change, (m2 - m1) / ((m1 + m2) / 2))
    np.testing.assert_allclose(one.dark_variance, read_noise(zero, progress=False).variance[0, 0])


def test_five_percent_of_lamp_drift_under_vignetting_does_not_move_the_gain():
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    scene = (1 - 0.35 * (x**2 + y**2)) * (1 + 0.02 * np.random.default_rng(9).normal(size=x.shape))
    cube = flats([2000, 5000, 10000, 16000], shape=(256, 256), scene=scene, drift=0.95)
    ptc = photon_transfer(cube, biases(8, shape=(256, 256)), progress=False)
    gain = fit_gain(ptc)
    pull = ((gain.gain - GAIN) / gain.gain_error).values
    assert np.abs(pull).max() < 3.5
    assert float(gain.gain_error.max()) < 0.03
    plain = fit_gain(ptc, method="plain")
    assert float(plain.gain.max()) < 0.97 * GAIN  # what removing the mean difference alone makes of it


def test_single_frames_hold_the_prnu_and_pairs_do_not():
    scene = 1 + 0.02 * np.random.default_rng(9).normal(size=(256, 256))
    gain = fit_gain(photon_transfer(flats([16000, 20000], scene=scene, shape=(256, 256)), biases(), progress=False))
    assert float(abs(gain.gain - GAIN).max()) < 4 * float(gain.gain_error.max())
    # μ/σ² with PRNU: 1/(1/g + PRNU² μ) of about 9000 ADU
    np.testing.assert_allclose(gain.blog_gain, 1 / (1 / GAIN + 0.02**2 * 9000), rtol=0.1)


def test_without_bias_the_line_has_a_free_intercept():
    cube = flats([500, 1500, 4000, 9000, 16000], shape=(256, 256), black_level=BLACK)
    gain = fit_gain(photon_transfer(cube, progress=False))
    assert float((abs(gain.gain - GAIN) / gain.gain_error).max()) < 3.5
    truth = (READ / GAIN) ** 2 + 1 / 12
    assert float((abs(gain.intercept - truth) / gain.intercept_error).max()) < 3.5


def test_the_stated_read_noise_can_be_given_later():
    cube, zero = flats([3000]), read_noise(biases(), progress=False)
    ptc = photon_transfer(cube.assign_attrs(black_level=(BLACK,) * 4), progress=False)
    assert np.isnan(fit_gain(ptc).gain).all()
    assert "one light level" in fit_gain(ptc).attrs["warnings"][0]
    with_read = fit_gain(ptc, zero)
    assert float((abs(with_read.gain - GAIN) / with_read.gain_error).max()) < 3.5


def test_flats_of_two_levels_under_one_setting_are_paired_by_level():
    cube = flats([2000, 9000]).assign_coords(exposure=("frame", [1.0] * 4))
    mixed = cube.isel(frame=[0, 2, 1, 3])
    ptc = photon_transfer(mixed, biases(), progress=False)
    pairs = {frozenset(p) for p in zip(ptc.filename_1.values, ptc.filename_2.values, strict=True)}
    assert pairs == {
        frozenset(("flat-2000-0.fits", "flat-2000-1.fits")),
        frozenset(("flat-9000-0.fits", "flat-9000-1.fits")),
    }
    assert len(np.unique(ptc.level)) == 2
    assert "not of one light level" in ptc.attrs["warnings"][0]
    assert float((abs(fit_gain(ptc).gain - GAIN) / fit_gain(ptc).gain_error).max()) < 3.5


def test_a_lamp_that_varied_in_every_setting_is_one_warning_with_a_count():
    cube = flats([2000, 9000]).assign_coords(exposure=("frame", [1.0] * 4))
    settings = [cube.assign_coords(iso=("frame", np.full(4, iso))) for iso in (100.0, 200.0, 400.0)]
    names = [f"{number}.fits" for number in range(12)]
    several = (
        xr.concat(settings, "frame").assign_coords(filename=("frame", names)).assign_attrs(black_level=(BLACK,) * 4)
    )
    (text,) = (text for text in photon_transfer(several, progress=False).attrs["warnings"] if "one light level" in text)
    assert text.startswith("the flats at ISO 100")
    assert text.endswith("as 2 levels; and 2 more settings like it")


def test_a_lone_flat_is_left_out_and_named():
    cube = flats([2000, 9000]).isel(frame=[0, 1, 2])
    ptc = photon_transfer(cube, biases(), progress=False)
    assert ptc.sizes["pair"] == 1
    assert "flat-9000-0.fits" in ptc.attrs["warnings"][0]
    assert "shoot two or more" in ptc.attrs["warnings"][0]


@pytest.mark.parametrize(
    ("levels", "words"),
    [([200_000, 300_000], "saturated"), ([0, 0], "no light"), ([29_000, 30_000], "70 %")],
)
def test_saturated_and_black_flats_give_no_number_and_say_why(levels, words):
    gain = fit_gain(photon_transfer(flats(levels), biases(), progress=False))
    assert np.isnan(gain.gain).all()
    assert np.isnan(gain.gain_error).all()
    assert not gain.used.any()
    assert words in gain.attrs["warnings"][0]


def test_levels_above_the_break_of_the_variance_are_not_used():
    """A camera that clips below its stated white level shows it by the variance alone."""
    cube = flats([2000, 6000, 12000, 16000, 19800, 20400])
    clipped = np.minimum(cube.values, 10600)
    clipped = make_cube(
        clipped, cfa_pattern="RGGB", kind="flat", iso=100, exposure=cube.exposure.values, white_level=np.nan
    )
    gain = fit_gain(photon_transfer(clipped, biases(), progress=False))
    assert float((abs(gain.gain - GAIN) / gain.gain_error).max()) < 3.5
    assert gain.levels_used.max() <= 4


def test_a_line_that_does_not_hold_widens_the_error():
    cube = flats([2000, 4000, 8000, 16000], shape=(256, 256))
    values = cube.values.astype(float)
    values[4:6] = 600 + (values[4:6] - 600) * 1.1  # one level amplified: its variance is 10 % off the line
    bent = make_cube(values, cfa_pattern="RGGB", kind="flat", iso=100, exposure=cube.exposure.values, white_level=16383)
    zero = biases(8, shape=(256, 256))
    straight, crooked = (fit_gain(photon_transfer(one, zero, progress=False)) for one in (cube, bent))
    assert not straight.attrs["warnings"]
    assert any("do not lie on one line" in text for text in crooked.attrs["warnings"])
    assert (crooked.gain_error > 1.5 * straight.gain_error).all()


def test_wrong_frames_are_refused():
    with pytest.raises(WorkbenchError, match="wants flat frames and got bias"):
        photon_transfer(biases(), progress=False)
    with pytest.raises(StageError, match="calibrated"):
        photon_transfer(flats([100]).assign_attrs(stage="calibrated"), progress=False)
    with pytest.raises(WorkbenchError, match="method"):
        fit_gain(photon_transfer(flats([2000]), progress=False), method="magic")


@pytest.fixture(scope="module")
def crops(real_data):
    """84 crops of a real D7000's flats, as its manifest lists them."""
    from astropy.io import fits

    folder = real_data / "d7000-flats"
    table = pd.read_csv(folder / "frames.csv")
    frames = [fits.getdata(folder / name).astype("uint16") for name in table["file"]]
    cube = make_cube(
        frames,
        cfa_pattern="GBRG",
        kind="flat",
        iso=table["iso"],
        exposure=table["exposure_s"],
        aperture=table["aperture"],
        filename=table["file"].to_numpy(object),
        black_level=0,
        white_level=16383,
    )
    return photon_transfer(cube, progress=False), pd.read_csv(folder / "published-pairs.csv")


def test_all_published_pairs_of_a_real_camera_are_reproduced(crops):
    ptc, published = crops
    names = {"Red": "R", "Green R": "G1", "Green B": "G2", "Blue": "B"}
    number = {
        frozenset(pair): i for i, pair in enumerate(zip(ptc.filename_1.values, ptc.filename_2.values, strict=True))
    }
    assert len(published) == 320
    for row in published.itertuples():
        one = ptc.isel(pair=number[frozenset((row.frame_1, row.frame_2))]).sel(channel=names[row.channel])
        np.testing.assert_allclose(one["mean"], row.mean_adu, rtol=1e-6)
        np.testing.assert_allclose(one.variance_plain, row.half_variance_of_difference_adu2, rtol=1e-6)


def test_the_gain_of_a_real_camera(crops):
    ptc, _ = crops
    plain, best = fit_gain(ptc, method="plain"), fit_gain(ptc)
    published = [2.270, 2.577, 2.528, 2.174]  # R, G1, G2, B
    np.testing.assert_allclose(plain.gain[0], published, rtol=1e-3)
    np.testing.assert_allclose(best.gain[0], plain.gain[0], rtol=0.03)
    # the data's own description: 0.9 % by bootstrap
    np.testing.assert_allclose(best.gain_error[0] / best.gain[0], 0.009, rtol=0.5)
    np.testing.assert_allclose(best.gain[0], [2.260, 2.539, 2.493, 2.148], rtol=3e-3)


CAMERA = d7000(seed=5, shape=(96, 128))


def wells_of(camera, levels, iso=100.0):
    """Saturation from pairs of flats at these shares of the scale."""
    full, exposure = (camera.white_level - camera.black_level) * camera.gain(iso), 0.001 * np.arange(1, len(levels) + 1)
    frames = [
        expose(camera, level * full / time, iso=iso, exposure=time, seed=10 * number + frame)
        for number, (level, time) in enumerate(zip(levels, exposure, strict=True))
        for frame in range(2)
    ]
    given = {"cfa_pattern": "RGGB", "iso": iso, "white_level": 16383}
    cube = make_cube(frames, kind="flat", exposure=np.repeat(exposure, 2), black_level=600, **given)
    bias = [expose(camera, iso=iso, exposure=1 / 8000, seed=900 + n) for n in range(4)]
    ptc = photon_transfer(cube, make_cube(bias, kind="bias", **given), progress=False)
    return full_well(ptc, fit_gain(ptc))


@pytest.mark.parametrize(("well", "limit"), [(40_000.0, "converter"), (25_000.0, "well")])
def test_flats_far_beyond_saturation_measure_it(well, limit):
    camera = dataclasses.replace(CAMERA, full_well=well)
    found = wells_of(camera, (0.05, 0.2, 0.4, 0.6, 3.0))
    assert (found.method == "plateau").all()
    assert (found.limit == limit).all()
    assert (abs(found.full_well - camera.saturation(100)) < 3.5 * found.full_well_error).all()
    assert (found.saturation_error < 5).all()
    assert not found.attrs["warnings"]


def test_a_well_that_fills_here_and_there_is_bracketed():
    camera = dataclasses.replace(CAMERA, full_well=25_000.0)
    found = wells_of(camera, (0.05, 0.2, 0.4, 0.6, 0.8, 0.95))
    assert (found.method == "peak").all()
    assert (found.limit == "well").all()
    assert (abs(found.full_well - 25_000) < 2 * found.full_well_error).all()


def test_without_saturated_flats_a_lower_bound():
    found = wells_of(CAMERA, (0.05, 0.2, 0.4, 0.8))
    assert (found.method == "bound").all()
    assert (found.full_well < CAMERA.saturation(100)).all()
    assert (found.full_well > 0.5 * CAMERA.saturation(100)).all()
    assert np.isinf(found.full_well_error).all()
    assert np.isinf(found.saturation_error).all()


def test_faint_flats_tell_nothing_and_what_to_shoot_is_said():
    found = wells_of(CAMERA, (0.05, 0.1, 0.2))
    assert np.isnan(found.full_well).all()
    assert (found.method == "").all()
    assert "overexposed" in found.attrs["warnings"][0]


def test_dynamic_range_is_full_well_over_read_noise():
    dims, coords = ("iso", "channel"), {"iso": [100.0, 200.0], "channel": ["G1", "G2"]}
    noise, top = np.array([[1.5, 1.6], [2.0, 2.1]]), np.full((2, 2), 15783.0)
    read = xr.Dataset({"read_noise_adu": (dims, noise), "read_noise_adu_error": (dims, 0.01 * noise)}, coords)
    wells = xr.Dataset({"saturation": (dims, top), "saturation_error": (dims, 0 * top + 100)}, coords, {"camera": ""})
    found = dynamic_range(read, wells)
    np.testing.assert_allclose(found.dynamic_range, np.log2(15783 / noise))
    np.testing.assert_allclose(found.dynamic_range_error, np.hypot(100 / 15783, 0.01) / np.log(2))
