"""Colours and type of every chart."""

import numpy as np

INK, MUTED, GRID, PAPER = "#1f2933", "#5b6875", "#e4e9ee", "#ffffff"
REFERENCE, UNUSED = "#b07d2b", "#aab4be"

CHANNEL_COLOUR = {"R": "#d55e00", "G1": "#009e73", "G2": "#8bc34a", "B": "#0072b2", "mono": "#4d4d4d"}
KIND_COLOUR = {"light": "#e69f00", "dark": "#54478c", "bias": "#cc79a7", "flat": "#56b4e9"}
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#54478c", "#6b6b6b")

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

_RAMP = ("#3b0f8f", "#8c2981", "#c8456c", "#ee7b51", "#e9ae2f")  # cold to warm, darker to lighter


def ramp(count: int) -> list[str]:
    """Return colours from cold to warm for ordered series, such as temperatures.

    Examples
    --------
    >>> ramp(3)
    ['#3b0f8f', '#c8456c', '#e9ae2f']
    """
    stops = np.array([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in _RAMP])
    places = np.linspace(0, len(_RAMP) - 1, count)
    mixed = [np.interp(places, np.arange(len(_RAMP)), stops[:, part]).round().astype(int) for part in range(3)]
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in zip(*mixed, strict=True)]
