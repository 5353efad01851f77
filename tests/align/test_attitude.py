"""The search for an attitude: the triangles' sides are angles on the sky, and a known attitude is proposed."""

import numpy as np

from workbench.align import attitude
from workbench.stars.catalogue import unit_vectors


def test_sides_of_triangles_are_angles_the_longest_first():
    corners = unit_vectors([0.0, 1.0, 0.0], [0.0, 0.0, 2.0])
    triples, sides = attitude._triangles(corners, np.pi)
    np.testing.assert_allclose(np.degrees(sides[0, 1:]), [2.0, 1.0], atol=1e-9)
    assert triples[0].tolist() == [0, 1, 2]  # opposite the hypotenuse, opposite the long leg, opposite the short one


def test_a_known_attitude_is_found_among_strangers():
    rng = np.random.default_rng(4)
    focal, shape = 5000.0, (1000, 1500)
    pixels = (rng.uniform(-0.5, 0.5, (20, 2)) * shape[::-1]).round(2)
    rays = np.concatenate([pixels / focal, np.ones((20, 1))], axis=1)
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    sky = np.concatenate([rays @ turn, unit_vectors(rng.uniform(0, 360, 30), rng.uniform(-80, 80, 30))])
    magnitude = np.concatenate([np.linspace(5, 9, 20), rng.uniform(5, 9, 30)])
    lists = attitude.star_lists(pixels, magnitude[:20] - 20, focal * 1.01, sky, magnitude)
    found = attitude.search(lists, shape, focal * 1.01, 0.04, None, 2 * np.arctan(np.hypot(*shape) / 2 / focal))
    assert found.matched == 20
    assert found.chance < 1e-12
    np.testing.assert_allclose(found.turn, turn, atol=1e-4)
    assert abs(found.focal / focal - 1) < 1e-3


def test_no_point_is_matched_twice():
    from scipy.spatial import cKDTree

    one, two = attitude.nearest(cKDTree([[0.0, 0.0], [9.0, 0.0]]), np.array([[0.3, 0.0], [0.1, 0.0], [50.0, 0.0]]), 1.0)
    assert one.tolist() == [1]
    assert two.tolist() == [0]
