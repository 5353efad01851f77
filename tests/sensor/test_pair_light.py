"""Flats of a pair that are lit differently: the gain stays true, and a warning names them."""

import numpy as np
import pytest

from workbench.core.cube import XTRANS, make_cube
from workbench.sensor import fit_gain, photon_transfer, read_noise
from workbench.sensor.pair_light import polynomials
from workbench.simulate import d7000, expose

SHAPE, LEVELS = (192, 256), np.array([0.08, 0.2, 0.4, 0.6])
Y, X = np.mgrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]
LENS = 1 - 0.15 * (Y**2 + X**2)
DUST = 1 - 0.1 * np.exp(-((Y - 0.3) ** 2 + (X + 0.2) ** 2) / 0.005)


def gain_of(second, *, body=0, pattern="RGGB", count=2):
    """Pulls of the gain (channel), its relative error, and the warnings; each level's last flat is lit by `second`."""
    camera, rng = d7000(seed=body, shape=SHAPE, cfa_pattern=pattern), np.random.default_rng([body, 5])
    full = (camera.white_level - camera.black_level) * camera.gain(200)

    def shoot(rate, seconds):
        return expose(camera, rate, iso=200, exposure=seconds, temperature=20, seed=int(rng.integers(2**32)))

    def cube(frames, kind, exposure):
        names = [f"{kind}_{number}.fits" for number in range(len(frames))]
        return make_cube(
            frames, cfa_pattern=pattern, kind=kind, iso=200, exposure=exposure, filename=names,
            white_level=camera.white_level,
        )  # fmt: skip

    bias = cube([shoot(0.0, 1 / 8000) for _ in range(4)], "bias", 1 / 8000)
    lights = [1.0] * (count - 1) + [second]
    frames = [shoot(LENS * light * level * full, 1.0) for level in LEVELS for light in lights]
    flat = cube(frames, "flat", np.repeat(LEVELS, count))
    ptc = photon_transfer(flat, read_noise(bias, progress=False), progress=False)
    gain = fit_gain(ptc)
    pulls = ((gain.gain - camera.gain(200)) / gain.gain_error).values.ravel()
    return pulls, (gain.gain_error / gain.gain).values.ravel(), ptc, [*ptc.attrs["warnings"], *gain.attrs["warnings"]]


@pytest.mark.parametrize(
    "second",
    [1 + 0.05 * Y, 1 + 0.05 * X, 1 + 0.02 * (X + Y), np.exp(0.06 * X - 0.03 * Y - 0.03 * X * Y), DUST],
    ids=["vertical", "horizontal", "diagonal", "panel", "dust"],
)
def test_a_flat_lit_otherwise_leaves_the_gain_true_and_is_named(second):
    pulls, error, ptc, warnings = gain_of(second)
    assert np.abs(pulls).max() < 3.5
    assert error.max() < 0.03
    assert np.isfinite(ptc["variance"].values).all()
    named = [text for text in warnings if "lit differently from each other" in text]
    assert named
    assert "flat_6.fits and flat_7.fits" in named[0]
    assert not [text for text in warnings if "do not lie on one line" in text]


@pytest.mark.parametrize("pattern", ["mono", XTRANS], ids=["mono", "X-Trans"])
def test_other_mosaics_are_evened_too(pattern):
    pulls, error, _, warnings = gain_of(1 + 0.05 * X + 0.03 * Y, pattern=pattern)
    assert np.abs(pulls).max() < 3.5
    assert error.max() < 0.03
    assert any("lit differently from each other" in text for text in warnings)


def test_one_of_three_flats_lit_otherwise_is_evened():
    pulls, _, ptc, warnings = gain_of(1 + 0.05 * X, count=3)
    assert np.abs(pulls).max() < 3.5
    assert ptc.sizes["pair"] == 3 * LEVELS.size
    assert any("lit differently from each other" in text for text in warnings)


def test_a_picture_that_no_surface_describes_is_named():
    ripple = 1 + 0.02 * np.sin(9 * X + 2) * np.sin(14 * Y)
    _, _, _, warnings = gain_of(ripple)
    assert any("no smooth surface describes it, so the gain reads too low" in text for text in warnings)


@pytest.mark.parametrize("second", [1.0, 0.95])
def test_equally_lit_flats_are_left_as_they_are(second):
    for body in range(3):
        _, _, ptc, warnings = gain_of(second, body=body)
        np.testing.assert_array_equal(ptc["sums"].sum("block")[..., 0] % 1, 0)
        np.testing.assert_array_equal(ptc["sums"][..., 1] % 1, 0)  # of whole numbers, as they were read
        assert not [text for text in warnings if "lit differently" in text]


def test_polynomials_of_parts_are_their_means():
    whole = polynomials(96, 96)
    np.testing.assert_allclose(polynomials(96, 6), whole.reshape(6, 16, -1).mean(axis=1))
