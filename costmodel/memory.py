"""What fits into the memory of accelerators: weights and cache against what the devices have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from costmodel.architecture import Architecture
from costmodel.catalog import Device, Source, as_accelerator, as_architecture, as_architectures
from costmodel.crossings import largest
from costmodel.formula import MAX_INPUT, Formula
from costmodel.frames import facts
from costmodel.hardware import Accelerator
from costmodel.units import binary_bytes, whole, workload
from costmodel.workload import Precision

LADDER = (("bf16", "bf16"), ("bf16", "fp8"), ("fp8", "bf16"), ("fp8", "fp8"), ("int4", "bf16"), ("int4", "fp8"))
"""(weights, cache) from what loses least to what loses most: a coarser cache comes before coarser weights."""


@dataclass(frozen=True)
class Capacity:
    """What fits of a model on `devices` accelerators; bytes over all of them. None: it does not fit at all.

    `free_bytes` is what weights and cache leave, negative where they do not fit. `longest_context` is at this batch,
    `most_sequences` at this context, 10^12 where nothing binds (a cache that stops growing); `fewest_devices` at
    both. `loosest` is the first pair of formats (weights, cache) of `LADDER` that fits. Numbers beyond the
    published context are computed all the same.
    """

    model: str
    accelerator: str
    devices: int
    context: int
    batch: int
    precision: str | Precision
    cache_precision: str | Precision
    view: str
    weight_bytes: int
    cache_bytes: int
    memory_bytes: int
    longest_context: int | None
    most_sequences: int | None
    fewest_devices: int
    loosest: tuple[str, str] | None

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        sizes = {"weights": self.weight_bytes, "cache": self.cache_bytes, "memory": self.memory_bytes}
        found = {name: getattr(self, name) for name in ("fits", "longest_context", "most_sequences", "fewest_devices")}
        title = f"{self.model} on {self.devices:,} x {self.accelerator}, {workload(self.batch, self.context)}"
        return facts(title, {name: binary_bytes(size) for name, size in sizes.items()} | found)

    @property
    def free_bytes(self) -> int:
        """What is left; negative where it does not fit."""
        return self.memory_bytes - self.weight_bytes - self.cache_bytes

    @property
    def fits(self) -> bool:
        """Whether weights and cache fit."""
        return self.free_bytes >= 0


def capacity(
    model: Source,
    accelerator: Device,
    devices: int = 1,
    context: int = 131_072,
    batch: int = 1,
    precision: str | Precision = "bf16",
    cache_precision: str | None = None,
    view: str = "theory",
) -> Capacity:
    """What fits of a model into the memory of `devices` accelerators at `context` tokens of `batch` sequences.

    Weights and cache alone, spread evenly: activations, the runtime's own memory, copies (of KV heads, of latents) and
    fragmentation come on top. `precision` is that of the weights (a Precision: of every role), `cache_precision` that
    of the cache.

    Raises CostModelError for an unknown model or accelerator, or an impossible number.

    >>> held = capacity("deepseek-v3", "h200", devices=8, precision="fp8")
    >>> held.fits, held.longest_context, held.most_sequences, held.fewest_devices
    (True, 7583219, 57, 5)
    """
    return _capacity(
        as_architecture(model), as_accelerator(accelerator), whole("devices", devices), whole("context", context),
        whole("batch", batch), precision, cache_precision, view,
    )  # fmt: skip


@lru_cache(maxsize=1024)
def _capacity(
    model: Architecture, device: Accelerator, devices: int, context: int, batch: int,
    precision: str | Precision, cache_precision: str | None, view: str,
) -> Capacity:  # fmt: skip
    roles = precision if isinstance(precision, Precision) else "bf16"
    kept = model.cache_bytes.having(precision=cache_precision or roles, view=view)
    weights, cache = model.weight_bytes(precision=precision), kept(context=context, batch=batch)
    memory = devices * device.memory_bytes
    return Capacity(
        model.name, device.name, devices, context, batch, precision, cache_precision or roles, view, weights, cache, memory,
        longest_context=_largest(kept, memory - weights, "context", "batch", batch),
        most_sequences=_largest(kept, memory - weights, "batch", "context", context),
        fewest_devices=-(-(weights + cache) // device.memory_bytes),
        loosest=_loosest(model, kept, memory, context, batch),
    )  # fmt: skip


@lru_cache(maxsize=1024)
def _largest(kept: Formula, left: int, over: str, other: str, value: int) -> int | None:
    """`largest`, kept: the longest context stays the same while another context is looked at."""
    return largest(kept, left, over=over, **{other: value})


def _loosest(model: Architecture, kept: Formula, memory: int, context: int, batch: int) -> tuple[str, str] | None:
    """The first pair of formats that fits."""
    for weights, cache in LADDER:
        if model.weight_bytes(precision=weights) + kept(context=context, batch=batch, precision=cache) <= memory:
            return weights, cache
    return None


def capacity_rows(
    models: Source | Sequence[Source],
    accelerator: Device,
    devices: int = 1,
    context: int = 131_072,
    batch: int = 1,
    precision: str | Precision = "bf16",
    cache_precision: str | None = None,
    view: str = "theory",
) -> list[dict[str, Any]]:
    """`capacity` of several models as plain dicts.

    >>> [row["fits"] for row in capacity_rows(["llama-3.1-8b", "llama-3.1-70b"], "h100-sxm")]
    [True, False]
    """
    device = as_accelerator(accelerator)
    return [
        _row(model, capacity(model, device, devices, context, batch, precision, cache_precision, view))
        for model in as_architectures(models, "capacity")
    ]


def _row(model: Architecture, held: Capacity) -> dict[str, Any]:
    return {
        "name": held.model,
        "accelerator": held.accelerator,
        "devices": held.devices,
        "context": held.context,
        "batch": held.batch,
        "precision": str(held.precision),
        "cache_precision": str(held.cache_precision),
        "view": held.view,
        "weight_bytes": held.weight_bytes,
        "cache_bytes": held.cache_bytes,
        "memory_bytes": held.memory_bytes,
        "free_bytes": held.free_bytes,
        "fits": held.fits,
        "longest_context": held.longest_context,
        "most_sequences": held.most_sequences,
        "fewest_devices": held.fewest_devices,
        "loosest": "/".join(held.loosest) if held.loosest else None,
        "notes": "; ".join((*model.remarks(held.context), *_remarks(model, held))),
    }


def _remarks(model: Architecture, held: Capacity) -> tuple[str, ...]:
    """What a reader should know about the longest context."""
    limit, longest = model.max_position_embeddings, held.longest_context or 0
    if longest == MAX_INPUT:
        return ("the cache stops growing, so that no context is too long for the memory",)
    return (f"longest_context is beyond the published limit of {limit:,} tokens",) if limit and longest > limit else ()
