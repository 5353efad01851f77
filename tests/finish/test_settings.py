import dataclasses
import json

import numpy as np
import pytest

from workbench.core.errors import StageError, WorkbenchError
from workbench.finish import (
    BackgroundSettings,
    ColourSettings,
    CropSettings,
    DetailSettings,
    FinishSettings,
    StretchSettings,
    finish,
    make_picture,
    removed,
    write_picture,
)

ALL = FinishSettings(
    crop=CropSettings(box=(10, 510, 20, 620)),
    background=BackgroundSettings(method="rbf", degree=1, smoothing=2),
    colour=ColourSettings(balance="daylight", neutralise=True, green=0.5),
    detail=DetailSettings(deconvolve=0.3, iterations=3, denoise=0.5, stars=0.3, contrast=0.2),
    stretch=StretchSettings(method="asinh", sky=0.12),
)


def test_settings_survive_json():
    assert FinishSettings.from_json(ALL.to_json()) == ALL
    assert FinishSettings.from_dict({}) == FinishSettings()
    samples = FinishSettings.from_dict({"background": {"samples": [[1, 2], [3, 4], [5, 6]]}})
    assert samples.background.samples == ((1.0, 2.0), (3.0, 4.0), (5.0, 6.0))


def test_details_are_off_until_asked_for():
    detail = FinishSettings().detail
    assert [detail.deconvolve, detail.denoise, detail.stars, detail.contrast] == [0, 0, 0, 0]
    assert FinishSettings().colour.green == 0


def test_every_step_is_followed_checked_and_told(scene):
    done = finish(scene.picture, ALL, progress=False)
    steps = [sentence.split(":")[0].split(" neutral")[0] for sentence in done.picture.attrs["history"]]
    assert steps == [
        "Crop",
        "Background",
        "Deconvolution",
        "Denoise",
        "Colour",
        "Background",
        "Green cast",
        "Stretch",
        "Star reduction",
        "Local contrast",
    ]
    assert done.picture.attrs["stage"] == "stretched"
    assert done.linear.attrs["stage"] == "stacked"
    assert done.picture.signal.shape == (3, 500, 600)
    assert set(done.removed) == {"deconvolve", "denoise", "green", "stars", "contrast"}
    assert set(done.checks) == {"background", "deconvolution", "denoising", "colour", "green cast"}
    assert done.checks["background"].attrs["passed"]
    assert done.checks["denoising"].attrs["passed"]
    assert done.checks["colour"].attrs["passed"]
    assert done.background is not None
    assert scene.picture.attrs["history"] == []


def test_a_replay_gives_the_same_bytes(scene, tmp_path):
    contents = []
    for number in range(2):
        settings = FinishSettings.from_json(ALL.to_json())
        done = finish(scene.picture, settings, progress=False)
        path = write_picture(done.picture, tmp_path / f"{number}.png", settings=settings.to_dict())
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


def test_default_finish_loses_no_star(scene):
    done = finish(scene.picture, progress=False)
    assert done.warnings == []
    for step, check in done.checks.items():
        assert check.attrs["worst"] < 0.003, step
        assert check.attrs["stars"] >= 10
    corner = np.median(done.picture.signal.values[:, :40, :40], axis=(1, 2))
    assert np.ptp(corner) < 0.02  # a grey sky
    assert 0.05 < corner.mean() < 0.15


def test_division_passes_its_check_too(scene):
    settings = FinishSettings(background=BackgroundSettings(mode="divide"))
    done = finish(scene.picture, settings, progress=False)
    assert done.checks["background"].attrs["passed"]


def test_mono_with_missing_borders_negative_pixels_and_a_clipped_core():
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:300, :400]
    signal = rng.normal(0, 2, (300, 400)) + 0.01 * x
    for _ in range(40):
        cy, cx, flux = rng.uniform(30, 270), rng.uniform(30, 370), rng.lognormal(6, 1)
        signal += flux * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * 1.6**2))
    signal = np.minimum(signal, 800)
    signal[:9] = np.nan
    signal[:, -6:] = np.nan
    signal[150, 200] = np.nan
    done = finish(make_picture(signal), progress=False)
    assert done.picture.signal.shape == (1, 291, 394)
    assert np.isfinite(done.picture.signal).all()
    assert done.balance is None
    assert (done.linear.signal < 0).any()


def test_colour_with_missing_borders_negative_pixels_and_clipped_cores(simulated):
    scene = simulated(shape=(400, 600), saturation=4000.0)
    signal = scene.picture.signal.values - 130.0  # someone has subtracted too much
    signal[:, :7], signal[1, :, -5:], signal[:, 200, 300] = np.nan, np.nan, np.nan
    stack = scene.picture.assign(signal=scene.picture.signal.copy(data=signal))
    done = finish(stack, progress=False)
    assert done.picture.signal.shape == (3, 393, 595)
    assert np.isfinite(done.picture.signal).all()
    assert done.checks["background"].attrs["passed"]
    assert done.checks["colour"].attrs["passed"]
    whole = finish(scene.picture, FinishSettings(crop=CropSettings(box=(7, 400, 0, 595))), progress=False)
    np.testing.assert_allclose(done.picture.signal, whole.picture.signal, atol=0.02)
    # a clipped core is as bright as it gets, and white or of the star's colour, not green or magenta
    top, _, left, _ = done.picture.attrs["crop"]
    core = (stack.saturated.values > 0).any(axis=0)[top : top + 393, left : left + 595]
    red, green, blue = done.picture.signal.values[:, core]
    assert core.sum() > 10
    assert np.median(green - np.maximum(red, blue)) < 0.02
    assert np.median(np.minimum(red, blue) - green) < 0.02


def test_auto_balance_says_what_it_fell_back_to(simulated):
    scene = simulated(stars=2, nebula=0.0)
    done = finish(scene.picture, progress=False)
    assert any("white balance: only" in warning for warning in done.warnings)
    np.testing.assert_allclose(done.balance.multiplier, [2.0, 1.0, 1.3])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "not valid JSON"),
        ("[]", "not a JSON object"),
        ('{"version": 9}', "version 9"),
        ('{"sharpen": {}}', "have no 'sharpen'"),
        ('{"stretch": {"gamma": 2}}', "have no 'gamma'"),
        ('{"stretch": 3}', "holds settings by name"),
        ('{"stretch": {"sky": "dark"}}', "stretch.sky is 'dark'"),
        ('{"detail": {"denoise": true}}', "detail.denoise is True"),
        ('{"crop": {"box": [1, 2, 3]}}', "crop.box is"),
    ],
)
def test_bad_settings_are_named(tmp_path, text, words):
    path = tmp_path / "settings.json"
    path.write_text(text)
    with pytest.raises(WorkbenchError, match=words) as caught:
        FinishSettings.open(path)
    assert "settings.json" in str(caught.value)


@pytest.mark.parametrize(
    ("part", "values", "words"),
    [
        ("background", {"method": "ai"}, "background method 'ai'"),
        ("background", {"mode": "multiply"}, "background mode"),
        ("colour", {"balance": "sun"}, "white balance 'sun'"),
        ("colour", {"green": 3.0}, "green to remove"),
        ("stretch", {"method": "gamma"}, "stretch 'gamma'"),
        ("detail", {"denoise": 2.0}, "strength of denoise"),
    ],
)
def test_unknown_choices_are_named_before_the_work(scene, part, values, words):
    settings = FinishSettings()
    settings = dataclasses.replace(settings, **{part: dataclasses.replace(getattr(settings, part), **values)})
    with pytest.raises(WorkbenchError, match=words):
        finish(scene.picture, settings, progress=False)


def test_what_cannot_be_finished_is_named(scene):
    done = finish(scene.picture, progress=False)
    with pytest.raises(StageError, match="stretched already"):
        finish(done.picture, progress=False)
    with pytest.raises(WorkbenchError, match="NaN everywhere"):
        finish(make_picture(np.full((3, 64, 64), np.nan)), progress=False)
    with pytest.raises(WorkbenchError, match="is empty"):
        finish(make_picture(np.zeros((3, 64, 64))), progress=False)
    with pytest.raises(WorkbenchError, match="cannot be subtracted"):
        removed(scene.picture, scene.picture.isel(x=slice(0, 50)))
    json.dumps(ALL.to_dict())
