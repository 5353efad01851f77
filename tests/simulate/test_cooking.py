"""What the virtual firmware can do to frames besides being stock."""

import numpy as np
import pytest

from workbench.core.errors import WorkbenchError
from workbench.simulate import d7000, expose, firmware

CAMERA = d7000(seed=6, shape=(128, 192))


@pytest.fixture(scope="module")
def frame():
    return expose(CAMERA, iso=1600, exposure=60.0, seed=1)


def test_smoothing_keeps_the_mean_and_lowers_the_noise_as_it_says():
    noise = np.random.default_rng(1).normal(5000, 40, (256, 256)).round().astype("uint16")
    smoothed = firmware.smooth(noise, CAMERA, 0.05)
    assert smoothed.mean() == pytest.approx(noise.mean(), abs=0.1)
    assert smoothed.std() / noise.std() == pytest.approx(np.sqrt(0.8**2 + 4 * 0.05**2), rel=0.02)
    # colours stay apart: only neighbours two pixels away are alike
    centred = smoothed - smoothed.mean()
    assert abs((centred[:, 1:] * centred[:, :-1]).mean() / centred.var()) < 0.02
    assert (firmware.smooth(noise, CAMERA, 0.0) == noise).all()
    with pytest.raises(WorkbenchError, match=r"0 to 0\.25"):
        firmware.smooth(noise, CAMERA, 0.3)


def test_a_star_eater_leaves_no_pixel_above_all_its_neighbours(frame):
    eaten = firmware.remove_hot_pixels(frame, CAMERA)
    assert (eaten <= frame).all()
    assert eaten.max() < frame.max()
    assert (firmware.remove_hot_pixels(frame, CAMERA, margin=1e6) == frame).all()
    changed = eaten != frame
    assert changed.mean() == pytest.approx(1 / 9, abs=0.02)


def test_row_noise_moves_whole_rows(frame):
    banded = firmware.row_noise(frame, CAMERA, 8.0, seed=1)
    moved = (banded.astype(float) - frame).mean(axis=1)
    assert moved.std() == pytest.approx(8.0, rel=0.2)
    assert (banded.astype(float) - frame - moved[:, None]).std() < 0.5
    assert (firmware.row_noise(frame, CAMERA, 8.0, seed=1) == banded).all()


def test_compression_rounds_bright_numbers_only():
    numbers = np.arange(0, 16384, dtype="uint16").reshape(128, 128)
    saved = firmware.compress(numbers, CAMERA, first=1024)
    black = round(CAMERA.black_level)
    assert (saved.ravel()[: black + 1024] == numbers.ravel()[: black + 1024]).all()
    assert np.unique(saved.ravel()[black + 1024 : black + 2048]).size == pytest.approx(512, abs=2)
    error = saved.astype(int) - numbers
    assert np.abs(error).max() <= 8
    assert saved.max() <= CAMERA.white_level
