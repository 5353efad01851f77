"""The field of the samples: real stars where a plate solution puts them, in their colours, and a galaxy."""

import numpy as np
import pytest
from astropy.wcs import WCS

from workbench.simulate.field import colours, galaxy_light, make_field


@pytest.fixture(scope="module")
def field():
    return make_field((480, 720), focal_length=50.0, aperture=4.0, seed=1)


def test_stars_stand_where_astropy_puts_them(field):
    places = WCS(field.wcs).all_world2pix(np.stack([field.ra, field.dec], axis=1), 0)
    assert np.allclose(places, np.stack([field.sky.x, field.sky.y], axis=1), atol=1e-6)
    scale = WCS(field.wcs).proj_plane_pixel_scales()[0].to_value("arcsec")
    assert scale == pytest.approx(206.265 * 4.78 / 50, rel=1e-4)


def test_known_stars_are_there(field):
    """Nu Andromedae, and its place and colour of the catalogue (Hipparcos 3881: B - V -0.15)."""
    brightest = int(np.argmax(field.sky.flux[:, 1]))
    assert field.real[brightest]
    assert (field.ra[brightest], field.dec[brightest]) == pytest.approx((12.4535, 41.0789), abs=0.001)
    assert field.b_v[brightest] == pytest.approx(-0.15, abs=0.03)
    assert field.real.sum() > 100


def test_light_follows_magnitude_and_colour(field):
    light = -2.5 * np.log10(field.sky.flux[:, 1]) - field.magnitude
    assert np.ptp(light) < 1e-6
    faint = make_field((480, 720), focal_length=50.0, aperture=8.0, seed=1)
    assert faint.sky.flux[0, 1] == pytest.approx(field.sky.flux[0, 1] / 4)
    red_over_blue = field.sky.flux[:, 0] / field.sky.flux[:, 2]
    assert np.array_equal(np.argsort(field.b_v, kind="stable"), np.argsort(np.round(red_over_blue, 9), kind="stable"))
    assert colours(np.array([0.65]))[0] == pytest.approx([0.5, 1.0, 0.72], abs=0.06)  # the Sun is near daylight


def test_one_place_two_lenses(field):
    """A shorter lens shows the same stars and the same galaxy, smaller."""
    short = make_field((240, 360), focal_length=25.0, aperture=4.0, seed=1)
    first = slice(0, 5)
    assert np.allclose(short.sky.x[first] - 179.5, (field.sky.x[first] - 359.5) / 2, atol=1e-6)
    assert short.sky.nebula[1].max() == pytest.approx(field.sky.nebula[1].max(), rel=0.5)


def test_the_galaxy_leaves_empty_sky():
    north, east = np.mgrid[-1.3:1.3:120j, -1.9:1.9:180j]
    light = galaxy_light(east, north)
    assert light.min() >= 0
    assert light.max() > 3
    assert np.mean(light[1] < 0.02) > 0.5  # of a sky of 1 e-/s/pixel
    warm, cool = light[:, 60, 90], light.reshape(3, -1).T[np.argmax(light[2] - light[0])]
    assert warm[0] > warm[2]
    assert cool[2] > cool[0]
