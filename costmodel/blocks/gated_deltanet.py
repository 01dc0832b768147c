"""Gated DeltaNet: linear attention whose state forgets by a gate and is corrected by the delta rule."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import model_validator
from sympy import Expr, Integer

from costmodel.blocks.base import Mixer, Size
from costmodel.cost import ONE, ZERO, Kept, Weight
from costmodel.ops import N, Op, chunk_powers, conv, linear, norm, scan, vector
from costmodel.symbols import B, C, K, T, d_k, d_model, d_v, n_k, n_v
from costmodel.workload import Pass


class GatedDeltaNet(Mixer):
    """State of n_v heads [d_k, d_v]; n_k key heads are shared by n_v / n_k value heads each.

    `recurrent`: 6 d_k d_v FLOPs a token and value head (retrieve, write, read). `chunked`: chunks of C tokens, each
    6 d_k d_v a token plus 2 C (3 d_k + 2 d_v): keys on keys, queries on keys, and the triangular factor on keys; the
    factor and the scores on values. The triangular solve is a vector row. Decode is recurrent unless asked
    otherwise, prefill chunked, the last chunk at its real length (the published kernel pads it).
    Raises CostModelError where n_k does not divide n_v.

    >>> heads = {"linear_num_key_heads": 16, "linear_num_value_heads": 32}
    >>> sizes = {"linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4}
    >>> [kept.name for kept in GatedDeltaNet(**heads, **sizes).kept()]
    ['state', 'conv_tail_qk', 'conv_tail_v']
    """

    source: ClassVar[str] = "Yang et al. 2024, arXiv 2412.06464; chunked form: Yang et al. 2024, arXiv 2406.06484"
    algorithms: ClassVar[tuple[str, ...]] = ("recurrent", "chunked")

    kind: Literal["gated_deltanet"] = "gated_deltanet"
    linear_num_key_heads: Annotated[Size, n_k]
    linear_num_value_heads: Annotated[Size, n_v]
    linear_key_head_dim: Annotated[Size, d_k]
    linear_value_head_dim: Annotated[Size, d_v]
    linear_conv_kernel_dim: Annotated[Size, K]
    chunk_size: Annotated[Size, C] = 64

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.linear_num_value_heads % self.linear_num_key_heads:
            raise ValueError(
                f"linear_num_key_heads {self.linear_num_key_heads} does not divide "
                f"linear_num_value_heads {self.linear_num_value_heads}"
            )
        return self

    def ops(self, forward: Pass) -> list[Op]:
        keys, values = n_k * d_k, n_v * d_v
        per_head = (Weight(ONE, n_v, "others"),)
        return [
            linear("in_proj_qkvz", d_model, 2 * keys + 2 * values),
            linear("in_proj_ba", d_model, 2 * n_v),
            conv("conv1d", 2 * keys + values, K, self._tails()),
            vector("conv_silu", N * (2 * keys + values), 4, kernel="gate"),
            vector("decay_and_beta", N * n_v, 9, moved=4 * N * n_v, weights=per_head + per_head),  # A_log and dt_bias
            vector("qk_l2norm", 2 * N * keys, 4, kernel="norm"),
            *delta_rule(self.algorithm(forward), n_k, n_v, d_k, d_v, self._states()),
            norm("norm", d_v, n_v),
            vector("output_gate", N * values, 5, moved=3 * N * values, kernel="gate"),
            linear("out_proj", values, d_model),
        ]

    def kept(self) -> tuple[Kept, ...]:
        """The state (fp32 unless set), and kernel - 1 columns of convolution input in the activations' format."""
        return self._states() + self._tails()

    def _states(self) -> tuple[Kept, ...]:
        return (Kept("state", n_v, d_k * d_v, per_token=False, role="state", own=Integer(4)),)

    def _tails(self) -> tuple[Kept, ...]:
        columns = K - 1
        return (
            Kept("conv_tail_qk", n_k, 2 * d_k * columns, per_token=False, role="activations"),
            Kept("conv_tail_v", n_v, d_v * columns, per_token=False, role="activations"),
        )


def delta_rule(algorithm: str, keys: Expr, heads: Expr, key: Expr, value: Expr, states: tuple[Kept, ...]) -> list[Op]:
    """The rule over `heads` states [key, value], with queries and keys of `keys` heads: `recurrent`, or in chunks of C."""
    moved = 2 * N * keys * key + 2 * N * heads * value
    on_state = 6 * N * heads * key * value
    if algorithm == "recurrent":
        decay = vector("decay_state", N * heads * key * value, 1, moved=ZERO, algorithm=algorithm)
        return [scan("delta_rule", on_state, states, moved=moved, algorithm=algorithm, kernel="gdn_step"), decay]
    within = B * heads * chunk_powers(T, C, 2) * 2 * (3 * key + 2 * value)
    # forward substitution of a unit lower triangle of c rows, each from the rows above: (c^3 - c) / 3 a chunk
    solve = vector("triangular_solve", B * heads * (chunk_powers(T, C, 3) - T) / 3, 1, moved=ZERO, algorithm=algorithm)
    return [scan("delta_rule", on_state + within, states, moved=moved, algorithm=algorithm, kernel="gdn_chunked"), solve]
