"""What one page of the app works on: a folder of frames, where the results go, and what has come of them so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import param
import xarray as xr

from ..core.errors import WorkbenchError
from ..core.files import check_folder
from ..core.sensor_file import open_sensor
from ..ingest.catalogue import Folder, open_folder
from .jobs import FINISHED, Job, Runner
from .screen import Screen


def results_beside(folder: Path) -> Path:
    """Return where the results of a folder go unless another place is chosen: beside it, never in it.

    Examples
    --------
    >>> results_beside(Path("nights/m31")).as_posix()
    'nights/m31-results'
    """
    return folder.with_name(f"{folder.name}-results")


def check_results(folder: Path, results: Path) -> None:
    """See that results can be written and will not be taken for frames.

    Raises
    ------
    WorkbenchError
        If the place lies within the frames or cannot be written; the message says what to choose.
    """
    if results.resolve().is_relative_to(folder.resolve()):
        raise WorkbenchError(
            f"{results} lies within the frames of {folder}, where a stack would be taken for one of them; "
            f"choose a folder outside, for example {results_beside(folder)}"
        )
    check_folder(results, "choose another folder")
    results.mkdir(parents=True, exist_ok=True)


class Desk(param.Parameterized):
    """The state of one page; its jobs belong to the server's `Runner`, so that another page sees them too.

    Parameters
    ----------
    screen
        What the page is shown on, a `Screen`; an ordinary one if not told.
    """

    folder = param.ClassSelector(class_=Folder, default=None, allow_None=True, doc="The frames, once they are open.")
    results = param.ClassSelector(class_=Path, default=None, allow_None=True, doc="Where results are written.")
    measured = param.Integer(default=0, doc="How often the sensor has been measured since the page is open.")

    def __init__(self, runner: Runner, screen: Screen | None = None) -> None:
        super().__init__()
        self.runner = runner
        self.screen = Screen() if screen is None else screen

    def open(self, folder: str | Path, results: str | Path | None = None) -> None:
        """Open a folder of frames; where that fails, the page keeps what it had.

        Raises
        ------
        WorkbenchError
            If there is no such folder or no frame in it.
        """
        self.take(*self.find(folder, results))

    @staticmethod
    def find(folder: str | Path, results: str | Path | None = None) -> tuple[Folder, Path]:
        """Look through a folder of frames, and say where its results would go; changes nothing, so any thread may.

        Raises
        ------
        WorkbenchError
            If there is no such folder or no frame in it.
        """
        text = str(folder).strip()
        if not text:
            raise WorkbenchError("give the path of a folder of frames, for example /home/me/my-night")
        path = Path(text).expanduser()
        path = path if path.is_absolute() else Path.cwd() / path
        found = open_folder(path, progress=False)
        place = Path(str(results).strip()).expanduser() if results and str(results).strip() else results_beside(path)
        return found, place

    def take(self, folder: Folder, results: Path) -> None:
        """Work on these frames from now on; whoever watches the desk draws, so the page's own thread must."""
        self.param.update(folder=folder, results=results)

    @property
    def key(self) -> str:
        """What jobs on these frames go by, on every page that has them open."""
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
        """See that there are lights before a job is sent to find that out.

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
    def characterization(self) -> Any:
        """What measuring these frames gave; None before."""
        job = self.job("characterize")
        return job.value if job is not None and job.state == FINISHED else None

    @property
    def sensor(self) -> xr.Dataset | None:
        """The measured sensor: of these frames, or what an earlier measurement left among the results."""
        if self.characterization is not None:
            return self.characterization.sensor
        if self.results is not None and self.sensor_file.is_file():
            try:
                return open_sensor(self.sensor_file)
            except WorkbenchError:
                return None
        return None

    @property
    def sensor_file(self) -> Path:
        """Where the measured numbers are."""
        return self.results / "sensor.json"

    @property
    def stack_file(self) -> Path:
        """Where the stack is, once there is one."""
        return self.results / "stack.fits"

    @property
    def linear_file(self) -> Path:
        """Where the linear picture is that was stretched."""
        return self.results / "linear.fits"

    def picture_file(self, suffix: str = ".png") -> Path:
        """Where the finished picture is."""
        return self.results / f"picture{suffix}"

    @property
    def charts_folder(self) -> Path:
        """Where the charts are written."""
        return self.results / "charts"
