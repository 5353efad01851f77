"""Master bias, dark and flat: many frames combined into one, with its variance.

A master is a Dataset over (y, x): ``signal``, ``variance`` (both ADU, of a flat relative), ``count`` of the samples,
``unstable`` pixels.  Bias and dark masters are as read: the offset stays in them and is subtracted once,
together with the dark signal, when lights are calibrated.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import xarray as xr

from ..core.cube import black_levels, channels_of, check_cube, one_value
from ..core.errors import WorkbenchError, said_of_all
from ..core.mosaic import channel_index, of_planes, planes, spread
from ..core.pairs import CLIPPED_FRACTION
from ..core.parallel import each_band, in_threads
from ..core.settings import SETTING, setting_differs, setting_of
from ..core.values import attribute_lines, describe
from .bands import Frames
from .combine import Combined, combine_frames
from .matching import median_of, require_alike, require_one_setting, require_one_temperature
from .noise import SensorNoise, hot_slope, light_variance, model_of, read_variance
from .planes import calm_levels
from .usable import flats_alike, flicker_warning, frames_alike, frames_saturate_at, offset_warning

SATURATED = 0.98  # of the way from black to white level: flats are not linear beyond it
MOST_SATURATED = 0.02  # of a colour's pixels: where all flats are saturated in no more, these pixels are missing
LEAST_LIGHT = 20.0  # a flat's mean signal must be this many times the noise of one pixel without light
FEW_FRAMES = 5
_ALL_CLIPPED = (
    "all flats are saturated in some pixels, which get no flat; the gain does not come from them: expose them less"
)
_BAND = 96  # rows that are worked on at once: whole cells of any mosaic
_HELD = 0.1  # a chi-square this far from one means that the noise model does not hold


def master_bias(
    bias: xr.DataArray, noise: SensorNoise | None = None, *, scratch: str | Path | None = None, progress: bool = True
) -> xr.Dataset:
    """Combine bias frames into a master, in ADU as read.

    The variance of a pixel is σ²/N with the frames' own temporal noise σ of its channel, or the read noise of
    `noise`; where a pixel's samples scatter more than chance allows it is that of the samples.

    Raises
    ------
    WorkbenchError
        If the frames are not bias frames as read, or of more than one ISO.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> frames = np.random.default_rng(1).normal(600, 3, (16, 32, 32)).round().astype("uint16")
    >>> master = master_bias(make_cube(frames, cfa_pattern="RGGB", kind="bias", iso=100))
    >>> abs(float(master.signal.mean()) - 600) < 0.1, abs(float(master.variance.mean()) - 9 / 16) < 0.05
    (True, True)
    """
    check_cube(bias, stage="raw", kind="bias")
    require_one_setting(bias, "a master bias")
    with frames_alike(bias, scratch=scratch, progress=progress) as frames:
        if noise is None or len(frames) >= 3:  # the frames' own noise where there are enough of them
            model = np.stack([read_variance(frames), np.zeros(frames.channels)], axis=1)
        else:
            model = noise.model(frames.channels) * [1, 0]
        combined = combine_frames(frames, model, black=np.inf, progress=progress)
        return _master(bias, frames, combined, model, noise)


def master_dark(
    dark: xr.DataArray,
    bias: xr.Dataset | None = None,
    noise: SensorNoise | None = None,
    *,
    scratch: str | Path | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Combine dark frames of one exposure into a master, in ADU as read: offset and dark signal.

    A sample's variance is σ_R² + D/g, D the dark signal above the bias (or above the frames' median without one) and
    g the gain of `noise`; without a gain it is estimated from the shot noise of the warm pixels.

    Raises
    ------
    WorkbenchError
        If the frames are of several ISOs, exposures or temperatures, or their bias was already subtracted.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> frames = np.random.default_rng(1).poisson(640, (8, 32, 32)).astype("uint16")
    >>> cube = make_cube(frames, cfa_pattern="RGGB", kind="dark", iso=100, exposure=60)
    >>> master = master_dark(cube)
    >>> master.attrs["frames"], abs(float(master.signal.mean()) - 640) < 1
    (8, True)
    """
    kind = str(dark["kind"].values[0])
    if kind not in ("dark", "darkflat"):
        raise WorkbenchError(f"a master dark is made of dark or darkflat frames, not of {kind} frames")
    check_cube(dark, stage="raw", kind=kind)
    require_one_setting(dark, "a master dark")
    one_value(dark, "exposure", "a master dark")
    require_one_temperature(dark)
    if bias is not None:
        require_alike(dark, bias, "darks")
    with frames_alike(dark, scratch=scratch, progress=progress) as frames:
        levels = _plane_levels(frames)
        black = levels if bias is None else plane_means(bias["signal"].values, frames.cell)
        if bias is not None and np.all(levels < black / 2):
            raise WorkbenchError(
                f"the darks' level is {levels.mean():.4g} ADU, that of the bias {black.mean():.4g} ADU: their bias "
                "seems to have been subtracted already; use the darks as the camera wrote them"
            )
        model, error = _dark_model(frames, bias, black, noise)
        combined = combine_frames(frames, model, black=black, progress=progress)
        _calm_shot_noise(combined, frames.cell, black, len(frames))
        result = _master(dark, frames, combined, model, noise).assign_attrs(gain_error=[error] * frames.channels)
        doubts = offset_warning(np.asarray(combined.chi2), model, levels - black)
        return result.assign_attrs(warnings=[*result.attrs["warnings"], *doubts])


def master_flat(
    flat: xr.DataArray,
    dark: xr.Dataset | None = None,
    bias: xr.Dataset | None = None,
    noise: SensorNoise | None = None,
    *,
    scratch: str | Path | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Combine flats into a master: the relative response to light, mean 1 in each CFA plane.

    F = Σ(y - P)/Σm, with the offset P (the flats' own `dark`, else the `bias`, else the camera's black level), the
    level m of each frame and plane, so that a lamp that drifts costs nothing, and divided by the plane's mean:
    the flat does not tint.  Frames with more than a thousandth of a colour's pixels saturated are left out, as for the
    gain; where all are, but in no more than a fiftieth, these pixels are NaN (``attrs["clipped"]``: no gain from them).
    Saturation is the white level, or where values pile up.

    Raises
    ------
    WorkbenchError
        If the flats' offset is not known, or all flats are saturated or dark; the message says how many, and by what.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> frames = 600 + np.random.default_rng(1).poisson(np.tile([4000, 8000], (8, 32, 16))).astype("uint16")
    >>> cube = make_cube(frames, cfa_pattern="RGGB", kind="flat", iso=100, black_level=600, white_level=16383)
    >>> master = master_flat(cube)
    >>> [round(level, -2) for level in master.attrs["level"]], round(float(master.signal.mean()), 6)
    ([4000.0, 8000.0, 4000.0, 8000.0], 1.0)
    """
    check_cube(flat, stage="raw", kind="flat")
    setting = require_one_setting(flat, "a master flat")
    offset = dark if dark is not None else bias
    if offset is not None:
        require_alike(flat, offset, "flats")
        if setting_differs(setting, offset.attrs):
            raise WorkbenchError(
                f"the flats have {describe(setting)}, the master {offset.attrs['kind']} for them "
                f"{describe({name: offset.attrs[name] for name in SETTING})}: the offset differs; give bias or "
                f"darkflats at {describe(setting)}"
            )
    cell = channel_index(flat.attrs["cfa_pattern"])
    white, black = flat.attrs["white_level"], black_levels(flat.attrs)
    if offset is None and not np.isfinite(black).all():
        raise WorkbenchError(
            "the flats' offset is not known: no darkflats, no bias, and their files do not state the black level; "
            f"shoot some bias frames at {describe(setting)}"
        )
    pedestal = offset["signal"].values if offset is not None else spread(black.astype(np.float32), cell, flat.shape[1:])
    level = plane_means(pedestal, cell)
    with Frames(flat, scratch=scratch, progress=progress) as frames:
        white = frames_saturate_at(frames, white)
        saturation = float(level.mean() + SATURATED * (white - level.mean()))
        unlit = model_of(offset) if offset is not None else np.zeros((frames.channels, 2))
        dark_noise = (noise.model(frames.channels) if noise else unlit)[:, 0]
        means, bad, clipped = _flat_levels(frames, pedestal, saturation, dark_noise)
        good = [number for number in range(len(frames)) if number not in bad]
        if not good:
            reasons = "; ".join(said_of_all(bad.values()))
            raise WorkbenchError(f"no flat can be used: {reasons}; or put the flats away to do without")
        frames.dropped += list(bad.values())
        frames.leave_out(list(bad))
        means = flats_alike(frames, means[good], pedestal, dark_noise)
        remarks = flicker_warning(frames, pedestal) + ([_ALL_CLIPPED] if clipped else [])
        scale = means.mean(axis=0) / means
        model, error = _flat_model(frames, noise or dark_noise, pedestal, scale, saturation)
        how = {"pedestal": pedestal, "scale": scale, "saturation": saturation, "progress": progress}
        combined = combine_frames(frames, model, **how)
        share = (len(frames) / (1 / scale).sum(axis=0)) ** 2
        level = _make_relative(combined, cell, share, offset)
        result = _master(flat, frames, combined, model, noise)
    result["signal"].attrs.update(units="1", long_name="relative response (flat)")
    result["variance"].attrs.update(units="1", long_name="variance of the relative response")
    result.attrs["warnings"] = [*result.attrs["warnings"], *remarks]
    return result.assign_attrs(
        clipped=clipped,
        gain_error=error.tolist(),
        level=level.tolist(),
        lamp_drift=(means.mean(axis=1) / means.mean()).tolist(),
        offset="none" if offset is None else offset.attrs["kind"],
    )


def plane_means(mosaic: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Return the mean of each CFA plane of a mosaic (y, x), in channel order; NaN pixels are left out.

    Examples
    --------
    >>> plane_means(np.array([[1.0, 2.0], [3.0, np.nan]]), channel_index("RGGB"))[:3].tolist()
    [1.0, 2.0, 3.0]
    """

    def mean(plane: np.ndarray) -> float:
        value = plane.mean(dtype=float)
        known = plane if np.isfinite(value) else plane[np.isfinite(plane)]
        return (value if known is plane else known.mean(dtype=float)) if known.size else math.nan

    return np.array(of_planes(mean, mosaic, cell), float)


def _dark_model(
    frames: Frames, bias: xr.Dataset | None, black: np.ndarray, noise: SensorNoise | None
) -> tuple[np.ndarray, float]:
    """Variance of one dark (a, b): at the level `black`, and 1/gain for what lies above; b's relative error or NaN."""
    channels, error = frames.channels, math.nan
    if noise is not None and (bias is not None or len(frames) < 2):
        return noise.model(channels), error
    base = read_variance(frames)  # of the ordinary pixel, which has dark signal of its own
    if noise is not None:
        b = noise.model(channels)[:, 1]
    elif len(frames) < 2:
        b = np.zeros(channels)
    else:
        slope, error = hot_slope(frames, None if bias is None else bias["signal"].values).T
        known = np.isfinite(slope) & (error > 0)
        weight = (slope[known] / error[known]) ** 2  # the relative error does not depend on the slope's own noise
        # all channels have one gain to a per cent or so, but the pixels of one alone may be too few to measure it
        certain = weight.sum() > 25
        b = np.full(channels, np.average(slope[known], weights=weight) if certain else 0.0)
        error = 1 / math.sqrt(weight.sum()) if certain else math.nan
    return np.stack([np.maximum(base - b * np.maximum(_plane_levels(frames) - black, 0), 1e-3), b], axis=1), error


def _flat_model(
    frames: Frames, known: SensorNoise | np.ndarray, pedestal: np.ndarray, scale: np.ndarray, saturation: float
) -> tuple[np.ndarray, np.ndarray]:
    """Variance of one flat (a, b), and the relative error of b; `known` is the noise, or only that without light."""
    if isinstance(known, SensorNoise):
        return known.model(frames.channels), np.full(frames.channels, np.nan)
    slope, error = light_variance(frames, known, pedestal, scale, saturation)
    if not (slope > 0).all():
        raise WorkbenchError(
            "the flats show no shot noise between frames: either they are saturated, below the white level that is "
            "known, or they are not raw frames as the camera wrote them (averaged, JPEG, one frame copied)"
        )
    return np.stack([known, slope], axis=1), error


def _plane_levels(frames: Frames) -> np.ndarray:
    """The mean level of each plane over the sampled rows of all frames [ADU], its extreme hundredths clipped."""
    _, rows = frames.sampled_rows()

    def level(plane: np.ndarray) -> float:
        values = plane.astype(float)
        return float(np.nanmean(np.clip(values, *np.nanpercentile(values, (1, 99)))))

    return np.array(of_planes(level, rows, frames.cell))


def _flat_levels(
    frames: Frames, pedestal: np.ndarray, saturation: float, base: np.ndarray
) -> tuple[np.ndarray, dict[int, tuple[str, str]], bool]:
    """Signal level of each frame and plane (frame, channel) [ADU]; the frames that cannot be used, and why.

    And whether those that can be used are saturated in a few pixels each.
    """
    numbers, rows = frames.sampled_rows()

    def light(both: tuple[tuple[int, np.ndarray], tuple[int, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        (_, plane), (_, ground) = both
        samples = np.where(plane < saturation, plane - ground.astype(float), np.nan).reshape(len(plane), -1)
        number = np.isfinite(samples).sum(axis=1)
        return np.nansum(samples, axis=1) / np.where(number > 0, number, np.nan), 1 - number / samples.shape[1]

    both = zip(planes(rows, frames.cell), planes(pedestal[numbers], frames.cell), strict=True)
    means, lost = np.stack(list(in_threads(light, both)), axis=2)
    worst = lost.max(axis=1)
    clipped = bool((worst > CLIPPED_FRACTION).all() and (worst <= MOST_SATURATED).any())
    names = channels_of(frames.cube.attrs["cfa_pattern"])
    bad = {}
    for frame, kept in enumerate(frames.kept):
        name = str(frames.cube["filename"].values[kept]) or f"flat {kept}"
        if worst[frame] > (MOST_SATURATED if clipped else CLIPPED_FRACTION):
            shares = zip(names, 100 * lost[frame], strict=True)
            where = ", ".join(f"{share:.2g} % of {channel}" for channel, share in shares if share > 0.1)
            bad[frame] = (name, f"is saturated ({where}, at {saturation:.0f} ADU and more): expose it less")
        elif not (means[frame] > LEAST_LIGHT * np.sqrt(np.maximum(base, 1.0))).all():
            level = np.nanmin(means[frame]) if np.isfinite(means[frame]).any() else 0.0
            bad[frame] = (name, f"has too little light ({level:.3g} ADU above its offset): expose it longer")
    return means, bad, clipped


def _calm_shot_noise(combined: Combined, cell: np.ndarray, black: np.ndarray, count: int) -> None:
    """Let the variance of the ordinary pixels follow the level around them, not their own noise."""
    black, side, shape = np.ascontiguousarray(black, float), len(cell), (_BAND, combined.mean.shape[1])
    ground, slope = (spread(v.astype(np.float32), cell, shape) for v in (black, combined.law[:, 1] / count))

    def follow(rows: slice) -> None:
        first = max(rows.start - side, 0)
        around = combined.mean[first : rows.stop + side]  # of the rim only the means count
        levels = np.empty_like(around)
        calm_levels(around, cell, combined.law, black, float(count), levels)
        mean = combined.mean[rows]
        inside = slice(len(mean))
        light, calm = (np.maximum(v[inside] - ground[inside], 0) for v in (mean, levels[rows.start - first :]))
        ordinary = (combined.count[rows] == count) & ~combined.unstable[rows]
        combined.variance[rows] += np.where(ordinary, slope[inside] * (calm - light), 0)

    each_band(follow, len(combined.mean), _BAND)


def _make_relative(combined: Combined, cell: np.ndarray, share: np.ndarray, offset: xr.Dataset | None) -> np.ndarray:
    """Divide the channels of combined flats by their means, in place; returns these levels [ADU].

    The variance of the offset is common to all flats and does not average out: `share` (channel) of it is added.
    """
    level, shape = plane_means(combined.mean, cell), (_BAND, combined.mean.shape[1])
    added = None if offset is None else offset["variance"].values
    shared, once, twice = (spread(values.astype(np.float32), cell, shape) for values in (share, level, level**2))

    def divide(rows: slice) -> None:
        mean, variance = combined.mean[rows], combined.variance[rows]
        inside = slice(len(mean))
        if added is not None:
            variance += shared[inside] * added[rows]
        mean /= once[inside]
        variance /= twice[inside]

    each_band(divide, len(combined.mean), _BAND)
    return level


def _master(
    cube: xr.DataArray, frames: Frames, combined: Combined, model: np.ndarray, noise: SensorNoise | None
) -> xr.Dataset:
    kind = str(cube["kind"].values[0])
    maps = {
        "signal": (combined.mean, {"units": "adu", "long_name": f"master {kind}"}),
        "variance": (combined.variance, {"units": "adu²", "long_name": f"variance of the master {kind}"}),
        "count": (combined.count, {"long_name": "samples combined"}),
        "unstable": (combined.unstable, {"long_name": "scatters more than the noise model allows"}),
    }
    return xr.Dataset(
        {name: (("y", "x"), values, attrs) for name, (values, attrs) in maps.items()},
        attrs={
            "kind": kind,
            "camera": cube.attrs["camera"],
            "cfa_pattern": cube.attrs["cfa_pattern"],
            "black_level": black_levels(cube.attrs).tolist(),
            "white_level": cube.attrs["white_level"],
            **setting_of(cube),
            "exposure": median_of(cube, "exposure"),
            "temperature": median_of(cube.isel(frame=frames.kept), "temperature"),
            "frames": len(frames),
            "model": [float(value) for value in model.ravel()],
            "noise_source": noise.source if noise else "the frames' own scatter",
            "chi2": [float(value) for value in combined.chi2],
            "warnings": _warnings(frames, combined, kind, known=noise is not None),
            "history": [*attribute_lines(cube.attrs, "history"), f"combined {len(frames)} {kind} frames"],
        },
    )


def _warnings(frames: Frames, combined: Combined, kind: str, *, known: bool) -> list[str]:
    names = channels_of(frames.cube.attrs["cfa_pattern"])
    warnings = []
    if lost := len(frames.dropped):
        said = "; ".join(said_of_all(frames.dropped))
        warnings.append(f"{lost} of {lost + len(frames)} {kind} frames left out: {said}")
    if any(abs(ratio - 1) > _HELD for ratio in combined.chi2):
        ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in zip(names, combined.chi2, strict=True))
        warnings.append(
            f"the {kind} frames do not scatter as the noise model says (scatter² over the model's: {ratios}): "
            "the master's variance is off by as much"
        )
    for number, share in zip(frames.kept, combined.rejected, strict=True):
        if share > 0.01:
            name = frames.cube["filename"].values[number] or f"{kind} {number}"
            warnings.append(f"{name} differs from the other {kind} frames in {share:.1%} of its pixels")
    if len(frames) == 1:
        of = "" if known else "; its noise is estimated from differences between neighbours, fixed pattern included"
        warnings.append(f"only one {kind} frame: cosmic rays stay in it{of}")
    elif len(frames) < FEW_FRAMES:
        warnings.append(f"only {len(frames)} {kind} frames: more lower the noise")
    return warnings
