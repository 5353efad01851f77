"""A night in a folder: what is written is what the truth says."""

import numpy as np
import pytest
from astropy.io import fits

from workbench.core.errors import WorkbenchError
from workbench.simulate.night import open_night, write_night

SMALL = {"shape": (96, 160), "lights": 2, "biases": 2, "darks": 1, "flats": 1, "progress": False}


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    folder = tmp_path_factory.mktemp("night")
    return write_night(folder, suffix="fits", trails=1, cosmic_rays=5, fwhm=2.0, seed=3, **SMALL)


def test_the_folder_is_laid_out_for_siril(night):
    files = sorted(str(path.relative_to(night.folder)) for path in night.folder.rglob("*_*.fits"))
    assert files == [
        "biases/bias_0000.fits",
        "biases/bias_0001.fits",
        "darks/dark_0000.fits",
        "flats/flat_0000.fits",
        "lights/light_0000.fits",
        "lights/light_0001.fits",
    ]
    header = fits.getheader(night.folder / night.lights[0])
    assert "simulated" in header["INSTRUME"]
    assert (header["EXPTIME"], header["CCD-TEMP"], header["BAYERPAT"]) == (60.0, 10.0, "RGGB")


def test_lights_scatter_about_the_truth_as_the_noise_model_says(night):
    sensor, iso = night.sensor, night.settings.iso
    adu = fits.getdata(night.folder / night.lights[1]).astype(float)
    dark = sensor.dark_map * sensor.dark_factor(night.settings.temperature) * night.views[1].exposure
    electrons = night.expected(1) + dark
    residual = (adu - sensor.black_level - sensor.offset_map) * sensor.gain(iso) - electrons
    variance = electrons + sensor.read_noise(iso) ** 2 + sensor.gain(iso) ** 2 / 12
    usable = ~night.cosmic_ray_mask(1) & (adu < sensor.white_level)
    chi2 = (residual**2 / variance)[usable]
    assert chi2.mean() == pytest.approx(1, abs=4 * np.sqrt(2 / chi2.size))
    hit = night.cosmic_ray_mask(1) & (adu < sensor.white_level)
    assert (residual[hit] > 0).mean() > 0.9


def test_the_truth_opens_again(night):
    again = open_night(night.folder)
    assert again.sensor == night.sensor
    assert again.lights == night.lights
    assert np.array_equal(again.expected(1), night.expected(1))
    assert np.array_equal(again.cosmic_ray_mask(0), night.cosmic_ray_mask(0))


def test_the_same_seed_gives_the_same_bits_and_dng_the_same_pixels(night, tmp_path):
    rawpy = pytest.importorskip("rawpy")
    write_night(tmp_path, suffix="dng", trails=1, cosmic_rays=5, fwhm=2.0, seed=3, **SMALL)
    for name in night.lights:
        with rawpy.imread(str((tmp_path / name).with_suffix(".dng"))) as raw:
            assert np.array_equal(raw.raw_image_visible, fits.getdata(night.folder / name))


def test_mistakes_are_named(night, tmp_path):
    with pytest.raises(WorkbenchError, match="already there"):
        write_night(night.folder, **SMALL)
    with pytest.raises(WorkbenchError, match="dng or fits"):
        write_night(tmp_path, suffix="jpg", **SMALL)
    with pytest.raises(WorkbenchError, match="no simulated night"):
        open_night(tmp_path)
