"""A real process that dies before its k-th file operation, and the disk that a power cut leaves behind.

Python reports what it opens, renames and removes to audit hooks; `os.fsync` and `os.pwrite`, which it does not report,
are wrapped.  What was made durable is copied aside as it is then: after a power cut nothing else is there.
"""

import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np

_PROCESSES = multiprocessing.get_context("forkserver")
_ROOMS = [
    "pipelines.stacking",
    "pipelines.characterization",
    "pipelines.finishing",
    "sensor.wells",
    "pixels.uniformity",
]
_PROCESSES.set_forkserver_preload([__name__, "imagecodecs", "distributed", *(f"workbench.{room}" for room in _ROOMS)])
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_SLOW = 120  # s after which a run hangs


class _Watch:
    """Counts the file operations under a folder, ends the process before the last, and keeps what is durable."""

    def __init__(self, folder: Path, durable: Path, last: int | None) -> None:
        self.folder, self.durable, self.last = os.path.realpath(folder), durable, last
        self.count, self.busy = 0, False
        sys.addaudithook(self.heard)
        self.fsync, self.pwrite = os.fsync, os.pwrite
        os.fsync, os.pwrite = self.synced, self.written

    def heard(self, event, args):
        if self.busy:
            return
        if event == "open":
            path, _, flags = args
            if isinstance(path, str | bytes | os.PathLike) and flags & _WRITES:
                self.step(os.fsdecode(path))
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"):
            path, folder = args[0], args[-1] if event != "os.truncate" else -1
            where = f"/proc/self/fd/{path}" if isinstance(path, int) else os.fsdecode(path)
            self.step(os.path.join(f"/proc/self/fd/{folder}", where) if folder not in (-1, None) else where)
            gone = {"os.remove": path, "os.rename": args[1]}.get(event)
            if gone is not None:
                with contextlib.suppress(OSError):
                    at = folder if folder not in (-1, None) else None
                    (self.durable / str(os.stat(gone, dir_fd=at, follow_symlinks=False).st_ino)).unlink()

    def step(self, path):
        """Count an operation that is about to be done; the last is not."""
        if not os.path.realpath(path).startswith(self.folder):
            return
        if self.count == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1

    def written(self, handle, *args):
        self.step(f"/proc/self/fd/{handle}")
        return self.pwrite(handle, *args)

    def synced(self, handle):
        self.step(f"/proc/self/fd/{handle}")
        self.fsync(handle)
        self.busy = True
        if os.path.isfile(f"/proc/self/fd/{handle}"):
            shutil.copyfile(f"/proc/self/fd/{handle}", self.durable / str(os.fstat(handle).st_ino))
        self.busy = False


def _work(action, arguments, folder, durable, last, answer):
    watch = _Watch(folder, durable, last)
    action(*arguments)
    answer.send(watch.count)


def run(action, *arguments, folder, durable, last=None):
    """Run in a process of its own that dies before file operation `last` under the folder; returns their number.

    None stands for a process that died so.
    """
    shutil.rmtree(durable, ignore_errors=True)
    durable.mkdir()
    answer, other = _PROCESSES.Pipe(duplex=False)
    process = _PROCESSES.Process(target=_work, args=(action, arguments, folder, durable, last, other))
    process.start()
    other.close()
    process.join(_SLOW)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f"longer than {_SLOW} s")
    if process.exitcode == -signal.SIGKILL:
        return None
    if process.exitcode:
        raise RuntimeError(f"{action.__name__} failed; its traceback is above")
    return answer.recv()


def cut_power(folder, durable, before, rng):
    """Lose of each file that was not there before what was never made durable: it ends early, or holds zeros."""
    for path in folder.rglob("*"):
        if not path.is_file() or path.stat().st_ino in before:
            continue
        copy = durable / str(path.stat().st_ino)
        kept = np.frombuffer(copy.read_bytes() if copy.exists() else b"", np.uint8)
        found = np.fromfile(path, np.uint8)
        there = np.zeros_like(found)
        there[: kept.size] = kept[: found.size]
        if not np.array_equal(there, found) and rng.integers(2):
            there = there[: kept.size]
        there.tofile(path)


def contents(folder):
    """Return every file's name and bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
