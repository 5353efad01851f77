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

from ..core.errors import WorkbenchError
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
from .picture import PLANES, check_picture, crop, fill_holes, plane, pyramid
from .sky import measure_sky
from .stretch import StretchSettings, apply_stretch, local_contrast, reduce_stars, stretch_parameters

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

    ``balance`` may be ``auto``: from the stars, where these are too few from the camera, else none.  ``matrix``: to
    linear sRGB where the file names one.  ``green`` is the amount of green cast to remove.
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
        return json.dumps(self.to_dict(), indent=2) + "\n"

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
        _check_names(values, {*groups, "version"}, "finish settings")
        return cls(**{name: _group(name, groups[name], values[name]) for name in groups if name in values})

    @classmethod
    def from_json(cls, text: str) -> FinishSettings:
        """Make settings of JSON text."""
        try:
            values = json.loads(text)
        except ValueError as problem:
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
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as problem:
            raise WorkbenchError(f"{path}: these finish settings cannot be read: {problem}") from problem
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


@dataclasses.dataclass(frozen=True)
class Finished:
    """A finished picture, the linear one it was stretched from, and what each step took away or measured.

    `background` is the model removed, `balance` the white balance; `removed` shows, step by step, what the details
    took (small pictures); `checks` holds the photometry after each linear step; `warnings` what to look at.
    """

    picture: xr.Dataset
    linear: xr.Dataset
    settings: FinishSettings
    background: xr.Dataset | None
    balance: xr.Dataset | None
    removed: dict[str, xr.Dataset]
    checks: dict[str, xr.Dataset]
    warnings: list[str]


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


@dataclasses.dataclass(frozen=True)
class _Notes:
    """What the steps of a finish leave besides the picture, and the stars they are checked on."""

    bright: xr.Dataset
    removed: dict[str, xr.Dataset] = dataclasses.field(default_factory=dict)
    checks: dict[str, xr.Dataset] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)

    def check(
        self, step: str, before: xr.Dataset, after: xr.Dataset, among: xr.Dataset | None = None, **how: Any
    ) -> None:
        """Compare star fluxes before and after a linear step; too few stars: not checked."""
        among = self.bright if among is None else among
        try:
            check = check_photometry(before, after, among, **how)
        except TooFewStarsError:
            return
        self.checks[step] = check
        if not check.attrs["passed"]:
            self.warnings.append(
                f"{step}: star fluxes changed by up to {check.attrs['worst']:.2%} beyond what the step"
                f" means to do ({check.attrs['stars']} stars, typical error"
                f" {check.attrs['uncertainty']:.2%}; {check.attrs['tolerance']:.1%} allowed)"
            )

    def keep(self, step: str, before: xr.Dataset, after: xr.Dataset) -> xr.Dataset:
        """Keep a small picture of what a step removed, and pass its result on."""
        self.removed[step] = _small(removed(before, after))
        return after


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
    with tqdm(total=5, desc="finishing", unit="step", delay=2, leave=False, disable=not progress) as bar:

        def done(step: str) -> None:
            bar.set_postfix_str(step)
            bar.update()

        picture = fill_holes(crop(stack, share=settings.crop.share, box=settings.crop.box))
        del stack
        stars = find_picture_stars(picture)
        notes = _Notes(bright_stars(stars, tuple(picture["signal"].shape[1:])).assign_attrs(stars.attrs))
        done("crop")
        picture, model = _level_background(picture, stars, settings.background, notes)
        done("background")
        picture = _sharpen_and_denoise(picture, stars, settings.detail, notes, progress)
        done("detail")
        picture, balance = _to_srgb(picture, stars, settings.colour, notes)
        done("colour")
        linear = picture
        picture = apply_stretch(linear, stretch_parameters(linear, settings.stretch))
        if settings.detail.stars > 0:
            picture = notes.keep("stars", picture, reduce_stars(picture, stars, strength=settings.detail.stars))
        if settings.detail.contrast > 0:
            picture = notes.keep("contrast", picture, local_contrast(picture, strength=settings.detail.contrast))
        done("stretch")
    return Finished(picture, linear, settings, model, balance, notes.removed, notes.checks, notes.warnings)


def _level_background(
    picture: xr.Dataset, stars: xr.Dataset, how: BackgroundSettings, notes: _Notes
) -> tuple[xr.Dataset, xr.Dataset | None]:
    if how.method == "none":
        return picture, None
    options = {key: value for key, value in dataclasses.asdict(how).items() if key != "mode"}
    model = background_model(picture, **options, sky=measure_sky(picture, stars))
    notes.warnings.extend(model.attrs["warnings"])
    levelled = remove_background(picture, model, mode=how.mode)
    gain = None
    if how.mode == "divide":
        at_stars = evaluate_background(model, notes.bright["y"].values, notes.bright["x"].values)
        gain = model_means(model)[:, None] / at_stars
    notes.check("background", picture, levelled, gain=gain)
    return levelled, model


def _sharpen_and_denoise(
    picture: xr.Dataset, stars: xr.Dataset, how: DetailSettings, notes: _Notes, progress: bool
) -> xr.Dataset:
    if how.deconvolve > 0:
        psf = measure_psf(picture, stars)
        sharp = deconvolve(picture, psf, strength=how.deconvolve, iterations=how.iterations, progress=progress)
        notes.check("deconvolution", picture, sharp, stars, relative=True)
        picture = notes.keep("deconvolve", picture, sharp)
    if how.denoise > 0:
        calm = denoise(picture, strength=how.denoise, stars=stars)
        notes.check("denoising", picture, calm)
        picture = notes.keep("denoise", picture, calm)
    return picture


def _to_srgb(
    picture: xr.Dataset, stars: xr.Dataset, how: ColourSettings, notes: _Notes
) -> tuple[xr.Dataset, xr.Dataset | None]:
    if picture.sizes["channel"] != 3:
        return picture, None
    mended = mend_cores(picture) if how.mend else picture
    balance = _balance(mended, how, stars, notes)
    matrix = camera_matrix(mended) if how.matrix else None
    if how.matrix and matrix is None:
        notes.warnings.append("the file names no colour matrix: the camera's own colours are kept")
    mixed = apply_colour(mended, balance, matrix)
    if how.neutralise:
        mixed = neutralise_background(mixed)
    notes.check("colour", picture, mixed)
    if how.green > 0:
        lessened = notes.keep("green", mixed, remove_green(mixed, amount=how.green))
        notes.check("green cast", mixed, lessened)
        mixed = lessened
    return mixed, balance


def _balance(picture: xr.Dataset, how: ColourSettings, stars: xr.Dataset, notes: _Notes) -> xr.Dataset:
    """The white balance; ``auto`` takes the first that works."""
    if how.balance != "auto":
        return white_balance(picture, how.balance, region=how.region, stars=stars)
    for method in ("stars", "daylight"):
        try:
            return white_balance(picture, method, stars=stars)
        except WorkbenchError as problem:
            notes.warnings.append(f"white balance: {problem}")
    notes.warnings.append("white balance: none")
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


def _small(picture: xr.Dataset) -> xr.Dataset:
    """The picture at the level of its pyramid that a screen shows."""
    levels = pyramid(picture)
    return next((level for level in levels if np.prod(level["signal"].shape[1:]) <= 4e6), levels[-1])
