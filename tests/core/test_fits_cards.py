"""The cards that files of every kind have alike."""

import os

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from workbench.core.cube import make_cube
from workbench.core.errors import FrameReadError
from workbench.core.fits_cards import (
    RECORD,
    observation,
    put_cards,
    put_plane,
    put_seal,
    record_of,
    require_sealed,
    seal,
    wcs_cards,
    with_gaps,
    without_gaps,
)

HEADER = {
    "OBJECT": "M 31", "RA": 10.68, "OBJCTRA": "00 42 44", "PIXSIZE1": 3.8, "SITELAT": "50 10 00", "OBSERVER": "A. Name",
    "FOCALLEN": 530.0,
}  # fmt: skip


def lights(**coords):
    given = {"exposure": [60.0, 60.0, 120.0], "filename": ["a", "b", "c"], "temperature": [-10.0, -9.8, np.nan]}
    return make_cube(np.zeros((3, 4, 4), "uint16"), cfa_pattern="mono", kind="light", **given | coords)


def test_dates_are_the_first_start_the_mean_middle_and_the_last_end():
    time = np.array(["2026-01-01T23:58", "2026-01-02T00:02", "2026-01-02T00:00"], "datetime64[ns]")
    cards = observation(lights(time=time), "b", {})
    assert cards["DATE-OBS"] == "2026-01-01T23:58:00.000"
    assert cards["DATE-AVG"] == "2026-01-02T00:00:40.000"  # of 23:58:30, 00:02:30 and 00:01:00
    assert cards["DATE-END"] == "2026-01-02T00:03:00.000"
    assert not [key for key in observation(lights(), "b", {}) if key.startswith("DATE")]


def test_the_reference_gives_setting_and_object_and_its_site_only_if_asked():
    coords = {"gain_setting": [100.0, 0.0, 0.0], "offset_setting": 50.0, "filter": "Ha", "binning": 2.0}
    cards = observation(lights(**coords), "b", HEADER)
    assert (cards["GAIN"], cards["OFFSET"], cards["FILTER"], cards["YBINNING"]) == (0, 50, "Ha", 2)
    assert cards["CCD-TEMP"] == pytest.approx(-9.9)
    assert (cards["OBJECT"], cards["RA"], cards["OBJCTRA"], cards["XPIXSZ"]) == ("M 31", 10.68, "00 42 44", 3.8)
    assert not {"SITELAT", "OBSERVER", "ISOSPEED"} & set(cards)
    assert observation(lights(**coords), "b", HEADER, site=True)["SITELAT"] == "50 10 00"


def test_cards_are_what_fits_allows():
    header = fits.PrimaryHDU(np.zeros((2, 2), np.float32)).header
    put_cards(header, {"OBJECT": "x" * 68, "EGAIN": (1.0, "own comment"), "RA": None})
    put_plane(header, "VARIANCE", "adu")
    fits.PrimaryHDU(header=header).verify("exception")
    assert (header["BUNIT"], header["UTYPE"]) == ("adu2", "VarianceUncertainty")
    assert "RA" not in header


def test_gaps_come_back():
    signal = np.array([[1.0, np.nan], [0.0, -2.0]], np.float32)
    stored, mask = without_gaps(signal, np.array([[2, 0], [0, 0]], np.uint8))
    assert np.isfinite(stored).all()
    assert mask.tolist() == [[2, 1], [0, 0]]
    np.testing.assert_array_equal(with_gaps(stored, mask), signal)


def test_the_record_is_found_in_any_header():
    hdus = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((2, 2)))])
    assert record_of(hdus) == ""
    hdus[1].header[RECORD] = "{}"
    assert record_of(hdus) == "{}"


@pytest.mark.parametrize(
    "scale",
    [
        {"CD1_1": -2e-4, "CD1_2": 3e-5, "CD2_1": 4e-5, "CD2_2": 1.9e-4},
        {"CDELT1": -2e-4, "CDELT2": 2e-4, "CROTA2": 20.0},
        {"CDELT1": -2e-4, "CDELT2": 2e-4, "PC1_1": 0.9, "PC1_2": 0.3, "PC2_1": -0.2, "PC2_2": 0.95},
    ],
)
@pytest.mark.parametrize("flipped", [False, True])
def test_a_plate_solution_points_every_pixel_to_the_same_place_of_the_sky(scale, flipped):
    where = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.7, "CRVAL2": 41.3, "CRPIX1": 60.0, "CRPIX2": 35.0}
    height, (top, left) = 100, (6, 8)
    cards = wcs_cards(where | scale | {"GAIN": 100}, (top, left), height if flipped else 0)
    assert "GAIN" not in cards
    x, y = np.array([8.0, 60.0, 119.0]), np.array([6.0, 35.0, 90.0])  # of the file's pixels, from 0
    before = WCS(fits.Header(where | scale)).all_pix2world(x, y, 0)
    upright = height - 1 - y if flipped else y
    after = WCS(fits.Header(cards)).all_pix2world(x - left, upright - top, 0)
    np.testing.assert_allclose(after, before, atol=1e-9)


def test_a_solution_that_cannot_be_turned_and_a_header_without_one_give_nothing():
    header = {
        "CTYPE1": "RA---TAN-SIP",
        "CTYPE2": "DEC--TAN-SIP",
        "CRPIX1": 6.0,
        "CRPIX2": 3.0,
        "CD2_2": 1e-4,
        "A_ORDER": 2,
    }
    assert wcs_cards(header, (0, 0)) == header
    assert wcs_cards(header, (0, 0), 100) == {}
    assert wcs_cards({"RA": 10.0, "EQUINOX": 2000.0}, (0, 0)) == {}


def test_a_sealed_file_is_that_of_the_standard_and_shows_any_change(tmp_path):
    rng = np.random.default_rng(5)
    hdus = fits.HDUList([fits.PrimaryHDU(rng.normal(size=(40, 50)).astype(np.float32))])
    hdus.append(fits.ImageHDU(rng.integers(0, 65535, (30, 20)).astype(np.uint16)))
    hdus.append(fits.BinTableHDU.from_columns([fits.Column("a", "D", array=np.arange(9.0))]))
    for hdu in hdus:
        put_seal(hdu.header)
    path = tmp_path / "a.fits"
    hdus.writeto(path)
    seal(path)
    require_sealed(path)
    with fits.open(path, checksum=True) as opened:  # astropy warns, and warnings are errors here
        assert all(int(hdu.header["DATASUM"]) > 0 for hdu in opened)
    before = path.read_bytes()
    seal(path)
    assert path.read_bytes() == before
    for place in (100, 2880 + 4000, len(before) - 2880 + 5):  # of a header, of pixels, of the table
        path.write_bytes(before[:place] + bytes([before[place] ^ 1]) + before[place + 1 :])
        os.utime(path, ns=(0, place))
        with pytest.raises(FrameReadError, match="checksum of its unit|header"):
            require_sealed(path)
    path.write_bytes(before[:-2880])
    with pytest.raises(FrameReadError, match="is cut short"):
        require_sealed(path)
