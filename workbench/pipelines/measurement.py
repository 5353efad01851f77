"""The stages of `characterize`: each measures what some frames give, and returns the folder without unreadable ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from .. import fidelity, pixels, sensor
from ..core.cube import channels_of, group_frames, take_frames
from ..core.errors import FrameReadError, Guess, WorkbenchError, said_of_all
from ..core.mosaic import crop, middle
from ..core.parallel import counted, lazy_frames, stream_frames
from ..core.results import at_lowest_iso
from ..core.settings import in_words_of, setting_dim, setting_of_table
from ..core.values import describe, error_of, setting_text, value_text
from ..fidelity.findings import DARK_KINDS
from ..ingest.folder import Folder
from ..ingest.reader import open_frames
from ..sensor.bias import CLIPPED_FRACTION

MEASURED = ("bias", "flat", "dark")
MAJORITY = 2 / 3  # of the frames that must agree before the others are set aside
_CARD_PIXELS = 13e6  # that the report card looks at, in parts of at most
_CARD_SIDE = 1024  # px a side


class Factors(NamedTuple):
    """What the camera multiplied each channel with before it saved the numbers, and the warning if it did."""

    values: dict[str, float]
    warnings: list[str]


class FlatResults(NamedTuple):
    """What pairs of flats give; None where there are none."""

    ptc: xr.Dataset | None = None
    gain: xr.Dataset | None = None
    unity: xr.Dataset | None = None
    snr: xr.Dataset | None = None


@dataclass(repr=False)
class Transfer:
    """What follows from read noise and photon transfer together; None where these frames do not give it.

    Attributes
    ----------
    split, wells, dynamic_range, linearity, curvature
        Results of `sensor.split_read_noise`, `full_well`, `dynamic_range`, `linearity`, `fit_curvature`.
    dark_transfer, dark_gain
        Of `sensor.dark_transfer`, and of `compare_gains` or `gain_from_darks`.
    warnings
        What is doubtful, and what to do.
    """

    split: xr.Dataset | None = None
    wells: xr.Dataset | None = None
    dynamic_range: xr.Dataset | None = None
    linearity: xr.Dataset | None = None
    curvature: xr.Dataset | None = None
    dark_transfer: xr.Dataset | None = None
    dark_gain: xr.Dataset | None = None
    warnings: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the results in words, one a line."""
        lines = []
        if self.split is not None:
            before, after, setting = (
                value_text(self.split[name].item(), self.split[f"{name}_error"].item(), unit)
                for name, unit in (("before_gain", "e⁻ rms"), ("after_gain", "ADU rms"), ("invariance_iso", ""))
            )
            lines.append(f"read noise before the gain: {before}, after it: {after}")
            if np.isfinite(self.split["invariance_iso"]):
                within = 100 * self.split.attrs["within"]
                dim = self.split.attrs.get("of", "iso")
                lines.append(
                    f"from {in_words_of(dim, 'ISO')} {setting} on, read noise is within {within:.0f} % of its floor"
                )
        for data, name, unit in ((self.wells, "full_well", "e⁻"), (self.linearity, "linearity_error", "%")):
            value = None if data is None else at_lowest_iso(data, name)
            if value is not None:
                setting = setting_text(value, why=name == "full_well")
                title = name.replace("_", " ") + (f" ({setting})" if setting else "")
                lines.append(f"{title}: {value_text(value['value'], error_of(value), unit)}")
        return lines

    def results(self) -> dict[str, xr.Dataset | None]:
        """Return what `core.results.sensor_dataset` takes, by its names."""
        return {
            "split": self.split, "wells": self.wells, "dynamic_range": self.dynamic_range,
            "linearity": self.linearity, "curvature": self.curvature, "dark_gain": self.dark_gain,
        }  # fmt: skip


def warnings_of(*results: xr.Dataset | None) -> list[str]:
    """Return the warnings of results, in their order."""
    return [text for result in results if result is not None for text in result.attrs.get("warnings", [])]


def set_aside_lines(folder: Folder) -> list[str]:
    """Return the files of a folder that are not used as warnings, one a reason."""
    return [f"set aside: {sentence}" for sentence in said_of_all(folder.set_aside)]


@contextmanager
def as_warning(warnings: list[str], subject: str = "") -> Iterator[None]:
    """Turn what the frames cannot give into a warning; a file that cannot be read stays an error."""
    try:
        yield
    except FrameReadError:
        raise
    except WorkbenchError as error:
        warnings.append(f"{subject}{error}")


def if_any(result: xr.Dataset | None, name: str) -> xr.Dataset | None:
    """Return the result if at least one of its numbers was measured."""
    return result if result is not None and np.isfinite(result[name].values).any() else None


def cube_of(folder: Folder, kind: str) -> xr.DataArray | None:
    """Return the frames of a kind; None where there are none."""
    return folder.cube(kind) if folder.has(kind) else None


def expected_frames(folder: Folder) -> int:
    """Return how many frames `characterize` reads: each once, and some again for what else they show."""
    table, count = folder.table, folder.count
    darks, biases = table[table["kind"] == "dark"], table[table["kind"] == "bias"]
    size = int(table["height"].iloc[0]) * int(table["width"].iloc[0])
    dim = setting_of_table(table)
    again = biases[dim].isin(darks[dim]).sum()  # with the darks of their setting
    again += min(8 * darks[dim].nunique(), len(darks)) + 2 * bool(len(darks)) + min(len(darks), 17)
    again += 4 * min(count("flat"), 4) + (len(biases) if size < 1e6 else min(len(biases), 10)) + card_size(table)
    return sum(count(kind) for kind in MEASURED) + int(again)


def measure_read_noise(folder: Folder, bar: Any) -> tuple[xr.Dataset | None, Factors | None, Folder]:
    """Measure read noise and black level, and the camera's factors where bias frames are clipped, which need them."""

    def clipped(frames: Folder) -> bool:
        return (next(stream_frames(frames.bias.data[:1])) == 0).mean() > CLIPPED_FRACTION

    factors = None
    needed, folder = folder.without_unreadable(clipped, "bias")
    if needed:
        factors, folder = folder.without_unreadable(lambda frames: camera_factors(frames.flat, bar), "flat")
    known = None if factors is None else factors.values
    read, folder = folder.without_odd(
        lambda frames: sensor.read_noise(frames.bias, multiplier=known, progress=bar), "bias"
    )
    return read, factors, folder


def camera_factors(flat: xr.DataArray, bar: Any) -> Factors:
    """Measure what the camera multiplied its channels with, which the flats' missing codes show best."""
    if not np.issubdtype(flat.dtype, np.integer):
        return Factors({}, [])
    counted_codes = fidelity.count_codes(take_frames(flat, _lowest(flat[setting_dim(flat)].values)), progress=bar)
    codes = fidelity.missing_codes(counted_codes)
    codes = codes.isel({setting_dim(codes): 0})
    factor, error = codes["multiplier"].values, codes["multiplier_error"].values
    changed = np.abs(factor - 1) > np.maximum(5 * np.nan_to_num(error), 0.005)
    names, known = codes["channel"].values, np.isfinite(factor)
    factor = np.where(changed, factor, 1.0)
    warnings: list[str] = []
    if changed.any():
        named = ", ".join(f"{name} by {value:.3g}" for name, value in zip(names[changed], factor[changed], strict=True))
        warnings.append(
            Guess(
                f"codes are missing ({named})",
                "the camera multiplied its numbers before it saved them, so the gain of these channels is per saved "
                "ADU, and low by that factor; firmware that saves raw helps",
                "factor",
            )
        )
    return Factors(dict(zip(names[known].tolist(), factor[known].tolist(), strict=True)), warnings)


def measure_light(folder: Folder, read: xr.Dataset | None, bar: Any) -> tuple[FlatResults, list[str], Folder]:
    """Measure photon transfer and gain from pairs of flats, compared with what headers state; the warnings too."""
    ptc, folder = folder.without_odd(lambda frames: sensor.photon_transfer(frames.flat, read, progress=bar), "flat")
    table = folder.table[folder.table["kind"].isin(MEASURED)]
    channels = channels_of(str(table["cfa_pattern"].iloc[0]))
    step = next((part.attrs["step"] for part in (read, ptc) if part is not None), 1)
    if ptc is None or not ptc.sizes["pair"]:
        gain, claims = sensor.with_stated_gain(None, table, channels, step)
        return FlatResults(gain=gain), [*warnings_of(ptc), *claims], folder
    gain = sensor.fit_gain(ptc)
    unity, snr = sensor.unity_gain_iso(gain), sensor.shot_noise_snr(ptc, gain)
    warnings = warnings_of(ptc, gain, unity)
    gain, claims = sensor.with_stated_gain(gain, table, channels, step)
    return FlatResults(ptc, gain, unity, snr), [*warnings, *claims], folder


def measure_darks(
    folder: Folder, gain: xr.Dataset | None, bar: Any
) -> tuple[sensor.Darks | None, xr.Dataset | None, Folder]:
    """Measure dark signal and dark current, and fit the dark law."""
    darks, folder = folder.without_odd(
        lambda frames: sensor.measure_dark(frames.dark, cube_of(frames, "bias"), gain, progress=bar), "dark"
    )
    law = sensor.dark_law(darks.current) if darks is not None and darks.current.sizes["setting"] else None
    return darks, law, folder


def measure_transfer(folder: Folder, read: xr.Dataset | None, light: FlatResults, bar: Any) -> tuple[Transfer, Folder]:
    """Measure the gain from darks alone, and derive what read noise and photon transfer give together."""
    darks = None
    if read is not None and not (read["smoothing"] > 1).any():  # filtered darks vary too little for their signal
        darks, folder = folder.without_unreadable(
            lambda frames: sensor.dark_transfer(frames.dark, read, progress=bar), "dark"
        )
    return derive_transfer(read, light.ptc, light.gain, darks), folder


def derive_transfer(
    read: xr.Dataset | None, ptc: xr.Dataset | None, gain: xr.Dataset | None, darks: xr.Dataset | None
) -> Transfer:
    """Derive what needs no further frame from `sensor.read_noise`, `photon_transfer`, `fit_gain`, `dark_transfer`."""
    kept: dict[str, xr.Dataset] = {}
    warnings: list[str] = []

    def keep(name: str, result: xr.Dataset, value: str) -> xr.Dataset | None:
        warnings.extend(warnings_of(result))
        if np.isfinite(result[value].values).any():
            kept[name] = result
        return kept.get(name)

    if ptc is not None and gain is not None:
        wells = sensor.full_well(ptc, gain)
        known = keep("wells", wells, "full_well")
        keep("linearity", sensor.linearity(ptc, wells), "linearity_error")
        keep("curvature", sensor.fit_curvature(ptc), "curvature")
        if read is not None and known is not None:
            keep("dynamic_range", sensor.dynamic_range(read, wells), "dynamic_range")
    if read is not None and gain is not None:
        keep("split", sensor.split_read_noise(read, gain), "before_gain")
    if darks is not None:
        if darks.sizes["point"]:
            kept["dark_transfer"] = darks
        warnings += warnings_of(darks)
        alone = sensor.gain_from_darks(darks)
        warnings += _disagreement(
            keep("dark_gain", alone if gain is None else sensor.compare_gains(alone, gain), "gain")
        )
    return Transfer(**kept, warnings=warnings)


def _disagreement(dark_gain: xr.Dataset | None) -> list[str]:
    """Warn where the gains of darks and of flats differ in most channels; of four right ones one differs by chance."""
    if dark_gain is None or "agrees" not in dark_gain:
        return []
    known = np.isfinite(dark_gain["ratio_error"].values)  # a gain that headers state has no error
    apart, dim = known & ~dark_gain["agrees"].values, setting_dim(dark_gain)
    warnings: list[str] = []
    for row in np.flatnonzero(apart.sum(axis=1) > known.sum(axis=1) / 2):
        where = describe({dim: dark_gain[dim].values[row]})
        ratio = float(np.nanmedian(dark_gain["ratio"].values[row]))
        facts = (
            f"darks and flats give different gains at {where} (darks/flats {ratio:.3f}): the darks' "
            f"{'noise is greater than their signal' if ratio < 1 else 'signal is greater than their noise'} explains"
        )
        flicker = "hot pixels that flicker, or darks that were not equally warm"
        risen = "a black level that rises with the exposure, or bias frames of another temperature"
        cause = f"{flicker if ratio < 1 else risen}, do this, and the flats' gain is to be trusted"
        warnings.append(Guess(facts, cause, "warmth" if ratio < 1 else "black level"))
    return warnings


def measure_dark_maps(
    folder: Folder, read: xr.Dataset | None, gain: xr.Dataset | None, darks: sensor.Darks | None, bar: Any
) -> tuple[dict[str, Any], list[str], Folder]:
    """Measure what the darks, all read before, show pixel by pixel; returns the warnings too."""
    results: dict[str, xr.Dataset | None] = {}
    warnings: list[str] = []
    if darks is None:
        return results, warnings, folder
    if darks.map is not None and darks.map.attrs["units"] == "electron / s":
        results |= {"dcnu": pixels.dcnu_histogram(darks.map), "hot_pixels": pixels.hot_pixels(darks.map)}
    wanted = (
        {} if gain is None else {"dark_noise": lambda frames: pixels.dark_noise(frames.dark, gain, read, progress=bar)}
    )
    wanted["dark_subtraction"] = lambda frames: pixels.dark_subtraction(
        frames.dark, cube_of(frames, "light"), gain, progress=bar
    )
    for name, measure in wanted.items():
        with as_warning(warnings):
            results[name], folder = folder.without_unreadable(measure, "dark")
    return results, warnings, folder


def measure_vignetting(flat: xr.DataArray, ptc: xr.Dataset, bar: Any) -> xr.Dataset:
    """Measure the vignetting on flats of the brightest level well below saturation, at the lowest setting."""
    lowest = _lowest(ptc[setting_dim(ptc)].values)
    signal = ptc["signal"].max("channel").values
    clear = lowest & (ptc["saturated_fraction"].max("channel").values < 1e-3)
    room = ptc.attrs["white_level"] - ptc["black_level"].max("channel").values
    calm = clear & ~(signal > 0.7 * room)
    choice = next(mask for mask in (calm, clear, lowest) if mask.any())
    level = ptc["level"].values[np.argmax(np.where(choice, signal, -np.inf))]
    same = choice & (ptc["level"].values == level)
    names = {*ptc["filename_1"].values[same], *ptc["filename_2"].values[same]}
    shown = take_frames(flat, np.isin(flat["filename"].values, sorted(names)))
    return pixels.vignetting(shown, ptc["black_level"].isel(pair=0).values, progress=bar)


def _lowest(settings: np.ndarray) -> np.ndarray:
    """Return which have the lowest ISO or gain setting; all, where none is stated."""
    return settings == np.nanmin(settings) if np.isfinite(settings).any() else np.ones(settings.size, bool)


def measure_pixel_noise(folder: Folder, *, progress: Any = True) -> xr.Dataset | None:
    """Measure the read noise of every pixel at the setting with the most bias frames, the lowest of several.

    Returns
    -------
    xarray.Dataset or None
        From `pixels.noise_distribution`; None where no setting has three equal bias frames.
    """

    def measure(frames: Folder) -> xr.Dataset | None:
        bias = frames.bias
        _, chosen = max(group_frames(bias, setting_dim(bias), "exposure"), key=lambda group: len(group[1]))
        if len(chosen) < 3:
            return None
        return pixels.noise_distribution(pixels.noise_map(bias.isel(frame=chosen), progress=progress))

    return folder.without_unreadable(measure, "bias")[0]


def report_card(folder: Folder, bar: Any) -> fidelity.Fidelity | None:
    """Fill in the raw report card; None for frames that are not whole numbers."""
    with as_warning([]):
        frames = card_frames(folder, progress=bar)
        return fidelity.inspect_frames(frames, ptc=flat_transfer(frames), progress=False)
    return None


def card_frames(folder: Folder, progress: Any = False) -> xr.DataArray:
    """Return the middle of the frames that the report card needs, read, the most informative ones first.

    Bias frames and flats of the lowest setting, the longest of the warmest darks, bright flats of the highest setting,
    and as many others as some seconds allow.
    """
    table = folder.table[folder.table["kind"].isin(MEASURED)]
    flat, dark, bias = (table[table["kind"] == kind] for kind in ("flat", "dark", "bias"))
    dim = setting_of_table(table)
    low, high = flat[dim].min(), flat[dim].max()
    lowest = flat[flat[dim] == low] if math.isfinite(low) else flat
    wanted = [
        bias[bias[dim] == bias[dim].min()].head(4) if bias[dim].notna().any() else bias.head(4),
        dark.sort_values(["temperature", "exposure"], na_position="first").tail(2),
        lowest.sort_values("exposure").iloc[:: max(1, len(lowest) // 8)],
        flat[flat[dim] == high].sort_values("exposure").tail(2),
        *(flat[flat[dim] == one].sort_values("exposure").tail(2) for one in sorted(flat[dim].dropna().unique())),
        lowest,
        table,
    ]
    ranked = pd.concat([part for part in wanted if len(part)])
    ranked = ranked[~ranked["path"].duplicated()]
    window = _card_window(table)
    frames = open_frames(ranked.head(card_size(table)).assign(shift=0.0))  # codes as they were written
    lazy = lazy_frames(frames)
    stream = counted(stream_frames(lazy), progress, len(lazy))
    read = np.stack([frame[window].copy() for frame in stream])  # looked at more than once; the rest is let go
    return crop(frames, *window).copy(data=da.from_array(read, (1, -1, -1)))


def flat_transfer(frames: xr.DataArray, progress: Any = False) -> xr.Dataset | None:
    """Return the photon transfer of flats without bias frames or darks, which shows their black level; else None."""
    if np.isin(kinds := frames["kind"].values, DARK_KINDS).any() or not (kinds == "flat").any():
        return None
    ptc = sensor.photon_transfer(frames.isel(frame=kinds == "flat"), progress=progress)
    return ptc if ptc.sizes["pair"] else None


def card_size(table: pd.DataFrame) -> int:
    """Return how many frames of a table, at most, the report card looks at."""
    sides = [side.stop - side.start for side in _card_window(table)]
    return min(len(table), max(4, int(_CARD_PIXELS / math.prod(sides))))


def _card_window(table: pd.DataFrame) -> tuple[slice, slice]:
    """Return the middle of these frames, in whole cells of the mosaic."""
    whole = int(table["height"].iloc[0]), int(table["width"].iloc[0])
    rows, columns = (min(side, _CARD_SIDE) // 2 * 2 or side for side in whole)
    return middle(whole, (rows, columns))
