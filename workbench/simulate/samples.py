"""The sample frames: folders as a user would have them, shot by the virtual camera, with their truth.

The recipes are fixed and seeded, so the same bytes come out every time; `samples.sha256` lists them.  A set is made on
first use and kept; a small set of the same form is committed in ``data-samples/small``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import platformdirs
from filelock import FileLock

from ..core.errors import WorkbenchError
from .narrowband import write_cooled
from .recipe import ROOM, Recipe, write_samples
from .transit import Transit, write_transit

HASHES = Path(__file__).with_name("samples.sha256")
_PROJECT = Path(__file__).parents[2]
_FREEZER = -18.0  # °C


class SampleWarning(UserWarning):
    """The sample frames differ from the published ones."""


FULL = Recipe(
    shape=(480, 720),
    isos=(100, 200, 400, 800, 1600, 3200, 6400),
    bias=8,
    steps=(1, 3, 6, 9, 12),
    transfer=(16,),
    darks=(
        *((800, ROOM, exposure, 4) for exposure in (30.0, 60.0, 120.0, 300.0, 600.0)),
        *((800, temperature, exposure, 4) for temperature in (0.0, 30.0) for exposure in (120.0, 600.0)),
        (800, 10.0, 120.0, 8),
        (800, 10.0, 600.0, 4),
        # the two that the blog's author took
        (200, ROOM, 60.0, 4),
        (200, _FREEZER, 600.0, 4),
    ),
    lights=(5, 3),
    focal_length=50.0,
    thermometer=((-18.0, 0.5), (0.0, -0.4), (30.0, 0.3)),
)
SMALL = Recipe(
    shape=(192, 288),
    isos=(200, 800),
    bias=4,
    steps=(3, 6, 9),
    transfer=(0,),
    darks=tuple((800, temperature, exposure, 2) for temperature in (10.0, 20.0) for exposure in (120.0, 600.0)),
    lights=(2, 1),
    focal_length=24.0,
)
# one long light on a summer night, with its own darks: what dark subtraction does can be seen
WARM = Recipe(
    shape=(320, 480),
    isos=(800,),
    bias=8,
    steps=(1, 4),
    transfer=None,
    darks=((800, 30.0, 300.0, 8),),
    lights=(2,),
    focal_length=35.0,
    light=(800, 30.0, 300.0),
)
# an exercise: dust has moved between flats and lights, the darks were warmer than they state, one light is there twice
FAULTS = Recipe(
    shape=(320, 480),
    isos=(800,),
    bias=6,
    steps=(1, 2, 4),
    transfer=None,
    darks=((800, 20.0, 300.0, 8),),
    lights=(5,),
    focal_length=35.0,
    light=(800, 20.0, 300.0),
    thermometer=((20.0, 8.0),),
    dust=(8, 0.4),
    dust_moved=(12, -16),
    doubled=2,
)
SETS: dict[str, Callable[..., Path]] = {
    "": lambda folder, **how: write_samples(folder, FULL, **how),
    "warm": lambda folder, **how: write_samples(folder, WARM, **how),
    "faults": lambda folder, **how: write_samples(folder, FAULTS, **how),
    "cooled": lambda folder, **_: write_cooled(folder),
    "transit": lambda folder, **_: (
        write_transit(folder, Transit(middle=0.85, duration=1.0), lights=40, calibration=6, seed=2).folder
    ),
}


def sample_folder(name: str = "", *, progress: bool = True) -> Path:
    """Return the folder of a set of sample frames, which a virtual camera shoots on first use.

    It lies in ``data-samples/generated`` of the project, or in the user's cache folder where the project is
    missing or cannot be written; the environment variable ``WORKBENCH_CACHE`` names another folder.  The set appears
    whole or not at all, and is made again when a later version of the workbench changes it.

    Parameters
    ----------
    name
        Nothing: the full set, 145 MB, which every command takes when no folder is given.  ``"warm"``: two lights of
        300 s at 30 °C with their darks, 8 MB.  ``"faults"``: an exercise, a small night with three faults, 8 MB.
        ``"cooled"``: a cooled mono camera, lights through SII, Ha and OIII, 9 MB.  ``"transit"``: forty lights in which
        a planet passes in front of a star, 10 MB.

    Warns
    -----
    SampleWarning
        If a frame differs from the published one (another processor may round differently).

    Raises
    ------
    WorkbenchError
        If no set has the name; as above, where ``WORKBENCH_REQUIRE_REAL`` is set; or if the folder cannot be written.
    """
    if name not in SETS:
        raise WorkbenchError(f"no sample frames are called {name!r}; there are {', '.join(filter(None, SETS))}")
    part = f"-{name}" if name else ""
    folder = own_folder(f"samples{part}", f"data-samples/generated{part}")
    if _is_whole(folder, name):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):  # free again if its holder was killed
            if not _is_whole(folder, name):  # another process may have made it while this one waited
                for left in folder.parent.glob(f".{folder.name}.part-*"):  # by one that was killed
                    shutil.rmtree(left, ignore_errors=True)
                aside = folder.with_name(f".{folder.name}.part-{os.getpid()}")
                try:
                    SETS[name](aside, progress=progress)
                    _check_hashes(aside, name)
                    shutil.rmtree(folder, ignore_errors=True)
                    os.replace(aside, folder)
                finally:
                    shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise WorkbenchError(
            f"{folder}: cannot write the sample frames there ({error}); they need 200 MB: "
            "make room, or name another folder in the environment variable WORKBENCH_CACHE"
        ) from error
    return folder


def hash_folder(folder: Path) -> str:
    """Return the SHA-256 of every file in a folder, in the form of ``sha256sum``, sorted by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = (
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}" for path in files
    )
    return "\n".join(lines) + "\n"


def own_folder(name: str, in_project: str) -> Path:
    """Return where files belong that the workbench makes for itself: in the project, else in the user's cache folder.

    Parameters
    ----------
    name
        The folder's name in the cache, or in the folder that the environment variable ``WORKBENCH_CACHE`` names.
    in_project
        The folder's path in the project, where there is one and it can be written.
    """
    if os.environ.get("WORKBENCH_CACHE"):
        return Path(os.environ["WORKBENCH_CACHE"]) / name
    project = _PROJECT / in_project
    if (_PROJECT / "data-samples" / "README.md").is_file() and os.access(project.parent, os.W_OK):
        return project
    return platformdirs.user_cache_path("astrophoto-workbench", appauthor=False) / name


def _published(name: str) -> str:
    """Return the hashes of a set as published."""
    path = HASHES.with_stem(f"{HASHES.stem}-{name}") if name else HASHES
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _is_whole(folder: Path, name: str) -> bool:
    """Return whether the folder holds every frame of this version's set."""
    expected = _published(name)
    mark = folder / ".recipe"
    if not mark.is_file() or mark.read_text(encoding="utf-8") != hashlib.sha256(expected.encode()).hexdigest():
        return False
    return all((folder / line.split("  ", 1)[1]).is_file() for line in expected.splitlines())


def _check_hashes(folder: Path, name: str) -> None:
    """Compare the files with the published ones, and mark the folder as this version's."""
    expected = _published(name)
    found = hash_folder(folder)
    different = [line.split("  ", 1)[1] for line in sorted(set(found.splitlines()) ^ set(expected.splitlines()))]
    (folder / ".recipe").write_text(hashlib.sha256(expected.encode()).hexdigest(), encoding="utf-8")
    if not different:
        return
    message = (
        f"{len(set(different))} of the sample files made here differ from the published ones, first {different[0]}. "
        "Another processor or another NumPy rounds exp, log and pow differently in the last bit, which can shift a "
        "simulated pixel; the frames are just as good statistically, but numbers computed from them will differ "
        "slightly from those in the documentation."
    )
    if os.environ.get("WORKBENCH_REQUIRE_REAL"):
        raise WorkbenchError(message)
    warnings.warn(message, SampleWarning, stacklevel=3)


def publish() -> None:
    """Make the committed small set and the published hashes again, after a recipe was changed on purpose."""
    small = _PROJECT / "data-samples" / "small"
    shutil.rmtree(small, ignore_errors=True)
    write_samples(small, SMALL)
    for name, write in SETS.items():
        with tempfile.TemporaryDirectory() as aside:
            text = hash_folder(write(Path(aside), progress=True))
        (HASHES.with_stem(f"{HASHES.stem}-{name}") if name else HASHES).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    publish()
