"""Notebook 07: firmware that alters raw frames, and what it leaves behind in their numbers."""

from __future__ import annotations

from collections.abc import Callable

import dask.array as da
import holoviews as hv
import numpy as np
import xarray as xr

from workbench import charts
from workbench.core.cube import add_history, black_levels
from workbench.core.errors import WorkbenchError
from workbench.fidelity.codes import count_codes, missing_codes
from workbench.fidelity.texture import hot_pixel_filter, noise_texture
from workbench.simulate import firmware
from workbench.simulate.sensor import VirtualSensor


def _multiply(frame: np.ndarray, camera: VirtualSensor, factor: float) -> np.ndarray:
    """Multiply the red signal above the black level, as cameras that prepare the white balance do."""
    saved = frame.astype(float)
    row, column = divmod(camera.cfa_pattern.index("R"), 2) if camera.cfa_pattern != "mono" else (0, 0)
    step = 1 if camera.cfa_pattern == "mono" else 2
    part = saved[row::step, column::step] - camera.black_level
    saved[row::step, column::step] = np.rint(part * factor) + round(camera.black_level)
    return np.clip(saved, 0, camera.white_level).astype(np.uint16)


FIRMWARES: dict[str, Callable[[np.ndarray, VirtualSensor, float], np.ndarray]] = {
    "untouched": lambda frame, camera, _: frame,
    "red multiplied": _multiply,
    "noise filtered": firmware.smooth,
    "hot pixels removed": firmware.remove_hot_pixels,
}


def simulate_firmware(cube: xr.DataArray, how: str, strength: float = 1.0) -> xr.DataArray:
    """Return frames as a camera with this firmware would have saved them; the input is not changed.

    Parameters
    ----------
    cube
        Raw frames (frame, y, x).
    how
        One of `FIRMWARES`: ``untouched``; ``red multiplied`` by `strength`; ``noise filtered``, `strength` being the
        share of each of four neighbours; ``hot pixels removed`` that exceed their neighbours by `strength` [ADU].

    Raises
    ------
    WorkbenchError
        If the firmware is unknown.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> cube = make_cube(np.full((1, 4, 4), 1600, "uint16"), cfa_pattern="RGGB", kind="flat", black_level=600,
    ...                  white_level=16383)
    >>> simulate_firmware(cube, "red multiplied", 1.12).values[0, :2, :2]
    array([[1720, 1600],
           [1600, 1600]], dtype=uint16)
    """
    if how not in FIRMWARES:
        raise WorkbenchError(f"unknown firmware {how!r}; choose one of {', '.join(FIRMWARES)}")
    black = black_levels(cube.attrs)
    camera = VirtualSensor(
        shape=(cube.sizes["y"] // 2 * 2, cube.sizes["x"] // 2 * 2),
        cfa_pattern=cube.attrs["cfa_pattern"],
        black_level=float(np.nan_to_num(black).mean()),
        white_level=int(cube.attrs["white_level"]) if np.isfinite(cube.attrs["white_level"]) else 16383,
    )

    def saved(block: np.ndarray) -> np.ndarray:
        return np.stack([FIRMWARES[how](frame, camera, strength) for frame in block])

    lazy = cube.data if isinstance(cube.data, da.Array) else da.from_array(cube.data, chunks=(1, -1, -1))
    data = lazy.rechunk({1: -1, 2: -1}).map_blocks(saved, dtype=np.uint16)
    altered = cube.copy(data=data)
    return add_history(altered, f"simulated firmware: {how}, {strength:g}")


def codes_after_multiplying(cube: xr.DataArray, multiplier: float = 1.0) -> hv.Layout:
    """Chart which numbers occur in frames after red has been multiplied."""
    codes = count_codes(simulate_firmware(cube, "red multiplied", multiplier), progress=False)
    return charts.missing_codes(codes, missing_codes(codes))


def noise_after_filtering(cube: xr.DataArray, share: float = 0.0) -> hv.Layout:
    """Chart the noise of rows and columns and the correlation of neighbours, after a filter of that strength."""
    return charts.noise_spectrum(noise_texture(simulate_firmware(cube, "noise filtered", share), progress=False))


def hot_pixels_after_filtering(dark: xr.DataArray, filtered: bool = False) -> hv.Layout:
    """Chart whether bright pixels stand alone in a dark, without or with a filter that removes them."""
    how = "hot pixels removed" if filtered else "untouched"
    return charts.hot_pixel_filter(hot_pixel_filter(simulate_firmware(dark, how, 0.0)))
