"""Long work outside the server: each job is a process, told of by its progress bars, and can be cancelled.

Jobs belong to the server, not to a page: a tab that closes stops nothing, a tab that opens sees what runs.  One job
runs at a time, the others wait their turn, because each uses the whole machine.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..core.errors import WorkbenchError
from .worker import DONE, FAILED, PROBLEM, STOPPED, TASKS

_LOG = logging.getLogger(__name__)
GRACE = 20.0  # that a cancelled task gets to put its things in order [s]
_BAR = "\x1dbar\x1f{desc}\x1f{n}\x1f{total}\x1f{unit}\x1d"
_LINE = re.compile(r"[\r\n]|\x1b\[[0-9;]*[A-Za-z]")
_LAST_WORDS = 30  # lines kept of what a job printed, for the case that it crashes

WAITING, RUNNING, FINISHED, WRONG, CANCELLED = "waiting", "running", "done", "failed", "cancelled"


@dataclass(frozen=True)
class Job:
    """What is known of a job at a moment.

    Attributes
    ----------
    task, key
        What it does (one of `worker.TASKS`), and for what: jobs of one task and key replace each other.
    state
        ``waiting``, ``running``, ``done``, ``failed`` or ``cancelled``.
    stage, count, total, unit
        Its progress bar; ``total`` is None where the end is not known.
    message
        Why it failed.
    value
        What the task gave.
    seconds
        How long it has run [s].
    """

    task: str
    key: str
    state: str = WAITING
    stage: str = ""
    count: float = 0.0
    total: float | None = None
    unit: str = ""
    message: str = ""
    value: Any = field(default=None, repr=False)
    seconds: float = 0.0
    number: int = 0

    @property
    def active(self) -> bool:
        """Tell whether it waits or runs."""
        return self.state in (WAITING, RUNNING)

    @property
    def share(self) -> float | None:
        """Return how much of the present stage is done, 0 to 1; None where that is not known."""
        return min(1.0, self.count / self.total) if self.total else None

    def sentence(self) -> str:
        """Say how the job is doing.

        Examples
        --------
        >>> Job("stack", "night", RUNNING, "stacking", 3, 8, "band", seconds=12.3).sentence()
        'stacking: 3 of 8 bands, 12 s'
        >>> Job("stack", "night", WRONG, message="there is no such folder").sentence()
        'there is no such folder'
        """
        if self.state == WAITING:
            return "waiting its turn"
        if self.state == RUNNING:
            amount = f"{self.count:g} of {self.total:g} {self.unit}s, " if self.total else ""
            return f"{self.stage or 'starting'}: {amount}{self.seconds:.0f} s"
        if self.state == FINISHED:
            return f"done in {self.seconds:.1f} s"
        return self.message


class _Work:
    """A job's process while it lives."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments
        self.process: subprocess.Popen[bytes] | None = None
        self.began = 0.0
        self.cancelled = threading.Event()


class Runner:
    """Runs jobs, one at a time, in the order in which they were started.

    Examples
    --------
    >>> runner = Runner()
    >>> runner.find("stack", "night") is None
    True
    >>> runner.close()
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._jobs: dict[tuple[str, str], Job] = {}
        self._work: dict[int, _Work] = {}
        self._queue: deque[tuple[int, tuple[str, str]]] = deque()
        self._number = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self, task: str, key: str, **arguments: Any) -> Job:
        """Start a job or put it in line; a job of the same task and key that has ended gives way to it.

        Raises
        ------
        WorkbenchError
            If such a job waits or runs already (in another tab perhaps), or the server is closing.
        """
        if task not in TASKS:
            raise WorkbenchError(f"there is no task {task!r}; there are {', '.join(TASKS)}")
        with self._lock:
            if self._closed:
                raise WorkbenchError("the server is closing; nothing can be started")
            known = self._jobs.get((task, key))
            if known is not None and known.active:
                raise WorkbenchError("this is running already, perhaps from another tab; wait for it or cancel it")
            self._number += 1
            job = Job(task, key, number=self._number)
            self._jobs[task, key] = job
            self._work[job.number] = _Work(arguments)
            self._queue.append((job.number, (task, key)))
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="jobs", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return job

    def find(self, task: str, key: str) -> Job | None:
        """Return what is known of the latest job of that task and key."""
        with self._lock:
            job = self._jobs.get((task, key))
            work = self._work.get(job.number) if job is not None else None
            if job is not None and job.state == RUNNING and work is not None:
                job = replace(job, seconds=time.monotonic() - work.began)
            return job

    def cancel(self, task: str, key: str) -> None:
        """Cancel a job; one that has ended already stays as it is."""
        with self._lock:
            job = self._jobs.get((task, key))
            if job is None or not job.active:
                return
            work = self._work[job.number]
            work.cancelled.set()
            if job.state == WAITING:
                self._end(job, state=CANCELLED, message="cancelled before it began")
            elif work.process is not None:
                with contextlib.suppress(OSError):
                    work.process.stdin.close()

    def wait(self, task: str, key: str, timeout: float | None = None) -> Job:
        """Wait until a job has ended, or the time is up; returns what is known of it then."""
        with self._changed:
            self._changed.wait_for(lambda: not self._jobs[task, key].active, timeout)
            return self._jobs[task, key]

    def close(self) -> None:
        """Cancel every job and take no more."""
        with self._lock:
            self._closed = True
            for task, key in list(self._jobs):
                self.cancel(task, key)
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(GRACE + 10)

    def _end(self, job: Job, **changes: Any) -> None:
        with self._changed:
            if self._jobs.get((job.task, job.key), job).number == job.number:
                self._jobs[job.task, job.key] = replace(job, **changes)
            self._work.pop(job.number, None)
            self._changed.notify_all()

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if self._closed:
                    return
                number, place = self._queue.popleft()
                job, work = self._jobs[place], self._work.get(number)
                if job.number != number or work is None:  # cancelled while it waited
                    continue
            try:
                self._run(job, work)
            except Exception as error:  # a job must not take the others with it
                self._end(job, state=WRONG, message=f"the job could not be run: {error}")

    def _run(self, job: Job, work: _Work) -> None:
        began = work.began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="workbench-job-") as scratch:
            out = Path(scratch) / "value"
            order = pickle.dumps((job.task, work.arguments, str(out)))
            with self._lock:
                if work.cancelled.is_set():
                    return
                work.process = subprocess.Popen(
                    [sys.executable, "-m", "workbench.app.worker"],
                    stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                    env=os.environ | {"TQDM_BAR_FORMAT": _BAR, "TQDM_MININTERVAL": "0.2"},
                    start_new_session=True,
                )  # fmt: skip
                process, job = work.process, self._tell(job, state=RUNNING)
            threading.Thread(target=self._see_to_its_end, args=(process, work.cancelled), daemon=True).start()
            with contextlib.suppress(OSError, ValueError):  # it died at once, or was cancelled: seen below
                process.stdin.write(order)
                process.stdin.flush()
            last_words: deque[str] = deque(maxlen=_LAST_WORDS)
            problem = ""
            for line in _lines(process.stderr):
                if line.startswith(PROBLEM):
                    problem = line.removeprefix(PROBLEM)
                elif line.startswith("\x1dbar\x1f"):
                    job = self._tell(job, **_progress(line))
                elif line.strip():
                    last_words.append(line)
            code = process.wait()
            process.stderr.close()
            with contextlib.suppress(OSError):
                process.stdin.close()
            seconds = time.monotonic() - began
            if work.cancelled.is_set() and code != DONE:
                again = "; started again, it goes on from there" if job.task == "stack" else ""
                self._end(job, state=CANCELLED, message=f"cancelled after {seconds:.0f} s{again}", seconds=seconds)
            elif code == DONE:
                value = pickle.loads(out.read_bytes())
                self._end(job, state=FINISHED, value=value, seconds=seconds)
            elif code == FAILED:
                self._end(job, state=WRONG, message=problem, seconds=seconds)
            else:
                what = "was interrupted" if code == STOPPED else f"ended unexpectedly (exit code {code})"
                _LOG.error("the job %s %s\n%s", job.task, what, "\n".join(last_words))
                said = f": {last_words[-1].strip()}; the log tells more" if last_words else ""
                self._end(job, state=WRONG, message=f"the job {what}{said}", seconds=seconds)

    def _tell(self, job: Job, **changes: Any) -> Job:
        job = replace(job, **changes)
        with self._changed:
            self._jobs[job.task, job.key] = job
            self._changed.notify_all()
        return job

    @staticmethod
    def _see_to_its_end(process: subprocess.Popen[bytes], cancelled: threading.Event) -> None:
        """End a cancelled process that does not end by itself in good time."""
        while process.poll() is None:
            if not cancelled.wait(0.5):
                continue
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            if process.poll() is None:
                if hasattr(os, "killpg"):
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()
            return


def _lines(stream: Any):
    """Yield what a process prints, line by line, where a returning carriage ends a line too."""
    rest = ""
    while chunk := stream.read1(65536):
        *whole, rest = _LINE.split(rest + chunk.decode("utf-8", "replace"))
        for line in whole:
            # a bar that was drawn over is followed by blanks
            yield from (part for part in re.split(r"(?<=\x1d)(?=\x1d)", line) if part.strip())
        if rest.endswith("\x1d") and rest.startswith("\x1dbar"):
            yield rest
            rest = ""
    if rest:
        yield rest


def _progress(line: str) -> dict[str, Any]:
    """Read a progress bar.

    Examples
    --------
    >>> _progress(_BAR.format(desc="stacking: ", n=3, total=8, unit="band"))
    {'stage': 'stacking', 'count': 3.0, 'total': 8.0, 'unit': 'band'}
    """
    fields = line.strip("\x1d").split("\x1f")
    if len(fields) != 5:
        return {}
    _, stage, count, total, unit = fields
    number = re.compile(r"[\d.]+")
    return {
        "stage": stage.strip().removesuffix(":"),
        "count": float(count) if number.fullmatch(count) else 0.0,
        "total": float(total) if number.fullmatch(total) else None,
        "unit": unit.strip(),
    }
