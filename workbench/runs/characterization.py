"""A folder of frames in, a measured sensor out."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from .. import sensor
from ..buffers import frame_buffers
from ..defects import write_defects
from ..errors import FrameReadError, WorkbenchError
from ..files import check_folder
from ..frames import channels_of, take_frames
from ..ingest import Folder, open_folder
from ..results import is_simulated, sensor_dataset, write_sensor, written
from ..sensor.bias import CLIPPED_FRACTION
from .transfer import Transfer, derive_transfer
from .uniformity import DEFECTS_FILE, Uniformity, blocks, card_frames, measure_uniformity

if TYPE_CHECKING:
    from .lights import Lights

Result = TypeVar("Result")

_MEASURED = ("bias", "flat", "dark")
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
        The numbers of ``sensor.json`` (see `workbench.results.sensor_dataset`).
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
    fidelity: sensor.Fidelity | None = None
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
            unity = written(values["unity_gain_iso"].item(), values["unity_gain_iso_error"].item())
            found.append(f"unity gain: ISO {unity}")
        found += self.transfer.lines()
        for i in range(values.sizes["setting"]):
            one = values.isel(setting=i)
            where = [f"ISO {one.setting_iso.item():g}"] if np.isfinite(one.setting_iso) else []
            where += [f"{one.setting_temperature.item():g} °C"] if np.isfinite(one.setting_temperature) else []
            amount = written(one.dark_current.item(), one.dark_current_error.item(), "e-/s/pixel")
            found.append(f"dark current at {', '.join(where) or 'settings not stated'}: {amount}")
        if np.isfinite(values["doubling_temperature"]):
            doubling = written(values["doubling_temperature"].item(), values["doubling_temperature_error"].item(), "K")
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
                "black level [ADU]": written(row.black_level, row.black_level_error),
                "gain [e-/ADU]": written(row.gain, row.gain_error),
                "read noise [e- rms]": written(row.read_noise, row.read_noise_error),
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
        return f"<p><b>{html.escape(self._headline())}</b></p>{table}<ul>{remarks}</ul>"


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
    >>> from workbench.camera import d7000, expose, save_frame
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
    run = _Run(found, out is not None, tqdm(desc="measuring", unit="frame", delay=1, leave=False, disable=not progress))
    with run.bar, frame_buffers():
        result = run.measure()
    if out is not None:
        if result.uniformity.defects is not None:
            write_defects(result.uniformity.defects, Path(out) / DEFECTS_FILE)
        write_sensor(result.sensor, Path(out) / "sensor.json")
    return result


def _one_camera(folder: Folder) -> Folder:
    """Return the folder with the frames of one camera, size and mosaic, and with stated ISO where others state it."""
    table = folder.table[folder.table["kind"].isin(_MEASURED)]
    if not len(table):
        there = ", ".join(
            f"{count} {kind or 'of unknown kind'}" for kind, count in Counter(folder.table["kind"]).items()
        )
        raise WorkbenchError(
            f"{folder.root} has no bias, flat or dark frames to measure (it has {there}); put frames into folders "
            "named bias, flats and darks, or write a frames.csv that names their kind"
        )
    for columns, what in ((["camera"], "camera"), (["height", "width"], "size"), (["cfa_pattern"], "mosaic")):
        table = folder.table[folder.table["kind"].isin(_MEASURED)]
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
        for row in folder.table[folder.table["kind"].isin((*_MEASURED, "light"))].itertuples():
            key = tuple(getattr(row, column) for column in columns)
            if key != (usual if isinstance(usual, tuple) else (usual,)):
                folder = folder.drop(row.path, f"its {what} is {_say(key)}, that of the other frames {names[0]}")
    table = folder.table
    without = table["iso"].isna() & table["kind"].isin(_MEASURED)
    if without.any() and not without[table["kind"].isin(_MEASURED)].all():
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


class _Run:
    """One measurement of a folder: what was found on the way, and the frames left to measure."""

    def __init__(self, folder: Folder, writes: bool, bar: tqdm) -> None:
        self.folder, self.writes, self.bar = folder, writes, bar
        self.cubes: dict[str, xr.DataArray] = {}
        self.warnings = list(folder.warnings)
        self.multipliers: dict[str, float] | None = None
        bar.total = self._expected_frames()

    def _expected_frames(self) -> int:
        """Frames to be read: each once, bias frames of the darks' ISO settings twice, some flats and darks again."""
        count = self.folder.count
        total = sum(count(kind) for kind in _MEASURED) + 2 * bool(count("dark")) + min(count("flat"), 4)
        table = self.folder.table
        isos = table.loc[table["kind"] == "dark", "iso"]
        total += sum(min(8, number) for number in isos.value_counts())  # for the gain of darks: two settings, four each
        return total + int(((table["kind"] == "bias") & table["iso"].isin(isos)).sum())

    def measure(self) -> Characterization:
        """Measure everything that these frames give."""
        read = self._read_noise()
        ptc = self._try("flat", lambda cube: sensor.photon_transfer(cube, read, progress=self.bar))
        gain = unity = snr = None
        if ptc is not None and ptc.sizes["pair"]:
            gain = self._note(sensor.fit_gain(ptc))
            unity = self._note(sensor.unity_gain_iso(gain))
            snr = sensor.shot_noise_snr(ptc, gain)
            self._multipliers()
        elif ptc is not None:
            ptc = None
        darks = self._darks(gain)
        law = None
        if darks is not None:
            law = self._note(sensor.dark_law(darks.current)) if darks.current.sizes["setting"] else None
        transfer = self._transfer(read, ptc, gain)
        pictures = self._pictures(read, ptc, gain, darks)
        uniformity = self._uniformity(read, ptc, gain, darks)
        fidelity = self._fidelity()
        self._say_what_is_missing(read, gain, darks)
        camera, pattern = self._camera()
        numbers = sensor_dataset(
            camera,
            read=read,
            ptc=ptc,
            gain=gain,
            unity=unity,
            dark_current=None if darks is None else darks.current,
            dark_law=law,
            **transfer.results(),
            channels=channels_of(pattern),
            warnings=self._all_warnings(),
            blocks=blocks(uniformity, darks, fidelity, written=self.writes),
        )
        return Characterization(
            camera,
            is_simulated(camera),
            numbers,
            read_noise=_if_any(read, "read_noise_adu"),
            ptc=ptc,
            gain=_if_any(gain, "gain"),
            unity=_if_any(unity, "unity_gain_iso"),
            dark_signal=None if darks is None else _if_any(darks.signal, "dark_signal"),
            dark_current=None if darks is None else _if_any(darks.current, "dark_current"),
            dark_law=_if_any(law, "doubling_temperature"),
            snr=_if_any(snr, "snr"),
            transfer=transfer,
            **pictures,
            uniformity=uniformity,
            fidelity=fidelity,
            frame_counts={kind: self.folder.count(kind) for kind in (*_MEASURED, "light")},
            warnings=self._all_warnings(),
            set_aside=list(self.folder.set_aside),
        )

    def _camera(self) -> tuple[str, str]:
        row = self.folder.table[self.folder.table["kind"].isin(_MEASURED)].iloc[0]
        return str(row["camera"]), str(row["cfa_pattern"])

    def _all_warnings(self) -> list[str]:
        aside = [f"set aside: {path.name}: {reason}" for path, reason in self.folder.set_aside]
        return list(dict.fromkeys([*self.warnings, *aside]))

    def _try(self, kind: str, measure: Callable[[xr.DataArray], Result]) -> Result | None:
        """Measure the frames of a kind; a frame that turns out unreadable is set aside and the rest measured again."""
        while self.folder.has(kind):
            try:
                return self._note(measure(self._cube(kind)))
            except FrameReadError as error:
                self._drop(error)
        return None

    def _cube(self, kind: str) -> xr.DataArray | None:
        """Return the frames of a kind that are left; None where there are none."""
        if kind not in self.cubes and self.folder.has(kind):
            self.cubes[kind] = self.folder.cube(kind)
        return self.cubes.get(kind)

    def _drop(self, error: FrameReadError) -> None:
        self.cubes.clear()
        before = len(self.folder)
        self.folder = self.folder.drop(error.path, error.problem)
        if len(self.folder) == before:  # not one of ours: going on would never end
            raise error

    def _note(self, result: Result) -> Result:
        if isinstance(result, xr.Dataset):
            self.warnings += result.attrs.get("warnings", [])
        return result

    def _darks(self, gain: xr.Dataset | None) -> sensor.Darks | None:
        def measure(cube: xr.DataArray) -> sensor.Darks:
            return sensor.measure_dark(cube, self._cube("bias"), gain, progress=self.bar)

        darks = self._try("dark", measure)
        if darks is not None:
            self._note(darks.current)
        return darks

    def _read_noise(self) -> xr.Dataset | None:
        # what the camera multiplied with is needed for clipped frames alone, and flats show it best
        clipped = self._try("bias", lambda cube: (np.asarray(cube.data[0]) == 0).mean() > CLIPPED_FRACTION)
        known = self._try("flat", lambda _: self._multipliers()) if clipped else None
        return self._try("bias", lambda cube: sensor.read_noise(cube, multiplier=known, progress=self.bar))

    def _transfer(self, read: xr.Dataset | None, ptc: xr.Dataset | None, gain: xr.Dataset | None) -> Transfer:
        darks = None
        if read is not None:
            darks = self._try("dark", lambda cube: sensor.dark_transfer(cube, read, progress=self.bar))
        found = derive_transfer(read, ptc, gain, darks)
        self.warnings += found.warnings
        return found

    def _multipliers(self) -> dict[str, float]:
        """Find what the camera multiplied its channels with, and warn; the flats' missing codes show it."""
        flat = self._cube("flat")
        isos = flat["iso"].values
        lowest = isos == np.nanmin(isos) if np.isfinite(isos).any() else np.ones(isos.size, bool)
        if self.multipliers is not None or not np.issubdtype(flat.dtype, np.integer):
            return self.multipliers or {}
        codes = sensor.missing_codes(sensor.count_codes(take_frames(flat, lowest), progress=self.bar)).isel(iso=0)
        factor, error = codes["multiplier"].values, codes["multiplier_error"].values
        changed = np.abs(factor - 1) > np.maximum(5 * np.nan_to_num(error), 0.005)
        names, known = codes["channel"].values, np.isfinite(factor)
        factor = np.where(changed, factor, 1.0)
        self.multipliers = dict(zip(names[known].tolist(), factor[known].tolist(), strict=True))
        if changed.any():
            named = ", ".join(
                f"{name} by {value:.3g}" for name, value in zip(names[changed], factor[changed], strict=True)
            )
            self.warnings.append(
                f"the camera multiplied its numbers before it saved them ({named}; codes are missing accordingly), so "
                "the gain of these channels is per saved ADU, and low by that factor; firmware that saves raw helps"
            )
        return self.multipliers

    def _pictures(
        self, read: xr.Dataset | None, ptc: xr.Dataset | None, gain: xr.Dataset | None, darks: sensor.Darks | None
    ) -> dict[str, xr.Dataset | None]:
        """Measure what is there to be looked at; these frames were all read before."""
        found: dict[str, xr.Dataset | None] = dict.fromkeys(_PICTURES)
        if darks is not None and darks.map is not None and darks.map.attrs["units"] == "e-/s":
            found["dcnu"] = sensor.dcnu_histogram(darks.map)
            found["hot_pixels"] = sensor.hot_pixels(darks.map)
        if ptc is not None:
            names = _best_flats(ptc)
            black = ptc["black_level"].isel(pair=0).values
            cube = self._cube("flat")
            cube = take_frames(cube, np.isin(cube["filename"].values, names))
            found["vignetting"] = sensor.vignetting(cube, black, progress=self.bar)
        if darks is not None:
            if gain is not None:
                found["dark_noise"] = self._optional(
                    lambda: sensor.dark_noise(self._cube("dark"), gain, read, progress=self.bar)
                )
            found["dark_subtraction"] = self._optional(
                lambda: sensor.dark_subtraction(self._cube("dark"), self._cube("light"), gain, progress=self.bar)
            )
        return found

    def _uniformity(
        self, read: xr.Dataset | None, ptc: xr.Dataset | None, gain: xr.Dataset | None, darks: sensor.Darks | None
    ) -> Uniformity:
        """Measure what of the pixels differs; the frames were all read before."""
        found = measure_uniformity(
            self._cube("bias"), self._cube("flat"), read=read, ptc=ptc, gain=gain, darks=darks, progress=self.bar
        )
        self.warnings += found.warnings
        return found

    def _fidelity(self) -> sensor.Fidelity | None:
        """Fill in the raw report card; None for frames that are not whole numbers."""
        try:
            return sensor.inspect_frames(card_frames(self.folder), progress=self.bar)
        except FrameReadError:
            raise
        except WorkbenchError:
            return None

    def _optional(self, measure: Callable[[], xr.Dataset]) -> xr.Dataset | None:
        try:
            return measure()
        except FrameReadError as error:  # a light: bias, darks and flats have been read
            self._drop(error)
            return self._optional(measure)
        except WorkbenchError as error:
            self.warnings.append(str(error))
            return None

    def _say_what_is_missing(
        self, read: xr.Dataset | None, gain: xr.Dataset | None, darks: sensor.Darks | None
    ) -> None:
        if read is None:
            self.warnings.append(
                "no bias frames: read noise and black level are not measured, and the gain is fitted with a free "
                "intercept; shoot ten or more at each ISO, lens covered, at the shortest exposure"
            )
        if gain is None:
            self.warnings.append(
                "no pairs of flats: the gain is not measured, and nothing can be said in electrons; shoot two or more "
                "equal flats at each of five or more exposures, up to 70 % of saturation, at each ISO"
            )
        elif read is not None:
            lacking = sorted({*gain["iso"].values} - {*read["iso"].values})
            if lacking and not np.isnan(lacking).any():
                self.warnings.append(
                    f"no bias frames at ISO {', '.join(f'{iso:g}' for iso in lacking)}: read noise and black level "
                    "are not measured there; shoot ten or more"
                )
        if darks is None:
            self.warnings.append(
                "no darks: dark current is not measured; shoot three or more at each of two or more exposures, and at "
                "two or more temperatures for the doubling temperature"
            )


_PICTURES = ("dark_noise", "dcnu", "hot_pixels", "vignetting", "dark_subtraction")


def _if_any(result: xr.Dataset | None, name: str) -> xr.Dataset | None:
    """Return the result if at least one of its numbers was measured."""
    return result if result is not None and np.isfinite(result[name].values).any() else None


def _best_flats(ptc: xr.Dataset) -> Iterable[str]:
    """Return the flats of the brightest level that is well below saturation, at the lowest ISO."""
    iso = ptc["iso"].values
    lowest = iso == np.nanmin(iso) if np.isfinite(iso).any() else np.ones(iso.size, bool)
    signal = ptc["signal"].max("channel").values
    clear = lowest & (ptc["saturated_fraction"].max("channel").values < 1e-3)
    room = ptc.attrs["white_level"] - ptc["black_level"].max("channel").values
    calm = clear & ~(signal > 0.7 * room)
    choice = next(mask for mask in (calm, clear, lowest) if mask.any())
    level = ptc["level"].values[np.argmax(np.where(choice, signal, -np.inf))]
    same = choice & (ptc["level"].values == level)
    return sorted({*ptc["filename_1"].values[same], *ptc["filename_2"].values[same]})
