"""Norms around the parts of a layer, in every placement."""

from __future__ import annotations

from typing import ClassVar, Literal

from costmodel.blocks.base import Block, Flag
from costmodel.cost import ZERO
from costmodel.ops import N, Op, norm, vector
from costmodel.symbols import d_model
from costmodel.workload import Pass


class Norm(Block):
    """A norm over d_model, and where it stands around each mixer and feed-forward layer.

    `pre` one before, `post` one after, `sandwich` both, `none` neither. The norm before the head stands in all but `none`,
    unless `final` is false.

    >>> Norm(placement="sandwich").per_part
    2
    """

    source: ClassVar[str] = "RMSNorm: Zhang and Sennrich 2019, arXiv 1910.07467; LayerNorm: Ba et al. 2016, arXiv 1607.06450"

    kind: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    placement: Literal["pre", "post", "sandwich", "none"] = "pre"
    weight: Flag = True
    bias: Flag = False
    final: Flag = True
    """Whether a norm stands before the head."""

    @property
    def per_part(self) -> int:
        """Norms around one mixer or feed-forward layer."""
        return {"pre": 1, "post": 1, "sandwich": 2, "none": 0}[self.placement]

    def ops(self, forward: Pass) -> list[Op]:
        return [norm("norm", d_model, mean=self.kind == "layernorm", weight=self.weight, bias=self.bias)]


def residual() -> Op:
    """x + f(x): two streams read, one written."""
    return vector("residual", N * d_model, 1, moved=3 * N * d_model, saved=ZERO)
