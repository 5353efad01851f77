"""What several lessons' tests look at: the small samples measured, and a finished picture of a known sky."""

import course
import pytest

import workbench as wb


@pytest.fixture(scope="module")
def measured(frames):
    noise = wb.sensor.read_noise(frames.bias, progress=False)
    ptc = wb.sensor.photon_transfer(frames.flat, noise, progress=False)
    return noise, ptc, wb.sensor.fit_gain(ptc)


@pytest.fixture(scope="session")
def known():
    return course.known_sky()


@pytest.fixture(scope="session")
def done(known):
    return wb.finish.finish(known[0], progress=False)
