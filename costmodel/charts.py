"""Figures as plain plotly dicts, made from arrays. Nothing here imports plotly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from costmodel.architecture import Architecture
from costmodel.units import binary_bytes, tokens, workload

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""Of the Okabe-Ito colours those with a contrast of at least 3 on light and dark pages: four series at most."""
GREY = "#808080"
DASHES = ("solid", "dash", "dot", "dashdot")
CURVE_POINTS = 200


def cache_curves(models: Sequence[Architecture], context: int, batch: int = 1, view: str = "theory") -> dict[str, Any]:
    """Cache against context, log-log: one line a model, up to four, marked at `context` (tokens).

    Points are whole numbers of tokens, log-spaced from 1k to 1M, with the exact ends of sliding windows among them.

    >>> import costmodel as cm
    >>> cache_curves([cm.load("gpt2")], 4096)["data"][0]["name"]
    'GPT-2'
    """
    lines = [_line(model, place, batch, view) for place, model in enumerate(models[: len(COLOURS)])]
    ticks = [1 << power for power in range(10, 21, 2)]
    sizes = [1 << power for power in range(20, 50, 3)]
    marked = {
        "type": "line",
        "x0": context,
        "x1": context,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"dash": "dot", "color": GREY},
    }
    layout = {
        "xaxis": _log_axis("context, tokens", ticks, [tokens(tick) for tick in ticks]),
        "yaxis": _log_axis("cache", sizes, [binary_bytes(size) for size in sizes]),
        "legend": {"orientation": "h", "y": -0.25},
        "margin": {"l": 10, "r": 10, "t": 10, "b": 10},
        "hovermode": "x unified",
        "shapes": [marked],
        "uirevision": "cache",
    }
    return {"data": lines, "layout": layout}


def _log_axis(title: str, values: list[int], names: list[str]) -> dict[str, Any]:
    return {"type": "log", "title": {"text": title}, "tickvals": values, "ticktext": names}


def _line(model: Architecture, place: int, batch: int, view: str) -> dict[str, Any]:
    windows = [window for group in model.layers if group.mixer for window in group.mixer.windows]
    grid = np.geomspace(1 << 10, 1 << 20, CURVE_POINTS).round()
    contexts = np.unique(np.concatenate([grid, [window for window in windows if grid[0] <= window <= grid[-1]]]))
    values = model.cache_bytes(context=contexts, batch=batch, view=view)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": model.title,
        "x": contexts.tolist(),
        "y": values.tolist(),
        "text": [binary_bytes(value) for value in values],
        "hovertemplate": "%{text}",
        "line": {"color": COLOURS[place], "dash": DASHES[place], "width": 2.5},
    }


def cache_sentence(models: Sequence[Architecture], context: int, batch: int = 1, view: str = "theory") -> str:
    """What the chart shows, in words, made from the data: for a reader and as the chart's alternative text."""
    ranked = sorted((model.cache_bytes(context=context, batch=batch, view=view), model.title) for model in models)
    said = [f"{title} {binary_bytes(size)}" for size, title in ranked]
    (least, first), (most, last) = ranked[0], ranked[-1]
    ratio = f" {last} keeps {most / least:.3g} times as much as {first}." if least and len(ranked) > 1 else ""
    return f"{workload(batch, context)} ({view}): {', '.join(said)}.{ratio}"
