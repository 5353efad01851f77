"""The project's own promises: requirements in step, house files present, nothing private named."""

import re
import runpy
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
# where conda-forge's name differs from PyPI's
CONDA_NAMES = {
    "jupyter-bokeh": "jupyter_bokeh",
    "matplotlib": "matplotlib-base",
    "playwright": "playwright-python",
    "sep": "python-sep",
}


def requirements() -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + [line for extra in project["optional-dependencies"].values() for line in extra]
    found = {}
    for line in lines:
        name, extras, version = re.fullmatch(r"([A-Za-z0-9_.-]+)(\[[^]]*\])?(>=[\d.]+)", line).groups()
        found[CONDA_NAMES.get(name, name)] = version
        if extras and "distributed" in extras:
            found["distributed"] = version
    return found | {"python": project["requires-python"]}


def test_environment_is_in_step_with_pyproject():
    lines = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    lines = [line for line in lines if isinstance(line, str)] + lines[-1]["pip"]
    conda = dict(re.fullmatch(r"([A-Za-z0-9_.-]+)(>=[\d.]+)", line).groups() for line in lines if ">=" in line)
    assert conda == requirements()


def test_constraints_pin_every_requirement_and_name_no_address():
    lines = (ROOT / "constraints.txt").read_text().split()
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[\w.+!]+", line) for line in lines)
    pinned = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in lines}
    names = {{conda: pypi for pypi, conda in CONDA_NAMES.items()}.get(name, name) for name in requirements()}
    assert {name.replace("_", "-").lower() for name in names} - pinned - {"python"} == set()


def test_version_is_told_once_the_same():
    import workbench

    assert f"version: {workbench.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_readme_names_the_make_targets_that_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"`?make ([a-z]+)`?", (ROOT / "README.md").read_text()))
    assert {"charts", "test", "lab"} <= named <= targets


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_a_benchmark_finds_all_that_it_imports(path, monkeypatch):
    monkeypatch.syspath_prepend(path.parent)
    assert runpy.run_path(str(path), run_name="loaded")["__doc__"]
