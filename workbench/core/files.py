"""Files that are whole or not there: written next to their place, then renamed; and never over somebody else's."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import itertools
import os
import platform
import re
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import filelock
import psutil

from .errors import WorkbenchError

_numbers = itertools.count()
_MACHINE = f"{zlib.crc32(platform.node().encode()):08x}"  # others, whose processes do not show, may share a folder
MARK = "made by the Astrophoto Workbench"  # for files whose form has no record of its own
_OURS = re.compile(
    rb'by the Astrophoto Workbench|astrophoto-workbench \d|iTXtworkbench\0|WORKBNCH|WBATTRS|WBLIB|"schema_version"'
    rb"|\Akind,iso,exposure_s,temperature_c,|\Afile,(?:filter,)?exposure,stars,"
    rb"|\Ax,y,(?:ra,dec,)?(?:magnitude,magnitude_error,)?fwhm,flags,|\Afilename,time,hours,relative_flux,"
)
# Best first: of files with one name in a folder, the first of these is the frame and the others were made from it.
FORMS = {
    "raw": r"3fr|arw|bay|cap|cr[23w]|dc[rs]|drf|erf|fff|gpr|iiq|k25|kdc|mdc|mef|mos|mrw|nef|nrw|orf|pef|ptx|pxn|raf|raw"
    r"|rw[2lz]|sr[2fw]|x3f",
    "dng": r"dng",
    "fits": r"(?:fits?|fts)(?:\.(?:gz|fz|bz2))?",
    "xisf": r"xisf",
    "ser": r"ser",
    "tiff": r"tiff?",
    "pgm": r"pgm",
    "picture": r"jpe?g|png|hei[cf]|hif|gif|bmp|webp|jp2|avif|psd",
}
_FRAME = re.compile(rf"\.(?:{'|'.join(FORMS[form] for form in ('raw', 'dng', 'fits', 'xisf', 'ser'))})$", re.IGNORECASE)
_LOOKED_AT = 1 << 18  # bytes at the beginning and at the end of a file
_SAMPLES, _SAMPLE = 5, 4096  # blocks of a file that its fingerprint looks at, and their bytes
_overwriting: ContextVar[bool] = ContextVar("overwriting", default=False)


@contextlib.contextmanager
def overwriting() -> Iterator[None]:
    """Let files be replaced that the workbench did not make; frames, other inputs, links and devices never are."""
    before = _overwriting.set(True)
    try:
        yield
    finally:
        _overwriting.reset(before)


def is_ours(path: str | Path) -> bool:
    """Return whether a file is a result of the workbench, by the record in it, or holds nothing at all."""
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        found = file.read(_LOOKED_AT)
        file.seek(max(0, size - _LOOKED_AT))
        return not size or bool(_OURS.search(found) or _OURS.search(file.read()))


def require_replaceable(path: str | Path, inputs: Iterable[str | Path] = ()) -> None:
    """Check that a result may take this name: nothing has it, or an earlier result of the workbench.

    Parameters
    ----------
    inputs
        Files that are read, which nothing may replace, whatever their names.

    Raises
    ------
    WorkbenchError
        If the path is an input, a link, no ordinary file, or a file that the workbench did not make (which
        `overwriting` allows).
    """
    path = Path(path)
    _require_ordinary(path)
    if not path.exists():
        return
    there = path.stat()
    for one in inputs:
        with contextlib.suppress(OSError):
            if os.path.samestat(there, os.stat(one)):
                raise WorkbenchError(f"{path} is an input, which is never overwritten; choose another name")
    with contextlib.suppress(OSError):  # what cannot be read shows when it is written
        if not _overwriting.get() and not is_ours(path):
            raise WorkbenchError(
                f"{path} exists and was not made by the workbench; choose another name, or replace it with --overwrite"
            )


def real(path: str | Path) -> Path:
    """Return the path without links; one of a loop of links is itself."""
    return Path(os.path.realpath(path))


def read_text(path: str | Path) -> str:
    """Return a file's text in UTF-8, a byte-order mark left out.

    Raises
    ------
    WorkbenchError
        If it does not exist, is a pipe (reading would not end), longer than 256 MiB, or no text.
    """
    path = Path(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise WorkbenchError(f"{path} is not an ordinary file; give a text file")
        if status.st_size > 1 << 28:
            raise WorkbenchError(f"{path} has {status.st_size:,} bytes, too many for a file of its kind")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise WorkbenchError(f"{path}: does not exist; check the name") from None
    except UnicodeDecodeError as error:
        raise WorkbenchError(f"{path}: is not text in UTF-8 ({error}); save it as such") from None
    except OSError as error:
        raise WorkbenchError(f"{path}: cannot be read ({error.strerror})") from None


def fingerprint(path: str | Path) -> tuple[int, int, str]:
    """Return a file's size, the time of its last change [ns] and a digest of blocks at its ends and in between.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with holder(path).open("rb") as file:
        state = os.fstat(file.fileno())
        sampled = hashlib.sha256()
        for part in range(_SAMPLES):
            file.seek(max(0, state.st_size - _SAMPLE) * part // (_SAMPLES - 1))
            sampled.update(file.read(_SAMPLE))
    return state.st_size, state.st_mtime_ns, sampled.hexdigest()


def fingerprints(paths: Iterable[str | Path]) -> dict[Path, Any]:
    """Return the `fingerprint` of each file, None of one that cannot be read."""
    found: dict[Path, Any] = {}
    for path in map(Path, paths):
        with contextlib.suppress(OSError):
            found[path] = None
            found[path] = fingerprint(path)
    return found


def require_unchanged(before: Mapping[Path, Any]) -> None:
    """Check that files are what they were when `fingerprints` looked at them.

    Raises
    ------
    WorkbenchError
        If one is not, so that what was made is of old and new pixels.
    """
    if changed := [path for path, state in fingerprints(before).items() if state != before[path]]:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise WorkbenchError(
            f"{changed[0]}{more} changed or went while it was used, so nothing is written; the same command uses the "
            "files as they are now"
        )


@contextlib.contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Let no other run that asks for it write a file or folder; the lock is a file next to it, gone in the end.

    Raises
    ------
    WorkbenchError
        If another run has it, or the place cannot be written to.
    """
    path = Path(path)
    place = path.with_name(f".{path.name.lstrip('.')}.lock")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(place, timeout=0)
        lock.acquire()
    except filelock.Timeout:
        raise WorkbenchError(
            f"{path} is being written by another run; wait for its end or choose another name"
        ) from None
    except OSError as problem:
        raise WorkbenchError(f"{place}: cannot be written ({problem.strerror}); choose another place") from None
    try:
        yield
    finally:
        place.unlink(missing_ok=True)
        lock.release()


def holder(path: str | Path) -> Path:
    """Return the file that holds a frame: of a video's frame ``moon.ser#0012`` it is ``moon.ser``, else the path.

    Examples
    --------
    >>> holder("lights/moon.ser#0012").name, holder("a.fits").name
    ('moon.ser', 'a.fits')
    """
    path = Path(path)
    return path.with_name(path.name.rpartition("#")[0]) if re.search(r"\.ser#\d+$", path.name, re.I) else path


def _require_ordinary(path: Path) -> None:
    """Check that a name is free or that of an ordinary file."""
    if path.is_symlink():
        raise WorkbenchError(f"{path} is a link to {os.readlink(path)}; nothing is written through links: remove it")
    if path.exists() and not path.is_file():
        raise WorkbenchError(f"{path} is not an ordinary file (a folder, a device, a pipe); choose another name")


@contextlib.contextmanager
def aside(path: str | Path) -> Iterator[Path]:
    """Yield a path next to the wanted one to write to; it takes the wanted name at the end, and goes after a failure.

    Until then readers see the old file or none.  The suffix is that of the wanted file, as some writers go by it.  The
    file is on the disk before it has its name: a power cut leaves it whole, old or new.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "result.txt"
    >>> with aside(path) as part:
    ...     _ = part.write_text("whole")
    ...     path.exists()
    False
    >>> path.read_text(), len(list(path.parent.iterdir()))
    ('whole', 1)
    """
    path = Path(path)
    _require_ordinary(path)
    part = path.with_name(f".{path.stem}.{_MACHINE}-{os.getpid()}-{next(_numbers)}.part{path.suffix}")
    try:
        yield part
        make_durable(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def make_durable(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk, where no power cut takes them."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some file systems cannot do it for folders
            raise
    finally:
        os.close(handle)


def _sweep(path: Path) -> None:
    """Remove what processes of this machine that were killed left of this file."""
    kind = f".{glob.escape(path.stem)}.{_MACHINE}-*.part{glob.escape(path.suffix)}"
    for left in path.parent.glob(kind):
        if not psutil.pid_exists(int(left.name.rpartition(f".{_MACHINE}-")[2].split("-")[0])):
            left.unlink(missing_ok=True)


def remove_folder(work: Path) -> None:
    """Remove a working folder as far as that is possible; `run.json`, which says what it is, is emptied and goes last.

    A kill may come in between: then the next run knows the folder, and goes on from nothing in it.
    """
    with contextlib.suppress(OSError):
        if (marker := work / "run.json").is_file():
            marker.write_text("")
            make_durable(marker)
        for path in work.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != "run.json":
                path.unlink(missing_ok=True)
    shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def whole_file(
    path: str | Path, what: str = "", advice: str = "choose another folder", *, frame: bool = False
) -> Iterator[Path]:
    """Yield a path to write to, as `aside`, and make the folder; what the system refuses becomes a clear message.

    A `frame` of the virtual camera may replace any ordinary file, a result those of `require_replaceable`.  A result's
    name is on the disk at the end, and what a killed run left of it is gone.

    Raises
    ------
    WorkbenchError
        Naming the file, the reason and the `advice`; `what` says what the file would have been.
    """
    path = Path(path)
    try:
        if not frame:
            require_replaceable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not frame:
            _sweep(path)
        with aside(path) as part:
            yield part
        if not frame:
            make_durable(path.parent)
    except OSError as problem:
        subject = f"{what} cannot" if what else "cannot"
        raise WorkbenchError(f"{path}: {subject} be written ({problem.strerror or problem}); {advice}") from problem


def check_target(
    path: str | Path, kind: str = "file", *, inputs: Iterable[str | Path] = (), frames: Iterable[str | Path] = ()
) -> None:
    """Check that a file can be written before long work goes into it; nothing is left behind.

    `inputs` are files that are read; next to `frames` nothing is written, where it would be taken for one of them.

    Raises
    ------
    WorkbenchError
        If the path is a folder, may not be replaced (see `require_replaceable`), lies among the frames, or the place
        cannot be written to.
    """
    path, frames = Path(path), list(frames)
    if path.is_dir():
        raise WorkbenchError(f"{path} is a folder; give the name of the {kind} to write")
    require_replaceable(path, [*inputs, *frames])
    here = os.path.realpath(path.parent)
    if here in {os.path.realpath(Path(frame).parent) for frame in frames}:
        raise WorkbenchError(f"{path} would lie among the frames of {path.parent}; choose a folder of its own for it")
    check_folder(path.parent)


def _foreign_frame(folder: Path) -> Path | None:
    """Return a frame in a folder that the workbench did not make, None without."""
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir()):
            if _FRAME.search(path.name) and path.is_file() and not (path.suffix.startswith(".f") and is_ours(path)):
                return path
    return None


def check_folder(
    path: str | Path,
    advice: str = "choose another place",
    names: Iterable[str] = (),
    *,
    frames: str | Path | None = None,
) -> None:
    """Check that a folder can be made and files of these names written into it before long work; nothing is left there.

    `frames` is a folder of frames that it must not lie in; nor must it hold frames itself, if files are named.

    Raises
    ------
    WorkbenchError
        If it cannot, or lies there; the message ends with the `advice`.  If one of the files may not be replaced.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> check_folder(folder / "new" / "charts")
    >>> list(folder.iterdir())
    []
    """
    path = Path(path)
    if frames is not None and path.resolve().is_relative_to(Path(frames).resolve()):
        raise WorkbenchError(f"{path} lies within {frames}, where its files would be taken for frames; {advice}")
    names = list(names)
    if names and (frame := _foreign_frame(path)) is not None:
        raise WorkbenchError(f"{path} holds frames ({frame.name}), results would lie among them; {advice}")
    for name in names:
        require_replaceable(path / name)
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    problem, what = None, "made a folder"
    try:
        path.mkdir(parents=True, exist_ok=True)
        what = "written to"
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        problem = error
    for folder in made:
        with contextlib.suppress(OSError):  # not made, or no longer empty
            folder.rmdir()
    if problem is not None:
        raise WorkbenchError(f"{path}: cannot be {what} ({problem.strerror or problem}); {advice}") from problem
