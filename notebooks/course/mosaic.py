"""Notebook 11: three simulated panels of a mosaic, put side by side as they are, and stacked as one."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import holoviews as hv
import numpy as np
import pandas as pd

from workbench.align.transform import Transform
from workbench.app import viewer
from workbench.ingest.reader import read_frame
from workbench.pipelines.stacking import stack_folder
from workbench.simulate.mosaic import EACH, SHAPE, STEP, TRANSPARENCY, mosaic_sky, write_mosaic
from workbench.stack.fits_out import open_stack

_UNIT = "e⁻"


class Mosaic(NamedTuple):
    """One light of each panel, pasted side by side [ADU]; the stack's signal [e-] and coverage; the panels' scales."""

    pasted: np.ndarray
    signal: np.ndarray
    coverage: np.ndarray
    scales: pd.DataFrame


@cache
def stack_mosaic() -> Mosaic:
    """Simulate three panels of a mosaic, of four lights each, and stack them as ``--framing all`` does."""
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside)
        write_mosaic(folder / "night", mosaic_sky(), SHAPE, step=STEP, each=EACH)
        out = folder / "mosaic.fits"
        done = stack_folder(folder / "night", out, reference="light_00", framing="all", progress=False)
        stack = open_stack(done.path).load()
        first = done.frames.iloc[::EACH]
        pasted = np.full(stack["signal"].shape[1:], np.nan)
        corner = stack["signal"].x.values[0], stack["signal"].y.values[0]
        for name, transform in zip(first["file"], first["transform"], strict=True):
            _paste(pasted, read_frame(folder / "night" / name), Transform.from_dict(json.loads(transform)), corner)
    scales = pd.DataFrame(
        {
            "truth": TRANSPARENCY[0] / np.array(TRANSPARENCY),
            "measured": first["scale"].values,
            "± error": first["scale_error"].values,
        },
        index=pd.Index(["left", "middle", "right"], name="panel"),
    )
    return Mosaic(pasted, stack["signal"].values, stack["coverage"].values.max(0), scales)


def _paste(onto: np.ndarray, mosaic: np.ndarray, transform: Transform, corner: tuple[float, float]) -> None:
    """Put the green samples of a mosaic where the light's middle belongs, each over four pixels; not turned."""
    green = 0.5 * (mosaic[0::2, 1::2].astype(float) + mosaic[1::2, 0::2])
    height, width = mosaic.shape
    x, y = transform.inverse(np.array([width / 2 - 0.5]), np.array([height / 2 - 0.5]))
    left, top = round(float(x[0] - corner[0]) - width / 2), round(float(y[0] - corner[1]) - height / 2)
    rows, columns = (slice(max(at, 0), at + size) for at, size in ((top, height), (left, width)))
    whole = np.kron(green, np.ones((2, 2)))[max(-top, 0) :, max(-left, 0) :]
    there = onto[rows, columns]
    there[...] = whole[: there.shape[0], : there.shape[1]]


def mosaic_views(mosaic: Mosaic, width: int = 640) -> hv.Layout:
    """Show the panels as they were taken, the stack and its coverage, one below the other."""
    pictures = [
        viewer.picture("one light of each panel, side by side", mosaic.pasted, "ADU"),
        viewer.picture("stacked with framing all", mosaic.signal, _UNIT, stretched=True),
        viewer.picture("lights in each pixel", mosaic.coverage.astype(float), "lights"),
    ]
    return viewer.side_by_side(pictures, columns=1, width=width)
