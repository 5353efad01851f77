"""What follows from read noise and photon transfer together, for `characterize`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from .. import pixels, sensor
from ..core.errors import FrameReadError
from ..core.results import at_lowest_iso
from ..core.selection import group_frames
from ..core.values import setting_text, value_text
from ..ingest.catalogue import Folder


@dataclass(repr=False)
class Transfer:
    """Results of the functions of `workbench.sensor` of the same names; None where these frames do not give them."""

    split: xr.Dataset | None = None
    wells: xr.Dataset | None = None
    dynamic_range: xr.Dataset | None = None
    linearity: xr.Dataset | None = None
    curvature: xr.Dataset | None = None
    dark_transfer: xr.Dataset | None = None
    dark_gain: xr.Dataset | None = None
    warnings: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return what was found in words, one a line."""
        found = []
        if self.split is not None:
            before, after, iso = (
                value_text(self.split[name].item(), self.split[f"{name}_error"].item(), unit)
                for name, unit in (("before_gain", "e- rms"), ("after_gain", "ADU rms"), ("invariance_iso", ""))
            )
            found.append(f"read noise before the gain: {before}, after it: {after}")
            if np.isfinite(self.split["invariance_iso"]):
                within = 100 * self.split.attrs["within"]
                found.append(f"from ISO {iso} on, read noise is within {within:.0f} % of its floor")
        for name, title, unit in (("wells", "full well", "e-"), ("linearity", "linearity error", "%")):
            data = getattr(self, name)
            if data is None:
                continue
            value = at_lowest_iso(data, {"wells": "full_well"}.get(name, "linearity_error"))
            if value is not None:
                place = setting_text(value, why=name == "wells")
                found.append(
                    f"{title}{f' ({place})' if place else ''}: {value_text(value['value'], value['error'], unit)}"
                )
        return found

    def results(self) -> dict[str, xr.Dataset | None]:
        """Return what `results.sensor_dataset` takes, by its names."""
        names = ("split", "wells", "dynamic_range", "linearity", "curvature", "dark_gain")
        return {name: getattr(self, name) for name in names}


def derive_transfer(
    read: xr.Dataset | None, ptc: xr.Dataset | None, gain: xr.Dataset | None, darks: xr.Dataset | None
) -> Transfer:
    """Derive what needs no further frame.

    Parameters
    ----------
    read, ptc, gain, darks
        From `sensor.read_noise`, `photon_transfer`, `fit_gain` and `dark_transfer`, or None.
    """
    found = Transfer()

    def keep(name: str, result: xr.Dataset, value: str) -> None:
        found.warnings += result.attrs.get("warnings", [])
        if np.isfinite(result[value].values).any():
            setattr(found, name, result)

    if ptc is not None and gain is not None:
        wells = sensor.full_well(ptc, gain)
        keep("wells", wells, "full_well")
        keep("linearity", sensor.linearity(ptc, wells), "linearity_error")
        keep("curvature", sensor.fit_curvature(ptc), "curvature")
        if read is not None and found.wells is not None:
            keep("dynamic_range", sensor.dynamic_range(read, wells), "dynamic_range")
    if read is not None and gain is not None:
        keep("split", sensor.split_read_noise(read, gain), "before_gain")
    if darks is not None:
        found.dark_transfer = darks if darks.sizes["point"] else None
        found.warnings += darks.attrs.get("warnings", [])
        alone = sensor.gain_from_darks(darks)
        keep("dark_gain", alone if gain is None else sensor.compare_gains(alone, gain), "gain")
        found.warnings += _disagreement(found.dark_gain)
    return found


def measure_pixel_noise(folder: Folder, *, progress: Any = True) -> xr.Dataset | None:
    """Measure the read noise of every pixel at the ISO with the most bias frames, the lowest of several.

    Returns
    -------
    xarray.Dataset or None
        From `sensor.noise_distribution`; None where no ISO has three equal bias frames.
    """
    while folder.has("bias"):
        bias = folder.cube("bias")
        _, frames = max(group_frames(bias, "iso", "exposure"), key=lambda group: len(group[1]))
        if len(frames) < 3:
            return None
        try:
            return pixels.noise_distribution(pixels.noise_map(bias.isel(frame=frames), progress=progress))
        except FrameReadError as error:
            folder = folder.drop(error.path, error.problem)
    return None


def _disagreement(dark_gain: xr.Dataset | None) -> list[str]:
    """Say where the gains of darks and of flats differ in most channels; of four right ones one differs by chance."""
    if dark_gain is None or "agrees" not in dark_gain:
        return []
    known = np.isfinite(dark_gain["ratio"].values)
    apart = known & ~dark_gain["agrees"].values
    warnings = []
    for row, iso in enumerate(dark_gain["iso"].values):
        if apart[row].sum() > known[row].sum() / 2:
            ratio = float(np.nanmedian(dark_gain["ratio"].values[row]))
            warnings.append(
                f"darks and flats give different gains at ISO {iso:g} (darks/flats {ratio:.3f}): {_reason(ratio)}"
            )
    return warnings


def _reason(ratio: float) -> Any:
    if ratio < 1:
        return (
            "the darks' noise is greater than their signal explains; hot pixels that flicker, or darks that were not "
            "equally warm, do this, and the flats' gain is to be trusted"
        )
    return (
        "the darks' signal is greater than their noise explains; a black level that rises with the exposure, or bias "
        "frames of another temperature, do this, and the flats' gain is to be trusted"
    )
