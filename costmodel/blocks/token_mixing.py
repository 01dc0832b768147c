"""Token mixing: a gated feed-forward layer over the places of a grid of fixed size, in the place of attention."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from costmodel.blocks.base import Mixer, Size
from costmodel.blocks.mlp import Activation, activate
from costmodel.ops import Op, linear
from costmodel.symbols import B, d_model, d_p, n_p
from costmodel.workload import Pass


class TokenMixing(Mixer):
    """down(act(gate x) * up x) over n_p places, each of the d_model channels alone: [n_p, d_p] in, [d_p, n_p] out.

    Its matrices are as long as the grid, so that each pass works on all n_p places, whatever T and S say. Nothing is kept.

    >>> [op.name for op in TokenMixing(positions=97, token_intermediate_size=512).ops(Pass())]
    ['gate_proj', 'up_proj', 'activation', 'down_proj']
    """

    source: ClassVar[str] = "Tolstikhin et al. 2021, arXiv 2105.01601; gated: Jolicoeur-Martineau 2025, arXiv 2510.04871"

    kind: Literal["token_mixing"] = "token_mixing"
    positions: Annotated[Size, n_p]
    token_intermediate_size: Annotated[Size, d_p]
    activation: Activation = "silu"

    @property
    def looks_ahead(self) -> bool:
        return True

    def ops(self, forward: Pass) -> list[Op]:
        channels = B * d_model
        return [
            linear("gate_proj", n_p, d_p, channels),
            linear("up_proj", n_p, d_p, channels),
            activate("activation", self.activation, channels * d_p, gated=True),
            linear("down_proj", d_p, n_p, channels),
        ]
