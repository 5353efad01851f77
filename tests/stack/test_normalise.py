"""Normalisation: what brings frames to one scale."""

import numpy as np
import pytest

from workbench import align
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
