"""Model types with Mamba layers, alone or among attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil

from costmodel.importers.fields import Fields, flag, size
from costmodel.importers.recipes.base import (
    DENSE,
    FULL,
    LOCAL_EXPERTS,
    NO_BIAS,
    NO_DENSE,
    NONE,
    PLAIN,
    SPARSE,
    TIED,
    UNBIASED,
    Block,
    Kinds,
    Nested,
    Recipe,
    activation,
    biased,
    fourfold,
    gqa,
    heads,
    mlp,
    moe,
    nothing,
)  # fmt: skip

MAMBA, MAMBA2 = "mamba", "mamba2"


# blocks


def channels(fields: Fields) -> int:
    """Channels of a Mamba layer: the model's width, expanded."""
    return fields.size("expand") * fields.size("hidden_size")


def step_rank(fields: Fields) -> int:
    """A sixteenth of the model's width unless the config says another."""
    return ceil(fields.size("hidden_size") / 16) if fields.value("time_step_rank") == "auto" else fields.size("time_step_rank")


def width_over(whole: Callable[[Fields], int]) -> Callable[[Fields], int]:
    """Width of a Mamba-2 head: `auto` shares out the channels."""

    def width(fields: Fields) -> int:
        if fields.value("mamba_head_dim") == "auto":
            return max(whole(fields) // fields.size("mamba_num_heads"), 1)
        return fields.size("mamba_head_dim")

    return width


def heads_over(whole: Callable[[Fields], int]) -> Callable[[Fields], int]:
    """Mamba-2 heads, which must make up the channels."""

    def count_of(fields: Fields) -> int:
        count, width, channels = fields.size("mamba_num_heads"), width_over(whole)(fields), whole(fields)
        if count * width != channels:
            fields.wrong("mamba_num_heads", count, f"as many heads of {width:,} as make up {channels:,} channels")
        return count

    return count_of


SELECTIVE: Block = {
    "kind": "mamba", "d_inner": channels, "ssm_state_size": size("ssm_state_size"), "time_step_rank": step_rank,
    "conv_kernel": size("conv_kernel"), "conv_bias": flag("use_conv_bias"), "proj_bias": flag("use_bias"),
}  # fmt: skip
HEADED: Block = {
    "kind": "mamba2", "mamba_num_heads": size("mamba_num_heads"), "mamba_head_dim": width_over(channels),
    **{name: size(name) for name in ("ssm_state_size", "n_groups", "conv_kernel", "chunk_size")},
    "conv_bias": flag("use_conv_bias"), "in_proj_bias": flag("use_bias"), "out_proj_bias": flag("use_bias"),
}  # fmt: skip
FILLING: Block = {**HEADED, "mamba_num_heads": heads_over(channels)}


# which layers have what


def every(kind: str) -> Kinds:
    """The same kind of mixer in each layer."""
    return lambda fields, depth: [kind] * depth


def periodic(name: str, kind: str, otherwise: str) -> Kinds:
    """`kind` once in each period that `{name}_period` states, at `{name}_offset`."""

    def kinds(fields: Fields, depth: int) -> list[str]:
        period = fields.size(f"{name}_period")
        offset = fields.size(f"{name}_offset", 0, period - 1)
        return [kind if place % period == offset else otherwise for place in range(depth)]

    return kinds


def mixtures_at_places(fields: Fields, depth: int) -> Sequence[str]:
    """Jamba's mixtures; with one expert a layer is dense."""
    return periodic("expert_layer", SPARSE, DENSE)(fields, depth) if fields.size("num_experts") > 1 else [DENSE] * depth


def mixtures_if_any(fields: Fields, depth: int) -> list[str]:
    """A mixture in each layer, unless there are 0 experts."""
    return [SPARSE if fields.size("num_experts", 0) else DENSE] * depth


def side_channels(fields: Fields) -> int:
    """Channels beside attention: `mamba_d_ssm`, or the model's width, expanded."""
    return channels(fields) if fields.value("mamba_d_ssm") is None else fields.size("mamba_d_ssm")


SIDE_BY_SIDE: Block = {
    **biased(), **HEADED, "kind": "parallel_hybrid", "mamba_num_heads": heads_over(side_channels),
    "mamba_head_dim": width_over(side_channels),
    "gated_norm": flag("mamba_rms_norm"), "out_proj_bias": flag("projectors_bias"),
}  # fmt: skip
MULTIPLIED = dict.fromkeys(
    ("lm_head_multiplier", "embedding_multiplier", "mlp_multipliers", "key_multiplier", "attention_out_multiplier",
     "attention_in_multiplier", "ssm_multipliers", "ssm_in_multiplier", "ssm_out_multiplier"),
    "a constant of the implementation",
)  # fmt: skip
SHARED = "shared"


def shared_before(fields: Fields, depth: int) -> list[str]:
    """A shared block before the Mamba layer of each hybrid layer: two layers here, one in the config."""
    hybrids = fields.choices("layer_types", {"mamba": MAMBA2, "linear_attention": MAMBA2, "hybrid": SHARED}, depth)
    return [kind for layer in hybrids for kind in ([SHARED, MAMBA2] if layer == SHARED else [MAMBA2])]


def stored_blocks(fields: Fields) -> int:
    """Shared blocks, of which there are no more than hybrid layers."""
    hybrids: int = fields.value("layer_types").count("hybrid")
    return min(fields.size("num_mem_blocks"), hybrids)


def twice_shared_out(fields: Fields) -> int:
    """Twice the model's width shared out to the heads."""
    width, count = 2 * fields.size("hidden_size"), fields.size("num_attention_heads")
    if width % count:
        fields.wrong("num_attention_heads", count, f"a divisor of {width:,}")
    return width // count


def adapted_heads(fields: Fields) -> int:
    """Key/value heads: with adapters, which the implementation makes as wide as those of queries, one for each query head."""
    count: int = fields.size("num_key_value_heads")
    if fields.flag("use_shared_attention_adapter") and count != heads(fields):
        fields.unmodelled("num_key_value_heads", count, f"only {heads(fields):,} is, beside adapters on queries, keys and values")
    return count


SHARING: Block = {
    **gqa(num_key_value_heads=adapted_heads), "kind": "shared_transformer",
    "intermediate_size": size("intermediate_size"), "adapter_rank": size("adapter_rank"),
    "attention_adapter": flag("use_shared_attention_adapter"), "rope": flag("use_mem_rope"), "mlp_bias": flag("add_bias_linear"),
    "activation": activation,
}  # fmt: skip
ZAMBA: Block = {
    **FILLING, "conv_bias": True, "in_proj_bias": flag("add_bias_linear"), "out_proj_bias": flag("add_bias_linear"),
}  # fmt: skip
TYPES = {"mamba": MAMBA2, "linear_attention": MAMBA2, "attention": FULL, "full_attention": FULL}


def granite_mixers(fields: Fields, depth: int) -> list[str]:
    """`layer_types`; Mamba-2 in each layer without them."""
    return fields.choices("layer_types", TYPES, depth) if fields.given("layer_types") else [MAMBA2] * depth


LAYERS = {"M": (MAMBA2, NONE), "*": (FULL, NONE), "-": (NONE, DENSE), "E": (NONE, SPARSE)}
"""Nemotron-H's layers, each with one part, by their character in the pattern."""
CHARACTERS = {"mamba": "M", "linear_attention": "M", "attention": "*", "full_attention": "*", "mlp": "-", "moe": "E"}


def characters(fields: Fields, depth: int) -> Sequence[str]:
    """A character of `LAYERS` for each layer: from a list of names, or from the pattern."""
    if fields.given("layer_types"):
        return fields.choices("layer_types", CHARACTERS, depth)
    pattern = fields.value("hybrid_override_pattern")
    if not isinstance(pattern, str) or len(pattern) != depth:
        fields.wrong("hybrid_override_pattern", pattern, f"a character for each of {depth:,} layers")
    for unknown in sorted(set(pattern) - set(LAYERS)):
        fields.unmodelled("hybrid_override_pattern", unknown, f"only {', '.join(LAYERS)} are")
    return pattern


def in_pattern(part: int) -> Kinds:
    """The mixers (0) or the feed-forward layers (1) of the pattern."""
    return lambda fields, depth: [LAYERS[character][part] for character in characters(fields, depth)]


def pattern_length(fields: Fields) -> int:
    """As many layers as the pattern has."""
    pattern = fields.value("layer_types" if fields.given("layer_types") else "hybrid_override_pattern")
    return len(pattern) if isinstance(pattern, (str, list)) else 0


# what is taken for granted

TIME: dict[str, str] = {
    f"time_step_{name}": "how steps are initialised and bounded"
    for name in ("min", "max", "floor", "limit", "scale", "init_scheme")
}
RUN: dict[str, str] = dict.fromkeys(
    ("use_mambapy", "use_associative_scan", "use_mamba_kernels", "num_logits_to_keep", "residual_in_fp32", "fused_add_norm",
     "pad_vocab_size_multiple"), "how it is run",
) | {"rescale_prenorm_residual": "for training alone"}  # fmt: skip
SCALED: dict[str, str] = dict.fromkeys(
    ("embedding_multiplier", "logits_scaling", "residual_multiplier", "attention_multiplier"), "a constant of the implementation"
)
NO_EXPERTS = dict.fromkeys(("num_experts_per_tok", "intermediate_size"), "no layer has experts")
NO_MIXTURE = dict.fromkeys(
    ("num_experts", "num_experts_per_tok", "moe_intermediate_size", "moe_shared_expert_intermediate_size", "n_routed_experts"),
    "no layer is a mixture",
)  # fmt: skip
SILU = {"hidden_act": ("silu", "swish")}
SHORT_NAMES = {
    "mamba_d_state": "ssm_state_size", "mamba_d_conv": "conv_kernel", "mamba_expand": "expand", "mamba_conv_bias": "use_conv_bias",
}  # fmt: skip
MIXED = {"expand": 2, "conv_kernel": 4, "use_conv_bias": True, "use_bias": False}

RECIPES: dict[str, Recipe | Nested] = {
    "mamba": Recipe(
        "MambaForCausalLM", mixers=every(MAMBA), others={MAMBA: SELECTIVE}, feeds=nothing,
        defaults=PLAIN | TIED | MIXED | {"time_step_rank": "auto"},
        aliases={"state_size": "ssm_state_size", "d_inner": "intermediate_size", "d_model": "hidden_size",
                 "n_layer": "num_hidden_layers"},
        only=SILU | {"intermediate_size": lambda fields: (channels(fields),), "rms_norm": (True,), "ssm_cfg": ({},)},
        idle=TIME | RUN,
    ),
    "mamba2": Recipe(
        "Mamba2ForCausalLM", mixers=every(MAMBA2), others={MAMBA2: FILLING}, feeds=nothing,
        defaults=PLAIN | MIXED | {"chunk_size": 256},
        aliases={"state_size": "ssm_state_size", "num_heads": "mamba_num_heads", "head_dim": "mamba_head_dim"},
        only=SILU, idle=TIME | RUN | {"time_step_rank": "Mamba-2 has a step for each head"},
    ),
    "jamba": Recipe(
        "JambaForCausalLM", gqa(rotary_dim=0), periodic("attn_layer", FULL, MAMBA),
        others={MAMBA: {**SELECTIVE, "step_norms": True}}, feeds=mixtures_at_places, experts=moe("intermediate_size"),
        defaults=PLAIN | MIXED | {
            "num_key_value_heads": heads, "expert_layer_period": 2, "expert_layer_offset": 1, "attn_layer_period": 8,
            "attn_layer_offset": 4, "time_step_rank": "auto",
        },
        aliases=LOCAL_EXPERTS | SHORT_NAMES | {"mamba_proj_bias": "use_bias", "mamba_dt_rank": "time_step_rank"},
        only=SILU | {"sliding_window": (None,), "mamba_inner_layernorms": (True,)},
        idle=RUN | NO_EXPERTS | {"calc_logits_for_entire_prompt": "how it is run"},
    ),
    "nemotron_h": Recipe(
        "NemotronHForCausalLM", gqa(rotary_dim=0), in_pattern(0), others={MAMBA2: HEADED}, feeds=in_pattern(1),
        dense=mlp(gated=False),
        experts=moe(gated=False, num_shared_experts=1, score_correction_bias=True,
                    shared_expert_intermediate_size=size("moe_shared_expert_intermediate_size")),
        defaults=PLAIN | MIXED | {
            "num_hidden_layers": pattern_length, "num_key_value_heads": 8, "head_dim": 128, "hidden_act": "relu2",
            "chunk_size": 128,
        },
        aliases={
            "layers_block_type": "layer_types", "attention_head_dim": "head_dim", "mlp_hidden_act": "hidden_act",
            "n_routed_experts": "num_experts", "num_local_experts": "num_experts", "mamba_n_groups": "n_groups",
            "mamba_d_conv": "conv_kernel", "mamba_expand": "expand", "mamba_conv_bias": "use_conv_bias",
            "mamba_chunk_size": "chunk_size",
        },
        only=NO_BIAS | {
            "mamba_hidden_act": ("silu", "swish"), "mamba_proj_bias": (False,), "mlp_bias": (False,), "sliding_window": (None,),
            "moe_latent_size": (None,), "num_nextn_predict_layers": (0,), "n_shared_experts": (1,),
        },
        idle=TIME | RUN | NO_DENSE | NO_MIXTURE | {
            "expand": "mamba_num_heads and mamba_head_dim say it", "time_step_rank": "Mamba-2 has a step for each head",
            "partial_rotary_factor": "attention has no rope", "hybrid_override_pattern": "layers_block_type says it",
            "mamba_ssm_cache_dtype": "the format of the state; choose a precision",
            "moe_shared_expert_overlap": "how it is run", "mtp_layers_block_type": "no module predicts more tokens",
            "mtp_hybrid_override_pattern": "no module predicts more tokens",
        },
    ),
    "granitemoehybrid": Recipe(
        "GraniteMoeHybridForCausalLM",
        biased(rotary_dim=lambda fields: None if fields.value("position_embedding_type") == "rope" else 0),
        granite_mixers, others={MAMBA2: FILLING}, feeds=mixtures_if_any,
        dense=mlp(intermediate_size=size("shared_intermediate_size")),
        experts=moe("intermediate_size", num_shared_experts=1, shared_expert_intermediate_size=size("shared_intermediate_size")),
        defaults=PLAIN | UNBIASED | MIXED | {
            "num_key_value_heads": heads, "position_embedding_type": None, "mamba_head_dim": "auto", "chunk_size": 256,
        },
        aliases=LOCAL_EXPERTS | SHORT_NAMES | {
            "layers_block_type": "layer_types", "mamba_n_heads": "mamba_num_heads", "mamba_d_head": "mamba_head_dim",
            "mamba_n_groups": "n_groups", "mamba_chunk_size": "chunk_size", "mamba_proj_bias": "use_bias",
        },
        only=SILU | {"normalization_function": ("rmsnorm",), "position_embedding_type": (None, "nope", "rope")},
        idle=TIME | RUN | SCALED | NO_EXPERTS,
    ),
    "falcon_h1": Recipe(
        "FalconH1ForCausalLM", SIDE_BY_SIDE, dense=mlp(bias=flag("mlp_bias")),
        defaults=PLAIN | UNBIASED | MIXED | {
            "mamba_head_dim": "auto", "chunk_size": 256, "mamba_rms_norm": False, "projectors_bias": False, "mlp_bias": False,
        },
        aliases=SHORT_NAMES | {
            "mamba_n_heads": "mamba_num_heads", "mamba_d_head": "mamba_head_dim",
            "mamba_n_groups": "n_groups", "mamba_chunk_size": "chunk_size", "mamba_proj_bias": "use_bias",
        },
        only=SILU,
        idle=TIME | RUN | MULTIPLIED | {
            "mamba_expand": "mamba_d_ssm says it", "mamba_norm_before_gate": "the order of two operations",
        },
    ),
    "zamba2": Recipe(
        "Zamba2ForCausalLM", mixers=shared_before, others={SHARED: SHARING, MAMBA2: ZAMBA}, feeds=nothing,
        groups={SHARED: {"shared": stored_blocks, "norm": {"placement": "none"}}},
        defaults=TIED | MIXED | {
            "max_position_embeddings": 4096, "hidden_act": "gelu", "intermediate_size": fourfold, "num_key_value_heads": heads,
            "head_dim": twice_shared_out, "mamba_head_dim": "auto", "n_groups": 1, "ssm_state_size": 64, "mamba_num_heads": 8,
            "chunk_size": 256, "num_mem_blocks": 1, "use_shared_attention_adapter": False, "adapter_rank": 128,
            "use_mem_rope": False, "add_bias_linear": False, "expand": 2,
        },
        aliases=SHORT_NAMES | {
            "layers_block_type": "layer_types", "n_mamba_heads": "mamba_num_heads", "mamba_headdim": "mamba_head_dim",
            "mamba_ngroups": "n_groups", "attention_head_dim": "head_dim",
        },
        only={
            "head_dim": lambda fields: (twice_shared_out(fields),),
            "use_conv_bias": (True,), "attention_hidden_size": lambda fields: (2 * fields.size("hidden_size"),),
        },
        idle=TIME | RUN | {
            "hybrid_layer_ids": "layer_types says it", "use_mem_eff_path": "how it is run", "use_long_context": "constants of rope",
            "kv_channels": "the implementation takes head_dim", "num_query_groups": "the implementation takes num_key_value_heads",
        },
    ),
}  # fmt: skip
