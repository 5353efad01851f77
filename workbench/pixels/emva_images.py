"""EMVA 1288 (release 4.0, linear) from images: pairs at every light level, and stacks for what is fixed in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ..core.errors import WorkbenchError
from .emva_space import emva_spatial
from .emva_time import emva_temporal
from .stacks import FrameStack, stack_frames


class Pair(NamedTuple):
    """Two equal pictures: `exposure` [s], `light` (photons per pixel; 0 in the dark), the two pictures (y, x) [DN]."""

    exposure: float
    light: float
    first: Any
    second: Any


def emva_points(pairs: Iterable[Pair | tuple], *, drift: str = "kept") -> dict[str, np.ndarray]:
    """Return mean and temporal variance of pairs of pictures, and the dark's beside each light level.

    μ = (μ_A + μ_B)/2; σ² = ½⟨(y_A − y_B)²⟩, less ½(μ_A − μ_B)² where `drift` is ``removed`` (a lamp that drifts
    between the two otherwise counts as noise; the reference implementation keeps it).  Pairs are taken one by one as
    they come, so a generator that reads files needs the memory of two pictures.

    Parameters
    ----------
    pairs
        (exposure [s], light, first, second) each: dark ones have light 0, and every exposure of a bright one needs
        one, unless there is a single dark pair for all.
    drift
        ``kept`` or ``removed``.

    Returns
    -------
    dict
        ``exposure``, ``light``, ``mean``, ``variance``, ``mean_dark``, ``variance_dark``, one number a light level,
        rising: what `emva_temporal` takes.

    Raises
    ------
    WorkbenchError
        If a dark pair is missing, or two pictures differ in shape.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> pairs = [(0.1, light, *rng.normal(20 + light / 2, 3, (2, 50, 50))) for light in (0, 100, 200)]
    >>> points = emva_points(pairs)
    >>> points["mean"].round().tolist(), points["mean_dark"].round().tolist()
    ([70.0, 120.0], [20.0, 20.0])
    """
    if drift not in ("kept", "removed"):
        raise WorkbenchError(f"drift is 'kept' or 'removed', not {drift!r}")
    bright, dark = [], {}
    for pair in pairs:
        one = Pair(*pair)
        row = (float(one.exposure), float(one.light), *_moments(one, drift))
        if one.light > 0:
            bright.append(row)
        else:
            dark[row[0]] = row[2:]
    if len(bright) < 2 or not dark:
        raise WorkbenchError(
            f"EMVA 1288 needs two light levels or more and a dark pair; there are {len(bright)} and {len(dark)}"
        )
    lacking = sorted({row[0] for row in bright} - set(dark))
    if lacking and len(dark) > 1:
        raise WorkbenchError(
            f"no dark pair of {lacking[0]:g} s ({len(lacking)} exposures lack one); every exposure needs its own"
        )
    only = next(iter(dark.values()))
    bright.sort()
    rows = np.array([(*row, *dark.get(row[0], only)) for row in bright])
    names = ("exposure", "light", "mean", "variance", "mean_dark", "variance_dark")
    return dict(zip(names, rows.T, strict=True))


def _moments(pair: Pair, drift: str) -> tuple[float, float]:
    first, second = np.asarray(pair.first), np.asarray(pair.second)
    if first.shape != second.shape or first.ndim != 2:
        raise WorkbenchError(
            f"the pair at {pair.exposure:g} s, light {pair.light:g}, has shapes {first.shape} and {second.shape}; "
            "it needs two pictures (y, x) of one shape"
        )
    exact = np.issubdtype(first.dtype, np.integer)
    difference = np.subtract(first, second, dtype=np.int64 if exact else float).ravel()
    means = first.mean(dtype=float), second.mean(dtype=float)
    half = float(difference @ difference) / difference.size / 2
    if drift == "removed":
        half -= (means[0] - means[1]) ** 2 / 2
    return (means[0] + means[1]) / 2, half


_UNITS = {
    "K": "DN/e-", "inverse_K": "e-/DN", "R": "DN/p", "QE": "%", "sigma_y_dark": "DN", "sigma_d": "e-", "u_p_min": "p",
    "u_e_min": "e-", "u_p_sat": "p", "u_e_sat": "e-", "SNR_max": "1", "SNR_max_dB": "dB", "SNR_max_bit": "bit",
    "inverse_SNR_max": "%", "DR": "1", "DR_dB": "dB", "DR_bit": "bit", "LE_min": "%", "LE_max": "%", "u_I_mean": "e-/s",
    "u_I_var": "e-/s", "index_u_ysat": "1", "u_y_dark_stack": "DN", "u_y_stack": "DN",
}  # fmt: skip
_TITLES = {
    "K": "system gain", "inverse_K": "inverse system gain", "R": "responsivity", "QE": "quantum efficiency",
    "sigma_y_dark": "temporal dark noise", "sigma_d": "temporal dark noise",
    "u_p_min": "absolute sensitivity threshold", "u_e_min": "absolute sensitivity threshold",
    "u_p_sat": "saturation capacity", "u_e_sat": "saturation capacity",
    "SNR_max": "greatest signal-to-noise ratio", "DR": "dynamic range", "LE_min": "linearity error, least",
    "LE_max": "linearity error, greatest", "u_I_mean": "dark current from the means",
    "u_I_var": "dark current from the variances",
}  # fmt: skip


def emva_unit(name: str) -> str:
    """Return the unit of a quantity under its EMVA name.

    Examples
    --------
    >>> emva_unit("DSNU1288_row_highpass"), emva_unit("DSNU1288_DN"), emva_unit("PRNU1288")
    ('e-', 'DN', '%')
    """
    if name.startswith("DSNU1288"):
        return "DN" if "_DN" in name else "e-"
    return "%" if name.startswith("PRNU1288") else _UNITS.get(name, "DN²")


def emva1288(
    pairs: Iterable[Pair | tuple] | Mapping[str, Any],
    dark_stack: FrameStack | Iterable[Any] | None = None,
    bright_stack: FrameStack | Iterable[Any] | None = None,
    *,
    photons: bool = True,
    drift: str = "kept",
    progress: Any = True,
) -> xr.Dataset:
    """Measure a camera as EMVA 1288 (release 4.0, linear) does, from arrays.

    Parameters
    ----------
    pairs
        Pairs of pictures (see `emva_points`), or the table of their means and variances that it returns.
    dark_stack, bright_stack
        Fifty or more equal pictures (y, x) without light, and as many at half of saturation, one after another; or
        what `stack_frames` made of them.  Without them what they tell is left out.
    photons
        Whether the pairs' light is in photons per pixel; without it what needs them (R, QE, u_p_...) is NaN.
    drift
        ``kept`` or ``removed``, see `emva_points`.
    progress
        False for no progress bars.

    Returns
    -------
    xarray.Dataset
        Scalars under the names that the reference implementation gives them (see `emva_temporal`, `emva_spatial`),
        with units; attrs ``drift``.

    Raises
    ------
    WorkbenchError
        If pictures are missing or do not fit together.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> def shoot(light):
    ...     return np.minimum(np.round(20 + rng.normal(0, 2, (64, 64)) + rng.poisson(light, (64, 64)) / 4), 1000)
    >>> levels = [0, *np.geomspace(20, 5000, 25)]
    >>> pairs = [(1.0, light, shoot(light), shoot(light)) for light in levels]
    >>> found = emva1288(pairs, [shoot(0) for _ in range(9)], [shoot(2000) for _ in range(9)], progress=False)
    >>> round(found.K.item(), 2), round(found.QE.item())
    (0.25, 99)
    """
    table = pairs if isinstance(pairs, Mapping) else emva_points(pairs, drift=drift)
    found = emva_temporal(**table, photons=photons)
    if dark_stack is not None:
        stacks = [
            stack if stack is None or isinstance(stack, FrameStack) else stack_frames(stack, progress=progress)
            for stack in (dark_stack, bright_stack)
        ]
        found |= emva_spatial(*stacks, found["K"])
    elif bright_stack is not None:
        raise WorkbenchError("PRNU needs the dark stack beside the bright one")
    data = {
        name: ((), value, {"units": emva_unit(name), "long_name": _TITLES.get(name, name)})
        for name, value in found.items()
    }
    return xr.Dataset(data, attrs={"long_name": "EMVA 1288 release 4.0, linear", "drift": drift})
