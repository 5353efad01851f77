"""All that `characterize` measures: darks in one thread, what else bias frames and flats tell in another."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from .. import fidelity, pixels, sensor
from ..core.cube import channels_of, take_frames
from ..core.errors import FrameReadError, WorkbenchError
from ..core.parallel import side_by_side, stream_frames
from ..core.results import sensor_dataset
from ..core.values import is_simulated
from ..ingest.catalogue import Folder
from ..sensor.bias import CLIPPED_FRACTION
from .card import card_frames, card_size, flat_transfer
from .transfer import Transfer, derive_transfer
from .uniformity import Patterns, blocks, complete, measure_patterns

Result = TypeVar("Result")

MEASURED = ("bias", "flat", "dark")
_PICTURES = ("dark_noise", "dcnu", "hot_pixels", "vignetting", "dark_subtraction")


class Measurement:
    """One measurement of a folder: what was found on the way, and the frames left to measure."""

    def __init__(self, folder: Folder, writes: bool, bar: tqdm) -> None:
        self.folder, self.writes, self.bar = folder, writes, bar
        self.cubes: dict[str, xr.DataArray] = {}
        self.warnings = list(folder.warnings)
        self.multipliers: dict[str, float] | None = None
        bar.total = self._expected_frames()

    def _expected_frames(self) -> int:
        """Frames to be read: each once, and some again, for what they show besides."""
        count, table = self.folder.count, self.folder.table
        darks, biases = table[table["kind"] == "dark"], table[table["kind"] == "bias"]
        size = int(table["height"].iloc[0]) * int(table["width"].iloc[0])
        again = biases["iso"].isin(darks["iso"]).sum()  # beside the darks of their ISO
        again += min(8 * darks["iso"].nunique(), len(darks)) + 2 * bool(len(darks)) + min(len(darks), 17)
        again += 4 * min(count("flat"), 4) + (len(biases) if size < 1e6 else min(len(biases), 10)) + card_size(table)
        return sum(count(kind) for kind in MEASURED) + int(again)

    def measure(self) -> dict[str, Any]:
        """Measure everything that these frames give; the fields of a `Characterization`."""
        read = self._read_noise()
        ptc = self._try("flat", lambda cube: sensor.photon_transfer(cube, read, progress=self.bar))
        gain = unity = snr = None
        if ptc is not None and ptc.sizes["pair"]:
            gain = self._note(sensor.fit_gain(ptc))
            unity = self._note(sensor.unity_gain_iso(gain))
            snr = sensor.shot_noise_snr(ptc, gain)
        elif ptc is not None:
            ptc = None
        with ThreadPoolExecutor(1) as second, side_by_side(2):
            beside = second.submit(copy_context().run, self._bias_and_flats, ptc, gain)
            darks = self._darks(gain)
            law = None
            if darks is not None:
                law = self._note(sensor.dark_law(darks.current)) if darks.current.sizes["setting"] else None
            transfer = self._transfer(read, ptc, gain)
            pictures = self._pictures(read, gain, darks)
            patterns, pictures["vignetting"], warnings = beside.result()
            self.warnings += warnings
            beside = second.submit(copy_context().run, self._fidelity)
            uniformity = complete(patterns, read=read, ptc=ptc, gain=gain, darks=darks)
            self.warnings += uniformity.warnings
            report = beside.result()
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
            blocks=blocks(uniformity, darks, report, written=self.writes),
        )
        return {
            "camera": camera,
            "simulated": is_simulated(camera),
            "sensor": numbers,
            "read_noise": _if_any(read, "read_noise_adu"),
            "ptc": ptc,
            "gain": _if_any(gain, "gain"),
            "unity": _if_any(unity, "unity_gain_iso"),
            "dark_signal": None if darks is None else _if_any(darks.signal, "dark_signal"),
            "dark_current": None if darks is None else _if_any(darks.current, "dark_current"),
            "dark_law": _if_any(law, "doubling_temperature"),
            "snr": _if_any(snr, "snr"),
            "transfer": transfer,
            **pictures,
            "uniformity": uniformity,
            "fidelity": report,
            "frame_counts": {kind: self.folder.count(kind) for kind in (*MEASURED, "light")},
            "warnings": self._all_warnings(),
            "set_aside": list(self.folder.set_aside),
        }

    def _bias_and_flats(
        self, ptc: xr.Dataset | None, gain: xr.Dataset | None
    ) -> tuple[Patterns, xr.Dataset | None, list[str]]:
        """Measure what else bias frames and flats tell, all read before: their patterns, the vignetting, warnings."""
        warnings: list[str] = []
        bias, flat = self._cube("bias"), self._cube("flat")
        vignetting = None
        if ptc is not None:
            self._multipliers(flat, warnings)
            black = ptc["black_level"].isel(pair=0).values
            shown = take_frames(flat, np.isin(flat["filename"].values, _best_flats(ptc)))
            vignetting = pixels.vignetting(shown, black, progress=self.bar)
        return measure_patterns(bias, flat, ptc=ptc, gain=gain, progress=self.bar), vignetting, warnings

    def _camera(self) -> tuple[str, str]:
        row = self.folder.table[self.folder.table["kind"].isin(MEASURED)].iloc[0]
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
        cube = self.cubes.get(kind)
        if cube is None and self.folder.has(kind):
            cube = self.cubes[kind] = self.folder.cube(kind)
        return cube

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
        clipped = self._try("bias", lambda cube: (next(stream_frames(cube.data[:1])) == 0).mean() > CLIPPED_FRACTION)
        known = self._try("flat", lambda cube: self._multipliers(cube, self.warnings)) if clipped else None
        return self._try("bias", lambda cube: sensor.read_noise(cube, multiplier=known, progress=self.bar))

    def _transfer(self, read: xr.Dataset | None, ptc: xr.Dataset | None, gain: xr.Dataset | None) -> Transfer:
        darks = None
        if read is not None:
            darks = self._try("dark", lambda cube: sensor.dark_transfer(cube, read, progress=self.bar))
        found = derive_transfer(read, ptc, gain, darks)
        self.warnings += found.warnings
        return found

    def _multipliers(self, flat: xr.DataArray, warnings: list[str]) -> dict[str, float]:
        """Find what the camera multiplied its channels with, and warn; the flats' missing codes show it."""
        isos = flat["iso"].values
        lowest = isos == np.nanmin(isos) if np.isfinite(isos).any() else np.ones(isos.size, bool)
        if self.multipliers is not None or not np.issubdtype(flat.dtype, np.integer):
            return self.multipliers or {}
        codes = fidelity.missing_codes(fidelity.count_codes(take_frames(flat, lowest), progress=self.bar)).isel(iso=0)
        factor, error = codes["multiplier"].values, codes["multiplier_error"].values
        changed = np.abs(factor - 1) > np.maximum(5 * np.nan_to_num(error), 0.005)
        names, known = codes["channel"].values, np.isfinite(factor)
        factor = np.where(changed, factor, 1.0)
        self.multipliers = dict(zip(names[known].tolist(), factor[known].tolist(), strict=True))
        if changed.any():
            named = ", ".join(
                f"{name} by {value:.3g}" for name, value in zip(names[changed], factor[changed], strict=True)
            )
            warnings.append(
                f"the camera multiplied its numbers before it saved them ({named}; codes are missing accordingly), so "
                "the gain of these channels is per saved ADU, and low by that factor; firmware that saves raw helps"
            )
        return self.multipliers

    def _pictures(
        self, read: xr.Dataset | None, gain: xr.Dataset | None, darks: sensor.Darks | None
    ) -> dict[str, xr.Dataset | None]:
        """Measure what of the darks is there to be looked at; they were all read before."""
        found: dict[str, xr.Dataset | None] = dict.fromkeys(_PICTURES)
        if darks is None:
            return found
        if darks.map is not None and darks.map.attrs["units"] == "electron / s":
            found["dcnu"] = pixels.dcnu_histogram(darks.map)
            found["hot_pixels"] = pixels.hot_pixels(darks.map)
        if gain is not None:
            found["dark_noise"] = self._optional(
                lambda: pixels.dark_noise(self._cube("dark"), gain, read, progress=self.bar)
            )
        found["dark_subtraction"] = self._optional(
            lambda: pixels.dark_subtraction(self._cube("dark"), self._cube("light"), gain, progress=self.bar)
        )
        return found

    def _fidelity(self) -> fidelity.Fidelity | None:
        """Fill in the raw report card; None for frames that are not whole numbers."""
        try:
            frames = card_frames(self.folder, progress=self.bar)
            return fidelity.inspect_frames(frames, ptc=flat_transfer(frames), progress=False)
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
