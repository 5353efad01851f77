"""The stacking engine: a plan of what goes where, and bands of rows worked off from it, tile by tile.

A `StackPlan` is plain data: files, transforms, scales, surfaces, weights.  A band of output rows is a pure function of
the plan, so that bands can be worked off by threads, by processes on other machines, or again after an
interruption, with the same result to the bit.  Each band reads the rows of each frame that it needs and holds
nothing else; memory does not grow with the frames' size and only little with their number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..align.transform import Transform
from ..calibrate.planes import REACH, Planes
from ..core.cube import MOSAICS
from ..core.errors import WorkbenchError
from ..core.files import aside
from ..core.parallel import in_threads
from ..ingest.metadata import PlainPixels
from .areas import SMALL, area_growth
from .combine import stack_tile
from .drizzle import Drop, Task, block_share, drop_noise, drop_tile
from .lanczos import PADDING, resampling_kernel
from .normalise import AREA, block_centres, sample_noise, tile_noise, white_noise
from .reject import RejectionRule, rule_of, thresholds_of
from .tile import Maps, Scratch, TileFrames, scratch_arrays, strips
from .window import (
    BAND,
    BLOCK,
    RIM,
    band_tiles,
    quarter_turns,
    strip_height,
    tile_places,
    tile_width,
    turned_cell,
    window_margin,
)

RAW_BYTES = 64 * 2**20  # of raw pixels that one thread holds
_PLANES = ("base", "dark", "scale", "noise", "cell", "white")
_MAPPED = ("base", "dark", "scale")


@dataclass(frozen=True, eq=False)
class PlannedFrame:
    """One light as the engine takes it.

    `surface` (channel, 6): its background over the mean of all, in e- of the reference (see `background_surfaces`);
    `scale`: what brings it to the reference's transparency; `weight` a channel; `factor`: the darks' scale; `group`:
    which planes it is calibrated with; `step` (x, y) [px]: from the output's pixels to those of the plan's `taken`.
    """

    name: str
    pixels: PlainPixels
    transform: Transform
    scale: float
    surface: np.ndarray
    weight: np.ndarray
    group: int = 0
    factor: float = 1.0
    step: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, eq=False)
class StackPlan:
    """All that a stack is made from; `planes` are files written by `save_planes`, one a group.

    `shape` is the grid's on which samples are compared; with a `drop` the stack's pixels are finer.  `halved`: the
    pixels of a Bayer mosaic's grid are twice as wide as the frames', see `resampling_kernel`.  `taken`: the
    file of what was subtracted from the frames, see `normalise.Noise`.
    """

    frames: tuple[PlannedFrame, ...]
    planes: tuple[Path, ...]
    shape: tuple[int, int]
    cfa_pattern: str
    method: str = "noise"
    low: float | None = None
    high: float | None = None
    drop: Drop | None = None
    halved: bool = False
    taken: Path | None = None

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the output's channels."""
        return ("mono",) if self.cfa_pattern == "mono" else ("R", "G", "B")

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the output."""
        return self.shape if self.drop is None else self.drop.size(self.shape)

    @property
    def bands(self) -> int:
        """How many bands of rows the output has."""
        return -(-self.shape[0] // BAND)

    def white(self, name: str, side: int = AREA) -> float:
        """Return what white noise a sample's variance is worth in means of `side` x `side` pixels of a channel."""
        if self.drop is not None:
            return drop_noise(self.drop, name, self.cfa_pattern, side)
        return white_noise(name, self.cfa_pattern, side) / (4 if self.halved else 1)

    def area_growth(self, places: np.ndarray) -> dict[str, list[float]]:
        """Return how the variance grows with the area, of `places` (frame, 2, band, block); see `areas.area_growth`."""
        small = {name: self.white(name, SMALL) / self.white(name) for name in self.channels}
        weight = np.array([one.weight.mean() for one in self.frames])
        return area_growth(places, weight, small, 1.0 if self.drop is None else self.drop.scale)

    @property
    def held(self) -> float:
        """What a thread holds at most to stack it [bytes], whatever the number of frames."""
        count, channels = len(self.frames), len(self.channels)
        rows, columns = BAND if self.drop else strip_height(count, channels), tile_width(count, channels)
        return RAW_BYTES + 9 * count * channels * (rows + 2 * RIM) * (columns + 2 * RIM)  # value, Σw² and a flag

    @property
    def thresholds(self) -> tuple[float, float]:
        """The rejection's two numbers."""
        return thresholds_of(self.method, self.low, self.high)


class StackArrays(NamedTuple):
    """Arrays (channel, y, x) that tiles are written into, and `chi` (2, channel, block row, block).

    `chi` sums the squared deviations of the frames over their variance, and their degrees of freedom, in blocks of
    32 pixels; when drizzled also the pixels' own variances and those of their equivalent white noise.
    """

    signal: np.ndarray
    variance: np.ndarray
    coverage: np.ndarray
    rejected_low: np.ndarray
    rejected_high: np.ndarray
    saturated: np.ndarray
    chi: np.ndarray


class Band(NamedTuple):
    """A band of the stack from row `top` on; `shared` (2, channel, block): the masters' noise (see `tile_noise`)."""

    top: int
    arrays: StackArrays
    shared: np.ndarray


def save_planes(planes: Planes, folder: Path) -> Path:
    """Write a group's planes into a new folder of flat arrays, so that any process can map them."""
    folder.mkdir(parents=True, exist_ok=True)

    def save(name: str) -> None:
        with aside(folder / f"{name}.npy") as part:
            np.save(part, np.asarray(getattr(planes, name)))

    for some in (_PLANES[:-1], _PLANES[-1:]):  # the last shows that all are there
        deque(in_threads(save, some), maxlen=0)
    return folder


def open_planes(folder: Path) -> Planes:
    """Return what `save_planes` wrote; the large planes are mapped, not read."""
    found = {name: np.load(folder / f"{name}.npy", mmap_mode="r" if name in _MAPPED else None) for name in _PLANES}
    return Planes(**{**found, "white": float(found["white"])})


class Prepared(NamedTuple):
    """A plan ready to be worked off: planes opened, tables made, what every band needs of the frames."""

    plan: StackPlan
    maps: Maps
    noise: tuple[np.ndarray, ...]
    dtype: np.dtype
    rule: RejectionRule
    width: int
    height: int
    kernel: np.ndarray
    frames: TileFrames
    white: np.ndarray
    taken: dict[str, np.ndarray]


def prepare(plan: StackPlan) -> Prepared:
    """Open the planes of a plan and make the tables that its bands share.

    Raises
    ------
    WorkbenchError
        If the plan has no frames.
    """
    if not plan.frames:
        raise WorkbenchError("no frames to stack")
    planes = [open_planes(path) for path in plan.planes]
    base, dark, scale = (_together([getattr(one, name) for one in planes]) for name in _MAPPED)
    maps = Maps(base, dark, scale, planes[0].cell, np.float32(min(one.white for one in planes)))
    dtype = np.dtype(plan.frames[0].pixels.stored).newbyteorder("=")
    dtype = np.dtype(np.uint16) if dtype == np.int16 else dtype
    count, channels = len(plan.frames), len(plan.channels)
    rule = rule_of(plan.method, count, plan.low, plan.high)
    kernel = resampling_kernel(plan.cfa_pattern, plan.halved)
    width = tile_width(count, channels)
    height = BAND if plan.drop else strip_height(count, channels)
    whites = np.array([plan.white(name) for name in plan.channels])
    taken = {}
    if plan.taken is not None:
        taken = {"taken": np.load(plan.taken), "steps": np.array([one.step for one in plan.frames], float)}
    noise, frames = tuple(one.noise for one in planes), _tables(plan, maps, dtype)
    return Prepared(plan, maps, noise, dtype, rule, width, height, kernel, frames, whites, taken)


def _tables(plan: StackPlan, maps: Maps, dtype: np.dtype) -> TileFrames:
    """What the tiles are given of the frames, but for their pixels and places."""
    count = len(plan.frames)
    turns = np.array([quarter_turns(one.transform, plan.shape, plan.cfa_pattern) for one in plan.frames])
    none = np.zeros(count, np.int64)
    return TileFrames(
        raw=np.empty(0, dtype), starts=none, row0=none, rows=none, column0=none, columns=none,
        mask=np.zeros((1, 1), np.uint8),
        factor=np.array([float(one.factor) for one in plan.frames]),
        group=np.array([one.group for one in plan.frames]),
        turn=turns,
        corner=np.stack([turned_cell(plan.cfa_pattern, turn, maps.scale.shape[1:]) for turn in turns]),
        place=np.zeros((count, 2, 6)),
        bounds=np.zeros((count, 4), np.int64),
        surface=np.stack([np.asarray(one.surface, float) for one in plan.frames]),
        scale=np.array([float(one.scale) for one in plan.frames]),
        weight=np.stack([np.asarray(one.weight, float) for one in plan.frames]),
    )  # fmt: skip


def empty_output(channels: int, rows: int, width: int, frames: int) -> StackArrays:
    """Return arrays (channel, rows, width) for a stack of so many frames, counts zero."""
    counts = np.uint8 if frames < 256 else np.uint16
    shape = (channels, rows, width)
    signal, variance = (np.empty(shape, np.float32) for _ in range(2))
    coverage, low, high, saturated = (np.zeros(shape, counts) for _ in range(4))
    chi = np.zeros((2, channels, -(-rows // BLOCK), -(-width // BLOCK)))
    return StackArrays(signal, variance, coverage, low, high, saturated, chi)


def stack_band(ready: Prepared, number: int, memory: dict | None = None) -> Band:
    """Stack one band of rows; `memory` keeps buffers from one call to the next."""
    plan = ready.plan
    memory = {} if memory is None else memory
    tiles = band_tiles(number, (0, 0, *plan.shape), ready.width, plan.cfa_pattern in MOSAICS and not plan.halved)
    frame_shape = ready.maps.scale.shape[1:]
    lying = [
        tile_places(one.transform, turn, frame_shape, tiles, window_margin(plan.cfa_pattern))
        for one, turn in zip(plan.frames, ready.frames.turn, strict=True)
    ]
    places, bounds = (np.stack(part) for part in zip(*lying, strict=True))
    needed = [_lines_needed(bounds, ready.frames.turn, frame_shape, axis) for axis in (0, 1)]
    centres = block_centres([number], plan.shape)
    found = [
        sample_noise(ready.noise[one.group], one.transform, one.scale, one.surface, centres, frame_shape)
        for one in plan.frames
    ]
    terms, lies = (np.stack([part[..., 0, :] for part in parts]) for parts in zip(*found, strict=True))
    drop = plan.drop
    side = AREA if drop is None else AREA / drop.scale
    noises, shared = tile_noise(terms, lies, ready.frames.weight, tiles, ready.white, area_side=side)
    out = fine = empty_output(len(plan.channels), tiles[0].rows, plan.shape[1], len(plan.frames))
    if drop is not None:
        out = out._replace(chi=np.concatenate([out.chi, out.chi]))
        rows = min(drop.size((plan.shape[0] - number * BAND, 0))[0], int(BAND * drop.scale))
        fine = empty_output(len(plan.channels), rows, plan.size[1], len(plan.frames))._replace(chi=out.chi)
        shared = np.concatenate([shared, 0 * shared])
        edge = block_share(drop, AREA)
    begin = 0
    while begin < len(tiles):
        end = tiles_read(needed, begin, ready.dtype.itemsize)
        part = slice(begin, end)
        frames = _read(ready, [(first[:, part], last[:, part]) for first, last in needed], memory)
        scratch = _scratch(ready, bounds[:, part][needed[0][0][:, part] < needed[0][1][:, part]], memory)
        for place in range(begin, end):
            noise = noises[place]._replace(**ready.taken)
            whole = frames._replace(place=places[:, place], bounds=bounds[:, place])
            margin = window_margin(plan.cfa_pattern)
            for tile, strip in strips(tiles[place], whole, margin, ready.height):
                stack_tile(tile, strip, ready.maps, noise, ready.rule, scratch, out)
            if drop is not None:
                drop_tile(Task(tiles[place], whole, ready.maps, noise, scratch, drop, edge, out), fine)
        begin = end
    return Band(int(number * BAND * (drop.scale if drop else 1)), fine, shared)


Lines = tuple[np.ndarray, np.ndarray]  # first and last + 1 (frame, tile)


def _lines_needed(bounds: np.ndarray, turns: np.ndarray, shape: tuple[int, int], axis: int) -> Lines:
    """Rows (`axis` 0) or columns (1) of each frame that tiles read; first and last equal where a tile misses the frame.

    `bounds` (frame, tile, 4) are their windows, `shape` (height, width) is the frames'.  Two lines more on each side
    are there to fill defects from: the windows hold what is left of the reach.
    """
    top, left, rows, half = np.moveaxis(bounds, -1, 0)
    begins, ends, size = (top, left), (top + rows, left + 2 * half), shape[axis]
    turned = (turns % 2 == 1)[:, None]
    high, wide = np.where(turned, shape[1], shape[0]), np.where(turned, shape[0], shape[1])
    missing = (top >= high) | (left >= wide) | (ends[0] <= 0) | (ends[1] <= 0)
    low, high = (np.where(turned, both[1 - axis], both[axis]) for both in (begins, ends))
    back = np.isin(turns, (2, 3) if axis == 0 else (1, 2))[:, None]
    low, high = np.where(back, size - high, low), np.where(back, size - low, high)
    low, high = low - REACH // 2, high + REACH // 2
    first, last = np.clip(low, 0, size), np.clip(high, 0, size)
    # Beyond an edge the window is mirrored: it asks for lines as far inside.
    last = np.where(low < 0, np.maximum(last, np.minimum(1 - low, size)), last)
    first = np.where(high > size, np.minimum(first, np.maximum(2 * size - 1 - high, 0)), first)
    return np.where(missing, 0, first), np.where(missing, 0, last)


def tiles_read(needed: Sequence[Lines], begin: int, itemsize: int) -> int:
    """Return up to which tile the raw pixels of `itemsize` bytes fit in the allowance; one tile's in any case.

    `needed` are the rows and the columns that tiles read.  Files are read in whole rows, so once for several tiles.
    """
    end = begin + 1
    while end < needed[0][0].shape[1]:
        part = slice(begin, end + 1)
        held = [last[:, part].max(1) - _least(first[:, part], last[:, part]) for first, last in needed]
        if int((held[0] * held[1]).sum()) * itemsize > RAW_BYTES:
            break
        end += 1
    return end


def _read(ready: Prepared, needed: Sequence[Lines], memory: dict) -> TileFrames:
    """Read the rows and columns that some tiles need of every frame."""
    (row0, rows), (column0, columns) = (
        (least := _least(first, last), last.max(1) - least) for first, last in needed
    )  # fmt: skip
    starts = np.concatenate([[0], np.cumsum(rows * columns)])
    if memory.get("raw", np.empty(0)).size < starts[-1] + 1:
        memory["raw"] = np.empty(0)  # free the old before the new
        memory["raw"] = np.empty(starts[-1] + 1, ready.dtype)
    raw = memory["raw"]
    for number, frame in enumerate(ready.plan.frames):
        if rows[number]:
            part = slice(int(column0[number]), int(column0[number] + columns[number]))
            first, last = int(row0[number]), int(row0[number] + rows[number])
            frame.pixels.read_rows(first, last, raw[starts[number] :], part)
    return ready.frames._replace(raw=raw, starts=starts[:-1], row0=row0, rows=rows, column0=column0, columns=columns)


def _scratch(ready: Prepared, bounds: np.ndarray, memory: dict) -> Scratch:
    """A thread's buffers, large enough for the windows (window, 4) that have something to read."""
    window = int((bounds[:, 2] * 2 * bounds[:, 3]).max(initial=0))
    if "scratch" not in memory or memory["scratch"].window.size < window + PADDING:
        memory["scratch"] = None  # free the old before the new
        count, channels = ready.frames.weight.shape
        memory["scratch"] = scratch_arrays(
            count, channels, (ready.height, ready.width), window, ready.kernel, ready.plan.drop is not None
        )
    return memory["scratch"]


def _together(planes: Sequence[np.ndarray]) -> np.ndarray:
    """Stack the groups' planes, read-only, so that one compiled form serves all; one group's needs no copy."""
    if len(planes) == 1:
        together = np.asarray(planes[0])[None]
    else:
        shape = max((plane.shape for plane in planes), key=lambda shape: shape[0] * shape[1])
        together = np.stack([np.broadcast_to(plane, shape) for plane in planes])
    together.flags.writeable = False
    return together


def _least(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The first row needed of each frame over tiles, those that need none left out; 0 where none does."""
    used = last > first
    return np.where(used.any(1), np.where(used, first, np.iinfo(np.int64).max).min(1), 0)
