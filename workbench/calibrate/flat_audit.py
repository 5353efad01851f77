"""Does the flat really flatten?  What is in it, what noise it adds, and what it leaves in the lights.

Left in the lights is looked for in the pixels' own response, in the smooth shape of the background, and in the shadows
of dust.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import xarray as xr
from dask.local import get_sync
from scipy import ndimage
from tqdm.auto import tqdm

from ..core.area import neighbour_mean
from ..core.cube import channels_of, first_green
from ..core.errors import WorkbenchError
from ..core.mosaic import channel_count, channel_index, planes, tiles
from ..core.parallel import FRAME_BYTES, in_threads
from ..core.statistics import Lens, fit_lens, mad_std
from .defects import FINE, cell_means, dust_left, find_dust
from .flat_findings import ADDED_NOISE, findings_of

BLOCK = 32  # [pixels of the mosaic]: side of the blocks that the smooth shape is measured in


def audit_flat(
    flat: xr.Dataset,
    lights: xr.Dataset | Iterable[np.ndarray] | None = None,
    *,
    night: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Examine a master flat, and with calibrated lights what it leaves in their background.

    In the flat, for each channel: ``response`` (by, bx), medians of blocks; ``vignetting``, the model
    A (1 + a₂ρ² + a₄ρ⁴) about its centre (``centre_y``, ``centre_x`` [pixels], ``_error``), ρ the distance over the half
    diagonal; ``falloff``, the light lost in the farthest corner; ``uneven``, rms of response/model - 1 (dust and
    whatever no lens does); ``prnu``, the pixels' own response, one standard deviation, with the flat's noise taken out;
    ``flat_noise``, the relative noise it adds to a light of many electrons; ``tint``, how much more the channel shades
    than green does.  For each mote of dust ``dust_y``, ``dust_x``, ``dust_radius`` [pixels], ``dust_depth``.

    With `lights` (from `calibrate`, or each light's signal (y, x) [e-], NaN where it is not valid; three to five are
    enough), what the flat leaves in them:

    - ``correction`` (``_error``): the exponent k of the flat that stays in the lights, from the pixels' own response
      alone: k = (⟨(s/s̄ - 1)(F/F̄ - 1)⟩/1.25 + σ_F²)/PRNU², bars meaning four neighbours.  0 is right, -1 a flat
      applied twice, +1 none; an offset left in the flats shows as k > 0, one left in the lights as k < 0.  Nebulae and
      moonlight do not enter.
    - ``offset`` (``_error``) [e-]: the offset left in the lights that would do the same, k S = -offset.
    - ``background``, ``raw_background`` (channel, by, bx): their sky with and without the flat, relative;
      ``smooth_correction`` (``_error``): k of ln background = c + a y + b x + k ln flat, which sees vignetting as well
      as nebulae; ``gradient``: the change of that plane across the frame (moon, towns: not the flat's fault).
    - ``dust_left`` (mote, ``_error``): the share of a shadow that stays; 0 is right, 1 dust that has gone, or come.
    - ``enough``: the number of flats that add 5 % to the noise of the lights' background, σ_F² N S = 1.05² - 1 for the
      N lights of a `night` (by default those looked at) of S electrons, not dithered; dithering needs fewer.
    - ``shape_left``, ``shape_share``, ``shape``: k of what in the flat is not a lens's shape (-1: light that came into
      the flats alone), the share of the background's unevenness that it explains, and how much it varies.

    ``attrs["findings"]`` are sentences, ``attrs["failures"]`` those of them that are failures, ``attrs["verdict"]`` is
    ``flattens``, ``look`` or ``fails``.

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
    fine = cell_means(values, cell)
    channels = range(channel_count(cell))
    figures = [_audit_plane(_plane(values, cell, c), _plane(variance, cell, c), fine[c], cell, c) for c in channels]
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
    green = result["falloff"].sel(channel=first_green(names))
    result["tint"] = result["falloff"] - green
    motes = _dust(fine, float(result["flat_noise"].mean()) / FINE, lenses)
    for name, values in zip(("dust_y", "dust_x", "dust_radius", "dust_depth"), motes.T, strict=True):
        result[name] = ("mote", values)
    result.attrs = {name: flat.attrs[name] for name in ("camera", "iso", "frames", "cfa_pattern")}
    result.attrs |= {"level": float(np.mean(flat.attrs.get("level", math.nan))), "night": night or 0}
    if lights is not None:
        result = _audit_lights(result, flat, fine, lights, cell, progress)
    for name in _MEANINGS.keys() & set(result.variables):
        result[name].attrs = dict(zip(("units", "long_name"), _MEANINGS[name], strict=True))
    findings, failures, verdict = findings_of(result)
    return result.assign_attrs(findings=findings, failures=failures, verdict=verdict)


def _audit_plane(
    plane: np.ndarray, variance: np.ndarray, fine: np.ndarray, cell: np.ndarray, channel: int
) -> dict[str, Any]:
    """Return the figures of one CFA plane of the flat, `fine` in cells; positions are those of the mosaic."""
    step = cell.shape[0]
    response = _in_blocks(fine, BLOCK // FINE)
    thin = _thinning(response)
    lens = fit_lens(response[::thin, ::thin]).enlarged(thin, math.hypot(*response.shape) / 2)
    model = lens(*np.indices(response.shape))
    some, noise = _bands(plane), _bands(variance)
    prnu, error = _prnu(some, noise)
    row, column = (float(k) for k in np.argwhere(cell == channel).mean(axis=0))
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
        "flat_noise": float(np.sqrt(np.nanmean(noise / np.square(some)))),
    }


def _prnu(plane: np.ndarray, variance: np.ndarray) -> tuple[float, float]:
    """Return the standard deviation of the pixels' response over their four neighbours' mean, without the noise.

    Var(h) = (1 + 1/4)(PRNU² + σ_F²) for independent pixels; outliers (defects, edges of dust) are cut at 5 σ.
    """
    ratio, _ = _detail(plane)
    noise = variance[:, 1:-1, 1:-1] / np.square(plane[:, 1:-1, 1:-1])
    good = np.isfinite(ratio) & np.isfinite(noise)
    ratio, noise = ratio[good].astype(float), noise[good]
    spread = mad_std(ratio[::7], centre=0)
    kept = np.abs(ratio) < 5 * spread
    square = np.mean(ratio[kept] ** 2) / 1.25 - np.mean(noise[kept], dtype=float)
    error2 = math.sqrt(2 / kept.sum()) * np.mean(ratio[kept] ** 2) / 1.25 * 1.3  # neighbours share pixels
    prnu = math.sqrt(max(square, 0.0))
    return prnu, error2 / (2 * prnu) if prnu > math.sqrt(error2) else math.sqrt(error2)


def _dust(fine: np.ndarray, noise: float, lenses: list[Lens]) -> np.ndarray:
    """Return the shadows of dust as `find_dust` does, from the cells of all planes together and their noise."""
    y, x = ((np.indices(fine.shape[1:]) + 0.5) * FINE / BLOCK) - 0.5
    flattened = np.nanmean([plane / lens(y, x) for plane, lens in zip(fine, lenses, strict=True)], axis=0)
    return find_dust(1 - flattened / _smooth(flattened), noise)


def _smooth(fine: np.ndarray) -> np.ndarray:
    """Return the shape that the lens model misses, smooth over some 650 pixels: medians of 9 coarse cells a side."""
    size = 9
    coarse = ndimage.median_filter(_in_blocks(fine, size), size=9, mode="nearest")
    coarse = np.where(np.isfinite(coarse), coarse, np.nanmedian(coarse))
    rows, columns = ((np.arange(side) + 0.5) / size - 0.5 for side in fine.shape)
    return ndimage.map_coordinates(coarse, np.meshgrid(rows, columns, indexing="ij"), order=1, mode="nearest")


def _audit_lights(
    audit: xr.Dataset,
    flat: xr.Dataset,
    cells: np.ndarray,
    lights: xr.Dataset | Iterable[np.ndarray],
    cell: np.ndarray,
    progress: bool,
) -> xr.Dataset:
    """Return the audit of a flat, given in `cells`, with what it leaves in the lights' background."""
    channels = range(channel_count(cell))
    details = [_detail(_bands(_plane(flat["signal"].values, cell, channel))) for channel in channels]
    signals = lights if not isinstance(lights, xr.Dataset) else _signals(lights, flat)

    def look(signal: np.ndarray) -> tuple[np.ndarray, ...]:
        """Levels, background after and before the flat, sums over pixels, the picture in cells; of one light."""
        fine = cell_means(signal, cell)
        after = np.array([_in_blocks(fine[channel], BLOCK // FINE) for channel in channels])
        level = np.array([np.nanmedian(blocks) for blocks in after])
        before = np.array([_in_blocks(fine[channel] * cells[channel], BLOCK // FINE) for channel in channels])
        sums = [_pixel_sums(_bands(_plane(signal, cell, c)), details[c], level[c]) for c in channels]
        return level, after, before, np.array(sums), (fine / level[:, None, None]).mean(axis=0)

    looks = in_threads(look, signals, each=FRAME_BYTES)
    looks = tqdm(looks, desc="auditing the flat", unit="light", delay=2, leave=False, disable=not progress)
    levels, after, before, light_sums, shown = zip(*looks, strict=True)
    sums = sum(light_sums, np.zeros((len(channels), 7)))
    sky, count = np.array(levels), len(levels)
    fine = np.ma.median(np.ma.masked_invalid(shown), axis=0).filled(np.nan)  # dithered stars go
    background = np.nanmedian(np.array(after) / sky[..., None, None], axis=0)
    raw_background = np.nanmedian(before / np.nanmedian(before, axis=(2, 3), keepdims=True), axis=0)
    prnu, noise = audit["prnu"].values, audit["flat_noise"].values
    pixel = [_pixel_correction(sums[c], prnu[c], noise[c]) for c in channels]
    smooth = [_correction(background[c], audit["response"].values[c]) for c in channels]
    share = np.square(noise) * sky.mean(axis=0) * (audit.attrs["night"] or count) / ((1 + ADDED_NOISE) ** 2 - 1)
    enough = np.ceil(np.maximum(share * flat.attrs["frames"], 1.0))
    names = [f"{name}{error}" for name in ("correction", "offset", "smooth_correction") for error in ("", "_error")]
    left = np.array([dust_left(fine, audit, n) for n in range(audit.sizes["mote"])]).reshape(-1, 2)
    maps = {"background": background, "raw_background": raw_background}
    columns = dict(zip([*names, "gradient"], np.hstack([pixel, smooth]).T, strict=True))
    columns |= dict(zip(("shape_left", "shape_share", "shape"), _shape_left(background, audit), strict=True))
    return audit.assign(
        {name: (("channel", "by", "bx"), values) for name, values in maps.items()}
        | {name: ("channel", values) for name, values in columns.items()}
        | {"dust_left": ("mote", left[:, 0]), "dust_left_error": ("mote", left[:, 1])}
        | {"sky": ("channel", sky.mean(axis=0)), "enough": ("channel", enough)}
    ).assign_attrs(lights=count)


def _signals(lights: xr.Dataset, flat: xr.Dataset) -> Iterator[np.ndarray]:
    """Yield the signal of each calibrated light, NaN where it is not valid."""
    if lights["signal"].attrs.get("stage") != "calibrated":
        raise WorkbenchError("the audit needs calibrated lights: workbench.calibrate.calibrate(lights, masters)")
    if lights["signal"].shape[1:] != flat["signal"].shape or lights.attrs["cfa_pattern"] != flat.attrs["cfa_pattern"]:
        raise WorkbenchError("these lights do not belong to this flat: their size or mosaic differs")
    for number in range(lights.sizes["frame"]):
        frame = lights[["signal", "mask"]].isel(frame=number).compute(scheduler=get_sync)
        yield np.where(frame["mask"].values == 0, frame["signal"].values, np.float32(np.nan))


def _pixel_sums(bands: np.ndarray, of_flat: tuple[np.ndarray, np.ndarray], level: float) -> np.ndarray:
    """Return n, Σ dh, Σ d², Σ h², Σ rdh, Σ r²d², Σ r of details in the sky, r the light before the flat [e-]."""
    if not level > 0:
        return np.zeros(7)
    (d, around), (h, flat) = _detail(bands), of_flat
    spread = float(mad_std(d[:, ::5, ::5], centre=0))
    with np.errstate(invalid="ignore"):
        good = (np.abs(d) < 5 * spread) & (np.abs(h) < 0.1)
    d, h, r = d[good].astype(float), h[good].astype(float), (around[good] * flat[good]).astype(float)
    return np.array([d.size, *((part).sum() for part in (d * h, d * d, h * h, r * d * h, (r * d) ** 2, r))])


def _pixel_correction(sums: np.ndarray, prnu: float, flat_noise: float) -> tuple[float, float, float, float]:
    """Return k and its error, and the offset left [e-] and its error, from the sums of all lights.

    With an offset c left in the lights, e = S + c/F, and a pixel's e F̄ less that of its neighbours is -c h.  NaN where
    the sensor's response is too even for it.
    """
    n, product, light, flat, offset, square, raw = sums
    if n < 100 or not prnu > 0.2 * flat_noise:
        return (math.nan,) * 4
    k = (product / n / 1.25 + flat_noise**2) / prnu**2
    c = -(offset / n / 1.25 + raw / n * flat_noise**2) / prnu**2
    error = 1.3 * math.sqrt(flat) / n / 1.25 / prnu**2  # neighbours share pixels
    return k, error * math.sqrt(light / n), c, error * math.sqrt(square / n)


def _correction(background: np.ndarray, response: np.ndarray) -> tuple[float, float, float]:
    """Return k, its error, and the plane's change over the frame, of ln background = c + a y + b x + k ln flat."""
    solution, errors, _ = _fit_background(background, response)
    return float(solution[3]), float(errors[3]), float(math.hypot(*solution[1:3]))


def _fit_background(background: np.ndarray, *shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit ln background = c + a y + b x + Σ kᵢ ln shapeᵢ; returns the solution, its errors, and each kᵢ's share.

    By bisquare weights, so that stars and nebulae count little.  The share is that of the squared residuals without
    the shape which the shape takes away.
    """
    rows, columns = background.shape
    thin = _thinning(background)
    y, x = np.mgrid[:rows:thin, :columns:thin]
    background, shapes = background[::thin, ::thin], tuple(values[::thin, ::thin] for values in shapes)
    good = np.logical_and.reduce([np.isfinite(values) & (values > 0) for values in (background, *shapes)])
    logs = [np.log(values[good]) for values in shapes]
    design = np.stack([np.ones(good.sum()), y[good] / rows - 0.5, x[good] / columns - 0.5, *logs], axis=1)
    target = np.log(background[good])
    weight = np.ones(target.size)
    for _ in range(30):
        scaled = design * weight[:, None]
        solution = np.linalg.lstsq(scaled, target * weight, rcond=None)[0]
        residual = target - design @ solution
        spread = max(float(mad_std(residual, centre=0)), 1e-9)
        weight = np.sqrt(np.clip(1 - (residual / (4.685 * spread)) ** 2, 0, None) ** 2)
    inverse = np.linalg.pinv((design * weight[:, None] ** 2).T @ design)
    squares = (weight**2 * residual**2).sum()
    variance = squares / max((weight > 0).sum() - design.shape[1], 1)
    gained = np.square(solution[3:]) / np.diag(inverse)[3:]
    # neighbouring blocks share nebulae and star halos: some four of them are worth one
    return solution, 2 * np.sqrt(np.diag(inverse) * variance), gained / (gained + squares)


def _shape_left(background: np.ndarray, audit: xr.Dataset) -> np.ndarray:
    """Return how much of the flat's own shape, that which is not a lens's, stays in the background (3, channel).

    The exponent k of ln background = c + a y + b x + j ln lens + k ln(flat/lens), where there is no dust; the share of
    the background's unevenness that it takes away; and how much the shape varies, 5th to 95th percentile.  Light that
    came into the flats alone has k = -1, and it is the most of what is uneven in the background.
    """
    by, bx = np.meshgrid(audit["by"].values, audit["bx"].values, indexing="ij")
    clean = np.ones(by.shape, bool)
    for y, x, radius in zip(*(audit[f"dust_{name}"].values for name in ("y", "x", "radius")), strict=True):
        clean &= np.hypot(by - y, bx - x) > 2 * radius + BLOCK
    found = []
    for plane, response, model in zip(background, audit["response"].values, audit["vignetting"].values, strict=True):
        shape = np.where(clean, response / model, np.nan)
        if np.count_nonzero(np.isfinite(shape * plane)) < 30:
            found.append((math.nan,) * 3)
            continue
        solution, _, share = _fit_background(plane, model, shape)
        found.append((float(solution[4]), float(share[1]), float(np.ptp(np.nanpercentile(shape, (5, 95))))))
    return np.transpose(found)


def _thinning(blocks: np.ndarray) -> int:
    """Return every how manyeth block is enough for a smooth shape: some 2000 of them."""
    return max(int(math.sqrt(blocks.size / 2000)), 1)


def _bands(plane: np.ndarray) -> np.ndarray:
    """Return bands of rows of a plane, evenly spread, some 300,000 pixels in all (band, y, x)."""
    height = min(32, plane.shape[0])
    bands = tiles(plane, height, plane.shape[1])[:, 0]
    return bands[:: max(1, round(bands.size / 300_000))]


def _detail(bands: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each pixel over the mean of its four neighbours, less one, and that mean: (band, y - 2, x - 2)."""
    around = neighbour_mean(bands)
    with np.errstate(invalid="ignore", divide="ignore"):
        return bands[:, 1:-1, 1:-1] / around - 1, around


def _plane(mosaic: np.ndarray, cell: np.ndarray, channel: int) -> np.ndarray:
    """Return one CFA plane of a mosaic, whole cells only; not to be written to."""
    height, width = (side // cell.shape[0] * cell.shape[0] for side in mosaic.shape)
    return dict(planes(mosaic[:height, :width], cell))[channel]


def _in_blocks(cells: np.ndarray, size: int) -> np.ndarray:
    """Return the medians of blocks of cells; NaN where less than half of a block is known."""
    blocks = tiles(cells, size)
    blocks = blocks.reshape(*blocks.shape[:2], size * size)
    known = np.isfinite(blocks)
    if known.all():  # much faster
        return np.median(blocks, axis=-1)
    enough = known.mean(axis=-1) >= 0.5
    out = np.full(enough.shape, np.nan)
    out[enough] = np.nanmedian(blocks[enough], axis=-1)
    return out


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
    "offset": ("electron", "offset left in the lights, if it is that"),
    "offset_error": ("electron", "standard error of the offset"),
    "smooth_correction": ("1", "exponent of the flat left in the lights' background"),
    "smooth_correction_error": ("1", "standard error of the smooth exponent"),
    "dust_left": ("1", "share of a dust shadow left in the lights"),
    "dust_left_error": ("1", "standard error of that share"),
    "shape_left": ("1", "exponent of the flat's own shape left in the lights' background"),
    "shape_share": ("1", "share of the background's unevenness that the flat's own shape explains"),
    "shape": ("1", "what in the flat is not a lens's shape, 5th to 95th percentile"),
    "gradient": ("1", "plane left in the lights, change over the frame"),
    "sky": ("electron", "background of a light"),
    "enough": ("1", "flats that would be enough"),
    "by": ("pix", "row of the block's centre"),
    "bx": ("pix", "column of the block's centre"),
}
