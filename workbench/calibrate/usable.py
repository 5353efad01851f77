"""Which frames can be used: where they saturate, which differ from the others, whether the flats' lamp flickers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from ..core.cube import evenly
from ..core.errors import FrameReadError
from ..core.mosaic import of_planes, planes
from ..core.parallel import FRAME_BYTES, compute_frame, in_threads, lazy_frames
from ..core.statistics import odd_frames
from .bands import Frames

_MULTIPLIED = 0.35  # of ln: numbers that were halved or doubled have about half or twice their light's variance
_FLICKER = 0.002  # of the light, from row to row: more than pixels differ by in the mean of a few frames
_CERTAIN = 6.0  # σ of it
_CALM = 0.9  # of the scatter² of the noise model: less, and a part of the darks' signal is none
_ABOVE_THE_END = 0.01  # of all samples: above a level where one frame's values pile up


def saturation_level(light: xr.DataArray) -> float:
    """Return the level [ADU] at which lights saturate: the white level, or where values pile up below; inf if unknown.

    Looked for in three frames, plane by plane (`piled_level`).  Some cameras saturate below the level they state.
    """
    white = light.attrs["white_level"]
    level = float(white) if math.isfinite(white) else math.inf
    for frame in sampled_lights(light, 3):
        level = min([level, *of_planes(piled_level, frame, light.attrs["cfa_pattern"])])
    return level


def piled_level(plane: np.ndarray) -> float:
    """Return the greatest value of a plane [ADU] if values pile up there, as a converter's end makes them; else inf.

    They do where at least eight pixels have it and four times as many as the eight codes below it together.

    Examples
    --------
    >>> values = 16 * np.random.default_rng(1).poisson(1000, 4000)  # 12 bits in 16
    >>> piled_level(values), piled_level(np.minimum(values, 16000))
    (inf, 16000.0)
    """
    whole = plane.dtype.kind in "iu"
    top = plane.max() if whole else np.nanmax(plane, initial=-np.inf)
    if not np.isfinite(top):
        return math.inf
    if (piled := np.count_nonzero(plane == top)) < 8:
        return math.inf
    step = max(int(np.gcd.reduce(plane.ravel()[::7])), 1) if whole else 1
    below = np.count_nonzero(plane >= top.item() - 8 * step) - piled
    return float(top) if piled > 4 * below else math.inf


def frames_saturate_at(frames: Frames, white: float) -> float:
    """Return the level [ADU] at which frames saturate: the white level, or where values of a frame pile up below."""
    level = math.inf if math.isnan(white) else float(white)
    _, rows = frames.sampled_rows()
    for _, plane in planes(rows, frames.cell):
        for found in map(piled_level, plane):  # nothing lies above a converter's end, in no frame
            if found < level and (plane > found).mean() < _ABOVE_THE_END:
                level = found
    return level


def sampled_lights(light: xr.DataArray, most: int) -> Iterator[np.ndarray]:
    """Yield frames (y, x) spread over a cube, except what cannot be read: the work on the lights reports that."""
    frames = lazy_frames(light)

    def read(number: int) -> np.ndarray | None:
        with contextlib.suppress(FrameReadError):
            return compute_frame({}, frames[number])
        return None

    found = in_threads(read, evenly(len(frames), most), each=FRAME_BYTES)
    return (frame for frame in found if frame is not None)


@contextlib.contextmanager
def frames_alike(cube: xr.DataArray, *, scratch: str | Path | None, progress: bool) -> Iterator[Frames]:
    """Open the frames of a cube without the odd ones, which are among the `dropped`."""
    with Frames(cube, scratch=scratch, progress=progress) as frames:
        leave_out_odd(frames)
        yield frames


def flats_alike(frames: Frames, means: np.ndarray, pedestal: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Leave out flats that are odd, or whose noise is not that of their light; returns the `means` of the others.

    Parameters
    ----------
    means
        Light of each frame and channel [ADU].
    pedestal
        The flats' offset (y, x) [ADU].
    base
        Their variance without light, of each channel [ADU²].
    """
    means = means[leave_out_odd(frames, pedestal)]
    return means[_leave_out_multiplied(frames, pedestal, means.mean(axis=0) / means, base)]


def leave_out_odd(frames: Frames, pedestal: np.ndarray | None = None) -> list[int]:
    """Leave out the `odd_frames`, by the sampled rows; returns the places of the others.

    Flats are compared by their light above the `pedestal` (y, x) [ADU]: with it, a faint one would seem lit otherwise.
    """
    count, kind = len(frames), str(frames.cube["kind"].values[0])
    where, rows = frames.sampled_rows()
    grounds = None if pedestal is None else (plane.ravel() for _, plane in planes(pedestal[where], frames.cell))
    samples = (plane.reshape(count, -1) for _, plane in planes(rows, frames.cell))
    return _leave_out(frames, odd_frames(samples, kind, grounds))


def _leave_out(frames: Frames, odd: Mapping[int, str]) -> list[int]:
    """Leave out frames, each for a reason; returns the places of the others."""
    stay = [number for number in range(len(frames)) if number not in odd]
    for number, words in odd.items():
        name = str(frames.cube["filename"].values[frames.kept[number]]) or f"frame {frames.kept[number]}"
        frames.dropped.append((name, f"{words}; look at it"))
    frames.leave_out(list(odd))
    return stay


def _leave_out_multiplied(frames: Frames, pedestal: np.ndarray, scale: np.ndarray, base: np.ndarray) -> list[int]:
    """Leave out flats whose noise is not that of their light; returns the places of the others.

    Numbers that were halved or doubled have half the light or twice as much, but a quarter or four times the variance.
    Of a flat brought to one level by s the variance is a s² + b x s; that of n frames' deviations from their mean is
    (1 − 2/n) σ² + Σσ²/n².  Of differences of neighbours, so that light that moves counts for nothing.  `scale` is s of
    each frame and channel, `base` a.
    """
    count, shares, pixels = len(frames), [], 0
    where, rows = frames.sampled_rows()
    grounds = planes(pedestal[where], frames.cell)
    for (channel, plane), (_, ground) in zip(planes(rows, frames.cell), grounds, strict=True):
        if count < 3 or plane.ndim < 3:  # of X-Trans no neighbours
            return list(range(count))
        s = scale[:, channel]
        light = (plane.astype(np.float32) - ground) * s[:, None, None].astype(np.float32)
        away = np.diff(light, axis=2)
        square = np.square(away - away.mean(axis=0)).reshape(count, -1) / 2
        square = np.minimum(square, 36 * square.mean(axis=1, keepdims=True)).mean(axis=1)
        pixels += away[0].size
        own = (square - square.sum() / (count * (count - 1))) / (1 - 2 / count)
        shares.append((own - base[channel] * s**2) / s)
    usual = [np.median(one) for one in shares]
    share = np.maximum(np.mean([one / max(most, 1e-9) for one, most in zip(shares, usual, strict=True)], axis=0), 1e-9)
    doubt = math.sqrt(3 / max(pixels, 1)) / (1 - 2 / count)
    odd = np.flatnonzero(np.abs(np.log(share)) > max(_MULTIPLIED, 6 * doubt))
    if 2 * odd.size >= count or min(usual) <= 0:
        return list(range(count))
    words = "has {:.2g} times the noise that its light makes, by the other flats; are its numbers multiplied"
    return _leave_out(frames, {int(number): words.format(np.sqrt(share[number])) for number in odd})


def flicker(frames: Frames, pedestal: np.ndarray) -> tuple[float, float]:
    """Return by how much rows of flats are brighter or darker, otherwise in each frame (rms share), and how many σ.

    Both halves of a row have the lamp's light in common and noise of their own: the share's square is the mean product
    of what they are off.  Compared is with the mean of all frames, a curve of second order in each frame taken off, as
    twilight makes; (0, 0) of fewer than three frames or 24 rows.

    Parameters
    ----------
    frames
        Flats.
    pedestal
        Their offset (y, x) [ADU].
    """
    where, rows = frames.sampled_rows()
    ground, (count, height, width) = pedestal[where], rows.shape

    def mean(half: slice) -> np.ndarray:
        return (rows[..., half].astype(np.float32) - ground[:, half]).mean(axis=2, dtype=float)

    halves = np.stack(list(in_threads(mean, (slice(width // 2), slice(width // 2, None)))))
    if count < 3 or height < 24 or not (halves > 0).all():
        return 0.0, 0.0
    off = np.log(halves) - np.log(halves).mean(axis=1, keepdims=True)
    parity = np.asarray(where) % frames.cell.shape[0]
    y = np.linspace(-1, 1, height)
    terms = np.stack([y, y**2, *(parity == number for number in np.unique(parity))]).astype(float)
    off -= off @ np.linalg.pinv(terms) @ terms
    freedom = (count - 1) * (height - len(terms))
    square = float((off[0] * off[1]).sum() / freedom)
    error = float(np.sqrt(np.square(off[0]).sum() * np.square(off[1]).sum() / freedom**3))
    return float(np.sqrt(max(square, 0.0))), square / max(error, 1e-300)


def flicker_warning(frames: Frames, pedestal: np.ndarray) -> list[str]:
    """Return a warning where the lamp flickers from row to row."""
    share, certainty = flicker(frames, pedestal)
    if share < _FLICKER or certainty < _CERTAIN:
        return []
    return [
        f"the light of the flats flickers: rows are brighter or darker by {share:.1%}, otherwise in each flat, and "
        f"{share / math.sqrt(len(frames)):.2%} of it stays in the master; expose for a tenth of a second or longer, or "
        "use a lamp that runs on neither the mains nor a dimmer"
    ]


def offset_warning(chi2: np.ndarray, model: np.ndarray, above: np.ndarray) -> list[str]:
    """Return a warning where darks stand above the bias frames, and scatter too little for that to be dark signal.

    Of the variance a + b D of a frame (`model`, (channel, 2)) at the level D (`above`) [ADU] the share `chi2` is there:
    (1 - χ²)(a/b + D) of D is an offset.
    """
    if (chi2 > _CALM).any() or not (model[:, 1] > 0).all() or not (above > 0).all():
        return []
    silent = float(((1 - chi2) * (model[:, 0] / model[:, 1] + above)).mean())
    if silent > 1.3 * above.mean():  # the noise model is wrong otherwise
        return []
    return [
        f"the darks lie {above.mean():.3g} ADU above the bias frames, and some {silent:.2g} ADU of it have not the "
        "noise of a dark signal: darks and bias frames are of different offset settings, or the black level rises with "
        "the exposure; the sky of the lights is off by as much"
    ]
