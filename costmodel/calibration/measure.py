"""Small kernels as models run them, timed one by one: the only module that imports torch.

What a model has just written (activations) is cut from one warm place; what it reads once a pass (weights, caches, states,
tables) from ever new places of a buffer beyond 2.5x the last-level cache. On a CPU: one thread, CPU time, rounds in random
order; the 10th percentile over rounds is the figure. On CUDA: events, and the median.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from costmodel.errors import CostModelError, did_you_mean, excerpt, shown

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
CHUNK = 64
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Point:
    """One kernel at one shape: a key of KERNELS, and its dims in the kernel's order."""

    kind: str
    shape: tuple[tuple[str, int], ...]
    dtype: str = "fp32"

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(f'{name}={size}' for name, size in self.shape)}) in {self.dtype}"


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
                f"inputs of {elements * bytes_each / 2**30:.1f} GiB, at most {MOST_BYTES / 2**30:g} are kept: choose a smaller shape"
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

    def unseen(self, queries: int, keys: int) -> Tensor | None:
        """The mask of new tokens after a cached prefix; None where there is no prefix, or one query that sees all."""
        if queries in (1, keys):
            return None
        return torch.ones(queries, keys, dtype=torch.bool, device=self.pool.device).tril(keys - queries)


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
    """`inputs(source, **shape)` cuts one set of inputs, `call(*inputs)` is what is timed and returns its outputs."""

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


def kernel(dims: str, inputs: Inputs) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enters the function below into KERNELS under its name."""

    def enter(call: Callable[..., Any]) -> Callable[..., Any]:
        KERNELS[call.__name__] = Kernel(tuple(dims.split()), inputs, call)
        return call

    return enter


@kernel("m n k", lambda s, m, n, k: (s.warm(m, k), s.cold(n, k)))
def gemm(x: Tensor, w: Tensor) -> Tensor:
    """y[m, n] = x[m, k] w[n, k]^T, the weight cold."""
    return F.linear(x, w)


@kernel("n k", lambda s, n, k: (s.warm(1, k), s.cold(n, k)))
def gemv(x: Tensor, w: Tensor) -> Tensor:
    """The same of one row."""
    return F.linear(x, w)


@kernel("b m n k", lambda s, b, m, n, k: (s.warm(b, m, k), s.warm(b, n, k)))
def bmm(x: Tensor, y: Tensor) -> Tensor:
    """z[b, m, n] = x[b, m, k] y[b, n, k]^T of activations."""
    return torch.bmm(x, y.transpose(1, 2))


@kernel(
    "batch heads kv_heads head_dim tokens context",
    lambda s, batch, heads, kv_heads, head_dim, tokens, context: (
        s.warm(batch, tokens, heads, head_dim).transpose(1, 2),
        s.warm(batch, kv_heads, context, head_dim),
        s.warm(batch, kv_heads, context, head_dim),
        s.unseen(tokens, context),
    ),
)
def prefill_attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None) -> Tensor:
    """As transformers calls SDPA: `is_causal` and `enable_gqa` without a prefix; with one, a mask and heads repeated."""
    group = q.shape[1] // k.shape[1]
    if seen is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1, enable_gqa=group > 1)
    return F.scaled_dot_product_attention(q, _repeat(k, group, 1), _repeat(v, group, 1), attn_mask=seen)


@kernel(
    "batch heads kv_heads head_dim context",
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
    "batch heads latent rope context",
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
    "tokens hidden inter topk experts",
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


@kernel("rows width", lambda s, rows, width: (s.warm(rows, width), s.warm(width)))
def norm(x: Tensor, weight: Tensor) -> Tensor:
    """Root-mean-square norm as eager models write it: in fp32, six operations."""
    y = x.to(torch.float32)
    y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)
    return weight * y.to(x.dtype)


@kernel("rows width", lambda s, rows, width: (s.warm(rows, width),))
def softmax(x: Tensor) -> Tensor:
    """In fp32, as eager attention does."""
    return torch.softmax(x, -1, dtype=torch.float32).to(x.dtype)


@kernel("rows width", lambda s, rows, width: (s.warm(rows, width), s.warm(rows, width)))
def gate(a: Tensor, b: Tensor) -> Tensor:
    """silu(a) b."""
    return F.silu(a) * b


@kernel("rows width", lambda s, rows, width: (s.warm(rows, width), s.warm(rows, width)))
def add(a: Tensor, b: Tensor) -> Tensor:
    """The residual."""
    return a + b


@kernel("rows width", lambda s, rows, width: (s.warm(rows, width), s.warm(1, width), s.warm(1, width)))
def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate-half of rows (a token's heads, say) by angles they share."""
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


@kernel("rows width table", lambda s, rows, width, table: (s.cold(table, width), s.picks(rows, table)[:, 0]))
def gather(table: Tensor, picks: Tensor) -> Tensor:
    """Random rows of a cold table."""
    return F.embedding(picks, table)


@kernel("rows width", lambda s, rows, width: (s.warm(rows, width),))
def copy(x: Tensor) -> Tensor:
    """A plain clone."""
    return x.clone()


@kernel(
    "batch tokens channels kernel",
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
    "batch tokens key_heads value_heads key_dim value_dim",
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
    "batch key_heads value_heads key_dim value_dim",
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
    "batch tokens heads head_dim state groups",
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

    x [batch, tokens, heads, head_dim], steps dt [batch, tokens, heads], rates a [heads] < 0, b and c [batch, tokens, groups, state].
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
    return y.flatten(3, 4)[..., :tokens, :].flatten(1, 2).transpose(1, 2).contiguous(), state.flatten(1, 2)


@kernel(
    "batch heads head_dim state groups",
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


def _repeat(x: Tensor, group: int, dim: int) -> Tensor:
    return x if group == 1 else x.repeat_interleave(group, dim)


def _chunks(x: Tensor) -> Tensor:
    """[batch, heads, tokens, width] -> [batch, heads, chunks, CHUNK, width], the last padded by zeros."""
    padded = F.pad(x, (0, 0, 0, -x.shape[2] % CHUNK))
    return padded.reshape(*x.shape[:2], -1, CHUNK, x.shape[-1])


def _grouped(x: Tensor, groups: int) -> Tensor:
    """[batch, tokens, heads, width] -> [batch, groups, heads of a group, chunks, CHUNK, width]."""
    return _chunks(x.transpose(1, 2)).unflatten(1, (groups, -1))


# --- which points

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Space:
    """The shapes of a kind: anchors (one row; tiny; huge; as large as a cache; just above a tile), and ranges between.

    A range of two is spread over its logarithm, any other is a choice. `size(**shape)` gives FLOPs and elements moved.
    """

    anchors: tuple[Sizes, ...]
    ranges: tuple[Sizes, ...]
    size: Callable[..., tuple[float, float]]
    count: int = 14


MOST_FLOPS, MOST_ELEMENTS = 6e9, 4e7
WIDTHS = (32, 64, 128)
PLAIN = (((1, 2048), (2, 64), (4096, 4096), (1024, 2048), (65, 1040)), ((1, 8192), (64, 8192)))


def _plain(operations: int) -> Space:
    return Space(*PLAIN, lambda rows, width: (operations * rows * width, 3 * rows * width))


SPACES: dict[str, Space] = {
    "gemm": Space(
        ((1, 4096, 1024), (2, 64, 64), (1024, 4096, 2048), (64, 2048, 2048), (65, 1040, 1024)),
        ((1, 2048), (48, 8192), (48, 8192)),
        lambda m, n, k: (2 * m * n * k, m * k + n * k + m * n),
        40,
    ),
    "gemv": Space(
        ((1024, 1024), (64, 64), (16384, 4096), (2048, 4096), (1025, 1025)),
        ((48, 16384), (48, 16384)),
        lambda n, k: (2 * n * k, n * k),
        20,
    ),
    "bmm": Space(
        ((8, 1, 256, 64), (1, 8, 16, 16), (16, 512, 1024, 128), (8, 256, 1024, 128), (8, 65, 65, 64)),
        ((1, 64), (1, 1024), (16, 1024), (16, 256)),
        lambda b, m, n, k: (2 * b * m * n * k, b * (m * k + n * k + m * n)),
        20,
    ),
    "prefill_attention": Space(
        ((1, 16, 4, 64, 1, 256), (1, 2, 1, 32, 8, 8), (1, 16, 4, 128, 1536, 1536), (1, 8, 8, 64, 512, 4096), (1, 8, 2, 64, 257, 257)),
        ((1, 2, 4), (4, 8, 16, 32), (1, 2, 4, 8), WIDTHS, (8, 1536), (8, 4096)),
        lambda batch, heads, kv_heads, head_dim, tokens, context: (
            4 * batch * heads * tokens * context * head_dim,
            batch * head_dim * (heads * tokens + 2 * heads * context),
        ),
        40,
    ),
    "decode_attention": Space(
        ((1, 16, 4, 128, 1), (1, 2, 1, 32, 16), (4, 16, 8, 128, 8192), (1, 16, 8, 128, 4096), (1, 8, 2, 64, 513)),
        ((1, 16), (4, 8, 16, 32), (1, 2, 4, 8), WIDTHS, (8, 16384)),
        lambda batch, heads, kv_heads, head_dim, context: (
            4 * batch * heads * context * head_dim,
            2 * batch * kv_heads * context * head_dim,
        ),
        40,
    ),
    "mla_decode": Space(
        ((1, 16, 512, 64, 1), (1, 4, 32, 16, 16), (4, 16, 512, 64, 8192), (1, 16, 512, 64, 8192), (1, 16, 256, 32, 513)),
        ((1, 8), (8, 16, 32), (128, 256, 512), (32, 64, 64), (16, 16384)),
        lambda batch, heads, latent, rope, context: (
            2 * batch * heads * context * (2 * latent + rope),
            batch * context * (latent + rope),
        ),
    ),
    "moe": Space(
        ((1, 1024, 512, 4, 16), (2, 64, 32, 2, 4), (512, 1024, 768, 4, 16), (16, 512, 512, 2, 8), (65, 512, 256, 4, 32)),
        ((1, 512), (128, 2048), (64, 1024), (1, 2, 4, 8), (4, 8, 16, 32)),
        lambda tokens, hidden, inter, topk, experts: (6 * tokens * topk * hidden * inter, 3 * experts * hidden * inter),
        16,
    ),
    "norm": _plain(4),
    "softmax": _plain(5),
    "gate": _plain(5),
    "add": _plain(1),
    "rope": _plain(3),
    "gather": Space(
        ((1, 2048, 32000), (1, 64, 256), (4096, 2048, 32000), (1024, 1024, 8192), (65, 1040, 4096)),
        ((1, 4096), (64, 2048), (256, 32768)),
        lambda rows, width, table: (0, table * width),
    ),
    "copy": _plain(1),
    "conv": Space(
        ((1, 1, 2048, 4), (1, 4, 64, 4), (1, 2048, 8192, 4), (1, 512, 8192, 4), (1, 65, 1040, 4)),
        ((1, 8), (1, 2048), (64, 8192), (2, 3, 4, 4)),
        lambda batch, tokens, channels, kernel: (50 * batch * tokens * channels * kernel, 2 * batch * tokens * channels),
    ),
    "gdn_chunked": Space(
        ((1, 1, 4, 8, 64, 64), (1, 8, 1, 2, 32, 32), (1, 1024, 16, 32, 128, 128), (1, 512, 8, 16, 128, 128), (1, 65, 4, 8, 128, 128)),
        ((1, 2), (4, 2048), (1, 2, 4, 8, 16), (2, 4, 8, 16, 32), WIDTHS, WIDTHS),
        lambda batch, tokens, key_heads, value_heads, key_dim, value_dim: (
            5 * batch * tokens * value_heads * (6 * key_dim * value_dim + 128 * (3 * key_dim + 2 * value_dim)),
            10 * batch * tokens * value_heads * (key_dim + value_dim),
        ),
    ),
    "gdn_step": Space(
        ((1, 4, 8, 64, 64), (1, 1, 2, 16, 16), (16, 16, 32, 128, 128), (16, 8, 16, 128, 128), (1, 16, 32, 128, 128)),
        ((1, 32), (1, 2, 4, 8, 16), (4, 8, 16, 32), WIDTHS, WIDTHS),
        lambda batch, key_heads, value_heads, key_dim, value_dim: (
            7 * batch * value_heads * key_dim * value_dim,
            8 * batch * value_heads * key_dim * value_dim,
        ),
    ),
    "ssd_chunked": Space(
        ((1, 1, 8, 64, 64, 1), (1, 8, 2, 16, 16, 1), (1, 1024, 64, 64, 128, 1), (1, 512, 32, 64, 128, 1), (1, 65, 16, 64, 64, 2)),
        ((1, 2), (4, 2048), (4, 8, 16, 32, 64), (32, 64), (16, 64, 128), (1, 2, 4)),
        lambda batch, tokens, heads, head_dim, state, groups: (
            5 * batch * tokens * heads * (4 * head_dim * state + 128 * head_dim),
            10 * batch * tokens * heads * (head_dim + 64),
        ),
    ),
    "ssd_step": Space(
        ((1, 8, 64, 64, 1), (1, 2, 16, 16, 1), (16, 64, 64, 128, 1), (8, 64, 64, 128, 8), (1, 64, 64, 128, 1)),
        ((1, 32), (4, 8, 16, 32, 64), (32, 64), (16, 64, 128), (1, 2, 4)),
        lambda batch, heads, head_dim, state, groups: (
            5 * batch * heads * head_dim * state,
            8 * batch * heads * head_dim * state,
        ),
    ),
}
WITHIN = (("kv_heads", "heads"), ("key_heads", "value_heads"), ("groups", "heads"), ("topk", "experts"), ("tokens", "context"))
"""The first is never more than the second; a context grows to its tokens, the others shrink."""


def plan(quick: bool = False, seed: int = 0, dtype: str = "fp32") -> list[Point]:
    """The points of every kind: its anchors, and log-spaced shapes between (a Latin square of the seed)."""
    return [point for kind in KERNELS for point in _points(kind, quick, Random(f"{seed} {kind}"), dtype)]  # noqa: S311 # shapes


def _points(kind: str, quick: bool, random: Random, dtype: str) -> list[Point]:
    space, dims = SPACES[kind], KERNELS[kind].dims
    count = -(-space.count // 3) if quick else space.count
    columns = [_spread(sizes, count - len(space.anchors), random) for sizes in space.ranges]
    shapes = [dict(zip(dims, sizes, strict=True)) for sizes in (*space.anchors, *zip(*columns, strict=True))]
    points = (Point(kind, tuple(_possible(space, shape).items()), dtype) for shape in shapes)
    return list(dict.fromkeys(points))


def _spread(sizes: Sizes, count: int, random: Random) -> list[int]:
    """One value of each of `count` equal steps of the logarithm, or each choice as often as any other; shuffled."""
    steps = random.sample(range(count), max(count, 0))
    if len(sizes) != 2:
        return [sizes[step % len(sizes)] for step in steps]
    low, high = sizes
    return [_even(low * (high / low) ** ((step + random.random()) / count)) for step in steps]


def _even(value: float) -> int:
    """Small sizes as they are, larger ones in steps of 8 (widths of models; 8 is a vector of fp32)."""
    return max(round(value), 1) if value < 16 else 8 * round(value / 8)


def _possible(space: Space, shape: dict[str, int]) -> dict[str, int]:
    """What must divide or fit does, and the longest dim that may is halved until it is quick enough; anchors are."""
    for small, large in WITHIN:
        if small in shape and large in shape:
            grown = "context" if large == "context" else small
            shape[grown] = max(shape[small], shape[large]) if large == "context" else min(shape[small], shape[large])
    if tuple(shape.values()) in space.anchors or _quick_enough(space, shape):
        return shape
    free = [name for name, sizes in zip(shape, space.ranges, strict=True) if len(sizes) == 2]
    longest = max(free, key=lambda name: shape[name])
    return _possible(space, {**shape, longest: max(_even(shape[longest] / 2), 1)})


def _quick_enough(space: Space, shape: dict[str, int]) -> bool:
    flops, elements = space.size(**shape)
    return flops <= MOST_FLOPS and elements <= MOST_ELEMENTS


# --- timing


@dataclass
class _Run:
    """One measurement under way."""

    points: list[Point]
    device: str
    budget_s: float
    seed: int
    seconds: dict[Point, list[float]]
    progress: Callable[[int, int], None]
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
            self.canary()
        earlier = self.seconds.get(point, [])
        self.seconds[point] = [*earlier, _sample(point, self.device, min(earlier, default=None))]
        self.taken += 1
        self.progress(self.taken, self.expected())

    def canary(self) -> None:
        self.canary_s.append(_canary(self.device))

    def spent(self) -> float:
        return time.monotonic() - self.began

    def expected(self) -> int:
        """Samples in all, as the pace so far has it."""
        pace = self.taken / max(self.spent(), 1e-9)
        least, most = (rounds * len(self.points) for rounds in (LEAST_ROUNDS, MOST_ROUNDS))
        return max(min(most, max(least, int(pace * self.budget_s))), self.taken)


def measure(
    points: Iterable[Point], device: str = "cpu", *, budget_s: float = 300.0, seed: int = 0,
    done: dict[Point, list[float]] | None = None, progress: Callable[[int, int], None] | None = None,
) -> Measured:  # fmt: skip
    """Samples of every point in rounds of random order: 2 rounds whatever they take, up to 12 within the budget.

    `done` are samples of an earlier run, kept and counted. `progress(taken, expected)` follows each sample. An interrupt
    returns what is finished. On glibc, freed memory stays with the process from here on.
    """
    wanted = list(dict.fromkeys(points))
    _check(wanted, device)
    run = _Run(wanted, device, budget_s, seed, {p: list(s) for p, s in (done or {}).items()}, progress or (lambda *_: None))
    with _settled(device):
        try:
            _reserve(wanted, device)
            _canary(device)  # the first is never the fastest
            run.rounds()
            run.canary()
        except KeyboardInterrupt:
            if not any(run.seconds.values()):
                raise
    noisy = bool(run.canary_s) and max(run.canary_s) > CANARY_SPREAD * min(run.canary_s)
    return Measured(run.seconds, run.canary_s, noisy, machine(device))


def statistic(samples: list[float], device: str = "cpu") -> float:
    """The figure of a point's samples: on a CPU the 10th percentile, for others only ever slow it down; on CUDA the median."""
    return float(np.percentile(samples, 50 if _is_cuda(device) else 10))


def _check(points: list[Point], device: str) -> None:
    """One line for what cannot be measured."""
    if not (device == "cpu" or re.fullmatch(r"cuda(:\d+)?", device)):
        raise CostModelError(f"no device {shown(device)}; known: cpu, cuda, cuda:0")
    if _is_cuda(device) and int(device.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise CostModelError(f"device {device} is not here: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices")
    for point in points:
        _check_point(point)


def _check_point(point: Point) -> None:
    if point.kind not in KERNELS:
        raise CostModelError(f"no kernel {shown(point.kind)}; {did_you_mean(point.kind, KERNELS)}")
    dims, given = KERNELS[point.kind].dims, dict(point.shape)
    if tuple(given) != dims or any(type(size) is not int or size < 1 for size in given.values()):
        raise CostModelError(f"{point.kind} takes positive integers {', '.join(dims)}, not {excerpt(str(given))}")
    if point.dtype not in DTYPES:
        raise CostModelError(f"no dtype {shown(point.dtype)}; known: {', '.join(DTYPES)}")


def _reserve(points: list[Point], device: str) -> None:
    """The largest buffer once, before the first sample."""
    needs = ((KERNELS[p.kind].need(dict(p.shape), DTYPES[p.dtype]), DTYPES[p.dtype]) for p in points)
    for need, dtype in needs:
        need_all = need.warms + need.colds
        largest[dtype] = max(largest.get(dtype, 0), need_all) if (largest := {}) else need_all


def _sample(point: Point, device: str, known: float | None) -> float:
    """Seconds a call, over repeats that take about 2 ms together, each on inputs of its own."""
    kernel, shape, dtype = KERNELS[point.kind], dict(point.shape), DTYPES[point.dtype]
    if known is None:
        pilot = kernel.build(shape, dtype, device, 4)
        known = min(_elapsed(pilot, (i,), device) for i in range(3))
    repeats = min(max(math.ceil(SAMPLE_S / max(known, 1e-7)), 1), 4096)
    run = kernel.build(shape, dtype, device, min(repeats + 1, MOST_COPIES))
    if known < SLOW_S:
        run(0)
    return _elapsed(run, range(1, repeats + 1), device) / repeats
