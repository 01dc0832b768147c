"""Model types without attention: every layer holds a state that does not grow."""

from __future__ import annotations

from typing import Any

from costmodel.importers.fields import Fields, Source, flag, size
from costmodel.importers.recipes.base import UNTIED, Block, Kinds, Nested, Recipe, mlp, rounded_up


def everywhere(kind: str) -> Kinds:
    """One kind of mixer in every layer."""
    return lambda fields, depth: [kind] * depth


# xLSTM

STATE_MULTIPLE = 64
"""The implementation makes its states for widths rounded up to this, and its layers for the widths as they are."""


def head_width(factor: str) -> Source:
    """The width of a head whose heads together are `factor` times as wide as the model."""

    def width(fields: Fields) -> int:
        share, heads = fields.factor(factor), fields.size("num_heads")
        together = int(fields.size("hidden_size") * share)
        if together % STATE_MULTIPLE or together % heads or not together:
            fields.unmodelled(
                factor, share, f"it gives a width of {together:,}; only multiples of {STATE_MULTIPLE} and of num_heads are"
            )
        return together // heads

    return width


def projected(fields: Fields) -> int:
    """`ffn_proj_factor` times the model's width, rounded up as the implementation does it, in floats."""
    wanted, multiple = fields.size("hidden_size") * fields.factor("ffn_proj_factor"), fields.size("ffn_round_up_to_multiple_of")
    return int((wanted + multiple - 1) // multiple * multiple)


def biased_norms(fields: Fields) -> dict[str, Any] | None:
    """Norms of a layer with a bias; the one before the head has none."""
    return {"bias": True} if fields.flag("use_bias") else None


XLSTM: dict[str, Any] = {
    "vocab_size": 50_304, "hidden_size": 4096, "num_hidden_layers": 32, "num_heads": 8, "use_bias": False, "qk_dim_factor": 0.5,
    "v_dim_factor": 1.0, "chunk_size": 64, "ffn_proj_factor": 2.667, "ffn_round_up_to_multiple_of": 64,
    "max_position_embeddings": None,
}  # fmt: skip
XLSTM_BLOCK: Block = {
    "kind": "mlstm", "num_heads": size("num_heads"), "qk_head_dim": head_width("qk_dim_factor"),
    "v_head_dim": head_width("v_dim_factor"), "chunk_size": size("chunk_size"), "use_bias": flag("use_bias"),
}  # fmt: skip
XLSTM_IDLE = {
    **dict.fromkeys(("eps", "gate_soft_cap", "output_logit_soft_cap"), "a constant of the implementation"),
    **dict.fromkeys(("chunkwise_kernel", "sequence_kernel", "step_kernel", "mode", "return_last_states"), "how it is run"),
    **dict.fromkeys(("autocast_kernel_dtype", "norm_reduction_force_float32"), "how it is run"),
    "max_inference_chunksize": "how it is run", "inference_state_dtype": "the format of a step; states are kept in the model's",
}  # fmt: skip

# RWKV-7, as in flash-linear-attention


def first_apart(fields: Fields, depth: int) -> list[str]:
    """The first layer, whose values the others share, and the rest."""
    return ["first", *["rest"] * (depth - 1)]


def rwkv_heads(fields: Fields) -> int:
    """Heads of `head_dim` that make up the model's width."""
    width, head = fields.size("hidden_size"), fields.size("head_dim")
    if width % head:
        fields.wrong("head_dim", head, f"a divisor of the width {width:,}")
    return width // head


def channel_mix(fields: Fields) -> int:
    """`intermediate_size`, or `hidden_ratio` times the model's width, rounded up to 32."""
    stated = fields.optional("intermediate_size")
    return stated or rounded_up(int(fields.size("hidden_size") * fields.factor("hidden_ratio")), 32)


RWKV7_BLOCK: Block = {
    "kind": "rwkv7", "num_heads": rwkv_heads,
    **{name: size(name) for name in ("head_dim", "decay_low_rank_dim", "a_low_rank_dim", "gate_low_rank_dim")},
}  # fmt: skip
RWKV7: dict[str, Any] = {
    "head_dim": 64, "hidden_ratio": 4, "intermediate_size": None, "hidden_act": "sqrelu", "norm_bias": True, "norm_first": True,
    "max_position_embeddings": None,
}  # fmt: skip
RWKV7_ONLY: dict[str, Any] = {
    "attn": (None,), "hidden_act": ("sqrelu",), "value_dim": lambda fields: (None, fields.size("hidden_size")),
    "num_heads": lambda fields: (None, rwkv_heads(fields)),
}  # fmt: skip
RWKV7_IDLE = {
    "hidden_ratio": "intermediate_size says it",
    "v_low_rank_dim": "the only layer has values of its own",
    **dict.fromkeys(("attn_mode", "fuse_norm", "fuse_cross_entropy", "fuse_linear_cross_entropy", "use_l2warp"), "how it is run"),
}

RECIPES: dict[str, Recipe | Nested] = {
    "xlstm": Recipe(
        "xLSTMForCausalLM", mixers=everywhere("mlstm"), others={"mlstm": XLSTM_BLOCK},
        dense=mlp(intermediate_size=projected, activation="silu", bias=flag("use_bias")), groups={"mlstm": {"norm": biased_norms}},
        defaults=UNTIED | XLSTM, aliases={"embedding_dim": "hidden_size", "num_blocks": "num_hidden_layers"},
        only={"weight_mode": ("single", "fused"), "add_out_norm": (True,), "tie_word_embeddings": (False,)}, idle=XLSTM_IDLE,
        notes=("the soft cap of logits is not counted",),
    ),
    "rwkv7": Recipe(
        "RWKV7ForCausalLM", mixers=first_apart, embedding_norm=flag("norm_first"),
        others={"first": RWKV7_BLOCK, "rest": {**RWKV7_BLOCK, "v_low_rank_dim": size("v_low_rank_dim")}},
        dense={"kind": "rwkv_channel_mix", "intermediate_size": channel_mix}, norm={"kind": "layernorm", "bias": flag("norm_bias")},
        defaults=UNTIED | RWKV7, only=RWKV7_ONLY, idle=RWKV7_IDLE,
    ),
}  # fmt: skip
