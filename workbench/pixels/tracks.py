"""Cosmic rays in darks: muons leave tracks of charge, and a series of darks is a detector for them."""

from __future__ import annotations

import heapq
import math
from typing import Any, NamedTuple

import numba
import numpy as np
import xarray as xr
from scipy import special
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from ..core.cube import check_cube
from ..core.errors import WorkbenchError
from ..core.mosaic import channel_index
from ..core.parallel import counted, stream_frames
from ..core.selection import describe, group_frames

MUONS = 1.0  # a cm² a minute at sea level, through a horizontal surface (Particle Data Group)
THRESHOLD = 6.0  # standard deviations
LINK = 16.0  # pixels between the pixels of one track at most
FEWEST = 5  # equal darks
STAMP = 33  # pixels a side
_GALLERY = 48
_LEVELS = 32  # of dark signal, at each of which the usual variance is taken
_SAMPLE = 1 << 18  # pixels to take it from
_MOST_HITS = 0.02  # of a frame's pixels: more are no cosmic rays
PIXEL_SIZES = {"D7000": 4.78}  # µm


def find_cosmic_rays(
    dark: xr.DataArray,
    *,
    pixel_size: float | None = None,
    gain: float | None = None,
    threshold: float = THRESHOLD,
    progress: Any = True,
) -> xr.Dataset:
    """Find the tracks of cosmic rays in equal darks, and compare their number with the muons that should have come.

    z = (y − m)/√(v (1 + 1/(N−1))) of each pixel in each frame, m and v being mean and variance of that pixel in the
    N − 1 *other* frames, v at least what is usual for pixels of that dark signal (of few frames a variance can come
    out small by chance); each frame less its own median, so that an offset that wanders does no harm.  Pixels beyond
    the threshold and within 16 pixels of each other are one event.  Pixels that go beyond it in more than one frame
    flicker, and are left out.  Pixels *below* −threshold cannot be particles: their number says how many of the others
    are false.  A track is an event of two pixels or more.

    The frames are read twice, and ten bytes a pixel are held, however many there are.

    Parameters
    ----------
    dark
        Raw darks (frame, y, x): five or more equal ones; of several settings each is taken by itself.
    pixel_size
        In µm, for the area; known for the D7000.
    gain
        In e⁻/ADU, to give charges in electrons.
    threshold
        In standard deviations.
    progress
        False for no progress bar.

    Returns
    -------
    xarray.Dataset
        Over event: ``y``, ``x`` (of the charge's centre), ``pixels``, ``length`` [pixels], ``charge`` [ADU, or e⁻
        with a gain], ``peak`` [σ], with ``frame``, ``filename`` and ``exposure``.  Over stamp: ``picture`` (row,
        column) [as charge] of the largest, ``stamp_event`` their number.  Scalars: ``tracks`` and ``tracks_error``,
        ``singles`` (events of one pixel), ``flickering`` pixels, ``dips`` (pixels below the threshold), ``frames``,
        ``seconds``, ``area`` [cm²], ``expected`` tracks, ``flux`` and ``flux_error`` [1/cm²/min].
        ``attrs["warnings"]``.

    Raises
    ------
    WorkbenchError
        If the frames are not raw darks, or there are not five equal ones.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> y = np.random.default_rng(1).normal(600, 4, (8, 64, 64))
    >>> y[3, 20, 30:34] += 200
    >>> found = find_cosmic_rays(make_cube(y.round().astype("uint16"), cfa_pattern="RGGB", kind="dark", iso=200,
    ...                                    exposure=60), pixel_size=4.78, progress=False)
    >>> found.tracks.item(), found.pixels.values.tolist(), found.x.round(1).values.tolist(), found.frame.values.tolist()
    (1, [4], [31.5], [3])
    """
    check_cube(dark, stage="raw", kind="dark")
    groups = [
        (setting, frames)
        for setting, frames in group_frames(dark, "iso", "exposure", "temperature")
        if len(frames) >= FEWEST
    ]
    if not groups:
        raise WorkbenchError(
            f"no {FEWEST} equal darks (of one ISO, exposure and temperature) among these {dark.sizes['frame']}: cosmic "
            "rays are what one frame has and the others have not; shoot twenty or more"
        )
    warnings: list[str] = []
    order = [int(frame) for _, frames in groups for frame in (*frames, *frames)]
    stream = counted(stream_frames(dark.data[i] for i in order), progress, len(order))
    cell = channel_index(dark.attrs["cfa_pattern"])
    scale = 1.0 if gain is None else float(gain)
    search = _Search(threshold, scale)
    for setting, frames in groups:
        reference = _Reference(cell)
        for _ in frames:
            reference.add(next(stream))
        reference.finish()
        for number in frames:
            search.look(next(stream), int(number), reference, warnings, str(dark["filename"].values[number]))
        search.settle(len(frames))
        seconds = setting["exposure"] * len(frames)
        search.seconds += seconds if math.isfinite(seconds) else 0.0
        search.frames += len(frames)
    for _ in stream:  # lets the bar finish
        pass
    left_out = dark.sizes["frame"] - search.frames
    if left_out:
        few = [describe(s) for s, f in group_frames(dark, "iso", "exposure", "temperature") if len(f) < FEWEST]
        warnings.append(
            f"{left_out} darks are not searched, being fewer than {FEWEST} of their setting ({'; '.join(few[:3])}): "
            "shoot more of each"
        )
    if pixel_size is None:
        pixel_size = next((size for name, size in PIXEL_SIZES.items() if name in dark.attrs["camera"]), math.nan)
        if math.isnan(pixel_size):
            warnings.append(
                "the pixel size of this camera is not known: give it (in µm) for the expected number of muons"
            )
    area = dark.sizes["y"] * dark.sizes["x"] * (pixel_size * 1e-4) ** 2
    return _dataset(search, dark, area, "ADU" if gain is None else "e-", warnings)


class _Reference:
    """Sums over equal darks: of each pixel, less its value in the first frame, so that float32 loses nothing."""

    def __init__(self, cell: np.ndarray) -> None:
        self.cell = cell
        self.count = 0
        self.first: np.ndarray | None = None

    def add(self, frame: np.ndarray) -> None:
        if self.first is None:
            self.first = frame.astype(np.float32)
            self.total = np.zeros(frame.shape, np.float32)
            self.square = np.zeros(frame.shape, np.float32)
        _add(frame, self.first, self.medians(frame), self.cell, self.total, self.square)
        self.count += 1

    def medians(self, frame: np.ndarray) -> np.ndarray:
        """Return how far each channel of the frame lies above that of the first, by the median of a sample."""
        step = self.cell.shape[0]
        offset = np.empty(self.cell.size, np.float32)
        for (row, column), channel in np.ndenumerate(self.cell):
            part = (slice(row, None, step), slice(column, None, step))
            a, b = frame[part], self.first[part]
            stride = max(1, int(math.sqrt(a.size / _SAMPLE)))
            difference = a[::stride, ::stride].astype(np.float32) - b[::stride, ::stride]
            # the mean of the middle half: a median of whole numbers would be a whole number
            low, high = np.quantile(difference, [0.25, 0.75])
            middle = difference[(difference >= low) & (difference <= high)]
            offset[channel] = middle.mean(dtype=float) if middle.size else 0.0
        return offset

    def finish(self) -> None:
        """Find what variance is usual at each level of the dark signal."""
        n = self.count
        stride = max(1, int(math.sqrt(self.total.size / _SAMPLE)))
        total, square = (part[::stride, ::stride].ravel().astype(float) for part in (self.total, self.square))
        mean = self.first[::stride, ::stride].ravel() + total / n
        variance = (square - total**2 / n) / (n - 1)
        edges = np.quantile(mean, np.linspace(0, 1, _LEVELS + 1))
        which = np.clip(np.searchsorted(edges, mean, side="right") - 1, 0, _LEVELS - 1)
        # the median of a χ² variable with n − 1 degrees of freedom, over n − 1
        bias = float(special.chdtri(n - 1, 0.5)) / (n - 1)
        found = [(mean[which == i].mean(), np.median(variance[which == i]) / bias) for i in np.unique(which)]
        self.levels = np.array([level for level, _ in found], np.float32)
        # at least that of rounding
        self.usual = np.maximum.accumulate(np.array([max(value, 1 / 12) for _, value in found], np.float32))


@numba.njit(nogil=True, cache=True)
def _add(frame, first, offset, cell, total, square):
    step = cell.shape[0]
    for y in range(frame.shape[0]):
        for x in range(frame.shape[1]):
            d = np.float32(frame[y, x]) - first[y, x] - offset[cell[y % step, x % step]]
            total[y, x] += d
            square[y, x] += d * d


@numba.njit(nogil=True, cache=True)
def _outliers(frame, first, offset, cell, total, square, count, levels, usual, threshold, out):
    """Write (y, x, z, excess) of the pixels beyond the threshold into `out`; return how many there are."""
    step, found = cell.shape[0], 0
    others = count - 1
    widen = np.float32(1.0 + 1.0 / others)
    for y in range(frame.shape[0]):
        for x in range(frame.shape[1]):
            d = np.float32(frame[y, x]) - first[y, x] - offset[cell[y % step, x % step]]
            mean = (total[y, x] - d) / others
            excess = d - mean
            # cheap first: the lowest variance that any pixel is given
            if excess * excess <= threshold * threshold * usual[0]:
                continue
            variance = (square[y, x] - d * d - others * mean * mean) / (others - 1)
            floor = np.interp(first[y, x] + mean, levels, usual)
            z = excess / np.sqrt(max(variance, floor) * widen)
            if abs(z) > threshold:
                if found < out.shape[0]:
                    out[found, 0], out[found, 1], out[found, 2], out[found, 3] = y, x, z, excess
                found += 1
    return found


class _Event(NamedTuple):
    frame: int
    pixels: np.ndarray  # (pixel, 4): y, x, z, excess
    stamp: np.ndarray | None  # of a track


class _Search:
    """What was found so far."""

    def __init__(self, threshold: float, scale: float) -> None:
        self.threshold, self.scale = threshold, scale
        self.events: list[_Event] = []
        self.found: list[_Event] = []  # of the setting at hand, before flickering pixels are known
        self.dips = self.flickering = self.frames = 0
        self.seconds = 0.0

    def look(self, frame: np.ndarray, number: int, reference: _Reference, warnings: list[str], name: str) -> None:
        """Look for events in one frame."""
        offset = reference.medians(frame)
        out = np.empty((max(64, int(_MOST_HITS * frame.size)), 4), np.float64)
        count = _outliers(
            frame, reference.first, offset, reference.cell, reference.total, reference.square, reference.count,
            reference.levels, reference.usual, np.float32(self.threshold), out,
        )  # fmt: skip
        if count > out.shape[0]:
            warnings.append(
                f"{name} differs from its likes in {100 * count / frame.size:.2g} % of the pixels: it is left out; is "
                "it a dark of the same temperature?"
            )
            return
        hits = out[:count]
        self.dips += int(np.count_nonzero(hits[:, 2] < 0))
        hits = hits[hits[:, 2] > 0]
        for members in clusters(hits[:, :2]):
            stamp = self._stamp(frame, hits[members], reference, offset) if len(members) > 1 else None
            self.found.append(_Event(number, hits[members], stamp))

    def _stamp(self, frame: np.ndarray, hits: np.ndarray, reference: _Reference, offset: np.ndarray) -> np.ndarray:
        """Cut out the surroundings of an event, less the mean of the other frames; NaN beyond the frame's edge."""
        centre = np.round((hits[:, :2].min(axis=0) + hits[:, :2].max(axis=0)) / 2).astype(int)
        stamp = np.full((STAMP, STAMP), np.nan, np.float32)
        low = centre - STAMP // 2
        begin = np.maximum(low, 0)
        end = np.minimum(low + STAMP, frame.shape)
        inside = tuple(slice(a, b) for a, b in zip(begin, end, strict=True))
        rows, columns = np.ogrid[inside]
        step = reference.cell.shape[0]
        d = (
            frame[inside].astype(np.float32)
            - reference.first[inside]
            - offset[reference.cell[rows % step, columns % step]]
        )
        mean = (reference.total[inside] - d) / (reference.count - 1)
        stamp[tuple(slice(a - o, b - o) for a, b, o in zip(begin, end, low, strict=True))] = d - mean
        return stamp

    def settle(self, frames: int) -> None:
        """Drop the pixels that fired in more than one frame of a setting, and keep what is left of the events."""
        if not self.found:
            return
        places = np.concatenate([event.pixels[:, :2] for event in self.found]).astype(int)
        seen, count = np.unique(places, axis=0, return_counts=True)
        often = {tuple(place) for place in seen[count > 1].tolist()}
        self.flickering += len(often)
        for event in self.found:
            steady = [tuple(place) not in often for place in event.pixels[:, :2].astype(int).tolist()]
            if any(steady):
                self.events.append(event._replace(pixels=event.pixels[np.array(steady)]))
        self.found = []


def clusters(places: np.ndarray, link: float = LINK) -> list[np.ndarray]:
    """Return the numbers of the places that hang together, each within `link` of another of its cluster.

    Examples
    --------
    >>> [members.tolist() for members in clusters(np.array([[0, 0], [90, 90], [3, 4], [10, 10]]))]
    [[0, 2, 3], [1]]
    """
    if not len(places):
        return []
    pairs = cKDTree(places).query_pairs(link, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(places),) * 2)
    count, label = connected_components(graph, directed=False)
    return [np.flatnonzero(label == number) for number in range(count)]


def _dataset(search: _Search, dark: xr.DataArray, area: float, unit: str, warnings: list[str]) -> xr.Dataset:
    events = search.events
    size = np.array([len(event.pixels) for event in events], int)
    tracks = int(np.count_nonzero(size > 1))
    largest = heapq.nlargest(_GALLERY, np.flatnonzero(size > 1).tolist(), key=lambda i: (size[i], -i))
    frame = np.array([event.frame for event in events], int)
    weight = [np.maximum(event.pixels[:, 3], 0) for event in events]
    minutes = search.seconds / 60
    flux = tracks / (area * minutes) if area * minutes > 0 else math.nan
    counts = {"units": "1"}
    data: dict[str, Any] = {
        "y": ("event", [np.average(e.pixels[:, 0], weights=w) for e, w in zip(events, weight, strict=True)]),
        "x": ("event", [np.average(e.pixels[:, 1], weights=w) for e, w in zip(events, weight, strict=True)]),
        "pixels": ("event", size, {"long_name": "pixels beyond the threshold"}),
        "length": ("event", [_length(event.pixels) for event in events], {"units": "pixel", "long_name": "length"}),
        "charge": (
            "event",
            [search.scale * float(event.pixels[:, 3].sum()) for event in events],
            {"units": unit, "long_name": "charge"},
        ),
        "peak": ("event", [float(event.pixels[:, 2].max()) for event in events], {"units": "σ", "long_name": "peak"}),
        "picture": (
            ("stamp", "row", "column"),
            np.array([search.scale * events[i].stamp for i in largest], np.float32).reshape(-1, STAMP, STAMP),
            {"units": unit, "long_name": "excess over the other darks"},
        ),
        "stamp_event": ("stamp", np.array(largest, int)),
        "tracks": ((), tracks, counts | {"long_name": "events of two pixels or more"}),
        "tracks_error": ((), math.sqrt(max(tracks, 1)), counts | {"long_name": "√ of the tracks"}),
        "singles": ((), len(events) - tracks, counts | {"long_name": "events of one pixel"}),
        "flickering": ((), search.flickering, counts | {"long_name": "pixels that fired in several frames"}),
        "dips": ((), search.dips, counts | {"long_name": "pixels below the threshold: no particles"}),
        "frames": ((), search.frames, counts | {"long_name": "darks searched"}),
        "seconds": ((), search.seconds, {"units": "s", "long_name": "exposure searched"}),
        "area": ((), area, {"units": "cm²", "long_name": "area of the sensor"}),
        "expected": ((), MUONS * area * minutes, counts | {"long_name": "muons expected"}),
        "flux": ((), flux, {"units": "1/cm²/min", "long_name": "tracks a cm² and minute"}),
        "flux_error": ((), flux / math.sqrt(max(tracks, 1)), {"units": "1/cm²/min", "long_name": "error of the flux"}),
    }
    coords = {
        "frame": ("event", frame),
        "filename": ("event", dark["filename"].values[frame] if len(frame) else np.array([], object)),
        "exposure": ("event", dark["exposure"].values[frame] if len(frame) else np.array([], float)),
    }
    attrs = {"camera": dark.attrs["camera"], "long_name": "cosmic rays", "threshold": search.threshold}
    return xr.Dataset(data, coords, attrs | {"warnings": warnings})


def _length(pixels: np.ndarray) -> float:
    """Return the largest distance between two pixels of an event, plus one."""
    if len(pixels) == 1:
        return 1.0
    spread = pixels[:, None, :2] - pixels[None, :, :2]
    return 1.0 + float(np.sqrt((spread**2).sum(axis=2)).max())
