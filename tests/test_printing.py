"""One expression, four prints: the value of a Formula, its Python, its JavaScript (in node) and its spreadsheet formula agree.

Exactly wherever a value is below 2^53, within 1e-12 beyond, where floats end.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest
from sympy import Function, Rational, Symbol

import costmodel as cm
from costmodel.blocks import FAMILIES
from costmodel.evaluate import distinct_experts
from costmodel.formula import Formula
from costmodel.printing import as_excel, as_javascript, as_python, spreadsheet_block
from costmodel.symbols import LETTERS, B, S, W

EXACT = 2**53
POINTS = 8
DICE = random.Random(20_261_123)  # noqa: S311 - points of a test
ENGINE: dict[str, Any] = {"view": "engine", "evict_windows": True, "tp": 8}


def node() -> str:
    """Node, or the one that playwright brings along."""
    found = shutil.which("node")
    if found is None:
        driver = pytest.importorskip("playwright._impl._driver")
        found = str(driver.compute_driver_executable()[0])
    return found


def in_node(asked: list[tuple[dict[str, int], str]]) -> list[float]:
    """The values of JavaScript expressions, each with its letters, in one process."""
    program = (
        "const rows = JSON.parse(require('fs').readFileSync(0));"
        "const value = ([letters, code]) => new Function(...Object.keys(letters), 'return ' + code)(...Object.values(letters));"
        "console.log(JSON.stringify(rows.map(value)));"
    )
    done = subprocess.run([node(), "-e", program], input=json.dumps(asked), capture_output=True, text=True, check=True, timeout=120)  # noqa: S603
    values: list[float] = json.loads(done.stdout)
    return values


def of_a_model(name: str) -> Iterator[Formula]:
    """Every quantity of a preset, in the forms people ask for."""
    model = cm.load(name)
    yield from (model.params.formula(count) for count in ("total", "active", "routed_experts"))
    quantities = (
        model.cache_bytes, model.cache_bytes.having(**ENGINE), model.cache_bytes.having(precision="fp8"), model.flops,
        model.flops.having(attention="full", logits="all"), model.prefill_flops, model.decode_flops, model.training_flops,
        model.bytes_moved, model.weight_bytes.having(precision="q4_K"),
    )  # fmt: skip
    yield from quantities
    yield from (formula.derivative("context") for formula in quantities if "context" in formula.inputs)


def of_a_family(name: str) -> Iterator[Formula]:
    """Every quantity of one layer of a family, in letters."""
    family = cm.family(name)
    yield from (family.params.formula(count) for count in ("total", "active"))
    yield from (
        family.cache_bytes,
        family.cache_bytes.having(view="engine"),
        family.flops,
        family.prefill_flops,
        family.bytes_moved,
    )


def all_formulas() -> list[Formula]:
    extra = cm.load("qwen3-next-80b-a3b").cache_bytes.having(view="engine", hybrid_pages=True, speculative=2)
    models = [formula for name in cm.presets() for formula in of_a_model(name)]
    return [*models, *(formula for name in FAMILIES for formula in of_a_family(name)), extra]


def points(formula: Formula, count: int = POINTS) -> Iterator[dict[str, int]]:
    """Values of the letters: edges of windows and chunks, and random ones; T within S."""
    workload = [name for name in ("batch", "new_tokens", "context") if name in formula.inputs]
    fields = list(dict.fromkeys([*workload, *(LETTERS[symbol.name].field for symbol in formula.symbols)]))
    edges = (1, 2, 15, 16, 17, 63, 64, 65, 1023, 1024, 1025, 4096, 4097, 131_072)
    for number in range(count):
        context = edges[(number * 5 + len(fields)) % len(edges)] if number % 2 else DICE.randint(1, 1 << 21)
        values = {field: 2 * DICE.randint(1, 40) for field in fields}
        values |= {
            "context": context,
            "batch": DICE.choice((1, 3, 64)),
            "new_tokens": DICE.choice((1, DICE.randint(1, context))),
        }
        if "num_experts" in fields:
            values |= {"num_experts": 64, "num_experts_per_tok": DICE.randint(1, 63)}
        yield {field: values[field] for field in fields}


def agree(one: float, exact: float, name: str) -> None:
    """Equal while floats are exact (expectations over experts are floats throughout), else within 1e-12."""
    same = one == exact if abs(exact) < EXACT and isinstance(exact, int) else math.isclose(one, exact, rel_tol=1e-12)
    assert same, (name, one, exact)


@pytest.fixture(scope="module")
def asked() -> list[tuple[Formula, dict[str, int], Any]]:
    """Each formula at its points, with its own value there."""
    return [(formula, at, formula(**at)) for formula in all_formulas() for at in points(formula)]


def test_python_is_exact(asked: list[tuple[Formula, dict[str, int], Any]]) -> None:
    for formula, at, exact in asked:
        value = eval(formula.python, {"math": math, "Fraction": Fraction}, dict(at))  # noqa: S307 - printed by us
        if isinstance(exact, int):
            assert value == exact, formula.name
        else:
            assert math.isclose(value, exact, rel_tol=1e-12), formula.name


def test_javascript_agrees(asked: list[tuple[Formula, dict[str, int], Any]]) -> None:
    values = in_node([(at, formula.javascript) for formula, at, _ in asked])
    for value, (formula, _, exact) in zip(values, asked, strict=True):
        agree(value, exact, formula.name)


def computed(text: str, cells: dict[str, int]) -> float:
    """What a spreadsheet makes of a formula."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package's own, of numpy and of syntax
        formulas = pytest.importorskip("formulas")
        function = formulas.Parser().ast(f"={text}")[1].compile()
        return float(function(**{name: cells[name] for name in function.inputs}))


CELLS = {name: f"{chr(65 + place)}1" for place, name in enumerate(("batch", "new_tokens", "context"))}


@pytest.mark.parametrize("name", ["deepseek-v3", "gemma-3-27b", "qwen3-next-80b-a3b", "gpt2"])
def test_a_spreadsheet_agrees(name: str) -> None:
    for formula in of_a_model(name):
        text = as_excel(formula.expr, CELLS)
        assert len(text) < 8_192  # the longest formula of a cell
        for at in points(formula, 3):
            agree(computed(text, {CELLS[field]: value for field, value in at.items()}), formula(**at), formula.name)


def test_every_spreadsheet_formula_fits_a_cell_and_begins_none_by_name() -> None:
    for formula in all_formulas():
        assert len(formula.excel) < 8_000
        block = spreadsheet_block(formula, {LETTERS[symbol.name].field: 3 for symbol in formula.symbols})
        lines = [line.split("\t") for line in block.splitlines()]
        assert all(len(line) == 2 and line[0][0] not in "=+-@" for line in lines)
        assert [line[1][0] == "=" for line in lines] == [False] * (len(lines) - 1) + [True]


def test_a_block_pasted_at_a1_computes_the_value() -> None:
    formula = cm.load("gemma-3-27b").cache_bytes
    *letters, (_, text) = (line.split("\t") for line in spreadsheet_block(formula, {"context": 9_000, "batch": 3}).splitlines())
    cells = {f"B{row}": int(value) for row, (_, value) in enumerate(letters, 1)}
    assert computed(text[1:], cells) == formula(context=9_000, batch=3)


def test_wrong_prints_would_be_seen() -> None:
    """The comparison can fail: one token more is another value in each language."""
    formula = cm.load("gemma-3-27b").prefill_flops
    at = {"context": 4_096, "batch": 1}
    exact = formula(**at)
    assert eval(formula.python.replace("1024", "1025"), {"math": math}, dict(at)) != exact  # noqa: S307
    assert in_node([(at, formula.javascript.replace("1024", "1025"))]) != [exact]
    with pytest.raises(AssertionError):
        agree(exact + 1, exact, "off by one")


@pytest.mark.parametrize("printer", [as_python, as_javascript, as_excel])
def test_what_cannot_be_printed_is_refused(printer: Any) -> None:
    for expr in (Function("f")(S), Symbol("zzz") * S):
        with pytest.raises(cm.CostModelError) as error:
            printer(expr)
        assert "\n" not in str(error.value)


def test_expectations_and_fractions() -> None:
    expr = distinct_experts(W, 8, B) * Rational(1, 3)
    at = {"sliding_window": 256, "batch": 40}
    value = 256 * (1 - (1 - 8 / 256) ** 40) / 3
    assert eval(as_python(expr), {"math": math, "Fraction": Fraction}, dict(at)) == pytest.approx(value, rel=1e-12)  # noqa: S307
    assert in_node([(at, as_javascript(expr))]) == [pytest.approx(value, rel=1e-12)]
    assert computed(as_excel(expr, {"batch": "A1", "sliding_window": "B1"}), {"A1": 40, "B1": 256}) == pytest.approx(
        value, rel=1e-12
    )
