"""Sub lengths, hours and the choice of ISO."""

import math

import numpy as np
import pytest
import xarray as xr

from tests.scenes import plain_background, plain_sensor
from workbench.core.errors import WorkbenchError
from workbench.plan.subs import (
    hours,
    noise_penalty,
    plan_subs,
    propagate,
    read_out_noise,
    stack_noise,
    sub_length,
    target_hours,
)

CHANNELS = ["R", "G1", "G2", "B"]


def sensor(isos=(100.0, 200.0, 800.0), gain=2.0, before=2.4, after=0.9, channels=CHANNELS):
    shape = (len(isos), len(channels))
    gains = np.array([gain * 100 / iso for iso in isos])
    noise = np.sqrt(before**2 + (after * gains) ** 2)
    full = {
        "gain": np.broadcast_to(gains[:, None], shape),
        "gain_error": np.full(shape, 0.01),
        "read_noise": np.broadcast_to(noise[:, None], shape),
        "read_noise_error": np.full(shape, 0.02),
        "black_level": np.full(shape, 600.0),
        "black_level_error": np.full(shape, 0.02),
    }
    data = {name: (("iso", "channel"), value.copy()) for name, value in full.items()}
    return xr.Dataset(data, {"iso": list(isos), "channel": channels}, {"camera": "x"})


def sky(rates=(1.0, 2.0, 2.0, 1.5), channels=CHANNELS):
    data = {"rate": ("channel", list(rates)), "rate_error": ("channel", [0.02 * abs(rate) for rate in rates])}
    return xr.Dataset(data, {"channel": channels}, {"white_level": 16383.0})


def test_the_constant_of_five_per_cent():
    assert sub_length((1.0, 0.0), (1.0, 0.0), 0.05).value == pytest.approx(9.76, abs=0.01)
    time = sub_length((3.0, 0.0), (0.7, 0.0), 0.08).value
    assert noise_penalty(time, 3.0, 0.7) == pytest.approx(0.08)


def test_errors_cover_the_truth():
    rng = np.random.default_rng(1)
    truth = sub_length((2.5, 0), (1.0, 0)).value
    drawn = [sub_length((n, 0.1), (b, 0.05)) for n, b in rng.normal((2.5, 1.0), (0.1, 0.05), (4000, 2))]
    pull = np.array([(one.value - truth) / one.error for one in drawn])
    assert np.mean(np.abs(pull) < 1) == pytest.approx(0.683, abs=0.03)
    wanted = hours(10, (0.1, 0), (1.0, 0), (2.5, 0), 60).value
    drawn = [
        hours(10, (s, 0.005), (b, 0.05), (n, 0.1), 60)
        for s, b, n in rng.normal((0.1, 1.0, 2.5), (0.005, 0.05, 0.1), (4000, 3))
    ]
    pull = np.array([(one.value - wanted) / one.error for one in drawn])
    assert np.mean(np.abs(pull) < 1) == pytest.approx(0.683, abs=0.03)


def test_propagation_of_unknown_errors_and_bending_formulas():
    assert propagate(lambda x: 2 * x, (3.0, math.nan)) == (6.0, 0.0)
    assert propagate(lambda x: x**2, (0.0, 0.5)).error == 0.0  # symmetric about the value
    assert propagate(lambda x: 1 / x, (2.0, 0.2)).error == pytest.approx(0.0505, abs=1e-3)


def test_a_simulated_stack_is_as_noisy_as_the_penalty_says():
    rng = np.random.default_rng(2)
    noise, rate, total, time = 3.0, 0.8, 1200.0, 30.0
    subs = rng.poisson(rate * time, (20_000, int(total / time))) + rng.normal(0, noise, (20_000, int(total / time)))
    ideal = math.sqrt(rate * total)
    assert subs.sum(axis=1).std() / ideal - 1 == pytest.approx(float(noise_penalty(time, noise, rate)), abs=0.02)


def test_a_simulated_stack_is_as_noisy_as_was_planned():
    rng, sensor, background = np.random.default_rng(5), plain_sensor(), plain_background().assign_attrs(iso=800.0)
    planned = stack_noise(sensor, background, 60.0, 12)
    for channel in map(str, planned["channel"].values):
        rate, read_out = float(background["rate"].sel(channel=channel)), read_out_noise(sensor, 800.0, channel).value
        subs = rng.poisson(rate * 60, (12, 40_000)) + rng.normal(0, read_out, (12, 40_000))
        assert subs.mean(axis=0).std() == pytest.approx(float(planned["noise"].sel(channel=channel)), rel=0.02)
    assert (planned["noise_error"] > 0).all()


def test_a_simulated_target_reaches_the_ratio_in_those_hours():
    rng = np.random.default_rng(3)
    target, rate, noise, time = 0.2, 1.0, 2.5, 60.0
    needed = hours(8, (target, 0), (rate, 0), (noise, 0), time, overhead=0).value
    count = round(needed * 3600 / time)
    light = rng.poisson((target + rate) * time, (4000, count)) + rng.normal(0, noise, (4000, count))
    signal = light.sum(axis=1) - rate * time * count
    assert signal.mean() / signal.std() == pytest.approx(8, rel=0.05)
    assert hours(8, (target, 0), (rate, 0), (noise, 0), time, overhead=0, pixels=4).value == pytest.approx(needed / 4)
    assert hours(8, (target, 0), (rate, 0), (noise, 0), time, overhead=60).value == pytest.approx(2 * needed)


def test_the_darkest_colour_sets_the_length_and_range_the_iso():
    plan = plan_subs(sensor(), sky())
    assert plan.attrs["met"]
    assert plan.attrs["best_iso"] == 100
    worst = plan.needed.sel(iso=100)
    assert plan.attrs["best_length"] == pytest.approx(float(worst.max()))
    assert worst.argmax("channel").item() == 0
    effective = math.hypot(float(sensor().read_noise[0, 0]), 2.0 / math.sqrt(12))  # rounding is noise too
    assert float(worst.max()) == pytest.approx(9.756 * effective**2, rel=1e-3)
    assert (plan.penalty <= 0.0501).all()
    assert (np.diff(plan.dynamic_range) < 0).all()


def test_a_poor_mount_asks_for_a_higher_iso():
    plan = plan_subs(sensor(), sky(), longest=60.0)
    assert plan.attrs["best_iso"] == 800
    assert plan.attrs["met"]
    plan = plan_subs(sensor(), sky(), longest=20.0)
    assert not plan.attrs["met"]
    assert plan.attrs["best_iso"] == 800
    assert plan.attrs["best_length"] == 20.0
    assert plan.attrs["best_length_error"] == 0.0


def test_what_is_not_measured_is_left_out():
    half = sensor()
    half["gain"][0] = np.nan
    assert plan_subs(half, sky()).iso.values.tolist() == [200, 800]
    half["read_noise"][:] = np.nan
    with pytest.raises(WorkbenchError, match="no ISO has both"):
        plan_subs(half, sky())
    with pytest.raises(WorkbenchError, match="not above their black level"):
        plan_subs(sensor(), sky((-1.0, -1.0, -1.0, -1.0)))
    one = plan_subs(sensor(), sky((-1.0, 2.0, 2.0, 1.5)))
    assert np.isnan(one.needed.sel(channel="R")).all()


@pytest.mark.parametrize("wrong", [0, -0.05, math.nan])
def test_a_penalty_of_nothing_is_refused(wrong):
    with pytest.raises(WorkbenchError, match="penalty"):
        sub_length((2.5, 0), (1, 0), wrong)


def test_hours_without_a_target_are_refused():
    with pytest.raises(WorkbenchError, match="target"):
        hours(10, (0.0, 0.0), (1, 0), (2, 0), 60)


def test_binning_an_x_trans_sensor_gains_as_many_photosites_as_its_colours_have():
    names = ["R", "G", "B"]
    own, background = sensor(channels=names), sky((1.0, 2.0, 1.5), names)
    subs = plan_subs(own, background)
    one, many = (target_hours(own, subs, background, 0.1, 10.0, pixels=count)["hours"].values for count in (1.0, 36.0))
    np.testing.assert_allclose(one / many, [8, 20, 8])
