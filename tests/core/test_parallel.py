"""How many threads work: as many as there are processors, unless told otherwise or short of memory."""

import os
import subprocess
import sys
import threading

import numpy as np
import psutil
import pytest
from click.testing import CliRunner

from workbench.cli import main
from workbench.core.errors import WorkbenchError
from workbench.core.parallel import (
    decoded,
    decoding_once,
    each_band,
    in_background,
    in_threads,
    machine_share,
    side_by_side,
    thread_count,
)

ASK = "from workbench.core.parallel import thread_count; print(thread_count(), thread_count(each=1e9))"


def asked(**environment):
    done = subprocess.run(
        [sys.executable, "-c", ASK], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return [int(number) for number in done.stdout.split()]


def test_the_environment_gives_threads_and_memory():
    assert asked(WORKBENCH_THREADS="9", WORKBENCH_MEMORY="4 GB") == [9, 4]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity of processors")
def test_only_processors_that_the_process_may_use_count():
    one = f"import os; os.sched_setaffinity(0, [{min(os.sched_getaffinity(0))}]); {ASK}"
    done = subprocess.run([sys.executable, "-c", one], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "1"


def test_what_is_asked_for_goes_before_the_environment_and_ends_with_the_block(monkeypatch):
    monkeypatch.setenv("WORKBENCH_THREADS", "3")
    with machine_share(threads=12, memory=10):
        assert (thread_count(), thread_count(each=2), thread_count(each=20)) == (12, 5, 1)
        with side_by_side(4):
            assert thread_count() == 3
    assert thread_count() == 3


def test_threads_start_as_many_as_are_asked_for_and_inherit_it():
    together = threading.Barrier(5, timeout=20)
    with machine_share(threads=5):
        assert list(in_threads(lambda _: (together.wait() >= 0, thread_count()), range(5))) == [(True, 5)] * 5


@pytest.mark.parametrize(
    ("name", "value"), [("THREADS", "many"), ("THREADS", "0"), ("MEMORY", "much"), ("MEMORY", "nan")]
)
def test_what_is_no_number_is_refused(monkeypatch, name, value):
    monkeypatch.setenv(f"WORKBENCH_{name}", value)
    with pytest.raises(WorkbenchError, match=f"WORKBENCH_{name} is '{value}'; expected"):
        thread_count(each=1)


def test_commands_take_threads_and_memory(small_samples, monkeypatch):
    seen = []
    monkeypatch.setattr("workbench.stack_folder", lambda *_, **__: seen.append((thread_count(), thread_count(1e9))))
    line = ["stack", str(small_samples), "--out", "stack.fits", "--threads", "7", "--memory", "2GB"]
    assert CliRunner().invoke(main, line).exit_code == 0
    assert seen == [(7, 2)]
    monkeypatch.setenv("WORKBENCH_THREADS", "3")
    failed = CliRunner().invoke(main, [*line[:-1], "two"])
    assert (failed.exit_code, thread_count()) == (2, 3)


def end_unless(process):
    if os.getpid() != process:
        os._exit(1)
    return "here"


def test_a_second_process_answers_and_what_killed_it_is_done_here():
    with machine_share(threads=2), in_background(process=True) as start:
        assert start(os.getpid)() != os.getpid()
        killed, waiting = start(end_unless, os.getpid()), start(pow, 2, 5)
        assert (killed(), waiting(), start(pow, 2, 6)()) == ("here", 32, 64)
    with machine_share(threads=1), in_background(process=True) as start:
        assert start(os.getpid)() == os.getpid()


def test_what_runs_beside_inherits_the_share_and_gives_its_answer_or_its_error():
    here = threading.get_ident()
    with machine_share(threads=2), in_background() as start:
        other, share, failed = start(threading.get_ident), start(thread_count), start(pow, 0, -1)
        assert (other() != here, share()) == (True, 2)
        with pytest.raises(ZeroDivisionError):
            failed()
    with machine_share(threads=1), in_background() as start:
        assert start(threading.get_ident)() == here


def test_frames_are_decoded_once_by_threads_side_by_side_while_there_is_room():
    times = []

    def decode():
        times.append(1)
        return np.zeros(1000)

    def read(number):
        return decoded(number % 4, decode)

    with machine_share(memory="32000"), decoding_once(share=0.5):  # two frames of 8000 bytes
        list(in_threads(read, [0, 1, 0, 1, 0, 1], workers=4))
        assert len(times) == 2
        list(in_threads(read, [2, 2, 0, 1], workers=1))
    assert len(times) == 4
    decoded(0, decode)
    assert len(times) == 5


def test_a_frame_that_cannot_be_decoded_is_tried_again():
    def fail():
        raise WorkbenchError("damaged")

    with decoding_once():
        with pytest.raises(WorkbenchError, match="damaged"):
            decoded(0, fail)
        assert decoded(0, lambda: np.ones(2)).sum() == 2


def test_bands_cover_every_row_once():
    rows = np.zeros(1000, int)

    def count(band):
        rows[band] += 1
        assert band.start % 96 == 0
        assert band.stop - band.start == rows[band].size

    each_band(count, rows.size)
    assert (rows == 1).all()


@pytest.mark.skipif(sys.platform != "linux", reason="the GNU library's allocator")
def test_large_arrays_go_back_to_the_system():
    def held(_=None):
        large = [np.ones(3 << 20) for _ in range(4)]  # 24 MiB each
        return np.ones(len(large) << 8)  # above them, if they are not apart

    with machine_share(threads=2):
        process = psutil.Process()
        held()
        before = process.memory_info().rss
        kept = [list(in_threads(held, range(4))) for _ in range(3)]
        assert process.memory_info().rss - before < 24e6
        assert len(kept) == 3
