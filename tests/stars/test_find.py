"""Finding stars: positions, fluxes and widths against a painted truth; what is no star stays out."""

import numpy as np
import pytest

from workbench.core.errors import WorkbenchError
from workbench.stars import FWHM_PER_SIGMA, find_stars, green_sampling, half_green
from workbench.stars.find import intrinsic, measure, photometry


def matched(stars, x, y):
    distance = np.hypot(stars.x.values[:, None] - x, stars.y.values[:, None] - y)
    nearest = distance.argmin(1)
    return nearest, distance.min(1)


def test_positions_fluxes_and_widths_are_recovered(painted):
    pulls, ratios, widths = [], [], []
    for seed in range(4):
        image, x, y, flux = painted(seed)
        stars = find_stars(image, gain=1.0)
        nearest, distance = matched(stars, x, y)
        assert stars.sizes["star"] >= 0.95 * x.size
        assert distance.max() < 0.6
        pulls.append((stars.x.values - x[nearest]) / stars.x_error.values)
        ratios.append((stars.flux.values / flux[nearest] - 1) / (stars.flux_error.values / flux[nearest]))
        widths.append(stars.attrs["fwhm"])
    pulls, ratios = np.concatenate(pulls), np.concatenate(ratios)
    assert 0.75 < np.sqrt(np.mean(pulls**2)) < 1.25
    assert 0.75 < np.nanstd(ratios) < 1.35
    assert abs(np.nanmean(ratios)) < 0.5
    assert np.mean(widths) == pytest.approx(3.5, rel=0.03)


def test_roundness_is_that_of_the_stars(painted):
    image, *_ = painted(3, elongation=1.5, faintest=5000)
    assert find_stars(image, gain=1.0).attrs["roundness"] == pytest.approx(1 / 1.5, abs=0.05)


@pytest.mark.parametrize("pattern", ["RGGB", "GBRG"])
def test_on_a_mosaic_positions_and_widths_are_those_of_the_full_frame(painted, pattern):
    image, x, y, _ = painted(5, fwhm=4.0, faintest=4000)
    stars = find_stars(half_green(image, pattern), sampling=green_sampling(pattern), gain=2.0)
    nearest, distance = matched(stars, x, y)
    assert np.median(distance) < 0.1
    assert abs(np.mean(stars.x.values - x[nearest])) < 0.03
    assert abs(np.mean(stars.y.values - y[nearest])) < 0.03
    assert stars.attrs["fwhm"] == pytest.approx(4.0, rel=0.05)
    assert stars.attrs["roundness"] > 0.93


def test_hot_pixels_and_bad_lines_are_no_stars(painted):
    rng = np.random.default_rng(8)
    image, x, y, _ = painted(8, stars=50)
    hot = rng.integers(3, np.array((300, 400)) - 3, (400, 2))
    image[hot[:, 0], hot[:, 1]] += rng.uniform(100, 5000, 400).astype(np.float32)
    image[:, 200] += 300
    image[77] += 300
    stars = find_stars(image, gain=1.0)
    _, distance = matched(stars, x, y)
    assert np.count_nonzero(distance > 1.0) <= 2
    assert np.count_nonzero(distance < 1.0) > 0.85 * x.size
    assert stars.attrs["hot_pixels"] > 0


def test_a_frame_of_noise_has_no_stars():
    noise = np.random.default_rng(4).normal(500, 20, (500, 500)).astype(np.float32)
    assert find_stars(noise).sizes["star"] <= 1


def test_faint_wide_stars_in_noise_are_found(painted):
    image, x, y, _ = painted(6, stars=25, fwhm=8.0, noise=25.0, sky=0.0, faintest=6000)
    stars = find_stars(image)
    _, distance = matched(stars, x, y)
    assert np.count_nonzero(distance < 2.0) > 0.6 * x.size


def test_saturated_stars_are_flagged(painted):
    image, _x, _y, flux = painted(7, faintest=20000)
    clipped = np.minimum(image, 3000)
    stars = find_stars(clipped, gain=1.0, saturation=2700.0)
    assert stars.saturated.any()
    assert stars.saturated.values[:5].all()
    assert not stars.saturated.all() or flux.min() > 30000


def test_missing_pixels_do_no_harm(painted):
    image, x, y, _ = painted(9)
    image[100:140, 100:160] = np.nan
    stars = find_stars(image, gain=1.0)
    _, distance = matched(stars, x, y)
    assert np.isfinite(stars.x.values).all()
    assert np.count_nonzero(distance < 0.6) > 0.8 * x.size


def test_the_same_frame_gives_the_same_bits(painted):
    image, *_ = painted(1)
    assert find_stars(image).identical(find_stars(image))


def test_mistakes_are_named():
    with pytest.raises(WorkbenchError, match="16 x 16"):
        find_stars(np.zeros((8, 8), np.float32))
    with pytest.raises(WorkbenchError, match="no finite"):
        find_stars(np.full((64, 64), np.nan, np.float32))


@pytest.mark.parametrize("mosaic", [False, True])
def test_covariances_are_those_of_the_image(painted, mosaic):
    image, x, y, _ = painted(6, fwhm=3.5, faintest=20000, elongation=1.3)
    flat = image - np.float32(200)
    if mosaic:
        flat[::2, ::2] = flat[1::2, 1::2] = 0
    sigma = 3.5 / FWHM_PER_SIGMA
    moments = measure(flat, x, y, sigma, 5.0, np.inf)
    xx, yy, xy = np.nanmedian(intrinsic(moments, sigma), axis=0) - np.array([1 / 12, 1 / 12, 0.0])
    assert xx == pytest.approx((1.3 * sigma) ** 2, rel=0.03)
    assert yy == pytest.approx(sigma**2, rel=0.03)
    assert abs(xy) < 0.03 * sigma**2
    assert np.nanmax(np.hypot(moments.x - x, moments.y - y)) < 0.3


def test_a_star_that_is_not_in_the_plane_has_no_flux():
    y, x = np.mgrid[:96, :96]
    plane = (1000 * np.exp(-((x - 48) ** 2 + (y - 40) ** 2) / (2 * 1.5**2))).astype(np.float32)
    xs, ys = np.array([np.nan, 48.0, -0.4, 1e300, 48.0, 95.4]), np.array([np.nan, np.nan, 40.0, 40.0, 40.0, 1e9])
    flux, error = photometry(plane, xs, ys, 3.5, 1.0, 1.0)
    assert np.isfinite(flux).tolist() == np.isfinite(error).tolist() == [False] * 4 + [True, False]
    assert flux[4] == pytest.approx(plane.sum(), rel=0.01)
