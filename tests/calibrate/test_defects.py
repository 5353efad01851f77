"""Defects: what the virtual camera planted is found, and little else."""

import numpy as np
import pytest

from workbench.calibrate import SensorNoise, defects_in_lights, find_defects, master_bias, master_dark, master_flat
from workbench.core.cube import make_cube
from workbench.core.defects import DEAD, HOT, UNSTABLE, WARM
from workbench.core.errors import WorkbenchError
from workbench.simulate import d7000, expose, make_night, make_sky, render


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


def test_dust_is_not_a_defect(rig, masters):
    assert rig.through.min() < 0.8
    flat_only = find_defects(flat=masters[1])
    assert flat_only.attrs["counts"] == {"dead": 2}


def test_masters_must_be_of_one_size(masters):
    with pytest.raises(WorkbenchError, match="given: nothing"):
        find_defects()
    with pytest.raises(WorkbenchError, match="of one size"):
        find_defects(masters[0], masters[1].isel(y=slice(0, 100)))


@pytest.mark.parametrize("fwhm", [1.5, 2.5, 5.0])
@pytest.mark.parametrize("dithered", [True, False])
def test_lights_show_their_hot_pixels_and_stars_are_none(fwhm, dithered):
    camera = d7000(seed=8, shape=(240, 320), hot_fraction=0.002, hot_median=2.0)
    sky = make_sky(camera.shape, stars=150, seed=4)
    views = make_night(sky, 4, exposure=120.0, fwhm=fwhm, dither=8.0 if dithered else 0.0, rotation=0.0, seed=5)
    frames = [
        expose(camera, render(sky, v), iso=200, exposure=120.0, temperature=20.0, seed=n, hits=([7 + n], [9], [5000]))
        for n, v in enumerate(views)
    ]
    lights = make_cube(frames, cfa_pattern="RGGB", kind="light", white_level=16383)
    found = defects_in_lights(lights).values == HOT
    excess = (camera.dark_map - np.median(camera.dark_map)) * 120 * camera.dark_factor(20.0)
    noise = np.sqrt(np.median(render(sky, views[0])) * 120 + np.median(camera.dark_map) * 120 + 9)
    glaring = excess > 8 * noise
    assert glaring.sum() > 20
    lit = np.zeros_like(found)  # a hot pixel inside a star is not seen
    for view in views:
        lit |= render(sky, view, "G") > 1.5 * np.median(render(sky, view, "G"))
    assert found[glaring & ~lit].mean() > 0.97
    assert not found[excess < 1.5 * noise].any()


def test_one_light_cannot_tell_hot_pixels_from_cosmic_rays(rig):
    with pytest.raises(WorkbenchError, match="look alike in one light"):
        defects_in_lights(rig.light.isel(frame=[0]))
