import numpy as np
import pytest
from astropy.visualization import AsinhStretch

from workbench.core.errors import StageError, WorkbenchError
from workbench.finish import (
    StretchSettings,
    apply_stretch,
    curve,
    histogram,
    make_picture,
    quantise,
    sky_statistics,
    stretch_parameters,
)
from workbench.finish.curves import midtones, midtones_balance


@pytest.fixture(scope="module")
def linear():
    """A sky of known median and MAD with a few stars, three channels."""
    rng = np.random.default_rng(3)
    signal = rng.normal(np.array([100.0, 140.0, 90.0])[:, None, None], 5.0, (3, 200, 300))
    signal[:, 50, 50] = [9000, 5000, 2000]
    signal[:, 60, 60] = [2000, 5000, 9000]
    return make_picture(signal)


def test_midtones_function_as_published():
    assert midtones(0.0, 0.3) == 0
    assert midtones(1.0, 0.3) == 1
    assert midtones(0.3, 0.3) == pytest.approx(0.5)
    for x, target in ((0.001, 0.25), (0.3, 0.1), (0.25, 0.25)):
        assert midtones(x, midtones_balance(x, target)) == pytest.approx(target)


def test_autostretch_has_the_published_constants(linear):
    for linked in (True, False):
        parameters = stretch_parameters(linear, StretchSettings("autostretch", linked=linked))
        values = linear.signal.values.astype(float)
        median = np.median(values, axis=(1, 2))
        mad = np.median(np.abs(values - median[:, None, None]), axis=(1, 2))
        black = median - 2.8 * 1.4826 * mad
        if linked:
            black, median = np.full(3, black.mean()), np.full(3, median.mean())
        np.testing.assert_allclose(parameters["black"], black, rtol=1e-6)
        stretched = apply_stretch(linear, parameters).signal.values
        # the formula, pixel by pixel
        white = values.max()
        for channel in range(3):
            x = np.clip((values[channel] - black[channel]) / (white - black[channel]), 0, 1)
            level = (median[channel] - black[channel]) / (white - black[channel])
            expected = midtones(x, midtones_balance(level, 0.25))
            np.testing.assert_allclose(stretched[channel], expected, atol=2e-5)
        after = np.median(stretched, axis=(1, 2))
        if linked:
            assert after[1] > after[0] > after[2]  # the cast stays
        else:
            np.testing.assert_allclose(after, 0.25, atol=1e-3)


def test_asinh_keeps_colours_and_lands_the_sky(linear):
    parameters = stretch_parameters(linear, StretchSettings("asinh", sky=0.12, white=20000.0, chroma=0.0))
    stretched = apply_stretch(linear, parameters)
    black = parameters["black"][0]
    mean = float(sky_statistics(linear)["sky"])
    assert mean == pytest.approx(110, abs=0.5)
    assert parameters["black"][0] == pytest.approx(mean - 2.8 * 5, abs=0.7)
    assert curve(np.array([mean]), parameters)[0] == pytest.approx(0.12, abs=1e-5)
    for y in (50, 60):
        before = linear.signal.values[:, y, y] - black
        after = stretched.signal.values[:, y, y]
        assert np.argmax(after) == np.argmax(before)
    # a pixel below the shoulder: ratios as they were
    pixel = np.array([180.0, 140.0, 115.0])
    small = linear.signal.values.copy()
    small[:, 70, 70] = pixel
    after = apply_stretch(linear.assign(signal=linear.signal.copy(data=small)), parameters).signal.values[:, 70, 70]
    np.testing.assert_allclose(after / after[0], (pixel - black) / (pixel[0] - black), rtol=1e-4)
    # the same curve as astropy's, below the shoulder
    span = parameters["white"] - black
    x = np.linspace(black, black + 0.02 * span, 50)
    expected = AsinhStretch(a=parameters["softening"] / span)((x - black) / span)
    np.testing.assert_allclose(curve(x, parameters), expected, atol=2e-5)


def test_colour_is_that_of_the_surroundings_brightness_its_own(linear):
    rng = np.random.default_rng(1)
    tint = np.array([30.0, 50.0, 70.0])[:, None, None]
    picture = make_picture(tint * rng.uniform(0.5, 1.5, (1, 60, 80)) + rng.normal(0, 3, (3, 60, 80)))
    plain, smooth = (
        apply_stretch(picture, {"method": "asinh", "black": [0.0] * 3, "white": 400.0, "softening": 40.0, "chroma": c})
        for c in (0.0, 2.0)
    )
    np.testing.assert_allclose(smooth.signal.mean("channel"), plain.signal.mean("channel"), atol=1e-5)
    ratios = [p.signal.values[0] / p.signal.values[2] for p in (plain, smooth)]
    assert np.std(ratios[1]) < 0.4 * np.std(ratios[0])
    assert np.mean(ratios[1]) == pytest.approx(3 / 7, rel=0.02)
    holed = picture.signal.values.copy()
    holed[1, 30, 40] = np.nan
    after = apply_stretch(picture.assign(signal=picture.signal.copy(data=holed)), smooth.attrs["stretch"]).signal.values
    assert np.isnan(after).sum() == 3
    far = np.ones((60, 80), bool)
    far[20:41, 30:51] = False
    np.testing.assert_array_equal(after[:, far], smooth.signal.values[:, far])


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
def test_hyperbolic_curves_rise_from_black_to_white(linear, shape):
    parameters = stretch_parameters(linear, StretchSettings("ghs", intensity=4.0, shape=shape, symmetry=0.1))
    x = np.linspace(parameters["black"][0], parameters["white"], 1001)
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


def test_no_stretch_is_the_identity():
    picture = make_picture(np.linspace(0, 1, 256).reshape(16, 16))
    parameters = stretch_parameters(picture, StretchSettings("ghs", intensity=0.0, black=0.0, white=1.0))
    np.testing.assert_allclose(apply_stretch(picture, parameters).signal, picture.signal, atol=1e-6)
    straight = stretch_parameters(picture, StretchSettings("linear", black=0.0, white=1.0))
    np.testing.assert_allclose(apply_stretch(picture, straight).signal, picture.signal, atol=1e-6)


def test_the_stage_changes_here_and_only_once(linear):
    parameters = stretch_parameters(linear)
    stretched = apply_stretch(linear, parameters)
    assert stretched.attrs["stage"] == "stretched"
    assert linear.attrs["stage"] == "stacked"
    assert stretched.attrs["history"][-1].startswith("Stretch: asinh")
    assert "variance" not in stretched
    with pytest.raises(StageError, match="stretched already"):
        apply_stretch(stretched, parameters)
    with pytest.raises(StageError):
        quantise(linear, 8)


def test_missing_and_negative_and_mono():
    signal = np.random.default_rng(0).normal(0, 1, (64, 64)).astype("float32")
    signal[3, 3] = np.nan
    signal[4, 4] = -1e6
    signal[5, 5] = 1e6
    picture = make_picture(signal)
    for method in ("asinh", "autostretch", "ghs", "linear"):
        after = apply_stretch(picture, stretch_parameters(picture, StretchSettings(method))).signal.values[0]
        assert np.isnan(after[3, 3])
        assert after[4, 4] == 0
        assert after[5, 5] == pytest.approx(1, abs=0.02)
        assert quantise(make_picture(after, stage="stretched"), 8)[3, 3] == 0


def test_a_level_of_the_pyramid_looks_like_the_whole(scene):
    from workbench.finish import pyramid

    parameters = stretch_parameters(scene.picture)
    whole = apply_stretch(scene.picture, parameters).signal.values
    small = apply_stretch(pyramid(scene.picture)[1], parameters).signal.values
    halved = whole.reshape(3, small.shape[1], 2, small.shape[2], 2).mean(axis=(2, 4))
    assert np.median(np.abs(halved - small)) < 0.01


def test_a_frame_full_of_nebula_is_stretched_by_its_sky_and_noise():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:400, :600]
    cloud = 60 * np.exp(-((x - 330) ** 2 + (y - 200) ** 2) / (2 * 150**2))
    picture = make_picture(cloud + rng.normal(0, 2, cloud.shape))
    stats = sky_statistics(picture)
    assert float(stats["noise"]) == pytest.approx(2.0, rel=0.1)
    assert float(stats["sky"]) < 8  # the median is 27
    after = apply_stretch(picture, stretch_parameters(picture)).signal.values[0]
    assert np.median(after) < 0.21
    assert np.median(after[190:210, 320:340]) > 2 * np.median(after[:20, :20])


def test_statistics_and_histogram(linear):
    stats = sky_statistics(linear)
    np.testing.assert_allclose(stats["median"], [100, 140, 90], atol=0.2)
    np.testing.assert_allclose(1.4826 * stats["mad"], 5, rtol=0.03)
    np.testing.assert_allclose(stats["peak"], 9000, rtol=0.5)
    bars = histogram(linear, bins=64, low=0, high=300)
    assert int(bars["count"].sum()) == 3 * 200 * 300 - 6
    assert float(bars.level[np.argmax(bars["count"].values[1])]) == pytest.approx(140, abs=5)
    stretched = histogram(apply_stretch(linear, stretch_parameters(linear)))
    assert stretched.level.min() > 0
    assert stretched.level.max() < 1


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"method": "gamma"}, "choose asinh"),
        ({"sky": 1.5}, "between 0 and 1"),
        ({"strength": 0}, "above 0"),
        ({"white": -1e6}, "above black"),
        ({"method": "ghs", "shape": 99}, "shape -5 to 15"),
        ({"chroma": -1}, "0 to 20 pixels"),
    ],
)
def test_mistakes_are_named(linear, how, words):
    with pytest.raises(WorkbenchError, match=words):
        stretch_parameters(linear, StretchSettings(**how))


def test_parameters_of_another_kind_are_refused(linear):
    with pytest.raises(WorkbenchError, match="not the numbers of a stretch"):
        apply_stretch(linear, {"method": "asinh"})


def test_a_black_point_above_the_sky_does_not_blow_up_the_rest(scene):
    statistics = sky_statistics(scene.picture)
    usual = stretch_parameters(scene.picture)
    black = float(statistics["sky"]) + 3 * float(statistics["noise"])
    cut = stretch_parameters(scene.picture, StretchSettings(black=black))
    assert 0.3 < cut["softening"] / usual["softening"] < 3
    level = apply_stretch(scene.picture, cut).signal.values
    assert (level == 0).all(axis=0).mean() > 0.3  # as was asked for
    assert np.quantile(level, 0.99) < 0.9
