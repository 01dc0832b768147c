"""All presets side by side: size against what one more token costs, and the frontier of those that none beats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from costmodel.architecture import Architecture
from costmodel.blocks.base import Keeping
from costmodel.evaluate import evaluate
from costmodel.scenario import Scenario
from costmodel.symbols import B, T

AXES = {
    "cache_bytes_per_token": "bytes",
    "decode_flops": "FLOP",
    "params_active": "parameters",
}
"""What a model is placed by, against its size or its date; with units."""


def keeping(model: Architecture) -> Keeping:
    """What sets a model's cache apart: the first of state, latent and window that any of its layers has, else full attention;
    nothing for a recursive reasoner.

    >>> import costmodel as cm
    >>> str(keeping(cm.load("gemma-3-27b")))
    'sliding window'
    """
    if model.recursion:
        return Keeping.NOTHING
    found = {group.mixer.keeping for group in model.layers if group.mixer}
    return next((kind for kind in (Keeping.STATE, Keeping.LATENT, Keeping.WINDOW) if kind in found), Keeping.FULL)


def sized_rows(models: Sequence[Architecture]) -> list[dict[str, Any]]:
    """One row a model, largest first: what holds at any context.

    >>> import costmodel as cm
    >>> [row["params_active"] for row in sized_rows([cm.load("gpt2"), cm.load("deepseek-v3")])]
    [36625618432, 124439808]
    """
    return sorted(map(_sized, models), key=lambda row: (-int(row["params_total"]), row["name"]))


def landscape_rows(models: Sequence[Architecture], scenario: Scenario) -> list[dict[str, Any]]:
    """One row a model, largest first: size, active parameters, cache per token of context and FLOPs of the next token.

    The cache is the mean over a sequence at the scenario's context, in its format and view; the FLOPs are one sequence's.
    """
    named = {model.name: model for model in models}
    return [row | _priced(named[row["name"]], scenario) for row in sized_rows(models)]


def _sized(model: Architecture) -> dict[str, Any]:
    return {
        "name": model.name,
        "title": model.title,
        "released": model.released.isoformat() if model.released else "",
        "keeps": str(keeping(model)),
        "params_total": model.params.total,
        "params_active": model.params.active,
    }


def _priced(model: Architecture, scenario: Scenario) -> dict[str, Any]:
    return {
        "cache_bytes_per_token": scenario.kept(model)(context=scenario.context) / scenario.context,
        "decode_flops": model.decode_flops(context=scenario.context),
    }


def frontier(rows: Sequence[dict[str, Any]], against: str) -> list[dict[str, Any]]:
    """The rows that none beats: no other model is at least as large and costs less; from the largest down. Equals stand together.

    A row that costs nothing stands aside: a recursive reasoner keeps no cache, and undercuts nobody who writes text.

    >>> rows = [{"params_total": 9, "cost": 5}, {"params_total": 7, "cost": 6}, {"params_total": 3, "cost": 1}]
    >>> [row["params_total"] for row in frontier(rows, "cost")]
    [9, 3]
    """
    best: list[dict[str, Any]] = []
    for row in sorted((row for row in rows if row[against]), key=lambda row: (-row["params_total"], row[against])):
        if not best or row[against] < best[-1][against] or all(row[key] == best[-1][key] for key in ("params_total", against)):
            best.append(row)
    return best


BATCHES = tuple(1 << power for power in range(14))
"""Tokens of a pass at which touched experts are counted."""


def touched_rows(models: Sequence[Architecture]) -> list[dict[str, Any]]:
    """For each kind of expert layer: how many of its routed experts a pass of N tokens (`BATCHES`) reads, in expectation.

    >>> import costmodel as cm
    >>> round(touched_rows([cm.load("mixtral-8x7b")])[0]["touched"][1], 2)
    3.5
    """
    kinds = {(model.title, int(weight.copies), int(weight.active)): weight for model in models for weight in model.experts.values()}
    return [
        {
            "title": title,
            "experts": experts,
            "used": used,
            "touched": [evaluate(weight.touched, {B: tokens, T: 1}) for tokens in BATCHES],
        }
        for (title, experts, used), weight in kinds.items()
    ]
