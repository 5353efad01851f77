import numpy as np
import pytest

from workbench.core.errors import WorkbenchError
from workbench.finish import (
    background_model,
    check_photometry,
    evaluate_background,
    make_picture,
    measure_sky,
    remove_background,
)


def errors(scene, model):
    """Residual gradient (peak to peak) and share of the nebula's flux lost, per channel, in percent."""
    found = evaluate_background(model).values
    out = []
    for channel in range(3):
        truth, cloud = scene.background[channel], scene.nebula[channel]
        miss = found[channel] - truth
        core = cloud > 0.1 * cloud.max()
        out.append((100 * np.ptp(miss) / np.ptp(truth), 100 * abs(miss[core].sum()) / cloud[core].sum()))
    return np.array(out)


@pytest.mark.parametrize(("seed", "curvature"), [(0, 0.0), (1, 0.0), (2, 0.08)])
def test_gradient_goes_and_nebula_stays(simulated, seed, curvature):
    scene = simulated(seed=seed, curvature=curvature, shape=(800, 1200), stars=600, frames=40)
    sky = measure_sky(scene.picture)
    for method in ("polynomial", "rbf", "mesh"):
        model = background_model(scene.picture, method, sky=sky)
        found = errors(scene, model)
        assert found.max() < 2.0, (method, found)
        assert model.attrs["degree"] == (2 if curvature else 1)
        assert not model.attrs["warnings"]
    assert scene.picture.attrs["history"] == []  # untouched


def test_a_sky_without_nebula_is_flattened_to_half_a_percent(simulated):
    scene = simulated(seed=5, nebula=0.0)
    model = background_model(scene.picture)
    assert errors(scene, model)[:, 0].max() < 0.7
    assert model.attrs["sky_share"] > 0.9


def test_subtraction_keeps_variance_and_star_fluxes(scene):
    model = background_model(scene.picture)
    after = remove_background(scene.picture, model)
    np.testing.assert_array_equal(after["variance"], scene.picture["variance"])
    np.testing.assert_allclose(
        after["signal"].values + evaluate_background(model).values, scene.picture["signal"].values, rtol=1e-5, atol=1e-4
    )
    check = check_photometry(scene.picture, after)
    assert check.attrs["passed"]
    assert check.attrs["worst"] < 0.001
    assert len(after.attrs["history"]) == 1


def test_division_takes_vignetting_out_and_scales_the_variance(simulated):
    scene = simulated(seed=3, gradient=0.0, nebula=0.0)
    height, width = scene.light.shape[1:]
    fall = 1 - 0.3 * np.linspace(-1, 1, width) ** 2 * np.ones((height, 1))
    dimmed = scene.picture.assign(
        signal=(scene.picture.signal * fall).astype("float32"),
        variance=(scene.picture.variance * fall**2).astype("float32"),
    )
    model = background_model(dimmed, degree=2)
    after = remove_background(dimmed, model, mode="divide")
    sky = measure_sky(after)["level"].values
    assert np.nanstd(sky[1]) / np.nanmean(sky[1]) < 0.004  # the noise of a cell
    factor = evaluate_background(model).values.mean(axis=(1, 2), keepdims=True) / evaluate_background(model).values
    np.testing.assert_allclose(after["variance"], dimmed["variance"].values * factor**2, rtol=2e-3)


def test_hand_placed_samples_are_all_that_counts(simulated):
    scene = simulated(seed=4)
    height, width = scene.light.shape[1:]
    corners = [(x, y) for x in (30, 200, width - 200, width - 30) for y in (25, height - 25)]
    corners += [(30, height // 2), (width - 30, height // 2)]
    model = background_model(scene.picture, "polynomial", degree=1, samples=corners)
    assert errors(scene, model).max() < 2.0
    assert int(model["is_sky"].sum()) <= 9 * len(corners)


def test_a_frame_full_of_nebula_warns(simulated):
    scene = simulated(seed=6, nebula=0.0)
    y, x = np.mgrid[: scene.light.shape[1], : scene.light.shape[2]]
    waves = 30 + 12 * np.sin(x / 90) + 9 * np.cos(y / 70) + 6 * np.sin((x + y) / 130)
    full = scene.picture.assign(signal=(scene.picture.signal + waves).astype("float32"))
    model = background_model(full)
    assert any("empty sky" in warning for warning in model.attrs["warnings"])
    mesh = background_model(full, "mesh")  # no mesh has sky enough: the polynomial, and a word about it
    assert any("the polynomial is all" in warning for warning in mesh.attrs["warnings"])
    np.testing.assert_allclose(mesh["background"], model["background"])


def test_the_same_picture_gives_the_same_bits(scene):
    first, second = (background_model(scene.picture, "rbf")["background"].values for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_without_variance_and_without_stars():
    rng = np.random.default_rng(1)
    x = np.linspace(0, 1, 300)
    picture = make_picture(rng.normal(100 + 20 * x, 3, (200, 300)))
    model = background_model(picture)
    found = evaluate_background(model).values[0]
    assert np.ptp(found - (100 + 20 * x)) < 0.02 * 20


def test_noise_free_data_and_missing_pixels():
    x = np.linspace(0, 1, 300, dtype="float32")
    signal = np.tile(100 + 20 * x, (200, 1))
    signal[:30] = np.nan
    signal[100, 100:140] = np.nan
    model = background_model(make_picture(signal))
    np.testing.assert_allclose(evaluate_background(model).values[0][50], 100 + 20 * x, atol=0.005 * 20)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: background_model(p, "wavelets"), "choose polynomial"),
        (lambda p: background_model(p, degree=7), "degree"),
        (lambda p: background_model(p, samples=[(1, 2), (3, 4)]), "at least three"),
        (lambda p: background_model(p, samples=[(1, 2), (3, 4), (1e6, 4)]), "outside the picture"),
        (lambda p: background_model(p, "mesh", box=1000), "mesh of 1000"),
        (lambda p: remove_background(p.isel(x=slice(0, 100)), background_model(p)), "after cropping"),
        (lambda p: remove_background(p, background_model(p), mode="add"), "'add'"),
    ],
)
def test_mistakes_are_named(scene, call, words):
    with pytest.raises(WorkbenchError, match=words):
        call(scene.picture)


def test_a_sky_below_zero_cannot_be_divided_by(scene):
    low = scene.picture.assign(signal=scene.picture.signal - 1000)
    with pytest.raises(WorkbenchError, match="cannot be divided by"):
        remove_background(low, background_model(low), mode="divide")
