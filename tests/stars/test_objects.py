"""Objects by name and by place; names on a picture, within two pixels of the truth."""

from itertools import combinations

import numpy as np
import pytest
from astropy.wcs import WCS

from workbench.core.errors import WorkbenchError
from workbench.stars import catalogue_stars, find_object, names_on, objects_near

SHAPE = (1000, 1500)


def world(centre, scale, turn=30.0, mirrored=False):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], centre
    wcs.wcs.crpix = [SHAPE[1] / 2 + 0.5, SHAPE[0] / 2 + 0.5]
    cos, sin = np.cos(np.radians(turn)) * scale / 3600, np.sin(np.radians(turn)) * scale / 3600
    wcs.wcs.cd = np.array([[-cos, sin], [-sin, -cos]]) @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    return wcs


def gnomonic(ra, dec, centre, scale, turn):
    """Where a place falls, by the textbook's formulas instead of a library's."""
    a, d, a0, d0 = np.radians([ra, dec, *centre])
    below = np.sin(d0) * np.sin(d) + np.cos(d0) * np.cos(d) * np.cos(a - a0)
    xi = np.cos(d) * np.sin(a - a0) / below
    eta = (np.cos(d0) * np.sin(d) - np.sin(d0) * np.cos(d) * np.cos(a - a0)) / below
    f, t = 648_000 / np.pi / scale, np.radians(turn)
    x, y = -xi * f, -eta * f
    return np.cos(t) * x - np.sin(t) * y + SHAPE[1] / 2 - 0.5, np.sin(t) * x + np.cos(t) * y + SHAPE[0] / 2 - 0.5


def test_labels_are_within_two_pixels_of_the_truth():
    centre, scale, turn = (83.8, -5.2), 8.0, 30.0
    labels = names_on(world(centre, scale, -turn), SHAPE).labels
    assert {"M 42", "M 43", "NGC 1977"} <= set(labels["label"])
    for row in labels[labels["kind"] == "object"].itertuples():
        ra, dec, _ = find_object(row.label)
        x, y = gnomonic(ra, dec, centre, scale, turn)
        assert np.hypot(row.x - x, row.y - y) < 2.0
    stars = catalogue_stars(*centre, 2.5)
    for row in labels[labels["kind"] == "star"].itertuples():
        star = stars.isel(star=int(np.flatnonzero(stars.hip.values == int(row.label[4:]))[0]))
        x, y = gnomonic(float(star.ra), float(star.dec), centre, scale, turn)
        assert np.hypot(row.x - x, row.y - y) < 2.0


def test_names_of_stars_do_not_lie_over_each_other():
    shape, wcs = (3264, 4928), world((56.75, 24.1), 2.4)  # the Pleiades, 4.78 µm through 400 mm
    wcs.wcs.crpix = [2464, 1632]
    stars = names_on(wcs, shape).labels.query("kind == 'star'")
    assert len(stars) > 5
    for one, other in combinations(stars.itertuples(), 2):
        assert abs(one.x - other.x) > 0.07 * shape[1] or abs(one.y - other.y) > 0.02 * shape[1]


@pytest.mark.parametrize("mirrored", [False, True])
def test_north_scale_and_ellipse_follow_the_solution(mirrored):
    ra, dec, _ = find_object("M 31")
    wcs = world((ra, dec), 10.0, mirrored=mirrored)
    names = names_on(wcs, SHAPE)
    here = wcs.all_world2pix(ra, dec, 0)
    for direction, place in ((names.north, (ra, dec + 0.01)), (names.east, (ra + 0.01 / np.cos(np.radians(dec)), dec))):
        way = np.array(wcs.all_world2pix(*place, 0)) - here
        np.testing.assert_allclose(direction, way / np.hypot(*way), atol=1e-3)
    length, text = names.bar
    assert (length, text) == (pytest.approx(360.0), "1°")
    galaxy = names.labels.set_index("label").loc["M 31"]
    angle = np.radians(35.0)  # OpenNGC: position angle 35°, from north to east
    end = wcs.all_world2pix(ra + 0.1 * np.sin(angle) / np.cos(np.radians(dec)), dec + 0.1 * np.cos(angle), 0)
    along = np.degrees(np.arctan2(end[1] - here[1], end[0] - here[0]))
    assert (galaxy["angle"] - along + 90) % 180 - 90 == pytest.approx(0, abs=1.0)


@pytest.mark.parametrize("centre", [(10.0, 89.5), (0.2, 0.0), (192.7, 41.1)])
def test_a_grid_lies_on_the_picture(centre):
    names = names_on(world(centre, 20.0), SHAPE)
    assert len(names.grid) >= 4
    for line, text in names.grid:
        assert text
        assert (line > -0.5).all()
        assert (line < np.array(SHAPE[::-1]) - 0.5).all()


@pytest.mark.parametrize("name", ["M94", "M 94", "NGC4736", "ngc 4736"])
def test_an_object_has_many_names(name):
    ra, dec, label = find_object(name)
    assert (round(ra, 2), round(dec, 2), label) == (192.72, 41.12, "M 94")


def test_the_largest_object_comes_first():
    near = objects_near(83.82, -5.39, 1.0)  # Orion's sword
    assert near["label"][0] == "M 42"
    assert {"M 43", "NGC 1977"} <= set(near["label"])


def test_an_unknown_name_is_refused_in_words():
    with pytest.raises(WorkbenchError, match="'my garden' is not among the objects of OpenNGC"):
        find_object("my garden")
