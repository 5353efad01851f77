"""The standard's estimates on its own reference data."""

import numpy as np
import pandas as pd
import pytest

from workbench.errors import WorkbenchError
from workbench.sensor import emva_dark_current, fit_emva_gain


@pytest.fixture(scope="module")
def table(real_data):
    return pd.read_csv(real_data / "emva1288-set001" / "table.csv")


@pytest.mark.parametrize(("kind", "published"), [("plain", 0.280769280926), ("driftfree", 0.2800626484911438)])
def test_system_gain_of_reference_set_001(table, kind, published):
    result = fit_emva_gain(
        table["mean_bright_dn"],
        table[f"variance_bright_{kind}_dn2"],
        table["mean_dark_dn"],
        table[f"variance_dark_{kind}_dn2"],
    )
    np.testing.assert_allclose(result.system_gain, published, rtol=1e-9)
    np.testing.assert_allclose(result.gain * result.system_gain, 1)
    assert result.used.sum() == 26


def test_dark_current_of_reference_set_001(table):
    found = emva_dark_current(table["exposure_ns"] * 1e-9, table["mean_dark_dn"], 0.280769280926)
    np.testing.assert_allclose(found, 28.4074, rtol=1e-5)


def test_tables_that_do_not_fit_together_are_refused():
    with pytest.raises(WorkbenchError, match="one number a light level"):
        fit_emva_gain([1, 2], [1, 2], [0], [0, 0])
    with pytest.raises(WorkbenchError, match="below 70 %"):
        fit_emva_gain([100, 101], [5, 4], [0, 0], [0, 0])
    with pytest.raises(WorkbenchError, match="more than two exposures"):
        emva_dark_current([1, 2], [3, 4], 1.0)
