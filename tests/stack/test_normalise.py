"""Normalisation: what brings frames to one scale."""

import numpy as np
import pytest

from workbench import align
from workbench.stack.backgrounds import _block_chi
from workbench.stack.normalise import normalisation


def test_the_exposure_gives_the_scale_where_stars_are_too_few(night):
    surveys, names = list(night.registration.surveys)[:3], ["a", "b", "c"]
    for number, survey in enumerate(surveys):
        dim = survey.stars.assign(flux_error=("star", np.full(survey.stars.sizes["star"], np.inf)))
        surveys[number] = survey._replace(stars=dim)  # no star is good enough
    shape = night.lights["signal"].shape[1:]
    registration = align.register_frames(surveys, names, np.array([60.0, 60.0, 120.0]), shape, reference=0)
    assert normalisation(registration)["scale"].values == pytest.approx([1, 1, 0.5])
    assert set(registration.few_stars) == {1, 2}
    unknown = align.register_frames(surveys, names, np.full(3, np.nan), shape, reference=0)
    assert unknown.used == (0,)
    assert "exposure time is not known" in unknown.set_aside[1]


def test_blocks_of_noise_have_a_chi_square_of_one_and_what_they_share_shows():
    rng = np.random.default_rng(1)
    sigma = rng.uniform(0.2, 0.6, (8, 1)) * np.ones((8, 400))
    noise = rng.normal(0, sigma)
    assert abs(_block_chi(noise, sigma) - 1) < 0.1
    moved = np.stack([np.sin(np.arange(400) / 9 + frame) for frame in range(8)])  # a pattern that dithers move
    assert _block_chi(noise + moved, sigma) > 3
    assert np.isnan(_block_chi(noise[:, :20], sigma[:, :20]))
