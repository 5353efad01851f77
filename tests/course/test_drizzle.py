"""Notebook 11's drizzle: stars of red and blue come out narrower, green ones a little, noise of neighbours alike."""

import course


def test_drizzled_stars_are_narrower_and_their_pixels_noise_is_alike():
    drizzled = course.stack_drizzled()
    assert drizzled.fine.shape[1:] == tuple(2 * side for side in drizzled.plain.shape[1:])
    wide, narrow, before, after = (drizzled.table[name] for name in drizzled.table)
    gained = 1 - narrow / wide
    assert (gained[["R", "B"]] > 0.12).all()
    assert gained["G"] > 0
    assert (narrow > 1.745).all()  # such a star on the camera's own pixels
    assert (after < 0.6).all()
    assert after["G"] < before["G"]
