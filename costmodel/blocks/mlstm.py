"""mLSTM: a matrix memory for each head, written with an input gate, faded by a forget gate, read through a normaliser."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from sympy import Integer

from costmodel.blocks.base import Flag, Mixer, Size
from costmodel.cost import ZERO, Kept
from costmodel.ops import N, Op, chunk_powers, linear, norm, scan, vector
from costmodel.symbols import B, C, T, d_k, d_model, d_v, n_r
from costmodel.workload import Pass


class MLSTM(Mixer):
    """State of n_r heads: a memory [d_k, d_v], a normaliser [d_k], and the largest gate so far.

    The normaliser is one more column of the memory, that of a value of 1: it is written and read with the others.
    `recurrent`: 4 d_k (d_v + 1) FLOPs a token and head (write k v^T, read q C). `chunked`: chunks of C tokens, each
    4 d_k (d_v + 1) a token plus 2 C (d_k + d_v + 1): queries on keys, and scores on values. Gates and decays are vector
    rows. Decode is recurrent unless asked otherwise, prefill chunked, the last chunk at its real length (the implementation
    in transformers takes the rest of a prompt step by step). State is kept in the model's own format, 2 bytes unless set.

    >>> block = MLSTM(num_heads=8, qk_head_dim=256, v_head_dim=512)
    >>> block.kept()[0].width.subs(block.binding())
    131329
    """

    source: ClassVar[str] = "Beck et al. 2024, arXiv 2405.04517; xLSTM 7B: arXiv 2503.13427; chunked form: arXiv 2503.14376"
    algorithms: ClassVar[tuple[str, ...]] = ("recurrent", "chunked")

    kind: Literal["mlstm"] = "mlstm"
    num_heads: Annotated[Size, n_r]
    qk_head_dim: Annotated[Size, d_k]
    v_head_dim: Annotated[Size, d_v]
    chunk_size: Annotated[Size, C] = 64
    use_bias: Flag = False
    """A bias in every projection and norm; the gates of input and forgetting have theirs in any case."""

    def ops(self, forward: Pass) -> list[Op]:
        keys, values = n_r * d_k, n_r * d_v
        return [
            linear("q_proj", d_model, keys, bias=self.use_bias),
            linear("k_proj", d_model, keys, bias=self.use_bias),
            linear("v_proj", d_model, values, bias=self.use_bias),
            linear("output_gate_proj", d_model, values, bias=self.use_bias),
            linear("gate_proj", d_model, 2 * n_r, bias=True),
            vector("gates", N * n_r, 15, moved=5 * N * n_r),  # soft caps, log-sigmoid, running maximum, exponentials
            *self._memory(self.algorithm(forward)),
            vector("normalize", N * values, 1, moved=ZERO),
            norm("multihead_norm", values, mean=True, bias=self.use_bias),
            vector("output_gate", N * values, 5, moved=3 * N * values, kernel="gate"),
            linear("out_proj", values, d_model, bias=self.use_bias),
        ]

    def _memory(self, algorithm: str) -> list[Op]:
        moved = 2 * N * n_r * (d_k + d_v)
        columns = d_v + 1
        on_state = 4 * N * n_r * d_k * columns
        if algorithm == "recurrent":
            decay = vector("decay_state", N * n_r * d_k * columns, 1, moved=ZERO, algorithm=algorithm)
            return [scan("memory", on_state, self.kept(), moved=moved, algorithm=algorithm), decay]
        pairs = B * n_r * chunk_powers(T, C, 2)
        within = 2 * pairs * (d_k + columns)
        # differences of sums of log gates, maximum, subtraction, exponential, product with the score
        decay = vector("decay_scores", pairs, 6, moved=ZERO, algorithm=algorithm)
        return [scan("memory", on_state + within, self.kept(), moved=moved, algorithm=algorithm), decay]

    def kept(self) -> tuple[Kept, ...]:
        """Memory, normaliser and maximum of each head, in the model's own format."""
        return (Kept("state", n_r, d_k * d_v + d_k + 1, per_token=False, role="state", own=Integer(2)),)
