"""Vision towers: parameters of the whole model, work only in a pass that sees images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from sympy import Expr, Integer, Symbol

from costmodel.blocks import FeedForwardField, MixerField, Norm
from costmodel.blocks.base import Flag, Size
from costmodel.blocks.mlp import Activation, activate
from costmodel.cost import ONE, ZERO, Cost, Weight
from costmodel.layers import MAX_LAYERS, around, block_rows
from costmodel.ops import N, Op, linear, norm, vector
from costmodel.quantities import Row
from costmodel.symbols import B, S, T, d_model
from costmodel.workload import Checked, Pass, Phase


class Projector(Checked):
    """What makes tokens of an image's patches: their mean, or all of them side by side, then matrices into the model's width.

    The norm stands after a mean, and before patches are put side by side; nowhere with placement `none`. Each of `widths` is
    a matrix and an activation; one more matrix ends at the language model's width.

    >>> Projector(gathers="side by side", norm=Norm(placement="none"), widths=(4096, 4096)).widths
    (4096, 4096)
    """

    gathers: Literal["mean", "side by side"] = "mean"
    norm: Norm = Norm()
    widths: Annotated[tuple[Size, ...], Field(max_length=8)] = ()
    activation: Activation = "gelu"
    bias: Flag = False


class VisionTower(Checked):
    """A bidirectional image encoder and the projector into the language model: its parameters are part of the total.

    An image of `image_size` pixels a side makes (image_size / patch_size)^2 patches, which the projector gathers into
    `tokens_per_image` tokens after the tower.
    Raises CostModelError where patches do not fill the image, or tokens do not share them out evenly.

    >>> import costmodel as cm
    >>> tower = cm.load("gemma-3-27b").vision
    >>> tower.patches, tower.tokens_per_image
    (4096, 256)
    """

    image_size: Size
    patch_size: Size
    num_channels: Size = 3
    frames_per_patch: Size = 1
    """Frames of a video that a patch spans: an image stands for as many equal ones."""
    patch_bias: Flag = True
    position_embeddings: Size | None = None
    """Rows of a learned position table that is resampled to an image's grid; None: a row for each place."""
    class_token: Flag = False
    """A learned place beside the patches, which the projector leaves out."""
    hidden_size: Size
    num_hidden_layers: Annotated[int, Field(strict=True, ge=1, le=MAX_LAYERS)]
    norm: Norm = Norm(kind="layernorm", bias=True)
    norm_before: Flag = False
    """A norm before the first layer."""
    norm_after: Flag = True
    """A norm after the last layer."""
    mixer: MixerField
    feed_forward: FeedForwardField
    projector: Projector = Projector()
    tokens_per_image: Size

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.image_size % self.patch_size:
            raise ValueError(f"patch_size {self.patch_size} does not divide image_size {self.image_size}")
        if self.tokens_per_image > self.patches:
            raise ValueError(f"tokens_per_image {self.tokens_per_image} exceeds the {self.patches} patches of an image")
        if self.projector.gathers != "mean" and self.patches % self.tokens_per_image:
            raise ValueError(f"tokens_per_image {self.tokens_per_image} does not divide the {self.patches} patches of an image")
        return self

    @property
    def patches(self) -> int:
        """Patches of one image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def places(self) -> int:
        """What the tower's layers see of one image, its context: the patches, and the class token where there is one."""
        return self.patches + self.class_token


def vision_rows(tower: VisionTower, hidden_size: int, images: int) -> Iterator[Row]:
    """The tower's rows: B images sequences of `places` that see each other. Without images, parameters alone."""
    forward = Pass(Phase.PREFILL, "full")
    places = Integer(tower.places)
    workload: dict[Symbol, Expr] = {B: B * max(images, 1), T: places, S: places}
    width = workload | {d_model: Integer(tower.hidden_size)}
    layers = tower.num_hidden_layers
    rows = [Row("vision", 1, "tower", op, 1, width) for op in _ends(tower)]
    rows += [Row("vision", 1, _part(op), op, 1, width) for op in _projection(tower, hidden_size)]
    rows += around("vision", tower.norm, 2, forward, layers, width)
    for block in (tower.mixer, tower.feed_forward):
        rows += block_rows("vision", block, forward, layers, width)
    yield from (replace(row, op=_tower_op(row.op, seen=images > 0)) for row in rows)


def _ends(tower: VisionTower) -> Iterator[Op]:
    """Patches and positions before the layers, and the norms around them."""
    pixels = Integer(tower.num_channels * tower.frames_per_patch * tower.patch_size**2)
    patches = B * tower.patches
    yield replace(linear("patch_embedding", pixels, d_model, patches, bias=tower.patch_bias, role="others"), kind="conv")
    table = Weight(Integer(tower.position_embeddings or tower.places), d_model, "others")
    learned = (table, Weight(ONE, d_model, "others")) if tower.class_token else (table,)
    # resampled: four rows, each with its share
    yield vector("position_embedding", N * d_model, 8 if tower.position_embeddings else 1, weights=learned)
    for name in ("pre_norm",) * tower.norm_before + ("post_norm",) * tower.norm_after:
        yield replace(tower.norm.ops(Pass())[0], name=name)


def _projection(tower: VisionTower, hidden_size: int) -> Iterator[Op]:
    """Patches to the language model's tokens."""
    projector, tokens = tower.projector, B * tower.tokens_per_image
    mean = projector.gathers == "mean"
    width = d_model if mean else d_model * (tower.patches // tower.tokens_per_image)
    patches = B * tower.patches
    if mean:
        yield vector("pool", patches * d_model, 1, moved=(patches + tokens) * d_model)
    if projector.norm.per_part:
        yield _projector_norm(projector.norm, tokens if mean else patches)
    for place, wider in enumerate(projector.widths, 1):
        yield linear(f"projector_{place}", width, Integer(wider), tokens, bias=projector.bias, role="others")
        yield activate(f"projector_activation_{place}", projector.activation, tokens * wider, gated=False)
        width = Integer(wider)
    yield linear("projector", width, Integer(hidden_size), tokens, bias=projector.bias, role="others")


def _part(op: Op) -> str:
    """Pooling is the tower's, as its makers count it."""
    return "projector" if "projector" in op.name else "tower"


def _projector_norm(kind: Norm, tokens: Expr) -> Op:
    """A norm of vectors of the tower's width."""
    return norm("projector_norm", d_model, mean=kind.kind == "layernorm", weight=kind.weight, bias=kind.bias, tokens=tokens)


def _tower_op(op: Op, *, seen: bool) -> Op:
    """A tower's op: it keeps nothing, stays bf16, is not active for text, and works only when it sees an image."""
    weights = tuple(replace(w, role="others", active=ZERO, touched=w.touched if seen else ZERO) for w in op.cost.weights)
    return replace(op, cost=replace(op.cost, weights=weights, kept=()) if seen else Cost(weights=weights))
