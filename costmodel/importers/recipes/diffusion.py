"""Model types of text diffusion: layers that look both ways."""

from __future__ import annotations

from costmodel.importers.fields import flag, size
from costmodel.importers.recipes.base import (
    NO_BIAS,
    NO_SLIDING,
    PLAIN,
    SWITCHED,
    Nested,
    Recipe,
    both_ways,
    by_flags,
    heads,
    mlp,
    moe,
    normed_by,
)  # fmt: skip

RECIPES: dict[str, Recipe | Nested] = {
    "llada": Recipe(
        "LLaDAModelLM", both_ways(qkv_bias=flag("include_qkv_bias")), diffusion={},
        defaults=PLAIN | {"include_qkv_bias": False, "num_key_value_heads": heads},
        aliases={
            "d_model": "hidden_size", "n_heads": "num_attention_heads", "n_kv_heads": "num_key_value_heads",
            "n_layers": "num_hidden_layers", "mlp_hidden_size": "intermediate_size",
            "max_sequence_length": "max_position_embeddings",
            "embedding_size": "vocab_size", "weight_tying": "tie_word_embeddings", "activation_type": "hidden_act",
        },
        only={
            "block_type": ("llama",), "alibi": (False,), "rope": (True,), "include_bias": (False,), "layer_norm_type": ("rms",),
        },
    ),
    "llada_moe": Recipe(
        "LLaDAMoEModelLM", both_ways(qk_norm=normed_by("qk_layernorm")), diffusion={}, feeds=by_flags("moe_layer_freq"),
        dense=mlp(intermediate_size=size("dense_intermediate_size")), experts=moe("expert_intermediate_size"),
        defaults=PLAIN | {"num_key_value_heads": heads, "qk_layernorm": False}, only=NO_BIAS,
        idle={"dense_intermediate_size": "no layer is dense"},
        notes=("the norm of queries and keys is one weight of head_dim, after the published class; its config does not say",),
    ),
    "Dream": Recipe(
        "DreamModel", both_ways(qkv_bias=True), diffusion={}, defaults=PLAIN | SWITCHED | {"num_key_value_heads": heads},
        only={"use_sliding_window": (False,), "sliding_window": (None, 4096)}, idle=NO_SLIDING,
    ),
}  # fmt: skip
