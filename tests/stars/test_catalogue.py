"""The star catalogue: known stars are where they are, whatever file they come from."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from workbench.core.errors import WorkbenchError
from workbench.stars import catalogue_stars
from workbench.stars.catalogue import unit_vectors


def test_barnards_star_moves_ten_arcseconds_a_year():
    places = []
    for year in (2016, 2026):
        stars = catalogue_stars(269.45, 4.75, 0.1, date=f"{year}-01-01T12:00:00")
        star = stars.isel(star=int(np.abs(stars["magnitude"].values - 8.19).argmin()))
        places.append((float(star.ra), float(star.dec)))
        assert float(star.bp_rp) == pytest.approx(2.83, abs=0.02)  # Gaia DR3: BP 9.79, RP 6.96
        assert float(star.b_v) == pytest.approx(1.57, abs=0.01)
    (a, b), (c, d) = places
    # van Leeuwen 2007: -0.7986 and 10.3281 arcsec a year
    assert 3600 * (d - b) / 10 == pytest.approx(10.328, abs=0.003)
    assert 3600 * (c - a) / 10 * np.cos(np.radians(b)) == pytest.approx(-0.7986, abs=0.003)


def test_a_radius_crosses_the_pole_and_the_meridian():
    for ra, dec in ((0.1, 0.0), (37.0, 89.6)):
        stars = catalogue_stars(ra, dec, 1.5)
        apart = np.linalg.norm(unit_vectors(stars.ra, stars.dec) - unit_vectors(ra, dec), axis=1)
        assert stars.sizes["star"] > 3
        assert np.degrees(apart.max()) <= 1.5
        assert (np.diff(stars.magnitude) >= 0).all()


@pytest.fixture
def faint(tmp_path):
    """A user's table about M 94: one star that Gaia DR3 of the package holds, and one too faint for it."""
    table = Table({
        "ra": [193.46514689, 193.05], "dec": [41.82281025, 40.97], "phot_g_mean_mag": [8.378396, 14.0],
        "pmra": [0.0, 1000.0], "pmdec": [0.0, -500.0], "bp_rp": [0.85, 1.2],
    })  # fmt: skip
    return tmp_path, table


@pytest.mark.parametrize("name", ["gaia.csv", "gaia.fits", "gaia.ecsv"])
def test_a_table_of_the_users_is_found_and_preferred(faint, name):
    folder, table = faint
    table.write(folder / name)
    stars = catalogue_stars(193.04, 41.4, 1.0, date="2026-01-01T12:00:00", folders=[folder])
    own = stars.isel(star=stars.source.values == "gaia")
    assert own.magnitude.values.round(2).tolist() == [8.38, 14.0]
    assert np.sum(np.abs(stars.magnitude.values - 8.378396) < 1e-3) == 1
    assert 3600 * (40.97 - float(own.dec[1])) == pytest.approx(5.0, abs=0.01)
    assert 3600 * (float(own.ra[1]) - 193.05) * np.cos(np.radians(40.97)) == pytest.approx(10.0, abs=0.01)


@pytest.mark.parametrize("order", ["<", ">"])
def test_an_index_file_of_astrometry_net_is_read(tmp_path, order):
    places = unit_vectors(np.array([193.0, 193.1]), np.array([41.0, 41.1]))
    numbers = np.round((places + 1) * (2.0**31 - 1)).astype(f"{order}u4")

    def bytes_of(name, values):
        raw = np.frombuffer(values.tobytes(), np.uint8).reshape(len(values), -1)
        return fits.BinTableHDU.from_columns([fits.Column(name, f"{raw.shape[1]}B", array=raw)])

    extent = np.array([[-1.0, -1, -1, 1, 1, 1, 2.0**31 - 1]], f"{order}f8").T
    head = fits.BinTableHDU.from_columns([fits.Column("kdtree_header_stars", "1B", array=[0])])
    head.header["ENDIAN"] = "04:03:02:01" if order == "<" else "01:02:03:04"
    magnitudes = fits.BinTableHDU.from_columns([fits.Column("MAG_VT", "E", array=[11.0, 12.0])])
    hdus = [
        fits.PrimaryHDU(),
        head,
        bytes_of("kdtree_range_stars", extent),
        bytes_of("kdtree_data_stars", numbers),
        magnitudes,
    ]
    fits.HDUList(hdus).writeto(tmp_path / "index-tycho2-07.fits")
    stars = catalogue_stars(193.05, 41.05, 0.2, folders=[tmp_path])
    own = stars.isel(star=stars.source.values == "Tycho-2")
    np.testing.assert_allclose(own.ra, [193.0, 193.1], atol=1e-6)
    np.testing.assert_allclose(own.dec, [41.0, 41.1], atol=1e-6)
    np.testing.assert_allclose(own.magnitude, [10.68, 11.68], atol=1e-5)


def test_bad_input_is_refused_in_words(tmp_path, monkeypatch):
    with pytest.raises(WorkbenchError, match=r"Dec 95.*\|Dec\| up to 90"):
        catalogue_stars(10.0, 95.0, 1.0)
    with pytest.raises(WorkbenchError, match="'last night' is not a date"):
        catalogue_stars(10.0, 5.0, 1.0, date="last night")
    (tmp_path / "mine.csv").write_text("x,y\n1,2\n")
    with pytest.raises(WorkbenchError, match=r"mine\.csv has no column dec, phot_g_mean_mag, ra"):
        catalogue_stars(10.0, 5.0, 1.0, folders=[tmp_path])
    monkeypatch.setenv("WORKBENCH_CATALOGUES", str(tmp_path / "gone"))
    with pytest.raises(WorkbenchError, match="no such folder of star catalogues"):
        catalogue_stars(10.0, 5.0, 1.0)
