"""A folder of frames: what they are, what is known of them, what cannot be used."""

import math
import os
import shutil
import subprocess
from pathlib import Path

import dask
import numpy as np
import pytest
from astropy.io import fits

from workbench.core.cube import check_cube
from workbench.core.errors import FrameReadError, WorkbenchError
from workbench.ingest import DngMetadata, open_folder, open_frames, read_frame, write_dng

JPEG = b"\xff\xd8\xff\xe0" + bytes(200)


def frame(path, level=600, shape=(32, 48), **changes):
    """A small DNG whose every pixel has one level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {
        "cfa_pattern": "RGGB",
        "black_level": 600,
        "white_level": 16383,
        "iso": 100,
        "exposure": 1 / 8000,
        "make": "NIKON CORPORATION",
        "model": "NIKON D7000",
    }
    return write_dng(path, np.full(shape, level, np.uint16), DngMetadata(**{**facts, **changes}))


def fit(path, **words):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = fits.Header({word.replace("_", "-"): value for word, value in words.items()})
    fits.PrimaryHDU(np.zeros((24, 24), np.uint16), header).writeto(path)
    return path


def kinds(folder):
    return dict(zip(folder.table["file"], folder.table["kind"], strict=True))


# what a frame is


def test_kinds_by_folder_at_any_depth_and_in_any_case(tmp_path):
    for name in (
        "Bias/a.dng",
        "night 1/DARKS/60s/b.dng",
        "Flats_R/c.dng",
        "flat-darks/d.dng",
        "lights/M31/e.dng",
        "x/f.dng",
    ):
        frame(tmp_path / name)
    folder = open_folder(tmp_path)
    assert kinds(folder) == {
        "Bias/a.dng": "bias",
        "Flats_R/c.dng": "flat",
        "flat-darks/d.dng": "darkflat",
        "lights/M31/e.dng": "light",
        "night 1/DARKS/60s/b.dng": "dark",
        "x/f.dng": "",
    }
    assert folder.warnings == [
        "kind unknown; name the folder bias, darks, flats, darkflats or lights, or write frames.csv: x/f.dng"
    ]
    assert (folder.count("bias"), folder.has("flat"), folder.count("")) == (1, True, 1)


def test_the_folder_itself_tells_a_kind(tmp_path):
    frame(tmp_path / "offsets" / "a.dng")
    assert kinds(open_folder(tmp_path / "offsets")) == {"a.dng": "bias"}


def test_the_manifest_comes_first_then_the_header_then_the_folder(tmp_path):
    fit(tmp_path / "lights" / "a.fit", IMAGETYP="Dark Frame")
    fit(tmp_path / "lights" / "b.fit", IMAGETYP="Dark Frame")
    fit(tmp_path / "lights" / "c.fit", IMAGETYP="Tricolor Image")
    (tmp_path / "frames.csv").write_text("file,kind\nlights/a.fit,bias\nlights/b.fit,\n")
    assert kinds(open_folder(tmp_path)) == {"lights/a.fit": "bias", "lights/b.fit": "dark", "lights/c.fit": "light"}


def test_a_manifest_within_knows_better_than_one_above(tmp_path):
    frame(tmp_path / "night" / "a.dng")
    (tmp_path / "frames.csv").write_text("file,kind,iso\nnight/a.dng,dark,200\n")
    (tmp_path / "night" / "frames.csv").write_text("file,kind\na.dng,flat\n")
    folder = open_folder(tmp_path)
    assert kinds(folder) == {"night/a.dng": "flat"}
    assert folder.table["iso"].tolist() == [200]


# what is known of it


def test_the_real_flats_with_their_manifest(real_data):
    folder = open_folder(real_data / "d7000-flats")
    assert (len(folder), folder.cameras, folder.set_aside) == (84, ["NIKON D7000"], [])
    assert set(folder.table["kind"]) == {"flat"}
    flat = folder.flat
    assert flat.sizes == {"frame": 84, "y": 64, "x": 64}
    assert (flat.attrs["cfa_pattern"], flat.attrs["black_level"], flat.attrs["white_level"]) == (
        "GBRG",
        (0,) * 4,
        16383,
    )
    first = flat.sel(frame=flat.filename == "crop_1.fit").isel(frame=0)
    assert (first.exposure, first.aperture, first.iso) == (0.033333333, 5.6, 100)
    assert first.time == np.datetime64("2014-07-15T13:07:40")
    np.testing.assert_array_equal(first, read_frame(real_data / "d7000-flats" / "crop_1.fit"))


def test_the_real_lights(real_data):
    folder = open_folder(real_data / "m13")
    assert (folder.count("light"), len(folder)) == (5, 5)
    light = folder.light
    assert (light.attrs["cfa_pattern"], light.dtype, light.attrs["camera"]) == ("mono", np.uint16, "Orion SSDSI")
    assert (light.exposure == 5).all()
    assert any("no ISO recorded" in warning for warning in folder.warnings)


def test_the_manifest_fills_and_corrects_the_file(tmp_path):
    frame(tmp_path / "a.dng", iso=100, exposure=None)
    (tmp_path / "frames.csv").write_text(
        "file,kind,iso,exposure_s,cfa,black_level,white_level,camera\na.dng,flat,250,0.5,BGGR,601,15000,Own\n"
    )
    row = open_folder(tmp_path).table.iloc[0]
    assert (row.iso, row.exposure, row.cfa_pattern, row.black_level) == (250, 0.5, "BGGR", (601,) * 4)
    assert (row.white_level, row.camera) == (15000, "Own")


def test_a_mosaic_declared_mono_has_one_black_level(tmp_path):
    frame(tmp_path / "a.dng")
    (tmp_path / "frames.csv").write_text("file,kind,cfa\na.dng,flat,mono\n")
    assert open_folder(tmp_path).flat.attrs["black_level"] == 600


@pytest.mark.parametrize(
    ("recorded", "told", "name", "expected"),
    [
        (-9.5, -9, "dark_20C", -9.5),
        (None, -9, "dark_20C", -9),
        (None, None, "dark_20C", 20),
        (None, None, "dark", math.nan),
    ],
)
def test_the_temperature_from_the_file_then_the_manifest_then_the_name(tmp_path, recorded, told, name, expected):
    frame(tmp_path / name / "a.dng", temperature=recorded)
    (tmp_path / "frames.csv").write_text(f"file,temperature_c\n{name}/a.dng,{'' if told is None else told}\n")
    folder = open_folder(tmp_path)
    np.testing.assert_equal(folder.table["temperature"].iloc[0], expected)
    assert not any("temperature" in warning for warning in folder.warnings)


def test_darks_warmer_than_they_say_are_noticed(tmp_path):
    for n in range(3):
        frame(tmp_path / "darks_-10C" / f"{n}.dng", temperature=14 + n)
    folder = open_folder(tmp_path)
    assert folder.table["temperature"].tolist() == [14, 15, 16]
    assert folder.warnings == [
        "the recorded temperature differs from that of manifest or name; the recorded one is used: "
        "darks_-10C/0.dng (14 °C, not -10) and 2 more"
    ]


def test_a_doubtful_minus_is_noticed(tmp_path):
    frame(tmp_path / "dark-20C" / "a.dng")
    folder = open_folder(tmp_path)
    assert folder.table["temperature"].tolist() == [-20]
    assert "hyphen" in folder.warnings[0]


@pytest.mark.parametrize(("quantity", "said"), [("iso", "ISO"), ("exposure", "exposure")])
def test_a_missing_exposure_or_iso_is_noticed(tmp_path, quantity, said):
    frame(tmp_path / "bias" / "a.dng", **{quantity: None})
    frame(tmp_path / "darks" / "b.dng")
    folder = open_folder(tmp_path)
    (warning,) = folder.warnings
    assert warning.startswith(f"no {said} recorded; give it in frames.csv (column {quantity}")
    assert warning.endswith(": bias/a.dng")
    assert folder.select(kind="dark").warnings == []


def test_a_mosaic_that_no_one_names_is_not_taken_for_mono_in_silence(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5\n2 2\n65535\n" + bytes(8))
    fit(tmp_path / "b.fit", ISOSPEED=800, EXPTIME=1.0)
    fit(tmp_path / "c.fit", EXPTIME=1.0)
    (tmp_path / "frames.csv").write_text("file,kind,iso,exposure_s\na.pgm,flat,100,1\nb.fit,flat\nc.fit,flat,100\n")
    (warning,) = (text for text in open_folder(tmp_path).warnings if "CFA" in text)
    assert warning == ("no CFA pattern recorded, taken for mono; give it in frames.csv (column cfa): a.pgm and 1 more")


# what counts once


def test_a_raw_with_its_jpeg_counts_once(tmp_path):
    frame(tmp_path / "bias" / "IMG_1.dng")
    (tmp_path / "bias" / "IMG_1.JPG").write_bytes(JPEG)
    (tmp_path / "bias" / "jpeg").mkdir()
    (tmp_path / "bias" / "jpeg" / "img_1.jpg").write_bytes(JPEG)
    folder = open_folder(tmp_path)
    assert (len(folder), folder.set_aside) == (1, [])


def test_a_jpeg_alone_is_set_aside(tmp_path):
    frame(tmp_path / "bias" / "IMG_1.dng")
    (tmp_path / "bias" / "IMG_2.JPG").write_bytes(JPEG)
    folder = open_folder(tmp_path)
    ((path, reason),) = folder.set_aside
    assert path.name == "IMG_2.JPG"
    assert "finished picture (JPG)" in reason


def test_a_raw_with_the_pgm_of_dcraw_counts_once(tmp_path, require, real_data):
    (tmp_path / "bias").mkdir()
    shutil.copyfile(real_data / "raw" / "kodak-dc50.kdc", tmp_path / "bias" / "a.kdc")
    subprocess.run([require("dcraw"), "-4", "-D", "a.kdc"], cwd=tmp_path / "bias", check=True)
    assert list(kinds(open_folder(tmp_path))) == ["bias/a.kdc"]
    (tmp_path / "bias" / "a.kdc").unlink()
    (tmp_path / "frames.csv").write_text("file,iso,exposure_s,cfa\nbias/a.pgm,84,1/230,GRBG\n")
    alone = open_folder(tmp_path)
    assert alone.warnings == []
    row = alone.table.iloc[0]
    assert (row.file, row.kind, row.iso, row.cfa_pattern) == ("bias/a.pgm", "bias", 84, "GRBG")
    assert len(row.black_level) == 4


def test_a_manifest_that_names_the_pgm_or_jpeg_speaks_of_its_raw(tmp_path):
    frame(tmp_path / "a.dng", iso=None)
    (tmp_path / "a.pgm").write_bytes(b"P5\n2 2\n65535\n" + bytes(8))
    (tmp_path / "frames.csv").write_text("file,kind,iso\na.pgm,flat,400\n")
    row = open_folder(tmp_path).table.iloc[0]
    assert (row.file, row.kind, row.iso) == ("a.dng", "flat", 400)


def test_a_conversion_beside_its_raw_is_set_aside(tmp_path, real_data):
    (tmp_path / "bias").mkdir()
    shutil.copyfile(real_data / "raw" / "kodak-dc50.kdc", tmp_path / "bias" / "a.kdc")
    frame(tmp_path / "bias" / "a.dng")
    fit(tmp_path / "bias" / "A.fits")
    folder = open_folder(tmp_path)
    assert list(kinds(folder)) == ["bias/a.kdc"]
    assert sorted(path.name for path, _ in folder.set_aside) == ["A.fits", "a.dng"]
    assert all("a.kdc, which is used" in reason for _, reason in folder.set_aside)


def test_what_is_no_image_is_passed_over(tmp_path):
    frame(tmp_path / "bias" / "a.dng")
    for name in ("notes.txt", "a.xmp", ".hidden.dng", "._a.dng", ".trash/b.dng"):
        path = tmp_path / "bias" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"nothing")
    folder = open_folder(tmp_path)
    assert (len(folder), folder.set_aside, folder.warnings) == (1, [], [])


# what cannot be used


def test_bad_files_are_set_aside_with_the_reason(tmp_path, real_data):
    frame(tmp_path / "bias" / "good.dng")
    arw = (real_data / "raw" / "sony-a7r3.arw").read_bytes()
    bad = {
        "cut.arw": (arw[: len(arw) // 2], "is cut short"),
        "empty.nef": (b"", "is empty"),
        "jpeg.NEF": (JPEG, "is a JPEG picture"),
        "letter.cr2": (b"Dear Sir or Madam, " * 99, "is a text file, not a RAW frame"),
        "broken.fits": (b"SIMPLE  =" + bytes(99), "cannot be read as FITS"),
        "eight.pgm": (b"P5\n2 2\n255\n" + bytes(4), "eight bits"),
    }
    for name, (content, _) in bad.items():
        (tmp_path / "bias" / name).write_bytes(content)
    (tmp_path / "bias" / "gone.nef").symlink_to(tmp_path / "nowhere")
    folder = open_folder(tmp_path)
    assert kinds(folder) == {"bias/good.dng": "bias"}
    reasons = {path.name: reason for path, reason in folder.set_aside}
    assert set(reasons) == {*bad, "gone.nef"}
    for name, (_, reason) in bad.items():
        assert reason in reasons[name]
    assert "does not exist" in reasons["gone.nef"]
    assert all(name in repr(folder) for name in bad)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_links_are_followed_and_each_real_file_counts_once(tmp_path):
    root = tmp_path / "night"
    frame(root / "lights" / "a.dng")
    frame(tmp_path / "library" / "x.dng")
    frame(tmp_path / "library" / "sub" / "y.dng")
    (root / "darks").symlink_to(tmp_path / "library")  # kept elsewhere
    (root / "bias").symlink_to(tmp_path / "library" / "sub")  # seen by another way already
    (root / "again").symlink_to("lights")
    (root / "early.dng").symlink_to(root / "lights" / "a.dng")
    (root / "lights" / "round").symlink_to("..")
    (root / "up").symlink_to(tmp_path)
    (tmp_path / "library" / "loop").symlink_to(".")
    found = kinds(open_folder(root, progress=False))
    assert found.pop("lights/a.dng") == "light"
    assert sorted(path.rsplit("/", 1)[-1] for path in found) == ["x.dng", "y.dng"]
    assert found["darks/x.dng"] == "dark"


def test_a_pipe_is_not_waited_for(tmp_path):
    frame(tmp_path / "bias" / "good.dng")
    os.mkfifo(tmp_path / "bias" / "pipe.nef")
    ((path, reason),) = open_folder(tmp_path).set_aside
    assert path.name == "pipe.nef"
    assert "not an ordinary file" in reason


def test_a_manifest_naming_a_missing_file(tmp_path):
    frame(tmp_path / "a.dng")
    (tmp_path / "frames.csv").write_text("file,kind\na.dng,bias\nb.dng,bias\n")
    folder = open_folder(tmp_path)
    ((path, reason),) = folder.set_aside
    assert path.name == "b.dng"
    assert "named in the manifest" in reason
    assert folder.count("bias") == 1


def test_a_manifest_may_name_a_file_of_any_suffix(tmp_path):
    frame(tmp_path / "a.dng").rename(tmp_path / "a.img")
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / "frames.csv").write_text("file,kind\na.img,bias\nnotes.txt,bias\n")
    folder = open_folder(tmp_path)
    assert kinds(folder) == {"a.img": "bias"}
    ((path, _),) = folder.set_aside
    assert path.name == "notes.txt"


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lambda root: None, "has no frames .found nothing.; supported are camera RAW, DNG, FITS and dcraw's PGM"),
        (lambda root: (root / "a.txt").write_text("x"), r"has no frames \(found 1 other files?\)"),
        (
            lambda root: (root / "a.jpg").write_bytes(JPEG),
            r"can be used: a\.jpg is a finished picture",
        ),
        (lambda root: (root / "a.nef").write_bytes(b""), r"can be used: a\.nef is empty"),
    ],
)
def test_a_folder_without_frames(tmp_path, fill, message):
    fill(tmp_path)
    with pytest.raises(WorkbenchError, match=message):
        open_folder(tmp_path)


def test_no_folder(tmp_path):
    with pytest.raises(WorkbenchError, match="does not exist"):
        open_folder(tmp_path / "absent")
    with pytest.raises(WorkbenchError, match=r"a\.dng is a file; give the folder"):
        open_folder(frame(tmp_path / "a.dng"))


# cubes


def test_a_cube_is_lazy_and_reads_one_frame_a_chunk(tmp_path):
    for n in range(3):
        frame(
            tmp_path / "darks" / f"IMG_{n + 8}.dng", level=700 + n, exposure=60.0, temperature=20, iso=200, aperture=4
        )
    dark = check_cube(open_folder(tmp_path).dark, kind="dark")
    assert dark.filename.values.tolist() == ["darks/IMG_8.dng", "darks/IMG_9.dng", "darks/IMG_10.dng"]
    assert dark.chunks == ((1, 1, 1), (32,), (48,))
    (tmp_path / "darks" / "IMG_9.dng").unlink()  # nothing has been read yet
    assert dark[2].max() == 702
    with pytest.raises(FrameReadError, match=r"IMG_9\.dng does not exist"):
        dark.compute()
    assert (dark.iso.values == 200).all()
    assert (dark.temperature.values == 20).all()
    assert (dark.exposure.values == 60).all()
    assert (dark.aperture.values == 4).all()


def test_the_same_cube_on_every_scheduler(tmp_path):
    for n in range(4):
        frame(tmp_path / "bias" / f"{n}.dng", level=n)
    bias = open_folder(tmp_path).bias
    for scheduler in ("synchronous", "threads", "processes"):
        with dask.config.set(scheduler=scheduler):
            assert bias.max(("y", "x")).values.tolist() == [0, 1, 2, 3]


def test_a_frame_that_changes_under_us_is_named(tmp_path):
    path = frame(tmp_path / "bias" / "a.dng")
    bias = open_folder(tmp_path).bias
    frame(path, shape=(40, 48))
    with pytest.raises(FrameReadError, match=r"a\.dng decodes to 40 x 48 pixels, not to the announced 32 x 48"):
        bias.compute()


def test_the_full_area_begins_at_another_colour(tmp_path):
    pixels = np.arange(40 * 40, dtype=np.uint16).reshape(40, 40)
    (tmp_path / "bias").mkdir()
    write_dng(
        tmp_path / "bias" / "a.dng",
        pixels,
        DngMetadata(cfa_pattern="RGGB", black_level=0, white_level=9, active_area=(3, 4, 40, 40)),
    )
    folder = open_folder(tmp_path)
    assert (folder.bias.shape, folder.bias.attrs["cfa_pattern"]) == ((1, 37, 36), "RGGB")
    full = folder.cube("bias", area="full")
    assert (full.shape, full.attrs["cfa_pattern"]) == ((1, 40, 40), "GBRG")
    np.testing.assert_array_equal(full[0], pixels)


def test_an_empty_kind_says_what_there_is(tmp_path):
    frame(tmp_path / "bias" / "a.dng")
    folder = open_folder(tmp_path)
    with pytest.raises(
        WorkbenchError, match=r"has no flat frames \(it has 1 bias\); put them into a folder named flat"
    ):
        _ = folder.flat
    with pytest.raises(WorkbenchError, match="kind 'flats' is not known"):
        folder.cube("flats")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (40, 48)}, r"differ in height: 32 \(flats/a\.dng\), 40 \(flats/b\.dng\); .*select\(height=32\)"),
        ({"model": "NIKON D90"}, r"differ in camera: NIKON D7000 \(flats/a\.dng\), NIKON D90"),
        ({"cfa_pattern": "GBRG"}, r"differ in CFA pattern: RGGB \(flats/a\.dng\), GBRG .*select\(cfa_pattern='RGGB'\)"),
    ],
)
def test_frames_that_form_no_cube_say_why_and_can_be_parted(tmp_path, change, message):
    frame(tmp_path / "flats" / "a.dng")
    frame(tmp_path / "flats" / "b.dng", **change)
    folder = open_folder(tmp_path)
    with pytest.raises(WorkbenchError, match=message):
        _ = folder.flat
    (warning,) = folder.warnings
    assert "select one before measuring" in warning
    ((column, value),) = [
        ("height", 40)
        if "shape" in change
        else ("camera", "NIKON D90")
        if "model" in change
        else ("cfa_pattern", "GBRG")
    ]
    assert folder.select(**{column: value}).flat.filename.values.tolist() == ["flats/b.dng"]
    assert folder.select(**{column: value}).warnings == []


def test_levels_that_differ_are_not_hidden(tmp_path):
    frame(tmp_path / "flats" / "a.dng")
    frame(tmp_path / "flats" / "b.dng", black_level=(600, 600, 600, 1024), white_level=15000, iso=200)
    flat = open_folder(tmp_path).flat
    assert np.isnan(flat.attrs["black_level"]).all()
    assert flat.attrs["white_level"] == 15000
    assert "black levels differ" in flat.attrs["history"].splitlines()[1]
    assert "white levels differ" in flat.attrs["history"].splitlines()[2]


# the folder as an object


@pytest.fixture
def night(tmp_path):
    for iso in (100, 200):
        for n in range(2):
            frame(tmp_path / "bias" / f"{iso}_{n}.dng", iso=iso)
            frame(tmp_path / "darks" / "20C" / f"{iso}_{n}.dng", iso=iso, exposure=60.0)
    return open_folder(tmp_path)


def test_select_takes_values_lists_and_nan(night):
    assert len(night.select(iso=100)) == 4
    assert len(night.select(iso=[100, 200], kind="bias")) == 4
    assert len(night.select(temperature=math.nan)) == 4
    assert len(night.select(exposure=1 / 8000)) == 4
    assert len(night) == 8
    with pytest.raises(WorkbenchError, match=r"no frames with iso 400 among these; there are 100\.0, 200\.0"):
        night.select(iso=400)
    with pytest.raises(WorkbenchError, match="no column 'gain' to select by; there are file, kind"):
        night.select(gain=1)


def test_summary_counts_by_kind_iso_exposure_and_temperature(night):
    summary = night.summary()
    assert list(summary.columns) == ["kind", "iso", "exposure", "temperature", "frames"]
    assert summary["kind"].tolist() == ["bias", "bias", "dark", "dark"]
    assert summary["frames"].tolist() == [2, 2, 2, 2]
    assert summary["temperature"].tolist()[2:] == [20, 20]


def test_it_shows_itself(night):
    text, html = repr(night), night._repr_html_()
    for shown in (text, html):
        assert "8 frames, NIKON D7000, 48 x 32 pixels" in shown
        assert "dark" in shown
        assert "20" in shown
    assert "<table" in html
    assert ": 1 frame, NIKON D7000" in repr(night.select(path=night.table.path[0]))


def test_names_are_escaped_in_html(tmp_path):
    root = tmp_path / "<b>bias"
    frame(root / "a.dng")
    assert "<b>bias" not in open_folder(root)._repr_html_()


def test_a_frame_dropped_joins_those_set_aside(night):
    path = night.table["path"].iloc[0]
    left = night.drop(path, "fails on decoding")
    assert (len(left), len(night)) == (7, 8)
    assert left.set_aside == [(path, "fails on decoding")]


def test_the_table_can_be_cut_with_pandas_and_opened(night):
    table = night.table[(night.table.iso == 200) & (night.table.kind == "dark")]
    assert open_frames(table).sizes["frame"] == 2
    with pytest.raises(WorkbenchError, match="no frames given"):
        open_frames(table[:0])


def test_no_pixels_are_read_while_looking(tmp_path, monkeypatch):
    for n in range(5):
        frame(tmp_path / "bias" / f"{n}.dng")

    def read(*args, **kwargs):
        raise AssertionError("pixels were read")

    monkeypatch.setattr(np, "memmap", read)
    monkeypatch.setattr("rawpy.RawPy", read)
    assert len(open_folder(tmp_path)) == 5


def test_unreadable_frames_are_set_aside_until_a_measurement_runs_through(night):
    bad = [Path(path) for path in night.table["path"].iloc[:2]]

    def measure(folder):
        for path in bad:
            if (folder.table["path"] == path).any():
                raise FrameReadError(path, "is truncated")
        return len(folder)

    count, left = night.without_unreadable(measure)
    assert count == len(left) == len(night) - 2
    assert [path for path, _ in left.set_aside[-2:]] == bad
    with pytest.raises(FrameReadError, match="of another folder"):
        night.without_unreadable(
            lambda folder: (_ for _ in ()).throw(FrameReadError("other.dng", "is of another folder"))
        )
