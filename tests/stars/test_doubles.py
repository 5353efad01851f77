"""Frames whose stars are doubled, found among those whose stars are single."""

from dataclasses import replace

import numpy as np
import pytest

from workbench.simulate import make_night, make_sky, render
from workbench.stars import common_companion, survey_mosaic
from workbench.stars.doubles import doubled_frames

SHAPE = (300, 400)


@pytest.fixture(scope="module")
def lights():
    """Star lists of a sky without a jump and with jumps: (dx, dy, share of the exposure after it) → stars."""
    sky = make_sky(SHAPE, stars=150, seed=3)
    (view,) = make_night(sky, 1, exposure=60, seed=3)

    def stars(dx=0.0, dy=0.0, share=0.0, seed=1):
        after = view.matrix + np.array([[0, 0, dx], [0, 0, dy], [0, 0, 0]])
        light = (1 - share) * render(sky, view, trails=False)
        light = light + share * render(sky, replace(view, matrix=after), trails=False) if share else light
        rng = np.random.default_rng(seed)
        return survey_mosaic((rng.poisson(60 * light) + rng.normal(0, 3, SHAPE)).astype("f4"), "RGGB").stars

    return stars


@pytest.mark.parametrize(("dx", "dy", "share"), [(9.0, 3.0, 0.5), (-11.0, 4.0, 0.3), (0.0, 38.0, 0.5)])
def test_a_jump_is_found_with_its_offset_and_ratio(lights, dx, dy, share):
    found = common_companion(lights(dx, dy, share))
    sign = np.sign(found.dx * dx + found.dy * dy) if share == 0.5 else 1  # of equal halves either is the first
    assert (sign * found.dx, sign * found.dy) == pytest.approx((dx, dy), abs=0.4)
    assert found.ratio == pytest.approx(share / (1 - share), abs=0.1)
    assert found.share > 0.5


def test_single_stars_have_no_common_companion(lights):
    assert common_companion(lights()) is None
    for seed in range(20):
        rng = np.random.default_rng(seed)
        crowd = lights().isel(star=rng.integers(0, 60, 200))
        crowd = crowd.assign(x=("star", rng.normal(200, 40, 200)), y=("star", rng.normal(150, 40, 200)))  # a cluster
        assert common_companion(crowd) is None


def test_what_all_frames_share_is_not_a_frames_fault(lights):
    single, double = [lights(seed=seed) for seed in (1, 2, 3)], [lights(9, 3, 0.5, seed) for seed in (4, 5, 6)]
    names = [f"light_{number}" for number in range(6)]
    reasons, warning = doubled_frames(dict(enumerate([*single, double[0]])), names)
    assert list(reasons) == [3]
    assert "stars are doubled" in reasons[3]
    assert "9.5 px" in reasons[3]
    assert not warning
    reasons, warning = doubled_frames(dict(enumerate([single[0], *double])), names)
    assert not reasons
    assert "3 of 4 lights show their stars twice" in warning
    reasons, warning = doubled_frames(dict(enumerate([single[0], double[0]])), names)
    assert not reasons
    assert "fewer than two" in warning
