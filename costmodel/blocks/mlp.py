"""The dense feed-forward layer, gated (three matrices) or plain (two)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from sympy import Expr

from costmodel.blocks.base import FeedForward, Flag, Size
from costmodel.ops import N, Op, linear, vector
from costmodel.symbols import d_ff, d_model
from costmodel.workload import Pass

Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu2"]
OPERATIONS: dict[str, int] = {"silu": 4, "gelu": 5, "gelu_tanh": 8, "relu": 1, "relu2": 2}
"""Operations of an activation on one element; an exponential, a tanh or an erf counts as one."""


def activate(name: str, activation: str, elements: Expr, gated: bool) -> Op:
    """act(gate) * up, or act(up): a vector row."""
    return vector(name, elements, OPERATIONS[activation] + gated, moved=(3 if gated else 2) * elements, kernel="gate")


class MLP(FeedForward):
    """down(act(gate x) * up x), or down(act(up x)) when not gated: [d_model, d_ff] in, [d_ff, d_model] out.

    >>> [op.name for op in MLP(intermediate_size=4, gated=False).ops(Pass())]
    ['up_proj', 'activation', 'down_proj']
    """

    source: ClassVar[str] = "Shazeer 2020, arXiv 2002.05202; plain: Vaswani et al. 2017, arXiv 1706.03762"

    kind: Literal["mlp"] = "mlp"
    intermediate_size: Annotated[Size, d_ff]
    gated: Flag = True
    activation: Activation = "silu"
    bias: Flag = False

    def ops(self, forward: Pass) -> list[Op]:
        return [
            *([linear("gate_proj", d_model, d_ff, bias=self.bias)] if self.gated else []),
            linear("up_proj", d_model, d_ff, bias=self.bias),
            activate("activation", self.activation, N * d_ff, self.gated),
            linear("down_proj", d_ff, d_model, bias=self.bias),
        ]
