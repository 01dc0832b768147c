"""The least that a pass can take: its FLOPs at the peak, its weights and cache read once, each at the datasheet's rate.

The arithmetic of books and of the back of an envelope. No kernel, message or activation is priced: `estimate` does that.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

from costmodel.architecture import Architecture
from costmodel.catalog import Device, Source, as_accelerator, as_architecture
from costmodel.errors import CostModelError
from costmodel.hardware import positive
from costmodel.units import whole
from costmodel.workload import Precision


@dataclass(frozen=True)
class Bound:
    """Least seconds of `flops` and of `moved_bytes` spread evenly over devices; the longer of the two stands."""

    flops: float
    moved_bytes: float
    compute_s: float
    memory_s: float

    @property
    def seconds(self) -> float:
        """The longer of the two: they overlap at best."""
        return max(self.compute_s, self.memory_s)

    @property
    def bound_by(self) -> str:
        """`compute` or `memory`."""
        return "compute" if self.compute_s > self.memory_s else "memory"


def bound(
    accelerator: Device, flops: float = 0, moved_bytes: float = 0, devices: int = 1, dtype: str = "bf16", mfu: float = 1.0
) -> Bound:
    """The least that so many FLOPs and bytes take on `devices` accelerators. `mfu` is the share of the peak that is reached.

    Raises CostModelError for an unknown accelerator, a figure it does not give, or an impossible number.

    >>> bound("h200", moved_bytes=140_000_000_000, devices=8).memory_s
    0.003645833...
    """
    device, count = as_accelerator(accelerator), whole("devices", devices)
    work, moved = _amount("flops", flops), _amount("moved_bytes", moved_bytes)
    reached = positive("mfu", mfu, most=1)
    compute = work / (count * device.peak(dtype) * reached) if work else 0.0
    memory = moved / (count * device.given("memory_bytes_per_s")) if moved else 0.0
    return Bound(work, moved, compute, memory)


def _amount(name: str, value: float) -> float:
    """A finite number of at least 0."""
    nothing = isinstance(value, Real) and not isinstance(value, bool) and value == 0
    return 0.0 if nothing else positive(name, value, most=1e36)


def pass_bound(
    model: Source,
    accelerator: Device,
    devices: int = 1,
    batch: int = 1,
    context: int = 4096,
    new_tokens: int = 1,
    precision: str | Precision = "bf16",
    cache_precision: str | None = None,
    dtype: str = "bf16",
    mfu: float = 1.0,
) -> Bound:
    """The least that one pass takes: a decode step of `batch` sequences unless `new_tokens` says otherwise.

    Bytes are the weights that the tokens touch, once, and the cache after the pass, once; shared evenly by the devices, with
    nothing copied. `precision` is that of the weights (a Precision: of every role), `cache_precision` that of the cache;
    `dtype` the format of the arithmetic. Raises CostModelError like `bound`, and for an unknown model.

    >>> step = pass_bound("llama-3.1-70b", "h100-sxm", devices=8, batch=32, context=8192)
    >>> step.bound_by, round(1e3 * step.seconds, 1)
    ('memory', 8.4)
    """
    found = as_architecture(model)
    formats = precision if isinstance(precision, Precision) else Precision.named(precision)
    if cache_precision is not None:
        formats = Precision(**{**dict(formats), "cache": cache_precision})
    rows = found.ledger_rows(new_tokens=new_tokens, context=context, batch=batch, precision=formats)
    flops = sum(row["flops"] for row in rows)
    moved = sum(row["weight_bytes_moved"] + row["cache_bytes"] for row in rows)
    return bound(accelerator, flops, moved, devices, dtype, mfu)


@dataclass(frozen=True)
class ExpertLimit:
    """What messages alone allow: `message_s` for a micro-batch to reach a layer's experts and come back, `seconds` for a token."""

    message_s: float
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second of one sequence, at most."""
        return 1 / self.seconds


def expert_parallel_limit(
    model: Source | None = None,
    tokens: int = 32,
    destinations: int = 9,
    dispatch_bytes: float = 1,
    combine_bytes: float = 2,
    bytes_per_s: float = 50e9,
    micro_batches: int = 2,
    hidden_size: int | None = None,
    layers: int | None = None,
) -> ExpertLimit:
    """The least seconds of a token whose experts are spread over devices: micro-batches take turns, and messages hide all else.

    message = tokens x destinations x d_model x (dispatch + combine bytes) / bytes_per_s, for the `tokens` that a device has of a
    micro-batch; a token takes layers x micro_batches of them. `destinations` are the devices a token goes to: its experts, a
    shared one that is routed too included. `hidden_size` and `layers` are the model's, and its layers with experts, unless given.
    DeepSeek-V3 at ISCA 2025, arXiv 2505.09343, section 2.3.2: every message at the full rate, no latency, no deduplication.

    Raises CostModelError for an unknown model, one without experts, an impossible number, or neither model nor numbers.

    >>> paper = expert_parallel_limit(hidden_size=7_000, layers=61)
    >>> round(1e6 * paper.message_s, 2), round(1e3 * paper.seconds, 2)
    (120.96, 14.76)
    >>> round(1e3 * expert_parallel_limit("deepseek-v3").seconds, 2)
    14.37
    """
    found = None if model is None else as_architecture(model)
    width, depth = _given("hidden_size", hidden_size, found), _given("layers", layers, found)
    sent = positive("dispatch_bytes", dispatch_bytes, most=16) + positive("combine_bytes", combine_bytes, most=16)
    copies = whole("tokens", tokens) * whole("destinations", destinations)
    message = copies * width * sent / positive("bytes_per_s", bytes_per_s)
    return ExpertLimit(message, depth * whole("micro_batches", micro_batches) * message)


def _given(name: str, value: int | None, model: Architecture | None) -> int:
    """What is given, else the model's."""
    if value is not None:
        return whole(name, value)
    if model is None:
        raise CostModelError(f"{name} is missing; give it, or a model that has it")
    if name == "hidden_size":
        return model.hidden_size
    if not model.experts:
        raise CostModelError(f"{model.name} has no layers with experts; give layers, or a mixture of experts")
    return sum(group.count for group in model.layers if group.name in model.experts)


def prefill_per_decode(prefill_s: float, step_s: float, batch: int, output: int) -> float:
    """Servers that prefill for each one that decodes, both kept busy.

    A prompt takes `prefill_s` on one; the other takes `output` steps of `step_s` for `batch` sequences at once.

    >>> round(prefill_per_decode(prefill_s=0.91, step_s=0.019, batch=32, output=512), 2)
    2.99
    """
    served = positive("step_s", step_s) * whole("output", output) / whole("batch", batch)
    return positive("prefill_s", prefill_s) / served


def freed_tokens(batch: int, prompt: int, output: int) -> float:
    """Cached tokens that leave with finished sequences in a step, in the mean over time: of `batch`, one in `output` ends.

    As many enter: `prompt` / (`prompt` + `output`) of them must be prefilled for the batch to stay full.

    >>> freed_tokens(batch=32, prompt=8192, output=4096)
    96.0
    """
    return whole("batch", batch) * (whole("prompt", prompt) + whole("output", output)) / whole("output", output)
