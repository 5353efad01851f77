"""The frames of a folder: a table of them, lazy cubes of each kind, and what is doubtful."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..core.cube import KINDS
from ..core.errors import FrameReadError, WorkbenchError, said_of_all
from ..core.files import holder
from ..core.settings import SETTING, setting_differs
from ..core.values import describe
from .reader import Area, differing, odd_of, open_frames, read_frame, watched_reading

MANIFEST = "frames.csv"
Finding = tuple[str, str, str]  # file, problem, the file with what was found
_MODE = ["offset_setting", "readout_mode", "binning", "window"]  # operating mode: of the setting, what is not measured
_GROUPS = ["kind", *SETTING, "filter", "exposure", "temperature"]
# what all frames of one measurement have in common: columns of the table, and in words
_ALIKE = ((["camera"], "camera"), (["width", "height"], "size"), (["cfa_pattern"], "mosaic"))


@dataclass(frozen=True, repr=False, eq=False)
class Folder:
    """The frames of a folder: a table of them, and a lazy cube of each kind.

    ``table`` has one row a frame.  ``bias``, ``dark``, ``flat``, ``darkflat`` and ``light`` are cubes
    (frame, y, x).  ``set_aside`` lists files that cannot be used, each with the reason; ``findings``
    what is doubtful, frame by frame, and ``warnings`` the same as sentences.  ``masters`` are the rows of
    files set aside that other programs combined from bias frames, darks, flats or their darks; ``adopted`` are those of
    them that serve in place of raw frames (`workbench.pipelines.calibration_checks.prepare_calibration`).
    """

    table: pd.DataFrame
    root: Path
    set_aside: list[tuple[Path, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    masters: pd.DataFrame = field(default_factory=pd.DataFrame)
    adopted: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["kind", "path"]))
    _cubes: dict[tuple[str, str], xr.DataArray] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def bias(self) -> xr.DataArray:
        """The bias frames as a cube."""
        return self.cube("bias")

    @property
    def dark(self) -> xr.DataArray:
        """The dark frames as a cube."""
        return self.cube("dark")

    @property
    def flat(self) -> xr.DataArray:
        """The flat frames as a cube."""
        return self.cube("flat")

    @property
    def darkflat(self) -> xr.DataArray:
        """The flats' dark frames as a cube."""
        return self.cube("darkflat")

    @property
    def light(self) -> xr.DataArray:
        """The light frames as a cube."""
        return self.cube("light")

    @property
    def warnings(self) -> list[str]:
        """What is doubtful in these frames, each problem in one sentence."""
        here = set(self.table["file"])
        return [*_sentences(found for found in self.findings if found[0] in here), *_differences(self.table)]

    @property
    def paths(self) -> list[Path]:
        """The files that hold the frames."""
        return list(dict.fromkeys(holder(path) for path in self.table["path"]))

    @property
    def cameras(self) -> list[str]:
        """Names of the cameras that made the frames."""
        return sorted(self.table["camera"].unique())

    def cube(self, kind: str, area: Area = "visible") -> xr.DataArray:
        """Return all frames of a kind as one lazy cube; ``area="full"`` includes the masked margins.

        Raises
        ------
        WorkbenchError
            If there are none, or they do not fit into one cube.
        """
        if kind not in KINDS:
            raise WorkbenchError(f"kind {kind!r} is not known; choose {', '.join(KINDS)}")
        if not self.has(kind):
            raise WorkbenchError(self._lacks(kind))
        if (kind, area) not in self._cubes:  # opening many frames takes a while
            self._cubes[kind, area] = open_frames(self.table[self.table["kind"] == kind], area=area)
        return self._cubes[kind, area].copy(deep=False)

    def _lacks(self, kind: str) -> str:
        """Say that there are no frames of a kind, and what to do."""
        there = ", ".join(f"{n} {k or 'of unknown kind'}" for k, n in self.table["kind"].value_counts().items())
        return (
            f"{self.root} has no {kind} frames (it has {there}); put them into a folder named {kind}, "
            f"or name their kind in {MANIFEST}" + "".join(f"; set aside: {reason}" for reason in self._aside()[:3])
        )

    def has(self, kind: str) -> bool:
        """Return whether there are frames of that kind."""
        return self.count(kind) > 0

    def count(self, kind: str) -> int:
        """Return the number of frames of that kind."""
        return int((self.table["kind"] == kind).sum())

    def __len__(self) -> int:
        return len(self.table)

    def select(self, **criteria: Any) -> Folder:
        """Return the folder with only the frames that fit: ``select(kind="flat", iso=[100, 200])``.

        A criterion is a column of the table with the value it must have, or a list of values.

        Raises
        ------
        WorkbenchError
            If a column is unknown or nothing fits; the message lists the values there are.
        """
        keep = np.ones(len(self.table), bool)
        for column, wanted in criteria.items():
            if column not in self.table:
                raise WorkbenchError(f"no column {column!r} to select by; there are {', '.join(self.table.columns)}")
            fits = _matches(self.table[column], wanted)
            if column == "kind" and wanted in KINDS and not fits.any():
                raise WorkbenchError(self._lacks(wanted))
            if not (keep & fits).any():
                there = ", ".join(map(str, self.table.loc[keep, column].drop_duplicates().head(12)))
                raise WorkbenchError(f"no frames with {column} {wanted!r} among these; there are {there}")
            keep &= fits
        return replace(self, table=self.table[keep].reset_index(drop=True))

    def drop(self, path: str | Path, reason: str) -> Folder:
        """Return the folder without one frame, which joins those set aside."""
        left = self.table[self.table["path"] != Path(path)].reset_index(drop=True)
        return replace(self, table=left, set_aside=[*self.set_aside, (Path(path), reason)])

    def without_unreadable(self, function: Callable[[Folder], Any], kind: str = "") -> tuple[Any, Folder]:
        """Return function(folder) and that folder: frames whose pixels turn out unreadable are set aside, one by one.

        Of a folder without frames of the `kind`, or with none that can be read, None and the folder that is left.

        Raises
        ------
        FrameReadError
            If the frame is not one of this folder, or no frame at all would be left.
        """
        folder = self
        while not kind or folder.has(kind):
            try:
                return function(folder), folder
            except FrameReadError as error:
                left = folder.drop(error.path, error.problem)
                if len(left) == len(folder) or not len(left):
                    raise
                folder = left
        return None, folder

    def without_odd(self, function: Callable[[Folder], Any], kind: str) -> tuple[Any, Folder]:
        """Return function(folder) and that folder as `without_unreadable` does, `odd_frames` of the kind set aside too.

        Equal frames are compared, in rows that are kept as the function reads them; where some are odd, it runs again
        without them.
        """
        rows: dict[int, np.ndarray] = {}

        def watched(frames: Folder) -> Any:
            rows.clear()
            same, cube = replace(frames), frames.cube(kind)
            same._cubes[kind, "visible"] = watched_reading(cube, rows)
            return function(same)

        result, folder = self.without_unreadable(watched, kind)
        if result is None:
            return result, folder
        paths, left = folder.table["path"][folder.table["kind"] == kind].to_numpy(), folder
        for number, words in odd_of(folder.cube(kind), rows, kind).items():
            left = left.drop(paths[number], words)
        return (result, folder) if left is folder else left.without_unreadable(function, kind)

    def summary(self) -> pd.DataFrame:
        """Return how many frames there are of each kind, setting, filter, exposure [s] and temperature [whole °C].

        Columns of the setting and the filter of which nothing is known are left out.
        """
        counts = self.table.assign(temperature=self.table["temperature"].round())
        counts = counts.groupby(_GROUPS, dropna=False, sort=True).size().rename("frames").reset_index()
        order = counts["kind"].map({kind: n for n, kind in enumerate(KINDS)}).fillna(len(KINDS))
        counts = counts.iloc[np.argsort(order.to_numpy(), kind="stable")].reset_index(drop=True)
        empty = [name for name in (*SETTING[1:], "filter") if not counts[name].replace("", np.nan).notna().any()]
        no_iso = counts["iso"].isna().all() and "gain_setting" not in empty
        return counts.drop(columns=[*empty, *(["iso"] if no_iso else [])])

    def __repr__(self) -> str:
        return "\n".join(
            [self._headline(), self._shown().to_string(index=False, na_rep="–", float_format="%g"), *self._remarks()]
        )

    def _repr_html_(self) -> str:
        table = self._shown().to_html(index=False, na_rep="–", float_format="%g", border=0)
        remarks = "".join(f"<li>{html.escape(remark)}</li>" for remark in self._remarks())
        return f"<p><b>{html.escape(self._headline())}</b></p>{table}" + (f"<ul>{remarks}</ul>" if remarks else "")

    def _shown(self) -> pd.DataFrame:
        units = {"exposure": "exposure [s]", "temperature": "temperature [°C]"}
        return self.summary().replace({"kind": {"": "unknown"}}).rename(columns=units)

    def _headline(self) -> str:
        cameras = ", ".join(name or "unknown camera" for name in self.cameras)
        sizes = " and ".join(f"{w} x {h}" for h, w in self.table[["height", "width"]].drop_duplicates().to_numpy())
        return f"{self.root}: {len(self)} {'frame' if len(self) == 1 else 'frames'}, {cameras}, {sizes} pixels"

    def _remarks(self) -> list[str]:
        aside = self._aside()
        more = len(aside) - 10
        lines = [f"set aside: {sentence}" for sentence in aside[:10]]
        return [*self.warnings, *lines, *([f"set aside for {more} more reasons"] if more > 0 else [])]

    def _aside(self) -> list[str]:
        """What is set aside, each reason in one sentence."""
        return said_of_all(self.set_aside)


def _sentences(findings: Iterable[Finding]) -> list[str]:
    """One sentence for each problem, however many frames have it."""
    examples: dict[str, list[str]] = {}
    for _, problem, example in findings:
        examples.setdefault(problem, []).append(example)
    return [
        f"{problem}: {first}" + (f" and {len(others)} more" if others else "")
        for problem, (first, *others) in examples.items()
    ]


def _differences(table: pd.DataFrame) -> list[str]:
    """Why these frames do not form one cube: the greatest difference."""
    table = table.assign(size=[*zip(table["height"], table["width"], strict=True)])
    for column, name in (("camera", "cameras"), ("size", "sizes"), ("cfa_pattern", "CFA patterns")):
        if found := differing(table, column):
            return [f"the frames are of {table[column].nunique()} {name}: {found}; select one before measuring"]
    return []


def _matches(values: pd.Series, wanted: Any) -> np.ndarray:
    """Compare a column with a value or any of several; numbers to a relative 1e-6, NaN with NaN."""
    if isinstance(values.iloc[0], tuple):
        return np.array([value == tuple(wanted) for value in values])
    options = list(wanted) if isinstance(wanted, (list, tuple, set, np.ndarray, pd.Series)) else [wanted]
    fits = np.zeros(len(values), bool)
    for option in options:
        if values.dtype.kind == "f":
            fits |= np.isclose(values.to_numpy(), float(option), rtol=1e-6, atol=0, equal_nan=True)
        else:
            fits |= (values == option).to_numpy(bool)
    return fits


def of_one_camera(folder: Folder, kinds: Sequence[str], others: Sequence[str] = (), share: float = 0.0) -> Folder:
    """Return the folder with the frames of the camera, size and mosaic that most frames of these kinds have.

    Of `others`, further kinds, those of another camera, size or mosaic are set aside too.  If no more than that `share`
    of the frames are alike it is a `WorkbenchError`, whose message has an example of each.
    """
    for columns, what in _ALIKE:
        table = folder.table[folder.table["kind"].isin(kinds)]
        groups = {_words(key): part for key, part in table.groupby(columns, sort=False, dropna=False)}
        ranked = sorted(groups, key=lambda words: -len(groups[words]))
        usual = ranked[0]
        if len(groups[usual]) <= share * len(table):
            listed = ", ".join(
                f"{words}: {len(groups[words])} (such as {groups[words]['file'].iloc[0]})" for words in ranked
            )
            raise WorkbenchError(
                f"{folder.root} mixes frames of different {what} ({listed}); measure each in a folder of its own"
            )
        concerned = folder.table[folder.table["kind"].isin([*kinds, *others])]
        for path, *values in concerned[["path", *columns]].itertuples(index=False):
            if _words(tuple(values)) != usual:
                folder = folder.drop(path, f"its {what} is {_words(tuple(values))}, that of the other frames {usual}")
    return folder


def of_filters(folder: Folder, wanted: Sequence[str] = ()) -> Folder:
    """Return the folder with the lights of the wanted filters only; by default with those that can be distinguished.

    Among lights of several filters one that states none is set aside; next to one filter it counts as that, with a
    finding.

    Raises
    ------
    WorkbenchError
        If no light has a filter that is wanted.
    """
    lights = folder.table[folder.table["kind"] == "light"]
    there = ", ".join(f"{name or 'none stated'} ({count})" for name, count in lights["filter"].value_counts().items())
    names = [name for name in lights["filter"].unique() if name]
    if missing := [name for name in wanted if name not in names]:
        raise WorkbenchError(f"no light is taken through the filter {missing[0]!r}; the lights' filters are {there}")
    if wanted:
        others = lights.index[~lights["filter"].isin(wanted)]
        return replace(folder, table=folder.table.drop(index=others).reset_index(drop=True))
    unnamed = lights[lights["filter"] == ""]
    remedy = f"name its filter in the column filter of {MANIFEST}"
    if len(names) == 1:
        problem = f"states no filter and counts as {names[0]}, like the other lights; if that is wrong, {remedy}"
        return replace(folder, findings=[*folder.findings, *((file, problem, file) for file in unnamed["file"])])
    for path in unnamed["path"] if names else ():
        folder = folder.drop(path, f"states no filter, where the other lights state {', '.join(names)}; {remedy}")
    return folder


def _words(key: tuple | str) -> str:
    """Return the values of some columns as text."""
    values = key if isinstance(key, tuple) else (key,)
    return " x ".join("" if pd.isna(value) else str(value) for value in values) or "not stated"


def of_one_mode(folder: Folder, kinds: Sequence[str], others: Sequence[str] = ()) -> Folder:
    """Return the folder with the frames of the offset setting, readout mode, binning and window used most.

    Of the camera that most frames of these kinds have, the mode that most of them state; those that state another, and
    such frames of `others`, further kinds, are set aside.  What a frame does not state is not a difference.
    """
    measured = folder.table[folder.table["kind"].isin(kinds)]
    camera = measured["camera"].mode()
    measured = measured[measured["camera"].isin(camera.head(1))]
    if measured.empty:
        return folder
    modes = measured.groupby(_MODE, dropna=False, sort=False).size()
    usual = dict(zip(_MODE, modes.idxmax(), strict=True))
    keep, aside = np.ones(len(folder.table), bool), []
    concerned = folder.table["kind"].isin([*kinds, *others]) & folder.table["camera"].isin(camera.head(1))
    for number in np.flatnonzero(concerned):
        own = folder.table.iloc[number]
        other = setting_differs(own, usual)
        if other:
            what, most = (describe({name: one[name] for name in other}) for one in (own, usual))
            keep[number] = False
            aside.append(
                (own["path"], f"{what}, where most frames have {most}: one operating mode is measured at a time")
            )
    return replace(folder, table=folder.table[keep].reset_index(drop=True), set_aside=[*folder.set_aside, *aside])


def without_lights_among_flats(folder: Folder) -> Folder:
    """Return the folder without lights that lie among the flats, which only their content shows.

    They have the exposure of a light, which most flats have not, and its brightness above the offset, within a factor
    of two; the other flats are brighter by more than four.

    Examples
    --------
    >>> without_lights_among_flats(Folder(pd.DataFrame({"kind": [], "exposure": []}), Path())).table.empty
    True
    """
    flats, lights, biases = (folder.table[folder.table["kind"] == kind] for kind in ("flat", "light", "bias"))
    times = lights["exposure"].to_numpy(float)
    shared = np.array([np.isclose(times, time, rtol=0.01).any() for time in flats["exposure"]], bool)
    if not shared.any() or 2 * shared.sum() >= len(flats):
        return folder
    stated = float(np.nan_to_num(flats["black_level"].iloc[0]).mean())
    offset = _levels(biases.iloc[:3]).median() if len(biases) else stated
    usual = _levels(flats[~shared].iloc[:3]).median() - offset
    for (_, row), level in zip(flats[shared].iterrows(), _levels(flats[shared]), strict=True):
        same = lights[np.isclose(times, row["exposure"], rtol=0.01)]
        sky = _levels(same.iloc[:3]).median() - offset
        if sky > 0 and 0.5 < (level - offset) / sky < 2 and usual > 4 * sky:
            reason = (
                f"is a light among the flats: like the lights of its {row['exposure']:g} s it is {level - offset:.3g} "
                f"ADU above the offset, the other flats {usual:.3g} ADU; put it among the lights"
            )
            folder = folder.drop(row["path"], reason)
    return folder


def _levels(rows: pd.DataFrame) -> pd.Series:
    """The median of each frame [ADU], NaN of one that cannot be read."""
    levels = []
    for path, scale in zip(rows["path"], rows["scale"], strict=True):
        try:
            levels.append(float(np.median(read_frame(path, scale=scale))))
        except FrameReadError:
            levels.append(np.nan)
    return pd.Series(levels, dtype=float)
