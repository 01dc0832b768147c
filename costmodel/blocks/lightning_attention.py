"""Lightning attention: linear attention whose state decays at a fixed rate for each head."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from sympy import Integer

from costmodel.blocks.base import Mixer, Size
from costmodel.blocks.mlp import Activation, activate
from costmodel.cost import ZERO, Kept
from costmodel.ops import N, Op, chunk_count, chunk_powers, linear, norm, scan, vector
from costmodel.symbols import B, C, T, d_h, d_model, n_h
from costmodel.workload import Pass


class LightningAttention(Mixer):
    """State of n_h heads [d_h, d_h], in the model's own format: what was multiplied of keys and values, decayed.

    `recurrent`: 4 d_h^2 FLOPs a token and head (write, read). `chunked`: blocks of C tokens, each 4 d_h^2 a token plus
    4 C d_h: scores within the block and their sums of values, whole squares as the implementation computes them, the
    last block at its real length. Decode is recurrent unless asked otherwise, prefill chunked.

    >>> LightningAttention(num_attention_heads=64, head_dim=128).keeps
    'hold a state that does not grow'
    """

    source: ClassVar[str] = "MiniMax-01, arXiv 2501.08313, section 2.2; Qin et al. 2024, arXiv 2401.04658"
    algorithms: ClassVar[tuple[str, ...]] = ("recurrent", "chunked")

    kind: Literal["lightning_attention"] = "lightning_attention"
    num_attention_heads: Annotated[Size, n_h]
    head_dim: Annotated[Size, d_h]
    block_size: Annotated[Size, C] = 256
    activation: Activation = "silu"

    def ops(self, forward: Pass) -> list[Op]:
        width, algorithm = n_h * d_h, self.algorithm(forward)
        within = 4 * d_h * B * n_h * chunk_powers(T, C, 2) if algorithm == "chunked" else ZERO
        return [
            linear("qkv_proj", d_model, 3 * width),
            activate("qkv_activation", self.activation, 3 * N * width, gated=False),
            scan("attention", 4 * N * width * d_h + within, self.kept(), moved=4 * N * width, algorithm=algorithm),
            self._decay(algorithm),
            norm("norm", width),
            linear("output_gate", d_model, width),
            vector("apply_gate", N * width, 5, moved=3 * N * width),
            linear("out_proj", width, d_model),
        ]

    def _decay(self, algorithm: str) -> Op:
        """One step decays the whole state; a block masks its scores, scales queries and keys, and decays the state once."""
        if algorithm == "recurrent":
            return vector("decay", N * n_h * d_h * d_h, 1, moved=ZERO, algorithm=algorithm)
        within = B * n_h * (chunk_powers(T, C, 2) + 2 * T * d_h + chunk_count(T, C) * d_h * d_h)
        return vector("decay", within, 1, moved=ZERO, algorithm=algorithm)

    def kept(self) -> tuple[Kept, ...]:
        """The state, in 16 bits as the implementation keeps it, unless set."""
        return (Kept("state", n_h, d_h * d_h, per_token=False, role="state", own=Integer(2)),)
