import numpy as np
import pytest
from astropy.visualization import AsinhStretch
from scipy import ndimage

from workbench.core.errors import StageError, WorkbenchError
from workbench.finish import (
    StretchSettings,
    apply_stretch,
    bright_stars,
    curve,
    histogram,
    local_contrast,
    make_picture,
    midtones,
    midtones_balance,
    pyramid,
    quantise,
    reduce_stars,
    sky_statistics,
    stretch_parameters,
)


@pytest.fixture(scope="module")
def linear():
    """A sky of known median and MAD with a few stars, three channels."""
    rng = np.random.default_rng(3)
    signal = rng.normal(np.array([100.0, 140.0, 90.0])[:, None, None], 5.0, (3, 200, 300))
    signal[:, 50, 50] = [9000, 5000, 2000]
    signal[:, 60, 60] = [2000, 5000, 9000]
    return make_picture(signal)


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


def test_a_black_point_above_the_sky_does_not_blow_up_the_rest(scene):
    statistics = sky_statistics(scene.picture)
    usual = stretch_parameters(scene.picture)
    black = float(statistics["sky"]) + 3 * float(statistics["noise"])
    cut = stretch_parameters(scene.picture, StretchSettings(black=black))
    assert 0.3 < cut["softening"] / usual["softening"] < 3
    level = apply_stretch(scene.picture, cut).signal.values
    assert (level == 0).all(axis=0).mean() > 0.3  # as was asked for
    assert np.quantile(level, 0.99) < 0.9


def test_stars_shrink_and_the_nebula_stays(scene, flat, stars):
    with pytest.raises(StageError, match="stretched"):
        reduce_stars(flat, stars)
    picture = apply_stretch(flat, stretch_parameters(flat))
    small = reduce_stars(picture, stars, strength=0.5)
    before, after = (p.signal.values.mean(axis=0) for p in (picture, small))
    chosen = bright_stars(stars, before.shape, count=10)
    for x, y in zip(chosen.x.values, chosen.y.values, strict=True):
        cut = np.s_[round(y) - 8 : round(y) + 9, round(x) - 8 : round(x) + 9]
        half = 0.5 * before[cut].max()
        assert (after[cut] > half).sum() < 0.85 * (before[cut] > half).sum()  # smaller
        assert after[cut].max() > 0.8 * before[cut].max()  # and still there
    starless = ((scene.light - scene.background - scene.nebula) < 0.02).all(axis=0)
    empty = ndimage.binary_erosion(starless, iterations=5)
    assert np.abs(before - after)[empty].mean() < 0.002
    assert before.shape == after.shape
    assert "brightness is not kept" in small.attrs["history"][-1]


def test_local_contrast_raises_structure_and_rings_no_star(scene, flat, stars):
    with pytest.raises(StageError, match="stretched"):
        local_contrast(flat)
    picture = apply_stretch(flat, stretch_parameters(flat))
    crisp = local_contrast(picture, strength=0.5, radius=60)
    cloud = ndimage.gaussian_filter(scene.nebula.mean(axis=0), 10) > 5
    deviation = [ndimage.gaussian_filter(p.signal.values.mean(axis=0), 10)[cloud].std() for p in (picture, crisp)]
    assert deviation[1] > 1.02 * deviation[0]
    assert crisp.signal.min() >= 0
    assert crisp.signal.max() <= 1
    chosen = bright_stars(stars, cloud.shape, count=5)
    change = (crisp.signal - picture.signal).values.mean(axis=0)
    v, u = np.mgrid[-15:16, -15:16]
    ring = (np.hypot(u, v) > 8) & (np.hypot(u, v) < 12)
    for x, y in zip(chosen.x.values, chosen.y.values, strict=True):
        cut = change[round(y) - 15 : round(y) + 16, round(x) - 15 : round(x) + 16]
        assert abs(np.median(cut[ring])) < 0.02
