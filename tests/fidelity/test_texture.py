"""What neighbours, rows and columns share, against what was put there; the hot-pixel filter, found where it is."""

import numpy as np
import pytest

from workbench.core.cube import make_cube
from workbench.core.errors import WorkbenchError
from workbench.fidelity.texture import hot_pixel_filter, noise_texture
from workbench.simulate import d7000, expose, firmware

CAMERA = d7000(seed=11, shape=(256, 384))
HOT = d7000(seed=5, shape=(512, 768))


def bias(change=None, count=8, kind="bias", **attrs):
    frames = [expose(CAMERA, iso=800, exposure=1e-4, seed=number, threads=1) for number in range(count)]
    if change is not None:
        frames = [change(frame, number) for number, frame in enumerate(frames)]
    given = {"iso": 800, "exposure": 1e-4, "black_level": 600, "white_level": 16383} | attrs
    return make_cube(np.stack(frames), cfa_pattern="RGGB", kind=kind, **given)


def test_white_noise_is_white():
    result = noise_texture(bias(), progress=False)
    assert result.pairs.item() == 4
    pull = (result.correlation / result.correlation_error).values
    assert abs(pull.mean()) < 0.6
    assert pull.std() == pytest.approx(1, abs=0.35)
    assert (result.band_p_value > 1e-4).all()
    assert result.spectrum.mean() == pytest.approx(1, abs=0.1)
    expected = np.hypot(CAMERA.read_noise(800) / CAMERA.gain(800), np.sqrt(1 / 12))
    assert result.noise.values == pytest.approx(np.full((1, 4), expected), rel=0.02)


@pytest.mark.parametrize("share", [0.02, 0.05])
def test_filtered_noise_correlates_as_the_filter_says(share):
    result = noise_texture(bias(lambda frame, _: firmware.smooth(frame, CAMERA, share)), progress=False)
    # the filter's autocorrelation at one step, over that at none; rounding after it, 1/12 ADU², is white
    power = (1 - 4 * share) ** 2 + 4 * share**2
    expected = 2 * share * (1 - 4 * share) / power
    for lag in ("0,1", "1,0"):
        assert result.correlation.sel(lag=lag).mean() == pytest.approx(expected, abs=0.012)
    assert result.variance_factor.mean() == pytest.approx(1 / power, abs=0.15)


def test_row_noise_is_measured():
    noise = CAMERA.read_noise(800) / CAMERA.gain(800)
    for share in (0.1, 0.3):
        cube = bias(lambda frame, number, s=share: firmware.row_noise(frame, CAMERA, s * noise, (number, 5)))
        result = noise_texture(cube, progress=False)
        row, column = (result.band_noise.sel(axis=axis).item() for axis in ("row", "column"))
        assert row == pytest.approx(share, rel=0.15)
        assert column < 0.03
        # it is not taken for a filter
        assert abs(result.correlation.sel(lag="0,1").mean()) < 0.02


def test_a_wave_across_the_rows_is_a_peak():
    wave = 2.0 * np.sin(2 * np.pi * 0.125 * np.arange(256))[:, None]

    def add(frame, number):
        return (frame + (-1) ** number * wave).round().astype("uint16")

    result = noise_texture(bias(add), progress=False)
    assert result.peak.sel(axis="row").item() == pytest.approx(0.125, abs=0.01)
    assert result.peak_p_value.sel(axis="row").item() < 1e-9
    assert result.peak_p_value.sel(axis="column").item() > 1e-4
    assert (result.peak_power > result.peak_limit).sel(axis="row").item()


def test_the_limit_of_a_peak_is_where_white_noise_comes_once_in_a_thousand():
    for seed in range(6):
        result = noise_texture(bias(lambda frame, number, s=seed: np.roll(frame, s, axis=0)), progress=False)
        assert ((result.peak_power > result.peak_limit) == (result.peak_p_value < 1e-3)).all()
        assert (result.peak_power < result.peak_limit).all()


def test_flats_are_scaled_to_one_level_and_bright_ones_left_out():
    rng = np.random.default_rng(4)
    shade = 1 - 0.4 * np.linspace(0, 1, 384)  # vignetting, and a lamp that drifts by 5 %
    frames = [rng.poisson(2000 * lamp * shade, (256, 384)) for lamp in (1.0, 1.05)]
    frames += [rng.poisson(12_000, (256, 384)) for _ in range(2)]
    cube = make_cube(
        np.stack(frames).astype("uint16"), cfa_pattern="RGGB", kind="flat", iso=100, exposure=[1, 1, 6, 6],
        black_level=0, white_level=16383,
    )  # fmt: skip
    result = noise_texture(cube, progress=False)
    assert result.pairs.item() == 1
    assert abs(result.correlation).max() < 0.05
    assert (result.band_p_value > 1e-4).all()


def test_without_equal_frames_it_says_what_to_shoot():
    with pytest.raises(WorkbenchError, match="shoot ten bias frames"):
        noise_texture(bias(count=2, exposure=[1e-4, 1.0]), progress=False)
    same = make_cube(np.full((2, 64, 64), 16383, "uint16"), cfa_pattern="RGGB", kind="bias", iso=100, exposure=1e-4)
    with pytest.raises(WorkbenchError, match="no noise at all"):
        noise_texture(same, progress=False)


def dark_cube(change=None, exposure=300.0, seed=1, black=600):
    frame = expose(HOT, iso=800, exposure=exposure, temperature=20.0, seed=seed)
    frame = frame if change is None else change(frame)
    return make_cube(
        frame[None], cfa_pattern="RGGB", kind="dark", iso=800, exposure=exposure, temperature=20.0, black_level=black,
        white_level=16383, filename="a.dng",
    )  # fmt: skip


def test_an_untouched_dark_has_lone_hot_pixels():
    result = hot_pixel_filter(dark_cube())
    assert result.attrs["found"] is False
    alone = result.sel(test="alone")
    signal = 300.0 * HOT.dark_map.astype(float)
    noise = np.sqrt(np.median(signal) + HOT.read_noise(800) ** 2)
    hot = np.count_nonzero(signal - np.median(signal) > 8 * noise)
    assert result.attrs["bright_pixels"] == pytest.approx(hot, rel=0.1)
    assert alone.observed >= 0.97 * result.attrs["bright_pixels"]
    extremes = result.sel(test="extremes")
    assert extremes.observed == pytest.approx(float(extremes.expected), rel=0.05)


@pytest.mark.parametrize("margin", [0.0, 30.0])
def test_a_star_eater_is_found(margin):
    result = hot_pixel_filter(dark_cube(lambda frame: firmware.remove_hot_pixels(frame, HOT, margin)))
    assert result.attrs["found"] is True
    assert result.attrs["p_value"] < 1e-6


def test_pixels_made_equal_to_their_neighbour_are_a_spike_at_zero():
    frame = expose(HOT, iso=800, exposure=300.0, seed=2)
    rng = np.random.default_rng(1)
    for y, x in zip(rng.integers(4, 500, 300), rng.integers(4, 750, 300), strict=True):
        frame[y, x] = frame[y, x + 2] = 3000 + rng.integers(0, 900)
    result = hot_pixel_filter(dark_cube(lambda _: frame))
    spike = result.sel(test="spike")
    assert spike.observed >= 500
    assert bool(spike.positive)


def test_stock_firmware_and_smoothing_are_not_taken_for_it():
    assert hot_pixel_filter(dark_cube(lambda f: firmware.stock(f, HOT), black=0)).attrs["found"] is False
    assert hot_pixel_filter(dark_cube(lambda f: firmware.smooth(f, HOT, 0.1))).attrs["found"] is False


def test_a_short_dark_or_one_without_hot_pixels_cannot_tell():
    assert hot_pixel_filter(dark_cube(exposure=0.1)).attrs["found"] is None
    noise = np.random.default_rng(2).normal(600, 4, (128, 128)).round().astype("uint16")
    assert hot_pixel_filter(dark_cube(lambda _: noise)).attrs["found"] is None
    assert hot_pixel_filter(dark_cube(lambda _: np.full((64, 64), 600, "uint16"))).attrs["found"] is None


def test_the_longest_and_warmest_dark_is_tested():
    frames = np.stack([expose(HOT, iso=800, exposure=e, seed=1) for e in (1.0, 300.0)])
    cube = make_cube(
        frames, cfa_pattern="RGGB", kind="dark", iso=800, exposure=[1.0, 300.0], filename=["short", "long"],
        white_level=16383,
    )  # fmt: skip
    assert hot_pixel_filter(cube).attrs["filename"] == "long"
