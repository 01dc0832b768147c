"""Kimi Delta Attention: the gated delta rule with a decay of its own for each channel of a key."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from sympy import Integer

from costmodel.blocks.base import Mixer, Size
from costmodel.blocks.gated_deltanet import delta_rule
from costmodel.cost import ONE, Kept, Weight
from costmodel.ops import N, Op, conv, linear, norm, vector
from costmodel.symbols import C, K, d_k, d_model, n_r
from costmodel.workload import Pass


class KDA(Mixer):
    """State of n_r heads [d_k, d_k]; queries, keys and values of d_k each, convolved over K tokens.

    `recurrent`: 6 d_k^2 FLOPs a token and head; `chunked`: chunks of C tokens, each 6 d_k^2 a token plus 2 C (5 d_k), the
    triangular solve a vector row, as in `GatedDeltaNet`: a decay for each channel scales queries and keys and adds no
    product. Decay and output gate are made in two steps, through d_k numbers. Decode is recurrent unless asked otherwise.

    >>> [kept.name for kept in KDA(linear_num_heads=32, linear_head_dim=128, linear_conv_kernel_dim=4).kept()]
    ['state', 'conv_tail']
    """

    source: ClassVar[str] = "Kimi Linear, arXiv 2510.26692, section 3"
    algorithms: ClassVar[tuple[str, ...]] = ("recurrent", "chunked")

    kind: Literal["kda"] = "kda"
    linear_num_heads: Annotated[Size, n_r]
    linear_head_dim: Annotated[Size, d_k]
    linear_conv_kernel_dim: Annotated[Size, K]
    chunk_size: Annotated[Size, C] = 64

    def ops(self, forward: Pass) -> list[Op]:
        width = n_r * d_k
        rates = (Weight(ONE, n_r, "others"), Weight(ONE, width, "others"))  # A_log and dt_bias
        return [
            *(linear(name, d_model, width) for name in ("q_proj", "k_proj", "v_proj")),
            conv("conv1d", 3 * width, K, self._tail()),
            vector("conv_silu", 3 * N * width, 4, kernel="gate"),
            linear("decay_a_proj", d_model, d_k),
            linear("decay_b_proj", d_k, width),
            vector("decay", N * width, 5, weights=rates),
            linear("beta_proj", d_model, n_r),
            vector("beta", N * n_r, 4),
            vector("qk_l2norm", 2 * N * width, 4, kernel="norm"),
            *delta_rule(self.algorithm(forward), n_r, n_r, d_k, d_k, self._state()),
            linear("gate_a_proj", d_model, d_k),
            linear("gate_b_proj", d_k, width),
            norm("norm", d_k, n_r),
            vector("output_gate", N * width, 5, moved=3 * N * width, kernel="gate"),
            linear("o_proj", width, d_model),
        ]

    def kept(self) -> tuple[Kept, ...]:
        """The state (fp32 unless set), and kernel - 1 columns of convolution input in the activations' format."""
        return self._state() + self._tail()

    def _state(self) -> tuple[Kept, ...]:
        return (Kept("state", n_r, d_k * d_k, per_token=False, role="state", own=Integer(4)),)

    def _tail(self) -> tuple[Kept, ...]:
        return (Kept("conv_tail", n_r, 3 * d_k * (K - 1), per_token=False, role="activations"),)
