"""The tables that answer a question about one model or one family, ready to be printed in any format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from textwrap import shorten
from typing import Any

from sympy import Symbol
from sympy.printing.str import StrPrinter

from costmodel.architecture import Architecture
from costmodel.blocks import Block
from costmodel.blocks.base import letters_of
from costmodel.catalog import load, presets
from costmodel.comparison import comparison_rows, diff_rows
from costmodel.errors import CostModelError
from costmodel.families import Family, family
from costmodel.formula import Formula
from costmodel.importers import Imported
from costmodel.symbols import LETTERS, B, S, d_model
from costmodel.tables import Table
from costmodel.units import workload
from costmodel.workload import Pass, Phase

COMPARISON_REMARKS = (
    "cache_bytes is what must be kept (theory); cache_bytes_engine what a paged server reserves: pages of 16 tokens, "
    "windows in full",
    "one multiply-add is 2 FLOP; causal pairs, logits of the last token; prefill is the whole context, decode one token "
    "for each sequence",
)


STEPS = {"params": "parameters", "active": "parameters", "cache_bytes": "bytes", "prefill_flops": "FLOP", "decode_flops": "FLOP"}
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
        names = columns([row["name"] for row in rows])
        rows = [{"quantity": key, **{name: row[key] for name, row in zip(names, rows, strict=True)}} for key in COMPARED]
    return Table("compare", workload(batch, context), rows, row_units=COMPARED, remarks=remarks)


def diff_table(first: Architecture, last: Architecture, context: int, batch: int) -> Table:
    """What `costmodel diff` answers: the first model, what each change adds, the last model."""
    start, steps, end = diff_rows(first, last, context, batch)
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


def import_tables(imported: Imported) -> list[Table]:
    """What `costmodel import` answers: what became of each field of a config, and the parameters."""
    told = {"used": imported.used, "ignored": imported.ignored, "assumed": imported.assumed}
    fields = [{"field": name, "treated": how, "value": _stated(value)} for how, group in told.items() for name, value in group]
    model, stored = imported.architecture, imported.precision
    params = {f"params.{name}": value for name, value in model.params.as_dict().items()}
    rows = [{"quantity": name, "value": value} for name, value in params.items()]
    remarks = model.notes
    if stored is not None:
        told_stored = f"published weights are {stored.weights}, experts {stored.experts}"
        remarks += (f"{told_stored}; costs are in bf16 unless a precision is chosen",)
    return [
        Table("fields", f"Fields of {model.title}", fields, remarks=remarks),
        Table("parameters", "Parameters", rows, row_units=dict.fromkeys(params, "parameters")),
    ]


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
    title = f"{model.title} ({model.maker}), {workload(batch, context)}"
    return [
        Table("quantities", title, rows, row_units={row["quantity"]: row["unit"] for row in rows}, remarks=model.remarks(context)),
        _parts(model, context, batch),
    ]


def _row(quantity: str, value: int | float, unit: str, convention: str) -> dict[str, Any]:
    return {"quantity": quantity, "value": value, "unit": unit, "convention": convention}


def _passes(phase: Phase, model: Architecture) -> str:
    """How a pass is counted: the pairs, and the algorithms its blocks take."""
    forms = dict.fromkeys(block.algorithm(Pass(phase)) for group in model.layers for block in group.blocks if block.algorithms)
    pairs = "one token a sequence" if phase is Phase.DECODE else "the whole context"
    return ", ".join((pairs, "causal", *forms, "logits of the last token"))


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


def derivation_tables(name: str, preset: str | None, context: int, batch: int) -> list[Table]:
    """What `costmodel derive` answers: each formula of a family in letters, with a preset's numbers, and its value."""
    lettered = family(name)
    model = load(preset) if preset else _example(lettered)
    block = next((block for group in model.layers for block in group.blocks if _fits(lettered, block)), None)
    if block is None:
        raise CostModelError(f"{model.name} has no {name} layer; choose another preset or leave --preset out")
    exact = family(name, **_features(block, lettered))
    numbers = {letter: int(value) for letter, value in block.binding().items()} | {d_model: model.hidden_size}
    formulas = (
        exact.params.formula("total"), exact.params.formula("active"), exact.cache_bytes, exact.prefill_flops, exact.decode_flops,
    )  # fmt: skip
    rows = [_derived(formula, numbers, context, batch) for formula in formulas]
    fields = {letter: name for name, letter in letters_of(type(block)).items()}
    used = dict.fromkeys(symbol for formula in formulas for symbol in formula.symbols)
    letters = [
        {
            "letter": symbol.name,
            "field": fields.get(symbol, LETTERS[symbol.name].field),
            "value": numbers.get(symbol, {"B": batch, "S": context}.get(symbol.name, LETTERS[symbol.name].default)),
            "meaning": LETTERS[symbol.name].meaning,
        }
        for symbol in used
    ]
    remarks = (*model.remarks(context), f"source: {exact.source}", f"numbers of one layer of {model.name}; {model.source}")
    title = f"{exact.title} One layer, {workload(batch, context)}, numbers of {model.title}"
    return [Table("formulas", title, rows, remarks=remarks, vertical=True), Table("letters", "Letters", letters)]


class _Substituted(StrPrinter):  # type: ignore[misc]  # sympy is untyped
    """Prints numbers in the place of letters, and leaves the rest as it stands: the step between letters and value."""

    def __init__(self, numbers: dict[Symbol, int]) -> None:
        super().__init__()
        self._numbers = numbers

    def _print_Symbol(self, symbol: Symbol) -> str:  # noqa: N802 - sympy's name
        return str(self._numbers.get(symbol, symbol.name))


def _derived(formula: Formula, numbers: dict[Symbol, int], context: int, batch: int) -> dict[str, Any]:
    """One formula in letters, with numbers, and its value."""
    values = {**numbers, S: context, B: batch}
    return {
        "quantity": formula.name,
        "letters": str(formula.expr),
        "numbers": _Substituted(numbers).doprint(formula.expr),
        "value": formula(**{symbol.name: value for symbol, value in values.items() if symbol in formula.symbols}),
        "unit": formula.unit,
        "latex": formula.latex,
        "source": formula.source,
    }


def _fits(lettered: Family, block: Block) -> bool:
    """A block of the family, and of the special case where the name asks for one."""
    if block.kind != lettered.block.kind:
        return False
    if lettered.binding:
        numbers = block.binding()
        return all(letter.xreplace(numbers) == value.xreplace(numbers) for letter, value in lettered.binding.items())
    return all(getattr(block, name) is not None for name in lettered.turned_on)


def _features(block: Block, lettered: Family) -> dict[str, Any]:
    """The options of a preset's block, for the family's formulas: sizes stay letters, options are what they are."""
    letters = letters_of(type(block))
    return {
        name: True if name in letters else value
        for name, value in block.model_dump().items()
        if name != "kind" and not type(block).model_fields[name].is_required() and value not in (None, 0, False)
    } | {name: None for name in ("q_lora_rank",) if name in letters and getattr(block, name, 0) is None}


def _example(lettered: Family) -> Architecture:
    """The first preset that has the family."""
    for name in PREFERRED + tuple(presets()):
        if any(_fits(lettered, block) for group in load(name).layers for block in group.blocks):
            return load(name)
    raise CostModelError(f"no preset has a {lettered.name} layer; name one with --preset")


PREFERRED = ("llama-3.1-70b", "deepseek-v3", "qwen3-next-80b-a3b", "gemma-3-27b")
