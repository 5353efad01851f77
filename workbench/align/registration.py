"""Register calibrated lights: find their stars, choose the reference, fit the transform of every frame.

The cube-level verb of this room.  It looks at each frame once and keeps no pixels: what it returns is small, tells
everything that alignment needs, and is what resampling applies later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from ..core.cube import check_cube
from ..core.errors import WorkbenchError
from ..core.mosaic import offsets
from ..stars.background import block_background, green_sampling, half_green
from ..stars.find import find_stars
from ..stars.quality import choose_reference, poor_frames, quality_table
from .match import Match, NoMatchError, match_stars
from .transform import KINDS, Transform, fit_robust, fit_transform

BLOCK = 64  # [pixels of the mosaic] in which the background is measured
SATURATED = 2  # bit of the mask that calibration sets
_PARAMETERS = {"shift": 2, "similarity": 4, "affine": 6, "homography": 8, "quadratic": 12, "cubic": 20}


@dataclass(frozen=True, eq=False)
class Registration:
    """How every light lies on the reference: stars, transforms, residuals, and the background on the way.

    Attributes
    ----------
    reference
        Number of the frame on whose pixel grid all are put.
    stars
        Star list of each frame (see `workbench.stars.find_stars`).
    matches
        The `Match` of each frame, None where it was set aside.
    quality
        Dataset over ``frame``: star count, FWHM, roundness, background, noise, SNR.
    set_aside
        Frame number → why it cannot be used.
    level, noise
        Background and its noise [e-] (frame, channel, block row, block column), channels R, G, B or mono.
    """

    reference: int
    stars: tuple[xr.Dataset, ...]
    matches: tuple[Match | None, ...]
    quality: xr.Dataset
    set_aside: dict[int, str]
    level: np.ndarray
    noise: np.ndarray

    @property
    def used(self) -> tuple[int, ...]:
        """Numbers of the frames that can be stacked."""
        return tuple(number for number, match in enumerate(self.matches) if match is not None)

    def transform(self, number: int) -> Transform:
        """Return the map from the reference to a frame.

        Raises
        ------
        WorkbenchError
            If that frame was set aside.
        """
        match = self.matches[number]
        if match is None:
            raise WorkbenchError(f"frame {number} was set aside: {self.set_aside[number]}")
        return Transform.identity() if number == self.reference else match.transform

    def residuals(self) -> xr.Dataset:
        """Return all matched stars of all other frames: a Dataset over ``star`` with ``frame``, ``x``, ``y`` [px in \
the reference], ``dx``, ``dy`` [px, measured minus fitted], their ``error``, and ``used``.
        """
        others = [number for number in self.used if number != self.reference]
        parts = [
            self.matches[number].residuals.assign(
                frame=("star", np.full(self.matches[number].frame_index.size, number))
            )
            for number in others
        ]
        names = ("frame", "x", "y", "dx", "dy", "error", "used")
        if not parts:
            return xr.Dataset({name: ("star", np.zeros(0)) for name in names})
        joined = xr.concat([part[list(names)] for part in parts], "star", combine_attrs="drop")
        for name in ("x", "y", "dx", "dy", "error"):
            joined[name].attrs = parts[0][name].attrs
        joined["filename"] = ("star", self.quality["filename"].values[joined["frame"].values])
        return joined

    def table(self) -> pd.DataFrame:
        """Tabulate the frames: quality, shift [px], rotation [°], model, rms of the residuals [px], or why not used."""
        rows = []
        for number, match in enumerate(self.matches):
            row = {"file": str(self.quality["filename"].values[number])}
            row |= {name: float(self.quality[name][number]) for name in ("stars", "fwhm", "roundness", "background")}
            if match is not None:
                transform = self.transform(number)
                x, y = (size / 2 for size in self._size())
                at = transform.apply(x, y)
                row |= {"dx": at[0] - x, "dy": at[1] - y, "rotation": transform.rotation, "model": match.transform.kind}
                row |= {"matched": match.frame_index.size, "rms": match.residuals.attrs["rms"]}
            row["remark"] = "reference" if number == self.reference else self.set_aside.get(number, "")
            rows.append(row)
        return pd.DataFrame(rows)

    def _size(self) -> tuple[int, int]:
        return self.quality.attrs["width"], self.quality.attrs["height"]


def register(
    lights: xr.Dataset, *, reference: int | str | None = None, kind: str = "auto", progress: bool = True
) -> Registration:
    """Find the stars of calibrated lights and fit the transform from the reference to each of them.

    Each frame is computed once and dropped again.  The same lights give the same bits.

    Parameters
    ----------
    lights
        What `calibrate` gives: ``signal`` [e-] and ``mask`` (frame, y, x).
    reference
        Number or file name of the frame on whose grid all are put; else the best is chosen
        (`workbench.stars.choose_reference`).
    kind
        Model of the transform (`workbench.align.KINDS`), or ``auto``.

    Raises
    ------
    StageError
        If the lights are not calibrated.
    WorkbenchError
        If the reference is none of the frames, or fewer than two frames can be brought together.

    Examples
    --------
    >>> from workbench.simulate import d7000, make_night, make_sky, render
    >>> from workbench.core.cube import make_cube
    >>> camera, sky = d7000(shape=(192, 288)), make_sky((192, 288), stars=40, seed=3)
    >>> views = make_night(sky, 3, exposure=60, seed=3)
    >>> electrons = np.stack([60 * render(sky, view, trails=False) for view in views]).astype("float32")
    >>> cube = make_cube(electrons, cfa_pattern="RGGB", kind="light", stage="calibrated", units="electron")
    >>> lights = xr.Dataset({"signal": cube, "mask": cube.astype("uint8") * 0}, attrs=cube.attrs)
    >>> registration = register(lights, progress=False)
    >>> registration.used, bool((registration.table().rms < 0.1).all())
    ((0, 1, 2), True)
    """
    signal = lights["signal"] if isinstance(lights, xr.Dataset) and "signal" in lights else lights
    check_cube(signal, stage="calibrated")
    if kind != "auto" and kind not in KINDS:
        raise WorkbenchError(f"transform kind {kind!r} is none of auto, {', '.join(KINDS)}")
    names = [str(name) for name in signal["filename"].values]
    if len(names) < 2:
        raise WorkbenchError("alignment takes two lights or more; there is one")
    wanted = _wanted(reference, names)
    stars, level, noise = [], [], []
    for number in tqdm(range(len(names)), desc="registering", unit="frame", delay=2, leave=False, disable=not progress):
        frame = lights[["signal", "mask"]].isel(frame=number).compute(scheduler="synchronous")
        found, of_sky, of_noise = _survey(frame["signal"].values, frame["mask"].values, signal.attrs["cfa_pattern"])
        stars.append(found)
        level.append(of_sky)
        noise.append(of_noise)
    quality = quality_table(stars, names).assign_attrs(height=signal.sizes["y"], width=signal.sizes["x"])
    reasons = {place: reason for place, reason in poor_frames(quality).items() if place != wanted}
    usable = [number for number in range(len(names)) if number not in reasons]
    if not usable:
        raise WorkbenchError(f"no light shows enough stars to be aligned; the first: {names[0]}: {reasons[0]}")
    centre = wanted if wanted is not None else choose_reference(quality, usable)
    matches: list[Match | None] = []
    for number in range(len(names)):
        match = None
        if number not in reasons:
            try:
                match = match_stars(stars[centre], stars[number], kind=kind)
            except NoMatchError as problem:
                reasons[number] = str(problem)
        matches.append(match)
    if sum(match is not None for match in matches) < 2:
        told = "; ".join(f"{names[number]}: {reason}" for number, reason in list(reasons.items())[:3])
        raise WorkbenchError(f"no light can be aligned to {names[centre] or f'frame {centre}'}: {told}")
    return Registration(centre, tuple(stars), tuple(matches), quality, reasons, np.stack(level), np.stack(noise))


def _wanted(reference: int | str | None, names: Sequence[str]) -> int | None:
    if reference is None:
        return None
    if isinstance(reference, str):
        found = [number for number, name in enumerate(names) if reference in (name, name.rsplit("/", 1)[-1])]
        if len(found) != 1:
            raise WorkbenchError(f"the reference {reference!r} is none of the lights; the first is {names[0]!r}")
        return found[0]
    if not 0 <= reference < len(names):
        raise WorkbenchError(f"the reference is frame {reference}, and there are frames 0 to {len(names) - 1}")
    return int(reference)


def _survey(signal: np.ndarray, mask: np.ndarray, pattern: str) -> tuple[xr.Dataset, np.ndarray, np.ndarray]:
    """Stars, background level and noise of one calibrated mosaic; see `Registration`."""
    mono = pattern == "mono"
    step = 1 if mono else 2
    height, width = (side // step * step for side in signal.shape)
    planes = {
        name: np.ascontiguousarray(signal[row:height:step, column:width:step], np.float32)
        for name, (row, column) in offsets(pattern).items()
    }
    level, noise = zip(*(block_background(planes[name], BLOCK // step) for name in planes), strict=True)
    if mono:
        sky, noise_of_plane = level[0], float(np.nanmedian(noise[0]))
    else:
        sky = (level[1] + level[2]) / 2
        noise_of_plane = float(np.sqrt(np.nanmedian(noise[1]) ** 2 + np.nanmedian(noise[2]) ** 2) / 2)
        level = (level[0], sky, level[3])
        noise = (noise[0], np.sqrt((noise[1] ** 2 + noise[2] ** 2) / 2), noise[3])
    full = (mask & SATURATED) > 0
    ceiling = 0.85 * float(np.nanmin(signal[full])) if full.any() and np.isfinite(signal[full]).any() else np.inf
    stars = find_stars(
        half_green(signal, pattern),
        sampling=green_sampling(pattern),
        gain=1.0 if mono else 2.0,
        background=sky,
        noise=noise_of_plane,
        saturation=max(ceiling, 0.0),
        limit=2000,
    )
    return stars, np.stack(level), np.stack(noise)


def compare_models(
    registration: Registration, *, kinds: Sequence[str] = KINDS, folds: int = 5, seed: int = 0
) -> xr.Dataset:
    """Fit every model of the transform to the matched stars of every frame, and see how well it predicts others.

    More parameters always come closer to the stars they were fitted to.  What counts is the residual of stars that had
    no say: the stars are dealt into `folds` groups, each predicted by a fit to the others.

    Returns
    -------
    Dataset over (frame, kind): ``rms`` of the fit (per axis, over its degrees of freedom), ``held_out``, the rms of
    stars that had no say (per axis, the outliers of the robust fit left out) and its ``held_out_error`` [px];
    ``parameters`` (kind) and ``stars`` (frame).  NaN where there are too few stars for a model.

    Raises
    ------
    WorkbenchError
        If a kind is unknown.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise WorkbenchError(f"transform kind {unknown[0]!r} is none of {', '.join(KINDS)}")
    frames = [number for number in registration.used if number != registration.reference]
    shape = (len(frames), len(kinds))
    rms, held, held_error = (np.full(shape, np.nan) for _ in range(3))
    counts = np.zeros(len(frames), int)
    for row, number in enumerate(frames):
        match = registration.matches[number]
        sound = match.residuals["used"].values
        stars = registration.stars
        here = _places(stars[registration.reference], match.reference_index[sound])
        there = _places(stars[number], match.frame_index[sound])
        error = match.residuals["error"].values[sound]
        counts[row] = len(here)
        group = np.random.default_rng((seed, number)).permutation(len(here)) % folds
        for column, kind in enumerate(kinds):
            if 2 * np.count_nonzero(group) <= _PARAMETERS[kind] + 2:
                continue
            _, residuals = fit_robust(here, there, error, kind=kind)
            rms[row, column] = residuals.attrs["rms"]
            left = np.empty_like(here)
            for fold in range(folds):
                told, asked = group != fold, group == fold
                transform, _ = fit_transform(here[told], there[told], error[told], kind=kind)
                left[asked] = there[asked] - np.stack(transform.apply(*here[asked].T), 1)
            square = (left**2).mean(1)
            held[row, column] = np.sqrt(square.mean())
            held_error[row, column] = square.std(ddof=1) / np.sqrt(len(square)) / (2 * held[row, column])
    px = {"units": "pix"}
    return xr.Dataset(
        {
            "rms": (("frame", "kind"), rms, {**px, "long_name": "rms of the stars fitted"}),
            "held_out": (("frame", "kind"), held, {**px, "long_name": "rms of stars that had no say"}),
            "held_out_error": (("frame", "kind"), held_error, {**px, "long_name": "its standard error"}),
            "parameters": ("kind", [_PARAMETERS[kind] for kind in kinds]),
            "stars": ("frame", counts),
        },
        coords={
            "kind": list(kinds),
            "frame": frames,
            "filename": ("frame", registration.quality["filename"].values[frames]),
        },
    )


def _places(stars: xr.Dataset, index: np.ndarray) -> np.ndarray:
    return np.stack([stars["x"].values[index], stars["y"].values[index]], 1).astype(float)
