"""What is in a folder: its frames among its files, and the manifest ``frames.csv`` with what files do not record."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ..core.errors import FrameReadError, WorkbenchError, of_one_file, printable, said_of_all
from ..core.files import FORMS, holder, real
from .containers import frames_in
from .folder import MANIFEST, Finding, Folder
from .metadata import FrameInfo, kind_in_folders, kind_in_words
from .reader import frame_row, read_metadata
from .review import foreign, review
from .unrecorded import exposure_in_name, iso_in_name, read_manifest, temperature_in_name, with_name_of_dwarf

_WITH_ISO = ("raw", "dng", "tiff", "pgm")  # formats of cameras with an ISO; cooled ones have a gain setting or one gain
_SUFFIXES = {form: re.compile(rf"\.(?:{suffixes})$", re.IGNORECASE) for form, suffixes in FORMS.items()}


def open_folder(path: str | Path, *, progress: bool = True, without: Container[Path] = ()) -> Folder:
    """Look through a folder, at any depth, and return what frames it holds; of pixels only samples are read.

    The kind of a frame comes from a manifest ``frames.csv`` in its folder or above, else from the FITS
    header's ``IMAGETYP``, else from the nearest folder named after a kind (``bias``, ``Darks``,
    ``flat-darks``, ...), else from the file's name.  Everything else comes from the manifest where it is given
    there, else from the file; the temperature from the file where it records one, else from the manifest, else
    from a token such as ``-5C`` in the name of the file or a folder.  ISO and exposure that neither states come
    from such a token too (``ISO800``, ``60s``, ``1-125s``), and the mosaic from the pixels of flats and lights.

    A RAW with its JPEG, or with the PGM or TIFF that dcraw made of it, counts once: as the RAW; and so does an exposure
    of which there is a copy anywhere in the folder.  Masters of other programs, stacks and processed pictures are set
    aside, unless the manifest gives them a kind.  Files in `without` are passed over.

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
    files, set_aside = _files(root)
    files.sort(key=_natural)
    given: dict[Path, dict[str, Any]] = {}
    manifests = [file for file in files if file.name.casefold() == MANIFEST]
    for manifest in sorted(manifests, key=lambda file: len(file.parts)):  # the nearer one comes first
        for file, values in read_manifest(manifest).items():
            given[file] = given.get(file, {}) | values
    set_aside += _not_here(given, files)
    frames, doubled = _frames_among(files, given, root)
    set_aside += doubled
    frames = _each_frame([file for file in frames if file not in without], given, set_aside)
    rows, masters, findings = [], [], list[Finding]()
    known: dict[Any, dict[str, Any]] = {}
    for file in tqdm(frames, desc="looking through frames", unit="frame", delay=2, disable=not progress, leave=False):
        try:
            row, doubts, reason, master = _looked_at(file, given.get(real(file), {}), root, known)
        except FrameReadError as error:
            set_aside.append((file, error.problem))
            continue
        if reason:
            set_aside.append((file, reason))
            masters += [row | {"kind": master}] if master else []
            continue
        rows.append(row)
        findings += doubts
    if not rows:
        raise WorkbenchError(_nothing_found(root, files, set_aside))
    table, more_aside, doubts = review(pd.DataFrame(rows))
    return Folder(table, root, set_aside + more_aside, findings + doubts, pd.DataFrame(masters))


_LONGEST = 86_400  # s, of an exposure
_RESULT, _RESULTS = "sensor.json", ("defects.fits", "dark-library.fits")


def _files(root: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Find the files, behind links too: each once, by its own name rather than a link's, and no link up or around.

    Also the folders that cannot be read, with the reason.
    """
    locked: list[tuple[Path, str]] = []

    def lock(problem: OSError) -> None:
        reason = problem.strerror or str(problem)
        locked.append(
            (Path(problem.filename), f"is a folder that cannot be read ({reason}), and what is in it is missing")
        )

    seen: set[str] = set()
    above = {str(folder) for folder in real(root).parents}
    folders, own, linked = [root], list[Path](), list[Path]()
    for start in folders:
        for folder, inner, names in os.walk(start, onerror=lock):
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
            own += [path for path in files if not path.is_symlink()]
    return [*{os.path.realpath(path): path for path in reversed([*own, *linked])}.values()], locked


def _not_here(given: Mapping[Path, Any], files: Sequence[Path]) -> list[tuple[Path, str]]:
    """What the manifest names that is not among the files, with the reason."""
    here = {real(file) for file in files}
    problems = []
    for file in given:
        if holder(file) not in here:
            there = (
                "lies outside this folder or in a hidden one, and is not read" if file.exists() else "does not exist"
            )
            problems.append(
                (file, f"named in the manifest {MANIFEST}, but {there}; correct the name or delete the line")
            )
    return problems


@of_one_file
def _looked_at(
    file: Path, stated: dict[str, Any], root: Path, known: dict[Any, dict[str, Any]]
) -> tuple[dict[str, Any], list[Finding], str, str]:
    """A file's row and what is doubtful in it; why it is not a raw frame, and of which kind it is a master."""
    info = with_name_of_dwarf(read_metadata(file, known))
    row, doubts = _row(info, stated, root)
    reason, master, row["scale"] = foreign(info, root, stated)
    if row["scale"] > 1:
        row["white_level"] = row["scale"]
    return row, doubts, reason, master


def _natural(path: Path) -> list:
    """Sort key: folders first as they lie, and frame_9 before frame_10."""
    parts = [*(("", part) for part in path.parent.parts), ("~", path.name)]
    return [
        [(lead, int(piece) if piece.isdigit() else -1, piece) for piece in re.split(r"(\d+)", part.casefold())]
        for lead, part in parts
    ]


def _forms(files: Sequence[Path], given: dict[Path, Any]) -> dict[Path, tuple[int, str]]:
    """Return the rank of its format, and the name without the suffix, of each file that may be a frame."""
    forms = {}
    for file in files:
        form, stem = _form(file)
        if form is None and real(file) in given and file.name.casefold() != MANIFEST:
            form = 0  # named as a frame: whether it is one shows when it is read
        if form is not None:
            forms[file] = form, stem
    return forms


def _frames_among(
    files: Sequence[Path], given: dict[Path, Any], root: Path
) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Pick the frames; of files with one name the best counts, with what the manifest gives for any of them."""
    best: dict[tuple[Path, str], tuple[int, Path]] = {}
    forms = _forms(files, given)
    for file, (form, stem) in forms.items():
        best[file.parent, stem] = min(best.get((file.parent, stem), (form, file)), (form, file))
    origins = _origins(forms, root)
    frames, set_aside = [], []
    for file, (form, stem) in forms.items():
        name = list(FORMS)[form]
        folders = (file.parent, file.parent.parent) if name in ("tiff", "pgm", "picture") else (file.parent,)
        better = min((best[folder, stem] for folder in folders if (folder, stem) in best), default=(form, file))
        if better[0] == form and file in origins:
            better = (0, origins[file])
            if (kind := kind_in_folders(file, root)) and not kind_in_folders(better[1], root):
                given[real(file)] = {"kind": kind} | given.get(real(file), {})
        if better[0] >= form and name != "picture":
            frames.append(file)
            continue
        if better[0] < form:
            given[real(better[1])] = given.get(real(file), {}) | given.get(real(better[1]), {})
        if name in ("dng", "fits", "xisf"):
            set_aside.append((file, f"has the name of {better[1].name}, which is used: one exposure, one frame"))
        elif better[0] >= form:
            suffix = file.suffix[1:].upper()
            set_aside.append((file, f"is a finished picture ({suffix}) without its RAW frame; give the RAW frame"))
    return frames, set_aside


def _each_frame(
    files: Sequence[Path], given: dict[Path, dict[str, Any]], set_aside: list[tuple[Path, str]]
) -> list[Path]:
    """The files, and of a video each of its frames with what the manifest gives for the video; others are set aside."""
    frames = []
    for file in files:
        try:
            inner = frames_in(file)
        except FrameReadError as error:
            set_aside.append((file, error.problem))
            continue
        frames += inner
        for frame in inner:
            if frame != file and (stated := given.get(real(file))):
                given[real(frame)] = stated | given.get(real(frame), {})
    return frames


def _origins(forms: Mapping[Path, tuple[int, str]], root: Path) -> dict[Path, Path]:
    """For each grey map and TIFF the one RAW of its name, in whatever folder, from which it can have been made.

    None is made from a RAW of another kind, no two from one.
    """
    raws: dict[str, list[Path]] = {}
    for file, (form, stem) in forms.items():
        if list(FORMS)[form] in ("raw", "dng"):
            raws.setdefault(stem, []).append(file)
    origins: dict[Path, Path] = {}
    for file, (form, stem) in forms.items():
        if list(FORMS)[form] in ("pgm", "tiff"):
            kinds = ("", kind_in_folders(file, root))
            fitting = [raw for raw in raws.get(stem, []) if not kinds[1] or kind_in_folders(raw, root) in kinds]
            origins |= {file: fitting[0]} if len(fitting) == 1 else {}
    claims = Counter(origins.values())
    return {file: raw for file, raw in origins.items() if claims[raw] == 1}


def _form(file: Path) -> tuple[int | None, str]:
    """Rank of a file's format by its name, and the name without the suffix."""
    for rank, suffixes in enumerate(_SUFFIXES.values()):
        if found := suffixes.search(file.name):
            return rank, file.name[: found.start()].casefold()
    return None, file.stem.casefold()


def _row(info: FrameInfo, given: dict[str, Any], root: Path) -> tuple[dict[str, Any], list[Finding]]:
    """A frame's row, from its file, the manifest and names; and what is doubtful in it."""
    name = printable(info.path.relative_to(root).as_posix())
    kind, of_kind = _kind(info, given.get("kind"), root)
    temperature, doubts = _temperature(info, given.get("temperature"), root)
    doubts += [(doubt, name) for doubt in of_kind]
    values = {key: value for key, value in given.items() if key != "kind"} | {
        "temperature": temperature,
        "cfa_stated": info.cfa_stated or "cfa_pattern" in given,
    }
    info = replace(info, **values)
    named: dict[str, Any] = _named(info, root)
    if named:
        words = ", ".join(f"ISO {value:g}" if key == "iso" else f"{value:g} s" for key, value in named.items())
        doubts.append(("ISO and exposure that no file records are taken from names", f"{name} ({words})"))
        info = replace(info, **named)
    doubts += [(doubt, name) for doubt in info.doubts]
    info, missing = _possible(info, name)
    return frame_row(info, name, kind), [(name, problem, example) for problem, example in [*doubts, *missing]]


def _kind(info: FrameInfo, given: str | None, root: Path) -> tuple[str, list[str]]:
    """A frame's kind, as the manifest gives it, else the header, the folders or the name; and what is doubtful."""
    folder = kind_in_folders(info.path, root)
    lone = "light" if info.format == "ser" or "dwarf" in info.camera.casefold() else ""  # they name no kind
    kind = given or kind_in_words(info.imagetyp) or folder or kind_in_words(info.path.stem) or lone
    if not kind:
        return "", [f"kind unknown; name the folder bias, darks, flats, darkflats or lights, or write {MANIFEST}"]
    if given or folder in ("", kind):
        return kind, []
    problem = f"the header says {info.imagetyp!r}, the folder {folder}: it counts as {kind}"
    return kind, [f"{problem}; if that is wrong, name its kind in {MANIFEST}"]


def _possible(info: FrameInfo, name: str) -> tuple[FrameInfo, list[tuple[str, str]]]:
    """The record without an exposure that cannot be; and what is missing in it, with the example."""
    doubts = []
    if not np.isnan(info.exposure) and not 0 <= info.exposure <= _LONGEST:
        problem = "the exposure is below zero or longer than a day and counts as not recorded; is its unit seconds?"
        doubts.append((problem, f"{name} ({info.exposure:g} s)"))
        info = replace(info, exposure=np.nan)
    for quantity, label, column in (("iso", "ISO", "iso"), ("exposure", "exposure", "exposure_s")):
        if np.isnan(getattr(info, quantity)) and (quantity != "iso" or info.format in _WITH_ISO):
            doubts.append((f"no {label} recorded; give it in {MANIFEST} (column {column})", name))
    return info, doubts


def _named(info: FrameInfo, root: Path) -> dict[str, float]:
    """The ISO and exposure that names state of a frame which does not record them."""
    values = {}
    if np.isnan(info.iso) and np.isnan(info.gain_setting):
        values["iso"] = iso_in_name(info.path, root)
    if np.isnan(info.exposure):
        values["exposure"] = exposure_in_name(info.path, root)
    return {key: value for key, value in values.items() if not np.isnan(value)}


def _temperature(info: FrameInfo, given: float | None, root: Path) -> tuple[float, list[tuple[str, str]]]:
    """The temperature [°C]: recorded, else given in the manifest, else in a name; and doubts with their example."""
    name = printable(info.path.relative_to(root).as_posix())
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


def _nothing_found(root: Path, files: Sequence[Path], set_aside: Sequence[tuple[Path, str]]) -> str:
    if set_aside:
        reasons = said_of_all(set_aside)
        more = f"; and {len(reasons) - 3} more reasons" if len(reasons) > 3 else ""
        return f"no frame in {root} can be used: {'; '.join(reasons[:3])}{more}"
    found = f"{len(files)} other files" if files else "nothing"
    supported = "camera RAW, DNG, FITS, XISF, SER, TIFF and dcraw's PGM files"
    return f"{root} has no frames (found {found}); supported are {supported}"
