"""How many frames does a master need?  Its noise against their number, and what that adds to the lights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import xarray as xr

from ..core.cube import channels_of
from ..core.errors import WorkbenchError
from ..core.mosaic import channel_index
from .masters import master_bias, master_dark, master_flat
from .noise import SensorNoise


def master_noise(
    cube: xr.DataArray,
    bias: xr.Dataset | None = None,
    noise: SensorNoise | None = None,
    *,
    counts: Sequence[int] | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Make masters of 1, 2, 4 ... frames and measure their noise, beside σ/√N and what the masters claim.

    The noise is measured between two masters that have no frame in common: σ = SD(A - B)/√2, which holds nothing
    of the fixed pattern; so N goes up to half of the frames.  What lies beyond 5 σ (unstable pixels) is left out.

    Parameters
    ----------
    cube
        Bias, dark or flat frames, all of one setting, as read.
    bias, noise
        As for `master_dark` and `master_flat`.
    counts
        Numbers of frames in a master; 1, 2, 4 ... by default.

    Returns
    -------
    Dataset over (channel, count): ``noise`` and ``noise_error``, ``claimed``, the root of the median variance that the
    masters carry, and ``law``, the noise of one frame over √N; ADU, of flats relative.

    Raises
    ------
    WorkbenchError
        If there are fewer than two frames, or the counts do not leave two masters.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> frames = np.random.default_rng(1).normal(600, 4, (8, 64, 64)).round().astype("uint16")
    >>> found = master_noise(make_cube(frames, cfa_pattern="RGGB", kind="bias", iso=100), progress=False)
    >>> found["count"].values.tolist(), found.noise.mean("channel").values.round(1).tolist()
    ([1, 2, 4], [4.0, 2.8, 2.0])
    """
    total = cube.sizes["frame"]
    if total < 2:
        raise WorkbenchError("the noise of a master shows between two of them: give two frames or more")
    if counts is None:
        counts = [2**k for k in range(int(math.log2(total // 2)) + 1)]
    counts = sorted({int(count) for count in counts})
    if counts[0] < 1 or 2 * counts[-1] > total:
        raise WorkbenchError(
            f"two masters without a frame in common want 2 N frames; of {total} N is at most {total // 2}"
        )
    kind = str(cube["kind"].values[0])

    def master(numbers: slice) -> xr.Dataset:
        part = cube.isel(frame=numbers)
        if kind == "bias":
            return master_bias(part, noise, progress=progress)
        if kind == "flat":
            return master_flat(part, None, bias, noise, progress=progress)
        return master_dark(part, bias, noise, progress=progress)

    cell = channel_index(cube.attrs["cfa_pattern"])
    names = channels_of(cube.attrs["cfa_pattern"])
    shape = (len(names), len(counts))
    found, error, claimed = (np.zeros(shape) for _ in range(3))
    for column, count in enumerate(counts):
        pairs = min(total // (2 * count), 2)
        for pair in range(pairs):
            first, second = (master(slice((2 * pair + k) * count, (2 * pair + k + 1) * count)) for k in (0, 1))
            difference = (first["signal"].values - second["signal"].values).astype(float)
            for (row, place), channel in np.ndenumerate(cell):
                part = (slice(row, None, cell.shape[0]), slice(place, None, cell.shape[1]))
                d = difference[part]
                d = d[np.isfinite(d)]
                d = d - np.median(d)
                spread = 1.4826 * np.median(np.abs(d)) or d.std()
                d = d[np.abs(d) <= 5 * spread]
                found[channel, column] += d.var() / 2 / pairs
                claimed[channel, column] += float(np.nanmedian(first["variance"].values[part])) / pairs
                error[channel, column] = 1 / math.sqrt(2 * d.size * pairs)
    found, claimed = np.sqrt(found), np.sqrt(claimed)
    unit = {"units": "1" if kind == "flat" else "adu"}
    law = found[:, :1] * np.sqrt(counts[0] / np.array(counts))
    return xr.Dataset(
        {
            "noise": (("channel", "count"), found, {**unit, "long_name": f"noise of a master {kind}"}),
            "noise_error": (("channel", "count"), error * found, unit),
            "claimed": (("channel", "count"), claimed, {**unit, "long_name": "what the master's variance says"}),
            "law": (("channel", "count"), law, {**unit, "long_name": "noise of one frame over √N"}),
        },
        coords={"channel": list(names), "count": counts},
        attrs={"kind": kind, "frames": total, "camera": cube.attrs["camera"]},
    )


def added_noise(
    one: float | np.ndarray, light: float, frames: int | np.ndarray, *, lights: int = 1, dithered: bool = True
) -> float | np.ndarray:
    """Return by what part a master of so many frames raises the noise of a stack: √(1 + c σ²/(N σ_L²)) - 1.

    σ is the noise of one of its frames, σ_L that of one light.  A master's noise is the same in every light: in a
    stack of L lights that see each star on the same pixels it does not average, c = L; dithered, it does, c = 1.

    Parameters
    ----------
    one, light
        Noise of one calibration frame and of one light, in the same unit.
    frames
        In the master.
    lights
        In the stack.
    dithered
        Whether the lights were shifted by some pixels from frame to frame.

    Examples
    --------
    >>> [f"{added_noise(3.0, 15.0, 16, lights=64, dithered=dithered):.3%}" for dithered in (True, False)]
    ['0.125%', '7.703%']
    """
    share = 1 if dithered else lights
    return np.sqrt(1 + share * np.square(one) / (np.asarray(frames, float) * light**2)) - 1


def frames_needed(one: float, light: float, *, added: float = 0.05, lights: int = 1, dithered: bool = True) -> int:
    """Return how many frames a master needs so that it adds no more than this part to a stack's noise.

    Raises
    ------
    WorkbenchError
        If a number that must be positive is not.

    Examples
    --------
    >>> frames_needed(12.0, 15.0), frames_needed(12.0, 15.0, lights=20, dithered=False)
    (7, 125)
    """
    if not (one > 0 and light > 0 and added > 0 and lights >= 1):
        raise WorkbenchError(
            f"noise, light and what may be added are positive; got {one:g}, {light:g}, {added:g} and {lights} lights"
        )
    share = 1 if dithered else lights
    return max(1, math.ceil(share * one**2 / (light**2 * ((1 + added) ** 2 - 1)) - 1e-9))
