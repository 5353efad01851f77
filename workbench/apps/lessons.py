"""Small controls for the course: a prediction to commit to, an exercise that answers, a measurement beside the truth.

Each works in a notebook without a network.  What a control says is computed by a plain method, so that it can be
tested without a browser.
"""

from __future__ import annotations

import html
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import panel as pn
import param
import xarray as xr

from ..charts import theme
from ..charts.words import quantity
from ..errors import WorkbenchError
from ..results import is_simulated

_WIDTH = 820
_CARD = {"border": f"1px solid {theme.GRID}", "border-radius": "6px", "padding": "6px 14px"}


class Prediction(pn.viewable.Viewer):
    """A guess that the reader commits to before measuring; `predict` makes one.

    ``value`` is what the control shows, ``committed`` whether the reader has pressed the button.
    """

    value = param.Parameter()
    committed = param.Boolean(False)

    def __init__(
        self, question: str, options: Mapping[str, float] | None, bounds: tuple[float, float, float] | None, unit: str
    ) -> None:
        super().__init__()
        self.question, self.options, self.bounds, self.unit = question, options, bounds, unit
        if options is not None:
            self._control: Any = pn.widgets.RadioBoxGroup(options={"not decided yet": None, **options}, value=None)
        else:
            low, high, step = bounds
            self._control = pn.widgets.FloatSlider(
                label=f"prediction [{unit}]" if unit else "prediction", start=low, end=high, step=step,
                value=low + step * round((high - low) / 2 / step), width=420,
            )  # fmt: skip
        self._button = pn.widgets.Button(label="This is my prediction", color="primary", width=180)
        self._button.on_click(lambda _: self.commit(self._control.value))

    def commit(self, value: float) -> None:
        """Fix the prediction; the button does this.  Choosing nothing fixes nothing."""
        if value is None:
            return
        self._control.value = self.value = value
        self.committed = True
        self._control.disabled = self._button.disabled = True
        self._button.label = "Committed"

    def __panel__(self) -> pn.viewable.Viewable:
        return pn.Column(
            pn.pane.Markdown(f"**{self.question}**", margin=(4, 0)),
            pn.Row(self._control, self._button),
            styles=_CARD, width=_WIDTH,
        )  # fmt: skip

    def against(self, measured: float, error: float = math.nan) -> pn.viewable.Viewable:
        """Show the prediction against the measurement, as soon as there is a prediction.

        Parameters
        ----------
        measured, error
            The measured value and its standard error, in the unit of the prediction.
        """
        measured, error = float(measured), float(error)
        shown = pn.bind(lambda _: self._compared(measured, error), self.param.committed)
        return pn.Column(shown, styles=_CARD, width=_WIDTH)

    def _compared(self, measured: float, error: float) -> pn.viewable.Viewable:
        parts = [pn.pane.Markdown(self.verdict(measured, error), margin=(4, 0))]
        if self.committed and self.options is None and math.isfinite(measured):
            parts.append(pn.pane.HTML(_number_line(self.bounds[:2], self.value, measured, error, self.unit)))
        return pn.Column(*parts)

    def verdict(self, measured: float, error: float = math.nan) -> str:
        """Say in words how the prediction compares with the measurement.

        Examples
        --------
        >>> guess = predict("How much?", low=0, high=10, step=1, unit="e⁻")
        >>> guess.commit(4)
        >>> guess.verdict(5.0, 0.1)
        'You predicted **4 e⁻**. Measured: **5.00 ± 0.10 e⁻**. Your prediction is 20 % too low.'
        """
        if not self.committed:
            return (
                "You have not committed to a prediction yet. Go back to it, choose and press the button: "
                "the comparison then appears here by itself."
            )
        if not math.isfinite(measured):
            return "These frames do not give the measurement; the warnings say what to shoot."
        if self.options is not None:
            return self._chosen(measured, error)
        told = f"You predicted **{self.value:g} {self.unit}**. Measured: **{quantity(measured, error, self.unit)}**. "
        if (error > 0 and abs(self.value - measured) <= error) or math.isclose(self.value, measured, rel_tol=0.03):
            return told + "That is right."
        share = self.value / measured if measured else math.inf
        if share > 2 or share < 0.5:
            factor = max(share, 1 / share) if share > 0 else math.inf
            size = f"{factor:.2g} times" if math.isfinite(factor) and factor < 1e4 else "far"
        else:
            size = f"{100 * abs(share - 1):.0f} %"
        return told + f"Your prediction is {size} too {'high' if self.value > measured else 'low'}."

    def _chosen(self, measured: float, error: float) -> str:
        names = {value: name for name, value in self.options.items()}
        # the nearest option by ratio, as all options are positive factors
        nearest = min(names, key=lambda value: abs(math.log(value / measured)) if measured > 0 else value)
        told = f"You predicted **{names[self.value]}**. Measured: **{quantity(measured, error, self.unit)}**. "
        if nearest == self.value:
            return told + "That is right."
        return told + f"So the answer is **{names[nearest]}**."


def predict(
    question: str,
    *,
    options: Mapping[str, float] | None = None,
    low: float = 0.0,
    high: float = 1.0,
    step: float = 0.1,
    unit: str = "",
) -> Prediction:
    """Ask the reader for a prediction: a choice (name → the value it stands for) or a slider from low to high.

    The values of a choice are positive; the one nearest to the measurement, by ratio, counts as right.

    Raises
    ------
    WorkbenchError
        If the options do not stand for positive numbers, or the slider has no range.
    """
    if options is not None and not all(value > 0 for value in options.values()):
        raise WorkbenchError(f"the options of a prediction stand for positive numbers, not {list(options.values())}")
    if options is None and not (low < high and step > 0):
        raise WorkbenchError(f"a prediction needs a range to choose from; low {low}, high {high}, step {step} is none")
    return Prediction(question, options, None if options is not None else (low, high, step), unit)


def _number_line(bounds: tuple[float, float], guess: float, measured: float, error: float, unit: str) -> str:
    """Return an SVG with prediction and measurement on one scale."""
    low, high = min(*bounds, measured), max(*bounds, measured)
    at = {name: 40 + 640 * (value - low) / (high - low) for name, value in (("guess", guess), ("measured", measured))}
    reach = 640 * (error if math.isfinite(error) else 0.0) / (high - low)
    told, blue, orange = html.escape(unit), theme.SERIES[0], theme.SERIES[1]
    x, y = at["guess"], at["measured"]
    return (
        f'<svg role="img" aria-label="prediction {guess:g}, measured {measured:.4g} {told}" width="720" height="84" '
        f'font-family="{theme.FONT.replace(chr(34), chr(39))}" font-size="12">'
        f'<line x1="40" x2="680" y1="42" y2="42" stroke="{theme.MUTED}"/>'
        f'<text x="40" y="64" text-anchor="middle" fill="{theme.MUTED}">{low:g}</text>'
        f'<text x="680" y="64" text-anchor="middle" fill="{theme.MUTED}">{high:g} {told}</text>'
        f'<path d="M{x:.1f} 34 l8 8 l-8 8 l-8 -8 z" fill="{theme.PAPER}" stroke="{orange}" stroke-width="2"/>'
        f'<text x="{x:.1f}" y="22" text-anchor="middle" fill="{orange}">your prediction</text>'
        f'<line x1="{y - reach:.1f}" x2="{y + reach:.1f}" y1="42" y2="42" stroke="{blue}" stroke-width="4"/>'
        f'<circle cx="{y:.1f}" cy="42" r="5" fill="{blue}"/>'
        f'<text x="{y:.1f}" y="80" text-anchor="middle" fill="{blue}">measured</text></svg>'
    )


class Exercise(pn.viewable.Viewer):
    """A question whose answer is checked: right, or a hint.

    Parameters
    ----------
    question, answer, unit
        What is asked, and the answer: a number in that unit (right within a relative `tolerance`) or one of `options`.
    because
        Why the right answer is right.
    hint, mistakes
        What helps after a wrong answer, in general and for particular ones: a list of pairs (answer, hint).
    """

    def __init__(
        self,
        question: str,
        answer: float | str,
        because: str,
        hint: str,
        mistakes: Sequence[tuple[float | str, str]] = (),
        unit: str = "",
        tolerance: float = 0.02,
        options: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.question, self.answer, self.unit, self.tolerance = question, answer, unit, tolerance
        self.because, self.hint, self.mistakes, self.options = because, hint, list(mistakes), list(options)
        if options:
            choices = {"not decided yet": None, **{name: name for name in options}}
            self._control: Any = pn.widgets.RadioBoxGroup(options=choices, value=None)
        else:
            label = f"your answer [{unit}]" if unit else "your answer"
            self._control = pn.widgets.FloatInput(label=label, value=None, width=180)
        self._button = pn.widgets.Button(label="Check", color="primary", width=90, align="end")
        self._answered = pn.pane.Markdown("", margin=(0, 0))
        self._button.on_click(lambda _: self._answered.param.update(object=self.check(self._control.value)))

    def __panel__(self) -> pn.viewable.Viewable:
        return pn.Column(
            pn.pane.Markdown(self.question, margin=(4, 0)),
            pn.Row(self._control, self._button),
            self._answered,
            styles=_CARD, width=_WIDTH,
        )  # fmt: skip

    def check(self, given: float | str | None) -> str:
        """Say whether an answer is right, or give a hint.

        Examples
        --------
        >>> sum_ = Exercise("2 + 3?", 5, because="Count.", hint="Count.", mistakes=[(6, "Add, do not multiply.")])
        >>> sum_.check(6)
        'Not yet. Add, do not multiply.'
        """
        if given is None:
            return "Give an answer first."
        if self._same(given, self.answer):
            return f"**Right.** {self.because}"
        for wrong, hint in self.mistakes:
            if self._same(given, wrong):
                return f"Not yet. {hint}"
        return f"Not yet. {self.hint}"

    def _same(self, given: float | str, wanted: float | str) -> bool:
        if isinstance(wanted, str):
            return given == wanted
        return math.isclose(float(given), float(wanted), rel_tol=self.tolerance, abs_tol=1e-12)


def exercise(name: str) -> Exercise:
    """Set one of the course's exercises, which stand in ``exercises.toml`` beside this module.

    Raises
    ------
    WorkbenchError
        If there is no such exercise.
    """
    known = exercises()
    if name not in known:
        raise WorkbenchError(f"there is no exercise {name!r}; there are {', '.join(known)}")
    return known[name]


@cache
def _read_exercises() -> dict[str, dict[str, Any]]:
    return tomllib.loads(Path(__file__).with_name("exercises.toml").read_text(encoding="utf-8"))


def exercises() -> dict[str, Exercise]:
    """Return all exercises of the course by their names, each one new."""
    return {name: Exercise(**told) for name, told in _read_exercises().items()}


def figure(chart: Any, caption: str, *controls: Any, camera: str = "") -> pn.viewable.Viewable:
    """Put controls above a chart and a caption below it, which says so where the data is simulated.

    Parameters
    ----------
    chart
        A HoloViews object, or one bound to the controls (`panel.bind`).
    camera
        The name that the frames carry.
    """
    label = f"*Simulated data* ({camera})." if is_simulated(camera) else f"*Data:* {camera}." if camera else ""
    words = pn.pane.Markdown(f"{caption} {label}", styles={"color": theme.MUTED}, width=_WIDTH, margin=(0, 10))
    above = [pn.Row(*controls)] if controls else []
    return pn.Column(*above, chart, words)


def truth(folder: str | Path) -> xr.Dataset:
    """Return what is true of simulated sample frames; an empty Dataset for real frames, whose truth nobody knows.

    Returns
    -------
    xarray.Dataset
        ``gain`` [e⁻/ADU], ``read_noise`` and ``saturation`` [e⁻], ``read_noise_adu`` [ADU] over iso;
        ``dark_current``, ``median`` and ``dcnu`` [e⁻/s/pixel] over temperature; ``black_level`` and
        ``fixed_pattern`` [ADU], ``prnu`` [%], ``unity_gain_iso``, ``doubling_temperature`` [K].
    """
    path = Path(folder) / "truth.json"
    if not path.is_file():
        return xr.Dataset()
    told = json.loads(path.read_text(encoding="utf-8"))
    settings, darks = told["settings"], told["dark_current"]
    data: dict[str, Any] = {
        name: ("iso", [one[name]["value"] for one in settings], {"units": settings[0][name]["unit"]})
        for name in ("gain", "read_noise", "saturation")
    }
    for name, key in (("dark_current", "value"), ("median", "median"), ("dcnu", "dcnu")):
        data[name] = ("temperature", [one[key] for one in darks], {"units": darks[0]["unit"]})
    for name in ("black_level", "fixed_pattern", "prnu", "unity_gain_iso"):
        data[name] = ((), told[name]["value"], {"units": told[name].get("unit", "1")})
    doubling = told["dark_law"]["doubling_temperature"]
    data["doubling_temperature"] = ((), doubling["value"], {"units": doubling["unit"]})
    coords = {
        "iso": [float(one["iso"]) for one in settings],
        "temperature": [float(one["temperature_c"]) for one in darks],
    }
    result = xr.Dataset(data, coords, {"camera": told["camera"]})
    return result.assign(read_noise_adu=(result["read_noise"] / result["gain"]).assign_attrs(units="adu"))


def beside_truth(
    measured: xr.DataArray, error: xr.DataArray, true: xr.DataArray | None = None, *, digits: int = 4
) -> pd.DataFrame:
    """Tabulate a measurement with its errors, and beside it the truth where it is known.

    Parameters
    ----------
    measured, error
        A quantity over one dimension (a row each), and perhaps channel (a column each).
    true
        The truth over the same dimension, from `truth`; the last column then gives the mean difference over the
        channels in units of its error.

    Examples
    --------
    >>> gain = xr.DataArray([2.12, 1.06], {"iso": [100, 200]}, ["iso"], attrs={"units": "e-/ADU"}, name="gain")
    >>> beside_truth(gain, 0 * gain + 0.01, xr.DataArray([2.13, 1.065], {"iso": [100, 200]}, ["iso"]))
         gain [e-/ADU]  truth  off by
    ISO
    100  2.120 ± 0.010   2.13  -1.0 σ
    200  1.060 ± 0.010  1.065  -0.5 σ
    """
    (dim,) = [name for name in measured.dims if name != "channel"]
    unit = measured.attrs.get("units", "")
    rows = measured[dim].values
    if "channel" not in measured.dims:
        title = f"{measured.name or 'measured'} [{unit}]" if unit else str(measured.name or "measured")
        measured, error = measured.expand_dims(channel=[title]), error.expand_dims(channel=[title])
    measured, error = measured.transpose(dim, "channel"), error.transpose(dim, "channel")
    table = {
        str(name): [
            quantity(value, spread) for value, spread in zip(measured[:, i].values, error[:, i].values, strict=True)
        ]
        for i, name in enumerate(measured["channel"].values)
    }
    if true is not None:
        known = true.reindex({dim: rows}).values if dim in true.dims else np.full(rows.size, float(true))
        off = (measured - known[:, None]).mean("channel").values
        spread = np.sqrt((error**2).sum("channel")).values / measured.sizes["channel"]
        table["truth"] = [f"{value:.{digits}g}" if math.isfinite(value) else "–" for value in known]
        table["off by"] = [
            f"{o / s:+.1f} σ" if s > 0 and math.isfinite(o) else "–" for o, s in zip(off, spread, strict=True)
        ]
    label = {"iso": "ISO", "temperature": "temperature [°C]", "exposure": "exposure [s]"}.get(str(dim), str(dim))
    names = [f"{value:g}" for value in rows]
    if dim != "iso" and "iso" in measured.coords:
        label += ", ISO"
        names = [f"{name}, {iso:g}" for name, iso in zip(names, measured["iso"].values, strict=True)]
    return pd.DataFrame(table, index=pd.Index(names, name=label))


def measured(*rows: tuple[str, Any, Any, Any]) -> pd.DataFrame:
    """Tabulate single quantities: a label, the value, its standard error, and the truth or None.

    Examples
    --------
    >>> measured(("doubling temperature [K]", 6.03, 0.02, 6.0))
                                 measured truth off by
    doubling temperature [K]  6.030 ± 0.020     6  1.5 σ
    """
    table = {}
    for label, value, error, true in rows:
        table[label] = {"measured": quantity(float(value), float(error))}
        if true is not None:
            off = (float(value) - float(true)) / float(error)
            table[label] |= {"truth": f"{float(true):,.5g}", "off by": f"{off:+.1f} σ"}
    return pd.DataFrame.from_dict(table, orient="index")


def with_truth(*rows: tuple[str, Any, float]) -> pd.DataFrame:
    """Tabulate single quantities: a label, the values measured (one a channel), and what is true.

    Each is shown as the mean of its values with the standard error that their scatter gives.

    Examples
    --------
    >>> with_truth(("signal [e⁻]", [99.0, 101.0, 100.0, 100.0], 100.2))
                     measured  truth
    signal [e⁻]  100.00 ± 0.41  100.2
    """
    table = {}
    for label, values, true in rows:
        values = np.ravel(np.asarray(values, float))
        error = values.std(ddof=1) / math.sqrt(values.size) if values.size > 1 else math.nan
        table[label] = {"measured": quantity(values.mean(), error), "truth": f"{true:,.5g}"}
    return pd.DataFrame.from_dict(table, orient="index")
