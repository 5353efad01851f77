"""Gain and signal-to-noise ratio against the truth of a virtual camera."""

import numpy as np

from workbench.core.cube import make_cube
from workbench.sensor import fit_gain, photon_transfer, shot_noise_snr
from workbench.simulate import d7000, expose


def test_snr_follows_the_root_of_the_electrons():
    camera = d7000(seed=5, shape=(320, 480))
    levels = [0.02, 0.08, 0.32]
    flats = [
        expose(camera, 8000.0, iso=800, exposure=level, seed=[7, n]) for n, level in enumerate(np.repeat(levels, 2))
    ]
    flat = make_cube(flats, cfa_pattern="RGGB", kind="flat", iso=800, exposure=np.repeat(levels, 2), white_level=16383)
    bias = [expose(camera, iso=800, exposure=1 / 8000, seed=[n]) for n in range(4)]
    ptc = photon_transfer(flat, make_cube(bias, cfa_pattern="RGGB", kind="bias", iso=800), progress=False)
    result = shot_noise_snr(ptc, fit_gain(ptc))
    assert result.sizes["point"] == 12
    by_level = result.groupby("exposure").mean()
    np.testing.assert_allclose(by_level.snr / by_level.snr_expected, 1, rtol=0.03)
    np.testing.assert_allclose(by_level.snr[1:].values / by_level.snr[:-1].values, 2, rtol=0.03)  # four times, twice
    assert set(result.channel.values) == {"R", "G1", "G2", "B"}
    assert (result.snr_error < 0.05 * result.snr).all()
