"""Noise from the frames at hand."""

import numpy as np
import pytest

from workbench.calibrate import SensorNoise, make_masters
from workbench.calibrate.bands import Frames
from workbench.calibrate.noise import hot_slope
from workbench.core.cube import make_cube
from workbench.core.errors import WorkbenchError
from workbench.simulate import d7000, expose
from workbench.simulate.capture import cooled


def test_the_gain_from_warm_pixels_is_unbiased_and_its_error_its_scatter():
    pulls = []
    for seed in range(8):
        camera = d7000(seed=seed, shape=(400, 480), hot_fraction=0.004)
        frames = [
            make_cube(
                [expose(camera, 0, iso=200, exposure=t, seed=(seed, t, n)) for n in range(6)],
                cfa_pattern="RGGB", iso=200, exposure=t, kind=kind, white_level=16383,
            )
            for kind, t in (("bias", 0), ("dark", 60))
        ]  # fmt: skip
        bias = frames[0].values.mean(axis=0)
        slope, error = hot_slope(Frames(frames[1], progress=False), bias).T
        pulls.append((slope - 1 / camera.gain(200)) / error)
    pulls = np.concatenate(pulls)
    assert abs(np.nanmean(pulls)) < 3 / np.sqrt(pulls.size)
    assert 0.7 < np.nanstd(pulls) < 1.3


def test_a_noise_has_one_value_or_one_a_channel():
    assert SensorNoise(2.0, 4.0).model(4).shape == (4, 2)
    with pytest.raises(WorkbenchError, match="one or four positive numbers"):
        SensorNoise((2.0, 2.0), 4.0)
    with pytest.raises(WorkbenchError, match="that of 4 channels, the frames have 1"):
        SensorNoise((2.0,) * 4, 4.0).model(1)


@pytest.fixture(scope="module")
def kinds():
    """Frames of a camera whose headers state its gain, by kind; 12 bits in 16."""
    camera = cooled((160, 240), seed=8)
    common = {"cfa_pattern": "mono", "white_level": 65520, "gain_setting": 0.0, "camera": camera.camera}

    def cube(kind, count, exposure, rate=0.0, seed=0):
        frames = [
            expose(camera, rate, iso=0, exposure=exposure, temperature=20.0, seed=(seed, n)) for n in range(count)
        ]
        return make_cube(frames, kind=kind, exposure=exposure, temperature=20.0, **common)

    lamp = 0.5 * camera.saturation(0)
    return camera, cube("light", 2, 60.0, 5.0), cube("bias", 8, 0.0, seed=1), cube("flat", 8, 1.0, lamp, seed=2)


def stating(light, egain):
    return light.assign_coords(egain=("frame", np.full(light.sizes["frame"], egain)))


def test_a_header_gives_the_gain_where_no_flats_do(kinds):
    camera, light, bias, _ = kinds
    made = make_masters(stating(light, 16 * camera.gain(0)), bias=bias, progress=False)
    noise = made.masters[0].noise
    assert noise.known
    assert noise.gain == pytest.approx((camera.gain(0),))
    assert noise.read_noise == pytest.approx((np.hypot(camera.read_noise(0), 4 / 12**0.5),), rel=0.03)  # its rounding
    assert noise.source == "estimated from EGAIN 4 of the headers and bias"
    (text,) = (text for text in made.warnings if "gain" in text)
    assert "the gain at gain setting 0 is what the headers state, EGAIN 4 e-/step of 16 ADU" in text


def test_a_header_that_flats_contradict_is_reported_and_one_that_agrees_is_not(kinds):
    camera, light, bias, flat = kinds
    for egain, words in (
        (4.0, ""),
        (5.0, "the headers state a gain of 0.3125 e-/ADU at gain setting 0 (EGAIN 5), 8 flats"),
    ):
        made = make_masters(stating(light, egain), bias=bias, flat=flat, progress=False)
        assert made.masters[0].noise.source == "estimated from 8 flats and bias"
        assert [words in text for text in made.warnings if "headers state" in text] == [True] * bool(words)
    (text,) = (text for text in made.warnings if text.startswith("gain ("))
    value, error = (float(word.split(" e-")[0]) for word in text.removeprefix("gain (mono ").split(" ± "))
    assert abs(value - camera.gain(0)) < 4 * error
    assert error < 0.01 * value


def test_the_error_of_the_gain_from_flats_is_its_scatter():
    pulls = []
    for seed in range(12):
        camera = cooled((96, 128), seed=seed, step=1)
        lamp = 0.5 * camera.saturation(0)
        common = {"cfa_pattern": "mono", "white_level": 65520, "gain_setting": 0.0}
        cubes = {
            kind: make_cube(
                [expose(camera, rate, iso=0, exposure=t, seed=(seed, t, n)) for n in range(6)], kind=kind, exposure=t,
                **common,
            )
            for kind, t, rate in (("bias", 0, 0.0), ("flat", 1, lamp), ("light", 2, 5.0))
        }  # fmt: skip
        noise = make_masters(**cubes, defects=False, progress=False).masters[0].noise
        pulls.append((noise.gain[0] - camera.gain(0)) / noise.gain_error[0])
    assert abs(np.mean(pulls)) < 3 / np.sqrt(12)
    assert 0.5 < np.std(pulls) < 1.5
