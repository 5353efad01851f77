"""What neighbours, rows and columns share, against what was put there."""

import numpy as np
import pytest

from workbench.core.cube import make_cube
from workbench.core.errors import WorkbenchError
from workbench.fidelity.texture import noise_texture, patch_correlation, smooth_noise
from workbench.ingest import read_frame
from workbench.simulate import d7000, expose, firmware

CAMERA = d7000(seed=11, shape=(256, 384))


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


def test_single_frames_clear_a_camera_or_leave_it_open():
    picture = expose(CAMERA, (50.0, 100.0, 100.0, 70.0), iso=800, exposure=2.0, seed=3, threads=1)
    value, error = patch_correlation(picture, "RGGB")
    assert abs(value) < 4 * error
    filtered, error = patch_correlation(firmware.smooth(picture, CAMERA, 0.05), "RGGB")
    assert filtered > 5 * error
    truth = np.sqrt(200.0 * CAMERA.illumination().mean() / CAMERA.gain(800) ** 2)
    noise = smooth_noise(picture, "RGGB")
    assert np.nanmax(noise) == pytest.approx(truth, rel=0.2)


def test_real_sony_noise_is_not_filtered(real_data):
    value, error = patch_correlation(read_frame(real_data / "raw" / "sony-a7r3.arw"), "RGGB")
    assert abs(value) < 0.02
    assert error < 0.002
