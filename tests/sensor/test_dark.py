"""Dark signal, dark current and DCNU recover the virtual camera's truth; doubtful darks are named."""

from functools import partial

import numpy as np
import pytest

from tests.scenes import frames_of, names_of, true_gain
from workbench.core.errors import WorkbenchError
from workbench.sensor import measure_dark
from workbench.simulate import d7000

ISO, CHANNELS = 800.0, ["R", "G1", "G2", "B"]
CAMERA = d7000(seed=3, shape=(256, 384))


def cube(shots, kind, *, camera=CAMERA, jitter=0.0, clip=0):
    """Frames of (exposure, temperature) pairs, shaken and clipped by some ADU."""
    rng = np.random.default_rng(99)

    def change(frame, _):
        return np.clip(frame.astype(float) + np.rint(rng.normal(0, jitter)) - clip, 0, 16383).astype("uint16")

    names = names_of(kind, len(shots))
    return frames_of(camera, kind, shots, seed=lambda number: [number, len(kind)], change=change, filename=names)


gains = partial(true_gain, CAMERA)


@pytest.fixture(scope="module")
def shots():
    return [(t, warm) for warm in (5.0, 20.0) for t in (60.0, 240.0, 600.0) for _ in range(3)]


@pytest.fixture(scope="module")
def darks(shots):
    return cube(shots, "dark")


@pytest.fixture(scope="module")
def bias():
    return cube([(1 / 8000, 20.0)] * 6, "bias")


@pytest.fixture(scope="module")
def measured(darks, bias):
    return measure_dark(darks, bias, gains(), progress=False)


def test_dark_current_is_the_mean_over_the_pixels_hot_ones_included(measured):
    current = measured.current
    np.testing.assert_array_equal(current.temperature, [5.0, 20.0])
    for one in (current.isel(setting=i) for i in range(2)):
        true = CAMERA.mean_dark_current(float(one.temperature))
        assert (
            abs(one.dark_current - true)
            < 4 * one.dark_current_error + true * one.saturated_pixels / CAMERA.dark_map.size
        )
        assert one.dark_current_error < 0.005 * true
        assert abs(one["median"] / np.median(CAMERA.dark_map) / CAMERA.dark_factor(float(one.temperature)) - 1) < 0.01
        assert one.frames == 9
        assert one.exposures == 3


def test_dcnu_is_the_spread_of_the_map_without_temporal_noise(measured):
    for one in (measured.current.isel(setting=i) for i in range(2)):
        pull = (one.dcnu - CAMERA.dcnu(float(one.temperature))) / one.dcnu_error
        assert abs(pull) < 4
        assert one.dcnu_error < 0.02 * one.dcnu
    # what the map's plain spread would say, at the short end
    short = measure_dark(cube([(60.0, 5.0)] * 3, "dark"), cube([(1 / 8000, 5.0)] * 3, "bias"), gains(), progress=False)
    assert short.map.std() > 1.4 * CAMERA.dcnu(5.0)
    assert abs(short.current.dcnu[0] - CAMERA.dcnu(5.0)) < 4 * short.current.dcnu_error[0]


def test_the_map_is_the_true_dark_current_of_every_pixel(measured):
    assert measured.map.attrs["temperature"] == 20.0
    hot = tuple(CAMERA.hot_pixels[np.argsort(-CAMERA.dark_map[tuple(CAMERA.hot_pixels.T)])[:20]].T)
    true = CAMERA.dark_map[hot]
    shot_noise = np.sqrt(true * 600 / 3) / 600  # of three darks of 600 s, which dominate the slope
    assert (abs(measured.map.values[hot] - true) < 5 * shot_noise).all()
    assert (true > 20 * shot_noise).all()


def test_signal_of_each_exposure(measured):
    signal = measured.signal
    true = [
        CAMERA.mean_dark_current(t) * s for t, s in zip(signal.temperature.values, signal.exposure.values, strict=True)
    ]
    np.testing.assert_allclose(signal.dark_signal, true, rtol=0.01, atol=0.02)
    assert (abs(signal.dark_signal - true) < 5 * signal.dark_signal_error).all()
    np.testing.assert_allclose(signal.dark_signal_adu * CAMERA.gain(ISO), signal.dark_signal)


@pytest.mark.parametrize("chosen", [[0, 1, 2], [0, 1, 2, 6, 7, 8], slice(None)])
def test_one_exposure_and_bias_or_more_give_the_same(darks, bias, chosen):
    one = measure_dark(darks.isel(frame=chosen), bias, gains(), progress=False).current.isel(setting=0)
    assert abs(one.dark_current - CAMERA.mean_dark_current(5.0)) < 4 * one.dark_current_error


def test_two_exposures_without_bias(darks):
    result = measure_dark(darks, None, gains(), progress=False)
    for one in (result.current.isel(setting=i) for i in range(2)):
        assert abs(one.dark_current - CAMERA.mean_dark_current(float(one.temperature))) < 4 * one.dark_current_error
    assert np.isfinite(result.signal.dark_signal).all()


def test_one_exposure_without_bias_is_no_dark_current(darks):
    result = measure_dark(darks.isel(frame=[0, 1, 2]), None, gains(), progress=False)
    assert np.isnan(result.current.dark_current).all()
    assert np.isnan(result.signal.dark_signal).all()
    assert result.map is None
    assert any("second exposure, or bias frames" in text for text in result.current.attrs["warnings"])


def test_without_the_gain_it_stays_in_adu(darks, bias):
    other = gains().assign_coords(iso=[100.0])
    for given in (None, other):
        result = measure_dark(darks, bias, given, progress=False)
        assert np.isnan(result.current.dark_current).all()
        assert np.isfinite(result.current.dark_current_adu).all()
        assert result.map.attrs["units"] == "adu / s"
        assert any("ISO 800" in text and "flats" in text for text in result.current.attrs["warnings"])


def test_the_gains_error_is_in_electrons_and_not_in_the_scatter(darks, bias):
    with_error = measure_dark(darks, bias, gains(error=0.01), progress=False).current
    without = measure_dark(darks, bias, gains(), progress=False).current
    np.testing.assert_allclose(with_error.dark_current_scatter, without.dark_current_scatter)
    expected = np.hypot(without.dark_current_error, with_error.dark_current * 0.01 / 2)  # of four channels
    np.testing.assert_allclose(with_error.dark_current_error, expected, rtol=1e-3)


def test_offsets_that_wander_from_frame_to_frame_are_in_the_error(shots):
    steady = cube(shots, "dark")
    shaky = cube(shots, "dark", jitter=3.0)
    one, other = (measure_dark(x, None, gains(), progress=False).current for x in (steady, shaky))
    assert (other.dark_current_error > 5 * one.dark_current_error).all()
    true = [CAMERA.mean_dark_current(t) for t in other.temperature.values]
    assert (abs(other.dark_current - true) < 4 * other.dark_current_error).all()


def test_saturated_pixels_are_counted_with_the_least_that_saturates():
    warm = d7000(seed=3, shape=(128, 192), hot_median=40.0, hot_fraction=0.002, dark_current=1.0)
    shots = [(t, 20.0) for t in (30.0, 300.0) for _ in range(2)]
    result = measure_dark(cube(shots, "dark", camera=warm), None, gains(), progress=False)
    level = 600 + warm.dark_map * 300 / CAMERA.gain(ISO)
    kept = level < 16383
    assert abs(result.current.saturated_pixels[0] - (~kept).sum()) <= 2
    assert result.current.saturated_pixels[0] >= 10
    assert np.isnan(result.map.values).sum() == result.current.saturated_pixels[0]
    least = (~kept).mean() * 15783 * CAMERA.gain(ISO) / 300  # the shorter darks alone give no line
    expected = warm.dark_map[kept].sum() / kept.size + least
    np.testing.assert_allclose(result.current.dark_current[0], expected, rtol=0.01)
    assert result.current.dark_current_error[0] > least
    assert any("counts with the least" in text for text in result.current.attrs["warnings"])
    assert result.signal.saturated_pixels.values.tolist() == sorted(result.signal.saturated_pixels.values.tolist())


def test_what_saturates_at_one_temperature_is_measured_at_another():
    warm = d7000(seed=3, shape=(128, 192), hot_median=40.0, hot_fraction=0.002, dark_current=1.0)
    shots = [(t, c) for c in (8.0, 20.0) for t in (30.0, 300.0) for _ in range(2)]
    current = measure_dark(cube(shots, "dark", camera=warm), None, gains(), progress=False).current
    np.testing.assert_allclose(current.dark_current_common[1] / current.dark_current_common[0], 4, rtol=0.01)
    np.testing.assert_allclose(current.dark_current[1] / current.dark_current[0], 4, rtol=0.01)
    assert current.saturated_pixels[1] == current.saturated_pixels[0] > 0  # those that the shortest cold dark lacks
    assert any("hot pixels saturate in every dark" in text for text in current.attrs["warnings"])


@pytest.mark.parametrize("seed", range(4))
def test_hot_pixels_that_saturate_count_from_shorter_and_from_colder_darks(seed):
    camera = d7000(seed=seed, shape=(256, 384), hot_median=10.0, hot_spread=0.5, hot_fraction=0.002)
    shots = [(t, 20.0) for t in (30.0, 480.0) for _ in range(3)] + [(300.0, 30.0)] * 3
    zero = cube([(1 / 8000, 20.0)] * 4, "bias", camera=camera)
    current = measure_dark(cube(shots, "dark", camera=camera), zero, gains(), progress=False).current
    lost = (camera.dark_map * 480 / camera.gain(ISO) > 15783).mean()
    assert lost > 1e-4
    for one in (current.isel(setting=i) for i in range(2)):
        warmth = float(one.temperature)
        assert abs(one.dark_current - camera.mean_dark_current(warmth)) < 4 * one.dark_current_error
        assert abs(one.dcnu - camera.dcnu(warmth)) < 4 * one.dcnu_error
        assert one.saturated_pixels == 0
    assert not current.attrs["warnings"]


@pytest.mark.parametrize("seed", range(6))
def test_hot_pixels_that_saturate_in_every_dark_are_in_the_errors(seed):
    camera = d7000(seed=seed, shape=(192, 256), hot_median=10.0, hot_spread=0.5, hot_fraction=0.002)
    zero = cube([(1 / 8000, 20.0)] * 4, "bias", camera=camera)
    one = measure_dark(cube([(480.0, 20.0)] * 3, "dark", camera=camera), zero, gains(), progress=False).current
    one = one.isel(setting=0)
    assert one.saturated_pixels > 0
    assert abs(one.dark_current - camera.mean_dark_current(20.0)) < 2 * one.dark_current_error < 0.1 * one.dark_current
    assert abs(one.dcnu - camera.dcnu(20.0)) < 2 * one.dcnu_error < 2 * one.dcnu


@pytest.mark.parametrize("moved", [0.0, -4.0])
@pytest.mark.parametrize("times", [(240.0,), (60.0, 240.0)])
def test_a_black_level_that_moves_with_the_temperature_is_named(bias, moved, times):
    shots = [(t, 20.0) for t in (60.0, 240.0) for _ in range(4)] + [(t, 0.0) for t in times for _ in range(4)]

    def change(frame, number):
        return (frame + moved * (shots[number][1] == 0)).round().astype("uint16")

    darks = frames_of(CAMERA, "dark", shots, seed=lambda number: [number, 9], change=change)
    current = measure_dark(darks, bias, gains(), progress=False).current
    for one in (current.isel(setting=i) for i in range(2)):
        true = CAMERA.mean_dark_current(float(one.temperature))
        assert abs(one.dark_current - true) < 4 * one.dark_current_error
        assert one.dark_current_error < 0.06 * true
    named = [text for text in current.attrs["warnings"] if "black level" in text and "0 °C" in text]
    assert bool(named) == bool(moved)
    assert len(current.attrs["warnings"]) == len(named)


def test_noise_that_grows_beside_a_growing_mean_is_no_subtraction():
    """Particles and hot pixels that flicker: the noise says more than the mean, which grows."""
    shots = [(t, 20.0) for t in (60.0, 240.0, 600.0) for _ in range(4)]
    rng = np.random.default_rng(3)

    def change(frame, number):
        hit = rng.random(frame.shape) < 2e-6 * shots[number][0]
        return np.minimum(frame + hit * rng.exponential(2500, frame.shape), 16383).astype("uint16")

    darks = frames_of(CAMERA, "dark", shots, seed=lambda number: [number, 8], change=change)
    current = measure_dark(darks, None, gains(), progress=False).current
    assert current.dark_current_variance[0] > 2 * current.dark_current[0]
    assert abs(current.dark_current[0] - CAMERA.mean_dark_current(20.0)) < 0.02
    assert not any("subtract" in text for text in current.attrs["warnings"])


def test_a_dark_warmer_than_it_says_is_named(bias):
    shots = [(240.0, 5.0)] * 3 + [(240.0, 15.0)]
    liar = cube(shots, "dark").assign_coords(temperature=("frame", [5.0] * 4))
    warnings = measure_dark(liar, bias, gains(), progress=False).current.attrs["warnings"]
    assert len([text for text in warnings if "dark_3.dng" in text and "check their temperatures" in text]) == 1
    assert not any("dark_0.dng" in text for text in warnings)


def test_a_longer_dark_that_was_warmer_bends_the_line_and_widens_the_error(bias):
    shots = [(t, 25.0 if t == 600 else 20.0) for t in (60.0, 240.0, 600.0) for _ in range(3)]
    liar = cube(shots, "dark").assign_coords(temperature=("frame", [20.0] * 9))
    honest = cube([(t, 20.0) for t, _ in shots], "dark")
    drifted = frames_of(
        CAMERA, "dark", [(t, 20.0) for t, _ in shots], change=lambda frame, number: frame + 40 * np.uint16(number > 5)
    )
    bent, straight, moved = (measure_dark(x, bias, gains(), progress=False).current for x in (liar, honest, drifted))
    assert any("not proportional to exposure" in text for text in bent.attrs["warnings"])
    assert any("not equally warm, or light came in" in text for text in bent.attrs["warnings"])
    assert any("noise does not go with it: the black level" in text for text in moved.attrs["warnings"])
    no_gain = measure_dark(liar, bias, progress=False).current
    assert any("not proportional to exposure" in text for text in no_gain.attrs["warnings"])
    assert not straight.attrs["warnings"]
    assert bent.dark_current_error[0] > 10 * straight.dark_current_error[0]


def test_darks_clipped_at_zero_give_no_number(shots):
    clipped = cube(shots, "dark", clip=602)
    result = measure_dark(clipped.isel(frame=slice(0, 3)), None, gains(), progress=False)
    assert np.isnan(result.current.dark_current).all()
    assert any("clipped at zero" in text for text in result.current.attrs["warnings"])
    # bias clipped, but long darks clear of zero: the bias frames are not used
    zero = cube([(1 / 8000, 20.0)] * 4, "bias", clip=602)
    warm = cube([(t, 20.0) for t in (240.0, 600.0) for _ in range(3)], "dark", clip=540)
    one = measure_dark(warm, zero, gains(), progress=False).current.isel(setting=0)
    assert abs(one.dark_current - CAMERA.mean_dark_current(20.0)) < 4 * one.dark_current_error


def test_darks_without_exposure_are_left_out_and_named(darks, bias):
    nameless = darks.isel(frame=[0, 1, 2]).assign_coords(exposure=("frame", [60.0, np.nan, 60.0]))
    result = measure_dark(nameless, bias, gains(), progress=False)
    assert result.signal.frames.values.tolist() == [2]
    assert any("dark_1.dng" in text and "exposure" in text for text in result.current.attrs["warnings"])


def test_single_darks_have_no_error_but_a_warning():
    result = measure_dark(cube([(60.0, 20.0), (600.0, 20.0)], "dark"), None, gains(), progress=False).current
    np.testing.assert_allclose(result.dark_current[0], CAMERA.mean_dark_current(20.0), rtol=0.02)
    assert np.isnan(result.dark_current_error[0])
    assert np.isnan(result.dcnu[0])
    assert any("one dark at each exposure" in text for text in result.attrs["warnings"])


def test_every_frame_is_read_once_and_unknown_temperatures_are_a_setting(darks, bias):
    class Bar:
        count = 0

        def update(self):
            self.count += 1

    bar = Bar()
    cold = darks.assign_coords(temperature=("frame", np.full(18, np.nan)))
    signal = measure_dark(cold, bias, gains(), progress=bar).signal
    assert bar.count == 18 + 6
    assert signal.sizes["group"] == 3


def test_bias_of_another_size_is_refused(darks, bias):
    with pytest.raises(WorkbenchError, match="differ in size"):
        measure_dark(darks, bias.isel(y=slice(0, 128)), progress=False)


FILTERED = np.array([0.62, 1.0, 1.01, 0.7])  # what filters pass of the light


def lit(shots, rate, *, camera=CAMERA, seed=0):
    """Darks into which light leaks: e-/s of each channel, or a picture."""
    names = names_of("dark", len(shots))
    return frames_of(camera, "dark", shots, rate=rate, seed=lambda number: [number, 4, seed], filename=names)


@pytest.mark.parametrize("temperature", [5.0, 20.0])
def test_light_in_the_darks_is_named_and_in_the_error(bias, temperature):
    shots = [(240.0, temperature)] * 4
    for rate in (0.03 * FILTERED, 0.03 * np.array([1.0, 0.5, 0.5, 0.2])):  # a lamp of any colour
        one = measure_dark(lit(shots, rate), bias, gains(error=0.002), progress=False).current
        assert any("light leaks into the darks" in text for text in one.attrs["warnings"])
        assert abs(one.dark_current[0] - CAMERA.mean_dark_current(temperature)) < 2 * one.dark_current_error[0]


@pytest.mark.parametrize("pattern", ["RGGB", "mono"])
def test_light_that_falls_unevenly_on_the_sensor_is_named(pattern):
    camera = d7000(seed=3, shape=(256, 384), cfa_pattern=pattern, dark_current=0.05, vignetting=0.0)
    across = np.linspace(0.0, 0.3, 384) * np.ones((256, 1))  # grey: it passes all filters
    bias, dark = (lit([(t, 20.0)] * 4, rate, camera=camera) for t, rate in ((1 / 8000, 0.0), (240.0, across)))
    bias = bias.assign_coords(kind=("frame", ["bias"] * 4))
    gain = (
        true_gain(camera) if pattern != "mono" else true_gain(camera).isel(channel=[0]).assign_coords(channel=["mono"])
    )
    one = measure_dark(dark, bias, gain, progress=False).current
    assert any("smoothly" in text and "light leaks" in text for text in one.attrs["warnings"])
    assert abs(one.dark_current[0] - 0.05) < 2 * one.dark_current_error[0]


def test_neither_honest_darks_nor_the_readouts_glow_are_called_light():
    y, x = np.mgrid[:256, :384]
    glow = 0.5 * np.exp(-np.hypot(y - 128, x - 384) / 40)  # from one edge
    for number in range(12):
        camera = d7000(seed=number, shape=(256, 384), dark_spread=0.3, vignetting=0.0)
        shots = [(t, 20.0) for t in ((240.0,), (30.0, 240.0))[number % 2] for _ in range(2 + number % 3)]
        rate = glow if number % 4 == 3 else 0.0
        wrong = 1 + 0.002 * np.random.default_rng(number).standard_normal((1, 4))  # gains within their errors
        gain = true_gain(camera, error=0.002)
        gain["gain"] = gain["gain"] * wrong
        zero = lit([(1 / 8000, 20.0)] * 4, 0.0, camera=camera, seed=1).assign_coords(kind=("frame", ["bias"] * 4))
        one = measure_dark(lit(shots, rate, camera=camera), zero, gain, progress=False).current
        said = one.attrs["warnings"]
        assert len(said) == (number % 4 == 3)
        assert all("glow of the readout electronics makes it, or light" in text for text in said)
        assert one.light[0] == 0
