"""Notebooks 12 and 13, live: background, colour, stretch and detail with their sliders, and what each step removed.

Sliders work on the level of the picture's pyramid that the screen shows; their settings are those of the export, which
applies them to the whole picture.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import holoviews as hv
import numpy as np
import panel as pn
import xarray as xr

from workbench import finish
from workbench.app.live_charts import LiveChart, live_text
from workbench.app.pictures import SAMPLE, WIDTH, Divider, pixels, screen_level
from workbench.charts import theme
from workbench.core.errors import WorkbenchError
from workbench.core.statistics import mad_std
from workbench.core.values import value_text

from .finishing import BACKGROUND_METHODS, unit_of

_SCREEN, _PIXELS = theme.dimension("brightness on the screen", "0 to 1"), theme.dimension("share of the fullest bin")
_MARGIN = 20  # around a piece of the picture, within which stars count as its own [px]


def difference(before: xr.Dataset, after: xr.Dataset, *, signed: bool = True) -> np.ndarray:
    """Return what a step removed as 8-bit pixels: grey for nothing, brighter for light removed, darker for light added.

    The scale runs to 4 standard deviations (robust), so that single pixels of noise can be seen; unsigned: from the
    minimum to the maximum.
    """
    values = finish.removed(before, after)["signal"].values
    good = values[np.isfinite(values)]
    if not good.size or good.min() == good.max():
        return _eight_bits(np.full_like(values, 0.5))
    if signed:
        reach = max(4 * float(mad_std(good, centre=0)), float(np.quantile(np.abs(good), 0.98)))
        return _eight_bits(0.5 + values / (2 * (reach or float(np.abs(good).max()))))
    low, high = float(good.min()), float(good.max())
    return _eight_bits((values - low) / (high - low))


def _eight_bits(values: np.ndarray) -> np.ndarray:
    levels = (np.clip(np.nan_to_num(values), 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.moveaxis(levels, 0, -1) if len(levels) == 3 else levels[0]


def _removed_switch() -> Any:
    options = {"before | after": "after", "before | what it removed": "removed"}
    return pn.widgets.RadioButtonGroup(label="show", options=options, value="after")


class BackgroundSteps:
    """The background of a picture by several methods, on the level that the screen shows, each modelled once.

    Parameters
    ----------
    picture
        A linear picture, cropped.
    """

    def __init__(self, picture: xr.Dataset) -> None:
        self.picture = screen_level(finish.fill_holes(picture))
        sky = finish.measure_sky(self.picture)
        self.models = {name: finish.background_model(self.picture, name, sky=sky) for name in BACKGROUND_METHODS}
        self.divider = Divider(pixels(self.picture))

    def after(self, method: str, share: float = 1.0) -> xr.Dataset:
        """Return the picture with this share of the model subtracted."""
        model = self.models[method]
        return finish.remove_background(self.picture, model.assign(background=share * model["background"]))

    def view(self, method: str = "polynomial", share: float = 1.0, show: str = "after") -> str:
        """Return the divider: before, and either after or what was removed."""
        after = self.after(method, share)
        if show == "after":
            return self.divider.render(pixels(after))
        return self.divider.render(difference(self.picture, after, signed=False), "what it removed")

    def text(self, method: str, share: float = 1.0) -> str:
        """Describe what was removed, in numbers."""
        model = self.models[method]
        spans = ", ".join(
            f"{name} {share * plane.min():.0f} to {share * plane.max():.0f}"
            for name, plane in zip(model["channel"].values.astype(str), model["background"].values, strict=True)
        )
        unit = "e⁻" if model.attrs["units"] == "electron" else model.attrs["units"]
        cautions = "".join(f" **Note:** {caution}." for caution in model.attrs["warnings"])
        empty = f"**{100 * model.attrs['sky_share']:.1f} %** of the cells were empty sky"
        return f"Removed: {spans} {unit}; {empty}.{cautions}"


def background_explorer(picture: xr.Dataset) -> Any:
    """Choose a model of the background and how much of it to subtract; drag the divider; look at what was removed.

    Parameters
    ----------
    picture
        A linear picture, cropped.
    """
    steps = BackgroundSteps(picture)
    method = pn.widgets.RadioButtonGroup(label="surface", options=list(BACKGROUND_METHODS), value="polynomial")
    share = pn.widgets.FloatSlider(label="share of the model removed", start=0, end=1, step=0.05, value=1)
    show = _removed_switch()
    return pn.Column(
        pn.FlexBox(method, share, show),
        steps.divider.pane(pn.bind(steps.view, method, share, show)),
        live_text(pn.bind(steps.text, method, share)),
    )


class ColourSteps:
    """The colours of a picture without background by several white balances, each measured once on all of it."""

    def __init__(self, picture: xr.Dataset) -> None:
        stars = finish.find_picture_stars(picture)
        self.balances: dict[str, xr.Dataset] = {}
        for method in ("stars", "daylight", "none"):
            try:
                self.balances[method] = finish.white_balance(picture, method, stars=stars)
            except WorkbenchError:  # too few stars, or a file without multipliers: not offered
                continue
        self.matrix = finish.camera_matrix(picture)
        self.picture = screen_level(finish.mend_cores(picture))
        self.after = lru_cache(maxsize=4)(self.after)  # the picture and the text use the same
        self.divider = Divider(pixels(self.picture), "camera")

    def after(self, balance: str, matrix: bool = True, green: float = 0.0) -> xr.Dataset:
        """Return the picture with a balance, with or without the camera's matrix, and with less green cast."""
        mixed = finish.apply_colour(self.picture, self.balances[balance], self.matrix if matrix else None)
        return finish.remove_green(mixed, amount=green) if green else mixed

    def view(self, balance: str, matrix: bool = True, green: float = 0.0, show: str = "after") -> str:
        """Return the divider: the camera's own colours, and either after or the green that was removed."""
        after = self.after(balance, matrix, green)
        if show == "after":
            return self.divider.render(pixels(after))
        return self.divider.render(difference(self.after(balance, matrix), after), "the green removed")

    def text(self, balance: str, matrix: bool = True, green: float = 0.0) -> str:
        """Describe the multipliers, and what the green removal took."""
        measured = self.balances[balance]
        names = measured["channel"].values.astype(str)
        values = zip(names, measured["multiplier"].values, measured["multiplier_error"].values, strict=True)
        multipliers = ", ".join(f"{name} {value_text(value, error)}" for name, value, error in values)
        stars = f" from {measured.attrs['stars']} stars" if measured.attrs["stars"] else ""
        removed = f" {self.after(balance, matrix, green).attrs['history'][-1]}" if green else ""
        return f"Multipliers: **{multipliers}**{stars}.{removed}"


def colour_explorer(picture: xr.Dataset) -> Any:
    """Choose what is white, whether the camera's matrix is applied, and how much green cast is removed.

    Parameters
    ----------
    picture
        A linear picture in colour, without background.
    """
    steps = ColourSteps(picture)
    balances, matrix_known = list(steps.balances), steps.matrix is not None
    balance = pn.widgets.RadioButtonGroup(label="white is", options=balances, value=balances[0])
    matrix = pn.widgets.Checkbox(label="camera's matrix", value=matrix_known, disabled=not matrix_known)
    green = pn.widgets.FloatSlider(label="green cast removed", start=0, end=1, step=0.05, value=0, width=200)
    show = _removed_switch()
    return pn.Column(
        pn.FlexBox(balance, matrix, green, show),
        steps.divider.pane(pn.bind(steps.view, balance, matrix, green, show)),
        live_text(pn.bind(steps.text, balance, matrix, green)),
    )


class StretchSteps:
    """A linear picture under any stretch: its parameters from the whole picture, its pixels from the screen's level."""

    methods = ("linear", "autostretch", "asinh", "ghs")

    def __init__(self, linear: xr.Dataset) -> None:
        self.linear, self.picture = linear, screen_level(linear)
        self.statistics = finish.sky_statistics(linear)
        self.counts = finish.histogram(self.picture)
        self.apply = lru_cache(maxsize=4)(self.apply)  # the picture and its histogram use the same
        self.divider = Divider(pixels(self.apply("linear")), "linear")

    def parameters(
        self, method: str, sky: float | None = None, strength: float = 1.0, chroma: float = 1.5, intensity: float = 5.0
    ) -> dict[str, Any]:
        """Return the parameters of a stretch of the whole picture."""
        settings = finish.StretchSettings(method, sky=sky, strength=strength, chroma=chroma, intensity=intensity)
        return finish.stretch_parameters(self.linear, settings, statistics=self.statistics)

    def apply(self, method: str, *settings: Any) -> xr.Dataset:
        """Return the screen's level, stretched."""
        return finish.apply_stretch(self.picture, self.parameters(method, *settings))

    def view(self, method: str, *settings: Any) -> str:
        """Return the divider: linear, and stretched."""
        return self.divider.render(pixels(self.apply(method, *settings)), method)

    def curve(self, method: str, *settings: Any) -> hv.Overlay:
        """Chart the histogram before, and the curve."""
        levels = np.linspace(float(self.counts["level"][0]), float(self.counts["level"][-1]), 200)
        return stretch_before(self.counts, levels, finish.curve(levels, self.parameters(method, *settings)))

    def histogram(self, method: str, *settings: Any) -> hv.Overlay:
        """Chart the histogram after."""
        return stretch_after(finish.histogram(self.apply(method, *settings), sample=4 * SAMPLE))

    def histograms(self, method: str, *settings: Any) -> hv.Layout:
        """Chart both, side by side."""
        return theme.layout([self.curve(method, *settings), self.histogram(method, *settings)])


def _beside(chart: hv.Layout) -> hv.Layout:
    return theme.layout([panel.opts(width=WIDTH // 2, height=260, backend="bokeh", clone=True) for panel in chart])


def stretch_explorer(linear: xr.Dataset) -> Any:
    """Choose a curve and its settings; the picture and both histograms follow.

    Parameters
    ----------
    linear
        A linear picture, its background and colour done.
    """
    steps = StretchSteps(linear)
    method = pn.widgets.RadioButtonGroup(label="curve", options=list(steps.methods), value="asinh")
    sliders = [
        pn.widgets.FloatSlider(label=label, start=start, end=end, step=step, value=value, width=190)
        for label, start, end, step, value in (
            ("brightness of the sky", 0.03, 0.4, 0.01, 0.1),
            ("strength", 0.3, 3, 0.05, 1),
            ("colour smoothed over [px]", 0, 4, 0.25, 1.5),
            ("intensity (ghs)", 0, 10, 0.25, 5),
        )
    ]
    controls = method, *sliders
    return pn.Column(
        method,
        pn.FlexBox(*sliders),
        steps.divider.pane(pn.bind(steps.view, *controls)),
        LiveChart(pn.bind(steps.histograms, *controls), _beside),
    )


class DetailSteps:
    """A piece of a picture at full size under every step of detail.

    The deconvolution is done once: its strength is the weight with which it is mixed with the picture.

    Parameters
    ----------
    stack
        A linear picture with its variance, cropped.
    done
        Its finish, from `finish.finish`: the other steps are the same.
    size
        Rows and columns of the piece; it is where the nebula is brightest.
    """

    def __init__(self, stack: xr.Dataset, done: finish.Finished, size: tuple[int, int] = (200, 300)) -> None:
        settings = done.settings
        picture = finish.fill_holes(finish.crop(stack, share=settings.crop.share, box=settings.crop.box)).load()
        if done.background is not None:
            picture = finish.remove_background(picture, done.background, mode=settings.background.mode)
        stars = finish.find_picture_stars(picture)
        rows, columns = _brightest_piece(done.linear, size)
        self.stars = _stars_within(stars, rows, columns)
        self.piece = picture.isel(y=rows, x=columns)
        self.transform = partial(finish.apply_colour, balance=done.balance)
        if self.piece.sizes["channel"] == 3 and settings.colour.matrix:
            self.transform = partial(self.transform, matrix=finish.camera_matrix(picture))
        self.parameters = finish.stretch_parameters(done.linear, settings.stretch)
        try:
            psf = finish.measure_psf(picture, stars)
            sharp = finish.deconvolve(self.piece, psf, strength=1.0, progress=False)
            self.sharper = (sharp["signal"] - self.piece["signal"]).values
        except WorkbenchError:  # too few stars, or no variance: the slider does nothing
            self.sharper = np.zeros_like(self.piece["signal"].values)
        self.plain = self._to_screen(self.piece)
        self.divider = Divider(pixels(self.plain))

    def _to_screen(self, linear: xr.Dataset) -> xr.Dataset:
        mixed = self.transform(linear) if linear.sizes["channel"] == 3 else linear
        return finish.apply_stretch(mixed, self.parameters)

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

    def view(self, *strengths: float, show: str = "after") -> str:
        """Return the divider: before, and either after or what was removed; for the strengths see `after`."""
        after = self.after(*strengths)
        if show == "after":
            return self.divider.render(pixels(after))
        return self.divider.render(difference(self.plain, after), "what it removed")


def _brightest_piece(linear: xr.Dataset, size: tuple[int, int]) -> tuple[slice, slice]:
    """Return the piece of this size whose upper quartile is the brightest: where the nebula is."""
    level = finish.luminance(linear["signal"].values)
    height, width = (min(wanted, there) for wanted, there in zip(size, level.shape, strict=True))
    best, corner = -np.inf, (0, 0)
    for top in range(0, level.shape[0] - height + 1, max(1, height // 2)):
        for left in range(0, level.shape[1] - width + 1, max(1, width // 2)):
            piece = level[top : top + height : 4, left : left + width : 4]
            light = float(np.nanquantile(piece, 0.75)) if np.isfinite(piece).any() else -np.inf
            if light > best:
                best, corner = light, (top, left)
    return slice(corner[0], corner[0] + height), slice(corner[1], corner[1] + width)


def _stars_within(stars: xr.Dataset, rows: slice, columns: slice) -> xr.Dataset:
    """Return the stars of a piece, with their positions in it."""
    x, y = stars["x"].values - columns.start, stars["y"].values - rows.start
    inside = (x > -_MARGIN) & (y > -_MARGIN) & (x < columns.stop - columns.start + _MARGIN)
    inside &= y < rows.stop - rows.start + _MARGIN
    return stars.assign(x=("star", x), y=("star", y)).isel(star=np.flatnonzero(inside))


def detail_explorer(stack: xr.Dataset, done: finish.Finished) -> Any:
    """Denoise, deconvolve, shrink stars, raise contrast: each from off, with what it removed.

    Parameters
    ----------
    stack
        A linear picture with its variance, cropped.
    done
        Its finish, from `finish.finish`.
    """
    steps = DetailSteps(stack, done)
    sliders = [
        pn.widgets.FloatSlider(label=label, start=0, end=1, step=0.05, value=value, width=190)
        for label, value in (("denoise", 0.5), ("deconvolve", 0.0), ("smaller stars", 0.0), ("local contrast", 0.0))
    ]
    show = _removed_switch()
    return pn.Column(pn.FlexBox(*sliders), show, steps.divider.pane(pn.bind(steps.view, *sliders, show=show)))


def stretch_before(counts: xr.Dataset, levels: np.ndarray, screen: np.ndarray) -> hv.Overlay:
    """Chart the histogram of a linear picture and, over it, the curve that takes it to the screen.

    Parameters
    ----------
    counts
        From `finish.histogram`, of the linear picture.
    levels, screen
        The curve: brightness before, in the picture's units, and after, 0 to 1.
    """
    dims = (theme.dimension("brightness before", unit_of(counts["level"].attrs.get("units", ""))), _PIXELS)
    curve = theme.line(levels, screen, dims=dims, label="the stretch", dash="dashed", width=2.2)
    return theme.panel([*_curves(counts, dims), curve], title="Before: linear", legend="bottom_right", ylim=(0, 1.05))


def stretch_after(counts: xr.Dataset) -> hv.Overlay:
    """Chart the histogram of a stretched picture; `counts` from `finish.histogram`."""
    return theme.panel(_curves(counts, (_SCREEN, _PIXELS)), title="After: on the screen", xlim=(0, 1), ylim=(0, 1.05))


def _curves(counts: xr.Dataset, dims: tuple[hv.Dimension, hv.Dimension]) -> list[Any]:
    """One line a channel, the fullest bin of all at 1; the outermost bins, which hold what is clipped, do not count."""
    top = float(counts["count"].values[:, 1:-1].max(initial=1))
    return [
        theme.line(
            counts["level"].values,
            np.minimum(row / top, 1.02),
            dims=dims,
            label=name,
            colour=theme.channel_colour(name),
        )
        for name, row in zip(counts["channel"].values.astype(str), counts["count"].values, strict=True)
    ]
