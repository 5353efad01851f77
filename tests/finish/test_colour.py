import numpy as np
import pytest

from workbench.core.errors import WorkbenchError
from workbench.finish import (
    apply_colour,
    background_model,
    camera_matrix,
    check_photometry,
    make_picture,
    mend_cores,
    neutralise_background,
    remove_background,
    remove_green,
    white_balance,
)
from workbench.finish.colour import SRGB_TO_XYZ

COLOR_MATRIX = np.array([[0.8198, -0.2239, -0.0724], [-0.4871, 1.2389, 0.2798], [-0.1043, 0.2050, 0.7181]])
DAYLIGHT = (2.0, 1.0, 1.3)  # both as the stacks of conftest carry them


@pytest.fixture(scope="module")
def flat(scene):
    """The stack without its background."""
    return remove_background(scene.picture, background_model(scene.picture))


def empty_sky(scene):
    """Where neither star nor nebula adds anything to speak of."""
    return ((scene.light - scene.background) < 0.3).all(axis=0)


def test_stars_give_the_mean_colour_of_the_sky_back(scene, flat):
    balance = white_balance(flat, "stars")
    inside = (np.abs(scene.sky.x - 450) < 440) & (np.abs(scene.sky.y - 300) < 290)
    truth = 1 / np.median(scene.sky.flux[inside] / scene.sky.flux[inside, 1:2], axis=0)
    pull = (balance.multiplier.values - truth)[[0, 2]] / balance.multiplier_error.values[[0, 2]]
    assert np.abs(pull).max() < 3
    assert balance.multiplier_error.values[[0, 2]].max() < 0.15
    assert balance.multiplier[1] == 1


def test_region_and_daylight_and_none(scene, flat):
    box = (250, 350, 400, 500)
    balance = white_balance(flat, "region", region=box)
    white = apply_colour(flat, balance).signal.values[:, 250:350, 400:500].mean(axis=(1, 2))
    assert np.ptp(white) / white.mean() < 1e-4
    np.testing.assert_allclose(white_balance(flat, "daylight").multiplier, DAYLIGHT)
    np.testing.assert_array_equal(white_balance(flat, "none").multiplier, 1)


def test_matrix_is_the_cameras_and_white_stays_white(scene):
    matrix = camera_matrix(scene.picture)
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    # a patch of known sRGB colour, as this camera would see it under D65
    colour = np.array([0.8, 0.3, 0.1])
    to_camera = COLOR_MATRIX @ SRGB_TO_XYZ
    raw = to_camera @ colour
    white = to_camera @ np.ones(3)
    np.testing.assert_allclose(matrix @ (raw / white), colour, rtol=1e-9)
    assert camera_matrix(make_picture(np.ones((3, 8, 8)))) is None
    assert camera_matrix(make_picture(np.ones((3, 8, 8)), attrs={"color_matrix": np.zeros((3, 3))})) is None
    four = np.vstack([COLOR_MATRIX, np.zeros(3)])  # as rawpy gives it
    np.testing.assert_allclose(camera_matrix(make_picture(np.ones((3, 8, 8)), attrs={"color_matrix": four})), matrix)


def test_colour_is_linear_with_its_variance_and_photometry(scene, flat):
    after = apply_colour(flat, white_balance(flat, "daylight"), camera_matrix(flat))
    transform = np.array(after.attrs["colour_transform"])
    y, x = 123, 456
    np.testing.assert_allclose(after.signal[:, y, x], transform @ flat.signal[:, y, x].values, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(after.variance[:, y, x], transform**2 @ flat.variance[:, y, x].values, rtol=1e-4)
    check = check_photometry(flat, after)
    assert check.attrs["passed"]
    assert check.attrs["worst"] < 0.001
    assert after.attrs["colour_space"] == "linear sRGB"
    # and the variance is the scatter between neighbours where no star shines
    sky = empty_sky(scene)
    steps = np.diff(after.signal.values, axis=2)[:, sky[:, 1:] & sky[:, :-1]]
    np.testing.assert_allclose(steps.var(axis=1) / 2, after.variance.values[:, sky].mean(axis=1), rtol=0.02)


def test_negative_and_missing_pixels_survive(scene, flat):
    holed = flat.signal.values.copy()
    holed[0, 5, 5] = np.nan
    after = apply_colour(flat.assign(signal=flat.signal.copy(data=holed)), white_balance(flat, "daylight"))
    assert np.isnan(after.signal[0, 5, 5])
    assert (after.signal < 0).any()
    assert abs(np.nanmean(after.signal.values[:, empty_sky(scene)])) < 0.2  # nothing clipped: noise averages to zero


def test_background_neutralised_by_offsets_only(scene):
    after = neutralise_background(scene.picture)
    shift = (after.signal - scene.picture.signal).values
    assert np.ptp(shift[0]) < 1e-3
    corner = after.signal.values[:, :60, :60]
    assert np.ptp(np.median(corner, axis=(1, 2))) < 0.15 * np.ptp(
        np.median(scene.picture.signal.values[:, :60, :60], axis=(1, 2))
    )
    assert check_photometry(scene.picture, after).attrs["passed"]


def test_clipped_cores_take_the_colour_of_their_surroundings(simulated):
    scene = simulated(saturation=3000.0, seed=8)
    flat = remove_background(scene.picture, background_model(scene.picture))
    mended = mend_cores(flat)
    clipped = (flat.saturated.values > 0).any(axis=0)
    truth = scene.light - scene.background
    hue_before, hue_after, hue_truth = (
        values[0, clipped] / values[2, clipped] for values in (flat.signal.values, mended.signal.values, truth)
    )
    assert clipped.sum() > 20
    before, after = (np.median(np.abs(np.log(hue / hue_truth))) for hue in (hue_before, hue_after))
    assert after < 0.05
    assert after < 0.3 * before
    far = ~np.isin(np.arange(flat.signal[0].size).reshape(clipped.shape), np.flatnonzero(clipped))
    changed = (mended.signal.values != flat.signal.values).any(axis=0)
    assert (changed & far).sum() < 3 * clipped.sum() + 100


def test_green_cast_goes_and_says_so(scene, flat):
    balanced = apply_colour(flat, white_balance(flat, "stars"))
    cast = balanced.signal.values.copy()
    cast[1] += 8.0
    green = balanced.assign(signal=balanced.signal.copy(data=cast))
    after = remove_green(green)
    excess = after.signal[1] - 0.5 * (after.signal[0] + after.signal[2])
    sigma = np.sqrt((after.variance[1] + 0.25 * (after.variance[0] + after.variance[2])).values)
    assert float((excess > 2.01 * sigma).mean()) < 1e-3
    assert "green lowered in" in after.attrs["history"][-1]
    # a grey sky is left alone, whatever its noise
    quiet = remove_green(balanced)
    corner = (slice(None), slice(0, 80), slice(0, 80))
    shift = (quiet.signal.values[corner] - balanced.signal.values[corner]).mean()
    assert abs(shift) < 0.03 * np.sqrt(float(balanced.variance.values[corner].mean()))
    none = remove_green(green, amount=0.0)
    np.testing.assert_array_equal(none.signal, green.signal)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: white_balance(p, "moon"), "none of catalogue, stars"),
        (lambda p: white_balance(p, "region"), "needs its box"),
        (lambda p: white_balance(p, "region", region=(0, 1, 0, 1)), "fewer than four"),
        (lambda p: white_balance(p.assign_attrs(daylight_multipliers=None), "daylight"), "names no daylight"),
        (lambda p: white_balance(p.assign(signal=p.signal * 0 + 1), "stars"), "are needed for a"),
        (lambda p: white_balance(p.isel(channel=[1]), "stars"), "mono picture"),
        (lambda p: camera_matrix(p.assign_attrs(color_matrix=[1, 2])), "3 x 3"),
        (lambda p: remove_green(p, amount=2), "between 0 and 1"),
        (lambda p: remove_green(p.isel(channel=[1])), "mono"),
    ],
)
def test_mistakes_are_named(flat, call, words):
    with pytest.raises(WorkbenchError, match=words):
        call(flat)


def test_a_dark_region_is_not_made_white(flat):
    dark = flat.assign(signal=flat.signal - 50)
    with pytest.raises(WorkbenchError, match="too dark"):
        white_balance(dark, "region", region=(0, 20, 0, 20))
