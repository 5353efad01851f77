"""Files that are whole or not there: written next to their place, then renamed."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from .errors import WorkbenchError

_numbers = itertools.count()


def holder(path: str | Path) -> Path:
    """Return the file that holds a frame: of a video's frame ``moon.ser#0012`` it is ``moon.ser``, else the path.

    Examples
    --------
    >>> holder("lights/moon.ser#0012").name, holder("a.fits").name
    ('moon.ser', 'a.fits')
    """
    path = Path(path)
    return path.with_name(path.name.rpartition("#")[0]) if re.search(r"\.ser#\d+$", path.name, re.I) else path


@contextlib.contextmanager
def aside(path: str | Path) -> Iterator[Path]:
    """Yield a path next to the wanted one to write to; it takes the wanted name at the end, and goes after a failure.

    Until then readers see the old file or none.  The suffix is that of the wanted file, as some writers go by it.

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
    part = path.with_name(f".{path.stem}.{os.getpid()}-{next(_numbers)}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_file(path: str | Path, what: str = "", advice: str = "choose another folder") -> Iterator[Path]:
    """Yield a path to write to, as `aside`, and make the folder; what the system refuses becomes a clear message.

    Raises
    ------
    WorkbenchError
        Naming the file, the reason and the `advice`; `what` says what the file would have been.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside(path) as part:
            yield part
    except OSError as problem:
        subject = f"{what} cannot" if what else "cannot"
        raise WorkbenchError(f"{path}: {subject} be written ({problem.strerror or problem}); {advice}") from problem


def check_target(path: str | Path, kind: str = "file") -> None:
    """Check that a file can be written before long work goes into it; nothing is left behind.

    Raises
    ------
    WorkbenchError
        If the path is a folder, or the place cannot be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise WorkbenchError(f"{path} is a folder; give the name of the {kind} to write")
    check_folder(path.parent)


def check_folder(path: str | Path, advice: str = "choose another place") -> None:
    """Check that a folder can be made and written into before long work goes into it; nothing is left behind.

    Raises
    ------
    WorkbenchError
        If it cannot; the message ends with the `advice`.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> check_folder(folder / "new" / "charts")
    >>> list(folder.iterdir())
    []
    """
    path = Path(path)
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    problem, what = None, "made a folder"
    try:
        path.mkdir(parents=True, exist_ok=True)
        what = "written to"
        probe = path / f".{os.getpid()}-{next(_numbers)}.probe"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        problem = error
    for folder in made:
        with contextlib.suppress(OSError):  # not made, or no longer empty
            folder.rmdir()
    if problem is not None:
        raise WorkbenchError(f"{path}: cannot be {what} ({problem.strerror or problem}); {advice}") from problem
