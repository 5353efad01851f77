"""Charts of the plan show the noise budget, the subs and the mount."""

import holoviews as hv
import numpy as np
import pandas as pd
import pytest

from tests.charts.drawn import columns, options, parts, titles
from workbench import charts, plan
from workbench.core.errors import WorkbenchError


def test_the_shares_of_the_noise_fill_the_chart(result):
    drawn = charts.noise_budget_chart(result.sensor, rate=1.0, exposure=60.0)
    for panel in drawn:
        areas = parts([panel], hv.Area)
        below, up_to = np.array([columns(part)[1] for part in areas]), np.array([columns(part)[2] for part in areas])
        np.testing.assert_allclose(below[1:], up_to[:-1])
        np.testing.assert_allclose(below[0], 0)
        np.testing.assert_allclose(up_to[-1], 100, atol=0.1)
        assert options(panel)["ylim"] == (0, 100)
    assert titles(drawn)[1] == "In 60 s"


def test_the_plan_marks_the_best_sub_on_the_curves(card):
    subs = card.subs
    left, right = charts.sub_length(subs)
    (star,) = parts([left], hv.Scatter, "the plan")
    best = subs.attrs["best_iso"]
    assert columns(star)[0][0] == subs.attrs["best_length"]
    assert columns(star)[1][0] == pytest.approx(100 * float(subs.penalty.sel(iso=best)))
    assert {f"ISO {iso:g}" for iso in subs.iso.values} <= {part.label for part in left}
    (limit,) = parts([left], hv.Curve, "the mount's limit")
    assert set(limit.dimension_values(0)) == {120.0}
    (needed,) = parts([right], hv.Scatter, "needed")
    np.testing.assert_allclose(needed.dimension_values(1), subs.needed.max("channel"))
    assert (needed.dimension_values(2) > 0).all()


def test_no_limit_is_drawn_where_none_is_known(card):
    open_ended = plan.plan_subs(card.sensor, card.background)
    labels = [one.label for one in charts.sub_length(open_ended)[0]]
    assert "the mount's limit" not in labels


def test_stars_draw_out_along_the_fitted_law(card):
    drawn = charts.star_elongation(card.shapes, card.tracking)
    (lights,) = parts(drawn, hv.Scatter, "lights")
    good = np.isfinite(card.shapes.elongation.values)
    np.testing.assert_allclose(columns(lights)[:2], [card.shapes.exposure[good], card.shapes.elongation[good]])
    assert (columns(lights)[2] > 0).all()
    law = next(part for part in parts(drawn, hv.Curve) if part.label.startswith("drift of "))
    (band,) = parts(drawn, hv.Area, "68 % band")
    _, low, high = columns(band)
    assert low[-1] < law.dimension_values(1)[-1] < high[-1]
    assert low[0] == high[0] == law.dimension_values(1)[0]
    (wanted,) = parts(drawn, hv.Curve, "still good enough")
    assert set(wanted.dimension_values(1)) == {card.tracking.attrs["elongation"]}


def test_the_noise_of_a_growing_stack_goes_on_as_one_over_the_root_of_time():
    seconds = np.array([60.0, 120.0, 120.0, 240.0])
    lights = pd.DataFrame(
        {
            "used": [True, True, False, True],
            "total_exposure": seconds,
            "noise_mono": 8 / np.sqrt(seconds),
            "units": "adu",
        }
    )
    (panel,) = charts.noise_so_far(lights)
    (measured,) = parts([panel], hv.Scatter, "mono")
    assert measured.vdims[0].unit == "ADU"
    (in_electrons,) = parts(charts.noise_so_far(lights.assign(units="electron")), hv.Scatter, "mono")
    assert in_electrons.vdims[0].unit == "e⁻"
    np.testing.assert_allclose(measured.dimension_values(0), [1 / 60, 1 / 30, 1 / 15])
    (ahead,) = parts([panel], hv.Curve)
    np.testing.assert_allclose(ahead.dimension_values(0)[[0, -1]], [1 / 15, 2 / 15])
    np.testing.assert_allclose(ahead.dimension_values(1)[-1], measured.dimension_values(1)[-1] / np.sqrt(2))
    with pytest.raises(WorkbenchError, match="no light has been added"):
        charts.noise_so_far(lights.assign(used=False))
