"""The picture that is finished: one contract from the stack to the wall.

A linear picture is a Dataset with ``signal`` (channel, y, x), float32, channels ``R, G, B`` or ``mono``, and, where
they are known, ``variance`` [units²], ``coverage`` (samples behind each pixel) and ``saturated``, of the same shape.
Its attributes carry ``stage`` (``stacked`` until the stretch, ``stretched`` after it), ``history`` (a list of
sentences), ``units`` and what the camera recorded.  Missing pixels are NaN; negative ones are kept: a noise that
averages to zero must stay so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy import ndimage

from ..core.area import largest_rectangle
from ..core.errors import StageError, WorkbenchError
from ..core.fits_cards import wcs_cards
from ..core.kernels import kernel
from ..core.mosaic import tiles
from ..core.parallel import in_threads
from ..core.values import attribute_lines

CHANNELS = {1: ("mono",), 3: ("R", "G", "B")}
PLANES = ("signal", "variance", "coverage", "saturated")  # what a finish needs of a stack
_CELL = 16  # [px] cells in which the common coverage is sought
_TRAIL = 5  # [cells] uncovered lines thinner than this do not part a picture
_GAPS = 0.02  # share of a row or column at the edge that may be missing
_BAND = 256  # [rows] a thread works on at a time


def make_picture(
    signal: Any,
    variance: Any = None,
    *,
    coverage: Any = None,
    saturated: Any = None,
    stage: str = "stacked",
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Make a linear picture of arrays (channel, y, x), or (y, x) for a mono one, and check it.

    Parameters
    ----------
    signal, variance
        In the same units (``attrs["units"]``, ``electron`` unless given) and their square.
    coverage
        How many samples went into each pixel.
    saturated
        Where any of them was clipped: true, or a share above zero.
    attrs
        ``color_matrix`` (XYZ to camera, 3 x 3), ``daylight_multipliers`` (R, G, B), ``exposure`` [s], ``camera``, ...

    Examples
    --------
    >>> picture = make_picture(np.eye(8, dtype="float32"))
    >>> picture.signal.dims, picture.channel.values.tolist(), picture.attrs["stage"]
    (('channel', 'y', 'x'), ['mono'], 'stacked')
    """
    given = {"signal": signal, "variance": variance, "coverage": coverage, "saturated": saturated}
    data = {name: np.asarray(values) for name, values in given.items() if values is not None}
    data = {name: values[None] if values.ndim == 2 else values for name, values in data.items()}
    shape = data["signal"].shape
    for name, values in data.items():
        if len(shape) != 3 or values.shape != shape:
            raise WorkbenchError(
                f"a picture has dims (channel, y, x); {name} has shape {values.shape} where the signal has {shape}"
            )
        if name in ("signal", "variance"):
            data[name] = np.ascontiguousarray(values, np.float32)
    picture = xr.Dataset(
        {name: (("channel", "y", "x"), values) for name, values in data.items()},
        coords={"channel": list(CHANNELS.get(shape[0], range(shape[0])))},
        attrs={"units": "electron", "history": [], **(attrs or {}), "stage": stage},
    )
    return check_picture(picture, stage=stage)


def check_picture(picture: xr.Dataset, *, stage: str | None = "stacked", content: bool = False) -> xr.Dataset:
    """Return the picture if it keeps the contract, else raise what breaks it.

    `content` looks at the pixels too: an empty frame, a constant one, one that is NaN everywhere.

    Raises
    ------
    StageError
        If the picture is of another stage: stretched already, or not stacked yet.
    WorkbenchError
        If it is not a picture, has other channels than R, G, B or mono, or has nothing in it.
    """
    if not isinstance(picture, xr.Dataset) or "signal" not in picture:
        raise WorkbenchError(
            f"a picture to finish is a Dataset with a variable 'signal'; this is a {type(picture).__name__}"
            " (make one with workbench.finish.make_picture, or open a stack)"
        )
    signal = picture["signal"]
    if signal.dims != ("channel", "y", "x") or min(signal.shape) == 0:
        raise WorkbenchError(
            f"a picture's signal has dims (channel, y, x), none of them empty; this has {dict(signal.sizes)}"
        )
    if signal.sizes["channel"] not in CHANNELS:
        raise WorkbenchError(
            f"this picture has {signal.sizes['channel']} channels; one (mono) or three (R, G, B) can be finished"
        )
    found = picture.attrs.get("stage", signal.attrs.get("stage", "stacked"))
    if stage is not None and found != stage:
        remedy = _REMEDIES.get(found, "this step comes after the stretch" if stage == "stretched" else "")
        raise StageError(f"this step needs a picture of stage {stage!r} and got one of stage {found!r}; {remedy}")
    if content:
        finite = (values[np.isfinite(values)] for values in signal.values)
        ends = [end for values in finite if values.size for end in (float(values.min()), float(values.max()))]
        if not ends:
            raise WorkbenchError("this picture has no finite pixel: it is NaN everywhere; stack the lights again")
        if min(ends) == max(ends):
            raise WorkbenchError(f"this picture is empty: every pixel is {ends[0]:g}; stack the lights again")
    return picture


_REMEDIES = {
    "stretched": "it has been stretched already: finish the linear stack that it was made from",
    "raw": "raw frames are calibrated and stacked first",
    "calibrated": "calibrated frames are stacked first",
}


def note(picture: xr.Dataset, sentence: str, **attrs: Any) -> xr.Dataset:
    """Return the picture with one more sentence in its history (and other attributes); the input stays as it is."""
    return picture.assign_attrs(history=[*attribute_lines(picture.attrs, "history"), sentence], **attrs)


def observed_cards(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cards of what was observed, which a stack has among its attributes, also where they are JSON text.

    Those of a plate solution count in the picture's own pixels, whatever was cropped.
    """
    held = (attrs.get(name) for name in ("observation", "crop"))
    cards, cut = (json.loads(one) if isinstance(one, str) else one for one in held)
    top, _, left, _ = (0, 0, 0, 0) if cut is None else map(int, cut)
    return dict(cards or {}) | wcs_cards(cards or {}, (top, left))


def plane(values: np.ndarray, name: str, **attrs: Any) -> xr.Variable:
    """Wrap an array (channel, y, x) as a variable of a picture."""
    return xr.Variable(("channel", "y", "x"), values, {"long_name": name, **attrs})


def in_bands(work: Callable[[slice], Any], height: int, *, band: int = _BAND) -> list[Any]:
    """Call `work` with slices of rows in threads; the answers come in order.

    The bands are the same on every machine, so a result does not depend on the number of threads.
    """
    return list(in_threads(work, [slice(top, min(top + band, height)) for top in range(0, height, band)]))


def crop(picture: xr.Dataset, *, share: float | None = 0.9, box: Sequence[int] | None = None) -> xr.Dataset:
    """Crop to the largest rectangle that (nearly) all frames cover, or to a given `box`.

    Parameters
    ----------
    share
        A pixel belongs to the common area where its coverage is at least this share of the usual one (without
        ``coverage``: where it is finite).  A hole inside, as rejection leaves it, does not cut the picture.  With
        None and no box, nothing is cropped.
    box
        ``(top, bottom, left, right)`` [px], bottom and right excluded; negative ones count from the end.

    Returns
    -------
    The cropped picture; its attribute ``crop`` is the box in the pixels of the stack, which stays as it was, so
    that a crop is undone by finishing the stack with another one.

    Raises
    ------
    WorkbenchError
        If nothing is covered enough, or the box leaves less than 16 x 16 pixels.

    Examples
    --------
    >>> signal = np.ones((1, 40, 60), "float32"); signal[0, 0, 0] = 2; signal[:, :, 50:] = np.nan
    >>> dict(crop(make_picture(signal)).sizes)
    {'channel': 1, 'y': 40, 'x': 50}
    """
    check_picture(picture)
    height, width = picture.sizes["y"], picture.sizes["x"]
    if box is not None:
        limits = [slice(*pair).indices(size) for pair, size in ((box[:2], height), (box[2:], width))]
        (top, bottom, _), (left, right, _) = limits
    elif share is None:
        return picture
    else:
        top, bottom, left, right = common_box(picture, share)
    if bottom - top < 16 or right - left < 16:
        raise WorkbenchError(
            f"the crop leaves {max(bottom - top, 0)} x {max(right - left, 0)} pixels of {height} x {width}; a picture"
            " has at least 16 x 16: choose another box (top, bottom, left, right) or a smaller share of the coverage"
        )
    if (top, bottom, left, right) == (0, height, 0, width):
        return note(picture, "Crop: nothing to cut, the frames cover it all.", crop=[0, height, 0, width])
    cut = picture.isel(y=slice(top, bottom), x=slice(left, right))
    before = picture.attrs.get("crop", (0, 0, 0, 0))
    whole = [before[0] + top, before[0] + bottom, before[2] + left, before[2] + right]
    return note(cut, f"Crop: rows {whole[0]} to {whole[1]}, columns {whole[2]} to {whole[3]} of the stack.", crop=whole)


def common_box(picture: xr.Dataset, share: float = 0.9) -> tuple[int, int, int, int]:
    """Return (top, bottom, left, right) of the largest rectangle of covered pixels; see `crop`."""
    if not 0 < share <= 1:
        raise WorkbenchError(f"the share of the coverage to crop to lies between 0 and 1; got {share:g}")
    good = np.isfinite(picture["signal"].values).all(axis=0)
    for counts in picture["coverage"].values if "coverage" in picture else ():
        sample = counts[:: max(1, counts.shape[0] // 512), :: max(1, counts.shape[1] // 512)]
        sample = sample[sample > 0]
        good &= counts >= share * (np.median(sample) if sample.size else np.inf)
    cell = max(1, min(_CELL, min(good.shape) // 16))
    rows, columns = good.shape[0] // cell, good.shape[1] // cell
    cells = tiles(good, cell).mean(axis=(2, 3))
    # a cell counts while its larger part is covered: its missing edge is trimmed below, a hole in it is a hole
    # a satellite's trail is rejected right across a frame: what is that thin is bridged before the rectangle is sought
    full = np.pad(cells > 0.5, _TRAIL)
    whole = ndimage.binary_closing(full, np.ones((_TRAIL, _TRAIL)))
    bridges = ndimage.binary_dilation(whole & ~full, np.ones((3, 3)))[_TRAIL:-_TRAIL, _TRAIL:-_TRAIL]
    good[: rows * cell, : columns * cell] |= np.kron(bridges, np.ones((cell, cell), bool))
    top, bottom, left, right = (edge * cell for edge in largest_rectangle(whole[_TRAIL:-_TRAIL, _TRAIL:-_TRAIL]))
    bottom = good.shape[0] if bottom == rows * cell else bottom
    right = good.shape[1] if right == columns * cell else right
    top, bottom, left, right = _fitted([top, bottom, left, right], good)
    if bottom - top > 1 and right - left > 1:
        return top, bottom, left, right
    raise WorkbenchError(
        f"no part of this picture is covered by {share:.0%} of its frames: if the stack rejected too much, check the "
        "gain that it used; else lower the share, or crop by hand"
    )


def _fitted(box: list[int], good: np.ndarray) -> list[int]:
    """A box (top, bottom, left, right) of cells fitted to the covered pixels: trimmed, then grown, edge by edge."""
    while box[1] - box[0] > 1 and box[3] - box[2] > 1:  # row by row from the outside, the worst edge first
        gaps = [1 - good[_side(box, side)].mean() for side in range(4)]
        worst = int(np.argmax(gaps))
        if gaps[worst] <= _GAPS:
            break
        box[worst] += 1 if worst % 2 == 0 else -1
    for side in range(4):  # and outwards again as far as it goes: a cell is coarse
        step, end = (-1, 0) if side % 2 == 0 else (1, good.shape[side // 2])
        while box[side] != end:
            wider = box.copy()
            wider[side] += step
            if 1 - good[_side(wider, side)].mean() > _GAPS:
                break
            box = wider
    return box


def _side(box: Sequence[int], side: int) -> tuple[slice, slice]:
    """The outermost row or column (top, bottom, left, right) of a box."""
    top, bottom, left, right = box
    edge = (top, bottom - 1, left, right - 1)[side]
    line = slice(edge, edge + 1)
    return (line, slice(left, right)) if side < 2 else (slice(top, bottom), line)


def fill_holes(picture: xr.Dataset) -> xr.Dataset:
    """Fill missing pixels that have neighbours within 2 px by their mean; larger holes stay NaN.

    A filled pixel's variance is the neighbours' mean variance, not less: its noise is not its own.  Without
    missing pixels the picture itself is returned.
    """
    check_picture(picture)
    signal = picture["signal"].values
    holes = [np.argwhere(~np.isfinite(values)) for values in signal]
    if not any(len(hole) for hole in holes):
        return picture
    filled = picture.copy()
    for name in ("signal", "variance"):
        if name in picture:
            values = picture[name].values.copy()
            count = sum(map(_fill, signal, picture[name].values, values, holes))
            filled[name] = picture[name].copy(data=values)
    left = sum(map(len, holes)) - count
    return note(filled, f"Holes: {count} missing pixels filled from their neighbours, {left} left.")


@kernel()
def _fill(signal, values, out, holes):
    """Set `out` (y, x) at the `holes` (hole, (y, x)) to the mean of `values` where the signal is finite; count them."""
    height, width = signal.shape
    count = 0
    for y, x in holes:
        total, used = 0.0, 0
        for j in range(max(0, y - 2), min(height, y + 3)):
            for i in range(max(0, x - 2), min(width, x + 3)):
                if np.isfinite(signal[j, i]):
                    total += values[j, i]
                    used += 1
        if used:
            out[y, x] = total / used
            count += 1
    return count


def pyramid(picture: xr.Dataset, *, smallest: int = 256) -> list[xr.Dataset]:
    """Return the picture and its halves, each pixel the mean of four, until a side is under twice `smallest`.

    A level is a picture like any other: a slider works on the level that fits the screen, the export on the first.
    A missing pixel counts for nothing; variances are those of the mean of independent pixels.

    Examples
    --------
    >>> [dict(level.sizes)["x"] for level in pyramid(make_picture(np.eye(1030, 2060)), smallest=256)]
    [2060, 1030, 515]
    """
    check_picture(picture, stage=None)
    levels = [picture]
    while min(levels[-1].sizes["y"], levels[-1].sizes["x"]) >= 2 * smallest:
        finer = levels[-1]
        data = {
            name: (finer[name].dims, _halve(np.asarray(finer[name].values, np.float32), scale), finer[name].attrs)
            for name, scale in (("signal", 1.0), ("variance", 0.25), ("saturated", 1.0))
            if name in finer
        }
        level = xr.Dataset(data, coords={"channel": finer["channel"]}, attrs=finer.attrs)
        levels.append(level.assign_attrs(reduction=2 * finer.attrs.get("reduction", 1)))
    return levels


@kernel()
def _halve(fine, scale):
    """`scale` times the mean of the finite ones of each four pixels (channel, y, x)."""
    coarse = np.empty((fine.shape[0], fine.shape[1] // 2, fine.shape[2] // 2), np.float32)
    for channel, row, column in np.ndindex(coarse.shape):
        total, count = np.float32(0.0), 0
        for value in fine[channel, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flat:
            if np.isfinite(value):
                total += value
                count += 1
        coarse[channel, row, column] = scale * total / count if count else np.nan
    return coarse


def luminance(signal: np.ndarray) -> np.ndarray:
    """Return the plain mean of the channels, (y, x) float32: the brightness to look for stars on."""
    return signal[0] if signal.shape[0] == 1 else signal.mean(axis=0, dtype=np.float32)


def check_strength(strength: float) -> None:
    """Raise a WorkbenchError unless a strength lies between 0 and 1."""
    if not 0 <= strength <= 1:
        raise WorkbenchError(f"a strength lies between 0 (nothing) and 1; got {strength:g}")
