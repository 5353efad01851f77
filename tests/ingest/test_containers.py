"""TIFF, XISF and SER files as frames: the very pixels, what they record, and refusals that say what to do."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from astropy.io import fits
from scipy.ndimage import gaussian_filter

from tests.scenes import debayered
from workbench import WorkbenchError
from workbench.core.cube import digest
from workbench.core.errors import FrameReadError
from workbench.ingest import open_folder, open_frames, plain_pixels, read_frame, read_metadata
from workbench.ingest.containers import _SER_HEAD
from workbench.ingest.reader import read_header
from workbench.simulate.capture import Batch, smart_telescope, write_frames

SHAPE = (96, 128)


def mosaic(seed=1, scale=1):
    """A flat of an RGGB camera."""
    rng = np.random.default_rng(seed)
    level = np.tile([[3000.0, 5000.0], [5000.0, 2500.0]], (SHAPE[0] // 2, SHAPE[1] // 2)) * scale
    return (600 + rng.normal(level, np.sqrt(level))).round().astype("uint16")


# TIFF


@pytest.mark.parametrize("options", [{}, {"rowsperstrip": 16}, {"compression": "deflate"}, {"tile": (32, 32)}])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_linear_tiff_is_a_frame(tmp_path, options, order):
    path = tmp_path / "flats" / "flat_ISO400_2s.tif"
    path.parent.mkdir()
    tifffile.imwrite(path, mosaic(), photometric="minisblack", byteorder=order, **options)
    np.testing.assert_array_equal(read_frame(path), mosaic())
    assert read_frame(path).dtype == "uint16"
    assert (plain_pixels(path) is None) == bool({"compression", "tile"} & set(options))
    folder = open_folder(tmp_path)
    (row,) = folder.table.to_dict("records")
    assert (row["kind"], row["iso"], row["exposure"], row["cfa_pattern"]) == ("flat", 400, 2, "RGGB")
    assert [text for text in folder.warnings if "the pixels show a colour mosaic: taken for RGGB" in text]
    np.testing.assert_array_equal(folder.flat.values[0], mosaic())


def test_a_tiff_of_dcraw_records_what_its_raw_did(tmp_path, frame, require):
    raw = frame(tmp_path / "a.dng", iso=800, exposure=1 / 640)
    (tmp_path / "bias").mkdir()
    with (tmp_path / "bias" / "a.tiff").open("wb") as file:
        subprocess.run([require("dcraw"), "-4", "-D", "-T", "-c", raw], stdout=file, check=True)
    assert [path.name for path in open_folder(tmp_path).table["path"]] == ["a.dng"]
    np.testing.assert_array_equal(read_frame(tmp_path / "bias" / "a.tiff"), read_frame(raw))
    raw.unlink()
    (row,) = open_folder(tmp_path).table.to_dict("records")
    assert (row["kind"], row["iso"], row["exposure"]) == ("bias", 800, pytest.approx(1 / 640, rel=1e-3))


def test_a_float_tiff_in_adu_is_a_frame(tmp_path):
    tifffile.imwrite(tmp_path / "light_2s.tif", mosaic().astype("float32"), photometric="minisblack")
    (row,) = open_folder(tmp_path).table.to_dict("records")
    assert (row["kind"], row["dtype"]) == ("light", "float32")


@pytest.mark.parametrize(
    ("data", "options", "reason"),
    [
        (np.zeros((32, 48, 4), "uint16"), {"photometric": "rgb"}, "finished picture.*transparency"),
        (np.zeros((32, 48, 3), "uint8"), {"photometric": "rgb"}, "eight bits a pixel"),
        (np.zeros((32, 48), "uint8"), {"photometric": "minisblack"}, "eight bits a pixel.*linear TIFF of 16 bits"),
        (np.zeros((2, 32, 48), "uint16"), {"photometric": "minisblack"}, "holds 2 pictures; give one frame a file"),
        (np.zeros((32, 48), "uint16"), {"photometric": "miniswhite"}, "finished picture"),
        (np.zeros((32, 48), "int32"), {"photometric": "minisblack"}, "finished picture"),
        (np.zeros((32, 48), "uint16"), {"photometric": "minisblack", "iccprofile": b"x" * 128}, "colour profile"),
    ],
)
def test_a_tiff_that_is_no_frame_says_why(tmp_path, data, options, reason):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, data, **options)
    for function in (read_frame, read_metadata, plain_pixels):
        with pytest.raises(FrameReadError, match=reason):
            function(path)
    with pytest.raises(WorkbenchError, match=reason):
        open_folder(tmp_path)


@pytest.mark.parametrize("kept", [6, 100, 0.5, 0.99])
@pytest.mark.parametrize("options", [{}, {"compression": "deflate"}])
def test_a_tiff_cut_short_is_an_error(tmp_path, kept, options):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, mosaic(), photometric="minisblack", **options)
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(len(data) * kept)])
    with pytest.raises(FrameReadError):
        read_frame(path)


# three planes


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("rows", ["TOP-DOWN", "BOTTOM-UP"])
@pytest.mark.parametrize("pattern", ["RGGB", "BGGR", "GRBG", "GBRG"])
def test_of_a_debayered_fits_file_the_measured_samples_are_taken(tmp_path, pattern, rows, last):
    raw = np.random.default_rng(4).normal(900, 12, (64, 96)).round()
    planes = debayered(raw, pattern)
    stored = planes[:, ::-1] if rows == "BOTTOM-UP" else planes
    header = fits.Header({"IMAGETYP": "Light", "EXPTIME": 10.0, "ROWORDER": rows})
    fits.writeto(tmp_path / "a.fits", np.moveaxis(stored, 0, -1) if last else stored, header)
    folder = open_folder(tmp_path)
    assert folder.light.attrs["cfa_pattern"] == pattern
    np.testing.assert_array_equal(folder.light.values[0], raw)
    np.testing.assert_array_equal(read_frame(tmp_path / "a.fits"), raw)
    assert any("three colour planes, debayered" in text for text in folder.warnings)


def test_what_siril_debayered_is_the_raw_mosaic_again(tmp_path, siril):
    write_frames(tmp_path, smart_telescope((96, 128)), [Batch("light", 2, 60.0)])
    lights = tmp_path / "lights"
    expected = open_folder(tmp_path).light.values
    siril(lights, "convert l -debayer -out=../process")
    shutil.rmtree(lights)
    (tmp_path / "process").rename(lights)
    for path in lights.iterdir():
        path.rename(path.with_suffix(".fits")) if path.suffix == ".fit" else path.unlink()
    found = open_folder(tmp_path).light
    assert (found.attrs["cfa_pattern"], found.sizes["frame"]) == ("GRBG", 2)
    np.testing.assert_array_equal(found.values, expected)


def write_planes(path, planes, form):
    """Colour planes (3, y, x) as programs keep them; returns the frame's path."""
    last = np.moveaxis(planes, 0, -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "xisf":
        return write_xisf(path, last, {"IMAGETYP": "'LIGHT'", "EXPTIME": 4.0})
    if form in ("rgb.ser", "bgr.ser"):
        write_ser(path, [last if form == "rgb.ser" else last[..., ::-1]], colour=100 if form == "rgb.ser" else 101)
        return path.with_name(f"{path.name}#0000")
    if form == "fits":
        fits.writeto(path, planes, fits.Header({"IMAGETYP": "Light", "EXPTIME": 4.0}))
    else:
        tifffile.imwrite(path, planes if form == "apart.tif" else last, photometric="rgb",
                         planarconfig="separate" if form == "apart.tif" else "contig",
                         compression="deflate" if form == "packed.tif" else None)  # fmt: skip
    return path


COLOUR_FORMS = ["fits", "xisf", "rgb.ser", "bgr.ser", "a.tif", "apart.tif", "packed.tif"]


@pytest.mark.parametrize("form", COLOUR_FORMS)
def test_of_every_debayered_file_the_measured_samples_are_taken(tmp_path, form):
    raw = np.random.default_rng(4).normal(900, 12, (64, 96)).round()
    path = write_planes(tmp_path / "lights" / f"x_4s.{form}", debayered(raw, "GRBG"), form)
    np.testing.assert_array_equal(read_frame(path), raw)
    folder = open_folder(tmp_path)
    assert (folder.light.attrs["cfa_pattern"], folder.table["planes"].item()) == ("GRBG", 3)
    np.testing.assert_array_equal(folder.light.values[0], raw)
    assert any("samples that were measured show by their noise, in the mosaic GRBG" in text for text in folder.warnings)


@pytest.mark.parametrize("form", COLOUR_FORMS)
@pytest.mark.parametrize("smooth", [0, 1.2])
def test_where_nothing_shows_what_was_measured_one_colour_a_pixel_is_taken(tmp_path, form, smooth):
    planes = np.random.default_rng(4).normal(900, 40, (3, 512, 512))
    if smooth:
        planes = gaussian_filter(planes, (0, smooth, smooth))
    planes = planes.round().astype("uint16")
    path = write_planes(tmp_path / "lights" / f"x_4s.{form}", planes, form)
    folder = open_folder(tmp_path)
    frame = folder.light.values[0]
    for plane, (row, column) in zip((0, 1, 1, 2), ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
        np.testing.assert_array_equal(frame[row::2, column::2], planes[plane, row::2, column::2])
    np.testing.assert_array_equal(read_frame(path), frame)
    (warning,) = (text for text in folder.warnings if "which samples were measured does not show" in text)
    stated = re.search(r"errors of areas are about ([\d.]+) times", warning)
    red = frame[::2, ::2].astype(float)  # means of 8 x 8 samples, and what their number alone would give
    true = 8 * red.reshape(32, 8, 32, 8).mean(axis=(1, 3)).std() / red.std()
    assert (float(stated[1]) if stated else 1.0) == pytest.approx(true, abs=0.4)


def test_a_debayered_picture_beside_its_raw_frame_or_among_raw_frames_is_set_aside(tmp_path):
    write_frames(tmp_path, smart_telescope((96, 128)), [Batch("light", 2, 60.0)])
    first, second = sorted((tmp_path / "lights").iterdir())
    header = fits.getheader(first)
    planes = np.random.default_rng(1).normal(900, 12, (3, 96, 128)).astype("uint16")
    fits.writeto(tmp_path / "lights" / "one.fits", planes, fits.Header({"DATE-OBS": header["DATE-OBS"]}))
    fits.writeto(tmp_path / "lights" / f"{second.stem}_debayered.fits", planes)
    fits.writeto(tmp_path / "lights" / "sum.fits", planes, fits.Header({"DATE-OBS": "2020-01-01T00:00:00"}))
    folder = open_folder(tmp_path)
    assert folder.count("light") == 2
    reasons = {path.name: reason for path, reason in folder.set_aside}
    assert reasons["one.fits"] == f"is the debayered picture of lights/{first.name}, which is used"
    assert reasons[f"{second.stem}_debayered.fits"].startswith(f"is the debayered picture of lights/{second.name}")
    assert "three colour planes" in reasons["sum.fits"]
    assert "workbench finish" in reasons["sum.fits"]


# XISF


def write_xisf(path, data, words=None, properties=None, **options):
    package = pytest.importorskip("xisf")
    path.parent.mkdir(parents=True, exist_ok=True)
    keywords = {name: [{"value": str(value), "comment": ""}] for name, value in (words or {}).items()}
    about = {"FITSKeywords": keywords, "XISFProperties": properties or {}}
    package.XISF.write(str(path), np.atleast_3d(data), image_metadata=about, **options)
    return path


WORDS = {
    "IMAGETYP": "'FLAT'", "EXPTIME": 2.5, "GAIN": 100, "OFFSET": 50, "CCD-TEMP": -10.0, "BAYERPAT": "'RGGB'",
    "INSTRUME": "'ASI 533'", "DATE-OBS": "'2024-03-01T20:00:00'", "FILTER": "'L'", "XBINNING": 1, "YBINNING": 1,
}  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"codec": "zlib", "shuffle": True}, {"codec": "lz4", "shuffle": True}])
def test_an_xisf_frame_with_its_keywords(tmp_path, options):
    path = write_xisf(tmp_path / "x" / "a.xisf", mosaic(), WORDS, **options)
    np.testing.assert_array_equal(read_frame(path), mosaic())
    assert (plain_pixels(path) is None) == bool(options)
    folder = open_folder(tmp_path)
    (row,) = folder.table.to_dict("records")
    found = [row[name] for name in ("kind", "exposure", "gain_setting", "offset_setting", "temperature", "filter")]
    assert found == ["flat", 2.5, 100, 50, -10, "L"]
    assert (row["cfa_pattern"], row["camera"], row["format"]) == ("RGGB", "ASI 533", "xisf")
    assert read_header(path)["INSTRUME"] == "ASI 533"
    assert row["time"] == np.datetime64("2024-03-01T20:00:00")
    assert folder.warnings == []
    np.testing.assert_array_equal(folder.flat.values[0], mosaic())


def test_the_mosaic_of_pixinsight(tmp_path):
    properties = {"PCL:CFASourcePattern": {"id": "PCL:CFASourcePattern", "type": "String", "value": "GBRG"}}
    path = write_xisf(tmp_path / "a.xisf", mosaic(), {"EXPTIME": 1}, properties)
    assert read_metadata(path).cfa_pattern == "GBRG"


def test_xisf_that_is_no_frame_says_why(tmp_path):
    colour = write_xisf(tmp_path / "colour.xisf", np.zeros((24, 32, 2), "uint16"))
    byte = write_xisf(tmp_path / "byte.xisf", np.zeros((24, 32), "uint8"))
    cut = write_xisf(tmp_path / "cut.xisf", mosaic())
    cut.write_bytes(cut.read_bytes()[:-100])
    packed = write_xisf(tmp_path / "packed.xisf", mosaic(), codec="zlib")
    packed.write_bytes(packed.read_bytes()[:-100])
    broken = tmp_path / "broken.xisf"
    broken.write_bytes(b"XISF0100" + bytes(100))
    reasons = {
        colour: "has 2 planes; a frame has one, or three",
        byte: "eight bits",
        cut: "cut short",
        packed: "cut short",
        broken: "cannot be",
    }
    for path, reason in reasons.items():
        with pytest.raises(FrameReadError, match=reason):
            read_frame(path)


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    path = write_xisf(tmp_path / "a.xisf", mosaic(), WORDS)
    monkeypatch.setitem(sys.modules, "xisf", None)
    with pytest.raises(FrameReadError, match=r"pip install xisf.*astrophoto-workbench\[xisf\]"):
        read_metadata(path)
    with pytest.raises(WorkbenchError, match="need the package xisf"):
        open_folder(tmp_path)


# SER


def write_ser(path, frames, colour=8, depth=16, order="<u2", times=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    head = _SER_HEAD.pack(
        b"LUCAM-RECORDER", 0, colour, 0, width, height, depth, len(frames), b"me", b"ASI 290MC", b"scope", 1, 1
    )
    start = (np.datetime64("2024-03-01T20:00:00", "us") - np.datetime64("0001-01-01", "us")).astype(int) * 10
    clock = b"".join(int(start + n * 10**7).to_bytes(8, "little") for n in range(len(frames))) if times else b""
    path.write_bytes(head + b"".join(frame.astype(order).tobytes() for frame in frames) + clock)
    return path


@pytest.mark.parametrize("order", ["<u2", ">u2"])
@pytest.mark.parametrize("scale", [1, 0.05, 12])
def test_each_frame_of_a_video_is_a_light(tmp_path, order, scale):
    frames = [mosaic(seed, scale) for seed in range(3)]
    path = write_ser(tmp_path / "m42" / "m42_4s.ser", frames, order=order)
    folder = open_folder(tmp_path)
    assert folder.table["file"].tolist() == [f"m42/m42_4s.ser#000{n}" for n in range(3)]
    assert set(folder.table["kind"]) == {"light"}
    assert set(folder.table["exposure"]) == {4}
    assert set(folder.table["cfa_pattern"]) == {"RGGB"}
    assert set(folder.table["camera"]) == {"ASI 290MC"}
    assert folder.table["time"].tolist()[2] - folder.table["time"].tolist()[0] == np.timedelta64(2, "s")
    np.testing.assert_array_equal(folder.light.values, frames)
    frame = path.with_name(path.name + "#0001")
    np.testing.assert_array_equal(read_frame(frame), frames[1])
    np.testing.assert_array_equal(open_frames(path).values, frames)
    assert digest(folder.table) == digest(open_folder(tmp_path).table)
    assert folder.drop(frame, "why").count("light") == 2


def test_a_video_of_eight_bits_is_read_with_its_rounding_noted(tmp_path):
    frames = [(mosaic(seed) // 64).astype("uint8") for seed in range(3)]
    path = write_ser(tmp_path / "lights" / "m42_4s.ser", frames, depth=8, order="|u1")
    folder = open_folder(tmp_path)
    np.testing.assert_array_equal(folder.light.values, frames)
    assert (folder.light.dtype, folder.light.attrs["white_level"]) == (np.uint16, 255)
    assert read_frame(path.with_name(path.name + "#0002")).dtype == np.uint16
    assert any("eight bits a pixel, 256 steps" in text for text in folder.warnings)


def test_a_video_of_darks_and_one_without_times(tmp_path):
    frames = [mosaic(seed) for seed in range(2)]
    write_ser(tmp_path / "darks" / "d_4s.ser", frames, times=False)
    write_ser(tmp_path / "flats" / "f_1s.ser", frames[::-1], colour=0, times=False)
    (tmp_path / "frames.csv").write_text("file,gain,temperature_c\ndarks/d_4s.ser,200,5\ndarks/d_4s.ser#0001,,6\n")
    table = open_folder(tmp_path).table
    assert table["kind"].tolist() == ["dark", "dark", "flat", "flat"]
    assert table["temperature"].tolist()[:2] == [5, 6]
    assert table["gain_setting"].tolist()[:2] == [200, 200]
    assert table["time"].isna().all()
    assert set(table["cfa_pattern"]) == {"RGGB"}


def test_a_video_that_is_not_supported_says_why(tmp_path):
    frame = mosaic()
    reasons = {
        write_ser(tmp_path / "cyan.ser", [frame], colour=16): "colours number 16",
        write_ser(tmp_path / "odd.ser", [frame], depth=0): "impossible header",
    }
    cut = write_ser(tmp_path / "cut.ser", [frame] * 3)
    cut.write_bytes(cut.read_bytes()[:40000])
    (tmp_path / "no.ser").write_bytes(b"nothing at all")
    reasons |= {cut: "cut short", tmp_path / "no.ser": "is not a SER video"}
    for path, reason in reasons.items():
        with pytest.raises(FrameReadError, match=reason):
            open_frames(path)
    whole = write_ser(tmp_path / "whole.ser", [frame])
    with pytest.raises(FrameReadError, match="is a video of 1 frames; give one of them: whole.ser#0000"):
        read_frame(whole)
    with pytest.raises(FrameReadError, match="the video has 1 frames"):
        read_frame(tmp_path / "whole.ser#0007")
    folder = open_folder(tmp_path)
    assert len(folder) == 1
    assert {path.name for path, _ in folder.set_aside} == {path.name for path in reasons}
