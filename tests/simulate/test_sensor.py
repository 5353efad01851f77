"""The virtual camera's frames against its truth, by estimators written here and nowhere else."""

import csv
import math

import numpy as np
import pytest
from scipy import stats

from workbench.core.errors import WorkbenchError
from workbench.simulate import d7000, expose

SHAPE = (256, 384)
PIXELS = SHAPE[0] * SHAPE[1]


@pytest.fixture(scope="module")
def camera():
    return d7000(seed=3, shape=SHAPE)


def pair_variance(first, second):
    return np.var(first.astype(float) - second, ddof=1) / 2


def ideal(**changes):
    """One that counts: one ADU an electron, no noise but the electrons' own."""
    perfect = {"gain_iso100": 1.0, "noise_before_gain": 0.0, "noise_after_gain": 0.0, "prnu": 0.0, "vignetting": 0.0}
    perfect |= {"pixel_offset": 0.0, "column_offset": 0.0, "row_offset": 0.0, "dark_spread": 0.0, "hot_fraction": 0.0}
    return d7000(seed=1, shape=SHAPE, **(perfect | changes))


@pytest.mark.parametrize("iso", [100, 800, 6400])
def test_bias_pairs_give_read_noise_and_black_level(camera, iso):
    first, second = (expose(camera, iso=iso, exposure=0, seed=seed) for seed in (1, 2))
    noise = math.sqrt(pair_variance(first, second) - 1 / 12) * camera.gain(iso)
    assert noise == pytest.approx(camera.read_noise(iso), rel=4 / math.sqrt(2 * PIXELS))
    error = camera.read_noise(iso) / camera.gain(iso) / math.sqrt(PIXELS)
    assert first.mean() == pytest.approx(camera.black_level, abs=4 * error + 0.002)


def test_read_noise_and_gain_are_the_published_ones(real_data):
    camera = d7000()
    # Bill Claff's chart in electrons
    assert camera.read_noise(100) == pytest.approx(3.1, abs=0.01)
    assert camera.read_noise(1000) == pytest.approx(2.45, abs=0.01)
    with (real_data / "iso-to-gain-d7000.csv").open() as lines:
        rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    ratios = [camera.gain(float(row["iso"])) * float(row["adu_per_electron"]) for row in rows]
    assert len(ratios) == 14
    # the chart bends by 13 % from a straight line towards ISO 6400; below that the line is close
    assert max(abs(ratio - 1) for ratio in ratios) < 0.14
    assert abs(ratios[0] - 1) < 0.01
    assert 29_000 < camera.saturation(100) < 40_000


@pytest.mark.parametrize("iso", [100, 1600])
def test_flat_pairs_give_the_gain(iso):
    camera = d7000(seed=5, shape=SHAPE, vignetting=0.0)
    means, variances = [], []
    for level in (0.1, 0.3, 0.5, 0.7):
        rate = level * camera.saturation(iso)
        pair = [expose(camera, rate, iso=iso, exposure=1, temperature=-20, seed=seed) for seed in (1, 2)]
        means.append(np.mean(pair) - camera.black_level)
        variances.append(pair_variance(*pair) - 1 / 12 - (camera.read_noise(iso) / camera.gain(iso)) ** 2)
    variances = np.array(variances)
    slope = np.sum(means / variances) / np.sum((means / variances) ** 2)  # relative errors are all the same
    assert 1 / slope == pytest.approx(camera.gain(iso), rel=4 * math.sqrt(2 / PIXELS / 4))


def test_electrons_are_poisson():
    camera = ideal()
    counts = np.bincount(expose(camera, 3.0, iso=100, exposure=1, temperature=-200, seed=4).ravel() - 600, minlength=30)
    expected = stats.poisson.pmf(np.arange(12), 3.0) * PIXELS
    observed = counts[:12]
    assert stats.chisquare([*observed, PIXELS - observed.sum()], [*expected, PIXELS - expected.sum()]).pvalue > 1e-3


def test_prnu_is_in_one_frame_and_not_in_the_difference(camera):
    camera = d7000(seed=6, shape=SHAPE, vignetting=0.0)
    flats = [expose(camera, 15_000, iso=100, exposure=1, temperature=-20, seed=seed) - 600.0 for seed in range(2)]
    covariance = np.cov(flats[0].ravel(), flats[1].ravel())[0, 1] - camera.offset_map.var()
    prnu = math.sqrt(covariance) / np.mean(flats)
    noise = flats[0].var() / np.mean(flats) ** 2  # of one frame; the covariance scatters by it/sqrt(N)
    assert prnu == pytest.approx(camera.response_map.std(), abs=4 * noise / math.sqrt(PIXELS) / (2 * camera.prnu))
    assert camera.response_map.mean(dtype=float) == pytest.approx(1, abs=1e-7)
    assert camera.response_map.std() == pytest.approx(camera.prnu, rel=4 / math.sqrt(2 * PIXELS))


def test_fixed_pattern_stays_from_frame_to_frame(camera):
    first, second = (expose(camera, iso=100, exposure=0, seed=seed).astype(float) for seed in (7, 8))
    covariance = np.cov(first.ravel(), second.ravel())[0, 1]
    assert covariance == pytest.approx(camera.offset_map.var(), abs=4 * first.var() / math.sqrt(PIXELS))
    columns = camera.offset_map.mean(axis=0).std()
    expected = math.hypot(camera.column_offset, camera.pixel_offset / math.sqrt(SHAPE[0]))
    assert columns == pytest.approx(expected, rel=4 / math.sqrt(2 * SHAPE[1]))


def test_dark_current_follows_time_and_temperature():
    camera = d7000(seed=8, shape=SHAPE, hot_fraction=0.0)
    gain = camera.gain(800)

    def mean(exposure, temperature):
        frame = expose(camera, iso=800, exposure=exposure, temperature=temperature, seed=9)
        return (frame.mean() - camera.black_level) * gain, frame.std() * gain / math.sqrt(PIXELS)

    for exposure in (60, 600):
        signal, error = mean(exposure, 20)
        assert signal == pytest.approx(0.3 * exposure, abs=4 * error)
    for warmer, factor in ((26, 2), (32, 4), (8, 1 / 4), (-4, 1 / 16)):
        signal, error = mean(300, warmer)
        assert signal == pytest.approx(0.3 * 300 * factor, abs=4 * error)


def test_the_realised_dark_current_is_the_parameter():
    camera = d7000(seed=9, shape=SHAPE)
    assert camera.dark_map.mean(dtype=float) == pytest.approx(0.3, rel=1e-6)
    assert camera.mean_dark_current(26) == pytest.approx(0.6)
    assert len(camera.hot_pixels) == round(0.0012 * PIXELS)


def test_dcnu_is_what_two_darks_share(camera):
    gain = camera.gain(800)
    # hot pixels' own Poisson noise would hide in a plain covariance: compare with the map over the ordinary ones
    darks = [expose(camera, iso=800, exposure=600, temperature=20, seed=seed) * gain for seed in (1, 2)]
    ordinary = np.ones(SHAPE, bool)
    ordinary[tuple(camera.hot_pixels.T)] = False
    covariance = np.cov(darks[0][ordinary], darks[1][ordinary])[0, 1] - (0.42 * gain) ** 2
    error = darks[0][ordinary].var() / math.sqrt(PIXELS)
    assert covariance / 600**2 == pytest.approx(camera.dark_map[ordinary].var(), abs=4 * error / 600**2)
    # ... a lognormal of spread 0.1 about some 0.298 e-/s
    body = camera.dark_map[ordinary]
    assert np.log(body).std() == pytest.approx(0.10, rel=4 / math.sqrt(2 * PIXELS))
    assert camera.dcnu(26) == pytest.approx(2 * camera.dark_map.std(dtype=float), rel=1e-6)


def test_hot_pixels_shine_where_the_truth_says(camera):
    dark = expose(camera, iso=800, exposure=120, temperature=20, seed=1)
    hottest = np.argsort(camera.dark_map, axis=None)[-20:]
    brightest = np.argsort(dark, axis=None)[-20:]
    assert set(hottest[-10:]) <= set(brightest)
    places = {tuple(place) for place in camera.hot_pixels.tolist()}
    assert {tuple(place) for place in np.argwhere(camera.dark_map > 1.0).tolist()} <= places


def test_arrhenius_law_doubles_as_field_notes_say():
    camera = d7000(shape=(2, 2), activation_energy=0.65)
    assert camera.dark_factor(20) == 1
    for temperature, doubling in ((-10, 6.4), (30, 8.4)):
        step = math.log2(camera.dark_factor(temperature + 0.5) / camera.dark_factor(temperature - 0.5))
        assert 1 / step == pytest.approx(doubling, abs=0.2)


def test_bright_light_saturates_at_the_white_level(camera):
    flat = expose(camera, 1e6, iso=100, exposure=1, seed=1)
    assert (flat == camera.white_level).all()
    # a small well fills up before the converter does
    shallow = ideal(full_well=1000)
    assert (expose(shallow, 1e6, iso=100, exposure=1, seed=1) == 1600).all()
    assert shallow.saturation(100) == 1000
    assert camera.saturation(100) == (16383 - 600) * 2.13


def test_no_number_falls_below_zero():
    noisy = d7000(seed=1, shape=SHAPE, black_level=0.0)
    bias = expose(noisy, iso=100, exposure=0, seed=1)
    assert 0.5 < (bias == 0).mean() < 0.75
    assert bias.max() < 20


def test_corners_get_less_light():
    camera = ideal(vignetting=0.35)
    flat = expose(camera, 10_000, iso=100, exposure=1, temperature=-200, seed=1) - 600.0
    corner, centre = flat[:8, :8].mean(), flat[124:132, 188:196].mean()
    assert corner / centre == pytest.approx(0.65 + 0.35 * (1 - (248 / 255) ** 2), abs=0.01)
    assert camera.illumination()[0, 0] == pytest.approx(0.65)
    np.testing.assert_array_equal(camera.illumination(slice(10, 20)), camera.illumination()[10:20])


def test_light_comes_by_number_channel_or_picture():
    camera = ideal()
    kwargs = {"iso": 100, "exposure": 2, "temperature": -200, "seed": 1}
    planes = expose(camera, (100, 200, 300, 400), **kwargs) - 600.0
    means = [planes[row::2, column::2].mean() for row, column in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert means == pytest.approx([200, 400, 600, 800], rel=0.01)  # RGGB: R G1 / G2 B
    picture = np.zeros(SHAPE)
    picture[50, 60] = 5000
    star = expose(camera, picture, **kwargs) - 600.0
    assert star[50, 60] == pytest.approx(10_000, rel=0.05)
    assert star.sum() == star[50, 60]
    grey = expose(d7000(seed=1, shape=SHAPE, cfa_pattern="mono"), (50,), **kwargs)
    assert grey.mean() > 600


def test_same_call_same_bits_whatever_the_threads(camera):
    kwargs = {"iso": 400, "exposure": 60, "temperature": 5.0}
    frame = expose(camera, 10, seed=1, **kwargs)
    np.testing.assert_array_equal(frame, expose(d7000(seed=3, shape=SHAPE), 10, seed=1, threads=1, **kwargs))
    np.testing.assert_array_equal(frame, expose(camera, 10, seed=1, threads=5, **kwargs))
    assert (frame != expose(camera, 10, seed=2, **kwargs)).mean() > 0.5
    assert (frame != expose(camera, 10, seed=(1, 0, 5), **kwargs)).mean() > 0.5


def test_frames_of_other_settings_and_bodies_are_independent(camera):
    def noise(body, **settings):
        frame = expose(body, seed=1, **({"iso": 100, "exposure": 0.0} | settings)).astype(float) - 600
        return (frame - body.offset_map).ravel()

    frames = [
        noise(camera),
        noise(camera, iso=200),
        noise(camera, exposure=1 / 8000),
        noise(camera, temperature=0.0),
        noise(d7000(seed=4, shape=SHAPE)),
    ]
    correlation = np.corrcoef(frames)[np.triu_indices(5, 1)]
    assert np.abs(correlation).max() < 5 / math.sqrt(PIXELS)
    # nor do the bands of one frame, each of its own stream, repeat each other
    bands = frames[0].reshape(2, -1)
    assert abs(np.corrcoef(bands)[0, 1]) < 5 / math.sqrt(PIXELS / 2)


def test_seed_draws_the_body(camera):
    other = d7000(seed=4, shape=SHAPE)
    assert abs(np.corrcoef(camera.offset_map.ravel(), other.offset_map.ravel())[0, 1]) < 0.05
    with pytest.raises(ValueError, match="read-only"):
        camera.dark_map[0, 0] = 1


def test_digital_scaling_leaves_codes_out():
    camera = d7000(seed=2, shape=SHAPE, analogue_limit_iso=1000.0, vignetting=0.0)
    flat = expose(camera, 500, iso=2000, exposure=1, seed=1)
    codes = np.unique(flat)
    assert (codes % 2 == 0).all()
    assert len(codes) > 200
    # gain as the saved numbers have it; read noise stops falling at the limit
    pair = [expose(camera, iso=2000, exposure=0, seed=seed) for seed in (1, 2)]
    noise = math.sqrt(pair_variance(*pair) - 4 / 12) * camera.gain(2000)
    assert noise == pytest.approx(camera.read_noise(2000), rel=4 / math.sqrt(2 * PIXELS))
    assert camera.read_noise(2000) == camera.read_noise(1000)
    assert flat.mean() - 600 == pytest.approx((500 + 0.3) / camera.gain(2000), rel=0.002)


def test_particles_leave_their_charge():
    camera = ideal()
    hits = (np.array([10, 10, 200]), np.array([20, 20, 30]), np.array([500.0, 700.0, 90_000.0]))
    frame = expose(camera, iso=100, exposure=1, temperature=-200, seed=1, hits=hits)
    assert frame[10, 20] == 600 + 1200
    assert frame[200, 30] == 16383
    assert (frame != 600).sum() == 2
    nothing = expose(camera, iso=100, exposure=1, temperature=-200, seed=1, hits=([], [], []))
    assert (nothing == 600).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": -1}, "never negative"),
        ({"rate": np.nan}, "never negative"),
        ({"rate": (1, 2, 3)}, r"shape \(3,\); give one number, 4 \(R, G1, G2, B\)"),
        ({"rate": np.zeros((4, 4))}, r"sensor's shape \(256, 384\)"),
        ({"iso": 0}, "iso is a positive number, not 0"),
        ({"exposure": -1}, "exposure is a time"),
        ({"exposure": math.inf}, "exposure is a time"),
        ({"temperature": -300}, "above -273.15"),
        ({"temperature": math.nan}, "above -273.15"),
        ({"hits": ([256], [0], [1])}, "outside the sensor's 256 x 384"),
    ],
)
def test_impossible_exposures_are_refused(camera, arguments, message):
    settings = {"rate": 1.0, "iso": 100, "exposure": 1.0, "seed": 1} | arguments
    rate = settings.pop("rate")
    with pytest.raises(WorkbenchError, match=message):
        expose(camera, rate, **settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (3, 4)}, "two even numbers"),
        ({"vignetting": 1.0}, "0 to 1"),
        ({"cfa_pattern": "RGBE"}, "cfa_pattern"),
    ],
)
def test_impossible_cameras_are_refused(changes, message):
    with pytest.raises(WorkbenchError, match=message):
        d7000(**changes)


def test_hot_pixels_cannot_exceed_the_mean():
    with pytest.raises(WorkbenchError, match="hot pixels alone"):
        d7000(shape=SHAPE, hot_fraction=0.5).dark_map  # noqa: B018
