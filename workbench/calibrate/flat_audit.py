"""Does the flat really flatten?  What is in it, what noise it adds, and what it leaves in the lights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr
from scipy import ndimage

from ..core.cube import channels_of
from ..core.errors import WorkbenchError
from ..core.mosaic import channel_index
from ..core.statistics import Lens, fit_lens, mad_std
from .flat_residuals import ADDED_NOISE, BLOCK, FINE, audit_lights, block_medians, cell_means, centres, detail, plane_of

DUST_DEPTH = 0.003  # a shadow must take at least this part of the light
DUST_SIGMAS = 6.0
DUST_CELLS = 6  # and cover this many cells
MOVED = 0.3  # dust of which this share of its shadow stays in the lights has moved
UNEVEN = 0.01  # a correction off by more than this, from centre to corner, is reported
TINTED = 0.02  # a colour that shades this much more than green is reported


def audit_flat(flat: xr.Dataset, lights: xr.Dataset | None = None, *, progress: bool = True) -> xr.Dataset:
    """Examine a master flat, and with calibrated lights what it leaves in their background.

    In the flat, for each channel:

    - ``response`` (channel, by, bx): medians of blocks; ``vignetting``: the model A (1 + a₂ρ² + a₄ρ⁴) about its centre
      (``centre_y``, ``centre_x`` [pixels], ``_error``), ρ the distance over the half diagonal; ``falloff``: the
      light lost in the farthest corner; ``uneven``: rms of response/model - 1 (dust and whatever no lens does).
    - ``prnu``: the pixels' own response, one standard deviation, with the flat's noise taken out.
    - ``flat_noise``: relative noise of the master's pixels, the noise it adds to a light of many electrons.
    - ``tint``: how much more the channel shades than green does, corner to centre.
    - ``dust`` (mote): ``dust_y``, ``dust_x``, ``dust_radius`` [pixels], ``dust_depth``.

    With `lights` (from `calibrate`; five or so are enough), what the flat leaves in them:

    - ``correction`` (``_error``): the exponent k of the flat that stays in the lights, from the pixels' own response
      alone: k = (⟨(s/s̄ - 1)(F/F̄ - 1)⟩/1.25 + σ_F²)/PRNU², bars meaning four neighbours.  0 is right, -1 a flat
      applied twice, +1 none; an offset left in the flats shows as k > 0, one left in the lights as k < 0.  Nebulae and
      moonlight do not enter.
    - ``background`` and ``raw_background`` (channel, by, bx): their sky with and without the flat, relative;
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
    figures = [_audit_plane(plane_of(values, cell, c), plane_of(variance, cell, c), cell, c) for c in range(cell.size)]
    lenses = [figure.pop("lens") for figure in figures]
    result = xr.Dataset(
        {
            name: (
                ("channel", "by", "bx") if np.ndim(figures[0][name]) else ("channel",),
                [figure[name] for figure in figures],
            )
            for name in figures[0]
        },
        coords={"channel": list(names), "by": centres(values.shape[0]), "bx": centres(values.shape[1])},
    )
    green = result["falloff"].sel(channel="G1") if "G1" in names else result["falloff"][0]
    result["tint"] = result["falloff"] - green
    motes = _dust(values, variance, cell, lenses)
    for name, values in zip(("dust_y", "dust_x", "dust_radius", "dust_depth"), motes.T, strict=True):
        result[name] = ("mote", values)
    result.attrs = {name: flat.attrs[name] for name in ("camera", "iso", "frames", "cfa_pattern")}
    if lights is not None:
        result = audit_lights(result, flat, lights, cell, progress)
    _describe(result)
    result.attrs["findings"], result.attrs["verdict"] = _findings(result)
    return result


def _audit_plane(plane: np.ndarray, variance: np.ndarray, cell: np.ndarray, channel: int) -> dict[str, Any]:
    """Return the figures of one CFA plane of the flat; positions are those of the mosaic."""
    step = cell.shape[0]
    response = block_medians(plane, BLOCK // step)
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
    ratio = detail(plane)
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
    """Return the shadows (mote, (y, x, radius, depth)), the deepest first, from all planes together."""
    size = FINE // cell.shape[0]
    cells, noise = [], []
    for channel in range(cell.size):
        fine = cell_means(plane_of(values, cell, channel), size)
        y, x = ((np.indices(fine.shape) + 0.5) * FINE / BLOCK) - 0.5
        flattened = fine / lenses[channel](y, x)
        cells.append(flattened / _smooth(flattened) - 1)
        noise.append(np.nanmean(plane_of(variance, cell, channel)) / size**2)
    dips = -np.nanmean(cells, axis=0)
    spread = max(float(mad_std(dips, centre=0)), math.sqrt(np.mean(noise) / len(cells)))
    threshold = max(DUST_DEPTH, DUST_SIGMAS * spread)
    labels, count = ndimage.label(ndimage.binary_closing(np.nan_to_num(dips) > threshold, np.ones((3, 3))))
    motes = []
    for number, where in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[where] == number
        if inside.sum() < DUST_CELLS:
            continue
        y, x = np.nonzero(inside)
        top, left = where[0].start, where[1].start
        centre = [(np.mean(axis) + start + 0.5) * FINE - 0.5 for axis, start in ((y, top), (x, left))]
        motes.append([*centre, math.sqrt(inside.sum() / math.pi) * FINE, float(np.nanmax(dips[where][inside]))])
    return np.array(sorted(motes, key=lambda mote: -mote[3]), float).reshape(-1, 4) if count else np.empty((0, 4))


def _smooth(fine: np.ndarray) -> np.ndarray:
    """Return the shape that the lens model misses, smooth over some 600 pixels: medians of 25 coarse cells a side."""
    coarse = ndimage.median_filter(block_medians(fine, 3), size=25, mode="nearest")
    coarse = np.where(np.isfinite(coarse), coarse, np.nanmedian(coarse))
    rows, columns = ((np.arange(side) + 0.5) / 3 - 0.5 for side in fine.shape)
    return ndimage.map_coordinates(coarse, np.meshgrid(rows, columns, indexing="ij"), order=1, mode="nearest")


def _findings(result: xr.Dataset) -> tuple[list[str], str]:
    findings, verdict = [], "flattens"
    largest = float(np.abs(result["tint"]).max())
    depth = float(result["falloff"].max())
    height, width = (float(result[name][-1] + result[name][0]) for name in ("by", "bx"))
    offset = np.hypot(float(result["centre_y"].mean()) - height / 2, float(result["centre_x"].mean()) - width / 2)
    findings.append(
        f"the corners get {depth:.0%} less light; the centre of vignetting lies {offset:.0f} px from the frame's"
    )
    if "correction" in result:
        verdict = _findings_in_lights(result, depth, findings)
    if largest > TINTED:
        findings.append(
            f"the colours shade differently, by up to {largest:.1%} in the corners; the flat takes that out"
        )
    if result.sizes["mote"]:
        findings.append(f"{result.sizes['mote']} dust shadows, the deepest {float(result['dust_depth'].max()):.1%}")
    prnu, noise = (float(result[name].mean()) for name in ("prnu", "flat_noise"))
    findings.append(f"PRNU {prnu:.2%}, noise of the master {noise:.2%} a pixel")
    return findings, verdict


def _findings_in_lights(result: xr.Dataset, depth: float, findings: list[str]) -> str:
    """Append what the flat leaves in the lights to the findings; returns the verdict."""
    verdict = "flattens"
    k, error = _together(result["correction"].values, result["correction_error"].values)
    if abs(k) * depth > UNEVEN and abs(k) > 4 * error:
        verdict = "fails"
        why = (
            "an offset was left in the flats"
            if k > 0
            else "an offset was left in the lights, or the flat applied twice"
        )
        word = "under" if k > 0 else "over"
        findings.append(
            f"the lights are {word}-corrected by {abs(k):.0%} of the flat (k = {k:+.3f} ± {error:.3f}): {why}"
        )
    elif math.isfinite(k):
        findings.append(f"the pixels' own response is taken out: k = {k:+.3f} ± {error:.3f}")
    smooth = result["smooth_correction"]
    left = float(np.abs(smooth).max()) * depth
    significant = bool((np.abs(smooth) > 3 * result["smooth_correction_error"]).any())
    if left > UNEVEN and significant:
        verdict = "look" if verdict == "flattens" else verdict
        findings.append(
            f"a smooth shape like that of the vignetting stays in the background, {left:.1%} in the corners: a "
            "nebula or moonlight does that, and so does stray light in flats or lights"
        )
    dust, scatter = np.abs(result["dust_left"].values), result["dust_left_error"].values
    moved = int(((dust > MOVED) & (dust > 5 * scatter)).sum())
    if moved:
        verdict = "fails"
        findings.append(
            f"{moved} of {result.sizes['mote']} dust shadows are not taken out: dust moved between flats and lights"
        )
    need, have = int(result["enough"].max()), int(result.attrs["frames"])
    if need > have:
        verdict = "look" if verdict == "flattens" else verdict
        findings.append(
            f"{have} flats add more than {ADDED_NOISE:.0%} to the noise of these lights; {need} would be enough"
        )
    else:
        findings.append(f"{have} flats are enough for these lights: {need} would add {ADDED_NOISE:.0%} to their noise")
    return verdict


def _together(values: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    """Return the weighted mean of what is known, and its error."""
    good = np.isfinite(values) & (errors > 0)
    if not good.any():
        return math.nan, math.nan
    weight = 1 / np.square(errors[good])
    return float((weight * values[good]).sum() / weight.sum()), float(weight.sum() ** -0.5)


def _describe(result: xr.Dataset) -> None:
    """Give every variable its units and name."""
    meanings = {
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
    for name, (units, long_name) in meanings.items():
        if name in result.variables:
            result[name].attrs = {"units": units, "long_name": long_name}
