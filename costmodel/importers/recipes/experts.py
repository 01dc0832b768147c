"""Model types whose layers are attention and a mixture of experts."""

from __future__ import annotations

from typing import Any

from costmodel.importers.fields import Fields, flag, optional, size
from costmodel.importers.recipes.base import (
    CHUNKED,
    DENSE,
    DSA,
    FULL,
    GATED_SHARED,
    LATENT,
    LOCAL_EXPERTS,
    MLA,
    NO_BIAS,
    NO_DENSE,
    NO_SLIDING,
    NO_WINDOW,
    PLAIN,
    ROUTED,
    SLIDING,
    SPARSE,
    STEPS,
    UNBIASED,
    UNTIED,
    Nested,
    Recipe,
    after_dense,
    always,
    biased,
    by_feed_types,
    every_step,
    gqa,
    heads,
    interval,
    mlp,
    moe,
    normed_by,
    one_per_head,
    rotary,
    windowed,
)  # fmt: skip
from costmodel.importers.recipes.towers import LLAMA4

DEEPSEEK_V3 = Recipe(
    "DeepseekV3ForCausalLM", MLA, feeds=after_dense,
    experts=moe(num_shared_experts=size("n_shared_experts", 0), score_correction_bias=True),
    mtp=size("num_nextn_predict_layers", 0),
    defaults=PLAIN | UNBIASED | {"num_nextn_predict_layers": 1}, aliases=ROUTED, idle=LATENT | NO_DENSE,
    only={"moe_layer_freq": (1,), "topk_method": ("noaux_tc",), "num_key_value_heads": one_per_head},
)  # fmt: skip
PICKED = "shared"
"""A layer of sparse attention that takes the tokens an earlier one picked."""


def indexed(fields: Fields, depth: int) -> list[str]:
    """An indexer in every layer."""
    known = {"indexed_attention": FULL}
    return fields.choices("layer_types", known, depth) if fields.given("layer_types") else [FULL] * depth


def some_indexed(fields: Fields, depth: int) -> list[str]:
    """An indexer in the layers that a list, a pattern or a period says; the others take the tokens of the one before."""
    indexed(fields, depth)
    if fields.given("indexer_types"):
        kinds = fields.choices("indexer_types", {"full": FULL, "shared": PICKED}, depth)
    elif fields.given("index_topk_pattern"):
        pattern = fields.value("index_topk_pattern")
        if not isinstance(pattern, str) or len(pattern) != depth or set(pattern) - {"F", "S"}:
            fields.wrong("index_topk_pattern", pattern, f"{depth:,} letters F or S, one a layer")
        kinds = [FULL if letter == "F" else PICKED for letter in pattern]
    else:
        period, offset = fields.size("index_topk_freq"), fields.size("index_skip_topk_offset", 0)
        kinds = [PICKED if max(place - offset + 1, 0) % period else FULL for place in range(depth)]
    if kinds[0] == PICKED:
        fields.unmodelled("indexer_types", kinds[0], "the first layer has no earlier one to take tokens from")
    return kinds


def sparse_attention(implementation: str, index_heads: int, **others: Any) -> Recipe:
    """Latent attention over picked tokens; configs may leave out what equals the class's own indexer."""
    return Recipe(
        implementation, DSA, feeds=by_feed_types(after_dense), experts=DEEPSEEK_V3.experts, mtp=DEEPSEEK_V3.mtp, aliases=ROUTED,
        idle=LATENT | NO_DENSE | {"first_k_dense_replace": "mlp_layer_types says it"},
        defaults=PLAIN | UNBIASED | {
            "num_nextn_predict_layers": 1, "index_n_heads": index_heads, "index_head_dim": 128, "index_topk": 2048,
            "index_topk_freq": 1, "index_skip_topk_offset": 2,
        },
        only={**DEEPSEEK_V3.only, "mlp_bias": (False,)}, **others,
    )  # fmt: skip


SHARED_KV = "shared-kv"


def sharing(fields: Fields, depth: int) -> list[str]:
    """Of each `cla_share_factor` layers the first has keys and values of its own, and the others read them."""
    factor = fields.size("cla_share_factor") if fields.flag("use_cla") else 1
    return [SHARED_KV if place % factor else FULL for place in range(depth)]


def if_several(fields: Fields, depth: int) -> list[str]:
    """Mixtures in all layers where there is more than one expert."""
    return [SPARSE if fields.size("num_experts") > 1 else DENSE] * depth


def shared_if_mixed(fields: Fields) -> int:
    """Shared experts, where Hunyuan mixes them with the routed ones."""
    return fields.size("num_shared_expert") if fields.flag("use_mixed_mlp_moe") else 0


HUNYUAN = biased(qk_norm=normed_by("use_qk_norm"))
ONE_EXPERT = dict.fromkeys(("moe_topk", "num_shared_expert", "use_mixed_mlp_moe"), "there is one expert")
DROPPING = dict.fromkeys(("moe_drop_tokens", "moe_random_routing_dropped_token", "capacity_factor"), "how experts are picked")


def without_rope(fields: Fields, depth: int) -> list[str]:
    """Full attention without rope where `no_rope_layers` says 0, in every fourth layer unless told; chunks elsewhere."""
    if fields.given("no_rope_layers"):
        turned = fields.bits("no_rope_layers", depth)
    else:
        period = fields.size("no_rope_layer_interval")
        turned = [int((place + 1) % period != 0) for place in range(depth)]
    kinds = [CHUNKED if rope else FULL for rope in turned]
    if fields.given("layer_types") and fields.choices("layer_types", {CHUNKED: CHUNKED, FULL: FULL}, depth) != kinds:
        fields.unmodelled("layer_types", fields.value("layer_types"), "only chunks where a layer has rope are")
    return kinds


def interleaved(fields: Fields, depth: int) -> list[str]:
    """Mixtures in `moe_layers`, or in the last of each `interleave_moe_layer_step` layers."""
    if fields.given("moe_layers"):
        mixed = fields.places("moe_layers")
        return [SPARSE if place in mixed else DENSE for place in range(depth)]
    step = fields.size("interleave_moe_layer_step")
    return [SPARSE if (place + 1) % step == 0 else DENSE for place in range(depth)]


def unweighted(fields: Fields) -> str | None:
    """Norms of queries and keys without weights."""
    return "unweighted" if fields.flag("use_qk_norm") else None


def sixth_full(fields: Fields, depth: int) -> list[str]:
    """Full attention in the first layer and in every sixth, a window elsewhere, or what `layer_types` says."""
    if fields.given("layer_types"):
        return fields.choices("layer_types", {FULL: FULL, SLIDING: SLIDING}, depth)
    return [FULL if place == 0 or (place + 1) % 6 == 0 else SLIDING for place in range(depth)]


def all_but_first(fields: Fields, depth: int) -> list[str]:
    """A mixture in every layer but the first."""
    return [SPARSE if place else DENSE for place in range(depth)]


def twice_the_heads(fields: Fields) -> int:
    """Windowed layers have twice the key/value heads of full ones."""
    return 2 * fields.size("num_key_value_heads")


MIMO = gqa(v_head_dim=size("v_head_dim"), qkv_bias=flag("attention_bias"), rotary_dim=rotary)
RECIPES: dict[str, Recipe | Nested] = {
    "hunyuan": Recipe(
        "HunYuanForCausalLM", HUNYUAN, sharing,
        others={SHARED_KV: {**HUNYUAN, "shares_kv": True, "own_key_norm": flag("use_qk_norm")}}, feeds=if_several,
        experts=moe("intermediate_size", num_shared_experts=shared_if_mixed),
        defaults=PLAIN | UNBIASED | {
            "num_key_value_heads": heads, "use_qk_norm": False, "use_cla": False, "cla_share_factor": 1, "num_experts": 1,
            "num_experts_per_tok": 1, "use_mixed_mlp_moe": False, "num_shared_expert": 1,
        },
        aliases={"moe_topk": "num_experts_per_tok", "attention_head_dim": "head_dim"}, only={"mlp_bias": (False,)},
        idle=ONE_EXPERT | DROPPING | {"cla_share_factor": "each layer has keys and values of its own"},
    ),
    "mixtral": Recipe(
        "MixtralForCausalLM", gqa(), windowed, feeds=always, experts=moe("intermediate_size"), aliases=LOCAL_EXPERTS,
        defaults=PLAIN | {"num_key_value_heads": 8, "sliding_window": None}, only=NO_BIAS,
    ),
    "qwen2_moe": Recipe(
        "Qwen2MoeForCausalLM", gqa(qkv_bias=flag("qkv_bias")), feeds=every_step, experts=moe(**GATED_SHARED),
        defaults=PLAIN | STEPS | {"qkv_bias": True}, aliases=LOCAL_EXPERTS, only=NO_WINDOW, idle=NO_SLIDING | NO_DENSE,
    ),
    "qwen3_moe": Recipe(
        "Qwen3MoeForCausalLM", biased(qk_norm="head"), feeds=every_step, experts=moe(), defaults=PLAIN | UNBIASED | STEPS,
        aliases=LOCAL_EXPERTS, only=NO_WINDOW, idle=NO_SLIDING | NO_DENSE,
    ),
    "deepseek_v2": Recipe(
        "DeepseekV2ForCausalLM", MLA, feeds=after_dense, experts=moe(num_shared_experts=size("n_shared_experts", 0)),
        defaults=PLAIN | UNBIASED | {"first_k_dense_replace": 0, "n_shared_experts": 2}, aliases=ROUTED, idle=LATENT | NO_DENSE,
        only={"moe_layer_freq": (1,), "mlp_bias": (False,), "topk_method": ("greedy", "group_limited_greedy"),
              "num_key_value_heads": one_per_head},
    ),
    "deepseek_v3": DEEPSEEK_V3,
    "kimi_k2": DEEPSEEK_V3,
    "deepseek_v32": sparse_attention("DeepseekV32ForCausalLM", 64, mixers=indexed),
    "glm_moe_dsa": sparse_attention(
        "GlmMoeDsaForCausalLM", 32, mixers=some_indexed, others={PICKED: DSA | {"shares_topk": True}}
    ),
    "glm4_moe": Recipe(
        "Glm4MoeForCausalLM",
        gqa(qkv_bias=flag("attention_bias"), rotary_dim=rotary, qk_norm=normed_by("use_qk_norm")),
        feeds=after_dense, experts=DEEPSEEK_V3.experts, mtp=DEEPSEEK_V3.mtp, aliases=ROUTED, idle=NO_DENSE,
        defaults=PLAIN | UNBIASED | {"use_qk_norm": False, "partial_rotary_factor": 0.5, "num_nextn_predict_layers": 1},
    ),
    "gpt_oss": Recipe(
        "GptOssForCausalLM", biased(sinks=True), interval(SLIDING, 2), feeds=always,
        experts=moe("intermediate_size", router_bias=True, expert_bias=True),
        defaults=PLAIN | {"head_dim": 64, "sliding_window": 128, "attention_bias": True},
        aliases=LOCAL_EXPERTS | {"experts_per_token": "num_experts_per_tok"}, only={"hidden_act": ("silu",)}, idle=NO_SLIDING,
        notes=("the clamps, the factor and the addition in the experts' activation are not counted",),
    ),
    "mimo_v2_flash": Recipe(
        "MiMoV2FlashForCausalLM", MIMO, sixth_full,
        others={SLIDING: {**MIMO, "num_key_value_heads": twice_the_heads, "sliding_window": size("sliding_window"), "sinks": True}},
        feeds=by_feed_types(all_but_first), experts=moe(score_correction_bias=True), aliases=ROUTED, idle=NO_DENSE,
        defaults=PLAIN | UNBIASED | {
            "num_key_value_heads": 4, "head_dim": 192, "v_head_dim": 128, "sliding_window": 129, "num_experts": 256,
            "num_experts_per_tok": 8, "moe_intermediate_size": 2048, "partial_rotary_factor": 1.0,
        },
    ),
    "minimax_m2": Recipe(
        "MiniMaxM2ForCausalLM", gqa(qk_norm="full", rotary_dim=optional("rotary_dim")), feeds=always,
        experts=moe("intermediate_size", score_correction_bias=True), aliases=LOCAL_EXPERTS,
        defaults=PLAIN | {
            "num_key_value_heads": 8, "head_dim": 128, "rotary_dim": None, "num_experts_per_tok": 8, "num_experts": 256,
        },
        only={
            "attention_bias": (False,), "qk_norm_type": ("per_layer",), "use_qk_norm": (True,),
            "shared_intermediate_size": (0, None),
        },
        idle={"use_routing_bias": "how experts are picked"},
    ),
    "llama4_text": Recipe(
        "Llama4ForCausalLM", biased(rotary_dim=0), without_rope,
        others={CHUNKED: biased(qk_norm=unweighted, attention_chunk_size=optional("attention_chunk_size"))},
        feeds=interleaved, dense=mlp(intermediate_size=size("intermediate_size_mlp")),
        experts=moe("intermediate_size", num_shared_experts=1), aliases=LOCAL_EXPERTS,
        defaults=PLAIN | UNBIASED | {
            "head_dim": 128, "num_key_value_heads": 8, "use_qk_norm": True, "attention_chunk_size": 8192,
            "no_rope_layer_interval": 4,
            "interleave_moe_layer_step": 1, "num_experts_per_tok": 1, "num_experts": 16, "intermediate_size_mlp": 16_384,
        },
        idle={
            "intermediate_size_mlp": "no layer is dense", "interleave_moe_layer_step": "moe_layers says it",
            "no_rope_layer_interval": "no_rope_layers says it",
            **dict.fromkeys(("attn_temperature_tuning", "floor_scale", "attn_scale"), "a constant of the implementation"),
            "for_llm_compressor": "how it is run",
        },
    ),
    "llama4": Nested("Llama4ForConditionalGeneration", "llama4_text", LLAMA4, UNTIED),
}  # fmt: skip
