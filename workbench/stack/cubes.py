"""The verbs on cubes: calibrated lights put on the reference's grid, and stacked, lazily and open to inspection.

The same compiled loops as the engine's (`workbench.stack.engine`), which works off files tile by tile for whole nights;
these verbs are for looking at every step, and hold all frames of what is asked for in memory.  `aligned` resamples and
normalises, `stack` rejects and averages; nothing is computed until asked.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr

from ..align.registration import Registration
from ..align.transform import Transform
from ..calibrate.planes import NOISE_TERMS, noise_in_blocks
from ..core.cube import check_cube
from ..core.errors import WorkbenchError
from ..core.mosaic import channel_index
from ..core.parallel import frame_arrays
from ..core.values import attribute_lines, joined_lines, plain_attributes
from .areas import SMALL, area_growth
from .combine import Samples, combine_tile
from .engine import empty_output
from .fits_out import about_plane
from .normalise import (
    block_centres,
    normalisation,
    pixel_share,
    sample_noise,
    shared_variance,
    tile_noise,
    white_noise,
)
from .reject import rule_of
from .tile import FrameLevels, Scratch, place_frame
from .window import BAND, BLOCK, band_tiles, tile_width

CHUNKS = 4  # pieces of rows, at most, that a stack is computed in
_MAPS = ("coverage", "rejected_low", "rejected_high", "saturated")


def aligned(lights: xr.Dataset, registration: Registration, norm: xr.Dataset | None = None) -> xr.Dataset:
    """Put calibrated lights on the reference's pixel grid, in colour and normalised; lazy.

    Each channel is gathered straight from the mosaic at the transformed position (Lanczos-3), one resampling in all.

    Parameters
    ----------
    lights
        What `calibrate` gives.
    registration
        What `workbench.align.register` found for these lights.
    norm
        What `normalisation` gives; found here where not given.

    Returns
    -------
    Dataset over (frame, channel, y, x), frames set aside left out: ``signal`` [e- of the reference], NaN outside the
    frame; ``variance`` [e-²], a frame's own noise in that value; ``slope``, how fast that variance grows with the light
    [e-²/e-]; and ``saturated``, where saturated samples reach.  In blocks of 64 x 32 pixels ``noise_terms`` (frame,
    term, channel, block_y, block_x), from which the variance comes and what the masters share, and ``place`` (frame,
    axis, block_y, block_x), the blocks' positions in the frame [px].  Over ``frame`` also ``scale`` and ``weight``
    (channel).

    Raises
    ------
    StageError, WorkbenchError
        If the lights are not calibrated, or not those that were registered.
    """
    signal = check_cube(lights["signal"], stage="calibrated")
    names = [str(name) for name in signal["filename"].values]
    if names != [str(name) for name in registration.quality["filename"].values]:
        raise WorkbenchError("this registration belongs to other lights: register these")
    norm = normalisation(registration) if norm is None else norm
    used, channels = norm["number"].values, [str(name) for name in norm["channel"].values]
    pattern, shape = lights.attrs["cfa_pattern"], registration.shape
    corner = tuple(int(lights[name].values[0]) if name in lights.coords else 0 for name in ("y", "x"))
    parts = [lights[name] for name in ("signal", "mask")]
    parts.append(lights["noise_terms"] if "noise_terms" in lights else lights["variance"])
    frames = [_frames_of(part) for part in parts]
    width = tile_width(len(used), len(channels))
    calls, noises = [], []
    for place, number in enumerate(used):
        transform, scale = registration.transform(int(number)), float(norm["scale"][place])
        surface = norm["surface"].values[place]
        mosaic, mask, noise = (part[number] for part in frames)
        noises.append((noise, mosaic, pattern, transform, scale, surface, corner, shape))
        calls.append((mosaic, mask, pattern, transform, shape, FrameLevels(scale, surface), width))
    blocks = (-(-shape[0] // BAND), -(-shape[1] // BLOCK))
    picture = ((len(channels), *shape), np.float32)
    arrays = frame_arrays(
        _noise_of, noises, {"terms": ((4, len(channels), *blocks), np.float32), "place": ((2, *blocks), np.float32)}
    )
    arrays |= frame_arrays(_put, calls, {"signal": picture, "square": picture, "saturated": (picture[0], bool)})
    steps = [arrays[name].to_delayed(optimize_graph=False).ravel() for name in ("signal", "square", "terms")]
    steps = list(zip(*steps, strict=True))
    arrays |= frame_arrays(_variance_of, steps, {"variance": picture, "slope": picture})
    return _described(signal.isel(frame=used), arrays, norm, registration, channels)


def _frames_of(part: xr.DataArray) -> Any:
    """The frames of a cube one by one: lazy ones whole, as they are computed."""
    data = part.data
    if not dask.is_dask_collection(data):
        return data
    whole = data.rechunk({0: 1, **dict.fromkeys(range(1, data.ndim), -1)})
    return whole.to_delayed(optimize_graph=False).ravel()


def _whole(part: np.ndarray, ndim: int) -> np.ndarray:
    """A frame without the axis of frames that a chunk of a cube has."""
    part = np.asarray(part)
    return part.reshape(part.shape[part.ndim - ndim :])


def _put(mosaic, mask, pattern: str, transform: Transform, shape: tuple[int, int], levels: FrameLevels, width: int):
    return place_frame(_whole(mosaic, 2), _whole(mask, 2), pattern, transform, shape, levels=levels, width=width)


def _noise_of(noise, mosaic, pattern: str, transform: Transform, scale: float, surface: np.ndarray, corner, shape):
    """Noise terms and places of a frame's samples in the output's blocks; without terms from the variance."""
    noise, mosaic = np.asarray(noise), _whole(mosaic, 2)
    if noise.shape[-2:] == mosaic.shape:
        noise, corner = noise_in_blocks(mosaic, _whole(noise, 2), channel_index(pattern)), (0, 0)
    centres = block_centres(range(-(-shape[0] // BAND)), shape)
    return sample_noise(_whole(noise, 4), transform, scale, surface, centres, mosaic.shape, corner)


def _variance_of(value, square, terms):
    """A frame's variance and slope (channel, y, x) from its values, Σw² and noise terms in blocks of 64 x 32 pixels."""
    value, square, terms = (_whole(part, ndim) for part, ndim in ((value, 3), (square, 3), (terms, 4)))
    rows, columns = np.arange(value.shape[1])[:, None] // BAND, np.arange(value.shape[2]) // BLOCK
    alpha, beta = terms[:2, :, rows, columns]
    slope, light = alpha * square, np.maximum(value, 0)
    least = slope * (0.1 * light + 1)  # as `combine.sample_variance` has it
    return np.maximum(slope * light + beta * square, least).astype(np.float32), slope


def _described(
    kept, arrays: dict[str, da.Array], norm: xr.Dataset, registration: Registration, channels: list[str]
) -> xr.Dataset:
    """The aligned lights with units, coordinates and history; `kept` is the signal of the frames that are used."""
    reference = str(registration.quality["filename"].values[registration.reference])
    history = [*attribute_lines(kept.attrs, "history"), f"resampled onto {reference or 'the reference'} and normalised"]
    attrs = {**kept.attrs, "long_name": "signal on the reference's grid", "history": joined_lines(history)}
    begin = {name: int(kept[name].values[0]) if name in kept.coords else 0 for name in ("y", "x")}
    sizes, corner = zip(("y", "x"), registration.shape, strict=True), registration.area or (0, 0)
    places = {name: begin[name] + first + np.arange(size) for (name, size), first in zip(sizes, corner, strict=False)}
    attrs["reference"] = reference
    attrs["grid_top"], attrs["grid_left"] = (int(places[name][0]) for name in ("y", "x"))  # where the blocks begin
    picture, blocks = ("frame", "channel", "y", "x"), ("block_y", "block_x")
    about = {
        "signal": (picture, attrs),
        "variance": (picture, {"units": "electron**2", "long_name": "variance of a pixel's value"}),
        "slope": (picture, {"units": "electron", "long_name": "variance for each electron of light"}),
        "saturated": (picture, {"long_name": "saturated in the raw frame"}),
        "terms": (("frame", "term", "channel", *blocks), {"long_name": "variance terms in blocks"}),
        "place": (("frame", "axis", *blocks), {"units": "pix", "long_name": "blocks in the frame"}),
    }
    data = {name.replace("terms", "noise_terms"): (dims, arrays[name], text) for name, (dims, text) in about.items()}
    coords = {name: kept[name] for name in kept.coords if kept[name].dims == ("frame",)} | places
    coords |= {"channel": channels, "term": list(NOISE_TERMS), "axis": ["x", "y"]}
    coords |= {"scale": ("frame", norm["scale"].values), "weight": (("frame", "channel"), norm["weight"].values)}
    return xr.Dataset(data, coords=coords, attrs=attrs)


def stack(
    lights: xr.Dataset, method: str = "noise", *, low: float | None = None, high: float | None = None
) -> xr.Dataset:
    """Reject what does not belong and average the rest, weighted by the measured noise; lazy.

    Parameters
    ----------
    lights
        What `aligned` gives (all frames, or some: ``.isel(frame=...)``).
    method, low, high
        Rejection: one of `METHODS` and its thresholds.

    Returns
    -------
    Dataset over (channel, y, x), as `open_stack` gives: ``signal`` [e- of the reference]; ``variance`` [e-²] as
    equivalent white noise and its part ``shared_variance`` (see `workbench.stack.normalise`); ``coverage``,
    ``rejected_low``, ``rejected_high``, ``saturated``: samples.

    Raises
    ------
    WorkbenchError
        If the lights are not aligned, or the method is not known.
    """
    rule = rule_of(method, lights.sizes.get("frame", 1), low, high)
    if not isinstance(lights, xr.Dataset) or not {"signal", "slope", "noise_terms", "weight"} <= {*lights.variables}:
        raise WorkbenchError("stack wants lights on one grid: workbench.stack.aligned(lights, registration)")
    channels = [str(name) for name in lights["channel"].values]
    count, height, width = (lights.sizes[name] for name in ("frame", "y", "x"))
    corner = tuple(int(lights[dim][0]) - lights.attrs[name] for dim, name in (("y", "grid_top"), ("x", "grid_left")))
    weight = lights["weight"].transpose("frame", "channel").values
    cubes = [[*_frames_of(lights[name])] for name in ("signal", "slope", "saturated", "noise_terms", "place")]
    if not dask.is_dask_collection(cubes[0][0]):
        cubes = dask.delayed(cubes, pure=False, traverse=False)
    step = max(-(-height // CHUNKS // BAND), 1) * BAND
    edges = sorted({corner[0], corner[0] + height, *range(corner[0] // BAND * BAND + step, corner[0] + height, step)})
    work = dask.delayed(_stack_rows, pure=False)
    pieces = [
        work(cubes, weight, channels, lights.attrs["cfa_pattern"], rule, rows, corner, (height, width))
        for rows in pairwise(edges)
    ]
    shapes = [(len(channels), last - first, width) for first, last in pairwise(edges)]
    counts = np.uint8 if count < 256 else np.uint16
    data: dict[str, Any] = {}
    for place, name in enumerate(("signal", "variance", *_MAPS, "shared_variance")):
        dtype = counts if name in _MAPS else np.float32
        parts = [da.from_delayed(piece[place], shape, dtype) for piece, shape in zip(pieces, shapes, strict=True)]
        data[name] = (("channel", "y", "x"), da.concatenate(parts, axis=1), about_plane(name, "electron"))
    said = f"{count} lights stacked, rejection: {method} ({rule.low:g}, {rule.high:g})"
    return xr.Dataset(data, coords={"channel": channels}, attrs=_stack_attributes(lights, channels, method, said))


def _stack_attributes(lights: xr.Dataset, channels: list[str], method: str, said: str) -> dict[str, Any]:
    exposure = lights["exposure"].values[lights["filename"].values == lights.attrs["reference"]]
    pattern, places, weight = lights.attrs["cfa_pattern"], lights["place"].values, lights["weight"]
    attrs = {
        "units": "electron",
        "stage": "stacked",
        "history": [*attribute_lines(lights.attrs, "history"), said],
        "camera": lights.attrs["camera"],
        "exposure": float(exposure[0]) if exposure.size == 1 else float("nan"),
        "frame_count": lights.sizes["frame"],
        "reference": lights.attrs["reference"],
        "rejection": method,
        "pixel_variance_share": {
            name: pixel_share(name, pattern, places, weight.sel(channel=name).values) for name in channels
        },
        "area_growth": area_growth(
            places, weight.mean("channel").values,
            {name: white_noise(name, pattern, SMALL) / white_noise(name, pattern) for name in channels},
        ),
    }  # fmt: skip
    return plain_attributes(attrs)


def _stack_rows(cubes, weight, channels, pattern, rule, rows, corner, size) -> tuple[np.ndarray, ...]:
    """Stack the rows of aligned frames from ``rows[0]`` on; `corner` and `size` are of what the frames show."""
    pictures = [[_whole(part, 3) for part in frames] for frames in cubes[:3]]
    terms, places = np.stack([_whole(part, 4) for part in cubes[3]]), np.stack([_whole(part, 3) for part in cubes[4]])
    area = (*corner, corner[0] + size[0], corner[1] + size[1])
    width, count = tile_width(*weight.shape), len(weight)
    out = empty_output(len(channels), rows[1] - rows[0], size[1], count)
    shared = np.empty(out.signal.shape, np.float32)
    none, marks = np.empty(0, np.float32), np.empty((0, 2), np.int64)
    columns = (np.arange(size[1]) + corner[1]) // BLOCK
    white = np.array([white_noise(str(name), pattern) for name in channels])
    for number in range(rows[0] // BAND, -(-rows[1] // BAND)):
        begin = max(number * BAND, corner[0]) - rows[0]
        tiles = band_tiles(number, area, width, False, begin)
        noises, common = tile_noise(terms[..., number, :], places[..., number, :], weight, tiles, white, corner[1])
        for tile, noise in zip(tiles, noises, strict=True):
            top, left = tile.top - corner[0], tile.left - corner[1]
            part = np.s_[:, top : top + tile.height, left : left + tile.width]
            values, slopes, reached = (
                np.stack([frame[part] for frame in frames]).astype(dtype, copy=False)
                for frames, dtype in zip(pictures, (np.float32, np.float32, np.uint8), strict=True)
            )
            block = (np.arange(tile.width) - tile.rim_left + tile.phase) // BLOCK
            squares = slopes / noise.alpha[:, :, None, np.clip(block, 0, noise.alpha.shape[2] - 1)]
            saturated = np.any(reached, axis=(1, 2, 3)), reached.reshape(count, -1)
            scratch = Scratch(none, none, none, none, none, marks, *saturated)
            combine_tile(tile, Samples(values, squares, weight), noise, rule, scratch, out)
        band = slice(begin, begin + tiles[0].rows)
        shared[:, band] = shared_variance(common[:, :, None, columns], out.signal[:, band])
    return *out[:6], shared
