"""Read noise and black level, from bias frames alone.

Read noise must come from pairs: the spread over one frame holds the fixed pattern as well.  Where the camera clipped
its bias frames at zero, the difference of a pair is clipped too, and the likelihood of what is left takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ..core.cube import Setting, channels_of, check_cube, group_frames, take_frames
from ..core.mosaic import channel_index, planes
from ..core.pairs import (
    BLOCKS,
    QUANTISATION_VARIANCE,
    frame_pairs,
    jackknife_error,
    leave_one_out,
    measure_pairs,
    pair_moments,
    t_factor,
)
from ..core.parallel import counted, lazy_frames, stream_frames
from ..core.statistics import odd_ones_out
from ..core.values import describe, listed
from .clipped import ClippedFit, fit_clipped

CLIPPED_FRACTION = 1e-3  # pixels at zero beyond which a normal distribution's σ reads more than 0.3 % low
_RESOLVED_VARIANCE = 0.24  # ADU²; below, rounding to whole ADU hides the noise (EMVA 1288 release 4.0, section 6.6)
_CLIPPED_PIXELS, _CLIPPED_FRAMES = 1 << 14, 16  # for the likelihood: enough for σ to half a per cent


def read_noise(
    bias: xr.DataArray, *, multiplier: Mapping[str, float] | None = None, progress: Any = True
) -> xr.Dataset:
    """Measure read noise and black level of every ISO and channel from bias frames.

    σ_R² = ½ Var(b₁ − b₂) − 1/12, averaged over pairs of successive frames (the pair's mean difference and
    differences beyond 8 robust σ removed; 1/12 ADU² is what rounding adds; EMVA 1288).  Its error is a jackknife
    over blocks of rows.  The black level is the plain mean of all frames; its error comes from the scatter of the
    frames' means, so that an offset that wanders from frame to frame is in it.

    Of frames that the camera clipped at zero both come from the likelihood of a censored normal distribution instead
    (see `fit_clipped`; sixteen frames and 16,384 pixels a channel at most), black level being where the mean
    would lie without clipping; ``method`` says so.

    Parameters
    ----------
    bias
        Raw bias frames (frame, y, x) of any number of ISO settings, at least two of each.
    multiplier
        What the camera multiplied each channel with before saving, where it is known (best from `missing_codes` of
        flats); for clipped frames only, from which it is otherwise estimated.
    progress
        False for no progress bar.

    Returns
    -------
    xarray.Dataset
        Over (iso, channel): ``read_noise_adu`` and ``black_level`` [ADU], each with its ``_error`` (half the width
        of the 68 % interval); ``variance`` [ADU²], rounding included, with ``variance_error``; ``frame_scatter``
        [ADU], the standard deviation of the frames' means; ``zero_fraction``; ``method``, ``pairs`` or ``clipped``,
        empty where nothing was measured.  Over iso: ``frames``.  What cannot be measured is NaN, and
        ``attrs["warnings"]`` says why.

    Raises
    ------
    WorkbenchError
        If the frames are not raw bias frames.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> noise = np.random.default_rng(0).normal(600, 3, (4, 128, 128)).round().astype("uint16")
    >>> result = read_noise(make_cube(noise, cfa_pattern="RGGB", kind="bias", iso=100), progress=False)
    >>> float(result.read_noise_adu.sel(iso=100).mean().round(2))
    3.0
    """
    check_cube(bias, stage="raw", kind="bias")
    groups = group_frames(bias, "iso")
    pairs, owners = [], []
    for number, (_, frames) in enumerate(groups):
        local = frame_pairs(len(frames)) or [(0, 0)]  # a lone frame, paired with itself, still has a mean
        pairs += [(int(frames[i]), int(frames[j])) for i, j in local]
        owners += [number] * len(local)
    sums = measure_pairs(bias, pairs, progress=progress)
    owner = np.array(owners)
    names = channels_of(bias.attrs["cfa_pattern"])
    shape = (len(groups), len(names))
    result = {name: np.full(shape, np.nan) for name in _VARIABLES}
    method = np.full(shape, "", object)
    warnings: list[str] = []
    cut: dict[str, list[_Clipped]] = {}  # settings that are clipped, by what is wrong with them
    quantisation = QUANTISATION_VARIANCE if np.issubdtype(bias.dtype, np.integer) else 0.0
    for number, (setting, frames) in enumerate(groups):
        where = np.flatnonzero(owner == number)
        one = _one_setting(sums.plain[where], sums.kept[where], len(frames), quantisation)
        one["zero_fraction"] = (sums.zero[where].sum(-1) / sums.plain[where][..., 0].sum(-1)).mean(axis=0)
        clipped = one["zero_fraction"] > CLIPPED_FRACTION
        files = bias["filename"].values[frames]
        if clipped.any() and len(frames) > 1:
            fits = _fit_clipped(take_frames(bias, frames[:_CLIPPED_FRAMES]), clipped, multiplier, progress)
            problem = _put_clipped(one, clipped, fits)
            cut.setdefault(problem, []).append(_Clipped(setting, 100 * float(one["zero_fraction"].max()), files))
        warnings += _check(one, setting, files, quantisation)
        for name in _VARIABLES:
            result[name][number] = one[name]
        method[number] = np.where(np.isnan(one["read_noise_adu"]), "", np.where(clipped, "clipped", "pairs"))
    warnings = [_clipped_warning(problem, settings) for problem, settings in cut.items()] + warnings
    data: dict[str, Any] = {name: (("iso", "channel"), result[name], attrs) for name, attrs in _VARIABLES.items()}
    data["method"] = (("iso", "channel"), method, {"long_name": "how the read noise was measured"})
    data["frames"] = ("iso", [len(frames) for _, frames in groups], {"long_name": "bias frames"})
    coords = {"iso": ("iso", [s["iso"] for s, _ in groups], {"long_name": "ISO setting"}), "channel": list(names)}
    attrs = {"camera": bias.attrs["camera"], "long_name": "read noise and black level", "warnings": warnings}
    return xr.Dataset(data, coords, attrs)


_VARIABLES = {
    "read_noise_adu": {"units": "adu", "long_name": "read noise"},
    "read_noise_adu_error": {"units": "adu", "long_name": "error of the read noise"},
    "black_level": {"units": "adu", "long_name": "black level"},
    "black_level_error": {"units": "adu", "long_name": "error of the black level"},
    "variance": {"units": "adu**2", "long_name": "half-variance of the bias difference"},
    "variance_error": {"units": "adu**2", "long_name": "error of the half-variance"},
    "frame_scatter": {"units": "adu", "long_name": "standard deviation of the frames' means"},
    "zero_fraction": {"units": "1", "long_name": "fraction of pixels at zero"},
}


def _one_setting(plain: np.ndarray, kept: np.ndarray, count: int, quantisation: float) -> dict[str, np.ndarray]:
    """Reduce the sums (pair, channel, block, moment) of one ISO."""
    whole = pair_moments(plain.sum(axis=2))
    last = max(count - 1, 1)
    means = np.vstack([whole.mean1[:last], whole.mean2[last - 1 : count - 1]])  # pair i is of frames i and i + 1
    nothing = np.full(plain.shape[1], np.nan)
    one = dict.fromkeys(_VARIABLES, nothing) | {"black_level": means.mean(axis=0), "means": means}
    if count < 2:
        return one
    scatter = means.std(axis=0, ddof=1)
    variance = pair_moments(kept.sum(axis=2)).half_variance.mean(axis=0)
    replicates = pair_moments(leave_one_out(kept, axis=2)).half_variance.mean(axis=0)
    noise = np.sqrt(np.maximum(variance - quantisation, 0.0))
    variance_error = jackknife_error(replicates, axis=-1)
    one |= {
        "read_noise_adu": noise,
        # δσ = δσ²/2σ; a direct jackknife of the root would differ in second order only
        "read_noise_adu_error": variance_error / (2 * np.where(noise > 0, noise, np.nan)),
        "black_level_error": scatter / np.sqrt(count) * t_factor(count - 1),
        "variance": variance,
        "variance_error": variance_error,
        "frame_scatter": scatter,
    }
    return one


def _fit_clipped(
    bias: xr.DataArray, clipped: np.ndarray, multiplier: Mapping[str, float] | None, progress: Any
) -> list[ClippedFit | None]:
    """Fit an even sample of the pixels of each clipped channel of one setting's frames."""
    names = channels_of(bias.attrs["cfa_pattern"])
    step = channel_index(bias.attrs["cfa_pattern"]).shape[0]
    rows, columns = bias.sizes["y"] // step, bias.sizes["x"] // step
    stride = int(np.ceil(np.sqrt(max(rows * columns / _CLIPPED_PIXELS, 1))))
    frames = stream_frames(lazy_frames(bias))
    samples: list[list[np.ndarray]] = [[] for _ in names]
    for frame in counted(frames, progress if progress is True else False, bias.sizes["frame"]):
        for channel, plane in planes(frame[: rows * step, : columns * step], bias.attrs["cfa_pattern"]):
            samples[channel].append(plane[::stride, ::stride].copy())
    fits: list[ClippedFit | None] = []
    for channel, name in enumerate(names):
        if not clipped[channel]:
            fits.append(None)
            continue
        values = np.stack(samples[channel])
        height, width = values.shape[1:]
        blocks = np.repeat(np.arange(height) * min(BLOCKS, height) // height, width)
        known = None if multiplier is None else multiplier.get(name)
        fits.append(fit_clipped(values.reshape(len(values), -1), blocks, known))
    return fits


class _Clipped(NamedTuple):
    """A setting whose frames are clipped at zero: the share of zeros [%], and the files."""

    setting: dict[str, float]
    share: float
    files: np.ndarray


def _put_clipped(one: dict[str, np.ndarray], clipped: np.ndarray, fits: list[ClippedFit | None]) -> str:
    """Replace the results of clipped channels by those of the likelihood, in place; return why there are none."""
    for name in set(one) - {"zero_fraction", "means"}:
        one[name] = np.where(clipped, np.nan, one[name])
    means = one["means"].copy()
    problem = ""
    for channel, fit in enumerate(fits):
        if fit is None or fit.problem:
            problem = problem if fit is None else fit.problem
            continue
        count = fit.offsets.size
        scatter = fit.offsets.std(ddof=1)
        one["read_noise_adu"][channel], one["read_noise_adu_error"][channel] = fit.sigma, fit.sigma_error
        one["variance"][channel] = fit.sigma**2 + fit.rounding_variance
        one["variance_error"][channel] = 2 * fit.sigma * fit.sigma_error
        one["black_level"][channel] = fit.offsets.mean()
        one["black_level_error"][channel] = scatter / np.sqrt(count) * t_factor(count - 1)
        one["frame_scatter"][channel] = scatter
        means[:count, channel] = fit.offsets
    one["means"] = means
    return problem


def _clipped_warning(problem: str, settings: list[_Clipped]) -> str:
    """Return which bias frames are clipped, and what was made of them."""
    where = ", ".join(describe(one.setting) for one in settings)
    share = max(one.share for one in settings)
    found = (
        f"the bias frames at {where} are clipped at zero (up to {share:.3g} % of the pixels in one frame of two or in "
        f"both; {listed(settings[0].files)}): the camera subtracts its black level before saving"
    )
    advice = "; firmware or a camera setting that keeps the offset measures it directly"
    if problem:
        return f"{found}, and {problem}: read noise and black level are left out{advice}"
    return (
        f"{found}, so the spread of what is left is 40 % too small; read noise and black level are those of the normal "
        f"distribution that explains the pixels above zero best, less certain than from whole frames{advice}"
    )


def _check(one: dict[str, np.ndarray], setting: Setting, files: np.ndarray, quantisation: float) -> list[str]:
    """Blank what these frames cannot give, in place, and return why."""
    where = describe(setting)
    warnings = []
    if len(files) < 2:
        warnings.append(
            f"only one bias frame at {where} ({listed(files)}): read noise needs at least two, and so does the error "
            "of the black level; shoot ten or more"
        )
        return warnings
    if quantisation:
        rounded = one["variance"] < _RESOLVED_VARIANCE
        if rounded.any():
            warnings.append(
                f"the read noise at {where} is below half an ADU: rounding to whole ADU hides it, and it is left out; "
                "measure it at a higher ISO"
            )
            for name in ("read_noise_adu", "read_noise_adu_error"):
                one[name] = np.where(rounded, np.nan, one[name])
    means = one["means"].mean(axis=1)
    noise = float(np.sqrt(np.nanmean(one["variance"]))) if np.isfinite(one["variance"]).any() else 0.0
    odd = odd_ones_out(means, max(noise, 1.0))
    if odd.size:
        found = ", ".join(f"{files[i]} ({means[i]:.1f} ADU)" for i in odd[:4])
        warnings.append(
            f"bias frames at {where} disagree: {found} against {np.median(means):.1f} ADU; check that they are "
            "bias frames"
        )
    return warnings
