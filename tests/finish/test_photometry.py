import numpy as np
import pytest

from workbench.camera.sky import star_table
from workbench.errors import WorkbenchError
from workbench.finish import bright_stars, check_photometry, find_picture_stars, make_picture
from workbench.finish.photometry import photometry


def test_fluxes_match_the_truth(scene):
    stars = find_picture_stars(scene.picture)
    chosen = bright_stars(stars, scene.light.shape[1:], count=30)
    table = photometry(scene.picture, chosen.x.values, chosen.y.values, stars.attrs["searched_fwhm"])
    truth = star_table(scene.sky, scene.view)
    matched = [
        np.argmin((truth["x"] - x) ** 2 + (truth["y"] - y) ** 2)
        for x, y in zip(table.x.values, table.y.values, strict=True)
    ]
    ratio = table.flux.values / (truth["flux"][matched] * 60.0)
    assert len(chosen.star) >= 15
    assert np.ptp(np.median(ratio, axis=0)) < 0.004  # the aperture holds the same share in every colour
    pull = (ratio / np.median(ratio, axis=0) - 1) * table.flux.values / table.flux_error.values
    assert 0.5 < 1.4826 * np.median(np.abs(pull)) < 2.0


def test_a_step_that_changes_stars_is_caught(scene):
    same = check_photometry(scene.picture, scene.picture)
    assert same.attrs["passed"]
    assert same.attrs["worst"] == 0
    bent = scene.picture.assign(signal=scene.picture.signal - 2e-6 * scene.picture.signal**2)
    caught = check_photometry(scene.picture, bent)
    assert not caught.attrs["passed"]
    redder = scene.picture.signal.values.copy()
    redder[0] *= 1.01
    assert not check_photometry(
        scene.picture, scene.picture.assign(signal=scene.picture.signal.copy(data=redder))
    ).attrs["passed"]


def test_clipped_stars_are_no_judges(simulated):
    scene = simulated(saturation=4000.0)
    stars = find_picture_stars(scene.picture)
    assert stars.saturated.values.any()
    chosen = bright_stars(stars, scene.light.shape[1:])
    clipped = (scene.picture.saturated.values > 0).any(axis=0)
    for x, y in zip(chosen.x.values, chosen.y.values, strict=True):
        assert not clipped[round(y), round(x)]


def test_too_few_stars_are_said():
    noise = make_picture(np.random.default_rng(0).normal(0, 1, (100, 100)))
    with pytest.raises(WorkbenchError, match="at least three|needs three"):
        check_photometry(noise, noise)
