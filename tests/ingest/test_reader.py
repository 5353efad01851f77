"""Grey maps of dcraw."""

import shutil
import subprocess

import numpy as np
import pytest

from workbench.core.errors import FrameReadError
from workbench.ingest import DngMetadata, read_frame, read_metadata, write_dng


def test_a_map_of_dcraw_is_the_frame(tmp_path, require):
    mosaic = np.random.default_rng(1).integers(0, 65536, (60, 41), dtype=np.uint16)
    write_dng(tmp_path / "a.dng", mosaic, DngMetadata(cfa_pattern="GBRG", black_level=0, white_level=16383))
    subprocess.run([require("dcraw"), "-4", "-D", "a.dng"], cwd=tmp_path, check=True)
    pixels = read_frame(tmp_path / "a.pgm")
    assert pixels.dtype == np.dtype("uint16")
    assert pixels.dtype.isnative
    np.testing.assert_array_equal(pixels, mosaic)


def test_comments_in_the_header_are_passed_over(tmp_path):
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 # made by hand\n# twice\n3 2\n# three\n65535\n" + np.arange(6, dtype=">u2").tobytes())
    np.testing.assert_array_equal(read_frame(path), [[0, 1, 2], [3, 4, 5]])
    info = read_metadata(path)
    assert (info.height, info.width, info.cfa_pattern, info.camera) == (2, 3, "mono", "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"P5\n4 4\n255\n" + bytes(16), r"has eight bits a pixel: .*dcraw -4 -D"),
        (b"P6\n4 4\n65535\n" + bytes(96), r"is not a binary PGM \(P5\)"),
        (b"P2\n4 4\n65535\n" + b"1 " * 16, r"is not a binary PGM"),
        (b"P5\n4 4\n65535\n" + bytes(31), r"is cut short: 44 bytes of the 45"),
        (b"P5\n0 4\n65535\n", r"impossible PGM header"),
        (b"P5\n4 4\n70000\n" + bytes(32), r"impossible PGM header"),
        (b"P5\n", r"is not a binary PGM"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, content, message):
    path = tmp_path / "a.pgm"
    path.write_bytes(content)
    for read in (read_frame, read_metadata):
        with pytest.raises(FrameReadError, match=message):
            read(path)


def test_dcraw_without_its_options_is_noticed(tmp_path, real_data, require):
    """Plain ``dcraw -D`` of a Kodak gives eight bits when -4 is forgotten."""
    shutil.copyfile(real_data / "raw" / "kodak-dc50.kdc", tmp_path / "a.kdc")
    subprocess.run([require("dcraw"), "-D", "a.kdc"], cwd=tmp_path, check=True)
    with pytest.raises(FrameReadError, match="eight bits"):
        read_frame(tmp_path / "a.pgm")
