"""The settings of a whole finish: plain values that JSON holds, and the finish that follows them.

The order of the steps is that of the physics: what is linear first, on independent channels (crop, background,
deconvolution, denoising), then colour, then the stretch, then what only makes sense on a screen.  The same stack and
the same settings give the same picture, bit for bit.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from .. import __version__
from ..core.errors import WorkbenchError
from ..core.files import read_text
from ..core.values import attribute_lines
from .background import METHODS, background_model, evaluate_background, model_means, remove_background
from .colour import (
    BALANCES,
    apply_colour,
    camera_matrix,
    mend_cores,
    neutralise_background,
    remove_green,
    white_balance,
)
from .curves import CURVES
from .detail import deconvolve, denoise, measure_psf
from .photometry import TooFewStarsError, bright_stars, check_photometry, find_picture_stars
from .picture import PLANES, check_picture, crop, fill_holes, note, observed_cards, plane, pyramid
from .sky import measure_sky
from .stretch import StretchSettings, apply_stretch, local_contrast, reduce_stars, stretch_parameters
from .zero_point import catalogue_photometry, measure_depth

VERSION = 1


@dataclasses.dataclass(frozen=True)
class CropSettings:
    """See `crop`: a share of the coverage, or a box (top, bottom, left, right); None and None for no crop."""

    share: float | None = 0.9
    box: tuple[int, int, int, int] | None = None


@dataclasses.dataclass(frozen=True)
class BackgroundSettings:
    """See `background_model` and `remove_background`; method ``none`` leaves the background."""

    method: str = "polynomial"
    mode: str = "subtract"
    degree: int | str = "auto"
    samples: tuple[tuple[float, float], ...] | None = None
    smoothing: float = 1.0
    box: int = 8


@dataclasses.dataclass(frozen=True)
class ColourSettings:
    """See `white_balance` and the rest of `colour`.

    ``balance`` may be ``auto``: from catalogued stars, else from all stars, the camera, none; what works first.
    ``matrix``: to linear sRGB where the file names one.  ``green`` is the amount of green cast to remove.
    """

    balance: str = "auto"
    region: tuple[int, int, int, int] | None = None
    matrix: bool = True
    mend: bool = True
    neutralise: bool = False
    green: float = 0.0


@dataclasses.dataclass(frozen=True)
class DetailSettings:
    """Strengths from 0 (off, where all begin) to 1; see `deconvolve`, `denoise`, `reduce_stars`, `local_contrast`."""

    deconvolve: float = 0.0
    iterations: int = 15
    denoise: float = 0.0
    stars: float = 0.0
    contrast: float = 0.0


@dataclasses.dataclass(frozen=True)
class FinishSettings:
    """All settings of a finish.

    Examples
    --------
    >>> settings = FinishSettings(stretch=StretchSettings(method="autostretch"))
    >>> FinishSettings.from_json(settings.to_json()) == settings
    True
    """

    crop: CropSettings = dataclasses.field(default_factory=CropSettings)
    background: BackgroundSettings = dataclasses.field(default_factory=BackgroundSettings)
    colour: ColourSettings = dataclasses.field(default_factory=ColourSettings)
    detail: DetailSettings = dataclasses.field(default_factory=DetailSettings)
    stretch: StretchSettings = dataclasses.field(default_factory=StretchSettings)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain dicts, with the version of their form."""
        return {"version": VERSION, **dataclasses.asdict(self)}

    def to_json(self) -> str:
        """Return the settings as JSON text."""
        return json.dumps({"program": f"astrophoto-workbench {__version__}", **self.to_dict()}, indent=2) + "\n"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FinishSettings:
        """Make settings of plain dicts; what is left out has its default.

        Raises
        ------
        WorkbenchError
            If a name is unknown, a value of the wrong type, or the version a later one.
        """
        version = values.get("version", VERSION)
        if version != VERSION:
            raise WorkbenchError(f"these finish settings are of version {version!r}; this workbench knows {VERSION}")
        groups = {field.name: field.default_factory for field in dataclasses.fields(cls)}
        _check_names(values, {*groups, "version", "program"}, "finish settings")
        return cls(**{name: _group(name, groups[name], values[name]) for name in groups if name in values})

    @classmethod
    def from_json(cls, text: str) -> FinishSettings:
        """Make settings of JSON text."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as problem:
            raise WorkbenchError(f"the finish settings are not valid JSON: {problem}") from problem
        if not isinstance(values, Mapping):
            raise WorkbenchError("the finish settings are not a JSON object: { ... }")
        return cls.from_dict(values)

    @classmethod
    def open(cls, path: str | Path) -> FinishSettings:
        """Read settings from a JSON file.

        Raises
        ------
        WorkbenchError
            If the file cannot be read or does not hold finish settings; the message names it.
        """
        text = read_text(path)
        try:
            return cls.from_json(text)
        except WorkbenchError as problem:
            raise WorkbenchError(f"{path}: {problem}") from problem


def _check_names(values: Mapping[str, Any], names: set[str], where: str) -> None:
    unknown = sorted(set(values) - names)
    if unknown:
        raise WorkbenchError(f"{where} have no {', '.join(map(repr, unknown))}; they have {', '.join(sorted(names))}")


def _group(name: str, group: Any, values: Any) -> Any:
    """One group of settings from JSON's values: lists become tuples, whole numbers floats where those are meant."""
    if not isinstance(values, Mapping):
        raise WorkbenchError(f"the finish setting {name!r} holds settings by name, not {values!r}")
    hints = typing.get_type_hints(group)
    _check_names(values, set(hints), f"the {name} settings")
    made = {}
    for key, value in values.items():
        try:
            made[key] = _as_hinted(hints[key], value)
        except TypeError:
            kinds = getattr(hints[key], "__name__", hints[key])
            raise WorkbenchError(f"the finish setting {name}.{key} is {value!r}; it takes {kinds}") from None
    return group(**made)


def _as_hinted(hint: Any, value: Any) -> Any:
    """A value of JSON as its type hint wants it; a TypeError where it cannot be."""
    for option in typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,):
        if option is float and type(value) is int:
            return float(value)
        if typing.get_origin(option) is tuple and isinstance(value, (list, tuple)):
            hints = typing.get_args(option)
            hints = hints[:1] * len(value) if hints[-1] is Ellipsis else hints
            if len(hints) == len(value):
                return tuple(map(_as_hinted, hints, value))
        elif type(value) is option:
            return value
    raise TypeError


def removed(before: xr.Dataset, after: xr.Dataset) -> xr.Dataset:
    """Return what a step took away: before - after, as a picture to look at, with its stage.

    Noise taken out looks like noise.  Stars, rings or a nebula in it are what the step destroyed.
    """
    check_picture(before, stage=None), check_picture(after, stage=before.attrs.get("stage", "stacked"))
    if before["signal"].shape != after["signal"].shape:
        raise WorkbenchError(
            f"pictures of {before['signal'].shape} and {after['signal'].shape} cannot be subtracted: compare before"
            " and after one step"
        )
    difference = before["signal"].values - after["signal"].values
    steps = attribute_lines(after.attrs, "history")[len(attribute_lines(before.attrs, "history")) :]
    return xr.Dataset(
        {"signal": plane(difference, "what was removed", units=before.attrs.get("units", ""))},
        coords={"channel": before["channel"]},
        attrs={**before.attrs, "history": [f"Removed by: {step}" for step in steps]},
    )


@dataclasses.dataclass
class Finished:
    """A finished picture, the linear one it was stretched from, and what each step took away or measured.

    `background` is the model removed, `balance` the white balance; `removed` shows, step by step, what the details
    took (small pictures); `checks` holds the photometry after each linear step; `warnings` what to look at; `depth`
    zero point, limiting magnitude and sky brightness of a solved picture (`measure_depth`).
    """

    settings: FinishSettings
    picture: xr.Dataset
    linear: xr.Dataset
    background: xr.Dataset | None = None
    balance: xr.Dataset | None = None
    removed: dict[str, xr.Dataset] = dataclasses.field(default_factory=dict)
    checks: dict[str, xr.Dataset] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)
    depth: dict[str, Any] = dataclasses.field(default_factory=dict)


def finish(stack: xr.Dataset, settings: FinishSettings | None = None, *, progress: bool = True) -> Finished:
    """Finish a linear stack: crop, background, (deconvolve, denoise,) colour, stretch, (stars, contrast).

    Star fluxes are checked after every linear step; a deviation beyond 0.3 % is a warning.

    Raises
    ------
    WorkbenchError
        If the stack is stretched already, empty, NaN everywhere, of two channels, or a setting does not suit it.
    """
    settings = FinishSettings() if settings is None else settings
    _check_choices(settings)
    check_picture(stack)
    stack = stack[[name for name in PLANES if name in stack]].compute()  # an opened stack is lazy
    check_picture(stack, content=True)
    picture = fill_holes(crop(stack, share=settings.crop.share, box=settings.crop.box))
    del stack
    stars = find_picture_stars(picture)
    bright = bright_stars(stars, picture["signal"].shape[1:]).assign_attrs(stars.attrs)
    done = Finished(settings, picture, picture)
    _depth(done, stars)
    steps = {"background": _background, "detail": _detail, "colour": _colour, "stretch": _stretch}
    bar = tqdm(steps, "finishing", unit="step", delay=2, leave=False, disable=not progress)
    for step in bar:
        bar.set_postfix_str(step)
        steps[step](done, stars, bright, progress)
    return done


def _depth(done: Finished, stars: xr.Dataset) -> None:
    """Zero point, limit and sky brightness into the history of a solved picture."""
    if "CTYPE1" not in observed_cards(done.picture.attrs):
        return
    try:
        done.depth = measure_depth(done.picture, catalogue_photometry(done.picture, stars))
    except WorkbenchError as problem:
        done.depth = {"text": f"Photometry: zero point, limiting magnitude and sky are not measured ({problem})."}
    done.picture = note(done.picture, done.depth["text"])


def _background(done: Finished, stars: xr.Dataset, bright: xr.Dataset, progress: bool) -> None:
    how = dataclasses.asdict(done.settings.background)
    mode = how.pop("mode")
    if how["method"] == "none":
        return
    model = background_model(done.picture, **how, sky=measure_sky(done.picture, stars))
    done.warnings.extend(model.attrs["warnings"])
    done.background, gain = model, None
    if mode == "divide":
        gain = model_means(model)[:, None] / evaluate_background(model, bright["y"].values, bright["x"].values)
    _linear_step(done, "background", remove_background(done.picture, model, mode=mode), bright, gain=gain)


def _detail(done: Finished, stars: xr.Dataset, bright: xr.Dataset, progress: bool) -> None:
    how = done.settings.detail
    if how.deconvolve > 0:
        psf = measure_psf(done.picture, stars)
        sharp = deconvolve(done.picture, psf, strength=how.deconvolve, iterations=how.iterations, progress=progress)
        sharp = _kept(done, "deconvolve", sharp)
        _linear_step(done, "deconvolution", sharp, stars, relative=True)
    if how.denoise > 0:
        calm = _kept(done, "denoise", denoise(done.picture, strength=how.denoise, stars=stars))
        _linear_step(done, "denoising", calm, bright)


def _colour(done: Finished, stars: xr.Dataset, bright: xr.Dataset, progress: bool) -> None:
    how = done.settings.colour
    if done.picture.sizes["channel"] != 3:
        return
    mended = mend_cores(done.picture) if how.mend else done.picture
    done.balance = _balance(mended, how, stars, done.warnings)
    matrix = camera_matrix(mended) if how.matrix else None
    if how.matrix and matrix is None:
        done.warnings.append("the file names no colour matrix: the camera's own colours are kept")
    mixed = apply_colour(mended, done.balance, matrix)
    _linear_step(done, "colour", neutralise_background(mixed) if how.neutralise else mixed, bright)
    if how.green > 0:
        _linear_step(done, "green cast", _kept(done, "green", remove_green(done.picture, amount=how.green)), bright)


def _stretch(done: Finished, stars: xr.Dataset, bright: xr.Dataset, progress: bool) -> None:
    done.linear, how = done.picture, done.settings.detail
    done.picture = apply_stretch(done.linear, stretch_parameters(done.linear, done.settings.stretch))
    if how.stars > 0:
        done.picture = _kept(done, "stars", reduce_stars(done.picture, stars, strength=how.stars))
    if how.contrast > 0:
        done.picture = _kept(done, "contrast", local_contrast(done.picture, strength=how.contrast))


def _linear_step(done: Finished, step: str, after: xr.Dataset, stars: xr.Dataset, **how: Any) -> None:
    """Go on to what a linear step gave, its star fluxes compared with those before; too few stars: not checked."""
    before, done.picture = done.picture, after
    try:
        check = check_photometry(before, after, stars, **how)
    except TooFewStarsError:
        return
    done.checks[step] = check
    if not check.attrs["passed"]:
        done.warnings.append(
            f"{step}: star fluxes changed by up to {check.attrs['worst']:.2%} beyond what the step"
            f" means to do ({check.attrs['stars']} stars, typical error"
            f" {check.attrs['uncertainty']:.2%}; {check.attrs['tolerance']:.1%} allowed)"
        )


def _kept(done: Finished, step: str, after: xr.Dataset) -> xr.Dataset:
    """What a step gave; a picture of what it removed is kept at the level of its pyramid that a screen shows."""
    levels = pyramid(removed(done.picture, after))
    done.removed[step] = next((one for one in levels if np.prod(one["signal"].shape[1:]) <= 4e6), levels[-1])
    return after


def _balance(picture: xr.Dataset, how: ColourSettings, stars: xr.Dataset, warnings: list[str]) -> xr.Dataset:
    """The white balance; ``auto`` takes the first that works."""
    if how.balance != "auto":
        return white_balance(picture, how.balance, region=how.region, stars=stars)
    solved = "CTYPE1" in observed_cards(picture.attrs)
    for method in (*["catalogue"] * solved, "stars", "daylight"):
        try:
            return white_balance(picture, method, stars=stars)
        except WorkbenchError as problem:
            warnings.append(f"white balance: {problem}")
    warnings.append("white balance: none")
    return white_balance(picture, "none")


def _check_choices(settings: FinishSettings) -> None:
    """Raise a WorkbenchError for an unknown choice before the work rather than in the middle of it."""
    for what, value, known in (
        ("background method", settings.background.method, (*METHODS, "none")),
        ("background mode", settings.background.mode, ("subtract", "divide")),
        ("white balance", settings.colour.balance, ("auto", *BALANCES)),
        ("stretch", settings.stretch.method, CURVES),
    ):
        if value not in known:
            raise WorkbenchError(f"{what} {value!r} is not known; choose {', '.join(known)}")
    detail = settings.detail
    for name in ("deconvolve", "denoise", "stars", "contrast"):
        if not 0 <= getattr(detail, name) <= 1:
            raise WorkbenchError(f"the strength of {name} lies between 0 (off) and 1; got {getattr(detail, name):g}")
    if not 0 <= settings.colour.green <= 1:
        raise WorkbenchError(f"the amount of green to remove lies between 0 and 1; got {settings.colour.green:g}")
