"""Mutated configs: every one is an architecture or a one-line error, within a second.

`python -m tests.fuzz 10000` runs that many, from seed 0 on; the tests run a share of them.
"""

from __future__ import annotations

import copy
import json
import math
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import costmodel as cm
from costmodel.importers import read_config
from costmodel.workload import Precision

CONFIGS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted((Path(__file__).parent / "configs").glob("*.json"))
}
VALUES: list[Any] = [
    None, True, False, 0, 1, 2, 3, 7, 64, 100, 4096, -1, -4096, 10**9, 10**12, 10**30, 0.5, -0.0, 1e308, math.nan, math.inf,
    "", "silu", "relu2", "auto", "full_attention", "linear_attention", "x" * 5000, "'; import os", "\u202e\x1b[31m", "0x10", "128",
    [], [0], [1, 2, 3], ["full_attention"], ["mamba", "hybrid"], [None], [[]], {}, {"a": 1}, {"partial_rotary_factor": 0.5},
]  # fmt: skip
ADDED = ("num_experts", "sliding_window", "q_lora_rank", "alibi", "num_memory_layers", "layer_types")
SECONDS = 1.0


def mutated(seed: int) -> dict[str, Any]:
    """A published config with a few changes: fields dropped, set, scaled, swapped, renamed or added, at any depth."""
    draw = random.Random(seed)  # noqa: S311 - test data, not secrets
    config = copy.deepcopy(CONFIGS[draw.choice(sorted(CONFIGS))])
    for _ in range(draw.choice((1, 1, 2, 3, 6))):
        _change(config, draw)
    return config


def _change(config: dict[str, Any], draw: random.Random) -> None:
    inner = [value for value in config.values() if isinstance(value, dict) and value]
    data = draw.choice(inner) if inner and draw.random() < 0.4 else config
    name = draw.choice(sorted(data)) if data else "hidden_size"
    kind = draw.choice(("drop", "set", "set", "scale", "swap", "rename", "add", "list", "type"))
    if kind == "drop":
        data.pop(name, None)
    elif kind == "scale" and type(data.get(name)) is int:
        data[name] = data[name] * draw.choice((2, 3, 1000)) if draw.random() < 0.5 else data[name] // draw.choice((2, 3, 64))
    elif kind == "swap" and data:
        other = draw.choice(sorted(data))
        data[name], data[other] = data.get(other), data.get(name)
    elif kind == "rename":
        data[name + draw.choice(("s", "_", "2"))] = data.pop(name, 1)
    elif kind == "add":
        data[draw.choice(("num_experts", "sliding_window", "q_lora_rank", "alibi", "num_memory_layers", "layer_types"))] = (
            draw.choice(VALUES)
        )
    elif kind == "list" and isinstance(data.get(name), list) and data[name]:
        data[name][draw.randrange(len(data[name]))] = draw.choice(VALUES)
    elif kind == "type":
        config["model_type"] = draw.choice(sorted({one.get("model_type", "llama") for one in CONFIGS.values()}))
    else:
        data[name] = draw.choice(VALUES)


def outcome(config: dict[str, Any]) -> str:
    """`model` or `refused`. Raises AssertionError for anything that a user must never see."""
    started = time.process_time()
    try:
        model = read_config(json.dumps(config), "config.json").architecture
        _check(model)
        result = "model"
    except cm.CostModelError as error:
        message = str(error)
        assert message
        assert message.isprintable(), repr(message)
        assert len(message) < 1000, message
        result = "refused"
    took = time.process_time() - started
    assert took < SECONDS, f"{took:.2f} s"
    return result


def _check(model: cm.Architecture) -> None:
    """Its numbers are whole, finite and in order."""
    params = model.params
    assert 0 < params.active <= params.total
    assert params.active <= params.active_with_embedding
    for value in (
        model.cache_bytes(context=1000), model.prefill_flops(context=1000), model.decode_flops(context=1000),
        model.weight_bytes(precision=Precision.named("fp8")),
    ):  # fmt: skip
        assert type(value) is int
        assert value >= 0
    assert model.cache_bytes(context=1000) <= model.cache_bytes(context=1000, view="engine")
    assert math.isfinite(model.bytes_moved(new_tokens=1, context=1000))


def main() -> None:
    """Runs so many seeds, and tells what came of them."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    found: Counter[str] = Counter()
    for seed in range(count):
        try:
            found[outcome(mutated(seed))] += 1
        except Exception as error:  # what a user must never see
            found["wrong"] += 1
            print(f"seed {seed}: {type(error).__name__}: {str(error)[:300]}")
    print(", ".join(f"{number:,} {name}" for name, number in sorted(found.items())))


if __name__ == "__main__":
    main()
