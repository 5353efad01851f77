"""Saturation and full well, whichever comes first: the converter or the pixel."""

import dataclasses

import numpy as np
import pytest

from workbench.core.cube import make_cube
from workbench.sensor import fit_gain, full_well, photon_transfer, read_noise
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
