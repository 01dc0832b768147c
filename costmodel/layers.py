"""Layer groups: equal layers, counted once and multiplied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import Field, model_validator
from sympy import Expr, Symbol

from costmodel.blocks import AnyFeedForward, AnyMixer, Block, FeedForwardField, MixerField, Norm
from costmodel.blocks.base import Size, ops_of
from costmodel.blocks.norm import residual
from costmodel.quantities import Row
from costmodel.workload import Checked, Name, Pass

MAX_LAYERS = 10_000


class LayerGroup(Checked):
    """`count` equal layers: a mixer, a feed-forward layer, or both, each with its norms and residual.

    With `shared`, only so many layers' weights are stored and used in turn: parameters count once, work each time.

    >>> from costmodel.blocks import MLP
    >>> LayerGroup(name="dense", count=2, feed_forward=MLP(intermediate_size=64)).blocks[0].kind
    'mlp'
    """

    name: Name
    count: Annotated[int, Field(strict=True, ge=1, le=MAX_LAYERS)]
    mixer: MixerField | None = None
    feed_forward: FeedForwardField | None = None
    shared: Size | None = None
    """Layers whose weights are stored, where the group's layers take turns with fewer; None: each has its own."""
    learning: Size | None = None
    """Layers that gradients pass in training, where a recursion learns through its last ones alone; None: all."""
    norm: Norm | None = None
    """Norms around these layers' parts where they differ from the architecture's."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.blocks:
            raise ValueError(f"layer group {self.name} has neither mixer nor feed_forward; give at least one")
        for name in ("shared", "learning"):
            if (getattr(self, name) or 0) > self.count:
                raise ValueError(f"{name} {getattr(self, name)} exceeds the {self.count} layers of group {self.name}")
        return self

    @property
    def blocks(self) -> tuple[AnyMixer | AnyFeedForward, ...]:
        """Its blocks in order."""
        return tuple(block for block in (self.mixer, self.feed_forward) if block is not None)


def block_rows(
    group: str, block: Block, forward: Pass, layers: int, width: dict[Symbol, Expr], shared: int | None = None
) -> Iterator[Row]:
    """A block's rows in all layers of its group, of which `shared` are stored."""
    binding = width | block.binding()
    for op in ops_of(block, forward):
        yield Row(group, layers, block.kind, op, layers, binding, block.source, None if op.own else shared)


def around(
    group: str, norms: Norm, parts: int, forward: Pass, layers: int, width: dict[Symbol, Expr], shared: int | None = None
) -> Iterator[Row]:
    """Norms and residual additions around the parts of a layer."""
    if norms.per_part:
        times, stored = (number and number * parts * norms.per_part for number in (layers, shared))
        yield from (Row(group, layers, "norm", op, times or 0, width, norms.source, stored) for op in ops_of(norms, forward))
    yield Row(group, layers, "residual", residual(), layers * parts, width)
