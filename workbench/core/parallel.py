"""Frames one after the other: read a few ahead in threads, in bounded memory, with a progress bar."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from dask.local import get_sync
from tqdm.auto import tqdm

from .buffers import FrameBuffers, frame_buffers

_SIDE_BY_SIDE: ContextVar[int] = ContextVar("measurements side by side", default=1)


def stream_frames(frames: Iterable[Any], workers: int | None = None) -> Iterator[np.ndarray]:
    """Yield lazy (or plain) two-dimensional arrays computed, in order, a few ahead in as many threads.

    Each is computed once and no more than ``workers`` wait in memory.  They may be views of the data that a cube
    was made from: not to be changed.
    """
    with frame_buffers() as buffers:
        return in_threads(partial(_compute, buffers), frames, workers)


def lazy_frames(cube: xr.DataArray) -> Sequence[Any]:
    """Return the frames of a cube one by one, each ready for `stream_frames`.

    Where a frame is a chunk, as on reading, dask is spared to slice, and to copy, every single one.
    """
    data = cube.data
    if not dask.is_dask_collection(data) or data.numblocks != (data.shape[0], 1, 1):
        return data
    return data.to_delayed(optimize_graph=True).ravel()


@contextmanager
def side_by_side(number: int) -> Iterator[None]:
    """Share the processors among so many measurements: in here `in_threads` takes its part of the threads."""
    before = _SIDE_BY_SIDE.set(number)
    try:
        yield
    finally:
        _SIDE_BY_SIDE.reset(before)


def in_threads(function: Callable[[Any], Any], items: Iterable[Any], workers: int | None = None) -> Iterator[Any]:
    """Yield function(item) in order, a few ahead in as many threads; items are taken as there is room for them.

    Without a number of `workers` there are as many as processors, four at most, or a part of these (`side_by_side`).
    """
    workers = workers or max(1, min(4, os.cpu_count() or 1) // _SIDE_BY_SIDE.get())
    pool = ThreadPoolExecutor(workers)
    ahead: deque = deque()
    try:
        for item in items:
            ahead.append(pool.submit(copy_context().run, function, item))
            del item  # or it would stay in memory while the next one is made
            if len(ahead) >= workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _compute(buffers: FrameBuffers, frame: Any) -> np.ndarray:
    if dask.is_dask_collection(frame):
        with frame_buffers(buffers):
            frame = dask.compute(frame, scheduler=get_sync)[0]  # in this thread; its name would search for a cluster
    array = np.asarray(frame)
    return array.reshape(array.shape[-2:])  # a chunk of a cube has the frame's axis still


def counted(items: Iterable[Any], progress: Any, total: int) -> Iterator[Any]:
    """Pass frames on and advance a progress bar: a given one, a new one (True), or none (False)."""
    if progress is True:
        yield from tqdm(items, desc="reading frames", total=total, unit="frame", delay=2, leave=False)
    elif progress is False or progress is None:
        yield from items
    else:
        for item in items:
            yield item
            progress.update()


def frame_arrays(
    function: Callable[..., tuple], calls: Sequence[tuple], outputs: Mapping[str, tuple[tuple[int, ...], Any]]
) -> dict[str, da.Array]:
    """Return lazy arrays (frame, ...), one for each of the arrays that a function returns for every frame.

    One task a frame runs the function, whatever is asked for, and one a frame and array takes its result out.

    Parameters
    ----------
    calls
        The function's arguments for each frame; they may be lazy.
    outputs
        Shape and type of each array that it returns, by name, in order.

    Examples
    --------
    >>> arrays = frame_arrays(np.divmod, [(7, 2), (9, 4)], {"whole": ((), int), "rest": ((), int)})
    >>> arrays["rest"].compute()
    array([1, 1])
    """
    tasks = [dask.delayed(function, pure=True)(*arguments) for arguments in calls]
    arrays = {}
    for place, (name, (shape, dtype)) in enumerate(outputs.items()):
        key = f"{name}-{tokenize([task.key for task in tasks], name)}"
        corner = (0,) * len(shape)
        layer = {(key, number, *corner): (_take, task.key, place) for number, task in enumerate(tasks)}
        graph = HighLevelGraph.from_collections(key, layer, dependencies=tasks)
        chunks = ((1,) * len(tasks), *((size,) for size in shape))
        arrays[name] = da.Array(graph, key, chunks=chunks, dtype=dtype)
    return arrays


def _take(results: tuple, place: int) -> np.ndarray:
    return np.asarray(results[place])[None]
