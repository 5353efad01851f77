"""Long work outside the server: each job runs in a process of its own, reports its progress and can be cancelled.

Jobs belong to the server, not to a page: closing a tab stops nothing, and a tab that opens shows what is running.  One
job runs at a time and the others wait, because each uses the whole machine.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tqdm import tqdm

import workbench as wb

from ..core.errors import WorkbenchError

_LOG = logging.getLogger(__name__)
_GRACE = 20.0  # that a cancelled task gets to clean up before its process is killed [s]
_SPAWN = multiprocessing.get_context("spawn")  # a fork would copy the threads and locks of the server

_PROGRESS, _VALUE, _PROBLEM, _CRASH, _STOPPED = "progress", "value", "problem", "crash", "stopped"  # kinds of messages
_LIGHTS, _WINDOW = 12, (512, 768)  # that `align_lights` aligns: lights; rows and columns of their middle
_STARS = (1800, 2700)  # rows and columns of the middle in which it looks for stars

WAITING, RUNNING, FINISHED, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"


def finish(
    stack: list[Path], out: Path, linear: Path, palette: str = "auto", weights: Any = None, **settings: Any
) -> dict[str, Any]:
    """Make a picture of a stack, or of one for each filter; returns its file, its history and the warnings."""
    chosen, settings_out = wb.pipelines.settings_from(**settings), out.with_suffix(".json")
    mixed: dict[str, Any] = {"palette": palette, "weights": weights}
    done = wb.finish_stack(stack, out, chosen, **mixed, linear_out=linear, settings_out=settings_out)
    return {"picture": out, "history": list(done.picture.attrs["history"]), "warnings": list(done.warnings)}


def align_lights(folder: Path, sensor: Any = None) -> dict[str, Any]:
    """Calibrate one light whole, and align the middle of all of them, to look at single pixels.

    Returns
    -------
    dict
        ``calibrated`` (y, x) [e⁻], the first light; ``aligned`` (see `stack.aligned`), a window whose first pixel is
        ``corner`` (row, column); ``busiest`` (y, x) in it, where a sample stands out; ``warnings``.
    """
    import xarray as xr

    from ..align.registration import register
    from ..calibrate.apply import calibrate
    from ..calibrate.masterset import make_masters
    from ..core.cube import group_frames
    from ..core.mosaic import middle
    from ..core.settings import SETTING
    from ..stack.cubes import aligned
    from ..stack.pixel import busiest_pixel

    frames = wb.open_folder(folder)
    light = frames.light
    alike = next(group for _, group in group_frames(light, *SETTING, "filter", "exposure") if 0 in group)
    light = light.isel(frame=alike[:_LIGHTS])
    others = {kind: frames.cube(kind) for kind in ("bias", "dark", "flat", "darkflat") if frames.has(kind)}
    masters = make_masters(light, **others, sensor=sensor)
    lights = calibrate(light, masters)
    outer = middle((lights.sizes["y"], lights.sizes["x"]), _STARS, lights.attrs["cfa_pattern"])
    window = lights.isel(y=outer[0], x=outer[1])
    inner = middle((window.sizes["y"], window.sizes["x"]), _WINDOW)
    registration = register(window)
    cube = aligned(window, registration).isel(y=inner[0], x=inner[1]).drop_vars("saturated", errors="ignore")
    bar = tqdm(range(cube.sizes["frame"]), desc="aligning", unit="frame", leave=False)
    cube = xr.concat([cube.isel(frame=[number]).compute() for number in bar], "frame", combine_attrs="override")
    aside = [f"{light['filename'].values[number]} set aside: {why}" for number, why in registration.set_aside.items()]
    return {
        "calibrated": lights["signal"].isel(frame=0).values,
        "aligned": cube,
        "corner": [first.start + second.start for first, second in zip(outer, inner, strict=True)],
        "busiest": busiest_pixel(cube),
        "warnings": [*masters.warnings, *aside],
    }


def watch(folder: Path, out: Path, sensor: Any = None) -> None:
    """Add lights as they come until interrupted; the last one's row is the progress."""
    lights = wb.pipelines.watch_folder(folder, out, sensor=sensor)
    with contextlib.closing(lights), tqdm(lights, desc="preparing, then waiting for lights", unit="light") as bar:
        for light in bar:
            bar.set_description_str(str(light))


TASKS: dict[str, Callable[..., Any]] = {  # resolved when they run: what a task does not need is not loaded
    "samples": lambda: wb.sample_folder(),
    "characterize": lambda **arguments: wb.characterize(**arguments),
    "export_charts": lambda **arguments: wb.export.write_charts(**arguments),
    "grade_lights": lambda **arguments: wb.pipelines.grade_lights(**arguments),
    "stack": lambda **arguments: wb.stack_folder(**arguments),
    "align_lights": align_lights,
    "watch": watch,
    "finish": finish,
    "photometry": lambda stack, out: (stack, stack.stat().st_mtime_ns, wb.photometry(stack, out)),
    "light_curve": lambda **arguments: wb.light_curve(**arguments),
}


def run_task(connection: Connection, task: str, arguments: dict[str, Any]) -> None:
    """Run a task in this process and send messages (kind, content): its progress, then its value or its problem.

    The task is interrupted, as Ctrl-C would, when something arrives on the connection or its other end has closed.
    """
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C in the terminal is for the server, which cancels its jobs
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a server in the background inherits that it is ignored
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    try:
        threading.Thread(target=_interrupt, args=(connection,), daemon=True).start()
        _report_bars(connection)
        message = _VALUE, TASKS[task](**arguments)
    except KeyboardInterrupt:
        message = _STOPPED, None
    except WorkbenchError as problem:
        interrupted = isinstance(problem.__context__, KeyboardInterrupt)
        message = (_STOPPED, None) if interrupted else (_PROBLEM, " ".join(str(problem).split()))
    except Exception:
        message = _CRASH, traceback.format_exc()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # too late to interrupt
    connection.send(message)
    os._exit(0)  # threads of an interrupted task must not keep the process


def _interrupt(connection: Connection) -> None:
    """Wait for the server to cancel or to vanish, then interrupt the main thread."""
    with contextlib.suppress(EOFError, OSError):
        connection.recv()
    if hasattr(signal, "pthread_kill"):  # ends waiting for a lock too
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    else:
        import _thread

        _thread.interrupt_main()


def _report_bars(connection: Connection) -> None:
    """Send what progress bars would draw."""
    tqdm.set_lock(threading.RLock())  # its default is a semaphore of the system, which ending here would leave behind

    def send(bar: tqdm, msg: str | None = None, pos: int | None = None) -> None:
        if msg is None:  # else it is taken from the screen
            stage = (bar.desc or "").removesuffix(": ")
            progress = {"stage": stage, "count": float(bar.n), "total": bar.total, "unit": bar.unit.strip()}
            connection.send((_PROGRESS, progress))

    tqdm.display = send


@dataclass(frozen=True)
class Job:
    """The state of a job at one moment.

    Attributes
    ----------
    task, key
        What it does (one of `TASKS`), and for what: a job replaces an earlier one of the same task and key.
    state
        ``waiting``, ``running``, ``done``, ``failed`` or ``cancelled``.
    stage, count, total, unit
        Its progress bar; ``total`` is None where the end is not known.
    message
        Why it failed.
    value
        What the task returned.
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
        """Whether it waits or runs."""
        return self.state in (WAITING, RUNNING)

    @property
    def fraction(self) -> float | None:
        """How much of the present stage is done, 0 to 1; None where that is not known."""
        return min(1.0, self.count / self.total) if self.total else None

    def sentence(self) -> str:
        """Describe the state in a sentence.

        Examples
        --------
        >>> Job("stack", "night", RUNNING, "stacking", 3, 8, "band", seconds=12.3).sentence()
        'stacking: 3 of 8 bands, 12 s'
        >>> Job("stack", "night", FAILED, message="this folder does not exist").sentence()
        'this folder does not exist'
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
    """The process of a job that waits or runs, and the connection to it."""

    def __init__(self, task: str, arguments: dict[str, Any]) -> None:
        self.task, self.arguments = task, arguments
        self.started: float | None = None
        self.cancelled = False

    def start(self) -> None:
        self.connection, other_end = _SPAWN.Pipe()
        # a daemon does not outlive the server
        self.process = _SPAWN.Process(target=run_task, args=(other_end, self.task, self.arguments), daemon=True)
        self.process.start()
        other_end.close()
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        return 0.0 if self.started is None else time.monotonic() - self.started

    def cancel(self) -> None:
        """Interrupt the task; a process that has not ended after `_GRACE` seconds is killed."""
        self.cancelled = True
        if self.started is not None:
            with contextlib.suppress(OSError):  # it has just ended
                self.connection.send(None)
            timer = threading.Timer(_GRACE, self.process.kill)
            timer.daemon = True
            timer.start()


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
        self._changed = threading.Condition(threading.RLock())
        self._jobs: dict[tuple[str, str], Job] = {}
        self._work: dict[int, _Work] = {}
        self._queue: deque[Job] = deque()
        self._count = 0
        self.opened: set[tuple[str, str]] = set()  # folders of frames and of results that a user has chosen
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self, task: str, key: str, **arguments: Any) -> Job:
        """Start a job or queue it; it replaces an ended job of the same task and key.

        Raises
        ------
        WorkbenchError
            If such a job waits or runs already (in another tab perhaps), or the server is closing.
        """
        if task not in TASKS:
            raise WorkbenchError(f"unknown task {task!r}; the tasks are {', '.join(TASKS)}")
        with self._changed:
            if self._closed:
                raise WorkbenchError("the server is closing; nothing can be started")
            known = self._jobs.get((task, key))
            if known is not None and known.active:
                raise WorkbenchError("this is running already, perhaps from another tab; wait for it or cancel it")
            self._count += 1
            job = Job(task, key, number=self._count)
            self._jobs[task, key] = job
            self._work[job.number] = _Work(task, arguments)
            self._queue.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="jobs", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return job

    def find(self, task: str, key: str) -> Job | None:
        """Return the latest job of that task and key."""
        with self._changed:
            job = self._jobs.get((task, key))
            if job is not None and job.state == RUNNING:
                job = replace(job, seconds=self._work[job.number].seconds)
            return job

    def cancel(self, task: str, key: str) -> None:
        """Cancel a job; one that has ended already stays as it is."""
        with self._changed:
            job = self._jobs.get((task, key))
            if job is None or not job.active or self._work[job.number].cancelled:
                return
            self._work[job.number].cancel()
            if job.state == WAITING:
                self._end(job, state=CANCELLED, message="cancelled before it began")

    def wait(self, task: str, key: str, timeout: float | None = None) -> Job:
        """Wait until a job has ended, at most `timeout` seconds; returns its state then."""
        with self._changed:
            self._changed.wait_for(lambda: not self._jobs[task, key].active, timeout)
            return self._jobs[task, key]

    def close(self) -> None:
        """Cancel every job and accept no more."""
        with self._changed:
            self._closed = True
            for task, key in list(self._jobs):
                self.cancel(task, key)
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_GRACE + 10)

    def _update(self, job: Job, **changes: Any) -> Job:
        job = replace(job, **changes)
        with self._changed:
            if self._jobs[job.task, job.key].number == job.number:
                self._jobs[job.task, job.key] = job
            self._changed.notify_all()
        return job

    def _end(self, job: Job, **changes: Any) -> None:
        with self._changed:
            work = self._work.pop(job.number)
            self._update(job, **changes, seconds=work.seconds)

    def _serve(self) -> None:
        """Run the queued jobs until the runner is closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if self._closed:
                    return
                job = self._queue.popleft()
                work = self._work.get(job.number)
                if work is None:  # cancelled while it waited
                    continue
                work.start()
                job = self._update(job, state=RUNNING)
            try:
                ended = self._follow(job, work)
            except Exception as error:  # one job must not stop the others
                _LOG.exception("the job %s could not be run", job.task)
                ended = {"state": FAILED, "message": f"the job could not be run: {error}"}
            self._end(job, **ended)

    def _follow(self, job: Job, work: _Work) -> dict[str, Any]:
        """Pass on the progress of a running job until it ends; returns its last state."""
        kind, content = _PROGRESS, {}
        with work.connection:
            while kind == _PROGRESS:
                job = self._update(job, **content)
                try:
                    kind, content = work.connection.recv()
                except (EOFError, OSError):  # the process has ended without a message
                    kind, content = _CRASH, ""
        work.process.join()
        if kind == _VALUE:
            return {"state": FINISHED, "value": content}
        if work.cancelled:
            again = "; started again, it continues from there" if job.task in ("stack", "watch") else ""
            return {"state": CANCELLED, "message": f"cancelled after {work.seconds:.0f} s{again}"}
        if kind == _PROBLEM:
            return {"state": FAILED, "message": content}
        if kind == _STOPPED:
            return {"state": FAILED, "message": "the job was interrupted"}
        _LOG.error("the job %s ended unexpectedly (exit code %s)\n%s", job.task, work.process.exitcode, content)
        reason = content.strip().splitlines()[-1] if content else f"exit code {work.process.exitcode}"
        return {"state": FAILED, "message": f"the job ended unexpectedly: {reason}; the log has the details"}
