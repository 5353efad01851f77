"""How good frames are, by their stars: which are set aside, and which the others are laid on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from ..core.errors import WorkbenchError

_QUALITY = {
    "stars": ("1", "stars found"),
    "fwhm": ("pix", "median FWHM"),
    "roundness": ("1", "median roundness (minor over major axis)"),
    "background": ("", "median background"),
    "noise": ("", "background noise of a pixel of the searched plane"),
    "snr": ("1", "median signal-to-noise ratio of the 100 brightest stars"),
}


def quality_table(catalogues: Sequence[xr.Dataset], filenames: Sequence[str]) -> xr.Dataset:
    """Return the quality of frames, a Dataset over ``frame``, from their star lists (`find_stars`).

    Variables ``stars``, ``fwhm`` [px], ``roundness``, ``background``, ``noise``, ``snr`` (of the hundred
    brightest); ``transparency`` is added once stars are matched.
    """
    rows = []
    for stars in catalogues:
        snr = stars["snr"].values[~stars["saturated"].values][:100]
        rows.append(
            (
                stars.attrs["detected"],
                stars.attrs["fwhm"],
                stars.attrs["roundness"],
                stars.attrs["background"],
                stars.attrs["noise"],
                float(np.median(snr)) if snr.size else np.nan,
            )
        )
    columns = np.array(rows, float).reshape(-1, len(_QUALITY)).T
    return xr.Dataset(
        {
            name: ("frame", column, {"units": units, "long_name": text})
            for (name, (units, text)), column in zip(_QUALITY.items(), columns, strict=True)
        },
        coords={"filename": ("frame", np.array(list(filenames), object))},
    )


def poor_frames(quality: xr.Dataset, *, least_stars: int = 6) -> dict[int, str]:
    """Return the frames that should not be stacked, as index → reason.

    No stars; fewer than a fifth of the median count (clouds); FWHM beyond the median by 60 % (focus lost);
    roundness below 0.5 and well below the others' (trailed).  What half of the frames share is not a fault of
    one of them, so that a wide or poorly guided set still stacks.

    Examples
    --------
    >>> table = xr.Dataset({"stars": ("frame", [500, 480, 2, 510]), "fwhm": ("frame", [3.0, 3.0, 3.0, 6.5]),
    ...                     "roundness": ("frame", [0.9, 0.9, 0.9, 0.9])})
    >>> poor_frames(table)
    {2: '2 stars found, fewer than 6', 3: 'FWHM 6.5 px where the others have 3.0 px: out of focus or bad seeing'}
    """
    stars, fwhm, roundness = (quality[name].values for name in ("stars", "fwhm", "roundness"))
    reasons: dict[int, str] = {}
    enough = stars >= least_stars
    if not enough.any():
        return {index: f"{int(count)} stars found, fewer than {least_stars}" for index, count in enumerate(stars)}
    usual_count = float(np.median(stars[enough]))
    usual_fwhm = float(np.nanmedian(fwhm[enough]))
    usual_round = float(np.nanmedian(roundness[enough]))
    for index, count in enumerate(stars):
        if count < least_stars:
            reasons[index] = f"{int(count)} stars found, fewer than {least_stars}"
        elif count < 0.2 * usual_count:
            reasons[index] = (
                f"{int(count)} stars found where the others have {usual_count:.0f}: clouds or another field"
            )
        elif roundness[index] < min(0.5, 0.7 * usual_round):
            reasons[index] = f"stars are trailed: roundness {roundness[index]:.2f}, the others' {usual_round:.2f}"
        elif fwhm[index] > 1.6 * usual_fwhm:
            reasons[index] = (
                f"FWHM {fwhm[index]:.1f} px where the others have {usual_fwhm:.1f} px: out of focus or bad seeing"
            )
    return reasons


def choose_reference(quality: xr.Dataset, usable: Sequence[int] | None = None) -> int:
    """Return the index of the frame that the others are best aligned to.

    The score multiplies star count and squared roundness over squared FWHM and noise, each relative to the
    median; among equals the first.

    Examples
    --------
    >>> table = xr.Dataset({"stars": ("frame", [500, 480]), "fwhm": ("frame", [3.0, 2.5]),
    ...                     "roundness": ("frame", [0.9, 0.9]), "noise": ("frame", [4.0, 4.0])})
    >>> choose_reference(table)
    1
    """
    indices = list(range(quality.sizes["frame"])) if usable is None else list(usable)
    if not indices:
        raise WorkbenchError("no usable frame: none of the frames shows enough stars to be the reference")
    values = {name: quality[name].values[indices].astype(float) for name in ("stars", "fwhm", "roundness", "noise")}
    values = {name: column / np.nanmedian(column) for name, column in values.items()}
    score = values["stars"] * values["roundness"] ** 2 / (values["fwhm"] ** 2 * values["noise"])
    return int(indices[int(np.nanargmax(score))])
