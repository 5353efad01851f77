"""A folder of darks becomes a library, and the library a master dark that calibrate can use."""

import numpy as np
import pytest
from click.testing import CliRunner

from workbench.calibrate import find_defects, open_master
from workbench.cli import main
from workbench.core.errors import WorkbenchError
from workbench.pipelines import make_dark_library, predict_master_dark


def test_from_a_folder_to_a_master(small_samples, tmp_path):
    result = make_dark_library(small_samples, tmp_path, progress=False)
    assert result.path == tmp_path / "dark-library.fits"
    assert "ISO 800" in repr(result)
    assert "(used)" in repr(result)
    predict_master_dark(result.path, tmp_path / "master.fits", exposure=300.0, temperature=15.0)
    master = open_master(tmp_path / "master.fits")
    assert master.attrs["exposure"] == 300.0
    assert master.attrs["kind"] == "dark"
    # 0.3 e-/s at 20 degrees, a doubling each 6, ISO 800
    level = 600 + 300 * 0.3 * 2 ** (-5 / 6) / (2.13 / 8)
    np.testing.assert_allclose(master.signal.mean(), level, rtol=0.01)
    assert find_defects(master).attrs["counts"]["hot"] > 0


def test_what_cannot_be_made_says_why(small_samples, tmp_path):
    with pytest.raises(WorkbenchError, match="no darks at ISO 1600"):
        make_dark_library(small_samples, iso=1600, progress=False)
    (tmp_path / "flats").mkdir()
    with pytest.raises(WorkbenchError):
        make_dark_library(tmp_path, progress=False)
    with pytest.raises(WorkbenchError, match="cannot be found"):
        predict_master_dark(tmp_path / "none.fits", tmp_path / "out.fits", exposure=1.0)


def test_from_the_command_line(small_samples, tmp_path):
    library, master = tmp_path / "dark-library.fits", tmp_path / "master.fits"
    done = CliRunner().invoke(main, ["dark-library", str(small_samples), "--out", str(library), "--quiet"])
    assert done.exit_code == 0, done.output
    assert "doubles every" in done.output
    predict = ["predict-dark", str(library), "--exposure", "300", "--out", str(master)]
    done = CliRunner().invoke(main, [*predict, "--temperature", "40"])
    assert done.exit_code == 0, done.output
    assert "outside the library's darks" in done.output
    assert open_master(master).attrs["temperature"] == 40
    done = CliRunner().invoke(main, predict)
    assert done.exit_code == 2
    assert "give the temperature" in done.output
    assert "Traceback" not in done.output
