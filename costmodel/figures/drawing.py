"""What every figure is made of: plain plotly dicts with a layout, logarithmic axes, and texts that plotly shows as they are."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import log10
from typing import Any

import numpy as np

from costmodel.units import quantity

Figure = dict[str, Any]
MAX_STORED = (1 << 63) - 1
"""The largest whole number that tables and JSON writers store."""


def as_figure(traces: list[Figure], layout: Figure) -> Figure:
    """A figure whose numbers any writer of JSON takes: whole numbers beyond 64 bits as doubles, as a browser has them."""
    for trace in traces:
        for axis in {"x", "y", "values"} & trace.keys():
            trace[axis] = [float(value) if isinstance(value, int) and abs(value) > MAX_STORED else value for value in trace[axis]]
    return {"data": traces, "layout": layout}


def laid_out(name: str, **own: Any) -> Figure:
    """A layout: the legend below, and a name that keeps a reader's zoom while numbers change."""
    return {
        "legend": {"orientation": "h", "y": -0.2, "x": 0},
        "margin": {"l": 10, "r": 10, "t": 20, "b": 10},
        "hovermode": "closest",
        "uirevision": name,
        **own,
    }


def log_axis(title: str, values: Sequence[float], named: Any) -> Figure:
    """A logarithmic axis with its ticks in words."""
    return {"type": "log", "title": {"text": title}, "tickvals": list(values), "ticktext": [named(value) for value in values]}


def round_ticks(values: Sequence[float], base: int = 10) -> list[float]:
    """Round numbers of a logarithmic axis around some values."""
    positive = [value for value in values if value > 0]
    if not positive:
        return []
    low, high = (int(np.floor(log10(f(positive)) / log10(base))) for f in (min, max))
    return [float(base**power) for power in range(low, high + 2)]


def dotted(x0: float, x1: float, y0: float, y1: float, drawn: str) -> Figure:
    """A dotted line as a shape."""
    return {"type": "line", "x0": x0, "x1": x1, "y0": y0, "y1": y1, "line": {"dash": "dot", "color": drawn, "width": 1.5}}


def plotly_text(text: str) -> str:
    """Text from a file as plotly shows it literally: it knows a few HTML tags.

    >>> plotly_text("<b>x")
    '&lt;b&gt;x'
    """
    return escape(text, quote=False)


def wrapped(text: str, width: int = 34) -> str:
    """A label in lines of about `width` characters.

    >>> wrapped("mixer gqa -> mla in 61 layers", 16)
    'mixer gqa -> mla<br>in 61 layers'
    """
    lines = [""]
    for word in text.split(" "):
        fits = len(lines[-1]) + len(word) < width or not lines[-1]
        lines = [*lines[:-1], f"{lines[-1]} {word}".strip()] if fits else [*lines, word]
    return "<br>".join(lines)


def seconds_text(value: float) -> str:
    """A tick of seconds."""
    return quantity(value, "s")
