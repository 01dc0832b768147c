"""Figures as plain plotly dicts, made from arrays. Nothing here imports plotly.

At most four series of a figure are coloured (palette.py), others are grey; dashes, symbols and labels at line ends
tell series apart without colour. `table_rows` gives the numbers of any of these figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from html import unescape
from math import log10
from typing import Any

import numpy as np

from costmodel.answers.anatomy import layer_runs
from costmodel.answers.landscape import AXES, BATCHES, frontier, touched_rows
from costmodel.architecture import Architecture
from costmodel.blocks.base import Keeping
from costmodel.figures.drawing import (
    Figure,
    as_figure,
    dotted,
    laid_out,
    log_axis,
    plotly_text,
    round_ticks,
    seconds_text,
    wrapped,
)
from costmodel.figures.palette import COLOURS, DASHES, GREY, SYMBOLS, colour
from costmodel.hardware import Accelerator
from costmodel.scenario import WHAT, Scenario
from costmodel.units import count, quantity, tokens

SHORTEST, LONGEST = 1 << 10, 1 << 20
CURVE_POINTS = 200
LABEL_GAP = 0.19
"""Decades that a line of a label at a curve's end takes, so that labels do not lie on each other."""
LABEL_MARGIN = 96
"""Pixels to the right of a chart for the labels at its curves' ends."""
FAMILY_PLACES = {Keeping.STATE: 2, Keeping.LATENT: 0, Keeping.WINDOW: 1, Keeping.NOTHING: 4, Keeping.FULL: -2}
"""The colour of each kind of cache: full attention, the yardstick, is grey."""


def cache_curves(models: Sequence[Architecture], scenario: Scenario, yardstick: Architecture | None = None) -> Figure:
    """Cache against context, log-log: one line a model, up to four, and the yardstick in grey.

    Points are whole numbers of tokens, log-spaced from 1k to 1M, with the exact ends of sliding windows among them;
    those are marked. A dashed level is the memory that a model's weights leave on the chosen devices, and where a
    line meets it stands the longest context; both only where they are in sight.

    >>> import costmodel as cm
    >>> cache_curves([cm.load("gpt2")], Scenario())["data"][0]["name"]
    'GPT-2'
    """
    yardstick = None if yardstick in models else yardstick
    shown = [*models[: len(COLOURS)], *([yardstick] if yardstick else [])]
    lines = [_curve(model, colour(-1 if model is yardstick else place), place, scenario) for place, model in enumerate(shown)]
    kept = [value for line in lines for value in line["y"] if value] or [1]  # without mixers nothing is kept: a log has no zero
    low, high = min(kept), max(kept)
    extras, shapes, notes = [], [_upright(scenario.context)], _end_labels(lines)
    for model, line in zip(shown, lines, strict=True):
        extras += _kinks(model, line, scenario)
        if model is not yardstick:
            level = _memory(model, line, scenario, high)
            extras, shapes = extras + level[0], shapes + level[1]
    every = max(1, round((log10(high) - log10(low)) / log10(2) / 5))
    sizes = [1 << power for power in range(0, 70, every) if low / 2 <= 1 << power <= high * 2]
    layout = laid_out(
        "cache",
        xaxis=log_axis("context, tokens", [1 << power for power in range(10, 21, 2)], tokens)
        | {"range": [log10(SHORTEST) - 0.03, log10(LONGEST) + 0.03]},
        yaxis=log_axis("cache", sizes, lambda size: quantity(size, "bytes", scenario.units)),
        shapes=shapes, annotations=notes, margin={"l": 10, "r": LABEL_MARGIN, "t": 20, "b": 10},
    )  # fmt: skip
    return as_figure(lines + extras, layout)


def _curve(model: Architecture, drawn: str, place: int, scenario: Scenario) -> Figure:
    grid = np.geomspace(SHORTEST, LONGEST, CURVE_POINTS).round()
    contexts = np.unique(np.concatenate([grid, [scenario.context], _windows(model)]))
    values = scenario.kept(model)(context=contexts, batch=scenario.batch)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": plotly_text(model.title),
        "x": contexts.tolist(),
        "y": values.tolist(),
        "text": [quantity(value, "bytes", scenario.units) for value in values],
        "hovertemplate": "%{text}",
        "line": {"color": drawn, "dash": DASHES[place % len(DASHES)], "width": 2.5},
    }


def _windows(model: Architecture) -> list[int]:
    windows = {window for group in model.layers if group.mixer for window in group.mixer.windows}
    return sorted(window for window in windows if SHORTEST <= window <= LONGEST)


def _kinks(model: Architecture, line: Figure, scenario: Scenario) -> list[Figure]:
    """Marks where a window is full and the line bends."""
    return [
        {
            **_mark([window], [scenario.kept(model)(context=window, batch=scenario.batch)], line["line"]["color"], "circle-open"),
            "name": f"{line['name']}: window",
            "text": [f"{line['name']}: its window of {window:,} tokens is full"],
        }
        for window in _windows(model)
    ]


def _mark(x: list[Any], y: list[Any], drawn: str, symbol: str) -> Figure:
    return {
        "type": "scatter", "mode": "markers", "x": x, "y": y, "showlegend": False, "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": drawn, "symbol": symbol, "size": 10},
    }  # fmt: skip


def _memory(model: Architecture, line: Figure, scenario: Scenario, high: float) -> tuple[list[Figure], list[Figure]]:
    """The level of the memory left for the cache, and the longest context on it."""
    room = scenario.room(model)
    left, longest = room.memory_bytes - room.weight_bytes, room.longest_context
    if longest is None or not SHORTEST <= longest <= LONGEST or left > 8 * high:
        return [], []
    level = dotted(SHORTEST, LONGEST, left, left, line["line"]["color"])
    end = {
        **_mark([longest], [left], line["line"]["color"], "x"),
        "mode": "markers+text",
        "name": f"{line['name']}: max context",
        "text": [f"max context {longest:,}"],
        "textposition": "top left",
    }
    return [end], [level]


def _upright(x: float) -> Figure:
    return {**dotted(x, x, 0, 1, GREY), "yref": "paper"}


def _end_labels(lines: Sequence[Figure]) -> list[Figure]:
    """A label at each line's end, one for lines that end together, pushed apart upwards where they are close."""
    ends: dict[float, list[Figure]] = {}
    for line in lines:
        ends.setdefault(line["y"][-1], []).append(line)
    labels, taken = [], -1e9
    for value, together in sorted((value, ending) for value, ending in ends.items() if value):
        text = wrapped(", ".join(line["name"] for line in together), 14)
        half = LABEL_GAP * (1 + text.count("<br>")) / 2
        place = max(log10(value), taken + half)
        taken = place + half
        labels.append(
            {
                "x": 1, "xref": "paper", "y": place, "xanchor": "left", "yanchor": "middle", "align": "left", "showarrow": False,
                "text": text, "font": {"color": together[0]["line"]["color"], "size": 12},
            }
        )  # fmt: skip
    return labels


def landscape(rows: Sequence[dict[str, Any]], against: str, along: str, scenario: Scenario, chosen: Sequence[str] = ()) -> Figure:
    """Every model as a point: `against` (a key of `AXES`) over its size (`along` size) or its release date (`along` date).

    Coloured by what its layers keep; named where chosen or on the frontier, which is drawn: the models that no larger
    one undercuts. `customdata` of a point is the model's name.
    """
    unit, best = AXES[against], {row["name"] for row in frontier(rows, against)}
    along_dates = along == "date"
    placed = [row for row in rows if row["released"] or not along_dates]
    named = _apart([row for row in placed if row["name"] in {*best, *chosen}], against, along_dates, chosen)
    traces = []
    for kind, place in FAMILY_PLACES.items():
        of_kind = [row for row in placed if row["keeps"] == kind]
        if of_kind:
            traces.append(_family(of_kind, str(kind), place, against, unit, along_dates, scenario, named))
    if not along_dates:
        edge = frontier(rows, against)
        drawn = {
            "type": "scatter",
            "mode": "lines",
            "name": "frontier: larger, and cheaper than all larger ones",
            "hoverinfo": "skip",
        }
        where = {"x": [row["params_total"] for row in edge], "y": [row[against] for row in edge]}
        traces.insert(0, {**drawn, **where, "line": {"color": GREY, "dash": "dot", "width": 1.5}})
    values = [row[against] for row in rows]
    x = (
        {"title": {"text": "released"}}
        if along_dates
        else log_axis("parameters", round_ticks([r["params_total"] for r in rows]), count)
    )
    base = 8 if unit == "bytes" else 10
    y = log_axis(LANDSCAPE_TITLES[against], round_ticks(values, base), lambda value: quantity(value, unit, scenario.units))
    return as_figure(traces, laid_out("landscape", xaxis=x, yaxis=y, clickmode="event+select"))


LABEL_WIDTH, LABEL_HEIGHT = 0.2, 0.05
"""Of the plot, what a label takes."""


def _apart(rows: Sequence[dict[str, Any]], against: str, dates: bool, chosen: Sequence[str]) -> set[str]:
    """Names of the rows whose labels have room: chosen models first, then from the largest down."""
    drawn = [row for row in rows if row[against]]
    places = [
        (date.fromisoformat(row["released"]).toordinal() if dates else log10(row["params_total"]), log10(row[against]))
        for row in drawn
    ]
    spans = [max(values) - min(values) or 1.0 for values in zip(*places, strict=True)]
    taken: dict[str, tuple[float, float]] = {}
    for row, (x, y) in sorted(zip(drawn, places, strict=True), key=lambda pair: pair[0]["name"] not in chosen):
        x, y = x / spans[0], y / spans[1]
        if not any(abs(x - other) < LABEL_WIDTH and abs(y - height) < LABEL_HEIGHT for other, height in taken.values()):
            taken[row["name"]] = (x, y)
    return set(taken)


LANDSCAPE_TITLES = {
    "cache_bytes_per_token": "cache per token of context",
    "decode_flops": "FLOPs of the next token",
    "params_active": "active parameters",
}


def _family(
    rows: Sequence[dict[str, Any]], name: str, place: int, against: str, unit: str, dates: bool, scenario: Scenario, named: set[str]
) -> Figure:
    told = [f"{plotly_text(row['title'])}: {quantity(row[against], unit, scenario.units)}" for row in rows]
    return {
        "type": "scatter",
        "mode": "markers+text",
        "name": name,
        "x": [row["released"] if dates else row["params_total"] for row in rows],
        "y": [row[against] for row in rows],
        "text": [plotly_text(row["title"]) if row["name"] in named else "" for row in rows],
        "textposition": [("top center", "bottom center")[n % 2] for n in range(len(rows))],
        "customdata": [row["name"] for row in rows],
        "hovertext": told,
        "hoverinfo": "text",
        "marker": {"color": colour(place), "symbol": SYMBOLS[place], "size": 13},
    }


def waterfall(
    start: dict[str, Any], steps: Sequence[dict[str, Any]], end: dict[str, Any], name: str, unit: str, units: str
) -> Figure:
    """The walk from one model to another, one bar a change, in one quantity: down is less. Read from the top."""
    used = [step for step in steps if step[name]]
    bars = [
        (start["change"], start[name], "absolute"),
        *((s["change"], s[name], "relative") for s in used),
        (end["change"], end[name], "total"),
    ]
    told = [quantity(value, unit, units) if kind != "relative" else _signed(value, unit, units) for _, value, kind in bars]
    return as_figure(
        [
            {
                "type": "waterfall",
                "orientation": "h",
                "y": [f"{place}. {wrapped(plotly_text(label))}" for place, (label, _, _) in enumerate(bars)],
                "x": [value for _, value, _ in bars],
                "measure": [kind for _, _, kind in bars],
                "text": told,
                "textposition": ["inside" if kind != "relative" else "outside" for _, _, kind in bars],
                "cliponaxis": False,
                "hovertemplate": "%{y}: %{text}<extra></extra>",
                "increasing": {"marker": {"color": COLOURS[1]}},
                "decreasing": {"marker": {"color": COLOURS[0]}},
                "totals": {"marker": {"color": GREY}},
                "connector": {"line": {"color": GREY, "width": 1}},
            }
        ],
        laid_out(
            "waterfall",
            yaxis={"autorange": "reversed", "automargin": True},
            xaxis={"title": {"text": WHAT.get(name, name)}, "showticklabels": False, "zeroline": True},
            height=90 + 44 * len(bars),
            showlegend=False,
        ),
    )


def _signed(value: float, unit: str, units: str) -> str:
    return f"{'+' if value > 0 else '-'}{quantity(abs(value), unit, units)}"


def layer_strip(model: Architecture) -> Figure:
    """One cell a layer, first to last, coloured by its group."""
    runs = layer_runs(model)
    places = {name: place for place, name in enumerate(dict.fromkeys(run["group"] for run in runs))}
    traces = []
    for name, place in places.items():
        own = [run for run in runs if run["group"] == name]
        layers = [layer for run in own for layer in range(run["first"], run["last"] + 1)]
        text = plotly_text(own[0]["layer"])
        traces.append(
            {
                "type": "bar", "x": layers, "y": [1] * len(layers), "width": 0.9, "name": f"{name}: {text}",
                "hovertext": [f"layer {layer}: {name}<br>{text}" for layer in layers], "hoverinfo": "text",
                "marker": {"color": colour(place), "pattern": {"shape": "/" if place >= len(COLOURS) else ""}},
            }
        )  # fmt: skip
    return {
        "data": traces,
        "layout": laid_out(
            "strip", barmode="stack", bargap=0, height=210, showlegend=True, xaxis={"title": {"text": "layer"}},
            yaxis={"visible": False, "fixedrange": True}, legend={"orientation": "h", "y": -0.9, "yanchor": "top", "x": 0},
        ),
    }  # fmt: skip


def icicle(model: Architecture, rows: Sequence[dict[str, Any]], unit: str, units: str) -> Figure:
    """Parts within parts, from the rows of `part_rows`: an area is a share, a colour the strip's; formulas on hover."""
    paths = [row["path"] for row in rows]
    tops = [path for path in paths if path.count("/") == 1]
    places = {group.name: place for place, group in enumerate(model.layers)}
    drawn = {path: colour(places.get(path.rpartition("/")[2], -1)) for path in tops}
    return as_figure(
        [
            {
                "type": "icicle",
                "ids": paths,
                "labels": [path.rpartition("/")[2] for path in paths],
                "parents": [path.rpartition("/")[0] for path in paths],
                "values": [row["value"] for row in rows],
                "branchvalues": "total",
                "text": [f"{quantity(row['value'], unit, units)}, {row['share']:.1%}" for row in rows],
                "hovertext": [f"{row['path']}<br>{wrapped(plotly_text(row['formula'][:300]), 60)}" for row in rows],
                "hoverinfo": "text",
                "textinfo": "label+text",
                "marker": {"colors": [drawn.get("/".join(path.split("/")[:2]), GREY) for path in paths], "line": {"width": 1}},
                "tiling": {"orientation": "v"},
                "leaf": {"opacity": 1},
                "textfont": {"color": "#ffffff"},
            }
        ],
        laid_out("icicle", height=460, margin={"l": 0, "r": 0, "t": 10, "b": 0}),
    )


def active_total(rows: Sequence[dict[str, Any]], chosen: Sequence[str] = ()) -> Figure:
    """Active against total parameters, log-log, with the diagonals of 100, 10, 5 and 3 % active."""
    low, high = (f(row["params_total"] for row in rows) for f in (min, max))
    diagonals = [
        {
            "type": "scatter", "mode": "lines+text", "x": [low, high], "y": [low * share, high * share], "hoverinfo": "skip",
            "text": ["", f"{share:.0%}"], "textposition": "top left", "showlegend": False,
            "line": {"color": GREY, "dash": "dot", "width": 1}, "name": f"{share:.0%} active",
        }
        for share in (1, 0.1, 0.05, 0.03)
    ]  # fmt: skip
    marks = [_chosen_mark(row["name"], chosen) for row in rows]
    points = {
        "type": "scatter", "mode": "markers+text", "name": "models", "showlegend": False, "hoverinfo": "text",
        "x": [row["params_total"] for row in rows], "y": [row["params_active"] for row in rows],
        "text": [plotly_text(row["title"]) if row["name"] in chosen else "" for row in rows],
        "textposition": [_beside(row["name"], chosen) for row in rows],
        "ids": [plotly_text(row["title"]) for row in rows],
        "hovertext": [
            f"{plotly_text(row['title'])}: {count(row['params_active'])} of {count(row['params_total'])} active" for row in rows
        ],
        "customdata": [row["name"] for row in rows],
        "marker": {"size": 12, **{part: [mark[part] for mark in marks] for part in ("color", "symbol")}},
    }  # fmt: skip
    ticks = round_ticks([low, high])
    small = round_ticks([row["params_active"] for row in rows])
    axes = {"xaxis": log_axis("total parameters", ticks, count), "yaxis": log_axis("active parameters", small, count)}
    return as_figure([*diagonals, points], laid_out("active", **axes))


def _beside(name: str, chosen: Sequence[str]) -> str:
    """Where a label stands: to the left, and to each side in turn, so that neighbours do not lie on each other."""
    return ("top left", "bottom left")[list(chosen).index(name) % 2] if name in chosen else "top left"


def _chosen_mark(name: str, chosen: Sequence[str]) -> Figure:
    place = list(chosen).index(name) if name in chosen else -1
    return {"color": colour(place), "symbol": SYMBOLS[place] if place >= 0 else "circle-open"}


def touched_curves(models: Sequence[Architecture]) -> Figure:
    """The share of a layer's routed experts that a pass reads, against its tokens: dense traffic returns as batches grow."""
    lines = [
        {
            "type": "scatter", "mode": "lines+markers", "name": plotly_text(f"{row['title']} ({row['used']} of {row['experts']})"),
            "x": list(BATCHES), "y": [touched / row["experts"] for touched in row["touched"]],
            "text": [f"{touched:,.1f} of {row['experts']} experts" for touched in row["touched"]],
            "hovertemplate": "%{x} tokens: %{text}", "line": {"color": colour(place), "dash": DASHES[place % len(DASHES)]},
            "marker": {"symbol": SYMBOLS[place % len(SYMBOLS)]},
        }
        for place, row in enumerate(touched_rows(models))
    ]  # fmt: skip
    axes = {
        "xaxis": log_axis("tokens in the pass (sequences in decode)", BATCHES[::2], tokens),
        "yaxis": {"title": {"text": "experts read"}, "tickformat": ".0%", "rangemode": "tozero"},
    }
    return as_figure(lines, laid_out("touched", **axes))


def roofline(rows: Sequence[dict[str, Any]], measured: Sequence[dict[str, Any]], device: Accelerator) -> Figure:
    """FLOP/s against FLOPs a byte, log-log: the device's roof, models' prefills and decode steps, kernels that were measured.

    `rows` and `measured` as `intensity` makes them. A model is a line through its decode steps, labelled by their sequences,
    and a star for its prefill.
    """
    every = [*rows, *measured]
    low, high = (f(row["flops_per_byte"] for row in every) for f in (min, max)) if every else (1.0, 1000.0)
    formats = dict.fromkeys(form for row in rows for form in row["formats"] if form in device.peak_flops_per_s) or {"bf16": None}
    roofs = [_roof(device, form, min(low, 1.0) / 2, max(high, 1000.0) * 2) for form in formats]
    points = []
    if measured:
        points = [
            {
                "type": "scatter", "mode": "markers", "name": "measured kernels", "hoverinfo": "text",
                "x": [row["flops_per_byte"] for row in measured], "y": [row["flops_per_s"] for row in measured],
                "ids": [f"{row['kernels']} {place}" for place, row in enumerate(measured, 1)],  # plotly draws one point an id
                "hovertext": [f"{row['kernels']}, measured: {quantity(row['flops_per_s'], 'FLOP/s')}" for row in measured],
                "marker": {"color": GREY, "symbol": "circle-open", "size": 6},
            }
        ]  # fmt: skip
    models = dict.fromkeys(row["title"] for row in rows)
    lines = [
        _passes([row for row in rows if row["title"] == title and row["phase"] == name], name, place)
        for place, title in enumerate(models)
        for name in ("decode", "prefill")
    ]
    reached = [row["flops_per_s"] for row in every] or [1e12]
    axes = {
        "xaxis": log_axis("FLOPs a byte moved", round_ticks([low, high]), lambda value: f"{value:g}"),
        "yaxis": log_axis("FLOP/s of one device", round_ticks(reached), lambda value: quantity(value, "FLOP/s")),
    }
    return as_figure([*roofs, *points, *lines], laid_out("roofline", **axes))


def _roof(device: Accelerator, form: str, low: float, high: float) -> Figure:
    peak, bandwidth = float(device.peak(form)), float(device.given("memory_bytes_per_s"))
    ridge = min(max(peak / bandwidth, low), high)
    return {
        "type": "scatter", "mode": "lines", "name": f"peak: memory, then {form}", "hoverinfo": "skip",
        "x": [low, ridge, high], "y": [low * bandwidth, min(ridge * bandwidth, peak), peak],
        "line": {"color": GREY, "width": 2, "dash": "solid" if form == "bf16" else "dash"},
    }  # fmt: skip


def _passes(rows: Sequence[dict[str, Any]], name: str, place: int) -> Figure:
    title, decode = plotly_text(rows[0]["title"]), name == "decode"
    ends = (0, len(rows) - 1)
    labels = [f"batch {row['batch']}" if at in ends else "" for at, row in enumerate(rows)] if decode else [""]
    return {
        "type": "scatter", "mode": "lines+markers+text" if decode else "markers", "name": f"{title}, {name}",
        "x": [row["flops_per_byte"] for row in rows], "y": [row["flops_per_s"] for row in rows],
        "text": labels if place == 0 else [""] * len(rows), "textposition": "bottom right", "hoverinfo": "text",
        "hovertext": [
            f"{title}, {name} of {row['batch']}: {row['flops_per_byte']:.3g} FLOPs a byte, "
            f"{quantity(row['flops_per_s'], 'FLOP/s')}, {quantity(row['seconds'], 's')}"
            for row in rows
        ],
        "line": {"color": colour(place), "dash": DASHES[place % len(DASHES)], "width": 2},
        "marker": {
            "color": colour(place), "symbol": SYMBOLS[place % len(SYMBOLS)] if decode else "star", "size": 7 if decode else 14,
        },
    }  # fmt: skip


def predicted_measured(rows: Sequence[dict[str, Any]], spread: float) -> Figure:
    """Predicted against measured seconds of a class, log-log, with the diagonal and the interval around it."""
    times = [row[name] for row in rows for name in ("measured_s", "predicted_s")]
    low, high = min(times) / 1.5, max(times) * 1.5
    lines = [_span(low, high, factor, dash) for factor, dash in ((1.0, "solid"), (spread, "dot"), (1 / spread, "dot"))]
    ticks = round_ticks([low, high])
    axes = {
        "xaxis": log_axis("measured", ticks, seconds_text) | {"range": [log10(low), log10(high)]},
        "yaxis": log_axis("predicted", ticks, seconds_text) | {"range": [log10(low), log10(high)]},
    }
    return as_figure([*lines, *_point_traces(rows, "predicted_s")], laid_out("predicted", **axes))


def residuals(rows: Sequence[dict[str, Any]], spread: float) -> Figure:
    """Predicted over measured, less one, against measured seconds, with the interval."""
    times = [row["measured_s"] for row in rows]
    low, high = min(times) / 1.5, max(times) * 1.5
    bounds = [
        {**_span(low, high, 1.0, dash), "y": [error, error], "name": name}
        for error, dash, name in ((0.0, "solid", "no error"), (spread - 1, "dot", "interval"), (1 / spread - 1, "dot", "interval"))
    ]
    axes = {
        "xaxis": log_axis("measured", round_ticks([low, high]), seconds_text) | {"range": [log10(low), log10(high)]},
        "yaxis": {"title": {"text": "error"}, "tickformat": "+.0%"},
    }
    return as_figure([*bounds, *_point_traces(rows, "error")], laid_out("residuals", **axes))


def _span(low: float, high: float, factor: float, dash: str) -> Figure:
    name = "as measured" if factor == 1.0 else "interval"
    return {
        "type": "scatter", "mode": "lines", "x": [low, high], "y": [low * factor, high * factor], "hoverinfo": "skip",
        "showlegend": False, "name": name, "line": {"color": GREY, "dash": dash, "width": 1.5},
    }  # fmt: skip


NO_SIZE = ("points", "measured_s", "predicted_s", "error", "bound_by", "flops")
"""What a point has beside the sizes of its shape; sizes tell points apart, and plotly draws one point an id."""


def _point_traces(rows: Sequence[dict[str, Any]], height: str) -> list[Figure]:
    """Points that were fitted, open; those that were not, filled: one trace each."""
    traces = []
    for what, place, symbol in (("fitted", 0, "circle-open"), ("not fitted", 1, "diamond")):
        own = [row for row in rows if row["points"] == what]
        shapes = [", ".join(f"{name} {value:,.0f}" for name, value in row.items() if name not in NO_SIZE) for row in own]
        if own:
            traces.append(
                {
                    "type": "scatter", "mode": "markers", "name": what, "hoverinfo": "text", "ids": shapes,
                    "x": [row["measured_s"] for row in own], "y": [row[height] for row in own],
                    "hovertext": [
                        f"{what}: {shape}<br>measured {seconds_text(row['measured_s'])}, "
                        f"predicted {seconds_text(row['predicted_s'])} ({row['error']:+.0%}), bound by {row['bound_by']}"
                        for shape, row in zip(shapes, own, strict=True)
                    ],
                    "marker": {"color": colour(place), "symbol": symbol, "size": 8},
                }
            )  # fmt: skip
    return traces


def table_rows(figure: Figure) -> list[dict[str, Any]]:
    """The numbers of a figure: a row a point, with its series (or its own name), its x, its y and its text where it has one."""
    rows = []
    for trace in figure["data"]:
        if trace["type"] == "icicle":
            rows += [
                {"part": p, "value": v, "text": t} for p, v, t in zip(trace["ids"], trace["values"], trace["text"], strict=True)
            ]
            continue
        texts = trace.get("hovertext") or trace.get("text") or [""] * len(trace["x"])
        names = trace.get("ids") or [trace.get("name", "")] * len(trace["x"])
        points = zip(names, trace["x"], trace["y"], texts, strict=True)
        rows += [{"series": named, "x": x, "y": y, "text": t} for named, x, y, t in points]
    return [{name: _as_text(cell) if isinstance(cell, str) else cell for name, cell in row.items()} for row in rows]


def _as_text(text: str) -> str:
    """What plotly shows of a text, in one line."""
    return unescape(text.replace("<br>", " "))
