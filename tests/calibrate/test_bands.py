"""Frames in bands: read where they lie in their files, the same numbers as decoded ones."""

import numpy as np
import pytest
from astropy.io import fits

from workbench.calibrate import bands
from workbench.calibrate.bands import Frames, in_place
from workbench.calibrate.masters import master_dark
from workbench.core.errors import FrameReadError
from workbench.core.parallel import lazy_frames
from workbench.ingest import DngMetadata, write_dng
from workbench.ingest.metadata import PlainPixels
from workbench.ingest.reader import frame_place, is_as_read, open_frames

SHAPE = (64, 96)


@pytest.fixture(autouse=True)
def large(monkeypatch):
    """Let these small frames be too many for the memory, and several bands."""
    monkeypatch.setattr(bands, "IN_MEMORY", 0)
    monkeypatch.setattr(bands, "BAND_BYTES", 6 * 96 * 2 * 10)


def dark_files(folder, form, count=6):
    """Darks of one exposure in files: unsigned or floating-point FITS, from the top or the bottom, packed, or DNG."""
    random = np.random.default_rng(3)
    paths = []
    for number in range(count):
        data = random.poisson(640, SHAPE).astype("uint16")
        path = folder / f"dark_{number}.{'dng' if form == 'dng' else 'fits'}"
        if form == "dng":
            area = (2, 4, SHAPE[0], SHAPE[1])
            metadata = DngMetadata("RGGB", 600, 16383, iso=100, exposure=60, active_area=area)
            write_dng(path, data, metadata)
        else:
            cards = {"IMAGETYP": "dark", "EXPTIME": 60.0, "BAYERPAT": "RGGB", "ISOSPEED": 100}
            cards["ROWORDER"] = "BOTTOM-UP" if form == "bottom-up" else "TOP-DOWN"
            pixels = data.astype("float32") if form == "float" else data
            made = fits.CompImageHDU if form == "packed" else fits.PrimaryHDU
            hdu = made(pixels, fits.Header(cards))
            hdu.writeto(path)
        paths.append(path)
    return paths


@pytest.mark.parametrize("form", ["fits", "bottom-up", "float", "dng", "packed"])
def test_a_master_has_the_same_bits_whether_its_frames_are_read_in_place_or_decoded(tmp_path, form):
    cube = open_frames(dark_files(tmp_path, form), kind="dark")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with Frames(cube, scratch=scratch, progress=False) as frames:
        assert bool(list(scratch.iterdir())) == (form == "packed")
        assert np.array_equal(frames.read(4, 30), cube.values[:, 4:30])
        assert np.array_equal(frames.sampled_rows()[1], cube.values[:, frames.sampled_rows()[0]])
    assert not list(scratch.iterdir())
    decoded = cube.copy(data=cube.values)
    assert master_dark(cube, progress=False).identical(master_dark(decoded, progress=False))


def test_only_frames_that_nothing_was_done_to_are_read_in_place(tmp_path):
    cube = open_frames(dark_files(tmp_path, "fits"), kind="dark")

    def places(some):
        return [frame_place(frame) for frame in lazy_frames(some)] if is_as_read(some) else []

    assert [place.path.name for place in places(cube[1:6:2])] == ["dark_1.fits", "dark_3.fits", "dark_5.fits"]
    for changed in (cube[:, ::-1], cube[:, :10], cube[:, :, 2:], cube[:, :, ::-1]):
        assert places(changed) == [None] * 6
    assert places(cube + 0) == places(cube.copy(data=cube.values)) == []
    with Frames(cube[:, ::-1], scratch=tmp_path, progress=False) as frames:
        assert np.array_equal(frames.read(0, 10), cube.values[:, ::-1][:, :10])


def test_a_file_that_fails_midway_is_left_out(tmp_path, monkeypatch):
    cube = open_frames(dark_files(tmp_path, "fits"), kind="dark")
    whole = PlainPixels._fill

    def fill(self, first, flat, area):
        if self.path.name == "dark_2.fits" and first <= 31 < first + flat.size // SHAPE[1]:
            raise FrameReadError(self.path, "cannot be read: Input/output error")
        whole(self, first, flat, area)

    monkeypatch.setattr(bands, "spread_rows", lambda height, step: np.arange(0, 20))  # the damage lies beyond these
    monkeypatch.setattr(PlainPixels, "_fill", fill)
    master = in_place(master_dark, cube, list(range(6)), progress=False)
    assert master.attrs["frames"] == 5
    assert any("dark_2.fits" in text and "Input/output" in text for text in master.attrs["warnings"])
    expected = master_dark(cube.isel(frame=[0, 1, 3, 4, 5]), progress=False)
    assert np.array_equal(master["signal"], expected["signal"])
