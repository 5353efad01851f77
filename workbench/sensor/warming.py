"""A sensor that warms up along a run of darks: the level of whole frames rises from the first to the last."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy import special

from ..core.cube import take_frames
from ..core.pairs import t_factor
from ..core.selection import describe

USUAL_DOUBLING = 6.0  # K: for a word on how much warmer, where the law is not known yet
_FELT = 0.3  # K along a run that gets a word
_SURE = 1e-3  # chance that equal darks show such a trend
_FEWEST = 4


class Trend(NamedTuple):
    """Change from the first frame of a run to the last, its error, and the chance that it is none."""

    change: float
    error: float
    chance: float


def in_order_of_time(cube: xr.DataArray) -> xr.DataArray:
    """Return the frames in the order of time where all state it, else as they are (by name)."""
    times = cube["time"].values
    if np.isnat(times).any():
        return cube
    order = np.argsort(times, kind="stable")
    return cube if (np.diff(order) == 1).all() else take_frames(cube, order)


def run_trend(levels: np.ndarray) -> Trend:
    """Return the straight trend of the levels of equal frames, in their order; NaN for fewer than four.

    Examples
    --------
    >>> trend = run_trend(np.array([10.0, 11.1, 11.9, 13.0, 14.0]))
    >>> round(trend.change, 1), trend.chance < 1e-3
    (4.0, True)
    """
    count = levels.size
    if count < _FEWEST:
        return Trend(math.nan, math.nan, 1.0)
    place = np.linspace(-0.5, 0.5, count)
    slope = float((place * levels).sum() / (place**2).sum())
    left = levels - levels.mean() - slope * place
    error = math.sqrt(float((left**2).sum()) / (count - 2) / float((place**2).sum()))
    if not error > 0:
        return Trend(slope, 0.0, 1.0)
    chance = 2 * float(special.stdtr(count - 2, -abs(slope) / error))
    return Trend(slope, error * t_factor(count - 2), chance)


def heating(trend: Trend, signal: float, runs: int = 1) -> float:
    """Return by how much the sensor warmed along a run [K], 0 where the trend may be chance.

    ΔT = T_d log₂(1 + change/signal), T_d the usual 6 K; `runs` is how many runs were looked through.

    Examples
    --------
    >>> heating(Trend(50.0, 2.0, 1e-6), 50.0)
    6.0
    """
    if not (trend.chance < _SURE / max(runs, 1) and signal > 0 and abs(trend.change) < signal * 4):
        return 0.0
    share = 1 + trend.change / signal
    return USUAL_DOUBLING * math.log2(share) if share > 0 else 0.0


def warming(rows: list[dict]) -> list[str]:
    """Fill in by how much the sensor warmed along each run of darks, and say so where it did."""
    warnings = []
    runs = [row for row in rows if "_trend" in row]
    for row in runs:
        warmer = heating(row.pop("_trend"), row["dark_signal"], len(runs))
        row["heating"] = warmer
        if abs(warmer) > _FELT:
            where = describe({name: row[name] for name in ("iso", "temperature", "exposure")})
            warnings.append(
                f"the darks at {where} change by {row['trend']:+.3g} ± {row['trend_error']:.2g} e- from the first to "
                f"the last, as if the sensor had {'warmed' if warmer > 0 else 'cooled'} by {abs(warmer):.2g} K; let it "
                "run for half an hour before the series, and take darks between the lights"
            )
    return warnings
