"""One architecture's report: what it costs, how each number is made, and how it stands against published values."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from costmodel.architecture import Architecture
from costmodel.catalog import Source, accelerator, as_architecture, reference_value
from costmodel.errors import CostModelError, did_you_mean, shown
from costmodel.files import write_text
from costmodel.live import live_chart
from costmodel.scenario import Scenario
from costmodel.sentences import cache_sentence, usual_lines, verdict
from costmodel.summary import comparison_table
from costmodel.tables import Table, as_csv, as_json, as_markdown, escape_markdown
from costmodel.units import binary_bytes, count, flop, tokens, whole
from costmodel.webpage import as_html

CONTEXTS = (4_096, 32_768, 131_072, 1_048_576)
FORMATS = ("md", "json", "csv", "html")
MEDIA = {
    "md": ("Markdown", "text/markdown"),
    "html": ("HTML, with live sliders", "text/html"),
    "csv": ("CSV", "text/csv"),
    "json": ("JSON", "application/json"),
}
"""Each format's name for people and its media type."""

CONVENTIONS = {
    "parameters": "every trained tensor of the published checkpoint, tied tables once, towers and routers' correction biases "
    "included; active: those used for one token of text, the input table left out unless it is also the head",
    "cache": "all that is kept per sequence between tokens; theory counts what must be kept, engine what a paged server reserves "
    "(pages of 16 tokens, windows in full)",
    "flops": "one multiply-add is 2; tensor work only (norms, activations, rope, softmax are out); causal pairs; "
    "logits of the last token; latent attention expanded in prefill, absorbed in decode; recurrences chunked in prefill, "
    "one step in decode",
    "bytes moved": "each tensor once: weights (of routed experts the expected distinct ones), activations, cache",
}
"""What each number counts, said once for all reports."""


def report_data(model: Architecture, context: int = 131_072, batch: int = 1) -> dict[str, Any]:
    """Everything a report says, in base units: bytes, FLOP and counts."""
    context, batch = whole("context", context), whole("batch", batch)
    limit = model.max_position_embeddings
    contexts = sorted({length for length in CONTEXTS if limit is None or length <= limit} | {context})
    return {
        "name": model.name,
        "title": model.title,
        "maker": model.maker,
        "released": model.released.isoformat() if model.released else None,
        "source": model.source,
        "scenario": {"context": context, "batch": batch, "precision": "bf16"},
        "remarks": list(model.remarks(context)),
        "layers": [
            {
                "group": g.name,
                "count": g.count,
                **{word: _described(block) for word, block in (("mixer", g.mixer), ("feed_forward", g.feed_forward))},
            }
            for g in model.layers
        ],
        "params": {
            **model.params.as_dict(),
            "by_part": {name: part() for name, part in model.params.formula("total").parts.items()},
        },
        "weight_bytes": {precision: model.weight_bytes(precision=precision) for precision in ("bf16", "fp8", "int4")},
        "cache": [
            {
                "context": length,
                "theory_bytes": model.cache_bytes(context=length, batch=batch),
                "engine_bytes": model.cache_bytes(context=length, batch=batch, view="engine"),
            }
            for length in contexts
        ],
        "flops": [
            {
                "context": length,
                "prefill_flops": model.prefill_flops(context=length, batch=batch),
                "decode_flops": model.decode_flops(context=length, batch=batch),
            }
            for length in contexts
        ],
        "decode_flops_by_part": {name: part(context=context, batch=batch) for name, part in model.decode_flops.parts.items()},
        "bytes_moved_decode": model.bytes_moved(new_tokens=1, context=context, batch=batch),
        "formulas": {
            formula.name: {
                "unit": formula.unit,
                "text": str(formula.expr),
                "latex": formula.latex,
                "source": formula.source,
                "status": formula.status,
            }
            for formula in (model.params.formula("total"), model.cache_bytes, model.prefill_flops, model.decode_flops)
        },
        "references": reference_rows(model),
        "conventions": CONVENTIONS,
        "commands": {
            "shell": f"costmodel report {model.name} --context {context} --batch {batch}",
            "python": f'costmodel.load("{model.name}").cache_bytes(context={context}, batch={batch})',
        },
    }


def _described(block: Any) -> str | None:
    """A block in a line: its kind and the fields that are set."""
    if block is None:
        return None
    return ", ".join(
        [block.kind, *(f"{name}={value}" for name, value in block.model_dump(exclude_defaults=True).items() if name != "kind")]
    )


def reference_rows(model: Architecture) -> list[dict[str, Any]]:
    """Published values beside ours: error is relative, and within the row's tolerance or not."""
    rows = []
    for row in model.reference:
        ours = reference_value(model, row)
        error = ours / row.value - 1
        asked = ", ".join(f"{name}={value}" for name, value in row.inputs.items())
        rows.append(
            {
                "quantity": row.quantity + (f"({asked})" if asked else "") + (" per token" if row.per_token else ""),
                "published": row.value,
                "ours": ours,
                "error": error,
                "reproduced": abs(error) <= row.tolerance,
                "convention": row.convention,
                "source": row.source,
            }
        )
    return rows


def markdown(data: dict[str, Any]) -> str:
    """A report as Markdown."""
    released = f", released {data['released']}" if data["released"] else ""
    formulas = [f"{escape_markdown(name)}, {it['unit']}:\n\n```math\n{it['latex']}\n```\n" for name, it in data["formulas"].items()]
    parts = [
        f"# {escape_markdown(data['title'])}\n\n{_verdict(data)}\n",
        f"{escape_markdown(data['maker'])}{released}. Source: {escape_markdown(data['source'])}\n",
        *(f"> {escape_markdown(remark)}\n" for remark in data["remarks"]),
        as_markdown(report_tables(data)),
        "### Formulas\n",
        *formulas,
        "### Conventions\n",
        *(f"- {escape_markdown(name)}: {escape_markdown(text)}" for name, text in data["conventions"].items()),
        f"\nThe same numbers: `{data['commands']['shell']}`\n",
    ]
    return "\n".join(parts)


def report_tables(data: dict[str, Any]) -> list[Table]:
    """The report's tables, in order."""
    flops = {"prefill_flops": "FLOP", "decode_flops": "FLOP", "flops": "FLOP"}
    sizes = {"theory_bytes": "bytes", "engine_bytes": "bytes", "bytes": "bytes"}
    params = {name: value for name, value in data["params"].items() if name != "by_part"}
    decode = f"FLOPs of one decoded token at {tokens(data['scenario']['context'])}"
    return [
        Table("layers", "Layers", [{name: value or "" for name, value in row.items()} for row in data["layers"]]),
        Table("params", "Parameters", _pairs(params, "count", "parameters")),
        Table("parts", "Parameters by part", _pairs(data["params"]["by_part"], "part", "parameters")),
        Table("weights", "Stored weights", _pairs(data["weight_bytes"], "format", "bytes"), sizes),
        Table("cache", "Cache", data["cache"], sizes),
        Table("flops", "FLOPs", data["flops"], flops),
        Table("decode", decode, _pairs(data["decode_flops_by_part"], "part", "flops"), flops),
        _published(data["references"]),
    ]


def published_table(model: Architecture) -> Table:
    """Published values beside ours, each with its error, convention and source."""
    return _published(reference_rows(model))


def _published(rows: list[dict[str, Any]]) -> Table:
    return Table("references", "Published values", [_told(row) for row in rows])


def _pairs(values: dict[str, Any], name: str, value: str) -> list[dict[str, Any]]:
    return [{name: key, value: number} for key, number in values.items()]


def _verdict(data: dict[str, Any]) -> str:
    """Two sentences made from the data."""
    params, context, batch = data["params"], data["scenario"]["context"], data["scenario"]["batch"]
    cache = next(row for row in data["cache"] if row["context"] == context)
    work = next(row for row in data["flops"] if row["context"] == context)
    sequences = "one sequence keeps" if batch == 1 else f"{batch} sequences keep"
    return (
        f"{escape_markdown(data['title'])} has {count(params['total'])} parameters, {count(params['active'])} of them active for a "
        f"token. At {tokens(context)} tokens {sequences} {binary_bytes(cache['theory_bytes'])}, and the next token costs "
        f"{flop(work['decode_flops'])}."
    )


def _told(row: dict[str, Any]) -> dict[str, Any]:
    told = {name: value for name, value in row.items() if name not in ("error", "reproduced")}
    return {
        **told,
        "published": f"{row['published']:,}",
        "ours": f"{row['ours']:,}",
        "error": f"{row['error']:+.3%}" + ("" if row["reproduced"] else " (off)"),
    }


def report(
    model: Source,
    format: str = "md",
    path: str | PathLike[str] | None = None,
    context: int = 131_072,
    batch: int = 1,
) -> str:
    """A model's report as Markdown (`md`), one offline web page with live sliders (`html`), JSON, or its tables as CSV.

    It is written to `path` where one is given.
    Equal input gives equal bytes. A file is replaced only by a whole one. Raises CostModelError for an unknown
    model or format, or a path that cannot be written.

    >>> report("deepseek-v3").splitlines()[0]
    '# DeepSeek-V3'
    """
    if not isinstance(format, str) or format not in FORMATS:
        raise CostModelError(f"no report format {shown(format)}; {did_you_mean(format, FORMATS)}")
    if path is not None and not isinstance(path, (str, PathLike)):
        raise CostModelError(f"report got {shown(path)} as its path; give a file's path, or leave it out")
    text = _WRITERS[format](as_architecture(model), context, batch)
    if path is not None:
        write_text(Path(os.fsdecode(path)), text)
    return text


def webpage(model: Architecture, context: int, batch: int) -> str:
    """A report as one offline web page: the Markdown's words and tables, and cache and FLOPs with live sliders."""
    data, scenario = report_data(model, context, batch), Scenario(context=whole("context", context), batch=whole("batch", batch))
    released = f", released {data['released']}" if data["released"] else ""
    return as_html(
        data["title"],
        [_verdict(data), f"{data['maker']}{released}. Source: {data['source']}", *data["remarks"]],
        [live_chart([model], scenario, None, name) for name in ("cache_bytes", "decode_flops", "prefill_flops")],
        [*report_tables(data), Table("conventions", "Conventions", _pairs(data["conventions"], "number", "what it counts"))],
        [f"{name} [{it['unit']}] = {it['text']}" for name, it in data["formulas"].items()] + list(data["commands"].values()),
    )


_WRITERS: dict[str, Callable[[Architecture, int, int], str]] = {
    "md": lambda model, context, batch: markdown(report_data(model, context, batch)),
    "json": lambda model, context, batch: as_json(report_data(model, context, batch)),
    "csv": lambda model, context, batch: as_csv(report_tables(report_data(model, context, batch))),
    "html": webpage,
}


def scenario_file(form: str, models: Sequence[Architecture], scenario: Scenario) -> str:
    """The models of a scenario side by side, as a file of a format of `MEDIA`.

    >>> import costmodel as cm
    >>> scenario_file("csv", [cm.load("gpt2")], Scenario(context=1024)).splitlines()[0].split(",")[:3]
    ['name', 'context', 'batch']
    """
    stored = (scenario.weights, scenario.cache)
    table = comparison_table(
        models, **scenario.at, precision=stored[0], cache_precision=stored[1], by_quantity=form in ("md", "html")
    )
    if form == "html":
        device = accelerator(scenario.accelerator)
        words = [verdict(models, scenario, device), cache_sentence(models, scenario), usual_lines(models, scenario)]
        charts = [live_chart(models, scenario, None, name) for name in ("cache_bytes", "decode_flops")]
        title = f"{', '.join(model.title for model in models)}: {table.title}"
        return as_html(title, words, charts, [table], [scenario.command("compare", *scenario.models)], scenario.units)
    if form not in MEDIA:
        raise CostModelError(f"no format {shown(form)}; {did_you_mean(form, MEDIA)}")
    return as_markdown([table]) if form == "md" else as_json(list(table.rows)) if form == "json" else as_csv([table])
