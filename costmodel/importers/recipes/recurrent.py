"""Model types without attention: every layer holds a state that does not grow."""

from __future__ import annotations

from typing import Any

from costmodel.importers.fields import Fields, Source, flag, size
from costmodel.importers.recipes.base import UNTIED, Block, Kinds, Nested, Recipe, mlp


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

RECIPES: dict[str, Recipe | Nested] = {
    "xlstm": Recipe(
        "xLSTMForCausalLM", mixers=everywhere("mlstm"), others={"mlstm": XLSTM_BLOCK},
        dense=mlp(intermediate_size=projected, activation="silu", bias=flag("use_bias")), groups={"mlstm": {"norm": biased_norms}},
        defaults=UNTIED | XLSTM, aliases={"embedding_dim": "hidden_size", "num_blocks": "num_hidden_layers"},
        only={"weight_mode": ("single", "fused"), "add_out_norm": (True,), "tie_word_embeddings": (False,)}, idle=XLSTM_IDLE,
        notes=("the soft cap of logits is not counted",),
    ),
}  # fmt: skip
