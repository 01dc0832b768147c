"""The figures of a report: those of the dashboard, and curves of several formulas of one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from costmodel.answers.anatomy import anatomy_sentence, part_rows
from costmodel.answers.intensity import measured_rows
from costmodel.answers.sentences import chart_words, roofline_sentence, walk_sentence
from costmodel.architecture import Architecture
from costmodel.catalog import accelerator
from costmodel.figures.charts import cache_curves, icicle, layer_strip, waterfall
from costmodel.figures.charts import roofline as roofline_figure
from costmodel.figures.drawing import Figure, as_figure, laid_out, log_axis, round_ticks
from costmodel.figures.live import DASHES as LIVE_DASHES
from costmodel.figures.live import live_chart
from costmodel.figures.palette import DASHES, GREY, colour
from costmodel.formula import Formula
from costmodel.hardware import Accelerator
from costmodel.reporting.contents import Chart
from costmodel.scenario import WHAT, Scenario
from costmodel.units import quantity, tokens

SHORTEST, LONGEST, POINTS = 1 << 10, 1 << 20, 60


def model_charts(model: Architecture, scenario: Scenario, passes: Sequence[dict[str, Any]]) -> tuple[Chart, ...]:
    """The figures of one model's report."""
    rows = part_rows(model.params.formula("total"), {})
    words = anatomy_sentence(model, scenario, rows)
    kept = {view: scenario.kept(model).having(view=view) for view in ("theory", "engine")}
    work = {WHAT[name]: getattr(model, name) for name in ("prefill_flops", "decode_flops")}
    at = (
        quantity(kept["theory"](**scenario.at), "bytes", scenario.units),
        quantity(kept["engine"](**scenario.at), "bytes", scenario.units),
    )
    return (
        Chart("layers", "Layers", f"{model.depth} layers, first to last. {words}", layer_strip(model)),
        Chart("parameters", "Parameters by part", words, icicle(model, rows, "parameters", scenario.units)),
        Chart(
            "cache", "Cache against context",
            f"Cache against context, 1k to 1M tokens, both axes logarithmic: at {scenario.context:,} tokens {at[0]} must be kept "
            f"(theory) and a paged server reserves {at[1]} (engine).",
            curves(kept, scenario, "bytes", "cache"), _together(kept, model, scenario, "cache_bytes"),
        ),
        Chart(
            "flops", "FLOPs against context", "FLOPs of a prompt and of the token after it, both axes logarithmic.",
            curves(work, scenario, "FLOP", "FLOPs"), _together(work, model, scenario, "decode_flops"),
        ),
        *roofline_charts(passes, scenario),
    )  # fmt: skip


def _together(formulas: Mapping[str, Formula], model: Architecture, scenario: Scenario, name: str) -> dict[str, Any]:
    """The data of a live chart with several formulas of one model."""
    chart = live_chart([model], scenario, None, name)
    series = [
        {
            "title": title,
            "colour": colour(place),
            "dash": LIVE_DASHES[place],
            "code": formula.javascript,
            "needs": list(formula.inputs),
        }
        for place, (title, formula) in enumerate(formulas.items())
    ]
    return chart | {"series": series}


def comparison_charts(models: Sequence[Architecture], scenario: Scenario, passes: Sequence[dict[str, Any]]) -> tuple[Chart, ...]:
    """The figures of several models' report."""
    named = "; ".join(f"{model.title}: {quantity(model.decode_flops(**scenario.at), 'FLOP')}" for model in models)
    work = {model.title: model.decode_flops for model in models}
    return (
        Chart(
            "cache", "Cache against context", chart_words(models, scenario), cache_curves(models[:4], scenario),
            live_chart(models, scenario),
        ),
        Chart(
            "flops", "FLOPs of the next token", f"FLOPs of the next token against context, both axes logarithmic. {named}.",
            curves(work, scenario, "FLOP", "FLOPs"), live_chart(models, scenario, None, "decode_flops"),
        ),
        *roofline_charts(passes, scenario),
    )  # fmt: skip


def roofline_charts(passes: Sequence[dict[str, Any]], scenario: Scenario) -> tuple[Chart, ...]:
    """The roofline, where the accelerator's rates are known."""
    device = accelerator(scenario.accelerator)
    if not passes:
        return ()
    figure = roofline_figure(passes, measured_rows(scenario), device)
    return (Chart("roofline", f"Roofline of {device.title}", roofline_sentence(passes, device), figure),)


def walk_chart(rows: tuple[dict[str, Any], Sequence[dict[str, Any]], dict[str, Any]], scenario: Scenario) -> Chart:
    """The walk from one model's cache to another's."""
    words = walk_sentence(*rows, "cache_bytes", "bytes", scenario.units)
    return Chart("walk", "Cache, change by change", words, waterfall(*rows, "cache_bytes", "bytes", scenario.units))


def curves(formulas: Mapping[str, Formula], scenario: Scenario, unit: str, title: str) -> Figure:
    """Formulas against context, log-log: whole numbers of tokens, with the scenario's own context among them.

    >>> import costmodel as cm
    >>> gpt2 = cm.load("gpt2")
    >>> curves({"cache": gpt2.cache_bytes}, Scenario(context=1024), "bytes", "cache")["data"][0]["y"][0]
    37748736.0
    """
    contexts = np.unique(np.append(np.geomspace(SHORTEST, LONGEST, POINTS).round(), scenario.context))
    lines = [
        {
            "type": "scatter", "mode": "lines", "name": name, "x": contexts.tolist(),
            "y": np.broadcast_to(formula(context=contexts, batch=scenario.batch), contexts.shape).tolist(),
            "line": {"color": colour(place), "dash": DASHES[place % len(DASHES)], "width": 2.5},
        }
        for place, (name, formula) in enumerate(formulas.items())
    ]  # fmt: skip
    values = [value for line in lines for value in line["y"]]
    ticks = round_ticks(values, 8 if unit == "bytes" else 10)
    return as_figure(
        lines,
        laid_out(
            title, xaxis=log_axis("context, tokens", [1 << power for power in range(10, 21, 2)], tokens),
            yaxis=log_axis(title, ticks, lambda value: quantity(value, unit, scenario.units)),
            shapes=[
                {"type": "line", "x0": scenario.context, "x1": scenario.context, "y0": 0, "y1": 1, "yref": "paper",
                 "line": {"dash": "dot", "color": GREY, "width": 1.5}}
            ],
        ),
    )  # fmt: skip


def peak_of(device: Accelerator) -> str:
    """A device's rates in words."""
    rates = [quantity(rate, "FLOP/s") + f" {form}" for form, rate in device.peak_flops_per_s.items() if form in ("bf16", "fp8")]
    bandwidth = [quantity(device.memory_bytes_per_s, "bytes/s")] if device.memory_bytes_per_s else []
    return ", ".join([*bandwidth, *rates]) or "none given"
