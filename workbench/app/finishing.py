"""The finish, live: background, colour, stretch and detail with their sliders, and what each step removed.

Sliders work on the level of the picture's pyramid that the screen shows; what they set is what the export does to the
whole frame.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from .. import charts, finish
from ..core.errors import WorkbenchError
from ..core.values import value_text
from .divider import SAMPLE, WIDTH, difference, divider, jpeg, next_key, pixels, screen, shown
from .live_charts import live_text


class Background:
    """A picture's background by several methods, on the level that the screen shows: measured once, shown at once.

    Parameters
    ----------
    picture
        A linear picture, cropped.
    """

    methods = ("polynomial", "rbf", "mesh")

    def __init__(self, picture: xr.Dataset) -> None:
        self.picture = screen(finish.fill_holes(picture))
        sky = finish.measure_sky(self.picture)
        self.models = {name: finish.background_model(self.picture, name, sky=sky) for name in self.methods}
        self.key = next_key()
        self.before = jpeg(pixels(self.picture))

    def after(self, method: str, share: float = 1.0) -> xr.Dataset:
        """Return the picture with this share of the model subtracted."""
        model = self.models[method]
        return finish.remove_background(self.picture, model.assign(background=share * model["background"]))

    def view(self, method: str = "polynomial", share: float = 1.0, show: str = "after") -> str:
        """Return the divider: before, and either after or what was removed."""
        after = self.after(method, share)
        shape = self.picture["signal"].shape[1:]
        if show == "after":
            return divider(self.before, jpeg(pixels(after)), shape, key=self.key)
        gone = jpeg(difference(self.picture, after, signed=False))
        return divider(self.before, gone, shape, names=("before", "what it removed"), key=self.key)

    def words(self, method: str, share: float = 1.0) -> str:
        """Say what was removed, in numbers."""
        model = self.models[method]
        spans = [(share * plane.min(), share * plane.max()) for plane in model["background"].values]
        told = ", ".join(
            f"{name} {low:.0f} to {high:.0f}"
            for name, (low, high) in zip(model["channel"].values.astype(str), spans, strict=True)
        )
        cautions = "".join(f" **Note:** {one}." for one in model.attrs["warnings"])
        return (
            f"Removed: {told} {_unit(model.attrs['units'])}; **{100 * model.attrs['sky_share']:.1f} %** of the "
            f"cells were empty sky.{cautions}"
        )


def background_explorer(picture: xr.Dataset) -> Any:
    """Choose a surface and how much of it to take away; drag the divider; look at what went."""
    import panel as pn

    made = Background(picture)
    method = pn.widgets.RadioButtonGroup(label="surface", options=list(made.methods), value="polynomial")
    share = pn.widgets.FloatSlider(label="share of the model removed", start=0, end=1, step=0.05, value=1)
    show = _what()
    return pn.Column(
        pn.Row(method, share, show),
        shown(pn.bind(made.view, method, share, show)),
        live_text(pn.bind(made.words, method, share)),
    )


def _what() -> Any:
    import panel as pn

    options = {"before | after": "after", "before | what it removed": "removed"}
    return pn.widgets.RadioButtonGroup(label="show", options=options, value="after")


def _unit(units: str) -> str:
    return "e⁻" if units == "electron" else units


class Colour:
    """The colours of a picture without background: several balances, measured once on the whole picture."""

    def __init__(self, picture: xr.Dataset) -> None:
        stars = finish.find_picture_stars(picture)
        self.balances: dict[str, xr.Dataset] = {}
        for method in ("stars", "daylight", "none"):
            try:
                self.balances[method] = finish.white_balance(picture, method, stars=stars)
            except WorkbenchError:  # too few stars, or a file that names no multipliers: not to be chosen
                continue
        self.matrix = finish.camera_matrix(picture)
        self.picture = screen(finish.mend_cores(picture))
        self.after = lru_cache(maxsize=4)(self.after)  # the picture and the words ask for the same
        self.key = next_key()
        self.before = jpeg(pixels(self.picture))

    def after(self, balance: str, matrix: bool = True, green: float = 0.0) -> xr.Dataset:
        """Return the picture with a balance, the camera's matrix or not, and some green cast taken away."""
        mixed = finish.apply_colour(self.picture, self.balances[balance], self.matrix if matrix else None)
        return finish.remove_green(mixed, amount=green) if green else mixed

    def view(self, balance: str, matrix: bool = True, green: float = 0.0, show: str = "after") -> str:
        """Return the divider: the camera's own colours, and either after or the green that was removed."""
        after = self.after(balance, matrix, green)
        shape = self.picture["signal"].shape[1:]
        if show == "after":
            return divider(self.before, jpeg(pixels(after)), shape, names=("camera", "after"), key=self.key)
        gone = jpeg(difference(self.after(balance, matrix), after))
        return divider(self.before, gone, shape, names=("camera", "the green removed"), key=self.key)

    def words(self, balance: str, matrix: bool = True, green: float = 0.0) -> str:
        """Say what the multipliers are, and what the green removal took."""
        one = self.balances[balance]
        told = ", ".join(
            f"{name} {value_text(value, error)}"
            for name, value, error in zip(
                one["channel"].values.astype(str),
                one["multiplier"].values,
                one["multiplier_error"].values,
                strict=True,
            )
        )
        stars = f" from {one.attrs['stars']} stars" if one.attrs["stars"] else ""
        gone = f" {self.after(balance, matrix, green).attrs['history'][-1]}" if green else ""
        return f"Multipliers: **{told}**{stars}.{gone}"


def colour_explorer(picture: xr.Dataset) -> Any:
    """Choose what is white, whether the camera's matrix is applied, how much green goes."""
    import panel as pn

    made = Colour(picture)
    balance = pn.widgets.RadioButtonGroup(
        label="white is", options=list(made.balances), value=next(iter(made.balances))
    )
    matrix = pn.widgets.Checkbox(label="camera's matrix", value=made.matrix is not None, disabled=made.matrix is None)
    green = pn.widgets.FloatSlider(label="green cast removed", start=0, end=1, step=0.05, value=0, width=200)
    show = _what()
    return pn.Column(
        pn.Row(balance, matrix, green, show),
        shown(pn.bind(made.view, balance, matrix, green, show)),
        live_text(pn.bind(made.words, balance, matrix, green)),
    )


class Stretch:
    """A linear picture under any stretch: numbers from the whole picture, pixels from the screen's level."""

    methods = ("linear", "autostretch", "asinh", "ghs")

    def __init__(self, linear: xr.Dataset) -> None:
        self.statistics = finish.sky_statistics(linear)
        self.linear = linear
        self.picture = screen(linear)
        self.counts = finish.histogram(self.picture)
        self.apply = lru_cache(maxsize=4)(self.apply)  # the picture and its histogram ask for the same
        self.key = next_key()
        self.before = jpeg(pixels(self.apply("linear")))

    def parameters(
        self, method: str, sky: float | None = None, strength: float = 1.0, chroma: float = 1.5, intensity: float = 5.0
    ) -> dict[str, Any]:
        """Return the numbers of a stretch of the whole picture."""
        settings = finish.StretchSettings(method, sky=sky, strength=strength, chroma=chroma, intensity=intensity)
        return finish.stretch_parameters(self.linear, settings, statistics=self.statistics)

    def apply(self, method: str, *numbers: Any) -> xr.Dataset:
        """Return the screen's level, stretched."""
        return finish.apply_stretch(self.picture, self.parameters(method, *numbers))

    def view(self, method: str, *numbers: Any) -> str:
        """Return the divider: linear, and stretched."""
        after = jpeg(pixels(self.apply(method, *numbers)))
        return divider(self.before, after, self.picture["signal"].shape[1:], names=("linear", method), key=self.key)

    def curve(self, method: str, *numbers: Any) -> hv.Overlay:
        """Chart the histogram before, and the curve."""
        levels = np.linspace(float(self.counts["level"][0]), float(self.counts["level"][-1]), 200)
        return charts.stretch_before(self.counts, levels, finish.curve(levels, self.parameters(method, *numbers)))

    def histogram(self, method: str, *numbers: Any) -> hv.Overlay:
        """Chart the histogram after."""
        return charts.stretch_after(finish.histogram(self.apply(method, *numbers), sample=4 * SAMPLE))


def stretch_explorer(linear: xr.Dataset) -> Any:
    """Choose a curve and its numbers; the picture and both histograms follow."""
    import panel as pn

    made = Stretch(linear)
    method = pn.widgets.RadioButtonGroup(label="curve", options=list(made.methods), value="asinh")
    sliders = [
        pn.widgets.FloatSlider(label=label, start=start, end=end, step=step, value=value, width=190)
        for label, start, end, step, value in (
            ("the sky lands at", 0.03, 0.4, 0.01, 0.1),
            ("strength", 0.3, 3, 0.05, 1),
            ("colour smoothed over [px]", 0, 4, 0.25, 1.5),
            ("intensity (ghs)", 0, 10, 0.25, 5),
        )
    ]
    plots = [hv.DynamicMap(pn.bind(draw, method, *sliders)) for draw in (made.curve, made.histogram)]
    return pn.Column(
        method,
        pn.Row(*sliders),
        shown(pn.bind(made.view, method, *sliders)),
        pn.Row(*(pn.pane.HoloViews(plot.opts(width=WIDTH // 2, height=260)) for plot in plots)),
    )


class Detail:
    """A piece of a picture at full size under every step of detail.

    The deconvolution is done once: its strength mixes it with the picture, which is what it means.

    Parameters
    ----------
    stack
        A linear picture with its variance, cropped.
    done
        Its finish, from `finish.finish`: the steps around these are the same.
    size
        Rows and columns of the piece; its middle is the brightest nebula.
    """

    def __init__(self, stack: xr.Dataset, done: finish.Finished, size: tuple[int, int] = (200, 300)) -> None:
        settings = done.settings
        picture = finish.fill_holes(finish.crop(stack, share=settings.crop.share, box=settings.crop.box)).load()
        if done.background is not None:
            picture = finish.remove_background(picture, done.background, mode=settings.background.mode)
        stars = finish.find_picture_stars(picture)
        rows, columns = _busiest(done.linear, size)
        self.stars = _within(stars, rows, columns)
        self.piece = picture.isel(y=rows, x=columns)
        self.transform = partial(finish.apply_colour, balance=done.balance)
        if self.piece.sizes["channel"] == 3 and settings.colour.matrix:
            self.transform = partial(self.transform, matrix=finish.camera_matrix(picture))
        self.numbers = finish.stretch_parameters(done.linear, settings.stretch)
        try:
            psf = finish.measure_psf(picture, stars)
            sharp = finish.deconvolve(self.piece, psf, strength=1.0, progress=False)
            self.sharper = (sharp["signal"] - self.piece["signal"]).values
        except WorkbenchError:  # too few stars, or no variance: the slider does nothing
            self.sharper = np.zeros_like(self.piece["signal"].values)
        self.key = next_key()
        self.plain = self._to_screen(self.piece)
        self.before = jpeg(pixels(self.plain))

    def _to_screen(self, linear: xr.Dataset) -> xr.Dataset:
        mixed = self.transform(linear) if linear.sizes["channel"] == 3 else linear
        return finish.apply_stretch(mixed, self.numbers)

    def after(self, denoise: float = 0.0, deconvolve: float = 0.0, stars: float = 0.0, contrast: float = 0.0) -> Any:
        """Return the piece after the steps, stretched."""
        linear = self.piece
        if deconvolve:
            linear = linear.assign(signal=linear["signal"] + np.float32(deconvolve) * self.sharper)
        if denoise:
            linear = finish.denoise(linear, strength=denoise, stars=self.stars)
        picture = self._to_screen(linear)
        if stars:
            picture = finish.reduce_stars(picture, self.stars, strength=stars)
        return finish.local_contrast(picture, strength=contrast) if contrast else picture

    def view(
        self,
        denoise: float = 0.0,
        deconvolve: float = 0.0,
        stars: float = 0.0,
        contrast: float = 0.0,
        show: str = "after",
    ) -> str:
        """Return the divider: before, and either after or what was removed."""
        after = self.after(denoise, deconvolve, stars, contrast)
        shape = self.piece["signal"].shape[1:]
        if show == "after":
            return divider(self.before, jpeg(pixels(after)), shape, key=self.key)
        gone = jpeg(difference(self.plain, after))
        return divider(self.before, gone, shape, names=("before", "what it removed"), key=self.key)


def _busiest(linear: xr.Dataset, size: tuple[int, int]) -> tuple[slice, slice]:
    """The piece of this size, of a coarse grid of them, whose upper quartile is the brightest: where the nebula is."""
    level = finish.luminance(linear["signal"].values)
    height, width = (min(wanted, there) for wanted, there in zip(size, level.shape, strict=True))
    best, found = -np.inf, (0, 0)
    for top in range(0, level.shape[0] - height + 1, max(1, height // 2)):
        for left in range(0, level.shape[1] - width + 1, max(1, width // 2)):
            piece = level[top : top + height : 4, left : left + width : 4]
            light = float(np.nanquantile(piece, 0.75)) if np.isfinite(piece).any() else -np.inf
            if light > best:
                best, found = light, (top, left)
    return slice(found[0], found[0] + height), slice(found[1], found[1] + width)


def _within(stars: xr.Dataset, rows: slice, columns: slice) -> xr.Dataset:
    """The stars of a piece, at their places in it."""
    x, y = stars["x"].values - columns.start, stars["y"].values - rows.start
    margin = 20
    inside = (x > -margin) & (y > -margin) & (x < columns.stop - columns.start + margin)
    inside &= y < rows.stop - rows.start + margin
    moved = stars.assign(x=("star", x), y=("star", y)).isel(star=np.flatnonzero(inside))
    return moved


def detail_explorer(stack: xr.Dataset, done: finish.Finished) -> Any:
    """Denoise, deconvolve, shrink stars, raise contrast: each from off, with what it removed."""
    import panel as pn

    made = Detail(stack, done)
    sliders = [
        pn.widgets.FloatSlider(label=label, start=0, end=1, step=0.05, value=value, width=190)
        for label, value in (("denoise", 0.5), ("deconvolve", 0.0), ("smaller stars", 0.0), ("local contrast", 0.0))
    ]
    show = _what()
    return pn.Column(pn.Row(*sliders), show, shown(pn.bind(made.view, *sliders, show)))
