"""The gallery of cosmic rays: tracks of particles in darks, how many and how bright."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from ..core.values import value_text
from .theme import KIND_COLOUR, PAPER, dimension, layout, line, note, panel, picture, steps
from .words import Words, electrons, source

COLUMN, ROW = dimension("gallery column", "px"), dimension("gallery row", "px")
PIXELS = dimension("pixels of an event")
EVENTS = dimension("events")
_ACROSS, _DOWN = 6, 4


def cosmic_rays(found: xr.Dataset) -> hv.Layout:
    """Show the largest tracks, each less the mean of the other darks, and how many pixels the events have.

    Parameters
    ----------
    found
        From `sensor.find_cosmic_rays`.
    """
    unit = electrons(found["charge"].attrs["units"])
    stamps = found["picture"].values[: _ACROSS * _DOWN]
    side = found.sizes["row"]
    gallery = np.full((_DOWN * side, _ACROSS * side), np.nan, np.float32)
    for number, stamp in enumerate(stamps):
        y, x = divmod(number, _ACROSS)
        gallery[y * side : (y + 1) * side, x * side : (x + 1) * side] = stamp
    top = float(np.nanpercentile(stamps, 99.8)) if stamps.size else 1.0
    low = -0.1 * top
    # a square root, so that faint ends of bright tracks show
    values = np.sign(gallery) * np.sqrt(np.abs(np.nan_to_num(gallery)))
    height, width = gallery.shape
    value = dimension(f"√ of the charge in {unit}")
    image = picture(
        values[::-1], (0.0, 0.0, float(width), float(height)), dims=(COLUMN, ROW), value=value, cmap="inferno",
        limits=(-float(np.sqrt(-low)), float(np.sqrt(max(top, 1e-6)))),
    )  # fmt: skip
    lines = [line([x * side] * 2, [0, height], dims=(COLUMN, ROW), colour=PAPER, width=1) for x in range(1, _ACROSS)]
    lines += [line([0, width], [y * side] * 2, dims=(COLUMN, ROW), colour=PAPER, width=1) for y in range(1, _DOWN)]
    words = [] if stamps.size else [note(width / 2, height / 2, "no tracks", dims=(COLUMN, ROW), colour=PAPER)]
    left = panel(
        [image, *lines, *words], title=f"The largest {len(stamps)} tracks", legend=None, ratio=width / height,
        invert_y=True, xlim=(0, width), ylim=(0, height), axes=False,
    )  # fmt: skip
    sizes = found["pixels"].values
    largest = int(sizes.max(initial=4))
    edges = np.arange(0.5, min(largest, 60) + 1.5)
    counts, _ = np.histogram(np.minimum(sizes, 60), edges)
    bars = steps(edges, counts, dims=(PIXELS, EVENTS), colour=KIND_COLOUR["dark"])
    right = panel(
        [bars], title="How long they are", legend=None, ylim=(0, max(5.0, 1.15 * float(counts.max(initial=1))))
    )
    return layout([left, right])


def cosmic_rays_words(result: Any) -> Words:
    """Describe the cosmic rays found in a series of darks."""
    found = result.cosmic_rays
    tracks, expected = int(found["tracks"]), float(found["expected"])
    flux = value_text(float(found["flux"]), float(found["flux_error"]), "a cm² and minute")
    compared = (
        f"; {expected:.0f} muons were to be expected (one a cm² and minute at sea level). Measured: {flux}"
        if np.isfinite(expected)
        else ""
    )
    minutes = float(found["seconds"]) / 60
    text = (
        f"{tracks} tracks of two pixels or more in {int(found['frames'])} darks, {minutes:.0f} minutes in all, and "
        f"{int(found['singles'])} events of one pixel{compared}."
    )
    return Words(
        f"Each picture is {found.sizes['row']} pixels wide: a dark less the mean of its likes, where pixels stand out "
        f"by more than {found.attrs['threshold']:g} σ. {text} {int(found['dips'])} pixels fell below the mean as far, "
        f"which no particle can do: so many of the others may be false. {source(result)}",
        f"A gallery of bright specks and streaks on dark ground, and a histogram of their sizes. {text}",
    )
