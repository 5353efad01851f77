"""Plate solutions: fields of real catalogue stars are found to an arcsecond, noise and wrong hints never are."""

import numpy as np
import pytest
import xarray as xr
from astropy.wcs import WCS

from workbench.align import NoSolutionError, solve_field
from workbench.core.errors import WorkbenchError
from workbench.stars import catalogue_stars, find_stars
from workbench.stars.background import green_sampling, half_green

SHAPE, SCALE = (1920, 1080), 2.39  # a small telescope's field of 0.7° x 1.3°
NOISE = 0.1  # px


def star_list(rng, places, magnitudes, shape):
    """What `find_stars` would give: these stars with errors of their places, and strangers fainter than most."""
    count = 40
    strange = rng.uniform(0, 1, (count, 2)) * (np.array(shape[::-1]) - 1)
    faint = (magnitudes.max() if len(magnitudes) else 8.0) + rng.exponential(1.0, count)
    places = np.concatenate([places, strange]) + rng.normal(0, NOISE, (len(places) + count, 2))
    magnitudes = np.concatenate([magnitudes + rng.normal(0, 0.2, len(magnitudes)), faint])
    order = np.argsort(magnitudes)
    light = magnitudes[order]
    columns = {"x": places[order, 0], "y": places[order, 1], "flux": 10 ** (-0.4 * (light - 15))}
    stars = xr.Dataset({name: ("star", values) for name, values in columns.items()})
    error = ("star", np.full(len(light), NOISE))
    return stars.assign(x_error=error, y_error=error, saturated=("star", light < light.min() + 0.5))


def somewhere(rng, middle, scale, mirrored=False):
    """The world coordinates of a frame that points somewhere, and its middle on the sky."""
    centre = rng.uniform(0, 360), float(np.degrees(np.arcsin(rng.uniform(-0.95, 0.95))))
    turn = rng.uniform(0, 2 * np.pi)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], centre, middle + 1
    cos, sin = np.cos(turn) * scale / 3600, np.sin(turn) * scale / 3600
    wcs.wcs.cd = np.array([[-cos, sin], [-sin, -cos]]) @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    return wcs, centre


def field(seed, *, shape=SHAPE, scale=SCALE, mirrored=False, distortion=0.0, least=5):
    """A field somewhere on the sky with at least so many catalogued stars: its star list and its middle."""
    rng = np.random.default_rng(seed)
    middle = (np.array(shape[::-1]) - 1) / 2
    while True:
        wcs, centre = somewhere(rng, middle, scale, mirrored)
        catalogue = catalogue_stars(*centre, 1.1 * np.hypot(*shape) * scale / 3600 / 2)
        places = wcs.all_world2pix(np.stack([catalogue.ra, catalogue.dec], 1), 0, quiet=True) - middle
        places *= 1 + distortion * (places**2).sum(1, keepdims=True) / (np.hypot(*shape) / 2) ** 2
        places += middle
        seen = (np.abs(places - middle) < middle).all(1) & (rng.random(len(places)) > 0.1)
        if seen.sum() >= least:
            return star_list(rng, places[seen], catalogue.magnitude.values[seen], shape), centre


def solved(stars, hint, *, shape=SHAPE, scale=SCALE, reach=1.0):
    half = np.hypot(*shape) * scale / 3600 / 2
    catalogue = catalogue_stars(*hint, reach + half)
    return solve_field(stars, shape, catalogue, scale=1.02 * scale, centre=hint, reach=reach)


def apart(solution, centre):
    """Of the solution's middle from the truth [arcsec], in the two directions."""
    ra, dec = solution.centre
    return 3600 * np.array([(ra - centre[0]) * np.cos(np.radians(centre[1])), dec - centre[1]])


def test_fields_are_found_to_an_arcsecond_within_three_stated_errors():
    pulls = []
    for seed in range(12):
        stars, centre = field(seed, mirrored=seed % 4 == 3)
        solution = solved(stars, (centre[0], centre[1] + 0.3))
        off = apart(solution, centre)
        assert np.hypot(*off) < 1.0
        assert np.abs(off).max() < 3 * solution.centre_error
        assert solution.chance < 1e-6
        assert solution.mirrored == (seed % 4 == 3)
        assert solution.scale == pytest.approx(SCALE, rel=5e-4)
        pulls.extend(off / solution.centre_error)
    assert 0.4 < np.std(pulls) < 1.5


def test_a_lens_that_distorts_gets_sip_terms():
    shape, scale = (3280, 4992), 19.7  # 50 mm on a DSLR: 27° x 18°
    stars, centre = field(1, shape=shape, scale=scale, distortion=0.004)
    solution = solved(stars, (centre[0], centre[1] + 3.0), shape=shape, scale=scale, reach=8.0)
    assert solution.wcs.sip is not None
    assert np.hypot(*apart(solution, centre)) < 1.0
    assert solution.rms < 1.5 * NOISE
    header = WCS(header_of(solution))
    x, y = np.array([100.0, 4500.0]), np.array([200.0, 3000.0])
    np.testing.assert_allclose(header.all_pix2world(x, y, 0), solution.wcs.all_pix2world(x, y, 0), rtol=0, atol=1e-9)


def header_of(solution):
    from astropy.io import fits

    from workbench.core.fits_cards import put_cards

    header = fits.Header()
    put_cards(header, solution.cards())
    return header


@pytest.mark.parametrize("kind", ["noise", "wrong hint"])
def test_noise_and_wrong_hints_are_refused(kind):
    for seed in range(5):
        rng = np.random.default_rng(1000 + seed)
        if kind == "noise":
            places = rng.uniform(0, 1, (10, 2)) * (np.array(SHAPE[::-1]) - 1)
            stars, hint = star_list(rng, places, rng.uniform(7, 10, 10), SHAPE), (rng.uniform(0, 360), 60.0)
        else:
            stars, centre = field(seed)
            hint = (centre[0] + 90) % 360, -centre[1]
        with pytest.raises(NoSolutionError, match="no place on the sky"):
            solved(stars, hint)


def test_two_nights_of_real_frames_agree(real_data):
    """Four Gaia stars in a frame of the second night; by them, and by the frames' own stars, the first has three."""
    from workbench.align import match_stars
    from workbench.ingest import read_frame

    lights = real_data / "seestar-m94" / "lights"
    lists = []
    for name in ("light_10.fits.fz", "light_01.fits.fz"):
        frame = read_frame(lights / name)
        lists.append(find_stars(half_green(frame, "GRBG"), sampling=green_sampling("GRBG")))
    catalogue = catalogue_stars(193.04, 40.97, 1.8, date="2025-03-27")
    solution = solve_field(lists[0], frame.shape, catalogue, scale=2.393, centre=(193.04, 40.97), reach=1.0)
    assert solution.stars.sizes["star"] == 4
    assert [solution.stars[name].attrs.get("units") for name in ("x", "ra", "index")] == ["pix", "deg", None]
    assert solution.rms < 0.1
    x, y = match_stars(*lists).transform.apply(
        *solution.wcs.all_world2pix(np.stack([catalogue.ra, catalogue.dec], 1), 0, quiet=True).T
    )
    seen = (x > 5) & (x < frame.shape[1] - 5) & (y > 5) & (y < frame.shape[0] - 5)
    nearest = [np.hypot(lists[1].x - a, lists[1].y - b).min() for a, b in zip(x[seen], y[seen], strict=True)]
    assert len(nearest) >= 3
    assert max(nearest) < 0.5


def test_bad_input_is_refused_in_words():
    stars, centre = field(0)
    with pytest.raises(WorkbenchError, match="scale of 0 arcsec"):
        solve_field(stars, SHAPE, catalogue_stars(*centre, 1.0), scale=0)
    with pytest.raises(NoSolutionError, match="for 2 stars among"):
        solved(stars.isel(star=slice(2)), centre)
