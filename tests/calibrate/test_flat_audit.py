"""The audit of a flat finds what was put into it."""

import re
from dataclasses import replace

import numpy as np
import pytest

from workbench.calibrate import SensorNoise, audit_flat, calibrate, make_masters
from workbench.core.cube import XTRANS, channels_of, make_cube
from workbench.core.errors import WorkbenchError
from workbench.simulate import d7000, dust, expose, render
from workbench.simulate.night import make_night
from workbench.simulate.sky import View, make_sky, replace_stars

ISO, SHAPE, PRNU = 200, (576, 800), 0.008


def shot(pattern, shape):
    """Masters and calibrated lights of an empty sky with stars, under dust and vignetting."""
    camera = d7000(seed=5, shape=shape, prnu=PRNU, cfa_pattern=pattern)
    through = dust(shape, motes=4, depth=0.2, seed=6)
    common = {"cfa_pattern": pattern, "camera": camera.camera, "black_level": 600, "white_level": 16383, "iso": ISO}

    def cube(kind, count, seconds, rate, series):
        settings = {"iso": ISO, "exposure": seconds, "temperature": 0.0}
        rates = [rate(n) if callable(rate) else rate for n in range(count)]
        frames = [expose(camera, light, seed=(series, n), **settings) for n, light in enumerate(rates)]
        names = [f"{kind}/{n}" for n in range(count)]
        return make_cube(frames, kind=kind, exposure=seconds, temperature=0.0, filename=names, **common)

    lamp = camera.spread(np.array([0.7, *[1.0] * (len(channels_of(pattern)) - 2), 0.6]) * 8000 / 0.02)
    sky = make_sky(shape, stars=60, seed=7)
    sky = replace_stars(sky, sky.x, sky.y, sky.flux)
    views = make_night(sky, 4, exposure=200.0, background=(3.0, 4.0, 4.0), gradient=0.1, seed=8)
    noise = SensorNoise(camera.gain(ISO), camera.read_noise(ISO), iso=ISO)
    light = cube("light", 4, 200.0, lambda n: render(sky, views[n], pattern) * through, 1)
    flats = cube("flat", 16, 0.02, lamp * through, 2)
    bias = cube("bias", 16, 0.0, 0.0, 3)
    dark = cube("dark", 16, 200.0, 0.0, 4)
    masters = make_masters(light, bias=bias, dark=dark, flat=flats, noise=noise, progress=False)
    return camera, through, light, masters


@pytest.fixture(scope="module")
def night():
    return shot("RGGB", SHAPE)


@pytest.fixture(scope="module")
def audit(night):
    _, _, light, masters = night
    return audit_flat(masters.masters[0].flat, calibrate(light, masters), progress=False)


def relit(masters, change, power=1.0):
    """The masters with another flat in their place; its noise is `power` times that of the old."""
    one = masters.masters[0]
    flat = one.flat.copy(deep=True)
    flat["variance"].values[:] *= power**2
    flat["signal"].values[:] = change(flat["signal"].values)
    return replace(masters, masters=(replace(one, flat=flat),)), flat


def test_the_vignetting_is_the_cameras(night, audit):
    camera = night[0]
    reach = 4 * float(audit["centre_error"].max())
    assert reach < 4
    assert audit["centre_y"].values == pytest.approx(np.full(4, (SHAPE[0] - 1) / 2), abs=reach)
    assert audit["centre_x"].values == pytest.approx(np.full(4, (SHAPE[1] - 1) / 2), abs=reach)
    corner_blocks = camera.illumination()[16, 16]
    assert audit["falloff"].values == pytest.approx(np.full(4, 1 - corner_blocks), abs=0.006)
    assert np.abs(audit["tint"].values).max() < 0.004


def test_an_off_centre_lens_is_seen(night):
    y, x = np.indices(SHAPE)
    shape = 1 - 0.3 * ((y - 320) ** 2 + (x - 350) ** 2) / 490.0**2
    _, flat = relit(night[3], lambda _: shape / shape.mean())
    got = audit_flat(flat)
    assert got["centre_y"].values == pytest.approx(np.full(4, 320), abs=1.0)
    assert got["centre_x"].values == pytest.approx(np.full(4, 350), abs=1.0)


def test_prnu_is_the_cameras_with_the_flats_noise_taken_out(audit):
    assert (audit["flat_noise"] > 0.2 * PRNU).all()
    error = np.abs(audit["prnu"].values - PRNU)
    assert (error < 5 * audit["prnu_error"].values + 0.01 * PRNU).all()


def test_every_deep_shadow_of_dust_is_found_where_it_is(night, audit):
    through = night[1]
    found = [(round(y), round(x)) for y, x in zip(audit["dust_y"].values, audit["dust_x"].values, strict=True)]
    assert 1 <= len(found) <= 4
    assert all(through[y, x] < 0.995 for y, x in found)
    deepest = np.unravel_index(through.argmin(), SHAPE)
    radius = audit["dust_radius"].values
    distances = [np.hypot(y - deepest[0], x - deepest[1]) for y, x in found]
    assert (np.array(distances) < 1.5 * radius).any()
    cells = through.reshape(SHAPE[0] // 8, 8, SHAPE[1] // 8, 8).mean(axis=(1, 3))
    assert float(audit["dust_depth"].max()) == pytest.approx(1 - cells.min(), rel=0.1)


def test_a_good_flat_flattens(audit):
    assert audit.attrs["verdict"] == "flattens"
    assert (np.abs(audit["correction"]) < 4 * audit["correction_error"]).all()
    assert np.abs(audit["smooth_correction"].values).max() < 0.02
    assert np.abs(audit["dust_left"].values).max() < 0.15
    assert float(audit["background"].std()) < 0.5 * float(audit["raw_background"].std())
    assert any("response is taken out" in word for word in audit.attrs["findings"])


@pytest.mark.parametrize(
    ("power", "word"),
    [(0.8, "under-corrected.*left in the flats"), (1.25, "over-corrected")],  # 0.8: as an offset left in the flats does
)
def test_a_wrong_flat_fails_and_the_exponent_says_by_how_much(night, power, word):
    masters, flat = relit(night[3], lambda values: values**power, power)
    k = 1 / power - 1
    got = audit_flat(flat, calibrate(night[2], masters), progress=False)
    assert got.attrs["verdict"] == "fails"
    assert any(re.search(word, said) for said in got.attrs["findings"])
    assert float(got["smooth_correction"].mean()) == pytest.approx(k, abs=0.03)
    assert float(got["correction"].mean()) == pytest.approx(k, abs=0.05)


def test_dust_that_moved_is_noticed(night):
    masters, flat = relit(night[3], lambda values: values / night[1])
    with_dust_elsewhere = np.roll(night[1], (60, 150), axis=(0, 1))
    masters, flat = relit(masters, lambda values: values * with_dust_elsewhere)
    got = audit_flat(flat, calibrate(night[2], masters), progress=False)
    assert got.attrs["verdict"] == "fails"
    assert any("dust moved" in word for word in got.attrs["findings"])


def test_light_in_the_flats_alone_is_named_and_an_uneven_flat_that_is_right_is_not(night):
    y, x = np.indices(SHAPE)
    leak = 1 + 0.12 * np.exp(-((y - 100) ** 2 + (x - 700) ** 2) / 2 / 150**2)
    masters, flat = relit(night[3], lambda values: values * leak)
    got = audit_flat(flat, calibrate(night[2], masters), progress=False)
    (failure,) = got.attrs["failures"]
    assert "light came into the flats" in failure
    assert got["shape_left"].values == pytest.approx(np.full(4, -1), abs=0.25)  # the lens takes a part
    shaded = night[2].copy(data=((night[2].values - 600.0) * leak + 600).round().astype("uint16"))
    assert audit_flat(flat, calibrate(shaded, masters), progress=False).attrs["failures"] == []


def test_a_nebula_is_worth_a_look_and_not_a_failure(night):
    camera, through, light, masters = night
    sky = make_sky(SHAPE, stars=0, nebula=1.0, seed=9)
    view = View(exposure=200.0, background=(3.0, 4.0, 4.0))
    rate = render(sky, view) * through
    frames = [expose(camera, rate, iso=ISO, exposure=200.0, temperature=0.0, seed=(9, n)) for n in (0, 1)]
    clouded = light.isel(frame=[0, 1]).copy(data=np.stack(frames))
    got = audit_flat(masters.masters[0].flat, calibrate(clouded, masters), progress=False)
    assert got.attrs["verdict"] == "look"
    assert any("a nebula or moonlight" in word for word in got.attrs["findings"])


def test_few_flats_are_told_how_many_would_be_enough(night, audit):
    noise = audit["flat_noise"].values
    electrons = audit["sky"].values * 4
    expected = np.ceil(16 * noise**2 * electrons / (1.05**2 - 1))
    assert audit["enough"].values == pytest.approx(expected)
    assert any("16 flats are enough" in word for word in audit.attrs["findings"])


def test_how_many_flats_are_enough_depends_on_the_night_not_on_the_lights_looked_at(night, audit):
    _, _, light, masters = night
    lights = calibrate(light.isel(frame=[0, 1]), masters)
    got = audit_flat(masters.masters[0].flat, lights, night=4, progress=False)
    assert got["enough"].values == pytest.approx(audit["enough"].values, abs=1)


def test_it_refuses_what_it_cannot_audit(night):
    _, _, light, masters = night
    flat = masters.masters[0].flat
    with pytest.raises(WorkbenchError, match="needs a master flat, not a master of kind dark"):
        audit_flat(masters.masters[0].dark)
    with pytest.raises(WorkbenchError, match="too small"):
        audit_flat(flat.isel(y=slice(0, 64)))
    with pytest.raises(WorkbenchError, match="size or mosaic differs"):
        audit_flat(flat, calibrate(light, masters).isel(y=slice(0, 100)))
    missing = flat.copy(deep=True)
    missing["signal"].values[:] = np.nan
    with pytest.raises(WorkbenchError, match="saturated or missing"):
        audit_flat(missing)


def test_x_trans_is_audited_by_colour():
    _, through, light, masters = shot(XTRANS, (384, 480))
    good = audit_flat(masters.masters[0].flat, calibrate(light, masters), progress=False)
    assert good.channel.values.tolist() == ["R", "G", "B"]
    assert good.attrs["failures"] == []
    assert (np.abs(good["correction"]) < 4 * good["correction_error"]).all()
    assert (np.abs(good["prnu"].values - PRNU) < 5 * good["prnu_error"].values + 0.01 * PRNU).all()
    assert good["centre_y"].values == pytest.approx(np.full(3, 191.5), abs=4 * float(good["centre_error"].max()))
    deepest = np.unravel_index(through.argmin(), through.shape)
    away = np.hypot(good["dust_y"] - deepest[0], good["dust_x"] - deepest[1])
    assert (away < 1.5 * good["dust_radius"]).any()
    wrong, flat = relit(masters, lambda values: values**0.8, 0.8)
    got = audit_flat(flat, calibrate(light, wrong), progress=False)
    assert got.attrs["verdict"] == "fails"
    assert float(got["correction"].mean()) == pytest.approx(0.25, abs=0.05)
