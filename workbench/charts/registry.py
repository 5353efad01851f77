"""The blog's charts: the marks on the functions that draw and describe them, and what captions are made of.

`chart` marks a drawing function, `caption` the function under it that describes the drawing; `REGISTRY` is what they
collected, in the order of the blog.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache, reduce
from typing import Any, NamedTuple, TypeVar

import holoviews as hv
import numpy as np
import xarray as xr

from ..core.errors import WorkbenchError
from ..core.settings import in_words_of, setting_dim
from ..core.values import value_text

_PLURAL = {"bias": "bias frames", "dark": "darks", "flat": "flats", "darkflat": "dark flats", "light": "lights"}
_MARKED: dict[str, Chart] = {}
# the order of the blog
_ORDER = (
    "shot-noise-demo", "shot-noise-snr", "ccd-vs-cmos", "missing-codes", "noise-spectrum", "hot-pixel-filter",
    "read-noise-vs-iso", "ptc", "iso-to-gain", "read-noise-split", "pixel-noise", "dynamic-range", "linearity",
    "gain-from-darks", "dark-current-vs-time", "dark-shot-noise-histogram", "dark-current-vs-temperature",
    "dcnu-histogram", "hot-pixels", "dark-law", "fixed-pattern", "spectrogram", "uniformity", "defects", "vignette",
    "dark-subtraction", "noise-budget", "flat-before-after", "flat-correction", "alignment-before-after",
    "alignment-residuals", "stack-before-after", "snr-vs-frames", "rejection", "cosmic-rays",
    "background-before-after", "stretch", "finished-steps", "sub-length", "star-elongation",
)  # fmt: skip
REGISTRY: dict[str, Chart]  # by id, in the order of the blog


class Caption(NamedTuple):
    """The text below a chart, and the alternative text for readers who cannot see it."""

    text: str
    alt: str


@dataclass(frozen=True)
class Chart:
    """One of the blog's charts.

    Attributes
    ----------
    id
        Its name in file names and commands, for example ``iso-to-gain``.
    title, heading
        The title above it, and the topic under which the blog treats it.
    function, describe
        The drawing function, and the function that describes the drawing of a characterization.
    needs
        The pieces of a characterization without which it cannot be drawn, such as ``lights.pair``.
    takes
        The pieces that the drawing function takes, in its order; None is passed for one that is missing.
    shoot
        Which frames give those pieces.
    numbers
        Whether it shows numbers, which are then exported as a table too.
    asked
        Whether it is drawn only where its name is asked for.
    options
        Keyword arguments of the drawing function for a characterization.
    """

    id: str
    title: str
    heading: str
    function: Callable[..., hv.Layout]
    needs: tuple[str, ...]
    takes: tuple[str, ...]
    shoot: str
    numbers: bool
    asked: bool
    options: Callable[[Any], dict[str, Any]] | None
    describe: Callable[[Any], Caption] | None = None

    def missing(self, result: Any) -> list[str]:
        """Return the names of the pieces that a characterization lacks for this chart."""
        return [name for name in self.needs if piece(result, name) is None]

    def in_words_of(self, result: Any) -> Chart:
        """Return the chart with title and advice in the words of a measured camera, which may have no ISO."""
        dim = setting_dim(result.sensor) if getattr(result, "sensor", None) is not None else "iso"
        return replace(self, title=in_words_of(dim, self.title), shoot=in_words_of(dim, self.shoot))

    def draw(self, result: Any) -> hv.Layout:
        """Draw the chart of a characterization."""
        options = self.options(result) if self.options else {}
        return self.function(*(piece(result, name) for name in self.takes), **options)

    def caption(self, result: Any) -> Caption:
        """Describe the chart of a characterization."""
        assert self.describe is not None
        return self.describe(result)


def piece(result: Any, name: str) -> Any:
    """Return a piece of a characterization by its dotted name, None where it or anything on the way is missing."""
    found = reduce(lambda part, key: getattr(part, key, None), name.split("."), result)
    return found() if callable(found) else found


Drawing = TypeVar("Drawing", bound=Callable[..., Any])


def chart(
    name: str, title: str, heading: str, *, needs: tuple[str, ...] = (), takes: tuple[str, ...] | None = None,
    shoot: str = "", options: Callable[[Any], dict[str, Any]] | None = None, **kind: bool,
) -> Callable[[Drawing], Drawing]:  # fmt: skip
    """Mark a drawing function as the chart of this name; the arguments are the attributes of `Chart`.

    Parameters
    ----------
    takes
        `needs` unless given.
    kind
        ``numbers`` (true unless given) and ``asked`` (false).
    """

    def mark(function: Drawing) -> Drawing:
        flags = {"numbers": True, "asked": False} | kind
        _MARKED[name] = Chart(
            name, title, heading, function, needs, needs if takes is None else takes, shoot, options=options, **flags
        )
        return function

    return mark


def caption(drawing: Callable[..., Any]) -> Callable[[Drawing], Drawing]:
    """Mark a function of a characterization as the caption of the drawing function above it."""

    def mark(describe: Drawing) -> Drawing:
        for name, marked in _MARKED.items():
            if marked.function is drawing:
                _MARKED[name] = replace(marked, describe=describe)
        return describe

    return mark


@cache
def _collected() -> dict[str, Chart]:
    from . import dark, fidelity, gain, lights, noise, particles, pictures, planning, uniformity  # noqa: F401

    return {name: _MARKED[name] for name in _ORDER}


def __getattr__(name: str) -> Any:
    if name == "REGISTRY":  # loads the modules of the charts, which import this one
        return _collected()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def select(only: Iterable[str] | None = None) -> list[Chart]:
    """Return the charts of these ids in the order of the blog; without ids all that need not be asked for.

    Raises
    ------
    WorkbenchError
        If an id is not in the registry.
    """
    charts = _collected()
    wanted = list(only or ())
    unknown = [name for name in wanted if name not in charts]
    if unknown:
        near = [name for one in unknown for name in get_close_matches(one, charts, n=2)]
        meant = f"did you mean {' or '.join(near)}? The" if near else "the"
        raise WorkbenchError(f"no chart {', '.join(map(repr, unknown))}; {meant} charts are {', '.join(charts)}")
    return [one for one in charts.values() if (one.id in wanted if wanted else not one.asked)]


def source(result: Any) -> str:
    """Say whose data it is: the camera, simulated or real, and how many frames of each kind."""
    counts = ", ".join(
        f"{count} {_PLURAL.get(kind, kind)}" for kind, count in dict(result.frame_counts).items() if count
    )
    what = "Simulated data" if result.simulated else "Real data"
    camera = result.camera or "camera not recorded"
    return f"{what}: {camera}; {counts}." if counts else f"{what}: {camera}."


def listing(items: Iterable[str]) -> str:
    """Join words as a sentence does.

    Examples
    --------
    >>> listing(["R", "G1", "B"])
    'R, G1 and B'
    """
    items = list(items)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def quantity(data: xr.Dataset, name: str, unit: str = "") -> str:
    """Write a scalar of a dataset with its error.

    Examples
    --------
    >>> quantity(xr.Dataset({"gain": 0.2667, "gain_error": 0.0012}), "gain", "e⁻/ADU")
    '0.2667 ± 0.0012 e⁻/ADU'
    """
    return value_text(float(data[name]), float(data[f"{name}_error"]), unit)


def mean_quantity(data: xr.Dataset, name: str, unit: str = "", times: float = 1.0) -> str:
    """Write the mean over the channels, which are independent, with its error."""
    errors = data[f"{name}_error"].values
    error = float(np.sqrt((errors**2).sum()) / errors.size)
    return value_text(times * float(data[name].mean()), times * error, unit)


def is_d7000(result: Any) -> bool:
    """Whether the blog's and Claff's published values are of this camera model."""
    return "D7000" in (result.camera or "")


def with_reference(result: Any) -> dict[str, bool]:
    """Return the options of a chart that can show published values of the Nikon D7000."""
    return {"reference": is_d7000(result)}
