"""ISO, exposure and kind from names; grey maps of dcraw with and without their RAW files."""

import math
import subprocess

import numpy as np
import pytest

from workbench.core.errors import WorkbenchError
from workbench.ingest import open_folder, read_frame
from workbench.ingest.unrecorded import exposure_in_name, iso_in_name, read_manifest, temperature_in_name


@pytest.mark.parametrize(
    ("name", "iso", "exposure"),
    [
        ("flat_ISO800_1-125s.pgm", 800, 1 / 125),
        ("ISO 400/dark 60s/DSC_0001.pgm", 400, 60),
        ("darks/iso-1600_0,5s.pgm", 1600, 0.5),
        ("ISO 400/flat_ISO800_2sec.pgm", 800, 2),
        ("100ISO/dark2min.pgm", 100, 120),
        ("exp300s/LIGHT_0003_250ms.pgm", math.nan, 0.25),
        ("LIGHT_60.00s_0001.pgm", math.nan, 60),
        ("dark_1_60s.pgm", math.nan, math.nan),  # the first of 60 s, or 1/60 s
        ("DSC_0001.pgm", math.nan, math.nan),
        ("M31s/2014-07-15/isolated_300.pgm", math.nan, math.nan),
        ("ISO12.5/1.125.60smooth.pgm", math.nan, math.nan),
    ],
)
def test_iso_and_exposure_in_names(name, iso, exposure):
    assert [iso_in_name(name), exposure_in_name(name)] == pytest.approx([iso, exposure], nan_ok=True)


@pytest.mark.parametrize(
    ("name", "temperature"),
    [
        ("20C", 20),
        ("-5C", -5),
        ("dark_-10C", -10),
        ("dark_20C_60s", 20),
        ("darks 20 C", 20),
        ("-10degC", -10),
        ("m10degC", -10),
        ("minus5C", -5),
        ("−5C", -5),
        ("+4C", 4),
        ("-9.7C", -9.7),
        ("21,5°C", 21.5),
        ("DARK_60.00_-10.00C_0001", -10),
        ("ISO200_18C", 18),
    ],
)
def test_temperatures_in_names(name, temperature):
    assert temperature_in_name(f"{name}.fit") == (temperature, True)
    assert temperature_in_name(f"{name}/frame_1.nef") == (temperature, True)


@pytest.mark.parametrize("name", ["IMG_0020C", "f2.8Canon", "20CM", "C20", "120C", "abc5C", "M31C", "3C273", "20c"])
def test_what_is_no_temperature(name):
    assert math.isnan(temperature_in_name(f"{name}.nef")[0])


def test_a_hyphen_after_a_word_is_a_minus_but_not_for_sure():
    assert temperature_in_name("dark-20C.nef") == (-20, False)


def test_the_nearest_name_holds():
    assert temperature_in_name("night/20C/dark_-5C/a.nef")[0] == -5
    assert temperature_in_name("night/20C/dark/a_7C.nef")[0] == 7


def test_names_above_the_root_are_not_asked(tmp_path):
    root = tmp_path / "20C" / "night"
    (root / "darks").mkdir(parents=True)
    assert math.isnan(temperature_in_name(root / "darks" / "a.nef", root)[0])
    assert temperature_in_name(root.parent / "night" / "darks" / "a.nef", root.parent)[0] == 20


def write_map(path, mosaic):
    """A grey map as ``dcraw -4 -D`` writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"P5\n%d %d\n65535\n" % mosaic.shape[::-1] + mosaic.astype(">u2").tobytes())


def exposures(pattern):
    """A flat, a bias and a dark of a camera with that mosaic."""
    rng = np.random.default_rng(7)
    lamp = np.tile(np.select([np.array(list(pattern)) == c for c in "RGB"], [3000, 5000, 2500]).reshape(2, 2), (48, 64))
    flat = 600 + rng.normal(lamp, np.sqrt(lamp))
    dark = 600 + rng.normal(0, 4, lamp.shape)
    return flat.round(), dark.round()


@pytest.mark.parametrize("pattern", ["RGGB", "GRBG"])
def test_maps_of_dcraw_alone_are_understood(tmp_path, pattern):
    flat, dark = exposures(pattern)
    write_map(tmp_path / "flat_ISO800_1-125s_001.pgm", flat)
    write_map(tmp_path / "ISO 800" / "dark 60s" / "DSC_1.pgm", dark)
    write_map(tmp_path / "ISO 800" / "bias 1-8000s" / "DSC_2.pgm", dark)
    folder = open_folder(tmp_path)
    rows = folder.table.set_index("kind")
    assert sorted(rows.index) == ["bias", "dark", "flat"]
    assert set(rows["iso"]) == {800}
    assert rows["exposure"].to_dict() == pytest.approx({"bias": 1 / 8000, "dark": 60, "flat": 1 / 125})
    assert set(rows["cfa_pattern"]) == {pattern}
    assert {len(black) for black in rows["black_level"]} == {4}
    names, mosaic = sorted(folder.warnings)
    assert names.startswith("ISO and exposure that no file records are taken from names: ")
    assert "(ISO 800, " in names
    assert f"the pixels show a colour mosaic: taken for {pattern}; if it is" in mosaic
    assert "frames.csv (column cfa)" in mosaic


def test_the_manifest_settles_the_mosaic(tmp_path):
    flat, dark = exposures("BGGR")
    write_map(tmp_path / "flat_ISO800_2s.pgm", flat)
    write_map(tmp_path / "dark_ISO800_2s.pgm", dark)
    (tmp_path / "frames.csv").write_text("file,cfa\nflat_ISO800_2s.pgm,BGGR\ndark_ISO800_2s.pgm,BGGR\n")
    folder = open_folder(tmp_path)
    assert set(folder.table["cfa_pattern"]) == {"BGGR"}
    assert not [text for text in folder.warnings if "CFA" in text]


def test_darks_alone_ask_for_the_mosaic(tmp_path):
    _, dark = exposures("RGGB")
    write_map(tmp_path / "dark_ISO800_2s.pgm", dark)
    folder = open_folder(tmp_path)
    assert [text for text in folder.warnings if "taken for mono; give it in frames.csv (column cfa)" in text]


@pytest.mark.parametrize("layout", [("f", "f"), ("f", "f/pgm"), ("nef", "flats"), ("nef/flats", "pgm/flats")])
def test_maps_take_everything_from_their_raws(tmp_path, frame, require, layout):
    raws, maps = (tmp_path / name for name in layout)
    raw = frame(raws / "DSC_1.dng", iso=800, exposure=1 / 640)
    maps.mkdir(parents=True, exist_ok=True)
    with (maps / "DSC_1.pgm").open("wb") as file:
        subprocess.run([require("dcraw"), "-4", "-D", "-c", raw], stdout=file, check=True)
    np.testing.assert_array_equal(read_frame(maps / "DSC_1.pgm"), read_frame(raw))
    folder = open_folder(tmp_path)
    (row,) = folder.table.to_dict("records")
    assert (row["iso"], row["exposure"], row["cfa_pattern"]) == (800, pytest.approx(1 / 640), "RGGB")
    assert (row["black_level"], row["white_level"]) == ((600.0,) * 4, 16383)
    assert row["kind"] == ("flat" if "flats" in "".join(layout) else "")
    assert row["path"] == raw


def test_a_map_of_another_exposure_keeps_its_own_name(tmp_path, frame):
    frame(tmp_path / "bias" / "DSC_1.dng")
    write_map(tmp_path / "flats" / "DSC_1.pgm", exposures("RGGB")[0])
    frame(tmp_path / "nef" / "DSC_2.dng")
    for kind, mosaic in zip(("flats", "darks"), exposures("GRBG"), strict=True):  # at most one is that exposure
        write_map(tmp_path / kind / "DSC_2.pgm", mosaic)
    assert len(open_folder(tmp_path)) == 5


def test_a_column_whose_name_is_almost_right_is_not_passed_over(tmp_path):
    path = tmp_path / "frames.csv"
    path.write_text("file,exposure,note\na.fits,60,first\n")
    with pytest.raises(WorkbenchError, match=r"frames\.csv has a column 'exposure'.* is 'exposure_s' meant\?"):
        read_manifest(path)
    path.write_text("file,exposure_s,note\na.fits,60,first\n")
    assert list(read_manifest(path).values()) == [{"exposure": 60.0}]
