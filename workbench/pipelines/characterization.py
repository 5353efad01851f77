"""A folder of frames in, a measured sensor out."""

from __future__ import annotations

import html
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from ..core.buffers import frame_buffers
from ..core.defects import write_defects
from ..core.errors import WorkbenchError
from ..core.files import check_folder
from ..core.sensor_file import write_sensor
from ..core.values import value_text
from ..fidelity.card import Fidelity
from ..ingest.catalogue import Folder, open_folder
from .measurement import MEASURED, Measurement
from .transfer import Transfer
from .uniformity import DEFECTS_FILE, Uniformity

if TYPE_CHECKING:
    from .lights import Lights

_MAJORITY = 2 / 3  # of the frames that must agree before the others are set aside


@dataclass(repr=False)
class Characterization:
    """What `characterize` found: a measurement each, None where the frames cannot give it (a warning says what to
    shoot).

    Attributes
    ----------
    camera, simulated
        Its name, and whether that says that the frames are simulated.
    read_noise, ptc, gain, unity, dark_signal, dark_current, dark_law, dark_noise, dcnu, hot_pixels, vignetting, \
    dark_subtraction, snr
        Results of the functions of `workbench.sensor`.
    transfer
        What follows from read noise and photon transfer: full well, linearity, the read noise's split, gain from darks.
    pixel_noise
        What `runs.measure_pixel_noise` found, where it was asked.
    lights
        What `runs.examine_lights` found in the lights, where it was asked.
    uniformity
        DSNU, PRNU, defects and EMVA 1288, see `runs.uniformity.Uniformity`.
    fidelity
        What `sensor.inspect_frames` says of some of the frames.
    sensor
        The numbers of ``sensor.json`` (see `workbench.core.sensor_dataset`).
    frame_counts
        Frames measured of each kind.
    warnings
        What is doubtful or missing and what to do, files set aside among it.
    set_aside
        Files not used, each with the reason.
    """

    camera: str
    simulated: bool
    sensor: xr.Dataset
    read_noise: xr.Dataset | None = None
    ptc: xr.Dataset | None = None
    gain: xr.Dataset | None = None
    unity: xr.Dataset | None = None
    dark_signal: xr.Dataset | None = None
    dark_current: xr.Dataset | None = None
    dark_law: xr.Dataset | None = None
    dark_noise: xr.Dataset | None = None
    dcnu: xr.Dataset | None = None
    hot_pixels: xr.Dataset | None = None
    vignetting: xr.Dataset | None = None
    dark_subtraction: xr.Dataset | None = None
    snr: xr.Dataset | None = None
    transfer: Transfer = field(default_factory=Transfer)
    pixel_noise: xr.Dataset | None = None
    uniformity: Uniformity | None = None
    fidelity: Fidelity | None = None
    lights: Lights | None = None
    frame_counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    set_aside: list[tuple[Path, str]] = field(default_factory=list)

    def table(self) -> pd.DataFrame:
        """Return the settings as a table of numbers: a row for each ISO and channel."""
        names = ["black_level", "gain", "read_noise"]
        columns = [column for name in names for column in (name, f"{name}_error")]
        return self.sensor[[*columns, "frames_used"]].to_dataframe().reset_index()

    def lines(self) -> list[str]:
        """Return the other results in words, one a line."""
        found = []
        values = self.sensor
        if np.isfinite(values["unity_gain_iso"]):
            unity = value_text(values["unity_gain_iso"].item(), values["unity_gain_iso_error"].item())
            found.append(f"unity gain: ISO {unity}")
        found += self.transfer.lines()
        for i in range(values.sizes["setting"]):
            one = values.isel(setting=i)
            where = [f"ISO {one.setting_iso.item():g}"] if np.isfinite(one.setting_iso) else []
            where += [f"{one.setting_temperature.item():g} °C"] if np.isfinite(one.setting_temperature) else []
            amount = value_text(one.dark_current.item(), one.dark_current_error.item(), "e-/s/pixel")
            found.append(f"dark current at {', '.join(where) or 'settings not stated'}: {amount}")
        if np.isfinite(values["doubling_temperature"]):
            doubling = value_text(
                values["doubling_temperature"].item(), values["doubling_temperature_error"].item(), "K"
            )
            found.append(f"dark current doubles every {doubling}")
        return found

    def _headline(self) -> str:
        counts = ", ".join(f"{count} {kind}" for kind, count in self.frame_counts.items() if count)
        label = " [simulated data]" if self.simulated and "simulated" not in self.camera else ""
        return f"{self.camera or 'unknown camera'}{label}: {counts} frames"

    def _written_table(self) -> pd.DataFrame:
        rows = [
            {
                "ISO": f"{row.iso:g}" if np.isfinite(row.iso) else "–",
                "channel": row.channel,
                "black level [ADU]": value_text(row.black_level, row.black_level_error),
                "gain [e-/ADU]": value_text(row.gain, row.gain_error),
                "read noise [e- rms]": value_text(row.read_noise, row.read_noise_error),
            }
            for row in self.table().itertuples()
        ]
        return pd.DataFrame(rows).replace("not measured", "–")

    def _remarks(self) -> list[str]:
        return [f"warning: {text}" for text in self.warnings]

    def __repr__(self) -> str:
        table = self._written_table()
        lines = [self._headline(), table.to_string(index=False)] if len(table) else [self._headline()]
        return "\n".join([*lines, *self.lines(), *self._remarks()])

    def _repr_html_(self) -> str:
        table = self._written_table().to_html(index=False, border=0)
        remarks = "".join(f"<li>{html.escape(text)}</li>" for text in (*self.lines(), *self._remarks()))
        whole = f"<p><b>{html.escape(self._headline())}</b></p>{table}<ul>{remarks}</ul>"
        return whole.replace(" e-", " e⁻").replace("[e-", "[e⁻")  # plain in a terminal, typeset on a page


def characterize(folder: str | Path | Folder, out: str | Path | None = None, progress: bool = True) -> Characterization:
    """Measure the sensor from a folder of frames, and write ``sensor.json``.

    Bias frames give black level and read noise, pairs of flats the gain, darks the dark current.  What the frames
    cannot give is None, and a warning says what to shoot.  Frames that cannot be read, or are of another camera, size
    or mosaic than the rest, are set aside and listed; the measurement goes on without them.

    Parameters
    ----------
    folder
        A folder (see `open_folder`), or what `open_folder` returned.
    out
        Where to write ``sensor.json`` and the map of defects, ``defects.fits``; nothing is written without it.
    progress
        False for no progress bar.

    Raises
    ------
    WorkbenchError
        If there is nothing to measure: no such folder, no bias, flat or dark frame, or as many frames of one camera as
        of another.

    Examples
    --------
    >>> import tempfile
    >>> from datetime import datetime
    >>> from workbench.simulate import d7000, expose, save_frame
    >>> camera, settings = d7000(shape=(64, 96)), {"iso": 200, "exposure": 1 / 8000, "temperature": 20}
    >>> bias = Path(tempfile.mkdtemp()) / "bias"
    >>> bias.mkdir()
    >>> for n in range(3):
    ...     frame = expose(camera, **settings, seed=n)
    ...     _ = save_frame(bias / f"{n}.dng", frame, camera, **settings, time=datetime(2025, 1, 18))
    >>> result = characterize(bias.parent, progress=False)
    >>> result.camera, round(result.sensor.black_level.mean().item())
    ('NIKON D7000 (simulated)', 600)
    """
    if out is not None:
        check_folder(out)
    found = folder if isinstance(folder, Folder) else open_folder(folder, progress=progress)
    found = _one_camera(found)
    bar = _Bar(desc="measuring", unit="frame", delay=1, leave=False, disable=not progress)
    with bar, frame_buffers():
        result = Characterization(**Measurement(found, out is not None, bar).measure())
    if out is not None:
        if result.uniformity.defects is not None:
            write_defects(result.uniformity.defects, Path(out) / DEFECTS_FILE)
        write_sensor(result.sensor, Path(out) / "sensor.json")
    return result


class _Bar(tqdm):
    """A bar whose total was an estimate: it never runs past it, and ends with it."""

    def update(self, n: float | None = 1) -> bool | None:
        self.total = max(self.total or 0, self.n + (n or 0))
        return super().update(n)

    def close(self) -> None:
        self.total = self.n  # a notebook's bar that ends before its total stays, in red
        super().close()


def _one_camera(folder: Folder) -> Folder:
    """Return the folder with the frames of one camera, size and mosaic, and with stated ISO where others state it."""
    table = folder.table[folder.table["kind"].isin(MEASURED)]
    if not len(table):
        there = ", ".join(
            f"{count} {kind or 'of unknown kind'}" for kind, count in Counter(folder.table["kind"]).items()
        )
        raise WorkbenchError(
            f"{folder.root} has no bias, flat or dark frames to measure (it has {there}); put frames into folders "
            "named bias, flats and darks, or write a frames.csv that names their kind"
        )
    for columns, what in ((["camera"], "camera"), (["height", "width"], "size"), (["cfa_pattern"], "mosaic")):
        table = folder.table[folder.table["kind"].isin(MEASURED)]
        counts = table.groupby(columns, sort=False).size().sort_values(ascending=False, kind="stable")
        names = [_say(key) for key in counts.index]
        if counts.iloc[0] <= _MAJORITY * len(table):
            listed = ", ".join(
                f"{name}: {count} (such as {_example(table, columns, key)})"
                for name, key, count in zip(names, counts.index, counts, strict=True)
            )
            raise WorkbenchError(
                f"{folder.root} mixes frames of different {what} ({listed}); measure each in a folder of its own"
            )
        usual = counts.index[0]
        for row in folder.table[folder.table["kind"].isin((*MEASURED, "light"))].itertuples():
            key = tuple(getattr(row, column) for column in columns)
            if key != (usual if isinstance(usual, tuple) else (usual,)):
                folder = folder.drop(row.path, f"its {what} is {_say(key)}, that of the other frames {names[0]}")
    table = folder.table
    without = table["iso"].isna() & table["kind"].isin(MEASURED)
    if without.any() and not without[table["kind"].isin(MEASURED)].all():
        for path in table.loc[without, "path"]:
            folder = folder.drop(path, "states no ISO, as the other frames do; give it in frames.csv (column iso)")
    return folder


def _say(key: Any) -> str:
    parts = key if isinstance(key, tuple) else (key,)
    return " x ".join(str(part) for part in parts) or "not stated"


def _example(table: pd.DataFrame, columns: list[str], key: Any) -> str:
    parts = key if isinstance(key, tuple) else (key,)
    same = np.logical_and.reduce([table[column] == part for column, part in zip(columns, parts, strict=True)])
    return str(table.loc[same, "file"].iloc[0])
