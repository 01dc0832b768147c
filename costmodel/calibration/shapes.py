"""Which kernels are measured at which shapes, and what each is to the time model: a class, and the sizes of its shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from sympy import Expr, Integer

from costmodel.blocks.gated_deltanet import delta_rule
from costmodel.blocks.mamba2 import Mamba2
from costmodel.cost import Kept
from costmodel.evaluate import evaluate
from costmodel.kernels import CHUNK
from costmodel.ops import Op
from costmodel.symbols import B, C, S, T, d_m, d_N, n_g, n_m
from costmodel.workload import Pass, Phase, Precision

Sizes = tuple[int, ...]
SINGLE = Precision(weights="fp32", experts="fp32", embeddings="fp32", others="fp32", cache="fp32", activations="fp32")
MOST_FLOPS, MOST_ELEMENTS = 6e9, 4e7
"""Of one call: so that a sample is over in a tenth of a second."""
WIDTHS = (32, 64, 128)
QUICK_POINTS, QUICK_CHECKS = 9, 3
"""Of each kernel, where there are minutes to spare for neither."""


@dataclass(frozen=True)
class Point:
    """One kernel at one shape: a key of SPACES, and its dims in the kernel's order."""

    kind: str
    shape: tuple[tuple[str, int], ...]
    dtype: str = "fp32"

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(f'{name}={size}' for name, size in self.shape)}) in {self.dtype}"

    @property
    def kernel(self) -> str:
        """The class of kernels it is a point of."""
        return SPACES[self.kind].kernel or self.kind

    def sizes(self) -> dict[str, float]:
        """The sizes that its class knows a shape by."""
        return {name: float(size) for name, size in SPACES[self.kind].sizes(**dict(self.shape)).items()}


@dataclass(frozen=True)
class Space:
    """The shapes of a kernel: anchors (one row; tiny; huge; as large as a cache; just above a tile), and ranges between.

    A range of two is spread over its logarithm, any other is a choice. `size(**shape)` gives FLOPs and elements moved,
    `sizes(**shape)` what the class `kernel` (by default of the same name) calls the shape.
    """

    dims: tuple[str, ...]
    anchors: tuple[Sizes, ...]
    ranges: tuple[Sizes, ...]
    size: Callable[..., tuple[float, float]]
    sizes: Callable[..., dict[str, float]] = dict
    count: int = 24
    checks: int = 14
    kernel: str = ""


def _moved(times: float) -> Callable[..., dict[str, float]]:
    """Bytes of a plain op in fp32: so many elements for each of its own."""
    return lambda rows, width, **_: {"bytes": 4 * times * rows * width}


def _plain(operations: int, times: float, kernel: str = "", least: int = 48) -> Space:
    anchors = ((1, 2048), (2, 64), (4096, 4096), (1024, 2048), (65, 1040))
    return Space(
        ("rows", "width"), anchors, ((1, 8192), (least, 8192)),
        lambda rows, width: (operations * rows * width, 3 * rows * width), _moved(times), kernel=kernel,
    )  # fmt: skip


def _ledger(op: Op, batch: int, tokens: int, **letters: int) -> dict[str, float]:
    """FLOPs and bytes of a ledger row with these numbers."""
    names = {"n_m": n_m, "d_m": d_m, "d_N": d_N, "n_g": n_g}
    known: dict[Expr, int] = {B: batch, T: tokens, S: tokens, C: CHUNK, **{names[name]: size for name, size in letters.items()}}
    flops, moved = op.cost.flops, op.cost.bytes_moved(SINGLE)
    return {"flops": float(evaluate(flops, known)), "bytes": float(evaluate(moved, known)), "tokens": tokens}


def _delta_rule(algorithm: str) -> Callable[..., dict[str, float]]:
    def sizes(
        batch: int, key_heads: int, value_heads: int, key_dim: int, value_dim: int, tokens: int = 1
    ) -> dict[str, float]:  # fmt: skip
        keys, heads, key, value = (Integer(size) for size in (key_heads, value_heads, key_dim, value_dim))
        state = Kept("state", heads, key * value, per_token=False, role="state", own=Integer(4))
        return _ledger(delta_rule(algorithm, keys, heads, key, value, (state,))[0], batch, tokens)

    return sizes


def _selective_scan(phase: Phase) -> Callable[..., dict[str, float]]:
    def sizes(batch: int, heads: int, head_dim: int, state: int, groups: int, tokens: int = 1) -> dict[str, float]:
        block = Mamba2(
            mamba_num_heads=heads, mamba_head_dim=head_dim, ssm_state_size=state, n_groups=groups, conv_kernel=4, chunk_size=CHUNK
        )
        row = next(op for op in block.ops(Pass(phase)) if op.kind == "scan")
        return _ledger(row, batch, tokens, n_m=heads, d_m=head_dim, d_N=state, n_g=groups)

    return sizes


SPACES: dict[str, Space] = {
    "gemm": Space(
        ("m", "n", "k"),
        ((2, 4096, 1024), (2, 64, 64), (1024, 4096, 2048), (64, 2048, 2048), (65, 1040, 1024)),
        ((2, 2048), (32, 8192), (192, 8192)),
        lambda m, n, k: (2 * m * n * k, m * k + n * k + m * n),
        count=48, checks=30,
    ),
    "gemv": Space(
        ("n", "k"),
        ((1024, 1024), (64, 64), (16384, 4096), (2048, 4096), (1025, 1025)),
        ((32, 16384), (192, 16384)),
        lambda n, k: (2 * n * k, n * k),
        count=32, checks=18,
    ),
    "bmm": Space(
        ("b", "m", "n", "k"),
        ((8, 1, 256, 64), (1, 8, 16, 16), (16, 512, 1024, 128), (8, 256, 1024, 128), (8, 65, 65, 64)),
        ((1, 64), (1, 1024), (16, 1024), (16, 256)),
        lambda b, m, n, k: (2 * b * m * n * k, b * (m * k + n * k + m * n)),
        count=32, checks=18,
    ),
    "prefill_attention": Space(
        ("batch", "heads", "kv_heads", "head_dim", "tokens"),
        ((1, 16, 4, 64, 2), (1, 2, 1, 32, 8), (1, 16, 4, 128, 1536), (1, 8, 8, 64, 1024), (1, 8, 2, 64, 257)),
        ((1, 2, 4), (4, 8, 16, 32), (1, 2, 4, 8), WIDTHS, (8, 2048)),
        lambda batch, heads, kv_heads, head_dim, tokens: (
            4 * batch * heads * tokens * tokens * head_dim,
            batch * head_dim * tokens * (2 * heads + 2 * kv_heads),
        ),
        lambda **shape: {**shape, "prefix": 0},
        count=48, checks=30,
    ),
    "decode_attention": Space(
        ("batch", "heads", "kv_heads", "head_dim", "context"),
        ((1, 16, 4, 128, 1), (1, 2, 1, 32, 16), (4, 16, 8, 128, 8192), (1, 16, 8, 128, 4096), (1, 8, 2, 64, 513)),
        ((1, 16), (4, 8, 16, 32), (1, 2, 4, 8), WIDTHS, (8, 16384)),
        lambda batch, heads, kv_heads, head_dim, context: (
            4 * batch * heads * context * head_dim,
            2 * batch * kv_heads * context * head_dim,
        ),
        count=64, checks=36,
    ),
    "mla_decode": Space(
        ("batch", "heads", "latent", "rope", "context"),
        ((1, 16, 512, 64, 1), (1, 4, 32, 16, 16), (4, 16, 512, 64, 8192), (1, 16, 512, 64, 8192), (1, 16, 256, 32, 513)),
        ((1, 8), (8, 16, 32), (128, 256, 512), (32, 64, 64), (16, 16384)),
        lambda batch, heads, latent, rope, context: (
            2 * batch * heads * context * (2 * latent + rope),
            batch * context * (latent + rope),
        ),
        count=24, checks=14,
    ),
    "moe": Space(
        ("tokens", "hidden", "inter", "topk", "experts"),
        ((1, 1024, 512, 4, 16), (2, 64, 32, 2, 4), (512, 1024, 768, 4, 16), (16, 512, 512, 2, 8), (65, 512, 256, 4, 32)),
        ((1, 512), (128, 2048), (64, 1024), (1, 2, 4, 8), (4, 8, 16, 32)),
        lambda tokens, hidden, inter, topk, experts: (6 * tokens * topk * hidden * inter, 3 * experts * hidden * inter),
        lambda **shape: {**shape, "tp": 1, "ep": 1, "skew": 0},
        count=32, checks=18,
    ),
    "norm": _plain(4, 2, least=32),
    "softmax": _plain(5, 2),
    "gate": _plain(5, 3),
    "add": _plain(1, 3, "memory"),
    "rope": _plain(3, 2, least=32),
    "gather": Space(
        ("rows", "width", "table"),
        ((1, 2048, 32000), (1, 64, 256), (4096, 2048, 16000), (1024, 1024, 8192), (65, 1040, 4096)),
        ((1, 4096), (64, 2048), (256, 32768)),
        lambda rows, width, table: (0, table * width),
        _moved(2),
    ),
    "copy": _plain(1, 2, "memory"),
    "conv": Space(
        ("batch", "tokens", "channels", "kernel"),
        ((1, 1, 2048, 4), (1, 4, 64, 4), (1, 2048, 8192, 4), (1, 512, 8192, 4), (1, 65, 1040, 4)),
        ((1, 8), (1, 2048), (64, 8192), (2, 3, 4, 4)),
        lambda batch, tokens, channels, kernel: (50 * batch * tokens * channels * kernel, 2 * batch * tokens * channels),
        lambda batch, tokens, channels, kernel: {"bytes": 4 * (2 * batch * channels * (tokens + kernel - 1) + channels * kernel)},
    ),
    "gdn_chunked": Space(
        ("batch", "tokens", "key_heads", "value_heads", "key_dim", "value_dim"),
        (
            (1, 2, 4, 8, 64, 64), (1, 8, 1, 2, 32, 32), (1, 1024, 16, 32, 128, 128), (1, 512, 8, 16, 128, 128),
            (1, 65, 4, 8, 128, 128),
        ),
        ((1, 2), (4, 2048), (1, 2, 4, 8, 16), (2, 4, 8, 16, 32), WIDTHS, WIDTHS),
        lambda batch, tokens, key_heads, value_heads, key_dim, value_dim: (
            5 * batch * tokens * value_heads * (6 * key_dim * value_dim + 128 * (3 * key_dim + 2 * value_dim)),
            10 * batch * tokens * value_heads * (key_dim + value_dim),
        ),
        _delta_rule("chunked"),
        count=32, checks=18,
    ),
    "gdn_step": Space(
        ("batch", "key_heads", "value_heads", "key_dim", "value_dim"),
        ((1, 4, 8, 64, 64), (1, 1, 2, 16, 16), (16, 16, 32, 128, 128), (16, 8, 16, 128, 128), (1, 16, 32, 128, 128)),
        ((1, 32), (1, 2, 4, 8, 16), (4, 8, 16, 32), WIDTHS, WIDTHS),
        lambda batch, key_heads, value_heads, key_dim, value_dim: (
            7 * batch * value_heads * key_dim * value_dim,
            8 * batch * value_heads * key_dim * value_dim,
        ),
        _delta_rule("recurrent"),
    ),
    "ssd_chunked": Space(
        ("batch", "tokens", "heads", "head_dim", "state", "groups"),
        ((1, 2, 8, 64, 64, 1), (1, 8, 2, 16, 16, 1), (1, 1024, 64, 64, 128, 1), (1, 512, 32, 64, 128, 1), (1, 65, 16, 64, 64, 2)),
        ((1, 2), (4, 2048), (4, 8, 16, 32, 64), (32, 64), (16, 64, 128), (1, 2, 4)),
        lambda batch, tokens, heads, head_dim, state, groups: (
            5 * batch * tokens * heads * (4 * head_dim * state + 128 * head_dim),
            10 * batch * tokens * heads * (head_dim + 64),
        ),
        _selective_scan(Phase.PREFILL),
    ),
    "ssd_step": Space(
        ("batch", "heads", "head_dim", "state", "groups"),
        ((1, 8, 64, 64, 1), (1, 2, 16, 16, 1), (16, 64, 64, 128, 1), (8, 64, 64, 128, 8), (1, 64, 64, 128, 1)),
        ((1, 32), (4, 8, 16, 32, 64), (32, 64), (16, 64, 128), (1, 2, 4)),
        lambda batch, heads, head_dim, state, groups: (
            5 * batch * heads * head_dim * state,
            8 * batch * heads * head_dim * state,
        ),
        _selective_scan(Phase.DECODE),
    ),
}  # fmt: skip
WITHIN = (("kv_heads", "heads"), ("key_heads", "value_heads"), ("groups", "heads"), ("topk", "experts"))
"""The first is never more than the second."""


def plan(quick: bool = False, seed: int = 0, dtype: str = "fp32") -> list[Point]:
    """The points that are fitted: of each kernel its anchors, and log-spaced shapes between (a Latin square of the seed).

    >>> len(plan(quick=True)) < len(plan())
    True
    """
    return [point for kind, space in SPACES.items() for point in _points(kind, _count(space.count, quick), seed, dtype)]


def checks(quick: bool = False, seed: int = 0, dtype: str = "fp32") -> list[Point]:
    """Further points of the same ranges, that are scored and never fitted."""
    fitted = set(plan(quick, seed, dtype))
    found = []
    for kind, space in SPACES.items():
        wanted = QUICK_CHECKS if quick else space.checks
        drawn = _points(kind, wanted + len(space.anchors), seed, dtype, "checks")[len(space.anchors) :]
        found += [point for point in drawn if point not in fitted]
    return found


def _count(full: int, quick: bool) -> int:
    return max(QUICK_POINTS, full // 4) if quick else full


def _points(kind: str, count: int, seed: int, dtype: str, what: str = "points") -> list[Point]:
    space, random = SPACES[kind], Random(f"{seed} {kind} {what}")  # noqa: S311 # shapes
    columns = [_spread(sizes, count - len(space.anchors), random) for sizes in space.ranges]
    shapes = [dict(zip(space.dims, sizes, strict=True)) for sizes in (*space.anchors, *zip(*columns, strict=True))]
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
            shape[small] = min(shape[small], shape[large])
    flops, elements = space.size(**shape)
    if tuple(shape.values()) in space.anchors or (flops <= MOST_FLOPS and elements <= MOST_ELEMENTS):
        return shape
    free = [name for name, sizes in zip(shape, space.ranges, strict=True) if len(sizes) == 2]
    longest = max(free, key=lambda name: shape[name])
    return _possible(space, {**shape, longest: max(_even(shape[longest] / 2), 1)})
