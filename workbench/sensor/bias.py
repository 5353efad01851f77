"""Read noise and black level from bias frames alone, and the read noise before and after the gain.

Read noise must come from pairs: the spread over one frame holds the fixed pattern as well.  Where the camera clipped
its bias frames at zero, the difference of a pair is clipped too, and the likelihood of what is left takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from ..core.cube import GREENS, Setting, channels_of, check_cube, group_frames, take_frames
from ..core.noise import code_step_of, error_in_mean
from ..core.pairs import (
    CLIPPED_FRACTION,
    QUANTISATION_VARIANCE,
    frame_pairs,
    jackknife_error,
    leave_one_out,
    measure_pairs,
    pair_moments,
    pair_weight,
    t_factor,
)
from ..core.results import Table, at_isos, described, per_channel, with_errors
from ..core.settings import TITLES, in_words_of, setting_dim
from ..core.shared_noise import Smoothing, measure_smoothing, separate_pairs, smoothed_warning, unsmoothed
from ..core.statistics import StraightLine, fit_line, misfit, odd_ones_out
from ..core.values import describe, listed
from .clipped import ClippedSetting, clipped_warning, replace_clipped

INVARIANT_WITHIN = 0.05  # of the floor: what raising the ISO any further could still take off the read noise
_RESOLVED_VARIANCE = 0.24  # ADU²; below, rounding to whole ADU hides the noise (EMVA 1288 release 4.0, section 6.6)
_ROUNDS = 8  # of reweighting
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
# columns of the settings of a channel: 1/g [ADU/e⁻], its relative error, σ² [ADU²] of the read noise and its error
_POINT = ["setting", "inverse", "relative", "variance", "error"]
_SPLIT: Table = with_errors(
    {
        "before_gain": ("electron", "read noise before the gain"),
        "after_gain": ("adu", "read noise after the gain"),
        "invariance_iso": ("1", "ISO from which nothing is gained"),
    }
)


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


def split_read_noise(read: xr.Dataset, gain: xr.Dataset, *, within: float = INVARIANT_WITHIN) -> xr.Dataset:
    """Split the read noise into what arises before the amplifier and after it, from its change with the gain.

    σ_ADU² = (σ_pre/g)² + σ_post²: what comes before is amplified with the signal, what comes after is not.  A line of
    σ_ADU² on 1/g², weighted with the errors of both.  The invariance ISO is the one at which the read noise in
    electrons has come within 5 % (`within`) of its floor σ_pre, σ_post g = σ_pre √((1 + 0.05)² − 1): raising the ISO
    beyond it takes off less than that, however far, and costs full well.  For a camera with gain settings it is such a
    setting, between two measured ones: beyond them no law is known.

    Parameters
    ----------
    read, gain
        From `read_noise` and `fit_gain`, at two settings or more.
    within
        The share of the floor that makes the invariance ISO.

    Returns
    -------
    xarray.Dataset
        Over channel: ``noise_before_gain`` [e⁻ rms], ``noise_after_gain`` [ADU rms], each with ``_error``.  The same of
        the greens together (or the only channel), as scalars ``before_gain``, ``after_gain``, and ``invariance_iso``,
        each with ``_error``; ``chi2`` per degree of freedom.  attrs: ``within``, ``warnings``.  What these frames do
        not resolve is NaN, and a warning says why.

    Examples
    --------
    >>> iso = [100.0, 200, 400, 800]
    >>> g = np.array([[2.0], [1.0], [0.5], [0.25]])
    >>> adu = np.hypot(2.4 / g, 0.9)
    >>> dims, coords = ("iso", "channel"), {"iso": iso, "channel": ["mono"]}
    >>> read = xr.Dataset({"read_noise_adu": (dims, adu), "read_noise_adu_error": (dims, 0.002 * adu)}, coords)
    >>> gain = xr.Dataset({"gain": (dims, g), "gain_error": (dims, 0.001 * g)}, coords)
    >>> split = split_read_noise(read, gain)
    >>> round(split.before_gain.item(), 2), round(split.after_gain.item(), 2), round(split.invariance_iso.item())
    (2.4, 0.9, 234)
    """
    channels = [str(name) for name in gain["channel"].values if name in read["channel"].values]
    points = {name: _points(read, gain, name) for name in channels}
    names = [name for name in channels if name in GREENS]
    error = gain["gain_error"].sel(channel=names)
    together = gain.sel(channel=names).assign(gain_error=(error.dims, error_in_mean(gain.sel(channel=names))))
    greens = [_points(read, together, name) for name in names]
    whole = pd.concat(greens, ignore_index=True) if greens else pd.DataFrame(columns=_POINT, dtype=float)
    fit, fits = _split(whole), [_split(points[name]) for name in channels]
    dim = setting_dim(gain)
    invariance = _invariance(fit, whole, within, by_iso=dim == "iso")
    values = dict(zip(_SPLIT, (*fit.before, *fit.after, *invariance), strict=True))
    table = {f"noise_{name}": about for name, about in list(_SPLIT.items())[:4]}
    by_channel = np.reshape([(*one.before, *one.after) for one in fits], (-1, 4)).T
    split = {name: (units, in_words_of(dim, title)) for name, (units, title) in _SPLIT.items()}
    data = described(split, (), values) | described(table, "channel", dict(zip(table, by_channel, strict=True)))
    data["chi2"] = ((), fit.chi2, {"units": "1", "long_name": "χ² per degree of freedom"})
    attrs = {
        "within": within,
        "settings": whole["setting"].nunique(),
        "long_name": "read noise before and after the gain",
        "of": dim,
        "warnings": _split_warnings(fit, invariance, whole, dim),
    }
    return xr.Dataset(data, {"channel": channels}, attrs)


class _Split(NamedTuple):
    """Read noise before [e⁻] and after the gain [ADU] with errors; χ² per degree of freedom, and if it is too large.

    `line` is σ_ADU² on 1/g², with its `covariance`; None from one setting.
    """

    before: tuple[float, float]
    after: tuple[float, float]
    chi2: float = np.nan
    off: bool = False
    line: StraightLine | None = None
    covariance: np.ndarray | None = None


def _points(read: xr.Dataset, gain: xr.Dataset, channel: str) -> pd.DataFrame:
    """Return the settings at which a channel has both, in the columns of `_POINT`."""
    isos = gain[setting_dim(gain)].values
    noise, noise_error = (at_isos(read[f"read_noise_adu{end}"].sel(channel=channel), isos) for end in ("", "_error"))
    factor, factor_error = (at_isos(gain[f"gain{end}"].sel(channel=channel), isos) for end in ("", "_error"))
    columns = (isos, 1 / factor, factor_error / factor, noise**2, 2 * noise * noise_error)
    points = pd.DataFrame(dict(zip(_POINT, columns, strict=True)))
    good = np.isfinite(points).all(axis=1) & (points["variance"] > 0) & (points["error"] > 0)
    return points[good].reset_index(drop=True)


def _split(points: pd.DataFrame) -> _Split:
    """Fit σ² = A/g² + B; A and B are the squares of the read noise before and after the gain."""
    nothing = (np.nan, np.nan)
    if points["setting"].nunique() < 2:
        return _Split(nothing, nothing)
    _, inverse, relative, y, error = points.to_numpy().T
    x = inverse**2
    slope = float((y / x).min())
    for _ in range(_ROUNDS):
        weight = 1 / (error**2 + (slope * 2 * x * relative) ** 2)
        line = fit_line(x, y, weight)
        slope = float(line.slope)
    degrees = x.size - 2
    chi2 = float((weight * (y - line.intercept - line.slope * x) ** 2).sum())
    widen, off = misfit(chi2, degrees)
    covariance = line.covariance * widen**2
    # a root is given where its square is above zero by two errors
    before, after = (
        (np.sqrt(square), doubt / (2 * np.sqrt(square))) if square > 2 * doubt else nothing
        for square, doubt in zip(line[:2], np.sqrt(np.diag(covariance)), strict=True)
    )
    return _Split(before, after, chi2 / degrees if degrees else np.nan, off, line, covariance)


def _invariance(fit: _Split, points: pd.DataFrame, within: float, *, by_iso: bool) -> tuple[float, float]:
    """Return the setting at which σ_post g = σ_pre √((1 + within)² − 1).

    ln g is a straight line in ln ISO around it, or in the gain setting between two measured ones.
    """
    if fit.line is None or not (np.isfinite(fit.before[0]) and np.isfinite(fit.after[0])):
        return np.nan, np.nan
    square, after = fit.line.slope, fit.line.intercept
    log_gain = 0.5 * np.log(square / after * ((1 + within) ** 2 - 1))
    mean = np.log(points["inverse"]).groupby(points["setting"]).mean()
    place, known = mean.index.to_numpy(float), -mean.to_numpy()  # ln g, falling
    place = np.log(place) if by_iso else place
    if known[0] >= log_gain >= known[-1]:
        at = int(np.clip(np.searchsorted(-known, -log_gain) - 1, 0, known.size - 2))
        power = (known[at + 1] - known[at]) / (place[at + 1] - place[at])
        start, base = place[at], known[at]
    elif by_iso:
        line = fit_line(place, known)
        power, start, base = line.slope, line.centre, known.mean()
    else:
        return np.nan, np.nan
    if not power < 0:
        return np.nan, np.nan
    value = float(start + (log_gain - base) / power)
    lever = np.array([0.5 / square, -0.5 / after])
    error = float(np.sqrt(lever @ fit.covariance @ lever)) / abs(power)
    return (float(np.exp(value)), float(np.exp(value)) * error) if by_iso else (value, error)


def _split_warnings(fit: _Split, invariance: tuple[float, float], points: pd.DataFrame, dim: str) -> list[str]:
    setting = TITLES[dim]
    if fit.line is None:
        among = "the lowest and ISO 1600" if dim == "iso" else "the lowest and one close to the highest"
        return [
            f"read noise before and after the gain cannot be separated at one {setting}; shoot bias frames and pairs "
            f"of flats at three settings or more, {among} among them"
        ]
    warnings = []
    low, high = points["setting"].min(), points["setting"].max()
    if fit.off:
        warnings.append(
            f"the read noise does not follow one law of gain over the {setting}s (χ² is {fit.chi2:.1f} times what "
            "it should be), so the errors of its split are widened; cameras that switch their conversion gain, or "
            f"multiply numbers above some {'ISO' if dim == 'iso' else setting}, do this"
        )
    if np.isnan(fit.before[0]):
        warnings.append(f"read noise before the gain is lost in that after it: measure higher {setting}s as well")
    elif np.isnan(fit.after[0]):
        warnings.append(
            f"read noise after the gain is not seen from {describe({dim: low})} on: nothing is gained by a higher "
            "setting, as far as these frames show; more bias frames at the lowest one would show it"
        )
    elif np.isfinite(invariance[0]) and not low <= invariance[0] <= high:
        warnings.append(
            f"the ISO from which nothing is gained, {invariance[0]:.0f}, lies outside the measured settings "
            f"({low:g} to {high:g}); measure some on both sides"
        )
    return warnings
