"""The tables that answer a question about one model or one family, ready to be printed in any format."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from costmodel.architecture import Architecture
from costmodel.catalog import Source, accelerator, accelerators
from costmodel.comparison import Stored, comparison_rows, diff_rows
from costmodel.crossings import crossover
from costmodel.footprint import DeviceMemory, rows_table
from costmodel.formula import Formula
from costmodel.hardware import Accelerator
from costmodel.importers import Imported
from costmodel.importers.stored import StoredSize
from costmodel.memory import LADDER, capacity_rows
from costmodel.tables import Table
from costmodel.training.held import RECOMPUTE
from costmodel.units import workload
from costmodel.workload import Pass, Phase, Precision, Role

if TYPE_CHECKING:
    from costmodel.timing.estimating import Estimate
    from costmodel.training.runs import Training
    from costmodel.validation import Validation

COMPARISON_REMARKS = (
    "cache_bytes is what must be kept (theory); cache_bytes_engine what a paged server reserves: pages of 16 tokens, "
    "windows in full",
    "one multiply-add is 2 FLOP; causal pairs, logits of the last token; prefill is the whole context, decode one token "
    "for each sequence",
)


STEPS = {
    "params": "parameters",
    "active": "parameters",
    "weight_bytes": "bytes",
    "cache_bytes": "bytes",
    "prefill_flops": "FLOP",
    "decode_flops": "FLOP",
}
"""Units of what a step is priced in."""
DIFF_REMARKS = (
    "the steps sum exactly to the difference; what one step costs depends on those before it",
    "first and last row: the whole model; rows between: what the change adds",
)
COMPARED = {
    "params_total": "parameters",
    "params_active": "parameters",
    "weight_bytes": "bytes",
    "cache_bytes": "bytes",
    "cache_bytes_engine": "bytes",
    "cache_bytes_per_token": "bytes",
    "cache_bytes_per_next_token": "bytes",
    "prefill_flops": "FLOP",
    "decode_flops": "FLOP",
}
"""What `compare` shows for each model, with its unit."""


def comparison_table(
    models: Sequence[Architecture], context: int, batch: int, precision: str = "bf16", cache_precision: str = "bf16", *,
    by_quantity: bool = True,
) -> Table:  # fmt: skip
    """What `costmodel compare` answers: a row a quantity and a column a model for people, else a row a model."""
    rows = comparison_rows(models, context, batch, precision, cache_precision)
    remarks = (*(f"{row['name']}: {row['notes']}" for row in rows if row["notes"]), *COMPARISON_REMARKS)
    if by_quantity:
        rows = _by_quantity(rows, COMPARED)
    return Table("compare", workload(batch, context), rows, row_units=COMPARED, remarks=remarks)


HELD = {
    "weight_bytes": "bytes",
    "cache_bytes": "bytes",
    "memory_bytes": "bytes",
    "free_bytes": "bytes",
    "fits": "",
    "longest_context": "",
    "most_sequences": "",
    "fewest_devices": "",
    "loosest": "",
}
"""What `capacity` shows for each model, with its unit."""
CAPACITY_REMARKS = (
    "weights and cache alone, spread evenly: activations, the runtime's own memory, copies of KV heads and fragmentation "
    "come on top",
    f"longest_context at this batch, most_sequences at this context; loosest: the first formats (weights/cache) that fit of "
    f"{', '.join('/'.join(pair) for pair in LADDER)}",
)


def accelerators_table(*, notes: bool = False) -> Table:
    """What `costmodel accelerators` answers; notes are too long for a line."""
    rows = []
    for name in accelerators():
        device = accelerator(name)
        released = device.released.isoformat() if device.released else ""
        about = {"name": name, "title": device.title, "maker": device.maker, "released": released}
        row = {**about, "memory_bytes": device.memory_bytes, **_figures(device)}
        words = {"source": device.source, "notes": " ".join(device.notes), "assumed": ", ".join(device.assumed)}
        rows.append(row | (words if notes else {}))
    remarks = () if notes else ("sources, prices' dates and what is assumed: --format json or csv",)
    return Table("accelerators", "Accelerators", rows, DEVICE_UNITS, remarks=(*remarks, "peaks are dense; links one way, a device"))


DEVICE_UNITS = {
    "memory_bytes": "bytes", "memory_bytes_per_s": "bytes/s", "bf16_flops_per_s": "FLOP/s", "fp8_flops_per_s": "FLOP/s",
    "link_bytes_per_s": "bytes/s", "power_w": "W",
}  # fmt: skip


def _figures(device: Accelerator) -> dict[str, Any]:
    """Rates, power and price: None where the file gives none."""
    peaks = device.peak_flops_per_s
    return {
        "memory_bytes_per_s": device.memory_bytes_per_s,
        "bf16_flops_per_s": peaks.get("bf16"),
        "fp8_flops_per_s": peaks.get("fp8"),
        "link_bytes_per_s": device.link_bytes_per_s,
        "power_w": device.power_w,
        "usd_per_hour": device.price.usd_per_hour if device.price else None,
    }


def capacity_table(
    models: Sequence[Source], device: Accelerator, devices: int, context: int, batch: int, precision: str, cache_precision: str,
    view: str, *, by_quantity: bool = True,
) -> Table:  # fmt: skip
    """What `costmodel capacity` answers: a row a quantity and a column a model for people, else a row a model."""
    rows = capacity_rows(models, device, devices, context, batch, precision, cache_precision, view)
    notes = (*(f"{row['name']}: {row['notes']}" for row in rows if row["notes"]), *(f"{device.name}: {n}" for n in device.notes))
    title = f"{devices:,} x {device.name}, {workload(batch, context)}"
    formats = f"weights in {precision}, cache in {cache_precision}, {view} view"
    if by_quantity:
        rows = _by_quantity(rows, HELD)
    return Table("capacity", title, rows, row_units=HELD, remarks=(*notes, formats, *CAPACITY_REMARKS))


ESTIMATED = {
    "ttft_s": "s", "ttft_low_s": "s", "ttft_high_s": "s", "tpot_s": "s", "tpot_low_s": "s", "tpot_high_s": "s",
    "output_tokens_per_s_per_device": "tokens/s", "bound_by": "", "state": "", "weight_bytes": "bytes", "cache_bytes": "bytes",
    "memory_bytes": "bytes", "fits": "",
}  # fmt: skip
"""What `estimate` answers, with its unit."""
ESTIMATE_REMARKS = (
    "TTFT: the prefill of all prompts, without a queue; TPOT: the mean decode step; low and high: what should hold 90 %",
    "kernels as captured in graphs, nothing in the cache from a call before; --launch-us adds an eager server's host",
)


def estimate_tables(found: Estimate, *, by_quantity: bool = True) -> list[Table]:
    """What `costmodel estimate` answers: the times, and the ledger rows that they sum."""
    (ttft_low, ttft_high), (tpot_low, tpot_high) = (found.interval.get(name, (None, None)) for name in ("ttft_s", "tpot_s"))
    values: dict[str, Any] = {
        "ttft_s": found.ttft_s, "ttft_low_s": ttft_low, "ttft_high_s": ttft_high,
        "tpot_s": found.tpot_s, "tpot_low_s": tpot_low, "tpot_high_s": tpot_high,
        "output_tokens_per_s_per_device": found.output_tokens_per_s_per_device, "bound_by": found.bound_by, "state": found.state,
        "weight_bytes": found.memory.weight_bytes, "cache_bytes": found.memory.cache_bytes,
        "memory_bytes": found.memory.memory_bytes, "fits": found.memory.fits,
    }  # fmt: skip
    layout = f"tp {found.parallel.tp}" + (f", ep {found.parallel.ep}" if found.parallel.ep > 1 else "")
    title = (
        f"{found.model} on {found.devices:,} x {found.accelerator} ({layout}), {workload(found.batch, found.prompt)} "
        f"and {found.output:,} of output each"
    )
    rows = [{"quantity": name, found.model: value} for name, value in values.items()] if by_quantity else [values]
    first = Table("estimate", title, rows, row_units=ESTIMATED if by_quantity else {}, remarks=(*found.notes, *ESTIMATE_REMARKS))
    return [first, Table("ops", "Where the time goes", found.ops_rows, {"seconds": "s", "share": "share"})]


MEMORY_ANSWERS = {
    "used_bytes": "bytes", "memory_bytes": "bytes", "free_bytes": "bytes", "fits": "", "theory_bytes": "bytes",
    "engine_bytes": "bytes", "longest_context": "", "most_sequences": "", "fewest_devices": "", "loosest": "",
}  # fmt: skip
"""What `memory` answers beside its rows, with its unit."""
MEMORY_REMARKS = (
    "theory_bytes: cache and state that must be kept; engine_bytes: what a paged server reserves for them",
    "longest_context at this batch, most_sequences of a replica at this context (10^12: nothing binds), fewest_devices by tensor "
    "parallelism alone, loosest: the first formats (weights/cache) that fit of " + ", ".join("/".join(pair) for pair in LADDER),
)


def memory_tables(held: DeviceMemory, *, by_quantity: bool = True) -> list[Table]:
    """What `costmodel memory` answers: what the fullest device holds, row by row, and what would fit."""
    model, layout = held.demand.model, held.layout
    title = f"{model.name} on {layout.devices:,} x {held.accelerator.name} ({layout.name}), {workload(held.batch, held.context)}"
    where = f"a device of stage {held.stage + 1} of {layout.pp}, which holds most" if layout.pp > 1 else "each device"
    units = {"bytes": "bytes", "share": "share"}
    rows = Table("memory", f"{title}: {where}", rows_table(held), units, remarks=(*model.remarks(held.context), *MEMORY_REMARKS))
    values = {name: getattr(held, name) for name in MEMORY_ANSWERS} | {"loosest": "/".join(held.loosest or ()) or None}
    answers = [{"quantity": name, model.name: value} for name, value in values.items()] if by_quantity else [values]
    return [rows, Table("fits", "What fits", answers, row_units=MEMORY_ANSWERS if by_quantity else {})]


TRAINED = {
    "tokens": "tokens", "steps": "", "step_s": "s", "flops_per_token": "FLOP", "flops": "FLOP", "hardware_flops": "FLOP",
    "peak_flops_per_s": "FLOP/s", "mfu": "share", "hfu": "share", "tokens_per_s_per_device": "tokens/s", "device_hours": "",
}  # fmt: skip
"""What `train` answers first, with its unit; further hours, days and dollars follow."""
DEVICE_ROWS = {
    "weight_bytes": "stored weights", "gradient_bytes": "gradients", "optimizer_bytes": "master weights and moments",
    "activation_bytes": "for the backward pass, as chosen", "total_bytes": "all of these", "memory_bytes": "what the device has",
    "fits": "",
}  # fmt: skip
TRAINING_REMARKS = (
    "hours.*: told, not computed; days without them, dollars with them",
    "memory without the runtime's own, its messages and fragmentation",
)


def training_tables(found: Training, *, by_quantity: bool = True) -> list[Table]:
    """What `costmodel train` answers: the run, and what the fullest device holds, activations under each recomputation too."""
    values: dict[str, Any] = {name: getattr(found, name) for name in TRAINED}
    values |= {f"hours.{name}": hours for name, hours in found.further}
    values |= {"total_device_hours": found.total_device_hours, "days": found.days, "usd": found.usd}
    held: dict[str, Any] = {name: getattr(found.memory, name) for name in DEVICE_ROWS}
    held |= {f"activations.{name}": value for name, value in zip(RECOMPUTE, found.memory.activations, strict=True)}
    title = f"{found.model} on {found.devices:,} x {found.accelerator} ({found.layout}), sequences of {found.sequence:,} tokens"
    device = f"The fullest device: stage {found.memory.stage + 1}"
    units = {name: "bytes" for name in held if name != "fits"}
    if not by_quantity:
        return [Table("training", title, [values], TRAINED, remarks=found.notes), Table("device", device, [held], units)]
    run = [{"quantity": name, found.model: value} for name, value in values.items()]
    rows = [{"row": name, "value": value, "of": DEVICE_ROWS.get(name, "under this recomputation")} for name, value in held.items()]
    return [
        Table("training", title, run, row_units=TRAINED, remarks=(*found.notes, *TRAINING_REMARKS)),
        Table("device", device, rows, row_units=units),
    ]


def _by_quantity(rows: list[dict[str, Any]], quantities: Iterable[str]) -> list[dict[str, Any]]:
    """Rows of models turned into rows of quantities, one column a model."""
    names = columns([row["name"] for row in rows])
    return [{"quantity": key, **{name: row[key] for name, row in zip(names, rows, strict=True)}} for key in quantities]


def diff_table(
    first: Architecture, last: Architecture, context: int, batch: int, precision: Stored = "bf16", cache_precision: Stored = "bf16"
) -> Table:
    """What `costmodel diff` answers: the first model, what each change adds, the last model."""
    start, steps, end = diff_rows(first, last, context, batch, precision, cache_precision)
    notes = [f"{model.name}: {remark}" for model in (first, last) for remark in model.remarks(context)]
    title = f"{first.name} -> {last.name}, {workload(batch, context)}"
    return Table("diff", title, [start, *steps, end], STEPS, remarks=(*notes, *DIFF_REMARKS))


def columns(names: Sequence[str]) -> list[str]:
    """A heading for each model; one that is taken gets its place behind it.

    >>> columns(["gpt2", "gpt2"])
    ['gpt2', 'gpt2 (2)']
    """
    taken = ("quantity", *names)
    return [f"{name} ({place})" if name in taken[:place] else name for place, name in enumerate(names, 1)]


def published_remarks(stored: Precision | None) -> tuple[str, ...]:
    """What a reader of costs in bf16 should know of a checkpoint that is stored otherwise."""
    if stored is None or {stored.weights, stored.experts} == {"bf16"}:
        return ()
    told = f"published weights are {_form(stored.weights)}, experts {_form(stored.experts)}"
    return (f"{told}; costs are in bf16 unless a precision is chosen",)


def import_tables(imported: Imported) -> list[Table]:
    """What `costmodel import` answers: what became of each field of a config, and the parameters."""
    told = {"used": imported.used, "ignored": imported.ignored, "assumed": imported.assumed}
    fields = [{"field": name, "treated": how, "value": _stated(value)} for how, group in told.items() for name, value in group]
    model, stored = imported.architecture, imported.precision
    params = {f"params.{name}": value for name, value in model.params.as_dict().items()}
    rows = [{"quantity": name, "value": value} for name, value in params.items()]
    remarks = model.notes + imported.remarks
    remarks += published_remarks(stored)
    tables = [
        Table("fields", f"Fields of {model.title}", fields, remarks=remarks),
        Table("parameters", "Parameters", rows, row_units=dict.fromkeys(params, "parameters")),
    ]
    return tables if imported.stored is None else [*tables, stored_table(imported.stored)]


def stored_table(stored: StoredSize) -> Table:
    """A checkpoint's size beside ours, in each variant of what it may hold."""
    rows = [
        {
            "variant": name,
            "published_bytes": stored.published,
            "our_bytes": ours,
            "difference_percent": 100 * stored.off(name),
            "best": name == stored.best,
        }
        for name, ours in stored.variants.items()
    ] or [{"variant": "not compared", "published_bytes": stored.published}]
    remarks = (stored.remark,) if stored.remark else ()
    units = dict.fromkeys(("published_bytes", "our_bytes"), "bytes")
    return Table("stored", f"Size of the checkpoint, from {stored.source}", rows, units, remarks)


def _form(role: Role) -> str:
    """A role's format in words."""
    return role if isinstance(role, str) else f"{float(role):g} bytes an element"


def _stated(value: object) -> str:
    """A value of a config as a cell: JSON, cut where it is long."""
    if isinstance(value, str):
        return shorten(value, 100)
    return shorten(json.dumps(value), 100)


def summary_tables(model: Architecture, context: int, batch: int, precision: str, cache_precision: str) -> list[Table]:
    """What `costmodel show` answers: one table of quantities, one of parts."""
    cache = model.cache_bytes.having(precision=cache_precision)
    at = {"context": context, "batch": batch}
    rows: list[dict[str, Any]] = [
        {"quantity": f"params.{name}", "value": value, "unit": "parameters", "convention": PARAMETERS[name]}
        for name, value in model.params.as_dict().items()
        if value or name in ("total", "active")
    ]
    kept = cache(**at)
    rows += [
        _row("weight_bytes", model.weight_bytes(precision=precision), "bytes", f"stored, {precision}, scales included"),
        _row("cache_bytes", kept, "bytes", f"theory: what must be kept, {cache_precision}"),
        _row("cache_bytes_engine", cache(**at, view="engine"), "bytes", "engine: pages of 16 tokens, windows in full"),
        _row("cache_bytes_per_token", kept / (batch * context), "bytes", "mean at this context"),
        _row("prefill_flops", model.prefill_flops(**at), "FLOP", _passes(Phase.PREFILL, model)),
        _row("decode_flops", model.decode_flops(**at), "FLOP", _passes(Phase.DECODE, model)),
        _row(
            "decode_bytes_moved",
            model.bytes_moved(new_tokens=1, precision=precision, **at),
            "bytes",
            f"{precision} weights; each tensor once",
        ),
    ]
    rows += _outputs(model, batch)
    title = f"{model.title} ({model.maker}), {workload(batch, context)}"
    return [
        Table("quantities", title, rows, row_units={row["quantity"]: row["unit"] for row in rows}, remarks=model.remarks(context)),
        _parts(model, context, batch),
    ]


def _outputs(model: Architecture, batch: int) -> list[dict[str, Any]]:
    """What a whole output costs, where it is not written token after token."""
    if model.recursion:
        grid, steps = model.recursion.positions, model.recursion.steps
        one, all_steps = (model.solve_flops(context=grid, steps=number, batch=batch) for number in (1, steps))
        depth = f"{model.stored_layers} stored layers, applied {model.depth} times in a step"
        return [
            _row("solve_flops_step", one, "FLOP", f"one step over the grid's {grid:,} places; {depth}"),
            _row("solve_flops", all_steps, "FLOP", f"a puzzle that takes all {steps} steps"),
        ]
    if not model.diffusion:
        return []
    at = {"prompt": PROMPT, "generated": OUTPUT, "batch": batch}
    alone = model.autoregressive
    rows = [
        _row(f"{name}_{sampling}", getattr(model, name)(**at, steps=OUTPUT, sampling=sampling), unit, f"{OUTPUT} steps, {told}")
        for name, unit in (("generation_flops", "FLOP"), ("generation_bytes_moved", "bytes"))
        for sampling, told in (("blocks", f"blocks of {model.diffusion.block_length}, finished ones kept"), ("plain", "no cache"))
    ]
    like = f"the same shape, token after token; {PROMPT} + {OUTPUT} tokens"
    for name, unit in (("generation_flops", "FLOP"), ("generation_bytes_moved", "bytes")):
        ours, theirs = getattr(model, name), getattr(alone, name)
        rows.append(_row(f"{name}_autoregressive", theirs(**at), unit, like))
        meets = crossover(ours, theirs, over="steps", upto=OUTPUT, **at)
        told = f"denoising steps up to which blocks cost less, of {OUTPUT}"
        rows.append(_row(f"{name}_crossover", int(meets[0]) if meets else 0, "steps", told))
    return rows


PROMPT, OUTPUT = 512, 256
"""Tokens of a prompt, and written after it, where `show` prices a whole output of a model that denoises."""


def _row(quantity: str, value: int | float, unit: str, convention: str) -> dict[str, Any]:
    return {"quantity": quantity, "value": value, "unit": unit, "convention": convention}


def _passes(phase: Phase, model: Architecture) -> str:
    """How a pass is counted: the pairs, and the algorithms its blocks take."""
    forms = dict.fromkeys(block.algorithm(Pass(phase)) for group in model.layers for block in group.blocks if block.algorithms)
    pairs = "one token a sequence" if phase is Phase.DECODE else "the whole context"
    seen = "both ways" if any(group.mixer and group.mixer.looks_ahead for group in model.layers) else "causal"
    return ", ".join((pairs, seen, *forms, "logits of the last token"))


def _parts(model: Architecture, context: int, batch: int) -> Table:
    at = {"context": context, "batch": batch}
    columns: dict[str, Formula] = {
        "params": model.params.formula("total"), "active": model.params.formula("active"), "cache_bytes": model.cache_bytes,
        "prefill_flops": model.prefill_flops, "decode_flops": model.decode_flops,
    }  # fmt: skip
    layers = {group.name: group for group in model.layers}
    names = dict.fromkeys(name for formula in columns.values() for name in formula.parts)
    rows = []
    for name in names:
        blocks = " + ".join(block.kind for block in layers[name].blocks) if name in layers else ""
        row: dict[str, Any] = {"part": name, "layers": layers[name].count if name in layers else 1, "blocks": blocks}
        for column, formula in columns.items():
            part = formula.parts.get(name)
            row[column] = 0 if part is None else part(**(at if column.endswith(("bytes", "flops")) else {}))
        rows.append(row)
    return Table("parts", "By part", rows, STEPS)


PARAMETERS = {
    "total": "every trained tensor, tied tables once, towers included",
    "active": "used for one token of text; input table left out unless it is the head",
    "active_with_embedding": "the same with the input table",
    "embedding": "token table",
    "routed_experts": "all routed experts",
    "vision": "vision tower and projector, in the total",
    "mtp": "multi-token-prediction modules' own, outside the total",
}


def schema_table() -> Table:
    """Every field of an architecture file: the table it stands in, its type, whether it is required, and its meaning."""
    schema = Architecture.model_json_schema()
    rows = [
        {
            "table": name,
            "field": field,
            "type": _type_of(about),
            "required": "yes" if field in table.get("required", ()) else "no",
            "meaning": about.get("description", ""),
        }
        for name, table in {"architecture": schema, **schema["$defs"]}.items()
        for field, about in table.get("properties", {}).items()
    ]
    return Table("schema", "Fields of an architecture file", rows)


def _type_of(about: dict[str, Any]) -> str:
    """A field's JSON type in a word or two."""
    choices = about.get("anyOf") or about.get("oneOf") or [about]
    names = [
        choice.get("$ref", "").rpartition("/")[2] or str(choice.get("const") or choice.get("type", "any")) for choice in choices
    ]
    return " or ".join(dict.fromkeys(names))


def unequal_table(first: Architecture, last: Architecture) -> Table:
    """The fields in which two architectures differ, group by group; a field that only one has stands beside `none`."""
    one, other = _fields(first), _fields(last)
    names = columns([first.name, last.name])
    rows = [
        {"field": field, names[0]: one.get(field, "none"), names[1]: other.get(field, "none")}
        for field in {**_fields(first, stated=True), **_fields(last, stated=True)}
        if one.get(field, "none") != other.get(field, "none")
    ]
    return Table("unequal", f"{first.name} and {last.name}: unequal fields", rows)


NOT_COMPARED = {"name", "title", "maker", "released", "source", "notes", "reference", "pattern", "layers"}


def _fields(model: Architecture, *, stated: bool = False) -> dict[str, str]:
    """Every field by its path, or only those that a file states: kinds, and what is not at its default."""
    fields = _by_path(model.model_dump(mode="json"))
    if not stated:
        return fields
    own = _by_path(model.model_dump(exclude_defaults=True, mode="json"))
    return {
        field: value for field, value in fields.items() if field in own or field.endswith((".mixer.kind", ".feed_forward.kind"))
    }


def _by_path(dump: dict[str, Any]) -> dict[str, str]:
    tree = {name: value for name, value in dump.items() if name not in NOT_COMPARED}
    tree |= {group["name"]: {name: value for name, value in group.items() if name != "name"} for group in dump["layers"]}
    return dict(_leaves(tree))


def _leaves(tree: dict[str, Any], within: str = "") -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{within}{name}.")
        else:
            yield f"{within}{name}", "none" if value is None else f"{value:,}" if type(value) is int else str(value)


def validation_tables(found: Validation) -> list[Table]:
    """Each layer's seconds, predicted and measured, and the errors of both phases."""
    units = {"predicted_s": "s", "measured_s": "s", "error": "share"}
    remarks = ["the machine was noisy: the same product varied more than 1.5 times"] if found.noisy else []
    scores = [
        {"pass": phase, "n": of.n, "median_error": of.median, "p90_error": of.p90, "bias": of.bias}
        for phase in ("prefill", "decode")
        for of in [found.scores(phase)]
    ]
    return [
        Table("layers", "Layers, predicted and measured", list(found.rows), units, remarks=tuple(remarks)),
        Table("errors", "Errors", scores, dict.fromkeys(("median_error", "p90_error", "bias"), "share")),
    ]
