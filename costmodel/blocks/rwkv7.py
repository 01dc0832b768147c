"""RWKV-7: a recurrence whose state forgets by channel and is corrected by a delta rule, and its channel mix."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from sympy import Expr, Integer

from costmodel.blocks.base import FeedForward, Mixer, Size
from costmodel.blocks.mlp import activate
from costmodel.cost import ONE, ZERO, Kept, Weight
from costmodel.ops import N, Op, chunk_powers, linear, norm, scan, vector
from costmodel.symbols import B, C, T, d_ff, d_h, d_model, n_r, r_a, r_g, r_v, r_w
from costmodel.workload import Pass

PAPER = "Peng et al. 2025, RWKV-7 Goose, arXiv 2503.14456"
SHIFTED = Kept("token_shift", ONE, d_model, per_token=False, split=False, role="activations")
"""The last token's input: each token is mixed with the one before it."""


class RWKV7(Mixer):
    """Time mix: a state [d_h, d_h] of each of n_r heads, S' = S (diag(w) + a^T b) + v^T k, read by r.

    Here a = -k^, b = k^ times a learning rate of each channel, and k^ is a normalised key; w, the learning rate, the share of
    the first layer's values and the output gate come from projections of low rank. `v_low_rank_dim` is None in the first
    layer, whose values the others share.

    `recurrent`: 8 d_h^2 FLOPs a token and head: S a^T retrieves, its product with b corrects, v^T k writes, r reads; the decay
    diag(w) is a vector row. `chunked`, as in flash-linear-attention: chunks of C tokens, each 8 d_h^2 a token (what the state
    holds for a, two writes, one read) plus 16 C d_h + 2 C^2: a and r on k and on b, the triangular factor on the scores of a on
    k, both on what they apply to, and the scores of r on values and corrections. The triangular inverse is a vector row. Decode
    is recurrent unless asked otherwise, prefill chunked, the last chunk at its real length.

    >>> ranks = {"decay_low_rank_dim": 96, "a_low_rank_dim": 96, "v_low_rank_dim": 64, "gate_low_rank_dim": 320}
    >>> [kept.name for kept in RWKV7(num_heads=40, head_dim=64, **ranks).kept()]
    ['state', 'token_shift']
    """

    source: ClassVar[str] = PAPER
    algorithms: ClassVar[tuple[str, ...]] = ("recurrent", "chunked")

    kind: Literal["rwkv7"] = "rwkv7"
    num_heads: Annotated[Size, n_r]
    head_dim: Annotated[Size, d_h]
    decay_low_rank_dim: Annotated[Size, r_w]
    a_low_rank_dim: Annotated[Size, r_a]
    gate_low_rank_dim: Annotated[Size, r_g]
    v_low_rank_dim: Annotated[Size | None, r_v] = None
    """Rank of the share of the first layer's values; None where there is none: in the first layer itself."""
    chunk_size: Annotated[Size, C] = 16

    def ops(self, forward: Pass) -> list[Op]:
        width = n_r * d_h
        each = Weight(ONE, width, "others")
        return [
            token_shift(6),  # for r, w, k, v, a and g
            *(linear(f"{name}_proj", d_model, width) for name in "rkv"),
            *low_rank("decay", r_w, width, 4),
            *low_rank("a", r_a, width, 0),
            *self._values(width),
            *low_rank("gate", r_g, width, 4, bias=False),
            # decay: sigmoid, factor, exponential; rate: sigmoid; k^: factor, norm of a head; b; k: three
            vector("keys_and_rates", N * width, 19, moved=7 * N * width, weights=(each, each)),  # k_k and k_a
            *self._state(self.algorithm(forward)),
            norm("group_norm", width, mean=True, bias=True),
            # r times k times r_k, summed over a head, times v; added; gated
            vector("bonus_and_gate", N * width, 6, moved=6 * N * width, weights=(each,)),
            linear("o_proj", width, d_model),
        ]

    def _values(self, width: Expr) -> list[Op]:
        if self.v_low_rank_dim is None:
            return []
        return [*low_rank("v", r_v, width, 0), vector("share_first_values", N * width, 7, moved=4 * N * width)]

    def _state(self, algorithm: str) -> list[Op]:
        width = n_r * d_h
        kept, moved = self.kept()[:1], 7 * N * width  # r, w, k, v, a and b in, one out
        on_state = 8 * N * width * d_h
        if algorithm == "recurrent":
            decay = vector("decay_state", N * width * d_h, 1, moved=ZERO, algorithm=algorithm)
            return [scan("delta_rule", on_state, kept, moved=moved, algorithm=algorithm), decay]
        pairs, triples = (B * n_r * chunk_powers(T, C, power) for power in (2, 3))
        within = 16 * pairs * d_h + 2 * triples
        # forward substitution of a unit lower triangle of c rows, each from the rows above: (c^3 - c) / 3 a chunk
        solve = vector("triangular_inverse", (triples - B * n_r * T) / 3, 1, moved=ZERO, algorithm=algorithm)
        decay = vector("decay_vectors", 4 * N * width, 2, moved=ZERO, algorithm=algorithm)
        return [scan("delta_rule", on_state + within, kept, moved=moved, algorithm=algorithm), decay, solve]

    def kept(self) -> tuple[Kept, ...]:
        """The state (fp32 unless set), and the last token's input."""
        return (Kept("state", n_r, d_h * d_h, per_token=False, role="state", own=Integer(4)), SHIFTED)


class RWKVChannelMix(FeedForward):
    """value(relu(key x)^2) with x mixed, channel by channel, with the token before: [d_model, d_ff] in, [d_ff, d_model] out.

    >>> [kept.name for kept in RWKVChannelMix(intermediate_size=4).kept()]
    ['token_shift']
    """

    source: ClassVar[str] = PAPER

    kind: Literal["rwkv_channel_mix"] = "rwkv_channel_mix"
    intermediate_size: Annotated[Size, d_ff]

    def ops(self, forward: Pass) -> list[Op]:
        return [
            token_shift(1),
            linear("key", d_model, d_ff),
            activate("activation", "relu2", N * d_ff, gated=False),
            linear("value", d_ff, d_model),
        ]

    def kept(self) -> tuple[Kept, ...]:
        """The last token's input."""
        return (SHIFTED,)


def token_shift(mixed: int) -> Op:
    """x + (x before - x) m for each of `mixed` vectors m of d_model: one difference, then a product and a sum each."""
    weights = (Weight(ONE, d_model, "others"),) * mixed
    return vector("token_shift", N * d_model, 1 + 2 * mixed, moved=(1 + mixed) * N * d_model, weights=weights, kept=(SHIFTED,))


def low_rank(name: str, rank: Expr, width: Expr, operations: int, *, bias: bool = True) -> list[Op]:
    """Down to a low rank, `operations` of an activation there, and up again."""
    between = [vector(f"{name}_activation", N * rank, operations)] if operations else []
    return [linear(f"{name}_down", d_model, rank), *between, linear(f"{name}_up", rank, width, bias=bias)]
