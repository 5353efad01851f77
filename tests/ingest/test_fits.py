"""FITS frames: byte order, unsigned integers, the header's words."""

import gzip

import numpy as np
import pytest
from astropy.io import fits

from workbench.core.errors import FrameReadError
from workbench.ingest import plain_pixels, read_frame, read_metadata


def write(path, data, hdu=fits.PrimaryHDU, **words):
    header = fits.Header()
    for word, value in words.items():
        header[word.replace("_", "-")] = value
    unit = hdu(data, header)
    units = [unit] if hdu is fits.PrimaryHDU else [fits.PrimaryHDU(), unit]
    fits.HDUList(units).writeto(path)
    return path


def mosaic(dtype="uint16", shape=(31, 42)):
    return np.random.default_rng(2).integers(0, 65536, shape).astype(dtype)


def test_m13_as_stated(real_data):
    path = real_data / "m13" / "M13_blue_0001.fits"
    info = read_metadata(path)
    assert (info.height, info.width, info.cfa_pattern, info.dtype) == (1040, 1392, "mono", "uint16")
    assert (info.exposure, info.camera, info.imagetyp) == (5, "Orion SSDSI", "Light Frame")
    assert info.time == np.datetime64("2013-05-05T04:09:39")
    pixels = read_frame(path)
    with fits.open(path) as units:
        np.testing.assert_array_equal(pixels, units[0].data)
    assert pixels.dtype.isnative


def test_the_d7000_crops_with_their_old_dates(real_data):
    info = read_metadata(real_data / "d7000-flats" / "crop_1.fit")
    assert info.time == np.datetime64("2014-07-15T18:07:40")
    assert info.exposure == 0.0333
    pixels = read_frame(real_data / "d7000-flats" / "crop_1.fit")
    assert pixels.dtype == np.uint16
    with fits.open(info.path) as units:
        np.testing.assert_array_equal(pixels, units[0].data)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [("uint16", "uint16"), ("float32", "float32"), ("float64", "float64"), ("int32", "float64"), ("uint32", "float64")],
)
def test_pixels_come_in_native_order(tmp_path, stored, expected):
    data = mosaic(stored)
    path = write(tmp_path / "a.fits", data)
    pixels = read_frame(path)
    assert pixels.dtype == np.dtype(expected) == np.dtype(read_metadata(path).dtype)
    assert pixels.dtype.isnative
    np.testing.assert_array_equal(pixels, data)
    plain = plain_pixels(path)
    assert (plain is not None) == (stored in ("uint16", "float32", "float64"))
    if plain is not None:
        np.testing.assert_array_equal(plain.read(slice(3, 9), slice(4, 5)), data[3:9, 4:5])


def test_signed_integers_without_negatives_are_a_frame(tmp_path):
    data = np.arange(1024, dtype=np.int16).reshape(32, 32)
    assert read_frame(write(tmp_path / "a.fits", data)).dtype == np.uint16
    path = write(tmp_path / "b.fits", data - 5)
    with pytest.raises(FrameReadError, match=r"b\.fits has values below zero \(-5\)"):
        read_frame(path)


def test_scaled_integers_come_as_floats_with_blanks_as_nan(tmp_path):
    path = tmp_path / "a.fits"
    unit = fits.PrimaryHDU(np.arange(12, dtype=np.int16).reshape(3, 4))
    unit.header["BSCALE"] = 0.5
    unit.header["BZERO"] = 10
    unit.header["BLANK"] = 11
    unit.writeto(path)
    pixels = read_frame(path)
    assert pixels.dtype == np.float64
    assert pixels[0, 3] == 11.5
    assert np.isnan(pixels[2, 3])


@pytest.mark.parametrize("name", ["a.fits.gz", "a.fits", "a.fit.fz"])
def test_compressed_files_are_read(tmp_path, name):
    data = mosaic(shape=(40, 50))
    path = tmp_path / name
    if name.endswith(".fz"):
        write(path, data, fits.CompImageHDU, EXPTIME=3.0)
    else:
        plain = write(tmp_path / "plain.fits", data, EXPTIME=3.0)
        path.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_metadata(path).exposure == 3
    assert plain_pixels(path) is None
    np.testing.assert_array_equal(read_frame(path), data)


def test_an_image_behind_an_empty_unit_is_found(tmp_path):
    data = mosaic()
    np.testing.assert_array_equal(read_frame(write(tmp_path / "a.fits", data, fits.ImageHDU)), data)


def test_one_plane_of_a_cube_is_a_frame(tmp_path):
    data = mosaic()
    np.testing.assert_array_equal(read_frame(write(tmp_path / "a.fits", data[None])), data)


def test_the_words_of_capture_programs(tmp_path):
    path = write(
        tmp_path / "a.fits",
        mosaic(),
        EXPOSURE=60.0,
        ISOSPEED=800,
        CCD_TEMP=-9.7,
        GAIN=0,
        EGAIN=0.34,
        CAMERA="ZWO ASI2600MC",
        IMAGETYP="Dark Frame",
        DATE_OBS="2024-05-12T22:01:02.5",
        BAYERPAT="GRBG",
    )
    info = read_metadata(path)
    assert (info.exposure, info.iso, info.temperature, info.egain) == (60, 800, -9.7, 0.34)
    assert (info.camera, info.imagetyp, info.cfa_pattern) == ("ZWO ASI2600MC", "Dark Frame", "GRBG")
    assert info.time == np.datetime64("2024-05-12T22:01:02.5")
    assert np.isnan(info.black_level).all()
    assert len(info.black_level) == 4


def test_gain_is_a_setting_and_not_read(tmp_path):
    info = read_metadata(write(tmp_path / "a.fits", mosaic(), GAIN=139))
    assert np.isnan(info.egain)
    assert np.isnan(info.iso)


@pytest.mark.parametrize("pattern", ["RGGB", "GRBG", "GBRG", "BGGR"])
@pytest.mark.parametrize("height", [6, 7])
@pytest.mark.parametrize(("x", "y"), [(0, 0), (1, 0), (0, 1), (3, 5)])
@pytest.mark.parametrize("order", [None, "TOP-DOWN", "BOTTOM-UP"])
def test_the_mosaic_by_painting_the_picture(tmp_path, pattern, height, x, y, order):
    """Paint the upright picture pixel by pixel, store it in the order stated, and look at what is read."""
    cell = np.array([ord(colour) for colour in pattern], np.uint16).reshape(2, 2)
    upright = np.array([[cell[(row + y) % 2, (column + x) % 2] for column in range(8)] for row in range(height)])
    header = {"BAYERPAT": pattern, "XBAYROFF": x, "YBAYROFF": y} | ({"ROWORDER": order} if order else {})
    path = write(tmp_path / "a.fits", upright[::-1] if order == "BOTTOM-UP" else upright, **header)
    pixels = read_frame(path)
    np.testing.assert_array_equal(pixels, upright)
    assert read_metadata(path).cfa_pattern == "".join(map(chr, pixels[:2, :2].ravel()))


def in_file(upright, form):
    """The picture as a file of this form, bottom-up, keeps it."""
    return {"int32": upright.astype("int32"), "float32": upright.astype("float32")}.get(form, upright)[::-1]


@pytest.mark.parametrize("form", ["uint16", "float32", "int32", "packed"])
def test_a_bottom_up_file_is_turned_upright_in_every_band(tmp_path, form):
    upright = mosaic()
    kind = fits.CompImageHDU if form == "packed" else fits.PrimaryHDU
    path = write(tmp_path / "a.fits", in_file(upright, form), kind, ROWORDER="BOTTOM-UP")
    np.testing.assert_array_equal(read_frame(path), upright)
    plain = plain_pixels(path)
    assert (plain is None) == (form in ("int32", "packed"))
    if plain is None:
        return
    band = np.zeros(42 * 31, plain.dtype)
    for first, last in ((0, 1), (0, 31), (3, 20), (30, 31), (5, 5), (11, 13)):
        np.testing.assert_array_equal(plain.read(slice(first, last), slice(4, 9)), upright[first:last, 4:9])
        plain.read_rows(first, last, band)
        np.testing.assert_array_equal(band[: (last - first) * 42].reshape(-1, 42), upright[first:last])


# windows: 31 rows and 42 columns, of which light reaches rows 5 to 28 and columns 3 to 40 of the upright picture


def sections(order):
    rows = "3:26" if order == "BOTTOM-UP" else "6:29"
    return {"TRIMSEC": f"[4:41,{rows}]", "DATASEC": f"[41:4,{rows}]"}


@pytest.mark.parametrize("order", ["TOP-DOWN", "BOTTOM-UP"])
@pytest.mark.parametrize("key", ["TRIMSEC", "DATASEC"])
@pytest.mark.parametrize("form", ["uint16", "float32", "int32", "packed"])
def test_a_frame_is_trimmed_to_the_pixels_that_light_reaches(tmp_path, order, key, form):
    upright = mosaic()
    stored = in_file(upright, form) if order == "BOTTOM-UP" else in_file(upright, form)[::-1]
    kind = fits.CompImageHDU if form == "packed" else fits.PrimaryHDU
    words = {key: sections(order)[key], "BAYERPAT": "RGGB", "ROWORDER": order}
    path = write(tmp_path / "a.fits", stored, kind, **words)
    info = read_metadata(path)
    assert (info.height, info.width, info.margins, info.full_shape) == (24, 38, (5, 3), (31, 42))
    assert (info.cfa_pattern, info.doubts) == ("BGGR", ())
    np.testing.assert_array_equal(read_frame(path), upright[5:29, 3:41])
    np.testing.assert_array_equal(read_frame(path, area="full"), upright)
    if (plain := plain_pixels(path)) is not None:
        np.testing.assert_array_equal(plain.read(slice(7, 12), slice(2, None)), upright[12:17, 5:41])


@pytest.mark.parametrize(
    ("overscan", "window"),
    [("[1:6,1:31]", (0, 6, 31, 36)), ("[37:42,1:31]", (0, 0, 31, 36)), ("[1:42,30:31]", (0, 0, 29, 42))],
)
def test_an_overscan_alone_is_cut_off(tmp_path, overscan, window):
    info = read_metadata(write(tmp_path / "a.fits", mosaic(), BIASSEC=overscan))
    assert (*info.margins, info.height, info.width) == window


@pytest.mark.parametrize("section", ["[50:91,10:40]", "[1:42,1:31]"])
def test_a_frame_that_was_trimmed_stays_whole(tmp_path, section):
    info = read_metadata(write(tmp_path / "a.fits", mosaic(), TRIMSEC=section))
    assert (info.height, info.width, info.doubts) == (31, 42, ())


def test_a_window_that_cannot_be_is_questioned(tmp_path):
    info = read_metadata(write(tmp_path / "a.fits", mosaic(), TRIMSEC="[50:2098,1:2048]"))
    assert (info.height, info.width) == (31, 42)
    assert info.doubts == ("TRIMSEC is '[50:2098,1:2048]', not a part of 42 x 31 pixels: the whole frame is used",)


def test_no_warning_about_header_cards_reaches_the_user(tmp_path):
    path = tmp_path / "a.fits"
    cards = [b"SIMPLE  =                    T", b"BITPIX  =                   16", b"NAXIS   =                    2"]
    cards += [b"NAXIS1  =                    4", b"NAXIS2  =                    2", b"object  = M 31 is not quoted"]
    cards += [b"FOCALLEN= 250,5", b"EXPTIME =                 30.0", b"END"]
    path.write_bytes(b"".join(card.ljust(80) for card in cards).ljust(2880) + bytes(2880))
    assert read_metadata(path).exposure == 30  # pytest makes any warning an error
    assert read_frame(path).shape == (2, 4)


# what the header says of the settings


@pytest.mark.parametrize(
    ("words", "exposure", "doubt"),
    [
        ({"EXPTIME": 2.5}, 2.5, ""),
        ({"EXPOINUS": 2_500_000}, 2.5, ""),
        ({"EXPTIME": 2500.0, "EXPOINUS": 2_500_000}, 2.5, "EXPTIME is 2500 and EXPOINUS 2.5e+06 µs: 2.5 s are used"),
        ({"EXPTIME": (2500.0, "[ms] exposure time")}, 2.5, "EXPTIME is in milliseconds"),
    ],
)
def test_exposures_in_other_units(tmp_path, words, exposure, doubt):
    info = read_metadata(write(tmp_path / "a.fits", mosaic(), **words))
    assert info.exposure == pytest.approx(exposure)
    assert info.doubts == ((doubt,) if doubt else ())


@pytest.mark.parametrize(
    ("words", "temperature", "doubt"),
    [
        ({"CCD_TEMP": -10.0, "SET_TEMP": -10.0}, -10, ""),
        ({"CCD_TEMP": -10.0}, -10, ""),
        ({"CCD_TEMP": 263.15}, -10, "CCD-TEMP is in kelvin and taken as such"),
        ({"CCD_TEMP": -4.0, "SET_TEMP": -10.0}, -4, "the sensor was at -4 °C, set to -10 °C: the measured one is used"),
        ({"CCD_TEMP": 999.0}, np.nan, "CCD-TEMP is 999: no temperature of a sensor, taken as not recorded"),
        ({"CAMTEMP": "17 C"}, 17, ""),
        ({"SET_TEMP": -10.0}, np.nan, ""),
    ],
)
def test_temperatures_measured_wanted_and_in_kelvin(tmp_path, words, temperature, doubt):
    info = read_metadata(write(tmp_path / "a.fits", mosaic(), **words))
    assert info.temperature == pytest.approx(temperature, nan_ok=True)
    assert info.doubts == ((doubt,) if doubt else ())


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"IMAGETYP": "Master Dark"}, "IMAGETYP 'Master Dark'"),
        ({"STACKCNT": 30}, "STACKCNT 30"),
        ({"NCOMBINE": 12}, "NCOMBINE 12"),
        ({"NCOMBINE": 1, "TOTALEXP": 10.0}, ""),
        ({"HISTORY": "ImageIntegration.numberOfImages: 20"}, "HISTORY ImageIntegration"),
    ],
)
def test_what_is_no_raw_frame_is_known_by_its_header(tmp_path, words, reason):
    assert read_metadata(write(tmp_path / "a.fits", mosaic(), **words)).derived == reason


def test_a_frame_that_was_calibrated_is_questioned(tmp_path):
    assert read_metadata(write(tmp_path / "a.fits", mosaic(), CALSTAT="BDF")).doubts == (
        "CALSTAT is 'BDF': calibrated already, calibrated again it is wrong; give the raw frame",
    )


def test_a_pattern_that_is_not_read_is_named(tmp_path):
    with pytest.raises(FrameReadError, match=r"a\.fits: BAYERPAT is 'CYGM'"):
        read_metadata(write(tmp_path / "a.fits", mosaic(), BAYERPAT="CYGM"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((4, 20, 30), np.uint16), "holds data of size 4 x 20 x 30"),
        (np.zeros((20, 30), np.uint8), "has eight bits a pixel"),
        (np.zeros(30, np.uint16), "holds data of size 30"),
        (None, "holds no image"),
    ],
)
def test_what_is_no_frame_is_refused(tmp_path, data, message):
    path = write(tmp_path / "a.fits", data)
    for read in (read_frame, read_metadata):
        with pytest.raises(FrameReadError, match=message):
            read(path)


def test_a_table_is_no_frame(tmp_path):
    path = tmp_path / "a.fits"
    fits.BinTableHDU.from_columns([fits.Column("x", "E", array=np.arange(3.0))]).writeto(path)
    with pytest.raises(FrameReadError, match="holds no image"):
        read_frame(path)


@pytest.mark.parametrize("kept", [0.999, 0.5, 0.02])
@pytest.mark.parametrize("dtype", ["uint16", "int32"])
def test_a_cut_file_is_noticed(tmp_path, kept, dtype):
    path = write(tmp_path / "a.fits", mosaic(dtype, (300, 288)))  # fills its last record
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    for read in (read_frame, read_metadata):
        with pytest.raises(FrameReadError, match=r"a\.fits is cut short: .* bytes of the "):
            read(path)


def test_a_cut_packed_file_is_noticed(tmp_path):
    packed = gzip.compress(write(tmp_path / "plain.fits", mosaic(shape=(300, 300))).read_bytes())
    path = tmp_path / "a.fits.gz"
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(FrameReadError, match=r"a\.fits\.gz cannot be read as FITS"):
        read_frame(path)


def test_garbage_after_the_first_word_is_refused(tmp_path):
    path = tmp_path / "a.fits"
    path.write_bytes(b"SIMPLE  = what is this?" + bytes(5000))
    with pytest.raises(FrameReadError, match=r"a\.fits cannot be read as FITS"):
        read_frame(path)
