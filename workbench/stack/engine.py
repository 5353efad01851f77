"""The stacking engine: a plan of what goes where, and bands of rows worked off from it, tile by tile.

A `Plan` is plain data: files, transforms, scales, surfaces, weights.  A band of output rows is a pure function of
the plan, so that bands can be worked off by threads, by processes on other machines, or again after an
interruption, with the same result to the bit.  Each band reads the rows of each frame that it needs and holds
nothing else; memory does not grow with the frames' size and hardly with their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from ..align.transform import Transform
from ..core.errors import WorkbenchError
from ..core.files import aside
from ..ingest.plain import PlainPixels
from . import tile
from .geometry import place_polynomials, quarter_turns, turned_cell, window_bounds
from .kernel import kernel_polynomials, narrowing_for
from .reject import DEFAULTS, ESD, esd_table, method_number, sorting_network
from .survey import Planes

BAND = 64  # output rows
TILE = 256  # output columns, fewer for many frames
TILE_BYTES = 24 * 2**20  # of resampled samples that one thread holds
RAW_BYTES = 96 * 2**20  # of raw rows that one thread holds
SHARE = {"R": 0.25, "G": 0.5, "B": 0.25, "mono": 1.0}  # of the mosaic's pixels


@dataclass(frozen=True, eq=False)
class PlannedFrame:
    """One light as the engine takes it.

    `level` (channel, 6): its background surface over the mean of all, in e- of the reference (see
    `background_surfaces`); `scale`: what brings it to the reference's transparency; `weight` a channel; `factor`: the
    darks' scale; `group`: which planes it is calibrated with.
    """

    name: str
    pixels: PlainPixels
    transform: Transform
    scale: float
    level: np.ndarray
    weight: np.ndarray
    group: int = 0
    factor: float = 1.0


@dataclass(frozen=True, eq=False)
class Plan:
    """All that a stack is made from; `planes` are files written by `save_planes`, one a group."""

    frames: tuple[PlannedFrame, ...]
    planes: tuple[Path, ...]
    shape: tuple[int, int]
    cfa_pattern: str
    method: str = "noise"
    low: float | None = None
    high: float | None = None

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the output's channels."""
        return ("mono",) if self.cfa_pattern == "mono" else ("R", "G", "B")

    @property
    def bands(self) -> int:
        """How many bands of rows the output has."""
        return -(-self.shape[0] // BAND)

    @property
    def thresholds(self) -> tuple[float, float]:
        """The rejection's two numbers."""
        first, second = DEFAULTS[self.method]
        return first if self.low is None else self.low, second if self.high is None else self.high


@dataclass(frozen=True, eq=False)
class Band:
    """A band of the stack: arrays (channel, rows, x) from row `top` on, and `chi` (2, channel, block row, block).

    `chi` sums the squared deviations of the frames over their variance, and their degrees of freedom, in blocks of
    32 pixels.
    """

    top: int
    signal: np.ndarray
    variance: np.ndarray
    coverage: np.ndarray
    rejected_low: np.ndarray
    rejected_high: np.ndarray
    saturated: np.ndarray
    chi: np.ndarray


def save_planes(planes: Planes, folder: Path) -> Path:
    """Write a group's planes into a new folder of flat arrays, so that any process can map them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("base", "dark", "scale", "noise", "cell"):
        with aside(folder / f"{name}.npy") as part:
            np.save(part, getattr(planes, name))
    with aside(folder / "white.npy") as part:
        np.save(part, np.array(planes.white))
    return folder


def open_planes(folder: Path) -> Planes:
    """Return what `save_planes` wrote; the large planes are mapped, not read."""
    small = {name: np.load(folder / f"{name}.npy") for name in ("noise", "cell")}
    large = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("base", "dark", "scale")}
    return Planes(**small, **large, white=float(np.load(folder / "white.npy")))


class Engine:
    """A plan ready to be worked off: planes opened, tables made; `band` is what it is for."""

    def __init__(self, plan: Plan) -> None:
        if not plan.frames:
            raise WorkbenchError("no frames to stack")
        self.plan = plan
        self.split = plan.cfa_pattern != "mono"
        planes = [open_planes(path) for path in plan.planes]
        self.noise = [one.noise for one in planes]
        self.maps = tuple(_together([getattr(one, name) for one in planes]) for name in ("base", "dark", "scale"))
        self.frame_shape = self.maps[2].shape[1:]
        self.white = np.float32(min(one.white for one in planes))
        self.dtype = np.dtype(plan.frames[0].pixels.stored).newbyteorder("=")
        if self.dtype not in (np.uint16, np.float32):
            self.dtype = np.dtype(np.uint16) if self.dtype == np.int16 else self.dtype
        self.method = method_number(plan.method)
        low, high = plan.thresholds
        count = len(plan.frames)
        self.table = esd_table(count, low, high) if self.method == ESD else np.zeros((1, 1))
        self.network = sorting_network(count)
        self.kernel = kernel_polynomials(narrowing_for(plan.cfa_pattern))
        channels = len(plan.channels)
        row_bytes = count * channels * (BAND + 2 * tile.RIM) * 8
        fitting = (TILE_BYTES // row_bytes - 2 * tile.RIM) // tile.BLOCK * tile.BLOCK
        self.tile_width = int(np.clip(fitting, tile.BLOCK, TILE))
        middle = plan.shape[1] / 2, plan.shape[0] / 2
        self.turns = np.array([quarter_turns(frame.transform, *middle) for frame in plan.frames])
        self.cells = np.stack([turned_cell(plan.cfa_pattern, turn, self.frame_shape) for turn in self.turns])
        self.correction = np.array([1.0 / SHARE[name] for name in plan.channels])

    def band(self, number: int, memory: dict | None = None) -> Band:
        """Stack one band of rows; `memory` keeps buffers from one call to the next."""
        plan = self.plan
        memory = {} if memory is None else memory
        width = plan.shape[1]
        top = number * BAND
        rows = min(BAND, plan.shape[0] - top)
        channels = len(plan.channels)
        counts = np.uint8 if len(plan.frames) < 256 else np.uint16
        out = Band(
            top,
            np.empty((channels, rows, width), np.float32),
            np.empty((channels, rows, width), np.float32),
            *(np.zeros((channels, rows, width), counts) for _ in range(4)),
            chi=np.zeros((2, channels, -(-rows // tile.BLOCK), -(-width // tile.BLOCK))),
        )
        lefts = np.arange(0, width, self.tile_width)
        tall, wide = BAND + 2 * tile.RIM, self.tile_width + 2 * tile.RIM
        places = np.stack(
            [
                place_polynomials(frame.transform, turn, self.frame_shape, lefts - tile.RIM, top - tile.RIM, wide, tall)
                for frame, turn in zip(plan.frames, self.turns, strict=True)
            ]
        )
        bounds = np.stack([window_bounds(one, wide, tall, self.split) for one in places])
        first, last = self._rows_needed(bounds)
        alpha, beta, master = self._noise_of(top, rows, lefts)
        at = 0
        while at < lefts.size:
            end = self._segment(first, last, at)
            self._segment_into(out, range(at, end), lefts, places, bounds, first, last, alpha, beta, master, memory)
            at = end
        return out

    def _rows_needed(self, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and last + 1 row of each frame (frame, tile) that tiles read; equal where a tile misses the frame."""
        size = self.frame_shape[0]
        top, left, rows, half = np.moveaxis(bounds, -1, 0)
        turned = (self.turns % 2 == 1)[:, None]
        low, high = np.where(turned, left, top), np.where(turned, left + 2 * half, top + rows)
        back = np.isin(self.turns, (2, 3))[:, None]
        low, high = np.where(back, size - high, low), np.where(back, size - low, high)
        first, last = np.clip(low, 0, size), np.clip(high, 0, size)
        # Beyond an edge the window is mirrored: it asks for rows as far inside.
        last = np.where(low < 0, np.maximum(last, np.minimum(1 - low, size)), last)
        first = np.where(high > size, np.minimum(first, np.maximum(2 * size - 1 - high, 0)), first)
        missing = (high <= 0) | (low >= size)
        return np.where(missing, 0, first), np.where(missing, 0, last)

    def _segment(self, first: np.ndarray, last: np.ndarray, at: int) -> int:
        """Return up to which tile the raw rows fit in the allowance; at least one tile."""
        line = self.frame_shape[1] * self.dtype.itemsize
        end = at + 1
        while end < first.shape[1]:
            part = slice(at, end + 1)
            if int((last[:, part].max(1) - _least(first[:, part], last[:, part])).sum()) * line > RAW_BYTES:
                break
            end += 1
        return end

    def _noise_of(self, top: int, rows: int, lefts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Noise of the band's blocks: α and β (tile, frame, channel, block), the masters' (tile, channel, block, 2)."""
        plan = self.plan
        blocks = self.tile_width // tile.BLOCK
        x = (lefts[:, None] + (np.arange(blocks) + 0.5) * tile.BLOCK - 0.5).ravel()
        y = np.full(x.shape, top + rows / 2 - 0.5)
        channels = len(plan.channels)
        alpha, beta = (np.empty((len(plan.frames), channels, x.size), np.float32) for _ in range(2))
        master = np.zeros((channels, x.size, 2))
        total = np.zeros((channels, 1))
        centres = np.empty((len(plan.frames), lefts.size, 2))
        terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y])
        for number, frame in enumerate(plan.frames):
            noise = self.noise[frame.group]
            fx, fy = frame.transform.apply(x, y)
            middle = blocks // 2
            centres[number] = np.stack([fx[middle::blocks], fy[middle::blocks]], -1)
            row = np.clip(fy / 32, 0, noise.shape[2] - 1).astype(np.int64)
            column = np.clip(fx / 32, 0, noise.shape[3] - 1).astype(np.int64)
            light, dark, shared, flat = noise[:, :, row, column]
            over = frame.level @ terms
            t = frame.scale
            alpha[number] = t * light
            beta[number] = np.maximum(t * over * light, -0.9 * t * t * dark) + t * t * dark
            weight = frame.weight[:, None]
            master[..., 0] += weight * t * t * shared
            master[..., 1] += weight * flat
            total += weight
        master /= np.maximum(total, 1e-30)[..., None]
        master *= np.repeat(self._common_share(centres), blocks)[:, None]

        def by_tile(values):
            return np.ascontiguousarray(np.moveaxis(values.reshape(*values.shape[:-1], lefts.size, blocks), -2, 0))

        per_tile = np.ascontiguousarray(np.moveaxis(master.reshape(channels, lefts.size, blocks, 2), 1, 0))
        return by_tile(alpha), by_tile(beta), per_tile

    def _common_share(self, centres: np.ndarray) -> np.ndarray:
        """Return how much of the masters' noise frames share in blocks of 32 pixels, a tile.

        The masters' noise stays with the sensor: dithers spread it over the sky and average it.  Of two frames
        displaced by (dx, dy) a block's mean shares (1 - |dx|/32)(1 - |dy|/32); all pairs are averaged by weight.
        """
        weight = np.array([frame.weight.mean() for frame in self.plan.frames])
        weight = weight / weight.sum()
        share = np.zeros(centres.shape[1])
        for number, own in enumerate(weight):
            apart = np.abs(centres - centres[number])
            overlap = np.maximum(1 - apart / tile.BLOCK, 0).prod(-1)
            share += own * (weight[:, None] * overlap).sum(0)
        return share

    def _segment_into(self, out, tiles, lefts, places, bounds, first, last, alpha, beta, master, memory) -> None:
        plan = self.plan
        rows = out.signal.shape[1]
        part = slice(tiles.start, tiles.stop)
        row0 = _least(first[:, part], last[:, part])
        count = last[:, part].max(1) - row0
        width = self.frame_shape[1]
        starts = np.concatenate([[0], np.cumsum(count * width)])
        if memory.get("raw", np.empty(0)).size < starts[-1] + 1:
            memory["raw"] = np.empty(starts[-1] + 1, self.dtype)
        raw = memory["raw"]
        for number, frame in enumerate(plan.frames):
            if count[number]:
                frame.pixels.read_rows(int(row0[number]), int(row0[number] + count[number]), raw[starts[number] :])
        tall, wide = BAND + 2 * tile.RIM, self.tile_width + 2 * tile.RIM
        window = int((bounds[:, part, 2] * 2 * bounds[:, part, 3]).max())
        if "buffers" not in memory or memory["buffers"]["window"].size < window + tile.PADDING:
            memory["buffers"] = None  # free the old before the new
            memory["buffers"] = tile.scratch_arrays(len(plan.frames), len(plan.channels), tall, wide, window)
        b = memory["buffers"]
        factors = np.array([frame.factor for frame in plan.frames])
        groups = np.array([frame.group for frame in plan.frames])
        levels = np.stack([frame.level for frame in plan.frames])
        scales = np.array([[frame.scale] * len(plan.channels) for frame in plan.frames])
        weights = np.stack([frame.weight for frame in plan.frames])
        low, high = plan.thresholds
        base, dark, scale = self.maps
        for number in tiles:
            tile.stack_tile(
                raw, starts[:-1], row0, count, base, dark, factors, groups, scale, self.turns, self.cells,
                places[:, number], bounds[:, number], self.white, self.split, float(lefts[number] - tile.RIM),
                float(out.top - tile.RIM), tall, wide, levels, scales, weights, alpha[number], beta[number],
                master[number], self.correction, self.method, low, high, self.table, self.network, self.kernel,
                b["ramp"], b["window"], b["values"], b["squares"], b["marks"], b["saturations"], rows, 0,
                int(lefts[number]), out.signal, out.variance, out.coverage, out.rejected_low, out.rejected_high,
                out.saturated, out.chi, b["flagged"],
            )  # fmt: skip


def _together(planes: Sequence[np.ndarray]) -> np.ndarray:
    """Stack the groups' planes; one group's needs no copy."""
    if len(planes) == 1:
        return _sealed(np.asarray(planes[0])[None])
    shape = max((plane.shape for plane in planes), key=lambda shape: shape[0] * shape[1])
    return _sealed(np.stack([np.broadcast_to(plane, shape) for plane in planes]))


def _sealed(array: np.ndarray) -> np.ndarray:
    """Make read-only, so that one compiled form serves mapped and other planes."""
    array.flags.writeable = False
    return array


def _least(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The first row needed of each frame over tiles, those that need none left out; 0 where none does."""
    used = last > first
    return np.where(used.any(1), np.where(used, first, np.iinfo(np.int64).max).min(1), 0)


def stack_bands(
    plan: Plan, write: Callable[[int, Band], None], bands: Iterable[int] | None = None, *, threads: int = 2
) -> None:
    """Work off bands of a plan on threads and hand each to `write`, one at a time, as it is done."""
    engine = Engine(plan)
    numbers = list(range(plan.bands) if bands is None else bands)
    memories: list[dict] = [{} for _ in range(threads)]

    def work(number: int) -> tuple[int, Band, dict]:
        memory = memories.pop()
        return number, engine.band(number, memory), memory

    waiting = iter(numbers)
    with ThreadPoolExecutor(threads) as pool:
        running = {pool.submit(work, number) for number in islice(waiting, threads)}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    number, band, memory = future.result()
                    memories.append(memory)
                    following = next(waiting, None)
                    if following is not None:
                        running.add(pool.submit(work, following))
                    write(number, band)
        except BaseException:
            for future in running:
                future.cancel()
            raise


def reweighted(plan: Plan, weights: np.ndarray) -> Plan:
    """Return the plan with other weights (frame, channel)."""
    frames = tuple(replace(frame, weight=weight) for frame, weight in zip(plan.frames, weights, strict=True))
    return replace(plan, frames=frames)
