"""Cards: one model in a glance, each fact with what it means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from costmodel.answers.sentences import times, why
from costmodel.architecture import Architecture
from costmodel.formula import MAX_INPUT
from costmodel.memory import Capacity
from costmodel.scenario import Scenario
from costmodel.units import BYTES, count, tokens

SPARK = tuple(1 << power for power in range(10, 21))


@dataclass(frozen=True)
class Card:
    """A model's cache at a scenario, its ratio to the yardstick, its curve, and facts as (label, value) pairs."""

    title: str
    value: str
    ratio: str
    spark: list[float]
    facts: tuple[tuple[str, str], ...]
    defined: str


def cards(models: Sequence[Architecture], scenario: Scenario, yardstick: Architecture) -> list[Card]:
    """One card a model.

    >>> import costmodel as cm
    >>> cards([cm.load("deepseek-v3")], Scenario(), cm.load("llama-3.1-70b"))[0].value
    '8.578 GiB'
    """
    against = scenario.kept(yardstick)(**scenario.at)
    return [_card(model, scenario, yardstick.title, against) for model in models]


def _card(model: Architecture, scenario: Scenario, yardstick: str, against: int) -> Card:
    kept, shown = scenario.kept(model), BYTES[scenario.units]
    room, value = scenario.room(model), kept(**scenario.at)
    constant = _constant(model, scenario)
    per_token = f"{shown(value / (scenario.batch * scenario.context))} mean, {shown(_next(kept, scenario))} the next"
    return Card(
        title=model.title,
        value=shown(value),
        ratio=f"{times(against / value)} than {yardstick}" if against and value else "",
        spark=[float(number) for number in kept(context=np.array(SPARK), batch=scenario.batch)],
        facts=(
            ("per token", per_token + (f", and {shown(constant)} of state" if constant else "")),
            ("active / total", f"{count(model.params.active)} / {count(model.params.total)}"),
            ("sequences that fit", _many(room.most_sequences)),
            ("longest context", _long(room.longest_context)),
            ("why", why(model)),
        ),
        defined=f"Cache of {scenario.batch:,} x {scenario.context:,} tokens in {scenario.cache}, {scenario.view} view; "
        f"its ratio to {yardstick}; its growth from 1k to 1M tokens.",
    )


def answers(models: Sequence[Architecture], scenario: Scenario) -> list[tuple[str, str]]:
    """The inverse answers on the chosen devices, a (title, words) pair a model: how long, how many, how few, how coarse.

    >>> import costmodel as cm
    >>> answers([cm.load("gemma-3-27b")], Scenario(devices=1))
    [('Gemma 3 27B', 'up to 1M tokens or 8 sequences, from 1 device, bf16/bf16')]
    """
    return [(model.title, _answer(scenario.room(model))) for model in models]


def _answer(room: Capacity) -> str:
    fewest = f"from {room.fewest_devices:,} device{'' if room.fewest_devices == 1 else 's'}"
    formats = "/".join(room.loosest) if room.loosest else "no formats fit"
    if room.longest_context is None or room.most_sequences is None:
        return f"does not fit; {fewest}, {formats}"
    return f"up to {_long(room.longest_context)} or {_many(room.most_sequences)} sequences, {fewest}, {formats}"


def _next(kept: object, scenario: Scenario) -> float:
    return float(kept.derivative("context")(context=scenario.context, batch=1))  # type: ignore[attr-defined]


def _constant(model: Architecture, scenario: Scenario) -> int:
    """What a sequence keeps whatever its length: the cache of one token, less its growth."""
    states = [group for group in model.layers if any(not kept.per_token for block in group.blocks for kept in block.kept())]
    if not states:
        return 0
    kept = scenario.kept(model)
    parts = (kept.parts[group.name] for group in states)
    return sum(2 * part(context=1, batch=1) - part(context=2, batch=1) for part in parts)


def _many(number: int | None) -> str:
    return "none" if number is None else "no limit" if number >= MAX_INPUT else f"{number:,}"


def _long(number: int | None) -> str:
    """A length in tokens, rounded down to what people say."""
    if number is None or number >= MAX_INPUT:
        return _many(number)
    scale = 1 << 20 if number >= 1 << 20 else 1 << 10 if number >= 1 << 13 else 1
    return f"{tokens(number // scale * scale)} tokens"
