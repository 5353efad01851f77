"""Charts of alignment and stacking, drawn from the sample night."""

import holoviews as hv
import numpy as np
import pandas as pd
import pytest

from tests.charts.drawn import check_drawn, columns, options, parts, titles
from workbench import charts, export
from workbench.align import compare_models
from workbench.charts.stacking import METHOD_NAMES
from workbench.stack.pixel import busiest_pixel, inspect_pixel


def test_a_sample_far_out_is_drawn_at_the_edge_with_its_value(night):
    pixel = inspect_pixel(night.aligned, *busiest_pixel(night.aligned))
    panel = charts.pixel_decisions(pixel)[0]
    words = [word for one in panel if isinstance(one, hv.Labels) for word in one.dimension_values(2)]
    highest = float(pixel["value"].max())
    assert f"{highest:,.0f}" in words
    shown = np.concatenate([one.dimension_values(1) for one in panel if isinstance(one, hv.Scatter)])
    assert shown.max() < highest


def test_missing_samples_and_a_pixel_without_any_are_drawn_too(night):
    pixel = inspect_pixel(night.aligned, 0, 0)
    assert np.isnan(pixel["value"]).any()
    assert len(charts.pixel_decisions(pixel)[0]) > 3


def test_residuals_are_drawn_from_their_stars(lights):
    residuals = lights.lights.registration.residuals()
    used = residuals.isel(star=np.flatnonzero(residuals.used.values))
    left, right = charts.alignment_residuals(residuals)
    (stars,) = parts([left], hv.Scatter, "star")
    np.testing.assert_allclose(columns(stars), [used.x, used.y])
    strokes = np.concatenate([part.array() for part in parts([left], hv.Segments)][:-1])
    assert len(strokes) == used.sizes["star"]
    typical = float(np.sqrt((used.dx**2 + used.dy**2).mean() / 2))
    lengths = np.hypot(strokes[:, 2] - strokes[:, 0], strokes[:, 3] - strokes[:, 1])
    assert np.sqrt((lengths**2).mean() / 2) == pytest.approx(0.03 * options(left)["xlim"][1], rel=1e-5)
    (ring,) = parts([right], hv.Curve, f"1 × {typical:.3f} px")
    np.testing.assert_allclose(np.hypot(*columns(ring)), typical)


def test_models_are_compared_on_fitted_and_held_out_stars(night):
    models = compare_models(night.registration)
    drawn = charts.transform_models(models)
    check_drawn(drawn)
    for label, name in (("fitted stars", "rms"), ("held-out stars", "held_out")):
        (shown,) = parts(drawn, hv.Scatter, label)
        np.testing.assert_allclose(shown.dimension_values(1), np.sqrt(np.nanmean(models[name].values ** 2, axis=0)))
    (held,) = parts(drawn, hv.Scatter, "held-out stars")
    assert (held.dimension_values(2) > 0).all()
    names = [text for note in parts(drawn, hv.Labels) for text in note.dimension_values(2)]
    assert set(names) <= set(models.kind.values.astype(str))


def test_noise_against_frames_has_its_law_and_errors(lights):
    growth = lights.lights.growth
    left, right = charts.snr_vs_frames(growth)
    for channel in growth.channel.values.astype(str):
        one = growth.sel(channel=channel)
        (snr,) = parts([left], hv.Scatter, channel)
        np.testing.assert_allclose(columns(snr), [growth["count"], one.snr, one.snr_error])
        (ratio,) = parts([right], hv.Scatter, channel)
        np.testing.assert_allclose(ratio.dimension_values(1), 100 * (one.noise / one.predicted - 1))
        np.testing.assert_allclose(ratio.dimension_values(2), 100 * one.noise_error / one.predicted)
    for law in parts([left], hv.Curve):
        count, snr = columns(law)
        np.testing.assert_allclose(snr / np.sqrt(count), snr[0])


def test_a_light_and_the_stack_are_on_one_scale(lights):
    pair = lights.lights.pair
    drawn = charts.stack_before_after(pair)
    light, stacked = parts(drawn, hv.Image)
    assert light.vdims[0].range == stacked.vdims[0].range
    assert light.bounds.lbrt() == stacked.bounds.lbrt()
    assert light.bounds.lbrt()[::2] == (float(pair.x[0]), float(pair.x[-1]) + 1)
    np.testing.assert_allclose(stacked.dimension_values(2, flat=False), pair["stack"].values)
    assert titles(drawn) == ["One calibrated light", f"{pair.attrs['frames']} lights stacked"]


def test_rejection_shows_each_method_and_its_default(lights):
    trial = lights.lights.trial
    found, cost, pictures = charts.rejection(trial)
    for method in trial.rejection.values.astype(str):
        label = METHOD_NAMES.get(method, method)
        one = trial.sel(rejection=method)
        (share,) = parts([found], hv.Scatter, label)
        np.testing.assert_allclose(columns(share)[:2], [trial.strength, 100 * one.completeness])
        np.testing.assert_allclose(columns(share)[2], 100 * one.completeness_error)
        (default,) = parts([cost], hv.Scatter, label)
        assert default.dimension_values(1)[0] == pytest.approx(100 * float(one.default_found))
    names = [text for note in parts([pictures], hv.Labels) for text in note.dimension_values(2)]
    assert names[0] == "mean"
    assert len(names) == 4
    (image,) = parts([pictures], hv.Image)
    assert image.dimension_values(2, flat=False).shape[1] == trial.sizes["x"] // 2


def test_decisions_about_a_pixel_are_all_drawn(night):
    pixel = inspect_pixel(night.aligned, *busiest_pixel(night.aligned))
    drawn = charts.pixel_decisions(pixel)
    check_drawn(drawn)
    methods, known = pixel.sizes["rejection"], int(np.isfinite(pixel.value).sum())
    assert sum(len(part) for part in parts(drawn, hv.Scatter)) == methods * known
    out = sum(
        int((pixel.decision.sel(rejection=name).values[np.isfinite(pixel.value)] != 0).sum())
        for name in pixel.rejection.values
    )
    marker = [hv.Store.lookup_options("bokeh", part, "style").kwargs["marker"] for part in parts(drawn, hv.Scatter)]
    assert sum(len(part) for part, one in zip(parts(drawn, hv.Scatter), marker, strict=True) if one == "x") == out
    labels = [part.label for panel in drawn for part in panel if part.label and not isinstance(part, hv.Labels)]
    assert len(labels) == len(set(labels)), "each name once in the legend"


def test_tables_hold_what_was_measured(lights, tmp_path):
    export.write_charts(lights, tmp_path, only=["snr-vs-frames", "rejection"], progress=False)
    table = pd.read_csv(tmp_path / "snr-vs-frames.csv", comment="#")
    red = table[(table["series"] == "R") & table["signal to noise"].notna()]
    measured = lights.lights.growth["snr"].sel(channel="R").values
    assert red["signal to noise"].to_numpy() == pytest.approx(measured, rel=1e-6)
    table = pd.read_csv(tmp_path / "rejection.csv", comment="#")
    assert {"noise model", "sigma clipping", "winsorized"} <= set(table["series"])
