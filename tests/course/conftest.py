"""The small samples opened and measured, for the lessons on noise and on darks."""

import pytest

import workbench as wb


@pytest.fixture(scope="module")
def measured(frames):
    noise = wb.sensor.read_noise(frames.bias, progress=False)
    ptc = wb.sensor.photon_transfer(frames.flat, noise, progress=False)
    return noise, ptc, wb.sensor.fit_gain(ptc)
