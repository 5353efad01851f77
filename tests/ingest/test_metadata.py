"""What EXIF and names tell."""

import io
import math
import struct

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from workbench.ingest import DngMetadata, write_dng
from workbench.ingest.metadata import (
    as_time,
    camera_name,
    exif_time,
    kind_in_folders,
    kind_in_words,
    read_exif,
)


@pytest.mark.parametrize(
    ("make", "model", "name"),
    [
        ("NIKON CORPORATION", "NIKON D7000", "NIKON D7000"),
        ("Canon", "Canon EOS 6D", "Canon EOS 6D"),
        ("SONY", "ILCE-7RM3", "SONY ILCE-7RM3"),
        ("Eastman Kodak Company", "Kodak  DC50 ", "Kodak DC50"),
        ("", "ASI2600MC", "ASI2600MC"),
        ("Acme", "", "Acme"),
        ("", "", ""),
    ],
)
def test_cameras_are_named_once(make, model, name):
    assert camera_name(make, model) == name


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        *(
            (text, "bias")
            for text in ("bias", "Biases", "BIAS", "offset", "Offsets", "Bias Frame", "bias_ISO100", "zero")
        ),
        *((text, "dark") for text in ("dark", "Darks", "darks_20C", "Dark Frame", "dark-60s", "2024 darks")),
        *((text, "flat") for text in ("flat", "FLATS", "Flat Field", "flats-R", "SkyFlat", "flats2")),
        *(
            (text, "darkflat")
            for text in ("darkflat", "DarkFlats", "flat-dark", "flat-darks", "flat_darks", "dark flats")
        ),
        *((text, "light") for text in ("light", "Lights", "Light Frame", "lights_M31", "LIGHT")),
        *(
            (text, "")
            for text in ("M31", "darkness", "biased", "flatten", "master dark", "MasterFlat", "darks and flats", "")
        ),
    ],
)
def test_kinds_in_words(text, kind):
    assert kind_in_words(text) == kind


def test_kinds_by_the_nearest_folder(tmp_path):
    assert kind_in_folders(tmp_path / "lights" / "M31" / "a.nef", tmp_path) == "light"
    assert kind_in_folders(tmp_path / "darks" / "flats" / "a.nef", tmp_path) == "flat"
    root = tmp_path / "Darks"
    root.mkdir()
    assert kind_in_folders(root / "a.nef", root) == "dark"
    assert kind_in_folders(root / "a.nef", tmp_path / "Darks") == "dark"


def test_times():
    assert exif_time("2014:07:15 13:07:40", "25") == np.datetime64("2014-07-15T13:07:40.25")
    assert np.isnat(exif_time("0000:00:00 00:00:00"))
    assert np.isnat(exif_time("    :  :     :  :  "))
    assert as_time("2024-05-12T22:01:02Z") == np.datetime64("2024-05-12T22:01:02")
    assert np.isnat(as_time("yesterday"))


def test_exif_within_a_fujifilm_container(tmp_path):
    """A RAF keeps its EXIF in an embedded JPEG whose place stands at byte 84."""
    exif = Image.Exif()
    exif[271], exif[272] = "FUJIFILM", "X-T30"
    exif.get_ifd(0x8769).update({33434: IFDRational(1, 250), 34855: 640, 36867: "2024:05:12 22:01:02"})
    jpeg = io.BytesIO()
    Image.new("L", (8, 8)).save(jpeg, "JPEG", exif=exif)
    path = tmp_path / "a.raf"
    head = b"FUJIFILMCCD-RAW ".ljust(84, b"0") + struct.pack(">II", 160, len(jpeg.getvalue()))
    path.write_bytes(head.ljust(160, b"\0") + jpeg.getvalue())
    found = read_exif(path)
    assert (found["camera"], found["iso"], found["exposure"]) == ("FUJIFILM X-T30", 640, 1 / 250)
    assert found["time"] == np.datetime64("2024-05-12T22:01:02")


@pytest.mark.parametrize("first", [b"IIU\0", b"IIRO", b"IIRS", b"II*\0"])
def test_exif_behind_the_first_bytes_of_panasonic_olympus_and_pentax(tmp_path, first):
    metadata = DngMetadata("RGGB", black_level=0, white_level=4095, iso=800, exposure=30, make="Acme", model="R1")
    dng = write_dng(tmp_path / "a.dng", np.zeros((32, 32), np.uint16), metadata)
    path = tmp_path / "a.rw2"
    path.write_bytes(first + dng.read_bytes()[4:])
    found = read_exif(path)
    assert (found["camera"], found["iso"], found["exposure"]) == ("Acme R1", 800, 30)


def test_exif_within_a_canon_cr3_container(tmp_path):
    """A CR3 keeps its EXIF as whole TIFF structures in the boxes CMT1 and CMT2."""
    frame = np.zeros((32, 32), np.uint16)
    dng = write_dng(
        tmp_path / "a.dng",
        frame,
        DngMetadata(cfa_pattern="RGGB", black_level=0, white_level=1, iso=800, exposure=30, make="Acme", model="R1"),
    )
    tiff = dng.read_bytes()
    boxes = struct.pack(">I", 24) + b"ftypcrx " + bytes(12) + struct.pack(">I", 8 + len(tiff)) + b"CMT1" + tiff
    path = tmp_path / "a.cr3"
    path.write_bytes(boxes)
    found = read_exif(path)
    assert (found["camera"], found["iso"], found["exposure"]) == ("Acme R1", 800, 30)


def test_no_exif_is_no_mistake(tmp_path):
    path = tmp_path / "a.x3f"
    path.write_bytes(b"FOVb" + bytes(100))
    found = read_exif(path)
    assert found["camera"] == ""
    assert math.isnan(found["iso"])


def test_the_thermometer_of_a_canon(tmp_path):
    """Canon's ShotInfo keeps the camera's temperature + 128 at index 12."""
    shot_info = [34 * 2, *([0] * 11), 128 + 27, *([0] * 21)]
    note_at = 8 + 2 + 3 * 12 + 4 + 6 + 14
    note = struct.pack("<HHHII", 1, 4, 3, len(shot_info), note_at + 2 + 12 + 4) + struct.pack("<I", 0)
    note += struct.pack(f"<{len(shot_info)}H", *shot_info)
    exif_at = note_at + len(note)
    ifd0 = struct.pack("<H", 3)
    ifd0 += struct.pack("<HHII", 271, 2, 6, 8 + 2 + 36 + 4)
    ifd0 += struct.pack("<HHII", 272, 2, 14, 8 + 2 + 36 + 4 + 6)
    ifd0 += struct.pack("<HHII", 34665, 4, 1, exif_at)
    ifd0 += struct.pack("<I", 0) + b"Canon\0" + b"Canon EOS 60D\0"
    exif = struct.pack("<H", 1) + struct.pack("<HHII", 37500, 7, len(note), note_at) + struct.pack("<I", 0)
    path = tmp_path / "a.cr2"
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8) + ifd0 + note + exif)
    assert read_exif(path)["temperature"] == 27
