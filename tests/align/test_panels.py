"""Panels of a mosaic: lights linked through others, scales from all links."""

import numpy as np
import pytest

from workbench.align.panels import Link, solve_scales


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
