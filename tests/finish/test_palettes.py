"""Stacks through several filters make one picture: colours as the palette says, variance with them, stars in colour."""

import numpy as np
import pytest

from workbench.core.errors import WorkbenchError
from workbench.finish import compose, make_picture, parse_palette
from workbench.finish.photometry import photometry

SHAPE, SIGMA = (200, 300), 1.3
COLOURS = np.random.default_rng(5).uniform(0.6, 1.4, (24, 3))
GRID = np.stack(np.meshgrid(np.arange(30, 300, 48), np.arange(28, 200, 48)), -1).reshape(-1, 2)
PLACES = GRID + np.random.default_rng(6).uniform(-8, 8, GRID.shape)  # far enough apart to be measured each
FLUX = np.geomspace(5e3, 4e4, 24)


def stars_through(weights):
    """A picture of the stars with this much light of red, green and blue [e-]."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = np.zeros(SHAPE)
    for (px, py), flux, colour in zip(PLACES, FLUX, COLOURS, strict=True):
        image += (
            flux
            * (colour @ weights)
            * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * SIGMA**2))
            / (2 * np.pi * SIGMA**2)
        )
    return image


def stack_of(weights, *, sky=100.0, exposure=60.0, noise=3.0, seed=0, **attrs):
    image = stars_through(np.asarray(weights, float)) * exposure / 60 + sky
    variance = np.full(SHAPE, noise**2) + image / 50
    image = image + np.random.default_rng(seed).normal(0, np.sqrt(variance))
    return make_picture(image, variance, coverage=np.full(SHAPE, 5), attrs={"exposure": exposure, **attrs})


@pytest.fixture(scope="module")
def rgb():
    return {name: stack_of(np.eye(3)[place], seed=place) for place, name in enumerate("RGB")}


def test_rgb_is_the_stacks_side_by_side_with_their_variance(rgb):
    picture = compose(rgb)
    assert (picture.attrs["palette"], picture.attrs["balanced"]) == ("RGB", False)
    for place, name in enumerate("RGB"):
        np.testing.assert_array_equal(picture.signal.values[place], rgb[name].signal.values[0])
        np.testing.assert_array_equal(picture.variance.values[place], rgb[name].variance.values[0])


def test_other_exposures_are_brought_to_the_longest(rgb):
    picture = compose({**rgb, "B": stack_of([0, 0, 1], exposure=30.0, sky=50.0, seed=2)})
    assert picture.attrs["exposure"] == 60
    fluxes = photometry(picture, *PLACES.T, 2.3548 * SIGMA)["flux"].values
    expected = FLUX[:, None] * COLOURS
    np.testing.assert_allclose(np.median(fluxes / expected, axis=0), 1.0, atol=0.02)
    half = stack_of([0, 0, 1], exposure=30.0, sky=50.0, seed=2)
    np.testing.assert_allclose(picture.variance.values[2], 4 * half.variance.values[0], rtol=1e-6)


def test_luminance_lowers_the_noise_and_leaves_the_stars_their_colour(rgb):
    light = stack_of(np.ones(3), sky=300.0, noise=3.0, seed=7)  # three times the light at the noise of one
    plain, picture = compose({"L": light, **rgb}, weights={"L": 0}), compose({"L": light, **rgb})
    assert picture.attrs["palette"] == "LRGB"
    before, after = (photometry(one, *PLACES.T, 2.3548 * SIGMA)["flux"].values for one in (plain, picture))
    np.testing.assert_allclose(np.median(after / before, axis=0), 1.0, atol=0.01)
    colour = np.log(after[:, 0] / after[:, 2]) - np.log(before[:, 0] / before[:, 2])
    assert np.abs(colour[FLUX > 1e4]).max() < 0.05
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    sky = np.hypot(x[..., None] - PLACES[:, 0], y[..., None] - PLACES[:, 1]).min(-1) > 10
    for one in (plain, picture):  # the variance is that of the pixels
        scatter = one.signal.values[:, sky].var(axis=1)
        np.testing.assert_allclose(scatter / one.variance.values[:, sky].mean(axis=1), 1.0, atol=0.12)
    mean = [one.signal.values.mean(0)[sky].std() for one in (plain, picture)]
    assert mean[1] < 0.65 * mean[0]


def test_where_the_luminance_is_saturated_or_missing_the_colours_stay(rgb):
    light = stack_of(np.ones(3), sky=300.0, seed=7)
    clipped = np.zeros((1, *SHAPE), bool)
    clipped[0, 40:50, 40:50] = True
    signal = light.signal.values.copy()
    signal[0, 90:95] = np.nan
    light = light.assign(saturated=light.signal.copy(data=clipped), signal=light.signal.copy(data=signal))
    plain, picture = compose({"L": light, **rgb}, weights={"L": 0}), compose({"L": light, **rgb})
    for part in (np.s_[:, 40:50, 40:50], np.s_[:, 90:95]):
        np.testing.assert_allclose(picture.signal.values[part], plain.signal.values[part], rtol=1e-6)
        np.testing.assert_allclose(picture.variance.values[part], plain.variance.values[part], rtol=1e-6)


def test_narrow_bands_get_stars_of_one_brightness_and_then_the_weights():
    stacks = {
        "Ha 3nm": stack_of([1, 0, 0], sky=40.0),
        "oiii": stack_of([0, 0.5, 0], sky=30.0, seed=1),
        "S2": stack_of([0, 0, 0.25], sky=20.0, seed=2),
    }
    plain, weighted = compose(stacks), compose(stacks, weights={"Ha": 0.5, "SII": 1.5})
    assert plain.attrs["palette"] == weighted.attrs["palette"] == "SHO"
    assert weighted.attrs["balanced"]
    fluxes = [
        np.nanmedian(photometry(one, *PLACES.T, 2.3548 * SIGMA)["flux"].values, axis=0) for one in (plain, weighted)
    ]
    np.testing.assert_allclose(fluxes[0] / fluxes[0][1], 1.0, atol=0.1)  # red SII, green Ha, blue OIII
    np.testing.assert_allclose(fluxes[1] / fluxes[0], [1.5, 0.5, 1.0], rtol=1e-5)
    np.testing.assert_allclose(weighted.variance.values[0], 1.5**2 * plain.variance.values[0], rtol=1e-5)
    hoo = compose(stacks, "HOO")
    np.testing.assert_array_equal(hoo.signal.values[1], hoo.signal.values[2])
    assert any("Not used: SII" in line for line in hoo.attrs["history"])


def test_a_sum_has_the_variance_of_a_sum():
    stacks = {name: stack_of([1, 0, 0], seed=seed) for seed, name in enumerate(("R", "G", "B", "Ha"))}
    equal = compose(stacks, "R=R,G=G,B=Ha")
    picture = compose(stacks, "R=0.6*R+0.4*Ha, G=G, B=B")
    # the stars' brightness is the same in all: factors are close to one
    expected = 0.36 * stacks["R"].variance.values[0] + 0.16 * stacks["Ha"].variance.values[0]
    np.testing.assert_allclose(picture.variance.values[0], expected, rtol=0.05)
    assert picture.signal.shape == equal.signal.shape


@pytest.mark.parametrize(
    ("change", "palette", "weights", "message"),
    [
        ({"B": None}, "RGB", None, "the palette RGB needs B; the stacks are of R, G"),
        ({}, "SHO", None, "needs SII and Ha and OIII"),
        ({}, "purple", None, "palette 'purple' is not known"),
        ({}, "R=R,G=G", None, "is not known"),
        ({}, "RGB", {"Ha": 2.0}, "a weight of Ha is given"),
        ({"B": None}, "auto", None, "make no palette by themselves"),
        ({"B": make_picture(np.ones((3, *SHAPE)))}, "RGB", None, "the stack of B has colours of its own"),
        ({"B": make_picture(np.ones((100, 200)))}, "RGB", None, "different size"),
        ({"B": make_picture(np.ones(SHAPE), attrs={"units": "adu"})}, "RGB", None, "different units"),
    ],
)
def test_refusals_in_words(rgb, change, palette, weights, message):
    stacks = {name: stack for name, stack in {**rgb, **change}.items() if stack is not None}
    with pytest.raises(WorkbenchError, match=message):
        compose(stacks, palette, weights)


def test_other_grids_are_refused_by_their_header_or_their_stars(rgb):
    named = {name: stack.assign_attrs(reference=f"light_{name}") for name, stack in rgb.items()}
    with pytest.raises(WorkbenchError, match="different pixel grid"):
        compose(named)
    moved = {**rgb, "B": make_picture(np.roll(rgb["B"].signal.values, 9, axis=2), rgb["B"].variance.values)}
    with pytest.raises(WorkbenchError, match="do not show the same stars"):
        compose(moved)


def test_palettes_of_letters_and_of_sums():
    assert parse_palette("lsho")["L"] == {"L": 1.0}
    assert parse_palette("L=L, R=0.7*SII + 0.3*Ha, G=Ha, B=o3")["B"] == {"OIII": 1.0}
