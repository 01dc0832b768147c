"""How the towers beside language models are read."""

from __future__ import annotations

from math import isqrt

from costmodel.importers.fields import Fields, flag, size
from costmodel.importers.recipes.base import OWN_HEADS, Tower, gqa, heads, mlp, shared_out

DEPTH = {name: size(name) for name in ("patch_size", "num_channels", "hidden_size", "num_hidden_layers")}


def side(fields: Fields) -> int:
    """Patches along a side of an image."""
    return fields.size("image_size") // fields.size("patch_size")


def pooled(tower: Fields, top: Fields) -> int:
    """Tokens that the config states: the means of equal squares of patches."""
    tokens = top.size("mm_tokens_per_image")
    row, patches = isqrt(tokens), side(tower)
    if row * row != tokens or patches % row:
        top.unmodelled("mm_tokens_per_image", tokens, f"only squares whose side divides the {patches:,} patches of a side are")
    return tokens


SIGLIP = Tower(
    DEPTH | {"image_size": size("image_size")}, gqa(rotary_dim=0, qkv_bias=True, o_bias=True), mlp(gated=False, bias=True), pooled,
    defaults={
        "num_channels": 3, "hidden_act": "gelu_pytorch_tanh", "head_dim": shared_out, "num_key_value_heads": heads,
        "vision_use_head": True,
    },
    only=OWN_HEADS | {"vision_use_head": (False,), "model_type": ("siglip_vision_model",)},
)  # fmt: skip
"""The tower of Gemma 3."""


# Qwen3-VL and its successors: an image of any size; here one that fills the table of positions


def rows(fields: Fields) -> int:
    """Places along a side of the position table, a square."""
    table = fields.size("num_position_embeddings")
    if isqrt(table) ** 2 != table:
        fields.wrong("num_position_embeddings", table, "a square")
    return isqrt(table)


def filling(fields: Fields) -> int:
    """Pixels of an image's side whose patches are as many as the position table has rows."""
    return rows(fields) * fields.size("patch_size")


def merged(tower: Fields, top: Fields) -> int:
    """Squares of patches, side by side."""
    merge, patches = tower.size("spatial_merge_size"), rows(tower)
    if patches % merge:
        tower.wrong("spatial_merge_size", merge, f"a divisor of the {patches:,} patches of a side")
    return (patches // merge) ** 2


def merged_width(fields: Fields) -> tuple[int]:
    """The merger's one hidden layer is as wide as what it merges."""
    return (fields.size("hidden_size") * fields.size("spatial_merge_size") ** 2,)


def called(kind: str) -> dict[str, tuple[str, str]]:
    """The names that a tower has in configs: the model's, or its own."""
    return {"model_type": (kind, f"{kind}_vision")}


QWEN3_VL = Tower(
    DEPTH | {
        "image_size": filling, "frames_per_patch": size("temporal_patch_size"),
        "position_embeddings": size("num_position_embeddings"), "norm_after": False,
    },
    gqa(qkv_bias=True, o_bias=True), mlp(gated=False, bias=True), merged,
    {"gathers": "side by side", "norm": {"kind": "layernorm", "bias": True}, "widths": merged_width, "bias": True},
    ends_at="out_hidden_size",
    defaults={
        "num_hidden_layers": 27, "hidden_size": 1152, "hidden_act": "gelu_pytorch_tanh", "intermediate_size": 4304,
        "num_attention_heads": 16, "num_channels": 3, "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2,
        "out_hidden_size": 3584, "num_position_embeddings": 2304, "head_dim": shared_out, "num_key_value_heads": heads,
    },
    aliases={"depth": "num_hidden_layers", "num_heads": "num_attention_heads", "in_channels": "num_channels"},
    only=OWN_HEADS | {"deepstack_visual_indexes": ([],)},
)  # fmt: skip
"""The tower of Qwen3.5."""


# Llama 4: squares of patches side by side, through three matrices


def shuffle(fields: Fields) -> int:
    """Patches along the side of a square that becomes a token: `pixel_shuffle_ratio` is its reciprocal."""
    ratio = fields.fraction("pixel_shuffle_ratio")
    merge = round(1 / ratio)
    if merge * ratio != 1 or side(fields) % merge:
        fields.unmodelled(
            "pixel_shuffle_ratio", ratio, f"only the reciprocal of a divisor of the {side(fields):,} patches of a side is"
        )
    return merge


def shuffled(tower: Fields, top: Fields) -> int:
    """Tokens of an image."""
    return (side(tower) // shuffle(tower)) ** 2


def shuffled_widths(fields: Fields) -> tuple[int, ...]:
    """The widths between: the first matrix takes what is put side by side, the last one begins at the tower's own output."""
    merged, given = fields.size("hidden_size") * shuffle(fields) ** 2, fields.size("intermediate_size")
    if merged != given:
        fields.wrong("intermediate_size", given, f"{merged:,}, the width of {shuffle(fields) ** 2} patches side by side")
    first, second, last = (fields.size(f"{name}_dim") for name in ("projector_input", "projector_output", "vision_output"))
    if not first == second == last:
        fields.wrong("projector_output_dim", second, f"the same as projector_input_dim {first:,} and vision_output_dim {last:,}")
    return (first, second)


LLAMA4 = Tower(
    DEPTH | {"image_size": size("image_size"), "patch_bias": False, "class_token": True, "norm_before": True},
    gqa(qkv_bias=True, o_bias=True), mlp(gated=False, bias=True), shuffled,
    {
        "gathers": "side by side", "norm": {"placement": "none"}, "widths": shuffled_widths,
        "bias": flag("multi_modal_projector_bias"),
    },
    defaults={
        "hidden_size": 768, "num_hidden_layers": 34, "num_attention_heads": 16, "num_channels": 3, "intermediate_size": 5632,
        "vision_output_dim": 7680, "image_size": 448, "patch_size": 14, "pixel_shuffle_ratio": 0.5, "projector_input_dim": 4096,
        "projector_output_dim": 4096, "multi_modal_projector_bias": False, "hidden_act": "gelu", "head_dim": shared_out,
        "num_key_value_heads": heads,
    },
    only=OWN_HEADS | {
        "model_type": ("llama4_vision_model",), "multi_modal_projector_bias": (False,),
        "vision_feature_select_strategy": ("default",),
    },
    idle={"projector_dropout": "for training alone"},
)  # fmt: skip
"""The tower of Llama 4."""
