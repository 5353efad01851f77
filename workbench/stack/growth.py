"""How the noise falls as frames are added: measured in the sky of real stacks, with what the variance predicts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy import ndimage

from ..core.errors import WorkbenchError
from ..core.statistics import MAD_TO_SIGMA
from .cubes import stack
from .normalise import SHARE
from .pixel import reject_samples

LAG = 8  # [pixels] between the pixels that are compared: farther than resampling makes them alike
BLOCK = 32  # [pixels] of the blocks whose levels measure how much there is to see
_SUBSETS = 4  # of the frames, for each number of them


def noise_against_frames(
    lights: xr.Dataset, *, counts: Sequence[int] | None = None, method: str = "noise", seed: int = 0
) -> xr.Dataset:
    """Stack 1, 2, ... N of the aligned lights and measure each stack's noise, with what its variance predicts.

    The noise is that of single pixels of the starless sky: each against the mean of four pixels 8 pixels away,
    √(Var/1.25), so that a nebula's shape cancels.  For each count several sets of frames are stacked.  What does not
    belong is rejected once, with all frames.

    Parameters
    ----------
    lights
        What `aligned` gives.
    counts
        Numbers of frames; all from 1 on by default, of many frames some twelve.

    Returns
    -------
    Dataset over (channel, count): ``noise`` and ``noise_error`` [e-], ``predicted`` [e-]; ``snr`` and ``snr_error``
    with ``signal`` (channel) [e-]: how much brighter the brightest tenth of the sky's blocks is than the faintest, so
    that the ratio is that of a structure in the picture.

    Raises
    ------
    WorkbenchError
        If there are fewer than two frames, or no starless sky.
    """
    total = lights.sizes["frame"]
    if total < 2:
        raise WorkbenchError("how noise falls with the number of frames takes two frames or more")
    counts = sorted(set(counts)) if counts is not None else _spread(total)
    if not counts or counts[0] < 1 or counts[-1] > total:
        raise WorkbenchError(f"there are {total} frames; the counts asked for are {counts}")
    channels = [str(name) for name in lights["channel"].values]
    shape = (len(channels), len(counts))
    noise, error, predicted = (np.zeros(shape) for _ in range(3))
    signal = np.zeros(len(channels))
    for row, channel in enumerate(channels):
        part = lights[["signal", "variance", "slope"]].sel(channel=[channel]).compute()
        values, variance, slope = (part[name].values for name in ("signal", "variance", "slope"))
        weight = lights["weight"].sel(channel=[channel]).transpose("frame", "channel").values
        flags = reject_samples(values, variance, slope, method)
        deep, _, _ = average(values, variance, flags, weight)
        sky = starless(deep[0], np.isfinite(values[:, 0]).all(axis=0))
        if np.count_nonzero(sky) < 2000:
            raise WorkbenchError("there is too little starless sky in these lights to measure the noise in")
        signal[row] = _contrast(deep[0], sky)
        for column, count in enumerate(counts):
            measured, expected = [], []
            for chosen in _subsets(total, count, seed):
                mean, spread, kept = average(values[chosen], variance[chosen], flags[chosen], weight[chosen])
                good = sky & (kept[0] > 0)
                level, pixels = sky_noise(mean[0], good)
                measured.append(level)
                expected.append(np.sqrt(spread[0][good].mean(dtype=float)))
            noise[row, column] = np.sqrt(np.mean(np.square(measured)))
            predicted[row, column] = np.sqrt(np.mean(np.square(expected)))
            chance = noise[row, column] / np.sqrt(2 * pixels * SHARE[channel] / 2)
            # sets of more than half of the frames have frames in common: their scatter shows less than chance
            error[row, column] = max(chance, np.std(measured) / np.sqrt(max(total // count, 1)))
    e = {"units": "electron"}
    snr = signal[:, None] / noise
    return xr.Dataset(
        {
            "noise": (("channel", "count"), noise, {**e, "long_name": "noise of a pixel of the sky"}),
            "noise_error": (("channel", "count"), error, e),
            "predicted": (("channel", "count"), predicted, {**e, "long_name": "the same, from the variance"}),
            "snr": (("channel", "count"), snr),
            "snr_error": (("channel", "count"), snr * error / noise),
            "signal": ("channel", signal, {**e, "long_name": "brightest less faintest tenth of the sky's blocks"}),
        },
        coords={"channel": channels, "count": list(counts)},
        attrs={"camera": lights.attrs["camera"], "frames": total, "method": method},
    )


def _spread(total: int) -> list[int]:
    if total <= 12:
        return list(range(1, total + 1))
    return sorted({round(float(count)) for count in np.geomspace(1, total, 12)})


def _subsets(total: int, count: int, seed: int) -> list[np.ndarray]:
    """Some sets of so many frames: without frames in common while there are enough, then drawn at random."""
    rng = np.random.default_rng((seed, count))
    order = rng.permutation(total)
    sets = [np.sort(order[at : at + count]) for at in range(0, total - count + 1, count)]
    while len(sets) < _SUBSETS and count < total and len(sets) < total:
        sets.append(np.sort(rng.permutation(total)[:count]))
    return sets[: max(_SUBSETS, total if count == 1 else _SUBSETS)]


def starless(picture: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return where a picture (y, x) shows sky without stars: boolean (y, x), `known` pixels only.

    Stars are what stands more than 4 σ above its surroundings after smoothing by 1.5 pixels, and 5 pixels around that.
    """
    filled = np.where(np.isfinite(picture), picture, np.nanmedian(picture))
    smooth = ndimage.gaussian_filter(filled, 1.5)
    detail = (
        smooth
        - ndimage.median_filter(smooth[::4, ::4], 11, mode="nearest")
        .repeat(4, 0)
        .repeat(4, 1)[: picture.shape[0], : picture.shape[1]]
    )
    spread = MAD_TO_SIGMA * float(np.median(np.abs(detail - np.median(detail))))
    stars = ndimage.binary_dilation(detail - np.median(detail) > 4 * spread, iterations=5)
    return known & ~stars


def sky_noise(picture: np.ndarray, sky: np.ndarray) -> tuple[float, int]:
    """Return the noise of a pixel where there is sky, and from how many pixels it was measured.

    √(Var(p - mean of four pixels `LAG` away)/1.25), what lies beyond 5 σ left out.
    """
    inner = (slice(LAG, -LAG), slice(LAG, -LAG))
    around = np.zeros_like(picture[inner], dtype=float)
    good = sky[inner].copy()
    for dy, dx in ((-LAG, 0), (LAG, 0), (0, -LAG), (0, LAG)):
        there = tuple(slice(LAG + d, size - LAG + d) for d, size in zip((dy, dx), picture.shape, strict=True))
        around += picture[there]
        good &= sky[there]
    d = (picture[inner] - around / 4)[good]
    if d.size < 500:
        raise WorkbenchError("there is too little starless sky in these lights to measure the noise in")
    d = d - np.median(d)
    kept = d[np.abs(d) < 5 * MAD_TO_SIGMA * np.median(np.abs(d))]
    return float(np.sqrt(kept.var() / 1.25)), int(d.size)


def _contrast(picture: np.ndarray, sky: np.ndarray) -> float:
    """Brightest less faintest tenth of the blocks' medians [e-]."""
    rows, columns = (size // BLOCK for size in picture.shape)
    cut = np.where(sky, picture, np.nan)[: rows * BLOCK, : columns * BLOCK]
    blocks = cut.reshape(rows, BLOCK, columns, BLOCK).swapaxes(1, 2).reshape(-1, BLOCK * BLOCK)
    enough = np.isfinite(blocks).mean(axis=1) > 0.2
    levels = np.sort(np.nanmedian(blocks[enough], axis=1))
    tenth = max(levels.size // 10, 1)
    return float(levels[-tenth:].mean() - levels[:tenth].mean())


def before_after(lights: xr.Dataset, *, piece: tuple[int, int] = (240, 360), method: str = "noise") -> xr.Dataset:
    """Return a piece of one light and of the stack of all, and the noise of a pixel in both.

    Parameters
    ----------
    lights
        What `aligned` gives.
    piece
        (rows, columns) about the middle.
    method
        Rejection.

    Returns
    -------
    Dataset of ``light`` and ``stack`` (y, x) [e-], green or mono; attributes ``frames``, ``channel``, ``light_noise``
    and ``stack_noise`` [e-].
    """
    channel = "G" if "G" in lights["channel"].values else str(lights["channel"].values[0])
    same = np.flatnonzero(lights["filename"].values == lights.attrs["reference"])
    one = lights["signal"].isel(frame=int(same[0]) if same.size else 0).sel(channel=channel).values
    deep = stack(lights.sel(channel=[channel]), method)["signal"].values[0]
    sky = starless(deep, (abs(lights["signal"].sel(channel=channel)) < np.inf).all("frame").values)
    noise = [sky_noise(part, sky & np.isfinite(part))[0] for part in (one, deep)]
    rows, columns = (
        slice((size - min(size, wanted)) // 2, (size + min(size, wanted)) // 2)
        for size, wanted in zip(one.shape, piece, strict=True)
    )
    e = {"units": "electron"}
    return xr.Dataset(
        {"light": (("y", "x"), one[rows, columns], e), "stack": (("y", "x"), deep[rows, columns], e)},
        coords={"y": np.arange(rows.start, rows.stop), "x": np.arange(columns.start, columns.stop)},
        attrs={
            "frames": lights.sizes["frame"],
            "channel": channel,
            "light_noise": noise[0],
            "stack_noise": noise[1],
            "camera": lights.attrs["camera"],
        },
    )


def average(
    values: np.ndarray, variance: np.ndarray, flags: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the weighted mean of the samples kept, a pixel's variance, and how many they are; NaN where none is.

    Parameters
    ----------
    values, variance, flags
        (frame, channel, y, x); a flag other than zero leaves a sample out.
    weight
        (frame, channel).
    """
    weight = np.asarray(weight, np.float32)[:, :, None, None]
    total, mean, noise = (np.zeros(values.shape[1:], np.float32) for _ in range(3))
    count = np.zeros(values.shape[1:], np.int64)
    for value, spread, flag, w in zip(values, variance, flags, weight, strict=True):  # a frame at a time stays in cache
        kept = np.isfinite(value) & (flag == 0)
        of_frame = w * kept
        count += kept
        total += of_frame
        mean += of_frame * np.where(kept, value, 0)
        noise += of_frame * of_frame * np.where(kept, spread, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return mean / total, noise / total**2, count
