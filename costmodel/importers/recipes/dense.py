"""Model types whose layers are attention and one dense feed-forward layer."""

from __future__ import annotations

from costmodel.importers.fields import flag, size
from costmodel.importers.recipes.base import (
    FULL,
    NO_BIAS,
    NO_SLIDING,
    OWN_HEADS,
    PLAIN,
    SLIDING,
    SWITCHED,
    TIED,
    TYPED,
    UNBIASED,
    Nested,
    Recipe,
    _switched_window,
    biased,
    by_type,
    fourfold,
    gqa,
    heads,
    interval,
    last_windowed,
    mlp,
    rotary,
    shared_out,
    windowed,
)  # fmt: skip
from costmodel.importers.recipes.towers import SIGLIP

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
    "qwen2": Recipe(
        "Qwen2ForCausalLM", gqa(qkv_bias=True), by_type(last_windowed, FULL, SLIDING), _switched_window,
        defaults=PLAIN | SWITCHED, idle=NO_SLIDING,
    ),
    "qwen3": Recipe(
        "Qwen3ForCausalLM", biased(qk_norm="head"), by_type(last_windowed, FULL, SLIDING), _switched_window,
        defaults=PLAIN | UNBIASED | SWITCHED | {"head_dim": 128}, idle=NO_SLIDING,
    ),
    "gemma3_text": Recipe(
        "Gemma3ForCausalLM", biased(qk_norm="head"), interval(SLIDING, "sliding_window_pattern"), norm={"placement": "sandwich"},
        defaults=TIED | UNBIASED | GEMMA3, idle=NO_SLIDING | TYPED,
        aliases={"hidden_activation": "hidden_act", "_sliding_window_pattern": "sliding_window_pattern"},
        only={"attn_logit_softcapping": (None,), "final_logit_softcapping": (None,), "use_bidirectional_attention": (False, None)},
    ),
    "gemma3": Nested("Gemma3ForConditionalGeneration", "gemma3_text", SIGLIP, TIED | {"mm_tokens_per_image": 256}),
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
    "olmo2": Recipe(
        "Olmo2ForCausalLM", biased(qk_norm="full"), norm={"placement": "post"},
        defaults=PLAIN | UNBIASED | {"num_key_value_heads": heads},
    ),
    "olmo3": Recipe(
        "Olmo3ForCausalLM", biased(qk_norm="full"), interval(SLIDING, 4), norm={"placement": "post"},
        defaults=PLAIN | UNBIASED | {"num_key_value_heads": heads, "sliding_window": 4096}, idle=NO_SLIDING,
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
