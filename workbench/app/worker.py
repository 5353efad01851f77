"""The other end of a job: a process of its own that does one task, tells its progress, and ends when told to.

Started by `workbench.app.jobs` as ``python -m workbench.app.worker``.  The task comes in on standard input, pickled,
and what it gave goes into a file.  Progress bars and messages go to standard error.  When standard input closes,
because the job was cancelled or the server has gone, the task is interrupted as Ctrl-C would.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..core.errors import WorkbenchError
from ..core.files import aside

DONE, FAILED, CRASHED, STOPPED = 0, 2, 1, 130
LIGHTS, WINDOW = 12, (512, 768)  # that `look` aligns: lights; rows and columns of their middle
STARS = (1800, 2700)  # rows and columns of the middle in which it looks for stars
PROBLEM = "\x1dproblem\x1f"  # stands before the sentence that says why a task failed


def samples() -> Path:
    """Shoot the sample frames where they are not there yet; returns their folder."""
    from ..simulate.samples import sample_folder

    return sample_folder()


def characterize(folder: Path, out: Path) -> Any:
    """Measure the sensor; writes ``sensor.json``, returns the `runs.Characterization`."""
    from ..pipelines.characterization import characterize as run

    return run(folder, out=out)


def stack(folder: Path, out: Path, **options: Any) -> Any:
    """Calibrate, align and stack the lights; returns the `runs.StackResult`."""
    from ..pipelines.stacking import stack_folder

    return stack_folder(folder, out, **options)


def finish(stack: Path, out: Path, linear: Path, **wishes: Any) -> dict[str, list[str]]:
    """Make a picture of a stack; returns its history and the warnings."""
    from ..pipelines.finishing import finish_stack, settings_from

    settings_out = out.with_suffix(".json")
    done = finish_stack(stack, out, settings_from(**wishes), linear_out=linear, settings_out=settings_out)
    return {"history": list(done.picture.attrs["history"]), "warnings": list(done.warnings)}


def export_charts(result: Any, out: Path) -> Any:
    """Write every chart that a characterization allows; returns the `export.Written`."""
    from ..export.write import write_charts

    return write_charts(result, out)


def look(folder: Path, sensor: Any = None) -> dict[str, Any]:
    """Calibrate one light whole, and align the middle of them all, for looking at single pixels.

    Returns
    -------
    dict
        ``calibrated`` (y, x) [e-], the first light; ``aligned`` (see `stack.aligned`), a window whose first pixel is
        ``corner`` (row, column); ``busiest`` (y, x) in it, where a sample stands out; ``warnings``.
    """
    import numpy as np
    import xarray as xr
    from tqdm.auto import tqdm

    from ..align.registration import register
    from ..calibrate.apply import calibrate
    from ..calibrate.masterset import make_masters
    from ..core.mosaic import middle
    from ..ingest.catalogue import open_folder
    from ..stack.cubes import aligned
    from ..stack.pixel import busiest_pixel

    frames = open_folder(folder)
    light = frames.light
    # a setting that is not recorded (NaN) is the same in all of them
    same = [np.isclose(light[name], light[name][0], equal_nan=True) for name in ("iso", "exposure")]
    light = light.isel(frame=np.flatnonzero(np.logical_and(*same))[:LIGHTS])
    others = {kind: frames.cube(kind) for kind in ("bias", "dark", "flat", "darkflat") if frames.has(kind)}
    masters = make_masters(light, **others, sensor=sensor)
    lights = calibrate(light, masters)
    outer = middle((lights.sizes["y"], lights.sizes["x"]), STARS)
    seen = lights.isel(y=outer[0], x=outer[1])
    inner = middle((seen.sizes["y"], seen.sizes["x"]), WINDOW)
    found = register(seen)
    put = aligned(seen, found).isel(y=inner[0], x=inner[1]).drop_vars("saturated", errors="ignore")
    bar = tqdm(range(put.sizes["frame"]), desc="aligning", unit="frame", leave=False)
    put = xr.concat([put.isel(frame=[number]).compute() for number in bar], "frame", combine_attrs="override")
    names = [str(name) for name in light["filename"].values]
    return {
        "calibrated": lights["signal"].isel(frame=0).values,
        "aligned": put,
        "corner": [one.start + two.start for one, two in zip(outer, inner, strict=True)],
        "busiest": busiest_pixel(put, "G" if "G" in put["channel"].values else "mono"),
        "warnings": [
            *masters.warnings,
            *(f"{names[number]} set aside: {why}" for number, why in found.set_aside.items()),
        ],
    }


TASKS: dict[str, Callable[..., Any]] = {
    task.__name__: task for task in (samples, characterize, look, stack, finish, export_charts)
}


def _interrupt_when_closed(lifeline: Any) -> None:
    """Wait until standard input closes, then interrupt the main thread."""
    with contextlib.suppress(OSError, ValueError):
        lifeline.read()
    if hasattr(signal, "pthread_kill"):  # ends waiting for a lock too
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    else:
        import _thread

        _thread.interrupt_main()


def main() -> int:
    """Do the task that comes in on standard input; returns the exit code."""
    try:
        task, arguments, out = pickle.load(sys.stdin.buffer)
        threading.Thread(target=_interrupt_when_closed, args=(sys.stdin.buffer,), daemon=True).start()
        try:
            value = TASKS[task](**arguments)
        except WorkbenchError as problem:
            if isinstance(problem.__context__, KeyboardInterrupt):
                return STOPPED
            sys.stderr.write(f"{PROBLEM}{' '.join(str(problem).split())}\n")
            return FAILED
        with aside(out) as part, part.open("wb") as file:
            pickle.dump(value, file)
    except KeyboardInterrupt:
        return STOPPED
    except Exception:
        traceback.print_exc()
        return CRASHED
    return DONE


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # a thread that reads from standard input must not keep the process
