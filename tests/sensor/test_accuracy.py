"""A small run of benchmarks/accuracy: no bias beyond chance, and intervals that hold the truth as often as they say."""

import accuracy
import numpy as np
import pytest
from scipy import stats

TRIALS = 32
# Intervals of one set that do not share what makes them err: an offset that wanders is the same in all four channels,
# the dark currents of all temperatures have the gain in common.
INDEPENDENT = {
    "gain": 12,
    "read noise": 12,
    "read noise, clipped bias": 4,
    "read noise before the gain": 1,
    "read noise after the gain": 1,
    "ISO from which nothing is gained": 1,
    "gain from darks": 4,
    "full well": 12,
    "black level": 3,
    "dark current": 1,
    "dark current, 2 e⁻ a dark": 1,
    "unity-gain ISO": 1,
    "doubling temperature": 1,
}


@pytest.mark.slow
def test_values_are_unbiased_and_errors_honest():
    intervals = accuracy.run(TRIALS, first_seed=90_001, workers=1, progress=False)
    summary = accuracy.summarise(intervals)
    assert (summary["missing"] == 0).all()
    assert summary.loc["gain", "intervals"] == TRIALS * 12
    for quantity, row in summary.iterrows():
        # what is allowed, and what so few intervals cannot tell: four standard errors
        assert abs(row["bias"]) < accuracy.TOLERANCE[quantity] + 4 * row["bias_error"], quantity
        # the share that holds the truth is binomial; of the allowed 64 to 72 %, beyond chance (p < 1e-4)
        count = TRIALS * INDEPENDENT[quantity]
        low, high = stats.binom.ppf(1e-4, count, 0.64), stats.binom.isf(1e-4, count, 0.72)
        assert low <= row["coverage"] * count <= high, quantity


@pytest.mark.slow
def test_the_page_says_what_was_found():
    intervals = accuracy.run(2, workers=1, progress=False)
    page = accuracy.document(accuracy.summarise(intervals), 2)
    assert page.count("\n| ") == 2 + len(accuracy.TOLERANCE)  # two lines of head, a line for each quantity
    assert "| gain [e⁻/ADU] | 24 |" in page
    assert np.isfinite(intervals["value"]).all()
