"""Frames of another camera, size or mosaic than most are set aside."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ..core.errors import WorkbenchError
from .catalogue import Folder

# what all frames of one measurement have in common: columns of the table, and in words
_ALIKE = ((["camera"], "camera"), (["height", "width"], "size"), (["cfa_pattern"], "mosaic"))


def of_one_camera(folder: Folder, kinds: Sequence[str], others: Sequence[str] = (), share: float = 0.0) -> Folder:
    """Return the folder with the frames of the camera, size and mosaic that most frames of these kinds have.

    Parameters
    ----------
    kinds
        Whose majority decides.
    others
        Further kinds of which those of another camera, size or mosaic are set aside.
    share
        Of the frames that must be alike, else it is an error.

    Raises
    ------
    WorkbenchError
        If no more than that share are alike; the message has an example of each.
    """
    for columns, what in _ALIKE:
        table = folder.table[folder.table["kind"].isin(kinds)]
        groups = {_words(key): part for key, part in table.groupby(columns, sort=False, dropna=False)}
        ranked = sorted(groups, key=lambda words: -len(groups[words]))
        usual = ranked[0]
        if len(groups[usual]) <= share * len(table):
            listed = ", ".join(f"{one}: {len(groups[one])} (such as {groups[one]['file'].iloc[0]})" for one in ranked)
            raise WorkbenchError(
                f"{folder.root} mixes frames of different {what} ({listed}); measure each in a folder of its own"
            )
        concerned = folder.table[folder.table["kind"].isin([*kinds, *others])]
        for path, *values in concerned[["path", *columns]].itertuples(index=False):
            if _words(tuple(values)) != usual:
                folder = folder.drop(path, f"its {what} is {_words(tuple(values))}, that of the other frames {usual}")
    return folder


def _words(key: tuple | str) -> str:
    """Return the values of some columns as text."""
    values = key if isinstance(key, tuple) else (key,)
    return " x ".join("" if pd.isna(value) else str(value) for value in values) or "not stated"
