"""A curve that bends: charge pushed to the neighbours, found in the variance and in the neighbours."""

import numpy as np
import pytest

from workbench.core.cube import make_cube
from workbench.core.pairs import jackknife_error, leave_one_out
from workbench.core.statistics import neighbour_covariance
from workbench.sensor import fit_curvature, fit_gain, photon_transfer, read_noise

GAIN, READ, PUSH = 2.0, 3.0, 4e-7  # e-/ADU, e-, 1/e- and neighbour
LEVELS = (1000, 4000, 8000, 12000, 16000, 20500)
SHAPE = (384, 384)


def shoot(rng, electrons, push):
    """A frame in which each pixel gives each of four neighbours push · μ of what it has more than they."""
    charge = rng.poisson(electrons, SHAPE).astype(float)
    for axis in (0, 1):
        moved = push * electrons * (np.roll(charge, 1, axis) - charge)
        charge += moved
        charge -= np.roll(moved, -1, axis)
    return np.clip(np.rint((charge + rng.normal(0, READ, SHAPE)) / GAIN + 600), 0, 16383).astype("uint16")


def measure(push, seed=0, drift=0.97):
    rng = np.random.default_rng(seed)
    frames = [shoot(rng, level * lamp, push) for level in LEVELS for lamp in (1, drift)]
    exposure = np.repeat([1.0, 2, 3, 4, 99, 6], 2)  # one is wrong, and does not matter
    names = [f"{level}-{n}" for level in LEVELS for n in (0, 1)]
    flat = make_cube(
        frames, cfa_pattern="RGGB", kind="flat", iso=100, exposure=exposure, white_level=16383, filename=names
    )
    bias = make_cube([shoot(rng, 0, 0) for _ in range(6)], cfa_pattern="RGGB", kind="bias", iso=100)
    ptc = photon_transfer(flat, read_noise(bias, progress=False), progress=False)
    return flat, ptc, fit_gain(ptc)


@pytest.fixture(scope="module")
def bent():
    return measure(PUSH)


def test_the_bend_is_found_in_the_variance(bent):
    _, ptc, _ = bent
    found = fit_curvature(ptc)
    # each of four neighbours takes push·μ twice: C₀₀ = μ (1 − 8 push μ), and a = −8 push
    pull = (found.curvature + 8 * PUSH) / found.curvature_error
    assert abs(pull.mean()) < 2
    assert (abs(pull) < 4).all()
    assert (abs(found.gain_curved - GAIN) < 4 * found.gain_curved_error).all()
    assert "bends" in found.attrs["warnings"][0]


def test_what_the_variance_loses_the_neighbours_share(bent):
    flat, _, _ = bent
    first, second = (frame.astype(float) - 600 for frame in flat.values[-2:])
    level = (first.mean() + second.mean()) / 2
    difference = (first * second.mean() - second * first.mean()) / level * GAIN / np.sqrt(2)
    lags = [(0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0)]
    blocks = [neighbour_covariance(strip, lags) for strip in np.split(difference, 48)]
    covariance, pairs = (np.array(part) for part in zip(*blocks, strict=True))
    sums, counts = leave_one_out(covariance * pairs, 0), leave_one_out(pairs, 0)
    # C_ij = a_ij μ_i μ_j in electrons (Astier et al. 2019, at first order)
    coefficient = (covariance * pairs).sum(axis=0) / pairs.sum(axis=0) / (level * GAIN) ** 2
    error = jackknife_error(sums / counts) / (level * GAIN) ** 2
    assert (abs(coefficient[:2] - 2 * PUSH) < 4 * error[:2]).all()
    assert (abs(coefficient[2:]) < 4 * error[2:]).all()
    assert (coefficient[:2] > 3 * error[:2]).all()


def test_a_straight_curve_has_no_bend():
    _, ptc, line = measure(0.0, seed=2)
    found = fit_curvature(ptc)
    assert (abs(found.curvature) < 4 * found.curvature_error).all()
    assert not found.attrs["warnings"]
    np.testing.assert_allclose(found.gain_curved, line.gain, rtol=0.03)
    few = fit_curvature(ptc.isel(pair=[0, 1]))
    assert np.isnan(few.curvature).all()


@pytest.mark.parametrize("push", [0.0, PUSH / 4], ids=["straight", "bends by less than is seen"])
def test_the_gain_is_right_whether_the_curve_bends_or_not(push):
    pull = []
    for seed in range(10):
        _, ptc, gain = measure(push, seed=100 + seed)
        assert not fit_curvature(ptc).attrs["warnings"]
        pull.append(((gain.gain - GAIN) / gain.gain_error).values)
    pull = np.ravel(pull)
    assert abs(pull.mean()) < 0.5  # of 40 values that share ten curvatures: 0.2
    assert 0.5 < np.mean(abs(pull) < 1) < 0.87


def test_bootstrap_and_stated_errors_agree(bent):
    """The error from blocks of rows is that of drawing the blocks anew."""
    _, ptc, line = bent
    rng = np.random.default_rng(0)
    blocks = ptc.sizes["block"]
    drawn = []
    for _ in range(60):
        again = ptc.isel(block=rng.integers(0, blocks, blocks))
        drawn.append([fit_gain(again).gain.values[0], fit_curvature(again).gain_curved.values[0]])
    stated = fit_curvature(ptc).gain_curved_error.values[0], line.gain_error.values[0]
    np.testing.assert_allclose(np.std(drawn, axis=0), stated[::-1], rtol=0.4)


def test_bootstrap_and_analytic_errors_of_a_gain_agree():
    _, ptc, line = measure(0.0, seed=3)
    rng = np.random.default_rng(0)
    blocks = ptc.sizes["block"]
    drawn = [fit_gain(ptc.isel(block=rng.integers(0, blocks, blocks))).gain.values[0] for _ in range(80)]
    bootstrap = np.std(drawn, axis=0)
    # of a line through the origin with weights 1/Var: Var(1/g) = 1/Σ(x²/Var), Var = 2 σ⁴/n
    signal, variance = ptc.signal.values, ptc.variance.values
    used = line.used.values
    weight = np.where(used, SHAPE[0] * SHAPE[1] / 4 / (2 * variance**2), 0)
    analytic = line.gain.values[0] ** 2 / np.sqrt((weight * signal**2).sum(axis=0))
    np.testing.assert_allclose(bootstrap.mean(), line.gain_error.mean(), rtol=0.25)
    # the curvature, which is not known beforehand, costs some of it
    assert (analytic < line.gain_error.values[0]).all()
    assert (line.gain_error.values[0] < 2.5 * analytic).all()
