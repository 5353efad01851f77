"""Backgrounds of frames that overlap only their neighbours: brought to one, with errors that cover."""

import numpy as np

from workbench.align import Transform
from workbench.simulate import View, make_sky, render
from workbench.stack.backgrounds import background_surfaces, matched_planes
from workbench.stars import survey_mosaic

PLACES = np.stack([part.ravel() for part in np.mgrid[0:12, 0:40]])


def panels(seed, slope):
    """Three panels of two frames each on a sky of its own; true planes of zero mean, what is seen, and its error."""
    rng = np.random.default_rng(seed)
    y, x = PLACES / 40
    design = np.stack([np.ones_like(x), x, y], 1)
    planes = np.concatenate([rng.normal(0, 10, (6, 1)), rng.normal(0, slope, (6, 2))], 1)
    sigma = np.full((6, x.size), 0.5)
    seen = 100 + 20 * np.sin(4 * x) * np.cos(3 * y) + planes @ design.T + rng.normal(0, sigma)
    for frame in range(6):
        first = 13 * (frame // 2) + frame % 2
        seen[frame, (PLACES[1] < first) | (PLACES[1] >= first + 17)] = np.nan
    seen[rng.random(seen.shape) < 0.02] += 40  # a star that one survey took for sky
    return seen, sigma, design, planes


def middle_of(values, planes, design):
    return np.array([(design[np.isfinite(seen)] @ plane).mean() for seen, plane in zip(values, planes, strict=True)])


def test_planes_come_back_and_their_errors_cover():
    for slope in (0.0, 12.0):
        pulls = []
        for seed in range(60):
            seen, sigma, design, true = panels(seed, slope)
            planes, error = matched_planes(seen, sigma, design)
            assert np.allclose(planes.mean(0), 0, atol=1e-3)
            pulls.append(middle_of(seen, planes - (true - true.mean(0)), design) / error)
        assert 0.8 < np.std(pulls) < 1.2, slope


def test_slopes_are_fitted_only_where_there_are_any():
    seen, sigma, design, _ = panels(3, 0.0)
    assert not matched_planes(seen, sigma, design)[0][:, 1:].any()
    seen, sigma, design, _ = panels(3, 12.0)
    assert matched_planes(seen, sigma, design)[0][:, 1:].any()


def test_errors_cover_what_faint_stars_add_where_noise_hides_them():
    """The sky of a crowded field looks brighter in lights with more noise."""
    sky = make_sky((240, 300), stars=200, faintest=30.0, brightest=600.0, seed=6)
    rng = np.random.default_rng(4)
    levels = np.array([1.0, 1.0, 4.0, 4.0])
    views = [View(exposure=60.0, background=(level,) * 3) for level in levels]
    surveys = [survey_mosaic(rng.poisson(60 * render(sky, view, "RGGB")).astype(float), "RGGB") for view in views]
    same = [Transform.identity()] * 4
    found = background_surfaces(surveys, same, np.ones(4), (sky.shape, sky.shape), 1)
    middle = found.surface[..., 0] + found.surface[..., 1] * 149.5 + found.surface[..., 2] * 119.5
    off = middle - 60 * (levels - levels.mean())[:, None]
    assert np.abs(off / found.error).max() < 3
