"""Model types that mix attention with recurrences."""

from __future__ import annotations

from costmodel.importers.recipes.base import (
    DELTANET,
    GATED_SHARED,
    LINEAR,
    LOCAL_EXPERTS,
    NO_DENSE,
    NO_SLIDING,
    PLAIN,
    STEPS,
    TYPED,
    UNBIASED,
    Nested,
    Recipe,
    biased,
    every_step,
    interval,
    moe,
    rotary,
)  # fmt: skip

RECIPES: dict[str, Recipe | Nested] = {
    "qwen3_next": Recipe(
        "Qwen3NextForCausalLM", biased(qk_norm="head", output_gate=True, rotary_dim=rotary),
        interval(LINEAR, "full_attention_interval"), others={LINEAR: DELTANET}, feeds=every_step,
        experts=moe(**GATED_SHARED), mtp=1,
        defaults=PLAIN | UNBIASED | STEPS | {"head_dim": 256, "partial_rotary_factor": 0.25, "full_attention_interval": 4},
        aliases=LOCAL_EXPERTS, only={"use_sliding_window": (False,)}, idle=NO_SLIDING | NO_DENSE | TYPED,
    ),
}  # fmt: skip
