"""Small kernels as models run them, timed one by one: the only module that imports torch.

What a model has just written (activations) is cut from one warm place; what it reads once a pass (weights, caches, states,
tables) from ever new places of a buffer beyond 2.5x the last-level cache. On a CPU: one thread, CPU time, rounds in random
order; the 10th percentile over rounds is the figure. On CUDA: events, and the median.
"""

from __future__ import annotations

import ctypes
import math
import platform
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from costmodel.calibration.shapes import SPACES, Point
from costmodel.errors import CostModelError, did_you_mean, excerpt, shown
from costmodel.kernels import CHUNK

MIB = 2**20
MOST_BYTES = 1536 * MIB
"""Of all inputs together."""
BEYOND_CACHE = 2.5
SAMPLE_S = 0.002
SLOW_S = 0.02
"""A call this long needs no call before it to warm code and allocator up."""
MOST_COPIES = 1024
LEAST_ROUNDS, MOST_ROUNDS = 2, 12
CANARY, CANARY_EVERY, CANARY_SPREAD = 512, 40, 1.5
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Measured:
    """Seconds a call of each point, one sample a round; `noisy` where the canary varied more than 1.5x."""

    seconds: dict[Point, list[float]]
    canary_s: list[float]
    noisy: bool
    machine: dict[str, Any]


# --- inputs: views of one buffer


class Pool:
    """One buffer of normal numbers of a dtype on a device; its cursor goes round, so that what it gives next is cold."""

    def __init__(self, dtype: torch.dtype, device: str) -> None:
        self.dtype, self.device, self.cursor = dtype, device, 0
        self.buffer = torch.empty(0, dtype=dtype, device=device)
        self.random = np.random.default_rng(0)

    def reserve(self, elements: int) -> None:
        """At least so many elements, and always more than the last-level cache holds."""
        bytes_each = self.buffer.element_size()
        if elements * bytes_each > MOST_BYTES:
            raise CostModelError(
                f"inputs of {elements * bytes_each / 2**30:.1f} GiB, at most {MOST_BYTES / 2**30:g}: choose a smaller shape"
            )
        floor = int(min(BEYOND_CACHE * last_level_cache(self.device), MOST_BYTES / 2)) // bytes_each
        blocks = -(-max(elements, floor) // MIB)
        if blocks * MIB > self.buffer.numel():
            self.buffer = torch.empty(0, dtype=self.dtype)  # the old one goes first
            block = torch.from_numpy(self.random.standard_normal(MIB, np.float32)).to(self.dtype).to(self.device)
            self.buffer = block.repeat(blocks)


class Source:
    """Cuts the inputs of a kernel: `warm` ones from the buffer's start each time, `cold` ones from where the cursor is."""

    def __init__(self, pool: Pool, warm: int) -> None:
        self.pool, self.warm_end, self.warm_at = pool, warm, 0

    def warm(self, *dims: int) -> Tensor:
        start, self.warm_at = self.warm_at, self.warm_at + _aligned(dims)
        return self._cut(start, dims)

    def cold(self, *dims: int) -> Tensor:
        start, size = max(self.pool.cursor, self.warm_end), _aligned(dims)
        start = start if start + size <= self.pool.buffer.numel() else self.warm_end
        self.pool.cursor = start + size
        return self._cut(start, dims)

    def _cut(self, start: int, dims: tuple[int, ...]) -> Tensor:
        return self.pool.buffer[start : start + math.prod(dims)].view(dims)

    def picks(self, rows: int, of: int, count: int = 1) -> Tensor:
        """Integers [rows, count] below `of`, those of a row distinct."""
        draw = self.pool.random
        numbers = draw.integers(0, of, (rows, 1)) if count == 1 else draw.random((rows, of)).argsort(axis=1)[:, :count]
        return torch.from_numpy(np.ascontiguousarray(numbers)).to(self.pool.device)


class Need(Source):
    """Counts what a kernel's inputs take, on tensors without storage."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(Pool(dtype, "meta"), 0)
        self.warms = self.colds = 0

    def warm(self, *dims: int) -> Tensor:
        self.warms += _aligned(dims)
        return torch.empty(dims, device="meta", dtype=self.pool.dtype)

    def cold(self, *dims: int) -> Tensor:
        self.colds += _aligned(dims)
        return torch.empty(dims, device="meta", dtype=self.pool.dtype)


def _aligned(dims: tuple[int, ...]) -> int:
    return -(-math.prod(dims) // 64) * 64


@cache
def _pool(dtype: torch.dtype, device: str) -> Pool:
    return Pool(dtype, device)


# --- kernels

Inputs = Callable[..., tuple[Any, ...]]


@dataclass(frozen=True)
class Kernel:
    """`dims` name its shape, `inputs(source, **shape)` cuts one set of inputs, `call(*inputs)` is timed and returns outputs."""

    dims: tuple[str, ...]
    inputs: Inputs
    call: Callable[..., Any]

    def need(self, shape: dict[str, int], dtype: torch.dtype) -> Need:
        counted = Need(dtype)
        self.inputs(counted, **shape)
        return counted

    def build(self, shape: dict[str, int], dtype: torch.dtype, device: str, copies: int) -> Callable[[int], Any]:
        """run(i) calls the kernel on the i-th of `copies` sets of inputs, and round again."""
        need, pool = self.need(shape, dtype), _pool(dtype, device)
        pool.reserve(need.warms + need.colds)
        sets = [self.inputs(Source(pool, need.warms), **shape) for _ in range(copies if need.colds else 1)]
        call, count = self.call, len(sets)
        return lambda i: call(*sets[i % count])


KERNELS: dict[str, Kernel] = {}


def kernel(inputs: Inputs) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enters the function below into KERNELS under its name, which is a key of SPACES."""

    def enter(call: Callable[..., Any]) -> Callable[..., Any]:
        KERNELS[call.__name__] = Kernel(SPACES[call.__name__].dims, inputs, call)
        return call

    return enter


@kernel(lambda s, m, n, k: (s.warm(m, k), s.cold(n, k)))
def gemm(x: Tensor, w: Tensor) -> Tensor:
    """y[m, n] = x[m, k] w[n, k]^T, the weight cold."""
    return F.linear(x, w)


@kernel(lambda s, n, k: (s.warm(1, k), s.cold(n, k)))
def gemv(x: Tensor, w: Tensor) -> Tensor:
    """The same of one row."""
    return F.linear(x, w)


@kernel(lambda s, b, m, n, k: (s.warm(b, m, k), s.warm(b, n, k)))
def bmm(x: Tensor, y: Tensor) -> Tensor:
    """z[b, m, n] = x[b, m, k] y[b, n, k]^T of activations."""
    return torch.bmm(x, y.transpose(1, 2))


@kernel(
    lambda s, batch, heads, kv_heads, head_dim, tokens: (
        s.warm(batch, tokens, heads, head_dim).transpose(1, 2),
        s.warm(batch, tokens, kv_heads, head_dim).transpose(1, 2),
        s.warm(batch, tokens, kv_heads, head_dim).transpose(1, 2),
    ),
)
def prefill_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal, as transformers calls SDPA: `is_causal`, and `enable_gqa` where heads share keys."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] > k.shape[1])


@kernel(
    lambda s, batch, heads, kv_heads, head_dim, context: (
        s.warm(batch, heads, 1, head_dim),
        s.cold(batch, kv_heads, context, head_dim),
        s.cold(batch, kv_heads, context, head_dim),
    ),
)
def decode_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One query a sequence over a cold cache, with `enable_gqa`."""
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=q.shape[1] > k.shape[1])


@kernel(
    lambda s, batch, heads, latent, rope, context: (
        s.warm(batch, heads, latent),
        s.warm(batch, heads, rope),
        s.cold(batch, context, latent),
        s.cold(batch, context, rope),
    ),
)
def mla_decode(q: Tensor, q_rope: Tensor, latent: Tensor, k_rope: Tensor) -> Tensor:
    """The absorbed core: all heads against one cached latent, whose content is the values too."""
    scale = (q.shape[-1] + q_rope.shape[-1]) ** -0.5
    scores = torch.bmm(q, latent.transpose(1, 2)) + torch.bmm(q_rope, k_rope.transpose(1, 2))
    return torch.bmm(torch.softmax(scores * scale, -1, dtype=torch.float32).to(q.dtype), latent)


@kernel(
    lambda s, tokens, hidden, inter, topk, experts: (
        s.warm(tokens, hidden),
        s.picks(tokens, experts, topk),
        s.warm(tokens, topk),
        s.cold(experts, 2 * inter, hidden),
        s.cold(experts, hidden, inter),
    ),
)
def moe(x: Tensor, picks: Tensor, weights: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """The eager loop over touched experts: its tokens selected, gate and up, silu, down, weighed, index_add."""
    out = torch.zeros_like(x)
    mask = F.one_hot(picks, gate_up.shape[0]).permute(2, 1, 0)
    for touched in mask.sum(dim=(-1, -2)).greater(0).nonzero():
        expert = touched[0]
        place, token = torch.where(mask[expert])
        a, b = F.linear(x[token], gate_up[expert]).chunk(2, dim=-1)
        y = F.linear(F.silu(a) * b, down[expert]) * weights[token, place, None]
        out.index_add_(0, token, y)
    return out


@kernel(lambda s, rows, width: (s.warm(rows, width), s.warm(width)))
def norm(x: Tensor, weight: Tensor) -> Tensor:
    """Root-mean-square norm as eager models write it: in fp32, six operations."""
    y = x.to(torch.float32)
    y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)
    return weight * y.to(x.dtype)


@kernel(lambda s, rows, width: (s.warm(rows, width),))
def softmax(x: Tensor) -> Tensor:
    """In fp32, as eager attention does."""
    return torch.softmax(x, -1, dtype=torch.float32).to(x.dtype)


@kernel(lambda s, rows, width: (s.warm(rows, width), s.warm(rows, width)))
def gate(a: Tensor, b: Tensor) -> Tensor:
    """silu(a) b."""
    return F.silu(a) * b


@kernel(lambda s, rows, width: (s.warm(rows, width), s.warm(rows, width)))
def add(a: Tensor, b: Tensor) -> Tensor:
    """The residual."""
    return a + b


@kernel(lambda s, rows, width: (s.warm(rows, width), s.warm(1, width), s.warm(1, width)))
def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate-half of rows (a token's heads, say) by angles they share."""
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


@kernel(lambda s, rows, width, table: (s.cold(table, width), s.picks(rows, table)[:, 0]))
def gather(table: Tensor, picks: Tensor) -> Tensor:
    """Random rows of a cold table."""
    return F.embedding(picks, table)


@kernel(lambda s, rows, width: (s.warm(rows, width),))
def copy(x: Tensor) -> Tensor:
    """A plain clone."""
    return x.clone()


@kernel(
    lambda s, batch, tokens, channels, kernel: (
        s.warm(batch, channels, tokens),
        s.warm(channels, 1, kernel),
        s.cold(batch, channels, kernel - 1) if tokens == 1 else None,
    ),
)
def conv(x: Tensor, w: Tensor, tail: Tensor | None) -> Tensor:
    """Causal and depthwise, from nothing; of one token: after the tail that is kept, which moves on by one."""
    channels, tokens = x.shape[1:]
    if tail is None:
        return F.conv1d(x, w, padding=w.shape[-1] - 1, groups=channels)[..., :tokens]
    seen = torch.cat((tail, x), dim=-1)
    tail.copy_(seen[..., 1:])
    return F.conv1d(seen, w, groups=channels)


@kernel(
    lambda s, batch, tokens, key_heads, value_heads, key_dim, value_dim: (
        s.warm(batch, tokens, key_heads, key_dim),
        s.warm(batch, tokens, key_heads, key_dim) * key_dim**-0.5,  # keys of length one, about
        s.warm(batch, tokens, value_heads, value_dim),
        s.warm(batch, tokens, value_heads).abs() * -0.1,
        s.warm(batch, tokens, value_heads).sigmoid(),
    ),
)
def gdn_chunked(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Gated delta rule in chunks of 64: a unit triangle is solved for what each token writes, the state goes from chunk to chunk.

    decay (a logarithm) and beta are [batch, tokens, value_heads]. Returns outputs and state. Key heads are repeated, sums in fp32.
    """
    tokens, group = q.shape[1], v.shape[2] // k.shape[2]
    q, k = (_chunks(_repeat(x, group, 2).transpose(1, 2).float()) for x in (q * q.shape[-1] ** -0.5, k))
    v, decay, beta = (_chunks(x.transpose(1, 2).float()) for x in (v, decay[..., None], beta[..., None]))
    passed = decay.cumsum(-2)
    within = (passed - passed.transpose(-1, -2)).tril().exp().tril()
    k_beta = k * beta
    triangle = (k_beta @ k.transpose(-1, -2)) * within
    rows = torch.cat((v * beta, k_beta * passed.exp()), dim=-1)
    writes, keys = torch.linalg.solve_triangular(triangle, rows, upper=False, unitriangular=True).split(
        (v.shape[-1], k.shape[-1]), dim=-1
    )
    scores, q = (q @ k.transpose(-1, -2)) * within, q * passed.exp()
    k, through = k * (passed[..., -1:, :] - passed).exp(), passed[..., -1:, :].exp()
    state, outs = v.new_zeros(*v.shape[:2], k.shape[-1], v.shape[-1]), torch.empty_like(v)
    for i in range(v.shape[2]):
        write = writes[:, :, i] - keys[:, :, i] @ state
        outs[:, :, i] = q[:, :, i] @ state + scores[:, :, i] @ write
        state = state * through[:, :, i] + k[:, :, i].transpose(-1, -2) @ write
    return outs.flatten(2, 3)[:, :, :tokens].transpose(1, 2).contiguous(), state


@kernel(
    lambda s, batch, key_heads, value_heads, key_dim, value_dim: (
        s.warm(batch, key_heads, key_dim),
        s.warm(batch, key_heads, key_dim) * key_dim**-0.5,
        s.warm(batch, value_heads, value_dim),
        s.warm(batch, value_heads).abs() * -0.1,
        s.warm(batch, value_heads).sigmoid(),
        s.cold(batch, value_heads, key_dim, value_dim),
    ),
)
def gdn_step(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor, state: Tensor) -> Tensor:
    """One token: forget, correct what the key retrieves towards the value, read; the cold state is written back."""
    group = v.shape[1] // k.shape[1]
    q, k = (_repeat(x, group, 1).float()[..., None] for x in (q * q.shape[-1] ** -0.5, k))
    new = state.float() * decay.float().exp()[..., None, None]
    write = (v.float() - (new * k).sum(-2)) * beta.float()[..., None]
    new = new + k * write[..., None, :]
    state.copy_(new)
    return (new * q).sum(-2)


@kernel(
    lambda s, batch, tokens, heads, head_dim, state, groups: (
        s.warm(batch, tokens, heads, head_dim),
        s.warm(batch, tokens, heads).sigmoid() * 0.2,
        -s.warm(heads).abs(),
        s.warm(batch, tokens, groups, state),
        s.warm(batch, tokens, groups, state),
    ),
)
def ssd_chunked(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Mamba-2's state-space duality in chunks of 64: scores within a chunk, one state a chunk, states passed on.

    x [batch, tokens, heads, head_dim], steps dt [batch, tokens, heads], rates a [heads] < 0, b, c [batch, tokens, groups, state].
    """
    tokens, groups = x.shape[1], b.shape[2]
    b, c = (_chunks(y.transpose(1, 2).float()).unsqueeze(2) for y in (b, c))  # [batch, groups, 1, chunks, CHUNK, state]
    dt = dt.float()
    x, passed = (_grouped(y, groups) for y in (x.float() * dt[..., None], (dt * a.float())[..., None]))
    passed = passed.cumsum(-2)
    within = (passed - passed.transpose(-1, -2)).tril().exp().tril()
    y = ((c @ b.transpose(-1, -2)) * within) @ x
    own = (x * (passed[..., -1:, :] - passed).exp()).transpose(-1, -2) @ b
    through, state, before = passed[..., -1:, :].exp(), torch.zeros_like(own[:, :, :, 0]), []
    for i in range(own.shape[3]):
        before.append(state)
        state = state * through[:, :, :, i] + own[:, :, :, i]
    y = y + (c @ torch.stack(before, dim=3).transpose(-1, -2)) * passed.exp()
    y = y.flatten(3, 4)
    return y[..., :tokens, :].flatten(1, 2).transpose(1, 2).contiguous(), state.flatten(1, 2)


@kernel(
    lambda s, batch, heads, head_dim, state, groups: (
        s.warm(batch, heads, head_dim),
        s.warm(batch, heads).sigmoid() * 0.2,
        -s.warm(heads).abs(),
        s.warm(batch, groups, state),
        s.warm(batch, groups, state),
        s.cold(batch, heads, head_dim, state),
    ),
)
def ssd_step(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor) -> Tensor:
    """One token: the state decays, x b^T is added, c reads; the cold state is written back."""
    group = x.shape[1] // b.shape[1]
    b, c = (_repeat(y, group, 1).float() for y in (b, c))
    dt = dt.float()
    new = state.float() * (dt * a.float()).exp()[..., None, None] + (x.float() * dt[..., None])[..., None] * b[:, :, None]
    state.copy_(new)
    return (new @ c[..., None])[..., 0]


def silu(x: Tensor) -> Tensor:
    """x sigmoid(x)."""
    return F.silu(x)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x))."""
    return F.softplus(x)


def side_by_side(*parts: Tensor) -> Tensor:
    """Joined along the last dim."""
    return torch.cat(parts, dim=-1)


def _repeat(x: Tensor, group: int, dim: int) -> Tensor:
    return x if group == 1 else x.repeat_interleave(group, dim)


def _chunks(x: Tensor) -> Tensor:
    """[batch, heads, tokens, width] -> [batch, heads, chunks, CHUNK, width], the last padded by zeros."""
    padded = F.pad(x, (0, 0, 0, -x.shape[2] % CHUNK))
    return padded.reshape(*x.shape[:2], -1, CHUNK, x.shape[-1])


def _grouped(x: Tensor, groups: int) -> Tensor:
    """[batch, tokens, heads, width] -> [batch, groups, heads of a group, chunks, CHUNK, width]."""
    chunks = _chunks(x.transpose(1, 2))
    return chunks.view(len(x), groups, -1, *chunks.shape[2:])


# --- timing

Follow = Callable[[Point, float, int, int], object]
Kernels = Mapping[str, Kernel]


@dataclass
class _Run:
    """One measurement under way."""

    points: list[Point]
    device: str
    budget_s: float
    seed: int
    seconds: dict[Point, list[float]]
    follow: Follow
    kernels: Kernels
    canary_s: list[float] = field(default_factory=list)
    taken: int = 0
    began: float = field(default_factory=time.monotonic)

    def rounds(self) -> None:
        """Every point once before any twice; beyond the second round only while time is left."""
        for number in range(MOST_ROUNDS):
            left = [point for point in self.points if len(self.seconds.get(point, ())) <= number]
            Random(f"{self.seed} {number}").shuffle(left)  # noqa: S311 # an order
            for point in left:
                if number >= LEAST_ROUNDS and self.spent() > self.budget_s:
                    return
                self.sample(point)

    def sample(self, point: Point) -> None:
        if self.taken % CANARY_EVERY == 0:
            self.canary_s.append(_canary(self.device))
        earlier = self.seconds.get(point, [])
        taken = _sample(point, self.kernels[point.kind], self.device, min(earlier, default=None))
        self.seconds[point] = [*earlier, taken]
        self.taken += 1
        self.follow(point, taken, self.taken, self.expected())

    def spent(self) -> float:
        return time.monotonic() - self.began

    def expected(self) -> int:
        """Samples in all, as the pace so far has it."""
        pace = self.taken / max(self.spent(), 1e-9)
        least, most = (rounds * len(self.points) for rounds in (LEAST_ROUNDS, MOST_ROUNDS))
        return max(min(most, max(least, int(pace * self.budget_s))), self.taken)


def measure(
    points: Iterable[Point], device: str = "cpu", *, budget_s: float = 300.0, seed: int = 0,
    done: dict[Point, list[float]] | None = None, follow: Follow | None = None, kernels: Kernels = KERNELS,
) -> Measured:  # fmt: skip
    """Samples of every point in rounds of random order: 2 rounds whatever they take, up to 12 within the budget.

    `done` are samples of an earlier run, kept and counted. `follow(point, seconds, taken, expected)` hears of each sample. On
    glibc, freed memory stays with the process from here on. Raises CostModelError for a device that is not here, or a
    point that is none.
    """
    wanted = list(dict.fromkeys(points))
    _check(wanted, device, kernels)
    earlier = {point: list(samples) for point, samples in (done or {}).items() if point in set(wanted)}
    run = _Run(wanted, device, budget_s, seed, earlier, follow or (lambda *_: None), kernels)
    with _settled():
        _reserve(wanted, device, kernels)
        _canary(device)  # the first is never the fastest
        run.rounds()
        run.canary_s.append(_canary(device))
    return Measured(run.seconds, run.canary_s, max(run.canary_s) > CANARY_SPREAD * min(run.canary_s), machine(device))


def statistic(samples: list[float], device: str = "cpu") -> float:
    """The figure of a point's samples: on a CPU the 10th percentile, for others only ever slow it down; on CUDA the median."""
    return float(np.percentile(samples, 50 if _is_cuda(device) else 10))


def _is_cuda(device: str) -> bool:
    return device.startswith("cuda")


def check_device(device: str) -> None:
    """Raises CostModelError for a device that torch does not see here."""
    if not (device == "cpu" or re.fullmatch(r"cuda(:\d{1,2})?", device)):
        raise CostModelError(f"no device {shown(device)}; known: cpu, cuda, cuda:0")
    if _is_cuda(device) and int(device.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise CostModelError(
            f"device {device} is not here: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices"
        )


def _check(points: list[Point], device: str, kernels: Kernels) -> None:
    """One line for what cannot be measured."""
    check_device(device)
    for point in points:
        _check_point(point, kernels)


def _check_point(point: Point, kernels: Kernels) -> None:
    if point.kind not in kernels:
        raise CostModelError(f"no kernel {shown(point.kind)}; {did_you_mean(point.kind, kernels)}")
    dims, given = kernels[point.kind].dims, dict(point.shape)
    if tuple(given) != dims or any(type(size) is not int or size < 1 for size in given.values()):
        raise CostModelError(f"{point.kind} takes positive integers {', '.join(dims)}, not {excerpt(str(given))}")
    if point.dtype not in DTYPES:
        raise CostModelError(f"no dtype {shown(point.dtype)}; known: {', '.join(DTYPES)}")


def _reserve(points: list[Point], device: str, kernels: Kernels) -> None:
    """The largest buffer of each dtype once, before the first sample."""
    for dtype in {DTYPES[point.dtype] for point in points}:
        needs = [kernels[p.kind].need(dict(p.shape), dtype) for p in points if DTYPES[p.dtype] is dtype]
        _pool(dtype, device).reserve(max(need.warms + need.colds for need in needs))


def _sample(point: Point, kernel: Kernel, device: str, known: float | None) -> float:
    """Seconds a call, over repeats that take about 2 ms together, each on inputs of its own."""
    shape, dtype = dict(point.shape), DTYPES[point.dtype]
    if known is None:
        pilot = kernel.build(shape, dtype, device, 4)
        known = min(_elapsed(pilot, (i,), device) for i in range(3))
    repeats = min(max(math.ceil(SAMPLE_S / max(known, 1e-7)), 1), 4096)
    run = kernel.build(shape, dtype, device, min(repeats + 1, MOST_COPIES))
    if known < SLOW_S:
        run(0)
    return _elapsed(run, range(1, repeats + 1), device) / repeats


def _elapsed(run: Callable[[int], Any], turns: Iterable[int], device: str) -> float:
    """Seconds of the turns together: of this thread's CPU time, or between two events of the device."""
    if _is_cuda(device):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(device)
        begin.record()
        for turn in turns:
            run(turn)
        end.record()
        torch.cuda.synchronize(device)
        return float(begin.elapsed_time(end)) / 1e3
    start = time.thread_time()
    for turn in turns:
        run(turn)
    return time.thread_time() - start


def _canary(device: str) -> float:
    """Seconds of one product of known size: what it varies is the machine's doing."""
    x = _pool(torch.float32, device)
    x.reserve(2 * CANARY**2)
    a, b = (x.buffer[i * CANARY**2 :][: CANARY**2].view(CANARY, CANARY) for i in range(2))
    return min(_elapsed(lambda _: torch.mm(a, b), (i,), device) for i in range(3))


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's mallopt: freed memory stays here, so that a large output is not mapped afresh at every call."""


@contextmanager
def _settled() -> Iterator[None]:
    """One thread, no gradients, and large outputs from memory that the process keeps."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)


@cache
def last_level_cache(device: str) -> int:
    """Bytes of the last-level cache; 32 MiB where the system does not say."""
    if _is_cuda(device):
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    scale = {"K": 2**10, "M": MIB}
    return max((int(size[:-1]) * scale[size[-1]] for size in sizes if size[-1:] in scale), default=32 * MIB)


def device_name(device: str) -> str:
    """What the device calls itself."""
    if _is_cuda(device):
        return str(torch.cuda.get_device_name(device))
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine(device: str) -> dict[str, Any]:
    """What the measurement ran on."""
    return {
        "device": device_name(device),
        "threads": 0 if _is_cuda(device) else 1,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
