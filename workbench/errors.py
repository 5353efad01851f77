"""What goes wrong because of the input, said so that the reader knows what to do."""

from __future__ import annotations

from pathlib import Path


class WorkbenchError(ValueError):
    """A mistake in the input; the message says what was found, what was expected, what to do."""


class FrameReadError(WorkbenchError):
    """One file that cannot be used as a frame; `path` names it, so that it can be set aside."""

    def __init__(self, path: str | Path, problem: str) -> None:
        self.path = Path(path)
        self.problem = problem
        super().__init__(f"{self.path}: {problem}")

    def __reduce__(self):  # crosses process borders with both arguments
        return type(self), (self.path, self.problem)


class StageError(WorkbenchError):
    """A cube of the wrong stage was given to a verb."""
