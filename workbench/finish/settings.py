"""The settings of a whole finish: plain values that JSON holds, and the finish that follows them.

The order of the steps is that of the physics: what is linear first, on independent channels (crop, background,
deconvolution, denoising), then colour, then the stretch, then what only makes sense on a screen.  The same stack and
the same settings give the same picture, bit for bit.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from ..core.errors import WorkbenchError
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
from .detail import denoise, local_contrast, reduce_stars, removed
from .photometry import bright_stars, check_photometry, find_picture_stars
from .picture import PLANES, check_picture, crop, fill_holes, pyramid
from .sharpen import deconvolve, measure_psf
from .sky import measure_sky
from .stretch import apply_stretch, stretch_parameters

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
class StretchSettings:
    """See `stretch_parameters`."""

    method: str = "asinh"
    sky: float | None = None
    strength: float = 1.0
    linked: bool = True
    black: float | None = None
    white: float | None = None
    intensity: float = 5.0
    shape: float = 2.0
    symmetry: float | None = None
    chroma: float = 1.5


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

    crop: CropSettings = CropSettings()
    background: BackgroundSettings = BackgroundSettings()
    colour: ColourSettings = ColourSettings()
    detail: DetailSettings = DetailSettings()
    stretch: StretchSettings = StretchSettings()

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
        parts = {field.name: type(field.default) for field in dataclasses.fields(cls)}
        version = values.get("version", VERSION)
        if version != VERSION:
            raise WorkbenchError(f"these finish settings are of version {version!r}; this workbench knows {VERSION}")
        _known(values, {*parts, "version"}, "finish settings")
        made = {}
        for name, part in parts.items():
            if name in values:
                if not isinstance(values[name], Mapping):
                    raise WorkbenchError(f"the finish setting {name!r} holds settings by name, not {values[name]!r}")
                fields = {field.name: field for field in dataclasses.fields(part)}
                _known(values[name], set(fields), f"the {name} settings")
                made[name] = part(**{key: _typed(name, fields[key], value) for key, value in values[name].items()})
        return cls(**made)

    @classmethod
    def from_json(cls, text: str) -> FinishSettings:
        """Make settings of JSON text."""
        try:
            values = json.loads(text)
        except ValueError as problem:
            raise WorkbenchError(f"the finish settings are no JSON: {problem}") from problem
        if not isinstance(values, Mapping):
            raise WorkbenchError("the finish settings are no JSON object: { ... }")
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


def _known(values: Mapping[str, Any], names: set[str], where: str) -> None:
    unknown = sorted(set(values) - names)
    if unknown:
        raise WorkbenchError(f"{where} have no {', '.join(map(repr, unknown))}; they have {', '.join(sorted(names))}")


def _typed(part: str, field: dataclasses.Field, value: Any) -> Any:
    """A value as the field holds it: JSON's lists as tuples, whole numbers as floats; anything else is a mistake."""
    kinds = str(field.type)
    good = (
        (value is None and "None" in kinds)
        or (isinstance(value, bool) and kinds == "bool")
        or (isinstance(value, str) and "str" in kinds)
        or (isinstance(value, (list, tuple)) and "tuple" in kinds)
        or (isinstance(value, int) and not isinstance(value, bool) and ("int" in kinds or "float" in kinds))
        or (isinstance(value, float) and "float" in kinds)
    )
    if not good:
        raise WorkbenchError(f"the finish setting {part}.{field.name} is {value!r}; it takes {kinds}")
    if isinstance(value, (list, tuple)):
        if field.name == "samples":
            return tuple(tuple(float(number) for number in point) for point in value)
        return tuple(int(number) for number in value)
    return float(value) if kinds.startswith("float") and isinstance(value, int) else value


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
    cautions: list[str] = []
    checks: dict[str, xr.Dataset] = {}
    took: dict[str, xr.Dataset] = {}
    with tqdm(total=7, desc="finishing", unit="step", delay=2, leave=False, disable=not progress) as bar:

        def done(step: str) -> None:
            bar.set_postfix_str(step)
            bar.update()

        picture = fill_holes(crop(stack, share=settings.crop.share, box=settings.crop.box))
        del stack
        stars = find_picture_stars(picture)
        # the judges: their fluxes are measured again after each step
        judges = bright_stars(stars, tuple(picture["signal"].shape[1:])).assign_attrs(stars.attrs)
        done("crop")

        def check(step: str, before: xr.Dataset, after: xr.Dataset, among: xr.Dataset = judges, **how: Any) -> None:
            if among.sizes["star"] < 3:
                return
            try:
                checks[step] = check_photometry(before, after, among, **how)
            except WorkbenchError:  # too few of them without missing pixels: nothing can be said
                return
            if not checks[step].attrs["passed"]:
                cautions.append(
                    f"{step}: star fluxes changed by up to {checks[step].attrs['worst']:.2%} beyond what the step"
                    f" means to do ({checks[step].attrs['stars']} stars, typical error"
                    f" {checks[step].attrs['uncertainty']:.2%}; {checks[step].attrs['tolerance']:.1%} allowed)"
                )

        model = None
        chosen = settings.background
        if chosen.method != "none":
            sky = measure_sky(picture, stars)
            model = background_model(
                picture,
                chosen.method,
                degree=chosen.degree,
                samples=chosen.samples,
                smoothing=chosen.smoothing,
                box=chosen.box,
                sky=sky,
            )
            cautions += model.attrs["warnings"]
            before, picture = picture, remove_background(picture, model, mode=chosen.mode)
            gain = None
            if chosen.mode == "divide":
                at_stars = evaluate_background(model, judges["y"].values, judges["x"].values)
                gain = model_means(model)[:, None] / at_stars
            check("background", before, picture, gain=gain)
            del before
        done("background")

        detail = settings.detail
        if detail.deconvolve > 0:
            before = picture
            psf = measure_psf(picture, stars)
            picture = deconvolve(
                picture, psf, strength=detail.deconvolve, iterations=detail.iterations, progress=progress
            )
            took["deconvolve"] = _small(removed(before, picture))
            check("deconvolution", before, picture, stars, relative=True)
            del before
        done("deconvolution")
        if detail.denoise > 0:
            before, picture = picture, denoise(picture, strength=detail.denoise, stars=stars)
            took["denoise"] = _small(removed(before, picture))
            check("denoising", before, picture)
            del before
        done("denoising")

        balance = None
        if picture.sizes["channel"] == 3:
            colour = settings.colour
            before = picture
            if colour.mend:
                picture = mend_cores(picture)
            balance, remark = _balance(picture, colour, stars)
            cautions += remark
            matrix = camera_matrix(picture) if colour.matrix else None
            if colour.matrix and matrix is None:
                cautions.append("the file names no colour matrix: the camera's own colours are kept")
            picture = apply_colour(picture, balance, matrix)
            if colour.neutralise:
                picture = neutralise_background(picture)
            check("colour", before, picture)
            if colour.green > 0:
                before, picture = picture, remove_green(picture, amount=colour.green)
                took["green"] = _small(removed(before, picture))
                check("green cast", before, picture)
            del before
        done("colour")

        parameters = stretch_parameters(picture, **dataclasses.asdict(settings.stretch))
        linear, picture = picture, apply_stretch(picture, parameters)
        done("stretch")

        if detail.stars > 0:
            before, picture = picture, reduce_stars(picture, stars, strength=detail.stars)
            took["stars"] = _small(removed(before, picture))
        if detail.contrast > 0:
            before, picture = picture, local_contrast(picture, strength=detail.contrast)
            took["contrast"] = _small(removed(before, picture))
        done("detail")
    return Finished(picture, linear, settings, model, balance, took, checks, cautions)


def _check_choices(settings: FinishSettings) -> None:
    """Say what is unknown before the work and not in the middle of it."""
    for what, value, known in (
        ("background method", settings.background.method, (*METHODS, "none")),
        ("background mode", settings.background.mode, ("subtract", "divide")),
        ("white balance", settings.colour.balance, ("auto", *BALANCES)),
        ("stretch", settings.stretch.method, CURVES),
    ):
        if value not in known:
            raise WorkbenchError(f"{what} {value!r} is none of {', '.join(known)}")
    detail = settings.detail
    for name in ("deconvolve", "denoise", "stars", "contrast"):
        if not 0 <= getattr(detail, name) <= 1:
            raise WorkbenchError(f"the strength of {name} lies between 0 (off) and 1; got {getattr(detail, name):g}")
    if not 0 <= settings.colour.green <= 1:
        raise WorkbenchError(f"the amount of green to remove lies between 0 and 1; got {settings.colour.green:g}")


def _balance(picture: xr.Dataset, colour: ColourSettings, stars: xr.Dataset) -> tuple[xr.Dataset, list[str]]:
    """The white balance, and what there is to say of it; ``auto`` takes the first that works."""
    if colour.balance != "auto":
        return white_balance(picture, colour.balance, region=colour.region, stars=stars), []
    problems = []
    for method in ("stars", "daylight"):
        try:
            return white_balance(picture, method, stars=stars), problems
        except WorkbenchError as problem:
            problems.append(f"white balance: {problem}")
    return white_balance(picture, "none"), [*problems, "white balance: none"]


def _small(picture: xr.Dataset) -> xr.Dataset:
    """The picture at the level of its pyramid that a screen shows."""
    return next(level for level in pyramid(picture) if np.prod(level["signal"].shape[1:]) <= 4e6 or _last(level))


def _last(level: xr.Dataset) -> bool:
    return min(level.sizes["y"], level.sizes["x"]) < 512
