"""What is in a folder: its frames as a table, and lazy cubes of each kind."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from ..core.cube import KINDS, channels_of
from ..core.errors import FrameReadError, WorkbenchError, said_of
from .manifest import MANIFEST, read_manifest
from .metadata import FrameInfo, kind_in_folders, kind_in_words, temperature_in_name
from .reader import differing, frame_row, open_frames, read_metadata

# Best first: of files with one name in a folder, the first of these is the frame and the others were made from it.
_FORMS = {
    "raw": r"3fr|arw|bay|cap|cr[23w]|dc[rs]|drf|erf|fff|gpr|iiq|k25|kdc|mdc|mef|mos|mrw|nef|nrw|orf|pef|ptx|pxn|raf|raw"
    r"|rw[2lz]|sr[2fw]|x3f",
    "dng": r"dng",
    "fits": r"(?:fits?|fts)(?:\.(?:gz|fz|bz2))?",
    "pgm": r"pgm",
    "picture": r"jpe?g|png|tiff?|hei[cf]|hif|gif|bmp|webp|jp2|avif|psd|xisf|ser",
}
_SUFFIXES = {form: re.compile(rf"\.(?:{suffixes})$", re.IGNORECASE) for form, suffixes in _FORMS.items()}
Finding = tuple[str, str, str]  # file, problem, the file with what was found
_GROUPS = ["kind", "iso", "exposure", "temperature"]


def open_folder(path: str | Path, *, progress: bool = True) -> Folder:
    """Look through a folder, at any depth, and return what frames it holds; no pixels are read.

    The kind of a frame comes from a manifest ``frames.csv`` in its folder or above, else from the FITS
    header's ``IMAGETYP``, else from the nearest folder named after a kind (``bias``, ``Darks``,
    ``flat-darks``, ...).  Everything else comes from the manifest where it is given there, else from
    the file; the temperature from the file where it records one, else from the manifest, else from a
    token such as ``-5C`` in the name of the file or a folder.

    A RAW with its JPEG, or with the PGM that dcraw made of it, counts once: as the RAW.

    Parameters
    ----------
    path
        The folder.
    progress
        Show a bar if it takes longer than two seconds.

    Raises
    ------
    WorkbenchError
        If the folder does not exist or holds no frame, or its manifest has a mistake.

    Examples
    --------
    >>> import tempfile
    >>> from workbench.ingest import DngMetadata, write_dng
    >>> folder = Path(tempfile.mkdtemp()) / "bias"
    >>> folder.mkdir()
    >>> for n in range(3):
    ...     metadata = DngMetadata("RGGB", black_level=600, white_level=16383, iso=100, exposure=1 / 8000)
    ...     _ = write_dng(folder / f"{n}.dng", np.full((32, 32), 600, "uint16"), metadata)
    >>> open_folder(folder).bias.sizes["frame"]
    3
    """
    root = Path(path)
    if not root.exists():
        raise WorkbenchError(f"{root}: this folder does not exist; check the name")
    if not root.is_dir():
        raise WorkbenchError(f"{root} is a file; give the folder that holds the frames")
    files = sorted(_files(root), key=_natural)
    given: dict[Path, dict[str, Any]] = {}
    manifests = [file for file in files if file.name.casefold() == MANIFEST]
    for manifest in sorted(manifests, key=lambda file: len(file.parts)):  # the nearer one comes first
        for file, values in read_manifest(manifest).items():
            given[file] = given.get(file, {}) | values
    set_aside = [
        (file, f"named in the manifest {MANIFEST}, but does not exist; correct the name or delete the line")
        for file in given
        if not file.exists()
    ]
    frames, doubled = _frames_among(files, given)
    set_aside += doubled
    rows, findings = [], []
    known: dict[Any, FrameInfo] = {}
    for file in tqdm(frames, desc="looking through frames", unit="frame", delay=2, disable=not progress, leave=False):
        try:
            info = read_metadata(file, known)
        except FrameReadError as error:
            set_aside.append((file, error.problem))
            continue
        row, doubts = _row(info, given.get(file.resolve(), {}), root)
        rows.append(row)
        findings += doubts
    if not rows:
        raise WorkbenchError(_nothing_found(root, files, set_aside))
    return Folder(pd.DataFrame(rows), root, set_aside, findings)


_RESULT, _RESULTS = "sensor.json", ("defects.fits", "dark-library.fits")


def _files(root: Path) -> Iterator[Path]:
    """Find the files, behind links too: each once, by its own name rather than a link's, and no link up or around."""
    seen: set[str] = set()
    above = {str(folder) for folder in root.resolve().parents}
    folders, linked = [root], []
    for start in folders:
        for folder, inner, names in os.walk(start):
            here = os.path.realpath(folder)
            if here in seen | above:
                inner.clear()
                continue
            seen.add(here)
            within = [Path(folder) / name for name in inner if not name.startswith((".", "__MACOSX"))]
            inner[:] = [path.name for path in within if not path.is_symlink()]
            folders += [path for path in within if path.is_symlink()]
            ours = _RESULTS if _RESULT in names else ()  # a folder of results may lie among the frames
            files = [Path(folder) / name for name in names if not name.startswith(".") and name not in ours]
            linked += [path for path in files if path.is_symlink()]
            yield from (path for path in files if not path.is_symlink() and not _again(path, seen))
    yield from (path for path in linked if not _again(path, seen))


def _again(path: Path, seen: set[str]) -> bool:
    """Return whether a file was seen before, under any name, and remember it."""
    real = os.path.realpath(path)
    before = real in seen
    seen.add(real)
    return before


def _natural(path: Path) -> list:
    """Sort key: folders first as they lie, and frame_9 before frame_10."""
    parts = [*(("", part) for part in path.parent.parts), ("~", path.name)]
    return [
        [(lead, int(piece) if piece.isdigit() else -1, piece) for piece in re.split(r"(\d+)", part.casefold())]
        for lead, part in parts
    ]


def _frames_among(files: Sequence[Path], given: dict[Path, Any]) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Pick the frames; of files with one name the best counts, with what the manifest gives for any of them."""
    best: dict[tuple[Path, str], tuple[int, Path]] = {}
    forms: dict[Path, tuple[int, str]] = {}
    for file in files:
        form, stem = _form(file)
        if form is None and file.resolve() in given and file.name.casefold() != MANIFEST:
            form = 0  # named as a frame: whether it is one shows when it is read
        if form is not None:
            forms[file] = form, stem
            best[file.parent, stem] = min(best.get((file.parent, stem), (form, file)), (form, file))
    frames, set_aside = [], []
    for file, (form, stem) in forms.items():
        name = list(_FORMS)[form]
        folders = (file.parent, file.parent.parent) if name in ("pgm", "picture") else (file.parent,)
        better = min((best[folder, stem] for folder in folders if (folder, stem) in best), default=(form, file))
        if better[0] >= form and name != "picture":
            frames.append(file)
            continue
        if better[0] < form:
            given[better[1].resolve()] = given.get(file.resolve(), {}) | given.get(better[1].resolve(), {})
        if name in ("dng", "fits"):
            set_aside.append((file, f"has the name of {better[1].name}, which is used: one exposure, one frame"))
        elif better[0] >= form:
            suffix = file.suffix[1:].upper()
            set_aside.append((file, f"is a finished picture ({suffix}) without its RAW frame; give the RAW frame"))
    return frames, set_aside


def _form(file: Path) -> tuple[int | None, str]:
    """Rank of a file's format by its name, and the name without the suffix."""
    for rank, suffixes in enumerate(_SUFFIXES.values()):
        if found := suffixes.search(file.name):
            return rank, file.name[: found.start()].casefold()
    return None, file.stem.casefold()


def _row(info: FrameInfo, given: dict[str, Any], root: Path) -> tuple[dict[str, Any], list[Finding]]:
    """A frame's row, from its file, the manifest and names; and what is doubtful in it."""
    name = info.path.relative_to(root).as_posix()
    kind = given.get("kind") or kind_in_words(info.imagetyp) or kind_in_folders(info.path, root)
    temperature, doubts = _temperature(info, given.get("temperature"), root)
    if not kind:
        doubts.append(
            (f"kind unknown; name the folder bias, darks, flats, darkflats or lights, or write {MANIFEST}", name)
        )
    pattern = given.get("cfa_pattern", info.cfa_pattern)
    # a mono camera's driver writes no ISO; a FITS frame with one comes from a camera with a mosaic
    unsure = info.format == "pgm" or (info.format == "fits" and info.iso > 0)
    if unsure and pattern == "mono" and "cfa_pattern" not in given:
        doubts.append((f"no CFA pattern recorded, taken for mono; give it in {MANIFEST} (column cfa)", name))
    black = given.get("black_level", info.black_level)
    channels = len(channels_of(pattern))
    values = {key: value for key, value in given.items() if key != "kind"} | {
        "temperature": temperature,
        "black_level": black if len(black) == channels else (black[0],) * channels,
    }
    info = replace(info, **values)
    for quantity, label, column in (("iso", "ISO", "iso"), ("exposure", "exposure", "exposure_s")):
        if np.isnan(getattr(info, quantity)):
            doubts.append((f"no {label} recorded; give it in {MANIFEST} (column {column})", name))
    return frame_row(info, name, kind), [(name, problem, example) for problem, example in doubts]


def _temperature(info: FrameInfo, given: float | None, root: Path) -> tuple[float, list[tuple[str, str]]]:
    """The temperature [°C]: recorded, else given in the manifest, else in a name; and doubts with their example."""
    name = info.path.relative_to(root).as_posix()
    in_name, sure = temperature_in_name(info.path, root)
    claimed = in_name if given is None else given
    if np.isnan(info.temperature):
        doubtful = given is None and not sure
        problem = "the hyphen before the temperature in the name is taken for a minus sign"
        return claimed, [(problem, name)] if doubtful else []
    if abs(claimed - info.temperature) > 2:
        problem = "the recorded temperature differs from that of manifest or name; the recorded one is used"
        return info.temperature, [(problem, f"{name} ({info.temperature:g} °C, not {claimed:g})")]
    return info.temperature, []


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
    for column, name in (("camera", "cameras"), ("full_shape", "sizes"), ("cfa_pattern", "CFA patterns")):
        if found := differing(table, column):
            return [f"the frames are of {table[column].nunique()} {name}: {found}; select one before measuring"]
    return []


def _nothing_found(root: Path, files: Sequence[Path], set_aside: Sequence[tuple[Path, str]]) -> str:
    if set_aside:
        reasons = "; ".join(said_of(file.name, reason) for file, reason in set_aside[:3])
        more = f"; and {len(set_aside) - 3} more" if len(set_aside) > 3 else ""
        return f"no frame in {root} can be used: {reasons}{more}"
    found = f"{len(files)} other files" if files else "nothing"
    return f"{root} has no frames (found {found}); supported are camera RAW, DNG, FITS and dcraw's PGM files"


@dataclass(frozen=True, repr=False, eq=False)
class Folder:
    """The frames of a folder: a table of them, and a lazy cube of each kind.

    ``table`` has one row a frame.  ``bias``, ``dark``, ``flat``, ``darkflat`` and ``light`` are cubes
    (frame, y, x).  ``set_aside`` lists files that cannot be used, each with the reason; ``findings``
    what is doubtful, frame by frame, and ``warnings`` the same as sentences.
    """

    table: pd.DataFrame
    root: Path
    set_aside: list[tuple[Path, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

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
    def cameras(self) -> list[str]:
        """Names of the cameras that made the frames."""
        return sorted(self.table["camera"].unique())

    def cube(self, kind: str, area: str = "visible") -> xr.DataArray:
        """Return all frames of a kind as one lazy cube; ``area="full"`` includes the masked margins.

        Raises
        ------
        WorkbenchError
            If there are none, or they do not fit into one cube.
        """
        if kind not in KINDS:
            raise WorkbenchError(f"kind {kind!r} is not known; choose {', '.join(KINDS)}")
        if not self.has(kind):
            there = ", ".join(f"{n} {k or 'of unknown kind'}" for k, n in self.table["kind"].value_counts().items())
            raise WorkbenchError(
                f"{self.root} has no {kind} frames (it has {there}); put them into a folder named {kind}, "
                f"or name their kind in {MANIFEST}"
            )
        return open_frames(self.table[self.table["kind"] == kind], area=area)

    def has(self, kind: str) -> bool:
        """Tell whether there are frames of that kind."""
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

    def summary(self) -> pd.DataFrame:
        """Return how many frames there are of each kind, ISO, exposure [s] and temperature [whole °C]."""
        counts = self.table.assign(temperature=self.table["temperature"].round())
        counts = counts.groupby(_GROUPS, dropna=False, sort=True).size().rename("frames").reset_index()
        order = counts["kind"].map({kind: n for n, kind in enumerate(KINDS)}).fillna(len(KINDS))
        return counts.iloc[np.argsort(order.to_numpy(), kind="stable")].reset_index(drop=True)

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
        aside = [f"set aside: {said_of(path.name, reason)}" for path, reason in self.set_aside[:10]]
        more = len(self.set_aside) - len(aside)
        return [*self.warnings, *aside, *([f"set aside: {more} more files"] if more > 0 else [])]


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
