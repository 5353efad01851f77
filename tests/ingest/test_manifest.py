"""The manifest frames.csv."""

import numpy as np
import pytest

from workbench.core.errors import WorkbenchError
from workbench.ingest.catalogue import read_manifest


def read(folder, text, encoding="utf-8"):
    path = folder / "frames.csv"
    path.write_bytes(text.encode(encoding))
    return {file.relative_to(folder.resolve()).as_posix(): values for file, values in read_manifest(path).items()}


def test_every_column(tmp_path):
    told = read(
        tmp_path,
        "file,kind,iso,exposure_s,aperture,temperature_c,cfa,black_level,white_level,camera,time,remark\n"
        "sub/a.nef,Flats,100,1/30,5.6,-4.5,gbrg,600 601 602 603,16383,NIKON D7000,2014-07-15T13:07:40,cloudy\n",
    )
    assert told == {
        "sub/a.nef": {
            "kind": "flat",
            "iso": 100,
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
        ("file,exposure_s\na.nef,-1\n", "line 2: exposure_s is '-1'; it cannot be below zero"),
        ("file,exposure_s\na.nef,1/0\n", "line 2: exposure_s is '1/0', which is not a number"),
        ("file,temperature_c\na.nef,inf\n", "line 2: temperature_c is 'inf'; give a finite number"),
        ("file,cfa\na.nef,RGBG\n", "line 2: cfa is 'RGBG'; it is one of RGGB"),
        ("file,black_level\na.nef,1 2\n", "line 2: black_level has 2 values; give one, or four"),
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
