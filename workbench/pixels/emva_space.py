"""The spatial half of EMVA 1288 (release 4.0, linear), from stacks of a dark and of a half-saturated picture."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..core.errors import WorkbenchError
from .kernels import deviation_products
from .parts import highpass, spatial_parts
from .stacks import FrameStack

_PARTS = ("", "_row", "_col", "_pixel")


class _Picture(NamedTuple):
    mean: float
    stack: float  # temporal variance of one frame [DN²]
    measured: float  # spatial variance of the mean picture, temporal noise and all [DN²]
    parts: np.ndarray  # without: total, row, column, pixel [DN²]
    filtered: np.ndarray  # the same, high-passed


def emva_spatial(dark: FrameStack, bright: FrameStack | None, system_gain: float, channel: int = 0) -> dict[str, float]:
    """Return DSNU, PRNU and what they are made of, under the names of the standard's reference implementation.

    s² = Var(mean of L frames) − σ²_stack/L, σ²_stack the mean over the pixels of their variance (ddof 1) over the
    frames; DSNU = s_dark/K [e⁻]; PRNU = √(s²_50 − s²_dark)/(μ_50 − μ_dark) [%] (release 4.0 linear, sections 8.2 and
    8.3).  ``DSNU1288`` and ``PRNU1288`` are of the plain pictures, as the reference implementation has them: the fall
    of light to the corners counts.  Those that end in ``_highpass`` are of high-passed pictures, as section 8.1 has
    them, with what white noise loses there put back.  Each has the parts ``_row``, ``_col``, ``_pixel``.  A variance
    that comes out negative gives NaN.

    Parameters
    ----------
    dark, bright
        From `stack_frames`: the standard asks for 50 or more of each, one exposure, the bright ones at half of
        saturation.  Without bright ones PRNU is NaN.
    system_gain
        K [DN/e⁻].
    channel
        Of a camera with a mosaic.

    Raises
    ------
    WorkbenchError
        If a stack is of a single frame, smaller than the high-pass needs, or the bright one is not bright.

    Examples
    --------
    >>> from workbench.sensor import stack_frames
    >>> rng = np.random.default_rng(1)
    >>> pattern = rng.normal(0, 0.5, (64, 96))
    >>> dark = stack_frames(20 + pattern + rng.normal(0, 3, (20, 64, 96)))
    >>> light = 500 * rng.normal(1, 0.01, (64, 96))
    >>> bright = stack_frames(20 + pattern + light + rng.normal(0, 12, (20, 64, 96)))
    >>> found = emva_spatial(dark, bright, 0.5)
    >>> round(found["DSNU1288"], 1), round(found["PRNU1288"], 1)
    (1.0, 1.0)
    """
    zero = _picture(dark, channel)
    found = {
        "u_y_dark_stack": zero.mean,
        "sigma_2_y_stack_dark": zero.stack,
        "s_2_y_measured_dark": zero.measured,
        "s_2_y_dark": zero.parts[0],
    }
    for label, variances in (("", zero.parts), ("_highpass", zero.filtered)):
        for part, variance in zip(_PARTS, variances, strict=True):
            found[f"DSNU1288{part}{label}"] = _root(variance) / system_gain
            found[f"DSNU1288_DN{part}{label}"] = _root(variance)
    names = [f"PRNU1288{part}{label}" for label in ("", "_highpass") for part in _PARTS]
    names += ["u_y_stack", "sigma_2_y_stack", "s_2_y_measured", "s_2_y"]
    found |= dict.fromkeys(names, np.nan)
    if bright is not None:
        lit = _picture(bright, channel)
        signal = lit.mean - zero.mean
        if not signal > 0:
            raise WorkbenchError(
                f"the bright stack ({lit.mean:.4g} DN) is not brighter than the dark one ({zero.mean:.4g} DN); "
                "are they swapped?"
            )
        found |= {
            "u_y_stack": lit.mean,
            "sigma_2_y_stack": lit.stack,
            "s_2_y_measured": lit.measured,
            "s_2_y": lit.parts[0],
        }
        for label, variances in (("", lit.parts - zero.parts), ("_highpass", lit.filtered - zero.filtered)):
            for part, variance in zip(_PARTS, variances, strict=True):
                found[f"PRNU1288{part}{label}"] = 100 * _root(variance) / signal
    return {name: float(value) for name, value in found.items()}


def _picture(stack: FrameStack, channel: int) -> _Picture:
    mean, variance = stack.plane("mean", channel), stack.plane("variance", channel)
    if variance is None:
        raise WorkbenchError("one frame cannot tell its noise from its pattern; give a stack of fifty, two at least")
    noise = float(variance.mean(dtype=float))
    measured = deviation_products(mean, mean).pixels[0] / (mean.size - 1)
    # white noise of the mean picture is in the total, and in the single pixels' part of it
    white = np.array([1.0, 0.0, 0.0, 1.0]) * noise / stack.count
    plain = spatial_parts(mean, ddof=0) - white
    passed = spatial_parts(highpass(mean), filtered=True) - white
    level = float(mean.mean(dtype=float)) + float(stack.black[channel])
    return _Picture(level, noise, measured, plain, passed)


def _root(variance: float) -> float:
    return float(np.sqrt(variance)) if variance >= 0 else np.nan
