"""Shared fixtures: where the real data, the real programs and the samples are."""

import os
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


def _missing(reason: str):
    """Skip on a user's machine; fail where every real part was promised."""
    if os.environ.get("WORKBENCH_REQUIRE_REAL"):
        pytest.fail(f"{reason}; WORKBENCH_REQUIRE_REAL is set, so this test must not be skipped")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def require():
    """Return the path of a program that a test drives for real."""

    def find(program: str) -> str:
        found = shutil.which(program)
        return found or _missing(f"the program {program!r} is not installed")

    return find


@pytest.fixture
def siril(require, tmp_path, monkeypatch):
    """Run lines of a script with Siril's own command line in a folder, with settings as installed; returns its log."""
    program = require("siril-cli")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def run(folder: Path, *lines: str) -> str:
        script = folder / "script.ssf"
        script.write_text("\n".join(["requires 1.0.0", *lines, ""]))
        call = [program, "-d", str(folder), "-s", str(script)]
        return subprocess.run(call, capture_output=True, text=True, timeout=300, check=False).stdout

    return run


@pytest.fixture
def siril_levels(siril):
    """Open a file with Siril's own command line; returns mean, median and standard deviation of each layer."""

    def levels(path: Path) -> np.ndarray:
        log = siril(path.parent, f"load {path.name}", "stat")
        found = re.findall(r"layer: Mean: (\S+), Median: (\S+), Sigma: (\S+),", log)
        assert found, log
        return np.array(found, float)

    return levels


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real frames and published tables."""
    folder = Path(os.environ.get("WORKBENCH_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set WORKBENCH_REAL_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def small_samples() -> Path:
    """The small committed set of frames."""
    return ROOT / "data-samples" / "small"


@pytest.fixture(scope="session")
def frames(small_samples):
    """The small set, opened."""
    from workbench.ingest import open_folder

    return open_folder(small_samples, progress=False)


@pytest.fixture(scope="session")
def result(frames):
    """What `characterize` finds in the small set."""
    from workbench.pipelines import characterize

    return characterize(frames, progress=False)


@pytest.fixture(scope="session")
def samples() -> Path:
    """The full set of sample frames, generated once by the virtual camera."""
    from workbench.simulate import sample_folder
    from workbench.simulate.samples import SampleWarning

    with warnings.catch_warnings():
        if not os.environ.get("WORKBENCH_REQUIRE_REAL"):  # other processors may round the last bit elsewhere
            warnings.simplefilter("default", SampleWarning)
        return sample_folder(progress=False)


@pytest.fixture(scope="session")
def night(samples):
    """The lights of the full sample set: read, with their masters, calibrated, registered, on one grid."""
    from types import SimpleNamespace

    from workbench import align, calibrate, stack
    from workbench.ingest import open_folder

    frames = open_folder(samples, progress=False)
    masters = calibrate.make_masters(frames.light, bias=frames.bias, dark=frames.dark, flat=frames.flat, progress=False)
    lights = calibrate.calibrate(frames.light, masters).compute()
    registration = align.register(lights, progress=False)
    aligned = stack.aligned(lights, registration).compute()
    return SimpleNamespace(frames=frames, masters=masters, lights=lights, registration=registration, aligned=aligned)


@pytest.fixture(scope="session")
def night_trial(night):
    """Rejection methods tried on the sample lights with planted events."""
    from workbench.stack import rejection_trial

    return rejection_trial(night.lights, night.registration, window=(160, 240))


@pytest.fixture(scope="session")
def fair_night_trial(night):
    """The sample night's methods of rejection at equal false alarms."""
    from workbench.pipelines import fair_trial

    return fair_trial(night.lights, night.registration)
