"""What is printed as Python, JavaScript and for spreadsheets gives what the Formula gives, to the last byte below 2^53."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy import Eq, I, Max, Ne, Piecewise, Symbol, ceiling, cos, floor, log, nan, oo, pi, sqrt

import costmodel as cm
from costmodel.blocks import FAMILIES
from costmodel.families import ALIASES
from costmodel.formula import Formula
from costmodel.printing import as_excel, as_javascript, as_python, spreadsheet_block
from costmodel.quantities import Quantities
from costmodel.symbols import LETTERS, S, T, W
from tests.families import BLOCKS, architectures

QUANTITIES = ("cache_bytes", "flops", "prefill_flops", "decode_flops", "training_flops", "weight_bytes", "bytes_moved")
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "cache_bytes": [
        {"view": "engine"},
        {"view": "engine", "evict_windows": True},
        {"view": "engine", "tp": 3, "speculative": 2, "precision": "fp8"},
        {"precision": cm.Precision(cache=0.3)},
    ],
    "flops": [{"attention": "full"}, {"logits": "all"}, {"algorithm": ("recurrent", "absorbed")}],
    "training_flops": [{"recompute": "full"}, {"method": "6nd"}],
    "weight_bytes": [{"precision": "int4"}],
    "bytes_moved": [{"precision": "fp8"}, {"precision": "int4", "attention": "full"}],
}
EDGES = (1, 2, 63, 64, 65, 511, 512, 513, 1023, 1024, 1025, 4095, 4096, 4097, 2**21 - 1, 2**21)
EXACT = 2**53
PRECISE = 1e-12
POINTS, SPREADSHEET_POINTS = 12, 4
EXCEL_CHARACTERS = 8_192
TOGETHER = pytest.mark.xdist_group("every formula")
"""In one process, which then makes `everything()` once."""

Point = dict[str, int]
Case = tuple[str, Formula, list[Point]]
Cases = list[Case]
Evaluation = Callable[[Cases], list[list[Any]]]


def formulas_of(thing: Quantities, options: bool = True) -> Iterator[Formula]:
    """Every quantity of a model or family: with all its derivatives, and under some options."""
    for name in QUANTITIES:
        formula: Formula = getattr(thing, name)
        yield formula
        yield from (formula.derivative(symbol.name) for symbol in formula.symbols)
        yield from (formula.having(**chosen) for chosen in OPTIONS.get(name, []) if options)
    for count in thing.params.NAMES:
        yield thing.params.formula(count)


def workload(draw: random.Random, letters: list[str]) -> Point:
    context = draw.choice(EDGES) if draw.random() < 0.5 else round(2 ** draw.uniform(0, 21))
    new_tokens = draw.choice((1, context, draw.randint(1, context)))
    return {"batch": draw.choice((1, 2, 3, draw.randint(1, 512))), "new_tokens": new_tokens, "context": context}


def sizes(draw: random.Random, letters: list[str]) -> Point:
    """A workload and a number for every other letter of a family; fewer experts a token than experts."""
    point = workload(draw, letters)
    return {name: draw.randint(1, 512) for name in letters} | {"num_experts": draw.randint(513, 2048)} | point


def has_attention(model: cm.Architecture) -> bool:
    """Whether the usual formula has anything to say of a model."""
    return any(group.mixer is not None and group.mixer.usual_heads is not None for group in model.layers)


def of_models() -> Cases:
    every = [(name, formula) for name in cm.presets() for formula in formulas_of(cm.load(name))]
    every += [(name, cm.load(name).cache_bytes.having(method="2lhd")) for name in cm.presets() if has_attention(cm.load(name))]
    every += [("hybrid pages", cm.load("qwen3-next-80b-a3b").cache_bytes.having(view="engine", hybrid_pages=True))]
    return [chosen(name, formula, workload) for name, formula in every]


def of_families() -> Cases:
    every = [(name, formula) for name in sorted({*FAMILIES, *ALIASES}) for formula in formulas_of(cm.family(name), options=False)]
    return [chosen(name, formula, sizes) for name, formula in every]


def chosen(name: str, formula: Formula, drawn: Callable[[random.Random, list[str]], Point]) -> Case:
    """A formula with points that give the letters it depends on: its own, whatever other formulas there are."""
    letters = names(formula)
    draw = random.Random(f"{name} {formula.name}")  # noqa: S311 - points, not secrets
    points = [drawn(draw, letters) for _ in range(POINTS)]
    return f"{name} {formula.name}", formula, [{key: point[key] for key in letters} for point in points]


@cache
def everything() -> Cases:
    """Each expression once."""
    return list({case[1].expr: case for case in [*of_models(), *of_families()]}.values())


def names(formula: Formula) -> list[str]:
    return [LETTERS[symbol.name].field for symbol in formula.symbols]


@cache
def value(formula: Formula, point: tuple[tuple[str, int], ...]) -> int | float:
    """A Formula's own value; the context may be any where its expression does not depend on it."""
    idle = {"context": dict(point).get("new_tokens", 1)} if "context" in formula.inputs else {}
    return formula(**(idle | dict(point)))  # type: ignore[no-any-return]  # no array went in


def by_python(cases: Cases) -> list[list[int | float]]:
    """Evaluated with nothing but `math` and what is always there."""
    plain = {"__builtins__": {"min": min, "max": max}, "math": math}
    texts = [compile(formula.python, formula.name, "eval") for _, formula, _ in cases]
    return [[eval(text, plain | point) for point in case[2]] for text, case in zip(texts, cases, strict=True)]  # noqa: S307 - ours


def by_javascript(cases: Cases) -> list[list[float]]:
    """All in one process of node."""
    program = """
    const tasks = JSON.parse(require("fs").readFileSync(0, "utf8"));
    const run = ([names, text, points]) => {
        const f = new Function(...names, `"use strict"; return ${text};`);
        return points.map((point) => f(...names.map((name) => point[name])));
    };
    process.stdout.write(JSON.stringify(tasks.map(run)));
    """
    tasks = [(names(formula), formula.javascript, points) for _, formula, points in cases]
    done = subprocess.run([node(), "-e", program], input=json.dumps(tasks), capture_output=True, text=True, check=True)  # noqa: S603
    return json.loads(done.stdout, parse_int=float)  # type: ignore[no-any-return]


@cache
def node() -> str:
    """The node on the path, else the one that playwright ships."""
    found = shutil.which("node")
    if found is None:
        driver = pytest.importorskip("playwright._impl._driver", reason="needs node, or playwright for its own")
        executable = driver.compute_driver_executable()
        found = executable[0] if isinstance(executable, tuple) else str(Path(executable).with_name("node"))
    return found


def by_spreadsheet(cases: Cases) -> list[list[float]]:
    """Through the block that is pasted at A1; slow, so at a few of the points."""
    return [pasted(formula, points[:SPREADSHEET_POINTS]) for _, formula, points in cases]


def pasted(formula: Formula, points: list[Point]) -> list[float]:
    *letters, (name, text) = (line.split("\t") for line in spreadsheet_block(formula, points[0]).splitlines())
    assert [letter for letter, _ in letters] == names(formula)
    assert name == formula.name
    fields = {f"B{row}": letter for row, (letter, _) in enumerate(letters, 1)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the evaluator's own
        called = pytest.importorskip("formulas").Parser().ast(text)[1].compile()
        return [float(called(*[point[fields[cell]] for cell in called.inputs])) for point in points]


def disagreements(cases: Cases, results: list[list[Any]]) -> list[str]:
    """Where a result is not the Formula's value: exactly, or within `PRECISE` where doubles have no exact one."""
    wrong = []
    for (name, formula, points), numbers in zip(cases, results, strict=True):
        assert numbers, name
        for point, number in zip(points, numbers, strict=False):  # a spreadsheet has fewer
            expected = value(formula, tuple(point.items()))
            if not agrees(number, expected):
                wrong.append(f"{name} at {point}: {number!r}, not {expected!r}")
    return wrong


def agrees(number: Any, expected: int | float) -> bool:
    whole = isinstance(expected, int) and (isinstance(number, int) or abs(expected) < EXACT)
    return number == expected if whole else abs(number - expected) <= PRECISE * abs(expected)


@TOGETHER
@pytest.mark.slow
@pytest.mark.parametrize("evaluated", [by_python, by_javascript, by_spreadsheet])
def test_every_formula_is_printed_as_it_is(evaluated: Evaluation) -> None:
    cases = everything()
    assert disagreements(cases, evaluated(cases)) == []


@pytest.mark.parametrize("kind", BLOCKS)
@settings(max_examples=3)
@given(data=st.data())
def test_random_architectures_are_printed_as_they_are(kind: str, data: st.DataObject) -> None:
    model = data.draw(architectures(kind))
    cases = [chosen(kind, formula, workload) for formula in formulas_of(model)]
    for evaluated in (by_python, by_javascript):
        assert disagreements(cases, evaluated(cases)) == []


@TOGETHER
def test_python_gives_ints_where_the_formula_does() -> None:
    for (_, formula, points), numbers in zip(everything(), by_python(everything()), strict=True):
        for point, number in zip(points, numbers, strict=True):
            expected = value(formula, tuple(point.items()))
            assert not isinstance(expected, int) or type(number) is int, (formula.name, point)


def test_every_expert_used_is_all_of_them() -> None:
    formula = cm.family("moe").bytes_moved
    cases = [("moe", formula, [dict.fromkeys(names(formula), 8)])]
    for evaluated in (by_python, by_javascript, by_spreadsheet):
        assert disagreements(cases, evaluated(cases)) == []


@pytest.mark.parametrize("evaluated", [by_python, by_javascript, by_spreadsheet])
def test_another_formula_s_numbers_are_told_apart(evaluated: Evaluation) -> None:
    """The comparison can fail: two models that differ by a window, at contexts up to it and beyond."""
    points = [{"batch": 1, "context": context} for context in (4096, 4097)]
    windowed, whole = (cm.load(name).cache_bytes for name in ("mistral-7b-v0.1", "llama-3.1-8b"))
    printed = evaluated([("llama", whole, points)])
    (only,) = disagreements([("mistral", windowed, points)], printed)
    assert only.startswith("mistral at {'batch': 1, 'context': 4097}")


def test_quotients_are_exact() -> None:
    """Whole ones without a detour through floats; others as the nearest float."""
    pairs = T * (T - 1) / 2
    assert as_python(pairs) == "new_tokens*(new_tokens - 1) // 2"
    assert as_javascript(pairs) == "new_tokens*(new_tokens - 1)/2"
    assert as_python(ceiling(S / 16) - floor((S + T) / W)) == "-(-context // 16) - ((context + new_tokens) // sliding_window)"
    cache = cm.load("llama-3.1-8b").cache_bytes.having(precision=cm.Precision(cache=0.3))
    for batch, context in ((5 * 10**11, 10**12), (1, 1), (10**12, 10**12 - 1)):
        found = eval(cache.python, {"batch": batch, "context": context})  # noqa: S307 - our own text
        assert found == cache(batch=batch, context=context)
        assert type(found) is type(cache(batch=batch, context=context))


def test_long_numbers_reach_a_spreadsheet_whole() -> None:
    """It keeps 15 digits of what is typed."""
    assert as_excel(S * (10**15 + 1)) == "(1000000*1000000000 + 1)*context"
    assert as_excel(S - 10**15 - 1) == "context - (1000000*1000000000 + 1)"
    assert all(number < 10**15 for number in map(int, re.findall(r"\d+", as_excel(S + 3**90))))


@TOGETHER
def test_no_formula_is_too_long_for_excel() -> None:
    assert max(len(formula.excel) for _, formula, _ in everything()) < EXCEL_CHARACTERS


def test_powers_relations_and_logarithms() -> None:
    expr = Piecewise((Max(S, T) ** 3, Ne(S, T)), (log(S) / T + 0.5, S < 2 * T / 3), (sqrt(S), True))
    assert as_python(expr) == (
        "max(context, new_tokens)**3 if context != new_tokens else "
        "0.5 + math.log(context)/new_tokens if 3*context < 2*new_tokens else context**(1/2)"
    )
    assert as_javascript(S**5 / T) == "Math.pow(context, 5)/new_tokens"
    assert as_javascript(Piecewise((1, Eq(S, T)), (0, True))) == "context === new_tokens ? 1 : 0"
    assert as_excel(Piecewise((S**-2, Ne(S, T)), (0, True))) == "IF(context <> new_tokens, 1/(context*context), 0)"
    assert as_excel(ceiling((S - T) / 16)) == "-INT(-(context - new_tokens)/16)"


UNPRINTABLE = [
    cos(S), pi * S, I, nan, oo, Symbol("S"), Symbol("x"), S > 1,
    Piecewise((S, S > 1)), Piecewise((1, (S > 1) & (T > 1)), (0, True)),
]  # fmt: skip


@pytest.mark.parametrize("expr", UNPRINTABLE, ids=str)
@pytest.mark.parametrize("printed", [as_python, as_javascript, as_excel])
def test_what_cannot_be_printed_is_refused(printed: Any, expr: Any) -> None:
    with pytest.raises(cm.CostModelError, match=r"\A[^\n]+\Z"):
        printed(expr)


def test_a_block_for_a_spreadsheet() -> None:
    formula = cm.load("gemma-3-27b").cache_bytes
    rows = ["batch\t4", "context\t131072", "cache_bytes\t=81920*B1*B2 + 425984*B1*MIN(B2, 1024)"]
    assert spreadsheet_block(formula, {"S": 131_072, "batch": 4, "new_tokens": 1}) == "\n".join(rows)
    with pytest.raises(cm.CostModelError, match="needs context"):
        spreadsheet_block(formula, {"batch": 1})
    with pytest.raises(cm.CostModelError, match="no letter 'contxt'"):
        spreadsheet_block(formula, {"contxt": 1})
    with pytest.raises(cm.CostModelError, match="no letter 'contxt'"):
        as_excel(formula.expr, {"contxt": "B1"})
    with pytest.raises(cm.CostModelError, match="context got '=1'"):
        spreadsheet_block(formula, {"context": "=1"})  # type: ignore[dict-item]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", "a\t=1", "a\n=1", "\t=1"])
def test_a_name_never_begins_a_formula(name: str) -> None:
    """The names of parts may come from a file."""
    _, row = spreadsheet_block(SimpleNamespace(name=name, expr=S), {"context": 7}).split("\n")
    label, text = row.split("\t")
    assert label[0] not in "=+-@"
    assert text == "=B1"


def test_printing_waits_until_it_is_asked_for() -> None:
    script = "import sys, costmodel as cm; cm.load('gpt2').cache_bytes(context=9); print('costmodel.printing' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == "False"
