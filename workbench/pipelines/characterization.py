"""A folder of frames in, a measured sensor out."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from ..core.cube import channels_of, evenly
from ..core.defects import write_defects
from ..core.errors import WorkbenchError
from ..core.files import check_folder
from ..core.noise import common_mean, shared_error
from ..core.parallel import decoding_once, frame_buffers, side_by_side
from ..core.results import MODE, sensor_dataset
from ..core.sensor_file import FILE, write_sensor
from ..core.settings import in_words_of, setting_dim, setting_of_table
from ..core.values import describe, is_simulated, value_text
from ..fidelity.card import Fidelity, true_causes
from ..ingest.catalogue import open_folder
from ..ingest.folder import Folder, of_one_camera, of_one_mode, without_lights_among_flats
from ..ingest.review import follow_overscan
from ..sensor.dark import Darks
from .measurement import (
    MAJORITY,
    MEASURED,
    Factors,
    FlatResults,
    Transfer,
    camera_factors,
    cube_of,
    expected_frames,
    if_any,
    measure_dark_maps,
    measure_darks,
    measure_light,
    measure_read_noise,
    measure_transfer,
    measure_vignetting,
    report_card,
    set_aside_lines,
    warnings_of,
)
from .uniformity import DEFECTS_FILE, Patterns, Uniformity, complete, json_blocks, measure_patterns

if TYPE_CHECKING:
    from .calibration import Lights

_SHOWN = {
    "iso": "ISO",
    "channel": "channel",
    "black_level": "black level [ADU]",
    "gain": "gain [e⁻/ADU]",
    "read_noise": "read noise [e⁻ rms]",
}
_ROWS = 4  # settings that a notebook shows


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
        What `pipelines.measure_pixel_noise` found, where it was asked.
    lights
        What `pipelines.examine_lights` found in the lights, where it was asked.
    uniformity
        DSNU, PRNU, defects and EMVA 1288, see `Uniformity`.
    fidelity
        What `fidelity.inspect_frames` found in some of the frames.
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
        """Return the settings as a table of numbers: a row for each ISO or gain setting and channel."""
        columns = [column for name in ("black_level", "gain", "read_noise") for column in (name, f"{name}_error")]
        return self.sensor[[*columns, "frames_used"]].to_dataframe().reset_index()

    def lines(self) -> list[str]:
        """Return the other results in words, one a line."""
        found = []
        values, dim = self.sensor, setting_dim(self.sensor)
        if np.isfinite(values["unity_gain_iso"]):
            unity = value_text(values["unity_gain_iso"].item(), values["unity_gain_iso_error"].item())
            found.append(f"unity gain: {in_words_of(dim, 'ISO')} {unity}")
        if values.attrs["code_step"] > 1:
            bits = 16 - round(math.log2(values.attrs["code_step"]))
            found.append(f"codes come in steps of {values.attrs['code_step']:g} ADU: {bits} bits, saved in 16")
        found += self.transfer.lines()
        for i in range(values.sizes["setting"]):
            one = values.isel(setting=i)
            setting = {dim: one[f"setting_{dim}"].item(), "temperature": one["setting_temperature"].item()}
            where = describe({name: value for name, value in setting.items() if np.isfinite(value)})
            amount = value_text(one.dark_current.item(), one.dark_current_error.item(), "e⁻/s/pixel")
            found.append(f"dark current at {where}: {amount}")
        if np.isfinite(values["doubling_temperature"]):
            doubling = value_text(
                values["doubling_temperature"].item(), values["doubling_temperature_error"].item(), "K"
            )
            found.append(f"dark current doubles every {doubling}")
        return found

    def _headline(self) -> str:
        counts = ", ".join(f"{count} {kind}" for kind, count in self.frame_counts.items() if count)
        return f"{self.camera or 'unknown camera'}: {counts} frames"

    def _written_table(self, most: int) -> pd.DataFrame:
        """The settings in words, at most so many of them; channels that agree share a row."""
        dim, count = setting_dim(self.sensor), self.sensor.sizes[setting_dim(self.sensor)]
        rows = [written_table(_joined(self.sensor.isel({dim: [i]})), _SHOWN) for i in evenly(count, most) if count]
        return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()

    def _remarks(self) -> list[str]:
        return [f"warning: {text}" for text in self.warnings]

    def __repr__(self) -> str:
        table = self._written_table(99)
        lines = [self._headline(), table.to_string(index=False)] if len(table) else [self._headline()]
        return "\n".join([*lines, *self.lines(), *self._remarks()])

    def _repr_html_(self) -> str:
        table = self._written_table(_ROWS).to_html(index=False, border=0)
        if len(self.sensor.channel):
            table += "<p>All channels: <code>result.table()</code> in Python, <code>sensor.json</code> as a file.</p>"
        remarks = "".join(f"<li>{html.escape(text)}</li>" for text in (*self.lines(), *self._remarks()))
        return f"<p><b>{html.escape(self._headline())}</b></p>{table}<ul>{remarks}</ul>"


def characterize(folder: str | Path | Folder, out: str | Path | None = None, progress: bool = True) -> Characterization:
    """Measure the sensor from a folder of frames, and write ``sensor.json``.

    Bias frames give black level and read noise, pairs of flats the gain, darks the dark current.  What the frames
    cannot give is None, and a warning says what to shoot.  Frames that cannot be read, or are of another camera, size,
    mosaic or operating mode (offset setting, readout mode, binning, window) than most, are set aside and listed; the
    measurement goes on without them.  Each ISO, or gain setting of a camera without, is measured by itself.

    Parameters
    ----------
    folder
        A folder (see `open_folder`), or what `open_folder` returned.
    out
        Where to write ``sensor.json`` and the map of defects, ``defects.fits``; nothing is written without it.

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
        check_folder(out, names=(DEFECTS_FILE, FILE))
    frames = folder if isinstance(folder, Folder) else open_folder(folder, progress=progress)
    if not frames.table["kind"].isin(MEASURED).any():
        counts = Counter(frames.table["kind"])
        there = ", ".join(f"{count} {kind or 'of unknown kind'}" for kind, count in counts.items())
        raise WorkbenchError(
            f"{frames.root} has no bias, flat or dark frames to measure (it has {there}); put frames into folders "
            "named bias, flats and darks, or write a frames.csv that names their kind"
        )
    frames = without_lights_among_flats(of_one_mode(frames, MEASURED, ["light"]))
    frames = follow_overscan(_with_stated_setting(of_one_camera(frames, MEASURED, ["light"], share=MAJORITY)))
    bar = _Bar(desc="measuring", unit="frame", delay=1, leave=False, disable=not progress)
    with bar, frame_buffers(), decoding_once():
        result = measure_sensor(frames, bar, written=out is not None)
    if out is not None:
        defects = None if result.uniformity is None else result.uniformity.defects
        if defects is not None:
            write_defects(defects, Path(out) / DEFECTS_FILE)
        write_sensor(result.sensor, Path(out) / FILE)
    return result


def _joined(sensor: xr.Dataset) -> xr.Dataset:
    """Return the numbers of one setting, with one channel "all" in place of channels that agree in each of them."""
    joined = sensor.isel(channel=[0]).assign_coords(channel=["all"])
    for name in ("black_level", "gain", "read_noise"):
        parts = sensor[name], sensor[f"{name}_error"], shared_error(sensor, name)
        mean = common_mean(*(part.values[0] for part in parts))
        if sensor.sizes["channel"] < 2 or mean is None:
            return sensor
        joined[name].values[:], joined[f"{name}_error"].values[:] = mean
    return joined


def written_table(sensor: xr.Dataset, columns: Mapping[str, str]) -> pd.DataFrame:
    """Return variables of a sensor as text under their titles: a row for each ISO and channel, or for each setting.

    Numbers come with their errors; "–" stands for what was not measured or stated.  Where a camera has gain settings,
    these stand in the columns for the ISO.
    """
    dim = setting_dim(sensor)
    own = {"iso": dim, "setting_iso": f"setting_{dim}"}
    columns = {own.get(name, name): in_words_of(dim, title) for name, title in columns.items()}
    errors = {name: f"{name}_error" for name in columns if f"{name}_error" in sensor}
    wanted = [name for name in (*columns, *errors.values()) if name not in sensor.coords]
    table = sensor[wanted].to_dataframe().reset_index()

    def text(name: str) -> Iterator[str]:
        for value, error in zip(table[name], table[errors[name]] if name in errors else table[name], strict=True):
            if name not in sensor.coords and isinstance(value, float):
                yield value_text(value, error if name in errors else None).replace("not measured", "–")
            else:
                yield "–" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value)

    return pd.DataFrame({title: list(text(name)) for name, title in columns.items()})


def measure_sensor(folder: Folder, bar: tqdm, *, written: bool) -> Characterization:
    """Measure everything that these frames of one camera give: darks in one thread, bias frames and flats in another.

    `written` says that the map of defects will lie next to ``sensor.json``.
    """
    bar.total, warnings = expected_frames(folder), list(folder.warnings)
    read, factors, folder = measure_read_noise(folder, bar)
    light, doubts, folder = measure_light(folder, read, bar)
    warnings += [*(factors.warnings if factors else []), *warnings_of(read), *doubts]
    with ThreadPoolExecutor(1) as second, side_by_side(2):
        running = second.submit(copy_context().run, _bias_and_flats, folder, light, factors, bar)
        darks, law, folder = measure_darks(folder, light.gain, bar)
        transfer, folder = measure_transfer(folder, read, light, bar)
        maps, doubts, folder = measure_dark_maps(folder, read, light.gain, darks, bar)
        patterns, vignetting, more = running.result()
        card = second.submit(copy_context().run, report_card, folder, bar)
        uniformity = complete(patterns, read=read, ptc=light.ptc, gain=light.gain, darks=darks)
        report = card.result()
    signal, current = (None, None) if darks is None else (darks.signal, darks.current)
    warnings += [*warnings_of(current, law), *transfer.warnings, *doubts, *more, *uniformity.warnings]
    warnings += _missing(setting_of_table(folder.table), read, light.gain, darks)
    warnings = list(dict.fromkeys([*true_causes(warnings, report), *set_aside_lines(folder)]))
    row = folder.table[folder.table["kind"].isin(MEASURED)].iloc[0]
    step = next((part.attrs["step"] for part in (read, light.ptc) if part is not None), 1)
    camera = str(row["camera"])
    numbers = sensor_dataset(
        camera, read=read, ptc=light.ptc, gain=light.gain, unity=light.unity, dark_current=current, dark_law=law,
        **transfer.results(), channels=channels_of(str(row["cfa_pattern"])), warnings=warnings,
        blocks=json_blocks(uniformity, darks, report, written=written), mode=_mode(folder, step),
    )  # fmt: skip
    return Characterization(
        camera=camera,
        simulated=is_simulated(camera),
        sensor=numbers,
        read_noise=if_any(read, "read_noise_adu"),
        ptc=light.ptc,
        gain=if_any(light.gain, "gain"),
        unity=if_any(light.unity, "unity_gain_iso"),
        dark_signal=if_any(signal, "dark_signal"),
        dark_current=if_any(current, "dark_current"),
        dark_law=if_any(law, "doubling_temperature"),
        snr=if_any(light.snr, "snr"),
        transfer=transfer,
        vignetting=vignetting,
        **maps,
        uniformity=uniformity,
        fidelity=report,
        frame_counts={kind: folder.count(kind) for kind in (*MEASURED, "light")},
        warnings=warnings,
        set_aside=list(folder.set_aside),
    )


def _bias_and_flats(
    folder: Folder, light: FlatResults, factors: Factors | None, bar: tqdm
) -> tuple[Patterns, xr.Dataset | None, list[str]]:
    """Measure what else bias frames and flats show, all read before: their patterns, the vignetting; and warnings."""
    bias, flat = cube_of(folder, "bias"), cube_of(folder, "flat")
    vignetting, warnings = None, []
    if flat is not None and light.ptc is not None:
        warnings = [] if factors else camera_factors(flat, bar).warnings
        vignetting = measure_vignetting(flat, light.ptc, bar)
    return measure_patterns(bias, flat, ptc=light.ptc, gain=light.gain, progress=bar), vignetting, warnings


def _missing(dim: str, read: xr.Dataset | None, gain: xr.Dataset | None, darks: Darks | None) -> list[str]:
    """Return what these frames lack, and what to shoot."""
    setting = in_words_of(dim, "ISO")
    missing = []
    if read is None:
        missing.append(
            "no bias frames: read noise and black level are not measured, and the gain is fitted with a free "
            f"intercept; shoot ten or more at each {setting}, lens covered, at the shortest exposure"
        )
    if gain is None:
        missing.append(
            "no pairs of flats: the gain is not measured, and nothing can be said in electrons; shoot two or more "
            f"equal flats at each of five or more exposures, up to 70 % of saturation, at each {setting}"
        )
    elif read is not None:
        lacking = sorted({*gain[dim].values} - {*read[dim].values})
        if lacking and not np.isnan(lacking).any():
            missing.append(
                f"no bias frames at {setting} {', '.join(f'{one:g}' for one in lacking)}: read noise and black level "
                "are not measured there; shoot ten or more"
            )
    if darks is None:
        missing.append(
            "no darks: dark current is not measured; shoot three or more at each of two or more exposures, and at "
            "two or more temperatures for the doubling temperature"
        )
    return missing


class _Bar(tqdm):
    """A bar whose total was an estimate: it never runs past it, and ends with it."""

    total: float | None

    def update(self, n: float | None = 1) -> bool | None:
        self.total = max(self.total or 0, self.n + (n or 0))
        return super().update(n)

    def close(self) -> None:
        self.total = self.n  # a notebook's bar that ends before its total stays, in red
        super().close()


def _with_stated_setting(folder: Folder) -> Folder:
    """Return the folder without the frames that state no ISO, or gain setting, where others do."""
    measured = folder.table[folder.table["kind"].isin(MEASURED)]
    dim = setting_of_table(measured)
    without, column = measured[dim].isna(), "iso" if dim == "iso" else "gain"
    words = f"states no {in_words_of(dim, 'ISO')}, as the other frames do; give it in frames.csv (column {column})"
    for path in measured.loc[without, "path"] if not without.all() else ():
        folder = folder.drop(path, words)
    return folder


def _mode(folder: Folder, step: int) -> dict[str, Any]:
    """Return what is known of the operating mode of the frames measured, and the step of their codes [ADU]."""
    table = folder.table[folder.table["kind"].isin(MEASURED)]
    known = {name: table[name].replace("", np.nan).dropna() for name in MODE if name in table}
    return {name: values.iloc[0] for name, values in known.items() if len(values)} | {"code_step": step}
