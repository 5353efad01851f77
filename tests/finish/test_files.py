import hashlib
import io
import json
import os
import shutil
import struct
import sys

import numpy as np
import pytest
import tifffile
from astropy.io import fits
from PIL import Image, ImageCms

from workbench.core.errors import FrameReadError, StageError, WorkbenchError
from workbench.finish import (
    apply_stretch,
    make_picture,
    quantise,
    read_picture,
    srgb_profile,
    stretch_parameters,
    write_picture,
)
from workbench.finish.files import read_png, write_png

SETTINGS = {"version": 1, "stretch": {"method": "asinh", "sky": None}}


@pytest.fixture(scope="module")
def linear():
    rng = np.random.default_rng(0)
    signal = rng.normal(10, 3, (3, 70, 301)).astype("float32")
    signal[:, 20, 30] = np.nan
    return make_picture(
        signal,
        np.full(signal.shape, 9.0),
        coverage=np.full(signal.shape, 7, np.uint16),
        saturated=signal > 17,
        attrs={"history": ["Stacked: 7 frames, σ = 3 e⁻."], "exposure": 60.0, "color_matrix": np.eye(3), "nan": np.nan},
    )


@pytest.fixture(scope="module")
def stretched(linear):
    return apply_stretch(linear, stretch_parameters(linear))


@pytest.fixture(scope="module")
def mono(linear):
    one = linear.isel(channel=[1]).assign_coords(channel=["mono"])
    return apply_stretch(one, stretch_parameters(one))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.fits", "a.xisf"])
@pytest.mark.parametrize("kind", ["stretched", "mono"])
def test_a_stretched_picture_comes_back(tmp_path, request, name, kind):
    picture = request.getfixturevalue(kind)
    path = write_picture(picture, tmp_path / name, settings=SETTINGS)
    back = read_picture(path)
    exact = name in ("a.fits", "a.xisf")
    wanted = picture.signal.values if exact else np.nan_to_num(picture.signal.values)
    np.testing.assert_allclose(back.signal, wanted, atol=0 if exact else 0.5001 / 65535)
    assert back.attrs["stage"] == "stretched"
    assert back.attrs["history"] == picture.attrs["history"]
    assert back.attrs["settings"] == SETTINGS
    assert back.attrs["exposure"] == 60.0
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["a.tif", "a.fits", "a.xisf"])
def test_a_linear_picture_comes_back_bit_for_bit(tmp_path, linear, name):
    back = read_picture(write_picture(linear, tmp_path / name))
    np.testing.assert_array_equal(back.signal, linear.signal)
    assert back.attrs["stage"] == "stacked"
    assert back.attrs["units"] == "electron"
    assert back.attrs["history"] == linear.attrs["history"]
    np.testing.assert_array_equal(back.attrs["color_matrix"], np.eye(3))
    if name == "a.fits":
        for plane in ("variance", "coverage", "saturated"):
            np.testing.assert_array_equal(back[plane], linear[plane])


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.fits", "a.xisf"])
def test_the_same_picture_gives_the_same_bytes(tmp_path, stretched, name):
    hashes = set()
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        path = write_picture(stretched, tmp_path / str(number) / name, settings=SETTINGS)
        hashes.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(hashes) == 1


def test_png_is_read_by_others(tmp_path, stretched, mono, siril):
    for picture, mode in ((stretched, "RGB"), (mono, "I;16")):
        path = write_picture(picture, tmp_path / "a.png")
        with Image.open(path) as image:
            image.load()
            assert image.mode == mode
            assert image.info["icc_profile"] == srgb_profile(picture.sizes["channel"])
            values = np.asarray(image)
        expected = quantise(picture)
        np.testing.assert_array_equal(values, expected >> 8 if mode == "RGB" else expected)
    write_picture(stretched, tmp_path / "a.png")
    siril(tmp_path, "load a.png", "save b")  # an independent reader of all sixteen bits: libpng
    with fits.open(tmp_path / "b.fit") as file:
        seen = np.flip(file[0].data, axis=1).astype(float)  # Siril counts rows from the bottom
    expected = np.moveaxis(quantise(stretched), -1, 0)
    scale = 65535 if seen.max() <= 1.5 else 1
    np.testing.assert_allclose(seen * scale, expected, atol=0.51)


def test_tiff_is_read_by_others(tmp_path, stretched, linear):
    path = write_picture(stretched, tmp_path / "a.tif")
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        assert page.dtype == np.uint16
        assert page.photometric.name == "RGB"
        assert bytes(page.tags[34675].value) == srgb_profile()
        assert json.loads(page.description)["stage"] == "stretched"
    assert tifffile.imread(write_picture(stretched, tmp_path / "b.tif", bits=32)).dtype == np.float32
    assert tifffile.imread(write_picture(linear, tmp_path / "c.tif")).dtype == np.float32


def test_xisf_says_what_its_values_span(tmp_path, linear, stretched):
    from xisf import XISF

    for picture, low, high in ((stretched, 0, 1), (linear, float(linear.signal.min()), float(linear.signal.max()))):
        meta = XISF(str(write_picture(picture, tmp_path / "a.xisf"))).get_images_metadata()[0]
        bounds = [float(value) for value in meta["bounds"].split(":")]
        np.testing.assert_allclose(bounds, [min(low, 0), max(high, 1)], rtol=1e-6)


def test_xisf_without_its_package_is_said(tmp_path, stretched, monkeypatch):
    monkeypatch.setitem(sys.modules, "xisf", None)
    with pytest.raises(WorkbenchError, match="pip install xisf"):
        write_picture(stretched, tmp_path / "a.xisf")


def test_fits_is_plain_fits(tmp_path, linear):
    path = write_picture(linear, tmp_path / "a.fits", settings=SETTINGS)
    with fits.open(path) as file:
        file.verify("exception")
        assert file[0].data.shape == (3, 70, 301)
        assert file[0].data.dtype == np.dtype(">f4")
        assert [hdu.name for hdu in file[1:]] == ["MASK", "VARIANCE", "COVERAGE", "SATURATED"]
        assert file[0].header["BUNIT"] == "electron"
        assert "7 frames" in str(file[0].header["HISTORY"])
        assert json.loads(file[0].header["WORKBNCH"])["settings"] == SETTINGS


def test_jpeg_has_the_pixels_the_profile_and_the_record(tmp_path, stretched, mono):
    for picture in (stretched, mono):
        path = write_picture(picture, tmp_path / "a.jpg", settings=SETTINGS)
        with Image.open(path) as image:
            values = np.asarray(image).astype(int)
            assert image.info["icc_profile"] == srgb_profile(picture.sizes["channel"])
            about = json.loads(image.info["comment"])
        wanted = quantise(picture, 8).astype(int)
        assert np.abs(values - wanted).mean() < 3
        assert abs((values - wanted).mean()) < 0.1
        assert about["settings"] == SETTINGS
        assert about["stage"] == "stretched"


def test_pixels_without_value_are_zero_for_others_and_nan_for_us(tmp_path, linear):
    gaps = linear.copy(deep=True)
    gaps["signal"][:, :7] = np.nan
    path = write_picture(gaps, tmp_path / "a.fits")
    with fits.open(path) as file:
        assert np.isfinite(file[0].data).all()
        np.testing.assert_array_equal(file["MASK"].data > 0, np.isnan(gaps.signal.values))
    np.testing.assert_array_equal(read_picture(path).signal.values, gaps.signal.values)


def test_siril_opens_pictures_with_the_same_statistics(tmp_path, linear, stretched, mono, siril_levels):
    gaps = linear.copy(deep=True)
    gaps["signal"][:, :7] = np.nan
    for picture, scale in ((gaps, 1), (stretched, 65535), (mono, 65535)):
        signal = np.where(picture.signal.values == 0, np.nan, picture.signal.values * scale)  # black counts as missing
        wanted = [[np.nanmean(plane), np.nanmedian(plane)] for plane in signal]
        found = siril_levels(write_picture(picture, tmp_path / "a.fits"))[:, :2]
        np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=0.06)


def test_profiles_are_what_they_say():
    for channels, space in ((3, "RGB "), (1, "GRAY")):
        content = srgb_profile(channels)
        assert struct.unpack(">I", content[:4])[0] == len(content)
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        assert profile.profile.xcolor_space == space
        assert "sRGB" in ImageCms.getProfileDescription(profile)
    # the grey curve takes 0.5 to the linear light that sRGB has there
    grey = ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile(1)))
    lab = ImageCms.buildTransform(grey, ImageCms.createProfile("LAB"), "L", "LAB")
    lightness = np.asarray(ImageCms.applyTransform(Image.new("L", (1, 1), 128), lab))[0, 0, 0] / 2.55
    assert lightness == pytest.approx(53.6, abs=0.6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(1, 1), (300, 7, 3), (513, 31), (256, 9, 3)])
def test_png_round_trip_of_noise_and_of_smooth_values(dtype, shape, tmp_path):
    rng = np.random.default_rng(0)
    top = np.iinfo(dtype).max
    noisy = rng.integers(0, top, shape, dtype=dtype, endpoint=True)
    smooth = (np.linspace(0, top, noisy.size).reshape(shape)).astype(dtype)
    for values in (noisy, smooth):
        write_png(tmp_path / "a.png", values, b"abc", {"Comment": "e⁻ ✓"})
        back, profile, texts = read_png(tmp_path / "a.png")
        np.testing.assert_array_equal(back, values)
        assert back.dtype == dtype
        assert profile == b"abc"
        assert texts == {"Comment": "e⁻ ✓"}
    assert (tmp_path / "a.png").stat().st_size < 0.8 * smooth.nbytes + 300  # smooth values do compress


def test_png_of_others_with_every_filter(tmp_path):
    rng = np.random.default_rng(0)
    values = np.cumsum(rng.integers(0, 3, (64, 80, 3)), axis=1).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png", optimize=True)  # libpng's choice of filters, row by row
    back, _, _ = read_png(tmp_path / "a.png")
    np.testing.assert_array_equal(back, values)


def test_damaged_png_is_said(tmp_path, stretched):
    path = write_picture(stretched, tmp_path / "a.png")
    content = path.read_bytes()
    for cut in (20, len(content) // 2, len(content) - 6):
        path.write_bytes(content[:cut])
        with pytest.raises(FrameReadError, match="damaged"):
            read_picture(path)
    spoilt = bytearray(content)
    spoilt[len(content) // 2] ^= 1
    path.write_bytes(spoilt)
    with pytest.raises(FrameReadError, match="checksum"):
        read_picture(path)


def test_files_of_other_programs(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.random((3, 40, 50)).astype("float32")
    fits.PrimaryHDU(values).writeto(tmp_path / "s.fit")
    assert read_picture(tmp_path / "s.fit").attrs["stage"] == "stacked"
    adu = rng.integers(0, 65535, (40, 50), dtype=np.uint16)
    fits.PrimaryHDU(adu, fits.Header({"EXPTIME": 5.0})).writeto(tmp_path / "u.fits")
    back = read_picture(tmp_path / "u.fits")
    np.testing.assert_array_equal(back.signal[0], adu)
    assert back.attrs["units"] == "adu"
    assert back.attrs["exposure"] == 5.0
    assert back.signal.dtype.isnative
    tifffile.imwrite(tmp_path / "t.tif", np.moveaxis(values, 0, -1), photometric="rgb")
    np.testing.assert_array_equal(read_picture(tmp_path / "t.tif").signal, values)
    shutil.copy(tmp_path / "s.fit", tmp_path / "stack")  # without a suffix
    np.testing.assert_array_equal(read_picture(tmp_path / "stack").signal, values)


def test_bad_input_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    Image.fromarray(noise).save(tmp_path / "b.fits", format="JPEG")
    Image.fromarray(noise).save(tmp_path / "c.tif")
    Image.fromarray(noise).save(tmp_path / "c.png")
    fits.PrimaryHDU(np.zeros((2, 40, 50), np.float32)).writeto(tmp_path / "two.fits")
    fits.PrimaryHDU().writeto(tmp_path / "none.fits")
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "empty.xisf").write_bytes(b"")
    fits.PrimaryHDU(np.ones((64, 64), np.float32)).writeto(tmp_path / "cut.fits")
    cut = (tmp_path / "cut.fits").read_bytes()
    (tmp_path / "cut.fits").write_bytes(cut[:4000])
    for name, words in (
        ("a.jpg", "JPEG picture: 8 bits"),
        ("b.fits", "cannot be read as FITS"),
        ("c.tif", "8 bits a channel"),
        ("c.png", "8 bits a channel"),
        ("two.fits", "2 channels"),
        ("none.fits", "holds no image"),
        ("text.txt", "not a picture"),
        ("empty.xisf", "XISF"),
        ("cut.fits", "cut short"),
        ("absent.fits", "does not exist"),
        (".", "is a folder"),
    ):
        with pytest.raises(FrameReadError, match=words) as caught:
            read_picture(tmp_path / name)
        assert name.strip(".") in str(caught.value)


def test_what_cannot_be_written_is_said_and_nothing_is_left(tmp_path, linear, stretched, monkeypatch):
    with pytest.raises(StageError, match="nearly black"):
        write_picture(linear, tmp_path / "a.png")
    with pytest.raises(WorkbenchError, match=r"not written as '\.gif'"):
        write_picture(stretched, tmp_path / "a.gif")
    with pytest.raises(WorkbenchError, match="does not exist"):
        write_picture(stretched, tmp_path / "no" / "a.png")
    with pytest.raises(WorkbenchError, match="16 bits do not suit"):
        write_picture(linear, tmp_path / "a.tif", bits=16)

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("workbench.core.files.os.replace", full_disk)
    with pytest.raises(WorkbenchError, match="No space left"):
        write_picture(stretched, tmp_path / "a.png")
    assert os.listdir(tmp_path) == []
