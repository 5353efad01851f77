"""Inspecting folders and files."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from tests.scenes import Shooting
from workbench.cli import main
from workbench.core.errors import WorkbenchError
from workbench.ingest import DngMetadata, write_dng
from workbench.pipelines import inspect
from workbench.pipelines.inspection import write_inspection
from workbench.simulate import d7000
from workbench.simulate.capture import Batch, smart_telescope, write_frames

CAMERA = d7000(seed=2, shape=(128, 192))
LIGHT = 4e4 / np.array(Shooting.LAMP)  # the same in all channels


@pytest.fixture
def stock(tmp_path):
    """A folder of bias frames and flats by the stock firmware."""
    camera = Shooting(tmp_path, CAMERA, firmware="stock")
    camera.bias(4, iso=100, exposure=1e-4)
    camera.flats((0.01, 0.04, 0.1, 0.3), iso=100, light=LIGHT)
    return tmp_path


def test_a_folder_gives_verdict_and_descaled_gain(stock):
    result = inspect(stock, progress=False)
    assert result.verdict == "cooked"
    assert result.simulated
    assert result.fidelity.card.attrs["clipped_at_zero"] is True
    true = CAMERA.gain(100)
    gain = result.gain.isel(iso=0)
    assert gain.gain.sel(channel="R").item() == pytest.approx(true / 1.12, rel=0.05)
    pull = (gain.gain_descaled - true) / gain.gain_descaled_error
    assert (abs(pull) < 4).all()
    text = repr(result)
    assert "COOKED" in text
    assert "red × 1.12" in text
    assert "de-scaled" in text
    assert "COOKED" in result._repr_html_()


def test_files_are_sorted_by_their_folders_names(stock):
    files = sorted((stock / "bias").iterdir())
    assert inspect(files, progress=False).frame_counts == {"bias": 4}
    assert inspect(files[0], progress=False).frame_counts == {"bias": 1}


def test_written_as_json(stock, tmp_path):
    path = write_inspection(inspect(stock / "bias", progress=False), tmp_path / "out")
    told = json.loads(path.read_text())
    assert told["simulated"] is True
    assert told["verdict"] == "cooked"
    assert list((tmp_path / "out").iterdir()) == [path]


def test_an_unreadable_frame_is_set_aside(stock):
    broken = stock / "bias" / "9.dng"
    broken.write_bytes((stock / "bias" / "bias_001.dng").read_bytes()[:4000])
    result = inspect(stock, progress=False)
    assert [path.name for path, _ in result.set_aside] == ["9.dng"]


def test_mistakes_are_named(tmp_path, stock):
    with pytest.raises(WorkbenchError, match="no files"):
        inspect([], progress=False)
    with pytest.raises(WorkbenchError, match="is a folder"):
        inspect([stock, stock / "bias" / "bias_001.dng"], progress=False)


def test_a_frame_of_another_camera_is_set_aside_and_half_of_them_refused(stock):
    facts = DngMetadata(cfa_pattern="RGGB", black_level=600, white_level=16383, model="X")
    other = write_dng(stock / "bias" / "other.dng", np.full((64, 64), 600, "uint16"), facts)
    result = inspect([*sorted((stock / "flats").iterdir()), other], progress=False)
    assert [path.name for path, _ in result.set_aside] == ["other.dng"]
    with pytest.raises(WorkbenchError, match="mixes frames of different camera"):
        inspect([stock / "bias" / "bias_001.dng", other], progress=False)


def test_on_the_command_line(stock, tmp_path):
    done = CliRunner().invoke(main, ["inspect", str(stock), "--out", str(tmp_path / "out"), "--quiet"])
    assert done.exit_code == 0, done.output
    assert "✗ Is any colour multiplied?" in done.output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"fidelity.json", "missing-codes.png", "missing-codes.html", "noise-spectrum.svg"} <= names
    done = CliRunner().invoke(main, ["inspect", str(tmp_path / "nowhere.dng")])
    assert done.exit_code == 2
    assert "nowhere.dng" in done.output


def test_files_are_looked_at_as_a_folder_is(tmp_path):
    """A colour camera's flats without BAYERPAT, one of them twice."""
    camera = smart_telescope((96, 128), camera="a camera")
    written = write_frames(tmp_path, camera, [Batch("flat", 4, 0.5, header={"BAYERPAT": None})])
    paths = [path for path, *_ in written]
    again = shutil.copy(paths[0], tmp_path / "flats" / "copy.fits")
    result = inspect([*paths, again], progress=False)
    assert any("the pixels show a colour mosaic: taken for GRBG" in warning for warning in result.warnings)
    assert [path.name for path, _ in result.set_aside] == ["copy.fits"]
