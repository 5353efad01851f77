"""What a page is shown on: its width, light or dark; and drawings that suit both."""

from __future__ import annotations

import asyncio
from typing import Any

import panel as pn
import param

from ..export.pages import DARK, say_colours

DESK = 1200  # width of a page that has not told its own [px]
_BESIDE = 46  # margins left and right of a drawing [px]
_AXIS = 76  # left of a picture [px]
_LEAST = 240  # width of a drawing on the narrowest screen [px]
_LIGHT = {dark: light for light, dark in reversed(DARK.items())}


class Screen(pn.custom.JSComponent):
    """Tells the width of the page and whether its reader prefers it dark; takes no room itself."""

    width = param.Integer(default=0, doc="Of the page [px]; 0 until it is known.")
    dark = param.Boolean(default=False, doc="Whether the reader's system asks for dark pages.")

    _esm = """
    export function render({model}) {
      const prefers = window.matchMedia('(prefers-color-scheme: dark)');
      const look = () => {
        model.dark = prefers.matches;
        model.width = document.documentElement.clientWidth;
      };
      look();
      const tabs = [...document.querySelectorAll('*')].find((one) => one.shadowRoot?.querySelector('.bk-header'));
      tabs?.shadowRoot.prepend(tabs.shadowRoot.querySelector('.bk-header'));  // the keyboard meets the tabs first
      prefers.addEventListener('change', look);
      window.addEventListener('resize', look);
      return document.createElement('span');
    }
    """

    async def known(self, patience: float = 3.0) -> None:
        """Wait until the browser has told, or for so many seconds."""
        for _ in range(round(patience / 0.05)):
            if self.width:
                return
            await asyncio.sleep(0.05)

    @property
    def narrow(self) -> bool:
        """Tell whether two drawings find no room beside each other."""
        return 0 < self.width < 760

    def fit(self, width: int, axis: bool = True) -> int:
        """Return the width of a picture [px]: as asked, or what the screen has room for."""
        room = (self.width or DESK) - _BESIDE - (_AXIS if axis else 0)
        return max(_LEAST, min(width, room))


class Drawing(pn.pane.HoloViews):
    """A chart or live picture in the colours of the page, no wider than the page where it may choose."""

    screen = param.ClassSelector(class_=Screen, doc="What it is shown on.")

    def __init__(self, shown: Any = None, **params: Any) -> None:
        super().__init__(shown, backend="bokeh", linked_axes=False, center=False, **params)
        if self.screen is not None:
            self.screen.param.watch(lambda _: self._recolour(), "dark")

    def _get_model(self, doc: Any, root: Any = None, parent: Any = None, comm: Any = None) -> Any:
        model = super()._get_model(doc, root, parent, comm)
        if self.screen is not None:
            _fit(model, self.screen)
            say_colours(model)
            recolour(model, self.screen.dark)
        return model

    def _recolour(self) -> None:
        for plot, _ in self._plots.values():
            recolour(plot.state, self.screen.dark)


def _fit(model: Any, screen: Screen) -> None:
    """Narrow the figures that have a width of their own to the screen."""
    from bokeh.models import Plot

    room = screen.fit(10_000, axis=False)
    for part in model.references():
        if isinstance(part, Plot) and part.frame_width is None and part.width is not None and part.width > room:
            part.width = room


def recolour(model: Any, dark: bool) -> None:
    """Change the house colours of a drawing for what stands in for them on a dark page, or back.

    Examples
    --------
    >>> from bokeh.models import Title
    >>> title = Title(text="Gain", text_color="#1f2933")
    >>> recolour(title, dark=True)
    >>> title.text_color
    '#e4eaf0'
    >>> recolour(title, dark=False)
    >>> title.text_color
    '#1f2933'
    """
    colours = DARK if dark else _LIGHT
    for part, name, value in _coloured(model, colours):
        setattr(part, name, _translated(value, colours))


def _coloured(model: Any, colours: dict[str, str]) -> list[tuple[Any, str, Any]]:
    """Return what in a drawing has one of the colours: model, property, value."""
    found = []
    for part in model.references():
        for name, value in part.properties_with_values(include_defaults=False, include_undefined=False).items():
            if "color" in name and _translated(value, colours) is not value:
                found.append((part, name, value))
    return found


def _translated(value: Any, colours: dict[str, str]) -> Any:
    """Return what stands in for a colour, or a colour given as a value to every point; else the same."""
    from bokeh.core.property.vectorization import Value

    if isinstance(value, str):
        return colours.get(value.lower(), value)
    if isinstance(value, Value) and isinstance(value.value, str) and value.value.lower() in colours:
        return Value(colours[value.value.lower()])
    return value
