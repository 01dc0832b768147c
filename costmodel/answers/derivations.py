"""From letters to numbers to a value: the formulas of a family, and of each layer of a model, with what they rest on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sympy import Expr, Integer, Symbol, latex
from sympy.core.relational import Relational
from sympy.printing.str import StrPrinter

from costmodel.architecture import Architecture
from costmodel.blocks import Block
from costmodel.blocks.base import letters_of
from costmodel.catalog import load, presets
from costmodel.errors import CostModelError
from costmodel.families import Family, family
from costmodel.formula import Formula
from costmodel.printing import spreadsheet_block
from costmodel.scenario import Scenario
from costmodel.symbols import LATEX_NAMES, LETTERS, B, S, T, d_model
from costmodel.tables import Table
from costmodel.units import quantity as told
from costmodel.units import workload


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
    } | {name: None for name in ("q_lora_rank", "v_low_rank_dim") if name in letters and getattr(block, name, 0) is None}


def _example(lettered: Family) -> Architecture:
    """The first preset that has the family."""
    for name in PREFERRED + tuple(presets()):
        if any(_fits(lettered, block) for group in load(name).layers for block in group.blocks):
            return load(name)
    raise CostModelError(f"no preset has a {lettered.name} layer; name one with --preset")


PREFERRED = ("llama-3.1-70b", "deepseek-v3", "qwen3-next-80b-a3b", "gemma-3-27b")


@dataclass(frozen=True)
class Part:
    """The formula of one kind of layer, in letters: for whom, as LaTeX, and the numbers behind the letters."""

    title: str
    latex: str
    letters: str


@dataclass(frozen=True)
class Derivation:
    """How one number of a model is made: parts in letters, the whole with numbers, its value, sources and copies."""

    parts: tuple[Part, ...]
    latex: str
    substituted: str
    value: str
    source: str
    status: str
    table: Table
    copies: dict[str, tuple[str, str]]


def derivation(model: Architecture, scenario: Scenario, name: str) -> Derivation:
    r"""Each step from letters to the value of a quantity (`scenario.QUANTITIES`) of a model at a scenario.

    >>> import costmodel as cm
    >>> steps = derivation(cm.load("deepseek-v3"), Scenario(context=4096), "cache_bytes")
    >>> steps.parts[0].latex, steps.substituted
    ('B\\,S\\,b_{kv}\\,\\left(d_{c} + d_{h}^{R}\\right)', '70272*1*4096')
    """
    formula = scenario.formula(model, name)
    inputs = scenario.inputs(formula)
    value = formula(**inputs)
    numbers = {symbol: inputs[LETTERS[symbol.name].field] for symbol in formula.symbols}
    rows = formula.rows(**inputs)
    return Derivation(
        parts=tuple(_parts(model, scenario, name)),
        latex=_as_latex(_taken(formula.expr, numbers)),
        substituted=_Substituted(numbers).doprint(_taken(formula.expr, numbers)),
        value=f"{value:,} {formula.unit} ({told(value, formula.unit, scenario.units)})",
        source=formula.source or "sums of stored tensors",
        status=formula.status,
        table=Table("parts", f"{formula.name} by part", rows, {"value": formula.unit}),
        copies={
            "LaTeX": ("latex", formula.latex),
            "Python": ("python", formula.python),
            "JavaScript": ("javascript", formula.javascript),
            "Excel": ("text", spreadsheet_block(formula, inputs)),
        },
    )


def _taken(expr: Expr, numbers: Mapping[Symbol, int]) -> Expr:
    """An expression with its conditions decided, as a context is one token or more."""
    conditions = {
        condition: condition.xreplace({letter: Integer(n) for letter, n in numbers.items()}) for condition in expr.atoms(Relational)
    }
    return expr.xreplace(conditions)


def _as_latex(expr: Expr) -> str:
    return latex(expr, mul_symbol=r"\,", symbol_names=LATEX_NAMES)  # type: ignore[no-any-return]  # sympy is untyped


def _parts(model: Architecture, scenario: Scenario, name: str) -> Iterator[Part]:
    """Each kind of layer that the quantity counts, in letters, with the numbers of its blocks."""
    found: dict[tuple[str, str, str], int] = {}
    for group in model.layers:
        for block in group.blocks:
            formula = _in_letters(block, scenario, name)
            if formula.expr == 0:
                continue
            numbers = {**block.binding(), d_model: model.hidden_size}
            letters = [f"{symbol.name} = {int(numbers[symbol]):,}" for symbol in formula.symbols if symbol in numbers]
            expr = _taken(formula.expr, {S: scenario.context, T: 1})
            asked = (block.kind, _as_latex(expr), ", ".join(letters))
            found[asked] = found.get(asked, 0) + group.count
    for (kind, text, letters_told), layers in found.items():
        yield Part(f"{kind}, {layers} layers", text, letters_told)


def _in_letters(block: Block, scenario: Scenario, name: str) -> Formula:
    """A quantity of one layer of a block's family, with the block's options."""
    lettered = family(block.kind, **_features(block, family(block.kind)))
    if name in ("params", "active"):
        return lettered.params.formula("total" if name == "params" else "active")
    formula: Formula = getattr(lettered, name)
    return formula.having(view=scenario.view) if name == "cache_bytes" else formula
