"""From a file to its place on the sky: hints from headers, a painted field found, a stack that carries its solution."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

import workbench as wb
from workbench.align import NoSolutionError
from workbench.align.hints import hints_of, known_of, solve_stars
from workbench.core.errors import WorkbenchError
from workbench.finish import world_coordinates
from workbench.pipelines.finishing import picture_stars
from workbench.stars import catalogue_stars

SHAPE, SCALE, CENTRE = (500, 700), 12.0, (300.3, 35.2)
FOCAL, PIXEL = 66.0, 3.84  # mm, µm: 12.0 arcsec


@pytest.fixture(scope="module")
def frame(tmp_path_factory):
    """A mono frame of the real stars about a place, whose header is 0.4° off."""
    rng = np.random.default_rng(2)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], CENTRE, [350.5, 250.5]
    wcs.wcs.cd = np.array([[0.6, -0.8], [0.8, 0.6]]) * SCALE / 3600
    stars = catalogue_stars(*CENTRE, 1.7, date="2024-08-01")
    x, y = wcs.all_world2pix(np.stack([stars.ra, stars.dec], 1), 0).T
    v, u = np.mgrid[: SHAPE[0], : SHAPE[1]]
    level = np.full(SHAPE, 600.0)
    for a, b, magnitude in zip(x, y, stars.magnitude.values, strict=True):
        if -5 < a < SHAPE[1] + 5 and -5 < b < SHAPE[0] + 5:
            level += 3000 * 10 ** (-0.4 * (magnitude - 9)) * np.exp(-((u - a) ** 2 + (v - b) ** 2) / (2 * 1.4**2))
    header = fits.Header()
    header.update({"RA": CENTRE[0], "DEC": CENTRE[1] + 0.4, "FOCALLEN": FOCAL, "XPIXSZ": PIXEL, "IMAGETYP": "Light",
                   "EXPTIME": 30.0, "DATE-OBS": "2024-08-01T22:00:00", "INSTRUME": "painted"})  # fmt: skip
    path = tmp_path_factory.mktemp("field") / "light.fits"
    pixels = np.clip(rng.normal(level, np.sqrt(level)), 0, 65535).astype(np.uint16)
    fits.PrimaryHDU(pixels, header).writeto(path)
    return path


def off(solution):
    ra, dec = solution.centre
    return 3600 * np.hypot((ra - CENTRE[0]) * np.cos(np.radians(CENTRE[1])), dec - CENTRE[1])


def test_a_frame_is_solved_by_what_its_header_says(frame, tmp_path):
    solution = wb.solve(frame, out=tmp_path / "solution.fits")
    assert off(solution) < 1.0
    assert off(solution) < 3 * np.sqrt(2) * solution.centre_error
    assert solution.chance < 1e-6
    header = fits.getheader(tmp_path / "solution.fits")
    header.remove("NAXIS")  # there are no pixels in it
    np.testing.assert_allclose(WCS(header).all_pix2world(349.5, 249.5, 0), solution.centre, atol=1e-6)
    assert header["WCSNSTAR"] == solution.stars.used.sum()


def test_what_is_given_counts_more_than_the_header(frame):
    given = {"ra": "20h01m12s", "dec": "+35d12m00s", "scale": SCALE}
    assert off(wb.solve(frame, **given)) < 1.0
    with pytest.raises(NoSolutionError, match=r"light\.fits: no place on the sky"):
        wb.solve(frame, target="M 42")


def test_hints_of_headers():
    card = {"FOCALLEN": 250, "XPIXSZ": 2.9}
    assert hints_of(card | {"RA": 10.0, "DEC": -5.0}).centre == (10.0, -5.0)
    ra, dec = hints_of(card | {"OBJCTRA": "12 50 53", "OBJCTDEC": "+41 07 14"}).centre
    assert (round(ra, 3), round(dec, 3)) == (192.721, 41.121)
    assert hints_of(card | {"OBJECT": "ngc4736"}).centre == pytest.approx((192.72, 41.12), abs=0.01)
    assert hints_of(card | {"OBJECT": "my garden"}).centre is None
    assert hints_of(card, scale=1.5).scale == 1.5


def test_bad_input_is_refused_in_words(frame):
    with pytest.raises(WorkbenchError, match="its scale is not known; give the focal length"):
        hints_of({"RA": 10.0, "DEC": -5.0})
    with pytest.raises(WorkbenchError, match="no hint is named focal; there are ra"):
        wb.solve(frame, focal=50)
    with pytest.raises(WorkbenchError, match="RA and Dec belong together"):
        wb.solve(frame, ra=10.0)
    with pytest.raises(WorkbenchError, match="'noon' is not an angle"):
        wb.solve(frame, ra="noon", dec=0)
    with pytest.raises(WorkbenchError, match="focal length -3 is none"):
        wb.solve(frame, focal_length=-3)
    with pytest.raises(WorkbenchError, match="is an input"):
        wb.solve(frame, out=frame)


def test_a_small_field_without_a_direction_is_not_guessed(frame):
    known = {key: value for key, value in known_of(frame).items() if key not in ("RA", "DEC")}
    with pytest.raises(NoSolutionError, match=r"no direction is known, and its field of 2\.9° is too small"):
        solve_stars(*picture_stars(frame), hints_of(known))


@pytest.mark.slow
def test_a_stack_and_its_picture_carry_the_solution(real_data, tmp_path):
    folder = tmp_path / "m94" / "light"
    folder.mkdir(parents=True)
    for number in ("08", "10"):
        (folder / f"light_{number}.fits.fz").symlink_to(
            real_data / "seestar-m94" / "lights" / f"light_{number}.fits.fz"
        )
    result = wb.stack_folder(tmp_path / "m94", tmp_path / "stack.fits", progress=False)
    assert any(line.startswith("plate solution: centre RA 192.7") for line in result.plan)
    solved = wb.solve(tmp_path / "stack.fits")
    there = WCS(fits.getheader(tmp_path / "stack.fits"), naxis=2).all_pix2world(500.0, 900.0, 0)
    np.testing.assert_allclose(there, solved.wcs.all_pix2world(500.0, 900.0, 0), atol=0.2 / 3600)
    done = wb.finish_stack(tmp_path / "stack.fits", tmp_path / "picture.fits", progress=False)
    cut = done.picture.attrs["crop"]
    again = world_coordinates(done.picture).all_pix2world(500.0 - cut[2], 900.0 - cut[0], 0)
    np.testing.assert_allclose(again, there, atol=1e-9)
    assert any("catalogued stars can be measured; 6 are needed" in text for text in done.warnings)
