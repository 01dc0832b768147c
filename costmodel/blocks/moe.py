"""Mixture of experts: a router sends each token through k of E experts; shared experts see every token."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from costmodel.blocks.base import MAX_SIZE, FeedForward, Flag, Size
from costmodel.blocks.mlp import Activation, activate
from costmodel.cost import ONE, ZERO, Weight
from costmodel.ops import N, Op, expert_linear, linear, vector
from costmodel.symbols import E, E_s, d_e, d_model, d_s, k
from costmodel.workload import Pass


class MoE(FeedForward):
    """E routed experts of width d_e, k of them a token, beside E_s shared experts of width d_s that act as one.

    Raises CostModelError where k exceeds E, or a shared expert's field stands without one.

    >>> MoE(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=64).ops(Pass())[0].name
    'router'
    """

    source: ClassVar[str] = "Shazeer et al. 2017, arXiv 1701.06538; shared experts: DeepSeekMoE, arXiv 2401.06066"

    kind: Literal["moe"] = "moe"
    num_experts: Annotated[Size, E]
    num_experts_per_tok: Annotated[Size, k]
    moe_intermediate_size: Annotated[Size, d_e]
    num_shared_experts: Annotated[int, Field(strict=True, ge=0, le=MAX_SIZE), E_s] = 0
    shared_expert_intermediate_size: Annotated[Size | None, d_s] = None
    """Width of a shared expert where it differs from a routed one's."""
    gated: Flag = True
    activation: Activation = "silu"
    router_bias: Flag = False
    """A bias in the router's matrix."""
    score_correction_bias: Flag = False
    """A bias for each expert that only picks experts; stored and trained, so it counts."""
    shared_expert_gate: Flag = False
    """A gate [d_model, 1] on the shared experts' output."""
    expert_bias: Flag = False

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.num_experts_per_tok > self.num_experts:
            raise ValueError(f"num_experts_per_tok {self.num_experts_per_tok} exceeds num_experts {self.num_experts}")
        if not self.num_shared_experts and (self.shared_expert_gate or self.shared_expert_intermediate_size):
            raise ValueError("num_shared_experts 0 leaves nothing for shared_expert_gate or shared_expert_intermediate_size")
        return self

    def ops(self, forward: Pass) -> list[Op]:
        correction = (Weight(ONE, E, "others"),) if self.score_correction_bias else ()
        return [
            linear("router", d_model, E, bias=self.router_bias, role="others"),
            vector("routing", N * E, 5, moved=N * E + 2 * N * k, weights=correction),  # score, then the k highest
            *self._routed(),
            vector("combine", N * k * d_model, 2, moved=N * (k + 1) * d_model, saved=N * k * d_model),
            *(self._shared() if self.num_shared_experts else []),
        ]

    def _routed(self) -> list[Op]:
        bias = self.expert_bias
        return [
            *([expert_linear("experts.gate_proj", d_model, d_e, E, k, bias=bias)] if self.gated else []),
            expert_linear("experts.up_proj", d_model, d_e, E, k, bias=bias),
            activate("experts.activation", self.activation, N * k * d_e, self.gated),
            expert_linear("experts.down_proj", d_e, d_model, E, k, bias=bias),
        ]

    def _shared(self) -> list[Op]:
        width = E_s * (d_s if self.shared_expert_intermediate_size else d_e)
        gate = [
            linear("shared.gate", d_model, ONE, role="others"),
            vector("shared.apply_gate", N * d_model, 1, moved=N * (2 * d_model + 1)),
        ]
        return [
            *([linear("shared.gate_proj", d_model, width)] if self.gated else []),
            linear("shared.up_proj", d_model, width),
            activate("shared.activation", self.activation, N * width, self.gated),
            linear("shared.down_proj", width, d_model),
            *(gate if self.shared_expert_gate else []),
            vector("shared.add", N * d_model, 1, moved=3 * N * d_model, saved=ZERO),
        ]
