"""What one page of the app works on: a folder of frames, where the results go, and the results so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import param
import xarray as xr

from ..core.errors import WorkbenchError
from ..core.files import check_folder
from ..core.sensor_file import open_sensor
from ..core.settings import filter_name
from ..ingest.catalogue import open_folder
from ..ingest.folder import Folder
from ..pipelines.stack_filters import comet_files
from .jobs import FINISHED, Job, Runner


def default_results(folder: Path) -> Path:
    """Return where the results of a folder go by default: next to it, never into it.

    Examples
    --------
    >>> default_results(Path("nights/m31")).as_posix()
    'nights/m31-results'
    """
    return folder.with_name(f"{folder.name}-results")


def check_results(folder: Path, results: Path) -> None:
    """Check that results can be written and will not be taken for frames; makes their folder.

    Raises
    ------
    WorkbenchError
        If it lies within the frames or cannot be written; the message says what to choose.
    """
    check_folder(results, f"choose another folder, for example {default_results(folder)}", frames=folder)
    results.mkdir(parents=True, exist_ok=True)


def _result(name: str, doc: str) -> property:
    return property(lambda session: session.results / name, doc=doc)


class Session(param.Parameterized):
    """The state of one page; its jobs belong to the server's `Runner`, so that other pages show them too.

    Parameters
    ----------
    runner
        The server's jobs.
    screen
        What the page is shown on, a `components.Screen`.
    """

    folder = param.ClassSelector(class_=Folder, default=None, allow_None=True, doc="The frames, once they are open.")
    results = param.ClassSelector(class_=Path, default=None, allow_None=True, doc="Where results are written.")
    measured = param.Integer(default=0, doc="How often the sensor has been measured since the page was opened.")

    def __init__(self, runner: Runner, screen: Any) -> None:
        super().__init__()
        self.runner = runner
        self.screen = screen

    @staticmethod
    def find(folder: str | Path, results: str | Path = "") -> tuple[Folder, Path]:
        """Read a folder of frames and return it with the folder of its results; changes nothing, so any thread may.

        Raises
        ------
        WorkbenchError
            If the folder does not exist or holds no frames.
        """
        text = str(folder).strip()
        if not text:
            raise WorkbenchError("give the path of a folder of frames, for example /home/me/my-night")
        path = Path.cwd() / Path(text).expanduser()
        chosen = str(results).strip()
        frames = open_folder(path, progress=False)
        return frames, Path(chosen).expanduser() if chosen else default_results(path)

    def use(self, folder: Folder, results: Path) -> None:
        """Work on these frames from now on; observers draw, so it must be called in the page's own thread."""
        self.param.update(folder=folder, results=results)

    @property
    def key(self) -> str:
        """The key of jobs on these frames, the same on every page that has them open."""
        return "" if self.folder is None else f"{self.folder.root.resolve()} → {self.results.resolve()}"

    def start(self, task: str, **arguments: Any) -> Job:
        """Start a job on these frames.

        Raises
        ------
        WorkbenchError
            If no frames are open, the results cannot be written, or the job runs already.
        """
        if self.folder is None:
            raise WorkbenchError("open a folder of frames first")
        check_results(self.folder.root, self.results)
        return self.runner.start(task, self.key, **arguments)

    def check_lights(self) -> None:
        """Check that there are lights before a job is started on them.

        Raises
        ------
        WorkbenchError
            If there are none; the message says what there is, and what to do.
        """
        if self.folder is not None and not self.folder.has("light"):
            self.folder.cube("light")

    def job(self, task: str) -> Job | None:
        """Return the latest job of that task on these frames."""
        return self.runner.find(task, self.key)

    def cancel(self, task: str) -> None:
        """Cancel the job of that task on these frames."""
        self.runner.cancel(task, self.key)

    @property
    def stack_files(self) -> list[Path]:
        """The stack that there is, or those of several filters, whichever are newer."""
        found = sorted(self.stack_file.parent.glob(f"{self.stack_file.stem}_*.fits"))
        of_comets = {other for path in found for other in comet_files(path)}
        filters = [path for path in found if path not in of_comets]
        newest = max((path.stat().st_mtime_ns for path in filters), default=0)
        one = self.stack_file.is_file() and self.stack_file.stat().st_mtime_ns >= newest
        return [self.stack_file] if one else filters

    @property
    def stack_filters(self) -> tuple[str, ...]:
        """The filters of the stacks, where there are several."""
        files = self.stack_files
        return tuple(filter_name(path.stem.removeprefix(f"{self.stack_file.stem}_")) for path in files[1:] and files)

    @property
    def pictures(self) -> list[Path]:
        """The finished pictures, the latest first."""
        paths = [path for name in ("picture.png", "picture-*.png") for path in self.results.glob(name)]
        return sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True)

    @property
    def picture_file(self) -> Path:
        """Where the next picture goes: no picture replaces another."""
        names = ("picture.png", *(f"picture-{number}.png" for number in range(2, 1000)))
        return next(path for path in map(self.results.joinpath, names) if not path.exists())

    @property
    def characterization(self) -> Any:
        """The measurement of these frames; None before."""
        job = self.job("characterize")
        return job.value if job is not None and job.state == FINISHED else None

    @property
    def sensor(self) -> xr.Dataset | None:
        """The measured sensor: of these frames, or of an earlier measurement in the same folder of results."""
        if self.characterization is not None:
            return self.characterization.sensor
        if self.results is not None and self.sensor_file.is_file():
            try:
                return open_sensor(self.sensor_file)
            except WorkbenchError:
                return None
        return None

    @property
    def given_sensor(self) -> Path | None:
        """What later steps are given of the measured sensor: its file, None where there is none."""
        return self.sensor_file if self.sensor is not None else None

    @property
    def sensor_option(self) -> list[str]:
        """The same as words of a command."""
        return ["--sensor", str(self.sensor_file)] if self.sensor is not None else []

    sensor_file = _result("sensor.json", "The measured sensor.")
    stack_file = _result("stack.fits", "The stack; those of several filters have the filter's name after this.")
    linear_file = _result("linear.fits", "The linear picture that was stretched.")
    charts_folder = _result("charts", "The charts.")
    live_folder = _result("live", "The stack that grows with each light.")
