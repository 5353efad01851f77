"""A small, honest characterization: every piece computed from simulated electrons by the textbook formulas."""

from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

CHANNELS = ["R", "G1", "G2", "B"]
ISOS = np.array([100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0, 6400.0])
UNITY, READ, BLACK, WHITE, PIXELS = 212.0, 2.7, 600.0, 15800.0, 40_000


def read_noise(rng):
    truth = np.hypot(1.4, READ * ISOS / UNITY)[:, None] * np.ones(4)
    error = truth / np.sqrt(2 * 5 * PIXELS)
    return xr.Dataset(
        {
            "read_noise_adu": (("iso", "channel"), rng.normal(truth, error), {"units": "adu"}),
            "read_noise_adu_error": (("iso", "channel"), error),
            "black_level": (("iso", "channel"), np.full(truth.shape, BLACK), {"units": "adu"}),
            "black_level_error": (("iso", "channel"), np.full(truth.shape, 0.01)),
            "frames": ("iso", np.full(ISOS.size, 10)),
        },
        {"iso": ISOS, "channel": CHANNELS},
    )


def photon_transfer(rng):
    levels = np.array([0.003, 0.01, 0.03, 0.08, 0.2, 0.4, 0.6, 0.8, 0.97])
    iso = np.repeat(ISOS, levels.size)
    signal = (np.tile(levels, ISOS.size) * (WHITE - BLACK))[:, None] * np.array([0.55, 1.0, 0.99, 0.7])
    gain = UNITY / iso[:, None]
    floor = 1.4**2 + (READ / gain) ** 2
    variance = signal / gain + floor
    clipped = signal > 0.93 * (WHITE - BLACK)
    variance = np.where(clipped, 0.2 * variance, variance)
    error = variance * np.sqrt(2 / PIXELS)
    measured = rng.normal(variance, error)
    exposure = np.tile(levels, ISOS.size) * 0.5
    names = [f"flat-{number:03d}.dng" for number in range(2 * iso.size)]
    dims = ("pair", "channel")
    ptc = xr.Dataset(
        {
            "mean": (dims, signal + BLACK, {"units": "adu"}),
            "signal": (dims, signal, {"units": "adu"}),
            "variance": (dims, measured, {"units": "adu²"}),
            "variance_error": (dims, error),
            "saturated_fraction": (dims, clipped * 1.0),
        },
        {
            "iso": ("pair", iso), "exposure": ("pair", exposure), "aperture": ("pair", np.full(iso.size, 8.0)),
            "filename_1": ("pair", names[::2]), "filename_2": ("pair", names[1::2]), "channel": CHANNELS,
        },
    )  # fmt: skip
    used = ~clipped & (signal < 0.7 * (WHITE - BLACK))
    return ptc, used


def fit(ptc, used):
    shape = (ISOS.size, 4)
    gain, error, intercept, blog = (np.empty(shape) for _ in range(4))
    for i, iso in enumerate(ISOS):
        for c in range(4):
            rows = (ptc["iso"].values == iso) & used[:, c]
            x, y, e = (ptc[name].values[rows, c] for name in ("signal", "variance", "variance_error"))
            (slope, start), covariance = np.polyfit(x, y, 1, w=1 / e, cov="unscaled")
            gain[i, c], error[i, c], intercept[i, c] = 1 / slope, np.sqrt(covariance[0, 0]) / slope**2, start
            blog[i, c] = x[-1] / (y[-1] + (0.008 * x[-1]) ** 2)
    dims = ("iso", "channel")
    return xr.Dataset(
        {
            "gain": (dims, gain), "gain_error": (dims, error), "intercept": (dims, intercept),
            "blog_gain": (dims, blog), "chi2": (dims, np.ones(shape)), "used": (("pair", "channel"), used),
        },
        {"iso": ISOS, "channel": CHANNELS},
    )  # fmt: skip


@pytest.fixture(scope="session")
def result():
    return make()


def make():
    """Return what `runs.characterize` returns, for a made-up camera called simulated."""
    rng = np.random.default_rng(20)
    ptc, used = photon_transfer(rng)
    gain = fit(ptc, used)
    unity = xr.Dataset({"unity_gain_iso": float((gain.gain * gain.iso).mean()), "unity_gain_iso_error": 0.4})

    temperature = np.repeat([-5.0, 5.0, 15.0, 25.0], 3)
    exposure = np.tile([60.0, 180.0, 600.0], 4)
    rate = 0.15 * 2 ** ((temperature - 20) / 6.0)
    signal_error = np.full(12, 0.05) + 0.01 * rate * exposure
    coords = {
        "iso": ("group", np.full(12, 800.0)),
        "temperature": ("group", temperature),
        "exposure": ("group", exposure),
    }
    dark_signal = xr.Dataset(
        {
            "dark_signal": ("group", rng.normal(rate * exposure, signal_error)),
            "dark_signal_error": ("group", signal_error),
            "frames": ("group", np.full(12, 4)),
        },
        coords,
    )
    warm = np.array([-5.0, 5.0, 15.0, 25.0])
    current = 0.15 * 2 ** ((warm - 20) / 6.0)
    dark_current = xr.Dataset(
        {
            "dark_current": ("setting", rng.normal(current, 0.01 * current)),
            "dark_current_error": ("setting", 0.01 * current + 1e-4),
            "median": ("setting", 0.8 * current),
            "intercept": ("setting", np.zeros(4)),
            "dcnu": ("setting", current),
            "dcnu_error": ("setting", 0.02 * current),
        },
        {"iso": ("setting", np.full(4, 800.0)), "temperature": ("setting", warm)},
    )
    law = xr.Dataset(
        {
            "doubling_temperature": 6.02, "doubling_temperature_error": 0.09, "reference_temperature": 10.0,
            "dark_current_reference": 0.15 * 2 ** (-10 / 6), "dark_current_reference_error": 0.0004,
        }
    )  # fmt: skip
    electrons = rng.normal(0, 5.0, 100_000)
    counts, edges = np.histogram(electrons, np.linspace(-25, 25, 101))
    dark_noise = xr.Dataset(
        {"count": ("bin", counts), "density": ("bin", counts / electrons.size / 0.5)},
        {"bin": (edges[1:] + edges[:-1]) / 2},
        {
            "sigma": electrons.std(), "expected_sigma": 5.0, "ks_distance": 0.0021, "skewness": 0.003,
            "excess_kurtosis": 0.01, "n_pixels": electrons.size, "iso": 800.0, "exposure": 600.0, "temperature": 25.0,
        },
    )  # fmt: skip
    return SimpleNamespace(
        camera="NIKON D7000 (simulated)", simulated=True, read_noise=read_noise(rng), ptc=ptc, gain=gain, unity=unity,
        dark_signal=dark_signal, dark_current=dark_current, dark_law=law, dark_noise=dark_noise,
        frame_counts={"bias": 70, "flat": 126, "dark": 48}, warnings=[], set_aside=[],
    )  # fmt: skip
