"""The verbs on cubes: calibrated lights put on the reference's grid, and stacked, lazily and open to inspection.

The engine (`workbench.stack.engine`) does the same from files, tile by tile, for whole nights; these verbs are for
looking at every step, and hold all frames of what is asked for in memory.  `aligned` resamples and normalises, `stack`
rejects and averages; nothing is computed until asked, and then no more than what is asked for.
"""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from scipy import ndimage

from ..align.registration import Registration
from ..align.transform import Transform
from ..core.cube import check_cube
from ..core.errors import WorkbenchError
from ..core.values import attribute_lines, joined_lines, plain_attributes
from .engine import SHARE
from .geometry import place_polynomials, quarter_turns
from .kernel import kernel_polynomials, mean_squared_weight, narrowing_for
from .normalise import background_surfaces, frame_weights, star_ratio
from .reject import DEFAULTS, method_number
from .resampled import resample_tile
from .rule import median_of, reject_samples
from .sample import unsplit
from .survey import FrameSurvey
from .tile import RIM

BAND = 128  # output rows worked off at a time
SIDE = 256  # of the pieces that are resampled at a time
_SATURATED = 2  # bit of the calibration's mask


def normalisation(lights: xr.Dataset, registration: Registration, *, order: int | str = "auto") -> xr.Dataset:
    """Return what brings each frame to the reference's transparency and to the mean background of all.

    Returns
    -------
    Dataset over ``frame`` (the frames used): ``scale`` (by which a frame is multiplied, from matched stars) and its
    ``scale_error``; ``surface`` (channel, term) [e-], what it then has more than the mean of all, as coefficients of
    1, x, y, x², x y, y²; ``weight`` (channel), one over the background's variance, mean 1.

    Raises
    ------
    WorkbenchError
        If neither stars nor exposure times tell a frame's transparency.
    """
    used = list(registration.used)
    stars, exposure = registration.stars, lights["signal"]["exposure"].values.astype(float)
    scales, errors = [], []
    for number in used:
        ratio, error, _ = star_ratio(stars[registration.reference], stars[number], registration.matches[number])
        if number == registration.reference:
            ratio, error = 1.0, 0.0
        if not np.isfinite(ratio):
            ratio = exposure[registration.reference] / exposure[number]
        if not np.isfinite(ratio):
            name = registration.quality["filename"].values[number]
            raise WorkbenchError(f"{name}: too few stars tell its transparency, and its exposure time is not known")
        scales.append(ratio)
        errors.append(error)
    surveys = [FrameSurvey(stars[n], registration.level[n], registration.noise[n]) for n in used]
    shape = lights["signal"].shape[1:]
    transforms = [registration.transform(number) for number in used]
    surfaces, _, level = background_surfaces(surveys, transforms, scales, shape, order=order)
    channels = ["mono"] if lights.attrs["cfa_pattern"] == "mono" else ["R", "G", "B"]
    return xr.Dataset(
        {
            "scale": ("frame", scales),
            "scale_error": ("frame", errors),
            "surface": (("frame", "channel", "term"), surfaces, {"units": "electron"}),
            "weight": (("frame", "channel"), frame_weights(surveys, scales)),
            "level": ("channel", level, {"units": "electron", "long_name": "mean background"}),
        },
        coords={"channel": channels, "number": ("frame", used)},
    )


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
    frame; ``variance`` [e-²] of that value; ``slope``, how fast that variance grows with the light [e-²/e-]; and
    ``saturated`` (frame, y, x).  Over ``frame`` also ``scale`` and ``weight`` (channel).

    Raises
    ------
    StageError, WorkbenchError
        If the lights are not calibrated, or not those that were registered.
    """
    signal = check_cube(lights["signal"], stage="calibrated")
    names = [str(name) for name in signal["filename"].values]
    if names != [str(name) for name in registration.quality["filename"].values]:
        raise WorkbenchError("this registration belongs to other lights: register these")
    norm = normalisation(lights, registration) if norm is None else norm
    used = norm["number"].values
    pattern, shape = lights.attrs["cfa_pattern"], signal.shape[1:]
    channels = list(norm["channel"].values)
    work = dask.delayed(_put, nout=4, pure=True)
    parts: list[list[Any]] = [[], [], [], []]
    for place, number in enumerate(used):
        one = lights.isel(frame=int(number))
        pieces = work(
            one["signal"].data, one["variance"].data, one["mask"].data, registration.transform(int(number)), pattern,
            float(norm["scale"][place]), norm["surface"].values[place],
        )  # fmt: skip
        for into, piece, dtype in zip(parts, pieces, (np.float32, np.float32, np.float32, bool), strict=True):
            size = shape if dtype is bool else (len(channels), *shape)
            into.append(da.from_delayed(piece, size, dtype=dtype))
    reference = names[registration.reference]
    attrs = {
        **signal.attrs,
        "long_name": "signal on the reference's grid",
        "history": joined_lines(
            [*attribute_lines(signal.attrs, "history"), f"resampled onto {reference or 'the reference'} and normalised"]
        ),
        "reference": reference,
    }
    dims = ("frame", "channel", "y", "x")
    words = {
        "signal": attrs,
        "variance": {"units": "electron**2", "long_name": "variance of a pixel's value"},
        "slope": {"units": "electron", "long_name": "variance for each electron of light"},
    }
    data = {name: (dims, da.stack(part), words[name]) for name, part in zip(words, parts, strict=False)}
    data["saturated"] = (("frame", "y", "x"), da.stack(parts[3]), {"long_name": "saturated in the raw frame"})
    result = xr.Dataset(data, coords={"channel": channels}, attrs=attrs)
    kept = signal.isel(frame=used)
    return result.assign_coords(
        {name: kept[name] for name in kept.coords if kept[name].dims == ("frame",)}
        | {"scale": ("frame", norm["scale"].values), "weight": (("frame", "channel"), norm["weight"].values)}
    )


def _put(
    signal: np.ndarray,
    variance: np.ndarray,
    mask: np.ndarray,
    transform: Transform,
    pattern: str,
    scale: float,
    surface: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Resample and normalise one frame: value, variance, slope (channel, y, x), and what is saturated (y, x)."""
    shape = signal.shape
    value, square = _resample(np.asarray(signal, np.float32), transform, pattern)
    spread, _ = _resample(np.asarray(variance, np.float32), transform, pattern)
    quietest = float(np.nanmin(variance))  # ringing must not make a sample quieter than the frame's quietest
    spread = np.maximum(spread, np.float32(quietest)) * square * np.float32(scale**2)
    y, x = (axis.astype(np.float32) for axis in np.mgrid[: shape[0], : shape[1]])
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y])
    value = value * np.float32(scale) - np.tensordot(surface, terms, 1).astype(np.float32)
    at = transform.apply(*np.meshgrid(np.arange(shape[1]), np.arange(shape[0])))
    full = ndimage.maximum_filter((mask & _SATURATED).astype(np.uint8), 3)
    reached = ndimage.map_coordinates(full, [at[1], at[0]], order=0, cval=0) > 0
    return value, spread, square * np.float32(scale), reached


def _resample(mosaic: np.ndarray, transform: Transform, pattern: str) -> tuple[np.ndarray, np.ndarray]:
    """Resample a mosaic: value and Σw², (channel, y, x), NaN outside; `resample` with the weights kept."""
    split = pattern != "mono"
    frame = mosaic.shape
    kernel = kernel_polynomials(narrowing_for(pattern))
    zero, one = np.zeros(frame, np.float32), np.ones(frame, np.float32)
    out = np.full((2, 3 if split else 1, *frame), np.nan, np.float32)
    for top in range(0, frame[0], SIDE):
        for left in range(0, frame[1], SIDE):
            tall, wide = min(SIDE, frame[0] - top), min(SIDE, frame[1] - left)
            turn = quarter_turns(transform, left + wide / 2, top + tall / 2)
            place = place_polynomials(transform, turn, frame, np.array([left]), top, wide, tall)[0]
            pair = resample_tile(mosaic, 0, zero, one, place, turn, pattern, tall, wide, kernel)
            x, y = transform.apply(*np.meshgrid(left + np.arange(wide), top + np.arange(tall)))
            outside = (x < -0.5) | (y < -0.5) | (x > frame[1] - 0.5) | (y > frame[0] - 0.5)
            for into, part in zip(out, pair, strict=True):
                part = unsplit(part) if split else part
                part[:, outside] = np.nan
                into[:, top : top + tall, left : left + wide] = part
    return out[0], out[1]


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
    equivalent white noise, right for sums over many pixels (a single pixel's is that times
    ``attrs["pixel_variance_share"]``); ``coverage``, ``rejected_low``, ``rejected_high``, ``saturated``: samples.
    Here the masters' noise counts as independent from frame to frame, as it is among dithered frames.

    Raises
    ------
    WorkbenchError
        If the lights are not aligned, or there is no such method.
    """
    method_number(method)
    if not isinstance(lights, xr.Dataset) or not {"signal", "variance", "slope", "weight"} <= {*lights.variables}:
        raise WorkbenchError("stack wants lights on one grid: workbench.stack.aligned(lights, registration)")
    channels, height, width = (lights.sizes[name] for name in ("channel", "y", "x"))
    pattern = lights.attrs["cfa_pattern"]
    share = [SHARE[str(name)] * mean_squared_weight(narrowing_for(pattern)) for name in lights["channel"].values]
    weight = lights["weight"].transpose("frame", "channel").values
    work = dask.delayed(_stack_band, nout=6, pure=True)
    bands: list[list[da.Array]] = [[] for _ in _PLANES]
    for top in range(0, height, BAND):
        bottom = min(top + BAND, height)
        rows = slice(max(top - RIM, 0), min(bottom + RIM, height))
        part = [lights[name].isel(y=rows).data for name in ("signal", "variance", "slope", "saturated")]
        inner = slice(top - rows.start, bottom - rows.start)
        planes = work(*part, weight, tuple(share), method, low, high, inner)
        for into, plane, (_, dtype) in zip(bands, planes, _PLANES, strict=True):
            into.append(da.from_delayed(plane, (channels, bottom - top, width), dtype=dtype))
    first, second = DEFAULTS[method]
    history = [
        *attribute_lines(lights.attrs, "history"),
        f"{lights.sizes['frame']} lights stacked, rejection: {method} "
        f"({first if low is None else low:g}, {second if high is None else high:g})",
    ]
    exposure = lights["exposure"].values[lights["filename"].values == lights.attrs["reference"]]
    attrs = {
        "units": "electron",
        "stage": "stacked",
        "history": history,
        "camera": lights.attrs["camera"],
        "exposure": float(exposure[0]) if exposure.size == 1 else float("nan"),
        "frame_count": lights.sizes["frame"],
        "reference": lights.attrs["reference"],
        "rejection": method,
        "pixel_variance_share": {str(n): s for n, s in zip(lights["channel"].values, share, strict=True)},
    }
    attrs = plain_attributes(attrs)
    names = {"signal": "electron", "variance": "electron**2"}
    data = {
        name: (("channel", "y", "x"), da.concatenate(part, axis=1), {"units": names.get(name, "1")})
        for part, (name, _) in zip(bands, _PLANES, strict=True)
    }
    return xr.Dataset(data, coords={"channel": lights["channel"].values}, attrs=attrs)


_PLANES = (
    ("signal", np.float32),
    ("variance", np.float32),
    ("coverage", np.uint16),
    ("rejected_low", np.uint16),
    ("rejected_high", np.uint16),
    ("saturated", np.uint16),
)


def _stack_band(values, variance, slope, saturated, weight, share, method, low, high, inner):
    """Stack some rows, of which `inner` are wanted and the others are their surroundings."""
    flags = reject_samples(values, variance, slope, method, low=low, high=high)[..., inner, :]
    values, variance = values[..., inner, :], variance[..., inner, :]
    mean, noise, count = average(values, variance, flags, weight)
    if method == "median":
        mean = median_of(values)
        with np.errstate(divide="ignore"):  # of normal samples the median's variance is π/2 of the mean's
            noise = noise * (1 + 0.5708 * np.maximum(1 - 1 / np.maximum(count, 1), 0) ** 1.2)
    noise = noise / np.array(share, np.float32)[:, None, None]
    full = np.broadcast_to(saturated[:, inner].sum(axis=0), mean.shape)
    counts = (count, (flags < 0).sum(axis=0), (flags > 0).sum(axis=0), full)
    return mean, noise.astype(np.float32), *(part.astype(np.uint16) for part in counts)


def average(
    values: np.ndarray, variance: np.ndarray, flags: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the weighted mean of the samples kept, its variance, and how many they are; NaN where none is.

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
