"""A cube's frames in bands of rows, all frames deep: each decoded once, never all in memory."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from .errors import FrameReadError, WorkbenchError
from .mosaic import channel_index

IN_MEMORY = 96 * 2**20  # [bytes]: cubes up to this size need no scratch file
BAND_BYTES = 24 * 2**20  # of all frames' rows that one thread holds
_SAMPLED_ROWS = 48  # bands of two rows that the plane means and the noise fit look at


class Frames:
    """A cube's frames, each decoded once, to be read in bands of rows; a context manager that leaves no file behind.

    Frames that cannot be decoded are dropped; `dropped` lists (filename, reason), `kept` the numbers of the others.
    """

    def __init__(self, cube: xr.DataArray, *, scratch: str | Path | None = None, threads: int = 2, progress=True):
        self.cube, self.threads = cube, threads
        self.height, self.width = cube.sizes["y"], cube.sizes["x"]
        self.dtype = cube.dtype if cube.dtype in (np.uint16, np.float32) else np.dtype(np.float32)
        self.cell = channel_index(cube.attrs["cfa_pattern"])
        self.dropped: list[tuple[str, str]] = []
        self.kept: list[int] = []
        self._memory: list[np.ndarray] = []
        self._places: list[int] = []  # in the scratch file, of each kept frame
        self._folder, self._file = None, None
        self._bytes = self.height * self.width * self.dtype.itemsize
        if self._bytes * cube.sizes["frame"] > IN_MEMORY:
            try:
                self._folder = tempfile.TemporaryDirectory(prefix="workbench-", dir=scratch)
            except OSError as error:
                raise WorkbenchError(f"no scratch file can be written ({error}); give another folder for it") from None
            self._file = Path(self._folder.name) / "frames"
        try:
            self._decode(progress)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Frames:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.kept)

    def close(self) -> None:
        """Delete the scratch file."""
        self._memory = []
        if self._folder is not None:
            self._folder.cleanup()

    def leave_out(self, places: list[int]) -> None:
        """Forget some of the kept frames, by their place among them."""
        stay = [place for place in range(len(self)) if place not in places]
        self.kept, self._places = ([values[place] for place in stay] for values in (self.kept, self._places))

    def read(self, top: int, bottom: int, only: list[int] | None = None) -> np.ndarray:
        """Return rows top to bottom of all kept frames, or of `only` some places among them: (frame, y, x)."""
        places = self._places if only is None else [self._places[place] for place in only]
        band = np.empty((len(places), bottom - top, self.width), self.dtype)
        if self._file is None:
            for row, place in zip(band, places, strict=True):
                row[:] = self._memory[place][top:bottom]
            return band
        with self._file.open("rb", buffering=0) as file:
            for row, place in zip(band, places, strict=True):
                file.seek(place * self._bytes + top * self.width * self.dtype.itemsize)
                if file.readinto(memoryview(row).cast("B")) != row.nbytes:
                    raise WorkbenchError(f"{self._file}: the scratch file has been cut while in use; run again")
        return band

    def bands(self) -> list[tuple[int, int]]:
        """Return the (top, bottom) of bands that start at whole cells of the mosaic and fit the memory."""
        rows = BAND_BYTES // max(1, len(self) * self.width * self.dtype.itemsize)
        rows = int(np.clip(rows // 2 * 2, 2, 256))
        return [(top, min(top + rows, self.height)) for top in range(0, self.height, rows)]

    def sampled(self) -> list[tuple[int, int]]:
        """Return up to 48 bands of two rows, spread evenly over the frame."""
        cells = max(1, self.height // 2)
        picked = np.unique(np.linspace(0, cells - 1, min(_SAMPLED_ROWS, cells)).astype(int)) * 2
        return [(int(top), min(int(top) + 2, self.height)) for top in picked]

    def each_band(self, work: Callable[[int, int], None], description: str, progress: bool) -> None:
        """Call work(top, bottom) for each band in a few threads; the first error stops all."""
        bands = self.bands()
        with (
            ThreadPoolExecutor(self.threads) as pool,
            tqdm(total=len(bands), desc=description, unit="band", delay=2, leave=False, disable=not progress) as bar,
        ):
            for future in [pool.submit(work, *band) for band in bands]:
                try:
                    future.result()
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
                bar.update()

    def _decode(self, progress: bool) -> None:
        total = self.cube.sizes["frame"]
        names = self.cube["filename"].values
        file = self._file.open("wb", buffering=0) if self._file else None
        try:
            frames = _ahead(self._one, range(total), self.threads)
            for number, result in tqdm(
                frames, total=total, desc="reading frames", unit="frame", delay=2, leave=False, disable=not progress
            ):
                if isinstance(result, FrameReadError):
                    self.dropped.append((str(names[number]) or str(result.path), result.problem))
                    continue
                if file is None:
                    self._memory.append(result)
                elif file.write(memoryview(result).cast("B")) != result.nbytes:
                    raise WorkbenchError(f"{self._file.parent}: no room for the scratch file of {total} frames")
                self._places.append(len(self.kept))
                self.kept.append(number)
        except OSError as error:
            raise WorkbenchError(f"the scratch file cannot be written ({error}); give another folder for it") from None
        finally:
            if file is not None:
                file.close()

    def _one(self, number: int) -> np.ndarray | FrameReadError:
        try:
            frame = dask.compute(self.cube.data[number], scheduler="synchronous")[0]
        except FrameReadError as error:
            return error
        return np.ascontiguousarray(frame, dtype=self.dtype)


def _ahead(work: Callable[[int], Any], numbers: range, threads: int) -> Iterator[tuple[int, Any]]:
    """Yield (number, work(number)) in order, a few computed ahead."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[int, Future]] = deque()
        try:
            for number in numbers:
                waiting.append((number, pool.submit(work, number)))
                if len(waiting) > threads:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
