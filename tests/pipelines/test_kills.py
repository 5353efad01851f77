"""Runs that are killed before one of their file operations, with and without a power cut, and started again."""

import os
import shutil

import numpy as np
import pytest

from tests import kills, torture
from workbench.finish.settings import FinishSettings
from workbench.pipelines import characterize, finish_stack, stack_folder

WHOLE = "WORKBENCH_TORTURE" in os.environ  # `make torture`: before every operation, not before a few
PARTS = 6  # of the operations, so that two processes can share them


def _stack(night, out, low=3.0):
    stack_folder(night, out / "s.fits", masters=out / "masters", low=low, threads=1, progress=False)


def _comet(night, out, low=3.0):
    way = ("60,40", "90,60")  # what stands there is followed
    stack_folder(night, out / "s.fits", masters=out / "masters", low=low, comet=way, threads=1, progress=False)


def _characterize(night, out):
    characterize(night, out / "sensor", progress=False)


def _finish(stack, out, strength=None):
    settings = FinishSettings()
    settings = settings if strength is None else FinishSettings.from_dict({"stretch": {"strength": strength}})
    files = {"linear_out": out / "linear.fits", "settings_out": out / "settings.json"}
    finish_stack(stack, out / "picture.png", settings, **files, progress=False)


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    return torture.make_night(tmp_path_factory.mktemp("kills") / "night")


@pytest.fixture(scope="module")
def other_night(night, tmp_path_factory):
    """The same night with fewer bias frames."""
    folder = tmp_path_factory.mktemp("kills") / "night"
    shutil.copytree(night, folder)
    next((folder / "biases").iterdir()).unlink()
    return folder


@pytest.fixture(scope="module")
def stack(night, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stack")
    _stack(night, folder)
    return folder / "s.fits"


@pytest.fixture(scope="module", params=["stack", "comet", "characterize", "finish"])
def command(request, night, other_night, stack, tmp_path_factory):
    """A command and what it is given, a folder with its earlier results, what it leaves, and its operations."""
    action, arguments, earlier = {
        "stack": (_stack, (night,), lambda out: _stack(night, out, 2.0)),
        "comet": (_comet, (night,), lambda out: _comet(night, out, 2.0)),
        "characterize": (_characterize, (night,), lambda out: _characterize(other_night, out)),
        "finish": (_finish, (stack,), lambda out: _finish(stack, out, 0.2)),
    }[request.param]
    there, before, durable = (tmp_path_factory.mktemp(name) for name in ("there", "before", "durable"))
    count = kills.run(action, *arguments, there, folder=there, durable=durable)
    earlier(before)
    return action, arguments, before, kills.contents(there), count


@pytest.mark.parametrize("power_cut", [False, True], ids=["killed", "power cut"])
@pytest.mark.parametrize("part", range(PARTS) if WHOLE else [0])
def test_a_killed_run_gives_the_same_bytes_when_it_is_started_again(command, part, power_cut, tmp_path):
    """Each result is at any time that of the run, an earlier one or not there; nothing else is left in the end."""
    action, arguments, before, wanted, count = command
    rng = np.random.default_rng(1)
    operations = range(part, count, PARTS) if WHOLE else rng.choice(count, 2, replace=False)
    earlier = kills.contents(before)
    for last in map(int, operations):
        out, durable = tmp_path / f"{last}", tmp_path / "durable"
        again = last % 2 == 1
        shutil.copytree(before, out) if again else out.mkdir()
        there = {path.stat().st_ino for path in out.rglob("*")}
        done = kills.run(action, *arguments, out, folder=out, durable=durable, last=last)
        assert again or done is None, f"operation {last} of {count} was not reached"
        if power_cut:
            kills.cut_power(out, durable, there, rng)
        for name, content in kills.contents(out).items():
            allowed = [wanted.get(name), earlier.get(name) if again else None]
            assert f"{os.sep}." in f"{os.sep}{name}" or content in allowed, f"{name} before operation {last}"
        action(*arguments, out)
        assert kills.contents(out) == wanted, f"before operation {last}"
        shutil.rmtree(out)
