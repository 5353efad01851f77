"""What write_dng writes, LibRaw and dcraw read: the very pixels, the levels and the EXIF."""

import datetime as dt
import subprocess

import numpy as np
import pytest
import rawpy
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.core.cube import MOSAICS
from workbench.core.errors import FrameReadError, WorkbenchError
from workbench.ingest import DngMetadata, plain_pixels, raw, read_frame, read_metadata, write_dng
from workbench.ingest.raw import raw_info, read_raw

ALL = {
    "black_level": (600, 601, 602, 603),
    "white_level": 15778,
    "iso": 3200,
    "exposure": 1 / 640,
    "aperture": 5.6,
    "time": np.datetime64("2014-07-15T13:07:40"),
    "make": "NIKON CORPORATION",
    "model": "NIKON D7000 (simulated)",
    "temperature": -5.25,
}


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 65536, shape, dtype=np.uint16)


def dcraw(program, path, shape):
    """The pixels of ``dcraw -4 -D``: a PGM whose samples are the last bytes of the output."""
    out = subprocess.run([program, "-4", "-D", "-c", path], capture_output=True, check=True).stdout
    assert out.startswith(b"P5\n%d %d\n65535\n" % (shape[1], shape[0]))
    return np.frombuffer(out[-2 * shape[0] * shape[1] :], ">u2").reshape(shape)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(22, 140),
    width=st.integers(22, 140),
    pattern=st.sampled_from([*MOSAICS, "mono"]),
    seed=st.integers(0, 2**32 - 1),
    compressed=st.booleans(),
)
def test_pixels_return_bit_for_bit(tmp_path, require, height, width, pattern, seed, compressed):
    mosaic = noise((height // 2 * 2 if compressed else height, width), seed)
    metadata = DngMetadata(cfa_pattern=pattern, black_level=600, white_level=16383)
    path = write_dng(tmp_path / "a.dng", mosaic, metadata, compressed=compressed)
    assert (plain_pixels(path) is None) == compressed
    with rawpy.imread(str(path)) as raw:
        np.testing.assert_array_equal(raw.raw_image, mosaic)
    np.testing.assert_array_equal(dcraw(require("dcraw"), path, mosaic.shape), mosaic)
    np.testing.assert_array_equal(read_frame(path), mosaic)


def test_an_odd_number_of_rows_cannot_be_compressed(tmp_path):
    with pytest.raises(WorkbenchError, match="even number of rows; got 41"):
        write_dng(tmp_path / "a.dng", noise((41, 50)), DngMetadata(cfa_pattern="BGGR", **ALL), compressed=True)
    assert not list(tmp_path.iterdir())


def test_a_gap_in_exif_asks_for_no_second_decoding(tmp_path, monkeypatch):
    bias = DngMetadata(cfa_pattern="GRBG", **{**ALL, "exposure": None})
    paths = [write_dng(tmp_path / f"{n}.dng", noise((40, 50), n), bias, compressed=True) for n in range(3)]
    alone = [read_metadata(path) for path in paths]
    decoded, opened = [], raw._opened
    monkeypatch.setattr(raw, "_opened", lambda path, decode=True: decoded.append(decode) or opened(path, decode))
    known = {}
    assert [repr(read_metadata(path, known)) for path in paths] == [repr(info) for info in alone]
    assert decoded == [True, False, False]


@pytest.mark.parametrize("pattern", MOSAICS)
def test_libraw_finds_the_colours_and_the_levels(tmp_path, pattern):
    path = write_dng(tmp_path / "a.dng", noise((40, 50)), DngMetadata(cfa_pattern=pattern, **ALL))
    info = raw_info(path)  # through LibRaw
    assert info.cfa_pattern == pattern
    assert info.black_level == (600, 601, 602, 603)
    assert info.white_level == 15778


def test_libraw_reports_the_exposure(tmp_path):
    path = write_dng(tmp_path / "a.dng", noise((40, 50)), DngMetadata(cfa_pattern="GRBG", **ALL))
    with rawpy.imread(str(path)) as raw:
        other = raw.other
        assert other.iso_speed == 3200
        assert other.shutter_speed == pytest.approx(1 / 640, rel=1e-6)
        assert other.aperture == pytest.approx(5.6)
        assert other.timestamp == dt.datetime(2014, 7, 15, 13, 7, 40)


def test_the_record_returns_as_it_was_given(tmp_path):
    info = read_metadata(write_dng(tmp_path / "a.dng", noise((40, 50)), DngMetadata(cfa_pattern="BGGR", **ALL)))
    assert info.camera == "NIKON D7000 (simulated)"
    assert (info.iso, info.exposure, info.aperture) == (3200, 1 / 640, 5.6)
    assert info.temperature == -5.25
    assert info.time == np.datetime64("2014-07-15T13:07:40")
    assert (info.height, info.width) == (40, 50)
    assert info.cfa_pattern == "BGGR"
    assert info.black_level == (600, 601, 602, 603)
    assert info.white_level == 15778


@pytest.mark.parametrize("exposure", [1 / 8000, 1 / 3, 0.1, 30, 1800.5])
@pytest.mark.parametrize("iso", [50, 6400, 65535, 102400])
def test_any_exposure_and_iso_survive(tmp_path, exposure, iso):
    path = write_dng(
        tmp_path / "a.dng",
        noise((32, 32)),
        DngMetadata(cfa_pattern="RGGB", black_level=0, white_level=4095, iso=iso, exposure=exposure),
    )
    info = read_metadata(path)
    assert info.iso == iso
    assert info.exposure == pytest.approx(exposure, rel=1e-9)


def test_what_is_unknown_stays_unknown(tmp_path):
    path = write_dng(
        tmp_path / "a.dng",
        noise((32, 32)),
        DngMetadata(cfa_pattern="mono", black_level=0, white_level=1, iso=np.nan, time=np.datetime64("NaT")),
    )
    info = read_metadata(path)
    assert np.isnan([info.iso, info.exposure, info.aperture, info.temperature]).all()
    assert np.isnat(info.time)
    assert info.camera == ""
    assert info.black_level == (0,)


def test_a_fractional_black_level_is_kept(tmp_path):
    path = write_dng(
        tmp_path / "a.dng", noise((32, 32)), DngMetadata(cfa_pattern="RGGB", black_level=600.25, white_level=16383)
    )
    assert read_metadata(path).black_level == (600.25,) * 4


@pytest.mark.parametrize("pattern", MOSAICS)
@pytest.mark.parametrize(("top", "left"), [(4, 6), (2, 0), (3, 5), (0, 1)])
def test_masked_margins_are_within_reach(tmp_path, require, pattern, top, left):
    mosaic = noise((80, 90))
    path = write_dng(
        tmp_path / "a.dng",
        mosaic,
        DngMetadata(cfa_pattern=pattern, black_level=(1, 2, 3, 4), white_level=9, active_area=(top, left, 76, 88)),
    )
    visible = mosaic[top:76, left:88]
    np.testing.assert_array_equal(read_frame(path), visible)
    np.testing.assert_array_equal(read_frame(path, area="full"), mosaic)
    np.testing.assert_array_equal(dcraw(require("dcraw"), path, visible.shape), visible)
    info = read_metadata(path)
    assert (info.margins, info.full_shape, info.cfa_pattern) == ((top, left), (80, 90), pattern)
    assert info.black_level == (1, 2, 3, 4)
    # LibRaw trims odd margins to even ones; where it does not, it sees what the tags say
    libraw = raw_info(path)
    if (top % 2, left % 2) == (0, 0):
        assert (libraw.margins, libraw.cfa_pattern, libraw.black_level) == ((top, left), pattern, (1, 2, 3, 4))
        np.testing.assert_array_equal(read_raw(path), visible)


def test_the_same_frame_gives_the_same_bytes(tmp_path):
    paths = [
        write_dng(tmp_path / f"{n}.dng", noise((64, 48)), DngMetadata(cfa_pattern="RGGB", **ALL)) for n in range(2)
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_other_readers_see_a_sound_tiff(tmp_path):
    mosaic = noise((64, 48))
    path = write_dng(tmp_path / "a.dng", mosaic, DngMetadata(cfa_pattern="RGGB", **ALL))
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        codes = [tag.code for tag in page.tags]
        assert codes == sorted(codes)
        np.testing.assert_array_equal(page.asarray(), mosaic)
        exif = page.tags["ExifTag"].value
    assert exif["ISOSpeedRatings"] == 3200
    assert exif["ExposureTime"] == (1, 640)
    assert exif["DateTimeOriginal"] == "2014:07:15 13:07:40"


def test_big_endian_input_and_views_are_written_right(tmp_path):
    mosaic = noise((64, 48))
    for given_ in (mosaic.astype(">u2"), np.asfortranarray(mosaic)):
        path = write_dng(tmp_path / "a.dng", given_, DngMetadata(cfa_pattern="RGGB", black_level=0, white_level=9))
        np.testing.assert_array_equal(read_raw(path), mosaic)


def test_nothing_half_written_is_left(tmp_path):
    path = tmp_path / "a.dng"
    write_dng(path, noise((32, 32), 1), DngMetadata(cfa_pattern="RGGB", black_level=0, white_level=9))
    before = path.read_bytes()
    with pytest.raises(WorkbenchError, match="uint16"):
        write_dng(path, noise((32, 32)).astype(float), DngMetadata(cfa_pattern="RGGB", black_level=0, white_level=9))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.dng"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cfa_pattern": "RGBG"}, "cfa_pattern 'RGBG' is not supported"),
        ({"black_level": (1, 2)}, "black_level has 2 values"),
        ({"black_level": np.nan}, "not a level"),
        ({"white_level": -1}, "white_level -1 does not fit"),
        ({"active_area": (0, 0, 99, 9)}, "does not lie within"),
        ({"exposure": -1}, "-1 does not fit"),
        ({"daylight_multipliers": (1, 2)}, "daylight_multipliers three"),
        ({"mosaic": np.zeros((2, 32, 32), np.uint16)}, r"shape \(2, 32, 32\)"),
        ({"mosaic": np.zeros((21, 32), np.uint16)}, "22"),
    ],
)
def test_what_has_no_place_in_a_dng_is_refused(tmp_path, change, message):
    good = {"mosaic": noise((32, 32)), "cfa_pattern": "RGGB", "black_level": 0, "white_level": 9}
    given = {**good, **change}
    mosaic, metadata = given.pop("mosaic"), DngMetadata(**given)
    with pytest.raises(WorkbenchError, match=message):
        write_dng(tmp_path / "a.dng", mosaic, metadata)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(WorkbenchError, match="cannot write .*absent"):
        write_dng(
            tmp_path / "absent" / "a.dng",
            noise((32, 32)),
            DngMetadata(cfa_pattern="RGGB", black_level=0, white_level=9),
        )


@pytest.mark.parametrize("kept", [0.999, 0.5, 0.05])
def test_a_cut_dng_is_noticed(tmp_path, kept):
    path = write_dng(
        tmp_path / "a.dng", noise((200, 200)), DngMetadata(cfa_pattern="RGGB", black_level=0, white_level=9)
    )
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    for read in (read_frame, read_metadata):
        with pytest.raises(FrameReadError, match=r"a\.dng is cut short"):
            read(path)


def test_parts_are_read_in_place(tmp_path):
    mosaic = noise((200, 120))
    path = write_dng(
        tmp_path / "a.dng",
        mosaic,
        DngMetadata(cfa_pattern="RGGB", black_level=0, white_level=9, active_area=(2, 4, 200, 120)),
    )
    pixels = plain_pixels(path)
    assert pixels.shape == (198, 116)
    np.testing.assert_array_equal(pixels.read(slice(10, 20), slice(30, 33)), mosaic[12:22, 34:37])
    np.testing.assert_array_equal(pixels.read(slice(0, 2), area="full"), mosaic[:2])


DNG_TAGS = [
    (33421, "H", 2, (2, 2), True),
    (33422, "B", 4, bytes([1, 0, 2, 1]), True),
    (50706, "B", 4, bytes([1, 4, 0, 0]), True),
    (50708, "s", 0, "Example", True),
    (50717, "I", 1, 4095, True),
]


@pytest.mark.parametrize("byteorder", "<>")
def test_dngs_of_other_programs_are_read_in_place(tmp_path, byteorder):
    """Either byte order, many strips."""
    mosaic = noise((64, 80))
    path = tmp_path / "a.dng"
    tifffile.imwrite(
        path, mosaic, photometric=32803, byteorder=byteorder, rowsperstrip=10, extratags=DNG_TAGS, metadata=None
    )
    info, libraw = read_metadata(path), raw_info(path)
    assert plain_pixels(path) is not None
    for name in ("height", "width", "cfa_pattern", "black_level", "white_level", "margins", "full_shape"):
        assert getattr(info, name) == getattr(libraw, name)
    np.testing.assert_array_equal(read_frame(path), mosaic)
    np.testing.assert_array_equal(read_raw(path), mosaic)


def test_a_dng_with_a_linearization_table_is_decoded_by_libraw(tmp_path):
    mosaic = noise((64, 80)) >> 8
    table = np.arange(256, dtype=np.uint16) * 3
    path = tmp_path / "a.dng"
    tags = [*DNG_TAGS, (50712, "H", 256, table, True)]
    tifffile.imwrite(path, mosaic, photometric=32803, extratags=tags, metadata=None)
    assert plain_pixels(path) is None
    assert read_metadata(path).format == "raw"
    np.testing.assert_array_equal(read_frame(path), table[mosaic])
