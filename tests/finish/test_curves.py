import numpy as np
import pytest

from workbench.core.errors import WorkbenchError
from workbench.finish import apply_stretch, curve, make_picture, midtones, midtones_balance


def test_midtones_function_as_published():
    assert midtones(0.0, 0.3) == 0
    assert midtones(1.0, 0.3) == 1
    assert midtones(0.3, 0.3) == pytest.approx(0.5)
    for x, target in ((0.001, 0.25), (0.3, 0.1), (0.25, 0.25)):
        assert midtones(x, midtones_balance(x, target)) == pytest.approx(target)


def hue(rgb):
    """The angle about the grey axis."""
    r, g, b = rgb
    return np.arctan2(np.sqrt(3) * (g - b), 2 * r - g - b)


def test_bright_and_dark_pixels_keep_their_hue():
    rng = np.random.default_rng(0)
    colours = rng.uniform(0.1, 1.0, (3, 1, 500)) * np.geomspace(1, 1e6, 500)
    colours[:, :, :50] -= 2.0  # out of the gamut below
    picture = make_picture(colours)
    parameters = {"method": "asinh", "black": [0.0] * 3, "white": 1000.0, "softening": 10.0}
    after = apply_stretch(picture, parameters).signal.values
    assert after.min() >= 0
    assert after.max() <= 1
    lit = (colours.mean(axis=0) > 0)[0]
    turn = np.angle(np.exp(1j * (hue(after[:, 0, lit].astype(float)) - hue(colours[:, 0, lit]))))
    coloured = np.ptp(after[:, 0, lit], axis=0) > 1e-3
    assert np.abs(turn[coloured]).max() < 0.01
    brightness = after.max(axis=0)[0]
    assert brightness[-1] > 0.99  # cores approach white and are not flat
    assert np.all(np.diff(np.sort(brightness[-50:])) >= 0)


@pytest.mark.parametrize("shape", [-2.0, -1.0, 0.0, 0.5, 5.0])
def test_hyperbolic_curves_rise_from_black_to_white(shape):
    parameters = {"method": "ghs", "black": [90.0], "white": 9000.0, "intensity": 4.0, "shape": shape, "symmetry": 0.1}
    x = np.linspace(90, 9000, 1001)
    y = curve(x, parameters).astype(float)
    assert y[0] == pytest.approx(0, abs=1e-6)
    assert y[-1] == pytest.approx(1, abs=1e-6)
    slope = np.diff(y)
    assert slope.min() >= 0
    assert abs(np.argmax(slope) - 100) <= 2  # the contrast is greatest at the symmetry point
    # and falls from there as D(1 + bDt)^-(1+1/b)
    if shape == 0.5:
        strength, t = np.expm1(4.0), np.array([0.05, 0.3])
        expected = (1 + shape * strength * t) ** -(1 + 1 / shape)
        got = np.array([np.interp(0.1 + u, (np.arange(1000) + 0.5) / 1000, slope) for u in t])
        np.testing.assert_allclose(got[0] / got[1], expected[0] / expected[1], rtol=0.05)


def test_parameters_of_another_kind_are_refused():
    with pytest.raises(WorkbenchError, match="not the numbers of a stretch"):
        curve(np.ones(3), {"method": "asinh"})
