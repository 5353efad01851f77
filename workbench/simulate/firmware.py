"""What the camera's firmware does to the numbers before it saves them, and the file it writes.

The *patched* firmware saves what the converter gave.  The *stock* firmware of the D7000 subtracts the black
level, clips at zero and multiplies red and blue, so that the read noise is cut in half, some codes never
occur, and a gain measured by photon transfer comes out too low.

Other things that cameras do, to be put between `sensor.expose` and saving: `smooth` the noise, `remove_hot_pixels`,
`compress` bright codes, and a readout that adds `row_noise`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr
from scipy.ndimage import maximum_filter

from ..core.cube import channels_of, make_cube
from ..core.errors import WorkbenchError
from ..core.mosaic import channel_index, planes, put_plane, spread
from ..ingest.dng import DngMetadata, write_dng
from .sensor import VirtualSensor

# Real D7000 frames: red codes are missing every 9.2 ADU and blue ones every 7.2, m = s/(s - 1).
STOCK_MULTIPLIERS: Mapping[str, float] = MappingProxyType({"R": 1.12, "G1": 1.0, "G2": 1.0, "B": 1.16})
FIRMWARES = ("patched", "stock")
MAKE = "NIKON CORPORATION"
SOFTWARE = "Astrophoto Workbench virtual camera"
# XYZ (D65) to camera colours of the D7000, as Adobe's DNG Converter and dcraw have it.
COLOR_MATRIX = (0.8198, -0.2239, -0.0724, -0.4871, 1.2389, 0.2798, -0.1043, 0.2050, 0.7181)
# What that matrix makes of white: its product with XYZ of linear sRGB white, relative to green, inverted.
DAYLIGHT = (2.268, 1.0, 1.217)


def stock(mosaic: np.ndarray, sensor: VirtualSensor) -> np.ndarray:
    """Return what the stock firmware saves of a frame as `sensor.expose` gives it, uint16 (y, x) [ADU].

    min(round(m · max(y - black level, 0)), white level) with the multiplier m of each colour
    (`STOCK_MULTIPLIERS`).  Codes go missing every m/(m - 1): 9.3 in red, 7.25 in blue.  Green saturates lower,
    at white level less black level.

    Examples
    --------
    >>> from workbench.simulate import d7000
    >>> stock(np.array([[598, 610], [601, 700]], "uint16"), d7000(shape=(2, 2)))
    array([[  0,  10],
           [  1, 116]], dtype=uint16)
    """
    signal = np.maximum(mosaic.astype(np.int32) - round(sensor.black_level), 0)
    multipliers = [STOCK_MULTIPLIERS.get(channel, 1.0) for channel in channels_of(sensor.cfa_pattern)]
    saved = np.rint(signal * spread(np.array(multipliers), channel_index(sensor.cfa_pattern), signal.shape))
    return np.minimum(saved, sensor.white_level).astype(np.uint16)


def smooth(mosaic: np.ndarray, sensor: VirtualSensor, share: float = 0.1) -> np.ndarray:
    """Return a frame whose noise the camera has filtered: each pixel with `share` of it from each of four neighbours.

    The neighbours are the nearest of the same colour.  Noise falls by √((1 − 4a)² + 4a²) for a share a and becomes
    alike in neighbours, by 2a(1 − 4a) of the variance; the mean stays.

    Raises
    ------
    WorkbenchError
        If the share is not from 0 to 0.25.
    """
    if not 0 <= share <= 0.25:
        raise WorkbenchError(f"the share of each of the four neighbours is from 0 to 0.25, not {share}")
    reach = channel_index(sensor.cfa_pattern).shape[0]
    padded = np.pad(mosaic.astype(float), reach, mode="reflect")
    inner = slice(reach, -reach)
    around = padded[: -2 * reach, inner] + padded[2 * reach :, inner]
    around += padded[inner, : -2 * reach] + padded[inner, 2 * reach :]
    return np.rint((1 - 4 * share) * padded[inner, inner] + share * around).astype(np.uint16)


def remove_hot_pixels(mosaic: np.ndarray, sensor: VirtualSensor, margin: float = 0.0) -> np.ndarray:
    """Return a frame after a "star eater": a pixel above all its eight neighbours of one colour becomes their maximum.

    Only where it exceeds them by more than `margin` [ADU].  That is what M. Shelley found Nikons to do.

    Examples
    --------
    >>> from workbench.simulate import d7000
    >>> frame = np.full((6, 6), 600, "uint16")
    >>> frame[2, 2] = 5000
    >>> int(remove_hot_pixels(frame, d7000(shape=(6, 6))).max())
    600
    """
    cleaned = mosaic.copy()
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    cell = channel_index(sensor.cfa_pattern)
    for channel, plane in planes(mosaic, cell):
        highest = maximum_filter(plane, footprint=ring, mode="reflect")
        put_plane(cleaned, cell, channel, np.where(plane > highest + margin, highest, plane))
    return cleaned


def row_noise(mosaic: np.ndarray, sensor: VirtualSensor, sigma: float, seed: int | tuple[int, ...]) -> np.ndarray:
    """Return a frame with an offset of its own added to every row, Normal(0, `sigma` [ADU]): banding."""
    rng = np.random.default_rng(seed)
    shifted = mosaic + sigma * rng.standard_normal((mosaic.shape[0], 1))
    return np.clip(np.rint(shifted), 0, sensor.white_level).astype(np.uint16)


def compress(mosaic: np.ndarray, sensor: VirtualSensor, first: int = 1024) -> np.ndarray:
    """Return a frame after lossy compression: steps of 1 ADU up to `first` above the black level, doubling each octave.

    A staircase of the square root's kind, as cameras use, in which a step stays well below the shot noise.
    """
    signal = np.maximum(mosaic.astype(np.int64) - round(sensor.black_level), 0)
    step = 2 ** np.maximum(np.frexp(signal / first)[1], 0)
    kept = signal // step * step + step // 2
    saved = np.where(mosaic > sensor.black_level, kept + round(sensor.black_level), mosaic)
    return np.minimum(saved, sensor.white_level).astype(np.uint16)


def save_frame(
    path: str | Path, mosaic: np.ndarray, sensor: VirtualSensor, *, firmware: str = "patched", compressed: bool = False,
    **setting: Any,
) -> Path:  # fmt: skip
    """Save a frame as the camera would: a CFA DNG with EXIF, whose camera is called simulated.

    Parameters
    ----------
    path
        The file to write.
    mosaic, sensor
        What `expose` gave, and the camera that gave it.
    firmware
        ``patched`` saves the numbers untouched; ``stock`` as `stock` changes them, with a black level of zero.
    compressed
        As for `workbench.ingest.dng.write_dng`.
    **setting
        ``iso``, ``exposure`` [s], ``temperature`` [°C], ``time``, ``aperture``: see `DngMetadata`.

    Raises
    ------
    WorkbenchError
        If the firmware is not known.
    """
    if firmware not in FIRMWARES:
        raise WorkbenchError(f"firmware {firmware!r} is not known; choose {' or '.join(FIRMWARES)}")
    black, white = sensor.black_level, sensor.white_level
    if firmware == "stock":
        mosaic = stock(mosaic, sensor)
        # green, which is not multiplied, ends here; real D7000s end between 15,778 and 16,383 by channel
        black, white = 0.0, white - round(black)
    metadata = DngMetadata(
        cfa_pattern=sensor.cfa_pattern,
        black_level=black,
        white_level=white,
        make=MAKE,
        model=sensor.camera,
        software=SOFTWARE,
        color_matrix=COLOR_MATRIX,
        daylight_multipliers=DAYLIGHT,
        **setting,
    )
    return write_dng(path, mosaic, metadata, compressed=compressed)


def cube_of(sensor: VirtualSensor, mosaics: Sequence[np.ndarray], kind: str, **setting: Any) -> xr.DataArray:
    """Return mosaics of one kind as the raw cube (frame, y, x) that reading their files would give.

    The `setting` holds coordinates of `make_cube`, one value for all frames or one each: ``iso``, ``exposure`` [s],
    ``temperature`` [°C], ``filename``, ...

    Examples
    --------
    >>> from workbench.simulate import d7000, expose
    >>> camera = d7000(seed=1, shape=(64, 96))
    >>> bias = [expose(camera, iso=100, exposure=0, seed=n) for n in range(3)]
    >>> cube_of(camera, bias, "bias", iso=100, exposure=0).sizes["frame"]
    3
    """
    names = [f"{kind}_{number:02d}.dng" for number in range(len(mosaics))]
    camera = {"cfa_pattern": sensor.cfa_pattern, "camera": sensor.camera}
    levels = {"black_level": sensor.black_level, "white_level": sensor.white_level}
    return make_cube(np.stack(mosaics), kind=kind, **{"filename": names, **camera, **levels, **setting})
