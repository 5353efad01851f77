"""Apply the masters: lights from ADU to electrons, with their variance, defects filled and flagged.

    e = g (y - P) / F,   P = B + f (D - B)

with gain g [e-/ADU], dark master D and bias master B as read, the dark's scale f (1 when it fits) and the flat F.
Negative values stay: the noise about zero must average to zero.  The variance is

    Var e = (g/F)² [σ² + max(y - black, 0)/g + Var P] + e² Var F / F²

σ² [ADU²] the read noise with rounding; the middle term is the shot noise of light and dark signal together, with y
averaged over the neighbours that agree with it, so that the variance does not follow the sample's own noise.
`calibrate_tile` is the compiled loop, for a window of a frame at any place; `calibrate` is the verb on cubes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from numba import njit

from ..core.cube import add_history, check_cube
from ..core.errors import WorkbenchError
from ..core.mosaic import channel_index
from .combine_band import calm_levels

if TYPE_CHECKING:
    from .masterset import MasterSet

DEFECT, SATURATED, MISSING = 1, 2, 4
FLAGS = {"defect": DEFECT, "saturated": SATURATED, "missing": MISSING}
HALO = 4  # [pixels] of surroundings that filling a defect may look at: give a window that much more on each side


_zero = partial(np.zeros, (1, 1), np.float32)
_one = partial(np.ones, (1, 1), np.float32)
_none = partial(np.zeros, (1, 1), bool)


@dataclass(frozen=True, eq=False)
class Tables:
    """What `calibrate_tile` reads: maps (y, x), or (1, 1) where there is none, and numbers a channel.

    The offset is ``numbers[c, 3] + base + factor · dark`` [ADU].  `numbers` (channel, 5): gain [e-/ADU], σ² [ADU²],
    1/gain [ADU], constant offset [ADU], black level of the shot noise [ADU].  `saturation` [ADU].
    """

    cell: np.ndarray
    numbers: np.ndarray
    base: np.ndarray = field(default_factory=_zero)
    base_variance: np.ndarray = field(default_factory=_zero)
    dark: np.ndarray = field(default_factory=_zero)
    dark_variance: np.ndarray = field(default_factory=_zero)
    response: np.ndarray = field(default_factory=_one)
    response_variance: np.ndarray = field(default_factory=_zero)
    defects: np.ndarray = field(default_factory=_none)
    saturation: float = np.inf

    def window(self, rows: slice, columns: slice) -> Tables:
        """Return the tables of a part of the frame, for a window that starts at (rows.start, columns.start).

        Views, no copies.  The mosaic's phase is that of the window's first pixel.
        """
        top, left = rows.start or 0, columns.start or 0
        cell = np.roll(self.cell, (-(top % self.cell.shape[0]), -(left % self.cell.shape[1])), axis=(0, 1))
        maps = {
            name: getattr(self, name)
            for name in ("base", "base_variance", "dark", "dark_variance", "response", "response_variance", "defects")
        }
        cut = {name: part if part.shape == (1, 1) else part[rows, columns] for name, part in maps.items()}
        return Tables(cell=cell, numbers=self.numbers, saturation=self.saturation, **cut)


def calibrate_window(
    raw: np.ndarray, tables: Tables, factor: float = 1.0, *, fill: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Calibrate one window of a frame (all of it, or a part with the tables' same `window`).

    Returns signal [e-] and variance [e-²], float32, and the mask, uint8 with the bits of `FLAGS`: ``defect`` where the
    value is filled in from neighbours of the same colour, ``saturated`` in the raw frame, ``missing`` where there
    is no value (NaN): no sample, no flat, or nothing near a defect to fill it from.
    """
    shape = raw.shape
    if tables.dark.shape not in ((1, 1), shape) or tables.response.shape not in ((1, 1), shape):
        raise WorkbenchError(f"the window has {shape} pixels, the masters {tables.dark.shape}: cut both alike")
    signal, variance = np.empty(shape, np.float32), np.empty(shape, np.float32)
    mask, level = np.empty(shape, np.uint8), np.empty(shape, np.float32)
    black = np.ascontiguousarray(tables.numbers[:, 4])
    calm_levels(raw, tables.cell, np.ascontiguousarray(tables.numbers[:, 1:3]), black, 1.0, level)
    calibrate_tile(
        raw, level, tables.cell, tables.numbers, tables.base, tables.base_variance, tables.dark, tables.dark_variance,
        tables.response, tables.response_variance, tables.defects, tables.saturation, factor, signal, variance, mask,
    )  # fmt: skip
    if fill:
        fill_tile(tables.cell, signal, variance, mask)
    return signal, variance, mask


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

    Raises
    ------
    WorkbenchError
        If the lights are not those of the masters, or differ from them in size or mosaic.
    """
    check_cube(light, stage="raw", kind="light")
    count, *shape = light.shape
    shape = tuple(shape)
    prepared: dict[int, Any] = {}
    data = light.data.rechunk({0: 1, 1: -1, 2: -1}) if isinstance(light.data, da.Array) else light.data
    work = dask.delayed(_one_frame, nout=3, pure=True)
    parts = []
    for number in range(count):
        of_group, factor = (masters, 1.0) if isinstance(masters, Tables) else masters.of(light, number)
        if id(of_group) not in prepared:
            tables = of_group if isinstance(of_group, Tables) else of_group.tables()
            _require_fit(tables, shape, light.attrs["cfa_pattern"])
            prepared[id(of_group)] = dask.delayed(tables, pure=True)
        frame = data[number]
        frame = frame.to_delayed().item() if isinstance(frame, da.Array) else frame
        parts.append(work(frame, prepared[id(of_group)], factor, fill))
    names = (("signal", np.float32), ("variance", np.float32), ("mask", np.uint8))
    arrays = {
        name: da.stack([da.from_delayed(part[place], shape, dtype=dtype) for part in parts])
        for place, (name, dtype) in enumerate(names)
    }
    noted = add_history(light, "calibrated: ADU to electrons, offset, dark and flat applied, defects filled")
    attrs = {**noted.attrs, "units": "electron", "stage": "calibrated", "long_name": "signal"}
    flags = {"long_name": "flags", "flag_masks": list(FLAGS.values()), "flag_meanings": " ".join(FLAGS)}
    described = {"signal": attrs, "variance": {"units": "electron**2", "long_name": "variance"}, "mask": flags}
    return xr.Dataset(
        {name: (light.dims, arrays[name], described[name]) for name, _ in names}, coords=light.coords, attrs=attrs
    )


def _require_fit(tables: Tables, shape: tuple[int, int], cfa_pattern: str) -> None:
    for part in (tables.dark, tables.base, tables.response):
        if part.shape not in ((1, 1), shape):
            raise WorkbenchError(
                f"the lights have {shape[1]} x {shape[0]} pixels, the masters {part.shape[1]} x {part.shape[0]}: "
                "they do not belong together"
            )
    if not np.array_equal(tables.cell, channel_index(cfa_pattern)):
        raise WorkbenchError(f"the lights' mosaic is {cfa_pattern}, that of the masters another: cut both alike")


def _one_frame(frame: np.ndarray, tables: Tables, factor: float, fill: bool) -> tuple[np.ndarray, ...]:
    frame = np.asarray(frame)
    if frame.dtype != np.uint16:
        frame = frame.astype(np.float32, copy=False)
    signal, variance, mask = calibrate_window(frame, tables, factor, fill=fill)
    if not fill:
        defect = (mask & DEFECT) > 0
        signal[defect], variance[defect] = np.nan, np.nan
        mask[defect] |= MISSING
    return signal, variance, mask


@njit(nogil=True, cache=True, error_model="numpy")
def calibrate_tile(
    raw, level, cell, numbers, base, base_variance, dark, dark_variance, response, response_variance, defects,
    saturation, factor, signal, variance, mask,
):  # fmt: skip
    """Set signal, variance and mask of a window from its raw samples; see `Tables` and the module's formula.

    `level` [ADU] is what the shot noise is taken from: the samples themselves, or their `calm_levels`.  Maps of shape
    (1, 1) count as the same number everywhere.  Defects are flagged but not yet filled.
    """
    rows, columns = raw.shape
    period_y, period_x = cell.shape
    rest, squared = np.float32((1.0 - factor) ** 2), np.float32(factor**2)
    times, limit, zero, one = np.float32(factor), np.float32(saturation), np.float32(0), np.float32(1)
    # everything a row needs lies in contiguous buffers, so that the arithmetic runs in vector registers
    numbers_of = np.empty((period_y, 5, columns), np.float32)
    for i in range(period_y):
        for j in range(columns):
            for k in range(5):
                numbers_of[i, k, j] = numbers[cell[i, j % period_x], k]
    rows_of = np.empty((5, columns), np.float32)
    sample, offset, noise, flat, tilt = rows_of[0], rows_of[1], rows_of[2], rows_of[3], rows_of[4]
    bad = np.empty(columns, np.uint8)
    flat[:] = response[0, 0]
    tilt[:] = response_variance[0, 0]
    bad[:] = defects[0, 0]
    for i in range(rows):
        phase = numbers_of[i % period_y]
        gain, quiet, inverse, ground, black = phase[0], phase[1], phase[2], phase[3], phase[4]
        for j in range(columns):
            sample[j] = raw[i, j]
        for j in range(columns):
            offset[j] = ground[j]
            noise[j] = quiet[j] + inverse[j] * max(level[i, j] - black[j], zero)
        _add_row(base, i, one, offset)
        _add_row(dark, i, times, offset)
        _add_row(base_variance, i, rest, noise)
        _add_row(dark_variance, i, squared, noise)
        if response.size > 1:
            for j in range(columns):
                flat[j] = response[i, j]
        if response_variance.size > 1:
            for j in range(columns):
                tilt[j] = response_variance[i, j]
        if defects.size > 1:
            for j in range(columns):
                bad[j] = defects[i, j]
        out_signal, out_variance, out_mask = signal[i], variance[i], mask[i]
        for j in range(columns):
            scale = one / flat[j]
            e = gain[j] * (sample[j] - offset[j]) * scale
            out_signal[j] = e
            out_variance[j] = (gain[j] * gain[j] * noise[j] + e * e * tilt[j]) * scale * scale
        lost = 0
        for j in range(columns):
            # NaN and infinity fail v - v == 0; a flat that is not positive has no answer
            v = out_variance[j]
            missing = np.uint8(not ((v - v == zero) & (flat[j] > zero)))
            lost += missing
            out_mask[j] = bad[j] | (np.uint8((sample[j] >= limit) & (missing == 0)) << 1) | (missing << 2)
        if lost:
            for j in range(columns):
                if out_mask[j] & 4:
                    out_signal[j] = np.nan
                    out_variance[j] = np.nan


@njit(nogil=True, cache=True, error_model="numpy")
def _add_row(field, i, times, out):
    """Add a row of a map, or its one number, times a factor."""
    if field.size == 1:
        number = times * field[0, 0]
        if number != 0:
            for j in range(out.size):
                out[j] += number
    else:
        for j in range(out.size):
            out[j] += times * field[i, j]


@njit(nogil=True, cache=True, error_model="numpy")
def fill_tile(cell, signal, variance, mask):
    """Fill defects in place from sound pixels of their colour up to 4 pixels away, the nearer the more (1/distance²).

    A filled value is never the source of another.  Its variance is that of the mean of its sources, and where they
    differ by more than their noise, as beside a star, their scatter on top.  A defect among saturated pixels is
    saturated; one without any source is missing.
    """
    rows, columns = signal.shape
    period_y, period_x = cell.shape
    mono = cell.size == 1
    for i in range(rows):
        for j in range(columns):
            if not mask[i, j] & 1:
                continue
            c = cell[i % period_y, j % period_x]
            green = c == 1 or c == 2
            found = 0
            for reach in (2, 4):
                if found:
                    break
                weights, squares, total, square, noise, mean_noise = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
                saturated = False
                for m in range(max(0, i - reach), min(rows, i + reach + 1)):
                    for n in range(max(0, j - reach), min(columns, j + reach + 1)):
                        if mask[m, n] & 5:
                            continue
                        other = cell[m % period_y, n % period_x]
                        if not mono and other != c and not (green and (other == 1 or other == 2)):
                            continue
                        w = 1.0 / ((m - i) ** 2 + (n - j) ** 2)
                        found += 1
                        weights += w
                        squares += w * w
                        total += w * signal[m, n]
                        square += w * signal[m, n] * signal[m, n]
                        noise += w * w * variance[m, n]
                        mean_noise += w * variance[m, n]
                        saturated |= (mask[m, n] & 2) > 0
            if found == 0:
                signal[i, j], variance[i, j] = np.nan, np.nan
                mask[i, j] |= 4
                continue
            value = total / weights
            scatter = 0.0
            if found > 1:
                scatter = (square / weights - value * value) / max(1.0 - squares / weights**2, 1e-3)
            signal[i, j] = value
            structure = scatter - mean_noise / weights
            if structure < 2 * mean_noise / weights:  # no more than so few sources differ by chance
                structure = 0.0
            variance[i, j] = noise / weights**2 + structure
            mask[i, j] = 3 if saturated else 1
