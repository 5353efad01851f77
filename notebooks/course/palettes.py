"""Notebook 12: narrow-band stacks of a virtual cooled camera, and the colours that a palette makes of them, live."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import panel as pn
import xarray as xr

from workbench import finish
from workbench.app.live_charts import live_text
from workbench.app.pictures import Divider, pixels
from workbench.pipelines.stacking import stack_folder
from workbench.simulate import sample_folder

PALETTES = {
    "SHO": "SHO",
    "HOO": "HOO",
    "sums": "R=0.6*SII+0.4*Ha, G=0.3*Ha+0.7*OIII, B=OIII",
}


@cache
def narrowband_stacks() -> dict[str, xr.Dataset]:
    """Return linear stacks through SII, Ha and OIII on one pixel grid, by the filter's name.

    The level of the darkest twentieth is subtracted from each.
    """
    with tempfile.TemporaryDirectory() as aside:
        night = sample_folder("cooled", progress=False)
        done = stack_folder(night, Path(aside) / "night.fits", progress=False)
        stacks = {name: finish.read_picture(one.path).load() for name, one in done.stacks.items()}
    whole = np.logical_and.reduce([np.isfinite(stack["signal"].values[0]) for stack in stacks.values()])
    rows, columns = (np.flatnonzero(whole.mean(axis) > 0.5) for axis in (1, 0))
    part = {"y": slice(rows[0], rows[-1] + 1), "x": slice(columns[0], columns[-1] + 1)}
    filled = {name: finish.fill_holes(stack.isel(part)) for name, stack in stacks.items()}
    dark = {name: np.nanpercentile(stack["signal"], 5) for name, stack in filled.items()}
    return {name: stack.assign(signal=stack["signal"] - dark[name]) for name, stack in filled.items()}


class PaletteSteps:
    """Stacks of several filters as a picture, by palette and weights."""

    def __init__(self, stacks: Mapping[str, xr.Dataset]) -> None:
        self.stacks = stacks
        self.divider = Divider(pixels(self.compose("SHO")), "SHO, weights of 1")

    def compose(self, palette: str, *weights: float) -> xr.Dataset:
        """Return the linear picture; weights in the order of the stacks, of those that the palette uses."""
        sums = PALETTES[palette]
        used = {name for terms in finish.parse_palette(sums).values() for name in terms}
        chosen = {name: weight for name, weight in zip(self.stacks, weights, strict=False) if name in used}
        return finish.compose(self.stacks, sums, chosen)

    def view(self, palette: str, *weights: float) -> str:
        """Return the divider: the palette SHO as it is, and what was chosen."""
        return self.divider.render(pixels(self.compose(palette, *weights)), palette)

    def text(self, palette: str, *weights: float) -> str:
        """Describe how the picture was composed, and the noise of its colours."""
        picture = self.compose(palette, *weights)
        noise = np.sqrt(np.nanmedian(picture["variance"].values, axis=(1, 2)))
        levels = ", ".join(f"{name} {level:.2f}" for name, level in zip("RGB", noise, strict=True))
        return f"{' '.join(picture.attrs['history'])} Noise: **{levels} e⁻**."


def palette_explorer(stacks: Mapping[str, xr.Dataset]) -> Any:
    """Choose a palette and the weight of each filter; the divider shows the colours, and the text what they cost."""
    steps = PaletteSteps(stacks)
    palette = pn.widgets.RadioButtonGroup(label="palette", options=list(PALETTES), value="HOO")
    weights = [
        pn.widgets.FloatSlider(label=f"weight of {name}", start=0.2, end=3.0, step=0.1, value=1.0, width=180)
        for name in stacks
    ]
    return pn.Column(
        pn.FlexBox(palette, *weights),
        steps.divider.pane(pn.bind(steps.view, palette, *weights)),
        live_text(pn.bind(steps.text, palette, *weights)),
    )
