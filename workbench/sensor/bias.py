"""Read noise and black level, from bias frames alone.

Read noise must come from pairs: the spread over one frame holds the fixed pattern as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from ..frames import channels_of, check_cube
from ..statistics import (
    QUANTISATION_VARIANCE,
    frame_pairs,
    jackknife_error,
    leave_one_out,
    measure_pairs,
    pair_moments,
    t_factor,
)
from .selection import describe, group_frames, listed, odd_ones_out

CLIPPED_FRACTION = 1e-3  # pixels at zero beyond which a normal distribution's σ reads more than 0.3 % low
_RESOLVED_VARIANCE = 0.24  # ADU²; below, rounding to whole ADU hides the noise (EMVA 1288 release 4.0, section 6.6)


def read_noise(bias: xr.DataArray, *, progress: Any = True) -> xr.Dataset:
    """Measure read noise and black level of every ISO and channel from bias frames.

    σ_R² = ½ Var(b₁ − b₂) − 1/12, averaged over pairs of successive frames (the pair's mean difference and
    differences beyond 8 robust σ removed; 1/12 ADU² is what rounding adds; EMVA 1288).  Its error is a jackknife
    over blocks of rows.  The black level is the plain mean of all frames; its error comes from the scatter of the
    frames' means, so that an offset that wanders from frame to frame is in it.

    Parameters
    ----------
    bias
        Raw bias frames (frame, y, x) of any number of ISO settings, at least two of each.
    progress
        False for no progress bar.

    Returns
    -------
    xarray.Dataset
        Over (iso, channel): ``read_noise_adu`` and ``black_level`` [ADU], each with its ``_error`` (half the width
        of the 68 % interval); ``variance`` [ADU²], rounding included, with ``variance_error``; ``frame_scatter``
        [ADU], the standard deviation of the frames' means; ``zero_fraction``.  Over iso: ``frames``.  What cannot be
        measured is NaN, and ``attrs["warnings"]`` says why.

    Raises
    ------
    WorkbenchError
        If the frames are not raw bias frames.

    Examples
    --------
    >>> from workbench.frames import make_cube
    >>> noise = np.random.default_rng(0).normal(600, 3, (4, 128, 128)).round().astype("uint16")
    >>> result = read_noise(make_cube(noise, cfa_pattern="RGGB", kind="bias", iso=100), progress=False)
    >>> float(result.read_noise_adu.sel(iso=100).mean().round(2))
    3.0
    """
    check_cube(bias, stage="raw", kind="bias")
    groups = group_frames(bias, "iso")
    pairs, owner = [], []
    for number, (_, frames) in enumerate(groups):
        local = frame_pairs(len(frames)) or [(0, 0)]  # a lone frame, paired with itself, still has a mean
        pairs += [(int(frames[i]), int(frames[j])) for i, j in local]
        owner += [number] * len(local)
    sums = measure_pairs(bias, pairs, progress=progress)
    owner = np.array(owner)
    names = channels_of(bias.attrs["cfa_pattern"])
    shape = (len(groups), len(names))
    result = {name: np.full(shape, np.nan) for name in _VARIABLES}
    warnings: list[str] = []
    quantisation = QUANTISATION_VARIANCE if np.issubdtype(bias.dtype, np.integer) else 0.0
    for number, (setting, frames) in enumerate(groups):
        where = np.flatnonzero(owner == number)
        one = _one_setting(sums.plain[where], sums.kept[where], len(frames), quantisation)
        one["zero_fraction"] = (sums.zero[where].sum(-1) / sums.plain[where][..., 0].sum(-1)).mean(axis=0)
        warnings += _refuse(one, setting, bias["filename"].values[frames], quantisation)
        for name in _VARIABLES:
            result[name][number] = one[name]
    data = {name: (("iso", "channel"), result[name], attrs) for name, attrs in _VARIABLES.items()}
    data["frames"] = ("iso", [len(frames) for _, frames in groups], {"long_name": "bias frames"})
    coords = {"iso": ("iso", [s["iso"] for s, _ in groups], {"long_name": "ISO setting"}), "channel": list(names)}
    attrs = {"camera": bias.attrs["camera"], "long_name": "read noise and black level", "warnings": warnings}
    return xr.Dataset(data, coords, attrs)


_VARIABLES = {
    "read_noise_adu": {"units": "ADU", "long_name": "read noise"},
    "read_noise_adu_error": {"units": "ADU", "long_name": "error of the read noise"},
    "black_level": {"units": "ADU", "long_name": "black level"},
    "black_level_error": {"units": "ADU", "long_name": "error of the black level"},
    "variance": {"units": "ADU²", "long_name": "half-variance of the bias difference"},
    "variance_error": {"units": "ADU²", "long_name": "error of the half-variance"},
    "frame_scatter": {"units": "ADU", "long_name": "standard deviation of the frames' means"},
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


def _refuse(one: dict[str, np.ndarray], setting: dict, files: np.ndarray, quantisation: float) -> list[str]:
    """Blank what these frames cannot give, in place, and say why."""
    where = describe(setting)
    warnings = []
    if len(files) < 2:
        warnings.append(
            f"only one bias frame at {where} ({listed(files)}): read noise needs at least two, and so does the error "
            "of the black level; shoot ten or more"
        )
        return warnings
    clipped = one["zero_fraction"] > CLIPPED_FRACTION
    if clipped.any():
        share = 100 * one["zero_fraction"].max()
        warnings.append(
            f"the bias frames at {where} are clipped at zero ({share:.3g} % of the pixels; {listed(files)}): the "
            "camera subtracts its black level before saving, so neither read noise nor black level can be read from "
            "them; use firmware or a camera setting that keeps the offset"
        )
        kept = {"zero_fraction", "frame_scatter", "means"}
        for name in set(one) - kept:
            one[name] = np.where(clipped, np.nan, one[name])
    if quantisation:
        hidden = one["variance"] < _RESOLVED_VARIANCE
        if hidden.any():
            warnings.append(
                f"the read noise at {where} is below half an ADU: rounding to whole ADU hides it, and it is left out; "
                "measure it at a higher ISO"
            )
            for name in ("read_noise_adu", "read_noise_adu_error"):
                one[name] = np.where(hidden, np.nan, one[name])
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
