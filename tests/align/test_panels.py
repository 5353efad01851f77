"""Panels of a mosaic: lights linked through others, scales from all links."""

import numpy as np
import pytest

from tests.align.test_sky import field, solved, somewhere
from workbench.align.panels import Link, _error_at, solve_scales


def test_scales_are_right_as_often_as_their_errors_claim():
    true = np.log([1.0, 0.8, 1.25, 0.9, 1.1])
    pairs = [(0, 1), (0, 2), (1, 2), (2, 3), (1, 3), (3, 4), (2, 4)]
    pulls = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        errors = rng.uniform(0.005, 0.03, len(pairs))
        links = [
            Link(a, b, true[b] - true[a] + rng.normal(0, error), error)
            for (a, b), error in zip(pairs, errors, strict=True)
        ]
        scales, stated = solve_scales(links, 0, 5)
        pulls.append((np.log(scales) - true)[1:] / (stated / scales)[1:])
    # errors are enlarged where three spare links contradict each other by chance, never made smaller
    assert 0.75 < np.std(pulls) < 1.0
    assert np.mean(pulls) == pytest.approx(0, abs=0.1)


def test_what_no_link_reaches_has_no_scale():
    scales, errors = solve_scales([Link(0, 1, 0.1, 0.01)], 0, 3)
    assert scales == pytest.approx([1, np.exp(0.1), np.nan], nan_ok=True)
    assert errors == pytest.approx([0, 0.01 * np.exp(0.1), np.nan], nan_ok=True)


@pytest.mark.parametrize("distortion", [0.0, 0.002, 0.006])
def test_the_error_of_a_plate_solution_covers_places_a_panel_away(distortion):
    """Of fields of 10° whose lens distorts by 0, 2 or 6 px in the corners, a frame's width and height from the middle.

    A lens without distortion has no terms to extrapolate: what stars could hide is stated all the same.
    """
    shape, scale = (1080, 1620), 22.2
    middle, half = (np.array(shape[::-1]) - 1) / 2, np.hypot(*shape) / 2
    pulls = []
    for seed in range(8):
        stars, hint = field(seed, shape=shape, scale=scale, distortion=distortion)
        wcs, _ = somewhere(np.random.default_rng(seed), middle, scale)
        solution = solved(stars, hint, shape=shape, scale=scale)
        for away in ([0.9 * shape[1], 0.0], [0.0, 0.9 * shape[0]]):
            true = middle + np.array(away) * (1 + distortion * np.square(away).sum() / half**2)
            said = solution.wcs.all_world2pix([wcs.wcs_pix2world([middle + away], 0)[0]], 0, quiet=True)[0]
            pulls.extend((said - true) / _error_at(solution, tuple(true)))
    rms = np.sqrt(np.mean(np.square(pulls)))
    assert rms < 1.5
    assert rms > (0.6 if distortion else 0.05)
