"""What the course asks: predictions to commit to, and exercises that check the answer.

Each works in a notebook without a network.  What a control shows is computed by a plain method, so that it can be
tested without a browser.
"""

from __future__ import annotations

import html
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import panel as pn
import param

from workbench.app.live_charts import live_text
from workbench.charts import theme
from workbench.core.errors import WorkbenchError
from workbench.core.values import value_text
from workbench.ingest.folder import Folder

from .presentation import FITS, in_words_for

_NOT_MEASURED = "These frames do not allow the measurement; the warnings say what to shoot."
_CARD = {"border": f"1px solid {theme.GRID}", "border-radius": "6px", "padding": "6px 14px"}


class Prediction(pn.viewable.Viewer):
    """A guess that the reader commits to before the measurement; `predict` makes one.

    `value` is the value of the control, `committed` whether the reader has pressed the button.
    """

    value = param.Parameter()
    committed = param.Boolean(False)

    def __init__(
        self, question: str, options: Mapping[str, float] | None, bounds: tuple[float, float, float] | None, unit: str
    ) -> None:
        super().__init__()
        self.question, self.options, self.bounds, self.unit = question, options, bounds, unit
        if options is not None:
            self._control: Any = pn.widgets.RadioBoxGroup(
                options={"not decided yet": None, **options}, value=None, sizing_mode="stretch_width"
            )
        else:
            low, high, step = bounds
            self._control = pn.widgets.FloatSlider(
                label=f"prediction [{unit}]" if unit else "prediction", start=low, end=high, step=step,
                value=low + step * round((high - low) / 2 / step), max_width=320, sizing_mode="stretch_width",
            )  # fmt: skip
        self._button = pn.widgets.Button(
            label="This is my prediction", color="primary", width=180, css_classes=["with-python"]
        )
        self._button.on_click(lambda _: self.commit(self._control.value))

    def commit(self, value: float) -> None:
        """Commit to the prediction, as the button does; None is ignored."""
        if value is None:
            return
        self._control.value = self.value = value
        self.committed = True
        self._control.disabled = self._button.disabled = True
        self._button.label = "Committed"

    def __panel__(self) -> pn.viewable.Viewable:
        return pn.Column(
            pn.pane.Markdown(f"**{self.question}**", margin=(4, 10)),
            _with_button(self._control, self._button),
            styles=_CARD, **FITS,
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
        words.css_classes = drawn.css_classes = ["with-python"]
        answer = live_text(self.answer(measured, error))
        answer.param.update(css_classes=["without-python"], visible=False)
        return pn.Column(words, drawn, answer, styles=_CARD, **FITS)

    def answer(self, measured: float, error: float) -> str:
        """Return the measurement alone, for pages where nobody can commit to a prediction."""
        if not math.isfinite(measured):
            return _NOT_MEASURED
        text = f"Measured: **{value_text(measured, error, self.unit)}**."
        return text if self.options is None else f"{text} So the answer is **{self._nearest(measured)}**."

    def number_line(self, measured: float, error: float = math.nan) -> str:
        """Draw a predicted number and the measurement on one scale, as SVG; empty where there is none."""
        if not self.committed or self.bounds is None or not math.isfinite(measured):
            return ""
        guess, unit = self.value, html.escape(self.unit)
        low, high = min(*self.bounds[:2], measured), max(*self.bounds[:2], measured)
        x, y = (40 + 640 * (value - low) / (high - low) for value in (guess, measured))
        reach = 640 * (error if math.isfinite(error) else 0.0) / (high - low)
        blue, orange = theme.SERIES[:2]
        return (
            f'<svg role="img" aria-label="prediction {guess:g}, measured {measured:.4g} {unit}" width="720" '
            'viewBox="0 0 720 84" style="max-width:100%;height:auto" '
            f'font-family="{theme.FONT.replace(chr(34), chr(39))}" font-size="12">'
            f'<line x1="40" x2="680" y1="42" y2="42" stroke="{theme.MUTED}"/>'
            f'<text x="40" y="64" text-anchor="middle" fill="{theme.MUTED}">{low:,g}</text>'
            f'<text x="680" y="64" text-anchor="middle" fill="{theme.MUTED}">{high:,g} {unit}</text>'
            f'<path d="M{x:.1f} 34 l8 8 l-8 8 l-8 -8 z" fill="{theme.PAPER}" stroke="{orange}" stroke-width="2"/>'
            f'<text x="{x:.1f}" y="22" text-anchor="middle" fill="{orange}">your prediction</text>'
            f'<line x1="{y - reach:.1f}" x2="{y + reach:.1f}" y1="42" y2="42" stroke="{blue}" stroke-width="4"/>'
            f'<circle cx="{y:.1f}" cy="42" r="5" fill="{blue}"/>'
            f'<text x="{y:.1f}" y="80" text-anchor="middle" fill="{blue}">measured</text></svg>'
        )

    def verdict(self, measured: float, error: float = math.nan) -> str:
        """Describe how the prediction compares with the measurement.

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
            return _NOT_MEASURED
        if self.options is not None:
            return self._chosen(measured, error)
        text = (
            f"You predicted **{self.value:,g} {self.unit}**. Measured: **{value_text(measured, error, self.unit)}**. "
        )
        if (error > 0 and abs(self.value - measured) <= error) or math.isclose(self.value, measured, rel_tol=0.03):
            return text + "That is right."
        share = self.value / measured if measured else math.inf
        if share > 2 or share < 0.5:
            factor = max(share, 1 / share) if share > 0 else math.inf
            size = f"{factor:.2g} times" if math.isfinite(factor) and factor < 1e4 else "far"
        else:
            size = f"{100 * abs(share - 1):.0f} %"
        return text + f"Your prediction is {size} too {'high' if self.value > measured else 'low'}."

    def _chosen(self, measured: float, error: float) -> str:
        chosen = next(name for name, value in self.options.items() if value == self.value)
        if chosen == self._nearest(measured):
            return f"You predicted **{chosen}**. Measured: **{value_text(measured, error, self.unit)}**. That is right."
        return f"You predicted **{chosen}**. {self.answer(measured, error)}"

    def _nearest(self, measured: float) -> str:
        """Return the option that is nearest by ratio, as all options are positive factors."""
        return min(
            self.options,
            key=lambda name: abs(math.log(self.options[name] / measured)) if measured > 0 else self.options[name],
        )


def predict(
    question: str,
    *,
    options: Mapping[str, float] | None = None,
    low: float = 0.0,
    high: float = 1.0,
    step: float = 0.1,
    unit: str = "",
    frames: Folder | None = None,
) -> Prediction:
    """Ask the reader for a prediction: a choice (name → the value it stands for) or a slider from low to high.

    The values of a choice are positive; the one nearest to the measurement, by ratio, counts as right.  Of `frames` of
    a camera with gain settings question and unit speak of these in place of the ISO.

    Raises
    ------
    WorkbenchError
        If the options do not stand for positive numbers, or the slider has no range.
    """
    if options is not None and not all(value > 0 for value in options.values()):
        raise WorkbenchError(f"the options of a prediction stand for positive numbers, not {list(options.values())}")
    if options is None and not (low < high and step > 0):
        raise WorkbenchError(f"a prediction needs a range to choose from, not low {low}, high {high}, step {step}")
    question, unit = (in_words_for(frames, text) for text in (question, unit))
    return Prediction(question, options, None if options is not None else (low, high, step), unit)


# in the page itself, so that a busy kernel, or none, makes no difference
_GIVEN = """
const choice = box.labels ? box.labels[box.active] : null
const text = choice ?? (box.value_input ?? box.value ?? '').trim()
"""
_CHECK = f"""{_GIVEN}
const plain = text.replace(/\\s/g, '').replace('−', '-')  // 3,041 may be a decimal or thousands: whichever fits
const readings = choice ? [choice] : [plain.replaceAll(',', ''), plain.replace(',', '.')].map(Number)
const near = (given, wanted) => tolerance * Math.max(Math.abs(given), Math.abs(wanted))
const same = wanted => readings.some(given => given === wanted || Math.abs(given - wanted) <= near(given, wanted))
const safe = text.replace(/[&<]/g, sign => sign === '&' ? '&amp;' : '&lt;')
if (text === '' || box.labels && box.active < 1) out.text = 'Give an answer first.'
else if (!choice && readings.every(Number.isNaN)) out.text = `“${{safe}}” is not a number.`
else out.text = `<b>${{choice ?? safe + unit}}:</b> ` + (verdicts.find(([wanted]) => same(wanted)) ?? [0, otherwise])[1]
out.tags = [text]
out.visible = true
"""
_CHANGED = f"{_GIVEN} out.visible = out.tags[0] === text"


class Exercise(pn.viewable.Viewer):
    """A question whose answer the page checks: right, or a hint; the verdict names the answer that it judges.

    Enter and the button check.  A verdict goes when the answer changes.
    """

    question = param.String(doc="What is asked.")
    answer = param.Parameter(doc="A number in that unit, or one of the options.")
    because = param.String(doc="Why the right answer is right.")
    hint = param.String(doc="Shown after a wrong answer.")
    mistakes = param.List(doc="Hints for particular wrong answers: pairs (answer, hint).")
    unit = param.String(doc="Of the answer.")
    tolerance = param.Number(0.02, doc="Relative, of a number.")
    options = param.List(doc="To choose from.")

    def __init__(self, question: str, answer: float | str, **params: Any) -> None:
        super().__init__(question=question, answer=answer, **params)

    def __panel__(self) -> pn.viewable.Viewable:
        if self.options:
            choices = {"not decided yet": None, **{name: name for name in self.options}}
            box: Any = pn.widgets.RadioBoxGroup(options=choices, value=None, sizing_mode="stretch_width")
        else:
            box = pn.widgets.TextInput(label=f"your answer [{self.unit}]" if self.unit else "your answer", width=180)
        button = pn.widgets.Button(label="Check", color="primary", width=90)
        out = pn.widgets.StaticText(value="", visible=False, css_classes=["verdict"], sizing_mode="stretch_width")
        verdicts = [
            [self.answer, f"<b>Right.</b> {self.because}"],
            *([x, f"Not yet. {hint}"] for x, hint in self.mistakes),
        ]
        known = {"box": box, "out": out, "verdicts": verdicts, "otherwise": f"Not yet. {self.hint}"}
        known |= {"tolerance": self.tolerance, "unit": f" {self.unit}" if self.unit else ""}
        button.js_on_click(args=known, code=_CHECK)
        box.jscallback(args=known, **{"value" if self.options else "value_input": _CHANGED})
        if not self.options:
            box.jscallback(args=known, **{"event:value_submit": _CHECK})
        return pn.Column(
            pn.pane.Markdown(self.question, margin=(4, 10)), _with_button(box, button), out, styles=_CARD, **FITS,
        )  # fmt: skip


def _with_button(control: Any, button: Any) -> pn.viewable.Viewable:
    """Put the button below the last option, or next to a slider or a number."""
    if isinstance(control, pn.widgets.RadioBoxGroup):
        return pn.Column(control, button)
    button.align = "end"
    return pn.FlexBox(control, button)


def exercise(name: str) -> Exercise:
    """Return one of the course's exercises, from ``exercises.toml`` in this folder.

    Raises
    ------
    WorkbenchError
        If the name is unknown.
    """
    known = exercises()
    if name not in known:
        raise WorkbenchError(f"unknown exercise {name!r}; the exercises are {', '.join(known)}")
    return known[name]


def exercises() -> dict[str, Exercise]:
    """Return all exercises of the course by their names, each one new."""
    content = tomllib.loads(Path(__file__).with_name("exercises.toml").read_text(encoding="utf-8"))
    return {name: Exercise(**one) for name, one in content.items()}
