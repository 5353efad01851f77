"""Small controls for the course: a prediction to commit to, an exercise that answers, a figure with its caption.

Each works in a notebook without a network.  What a control says is computed by a plain method, so that it can be
tested without a browser.
"""

from __future__ import annotations

import glob
import hashlib
import html
import math
import re
import shutil
import tomllib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import holoviews as hv
import panel as pn
import param

from .. import keeping
from ..charts import theme
from ..charts.registry import REGISTRY
from ..charts.words import quantity
from ..errors import WorkbenchError
from ..ingest.catalogue import Folder
from ..results import is_simulated
from ..runs import Characterization
from ..runs.samples import own_folder

_WIDTH = 820
_BESIDE = 0.86  # of the size of a panel
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
        words = live_text(pn.bind(lambda _: self.verdict(measured, error), self.param.committed))
        drawn = live_text(pn.bind(lambda _: self.number_line(measured, error), self.param.committed))
        return pn.Column(words, drawn, styles=_CARD, width=_WIDTH)

    def number_line(self, measured: float, error: float = math.nan) -> str:
        """Draw a predicted number and the measurement on one scale, as SVG; empty where there is none."""
        if not self.committed or self.bounds is None or not math.isfinite(measured):
            return ""
        return _number_line(self.bounds[:2], self.value, measured, error, self.unit)

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
        self.said = param.rx("")
        self._button.on_click(lambda _: setattr(self.said.rx, "value", self.check(self._control.value)))

    def __panel__(self) -> pn.viewable.Viewable:
        return pn.Column(
            pn.pane.Markdown(self.question, margin=(4, 0)),
            pn.Row(self._control, self._button),
            live_text(self.said),
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


def keep(name: str, result: Any, frames: Folder) -> Any:
    """Keep what a notebook has measured for those that follow, and return it; `kept` takes it up.

    It goes into the folder ``measured`` beside the notebooks (or into ``WORKBENCH_CACHE``), one file a name and folder
    of frames; it may be deleted at any time.  Where nothing can be written nothing is kept, and a line says why.

    Parameters
    ----------
    name
        What the others ask for: ``"gain"``.
    result
        A Dataset, a DataArray or a named tuple of these.
    frames
        From `open_folder`: the whole folder that was measured.
    """
    return _save(name, result, _kept_file(name, frames), keeping.frames_key(frames.table))


def kept(name: str, frames: Folder, otherwise: Callable[[], Any]) -> Any:
    """Return what an earlier notebook has measured on these very frames; else measure it, and keep it.

    Of other frames, changed frames, another version of the workbench or a damaged file nothing is taken.  One line says
    where the numbers come from.

    Parameters
    ----------
    name, frames
        As for `keep`.
    otherwise
        Measures it: called where nothing is kept.
    """
    path, key = _kept_file(name, frames), keeping.frames_key(frames.table)
    result = keeping.load(path, key) if path.is_file() else None
    if result is not None:
        when = datetime.fromtimestamp(path.stat().st_mtime)
        _say(f"The {name}: measured on these very frames before, {when:%Y-%m-%d %H:%M}; taken from there.")
        return result
    _say(f"The {name}: nothing is kept of these frames yet, so it is measured here.")
    return _save(name, otherwise(), path, key)


def kept_folder(name: str, frames: Folder) -> Path:
    """Return a folder for what keeps its own files, such as the masters of `calibrate.make_masters(folder=...)`.

    It belongs to these very frames; what was kept there for others that the same folder held before is removed.  One
    line says whether an earlier notebook has been there.
    """
    base = _kept_file(name, frames).with_suffix("")
    folder = base.with_name(f"{base.name}-{keeping.frames_key(frames.table)[:8]}")
    for old in folder.parent.glob(f"{glob.escape(base.name)}-*"):
        if old != folder and old.is_dir():
            shutil.rmtree(old, ignore_errors=True)
    if folder.is_dir():
        _say(f"The {name}: made of these very frames before; taken from there.")
    else:
        _say(f"The {name}: none are kept of these frames yet, so they are made here.")
    return folder


def _save(name: str, result: Any, path: Path, key: str) -> Any:
    try:
        keeping.save(path, key, result)
    except WorkbenchError as problem:
        _say(f"The {name} is not kept: {problem}")
    return result


def _say(words: str) -> None:
    print(words)  # noqa: T201  a line below the cell, in the notebook and in a terminal


def _kept_file(name: str, frames: Folder) -> Path:
    """One file a name and folder: what is measured anew takes the place of what it was measured for before."""
    root = Path(frames.root).resolve()
    mark = hashlib.sha256(root.as_posix().encode()).hexdigest()[:8]
    return own_folder("measured", "notebooks/measured") / f"{name.replace(' ', '-')}-{root.name}-{mark}.npz"


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
    above = [pn.Row(*controls)] if controls else []
    words = pn.pane.Markdown(f"{caption} {label}", styles={"color": theme.MUTED}, width=_WIDTH, margin=(0, 10))
    bound = not isinstance(chart, (hv.core.Dimensioned, pn.viewable.Viewable))
    shown = pn.panel(pn.bind(fit, chart)) if bound else fit(chart)
    return pn.Column(*above, shown, words)


def fit(chart: Any) -> Any:
    """Make panels side by side a little smaller, so that two find room beside JupyterLab's list of files."""
    if not isinstance(chart, hv.Layout) or len(chart) < 2:
        return chart
    panels = []
    for panel in chart:
        sizes = hv.Store.lookup_options("bokeh", panel, "plot").kwargs
        smaller = {name: round(_BESIDE * sizes[name]) for name in ("width", "height") if sizes.get(name)}
        panels.append(panel.opts(**smaller, backend="bokeh", clone=True))
    return theme.layout(panels)


def chart_browser(result: Characterization, first: str = "iso-to-gain") -> pn.viewable.Viewable:
    """Choose one of the blog's charts that a characterization allows; it is drawn with its own caption.

    Parameters
    ----------
    result
        From `runs.characterize`.
    first
        The id of the chart to begin with, where it is allowed.
    """
    there = {one.title: one.id for one in REGISTRY.values() if not one.missing(result)}
    start = first if first in there.values() else next(iter(there.values()))
    menu = pn.widgets.Select(label="chart", options=there, value=start, width=420)
    drawn = pn.bind(lambda name: fit(REGISTRY[name].draw(result)), menu)
    caption = pn.bind(lambda name: REGISTRY[name].words(result).caption, menu)
    return pn.Column(menu, pn.panel(drawn), live_text(caption, color=theme.MUTED))


def live_text(words: Any, **styles: str) -> pn.widgets.StaticText:
    """Show a sentence that changes: a string, something bound to widgets or a reactive value; ``**bold**`` is bold.

    A widget, not a pane of Markdown: a pane that changes asks the network for its style sheets each time, even where
    Panel was told to bring them along (Panel 1.9, `inline=True`).
    """
    return pn.widgets.StaticText(value=pn.bind(_bold, words), width=_WIDTH - 40, styles={"font-size": "13px", **styles})


def _bold(words: str) -> str:
    """Turn the one mark that the course's live sentences use into HTML.

    Examples
    --------
    >>> _bold("You predicted **4 e⁻**.")
    'You predicted <b>4 e⁻</b>.'
    """
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", words)
