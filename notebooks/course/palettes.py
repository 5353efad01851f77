"""Notebook 12: narrow-band stacks of a virtual cooled camera, and the colours that a palette makes of them, live."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import panel as pn
import xarray as xr

from workbench import finish
from workbench.app.divider import Divider, html_pane, pixels
from workbench.app.live_charts import live_text
from workbench.pipelines.stacking import stack_folder
from workbench.simulate.capture import Batch, cooled, write_frames
from workbench.simulate.night import START, make_night
from workbench.simulate.sky import make_sky

BANDS = ("SII", "Ha", "OIII")
PALETTES = {
    "SHO": "SHO",
    "HOO": "HOO",
    "sums": "R=0.6*SII+0.4*Ha, G=0.3*Ha+0.7*OIII, B=OIII",
}
_SHAPE = (240, 360)
_BRIGHT = {"SII": 0.4, "Ha": 1.0, "OIII": 0.7}  # of the nebula [e-/s/pixel], at most
_STARLIGHT, _SKY = 0.15, (0.05, 0.05, 0.05)  # what a narrow band lets through: of the stars; [e-/s/pixel] of the sky


def write_narrowband(folder: str | Path, *, lights: int = 5, seed: int = 12) -> Path:
    """Write a night through SII, Ha and OIII of a virtual cooled camera at gain setting 100, as a capture program does.

    The bands show the same stars and a nebula of their own each.
    """
    camera, stars = cooled(_SHAPE), make_sky(_SHAPE, stars=90, brightest=900.0, faintest=40.0, seed=seed)
    dark = [Batch("bias", 6, 0.0, 100.0), Batch("dark", 6, 300.0, 100.0)]
    write_frames(folder, camera, [*dark, *(Batch("flat", 6, 2.0, 100.0, filter=band) for band in BANDS)], seed=seed)
    for number, band in enumerate(BANDS, seed):
        gas = make_sky(_SHAPE, nebula=_BRIGHT[band], seed=number).nebula[:1].repeat(3, axis=0)
        turned = {"SII": gas[:, ::-1], "Ha": gas, "OIII": gas[:, :, ::-1]}[band]
        sky = replace(stars, nebula=turned, flux=_STARLIGHT * stars.flux)
        views = make_night(sky, lights, exposure=300.0, background=_SKY, seed=number)
        start = START + timedelta(hours=number - seed + 1)
        batch = Batch("light", lights, 300.0, 100.0, filter=band, folder=f"lights/{band}", views=views, start=start)
        write_frames(folder, camera, [batch], sky=sky, seed=number)
    return Path(folder)


@cache
def narrowband_stacks() -> dict[str, xr.Dataset]:
    """Return linear stacks through SII, Ha and OIII on one pixel grid, by the filter's name.

    The level of the darkest twentieth is subtracted from each.
    """
    with tempfile.TemporaryDirectory() as aside:
        done = stack_folder(write_narrowband(Path(aside) / "night"), Path(aside) / "night.fits", progress=False)
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
        html_pane(pn.bind(steps.view, palette, *weights)),
        live_text(pn.bind(steps.text, palette, *weights)),
    )
