"""Does the flat really flatten?  What is in it, what noise it adds, and what it leaves in the lights.

Left in the lights is looked for in the pixels' own response, in the smooth shape of the background, and in the shadows
of dust.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from scipy import ndimage
from tqdm.auto import tqdm

from ..core.cube import channels_of
from ..core.errors import WorkbenchError
from ..core.mosaic import channel_index, planes, tiles
from ..core.statistics import Lens, fit_lens, mad_std, weighted_by_errors
from .defects import FINE, dust_left, find_dust
from .noise import neighbour_mean

BLOCK = 32  # [pixels of the mosaic]: side of the blocks that the smooth shape is measured in
ADDED_NOISE = 0.05  # "enough" flats: they add no more than this to the noise of the whole night's background
MOVED = 0.3  # dust of which this share of its shadow stays in the lights has moved
UNEVEN = 0.01  # a correction off by more than this, from centre to corner, is reported
TINTED = 0.02  # a colour that shades this much more than green is reported


def audit_flat(flat: xr.Dataset, lights: xr.Dataset | None = None, *, progress: bool = True) -> xr.Dataset:
    """Examine a master flat, and with calibrated lights what it leaves in their background.

    In the flat, for each channel: ``response`` (by, bx), medians of blocks; ``vignetting``, the model
    A (1 + a₂ρ² + a₄ρ⁴) about its centre (``centre_y``, ``centre_x`` [pixels], ``_error``), ρ the distance over the half
    diagonal; ``falloff``, the light lost in the farthest corner; ``uneven``, rms of response/model - 1 (dust and
    whatever no lens does); ``prnu``, the pixels' own response, one standard deviation, with the flat's noise taken out;
    ``flat_noise``, the relative noise it adds to a light of many electrons; ``tint``, how much more the channel shades
    than green does.  For each mote of dust ``dust_y``, ``dust_x``, ``dust_radius`` [pixels], ``dust_depth``.

    With `lights` (from `calibrate`; five or so are enough), what the flat leaves in them:

    - ``correction`` (``_error``): the exponent k of the flat that stays in the lights, from the pixels' own response
      alone: k = (⟨(s/s̄ - 1)(F/F̄ - 1)⟩/1.25 + σ_F²)/PRNU², bars meaning four neighbours.  0 is right, -1 a flat
      applied twice, +1 none; an offset left in the flats shows as k > 0, one left in the lights as k < 0.  Nebulae and
      moonlight do not enter.
    - ``background``, ``raw_background`` (channel, by, bx): their sky with and without the flat, relative;
      ``smooth_correction`` (``_error``): k of ln background = c + a y + b x + k ln flat, which sees vignetting as well
      as nebulae; ``gradient``: the change of that plane across the frame (moon, towns: not the flat's fault).
    - ``dust_left`` (mote, ``_error``): the share of a shadow that stays; 0 is right, 1 dust that has gone, or come.
    - ``enough``: the number of flats that add 5 % to the noise of the lights' background, σ_F² N S = 1.05² - 1 for N
      lights of S electrons that are not dithered; dithering needs fewer.

    ``attrs["findings"]`` are sentences, ``attrs["verdict"]`` is ``flattens``, ``look`` or ``fails``.

    Raises
    ------
    WorkbenchError
        If it is not a master flat, or the lights do not belong to it.

    Examples
    --------
    >>> from workbench.calibrate import master_flat
    >>> from workbench.simulate import d7000, expose
    >>> from workbench.core.cube import make_cube
    >>> camera = d7000(shape=(256, 384))
    >>> frames = [expose(camera, 8e5, iso=100, exposure=0.02, seed=n) for n in range(8)]
    >>> cube = make_cube(frames, cfa_pattern="RGGB", kind="flat", iso=100, black_level=600, white_level=16383)
    >>> audit = audit_flat(master_flat(cube))
    >>> audit.falloff.values.round(2), abs(float(audit.prnu.mean()) - camera.prnu) < 0.001
    (array([0.29, 0.29, 0.29, 0.29]), True)
    """
    if flat.attrs.get("kind") != "flat":
        raise WorkbenchError(f"an audit needs a master flat, not a master of kind {flat.attrs.get('kind', 'unknown')}")
    pattern = flat.attrs["cfa_pattern"]
    cell = channel_index(pattern)
    names = channels_of(pattern)
    values, variance = flat["signal"].values, flat["variance"].values
    if min(values.shape) < 4 * BLOCK:
        raise WorkbenchError(f"a flat of {values.shape[1]} x {values.shape[0]} pixels is too small to audit")
    figures = [_audit_plane(_plane(values, cell, c), _plane(variance, cell, c), cell, c) for c in range(cell.size)]
    lenses = [figure.pop("lens") for figure in figures]
    sides = {"by": values.shape[0] // BLOCK, "bx": values.shape[1] // BLOCK}
    coords = {name: (np.arange(count) + 0.5) * BLOCK - 0.5 for name, count in sides.items()}
    result = xr.Dataset(
        {
            name: (("channel", "by", "bx")[: 1 + np.ndim(value)], [figure[name] for figure in figures])
            for name, value in figures[0].items()
        },
        coords={"channel": list(names), **coords},
    )
    green = result["falloff"].sel(channel="G1") if "G1" in names else result["falloff"][0]
    result["tint"] = result["falloff"] - green
    motes = _dust(values, variance, cell, lenses)
    for name, values in zip(("dust_y", "dust_x", "dust_radius", "dust_depth"), motes.T, strict=True):
        result[name] = ("mote", values)
    result.attrs = {name: flat.attrs[name] for name in ("camera", "iso", "frames", "cfa_pattern")}
    if lights is not None:
        result = _audit_lights(result, flat, lights, cell, progress)
    for name in _MEANINGS.keys() & set(result.variables):
        result[name].attrs = dict(zip(("units", "long_name"), _MEANINGS[name], strict=True))
    findings = _findings(result)
    worst = max((verdict for verdict, _ in findings), key=_VERDICTS.index)
    return result.assign_attrs(findings=[text for _, text in findings], verdict=worst)


def _audit_plane(plane: np.ndarray, variance: np.ndarray, cell: np.ndarray, channel: int) -> dict[str, Any]:
    """Return the figures of one CFA plane of the flat; positions are those of the mosaic."""
    step = cell.shape[0]
    response = _in_blocks(plane, BLOCK // step)
    lens = fit_lens(response)
    model = lens(*np.indices(response.shape))
    prnu, error = _prnu(plane, variance)
    row, column = (float(k) for k in np.argwhere(cell == channel)[0])
    return {
        "response": response,
        "vignetting": model,
        "lens": lens,
        "centre_y": lens.centre_y * BLOCK + (BLOCK - step) / 2 + row,
        "centre_x": lens.centre_x * BLOCK + (BLOCK - step) / 2 + column,
        "centre_error": lens.centre_error * BLOCK,
        "falloff": lens.falloff(response.shape),
        "uneven": float(np.sqrt(np.nanmean((response / model - 1) ** 2))),
        "prnu": prnu,
        "prnu_error": error,
        "flat_noise": float(np.sqrt(np.nanmean(variance / np.square(plane)))),
    }


def _prnu(plane: np.ndarray, variance: np.ndarray) -> tuple[float, float]:
    """Return the standard deviation of the pixels' response over their four neighbours' mean, without the noise.

    Var(h) = (1 + 1/4)(PRNU² + σ_F²) for independent pixels; outliers (defects, edges of dust) are cut at 5 σ.
    """
    ratio = _detail(plane)
    noise = variance[1:-1, 1:-1] / np.square(plane[1:-1, 1:-1])
    good = np.isfinite(ratio) & np.isfinite(noise)
    ratio, noise = ratio[good].astype(float), noise[good]
    spread = mad_std(ratio[::7], centre=0)
    kept = np.abs(ratio) < 5 * spread
    square = np.mean(ratio[kept] ** 2) / 1.25 - np.mean(noise[kept], dtype=float)
    error2 = math.sqrt(2 / kept.sum()) * np.mean(ratio[kept] ** 2) / 1.25 * 1.3  # neighbours share pixels
    prnu = math.sqrt(max(square, 0.0))
    return prnu, error2 / (2 * prnu) if prnu > math.sqrt(error2) else math.sqrt(error2)


def _dust(values: np.ndarray, variance: np.ndarray, cell: np.ndarray, lenses: list[Lens]) -> np.ndarray:
    """Return the shadows of dust as `find_dust` does, from all planes together."""
    size = FINE // cell.shape[0]
    dips, noise = [], []
    for channel in range(cell.size):
        fine = _in_blocks(_plane(values, cell, channel), size, _MEAN)
        y, x = ((np.indices(fine.shape) + 0.5) * FINE / BLOCK) - 0.5
        flattened = fine / lenses[channel](y, x)
        dips.append(flattened / _smooth(flattened) - 1)
        noise.append(np.nanmean(_plane(variance, cell, channel)) / size**2)
    return find_dust(-np.nanmean(dips, axis=0), math.sqrt(np.mean(noise) / len(dips)))


def _smooth(fine: np.ndarray) -> np.ndarray:
    """Return the shape that the lens model misses, smooth over some 600 pixels: medians of 25 coarse cells a side."""
    coarse = ndimage.median_filter(_in_blocks(fine, 3), size=25, mode="nearest")
    coarse = np.where(np.isfinite(coarse), coarse, np.nanmedian(coarse))
    rows, columns = ((np.arange(side) + 0.5) / 3 - 0.5 for side in fine.shape)
    return ndimage.map_coordinates(coarse, np.meshgrid(rows, columns, indexing="ij"), order=1, mode="nearest")


def _audit_lights(
    audit: xr.Dataset, flat: xr.Dataset, lights: xr.Dataset, cell: np.ndarray, progress: bool
) -> xr.Dataset:
    """Return the audit of a flat with what it leaves in the lights' background."""
    if lights["signal"].attrs.get("stage") != "calibrated":
        raise WorkbenchError("the audit needs calibrated lights: workbench.calibrate.calibrate(lights, masters)")
    if lights["signal"].shape[1:] != flat["signal"].shape or lights.attrs["cfa_pattern"] != flat.attrs["cfa_pattern"]:
        raise WorkbenchError("these lights do not belong to this flat: their size or mosaic differs")
    count, step, channels = lights.sizes["frame"], cell.shape[0], range(cell.size)
    after, before = np.zeros((2, count, *audit["response"].shape))
    sky, sums = np.zeros((count, cell.size)), np.zeros((cell.size, 4))
    flats = [_plane(flat["signal"].values, cell, channel) for channel in channels]
    details = [_detail(plane) for plane in flats]
    cells: list[np.ndarray] = []
    for number in tqdm(
        range(count), desc="auditing the flat", unit="light", delay=2, leave=False, disable=not progress
    ):
        frame = lights[["signal", "mask"]].isel(frame=number).compute(scheduler="synchronous")
        signal = np.where(frame["mask"].values == 0, frame["signal"].values, np.float32(np.nan))
        fine = np.zeros((), np.float32)
        for channel in channels:
            plane = _plane(signal, cell, channel)
            blocks, raw = (_in_blocks(values, BLOCK // step) for values in (plane, plane * flats[channel]))
            sky[number, channel] = level = float(np.nanmedian(blocks))
            after[number, channel], before[number, channel] = blocks / level, raw / np.nanmedian(raw)
            sums[channel] += _pixel_sums(plane, details[channel], level)
            fine = fine + (_in_blocks(plane, FINE // step) / level / cell.size).astype(np.float32)
        cells.append(fine)
    fine = np.asarray(np.nanmedian(cells, axis=0), float)  # dithered stars go
    background, raw_background = (np.nanmedian(values, axis=0) for values in (after, before))
    prnu, noise = audit["prnu"].values, audit["flat_noise"].values
    pixel = [_pixel_correction(sums[c], prnu[c], noise[c]) for c in channels]
    smooth = [_correction(background[c], audit["response"].values[c]) for c in channels]
    share = np.square(noise) * sky.sum(axis=0) / ((1 + ADDED_NOISE) ** 2 - 1)
    enough = np.ceil(np.maximum(share * flat.attrs["frames"], 1.0))
    names = ("correction", "correction_error", "smooth_correction", "smooth_correction_error", "gradient")
    left = np.array([dust_left(fine, audit, n) for n in range(audit.sizes["mote"])]).reshape(-1, 2)
    maps = {"background": background, "raw_background": raw_background}
    columns = dict(zip(names, np.hstack([pixel, smooth]).T, strict=True))
    return audit.assign(
        {name: (("channel", "by", "bx"), values) for name, values in maps.items()}
        | {name: ("channel", values) for name, values in columns.items()}
        | {"dust_left": ("mote", left[:, 0]), "dust_left_error": ("mote", left[:, 1])}
        | {"sky": ("channel", sky.mean(axis=0)), "enough": ("channel", enough)}
    ).assign_attrs(lights=count)


def _pixel_sums(plane: np.ndarray, of_flat: np.ndarray, level: float) -> np.ndarray:
    """Return n, Σ dh, Σ d², Σ h² of the light's and the flat's details where there is only sky."""
    if not level > 0:
        return np.zeros(4)
    d = _detail(plane)
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


def _detail(plane: np.ndarray) -> np.ndarray:
    """Return each pixel over the mean of its four neighbours, less one, without the edge: (y - 2, x - 2)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return plane[1:-1, 1:-1] / neighbour_mean(plane) - 1


def _plane(mosaic: np.ndarray, cell: np.ndarray, channel: int) -> np.ndarray:
    """Return one CFA plane of a mosaic, whole cells only; a view."""
    height, width = (side // cell.shape[0] * cell.shape[0] for side in mosaic.shape)
    return dict(planes(mosaic[:height, :width], cell))[channel]


_MEAN = partial(np.nanmean, dtype=float)


def _in_blocks(plane: np.ndarray, size: int, statistic: Callable[..., Any] = np.nanmedian) -> np.ndarray:
    """Return the medians, or another statistic, of blocks; NaN where less than half of a block is known."""
    blocks = tiles(plane, size)
    blocks = blocks.reshape(*blocks.shape[:2], size * size)
    known = np.isfinite(blocks)
    if statistic is np.nanmedian and known.all():  # much faster
        return np.median(blocks, axis=-1).astype(float)
    enough = known.mean(axis=-1) >= 0.5
    out = np.full(enough.shape, np.nan)
    out[enough] = statistic(blocks[enough], axis=-1)
    return out


_VERDICTS = ("flattens", "look", "fails")


def _findings(result: xr.Dataset) -> list[tuple[str, str]]:
    """Return verdicts and sentences."""
    depth = float(result["falloff"].max())
    height, width = (float(result[name][-1] + result[name][0]) for name in ("by", "bx"))
    offset = np.hypot(float(result["centre_y"].mean()) - height / 2, float(result["centre_x"].mean()) - width / 2)
    findings = [
        f"the corners get {depth:.0%} less light; the centre of vignetting lies {offset:.0f} px from the frame's"
    ]
    in_lights = _findings_in_lights(result, depth) if "correction" in result else []
    later = []
    if (largest := float(np.abs(result["tint"]).max())) > TINTED:
        later.append(f"the colours shade differently, by up to {largest:.1%} in the corners; the flat takes that out")
    if result.sizes["mote"]:
        later.append(f"{result.sizes['mote']} dust shadows, the deepest {float(result['dust_depth'].max()):.1%}")
    prnu, noise = (float(result[name].mean()) for name in ("prnu", "flat_noise"))
    later.append(f"PRNU {prnu:.2%}, noise of the master {noise:.2%} a pixel")
    return [("flattens", findings[0]), *in_lights, *(("flattens", text) for text in later)]


def _findings_in_lights(result: xr.Dataset, depth: float) -> list[tuple[str, str]]:
    """Return verdicts and sentences on what the flat leaves in the lights."""
    findings = []
    k, error = weighted_by_errors(result["correction"].values, result["correction_error"].values)
    measured = f"k = {k:+.3f} ± {error:.3f}"
    if abs(k) * depth > UNEVEN and abs(k) > 4 * error:
        why = "an offset was left in the " + ("flats" if k > 0 else "lights, or the flat applied twice")
        word = "under" if k > 0 else "over"
        findings.append(("fails", f"the lights are {word}-corrected by {abs(k):.0%} of the flat ({measured}): {why}"))
    elif math.isfinite(k):
        findings.append(("flattens", f"the pixels' own response is taken out: {measured}"))
    smooth = np.abs(result["smooth_correction"])
    left = float(smooth.max()) * depth
    if left > UNEVEN and bool((smooth > 3 * result["smooth_correction_error"]).any()):
        text = (
            f"a smooth shape like that of the vignetting stays in the background, {left:.1%} in the corners: a "
            "nebula or moonlight does that, and so does stray light in flats or lights"
        )
        findings.append(("look", text))
    dust = np.abs(result["dust_left"])
    if moved := int(((dust > MOVED) & (dust > 5 * result["dust_left_error"])).sum()):
        shadows = f"{moved} of {result.sizes['mote']} dust shadows"
        findings.append(("fails", f"{shadows} are not taken out: dust moved between flats and lights"))
    need, have = int(result["enough"].max()), int(result.attrs["frames"])
    if need > have:
        more = f"more than {ADDED_NOISE:.0%} to the noise of these lights; {need} would be enough"
        findings.append(("look", f"{have} flats add {more}"))
    else:
        few = f"{have} flats are enough for these lights: {need} would add {ADDED_NOISE:.0%} to their noise"
        findings.append(("flattens", few))
    return findings


_MEANINGS = {
    "response": ("1", "relative response of the flat, median of blocks"),
    "vignetting": ("1", "vignetting model"),
    "centre_y": ("pix", "centre of vignetting, row"),
    "centre_x": ("pix", "centre of vignetting, column"),
    "centre_error": ("pix", "standard error of the centre"),
    "falloff": ("1", "light lost in the farthest corner"),
    "uneven": ("1", "rms of the flat against the vignetting model"),
    "prnu": ("1", "photo response non-uniformity"),
    "prnu_error": ("1", "standard error of the PRNU"),
    "flat_noise": ("1", "relative noise of the master flat"),
    "tint": ("1", "shading beyond that of green"),
    "dust_y": ("pix", "row of a dust shadow"),
    "dust_x": ("pix", "column of a dust shadow"),
    "dust_radius": ("pix", "radius of a dust shadow"),
    "dust_depth": ("1", "light that a dust shadow takes"),
    "background": ("1", "background of the calibrated lights, relative"),
    "raw_background": ("1", "background before the flat, relative"),
    "correction": ("1", "exponent of the flat left in the lights' pixels"),
    "correction_error": ("1", "standard error of the exponent"),
    "smooth_correction": ("1", "exponent of the flat left in the lights' background"),
    "smooth_correction_error": ("1", "standard error of the smooth exponent"),
    "dust_left": ("1", "share of a dust shadow left in the lights"),
    "dust_left_error": ("1", "standard error of that share"),
    "gradient": ("1", "plane left in the lights, change over the frame"),
    "sky": ("electron", "background of a light"),
    "enough": ("1", "flats that would be enough"),
    "by": ("pix", "row of the block's centre"),
    "bx": ("pix", "column of the block's centre"),
}
