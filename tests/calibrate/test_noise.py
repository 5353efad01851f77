"""Noise from the frames at hand."""

import numpy as np
import pytest

from workbench.calibrate import SensorNoise
from workbench.calibrate.noise import hot_slope
from workbench.core.cube import make_cube
from workbench.core.errors import WorkbenchError
from workbench.core.parallel import Frames
from workbench.simulate import d7000, expose


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
