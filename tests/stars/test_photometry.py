"""Fluxes in apertures and by a fit, with errors that cover the truth."""

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import erf

from workbench.stars import FWHM_PER_SIGMA, aperture_fluxes, crowded_stars, profile_scale, psf_fluxes

FWHM, NOISE, SKY = 3.5, 5.0, 200.0


def profile(reach=14, x=0.0, y=0.0):
    """A Gaussian star integrated over pixels."""
    edges = (np.arange(2 * reach + 2) - reach - 0.5) / (np.sqrt(2) * FWHM / FWHM_PER_SIGMA)
    shift = np.sqrt(2) * FWHM / FWHM_PER_SIGMA
    return np.outer(np.diff(erf(edges - y / shift)) / 2, np.diff(erf(edges - x / shift)) / 2)


def variance_of(image):
    """Of Poisson and read noise, the light smoothed as a stack's variance has it."""
    return np.maximum(gaussian_filter(image, 1.0), SKY) + NOISE**2


def test_pulls_of_many_stars_are_of_unit_width(painted):
    pulls = {"aperture": [], "fit": []}
    for seed in range(10):
        image, x, y, truth = painted(seed, stars=80, fwhm=FWHM, noise=NOISE, sky=SKY)
        variance = variance_of(image)
        whole = aperture_fluxes(image, x, y, FWHM, variance)
        fitted = psf_fluxes(image, x, y, profile(), FWHM, whole, variance)
        scale, excess = profile_scale(fitted, whole, np.ones(x.size, bool))
        assert abs(scale - 1) < 0.004
        assert excess < 0.01
        pulls["aperture"].append((whole.flux - truth) / whole.error)
        pulls["fit"].append((fitted.flux - truth) / fitted.error)
        assert np.median(fitted.error / whole.error) < 0.7, "a fit weighs pixels by their light"
    for name, parts in pulls.items():
        pull = np.concatenate(parts)
        assert pull.size > 400
        assert 0.9 < np.sqrt(np.mean(pull**2)) < 1.1, name


def test_an_aperture_that_is_not_complete_has_no_flux():
    plane = np.full((60, 80), 7.0)
    plane[30, 41] = np.nan
    found = aperture_fluxes(plane, [4.0, 40.0, 60.0, 79.0], [30.0, 30.0, 30.0, 59.0], FWHM, np.ones(plane.shape))
    np.testing.assert_array_equal(np.isfinite(found.flux), [False, False, True, False])
    np.testing.assert_array_equal(np.isfinite(found.error), [False, False, True, False])
    np.testing.assert_allclose(found.flux[2], 0, atol=1e-3)
    fitted = psf_fluxes(plane, [4.0, 60.0], [30.0, 30.0], profile(), FWHM, found._replace(flux=found.flux[[0, 2]]))
    assert np.isnan(fitted.flux[0])
    assert np.isnan(fitted.error).all()
    assert aperture_fluxes(plane, [], [], FWHM).flux.size == 0


def test_close_stars_are_fitted_together():
    rng = np.random.default_rng(5)
    truth, pulls, off = np.array([30_000.0, 10_000.0]), [], []
    for _ in range(60):
        image = np.zeros((81, 81))
        x, y = np.array([38.0, 43.0]) + rng.uniform(-0.5, 0.5, 2), np.full(2, 40.0)
        for flux, at in zip(truth, x, strict=True):
            image[26:55, 26:55] += flux * profile(x=at - 40)
        variance = image + SKY + NOISE**2
        image = rng.normal(image + SKY, np.sqrt(variance))
        whole = aperture_fluxes(image, x, y, FWHM, variance)
        fitted = psf_fluxes(image, x, y, profile(), FWHM, whole, variance)
        pulls.append((fitted.flux - truth) / fitted.error)
        off.append((whole.flux - truth) / whole.error)
    assert 0.8 < np.sqrt(np.mean(np.square(pulls))) < 1.2
    assert np.median(off) > 10, "each aperture holds the other star's light"


def test_neighbours_that_matter_are_flagged():
    x, y = np.array([50.0, 60.0, 150.0, 170.0]), np.zeros(4)
    flux = np.array([1000.0, 40.0, 500.0, 5.0e5])
    np.testing.assert_array_equal(crowded_stars(x, y, flux, FWHM, 0.02 * flux), [True, True, True, False])
    assert not crowded_stars(x[:1], y[:1], flux[:1], FWHM, np.zeros(1)).any()
