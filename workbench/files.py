"""Files that are whole or not there: written aside, then renamed."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from .errors import WorkbenchError

_numbers = itertools.count()


@contextlib.contextmanager
def aside(path: str | Path) -> Iterator[Path]:
    """Yield a path beside the wanted one to write to; it takes the wanted name at the end, and goes after a failure.

    Whoever looks meanwhile sees the old file or none.  The suffix is that of the wanted file, since some writers go by
    it.

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
    """Check that a file can be written before long work goes into it; its folder is made.

    Raises
    ------
    WorkbenchError
        If the path is a folder, or the place cannot be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise WorkbenchError(f"{path} is a folder; give the name of the {kind} to write")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.parent / f".{path.name}.{os.getpid()}.probe"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as problem:
        raise WorkbenchError(
            f"{path.parent}: cannot be written to ({problem.strerror or problem}); choose another --out"
        ) from problem
