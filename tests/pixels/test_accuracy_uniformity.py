"""A small run of benchmarks/accuracy_uniformity: no bias beyond chance, intervals that hold the truth as they say."""

import accuracy_uniformity as accuracy
import pytest
from scipy import stats
from trials import COVERED

TRIALS = 16
INDEPENDENT = {"DSNU": 4, "PRNU": 4, "DCNU": 1, "activation energy": 1}  # intervals of one set


@pytest.mark.slow
def test_values_are_unbiased_and_errors_honest():
    summary = accuracy.summarise(accuracy.run(TRIALS, first_seed=70_001, workers=1, progress=False))
    assert (summary["missing"] == 0).all()
    for quantity, row in summary.iterrows():
        assert abs(row["bias"]) < accuracy.BOUND + 4 * row["bias_error"], quantity
        count = TRIALS * INDEPENDENT[quantity]
        low, high = stats.binom.ppf(1e-4, count, COVERED[0]), stats.binom.isf(1e-4, count, COVERED[1])
        assert low <= row["coverage"] * count <= high, quantity
    page = accuracy.document(summary, TRIALS)
    assert page.count("\n| ") == 2 + 4
