"""The numerical loops compiled beforehand: commands run on small simulated frames, side by side."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tqdm.auto import tqdm

from ..core.errors import WorkbenchError
from ..core.parallel import in_threads
from ..simulate.recipe import write_samples
from ..simulate.samples import SMALL

_RUNS = (
    ("stack", "{frames}", "--out", "{out}/stack.fits"),
    ("charts", "--frames", "{frames}", "--out", "{out}/charts"),
)
_THEN = ("finish", "{out}/stack.fits", "--out", "{out}/picture.png")


def compile_loops(progress: bool = True) -> None:
    """Compile the loops of measuring, stacking and finishing for this machine, so that no later command waits for it.

    `workbench.core.kernels.kernel` keeps them on disk; those that are kept already are only loaded.

    Parameters
    ----------
    progress
        Draw a progress bar.

    Raises
    ------
    WorkbenchError
        If a command fails; the message is what it printed.

    Examples
    --------
    >>> compile_loops()  # doctest: +SKIP
    """
    with tempfile.TemporaryDirectory() as out:
        frames = Path(out) / "frames"
        write_samples(frames, SMALL, progress=False)

        def run(command: tuple[str, ...]) -> None:
            words = [word.format(frames=frames, out=out) for word in command]
            call = [sys.executable, "-m", "workbench.cli", *words, "--quiet"]
            done = subprocess.run(call, capture_output=True, text=True, check=False)
            if done.returncode:
                raise WorkbenchError(f"the loops cannot be compiled: {done.stderr.strip() or f'{command[0]} failed'}")

        bar = tqdm(total=len(_RUNS) + 1, desc="compiling", unit="command", disable=not progress, leave=False)
        with bar:
            for _ in in_threads(run, _RUNS, len(_RUNS)):
                bar.update()
            run(_THEN)
            bar.update()
