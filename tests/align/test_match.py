"""Star patterns found again under every shift, turn and loss; strangers refused."""

import numpy as np
import pytest
import xarray as xr

from workbench.align import NoMatchError, match_stars

WIDTH, HEIGHT = 4928.0, 3264.0


def catalogue(x, y, error=0.05):
    errors = ("star", np.full(x.size, error))
    return xr.Dataset({"x": ("star", x), "y": ("star", y), "x_error": errors, "y_error": errors})


def sky(seed, count):
    rng = np.random.default_rng(seed)
    return rng, rng.uniform(0, WIDTH, count), rng.uniform(0, HEIGHT, count)


def moved(x, y, degrees, shift=(0.0, 0.0), scale=1.0):
    c, s = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    dx, dy = x - WIDTH / 2, y - HEIGHT / 2
    return WIDTH / 2 + shift[0] + c * dx - s * dy, HEIGHT / 2 + shift[1] + s * dx + c * dy


def worst_error(transform, degrees, shift, scale=1.0):
    x, y = np.meshgrid(np.linspace(0, WIDTH, 9), np.linspace(0, HEIGHT, 7))
    got, wanted = transform.apply(x, y), moved(x, y, degrees, shift, scale)
    return float(np.hypot(got[0] - wanted[0], got[1] - wanted[1]).max())


@pytest.mark.parametrize("count", [8, 12, 30, 300, 3000, 50_000])
def test_from_eight_stars_to_fifty_thousand(count):
    rng, x, y = sky(count, count)
    shift = (37.3, -21.8)
    u, v = moved(x, y, 0.7, shift)
    u, v = u + rng.normal(0, 0.05, count), v + rng.normal(0, 0.05, count)
    match = match_stars(catalogue(x, y), catalogue(u, v))
    assert worst_error(match.transform, 0.7, shift) < 0.5
    assert np.array_equal(match.reference_index, match.frame_index)


@pytest.mark.parametrize("degrees", [-180.0, -93.0, -30.0, 12.0, 45.0, 90.0, 179.6])
def test_any_rotation_with_lost_and_false_stars(degrees):
    rng, x, y = sky(11, 120)
    shift = (-150.0, 220.0)
    u, v = moved(x, y, degrees, shift, 1.003)
    keep = np.flatnonzero(rng.random(120) > 0.3)
    u = np.concatenate([u[keep], rng.uniform(0, WIDTH, 30)]) + rng.normal(0, 0.1, keep.size + 30)
    v = np.concatenate([v[keep], rng.uniform(0, HEIGHT, 30)]) + rng.normal(0, 0.1, keep.size + 30)
    rank = np.argsort(np.concatenate([keep, rng.uniform(0, 120, 30)]), kind="stable")
    match = match_stars(catalogue(x, y, 0.1), catalogue(u[rank], v[rank], 0.1))
    assert worst_error(match.transform, degrees, shift, 1.003) < 0.3
    assert abs((match.transform.rotation - degrees + 180) % 360 - 180) < 0.01


def test_little_overlap():
    _, x, y = sky(5, 400)
    u, v = x - 0.6 * WIDTH, y
    seen = (u > 0) & (u < WIDTH)
    match = match_stars(catalogue(x, y), catalogue(u[seen], v[seen]))
    assert match.transform.apply(WIDTH, 100.0)[0] == pytest.approx(0.4 * WIDTH, abs=0.1)


def test_a_wide_fields_distortion_is_taken_up():
    rng, x, y = sky(6, 1500)

    def lens(x, y, k):
        dx, dy = x - WIDTH / 2, y - HEIGHT / 2
        factor = 1 + k * (dx**2 + dy**2) / (WIDTH / 2) ** 2
        return WIDTH / 2 + dx * factor, HEIGHT / 2 + dy * factor

    u, v = moved(x, y, 3.0, (120.0, 80.0))
    (x0, y0), (x1, y1) = lens(x, y, 0.01), lens(u, v, 0.01)
    x1, y1 = x1 + rng.normal(0, 0.05, x.size), y1 + rng.normal(0, 0.05, x.size)
    match = match_stars(catalogue(x0, y0), catalogue(x1, y1))
    assert match.transform.kind in ("quadratic", "cubic")
    assert match.residuals.attrs["rms"] < 0.08
    got = match.transform.apply(x0, y0)
    true = lens(u, v, 0.01)
    assert np.sqrt(np.mean((got[0] - true[0]) ** 2 + (got[1] - true[1]) ** 2)) < 0.03


def test_the_same_input_gives_the_same_bits():
    rng, x, y = sky(7, 200)
    u, v = moved(x, y, 1.0, (5, 5))
    first, second = (match_stars(catalogue(x, y), catalogue(u, v)) for _ in range(2))
    assert np.array_equal(first.transform.coefficients, second.transform.coefficients)
    assert first.residuals.identical(second.residuals)
    assert rng is not None


@pytest.mark.parametrize("count", [8, 40, 300])
def test_strangers_are_refused(count):
    for seed in range(1 if count > 100 else 3):
        _, x, y = sky(seed, count)
        _, u, v = sky(seed + 100, count)
        with pytest.raises(NoMatchError, match="no star pattern"):
            match_stars(catalogue(x, y), catalogue(u, v))


def test_too_few_stars_are_named():
    _, x, y = sky(1, 2)
    with pytest.raises(NoMatchError, match="2 stars"):
        match_stars(catalogue(x, y), catalogue(x, y))


def test_three_stars_are_enough_for_a_shift():
    _, x, y = sky(4, 3)
    match = match_stars(catalogue(x, y), catalogue(x + 31.5, y - 8.25))
    assert match.transform.kind == "shift"
    assert match.transform.apply(100.0, 100.0) == pytest.approx((131.5, 91.75), abs=1e-6)
    assert 0 < match.chance < 1e-5
    found = match_stars(catalogue(x, y), catalogue(np.append(x, 700.0) + 31.5, np.append(y, 90.0) - 8.25))
    assert found.frame_index.tolist() == [0, 1, 2]


@pytest.mark.parametrize("degrees", [3.0, 90.0, 180.0])
def test_four_stars_are_enough_for_a_rotation(degrees):
    rng, x, y = sky(9, 4)
    u, v = moved(x, y, degrees, (12.0, -40.0))
    u, v = np.append(u, rng.uniform(0, WIDTH, 2)), np.append(v, rng.uniform(0, HEIGHT, 2))  # two strangers
    match = match_stars(catalogue(x, y), catalogue(u, v))
    assert match.reference_index.size == 4
    assert worst_error(match.transform, degrees, (12.0, -40.0)) < 0.01
    assert match.chance < 1e-5


def test_few_stars_that_chance_would_match_are_refused():
    rng = np.random.default_rng(2)
    x, y = rng.uniform(0, 40, (2, 3))  # three stars close together: strangers lie as well
    with pytest.raises(NoMatchError, match=r"no star pattern .* by chance once in \d+ tries"):
        match_stars(catalogue(x, y), catalogue(x + 3, y + 1))
    for seed in range(30):
        count = 3 + seed % 6
        (_, x, y), (_, u, v) = sky(seed, count), sky(seed + 100, count)
        with pytest.raises(NoMatchError, match="no star pattern"):
            match_stars(catalogue(x, y), catalogue(u, v))
