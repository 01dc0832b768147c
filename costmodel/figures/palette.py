"""The one place for colours, dashes and symbols: readable on light and dark pages, and without telling colours apart."""

from __future__ import annotations

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""Of the Okabe-Ito colours those with a contrast of at least 3 on light and dark pages: four series at most."""
GREY = "#808080"
"""Everything that is not one of the four: yardsticks, limits, totals, the rest."""
DASHES = ("solid", "dash", "dot", "dashdot")
"""A series' dash, by its place."""
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross")
"""A series' marker, by its place."""


def colour(place: int) -> str:
    """The colour of a series by its place; the fifth and later are grey.

    >>> colour(0), colour(9)
    ('#0072B2', '#808080')
    """
    return COLOURS[place] if 0 <= place < len(COLOURS) else GREY


def contrast(one: str, other: str) -> float:
    """The contrast of two colours (#rrggbb), 1 to 21, as WCAG 2 defines it.

    >>> contrast("#000000", "#ffffff")
    21.0
    """
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(hexadecimal: str) -> float:
    channels = [int(hexadecimal[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
