"""Frames one after the other: read once, a few ahead in threads, in bounded memory.

Of frames that are read one after the other, fresh memory costs more than the reading: thirty megabytes that the system
has to find, clear and hand out take up to ten times as long as the copy of a frame into them.  Within `frame_buffers`
what readers ask of `frame_memory` comes from frames that nothing uses any more.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextvars import ContextVar, copy_context
from functools import cache, partial
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
import psutil
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from dask.local import get_sync
from dask.system import CPU_COUNT
from dask.utils import parse_bytes
from tqdm.auto import tqdm

from .errors import WorkbenchError

_SIDE_BY_SIDE: ContextVar[int] = ContextVar("measurements side by side", default=1)
_THREADS: ContextVar[int | None] = ContextVar("threads", default=None)
_MEMORY: ContextVar[float | None] = ContextVar("memory", default=None)
_FREE_SHARE = 1 / 3  # of the memory that is free, for what threads hold
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of <malloc.h>
FRAME_BYTES = 4e8  # that a thread holds to decode and measure a frame of 60 megapixels


@contextlib.contextmanager
def machine_share(threads: int | None = None, memory: float | str | None = None) -> Iterator[None]:
    """Use at most so many threads, and so much memory for what they hold [bytes, or text such as "4 GB"], in here.

    None leaves it at what holds around: the environment variables WORKBENCH_THREADS and WORKBENCH_MEMORY, else every
    processor that the process may use (its affinity and its control group) and a third of the free memory.  From the
    first time on, large arrays that nothing uses any more go back to the system.

    Raises
    ------
    WorkbenchError
        If there are less than one thread or one byte, or the memory is not a size.

    Examples
    --------
    >>> with machine_share(threads=8, memory="3 GB"):
    ...     thread_count(), thread_count(each=1e9)
    (8, 3)
    """
    _return_large_arrays()
    tokens: list[tuple[ContextVar[Any], Any]] = []
    for variable, value, read in ((_THREADS, threads, int), (_MEMORY, memory, parse_bytes)):
        if value is not None:
            tokens.append((variable, variable.set(_positive(variable.name, value, read))))
    try:
        yield
    finally:
        for variable, token in reversed(tokens):
            variable.reset(token)


@cache
def _return_large_arrays() -> None:
    """Let the C library return arrays of 8 MiB and more at once; else it keeps ever larger ones, for every thread."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # not the GNU library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 8 << 20)
        mallopt(_TRIM_THRESHOLD, 64 << 20)  # what is left of smaller ones is cheap to use again


def thread_count(each: float = 0.0) -> int:
    """Return how many threads work at once where each holds so many bytes; see `machine_share`."""
    threads = _limit(_THREADS, int) or CPU_COUNT
    if each > 0:
        threads = min(threads, int(_memory() // each))
    return max(1, threads // _SIDE_BY_SIDE.get())


def _memory() -> float:
    memory = _limit(_MEMORY, parse_bytes)
    return psutil.virtual_memory().available * _FREE_SHARE if memory is None else memory


def _limit(variable: ContextVar[Any], read: Callable[[Any], Any]) -> Any:
    """What holds here of threads or memory: what was asked for, the environment's, or None."""
    name = f"WORKBENCH_{variable.name.upper()}"
    text = os.environ.get(name)
    if variable.get() is not None or not text:
        return variable.get()
    return _positive(name, text, read)


def _positive(name: str, value: Any, read: Callable[[Any], Any]) -> Any:
    try:
        number = read(value)
    except (ValueError, TypeError):
        number = math.nan
    if not number >= 1:
        raise WorkbenchError(f"{name} is {value!r}; expected {'a number' if read is int else 'a size such as 4 GB'}")
    return number


def stream_frames(frames: Iterable[Any]) -> Iterator[np.ndarray]:
    """Yield lazy (or plain) two-dimensional arrays computed, in order, a few ahead in as many threads.

    Each is computed once and no more than one a thread waits in memory.  They may be views of the data that a cube
    was made from: not to be changed.
    """
    with frame_buffers() as buffers:
        return in_threads(partial(compute_frame, buffers), frames, each=FRAME_BYTES)


def lazy_frames(cube: xr.DataArray) -> Sequence[Any]:
    """Return the frames of a cube one by one, each ready for `stream_frames`.

    Where a frame is a chunk, as on reading, dask is spared to slice, and to copy, every single one.
    """
    data = cube.data
    if not dask.is_dask_collection(data) or data.numblocks != (data.shape[0], 1, 1):
        return data
    return data.to_delayed(optimize_graph=True).ravel()


@contextlib.contextmanager
def side_by_side(number: int) -> Iterator[None]:
    """Share the processors among so many measurements: in here `in_threads` takes its part of the threads."""
    before = _SIDE_BY_SIDE.set(number)
    try:
        yield
    finally:
        _SIDE_BY_SIDE.reset(before)


Start = Callable[..., Callable[[], Any]]  # takes a function and its arguments; what it returns waits for the answer


@contextlib.contextmanager
def in_background(*, process: bool = False) -> Iterator[Start]:
    """Yield what starts functions, one after the other, in another thread; the block ends when they have.

    Python itself works on one core only: for what is mostly Python, `process` starts a second one.  Where one thread
    works at once (`thread_count`) a function is called when its answer is asked for.

    Examples
    --------
    >>> with in_background() as start:
    ...     answer = start(pow, 2, 5)
    ...     answer()
    32
    """
    if thread_count() == 1:
        yield partial
        return
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, mp_context=spawn) if process else ThreadPoolExecutor(1)

    def start(function: Callable[..., Any], *arguments: Any, **options: Any) -> Callable[[], Any]:
        here = partial(function, *arguments, **options)
        try:
            future = pool.submit(here if process else partial(copy_context().run, here))
        except BrokenProcessPool:
            return here

        def answer() -> Any:
            try:
                return future.result()
            except BrokenProcessPool:  # killed, for its memory perhaps: once more, here
                return here()

        return answer

    try:
        yield start
    finally:
        pool.shutdown(cancel_futures=True)


def in_threads(
    function: Callable[[Any], Any], items: Iterable[Any], workers: int | None = None, *, each: float = 0.0
) -> Iterator[Any]:
    """Yield function(item) in order, a few ahead in as many threads; items are taken as there is room for them.

    Without a number of `workers` there are `thread_count`, where a thread holds `each` bytes.
    """
    workers = workers or thread_count(each)
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


def each_band(work: Callable[[slice], Any], height: int, rows: int = 96) -> None:
    """Call work(slice) for bands of a picture's rows, whole cells of any mosaic and blocks of 32 pixels, in threads."""
    bands = (slice(top, min(top + rows, height)) for top in range(0, height, rows))
    deque(in_threads(work, bands), maxlen=0)


def compute_frame(buffers: FrameBuffers, frame: Any) -> np.ndarray:
    """Return a lazy (or plain) frame (y, x), computed in this thread in memory of the `buffers`."""
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
    function: Callable[..., tuple[Any, ...]],
    calls: Sequence[tuple[Any, ...]],
    outputs: Mapping[str, tuple[tuple[int, ...], Any]],
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
        layer: dict[Any, Any] = {(key, number, *corner): (_take, task.key, place) for number, task in enumerate(tasks)}
        graph = HighLevelGraph.from_collections(key, layer, dependencies=tasks)
        chunks = ((1,) * len(tasks), *((size,) for size in shape))
        arrays[name] = da.Array(graph, key, chunks=chunks, dtype=dtype)
    return arrays


def _take(results: tuple[Any, ...], place: int) -> np.ndarray:
    return np.asarray(results[place])[None]


class _Kept(NamedTuple):
    """Frames that were decoded, or are being decoded by some thread, and the room that is left for more [bytes]."""

    frames: dict[Hashable, Future[np.ndarray]]
    room: list[float]
    lock: threading.Lock


_KEPT: ContextVar[_Kept | None] = ContextVar("decoded frames", default=None)


@contextlib.contextmanager
def decoding_once(share: float = 0.5) -> Iterator[None]:
    """Keep what `decoded` decodes in here, in `share` of the memory that may be used; once it is full, no more.

    Frames that are read in turn, again and again, would drive one another out if the newest were kept.

    Examples
    --------
    >>> with decoding_once():
    ...     first = decoded("light", lambda: np.zeros(3))
    ...     decoded("light", lambda: np.ones(3)) is first
    True
    """
    token = _KEPT.set(_Kept({}, [share * _memory()], threading.Lock()))
    try:
        yield
    finally:
        _KEPT.reset(token)


def decoded(key: Hashable, decode: Callable[[], np.ndarray]) -> np.ndarray:
    """Return what `decode` does, not to be changed; within `decoding_once` it is done once for each `key`.

    A thread waits for another that decodes the same.
    """
    kept = _KEPT.get()
    if kept is None:
        return decode()
    with kept.lock:
        own, frame = key not in kept.frames, kept.frames.setdefault(key, Future())
    if own:
        try:
            frame.set_result(decode())
        except BaseException as problem:
            frame.set_exception(problem)
        with kept.lock:
            size = np.inf if frame.exception() else frame.result().nbytes
            if size <= kept.room[0]:
                kept.room[0] -= size
            else:
                del kept.frames[key]
    return frame.result()


FrameBuffers = dict[tuple[tuple[int, ...], np.dtype], deque[np.ndarray]]

_CURRENT: ContextVar[FrameBuffers | None] = ContextVar("frame buffers", default=None)


class _Lease:
    """What the arrays of one buffer stand on; the last of them to go hands the buffer back."""

    def __init__(self, buffer: np.ndarray, idle: deque[np.ndarray]) -> None:
        self._buffer, self._idle = buffer, idle
        self.__array_interface__ = buffer.__array_interface__

    def __del__(self) -> None:
        self._idle.append(self._buffer)


@contextlib.contextmanager
def frame_buffers(buffers: FrameBuffers | None = None) -> Iterator[FrameBuffers]:
    """Use memory again in here: that of the given buffers, of those around, or of new ones.

    Threads do not inherit them of themselves; those of `in_threads` do.

    Examples
    --------
    >>> with frame_buffers():
    ...     first = frame_memory((2, 3), "uint16")
    ...     place, row = first.ctypes.data, first[1]
    ...     del first  # but a row of it is held
    ...     other = frame_memory((2, 3), "uint16")
    ...     del row
    ...     again = frame_memory((2, 3), "uint16")
    >>> other.ctypes.data == place, again.ctypes.data == place
    (False, True)
    """
    if buffers is None:
        buffers = _CURRENT.get()
    given: FrameBuffers = {} if buffers is None else buffers
    token = _CURRENT.set(given)
    try:
        yield given
    finally:
        _CURRENT.reset(token)


def frame_memory(shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
    """Return an array of that shape and type with anything in it, fresh outside of `frame_buffers`."""
    buffers = _CURRENT.get()
    if buffers is None:
        return np.empty(shape, dtype)
    idle = buffers.setdefault((tuple(shape), np.dtype(dtype)), deque())
    try:
        buffer = idle.pop()
    except IndexError:
        buffer = np.empty(shape, dtype)
    return np.asarray(_Lease(buffer, idle))


def frame_zeros(shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
    """Return `frame_memory` with zeros in it."""
    memory = frame_memory(shape, dtype)
    memory.fill(0)
    return memory
