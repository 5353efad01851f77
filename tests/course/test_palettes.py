"""Narrow-band stacks of a virtual camera, and what a palette makes of them."""

import course
import numpy as np
import pytest
from course import palettes

from workbench.core.errors import WorkbenchError
from workbench.finish import parse_palette
from workbench.simulate.narrowband import BANDS


@pytest.fixture(scope="module")
def steps():
    return palettes.PaletteSteps(course.narrowband_stacks())


def test_a_weight_scales_a_colour_and_its_noise_alike(steps):
    bands = list(steps.stacks)
    assert sorted(bands) == sorted(BANDS)
    plain = steps.compose("SHO", *(1.0 for _ in bands))
    half = steps.compose("SHO", *(0.5 if name == "Ha" else 1.0 for name in bands))
    ratio = (half["signal"] / plain["signal"]).median(("y", "x")).values
    np.testing.assert_allclose(ratio, [1.0, 0.5, 1.0], rtol=1e-5)
    noise = (half["variance"] / plain["variance"]).median(("y", "x")).values
    np.testing.assert_allclose(noise, [1.0, 0.25, 1.0], rtol=1e-5)


@pytest.mark.parametrize("palette", list(palettes.PALETTES))
def test_every_palette_is_shown_with_its_noise(steps, palette):
    weights = [1.0] * len(steps.stacks)
    assert (steps.divider.style + steps.view(palette, *weights)).count("data:image/jpeg") == 2
    assert f"Composed as {palettes.PALETTES[palette]}" in steps.text(palette, *weights)
    assert "e⁻" in steps.text(palette, *weights)


def test_the_bands_are_ordinary_palettes():
    for text in palettes.PALETTES.values():
        assert {name for terms in parse_palette(text).values() for name in terms} <= set(BANDS)
    with pytest.raises(WorkbenchError):
        parse_palette("R=2")
