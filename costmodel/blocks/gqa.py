"""Grouped-query attention: MHA when n_kv = n_h, MQA when n_kv = 1; in windows, in chunks, in both directions."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator
from sympy import Expr

from costmodel.blocks.base import MAX_SIZE, Flag, Mixer, Size
from costmodel.cost import ONE, ZERO, Kept, Weight
from costmodel.ops import N, Op, attend, linear, norm, softmax, vector, visible_pairs
from costmodel.symbols import C_a, W, d_h, d_model, d_r, d_v, n_h, n_kv
from costmodel.workload import Pass


class GQA(Mixer):
    """Multi-head attention whose n_h query heads share n_kv key/value heads.

    Keys are [n_kv, d_h], values [n_kv, d_v]; a window of W sees W tokens, the query's own included; in chunks of C_a
    a query sees its own chunk alone.
    Raises CostModelError where n_kv does not divide n_h, rope turns more than a head, or two reaches are given.

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
    attention_chunk_size: Annotated[Size | None, C_a] = None
    """Tokens of a chunk, where a query sees no further back than its chunk's first token."""
    bidirectional: Flag = False
    """Whether a query also sees what comes after it: all of the context."""
    shares_kv: Flag = False
    """Whether keys and values are an earlier layer's: no projections of its own, and nothing kept."""
    own_key_norm: Flag = False
    """Whether a layer on another's keys has a norm for them with weights of its own, which multiply its queries instead."""
    rotary_dim: Annotated[int | None, Field(strict=True, ge=0, le=MAX_SIZE), d_r] = None
    """Elements of a head that rope turns: all of them by default, 0 without rope."""
    qk_norm: Literal["head", "full", "unweighted"] | None = None
    """Norms of queries and keys: one weight of `head_dim` for all heads, one over all heads together, or none."""
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
        if self.sliding_window and self.attention_chunk_size:
            raise ValueError("sliding_window and attention_chunk_size exclude each other; give one of them")
        if self.bidirectional and (self.sliding_window or self.attention_chunk_size):
            raise ValueError("bidirectional attention has no window and no chunks; leave them out")
        if self.own_key_norm and not (self.shares_kv and self.qk_norm == "head"):
            raise ValueError('own_key_norm is for a layer with shares_kv and qk_norm "head"; leave it out')
        if (self.rotary_dim or 0) > self.head_dim:
            raise ValueError(f"rotary_dim {self.rotary_dim} exceeds head_dim {self.head_dim}")
        return self

    def ops(self, forward: Pass) -> list[Op]:
        value = self._value_dim()
        queries = n_h * (d_h + value) if self.output_gate else n_h * d_h
        seen = "full" if self.bidirectional else forward.attention
        pairs = visible_pairs(seen, forward.phase, W if self.sliding_window else None, C_a if self.attention_chunk_size else None)
        sinks = (Weight(ONE, n_h, "others"),) if self.sinks else ()
        return [
            linear("q_proj", d_model, queries, bias=self.qkv_bias),
            *(() if self.shares_kv else self._keys_and_values(value)),
            *self._qk_norms(),
            *self._rope(),
            attend("attention", n_h, d_h, value, pairs, self._in_sight()),
            softmax(n_h, pairs),
            *([vector("sinks", N * n_h, 2, moved=n_h, weights=sinks)] if self.sinks else []),
            *([vector("output_gate", N * n_h * value, 4, moved=3 * N * n_h * value, kernel="gate")] if self.output_gate else []),
            linear("o_proj", n_h * value, d_model, bias=self.o_bias),
        ]

    def kept(self) -> tuple[Kept, ...]:
        """Keys and values of the tokens still in sight; nothing where they are another layer's."""
        return () if self.shares_kv else self._in_sight()

    def _in_sight(self) -> tuple[Kept, ...]:
        reach = W if self.sliding_window else C_a if self.attention_chunk_size else None
        sizes = (("keys", d_h), ("values", self._value_dim()))
        return tuple(Kept(name, n_kv, width, reach=reach, borrowed=self.shares_kv) for name, width in sizes)

    def _keys_and_values(self, value: Expr) -> tuple[Op, ...]:
        return (
            linear("k_proj", d_model, n_kv * d_h, bias=self.qkv_bias, heads=n_kv),
            linear("v_proj", d_model, n_kv * value, bias=self.qkv_bias, heads=n_kv),
        )

    @property
    def borrows(self) -> bool:
        return self.shares_kv

    @property
    def looks_ahead(self) -> bool:
        return self.bidirectional

    @property
    def usual_heads(self) -> tuple[Expr, Expr]:
        return n_kv, d_h

    def _value_dim(self) -> Expr:
        return d_v if self.v_head_dim else d_h

    def _qk_norms(self) -> list[Op]:
        if self.qk_norm is None:
            return []
        shape = [("q_norm", n_h), ("k_norm", n_kv)][: 1 if self.shares_kv else 2]
        norms = [
            norm(name, heads * d_h) if self.qk_norm == "full" else norm(name, d_h, heads, weight=self.qk_norm == "head")
            for name, heads in shape
        ]
        return norms + ([self._key_norm_on_queries()] if self.own_key_norm else [])

    def _key_norm_on_queries(self) -> Op:
        """The weights w of a norm of keys that others have normed too: q (w k) = (w q) k, so keys are kept once, without w."""
        return vector("k_norm", N * n_h * d_h, 1, moved=ZERO, weights=(Weight(ONE, d_h, "others"),))

    def _rope(self) -> list[Op]:
        turned = d_h if self.rotary_dim is None else d_r
        heads = n_h if self.shares_kv else n_h + n_kv
        return [] if self.rotary_dim == 0 else [vector("rope", N * heads * turned, 3, kernel="rope")]
