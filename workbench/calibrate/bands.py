"""A cube's frames in bands of rows, all frames deep, in bounded memory.

Frames whose pixels lie in their files as plain numbers are read there, band by band.  The others are decoded once, into
memory or into a scratch file.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from ..core.errors import FrameReadError, WorkbenchError
from ..core.mosaic import channel_count, channel_index, spread_rows
from ..core.parallel import compute_frame, counted, frame_buffers, frame_memory, in_threads, lazy_frames
from ..ingest.metadata import PlainPixels
from ..ingest.reader import frame_place, is_as_read

IN_MEMORY = 96 * 2**20  # [bytes]: cubes up to this size need no scratch file
BAND_BYTES = 24 * 2**20  # of all frames' rows that one thread holds


def in_place(make: Callable[..., Any], cube: xr.DataArray, numbers: Sequence[int], *others: Any, **how: Any) -> Any:
    """Return make(frames, ...) of some frames of a cube, and if a file fails midway, once more with all decoded first.

    Frames at equal distances are taken as a slice, which leaves them as they are, where a list would copy each.
    """
    steps = set(np.diff(numbers).tolist()) or {1}
    step = steps.pop()
    even = not steps and step > 0
    frames = cube.isel(frame=slice(numbers[0], numbers[-1] + 1, step) if even else list(numbers))
    try:
        return make(frames, *others, **how)
    except FrameReadError:  # a frame that cannot be decoded is left out
        return make(frames.copy(data=frames.data.map_blocks(np.asarray)), *others, **how)


class Frames:
    """A cube's frames, decoded once or read in place, in bands of rows; a context manager that leaves no file behind.

    Frames that cannot be decoded are dropped; `dropped` lists (filename, reason), `kept` the numbers of the others.
    """

    def __init__(self, cube: xr.DataArray, *, scratch: str | Path | None = None, progress: bool = True) -> None:
        self.cube: xr.DataArray = cube
        self.height, self.width = cube.sizes["y"], cube.sizes["x"]
        self.dtype: np.dtype[Any] = cube.dtype if cube.dtype in (np.uint16, np.float32) else np.dtype(np.float32)
        self.cell: np.ndarray = channel_index(cube.attrs["cfa_pattern"])
        self.channels: int = channel_count(self.cell)
        self.step: int = max(2, len(self.cell))  # rows of whole cells
        self.dropped: list[tuple[str, str]] = []
        self.kept: list[int] = []
        self._places: list[PlainPixels | np.ndarray | int] = []  # in its file, in memory, or where in the scratch file
        self._rows, self._sample = spread_rows(self.height, self.step), np.empty(0, self.dtype)
        self._parent = scratch
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._bytes = self.height * self.width * self.dtype.itemsize
        try:
            self._open(progress)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Frames:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.kept)

    def close(self) -> None:
        """Delete the scratch file."""
        self._places = []
        if self._folder is not None:
            self._folder.cleanup()

    def leave_out(self, places: list[int]) -> None:
        """Forget some of the kept frames, by their place among them."""
        if not places:
            return
        stay = [place for place in range(len(self)) if place not in places]
        self.kept = [self.kept[place] for place in stay]
        self._places = [self._places[place] for place in stay]
        self._sample = self._sample[stay]

    def read(self, top: int, bottom: int) -> np.ndarray:
        """Return rows top to bottom of all kept frames: (frame, y, x).

        Raises
        ------
        FrameReadError
            If a file that is read in place cannot be read there.
        """
        band = frame_memory((len(self), bottom - top, self.width), self.dtype)
        for rows, place in zip(band, self._places, strict=True):
            if isinstance(place, PlainPixels):
                place.read_rows(top, bottom, rows.reshape(-1))
            elif isinstance(place, np.ndarray):
                rows[:] = place[top:bottom]
            else:
                self._from_scratch(place, top, rows)
        return band

    def _from_scratch(self, place: int, top: int, rows: np.ndarray) -> None:
        with self._file.open("rb", buffering=0) as file:
            file.seek(place * self._bytes + top * self.width * self.dtype.itemsize)
            if file.readinto(rows.view(np.uint8).data) != rows.nbytes:
                raise WorkbenchError(f"{self._file}: the scratch file has been cut while in use; run again")

    def bands(self) -> list[tuple[int, int]]:
        """Return the (top, bottom) of bands that start at whole cells of the mosaic and fit the memory."""
        rows = BAND_BYTES // max(1, len(self) * self.width * self.dtype.itemsize)
        rows = int(np.clip(rows // self.step * self.step, self.step, 256 // self.step * self.step))
        return [(top, min(top + rows, self.height)) for top in range(0, self.height, rows)]

    def sampled_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of up to 48 pairs of rows (of X-Trans six), spread evenly over the frame, and the rows.

        They are (frame, y, x), as read, whole cells of the mosaic; kept when the frames were decoded.
        """
        return self._rows, self._sample

    def each_band(self, work: Callable[[int, int], None], description: str, progress: bool) -> None:
        """Call work(top, bottom) for each band in a few threads; the first error stops all."""
        bands = self.bands()
        with frame_buffers():
            done = in_threads(lambda band: work(*band), bands, each=2 * BAND_BYTES)
            bar = tqdm(
                done, desc=description, total=len(bands), unit="band", delay=2, leave=False, disable=not progress
            )
            deque(bar, maxlen=0)

    @property
    def _file(self) -> Path:
        """The scratch file, in a folder that is made when it is first wanted."""
        if self._folder is None:
            try:
                self._folder = tempfile.TemporaryDirectory(prefix="workbench-", dir=self._parent)
            except OSError as error:
                raise WorkbenchError(f"no scratch file can be written ({error}); give another folder for it") from None
        return Path(self._folder.name) / "frames"

    def _open(self, progress: bool) -> None:
        """Find out where each frame is read, decode those that must be, and keep the sampled rows."""
        total, names = self.cube.sizes["frame"], self.cube["filename"].values
        small = self._bytes * total <= IN_MEMORY
        sample: list[np.ndarray] = []
        scratch: IO[bytes] | None = None
        try:
            look = partial(self._one, {}, not small and is_as_read(self.cube))
            each = in_threads(look, lazy_frames(self.cube), each=3 * self._bytes)
            for number, (result, rows) in enumerate(counted(each, progress, total)):
                if isinstance(result, FrameReadError):
                    self.dropped.append((str(names[number]) or str(result.path), result.problem))
                    continue
                place: PlainPixels | np.ndarray | int = result
                if isinstance(result, np.ndarray) and not small:
                    scratch = scratch or self._file.open("wb", buffering=0)
                    place = scratch.tell() // self._bytes
                    if scratch.write(result.data.cast("B")) != result.nbytes:
                        raise WorkbenchError(f"{self._file.parent}: no room for the scratch file of {total} frames")
                sample.append(rows)
                self._places.append(place)
                self.kept.append(number)
        except OSError as error:
            raise WorkbenchError(f"the scratch file cannot be written ({error}); give another folder for it") from None
        finally:
            if scratch is not None:
                scratch.close()
        if total and not self.kept:
            raise WorkbenchError(f"none of {total} frames can be read: {' '.join(self.dropped[0])}")
        self._sample = np.array(sample, self.dtype).reshape(len(self), self._rows.size, self.width)

    def _one(
        self, buffers: dict, as_read: bool, frame: Any
    ) -> tuple[PlainPixels | np.ndarray | FrameReadError, np.ndarray]:
        """Return where a frame is read in place, its pixels, or why there are none; and its sampled rows."""
        try:
            place = frame_place(frame) if as_read else None
            if place is not None and (place.shape, place.dtype) == ((self.height, self.width), self.dtype):
                runs = np.split(self._rows, np.flatnonzero(np.diff(self._rows) > 1) + 1)
                return place, np.concatenate([place.read(slice(run[0], run[-1] + 1)) for run in runs])
            pixels = np.ascontiguousarray(compute_frame(buffers, frame), dtype=self.dtype)
            return pixels, pixels[self._rows]
        except FrameReadError as error:
            return error, self._sample
