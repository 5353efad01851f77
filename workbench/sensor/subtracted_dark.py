"""Cameras that subtract the mean dark signal by themselves: their noise still tells the dark current."""

from __future__ import annotations

import numpy as np

from ..core.pairs import BLOCKS, jackknife_error
from .dark_frames import Group

_SUBTRACTED = 0.5  # of what the noise says the mean must show, or the camera takes the mean off

HIDDEN = (
    "the camera subtracts the mean dark signal by itself at {where}: the noise grows with exposure, the mean does not; "
    "the dark current is that of the noise"
)


def is_hidden(mean: float, by_noise: float, error: float) -> bool:
    """Tell whether the mean shows less than half of the dark current that the noise is sure of [e⁻/s].

    Examples
    --------
    >>> is_hidden(0.01, 0.3, 0.02), is_hidden(0.31, 0.3, 0.02), is_hidden(0.01, 0.3, 0.2)
    (True, False, False)
    """
    return bool(by_noise > 5 * error and mean < _SUBTRACTED * by_noise)


def from_noise(points: list[Group], share: np.ndarray, gain: np.ndarray) -> tuple[float, float, float]:
    """Return the dark current from the growth of the pairs' variance, dσ²/dt g² [e⁻/s], its error, and in ADU/s.

    Shot noise of D t electrons has the variance D t/g² [ADU²], whatever the camera subtracts.  The error is from a
    jackknife over blocks of rows.
    """
    several = [group for group in points if group.count > 1]
    times = np.array([group.exposure for group in several])
    if np.unique(times).size < 2 or not np.isfinite(gain).all():
        return np.nan, np.nan, np.nan
    noise = np.array([group.noise for group in several])  # (group, channel, block)
    weight = np.array([group.count - 1 for group in several]) / np.mean(noise, axis=(1, 2)) ** 2
    away = times - (weight * times).sum() / weight.sum()
    lever = weight * away / (weight * away**2).sum()
    slopes = np.einsum("g,gcb->cb", lever, noise)
    by_block = ((share * gain**2)[:, None] * slopes).sum(axis=0)
    count = by_block.size
    without = (by_block.sum() - by_block) / max(count - 1, 1)
    in_adu = float(((share * gain)[:, None] * slopes).sum(axis=0).mean())
    return float(by_block.mean()), float(jackknife_error(without)) if count > 1 else np.nan, in_adu


def hidden_row(row: dict, value: float, error: float, adu: float) -> dict[str, float]:
    """Return the row's dark currents where the mean is taken off by the camera: those of the noise."""
    whole = row["dark_current_variance_error"]
    return {
        "dark_current": value,
        "dark_current_error": whole,
        "dark_current_scatter": error,
        "dark_current_common": value,
        "dark_current_adu": adu,
        "dark_current_adu_error": adu * error / value,
        "median": row["median"] + value - row["dark_current"],
        "own_error": error,
        "own_lever": error,  # known by itself, not by the scatter of whole frames
        "own_freedom": float(BLOCKS - 1),
        "bias_error": 0.0,
    }
