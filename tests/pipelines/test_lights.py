"""Lights of a folder examined for the charts; what is missing is said, not guessed."""

import shutil

import numpy as np
from click.testing import CliRunner

from workbench.cli import main
from workbench.ingest import open_folder
from workbench.pipelines import examine_lights


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
