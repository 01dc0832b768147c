"""Layer groups: equal layers, counted once and multiplied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import Field, model_validator
from sympy import Expr, Symbol

from costmodel.blocks import AnyFeedForward, AnyMixer, Block, FeedForwardField, MixerField, Norm
from costmodel.blocks.base import ops_of
from costmodel.blocks.norm import residual
from costmodel.quantities import Row
from costmodel.workload import Checked, Name, Pass

MAX_LAYERS = 10_000


class LayerGroup(Checked):
    """`count` equal layers: a mixer, a feed-forward layer, or both, each with its norms and residual.

    >>> from costmodel.blocks import MLP
    >>> LayerGroup(name="dense", count=2, feed_forward=MLP(intermediate_size=64)).blocks[0].kind
    'mlp'
    """

    name: Name
    count: Annotated[int, Field(strict=True, ge=1, le=MAX_LAYERS)]
    mixer: MixerField | None = None
    feed_forward: FeedForwardField | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.blocks:
            raise ValueError(f"layer group {self.name} has neither mixer nor feed_forward; give at least one")
        return self

    @property
    def blocks(self) -> tuple[AnyMixer | AnyFeedForward, ...]:
        """Its blocks in order."""
        return tuple(block for block in (self.mixer, self.feed_forward) if block is not None)


def block_rows(group: str, block: Block, forward: Pass, layers: int, width: dict[Symbol, Expr]) -> Iterator[Row]:
    """A block's rows in all layers of its group."""
    binding = width | block.binding()
    yield from (Row(group, layers, block.kind, op, layers, binding, block.source) for op in ops_of(block, forward))


def around(group: str, norms: Norm, parts: int, forward: Pass, layers: int, width: dict[Symbol, Expr]) -> Iterator[Row]:
    """Norms and residual additions around the parts of a layer."""
    if norms.per_part:
        yield from (
            Row(group, layers, "norm", op, layers * parts * norms.per_part, width, norms.source) for op in ops_of(norms, forward)
        )
    yield Row(group, layers, "residual", residual(), layers * parts, width)
