"""The command line: fast help, one clear line for a mistake, nothing hidden."""

import json
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

import workbench
from workbench.cli import main
from workbench.simulate.capture import Batch, cooled, write_frames

HEAVY = {"holoviews", "panel", "bokeh", "matplotlib", "numba", "astropy", "scipy", "rawpy", "xarray", "pandas"}


def run(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_help_imports_nothing_heavy():
    done = python(
        "import sys\nfrom click.testing import CliRunner\nfrom workbench.cli import main\n"
        "for args in (['--help'], ['charts', '-h'], ['characterize', '-h'], ['frames', '-h'], ['--version']):\n"
        "    assert CliRunner().invoke(main, args).exit_code == 0\n"
        f"print(sorted(set(sys.modules) & {HEAVY!r}))"
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_importing_the_package_imports_nothing_heavy():
    done = python(f"import sys, workbench\nprint(sorted(set(sys.modules) & {HEAVY!r}))\nworkbench.charts.REGISTRY")
    assert done.stdout.strip() == "[]", done.stderr
    assert done.returncode == 0, done.stderr


def test_the_installed_program_answers():
    done = subprocess.run(
        [sys.executable, "-m", "workbench.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"workbench, version {workbench.__version__}"


@pytest.mark.parametrize("command", ["frames", "characterize", "charts"])
def test_each_command_explains_itself(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert len(result.output) > 300
    assert command in run("--help").output


def test_frames_shows_what_is_there(small_samples):
    result = run("frames", small_samples)
    assert result.exit_code == 0
    assert "39 frames, NIKON D7000 (simulated)" in result.output
    for kind in ("bias", "dark", "flat", "light"):
        assert kind in result.output


@pytest.mark.parametrize("command", [name for name in main.commands if name not in ("app", "predict-dark")])
def test_the_help_names_every_command_with_its_use(command):
    assert f"    workbench {command} " in run("--help").output


def test_a_file_that_is_not_a_dark_library_is_refused(tmp_path):
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "other.fits")
    result = run("predict-dark", tmp_path / "other.fits", "--exposure", 60, "--out", tmp_path / "dark.fits")
    assert result.exit_code == 2
    assert "other.fits is not a dark library; give the file that `workbench dark-library` wrote" in result.output


def test_a_plan_claims_no_charts_where_none_are_drawn(small_samples, tmp_path):
    shutil.copytree(small_samples / "bias", tmp_path / "bias")
    result = run("plan", tmp_path, "--out", tmp_path / "plan", "--quiet")
    assert result.exit_code == 0, result.output
    assert [path.name for path in (tmp_path / "plan").iterdir()] == ["shots.csv"]
    assert result.output.rstrip().endswith("shots.csv")


@pytest.mark.parametrize("option", ["--penalty", "--snr", "--target", "--longest", "--elongation"])
def test_a_plan_takes_no_number_below_zero(small_samples, option):
    result = run("plan", small_samples, option, -3)
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.output


def test_characterize_writes_the_sensor_and_prints_it(small_samples, tmp_path):
    result = run("characterize", small_samples, "--out", tmp_path / "results", "--quiet")
    assert result.exit_code == 0, result.output
    sensor = json.loads((tmp_path / "results" / "sensor.json").read_text())
    assert len(sensor["settings"]) == 8
    unity, error = map(float, re.search(r"unity gain: ISO ([\d.]+) ± ([\d.]+)", result.output).groups())
    assert abs(unity - 213) < 3 * error < 10  # 1.065 e-/ADU at ISO 200
    assert result.output.count("±") >= 3 * 2 + 3  # of each ISO, one row where the channels agree
    assert re.search(r"written: .*sensor\.json", result.output)


def test_charts_draws_what_is_asked(small_samples, tmp_path):
    result = run("charts", "--frames", small_samples, "--out", tmp_path, "--only", "iso-to-gain", "--quiet")
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in tmp_path.iterdir())
    endings = ("csv", "embed.html", "html", "js", "png", "svg", "txt")
    assert names == sorted(
        ["defects.fits", "sensor.json", "workbench-charts.js", *(f"iso-to-gain.{end}" for end in endings)]
    )
    assert "gain [e⁻/ADU]" in result.output
    assert "written: 1 chart" in result.output


def one_line(result):
    """The whole of stderr, which is one line."""
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("workbench: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.parametrize("command", [["frames"], ["characterize", "--out", "x"], ["charts", "--out", "x", "--frames"]])
def test_a_missing_folder_is_one_line(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "nowhere" in one_line(run(*command, tmp_path / "nowhere"))


def test_an_empty_folder_is_one_line(tmp_path):
    (tmp_path / "night").mkdir()
    assert "night" in one_line(run("characterize", tmp_path / "night", "--out", tmp_path / "out"))


@pytest.mark.parametrize(
    "command", ["characterize", "report", "inspect", "plan", "charts --frames", "dark-library", "stack", "finish"]
)
def test_the_output_is_checked_first_and_a_failure_leaves_nothing(command, tmp_path):
    (tmp_path / "file").write_text("in the way")
    name = {"report": "a.html", "dark-library": "a.fits", "stack": "a.fits", "finish": "a.png"}.get(command, "a")
    given = *command.split(), tmp_path / "nowhere", "--quiet", "--out"
    result = run(*given, tmp_path / "file" / "deeper" / name)
    assert result.exit_code == 2
    assert "file" in result.output
    assert "nowhere" not in result.output
    result = run(*given, tmp_path / ("" if command == "finish" else "new") / name)
    assert result.exit_code == 2
    assert "nowhere" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_misspelt_chart_is_refused_before_measuring(tmp_path):
    message = one_line(run("charts", "--frames", tmp_path / "never-read", "--out", tmp_path, "--only", "isotogain"))
    assert "no chart 'isotogain'; did you mean iso-to-gain? The charts are shot-noise-demo" in message


def test_a_mistake_gives_no_traceback_in_the_real_program(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "workbench.cli", "frames", str(tmp_path / "nowhere")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_an_unexpected_error_is_not_hidden(small_samples, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("workbench.characterize", broken)
    result = run("characterize", small_samples, "--out", tmp_path)
    assert isinstance(result.exception, ZeroDivisionError)


def test_ctrl_c_ends_quietly(small_samples, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("workbench.characterize", interrupted)
    result = run("characterize", small_samples, "--out", tmp_path)
    assert result.exit_code == 130
    assert result.stderr == "workbench: stopped; no half-written file is left, the same command begins again\n"
    assert list(tmp_path.iterdir()) == []


def test_a_stack_that_ctrl_c_ends_says_how_it_goes_on(small_samples, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("workbench.pipelines.stack_inputs.make_masters", interrupted)
    result = run("stack", small_samples, "--out", tmp_path / "stack.fits", "--quiet")
    assert result.exit_code == 130
    assert result.stderr.startswith("workbench: stopped; the same command goes on from here")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "stack.fits").exists()


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_no_command_writes_over_an_input(overwrite, tmp_path):
    night = tmp_path / "night"
    write_frames(night, cooled((48, 64)), [Batch("dark", 2, 60.0), Batch("light", 3, 60.0)])
    light, own = sorted((night / "lights").iterdir())[0], tmp_path / "own.fits"
    shutil.copy(light, own)
    before = light.read_bytes()
    attempts = [
        ("stack", night, "--out", light),
        ("stack", night, "--out", night / "lights" / "new.fits"),
        ("stack", night, "--out", tmp_path / "s.fits", "--masters", night / "darks"),
        ("dark-library", night, "--out", light),
        ("predict-dark", own, "--exposure", 60, "--out", own),
        ("finish", own, "--out", own),
        ("finish", own, "--out", tmp_path / "a.png", "--linear", own),
        ("finish", own, "--out", tmp_path / "a.fits", "--linear", tmp_path / "a.fits"),
    ]
    for attempt in attempts:
        result = run(*attempt, *overwrite)
        assert result.exit_code == 2, attempt
        assert result.output.count("\n") == 1, attempt
    assert light.read_bytes() == own.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"night", "own.fits"}
    assert {path.suffix for path in (night / "lights").iterdir()} == {".fits"}


AMONG_FRAMES = {
    "inspect": "{night}/lights --out {night}/lights",
    "plan": "{night} --out {night}/lights",
    "characterize": "{night} --out {night}/lights",
    "report": "{night} --out {night}/lights/report.html",
    "charts": "--frames {night} --out {night}/lights",
    "dark-library": "{night} --out {night}/bias/library.fits",
    "lights": "{night} --out {night}/lights/lights.csv",
    "stack": "{night} --out {night}/lights/stack.fits",
    "watch": "{night} --out {night}/lights",
    "lightcurve": "{night} --star 40,40 --out {night}/lights/curve.csv",
}
# written where the user names it, next to the file that is read
OF_ONE_FILE = {"predict-dark", "finish", "solve", "photometry"}


def test_every_command_with_an_output_is_known_here():
    with_output = {
        name for name, command in main.commands.items() if any("--out" in one.opts for one in command.params)
    }
    assert with_output == {*AMONG_FRAMES, *OF_ONE_FILE}


@pytest.mark.parametrize("command", AMONG_FRAMES)
def test_no_command_writes_among_the_frames(command, small_samples, tmp_path):
    shutil.copytree(small_samples, night := tmp_path / "night")
    before = sorted(night.rglob("*"))
    result = run(command, *AMONG_FRAMES[command].format(night=night).split())
    assert result.exit_code != 0
    assert re.search("among|holds frames|lies within", one_line(result))
    assert sorted(night.rglob("*")) == before


def test_a_file_of_somebody_else_is_replaced_only_on_demand(small_samples, tmp_path):
    (tmp_path / "shots.csv").write_text("my,own\n")
    refused = run("plan", small_samples, "--out", tmp_path, "--quiet")
    assert refused.exit_code == 2
    assert "shots.csv exists and was not made by the workbench" in refused.output
    for options in (["--overwrite"], []):  # over its own output without being asked
        assert run("plan", small_samples, "--out", tmp_path, "--quiet", *options).exit_code == 0


def test_a_full_output_is_one_line(small_samples):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "workbench.cli", "frames", str(small_samples)],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "workbench: the output: No space left on device\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_to_end_are_like_ctrl_c(number, small_samples, tmp_path):
    code = (
        "import os, signal, workbench.cli\n"
        f"signal.signal({int(number)}, signal.SIG_DFL)\n"  # whoever runs the tests may ignore it
        f"workbench.characterize = lambda *_, **__: os.kill(os.getpid(), {int(number)})\n"
        f"workbench.cli.main(['characterize', {str(small_samples)!r}, '--out', {str(tmp_path)!r}])"
    )
    done = python(code)
    assert done.returncode == 128 + number
    assert done.stderr.startswith("workbench: stopped; ")
    assert done.stderr.count("\n") == 1
