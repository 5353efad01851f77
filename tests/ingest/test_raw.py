"""Camera RAW files: real ones, cut ones, and mosaics that are refused."""

import shutil
import struct
import subprocess
import threading

import numpy as np
import pytest
import rawpy
import tifffile

from tests.torture import at_most
from workbench.core.cube import XTRANS
from workbench.core.errors import FrameReadError, WorkbenchError
from workbench.core.mosaic import shifted
from workbench.ingest import DngMetadata, open_frames, plain_pixels, read_frame, read_metadata, write_dng
from workbench.ingest.raw import raw_info

CFA = 32803
LINEAR = 34892


def dng(path, pixels, photometric, *tags):
    version = [(50706, "B", 4, bytes([1, 4, 0, 0]), True), (50708, "s", 0, "Example", True)]
    tifffile.imwrite(path, pixels, photometric=photometric, extratags=[*version, *tags], metadata=None)
    return path


def test_the_sony_as_stated(real_data):
    path = real_data / "raw" / "sony-a7r3.arw"
    info = read_metadata(path)
    assert info.camera == "SONY ILCE-7RM3"
    assert (info.iso, info.exposure, info.aperture) == (3200, 1 / 640, 6.3)
    assert info.time == np.datetime64("2018-07-11T01:18:47")
    assert (info.height, info.width, info.full_shape) == (3464, 5184, (3464, 5216))
    assert (info.cfa_pattern, info.black_level, info.white_level) == ("RGGB", (512,) * 4, 16383)
    full = read_frame(path, area="full")
    assert (full.shape, full.dtype, full.min(), full.max()) == ((3464, 5216), np.uint16, 262, 16628)
    np.testing.assert_array_equal(read_frame(path), full[:, :5184])


def test_the_kodak_as_stated(real_data):
    path = real_data / "raw" / "kodak-dc50.kdc"
    info = read_metadata(path)
    assert info.camera == "Kodak Digital Science DC50 Zoom Camera"
    assert info.iso == 84  # in LibRaw only: its EXIF has none
    assert info.exposure == pytest.approx(1 / 230, rel=1e-3)
    assert (info.height, info.width, info.cfa_pattern) == (512, 768, "GRBG")
    assert info.black_level == (0,) * 4


def test_the_kodak_equals_dcraw(real_data, require):
    path = real_data / "raw" / "kodak-dc50.kdc"
    out = subprocess.run([require("dcraw"), "-4", "-D", "-c", path], capture_output=True, check=True).stdout
    np.testing.assert_array_equal(read_frame(path), np.frombuffer(out[-2 * 512 * 768 :], ">u2").reshape(512, 768))


@pytest.mark.parametrize("kept", [0.999, 0.5, 0.02])
@pytest.mark.parametrize("name", ["sony-a7r3.arw", "kodak-dc50.kdc"])
def test_a_cut_raw_is_noticed(real_data, tmp_path, name, kept):
    data = (real_data / "raw" / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: int(len(data) * kept)])
    for read in (read_frame, read_metadata):
        with pytest.raises(FrameReadError, match=f"{name} is cut short: .* of the {len(data):,}") as caught:
            read(path)
        assert caught.value.path == path


def test_a_stump_is_noticed(real_data, tmp_path):
    """So little that even the file's directory is gone."""
    path = tmp_path / "stump.arw"
    path.write_bytes((real_data / "raw" / "sony-a7r3.arw").read_bytes()[:300])
    with pytest.raises(FrameReadError, match=r"stump\.arw is "):
        read_metadata(path)


def test_many_like_frames_are_decoded_once(real_data, tmp_path, monkeypatch):
    source = real_data / "raw" / "sony-a7r3.arw"
    paths = [shutil.copy(source, tmp_path / f"{n}.arw") for n in range(4)]
    decoded = []
    unpack = rawpy.RawPy.unpack

    class Counting(rawpy.RawPy):
        def unpack(self):
            decoded.append(1)
            unpack(self)

    monkeypatch.setattr(rawpy, "RawPy", Counting)
    cube = open_frames(paths, kind="light")
    assert len(decoded) == 1
    assert cube.shape == (4, 3464, 5184)
    assert cube.attrs["black_level"] == (512,) * 4
    np.testing.assert_array_equal(cube[3, :10, :10], read_frame(source)[:10, :10])


def test_bias_frames_whose_exposure_is_stated_as_zero_are_not_decoded_for_another(tmp_path, monkeypatch):
    """LibRaw decodes a file before it names its exposure."""
    about = DngMetadata("RGGB", black_level=64, white_level=4095, iso=800, exposure=0.0, make="Sim", model="CAM")
    pixels = np.random.default_rng(1).integers(60, 70, (64, 80)).astype(np.uint16)
    paths = [write_dng(tmp_path / f"{n}.dng", pixels, about, compressed=True) for n in range(4)]
    asked = []

    class Counting(rawpy.RawPy):
        @property
        def other(self):
            asked.append(1)
            return super().other

    monkeypatch.setattr(rawpy, "RawPy", Counting)
    cube = open_frames(paths, kind="bias")
    assert len(asked) == 1  # of the first, which is decoded for the camera's layout
    assert np.isnan(cube["exposure"]).all()


def test_decoding_lets_other_threads_run(real_data):
    """rawpy frees the interpreter while LibRaw works: a second thread counts on in the meantime."""
    done = threading.Event()
    thread = threading.Thread(target=lambda: (read_frame(real_data / "raw" / "sony-a7r3.arw"), done.set()))
    thread.start()
    count = 0
    while not done.wait(0.001):
        count += 1
    thread.join()
    assert count > 5


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (2, 5)])
def test_x_trans_is_read_in_whole_cells(tmp_path, rows, columns):
    pattern = shifted(XTRANS, rows, columns)
    pixels = np.random.default_rng(1).integers(64, 4000, (70, 80)).astype(np.uint16)
    area = (4, 7, 68, 78)  # 64 x 71 pixels
    path = write_dng(
        tmp_path / "x.dng", pixels, DngMetadata(pattern, black_level=64, white_level=4095, active_area=area)
    )
    with rawpy.imread(str(path)) as raw:
        assert raw.raw_pattern.shape == (6, 6)
    info = read_metadata(path)
    assert (info.cfa_pattern, info.height, info.width, info.black_level) == (pattern, 60, 66, (64.0,) * 3)
    np.testing.assert_array_equal(read_frame(path), pixels[4:64, 7:73])
    np.testing.assert_array_equal(read_frame(path, area="full"), pixels)


def test_levels_that_x_trans_files_cannot_hold_are_refused(tmp_path):
    with pytest.raises(WorkbenchError, match="one level for all colours of X-Trans"):
        write_dng(tmp_path / "x.dng", np.zeros((60, 60), np.uint16), DngMetadata(XTRANS, (1.0, 2.0, 3.0), 4095))


def test_a_linear_dng_is_refused(tmp_path):
    path = dng(tmp_path / "linear.dng", np.full((60, 60, 3), 9, np.uint16), LINEAR)
    for read in (read_metadata, read_frame):
        with pytest.raises(FrameReadError, match=r"linear\.dng holds several colours a pixel .* not a mosaic"):
            read(path)


def test_a_mosaic_of_other_colours_is_refused(tmp_path):
    tags = [(33421, "H", 2, (2, 2), True), (33422, "B", 4, bytes([5, 3, 4, 1]), True)]  # yellow, cyan, magenta, green
    tags += [(50710, "B", 4, bytes([3, 4, 5, 1]), True)]
    path = dng(tmp_path / "cmyg.dng", np.full((60, 60), 9, np.uint16), CFA, *tags)
    with pytest.raises(FrameReadError, match=r"cmyg\.dng has a mosaic of colours"):
        read_metadata(path)


def test_a_monochrome_raw_is_read_through_libraw(tmp_path):
    pixels = np.arange(1600, dtype=np.uint16).reshape(40, 40)
    path = write_dng(tmp_path / "m.dng", pixels, DngMetadata(cfa_pattern="mono", black_level=64, white_level=4095))
    info = raw_info(path)
    assert (info.cfa_pattern, info.black_level) == ("mono", (64,))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.nef", b"", "is empty"),
        (
            "a.nef",
            b"This is a letter, not a photograph.\n" * 100,
            "is a text file, not a RAW frame; it begins 'This is a letter",
        ),
        ("a.nef", b"\x01\x02\x03\x04" * 100, "is "),
        ("a.nef", b"\xff\xd8\xff\xe1" + bytes(500), "is a JPEG picture, not a RAW frame"),
        ("a.cr2", b"\x89PNG\r\n\x1a\n" + bytes(500), "is a PNG picture"),
        ("a.nef", b"II*\0\x08\0\0\0" + b"\xff" * 500, "is "),
        ("a.dng", b"MM\0*" + bytes(500), "is "),
    ],
)
def test_what_is_no_raw_is_refused_by_name_and_reason(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    for read in (read_metadata, read_frame):
        with pytest.raises(FrameReadError, match=message) as caught:
            read(path)
        assert caught.value.path == path


def test_a_tiff_picture_is_refused(tmp_path):
    path = tmp_path / "finished.nef"
    tifffile.imwrite(path, np.zeros((60, 60, 3), np.uint16), photometric="rgb")
    with pytest.raises(FrameReadError, match=r"finished\.nef"):
        read_metadata(path)


def test_a_folder_or_nothing_is_refused(tmp_path):
    with pytest.raises(FrameReadError, match="is a folder"):
        read_frame(tmp_path)
    with pytest.raises(FrameReadError, match=r"absent\.nef does not exist"):
        read_frame(tmp_path / "absent.nef")


def test_compressed_raws_are_not_plain(real_data):
    assert plain_pixels(real_data / "raw" / "kodak-dc50.kdc") is None


def test_a_directory_that_leads_back_to_itself_is_a_damaged_file(tmp_path):
    path = tmp_path / "loop.dng"
    path.write_bytes(b"II*\0" + struct.pack("<IHHHIII", 8, 1, 256, 4, 1, 128, 8))
    with at_most(20), pytest.raises(FrameReadError, match=r"loop\.dng"):
        raw_info(path)
