"""A folder of frames: what they are, what is known of them, what cannot be used; and the manifest."""

import math
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from workbench.core.errors import WorkbenchError
from workbench.ingest import open_folder, read_frame
from workbench.ingest.catalogue import read_manifest

ROOT = Path(__file__).parents[2]
JPEG = b"\xff\xd8\xff\xe0" + bytes(200)


def fit(path, **words):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = fits.Header({word.replace("_", "-"): value for word, value in words.items()})
    fits.PrimaryHDU(np.zeros((24, 24), np.uint16), header).writeto(path)
    return path


def kinds(folder):
    return dict(zip(folder.table["file"], folder.table["kind"], strict=True))


# what a frame is


def test_kinds_by_folder_at_any_depth_and_in_any_case(tmp_path, frame):
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


def test_the_folder_itself_tells_a_kind(tmp_path, frame):
    frame(tmp_path / "offsets" / "a.dng")
    assert kinds(open_folder(tmp_path / "offsets")) == {"a.dng": "bias"}


def test_the_manifest_comes_first_then_the_header_then_the_folder(tmp_path):
    fit(tmp_path / "lights" / "a.fit", IMAGETYP="Dark Frame")
    fit(tmp_path / "lights" / "b.fit", IMAGETYP="Dark Frame")
    fit(tmp_path / "lights" / "c.fit", IMAGETYP="Tricolor Image")
    (tmp_path / "frames.csv").write_text("file,kind\nlights/a.fit,bias\nlights/b.fit,\n")
    assert kinds(open_folder(tmp_path)) == {"lights/a.fit": "bias", "lights/b.fit": "dark", "lights/c.fit": "light"}


def test_a_manifest_within_knows_better_than_one_above(tmp_path, frame):
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
    assert not any("ISO" in warning for warning in folder.warnings)


def test_the_manifest_fills_and_corrects_the_file(tmp_path, frame):
    frame(tmp_path / "a.dng", iso=100, exposure=None)
    (tmp_path / "frames.csv").write_text(
        "file,kind,iso,exposure_s,cfa,black_level,white_level,camera\na.dng,flat,250,0.5,BGGR,601,15000,Own\n"
    )
    row = open_folder(tmp_path).table.iloc[0]
    assert (row.iso, row.exposure, row.cfa_pattern, row.black_level) == (250, 0.5, "BGGR", (601,) * 4)
    assert (row.white_level, row.camera) == (15000, "Own")


def test_a_mosaic_declared_mono_has_one_black_level(tmp_path, frame):
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
def test_the_temperature_from_the_file_then_the_manifest_then_the_name(tmp_path, recorded, told, name, expected, frame):
    frame(tmp_path / name / "a.dng", temperature=recorded)
    (tmp_path / "frames.csv").write_text(f"file,temperature_c\n{name}/a.dng,{'' if told is None else told}\n")
    folder = open_folder(tmp_path)
    np.testing.assert_equal(folder.table["temperature"].iloc[0], expected)
    assert not any("temperature" in warning for warning in folder.warnings)


def test_darks_warmer_than_they_say_are_noticed(tmp_path, frame):
    for n in range(3):
        frame(tmp_path / "darks_-10C" / f"{n}.dng", temperature=14 + n)
    folder = open_folder(tmp_path)
    assert folder.table["temperature"].tolist() == [14, 15, 16]
    assert folder.warnings == [
        "the recorded temperature differs from that of manifest or name; the recorded one is used: "
        "darks_-10C/0.dng (14 °C, not -10) and 2 more"
    ]


def test_a_doubtful_minus_is_noticed(tmp_path, frame):
    frame(tmp_path / "dark-20C" / "a.dng")
    folder = open_folder(tmp_path)
    assert folder.table["temperature"].tolist() == [-20]
    assert "hyphen" in folder.warnings[0]


@pytest.mark.parametrize(("quantity", "said"), [("iso", "ISO"), ("exposure", "exposure")])
def test_a_missing_exposure_or_iso_is_noticed(tmp_path, quantity, said, frame):
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
    (tmp_path / "frames.csv").write_text("file,kind,iso,exposure_s\na.pgm,flat,100,1\nb.fit,flat\nc.fit,flat\n")
    (warning,) = (text for text in open_folder(tmp_path).warnings if "CFA" in text)
    assert warning == ("no CFA pattern recorded, taken for mono; give it in frames.csv (column cfa): a.pgm and 1 more")


# what counts once


def test_a_raw_with_its_jpeg_counts_once(tmp_path, frame):
    frame(tmp_path / "bias" / "IMG_1.dng")
    (tmp_path / "bias" / "IMG_1.JPG").write_bytes(JPEG)
    (tmp_path / "bias" / "jpeg").mkdir()
    (tmp_path / "bias" / "jpeg" / "img_1.jpg").write_bytes(JPEG)
    folder = open_folder(tmp_path)
    assert (len(folder), folder.set_aside) == (1, [])


def test_a_jpeg_alone_is_set_aside(tmp_path, frame):
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


def test_a_manifest_that_names_the_pgm_or_jpeg_speaks_of_its_raw(tmp_path, frame):
    frame(tmp_path / "a.dng", iso=None)
    (tmp_path / "a.pgm").write_bytes(b"P5\n2 2\n65535\n" + bytes(8))
    (tmp_path / "frames.csv").write_text("file,kind,iso\na.pgm,flat,400\n")
    row = open_folder(tmp_path).table.iloc[0]
    assert (row.file, row.kind, row.iso) == ("a.dng", "flat", 400)


def test_a_conversion_beside_its_raw_is_set_aside(tmp_path, real_data, frame):
    (tmp_path / "bias").mkdir()
    shutil.copyfile(real_data / "raw" / "kodak-dc50.kdc", tmp_path / "bias" / "a.kdc")
    frame(tmp_path / "bias" / "a.dng")
    fit(tmp_path / "bias" / "A.fits")
    folder = open_folder(tmp_path)
    assert list(kinds(folder)) == ["bias/a.kdc"]
    assert sorted(path.name for path, _ in folder.set_aside) == ["A.fits", "a.dng"]
    assert all("a.kdc, which is used" in reason for _, reason in folder.set_aside)


def test_what_is_no_image_is_passed_over(tmp_path, frame):
    frame(tmp_path / "bias" / "a.dng")
    for name in ("notes.txt", "a.xmp", ".hidden.dng", "._a.dng", ".trash/b.dng"):
        path = tmp_path / "bias" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"nothing")
    folder = open_folder(tmp_path)
    assert (len(folder), folder.set_aside, folder.warnings) == (1, [], [])


# what cannot be used


def test_bad_files_are_set_aside_with_the_reason(tmp_path, real_data, frame):
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
def test_links_are_followed_and_each_real_file_counts_once(tmp_path, frame):
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


def test_a_pipe_is_not_waited_for(tmp_path, frame):
    frame(tmp_path / "bias" / "good.dng")
    os.mkfifo(tmp_path / "bias" / "pipe.nef")
    ((path, reason),) = open_folder(tmp_path).set_aside
    assert path.name == "pipe.nef"
    assert "not an ordinary file" in reason


def test_a_manifest_naming_a_missing_file(tmp_path, frame):
    frame(tmp_path / "a.dng")
    (tmp_path / "frames.csv").write_text("file,kind\na.dng,bias\nb.dng,bias\n")
    folder = open_folder(tmp_path)
    ((path, reason),) = folder.set_aside
    assert path.name == "b.dng"
    assert "named in the manifest" in reason
    assert folder.count("bias") == 1


def test_a_manifest_may_name_a_file_of_any_suffix(tmp_path, frame):
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
        (
            lambda root: None,
            "has no frames .found nothing.; supported are camera RAW, DNG, FITS, XISF, SER, TIFF and dcraw's PGM",
        ),
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


def test_no_folder(tmp_path, frame):
    with pytest.raises(WorkbenchError, match="does not exist"):
        open_folder(tmp_path / "absent")
    with pytest.raises(WorkbenchError, match=r"a\.dng is a file; give the folder"):
        open_folder(frame(tmp_path / "a.dng"))


# cubes


# the manifest


def read(folder, text, encoding="utf-8"):
    path = folder / "frames.csv"
    path.write_bytes(text.encode(encoding))
    return {file.relative_to(folder.resolve()).as_posix(): values for file, values in read_manifest(path).items()}


def test_every_column(tmp_path):
    values = {
        "file": "sub/a.nef", "kind": "Flats", "iso": "100", "gain": "0", "offset": "50", "readout_mode": "High Gain",
        "binning": "2", "filter": "h-alpha", "rotation": "-12.5", "exposure_s": "1/30", "aperture": "5.6",
        "temperature_c": "-4.5", "cfa": "gbrg", "black_level": "600 601 602 603", "white_level": "16383",
        "camera": "NIKON D7000", "time": "2014-07-15T13:07:40",
    }  # fmt: skip
    written = (ROOT / "docs" / "frames-csv.md").read_text(encoding="utf-8").split("Other columns are ignored")[0]
    assert set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", written, re.M)))) == set(values)
    told = read(tmp_path, f"{','.join([*values, 'remark'])}\n{','.join([*values.values(), 'cloudy'])}\n")
    assert told == {
        "sub/a.nef": {
            "kind": "flat",
            "iso": 100,
            "gain_setting": 0,
            "offset_setting": 50,
            "readout_mode": "High Gain",
            "binning": 2,
            "filter": "Ha",
            "rotation": -12.5,
            "exposure": 1 / 30,
            "aperture": 5.6,
            "temperature": -4.5,
            "cfa_pattern": "GBRG",
            "black_level": (600, 601, 602, 603),
            "white_level": 16383,
            "camera": "NIKON D7000",
            "time": np.datetime64("2014-07-15T13:07:40"),
        }
    }


def test_missing_and_empty_columns_tell_nothing(tmp_path):
    assert read(tmp_path, "file,kind,iso\na.nef,,\nb.nef,dark,\n") == {"a.nef": {}, "b.nef": {"kind": "dark"}}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize(
    "text", ["File; Exposure_s ;camera\nä.nef; 0,5 ;a, b\n", 'file,exposure_s,camera\nä.nef,0.5,"a, b"\n']
)
def test_other_spellings_of_a_table(tmp_path, text, encoding):
    assert read(tmp_path, text, encoding) == {"ä.nef": {"exposure": 0.5, "camera": "a, b"}}


def test_blank_lines_and_line_ends_of_windows(tmp_path):
    assert read(tmp_path, "file,iso\r\na.nef,100\r\n,\r\n\r\n") == {"a.nef": {"iso": 100}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; a manifest has a header line"),
        ("name,kind\na.nef,flat\n", r"has no column 'file' \(its columns: name, kind\)"),
        ("file,kind\na.nef,flatt\n", "line 2: kind is 'flatt'; it is one of bias, dark, flat, darkflat, light"),
        ("file,iso\na.nef,100\nb.nef,fast\n", "line 3: iso is 'fast', which is not a number"),
        ("file,exposure_s\na.nef,-1\n", "line 2: exposure_s is '-1'; give a number that is not below zero"),
        ("file,exposure_s\na.nef,1/0\n", "line 2: exposure_s is '1/0', which is not a number"),
        ("file,temperature_c\na.nef,inf\n", "line 2: temperature_c is 'inf'; give a finite number"),
        ("file,cfa\na.nef,RGBG\n", "line 2: cfa is 'RGBG'; it is one of RGGB"),
        ("file,black_level\na.nef,1 2\n", "line 2: black_level is '1 2'; give one level, or four"),
        ("file,time\na.nef,noon\n", "line 2: time is 'noon'; write it as 2014"),
        ("file,iso\na.nef,100\na.nef,200\n", "line 3: a.nef is named twice"),
        ("file,iso\n\n\n,100\n", "line 4: the column 'file' is empty"),
        ("file,iso\na.nef,100,3,4\n", "cannot be read as a table"),
        ("file,iso\na.nef,100\nb.nef,100,3,4\n", "cannot be read as a table"),
    ],
)
def test_a_fault_is_named_with_its_line(tmp_path, text, message):
    with pytest.raises(WorkbenchError, match=message) as caught:
        read(tmp_path, text)
    assert str(tmp_path / "frames.csv") in str(caught.value)


def test_another_encoding_is_named(tmp_path):
    with pytest.raises(WorkbenchError, match="UTF-8"):
        read(tmp_path, "file,camera\nä.nef,Kamera\n", "latin-1")


# what would end everything


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        ("CCD-TEMP=                  nan", ""),
        ("EXPTIME =                  NaN", ""),
        ("INSTRUME= '\x1b[31mred'", ""),
        ("BITPIX  =                    7", "cannot be read"),
        ("NAXIS   =                    0", "cannot be read"),
        ("NAXIS1  =        3000000000000", "is cut short"),
        ("BAYERPAT= 'QWER    '", "BAYERPAT is 'QWER'"),
    ],
)
def test_one_bad_header_concerns_one_file(card, reason, tmp_path):
    for number in range(3):
        fit(tmp_path / "darks" / f"{number}.fits", EXPTIME=60.0, CCD_TEMP=-10.0, INSTRUME="ZWO", BAYERPAT="RGGB")
    path = tmp_path / "darks" / "1.fits"
    content, key = path.read_bytes(), card[:8].encode()
    at = content.index(key)
    path.write_bytes(content[:at] + card.encode().ljust(80) + content[at + 80 :])
    folder = open_folder(tmp_path)
    assert [(file.name, reason in why) for file, why in folder.set_aside] == ([("1.fits", True)] if reason else [])
    assert len(folder) == 3 - bool(reason)
    assert "\x1b" not in repr(folder)


def test_loops_of_links_and_names_that_terminals_obey(tmp_path):
    fit(tmp_path / "darks" / "\x1b[31mred\n.fits", EXPTIME=60.0)
    loop = tmp_path / "darks" / "loop.fits"
    loop.symlink_to(loop)
    folder = open_folder(tmp_path)
    assert list(folder.table["file"]) == ["darks/\\x1b[31mred\\n.fits"]
    assert "loop.fits cannot be opened" in repr(folder)
    assert folder.dark.shape == (1, 24, 24)


def test_a_pipe_as_manifest_is_refused(tmp_path):
    fit(tmp_path / "darks" / "a.fits")
    os.mkfifo(tmp_path / "frames.csv")
    with pytest.raises(WorkbenchError, match=r"frames\.csv is not an ordinary file"):
        open_folder(tmp_path)


def test_rows_that_lead_out_of_the_folder_are_reported(tmp_path):
    fit(tmp_path / "night" / "darks" / "a.fits")
    fit(tmp_path / "other.fits")
    (tmp_path / "night" / "frames.csv").write_text("file,kind\n../other.fits,dark\nnone.fits,dark\n")
    folder = open_folder(tmp_path / "night")
    assert folder.count("dark") == 1
    assert [why.split(";")[0] for _, why in folder.set_aside] == [
        "named in the manifest frames.csv, but lies outside this folder or in a hidden one, and is not read",
        "named in the manifest frames.csv, but does not exist",
    ]


def test_a_folder_that_cannot_be_read_is_reported(tmp_path):
    fit(tmp_path / "lights" / "a.fits")
    locked = fit(tmp_path / "darks" / "a.fits").parent
    assert len(open_folder(tmp_path)) == 2
    locked.chmod(0)
    root = os.geteuid() == 0  # who reads everything
    if root:
        for folder in [tmp_path, *tmp_path.parents]:
            if folder.stat().st_mode & 0o005 != 0o005:  # pytest's own are closed to others
                folder.chmod(0o755)
        os.seteuid(65534)
    try:
        shown = repr(open_folder(tmp_path))
    finally:
        if root:
            os.seteuid(0)
        locked.chmod(0o755)
    assert "darks is a folder that cannot be read (Permission denied)" in shown
    assert "1 frame" in shown
