"""A folder of darks becomes a library, and the library a master dark; lights are examined for the charts."""

import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from workbench.calibrate import find_defects, open_master
from workbench.cli import main
from workbench.core.errors import WorkbenchError
from workbench.ingest import open_folder
from workbench.pipelines import examine_lights, make_dark_library, predict_master_dark


def some_of(folder, lights, flats=True):
    """The folder with the first so many lights, with or without flats."""
    frames = open_folder(folder, progress=False)
    kind = frames.table["kind"]
    paths = list(frames.table.loc[kind == "light", "path"].iloc[lights:])
    for path in paths + ([] if flats else list(frames.table.loc[kind == "flat", "path"])):
        frames = frames.drop(path, "left out")
    return frames


def test_lights_give_every_piece(samples):
    found = examine_lights(some_of(samples, 4), progress=False)
    assert found.registration.used == (0, 1, 2, 3)
    assert found.growth["count"].values.tolist() == [1, 2, 3, 4]
    assert np.abs(found.growth["noise"] / found.growth["predicted"] - 1).max() < 0.03
    assert found.trial.attrs["frames"] == 4
    assert found.pair.attrs["light_noise"] > 1.8 * found.pair.attrs["stack_noise"]
    assert found.audit.attrs["verdict"] != "fails"


def test_methods_of_rejection_are_compared_where_they_cost_the_same(fair_night_trial):
    # eight samples cannot reach 3 or 5 σ of their own: at the usual thresholds these methods find nothing
    assert (fair_night_trial.usual_found.sel(rejection=["sigma", "linear-fit"]) < 0.01).all()
    alarms = fair_night_trial.default_false_alarms
    assert (alarms > 3e-4).all()
    assert (alarms < 3e-3).all()
    # compared fairly, all find something, and the noise model most
    assert (fair_night_trial.default_found > 0.03).all()
    assert fair_night_trial.default_found.idxmax("rejection").item() == "noise"


def test_few_lights_without_flats_give_what_they_can(samples):
    few = examine_lights(some_of(samples, 2, flats=False), progress=False)
    assert few.audit is None
    assert any("no flats" in text for text in few.warnings)
    assert few.registration.used == (0, 1)
    assert few.growth["count"].values.tolist() == [1, 2]
    assert few.trial is None
    assert any("three frames" in text for text in few.warnings)


def test_a_folder_without_lights_says_so(small_samples, tmp_path):
    shutil.copytree(small_samples / "bias", tmp_path / "bias")
    bare = examine_lights(tmp_path, progress=False)
    assert bare.registration is None
    assert "not looked at" in bare.warnings[0]


def test_the_command_draws_them_and_leaves_them_out_without_lights(small_samples, tmp_path):
    command = ["charts", "--quiet", "--only", "alignment-residuals", "--only", "ptc"]
    result = CliRunner().invoke(main, [*command, "--frames", str(small_samples), "--out", str(tmp_path / "with")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "with" / "alignment-residuals.png").stat().st_size > 1000
    for kind in ("bias", "flats"):
        shutil.copytree(small_samples / kind, tmp_path / "frames" / kind)
    result = CliRunner().invoke(
        main, [*command, "--frames", str(tmp_path / "frames"), "--out", str(tmp_path / "without")]
    )
    assert result.exit_code == 0, result.output
    assert "not drawn: alignment-residuals" in result.output
    assert (tmp_path / "without" / "ptc.png").exists()
    assert not (tmp_path / "without" / "alignment-residuals.png").exists()


def test_from_a_folder_to_a_master(small_samples, tmp_path):
    result = make_dark_library(small_samples, tmp_path, progress=False)
    assert result.path == tmp_path / "dark-library.fits"
    assert "ISO 800" in repr(result)
    assert "(used)" in repr(result)
    predict_master_dark(result.path, tmp_path / "master.fits", exposure=300.0, temperature=15.0)
    master = open_master(tmp_path / "master.fits")
    assert master.attrs["exposure"] == 300.0
    assert master.attrs["kind"] == "dark"
    # 0.3 e-/s at 20 degrees, less by an activation energy of 0.65 eV, ISO 800
    level = 600 + 300 * 0.3 * np.exp(-0.65 / 8.617e-5 * (1 / 288.15 - 1 / 293.15)) / (2.13 / 8)
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
