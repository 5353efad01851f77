"""The cards that files of every kind have alike."""

import numpy as np
import pytest
from astropy.io import fits

from workbench.core.cube import make_cube
from workbench.core.fits_cards import RECORD, observation, put_cards, put_plane, record_of, with_gaps, without_gaps

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
