"""Noise that a filter in the camera spreads over neighbours: found, corrected, and not seen where there is none."""

import numpy as np
import pytest

from workbench.core.shared_noise import measure_smoothing, separate_pairs
from workbench.sensor import fit_gain, photon_transfer, read_noise
from workbench.simulate import cube_of, d7000, expose
from workbench.simulate.firmware import row_noise, smooth

ISO, SHAPE, LEVELS = 200.0, (128, 160), (0.05, 0.15, 0.3, 0.45)


def frames(camera, rng, change):
    """Bias frames and pairs of flats of one body, altered as `change` says."""
    full = (camera.white_level - camera.black_level) * camera.gain(ISO)
    lamp = np.repeat(LEVELS, 2)

    def cube(kind, light, exposure):
        seeds = rng.integers(2**32, size=len(light))
        shot = [
            expose(camera, level * full / t, iso=ISO, exposure=t, seed=int(seed), threads=1)
            for level, t, seed in zip(light, exposure, seeds, strict=True)
        ]
        return cube_of(camera, [change(frame, camera, rng) for frame in shot], kind, iso=ISO, exposure=exposure)

    return cube("bias", np.zeros(6), np.full(6, 1 / 8000)), cube("flat", lamp, lamp)


def filtered(frame, camera, rng):
    return smooth(frame, camera, 0.05)


def banded(frame, camera, rng):
    return row_noise(frame, camera, 3.0, int(rng.integers(2**32)))


def pulls(change, bodies):
    """(value − truth)/error of gain and of read noise of every body and channel, and their warnings."""
    found, warnings = {"gain": [], "read noise": []}, []
    for body in range(bodies):
        camera = d7000(seed=body, shape=SHAPE)
        bias, flat = frames(camera, np.random.default_rng([body, 5]), change)
        read = read_noise(bias, progress=False)
        gain = fit_gain(photon_transfer(flat, read, progress=False))
        warnings.append(read.attrs["warnings"] + gain.attrs["warnings"])
        found["gain"].append(((gain.gain - camera.gain(ISO)) / gain.gain_error).values)
        truth = camera.read_noise(ISO) / camera.gain(ISO)
        found["read noise"].append(((read.read_noise_adu - truth) / read.read_noise_adu_error).values)
    return {name: np.ravel(values) for name, values in found.items()}, warnings


def test_gain_and_read_noise_of_a_camera_that_filters_are_corrected_and_the_errors_cover():
    found, warnings = pulls(filtered, 12)
    for name, pull in found.items():
        assert abs(pull.mean()) < 0.6, name  # of 48 values: 0.14
        assert 0.5 < np.mean(abs(pull) < 1) < 0.86, name  # binomial: 0.68 ± 0.07
    assert all(len(texts) == 1 and "neighbouring pixels share noise at ISO 200" in texts[0] for texts in warnings)


def test_without_bias_frames_the_flats_show_the_filter():
    camera = d7000(seed=3, shape=SHAPE)
    _, flat = frames(camera, np.random.default_rng(3), filtered)
    ptc = photon_transfer(flat, progress=False)
    assert any("neighbouring pixels share noise" in text for text in ptc.attrs["warnings"])
    gain = fit_gain(ptc)
    assert (abs(gain.gain - camera.gain(ISO)) < 4 * gain.gain_error).all()


@pytest.mark.parametrize("change", [lambda frame, camera, rng: frame, banded], ids=["untouched", "banded"])
def test_a_camera_that_does_not_filter_is_left_as_it_is(change):
    for body in range(8):
        bias, flat = frames(d7000(seed=body, shape=SHAPE), np.random.default_rng([body, 6]), change)
        assert (read_noise(bias, progress=False).smoothing == 1).all()
        black = np.full(4, 600.0)
        assert not measure_smoothing(flat, separate_pairs([(0, 1), (2, 3)]), black, charge=True).found
