import numpy as np
import pytest
from scipy import ndimage

from workbench.core.errors import WorkbenchError
from workbench.finish import (
    background_model,
    bright_stars,
    check_photometry,
    deconvolve,
    denoise,
    find_picture_stars,
    make_picture,
    measure_psf,
    remove_background,
    removed,
)
from workbench.finish.detail import noise_model, stabilise, unstabilise


@pytest.fixture(scope="module")
def truth(scene):
    return scene.light - scene.background


def test_the_noise_model_is_the_stacks_own(scene, flat):
    for channel in range(3):
        a, b = noise_model(flat.signal.values[channel], flat.variance.values[channel])
        assert a == pytest.approx(1 / 20, rel=0.03)  # twenty frames, electrons of one
        sky = scene.background[channel].mean()
        assert b == pytest.approx((sky + 2.5**2) / 20, rel=0.06)


@pytest.mark.parametrize("level", [0.1, 36.0])
def test_a_constant_variance_shows_no_photon_noise(level):
    for signal in (np.random.default_rng(0).normal(0, 6, (100, 100)), np.full((100, 100), 5.0)):
        assert noise_model(signal.astype("f4"), np.full(signal.shape, level, "f4")) == (0.0, np.float32(level))


@pytest.mark.parametrize(("a", "b"), [(0.05, 3.0), (1.0, 30.0), (0.0, 4.0)])
def test_stabilised_noise_has_unit_variance_at_every_level(a, b):
    rng = np.random.default_rng(0)
    for level in (0.0, 20.0, 2000.0):
        photons = a * rng.poisson((level + b / a) / a, 200_000) - b / a if a else 0
        noisy = photons if a else rng.normal(level, np.sqrt(b), 200_000)
        values = stabilise(noisy.astype(np.float32), a, b)
        assert values.std() == pytest.approx(1, rel=0.02)
        np.testing.assert_allclose(unstabilise(values, a, b), noisy, atol=2e-3 * max(1, level))


def test_denoise_lowers_the_error_and_takes_no_light(scene, flat, stars, truth):
    clean = denoise(flat, strength=1.0, stars=stars)
    half = denoise(flat, strength=0.5, stars=stars)
    for channel in range(3):
        faint = truth[channel] - scene.nebula[channel] < 0.1  # between the stars
        errors = [(p.signal.values[channel] - truth[channel])[faint] for p in (flat, half, clean)]
        rms = [error.std() for error in errors]
        assert rms[2] < 0.5 * rms[0]
        assert rms[2] < rms[1] < 0.75 * rms[0]
        for error in errors[1:]:
            assert abs(error.mean() - errors[0].mean()) < 0.02 * rms[0]
        core = scene.nebula[channel] > 0.5 * scene.nebula[channel].max()
        gone = removed(flat, clean).signal.values[channel][core].mean()
        assert abs(gone) < 0.01 * scene.nebula[channel][core].mean()
    assert check_photometry(flat, clean, stars).attrs["passed"]
    assert check_photometry(flat, half, stars).attrs["passed"]


def test_what_denoise_removed_is_noise(scene, flat, stars):
    gone = removed(flat, denoise(flat, strength=1.0, stars=stars))
    pull = gone.signal.values / np.sqrt(flat.variance.values)
    assert np.abs(pull).max() < 6  # no star core, no structure
    for plane, nebula in zip(gone.signal.values, scene.nebula, strict=True):
        assert abs(np.polyfit(nebula.ravel(), plane.ravel(), 1)[0]) < 0.01  # one percent of the nebula
    assert gone.attrs["history"][-1].startswith("Removed by: Denoise")


def test_denoise_holds_back_where_the_variance_says_so(scene, flat, stars):
    """A corner with a fourth of the frames is noisier; what stands out there is not taken for detail."""
    rng = np.random.default_rng(2)
    variance = flat.variance.values.copy()
    variance[:, :200, :200] *= 4
    signal = flat.signal.values.copy()
    signal[:, :200, :200] += rng.normal(0, np.sqrt(0.75 * variance[:, :200, :200]))
    patchy = flat.assign(signal=flat.signal.copy(data=signal), variance=flat.variance.copy(data=variance))
    clean = denoise(patchy, strength=1.0, stars=stars)
    sky = ((scene.light - scene.background) < 0.3).all(axis=0)
    left = []
    for corner in (np.s_[:200, :200], np.s_[-200:, -200:]):
        inside = np.zeros(sky.shape, bool)
        inside[corner] = True
        values = [p.signal.values[1][sky & inside].std() for p in (patchy, clean)]
        left.append(values[1] / values[0])
    assert max(left) < 0.5
    assert left[0] < 1.5 * left[1]


def test_denoise_of_correlated_noise_and_holes(flat, stars):
    """Resampling smooths the noise: its scale-by-scale size is measured, not assumed."""
    rng = np.random.default_rng(5)
    noise = ndimage.gaussian_filter(rng.normal(0, 6, (300, 400)), 0.8)
    noise[50, 60] = np.nan
    picture = make_picture(noise, np.full(noise.shape, 36.0))
    clean = denoise(picture, strength=1.0, stars=find_picture_stars(picture))
    assert np.isnan(clean.signal[0, 50, 60])
    assert np.nanstd(clean.signal) < 0.35 * np.nanstd(noise)


def test_off_means_off(flat, stars):
    np.testing.assert_allclose(denoise(flat, strength=0.0, stars=stars).signal, flat.signal, atol=1e-4)
    psf = measure_psf(flat, stars)
    np.testing.assert_array_equal(deconvolve(flat, psf, strength=0.0, iterations=1, progress=False).signal, flat.signal)


def test_the_psf_is_that_of_the_sky(scene, flat, stars):
    psf = measure_psf(flat, stars)
    np.testing.assert_allclose(psf.sum(("y", "x")), 1, rtol=1e-5)
    # the sky's: a Moffat profile of FWHM 3 and β 3.5, integrated over the pixels
    reach = psf.sizes["y"] // 2
    fine = (np.arange(-reach * 10 - 5, reach * 10 + 5) + 0.5) / 10
    alpha = 3.0 / (2 * np.sqrt(2 ** (1 / 3.5) - 1))
    moffat = (1 + (fine[:, None] ** 2 + fine**2) / alpha**2) ** -3.5
    expected = moffat.reshape(2 * reach + 1, 10, 2 * reach + 1, 10).mean(axis=(1, 3))
    expected /= expected.sum()
    assert psf.values[1].max() == pytest.approx(expected.max(), rel=0.05)
    np.testing.assert_allclose(psf.values[1], expected, atol=0.03 * expected.max())


def test_deconvolution_sharpens_with_bounded_rings(scene, flat, stars, truth):
    psf = measure_psf(flat, stars)
    sharp = deconvolve(flat, psf, strength=1.0, iterations=15, progress=False)
    after = find_picture_stars(sharp)
    assert after.attrs["searched_fwhm"] < 0.75 * stars.attrs["searched_fwhm"]
    sigma = np.sqrt(np.median(flat.variance.values[1]))
    empty = ((scene.light - scene.background) < 0.3).all(axis=0)
    before_noise, after_noise = (p.signal.values[1][empty].std() for p in (flat, sharp))
    assert after_noise < 1.05 * before_noise  # noise is not sharpened
    fwhm = psf.attrs["fwhm"]
    v, u = np.mgrid[-25:26, -25:26]
    radius = np.hypot(u, v)
    for star in range(5):
        chosen = bright_stars(stars, flat.signal.shape[1:], count=5)
        x, y = round(float(chosen.x[star])), round(float(chosen.y[star]))
        rest = (
            sharp.signal.values[1, y - 25 : y + 26, x - 25 : x + 26] - scene.nebula[1, y - 25 : y + 26, x - 25 : x + 26]
        )
        was = (
            flat.signal.values[1, y - 25 : y + 26, x - 25 : x + 26] - scene.nebula[1, y - 25 : y + 26, x - 25 : x + 26]
        )
        for inner in np.arange(1.5 * fwhm, 5 * fwhm):
            ring = (radius >= inner) & (radius < inner + 1)
            assert np.median(rest[ring]) > -1.0 * sigma  # no dark ring
            assert np.median(rest[ring]) < np.median(was[ring]) + 0.5 * sigma  # no bright one
    whole = sharp.signal.values.sum(dtype=float) - flat.signal.values.sum(dtype=float)
    assert abs(whole) < 0.03 * flat.signal.values.sum(dtype=float)


def test_deconvolution_leaves_clipped_cores_and_holes(simulated):
    scene = simulated(saturation=3000.0, seed=8)
    flat = remove_background(scene.picture, background_model(scene.picture))
    signal = flat.signal.values.copy()
    signal[:, 10, 10] = np.nan
    flat = flat.assign(signal=flat.signal.copy(data=signal))
    sharp = deconvolve(flat, measure_psf(flat, find_picture_stars(flat)), strength=1.0, iterations=5, progress=False)
    clipped = flat.saturated.values > 0
    np.testing.assert_allclose(sharp.signal.values[clipped], flat.signal.values[clipped], rtol=0.02)
    assert np.isnan(sharp.signal.values[:, 10, 10]).all()
    assert np.isfinite(sharp.signal.values).sum() == np.isfinite(flat.signal.values).sum()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p, s: denoise(p, strength=2, stars=s), "between 0"),
        (lambda p, s: denoise(p.drop_vars("variance"), stars=s), "no variance"),
        (lambda p, s: deconvolve(p, measure_psf(p, s), iterations=0), "iterations"),
        (lambda p, s: deconvolve(p.drop_vars("variance"), measure_psf(p, s)), "no variance"),
        (lambda p, s: deconvolve(p, measure_psf(p, s).isel(channel=[0])), "another picture"),
        (lambda p, s: measure_psf(p, s.isel(star=slice(0, 1))), "too few"),
    ],
)
def test_mistakes_are_named(flat, stars, call, words):
    with pytest.raises(WorkbenchError, match=words):
        call(flat, stars)
