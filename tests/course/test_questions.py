"""Predictions and exercises say what is true; every exercise of the course can be answered."""

import math
import re
from pathlib import Path

import course
import nbformat
import pytest

from workbench.core.errors import WorkbenchError

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def slider():
    return course.predict("How much?", low=0, high=10, step=0.5, unit="K")


def choice():
    return course.predict("How much more?", options={"half": 0.5, "the same": 1, "twice": 2})


def test_nothing_is_compared_before_the_reader_commits():
    assert "not committed" in slider().verdict(6.0, 0.1)
    prediction = choice()
    prediction.commit(None)  # "not decided yet"
    assert not prediction.committed


def test_a_page_without_python_can_state_the_answer_alone():
    assert slider().answer(6.0, 0.1) == "Measured: **6.00 ± 0.10 K**."
    assert choice().answer(1.9, 0.1).endswith("So the answer is **twice**.")
    assert "do not allow" in choice().answer(math.nan, math.nan)
    assert not choice().against(1.9)[-1].visible


def test_the_button_commits_what_the_control_shows_and_only_once():
    prediction = slider()
    prediction._control.value = 4.0
    prediction._button.clicks += 1
    assert (prediction.committed, prediction.value) == (True, 4.0)
    assert prediction._control.disabled
    assert prediction._button.disabled


@pytest.mark.parametrize(
    ("guess", "measured", "error", "words"),
    [
        (6.0, 6.1, 0.2, "That is right."),
        (6.0, 6.01, math.nan, "That is right."),
        (5.0, 6.25, 0.01, "20 % too low"),
        (7.5, 6.0, 0.01, "25 % too high"),
        (9.0, 3.0, 0.01, "3 times too high"),
        (1.0, 8.0, 0.01, "8 times too low"),
        (0.0, 8.0, 0.01, "far too low"),
    ],
)
def test_a_number_is_set_against_the_measurement(guess, measured, error, words):
    prediction = slider()
    prediction.commit(guess)
    said = prediction.verdict(measured, error)
    assert words in said
    assert f"**{guess:g} K**" in said


@pytest.mark.parametrize(("guess", "words"), [(2, "That is right."), (0.5, "So the answer is **twice**.")])
def test_a_choice_is_judged_by_the_measurement(guess, words):
    prediction = choice()
    prediction.commit(guess)
    assert words in prediction.verdict(1.9, 0.1)


def test_frames_that_give_no_measurement_are_no_mistake_of_the_reader():
    prediction = slider()
    prediction.commit(5)
    assert "do not allow" in prediction.verdict(math.nan)


def test_the_comparison_appears_when_the_reader_commits_after_measuring():
    prediction = slider()
    words, drawn, _ = prediction.against(6.0, 0.1)
    assert "not committed" in words.value
    assert drawn.value == ""
    prediction.commit(4.0)
    assert "Measured: <b>6.00 ± 0.10 K</b>" in words.value
    assert "measured 6 K" in drawn.value  # the number line, for those who hear it


def test_impossible_questions_are_refused():
    with pytest.raises(WorkbenchError, match="positive"):
        course.predict("?", options={"none": 0.0})
    with pytest.raises(WorkbenchError, match="range"):
        course.predict("?", low=1, high=1)
    with pytest.raises(WorkbenchError, match="unknown exercise"):
        course.exercise("99 what")


@pytest.mark.parametrize("name", sorted(course.exercises()))
def test_a_mistake_is_not_the_answer(name):
    one = course.exercise(name)
    assert not one.options or one.answer in one.options
    for wrong, hint in one.mistakes:
        assert hint
        assert wrong in one.options if one.options else abs(wrong - one.answer) > one.tolerance * abs(one.answer)


def test_every_notebook_sets_exercises_and_every_exercise_is_set_once():
    told = [
        re.findall(r'course\.exercise\("([^"]+)"\)', "\n".join(cell.source for cell in nbformat.read(path, 4).cells))
        for path in NOTEBOOKS
    ]
    assert min(map(len, told)) >= 2
    assert sorted(name for names in told for name in names) == sorted(course.exercises())
