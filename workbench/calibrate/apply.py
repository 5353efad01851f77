"""Apply the masters: lights from ADU to electrons, with their variance, defects filled and flagged.

    e = g (y - P) / F,   P = B + f (D - B)

with gain g [e-/ADU], dark master D and bias master B as read, the dark's scale f (1 when it fits) and the flat F.
Negative values stay: the noise about zero must average to zero.

**Variance** means the same from here to the stack.  ``variance`` is the variance of a pixel's value about the true
light, from all that is known:

    Var e = (g/F)² [σ² + max(y - black, 0)/g] + shared,   shared = (g/F)² Var P + e² Var F / F²

The first part is the frame's own: read noise with rounding σ² [ADU²] and the shot noise of light and dark signal
together, with y averaged over the neighbours that agree with it, so that the variance does not follow the sample's own
noise.  ``shared_variance``, the second, is the masters' noise.  It is the same in every light that they calibrate: the
mean of N lights has 1/N of the own noise and all of the shared one, unless dithering moves it over the sky; the mean of
N pixels of one frame has 1/N of both.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, NamedTuple

import dask
import dask.array as da
import numpy as np
import xarray as xr

from ..core.cube import add_history, check_cube
from ..core.errors import WorkbenchError
from ..core.kernels import kernel
from ..core.mosaic import channel_index
from ..core.parallel import frame_arrays
from .planes import (
    NOISE_BLOCK,
    NOISE_TERMS,
    REACH,
    Planes,
    calibrate_signal,
    calm_levels,
    neighbour_weights,
    prepare_planes,
    same_colour,
    value_at,
    weighted_mean,
)

if TYPE_CHECKING:
    from .masterset import Masters, MasterSet

DEFECT, SATURATED, MISSING = 1, 2, 4
FLAGS = {"defect": DEFECT, "saturated": SATURATED, "missing": MISSING}

_ZERO, _ONE, _NONE = np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32), np.zeros((1, 1), bool)


class Tables(NamedTuple):
    """What calibration reads: maps (y, x), or (1, 1) where there is none, and values of each channel.

    The offset is ``constant + base + factor · dark`` [ADU].  By channel: `gain` [e-/ADU], `law` (channel, 2) of the
    variance, σ² [ADU²] and 1/gain [ADU], `constant` [ADU], and `black` [ADU], the level that shot noise grows from.
    `saturation` [ADU].
    """

    cell: np.ndarray
    gain: np.ndarray
    law: np.ndarray
    constant: np.ndarray
    black: np.ndarray
    base: np.ndarray = _ZERO
    base_variance: np.ndarray = _ZERO
    dark: np.ndarray = _ZERO
    dark_variance: np.ndarray = _ZERO
    response: np.ndarray = _ONE
    response_variance: np.ndarray = _ZERO
    defects: np.ndarray = _NONE
    saturation: float = np.inf


class Calibrated(NamedTuple):
    """A calibrated frame (y, x): signal [e-], variance [e-²], mask, the masters' share of the variance."""

    signal: np.ndarray
    variance: np.ndarray
    mask: np.ndarray
    shared: np.ndarray


def calibrate_frame(raw: np.ndarray, tables: Tables, factor: float = 1.0) -> Calibrated:
    """Calibrate one frame, its dark scaled by `factor`.

    The mask is uint8 with the bits of `FLAGS`: ``defect`` where the value is filled in from neighbours of the same
    colour, ``saturated`` in the raw frame, ``missing`` where the value is NaN: no sample, no flat, or nothing near a
    defect to fill it from.

    Raises
    ------
    WorkbenchError
        If the tables are of another size.
    """
    shape = raw.shape
    if tables.dark.shape not in ((1, 1), shape) or tables.response.shape not in ((1, 1), shape):
        raise WorkbenchError(f"the frame has {shape} pixels, the masters {tables.dark.shape}: cut both alike")
    return _calibrated(raw, tables, prepare_planes(tables, shape, factor), factor, fill=True)


def _signal_of(raw: np.ndarray, tables: Tables, planes: Planes, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Signal [e-] and mask (y, x) of a frame, defects NaN."""
    signal, mask = np.empty(raw.shape, np.float32), np.empty(raw.shape, np.uint8)
    calibrate_signal(raw, planes, factor, signal)
    defects = np.ascontiguousarray(np.broadcast_to(tables.defects, raw.shape)).view(np.uint8)
    _flag(raw, signal, defects, np.float32(planes.white), mask)
    return signal, mask


def _calibrated(raw: np.ndarray, tables: Tables, planes: Planes, factor: float, fill: bool) -> Calibrated:
    signal, mask = _signal_of(raw, tables, planes, factor)
    variance, shared, level = (np.empty(raw.shape, np.float32) for _ in range(3))
    calm_levels(raw, tables.cell, tables.law, tables.black, 1.0, level)
    _set_variance(level, tables, planes.scale, np.float32(factor), signal, variance, shared)
    if fill:
        fill_defects(tables.cell, signal, variance, shared, mask)
    return Calibrated(signal, variance, mask, shared)


def _lazy_signal(raw: Any, tables: Tables, planes: Planes, factor: float, fill: bool) -> tuple[np.ndarray, ...]:
    raw = _as_read(raw)
    signal, mask = _signal_of(raw, tables, planes, factor)
    if fill:
        nothing = np.empty((0, 0), np.float32)
        fill_defects(tables.cell, signal, nothing, nothing, mask)
    else:
        mask[(mask & DEFECT) > 0] |= MISSING
    return signal, mask


def _lazy_variance(raw: Any, tables: Tables, planes: Planes, factor: float, fill: bool) -> tuple[np.ndarray, ...]:
    done = _calibrated(_as_read(raw), tables, planes, factor, fill)
    return done.variance, done.shared


def _as_read(raw: Any) -> np.ndarray:
    raw = np.asarray(raw)
    raw = raw.reshape(raw.shape[-2:])
    return raw if raw.dtype == np.uint16 else raw.astype(np.float32, copy=False)


def calibrate(light: xr.DataArray, masters: Tables | MasterSet, *, fill: bool = True) -> xr.Dataset:
    """Calibrate a cube of lights: Dataset of ``signal`` [e-], ``variance`` [e-²] and ``mask`` (frame, y, x), lazy.

    Nothing is computed until asked; each frame is read once, and the answer does not depend on the chunks.

    Parameters
    ----------
    light
        Lights as read, of the size of the masters.
    masters
        What `make_masters` made for these lights (all, or some of them), or the `Tables` of one group.
    fill
        Fill defects from their neighbours; without it they are NaN and ``missing``.

    Returns
    -------
    Dataset over (frame, y, x): ``signal`` [e-], ``variance`` [e-²] of a pixel, of which ``shared_variance`` [e-²] is
    the masters' (see the module), and ``mask``; over (frame, term, channel, block_y, block_x) ``noise_terms`` of the
    variance in blocks of 32 pixels, from which a stack predicts the noise of its samples (see `Planes`); over frame
    ``saturation`` [e-].

    Raises
    ------
    WorkbenchError
        If the lights are not those of the masters, or differ from them in size or mosaic.
    """
    check_cube(light, stage="raw", kind="light")
    count, height, width = light.shape
    shape = (height, width)
    prepared: dict[int, tuple[Any, Any]] = {}
    data = light.data.rechunk({0: 1, 1: -1, 2: -1}) if isinstance(light.data, da.Array) else light.data
    frames = data.to_delayed(optimize_graph=False).ravel() if isinstance(data, da.Array) else data
    calls, terms = [], []
    for number in range(count):
        group: Tables | Masters
        if isinstance(masters, Tables):
            group, factor, usual = masters, 1.0, 1.0
        else:
            group, factor = masters.of(light, number)
            usual = float(np.median(group.group.factors or (1.0,)))
        if id(group) not in prepared:
            tables = group if isinstance(group, Tables) else group.tables()
            _require_fit(tables, shape, light.attrs["cfa_pattern"])
            shared = dask.delayed(tables, pure=True, traverse=False)
            prepared[id(group)] = shared, dask.delayed(prepare_planes, pure=True)(shared, shape, usual)
        calls.append((frames[number], *prepared[id(group)], float(factor), fill))
        terms.append((prepared[id(group)][1],))
    blocks = tuple(-(-size // NOISE_BLOCK) for size in shape)
    channels = ["mono"] if light.attrs["cfa_pattern"] == "mono" else ["R", "G", "B"]
    picture, flags = (shape, np.float32), (shape, np.uint8)
    arrays = frame_arrays(_lazy_signal, calls, {"signal": picture, "mask": flags})
    arrays |= frame_arrays(_lazy_variance, calls, {"variance": picture, "shared_variance": picture})
    blocked = {"noise_terms": ((len(NOISE_TERMS), len(channels), *blocks), np.float32), "saturation": ((), float)}
    arrays |= frame_arrays(_block_terms, terms, blocked)
    return _described(light, arrays, channels)


def _block_terms(planes: Planes) -> tuple[np.ndarray, float]:
    return planes.noise, planes.saturation


def _described(light: xr.DataArray, arrays: dict[str, da.Array], channels: list[str]) -> xr.Dataset:
    """The calibrated lights with their units, coordinates and history."""
    noted = add_history(light, "calibrated: ADU to electrons, offset, dark and flat applied, defects filled")
    attrs = {**noted.attrs, "units": "electron", "stage": "calibrated", "long_name": "signal"}
    about: dict[str, tuple[tuple[Hashable, ...], dict[str, Any]]] = {
        "signal": (light.dims, attrs),
        "variance": (light.dims, {"units": "electron**2", "long_name": "variance"}),
        "shared_variance": (light.dims, {"units": "electron**2", "long_name": "variance of the masters' noise"}),
        "mask": (
            light.dims,
            {"long_name": "flags", "flag_masks": list(FLAGS.values()), "flag_meanings": " ".join(FLAGS)},
        ),
        "noise_terms": (
            ("frame", "term", "channel", "block_y", "block_x"),
            {"long_name": "variance terms in blocks of 32 pixels"},
        ),
        "saturation": (("frame",), {"units": "electron", "long_name": "saturation of a typical pixel"}),
    }
    data = {name: (dims, arrays[name], text) for name, (dims, text) in about.items()}
    places: dict[Hashable, Any] = {
        name: np.arange(light.sizes[name]) for name in ("y", "x") if name not in light.coords
    }
    coords: dict[Hashable, Any] = {**light.coords, **places, "term": list(NOISE_TERMS), "channel": channels}
    return xr.Dataset(data, coords=coords, attrs=attrs)


def _require_fit(tables: Tables, shape: tuple[int, int], cfa_pattern: str) -> None:
    for part in (tables.dark, tables.base, tables.response):
        if part.shape not in ((1, 1), shape):
            raise WorkbenchError(
                f"the lights have {shape[1]} x {shape[0]} pixels, the masters {part.shape[1]} x {part.shape[0]}: "
                "they do not belong together"
            )
    if not np.array_equal(tables.cell, channel_index(cfa_pattern)):
        raise WorkbenchError(f"the lights' mosaic is {cfa_pattern}, that of the masters another: cut both alike")


@kernel()
def _flag(raw, signal, defects, white, mask):
    """Set the mask (y, x) of a frame: ``defects`` are given, missing is what has no finite signal, defects apart."""
    for y in range(raw.shape[0]):
        for x in range(raw.shape[1]):
            missing = np.uint8(0)
            if not defects[y, x]:
                missing = np.uint8(signal[y, x] - signal[y, x] != np.float32(0))
            full = raw[y, x] >= white and not missing and not defects[y, x]
            mask[y, x] = np.uint8(defects[y, x] > 0) | (np.uint8(full) << 1) | (missing << 2)
            if missing:
                signal[y, x] = np.nan


@kernel(error_model="numpy")
def _set_variance(level, tables, scale, factor, signal, variance, shared):
    """Set variance and its shared part [e-²] (y, x), the shot noise that of `level` [ADU]; `scale` as in `Planes`."""
    period_y, period_x = tables.cell.shape
    squared, rest = factor * factor, (np.float32(1) - factor) ** 2
    for y in range(level.shape[0]):
        for x in range(level.shape[1]):
            k = tables.cell[y % period_y, x % period_x]
            quiet = np.float32(tables.law[k, 0])
            light = max(level[y, x] - np.float32(tables.black[k]), np.float32(0))
            known = squared * value_at(tables.dark_variance, y, x) + rest * value_at(tables.base_variance, y, x)
            tilt = value_at(tables.response_variance, y, x)
            e, s = signal[y, x], scale[y, x]
            own = s * s * (quiet + np.float32(tables.law[k, 1]) * light)
            flat = np.float32(tables.gain[k]) / s
            shared[y, x] = s * s * known + e * e * tilt / (flat * flat)
            variance[y, x] = own + shared[y, x]


@kernel()
def gather(cell: np.ndarray, signal: np.ndarray, mask: np.ndarray, y: int, x: int, around: np.ndarray) -> None:
    """Set `around` (9, 9) to the valid pixels of a pixel's colour around it, NaN elsewhere."""
    rows, columns = signal.shape
    around[:] = np.nan
    for m in range(max(0, y - REACH), min(rows, y + REACH + 1)):
        for n in range(max(0, x - REACH), min(columns, x + REACH + 1)):
            if not mask[m, n] & (DEFECT | MISSING) and same_colour(cell, y, x, m - y, n - x):
                around[m - y + REACH, n - x + REACH] = signal[m, n]


@kernel()
def fill_defects(
    cell: np.ndarray, signal: np.ndarray, variance: np.ndarray, shared: np.ndarray, mask: np.ndarray
) -> None:
    """Fill defects of a mosaic (y, x) in place from valid pixels of their colour (`neighbour_weights`).

    A filled value is never the source of another.  Its variance is that of the mean of its sources, and where they
    differ by more than their noise, as next to a star, their scatter on top.  A defect among saturated pixels is
    saturated; one without any source is missing.  `variance` and `shared` may be empty.
    """
    around, weight = np.empty((2 * REACH + 1, 2 * REACH + 1)), np.empty((2 * REACH + 1, 2 * REACH + 1))
    for y in range(signal.shape[0]):
        for x in range(signal.shape[1]):
            if not mask[y, x] & DEFECT:
                continue
            gather(cell, signal, mask, y, x, around)
            found = neighbour_weights(around, weight)
            if found == 0:
                signal[y, x] = np.nan
                mask[y, x] = DEFECT | MISSING
                if variance.size:
                    variance[y, x], shared[y, x] = np.nan, np.nan
                continue
            signal[y, x] = weighted_mean(around, weight)
            mask[y, x] = DEFECT | (_any_saturated(mask, weight, y, x) * SATURATED)
            if variance.size:
                variance[y, x], shared[y, x] = _mean_variance(around, weight, variance, shared, y, x, found)


@kernel()
def _any_saturated(mask, weight, y, x):
    """Whether one of the weighted neighbours of (y, x) is saturated."""
    for i in range(weight.shape[0]):
        for j in range(weight.shape[1]):
            if weight[i, j] > 0.0 and mask[y + i - REACH, x + j - REACH] & SATURATED:
                return 1
    return 0


@kernel()
def _mean_variance(around, weight, variance, shared, y, x, found):
    """Variance and shared variance of the weighted mean of the neighbours of (y, x), their scatter included."""
    weights, squares, total, square, noise, common, mean_noise = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(weight.shape[0]):
        for j in range(weight.shape[1]):
            w = weight[i, j]
            if w > 0.0:
                own = variance[y + i - REACH, x + j - REACH]
                weights += w
                squares += w * w
                total += w * around[i, j]
                square += w * around[i, j] ** 2
                noise += w * w * own
                common += w * w * shared[y + i - REACH, x + j - REACH]
                mean_noise += w * own
    mean_noise /= weights
    scatter = 0.0
    if found > 1:
        scatter = (square / weights - (total / weights) ** 2) / max(1.0 - squares / weights**2, 1e-3)
    structure = scatter - mean_noise
    if structure < 2 * mean_noise:  # no more than so few sources differ by chance
        structure = 0.0
    return noise / weights**2 + structure, common / weights**2
