"""Charts of the dark show the measured rates, the law with its band, and the scatter of the pixels."""

import holoviews as hv
import numpy as np
import pytest

from tests.charts.drawn import check_drawn, columns, options, parts, titles
from workbench import charts


def test_the_temperature_law_and_its_band(result):
    drawn = charts.dark_current_vs_temperature(result.dark_current, result.dark_law)
    law = next(part for part in parts(drawn, hv.Curve) if part.label.startswith("doubles every"))
    x, y = law.dimension_values(0), law.dimension_values(1)
    slope = np.polyfit(x, np.log2(y), 1)[0]
    assert 1 / slope == pytest.approx(float(result.dark_law.doubling_temperature))
    at = np.interp(float(result.dark_law.reference_temperature), x, np.log(y))
    assert np.exp(at) == pytest.approx(float(result.dark_law.dark_current_reference), rel=1e-3)
    (band,) = parts(drawn, hv.Area)
    relative = float(result.dark_law.dark_current_reference_error / result.dark_law.dark_current_reference)
    assert np.min(band.dimension_values(2)) == pytest.approx(100 * relative, rel=0.02)


def test_dark_signal_lines_have_the_dark_current_as_slope(result):
    drawn = charts.dark_current_vs_time(result.dark_signal, result.dark_current)
    lines = [(part.dimension_values(0), part.dimension_values(1)) for part in parts(drawn, hv.Curve)]
    slopes = sorted({round(float(np.polyfit(x, y, 1)[0]), 6) for x, y in lines})
    np.testing.assert_allclose(slopes, np.sort(result.dark_current.dark_current.values), atol=1e-6)


def test_dark_shot_noise_is_compared_with_a_normal_curve(result):
    found = result.dark_noise
    drawn = charts.dark_shot_noise_histogram(found)
    (bars,) = parts(drawn, hv.Histogram, "darks")
    np.testing.assert_allclose(bars.dimension_values(1), found.density)
    sigma = found.attrs["sigma"]
    for curve in parts(drawn, hv.Curve, "normal curve"):
        x, y = columns(curve)
        np.testing.assert_allclose(y, np.exp(-0.5 * (x / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi)))
    (text,) = parts(drawn, hv.Labels)
    assert text.dimension_values(2)[0].startswith(f"σ {sigma:.2f} e⁻\n")
    (dots,) = parts(drawn, hv.Scatter, "darks")
    assert len(dots) == (found.density > 0).sum()


def test_the_two_laws_cross_at_the_darks_they_were_fitted_to(result):
    drawn = charts.dark_law(result.dark_current, result.dark_law)
    check_drawn(drawn)
    left, right = drawn
    straight = next(part for part in parts([left], hv.Curve) if part.label.startswith("ΔE = "))
    x, y = columns(straight)
    assert -np.polyfit(x, np.log(y), 1)[0] == pytest.approx(float(result.dark_law.activation_energy), rel=1e-4)
    better = "Arrhenius" if result.dark_law.attrs.get("law") == "arrhenius" else "doubling"
    assert options(right)["title"] == f"How far from the {better} law"
    bars = [part for part in parts([right], hv.ErrorBars) if len(part)]
    assert sum(len(part) for part in bars) == int((result.dark_current.dark_current > 0).sum())


def test_without_a_law_only_the_rates_are_drawn(result):
    drawn = charts.dark_current_vs_temperature(result.dark_current)
    assert titles(drawn) == ["Dark current doubles and doubles"]
    lost = result.dark_law.assign({name: value * np.nan for name, value in result.dark_law.data_vars.items()})
    assert len(charts.dark_current_vs_temperature(result.dark_current, lost)) == 1
