"""What a stack gains: noise against the number of frames, and rejection tried with planted events."""

import numpy as np
import pytest

from workbench import stack
from workbench.core.errors import WorkbenchError
from workbench.stack.trial import before_after, plant, rejection_trial


def test_what_is_planted_is_what_was_asked_for():
    light, line = plant((200, 300), brightest=800.0, rays=0, seed=3)
    bright = light[line & (np.arange(300) > 270)]
    assert bright.mean() == pytest.approx(0.9 * 800 * (270 + 299) / 2 / 299, rel=0.1)
    assert (plant((50, 60), brightest=1.0, seed=7)[0] == plant((50, 60), brightest=1.0, seed=7)[0]).all()
    with pytest.raises(WorkbenchError, match="needs light"):
        plant((50, 60), brightest=0.0)


def test_the_noise_model_finds_most_and_throws_out_least(night_trial):
    noise = night_trial.sel(rejection="noise")
    assert noise["default_found"] > 0.95
    assert noise["default_false_alarms"] < 0.001
    assert noise["left"] < 0.04
    others = night_trial.drop_sel(rejection="noise")
    assert (
        others["default_false_alarms"].where(others["default_found"] > 0.5) > 10 * noise["default_false_alarms"]
    ).sum()
    share = noise["completeness"].values
    assert share[-3:].min() > 0.98
    assert share[0] < 0.5


def test_eight_samples_never_exceed_three_of_their_own_standard_deviations(night_trial):
    assert night_trial["default_found"].sel(rejection="sigma") == 0  # (N - 1)/√N = 2.47
    assert night_trial["left"].sel(rejection="sigma") == pytest.approx(1.0)
    assert night_trial["found"].sel(rejection="sigma", threshold=2.0) > 0.9


def test_lower_thresholds_find_more_and_cost_more(night_trial):
    for name in ("found", "false_alarms"):
        assert (night_trial[name].diff("threshold") <= 0.01).all()


def test_three_frames_are_enough_for_the_noise_model(night):
    few = rejection_trial(night.lights, night.registration, frames=3, thresholds=(), window=(200, 300))
    assert few["default_found"].sel(rejection="noise") > 0.95
    assert few["left"].sel(rejection="noise") < 0.1
    assert few["left"].sel(rejection="winsorized") > 0.7
    assert few.attrs["frames"] == 3


def test_trials_that_cannot_be_made_are_refused(night):
    with pytest.raises(WorkbenchError, match="3 to 8"):
        rejection_trial(night.lights, night.registration, frames=2)
    with pytest.raises(WorkbenchError, match="'median' rejects nothing"):
        rejection_trial(night.lights, night.registration, methods=("median",))
    with pytest.raises(WorkbenchError, match="no channel 'L'"):
        rejection_trial(night.lights, night.registration, channel="L")


def test_noise_falls_with_the_root_of_n_as_the_variance_predicts(night):
    growth = stack.noise_against_frames(night.aligned, counts=(1, 2, 4, 8))
    assert np.abs(growth["noise"] / growth["predicted"] - 1).max() < 0.02
    gain = growth["noise"].sel(count=1) / growth["noise"].sel(count=8)
    assert gain.values == pytest.approx([np.sqrt(8)] * 3, rel=0.04)
    assert (growth["snr"].diff("count") > 0).all()
    assert (growth["noise_error"] < 0.05 * growth["noise"]).all()


def test_before_and_after_show_the_same_sky(night):
    pair = before_after(night.aligned, piece=(100, 150))
    assert pair["light"].shape == (100, 150)
    assert pair.attrs["light_noise"] / pair.attrs["stack_noise"] == pytest.approx(np.sqrt(8), rel=0.05)
    assert abs(float(np.median(pair["light"]) - np.median(pair["stack"]))) < 3


def test_counts_that_are_not_there_are_refused(night):
    with pytest.raises(WorkbenchError, match="there are 8 frames"):
        stack.noise_against_frames(night.aligned, counts=(4, 9))
    with pytest.raises(WorkbenchError, match="two frames or more"):
        stack.noise_against_frames(night.aligned.isel(frame=[0]))
