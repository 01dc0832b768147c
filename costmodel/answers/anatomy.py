"""Where parameters, bytes and FLOPs are: the layers in order, and a quantity's parts within parts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from costmodel.architecture import Architecture
from costmodel.formula import Formula
from costmodel.layers import LayerGroup
from costmodel.scenario import Scenario
from costmodel.units import tokens


def layer_runs(model: Architecture) -> list[dict[str, Any]]:
    """Stretches of equal layers, first to last: `first` and `last` (from 1), the group and what its layers are.

    >>> import costmodel as cm
    >>> [(run["first"], run["last"], run["group"]) for run in layer_runs(cm.load("deepseek-v3"))]
    [(1, 3, 'dense'), (4, 61, 'moe')]
    """
    groups = {group.name: group for group in model.layers}
    runs, first = [], 1
    for name, layers in groupby(model.layer_order):
        last = first + len(list(layers)) - 1
        runs.append({"first": first, "last": last, "group": name, "layer": described(groups[name], kept=not model.recursion)})
        first = last + 1
    return runs


def described(group: LayerGroup, *, kept: bool = True) -> str:
    """A layer of a group in a line: its blocks, and what it keeps, where anything is kept.

    >>> import costmodel as cm
    >>> described(cm.load("gemma-3-27b").layers[0])
    'gqa + mlp; sliding window: keep only 1,024 tokens'
    """
    blocks = " + ".join(block.kind for block in group.blocks)
    return blocks if group.mixer is None or not kept else f"{blocks}; {group.mixer.keeping}: {group.mixer.keeps}"


def part_rows(formula: Formula, inputs: dict[str, int]) -> list[dict[str, Any]]:
    """A quantity and its parts within parts, as rows: `path` (from the whole down), `formula`, `value`, `share` of the whole.

    The values of the parts of a part sum to it exactly.

    >>> import costmodel as cm
    >>> rows = part_rows(cm.load("gpt2").cache_bytes, {"context": 1024})
    >>> [row["path"] for row in rows]
    ['cache_bytes', 'cache_bytes/dense', 'cache_bytes/dense/gqa', 'cache_bytes/dense/gqa/attention']
    """
    whole = formula(**inputs)
    return [
        {"path": path, "formula": str(part.expr), "value": value, "share": value / whole if whole else 0.0}
        for path, part in _walked(formula, formula.name.removeprefix("params."))
        for value in [part(**inputs)]
        if value or part is formula
    ]


def _walked(formula: Formula, path: str) -> Iterator[tuple[str, Formula]]:
    yield path, formula
    for name, part in formula.parts.items():
        yield from _walked(part, f"{path}/{name}")


def anatomy_sentence(model: Architecture, scenario: Scenario, rows: list[dict[str, Any]]) -> str:
    """Where the quantity mostly is, in words."""
    ops = sorted((row for row in rows if row["path"].count("/") == 3), key=lambda row: -row["share"])[:3]
    told = ", ".join(f"{row['path'].split('/', 1)[1]} {row['share']:.1%}" for row in ops)
    runs = layer_runs(model)
    kinds = len({run["group"] for run in runs})
    layers = f"{model.title} has {model.depth} layers of {kinds} kind{'s' if kinds > 1 else ''}"
    return f"{layers}. Most of it at {tokens(scenario.context)} tokens: {told}." if told else f"{layers}."
