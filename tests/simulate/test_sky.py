"""The virtual sky is the ruler of everything behind it, so it is held against closed formulas."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import erf

from workbench.core.errors import WorkbenchError
from workbench.core.mosaic import channel_index
from workbench.simulate import sky as module
from workbench.simulate.night import make_night
from workbench.simulate.sky import (
    Trail,
    View,
    cosmic_rays,
    dust,
    make_sky,
    picture,
    pointing,
    render,
    replace_stars,
    star_table,
    to_pixels,
    to_sky,
    trail_mask,
)

DARK = View(background=(0.0, 0.0, 0.0), fwhm=2.5)


@pytest.fixture(scope="module")
def sky():
    return make_sky((300, 420), stars=60, step=16.0, seed=3)


def one_star(shape=(121, 141), x=70.3, y=60.8, flux=5000.0):
    return replace_stars(make_sky(shape, stars=0), [x], [y], [flux])


def test_a_gaussian_star_is_the_exact_integral_over_each_pixel():
    star = one_star()
    sigma = 2.5 / np.sqrt(8 * np.log(2))
    edge_x, edge_y = (np.arange(n + 1) - 0.5 for n in (141, 121))
    cumulative_x, cumulative_y = (
        0.5 * erf((edge - centre) / sigma / np.sqrt(2)) for edge, centre in ((edge_x, 70.3), (edge_y, 60.8))
    )
    exact = 5000 * np.outer(np.diff(cumulative_y), np.diff(cumulative_x))
    got = render(star, replace(DARK, beta=np.inf), "G")
    assert np.abs(got - exact).max() < 5e-4  # the stamp ends where a pixel would get less than 0.01 e-/60 s


@pytest.mark.parametrize(("beta", "elongation"), [(2.5, 1.0), (3.5, 1.0), (3.5, 1.4), (np.inf, 1.3)])
def test_a_star_keeps_its_flux_and_its_place(beta, elongation):
    view = replace(DARK, beta=beta, elongation=elongation, angle=0.6)
    got = render(one_star(shape=(401, 401), x=200.3, y=199.6), view, "G").astype(float)
    y, x = np.mgrid[:401, :401]
    assert got.sum() == pytest.approx(5000, rel=2e-3)
    near = np.hypot(x - 200.3, y - 199.6) < 60
    assert (got * x)[near].sum() / got[near].sum() == pytest.approx(200.3, abs=2e-3)
    assert (got * y)[near].sum() / got[near].sum() == pytest.approx(199.6, abs=2e-3)


def test_fwhm_is_that_of_the_profile_before_pixels_integrate_it():
    wide = replace(DARK, fwhm=30.0, elongation=1.5, beta=3.5)  # so wide that a pixel is a point of the profile
    got = render(one_star(shape=(201, 201), x=100, y=100), wide, "G")
    assert got[115, 100] / got[100, 100] == pytest.approx(0.5, abs=2e-3)  # the short axis
    assert got[100, 122] / got[100, 100] == pytest.approx((1 + (44 / 45) ** 2 * (2 ** (1 / 3.5) - 1)) ** -3.5, abs=2e-3)


def test_every_photosite_sees_the_colour_of_its_filter(sky):
    view = make_night(sky, 2, trails=1, seed=5)[1]
    planes = picture(sky, view, trails=True).values
    for pattern in ("RGGB", "GBRG"):
        mosaic = render(sky, view, pattern)
        colour = np.array([0, 1, 1, 2])[channel_index(pattern)]
        expected = np.take_along_axis(planes, np.tile(colour, (150, 210))[None], axis=0)[0]
        assert np.array_equal(mosaic, expected)
    assert np.array_equal(render(sky, view, "mono"), planes[1])


def test_the_same_bits_whatever_the_bands_and_threads(sky, monkeypatch):
    view = make_night(sky, 2, trails=2, seed=5)[1]
    first = render(sky, view, threads=1)
    monkeypatch.setattr(module, "BAND", 37)
    assert np.array_equal(render(sky, view, threads=3), first)
    assert np.array_equal(make_sky((300, 420), stars=60, step=16.0, seed=3).nebula, sky.nebula)
    assert not np.array_equal(make_sky((300, 420), stars=60, step=16.0, seed=4).x, sky.x)


def test_a_shifted_view_sees_the_same_scene_shifted(sky):
    still = replace(DARK, background=(1.0, 2.0, 3.0))
    moved = replace(still, matrix=pointing(sky.shape, shift=(7, -5)))
    a, b = render(sky, still, "R"), render(sky, moved, "R")
    np.testing.assert_allclose(b[:-5, 7:], a[5:, :-7], atol=1e-4)


def test_a_meridian_flip_turns_the_picture_upside_down(sky):
    flipped = replace(DARK, matrix=pointing(sky.shape, degrees=180))
    np.testing.assert_allclose(render(sky, flipped, "B")[::-1, ::-1], render(sky, DARK, "B"), atol=1e-4)


@pytest.mark.parametrize("distortion", [0.0, -0.03, 0.02])
def test_to_sky_is_the_inverse_of_to_pixels(sky, distortion):
    view = View(matrix=pointing(sky.shape, shift=(9, 4), degrees=33, scale=1.01), distortion=distortion)
    x, y = to_sky(sky, view, *to_pixels(sky, view, sky.x, sky.y))
    np.testing.assert_allclose(np.stack([x, y]), np.stack([sky.x, sky.y]), atol=1e-8)


def test_stars_fall_where_the_transform_says_through_rotation_and_distortion():
    star = one_star(shape=(300, 400), x=330, y=40)
    view = replace(DARK, matrix=pointing((300, 400), shift=(3.3, -2.1), degrees=25), distortion=-0.02, beta=np.inf)
    px, py = to_pixels(star, view, star.x, star.y)
    got = render(star, view, "G").astype(float)
    y, x = np.mgrid[:300, :400]
    assert (got * x).sum() / got.sum() == pytest.approx(px[0], abs=1e-3)
    assert (got * y).sum() / got.sum() == pytest.approx(py[0], abs=1e-3)


def test_transparency_dims_the_sky_but_not_the_background(sky):
    view = replace(DARK, background=(1.0, 2.0, 3.0))
    full, half = render(sky, view, "G"), render(sky, replace(view, transparency=0.5), "G")
    np.testing.assert_allclose(half - 2.0, (full - 2.0) / 2, atol=2e-3)
    assert np.array_equal(star_table(sky, replace(view, transparency=0.5))["flux"], star_table(sky, view)["flux"] / 2)


def test_clouds_dim_the_stars_and_brighten_the_background():
    star = one_star()
    veiled = replace(DARK, clouds=0.6, background=(1.0, 1.0, 1.0), seed=8)
    plain = render(star, replace(veiled, clouds=0.0), "G").astype(float) - 1
    empty = replace_stars(star)
    dimmed = (render(star, veiled, "G") - render(empty, veiled, "G")).astype(float)
    assert 0.35 < dimmed.sum() / plain.sum() < 1.0
    glow = render(empty, veiled, "G")
    assert glow.min() >= 1.0
    assert 0.05 < np.ptp(glow) <= 0.31


def test_gradient_and_curvature_are_what_they_say():
    empty = make_sky((101, 201), stars=0, nebula=0.0)
    view = View(background=(2.0, 2.0, 2.0), gradient=np.array([[0.1, 0.2]] * 3))
    rate = render(empty, view, "G")
    assert rate[50, 100] == pytest.approx(2.0, abs=1e-6)
    assert rate[50, -1] - rate[50, 0] == pytest.approx(2 * 0.2 * 200 / 201, rel=1e-5)
    assert rate[-1, 100] - rate[0, 100] == pytest.approx(2 * 0.1 * 100 / 101, rel=1e-5)
    bowl = render(empty, View(background=(2.0, 2.0, 2.0), curvature=(0.3,) * 3), "G")
    assert bowl[0, 0] == pytest.approx(2.0 * 1.3, rel=1e-6)


def test_a_trail_leaves_the_same_electrons_whatever_the_exposure():
    empty = make_sky((80, 120), stars=0, nebula=0.0)
    trail = Trail(-10, 40, 200, 40, 3.0, (100.0, 200.0, 300.0))
    for exposure in (30.0, 300.0):
        view = View(exposure=exposure, background=(0, 0, 0), trails=(trail,))
        electrons = render(empty, view, "B") * exposure
        assert electrons[40, 60] == pytest.approx(300, rel=1e-5)
    profile = electrons[:, 60].astype(float)
    width = np.sqrt((profile * (np.arange(80) - 40.0) ** 2).sum() / profile.sum())
    assert width == pytest.approx(np.sqrt((3 / 2.3548) ** 2 + 1 / 12), rel=1e-3)
    mask = trail_mask(empty, view)
    assert mask[36:45, 60].all()
    assert not mask[30, 60]
    assert np.array_equal(render(empty, view, trails=False), np.zeros((80, 120), np.float32))


def test_cosmic_rays_are_seeded_lie_inside_and_are_short_and_strong(sky):
    view = View(cosmic_rays=50, seed=11)
    rows, columns, electrons = cosmic_rays(sky, view)
    again = cosmic_rays(sky, view)
    assert all(np.array_equal(a, b) for a, b in zip((rows, columns, electrons), again, strict=True))
    assert rows.min() >= 0
    assert rows.max() < 300
    assert columns.max() < 420
    assert len({*zip(rows.tolist(), columns.tolist(), strict=True)}) == rows.size
    assert 50 <= rows.size < 50 * 30
    assert np.median(electrons) > 100
    assert cosmic_rays(sky, View())[0].size == 0


def test_dust_only_takes_light_away():
    through = dust((500, 700), motes=6, depth=0.1, seed=2)
    assert through.max() <= 1.0
    assert 0.7 < through.min() < 0.99
    assert np.mean(through == 1.0) > 0.5


def test_a_night_keeps_its_promises(sky):
    night = make_night(sky, 200, fwhm=3.0, dither=10, rotation=0.5, flip_after=150, seed=9)
    assert np.array_equal(night[0].matrix, np.eye(3))
    shifts = np.array([(v.matrix @ [209.5, 149.5, 1.0])[:2] - [209.5, 149.5] for v in night[1:]])
    assert np.std(shifts) == pytest.approx(10, rel=0.15)
    assert np.median([v.fwhm for v in night]) == pytest.approx(3.0, rel=0.03)
    assert all(0 < v.transparency <= 1 for v in night)
    turns = np.degrees([np.arctan2(v.matrix[1, 0], v.matrix[0, 0]) for v in night])
    assert np.abs(turns[:150]).max() <= 0.5
    assert np.abs(np.abs(turns[150:]) - 180).max() <= 0.5


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: make_sky((2, 2)),
        lambda: render(make_sky((20, 20), stars=1), View(), "XTRANS"),
        lambda: render(make_sky((20, 20), stars=1), View(fwhm=0)),
        lambda: render(make_sky((20, 20), stars=1), View(clouds=2)),
        lambda: render(make_sky((20, 20), stars=1), View(trails=(Trail(1, 1, 1, 1, 2, (1, 1, 1)),))),
    ],
)
def test_nonsense_is_refused_with_a_word(wrong):
    with pytest.raises(WorkbenchError):
        wrong()
