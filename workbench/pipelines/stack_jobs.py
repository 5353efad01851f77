"""The work on one light and on one band: plain functions, run by threads here or by the workers of a cluster."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..core.errors import FrameReadError, WorkbenchError
from ..ingest.plain import PlainPixels
from ..ingest.reader import plain_pixels, read_frame
from ..stack.engine import Engine, Plan, open_planes
from ..stack.fits_out import Layout, write_band
from ..stack.survey import survey_frame
from .stack_files import keep_chi, load_survey, plan_digest, save_survey, write_whole


def survey_one(
    path: Path, work: Path, number: int, planes: Path, factor: float, shape: tuple[int, int], dtype: np.dtype
) -> tuple[PlainPixels | None, str]:
    """Survey a light and keep what was found; returns where its pixels can be read in place, or the problem.

    Pixels that do not lie in their file as plain numbers of `dtype` (uint16 or float32, the same for all lights) are
    decoded once into a scratch file.
    """
    kept = work / "survey" / f"{number}.npz"
    try:
        pixels = plain_pixels(path)
        raw = None
        if pixels is None or not _as_planned(pixels, dtype):
            pixels = PlainPixels(work / f"light-{number}.raw", 0, dtype.newbyteorder("<").str, shape)
            if not pixels.path.exists() or pixels.path.stat().st_size != math.prod(shape) * dtype.itemsize:
                raw = read_frame(path)
                _require_shape(path, raw.shape, shape)
                write_whole(pixels.path, np.ascontiguousarray(raw, pixels.stored).tobytes())
        if load_survey(work, number) is None:
            raw = pixels.read() if raw is None else raw
            _require_shape(path, raw.shape, shape)
            survey = survey_frame(raw, open_planes(planes), factor)
            save_survey(kept, survey)
    except FrameReadError as problem:
        return None, problem.problem
    except WorkbenchError as problem:
        return None, str(problem)
    except OSError as problem:
        if problem.errno == 28:
            raise WorkbenchError(f"{work}: the disk is full; make room, or give --scratch another place") from problem
        return None, f"cannot be read: {problem.strerror or problem}"
    return pixels, ""


def _as_planned(pixels: PlainPixels, dtype: np.dtype) -> bool:
    """Whether the engine can read these pixels in place; int16 with an offset counts as uint16."""
    stored = np.dtype(pixels.stored).newbyteorder("=")
    return stored == dtype or (dtype == np.uint16 and stored == np.int16)


def _require_shape(path: Path, found: tuple[int, ...], wanted: tuple[int, int]) -> None:
    if tuple(found) != tuple(wanted):
        raise FrameReadError(
            path, f"has {found[1]} x {found[0]} pixels where the others have {wanted[1]} x {wanted[0]}"
        )


_ENGINES: dict[str, tuple[Engine, dict]] = {}


def band_on_worker(plan: Plan, digest: str, layout: Layout, journal: Path, number: int) -> int:
    """Work off one band in a worker process and write it to the shared file."""
    if digest not in _ENGINES:
        _ENGINES.clear()
        _ENGINES[digest] = (Engine(plan), {})
    engine, memory = _ENGINES[digest]
    band = engine.band(number, memory)
    write_band(layout, band)
    keep_chi(journal, number, band.chi)
    return number


def stack_on(client: Any, plan: Plan, layout: Layout, journal: Path, missing: list[int], bar: tqdm) -> None:
    """Have a cluster work off the missing bands; what a lost worker had is done again."""
    from dask.distributed import as_completed

    digest = plan_digest(plan)
    shared = client.scatter(plan, broadcast=True)
    futures = [
        client.submit(band_on_worker, shared, digest, layout, journal.absolute(), number, pure=False, retries=3)
        for number in missing
    ]
    for future in as_completed(futures):
        future.result()
        bar.update()


def spread(
    task: Callable, jobs: list[tuple], client: Any, threads: int, progress: bool, what: str, unit: str
) -> Iterator[tuple[int, Any]]:
    """Run a task on each job, on threads here or on a cluster; yields (number, result) as they come."""
    with tqdm(total=len(jobs), desc=what, unit=unit, disable=not progress, leave=False) as bar:
        if client is not None:
            from dask.distributed import as_completed

            futures = {client.submit(task, *job, pure=False, retries=3): number for number, job in enumerate(jobs)}
            for future in as_completed(futures):
                yield futures[future], future.result()
                bar.update()
            return
        with ThreadPoolExecutor(threads) as pool:
            running = {pool.submit(task, *job): number for number, job in enumerate(jobs)}
            try:
                left = set(running)
                while left:
                    done, left = wait(left, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield running[future], future.result()
                        bar.update()
            except BaseException:
                for future in running:
                    future.cancel()
                raise


@contextlib.contextmanager
def workers(scheduler: Any) -> Iterator[Any]:
    """A dask client for an address, the client that was given, or None for this machine's threads."""
    if scheduler is None:
        yield None
        return
    from dask.distributed import Client

    if isinstance(scheduler, Client):
        yield scheduler
        return
    try:
        client = Client(scheduler, timeout="20s")
    except (OSError, ValueError) as problem:
        raise WorkbenchError(f"no dask scheduler answers at {scheduler!r} ({problem}); check the address") from problem
    with client:
        yield client
