"""What the live sliders draw: curves as JavaScript printed from the formulas themselves, for the dashboard and for exported pages.

Only expressions printed here become code; titles and other text travel as data.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from costmodel.answers.sentences import chart_words
from costmodel.architecture import Architecture
from costmodel.figures.palette import colour
from costmodel.scenario import WHAT, Scenario
from costmodel.units import MAX_WHOLE

DASHES = ("", "9 6", "3 4", "10 4 3 4")
"""SVG dashes of a series, by its place: the same as palette.DASHES names for plotly."""
LONGEST, MOST = 1 << 20, 1 << 12


@cache
def asset(name: str) -> str:
    """The text of live.js or live.css."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def live_chart(
    models: Sequence[Architecture], scenario: Scenario, yardstick: Architecture | None = None, quantity: str = "cache_bytes"
) -> dict[str, Any]:
    """The data of one live chart: a quantity of up to four models, and the yardstick in grey, over the context.

    >>> import costmodel as cm
    >>> live_chart([cm.load("deepseek-v3")], Scenario())["series"][0]["code"]
    '70272*batch*context'
    """
    series = [_series(model, scenario, quantity, place) for place, model in enumerate(models)]
    if yardstick is not None and yardstick not in models:
        series.append(_series(yardstick, scenario, quantity, -1))
    unit = "bytes" if quantity == "cache_bytes" else "FLOP"
    return {
        "series": series,
        "sliders": [
            _slider("context", "Context", 1 << 10, max(LONGEST, scenario.context), scenario.context, 128),
            _slider("batch", "Sequences", 1, max(MOST, scenario.batch), scenario.batch, 1),
        ],
        "over": "context",
        "unit": unit,
        "units": scenario.units,
        "title": WHAT[quantity],
        "words": chart_words(models, scenario) if quantity == "cache_bytes" else f"{WHAT[quantity]} against context.",
    }


def _series(model: Architecture, scenario: Scenario, quantity: str, place: int) -> dict[str, Any]:
    formula = scenario.formula(model, quantity)
    return {
        "title": model.title,
        "colour": colour(place),
        "dash": DASHES[place % len(DASHES)] if place >= 0 else "",
        "code": formula.javascript,
        "needs": list(formula.inputs),
    }


def _slider(name: str, label: str, low: int, high: int, value: int, step: int) -> dict[str, Any]:
    """A slider with logarithmic places; it stops at multiples of `step`."""
    start = min(max(value, low), min(high, MAX_WHOLE))
    return {
        "name": name,
        "label": label,
        "low": low,
        "high": high,
        "value": start,
        "step": step,
        "help": f"{label}: drag, or use the arrow keys",
    }
