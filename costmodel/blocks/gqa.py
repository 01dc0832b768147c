"""Grouped-query attention: MHA when n_kv = n_h, MQA when n_kv = 1, sliding when windowed."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator
from sympy import Expr

from costmodel.blocks.base import MAX_SIZE, Flag, Mixer, Size
from costmodel.cost import ONE, Kept, Weight
from costmodel.ops import N, Op, attend, linear, norm, softmax, vector, visible_pairs
from costmodel.symbols import W, d_h, d_model, d_r, d_v, n_h, n_kv
from costmodel.workload import Pass


class GQA(Mixer):
    """Multi-head attention whose n_h query heads share n_kv key/value heads.

    Keys are [n_kv, d_h], values [n_kv, d_v]; a window of W sees W tokens, the query's own included.
    Raises CostModelError where n_kv does not divide n_h or rope turns more than a head.

    >>> [kept.name for kept in GQA(num_attention_heads=32, num_key_value_heads=8, head_dim=128).kept()]
    ['keys', 'values']
    """

    source: ClassVar[str] = "Ainslie et al. 2023, arXiv 2305.13245; sliding window: Beltagy et al. 2020, arXiv 2004.05150"

    kind: Literal["gqa"] = "gqa"
    num_attention_heads: Annotated[Size, n_h]
    num_key_value_heads: Annotated[Size, n_kv]
    head_dim: Annotated[Size, d_h]
    v_head_dim: Annotated[Size | None, d_v] = None
    """Width of a value head where it differs from `head_dim`."""
    sliding_window: Annotated[Size | None, W] = None
    rotary_dim: Annotated[int | None, Field(strict=True, ge=0, le=MAX_SIZE), d_r] = None
    """Elements of a head that rope turns: all of them by default, 0 without rope."""
    qk_norm: Literal["head", "full"] | None = None
    """Norms of queries and keys: one weight of `head_dim` for all heads, or one over all heads together."""
    qkv_bias: Flag = False
    o_bias: Flag = False
    output_gate: Flag = False
    """A gate as wide as the attention output, made by a query projection twice as wide."""
    sinks: Flag = False
    """One learned logit a head that joins the softmax."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_key_value_heads {self.num_key_value_heads} does not divide num_attention_heads {self.num_attention_heads}"
            )
        if (self.rotary_dim or 0) > self.head_dim:
            raise ValueError(f"rotary_dim {self.rotary_dim} exceeds head_dim {self.head_dim}")
        return self

    def ops(self, forward: Pass) -> list[Op]:
        value = self._value_dim()
        queries = n_h * (d_h + value) if self.output_gate else n_h * d_h
        pairs = visible_pairs(forward.attention, forward.phase, W if self.sliding_window else None)
        sinks = (Weight(ONE, n_h, "others"),) if self.sinks else ()
        return [
            linear("q_proj", d_model, queries, bias=self.qkv_bias),
            linear("k_proj", d_model, n_kv * d_h, bias=self.qkv_bias),
            linear("v_proj", d_model, n_kv * value, bias=self.qkv_bias),
            *self._qk_norms(),
            *self._rope(),
            attend("attention", n_h, d_h, value, pairs, self.kept()),
            softmax(n_h, pairs),
            *([vector("sinks", N * n_h, 2, moved=n_h, weights=sinks)] if self.sinks else []),
            *([vector("output_gate", N * n_h * value, 4, moved=3 * N * n_h * value)] if self.output_gate else []),
            linear("o_proj", n_h * value, d_model, bias=self.o_bias),
        ]

    def kept(self) -> tuple[Kept, ...]:
        """Keys and values of the tokens still in sight."""
        reach = W if self.sliding_window else None
        return (Kept("keys", n_kv, d_h, reach=reach), Kept("values", n_kv, self._value_dim(), reach=reach))

    @property
    def usual_heads(self) -> tuple[Expr, Expr]:
        return n_kv, d_h

    def _value_dim(self) -> Expr:
        return d_v if self.v_head_dim else d_h

    def _qk_norms(self) -> list[Op]:
        if self.qk_norm is None:
            return []
        if self.qk_norm == "head":
            return [norm("q_norm", d_h, n_h), norm("k_norm", d_h, n_kv)]
        return [norm("q_norm", n_h * d_h), norm("k_norm", n_kv * d_h)]

    def _rope(self) -> list[Op]:
        turned = d_h if self.rotary_dim is None else d_r
        return [] if self.rotary_dim == 0 else [vector("rope", N * (n_h + n_kv) * turned, 3)]
