"""Architectures side by side, and the walk from one to another: one change at a time, each with its price."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from costmodel.architecture import Architecture
from costmodel.blocks import AnyFeedForward, AnyMixer, Norm
from costmodel.catalog import Source, as_architecture, as_architectures
from costmodel.errors import CostModelError
from costmodel.frames import frame
from costmodel.layers import LayerGroup
from costmodel.towers import VisionTower
from costmodel.units import whole
from costmodel.workload import Precision

if TYPE_CHECKING:
    import pandas as pd

DIFFERENCES = ("params", "active", "weight_bytes", "cache_bytes", "prefill_flops", "decode_flops")
"""What each step of `diff` is priced in."""
PARTS = ("mixer", "feed_forward")


def compare(
    models: Sequence[Source],
    context: int = 131_072,
    batch: int = 1,
    precision: str | Precision = "bf16",
    cache_precision: str | None = None,
) -> pd.DataFrame:
    """One row a model: parameters, cache in both views, FLOPs by phase and stored weights at one context.

    `precision` is that of the weights (a Precision: of every role), `cache_precision` that of the cache. Bytes and
    FLOP are exact integers;
    `cache_bytes_per_token` is the mean at this context, `cache_bytes_per_next_token` the marginal, both per sequence.
    A FLOP count is for all `batch` sequences: prefill of the whole context, decode of one token each.

    Raises CostModelError for an unknown model or an impossible number.

    >>> table = compare(["deepseek-v3", "kimi-k2"], context=131_072)
    >>> list(table["cache_bytes"])
    [9210691584, 9210691584]
    """
    if not models:
        raise CostModelError("compare got no models; give one or more, such as ['deepseek-v3', 'kimi-k2']")
    return frame(comparison_rows(models, context, batch, precision, cache_precision))


def comparison_rows(
    models: Sequence[Source],
    context: int = 131_072,
    batch: int = 1,
    precision: str | Precision = "bf16",
    cache_precision: str | None = None,
) -> list[dict[str, Any]]:
    """The rows of `compare` as plain dicts."""
    context, batch = whole("context", context), whole("batch", batch)
    return [_compared(model, context, batch, precision, cache_precision) for model in as_architectures(models, "compare")]


def _compared(
    model: Architecture, context: int, batch: int, precision: str | Precision, cache_precision: str | None
) -> dict[str, Any]:
    roles = precision if isinstance(precision, Precision) else "bf16"
    cache = model.cache_bytes.having(precision=cache_precision or roles)
    kept = cache(context=context, batch=batch)
    return {
        "name": model.name,
        "context": context,
        "batch": batch,
        "params_total": model.params.total,
        "params_active": model.params.active,
        "weight_bytes": model.weight_bytes(precision=precision),
        "cache_bytes": kept,
        "cache_bytes_engine": cache(context=context, batch=batch, view="engine"),
        "cache_bytes_per_token": kept / (batch * context),
        "cache_bytes_per_next_token": cache.derivative("context")(context=context),
        "prefill_flops": model.prefill_flops(context=context, batch=batch),
        "decode_flops": model.decode_flops(context=context, batch=batch),
        "notes": "; ".join(model.remarks(context)),
    }


@dataclass(frozen=True)
class _Stage:
    """A model on the way: what its ends are, and its layers one by one, each a group of one."""

    ends: Architecture
    layers: tuple[LayerGroup, ...]

    @classmethod
    def of(cls, model: Architecture) -> _Stage:
        groups = {group.name: group.model_copy(update={"name": "layer", "count": 1}) for group in model.layers}
        return cls(model, tuple(groups[name] for name in model.layer_order))

    def built(self) -> Architecture:
        """The stage as an architecture; stages between two valid models need no second check."""
        counted = Counter(self.layers)
        groups = tuple(
            layer.model_copy(update={"name": f"group-{place}", "count": count})
            for place, (layer, count) in enumerate(counted.items())
        )
        return self.ends.model_copy(update={"layers": groups, "pattern": (), "mtp": None})

    def with_part(self, part: str, values: Sequence[Any]) -> _Stage:
        """The same layers with other values of a field."""
        pairs = zip(self.layers, values, strict=True)
        return replace(self, layers=tuple(layer.model_copy(update={part: value}) for layer, value in pairs))


Stored = str | tuple[str, str]
"""A format of both models, or A's and B's."""


def diff(
    a: Source, b: Source, context: int = 131_072, batch: int = 1, precision: Stored = "bf16", cache_precision: Stored = "bf16"
) -> pd.DataFrame:
    """The walk from A to B: one row an architecture change, with what it adds (or saves) in each of `DIFFERENCES`.

    Changes are made in a fixed order: width, depth (A's layer kinds spread over B's depth), mixers (kind, then field
    by field), feed-forward layers likewise, norms, tables, vision tower, formats of weights and cache (a pair of names is
    A's and B's). What a change costs depends on those made before it; the sum over all of them does not. Fields that
    only make sense together change together.

    `.attrs["from"]` and `.attrs["to"]` hold the two ends. Multi-token-prediction modules are out, as in the total.
    Raises CostModelError for an unknown model or an impossible number.

    >>> from costmodel.catalog import load
    >>> steps = diff("deepseek-v3", "kimi-k2")
    >>> int(steps["params"].sum()) == load("kimi-k2").params.total - load("deepseek-v3").params.total
    True
    """

    start, steps, end = diff_rows(a, b, context, batch, precision, cache_precision)
    table = frame(steps, ["change", *DIFFERENCES])
    table.attrs |= {"from": start, "to": end}
    return table


def diff_rows(
    a: Source, b: Source, context: int = 131_072, batch: int = 1, precision: Stored = "bf16", cache_precision: Stored = "bf16"
) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """(A's values, the steps' differences, B's values), as plain dicts with the keys of `DIFFERENCES`."""
    first, last = as_architecture(a), as_architecture(b)
    context, batch = whole("context", context), whole("batch", batch)
    (weights, to_weights), (cache, to_cache) = _pair(precision), _pair(cache_precision)
    before = start = _priced(first, context, batch, weights, cache)
    walk = [(change, model, weights, cache) for change, model in _walk(first, last)]
    if to_weights != weights:
        walk.append((f"weights {weights} -> {to_weights}", last, to_weights, cache))
    if to_cache != cache:
        walk.append((f"cache {cache} -> {to_cache}", last, to_weights, to_cache))
    steps = []
    for change, model, *stored in walk:
        after = _priced(model, context, batch, *stored)
        if after != before:
            steps.append({"change": change, **{name: after[name] - before[name] for name in DIFFERENCES}})
        before = after
    end = _priced(last, context, batch, to_weights, to_cache)
    return {"change": first.name, **start}, steps, {"change": last.name, **end}


@lru_cache(maxsize=128)
def _walk(first: Architecture, last: Architecture) -> tuple[tuple[str, Architecture], ...]:
    """Each change with the model it leads to; kept, as their formulas are then derived once."""
    return tuple((change, stage.built()) for change, stage in _changes(_Stage.of(first), _Stage.of(last)))


def _pair(stored: Stored) -> tuple[str, str]:
    return (stored, stored) if isinstance(stored, str) else stored


def _priced(model: Architecture, context: int, batch: int, weights: str, cache: str) -> dict[str, int]:
    return {
        "params": model.params.total,
        "active": model.params.active,
        "weight_bytes": model.weight_bytes(precision=weights),
        "cache_bytes": model.cache_bytes(context=context, batch=batch, precision=cache),
        "prefill_flops": model.prefill_flops(context=context, batch=batch),
        "decode_flops": model.decode_flops(context=context, batch=batch),
    }


def _changes(stage: _Stage, goal: _Stage) -> Iterator[tuple[str, _Stage]]:
    """Each change with the stage it leads to; the last stage costs what the goal does."""
    for change, after in _end_changes(stage, goal, ("hidden_size",)):
        stage = after
        yield change, stage
    if len(stage.layers) != len(goal.layers):
        change = f"layers {len(stage.layers)} -> {len(goal.layers)}"
        depth = len(goal.layers)
        stage = replace(stage, layers=tuple(stage.layers[place * len(stage.layers) // depth] for place in range(depth)))
        yield change, stage
    for part in PARTS:
        for change, after in _part_changes(stage, goal, part):
            stage = after
            yield change, stage
    for part in ("shared", "learning", "norm"):
        wanted = [getattr(layer, part) for layer in goal.layers]
        if wanted != [getattr(layer, part) for layer in stage.layers]:
            stage = stage.with_part(part, wanted)
            yield f"{part} of each layer", stage
    yield from _end_changes(
        stage, goal, ("norm", "embedding_norm", "vocab_size", "tie_word_embeddings", "position_embeddings", "vision")
    )


def _end_changes(stage: _Stage, goal: _Stage, names: tuple[str, ...]) -> Iterator[tuple[str, _Stage]]:
    for name in names:
        old, new = getattr(stage.ends, name), getattr(goal.ends, name)
        if old != new:
            stage = replace(stage, ends=stage.ends.model_copy(update={name: new}))
            yield f"{name} {_told(old)} -> {_told(new)}", stage


def _part_changes(stage: _Stage, goal: _Stage, part: str) -> Iterator[tuple[str, _Stage]]:
    """First the kinds, layer by layer, then each field of blocks of one kind."""
    blocks, wanted = ([getattr(layer, part) for layer in side.layers] for side in (stage, goal))
    own = {_kind(block): block for block in reversed(blocks)}
    for old, new in dict.fromkeys((_kind(block), _kind(other)) for block, other in zip(blocks, wanted, strict=True)):
        if old != new:
            turns = [(_kind(block), _kind(other)) == (old, new) for block, other in zip(blocks, wanted, strict=True)]
            blocks = [own.get(new, other) if turn else block for block, other, turn in zip(blocks, wanted, turns, strict=True)]
            stage = stage.with_part(part, blocks)
            yield f"{part} {old} -> {new} in {sum(turns)} layers", stage
    fields = dict.fromkeys(name for block in wanted if block is not None for name in type(block).model_fields)
    yield from _field_changes(stage, wanted, part, list(fields))


def _field_changes(stage: _Stage, wanted: list[Any], part: str, fields: list[str]) -> Iterator[tuple[str, _Stage]]:
    """Field after field; one that is impossible without the next waits for it."""
    waiting: list[str] = []
    blocks = [getattr(layer, part) for layer in stage.layers]
    for name in fields:
        values = [(getattr(block, name, None), getattr(other, name, None)) for block, other in zip(blocks, wanted, strict=True)]
        for old, new in dict.fromkeys(pair for pair in values if pair[0] != pair[1]):
            blocks = [
                block.model_copy(update={name: new}) if block is not None and pair == (old, new) else block
                for block, pair in zip(blocks, values, strict=True)
            ]
            stage = stage.with_part(part, blocks)
            waiting.append(f"{name} {_told(old)} -> {_told(new)} in {values.count((old, new))} layers")
            if all(_possible(block) for block in dict.fromkeys(blocks)):
                yield ", ".join(waiting), stage
                waiting = []


def _possible(block: AnyMixer | AnyFeedForward | None) -> bool:
    try:
        return block is None or bool(type(block).model_validate(block.model_dump()))
    except ValidationError:
        return False


def _kind(block: AnyMixer | AnyFeedForward | None) -> str:
    return "none" if block is None else block.kind


def _told(value: object) -> str:
    """A field's value in the name of a change."""
    if isinstance(value, bool) or value is None:
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, VisionTower):
        return f"{value.num_hidden_layers} layers"
    if isinstance(value, Norm):
        return f"{value.placement} {value.kind}"
    return f"{value:,}" if isinstance(value, int) else str(value)
