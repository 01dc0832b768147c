"""Attention and Mamba-2 heads side by side: both read one normed input, and their outputs add."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from sympy import Expr

from costmodel.blocks.base import MAX_SIZE, Flag, Mixer, Size
from costmodel.blocks.gqa import GQA
from costmodel.blocks.mamba2 import Mamba2
from costmodel.cost import ZERO, Kept
from costmodel.ops import N, Op, vector
from costmodel.symbols import C, K, d_h, d_m, d_model, d_N, d_r, n_g, n_h, n_kv, n_m
from costmodel.workload import Pass


class ParallelHybrid(Mixer):
    """The rows of `GQA` and of `Mamba2`, and their sum; what both keep. It has the fields of both.

    Raises CostModelError where n_kv does not divide n_h, or n_g does not divide n_m.

    >>> attention = {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64}
    >>> heads = {"mamba_num_heads": 24, "mamba_head_dim": 64, "ssm_state_size": 128, "n_groups": 1, "conv_kernel": 4}
    >>> ParallelHybrid(**attention, **heads).keeps
    'keep 256 numbers a token beside a state that does not grow'
    """

    source: ClassVar[str] = f"Falcon-H1, arXiv 2507.22448, section 2; {GQA.source}; {Mamba2.source}"
    algorithms: ClassVar[tuple[str, ...]] = Mamba2.algorithms

    kind: Literal["parallel_hybrid"] = "parallel_hybrid"
    num_attention_heads: Annotated[Size, n_h]
    num_key_value_heads: Annotated[Size, n_kv]
    head_dim: Annotated[Size, d_h]
    rotary_dim: Annotated[int | None, Field(strict=True, ge=0, le=MAX_SIZE), d_r] = None
    """Elements of a head that rope turns: all of them by default, 0 without rope."""
    qkv_bias: Flag = False
    o_bias: Flag = False
    mamba_num_heads: Annotated[Size, n_m]
    mamba_head_dim: Annotated[Size, d_m]
    ssm_state_size: Annotated[Size, d_N]
    n_groups: Annotated[Size, n_g]
    conv_kernel: Annotated[Size, K]
    chunk_size: Annotated[Size, C] = 256
    conv_bias: Flag = True
    in_proj_bias: Flag = False
    out_proj_bias: Flag = False
    gated_norm: Flag = False
    """A norm over all Mamba heads' outputs, after the gate and before the last projection."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for part in (GQA, Mamba2):
            part.model_validate(self._fields_of(part))
        return self

    def ops(self, forward: Pass) -> list[Op]:
        attention, state_space = self.parts()
        return [
            *attention.ops(forward),
            *(replace(op, name=f"ssm.{op.name}") for op in state_space.ops(forward)),
            vector("add", N * d_model, 1, moved=3 * N * d_model, saved=ZERO),
        ]

    def parts(self) -> tuple[GQA, Mamba2]:
        """Its attention and its state space, with the same fields."""
        return GQA.model_construct(**self._fields_of(GQA)), Mamba2.model_construct(**self._fields_of(Mamba2))

    def kept(self) -> tuple[Kept, ...]:
        """Keys and values of all tokens, and the state and convolution tails."""
        return tuple(kept for part in self.parts() for kept in part.kept())

    @property
    def keeps(self) -> str:
        return f"{super().keeps} beside a state that does not grow"

    @property
    def usual_heads(self) -> tuple[Expr, Expr]:
        return n_kv, d_h

    def _fields_of(self, part: type[Mixer]) -> dict[str, Any]:
        own = (part.model_fields.keys() & type(self).model_fields.keys()) - {"kind"}
        return {name: getattr(self, name) for name in own}
