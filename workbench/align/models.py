"""Which model of the transform the stars ask for: how well each predicts stars that it was not fitted to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from ..core.errors import WorkbenchError
from .match import positions
from .registration import Registration
from .transform import KINDS, PARAMETERS, fit_robust, fit_transform


def compare_models(
    registration: Registration, *, kinds: Sequence[str] = KINDS, folds: int = 5, seed: int = 0
) -> xr.Dataset:
    """Fit every model of the transform to the matched stars of every frame, and see how well it predicts others.

    More parameters always come closer to the stars they were fitted to.  What counts is the residual of
    held-out stars: the stars are dealt into `folds` groups, each predicted by a fit to the others.

    Returns
    -------
    Dataset over (frame, kind): ``rms`` of the fit (per axis, over its degrees of freedom), ``held_out``, the rms of
    held-out stars (per axis, the outliers of the robust fit left out) and its ``held_out_error`` [px];
    ``parameters`` (kind) and ``stars`` (frame).  NaN where there are too few stars for a model.

    Raises
    ------
    WorkbenchError
        If a kind is unknown.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise WorkbenchError(f"transform kind {unknown[0]!r} is none of {', '.join(KINDS)}")
    places = {n: positions(survey.stars) for n, survey in enumerate(registration.surveys) if survey is not None}
    matches = {number: match for number, match in enumerate(registration.matches) if match is not None}
    frames = [number for number in matches if number != registration.reference]
    shape = (len(frames), len(kinds))
    rms, held, held_error = (np.full(shape, np.nan) for _ in range(3))
    counts = np.zeros(len(frames), int)
    for row, number in enumerate(frames):
        match = matches[number]
        sound = match.residuals["used"].values
        anchor = registration.reference if match.through is None else match.through
        here = places[anchor][match.reference_index[sound]]
        there = places[number][match.frame_index[sound]]
        error = match.residuals["error"].values[sound]
        counts[row] = len(here)
        group = np.random.default_rng((seed, number)).permutation(len(here)) % folds
        for column, kind in enumerate(kinds):
            if 2 * np.count_nonzero(group) <= PARAMETERS[kind] + 2:
                continue
            _, residuals = fit_robust(here, there, error, kind=kind)
            rms[row, column] = residuals.attrs["rms"]
            left = np.empty_like(here)
            for fold in range(folds):
                fitted, asked = group != fold, group == fold
                transform, _ = fit_transform(here[fitted], there[fitted], error[fitted], kind=kind)
                left[asked] = there[asked] - np.stack(transform.apply(*here[asked].T), 1)
            square = (left**2).mean(1)
            held[row, column] = np.sqrt(square.mean())
            held_error[row, column] = square.std(ddof=1) / np.sqrt(len(square)) / (2 * held[row, column])
    px = {"units": "pix"}
    return xr.Dataset(
        {
            "rms": (("frame", "kind"), rms, {**px, "long_name": "rms of the stars fitted"}),
            "held_out": (("frame", "kind"), held, {**px, "long_name": "rms of held-out stars"}),
            "held_out_error": (("frame", "kind"), held_error, {**px, "long_name": "its standard error"}),
            "parameters": ("kind", [PARAMETERS[kind] for kind in kinds]),
            "stars": ("frame", counts),
        },
        coords={
            "kind": list(kinds),
            "frame": frames,
            "filename": ("frame", registration.quality["filename"].values[frames]),
        },
    )
