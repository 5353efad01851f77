"""Full well, the split of the read noise and the dynamic range against the truth of virtual cameras."""

import dataclasses

import numpy as np
import pytest
import xarray as xr

from workbench.core.cube import make_cube
from workbench.sensor import dynamic_range, fit_gain, full_well, photon_transfer, read_noise, split_read_noise
from workbench.simulate import d7000, expose

CAMERA = d7000(seed=5, shape=(96, 128))


def shoot(camera, levels, *, iso=100.0, white=16383):
    frames, exposure = [], []
    for number, level in enumerate(levels):
        for frame in range(2):
            seed = 10 * number + frame
            frames.append(_flat(camera, level, iso, number, seed))
            exposure.append(0.001 * (number + 1))
    flats = make_cube(
        frames, cfa_pattern="RGGB", kind="flat", iso=iso, exposure=exposure, black_level=600, white_level=white,
        filename=[f"f{i}" for i in range(len(frames))],
    )  # fmt: skip
    bias = [expose(camera, iso=iso, exposure=1 / 8000, seed=900 + n) for n in range(4)]
    zero = read_noise(make_cube(bias, cfa_pattern="RGGB", kind="bias", iso=iso), progress=False)
    ptc = photon_transfer(flats, zero, progress=False)
    return full_well(ptc, fit_gain(ptc))


def _flat(camera, level, iso, number, seed):
    time = 0.001 * (number + 1)
    full = (camera.white_level - camera.black_level) * camera.gain(iso)
    return expose(camera, level * full / time, iso=iso, exposure=time, seed=seed)


@pytest.mark.parametrize(("well", "limit"), [(40_000.0, "converter"), (25_000.0, "well")])
def test_flats_far_beyond_saturation_measure_it(well, limit):
    camera = dataclasses.replace(CAMERA, full_well=well)
    found = shoot(camera, (0.05, 0.2, 0.4, 0.6, 3.0))
    assert (found.method == "plateau").all()
    assert (found.limit == limit).all()
    assert (abs(found.full_well - camera.saturation(100)) < 3.5 * found.full_well_error).all()
    assert (found.saturation_error < 5).all()
    assert not found.attrs["warnings"]


def test_a_well_that_fills_here_and_there_is_bracketed():
    camera = dataclasses.replace(CAMERA, full_well=25_000.0)
    found = shoot(camera, (0.05, 0.2, 0.4, 0.6, 0.8, 0.95))
    assert (found.method == "peak").all()
    assert (found.limit == "well").all()
    assert (abs(found.full_well - 25_000) < 2 * found.full_well_error).all()


def test_without_saturated_flats_the_white_level_and_how_far_it_is():
    found = shoot(CAMERA, (0.05, 0.2, 0.4, 0.8))
    assert (found.method == "white level").all()
    assert (abs(found.full_well - CAMERA.saturation(100)) < found.full_well_error).all()
    assert (found.saturation_error > 500).all()


def test_faint_flats_tell_nothing_and_what_to_shoot_is_said():
    found = shoot(CAMERA, (0.05, 0.1, 0.2))
    assert np.isnan(found.full_well).all()
    assert (found.method == "").all()
    assert "overexposed" in found.attrs["warnings"][0]


ISOS = np.array([100.0, 200, 400, 800, 1600, 3200])
BEFORE, AFTER, UNITY = 2.44, 0.9, 213.0
DIMS = ("iso", "channel")


def measured(isos=ISOS, *, after=AFTER, rng=None, noise_error=0.01, gain_error=0.01, extra=0.0):
    """Read noise and gain of a camera that follows the law, with errors drawn as stated."""
    shape = (len(isos), 2)
    g = np.broadcast_to((UNITY / np.asarray(isos))[:, None], shape)
    adu = np.hypot(BEFORE / g, after) * (1 + extra * (np.asarray(isos)[:, None] > 500))
    if rng is not None:
        adu = adu * (1 + noise_error * rng.standard_normal(shape))
        g = g * (1 + gain_error * rng.standard_normal(shape))
    coords = {"iso": isos, "channel": ["G1", "G2"]}
    read = xr.Dataset({"read_noise_adu": (DIMS, adu), "read_noise_adu_error": (DIMS, noise_error * adu)}, coords)
    return read, xr.Dataset({"gain": (DIMS, g), "gain_error": (DIMS, gain_error * g)}, coords)


def test_the_split_is_unbiased_and_its_errors_hold():
    rng = np.random.default_rng(1)
    truth = {
        "before_gain": BEFORE,
        "after_gain": AFTER,
        # σ_post g = σ_pre √(1.05² − 1) with g = 213/ISO
        "invariance_iso": UNITY * AFTER / (BEFORE * np.sqrt(1.05**2 - 1)),
    }
    splits = [split_read_noise(*measured(rng=rng)) for _ in range(300)]
    for name, value in truth.items():
        pulls = np.array([(one[name].item() - value) / one[f"{name}_error"].item() for one in splits])
        assert abs(pulls.mean()) < 1 / 3, name
        assert 0.60 < (abs(pulls) < 1).mean() < 0.76, name
    assert sum(bool(one.attrs["warnings"]) for one in splits) < 6


def test_the_invariance_iso_is_where_the_floor_is_near():
    split = split_read_noise(*measured(), within=0.2)
    at = split.invariance_iso.item()
    np.testing.assert_allclose(np.hypot(BEFORE, AFTER * UNITY / at), 1.2 * BEFORE, rtol=1e-6)


def test_what_the_settings_do_not_tell_is_said():
    one = split_read_noise(*measured(ISOS[:1]))
    assert np.isnan(one.before_gain)
    assert "one ISO setting" in one.attrs["warnings"][0]
    silent = split_read_noise(*measured(after=0.0))
    assert np.isnan(silent.after_gain)
    assert np.isnan(silent.invariance_iso)
    assert "nothing is gained" in silent.attrs["warnings"][0]
    far = split_read_noise(*measured(ISOS[3:], after=3.0, noise_error=1e-3, gain_error=1e-3))
    assert (
        "lies outside" in split_read_noise(*measured(ISOS[3:], noise_error=1e-4, gain_error=1e-4)).attrs["warnings"][0]
    )
    assert not far.attrs["warnings"]


def test_a_camera_that_changes_its_law_is_told():
    split = split_read_noise(*measured(extra=0.3))
    assert "does not follow one law" in split.attrs["warnings"][0]


@pytest.mark.parametrize("missing", ["read", "gain"])
def test_settings_of_one_kind_only_do_not_count(missing):
    read, gain = measured()
    few = {"read": (read.isel(iso=slice(2)), gain), "gain": (read, gain.isel(iso=slice(2)))}[missing]
    assert split_read_noise(*few).attrs["settings"] == 2


def test_dynamic_range_is_full_well_over_read_noise():
    read, gain = measured()
    wells = gain.assign(
        saturation=(DIMS, np.full(gain["gain"].shape, 15783.0)), saturation_error=(DIMS, np.full((6, 2), 100.0))
    ).assign_attrs(camera="")
    found = dynamic_range(read, wells)
    np.testing.assert_allclose(found.dynamic_range, np.log2(15783 / read.read_noise_adu))
    share = np.hypot(100 / 15783, 0.01)
    np.testing.assert_allclose(found.dynamic_range_error, share / np.log(2))
