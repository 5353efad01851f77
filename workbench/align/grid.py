"""The pixel grid of the output: one for several registrations (lights of other filters), and what of it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..core.area import largest_rectangle
from ..core.errors import WorkbenchError
from .match import NoMatchError, match_stars
from .registration import Registration
from .transform import Transform, compose

FRAMINGS = ("reference", "all", "common")
_CELLS = 256  # of a frame's longer side, in which the common area is sought


def on_grid(registration: Registration, grid: Transform) -> Registration:
    """Return the registration with all frames on the pixel grid from which `grid` leads to its reference."""
    shape = registration.frame_shape
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
        the others are to find their own.
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


def framed(
    registration: Registration, framing: str = "all", among: Sequence[Registration] | None = None
) -> Registration:
    """Return the registration with another area of the same pixel grid for its output.

    Parameters
    ----------
    framing
        ``reference``: the area of the frame that gives the grid; ``all``: the least that holds every used frame whole;
        ``common``: the largest that every used frame covers.
    among
        Registrations on this grid whose frames count; by default this one's.

    Raises
    ------
    WorkbenchError
        If the framing is unknown, or no area is common to all frames.

    Examples
    --------
    >>> from workbench.align import register_frames
    >>> from workbench.simulate import make_night, make_sky, render
    >>> from workbench.stars import survey_mosaic
    >>> sky = make_sky((192, 288), stars=40, seed=3)
    >>> views = make_night(sky, 3, exposure=60, dither=6.0, seed=3)
    >>> surveys = [survey_mosaic(60 * render(sky, view, "G", trails=False), "mono") for view in views]
    >>> found = register_frames(surveys, ["a", "b", "c"], [60.0] * 3, (192, 288))
    >>> [framed(found, framing).shape for framing in FRAMINGS]
    [(192, 288), (205, 302), (179, 274)]
    """
    check_framing(framing)
    if framing == "reference":
        return replace(registration, area=None)
    transforms = [
        each.transform(number) for each in (replace(one, area=None) for one in among or [registration])
        for number in each.used
    ]  # fmt: skip
    find = _whole_area if framing == "all" else _common_area
    return replace(registration, area=find(transforms, registration.frame_shape))


def check_framing(framing: str) -> None:
    """Refuse a framing that is none of `FRAMINGS`."""
    if framing not in FRAMINGS:
        raise WorkbenchError(f"framing {framing!r} is none of {', '.join(FRAMINGS)}")


def _whole_area(transforms: Sequence[Transform], shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """The least area (top, left, bottom, right) that holds all frames: the outlines' extremes on the grid."""
    height, width = shape
    x, y = (np.linspace(-0.5, size - 0.5, 33) for size in (width, height))
    outline = np.concatenate([x, x, 0 * y + x[0], 0 * y + x[-1]]), np.concatenate([0 * x + y[0], 0 * x + y[-1], y, y])
    at = np.array([transform.inverse(*outline) for transform in transforms])
    low, high = np.ceil(at.min((0, 2)) - 1e-6).astype(int), np.floor(at.max((0, 2)) + 1e-6).astype(int)
    return int(low[1]), int(low[0]), int(high[1]) + 1, int(high[0]) + 1


def _common_area(transforms: Sequence[Transform], shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest area (top, left, bottom, right) that all frames cover: of cells, then grown by single pixels."""

    def covered(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        good = np.ones(np.broadcast(x, y).shape, bool)
        for transform in transforms:
            u, v = transform.apply(x, y)
            good &= (u >= -0.5) & (u <= shape[1] - 0.5) & (v >= -0.5) & (v <= shape[0] - 0.5)
        return good

    top, left, bottom, right = _whole_area(transforms, shape)
    cell = max(1, max(shape) // _CELLS)
    nodes = covered(np.arange(left, right, cell)[None, :], np.arange(top, bottom, cell)[:, None])
    first, last, begin, end = largest_rectangle(nodes)
    if last - first < 2 or end - begin < 2:
        raise WorkbenchError(
            "no area is common to all lights: leave out those that lie apart (--exclude), or take --framing all"
        )
    box = [top + first * cell, left + begin * cell, top + (last - 1) * cell, left + (end - 1) * cell]  # of nodes
    for side, step in ((0, -1), (1, -1), (2, 1), (3, 1)):
        for _ in range(cell - 1):
            wider = box.copy()
            wider[side] += step
            edge = np.array(wider[side])
            along = np.arange(box[(side + 1) % 2], box[(side + 1) % 2 + 2] + 1)
            if not (covered(along, edge) if side % 2 == 0 else covered(edge, along)).all():
                break
            box = wider
    return box[0], box[1], box[2] + 1, box[3] + 1
