"""White balance and zero point measured on catalogued stars: the camera's truth is recovered within its errors."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from workbench import photometry
from workbench.core.errors import WorkbenchError
from workbench.finish import (
    catalogue_photometry,
    finish,
    make_picture,
    measure_depth,
    measured_balance,
    white_balance,
    world_coordinates,
)
from workbench.finish.photometry import find_picture_stars
from workbench.finish.zero_point import SUN, fit_at_sun
from workbench.stars import catalogue_stars

SHAPE, SCALE, FWHM = (600, 900), 14.0, 3.2  # 14″ a pixel: 3.5° x 2.3°
CENTRE = (290.0, 20.0)  # towards Vulpecula, where stars are many
ZERO = np.array([18.2, 19.1, 18.5])  # mag for one electron a second at the Sun's colour: R, G, B
SLOPE = np.array([-0.35, 0.05, 0.45])  # on BP - RP
SECONDS, SKY, CLIPPED = 120.0, np.array([300.0, 500.0, 350.0]), 60_000.0


def camera(seed, *, centre=CENTRE, stars=True, crop=None):
    """A solved linear picture of the real catalogue's stars through this camera."""
    rng = np.random.default_rng(seed)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], centre
    wcs.wcs.crpix = [SHAPE[1] / 2 + 0.5, SHAPE[0] / 2 + 0.5]
    wcs.wcs.cd = np.array([[-0.8, 0.6], [-0.6, -0.8]]) * SCALE / 3600
    catalogue = catalogue_stars(*centre, 2.3, date="2025-06-01")
    catalogue = catalogue.isel(star=np.isfinite(catalogue.bp_rp.values))
    x, y = wcs.all_world2pix(np.stack([catalogue.ra, catalogue.dec], 1), 0).T
    level = np.zeros((3, *SHAPE)) + SKY[:, None, None]
    across = np.arange(-9, 10)
    for a, b, magnitude, colour in zip(x, y, catalogue.magnitude.values, catalogue.bp_rp.values, strict=True):
        i, j = round(a), round(b)
        if not (stars and 10 < i < SHAPE[1] - 10 and 10 < j < SHAPE[0] - 10):
            continue
        sigma = FWHM / 2.3548
        u, v = (np.exp(-((across - off) ** 2) / (2 * sigma**2)) for off in (a - i, b - j))
        shape = np.outer(v, u) / (2 * np.pi * sigma**2)
        flux = SECONDS * 10 ** (-0.4 * (magnitude + SLOPE * (colour - SUN) + rng.normal(0, 0.02) - ZERO))
        level[:, j - 9 : j + 10, i - 9 : i + 10] += flux[:, None, None] * shape
    variance = level + 30.0
    signal = rng.normal(level, np.sqrt(variance))
    header = wcs.to_header()
    cards = {key: header[key] for key in header if key not in ("DATE-REF", "MJDREF")} | {"DATE-OBS": "2025-06-01"}
    clipped = level > CLIPPED
    return make_picture(np.where(clipped, CLIPPED, signal), variance, saturated=clipped,
                        attrs={"observation": cards, "exposure": SECONDS})  # fmt: skip


@pytest.fixture(scope="module")
def picture():
    return camera(1)


def test_factors_are_within_two_per_cent_and_three_errors(picture):
    truth = 10 ** (0.4 * (ZERO[1] - ZERO))
    pulls = []
    for scene in (picture, camera(2), camera(3)):
        balance = white_balance(scene, "catalogue")
        off = balance.multiplier.values - truth
        assert np.abs(off / truth).max() < 0.02
        assert (np.abs(off[[0, 2]]) < 3 * balance.multiplier_error.values[[0, 2]]).all()
        assert balance.attrs["stars"] >= 15
        pulls.extend(off[[0, 2]] / balance.multiplier_error.values[[0, 2]])
    assert 0.2 < np.sqrt(np.mean(np.square(pulls))) < 2.0


def test_zero_point_limit_and_sky_are_those_of_the_camera(picture):
    depth = measure_depth(picture, catalogue_photometry(picture, find_picture_stars(picture)))
    value, error = depth["zero_point"]
    # what an aperture of 2.5 FWHM holds of a Gaussian is all but 3e-8
    assert abs(value - ZERO[1]) < 3 * error
    assert error < 0.02
    assert depth["colour_term"] == pytest.approx(-SLOPE[1], abs=0.05)
    sky, doubt = depth["sky_brightness"]
    assert abs(sky - (ZERO[1] - 2.5 * np.log10(SKY[1] / SECONDS / SCALE**2))) < 3 * doubt
    disc = np.pi * (0.7 * FWHM) ** 2
    noise = np.sqrt(disc * (SKY[1] + 30)) / (1 - np.exp(-4 * np.log(2) * 0.49))
    limit, doubt = depth["limiting_magnitude"]
    assert abs(limit - (ZERO[1] - 2.5 * np.log10(5 * noise / SECONDS))) < 3 * doubt


def test_the_table_of_stars_has_their_places_and_magnitudes(picture):
    table = photometry(picture)
    table = table.isel(star=np.flatnonzero((table["flags"] == "").values & np.isfinite(table["magnitude"].values)))
    catalogue = catalogue_stars(*CENTRE, 2.3, date="2025-06-01")
    east = (table["ra"].values[:, None] - catalogue["ra"].values) * np.cos(np.radians(CENTRE[1]))
    away = 3600 * np.hypot(east, table["dec"].values[:, None] - catalogue["dec"].values)
    assert table.sizes["star"] >= 15
    assert away.min(axis=1).max() < 0.2  # arcseconds: 0.014 px
    star = catalogue.isel(star=away.argmin(axis=1))
    true = star["magnitude"].values + SLOPE[1] * (star["bp_rp"].values - SUN)
    error = np.hypot(table["magnitude_error"].values, 0.02)  # the stars' own scatter in `camera`
    off = table["magnitude"].values - true
    assert abs(off.mean()) < 3 * table.attrs["zero_point_error"]
    assert np.sqrt(np.mean((off / error) ** 2)) == pytest.approx(1, abs=3 / np.sqrt(2 * off.size))


def test_a_finish_uses_them_and_says_so(picture):
    done = finish(picture, progress=False)
    text = "\n".join(done.picture.attrs["history"])
    assert "from catalogue" in text
    assert done.depth["text"] in text
    assert "limiting magnitude" in text
    assert "mag/arcsec²" in text
    assert done.balance.attrs["method"] == "catalogue"
    assert done.depth["stars"] >= 15


def test_a_crop_moves_the_plate_solution(picture):
    from workbench.finish.picture import crop

    cut = crop(picture, box=(50, 550, 100, 800))
    ra, dec = world_coordinates(picture).all_pix2world(300.0, 200.0, 0)
    np.testing.assert_allclose(world_coordinates(cut).all_world2pix(ra, dec, 0), [200.0, 150.0], atol=1e-6)


def test_a_picture_file_carries_the_plate_solution_in_its_own_pixels(picture, tmp_path):
    from workbench.finish.files import read_picture, write_picture
    from workbench.finish.picture import crop

    write_picture(crop(picture, box=(50, 550, 100, 800)), tmp_path / "cut.fits")
    with fits.open(tmp_path / "cut.fits") as hdus:
        ra, dec = WCS(hdus[0].header, naxis=2).all_pix2world(200.0, 150.0, 0)
    expected = world_coordinates(picture).all_pix2world(300.0, 200.0, 0)
    np.testing.assert_allclose([ra, dec], expected, atol=1e-9)
    again = world_coordinates(read_picture(tmp_path / "cut.fits")).all_pix2world(200.0, 150.0, 0)
    np.testing.assert_allclose(again, expected, atol=1e-9)


def test_where_stars_are_too_few_the_old_way_is_taken_and_that_is_reported():
    empty = camera(5, stars=False)
    rng = np.random.default_rng(3)
    across = np.arange(-9, 10)
    spot = np.exp(-(across[:, None] ** 2 + across**2) / (2 * (FWHM / 2.3548) ** 2))
    for x, y in rng.uniform(30, 560, (25, 2)).astype(int):
        empty["signal"].values[:, y - 9 : y + 10, x - 9 : x + 10] += 4000 * spot
    done = finish(empty, progress=False)
    assert done.balance.attrs["method"] == "stars"
    assert any("white balance: " in text and "catalogued stars can be measured" in text for text in done.warnings)


def test_stars_that_disagree_do_not_count():
    rng = np.random.default_rng(8)
    colour = rng.uniform(0, 2, 40)
    value = 20 + 0.2 * (colour - SUN) + rng.normal(0, 0.02, 40)
    value[:6] += 1.5  # variables, doubles
    fit = fit_at_sun(value, np.full(40, 0.02), colour)
    assert abs(fit.value - 20) < 3 * fit.error < 0.03
    assert fit.stars == 34


def test_bad_input_is_refused_in_words():
    with pytest.raises(WorkbenchError, match="no plate solution"):
        world_coordinates(make_picture(np.ones((3, 40, 40))))
    with pytest.raises(WorkbenchError, match="3 catalogued stars can be measured; 6 are needed"):
        fit_at_sun(np.ones(3), np.ones(3), np.ones(3))
    few = catalogue_photometry(camera(6, stars=False), find_picture_stars(camera(6, stars=False)))
    with pytest.raises(WorkbenchError, match="0 catalogued stars"):
        measured_balance(few)
