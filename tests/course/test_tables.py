"""Tables of the course: the truth stands beside what was measured, and only where it is a fair match."""

import course
import numpy as np
import pytest
import xarray as xr

from workbench.core.errors import WorkbenchError
from workbench.sensor import Darks


def over_temperature(values, name="dark_current"):
    coords = {"temperature": [0.0, 20.0], "iso": ("temperature", [800.0, 800.0])}
    return xr.DataArray(values, coords, ["temperature"], name, {"units": "electron / s"})


def test_the_truth_of_the_samples_and_none_for_real_frames(small_samples, tmp_path):
    true = course.truth(small_samples)
    assert true["gain"].sel(iso=200).item() == pytest.approx(1.065)
    assert true["read_noise_adu"].sel(iso=800).item() == pytest.approx(2.45413 / 0.26625, rel=1e-4)
    assert true["activation_energy"].item() == 0.65
    assert course.truth(tmp_path).get("gain") is None


def test_difference_from_the_truth_is_in_standard_errors():
    table = course.with_truth(
        over_temperature([0.1, 0.4]), over_temperature([0.01, 0.1]), over_temperature([0.12, 0.3])
    )
    assert table["off by"].tolist() == ["−2.0 σ", "+1.0 σ"]
    assert table.index.tolist() == ["0, 800", "20, 800"]
    assert table.columns[0] == "dark current [e⁻/s]"


def test_channels_are_one_until_they_differ_and_rows_are_few():
    coords = {"iso": [100.0, 200, 400, 800, 1600], "channel": ["R", "B"]}
    value = xr.DataArray(
        np.full((5, 2), 2.1), coords, ["iso", "channel"], name="gain", attrs={"units": "electron / adu"}
    )
    same = course.with_truth(value, 0 * value + 0.1)
    assert same.columns.tolist() == ["gain [e⁻/ADU]"]
    assert same.index.tolist() == ["100", "200", "800", "1600"]
    assert same.iloc[0, 0] == "2.100 ± 0.071"
    value[4, 1] = 2.8
    apart = course.with_truth(value, 0 * value + 0.1)
    assert apart.columns.tolist() == ["R", "B"]
    assert apart.columns.name == "gain [e⁻/ADU]"
    assert course.with_truth(value.rename("read_noise_adu"), 0 * value + 0.1).columns.name == "read noise [e⁻/ADU]"


def test_channels_count_together():
    coords = {"iso": [100.0], "channel": ["R", "B"]}
    value = xr.DataArray([[2.1, 2.1]], coords, ["iso", "channel"])
    table = course.with_truth(value, 0 * value + 0.1, xr.DataArray([2.0], {"iso": [100.0]}, ["iso"]))
    assert table["off by"].tolist() == ["+1.4 σ"]  # 0.1 of 0.1/√2
    truth, error = xr.DataArray([2.0], {"iso": [100.0]}, ["iso"]), 0 * value + 0.1
    table = course.with_truth(value.rename("gain"), error, truth, shared=error)  # all of it is that of every channel
    assert table.iloc[0, 0] == "2.10 ± 0.10"
    assert table["off by"].tolist() == ["+1.0 σ"]


def test_pixels_that_saturate_are_counted():
    table = course.with_truth(
        over_temperature([0.1, 0.4]), over_temperature([0.01, 0.1]), over_temperature([0.12, 0.3]),
        saturated=over_temperature([0, 72]),
    )  # fmt: skip
    assert table["off by"].tolist() == ["−2.0 σ", "+1.0 σ"]
    assert table["saturated pixels"].tolist() == ["0", "72"]


def test_without_a_truth_there_is_no_column_for_it():
    table = course.with_truth(over_temperature([0.1, np.nan]), over_temperature([0.01, np.nan]))
    assert len(table.columns) == 1
    assert table.iloc[1, 0] == "not measured"


def dark_signals(temperature):
    data = {"dark_signal": ("group", [18.0, 2.25]), "dark_signal_error": ("group", [0.1, 0.1])}
    coords = {"iso": ("group", [200.0, 200]), "temperature": ("group", temperature), "exposure": ("group", [60.0, 600])}
    return Darks(xr.Dataset(data, coords), xr.Dataset(), None)


def test_two_darks_show_the_trap_of_not_dividing_by_time():
    table = course.compare_two_darks(dark_signals([20.0, -18.0]))
    # 18/2.25 is three doublings in 38 K; divided by time 0.3/0.00375 = 80 is 6.32 of them
    assert table.iloc[-1].tolist() == ["12.7 K (wrong)", "6.0 K"]


def test_darks_of_one_temperature_give_no_law():
    with pytest.raises(WorkbenchError, match="one temperature"):
        course.compare_two_darks(dark_signals([20.0, 20.0]))
