"""One pixel grid for several registrations: the lights of other filters, each registered by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..core.errors import WorkbenchError
from .match import NoMatchError, match_stars
from .registration import Registration
from .transform import Transform, compose


def on_grid(registration: Registration, grid: Transform) -> Registration:
    """Return the registration with all frames on the pixel grid from which `grid` leads to its reference."""
    shape = registration.quality.attrs["height"], registration.quality.attrs["width"]
    matches = tuple(
        match and replace(match, transform=compose(grid, match.transform, shape)) for match in registration.matches
    )
    return replace(registration, matches=matches, grid=grid)


def common_grid(
    registrations: Sequence[Registration], centre: int | None = None, *, kind: str = "auto"
) -> tuple[int, list[Registration], dict[int, str]]:
    """Put several registrations on the pixel grid of one of their references.

    The references are matched to one another; each frame keeps the transform from its own reference, with which it
    shares the filter and so the stars.

    Parameters
    ----------
    registrations
        Of frames of one size, as `register_frames` gives them.
    centre
        Number of the one whose reference's grid all get; else that whose reference shows the most stars, among which
        the others are to find theirs.
    kind
        Model of the transform between references (`workbench.align.KINDS`), or ``auto``.

    Returns
    -------
    The number of the one that gives the grid; all on this grid; and, by its number, why one stays on its own.

    Examples
    --------
    >>> import numpy as np
    >>> from workbench.align import register_frames
    >>> from workbench.simulate import make_night, make_sky, render
    >>> from workbench.stars import survey_mosaic
    >>> sky = make_sky((192, 288), stars=40, seed=3)
    >>> views = make_night(sky, 4, exposure=60, seed=3)
    >>> surveys = [survey_mosaic(60 * render(sky, view, "G", trails=False), "mono") for view in views]
    >>> pairs = [register_frames(surveys[n : n + 2], ["a", "b"], [1.0, 1.0], (192, 288)) for n in (0, 2)]
    >>> centre, placed, apart = common_grid(pairs)
    >>> len(placed), apart
    (2, {})
    """
    counts = [int(one.quality["stars"][one.reference]) for one in registrations]
    centre = counts.index(max(counts)) if centre is None else centre
    stars = registrations[centre].stars[registrations[centre].reference]
    placed, apart = list(registrations), {}
    for number, one in enumerate(registrations):
        if number == centre:
            continue
        its = one.stars[one.reference]
        if stars is None or its is None:
            raise WorkbenchError("a reference whose stars are not known cannot be put on a common grid")
        try:
            placed[number] = on_grid(one, match_stars(stars, its, kind=kind).transform)
        except NoMatchError as problem:
            apart[number] = str(problem)
    return centre, placed, apart
