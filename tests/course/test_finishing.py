"""The same data finished in five ways, and background models against a known sky."""

import course
import numpy as np
import pytest

from workbench import finish


@pytest.fixture(scope="module")
def known():
    return course.known_sky()


@pytest.fixture(scope="module")
def done(known):
    return finish.finish(known[0], progress=False)


def test_the_five_ways_differ_as_they_say(known):
    made = course.five_finishes(known[0])
    assert [way.name for way, _, _ in made] == [way.name for way in course.finishing.STYLES]
    plain, _, deep, smooth, eaten = (numbers for _, _, numbers in made)
    assert plain["black"] < 1 < deep["black"]
    assert smooth["grain"] < 0.5 * plain["grain"]
    assert eaten["nebula"] < 0.5 * plain["nebula"]
    spread = [np.ptp(np.nanmean(picture.signal, axis=(1, 2))) for _, picture, _ in made[:2]]
    assert spread[1] < spread[0]  # each channel by itself makes everything grey


def test_models_beside_the_truth():
    table = course.background_errors().astype(float)
    assert (table.loc[["polynomial", "rbf", "mesh"]].abs().to_numpy() < 2).all()
    assert table.loc["rbf, samples everywhere"].min() > 50


def test_nearly_all_of_a_linear_picture_is_black(done):
    assert course.darkest_share(done.linear) > 80
