"""Exposures as cameras have them."""

from workbench.plan.shutter import shutter


def test_shutters():
    assert [shutter(time) for time in (1 / 8000, 1 / 128, 1 / 3, 0.8, 30, 1200)] == [
        *("1/8000 s", "1/125 s", "0.333 s", "0.8 s", "30 s", "1200 s")
    ]
