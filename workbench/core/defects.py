"""Defects of a sensor: their kinds, the one finder of them, and the map of them as a FITS file."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from astropy.io import fits
from scipy.special import chdtri

from .errors import FrameReadError, WorkbenchError
from .files import whole_file
from .fits_cards import put_seal, require_sealed, seal
from .kernels import kernel
from .mosaic import channel_count, channel_index, planes, put_plane
from .parallel import in_threads
from .statistics import even_sample, mad_std

HOT, WARM, DEAD, UNSTABLE = 1, 2, 4, 8
KINDS = {"hot": HOT, "warm": WARM, "dead": DEAD, "unstable": UNSTABLE}
FILLED = HOT | DEAD | UNSTABLE  # of a warm pixel only the noise is higher: it is subtracted and its variance shows it
FEWEST = 3  # frames whose scatter shows an unstable pixel
_CHANCE = 0.01  # ordinary pixels flagged unstable by chance, in a whole sensor
_SAMPLE = 400_000  # pixels of a plane whose median is known to a thousandth of their spread


class Thresholds(NamedTuple):
    """Where a pixel counts as a defect; what each kind means: `flag_defects`."""

    hot_noise: float = 2.0  # the noise of a dark with the pixel's own dark shot noise, over that of its neighbours
    warm_sigmas: float = 8.0  # [robust standard deviations] of its dark signal above its plane's
    dead_response: float = 0.7  # of its neighbours' response to light, or its inverse
    unstable_excess: float = 2.5  # its variance over the noise model's


class UnlitFrames(NamedTuple):
    """What equal frames without light show of each pixel, in any one unit u of signal and unit v of noise.

    `signal` (y, x) [u], NaN where saturated, and saturated from `saturation` [u] on; `ordinary` (channel,) [v²]: the
    variance of an ordinary pixel in one frame, NaN where unknown; `shot` (channel,) [v²/u]: what a unit of signal adds
    to it, 0 where unknown; `variance` (y, x) [v²]: of each pixel in one frame, None where not measured; `frames`:
    how many, one number or (y, x).
    """

    signal: np.ndarray
    ordinary: np.ndarray
    shot: np.ndarray
    variance: np.ndarray | None = None
    frames: int | np.ndarray = 0
    saturation: float = math.inf


def flag_defects(
    pattern: str,
    *,
    dark: UnlitFrames | None = None,
    steady: UnlitFrames | None = None,
    response: np.ndarray | None = None,
    thresholds: Thresholds | None = None,
    **attrs: object,
) -> xr.DataArray:
    """Return the defects that frames show, uint8 (y, x) with the bits of `KINDS`.

    ========  ==========================================================================================
    hot       excess dark signal d with σ² + s d > hot_noise² σ², σ² the variance of an ordinary pixel in one dark, s
              what a unit of signal adds to it; saturated pixels are hot
    warm      excess dark signal above warm_sigmas robust standard deviations (1.4826 MAD) of its CFA plane
    dead      response below dead_response of the median of its 24 nearest of the same plane, or above its inverse
    unstable  variance across frames more than unstable_excess times σ² + s d, and not by chance (χ², one ordinary pixel
              in a hundred sensors); random-telegraph pixels are
    ========  ==========================================================================================

    A kind that these frames cannot show is not in the counts.

    Parameters
    ----------
    pattern
        CFA pattern of the frames.
    dark
        Darks, for hot and warm pixels.  Where their shot noise is not known the scatter of their frames is used.
    steady
        Frames that repeat (bias frames or darks), for unstable pixels.
    response
        Response to light (y, x) in any unit: a flat, for dead pixels.
    thresholds
        `Thresholds()` by default.
    attrs
        Written into the attributes of the map.

    Raises
    ------
    WorkbenchError
        If nothing is given, or the sizes differ.

    Examples
    --------
    >>> signal = np.random.default_rng(1).normal(100, 3, (40, 60))
    >>> signal[3, 4], signal[20, 30] = 900, 200
    >>> dark = UnlitFrames(signal, ordinary=np.full(4, 109.0), shot=np.ones(4))  # [e-], read noise 3 e-
    >>> flag_defects("RGGB", dark=dark).attrs["counts"]
    {'hot': 1, 'warm': 2}
    """
    thresholds = thresholds or Thresholds()
    maps = [response, *(frames.signal for frames in (dark, steady) if frames is not None)]
    shapes = {tuple(values.shape) for values in maps if values is not None}
    if len(shapes) != 1:
        given = " and ".join(map(str, sorted(shapes))) or "nothing"
        raise WorkbenchError(f"defects are found in darks, flats and bias frames of one size; given: {given}")
    if steady is not None and (steady.variance is None or np.max(steady.frames) < FEWEST):
        steady = None
    kinds = {
        "warm": dark is not None,
        "hot": dark is not None and bool(np.isfinite(dark.ordinary).any()),
        "dead": response is not None,
        "unstable": steady is not None,
    }
    shown = [kind for kind, known in kinds.items() if known]
    flags = np.zeros(shapes.pop(), np.uint8)
    cell = channel_index(pattern)

    def flag(channel: int) -> None:
        found = np.zeros(_plane(flags, cell, channel).shape, np.uint8)
        if response is not None:
            flag_response(_plane(response, cell, channel), thresholds.dead_response, found)
        if dark is not None:
            _flag_dark(_of_channel(dark, cell, channel), thresholds, found)
        if steady is not None:
            _flag_unstable(_of_channel(steady, cell, channel), flags.size, thresholds.unstable_excess, found)
        put_plane(flags, cell, channel, found)

    deque(in_threads(flag, range(channel_count(cell))), maxlen=0)
    names = {"hot": "hot_noise", "warm": "warm_sigmas", "dead": "dead_response", "unstable": "unstable_excess"}
    limits = {names[kind]: getattr(thresholds, names[kind]) for kind in shown}
    return defect_map(flags, pattern, limits, shown, **attrs)


def _plane(values: np.ndarray, cell: np.ndarray, channel: int) -> np.ndarray:
    return dict(planes(values, cell))[channel]


def _of_channel(frames: UnlitFrames, cell: np.ndarray, channel: int) -> UnlitFrames:
    """Return one CFA plane of the maps, with the channel's own numbers."""

    def cut(values: Any) -> Any:
        return values if np.ndim(values) == 0 else _plane(values, cell, channel)

    numbers = {"ordinary": frames.ordinary[channel], "shot": frames.shot[channel]}
    maps = {"signal": cut(frames.signal), "variance": cut(frames.variance), "frames": cut(frames.frames)}
    return frames._replace(**numbers, **maps)


def sample_pixels(plane: np.ndarray) -> np.ndarray:
    """Return the finite values of an even part of a plane (y, x), enough for its median."""
    sample = even_sample(plane, _SAMPLE)
    return sample[np.isfinite(sample)]


def _flag_dark(dark: UnlitFrames, thresholds: Thresholds, flags: np.ndarray) -> None:
    """Flag the hot and warm pixels of one plane in place."""
    sample = sample_pixels(dark.signal)
    if not sample.size:
        flags |= HOT
        return
    middle = float(np.median(sample))
    sound = dark.signal < dark.saturation
    spread = float(mad_std(sample, centre=middle))
    warm = sound & (dark.signal > middle + thresholds.warm_sigmas * spread)
    added = (thresholds.hot_noise**2 - 1) * float(dark.ordinary)
    if dark.shot > 0:
        hot = dark.signal > middle + added / float(dark.shot)
    elif dark.variance is not None:  # where the gain is not known only the frames' scatter shows the noise
        hot = warm & (dark.variance > dark.ordinary + added)
    else:
        hot = np.zeros_like(sound)
    flags[warm] |= WARM
    flags[hot | ~sound] |= HOT


def _flag_unstable(frames: UnlitFrames, pixels: int, excess: float, flags: np.ndarray) -> None:
    """Flag variances in place that neither the noise model nor chance explains."""
    variance = frames.variance
    if variance is None:
        return
    y, x = np.nonzero(variance > excess * float(frames.ordinary))
    signal = frames.signal[y, x] - np.median(sample_pixels(frames.signal))
    count = np.broadcast_to(frames.frames, variance.shape)[y, x].astype(int)
    degrees = np.arange(1, max(count.max(initial=0), 2))
    limits = np.array([np.inf, np.inf, *np.maximum(excess, chdtri(degrees, _CHANCE / pixels) / degrees)])
    jumps = variance[y, x] > limits[count] * (frames.ordinary + frames.shot * np.maximum(signal, 0.0))
    flags[y[jumps], x[jumps]] |= UNSTABLE


@kernel(error_model="numpy")
def flag_response(response: np.ndarray, least: float, flags: np.ndarray) -> None:
    """Flag dead pixels in place: those whose response differs from the median of the 24 around them.

    `response` (y, x) of one CFA plane, `flags` uint8 of its shape; dead is below `least` of the median or above its
    inverse.  The median is taken only where a pixel differs from the mean of its diagonal neighbours.
    """
    rows, columns = response.shape
    around = np.empty(25)
    for i in range(rows):
        for j in range(columns):
            f = response[i, j]
            total, number = 0.0, 0
            for m in range(max(0, i - 1), min(rows, i + 2)):
                g = response[m, j - 1 if j else j + 1]
                h = response[m, j + 1 if j + 1 < columns else j - 1]
                if np.isfinite(g) and np.isfinite(h):
                    total += g + h
                    number += 2
            # a neighbour may be a defect too, so this limit is generous
            if number and np.isfinite(f) and abs(f / (total / number) - 1) < 0.3 * (1 - least):
                continue
            number = 0
            for m in range(max(0, i - 2), min(rows, i + 3)):
                for n in range(max(0, j - 2), min(columns, j + 3)):
                    if (m != i or n != j) and np.isfinite(response[m, n]):
                        around[number] = response[m, n]
                        number += 1
            if number < 5:  # the flat is missing here, not the pixel
                continue
            middle = np.median(around[:number])
            if middle > 0 and not (least <= f / middle <= 1 / least):
                flags[i, j] |= DEAD


def defect_map(
    flags: np.ndarray, pattern: str, thresholds: dict[str, float], kinds: Iterable[str] = KINDS, **attrs: object
) -> xr.DataArray:
    """Return flags uint8 (y, x), bits of `KINDS`, with their meaning, the thresholds and how many there are of each.

    Of the `kinds` that were looked for are the counts; ``filled`` counts the pixels that calibration replaces.

    Examples
    --------
    >>> found = defect_map(np.array([[0, 1], [3, 0]], np.uint8), "mono", {"hot_noise": 2.0})
    >>> found.attrs["counts"]
    {'hot': 2, 'warm': 1, 'dead': 0, 'unstable': 0}
    """
    return xr.DataArray(
        flags,
        dims=("y", "x"),
        attrs={
            "long_name": "defects",
            "cfa_pattern": pattern,
            "flag_masks": list(KINDS.values()),
            "flag_meanings": " ".join(KINDS),
            "counts": {name: int(np.count_nonzero(flags & bit)) for name, bit in KINDS.items() if name in kinds},
            "filled": int(np.count_nonzero(flags & FILLED)),
            "thresholds": dict(thresholds),
            **attrs,
        },
    )


def write_defects(defects: xr.DataArray, path: str | Path) -> Path:
    """Write a defect map as a FITS picture of bytes, bits as in the header; whole or not at all.

    Raises
    ------
    WorkbenchError
        If it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> found = defect_map(np.array([[0, 1], [3, 0]], np.uint8), "mono", {"hot_noise": 2.0})
    >>> open_defects(write_defects(found, Path(tempfile.mkdtemp()) / "defects.fits")).identical(found)
    True
    """
    path = Path(path)
    header = fits.Header()
    header["IMAGETYP"] = "defects"
    for name, bit in KINDS.items():
        header[f"BIT{bit}"] = name, f"{defects.attrs['counts'].get(name, 0)} pixels"
    if defects.attrs["cfa_pattern"] != "mono":
        header["BAYERPAT"] = defects.attrs["cfa_pattern"]
    header["ROWORDER"] = "TOP-DOWN"
    header["WBATTRS"] = json.dumps(defects.attrs)
    put_seal(header)
    with whole_file(path, "the defect map", "give another folder") as part:
        fits.PrimaryHDU(defects.values.astype(np.uint8), header).writeto(part)
        seal(part)
    return path


def open_defects(path: str | Path) -> xr.DataArray:
    """Return a defect map that `write_defects` wrote.

    Raises
    ------
    FrameReadError
        If the file is not one.
    """
    try:
        with fits.open(path, memmap=False) as hdus:
            require_sealed(path)
            attrs = json.loads(hdus[0].header["WBATTRS"])
            return xr.DataArray(np.array(hdus[0].data, np.uint8), dims=("y", "x"), attrs=attrs)
    except FrameReadError:
        raise
    except FileNotFoundError:
        raise FrameReadError(path, "is not there") from None
    except Exception as error:
        raise FrameReadError(path, f"is not a defect map of the workbench ({type(error).__name__}: {error})") from None
