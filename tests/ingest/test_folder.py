"""The frames of a folder as a table and as lazy cubes."""

import math
from pathlib import Path

import dask
import numpy as np
import pytest

from workbench.core.cube import check_cube
from workbench.core.errors import FrameReadError, WorkbenchError
from workbench.ingest import DngMetadata, open_folder, open_frames, write_dng


def test_a_cube_is_lazy_and_reads_one_frame_a_chunk(tmp_path, frame):
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


def test_the_same_cube_on_every_scheduler(tmp_path, frame):
    for n in range(4):
        frame(tmp_path / "bias" / f"{n}.dng", level=n)
    bias = open_folder(tmp_path).bias
    for scheduler in ("synchronous", "threads", "processes"):
        with dask.config.set(scheduler=scheduler):
            assert bias.max(("y", "x")).values.tolist() == [0, 1, 2, 3]


def test_a_frame_that_changes_under_us_is_named(tmp_path, frame):
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


def test_an_empty_kind_says_what_there_is(tmp_path, frame):
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
def test_frames_that_form_no_cube_say_why_and_can_be_parted(tmp_path, change, message, frame):
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


def test_levels_that_differ_are_not_hidden(tmp_path, frame):
    frame(tmp_path / "flats" / "a.dng")
    frame(tmp_path / "flats" / "b.dng", black_level=(600, 600, 600, 1024), white_level=15000, iso=200)
    flat = open_folder(tmp_path).flat
    assert np.isnan(flat.attrs["black_level"]).all()
    assert flat.attrs["white_level"] == 15000
    assert "black levels differ" in flat.attrs["history"].splitlines()[1]
    assert "white levels differ" in flat.attrs["history"].splitlines()[2]


# the folder as an object


@pytest.fixture
def night(tmp_path, frame):
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


def test_names_are_escaped_in_html(tmp_path, frame):
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


def test_no_pixels_are_read_while_looking(tmp_path, monkeypatch, frame):
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


def test_odd_frames_are_set_aside_and_named(tmp_path, frame):
    for n in range(4):
        frame(tmp_path / "bias" / f"{n}.dng", exposure=1 / 8000, level=900 if n == 2 else 600)
    runs = []

    def measure(folder):
        runs.append(len(folder))
        return folder.bias.mean().values.item()

    mean, left = open_folder(tmp_path).without_odd(measure, "bias")
    assert runs == [4, 3]
    assert abs(mean - 600) < 1
    assert [(path.name, words) for path, words in left.set_aside] == [
        ("2.dng", "differs from the others in 100% of its pixels; check that it is a bias frame")
    ]
