"""Kernel classes: how long a kernel of a shape takes on a device, in a few numbers that are fitted to measurements.

Every class is t = t0 + pnorm(F / (eta_c P), B / (eta_m BW); p) with named terms beside it where measured tables ask
for them. P and BW are the datasheet's peaks, eta the fitted fraction of each: the two never mix in one number.
Shapes are arrays, one entry a point; sizes in elements, times in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costmodel.errors import CostModelError, did_you_mean
from costmodel.hardware import Accelerator

Array = NDArray[np.float64]
Shape = Mapping[str, Array]
Fitted = Mapping[str, float]
ELEMENT_BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "fp8": 1, "int8": 1}
CHUNK = 64
TILE = 128
"""Query rows that one work unit of attention takes; rows and columns of one of a product."""
ROWS = 64
"""What rows of a product are padded to."""


@dataclass(frozen=True)
class Peaks:
    """What the datasheet says of a device for one dtype: FLOP/s, bytes/s, bytes of cache, compute units, link bytes/s."""

    flops_per_s: float
    memory_bytes_per_s: float
    cache_bytes: float
    units: int
    link_bytes_per_s: float
    element_bytes: int

    @classmethod
    def of(cls, device: Accelerator, dtype: str) -> Peaks:
        """The peaks of an accelerator. Raises CostModelError where its file lacks one.

        >>> from costmodel.catalog import accelerator
        >>> Peaks.of(accelerator("h100-sxm"), "fp8").flops_per_s
        1978900000000000.0
        """
        if dtype not in ELEMENT_BYTES:
            raise CostModelError(f"no kernels of dtype {dtype!r}; {did_you_mean(dtype, ELEMENT_BYTES)}")
        return cls(
            flops_per_s=float(device.peak(dtype)),
            memory_bytes_per_s=float(device.given("memory_bytes_per_s")),
            cache_bytes=float(device.l2_bytes or 0),
            units=device.compute_units or 1,
            link_bytes_per_s=float(device.link_bytes_per_s or 0),
            element_bytes=ELEMENT_BYTES[dtype],
        )

    def part(self, share: float) -> Peaks:
        """Those of a share of the units, which have all of the memory's bandwidth still.

        >>> from costmodel.catalog import accelerator
        >>> Peaks.of(accelerator("h100-sxm"), "fp8").part(0.5).units
        66
        """
        return replace(self, flops_per_s=self.flops_per_s * share, units=max(1, round(self.units * share)))


@dataclass(frozen=True)
class Parameter:
    """A fitted number: where the fit starts, its bounds, and what it means."""

    start: float
    low: float
    high: float
    meaning: str


@dataclass(frozen=True)
class Work:
    """FLOPs and bytes of a kernel, and the bytes it must at least have read."""

    flops: Array
    moved: Array


@dataclass(frozen=True)
class KernelClass:
    """One class of kernels: the sizes that make a shape, what it must do, and the form of its time."""

    name: str
    title: str
    sizes: tuple[str, ...]
    parameters: tuple[str, ...]
    work: Callable[[Shape, Peaks], Work]
    seconds: Callable[[Shape, Peaks, Fitted], Array]
    features: Callable[[Shape], tuple[Array, ...]]
    """What tells one shape from another, as sizes whose logarithms have distances."""
    instead: str = ""
    """The wider class that a device's time is taken from where this one was not measured on it."""
    optional: tuple[str, ...] = ()
    """Parameters of a term that a fit keeps only where it helps."""
    on_cpu: tuple[str, ...] = ()
    """Parameters that only a CPU asks for."""

    def roofline(self, shape: Shape, peaks: Peaks) -> Array:
        """Seconds at the datasheet's peaks with perfect overlap: no kernel can be faster once its data lie in memory."""
        work = self.work(shape, peaks)
        if self.name in ON_LINKS:
            return work.moved / peaks.link_bytes_per_s
        best: Array = np.maximum(work.flops / peaks.flops_per_s, work.moved / peaks.memory_bytes_per_s)
        return best

    def regimes(self, shape: Shape, peaks: Peaks, seconds: Array) -> list[str]:
        """What bounds each point: `bound_by` of its times at the datasheet's peaks."""
        work = self.work(shape, peaks)
        compute, memory = work.flops / peaks.flops_per_s, work.moved / peaks.memory_bytes_per_s
        return [bound_by(self.name, *times) for times in zip(seconds, compute, memory, strict=True)]

    def distances(self, shape: Shape) -> Array:
        """Points in log space: one row a shape."""
        rows: Array = np.log2(np.stack([np.maximum(size, 0.5) for size in self.features(shape)], axis=1))
        return rows


def bound_by(kernel: str, seconds: float, compute_s: float, memory_s: float) -> str:
    """What takes longest at the datasheet's peaks; latency where that is less than a fifth of the time.

    >>> bound_by("gemm", 1e-3, 9e-4, 1e-4), bound_by("norm", 1e-5, 0.0, 1e-7), bound_by("allreduce", 1e-3, 0.0, 1e-3)
    ('compute', 'latency', 'link')
    """
    if kernel in ON_LINKS:
        return "link"
    return "latency" if max(compute_s, memory_s) < 0.2 * seconds else "compute" if compute_s >= memory_s else "memory"


PARAMETERS: dict[str, Parameter] = {
    "t0": Parameter(5e-6, 0.5e-6, 50e-6, "seconds of an empty kernel, as the table times it"),
    "eta_c": Parameter(0.75, 0.2, 1.2, "fraction of the peak FLOP/s reached"),
    "eta_m": Parameter(0.8, 0.2, 1.2, "fraction of the peak bandwidth reached"),
    "p": Parameter(3.0, 0.7, 12.0, "overlap of compute and memory: 1 is none, infinity perfect"),
    "cache_gain": Parameter(1.5, 1.0, 6.0, "bandwidth of data that stay in the last-level cache between repeats, over memory's"),
    "quantise": Parameter(3e-12, 1e-14, 2e-11, "seconds an element of activations that is quantised before the product"),
    "half_context": Parameter(200.0, 1.0, 5000.0, "context at which half of eta_c is reached"),
    "unit": Parameter(1e-7, 1e-10, 1e-5, "seconds a work unit (a tile of 128 queries of a head), over the compute units"),
    "wave": Parameter(0.3, 0.01, 1.0, "share of a last, partly filled wave of work units that is lost"),
    "kv_head": Parameter(1e-6, 1e-9, 1e-4, "seconds a sequence and key/value head, over the compute units"),
    "head": Parameter(1e-7, 1e-10, 1e-5, "seconds a sequence and query head, over the compute units"),
    "split": Parameter(1e-8, 1e-11, 1e-6, "seconds a root of a token: a context is split, and merged, at the best number of parts"),
    "half_m": Parameter(4.0, 0.01, 300.0, "rows at which a CPU's product reaches half of eta_c"),
    "half_n": Parameter(8.0, 0.01, 1000.0, "columns at which it does"),
    "half_k": Parameter(8.0, 0.01, 1000.0, "depth at which it does"),
    "pack": Parameter(1e-10, 1e-13, 3e-9, "seconds an element of weights that is packed for a product of more than one row"),
    "column": Parameter(5e-9, 1e-11, 1e-6, "seconds a column of a product of more than one row"),
    "touch": Parameter(5e-5, 1e-6, 1e-3, "seconds each expert touched adds: its rows are found, gathered and added back"),
    "small_ops": Parameter(5e-5, 1e-6, 2e-3, "seconds of the small operations that an eager kernel is made of"),
    "eager": Parameter(3.0, 0.05, 300.0, "times its bytes are moved beside, between those operations"),
    "lane": Parameter(3e-11, 1e-13, 3e-9, "seconds a multiply-add that small products and vectors do, not wide ones"),
    "query": Parameter(1e-9, 1e-12, 1e-6, "seconds a score: a query and a key of one head"),
    "padding": Parameter(30.0, 0.5, 130.0, "rows that tiles add for each expert touched"),
    "expert": Parameter(1e-7, 1e-10, 1e-5, "seconds an expert held"),
    "permute": Parameter(1.0, 0.05, 20.0, "times the rows' bytes are moved beside the products"),
    "spread": Parameter(1.0, 0.3, 1.5, "tokens that choose their experts as if alone, over the tokens there are"),
    "skew": Parameter(0.3, 1e-3, 5.0, "extra rows of the busiest rank for each unit of the power law's exponent"),
    "chunk": Parameter(2e-6, 1e-8, 1e-3, "seconds that each chunk of 64 tokens waits for the state of the one before"),
    "latency": Parameter(8e-6, 1e-6, 1e-4, "seconds of an empty collective"),
    "hop": Parameter(1e-6, 1e-8, 2e-5, "seconds each further rank adds"),
    "eta_l": Parameter(0.8, 0.2, 1.2, "fraction of the link's peak reached"),
    "pipeline": Parameter(1e-6, 1e-9, 1e-3, "seconds of a step of the pipeline that a message is cut into, at the best cut"),
}  # fmt: skip


def pnorm(a: Array, b: Array, p: float) -> Array:
    """(a^p + b^p)^(1/p) for positive times: their sum at p = 1, the longer one as p grows.

    >>> float(pnorm(np.array(3.0), np.array(4.0), 2.0))
    5.0
    """
    longer = np.maximum(a, b)
    return longer * ((a / longer) ** p + (b / longer) ** p) ** (1 / p)


def _cached(moved: Array, peaks: Peaks, gain: float) -> Array:
    """How much faster than memory data are read that a cache of this size may still hold."""
    return 1 + (gain - 1) / (1 + (moved / (0.7 * peaks.cache_bytes)) ** 4) if peaks.cache_bytes else np.ones_like(moved)


def _roof(work: Work, peaks: Peaks, q: Fitted, efficiency: Any = 1.0) -> Array:
    compute = work.flops / (efficiency * q["eta_c"] * peaks.flops_per_s)
    gain = _cached(work.moved, peaks, q.get("cache_gain", 1.0))
    return pnorm(compute, work.moved / (q["eta_m"] * peaks.memory_bytes_per_s * gain), q["p"])


def _stored(x: Shape, peaks: Peaks) -> Any:
    """Bytes an element of weights or cache, where a shape says that they are kept in another format than they are used in."""
    return x.get("stored", peaks.element_bytes)


def _gemm_work(x: Shape, peaks: Peaks) -> Work:
    m, n, k, size = x["m"], x["n"], x["k"], peaks.element_bytes
    return Work(2 * m * n * k, size * m * k + _stored(x, peaks) * k * n + max(size, 2) * m * n)


def _gemm(x: Shape, peaks: Peaks, q: Fitted) -> Array:
    quantised = q["quantise"] * x["m"] * x["k"] if "quantise" in q else 0.0
    work, filled = _gemm_work(x, peaks), _filled(x, q)
    if "wave" in q:  # rows come in tiles, and tiles in waves over the compute units
        tiles = np.ceil(x["m"] / TILE) * np.ceil(x["n"] / TILE)
        filled = filled * (tiles / (np.ceil(tiles / peaks.units) * peaks.units)) ** q["wave"]
        work = Work(work.flops * np.ceil(x["m"] / ROWS) * ROWS / x["m"], work.moved)
    packed = (q["pack"] * x["k"] + q["column"]) * x["n"] if "pack" in q else 0.0
    return q["t0"] + _roof(work, peaks, q, filled) + quantised + packed


def _filled(x: Shape, q: Fitted) -> Any:
    """How much of its best rate a product reaches on a CPU, by the rows, columns and depth it has."""
    if "half_n" not in q:
        return 1.0
    return (x["m"] / (x["m"] + q["half_m"])) * (x["n"] / (x["n"] + q["half_n"])) * (x["k"] / (x["k"] + q["half_k"]))


def _gemv_work(x: Shape, peaks: Peaks) -> Work:
    return _gemm_work({**x, "m": np.ones_like(x["n"])}, peaks)


def _gemv(x: Shape, peaks: Peaks, q: Fitted) -> Array:
    return q["t0"] + _roof(_gemv_work(x, peaks), peaks, q)


def _bmm_work(x: Shape, peaks: Peaks) -> Work:
    b, m, n, k = x["b"], x["m"], x["n"], x["k"]
    return Work(2 * b * m * n * k, peaks.element_bytes * b * (m * k + n * k + m * n))


def _bmm(x: Shape, peaks: Peaks, q: Fitted) -> Array:
    return q["t0"] + _roof(_bmm_work(x, peaks), peaks, q, _filled(x, q))


def _prefill_work(x: Shape, peaks: Peaks) -> Work:
    b, t, h, kv, d, seen = x["batch"], x["tokens"], x["heads"], x["kv_heads"], x["head_dim"], x["prefix"]
    pairs = t * seen + t * (t + 1) / 2
    return Work(4 * b * h * d * pairs, peaks.element_bytes * b * d * (2 * t * h + 2 * kv * (t + seen)))


def _prefill(x: Shape, peaks: Peaks, q: Fitted) -> Array:
    context = x["prefix"] + x["tokens"] / 2
    units = x["batch"] * x["heads"] * np.ceil(x["tokens"] / TILE)
    filled = units / (np.ceil(units / peaks.units) * peaks.units)
    efficiency = context / (context + q["half_context"]) * filled ** q["wave"]
    work = _prefill_work(x, peaks)
    scored = q["query"] * work.flops / (4 * x["head_dim"]) if "query" in q else 0.0
    return q["t0"] + _roof(work, peaks, q, efficiency) + q["unit"] * units / peaks.units + scored


def _decode_work(x: Shape, peaks: Peaks) -> Work:
    b, s, h, kv, d = x["batch"], x["context"], x["heads"], x["kv_heads"], x["head_dim"]
    moved = b * d * (_stored(x, peaks) * 2 * kv * s + peaks.element_bytes * 2 * h)
    return Work(4 * b * kv * np.maximum(h / kv, 8) * s * d, moved)


def _decode(x: Shape, peaks: Peaks, q: Fitted) -> Array:
    launched = x["batch"] * (x["kv_heads"] * q["kv_head"] + x["heads"] * q["head"]) / peaks.units
    pairs = x["batch"] * x["heads"] * x["context"]
    scored = (q["query"] + 2 * q["lane"] * x["head_dim"]) * pairs if "query" in q else 0.0
    work = _decode_work(x, peaks)
    if "query" in q:  # a CPU multiplies no heads that are not there
        work = Work(work.flops * (x["heads"] / x["kv_heads"]) / np.maximum(x["heads"] / x["kv_heads"], 8), work.moved)
    return q["t0"] + _roof(work, peaks, q) + launched + q["split"] * np.sqrt(x["context"]) + scored


def _mla_work(x: Shape, peaks: Peaks) -> Work:
    b, s, h, latent, rope = x["batch"], x["context"], x["heads"], x["latent"], x["rope"]
    moved = b * (_stored(x, peaks) * s * (latent + rope) + peaks.element_bytes * h * (2 * latent + rope))
    return Work(2 * b * h * s * (2 * latent + rope), moved)


def _mla(x: Shape, peaks: Peaks, q: Fitted) -> Array:
    launched = q["head"] * x["batch"] * x["heads"] / peaks.units
    return q["t0"] + _roof(_mla_work(x, peaks), peaks, q) + launched + q["split"] * np.sqrt(x["context"])


def _memory_work(x: Shape, peaks: Peaks) -> Work:
    return Work(np.zeros_like(x["bytes"]), x["bytes"])


def _memory(x: Shape, peaks: Peaks, q: Fitted) -> Array:
    gain = _cached(x["bytes"], peaks, q["cache_gain"])
    return q["t0"] + x["bytes"] / (q["eta_m"] * peaks.memory_bytes_per_s * gain)


def _scan_work(x: Shape, peaks: Peaks) -> Work:
    return Work(x["flops"], x["bytes"])


def _scan(x: Shape, peaks: Peaks, q: Fitted) -> Array:
    work = _scan_work(x, peaks)
    if "small_ops" in q:  # an eager kernel pads its last chunk
        padded = np.where(x["tokens"] > 1, np.ceil(x["tokens"] / CHUNK) * CHUNK / x["tokens"], 1.0)
        work = Work(work.flops * padded, work.moved * padded)
        beside = q["small_ops"] + q["eager"] * work.moved / peaks.memory_bytes_per_s + q["lane"] * work.flops / 2
    else:
        beside = np.zeros_like(work.flops)
    return q["t0"] + q["chunk"] * np.ceil(x["tokens"] / CHUNK) + _roof(work, peaks, {**q, "p": 1.0}) + beside


def _touched(x: Shape, spread: float) -> Array:
    """Experts of a rank that the tokens touch: E (1 - (1 - k/E)^T), never fewer than one where there is a row."""
    share = np.minimum(x["topk"] / x["experts"], 1 - 1e-9)
    held, rows = x["experts"] / x["ep"], x["tokens"] * x["topk"] / x["ep"]
    return np.maximum(held * -np.expm1(spread * x["tokens"] * np.log1p(-share)), np.minimum(1, rows))


def _moe_work(x: Shape, peaks: Peaks, spread: float = 1.0, padding: float = 0.0, busiest: Any = 1.0) -> Work:
    touched, inner = _touched(x, spread), x["inter"] / x["tp"]
    rows = x["tokens"] * x["topk"] / x["ep"] * busiest + touched * padding
    return Work(6 * rows * x["hidden"] * inner, 3 * touched * x["hidden"] * inner * _stored(x, peaks))


def _moe(x: Shape, peaks: Peaks, q: Fitted) -> Array:
    busiest = np.where(x["ep"] > 1, (1 + q["skew"] * x["skew"]) * x.get("busiest", 1.0), 1.0)
    work = _moe_work(x, peaks, q["spread"], q["padding"], busiest)
    rows = x["tokens"] * x["topk"] / x["ep"]
    permuted = peaks.element_bytes * 4 * rows * (x["hidden"] + x["inter"] / x["tp"])
    beside = q["permute"] * permuted / (q["eta_m"] * peaks.memory_bytes_per_s)
    if "quantise" in q:  # tokens before they are sent or sorted, rows between the products
        beside = beside + q["quantise"] * (x["tokens"] / x["ep"] * x["hidden"] + rows * x["inter"] / x["tp"])
    if "touch" in q:
        touched = _touched(x, q["spread"])
        each = rows / touched
        beside = beside + touched * (q["touch"] + 3 * q["pack"] * x["hidden"] * x["inter"] * each / (each + 1))
        return q["t0"] + _roof(work, peaks, q, each / (each + q["half_m"])) + beside + q["expert"] * x["experts"]
    return q["t0"] + _roof(work, peaks, q) + beside + q["expert"] * x["experts"] / x["ep"]


def _allreduce_work(x: Shape, peaks: Peaks) -> Work:
    sent = 2 * x["bytes"] * (x["ranks"] - 1) / x["ranks"]
    return Work(np.zeros_like(sent), sent)


def _allreduce(x: Shape, peaks: Peaks, q: Fitted) -> Array:
    time = _allreduce_work(x, peaks).moved / peaks.link_bytes_per_s * x.get("slower", 1.0)
    return q["latency"] + q["hop"] * (x["ranks"] - 1) + time / q["eta_l"] + np.sqrt(q["pipeline"] * time)


def _sent_work(x: Shape, peaks: Peaks) -> Work:
    return Work(np.zeros_like(x["bytes"]), x["bytes"])


def _sent(x: Shape, peaks: Peaks, q: Fitted) -> Array:
    time = x["bytes"] / peaks.link_bytes_per_s * x.get("slower", 1.0)
    return q["latency"] + time / q["eta_l"] + 0.0 * x["ranks"]


ON_LINKS = ("allreduce", "sent")
"""Classes whose bytes cross links, and no memory. `slower` in a shape is the link's peak over that of the network they take."""
FORM = ("t0", "eta_c", "eta_m", "p")
"""The four numbers that every class on a device's own memory has."""
CLASSES: dict[str, KernelClass] = {
    kernel.name: kernel
    for kernel in (
        KernelClass(
            "gemm", "matrix product", ("m", "n", "k"), (*FORM, "cache_gain"), _gemm_work, _gemm,
            lambda x: (x["m"], x["n"], x["k"]), optional=("wave",),
            on_cpu=("half_m", "half_n", "half_k", "pack", "column"),
        ),
        KernelClass(
            "gemv", "matrix product of one row", ("n", "k"), (*FORM, "cache_gain"), _gemv_work, _gemv,
            lambda x: (x["n"], x["k"]), instead="gemm",
        ),
        KernelClass(
            "bmm", "batched products of activations", ("b", "m", "n", "k"), (*FORM, "cache_gain"), _bmm_work, _bmm,
            lambda x: (x["b"], x["m"], x["n"], x["k"]), instead="scan", on_cpu=("half_m", "half_n", "half_k"),
        ),
        KernelClass(
            "prefill_attention", "causal attention of a prompt",
            ("batch", "tokens", "heads", "kv_heads", "head_dim", "prefix"),
            (*FORM, "cache_gain", "half_context", "unit", "wave"), _prefill_work, _prefill,
            lambda x: (x["batch"], x["tokens"], x["heads"], x["kv_heads"], x["head_dim"], x["tokens"] + x["prefix"]),
            on_cpu=("query",),
        ),
        KernelClass(
            "decode_attention", "attention of one new token a sequence", ("batch", "context", "heads", "kv_heads", "head_dim"),
            (*FORM, "cache_gain", "kv_head", "head", "split"), _decode_work, _decode,
            lambda x: (x["batch"], x["heads"], x["kv_heads"], x["head_dim"], x["context"]), on_cpu=("query", "lane"),
        ),
        KernelClass(
            "mla_decode", "absorbed latent attention of one new token a sequence", ("batch", "context", "heads", "latent", "rope"),
            (*FORM, "cache_gain", "head", "split"), _mla_work, _mla,
            lambda x: (x["batch"], x["heads"], x["context"], x["latent"], x["rope"]),
        ),
        KernelClass(
            "scan", "recurrences over tokens, in chunks or single steps, and scores of an indexer", ("flops", "bytes", "tokens"),
            ("t0", "eta_c", "eta_m", "chunk"), _scan_work, _scan, lambda x: (x["flops"], x["bytes"], x["tokens"]),
        ),
        *(
            KernelClass(name, title, ("flops", "bytes", "tokens"), parameters, _scan_work, _scan,
                        lambda x: (x["flops"], x["bytes"], x["tokens"]), instead="scan", on_cpu=("small_ops", "eager", "lane"))
            for name, title, parameters in (
                ("gdn_chunked", "gated delta rule in chunks", ("t0", "eta_c", "eta_m", "chunk")),
                ("gdn_step", "gated delta rule, one token", ("t0", "eta_c", "eta_m", "chunk")),
                ("ssd_chunked", "state-space duality in chunks", ("t0", "eta_c", "eta_m", "chunk")),
                ("ssd_step", "state-space duality, one token", ("t0", "eta_c", "eta_m", "chunk")),
            )
        ),
        KernelClass(
            "memory", "activations, rope, gathers, copies, convolutions, states: whatever memory bounds", ("bytes",),
            ("t0", "eta_m", "cache_gain"), _memory_work, _memory, lambda x: (x["bytes"],),
        ),
        *(
            KernelClass(name, title, ("bytes",), ("t0", "eta_m", "cache_gain"), _memory_work, _memory,
                        lambda x: (x["bytes"],), instead="memory")
            for name, title in (
                ("softmax", "softmax of rows"), ("gate", "activations, with a gate or without"), ("rope", "rotary embedding"),
                ("gather", "rows looked up in a table"), ("conv", "causal depthwise convolution"),
            )
        ),
        KernelClass(
            "norm", "norms: rows that are read, reduced and scaled", ("bytes",),
            ("t0", "eta_m", "cache_gain"), _memory_work, _memory, lambda x: (x["bytes"],),
        ),
        KernelClass(
            "moe", "grouped products of routed experts",
            ("tokens", "hidden", "inter", "topk", "experts", "tp", "ep", "skew"),
            (*FORM, "cache_gain", "padding", "expert", "permute", "spread", "skew"), _moe_work, _moe,
            lambda x: (x["tokens"], x["hidden"], x["inter"] / x["tp"], x["topk"], x["experts"] / x["ep"], x["ep"]),
            on_cpu=("half_m", "pack", "touch"),
        ),
        KernelClass(
            "allreduce", "all-reduce within a node", ("ranks", "bytes"), ("latency", "hop", "eta_l", "pipeline"),
            _allreduce_work, _allreduce, lambda x: (x["ranks"], x["bytes"]),
        ),
        KernelClass(
            "sent", "tokens, keys or partial results on their way between ranks", ("ranks", "bytes"), ("latency", "eta_l"),
            _sent_work, _sent, lambda x: (x["ranks"], x["bytes"]),
        ),
    )
}  # fmt: skip


def kernel_class(name: str) -> KernelClass:
    """A class by name. Raises CostModelError for an unknown one.

    >>> kernel_class("gemm").sizes
    ('m', 'n', 'k')
    """
    if name not in CLASSES:
        raise CostModelError(f"no kernel class {name!r}; {did_you_mean(name, CLASSES)}")
    return CLASSES[name]
