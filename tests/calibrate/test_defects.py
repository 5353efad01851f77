"""Defects: what the virtual camera planted is found, and little else."""

import numpy as np
import pytest

from workbench.calibrate import SensorNoise, find_defects, master_bias, master_dark, master_flat
from workbench.calibrate.defects import DEAD, HOT, UNSTABLE, WARM
from workbench.errors import WorkbenchError


@pytest.fixture(scope="module")
def masters(rig):
    noise = SensorNoise(rig.gain, rig.read, iso=rig.iso)
    bias = master_bias(rig.bias, noise, progress=False)
    frames = rig.flat.values.copy()
    level = frames.astype(float) - 600
    frames[:, 100, 101] = 600 + 0.3 * level[:, 100, 101]  # a pixel that sees a third of the light
    frames[:, 101, 120] = 600 + 1.6 * level[:, 101, 120]
    jumps = rig.dark.values.copy()
    jumps[::2, 50, 60] += 60
    dark = master_dark(rig.dark.copy(data=jumps), bias, noise, progress=False)
    return dark, master_flat(rig.flat.copy(data=frames), bias=bias, noise=noise, progress=False)


def test_hot_are_those_whose_dark_noise_doubles_the_noise(rig, masters):
    found = find_defects(*masters)
    ordinary = np.median(rig.dark_electrons) + rig.read**2
    excess = rig.dark_electrons - np.median(rig.dark_electrons)
    surely, never = excess > 1.15 * 3 * ordinary, excess < 0.85 * 3 * ordinary
    hot = (found.values & HOT) > 0
    assert surely.sum() > 50
    assert hot[surely].all()
    assert not hot[never].any()
    assert found.attrs["counts"]["hot"] == hot.sum()


def test_warm_are_those_that_stand_out_of_their_plane(rig, masters):
    found = find_defects(*masters)
    warm = (found.values & WARM) > 0
    assert warm[rig.dark_electrons > 2.5 * np.median(rig.dark_electrons)].all()
    assert warm[rig.camera.dark_map < 1.5 * np.median(rig.camera.dark_map)].mean() < 2e-5
    stricter = find_defects(*masters, warm_sigmas=30.0, hot_noise=4.0)
    assert 0 < stricter.attrs["counts"]["warm"] < found.attrs["counts"]["warm"]
    assert stricter.attrs["thresholds"]["hot_noise"] == 4.0


def test_dead_bright_and_jumping_pixels_are_found_alone(masters):
    found = find_defects(*masters).values
    assert set(zip(*(axis.tolist() for axis in np.nonzero(found & DEAD)), strict=True)) == {(100, 101), (101, 120)}
    assert set(zip(*(axis.tolist() for axis in np.nonzero(found & UNSTABLE)), strict=True)) == {(50, 60)}


def test_dust_is_no_defect(rig, masters):
    assert rig.through.min() < 0.8
    flat_only = find_defects(flat=masters[1])
    assert flat_only.attrs["counts"] == {"hot": 0, "warm": 0, "dead": 2, "unstable": 0}


def test_it_wants_masters_of_one_size(masters):
    with pytest.raises(WorkbenchError, match="give a master dark or a master flat"):
        find_defects()
    with pytest.raises(WorkbenchError, match="differ in size"):
        find_defects(masters[0], masters[1].isel(y=slice(0, 100)))
