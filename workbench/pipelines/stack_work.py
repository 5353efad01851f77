"""The work on one light and on one band, on threads here or by the workers of a cluster, and what it leaves on disk.

A result counts only when its file is whole (written aside, then renamed) and belongs to the same frames and settings: a
run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from ..calibrate.planes import calibrate_signal
from ..core.errors import FrameReadError, WorkbenchError
from ..core.files import aside
from ..ingest.metadata import PlainPixels
from ..ingest.reader import plain_pixels, read_frame
from ..stack.engine import Band, Prepared, StackPlan, open_planes, prepare, stack_band
from ..stack.fits_out import Layout, write_band
from ..stars.survey import FrameSurvey, survey_mosaic


class LightJob(NamedTuple):
    """One light to be looked at: its file, its number, the planes that calibrate it and its dark's factor."""

    path: Path
    work: Path
    number: int
    planes: Path
    factor: float
    shape: tuple[int, int]
    cfa_pattern: str
    dtype: np.dtype


def survey_light(job: LightJob) -> tuple[PlainPixels | None, str]:
    """Survey a light and keep what was found; returns where its pixels can be read in place, or the problem.

    Pixels that do not lie in their file as plain numbers of the job's type (uint16 or float32, the same for all lights)
    are decoded once into a scratch file.
    """
    try:
        pixels = plain_pixels(job.path)
        raw = None
        if pixels is None or not _as_planned(pixels, job.dtype):
            pixels = PlainPixels(job.work / f"light-{job.number}.raw", 0, job.dtype.newbyteorder("<").str, job.shape)
            if not pixels.path.exists() or pixels.path.stat().st_size != math.prod(job.shape) * job.dtype.itemsize:
                raw = read_frame(job.path)
                _require_shape(job.path, raw.shape, job.shape)
                write_whole(pixels.path, np.ascontiguousarray(raw, pixels.stored).tobytes())
        if load_survey(job.work, job.number) is None:
            raw = pixels.read() if raw is None else raw
            _require_shape(job.path, raw.shape, job.shape)
            planes = open_planes(job.planes)
            signal = np.empty(job.shape, np.float32)
            calibrate_signal(raw, planes, job.factor, signal)
            save_survey(job.work, job.number, survey_mosaic(signal, job.cfa_pattern, planes.saturation))
    except FrameReadError as problem:
        return None, problem.problem
    except WorkbenchError as problem:
        return None, str(problem)
    except OSError as problem:
        if problem.errno == 28:
            raise WorkbenchError(
                f"{job.work}: the disk is full; make room, or give --scratch another place"
            ) from problem
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


def write_whole(path: Path, data: bytes) -> None:
    """Write aside, then rename: the file is whole or not there."""
    with aside(path) as part:
        part.write_bytes(data)


def save_survey(work: Path, number: int, survey: FrameSurvey) -> None:
    """Keep what the first pass found on a light."""
    stars: dict[str, Any] = {f"star_{name}": survey.stars[name].values for name in survey.stars}
    with aside(work / "survey" / f"{number}.npz") as part:
        np.savez(part, level=survey.level, noise=survey.noise, attrs=json.dumps(survey.stars.attrs), **stars)


def load_survey(work: Path, number: int) -> FrameSurvey | None:
    """Return what the first pass found on a light; None where it has not been there."""
    path = work / "survey" / f"{number}.npz"
    if not path.exists():
        return None
    with np.load(path) as kept:
        stars = {name[5:]: ("star", kept[name]) for name in kept.files if name.startswith("star_")}
        attrs = json.loads(str(kept["attrs"]))
        return FrameSurvey(xr.Dataset(stars, attrs=attrs), kept["level"], kept["noise"])


def claim_folder(work: Path, out: Path, identity: str) -> bool:
    """Take the working folder; return whether it goes on from an interrupted run of the same identity.

    Raises
    ------
    WorkbenchError
        If it cannot be written.
    """
    marker = work / "run.json"
    try:
        if work.exists():
            if marker.is_file() and marker.read_text() == identity:
                return True
            shutil.rmtree(work)
        work.mkdir(parents=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(marker, identity.encode())
    except OSError as problem:
        raise WorkbenchError(
            f"{work}: cannot be written ({problem.strerror or problem}); choose another place with --scratch"
        ) from problem
    return False


def plan_digest(plan: StackPlan) -> str:
    """Return a digest of a plan: the same means the same stack."""
    frames = [
        [f.name, f.transform.to_dict(), f.scale, f.surface.tolist(), f.weight.tolist(), f.group, f.factor]
        for f in plan.frames
    ]
    text = json.dumps([frames, plan.shape, plan.cfa_pattern, plan.method, plan.thresholds])
    return hashlib.sha256(text.encode()).hexdigest()


def bands_done(journal: Path, layout: Layout, digest: str) -> set[int]:
    """Bands that an interrupted run has finished: their sums are kept after their pixels are written."""
    marker = journal / "plan.json"
    whole = layout.path.is_file() and layout.path.stat().st_size == layout.total
    if not (whole and marker.is_file() and marker.read_text() == digest):
        return set()
    return {int(path.stem) for path in journal.glob("[0-9]*.npy")}


def keep_sums(journal: Path, number: int, band: Band) -> None:
    """Keep a band's chi-square sums and shared noise; that the file is there says that its pixels are written."""
    with aside(journal / f"{number}.npy") as part:
        np.save(part, np.concatenate([band.arrays.chi, band.shared[:, :, None]], axis=2))


def read_sums(journal: Path, bands: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the chi-square sums (2, channel, block row, block) and the shared noise (2, channel, band, block)."""
    kept = [np.load(journal / f"{number}.npy") for number in range(bands)]
    return np.concatenate([part[:, :, :-1] for part in kept], axis=2), np.stack([part[:, :, -1] for part in kept], 2)


_PREPARED: dict[str, tuple[Prepared, dict]] = {}


def band_on_worker(plan: StackPlan, digest: str, layout: Layout, journal: Path, number: int) -> int:
    """Work off one band in a worker process and write it to the shared file."""
    if digest not in _PREPARED:
        _PREPARED.clear()
        _PREPARED[digest] = (prepare(plan), {})
    ready, memory = _PREPARED[digest]
    band = stack_band(ready, number, memory)
    write_band(layout, band)
    keep_sums(journal, number, band)
    return number


def stack_on(client: Any, plan: StackPlan, layout: Layout, journal: Path, missing: list[int], bar: tqdm) -> None:
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
    task: Callable[[Any], Any], jobs: list[Any], client: Any, threads: int, progress: bool
) -> Iterator[tuple[int, Any]]:
    """Run a task on each job, on threads here or on a cluster; yields (number, result) as they come."""
    with tqdm(total=len(jobs), desc="looking at lights", unit="frame", disable=not progress, leave=False) as bar:
        if client is not None:
            from dask.distributed import as_completed

            futures = {client.submit(task, job, pure=False, retries=3): number for number, job in enumerate(jobs)}
            for future in as_completed(futures):
                yield futures[future], future.result()
                bar.update()
            return
        with ThreadPoolExecutor(threads) as pool:
            running = {pool.submit(task, job): number for number, job in enumerate(jobs)}
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
