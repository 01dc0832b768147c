"""The report of one model, and of several side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from costmodel.answers.sentences import cache_sentence, usual_lines, verdict
from costmodel.answers.summary import STEPS, columns, comparison_table
from costmodel.architecture import Architecture
from costmodel.catalog import accelerator, as_toml
from costmodel.comparison import comparison_rows, diff_rows
from costmodel.errors import CostModelError
from costmodel.formula import Formula
from costmodel.reporting.contents import Report, Worked, latest
from costmodel.reporting.figures import comparison_charts, model_charts, walk_chart
from costmodel.reporting.grounds import about, assumptions, commands, worked_formulas
from costmodel.reporting.rows import (
    CONVENTIONS,
    fits_table,
    model_data,
    model_tables,
    model_verdict,
    offered,
    passes_of,
    price_tables,
    published_table,
    roofline_table,
)
from costmodel.scenario import Scenario
from costmodel.tables import Table

MOST_MODELS = 12
"""Models that one report compares."""


def model_report(model: Architecture, scenario: Scenario) -> Report:
    """All about one model at a scenario."""
    scenario = about(scenario, [model])
    (passes, untimed), worked = passes_of([model], scenario), worked_formulas([model], scenario)
    data, serving = model_data(model, scenario, passes), offered(model, scenario)
    tables, cells = model_tables(data, scenario), model_cells(model, scenario, data)
    released = f", released {data['released']}" if data["released"] else ""
    return Report(
        kind="model",
        name=model.name,
        title=model.title,
        verdict=model_verdict(data),
        about=(
            f"{model.maker}{released}. Source: {model.source}",
            verdict([model], scenario, accelerator(scenario.accelerator)),
            serving["verdict"],
            *untimed,
        ),
        remarks=model.remarks(scenario.context),
        inputs=scenario.at,
        charts=model_charts(model, scenario, passes),
        tables=(*tables[:-1], *price_tables([serving]), tables[-1]),
        assumptions=tuple(assumptions([model], scenario)),
        formulas=worked,
        conventions=CONVENTIONS,
        commands=commands([model], scenario),
        data=data | {"verdict": model_verdict(data), "price": serving} | _told(scenario, [model], worked),
        cells=cells,
        files={f"{model.name}.toml": as_toml(model)},
        subject_day=model.released,
        units=scenario.units,
    )  # fmt: skip


def comparison_report(models: Sequence[Architecture], scenario: Scenario) -> Report:
    """Several models side by side at a scenario; two of them also change by change."""
    if len(models) > MOST_MODELS:
        raise CostModelError(f"a report compares at most {MOST_MODELS} models, not {len(models)}; leave some out")
    scenario = about(scenario, models)
    at = (scenario.context, scenario.batch, scenario.weights, scenario.cache)
    table = comparison_table(models, *at)
    rows = comparison_rows(models, *at)
    (passes, untimed), worked = passes_of(models, scenario), worked_formulas(models, scenario)
    walk = diff_rows(models[0], models[1], *at) if len(models) == 2 else None
    prices = [offered(model, scenario) for model in models]
    walked = [Table("diff", f"{models[0].name} -> {models[1].name}", [walk[0], *walk[1], walk[2]], STEPS)] if walk else []
    return Report(
        kind="comparison",
        name="-".join(model.name for model in models)[:120],
        title=", ".join(model.title for model in models),
        verdict=cache_sentence(models, scenario),
        about=(verdict(models, scenario, accelerator(scenario.accelerator)), usual_lines(models, scenario), *untimed),
        remarks=tuple(f"{model.title}: {remark}" for model in models for remark in model.remarks(scenario.context)),
        inputs=scenario.at,
        charts=(*comparison_charts(models, scenario, passes), *([walk_chart(walk, scenario)] if walk else [])),
        tables=(
            table, *walked, roofline_table(passes), *(fits_table(model, scenario) for model in models), *price_tables(prices),
            *(published_table(model, f"references {place}") for place, model in enumerate(models, 1) if model.reference),
        ),
        assumptions=tuple(assumptions(models, scenario)),
        formulas=worked,
        conventions=CONVENTIONS,
        commands=commands(models, scenario),
        data={
            "scenario": scenario.model_dump(mode="json"), "models": rows, "passes": passes, "price": prices,
            "diff": [walk[0], *walk[1], walk[2]] if walk else [], **_told(scenario, models, worked),
        },
        cells=dict(_compared_cells(models, scenario, table)),
        files={f"{model.name}.toml": as_toml(model) for model in models},
        subject_day=latest([model.released for model in models]),
        units=scenario.units,
    )  # fmt: skip


def _told(scenario: Scenario, models: Sequence[Architecture], worked: Sequence[Worked]) -> dict[str, Any]:
    """What the JSON of one model and of several has alike."""
    return {
        "quantities": [each.row for each in worked],
        "assumptions": [each.row for each in assumptions(models, scenario)],
        "conventions": CONVENTIONS,
        "commands": {each.what: each.text for each in commands(models, scenario)},
    }


def report_data(model: Architecture, context: int = 131_072, batch: int = 1) -> dict[str, Any]:
    """Everything that JSON says of a model, in base units: bytes, FLOP and counts."""
    return model_report(model, Scenario(context=context, batch=batch)).data


# formulas behind cells


def model_cells(model: Architecture, scenario: Scenario, data: dict[str, Any]) -> dict[tuple[str, int, str], Formula]:
    """The formulas behind the cells of a model's tables."""
    kept, moved = scenario.kept(model), scenario.formula(model, "bytes_moved")
    cells: dict[tuple[str, int, str], Formula] = {}
    for place in range(len(data["cache"])):
        cells[("cache", place, "theory_bytes")] = kept.having(view="theory")
        cells[("cache", place, "engine_bytes")] = kept.having(view="engine")
        cells[("flops", place, "prefill_flops")] = model.prefill_flops
        cells[("flops", place, "decode_flops")] = model.decode_flops
    work = {**data["prefill_flops_by_part"], **data["decode_flops_by_part"]}
    for place, part in enumerate(work):
        for name, formula in (("prefill_flops", model.prefill_flops), ("decode_flops", model.decode_flops)):
            if part in formula.parts:
                cells[("work", place, name)] = formula.parts[part]
    cells |= {("moved", place, "bytes"): part for place, part in enumerate(moved.parts.values())}
    return cells


def _compared_cells(
    models: Sequence[Architecture], scenario: Scenario, table: Table
) -> Iterator[tuple[tuple[str, int, str], Formula]]:
    for place, row in enumerate(table.rows):
        for model, column in zip(models, columns([model.name for model in models]), strict=True):
            cache = model.cache_bytes.having(precision=scenario.cache)
            formulas = {
                "cache_bytes": cache, "cache_bytes_engine": cache.having(view="engine"), "prefill_flops": model.prefill_flops,
                "decode_flops": model.decode_flops,
            }  # fmt: skip
            if row["quantity"] in formulas:
                yield (table.name, place, column), formulas[row["quantity"]]
