"""Memory for frames, used again: of frames that are read one after the other, fresh memory costs more than the reading.

Thirty megabytes that the system has to find, clear and hand out take up to ten times as long as the copy of a frame
into them.  Within `frame_buffers` what readers ask of `frame_memory` comes from frames that nobody holds any longer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

FrameBuffers = dict[tuple[tuple[int, ...], np.dtype], deque[np.ndarray]]

_CURRENT: ContextVar[FrameBuffers | None] = ContextVar("frame buffers", default=None)


class _Lease:
    """What the arrays of one buffer stand on; the last of them to go hands the buffer back."""

    def __init__(self, buffer: np.ndarray, idle: deque[np.ndarray]) -> None:
        self._buffer, self._idle = buffer, idle
        self.__array_interface__ = buffer.__array_interface__

    def __del__(self) -> None:
        self._idle.append(self._buffer)


@contextmanager
def frame_buffers(buffers: FrameBuffers | None = None) -> Iterator[FrameBuffers]:
    """Use memory again in here: that of the given buffers, of those around, or of new ones.

    Threads do not inherit them of themselves; those of `streams.in_threads` do.

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
    token = _CURRENT.set({} if buffers is None else buffers)
    try:
        yield _CURRENT.get()
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
    """Return `frame_memory` with zeros in it.

    Examples
    --------
    >>> frame_zeros((1, 2), bool).tolist()
    [[False, False]]
    """
    memory = frame_memory(shape, dtype)
    memory.fill(0)
    return memory
