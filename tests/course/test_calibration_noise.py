"""Calibration step by step, and how many frames a master needs: against known truth."""

import course
import numpy as np
import pytest
import xarray as xr

from workbench import calibrate
from workbench.core.cube import make_cube
from workbench.core.errors import WorkbenchError

# -- steps


def test_the_last_step_is_what_calibrate_gives(night):
    steps = course.calibration_steps(night.frames.light, night.masters, 2)
    np.testing.assert_array_equal(steps["signal"].values[-1], night.lights["signal"].values[2])
    np.testing.assert_array_equal(steps["temporal"].values[-1], night.lights["variance"].values[2])
    assert steps["step"].values.tolist() == [
        "as read", "bias subtracted", "dark subtracted", "flat divided", "defects filled",
    ]  # fmt: skip


def test_noise_is_as_predicted_after_every_step(night):
    steps = course.calibration_steps(night.frames.light, night.masters, 0)
    noise = course.step_noise(steps)
    assert np.abs(noise["noise"] / noise["predicted"] - 1).max() < 0.015
    assert (noise["temporal"] <= noise["predicted"] + 1e-9).all()


@pytest.mark.parametrize("darks", [1, 8])
def test_a_warm_light_is_predicted_too(darks):
    _, noise = course.warm_light(20.0, darks)
    after = noise.sel(step=["dark subtracted", "flat divided", "defects filled"])
    assert np.abs(after["noise"] / after["predicted"] - 1).max() < 0.03
    before = noise["noise"].sel(step="bias subtracted").mean()
    assert noise["noise"].sel(step="dark subtracted").mean() < before * (0.85 if darks == 8 else 1.2)


def test_steps_without_masters_are_left_out():
    light = course.simulated_frames("light", 2, exposure=60, light=5.0)
    bias = course.simulated_frames("bias", 4, exposure=1 / 8000)
    masters = calibrate.make_masters(light, bias=bias, progress=False)
    steps = course.calibration_steps(light, masters)
    assert steps["step"].values.tolist() == ["as read", "bias subtracted", "defects filled"]
    none = calibrate.make_masters(light, progress=False)
    assert course.calibration_steps(light, none)["step"].values.tolist() == ["as read", "defects filled"]


def test_steps_refuse_what_is_not_theirs(night):
    with pytest.raises(WorkbenchError, match="lights 0 to 7"):
        course.calibration_steps(night.frames.light, night.masters, 8)
    other = course.simulated_frames("light", 1, exposure=60)
    with pytest.raises(WorkbenchError, match="not made for it"):
        course.calibration_steps(other, night.masters)


# -- enough


def test_noise_of_masters_follows_the_law_and_what_they_claim():
    rng = np.random.default_rng(3)
    pattern = rng.normal(0, 5, (96, 128))
    frames = (600 + pattern + rng.normal(0, 6, (16, 96, 128))).round().astype("uint16")
    cube = make_cube(frames, cfa_pattern="RGGB", kind="bias", iso=100)
    found = course.measure_master_noise(cube, progress=False)
    assert found["count"].values.tolist() == [1, 2, 4, 8]
    true = np.sqrt((36 + 1 / 12) / found["count"].values)
    pull = (found["noise"] - true) / found["noise_error"]
    assert np.abs(pull).max() < 4
    assert np.abs(found["claimed"].sel(count=[4, 8]) / found["noise"].sel(count=[4, 8]) - 1).max() < 0.04


def test_darks_and_flats_are_measured_alike(night):
    own = night.masters.masters[0]
    darks = night.frames.dark.isel(frame=list(own.group.dark))
    found = course.measure_master_noise(darks, own.bias, own.noise, progress=False)
    assert (found["noise"] / found["law"]).values == pytest.approx(np.ones((4, 3)), abs=0.02)
    flats = course.simulated_frames("flat", 4, exposure=0.05, light=3e4, shape=(96, 128))
    offset = calibrate.master_bias(
        course.simulated_frames("bias", 4, exposure=1 / 8000, shape=(96, 128)), progress=False
    )
    flat = course.measure_master_noise(flats, offset, progress=False)
    assert flat["noise"].attrs["units"] == "1"
    assert (flat["noise"].sel(count=1) / flat["noise"].sel(count=2)).values == pytest.approx([2**0.5] * 4, rel=0.08)


def test_counts_that_leave_no_two_masters_are_refused():
    cube = make_cube(np.full((4, 8, 8), 600, "uint16"), cfa_pattern="RGGB", kind="bias", iso=100)
    with pytest.raises(WorkbenchError, match="of 4 N is at most 2"):
        course.measure_master_noise(cube, counts=(3,), progress=False)
    with pytest.raises(WorkbenchError, match="two frames or more"):
        course.measure_master_noise(cube.isel(frame=[0]), progress=False)


@pytest.mark.parametrize(("lights", "dithered"), [(1, True), (20, True), (20, False)])
def test_frames_needed_are_just_enough(lights, dithered):
    setting = {"lights": lights, "dithered": dithered}
    need = course.frames_needed(12.0, 15.0, added=0.05, **setting)
    assert course.added_noise(12.0, 15.0, need, **setting) <= 0.05
    assert need == 1 or course.added_noise(12.0, 15.0, need - 1, **setting) > 0.05


def test_added_noise_is_what_a_simulated_stack_shows():
    rng = np.random.default_rng(1)
    light, one, darks, lights = 10.0, 12.0, 5, 8
    master = rng.normal(0, one / np.sqrt(darks), 200_000)
    sky = rng.normal(0, light, (lights, master.size))
    together = (sky - master).mean(axis=0).std() / (light / np.sqrt(lights)) - 1
    apart = (sky - rng.normal(0, one / np.sqrt(darks), sky.shape)).mean(axis=0).std() / (light / np.sqrt(lights)) - 1
    assert together == pytest.approx(course.added_noise(one, light, darks, lights=lights, dithered=False), rel=0.02)
    assert apart == pytest.approx(course.added_noise(one, light, darks, lights=lights), abs=0.01)
    with pytest.raises(WorkbenchError, match="positive"):
        course.frames_needed(0.0, 15.0)


def test_the_results_are_datasets_with_units():
    cube = make_cube(
        np.random.default_rng(0).normal(600, 3, (4, 64, 64)).astype("uint16"), cfa_pattern="mono", kind="bias"
    )
    found = course.measure_master_noise(cube, progress=False)
    assert isinstance(found, xr.Dataset)
    assert found["noise"].attrs["units"] == "adu"
