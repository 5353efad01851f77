"""Read noise and black level from bias frames alone.

Read noise must come from pairs: the spread over one frame holds the fixed pattern as well.  Where the camera clipped
its bias frames at zero, the difference of a pair is clipped too, and the likelihood of what is left takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from ..core.cube import Setting, channels_of, check_cube, group_frames, take_frames
from ..core.noise import code_step_of
from ..core.pairs import (
    CLIPPED_FRACTION,
    QUANTISATION_VARIANCE,
    frame_pairs,
    jackknife_error,
    leave_one_out,
    measure_pairs,
    pair_moments,
    pair_weight,
)
from ..core.results import Table, per_channel, with_errors
from ..core.settings import setting_dim
from ..core.shared_noise import Smoothing, measure_smoothing, separate_pairs, smoothed_warning, unsmoothed
from ..core.statistics import odd_ones_out, t_factor
from ..core.values import describe, listed
from .clipped import ClippedSetting, clipped_warning, replace_clipped

_RESOLVED_VARIANCE = 0.24  # ADU²; below, rounding to whole ADU hides the noise (EMVA 1288 release 4.0, section 6.6)
_QUANTITIES: Table = {
    **with_errors(
        {
            "read_noise_adu": ("adu", "read noise"),
            "black_level": ("adu", "black level"),
            "variance": ("adu**2", "half-variance of the bias difference"),
            "pattern_adu": ("adu", "standard deviation of the pixels' offsets, of clipped bias frames"),
        }
    ),
    "black_level_error_95": ("adu", "half the 95 % interval of the black level"),
    "frame_scatter": ("adu", "standard deviation of the frames' means"),
    "smoothing": ("1", "variance before a filter in the camera over as read"),
    "zero_fraction": ("1", "fraction of pixels at zero"),
    "method": ("", "how the read noise was measured"),
}


def read_noise(
    bias: xr.DataArray, *, multiplier: Mapping[str, float] | None = None, progress: Any = True
) -> xr.Dataset:
    """Measure read noise and black level of every setting and channel from bias frames.

    σ_R² = ½ Var(b₁ − b₂) − 1/12, averaged over pairs of successive frames (the pair's mean difference and
    differences beyond 8 robust σ removed; 1/12 ADU² is what rounding adds, s²/12 to steps of s ADU; EMVA 1288).  Its
    error is a jackknife over blocks of rows, with what noise of columns, or of rows that go together, adds to it (see
    `band_variance`).  Where neighbouring pixels share noise, as after a filter in the camera,
    their covariances are added (see `measure_smoothing`), with a warning.  The black level is the plain mean of all
    frames; its error comes from the scatter of the frames' means, so that an offset that wanders from frame to frame
    is in it.

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
        Over (iso, channel), or (gain_setting, channel): ``read_noise_adu`` and ``black_level`` [ADU], each with its
        ``_error`` (half the width of the 68 % interval); ``variance`` [ADU²], rounding included, with
        ``variance_error``; ``black_level_error_95``, half the 95 % interval: of few frames it is more than twice the
        68 % one; ``frame_scatter`` [ADU], the standard deviation of the frames' means; ``smoothing``, by
        which the variance was corrected (1 without a filter); ``zero_fraction``; ``method``, ``pairs`` or ``clipped``,
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
    dim = setting_dim(bias)
    groups = group_frames(bias, dim)
    pairs, owners = _pairs_of([frames for _, frames in groups])
    sums = measure_pairs(bias, pairs, progress=progress)
    channels = channels_of(bias.attrs["cfa_pattern"])
    rows: list[list[dict[str, Any]]] = []
    warnings: list[str] = []
    cut: dict[str, list[ClippedSetting]] = {}  # settings that are clipped, by what is wrong with them
    step = code_step_of(bias)
    quantisation = QUANTISATION_VARIANCE * step**2
    filtered: dict[str, Smoothing] = {}
    for number, (setting, frames) in enumerate(groups):
        where = np.flatnonzero(np.array(owners) == number)
        shared = measure_smoothing(bias, separate_pairs([pairs[i] for i in where] if len(frames) > 1 else []))
        if shared.found:
            sums, filtered[describe(setting)] = unsmoothed(sums, where, shared.factor), shared
        one = _one_setting(sums.plain[where], sums.kept[where], len(frames), quantisation, shared)
        one["zero_fraction"] = (sums.zero[where].sum(-1) / sums.plain[where][..., 0].sum(-1)).mean(axis=0)
        clipped = one["zero_fraction"] > CLIPPED_FRACTION
        files = bias["filename"].values[frames]
        if clipped.any() and len(frames) > 1:
            problem = replace_clipped(one, take_frames(bias, frames), clipped, multiplier, progress)
            cut.setdefault(problem, []).append(ClippedSetting(setting, 100 * float(one["zero_fraction"].max()), files))
        warnings += _check(one, setting, files, quantisation)
        one["method"] = np.where(np.isnan(one["read_noise_adu"]), "", np.where(clipped, "clipped", "pairs"))
        rows.append([{name: one[name][column] for name in _QUANTITIES} for column in range(len(channels))])
    warnings = [clipped_warning(problem, settings) for problem, settings in cut.items()] + warnings
    if filtered:
        warnings.append(smoothed_warning(filtered))
    settings = {dim: [setting[dim] for setting, _ in groups]}
    attrs = {"camera": bias.attrs["camera"], "step": step, "long_name": "read noise and black level"}
    attrs["warnings"] = warnings
    found = per_channel(_QUANTITIES, rows, settings, channels, **attrs)
    return found.assign(frames=(dim, [len(frames) for _, frames in groups], {"long_name": "bias frames"}))


def _pairs_of(groups: list[np.ndarray]) -> tuple[list[tuple[int, int]], list[int]]:
    """Return the pairs of frames of each group, and the number of the group that each belongs to."""
    pairs, owners = [], []
    for number, frames in enumerate(groups):
        local = frame_pairs(len(frames)) or [(0, 0)]  # a lone frame, paired with itself, still has a mean
        pairs += [(int(frames[i]), int(frames[j])) for i, j in local]
        owners += [number] * len(local)
    return pairs, owners


def _one_setting(
    plain: np.ndarray, kept: np.ndarray, count: int, quantisation: float, shared: Smoothing
) -> dict[str, np.ndarray]:
    """Reduce the sums (pair, channel, block, moment) of one setting."""
    whole = pair_moments(plain.sum(axis=2))
    last = max(count - 1, 1)
    means = np.vstack([whole.mean1[:last], whole.mean2[last - 1 : count - 1]])  # pair i is of frames i and i + 1
    nothing = dict.fromkeys(_QUANTITIES, np.full(plain.shape[1], np.nan))
    one = nothing | {"black_level": means.mean(axis=0), "means": means}
    if count < 2:
        return one
    scatter = means.std(axis=0, ddof=1)
    variance = pair_moments(kept.sum(axis=2)).half_variance.mean(axis=0)
    replicates = pair_moments(leave_one_out(kept, axis=2)).half_variance.mean(axis=0)
    # a filter works on numbers that the converter has rounded, and its results are rounded again
    noise = np.sqrt(np.maximum(variance - quantisation * (2 if shared.found else 1), 0.0))
    by_rows, by_filter = jackknife_error(replicates, axis=-1), variance * shared.error / shared.factor
    by_bands = shared.factor * np.sqrt(shared.bands / (pair_weight(count) * kept.shape[0]))
    variance_error = np.sqrt(by_rows**2 + by_filter**2 + by_bands**2)
    return one | {
        "read_noise_adu": noise,
        # δσ = δσ²/2σ; a direct jackknife of the root would differ in second order only
        "read_noise_adu_error": variance_error / (2 * np.where(noise > 0, noise, np.nan)),
        "black_level_error": scatter / np.sqrt(count) * t_factor(count - 1),
        "black_level_error_95": scatter / np.sqrt(count) * t_factor(count - 1, 1.96),
        "variance": variance,
        "variance_error": variance_error,
        "frame_scatter": scatter,
        "smoothing": shared.factor,
    }


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
        rounded = one["variance"] < _RESOLVED_VARIANCE * quantisation / QUANTISATION_VARIANCE
        if rounded.any():
            warnings.append(
                f"the read noise at {where} is below half a step of the converter: rounding hides it, and it is left "
                "out; measure it at a higher setting"
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
