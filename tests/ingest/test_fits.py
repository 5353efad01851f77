"""FITS frames: byte order, unsigned integers, the header's words."""

import gzip

import numpy as np
import pytest
from astropy.io import fits

from workbench.core.errors import FrameReadError
from workbench.ingest import plain_pixels, read_frame, read_metadata
from workbench.ingest.fits import bayer_pattern


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
def test_the_pattern_by_painting_the_picture(pattern, height, x, y, order):
    """Paint the upright picture pixel by pixel, store it in the order stated, and look at its first cell."""
    cell = np.array(list(pattern)).reshape(2, 2)
    upright = np.array([[cell[(row + y) % 2, (column + x) % 2] for column in range(8)] for row in range(height)])
    stored = upright[::-1] if order == "BOTTOM-UP" else upright
    header = {"BAYERPAT": pattern, "XBAYROFF": x, "YBAYROFF": y} | ({"ROWORDER": order} if order else {})
    assert bayer_pattern(header, height) == "".join(stored[:2, :2].ravel())


def test_a_pattern_that_is_not_read_is_named(tmp_path):
    with pytest.raises(FrameReadError, match=r"a\.fits: BAYERPAT is 'CYGM'"):
        read_metadata(write(tmp_path / "a.fits", mosaic(), BAYERPAT="CYGM"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((3, 20, 30), np.uint16), "holds data of size 3 x 20 x 30; a frame is one two-dimensional"),
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
