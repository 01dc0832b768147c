"""What a report's tables say of models: numbers asked of the library once, as plain rows in base units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from costmodel.answers.anatomy import layer_runs
from costmodel.answers.intensity import pass_rows
from costmodel.answers.offers import offer
from costmodel.answers.promises import price_line, serve_sentence, traffic_words
from costmodel.architecture import Architecture
from costmodel.catalog import accelerator, accelerators, reference_value
from costmodel.errors import CostModelError
from costmodel.formula import Formula
from costmodel.memory import LADDER, Capacity, capacity
from costmodel.reporting.contents import pairs
from costmodel.scenario import Scenario
from costmodel.tables import Table
from costmodel.units import binary_bytes, count, flop, tokens

CONTEXTS = (4_096, 32_768, 131_072, 1_048_576)
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


def model_data(model: Architecture, scenario: Scenario, passes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A model's numbers at a scenario."""
    at, cache, limit = scenario.at, scenario.kept(model), model.max_position_embeddings
    contexts = sorted({length for length in CONTEXTS if limit is None or length <= limit} | {scenario.context})
    moved, batch = scenario.formula(model, "bytes_moved"), scenario.batch
    return {
        "name": model.name,
        "title": model.title,
        "maker": model.maker,
        "released": model.released.isoformat() if model.released else None,
        "source": model.source,
        "scenario": scenario.model_dump(mode="json") | {"precision": scenario.weights},
        "verdict": "",
        "remarks": list(model.remarks(scenario.context)),
        "layers": [
            {
                "group": group.name,
                "count": group.count,
                **{word: _described(block) for word, block in (("mixer", group.mixer), ("feed_forward", group.feed_forward))},
            }
            for group in model.layers
        ],
        "layer_runs": layer_runs(model),
        "params": {**model.params.as_dict(), "by_part": _parts(model.params.formula("total"), {})},
        "weight_bytes": {
            form: model.weight_bytes(precision=form) for form in dict.fromkeys(("bf16", "fp8", "int4", scenario.weights))
        },
        "cache": [
            {
                "context": length,
                "theory_bytes": cache(context=length, batch=batch, view="theory"),
                "engine_bytes": cache(context=length, batch=batch, view="engine"),
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
        "prefill_flops_by_part": _parts(model.prefill_flops, at),
        "decode_flops_by_part": _parts(model.decode_flops, at),
        "bytes_moved_decode": moved(new_tokens=1, **at),
        "bytes_moved_by_part": _parts(moved, {"new_tokens": 1, **at}),
        "passes": list(passes),
        "capacity": fits_rows(model, scenario),
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
    }


def _parts(formula: Formula, at: dict[str, int]) -> dict[str, Any]:
    return {name: part(**at) for name, part in formula.parts.items()}


def _described(block: Any) -> str | None:
    """A block in a line: its kind and the fields that are set."""
    if block is None:
        return None
    return ", ".join(
        [block.kind, *(f"{name}={value}" for name, value in block.model_dump(exclude_defaults=True).items() if name != "kind")]
    )


def passes_of(models: Sequence[Architecture], scenario: Scenario) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Passes on the roofline; where they cannot be timed, none and the reason."""
    try:
        return pass_rows(models, scenario), ()
    except CostModelError as error:
        return [], (f"No roofline: {error}",)


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


def fits_rows(model: Architecture, scenario: Scenario) -> list[dict[str, Any]]:
    """What fits on each accelerator: on one device, and on as many as the scenario has."""
    return [_fits(name, model, scenario) for name in accelerators()]


def _fits(name: str, model: Architecture, scenario: Scenario) -> dict[str, Any]:
    held: Capacity = capacity(
        model, name, scenario.devices, **scenario.at, precision=scenario.weights, cache_precision=scenario.cache, view=scenario.view
    )
    return {
        "accelerator": name, "memory_bytes": held.memory_bytes // scenario.devices, "fewest_devices": held.fewest_devices,
        "devices": scenario.devices, "fits": held.fits, "free_bytes": held.free_bytes, "longest_context": held.longest_context,
        "most_sequences": held.most_sequences, "loosest": "/".join(held.loosest) if held.loosest else None,
    }  # fmt: skip


def offered(model: Architecture, scenario: Scenario) -> dict[str, Any]:
    """What the scenario's traffic costs on its accelerator, or why there is no price."""
    device = accelerator(scenario.accelerator)
    row = {"model": model.name, "accelerator": device.name, "devices": scenario.devices, "traffic": traffic_words(scenario)}
    try:
        found = offer(model, scenario)
    except CostModelError as error:
        return row | {"verdict": f"No price: {error}", "best": None, "source": price_line(device, scenario)}
    best = found.best.row if found.best else None
    return row | {"verdict": serve_sentence(found, scenario), "best": best, "source": price_line(device, scenario)}


# tables


def model_tables(data: dict[str, Any], scenario: Scenario) -> list[Table]:
    """A model's tables, in order."""
    sizes = {"theory_bytes": "bytes", "engine_bytes": "bytes", "bytes": "bytes"}
    flops = {"prefill_flops": "FLOP", "decode_flops": "FLOP"}
    params = {name: value for name, value in data["params"].items() if name != "by_part"}
    at, prefill, decode = tokens(scenario.context), data["prefill_flops_by_part"], data["decode_flops_by_part"]
    work = [
        {"part": part, "prefill_flops": prefill.get(part, 0), "decode_flops": decode.get(part, 0)} for part in {**prefill, **decode}
    ]
    capacity_title = f"What fits: weights in {scenario.weights}, cache in {scenario.cache}, {scenario.devices:,} devices"
    return [
        Table("layers", "Layers", [{name: value or "" for name, value in row.items()} for row in data["layers"]]),
        Table("params", "Parameters", pairs(params, "count", "parameters")),
        Table("parts", "Parameters by part", pairs(data["params"]["by_part"], "part", "parameters")),
        Table("weights", "Stored weights", pairs(data["weight_bytes"], "format", "bytes"), sizes),
        Table("cache", f"Cache, {scenario.cache}, {sequences(scenario.batch)}", data["cache"], sizes),
        Table("flops", f"FLOPs, {sequences(scenario.batch)}", data["flops"], flops),
        Table("work", f"FLOPs by part at {at}: the prompt, and the next token", work, flops),
        Table("moved", f"Bytes moved for the next token at {at}", pairs(data["bytes_moved_by_part"], "part", "bytes"), sizes),
        *([roofline_table(data["passes"])] if data["passes"] else []),
        Table("capacity", capacity_title, data["capacity"], FITS, remarks=FITS_REMARKS),
        _published(data["references"], "references"),
    ]


def sequences(batch: int) -> str:
    """A number of sequences in words."""
    return "1 sequence" if batch == 1 else f"{batch:,} sequences"


FITS = {"memory_bytes": "bytes", "free_bytes": "bytes"}
FITS_REMARKS = (
    "weights and cache alone, spread evenly; fewest devices: that hold both; longest context at these sequences, most sequences at "
    f"this context; loosest: the first formats (weights/cache) that fit of {', '.join('/'.join(pair) for pair in LADDER)}",
)


def fits_table(model: Architecture, scenario: Scenario) -> Table:
    """What fits of one of several models."""
    return Table(
        f"capacity {model.name}"[:60], f"What fits of {model.title}", fits_rows(model, scenario), FITS, remarks=FITS_REMARKS
    )


PASS_UNITS = {
    "flops": "FLOP", "bytes": "bytes", "seconds": "s", "flops_per_s": "FLOP/s",
}  # fmt: skip


def roofline_table(passes: Sequence[dict[str, Any]]) -> Table:
    """Passes of one device: work, bytes, seconds and rates."""
    names = ("model", "phase", "batch", "flops", "bytes", "flops_per_byte", "seconds", "flops_per_s", "state")
    rows = [{name: row[name] for name in names} for row in passes]
    remark = (
        "of one of the devices, which share each layer; calibrated: by measured kernels, datasheet: off by a factor of 2 at times"
    )
    return Table("roofline", "Bytes, FLOPs and seconds of a pass", rows, PASS_UNITS, remarks=(remark,))


PRICED = {
    "ttft_s": "s", "tpot_s": "s", "free_bytes": "bytes", "utilisation": "share",
    "output_tokens_per_s_per_device": "tokens/s",
}  # fmt: skip


def price_tables(prices: Sequence[dict[str, Any]]) -> list[Table]:
    """What a million tokens cost, prompts and outputs apart, of the cheapest layout that keeps the limits."""
    names = (
        "layout", "mode", "devices", "batch", "ttft_s", "tpot_s", "output_tokens_per_s_per_device", "utilisation", "usd_per_hour",
        "usd_per_mtok_in", "usd_per_mtok_out", "binds",
    )  # fmt: skip
    rows = [
        {"model": each["model"], "accelerator": each["accelerator"], **{name: each["best"][name] for name in names}}
        for each in prices
        if each["best"]
    ]
    remarks = tuple(dict.fromkeys([each["verdict"] for each in prices if not each["best"]] + [each["source"] for each in prices]))
    title = f"Price: {prices[0]['traffic']}, in dollars"
    return [Table("price", title, rows or [{"model": each["model"], "price": "none"} for each in prices], PRICED, remarks=remarks)]


def published_table(model: Architecture, name: str = "references") -> Table:
    """Published values beside ours, each with its error, convention and source."""
    return _published(reference_rows(model), name, f"Published values of {model.title}" if name != "references" else "")


def _published(rows: list[dict[str, Any]], name: str, title: str = "") -> Table:
    return Table(name, title or "Published values", [_told(row) for row in rows])


def _told(row: dict[str, Any]) -> dict[str, Any]:
    told = {name: value for name, value in row.items() if name not in ("error", "reproduced")}
    return {
        **told,
        "published": f"{row['published']:,}",
        "ours": f"{row['ours']:,}",
        "error": f"{row['error']:+.3%}" + ("" if row["reproduced"] else " (off)"),
    }


def model_verdict(data: dict[str, Any]) -> str:
    """Two sentences made from the data."""
    params, context, batch = data["params"], data["scenario"]["context"], data["scenario"]["batch"]
    cache = next(row for row in data["cache"] if row["context"] == context)
    work = next(row for row in data["flops"] if row["context"] == context)
    sequences = "one sequence keeps" if batch == 1 else f"{batch} sequences keep"
    return (
        f"{data['title']} has {count(params['total'])} parameters, {count(params['active'])} of them active for a token. "
        f"At {tokens(context)} tokens {sequences} {binary_bytes(cache['theory_bytes'])}, and the next token costs "
        f"{flop(work['decode_flops'])}."
    )
