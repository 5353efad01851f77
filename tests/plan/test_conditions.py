"""What lights tell: sky and tracking, against what was painted."""

import math
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from tests.scenes import true_sensor
from workbench.core.cube import XTRANS, make_cube
from workbench.core.dark import dark_current_at
from workbench.core.errors import WorkbenchError
from workbench.plan.conditions import background_rate, star_shapes, tracking
from workbench.simulate import View, d7000, expose, make_sky, render

CAMERA = d7000(seed=4, shape=(384, 512), vignetting=0.0)
SKY = make_sky((384, 512), stars=150, brightest=600, faintest=20, nebula=0.0, seed=2)
FWHM = 2.6


def measured(**changes):
    scalars = {
        "doubling_temperature": 6.0, "doubling_temperature_error": 0.05, "dark_current_reference": 0.3,
        "dark_current_reference_error": 0.003, "reference_temperature": 20.0,
    } | changes  # fmt: skip
    darks = {"dark_current": ("setting", [0.3]), "dark_current_error": ("setting", [0.01])}
    known = true_sensor(CAMERA).assign(scalars | darks).assign_coords(setting_temperature=("setting", [20.0]))
    return known.assign_attrs(camera=CAMERA.camera)


def lights(exposures, drift=0.0, seed=1, temperature=8.0, background=(1.0, 2.0, 1.5), angle=0.6, cfa="RGGB"):
    sigma = FWHM / 2.3548
    frames, camera = [], replace(CAMERA, cfa_pattern=cfa)
    for number, time in enumerate(exposures):
        stretch = math.sqrt(1 + (drift * time) ** 2 / 12 / sigma**2)
        view = View(
            exposure=time, fwhm=FWHM, beta=math.inf, elongation=stretch, angle=angle, background=background,
            seed=seed * 10 + number,
        )  # fmt: skip
        rate = render(SKY, view, cfa)
        frames.append(expose(camera, rate, iso=800, exposure=time, temperature=temperature, seed=(seed, number)))
    return make_cube(
        np.stack(frames), cfa_pattern=cfa, kind="light", iso=800, exposure=list(exposures), temperature=temperature,
        black_level=600, white_level=16383, camera=CAMERA.camera, filename=[f"{n}.dng" for n in range(len(frames))],
    )  # fmt: skip


def test_the_sky_is_measured_in_every_colour():
    result = background_rate(lights([120.0] * 4), measured(), progress=False)
    truth = np.array([1.0, 2.0, 2.0, 1.5])
    dark = CAMERA.mean_dark_current(8.0)
    assert result.dark.values == pytest.approx(np.full(4, 0.3 / 4), rel=1e-3)
    assert result.sky.values == pytest.approx(truth, abs=0.04)
    assert result.rate.values == pytest.approx(truth + dark, abs=0.04)
    assert (result.rate_error < 0.05).all()
    assert result.attrs["frames"] == 4


def test_without_a_dark_law_the_background_is_still_measured():
    sensor = measured(doubling_temperature=np.nan)
    result = background_rate(lights([60.0]), sensor, progress=False)
    assert np.isfinite(result.rate).all()
    assert np.isnan(result.sky).all()
    assert "not known" in result.attrs["warnings"][0]
    # the setting within 2 K does as well
    assert dark_current_at(sensor, 21.0) == (0.3, 0.01)
    assert math.isnan(dark_current_at(sensor, 10.0)[0])


def test_dark_current_follows_the_law_with_its_error():
    value, error = dark_current_at(measured(), 8.0)
    assert value == pytest.approx(0.075)
    assert error == pytest.approx(0.075 * math.hypot(0.01, math.log(2) * 2 * 0.05 / 6), rel=1e-6)


def test_another_iso_or_an_unknown_exposure_is_refused():
    cube = lights([60.0])
    with pytest.raises(WorkbenchError, match="gain at ISO 800"):
        background_rate(cube, measured().assign_coords(iso=[400.0]), progress=False)
    with pytest.raises(WorkbenchError, match="exposure"):
        background_rate(cube.assign_coords(exposure=("frame", [np.nan])), measured(), progress=False)


@pytest.mark.parametrize("cfa", ["RGGB", XTRANS], ids=["RGGB", "X-Trans"])
def test_drift_and_the_longest_sub_are_recovered(cfa):
    drift = 0.012
    shapes = star_shapes(lights([30.0, 60.0, 120.0, 240.0], drift, cfa=cfa), progress=False)
    found = tracking(shapes)
    assert found.drift.item() == pytest.approx(drift, rel=0.06)
    truth = math.sqrt(12 * (1.15**2 - 1)) * FWHM / 2.3548 / drift
    assert found.longest.item() == pytest.approx(truth, rel=0.06)
    assert 0 < found.longest_error.item() < 0.1 * truth
    sigma = FWHM / 2.3548
    stretch = np.sqrt(1 + (drift * shapes.exposure.values) ** 2 / 12 / sigma**2)
    assert shapes.elongation.values == pytest.approx(stretch, abs=0.03)
    assert shapes.attrs["camera"] == CAMERA.camera


def test_a_mount_that_holds_gives_a_lower_limit():
    found = tracking(star_shapes(lights([60.0, 120.0, 240.0]), progress=False))
    assert found.attrs["limit"]
    assert found.longest > 240
    assert np.isnan(found.longest_error)


def test_one_exposure_counts_all_elongation_as_drift():
    drift = 0.015
    found = tracking(star_shapes(lights([120.0, 120.0], drift), progress=False))
    assert not found.attrs["several_exposures"]
    assert found.drift.item() == pytest.approx(drift, rel=0.15)


def test_elongation_of_the_optics_is_not_taken_for_drift():
    t = np.array([30.0, 60.0, 120.0, 240.0])
    shapes = xr.Dataset(
        {
            "plus": ("frame", 0.2 + 0 * t), "cross": ("frame", -0.1 + (0.01 * t) ** 2 / 12),
            "plus_error": ("frame", 0.01 + 0 * t), "cross_error": ("frame", 0.01 + 0 * t),
            "short": ("frame", 1.5 + 0 * t),
        },
        {"exposure": ("frame", t)},
    )  # fmt: skip
    found = tracking(shapes)
    assert found.optics.item() == pytest.approx(math.hypot(0.2, 0.1), rel=1e-6)
    assert found.drift.item() == pytest.approx(0.01, rel=1e-6)
    time = found.longest.item()
    vector = math.hypot(0.2, -0.1 + (0.01 * time) ** 2 / 12)
    assert math.sqrt(1 + vector / 1.5) == pytest.approx(1.15, rel=1e-6)


def test_without_stars_it_says_so():
    flat = np.random.default_rng(1).normal(900, 10, (1, 128, 128)).round().astype("uint16")
    cube = make_cube(flat, cfa_pattern="RGGB", kind="light", iso=800, exposure=60.0, black_level=600, white_level=16383)
    shapes = star_shapes(cube, progress=False)
    assert np.isnan(shapes.elongation).all()
    with pytest.raises(WorkbenchError, match="five stars"):
        tracking(shapes)
    with pytest.raises(WorkbenchError, match="above 1"):
        tracking(shapes, elongation=1.0)
