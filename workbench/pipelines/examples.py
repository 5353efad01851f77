"""Pictures of a folder's lights for the charts: with and without the flat, alignment, background and stretch."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr
from PIL import Image

from ..core.mosaic import channel_index, middle
from ..core.values import attribute_lines
from ..finish.background import evaluate_background, model_means
from ..finish.picture import crop, fill_holes, make_picture, pyramid
from ..finish.settings import finish
from ..finish.stretch import histogram, stretch_parameters
from ..stack.cubes import stack

WIDEST = 300  # [pixels] of a picture in a chart


def flat_pair(lights: xr.Dataset, flat: xr.Dataset) -> xr.Dataset:
    """Return a calibrated light with and without its flat, whole, reduced: ``before`` and ``after`` (y, x) [e-].

    Parameters
    ----------
    lights
        What `calibrate` gives, whole frames; the first is shown, in green where the sensor has colours.
    flat
        The master that they were divided by.
    """
    light = lights["signal"].isel(frame=0).compute()
    response = flat["signal"].values
    shown = {"before": light.values * response, "after": light.values}
    pattern = str(lights.attrs["cfa_pattern"])
    return _pictures({name: _green(values, pattern) for name, values in shown.items()}, lights)


def alignment_pair(lights: xr.Dataset, aligned: xr.Dataset) -> xr.Dataset:
    """Return the mean of calibrated lights as they came and aligned: ``unaligned``, ``aligned`` (y, x) [e-].

    The middle of the frame at half the scale, in green where the sensor has colours; lights set aside do not count.
    """
    used = np.isin(lights["filename"].values, aligned["filename"].values)
    came = lights["signal"].values[used].mean(axis=0)
    channel = "G" if "G" in aligned["channel"].values else str(aligned["channel"].values[0])
    fits = stack(aligned.sel(channel=[channel]))["signal"].values[0]
    piece = middle(fits.shape, (4 * WIDEST // 3, 2 * WIDEST))
    shown = {"unaligned": _green(came, str(lights.attrs["cfa_pattern"]))[piece], "aligned": fits[piece]}
    return _pictures(shown, lights).assign_attrs(frames=int(used.sum()))


def finished_steps(aligned: xr.Dataset) -> xr.Dataset:
    """Return the stack of aligned lights on its way to a picture, reduced, with the curve and the histogram.

    Returns
    -------
    Dataset over (channel, y, x): ``stack`` [e-], ``background`` [e-] (what was removed of it), ``linear`` [e-], and
    ``finished``, from 0 to 1; over (channel, bin): ``count``, the linear picture's histogram at ``level`` [e-].
    Attributes: ``stretch`` (JSON, see `finish.curve`), ``history``, ``frames``.

    Raises
    ------
    WorkbenchError
        If the stack cannot be finished.
    """
    whole = stack(aligned).compute()
    done = finish(whole, progress=False)
    before = fill_holes(crop(whole, share=done.settings.crop.share, box=done.settings.crop.box))
    parameters = stretch_parameters(done.linear, done.settings.stretch)
    gone = np.zeros_like(done.linear["signal"].values)
    if done.background is not None:
        gone = evaluate_background(done.background).values - model_means(done.background)[:, None, None]
    pictures = {"stack": before, "background": make_picture(gone), "linear": done.linear, "finished": done.picture}
    small = {name: _reduced(picture, WIDEST - 40) for name, picture in pictures.items()}
    counts = histogram(done.linear)
    result = xr.Dataset({name: (("channel", "y", "x"), values) for name, values in small.items()})
    result["count"] = counts["count"]
    history = "\n".join(attribute_lines(done.picture.attrs, "history"))
    return result.assign_coords(counts.coords).assign_attrs(
        stretch=json.dumps(parameters), history=history, frames=aligned.sizes["frame"], camera=aligned.attrs["camera"]
    )


def _green(mosaic: np.ndarray, pattern: str) -> np.ndarray:
    """The green pixels of a mosaic, NaN at the others; of a mono frame all."""
    if pattern == "mono":
        return mosaic
    cell = np.isin(channel_index(pattern), [1, 2])
    rows, columns = (np.arange(size) % part for size, part in zip(mosaic.shape, cell.shape, strict=True))
    return np.where(cell[rows[:, None], columns], mosaic, np.float32(np.nan))


def _pictures(shown: dict[str, np.ndarray], lights: xr.Dataset) -> xr.Dataset:
    small = {name: _reduced(make_picture(values))[0] for name, values in shown.items()}
    attrs = {"camera": lights.attrs["camera"], "filename": str(lights["filename"].values[0])}
    return xr.Dataset(
        {name: (("y", "x"), values, {"units": "electron"}) for name, values in small.items()}, attrs=attrs
    )


def _reduced(picture: xr.Dataset, widest: int = WIDEST) -> np.ndarray:
    """Return a picture (channel, y, x) so many pixels wide, each the mean of what it covers; a smaller one halved."""
    levels: list[Any] = pyramid(picture, smallest=32)
    halved = [level["signal"].values for level in levels[1:]] or [levels[0]["signal"].values]
    least = [values for values in halved if values.shape[2] >= widest]
    values = least[-1] if least else halved[0]
    if values.shape[2] <= widest:
        return values
    size = widest, round(values.shape[1] * widest / values.shape[2])
    return np.stack([np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BOX)) for plane in values])
