"""Results never take the place of frames, other inputs, links, devices or files of somebody else."""

import os

import numpy as np
import pytest
from astropy.io import fits

from workbench.core.errors import WorkbenchError
from workbench.core.files import (
    aside,
    check_folder,
    check_target,
    is_ours,
    overwriting,
    require_replaceable,
    whole_file,
)


@pytest.fixture
def frame(tmp_path):
    """A raw frame in a folder of lights."""
    path = tmp_path / "lights" / "l3.fit"
    path.parent.mkdir()
    fits.PrimaryHDU(np.zeros((4, 4), "uint16")).writeto(path)
    return path


def test_a_frame_is_not_overwritten(frame):
    before = frame.read_bytes()
    for writes in (lambda: check_target(frame), lambda: check_target(frame, frames=[frame])):
        with pytest.raises(WorkbenchError, match=r"l3\.fit"):
            writes()
    with overwriting(), pytest.raises(WorkbenchError, match="is an input"):
        check_target(frame, frames=[frame])
    with pytest.raises(WorkbenchError, match="not made by the workbench"), whole_file(frame) as part:
        part.write_bytes(b"other")
    assert frame.read_bytes() == before
    assert list(frame.parent.iterdir()) == [frame]


def test_a_frame_behind_another_name_is_not_overwritten(frame, tmp_path):
    os.link(frame, tmp_path / "hard.fits")
    with overwriting(), pytest.raises(WorkbenchError, match="is an input"):
        check_target(tmp_path / "hard.fits", inputs=[frame])
    (tmp_path / "soft.fits").symlink_to(frame)
    with overwriting(), pytest.raises(WorkbenchError, match="is a link"):
        check_target(tmp_path / "soft.fits")
    with pytest.raises(WorkbenchError, match="is a link"), aside(tmp_path / "soft.fits") as part:
        part.write_bytes(b"other")


def test_nothing_is_written_among_the_frames(frame, tmp_path):
    with pytest.raises(WorkbenchError, match="among the frames"):
        check_target(frame.parent / "new.fits", frames=[frame])
    (tmp_path / "way").symlink_to(frame.parent)
    with overwriting(), pytest.raises(WorkbenchError, match="among the frames"):
        check_target(tmp_path / "way" / "new.fits", frames=[frame])
    check_target(tmp_path / "new.fits", frames=[frame])


def test_pipes_and_devices_stay(tmp_path):
    pipe = tmp_path / "pipe.fits"
    os.mkfifo(pipe)
    with overwriting(), pytest.raises(WorkbenchError, match="not an ordinary file"), aside(pipe) as part:
        part.write_bytes(b"other")
    with pytest.raises(WorkbenchError, match="not an ordinary file"):
        require_replaceable("/dev/full")
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_files_of_others_are_replaced_only_on_demand(tmp_path):
    path = tmp_path / "notes.html"
    path.write_text("mine")
    with pytest.raises(WorkbenchError, match="--overwrite"):
        check_folder(tmp_path, names=["notes.html"])
    with overwriting(), whole_file(path) as part:
        part.write_text("drawn by the Astrophoto Workbench")
    assert is_ours(path)
    with whole_file(path) as part:  # our own again
        part.write_text("drawn by the Astrophoto Workbench, again")
    assert path.read_text().endswith("again")
