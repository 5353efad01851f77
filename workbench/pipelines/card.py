"""The frames that the raw report card looks at."""

from __future__ import annotations

import math
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from ..core.mosaic import crop, middle
from ..core.parallel import counted, lazy_frames, stream_frames
from ..fidelity.findings import DARK_KINDS
from ..ingest.catalogue import Folder, open_frames
from ..sensor.transfer import photon_transfer

_CARD_PIXELS = 13e6  # that the report card looks at, in parts of at most
_CARD_SIDE = 1024  # px a side


def card_frames(folder: Folder, progress: Any = False) -> xr.DataArray:
    """Return the frames that the report card needs, the middle of them, read, in the order of what they tell.

    Bias frames and flats of the lowest ISO, the longest of the warmest darks, bright flats of the highest ISO, and as
    many others as some seconds allow.
    """
    table = folder.table[folder.table["kind"].isin(["bias", "flat", "dark"])]
    flat, dark, bias = (table[table["kind"] == kind] for kind in ("flat", "dark", "bias"))
    low, high = flat["iso"].min(), flat["iso"].max()
    lowest = flat[flat["iso"] == low] if math.isfinite(low) else flat
    wanted = [
        bias[bias["iso"] == bias["iso"].min()].head(4) if bias["iso"].notna().any() else bias.head(4),
        dark.sort_values(["temperature", "exposure"], na_position="first").tail(2),
        lowest.sort_values("exposure").iloc[:: max(1, len(lowest) // 8)],
        flat[flat["iso"] == high].sort_values("exposure").tail(2),
        *(flat[flat["iso"] == iso].sort_values("exposure").tail(2) for iso in sorted(flat["iso"].dropna().unique())),
        lowest,
        table,
    ]
    ranked = pd.concat([part for part in wanted if len(part)])
    ranked = ranked[~ranked["path"].duplicated()]
    window = _card_window(table)
    frames = open_frames(ranked.head(card_size(table)))
    lazy = lazy_frames(frames)
    stream = counted(stream_frames(lazy), progress, len(lazy))
    read = np.stack([frame[window].copy() for frame in stream])  # looked at more than once; the rest is let go
    return crop(frames, *window).copy(data=da.from_array(read, (1, -1, -1)))


def flat_transfer(frames: xr.DataArray, progress: Any = False) -> xr.Dataset | None:
    """Return the photon transfer of flats without bias frames or darks, which shows their black level; else None."""
    kinds = frames["kind"].values
    if np.isin(kinds, DARK_KINDS).any() or not (kinds == "flat").any():
        return None
    return photon_transfer(frames.isel(frame=kinds == "flat"), progress=progress)


def card_size(table: pd.DataFrame) -> int:
    """Return how many frames of a table, at most, the report card looks at."""
    return min(
        len(table), max(4, int(_CARD_PIXELS / math.prod(side.stop - side.start for side in _card_window(table))))
    )


def _card_window(table: pd.DataFrame) -> tuple[slice, slice]:
    """Return the middle of these frames, in whole cells of the mosaic."""
    whole = int(table["height"].iloc[0]), int(table["width"].iloc[0])
    rows, columns = (min(side, _CARD_SIDE) // 2 * 2 or side for side in whole)
    return middle(whole, (rows, columns))
