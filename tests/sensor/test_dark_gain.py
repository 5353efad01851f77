"""The gain of darks alone: right without a lamp, honest about its error, and silent where darks cannot tell."""

import numpy as np
import pytest

from tests.scenes import frames_of
from workbench.sensor import compare_gains, dark_transfer, gain_from_darks
from workbench.simulate import d7000
from workbench.simulate.firmware import stock

SHAPE = (96, 128)


def shoot(seed, *, shots=((600.0, 20.0, 3), (600.0, 8.0, 3)), iso=200.0, change=None, **camera):
    body = d7000(seed=seed, shape=SHAPE, **camera)
    series = [(time, warm, n) for time, warm, count in shots for n in range(count)]
    dark = frames_of(
        body, "dark", [shot[:2] for shot in series], iso=iso, seed=lambda number: (seed, series[number][2]),
        change=change, filename=[f"dark_{number}.nef" for number in range(len(series))],
    )  # fmt: skip
    return body, dark, frames_of(body, "bias", [(1 / 8000, 20.0)] * 6, iso=iso, seed=lambda number: (seed, 99, number))


def measure(seed, **changes):
    body, dark, bias = shoot(seed, **changes)
    return gain_from_darks(dark_transfer(dark, bias, progress=False)), body.gain(200)


def test_unbiased_and_covered():
    found, truth = zip(*(measure(seed) for seed in range(16)), strict=True)
    pulls = np.array([(one.gain.values[0] - g) / one.gain_error.values[0] for one, g in zip(found, truth, strict=True)])
    assert abs(pulls.mean()) < 1 / 3 + 3 / np.sqrt(pulls.size)
    assert 0.55 < (abs(pulls) < 1).mean() < 0.82
    assert max(float(one.gain_error.max()) for one in found) < 0.06


def test_hot_pixels_are_a_photon_transfer_curve_of_their_own():
    body, dark, bias = shoot(1, hot_fraction=0.1, dark_current=0.6)
    transfer = dark_transfer(dark, bias, progress=False)
    hot = transfer.isel(point=transfer.population.values > 0)
    assert hot.sizes["point"] >= 3
    assert float(hot.signal.max()) > 1000
    found = gain_from_darks(transfer)
    assert (abs(found.gain - body.gain(200)) < 4 * found.gain_error).all()


@pytest.mark.parametrize("count", [2, 4])
def test_two_frames_are_sorted_by_another_exposure_and_four_by_each_other(count):
    found, truth = measure(3, shots=((600.0, 20.0, count), (300.0, 20.0, 2)))
    assert (abs(found.gain - truth) < 4 * found.gain_error).all()


def test_cosmic_rays_do_not_count():
    def struck(frame, n):
        frame = frame.copy()
        frame[10 * n + 3, 5:60] = 4000
        return frame

    found, truth = measure(4, change=struck)
    assert (abs(found.gain - truth) < 4 * found.gain_error).all()


def test_it_agrees_with_the_flats_gain_or_says_that_it_does_not():
    found, truth = measure(5)
    flats = found[["gain", "gain_error"]].copy(deep=True)
    flats["gain"][:], flats["gain_error"][:] = truth, 0.01
    assert compare_gains(found, flats).agrees.all()
    flats["gain"][:] = 1.3 * truth
    told = compare_gains(found, flats)
    assert not told.agrees.any()
    np.testing.assert_allclose(told.ratio, 1 / 1.3, rtol=0.05)


def test_darks_that_cannot_tell_say_why():
    cold, _ = measure(6, shots=((30.0, -10.0, 3),))
    assert np.isnan(cold.gain).all()
    assert "too little dark current" in cold.attrs["warnings"][0]
    lone, _ = measure(6, shots=((600.0, 20.0, 2),))
    assert lone.sizes["iso"] == 0

    def subtracted(frame, n):
        return (frame.astype(int) - 169).astype("uint16")  # the mean dark signal of 600 s at 20 °C

    kind, _ = measure(7, change=subtracted, shots=((600.0, 20.0, 3),))
    assert np.isnan(kind.gain).all()
    assert "subtracts the mean dark itself, or" in kind.attrs["warnings"][0]


def test_the_stock_firmware_leaves_long_darks_to_measure_and_clips_short_ones():
    body, dark, bias = shoot(9, shots=((600.0, 20.0, 3), (60.0, -10.0, 3)))
    cooked, zero = (cube.copy(data=np.stack([stock(frame, body) for frame in cube.values])) for cube in (dark, bias))
    found = gain_from_darks(dark_transfer(cooked, zero, progress=False)).isel(iso=0)
    truth = body.gain(200) / np.array([1.12, 1.0, 1.0, 1.16])
    assert (abs(found.gain - truth) < 4 * found.gain_error).all()
    assert (found.gain_error < 0.05).all()
    short = cooked.isel(frame=slice(3, None))
    none = gain_from_darks(dark_transfer(short, zero, progress=False))
    assert np.isnan(none.gain).all()
    assert "clipped at zero" in none.attrs["warnings"][0]


def test_without_bias_of_the_iso_nothing_is_measured():
    _, dark, bias = shoot(8)
    transfer = dark_transfer(dark, bias.assign_coords(iso=("frame", [400.0] * 6)), progress=False)
    assert transfer.sizes["point"] == 0
    assert "needs bias frames" in transfer.attrs["warnings"][0]
