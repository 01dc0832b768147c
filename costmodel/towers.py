"""Vision towers: parameters of the whole model, work only in a pass that sees images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Self

from pydantic import Field, model_validator
from sympy import Expr, Integer, Symbol

from costmodel.blocks import FeedForwardField, MixerField, Norm
from costmodel.blocks.base import Size
from costmodel.cost import ZERO, Cost, Weight
from costmodel.layers import MAX_LAYERS, around, block_rows
from costmodel.ops import N, Op, linear, norm, vector
from costmodel.quantities import Row
from costmodel.symbols import B, S, T, d_model
from costmodel.workload import Checked, Pass, Phase


class VisionTower(Checked):
    """A bidirectional image encoder and the projector into the language model: its parameters are part of the total.

    An image of `image_size` pixels a side makes (image_size / patch_size)^2 patches; after the tower they are pooled to
    `tokens_per_image` tokens, normed, and projected to the language model's width without a bias.

    >>> import costmodel as cm
    >>> tower = cm.load("gemma-3-27b").vision
    >>> tower.patches, tower.tokens_per_image
    (4096, 256)
    """

    image_size: Size
    patch_size: Size
    num_channels: Size = 3
    hidden_size: Size
    num_hidden_layers: Annotated[int, Field(strict=True, ge=1, le=MAX_LAYERS)]
    norm: Norm = Norm(kind="layernorm", bias=True)
    mixer: MixerField
    feed_forward: FeedForwardField
    tokens_per_image: Size

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.image_size % self.patch_size:
            raise ValueError(f"patch_size {self.patch_size} does not divide image_size {self.image_size}")
        if self.tokens_per_image > self.patches:
            raise ValueError(f"tokens_per_image {self.tokens_per_image} exceeds the {self.patches} patches of an image")
        return self

    @property
    def patches(self) -> int:
        """Patches of one image: the tower's context."""
        return (self.image_size // self.patch_size) ** 2


def vision_rows(tower: VisionTower, hidden_size: int, images: int) -> Iterator[Row]:
    """The tower's rows: B images sequences of `patches` patches that see each other. Without images, parameters alone."""
    forward = Pass(Phase.PREFILL, "full")
    patches, text = Integer(tower.patches), Integer(hidden_size)
    workload: dict[Symbol, Expr] = {B: B * max(images, 1), T: patches, S: patches}
    width = workload | {d_model: Integer(tower.hidden_size)}
    pooled = B * tower.tokens_per_image
    pixels = Integer(tower.num_channels * tower.patch_size**2)
    layers = tower.num_hidden_layers
    ends = [
        replace(linear("patch_embedding", pixels, d_model, bias=True, role="others"), kind="conv"),
        vector("position_embedding", N * d_model, 1, weights=(Weight(patches, d_model, "others"),)),
        norm("post_norm", d_model, mean=True, bias=True),
        vector("pool", N * d_model, 1, moved=N * d_model + pooled * d_model),
        norm("projector_norm", d_model, tokens=pooled),
        linear("projector", d_model, text, pooled, role="others"),
    ]
    rows = [Row("vision", 1, "projector" if "projector" in op.name else "tower", op, 1, width) for op in ends]
    rows += around("vision", tower.norm, 2, forward, layers, width)
    for block in (tower.mixer, tower.feed_forward):
        rows += block_rows("vision", block, forward, layers, width)
    yield from (replace(row, op=_tower_op(row.op, seen=images > 0)) for row in rows)


def _tower_op(op: Op, *, seen: bool) -> Op:
    """A tower's op: it keeps nothing, stays bf16, is not active for text, and works only when it sees an image."""
    weights = tuple(replace(w, role="others", active=ZERO, touched=w.touched if seen else ZERO) for w in op.cost.weights)
    return replace(op, cost=replace(op.cost, weights=weights, kept=()) if seen else Cost(weights=weights))
