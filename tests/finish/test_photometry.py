import numpy as np
import pytest

from workbench.core.errors import WorkbenchError
from workbench.finish import (
    apply_colour,
    background_model,
    bright_stars,
    camera_matrix,
    check_photometry,
    crop,
    evaluate_background,
    find_picture_stars,
    make_picture,
    model_means,
    remove_background,
    white_balance,
)
from workbench.finish.photometry import photometry
from workbench.simulate.sky import star_table


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


def test_the_check_knows_its_own_noise(simulated):
    """Faint stars on a steep sky: a ring measured twice would differ by percents, the same pixels do not."""
    scene = simulated(frames=4, gradient=0.4, seed=8)
    picture = scene.picture
    after = remove_background(picture, background_model(picture))
    mixed = apply_colour(after, white_balance(after, "daylight"), camera_matrix(after))
    for before, changed in ((picture, after), (after, mixed), (picture, mixed)):
        check = check_photometry(before, changed)
        assert check.attrs["passed"]
        assert check.attrs["worst"] < 3e-4
    stars = check_photometry(picture, after)
    table = photometry(picture, stars.x.values, stars.y.values, stars.attrs["fwhm"])
    assert np.median(table.flux_error / table.flux) > 0.005  # fainter than what is asked of the step
    # a loss that no single star could tell from its own noise
    for factor, passed in ((0.99, False), (0.999, True)):
        dimmed = after.assign(signal=after.signal * np.float32(factor))
        assert check_photometry(picture, dimmed).attrs["passed"] is passed


def test_noise_taken_away_is_within_the_uncertainty(simulated):
    scene = simulated(frames=4, nebula=0.0, gradient=0.0, seed=9)
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 4, scene.picture.signal.shape).astype(np.float32)
    noisy = scene.picture.assign(signal=scene.picture.signal + noise)
    check = check_photometry(noisy, scene.picture)
    pull = (check.deviation / check.uncertainty).values
    assert 0.8 < 1.4826 * np.median(np.abs(pull)) < 1.25
    assert check.attrs["passed"]
    assert check.attrs["worst"] > 0.003  # which would have been a false alarm
    faded = noisy.assign(signal=scene.picture.signal * np.float32(0.9))
    assert not check_photometry(noisy, faded).attrs["passed"]


def test_crops_are_followed_and_division_is_expected(simulated):
    scene = simulated(seed=4, nebula=0.0)
    cut = crop(scene.picture, box=(21, 560, 33, 870))
    check = check_photometry(scene.picture, cut)
    assert check.attrs["worst"] == 0
    model = background_model(cut)
    divided = remove_background(cut, model, mode="divide")
    stars = find_picture_stars(cut)
    chosen = bright_stars(stars, cut["signal"].shape[1:])
    gain = model_means(model)[:, None] / evaluate_background(model, chosen.y.values, chosen.x.values)
    check = check_photometry(cut, divided, chosen.assign_attrs(stars.attrs), gain=gain)
    assert check.attrs["passed"]
    assert check.attrs["worst"] < 0.002
