"""Cosmic rays in darks: muons leave tracks of charge, and a series of darks is a detector for them."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy import special
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist

from ..core.cube import check_cube, group_frames
from ..core.errors import WorkbenchError
from ..core.kernels import kernel
from ..core.mosaic import channel_count, channel_index, planes
from ..core.pairs import QUANTISATION_VARIANCE
from ..core.parallel import counted, stream_frames
from ..core.settings import setting_dim
from ..core.statistics import even_sample
from ..core.values import describe

MUONS = 1.0  # a cm² a minute at sea level, through a horizontal surface (Particle Data Group)
THRESHOLD = 6.0  # standard deviations
LINK = 16.0  # pixels between the pixels of one track at most
FEWEST = 5  # equal darks
STAMP = 33  # pixels a side
_GALLERY = 48
_LEVELS = 32  # of dark signal, at each of which the usual variance is taken
_SAMPLE = 1 << 18  # pixels to take it from
_MOST_HITS = 0.02  # of a frame's pixels: more cannot be cosmic rays
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
    settings = group_frames(dark, setting_dim(dark), "exposure", "temperature")
    groups = [(setting, frames) for setting, frames in settings if len(frames) >= FEWEST]
    if not groups:
        raise WorkbenchError(
            f"no {FEWEST} equal darks (of one setting, time and temperature) among these {dark.sizes['frame']}: cosmic "
            "rays are what one frame has and the others have not; shoot twenty or more"
        )
    warnings: list[str] = []
    order = [int(frame) for _, frames in groups for frame in (*frames, *frames)]
    stream = counted(stream_frames(dark.data[i] for i in order), progress, len(order))
    cell = channel_index(dark.attrs["cfa_pattern"])
    search = _CosmicSearch()
    for setting, frames in groups:
        reference = _reference(stream, len(frames), cell)
        found: list[_Event] = []
        for number in frames:
            events, dips, share = _events(next(stream), int(number), reference, threshold)
            found += events
            search.dips += dips
            if share > 0:
                warnings.append(
                    f"{dark['filename'].values[number]} differs from the other darks of its setting in "
                    f"{100 * share:.2g} % of the pixels: it is left out; is it a dark of the same temperature?"
                )
        _drop_flickering(found, search)
        search.seconds += float(np.nan_to_num(setting["exposure"])) * len(frames)
        search.frames += len(frames)
    for _ in stream:  # lets the bar finish
        pass
    left_out = dark.sizes["frame"] - search.frames
    if left_out:
        few = [describe(setting) for setting, frames in settings if len(frames) < FEWEST]
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
    attrs = {"camera": dark.attrs["camera"], "long_name": "cosmic rays", "threshold": threshold, "warnings": warnings}
    return _dataset(search, dark, area, gain).assign_attrs(attrs)


class _Reference(NamedTuple):
    """Equal darks summed, each less its own median and less the first frame, so that float32 loses nothing.

    `first`, `total` and `square` (y, x): the first frame, sums of the differences from it and of their squares [ADU].
    `count` frames.  `levels` [ADU] and `usual` [ADU²]: dark signal, and the variance that is usual there.  `cell` is
    the `channel_index` of the mosaic.
    """

    first: np.ndarray
    total: np.ndarray
    square: np.ndarray
    count: int  # type: ignore[assignment]  # frames
    levels: np.ndarray
    usual: np.ndarray
    cell: np.ndarray


def _reference(stream: Iterator[np.ndarray], count: int, cell: np.ndarray) -> _Reference:
    """Sum so many frames, and find the usual variance at each level of the dark signal."""
    frame = next(stream)
    first = frame.astype(np.float32)
    total, square = np.zeros((2, *frame.shape), np.float32)
    for number in range(count):
        frame = frame if number == 0 else next(stream)
        _add(frame, first, _offsets(frame, first, cell), cell, total, square)
    start, sums, squares = (even_sample(part, _SAMPLE).ravel() for part in (first, total, square))
    sums, squares = sums.astype(float), squares.astype(float)
    mean = start + sums / count
    variance = (squares - sums**2 / count) / (count - 1)
    edges = np.quantile(mean, np.linspace(0, 1, _LEVELS + 1))
    which = np.clip(np.searchsorted(edges, mean, side="right") - 1, 0, _LEVELS - 1)
    # the median of a χ² variable with n − 1 degrees of freedom, over n − 1
    bias = float(special.chdtri(count - 1, 0.5)) / (count - 1)
    found = [(mean[which == i].mean(), np.median(variance[which == i]) / bias) for i in np.unique(which)]
    levels = np.array([level for level, _ in found], np.float32)
    # at least the variance of rounding
    usual = np.maximum.accumulate(np.array([max(value, QUANTISATION_VARIANCE) for _, value in found], np.float32))
    return _Reference(first, total, square, count, levels, usual, cell)


def _offsets(frame: np.ndarray, first: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Return how far each channel of a frame lies above that of the first [ADU], by the middle of a sample."""
    offset = np.empty(channel_count(cell), np.float32)
    for (channel, plane), (_, start) in zip(planes(frame, cell), planes(first, cell), strict=True):
        difference = even_sample(plane, _SAMPLE).astype(np.float32) - even_sample(start, _SAMPLE)
        # the mean of the middle half: a median of whole numbers would be a whole number
        low, high = np.quantile(difference, [0.25, 0.75])
        middle = difference[(difference >= low) & (difference <= high)]
        offset[channel] = middle.mean(dtype=float) if middle.size else 0.0
    return offset


@kernel()
def _add(frame, first, offset, cell, total, square):
    """Add the differences of a frame (y, x) from the first, less `offset` (channel) [ADU], and their squares."""
    step = cell.shape[0]
    for y in range(frame.shape[0]):
        for x in range(frame.shape[1]):
            d = np.float32(frame[y, x]) - first[y, x] - offset[cell[y % step, x % step]]
            total[y, x] += d
            square[y, x] += d * d


@kernel()
def _outliers(frame, reference, offset, threshold, out):
    """Write (y, x, z, excess [ADU]) of the pixels beyond the threshold [σ] into `out` (hit, 4); return their number."""
    first, total, square, count, levels, usual, cell = reference
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


_Z, _EXCESS = 2, 3  # columns of the hits: y, x, z [σ], excess [ADU]


class _Event(NamedTuple):
    """An event in a frame: its hits (pixel, 4), and its surroundings (row, column) [ADU] if it is a track."""

    frame: int
    hits: np.ndarray
    stamp: np.ndarray | None


@dataclass
class _CosmicSearch:
    """What all settings gave: events, pixels below −threshold, pixels that flicker; frames and seconds searched."""

    events: list[_Event] = field(default_factory=list)
    dips: int = 0
    flickering: int = 0
    frames: int = 0
    seconds: float = 0.0


def _events(frame: np.ndarray, number: int, reference: _Reference, threshold: float) -> tuple[list[_Event], int, float]:
    """Return the events of one frame, its pixels below −threshold, and 0; of a useless frame the share of its hits."""
    offset = _offsets(frame, reference.first, reference.cell)
    out = np.empty((max(64, int(_MOST_HITS * frame.size)), 4), np.float64)
    count = _outliers(frame, reference, offset, np.float32(threshold), out)
    if count > len(out):
        return [], 0, count / frame.size
    hits = out[:count]
    above = hits[hits[:, _Z] > 0]
    events = []
    for members in clusters(above[:, :2]):
        stamp = _stamp(frame, above[members], reference, offset) if len(members) > 1 else None
        events.append(_Event(number, above[members], stamp))
    return events, int(np.count_nonzero(hits[:, _Z] < 0)), 0.0


def _stamp(frame: np.ndarray, hits: np.ndarray, reference: _Reference, offset: np.ndarray) -> np.ndarray:
    """Cut out the surroundings of an event, less the mean of the other frames; NaN beyond the frame's edge."""
    centre = np.round((hits[:, :2].min(axis=0) + hits[:, :2].max(axis=0)) / 2).astype(int)
    stamp = np.full((STAMP, STAMP), np.nan, np.float32)
    low = centre - STAMP // 2
    begin, end = np.maximum(low, 0), np.minimum(low + STAMP, frame.shape)
    inside = tuple(slice(a, b) for a, b in zip(begin, end, strict=True))
    rows, columns = np.ogrid[inside]
    step = reference.cell.shape[0]
    above = offset[reference.cell[rows % step, columns % step]]
    d = frame[inside].astype(np.float32) - reference.first[inside] - above
    mean = (reference.total[inside] - d) / (reference.count - 1)
    stamp[tuple(slice(a - o, b - o) for a, b, o in zip(begin, end, low, strict=True))] = d - mean
    return stamp


def _drop_flickering(found: list[_Event], search: _CosmicSearch) -> None:
    """Keep the events of one setting, without the pixels that were hit in more than one of its frames."""
    if not found:
        return
    places = np.concatenate([event.hits[:, :2] for event in found]).astype(int)
    seen, count = np.unique(places, axis=0, return_counts=True)
    often = {tuple(place) for place in seen[count > 1].tolist()}
    search.flickering += len(often)
    for event in found:
        steady = [tuple(place) not in often for place in event.hits[:, :2].astype(int).tolist()]
        if any(steady):
            search.events.append(event._replace(hits=event.hits[np.array(steady)]))


def clusters(places: np.ndarray) -> list[np.ndarray]:
    """Return the numbers of the places that hang together, each within `LINK` of another of its cluster.

    Examples
    --------
    >>> [members.tolist() for members in clusters(np.array([[0, 0], [90, 90], [3, 4], [10, 10]]))]
    [[0, 2, 3], [1]]
    """
    if not len(places):
        return []
    pairs = cKDTree(places).query_pairs(LINK, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(places),) * 2)
    count, label = connected_components(graph, directed=False)
    return [np.flatnonzero(label == number) for number in range(count)]


def _dataset(search: _CosmicSearch, dark: xr.DataArray, area: float, gain: float | None) -> xr.Dataset:
    events, frame = search.events, np.array([event.frame for event in search.events], int)
    scale, unit = (1.0, "adu") if gain is None else (float(gain), "electron")
    size = np.array([len(event.hits) for event in events], int)
    tracks = int(np.count_nonzero(size > 1))
    largest = heapq.nlargest(_GALLERY, np.flatnonzero(size > 1).tolist(), key=lambda i: (size[i], -i))
    stamps = np.array([scale * s for i in largest if (s := events[i].stamp) is not None], np.float32)
    stamps = stamps.reshape(-1, STAMP, STAMP)
    weight = [np.maximum(event.hits[:, _EXCESS], 0) for event in events]
    centres = [np.average(event.hits[:, :2], axis=0, weights=w) for event, w in zip(events, weight, strict=True)]
    y, x = np.reshape(centres, (-1, 2)).T
    minutes = search.seconds / 60
    flux = tracks / (area * minutes) if area * minutes > 0 else math.nan
    of_events = {
        "y": (y, "pix", "row of the charge's centre"),
        "x": (x, "pix", "column of the charge's centre"),
        "pixels": (size, "1", "pixels beyond the threshold"),
        "length": ([1.0 + pdist(event.hits[:, :2]).max(initial=0.0) for event in events], "pix", "length"),
        "charge": ([scale * float(event.hits[:, _EXCESS].sum()) for event in events], unit, "charge"),
        "peak": ([float(event.hits[:, _Z].max()) for event in events], "1", "peak"),
    }
    scalars = {
        "tracks": (tracks, "1", "events of two pixels or more"),
        "tracks_error": (math.sqrt(max(tracks, 1)), "1", "√ of the tracks"),
        "singles": (len(events) - tracks, "1", "events of one pixel"),
        "flickering": (search.flickering, "1", "pixels that fired in several frames"),
        "dips": (search.dips, "1", "pixels below the threshold: no particles"),
        "frames": (search.frames, "1", "darks searched"),
        "seconds": (search.seconds, "s", "exposure searched"),
        "area": (area, "cm**2", "area of the sensor"),
        "expected": (MUONS * area * minutes, "1", "muons expected"),
        "flux": (flux, "1 / (cm**2 min)", "tracks a cm² and minute"),
        "flux_error": (flux / math.sqrt(max(tracks, 1)), "1 / (cm**2 min)", "error of the flux"),
    }
    data: dict[str, Any] = {
        name: (dims, value, {"units": units, "long_name": title})
        for dims, table in (("event", of_events), ((), scalars))
        for name, (value, units, title) in table.items()
    }
    data["picture"] = (("stamp", "row", "column"), stamps, {"units": unit, "long_name": "excess over the other darks"})
    data["stamp_event"] = ("stamp", np.array(largest, int))
    coords = {
        "frame": ("event", frame),
        "filename": ("event", dark["filename"].values[frame] if len(frame) else np.array([], object)),
        "exposure": ("event", dark["exposure"].values[frame] if len(frame) else np.array([], float)),
    }
    return xr.Dataset(data, coords)
