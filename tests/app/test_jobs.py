"""Jobs: they run in processes of their own, tell their progress, and end when told to."""

import os
import time

import pytest

from workbench.app.jobs import CANCELLED, FAILED, FINISHED, RUNNING, WAITING, Runner
from workbench.core.errors import WorkbenchError

PATIENCE = 300  # seconds, far more than any job here takes


@pytest.fixture
def runner():
    runner = Runner()
    yield runner
    runner.close()


def test_a_job_gives_what_its_task_gives(runner, small_samples, tmp_path):
    runner.start("characterize", "small", folder=small_samples, out=tmp_path)
    stages, seconds = set(), set()
    while (job := runner.find("characterize", "small")).active:
        stages.add((job.stage, job.unit))
        seconds |= {job.seconds} if job.state == RUNNING and not job.stage else set()
        time.sleep(0.02)
    assert job.state == FINISHED, job.message
    assert job.value.frame_counts == {"bias": 8, "flat": 20, "dark": 8, "light": 3}
    assert (tmp_path / "sensor.json").is_file()
    assert stages <= {("", ""), ("measuring", "frame"), ("measuring", "")}
    assert job.sentence().startswith("done in ")
    assert len(seconds) > 3, "the time should go on where there is no bar yet"


def test_one_runs_the_others_wait_and_none_runs_twice(runner, small_samples, tmp_path):
    first = runner.start("characterize", "one", folder=small_samples, out=tmp_path)
    runner.start("characterize", "two", folder=small_samples, out=tmp_path)
    assert first.state == WAITING
    with pytest.raises(WorkbenchError, match="running already, perhaps from another tab"):
        runner.start("characterize", "one", folder=small_samples, out=tmp_path)
    runner.cancel("characterize", "two")
    assert runner.find("characterize", "two").sentence() == "cancelled before it began"
    runner.cancel("characterize", "one")
    assert runner.wait("characterize", "one", PATIENCE).state == CANCELLED
    assert not (tmp_path / "sensor.json").exists()


class Cancelling(Runner):
    """Notes every stage that a job reports, and cancels the first one at a stage, before anything else is done."""

    def __init__(self, stage):
        super().__init__()
        self.stage, self.stages = stage, []

    def _update(self, job, **changes):
        job = super()._update(job, **changes)
        self.stages.append(job.stage)
        if job.stage == self.stage and job.number == 1:
            self.cancel(job.task, job.key)
        return job


@pytest.fixture
def cancelling():
    runner = Cancelling("masters")  # early: later stages may be over before the news of them has come
    yield runner
    runner.close()


def test_a_cancelled_stack_leaves_no_stack_and_goes_on_when_started_again(cancelling, samples, tmp_path):
    runner, out = cancelling, tmp_path / "stack.fits"
    runner.start("stack", "night", folder=samples, out=out)
    job = runner.wait("stack", "night", PATIENCE)
    assert "masters" in runner.stages
    assert job.state == CANCELLED
    assert "continues from there" in job.sentence()
    assert not out.exists()
    assert [path for path in tmp_path.iterdir() if not path.name.startswith(".")] == []
    runner.start("stack", "night", folder=samples, out=out)
    job = runner.wait("stack", "night", PATIENCE)
    assert job.state == FINISHED, job.message
    assert [path.name for path in tmp_path.iterdir()] == ["stack.fits"]


def test_a_mistake_is_one_sentence(runner, tmp_path):
    runner.start("characterize", "nowhere", folder=tmp_path / "nowhere", out=tmp_path)
    job = runner.wait("characterize", "nowhere", PATIENCE)
    assert job.state == FAILED
    assert job.message == f"{tmp_path / 'nowhere'}: this folder does not exist; check the name"


def test_a_crash_is_told_with_its_last_words(runner, tmp_path):
    runner.start("characterize", "crash", folder=None, out=tmp_path)  # no task can take this
    job = runner.wait("characterize", "crash", PATIENCE)
    assert job.state == FAILED
    assert "ended unexpectedly" in job.message
    assert "TypeError" in job.message
    assert "Traceback" not in job.message
    assert "\n" not in job.message


def test_the_server_s_end_is_the_job_s_end(small_samples, tmp_path):
    runner = Runner()
    runner.start("characterize", "small", folder=small_samples, out=tmp_path)
    while runner.find("characterize", "small").state != RUNNING:
        time.sleep(0.01)
    process = runner._work[1].process
    runner.close()
    assert not process.is_alive()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    with pytest.raises(WorkbenchError, match="closing"):
        runner.start("characterize", "small", folder=small_samples, out=tmp_path)


def test_an_unknown_task_is_refused(runner):
    with pytest.raises(WorkbenchError, match="unknown task 'paint'"):
        runner.start("paint", "")
