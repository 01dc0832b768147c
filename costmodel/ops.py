"""The primitives that blocks are made of. Each is a named row of the ledger with its whole cost.

Shapes: `tokens` is how many vectors pass through, B T unless said otherwise; a head is written [heads, width].
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sympy import Expr, floor

from costmodel.cost import ONE, TWO, ZERO, Cost, Kept, Weight, lower
from costmodel.evaluate import distinct_experts
from costmodel.symbols import B, S, T, d_model
from costmodel.workload import Phase

N = B * T
"""Tokens that pass through a layer."""


@dataclass(frozen=True)
class Op:
    """One row of the ledger: `kind` is the class of kernel it is, `algorithm` which form of several it takes.

    `own` weights are each layer's, also where the layers of a group share theirs. `kernel` and `shape` say what a device runs
    (`kernels.py`): empty where the kind says it all. `split` is how tensor-parallel ranks share it: by output `columns`, by
    input `rows` or by entries of the `vocabulary` (their sums are then added up), by `experts`, or `none`: each does it whole.
    `heads` are what its columns are made of, where ranks beyond their number hold copies.
    """

    name: str
    kind: str
    cost: Cost
    algorithm: str = ""
    own: bool = False
    kernel: str = ""
    shape: tuple[tuple[str, Expr], ...] = ()
    split: str = "columns"
    heads: Expr | None = None
    saved: Expr = ZERO
    """Activation elements that training keeps for the backward pass: what goes in, where the gradient needs it."""


def linear(
    name: str, d_in: Expr, d_out: Expr, tokens: Expr = N, *, bias: bool = False, role: str = "weights",
    stored: bool = True, reads: Expr | None = None, algorithm: str = "", heads: Expr | None = None, whole: bool = False,
) -> Op:  # fmt: skip
    """y[tokens, d_out] = x[tokens, d_in] @ w[d_in, d_out] (+ bias[d_out])

    `stored=False` reuses a matrix stored elsewhere; `reads` replaces the tokens * d_in elements read. Tensor-parallel ranks
    share its `heads`, or have it `whole` each.

    >>> from costmodel.symbols import d_model, d_ff
    >>> linear("up_proj", d_model, d_ff).cost.flops
    2*B*T*d_ff*d_model
    """
    copies = ONE if stored else ZERO
    weights = (Weight(d_in, d_out, role, copies),) + ((Weight(ONE, d_out, "others"),) if bias else ())
    moved = (tokens * d_in if reads is None else reads) + tokens * d_out
    cost = Cost(flops=TWO * tokens * d_in * d_out, activations=moved, weights=weights)
    split = "none" if whole or role == "others" else "rows" if d_out == d_model else "columns"
    shape = (("m", tokens), ("n", d_out), ("k", d_in))
    saved = tokens * d_in
    return Op(name, "linear", cost, algorithm, kernel="gemm", shape=shape, split=split, heads=heads, saved=saved)


def expert_linear(name: str, d_in: Expr, d_out: Expr, experts: Expr, used: Expr, *, bias: bool = False) -> Op:
    """Each token through `used` of `experts` matrices w[experts, d_in, d_out] (+ bias[experts, d_out]).

    Stored: all experts. FLOPs: those used. Weight traffic: the expected distinct ones that N tokens touch.

    >>> from costmodel.symbols import E, d_e, d_model, k
    >>> expert_linear("up_proj", d_model, d_e, E, k).cost.active
    d_e*d_model*k
    """
    touched = distinct_experts(experts, used, N)
    rows = N * used
    weights: tuple[Weight, ...] = (Weight(d_in, d_out, "experts", experts, used, touched),)
    if bias:
        weights += (Weight(ONE, d_out, "others", experts, used, touched),)
    cost = Cost(flops=TWO * rows * d_in * d_out, activations=rows * (d_in + d_out), weights=weights)
    shape = (("tokens", N), ("hidden", d_in), ("inter", d_out), ("topk", used), ("experts", experts))
    return Op(name, "expert_linear", cost, kernel="moe", shape=shape, split="experts", saved=rows * d_in)


def attend(
    name: str, heads: Expr, d_qk: Expr, d_v: Expr, pairs: Expr, kept: tuple[Kept, ...], *,
    reads: Expr = ZERO, algorithm: str = "",
) -> Op:  # fmt: skip
    """Scores q k^T and values p v over the visible (query, key) `pairs` of each sequence and head.

    2 heads pairs (d_qk + d_v) FLOPs a sequence. `kept` is what the queries read and extend; `reads` counts
    elements read beside it. The softmax is a vector row of its own.

    >>> from costmodel.symbols import d_h, n_h
    >>> attend("attention", n_h, d_h, d_h, S, ()).cost.flops
    4*B*S*d_h*n_h
    """
    moved = N * heads * (d_qk + d_v) + reads
    cost = Cost(flops=TWO * B * heads * pairs * (d_qk + d_v), activations=moved, kept=kept)
    kv_heads = kept[0].heads if kept and reads == ZERO else heads
    shape = (("heads", heads), ("kv_heads", kv_heads), ("d_qk", d_qk), ("d_v", d_v), ("pairs", pairs))
    saved = N * (heads * d_qk + kv_heads * (d_qk + d_v))
    return Op(name, "attend", cost, algorithm, kernel="attention", shape=shape, saved=saved)


def scan(name: str, flops: Expr, kept: tuple[Kept, ...], *, moved: Expr, algorithm: str = "", kernel: str = "") -> Op:
    """A recurrence over tokens on kept state: `flops` on the state, `moved` activation elements in and out."""
    return Op(name, "scan", Cost(flops=flops, activations=moved, kept=kept), algorithm, kernel=kernel, saved=moved)


def conv(name: str, channels: Expr, kernel: Expr, kept: tuple[Kept, ...], *, bias: bool = False) -> Op:
    """A causal depthwise convolution: y[t, c] = sum_j w[j, c] x[t - j, c], j < kernel.

    >>> from costmodel.symbols import K, d_model
    >>> conv("conv", d_model, K, ()).cost.flops
    2*B*K*T*d_model
    """
    weights = (Weight(kernel, channels, "others"),) + ((Weight(ONE, channels, "others"),) if bias else ())
    cost = Cost(flops=TWO * N * kernel * channels, activations=TWO * N * channels, weights=weights, kept=kept)
    return Op(name, "conv", cost, saved=N * channels)


def gather(name: str, rows: Expr, width: Expr, *, role: str = "embeddings", active: Expr = ZERO, stored: bool = True) -> Op:
    """N rows looked up in a table [rows, width]: no multiply-add, and only the rows looked up are read.

    Scales and blocks lie along a row, as in the head that may share the table.
    """
    weights = (Weight(width, rows, role, ONE if stored else ZERO, active, touched=ZERO),)
    split = "vocabulary" if role == "embeddings" else "none"
    return Op(name, "gather", Cost(activations=TWO * N * width, weights=weights), split=split)


def vector(
    name: str, elements: Expr, operations: int, *, moved: Expr | None = None, weights: tuple[Weight, ...] = (),
    kept: tuple[Kept, ...] = (), algorithm: str = "", kernel: str = "", saved: Expr | None = None,
) -> Op:  # fmt: skip
    """An element-wise or row-wise op: `operations` on each element, out of the FLOP headline.

    `moved` elements are read and written (default: each element in and out). An exponential counts as one
    operation; the count is a convention, the bytes are what such an op costs. `kept` is what it looks back on.
    `saved` for the backward pass are its inputs unless told: all that moves but the elements that come out; of a rotation none.
    """
    activations = TWO * elements if moved is None else moved
    cost = Cost(vector_flops=operations * elements, activations=activations, weights=weights, kept=kept)
    if saved is None:
        saved = activations - elements if activations.has(T) and kernel != "rope" else ZERO
    return Op(name, "vector", cost, algorithm, kernel=kernel, saved=saved)


def norm(
    name: str, width: Expr, heads: Expr = ONE, *, mean: bool = False, weight: bool = True, bias: bool = False, tokens: Expr = N
) -> Op:
    """Root-mean-square norm (4 operations an element) or layer norm (7) of `width`, with a weight and a bias where asked."""
    weights = (Weight(ONE, width, "others"),) * (weight + bias)
    op = vector(name, tokens * heads * width, 7 if mean else 4, weights=weights)
    return replace(op, kernel="norm", split="none" if heads == ONE else "columns")


def softmax(heads: Expr, pairs: Expr, algorithm: str = "") -> Op:
    """Softmax over the visible scores (maximum, subtract, exponential, sum, divide), fused: no bytes of its own."""
    return vector("softmax", B * heads * pairs, 5, moved=ZERO, algorithm=algorithm)


def visible_pairs(attention: str, phase: Phase, window: Expr | None = None, chunk: Expr | None = None) -> Expr:
    """(query, key) pairs of one sequence and head: T queries at positions S - T + 1 ... S; a query sees itself.

    `full` is T S. Causal is T S - T (T - 1) / 2; in a window of W (or among the W that an indexer picks) the sum of
    min(i, W) over those positions; in chunks of C, where a query sees its own chunk alone, of ((i - 1) mod C) + 1.

    >>> visible_pairs("causal", Phase.PREFILL)
    S*T - T*(T - 1)/2
    >>> from costmodel.symbols import W
    >>> visible_pairs("causal", Phase.DECODE, W)
    Min(S, W)
    """
    if attention == "full":
        return T * S
    if chunk is not None:
        # for one query, its place in its chunk
        return S - chunk * whole_chunks(S - 1, chunk) if phase is Phase.DECODE else _in_chunks(S, chunk) - _in_chunks(S - T, chunk)
    if window is None:
        return T * S - T * (T - 1) / 2
    # the same sum; for one query it is its last term
    return lower(S, window) if phase is Phase.DECODE else up_to(S, window) - up_to(S - T, window)


def up_to(last: Expr, window: Expr) -> Expr:
    """Sum of min(i, window) for i = 1 ... last: a triangle, then a strip of width `window`."""
    corner = lower(last, window)
    return corner * (corner + 1) / 2 + (last - corner) * window


def chunk_powers(tokens: Expr, chunk: Expr, power: int) -> Expr:
    """Sum of length^power over the chunks that `tokens` fall into, the last at its real length.

    >>> from sympy import Integer
    >>> chunk_powers(Integer(130), Integer(64), 2)
    8196
    """
    whole = whole_chunks(tokens, chunk)
    return whole * chunk**power + (tokens - whole * chunk) ** power


def whole_chunks(tokens: Expr, chunk: Expr) -> Expr:
    """floor(tokens / chunk), left unevaluated while letters remain."""
    ratio = tokens / chunk
    return floor(ratio) if ratio.is_Number else floor(ratio, evaluate=False)


def chunk_count(tokens: Expr, chunk: Expr) -> Expr:
    """Chunks that `tokens` fall into, the last perhaps in part.

    >>> from sympy import Integer
    >>> chunk_count(Integer(130), Integer(64))
    3
    """
    whole = whole_chunks(tokens, chunk)
    return whole + lower(tokens - whole * chunk, ONE)  # a ceiling of quotients of floats errs where a chunk ends


def _in_chunks(last: Expr, chunk: Expr) -> Expr:
    """Sum of ((i - 1) mod chunk) + 1 for i = 1 ... last: a triangle for each chunk."""
    whole = whole_chunks(last, chunk)
    rest = last - whole * chunk
    return whole * chunk * (chunk + 1) / 2 + rest * (rest + 1) / 2
