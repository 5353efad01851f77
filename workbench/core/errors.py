"""What goes wrong because of the input, said so that the reader knows what to do."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

Reader = TypeVar("Reader", bound=Callable[..., Any])


def printable(text: object) -> str:
    """Return a text with what a terminal would obey, not show, written as Python writes it.

    Examples
    --------
    >>> printable("bell\\x07.fits"), printable("M 31 é")
    ('bell\\\\x07.fits', 'M 31 é')
    """
    text = str(text)
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def said_of(subject: object, problem: str) -> str:
    """Join what is spoken of and what is the matter with it: with a colon, unless they are one sentence.

    Examples
    --------
    >>> said_of("a.nef", "is empty"), said_of("a.nef", "no such file")
    ('a.nef is empty', 'a.nef: no such file')
    """
    subject, problem = printable(subject), printable(problem)
    verbs = ["is", "was", "has", "does", "holds", "cannot", "decodes", "shows", "differs", "named", "belongs"]
    return f"{subject} {problem}" if problem.split(" ", 1)[0] in verbs else f"{subject}: {problem}"


def said_of_all(set_aside: Iterable[tuple[str | Path, str]]) -> list[str]:
    """Return one sentence a reason, with its first file and how many more there are.

    Numbers, names and what stands in brackets may differ.

    Examples
    --------
    >>> said_of_all([("a.fits", "is equal to x.fits"), ("b.fits", "is equal to y.fits"), ("c.fits", "is empty")])
    ['a.fits is equal to x.fits (and 1 more file like it)', 'c.fits is empty']
    """
    groups: dict[str, list[str]] = {}
    for subject, problem in set_aside:
        name = subject.name if isinstance(subject, Path) else subject
        alike = re.sub(r"\([^)]*\)|'[^']*'|\S*[\d./]\S*", "#", problem)
        groups.setdefault(alike, []).append(said_of(name, problem))
    return [
        first + (f" (and {len(more)} more file{'s' * (len(more) > 1)} like it)" if more else "")
        for first, *more in groups.values()
    ]


class Guess(str):
    """A warning that names a cause, which another finding may exclude: `facts` are the words before it.

    `blamed` is the kind of cause: warmth, lamp, bend, ...

    Examples
    --------
    >>> text = Guess("the levels lie off a line", "the lamp does this", "lamp")
    >>> str(text), text.facts
    ('the levels lie off a line; the lamp does this', 'the levels lie off a line')
    """

    facts: str
    blamed: str

    def __new__(cls, facts: str, cause: str = "", blamed: str = "") -> Guess:
        """Join facts and cause by a semicolon."""
        text = super().__new__(cls, f"{facts}; {cause}" if cause else facts)
        text.facts, text.blamed = facts, blamed
        return text


class WorkbenchError(ValueError):
    """A mistake in the input; the message says what was found, what was expected, what to do."""

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows in place of a traceback: the message."""
        return [str(self)]


class FrameReadError(WorkbenchError):
    """One file that cannot be used as a frame; `path` names it, so that it can be set aside."""

    def __init__(self, path: str | Path, problem: str) -> None:
        self.path: Path = Path(path)
        self.problem = problem
        super().__init__(said_of(self.path, problem))

    def __reduce__(self) -> tuple[type, tuple[Path, str]]:  # crosses process borders with both arguments
        return type(self), (self.path, self.problem)


def of_one_file(read: Reader) -> Reader:
    """Decorate what reads one file, the first argument: whatever goes wrong in it is a `FrameReadError` of that file.

    Parsers raise all kinds for damaged data; one bad file is set aside and never ends the work on the others.
    """

    @functools.wraps(read)
    def checked(path: str | Path, *args: Any, **options: Any) -> Any:
        try:
            return read(path, *args, **options)
        except WorkbenchError:
            raise
        except MemoryError:
            raise FrameReadError(path, "needs more memory than there is; is its size in the header right?") from None
        except Exception as error:
            problem = f"{type(error).__name__}: {error}".splitlines()[0]
            raise FrameReadError(path, f"cannot be read ({problem}); save or copy it again") from error

    return checked  # type: ignore[return-value]


class StageError(WorkbenchError):
    """A cube of the wrong stage was given to a verb."""
