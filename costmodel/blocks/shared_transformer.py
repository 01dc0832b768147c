"""A transformer block that several layers share: attention and a feed-forward layer, with adapters of each layer's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self

from pydantic import model_validator
from sympy import Expr

from costmodel.blocks.base import Flag, Mixer, Size
from costmodel.blocks.mlp import Activation, activate
from costmodel.cost import ZERO, Kept
from costmodel.ops import N, Op, attend, linear, norm, softmax, vector, visible_pairs
from costmodel.symbols import d_ff, d_h, d_model, n_h, n_kv, r_l
from costmodel.workload import Pass


class SharedTransformer(Mixer):
    """Attention over the residual stream beside the token embedding, 2 d_model wide, then a gated feed-forward layer.

    Its matrices are stored as often as the layer group says (`shared`); each layer that uses them has its own adapters, of
    rank r_l, beside the first feed-forward matrices and, with `attention_adapter`, beside queries, keys and values, and its
    own matrix [d_model, d_model] back into the stream. Each layer keeps its own keys and values. It brings its norms along,
    so that its group has none. Published configs count it with the Mamba layer behind it as one hybrid layer.
    Raises CostModelError where n_kv does not divide n_h.

    >>> shape = {"num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 160, "intermediate_size": 10_240}
    >>> [op.name for op in SharedTransformer(adapter_rank=128, **shape).ops(Pass()) if op.own]
    ['gate_up_adapter_a', 'gate_up_adapter_b', 'linear']
    """

    source: ClassVar[str] = "Zamba2, arXiv 2411.15242, section 2; Zamba, arXiv 2405.16712"

    kind: Literal["shared_transformer"] = "shared_transformer"
    num_attention_heads: Annotated[Size, n_h]
    num_key_value_heads: Annotated[Size, n_kv]
    head_dim: Annotated[Size, d_h]
    intermediate_size: Annotated[Size, d_ff]
    adapter_rank: Annotated[Size, r_l]
    attention_adapter: Flag = False
    """Whether queries, keys and values have adapters too."""
    rope: Flag = False
    mlp_bias: Flag = False
    activation: Activation = "gelu"

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_key_value_heads {self.num_key_value_heads} does not divide num_attention_heads {self.num_attention_heads}"
            )
        return self

    def ops(self, forward: Pass) -> list[Op]:
        return [
            norm("input_norm", 2 * d_model),
            *self._attention(forward),
            norm("feed_forward_norm", d_model),
            linear("gate_up_proj", d_model, 2 * d_ff, bias=self.mlp_bias),
            *_adapter("gate_up", d_model, 2 * d_ff),
            activate("activation", self.activation, N * d_ff, gated=True),
            linear("down_proj", d_ff, d_model, bias=self.mlp_bias),
            replace(linear("linear", d_model, d_model), own=True),
        ]

    def kept(self) -> tuple[Kept, ...]:
        """Keys and values of all tokens, for each layer that uses the block."""
        return (Kept("keys", n_kv, d_h), Kept("values", n_kv, d_h))

    @property
    def usual_heads(self) -> tuple[Expr, Expr]:
        return n_kv, d_h

    def _attention(self, forward: Pass) -> list[Op]:
        pairs = visible_pairs(forward.attention, forward.phase)
        widths = {"q": n_h * d_h, "k": n_kv * d_h, "v": n_kv * d_h}
        return [
            *(linear(f"{name}_proj", 2 * d_model, width, heads=None if name == "q" else n_kv) for name, width in widths.items()),
            *(op for name, width in widths.items() if self.attention_adapter for op in _adapter(name, 2 * d_model, width)),
            *([vector("rope", N * (n_h + n_kv) * d_h, 3, kernel="rope")] if self.rope else []),
            attend("attention", n_h, d_h, d_h, pairs, self.kept()),
            softmax(n_h, pairs),
            linear("o_proj", n_h * d_h, d_model),
        ]


def _adapter(name: str, d_in: Expr, d_out: Expr) -> tuple[Op, ...]:
    """y + x @ a [d_in, r_l] @ b [r_l, d_out], each layer's own."""
    rows = (
        linear(f"{name}_adapter_a", d_in, r_l),
        linear(f"{name}_adapter_b", r_l, d_out),
        vector(f"{name}_adapter_add", N * d_out, 1, moved=3 * N * d_out, saved=ZERO),
    )
    return tuple(replace(op, own=op.kind == "linear") for op in rows)
