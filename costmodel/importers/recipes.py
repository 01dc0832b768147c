"""One entry for each `model_type`: which of its fields become which of ours, and what the implementation takes for a missing one.

One more type of a known family is one more entry. Checked against the classes of `transformers`, which is not imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from costmodel.importers.fields import Fields, Source, flag, optional, size

Block = Mapping[str, Any]
FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"
ACTIVATIONS = {
    "silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu",
    "relu2": "relu2",
}  # fmt: skip


# which mixer, and which feed-forward layer, each layer has

Mixers = Callable[[Fields, int], Sequence[str]]
Sparse = Callable[[Fields, int], Sequence[bool]]


def full(fields: Fields, depth: int) -> list[str]:
    """Full attention in every layer."""
    return [FULL] * depth


def windowed(fields: Fields, depth: int) -> list[str]:
    """A sliding window in every layer, or in none."""
    return [SLIDING if fields.optional("sliding_window") else FULL] * depth


def by_type(otherwise: Mixers, *kinds: str) -> Mixers:
    """`layer_types` where the config has it."""
    known = {kind: kind for kind in kinds}
    return lambda fields, depth: (
        fields.choices("layer_types", known, depth) if fields.given("layer_types") else otherwise(fields, depth)
    )


def interval(kind: str, period: str | int, full_at: int = -1) -> Mixers:
    """`kind` in every layer but one of each `period`, a number or the field that states it; that one is the last or the first."""

    def mixers(fields: Fields, depth: int) -> list[str]:
        length = fields.size(period) if isinstance(period, str) else period
        return [FULL if place % length == full_at % length else kind for place in range(depth)]

    return by_type(mixers, FULL, kind)


def last_windowed(fields: Fields, depth: int) -> list[str]:
    """A window from layer `max_window_layers` on, where one is switched on."""
    if _switched_window(fields) is None:
        return [FULL] * depth
    first = fields.size("max_window_layers", 0)
    return [SLIDING if place >= first else FULL for place in range(depth)]


def _switched_window(fields: Fields) -> int | None:
    return fields.optional("sliding_window") if fields.flag("use_sliding_window") else None


def never(fields: Fields, depth: int) -> list[bool]:
    """Every layer dense."""
    return [False] * depth


def always(fields: Fields, depth: int) -> list[bool]:
    """Every layer a mixture."""
    return [True] * depth


def after_dense(fields: Fields, depth: int) -> list[bool]:
    """Mixtures after the first `first_k_dense_replace` layers."""
    first = fields.size("first_k_dense_replace", 0)
    return [place >= first for place in range(depth)]


def every_step(fields: Fields, depth: int) -> list[bool]:
    """A mixture in every `decoder_sparse_step`-th layer, but not in `mlp_only_layers`."""
    step, dense = fields.size("decoder_sparse_step"), fields.places("mlp_only_layers")
    return [(place + 1) % step == 0 and place not in dense for place in range(depth)]


# blocks

WINDOW = optional("sliding_window")


def activation(fields: Fields) -> str:
    """Our name of `hidden_act`."""
    return fields.choice("hidden_act", ACTIVATIONS)


def rotary(fields: Fields) -> int | None:
    """Elements of a head that rope turns, None for all of them."""
    share = fields.fraction("partial_rotary_factor")
    return None if share == 1 else int(fields.size("head_dim") * share)


def switched_norm(fields: Fields) -> str | None:
    """Norms of queries and keys where `use_qk_norm` is true."""
    return "head" if fields.flag("use_qk_norm") else None


def gqa(**others: Any) -> Block:
    """Grouped-query attention."""
    sizes = ("num_attention_heads", "num_key_value_heads", "head_dim")
    return {"kind": "gqa"} | {name: size(name) for name in sizes} | others


def biased(**others: Any) -> Block:
    """Grouped-query attention whose `attention_bias` means all four matrices."""
    return gqa(qkv_bias=flag("attention_bias"), o_bias=flag("attention_bias"), **others)


def mlp(**others: Any) -> Block:
    """A gated feed-forward layer."""
    return {"kind": "mlp", "intermediate_size": size("intermediate_size"), "activation": activation} | others


def moe(width: str = "moe_intermediate_size", **others: Any) -> Block:
    """A mixture of gated experts."""
    sizes = {"num_experts": size("num_experts"), "num_experts_per_tok": size("num_experts_per_tok")}
    return {"kind": "moe"} | sizes | {"moe_intermediate_size": size(width), "activation": activation} | others


MLA: Block = {
    "kind": "mla", "q_lora_rank": optional("q_lora_rank"), "attention_bias": flag("attention_bias"),
    **{name: size(name) for name in ("num_attention_heads", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")},
}  # fmt: skip
_DELTANET = ("num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim", "conv_kernel_dim")
DELTANET: Block = {"kind": "gated_deltanet"} | {f"linear_{name}": size(f"linear_{name}") for name in _DELTANET}


# defaults, and values that must be as they are


def heads(fields: Fields) -> int:
    """A key/value head for each query head."""
    return fields.size("num_attention_heads")


def shared_out(fields: Fields) -> int:
    """The model's width shared out to the heads."""
    width, count = fields.size("hidden_size"), fields.size("num_attention_heads")
    if width % count:
        fields.wrong("num_attention_heads", count, f"a divisor of the width {width:,}, or head_dim")
    return width // count


def fourfold(fields: Fields) -> int:
    """Four times the model's width."""
    return 4 * fields.size("hidden_size")


def one_per_head(fields: Fields) -> tuple[int | None, ...]:
    """Latent attention has no key/value heads of its own: configs repeat the number of heads."""
    return (fields.size("num_attention_heads"), None)


@dataclass(frozen=True)
class Recipe:
    """How the configs of one `model_type` are read.

    `only` holds values without which we would count wrongly; `idle` fields that a config may state and nothing may need.
    """

    implementation: str
    """The class that the config must name, where it names one."""
    attention: Block
    mixers: Mixers = full
    window: Source = WINDOW
    linear: Block = field(default_factory=dict)
    dense: Block = field(default_factory=mlp)
    sparse: Sparse = never
    experts: Block = field(default_factory=dict)
    norm: Block = field(default_factory=dict)
    positions: Source | None = None
    mtp: Source | int = 0
    defaults: Mapping[str, Any] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    only: Mapping[str, Any] = field(default_factory=dict)
    idle: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Nested:
    """A language model in `text_config` beside a vision tower in `vision_config`."""

    implementation: str
    text: str
    defaults: Mapping[str, Any]


@dataclass(frozen=True)
class Tower:
    """How a `vision_config` is read."""

    sizes: Block
    attention: Block
    feed_forward: Block
    defaults: Mapping[str, Any]
    only: Mapping[str, Any]


UNTIED = {"tie_word_embeddings": False}
TIED = {"tie_word_embeddings": True}
PLAIN = UNTIED | {"max_position_embeddings": None, "head_dim": shared_out, "hidden_act": "silu"}
UNBIASED = {"attention_bias": False}
NO_BIAS = {"attention_bias": (False,)}
OWN_HEADS: dict[str, Any] = {
    "head_dim": lambda fields: (shared_out(fields),),
    "num_key_value_heads": lambda fields: (heads(fields),),
}
"""An implementation that reads neither field: they may repeat what it makes of the others."""
NO_WINDOW = {"use_sliding_window": (False,), "layer_types": (None,)}
STEPS = {"decoder_sparse_step": 1, "mlp_only_layers": None}
SWITCHED = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}
NO_DENSE = {"intermediate_size": "no layer is dense"}
NO_SLIDING = dict.fromkeys(("sliding_window", "max_window_layers"), "no layer has a window")
TYPED = dict.fromkeys(("sliding_window_pattern", "full_attention_interval"), "layer_types says it")
LOCAL_EXPERTS = {"num_local_experts": "num_experts"}
ROUTED = {"n_routed_experts": "num_experts", **LOCAL_EXPERTS, "num_mtp_layers": "num_nextn_predict_layers"}
LATENT = {"head_dim": "the implementation takes qk_rope_head_dim", "qk_head_dim": "the sum of the two parts of a key"}

DEEPSEEK_V3 = Recipe(
    "DeepseekV3ForCausalLM", MLA, sparse=after_dense,
    experts=moe(num_shared_experts=size("n_shared_experts", 0), score_correction_bias=True),
    mtp=size("num_nextn_predict_layers", 0),
    defaults=PLAIN | UNBIASED | {"num_nextn_predict_layers": 1}, aliases=ROUTED, idle=LATENT | NO_DENSE,
    only={"moe_layer_freq": (1,), "topk_method": ("noaux_tc",), "num_key_value_heads": one_per_head},
)  # fmt: skip
GATED_SHARED: dict[str, Any] = {
    "num_shared_experts": 1, "shared_expert_intermediate_size": size("shared_expert_intermediate_size"), "shared_expert_gate": True,
}  # fmt: skip
GEMMA3 = {
    "hidden_size": 2304, "num_hidden_layers": 26, "intermediate_size": 9216, "vocab_size": 262_208, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh", "max_position_embeddings": 131_072,
    "sliding_window": 4096, "sliding_window_pattern": 6,
}  # fmt: skip
"""Published Gemma 3 configs leave out what equals these."""

RECIPES: dict[str, Recipe | Nested] = {
    "llama": Recipe(
        "LlamaForCausalLM", biased(), dense=mlp(bias=flag("mlp_bias")),
        defaults=PLAIN | UNBIASED | {"num_key_value_heads": heads, "mlp_bias": False}, only={"sliding_window": (None,)},
    ),
    "mistral": Recipe(
        "MistralForCausalLM", gqa(), windowed, defaults=PLAIN | {"num_key_value_heads": 8, "sliding_window": 4096}, only=NO_BIAS,
    ),
    "mixtral": Recipe(
        "MixtralForCausalLM", gqa(), windowed, sparse=always, experts=moe("intermediate_size"), aliases=LOCAL_EXPERTS,
        defaults=PLAIN | {"num_key_value_heads": 8, "sliding_window": None}, only=NO_BIAS,
    ),
    "qwen2": Recipe(
        "Qwen2ForCausalLM", gqa(qkv_bias=True), by_type(last_windowed, FULL, SLIDING), _switched_window,
        defaults=PLAIN | SWITCHED, idle=NO_SLIDING,
    ),
    "qwen2_moe": Recipe(
        "Qwen2MoeForCausalLM", gqa(qkv_bias=flag("qkv_bias")), sparse=every_step, experts=moe(**GATED_SHARED),
        defaults=PLAIN | STEPS | {"qkv_bias": True}, aliases=LOCAL_EXPERTS, only=NO_WINDOW, idle=NO_SLIDING | NO_DENSE,
    ),
    "qwen3": Recipe(
        "Qwen3ForCausalLM", biased(qk_norm="head"), by_type(last_windowed, FULL, SLIDING), _switched_window,
        defaults=PLAIN | UNBIASED | SWITCHED | {"head_dim": 128}, idle=NO_SLIDING,
    ),
    "qwen3_moe": Recipe(
        "Qwen3MoeForCausalLM", biased(qk_norm="head"), sparse=every_step, experts=moe(), defaults=PLAIN | UNBIASED | STEPS,
        aliases=LOCAL_EXPERTS, only=NO_WINDOW, idle=NO_SLIDING | NO_DENSE,
    ),
    "qwen3_next": Recipe(
        "Qwen3NextForCausalLM", biased(qk_norm="head", output_gate=True, rotary_dim=rotary),
        interval(LINEAR, "full_attention_interval"), linear=DELTANET, sparse=every_step, experts=moe(**GATED_SHARED), mtp=1,
        defaults=PLAIN | UNBIASED | STEPS | {"head_dim": 256, "partial_rotary_factor": 0.25, "full_attention_interval": 4},
        aliases=LOCAL_EXPERTS, only={"use_sliding_window": (False,)}, idle=NO_SLIDING | NO_DENSE | TYPED,
    ),
    "gemma3_text": Recipe(
        "Gemma3ForCausalLM", biased(qk_norm="head"), interval(SLIDING, "sliding_window_pattern"), norm={"placement": "sandwich"},
        defaults=TIED | UNBIASED | GEMMA3, idle=NO_SLIDING | TYPED,
        aliases={"hidden_activation": "hidden_act", "_sliding_window_pattern": "sliding_window_pattern"},
        only={"attn_logit_softcapping": (None,), "final_logit_softcapping": (None,), "use_bidirectional_attention": (False, None)},
    ),
    "gemma3": Nested("Gemma3ForConditionalGeneration", "gemma3_text", TIED | {"mm_tokens_per_image": 256}),
    "gpt2": Recipe(
        "GPT2LMHeadModel", gqa(rotary_dim=0, qkv_bias=True, o_bias=True), dense=mlp(gated=False, bias=True),
        norm={"kind": "layernorm", "bias": True}, positions=size("max_position_embeddings"),
        defaults=TIED | {
            "head_dim": shared_out, "num_key_value_heads": heads, "intermediate_size": fourfold, "hidden_act": "gelu_new",
            "max_position_embeddings": 1024,
        },
        aliases={
            "n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads",
            "n_inner": "intermediate_size", "n_positions": "max_position_embeddings", "n_ctx": "max_position_embeddings",
            "activation_function": "hidden_act",
        },
        only=OWN_HEADS,
    ),
    "deepseek_v2": Recipe(
        "DeepseekV2ForCausalLM", MLA, sparse=after_dense, experts=moe(num_shared_experts=size("n_shared_experts", 0)),
        defaults=PLAIN | UNBIASED | {"first_k_dense_replace": 0, "n_shared_experts": 2}, aliases=ROUTED, idle=LATENT | NO_DENSE,
        only={"moe_layer_freq": (1,), "mlp_bias": (False,), "topk_method": ("greedy", "group_limited_greedy"),
              "num_key_value_heads": one_per_head},
    ),
    "deepseek_v3": DEEPSEEK_V3,
    "kimi_k2": DEEPSEEK_V3,
    "glm4_moe": Recipe(
        "Glm4MoeForCausalLM",
        gqa(qkv_bias=flag("attention_bias"), rotary_dim=rotary, qk_norm=switched_norm),
        sparse=after_dense, experts=DEEPSEEK_V3.experts, mtp=DEEPSEEK_V3.mtp, aliases=ROUTED, idle=NO_DENSE,
        defaults=PLAIN | UNBIASED | {"use_qk_norm": False, "partial_rotary_factor": 0.5, "num_nextn_predict_layers": 1},
    ),
    "olmo3": Recipe(
        "Olmo3ForCausalLM", biased(qk_norm="full"), interval(SLIDING, 4), norm={"placement": "post"},
        defaults=PLAIN | UNBIASED | {"num_key_value_heads": heads, "sliding_window": 4096}, idle=NO_SLIDING,
    ),
    "gpt_oss": Recipe(
        "GptOssForCausalLM", biased(sinks=True), interval(SLIDING, 2), sparse=always,
        experts=moe("intermediate_size", router_bias=True, expert_bias=True),
        defaults=PLAIN | {"head_dim": 64, "sliding_window": 128, "attention_bias": True},
        aliases=LOCAL_EXPERTS | {"experts_per_token": "num_experts_per_tok"}, only={"hidden_act": ("silu",)}, idle=NO_SLIDING,
        notes=("the clamps, the factor and the addition in the experts' activation are not counted",),
    ),
    "phi3": Recipe(
        "Phi3ForCausalLM", gqa(rotary_dim=rotary), windowed,
        defaults=PLAIN | {"num_key_value_heads": heads, "sliding_window": None, "partial_rotary_factor": 1.0},
        only=NO_BIAS | {"mlp_bias": (False,), "lm_head_bias": (False,), "full_attn_mod": (1,), "interpolate_factor": (1,)},
    ),
    "cwm": Recipe(
        "CwmForCausalLM", gqa(), interval(SLIDING, 4, full_at=0), dense=mlp(bias=flag("mlp_bias")), idle=NO_SLIDING,
        defaults=PLAIN | {"head_dim": 128, "num_key_value_heads": 8, "sliding_window": 8192, "mlp_bias": False}, only=NO_BIAS,
    ),
}  # fmt: skip
"""How each `model_type` is read."""

SIGLIP = Tower(
    {name: size(name) for name in ("image_size", "patch_size", "num_channels", "hidden_size", "num_hidden_layers")},
    gqa(rotary_dim=0, qkv_bias=True, o_bias=True), mlp(gated=False, bias=True),
    defaults={
        "num_channels": 3, "hidden_act": "gelu_pytorch_tanh", "head_dim": shared_out, "num_key_value_heads": heads,
        "vision_use_head": True,
    },
    only=OWN_HEADS | {"vision_use_head": (False,), "model_type": ("siglip_vision_model",)},
)  # fmt: skip
"""The tower of Gemma 3."""
