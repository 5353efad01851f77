"""The main control of each notebook, and how a reader moves it."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Locator

from .jupyter import Lab


def slide(key: str = "ArrowRight", times: int = 1, nth: int = 0) -> Callable[[Locator], None]:
    """Move a slider with a key, so many times."""

    def move(cell: Locator) -> None:
        for _ in range(times):
            cell.locator(".noUi-handle").nth(nth).press(key)

    return move


def press(words: str) -> Callable[[Locator], None]:
    """Press the button of a group that says so."""
    return lambda cell: cell.get_by_role("button", name=words, exact=True).first.click()


def choose(nth: int) -> Callable[[Locator], None]:
    """Choose another line of a menu."""
    return lambda cell: cell.locator("select").first.select_option(index=nth)


def untick(nth: int = -1) -> Callable[[Locator], None]:
    """Take a tick away."""
    return lambda cell: cell.locator("input[type=checkbox]").nth(nth).uncheck()


# a notebook: what the cell of its main control contains, and the move
MOVES: dict[str, tuple[str, Callable[[Locator], None]]] = {
    "00-start-here": ("course.browse_frames", press("flat")),
    "01-shot-noise-and-a-simulated-camera": ("course.virtual_exposure", slide()),
    "02-bias-and-read-noise": ("course.bias_average", slide(times=3)),
    "03-gain-against-iso": ("course.ptc_explorer(ptc)", choose(3)),
    "04-dark-current-and-time": ("course.dark_growth", untick()),
    "05-dark-current-and-temperature": ("course.doubling_law", untick()),
    "06-uniformity": ("course.spread_of_mean", slide(times=3)),
    "07-is-my-raw-raw": ("course.codes_after_multiplying", slide()),
    "08-masters": ("course.master_noise(found", press("bias frames")),
    "09-calibrate-lights": ("course.warm_light(*chosen)", slide()),
    "10-align": ("course.alignment_residuals", choose(2)),
    "11-stack": ("course.pixel_explorer", slide(times=3)),
    "12-background-and-colour": ("course.background_explorer", slide("ArrowLeft", times=4)),
    "13-stretch-and-finish": ("course.stretch_explorer", slide(times=3)),
    "14-plan-the-next-night": ("course.sub_length_explorer", slide()),
    "15-a-real-night": ("course.browse_frames", slide()),
    "16-photometry": ("course.aperture_explorer", slide("ArrowLeft")),
}


def move_the_main_control(lab: Lab, notebook: str) -> bool:
    """Move a notebook's main control as a reader does; returns whether a figure then shows other numbers."""
    text, move = MOVES[notebook]
    cell = lab.show(text)
    before = lab.settled()
    move(cell)
    return lab.settled(before) != before


def move_every_control(lab: Lab) -> int:
    """Move every control of a notebook once; returns how many there are."""
    moved = 0
    for number, (kind, _) in enumerate(lab.cells):
        if kind != "code":
            continue
        cell = lab.cell(number)
        groups = (
            (".noUi-handle, input[type=range]", lambda one: one.press("ArrowRight")),
            ("select", lambda one: one.select_option(index=one.locator("option").count() - 1)),
            ("input[type=checkbox]", lambda one: one.click()),
            (".bk-btn:not([disabled])", lambda one: one.click()),
        )
        for selector, move in groups:
            for one in cell.locator(selector).all():
                if one.is_visible() and one.is_enabled():
                    move(one)
                    moved += 1
                    lab.page.wait_for_timeout(150)
        lab.settled(seconds=20)
    return moved
