"""Measured values as text."""

import math

import pytest

from workbench.core.values import error_of, json_quantity, shutter, temperature_text, unit_text, value_text


@pytest.mark.parametrize(
    ("value", "error", "written"),
    [
        (2.49312, 0.0123, "2.493 ± 0.012"),
        (1.2345, 0.0998, "1.23 ± 0.10"),
        (31234.0, 250.0, "31,230 ± 250"),
        (-0.3, 0.02, "-0.300 ± 0.020"),
        (5.0, float("nan"), "5.00"),
        (float("nan"), 1.0, "not measured"),
    ],
)
def test_numbers_are_written_to_two_figures_of_their_error(value, error, written):
    assert value_text(value, error) == written


def test_units_of_both_spellings_are_shown_in_one_way():
    for units, shown in (("e-/s", "e⁻/s"), ("electron / s", "e⁻/s"), ("electron / (s pix)", "e⁻/s/pixel")):
        assert unit_text(units) == shown
    assert temperature_text(-5) == "−5 °C"


def test_a_lower_bound_is_written_as_one_and_read_again():
    entry = json_quantity(31234.0, math.inf, "e-")
    assert entry == {"value": 31234.0, "error": None, "unit": "e-", "bound": "at least"}
    assert math.isinf(error_of(entry))
    assert value_text(entry["value"], error_of(entry), "e⁻") == "≥ 31,234 e⁻"
    assert math.isnan(error_of(json_quantity(2.0, math.nan, "e-")))


def test_shutters():
    assert [shutter(time) for time in (1 / 8000, 1 / 128, 1 / 3, 0.8, 30, 1200)] == [
        *("1/8000 s", "1/125 s", "0.333 s", "0.8 s", "30 s", "1200 s")
    ]
