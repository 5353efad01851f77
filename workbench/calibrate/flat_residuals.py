"""What a flat leaves in the background of the lights: its share in pixels and smooth shape, and dust shadows."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from ..core.errors import WorkbenchError
from ..core.mosaic import planes, tiles
from ..core.statistics import mad_std
from .noise import neighbour_mean

BLOCK = 32  # [pixels of the mosaic]: side of the blocks that the smooth shape is measured in
FINE = 8  # [pixels of the mosaic]: side of the cells that dust is looked for in
ADDED_NOISE = 0.05  # "enough" flats: they add no more than this to the noise of the whole night's background


def audit_lights(
    audit: xr.Dataset, flat: xr.Dataset, lights: xr.Dataset, cell: np.ndarray, progress: bool
) -> xr.Dataset:
    """Return the audit of a flat with what it leaves in the lights' background; see `flat_audit.audit_flat`."""
    if lights["signal"].attrs.get("stage") != "calibrated":
        raise WorkbenchError("the audit needs calibrated lights: workbench.calibrate.calibrate(lights, masters)")
    if lights["signal"].shape[1:] != flat["signal"].shape or lights.attrs["cfa_pattern"] != flat.attrs["cfa_pattern"]:
        raise WorkbenchError("these lights do not belong to this flat: their size or mosaic differs")
    result = audit.copy()
    count, step = lights.sizes["frame"], cell.shape[0]
    after = np.zeros((count, *result["response"].shape))
    before, sky, sums = np.zeros_like(after), np.zeros((count, cell.size)), np.zeros((cell.size, 4))
    response = flat["signal"].values
    details = [detail(plane_of(response, cell, channel)) for channel in range(cell.size)]
    cells: list[np.ndarray] = []
    for number in tqdm(
        range(count), desc="auditing the flat", unit="light", delay=2, leave=False, disable=not progress
    ):
        frame = lights[["signal", "mask"]].isel(frame=number).compute(scheduler="synchronous")
        signal = np.where(frame["mask"].values == 0, frame["signal"].values, np.float32(np.nan))
        fine = np.zeros((), np.float32)
        for channel in range(cell.size):
            plane = plane_of(signal, cell, channel)
            blocks = block_medians(plane, BLOCK // step)
            sky[number, channel] = level = float(np.nanmedian(blocks))
            after[number, channel] = blocks / level
            raw = block_medians(plane * plane_of(response, cell, channel), BLOCK // step)
            before[number, channel] = raw / np.nanmedian(raw)
            sums[channel] += _pixel_sums(plane, details[channel], level)
            fine = fine + (block_medians(plane, FINE // step) / level / cell.size).astype(np.float32)
        cells.append(fine)
    fine = np.asarray(np.nanmedian(cells, axis=0), float)  # dithered stars go
    result["background"] = (("channel", "by", "bx"), np.nanmedian(after, axis=0))
    result["raw_background"] = (("channel", "by", "bx"), np.nanmedian(before, axis=0))
    pixel = [
        _pixel_correction(sums[c], float(result["prnu"][c]), float(result["flat_noise"][c])) for c in range(cell.size)
    ]
    for name, values in zip(("correction", "correction_error"), zip(*pixel, strict=True), strict=True):
        result[name] = ("channel", list(values))
    fits = [_correction(result["background"].values[c], result["response"].values[c]) for c in range(cell.size)]
    names = ("smooth_correction", "smooth_correction_error", "gradient")
    for name, values in zip(names, zip(*fits, strict=True), strict=True):
        result[name] = ("channel", list(values))
    left = np.array([_dust_left(fine, result, n) for n in range(result.sizes["mote"])]).reshape(-1, 2)
    result["dust_left"], result["dust_left_error"] = ("mote", left[:, 0]), ("mote", left[:, 1])
    result["sky"] = ("channel", sky.mean(axis=0))
    share = np.square(result["flat_noise"].values) * sky.sum(axis=0) / ((1 + ADDED_NOISE) ** 2 - 1)
    result["enough"] = ("channel", np.ceil(np.maximum(share * flat.attrs["frames"], 1.0)))
    result.attrs["lights"] = count
    return result


def _pixel_sums(plane: np.ndarray, of_flat: np.ndarray, level: float) -> np.ndarray:
    """Return n, Σ dh, Σ d², Σ h² of the light's and the flat's details where there is only sky."""
    if not level > 0:
        return np.zeros(4)
    d = detail(plane)
    spread = float(mad_std(d[::5, ::5], centre=0))
    with np.errstate(invalid="ignore"):
        good = (np.abs(d) < 5 * spread) & (np.abs(of_flat) < 0.1)
    d, h = d[good].astype(float), of_flat[good].astype(float)
    return np.array([d.size, d @ h, d @ d, h @ h])


def _pixel_correction(sums: np.ndarray, prnu: float, flat_noise: float) -> tuple[float, float]:
    """Return k and its error from the sums of all lights; NaN where the sensor's response is too even for it."""
    n, product, light, flat = sums
    if n < 100 or not prnu > 0.2 * flat_noise:
        return math.nan, math.nan
    k = (product / n / 1.25 + flat_noise**2) / prnu**2
    error = 1.3 * math.sqrt(light / n * flat / n / n) / 1.25 / prnu**2  # neighbours share pixels
    return k, error


def _dust_left(fine: np.ndarray, motes: xr.Dataset, number: int) -> tuple[float, float]:
    """Return the share of a dust shadow's depth that stays in the lights' background (cells of `FINE`), and its error.

    The shadow's middle is compared with a plane through the ring around it.  A nebula or a star differs there as dust
    does; by how much is measured around the shadow, in the absence of dust: the scatter of these measurements is the
    error, where it is more than the noise.
    """
    y, x, radius, depth = (
        motes[name].values / (1 if name == "dust_depth" else FINE)
        for name in ("dust_y", "dust_x", "dust_radius", "dust_depth")
    )
    dip, error = _dip(fine, y[number], x[number], radius[number])
    others = []
    for distance in (3.0, 4.5, 6.0):
        for angle in np.arange(0, 2 * np.pi, np.pi / 6) + distance:
            v = y[number] + distance * (radius[number] + 1) * math.sin(angle)
            u = x[number] + distance * (radius[number] + 1) * math.cos(angle)
            inside = 0 <= v < fine.shape[0] and 0 <= u < fine.shape[1]
            if inside and (np.hypot(v - y, u - x) > 1.5 * (radius + radius[number]) + 2).all():
                others.append(_dip(fine, v, u, radius[number])[0])
    others = [other for other in others if math.isfinite(other)]
    if len(others) >= 6:
        error = max(error, float(mad_std(np.array(others), centre=0)))
    return dip / depth[number], error / depth[number]


def _dip(fine: np.ndarray, y: float, x: float, radius: float) -> tuple[float, float]:
    """Return how much darker a disc is than a plane through the ring around it, and the error of that."""
    reach = math.ceil(2 * radius + 3)
    top, left = max(0, int(y) - reach), max(0, int(x) - reach)
    around = fine[top : int(y) + reach + 1, left : int(x) + reach + 1]
    rows, columns = np.indices(around.shape)
    dy, dx = np.asarray(rows + top + 0.5 - y), np.asarray(columns + left + 0.5 - x)
    distance = np.hypot(dy, dx)
    inside = (distance < max(0.6 * radius, 1.0)) & np.isfinite(around)
    ring = (distance > 1.3 * radius) & (distance < 2 * radius + 2) & np.isfinite(around)
    for _ in range(4):  # stars in the ring are thrown out
        if ring.sum() < 8 or not inside.any():
            return math.nan, math.nan
        design = np.stack([np.ones(ring.sum()), dy[ring], dx[ring]], axis=1)
        plane = np.linalg.lstsq(design, around[ring], rcond=None)[0]
        surface = plane[0] + plane[1] * dy + plane[2] * dx
        scatter = float(mad_std(around[ring] - surface[ring], centre=0))
        ring &= np.abs(around - surface) < 3 * max(scatter, 1e-6)
    dip = -float(np.median(around[inside] / surface[inside] - 1))
    return dip, 1.25 * scatter * math.sqrt(1 / inside.sum() + 1 / ring.sum())


def _correction(background: np.ndarray, response: np.ndarray) -> tuple[float, float, float]:
    """Return k, its error, and the plane's change over the frame, of ln background = c + a y + b x + k ln flat.

    By bisquare weights, so that stars and nebulae count little.
    """
    rows, columns = background.shape
    y, x = np.mgrid[:rows, :columns]
    good = np.isfinite(background) & (background > 0) & np.isfinite(response) & (response > 0)
    design = np.stack(
        [np.ones(good.sum()), y[good] / rows - 0.5, x[good] / columns - 0.5, np.log(response[good])], axis=1
    )
    target = np.log(background[good])
    weight = np.ones(target.size)
    for _ in range(30):
        scaled = design * weight[:, None]
        solution = np.linalg.lstsq(scaled, target * weight, rcond=None)[0]
        residual = target - design @ solution
        spread = max(float(mad_std(residual, centre=0)), 1e-9)
        weight = np.sqrt(np.clip(1 - (residual / (4.685 * spread)) ** 2, 0, None) ** 2)
    inverse = np.linalg.pinv((design * weight[:, None] ** 2).T @ design)
    variance = (weight**2 * residual**2).sum() / max((weight > 0).sum() - 4, 1)
    # neighbouring blocks share nebulae and star halos: some four of them are worth one
    return float(solution[3]), float(2 * np.sqrt(inverse[3, 3] * variance)), float(math.hypot(*solution[1:3]))


def detail(plane: np.ndarray) -> np.ndarray:
    """Return each pixel over the mean of its four neighbours, less one, without the edge: (y - 2, x - 2)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return plane[1:-1, 1:-1] / neighbour_mean(plane) - 1


def plane_of(mosaic: np.ndarray, cell: np.ndarray, channel: int) -> np.ndarray:
    """Return one CFA plane of a mosaic, whole cells only; a view."""
    height, width = (side // cell.shape[0] * cell.shape[0] for side in mosaic.shape)
    return dict(planes(mosaic[:height, :width], cell))[channel]


def centres(side: int) -> np.ndarray:
    """Return where the blocks' centres lie along a side of the mosaic [pixels]."""
    return (np.arange(side // BLOCK) + 0.5) * BLOCK - 0.5


def _tiled(plane: np.ndarray, size: int) -> np.ndarray:
    blocks = tiles(plane, size)
    return blocks.reshape(*blocks.shape[:2], size * size)


def block_medians(plane: np.ndarray, size: int) -> np.ndarray:
    """Return the medians of blocks; NaN where less than half of a block is known."""
    blocks = _tiled(plane, size)
    known = np.isfinite(blocks)
    if known.all():
        return np.median(blocks, axis=-1).astype(float)
    enough = known.mean(axis=-1) >= 0.5
    out = np.full(enough.shape, np.nan)
    out[enough] = np.nanmedian(blocks[enough], axis=-1)
    return out


def cell_means(plane: np.ndarray, size: int) -> np.ndarray:
    """Return the means of blocks; NaN where less than half of a block is known."""
    blocks = _tiled(plane, size)
    known = np.isfinite(blocks)
    count = known.sum(axis=-1)
    total = np.where(known, blocks, 0).sum(axis=-1, dtype=float)
    return np.where(count >= size * size / 2, total / np.maximum(count, 1), np.nan)
