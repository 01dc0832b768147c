"""Figures of serving and its price: the Pareto front, bars of dollars, and what 10 % of each assumption changes."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, log10
from typing import Any

from costmodel.answers.offers import Offer
from costmodel.answers.promises import swing, usd
from costmodel.figures.drawing import Figure, as_figure, laid_out, log_axis, plotly_text, wrapped
from costmodel.figures.palette import GREY, SYMBOLS, colour
from costmodel.scenario import Scenario
from costmodel.units import quantity

MOST_POINTS = 300
MODES = ("colocated", "disaggregated")


def pareto(found: Offer, scenario: Scenario) -> Figure:
    """Tokens a second for a user against output tokens a second for a device, log-log: candidates that none beats in both.

    Coloured: those that keep the limits; grey: whatever the limits. Shaded: slower than the limit of time per token, and what
    would take more than the chosen devices for the traffic. The star is the best of the plan.
    """
    traces = [_all(_thinned(found.front))] if found.front else []
    for place, mode in enumerate(MODES):
        points = [point for point in _thinned(found.kept) if point["mode"] == mode]
        traces += [_points(points, f"{mode}, within the limits", colour(place), SYMBOLS[place])] if points else []
    traces += [_best(found)] if found.best else []
    across = [value for trace in traces for value in trace["x"]] or [1.0]
    up = [value for trace in traces for value in trace["y"]] or [1.0]
    low, high = (min(across) / 1.3, min(up) / 1.3), (max(across) * 1.3, max(up) * 1.3)
    shapes, notes = _limits(scenario, low, high)
    axes = {
        f"{axis}axis": log_axis(f"output tokens a second for a {whom}", steps(low[at], high[at]), lambda value: f"{value:,g}")
        | {"range": [log10(low[at]), log10(high[at])]}
        for at, (axis, whom) in enumerate((("x", "user"), ("y", "device")))
    }
    return as_figure(traces, laid_out("pareto", shapes=shapes, annotations=notes, **axes))


def steps(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, 20 ... within bounds.

    >>> steps(3, 60)
    [5.0, 10.0, 20.0, 50.0]
    """
    every = [step * 10.0**power for power in range(-9, 13) for step in (1, 2, 5)]
    return [value for value in every if low <= value <= high]


def _thinned(points: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    return points[:: -(-len(points) // MOST_POINTS) or 1]


def _all(points: Sequence[dict[str, Any]]) -> Figure:
    drawn = _points(points, "whatever the limits", GREY, "circle-open")
    return drawn | {"mode": "lines+markers", "line": {"color": GREY, "width": 1.5, "dash": "dot"}}


def _points(points: Sequence[dict[str, Any]], name: str, drawn: str, symbol: str) -> Figure:
    return {
        "type": "scatter", "mode": "markers", "name": name, "hoverinfo": "text",
        "x": [point["tokens_per_s_per_user"] for point in points],
        "y": [point["output_tokens_per_s_per_device"] for point in points],
        "hovertext": [_told(point) for point in points], "marker": {"color": drawn, "symbol": symbol, "size": 8},
    }  # fmt: skip


def _told(point: dict[str, Any]) -> str:
    return (
        f"{point['layout']}, {point['mode']}, batch {point['batch']:,}: {point['tokens_per_s_per_user']:.3g} tokens/s for a user, "
        f"{point['output_tokens_per_s_per_device']:,.4g} for a device, {quantity(point['tpot_s'], 's')} a token"
    )


def _best(found: Offer) -> Figure:
    best = found.best
    assert best is not None
    told = f"the plan's best: {best.devices:,} devices, {best.layout.name}, {best.mode}"
    return {
        "type": "scatter", "mode": "markers+text", "name": "the plan's best", "hoverinfo": "text",
        "x": [best.tokens_per_s_per_user], "y": [best.output_tokens_per_s_per_device],
        "text": [best.layout.name], "textposition": "top right", "hovertext": [told],
        "marker": {"color": colour(2), "symbol": "star", "size": 16},
    }  # fmt: skip


def _limits(scenario: Scenario, low: tuple[float, float], high: tuple[float, float]) -> tuple[list[Figure], list[Figure]]:
    """Shaded areas of what limits exclude, each with its words; those within sight."""
    shapes, notes = [], []
    least = 1 / scenario.tpot_s if scenario.tpot_s else 0.0
    if least > low[0]:
        shapes.append(_shade("x", low[0], min(least, high[0])))
        slower = f"slower than {quantity(scenario.tpot_s, 's')} a token"
        notes.append(NOTE | {"y": 0, "yref": "paper", "yanchor": "bottom", "text": slower})
    needed = scenario.requests_per_s * scenario.output / scenario.devices
    if needed > low[1]:
        shapes.append(_shade("y", low[1], min(needed, high[1])))
        more = f"takes more than {scenario.devices:,} devices"
        notes.append(NOTE | {"y": log10(min(needed, high[1])), "yanchor": "top", "text": more})
    return shapes, notes


def _shade(axis: str, start: float, end: float) -> Figure:
    other = "y" if axis == "x" else "x"
    return {
        "type": "rect", "layer": "below", "fillcolor": GREY, "opacity": 0.2, "line": {"width": 0},
        f"{axis}0": start, f"{axis}1": end, f"{other}0": 0, f"{other}1": 1, f"{other}ref": "paper",
    }  # fmt: skip


NOTE = {"x": 0, "xref": "paper", "xanchor": "left", "showarrow": False}
"""How words stand in a shaded area."""


def costs(rows: Sequence[dict[str, Any]], name: str = "model") -> Figure:
    """Dollars of a million tokens of prompts and of a million of outputs, stacked, a bar for each row that has a price.

    `name` is the column that tells rows apart.

    >>> row = {"model": "a", "title": "A", "usd_per_mtok_in": 0.1, "usd_per_mtok_out": 0.5}
    >>> [trace["x"] for trace in costs([row])["data"]]
    [[0.1], [0.5]]
    """
    priced = [row for row in rows if row["usd_per_mtok_out"] is not None]
    names = [plotly_text(row[name]) for row in priced]
    titles = [
        f"{wrapped(plotly_text(row['title']), 18)}<br>{usd(row['usd_per_mtok_in'])} in, {usd(row['usd_per_mtok_out'])} out"
        for row in priced
    ]
    traces = [
        {
            "type": "bar", "orientation": "h", "name": words, "y": names, "x": [row[key] for row in priced],
            "hovertext": [f"{plotly_text(row['title'])}, {words}: {usd(row[key])}" for row in priced], "hoverinfo": "text",
            "marker": _filled(place, pattern),
        }
        for place, (words, key, pattern) in enumerate(
            (("a million tokens in", "usd_per_mtok_in", ""), ("a million tokens out", "usd_per_mtok_out", "/"))
        )
    ]  # fmt: skip
    return as_figure(
        traces,
        laid_out(
            name, barmode="stack", height=150 + 56 * len(priced), legend=BELOW,
            yaxis={"autorange": "reversed", "automargin": True, "tickvals": names, "ticktext": titles},
            xaxis={"title": {"text": "dollars"}, "tickprefix": "$", "rangemode": "tozero"},
        ),
    ) if priced else as_figure([], laid_out(name))  # fmt: skip


def _filled(place: int, pattern: str) -> Figure:
    """A series' colour, with stripes on the second."""
    return {"color": colour(place), "pattern": {"shape": pattern, "fillmode": "overlay", "fgcolor": "#ffffff", "solidity": 0.12}}


BELOW = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"}
"""A legend above bars, whose number changes a figure's height."""


def tornado(sensitivity: Sequence[dict[str, Any]]) -> Figure:
    """What 10 % less and 10 % more of each assumption change in the cost of an output token, largest first.

    No bar: nothing meets the limits then.
    """
    rows = sorted(sensitivity, key=swing, reverse=True)
    traces = [
        {
            "type": "bar", "orientation": "h", "name": words, "y": [row["assumption"] for row in rows],
            "x": [row[key] if isfinite(row[key]) else None for row in rows],
            "text": [f"{row[key]:+.1%}" if isfinite(row[key]) else "nothing meets the limits" for row in rows],
            "textposition": "outside", "cliponaxis": False, "hovertemplate": "%{y}, " + words + ": %{text}<extra></extra>",
            "marker": _filled(place, pattern),
        }
        for place, (words, key, pattern) in enumerate(
            (("10 % less", "minus_10_percent", ""), ("10 % more", "plus_10_percent", "/"))
        )
    ]  # fmt: skip
    reach = max(map(swing, rows), default=0.0) * 1.35 or 0.1
    return as_figure(
        traces if rows else [],
        laid_out(
            "tornado", barmode="group", bargap=0.25, height=130 + 46 * len(rows), legend=BELOW,
            yaxis={"autorange": "reversed", "automargin": True},
            xaxis={"title": {"text": "change in the cost of a token"}, "tickformat": "+.0%", "range": [-reach, reach]},
        ),
    )  # fmt: skip
