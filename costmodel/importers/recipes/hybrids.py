"""Model types that mix attention with recurrences."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from costmodel.importers.fields import Fields, flag, optional, size
from costmodel.importers.recipes.base import (
    DELTANET,
    FULL,
    GATED_SHARED,
    KDA,
    LATENT,
    LIGHTNING,
    LINEAR,
    LOCAL_EXPERTS,
    MLA,
    NO_DENSE,
    NO_SLIDING,
    PLAIN,
    STEPS,
    TIED,
    TYPED,
    UNBIASED,
    UNTIED,
    Block,
    Nested,
    Recipe,
    after_dense,
    always,
    biased,
    by_feed_types,
    by_type,
    every_step,
    gqa,
    heads,
    interval,
    mlp,
    moe,
    one_per_head,
    rotary,
    rounded_up,
)  # fmt: skip
from costmodel.importers.recipes.towers import QWEN3_VL, called

QWEN35_MIXERS: dict[str, Any] = {
    "attention": biased(qk_norm="head", output_gate=True, rotary_dim=rotary),
    "mixers": interval(LINEAR, "full_attention_interval"), "others": {LINEAR: DELTANET}, "mtp": size("mtp_num_hidden_layers", 0),
}  # fmt: skip
QWEN35 = PLAIN | UNBIASED | {
    "hidden_size": 4096, "vocab_size": 248_320, "num_hidden_layers": 32, "num_attention_heads": 16, "num_key_value_heads": 4,
    "head_dim": 256, "intermediate_size": 12_288, "max_position_embeddings": 32_768, "partial_rotary_factor": 0.25,
    "full_attention_interval": 4, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
    "linear_num_key_heads": 16, "linear_num_value_heads": 32, "mtp_num_hidden_layers": 0,
}  # fmt: skip
QWEN35_MOE = {
    "hidden_size": 2048, "num_hidden_layers": 40, "num_key_value_heads": 2, "num_experts": 256, "num_experts_per_tok": 8,
    "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512,
}  # fmt: skip
QWEN35_ONLY: dict[str, Any] = {
    "attn_output_gate": (True,), "mtp_num_hidden_layers": (0, 1), "mtp_use_dedicated_embeddings": (False,),
    "mlp_only_layers": ([], None),
}  # fmt: skip
QWEN35_IDLE = TYPED | {"mamba_ssm_dtype": "the format of the state; choose a precision"}

CONV = "conv"


def conv_but(fields: Fields, depth: int) -> list[str]:
    """Short convolutions in all layers but `full_attn_idxs`; full attention everywhere where those are not given."""
    if not fields.given("full_attn_idxs"):
        return [FULL] * depth
    attention = fields.places("full_attn_idxs")
    return [FULL if place in attention else CONV for place in range(depth)]


def stated(fields: Fields, depth: int) -> list[str]:
    """What `layer_types` says."""
    return fields.choices("layer_types", {CONV: CONV, FULL: FULL}, depth)


def two_thirds(fields: Fields) -> int:
    """`block_ff_dim`; where `block_auto_adjust_ff_dim` is true two thirds of it, times a factor, rounded up to a multiple."""
    width = fields.size("intermediate_size")
    if not fields.flag("block_auto_adjust_ff_dim"):
        return width
    return rounded_up(int(fields.factor("block_ffn_dim_multiplier") * (2 * width // 3)), fields.size("block_multiple_of"))


def width(fields: Fields) -> tuple[int]:
    """The model's width, that configs repeat."""
    return (fields.size("hidden_size"),)


SHORT_CONV: Block = {"kind": "short_conv", "conv_L_cache": size("conv_L_cache"), "conv_bias": flag("conv_bias")}
LFM2 = PLAIN | TIED | {"num_key_value_heads": 8, "max_position_embeddings": 128_000, "conv_L_cache": 3, "conv_bias": False}
LFM2_ONLY: dict[str, Any] = {
    "hidden_act": ("silu",), "block_use_swiglu": (True,), "use_pos_enc": (True,), "num_heads": lambda fields: (heads(fields),),
    "block_dim": width, "conv_dim": width, "conv_dim_out": width,
}  # fmt: skip
LFM2_IDLE = {
    "block_norm_eps": "a constant of the implementation", "theta": "a constant of rope", "full_attn_idxs": "layer_types says it",
    **dict.fromkeys(("block_multiple_of", "block_ffn_dim_multiplier"), "the width is not adjusted"),
    **dict.fromkeys(("block_mlp_init_scale", "block_out_init_scale"), "for training alone"),
    **dict.fromkeys(("block_use_xavier_init", "conv_use_xavier_init"), "for training alone"),
}  # fmt: skip

LINEAR_CONFIG = "linear_attn_config"


def listed(fields: Fields, depth: int) -> list[str]:
    """Layers by the two lists of a config, counted from 1, or by `layer_types`; without either one in four is attention."""
    if fields.given("layer_types"):
        return fields.choices("layer_types", {FULL: FULL, LINEAR: LINEAR}, depth)
    names = {kind: f"{LINEAR_CONFIG}.{name}_layers" for kind, name in ((FULL, "full_attn"), (LINEAR, "kda"))}
    if not all(fields.given(name) for name in names.values()):
        return [FULL if place and place % 4 == 0 else LINEAR for place in range(depth)]
    places = {place: kind for kind, name in names.items() for place in fields.places(name)}
    if set(places) != set(range(1, depth + 1)) or sum(len(fields.places(name)) for name in names.values()) != depth:
        fields.wrong(names[FULL], sorted(places), f"every layer from 1 to {depth:,} once, here or in {names[LINEAR]}")
    return [places[place] for place in range(1, depth + 1)]


RECIPES: dict[str, Recipe | Nested] = {
    "qwen3_next": Recipe(
        "Qwen3NextForCausalLM", biased(qk_norm="head", output_gate=True, rotary_dim=rotary),
        interval(LINEAR, "full_attention_interval"), others={LINEAR: DELTANET}, feeds=every_step,
        experts=moe(**GATED_SHARED), mtp=1,
        defaults=PLAIN | UNBIASED | STEPS | {"head_dim": 256, "partial_rotary_factor": 0.25, "full_attention_interval": 4},
        aliases=LOCAL_EXPERTS, only={"use_sliding_window": (False,)}, idle=NO_SLIDING | NO_DENSE | TYPED,
    ),
    "lfm2": Recipe(
        "Lfm2ForCausalLM", gqa(qk_norm="head"), by_type(conv_but, FULL, CONV), others={CONV: SHORT_CONV},
        dense=mlp(intermediate_size=two_thirds),
        defaults=LFM2 | {"block_auto_adjust_ff_dim": True, "block_ffn_dim_multiplier": 1.0, "block_multiple_of": 256},
        aliases={"tie_embedding": "tie_word_embeddings", "block_ff_dim": "intermediate_size"},
        only=LFM2_ONLY, idle=LFM2_IDLE,
    ),
    "lfm2_moe": Recipe(
        "Lfm2MoeForCausalLM", gqa(qk_norm="head"), stated, others={CONV: SHORT_CONV}, feeds=after_dense,
        experts=moe(score_correction_bias=flag("use_expert_bias")),
        defaults=LFM2 | {"first_k_dense_replace": 2, "use_expert_bias": True, "num_experts": 32, "num_experts_per_tok": 4},
        aliases={"tie_embedding": "tie_word_embeddings", "num_dense_layers": "first_k_dense_replace"},
        only={"hidden_act": ("silu",)},
    ),
    "kimi_linear": Recipe(
        "KimiLinearForCausalLM", {**MLA, "rope": False}, listed, others={LINEAR: KDA}, feeds=by_feed_types(after_dense),
        experts=moe(num_shared_experts=size("num_shared_experts", 0), score_correction_bias=True),
        mtp=size("num_nextn_predict_layers", 0), inside=(LINEAR_CONFIG,),
        defaults=PLAIN | UNBIASED | {
            "linear_num_heads": 32, "linear_head_dim": 128, "linear_conv_kernel_dim": 4, "num_nextn_predict_layers": 0,
            "first_k_dense_replace": 1, "q_lora_rank": None, "mla_use_nope": True,
        },
        aliases=LOCAL_EXPERTS | {
            f"{LINEAR_CONFIG}.num_heads": "linear_num_heads", f"{LINEAR_CONFIG}.head_dim": "linear_head_dim",
            f"{LINEAR_CONFIG}.short_conv_kernel_size": "linear_conv_kernel_dim", "model_max_length": "max_position_embeddings",
            "num_experts_per_token": "num_experts_per_tok", "n_shared_experts": "num_shared_experts",
        },
        only={"mla_use_nope": (True,), "moe_layer_freq": (1,), "num_key_value_heads": one_per_head},
        idle=LATENT | NO_DENSE | {
            "first_k_dense_replace": "mlp_layer_types says it", "moe_renormalize": "how experts are picked",
            "moe_router_activation_func": "how experts are picked", "num_expert_group": "how experts are picked",
            "use_grouped_topk": "how experts are picked", f"{LINEAR_CONFIG}.full_attn_layers": "layer_types says it",
            f"{LINEAR_CONFIG}.kda_layers": "layer_types says it",
        },
    ),
    "minimax": Recipe(
        "MiniMaxForCausalLM", gqa(rotary_dim=optional("rotary_dim")), interval(LINEAR, 2, full_at=0), others={LINEAR: LIGHTNING},
        feeds=always, experts=moe("intermediate_size"), aliases=LOCAL_EXPERTS,
        defaults=PLAIN | {"num_key_value_heads": 8, "block_size": 256, "rotary_dim": None},
        only={"sliding_window": (None,), "attention_bias": (False,), "shared_intermediate_size": (0, None)},
        idle={
            f"{part}_{factor}_factor": "a constant of the implementation"
            for part in ("full_attn", "linear_attn", "mlp") for factor in ("alpha", "beta")
        },
    ),
    "qwen3_5_text": Recipe("Qwen3_5ForCausalLM", **QWEN35_MIXERS, defaults=QWEN35, only=QWEN35_ONLY, idle=QWEN35_IDLE),
    "qwen3_5_moe_text": Recipe(
        "Qwen3_5MoeForCausalLM", **QWEN35_MIXERS, feeds=always, experts=moe(**GATED_SHARED), defaults=QWEN35 | QWEN35_MOE,
        aliases=LOCAL_EXPERTS, only=QWEN35_ONLY, idle=QWEN35_IDLE | NO_DENSE,
    ),
    "qwen3_5": Nested(
        "Qwen3_5ForConditionalGeneration", "qwen3_5_text", replace(QWEN3_VL, only={**QWEN3_VL.only, **called("qwen3_5")}), UNTIED
    ),
    "qwen3_5_moe": Nested(
        "Qwen3_5MoeForConditionalGeneration", "qwen3_5_moe_text",
        replace(QWEN3_VL, only={**QWEN3_VL.only, **called("qwen3_5_moe")}), UNTIED,
    ),
}  # fmt: skip
